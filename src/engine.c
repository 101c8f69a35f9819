/* The engine: the one place that knows every module. Opens them in order, hands each what it needs
 * as plain data, and closes them in reverse. Called from the application's thread. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine_int.h"
#include "experts/hints.h"
#include "experts/tier.h"
#include "grammar/matcher.h"
#include "io/io_mirror.h"
#include "kernels/kernels.h"
#include "os/vmem.h"
#include "session/prefix.h"

#define PREFIX_DISK_BYTES (4 * MFI_GIB) /* where nobody says */

/* Two drives want more requests than one; threads that wait cost next to nothing. */
#define MIRROR_READERS 8

struct mf_engine {
    mfi_catalog *catalog;
    mf_tokenizer *tokenizer; /* NULL: the model has none */
    mfi_model *model;
    mfi_plan plan;
    bool planned;
    mfi_machine machine;
    mfi_backend *backend;
    const void *dense; /* resident weights, where the host can see them */
    mfi_identity identity;
    bool identified;
    mfi_engine_io reader;
    uint64_t n_reads_checked; /* reads of it that were followed by a look at the files */
    uint64_t mirror_bytes_checked;
    const mfi_file **files; /* the model's, then the mirror's */
    mfi_file *copies;       /* the mirror's, if there is one */
    mfi_expert_part *parts;
    uint32_t *layers;
    mfi_expert_table table; /* of parts and layers */
    mfi_trace *trace;
    mfi_store *store;
    /* With a device: the store of the host's slots, and what lies between the two. */
    mfi_device_facts facts;
    mfi_store *host_store;
    mfi_io *tier;
    mfi_backend *helper;     /* the CPU, which computes what a device misses; or NULL */
    uint64_t fetched_before; /* bytes of it that were counted before the last reset */
    mfi_expert_part *tier_parts;
    mfi_engine_mapped *mapped; /* weights that a device uses in place, or NULL */
    mfi_forward *forward;
    mfi_stats_log *stats;    /* NULL: none is written */
    mfi_engine_watch *watch; /* NULL: nobody watches */
    bool hints_auto;
    mfi_hint_judge judge; /* of hints, if they are on by themselves */
    mfi_store_stats judged;
    mfi_gen_config gen;
    mfi_session_host host;
    mfi_imatrix *imatrix; /* NULL: none is collected */
    mfi_vocab_trie *trie; /* NULL: no grammars */
    mfi_op_time *times;   /* [n_ops]; NULL: ops aren't timed */
};

void mf_engine_options_default(mf_engine_options *options)
{
    *options = (mf_engine_options){.struct_size = sizeof *options};
}

/* ---- opening, step by step ---- */

/* NULL for what is left to us. */
static const char *asked(const char *choice)
{
    return choice && strcmp(choice, "auto") != 0 ? choice : NULL;
}

static bool is(const char *choice, const char *what)
{
    return choice && strcmp(choice, what) == 0;
}

static bool known_choice(const char *choice, const char *a, const char *b)
{
    return !asked(choice) || is(choice, a) || is(choice, b);
}

/* Memory that stores get. */
typedef struct mfi_engine_memory {
    void *slots; /* as ops see them */
    void *tier;  /* the host's slots below a device's, or NULL */
} mfi_engine_memory;

static mf_status open_device(mf_engine *e, const mf_engine_options *o, mf_error *err)
{
    MFI_TRY(mfi_engine_device(o->device, &e->backend, &e->facts, err));
    if (o->vram_bytes && !e->backend)
        return mfi_fail(err, MF_ERR_ARGUMENT, "memory of a device is set, and none is used");
    bool tiered = e->backend && !e->facts.unified;
    if (asked(o->miss) && !tiered)
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "misses are copied, or computed by the CPU, for devices with memory of "
                        "their own, and none computes");
    if ((asked(o->host_tier) || asked(o->tiers)) && !tiered)
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "tiers of experts are for devices with memory of their own, and none "
                        "computes");
    if (o->collect_imatrix && e->backend)
        return mfi_fail(err, MF_ERR_ARGUMENT, "importance matrices are collected on the CPU");
    if (is(o->streaming, "off") && o->trace_path && e->backend)
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "without streaming a device chooses experts by itself: nothing sees its "
                        "choices to trace them");
    if (is(o->hints, "on") && e->backend)
        return mfi_fail(err, MF_ERR_ARGUMENT, "hints are for the CPU: a device has none");
    return MF_OK;
}

