/* Whose states a snapshot's identity takes for its own: weights that a device has copied and
 * weights that it uses in the files' mapping are the same model, whatever the budgets left where;
 * another weight isn't, nor is an engine whose CPU computes what the device lacks, nor one that
 * takes the same tensors for other heads. The device is memory of the test's. */
#include "fake/support.h"
#include "fake/tiny_model.h"

#include <stdlib.h>
#include <string.h>

#include "engine_int.h"

typedef struct held {
    mfi_backend base;
    char *dense;
} held;

static void *address(mfi_backend *b, mfi_mem_kind kind)
{
    assert_int_equal(kind, MFI_MEM_DENSE);
    return ((held *)b)->dense;
}

static mf_status move(mfi_backend *b, void *dst, const void *src, uint64_t bytes, mf_error *err)
{
    (void)b, (void)err;
    memcpy(dst, src, bytes);
    return MF_OK;
}

static mf_status keep(mfi_backend *b, mfi_mem_kind kind, uint64_t offset, const void *src,
                      uint64_t len, mf_error *err)
{
    (void)kind, (void)err;
    memcpy(((held *)b)->dense + offset, src, len);
    return MF_OK;
}

static const mfi_device_ops device_ops = {.address = address, .move = move};

typedef struct planned {
    uint32_t n_in_place, n_ranges;
    uint64_t vram_bytes; /* that it takes of the device */
    mfi_identity id;
} planned;

/* changed: a byte of the resident weights is another. */
static planned identify(mfi_catalog *catalog, const mfi_model *model, const mfi_plan_options *o,
                        bool changed)
{
    mf_error err;
    mfi_plan plan;
    mfi_machine machine;
    mfi_io *io;
    mfi_machine_read(&machine);
    mft_ok(mfi_plan_make(&plan, model, &machine, o, &err), &err);
    const mfi_program *p = &plan.program;
    held b = {{.name = "device", .device = &device_ops, .write = keep},
              calloc(1, p->dense_bytes + 1)};
    const mfi_file *files[] = {mfi_catalog_file(catalog, 0)};
    mft_ok(mfi_io_threads_open(&io, files, 1, &(mfi_io_options){1, MFI_MIB, false}, &err), &err);
    mft_ok(mfi_load_dense(p, catalog, io, NULL, &b.base, NULL, NULL, &err), &err);
    io->close(io);
    if (changed)
        b.dense[0] ^= 1;
    planned got = {.n_in_place = plan.n_in_place, .n_ranges = plan.n_ranges};
    for (uint32_t i = 0; i < MFI_PLAN_N_ITEMS; i++)
        got.vram_bytes += plan.vram[i];
    mft_ok(mfi_identity_make(&got.id, catalog, &plan, &b.base, NULL, &err), &err);
    free(b.dense);
    mfi_plan_free(&plan);
    return got;
}

static bool same_model(const planned *a, const planned *b)
{
    return memcmp(a->id.model, b->id.model, sizeof a->id.model) == 0;
}

static void wherever_weights_lie(void **state)
{
    (void)state;
    mf_error err;
    mft_tiny spec;
    mfi_catalog *catalog;
    mfi_model *model;
    mfi_plan_device device = {.name = "a device",
                              .total_bytes = 80 * MFI_GIB,
                              .free_bytes = 79 * MFI_GIB,
                              .weight_align = 1, /* the files of tests are not aligned */
                              .page_bytes = 4096};
    mfi_plan_options o = {.memory_bytes = MFI_GIB, .ctx = 64, .chunk = 8, .device = &device};
    mft_tiny_default(&spec);
    spec.tied = false;
    spec.n_experts = 32;
    mft_ok(mfi_format_open(&catalog, mft_tiny_write(&spec), &err), &err);
    mft_ok(mfi_model_open(&model, catalog, &err), &err);
    planned all = identify(catalog, model, &o, false), other = identify(catalog, model, &o, true);
    assert_int_equal(all.n_in_place, 0);
    assert_false(same_model(&all, &other));
    o.vram_bytes = all.vram_bytes - 2 * 4096; /* two experts less, and the embedding stays */
    planned table = identify(catalog, model, &o, false);
    assert_int_equal(table.n_in_place, 1);
    assert_true(same_model(&all, &table));
    assert_int_equal(all.id.numerics, table.id.numerics);
    o.host_tier = "mapped";
    planned mapped = identify(catalog, model, &o, false);
    assert_true(mapped.n_ranges > 0 && same_model(&all, &mapped));
    assert_int_equal(all.id.numerics, mapped.id.numerics);
    o.host_tier = NULL;
    o.miss_cpu = true;
    planned helped = identify(catalog, model, &o, false);
    assert_true(same_model(&all, &helped));
    assert_int_not_equal(all.id.numerics, helped.id.numerics);
    assert_non_null(strstr(helped.id.text, "+cpu"));
    mfi_model_close(&model);
    mfi_catalog_close(&catalog);
}

/* The same tensors, which another configuration cuts into other heads. */
static void heads_of_another_cut(void **state)
{
    (void)state;
    mf_error err;
    mft_tiny spec;
    planned cut[2];
    mfi_plan_device device = {
        .name = "a device", .total_bytes = 80 * MFI_GIB, .free_bytes = 79 * MFI_GIB};
    mfi_plan_options o = {.memory_bytes = MFI_GIB, .ctx = 64, .chunk = 8, .device = &device};
    mft_tiny_default(&spec);
    for (uint32_t i = 0; i < 2; i++) {
        mfi_catalog *catalog;
        mfi_model *model;
        spec.k_heads = i ? 4 : 2;
        spec.k_dim = 12 / spec.k_heads;
        mft_ok(mfi_format_open(&catalog, mft_tiny_write(&spec), &err), &err);
        mft_ok(mfi_model_open(&model, catalog, &err), &err);
        cut[i] = identify(catalog, model, &o, false);
        mfi_model_close(&model);
        mfi_catalog_close(&catalog);
    }
    assert_true(same_model(&cut[0], &cut[1]));
    assert_int_not_equal(cut[0].id.numerics, cut[1].id.numerics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(wherever_weights_lie),
                                       cmocka_unit_test(heads_of_another_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
