/* Checksums; see checksum.h. Owns the one inclusion of libxxhash's header, compiled into this file,
 * so that nothing is linked. Called by the pack's reader and writer, a state a thread. */
#include "base/checksum.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/defs.h"

struct mfi_checksum {
    XXH3_state_t state;
};

mfi_checksum *mfi_checksum_open(void)
{
    mfi_checksum *sum = aligned_alloc(64, mfi_align_up(sizeof *sum, 64));
    if (sum)
        mfi_checksum_reset(sum);
    return sum;
}

void mfi_checksum_close(mfi_checksum **sum)
{
    free(*sum);
    *sum = NULL;
}

void mfi_checksum_reset(mfi_checksum *sum)
{
    XXH3_INITSTATE(&sum->state);
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
