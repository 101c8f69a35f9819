/* What a model becomes as GGUF: every tensor with its name, type and the places its rows come from.
 * Made from the bound model, so that any readable format is a source; nothing is read yet. */
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

#define MFI_GP_PARTS 2

/* Rows of a resident weight, and where they stand in the tensor that is written. */
typedef struct mfi_gp_part {
    mfi_weight_src src;
    mfi_row_map map;
} mfi_gp_part;

/* n_slices matrices of rows x cols, written one behind the other. A vector counts as one element a
 * row, but for those of rank two (convolution taps). */
typedef struct mfi_gp_tensor {
    char name[MFI_GGUF_NAME_BYTES_MAX + 1];
    mfi_qtype type;
    uint32_t n_dims, dims[MFI_MAX_DIMS];
    uint32_t n_slices, rows, cols;
    bool vector;
    uint32_t n_parts; /* 0: an expert's matrix a slice */
    mfi_gp_part parts[MFI_GP_PARTS];
    uint32_t layer; /* of experts */
    mfi_expert_proj proj;
} mfi_gp_tensor;

typedef struct mfi_gp {
    mfi_gp_tensor *tensors;
    uint32_t n_tensors, cap_tensors;
    uint64_t in_bytes; /* that will be read */
} mfi_gp;

/* Close the plan also after a failure. */
mf_status mfi_gp_open(mfi_gp *plan, const mfi_model *model, const mfi_gp_target *target,
                      mf_error *err);
void mfi_gp_close(mfi_gp *plan);

/* Where slice `s` has its rows if they are an expert's. */
const mfi_expert_src *mfi_gp_expert(const mfi_model *model, const mfi_gp_tensor *t, uint32_t s);

#endif
