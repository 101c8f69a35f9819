/* The engine put together by hand; see rig.h. */
#include "fake/rig.h"

#include <stdlib.h>
#include <string.h>

#include "engine_int.h"
#include "experts/tier.h"
#include "fake/support.h"

/* A CPU that is as forgetful as a device: the order of rows is what the last EXPERTS brought. */
typedef struct remote {
    mfi_backend base;
    mfi_backend *cpu;
    const mfi_program *p;
    uint32_t *pair_of;
} remote;

struct mft_rig {
    mfi_catalog *catalog;
    mfi_model *model;
    mfi_machine machine;
    mfi_plan plan;
    mfi_backend *backend;
    const mfi_file **files;
    mft_io_fake_file *fake_files;
    mfi_io *io;
    mfi_expert_part *parts;
    uint32_t *layers;
    mfi_store *store, *host_store;
    mfi_io *tier;
    mfi_expert_part *tier_parts;
    char *host_slots;
    uint64_t n_copies, n_fetches;
    mfi_program helper_program;
    mfi_backend *helper;
    mfi_forward *forward;
    mfi_layer_mem *mem;
};

void mft_rig_default(mft_rig_options *options, const char *folder)
{
    *options = (mft_rig_options){.folder = folder,
                                 .chunk = 64,
                                 .n_threads = 1,
                                 .ctx = 128,
                                 .activations = MF_ACTIVATIONS_F32,
                                 .isa = mfi_cpu_isa()};
}

static void open_io(mft_rig *r, const mft_rig_options *o)
{
    mf_error err;
    uint32_t n = mfi_catalog_n_files(r->catalog);
    r->files = calloc(n, sizeof *r->files);
    r->fake_files = calloc(n, sizeof *r->fake_files);
    for (uint32_t i = 0; i < n; i++) {
        r->files[i] = mfi_catalog_file(r->catalog, i);
        r->fake_files[i].file = r->files[i];
    }
    if (!o->fake_io) {
        mft_ok(mfi_io_threads_open(&r->io, r->files, n, &(mfi_io_options){2, MFI_MIB, false}, &err),
               &err);
        return;
    }
    mft_io_fake_config config = o->fake;
    config.files = r->fake_files;
    config.n_files = n;
    config.n_reqs_max = 1 << 16;
    mft_ok(mft_io_fake_open(&r->io, &config, &err), &err);
}

static mf_status remote_run(mfi_backend *b, uint32_t first, uint32_t n, const mfi_step *step,
                            mf_error *err)
{
    remote *r = (remote *)b;
    size_t bytes = (size_t)step->n_tok * r->p->shape.top_k * sizeof *r->pair_of;
    mfi_step mine = *step;
    mine.pair_of = r->pair_of;
    for (uint32_t i = first; i < first + n; i++) {
        if (r->p->ops[i].code == MFI_OP_EXPERTS)
            memcpy(r->pair_of, step->pair_of, bytes);
        MFI_TRY(r->cpu->run(r->cpu, i, 1, &mine, err));
    }
    return MF_OK;
}

static mf_status remote_read(mfi_backend *b, mfi_buf_id buf, uint32_t row, uint32_t n_rows,
                             void *dst, mf_error *err)
{
    mfi_backend *cpu = ((remote *)b)->cpu;
    return cpu->read(cpu, buf, row, n_rows, dst, err);
}

static mf_status remote_write(mfi_backend *b, mfi_mem_kind kind, uint64_t offset, const void *src,
                              uint64_t len, mf_error *err)
{
    mfi_backend *cpu = ((remote *)b)->cpu;
    return cpu->write(cpu, kind, offset, src, len, err);
}

static const void *remote_view(mfi_backend *b, mfi_buf_id buf)
{
    mfi_backend *cpu = ((remote *)b)->cpu;
    return cpu->view(cpu, buf);
}

static mf_status remote_sync(mfi_backend *b, mf_error *err)
{
    mfi_backend *cpu = ((remote *)b)->cpu;
    return cpu->sync(cpu, err);
}

static void remote_close(mfi_backend *b)
{
    remote *r = (remote *)b;
    r->cpu->close(r->cpu);
    free(r->pair_of);
    free(r);
}

static mfi_backend *remote_of(mfi_backend *cpu, const mfi_program *p)
{
    remote *r = calloc(1, sizeof *r);
    *r = (remote){.base = {.name = "remote",
                           .read = remote_read,
                           .write = remote_write,
                           .view = remote_view,
                           .run = remote_run,
                           .sync = remote_sync,
                           .close = remote_close},
                  .cpu = cpu,
                  .p = p,
                  .pair_of = calloc((size_t)p->chunk * p->shape.top_k, sizeof *r->pair_of)};
    return &r->base;
}

