/* Every GGML block type: to the bit what the reference decodes, from its own vectors, and
 * everywhere from seeded blocks whose decoded form is known by its hash
 * (tools/gen_block_hashes.py). */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/rng.h"
#include "fake/guard.h"
#include "fake/model_files.h"
#include "quant/quant.h"

#define N_BLOCKS 24

static const struct {
    uint32_t type;
    const char *name;
    int half[2]; /* where the high bytes of half floats are, or -1 */
    uint64_t hash;
} cases[] = {
#include "../data/ggml_block_hashes.inc"
};

static mfi_qtype ggml_type(uint32_t number)
{
    return (mfi_qtype){.kind = MFI_Q_GGML, .bits = (uint8_t)number};
}

static uint64_t fnv1a(const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* The blocks lie between guard pages, so that a read beyond them crashes. */
static void seeded_blocks(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        uint32_t n_elements, n_bytes;
        assert_true(mfi_ggml_block(cases[i].type, &n_elements, &n_bytes));
        size_t n_in = (size_t)N_BLOCKS * n_bytes, n_out = (size_t)N_BLOCKS * n_elements;
        for (int place = 0; place < MFT_N_PLACES; place++) {
            uint8_t *blocks = mft_guard_alloc(n_in, (mft_place)place);
            float *out = mft_guard_alloc(n_out * sizeof *out, MFT_AT_END);
            mfi_rng rng = {cases[i].type};
            for (size_t b = 0; b < n_in; b++)
                blocks[b] = (uint8_t)(mfi_rng_next(&rng) >> 56);
            for (int h = 0; h < 2; h++)
                for (uint32_t b = 0; b < N_BLOCKS && cases[i].half[h] >= 0; b++)
                    blocks[b * n_bytes + (uint32_t)cases[i].half[h]] &= 0xbf;
            mfi_dequant_row(ggml_type(cases[i].type), (const void *[]){blocks}, n_out, out);
            uint64_t hash = fnv1a(out, n_out * sizeof *out);
            if (hash != cases[i].hash)
                fail_msg("%s: hash %016llx", cases[i].name, (unsigned long long)hash);
            mft_guard_free();
        }
    }
}

static const void *read_vector(const char *dir, const char *type, const char *suffix, size_t *len)
{
    char file[64];
    snprintf(file, sizeof file, "%.40s%s", type, suffix);
    return mft_read(mft_path(dir, file), len);
}

/* One entry of the index. */
static void compare(const char *dir, const mfi_json *entry)
{
    const char *name = mfi_json_str(mfi_json_get(entry, "type"), NULL);
    int64_t number = -1;
    assert_true(mfi_json_i64(mfi_json_get(entry, "ggml_type"), &number));
    mfi_qtype type = number == 1    ? mfi_qtype_float(MFI_Q_F16)
                     : number == 30 ? mfi_qtype_float(MFI_Q_BF16)
                                    : ggml_type((uint32_t)number);
    size_t n_in, n_want;
    const void *blocks = read_vector(dir, name, ".bin", &n_in);
    const float *want = read_vector(dir, name, ".f32", &n_want);
    size_t n = n_want / sizeof *want;
    assert_true(n > 0 && mfi_quant_cols_ok(type, n));
    assert_int_equal(mfi_quant_row_bytes(type, 0, n), n_in);
    float *out = malloc(n_want);
    mfi_dequant_row(type, &blocks, n, out);
    for (size_t i = 0; i < n; i++)
        if (memcmp(&out[i], &want[i], sizeof *out) != 0)
            fail_msg("%s: element %zu is %a, not %a", name, i, (double)out[i], (double)want[i]);
    printf("%-8s %zu elements equal to the bit\n", name, n);
    free(out);
    free((void *)(uintptr_t)want);
    free((void *)(uintptr_t)blocks);
}

static void reference_vectors(void **state)
{
    (void)state;
    const char *dir = mft_oracle("gguf/quants");
    if (!dir)
        mft_skip("no oracle gguf/quants");
    mfi_json *index;
    mf_error err;
    mft_ok(mfi_json_parse_file(mft_path(dir, "index.json"), MFI_MIB, &index, &err), &err);
    size_t n = mfi_json_len(index);
    assert_true(n >= MFI_ARRAY_LEN(cases) + 2); /* and the two half floats */
    for (size_t i = 0; i < n; i++)
        compare(dir, mfi_json_at(index, i));
    mfi_json_free(&index);
}

/* A type has a decoder if and only if it has a layout. */
static void unknown_types(void **state)
{
    (void)state;
    size_t n_known = 0;
    for (uint32_t t = 0; t < 300; t++) {
        uint32_t n_elements, n_bytes;
        bool known = mfi_ggml_block(t, &n_elements, &n_bytes);
        assert_int_equal(known, mfi_ggml_decoder(t) != NULL);
        assert_int_equal(known, strcmp(mfi_ggml_name(t), "?") != 0);
        n_known += known;
        if (!known)
            continue;
        assert_true(mfi_quant_cols_ok(ggml_type(t), n_elements));
        assert_false(mfi_quant_cols_ok(ggml_type(t), n_elements - 1));
    }
    assert_int_equal(n_known, MFI_ARRAY_LEN(cases));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeded_blocks),
        cmocka_unit_test(reference_vectors),
        cmocka_unit_test(unknown_types),
    };
    return mft_run(tests);
}