/* Choices by name, of those that only the engine looks at. */
static mf_status check_choices(const mf_engine_options *o, mf_error *err)
{
    if (!known_choice(o->io, "threads", "uring"))
        return mfi_fail(err, MF_ERR_ARGUMENT, "unknown reader '%s' (known: auto, threads, uring)",
                        o->io);
    if (!known_choice(o->direct, "on", "off"))
        return mfi_fail(err, MF_ERR_ARGUMENT, "direct reads can be auto, on or off, not '%s'",
                        o->direct);
    if (asked(o->policy) && !mfi_policy_named(o->policy))
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "unknown cache policy '%s' (known: auto, lru, lfu, odds)", o->policy);
    if (!known_choice(o->streaming, "on", "off"))
        return mfi_fail(err, MF_ERR_ARGUMENT, "streaming can be on or off, not '%s'", o->streaming);
    if (!known_choice(o->host_tier, "slots", "mapped"))
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "the tier of the host's can be auto, slots or mapped, not '%s'",
                        o->host_tier);
    if (!known_choice(o->tiers, "inclusive", "exclusive"))
        return mfi_fail(err, MF_ERR_ARGUMENT, "tiers can be auto, inclusive or exclusive, not '%s'",
                        o->tiers);
    if (!known_choice(o->miss, "copy", "cpu"))
        return mfi_fail(err, MF_ERR_ARGUMENT, "a miss can be auto, copy or cpu, not '%s'", o->miss);
    if (!known_choice(o->hints, "on", "off"))
        return mfi_fail(err, MF_ERR_ARGUMENT, "hints can be auto, on or off, not '%s'", o->hints);
    if (is(o->hints, "on") && is(o->streaming, "off"))
        return mfi_fail(err, MF_ERR_ARGUMENT, "without streaming there is nothing to hint at");
    return MF_OK;
}

/* refused: the device's word for why it maps nothing, or NULL. */
static mf_status make_plan(mf_engine *e, const mf_engine_options *o, const char *refused,
                           mf_error *err)
{
    mfi_plan_options po = {.memory_bytes = o->memory_bytes,
                           .ctx = o->ctx,
                           .chunk = o->chunk,
                           .n_threads = o->n_threads,
                           .n_io_threads = o->n_io_threads,
                           .n_logit_rows = o->n_logit_rows,
                           .n_sessions = o->n_sessions,
                           .keeps = o->prefix_dir != NULL,
                           .n_checkpoints = o->n_checkpoints,
                           .activations = o->activations,
                           .cache_type = {o->cache_type_k, o->cache_type_v},
                           .policy = asked(o->policy),
                           .host_tier = asked(o->host_tier),
                           .tiers = asked(o->tiers),
                           .miss_cpu = is(o->miss, "cpu"),
                           .mapping_refused = refused};
    if (o->mirror_path && !o->n_io_threads)
        po.n_io_threads = MIRROR_READERS;
    if (!mfi_isa_parse(o->isa, &po.isa))
        return mfi_fail(err, MF_ERR_ARGUMENT, "unknown instruction set '%s' (known: auto, c, avx2)",
                        o->isa);
    mfi_plan_device device = {.name = e->facts.name,
                              .total_bytes = e->facts.total_bytes,
                              .free_bytes = e->facts.free_bytes,
                              .unified = e->facts.unified,
                              .weight_align = e->facts.weight_align,
                              .page_bytes = e->facts.page_bytes,
                              .max_buf_bytes = e->facts.max_buf_bytes,
                              .own_bytes = e->facts.own_bytes};
    po.device = e->backend ? &device : NULL;
    po.vram_bytes = o->vram_bytes;
    po.other_bytes = o->collect_imatrix ? mfi_imatrix_bytes(e->model) : 0;
    if (e->trie)
        po.other_bytes += MFI_MAX(o->n_sessions, 1) * mfi_matcher_bytes(e->model->shape.n_vocab);
    if (o->watched)
        po.other_bytes += mfi_engine_watch_bytes(&e->model->shape);
    if (e->planned)
        mfi_plan_free(&e->plan);
    e->planned = true;
    return mfi_plan_make(&e->plan, e->model, &e->machine, &po, err);
}

