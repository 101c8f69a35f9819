/* Scalar decoding: float conversions against the compiler's own, MLX rows against mlx itself. */
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "quant/quant.h"

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Every half by its definition: (-1)^s * frac * 2^e in double arithmetic, which is exact here. */
static void f16_widens(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        int exp = (int)(h >> 10 & 31);
        uint32_t frac = h & 1023;
        float got = mfi_f16_to_f32((uint16_t)h);
        if (exp == 31 && frac) {
            assert_true(isnan(got));
            continue;
        }
        double want = exp == 31 ? (double)INFINITY
                      : exp     ? ldexp(1024 + frac, exp - 25)
                                : ldexp(frac, -24);
        if (h & 0x8000)
            want = -want;
        if (bits_of(got) != bits_of((float)want))
            fail_msg("half %04x: %a, should be %a", h, (double)got, want);
        assert_int_equal(mfi_f32_to_f16(got), h);
    }
}

/* Narrowing must pick the nearest of the two neighbours, the even one in the middle. */
static void f16_narrows(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        double low = (double)mfi_f16_to_f32((uint16_t)h);
        double high = h + 1 == 0x7c00 ? 65536 : (double)mfi_f16_to_f32((uint16_t)(h + 1));
        float middle = (float)((low + high) / 2); /* exact: a float has the bits */
        uint16_t even = (uint16_t)(h & 1 ? h + 1 : h);
        assert_int_equal(mfi_f32_to_f16(middle), even);
        assert_int_equal(mfi_f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(mfi_f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(mfi_f32_to_f16(-middle), even | 0x8000);
    }
    assert_int_equal(mfi_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(mfi_f32_to_f16(-3e38f), 0xfc00);
    assert_int_equal(mfi_f32_to_f16(1e-45f), 0);
    assert_int_equal(mfi_f32_to_f16(-0.0f), 0x8000);
    assert_true(isnan(mfi_f16_to_f32(mfi_f32_to_f16(NAN))));
    assert_true(isnan(mfi_f16_to_f32(mfi_f32_to_f16(float_of(0x7f800001)))));
}

static void bf16_narrows(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7f80; h++) {
        float low = float_of(h << 16);
        uint32_t u = h << 16;
        assert_int_equal(mfi_f32_to_bf16(low), h);
        assert_int_equal(mfi_f32_to_bf16(float_of(u | 0x7fff)), h);
        assert_int_equal(mfi_f32_to_bf16(float_of(u | 0x8000)), h & 1 ? h + 1 : h);
        assert_int_equal(mfi_f32_to_bf16(float_of(u | 0x8001)), h + 1);
        assert_int_equal(mfi_f32_to_bf16(-low), h | 0x8000);
    }
    assert_int_equal(mfi_f32_to_bf16(INFINITY), 0x7f80);
    assert_true(isnan(mfi_bf16_to_f32(mfi_f32_to_bf16(float_of(0x7f800001)))));
    assert_true(isnan(mfi_bf16_to_f32(mfi_f32_to_bf16(float_of(0xffffffff)))));
}

static void float_rows(void **state)
{
    (void)state;
    static const uint16_t bf16[] = {0x3f80, 0xc000, 0x0001, 0x7f7f};
    static const uint16_t f16[] = {0x3c00, 0xc000, 0x0001, 0x7bff};
    static const float want_bf16[] = {1, -2, 0x1p-133f, 0x1.fep127f};
    static const float want_f16[] = {1, -2, 0x1p-24f, 65504};
    float out[4];
    unsigned char odd[1 + sizeof want_f16]; /* no alignment needed */

    mfi_dequant_row(mfi_qtype_float(MFI_Q_BF16), (const void *[]){bf16}, 4, out);
    assert_memory_equal(out, want_bf16, sizeof out);
    mfi_dequant_row(mfi_qtype_float(MFI_Q_F16), (const void *[]){f16}, 4, out);
    assert_memory_equal(out, want_f16, sizeof out);
    memcpy(odd + 1, want_f16, sizeof want_f16);
    mfi_dequant_row(mfi_qtype_float(MFI_Q_F32), (const void *[]){odd + 1}, 4, out);
    assert_memory_equal(out, want_f16, sizeof out);
}

static unsigned char *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: can't be opened", path);
    unsigned char *bytes = malloc((size_t)1 << 20);
    assert_non_null(bytes);
    *size = fread(bytes, 1, (size_t)1 << 20, f);
    fclose(f);
    return bytes;
}

/* tests/data/mlx/README.md tells the layout. */
static void mlx_rows(void **state)
{
    (void)state;
    size_t size;
    unsigned char *bytes = read_file(mft_source("tests/data/mlx/blocks.bin"), &size);
    const unsigned char *p = bytes;
    uint32_t n_cases;
    assert_memory_equal(p, "MFMLXBLK", 8);
    memcpy(&n_cases, p + 8, 4);
    assert_int_equal(n_cases, 3 * 6 * 3);
    p += 12;
    for (uint32_t i = 0; i < n_cases; i++) {
        uint32_t head[5]; /* bits, group, kind, rows, cols */
        memcpy(head, p, sizeof head);
        p += sizeof head;
        uint32_t bits = head[0], group = head[1], rows = head[3], cols = head[4];
        mfi_qkind kind = head[2] == 1 ? MFI_Q_F32 : head[2] == 2 ? MFI_Q_F16 : MFI_Q_BF16;
        mfi_qtype type = {MFI_Q_MLX, (uint8_t)bits, kind, (uint8_t)group};
        size_t el = kind == MFI_Q_F32 ? 4 : 2;
        const unsigned char *codes = p + rows * cols * el;
        const unsigned char *scales = codes + rows * cols * bits / 8;
        const unsigned char *biases = scales + rows * (cols / group) * el;
        const unsigned char *want = biases + rows * (cols / group) * el;
        p = want + rows * cols * el;
        assert_true((size_t)(p - bytes) <= size);
        for (uint32_t r = 0; r < rows; r++) {
            float got[256], expect[256];
            const void *planes[] = {codes + r * (cols * bits / 8), scales + r * (cols / group) * el,
                                    biases + r * (cols / group) * el};
            assert_true(cols <= 256);
            mfi_dequant_row(type, planes, cols, got);
            mfi_dequant_row(mfi_qtype_float(kind), (const void *[]){want + r * cols * el}, cols,
                            expect);
            for (uint32_t c = 0; c < cols; c++) {
                if (bits_of(got[c]) != bits_of(expect[c]))
                    fail_msg("%u bits, group %u, scales %u, [%u][%u]: %a, mlx says %a", bits, group,
                             head[2], r, c, (double)got[c], (double)expect[c]);
            }
        }
    }
    assert_int_equal(p - bytes, size);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_widens), cmocka_unit_test(f16_narrows), cmocka_unit_test(bf16_narrows),
        cmocka_unit_test(float_rows), cmocka_unit_test(mlx_rows),
    };
    return mft_run(tests);
}
