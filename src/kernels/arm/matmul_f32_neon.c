/* Matrix products from float activations, and from 8-bit ones of types without an integer form,
 * NEON. Called through the kernel table on any thread. A stretch of columns is decoded once for a
 * few tokens.
 *
 * Column c of a row adds w * x to lane c % 16 with one fma, in rising order of c; at the end the
 * lanes are added pairwise. MLX weights are fma(q, scale, bias). Nothing is allocated. */
#include <string.h>

#include "kernels/arm/arm.h"
#include "kernels/arm/simd_neon.h"
#include "kernels/walk.h"
#include "quant/int_form.h"

#define BLOCK_ROWS 8
#define BLOCK_TOKS 8

typedef struct tile_args {
    const mfi_mat *w;
    const float *x; /* or */
    const mfi_q8 *q8;
    size_t ldx;
    float *y;
    size_t ldy;
} tile_args;

/* ---- weights ---- */

static void decode_f16(const uint16_t *from, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 4; i += 4)
        vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from + i))));
    for (; i < n; i++)
        out[i] = mfi_f16_to_f32(from[i]);
}

static void decode_bf16(const uint16_t *from, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; n - i >= 4; i += 4)
        vst1q_f32(out + i, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(from + i), 16)));
    for (; i < n; i++)
        out[i] = mfi_bf16_to_f32(from[i]);
}

static void decode_mlx(mfi_qtype type, const void *const at[3], uint32_t n, float *out)
{
    mfi_int_codes codes;
    mfi_int_unpack(type, at, n, &codes);
    for (uint32_t i = 0; i < n; i += 8) {
        const float32x4_t scale = vdupq_n_f32(codes.scale[i / 32]),
                          bias = vdupq_n_f32(codes.min[i / 32]);
        const uint16x8_t q = vmovl_u8(vld1_u8(codes.code + i));
        vst1q_f32(out + i, vfmaq_f32(bias, vcvtq_f32_u32(vmovl_u16(vget_low_u16(q))), scale));
        vst1q_f32(out + i + 4, vfmaq_f32(bias, vcvtq_f32_u32(vmovl_high_u16(q)), scale));
    }
}

/* n columns as floats. Halves need not be aligned in memory. */
static void decode(mfi_qtype type, const void *const at[3], uint32_t n, float *out)
{
    uint16_t halves[MFI_WALK_COLS];
    if (type.kind == MFI_Q_MLX) {
        decode_mlx(type, at, n, out);
        return;
    }
    if (type.kind != MFI_Q_F16 && type.kind != MFI_Q_BF16) {
        mfi_dequant_row(type, at, n, out);
        return;
    }
    memcpy(halves, at[0], n * sizeof *halves);
    (type.kind == MFI_Q_F16 ? decode_f16 : decode_bf16)(halves, n, out);
}

/* ---- activations ---- */

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
    for (uint32_t i = 0; i < n; i += 8) {
        const float32x4_t scale = vdupq_n_f32(d[i / MFI_Q8_BLOCK]);
        const int16x8_t v = vmovl_s8(vld1_s8(q + i));
        vst1q_f32(room + i, vmulq_f32(scale, vcvtq_f32_s32(vmovl_s16(vget_low_s16(v)))));
        vst1q_f32(room + i + 4, vmulq_f32(scale, vcvtq_f32_s32(vmovl_high_s16(v))));
    }
    return room;
}

/* ---- products ---- */

/* n is a multiple of 16, n_t known to the compiler. */
static inline __attribute__((always_inline)) void dot(const float *w, const float *const x[],
                                                      uint32_t n, const uint32_t n_t, lanes16 acc[])
{
    lanes16 sum[4];
#pragma GCC unroll 4
    for (uint32_t t = 0; t < n_t; t++)
        sum[t] = acc[t];
    for (uint32_t c = 0; c < n; c += 16) {
#pragma GCC unroll 4
        for (uint32_t k = 0; k < 4; k++) {
            const float32x4_t v = vld1q_f32(w + c + 4 * k);
#pragma GCC unroll 4
            for (uint32_t t = 0; t < n_t; t++)
                sum[t].v[k] = vfmaq_f32(sum[t].v[k], v, vld1q_f32(x[t] + c + 4 * k));
        }
    }
#pragma GCC unroll 4
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

static void tile(const tile_args *a, const mfi_walk *walk, uint32_t row, uint32_t n_r, uint32_t tok,
                 uint32_t n_t)
{
    const mfi_mat *w = a->w;
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
            decode(w->type, at, n, block);
            memset(block + n, 0, (n_whole - n) * sizeof *block);
            dot_tokens(block, x, n_whole, n_t, acc[r]);
        }
    }
    for (uint32_t r = 0; r < n_r; r++)
        for (uint32_t t = 0; t < n_t; t++)
            a->y[(tok + t) * a->ldy + row + r] = add_lanes16(acc[r][t]);
}

static void run(const tile_args *a, uint32_t n_tok, uint32_t row0, uint32_t row1)
{
    const mfi_walk walk = mfi_walk_of(a->w);
    for (uint32_t row = row0; row < row1; row += BLOCK_ROWS)
        for (uint32_t tok = 0; tok < n_tok; tok += BLOCK_TOKS)
            tile(a, &walk, row, MFI_MIN(row1 - row, BLOCK_ROWS), tok,
                 MFI_MIN(n_tok - tok, BLOCK_TOKS));
}

void mfi_neon_matmul_f32(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                         size_t ldy, uint32_t row0, uint32_t row1)
{
    run(&(tile_args){.w = w, .x = x, .ldx = ldx, .y = y, .ldy = ldy}, n_tok, row0, row1);
}

void mfi_neon_block_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                       uint32_t row0, uint32_t row1)
{
    run(&(tile_args){.w = w, .q8 = x, .y = y, .ldy = ldy}, n_tok, row0, row1);
}
