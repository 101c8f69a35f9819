/* Answers in company: whatever others are evaluated in the same passes, and whenever they come and
 * go, an answer's tokens and their probabilities are the same bits as alone, on models with whole
 * attention, sliding windows, latent attention and recurrent layers. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "fake/oss_model.h"
#include "fake/tiny_latent.h"
#include "fake/tiny_model.h"

enum { N_ANSWERS = 7, N_SESSIONS = 4, PROMPT_MAX = 50, TOKENS_MAX = 14, CHUNK = 8, CTX = 96 };

typedef struct answer {
    int32_t first[12]; /* evaluated before */
    uint32_t n_first;
    int32_t prompt[PROMPT_MAX];
    mf_generate_options o;
    int32_t ids[TOKENS_MAX];
    mf_token_logprob logprobs[TOKENS_MAX], seconds[TOKENS_MAX];
    uint32_t n, n_callbacks, stop_at; /* stop_at: the callback that ends it; 0: none */
    mf_generate_result result;
    mf_generation *running;
    mf_session *session;
} answer;

static void on_logprobs(void *user, mf_token_logprob chosen, const mf_token_logprob *top,
                        size_t n_top)
{
    answer *a = user;
    assert_int_equal(n_top, 2);
    assert_true(a->n < TOKENS_MAX);
    a->ids[a->n] = chosen.id;
    a->logprobs[a->n] = chosen;
    a->seconds[a->n++] = top[1];
}

static bool on_token(void *user, int32_t id, const char *bytes, size_t len)
{
    answer *a = user;
    (void)id, (void)bytes, (void)len;
    return ++a->n_callbacks != a->stop_at;
}

static mf_engine *open_engine(const char *folder, uint32_t n_sessions, uint64_t memory)
{
    mf_error err = {0};
    mf_engine *engine = NULL;
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = folder;
    o.ctx = CTX;
    o.chunk = CHUNK;
    o.n_threads = 1;
    o.n_sessions = n_sessions;
    o.memory_bytes = memory;
    mft_ok(mf_engine_open(&engine, &o, &err), &err);
    return engine;
}

static uint32_t below(mfi_rng *rng, uint32_t n)
{
    return (uint32_t)(mfi_rng_next(rng) % n);
}

static void make_answer(answer *a, mfi_rng *rng, uint32_t n_vocab)
{
    *a = (answer){.n_first = below(rng, 3) ? 0 : 1 + below(rng, 12)};
    for (uint32_t i = 0; i < 12; i++)
        a->first[i] = (int32_t)below(rng, n_vocab);
    for (uint32_t i = 0; i < PROMPT_MAX; i++)
        a->prompt[i] = (int32_t)below(rng, n_vocab);
    mf_generate_options_default(&a->o);
    a->o.prompt = a->prompt;
    a->o.n_prompt = below(rng, 4) ? 1 + below(rng, PROMPT_MAX) : 1 + below(rng, 3);
    if (a->n_first && below(rng, 3) == 0)
        a->o.n_prompt = 0; /* goes on from logits that are at hand */
    a->o.max_tokens = 1 + below(rng, TOKENS_MAX);
    a->o.ignore_eos = true;
    a->o.sampling.temperature = below(rng, 2) ? 0.9f : 0;
    a->o.sampling.seed = mfi_rng_next(rng);
    a->o.sampling.repeat_penalty = 1.1f;
    a->o.on_logprobs = on_logprobs;
    a->o.n_top_logprobs = 2;
    a->o.on_token = on_token;
    a->stop_at = below(rng, 4) ? 0 : 1 + below(rng, TOKENS_MAX);
    a->o.user = a;
}

static void start(answer *a, mf_session *session)
{
    mf_error err = {0};
    mf_session_reset(session);
    mft_ok(mf_session_eval(session, a->first, a->n_first, NULL, &err), &err);
    a->o.user = a;
    a->o.prompt = a->prompt;
    a->session = session;
    mft_ok(mf_generation_begin(&a->running, session, &a->o, &err), &err);
}

