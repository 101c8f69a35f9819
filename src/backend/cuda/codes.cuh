/* Weights of integer types as what the matrix units take: the integer codes, exact in bf16, apart
 * from their scales. A thread has 8 of the 32 columns of a block, as four registers of pairs, in
 * the order in which split_x leaves a token's: by eights, thread t has columns 8t..8t+7; by fours,
 * columns 4t..4t+3 and 16+4t..16+4t+3, so that the first two registers are of the first half of the
 * block. Pairs are columns (0, 2), (1, 3), (4, 6), (5, 7) of the eight, since masks give them so.
 * Layouts: src/quant.
 *
 * Of some types codes are left as the bits they are: bf16 far below the normal ones, 2^-133 times
 * the code, which the matrix units take as any other. Those are `tiny`: x comes times 2^64, and
 * scales times 2^69.
 *
 * A type has `whole` (columns come in 256s), `fours`, `halves` (a scale for each half of a block,
 * only by fours), `has_min`; raw_t with load(), which fetches a segment of 128 columns of a row,
 * and codes() and scales() of its block b: w = scale * code + min. Those whose rows are
 * blocks at multiples of 16 bytes have take() as well, of a row that may be a copy, and
 * block_bytes, of 256 columns. */
#ifndef MFI_BACKEND_CUDA_CODES_CUH
#define MFI_BACKEND_CUDA_CODES_CUH

#include "backend/cuda/decode.cuh"

#define CODE_SEG 128

#define TINY_X     0x1p64f
#define TINY_SCALE 0x1p69f

struct code_scales {
    float s[2], min;
};

/* Whether a type has take(). */
template <class C> struct code_stages {
    static const bool value = false;
};

struct code_row { /* of a matrix: where it begins in each plane */
    const uint8_t *p[3];
};

/* a * b + c of pairs of bf16; here always exact. */
MFI_DEV uint32_t fma_pair(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

/* Codes of up to 7 bits in both halves, less `off`: the bits under the exponent of 128 count ones.
 */
template <int OFF> MFI_DEV uint32_t code_pair(uint32_t v)
{
    const uint32_t minus = 0xc300 + OFF; /* -(128 + OFF) */
    return fma_pair(v | 0x43004300, 0x3f803f80, minus | minus << 16);
}

/* Four codes, in bytes, of up to 7 bits each once masked. */
template <int OFF> MFI_DEV void code_bytes(uint32_t v, uint32_t r[2])
{
    r[0] = code_pair<OFF>(v & 0x007f007f);
    r[1] = code_pair<OFF>(v >> 8 & 0x007f007f);
}

/* The low nibbles of four bytes, or sixteen times the high ones, as tiny codes; and whole bytes. */
MFI_DEV void tiny_nibbles(uint32_t v, bool high, uint32_t r[2])
{
    const uint32_t mask = high ? 0x00f000f0 : 0x000f000f;
    r[0] = v & mask;
    r[1] = v >> 8 & mask;
}

MFI_DEV void tiny_bytes(uint32_t v, uint32_t r[2])
{
    r[0] = v & 0x00ff00ff;
    r[1] = v >> 8 & 0x00ff00ff;
}

/* v[b] without an index that is known too late. */
template <class T> MFI_DEV T of_four(const T v[4], int b)
{
    T low = b & 1 ? v[1] : v[0], high = b & 1 ? v[3] : v[2];
    return b & 2 ? high : low;
}

/* Signed bytes: seven bits, less 128 where the eighth is set. */
MFI_DEV void code_signed(uint32_t v, uint32_t r[2])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t u = v >> 8 * i;
        r[i] = fma_pair((u & 0x00800080) | 0x43004300, 0xbf80bf80, (u & 0x007f007f) | 0x43004300);
    }
}

/* Four bytes anywhere; what lies beyond them isn't touched but within their words. */
MFI_DEV uint32_t ld32_any(const uint8_t *p)
{
    uint32_t shift = ((uintptr_t)p & 3) * 8;
    const uint32_t *at = (const uint32_t *)((uintptr_t)p & ~(uintptr_t)3);
    uint32_t lo = at[0], hi = shift ? at[1] : 0;
    return __funnelshift_r(lo, hi, shift);
}

