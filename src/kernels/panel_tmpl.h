/* Unpacking weights into panels: the codes of PANEL_ROWS rows by up to 256 columns, four columns of
 * one row to a 32-bit lane, so that one instruction multiplies four columns of all rows with one
 * 32-bit word of activations. Template of the integer products; the including file defines
 *   PANEL_ROWS, and on vectors of that many 32-bit lanes
 *   panel_slab(p, stride, v)  v[j] = the 32-bit word j (of four) at p + row * stride, by row
 *   panel_half(v)             half floats in the low 16 bits of the lanes, as floats
 *   panel_lookup(table, v)    table[i] for every byte i < 16 of v
 *   panel_pairs(v, a, b)      nibbles 0-3 and 4-7 of each lane, one to a byte
 *   panel_spread(v, bits)     the low four codes of each lane, one to a byte
 *   panel_funnel(a, b, n)     the 64 bits b:a of each lane, moved down by n < 32, low half
 *   panel_dot4(sum, codes, x, wide)  sum + the products of four codes and four activations
 *   PANEL_FLIP                xor of bytes whose codes are wide (int_form.h)
 * What is computed is what mfi_int_unpack gives, to the bit. */
#ifndef MFI_KERNELS_PANEL_TMPL_H
#define MFI_KERNELS_PANEL_TMPL_H

#include <string.h>

#include "quant/int_form.h"
#include "kernels/unroll.h"
#include "kernels/walk.h"
#include "quant/ggml_decode.h"

#define PANEL_STEP 256 /* columns */
#define SHORT_COLS 768 /* of rows so short that a panel is little: fetches go two ahead */

typedef struct panel {
    panel_u codes[PANEL_STEP / 4];
    panel_f scale[16], min[16]; /* by sub-block */
    panel_i dot[16];            /* for one token, instead of codes: with codes' lo, 255 * q + lo */
    panel_u words[2][4];        /* MLX: scales and biases of eight groups */
} panel;

/* What is unpacked: n_blocks blocks of 32 columns from column c on. whole_cols: columns of a row,
 * if all of it may be read, else 0. */
typedef struct panel_part {
    mfi_qtype type;
    uint32_t n_blocks, c, whole_cols;
    const uint8_t *fetch; /* for one token by rows: what to fetch meanwhile, as many bytes */
} panel_part;

/* Where unpacked codes go: to a panel, or straight into the products with one token. Known to the
 * compiler wherever it is used. */
typedef struct sink {
    panel *out;
    panel_i *dot, *dot_lo; /* [16] by sub-block */
    const int8_t *x, *lo;  /* the token's activations, or NULL */
    bool halves, wide;
} sink;

#define BYTES(x) ((x)*0x01010101u)

PANEL_INLINE panel_f as_floats(panel_u bits)
{
    return (panel_f)bits;
}

/* Unsigned byte k of each lane as a float; signed. */
PANEL_INLINE panel_f byte_at(panel_u v, int k)
{
    return __builtin_convertvector((panel_i)(v >> (8 * k) & 255), panel_f);
}

PANEL_INLINE panel_f signed_byte_at(panel_u v, int k)
{
    return __builtin_convertvector((panel_i)(v << (24 - 8 * k)) >> 24, panel_f);
}

#define EACH_ROW(load)                                                                             \
    panel_u v;                                                                                     \
    MFI_UNROLL(16)                                                                                 \
    for (int r = 0; r < PANEL_ROWS; r++, p += stride)                                              \
        v[r] = (load);                                                                             \
    return v

/* The 8, 16 or 32 bits at p + row * stride. */
PANEL_INLINE panel_u column8(const uint8_t *p, size_t stride)
{
    EACH_ROW(*p);
}

PANEL_INLINE panel_u column16(const uint8_t *p, size_t stride)
{
    EACH_ROW(mfi_load16(p));
}

PANEL_INLINE panel_u column32(const uint8_t *p, size_t stride)
{
    EACH_ROW(mfi_load32(p));
}

