/* Random tensor data: bits from a counter, scales chosen so that decoded values have zero mean and
 * the standard deviation asked for. */
#ifndef MFI_SYNTH_FILL_H
#define MFI_SYNTH_FILL_H

#include "synth/list.h"

#define MFI_FILL_SCALES 16
#define MFI_FILL_LEVELS 4096

/* Word i of stream `key`. Any word can be had without those before it, so that data doesn't depend
 * on how it is cut into pieces. */
static inline uint64_t mfi_fill_word(uint64_t key, uint64_t i)
{
    uint64_t z = key + (i + 1) * 0x9e3779b97f4a7c15u; /* SplitMix64 at position i */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Maps bytes whose value is 0x80 to 0, and nibbles whose value is 0 to 8: the one code of int8 and
 * of Q4_0 that has no negative, which would pull the mean down. */
static inline uint64_t mfi_fill_symmetric_bytes(uint64_t w)
{
    const uint64_t low7 = 0x7f7f7f7f7f7f7f7fu, top = 0x8080808080808080u;
    uint64_t x = w ^ top; /* the byte is zero now */
    uint64_t zero = ~(((x & low7) + low7) | x | low7);
    return w ^ zero;
}

static inline uint64_t mfi_fill_symmetric_nibbles(uint64_t w)
{
    uint64_t any = w | w >> 1 | w >> 2 | w >> 3;
    return w | (~any & 0x1111111111111111u) << 3;
}

/* A tensor's generator. */
typedef struct mfi_filler {
    mfi_qtype type;
    mfi_synth_fill fill;
    float a, b;
    uint64_t key;
    uint16_t d[MFI_FILL_SCALES], dmin[MFI_FILL_SCALES]; /* of blocks, float16 */
    uint8_t exponent;                                   /* MXFP4: the smaller of two */
    uint32_t p_exponent;             /* of 2^16: how often the larger one is taken */
    uint32_t zero_units, row_units;  /* of each row's units the first so many are zero */
    uint16_t level[MFI_FILL_LEVELS]; /* 16-bit floats */
} mfi_filler;

/* For everything but the tables. `key`: mfi_fill_key of the seed and the name. */
void mfi_filler_init(mfi_filler *f, const mfi_synth_tensor *tensor, uint64_t key);
uint64_t mfi_fill_key(uint64_t seed, const char *name);

/* The smallest piece that can be made alone: a block, or a few floats. */
void mfi_filler_unit(const mfi_filler *f, uint32_t *n_elements, uint32_t *n_bytes);
/* Zero for the first zero_cols columns of every row of `cols`; whole units. */
void mfi_filler_mask(mfi_filler *f, uint32_t zero_cols, uint32_t cols);
/* Writes units [first, first + n) of the tensor. */
void mfi_filler_run(const mfi_filler *f, uint64_t first, uint64_t n, void *out);

#endif
