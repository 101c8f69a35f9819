/* Decoding every other type, chosen at run time. */
#ifndef MFI_METAL_DECODE_ANY
#define MFI_METAL_DECODE_ANY

#include "backend/metal/decode.metal"

/* The code of eight 4-bit elements: i and i + 16 of a block share a byte. */
MFI_FN uint nibble_of(device const uchar *q, uint i8, int i)
{
    return q[i8 % 2 * 8 + i] >> i8 / 2 * 4 & 15u;
}

MFI_FN void q4_legacy(device const uchar *b, uint i8, bool least, thread float *v)
{
    float d = half_at(b), m = least ? half_at(b + 2) : 0.0f;
    device const uchar *q = b + (least ? 4 : 2);
    EACH8(i)
    {
        uint code = nibble_of(q, i8, i);
        float scaled = d * (float)(least ? (int)code : (int)code - 8);
        v[i] = least ? scaled + m : scaled;
    }
}

MFI_FN void q5_legacy(device const uchar *b, uint i8, bool least, thread float *v)
{
    device const uchar *rest = b + (least ? 4 : 2);
    float d = half_at(b), m = least ? half_at(b + 2) : 0.0f;
    uint high = ld32(rest) >> 8 * i8;
    EACH8(i)
    {
        uint code = nibble_of(rest + 4, i8, i) | (high >> i & 1) << 4;
        float scaled = d * (float)(least ? (int)code : (int)code - 16);
        v[i] = least ? scaled + m : scaled;
    }
}

MFI_FN void q2_k(device const uchar *b, uint i8, thread float *v)
{
    uint s = i8 / 2, shift = s / 2 % 4 * 2;
    device const uchar *q = b + 16 + s / 8 * 32 + s % 2 * 16 + i8 % 2 * 8;
    float scale = half_at(b + 80) * (float)(b[s] & 15u);
    float least = half_at(b + 82) * (float)(b[s] >> 4u);
    EACH8(i)
    {
        float scaled = scale * (float)(q[i] >> shift & 3u);
        v[i] = scaled - least;
    }
}

MFI_FN void q3_k(device const uchar *b, uint i8, thread float *v)
{
    uint s = i8 / 2, shift = s / 2 % 4 * 2, bit = s / 2;
    device const uchar *q = b + 32 + s / 8 * 32 + s % 2 * 16 + i8 % 2 * 8;
    device const uchar *high = b + s % 2 * 16 + i8 % 2 * 8, *p = b + 96;
    uint code = (p[s % 8] >> s / 8 * 4 & 15u) | (p[8 + s % 4] >> s / 4 * 2 & 3u) << 4;
    float scale = half_at(b + 108) * (float)((int)code - 32);
    EACH8(i) v[i] = scale * (float)((int)(q[i] >> shift & 3u) - (high[i] >> bit & 1u ? 0 : 4));
}

MFI_FN void q1_0(device const uchar *b, uint i8, thread float *v)
{
    float d = half_at(b);
    EACH8(i) v[i] = b[2 + i8] >> i & 1 ? d : -d;
}

MFI_FN void q2_0(device const uchar *b, uint i8, thread float *v)
{
    float d = half_at(b);
    EACH8(i) v[i] = (float)((int)(b[2 + i8 * 2 + i / 4] >> 2 * (i % 4) & 3u) - 1) * d;
}

MFI_FN float digit(uint byte, uint n)
{
    const uint power = n == 0 ? 1 : n == 1 ? 3 : n == 2 ? 9 : n == 3 ? 27 : 81;
    uint fraction = byte * power & 255;
    return (float)((int)(fraction * 3 >> 8) - 1);
}

MFI_FN void tq1_0(device const uchar *b, uint i8, thread float *v)
{
    float d = half_at(b + 52);
    EACH8(i)
    {
        uint e = i8 * 8 + i;
        v[i] = d * (e < 160   ? digit(b[e % 32], e / 32)
                    : e < 240 ? digit(b[32 + (e - 160) % 16], (e - 160) / 16)
                              : digit(b[48 + (e - 240) % 4], (e - 240) / 4));
    }
}

