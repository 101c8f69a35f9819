/* The tokenizer against the vectors of real ones, and each construct on a small one. */
#include "fake/support.h"
#include "fake/text.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/rng.h"
#include "text/bpe.h"
#include "text/tokenizer.h"
#include "text/tokenizer_int.h"

#define BYTE_LEVEL(prefix, regex)                                                                  \
    "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": " prefix                   \
    ", \"use_regex\": " regex "}, "
#define PLAIN BYTE_LEVEL("false", "true")

static mf_tokenizer *open_json(const char *json)
{
    mf_tokenizer *t = NULL;
    mf_error err;
    mft_ok(mf_tokenizer_open(&t, mft_tokenizer_folder("small", json), &err), &err);
    return t;
}

static void expect_ids(const mf_tokenizer *t, const char *text, size_t len, bool special,
                       const int32_t *want, size_t n_want)
{
    int32_t *ids;
    size_t n;
    mf_error err;
    mft_ok(mf_tokenizer_encode(t, text, len, special, &ids, &n, &err), &err);
    bool same = n == n_want && (!n || memcmp(ids, want, n * sizeof *ids) == 0);
    if (!same) {
        fprintf(stderr, "\"%s\" gave", text);
        for (size_t i = 0; i < n; i++)
            fprintf(stderr, " %d", ids[i]);
        fprintf(stderr, "\n");
    }
    mf_free(ids);
    assert_true(same);
}

#define EXPECT(t, text, ...)                                                                       \
    do {                                                                                           \
        const int32_t want_[] = {__VA_ARGS__};                                                     \
        expect_ids(t, text, sizeof(text) - 1, false, want_, MFI_ARRAY_LEN(want_));                 \
    } while (0)

static void expect_refused(const char *json, mf_status status, const char *names)
{
    mf_tokenizer *t = NULL;
    mf_error err = {0};
    assert_int_equal(mf_tokenizer_open(&t, mft_tokenizer_folder("small", json), &err), status);
    assert_null(t);
    if (!strstr(err.message, names))
        fail_msg("\"%s\" does not say \"%s\"", err.message, names);
}

/* ---- small tokenizers ---- */

static void merges_and_pieces(void **state)
{
    (void)state;
    mf_tokenizer *t = open_json(mft_small_tokenizer(PLAIN, ""));
    EXPECT(t, "hello world", 259, 264);
    EXPECT(t, "hellhe", 258, 256);
    EXPECT(t, "aaaaa", 266, 'a');
    EXPECT(t, "a\0b", 'a', 0, 'b');
    EXPECT(t, "\xc3\xa9", 0xc3, 0xa9);
    expect_ids(t, "", 0, true, NULL, 0);
    size_t len;
    assert_memory_equal(mf_tokenizer_piece(t, 264, false, &len), " world", 6);
    assert_int_equal(len, 6);
    assert_memory_equal(mf_tokenizer_piece(t, 0xad, false, &len), "\xad", 1);
    assert_non_null(mf_tokenizer_piece(t, 999, true, &len));
    assert_int_equal(len, 0);
    assert_non_null(mf_tokenizer_piece(t, -1, true, &len));
    assert_int_equal(len, 0);
    assert_int_equal(mf_tokenizer_n_vocab(t), 267);
    assert_int_equal(mfi_tokenizer_id(t, " world"), 264);
    assert_int_equal(mfi_tokenizer_id(t, "nothing"), -1);
    assert_false(mf_tokenizer_has_chat_template(t));
    mf_tokenizer_close(&t);
    assert_null(t);
    mf_tokenizer_close(&t);
}

