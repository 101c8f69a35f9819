/* gpt-oss's own: experts stored as published (MXFP4, gate and up in turn) against the same numbers
 * stored as floats, windows that matter, what the plan counts for them, and broken models. */
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake/oss_model.h"
#include "fake/rig.h"
#include "format/format.h"

#define N_IDS 40

static void make_ids(int32_t *ids, uint32_t n_vocab)
{
    mfi_rng rng = {5};
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)mfi_rng_below(&rng, n_vocab);
}

static float *logits_of(const mft_oss *spec, mfi_isa isa)
{
    mf_error err;
    int32_t ids[N_IDS];
    mft_rig_options o;
    mft_rig_default(&o, mft_oss_write(spec));
    o.isa = isa;
    mft_rig *rig = mft_rig_open(&o);
    make_ids(ids, spec->n_vocab);
    float *logits = calloc((size_t)N_IDS * spec->n_vocab, sizeof *logits);
    mft_ok(mft_rig_eval(rig, ids, N_IDS, logits, &err), &err);
    mft_rig_close(rig);
    return logits;
}

/* Largest difference by the spread of `want`. */
static double apart(const float *got, const float *want, size_t n)
{
    double mean = 0, var = 0, most = 0;
    for (size_t i = 0; i < n; i++)
        mean += (double)want[i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        var += ((double)want[i] - mean) * ((double)want[i] - mean) / (double)n;
        double diff = fabs((double)got[i] - (double)want[i]);
        most = diff <= most ? most : diff; /* a NaN stays */
    }
    return most / sqrt(var);
}

static void layouts(const mft_oss *quantised)
{
    mft_oss floats = *quantised;
    floats.mxfp4 = false;
    size_t n = (size_t)N_IDS * floats.n_vocab;
    for (mfi_isa isa = MFI_ISA_C; isa <= mfi_cpu_isa(); isa++) {
        if (!mfi_cpu_has(isa))
            continue;
        float *a = logits_of(quantised, isa), *b = logits_of(&floats, isa);
        double e = apart(a, b, n);
        printf("  %s: published and float layout %.2g of the spread apart\n", mfi_isa_name(isa), e);
        if (!(e <= 2e-5))
            fail_msg("%s: %g apart", mfi_isa_name(isa), e);
        free(a);
        free(b);
    }
}

static void layouts_random(void **state)
{
    (void)state;
    mft_oss s;
    mft_oss_default(&s);
    layouts(&s);
}

static void oracle_spec(mft_oss *s)
{
    const char *folder = mft_oracle("hf/gpt_oss");
    if (!folder)
        mft_skip("no oracle hf/gpt_oss");
    *s = (mft_oss){.n_layers = 4,
                   .hidden = 128,
                   .n_vocab = 256,
                   .n_head = 8,
                   .n_kv_head = 2,
                   .head_dim = 32,
                   .n_experts = 16,
                   .top_k = 4,
                   .width = 128,
                   .window = 16,
                   .ctx = 4096,
                   .mxfp4 = true,
                   .from = folder};
}

/* The oracle's weights quantised: the two layouts agree, and both are near the unquantised model,
 * which test_reference holds against transformers. */
static void layouts_oracle(void **state)
{
    (void)state;
    mft_oss s;
    oracle_spec(&s);
    layouts(&s);
    mft_oss exact = s;
    exact.mxfp4 = false;
    exact.exact = true;
    float *a = logits_of(&s, mfi_cpu_isa()), *b = logits_of(&exact, mfi_cpu_isa());
    double diff = 0, sum = 0;
    for (size_t i = 0; i < (size_t)N_IDS * s.n_vocab; i++) {
        diff += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        sum += (double)b[i] * (double)b[i];
    }
    printf("  MXFP4 moves the logits by an NMSE of %.2g\n", diff / sum);
    assert_true(diff / sum > 1e-4 && diff / sum < 0.2);
    free(a);
    free(b);
}

