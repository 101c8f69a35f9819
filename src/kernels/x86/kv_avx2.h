/* A block of the KV cache as floats: keys transposed, values brought together. What the attention
 * kernels of the x86 levels share. Static inline only. Rows are read where positions are seen, and
 * nothing beyond the columns asked for. */
#ifndef MFI_KERNELS_X86_KV_AVX2_H
#define MFI_KERNELS_X86_KV_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/simd_avx2.h"

#define KV_PIECE 64 /* columns at a time: 16 KiB of a block as floats */

/* Positions [low, high) of a block of 64, and where their rows are; those of the next block are
 * fetched meanwhile. */
typedef struct kv_block {
    uint32_t low, high, n_next;
    size_t row[MFI_ATTN_BLOCK], next[MFI_ATTN_BLOCK]; /* offsets of rows in bytes */
} kv_block;

static inline size_t kv_row(const mfi_attn *a, uint32_t j)
{
    return (a->ring ? j % a->ring : j) * a->row_bytes;
}

static inline void kv_block_set(kv_block *b, const mfi_attn *a, uint32_t j0, uint32_t low,
                                uint32_t high)
{
    const uint32_t end = a->pos + a->n_tok, after = j0 + MFI_ATTN_BLOCK;
    b->low = low;
    b->high = high;
    for (uint32_t j = low; j < high; j++)
        b->row[j] = kv_row(a, j0 + j);
    b->n_next = after < end ? MFI_MIN(end - after, MFI_ATTN_BLOCK) : 0;
    for (uint32_t j = 0; j < b->n_next; j++)
        b->next[j] = kv_row(a, after + j);
}

/* Bytes in front of column c, a multiple of 32 or, for floats, any. */
static inline size_t kv_bytes(mfi_qtype type, uint32_t c)
{
    return type.kind == MFI_Q_F32   ? 4 * (size_t)c
           : type.kind == MFI_Q_F16 ? 2 * (size_t)c
                                    : (size_t)c / 32 * 34;
}

/* Eight columns from c on of a row, or the first n of them and zeros; q8_0 has no such ends. */
ALWAYS_INLINE __m256 kv_load(const uint8_t *row, uint32_t c, uint32_t n, const mfi_qkind kind)
{
    if (kind == MFI_Q_F32) {
        const float *p = (const float *)(const void *)row + c;
        return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_lanes(n));
    }
    if (kind == MFI_Q_F16) {
        uint8_t room[16] = {0};
        const uint8_t *p = row + 2 * (size_t)c;
        if (n < 8) {
            memcpy(room, p, 2 * (size_t)n);
            p = room;
        }
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
    }
    const uint8_t *block = row + c / 32 * 34;
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(block + 2 + c % 32));
    uint16_t scale;
    memcpy(&scale, block, sizeof scale);
    return _mm256_mul_ps(_mm256_set1_ps(_cvtsh_ss(scale)),
                         _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
}

ALWAYS_INLINE void transpose8(__m256 v[8])
{
    __m256 a[8], b[8];
    MFI_UNROLL(4)
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    MFI_UNROLL(2)
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    MFI_UNROLL(4)
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

/* Fetches columns [c, c + n) of the next block's row j. */
ALWAYS_INLINE void kv_fetch(const kv_block *b, uint32_t j, const uint8_t *base, uint32_t c,
                            uint32_t n, const mfi_qkind kind)
{
    const mfi_qtype type = {.kind = (uint8_t)kind};
    if (j >= b->n_next)
        return;
    const uint8_t *p = base + b->next[j] + kv_bytes(type, c);
    const size_t bytes = kv_bytes(type, n);
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(p + i, 0, 2);
}

/* Columns [c, c + n) of a row, then zeros up to a multiple of 8. */
ALWAYS_INLINE void kv_widen(const uint8_t *row, uint32_t c, uint32_t n, float *to,
                            const mfi_qkind kind)
{
    uint32_t d = 0;
    for (; n - d >= 8; d += 8)
        _mm256_store_ps(to + d, kv_load(row, c + d, 8, kind));
    if (d < n)
        _mm256_store_ps(to + d, kv_load(row, c + d, n - d, kind));
}

/* to[column][64]: columns [c, c + n) of the keys. Rows come in one after the other: those of 4 KiB
 * would drive each other out of the first cache. */
ALWAYS_INLINE void kv_keys_of(const kv_block *b, const mfi_attn *a, uint32_t c, uint32_t n,
                              float *to, const mfi_qkind kind)
{
    const uint8_t *base = a->k;
    _Alignas(32) float rows[8][KV_PIECE];
    for (uint32_t j = b->low & ~7u; j < b->high; j += 8) {
        for (uint32_t r = 0; r < 8; r++) {
            if (j + r < b->low || j + r >= b->high)
                memset(rows[r], 0, sizeof rows[r]);
            else
                kv_widen(base + b->row[j + r], c, n, rows[r], kind);
            kv_fetch(b, j + r, base, c, n, kind);
        }
        for (uint32_t d = 0; d < n; d += 8) {
            __m256 v[8];
            MFI_UNROLL(8)
            for (int r = 0; r < 8; r++)
                v[r] = _mm256_load_ps(rows[r] + d);
            transpose8(v);
            MFI_UNROLL(8)
            for (uint32_t i = 0; i < 8; i++) /* KV_PIECE columns have room */
                _mm256_store_ps(to + (d + i) * MFI_ATTN_BLOCK + j, v[i]);
        }
    }
}

/* to[64][column], rows of KV_PIECE: columns [c, c + n) of the values, then zeros up to a multiple
 * of 8. */
ALWAYS_INLINE void kv_values_of(const kv_block *b, const mfi_attn *a, uint32_t c, uint32_t n,
                                float *to, const mfi_qkind kind)
{
    const uint8_t *base = a->v;
    for (uint32_t j = b->low; j < b->high; j++) {
        kv_fetch(b, j, base, c, n, kind);
        kv_widen(base + b->row[j], c, n, to + j * KV_PIECE, kind);
    }
}

static inline void kv_keys(const kv_block *b, const mfi_attn *a, uint32_t c, uint32_t n, float *to)
{
    if (a->type_k.kind == MFI_Q_F32)
        kv_keys_of(b, a, c, n, to, MFI_Q_F32);
    else if (a->type_k.kind == MFI_Q_F16)
        kv_keys_of(b, a, c, n, to, MFI_Q_F16);
    else
        kv_keys_of(b, a, c, n, to, MFI_Q_GGML);
}

static inline void kv_values(const kv_block *b, const mfi_attn *a, uint32_t c, uint32_t n,
                             float *to)
{
    if (a->type_v.kind == MFI_Q_F32)
        kv_values_of(b, a, c, n, to, MFI_Q_F32);
    else if (a->type_v.kind == MFI_Q_F16)
        kv_values_of(b, a, c, n, to, MFI_Q_F16);
    else
        kv_values_of(b, a, c, n, to, MFI_Q_GGML);
}

#endif
