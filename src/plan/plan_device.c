/* The plan where a device computes: what lies in its memory, and what the host keeps beside it.
 * Pure, as the rest of the plan; see plan.h.
 *
 * The device has weights, KV, state, scratch and expert slots; what it has no room for is copied
 * from slots of the host's, which take the budget that is left there, and those are filled from the
 * drive; or, if asked for, from the files' mapping, all of it pinned. Where every expert fits the
 * device, the host keeps only as many slots as loading needs.
 *
 * Weights stay in the mapping where that saves more than it costs: embeddings, of which a token
 * reads a row, as soon as experts compete for the device's memory; others, the largest first, only
 * where the device's memory has no room for them, as each token reads them over the bus. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/plan_int.h"

/* Code, stacks and graphs of the driver's. Measured: 150 MiB with the graphs of 94 layers. */
#define DRIVER_BYTES   (256 * MFI_MIB)
#define FREE_MARGIN    32              /* this part of what is free stays free, */
#define FREE_BYTES_MIN (256 * MFI_MIB) /* and so much at least */
#define SPLIT_BYTES    196             /* of 32 columns of a product's input in three parts */
#define CHUNK_AUTO_MAX 2048
#define CTX_AUTO_MAX   8192
#define LOADING_SLOTS  32u /* reads under way while all experts are loaded */
#define HOST_SLOTS_MIN 4u
#define PIN_BYTES      (2 * MFI_MIB) /* by which pinned memory ends at large pages */

/* The device's memory but for slots. */
static uint64_t device_bytes(const mfi_plan *plan, const mfi_program *p, const mfi_plan_sizes *z,
                             uint64_t *kernels)
{
    const mfi_shape *s = &p->shape;
    uint64_t pairs = (uint64_t)p->chunk * s->top_k, blocks = plan->ctx / 64 + 2;
    uint64_t dim_v = MFI_MAX(s->latent_kv, s->head_dim);
    *kernels = pairs * 32 + (uint64_t)s->n_layers * s->n_experts * 8 + /* lists of work */
               MFI_MIN(p->chunk, 4) * s->n_head * blocks * (dim_v + 2) * sizeof(float) +
               mfi_program_input_columns(p) / 32 * SPLIT_BYTES + DRIVER_BYTES;
    return p->dense_bytes + z->kv + z->state + z->scratch + *kernels;
}

/* What of buffers the host looks at, and the largest weight while it is loaded. */
static uint64_t staging_bytes(const mfi_program *p)
{
    uint64_t mirrors = 0, largest = 0;
    static const uint8_t seen[] = {MFI_BUF_IDS, MFI_BUF_RES, MFI_BUF_HN, MFI_BUF_LOGITS};
    for (size_t i = 0; i < MFI_ARRAY_LEN(seen); i++)
        mirrors += (uint64_t)p->bufs[seen[i]].rows * p->bufs[seen[i]].width * sizeof(float);
    for (uint32_t i = 0; i < p->n_weights; i++)
        if (!p->weights[i].in_place)
            largest = MFI_MAX(largest, mfi_program_weight_span(&p->weights[i]));
    return mirrors + largest + (uint64_t)p->chunk * p->shape.top_k * 32 + PIN_BYTES;
}

/* In the host's memory. */
static uint64_t checkpoints_bytes(const mfi_plan *plan)
{
    return (uint64_t)plan->n_sessions * plan->n_checkpoints * plan->checkpoint_bytes;
}

static uint64_t host_bytes(const mfi_plan *plan, const mfi_machine *m, const mfi_program *p,
                           uint32_t n_slots)
{
    /* Two stores keep books. */
    return mfi_plan_process_bytes(plan, m) + plan->page_cache_bytes + plan->other_bytes +
           plan->mapped_bytes + (plan->helper ? plan->helper->scratch_bytes : 0) +
           mfi_plan_table_bytes(p, plan->ctx, n_slots + plan->n_slots, plan->n_sessions) +
           (uint64_t)p->shape.n_layers * p->shape.n_experts * 48 + staging_bytes(p) +
           checkpoints_bytes(plan);
}