/* Positions that see everything in their window are the same with a longer one, later ones not. */
static void window_matters(void **state)
{
    (void)state;
    mft_oss s;
    mft_oss_default(&s);
    float *near = logits_of(&s, mfi_cpu_isa());
    s.window = 9;
    float *far = logits_of(&s, mfi_cpu_isa());
    size_t row = s.n_vocab;
    assert_memory_equal(near, far, 8 * row * sizeof *near);
    assert_memory_not_equal(near + 8 * row, far + 8 * row, row * sizeof *near);
    free(near);
    free(far);
}

/* Two of three layers have a window of 8; a position takes 2 * 2 heads * 10 floats = 160 bytes a
 * layer, and layers take whole pages. */
static void plan_counts_windows(void **state)
{
    (void)state;
    mft_oss s;
    mf_error err;
    mfi_catalog *catalog = NULL;
    mfi_model *model = NULL;
    mfi_machine machine;
    mft_oss_default(&s);
    mft_ok(mfi_format_open(&catalog, mft_oss_write(&s), &err), &err);
    mft_ok(mfi_model_open(&model, catalog, &err), &err);
    mfi_machine_read(&machine);
    for (uint32_t chunk = 1; chunk <= 64; chunk *= 8) {
        mfi_plan plan;
        mfi_plan_options o = {.memory_bytes = MFI_GIB, .ctx = 256, .chunk = chunk};
        mft_ok(mfi_plan_make(&plan, model, &machine, &o, &err), &err);
        uint64_t windowed = mfi_align_up((8 - 1 + chunk) * 160ull, 4096);
        uint64_t whole = mfi_align_up(256 * 160ull, 4096);
        assert_int_equal(plan.bytes[MFI_PLAN_KV], 2 * windowed + whole);
        assert_non_null(strstr(plan.reason[MFI_PLAN_KV], "a window of 8 keep 7"));
        mfi_plan_free(&plan);
    }
    mfi_model_close(&model);
    mfi_catalog_close(&catalog);
}

static mf_status try_model(const char *dir, mf_error *err)
{
    mfi_catalog *catalog = NULL;
    mfi_model *model = NULL;
    mf_status status = mfi_format_open(&catalog, dir, err);
    if (status == MF_OK)
        status = mfi_model_open(&model, catalog, err);
    mfi_model_close(&model);
    mfi_catalog_close(&catalog);
    return status;
}

static void refused(mf_status status, mf_status want, const mf_error *err, const char *names)
{
    if (status != want || !strstr(err->message, names))
        fail_msg("%s instead of %s with '%s': %s", mf_status_name(status), mf_status_name(want),
                 names, status == MF_OK ? "" : err->message);
}

static void bad_configs(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *names;
        mf_status status;
    } cases[] = {
        {"sliding_window", NULL, "sliding_window", MF_ERR_FORMAT},
        {"sliding_window", "0", "sliding_window", MF_ERR_FORMAT},
        {"sliding_window", "4294967297", "sliding_window", MF_ERR_FORMAT},
        {"sliding_window", "\"8\"", "sliding_window", MF_ERR_FORMAT},
        {"layer_types", "[\"sliding_attention\"]", "3 layers", MF_ERR_FORMAT},
        {"layer_types", "\"full_attention\"", "3 layers", MF_ERR_FORMAT},
        {"layer_types", "[\"sliding_attention\",\"chunked_attention\",\"full_attention\"]",
         "chunked_attention", MF_ERR_UNSUPPORTED},
        {"layer_types", "[\"sliding_attention\",\"full_attention\",2.5]", "layer 2",
         MF_ERR_UNSUPPORTED},
        {"attention_bias", "false", "_proj.bias", MF_ERR_UNSUPPORTED},
        {"swiglu_limit", "0", "swiglu_limit", MF_ERR_FORMAT},
        {"swiglu_limit", "\"7\"", "swiglu_limit", MF_ERR_FORMAT},
    };
    mft_oss s;
    mf_error err;
    mft_oss_default(&s);
    const char *dir = mft_oss_write(&s);
    mft_ok(try_model(dir, &err), &err);
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mft_oss_write_config(dir, &s, cases[i].key, cases[i].value);
        mf_status status = try_model(dir, &err);
        refused(status, cases[i].status, &err, cases[i].names);
    }
    /* Windows where the list says so, whatever the usual order. */
    mft_oss_write_config(dir, &s, "layer_types",
                         "[\"full_attention\",\"full_attention\",\"full_attention\"]");
    mft_ok(try_model(dir, &err), &err);
}

