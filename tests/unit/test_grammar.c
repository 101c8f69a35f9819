/* GBNF and the matcher: which texts a grammar takes, held against lists written by hand and against
 * a plain backtracking reader; masks against trying every token; errors with their places. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/rng.h"
#include "grammar/matcher.h"

/* ---- a vocabulary: all bytes, then what is given ---- */

#define N_EXTRA 400

typedef struct words {
    char text[256 + N_EXTRA][24];
    uint32_t n;
} words;

static const char *piece(void *ctx, uint32_t id, size_t *len)
{
    const words *w = ctx;
    *len = id < 256 ? 1 : strlen(w->text[id]);
    return w->text[id];
}

static void fill_words(words *w, const char *const *extra)
{
    memset(w, 0, sizeof *w);
    for (w->n = 0; w->n < 256; w->n++)
        w->text[w->n][0] = (char)w->n;
    for (; *extra; extra++)
        snprintf(w->text[w->n++], sizeof w->text[0], "%s", *extra);
}

static mfi_vocab_trie *make_trie(words *w)
{
    mfi_vocab_trie *trie = NULL;
    mf_error err;
    mft_ok(mfi_vocab_trie_open(&trie, &(mfi_vocab_pieces){w, w->n, piece}, &err), &err);
    return trie;
}

static mf_grammar *make_grammar(const char *text)
{
    mf_grammar *g = NULL;
    mf_error err;
    mft_ok(mf_grammar_open(&g, text, strlen(text), &err), &err);
    return g;
}

static const char *const no_words[] = {NULL};
static const int32_t no_ids[] = {-1};

/* True if the whole text is of the grammar; *prefix: how many of its bytes one can go along. */
static bool takes(mfi_matcher *m, const char *text, size_t len, size_t *prefix)
{
    mf_error err;
    bool alive = true;
    mft_ok(mfi_matcher_reset(m, &err), &err);
    size_t i = 0;
    for (; i < len; i++) {
        mft_ok(mfi_matcher_accept(m, text + i, 1, &alive, &err), &err);
        if (!alive)
            break;
    }
    bool whole = alive && mfi_matcher_can_end(m);
    if (prefix)
        *prefix = i;
    return whole;
}

static mfi_matcher *make_matcher(const mf_grammar *g, const mfi_vocab_trie *trie)
{
    mfi_matcher *m = NULL;
    mf_error err;
    mft_ok(mfi_matcher_open(&m, g, trie, no_ids, 0, &err), &err);
    return m;
}

