/* Pre-tokenisation: what the rewriter makes of patterns, classes over every code point, behaviours.
 */
#include "fake/support.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/rng.h"
#include "text/normalizer.h"
#include "text/pretok.h"
#include "text/regex.h"
#include "text/unicode.h"

/* ---- against Hugging Face ---- */

static const char *const texts[] = {
#define TEXTS
#include "data/splits.inc"
#undef TEXTS
};
static const struct {
    const char *node;
    const char *pieces[MFI_ARRAY_LEN(texts)];
} splits[] = {
#include "data/splits.inc"
};

static void splits_as_hugging_face(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(splits); i++) {
        mf_error err;
        mfi_json *node = NULL;
        mfi_pretok pretok;
        mft_ok(mfi_json_parse(splits[i].node, strlen(splits[i].node), "node", &node, &err), &err);
        mft_ok(mfi_pretok_open(&pretok, node, &err), &err);
        for (size_t k = 0; k < MFI_ARRAY_LEN(texts); k++) {
            mfi_pretok_scratch scratch = {0};
            mfi_buf got = {0};
            const char *out;
            mft_ok(mfi_pretok_run(&pretok, &scratch, texts[k], strlen(texts[k]), &out, &err), &err);
            mfi_buf_append(&got, "", 0);
            for (size_t p = 0; p < scratch.pieces.n; p++) {
                mfi_buf_str(&got, p ? "|" : "");
                mfi_buf_append(&got, out + scratch.pieces.data[p].start,
                               scratch.pieces.data[p].len);
            }
            if (strcmp(got.data, splits[i].pieces[k]) != 0)
                fail_msg("%s on \"%s\": \"%s\", not \"%s\"", splits[i].node, texts[k], got.data,
                         splits[i].pieces[k]);
            mfi_buf_free(&got);
            mfi_pretok_scratch_free(&scratch);
        }
        mfi_pretok_close(&pretok);
        mfi_json_free(&node);
    }
}

/* ---- classes ---- */

static uint32_t mask(const char *name)
{
    return mfi_unicode_category_mask(name, strlen(name));
}

static bool in(const char *name, uint32_t cp)
{
    return mask(name) >> mfi_unicode_category(cp) & 1;
}

static bool is_han(uint32_t cp)
{
    for (size_t i = 0; i < mfi_n_unicode_han_edges; i += 2)
        if (cp >= mfi_unicode_han_edges[i] && cp < mfi_unicode_han_edges[i + 1])
            return true;
    return false;
}

static bool want_letter(uint32_t cp)
{
    return in("L", cp);
}
static bool want_number(uint32_t cp)
{
    return in("N", cp);
}
static bool want_not_mark(uint32_t cp)
{
    return !in("M", cp);
}
static bool want_upper(uint32_t cp)
{
    return in("Lu", cp) || in("Lt", cp);
}
static bool want_ps(uint32_t cp)
{
    return in("P", cp) || in("S", cp);
}
static bool want_space(uint32_t cp)
{
    return mfi_unicode_is_space(cp);
}
static bool want_other(uint32_t cp)
{
    return !mfi_unicode_is_space(cp) && !in("L", cp) && !in("N", cp);
}
static bool want_letter_not_han(uint32_t cp)
{
    return in("L", cp) && !is_han(cp);
}
static bool want_han(uint32_t cp)
{
    return is_han(cp);
}
static bool want_lower_lm(uint32_t cp)
{
    return in("Ll", cp) || in("Lm", cp);
}
static bool want_chars(uint32_t cp)
{
    return cp == '-' || cp == ']' || (cp >= 'a' && cp <= 'c') || cp == 0x3042;
}

static const struct {
    const char *pattern;
    bool (*want)(uint32_t cp);
} classes[] = {
    {"\\p{L}", want_letter},
    {"[\\p{N}]", want_number},
    {"\\P{M}", want_not_mark},
    {"[\\P{M}]", want_not_mark},
    {"\\p{^M}", want_not_mark},
    {"[\\p{Lu}\\p{Lt}]", want_upper},
    {"[\\p{P}\\p{S}]", want_ps},
    {"\\s", want_space},
    {"[^\\S]", want_space},
    {"[^\\s\\p{L}\\p{N}]", want_other},
    {"[\\p{L}&&[^\\p{Han}]]", want_letter_not_han},
    {"[^\\P{L}\\p{Han}]", want_letter_not_han},
    {"[[\\p{L}]&&\\p{L}&&\\P{Han}]", want_letter_not_han},
    {"\\p{Han}", want_han},
    {"[\\p{Ll}\\p{Lm}]", want_lower_lm},
    {"[a-c\\-\\]\\u3042]", want_chars},
};