/* Everything up to the plan: reads headers and text files, allocates no planned memory. */
static mf_status open_to_plan(mf_engine *e, const mf_engine_options *o, mf_error *err)
{
    mfi_isa isa;
    if (o->struct_size != sizeof *o)
        return mfi_fail(err, MF_ERR_ARGUMENT, "engine options of another version of the header");
    if (!o->model_path)
        return mfi_fail(err, MF_ERR_ARGUMENT, "no model given");
    if (!mfi_isa_parse(o->isa, &isa))
        return mfi_fail(err, MF_ERR_ARGUMENT, "unknown instruction set '%s' (known: auto, c, avx2)",
                        o->isa);
    if (o->cache_type_k > MF_CACHE_Q8_0 || o->cache_type_v > MF_CACHE_Q8_0)
        return mfi_fail(err, MF_ERR_ARGUMENT, "unknown type of the KV cache");
    MFI_TRY(check_choices(o, err));
    uint64_t peak_before = mfi_process_rss_peak();
    MFI_TRY(mfi_format_open(&e->catalog, o->model_path, err));
    MFI_TRY(mfi_model_open(&e->model, e->catalog, err));
    MFI_TRY(mfi_model_tokenizer_open(&e->tokenizer, e->catalog, err));
    MFI_TRY(mfi_gen_config_read(&e->gen, e->catalog, e->tokenizer, err));
    if (o->grammars && e->tokenizer)
        MFI_TRY(mfi_engine_trie_open(&e->trie, e->tokenizer, e->model->shape.n_vocab, e->gen.eos,
                                     e->gen.n_eos, err));
    MFI_TRY(open_device(e, o, err));
    mfi_vmem_trim_heap();
    mfi_machine_read(&e->machine);
    /* Reading headers and the tokenizer takes memory that is free again by now, but the budget
     * bounds that, too. What the application did before is its own affair. */
    uint64_t peak = mfi_process_rss_peak();
    e->machine.open_peak_bytes = peak > peak_before ? peak : 0;
    return make_plan(e, o, NULL, err);
}

static mf_status open_io(mf_engine *e, const mf_engine_options *o, mf_error *err)
{
    const mfi_plan *plan = &e->plan;
    uint32_t n = mfi_catalog_n_files(e->catalog);
    uint64_t slot_bytes = plan->n_slots * plan->slot_stride; /* a device's are filled as well */
    mfi_io_request ask = {.plan = plan,
                          .table = &e->table,
                          .reader = asked(o->io),
                          .direct = asked(o->direct),
                          .mirror = o->mirror_path != NULL,
                          .n_readers_asked = o->n_io_threads > 0,
                          .cache_path = o->io_cache_path,
                          .load_bytes = plan->program.dense_bytes +
                                        MFI_MIN(slot_bytes, plan->expert_bytes_total)};
    e->files = calloc(2 * (size_t)n, sizeof *e->files);
    if (!e->files)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %u files", n);
    for (uint32_t i = 0; i < n; i++)
        e->files[i] = mfi_catalog_file(e->catalog, i);
    if (o->mirror_path)
        MFI_TRY(mfi_mirror_files_open(&e->copies, o->mirror_path, e->files, n, err));
    for (uint32_t i = 0; e->copies && i < n; i++)
        e->files[n + i] = &e->copies[i];
    return mfi_engine_io_open(&e->reader, &ask, e->files, n, err);
}

static mf_status open_memory(mfi_engine_memory *m, mf_engine *e, const mf_engine_options *o,
                             mf_error *err)
{
    const mfi_program *p = &e->plan.program;
    mfi_backend *b = e->backend;
    void *dense, *scratch;
    MFI_TRY(b->alloc(b, MFI_MEM_DENSE, p->dense_bytes, &dense, err));
    e->dense = dense;
    MFI_TRY(b->alloc(b, MFI_MEM_SCRATCH, p->scratch_bytes, &scratch, err));
    MFI_TRY(b->alloc(b, MFI_MEM_SLOTS, e->plan.n_slots * e->plan.slot_stride, &m->slots, err));
    if (b->device && !b->device->unified)
        m->slots = b->device->address(b, MFI_MEM_SLOTS);
    if (e->plan.n_host_slots)
        MFI_TRY(
            b->alloc(b, MFI_MEM_TIER, e->plan.n_host_slots * e->plan.slot_stride, &m->tier, err));
    MFI_TRY(
        mfi_load_dense(p, e->catalog, e->reader.io, dense, b, o->progress, o->progress_user, err));
    MFI_TRY(b->prepare(b, p, err));
    return e->mapped ? mfi_engine_mapped_place(e->mapped, &e->plan, e->catalog, b, err) : MF_OK;
}

/* What the plan has a device use in the files' mapping. A device with memory of its own can do
 * without: where the driver refuses, the plan is made anew, and says so. */
static mf_status open_mapped(mf_engine *e, const mf_engine_options *o, mf_error *err)
{
    mf_error why = {0};
    if (e->plan.n_ranges == 0)
        return MF_OK;
    mf_status status = mfi_engine_mapped_open(&e->mapped, &e->plan, e->catalog, e->backend,
                                              o->progress, o->progress_user, &why);
    if (status == MF_ERR_DEVICE && !e->facts.unified)
        return make_plan(e, o, why.message, err);
    return status == MF_OK ? MF_OK : mfi_fail(err, status, "%s", why.message);
}

/* Where a store tells who watches. */
static mfi_places *places(mf_engine *e, bool device)
{
    return e->watch ? mfi_watch_places(mfi_engine_watch_experts(e->watch), device) : NULL;
}