static const struct {
    const char *grammar;
    const char *yes[8], *no[8]; /* up to NULL */
} texts[] = {
    {"root ::= \"a\"", {"a"}, {"", "b", "aa"}},
    {"root ::= \"\"", {""}, {"a"}},
    {"root ::= \"a\" | \"bc\" |", {"a", "bc", ""}, {"b", "c", "abc"}},
    {"root ::= \"a\"* \"b\"+ \"c\"?", {"b", "aab", "abbbc", "bc"}, {"", "a", "c", "acb", "bcc"}},
    {"root ::= (\"ab\" | \"c\"){2}", {"abc", "cc", "abab"}, {"ab", "c", "ccc"}},
    {"root ::= \"x\"{2,3} \"y\"{1,} \"z\"{0,2}",
     {"xxy", "xxxyyzz"},
     {"xy", "xxxxy", "xx", "xxyzzz"}},
    {"root ::= [a-c0] [^a-c] .", {"a0x", "0\n!", "b\xe2\x82\xac\xc3\xa9"}, {"dxx", "aax", "a0"}},
    {"root ::= [\\]\\[\\-\\\\^] [-a] [a-]", {"]-a", "[a-", "---", "\\aa", "^a-"}, {"aaa", "]ba"}},
    {"root ::= \"\\x41\\u00e9\\U0001F600\\n\\t\\r\\\"\\\\\"",
     {"A\xc3\xa9\xf0\x9f\x98\x80\n\t\r\"\\"},
     {"A"}},
    {"# first\nroot ::= one # then\n  | two\none ::= \"1\"\n\ntwo ::= (\n \"2\" |\n # in between\n "
     "\"3\"\n)\n",
     {"1", "2", "3"},
     {"", "12"}},
    {"root ::= \"(\" root \")\" | \"x\"", {"x", "(x)", "((x))"}, {"(x", "x)", "()", "((x)"}},
    {"root ::= list\nlist ::= [0-9] (\",\" list)?", {"1", "1,2", "1,2,3"}, {"", "1,", ",1"}},
    {"ws ::= ([ \\t\\n] ws)?\nroot ::= ws \"a\" ws", {"a", "  a", "\n\ta \n"}, {" ", "a b"}},
    {"root ::= (a | b)* \"!\"\na ::= \"x\"?\nb ::= \"y\"*", {"!", "xy!", "yyxx!"}, {"x", "z!"}},
    {"root ::= [\\u0080-\\U0010FFFF]",
     {"\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"},
     {"\x7f", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80"}},
    {"root ::= [^\\x00-\\u07ff]",
     {"\xe0\xa0\x80", "\xf0\x90\x80\x80"},
     {"a", "\xdf\xbf", "\xc3\xa9"}},
    {"root ::= [\\u00e9-\\u0416x]",
     {"\xc3\xa9", "\xd0\x96", "\xc4\x80", "x"},
     {"\xc3\xa8", "\xd0\x97"}},
};

static void takes_what_it_should(void **state)
{
    (void)state;
    words w;
    fill_words(&w, no_words);
    mfi_vocab_trie *trie = make_trie(&w);
    for (size_t i = 0; i < MFI_ARRAY_LEN(texts); i++) {
        mf_grammar *g = make_grammar(texts[i].grammar);
        mfi_matcher *m = make_matcher(g, trie);
        for (size_t k = 0; k < 8 && texts[i].yes[k]; k++)
            if (!takes(m, texts[i].yes[k], strlen(texts[i].yes[k]), NULL))
                fail_msg("%s: doesn't take %s", texts[i].grammar, texts[i].yes[k]);
        for (size_t k = 0; k < 8 && texts[i].no[k]; k++)
            if (takes(m, texts[i].no[k], strlen(texts[i].no[k]), NULL))
                fail_msg("%s: takes %s", texts[i].grammar, texts[i].no[k]);
        mfi_matcher_close(&m);
        mf_grammar_close(&g);
    }
    mfi_vocab_trie_close(&trie);
}

/* Every character of Unicode against classes whose members are known by arithmetic. */
static void classes_hold_for_every_character(void **state)
{
    (void)state;
    words w;
    fill_words(&w, no_words);
    mfi_vocab_trie *trie = make_trie(&w);
    mf_grammar *g = make_grammar("root ::= [^a-z\\u0100-\\u2fff\\uff00-\\U00010fff]");
    mfi_matcher *m = make_matcher(g, trie);
    for (uint32_t cp = 0; cp <= 0x10ffff; cp += cp < 0x12000 ? 1 : 61) {
        char utf8[4];
        size_t len = 0;
        if (cp >= 0xd800 && cp <= 0xdfff)
            continue;
        bool in = !((cp >= 'a' && cp <= 'z') || (cp >= 0x100 && cp <= 0x2fff) ||
                    (cp >= 0xff00 && cp <= 0x10fff));
        if (cp < 0x80)
            utf8[len++] = (char)cp;
        else if (cp < 0x800)
            utf8[len++] = (char)(0xc0 | cp >> 6);
        else if (cp < 0x10000)
            utf8[len++] = (char)(0xe0 | cp >> 12);
        else
            utf8[len++] = (char)(0xf0 | cp >> 18);
        if (cp >= 0x10000)
            utf8[len++] = (char)(0x80 | (cp >> 12 & 63));
        if (cp >= 0x800)
            utf8[len++] = (char)(0x80 | (cp >> 6 & 63));
        if (cp >= 0x80)
            utf8[len++] = (char)(0x80 | (cp & 63));
        if (takes(m, utf8, len, NULL) != in)
            fail_msg("U+%04X", cp);
        if (MFT_SANITIZED)
            cp += 13;
    }
    mfi_matcher_close(&m);
    mf_grammar_close(&g);
    mfi_vocab_trie_close(&trie);
}

static const struct {
    const char *grammar, *message;
} errors[] = {
    {"", "there is no rule named root"},
    {"x ::= \"a\"", "there is no rule named root"},
    {"root ::= x", "line 1, column 10: the rule x is not defined"},
    {"root ::= \"a\"\n\xc3\xa9 ::= \"b\"", "line 2, column 1: expected the name of a rule"},
    {"root = \"a\"", "line 1, column 6: expected ::="},
    {"root ::= \"a", "line 1, column 10: the literal that begins here isn't closed"},
    {"root ::=\n  \"a\" [b", "line 2, column 7: the class that begins here isn't closed"},
    {"root ::= \"\xc3\xa9\" (\"b\"", "line 1, column 18: the text ends within a group"},
    {"root ::= \"b\")", "line 1, column 13: expected an element, | or the end of the line"},
    {"root ::= [z-a]", "line 1, column 11: a range that ends before it begins"},
    {"root ::= \"\\q\"", "line 1, column 11: an unknown escape"},
    {"root ::= \"\\x4\"", "line 1, column 14: a hexadecimal digit is missing"},
    {"root ::= \"\\uD800\"", "this number is no character"},
    {"root ::= \"a\"{3,2}", "line 1, column 13: a repetition that ends before it begins"},
    {"root ::= \"a\"{x}", "line 1, column 14: a number is missing"},
    {"root ::= \"a\"{9999999}", "a repetition that is too large"},
    {"root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: this rule is defined a second time"},
    {"root ::= <think>", "line 1, column 10: references to tokens are not supported"},
    {"root ::= root \"a\" | \"b\"", "line 1, column 1: the rule root is left-recursive"},
    {"root ::= a\na ::= b? c\nb ::= \"x\"\nc ::= a \"y\" | \"z\"", "is left-recursive"},
    {"root ::= (\"\" root)?", "is left-recursive"},
    {"root ::= \"a\" root", "the rule root can never end"},
    {"root ::= []", "the rule root can never end"},
    {"root ::= \"\xff\"", "line 1, column 11: not UTF-8"},
};

static void errors_name_their_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(errors); i++) {
        mf_grammar *g = NULL;
        mf_error err = {0};
        mf_status status = mf_grammar_open(&g, errors[i].grammar, strlen(errors[i].grammar), &err);
        assert_null(g);
        if (status != MF_ERR_ARGUMENT || !strstr(err.message, errors[i].message))
            fail_msg("%s: %s %s", errors[i].grammar, mf_status_name(status), err.message);
    }
}