MFI_FN void tq2_0(device const uchar *b, uint i8, thread float *v)
{
    float d = half_at(b + 64);
    uint s = i8 / 4;
    device const uchar *q = b + s / 4 * 32 + i8 % 4 * 8;
    EACH8(i) v[i] = d * (float)((int)(q[i] >> s % 4 * 2 & 3u) - 1);
}

MFI_FN void mxfp4(device const uchar *b, uint i8, thread float *v)
{
    float d = e8m0_half(b[0]);
    EACH8(i) v[i] = d * e2m1_doubled(nibble_of(b + 1, i8, i));
}

MFI_FN float ue4m3_half(uint b)
{
    uint e = b >> 3 & 15;
    float frac = (float)(b & 7);
    if (b == 0x7f)
        return 0;
    if (e == 0)
        return frac * 0.0009765625f;
    return (1 + frac / 8) * as_type<float>((e + 119) << 23);
}

MFI_FN void nvfp4(device const uchar *b, uint i8, thread float *v)
{
    float d = ue4m3_half(b[i8 / 2]);
    device const uchar *q = b + 4 + 8 * (i8 / 2);
    EACH8(i) v[i] = d * e2m1_doubled(q[i] >> i8 % 2 * 4 & 15u);
}

/* ---- IQ ---- */

MFI_FN uint even_signs(uint seven)
{
    return seven | (popcount(seven) & 1) << 7;
}

MFI_FN void emit8(uint entry, uint signs, float d, thread float *v)
{
    EACH8(i)
    {
        uint code = entry >> 2 * i & 3;
        float one = d * (code == 0 ? 8.0f : code == 1 ? 25.0f : code == 2 ? 43.0f : 0.0f);
        v[i] = signs >> i & 1 ? -one : one;
    }
}

MFI_FN void iq2_xxs(device const ushort *tables, device const uchar *b, uint i8, thread float *v)
{
    device const uchar *index = b + 2 + 8 * (i8 / 4);
    uint i = i8 % 4, rest = ld32(index + 4);
    float db = half_at(b) * (0.5f + (float)(rest >> 28)) * 0.25f;
    emit8(tables[MFI_METAL_IQ2_XXS + index[i]], even_signs(rest >> 7 * i & 127), db, v);
}

MFI_FN void iq2_xs(device const ushort *tables, device const uchar *b, uint g, thread float *v)
{
    uint word = ld16(b + 2 + 2 * g), scale = b[66 + g / 4] >> g / 2 % 2 * 4 & 15u;
    float db = half_at(b) * (0.5f + (float)scale) * 0.25f;
    emit8(tables[MFI_METAL_IQ2_XS + (word & 511)], even_signs(word >> 9), db, v);
}

MFI_FN void iq2_s(device const ushort *tables, device const uchar *b, uint g, thread float *v)
{
    uint index = b[2 + g] | (b[66 + g / 4] >> g % 4 * 2 & 3u) << 8;
    uint scale = b[74 + g / 4] >> g / 2 % 2 * 4 & 15u;
    float db = half_at(b) * (0.5f + (float)scale) * 0.25f;
    emit8(tables[MFI_METAL_IQ2_S + index], b[34 + g], db, v);
}

MFI_FN void iq3_xxs(device const ushort *tables, device const uchar *b, uint i8, thread float *v)
{
    uint s = i8 / 4, k = i8 % 4;
    device const uchar *index = b + 2 + 8 * s + 2 * k;
    uint rest = ld32(b + 66 + 4 * s), signs = even_signs(rest >> 7 * k & 127);
    float db = half_at(b) * (0.5f + (float)(rest >> 28)) * 0.5f;
    uint first = tables[MFI_METAL_IQ3_XXS + index[0]];
    uint second = tables[MFI_METAL_IQ3_XXS + index[1]];
    EACH8(i)
    {
        uint code = (i < 4 ? first : second) >> 3 * (i % 4) & 7;
        float one = db * (code == 7 ? 62.0f : (float)(4 + 8 * code));
        v[i] = signs >> i & 1 ? -one : one;
    }
}