/* The files' mapping below the device's slots. */
static mf_status open_mapped_tier(mf_engine *e, mf_error *err)
{
    const mfi_device_ops *device = e->backend->device;
    mfi_mover mover = {e->backend, device->copy, device->copied, NULL, NULL};
    return mfi_tier_mapped_open(&e->tier, mfi_engine_mapped_ranges(e->mapped), e->plan.n_ranges,
                                &mover, err);
}

/* The host's slots below the device's. */
static mf_status open_tier(mf_engine *e, const mfi_engine_memory *m, mf_error *err)
{
    const mfi_device_ops *device = e->backend->device;
    const mfi_plan *plan = &e->plan;
    mfi_mover mover = {e->backend, device->copy, device->copied, device->fetch, device->fetched};
    mfi_tier_slots above = {m->slots, plan->slot_stride, plan->n_slots};
    uint32_t n_held = mfi_plan_host_held_max(plan);
    uint32_t n_refs = plan->exclusive ? 2 * n_held : n_held;
    if (plan->helper)
        n_refs += MFI_MAX_MISS_HELD;
    mfi_store_config config = {.table = e->table,
                               .slots = m->tier,
                               .slot_stride = plan->slot_stride,
                               .n_slots = plan->n_host_slots,
                               .policy = mfi_policy_named(plan->policy),
                               .io = e->reader.io,
                               .places = places(e, false),
                               .n_refs_max = n_refs};
    MFI_TRY(mfi_store_open(&e->host_store, &config, err));
    MFI_TRY(mfi_tier_open(&e->tier, e->host_store, &mover, n_held, plan->exclusive ? &above : NULL,
                          err));
    return mfi_tier_table(&config.table, &e->table, &e->tier_parts, err);
}

/* The CPU's own buffers, for the few tokens whose misses it computes. */
static mf_status open_helper(mf_engine *e, mf_error *err)
{
    const mfi_program *p = e->plan.helper;
    void *memory;
    MFI_TRY(mfi_backend_cpu_open(&e->helper, e->plan.isa, e->plan.n_threads, err));
    MFI_TRY(e->helper->alloc(e->helper, MFI_MEM_DENSE, 1, &memory, err)); /* it has no weights */
    MFI_TRY(e->helper->alloc(e->helper, MFI_MEM_SCRATCH, p->scratch_bytes, &memory, err));
    MFI_TRY(e->helper->prepare(e->helper, p, err));
    mfi_forward_miss_on(e->forward, e->helper, e->host_store);
    return MF_OK;
}

static mf_status open_store(mf_engine *e, const mfi_engine_memory *m, mf_error *err)
{
    if (m->tier)
        MFI_TRY(open_tier(e, m, err));
    else if (e->plan.in_place.experts)
        MFI_TRY(open_mapped_tier(e, err));
    mfi_store_config config = {.table = e->table,
                               .slots = m->slots,
                               .slot_stride = e->plan.slot_stride,
                               .n_slots = e->plan.n_slots,
                               .policy = mfi_policy_named(e->plan.policy),
                               .io = e->tier ? e->tier : e->reader.io,
                               .trace = e->trace,
                               .places = places(e, e->backend->device != NULL),
                               .n_refs_max = mfi_plan_held_max(&e->plan),
                               .n_hints_max = mfi_plan_hints_max(&e->plan),
                               .spare = e->plan.exclusive ? mfi_tier_spare : NULL,
                               .spare_user = e->tier};
    return mfi_store_open(&e->store, &config, err);
}

/* Fewer slots than experts, and no streaming. What else grows with the slots isn't counted. */
static mf_status fail_without_streaming(const mf_engine *e, mf_error *err)
{
    const mfi_plan *plan = &e->plan;
    uint64_t missing = (plan->n_experts_total - plan->n_slots) * plan->slot_stride;
    const char *of = !e->backend->device           ? ""
                     : e->backend->device->unified ? " (the smaller of --memory and --vram)"
                                                   : " of the device's memory (--vram)";
    return mfi_fail(err, MF_ERR_BUDGET,
                    "without streaming all %u experts have to be in memory, and the budget%s has "
                    "room for %u: at least %" PRIu64 " MiB more are needed",
                    plan->n_experts_total, of, plan->n_slots,
                    mfi_align_up(missing, MFI_MIB) / MFI_MIB);
}

/* A device that has room for every expert gets them now; a trace wants to see each choice. The host
 * gets them if it was asked for: a run that ends soon would wait for experts that it never uses. */
