/* The tensors of a synthetic model: names, types, and how each is filled. */
#ifndef MFI_SYNTH_LIST_H
#define MFI_SYNTH_LIST_H

#include "convert/gguf_write.h"
#include "synth/shapes.h"

/* The type that was asked for; single tensors may get another one (list.c). */
typedef enum mfi_synth_quant {
    MFI_SYNTH_Q4_K,
    MFI_SYNTH_Q4_0,
    MFI_SYNTH_Q6_K,
    MFI_SYNTH_Q8_0,
    MFI_SYNTH_MXFP4,
    MFI_SYNTH_BF16,
    MFI_SYNTH_F16
} mfi_synth_quant;

typedef enum mfi_synth_fill {
    MFI_FILL_RANDOM,  /* zero mean, standard deviation a */
    MFI_FILL_UNIFORM, /* float32, uniform in [a, b) */
    MFI_FILL_NORMAL,  /* float32, normal with mean a and standard deviation b */
    MFI_FILL_EMBED,   /* the two tables: table.h */
    MFI_FILL_OUTPUT
} mfi_synth_fill;

/* What the layers add to the residual stream, the embedding's energy being 1: all but the last
 * mixer together, and the last mixer (list.c says why it is apart). */
#define MFI_SYNTH_ENERGY_LAYERS 0.15
#define MFI_SYNTH_ENERGY_LAST   0.5

typedef struct mfi_synth_tensor {
    char name[MFI_GGUF_NAME_BYTES_MAX + 1];
    mfi_qtype type;
    uint32_t n_dims;
    uint32_t dims[MFI_MAX_DIMS]; /* outermost first */
    mfi_synth_fill fill;
    float a, b;
    bool own; /* with skewed routing, zero in the topic's columns (table.c) */
} mfi_synth_tensor;

typedef struct mfi_synth_list {
    mfi_synth_tensor *tensors;
    uint32_t n, cap;
    uint64_t bytes; /* of all, each at a multiple of MFI_GGUF_ALIGN */
    bool failed;    /* out of memory */
} mfi_synth_list;

/* MF_ERR_ARGUMENT if the quantisation can't hold the shape. */
mf_status mfi_synth_list_open(mfi_synth_list *list, const mfi_synth_shape *shape,
                              mfi_synth_quant quant, uint32_t n_layers, mf_error *err);
void mfi_synth_list_close(mfi_synth_list *list);

/* MF_ERR_ARGUMENT with what there is, if there is no such one. */
mf_status mfi_synth_quant_find(const char *name, mfi_synth_quant *quant, mf_error *err);
/* llama.cpp's number of it, for general.file_type. */
uint32_t mfi_synth_quant_file_type(mfi_synth_quant quant);

#endif