MFI_DEV float half_bits(uint32_t v)
{
    return __half2float(__ushort_as_half((unsigned short)v));
}

#define EACH_BLOCK(b) _Pragma("unroll") for (int b = 0; b < 4; b++)

/* ---- K types ---- */

/* Scales and minima of four blocks, a byte each; of q4_K and q5_K, whose blocks are aligned to 16.
 */
struct code_k_scales {
    uint32_t d, s, min;
};

MFI_DEV code_k_scales k_head(uint4 head, uint32_t seg)
{
    code_k_scales k;
    bool low = seg % 2 == 0;
    k.d = head.x;
    k.s = low ? head.y & 0x3f3f3f3f : (head.w & 0x0f0f0f0f) | (head.y >> 2 & 0x30303030);
    k.min = low ? head.z & 0x3f3f3f3f : (head.w >> 4 & 0x0f0f0f0f) | (head.z >> 2 & 0x30303030);
    return k;
}

/* Byte b as a float. */
MFI_DEV float byte_float(uint32_t v, int b)
{
    return __uint_as_float(__byte_perm(v, 0x4b000000, 0x7440 + b)) - 8388608.0f;
}

MFI_DEV code_scales k_scales(const code_k_scales &k, int b, float unit)
{
    code_scales out;
    out.s[0] = out.s[1] = byte_float(k.s, b) * (half_bits(k.d) * unit);
    out.min = -(byte_float(k.min, b) * half_bits(k.d >> 16));
    return out;
}

/* Of weights in device memory, or in a copy of them in shared memory. */
template <bool STAGED, class T> MFI_DEV T weights_at(const T *p)
{
    return STAGED ? *p : __ldg(p);
}

struct code_q4_k {
    static const bool whole = true, fours = false, halves = false, has_min = true, tiny = true;
    static const int block_bytes = 144;
    struct raw_t {
        uint4 head;
        uint2 q[2];
    };
    template <bool STAGED> MFI_DEV void take(const uint8_t *row, uint32_t seg, raw_t *raw)
    {
        const uint8_t *b = row + (uint64_t)(seg / 2) * block_bytes;
        const uint8_t *q = b + 16 + seg % 2 * 64 + threadIdx.x % 4 * 8;
        raw->head = weights_at<STAGED>((const uint4 *)b);
        raw->q[0] = weights_at<STAGED>((const uint2 *)q);
        raw->q[1] = weights_at<STAGED>((const uint2 *)(q + 32));
    }
    MFI_DEV void load(const mfi_cuda_mat &m, const code_row &at, uint32_t seg, raw_t *raw)
    {
        take<false>(at.p[0], seg, raw);
    }
    MFI_DEV void codes(const raw_t &raw, int b, uint32_t r[4])
    {
        uint2 q = raw.q[b / 2];
        tiny_nibbles(q.x, b % 2, r);
        tiny_nibbles(q.y, b % 2, r + 2);
    }
    MFI_DEV code_scales scales(const raw_t &raw, uint32_t seg, int b)
    {
        return k_scales(k_head(raw.head, seg), b, b % 2 ? TINY_SCALE / 16 : TINY_SCALE);
    }
};

