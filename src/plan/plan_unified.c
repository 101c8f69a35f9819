/* The plan where a device computes in the host's memory. Pure, as the rest of the plan; see plan.h.
 *
 * There is one tier: the device reads weights in the mapping of their files, which count as
 * resident, and experts in slots that the drive is read into. All of it is the process's, so the
 * host's budget bounds it; what the device may hold at one time bounds it again. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/io.h"
#include "plan/plan_int.h"

/* Compiled kernels, queues and command buffers of the driver's: an allowance, measured nowhere. */
#define DRIVER_BYTES   (32 * MFI_MIB)
#define CHUNK_AUTO_MAX 512
#define CTX_AUTO_MAX   8192
#define NOISE_BYTES    (512 * MFI_KIB) /* by which the process differs from run to run */

static const mfi_in_place everything = {.tables = true};

/* What the device keeps beside weights and slots. */
typedef struct bounds {
    mfi_plan_sizes z;
    uint64_t lists; /* of work, attention's partial sums, and the driver's */
    uint64_t fixed; /* the device's all but slots */
} bounds;

static void measure(const mfi_plan *plan, const mfi_model *model, const mfi_plan_device *d,
                    bounds *b)
{
    const mfi_program *p = &plan->program;
    mfi_plan_measure(model, p, plan->ctx, plan->n_sessions, &b->z);
    b->lists = DRIVER_BYTES + (d->own_bytes ? d->own_bytes(p, plan->ctx) : 0);
    b->fixed = plan->mapped_bytes + p->dense_bytes + b->z.kv + b->z.state + b->z.scratch + b->lists;
}

static uint64_t checkpoints_bytes(const mfi_plan *plan)
{
    return (uint64_t)plan->n_sessions * plan->n_checkpoints * plan->checkpoint_bytes;
}

/* What the process has beside what the device sees. */
static uint64_t host_bytes(const mfi_plan *plan, const mfi_machine *m, uint32_t n_slots)
{
    return mfi_plan_process_bytes(plan, m) + plan->page_cache_bytes + plan->other_bytes +
           checkpoints_bytes(plan) +
           mfi_plan_table_bytes(&plan->program, plan->ctx, n_slots, plan->n_sessions);
}

/* Room for slots, by both bounds. */
static uint64_t room(const mfi_plan *plan, const mfi_machine *m, const bounds *b, uint32_t n_slots)
{
    uint64_t all = host_bytes(plan, m, n_slots) + b->fixed;
    uint64_t host = plan->budget_bytes > all ? plan->budget_bytes - all : 0;
    uint64_t device = plan->vram_budget_bytes > b->fixed ? plan->vram_budget_bytes - b->fixed : 0;
    return MFI_MIN(host, device);
}

/* For a bound of mfi_plan_longest_chunk. */
static mf_status measure_new(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                             const mfi_plan_options *o, uint64_t *bytes, mf_error *err)
{
    (void)m;
    bounds b;
    MFI_TRY(mfi_plan_in_place(plan, model, o->device, &everything, err));
    measure(plan, model, o->device, &b);
    *bytes = b.fixed;
    return MF_OK;
}

static void choose_slots(mfi_plan *plan, const mfi_machine *m, const mfi_plan_options *o,
                         const bounds *b)
{
    uint32_t total = plan->n_experts_total;
    uint64_t most = o->device->max_buf_bytes ? o->device->max_buf_bytes / plan->slot_stride : total;
    uint32_t n = (uint32_t)MFI_MIN(MFI_MIN(room(plan, m, b, 0) / plan->slot_stride, most), total);
    while (n > 0 && room(plan, m, b, n) < n * plan->slot_stride)
        n--;
    plan->n_slots = n;
    snprintf(plan->vram_slots_reason, MFI_PLAN_REASON_BYTES,
             n == total  ? "all %u experts: read at open, looked up by the device itself"
             : n == most ? "%u of %u experts: more than one buffer of the device can't hold"
                         : "%u of %u experts: all the room that is left",
             n == total ? total : n, total);
}

/* What the tightest plan with this context takes, as a round number that works when it is typed
 * back in: with the page cache's share of it, and what a process differs by. */
static void find_floors(mfi_plan *plan, const mfi_machine *m, const bounds *b)
{
    uint32_t top_k = plan->program.shape.top_k;
    uint64_t cache = plan->page_cache_bytes, slots = top_k * plan->slot_stride;
    plan->page_cache_bytes = mfi_plan_page_cache_min(plan);
    uint64_t floor = host_bytes(plan, m, top_k) + b->fixed + slots;
    plan->page_cache_bytes = cache;
    floor += MFI_MAX(MFI_MIN(floor / 63, MFI_PAGE_CACHE_BYTES_MAX), NOISE_BYTES);
    floor = MFI_MAX(floor, m->open_peak_bytes);
    plan->floor_bytes = mfi_align_up(floor, MFI_MIB);
    plan->least_bytes = mfi_align_up(floor - NOISE_BYTES, MFI_MIB);
    plan->vram_floor_bytes = mfi_align_up(b->fixed + slots, MFI_MIB);
}