static void limits_are_errors(void **state)
{
    (void)state;
    char deep[MFI_MAX_GRAMMAR_NESTING * 2 + 64] = "root ::= ";
    mf_grammar *g = NULL;
    mf_error err;
    memset(deep + 9, '(', MFI_MAX_GRAMMAR_NESTING + 1);
    assert_int_equal(mf_grammar_open(&g, deep, strlen(deep), &err), MF_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "nested too deeply"));
    const char *large = "root ::= (\"abcdefgh\"{1000}){1000} (([a-z] [0-9]){600} \"!\"){600}";
    mft_ok(mf_grammar_open(&g, large, strlen(large), &err), &err); /* rules keep it small */
    mf_grammar_close(&g);
    large = "root ::= [a-z]{400000} [0-9]{400000}";
    assert_int_equal(mf_grammar_open(&g, large, strlen(large), &err), MF_ERR_LIMIT);

    char nothing[1024] = "root ::= "; /* twice nothing, twice, ...: no states, but 2^40 copies */
    for (int i = 0; i < 40; i++)
        strcat(nothing, "(");
    strcat(nothing, "\"\"");
    for (int i = 0; i < 40; i++)
        strcat(nothing, "){2}");
    assert_int_equal(mf_grammar_open(&g, nothing, strlen(nothing), &err), MF_ERR_LIMIT);
}

/* ---- masks ---- */

