/* Products with one token, row after row: 64 bytes of a row at a time are multiplied where they
 * stand, and the sums of lanes are brought together at the end. That takes half the shuffles of
 * bringing codes together (panel_tmpl.h), and whole cache lines are read at once. The sums are the
 * same integers. Included by matmul_q8_avx512.c only.
 *
 * Sums of eight products fit 16 bits where codes have four bits, those of four where they have six;
 * so two vectors are packed into one and a madd adds neighbours. */
#ifndef MFI_KERNELS_X86_ROWS_AVX512_H
#define MFI_KERNELS_X86_ROWS_AVX512_H

/* [a0 + a1, a2 + a3, b0 + b1, b2 + b3] of each 128 bits; the sums of a and b fit 16 bits. */
PANEL_INLINE __m512i pair_sums(__m512i a, __m512i b)
{
    return _mm512_madd_epi16(_mm512_packs_epi32(a, b), _mm512_set1_epi16(1));
}

/* 64 bytes, read once. */
PANEL_INLINE __m512i bytes_at(const uint8_t *p)
{
    __m512i v = _mm512_loadu_si512(p);
    __asm__("" : "+v"(v)); /* else every use is a load of its own, and most cross a cache line */
    return v;
}

/* What sums begin with where codes are `offset` too large. */
PANEL_INLINE __m512i less(__m512i sum, int8_t offset, __m512i x)
{
    const __m512i part = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(offset), x);
    return _mm512_sub_epi32(sum, part);
}

/* Fetches part i of what comes: a burst of all at once would hold up the loads between. */
PANEL_INLINE void fetch_part(const uint8_t *from, uint32_t i, const uint32_t bytes)
{
    MFI_UNROLL(6)
    for (uint32_t k = 0; k < bytes; k += 64)
        __builtin_prefetch(from + i * bytes + k, 0, 2);
}

/* v[j]: word j of a, b, c and d, in each 128 bits. */
PANEL_INLINE void by_word(const __m512i r[4], __m512i v[4])
{
    const __m512i ab0 = _mm512_unpacklo_epi32(r[0], r[1]), ab1 = _mm512_unpackhi_epi32(r[0], r[1]);
    const __m512i cd0 = _mm512_unpacklo_epi32(r[2], r[3]), cd1 = _mm512_unpackhi_epi32(r[2], r[3]);
    v[0] = _mm512_unpacklo_epi64(ab0, cd0);
    v[1] = _mm512_unpackhi_epi64(ab0, cd0);
    v[2] = _mm512_unpacklo_epi64(ab1, cd1);
    v[3] = _mm512_unpackhi_epi64(ab1, cd1);
}

/* v[j]: 128 bits j of a, b, c and d. */
PANEL_INLINE void by_lane(const __m512i r[4], panel_i v[4])
{
    const __m512i ab0 = _mm512_shuffle_i32x4(r[0], r[1], 0x44);
    const __m512i ab1 = _mm512_shuffle_i32x4(r[0], r[1], 0xee);
    const __m512i cd0 = _mm512_shuffle_i32x4(r[2], r[3], 0x44);
    const __m512i cd1 = _mm512_shuffle_i32x4(r[2], r[3], 0xee);
    v[0] = (panel_i)_mm512_shuffle_i32x4(ab0, cd0, 0x88);
    v[1] = (panel_i)_mm512_shuffle_i32x4(ab0, cd0, 0xdd);
    v[2] = (panel_i)_mm512_shuffle_i32x4(ab1, cd1, 0x88);
    v[3] = (panel_i)_mm512_shuffle_i32x4(ab1, cd1, 0xdd);
}

/* ---- sub-blocks of 32 in a half of a vector ---- */

/* Sums of a row's eight sub-blocks: those of four in the first two lanes, where each lane has a
 * part, those of the others in the last two. */
typedef __m512i half_row_fn(const uint8_t *p, const __m512i x[4]);