struct code_q5_k {
    static const bool whole = true, fours = false, halves = false, has_min = true, tiny = true;
    static const int block_bytes = 176;
    struct raw_t {
        uint4 head;
        uint2 q[2], h;
    };
    template <bool STAGED> MFI_DEV void take(const uint8_t *row, uint32_t seg, raw_t *raw)
    {
        const uint8_t *b = row + (uint64_t)(seg / 2) * block_bytes;
        const uint8_t *q = b + 48 + seg % 2 * 64 + threadIdx.x % 4 * 8;
        raw->head = weights_at<STAGED>((const uint4 *)b);
        raw->h = weights_at<STAGED>((const uint2 *)(b + 16 + threadIdx.x % 4 * 8));
        raw->h.x >>= seg % 2 * 4;
        raw->h.y >>= seg % 2 * 4;
        raw->q[0] = weights_at<STAGED>((const uint2 *)q);
        raw->q[1] = weights_at<STAGED>((const uint2 *)(q + 32));
    }
    MFI_DEV void load(const mfi_cuda_mat &m, const code_row &at, uint32_t seg, raw_t *raw)
    {
        take<false>(at.p[0], seg, raw);
    }
    MFI_DEV void codes(const raw_t &raw, int b, uint32_t r[4])
    {
        uint32_t lo = raw.q[b / 2].x >> b % 2 * 4 & 0x0f0f0f0f;
        uint32_t hi = raw.q[b / 2].y >> b % 2 * 4 & 0x0f0f0f0f;
        tiny_bytes(lo | (raw.h.x >> b & 0x01010101) << 4, r);
        tiny_bytes(hi | (raw.h.y >> b & 0x01010101) << 4, r + 2);
    }
    MFI_DEV code_scales scales(const raw_t &raw, uint32_t seg, int b)
    {
        return k_scales(k_head(raw.head, seg), b, TINY_SCALE);
    }
};

template <> struct code_stages<code_q4_k> {
    static const bool value = true;
};

template <> struct code_stages<code_q5_k> {
    static const bool value = true;
};

struct code_q6_k {
    static const bool whole = true, fours = true, halves = true, has_min = false, tiny = false;
    struct raw_t {
        uint32_t low[2][2], high[2]; /* [blocks b and b + 2][half], [half] */
        uint32_t scales[2], d;       /* two scales a block */
    };
    MFI_DEV void load(const mfi_cuda_mat &m, const code_row &at, uint32_t seg, raw_t *raw)
    {
        const uint8_t *b = at.p[0] + (uint64_t)(seg / 2) * 210;
        const uint8_t *low = b + seg % 2 * 64 + threadIdx.x % 4 * 4;
        const uint8_t *high = b + 128 + seg % 2 * 32 + threadIdx.x % 4 * 4;
        const uint8_t *scale = b + 192 + seg % 2 * 8;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            raw->low[0][h] = ld32(low + 16 * h);
            raw->low[1][h] = ld32(low + 32 + 16 * h);
            raw->high[h] = ld32(high + 16 * h);
            raw->scales[h] = ld32(scale + 4 * h);
        }
        raw->d = ld16(b + 208);
    }
    MFI_DEV void codes(const raw_t &raw, int b, uint32_t r[4])
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t low = raw.low[b % 2][h] >> b / 2 * 4 & 0x0f0f0f0f;
            code_bytes<32>(low | (raw.high[h] >> 2 * b & 0x03030303) << 4, r + 2 * h);
        }
    }
    MFI_DEV code_scales scales(const raw_t &raw, uint32_t seg, int b)
    {
        uint32_t two = (b & 2 ? raw.scales[1] : raw.scales[0]) >> b % 2 * 16;
        float d = half_bits(raw.d);
        code_scales out;
        out.s[0] = d * (float)(int8_t)two;
        out.s[1] = d * (float)(int8_t)(two >> 8);
        out.min = 0;
        return out;
    }
};

/* ---- blocks of 32 ---- */

/* q4_0, q4_1, q5_0, q5_1: elements i and i + 16 of a block share a byte. */
template <int BITS, bool MIN> struct code_legacy {
    static const bool whole = false, fours = true, halves = false, has_min = MIN, tiny = false;
    static const int bytes = 2 + 2 * MIN + 4 * (BITS == 5) + 16;
    struct raw_t {
        uint32_t q[4], h[4], d[4];
    };
    MFI_DEV void load(const mfi_cuda_mat &m, const code_row &at, uint32_t seg, raw_t *raw)
    {
        const uint8_t *b = at.p[0] + (uint64_t)seg * 4 * bytes;
        EACH_BLOCK(i)
        {
            bool there = seg * CODE_SEG + i * 32 < m.cols;
            raw->d[i] = !there ? 0 : MIN ? ld32(b) : ld16(b);
            raw->h[i] = there && BITS == 5 ? ld32(b + 2 + 2 * MIN) : 0;
            raw->q[i] = there ? ld32(b + bytes - 16 + threadIdx.x % 4 * 4) : 0;
            b += bytes;
        }
    }
    MFI_DEV void codes(const raw_t &raw, int b, uint32_t r[4])
    {
        const int off = MIN ? 0 : BITS == 5 ? 16 : 8;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t v = raw.q[b] >> 4 * h & 0x0f0f0f0f;
            if (BITS == 5) { /* four bits to where four bytes have their fifth */
                uint32_t bits = raw.h[b] >> (threadIdx.x % 4 * 4 + 16 * h) & 15;
                v |= bits * 0x00204081 << 4 & 0x10101010;
            }
            code_bytes<off>(v, r + 2 * h);
        }
    }
    MFI_DEV code_scales scales(const raw_t &raw, uint32_t seg, int b)
    {
        code_scales out;
        uint32_t d = of_four(raw.d, b);
        out.s[0] = out.s[1] = half_bits(d);
        out.min = MIN ? half_bits(d >> 16) : 0;
        return out;
    }
};

