/* Products with one token of rows so short (SHORT_COLS) that a panel is little: its 16 rows are
 * walked whole, one after another, so that memory sees longer stretches than where 256 columns of
 * all rows come before the next, and what the sums are multiplied by stays in registers: storing 64
 * bytes takes a core as long as two of the products. MLX's 4 bits and MXFP4; the same numbers in
 * the same order as by steps (int_tmpl.h), so the same bits. Included by one file only, that of the
 * integer products with AVX-512. */
#ifndef MFI_KERNELS_X86_WHOLE_AVX512_H
#define MFI_KERNELS_X86_WHOLE_AVX512_H

/* What a token is for 256 columns, and what sums begin with. */
typedef struct lane_in {
    __m512i x[4], start[2];
} lane_in;

/* Sums of whole rows: [step][two rows]; heads[step][row] are the first eight bytes of what row_sums
 * returns. */
typedef struct whole_sums {
    __m512i two[WHOLE_STEPS][PANEL_ROWS / 2];
    uint64_t heads[WHOLE_STEPS][PANEL_ROWS] __attribute__((aligned(64)));
} whole_sums;

PANEL_INLINE void sum_whole_rows(panel_plane at, lane_row_fn *row_sums, const lane_in in[],
                                 const uint32_t n_steps, const uint32_t step_bytes,
                                 const bool heads, const uint8_t *fetch, whole_sums *sums)
{
    const uint8_t *p = at.p;
    for (uint32_t r = 0; r < PANEL_ROWS; r += 2, p += 2 * at.stride) {
        MFI_UNROLL(3)
        for (uint32_t c = 0; c < n_steps; c++) {
            __m512i head[2];
            fetch_part(fetch, 0, 2 * step_bytes);
            const __m512i two =
                lane_pair(p + c * step_bytes, at.stride, row_sums, in[c].x, in[c].start, head);
            sums->two[c][r / 2] = two;
            fetch += 2 * step_bytes;
            __asm__("" : "+r"(fetch) : "v"(two)); /* else they are all fetched at once */
            MFI_UNROLL(2)
            for (uint32_t k = 0; k < 2 && heads; k++)
                _mm_storel_epi64((__m128i *)&sums->heads[c][r + k],
                                 _mm512_castsi512_si128(head[k]));
        }
    }
}

/* acc + what eight blocks add, as int_one of int_tmpl.h has it. */
PANEL_INLINE panel_f add_blocks(panel_f acc, const panel_i dot[8], const panel_f scale[8],
                                const panel_f *min, const float *d, const float *s)
{
    MFI_UNROLL(8)
    for (uint32_t b = 0; b < 8; b++) {
        acc = panel_fma(__builtin_convertvector(dot[b], panel_f), scale[b] * d[b], acc);
        if (min)
            acc = panel_fma(min[b], (panel_f){0} + s[b], acc);
    }
    return acc;
}

PANEL_INLINE void mlx4_whole(const panel_part *part, const mfi_qtype type, const panel_plane at[3],
                             const mfi_q8 *x, const uint32_t n_steps, float *y)
{
    lane_in in[WHOLE_STEPS];
    whole_sums sums;
    panel_u words[2][4];
    panel_part p = *part;
    panel_f acc = {0};
    MFI_UNROLL(3)
    for (uint32_t c = 0; c < n_steps; c++) {
        even_odd(x->q + c * PANEL_STEP, in[c].x);
        lane_starts(in[c].x, 0, in[c].start);
    }
    sum_whole_rows(at[0], mlx4_row, in, n_steps, 128, false, part->fetch, &sums);
    p.type = type;
    p.n_blocks = 8;
    for (uint32_t c = 0; c < n_steps; c++) {
        const uint32_t b = 8 * c, size = type.scale == MFI_Q_F32 ? 4 : 2;
        const uint32_t skip = c * PANEL_STEP / type.group * size;
        const panel_plane scales = {at[1].p + skip, at[1].stride};
        const panel_plane mins = {at[2].p + skip, at[2].stride};
        panel_i dot[8];
        panel_f scale[8], min[8];
        part_lane_pairs(sums.two[c], dot);
        p.c = c * PANEL_STEP;
        mlx_floats(&p, scales, words[0], scale);
        mlx_floats(&p, mins, words[1], min);
        acc = add_blocks(acc, dot, scale, min, x->d + b, x->s + b);
    }
    panel_store(y, PANEL_ROWS, acc);
}

