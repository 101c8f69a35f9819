/* Making the plan; see plan.h. Pure: the same inputs give the same plan, and nothing but the plan's
 * own tables is allocated. */
#include "plan/plan_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/io.h"

/* What the process grows by after the plan stands, beside what is planned: stdio, pages of code and
 * libraries that run for the first time, small tables of the application. Measured: 0.2 MiB. */
#define PROCESS_GROWTH_BYTES MFI_MIB
/* By which the resident process differs from run to run (measured: 0.3 MiB). */
#define PROCESS_NOISE_BYTES (512 * MFI_KIB)
/* Of a stack what is touched (40 KiB of kernels, 4 of the C library) and the kernel's part. */
#define THREAD_BYTES (68 * MFI_KIB)
#define CTX_AUTO_MAX 8192
#define CTX_AUTO_MIN 512

typedef mfi_plan_sizes sizes; /* of one candidate (ctx, chunk) */

static const char *mib(uint64_t bytes, char *text, size_t cap)
{
    snprintf(text, cap, "%.1f MiB", (double)bytes / (double)MFI_MIB);
    return text;
}

/* ---- inputs ---- */

static void choose_budget(mfi_plan *plan, const mfi_machine *m, const mfi_plan_options *o)
{
    char a[32], b[32];
    if (o->memory_bytes) {
        plan->budget_bytes = o->memory_bytes;
        snprintf(plan->budget_reason, sizeof plan->budget_reason, "as asked");
        return;
    }
    uint64_t room = m->mem_available;
    const char *why = "free memory";
    if (m->cgroup_limit != UINT64_MAX) {
        uint64_t left = m->cgroup_limit > m->cgroup_used ? m->cgroup_limit - m->cgroup_used : 0;
        if (left < room) {
            room = left;
            why = "what the cgroup leaves";
        }
    }
    /* A tenth stays free, so that this machine doesn't start to reclaim because of us. */
    plan->budget_bytes = m->rss_bytes + room / 10 * 9;
    /* Code that others have in memory, too, is resident here and charged to them. */
    plan->budget_bytes = MFI_MIN(plan->budget_bytes, m->cgroup_limit);
    snprintf(plan->budget_reason, sizeof plan->budget_reason,
             "nine tenths of %s (%s), with the %s in use", why, mib(room, a, sizeof a),
             mib(m->rss_bytes, b, sizeof b));
}

static void choose_threads(mfi_plan *plan, const mfi_machine *m, const mfi_plan_options *o)
{
    /* Siblings share what a kernel keeps busy, and ranges are static: the slowest decides. Few
     * cores keep them: one of two may wait for memory while the other computes. */
    const bool cores = m->n_cores >= MFI_CORES_FOR_ONE_EACH && m->n_cores < m->n_cpus;
    plan->n_threads =
        o->n_threads ? o->n_threads : MFI_MIN(cores ? m->n_cores : m->n_cpus, MFI_MAX_THREADS);
    plan->n_io_threads = o->n_io_threads ? o->n_io_threads : 4;
    snprintf(plan->threads_reason, sizeof plan->threads_reason, "%s; %u readers%s",
             o->n_threads ? "as asked"
             : cores      ? "one a core of this process"
                          : "one a processor of this process",
             plan->n_io_threads,
             o->n_io_threads ? " as asked" : ": they only wait, and drives want a few requests");
}

/* What readers hold while they read, and what writing holds. */
#define WRITE_CACHE_PART 4
uint64_t mfi_plan_page_cache_min(const mfi_plan *plan)
{
    uint64_t reads =
        MFI_MAX(MFI_PAGE_CACHE_BYTES_MIN, plan->n_io_threads * MFI_IO_READER_CACHE_BYTES);
    return plan->keeps ? reads + reads / WRITE_CACHE_PART : reads;
}

static void see_bits(mfi_plan *plan, mfi_qtype type, uint8_t bits, bool *quantised)
{
    if (mfi_qtype_is_float(type))
        return;
    *quantised = true;
    if (bits)
        plan->x_bits_min = MFI_MIN(plan->x_bits_min, bits);
}