static void invalid_utf8_is_refused_with_its_offset(void **state)
{
    (void)state;
    mf_tokenizer *t = open_json(mft_small_tokenizer(PLAIN, ""));
    static const struct {
        const char *text;
        size_t len;
        const char *offset;
    } cases[] = {
        {"abcdefghij\xff", 11, "byte 10"}, {"\xc0\x80", 2, "byte 0"},
        {"a\xed\xa0\x80", 4, "byte 1"},    {"ab\xe2\x82", 4, "byte 2"},
        {"\xf4\x90\x80\x80", 4, "byte 0"},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        int32_t *ids = NULL;
        size_t n = 77;
        mf_error err;
        assert_int_equal(mf_tokenizer_encode(t, cases[i].text, cases[i].len, false, &ids, &n, &err),
                         MF_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, cases[i].offset));
        assert_null(ids);
        assert_int_equal(n, 77);
    }
    mf_tokenizer_close(&t);
}

static void added_tokens(void **state)
{
    (void)state;
    mf_tokenizer *t = open_json(
        mft_small_tokenizer(PLAIN "\"normalizer\": {\"type\": \"NFC\"}, ",
                            "{\"id\": 300, \"content\": \"<a>\", \"special\": true},"
                            "{\"id\": 301, \"content\": \"<a><b>\", \"special\": false},"
                            "{\"id\": 302, \"content\": \"cat\", \"single_word\": true},"
                            "{\"id\": 303, \"content\": \"<l>\", \"lstrip\": true},"
                            "{\"id\": 304, \"content\": \"<r>\", \"rstrip\": true},"
                            "{\"id\": 305, \"content\": \"e\\u0301\", \"normalized\": true},"
                            "{\"id\": 306, \"content\": \"e\\u0300\", \"normalized\": false}"));
    EXPECT(t, "<a>", 300);
    EXPECT(t, "x<a><b>y", 'x', 301, 'y'); /* the longest */
    EXPECT(t, "<a><a><b>", 300, 301);
    EXPECT(t, "<a", '<', 'a');
    EXPECT(t, "cat", 302);
    EXPECT(t, "cat.cat", 302, '.', 302);
    EXPECT(t, "cats", 'c', 'a', 't', 's');
    EXPECT(t,
           "\xc3\xa9"
           "cat",
           305, 'c', 'a', 't');
    EXPECT(t, "_cat", '_', 'c', 'a', 't');
    EXPECT(t, "x \n<l> y", 'x', 303, ' ', 'y');
    EXPECT(t, "x <r>\xc2\xa0 y", 'x', ' ', 304, 'y');
    EXPECT(t, "<r> <l>", 304, 303);
    EXPECT(t, "e\xcc\x81", 305);
    EXPECT(t, "\xc3\xa9", 305);  /* composed already */
    EXPECT(t, "e\xcc\x80", 306); /* found before normalisation */
    EXPECT(t, "\xc3\xa8", 0xc3, 0xa8);
    size_t len;
    mf_tokenizer_piece(t, 300, false, &len);
    assert_int_equal(len, 0);
    assert_memory_equal(mf_tokenizer_piece(t, 300, true, &len), "<a>", 3);
    assert_int_equal(len, 3);
    mf_tokenizer_piece(t, 301, false, &len);
    assert_int_equal(len, 6);
    assert_int_equal(mfi_tokenizer_id(t, "<a>"), 300);
    assert_int_equal(mf_tokenizer_n_vocab(t), 307);
    mf_tokenizer_close(&t);
}

static void byte_level_options(void **state)
{
    (void)state;
    mf_tokenizer *t = open_json(mft_small_tokenizer(BYTE_LEVEL("true", "true"), ""));
    EXPECT(t, "world", 264);
    EXPECT(t, " world", 264);
    EXPECT(t, "", );
    mf_tokenizer_close(&t);
    t = open_json(mft_small_tokenizer(BYTE_LEVEL("false", "false"), ""));
    EXPECT(t, "aa aa", 265, ' ', 265);
    mf_tokenizer_close(&t);
}