/* sub: whose sums the words of the first two lanes are, then those of the last two. */
PANEL_INLINE void dot_half_rows(panel_plane at, half_row_fn *row_sums, const __m512i x[4],
                                const uint8_t sub[8], const uint32_t row_bytes, panel_i dot[8],
                                const uint8_t *fetch)
{
    __m512i z[8], v[4], u[4];
    MFI_UNROLL(8)
    for (uint32_t i = 0; i < 8; i++) { /* rows i and i + 4 of eight */
        const uint8_t *p = at.p + (i / 4 * 8 + i % 4) * at.stride;
        fetch_part(fetch, i, 2 * row_bytes);
        const __m512i a = row_sums(p, x), b = row_sums(p + 4 * at.stride, x);
        z[i] = _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
    }
    by_word(z, v);
    by_word(z + 4, u);
    MFI_UNROLL(4)
    for (uint32_t j = 0; j < 4; j++) {
        dot[sub[j]] = (panel_i)_mm512_shuffle_i32x4(v[j], u[j], 0x88);
        dot[sub[4 + j]] = (panel_i)_mm512_shuffle_i32x4(v[j], u[j], 0xdd);
    }
}

PANEL_INLINE __m512i q4_k_row(const uint8_t *p, const __m512i x[4])
{
    const __m512i mask = _mm512_set1_epi8(15), zero = _mm512_setzero_si512();
    __m512i sum[4];
    MFI_UNROLL(2)
    for (int i = 0; i < 2; i++) {
        const __m512i v = bytes_at(p + 16 + 64 * i);
        const __m512i high = _mm512_and_si512(_mm512_srli_epi16(v, 4), mask);
        sum[2 * i] = _mm512_dpbusd_epi32(zero, _mm512_and_si512(v, mask), x[2 * i]);
        sum[2 * i + 1] = _mm512_dpbusd_epi32(zero, high, x[2 * i + 1]);
    }
    return pair_sums(pair_sums(sum[0], sum[1]), pair_sums(sum[2], sum[3]));
}

/* 32 columns, and those that are 64 further. */
PANEL_INLINE void by_64(const int8_t *x, __m512i in[4])
{
    MFI_UNROLL(4)
    for (int i = 0; i < 4; i++) {
        const int8_t *from = x + i / 2 * 128 + i % 2 * 32;
        in[i] =
            _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)from)),
                               _mm256_loadu_si256((const __m256i *)(from + 64)), 1);
    }
}

/* rows: what row_sums takes. */
PANEL_INLINE void dot_q4_k_rows(const panel_part *part, panel_plane at, panel_plane rows,
                                half_row_fn *row_sums, const __m512i x[4], panel *out)
{
    static const uint8_t sub[8] = {0, 1, 4, 5, 2, 3, 6, 7};
    panel_u v[4];
    dot_half_rows(rows, row_sums, x, sub, 144, out->dot, part->fetch);
    panel_slab(at.p, at.stride, v);
    six_bit_scales(v, out);
}

static void rows_q4_k(const panel_part *part, const panel_plane at[3], const int8_t *x,
                      const int8_t *lo, panel *out)
{
    __m512i in[4];
    (void)lo;
    by_64(x, in);
    dot_q4_k_rows(part, at[0], at[0], q4_k_row, in, out);
}

/* Rows of few steps are walked whole, one after another: memory sees longer stretches. Their sums
 * are kept where the panel has codes otherwise, [step][row], and are brought together step by step.
 */
#define WHOLE_STEPS (SHORT_COLS / PANEL_STEP)
_Static_assert(WHOLE_STEPS *PANEL_ROWS <= MFI_ARRAY_LEN(((panel *)NULL)->codes),
               "sums of whole rows in the panel");

PANEL_INLINE __m512i kept_row(const uint8_t *p, const __m512i x[4])
{
    (void)x;
    return _mm512_loadu_si512(p);
}

static __attribute__((noinline)) void sum_whole_q4_k(panel_plane at, const int8_t *x,
                                                     uint32_t n_steps, panel_u *sums)
{
    __m512i in[WHOLE_STEPS][4];
    for (uint32_t c = 0; c < n_steps; c++)
        by_64(x + c * PANEL_STEP, in[c]);
    for (uint32_t r = 0; r < PANEL_ROWS; r += 2)
        for (uint32_t c = 0; c < n_steps; c++) {
            MFI_UNROLL(2)
            for (uint32_t k = 0; k < 2; k++)
                sums[c * PANEL_ROWS + r + k] =
                    (panel_u)q4_k_row(at.p + (r + k) * at.stride + c * 144, in[c]);
        }
}

