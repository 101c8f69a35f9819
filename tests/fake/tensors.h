/* Reading a small safetensors file of expected values whole; F32 and I32 only. */
#ifndef MFT_TENSORS_H
#define MFT_TENSORS_H

#include "base/json.h"

typedef struct mft_tensors {
    mfi_json *header;
    char *data; /* [len], apart from the header: a header of odd length would misalign it */
    size_t len;
} mft_tensors;

void mft_tensors_open(mft_tensors *t, const char *path);
void mft_tensors_close(mft_tensors *t);
/* Elements of a tensor (and their number), NULL if there is none of that name and type. */
const void *mft_tensors_get(const mft_tensors *t, const char *name, const char *dtype, size_t *n);

#endif