/* Copies that end at once. */
static mf_status copy(void *ctx, void *dst, const void *src, uint64_t len, uint64_t *ticket,
                      mf_error *err)
{
    (void)err;
    memcpy(dst, src, len);
    *ticket = ++((mft_rig *)ctx)->n_copies;
    return MF_OK;
}

static mf_status copied(void *ctx, uint64_t ticket, uint64_t *n_ended, mf_error *err)
{
    (void)ticket, (void)err;
    *n_ended = ((mft_rig *)ctx)->n_copies;
    return MF_OK;
}

static mf_status fetch(void *ctx, void *dst, const void *src, uint64_t len, uint64_t *ticket,
                       mf_error *err)
{
    (void)err;
    memcpy(dst, src, len);
    *ticket = ++((mft_rig *)ctx)->n_fetches;
    return MF_OK;
}

static mf_status fetched(void *ctx, uint64_t ticket, uint64_t *n_ended, mf_error *err)
{
    (void)ticket, (void)err;
    *n_ended = ((mft_rig *)ctx)->n_fetches;
    return MF_OK;
}

/* Puts a tier of the host's below the store that `config` is for. */
static void open_tier(mft_rig *r, const mft_rig_options *o, mfi_store_config *config)
{
    mf_error err;
    mfi_mover mover = {r, copy, copied, fetch, fetched};
    mfi_tier_slots above = {config->slots, config->slot_stride, config->n_slots};
    mfi_store_config below = *config;
    uint32_t most = o->n_host_slots - (o->miss_cpu ? MFI_MAX_MISS_HELD : 0);
    r->host_slots = malloc(o->n_host_slots * r->plan.slot_stride);
    below.slots = r->host_slots;
    below.n_slots = below.n_refs_max = o->n_host_slots;
    below.n_hints_max = 0;
    mft_ok(mfi_store_open(&r->host_store, &below, &err), &err);
    mft_ok(mfi_tier_open(&r->tier, r->host_store, &mover, o->exclusive ? most / 2 : most,
                         o->exclusive ? &above : NULL, &err),
           &err);
    mft_ok(mfi_tier_table(&below.table, &config->table, &r->tier_parts, &err), &err);
    config->io = r->tier;
    config->spare = o->exclusive ? mfi_tier_spare : NULL;
    config->spare_user = r->tier;
}

static void open_helper(mft_rig *r)
{
    mf_error err;
    void *memory;
    mft_ok(mfi_plan_emit(&r->helper_program, r->model, MFI_MAX_MISS_TOK, 1, r->plan.activations,
                         r->plan.cache_type, &err),
           &err);
    mft_ok(mfi_backend_cpu_open(&r->helper, r->plan.isa, r->plan.n_threads, &err), &err);
    mfi_backend *b = r->helper;
    mft_ok(b->alloc(b, MFI_MEM_DENSE, 1, &memory, &err), &err);
    mft_ok(b->alloc(b, MFI_MEM_SCRATCH, r->helper_program.scratch_bytes, &memory, &err), &err);
    mft_ok(b->prepare(b, &r->helper_program, &err), &err);
    mfi_forward_miss_on(r->forward, r->helper, r->host_store);
}