MFI_FN void iq3_s(device const ushort *tables, device const uchar *b, uint i8, thread float *v)
{
    uint signs = b[74 + i8], scale = b[106 + i8 / 8] >> i8 / 4 % 2 * 4 & 15u;
    float db = half_at(b) * (float)(1 + 2 * scale);
    EACH8(i)
    {
        uint g = 2 * i8 + i / 4;
        uint entry = tables[MFI_METAL_IQ3_S + (b[2 + g] | (b[66 + g / 8] >> g % 8 & 1u) << 8)];
        float one = db * (float)(1 + 2 * (entry >> 3 * (i % 4) & 7));
        v[i] = signs >> i & 1 ? -one : one;
    }
}

MFI_FN void emit_shifted(uint entry, bool down, float d, thread float *v)
{
    float delta = down ? -0.125f : 0.125f;
    EACH8(i) v[i] = d * ((float)((int)(entry >> 2 * i & 3) - 1) + delta);
}

MFI_FN void iq1_s(device const ushort *tables, device const uchar *b, uint g, thread float *v)
{
    uint high = ld16(b + 34 + g / 4 * 2), index = b[2 + g] | (high >> g % 4 * 3 & 7) << 8;
    float dl = half_at(b) * (float)(2 * (high >> 12 & 7) + 1);
    emit_shifted(tables[MFI_METAL_IQ1 + index], (high >> 15) != 0, dl, v);
}

MFI_FN void iq1_m(device const ushort *tables, device const uchar *b, uint g, thread float *v)
{
    uint bits = 0;
    for (int i = 0; i < 4; i++)
        bits |= (uint)(b[49 + 2 * i] >> 4) << 4 * i;
    float d = half_of(bits);
    uint high = b[32 + g / 2] >> g % 2 * 4 & 15u;
    uint scale = ld16(b + 48 + g / 8 * 2) >> g / 2 % 4 * 3 & 7;
    emit_shifted(tables[MFI_METAL_IQ1 + (b[g] | (high & 7) << 8)], (high >> 3) != 0,
                 d * (float)(2 * scale + 1), v);
}

constant float iq4_curve[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                1,    13,   25,  38,  53,  69,  89,  113};

MFI_FN void iq4_nl(device const uchar *b, uint i8, thread float *v)
{
    float d = half_at(b);
    EACH8(i) v[i] = d * iq4_curve[nibble_of(b + 2, i8, i)];
}

MFI_FN void iq4_xs(device const uchar *b, uint i8, thread float *v)
{
    uint high = ld16(b + 2), s = i8 / 4;
    uint scale = (b[4 + s / 2] >> s % 2 * 4 & 15u) | (high >> 2 * s & 3) << 4;
    float dl = half_at(b) * (float)((int)scale - 32);
    EACH8(i) v[i] = dl * iq4_curve[nibble_of(b + 8 + 16 * s, i8 % 4, i)];
}

/* ---- any ---- */

MFI_FN float e4m3(uint b)
{
    if ((b & 0x7f) == 0x7f)
        return as_type<float>(0x7fc00000u);
    return half_of((b & 0x80) << 8 | (b & 0x7f) << 7) * 256;
}

MFI_FN void fp8(thread const planes &w, constant mfi_metal_mat &m, uint row, uint col,
                thread float *v)
{
    device const uchar *p = w.p[0] + (uint64_t)row * m.row_bytes[0] + col;
    device const uchar *scales = w.p[1] + (uint64_t)(row / 128) * m.row_bytes[1];
    EACH8(i)
    v[i] = col + i < m.cols ? e4m3(p[i]) * load_float(m.scale, scales, (col + i) / 128) : 0.0f;
}

