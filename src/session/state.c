/* What a session knows: its state after some number of tokens as a list of pieces of memory, in one
 * order whatever they lie in. From that follow rewinding, checkpoints, copies, and the content of
 * snapshots (snapshot.c). Runs on the engine's thread; allocates nothing but the pages of planned
 * checkpoints. */
#include <string.h>

#include "session/session_int.h"

/* The first position that the token at `length` looks back to through a window. */
static uint32_t window_begin(const mfi_layer_state *st, uint32_t length)
{
    return length >= st->window ? length - st->window + 1 : 0;
}

uint32_t mfi_state_list(const mf_session *s, const mfi_checkpoint *c, uint32_t n, mfi_state_parts p,
                        mfi_piece *out)
{
    const mfi_program *program = &s->plan->program;
    char *at = c ? c->mem.base : NULL;
    uint32_t n_out = 0;
    for (uint32_t i = 0; i < program->shape.n_layers; i++) {
        const mfi_layer_state *st = &program->state[i];
        char *kv = (char *)s->mem[i].kv;
        if (st->kv_ring) {
            uint32_t begin = window_begin(st, n), rows = n - begin, row = begin % st->kv_ring;
            uint32_t first = c ? rows : MFI_MIN(rows, st->kv_ring - row);
            out[n_out++] =
                (mfi_piece){c ? at : kv + row * st->kv_pos_bytes, first * st->kv_pos_bytes};
            if (first < rows) /* the ring's end lies between */
                out[n_out++] = (mfi_piece){kv, (rows - first) * st->kv_pos_bytes};
            at += c ? (st->window - 1) * st->kv_pos_bytes : 0;
        } else if (st->kv_pos_bytes && p.kv) {
            out[n_out++] = (mfi_piece){kv, n * st->kv_pos_bytes};
        }
        if (st->recurrent_bytes) {
            out[n_out++] = (mfi_piece){c ? at : (char *)s->mem[i].recurrent, st->recurrent_bytes};
            at += c ? st->recurrent_bytes : 0;
        }
    }
    if (p.logits)
        out[n_out++] =
            (mfi_piece){c ? at : (char *)s->logits, program->shape.n_vocab * sizeof(float)};
    return n_out;
}

bool mfi_state_on_host(const mf_session *s)
{
    const mfi_device_ops *device = s->host->backend->device;
    return !device || !device->move;
}

mf_status mfi_state_move(const mf_session *s, void *dst, const void *src, uint64_t bytes,
                         mf_error *err)
{
    mfi_backend *b = s->host->backend;
    if (!mfi_state_on_host(s))
        return b->device->move(b, dst, src, bytes, err);
    memcpy(dst, src, (size_t)bytes);
    return MF_OK;
}

/* The bytes of one list into another, however they are cut. */
static mf_status copy_pieces(const mf_session *s, const mfi_piece *dst, uint32_t n_dst,
                             const mfi_piece *src, uint32_t n_src, mf_error *err)
{
    uint64_t done = 0; /* of dst[0] */
    for (uint32_t i = 0; i < n_src; i++) {
        const char *from = src[i].at;
        uint64_t left = src[i].bytes;
        while (left > 0) {
            while (n_dst > 0 && done == dst->bytes) {
                dst++, n_dst--;
                done = 0;
            }
            MFI_ASSERT(n_dst > 0);
            uint64_t n = MFI_MIN(left, dst->bytes - done);
            MFI_TRY(mfi_state_move(s, (char *)dst->at + done, from, n, err));
            from += n;
            left -= n;
            done += n;
        }
    }
    return MF_OK;
}

/* ---- what is at hand ---- */

/* Whole KV can be cut at any position; a recurrent state holds all tokens or none. Rings have
 * written over the positions before `oldest`, and the token at `length` looks back over a window.
 */
static bool can_cut(const mf_session *s, uint32_t length)
{
    for (uint32_t i = 0; i < s->plan->program.shape.n_layers; i++) {
        const mfi_layer_state *st = &s->plan->program.state[i];
        if (st->recurrent_bytes || (st->kv_ring && window_begin(st, length) < s->oldest))
            return false;
    }
    return true;
}

bool mfi_state_can_cut(const mfi_plan *plan)
{
    return plan->checkpoint_bytes == 0;
}

