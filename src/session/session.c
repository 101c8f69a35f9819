/* Sessions: state memory, appending tokens, generating. Runs on the engine's thread. State is
 * reserved at open; KV pages are committed in steps as the timeline grows. */
#include "session/session_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define KV_STEP 256        /* positions committed at a time */
#define TICK_NS 100000000u /* between two reports of progress */

/* State of one layer: reserved where the host computes, all there on a device. */
static mf_status open_layer(mf_session *s, uint32_t i, mf_error *err)
{
    const mfi_layer_state *st = &s->plan->program.state[i];
    const mfi_device_ops *device = s->host->backend->device;
    uint64_t kv_bytes = st->kv_pos_bytes * mfi_kv_rows(st, s->plan->ctx);
    if (device) {
        void *kv = NULL, *recurrent = NULL;
        mf_status status = MF_OK;
        if (kv_bytes)
            status = device->state_alloc(s->host->backend, kv_bytes, &kv, err);
        if (status == MF_OK && st->recurrent_bytes)
            status = device->state_alloc(s->host->backend, st->recurrent_bytes, &recurrent, err);
        s->mem[i] = (mfi_layer_mem){kv, recurrent};
        return status;
    }
    if (kv_bytes)
        MFI_TRY(mfi_vmem_reserve(&s->kv[i], (size_t)kv_bytes, err));
    if (st->recurrent_bytes) {
        MFI_TRY(mfi_vmem_reserve(&s->recurrent[i], (size_t)st->recurrent_bytes, err));
        MFI_TRY(mfi_vmem_commit(&s->recurrent[i], (size_t)st->recurrent_bytes, err));
    }
    s->mem[i] = (mfi_layer_mem){s->kv[i].base, s->recurrent[i].base};
    return MF_OK;
}

static void close_layer(mf_session *s, uint32_t i)
{
    const mfi_device_ops *device = s->host->backend->device;
    if (device && s->mem) {
        device->state_free(s->host->backend, s->mem[i].kv);
        device->state_free(s->host->backend, s->mem[i].recurrent);
    }
    if (s->kv)
        mfi_vmem_release(&s->kv[i]);
    if (s->recurrent)
        mfi_vmem_release(&s->recurrent[i]);
}

mf_status mf_session_open(mf_session **session, mf_engine *engine, mf_error *err)
{
    mfi_session_host *host = mfi_engine_session_host(engine);
    if (host->n_sessions == host->plan->n_sessions)
        return mfi_fail(err, MF_ERR_STATE,
                        "this engine has %u sessions already; its plan has room for no more",
                        host->n_sessions);
    const mfi_program *p = &host->plan->program;
    uint32_t n_layers = p->shape.n_layers;
    mf_session *s = calloc(1, sizeof *s);
    if (!s)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a session");
    s->host = host;
    s->plan = host->plan;
    s->mem = calloc(n_layers, sizeof *s->mem);
    s->kv = calloc(n_layers, sizeof *s->kv);
    s->recurrent = calloc(n_layers, sizeof *s->recurrent);
    s->tokens = calloc(host->plan->ctx, sizeof *s->tokens);
    s->logits = calloc(p->shape.n_vocab, sizeof *s->logits);
    s->checkpoints = calloc(s->plan->n_checkpoints + 1, sizeof *s->checkpoints);
    s->pieces = calloc(2 * (MFI_LAYER_PIECES * (size_t)n_layers + 1), sizeof *s->pieces);
    mf_status status = MF_OK;
    if (!s->mem || !s->kv || !s->recurrent || !s->tokens || !s->logits || !s->checkpoints ||
        !s->pieces)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a session of %u positions",
                          s->plan->ctx);
    for (uint32_t i = 0; status == MF_OK && i < n_layers; i++)
        status = open_layer(s, i, err);
    for (uint32_t i = 0; status == MF_OK && i < s->plan->n_checkpoints; i++)
        status = mfi_vmem_reserve(&s->checkpoints[i].mem, (size_t)s->plan->checkpoint_bytes, err);
    s->next = host->sessions;
    host->sessions = s;
    host->n_sessions++;
    if (status != MF_OK) {
        mf_session_close(&s);
        return status;
    }
    *session = s;
    return MF_OK;
}

