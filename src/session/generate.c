/* One answer: what it needs, and from logits to a token that is shown. Passes over the model are
 * step.c's. Runs on the engine's thread; the callbacks run there, too. Allocates when it begins,
 * and where texts grow. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "grammar/matcher.h"
#include "sample/sampler.h"
#include "session/generation.h"
#include "text/output.h"
#include "text/stops.h"
#include "text/tokenizer.h"

void mf_generate_options_default(mf_generate_options *options)
{
    *options = (mf_generate_options){.struct_size = sizeof *options, .max_tokens = -1};
    mf_sampling_default(&options->sampling);
}

static bool is_eos(const mfi_session_host *host, int32_t id)
{
    for (uint32_t i = 0; i < host->n_eos; i++)
        if (host->eos[i] == id)
            return true;
    return false;
}

/* Hands g->text out; false if the caller wants to stop. With stop strings an output gets the text,
 * since a token is not shown as a whole. */
static bool hand_out(mf_generation *g, int32_t id)
{
    const char *text = g->text.data ? g->text.data : "";
    size_t len = g->text.len;
    if (g->stops && g->o.output) {
        mf_output_push(g->o.output, text, len);
        len = 0;
    }
    return !g->o.on_token || g->o.on_token(g->o.user, id, len ? text : "", len);
}

/* As show(). */
static bool show_before_stop(mf_generation *g, int32_t id)
{
    size_t len = 0;
    bool special = g->o.output && mfi_output_marks(g->o.output, id);
    const char *piece = mfi_tokenizer_show(g->host->tokenizer, id, special, &g->strip, &len);
    g->whole.len = g->text.len = 0;
    mfi_detok_push(&g->detok, piece, len, &g->whole);
    if (mfi_stops_push(g->stops, g->whole.data, g->whole.len, &g->text))
        g->result.stop = MF_STOP_STRING;
    return hand_out(g, id);
}

/* Hands a token's text out; false if the caller wants to stop. */
static bool show(mf_generation *g, int32_t id)
{
    if (g->stops)
        return show_before_stop(g, id);
    if (g->o.output)
        mf_output_push_token(g->o.output, id);
    if (!g->o.on_token)
        return true;
    size_t len = 0;
    const char *piece = g->host->tokenizer
                            ? mfi_tokenizer_show(g->host->tokenizer, id, false, &g->strip, &len)
                            : "";
    g->text.len = 0;
    mfi_detok_push(&g->detok, piece, len, &g->text);
    return hand_out(g, id);
}

/* Bytes held back at the end come out with the last token's id. */
static void show_rest(mf_generation *g, int32_t last)
{
    g->text.len = g->whole.len = 0;
    mfi_detok_end(&g->detok, g->stops ? &g->whole : &g->text);
    if (g->stops && mfi_stops_push(g->stops, g->whole.data, g->whole.len, &g->text))
        g->result.stop = MF_STOP_STRING;
    if (g->stops)
        mfi_stops_end(g->stops, &g->text);
    if (g->text.len)
        hand_out(g, last);
}

/* Samples a token. *id is -1 where the grammar can only end. */
static mf_status choose(mf_generation *g, int32_t *id, mf_error *err)
{
    const float *logits = mf_session_logits(g->session);
    const uint32_t *mask;
    if (!g->matcher) {
        *id = mfi_sampler_next(g->sampler, logits);
    } else if (mfi_matcher_must_end(g->matcher)) {
        *id = -1;
        return MF_OK;
    } else {
        MFI_TRY(mfi_matcher_mask(g->matcher, &mask, err));
        *id = mfi_sampler_next_of(g->sampler, logits, mask);
        if (*id < 0)
            return mfi_fail(err, MF_ERR_STATE,
                            "after %zu tokens of the answer no token that the grammar allows can "
                            "be drawn: the vocabulary has none, or biases forbid them",
                            g->result.n_generated);
    }
    /* The sampler takes a NaN only where there is nothing else. */
    if (isnan(logits[*id]))
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: after %zu tokens the model's output is not a number: its weights "
                        "are damaged, or outside what float32 can compute with",
                        g->host->model_path, mf_session_length(g->session));
    return MF_OK;
}

static void tell_logprobs(const mf_generation *g, int32_t id)
{
    mf_token_logprob chosen, top[MF_TOP_LOGPROBS];
    size_t n = mf_logprobs(mf_session_logits(g->session), g->host->plan->program.shape.n_vocab, id,
                           &chosen, top, g->o.n_top_logprobs);
    g->o.on_logprobs(g->o.user, chosen, top, n);
}

/* Goes on with a token in sampler and grammar. */
static mf_status take(mf_generation *g, int32_t id, mf_error *err)
{
    mfi_sampler_accept(g->sampler, id);
    g->result.n_generated++;
    if (!g->matcher)
        return MF_OK;
    bool alive;
    size_t len;
    const char *piece = mf_tokenizer_piece(g->host->tokenizer, id, false, &len);
    MFI_TRY(mfi_matcher_accept(g->matcher, piece, len, &alive, err));
    MFI_ASSERT(alive); /* the mask said so */
    return MF_OK;
}