static void classes_over_every_code_point(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(classes); i++) {
        mfi_regex *regex = NULL;
        mfi_regex_match *match = NULL;
        mf_error err;
        mft_ok(mfi_regex_open(&regex, classes[i].pattern, strlen(classes[i].pattern), false, &err),
               &err);
        for (uint32_t cp = 0; cp < 0x110000; cp++) {
            if (cp == 0xd800)
                cp = 0xe000;
            char utf8[4];
            size_t start, end, n = mfi_utf8_encode(cp, utf8);
            mfi_found found = mfi_regex_find(regex, &match, utf8, n, 0, &start, &end, &err);
            if (found != (classes[i].want(cp) ? MFI_FOUND_MATCH : MFI_FOUND_NOTHING))
                fail_msg("%s and U+%04X", classes[i].pattern, cp);
        }
        mfi_regex_match_free(&match);
        mfi_regex_close(&regex);
    }
}

/* utf8proc has older tables of its own: what it knows, it knows alike, but for the few characters
 * that Unicode moved in between. */
static void categories_against_utf8proc(void **state)
{
    (void)state;
    static const int theirs[MFI_N_CATEGORIES] = {
        UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LT, UTF8PROC_CATEGORY_LM,
        UTF8PROC_CATEGORY_LO, UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_MC, UTF8PROC_CATEGORY_ME,
        UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NL, UTF8PROC_CATEGORY_NO, UTF8PROC_CATEGORY_PC,
        UTF8PROC_CATEGORY_PD, UTF8PROC_CATEGORY_PS, UTF8PROC_CATEGORY_PE, UTF8PROC_CATEGORY_PI,
        UTF8PROC_CATEGORY_PF, UTF8PROC_CATEGORY_PO, UTF8PROC_CATEGORY_SM, UTF8PROC_CATEGORY_SC,
        UTF8PROC_CATEGORY_SK, UTF8PROC_CATEGORY_SO, UTF8PROC_CATEGORY_ZS, UTF8PROC_CATEGORY_ZL,
        UTF8PROC_CATEGORY_ZP, UTF8PROC_CATEGORY_CC, UTF8PROC_CATEGORY_CF, UTF8PROC_CATEGORY_CS,
        UTF8PROC_CATEGORY_CO, UTF8PROC_CATEGORY_CN,
    };
    size_t n_known = 0, n_moved = 0;
    for (int32_t cp = 0; cp < 0x110000; cp++) {
        int category = utf8proc_category(cp);
        if (category == UTF8PROC_CATEGORY_CN)
            continue;
        n_known++;
        n_moved += category != theirs[mfi_unicode_category((uint32_t)cp)];
    }
    assert_in_range(n_known, 280000, 300000);
    assert_in_range(n_moved, 0, 40);
    assert_int_equal(mfi_unicode_category(0x1c89), MFI_CAT_LU); /* new in 16.0 */
    assert_int_equal(mfi_unicode_category(0x10d40), MFI_CAT_ND);
    assert_int_equal(mfi_unicode_category(0x10ffff), MFI_CAT_CN);
}

/* ---- patterns ---- */

