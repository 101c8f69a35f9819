/* Passes on a device that looks up itself where experts are. A span goes on over routers, and waits
 * for nobody while every expert that is chosen has its slot. Where one is missing the device stops
 * by itself, with all as it was when that router had chosen; the host takes the layer's experts its
 * ordinary way, and the next span goes on behind them. What the device looked up is told to store,
 * trace and whoever watches after the span, layer by layer, as if the host had stopped there:
 * nothing goes in or out of slots while a span is under way. Called by the forward pass, on its
 * thread. */
#include "base/clock.h"
#include "forward/forward_int.h"

static void moved(void *user, uint32_t layer, uint32_t expert, const void *data)
{
    mfi_forward *f = user;
    f->lookup->place(f->backend, layer, expert, data);
}

void mfi_forward_look_open(mfi_forward *f)
{
    f->lookup = f->backend->device ? f->backend->device->lookup : NULL;
    f->span = 1;
    f->missing = 1;
    if (f->lookup)
        mfi_store_on_move(f->store, moved, f);
}

void mfi_forward_look_close(mfi_forward *f)
{
    if (f->lookup)
        mfi_store_on_move(f->store, NULL, NULL);
}

/* Ops that somebody watches run one by one; many tokens choose so much that something is missing in
 * every layer. */
bool mfi_forward_looks(const mfi_forward *f, const mfi_step *step)
{
    return f->lookup && !f->settled && !f->tap && !f->times && step->n_tok <= MFI_MAX_LOOKUP_TOK;
}

#define LATE        32    /* layers that `missing` looks back over */
#define MISSING_MAX 0.35f /* up to which a cautious device looks up */

/* How many layers the next span has after one of n_met that had everything and, if `missed`, one
 * that hadn't. A cautious device: as many as meet everything on average (docs/cuda.md has the sum).
 * Others: twice as many after a span that met all its experts, half as many after another, since
 * what is behind a miss in its span is launched for nothing (docs/metal.md). */
static void adapt(mfi_forward *f, uint32_t n_met, bool missed)
{
    uint32_t most = 2 * (f->p->shape.n_layers + 1);
    if (!f->lookup->cautious) {
        f->span = missed ? MFI_MAX(f->span / 2, 1) : MFI_MIN(2 * f->span, most);
        return;
    }
    for (uint32_t i = 0; i < n_met; i++)
        f->missing -= f->missing / LATE;
    if (missed)
        f->missing += (1 - f->missing) / LATE;
    f->span = f->missing > MISSING_MAX ? 1 : (uint32_t)MFI_MIN(1 / f->missing, (float)most);
}

/* Where a span from op `at` on ends: behind the span'th router, where the host looks itself, or at
 * the head. */
static uint32_t span_end(const mfi_forward *f, uint32_t at)
{
    uint32_t n = f->span;
    while (at < f->p->head_first && !(f->p->ops[at].code == MFI_OP_ROUTE && --n == 0))
        at++;
    return at < f->p->head_first ? at + 1 : at;
}

/* Runs a span, and the head behind the last one; *layer: where the device stopped by itself. */
static mf_status run_looking(mfi_forward *f, uint32_t first, uint32_t end, const mfi_step *step,
                             bool with_head, uint32_t *layer, mf_error *err)
{
    const mfi_program *p = f->p;
    uint64_t begin_ns = mfi_clock_ns();
    mf_status status = f->lookup->run(f->backend, first, end - first, step, err);
    if (status == MF_OK && with_head && end == p->head_first)
        status = f->backend->run(f->backend, end, p->n_ops - end, step, err);
    if (status == MF_OK)
        status = f->lookup->stopped(f->backend, layer, err);
    f->arith_ns += mfi_clock_ns() - begin_ns;
    return status == MF_OK ? mfi_forward_reclaim(f, false, err) : status;
}

/* A layer that the device looked up: uses of experts that are all in their slots. */
static mf_status count_layer(mfi_forward *f, uint32_t layer, const mfi_step *step, mf_error *err)
{
    mfi_forward_choices(f, layer, step, f->lookup->chosen(f->backend, layer));
    while (f->next < f->n_wanted) {
        MFI_TRY(mfi_forward_acquire(f, layer, err));
        for (uint32_t i = 0; i < f->n_held; i++)
            MFI_ASSERT(f->refs[i].ready);
        mfi_store_release(f->store, f->refs, f->n_held);
        f->n_held = 0;
    }
    return MF_OK;
}

/* A span from op *at on, and the experts of the layer that it ended in; moves *at behind them. */
static mf_status run_one(mfi_forward *f, uint32_t *at, mfi_step *step, bool with_head,
                         mf_error *err)
{
    const mfi_program *p = f->p;
    uint32_t end = span_end(f, *at), stopped, layer = 0, i = *at;
    uint32_t n_routers = 0; /* what stands behind the last layer's is no layer */
    MFI_TRY(run_looking(f, i, end, step, with_head, &stopped, err));
    for (; i < end; i++) {
        if (p->ops[i].code != MFI_OP_ROUTE)
            continue;
        layer = p->ops[i].layer;
        n_routers++;
        if (i + 1 == end || layer == stopped)
            break;
        MFI_TRY(count_layer(f, layer, step, err));
    }
    *at = end;
    if (i < end) {
        uint32_t experts = mfi_forward_experts_of(f, i);
        mfi_forward_choices(f, layer, step,
                            layer == stopped ? f->lookup->chosen(f->backend, layer)
                                             : f->backend->view(f->backend, MFI_BUF_IDS));
        adapt(f, n_routers - !f->cached, !f->cached);
        MFI_TRY(mfi_forward_experts(f, i + 1, experts, step, err));
        *at = experts + 1;
    } else {
        adapt(f, n_routers, false);
    }
    return n_routers > 0 ? mfi_forward_ticked(f, layer, err) : MF_OK;
}

mf_status mfi_forward_look(mfi_forward *f, mfi_step *step, bool with_head, mf_error *err)
{
    mf_status status = MF_OK;
    uint32_t layer;
    for (uint32_t at = 0; status == MF_OK && at < f->p->head_first;)
        status = run_one(f, &at, step, with_head, err);
    if (status != MF_OK) /* what follows is not to be stopped by it */
        (void)f->lookup->stopped(f->backend, &layer, NULL);
    return status;
}
