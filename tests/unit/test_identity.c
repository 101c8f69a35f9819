/* The answer never depends on the machine's state: logits are the same bytes for every number of
 * slots, threads, chunk and order of completion; and a failed read is an error with a name, after
 * which the engine still works. Quantised tiny models everywhere, float ones where the oracle is.
 */
#include "fake/oss_model.h"
#include "fake/rig.h"
#include "fake/support.h"
#include "fake/tiny_latent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_IDS     70
#define N_SEEDS   (MFT_SANITIZED ? 40 : 300)
#define N_FAILING (MFT_SANITIZED ? 30 : 100) /* seeds of readers that fail now and then */

static void make_ids(int32_t *ids, uint32_t n_vocab)
{
    mfi_rng rng = {77};
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)mfi_rng_below(&rng, n_vocab);
}

static float *logits_of(const mft_rig_options *o, mfi_store_stats *stats)
{
    mf_error err;
    int32_t ids[N_IDS];
    mft_rig *rig = mft_rig_open(o);
    make_ids(ids, mft_rig_shape(rig)->n_vocab);
    float *logits = calloc((size_t)N_IDS * mft_rig_shape(rig)->n_vocab, sizeof *logits);
    mft_ok(mft_rig_eval(rig, ids, N_IDS, logits, &err), &err);
    if (stats)
        mfi_store_stats_get(mft_rig_store(rig), stats);
    mft_rig_close(rig);
    return logits;
}

typedef struct model_facts {
    size_t bytes;            /* of the logits */
    uint32_t top_k, n_total; /* experts of a token and layer, of the model */
} model_facts;

static model_facts facts_of(const char *folder)
{
    mft_rig_options o;
    mft_rig_default(&o, folder);
    mft_rig *rig = mft_rig_open(&o);
    const mfi_shape *s = mft_rig_shape(rig);
    model_facts f = {(size_t)N_IDS * s->n_vocab * sizeof(float), s->top_k,
                     s->n_layers * s->n_experts};
    mft_rig_close(rig);
    return f;
}

static void same(const float *a, const float *b, size_t bytes, const char *what)
{
    if (memcmp(a, b, bytes) != 0)
        fail_msg("logits differ with %s", what);
}

/* Every budget with every number of threads, and every chunk with each of both; or, with `all`, all
 * 27 together. */
static void budgets_threads_chunks(const char *folder, mf_activations activations, mfi_isa isa,
                                   bool all)
{
    static const uint32_t chunks[] = {1, 7, 64}, threads[] = {1, 2, 3};
    model_facts f = facts_of(folder);
    const uint32_t slots[] = {f.n_total, f.n_total / 2, f.top_k};
    mft_rig_options o;
    mft_rig_default(&o, folder);
    o.activations = activations;
    o.isa = isa;
    float *want = logits_of(&o, NULL);
    for (int s = 0; s < 3; s++)
        for (int t = 0; t < 3; t++)
            for (int c = 0; c < 3; c++) {
                char what[96];
                mfi_store_stats stats;
                if (!all && c != (s + t) % 3)
                    continue;
                o.n_slots = slots[s];
                o.n_threads = threads[t];
                o.chunk = chunks[c];
                float *got = logits_of(&o, &stats);
                snprintf(what, sizeof what, "%u slots, %u threads, chunk %u, kernels %s", o.n_slots,
                         o.n_threads, o.chunk, mfi_isa_name(isa));
                same(want, got, f.bytes, what);
                assert_true((stats.evictions > 0) == (s > 0)); /* the small budgets did stream */
                free(got);
            }
    free(want);
}

static void all_of(const char *folder)
{
    /* A sanitizer looks at the code once; bits are compared at every level without. */
    for (mfi_isa isa = MFT_SANITIZED ? mfi_cpu_isa() : MFI_ISA_C; isa <= mfi_cpu_isa(); isa++) {
        if (!mfi_cpu_has(isa))
            continue;
        budgets_threads_chunks(folder, MF_ACTIVATIONS_F32, isa, isa == mfi_cpu_isa());
        budgets_threads_chunks(folder, MF_ACTIVATIONS_Q8, isa, isa == mfi_cpu_isa());
    }
}

static void quantised(void **state)
{
    (void)state;
    all_of(mft_source("tests/data/mlx-tiny/q4g32"));
    all_of(mft_source("tests/data/mlx-tiny/mixed-q3g32"));
}

static void floats(void **state)
{
    (void)state;
    const char *folder = mft_oracle("hf/qwen3_5_moe_text");
    if (!folder)
        mft_skip("no oracle hf/qwen3_5_moe_text");
    budgets_threads_chunks(folder, MF_ACTIVATIONS_F32, mfi_cpu_isa(), true);
}

/* Latent attention, with more heads than go over the cache together; in FP8, and split. */
static void latent(void **state)
{
    (void)state;
    mft_latent s;
    mft_latent_default(&s);
    s.n_head = 11;
    s.fp8 = true;
    budgets_threads_chunks(mft_latent_write(&s), MF_ACTIVATIONS_F32, mfi_cpu_isa(), false);
    if (!MFT_SANITIZED)
        budgets_threads_chunks(mft_latent_write(&s), MF_ACTIVATIONS_F32, MFI_ISA_C, false);
    s.fp8 = false;
    s.split = true;
    s.q_rank = 0;
    budgets_threads_chunks(mft_latent_write(&s), MF_ACTIVATIONS_F32, mfi_cpu_isa(), false);
    budgets_threads_chunks(mft_source("tests/data/latent-tiny/mlx-v3"), MF_ACTIVATIONS_Q8,
                           mfi_cpu_isa(), false);
}

