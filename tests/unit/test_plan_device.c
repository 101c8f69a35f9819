/* The plan for a device that is only described: no device is needed. What it says must add up, keep
 * to both budgets, and name floors that work when they are typed back in. */
#include "fake/support.h"
#include "fake/tiny_model.h"

#include <string.h>

#include "format/format.h"
#include "plan/plan.h"

typedef struct planned {
    mfi_catalog *catalog;
    mfi_model *model;
    mfi_machine machine;
    mfi_plan_device device;
    mfi_plan_options options;
} planned;

static void open_model(planned *p)
{
    mf_error err;
    mft_tiny spec;
    mft_tiny_default(&spec);
    spec.n_experts = 32;
    *p = (planned){
        .device = {.name = "a device", .total_bytes = 80 * MFI_GIB, .free_bytes = 79 * MFI_GIB}};
    mft_ok(mfi_format_open(&p->catalog, mft_tiny_write(&spec), &err), &err);
    mft_ok(mfi_model_open(&p->model, p->catalog, &err), &err);
    mfi_machine_read(&p->machine);
    p->options = (mfi_plan_options){.memory_bytes = MFI_GIB, .ctx = 64, .device = &p->device};
}

static void close_model(planned *p)
{
    mfi_model_close(&p->model);
    mfi_catalog_close(&p->catalog);
}

static uint64_t sum(const uint64_t *items)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < MFI_PLAN_N_ITEMS; i++)
        total += items[i];
    return total;
}

static mf_status make(planned *p, mfi_plan *plan, mf_error *err)
{
    mf_status status = mfi_plan_make(plan, p->model, &p->machine, &p->options, err);
    if (status == MF_OK) {
        assert_true(plan->fits);
        assert_true(sum(plan->vram) <= plan->vram_budget_bytes);
        assert_true(sum(plan->bytes) <= plan->budget_bytes);
        assert_true(plan->vram_budget_bytes <= p->device.free_bytes);
        assert_int_equal(plan->vram[MFI_PLAN_DENSE], plan->program.dense_bytes);
        assert_int_equal(plan->bytes[MFI_PLAN_DENSE], 0);
        for (uint32_t i = 0; i < plan->program.n_weights; i++)
            assert_int_equal(plan->program.weights[i].x_bits, 0);
    }
    return status;
}

static void all_fit(void **state)
{
    (void)state;
    mf_error err;
    planned p;
    mfi_plan plan;
    open_model(&p);
    mft_ok(make(&p, &plan, &err), &err);
    assert_int_equal(plan.n_slots, plan.n_experts_total);
    assert_true(plan.n_host_slots > 0 && plan.n_host_slots <= plan.n_experts_total);
    assert_int_equal(plan.program.ctx, 64);
    mfi_plan_free(&plan);
    close_model(&p);
}

/* From the least that is refused to all experts: each slot more costs its bytes. */
static void budgets(void **state)
{
    (void)state;
    mf_error err;
    planned p;
    mfi_plan plan;
    open_model(&p);
    mft_ok(make(&p, &plan, &err), &err);
    uint64_t floor = plan.vram_floor_bytes, stride = plan.slot_stride;
    uint32_t total = plan.n_experts_total, top_k = plan.program.shape.top_k, last = 0;
    mfi_plan_free(&plan);
    for (uint32_t more = 0; more <= total; more++) {
        p.options.vram_bytes = floor + more * stride;
        mft_ok(make(&p, &plan, &err), &err);
        assert_true(plan.n_slots >= top_k && plan.n_slots >= last);
        assert_true(plan.n_slots == total || plan.n_slots >= top_k + more);
        last = plan.n_slots;
        if (plan.n_slots < total) /* the rest waits on the host */
            assert_int_equal(plan.n_host_slots, total);
        mfi_plan_free(&plan);
    }
    assert_int_equal(last, total);
    p.options.vram_bytes = floor - MFI_MIB - stride * top_k;
    assert_int_equal(make(&p, &plan, &err), MF_ERR_BUDGET);
    assert_non_null(strstr(err.message, "--vram"));
    mfi_plan_free(&plan);
    close_model(&p);
}

static void host_floor(void **state)
{
    (void)state;
    mf_error err;
    planned p;
    mfi_plan plan;
    open_model(&p);
    p.options.memory_bytes = MFI_MIB;
    assert_int_equal(make(&p, &plan, &err), MF_ERR_BUDGET);
    p.options.memory_bytes = plan.floor_bytes;
    mfi_plan_free(&plan);
    mft_ok(make(&p, &plan, &err), &err);
    mfi_plan_free(&plan);
    close_model(&p);
}

/* States to go back to lie in the host's memory: they count there, and not on the device. The least
 * budget is the same. */
static void checkpoints(void **state)
{
    (void)state;
    mf_error err;
    planned p;
    mfi_plan plan, with;
    open_model(&p);
    p.options.n_sessions = 2;
    mft_ok(make(&p, &plan, &err), &err);
    p.options.n_checkpoints = 3;
    mft_ok(make(&p, &with, &err), &err);
    assert_int_equal(plan.n_checkpoints, 0);
    assert_int_equal(with.n_checkpoints, 3);
    assert_true(with.checkpoint_bytes > 0);
    assert_int_equal(plan.bytes[MFI_PLAN_STATE], 0);
    assert_int_equal(with.bytes[MFI_PLAN_STATE], 2 * 3 * with.checkpoint_bytes);
    assert_int_equal(with.vram[MFI_PLAN_STATE], plan.vram[MFI_PLAN_STATE]);
    assert_int_equal(with.floor_bytes, plan.floor_bytes);
    p.options.memory_bytes = with.floor_bytes;
    mfi_plan_free(&plan);
    mft_ok(make(&p, &plan, &err), &err);
    mfi_plan_free(&plan);
    mfi_plan_free(&with);
    close_model(&p);
}

static void refused(void **state)
{
    (void)state;
    mf_error err;
    planned p;
    mfi_plan plan;
    open_model(&p);
    p.options.vram_bytes = p.device.free_bytes + 1;
    assert_int_equal(make(&p, &plan, &err), MF_ERR_BUDGET);
    assert_non_null(strstr(err.message, "a device has"));
    mfi_plan_free(&plan);
    p.options.vram_bytes = 0;
    p.options.activations = MF_ACTIVATIONS_Q8;
    assert_int_equal(make(&p, &plan, &err), MF_ERR_ARGUMENT);
    mfi_plan_free(&plan);
    close_model(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_fit), cmocka_unit_test(budgets),
                                       cmocka_unit_test(host_floor), cmocka_unit_test(checkpoints),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