static const char *const extra[] = {
    "ab",  "abc", "\"a\"", "\":",  "{\"",       "\"}",  "]}",       "}}",           ", \"",
    "123", "1.5", "tr",    "true", "e\xe2\x82", "\xac", "\xac\"",   "\xe2\x82\xac", "\xf0\x9f",
    "  ",  "\n ", "\\u",   "\\n",  "a\"",       "aaaa", "aaaaaaaa", "]]",           "[[",
    "0",   "0",   "-1",    "]]]",  "abcdabcd",  NULL};

static const char *const grammars[] = {
    "root ::= value\n"
    "value ::= object | array | string | [0-9]+ (\".\" [0-9]+)? | \"true\"\n"
    "object ::= \"{\" (string \": \"? value (\", \" string \":\" value)*)? \"}\"\n"
    "array ::= \"[\" (value (\",\" \" \"? value)*)? \"]\"\n"
    "string ::= \"\\\"\" ([^\"\\\\\\x00-\\x1f] | \"\\\\\" ([n\"] | \"u\" [0-9a-f]{4}))* \"\\\"\"",
    "root ::= \"\\\"\" [a-z]{3,9} \"\\\"\"",
    "root ::= \"\\\"\" ([^\"] | \"\\\\\\\"\"){0,5} \"\\\"\" root | \"\"",
    "root ::= ([a-c]{2} | \"ab\"){1,4} [\\u20ac\\U0001F600]*",
    "root ::= \"[\" root \"]\" | \"a\"*",
};

/* Adds words of several characters and parts of characters, so that the trie has depth. */
static void add_random_words(words *w, uint64_t seed)
{
    static const char *const parts[] = {"a",        "b",        "\"",           "z",
                                        "1",        "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                                        "\xe2\x82", "\x82",     "\xf0\x9f",     "\xed\xa0",
                                        "\xc3\xbf", "\xd0\x90", "\xe4\xb8\xad"};
    mfi_rng rng = {seed};
    for (int i = 0; i < 320; i++) {
        size_t n_parts = i % 2 ? MFI_ARRAY_LEN(parts) : 8;
        char *text = w->text[w->n++];
        for (uint64_t n = 1 + mfi_rng_below(&rng, 5); n > 0; n--)
            strcat(text, parts[mfi_rng_below(&rng, n_parts)]);
    }
}

/* One random text: at every place the mask must say of each token what trying it says. */
static void check_masks(const mf_grammar *g, const mfi_vocab_trie *trie, words *w, uint64_t seed)
{
    const int32_t ends[] = {(int32_t)w->n - 1};
    mfi_rng rng = {seed};
    mfi_matcher *m = NULL, *trial = make_matcher(g, trie);
    mf_error err;
    mft_ok(mfi_matcher_open(&m, g, trie, ends, 1, &err), &err);
    char text[512];
    size_t len = 0;
    for (int step = 0; step < 24; step++) {
        const uint32_t *mask;
        uint32_t allowed[256 + N_EXTRA], n = 0;
        mft_ok(mfi_matcher_mask(m, &mask, &err), &err);
        for (uint32_t id = 0; id < w->n; id++) {
            size_t piece_len, prefix;
            const char *bytes = piece(w, id, &piece_len);
            memcpy(text + len, bytes, piece_len);
            bool want;
            if (id == (uint32_t)ends[0])
                want = mfi_matcher_can_end(m);
            else
                want = (takes(trial, text, len + piece_len, &prefix), prefix == len + piece_len);
            if (want != (bool)(mask[id >> 5] >> (id & 31) & 1))
                fail_msg("seed %llu after %.*s: token %u", (unsigned long long)seed, (int)len, text,
                         id);
            if (want && id != (uint32_t)ends[0])
                allowed[n++] = id;
        }
        if (n == 0)
            break;
        uint32_t id = allowed[mfi_rng_below(&rng, n)];
        size_t piece_len;
        bool alive;
        const char *bytes = piece(w, id, &piece_len);
        memcpy(text + len, bytes, piece_len);
        len += piece_len;
        mft_ok(mfi_matcher_accept(m, bytes, piece_len, &alive, &err), &err);
        assert_true(alive);
    }
    mfi_matcher_close(&m);
    mfi_matcher_close(&trial);
}

