/* A device for weight buffers that keeps books: every bind must be aligned and within bounds, every
 * unbind must name a live one. */
#ifndef MFT_FAKE_DEVICE_H
#define MFT_FAKE_DEVICE_H

#include "format/weight_map.h"

#define MFT_MAX_BINDS 64

typedef struct mft_bind {
    const void *address;
    uint64_t len;
    bool live;
} mft_bind;

typedef struct mft_device {
    mfi_weight_device device;      /* what the code under test gets */
    mft_bind binds[MFT_MAX_BINDS]; /* in the order of calls; handles point into it */
    int n_binds, n_live, n_refused;
    bool refuse; /* the next binds fail */
} mft_device;

void mft_device_init(mft_device *device, uint64_t page, uint64_t max_buf_bytes);

#endif