/* What became of the choice with this model's weights. */
static void explain_activations(mfi_plan *plan)
{
    const mfi_program *p = &plan->program;
    bool quantised = false;
    plan->x_bits_min = 32;
    for (uint32_t i = 0; i < p->n_weights; i++)
        see_bits(plan, p->weights[i].type, p->weights[i].x_bits, &quantised);
    for (uint32_t i = 0; i < p->shape.n_layers; i++) {
        if (p->experts[i].bytes == 0)
            continue;
        const mfi_expert_layout *l = &p->experts[i];
        see_bits(plan, l->proj[MFI_EXPERT_GATE].type, l->in_bits, &quantised);
        see_bits(plan, l->proj[MFI_EXPERT_DOWN].type, l->mid_bits, &quantised);
    }
    char *reason = plan->activations_reason;
    if (!quantised)
        snprintf(reason, MFI_PLAN_REASON_BYTES, "float weights meet float activations");
    else if (plan->device[0])
        snprintf(reason, MFI_PLAN_REASON_BYTES, "devices multiply with float activations");
    else if (plan->activations != MF_ACTIVATIONS_AUTO)
        snprintf(reason, MFI_PLAN_REASON_BYTES, "as asked");
    else if (plan->x_bits_min == 8)
        snprintf(reason, MFI_PLAN_REASON_BYTES,
                 "where weights have up to %u bits: it costs less than a tenth of what they do; "
                 "q16 for finer ones",
                 MFI_Q8_AUTO_MAX_BITS);
    else if (plan->x_bits_min == 16)
        snprintf(reason, MFI_PLAN_REASON_BYTES,
                 "these weights are finer than 8-bit activations; 16 bits cost next to nothing");
    else
        snprintf(reason, MFI_PLAN_REASON_BYTES, "these weights have no integer form");
}

const char *mfi_plan_activations(const mfi_plan *plan)
{
    return plan->x_bits_min == 8 ? "q8" : plan->x_bits_min == 16 ? "q16" : "f32";
}

const char *mfi_plan_cache_type(const mfi_plan *plan, int values)
{
    static const char *const names[] = {"f32", "f16", "q8_0"};
    return names[plan->cache_type[values]];
}

/* ---- sizes ---- */

/* State is every session's own. */
void mfi_plan_measure(const mfi_model *model, const mfi_program *p, uint32_t ctx,
                      uint32_t n_sessions, sizes *z)
{
    *z = (sizes){.scratch = p->scratch_bytes};
    for (uint32_t i = 0; i < model->shape.n_layers; i++) {
        if (p->state[i].kv_pos_bytes)
            z->kv += mfi_align_up(p->state[i].kv_pos_bytes * mfi_kv_rows(&p->state[i], ctx), 4096);
        if (p->state[i].recurrent_bytes)
            z->state += mfi_align_up(p->state[i].recurrent_bytes, 4096);
    }
    z->kv *= n_sessions;
    z->state *= n_sessions;
}

#define CHECKPOINT_PART     16  /* of what is free: so much checkpoints may take */
#define PART_BYTES          24  /* where one plane of one matrix of an expert lies */
#define KEY_BYTES           16  /* what store and policy know of an expert */
#define SLOT_TABLE_BYTES    64  /* bookkeeping of a slot in store and policy */
#define PAIR_TABLE_BYTES    8   /* forward: a (token, rank) choice, and where it stands */
#define ROW_TABLE_BYTES     10  /* forward: a token, its sequence, and a row of the head */
#define LAYER_TABLE_BYTES   256 /* the store's and one session's, beside the program */
#define SESSION_LAYER_BYTES 256 /* each session's */
#define SAMPLER_TOKEN_BYTES 16

static uint32_t held_max(const mfi_shape *shape, uint32_t n_slots)
{
    return MFI_MIN(MFI_MIN(n_slots, shape->n_experts), MFI_MAX_HELD);
}