static void rows_q4_k_whole(const panel_part *part, const panel_plane at[3], const int8_t *x,
                            const int8_t *lo, panel *out)
{
    const uint32_t step = part->c / PANEL_STEP;
    (void)lo;
    if (step == 0)
        sum_whole_q4_k(at[0], x, part->whole_cols / PANEL_STEP, out->codes);
    const panel_plane rows = {(const uint8_t *)(out->codes + step * PANEL_ROWS), sizeof(panel_u)};
    dot_q4_k_rows(part, at[0], rows, kept_row, NULL, out);
}

/* ---- sub-blocks of 32 in 128 bits ---- */

/* The sums of a row's sub-blocks 0 to 3 and 4 to 7, each in a lane of its own. Returns what is to
 * be kept of the row's heads in each 64 bits, if anything. */
typedef __m512i lane_row_fn(const uint8_t *p, const __m512i x[4], const __m512i start[2],
                            __m512i sum[2]);

/* The same for both lots of four sub-blocks; zeros if codes aren't too large. */
PANEL_INLINE void lane_starts(const __m512i x[4], const int8_t offset, __m512i start[2])
{
    MFI_UNROLL(2)
    for (int i = 0; i < 2; i++) {
        start[i] = _mm512_setzero_si512();
        if (offset)
            start[i] = less(less(start[i], offset, x[2 * i]), offset, x[2 * i + 1]);
    }
}

/* Sums of two rows, and their heads: of each lane's sub-block of the first four and of the others,
 * of one row and of the next. */
PANEL_INLINE __m512i lane_pair(const uint8_t *p, size_t stride, lane_row_fn *row_sums,
                               const __m512i x[4], const __m512i start[2], __m512i heads[2])
{
    __m512i a[2], b[2];
    heads[0] = row_sums(p, x, start, a);
    heads[1] = row_sums(p + stride, x, start, b);
    return pair_sums(pair_sums(a[0], a[1]), pair_sums(b[0], b[1]));
}

/* By sub-block and row, from two rows each. */
PANEL_INLINE void part_lane_pairs(const __m512i two[8], panel_i dot[8])
{
    __m512i low[4], high[4];
    MFI_UNROLL(4)
    for (uint32_t i = 0; i < 4; i++) {
        const __m512 t0 = _mm512_castsi512_ps(two[2 * i]);
        const __m512 t1 = _mm512_castsi512_ps(two[2 * i + 1]);
        low[i] = _mm512_castps_si512(_mm512_shuffle_ps(t0, t1, 0x88));
        high[i] = _mm512_castps_si512(_mm512_shuffle_ps(t0, t1, 0xdd));
    }
    by_lane(low, dot);
    by_lane(high, dot + 4);
}

PANEL_INLINE void dot_lane_rows(panel_plane at, lane_row_fn *row_sums, const __m512i x[4],
                                const int8_t offset, const uint32_t row_bytes, panel_i dot[8],
                                const uint8_t *fetch, __m512i heads[2])
{
    __m512i two[8], start[2];
    lane_starts(x, offset, start);
    MFI_UNROLL(8)
    for (uint32_t i = 0; i < 8; i++) {
        __m512i head[2];
        fetch_part(fetch, i, 2 * row_bytes);
        two[i] = lane_pair(at.p + 2 * i * at.stride, at.stride, row_sums, x, start, head);
        if (heads) {
            __m512i *to = heads + i / 4;
            *to = _mm512_mask_mov_epi64(*to, (__mmask8)(1 << 2 * i % 8), head[0]);
            *to = _mm512_mask_mov_epi64(*to, (__mmask8)(2 << 2 * i % 8), head[1]);
        }
    }
    part_lane_pairs(two, dot);
}

/* The products of low and high nibbles of sub-blocks of 16 bytes, looked up if there is a table;
 * activations are in the order of low nibbles, high nibbles. */