struct code_q8_0 {
    static const bool whole = false, fours = false, halves = false, has_min = false, tiny = false;
    struct raw_t {
        uint2 q[4];
        uint32_t d[4];
    };
    MFI_DEV void load(const mfi_cuda_mat &m, const code_row &at, uint32_t seg, raw_t *raw)
    {
        const uint8_t *b = at.p[0] + (uint64_t)seg * 4 * 34;
        EACH_BLOCK(i)
        {
            const uint8_t *q = b + 2 + threadIdx.x % 4 * 8;
            bool there = seg * CODE_SEG + i * 32 < m.cols;
            raw->d[i] = there ? ld16(b) : 0;
            raw->q[i] = there ? make_uint2(ld32(q), ld32(q + 4)) : make_uint2(0, 0);
            b += 34;
        }
    }
    MFI_DEV void codes(const raw_t &raw, int b, uint32_t r[4])
    {
        code_signed(raw.q[b].x, r);
        code_signed(raw.q[b].y, r + 2);
    }
    MFI_DEV code_scales scales(const raw_t &raw, uint32_t seg, int b)
    {
        code_scales out;
        out.s[0] = out.s[1] = half_bits(of_four(raw.d, b));
        out.min = 0;
        return out;
    }
};

/* ---- four-bit floats ---- */

/* Twice the values of four codes that lie in the low nibbles of bytes: bytes of 0, 1, 2, 3, 4, 6,
 * 8, 12 in bf16 are looked up, then put together. */
MFI_DEV void code_e2m1(uint32_t v, uint32_t r[2])
{
    uint32_t at = v & 0x07070707, pick = at | at >> 4; /* selectors in nibbles 0 and 4 of halves */
    pick = __byte_perm(pick, 0, 0x4420) & 0xffff;
    uint32_t high = __byte_perm(0x40403f00, 0x41414040, pick);
    uint32_t low = __byte_perm(0x40008000, 0x4000c080, pick);
    uint32_t sign = v << 4 & 0x80808080;
    high |= sign;
    r[0] = __byte_perm(low, high, 0x6240); /* of bytes 0 and 2 */
    r[1] = __byte_perm(low, high, 0x7351);
}

/* GGML's blocks of 17 bytes, at any address. */
struct code_mxfp4_block {
    static const bool whole = false, fours = true, halves = false, has_min = false, tiny = false;
    struct raw_t {
        uint32_t q[4], e;
    };
    MFI_DEV void load(const mfi_cuda_mat &m, const code_row &at, uint32_t seg, raw_t *raw)
    {
        const uint8_t *b = at.p[0] + (uint64_t)seg * 4 * 17;
        raw->e = 0;
        EACH_BLOCK(i)
        {
            bool there = seg * CODE_SEG + i * 32 < m.cols;
            raw->e |= (there ? (uint32_t)b[0] : 0) << 8 * i;
            raw->q[i] = there ? ld32_any(b + 1 + threadIdx.x % 4 * 4) : 0;
            b += 17;
        }
    }
    MFI_DEV void codes(const raw_t &raw, int b, uint32_t r[4])
    {
        code_e2m1(raw.q[b], r);
        code_e2m1(raw.q[b] >> 4, r + 2);
    }
    MFI_DEV code_scales scales(const raw_t &raw, uint32_t seg, int b)
    {
        code_scales out;
        out.s[0] = out.s[1] = e8m0_half(raw.e >> 8 * b & 255);
        out.min = 0;
        return out;
    }
};