/* A few slots of many; where there are few, each is worth more as cache. */
static uint32_t hints_max(uint32_t n_slots)
{
    return MFI_MIN(n_slots / 16, MFI_MAX_HINTS);
}

uint32_t mfi_plan_hints_max(const mfi_plan *plan)
{
    return hints_max(plan->n_slots);
}

uint32_t mfi_plan_held_max(const mfi_plan *plan)
{
    return held_max(&plan->program.shape, plan->n_slots);
}

/* The program itself, with what backends keep beside it. */
static uint64_t program_bytes(const mfi_program *p)
{
    uint64_t layers = p->shape.n_layers;
    return (p->n_ops + p->n_hint_ops) * (uint64_t)sizeof *p->ops +
           p->n_weights * (sizeof *p->weights + 64) +
           layers * (sizeof *p->experts + sizeof *p->state + LAYER_TABLE_BYTES);
}

/* What a session has beside its state: its tokens, its logits, a sampler. */
static uint64_t session_bytes(const mfi_program *p, uint32_t ctx)
{
    return (uint64_t)ctx * sizeof(int32_t) + p->shape.n_layers * (uint64_t)SESSION_LAYER_BYTES +
           (uint64_t)p->shape.n_vocab * (SAMPLER_TOKEN_BYTES + sizeof(float));
}

uint64_t mfi_plan_table_bytes(const mfi_program *p, uint32_t ctx, uint32_t n_slots,
                              uint32_t n_sessions)
{
    const mfi_shape *s = &p->shape;
    uint64_t experts = (uint64_t)s->n_layers * s->n_experts;
    uint64_t n_parts = mfi_program_n_parts(p);
    uint64_t reqs = ((uint64_t)held_max(s, n_slots) + hints_max(n_slots)) * n_parts;
    return program_bytes(p) + experts * (n_parts * PART_BYTES + KEY_BYTES) +
           reqs * (sizeof(mfi_io_req) + 16) + (uint64_t)n_slots * SLOT_TABLE_BYTES +
           (uint64_t)p->chunk * (s->top_k * PAIR_TABLE_BYTES + ROW_TABLE_BYTES) +
           n_sessions * session_bytes(p, ctx) + 64 * MFI_KIB;
}

uint64_t mfi_plan_process_bytes(const mfi_plan *plan, const mfi_machine *m)
{
    return m->rss_bytes + PROCESS_GROWTH_BYTES +
           (uint64_t)(plan->n_threads + plan->n_io_threads) * THREAD_BYTES;
}

/* Everything but slots, for n_slots of them. */
uint64_t mfi_plan_fixed_bytes(const mfi_plan *plan, const mfi_machine *m, const mfi_program *p,
                              const sizes *z, uint32_t ctx, uint32_t n_slots)
{
    return mfi_plan_process_bytes(plan, m) + plan->page_cache_bytes + p->dense_bytes + z->kv +
           z->state + z->scratch + plan->other_bytes +
           mfi_plan_table_bytes(p, ctx, n_slots, plan->n_sessions);
}

/* The least that a plan with this context and program takes. */
uint64_t mfi_plan_room_least(const mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                             const mfi_program *p, uint32_t ctx)
{
    sizes z;
    mfi_plan_measure(model, p, ctx, plan->n_sessions, &z);
    return mfi_plan_fixed_bytes(plan, m, p, &z, ctx, p->shape.top_k) +
           p->shape.top_k * plan->slot_stride;
}

/* What can't be had by cutting: windows, recurrent state, and the logits. */
uint64_t mfi_plan_checkpoint_bytes(const mfi_program *p)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < p->shape.n_layers; i++) {
        const mfi_layer_state *st = &p->state[i];
        bytes += st->recurrent_bytes + (st->kv_ring ? (st->window - 1) * st->kv_pos_bytes : 0);
    }
    return bytes ? mfi_align_up(bytes + p->shape.n_vocab * sizeof(float), 4096) : 0;
}

static uint32_t n_experts_total(const mfi_model *model)
{
    return mfi_model_n_routed(model) * model->shape.n_experts;
}