PANEL_INLINE __m512i nibble_sums(__m512i v, const __m512i *table, const __m512i x[2], __m512i start)
{
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i low, high = _mm512_srli_epi16(v, 4);
    if (table) { /* four times the same 16 bytes: bits above a nibble don't matter */
        low = _mm512_permutexvar_epi8(v, *table);
        high = _mm512_permutexvar_epi8(high, *table);
    } else {
        low = _mm512_and_si512(v, mask);
        high = _mm512_and_si512(high, mask);
    }
    return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(start, low, x[0]), high, x[1]);
}

PANEL_INLINE __m512i mlx4_row(const uint8_t *p, const __m512i x[4], const __m512i start[2],
                              __m512i sum[2])
{
    sum[0] = nibble_sums(bytes_at(p), NULL, x, start[0]);
    sum[1] = nibble_sums(bytes_at(p + 64), NULL, x + 2, start[1]);
    return _mm512_setzero_si512();
}

/* Twice the numbers of E2M1, and 12. */
PANEL_INLINE __m512i e2m1_codes(void)
{
    const __m128i t = _mm_loadu_si128((const __m128i *)mfi_e2m1_doubled);
    return _mm512_broadcast_i32x4(_mm_add_epi8(t, _mm_set1_epi8(12)));
}

PANEL_INLINE __m512i mxfp4_planes_row(const uint8_t *p, const __m512i x[4], const __m512i start[2],
                                      __m512i sum[2])
{
    const __m512i table = e2m1_codes();
    sum[0] = nibble_sums(bytes_at(p), &table, x, start[0]);
    sum[1] = nibble_sums(bytes_at(p + 64), &table, x + 2, start[1]);
    return _mm512_setzero_si512();
}

/* The codes of eight blocks of so many bytes, the last 16 of each. Returns the first bytes of
 * blocks of 17 in each 64 bits. */
PANEL_INLINE __m512i gather_blocks(const uint8_t *p, const int block, __m512i v[2])
{
    const __m512i each =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const long long bytes = 0x0101010101010101, b = block, first = b - 16, fifth = 5 * b - 80;
    const __m512i at =
        _mm512_set_epi64(bytes * (first + 3 * b), bytes * (first + 3 * b), bytes * (first + 2 * b),
                         bytes * (first + 2 * b), bytes * (first + b), bytes * (first + b),
                         bytes * first, bytes * first);
    /* The eighth is the last 16 bytes of the last 64. */
    const __m512i then =
        _mm512_set_epi64(bytes * 112, bytes * 112, bytes * (fifth + 2 * b), bytes * (fifth + 2 * b),
                         bytes * (fifth + b), bytes * (fifth + b), bytes * fifth, bytes * fifth);
    const __m512i heads = _mm512_set1_epi64(0x7766554433221100);
    const __m512i begin = bytes_at(p), middle = bytes_at(p + 64);
    v[0] = _mm512_permutex2var_epi8(begin, _mm512_add_epi8(at, each), middle);
    v[1] = _mm512_permutex2var_epi8(middle, _mm512_add_epi8(then, each),
                                    _mm512_loadu_si512(p + 8 * block - 64));
    return _mm512_permutex2var_epi8(begin, heads, middle);
}

PANEL_INLINE __m512i mxfp4_row(const uint8_t *p, const __m512i x[4], const __m512i start[2],
                               __m512i sum[2])
{
    const __m512i table = e2m1_codes();
    __m512i v[2];
    const __m512i exponents = gather_blocks(p, 17, v); /* bytes 17 * b */
    sum[0] = nibble_sums(v[0], &table, x, start[0]);
    sum[1] = nibble_sums(v[1], &table, x + 2, start[1]);
    return exponents;
}

PANEL_INLINE __m512i q4_0_row(const uint8_t *p, const __m512i x[4], const __m512i start[2],
                              __m512i sum[2])
{
    __m512i v[2];
    gather_blocks(p, 18, v);
    sum[0] = nibble_sums(v[0], NULL, x, start[0]);
    sum[1] = nibble_sums(v[1], NULL, x + 2, start[1]);
    return _mm512_setzero_si512();
}

