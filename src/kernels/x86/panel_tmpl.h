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
 *   PANEL_FLIP                xor of bytes whose codes are wide (int_form.h)
 * What is computed is what mfi_int_unpack gives, to the bit. */
#ifndef MFI_KERNELS_X86_PANEL_TMPL_H
#define MFI_KERNELS_X86_PANEL_TMPL_H

#include <string.h>

#include "kernels/int_form.h"
#include "kernels/walk.h"
#include "quant/ggml_decode.h"

#define PANEL_STEP 256 /* columns */

typedef struct panel {
    panel_u codes[PANEL_STEP / 4];
    panel_f scale[16], min[16]; /* by sub-block */
} panel;

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
    _Pragma("GCC unroll 16") for (int r = 0; r < PANEL_ROWS; r++, p += stride) v[r] = (load);      \
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

/* Low and high nibbles of 16 bytes a row: columns 4j.. and 16 + 4j.. */
PANEL_INLINE void nibbles(const uint8_t *p, size_t stride, panel_u codes[8])
{
    panel_u v[4];
    panel_slab(p, stride, v);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        codes[j] = v[j] & BYTES(15);
        codes[4 + j] = v[j] >> 4 & BYTES(15);
    }
}

PANEL_INLINE void look_up(const int8_t table[16], uint32_t offset, panel_u codes[8])
{
    int8_t moved[16];
    for (int i = 0; i < 16; i++)
        moved[i] = (int8_t)(table[i] + (int)offset);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        codes[j] = panel_lookup(moved, codes[j]);
}

/* ---- blocks of 32 ---- */

PANEL_INLINE void panel_q4_0(const uint8_t *p, size_t stride, uint32_t b, panel *out)
{
    nibbles(p + 2, stride, out->codes + 8 * b);
    out->scale[b] = panel_half(column16(p, stride));
}

PANEL_INLINE void panel_q4_1(const uint8_t *p, size_t stride, uint32_t b, panel *out)
{
    panel_u head = column32(p, stride);
    nibbles(p + 4, stride, out->codes + 8 * b);
    out->scale[b] = panel_half(head & 0xffff);
    out->min[b] = panel_half(head >> 16);
}

PANEL_INLINE void fifth_bits(panel_u bits, panel_u codes[8])
{
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        codes[j] |= ((bits >> 4 * j & 15) * 0x00204081u & BYTES(1)) << 4;
}

PANEL_INLINE void panel_q5_0(const uint8_t *p, size_t stride, uint32_t b, panel *out)
{
    nibbles(p + 6, stride, out->codes + 8 * b);
    fifth_bits(column32(p + 2, stride), out->codes + 8 * b);
    out->scale[b] = panel_half(column16(p, stride));
}

PANEL_INLINE void panel_q5_1(const uint8_t *p, size_t stride, uint32_t b, panel *out)
{
    panel_u head = column32(p, stride);
    nibbles(p + 8, stride, out->codes + 8 * b);
    fifth_bits(column32(p + 4, stride), out->codes + 8 * b);
    out->scale[b] = panel_half(head & 0xffff);
    out->min[b] = panel_half(head >> 16);
}

PANEL_INLINE void panel_q8_0(const uint8_t *p, size_t stride, uint32_t b, panel *out)
{
    panel_slab(p + 2, stride, out->codes + 8 * b);
    panel_slab(p + 18, stride, out->codes + 8 * b + 4);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        out->codes[8 * b + j] ^= BYTES(0x80) ^ PANEL_FLIP;
    out->scale[b] = panel_half(column16(p, stride));
}

PANEL_INLINE void panel_iq4_nl(const uint8_t *p, size_t stride, uint32_t b, panel *out)
{
    nibbles(p + 2, stride, out->codes + 8 * b);
    look_up(mfi_iq4_curve, 128 ^ (PANEL_FLIP & 255), out->codes + 8 * b);
    out->scale[b] = panel_half(column16(p, stride));
}

/* 2^(e - 128) of an exponent byte in each lane. */
PANEL_INLINE panel_f half_power(panel_u e)
{
    panel_u small = 0x200000u << (e & 1);
    panel_u normal = (e - 1) << 23;
    panel_u is_small = (panel_u)(e < 2);
    return as_floats((small & is_small) | (normal & ~is_small));
}

