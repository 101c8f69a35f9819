/* Decoding weights eight columns at a time: what mfi_dequant_row_wide gives, but where a type says
 * otherwise. Layouts: src/quant. Planes begin at multiples of 4, so GGML's blocks lie at even
 * addresses but MXFP4's and NVFP4's, and 8 columns of a packed type at multiples of 4. */
#ifndef MFI_METAL_DECODE
#define MFI_METAL_DECODE

#include "backend/metal/common.metal"

/* Where a matrix's rows begin. */
struct planes {
    device const uchar *p[3];
    device const ushort *tables;
};

MFI_FN planes planes_of(constant mfi_metal_mat &m, uint64_t base, device const uchar *w0,
                        device const uchar *w1, device const uchar *w2, device const ushort *tables)
{
    planes w;
    w.p[0] = w0 + (base + m.offset[0]);
    w.p[1] = w1 + (base + m.offset[1]);
    w.p[2] = w2 + (base + m.offset[2]);
    w.tables = tables;
    return w;
}

MFI_FN uint ld16(device const uchar *p) /* at an even address */
{
    return *(device const ushort *)p;
}

MFI_FN uint ld32(device const uchar *p) /* at an even address */
{
    return ld16(p) | ld16(p + 2) << 16;
}

MFI_FN uint ld32a(device const uchar *p) /* at a multiple of 4 */
{
    return *(device const uint *)p;
}

MFI_FN float half_of(uint bits)
{
    return (float)as_type<half>((ushort)bits);
}

MFI_FN float half_at(device const uchar *p)
{
    return half_of(ld16(p));
}

MFI_FN float load_float(uint kind, device const uchar *base, uint64_t i)
{
    if (kind == MFI_METAL_F32)
        return ((device const float *)base)[i];
    uint bits = ((device const ushort *)base)[i];
    return kind == MFI_METAL_F16 ? half_of(bits) : as_type<float>(bits << 16);
}

/* ---- floats ---- */

struct dec_f32 {
    static void get(thread const planes &w, constant mfi_metal_mat &m, uint row, uint col,
                    thread float *v)
    {
        device const float *p =
            (device const float *)(w.p[0] + (uint64_t)row * m.row_bytes[0]) + col;
        if (m.cols - col >= 8) {
            float4 a = *(device const packed_float4 *)p, b = *(device const packed_float4 *)(p + 4);
            v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
            v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
        } else {
            EACH8(i) v[i] = col + i < m.cols ? p[i] : 0.0f;
        }
    }
};

/* Two bytes an element: 16 at a time where rows lie so. */
template <bool BF16> struct dec_short {
    static float widen(uint bits)
    {
        return BF16 ? as_type<float>(bits << 16) : half_of(bits);
    }
    static void get(thread const planes &w, constant mfi_metal_mat &m, uint row, uint col,
                    thread float *v)
    {
        uint64_t offset = (uint64_t)row * m.row_bytes[0] + (uint64_t)col * 2;
        device const uchar *p = w.p[0] + offset;
        if (m.cols - col >= 8 && (offset & 3) == 0) {
            for (int i = 0; i < 4; i++) {
                uint two = ld32a(p + 4 * i);
                v[2 * i] = widen(two & 0xffff);
                v[2 * i + 1] = widen(two >> 16);
            }
        } else {
            EACH8(i) v[i] = col + i < m.cols ? widen(ld16(p + 2 * i)) : 0.0f;
        }
    }
};
typedef dec_short<false> dec_f16;
typedef dec_short<true> dec_bf16;

/* ---- GGML ---- */

/* i-th of eight codes in two words of bytes. */
MFI_FN uint byte_of(uint lo, uint hi, int i)
{
    return (i < 4 ? lo : hi) >> i % 4 * 8;
}

/* Scale and minimum of sub-block s, six bits each; see quant/ggml_decode.h. */
MFI_FN void scale_min(device const uchar *p, uint s, thread float *scale, thread float *least)
{
    uint sc, m;
    if (s < 4) {
        sc = p[s] & 63u;
        m = p[s + 4] & 63u;
    } else {
        sc = (p[s + 4] & 15u) | (p[s - 4] >> 6u) << 4;
        m = p[s + 4] >> 4u | (p[s] >> 6u) << 4;
    }
    *scale = (float)sc;
    *least = (float)m;
}

/* The product with the scale isn't rounded on its own. */
struct block_q4_k {
    static void get(device const uchar *b, uint i8, thread float *v)
    {
        uint s = i8 / 4, shift = s % 2 * 4;
        float scale, least;
        device const uchar *q = b + 16 + s / 2 * 32 + i8 % 4 * 8;
        uint dm = ld32a(b), lo = ld32a(q) >> shift, hi = ld32a(q + 4) >> shift;
        scale_min(b + 4, s, &scale, &least);
        scale *= half_of(dm & 0xffff);
        least *= half_of(dm >> 16);
        EACH8(i) v[i] = fma(scale, (float)(byte_of(lo, hi, i) & 15), -least);
    }
};

