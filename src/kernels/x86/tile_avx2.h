/* How a matrix product is cut into tiles; the template of the two matmul files. A tile is n_r rows
 * by n_t tokens whose sums are held in registers. Every shape does the same operations in the same
 * order for each of its outputs, so the cut changes no bit. */
#ifndef MFI_KERNELS_X86_TILE_AVX2_H
#define MFI_KERNELS_X86_TILE_AVX2_H

#include "kernels/kernels.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Rows that stay in the second-level cache while all tokens pass over them. */
#define TILE_ROWS 32

/* What a tile is computed from; x or q8 is used. */
typedef struct tile_args {
    const mfi_mat *w;
    const float *x; /* [n_tok][ldx] */
    size_t ldx;
    const mfi_q8 *q8;
    float *y; /* [n_tok][ldy] */
    size_t ldy;
} tile_args;

typedef void (*tile_fn)(const tile_args *a, uint32_t row, uint32_t tok);

/* The shapes: rows x tokens. */
typedef struct tile_set {
    tile_fn r4t1, r1t1, r2t2, r1t2, r1t4;
} tile_set;

/* Defines the five shapes of `body(args, row, tok, n_r, n_t, ...)` and their set `name`. */
#define TILE_SET(name, body, ...)                                                                  \
    static void name##_r4t1(const tile_args *a, uint32_t row, uint32_t tok)                        \
    {                                                                                              \
        body(a, row, tok, 4, 1, __VA_ARGS__);                                                      \
    }                                                                                              \
    static void name##_r1t1(const tile_args *a, uint32_t row, uint32_t tok)                        \
    {                                                                                              \
        body(a, row, tok, 1, 1, __VA_ARGS__);                                                      \
    }                                                                                              \
    static void name##_r2t2(const tile_args *a, uint32_t row, uint32_t tok)                        \
    {                                                                                              \
        body(a, row, tok, 2, 2, __VA_ARGS__);                                                      \
    }                                                                                              \
    static void name##_r1t2(const tile_args *a, uint32_t row, uint32_t tok)                        \
    {                                                                                              \
        body(a, row, tok, 1, 2, __VA_ARGS__);                                                      \
    }                                                                                              \
    static void name##_r1t4(const tile_args *a, uint32_t row, uint32_t tok)                        \
    {                                                                                              \
        body(a, row, tok, 1, 4, __VA_ARGS__);                                                      \
    }                                                                                              \
    static const tile_set name = {name##_r4t1, name##_r1t1, name##_r2t2, name##_r1t2, name##_r1t4}

static inline void tile_rows(const tile_args *a, uint32_t row, uint32_t end, uint32_t tok,
                             tile_fn several, uint32_t n_r, tile_fn one)
{
    for (; end - row >= n_r; row += n_r)
        several(a, row, tok);
    for (; row < end; row++)
        one(a, row, tok);
}

static inline void tile_run(const tile_set *set, const tile_args *a, uint32_t n_tok, uint32_t row0,
                            uint32_t row1)
{
    for (uint32_t row = row0, end; row < row1; row = end) {
        uint32_t tok = 0;
        end = row + MFI_MIN(row1 - row, TILE_ROWS);
        for (; n_tok - tok >= 4; tok += 4)
            tile_rows(a, row, end, tok, set->r1t4, 1, set->r1t4);
        for (; n_tok - tok >= 2; tok += 2)
            tile_rows(a, row, end, tok, set->r2t2, 2, set->r1t2);
        if (tok < n_tok)
            tile_rows(a, row, end, tok, set->r4t1, 4, set->r1t1);
    }
}

/* A scale or bias. */
static inline float tile_load_float(uint32_t kind, const uint8_t *base, uint32_t i)
{
    uint32_t u = 0;
    float f;
    if (kind == MFI_Q_F32) {
        __builtin_memcpy(&f, base + (size_t)i * 4, 4);
        return f;
    }
    __builtin_memcpy(&u, base + (size_t)i * 2, 2);
    if (kind == MFI_Q_F16)
        return _cvtsh_ss((uint16_t)u);
    u <<= 16;
    __builtin_memcpy(&f, &u, 4);
    return f;
}

#endif