/* Columns 4i to 4i + 3. */
PANEL_INLINE void put(const sink *to, const uint32_t i, panel_u codes)
{
    const uint32_t sub = to->halves ? i / 4 : i / 8;
    const bool first = i % (to->halves ? 4 : 8) == 0;
    uint32_t x;
    if (!to->x)
        to->out->codes[i] = codes;
    if (to->x) {
        memcpy(&x, to->x + 4 * i, sizeof x);
        to->dot[sub] = panel_dot4(first ? (panel_i){0} : to->dot[sub], codes, x, to->wide);
    }
    if (to->x && to->lo) {
        memcpy(&x, to->lo + 4 * i, sizeof x);
        to->dot_lo[sub] = panel_dot4(first ? (panel_i){0} : to->dot_lo[sub], codes, x, to->wide);
    }
}

/* Low and high nibbles of 16 bytes a row: columns 4j.. and 16 + 4j.. */
PANEL_INLINE void nibbles(const uint8_t *p, size_t stride, panel_u codes[8])
{
    panel_u v[4];
    panel_slab(p, stride, v);
    MFI_UNROLL(4)
    for (int j = 0; j < 4; j++) {
        codes[j] = v[j] & BYTES(15);
        codes[4 + j] = v[j] >> 4 & BYTES(15);
    }
}

PANEL_INLINE void put8(const sink *to, const uint32_t b, const panel_u codes[8])
{
    MFI_UNROLL(8)
    for (uint32_t j = 0; j < 8; j++)
        put(to, 8 * b + j, codes[j]);
}

PANEL_INLINE void put_looked_up(const sink *to, const uint32_t b, const int8_t table[16],
                                uint32_t offset, const panel_u codes[8])
{
    int8_t moved[16];
    for (int i = 0; i < 16; i++)
        moved[i] = (int8_t)(table[i] + (int)offset);
    MFI_UNROLL(8)
    for (uint32_t j = 0; j < 8; j++)
        put(to, 8 * b + j, panel_lookup(moved, codes[j]));
}

/* ---- blocks of 32 ---- */

PANEL_INLINE void panel_q4_0(const uint8_t *p, size_t stride, const uint32_t b, const sink *to)
{
    panel_u codes[8];
    nibbles(p + 2, stride, codes);
    put8(to, b, codes);
    to->out->scale[b] = panel_half(column16(p, stride));
}

PANEL_INLINE void panel_q4_1(const uint8_t *p, size_t stride, const uint32_t b, const sink *to)
{
    panel_u head = column32(p, stride), codes[8];
    nibbles(p + 4, stride, codes);
    put8(to, b, codes);
    to->out->scale[b] = panel_half(head & 0xffff);
    to->out->min[b] = panel_half(head >> 16);
}

PANEL_INLINE void fifth_bits(panel_u bits, panel_u codes[8])
{
    MFI_UNROLL(8)
    for (int j = 0; j < 8; j++)
        codes[j] |= ((bits >> 4 * j & 15) * 0x00204081u & BYTES(1)) << 4;
}

PANEL_INLINE void panel_q5_0(const uint8_t *p, size_t stride, const uint32_t b, const sink *to)
{
    panel_u codes[8];
    nibbles(p + 6, stride, codes);
    fifth_bits(column32(p + 2, stride), codes);
    put8(to, b, codes);
    to->out->scale[b] = panel_half(column16(p, stride));
}

PANEL_INLINE void panel_q5_1(const uint8_t *p, size_t stride, const uint32_t b, const sink *to)
{
    panel_u head = column32(p, stride), codes[8];
    nibbles(p + 8, stride, codes);
    fifth_bits(column32(p + 4, stride), codes);
    put8(to, b, codes);
    to->out->scale[b] = panel_half(head & 0xffff);
    to->out->min[b] = panel_half(head >> 16);
}