static void post_processors(void **state)
{
    (void)state;
    mf_tokenizer *t = open_json(mft_small_tokenizer(
        PLAIN "\"post_processor\": {\"type\": \"Sequence\", \"processors\": ["
              "{\"type\": \"ByteLevel\"}, {\"type\": \"TemplateProcessing\", \"single\": ["
              "{\"SpecialToken\": {\"id\": \"B\"}}, {\"Sequence\": {\"id\": \"A\"}}, "
              "{\"SpecialToken\": {\"id\": \"E\"}}], \"special_tokens\": {"
              "\"B\": {\"ids\": [1, 2]}, \"E\": {\"ids\": [3]}}}]}, ",
        ""));
    const int32_t want[] = {1, 2, 'x', 3}, empty[] = {1, 2, 3};
    expect_ids(t, "x", 1, true, want, 4);
    expect_ids(t, "", 0, true, empty, 3);
    EXPECT(t, "x", 'x');
    mf_tokenizer_close(&t);
    t = open_json(mft_small_tokenizer(
        PLAIN "\"post_processor\": {\"type\": \"RobertaProcessing\", \"sep\": [\"E\", 3], "
              "\"cls\": [\"B\", 1], \"trim_offsets\": true, \"add_prefix_space\": false}, ",
        ""));
    const int32_t pair[] = {1, 'x', 3};
    expect_ids(t, "x", 1, true, pair, 3);
    mf_tokenizer_close(&t);
}

static void what_is_not_implemented_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *parts, *names;
    } cases[] = {
        {"\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}, ", "BertPreTokenizer"},
        {"\"pre_tokenizer\": {\"type\": \"UnicodeScripts\"}, ", "UnicodeScripts"},
        {"\"pre_tokenizer\": null, ", "ByteLevel"},
        {PLAIN "\"normalizer\": {\"type\": \"BertNormalizer\"}, ", "BertNormalizer"},
        {PLAIN "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": "
               "\"Nmt\"}]}, ",
         "Nmt"},
        {PLAIN "\"post_processor\": {\"type\": \"PairProcessing\"}, ", "PairProcessing"},
        {"\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", "
         "\"pattern\": {\"Regex\": \"\\\\Gx\"}, \"behavior\": \"Isolated\"}]}, ",
         "\\G"},
        {PLAIN "\"post_processor\": {\"type\": \"Sequence\", \"processors\": [{\"type\": "
               "\"BertProcessing\", \"cls\": [\"a\", 97], \"sep\": [\"b\", 98]}, {\"type\": "
               "\"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"A\"}}], "
               "\"special_tokens\": {}}]}, ",
         "more than one"},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++)
        expect_refused(mft_small_tokenizer(cases[i].parts, ""), MF_ERR_UNSUPPORTED, cases[i].names);
    expect_refused("{\"model\": {\"type\": \"Unigram\"}, " PLAIN
                   "\"decoder\": {\"type\": \"ByteLevel\"}}",
                   MF_ERR_UNSUPPORTED, "Unigram");
    expect_refused("{\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {}, "
                   "\"merges\": []}, " PLAIN "\"decoder\": {\"type\": \"ByteLevel\"}}",
                   MF_ERR_UNSUPPORTED, "byte_fallback");
    expect_refused("{\"model\": {\"type\": \"WordPiece\"}, \"decoder\": {\"type\": \"Fuse\"}}",
                   MF_ERR_UNSUPPORTED, "WordPiece");
    expect_refused("{\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": []}, "
                   "\"decoder\": {\"type\": \"WordPiece\"}}",
                   MF_ERR_UNSUPPORTED, "decoder: WordPiece");
}

