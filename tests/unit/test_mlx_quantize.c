/* Affine quantisation held against mlx itself (tests/data/mlx/README.md), packing against a
 * bit-by-bit packer, and the edges that random weights don't reach. */
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "quant/quant.h"

#define MAX_COLS 1024

typedef struct reader {
    const unsigned char *p, *end;
} reader;

static const void *take(reader *r, size_t n)
{
    const void *p = r->p;
    assert_true((size_t)(r->end - r->p) >= n);
    r->p += n;
    return p;
}

static uint32_t take_u32(reader *r)
{
    uint32_t u;
    memcpy(&u, take(r, 4), 4);
    return u;
}

static unsigned char *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: can't open", path);
    size_t cap = 1 << 20;
    unsigned char *data = malloc(cap);
    *size = fread(data, 1, cap, f);
    assert_true(*size < cap);
    fclose(f);
    return data;
}

static void narrow(float f, mfi_qkind kind, void *out)
{
    uint16_t h = kind == MFI_Q_F16 ? mfi_f32_to_f16(f) : mfi_f32_to_bf16(f);
    if (kind == MFI_Q_F32)
        memcpy(out, &f, sizeof f);
    else
        memcpy(out, &h, sizeof h);
}

static void quantize_row(const float *x, uint32_t cols, mfi_qtype t, void *planes[3])
{
    uint8_t codes[MAX_COLS];
    size_t width = t.scale == MFI_Q_F32 ? 4 : 2;
    for (uint32_t g = 0; g < cols / t.group; g++) {
        float scale, bias;
        mfi_mlx_quantize_group(x + g * t.group, t.group, t.bits, (mfi_qkind)t.scale,
                               codes + g * t.group, &scale, &bias);
        narrow(scale, (mfi_qkind)t.scale, (char *)planes[1] + g * width);
        narrow(bias, (mfi_qkind)t.scale, (char *)planes[2] + g * width);
        /* What is handed out is already in the narrow type. */
        float again = 0;
        mfi_dequant_row(mfi_qtype_float((mfi_qkind)t.scale),
                        (const void *[]){(char *)planes[1] + g * width}, 1, &again);
        assert_true(again == scale);
    }
    mfi_mlx_pack(codes, cols, t.bits, planes[0]);
}

static void gives_the_bits_of_mlx(void **state)
{
    (void)state;
    size_t size;
    unsigned char *data = read_file(mft_source("tests/data/mlx/blocks.bin"), &size);
    reader r = {data, data + size};
    assert_memory_equal(take(&r, 8), "MFMLXBLK", 8);
    uint32_t n_cases = take_u32(&r);
    assert_int_equal(n_cases, 54); /* 3 types, 6 widths, 3 groups */
    for (uint32_t i = 0; i < n_cases; i++) {
        mfi_qtype t = {.kind = MFI_Q_MLX};
        t.bits = (uint8_t)take_u32(&r);
        t.group = (uint8_t)take_u32(&r);
        t.scale = (uint8_t)take_u32(&r);
        uint32_t rows = take_u32(&r), cols = take_u32(&r);
        assert_true(cols <= MAX_COLS);
        mfi_qtype in = mfi_qtype_float((mfi_qkind)t.scale);
        size_t width = t.scale == MFI_Q_F32 ? 4 : 2, in_bytes = cols * width;
        size_t scales_bytes = cols / t.group * width;
        size_t plane_bytes[3] = {cols * t.bits / 8, scales_bytes, scales_bytes};
        const unsigned char *x = take(&r, rows * in_bytes), *want[3];
        for (uint32_t p = 0; p < 3; p++)
            want[p] = take(&r, rows * plane_bytes[p]);
        take(&r, rows * in_bytes); /* dequantised: test_dequant's */
        for (uint32_t row = 0; row < rows; row++) {
            float w[MAX_COLS];
            unsigned char got[3][MAX_COLS * 4];
            mfi_dequant_row(in, (const void *[]){x + row * in_bytes}, cols, w);
            quantize_row(w, cols, t, (void *[]){got[0], got[1], got[2]});
            for (uint32_t p = 0; p < 3; p++)
                if (memcmp(got[p], want[p] + row * plane_bytes[p], plane_bytes[p]) != 0)
                    fail_msg("%u bits, group %u, scale type %u, row %u: plane %u differs", t.bits,
                             t.group, t.scale, row, p);
        }
    }
    assert_ptr_equal(r.p, r.end);
    free(data);
}