static mf_status settle(mf_engine *e, const mf_engine_options *o, mf_error *err)
{
    bool all = e->plan.n_slots == e->plan.n_experts_total;
    bool off = is(o->streaming, "off");
    if (off && !all)
        return fail_without_streaming(e, err);
    if (!all || (e->backend->device ? e->trace != NULL : !off))
        return MF_OK;
    return mfi_forward_settle(e->forward, o->progress, o->progress_user, err);
}

/* ---- after each evaluation ---- */

static void judge_hints(mf_engine *e, const mfi_run_facts *run)
{
    mfi_store_stats now, was = e->judged;
    mfi_store_stats_get(e->store, &now);
    mfi_hint_facts facts = {.wall_ns = run->wall_ns,
                            .stall_ns = now.stall_ns - was.stall_ns,
                            .reading_ns = now.reading_ns - was.reading_ns,
                            .bytes_read = now.bytes_read - was.bytes_read,
                            .hint_bytes = now.hint_bytes - was.hint_bytes,
                            .hints_useful = now.hints_useful - was.hints_useful,
                            .hints_late = now.hints_late - was.hints_late,
                            .hints_wasted = now.hints_wasted - was.hints_wasted};
    e->judged = now;
    bool on = e->judge.on;
    if (run->n_tok == run->n_seqs) /* a prompt's chunk would outweigh all tokens of a window */
        on = mfi_hint_judge_run(&e->judge, &facts);
    mfi_store_hints_set(e->store, on ? mfi_plan_hints_max(&e->plan) : 0);
}

/* A file that is written to in place gives reads that succeed, and experts that never belonged
 * together. Asked once an evaluation, if it read, or went through weights in the files' mapping; a
 * mirror's, if something was taken from it. */
static mf_status check_files(mf_engine *e, mf_error *err)
{
    mfi_io_stats io;
    uint32_t n = mfi_catalog_n_files(e->catalog);
    e->reader.io->stats(e->reader.io, &io);
    bool read = io.n_reads != e->n_reads_checked;
    for (uint32_t i = 0; i < n && (read || e->plan.n_ranges > 0); i++)
        MFI_TRY(mfi_file_check(e->files[i], err));
    e->n_reads_checked = io.n_reads;
    bool mirrored = e->copies && io.mirror_bytes != e->mirror_bytes_checked;
    for (uint32_t i = 0; i < n && mirrored; i++) /* one that can't be asked fails when it is read */
        if (mfi_file_check(&e->copies[i], err) == MF_ERR_FILE_CHANGED)
            return MF_ERR_FILE_CHANGED;
    e->mirror_bytes_checked = io.mirror_bytes;
    return MF_OK;
}

static mf_status after_run(void *user, const mfi_run_facts *run, mf_error *err)
{
    mf_engine *e = user;
    MFI_TRY(check_files(e, err));
    if (e->stats)
        mfi_stats_log_run(e->stats, run);
    if (e->watch)
        mfi_engine_watch_run(e->watch, run);
    if (e->hints_auto)
        judge_hints(e, run);
    return MF_OK;
}

static void open_hints(mf_engine *e, const mf_engine_options *o)
{
    bool on = is(o->hints, "on");
    /* With all experts in slots there is soon nothing to read; devices' stores aren't hinted at. */
    e->hints_auto = !asked(o->hints) && !e->backend->device &&
                    e->plan.n_slots < e->plan.n_experts_total && e->reader.bytes_per_second > 0;
    e->judge.drive_rate = e->reader.bytes_per_second;
    mfi_store_hints_set(e->store, on ? mfi_plan_hints_max(&e->plan) : 0);
    if (!is(o->hints, "off") && !e->backend->device && e->plan.n_slots < e->plan.n_experts_total)
        mfi_forward_read_ahead(e->forward, mfi_plan_hints_max(&e->plan));
}

