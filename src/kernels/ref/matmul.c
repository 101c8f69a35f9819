/* Matrix products in plain C; called through the kernel table on any thread, over row ranges. A
 * block of columns is decoded once for a few tokens; what is summed in which order is the same for
 * any number of them. Nothing is allocated. */
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

#include "quant/int_form.h"
#include "kernels/lanes.h"
#include "kernels/walk.h"

#define TOK_BLOCK 8 /* tokens that share a decoded block */

static float load_float(uint32_t kind, const void *floats, uint32_t i)
{
    const uint8_t *base = floats;
    uint16_t h;
    float f;
    if (kind == MFI_Q_F32) {
        memcpy(&f, base + (size_t)i * 4, 4);
        return f;
    }
    memcpy(&h, base + (size_t)i * 2, 2);
    return kind == MFI_Q_F16 ? mfi_f16_to_f32(h) : mfi_bf16_to_f32(h);
}

/* Codes [c0, c0 + n) of a row; c0 and n are multiples of 8, and 8 codes are `bits` whole bytes. */
static void unpack(const uint8_t *stream, uint32_t bits, uint32_t c0, uint32_t n, uint8_t *codes)
{
    const uint8_t *p = stream + (size_t)c0 / 8 * bits;
    uint32_t mask = (1u << bits) - 1;
    for (uint32_t i = 0; i < n; i += 8, p += bits) {
        uint64_t v = 0;
        for (uint32_t j = 0; j < bits; j++)
            v |= (uint64_t)p[j] << (8 * j);
        for (uint32_t j = 0; j < 8; j++)
            codes[i + j] = (uint8_t)(v >> (j * bits) & mask);
    }
}

/* n columns as floats; MLX types unrounded: q * scale + bias in float. */
static void decode(mfi_qtype type, const void *const at[3], uint32_t n, float *out)
{
    if (type.kind != MFI_Q_MLX) {
        mfi_dequant_row(type, at, n, out);
        return;
    }
    uint8_t codes[MFI_WALK_COLS];
    unpack(at[0], type.bits, 0, n, codes);
    for (uint32_t i = 0; i < n; i += 32) { /* 32 divides every group */
        float scale = load_float(type.scale, at[1], i / type.group);
        float bias = load_float(type.scale, at[2], i / type.group);
        for (uint32_t j = i; j < i + 32; j++)
            out[j] = (float)codes[j] * scale + bias;
    }
}

static void dot_block(const float *w, const float *x, uint32_t n, float acc[MFI_LANES])
{
    uint32_t i = 0;
    for (; n - i >= MFI_LANES; i += MFI_LANES) {
        for (int j = 0; j < MFI_LANES; j++)
            acc[j] += w[i + j] * x[i + j];
    }
    for (int j = 0; i < n; i++, j++)
        acc[j] += w[i] * x[i];
}

/* Activations of either form; q8 is NULL for floats. */
typedef struct inputs {
    const float *x;
    size_t ldx;
    const mfi_q8 *q8;
    uint32_t cols;
} inputs;

/* Columns [c, c + n) of a token as floats, in `room` if they have to be widened. */
static const float *input_block(const inputs *in, uint32_t t, uint32_t c, uint32_t n, float *room)
{
    if (!in->q8)
        return in->x + t * in->ldx + c;
    const int8_t *q = in->q8->q + (size_t)t * in->cols + c;
    const float *d = in->q8->d + (size_t)t * (in->cols / MFI_Q8_BLOCK) + c / MFI_Q8_BLOCK;
    for (uint32_t i = 0; i < n; i++)
        room[i] = d[i / MFI_Q8_BLOCK] * (float)q[i];
    return room;
}

static void product(const mfi_mat *w, const inputs *in, uint32_t n_tok, float *y, size_t ldy,
                    uint32_t row0, uint32_t row1)
{
    mfi_walk walk = mfi_walk_of(w);
    for (uint32_t r = row0; r < row1; r++) {
        for (uint32_t t0 = 0; t0 < n_tok; t0 += TOK_BLOCK) {
            uint32_t n_t = MFI_MIN(n_tok - t0, TOK_BLOCK);
            float acc[TOK_BLOCK][MFI_LANES] = {0};
            for (uint32_t c = 0, n; c < w->cols; c += n) {
                float block[MFI_WALK_COLS], room[MFI_WALK_COLS];
                const void *at[3];
                n = MFI_MIN(w->cols - c, MFI_WALK_COLS);
                mfi_walk_at(&walk, r, c / MFI_WALK_COLS, at);
                decode(w->type, at, n, block);
                for (uint32_t t = 0; t < n_t; t++)
                    dot_block(block, input_block(in, t0 + t, c, n, room), n, acc[t]);
            }
            for (uint32_t t = 0; t < n_t; t++)
                y[(t0 + t) * ldy + r] = mfi_add_lanes(acc[t]);
        }
    }
}

void mfi_ref_matmul_f32(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                        size_t ldy, uint32_t row0, uint32_t row1)
{
    product(w, &(inputs){.x = x, .ldx = ldx}, n_tok, y, ldy, row0, row1);
}