PANEL_INLINE void panel_mxfp4(const uint8_t *p, size_t stride, uint32_t b, panel *out)
{
    nibbles(p + 1, stride, out->codes + 8 * b);
    look_up(mfi_e2m1_doubled, 12, out->codes + 8 * b);
    out->scale[b] = half_power(column8(p, stride));
}

/* ---- blocks of 256 ---- */

/* Sub-scales and minima, six bits each, of q4_K and q5_K; v: the first 16 bytes of a block. */
PANEL_INLINE void six_bit_scales(const panel_u v[4], panel *out)
{
    const panel_f d = panel_half(v[0] & 0xffff), dmin = -panel_half(v[0] >> 16);
    const panel_u scale[2] = {v[1] & BYTES(63), (v[3] & BYTES(15)) | (v[1] >> 6 & BYTES(3)) << 4};
    const panel_u min[2] = {v[2] & BYTES(63), (v[3] >> 4 & BYTES(15)) | (v[2] >> 6 & BYTES(3))
                                                                            << 4};
#pragma GCC unroll 8
    for (int s = 0; s < 8; s++) {
        out->scale[s] = d * byte_at(scale[s / 4], s % 4);
        out->min[s] = dmin * byte_at(min[s / 4], s % 4);
    }
}

PANEL_INLINE void panel_q4_k(const uint8_t *p, size_t stride, panel *out)
{
    panel_u v[4];
    panel_slab(p, stride, v);
    six_bit_scales(v, out);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) { /* 16 bytes: 16 columns, and 16 that are 32 further */
        panel_u *codes = out->codes + i / 2 * 16 + i % 2 * 4;
        panel_slab(p + 16 + 16 * i, stride, v);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            codes[j] = v[j] & BYTES(15);
            codes[8 + j] = v[j] >> 4 & BYTES(15);
        }
    }
}

PANEL_INLINE void panel_q5_k(const uint8_t *p, size_t stride, panel *out)
{
    panel_u v[4], high[8];
    panel_slab(p, stride, v);
    six_bit_scales(v, out);
    panel_slab(p + 16, stride, high);
    panel_slab(p + 32, stride, high + 4);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        panel_u *codes = out->codes + i / 2 * 16 + i % 2 * 4;
        const int s = i / 2 * 2;
        panel_slab(p + 48 + 16 * i, stride, v);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            panel_u bits = high[i % 2 * 4 + j] >> s;
            codes[j] = (v[j] & BYTES(15)) | (bits & BYTES(1)) << 4;
            codes[8 + j] = (v[j] >> 4 & BYTES(15)) | (bits >> 1 & BYTES(1)) << 4;
        }
    }
}

PANEL_INLINE void panel_q6_k(const uint8_t *p, size_t stride, panel *out)
{
    const panel_f d = panel_half(column16(p + 208, stride));
    panel_u v[4], high[4];
    panel_slab(p + 192, stride, v);
#pragma GCC unroll 16
    for (int s = 0; s < 16; s++)
        out->scale[s] = d * signed_byte_at(v[s / 4], s % 4);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* 16 columns of each 32 of 128 */
        panel_u *codes = out->codes + i / 2 * 32 + i % 2 * 4;
        panel_slab(p + 128 + 16 * i, stride, high);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            panel_slab(p + i / 2 * 64 + h * 32 + i % 2 * 16, stride, v);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                panel_u bits = high[j] >> 2 * h;
                codes[8 * h + j] = (v[j] & BYTES(15)) | (bits & BYTES(3)) << 4;
                codes[8 * h + 16 + j] = (v[j] >> 4 & BYTES(15)) | (bits >> 4 & BYTES(3)) << 4;
            }
        }
    }
}

/* Codes of two bits as in q2_K: 16 columns of each 32 of 128 from 16 bytes. */
PANEL_INLINE void two_bits(const uint8_t *p, size_t stride, panel_u codes[64])
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        panel_u v[4];
        panel_slab(p + 16 * i, stride, v);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                codes[i / 2 * 32 + i % 2 * 4 + 8 * k + j] = v[j] >> 2 * k & BYTES(3);
    }
}

