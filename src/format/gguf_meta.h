/* The metadata of one GGUF file; for gguf.c. */
#ifndef MFI_FORMAT_GGUF_META_H
#define MFI_FORMAT_GGUF_META_H

#include "format/catalog_build.h"
#include "format/gguf_read.h"

typedef struct mfi_gguf_meta {
    mfi_json *tree;      /* released by the caller, also after a failure */
    uint64_t alignment;  /* of tensor data */
    mfi_catalog *arrays; /* gets the places of arrays; NULL: nobody asks for them */
} mfi_gguf_meta;

/* Reads n_kv keys and values; the reader stands at the first. */
mf_status mfi_gguf_meta_read(mfi_gguf_reader *r, uint64_t n_kv, mfi_gguf_meta *meta);

#endif