static mf_status open_engine(mf_engine *e, const mf_engine_options *o, mf_error *err)
{
    const mfi_shape *s;
    mfi_engine_memory memory = {0};
    MFI_TRY(open_to_plan(e, o, err));
    MFI_TRY(open_mapped(e, o, err));
    s = &e->plan.program.shape;
    if (!e->backend)
        MFI_TRY(mfi_backend_cpu_open(&e->backend, e->plan.isa, e->plan.n_threads, err));
    MFI_TRY(
        mfi_load_expert_table(e->model, &e->plan.program, &e->table, &e->parts, &e->layers, err));
    MFI_TRY(open_io(e, o, err));
    MFI_TRY(open_memory(&memory, e, o, err));
    if (o->trace_path)
        MFI_TRY(mfi_trace_open(&e->trace, o->trace_path, o->model_path, s->n_layers, s->n_experts,
                               s->top_k, e->plan.expert_bytes_total / e->plan.n_experts_total,
                               err));
    if (o->watched)
        MFI_TRY(mfi_engine_watch_open(&e->watch, &e->plan, err));
    MFI_TRY(open_store(e, &memory, err));
    MFI_TRY(mfi_forward_open(&e->forward, &e->plan, e->backend, e->store, err));
    if (e->plan.helper)
        MFI_TRY(open_helper(e, err));
    MFI_TRY(settle(e, o, err));
    if (e->watch) { /* what was read until now is no evaluation's */
        mfi_engine_watch_begin(e->watch, e->store, e->tier != NULL, e->host_store);
        mfi_forward_watch(e->forward, mfi_engine_watch_experts(e->watch));
    }
    if (o->stats_path) {
        mfi_stats_log_options so = {o->stats_path, &e->plan, &e->reader,
                                    e->store,      e->tier,  e->host_store};
        MFI_TRY(mfi_stats_log_open(&e->stats, &so, err));
    }
    open_hints(e, o);
    mfi_forward_on_run(e->forward, after_run, e);
    if (o->collect_imatrix) {
        MFI_TRY(mfi_imatrix_open(&e->imatrix, e->model, &e->plan.program, err));
        mfi_forward_tap(e->forward, mfi_imatrix_tap, e->imatrix);
    }
    e->host = (mfi_session_host){.engine = e,
                                 .model_path = mfi_catalog_path(e->catalog),
                                 .plan = &e->plan,
                                 .forward = e->forward,
                                 .backend = e->backend,
                                 .tokenizer = e->tokenizer,
                                 .eos = e->gen.eos,
                                 .n_eos = e->gen.n_eos,
                                 .trie = e->trie,
                                 .progress = o->progress,
                                 .progress_user = o->progress_user};
    uint64_t disk = o->prefix_disk_bytes ? o->prefix_disk_bytes : PREFIX_DISK_BYTES;
    return o->prefix_dir ? mfi_prefix_open(&e->host.prefix, o->prefix_dir, disk, err) : MF_OK;
}

mf_status mf_engine_open(mf_engine **engine, const mf_engine_options *options, mf_error *err)
{
    mf_engine *e = calloc(1, sizeof *e);
    if (!e)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for an engine");
    mf_status status = open_engine(e, options, err);
    if (status != MF_OK) {
        mf_engine_close(&e);
        return status;
    }
    *engine = e;
    return MF_OK;
}

mf_status mf_engine_flush(mf_engine *e, mf_error *err)
{
    mf_error one = {0}, two = {0};
    mf_status trace = e->trace ? mfi_trace_flush(e->trace, &one) : MF_OK;
    mf_status stats = e->stats ? mfi_stats_log_status(e->stats, &two) : MF_OK;
    if (trace == MF_OK && stats == MF_OK)
        return MF_OK;
    return mfi_fail(err, trace != MF_OK ? trace : stats, "%s%s%s", one.message,
                    trace != MF_OK && stats != MF_OK ? "; " : "", two.message);
}

void mf_engine_close(mf_engine **engine)
{
    mf_engine *e = *engine;
    if (!e)
        return;
    mfi_prefix_close(&e->host.prefix);
    mfi_forward_close(&e->forward);
    mfi_stats_log_close(&e->stats);
    mfi_imatrix_close(&e->imatrix);
    mfi_vocab_trie_close(&e->trie);
    mfi_store_close(&e->store);
    if (e->tier)
        e->tier->close(e->tier);
    mfi_store_close(&e->host_store);
    free(e->tier_parts);
    mfi_engine_watch_close(&e->watch);
    mfi_trace_close(&e->trace, NULL);
    if (e->reader.io)
        e->reader.io->close(e->reader.io);
    if (e->mapped) /* nothing is under way when the mapping goes */
        (void)e->backend->sync(e->backend, NULL);
    mfi_engine_mapped_close(&e->mapped);
    if (e->helper)
        e->helper->close(e->helper);
    if (e->backend)
        e->backend->close(e->backend);
    if (e->planned)
        mfi_plan_free(&e->plan);
    free(e->times);
    free(e->parts);
    free(e->layers);
    if (e->copies)
        mfi_mirror_files_close(&e->copies, mfi_catalog_n_files(e->catalog));
    free(e->files);
    mfi_model_close(&e->model);
    mf_tokenizer_close(&e->tokenizer);
    mfi_catalog_close(&e->catalog);
    free(e);
    *engine = NULL;
}

/* ---- asking ---- */

