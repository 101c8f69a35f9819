/* What the tensors of a Hugging Face checkpoint become in MLX's layout. */
#ifndef MFI_CONVERT_NAMES_H
#define MFI_CONVERT_NAMES_H

#include "base/status.h"

typedef enum mfi_cv_kind {
    MFI_CV_UNKNOWN,
    MFI_CV_DROP,    /* vision, multi-token prediction */
    MFI_CV_PLAIN,   /* stored as it is */
    MFI_CV_NORM,    /* stored as w where w + 1 is meant */
    MFI_CV_CONV,    /* [C][1][k] -> [C][k][1] */
    MFI_CV_MATRIX,  /* quantised */
    MFI_CV_HEAD,    /* the same; absent if tied to the embedding */
    MFI_CV_ROUTER,  /* quantised at 8 bits */
    MFI_CV_EXPERT,  /* one of E matrices that are stacked */
    MFI_CV_EXPERTS, /* [E][r][c], stacked already */
    MFI_CV_GATE_UP  /* [E][2r][c]: gate's rows, then up's */
} mfi_cv_kind;

#define MFI_CV_NAME_BYTES 160

typedef struct mfi_cv_name {
    mfi_cv_kind kind;
    /* The name as written; quantised ones without ".weight". For GATE_UP: that of gate. */
    char out[MFI_CV_NAME_BYTES];
    uint32_t expert; /* EXPERT: which */
    /* EXPERT: the input's name is its first `head` bytes, the number, and the rest from `tail`. */
    uint32_t head, tail;
} mfi_cv_name;

/* Says what `name` becomes; kind UNKNOWN if the family has no such tensor. */
mfi_cv_name mfi_cv_map(const char *name);

/* True for the `model_type`s whose names this table knows. */
bool mfi_cv_supports(const char *model_type);
#define MFI_CV_SUPPORTED "qwen3_5_moe, qwen3_5_moe_text"
/* The `model_type` that is written: MLX knows one for both. */
#define MFI_CV_MODEL_TYPE "qwen3_5_moe"

#endif