PANEL_INLINE void panel_q2_k(const uint8_t *p, size_t stride, panel *out)
{
    const panel_u head = column32(p + 80, stride);
    const panel_f d = panel_half(head & 0xffff), dmin = -panel_half(head >> 16);
    panel_u v[4];
    panel_slab(p, stride, v);
#pragma GCC unroll 16
    for (int s = 0; s < 16; s++) {
        out->scale[s] = d * byte_at(v[s / 4] & BYTES(15), s % 4);
        out->min[s] = dmin * byte_at(v[s / 4] >> 4 & BYTES(15), s % 4);
    }
    two_bits(p + 16, stride, out->codes);
}

PANEL_INLINE void panel_q3_k(const uint8_t *p, size_t stride, panel *out)
{
    const panel_f d = panel_half(column16(p + 108, stride));
    panel_u v[4], third[8];
    panel_slab(p + 92, stride, v); /* scales in v[1], v[2], v[3] */
#pragma GCC unroll 16
    for (int s = 0; s < 16; s++) {
        panel_u low = v[1 + s / 4 % 2] >> s / 8 * 4 & BYTES(15);
        panel_u sc = low | (v[3] >> s / 4 * 2 & BYTES(3)) << 4;
        out->scale[s] = d * (byte_at(sc, s % 4) - 32.0f);
    }
    two_bits(p + 32, stride, out->codes);
    panel_slab(p, stride, third);
    panel_slab(p + 16, stride, third + 4);
#pragma GCC unroll 8
    for (int s = 0; s < 8; s++)
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            out->codes[8 * s + j] |= (third[j] >> s & BYTES(1)) << 2;
}

PANEL_INLINE void panel_iq4_xs(const uint8_t *p, size_t stride, panel *out)
{
    const panel_u head = column32(p, stride), low = column32(p + 4, stride);
    const panel_f d = panel_half(head & 0xffff);
#pragma GCC unroll 8
    for (int s = 0; s < 8; s++) {
        panel_u sc = (low >> 4 * s & 15) | (head >> (16 + 2 * s) & 3) << 4;
        out->scale[s] = d * __builtin_convertvector((panel_i)sc - 32, panel_f);
        nibbles(p + 8 + 16 * s, stride, out->codes + 8 * s);
        look_up(mfi_iq4_curve, 128 ^ (PANEL_FLIP & 255), out->codes + 8 * s);
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
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
        panel_pairs(v[j], &codes[2 * j], &codes[2 * j + 1]);
}

PANEL_INLINE void panel_mxfp4_planes(const panel_plane at[2], uint32_t n_blocks, panel *out)
{
    const panel_f nan = as_floats((panel_u){0} + 0x7fc00000u);
    for (uint32_t b = 0; b < n_blocks; b++) {
        panel_plane codes = {at[0].p + 16 * b, at[0].stride};
        panel_u e = column8(at[1].p + b, at[1].stride);
        panel_u is_nan = (panel_u)(e == 255);
        ordered_nibbles(codes, out->codes + 8 * b);
        look_up(mfi_e2m1_doubled, 12, out->codes + 8 * b);
        out->scale[b] = as_floats(((panel_u)nan & is_nan) | ((panel_u)half_power(e) & ~is_nan));
    }
}

/* Scales or biases of groups of `group` columns, one of each block of 32. */
PANEL_INLINE void mlx_floats(mfi_qtype type, panel_plane at, uint32_t n_blocks, panel_f out[8])
{
    const uint32_t per = type.group / 32;
    panel_u pair = {0};
    for (uint32_t b = 0; b < n_blocks; b += per) {
        const uint32_t g = b / per;
        panel_f f;
        if (type.scale == MFI_Q_F32) {
            f = as_floats(column32(at.p + 4 * g, at.stride));
        } else {
            if (g % 2 == 0 && b + per < n_blocks)
                pair = column32(at.p + 2 * g, at.stride);
            else if (g % 2 == 0)
                pair = column16(at.p + 2 * g, at.stride);
            else
                pair >>= 16;
            f = type.scale == MFI_Q_F16 ? panel_half(pair & 0xffff) : as_floats(pair << 16);
        }
        for (uint32_t i = b; i < b + per && i < n_blocks; i++)
            out[i] = f;
    }
}

/* The codes of 256 columns, `bits` wide. */
PANEL_INLINE void mlx_codes(const uint32_t bits, panel_plane at, panel_u codes[64])
{
    panel_u v[64 + 1];
#pragma GCC unroll 16
    for (uint32_t i = 0; i < 2 * bits; i++)
        panel_slab(at.p + 16 * i, at.stride, v + 4 * i);
    v[8 * bits] = (panel_u){0};
    if (bits == 8) {
        for (int i = 0; i < 64; i++)
            codes[i] = v[i] ^ PANEL_FLIP;
        return;
    }
#pragma GCC unroll 64
    for (uint32_t i = 0; i < 64; i++) {
        const uint32_t bit = 4 * bits * i, w = bit / 32, shift = bit % 32;
        panel_u four = shift + 4 * bits <= 32 ? v[w] >> shift : panel_funnel(v[w], v[w + 1], shift);
        codes[i] = panel_spread(four, bits);
    }
}

PANEL_INLINE void mlx4_codes(panel_plane at, panel_u codes[64])
{
#pragma GCC unroll 8
    for (int b = 0; b < 8; b++) {
        ordered_nibbles(at, codes + 8 * b);
        at.p += 16;
    }
}

PANEL_INLINE void panel_mlx(mfi_qtype type, const uint32_t bits, const panel_plane at[3],
                            uint32_t n_blocks, panel *out)
{
    mlx_floats(type, at[1], n_blocks, out->scale);
    mlx_floats(type, at[2], n_blocks, out->min);
    if (bits == 4)
        mlx4_codes(at[0], out->codes);
    else
        mlx_codes(bits, at[0], out->codes);
}

/* ---- by type ---- */

/* Unpacks n_blocks blocks of 32 columns. MLX codes are read as if there were eight. */
typedef void panel_fn(mfi_qtype type, const panel_plane at[3], uint32_t n_blocks, panel *out);

#define PANEL_OF_32(name, n_bytes)                                                                 \
    static void unpack_##name(mfi_qtype type, const panel_plane at[3], uint32_t n_blocks,          \
                              panel *out)                                                          \
    {                                                                                              \
        (void)type;                                                                                \
        for (uint32_t b = 0; b < n_blocks; b++)                                                    \
            panel_##name(at[0].p + (size_t)b * (n_bytes), at[0].stride, b, out);                   \
    }
