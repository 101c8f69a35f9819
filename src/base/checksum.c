/* Checksums; see checksum.h. xxHash's own code, compiled in: nothing is linked. Any thread. */
#include "base/checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

struct mfi_checksum {
    XXH3_state_t state;
};

mfi_checksum *mfi_checksum_open(void)
{
    mfi_checksum *sum = (mfi_checksum *)XXH3_createState(); /* which knows how to align it */
    if (sum)
        mfi_checksum_reset(sum);
    return sum;
}

void mfi_checksum_close(mfi_checksum **sum)
{
    if (*sum)
        XXH3_freeState(&(*sum)->state);
    *sum = NULL;
}

void mfi_checksum_reset(mfi_checksum *sum)
{
    XXH3_64bits_reset(&sum->state);
}

void mfi_checksum_add(mfi_checksum *sum, const void *bytes, size_t len)
{
    XXH3_64bits_update(&sum->state, bytes, len);
}

uint64_t mfi_checksum_value(const mfi_checksum *sum)
{
    return XXH3_64bits_digest(&sum->state);
}

uint64_t mfi_checksum_of(const void *bytes, size_t len)
{
    return XXH3_64bits(bytes, len);
}