static void what_might_differ_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *names;
        mf_status status;
    } cases[] = {
        {"x\\A", "\\A at offset 1", MF_ERR_UNSUPPORTED},
        {"(?i:x\\b)", "boundary in a case-insensitive", MF_ERR_UNSUPPORTED},
        {"\\b+", "nothing to repeat", MF_ERR_FORMAT},
        {"\\h", "\\h", MF_ERR_UNSUPPORTED},
        {"\\R", "\\R", MF_ERR_UNSUPPORTED},
        {"^*", "nothing to repeat", MF_ERR_FORMAT},
        {"(a)\\1", "\\1", MF_ERR_UNSUPPORTED},
        {"(*UCP)a", "(*", MF_ERR_UNSUPPORTED},
        {"(?<n>a)", "group", MF_ERR_UNSUPPORTED},
        {"(?i)a", "group", MF_ERR_UNSUPPORTED},
        {"(?i:\\p{Lu})", "case-insensitive", MF_ERR_UNSUPPORTED},
        {"\\p{Greek}", "\\p{Greek}", MF_ERR_UNSUPPORTED},
        {"\\pL", "without braces", MF_ERR_UNSUPPORTED},
        {"[[:alpha:]]", "POSIX", MF_ERR_UNSUPPORTED},
        {"[]a]", "starts with ]", MF_ERR_UNSUPPORTED},
        {"[\\s-x]", "range", MF_ERR_UNSUPPORTED},
        {"a{2}?", "{...}?", MF_ERR_UNSUPPORTED},
        {"a{,2}", "{", MF_ERR_UNSUPPORTED},
        {"a+*", "quantifier", MF_ERR_UNSUPPORTED},
        {"*a", "nothing to repeat", MF_ERR_FORMAT},
        {"(a", "group without end", MF_ERR_FORMAT},
        {"a)", "unmatched )", MF_ERR_FORMAT},
        {"[a", "class without end", MF_ERR_FORMAT},
        {"[b-a]", "wrong order", MF_ERR_FORMAT},
        {"\\p{L", "without end", MF_ERR_FORMAT},
        {"a\\", "backslash", MF_ERR_FORMAT},
        {"\xff", "UTF-8", MF_ERR_FORMAT},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mfi_buf out = {0};
        mf_error err = {0};
        mf_status status =
            mfi_regex_rewrite(cases[i].pattern, strlen(cases[i].pattern), &out, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].names))
            fail_msg("%s: %s: %s", cases[i].pattern, mf_status_name(status), err.message);
        mfi_buf_free(&out);
    }
}

static void long_runs_need_no_machine_stack(void **state)
{
    (void)state;
    static const char pattern[] = "(?:[\\p{Lu}\\p{Lt}&&[^\\p{Han}]]|x)*(?:[\\p{Ll}]|y)+(?!\\S)|\\S";
    size_t len = 300000, start[2], end[2];
    char *text = malloc(len);
    memset(text, 'A', len);
    memset(text + len / 2, 'y', len - len / 2);
    for (int jit = 0; jit < 2; jit++) {
        mfi_regex *regex = NULL;
        mfi_regex_match *match = NULL;
        mf_error err;
        mft_ok(mfi_regex_open(&regex, pattern, sizeof pattern - 1, false, &err), &err);
        if (!jit)
            mfi_regex_forbid_jit(regex);
        mfi_found found = mfi_regex_find(regex, &match, text, len, 0, &start[jit], &end[jit], &err);
        if (found != MFI_FOUND_MATCH)
            fail_msg("%s", err.message);
        mfi_regex_match_free(&match);
        mfi_regex_close(&regex);
    }
    assert_int_equal(start[0], 0);
    assert_int_equal(end[0], len);
    assert_int_equal(start[1], 0);
    assert_int_equal(end[1], len);
    free(text);
}

static void exponential_patterns_end(void **state)
{
    (void)state;
    mfi_regex *regex = NULL;
    mfi_regex_match *match = NULL;
    mf_error err = {0};
    mft_ok(mfi_regex_open(&regex, "(?:a+)+b", 8, false, &err), &err);
    char text[64];
    size_t start, end;
    memset(text, 'a', sizeof text);
    text[63] = 'c';
    mfi_found found = mfi_regex_find(regex, &match, text, sizeof text, 0, &start, &end, &err);
    assert_int_not_equal(found, MFI_FOUND_MATCH);
    if (found == MFI_FOUND_ERROR)
        assert_int_equal(err.status, MF_ERR_LIMIT);
    mfi_regex_match_free(&match);
    mfi_regex_close(&regex);
}

/* ---- normalisation ---- */