void mf_engine_info(const mf_engine *e, mf_model_info *info)
{
    const mfi_shape *s = &e->plan.program.shape;
    *info =
        (mf_model_info){.struct_size = sizeof *info,
                        .n_layers = s->n_layers,
                        .hidden = s->hidden,
                        .n_vocab = s->n_vocab,
                        .n_experts = s->n_experts,
                        .top_k = s->top_k,
                        .ctx_model = e->model->ctx_model,
                        .ctx = e->plan.ctx,
                        .n_threads = e->plan.n_threads,
                        .chunk = e->plan.chunk,
                        .weight_bytes = e->plan.program.dense_bytes + e->plan.expert_bytes_total,
                        .token_bytes = e->plan.token_dense_bytes + e->plan.token_expert_bytes};
    snprintf(info->family, sizeof info->family, "%s", e->model->family);
    snprintf(info->isa, sizeof info->isa, "%s",
             e->backend->device ? e->backend->name : mfi_isa_name(e->plan.isa));
    snprintf(info->device, sizeof info->device, "%s", e->plan.device);
    info->slot_bytes = e->plan.slot_stride;
    info->n_slots = e->plan.n_slots;
    info->n_host_slots = e->plan.n_host_slots;
    snprintf(info->tier_reason, sizeof info->tier_reason, "%s", e->plan.tier_reason);
    info->drive_bytes_per_second = e->reader.bytes_per_second;
    info->isa_verified = e->backend->device || mfi_isa_verified(e->plan.isa);
    snprintf(info->activations, sizeof info->activations, "%s", mfi_plan_activations(&e->plan));
    snprintf(info->cache_type_k, sizeof info->cache_type_k, "%s", mfi_plan_cache_type(&e->plan, 0));
    snprintf(info->cache_type_v, sizeof info->cache_type_v, "%s", mfi_plan_cache_type(&e->plan, 1));
    snprintf(info->reader, sizeof info->reader, "%s", e->reader.reader);
    info->direct = e->reader.direct;
    snprintf(info->policy, sizeof info->policy, "%s", e->plan.policy);
    snprintf(info->reader_reason, sizeof info->reader_reason, "%s", e->reader.reason);
    const mf_error *failure = e->reader.mirror ? mfi_io_mirror_failure(e->reader.io) : NULL;
    if (failure)
        snprintf(info->mirror_failure, sizeof info->mirror_failure, "%.255s", failure->message);
    mfi_quant_name(e->plan.program.experts[mfi_program_expert_layer(&e->plan.program)].proj[0].type,
                   info->weights, sizeof info->weights);
}

const mf_tokenizer *mf_engine_tokenizer(const mf_engine *e)
{
    return e->tokenizer;
}

void mf_engine_sampling(const mf_engine *e, mf_sampling *sampling)
{
    *sampling = e->gen.sampling;
}

/* Since the last reset. */
static uint64_t fetched_bytes(const mf_engine *e)
{
    mfi_tier_stats tier = {0};
    if (e->host_store)
        mfi_tier_stats_get(e->tier, &tier);
    return tier.fetched_bytes - e->fetched_before;
}

void mf_engine_stats(const mf_engine *e, mf_stats *stats)
{
    mfi_store_stats s, below = {0};
    mfi_io_stats io;
    mfi_store_stats_get(e->store, &s);
    if (e->host_store)
        mfi_store_stats_get(e->host_store, &below);
    e->reader.io->stats(e->reader.io, &io);
    *stats = (mf_stats){.struct_size = sizeof *stats,
                        .expert_hits = s.hits,
                        .expert_misses = s.misses,
                        .expert_evictions = s.evictions,
                        .expert_bytes_read = e->tier ? below.bytes_read : s.bytes_read,
                        .expert_bytes_copied = e->tier ? s.bytes_read : 0,
                        .expert_bytes_fetched = fetched_bytes(e),
                        .experts_on_cpu = mfi_forward_n_on_cpu(e->forward),
                        .stall_ns = s.stall_ns,
                        .budget_bytes = e->plan.budget_bytes,
                        .peak_bytes = mfi_process_rss_peak(),
                        .dense_bytes = e->plan.program.dense_bytes,
                        .slot_bytes = e->plan.n_slots * e->plan.slot_stride,
                        .n_slots = e->plan.n_slots,
                        .n_experts_total = e->plan.n_experts_total,
                        .expert_bytes_total = e->plan.expert_bytes_total,
                        .mirror_bytes_read = io.mirror_bytes,
                        .tokens_evaluated = mfi_forward_n_tokens(e->forward),
                        .hint_bytes = s.hint_bytes,
                        .hints_useful = s.hints_useful,
                        .hints_late = s.hints_late,
                        .hints_wasted = s.hints_wasted,
                        .hints_dropped = s.hints_dropped};
}

void mf_engine_stats_reset(mf_engine *e)
{
    e->fetched_before += fetched_bytes(e);
    mfi_store_stats_reset(e->store);
    if (e->host_store)
        mfi_store_stats_reset(e->host_store);
    e->judged = (mfi_store_stats){0};
    mfi_forward_n_tokens_reset(e->forward);
    if (e->times)
        memset(e->times, 0,
               (e->plan.program.n_ops + e->plan.program.n_hint_ops) * sizeof *e->times);
}

