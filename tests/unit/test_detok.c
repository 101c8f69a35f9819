/* The streaming detokeniser: characters whole, bad bytes as U+FFFD, whatever the chunking. */
#include "fake/support.h"

#include <string.h>

#include "base/rng.h"
#include "text/detok.h"

#define R "\xef\xbf\xbd"

/* From the Unicode standard (tables 3-8 to 3-11) and the WHATWG decoder's tests. */
static const struct {
    const char *bytes;
    size_t len;
    const char *text;
} cases[] = {
    {"plain", 5, "plain"},
    {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
    {"a\x80z", 3, "a" R "z"},
    {"\xc0\xaf", 2, R R},
    {"\xe0\x80\xaf", 3, R R R},
    {"\xf0\x80\x80\xaf", 4, R R R R},
    {"\xed\xa0\x80", 3, R R R},
    {"\xf4\x90\x80\x80", 4, R R R R},
    {"\xf5\x80", 2, R R},
    {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", 9, R R R R "A"},
    {"\xf0\x9f\x98", 3, R},
    {"\xe2\x82", 2, R},
    {"\xe2\x82x", 3, R "x"},
    {"\xc3", 1, R},
    {"\xc3\xc3\xa9", 3, R "\xc3\xa9"},
    {"\xff\xfe", 2, R R},
};

static void whole_or_byte_by_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        for (size_t chunk = 1; chunk <= cases[i].len; chunk++) {
            mfi_detok detok = {0};
            mfi_buf out = {0};
            for (size_t at = 0; at < cases[i].len; at += chunk)
                mfi_detok_push(&detok, cases[i].bytes + at, MFI_MIN(chunk, cases[i].len - at),
                               &out);
            mfi_detok_end(&detok, &out);
            if (strcmp(out.data, cases[i].text) != 0)
                fail_msg("case %zu in chunks of %zu", i, chunk);
            mfi_buf_free(&out);
        }
    }
}

static void holds_back_no_more_than_it_must(void **state)
{
    (void)state;
    mfi_detok detok = {0};
    mfi_buf out = {0};
    mfi_detok_push(&detok, "a\xf0\x9f", 3, &out);
    assert_string_equal(out.data, "a");
    mfi_detok_push(&detok, "", 0, &out);
    assert_int_equal(out.len, 1);
    mfi_detok_push(&detok, "\x98", 1, &out);
    assert_int_equal(out.len, 1);
    mfi_detok_push(&detok,
                   "\x80"
                   "b",
                   2, &out);
    assert_string_equal(out.data, "a\xf0\x9f\x98\x80"
                                  "b");
    mfi_detok_end(&detok, &out);
    mfi_detok_end(&detok, &out);
    assert_int_equal(out.len, 6);
    mfi_buf_free(&out);
}

static void chunking_changes_nothing(void **state)
{
    (void)state;
    uint64_t seed = 42;
    mfi_rng rng = {seed};
    static const unsigned char alphabet[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f,
                                             0xa0, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1,
                                             0xed, 0xef, 0xf0, 0xf3, 0xf4, 0xf5, 0xff};
    for (int round = 0; round < 3000; round++) {
        char bytes[24];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (char)alphabet[mfi_rng_below(&rng, sizeof alphabet)];
        mfi_detok whole = {0}, parts = {0};
        mfi_buf a = {0}, b = {0};
        mfi_detok_push(&whole, bytes, sizeof bytes, &a);
        mfi_detok_end(&whole, &a);
        for (size_t at = 0; at < sizeof bytes;) {
            size_t n = 1 + mfi_rng_below(&rng, 5);
            n = MFI_MIN(n, sizeof bytes - at);
            mfi_detok_push(&parts, bytes + at, n, &b);
            at += n;
        }
        mfi_detok_end(&parts, &b);
        if (a.len != b.len || memcmp(a.data, b.data, a.len) != 0)
            fail_msg("seed %llu round %d", (unsigned long long)seed, round);
        mfi_buf_free(&a);
        mfi_buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_or_byte_by_byte),
        cmocka_unit_test(holds_back_no_more_than_it_must),
        cmocka_unit_test(chunking_changes_nothing),
    };
    return mft_run(tests);
}
