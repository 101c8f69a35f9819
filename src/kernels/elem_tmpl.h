/* Element-wise entries, written once and compiled for each level by a file that includes this one:
 * the compiler vectorises them with that file's flags. No sum is reordered and nothing contracted,
 * so the levels agree to the bit. All functions are static; ELEM_ENTRIES puts them into a table. */
#ifndef MFI_KERNELS_ELEM_TMPL_H
#define MFI_KERNELS_ELEM_TMPL_H

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/lanes.h"

/* Eight lanes as a vector type, since compilers don't see them in a loop over an array. */
typedef float elem_oct __attribute__((vector_size(8 * sizeof(float))));

static inline float elem_sum_squares(const float *x, uint32_t n)
{
    elem_oct lo = {0}, hi = {0}, a, b;
    float lanes[MFI_LANES] = {0};
    uint32_t i = 0;
    for (; n - i >= MFI_LANES; i += MFI_LANES) {
        memcpy(&a, x + i, sizeof a);
        memcpy(&b, x + i + 8, sizeof b);
        lo += a * a;
        hi += b * b;
    }
    memcpy(lanes, &lo, sizeof lo);
    memcpy(lanes + 8, &hi, sizeof hi);
    for (int j = 0; i < n; i++, j++)
        lanes[j] += x[i] * x[i];
    return mfi_add_lanes(lanes);
}

static void elem_rmsnorm(const float *x, const float *w, float eps, uint32_t n, float *y)
{
    float factor = 1.0f / sqrtf(elem_sum_squares(x, n) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] * factor * w[i];
}

static void elem_l2norm(const float *x, float eps, float scale, uint32_t n, float *y)
{
    float factor = scale / sqrtf(elem_sum_squares(x, n) + eps);
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] * factor;
}

static void elem_add(float *y, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void elem_axpy(float *y, float a, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

static void elem_rope_half(float *x, uint32_t n_rot, const float *cosines, const float *sines)
{
    uint32_t half = n_rot / 2;
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + half] = b * cosines[i] + a * sines[i];
    }
}

static void elem_rope_pairs(float *x, uint32_t n_rot, const float *cosines, const float *sines)
{
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cosines[i] - b * sines[i];
        x[2 * i + 1] = b * cosines[i] + a * sines[i];
    }
}

/* Initialisers for a table. */
#define ELEM_ENTRIES                                                                               \
    .rmsnorm = elem_rmsnorm, .l2norm = elem_l2norm, .add = elem_add, .axpy = elem_axpy,            \
    .rope_half = elem_rope_half, .rope_pairs = elem_rope_pairs

#endif