/* That one token chooses, over all layers. */
static uint64_t token_experts(const mfi_model *model)
{
    return (uint64_t)mfi_model_n_routed(model) * model->shape.top_k;
}

/* ---- decisions ---- */

static uint32_t ctx_least(const mfi_model *model)
{
    return MFI_MIN(model->ctx_model, CTX_AUTO_MIN);
}

/* The largest context up to the model's (8192 at most, unless asked) whose KV takes at most a
 * quarter of what the least that everything else needs leaves. `p` has the smallest chunk. */
static void choose_ctx(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                       const mfi_plan_options *o, const mfi_program *p)
{
    if (o->ctx) {
        plan->ctx = o->ctx;
        snprintf(plan->ctx_reason, sizeof plan->ctx_reason, "as asked");
        return;
    }
    uint64_t base = mfi_plan_room_least(plan, model, m, p, 0);
    uint64_t room = plan->budget_bytes > base ? (plan->budget_bytes - base) / 4 : 0;
    uint32_t most = MFI_MIN(model->ctx_model, CTX_AUTO_MAX), least = ctx_least(model);
    uint32_t ctx = most;
    while (ctx > least && mfi_plan_room_least(plan, model, m, p, ctx) - base > room)
        ctx = MFI_MAX(ctx / 2, least);
    plan->ctx = ctx;
    snprintf(plan->ctx_reason, sizeof plan->ctx_reason, "%s; the model was made for %u; -c sets it",
             ctx == most ? "as long as is useful by default"
                         : "KV kept to a quarter of what is free",
             model->ctx_model);
}

/* Each saves evaluating a prompt again, but displaces cache. */
void mfi_plan_choose_checkpoints(mfi_plan *plan, const mfi_plan_options *o, uint64_t free_bytes)
{
    uint64_t room = free_bytes / CHECKPOINT_PART;
    plan->checkpoint_bytes = mfi_plan_checkpoint_bytes(&plan->program);
    if (plan->checkpoint_bytes)
        plan->n_checkpoints =
            (uint32_t)MFI_MIN(o->n_checkpoints, room / plan->n_sessions / plan->checkpoint_bytes);
}

/* Of what the least of the rest leaves. */
static void choose_checkpoints(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                               const mfi_plan_options *o)
{
    uint64_t base = mfi_plan_room_least(plan, model, m, &plan->program, plan->ctx);
    mfi_plan_choose_checkpoints(plan, o, plan->budget_bytes > base ? plan->budget_bytes - base : 0);
}

/* What the tightest plan with these options takes: shortest automatic context, chunk of one, one
 * token's experts of a layer; and what opening took already. `p` has the smallest chunk. */
static void find_floor(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                       const mfi_plan_options *o, const mfi_program *p)
{
    uint64_t cache = plan->page_cache_bytes;
    plan->page_cache_bytes = mfi_plan_page_cache_min(plan);
    uint64_t floor = mfi_plan_room_least(plan, model, m, p, o->ctx ? o->ctx : ctx_least(model));
    plan->page_cache_bytes = cache;
    /* A round number with the page cache's share (a 64th of the whole) and with what a process
     * differs by from run to run, so that what is printed works when typed back in: the check
     * leaves the difference out.
     */
    floor += MFI_MAX(MFI_MIN(floor / 63, MFI_PAGE_CACHE_BYTES_MAX), PROCESS_NOISE_BYTES);
    floor = MFI_MAX(floor, m->open_peak_bytes);
    plan->floor_bytes = mfi_align_up(floor, MFI_MIB);
    plan->least_bytes = mfi_align_up(floor - PROCESS_NOISE_BYTES, MFI_MIB);
}