/* Even columns and odd ones of each 128. */
PANEL_INLINE void even_odd(const int8_t *x, __m512i in[4])
{
    static const uint8_t even[64] = {
        0,  2,  4,   6,   8,   10,  12,  14,  16,  18,  20,  22,  24,  26,  28,  30,
        32, 34, 36,  38,  40,  42,  44,  46,  48,  50,  52,  54,  56,  58,  60,  62,
        64, 66, 68,  70,  72,  74,  76,  78,  80,  82,  84,  86,  88,  90,  92,  94,
        96, 98, 100, 102, 104, 106, 108, 110, 112, 114, 116, 118, 120, 122, 124, 126,
    };
    const __m512i at = _mm512_loadu_si512(even), one = _mm512_set1_epi8(1);
    MFI_UNROLL(2)
    for (int i = 0; i < 2; i++) {
        const __m512i a = _mm512_loadu_si512(x + 128 * i), b = _mm512_loadu_si512(x + 128 * i + 64);
        in[2 * i] = _mm512_permutex2var_epi8(a, at, b);
        in[2 * i + 1] = _mm512_permutex2var_epi8(a, _mm512_or_si512(at, one), b);
    }
}

static void rows_mlx4(const panel_part *part, const panel_plane at[3], const int8_t *x,
                      const int8_t *lo, panel *out)
{
    __m512i in[4];
    (void)lo;
    even_odd(x, in);
    dot_lane_rows(at[0], mlx4_row, in, 0, 128, out->dot, part->fetch, NULL);
    mlx_scales(part, at, out);
}

/* Byte b of each row's eight. */
PANEL_INLINE panel_u byte_of_rows(const __m512i rows[2], uint32_t b)
{
    const __m512i eighth =
        _mm512_setr_epi32(0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120);
    const __m512i at = _mm512_add_epi32(eighth, _mm512_set1_epi32((int)b));
    return (panel_u)_mm512_maskz_permutex2var_epi8(0x1111111111111111, rows[0], at, rows[1]);
}

/* The exponents of eight blocks of each row, which are a plane of their own. */
PANEL_INLINE void plane_exponents(const uint8_t *p, size_t stride, __m512i exponents[2])
{
    exponents[0] = exponents[1] = _mm512_setzero_si512();
    MFI_UNROLL(16)
    for (uint32_t r = 0; r < 16; r++) {
        long long eight;
        memcpy(&eight, p + r * stride, sizeof eight);
        exponents[r / 8] = _mm512_mask_set1_epi64(exponents[r / 8], (__mmask8)(1 << r % 8), eight);
    }
}

static void rows_mxfp4_planes(const panel_part *part, const panel_plane at[3], const int8_t *x,
                              const int8_t *lo, panel *out)
{
    __m512i in[4], exponents[2];
    (void)lo;
    even_odd(x, in);
    dot_lane_rows(at[0], mxfp4_planes_row, in, 12, 128, out->dot, part->fetch, NULL);
    plane_exponents(at[1].p, at[1].stride, exponents);
    MFI_UNROLL(8)
    for (uint32_t b = 0; b < 8; b++)
        out->scale[b] = e8m0(byte_of_rows(exponents, b));
}

/* The first 16 columns of each 32, and the others. */
PANEL_INLINE void halves_of(const int8_t *x, __m512i in[4])
{
    MFI_UNROLL(2)
    for (int i = 0; i < 2; i++) {
        const __m512i a = _mm512_loadu_si512(x + 128 * i), b = _mm512_loadu_si512(x + 128 * i + 64);
        in[2 * i] = _mm512_shuffle_i32x4(a, b, 0x88);
        in[2 * i + 1] = _mm512_shuffle_i32x4(a, b, 0xdd);
    }
}

