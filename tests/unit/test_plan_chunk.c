/* The chunk that the plan chooses: beyond what arithmetic gains by it, only where a conversation
 * reads fewer bytes for it, counted here from the plans' own slots. */
#include "fake/support.h"
#include "fake/tiny_model.h"

#include <math.h>

#include "format/format.h"
#include "plan/plan.h"

typedef struct planned {
    mfi_catalog *catalog;
    mfi_model *model;
    mfi_machine machine;
    mfi_plan_options options;
} planned;

static void open_model(planned *p)
{
    mf_error err;
    mft_tiny spec;
    mft_tiny_default(&spec);
    spec.n_experts = 512;
    spec.fused = true; /* few tensors */
    spec.hidden = spec.width = 64;
    spec.ctx = 4096;
    *p = (planned){.options = {.ctx = 4096, .n_threads = 2}};
    mft_ok(mfi_format_open(&p->catalog, mft_tiny_write(&spec), &err), &err);
    mft_ok(mfi_model_open(&p->model, p->catalog, &err), &err);
    p->machine = (mfi_machine){.n_cpus = 2,
                               .mem_available = 8 * MFI_GIB,
                               .cgroup_limit = UINT64_MAX,
                               .rss_bytes = MFI_MIB};
}

static void close_model(planned *p)
{
    mfi_model_close(&p->model);
    mfi_catalog_close(&p->catalog);
}

static mf_status make(planned *p, mfi_plan *plan, uint64_t memory, uint32_t chunk, mf_error *err)
{
    p->options.memory_bytes = memory;
    p->options.chunk = chunk;
    return mfi_plan_make(plan, p->model, &p->machine, &p->options, err);
}

/* Experts that a prompt of 2048 tokens and an answer of 512 read, with uniform routing, as a part
 * of all: chunks after the first, and tokens, find what is cached. */
static double reads(planned *p, uint64_t memory, uint32_t chunk)
{
    mf_error err;
    mfi_plan plan;
    mft_ok(make(p, &plan, memory, chunk, &err), &err);
    double part = (double)plan.program.shape.top_k / plan.program.shape.n_experts;
    double missing = 1 - (double)plan.n_slots / plan.n_experts_total;
    double n = 0;
    for (uint32_t at = 0; at < 2048; at += chunk)
        n += (1 - pow(1 - part, chunk)) * (at ? missing : 1);
    for (uint32_t t = 0; t < 512; t++)
        n += part * missing;
    mfi_plan_free(&plan);
    return n;
}

static void a_longer_chunk_pays(void **state)
{
    (void)state;
    mf_error err;
    planned p;
    mfi_plan plan;
    uint32_t n_longer = 0, n_as_before = 0;
    open_model(&p);
    assert_int_equal(make(&p, &plan, MFI_MIB, 0, &err), MF_ERR_BUDGET);
    uint64_t floor = plan.floor_bytes;
    mfi_plan_free(&plan);
    for (uint64_t memory = floor;; memory += MFI_MIB / 2) {
        mft_ok(make(&p, &plan, memory, 0, &err), &err);
        uint32_t chunk = plan.chunk;
        bool all = plan.n_slots == plan.n_experts_total;
        mfi_plan_free(&plan);
        if (chunk > 512) {
            n_longer++;
            assert_true(chunk == 1024 || chunk == 2048);
            assert_true(reads(&p, memory, chunk) < reads(&p, memory, chunk / 2));
        } else if (chunk == 512) {
            n_as_before++;
        }
        if (all) {
            assert_int_equal(chunk, 512); /* nothing is read again */
            break;
        }
    }
    assert_true(n_as_before > 0);
    assert_true(n_longer > 1);
    close_model(&p);
}

static void threads_go_by_cores(void **state)
{
    (void)state;
    static const struct {
        uint32_t cpus, cores, asked, threads;
    } cases[] = {{2, 2, 0, 2},    {2, 1, 0, 2},  {6, 3, 0, 6},   {8, 4, 0, 4},
                 {16, 16, 0, 16}, {16, 8, 0, 8}, {16, 8, 12, 12}};
    planned p;
    open_model(&p);
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mf_error err;
        mfi_plan plan;
        p.machine.n_cpus = cases[i].cpus;
        p.machine.n_cores = cases[i].cores;
        p.options.n_threads = cases[i].asked;
        mft_ok(make(&p, &plan, 0, 0, &err), &err);
        assert_int_equal(plan.n_threads, cases[i].threads);
        mfi_plan_free(&plan);
    }
    close_model(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_longer_chunk_pays),
                                       cmocka_unit_test(threads_go_by_cores)};
    return mft_run(tests);
}
