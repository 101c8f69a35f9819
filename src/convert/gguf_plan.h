/* What a model becomes as GGUF: every tensor with its name, type and the places its rows come from.
 * Made from the bound model, so that any readable format is a source; nothing is read yet. MLX
 * folders are planned in the same terms (mlx_plan.h). */
#ifndef MFI_CONVERT_GGUF_PLAN_H
#define MFI_CONVERT_GGUF_PLAN_H

#include "convert/gguf_write.h"
#include "model/model.h"

/* A type that can be asked for. */
typedef struct mfi_gp_target {
    const char *name;   /* "q4_k" */
    mfi_qtype type;     /* of matrices */
    mfi_qtype head;     /* of the output matrix, also where it is the embedding */
    mfi_qtype gates;    /* of the small matrices that Gated DeltaNet's gates come from */
    uint32_t file_type; /* general.file_type */
} mfi_gp_target;

/* NULL if there is none of that name. */
const mfi_gp_target *mfi_gp_find_target(const char *name);
#define MFI_GP_TARGETS "f32, f16, bf16, q8_0, q6_k, q4_k, q4_0"

#define MFI_GP_PARTS      2
#define MFI_GP_NAME_BYTES 128 /* more than GGUF allows */

/* Rows of a resident weight, and where they stand in the tensor that is written. */
typedef struct mfi_gp_part {
    mfi_weight_src src;
    mfi_row_map map;
} mfi_gp_part;

/* n_slices matrices of rows x cols, written one behind the other. A vector counts as one element a
 * row, but for those of rank two (convolution taps). */
typedef struct mfi_gp_tensor {
    char name[MFI_GP_NAME_BYTES];
    mfi_qtype type;
    uint32_t n_dims, dims[MFI_MAX_DIMS];
    uint32_t n_slices, rows, cols;
    bool vector;
    bool log_neg;     /* A_log from -exp(A_log) */
    uint32_t n_parts; /* 0: an expert's matrix a slice */
    mfi_gp_part parts[MFI_GP_PARTS];
    uint32_t layer; /* of experts */
    mfi_expert_proj proj;
} mfi_gp_tensor;

typedef struct mfi_gp {
    mfi_gp_tensor *tensors;
    uint32_t n_tensors, cap_tensors;
    uint64_t in_bytes; /* that will be read */
    bool mlx;          /* sources in MLX types are decoded to the bits of mx.dequantize */
} mfi_gp;

/* Close the plan also after a failure. */
mf_status mfi_gp_open(mfi_gp *plan, const mfi_model *model, const mfi_gp_target *target,
                      mf_error *err);
void mfi_gp_close(mfi_gp *plan);

/* For who plans another format: appends a tensor (NULL: no memory) whose name is the two joined;
 * the tensor of that name if it is among the last few; the order in a file, relative to that in
 * which the model is bound; a projection's experts; and, at the end, in_bytes. */
mfi_gp_tensor *mfi_gp_append(mfi_gp *plan, const char *prefix, const char *name);
mfi_gp_tensor *mfi_gp_begun(const mfi_gp *plan, const char *prefix, const char *name);
mfi_row_map mfi_gp_target_map(const mfi_shape *shape, mfi_row_map map);
void mfi_gp_set_experts(mfi_gp_tensor *t, const mfi_shape *s, uint32_t layer, mfi_expert_proj proj);
void mfi_gp_count_bytes(mfi_gp *plan, const mfi_model *model);

/* Where slice `s` has its rows if they are an expert's. */
const mfi_expert_src *mfi_gp_expert(const mfi_model *model, const mfi_gp_tensor *t, uint32_t s);

#endif
