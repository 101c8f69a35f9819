/* What a model becomes as GGUF: every tensor with its name, type and the places its rows come from.
 * Made from the bound model, so that any readable format is a source; nothing is read yet. MLX
 * folders are planned in the same terms (mlx_plan.h). */
#ifndef MFI_CONVERT_GGUF_PLAN_H
#define MFI_CONVERT_GGUF_PLAN_H

#include "convert/gguf_write.h"
#include "model/model.h"

/* A type that can be asked for. */
typedef struct mfi_gp_target {
    const char *name; /* "q4_k" */
    mfi_qtype type;   /* of matrices */
    mfi_qtype head;   /* of the output matrix, also where it is the embedding */
    mfi_qtype gates;  /* of the small matrices that Gated DeltaNet's gates come from */
    mfi_qtype experts;
    uint32_t file_type; /* general.file_type */
} mfi_gp_target;

/* NULL if there is none of that name. */
const mfi_gp_target *mfi_gp_find_target(const char *name);
#define MFI_GP_TARGETS "f32, f16, bf16, q8_0, q6_k, q4_k, q4_0, mxfp4"

#define MFI_GP_PARTS      3
#define MFI_GP_NAME_BYTES 128 /* more than GGUF allows */

/* Rows of a resident weight, and where they stand in the tensor that is written. */
typedef struct mfi_gp_part {
    mfi_weight_src src;
    mfi_row_map map;
} mfi_gp_part;

/* What the file has in another arrangement: each slice is read and decoded whole, in_rows x
 * in_cols, and element (r, c) of what is written is the one at (r, first + step c), (first + step
 * r, c) or (c, first + step r) there. */
typedef enum mfi_gp_gather {
    MFI_GP_IN_ORDER,
    MFI_GP_SOME_COLUMNS,
    MFI_GP_SOME_ROWS,
    MFI_GP_TRANSPOSED
} mfi_gp_gather;

/* n_slices matrices of rows x cols, written one behind the other. A vector counts as one element a
 * row, but for those of rank two (convolution taps). */
typedef struct mfi_gp_tensor {
    char name[MFI_GP_NAME_BYTES];
    mfi_qtype type;
    uint32_t n_dims, dims[MFI_MAX_DIMS];
    uint32_t n_slices, rows, cols;
    bool vector;
    bool log_neg; /* A_log from -exp(A_log) */
    mfi_gp_gather gather;
    uint32_t in_rows, in_cols, first, step; /* unless IN_ORDER */
    uint32_t n_parts;                       /* 0: an expert's matrix a slice */
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

/* Columns of the tensor that it comes from. */
static inline uint32_t mfi_gp_in_cols(const mfi_gp_tensor *t)
{
    return t->gather ? t->in_cols : t->cols;
}

/* Where slice `s` has its rows if they are an expert's. Where gate and up alternate, both have the
 * same. */
const mfi_expert_src *mfi_gp_expert(const mfi_model *model, const mfi_gp_tensor *t, uint32_t s);

#endif
