/* The GGUF writer: byte for byte against a file laid out by hand from the format's description, and
 * its promise that a file appears whole or not at all. */
#include "fake/support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "convert/gguf_write.h"
#include "fake/model_files.h"

static unsigned char *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    unsigned char *data = malloc(*len + 1);
    assert_int_equal(fread(data, 1, *len, f), *len);
    fclose(f);
    return data;
}

/* Every kind of value, an array of each that has a put, a tensor of each sort. */
static const unsigned char expected[] = {
    /* clang-format off */
    'G','G','U','F', 3,0,0,0, 2,0,0,0,0,0,0,0, 8,0,0,0,0,0,0,0,
    1,0,0,0,0,0,0,0, 'a', 8,0,0,0, 2,0,0,0,0,0,0,0, 'h','i',
    1,0,0,0,0,0,0,0, 'b', 4,0,0,0, 0x78,0x56,0x34,0x12,
    1,0,0,0,0,0,0,0, 'e', 6,0,0,0, 0,0,0xc0,0x3f,
    1,0,0,0,0,0,0,0, 'f', 7,0,0,0, 1,
    2,0,0,0,0,0,0,0, 'g','g', 9,0,0,0, 8,0,0,0, 2,0,0,0,0,0,0,0,
        0,0,0,0,0,0,0,0, 1,0,0,0,0,0,0,0, 'x',
    1,0,0,0,0,0,0,0, 'h', 9,0,0,0, 5,0,0,0, 2,0,0,0,0,0,0,0, 1,0,0,0, 0xff,0xff,0xff,0xff,
    1,0,0,0,0,0,0,0, 'i', 9,0,0,0, 6,0,0,0, 1,0,0,0,0,0,0,0, 0,0,0x80,0xbf,
    1,0,0,0,0,0,0,0, 'j', 9,0,0,0, 7,0,0,0, 0,0,0,0,0,0,0,0,
    /* "m": Q8_0 [2][64] -> 64, 2; 136 bytes */
    1,0,0,0,0,0,0,0, 'm', 2,0,0,0, 64,0,0,0,0,0,0,0, 2,0,0,0,0,0,0,0, 8,0,0,0, 0,0,0,0,0,0,0,0,
    /* "v": BF16 [3], at the next multiple of 32 */
    1,0,0,0,0,0,0,0, 'v', 1,0,0,0, 3,0,0,0,0,0,0,0, 30,0,0,0, 160,0,0,0,0,0,0,0,
    /* clang-format on */
};

static void test_bytes(void **state)
{
    (void)state;
    mf_error err;
    const char *path = mft_fresh("bytes.gguf");
    mfi_gguf_out g;
    mft_ok(mfi_gguf_create(&g, path, &err), &err);
    mfi_gguf_key_str(&g, "a", "hi");
    mfi_gguf_key_u32(&g, "b", 0x12345678);
    mfi_gguf_key_f32(&g, "e", 1.5f);
    mfi_gguf_key_bool(&g, "f", true);
    mfi_gguf_array(&g, "gg", MFI_GGUF_STRING, 2);
    mfi_gguf_put_str(&g, "", 0);
    mfi_gguf_put_str(&g, "x", 1);
    mfi_gguf_array(&g, "h", MFI_GGUF_INT32, 2);
    mfi_gguf_put_i32(&g, 1);
    mfi_gguf_put_i32(&g, -1);
    mfi_gguf_array(&g, "i", MFI_GGUF_FLOAT32, 1);
    mfi_gguf_put_f32(&g, -1);
    mfi_gguf_array(&g, "j", MFI_GGUF_BOOL, 0);
    mfi_gguf_tensor t[] = {
        {.name = "m", .type = {MFI_Q_GGML, 8, 0, 0}, .n_dims = 2, .dims = {2, 64}},
        {.name = "v", .type = {MFI_Q_BF16, 16, 0, 0}, .n_dims = 1, .dims = {3}}};
    mft_ok(mfi_gguf_layout(&g, t, 2, &err), &err);
    uint64_t data = (sizeof expected + 31) / 32 * 32;
    assert_int_equal(t[0].offset, data);
    assert_int_equal(t[0].bytes, 136);
    assert_int_equal(t[1].offset, data + 160);
    assert_int_equal(t[1].bytes, 6);
    unsigned char bytes[136];
    memset(bytes, 0xa5, sizeof bytes);
    mft_ok(mfi_gguf_write(&g, bytes, 6, t[1].offset, &err), &err); /* in any order */
    mft_ok(mfi_gguf_write(&g, bytes, 136, t[0].offset, &err), &err);
    struct stat st;
    assert_int_not_equal(stat(path, &st), 0); /* not before the end */
    mft_ok(mfi_gguf_finish(&g, &err), &err);
    mfi_gguf_close(&g);

    size_t len;
    unsigned char *got = read_file(path, &len);
    assert_int_equal(len, data + 192);
    assert_memory_equal(got, expected, sizeof expected);
    for (size_t i = sizeof expected; i < len; i++) {
        bool inside = (i >= data && i < data + 136) || (i >= data + 160 && i < data + 166);
        if (got[i] != (inside ? 0xa5 : 0))
            fail_msg("byte %zu is %02x", i, got[i]);
    }
    free(got);
}