static void choose_slots(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                         const sizes *z)
{
    char a[32];
    uint32_t total = n_experts_total(model);
    uint64_t least = mfi_plan_fixed_bytes(plan, m, &plan->program, z, plan->ctx, 0);
    uint64_t room = plan->budget_bytes > least ? plan->budget_bytes - least : 0;
    uint32_t n = (uint32_t)MFI_MIN(room / plan->slot_stride, total);
    /* Tables grow with the slots, by far less than the slots. */
    while (n > 0 &&
           mfi_plan_fixed_bytes(plan, m, &plan->program, z, plan->ctx, n) + n * plan->slot_stride >
               plan->budget_bytes)
        n--;
    plan->n_slots = n;
    char *reason = plan->reason[MFI_PLAN_SLOTS];
    if (plan->n_slots == total)
        snprintf(reason, MFI_PLAN_REASON_BYTES, "all %u experts fit: each is read once", total);
    else if (plan->n_slots < token_experts(model))
        snprintf(
            reason, MFI_PLAN_REASON_BYTES,
            "%u of %u experts; less than one token's working set (%s), so the next token finds "
            "little of it",
            plan->n_slots, total, mib(plan->token_expert_bytes, a, sizeof a));
    else
        snprintf(reason, MFI_PLAN_REASON_BYTES, "%u of %u experts: all the room that is left",
                 plan->n_slots, total);
}

/* Where a pass (a token, or one of each session) wants more than fits, what was used last is what
 * is wanted last, and least recently used hits next to nothing; odds by layers read least nearly
 * everywhere (docs/streaming.md has figures). */
static void choose_policy(mfi_plan *plan, const mfi_plan_options *o)
{
    plan->policy = o->policy ? o->policy : "odds";
    snprintf(plan->policy_reason, sizeof plan->policy_reason, "%s",
             o->policy ? "as asked"
             : plan->n_slots == plan->n_experts_total
                 ? "nothing ever has to go"
                 : "first goes what is least likely when its layer comes next, and comes late");
}

/* ---- costs of a token ---- */

static void count_token_bytes(mfi_plan *plan, const mfi_model *model)
{
    const mfi_program *p = &plan->program;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const mfi_op *op = &p->ops[i];
        bool by_heads = op->code == MFI_OP_LATENT_ABSORB || op->code == MFI_OP_LATENT_EXPAND;
        if (op->code != MFI_OP_MATMUL && !by_heads)
            continue;
        for (uint32_t j = 0; j < (by_heads ? 1u : op->n); j++) {
            const mfi_program_weight *w = &p->weights[op->w[j]];
            for (uint32_t k = 0; k < mfi_quant_n_planes(w->type); k++)
                plan->token_dense_bytes += mfi_quant_plane_bytes(w->type, k, w->rows, w->cols);
        }
    }
    for (uint32_t i = 0; i < model->shape.n_layers; i++) {
        uint64_t bytes = 0;
        if (!mfi_model_routed(model, i))
            continue;
        for (uint32_t proj = 0; proj < MFI_EXPERT_PROJS; proj++) {
            const mfi_expert_mat *mat = &p->experts[i].proj[proj];
            for (uint32_t k = 0; mat->rows && k < mfi_quant_n_planes(mat->type); k++)
                bytes += mfi_quant_plane_bytes(mat->type, k, mat->rows, mat->cols);
            if (mat->n_bias)
                bytes += mfi_quant_row_bytes(mat->bias_type, 0, mat->n_bias);
        }
        plan->token_expert_bytes += bytes * model->shape.top_k;
        plan->expert_bytes_total += bytes * model->shape.n_experts;
    }
}