static void compare(const answer *got, const answer *want, uint64_t seed, uint32_t i)
{
    if (got->n != want->n || memcmp(got->ids, want->ids, got->n * sizeof *got->ids) != 0 ||
        memcmp(got->logprobs, want->logprobs, got->n * sizeof *got->logprobs) != 0 ||
        memcmp(got->seconds, want->seconds, got->n * sizeof *got->seconds) != 0)
        fail_msg("seed %llu: answer %u differs in company (%u tokens, %u alone)",
                 (unsigned long long)seed, i, got->n, want->n);
    assert_int_equal(got->result.stop, want->result.stop);
    assert_int_equal(got->result.n_generated, want->result.n_generated);
    assert_int_equal(got->result.n_prompt_done, got->o.n_prompt);
    assert_int_equal(got->result.n_cached, got->n_first);
}

/* Answers come when a session is free and the dice say so. */
static void run_company(mf_engine *engine, answer *list, mfi_rng *rng)
{
    mf_error err = {0};
    mf_session *sessions[N_SESSIONS] = {0};
    mf_generation *running[N_SESSIONS];
    uint32_t next = 0, n_left = N_ANSWERS;
    answer *of[N_SESSIONS] = {0};
    for (uint32_t i = 0; i < N_SESSIONS; i++)
        mft_ok(mf_session_open(&sessions[i], engine, &err), &err);
    while (n_left > 0) {
        for (uint32_t i = 0; i < N_SESSIONS; i++)
            if (!of[i] && next < N_ANSWERS && below(rng, 2)) {
                of[i] = &list[next++];
                start(of[i], sessions[i]);
            }
        uint32_t n = 0;
        size_t n_running = 99;
        for (uint32_t i = 0; i < N_SESSIONS; i++)
            if (of[i])
                running[n++] = of[i]->running;
        mft_ok(mf_engine_step(engine, running, n, &n_running, &err), &err);
        for (uint32_t i = 0; i < N_SESSIONS; i++) {
            if (!of[i] || !mf_generation_done(of[i]->running))
                continue;
            mft_ok(mf_generation_result(of[i]->running, &of[i]->result, &err), &err);
            mf_generation_end(&of[i]->running);
            of[i] = NULL;
            n_left--;
            n--;
        }
        assert_int_equal(n_running, n);
    }
    for (uint32_t i = 0; i < N_SESSIONS; i++)
        mf_session_close(&sessions[i]);
}

static void companies(const char *folder, uint64_t memory)
{
    mf_error err = {0};
    uint64_t seed = (uint64_t)time(NULL);
    mfi_rng rng = {0};
    rng.state = seed;
    print_message("seed %llu\n", (unsigned long long)seed);
    mf_engine *engine = open_engine(folder, N_SESSIONS, memory);
    mf_model_info info = {.struct_size = sizeof info};
    mf_engine_info(engine, &info);
    answer *alone = calloc(N_ANSWERS, sizeof *alone), *list = calloc(N_ANSWERS, sizeof *list);
    mf_session *session = NULL;
    mft_ok(mf_session_open(&session, engine, &err), &err);
    for (uint32_t i = 0; i < N_ANSWERS; i++) {
        answer *a = &alone[i];
        make_answer(a, &rng, info.n_vocab);
        list[i] = *a;
        mf_session_reset(session);
        mft_ok(mf_session_eval(session, a->first, a->n_first, NULL, &err), &err);
        mft_ok(mf_session_generate(session, &a->o, &a->result, &err), &err);
        assert_true(a->n > 0);
    }
    mf_session_close(&session);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < N_ANSWERS; i++)
            list[i].n = list[i].n_callbacks = 0;
        run_company(engine, list, &rng);
        for (uint32_t i = 0; i < N_ANSWERS; i++)
            compare(&list[i], &alone[i], seed, i);
    }
    free(alone);
    free(list);
    mf_engine_close(&engine);
}

static void recurrent(void **state)
{
    (void)state;
    mft_tiny s;
    mft_tiny_default(&s);
    companies(mft_tiny_write(&s), 0);
}

static void quantised(void **state)
{
    (void)state;
    companies(mft_source("tests/data/mlx-tiny/q4g32"), 0);
}

static void windowed(void **state)
{
    (void)state;
    mft_oss s;
    mft_oss_default(&s);
    companies(mft_oss_write(&s), 0);
}

static void latent(void **state)
{
    (void)state;
    mft_latent s;
    mft_latent_default(&s);
    companies(mft_latent_write(&s), 0);
}

