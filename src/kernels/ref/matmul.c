/* Matrix products in plain C; called through the kernel table on any thread, over row ranges. A
 * block of columns is decoded once for a few tokens; what is summed in which order is the same for
 * any number of them. Nothing is allocated. */
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

#include "kernels/lanes.h"

#define TOK_BLOCK 8   /* tokens that share a decoded block */
#define COL_BLOCK 128 /* columns decoded at once: a multiple of every group and of the lanes */

/* The planes of one row. */
typedef struct row_view {
    const uint8_t *w, *scale, *bias;
} row_view;

static row_view view_row(const mfi_mat *w, uint32_t row)
{
    row_view v = {(const uint8_t *)w->planes[0] +
                      (uint64_t)row * mfi_quant_row_bytes(w->type, 0, w->cols),
                  NULL, NULL};
    if (w->type.kind == MFI_Q_MLX) {
        uint64_t offset = (uint64_t)row * mfi_quant_row_bytes(w->type, 1, w->cols);
        v.scale = (const uint8_t *)w->planes[1] + offset;
        v.bias = (const uint8_t *)w->planes[2] + offset;
    }
    return v;
}

static float load_float(uint32_t kind, const uint8_t *base, uint32_t i)
{
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

/* Columns [c0, c0 + n) as floats; MLX types unrounded: q * scale + bias in float. */
static void decode(mfi_qtype type, row_view row, uint32_t c0, uint32_t n, float *out)
{
    if (type.kind != MFI_Q_MLX) {
        for (uint32_t i = 0; i < n; i++)
            out[i] = load_float(type.kind, row.w, c0 + i);
        return;
    }
    uint8_t codes[COL_BLOCK];
    unpack(row.w, type.bits, c0, n, codes);
    for (uint32_t i = 0; i < n; i += 32) { /* 32 divides every group */
        float scale = load_float(type.scale, row.scale, (c0 + i) / type.group);
        float bias = load_float(type.scale, row.bias, (c0 + i) / type.group);
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

void mfi_ref_matmul_f32(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                        size_t ldy, uint32_t row0, uint32_t row1)
{
    for (uint32_t r = row0; r < row1; r++) {
        row_view row = view_row(w, r);
        for (uint32_t t0 = 0; t0 < n_tok; t0 += TOK_BLOCK) {
            uint32_t n_t = MFI_MIN(n_tok - t0, TOK_BLOCK);
            float acc[TOK_BLOCK][MFI_LANES] = {0};
            for (uint32_t c = 0; c < w->cols; c += MFI_MIN(w->cols - c, COL_BLOCK)) {
                float block[COL_BLOCK];
                uint32_t n = MFI_MIN(w->cols - c, COL_BLOCK);
                decode(w->type, row, c, n, block);
                for (uint32_t t = 0; t < n_t; t++)
                    dot_block(block, x + (t0 + t) * ldx + c, n, acc[t]);
            }
            for (uint32_t t = 0; t < n_t; t++)
                y[(t0 + t) * ldy + r] = mfi_add_lanes(acc[t]);
        }
    }
}

void mfi_ref_matmul_q8(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                       uint32_t row0, uint32_t row1)
{
    MFI_ASSERT(w->type.kind == MFI_Q_MLX && w->cols % MFI_Q8_BLOCK == 0);
    uint32_t n_blocks = w->cols / MFI_Q8_BLOCK;
    for (uint32_t r = row0; r < row1; r++) {
        row_view row = view_row(w, r);
        for (uint32_t t0 = 0; t0 < n_tok; t0 += TOK_BLOCK) {
            uint32_t n_t = MFI_MIN(n_tok - t0, TOK_BLOCK);
            float sum[TOK_BLOCK] = {0};
            for (uint32_t b = 0; b < n_blocks; b++) {
                uint8_t codes[MFI_Q8_BLOCK];
                uint32_t c = b * MFI_Q8_BLOCK;
                float scale = load_float(w->type.scale, row.scale, c / w->type.group);
                float bias = load_float(w->type.scale, row.bias, c / w->type.group);
                unpack(row.w, w->type.bits, c, MFI_Q8_BLOCK, codes);
                for (uint32_t t = 0; t < n_t; t++) {
                    const int8_t *q = x->q + (size_t)(t0 + t) * w->cols + c;
                    size_t at = (size_t)(t0 + t) * n_blocks + b;
                    int32_t dot = 0;
                    for (int j = 0; j < MFI_Q8_BLOCK; j++)
                        dot += codes[j] * q[j];
                    sum[t] += x->d[at] * scale * (float)dot + bias * x->s[at];
                }
            }
            for (uint32_t t = 0; t < n_t; t++)
                y[(t0 + t) * ldy + r] = sum[t];
        }
    }
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

void mfi_ref_quantize_q8(const float *x, uint32_t n, int8_t *q, float *d, float *s)
{
    MFI_ASSERT(n % MFI_Q8_BLOCK == 0);
    for (uint32_t b = 0; b < n / MFI_Q8_BLOCK; b++) {
        const float *in = x + (size_t)b * MFI_Q8_BLOCK;
        int8_t *out = q + (size_t)b * MFI_Q8_BLOCK;
        int32_t sum = 0;
        d[b] = max_abs(in, MFI_Q8_BLOCK) / 127;
        if (d[b] == 0 || !isfinite(d[b])) {
            memset(out, 0, MFI_Q8_BLOCK);
            d[b] = d[b] == 0 ? 0 : NAN;
            s[b] = d[b];
            continue;
        }
        for (int i = 0; i < MFI_Q8_BLOCK; i++) {
            long code = lrintf(in[i] / d[b]); /* above 127 only where d is subnormal */
            out[i] = (int8_t)MFI_MAX(-127, MFI_MIN(code, 127));
            sum += out[i];
        }
        s[b] = d[b] * (float)sum;
    }
}

void mfi_ref_get_row(const mfi_mat *w, uint32_t row, float *out)
{
    row_view v = view_row(w, row);
    for (uint32_t c = 0; c < w->cols; c += COL_BLOCK)
        decode(w->type, v, c, MFI_MIN(w->cols - c, COL_BLOCK), out + c);
}