void mf_session_close(mf_session **session)
{
    mf_session *s = *session;
    if (!s)
        return;
    MFI_ASSERT(!s->generating);
    mf_session **link = &s->host->sessions;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    s->host->n_sessions--;
    for (uint32_t i = 0; i < s->plan->program.shape.n_layers; i++)
        close_layer(s, i);
    for (uint32_t i = 0; s->checkpoints && i < s->plan->n_checkpoints; i++)
        mfi_vmem_release(&s->checkpoints[i].mem);
    free(s->checkpoints);
    free(s->pieces);
    free(s->mem);
    free(s->kv);
    free(s->recurrent);
    free(s->tokens);
    free(s->logits);
    free(s);
    *session = NULL;
}

size_t mf_session_length(const mf_session *s)
{
    return s->length;
}

const float *mf_session_logits(const mf_session *s)
{
    return s->has_logits ? s->logits : NULL;
}

static mf_status commit_layer(mfi_vmem *kv, const mfi_layer_state *st, uint32_t positions,
                              mf_error *err)
{
    return mfi_vmem_commit(kv, (size_t)st->kv_pos_bytes * mfi_kv_rows(st, positions), err);
}

mf_status mfi_session_commit(mf_session *s, uint32_t positions, mf_error *err)
{
    uint32_t want = MFI_MIN((uint32_t)mfi_align_up(positions, KV_STEP), s->plan->ctx);
    for (uint32_t i = 0; i < s->plan->program.shape.n_layers; i++)
        if (s->kv[i].base)
            MFI_TRY(commit_layer(&s->kv[i], &s->plan->program.state[i], want, err));
    return MF_OK;
}

mf_status mfi_session_check(const mf_session *s, const int32_t *tokens, size_t n, mf_error *err)
{
    uint32_t n_vocab = s->plan->program.shape.n_vocab;
    if (s->broken)
        return mfi_fail(err, MF_ERR_STATE,
                        "an evaluation failed earlier; sync or reset the session first");
    if (n > s->plan->ctx - s->length)
        return mfi_fail(err, MF_ERR_CONTEXT,
                        "%zu tokens don't fit: %u of %u positions are taken (a larger context: -c)",
                        n, s->length, s->plan->ctx);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= n_vocab)
            return mfi_fail(err, MF_ERR_ARGUMENT, "token %zu is %d; the model has ids from 0 to %u",
                            i, tokens[i], n_vocab - 1);
    return MF_OK;
}

/* Rings have been written up to `ahead` positions behind the last token. */
static void written(mf_session *s, uint32_t ahead)
{
    const mfi_program *p = &s->plan->program;
    uint32_t ring = p->shape.window ? p->shape.window - 1 + p->chunk : 0, end = s->length + ahead;
    if (ring && end > ring)
        s->oldest = MFI_MAX(s->oldest, end - ring);
}

static void append(mf_session *s, const int32_t *tokens, uint32_t n)
{
    memcpy(s->tokens + s->length, tokens, n * sizeof *tokens);
    s->length += n;
    written(s, 0);
}

/* The forward pass has them until its next run, which may be another session's. */
static void keep_logits(mf_session *s, uint32_t i)
{
    memcpy(s->logits, mfi_forward_logits(s->host->forward, i),
           s->plan->program.shape.n_vocab * sizeof *s->logits);
    s->has_logits = true;
}

/* How far an evaluation of several tokens is, told from time to time while its layers are done. */
typedef struct report {
    const mf_session *s;
    size_t at, len, n; /* tokens before this chunk, in it, in all */
    uint64_t last_ns;
} report;

static bool tell(void *user, uint32_t n_layers)
{
    report *r = user;
    const mfi_session_host *host = r->s->host;
    uint64_t now_ns = mfi_clock_ns();
    if (now_ns - r->last_ns < TICK_NS)
        return true;
    r->last_ns = now_ns;
    size_t done = r->at + r->len * n_layers / r->s->plan->program.shape.n_layers;
    return host->progress(host->progress_user, "prompt", "tokens", done, r->n);
}