/* planes: exponents are a plane, and columns in MLX's order. */
PANEL_INLINE void mxfp4_whole(const panel_part *part, const panel_plane at[3], const mfi_q8 *x,
                              const uint32_t n_steps, const bool planes, float *y)
{
    lane_in in[WHOLE_STEPS];
    whole_sums sums;
    panel_f acc = {0};
    MFI_UNROLL(3)
    for (uint32_t c = 0; c < n_steps; c++) {
        if (planes)
            even_odd(x->q + c * PANEL_STEP, in[c].x);
        else
            halves_of(x->q + c * PANEL_STEP, in[c].x);
        lane_starts(in[c].x, 12, in[c].start);
    }
    if (planes)
        sum_whole_rows(at[0], mxfp4_planes_row, in, n_steps, 128, false, part->fetch, &sums);
    else
        sum_whole_rows(at[0], mxfp4_row, in, n_steps, 136, true, part->fetch, &sums);
    for (uint32_t c = 0; c < n_steps; c++) {
        __m512i exponents[2];
        panel_i dot[8];
        panel_f scale[8];
        part_lane_pairs(sums.two[c], dot);
        if (planes) {
            plane_exponents(at[1].p + 8 * c, at[1].stride, exponents);
        } else {
            exponents[0] = _mm512_load_si512(sums.heads[c]);
            exponents[1] = _mm512_load_si512(sums.heads[c] + 8);
        }
        MFI_UNROLL(8)
        for (uint32_t b = 0; b < 8; b++) {
            const panel_u e = byte_of_rows(exponents, b);
            scale[b] = planes ? e8m0(e) : half_power(e);
        }
        acc = add_blocks(acc, dot, scale, NULL, x->d + 8 * c, NULL);
    }
    panel_store(y, PANEL_ROWS, acc);
}

/* Rows of whole steps, as many as a panel has: the token's products. */
typedef void whole_fn(const panel_part *part, const panel_plane at[3], const mfi_q8 *x, float *y);

/* The number of steps known to the compiler, and so the types of most MLX models. */
#define WHOLE_OF(name, steps, body)                                                                \
    static void name##_##steps(const panel_part *part, const panel_plane at[3], const mfi_q8 *x,   \
                               float *y)                                                           \
    {                                                                                              \
        const uint32_t n = steps;                                                                  \
        body;                                                                                      \
    }
#define WHOLES_OF(name, body) WHOLE_OF(name, 2, body) WHOLE_OF(name, 3, body)
#define MLX4_BF16(cols)       ((mfi_qtype){MFI_Q_MLX, 4, MFI_Q_BF16, cols})
WHOLES_OF(whole_mlx4, mlx4_whole(part, part->type, at, x, n, y))
WHOLES_OF(whole_mlx4_32, mlx4_whole(part, MLX4_BF16(32), at, x, n, y))
WHOLES_OF(whole_mlx4_64, mlx4_whole(part, MLX4_BF16(64), at, x, n, y))
WHOLES_OF(whole_mxfp4, mxfp4_whole(part, at, x, n, false, y))
WHOLES_OF(whole_mxfp4_planes, mxfp4_whole(part, at, x, n, true, y))

static whole_fn *whole_of(mfi_qtype type, uint32_t cols, bool fine)
{
    const bool three = cols == SHORT_COLS;
    if (fine || cols > SHORT_COLS || cols % PANEL_STEP || cols == PANEL_STEP)
        return NULL;
    if (type.kind == MFI_Q_GGML && type.bits == 39)
        return three ? whole_mxfp4_3 : whole_mxfp4_2;
    if (type.kind == MFI_Q_MXFP4)
        return three ? whole_mxfp4_planes_3 : whole_mxfp4_planes_2;
    if (type.kind != MFI_Q_MLX || type.bits != 4)
        return NULL;
    if (type.scale == MFI_Q_BF16 && type.group == 64)
        return three ? whole_mlx4_64_3 : whole_mlx4_64_2;
    if (type.scale == MFI_Q_BF16 && type.group == 32)
        return three ? whole_mlx4_32_3 : whole_mlx4_32_2;
    return three ? whole_mlx4_3 : whole_mlx4_2;
}

#endif
