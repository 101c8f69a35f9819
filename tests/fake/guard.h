/* Memory with unreadable pages on both sides, for code that must not touch a byte too much. */
#ifndef MFT_GUARD_H
#define MFT_GUARD_H

#include <stddef.h>
#include <stdint.h>

typedef enum mft_place {
    MFT_AT_END,   /* the last byte is the last before the upper guard */
    MFT_AT_START, /* the first byte is the first after the lower guard */
    MFT_ODD,      /* one byte after the lower guard */
    MFT_N_PLACES
} mft_place;

/* `bytes` of zeroed memory between two guards; aborts if there is none. */
void *mft_guard_alloc(size_t bytes, mft_place place);
/* Releases all that was allocated. */
void mft_guard_free(void);

#endif