/* Takes a token and shows it. *ended: why it is the last, if it is. */
static mf_status next_token(mf_generation *g, bool *ended, mf_error *err)
{
    int32_t id;
    *ended = true;
    g->result.stop = MF_STOP_LENGTH;
    if (g->left == 0)
        return MF_OK;
    MFI_TRY(choose(g, &id, err));
    if (id < 0 || (is_eos(g->host, id) && !g->o.ignore_eos)) {
        g->result.stop = MF_STOP_EOS;
        return MF_OK;
    }
    g->next = id;
    MFI_TRY(take(g, id, err));
    g->left -= g->left > 0;
    if (g->o.on_logprobs)
        tell_logprobs(g, id);
    if (!show(g, id))
        g->result.stop = MF_STOP_CANCELLED;
    else if (g->result.stop != MF_STOP_STRING &&
             g->left != 0) /* or evaluation would serve nobody */
        g->result.stop = MF_STOP_CONTEXT;
    *ended =
        g->result.stop != MF_STOP_CONTEXT || mf_session_length(g->session) == g->host->plan->ctx;
    return MF_OK;
}

void mfi_generation_fail(mf_generation *g, mf_status status, const mf_error *err)
{
    g->status = status;
    g->error = *err;
    g->done = true;
}

void mfi_generation_take(mf_generation *g)
{
    mf_error err = {0};
    bool ended;
    if (!g->prompt_at_ns) {
        size_t n_past = mf_session_length(g->session);
        g->prompt_at_ns = mfi_clock_ns();
        g->result.prompt_ns = g->prompt_at_ns - g->begin_ns;
        if (g->host->tokenizer)
            g->strip = mfi_tokenizer_strip(g->host->tokenizer,
                                           n_past ? mf_session_tokens(g->session)[n_past - 1] : -1);
    }
    mf_status status = next_token(g, &ended, &err);
    if (status == MF_OK && ended) {
        if (g->result.n_generated)
            show_rest(g, g->next);
        if (g->result.stop == MF_STOP_STRING)
            g->result.stop_string = mfi_stops_which(g->stops);
        g->result.incomplete =
            g->matcher && (g->result.stop == MF_STOP_STRING || !mfi_matcher_can_end(g->matcher));
        g->done = true;
    }
    g->has_next = status == MF_OK && !ended;
    g->result.decode_ns = mfi_clock_ns() - g->prompt_at_ns;
    if (status != MF_OK)
        mfi_generation_fail(g, status, &err);
}

static mf_status open_stops(mf_generation *g, mf_error *err)
{
    if (!g->host->tokenizer)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: stop strings need a tokenizer",
                        g->host->model_path);
    return mfi_stops_open(&g->stops, g->o.stop, g->o.n_stop, err);
}

static mf_status open_matcher(mf_generation *g, mf_error *err)
{
    if (!g->host->tokenizer)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: a grammar needs a tokenizer",
                        g->host->model_path);
    if (!g->host->trie)
        return mfi_fail(err, MF_ERR_STATE, "the engine was not opened with grammars");
    return mfi_matcher_open(&g->matcher, g->o.grammar, g->host->trie, g->host->eos,
                            g->o.ignore_eos ? 0 : g->host->n_eos, err);
}

static mf_status open_parts(mf_generation *g, mf_error *err)
{
    const mf_generate_options *o = &g->o;
    MFI_TRY(mfi_sampler_open(&g->sampler, &o->sampling, g->host->plan->program.shape.n_vocab, err));
    if (o->grammar)
        MFI_TRY(open_matcher(g, err));
    if (o->n_stop)
        MFI_TRY(open_stops(g, err));
    if (o->n_prompt == 0 && !mf_session_logits(g->session))
        return mfi_fail(err, MF_ERR_ARGUMENT, "an empty prompt: there is nothing to continue");
    MFI_TRY(mfi_session_check(g->session, o->prompt, o->n_prompt, err));
    const int32_t *past = mf_session_tokens(g->session);
    for (size_t i = 0; i < g->result.n_cached; i++)
        mfi_sampler_accept(g->sampler, past[i]);
    for (size_t i = 0; i < o->n_prompt; i++)
        mfi_sampler_accept(g->sampler, o->prompt[i]);
    return MF_OK;
}

mf_status mf_generation_begin(mf_generation **generation, mf_session *session,
                              const mf_generate_options *options, mf_error *err)
{
    if (options->struct_size != sizeof *options)
        return mfi_fail(err, MF_ERR_ARGUMENT, "generate options of another version of the header");
    if (options->n_top_logprobs > MF_TOP_LOGPROBS)
        return mfi_fail(err, MF_ERR_ARGUMENT, "n_top_logprobs: %u is not 0 to %d",
                        options->n_top_logprobs, MF_TOP_LOGPROBS);
    if (session->generating)
        return mfi_fail(err, MF_ERR_STATE, "this session has an answer under way already");
    mf_generation *g = calloc(1, sizeof *g);
    if (!g)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for an answer");
    g->session = session;
    g->host = session->host;
    g->o = *options;
    g->left = options->max_tokens;
    g->result = (mf_generate_result){.struct_size = sizeof g->result,
                                     .n_prompt = options->n_prompt,
                                     .n_cached = mf_session_length(session)};
    session->generating = true;
    mf_status status = open_parts(g, err);
    if (status == MF_OK)
        *generation = g;
    else
        mf_generation_end(&g);
    return status;
}

void mf_generation_end(mf_generation **generation)
{
    mf_generation *g = *generation;
    if (!g)
        return;
    g->session->generating = false;
    mfi_stops_close(&g->stops);
    mfi_matcher_close(&g->matcher);
    mfi_sampler_close(&g->sampler);
    mfi_buf_free(&g->whole);
    mfi_buf_free(&g->text);
    free(g);
    *generation = NULL;
}

bool mf_generation_done(const mf_generation *g)
{
    return g->done;
}

mf_status mf_generation_result(const mf_generation *g, mf_generate_result *result, mf_error *err)
{
    *result = g->result;
    return g->status == MF_OK ? MF_OK : mfi_fail(err, g->status, "%s", g->error.message);
}