/* One row of a type with an integer form. */
static void int_row(const mfi_mat *w, mfi_int_form form, const mfi_walk *walk, uint32_t row,
                    const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy)
{
    const uint32_t n_blocks = w->cols / MFI_Q8_BLOCK, sub_cols = form.halves ? 16 : 32;
    for (uint32_t t = 0; t < n_tok; t++)
        y[t * ldy] = 0;
    for (uint32_t c = 0, n; c < w->cols; c += n) {
        const void *at[3];
        mfi_int_codes codes;
        n = MFI_MIN(w->cols - c, MFI_WALK_COLS);
        mfi_walk_at(walk, row, c / MFI_WALK_COLS, at);
        mfi_int_unpack(w->type, at, n, &codes);
        for (uint32_t t = 0; t < n_tok; t++) {
            const int8_t *q = x->q + (size_t)t * w->cols + c;
            const int8_t *lo = x->lo ? x->lo + (size_t)t * w->cols + c : NULL;
            const float *d = (lo ? x->d_fine : x->d) + (size_t)t * n_blocks + c / MFI_Q8_BLOCK;
            for (uint32_t i = 0; i < n; i += sub_cols) {
                const float dx = d[i / MFI_Q8_BLOCK];
                int32_t dot = 0, sum = 0;
                for (uint32_t j = i; j < i + sub_cols; j++) {
                    const int32_t in = lo ? 255 * q[j] + lo[j] : q[j];
                    dot += codes.code[j] * in;
                    sum += in;
                }
                dot -= form.offset * sum;
                y[t * ldy] = fmaf((float)dot, codes.scale[i / sub_cols] * dx, y[t * ldy]);
                if (form.min)
                    y[t * ldy] = fmaf(codes.min[i / sub_cols], dx * (float)sum, y[t * ldy]);
            }
        }
    }
}

void mfi_ref_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                       uint32_t row0, uint32_t row1)
{
    MFI_ASSERT(w->cols % MFI_Q8_BLOCK == 0);
    mfi_int_form form;
    if (!mfi_int_form_of(w->type, &form)) {
        product(w, &(inputs){.q8 = x, .cols = w->cols}, n_tok, y, ldy, row0, row1);
        return;
    }
    mfi_walk walk = mfi_walk_of(w);
    for (uint32_t r = row0; r < row1; r++)
        int_row(w, form, &walk, r, x, n_tok, y + r, ldy);
}

/* The largest magnitude by its bits, so that a NaN wins over infinity and that over any number. */
static float max_abs(const float *x, uint32_t n)
{
    uint32_t max = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        max = MFI_MAX(max, u & 0x7fffffff);
    }
    float f;
    memcpy(&f, &max, sizeof f);
    return f;
}

/* The 16-bit form of block b, whose 8-bit form is there. */
static void quantize_rest(const float *in, uint32_t b, const mfi_q8 *to)
{
    const int8_t *q = to->q + (size_t)b * MFI_Q8_BLOCK;
    int8_t *lo = to->lo + (size_t)b * MFI_Q8_BLOCK;
    const float d = to->d[b], fine = d / 255;
    int32_t sum[2] = {0}, all = 0;
    for (int i = 0; i < MFI_Q8_BLOCK; i++) {
        float rest = fine > 0 ? fmaf(-d, q[i], in[i]) / fine : 0;
        lo[i] = (int8_t)lrintf(MFI_MAX(-127.0f, MFI_MIN(rest, 127.0f)));
        sum[i / MFI_Q8_HALF] += lo[i];
        all += 255 * q[i] + lo[i];
    }
    to->d_fine[b] = fine;
    to->s_fine[b] = fine * (float)all;
    to->h_lo[(size_t)2 * b] = (int16_t)sum[0];
    to->h_lo[(size_t)2 * b + 1] = (int16_t)sum[1];
}

void mfi_ref_quantize_q8(const float *x, uint32_t n, const mfi_q8 *to)
{
    MFI_ASSERT(n % MFI_Q8_BLOCK == 0);
    for (uint32_t b = 0; b < n / MFI_Q8_BLOCK; b++) {
        const float *in = x + (size_t)b * MFI_Q8_BLOCK;
        int8_t *out = to->q + (size_t)b * MFI_Q8_BLOCK;
        float d = max_abs(in, MFI_Q8_BLOCK) / 127;
        int32_t sum[2] = {0};
        if (d == 0 || !isfinite(d)) {
            memset(out, 0, MFI_Q8_BLOCK);
            d = d == 0 ? 0 : NAN;
        } else {
            for (int i = 0; i < MFI_Q8_BLOCK; i++) {
                long code = lrintf(in[i] / d); /* above 127 only where d is subnormal */
                out[i] = (int8_t)MFI_MAX(-127, MFI_MIN(code, 127));
                sum[i / MFI_Q8_HALF] += out[i];
            }
        }
        to->d[b] = d;
        to->s[b] = d * (float)(sum[0] + sum[1]);
        to->h[(size_t)2 * b] = (int16_t)sum[0];
        to->h[(size_t)2 * b + 1] = (int16_t)sum[1];
        if (to->lo)
            quantize_rest(in, b, to);
    }
}

void mfi_ref_get_row(const mfi_mat *w, uint32_t row, float *out)
{
    mfi_walk walk = mfi_walk_of(w);
    for (uint32_t c = 0; c < w->cols; c += MFI_WALK_COLS) {
        const void *at[3];
        mfi_walk_at(&walk, row, c / MFI_WALK_COLS, at);
        decode(w->type, at, MFI_MIN(w->cols - c, MFI_WALK_COLS), out + c);
    }
}