PANEL_INLINE void panel_q8_0(const uint8_t *p, size_t stride, const uint32_t b, const sink *to)
{
    panel_u codes[8];
    panel_slab(p + 2, stride, codes);
    panel_slab(p + 18, stride, codes + 4);
    MFI_UNROLL(8)
    for (int j = 0; j < 8; j++)
        codes[j] ^= BYTES(0x80) ^ PANEL_FLIP;
    put8(to, b, codes);
    to->out->scale[b] = panel_half(column16(p, stride));
}

PANEL_INLINE void panel_iq4_nl(const uint8_t *p, size_t stride, const uint32_t b, const sink *to)
{
    panel_u codes[8];
    nibbles(p + 2, stride, codes);
    put_looked_up(to, b, mfi_iq4_curve, 128 ^ (PANEL_FLIP & 255), codes);
    to->out->scale[b] = panel_half(column16(p, stride));
}

/* 2^(e - 128) of an exponent byte in each lane. */
PANEL_INLINE panel_f half_power(panel_u e)
{
    panel_u small = 0x200000u << (e & 1);
    panel_u normal = (e - 1) << 23;
    panel_u is_small = (panel_u)(e < 2);
    return as_floats((small & is_small) | (normal & ~is_small));
}

PANEL_INLINE void panel_mxfp4(const uint8_t *p, size_t stride, const uint32_t b, const sink *to)
{
    panel_u codes[8];
    nibbles(p + 1, stride, codes);
    put_looked_up(to, b, mfi_e2m1_doubled, 12, codes);
    to->out->scale[b] = half_power(column8(p, stride));
}

/* ---- blocks of 256 ---- */

/* Sub-scales and minima, six bits each, of q4_K and q5_K; v: the first 16 bytes of a block. */
PANEL_INLINE void six_bit_scales(const panel_u v[4], panel *out)
{
    const panel_f d = panel_half(v[0] & 0xffff), dmin = -panel_half(v[0] >> 16);
    const panel_u scale[2] = {v[1] & BYTES(63), (v[3] & BYTES(15)) | (v[1] >> 6 & BYTES(3)) << 4};
    const panel_u min[2] = {v[2] & BYTES(63), (v[3] >> 4 & BYTES(15)) | (v[2] >> 6 & BYTES(3))
                                                                            << 4};
    MFI_UNROLL(8)
    for (int s = 0; s < 8; s++) {
        out->scale[s] = d * byte_at(scale[s / 4], s % 4);
        out->min[s] = dmin * byte_at(min[s / 4], s % 4);
    }
}

PANEL_INLINE void panel_q4_k(const uint8_t *p, size_t stride, const sink *to)
{
    panel_u v[4];
    panel_slab(p, stride, v);
    six_bit_scales(v, to->out);
    MFI_UNROLL(8)
    for (uint32_t i = 0; i < 8; i++) { /* 16 bytes: 16 columns, and 16 that are 32 further */
        const uint32_t at = i / 2 * 16 + i % 2 * 4;
        panel_slab(p + 16 + 16 * i, stride, v);
        MFI_UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            put(to, at + j, v[j] & BYTES(15));
            put(to, at + 8 + j, v[j] >> 4 & BYTES(15));
        }
    }
}

PANEL_INLINE void panel_q5_k(const uint8_t *p, size_t stride, const sink *to)
{
    panel_u v[4], high[8];
    panel_slab(p, stride, v);
    six_bit_scales(v, to->out);
    panel_slab(p + 16, stride, high);
    panel_slab(p + 32, stride, high + 4);
    MFI_UNROLL(8)
    for (uint32_t i = 0; i < 8; i++) {
        const uint32_t at = i / 2 * 16 + i % 2 * 4, s = i / 2 * 2;
        panel_slab(p + 48 + 16 * i, stride, v);
        MFI_UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            panel_u bits = high[i % 2 * 4 + j] >> s;
            put(to, at + j, (v[j] & BYTES(15)) | (bits & BYTES(1)) << 4);
            put(to, at + 8 + j, (v[j] >> 4 & BYTES(15)) | (bits >> 1 & BYTES(1)) << 4);
        }
    }
}