/* More metadata than the buffer holds, with pieces across its end. */
static void test_long_metadata(void **state)
{
    (void)state;
    enum { N = 30000 };
    mf_error err;
    const char *path = mft_fresh("long.gguf");
    mfi_gguf_out g;
    mft_ok(mfi_gguf_create(&g, path, &err), &err);
    mfi_gguf_array(&g, "tokens", MFI_GGUF_STRING, N);
    char token[32];
    for (uint32_t i = 0; i < N; i++)
        mfi_gguf_put_str(&g, token, (size_t)snprintf(token, sizeof token, "token %u", i * i));
    mfi_gguf_key_u32(&g, "last", 7);
    mft_ok(mfi_gguf_layout(&g, NULL, 0, &err), &err);
    mft_ok(mfi_gguf_finish(&g, &err), &err);
    mfi_gguf_close(&g);
    size_t len;
    unsigned char *got = read_file(path, &len);
    const unsigned char *p = got + 24 + 8 + 6 + 4 + 4;
    assert_int_equal(len % 32, 0);
    assert_int_equal(got[16], 2);
    assert_int_equal(p[0] | p[1] << 8 | p[2] << 16, N);
    p += 8;
    for (uint32_t i = 0; i < N; i++) {
        int n = snprintf(token, sizeof token, "token %u", i * i);
        assert_int_equal(p[0], n);
        assert_memory_equal(p + 8, token, (size_t)n);
        p += 8 + n;
    }
    assert_memory_equal(p, "\4\0\0\0\0\0\0\0last\4\0\0\0\7\0\0\0", 20);
    free(got);
}

static void test_refusals(void **state)
{
    (void)state;
    mf_error err;
    char name[80];
    memset(name, 'n', sizeof name);
    name[64] = 0;
    const struct {
        mfi_gguf_tensor t;
        mf_status status;
        const char *text;
    } cases[] = {
        {{.name = "t", .type = {MFI_Q_MLX, 4, MFI_Q_BF16, 64}, .n_dims = 1, .dims = {64}},
         MF_ERR_UNSUPPORTED,
         "tensor t"},
        {{.name = "t", .type = {MFI_Q_GGML, 12, 0, 0}, .n_dims = 2, .dims = {1, 128}},
         MF_ERR_TENSOR_SHAPE,
         "rows of 128"},
        {{.name = name, .type = {MFI_Q_F32, 32, 0, 0}, .n_dims = 1, .dims = {1}},
         MF_ERR_LIMIT,
         "1 to 63 bytes"},
        {{.name = "", .type = {MFI_Q_F32, 32, 0, 0}, .n_dims = 1, .dims = {1}},
         MF_ERR_LIMIT,
         "1 to 63 bytes"},
        {{.name = "t",
          .type = {MFI_Q_F32, 32, 0, 0},
          .n_dims = 4,
          .dims = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}},
         MF_ERR_LIMIT,
         "overflows"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t before = mft_n_entries(mft_tmpdir());
        mfi_gguf_out g;
        mft_ok(mfi_gguf_create(&g, mft_fresh("bad.gguf"), &err), &err);
        mfi_gguf_tensor t = cases[i].t;
        assert_int_equal(mfi_gguf_layout(&g, &t, 1, &err), cases[i].status);
        assert_non_null(strstr(err.message, cases[i].text));
        mfi_gguf_close(&g);
        assert_int_equal(mft_n_entries(mft_tmpdir()), before);
    }
}

/* What exists is never replaced, whether it was there before or came meanwhile. */
static void test_no_replace(void **state)
{
    (void)state;
    mf_error err;
    const char *path = mft_fresh("taken.gguf");
    mfi_gguf_out g;
    mft_ok(mfi_gguf_create(&g, path, &err), &err);
    mft_ok(mfi_gguf_layout(&g, NULL, 0, &err), &err);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs("mine", f);
    fclose(f);
    size_t before = mft_n_entries(mft_tmpdir()), len;
    assert_int_equal(mfi_gguf_finish(&g, &err), MF_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "exists already"));
    mfi_gguf_close(&g);
    assert_int_equal(mft_n_entries(mft_tmpdir()), before - 1); /* the staging folder */
    unsigned char *got = read_file(path, &len);
    assert_int_equal(len, 4);
    free(got);
    assert_int_equal(mfi_gguf_create(&g, path, &err), MF_ERR_ARGUMENT);
    mfi_gguf_close(&g);
    assert_int_equal(mft_n_entries(mft_tmpdir()), before - 1);
}

/* A drive that is full is met while metadata is put, where nothing is returned, or at layout. */
static void test_full(void **state)
{
    (void)state;
    static const struct {
        uint64_t limit, n_strings;
    } cases[] = {{100000, 20000}, {300000, 100}};
    for (size_t i = 0; i < 2; i++) {
        mf_error err;
        size_t before = mft_n_entries(mft_tmpdir());
        struct rlimit old, small;
        getrlimit(RLIMIT_FSIZE, &old);
        signal(SIGXFSZ, SIG_IGN);
        small = old;
        small.rlim_cur = cases[i].limit;
        setrlimit(RLIMIT_FSIZE, &small);
        mfi_gguf_out g;
        mft_ok(mfi_gguf_create(&g, mft_fresh("full.gguf"), &err), &err);
        mfi_gguf_array(&g, "a", MFI_GGUF_STRING, cases[i].n_strings);
        for (uint64_t k = 0; k < cases[i].n_strings; k++)
            mfi_gguf_put_str(&g, "0123456789", 10);
        mfi_gguf_tensor t = {
            .name = "t", .type = {MFI_Q_F32, 32, 0, 0}, .n_dims = 1, .dims = {100000}};
        mf_status status = mfi_gguf_layout(&g, &t, 1, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        mfi_gguf_close(&g);
        assert_int_equal(status, MF_ERR_DISK_FULL);
        assert_int_equal(mft_n_entries(mft_tmpdir()), before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),    cmocka_unit_test(test_long_metadata),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_no_replace),
        cmocka_unit_test(test_full),
    };
    return mft_run(tests);
}