static void nfc_short_cut_changes_nothing(void **state)
{
    (void)state;
    mfi_normalizer nfc = {.n_steps = 1, .steps = {{.kind = MFI_NORM_FORM, .form = MFI_FORM_NFC}}};
    mfi_norm_scratch scratch = {0};
    mf_error err;
    /* Every character behind each of a few that things compose with. */
    static const char *const before[] = {
        "", "a", "\xe1\x84\x80", "\xea\xb0\x80", "\xe3\x81\x8b", "\xe0\xa7\x87"};
    for (size_t b = 0; b < MFI_ARRAY_LEN(before); b++) {
        for (uint32_t cp = 1; cp < 0x30000; cp++) {
            if (cp == 0xd800)
                cp = 0xe000;
            char text[16];
            size_t len = strlen(before[b]), out_len;
            memcpy(text, before[b], len);
            len += mfi_utf8_encode(cp, text + len);
            text[len] = 0;
            const char *out;
            mft_ok(mfi_normalizer_run(&nfc, text, len, &scratch, &out, &out_len, &err), &err);
            /* utf8proc takes U+11A7 for a final consonant and drops it behind a syllable; finals
             * begin at U+11A8 (The Unicode Standard, 3.12), so that nothing changes here. */
            unsigned char *want =
                cp == 0x11a7 ? (unsigned char *)strdup(text) : utf8proc_NFC((unsigned char *)text);
            if (out_len != strlen((char *)want) || memcmp(out, want, out_len) != 0)
                fail_msg("U+%04X behind \"%s\"", cp, before[b]);
            free(want);
        }
    }
    mfi_norm_scratch_free(&scratch);
}

/* Random sequences of what NFC moves and joins, long runs of marks among them. */
static void nfc_against_utf8proc(void **state)
{
    (void)state;
    static const uint32_t chars[] = {
        'a',    'e',   0xe9,   0x300,  0x301,  0x316,  0x323,   0x327,  0x344,  0x345,  0xf71,
        0xf73,  0xf74, 0x1100, 0x1161, 0x11a8, 0xac00, 0xac01,  0x3099, 0x304b, 0x1e9b, 0x212b,
        0x2126, 0x958, 0x9c7,  0x9be,  0x338,  0x3d,   0x1d15e, 0x5d0,  0x5b0,  0x5bc};
    uint64_t seed = 7;
    mfi_rng rng = {seed};
    mfi_normalizer nfc = {.n_steps = 1, .steps = {{.kind = MFI_NORM_FORM, .form = MFI_FORM_NFC}}};
    mfi_norm_scratch scratch = {0};
    mf_error err;
    for (int round = 0; round < 4000; round++) {
        char text[4 * 64 + 1];
        size_t len = 0, n = 1 + mfi_rng_below(&rng, 63), out_len;
        size_t first = mfi_rng_below(&rng, 2) ? 3 : 0, n_kinds = first ? 10 : MFI_ARRAY_LEN(chars);
        for (size_t i = 0; i < n; i++)
            len += mfi_utf8_encode(chars[first + mfi_rng_below(&rng, n_kinds)], text + len);
        text[len] = 0;
        const char *out;
        mft_ok(mfi_normalizer_run(&nfc, text, len, &scratch, &out, &out_len, &err), &err);
        unsigned char *want = utf8proc_NFC((unsigned char *)text);
        if (out_len != strlen((char *)want) || memcmp(out, want, out_len) != 0)
            fail_msg("seed %llu round %d", (unsigned long long)seed, round);
        free(want);
    }
    size_t n_marks = 200000, out_len;
    char *text = malloc(4 * n_marks);
    for (size_t i = 0; i < 2 * n_marks; i++) /* all above go behind all below */
        memcpy(text + 2 * i, i < n_marks ? "\xcc\x81" : "\xcc\x96", 2);
    const char *out;
    mft_ok(mfi_normalizer_run(&nfc, text, 4 * n_marks, &scratch, &out, &out_len, &err), &err);
    assert_int_equal(out_len, 4 * n_marks);
    assert_memory_equal(out, text + 2 * n_marks, 2 * n_marks);
    free(text);
    mfi_norm_scratch_free(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_as_hugging_face),
        cmocka_unit_test(classes_over_every_code_point),
        cmocka_unit_test(categories_against_utf8proc),
        cmocka_unit_test(what_might_differ_is_refused),
        cmocka_unit_test(long_runs_need_no_machine_stack),
        cmocka_unit_test(exponential_patterns_end),
        cmocka_unit_test(nfc_short_cut_changes_nothing),
        cmocka_unit_test(nfc_against_utf8proc),
    };
    return mft_run(tests);
}