PANEL_INLINE void q6_k_scales(const uint8_t *p, size_t stride, panel *out)
{
    const panel_f d = panel_half(column16(p + 208, stride));
    panel_u v[4];
    panel_slab(p + 192, stride, v);
    MFI_UNROLL(16)
    for (int s = 0; s < 16; s++)
        out->scale[s] = d * signed_byte_at(v[s / 4], s % 4);
}

PANEL_INLINE void panel_q6_k(const uint8_t *p, size_t stride, const sink *to)
{
    panel_u v[4], high[4];
    q6_k_scales(p, stride, to->out);
    MFI_UNROLL(4)
    for (uint32_t i = 0; i < 4; i++) { /* 16 columns of each 32 of 128 */
        panel_slab(p + 128 + 16 * i, stride, high);
        MFI_UNROLL(2)
        for (uint32_t h = 0; h < 2; h++) {
            const uint32_t at = i / 2 * 32 + i % 2 * 4 + 8 * h;
            panel_slab(p + i / 2 * 64 + h * 32 + i % 2 * 16, stride, v);
            MFI_UNROLL(4)
            for (uint32_t j = 0; j < 4; j++) {
                panel_u bits = high[j] >> 2 * h;
                put(to, at + j, (v[j] & BYTES(15)) | (bits & BYTES(3)) << 4);
                put(to, at + 16 + j, (v[j] >> 4 & BYTES(15)) | (bits >> 4 & BYTES(3)) << 4);
            }
        }
    }
}

/* Codes of two bits as in q2_K: 16 columns of each 32 of 128 from 16 bytes. Third bits, if any, as
 * in q3_K. */
PANEL_INLINE void two_bits(const uint8_t *p, size_t stride, const uint8_t *third, const sink *to)
{
    panel_u bits[2][4], v[4];
    if (third) {
        panel_slab(third, stride, bits[0]);
        panel_slab(third + 16, stride, bits[1]);
    }
    MFI_UNROLL(4)
    for (uint32_t i = 0; i < 4; i++) {
        panel_slab(p + 16 * i, stride, v);
        MFI_UNROLL(4)
        for (uint32_t k = 0; k < 4; k++) {
            MFI_UNROLL(4)
            for (uint32_t j = 0; j < 4; j++) {
                panel_u code = v[j] >> 2 * k & BYTES(3);
                if (third)
                    code |= (bits[i % 2][j] >> (i / 2 * 4 + k) & BYTES(1)) << 2;
                put(to, i / 2 * 32 + i % 2 * 4 + 8 * k + j, code);
            }
        }
    }
}

PANEL_INLINE void panel_q2_k(const uint8_t *p, size_t stride, const sink *to)
{
    const panel_u head = column32(p + 80, stride);
    const panel_f d = panel_half(head & 0xffff), dmin = -panel_half(head >> 16);
    panel_u v[4];
    panel_slab(p, stride, v);
    MFI_UNROLL(16)
    for (int s = 0; s < 16; s++) {
        to->out->scale[s] = d * byte_at(v[s / 4] & BYTES(15), s % 4);
        to->out->min[s] = dmin * byte_at(v[s / 4] >> 4 & BYTES(15), s % 4);
    }
    two_bits(p + 16, stride, NULL, to);
}

PANEL_INLINE void panel_q3_k(const uint8_t *p, size_t stride, const sink *to)
{
    const panel_f d = panel_half(column16(p + 108, stride));
    panel_u v[4];
    panel_slab(p + 92, stride, v); /* scales in v[1], v[2], v[3] */
    MFI_UNROLL(16)
    for (int s = 0; s < 16; s++) {
        panel_u low = v[1 + s / 4 % 2] >> s / 8 * 4 & BYTES(15);
        panel_u sc = low | (v[3] >> s / 4 * 2 & BYTES(3)) << 4;
        to->out->scale[s] = d * (byte_at(sc, s % 4) - 32.0f);
    }
    two_bits(p + 32, stride, p, to);
}

