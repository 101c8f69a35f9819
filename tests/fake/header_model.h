/* Models without weights: a config.json and the names, types and shapes of tensors, at published
 * sizes. Enough to open a model and to plan, where files would have hundreds of gigabytes. */
#ifndef MFT_HEADER_MODEL_H
#define MFT_HEADER_MODEL_H

#include "format/catalog.h"

typedef struct mft_headers mft_headers;

/* `config` is the text of config.json. */
mft_headers *mft_headers_new(const char *config);
/* The same for GGUF; `meta` is its metadata as a JSON object. */
mft_headers *mft_headers_new_gguf(const char *meta);
void mft_headers_free(mft_headers *headers);

/* A tensor [d0][d1][d2], a 0 ending the dimensions; its name is made as printf makes it. */
void mft_headers_add(mft_headers *headers, mfi_qtype type, uint32_t d0, uint32_t d1, uint32_t d2,
                     const char *name, ...) __attribute__((format(printf, 6, 7)));

/* What was added; the headers must outlive it. */
const mfi_catalog *mft_headers_catalog(const mft_headers *headers);

#endif