mf_status mfi_plan_choose_vram(mfi_plan *plan, const mfi_plan_options *o, mf_error *err)
{
    const mfi_plan_device *d = o->device;
    snprintf(plan->device, sizeof plan->device, "%s", d->name);
    if (o->activations != MF_ACTIVATIONS_AUTO && o->activations != MF_ACTIVATIONS_F32)
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "a device multiplies with float activations; q8 and q16 are the CPU's");
    if (o->cache_type[0] != MF_CACHE_F32 || o->cache_type[1] != MF_CACHE_F32)
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "a device's KV cache is f32; other types are the CPU's");
    uint64_t margin = MFI_MAX(d->free_bytes / FREE_MARGIN, FREE_BYTES_MIN);
    plan->vram_budget_bytes = d->free_bytes > margin ? d->free_bytes - margin : 0;
    snprintf(plan->vram_reason, sizeof plan->vram_reason, "what is free (%.1f MiB), less a margin",
             (double)d->free_bytes / (double)MFI_MIB);
    if (!o->vram_bytes)
        return MF_OK;
    if (o->vram_bytes > d->free_bytes)
        return mfi_fail(err, MF_ERR_BUDGET, "%s has %.1f MiB free of %.1f; --vram asks for %.1f",
                        d->name, (double)d->free_bytes / (double)MFI_MIB,
                        (double)d->total_bytes / (double)MFI_MIB,
                        (double)o->vram_bytes / (double)MFI_MIB);
    plan->vram_budget_bytes = o->vram_bytes;
    snprintf(plan->vram_reason, sizeof plan->vram_reason, "as asked");
    return MF_OK;
}

/* For a bound of mfi_plan_longest_chunk. */
static mf_status measure(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                         const mfi_plan_options *o, uint64_t *bytes, mf_error *err)
{
    (void)m;
    mfi_plan_sizes z;
    uint64_t kernels;
    const mfi_in_place which = plan->in_place;
    if (which.tables || which.least_bytes < UINT64_MAX)
        MFI_TRY(mfi_plan_in_place(plan, model, o->device, &which, err));
    mfi_plan_measure(model, &plan->program, plan->ctx, plan->n_sessions, &z);
    *bytes = device_bytes(plan, &plan->program, &z, &kernels);
    return MF_OK;
}

/* Scratch may take an eighth of what the rest, and a token's experts, leave of the device. */
static mf_status choose_chunk(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                              const mfi_plan_options *o, uint32_t n_logit_rows, mf_error *err)
{
    uint64_t base;
    MFI_TRY(measure(plan, model, m, o, &base, err));
    uint64_t least = base + model->shape.top_k * plan->slot_stride;
    uint64_t room = plan->vram_budget_bytes > least ? (plan->vram_budget_bytes - least) / 8 : 0;
    const mfi_plan_bound bound = {CHUNK_AUTO_MAX, base + room, measure,
                                  "scratch kept to an eighth of what is free on the device"};
    MFI_TRY(mfi_plan_longest_chunk(plan, model, m, o, &bound, n_logit_rows, err));
    plan->program.ctx = plan->ctx;
    return MF_OK;
}

/* What of the resident weights the device reads in the files' mapping. */
static mf_status choose_in_place(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                                 const mfi_plan_options *o, mf_error *err)
{
    mfi_in_place which = {.least_bytes = UINT64_MAX};
    uint64_t base, stride = plan->slot_stride, largest = 0;
    plan->in_place = which;
    MFI_TRY(measure(plan, model, m, o, &base, err));
    if (!o->device->weight_align || o->mapping_refused ||
        base + plan->n_experts_total * stride <= plan->vram_budget_bytes)
        return MF_OK;
    which.tables = plan->in_place.tables = true;
    MFI_TRY(measure(plan, model, m, o, &base, err));
    for (uint32_t i = 0; i < plan->program.n_weights; i++)
        largest = MFI_MAX(largest, mfi_program_weight_span(&plan->program.weights[i]));
    uint64_t least = model->shape.top_k * stride;
    for (which.least_bytes = largest; base + least > plan->vram_budget_bytes;
         which.least_bytes /= 2) {
        plan->in_place = which;
        MFI_TRY(measure(plan, model, m, o, &base, err));
        if (which.least_bytes == 0)
            break;
    }
    return MF_OK;
}