PANEL_INLINE void panel_iq4_xs(const uint8_t *p, size_t stride, const sink *to)
{
    const panel_u head = column32(p, stride), low = column32(p + 4, stride);
    const panel_f d = panel_half(head & 0xffff);
    MFI_UNROLL(8)
    for (uint32_t s = 0; s < 8; s++) {
        panel_u sc = (low >> 4 * s & 15) | (head >> (16 + 2 * s) & 3) << 4, codes[8];
        to->out->scale[s] = d * __builtin_convertvector((panel_i)sc - 32, panel_f);
        nibbles(p + 8 + 16 * s, stride, codes);
        put_looked_up(to, s, mfi_iq4_curve, 128 ^ (PANEL_FLIP & 255), codes);
    }
}

/* ---- planes ---- */

/* Where the rows of a panel stand in a plane. */
typedef struct panel_plane {
    const uint8_t *p;
    size_t stride;
} panel_plane;

/* Nibbles in the order of columns: MLX's 4 bits, and MXFP4 outside GGUF. */
PANEL_INLINE void ordered_nibbles(panel_plane at, panel_u codes[8])
{
    panel_u v[4];
    panel_slab(at.p, at.stride, v);
    MFI_UNROLL(4)
    for (int j = 0; j < 4; j++)
        panel_pairs(v[j], &codes[2 * j], &codes[2 * j + 1]);
}

/* The same, and NaN for 255. */
PANEL_INLINE panel_f e8m0(panel_u e)
{
    const panel_f nan = as_floats((panel_u){0} + 0x7fc00000u);
    panel_u is_nan = (panel_u)(e == 255);
    return as_floats(((panel_u)nan & is_nan) | ((panel_u)half_power(e) & ~is_nan));
}

PANEL_INLINE void panel_mxfp4_planes(const panel_plane at[2], const uint32_t n_blocks,
                                     const sink *to)
{
    MFI_UNROLL(8)
    for (uint32_t b = 0; b < n_blocks; b++) {
        const panel_plane from = {at[0].p + 16 * b, at[0].stride};
        panel_u codes[8];
        ordered_nibbles(from, codes);
        put_looked_up(to, b, mfi_e2m1_doubled, 12, codes);
        to->out->scale[b] = e8m0(column8(at[1].p + b, at[1].stride));
    }
}

PANEL_INLINE panel_f mlx_float(uint32_t kind, panel_u pair, uint32_t i)
{
    if (kind == MFI_Q_F16)
        return panel_half(i % 2 ? pair >> 16 : pair & 0xffff);
    return as_floats(i % 2 ? pair & 0xffff0000 : pair << 16);
}

/* Scales or biases of the groups, one of each block. Those of two bytes come eight groups at a time
 * where a row has as many, the last with those before them; they are kept in `words` for the next
 * steps. */
PANEL_INLINE void mlx_floats(const panel_part *part, panel_plane at, panel_u words[4],
                             panel_f out[8])
{
    const uint32_t group = part->type.group, per = group / 32, kind = part->type.scale;
    const uint32_t stretch = 8 * group, start = part->c / stretch * stretch;
    const bool by_eight = kind != MFI_Q_F32 && stretch <= part->whole_cols;
    const bool last = by_eight && start + stretch > part->whole_cols;
    const uint32_t before = last ? 8 - (part->whole_cols - start) / group : 0;
    uint32_t g = (part->c - start) / group + before;
    if (by_eight && part->c == start)
        panel_slab(at.p - 2 * before, at.stride, words);
    for (uint32_t b = 0; b < part->n_blocks; b += per, g++) {
        panel_f f;
        if (by_eight)
            f = mlx_float(kind, words[g / 2], g);
        else if (kind == MFI_Q_F32)
            f = as_floats(column32(at.p + b / per * 4, at.stride));
        else
            f = mlx_float(kind, column16(at.p + b / per * 2, at.stride), 0);
        for (uint32_t i = b; i < b + per && i < part->n_blocks; i++)
            out[i] = f;
    }
}