/* By GGML's numbers of types. */
__attribute__((noinline)) static void ggml_any(uint type, device const ushort *tables,
                                               device const uchar *b, uint i8, thread float *v)
{
    switch (type) {
    case 2:
        q4_legacy(b, i8, false, v);
        break;
    case 3:
        q4_legacy(b, i8, true, v);
        break;
    case 6:
        q5_legacy(b, i8, false, v);
        break;
    case 7:
        q5_legacy(b, i8, true, v);
        break;
    case 8:
        block_q8_0::get(b, i8, v);
        break;
    case 10:
        q2_k(b, i8, v);
        break;
    case 11:
        q3_k(b, i8, v);
        break;
    case 12:
        block_q4_k::get(b, i8, v);
        break;
    case 13:
        block_q5_k::get(b, i8, v);
        break;
    case 14:
        block_q6_k::get(b, i8, v);
        break;
    case 16:
        iq2_xxs(tables, b, i8, v);
        break;
    case 17:
        iq2_xs(tables, b, i8, v);
        break;
    case 18:
        iq3_xxs(tables, b, i8, v);
        break;
    case 19:
        iq1_s(tables, b, i8, v);
        break;
    case 20:
        iq4_nl(b, i8, v);
        break;
    case 21:
        iq3_s(tables, b, i8, v);
        break;
    case 22:
        iq2_s(tables, b, i8, v);
        break;
    case 23:
        iq4_xs(b, i8, v);
        break;
    case 29:
        iq1_m(tables, b, i8, v);
        break;
    case 34:
        tq1_0(b, i8, v);
        break;
    case 35:
        tq2_0(b, i8, v);
        break;
    case 39:
        mxfp4(b, i8, v);
        break;
    case 40:
        nvfp4(b, i8, v);
        break;
    case 41:
        q1_0(b, i8, v);
        break;
    default:
        q2_0(b, i8, v);
        break; /* 42; the host refuses others */
    }
}

__attribute__((noinline)) static void mlx_any(thread const planes &w, constant mfi_metal_mat &m,
                                              uint row, uint col, thread float *v)
{
    switch (m.bits) {
    case 2:
        dec_mlx<2>::get(w, m, row, col, v);
        break;
    case 3:
        dec_mlx<3>::get(w, m, row, col, v);
        break;
    case 4:
        dec_mlx<4>::get(w, m, row, col, v);
        break;
    case 5:
        dec_mlx<5>::get(w, m, row, col, v);
        break;
    case 6:
        dec_mlx<6>::get(w, m, row, col, v);
        break;
    default:
        dec_mlx<8>::get(w, m, row, col, v);
        break;
    }
}

struct dec_any {
    static void get(thread const planes &w, constant mfi_metal_mat &m, uint row, uint col,
                    thread float *v)
    {
        switch (m.kind) {
        case MFI_METAL_F32:
            dec_f32::get(w, m, row, col, v);
            break;
        case MFI_METAL_F16:
            dec_f16::get(w, m, row, col, v);
            break;
        case MFI_METAL_BF16:
            dec_bf16::get(w, m, row, col, v);
            break;
        case MFI_METAL_MLX:
            mlx_any(w, m, row, col, v);
            break;
        case MFI_METAL_FP8:
            fp8(w, m, row, col, v);
            break;
        case MFI_METAL_MXFP4:
            dec_mxfp4::get(w, m, row, col, v);
            break;
        default:
            ggml_any(m.bits, w.tables,
                     w.p[0] + (uint64_t)row * m.row_bytes[0] +
                         (uint64_t)(col / m.n_elements) * m.n_bytes,
                     col % m.n_elements / 8, v);
        }
    }
};

#endif