uint32_t mfi_state_reach(const mf_session *s, uint32_t most, const mfi_checkpoint **c)
{
    *c = NULL;
    most = MFI_MIN(most, s->length);
    if ((most == s->length && !s->broken) || can_cut(s, most))
        return most;
    uint32_t best = 0;
    for (uint32_t i = 0; i < s->plan->n_checkpoints; i++)
        if (s->checkpoints[i].n > best && s->checkpoints[i].n <= most) {
            *c = &s->checkpoints[i];
            best = (*c)->n;
        }
    return best;
}

bool mfi_state_has_logits(const mf_session *s, const mfi_checkpoint *c, uint32_t n)
{
    return c ? c->has_logits : s->has_logits && !s->broken && n == s->length;
}

uint32_t mfi_state_prefix(const mf_session *s, const int32_t *tokens, size_t n_tokens,
                          const mfi_checkpoint **c)
{
    uint32_t same = 0;
    while (same < s->length && same < n_tokens && s->tokens[same] == tokens[same])
        same++;
    uint32_t n = mfi_state_reach(s, same, c);
    /* Without logits after the last token, the last one has to be evaluated once more. */
    if (n == n_tokens && n > 0 && !mfi_state_has_logits(s, *c, n))
        n = mfi_state_reach(s, n - 1, c);
    return n;
}

/* ---- going back ---- */

static void forget_checkpoints(mf_session *s, uint32_t after)
{
    for (uint32_t i = 0; i < s->plan->n_checkpoints; i++)
        if (s->checkpoints[i].n > after)
            s->checkpoints[i].n = 0;
}

static void set_length(mf_session *s, uint32_t n, bool has_logits)
{
    s->length = n;
    s->has_logits = has_logits;
    s->broken = false;
}

/* Rings hold no more than the window before n. */
static uint32_t oldest_at(const mf_session *s, uint32_t n)
{
    uint32_t window = s->plan->program.shape.window;
    return window && n >= window ? n - window + 1 : 0;
}

void mf_session_reset(mf_session *s)
{
    const mfi_device_ops *device = s->host->backend->device;
    bool lost = false;
    for (uint32_t i = 0; i < s->plan->program.shape.n_layers; i++) {
        uint64_t bytes = s->plan->program.state[i].recurrent_bytes;
        if (bytes && !device)
            memset(s->mem[i].recurrent, 0, bytes);
        else if (bytes)
            lost |=
                device->state_clear(s->host->backend, s->mem[i].recurrent, bytes, NULL) != MF_OK;
    }
    set_length(s, 0, false);
    s->broken = lost; /* nothing will work on that device again */
    s->oldest = 0;
    forget_checkpoints(s, 0);
}

void mfi_state_rewind(mf_session *s, uint32_t n, const mfi_checkpoint *c)
{
    bool has_logits = mfi_state_has_logits(s, c, n);
    if (n == 0) {
        mf_session_reset(s);
        return;
    }
    if (c) {
        const mfi_state_parts rest = {.logits = true};
        mf_status status = mfi_state_wait(s, NULL);
        uint32_t n_src = mfi_state_list(s, c, n, rest, s->pieces);
        uint32_t n_dst = mfi_state_list(s, NULL, n, rest, s->pieces + n_src);
        if (status == MF_OK)
            status = copy_pieces(s, s->pieces + n_src, n_dst, s->pieces, n_src, NULL);
        if (status != MF_OK) {
            mf_session_reset(s);
            return;
        }
        s->oldest = oldest_at(s, n);
    }
    set_length(s, n, has_logits);
    forget_checkpoints(s, n);
}

mf_status mf_session_sync(mf_session *s, const int32_t *tokens, size_t n_tokens, size_t *n_kept,
                          mf_error *err)
{
    const mfi_checkpoint *c;
    if (n_tokens > s->plan->ctx)
        return mfi_fail(err, MF_ERR_CONTEXT, "%zu tokens don't fit into a context of %u", n_tokens,
                        s->plan->ctx);
    uint32_t n = mfi_state_prefix(s, tokens, n_tokens, &c);
    if (n < s->length || s->broken)
        mfi_state_rewind(s, n, c);
    *n_kept = s->length;
    return MF_OK;
}

/* ---- checkpoints ---- */

/* One that is free, or the one that costs least to do without: the nearest behind another. The
 * last one stays, since that is where a conversation goes on. */