mf_status mf_engine_time_ops(mf_engine *e, bool on, mf_error *err)
{
    size_t n = (size_t)e->plan.program.n_ops + e->plan.program.n_hint_ops;
    mfi_op_time *times = on ? calloc(n, sizeof *times) : NULL;
    if (on && !times)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the times of %u ops",
                        e->plan.program.n_ops);
    mfi_forward_time_ops(e->forward, times);
    free(e->times);
    e->times = times;
    return MF_OK;
}

size_t mf_engine_op_times(const mf_engine *e, mf_op_time *times, size_t n_max)
{
    return e->times ? mfi_engine_sum_ops(&e->plan.program, e->times, times, n_max) : 0;
}

mfi_session_host *mfi_engine_session_host(mf_engine *e)
{
    return &e->host;
}

const mfi_engine_watch *mfi_engine_watch_of(const mf_engine *e)
{
    return e->watch;
}

mf_status mfi_engine_identity(mf_engine *e, const mfi_identity **id, mf_error *err)
{
    if (!e->identified)
        MFI_TRY(mfi_identity_make(&e->identity, e->catalog, &e->plan, e->backend, e->dense, err));
    e->identified = true;
    *id = &e->identity;
    return MF_OK;
}

/* ---- importance matrix ---- */

/* Makes of a piece's progress the whole's. */
typedef struct piece_progress {
    mf_progress_fn fn;
    void *user;
    uint64_t before, total;
} piece_progress;

static bool report_piece(void *user, const char *what, const char *unit, uint64_t done,
                         uint64_t total)
{
    const piece_progress *p = user;
    (void)what, (void)total;
    return !p->fn || p->fn(p->user, "collecting", unit, p->before + done, p->total);
}

static mf_status collect(mf_engine *e, mf_session *session, const int32_t *tokens, size_t n,
                         uint32_t chunk, piece_progress *progress, mf_error *err)
{
    for (size_t at = 0; at < n; at += chunk) {
        size_t len = MFI_MIN(n - at, (size_t)chunk);
        mf_session_reset(session);
        MFI_TRY(mf_session_eval(session, tokens + at, len, NULL, err));
        mfi_imatrix_count(e->imatrix, chunk);
        progress->before = at + len;
        if (!report_piece(progress, NULL, "tokens", 0, 0))
            return mfi_fail(err, MF_ERR_CANCELLED, "cancelled after %zu of %zu tokens", at + len,
                            n);
    }
    return MF_OK;
}

mf_status mf_imatrix_collect(mf_engine *engine, const int32_t *tokens, size_t n_tokens,
                             uint32_t chunk, mf_error *err)
{
    mf_session *session = NULL;
    if (!engine->imatrix)
        return mfi_fail(err, MF_ERR_STATE, "the engine was not opened with collect_imatrix");
    if (chunk == 0 || chunk > engine->plan.ctx)
        chunk = engine->plan.ctx;
    MFI_TRY(mf_session_open(&session, engine, err));
    mfi_session_host *host = &engine->host;
    piece_progress progress = {host->progress, host->progress_user, 0, n_tokens};
    host->progress = report_piece;
    host->progress_user = &progress;
    mf_status status = collect(engine, session, tokens, n_tokens, chunk, &progress, err);
    host->progress = progress.fn;
    host->progress_user = progress.user;
    mf_session_close(&session);
    return status;
}

mf_status mf_imatrix_write(const mf_engine *engine, const char *path, const char *dataset,
                           mf_error *err)
{
    if (!engine->imatrix)
        return mfi_fail(err, MF_ERR_STATE, "the engine was not opened with collect_imatrix");
    return mfi_imatrix_write(engine->imatrix, path, dataset ? dataset : "", err);
}

/* ---- plan only ---- */

mf_status mf_plan_write(const mf_engine_options *options, bool json, mf_write_fn write, void *user,
                        mf_error *err)
{
    mf_engine *e = calloc(1, sizeof *e);
    if (!e)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a plan");
    mf_status status = open_to_plan(e, options, err);
    bool stands = status == MF_OK || (status == MF_ERR_BUDGET && e->planned);
    mfi_buf out = {0};
    if (stands)
        mfi_plan_print(&e->plan, e->model, &e->machine, json, &out);
    if (stands && out.failed)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to print the plan");
    else if (stands && !write(user, out.data, out.len))
        status = mfi_fail(err, MF_ERR_CANCELLED, "the plan's output was refused");
    mfi_buf_free(&out);
    mf_engine_close(&e);
    return status;
}