#define PANEL_OF_256(name)                                                                         \
    static void unpack_##name(mfi_qtype type, const panel_plane at[3], uint32_t n_blocks,          \
                              panel *out)                                                          \
    {                                                                                              \
        (void)type;                                                                                \
        (void)n_blocks;                                                                            \
        panel_##name(at[0].p, at[0].stride, out);                                                  \
    }
#define PANEL_OF_MLX(bits)                                                                         \
    static void unpack_mlx##bits(mfi_qtype type, const panel_plane at[3], uint32_t n_blocks,       \
                                 panel *out)                                                       \
    {                                                                                              \
        panel_mlx(type, bits, at, n_blocks, out);                                                  \
    }

PANEL_OF_32(q4_0, 18)
PANEL_OF_32(q4_1, 20)
PANEL_OF_32(q5_0, 22)
PANEL_OF_32(q5_1, 24)
PANEL_OF_32(q8_0, 34)
PANEL_OF_32(iq4_nl, 18)
PANEL_OF_32(mxfp4, 17)
PANEL_OF_256(q2_k)
PANEL_OF_256(q3_k)
PANEL_OF_256(q4_k)
PANEL_OF_256(q5_k)
PANEL_OF_256(q6_k)
PANEL_OF_256(iq4_xs)
PANEL_OF_MLX(2)
PANEL_OF_MLX(3)
PANEL_OF_MLX(4)
PANEL_OF_MLX(5)
PANEL_OF_MLX(6)
PANEL_OF_MLX(8)

static void unpack_mxfp4_planes(mfi_qtype type, const panel_plane at[3], uint32_t n_blocks,
                                panel *out)
{
    (void)type;
    panel_mxfp4_planes(at, n_blocks, out);
}

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