struct block_q5_k {
    static void get(device const uchar *b, uint i8, thread float *v)
    {
        uint s = i8 / 4, shift = s % 2 * 4;
        float scale, least;
        device const uchar *q = b + 48 + s / 2 * 32 + i8 % 4 * 8, *h = b + 16 + i8 % 4 * 8;
        uint dm = ld32a(b), lo = ld32a(q) >> shift, hi = ld32a(q + 4) >> shift;
        uint h0 = ld32a(h) >> s, h1 = ld32a(h + 4) >> s;
        scale_min(b + 4, s, &scale, &least);
        scale *= half_of(dm & 0xffff);
        least *= half_of(dm >> 16);
        EACH8(i)
        {
            uint code = (byte_of(lo, hi, i) & 15) | (byte_of(h0, h1, i) & 1) << 4;
            v[i] = fma(scale, (float)code, -least);
        }
    }
};

struct block_q6_k {
    static void get(device const uchar *b, uint i8, thread float *v)
    {
        uint s = i8 / 2, part = i8 % 2 * 8, ls = s / 4 % 2 * 4, hs = s / 2 % 4 * 2;
        device const uchar *low = b + s / 8 * 64 + s % 4 * 16 + part;
        device const uchar *high = b + 128 + s / 8 * 32 + s % 2 * 16 + part;
        uint l0 = ld32(low) >> ls, l1 = ld32(low + 4) >> ls;
        uint h0 = ld32(high) >> hs, h1 = ld32(high + 4) >> hs;
        float scale = half_at(b + 208) * (float)(int8_t)b[192 + s];
        EACH8(i)
        {
            uint code = (byte_of(l0, l1, i) & 15) | (byte_of(h0, h1, i) & 3) << 4;
            v[i] = scale * (float)((int)code - 32);
        }
    }
};

struct block_q8_0 {
    static void get(device const uchar *b, uint i8, thread float *v)
    {
        float d = half_at(b);
        uint lo = ld32(b + 2 + 8 * i8), hi = ld32(b + 6 + 8 * i8);
        EACH8(i) v[i] = (float)(int8_t)(byte_of(lo, hi, i) & 255) * d;
    }
};

template <uint NE, uint NB, class B> struct dec_block {
    static void get(thread const planes &w, constant mfi_metal_mat &m, uint row, uint col,
                    thread float *v)
    {
        B::get(w.p[0] + (uint64_t)row * m.row_bytes[0] + (uint64_t)(col / NE) * NB, col % NE / 8,
               v);
    }
};
typedef dec_block<256, 144, block_q4_k> dec_q4_k;
typedef dec_block<256, 176, block_q5_k> dec_q5_k;
typedef dec_block<256, 210, block_q6_k> dec_q6_k;
typedef dec_block<32, 34, block_q8_0> dec_q8_0;

/* ---- MLX ---- */

/* Eight codes are BITS whole bytes. */
template <int BITS> struct dec_mlx {
    static void get(thread const planes &w, constant mfi_metal_mat &m, uint row, uint col,
                    thread float *v)
    {
        device const uchar *p =
            w.p[0] + (uint64_t)row * m.row_bytes[0] + (uint64_t)(col / 8) * BITS;
        uint g = col / m.group;
        float scale = load_float(m.scale, w.p[1] + (uint64_t)row * m.row_bytes[1], g);
        float bias = load_float(m.scale, w.p[2] + (uint64_t)row * m.row_bytes[2], g);
        if (BITS == 4) {
            uint codes = ld32a(p);
            EACH8(i) v[i] = fma((float)(codes >> 4 * i & 15), scale, bias);
        } else if (BITS == 8) {
            uint lo = ld32a(p), hi = ld32a(p + 4);
            EACH8(i) v[i] = fma((float)(byte_of(lo, hi, i) & 255), scale, bias);
        } else {
            uint64_t codes = 0;
            for (int j = 0; j < BITS; j++)
                codes |= (uint64_t)p[j] << 8 * j;
            EACH8(i)
            v[i] = fma((float)((uint)(codes >> i * BITS) & ((1u << BITS) - 1)), scale, bias);
        }
    }
};
typedef dec_mlx<4> dec_mlx4;
typedef dec_mlx<8> dec_mlx8;

/* ---- four-bit floats ---- */

/* Twice the value of a code. */
MFI_FN float e2m1_doubled(uint code)
{
    uint m = code & 7;
    float v = (float)(m < 4 ? m : (m & 1 ? 3u : 2u) << (m / 2 - 1));
    return code & 8 ? -v : v;
}

MFI_FN float e8m0_half(uint e)
{
    return as_type<float>(e < 2 ? 0x200000u << e : (e - 1) << 23);
}

struct dec_mxfp4 { /* in two planes */
    static void get(thread const planes &w, constant mfi_metal_mat &m, uint row, uint col,
                    thread float *v)
    {
        uint codes = ld32a(w.p[0] + (uint64_t)row * m.row_bytes[0] + col / 2);
        uint e = w.p[1][(uint64_t)row * m.row_bytes[1] + col / 32];
        float d = e == 255 ? as_type<float>(0x7fc00000u) : e8m0_half(e);
        EACH8(i) v[i] = d * e2m1_doubled(codes >> 4 * i & 15);
    }
};

#endif