static void rows_mxfp4(const panel_part *part, const panel_plane at[3], const int8_t *x,
                       const int8_t *lo, panel *out)
{
    __m512i in[4], exponents[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    (void)lo;
    halves_of(x, in);
    dot_lane_rows(at[0], mxfp4_row, in, 12, 136, out->dot, part->fetch, exponents);
    MFI_UNROLL(8)
    for (uint32_t b = 0; b < 8; b++)
        out->scale[b] = half_power(byte_of_rows(exponents, b));
}

static void rows_q4_0(const panel_part *part, const panel_plane at[3], const int8_t *x,
                      const int8_t *lo, panel *out)
{
    __m512i in[4];
    (void)lo;
    halves_of(x, in);
    dot_lane_rows(at[0], q4_0_row, in, 8, 144, out->dot, part->fetch, NULL);
    MFI_UNROLL(8)
    for (uint32_t b = 0; b < 8; b++)
        out->scale[b] = panel_half(column16(at[0].p + 18 * b, at[0].stride));
}

/* ---- q8_0 ---- */

/* Bytes of four blocks of 34: the first 16 codes of each, and the next, which end beyond 128. */
static const uint8_t q8_0_first[64] = {
    2,   3,   4,   5,   6,   7,   8,   9,   10,  11,  12,  13,  14,  15,  16,  17,
    36,  37,  38,  39,  40,  41,  42,  43,  44,  45,  46,  47,  48,  49,  50,  51,
    70,  71,  72,  73,  74,  75,  76,  77,  78,  79,  80,  81,  82,  83,  84,  85,
    104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116, 117, 118, 119,
};
/* Rows 0 to 7 of words 0 to 3, from four rows of eight words to a vector. */
static const uint16_t words_of_rows[32] = {
    0, 8,  16, 24, 32, 40, 48, 56, 1, 9,  17, 25, 33, 41, 49, 57,
    2, 10, 18, 26, 34, 42, 50, 58, 3, 11, 19, 27, 35, 43, 51, 59,
};

/* Codes, 128 more each, of four blocks: the first 16 and the next of each in a lane of its own. The
 * scales in each 64 bits. */
PANEL_INLINE __m512i q8_0_blocks(const uint8_t *p, __m512i v[2])
{
    const __m512i first = _mm512_loadu_si512(q8_0_first), flip = _mm512_set1_epi8(-128);
    const __m512i heads = _mm512_set1_epi64(51LL << 48 | 34LL << 32 | 17LL << 16);
    const __m512i a = bytes_at(p), b = bytes_at(p + 64);
    const __m512i next = _mm512_add_epi8(first, _mm512_set1_epi8(16));
    v[0] = _mm512_xor_si512(_mm512_permutex2var_epi8(a, first, b), flip);
    v[1] = _mm512_mask_broadcast_i32x4(_mm512_permutex2var_epi8(a, next, b), 0xf000,
                                       _mm_loadu_si128((const __m128i *)(p + 120)));
    v[1] = _mm512_xor_si512(v[1], flip);
    return _mm512_permutex2var_epi16(a, heads, b);
}

/* What a token's 256 columns are for q8_0: halves of blocks, and what sums begin with. */
typedef struct q8_0_in {
    __m512i x[4], start[2];
} q8_0_in;

PANEL_INLINE q8_0_in q8_0_input(const int8_t *x)
{
    q8_0_in in;
    halves_of(x, in.x);
    MFI_UNROLL(2)
    for (int i = 0; i < 2; i++)
        in.start[i] = less(less(_mm512_setzero_si512(), -128, in.x[2 * i]), -128, in.x[2 * i + 1]);
    return in;
}

PANEL_INLINE __m512i q8_0_sums(const __m512i v[2], const q8_0_in *in, int i)
{
    return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(in->start[i], v[0], in->x[2 * i]), v[1],
                               in->x[2 * i + 1]);
}

/* Sums of neighbours: [a0 + a1, a2 + a3, b0 + b1, b2 + b3] of each 128 bits. */
PANEL_INLINE __m512i wide_pair_sums(__m512i a, __m512i b)
{
    const __m512 s = _mm512_castsi512_ps(a), t = _mm512_castsi512_ps(b);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(s, t, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(s, t, 0xdd)));
}