/* Layers with a window of 8 keep their keys in a ring, which 70 tokens go round several times. */
static void windows(void **state)
{
    (void)state;
    mft_oss s;
    mft_oss_default(&s);
    const char *folder = mft_oss_write(&s);
    budgets_threads_chunks(folder, MF_ACTIVATIONS_F32, mfi_cpu_isa(), false);
    if (!MFT_SANITIZED)
        budgets_threads_chunks(folder, MF_ACTIVATIONS_F32, MFI_ISA_C, false);
    s.mxfp4 = false;
    budgets_threads_chunks(mft_oss_write(&s), MF_ACTIVATIONS_F32, mfi_cpu_isa(), false);
    if (mft_oracle("hf/gpt_oss"))
        budgets_threads_chunks(mft_oracle("hf/gpt_oss"), MF_ACTIVATIONS_F32, mfi_cpu_isa(), false);
}

/* Routing of every kind, dense layers, biases and multipliers: few slots, chunks and threads
 * against all experts cached and the whole prompt at once. */
static void families(void **state)
{
    static const char *const names[] = {"hf/mixtral",     "hf/olmoe",       "hf/glm4_moe",
                                        "hf/minimax_m2",  "hf/granitemoe",  "hf/dots1",
                                        "hf/deepseek_v2", "hf/deepseek_v3", "hf/glm4_moe_lite"};
    static const uint32_t chunks[] = {1, 7, 64};
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(names); i++) {
        const char *folder = mft_oracle(names[i]);
        if (!folder)
            mft_skip("no oracle %s", names[i]);
        model_facts f = facts_of(folder);
        for (mfi_isa isa = MFT_SANITIZED ? mfi_cpu_isa() : MFI_ISA_C; isa <= mfi_cpu_isa(); isa++) {
            if (isa != MFI_ISA_C && isa != mfi_cpu_isa())
                continue;
            mft_rig_options o;
            mft_rig_default(&o, folder);
            o.isa = isa;
            o.n_slots = f.n_total;
            float *want = logits_of(&o, NULL);
            for (uint32_t k = 0; k < 6; k++) {
                mfi_store_stats stats;
                char what[96];
                o.n_slots = f.top_k + k % 2;
                o.n_threads = 1 + k % 3;
                o.chunk = chunks[k / 2];
                float *got = logits_of(&o, &stats);
                snprintf(what, sizeof what, "%s, %u slots, %u threads, chunk %u, kernels %s",
                         names[i], o.n_slots, o.n_threads, o.chunk, mfi_isa_name(isa));
                same(want, got, f.bytes, what);
                assert_true(stats.evictions > 0);
                free(got);
            }
            free(want);
        }
    }
}

static void completion_order(void **state)
{
    (void)state;
    const char *folder = mft_source("tests/data/mlx-tiny/q4g32");
    model_facts f = facts_of(folder);
    mft_rig_options o;
    mft_rig_default(&o, folder);
    float *want = logits_of(&o, NULL);
    for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
        char what[64];
        mfi_rng rng = {seed};
        o.fake_io = true;
        o.fake = (mft_io_fake_config){.seed = seed,
                                      .latency_min = 0,
                                      .latency_max = (uint32_t)mfi_rng_below(&rng, 40),
                                      .short_chance = mfi_rng_unit(&rng)};
        o.n_slots = f.top_k + (uint32_t)mfi_rng_below(&rng, f.n_total - f.top_k + 1);
        o.chunk = 1 + (uint32_t)mfi_rng_below(&rng, 64);
        float *got = logits_of(&o, NULL);
        snprintf(what, sizeof what, "seed %llu", (unsigned long long)seed);
        same(want, got, f.bytes, what);
        free(got);
    }
    free(want);
}

static void failed_reads(void **state)
{
    (void)state;
    const char *folder = mft_source("tests/data/mlx-tiny/q4g32");
    model_facts f = facts_of(folder);
    mft_rig_options o;
    mft_rig_default(&o, folder);
    float *want = logits_of(&o, NULL);
    uint32_t n_failed = 0, n_fine = 0;
    for (uint64_t seed = 1; seed <= N_FAILING; seed++) {
        int32_t ids[N_IDS];
        mf_error err = {0};
        o.fake_io = true;
        o.fake = (mft_io_fake_config){.seed = seed, .latency_max = 20, .error_chance = 0.0004};
        o.n_slots = f.n_total / 3;
        o.chunk = 9;
        mft_rig *rig = mft_rig_open(&o);
        make_ids(ids, mft_rig_shape(rig)->n_vocab);
        float *got = calloc(1, f.bytes);
        /* Until it goes through: every failure must leave the engine able to start again. */
        mf_status status;
        int tries = 0;
        while ((status = mft_rig_eval(rig, ids, N_IDS, got, &err)) != MF_OK && tries++ < 200) {
            assert_int_equal(status, MF_ERR_IO);
            assert_non_null(strstr(err.message, "layer "));
            assert_non_null(strstr(err.message, "expert "));
            n_failed++;
        }
        if (status == MF_OK) {
            same(want, got, f.bytes, "failures before it");
            n_fine++;
        }
        free(got);
        mft_rig_close(rig);
    }
    assert_true(n_failed > N_FAILING / 2); /* or nothing was tested */
    assert_true(n_fine > N_FAILING / 2);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantised),    cmocka_unit_test(floats),
        cmocka_unit_test(families),     cmocka_unit_test(latent),
        cmocka_unit_test(windows),      cmocka_unit_test(completion_order),
        cmocka_unit_test(failed_reads),
    };
    return mft_run(tests);
}