static void choose_slots(mfi_plan *plan, const mfi_model *model, const mfi_plan_options *o)
{
    uint32_t total = plan->n_experts_total;
    mfi_plan_sizes z;
    uint64_t kernels;
    mfi_plan_measure(model, &plan->program, plan->ctx, plan->n_sessions, &z);
    uint64_t fixed = device_bytes(plan, &plan->program, &z, &kernels);
    uint64_t room = plan->vram_budget_bytes > fixed ? plan->vram_budget_bytes - fixed : 0;
    plan->n_slots = (uint32_t)MFI_MIN(room / plan->slot_stride, total);
    uint64_t movable = o->mapping_refused ? 0 : mfi_plan_movable_bytes(plan, model, o->device);
    plan->vram_floor_bytes =
        mfi_align_up(fixed - movable + model->shape.top_k * plan->slot_stride, MFI_MIB);
    plan->vram[MFI_PLAN_PROCESS] = kernels;
    plan->vram[MFI_PLAN_DENSE] = plan->program.dense_bytes;
    plan->vram[MFI_PLAN_KV] = z.kv;
    plan->vram[MFI_PLAN_STATE] = z.state;
    plan->vram[MFI_PLAN_SCRATCH] = z.scratch;
    plan->vram[MFI_PLAN_SLOTS] = plan->n_slots * plan->slot_stride;
    bool all = plan->n_slots == total;
    snprintf(plan->vram_slots_reason, MFI_PLAN_REASON_BYTES,
             all ? "all %u experts: read at open, looked up by the device itself"
                 : "%u of %u experts: all the room that is left",
             all ? total : plan->n_slots, total);
}

static uint32_t host_slots_min(const mfi_plan *plan)
{
    return HOST_SLOTS_MIN + (plan->helper ? MFI_MAX_MISS_HELD : 0);
}

/* Pinned slots of the host's, as many as are of use. */
static void choose_host_slots(mfi_plan *plan, const mfi_machine *m, const mfi_plan_options *o)
{
    uint32_t total = plan->n_experts_total;
    bool all = plan->n_slots == total;
    uint32_t most = all ? MFI_MIN(LOADING_SLOTS, total) : total;
    uint32_t fewest = host_slots_min(plan);
    uint64_t floor = host_bytes(plan, m, &plan->program, fewest) + fewest * plan->slot_stride;
    uint64_t least = host_bytes(plan, m, &plan->program, 0);
    uint64_t room = plan->budget_bytes > least ? plan->budget_bytes - least : 0;
    mfi_plan_choose_checkpoints(plan, o, room);
    room -= checkpoints_bytes(plan);
    plan->n_host_slots = (uint32_t)MFI_MIN(room / plan->slot_stride, most);
    while (plan->n_host_slots > 0 && host_bytes(plan, m, &plan->program, plan->n_host_slots) +
                                             plan->n_host_slots * plan->slot_stride >
                                         plan->budget_bytes)
        plan->n_host_slots--;
    plan->floor_bytes = mfi_align_up(MFI_MAX(floor, m->open_peak_bytes), MFI_MIB);
    plan->least_bytes = plan->floor_bytes;
    /* With a slot for each there is nothing to save. */
    bool short_of = !all && plan->n_host_slots < total && !plan->helper;
    plan->exclusive = o->tiers ? strcmp(o->tiers, "exclusive") == 0 : short_of;
    uint64_t either = (uint64_t)plan->n_host_slots + (plan->exclusive ? plan->n_slots : 0);
    snprintf(plan->tier_reason, MFI_PLAN_REASON_BYTES,
             all ? "pinned: %u experts that the device copies from; enough to load them all"
             : plan->exclusive
                 ? "pinned: %u experts that the device copies from, and others than it has: %u of "
                   "%u are in memory"
                 : "pinned: %u experts that the device copies from",
             plan->n_host_slots, (uint32_t)MFI_MIN(either, total), total);
    if (plan->helper)
        snprintf(plan->tier_reason, MFI_PLAN_REASON_BYTES,
                 "pinned: %u experts that the device copies from; of up to %u tokens at a time the "
                 "CPU computes what the device lacks",
                 plan->n_host_slots, MFI_MAX_MISS_TOK);
    size_t len = strlen(plan->tier_reason);
    if (all && o->tiers)
        len += (size_t)snprintf(plan->tier_reason + len, MFI_PLAN_REASON_BYTES - len,
                                "; inclusive changes nothing: every expert is on the device");
    if (o->mapping_refused)
        snprintf(plan->tier_reason + len, MFI_PLAN_REASON_BYTES - len,
                 "; nothing in the files' mapping, which the driver refuses: %s",
                 o->mapping_refused);
}