static void broken_files_are_refused(void **state)
{
    (void)state;
#define MODEL(vocab, merges)                                                                       \
    "{" PLAIN                                                                                      \
    "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": " vocab     \
    ", \"merges\": " merges "}}"
    static const struct {
        const char *json, *names;
        mf_status status;
    } cases[] = {
        {"", "", MF_ERR_FORMAT},
        {"[]", "not an object", MF_ERR_FORMAT},
        {MODEL("{\"a\": 0, \"b\": 0}", "[]"), "two entries", MF_ERR_FORMAT},
        {MODEL("{\"a\": -1}", "[]"), "no id", MF_ERR_FORMAT},
        {MODEL("{\"a\": 1.5}", "[]"), "no id", MF_ERR_FORMAT},
        {MODEL("{\"a\": 4000000000}", "[]"), "more than", MF_ERR_LIMIT},
        {MODEL("[]", "[]"), "not an object", MF_ERR_FORMAT},
        {MODEL("{\"a\": 0, \"b\": 1}", "[\"a b\"]"), "not in the vocabulary", MF_ERR_FORMAT},
        {MODEL("{\"a\": 0, \"aa\": 1}", "[\"aa\"]"), "no space", MF_ERR_FORMAT},
        {MODEL("{\"a\": 0, \"aa\": 1}", "[[\"a\"]]"), "pair", MF_ERR_FORMAT},
        {MODEL("{\"a\": 0, \"aa\": 1}", "[[\"a\", 1]]"), "pair", MF_ERR_FORMAT},
        {MODEL("{\"a\": 0}", "{}"), "not an array", MF_ERR_FORMAT},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++)
        expect_refused(cases[i].json, cases[i].status, cases[i].names);
    expect_refused(mft_small_tokenizer(PLAIN, "{\"id\": 5, \"content\": \"x\"}"), MF_ERR_FORMAT,
                   "added token 5");
    mf_tokenizer *t = NULL;
    mf_error err;
    assert_int_equal(mf_tokenizer_open(&t, "/nonexistent/tokenizer.json", &err),
                     MF_ERR_FILE_MISSING);
}

/* Merging by definition: the lowest rank first, of equals the leftmost; for any length. */
static size_t merge_slowly(const mfi_merge *merges, size_t n_merges, int32_t *ids, size_t n)
{
    for (;;) {
        const mfi_merge *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (size_t k = 0; k < n_merges; k++)
                if (merges[k].left == (uint32_t)ids[i] && merges[k].right == (uint32_t)ids[i + 1] &&
                    (!best || merges[k].rank < best->rank)) {
                    best = &merges[k];
                    at = i;
                }
        if (!best)
            return n;
        ids[at] = (int32_t)best->id;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void random_merges_against_the_definition(void **state)
{
    (void)state;
    uint64_t seed = 20250309;
    mfi_rng rng = {seed};
    for (int round = 0; round < 60; round++) {
        enum { N = 40 };
        mfi_merge merges[N];
        mfi_bpe bpe;
        assert_int_equal(mfi_bpe_open(&bpe, N, NULL), MF_OK);
        for (int b = 0; b < 256; b++)
            bpe.byte_id[b] = b == 'd' ? -1 : b; /* d is dropped */
        size_t n_merges = 0;
        for (uint32_t i = 0; i < N; i++) {
            uint32_t pool = 3 + (uint32_t)n_merges, pair[2];
            for (int side = 0; side < 2; side++) {
                uint32_t pick = (uint32_t)mfi_rng_below(&rng, pool);
                pair[side] = pick < 3 ? 'a' + pick : 256 + pick - 3;
            }
            bool known = false;
            for (size_t k = 0; k < n_merges; k++)
                known |= merges[k].left == pair[0] && merges[k].right == pair[1];
            if (known)
                continue;
            merges[n_merges] = (mfi_merge){pair[0], pair[1], i, 256 + (uint32_t)n_merges};
            mfi_bpe_add(&bpe, pair[0], pair[1], i, 256 + (uint32_t)n_merges);
            n_merges++;
        }
        mfi_bpe_scratch scratch = {0};
        for (size_t len = 0; len < 120; len += 1 + len / 8) {
            char text[128];
            int32_t want[128];
            size_t n = 0;
            for (size_t i = 0; i < len; i++) {
                text[i] = (char)('a' + mfi_rng_below(&rng, 4));
                if (text[i] != 'd')
                    want[n++] = text[i];
            }
            n = merge_slowly(merges, n_merges, want, n);
            mfi_ids ids = {0};
            assert_int_equal(mfi_bpe_encode(&bpe, &scratch, text, len, &ids, NULL), MF_OK);
            if (ids.n != n || (n && memcmp(ids.data, want, n * sizeof *want) != 0))
                fail_msg("seed %llu round %d length %zu", (unsigned long long)seed, round, len);
            free(ids.data);
        }
        mfi_bpe_scratch_free(&scratch);
        mfi_bpe_close(&bpe);
    }
}

static void a_hostile_piece_is_not_quadratic(void **state)
{
    (void)state;
    mf_tokenizer *t = open_json(mft_small_tokenizer(BYTE_LEVEL("false", "false"), ""));
    size_t len = (size_t)1 << 19;
    char *text = malloc(len);
    memset(text, 'a', len);
    int32_t *ids;
    size_t n;
    mf_error err;
    mft_ok(mf_tokenizer_encode(t, text, len, false, &ids, &n, &err), &err);
    assert_int_equal(n, len / 4);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids[i], 266);
    mf_free(ids);
    free(text);
    mf_tokenizer_close(&t);
}

#define THREAD_TEXT_BYTES 20000
static const char *thread_text(void)
{
    static char text[THREAD_TEXT_BYTES];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "hello world aaaa, 42 "[i * i % 21];
    return text;
}

struct thread_job {
    const mf_tokenizer *tokenizer;
    const char *text;
    int32_t *ids;
    size_t n;
};

static void *encode_in_thread(void *arg)
{
    struct thread_job *job = arg;
    if (mf_tokenizer_encode(job->tokenizer, job->text, THREAD_TEXT_BYTES, true, &job->ids, &job->n,
                            NULL) != MF_OK)
        job->ids = NULL;
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    (void)state;
    mf_tokenizer *t = open_json(mft_small_tokenizer(PLAIN, ""));
    struct thread_job jobs[4];
    pthread_t threads[4];
    const char *text = thread_text();
    for (size_t i = 0; i < 4; i++) {
        jobs[i] = (struct thread_job){.tokenizer = t, .text = text};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_in_thread, &jobs[i]), 0);
    }
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < 4; i++) {
        assert_non_null(jobs[i].ids);
        assert_int_equal(jobs[i].n, jobs[0].n);
        assert_memory_equal(jobs[i].ids, jobs[0].ids, jobs[0].n * sizeof(int32_t));
    }
    for (size_t i = 0; i < 4; i++)
        mf_free(jobs[i].ids);
    mf_tokenizer_close(&t);
}