static void fill_items(mfi_plan *plan, const mfi_machine *m, const sizes *z)
{
    uint64_t *b = plan->bytes;
    b[MFI_PLAN_PROCESS] = mfi_plan_process_bytes(plan, m);
    b[MFI_PLAN_CACHE] = plan->page_cache_bytes;
    b[MFI_PLAN_DENSE] = plan->program.dense_bytes;
    b[MFI_PLAN_KV] = z->kv;
    b[MFI_PLAN_STATE] = z->state;
    b[MFI_PLAN_SCRATCH] = z->scratch;
    b[MFI_PLAN_TABLES] = plan->other_bytes + mfi_plan_table_bytes(&plan->program, plan->ctx,
                                                                  plan->n_slots, plan->n_sessions);
    b[MFI_PLAN_SLOTS] = plan->n_slots * plan->slot_stride;
    char(*r)[MFI_PLAN_REASON_BYTES] = plan->reason;
    snprintf(r[MFI_PLAN_PROCESS], sizeof *r,
             "resident now %.1f MiB (code, libraries, tokenizer, catalog) and room for stacks",
             (double)m->rss_bytes / (double)MFI_MIB);
    snprintf(r[MFI_PLAN_CACHE], sizeof *r,
             "what our own reads hold while they last; nothing stays");
    snprintf(r[MFI_PLAN_DENSE], sizeof *r,
             "every token uses it: embedding, mixers, routers, shared experts, head");
    bool windows = false;
    for (uint32_t i = 0; i < plan->program.shape.n_layers; i++)
        windows |= plan->program.state[i].kv_ring != 0;
    char of[48] = "";
    if (plan->n_sessions > 1)
        snprintf(of, sizeof of, "%u sessions, each ", plan->n_sessions);
    int n = snprintf(
        r[MFI_PLAN_KV], sizeof *r,
        "%s%u positions, keys %s, values %s; reserved at open, touched as the context grows", of,
        plan->ctx, mfi_plan_cache_type(plan, 0), mfi_plan_cache_type(plan, 1));
    if (windows)
        snprintf(r[MFI_PLAN_KV] + n, sizeof *r - (size_t)n,
                 "; layers with a window of %u keep %u and a chunk", plan->program.shape.window,
                 plan->program.shape.window - 1);
    n = snprintf(r[MFI_PLAN_STATE], sizeof *r, "%srecurrent layers: a fixed size a sequence", of);
    if (plan->n_checkpoints)
        snprintf(r[MFI_PLAN_STATE] + n, sizeof *r - (size_t)n,
                 "; %u checkpoint%s to go back to without evaluating all again",
                 plan->n_checkpoints, plan->n_checkpoints > 1 ? "s" : "");
    snprintf(r[MFI_PLAN_SCRATCH], sizeof *r, "activations of %u tokens at a time", plan->chunk);
    snprintf(r[MFI_PLAN_TABLES], sizeof *r,
             "the program, where each expert lies, slots, sampler, the tokens of the context%s",
             plan->other_bytes ? ", sums of an importance matrix, grammars, what watchers see"
                               : "");
}

static mf_status check_options(const mfi_model *model, const mfi_plan_options *o, mf_error *err)
{
    if (o->ctx > MFI_MAX_CTX)
        return mfi_fail(err, MF_ERR_LIMIT, "context of %u: at most %u", o->ctx, MFI_MAX_CTX);
    if (o->ctx > model->ctx_model)
        return mfi_fail(err, MF_ERR_ARGUMENT, "context of %u: the model was made for %u positions",
                        o->ctx, model->ctx_model);
    if (o->n_sessions > MFI_MAX_SESSIONS)
        return mfi_fail(err, MF_ERR_LIMIT, "%u sessions at once: at most %u", o->n_sessions,
                        MFI_MAX_SESSIONS);
    if (o->n_checkpoints > MFI_MAX_CHECKPOINTS)
        return mfi_fail(err, MF_ERR_LIMIT, "%u checkpoints a session: at most %u", o->n_checkpoints,
                        MFI_MAX_CHECKPOINTS);
    if (o->chunk && o->n_sessions > o->chunk)
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "chunk of %u: %u sessions need a pass of as many tokens", o->chunk,
                        o->n_sessions);
    if (o->chunk > MFI_MAX_CHUNK)
        return mfi_fail(err, MF_ERR_LIMIT, "chunk of %u: at most %u", o->chunk, MFI_MAX_CHUNK);
    if (o->n_logit_rows > MFI_MAX_CHUNK)
        return mfi_fail(err, MF_ERR_LIMIT, "%u rows of logits at once: at most %u", o->n_logit_rows,
                        MFI_MAX_CHUNK);
    if (o->n_threads > MFI_MAX_THREADS || o->n_io_threads > MFI_MAX_IO_THREADS)
        return mfi_fail(err, MF_ERR_LIMIT, "%u threads and %u readers: at most %u and %u",
                        o->n_threads, o->n_io_threads, MFI_MAX_THREADS, MFI_MAX_IO_THREADS);
    return MF_OK;
}