uint32_t mfi_plan_host_held_max(const mfi_plan *plan)
{
    uint32_t n = plan->exclusive ? plan->n_host_slots / 2 : plan->n_host_slots;
    if (plan->helper)
        n -= MFI_MIN(n, MFI_MAX_MISS_HELD);
    return MFI_MIN(n, MFI_MAX_HELD);
}

/* The experts stay in the files' mapping, which is pinned; MF_ERR_BUDGET where it doesn't fit. */
static mf_status choose_mapped(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                               const mfi_plan_options *o, mf_error *err)
{
    mfi_in_place which = plan->in_place;
    which.experts = true;
    MFI_TRY(mfi_plan_in_place(plan, model, o->device, &which, err));
    plan->n_host_slots = 0;
    plan->floor_bytes = plan->least_bytes =
        mfi_align_up(MFI_MAX(host_bytes(plan, m, &plan->program, 0), m->open_peak_bytes), MFI_MIB);
    snprintf(plan->tier_reason, MFI_PLAN_REASON_BYTES,
             "all %u experts where they lie in the files' mapping, pinned in %u ranges",
             plan->n_experts_total, plan->n_ranges);
    if (plan->floor_bytes > plan->budget_bytes)
        return mfi_fail(err, MF_ERR_BUDGET,
                        "%s: experts in the files' mapping are pinned, all of them: with these "
                        "options --memory %" PRIu64 "M is needed",
                        mfi_catalog_path(model->catalog), plan->floor_bytes / MFI_MIB);
    mfi_plan_choose_checkpoints(plan, o, plan->budget_bytes - plan->floor_bytes);
    return MF_OK;
}

/* What of the options has no meaning here. */
static mf_status check_tiers(const mfi_plan *plan, const mfi_plan_options *o, mf_error *err)
{
    bool all = plan->n_slots == plan->n_experts_total;
    bool mapped = o->host_tier && strcmp(o->host_tier, "mapped") == 0;
    bool exclusive = o->tiers && strcmp(o->tiers, "exclusive") == 0;
    if (all && o->miss_cpu)
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "every expert is on the device: there are no misses for the CPU");
    if (all && exclusive)
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "every expert is on the device: tiers can't be exclusive");
    if (o->miss_cpu && (mapped || exclusive))
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "the CPU computes misses in slots that it shares: not in the files' "
                        "mapping, nor where tiers are exclusive");
    if (mapped && exclusive)
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "tiers are not exclusive where the host's is the files' mapping");
    if (mapped && all)
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "every expert is on the device: there is no tier of the host's to choose");
    if (mapped && !o->device->weight_align)
        return mfi_fail(err, MF_ERR_ARGUMENT, "%s has no way to copy from the files' mapping",
                        o->device->name);
    return mapped && o->mapping_refused ? mfi_fail(err, MF_ERR_DEVICE, "%s", o->mapping_refused)
                                        : MF_OK;
}

static mf_status choose_helper(mfi_plan *plan, const mfi_model *model, const mfi_plan_options *o,
                               mf_error *err)
{
    if (!o->miss_cpu)
        return MF_OK;
    plan->helper = calloc(1, sizeof *plan->helper);
    if (!plan->helper)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a program");
    return mfi_plan_emit(plan->helper, model, MFI_MAX_MISS_TOK, 1, plan->activations,
                         plan->cache_type, err);
}

/* What the device copies experts from. Slots are copied whole; in the mapping an expert lies in
 * pieces (docs/cuda.md has what they cost), and those that the device has are pinned as well. */
static mf_status choose_tier(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                             const mfi_plan_options *o, mf_error *err)
{
    MFI_TRY(check_tiers(plan, o, err));
    MFI_TRY(choose_helper(plan, model, o, err));
    if (!o->host_tier || strcmp(o->host_tier, "mapped") != 0) {
        choose_host_slots(plan, m, o);
        return MF_OK;
    }
    return choose_mapped(plan, model, m, o, err);
}

