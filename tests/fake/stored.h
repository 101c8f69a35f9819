/* What a model's files hold, read through the engine's own readers. */
#ifndef MFT_STORED_H
#define MFT_STORED_H

#include "format/format.h"

mfi_catalog *mft_catalog_open(const char *path);
/* A plane of a tensor with a byte behind it; release with free. */
unsigned char *mft_read_plane(const mfi_catalog *c, const mfi_tensor *t, uint32_t plane);

#endif
