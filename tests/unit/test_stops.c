/* Stop strings: where a text ends and what may be shown of it so far, against a plain search;
 * whatever the text is cut into. */
#include "fake/support.h"

#include <string.h>

#include "base/limits.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "text/stops.h"

#define N_TEXTS_MAX 4

typedef struct want {
    size_t end;  /* of what is shown */
    bool stops;  /* a string is complete */
    size_t read; /* bytes up to the end of it */
} want;

static bool ends_with(const char *text, size_t len, const char *stop, size_t n)
{
    return len >= n && memcmp(text + len - n, stop, n) == 0;
}

/* By definition: the first place where one ends, the longest of them. */
static want search(const char *text, size_t len, const char *const *stops, size_t n)
{
    for (size_t end = 1; end <= len; end++) {
        size_t longest = 0;
        for (size_t i = 0; i < n; i++)
            if (ends_with(text, end, stops[i], strlen(stops[i])))
                longest = MFI_MAX(longest, strlen(stops[i]));
        if (longest)
            return (want){end - longest, true, end};
    }
    return (want){len, false, len};
}

/* How much of a text without stop strings must be held back: what may begin one. */
static size_t held(const char *text, size_t len, const char *const *stops, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 1; k < strlen(stops[i]); k++)
            if (ends_with(text, len, stops[i], k))
                most = MFI_MAX(most, k);
    return most;
}

/* Pushes text cut after the characters whose bit is set. */
static void check(const char *text, const char *const *stops, size_t n, uint64_t cuts)
{
    mfi_stops *s = NULL;
    mfi_buf out = {0};
    mf_error err = {0};
    size_t len = strlen(text), from = 0, i = 0;
    want w = search(text, len, stops, n);
    bool done = false;
    mft_ok(mfi_stops_open(&s, stops, n, &err), &err);
    for (size_t at = 0; at < len; i++) {
        uint32_t cp;
        at += mfi_utf8_decode(text + at, text + len, &cp);
        if (at < len && !(cuts >> i & 1))
            continue;
        done = mfi_stops_push(s, text + from, at - from, &out);
        from = at;
        size_t shown = at >= w.read && w.stops ? w.end : at - held(text, at, stops, n);
        if (out.len != shown || done != (w.stops && at >= w.read))
            fail_msg("%s cut by %llx: %zu of %zu bytes shown, not %zu", text,
                     (unsigned long long)cuts, out.len, at, shown);
        assert_int_equal(mfi_utf8_check(out.data, out.len), out.len);
    }
    mfi_stops_end(s, &out);
    mfi_stops_end(s, &out);
    assert_true(done == w.stops);
    assert_int_equal(out.len, w.end);
    assert_memory_equal(out.data ? out.data : "", text, w.end);
    mfi_stops_close(&s);
    mfi_buf_free(&out);
}

static void every_split_gives_the_same(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *stops[N_TEXTS_MAX];
        size_t end; /* written down by hand */
    } cases[] = {
        {"one STOP two", {"STOP"}, 4},
        {"one STO two", {"STOP"}, 11},
        {"STOP", {"STOP"}, 0},
        {"one STO", {"STOP"}, 7},
        {"aaaab", {"aab"}, 2},
        {"abababac", {"ababac"}, 2},
        {"xabcdey", {"abcde", "bcd"}, 2}, /* the second is complete first */
        {"xabcdey", {"cd", "abcd"}, 1},   /* together: the longest */
        {"ab\nUser: x", {"\nUser:", "###"}, 2},
        {"\xc3\xa9t\xc3\xa9!", {"t\xc3\xa9"}, 2},
        {"\xc3\xa8t\xc3\xa9!", {"\xc3\xa9", "t\xc3\xa8"}, 3}, /* one first byte, two characters */
        {"\xf0\x9f\x98\x80\xf0\x9f\x98\x81", {"\xf0\x9f\x98\x81"}, 4},
    };
    for (size_t c = 0; c < MFI_ARRAY_LEN(cases); c++) {
        size_t n = 0, len = strlen(cases[c].text);
        while (n < N_TEXTS_MAX && cases[c].stops[n])
            n++;
        assert_int_equal(search(cases[c].text, len, cases[c].stops, n).end, cases[c].end);
        for (uint64_t cuts = 0; cuts < (uint64_t)1 << (len - 1); cuts++)
            check(cases[c].text, cases[c].stops, n, cuts);
    }
}

static void random_texts(void **state)
{
    (void)state;
    static const char *const letters[] = {"a", "b", "\xc3\xa9", "\xc3\xa8"};
    uint64_t seed = 7;
    mfi_rng rng = {seed};
    for (int round = 0; round < 20000; round++) {
        char text[64] = "", words[N_TEXTS_MAX][16] = {""};
        const char *stops[N_TEXTS_MAX];
        size_t n = 1 + mfi_rng_below(&rng, N_TEXTS_MAX);
        for (size_t i = 0; i < n; i++) {
            size_t len = 2 + mfi_rng_below(&rng, 4);
            for (size_t k = 0; k < len; k++)
                strcat(words[i], letters[mfi_rng_below(&rng, 3 + i % 2)]);
            stops[i] = words[i];
        }
        for (int k = 0; k < 24; k++)
            strcat(text, letters[mfi_rng_below(&rng, 4)]);
        check(text, stops, n, mfi_rng_below(&rng, UINT32_MAX));
    }
}

static void bad_ones_are_refused(void **state)
{
    (void)state;
    static char huge[MFI_MAX_STOP_BYTES + 2];
    static const char *many[MFI_MAX_STOPS + 1];
    const char *const empty[] = {"a", ""}, *const bad[] = {"a\xc3"}, *const cut[] = {"\xa9"};
    const char *const longer[] = {huge};
    mfi_stops *s = NULL;
    mf_error err = {0};
    memset(huge, 'x', sizeof huge - 1);
    for (size_t i = 0; i < MFI_ARRAY_LEN(many); i++)
        many[i] = "x";
    assert_int_equal(mfi_stops_open(&s, empty, 2, &err), MF_ERR_ARGUMENT);
    assert_int_equal(mfi_stops_open(&s, bad, 1, &err), MF_ERR_ARGUMENT);
    assert_int_equal(mfi_stops_open(&s, cut, 1, &err), MF_ERR_ARGUMENT);
    assert_int_equal(mfi_stops_open(&s, longer, 1, &err), MF_ERR_LIMIT);
    assert_int_equal(mfi_stops_open(&s, many, MFI_MAX_STOPS + 1, &err), MF_ERR_LIMIT);
    assert_null(s);
    huge[MFI_MAX_STOP_BYTES] = 0;
    mft_ok(mfi_stops_open(&s, longer, 1, &err), &err);
    mfi_stops_close(&s);
    mft_ok(mfi_stops_open(&s, many, MFI_MAX_STOPS, &err), &err);
    mfi_stops_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_gives_the_same),
        cmocka_unit_test(random_texts),
        cmocka_unit_test(bad_ones_are_refused),
    };
    return mft_run(tests);
}