static void masks_agree_with_trying(void **state)
{
    (void)state;
    words w;
    fill_words(&w, extra);
    add_random_words(&w, 11);
    w.n++; /* the end token: no text */
    mfi_vocab_trie *trie = make_trie(&w);
    for (size_t i = 0; i < MFI_ARRAY_LEN(grammars); i++) {
        mf_grammar *g = make_grammar(grammars[i]);
        for (uint64_t seed = 1; seed <= (MFT_SANITIZED ? 1 : 4); seed++)
            check_masks(g, trie, &w, seed);
        mf_grammar_close(&g);
    }
    mfi_vocab_trie_close(&trie);
}

/* Repetitions of classes between bounds, one behind or beside the other. */
static void put_random_grammar(mfi_rng *rng, bool top, mfi_buf *out)
{
    static const char *const classes[] = {".",
                                          "[^\"]",
                                          "[a-c]",
                                          "[a-z0-9]",
                                          "[^a\\u20ac]",
                                          "[\\u00e0-\\u024f\\u4e00-\\u9fff ]",
                                          "[^\\x00-\\u00ff]",
                                          "[b\\u0400-\\U0001ffff]"};
    mfi_buf_str(out, top ? "root ::= " : "(");
    for (uint64_t i = 0, n = 1 + mfi_rng_below(rng, 3); i < n; i++) {
        uint64_t least = mfi_rng_below(rng, 4), most = least + mfi_rng_below(rng, 9);
        if (i)
            mfi_buf_str(out, mfi_rng_below(rng, 3) ? " " : " | ");
        if (top && mfi_rng_below(rng, 3) == 0)
            put_random_grammar(rng, false, out);
        else if (mfi_rng_below(rng, 4) == 0)
            mfi_buf_str(out, "\"ab\"");
        else
            mfi_buf_str(out, classes[mfi_rng_below(rng, MFI_ARRAY_LEN(classes))]);
        mfi_buf_fmt(out, "{%d,%d}", (int)least, (int)most);
    }
    mfi_buf_str(out, top ? " \"!\"" : ")");
}

static void masks_of_bounded_texts_agree_with_trying(void **state)
{
    (void)state;
    words w;
    fill_words(&w, no_words);
    add_random_words(&w, 12);
    w.n++; /* the end token: no text */
    mfi_vocab_trie *trie = make_trie(&w);
    for (uint64_t seed = 1; seed <= (MFT_SANITIZED ? 4 : 60); seed++) {
        mfi_rng rng = {seed};
        mfi_buf text = {0};
        put_random_grammar(&rng, true, &text);
        mf_grammar *g = NULL;
        mf_error err = {0};
        if (mf_grammar_open(&g, text.data, text.len, &err) != MF_OK)
            fail_msg("seed %llu: %s: %s", (unsigned long long)seed, text.data, err.message);
        check_masks(g, trie, &w, seed);
        mf_grammar_close(&g);
        mfi_buf_free(&text);
    }
    mfi_vocab_trie_close(&trie);
}

/* Nesting beyond the limit isn't offered, and what is offered can be closed. */
static void depth_is_bounded_without_a_trap(void **state)
{
    (void)state;
    words w;
    fill_words(&w, no_words);
    mfi_vocab_trie *trie = make_trie(&w);
    mf_grammar *g = make_grammar("root ::= value\n"
                                 "value ::= \"[\" value \"]\" | \"(\" inner \")\" | \"x\"\n"
                                 "inner ::= \"{\" value \"}\" \"!\"");
    mfi_matcher *m = NULL;
    mf_error err;
    bool alive = true;
    size_t depth = 0;
    mft_ok(mfi_matcher_open(&m, g, trie, no_ids, 0, &err), &err);
    while (mfi_matcher_accept(m, "({", 2, &alive, &err) == MF_OK && alive)
        depth++;
    assert_in_range(depth, MFI_MAX_GRAMMAR_DEPTH / 2 - 2, MFI_MAX_GRAMMAR_DEPTH / 2);
    mft_ok(mfi_matcher_accept(m, "x", 1, &alive, &err), &err);
    assert_true(alive);
    for (size_t i = 0; i < depth; i++) {
        mft_ok(mfi_matcher_accept(m, "}!)", 3, &alive, &err), &err);
        assert_true(alive);
    }
    assert_true(mfi_matcher_must_end(m));
    mfi_matcher_close(&m);
    mf_grammar_close(&g);
    mfi_vocab_trie_close(&trie);
}

