/* Row orders of packed and tiled projections, against the orders written out head by head. */
#include "fake/support.h"

#include "op/program.h"

/* 2 key heads of 3 rows, 6 value heads of 5 rows: 3 value heads a key head. */
static const mfi_shape shape = {.gdn_k_heads = 2, .gdn_v_heads = 6, .gdn_k_dim = 3, .gdn_v_dim = 5};

/* Checks that rows [0, n) of a mapped weight stand where `want` says, run by run. */
static void check(mfi_row_map map, const uint32_t *want, uint32_t n)
{
    for (uint32_t r = 0; r < n;) {
        uint32_t src, run = mfi_map_source(&shape, map, r, &src);
        assert_true(run > 0);
        for (uint32_t i = 0; i < run && r < n; i++, r++)
            assert_int_equal(src + i, want[r]);
    }
}

static void packed_by_key_head(void **state)
{
    (void)state;
    uint32_t qkv[6 + 6 + 30], z[30], n = 0, n_z = 0;
    const uint32_t stride = 3 + 3 + 15 + 15;
    for (uint32_t part = 0; part < 2; part++) /* q, k */
        for (uint32_t k = 0; k < 2; k++)
            for (uint32_t i = 0; i < 3; i++)
                qkv[n++] = k * stride + part * 3 + i;
    for (uint32_t k = 0; k < 2; k++)
        for (uint32_t i = 0; i < 15; i++) {
            qkv[n++] = k * stride + 6 + i;
            z[n_z++] = k * stride + 21 + i;
        }
    check(MFI_MAP_QKVZ_QKV, qkv, n);
    check(MFI_MAP_QKVZ_Z, z, n_z);
    assert_int_equal(mfi_map_tensor_rows(&shape, MFI_MAP_QKVZ_QKV, n), 2 * stride);
    const uint32_t b[6] = {0, 1, 2, 6, 7, 8}, a[6] = {3, 4, 5, 9, 10, 11};
    check(MFI_MAP_BA_B, b, 6);
    check(MFI_MAP_BA_A, a, 6);
    assert_int_equal(mfi_map_tensor_rows(&shape, MFI_MAP_BA_A, 6), 12);
}

static void tiled(void **state)
{
    (void)state;
    /* Stored: value heads 0 of key heads 0 and 1, then their heads 1, then their heads 2. */
    const uint32_t heads[6] = {0, 2, 4, 1, 3, 5};
    uint32_t v[30], qkv[12 + 30];
    check(MFI_MAP_TILED_HEADS, heads, 6);
    for (uint32_t h = 0; h < 6; h++)
        for (uint32_t i = 0; i < 5; i++)
            v[h * 5 + i] = heads[h] * 5 + i;
    check(MFI_MAP_TILED_V, v, 30);
    check(MFI_MAP_TILED_COLS, v, 30);
    for (uint32_t i = 0; i < 42; i++)
        qkv[i] = i < 12 ? i : 12 + v[i - 12];
    check(MFI_MAP_TILED_QKV, qkv, 42);
    assert_int_equal(mfi_map_tensor_rows(&shape, MFI_MAP_TILED_QKV, 42), 42);
}

/* Heads of 6 rows, the first 4 of which are two pairs: (0, 2) and (1, 3), stored one after the
 * other. */
static void paired(void **state)
{
    (void)state;
    static const mfi_shape heads = {.head_dim = 6, .n_rot = 4};
    static const uint32_t want[12] = {0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11};
    for (uint32_t r = 0; r < 12;) {
        uint32_t src, run = mfi_map_source(&heads, MFI_MAP_ROPE_PAIRS, r, &src);
        assert_true(run > 0);
        for (uint32_t i = 0; i < run && r < 12; i++, r++)
            assert_int_equal(src + i, want[r]);
    }
    assert_int_equal(mfi_map_tensor_rows(&heads, MFI_MAP_ROPE_PAIRS, 12), 12);
}

/* 3 heads of 4 rows of keys, then 2 of values. */
static void keys_and_values(void **state)
{
    (void)state;
    const mfi_shape latent = {.n_head = 3, .nope_dim = 4, .v_dim = 2};
    const uint32_t k[] = {0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 14, 15}, v[] = {4, 5, 10, 11, 16, 17};
    for (uint32_t r = 0; r < 12; r++) {
        uint32_t src;
        assert_int_equal(mfi_map_source(&latent, MFI_MAP_KVB_K, r, &src), 4 - r % 4);
        assert_int_equal(src, k[r]);
        if (r < 6) {
            assert_int_equal(mfi_map_source(&latent, MFI_MAP_KVB_V, r, &src), 2 - r % 2);
            assert_int_equal(src, v[r]);
        }
    }
    assert_int_equal(mfi_map_tensor_rows(&latent, MFI_MAP_KVB_K, 12), 18);
    assert_int_equal(mfi_map_tensor_rows(&latent, MFI_MAP_KVB_V, 6), 18);
}

/* 3 query heads and 2 of keys and values, of 4 rows each, in one tensor. */
static void fused(void **state)
{
    (void)state;
    static const mfi_shape heads = {.n_head = 3, .n_kv_head = 2, .head_dim = 4};
    static const struct {
        mfi_row_map map;
        uint32_t first, n;
    } parts[] = {{MFI_MAP_FUSED_Q, 0, 12}, {MFI_MAP_FUSED_K, 12, 8}, {MFI_MAP_FUSED_V, 20, 8}};
    for (int p = 0; p < 3; p++) {
        for (uint32_t r = 0; r < parts[p].n; r++) {
            uint32_t src;
            assert_true(mfi_map_source(&heads, parts[p].map, r, &src) >= parts[p].n - r);
            assert_int_equal(src, parts[p].first + r);
        }
        assert_int_equal(mfi_map_tensor_rows(&heads, parts[p].map, parts[p].n), 28);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_by_key_head), cmocka_unit_test(tiled), cmocka_unit_test(paired),
        cmocka_unit_test(keys_and_values),    cmocka_unit_test(fused),
    };
    return mft_run(tests);
}