static mf_status eval_chunks(mf_session *s, const int32_t *tokens, size_t n,
                             const mf_eval_outputs *outputs, report *r, mf_error *err)
{
    bool all = outputs && (outputs->on_logits || outputs->on_hidden);
    bool tell_chunks = s->host->progress && n > s->plan->chunk;
    for (size_t at = 0; at < n;) {
        uint32_t len = (uint32_t)MFI_MIN(n - at, s->plan->chunk);
        if (n > 1)
            mfi_state_checkpoint(s);
        s->has_logits = false;
        r->at = at;
        r->len = len;
        mfi_want want = all ? MFI_WANT_ALL : at + len == n ? MFI_WANT_LAST : MFI_WANT_NOTHING;
        mfi_run run = {tokens + at, len, s->length, s->mem, want};
        MFI_TRY(mfi_forward_run(s->host->forward, &run, 1, outputs, at, err));
        append(s, tokens + at, len);
        at += len;
        if (tell_chunks && !s->host->progress(s->host->progress_user, "prompt", "tokens", at, n) &&
            at < n)
            return mfi_fail(err, MF_ERR_CANCELLED, "cancelled after %zu of %zu prompt tokens", at,
                            n);
    }
    return MF_OK;
}

mf_status mf_session_eval(mf_session *s, const int32_t *tokens, size_t n_tokens,
                          const mf_eval_outputs *outputs, mf_error *err)
{
    MFI_TRY(mfi_session_check(s, tokens, n_tokens, err));
    if (n_tokens == 0)
        return MF_OK;
    MFI_TRY(mfi_session_commit(s, s->length + (uint32_t)n_tokens, err));
    report r = {.s = s, .n = n_tokens, .last_ns = mfi_clock_ns()};
    if (s->host->progress && n_tokens > 1)
        mfi_forward_on_layer(s->host->forward, tell, &r);
    mf_status status = eval_chunks(s, tokens, n_tokens, outputs, &r, err);
    mfi_forward_on_layer(s->host->forward, NULL, NULL);
    s->broken = status != MF_OK;
    s->has_logits = false;
    if (s->broken)
        written(s, s->plan->chunk);
    else
        keep_logits(s, 0);
    if (n_tokens > 1)
        mfi_state_checkpoint(s);
    return status;
}

mf_status mfi_session_pass(const mfi_part *parts, uint32_t n_parts,
                           const mfi_prompt_progress *progress, mf_error *err)
{
    mfi_run runs[MFI_MAX_SESSIONS];
    report r;
    if (n_parts == 0)
        return MF_OK;
    const mfi_session_host *host = parts[0].session->host;
    MFI_ASSERT(n_parts <= MFI_MAX_SESSIONS);
    mf_status status = MF_OK;
    for (uint32_t i = 0; i < n_parts && status == MF_OK; i++) {
        mf_session *s = parts[i].session;
        if (parts[i].mark)
            mfi_state_checkpoint(s);
        s->has_logits = false;
        runs[i] = (mfi_run){parts[i].tokens, parts[i].n, s->length, s->mem,
                            parts[i].logits ? MFI_WANT_LAST : MFI_WANT_NOTHING};
        status = mfi_session_commit(s, s->length + parts[i].n, err);
    }
    if (progress && parts[0].n > 1 && host->progress) {
        r = (report){parts[0].session, progress->at, parts[0].n, progress->n, mfi_clock_ns()};
        mfi_forward_on_layer(host->forward, tell, &r);
    }
    if (status == MF_OK)
        status = mfi_forward_run(host->forward, runs, n_parts, NULL, 0, err);
    mfi_forward_on_layer(host->forward, NULL, NULL);
    for (uint32_t i = 0, n_logits = 0; i < n_parts; i++) {
        mf_session *s = parts[i].session;
        s->broken = status != MF_OK;
        if (s->broken) {
            written(s, parts[i].n);
            continue;
        }
        append(s, parts[i].tokens, parts[i].n);
        if (parts[i].logits)
            keep_logits(s, n_logits++);
    }
    return status;
}

const int32_t *mf_session_tokens(const mf_session *s)
{
    return s->tokens;
}