/* Each tensor missing, then of another shape. */
static void bad_tensors(void **state)
{
    (void)state;
    for (int mxfp4 = 0; mxfp4 < 2; mxfp4++) {
        mft_oss s;
        mf_error err;
        mft_oss_default(&s);
        s.n_layers = 2;
        s.mxfp4 = mxfp4;
        const char *dir = mft_folder();
        mft_tensor_list *t = mft_oss_make(&s);
        mft_oss_write_config(dir, &s, NULL, NULL);
        for (size_t i = 0; i < t->n; i++) {
            mft_tensor kept = t->list[i];
            t->list[i] = t->list[t->n - 1];
            mft_write_tensors(dir, "model.safetensors", t->list, t->n - 1);
            mf_status status = try_model(dir, &err);
            if (status != MF_ERR_TENSOR_MISSING && status != MF_ERR_UNSUPPORTED)
                fail_msg("%s without %s", mf_status_name(status), kept.name);
            t->list[i] = kept;
            t->list[i].dims[0]++;
            t->list[i].data = NULL;
            mft_write_tensors(dir, "model.safetensors", t->list, t->n);
            status = try_model(dir, &err);
            refused(status, MF_ERR_TENSOR_SHAPE, &err, "model.safetensors");
            t->list[i] = kept;
        }
        mft_free_tensors(t);
    }
}

/* One layer's experts quantised, the other's floats: no layout holds both. */
static void mixed_layers(void **state)
{
    (void)state;
    mft_oss s;
    mf_error err;
    mft_oss_default(&s);
    s.n_layers = 2;
    mft_tensor_list *quantised = mft_oss_make(&s);
    s.mxfp4 = false;
    mft_tensor_list *floats = mft_oss_make(&s);
    mft_tensor_list mixed = {.n = 0};
    for (size_t i = 0; i < quantised->n; i++)
        if (strstr(quantised->names[i], "layers.0.") || !strstr(quantised->names[i], "layers."))
            mixed.list[mixed.n++] = quantised->list[i];
    for (size_t i = 0; i < floats->n; i++)
        if (strstr(floats->names[i], "layers.1."))
            mixed.list[mixed.n++] = floats->list[i];
    const char *dir = mft_folder();
    s.mxfp4 = true;
    mft_oss_write_config(dir, &s, NULL, NULL);
    mft_write_tensors(dir, "model.safetensors", mixed.list, mixed.n);
    mf_status status = try_model(dir, &err);
    refused(status, MF_ERR_TENSOR_SHAPE, &err, "layers.1.mlp.experts.gate_up_proj");
    mft_free_tensors(quantised);
    mft_free_tensors(floats);
}

/* Writing it would lose the biases: refused, with nothing left behind. */
static void not_converted(void **state)
{
    (void)state;
    mft_oss s;
    mft_oss_default(&s);
    for (int i = 0; i < 2; i++) {
        mf_error err = {0};
        mf_convert_options o;
        char in[600], out[700];
        s.mxfp4 = i;
        snprintf(in, sizeof in, "%s", mft_oss_write(&s));
        snprintf(out, sizeof out, "%s/out", in);
        mf_convert_options_default(&o);
        o.in_path = in;
        o.out_path = out;
        o.bits = 4;
        refused(mf_convert(&o, &err), MF_ERR_UNSUPPORTED, &err, "gpt_oss");
        assert_int_not_equal(access(out, F_OK), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts_random), cmocka_unit_test(layouts_oracle),
        cmocka_unit_test(window_matters), cmocka_unit_test(plan_counts_windows),
        cmocka_unit_test(bad_configs),    cmocka_unit_test(bad_tensors),
        cmocka_unit_test(mixed_layers),   cmocka_unit_test(not_converted),
    };
    return mft_run(tests);
}