static mfi_checkpoint *choose_place(mf_session *s)
{
    mfi_checkpoint *best = NULL;
    uint32_t best_cost = UINT32_MAX, last = 0, k = s->plan->n_checkpoints;
    for (uint32_t i = 0; i < k; i++)
        last = MFI_MAX(last, s->checkpoints[i].n);
    for (uint32_t i = 0; i < k; i++) {
        mfi_checkpoint *c = &s->checkpoints[i];
        uint32_t before = 0;
        if (c->n == 0)
            return c;
        for (uint32_t j = 0; j < k; j++)
            if (s->checkpoints[j].n < c->n)
                before = MFI_MAX(before, s->checkpoints[j].n);
        if ((c->n != last || k == 1) && c->n - before < best_cost) {
            best = c;
            best_cost = c->n - before;
        }
    }
    return best;
}

void mfi_state_checkpoint(mf_session *s)
{
    mf_error err;
    const mfi_state_parts rest = {.logits = true};
    if (s->plan->n_checkpoints == 0 || s->length == 0 || s->broken)
        return;
    if (mfi_state_wait(s, &err) != MF_OK)
        return;
    mfi_checkpoint *c = NULL;
    for (uint32_t i = 0; i < s->plan->n_checkpoints && !c; i++)
        if (s->checkpoints[i].n == s->length)
            c = &s->checkpoints[i];
    if (c && c->has_logits >= s->has_logits)
        return;
    if (!c)
        c = choose_place(s);
    c->n = 0;
    if (mfi_vmem_commit(&c->mem, c->mem.reserved, &err) != MF_OK)
        return; /* it is there to save work, no more */
    uint32_t n_src = mfi_state_list(s, NULL, s->length, rest, s->pieces);
    uint32_t n_dst = mfi_state_list(s, c, s->length, rest, s->pieces + n_src);
    if (copy_pieces(s, s->pieces + n_src, n_dst, s->pieces, n_src, &err) != MF_OK)
        return;
    c->n = s->length;
    c->has_logits = s->has_logits;
}

/* ---- copies ---- */

mf_status mfi_state_wait(const mf_session *s, mf_error *err)
{
    mfi_backend *b = s->host->backend;
    return b->device ? b->sync(b, err) : MF_OK;
}

mf_status mfi_state_begin(mf_session *s, uint32_t n, mf_error *err)
{
    MFI_TRY(mfi_session_commit(s, n, err));
    forget_checkpoints(s, 0);
    s->broken = true;
    return MF_OK;
}

void mfi_state_end(mf_session *s, uint32_t n, bool has_logits)
{
    set_length(s, n, has_logits);
    s->oldest = oldest_at(s, n);
}

mf_status mfi_state_copy(mf_session *dst, const mf_session *src, uint32_t n,
                         const mfi_checkpoint *c, mf_error *err)
{
    const mfi_state_parts all = {.kv = true, .logits = true};
    MFI_TRY(mfi_state_wait(dst, err));
    MFI_TRY(mfi_state_begin(dst, n, err));
    uint32_t n_src = mfi_state_list(src, c, n, all, dst->pieces);
    uint32_t n_dst = mfi_state_list(dst, NULL, n, all, dst->pieces + n_src);
    MFI_TRY(copy_pieces(dst, dst->pieces + n_src, n_dst, dst->pieces, n_src, err));
    memcpy(dst->tokens, src->tokens, n * sizeof *dst->tokens);
    mfi_state_end(dst, n, mfi_state_has_logits(src, c, n));
    return MF_OK;
}

mf_status mf_session_copy(mf_session *dst, const mf_session *src, size_t n_tokens, mf_error *err)
{
    const mfi_checkpoint *c;
    if (dst == src || dst->host != src->host || dst->generating)
        return mfi_fail(
            err, MF_ERR_ARGUMENT,
            "a copy goes to another session of the engine, without an answer under way");
    if (n_tokens > src->length)
        return mfi_fail(err, MF_ERR_ARGUMENT, "%zu tokens of a timeline of %u can't be copied",
                        n_tokens, src->length);
    if (n_tokens == 0) {
        mf_session_reset(dst);
        return MF_OK;
    }
    if (mfi_state_reach(src, (uint32_t)n_tokens, &c) != n_tokens)
        return mfi_fail(err, MF_ERR_STATE,
                        "the state after %zu of %u tokens is gone: the model's layers keep theirs "
                        "after the last one only",
                        n_tokens, src->length);
    return mfi_state_copy(dst, src, (uint32_t)n_tokens, c, err);
}