static void fill_items(mfi_plan *plan, const mfi_machine *m, const bounds *b)
{
    uint64_t *v = plan->vram, *h = plan->bytes;
    char(*r)[MFI_PLAN_REASON_BYTES] = plan->reason;
    v[MFI_PLAN_PROCESS] = b->lists;
    v[MFI_PLAN_DENSE] = plan->mapped_bytes + plan->program.dense_bytes;
    v[MFI_PLAN_KV] = b->z.kv;
    v[MFI_PLAN_STATE] = b->z.state;
    v[MFI_PLAN_SCRATCH] = b->z.scratch;
    v[MFI_PLAN_SLOTS] = plan->n_slots * plan->slot_stride;
    memcpy(h, v, sizeof plan->vram);
    h[MFI_PLAN_PROCESS] = mfi_plan_process_bytes(plan, m) + b->lists;
    h[MFI_PLAN_CACHE] = plan->page_cache_bytes;
    h[MFI_PLAN_STATE] += checkpoints_bytes(plan);
    h[MFI_PLAN_TABLES] = host_bytes(plan, m, plan->n_slots) - mfi_plan_process_bytes(plan, m) -
                         plan->page_cache_bytes - checkpoints_bytes(plan);
    snprintf(r[MFI_PLAN_PROCESS], sizeof *r,
             "resident now %.1f MiB (code, the driver, tokenizer, catalog), stacks, lists of work",
             (double)m->rss_bytes / (double)MFI_MIB);
    snprintf(r[MFI_PLAN_CACHE], sizeof *r, "what our own reads hold while they last");
    snprintf(r[MFI_PLAN_DENSE], sizeof *r,
             "%u of %u weights in place: %.1f MiB of the files' mapping in %u buffers; %.1f copied",
             plan->n_in_place, plan->program.n_weights,
             (double)plan->mapped_bytes / (double)MFI_MIB, plan->n_ranges,
             (double)plan->program.dense_bytes / (double)MFI_MIB);
    snprintf(r[MFI_PLAN_KV], sizeof *r, "%u positions, keys f32, values f32", plan->ctx);
    int n = snprintf(r[MFI_PLAN_STATE], sizeof *r, "recurrent layers: a fixed size a sequence");
    if (plan->n_checkpoints)
        snprintf(r[MFI_PLAN_STATE] + n, sizeof *r - (size_t)n,
                 "; %u checkpoint%s to go back to without evaluating all again",
                 plan->n_checkpoints, plan->n_checkpoints > 1 ? "s" : "");
    snprintf(r[MFI_PLAN_SCRATCH], sizeof *r, "activations of %u tokens at a time", plan->chunk);
    snprintf(r[MFI_PLAN_TABLES], sizeof *r,
             "the program, where each expert lies, slots, sampler, the tokens of the context");
    snprintf(r[MFI_PLAN_SLOTS], sizeof *r, "%.*s", MFI_PLAN_REASON_BYTES - 1,
             plan->vram_slots_reason);
}

mf_status mfi_plan_for_unified(mfi_plan *plan, const mfi_model *model, const mfi_machine *machine,
                               const mfi_plan_options *o, uint32_t n_logit_rows, mf_error *err)
{
    const char *path = mfi_catalog_path(model->catalog);
    bounds b;
    MFI_TRY(mfi_plan_choose_vram(plan, o, err));
    plan->ctx = o->ctx ? o->ctx : MFI_MIN(model->ctx_model, CTX_AUTO_MAX);
    snprintf(plan->ctx_reason, sizeof plan->ctx_reason,
             o->ctx ? "as asked" : "the model was made for %u; -c sets it", model->ctx_model);
    MFI_TRY(mfi_plan_in_place(plan, model, o->device, &everything, err));
    measure(plan, model, o->device, &b);
    find_floors(plan, machine, &b);
    /* Scratch may take an eighth of what the rest, and a token's experts, leave. */
    uint64_t least = model->shape.top_k * plan->slot_stride, left = room(plan, machine, &b, 0);
    const mfi_plan_bound bound = {CHUNK_AUTO_MAX, b.fixed + (left > least ? left - least : 0) / 8,
                                  measure_new, "scratch kept to an eighth of what is free"};
    MFI_TRY(mfi_plan_longest_chunk(plan, model, machine, o, &bound, n_logit_rows, err));
    plan->program.ctx = plan->ctx;
    measure(plan, model, o->device, &b);
    left = room(plan, machine, &b, 0);
    mfi_plan_choose_checkpoints(plan, o, left > least ? left - least : 0);
    choose_slots(plan, machine, o, &b);
    fill_items(plan, machine, &b);
    uint32_t top_k = model->shape.top_k;
    if (o->device->max_buf_bytes && o->device->max_buf_bytes / plan->slot_stride < top_k)
        return mfi_fail(err, MF_ERR_DEVICE,
                        "%s: the %u experts of a token take %" PRIu64
                        " bytes, more than a buffer of the device holds (%" PRIu64 ")",
                        path, top_k, top_k * plan->slot_stride, o->device->max_buf_bytes);
    bool few = plan->n_slots < top_k;
    bool host = plan->budget_bytes < plan->least_bytes;
    plan->fits = !few && !host;
    if (host)
        return mfi_fail(
            err, MF_ERR_BUDGET,
            "%s: a budget of %.1f MiB can't hold it; the smallest that works with these "
            "options is %" PRIu64 "M",
            path, (double)plan->budget_bytes / (double)MFI_MIB, plan->floor_bytes / MFI_MIB);
    if (few)
        return mfi_fail(err, MF_ERR_BUDGET,
                        "%s: %.1f MiB of %s can't hold it; the least that works with these options "
                        "is --vram %" PRIu64 "M",
                        path, (double)plan->vram_budget_bytes / (double)MFI_MIB, o->device->name,
                        plan->vram_floor_bytes / MFI_MIB);
    return MF_OK;
}