static void fill_items(mfi_plan *plan, const mfi_machine *m)
{
    uint64_t *b = plan->bytes;
    char(*r)[MFI_PLAN_REASON_BYTES] = plan->reason;
    uint64_t slots = plan->n_host_slots * plan->slot_stride;
    uint64_t mapped_slots = plan->mapped_bytes - plan->mapped_dense_bytes;
    b[MFI_PLAN_PROCESS] = mfi_plan_process_bytes(plan, m);
    b[MFI_PLAN_CACHE] = plan->page_cache_bytes;
    b[MFI_PLAN_SCRATCH] = staging_bytes(&plan->program);
    b[MFI_PLAN_TABLES] = host_bytes(plan, m, &plan->program, plan->n_host_slots) -
                         b[MFI_PLAN_PROCESS] - b[MFI_PLAN_CACHE] - b[MFI_PLAN_SCRATCH] -
                         checkpoints_bytes(plan) - plan->mapped_bytes;
    b[MFI_PLAN_DENSE] = plan->mapped_dense_bytes;
    b[MFI_PLAN_SLOTS] = slots + mapped_slots;
    b[MFI_PLAN_STATE] = checkpoints_bytes(plan);
    snprintf(r[MFI_PLAN_PROCESS], sizeof *r,
             "resident now %.1f MiB (code, the driver, tokenizer, catalog) and room for stacks",
             (double)m->rss_bytes / (double)MFI_MIB);
    snprintf(r[MFI_PLAN_CACHE], sizeof *r, "what our own reads hold while they last");
    for (uint32_t i = MFI_PLAN_DENSE; i <= MFI_PLAN_STATE; i++)
        snprintf(r[i], sizeof *r, "on the device");
    if (plan->n_checkpoints)
        snprintf(r[MFI_PLAN_STATE], sizeof *r,
                 "on the device; %u checkpoint%s to go back to without evaluating all again",
                 plan->n_checkpoints, plan->n_checkpoints > 1 ? "s" : "");
    snprintf(r[MFI_PLAN_SCRATCH], sizeof *r,
             "pinned: what the host looks at; and one weight while it is loaded");
    snprintf(r[MFI_PLAN_TABLES], sizeof *r,
             "the program, where each expert lies, slots, sampler, the tokens of the context");
    snprintf(r[MFI_PLAN_SLOTS], sizeof *r, "%s", plan->tier_reason);
    if (plan->n_in_place)
        snprintf(r[MFI_PLAN_DENSE], sizeof *r,
                 "pinned: %u of %u weights that the device reads in the files' mapping%s",
                 plan->n_in_place, plan->program.n_weights,
                 plan->in_place.least_bytes < UINT64_MAX ? ", each time: it has no room for them"
                                                         : ": a row a token");
}

mf_status mfi_plan_for_device(mfi_plan *plan, const mfi_model *model, const mfi_machine *machine,
                              const mfi_plan_options *o, uint32_t n_logit_rows, mf_error *err)
{
    const char *path = mfi_catalog_path(model->catalog);
    MFI_TRY(mfi_plan_choose_vram(plan, o, err));
    plan->ctx = o->ctx ? o->ctx : MFI_MIN(model->ctx_model, CTX_AUTO_MAX);
    snprintf(plan->ctx_reason, sizeof plan->ctx_reason,
             o->ctx ? "as asked" : "the model was made for %u; -c sets it", model->ctx_model);
    MFI_TRY(choose_in_place(plan, model, machine, o, err));
    MFI_TRY(choose_chunk(plan, model, machine, o, n_logit_rows, err));
    choose_slots(plan, model, o);
    mf_status tier = choose_tier(plan, model, machine, o, err);
    fill_items(plan, machine);
    uint32_t least =
        plan->in_place.experts ? 0 : MFI_MIN(host_slots_min(plan), plan->n_experts_total);
    plan->fits =
        tier == MF_OK && plan->n_slots >= model->shape.top_k && plan->n_host_slots >= least;
    if (plan->n_slots < model->shape.top_k)
        return mfi_fail(err, MF_ERR_BUDGET,
                        "%s: %.1f MiB of %s can't hold it; the least that works with these options "
                        "is --vram %" PRIu64 "M",
                        path, (double)plan->vram_budget_bytes / (double)MFI_MIB, o->device->name,
                        plan->vram_floor_bytes / MFI_MIB);
    MFI_TRY(tier);
    if (!plan->fits)
        return mfi_fail(err, MF_ERR_BUDGET,
                        "%s: a budget of %.1f MiB can't hold it beside the device; the smallest "
                        "that works with these options is %" PRIu64 "M",
                        path, (double)plan->budget_bytes / (double)MFI_MIB,
                        plan->floor_bytes / MFI_MIB);
    return MF_OK;
}