/* heads[i]: a lane of eight scales for each row from 4 * i on. */
PANEL_INLINE void q8_0_scales(const __m512i heads[4], panel_f scale[8])
{
    MFI_UNROLL(2)
    for (int i = 0; i < 2; i++) { /* four blocks */
        const __m512i at =
            _mm512_add_epi16(_mm512_loadu_si512(words_of_rows), _mm512_set1_epi16((short)(4 * i)));
        const __m512i up = _mm512_permutex2var_epi16(heads[0], at, heads[1]);
        const __m512i down = _mm512_permutex2var_epi16(heads[2], at, heads[3]);
        MFI_UNROLL(2)
        for (int j = 0; j < 2; j++) {
            const __m512i two = _mm512_permutex2var_epi64(
                up,
                _mm512_add_epi64(_mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11),
                                 _mm512_set1_epi64(4 * j)),
                down);
            scale[4 * i + 2 * j] = (panel_f)_mm512_cvtph_ps(_mm512_castsi512_si256(two));
            scale[4 * i + 2 * j + 1] = (panel_f)_mm512_cvtph_ps(_mm512_extracti64x4_epi64(two, 1));
        }
    }
}

PANEL_INLINE void dot_q8_0_rows(const panel_part *part, panel_plane at, const int8_t *x,
                                const int8_t *low, const bool fine, panel *out)
{
    const q8_0_in in = q8_0_input(x), lo = fine ? q8_0_input(low) : in;
    __m512i by_block[2][4], heads[4];
    MFI_UNROLL(4)
    for (uint32_t i = 0; i < 4; i++) {
        __m512i row[2][4];
        heads[i] = _mm512_setzero_si512();
        MFI_UNROLL(4)
        for (uint32_t r = 0; r < 4; r++) {
            const uint8_t *p = at.p + (4 * i + r) * at.stride;
            if (r % 2 == 0)
                fetch_part(part->fetch, 2 * i + r / 2, 2 * 272);
            MFI_UNROLL(2)
            for (int h = 0; h < 2; h++) { /* four blocks */
                __m512i v[2];
                const __m512i words = q8_0_blocks(p + 136 * h, v);
                heads[i] = _mm512_mask_mov_epi64(heads[i], (__mmask8)(1 << (2 * r + h)), words);
                row[h][r] = q8_0_sums(v, &in, h);
                if (fine) {
                    const __m512i q = row[h][r];
                    row[h][r] = _mm512_add_epi32(_mm512_sub_epi32(_mm512_slli_epi32(q, 8), q),
                                                 q8_0_sums(v, &lo, h));
                }
            }
        }
        MFI_UNROLL(2)
        for (int h = 0; h < 2; h++)
            by_block[h][i] = wide_pair_sums(wide_pair_sums(row[h][0], row[h][1]),
                                            wide_pair_sums(row[h][2], row[h][3]));
    }
    by_lane(by_block[0], out->dot);
    by_lane(by_block[1], out->dot + 4);
    q8_0_scales(heads, out->scale);
}

static void rows_q8_0(const panel_part *part, const panel_plane at[3], const int8_t *x,
                      const int8_t *lo, panel *out)
{
    if (lo)
        dot_q8_0_rows(part, at[0], x, lo, true, out);
    else
        dot_q8_0_rows(part, at[0], x, x, false, out);
}

/* ---- sub-blocks of 16: q6_K ---- */

/* Neighbours of 8-bit sums, or of 255 times those and the sums of what 8 bits leave over. */
PANEL_INLINE __m512i joined(const __m512i q[2], const __m512i lo[2], const bool fine)
{
    const __m512i one = _mm512_set1_epi16(1), a = _mm512_packs_epi32(q[0], q[1]);
    if (!fine)
        return _mm512_madd_epi16(a, one);
    return _mm512_dpwssd_epi32(_mm512_madd_epi16(a, _mm512_set1_epi16(255)),
                               _mm512_packs_epi32(lo[0], lo[1]), one);
}