/* Bytes 0 and 1 of eight nibbles in order, then 2 and 3, so that nibbles (0, 2), (1, 3) .. pair. */
MFI_DEV void code_spread(uint32_t v, uint32_t *first, uint32_t *second)
{
    *first = __byte_perm(v, 0, 0x4140);
    *second = __byte_perm(v, 0, 0x4342);
}

/* Two planes, codes in order. */
struct code_mxfp4 {
    static const bool whole = false, fours = false, halves = false, has_min = false, tiny = false;
    struct raw_t {
        uint32_t q[4], e;
    };
    MFI_DEV void load(const mfi_cuda_mat &m, const code_row &at, uint32_t seg, raw_t *raw)
    {
        const uint8_t *q = at.p[0] + seg * 64 + threadIdx.x % 4 * 4;
        const uint8_t *e = at.p[1] + seg * 4;
        raw->e = 0;
        EACH_BLOCK(i)
        {
            bool there = seg * CODE_SEG + i * 32 < m.cols;
            raw->e |= (there ? (uint32_t)e[i] : 0) << 8 * i;
            raw->q[i] = there ? ld32_any(q + 16 * i) : 0;
        }
    }
    MFI_DEV void codes(const raw_t &raw, int b, uint32_t r[4])
    {
        uint32_t first, second;
        code_spread(raw.q[b], &first, &second); /* bytes 0 and 2: two codes each */
        code_e2m1((first & 0x000f000f) | (first << 4 & 0x0f000f00), r);
        code_e2m1((second & 0x000f000f) | (second << 4 & 0x0f000f00), r + 2);
    }
    MFI_DEV code_scales scales(const raw_t &raw, uint32_t seg, int b)
    {
        uint32_t e = raw.e >> 8 * b & 255;
        code_scales out;
        out.s[0] = out.s[1] = e == 255 ? __int_as_float(0x7fc00000) : e8m0_half(e);
        out.min = 0;
        return out;
    }
};

/* ---- MLX ---- */

template <int BITS> struct code_mlx {
    static const bool whole = false, fours = false, halves = false, has_min = true, tiny = true;
    struct raw_t {
        uint32_t q[4][BITS / 4];
        float s[4], min[4];
    };
    MFI_DEV void load(const mfi_cuda_mat &m, const code_row &at, uint32_t seg, raw_t *raw)
    {
        const uint8_t *q = at.p[0] + (seg * 16 + threadIdx.x % 4) * BITS;
        EACH_BLOCK(i)
        {
            uint32_t col = seg * CODE_SEG + i * 32, g = col / m.type.group;
            bool there = col < m.cols;
#pragma unroll
            for (int k = 0; k < BITS / 4; k++)
                raw->q[i][k] = there ? ((const uint32_t *)(q + 4 * i * BITS))[k] : 0;
            raw->s[i] = there ? load_float(m.type.scale, at.p[1], g) : 0;
            raw->min[i] = there ? load_float(m.type.scale, at.p[2], g) : 0;
        }
    }
    MFI_DEV void codes(const raw_t &raw, int b, uint32_t r[4])
    {
        if (BITS == 8) {
            tiny_bytes(raw.q[b][0], r);
            tiny_bytes(raw.q[b][BITS / 4 - 1], r + 2);
            return;
        }
        uint32_t first, second;
        code_spread(raw.q[b][0], &first, &second);
        r[0] = first & 0x000f000f;
        r[1] = first >> 4 & 0x000f000f;
        r[2] = second & 0x000f000f;
        r[3] = second >> 4 & 0x000f000f;
    }
    MFI_DEV code_scales scales(const raw_t &raw, uint32_t seg, int b)
    {
        code_scales out;
        out.s[0] = out.s[1] = of_four(raw.s, b) * TINY_SCALE;
        out.min = of_four(raw.min, b);
        return out;
    }
};

#endif