static void packs_bit_by_bit(void **state)
{
    (void)state;
    static const uint32_t widths[] = {2, 3, 4, 5, 6, 8};
    mfi_rng rng = {5};
    for (size_t w = 0; w < MFI_ARRAY_LEN(widths); w++) {
        for (uint32_t n = 32; n <= 256; n += 32) {
            uint32_t bits = widths[w];
            uint8_t codes[256], want[256] = {0}, got[257];
            memset(got, 0xa5, sizeof got);
            for (uint32_t i = 0; i < n; i++) {
                codes[i] = (uint8_t)mfi_rng_below(&rng, 1u << bits);
                for (uint32_t b = 0; b < bits; b++)
                    want[(i * bits + b) / 8] |=
                        (uint8_t)((codes[i] >> b & 1) << (i * bits + b) % 8);
            }
            mfi_mlx_pack(codes, n, bits, got);
            assert_memory_equal(got, want, n * bits / 8);
            assert_int_equal(got[n * bits / 8], 0xa5);
        }
    }
}

/* Every value decodes to within half a step. With float32 scales nothing else is lost. */
static void stays_within_half_a_step(void **state)
{
    (void)state;
    static const uint32_t widths[] = {2, 3, 4, 5, 6, 8};
    for (uint64_t seed = 0; seed < 600; seed++) {
        mfi_rng rng = {seed};
        uint32_t bits = widths[seed % 6], group = 32u << seed / 6 % 3;
        double size = pow(10, (double)mfi_rng_below(&rng, 12) - 4), offset = 0;
        if (mfi_rng_below(&rng, 2))
            offset = size * (mfi_rng_unit(&rng) * 4 - 2);
        float x[128], scale, bias;
        uint8_t codes[128];
        for (uint32_t i = 0; i < group; i++)
            x[i] = (float)(size * (mfi_rng_unit(&rng) * 2 - 1) + offset);
        mfi_mlx_quantize_group(x, group, bits, MFI_Q_F32, codes, &scale, &bias);
        for (uint32_t i = 0; i < group; i++) {
            assert_true(codes[i] < 1u << bits);
            double back = (double)codes[i] * (double)scale + (double)bias;
            double lost = fabs(back - (double)x[i]), step = fabs((double)scale);
            /* The step is stretched so that zero is on the grid: at the far end up to half a step
             * more may be cut off. */
            bool far_end = codes[i] == 0 || codes[i] == (1u << bits) - 1;
            if (lost > step * (far_end ? 1.01 : 0.5001))
                fail_msg("seed %d, %u bits: %g became %g, step %g", (int)seed, bits, (double)x[i],
                         back, step);
        }
    }
}

static void edges(void **state)
{
    (void)state;
    float x[32], scale, bias;
    uint8_t codes[32];

    for (int i = 0; i < 32; i++) /* a constant is kept exactly */
        x[i] = 0.4375f;
    mfi_mlx_quantize_group(x, 32, 4, MFI_Q_BF16, codes, &scale, &bias);
    for (int i = 0; i < 32; i++)
        assert_true((float)codes[i] * scale + bias == 0.4375f);

    for (int i = 0; i < 32; i++) /* zeros, of either sign */
        x[i] = i & 1 ? -0.0f : 0.0f;
    mfi_mlx_quantize_group(x, 32, 4, MFI_Q_F32, codes, &scale, &bias);
    for (int i = 0; i < 32; i++)
        assert_true((float)codes[i] * scale + bias == 0);

    x[7] = NAN; /* doesn't move the range */
    x[8] = 1;
    mfi_mlx_quantize_group(x, 32, 8, MFI_Q_F32, codes, &scale, &bias);
    assert_int_equal(codes[7], 0);
    assert_true((float)codes[8] * scale + bias == 1);
    assert_true(fabsf((float)codes[9] * scale + bias) < 1e-6f);

    x[7] = -3e38f; /* the range overflows: seen by the caller */
    x[8] = 3e38f;
    mfi_mlx_quantize_group(x, 32, 8, MFI_Q_F32, codes, &scale, &bias);
    assert_true(isinf(scale));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_bits_of_mlx),
        cmocka_unit_test(packs_bit_by_bit),
        cmocka_unit_test(stays_within_half_a_step),
        cmocka_unit_test(edges),
    };
    return mft_run(tests);
}