/* The cache of words, which long texts have and short ones don't, changes nothing. */
static void long_texts_as_their_parts(void **state)
{
    (void)state;
    mf_tokenizer *t = open_json(mft_small_tokenizer(BYTE_LEVEL("false", "true"), ""));
    mfi_rng rng = {99};
    mfi_buf text = {0};
    mfi_ids want = {0};
    for (size_t k = 0; k < 20000; k++) {
        char word[24] = " ";
        size_t len = 1 + mfi_rng_below(&rng, 18);
        for (size_t i = 1; i < len; i++)
            word[i] = "helowrda"[mfi_rng_below(&rng, 8)];
        if (len == 1)
            continue;
        int32_t *ids;
        size_t n;
        assert_int_equal(mf_tokenizer_encode(t, word, len, false, &ids, &n, NULL), MF_OK);
        for (size_t i = 0; i < n; i++)
            assert_true(mfi_ids_push(&want, ids[i]));
        mf_free(ids);
        mfi_buf_append(&text, word, len);
    }
    expect_ids(t, text.data, text.len, false, want.data, want.n);
    mfi_buf_free(&text);
    free(want.data);
    mf_tokenizer_close(&t);
}

/* ---- the oracle ---- */

/* What decoding the ids gives: with NFC nothing that is known beforehand. */
typedef enum decoded { DECODED_ANYHOW, DECODED_TEXT, DECODED_WITH_SPACES /* for U+2581 */ } decoded;

