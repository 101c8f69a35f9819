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

static void open_tiny(planned *p, const mft_tiny *spec)
{
    mf_error err;
    *p = (planned){
        .device = {.name = "a device", .total_bytes = 80 * MFI_GIB, .free_bytes = 79 * MFI_GIB}};
    mft_ok(mfi_format_open(&p->catalog, mft_tiny_write(spec), &err), &err);
    mft_ok(mfi_model_open(&p->model, p->catalog, &err), &err);
    mfi_machine_read(&p->machine);
    p->options = (mfi_plan_options){.memory_bytes = MFI_GIB, .ctx = 64, .device = &p->device};
}

static void open_model(planned *p)
{
    mft_tiny spec;
    mft_tiny_default(&spec);
    spec.tied = false;
    spec.n_experts = 32;
    open_tiny(p, &spec);
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

/* A token's experts are large beside the least chunk: what the floor has for them is not taken by a
 * longer one. */
static void vram_floor(void **state)
{
    (void)state;
    mf_error err;
    mft_tiny spec;
    planned p;
    mfi_plan plan;
    mft_tiny_default(&spec);
    spec.hidden = spec.width = 192;
    spec.n_experts = spec.top_k = 8;
    spec.tied = false;
    open_tiny(&p, &spec);
    p.options.ctx = 256;
    p.device.page_bytes = 4096;
    for (uint32_t i = 0; i < 3; i++) {
        p.device.weight_align = i > 0; /* 0: all weights lie on the device */
        p.device.unified = i == 2;
        p.options.vram_bytes = MFI_MIB;
        assert_int_equal(mfi_plan_make(&plan, p.model, &p.machine, &p.options, &err),
                         MF_ERR_BUDGET);
        assert_non_null(strstr(err.message, "--vram"));
        p.options.vram_bytes = plan.vram_floor_bytes;
        mfi_plan_free(&plan);
        mft_ok(mfi_plan_make(&plan, p.model, &p.machine, &p.options, &err), &err);
        assert_true(plan.fits && sum(plan.vram) <= p.options.vram_bytes);
        mfi_plan_free(&plan);
    }
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

/* Weights in the files' mapping: embeddings as soon as experts compete for the device's memory,
 * others where it has no room for them; what is pinned counts on the host. */
static void in_place(void **state)
{
    (void)state;
    mf_error err;
    planned p;
    mfi_plan plan;
    open_model(&p);
    p.options.chunk = 8;
    mft_ok(make(&p, &plan, &err), &err);
    uint64_t stride = plan.slot_stride, whole = sum(plan.vram), dense = plan.program.dense_bytes;
    uint64_t no_slots = whole - plan.n_slots * stride;
    uint32_t top_k = plan.program.shape.top_k;
    mfi_plan_free(&plan);
    p.device.weight_align = 1; /* the files of tests are not aligned */
    p.device.page_bytes = 4096;
    mft_ok(make(&p, &plan, &err), &err);
    assert_int_equal(plan.n_in_place, 0);
    mfi_plan_free(&plan);
    p.options.vram_bytes = whole - 2 * stride;
    mft_ok(mfi_plan_make(&plan, p.model, &p.machine, &p.options, &err), &err);
    assert_int_equal(plan.n_in_place, 1);
    assert_true(plan.program.dense_bytes < dense && plan.n_ranges == 1);
    assert_int_equal(plan.bytes[MFI_PLAN_DENSE], plan.mapped_dense_bytes);
    assert_true(plan.mapped_dense_bytes >= dense - plan.program.dense_bytes);
    assert_true(sum(plan.bytes) <= plan.budget_bytes);
    mfi_plan_free(&plan);
    /* No room for the dense weights beside the experts of a token. */
    p.options.vram_bytes = no_slots + top_k * stride - dense / 2;
    mft_ok(mfi_plan_make(&plan, p.model, &p.machine, &p.options, &err), &err);
    assert_true(plan.fits && plan.n_in_place > 1 && sum(plan.vram) <= p.options.vram_bytes);
    assert_true(plan.n_slots >= top_k);
    mfi_plan_free(&plan);
    /* Refused by the driver: as if it had no way to. */
    p.options.mapping_refused = "no";
    assert_int_equal(mfi_plan_make(&plan, p.model, &p.machine, &p.options, &err), MF_ERR_BUDGET);
    mfi_plan_free(&plan);
    p.options.vram_bytes = whole - 2 * stride;
    mft_ok(mfi_plan_make(&plan, p.model, &p.machine, &p.options, &err), &err);
    assert_int_equal(plan.n_in_place, 0);
    assert_non_null(strstr(plan.tier_reason, "refuses: no"));
    mfi_plan_free(&plan);
    close_model(&p);
}

/* The tier below the device: slots, the mapping as a whole, exclusive where slots are short. */
static void tiers(void **state)
{
    (void)state;
    mf_error err;
    planned p;
    mfi_plan plan;
    open_model(&p);
    mft_ok(make(&p, &plan, &err), &err);
    uint64_t stride = plan.slot_stride, whole = sum(plan.vram);
    uint32_t total = plan.n_experts_total;
    assert_false(plan.exclusive);
    assert_null(strstr(plan.tier_reason, "inclusive"));
    mfi_plan_free(&plan);
    p.options.tiers = "inclusive"; /* holds, and does nothing: said, not refused */
    mft_ok(make(&p, &plan, &err), &err);
    assert_false(plan.exclusive);
    assert_non_null(strstr(plan.tier_reason, "inclusive changes nothing"));
    mfi_plan_free(&plan);
    p.options.tiers = NULL;
    p.options.vram_bytes = whole - total / 2 * stride;
    mft_ok(make(&p, &plan, &err), &err);
    assert_false(plan.exclusive); /* there is a slot for each */
    uint64_t all_slots = sum(plan.bytes);
    assert_int_equal(mfi_plan_host_held_max(&plan), MFI_MIN(total, MFI_MAX_HELD));
    mfi_plan_free(&plan);
    /* The least with a slot for each, and a little less. */
    uint64_t low = MFI_MIB, high = all_slots;
    while (high - low > 4096) {
        p.options.memory_bytes = low + (high - low) / 2;
        bool fits = make(&p, &plan, &err) == MF_OK && plan.n_host_slots == total;
        *(fits ? &high : &low) = p.options.memory_bytes;
        mfi_plan_free(&plan);
    }
    p.options.memory_bytes = high - total / 4 * stride;
    mft_ok(make(&p, &plan, &err), &err);
    assert_true(plan.exclusive && plan.n_host_slots < total);
    assert_true(2 * mfi_plan_host_held_max(&plan) <= plan.n_host_slots);
    assert_non_null(strstr(plan.tier_reason, "are in memory"));
    mfi_plan_free(&plan);
    p.options.tiers = "inclusive";
    mft_ok(make(&p, &plan, &err), &err);
    assert_false(plan.exclusive);
    assert_null(strstr(plan.tier_reason, "inclusive"));
    mfi_plan_free(&plan);
    p.options.tiers = NULL;
    p.options.miss_cpu = true;
    mft_ok(make(&p, &plan, &err), &err);
    assert_true(plan.helper && plan.helper->chunk == MFI_MAX_MISS_TOK && !plan.exclusive);
    assert_int_equal(plan.helper->n_ops, plan.program.n_ops);
    mfi_plan_free(&plan);
    p.options.miss_cpu = false;
    p.options.host_tier = "mapped";
    assert_int_equal(make(&p, &plan, &err), MF_ERR_ARGUMENT); /* the device has no way to */
    mfi_plan_free(&plan);
    p.device.weight_align = 16;
    p.device.page_bytes = 4096;
    for (low = MFI_MIB, high = MFI_GIB; high - low > 4096;) { /* the least it needs */
        p.options.memory_bytes = low + (high - low) / 2;
        *(make(&p, &plan, &err) == MF_OK ? &high : &low) = p.options.memory_bytes;
        mfi_plan_free(&plan);
    }
    p.options.memory_bytes = low;
    assert_int_equal(make(&p, &plan, &err), MF_ERR_BUDGET);
    assert_non_null(strstr(err.message, "--memory"));
    p.options.memory_bytes = plan.floor_bytes;
    mfi_plan_free(&plan);
    mft_ok(mfi_plan_make(&plan, p.model, &p.machine, &p.options, &err), &err);
    assert_true(plan.fits && plan.in_place.experts && plan.n_host_slots == 0);
    assert_true(plan.mapped_bytes - plan.mapped_dense_bytes >= plan.expert_bytes_total);
    assert_int_equal(plan.bytes[MFI_PLAN_SLOTS], plan.mapped_bytes - plan.mapped_dense_bytes);
    assert_true(sum(plan.bytes) <= plan.budget_bytes);
    mfi_plan_free(&plan);
    close_model(&p);
}

/* What can't do anything is refused, with the reason. */
static void refused_tiers(void **state)
{
    (void)state;
    static const struct {
        const char *host_tier, *tiers;
        bool miss_cpu, all;
        const char *says;
    } cases[] = {{NULL, NULL, true, true, "no misses for the CPU"},
                 {"mapped", NULL, true, false, "not in the files' mapping"},
                 {NULL, "exclusive", true, false, "nor where tiers are exclusive"},
                 {"mapped", "exclusive", false, false, "not exclusive where"},
                 {"mapped", NULL, false, true, "no tier of the host's to choose"},
                 {NULL, "exclusive", false, true, "tiers can't be exclusive"}};
    mf_error err;
    planned p;
    mfi_plan plan;
    open_model(&p);
    p.device.weight_align = 16;
    p.device.page_bytes = 4096;
    mft_ok(make(&p, &plan, &err), &err);
    uint64_t less = sum(plan.vram) - 8 * plan.slot_stride;
    mfi_plan_free(&plan);
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        p.options.vram_bytes = cases[i].all ? 0 : less;
        p.options.host_tier = cases[i].host_tier;
        p.options.tiers = cases[i].tiers;
        p.options.miss_cpu = cases[i].miss_cpu;
        assert_int_equal(mfi_plan_make(&plan, p.model, &p.machine, &p.options, &err),
                         MF_ERR_ARGUMENT);
        if (!strstr(err.message, cases[i].says))
            fail_msg("%s", err.message);
        mfi_plan_free(&plan);
    }
    close_model(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_fit),     cmocka_unit_test(budgets), cmocka_unit_test(host_floor),
        cmocka_unit_test(checkpoints), cmocka_unit_test(refused), cmocka_unit_test(in_place),
        cmocka_unit_test(vram_floor),  cmocka_unit_test(tiers),   cmocka_unit_test(refused_tiers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