/* More texts than the tables hold: they are emptied, and nothing changes. */
static void full_tables_change_nothing(void **state)
{
    (void)state;
    words w;
    fill_words(&w, no_words);
    mfi_vocab_trie *trie = make_trie(&w);
    mf_grammar *g = make_grammar("root ::= a | b\n"
                                 "a ::= \"<\" root* \">\"\nb ::= \"(\" root* \")\" ");
    mfi_matcher *m = NULL;
    mf_error err;
    uint64_t seed = 7;
    mfi_rng rng = {seed};
    char open[600];
    size_t depth = 0;
    bool alive;
    mft_ok(mfi_matcher_open(&m, g, trie, no_ids, 0, &err), &err);
    const char *first = "<";
    mft_ok(mfi_matcher_accept(m, first, 1, &alive, &err), &err);
    open[depth++] = '<';
    for (int i = 0; i < 400000; i++) {
        const uint32_t *mask;
        bool down = depth < 2 || (depth < 500 && mfi_rng_below(&rng, 2));
        char c = mfi_rng_below(&rng, 2) ? '<' : '(';
        char close = open[depth - 1] == '<' ? '>' : ')', wrong = close == '>' ? ')' : '>';
        mft_ok(mfi_matcher_accept(m, &wrong, 1, &alive, &err), &err);
        assert_false(alive);
        if (i % 64 == 0) {
            mft_ok(mfi_matcher_mask(m, &mask, &err), &err);
            for (unsigned b = 0; b < 256; b++)
                if ((mask[b >> 5] >> (b & 31) & 1) !=
                    (b == '<' || b == '(' || b == (unsigned char)close))
                    fail_msg("seed %llu step %d byte %u", (unsigned long long)seed, i, b);
        }
        mft_ok(mfi_matcher_accept(m, down ? &c : &close, 1, &alive, &err), &err);
        assert_true(alive);
        if (down)
            open[depth++] = c;
        else
            depth--;
    }
    assert_true(mfi_matcher_n_flushes(m) > 2);
    mfi_matcher_close(&m);
    mf_grammar_close(&g);
    mfi_vocab_trie_close(&trie);
}

static void ambiguity_is_bounded(void **state)
{
    (void)state;
    words w;
    fill_words(&w, no_words);
    mfi_vocab_trie *trie = make_trie(&w);
    mf_grammar *g = make_grammar("root ::= \"\" | \"a\" x \"b\" | \"a\" y \"c\"\n"
                                 "x ::= root \"1\"? | \"a\" y\ny ::= root \"2\"? | \"a\" x");
    mfi_matcher *m = NULL;
    mf_error err;
    mf_status status = MF_OK;
    bool alive = true;
    mft_ok(mfi_matcher_open(&m, g, trie, no_ids, 0, &err), &err);
    int n = 0;
    for (; n < 200 && status == MF_OK && alive; n++)
        status = mfi_matcher_accept(m, "a", 1, &alive, &err);
    assert_int_equal(status, MF_ERR_LIMIT);
    assert_non_null(strstr(err.message, "too ambiguous"));
    mfi_matcher_close(&m);
    mf_grammar_close(&g);
    mfi_vocab_trie_close(&trie);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_it_should),
        cmocka_unit_test(classes_hold_for_every_character),
        cmocka_unit_test(errors_name_their_place),
        cmocka_unit_test(limits_are_errors),
        cmocka_unit_test(masks_agree_with_trying),
        cmocka_unit_test(masks_of_bounded_texts_agree_with_trying),
        cmocka_unit_test(depth_is_bounded_without_a_trap),
        cmocka_unit_test(full_tables_change_nothing),
        cmocka_unit_test(ambiguity_is_bounded),
    };
    return mft_run(tests);
}