/* Scales and biases of eight blocks, the usual group size known to the compiler. */
PANEL_INLINE void mlx_scales(const panel_part *part, const panel_plane at[3], panel *out)
{
    panel_part p = *part;
    p.n_blocks = 8;
    if (p.type.scale == MFI_Q_BF16 && p.type.group == 64) {
        p.type.scale = MFI_Q_BF16;
        p.type.group = 64;
        mlx_floats(&p, at[1], out->words[0], out->scale);
        mlx_floats(&p, at[2], out->words[1], out->min);
        return;
    }
    mlx_floats(&p, at[1], out->words[0], out->scale);
    mlx_floats(&p, at[2], out->words[1], out->min);
}

/* The codes of 256 columns, `bits` wide: `bits` words of 32 columns at a time. */
PANEL_INLINE void mlx_codes(const uint32_t bits, panel_plane at, const sink *to)
{
    panel_u v[12];
    uint32_t loaded = 0; /* words, all of them still in v at their number modulo 12 */
    MFI_UNROLL(64)
    for (uint32_t i = 0; i < 64; i++) {
        const uint32_t bit = 4 * bits * i, w = bit / 32, shift = bit % 32;
        const bool two = shift + 4 * bits > 32;
        if (w + two >= loaded) {
            panel_slab(at.p + 4 * loaded, at.stride, v + loaded % 12);
            loaded += 4;
        }
        panel_u four = two ? panel_funnel(v[w % 12], v[(w + 1) % 12], shift) : v[w % 12] >> shift;
        put(to, i, bits == 8 ? four ^ PANEL_FLIP : panel_spread(four, bits));
    }
}

PANEL_INLINE void mlx4_codes(panel_plane at, const sink *to)
{
    MFI_UNROLL(8)
    for (uint32_t b = 0; b < 8; b++) {
        panel_u codes[8];
        ordered_nibbles(at, codes);
        put8(to, b, codes);
        at.p += 16;
    }
}

PANEL_INLINE void panel_mlx(const panel_part *part, const uint32_t bits, const panel_plane at[3],
                            const sink *to)
{
    mlx_floats(part, at[1], to->out->words[0], to->out->scale);
    mlx_floats(part, at[2], to->out->words[1], to->out->min);
    if (bits == 4)
        mlx4_codes(at[0], to);
    else
        mlx_codes(bits, at[0], to);
}

/* ---- by type ---- */

/* Unpacks a part to out->codes. With activations x it has eight blocks, and their dot products go
 * to out->dot instead. MLX codes are always read as if there were eight. */
typedef void panel_fn(const panel_part *part, const panel_plane at[3], const int8_t *x,
                      const int8_t *lo, panel *out);