/* Sums of all 16 sub-blocks of a row: lane k has those of 4 * j + k. */
PANEL_INLINE __m512i q6_k_row(const uint8_t *p, const __m512i x[4], const __m512i lo[4],
                              const __m512i start[4], const __m512i lo_start[4], const bool fine)
{
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(0x30);
    const __m512i up = _mm512_set_epi64(2, 2, 2, 2, 4, 4, 4, 4);
    const __m512i down = _mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0);
    __m512i two[2];
    MFI_UNROLL(2)
    for (int i = 0; i < 2; i++) { /* 128 columns */
        const __m512i v = bytes_at(p + 64 * i);
        const __m512i h =
            _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(p + 128 + 32 * i)));
        __m512i code[2], q[2], rest[2];
        code[0] = _mm512_and_si512(_mm512_sllv_epi64(h, up), high);
        code[1] = _mm512_and_si512(_mm512_srlv_epi64(h, down), high);
        code[0] = _mm512_ternarylogic_epi64(code[0], v, low, 0xf8); /* code | (v & low) */
        code[1] = _mm512_ternarylogic_epi64(code[1], _mm512_srli_epi16(v, 4), low, 0xf8);
        MFI_UNROLL(2)
        for (int j = 0; j < 2; j++) {
            const int k = 2 * i + j;
            q[j] = _mm512_dpbusd_epi32(start[k], code[j], x[k]);
            rest[j] = fine ? _mm512_dpbusd_epi32(lo_start[k], code[j], lo[k]) : q[j];
        }
        two[i] = joined(q, rest, fine);
    }
    const __m512 a = _mm512_castsi512_ps(two[0]), b = _mm512_castsi512_ps(two[1]);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd)));
}

PANEL_INLINE void dot_q6_k_rows(panel_plane at, const int8_t *x, const int8_t *low, const bool fine,
                                panel_i dot[16], const uint8_t *fetch)
{
    __m512i in[4], lo[4], start[4], lo_start[4], by_sub[4][4];
    MFI_UNROLL(4)
    for (int i = 0; i < 4; i++) {
        in[i] = _mm512_loadu_si512(x + 64 * i);
        lo[i] = fine ? _mm512_loadu_si512(low + 64 * i) : in[i];
        start[i] = less(_mm512_setzero_si512(), 32, in[i]);
        lo_start[i] = less(_mm512_setzero_si512(), 32, lo[i]);
    }
    MFI_UNROLL(4)
    for (uint32_t i = 0; i < 4; i++) {
        __m512i row[4], v[4];
        MFI_UNROLL(4)
        for (uint32_t r = 0; r < 4; r++) {
            fetch_part(fetch, 4 * i + r, 210);
            row[r] = q6_k_row(at.p + (4 * i + r) * at.stride, in, lo, start, lo_start, fine);
        }
        by_word(row, v);
        MFI_UNROLL(4)
        for (int k = 0; k < 4; k++)
            by_sub[k][i] = v[k];
    }
    MFI_UNROLL(4)
    for (int k = 0; k < 4; k++)
        by_lane(by_sub[k], dot + 4 * k);
}

static void rows_q6_k(const panel_part *part, const panel_plane at[3], const int8_t *x,
                      const int8_t *lo, panel *out)
{
    if (lo)
        dot_q6_k_rows(at[0], x, lo, true, out->dot, part->fetch);
    else
        dot_q6_k_rows(at[0], x, lo, false, out->dot, part->fetch);
    q6_k_scales(at[0].p, at[0].stride, out);
}

static panel_fn *rows_of(mfi_qtype type, uint32_t cols, bool fine)
{
    static panel_fn *const ggml[] = {
        [2] = rows_q4_0, [8] = rows_q8_0, [12] = rows_q4_k, [14] = rows_q6_k, [39] = rows_mxfp4};
    if (type.kind == MFI_Q_GGML && type.bits == 12 && cols <= SHORT_COLS && !fine)
        return rows_q4_k_whole;
    if (type.kind == MFI_Q_GGML && type.bits < MFI_ARRAY_LEN(ggml))
        return fine && type.bits != 8 && type.bits != 14 ? NULL : ggml[type.bits];
    if (fine)
        return NULL;
    if (type.kind == MFI_Q_MXFP4)
        return rows_mxfp4_planes;
    return type.kind == MFI_Q_MLX && type.bits == 4 ? rows_mlx4 : NULL;
}

#endif