static void check_decoded(const mf_tokenizer *t, const int32_t *ids, size_t n, const char *text,
                          size_t len, decoded expected)
{
    static const char *const takes_spaces[] = {"<s>", "</s>", "<unk>"}; /* llama2's */
    mfi_buf want = {0}, back = {0};
    for (size_t i = 0; i < len; i++) {
        for (size_t k = 0; k < MFI_ARRAY_LEN(takes_spaces); k++)
            if (expected == DECODED_WITH_SPACES &&
                strncmp(text + i, takes_spaces[k], strlen(takes_spaces[k])) == 0)
                goto done;
        bool mark = expected == DECODED_WITH_SPACES && len - i >= 3 &&
                    memcmp(text + i, "\xe2\x96\x81", 3) == 0;
        mfi_buf_append(&want, mark ? " " : text + i, 1);
        i += mark ? 2 : 0;
    }
    uint32_t strip = mfi_tokenizer_strip(t, -1);
    for (size_t i = 0; i < n; i++) {
        size_t piece_len;
        const char *piece = mfi_tokenizer_show(t, ids[i], true, &strip, &piece_len);
        mfi_buf_append(&back, piece, piece_len);
    }
    if (back.len != want.len || (back.len && memcmp(back.data, want.data, back.len) != 0))
        fail_msg("\"%s\" is decoded to \"%s\"", text, back.data ? back.data : "");
done:
    mfi_buf_free(&back);
    mfi_buf_free(&want);
}

typedef struct vectors {
    const mf_tokenizer *t;
    decoded expected;
} vectors;

static void check_vector(void *user, const mfi_json *v, size_t line)
{
    const vectors *of = user;
    mf_error err;
    size_t text_len;
    const char *text = mfi_json_str(mfi_json_get(v, "text"), &text_len);
    assert_non_null(text);
    for (int special = 0; special < 2; special++) {
        const mfi_json *want = mfi_json_get(v, special ? "ids_special" : "ids");
        assert_int_equal(mfi_json_typeof(want), MFI_JSON_ARRAY);
        int32_t *ids;
        size_t n;
        mft_ok(mf_tokenizer_encode(of->t, text, text_len, special, &ids, &n, &err), &err);
        if (!mft_same_ids(want, ids, n))
            fail_msg("line %zu: ids differ for \"%s\"", line, text);
        if (of->expected != DECODED_ANYHOW && !special)
            check_decoded(of->t, ids, n, text, text_len, of->expected);
        mf_free(ids);
    }
}

static void check_oracle(const char *name, decoded expected)
{
    const char *json = mft_unpack_tokenizer(name);
    mf_tokenizer *t = NULL;
    mf_error err;
    mft_ok(mf_tokenizer_open(&t, json, &err), &err);
    remove(json);
    mft_each_vector(name, check_vector, &(vectors){t, expected});
    assert_in_range(mfi_tokenizer_bytes(t), 100000, 40000000);
    mf_tokenizer_close(&t);
}

#define ORACLE(name, expected)                                                                     \
    static void oracle_##name(void **state)                                                        \
    {                                                                                              \
        (void)state;                                                                               \
        check_oracle(#name, expected);                                                             \
    }
ORACLE(qwen3, DECODED_ANYHOW)
ORACLE(deepseek_v3, DECODED_TEXT)
ORACLE(gptoss, DECODED_TEXT)
ORACLE(llama3_1, DECODED_TEXT)
ORACLE(pocket, DECODED_ANYHOW)
ORACLE(gemma3, DECODED_WITH_SPACES)
ORACLE(llama2, DECODED_WITH_SPACES)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_and_pieces),
        cmocka_unit_test(invalid_utf8_is_refused_with_its_offset),
        cmocka_unit_test(added_tokens),
        cmocka_unit_test(byte_level_options),
        cmocka_unit_test(post_processors),
        cmocka_unit_test(what_is_not_implemented_is_named),
        cmocka_unit_test(broken_files_are_refused),
        cmocka_unit_test(random_merges_against_the_definition),
        cmocka_unit_test(a_hostile_piece_is_not_quadratic),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(long_texts_as_their_parts),
        cmocka_unit_test(oracle_qwen3),
        cmocka_unit_test(oracle_deepseek_v3),
        cmocka_unit_test(oracle_gptoss),
        cmocka_unit_test(oracle_llama3_1),
        cmocka_unit_test(oracle_pocket),
        cmocka_unit_test(oracle_gemma3),
        cmocka_unit_test(oracle_llama2),
    };
    return mft_run(tests);
}
