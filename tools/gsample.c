/* Writes texts that a grammar allows, by a sampler whose logits are noise: what the worst of models
 * could write under it. For property tests (tests/cli/test_grammar.py), and with --time for
 * measuring masks (bench/grammar_masks.py).
 *
 *   gsample [-t TOKENIZER] [-n TEXTS] [-s SEED] [--gbnf] [--time] < LINES
 *
 * A line is a JSON schema, or with --gbnf a JSON string with a grammar. For each an object is
 * written: {"texts":[...]} or {"error":"..."}. Without a tokenizer tokens are bytes. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/rng.h"
#include "grammar/matcher.h"

#define PATIENCE   300 /* tokens after which a text is led to its end */
#define MAX_TOKENS 6000

typedef struct setup {
    mf_tokenizer *tokenizer;
    mfi_vocab_trie *trie;
    int32_t end_id;
    unsigned n_texts;
    uint64_t seed;
    bool gbnf, time;
} setup;

static const char *piece(void *ctx, uint32_t id, size_t *len)
{
    static char bytes[256][2];
    const setup *s = ctx;
    *len = 0;
    if (id == (uint32_t)s->end_id)
        return "";
    if (s->tokenizer)
        return mf_tokenizer_piece(s->tokenizer, (int32_t)id, false, len);
    bytes[id][0] = (char)id;
    *len = 1;
    return bytes[id];
}

/* The highest of random logits among the allowed; late in a text what closes things is preferred.
 */
static int32_t choose(const setup *s, mfi_rng *rng, const uint32_t *mask, bool late)
{
    int32_t best = -1;
    double best_logit = -INFINITY;
    late = late && mfi_rng_unit(rng) < 0.8; /* within strings these close nothing */
    for (uint32_t id = 0; id < s->trie->n_vocab; id++) {
        if (!(mask[id >> 5] >> (id & 31) & 1))
            continue;
        size_t len;
        const char *bytes = piece((void *)s, id, &len);
        double logit = mfi_rng_unit(rng);
        if (late && (id == (uint32_t)s->end_id || (len == 1 && strchr("\"]}", bytes[0]))))
            logit += 2;
        else if (late && (memchr(bytes, '{', len) || memchr(bytes, '[', len)))
            logit -= 2;
        if (logit > best_logit) {
            best_logit = logit;
            best = (int32_t)id;
        }
    }
    return best;
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Appends the text as a JSON string, or with times as a list of nanoseconds a mask. */
static bool write_text(const setup *s, mfi_matcher *m, mfi_rng *rng, mfi_buf *out, mf_error *err)
{
    mfi_buf text = {0};
    bool whole = false;
    mfi_buf_append(&text, "", 0);
    for (int i = 0; i < MAX_TOKENS && !whole; i++) {
        const uint32_t *mask;
        uint64_t t0 = s->time ? cpu_ns() : 0;
        bool alive;
        size_t len;
        if (mfi_matcher_mask(m, &mask, err))
            break;
        if (s->time)
            mfi_buf_fmt(out, "%s%" PRIu64, i ? "," : "", cpu_ns() - t0);
        int32_t id = choose(s, rng, mask, i > PATIENCE);
        if (id < 0) {
            snprintf(err->message, sizeof err->message, "nothing is allowed");
            break;
        }
        whole = id == s->end_id;
        const char *bytes = piece((void *)s, (uint32_t)id, &len);
        mfi_buf_append(&text, bytes, len);
        if (!whole && (mfi_matcher_accept(m, bytes, len, &alive, err) || !alive))
            break;
    }
    if (s->time && !err->message[0])
        whole = true; /* what was asked for are the times */
    if (!whole && !err->message[0])
        snprintf(err->message, sizeof err->message, "no end after %d tokens", MAX_TOKENS);
    if (!s->time)
        mfi_json_put_str(out, text.data, text.len);
    mfi_buf_free(&text);
    return whole;
}

static bool write_texts(const setup *s, const mf_grammar *g, mfi_buf *out, mf_error *err)
{
    mfi_matcher *m = NULL;
    bool ok = mfi_matcher_open(&m, g, s->trie, &s->end_id, 1, err) == MF_OK;
    mfi_buf_str(out, "{\"texts\":[");
    for (unsigned i = 0; ok && i < s->n_texts; i++) {
        mfi_rng rng = {s->seed + i};
        ok = mfi_matcher_reset(m, err) == MF_OK;
        mfi_buf_str(out, i ? "," : "");
        mfi_buf_str(out, s->time ? "[" : "");
        ok = ok && write_text(s, m, &rng, out, err);
        mfi_buf_str(out, s->time ? "]" : "");
    }
    mfi_buf_str(out, "]}");
    mfi_matcher_close(&m);
    return ok;
}

static void do_line(const setup *s, const char *line, size_t len)
{
    mf_error err = {0};
    mf_grammar *g = NULL;
    mfi_buf out = {0}, text = {0};
    mf_status status = MF_OK;
    if (s->gbnf) {
        status = mfi_json_scan(line, len, "line", &err);
        if (!status && mfi_json_span_str(mfi_json_root(line, len), &text))
            status = mf_grammar_open(&g, text.data, text.len, &err);
    } else {
        status = mf_grammar_open_json_schema(&g, line, len, &err);
    }
    if (status || !write_texts(s, g, &out, &err)) {
        out.len = 0;
        mfi_buf_str(&out, "{\"error\":");
        mfi_json_put_str(&out, err.message, strlen(err.message));
        mfi_buf_str(&out, "}");
    }
    puts(out.data);
    mf_grammar_close(&g);
    mfi_buf_free(&out);
    mfi_buf_free(&text);
}

static bool open_vocabulary(setup *s, const char *path)
{
    mf_error err = {0};
    uint32_t n = 257;
    s->end_id = 256;
    if (path) {
        if (mf_tokenizer_open(&s->tokenizer, path, &err)) {
            fprintf(stderr, "%s\n", err.message);
            return false;
        }
        n = (uint32_t)mf_tokenizer_n_vocab(s->tokenizer) + 1;
        s->end_id = (int32_t)n - 1;
    }
    uint64_t t0 = cpu_ns();
    if (mfi_vocab_trie_open(&s->trie, &(mfi_vocab_pieces){s, n, piece}, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return false;
    }
    if (s->time)
        printf("{\"n_vocab\":%u,\"n_nodes\":%u,\"trie_ns\":%" PRIu64 "}\n", n, s->trie->n_nodes,
               cpu_ns() - t0);
    return true;
}

int main(int argc, char **argv)
{
    setup s = {.n_texts = 1, .seed = 1};
    const char *tokenizer = NULL;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--gbnf") == 0)
            s.gbnf = true;
        else if (strcmp(argv[i], "--time") == 0)
            s.time = true;
        else if (strcmp(argv[i], "-t") == 0 && more)
            tokenizer = argv[++i];
        else if (strcmp(argv[i], "-n") == 0 && more)
            s.n_texts = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "-s") == 0 && more)
            s.seed = strtoull(argv[++i], NULL, 10);
        else
            return 2;
    }
    if (!open_vocabulary(&s, tokenizer))
        return 1;
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    while ((len = getline(&line, &cap, stdin)) > 0)
        do_line(&s, line, (size_t)len - (line[len - 1] == '\n'));
    free(line);
    mfi_vocab_trie_close(&s.trie);
    mf_tokenizer_close(&s.tokenizer);
    return 0;
}