/* Hardly any slots: what is read for one is evicted for the next. */
static void streamed(void **state)
{
    (void)state;
    mf_error err = {0};
    mf_engine *engine = NULL;
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = mft_source("models/pocket-dictionary");
    o.ctx = CTX;
    o.chunk = CHUNK;
    o.n_sessions = N_SESSIONS;
    o.memory_bytes = 1;
    assert_int_equal(mf_engine_open(&engine, &o, &err), MF_ERR_BUDGET);
    if (MFT_SANITIZED)
        mft_skip("sanitizers take memory of their own");
    const char *text = strstr(err.message, "options is ");
    assert_non_null(text);
    companies(o.model_path, strtoull(text + 11, NULL, 10) << 20);
}

/* What a plan has room for is what can be opened, and the plan says what it costs. */
static void room(void **state)
{
    (void)state;
    mf_error err = {0};
    mf_session *s[3] = {0};
    mf_engine *engine = open_engine(mft_source("tests/data/mlx-tiny/q4g32"), 2, 0);
    mft_ok(mf_session_open(&s[0], engine, &err), &err);
    mft_ok(mf_session_open(&s[1], engine, &err), &err);
    assert_int_equal(mf_session_open(&s[2], engine, &err), MF_ERR_STATE);
    mf_session_close(&s[0]);
    mft_ok(mf_session_open(&s[2], engine, &err), &err);
    mf_session_close(&s[1]);
    mf_session_close(&s[2]);
    mf_engine_close(&engine);

    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = mft_source("tests/data/mlx-tiny/q4g32");
    o.chunk = 2;
    o.n_sessions = 3;
    assert_int_equal(mf_engine_open(&engine, &o, &err), MF_ERR_ARGUMENT);
    o.n_sessions = 257;
    assert_int_equal(mf_engine_open(&engine, &o, &err), MF_ERR_LIMIT);
}

/* Wrong lists, a session that has an answer, and an answer that is given up in the middle. */
static void misuse(void **state)
{
    (void)state;
    mf_error err = {0};
    size_t n;
    answer a = {0}, b;
    mfi_rng rng = {0};

    mf_engine *engine = open_engine(mft_source("tests/data/mlx-tiny/q4g32"), 2, 0);
    mf_engine *other = open_engine(mft_source("tests/data/mlx-tiny/q4g32"), 2, 0);
    mf_session *session = NULL;
    mft_ok(mf_session_open(&session, engine, &err), &err);
    make_answer(&a, &rng, 64);
    a.n_first = 0;
    a.stop_at = 0;
    a.o.n_prompt = 20;
    a.o.max_tokens = 5;
    b = a;
    start(&a, session);
    b.o.user = &b;
    assert_int_equal(mf_generation_begin(&b.running, session, &b.o, &err), MF_ERR_STATE);
    mf_generation *twice[2] = {a.running, a.running};
    assert_int_equal(mf_engine_step(engine, twice, 2, &n, &err), MF_ERR_ARGUMENT);
    assert_int_equal(mf_engine_step(other, twice, 1, &n, &err), MF_ERR_ARGUMENT);
    mft_ok(mf_engine_step(engine, twice, 1, &n, &err), &err);
    assert_int_equal(n, 1);
    mft_ok(mf_generation_result(a.running, &a.result, &err), &err);
    assert_int_equal(a.result.n_prompt_done, CHUNK);
    assert_int_equal(a.result.n_generated, 0);
    assert_false(mf_generation_done(a.running));
    mf_generation_end(&a.running);
    assert_int_equal(mf_session_length(session), CHUNK);
    /* It goes on from there. */
    b.o.prompt = b.prompt + CHUNK;
    b.o.n_prompt -= CHUNK;
    mft_ok(mf_session_generate(session, &b.o, &b.result, &err), &err);
    assert_int_equal(b.n, 5);
    mf_session_reset(session);
    a.n = a.n_callbacks = 0;
    mft_ok(mf_session_generate(session, &a.o, &a.result, &err), &err);
    assert_memory_equal(a.ids, b.ids, 5 * sizeof *a.ids);
    mf_session_close(&session);
    mf_engine_close(&engine);
    mf_engine_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recurrent), cmocka_unit_test(quantised), cmocka_unit_test(windowed),
        cmocka_unit_test(latent),    cmocka_unit_test(streamed),  cmocka_unit_test(room),
        cmocka_unit_test(misuse),
    };
    return mft_run(tests);
}