mf_status mfi_plan_make(mfi_plan *plan, const mfi_model *model, const mfi_machine *machine,
                        const mfi_plan_options *options, mf_error *err)
{
    *plan = (mfi_plan){.isa = options->isa, .other_bytes = options->other_bytes};
    MFI_TRY(check_options(model, options, err));
    plan->n_sessions = MFI_MAX(options->n_sessions, 1);
    plan->keeps = options->keeps;
    uint32_t n_logit_rows = MFI_MAX(options->n_logit_rows, plan->n_sessions);
    choose_budget(plan, machine, options);
    choose_threads(plan, machine, options);
    plan->activations = options->device ? MF_ACTIVATIONS_F32 : options->activations;
    memcpy(plan->cache_type, options->cache_type, sizeof plan->cache_type);
    plan->n_experts_total = n_experts_total(model);
    plan->page_cache_bytes = MFI_MIN(
        MFI_MAX(plan->budget_bytes / 64, mfi_plan_page_cache_min(plan)), MFI_PAGE_CACHE_BYTES_MAX);
    if (plan->keeps)
        plan->write_cache_bytes =
            MFI_MIN(plan->page_cache_bytes / (WRITE_CACHE_PART + 1), MFI_KEEP_CACHE_BYTES_MAX);

    uint32_t chunk_least = options->chunk ? options->chunk : plan->n_sessions;
    MFI_TRY(mfi_plan_emit(&plan->program, model, chunk_least, n_logit_rows, plan->activations,
                          plan->cache_type, err));
    plan->slot_stride = mfi_align_up(plan->program.slot_bytes, 4096);
    if (options->device) {
        MFI_TRY((options->device->unified ? mfi_plan_for_unified : mfi_plan_for_device)(
            plan, model, machine, options, n_logit_rows, err));
        explain_activations(plan);
        count_token_bytes(plan, model);
        choose_policy(plan, options);
        return MF_OK;
    }
    choose_ctx(plan, model, machine, options, &plan->program);
    find_floor(plan, model, machine, options, &plan->program);
    MFI_TRY(mfi_plan_choose_chunk(plan, model, machine, options, n_logit_rows, err));
    explain_activations(plan);
    count_token_bytes(plan, model);

    plan->program.ctx = plan->ctx;
    sizes z;
    choose_checkpoints(plan, model, machine, options);
    mfi_plan_measure(model, &plan->program, plan->ctx, plan->n_sessions, &z);
    z.state += (uint64_t)plan->n_sessions * plan->n_checkpoints * plan->checkpoint_bytes;
    choose_slots(plan, model, machine, &z);
    choose_policy(plan, options);
    fill_items(plan, machine, &z);
    plan->fits = plan->n_slots >= model->shape.top_k && plan->budget_bytes >= plan->least_bytes;
    if (!plan->fits) {
        bool tiny = plan->budget_bytes < MFI_MIB;
        return mfi_fail(err, MF_ERR_BUDGET,
                        "%s: a budget of %.*f %s can't hold it; the smallest that works with these "
                        "options is %" PRIu64 "M",
                        mfi_catalog_path(model->catalog), tiny ? 0 : 1,
                        (double)plan->budget_bytes / (tiny ? 1.0 : (double)MFI_MIB),
                        tiny ? "bytes" : "MiB", plan->floor_bytes / MFI_MIB);
    }
    return MF_OK;
}

void mfi_plan_free(mfi_plan *plan)
{
    mfi_program_free(&plan->program);
    if (plan->helper)
        mfi_program_free(plan->helper);
    free(plan->helper);
    plan->helper = NULL;
    free(plan->ranges);
    plan->ranges = NULL;
}