mft_rig *mft_rig_open(const mft_rig_options *o)
{
    mf_error err;
    void *dense, *scratch, *slots;
    mft_rig *r = calloc(1, sizeof *r);
    mfi_plan_options po = {.memory_bytes = MFI_GIB,
                           .ctx = o->ctx,
                           .chunk = o->chunk,
                           .n_threads = o->n_threads,
                           .activations = o->activations,
                           .cache_type = {o->cache_type[0], o->cache_type[1]},
                           .isa = o->isa};
    mft_ok(mfi_format_open(&r->catalog, o->folder, &err), &err);
    mft_ok(mfi_model_open(&r->model, r->catalog, &err), &err);
    mfi_machine_read(&r->machine);
    mft_ok(mfi_plan_make(&r->plan, r->model, &r->machine, &po, &err), &err);
    if (o->n_slots)
        r->plan.n_slots = o->n_slots;
    const mfi_program *p = &r->plan.program;
    mft_ok(mfi_backend_cpu_open(&r->backend, r->plan.isa, r->plan.n_threads, &err), &err);
    mfi_backend *b = r->backend;
    mft_ok(b->alloc(b, MFI_MEM_DENSE, p->dense_bytes, &dense, &err), &err);
    mft_ok(b->alloc(b, MFI_MEM_SCRATCH, p->scratch_bytes, &scratch, &err), &err);
    mft_ok(b->alloc(b, MFI_MEM_SLOTS, r->plan.n_slots * r->plan.slot_stride, &slots, &err), &err);
    open_io(r, o);
    mfi_io *loading;
    mft_ok(mfi_io_threads_open(&loading, r->files, mfi_catalog_n_files(r->catalog),
                               &(mfi_io_options){1, MFI_MIB, false}, &err),
           &err);
    mft_ok(mfi_load_dense(p, r->catalog, loading, dense, NULL, NULL, NULL, &err), &err);
    loading->close(loading);
    mft_ok(b->prepare(b, p, &err), &err);
    if (o->n_host_slots)
        b = r->backend = remote_of(b, p);
    mfi_store_config config = {.slots = slots,
                               .slot_stride = r->plan.slot_stride,
                               .n_slots = r->plan.n_slots,
                               .policy = &mfi_policy_lru,
                               .io = r->io,
                               .n_refs_max = mfi_plan_held_max(&r->plan),
                               .n_hints_max = o->n_hints};
    mft_ok(mfi_load_expert_table(r->model, p, &config.table, &r->parts, &r->layers, &err), &err);
    if (o->n_host_slots)
        open_tier(r, o, &config);
    mft_ok(mfi_store_open(&r->store, &config, &err), &err);
    mfi_store_hints_set(r->store, o->n_hints);
    mft_ok(mfi_forward_open(&r->forward, &r->plan, b, r->store, &err), &err);
    if (o->miss_cpu)
        open_helper(r);
    r->mem = calloc(p->shape.n_layers, sizeof *r->mem);
    for (uint32_t i = 0; i < p->shape.n_layers; i++) {
        r->mem[i].kv =
            calloc(1, p->state[i].kv_pos_bytes * mfi_kv_rows(&p->state[i], r->plan.ctx) + 1);
        r->mem[i].recurrent = calloc(1, p->state[i].recurrent_bytes + 1);
    }
    return r;
}

void mft_rig_close(mft_rig *r)
{
    for (uint32_t i = 0; i < r->plan.program.shape.n_layers; i++) {
        free(r->mem[i].kv);
        free(r->mem[i].recurrent);
    }
    free(r->mem);
    mfi_forward_close(&r->forward);
    mfi_store_close(&r->store);
    if (r->tier)
        r->tier->close(r->tier);
    mfi_store_close(&r->host_store);
    if (r->helper)
        r->helper->close(r->helper);
    mfi_program_free(&r->helper_program);
    free(r->tier_parts);
    free(r->host_slots);
    r->io->close(r->io);
    r->backend->close(r->backend);
    mfi_plan_free(&r->plan);
    free(r->parts);
    free(r->layers);
    free(r->files);
    free(r->fake_files);
    mfi_model_close(&r->model);
    mfi_catalog_close(&r->catalog);
    free(r);
}

const mfi_shape *mft_rig_shape(const mft_rig *r)
{
    return &r->plan.program.shape;
}

mfi_store *mft_rig_store(mft_rig *r)
{
    return r->store;
}

mfi_io *mft_rig_io(mft_rig *r)
{
    return r->io;
}

mfi_forward *mft_rig_forward(mft_rig *r)
{
    return r->forward;
}

const mfi_program *mft_rig_program(const mft_rig *r)
{
    return &r->plan.program;
}

static bool take_logits(void *user, size_t index, const float *row, size_t n)
{
    memcpy((float *)user + index * n, row, n * sizeof *row);
    return true;
}

mf_status mft_rig_eval(mft_rig *r, const int32_t *ids, uint32_t n, float *logits, mf_error *err)
{
    const mfi_program *p = &r->plan.program;
    mf_eval_outputs out = {sizeof out, take_logits, NULL, logits};
    for (uint32_t i = 0; i < p->shape.n_layers; i++)
        memset(r->mem[i].recurrent, 0, p->state[i].recurrent_bytes);
    for (uint32_t at = 0; at < n; at += r->plan.chunk) {
        uint32_t len = MFI_MIN(n - at, r->plan.chunk);
        mfi_run run = {ids + at, len, at, r->mem, logits ? MFI_WANT_ALL : MFI_WANT_NOTHING};
        MFI_TRY(mfi_forward_run(r->forward, &run, 1, &out, at, err));
    }
    return MF_OK;
}

mf_status mft_rig_step(mft_rig *r, const int32_t *ids, uint32_t n, uint32_t pos, mf_error *err)
{
    mfi_run run = {ids, n, pos, r->mem, MFI_WANT_LAST};
    return mfi_forward_run(r->forward, &run, 1, NULL, 0, err);
}

const float *mft_rig_logits(const mft_rig *r)
{
    return mfi_forward_logits(r->forward, 0);
}
