/* MLX's 4 bits with one token: nibbles are multiplied where they stand, in pairs of words that have
 * the even and the odd columns of eight, and the activations are brought into that order once for
 * all rows of a panel. The sums are the same integers. Included by the two files of the integer
 * products with eight rows a panel. */
#ifndef MFI_KERNELS_X86_ROWS_AVX2_H
#define MFI_KERNELS_X86_ROWS_AVX2_H

static void rows_mlx4(const panel_part *part, const panel_plane at[3], const int8_t *x,
                      const int8_t *lo, panel *out)
{
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    int8_t in[PANEL_STEP];
    panel_i dot[8];
    const sink to = {.out = out, .dot = dot, .x = in};
    (void)lo;
    MFI_UNROLL(16)
    for (int i = 0; i < PANEL_STEP; i += 16) {
        const __m128i v = _mm_loadu_si128((const __m128i *)(x + i));
        _mm_storeu_si128((__m128i *)(in + i), _mm_shuffle_epi8(v, order));
    }
    MFI_UNROLL(8)
    for (uint32_t b = 0; b < 8; b++) {
        panel_u v[4];
        MFI_UNROLL(2)
        for (uint32_t k = 0; k < 2; k++) /* as many bytes as in a panel */
            __builtin_prefetch(part->fetch + (2 * b + k) * 64, 0, 2);
        panel_slab(at[0].p + 16 * b, at[0].stride, v);
        MFI_UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            put(&to, 8 * b + 2 * j, v[j] & BYTES(15));
            put(&to, 8 * b + 2 * j + 1, v[j] >> 4 & BYTES(15));
        }
    }
    mlx_scales(part, at, out);
    MFI_UNROLL(8)
    for (int i = 0; i < 8; i++)
        out->dot[i] = dot[i];
}

static panel_fn *rows_of(mfi_qtype type, bool fine)
{
    return type.kind == MFI_Q_MLX && type.bits == 4 && !fine ? rows_mlx4 : NULL;
}

#define PANEL_DOT_ROWS(type, cols, lo) rows_of(type, (lo) != NULL)

#endif
