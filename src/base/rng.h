/* A small seedable generator (SplitMix64; Steele, Lea, Flood 2014) for the sampler and for tests.
 * The same seed gives the same sequence on every machine. */
#ifndef MFI_BASE_RNG_H
#define MFI_BASE_RNG_H

#include <stdint.h>

typedef struct mfi_rng {
    uint64_t state;
} mfi_rng;

static inline uint64_t mfi_rng_next(mfi_rng *rng)
{
    uint64_t z = (rng->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in [0, 1), 53 bits. */
static inline double mfi_rng_unit(mfi_rng *rng)
{
    return (double)(mfi_rng_next(rng) >> 11) * 0x1.0p-53;
}

/* Uniform in [0, n), n > 0; the bias is below n / 2^64. */
static inline uint64_t mfi_rng_below(mfi_rng *rng, uint64_t n)
{
    return mfi_rng_next(rng) % n;
}

#endif
