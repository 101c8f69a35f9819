/* Matrix products of the types that have no kernel of their own: GGML blocks, FP8, MXFP4. Called
 * from the two matmul files, on any thread. A stretch of columns is decoded once for a few tokens.
 *
 * Column c of a row adds w * x to lane c % 16 with one fma, in rising order of c; at the end the
 * lanes are added pairwise, as for float weights. Nothing is allocated. */
#include <immintrin.h>
#include <string.h>

#include "kernels/walk.h"
#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/tile_avx2.h"
#include "kernels/x86/x86.h"

#define BLOCK_ROWS 8
#define BLOCK_TOKS 8

/* Sums of a row and token. */
typedef struct lanes16 {
    __m256 lo, hi;
} lanes16;

/* Columns [c, c + n) of a token. Those of 8-bit activations, and the last n that are not whole
 * lanes, are written to `room`, with zeros up to whole lanes. */
static const float *input_block(const tile_args *a, uint32_t t, uint32_t c, uint32_t n, float *room)
{
    if (!a->q8) {
        const float *x = a->x + t * a->ldx + c;
        if (n % 16 == 0)
            return x;
        memset(room, 0, MFI_WALK_COLS * sizeof *room);
        memcpy(room, x, n * sizeof *x);
        return room;
    }
    const size_t cols = a->w->cols;
    const int8_t *q = a->q8->q + t * cols + c;
    const float *d = a->q8->d + t * (cols / MFI_Q8_BLOCK) + c / MFI_Q8_BLOCK;
    for (uint32_t b = 0; b < n; b += MFI_Q8_BLOCK, d++) {
        const __m256 scale = _mm256_broadcast_ss(d);
        for (uint32_t i = b; i < b + MFI_Q8_BLOCK; i += 8) {
            __m256i v = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(q + i)));
            _mm256_storeu_ps(room + i, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(v)));
        }
    }
    return room;
}

/* n is a multiple of 16. */
ALWAYS_INLINE void dot(const float *w, const float *const x[], uint32_t n, const uint32_t n_t,
                       lanes16 acc[])
{
    lanes16 sum[4];
    MFI_UNROLL(4)
    for (uint32_t t = 0; t < n_t; t++)
        sum[t] = acc[t];
    for (uint32_t c = 0; c < n; c += 16) {
        const __m256 lo = _mm256_loadu_ps(w + c), hi = _mm256_loadu_ps(w + c + 8);
        MFI_UNROLL(4)
        for (uint32_t t = 0; t < n_t; t++) {
            sum[t].lo = _mm256_fmadd_ps(lo, _mm256_loadu_ps(x[t] + c), sum[t].lo);
            sum[t].hi = _mm256_fmadd_ps(hi, _mm256_loadu_ps(x[t] + c + 8), sum[t].hi);
        }
    }
    MFI_UNROLL(4)
    for (uint32_t t = 0; t < n_t; t++)
        acc[t] = sum[t];
}

static void dot_tokens(const float *w, const float *const x[], uint32_t n, uint32_t n_t,
                       lanes16 acc[])
{
    uint32_t t = 0;
    for (; n_t - t >= 4; t += 4)
        dot(w, x + t, n, 4, acc + t);
    for (; n_t - t >= 2; t += 2)
        dot(w, x + t, n, 2, acc + t);
    if (t < n_t)
        dot(w, x + t, n, 1, acc + t);
}

static void block_tile(const tile_args *a, const mfi_walk *walk, uint32_t row, uint32_t n_r,
                       uint32_t tok, uint32_t n_t)
{
    const mfi_mat *w = a->w;
    mfi_avx2_decoder *decode = mfi_avx2_decoder_of(w->type);
    lanes16 acc[BLOCK_ROWS][BLOCK_TOKS];
    float room[BLOCK_TOKS][MFI_WALK_COLS], block[MFI_WALK_COLS];
    memset(acc, 0, sizeof acc);
    for (uint32_t c = 0, n; c < w->cols; c += n) {
        const float *x[BLOCK_TOKS];
        n = MFI_MIN(w->cols - c, MFI_WALK_COLS);
        const uint32_t n_whole = (uint32_t)mfi_align_up(n, 16);
        for (uint32_t t = 0; t < n_t; t++)
            x[t] = input_block(a, tok + t, c, n, room[t]);
        for (uint32_t r = 0; r < n_r; r++) {
            const void *at[3];
            mfi_walk_at(walk, row + r, c / MFI_WALK_COLS, at);
            if (decode)
                decode(at, n, block);
            else
                mfi_dequant_row(w->type, at, n, block);
            memset(block + n, 0, (n_whole - n) * sizeof *block);
            dot_tokens(block, x, n_whole, n_t, acc[r]);
        }
    }
    for (uint32_t r = 0; r < n_r; r++)
        for (uint32_t t = 0; t < n_t; t++)
            a->y[(tok + t) * a->ldy + row + r] = add_lanes16(acc[r][t].lo, acc[r][t].hi);
}

static void block_run(const tile_args *a, uint32_t n_tok, uint32_t row0, uint32_t row1)
{
    const mfi_walk walk = mfi_walk_of(a->w);
    for (uint32_t row = row0; row < row1; row += BLOCK_ROWS)
        for (uint32_t tok = 0; tok < n_tok; tok += BLOCK_TOKS)
            block_tile(a, &walk, row, MFI_MIN(row1 - row, BLOCK_ROWS), tok,
                       MFI_MIN(n_tok - tok, BLOCK_TOKS));
}

void mfi_avx2_block_f32(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                        size_t ldy, uint32_t row0, uint32_t row1)
{
    block_run(&(tile_args){.w = w, .x = x, .ldx = ldx, .y = y, .ldy = ldy}, n_tok, row0, row1);
}

void mfi_avx2_block_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                       uint32_t row0, uint32_t row1)
{
    block_run(&(tile_args){.w = w, .q8 = x, .y = y, .ldy = ldy}, n_tok, row0, row1);
}