/* Defines unpack_<name> from `body`, which unpacks n blocks of a `part` at `at` to `to`. */
#define PANEL_OF(name, is_halves, is_wide, body)                                                   \
    PANEL_INLINE void body_##name(const panel_part *part, const panel_plane at[3],                 \
                                  const uint32_t n, const sink *to)                                \
    {                                                                                              \
        (void)part, (void)n;                                                                       \
        body;                                                                                      \
    }                                                                                              \
    static void unpack_##name(const panel_part *part, const panel_plane at[3], const int8_t *x,    \
                              const int8_t *lo, panel *out)                                        \
    {                                                                                              \
        panel_i dot[16], dot_lo[16];                                                               \
        sink to = {                                                                                \
            .out = out, .dot = dot, .dot_lo = dot_lo, .halves = is_halves, .wide = is_wide};       \
        if (!x) {                                                                                  \
            body_##name(part, at, part->n_blocks, &to);                                            \
            return;                                                                                \
        }                                                                                          \
        to.x = x;                                                                                  \
        if (lo) {                                                                                  \
            to.lo = lo;                                                                            \
            body_##name(part, at, 8, &to);                                                         \
            MFI_UNROLL(16)                                                                         \
            for (int i = 0; i < ((is_halves) ? 16 : 8); i++)                                       \
                dot[i] = (dot[i] << 8) - dot[i] + dot_lo[i];                                       \
        } else {                                                                                   \
            to.lo = NULL;                                                                          \
            body_##name(part, at, 8, &to);                                                         \
        }                                                                                          \
        MFI_UNROLL(16)                                                                             \
        for (int i = 0; i < ((is_halves) ? 16 : 8); i++)                                           \
            out->dot[i] = dot[i];                                                                  \
    }
#define PANEL_OF_32(name, n_bytes, is_wide)                                                        \
    PANEL_OF(name, false, is_wide,                                                                 \
             MFI_UNROLL(8) for (uint32_t b = 0; b < n; b++)                                        \
                 panel_##name(at[0].p + (size_t)b * (n_bytes), at[0].stride, b, to))
#define PANEL_OF_256(name, is_halves, is_wide)                                                     \
    PANEL_OF(name, is_halves, is_wide, panel_##name(at[0].p, at[0].stride, to))
#define PANEL_OF_MLX(bits) PANEL_OF(mlx##bits, false, bits == 8, panel_mlx(part, bits, at, to))

PANEL_OF_32(q4_0, 18, false)
PANEL_OF_32(q4_1, 20, false)
PANEL_OF_32(q5_0, 22, false)
PANEL_OF_32(q5_1, 24, false)
PANEL_OF_32(q8_0, 34, true)
PANEL_OF_32(iq4_nl, 18, true)
PANEL_OF_32(mxfp4, 17, false)
PANEL_OF_256(q2_k, true, false)
PANEL_OF_256(q3_k, true, false)
PANEL_OF_256(q4_k, false, false)
PANEL_OF_256(q5_k, false, false)
PANEL_OF_256(q6_k, true, false)
PANEL_OF_256(iq4_xs, false, true)
PANEL_OF_MLX(2)
PANEL_OF_MLX(3)
PANEL_OF_MLX(4)
PANEL_OF_MLX(5)
PANEL_OF_MLX(6)
PANEL_OF_MLX(8)
PANEL_OF(mxfp4_planes, false, false, panel_mxfp4_planes(at, n, to))

/* Only for types that have an integer form. */
static panel_fn *panel_unpacker(mfi_qtype type)
{
    static panel_fn *const ggml[] = {
        [2] = unpack_q4_0,   [3] = unpack_q4_1,  [6] = unpack_q5_0,    [7] = unpack_q5_1,
        [8] = unpack_q8_0,   [10] = unpack_q2_k, [11] = unpack_q3_k,   [12] = unpack_q4_k,
        [13] = unpack_q5_k,  [14] = unpack_q6_k, [20] = unpack_iq4_nl, [23] = unpack_iq4_xs,
        [39] = unpack_mxfp4,
    };
    static panel_fn *const mlx[9] = {
        [2] = unpack_mlx2, [3] = unpack_mlx3, [4] = unpack_mlx4,
        [5] = unpack_mlx5, [6] = unpack_mlx6, [8] = unpack_mlx8,
    };
    MFI_ASSERT(type.kind == MFI_Q_MLX ? type.bits < MFI_ARRAY_LEN(mlx)
                                      : type.bits < MFI_ARRAY_LEN(ggml));
    return type.kind == MFI_Q_MLX     ? mlx[type.bits]
           : type.kind == MFI_Q_MXFP4 ? unpack_mxfp4_planes
                                      : ggml[type.bits];
}

#endif
