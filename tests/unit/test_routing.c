/* Every kind of router and of rotary frequencies against what Hugging Face transformers gives for
 * the same numbers (its router classes on one hidden element, its rope functions), and routers
 * against a plain search on random ones. */
#include "fake/support.h"

#include <math.h>
#include <string.h>

#include "base/limits.h"
#include "base/rng.h"
#include "fake/kernel_case.h"
#include "kernels/kernels.h"
#include "op/rope.h"

#define N 16

static const float logits[N] = {2.763f,  0.778f,  -2.568f, -2.552f, 3.029f,  -0.403f,
                                -0.196f, -2.156f, 0.586f,  -0.028f, -2.029f, -1.096f,
                                1.482f,  -0.629f, -0.877f, -1.174f};
static const float correction[N] = {0.834f, 0.367f,  -0.101f, -0.29f, -0.039f, -0.181f,
                                    0.043f, -0.045f, -0.131f, 0.234f, -0.018f, -0.609f,
                                    0.445f, 0.148f,  0.075f,  0.524f};

typedef struct known {
    const char *name; /* the class in transformers 5.17 */
    mfi_routing routing;
    bool corrected, biased; /* with `correction`, or with it added to the logits */
    uint16_t ids[4];        /* ascending */
    double weights[4];
} known;

static const known cases[] = {
    {"DeepseekV3TopkRouter",
     {MFI_SCORE_SIGMOID, 4, 2, 2, true, 2.5f},
     true,
     false,
     {0, 1, 12, 15},
     {0.8784822225570679, 0.6399650573730469, 0.7610245943069458, 0.22052821516990662}},
    {"DeepseekV3TopkRouter, one group",
     {MFI_SCORE_SIGMOID, 1, 1, 2, true, 2.5f},
     true,
     false,
     {0, 1, 4, 12},
     {0.6927429437637329, 0.5046559572219849, 0.7024816274642944, 0.6001195311546326}},
    {"DeepseekV3TopkRouter, not normalised",
     {MFI_SCORE_SIGMOID, 4, 2, 2, false, 2.5f},
     true,
     false,
     {0, 1, 12, 15},
     {2.3516085147857666, 1.7131222486495972, 2.0371861457824707, 0.5903318524360657}},
    {"DeepseekV2TopkRouter",
     {MFI_SCORE_SOFTMAX, 4, 2, 1, false, 2.5f},
     false,
     false,
     {0, 1, 4, 6},
     {0.8026951551437378, 0.1102747693657875, 1.047304630279541, 0.04163640737533569}},
    {"MixtralTopKRouter",
     {MFI_SCORE_SOFTMAX, 0, 0, 0, true, 1},
     false,
     false,
     {0, 1, 4, 12},
     {0.3676639497280121, 0.05050990730524063, 0.4797040820121765, 0.10212212055921555}},
    {"MixtralTopKRouter, by the softmax of the chosen",
     {MFI_SCORE_SOFTMAX_CHOSEN, 0, 0, 0, false, 1},
     false,
     false,
     {0, 1, 4, 12},
     {0.3676639497280121, 0.05050990730524063, 0.4797040820121765, 0.10212212055921555}},
    {"OlmoeTopKRouter",
     {MFI_SCORE_SOFTMAX, 0, 0, 0, false, 1},
     false,
     false,
     {0, 1, 4, 12},
     {0.3210780620574951, 0.04410990700125694, 0.4189218282699585, 0.08918245136737823}},
    {"MiniMaxM2TopKRouter",
     {MFI_SCORE_SIGMOID, 0, 0, 0, true, 1},
     true,
     false,
     {0, 1, 4, 12},
     {0.2770971655845642, 0.2018623799085617, 0.28099265694618225, 0.24004781246185303}},
    {"GptOssTopKRouter",
     {MFI_SCORE_SOFTMAX_CHOSEN, 0, 0, 0, false, 1},
     false,
     true,
     {0, 1, 4, 12},
     {0.5496463179588318, 0.04733617603778839, 0.29954808950424194, 0.10346929728984833}},
};

static void as_in_transformers(void **state)
{
    (void)state;
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
            const known *c = &cases[i];
            float in[N], weights[4];
            uint16_t ids[4];
            for (uint32_t j = 0; j < N; j++)
                in[j] = c->biased ? logits[j] + correction[j] : logits[j];
            mft_level(level)->route(&c->routing, in, c->corrected ? correction : NULL, N, 4,
                                          ids, weights);
            for (uint32_t k = 0; k < 4; k++) {
                uint32_t at = 0;
                while (at < 4 && ids[at] != c->ids[k])
                    at++;
                if (at == 4 || fabs((double)weights[at] - c->weights[k]) > 1e-6)
                    fail_msg("%s: expert %u", c->name, c->ids[k]);
            }
        }
    }
}

/* What routing.h says, in double and by exhaustive search. */
static void search(const mfi_routing *r, const float *in, const float *corr, uint32_t n,
                   uint32_t top_k, uint16_t *ids, double *weights)
{
    static double score[MFI_MAX_EXPERTS], choice[MFI_MAX_EXPERTS];
    static bool taken[MFI_MAX_EXPERTS];
    double all = 0, chosen = 0;
    for (uint32_t i = 0; i < n; i++)
        all += exp((double)in[i]);
    for (uint32_t i = 0; i < n; i++) {
        double v = (double)in[i];
        score[i] = r->score == MFI_SCORE_SOFTMAX   ? exp(v) / all
                   : r->score == MFI_SCORE_SIGMOID ? 1 / (1 + exp(-v))
                                                   : v;
        choice[i] = score[i] + (corr ? (double)corr[i] : 0);
        taken[i] = r->n_groups > 1;
    }
    for (uint32_t used = 0; r->n_groups > 1 && used < r->n_groups_used; used++) {
        uint32_t size = n / r->n_groups, best = UINT32_MAX;
        double most = 0;
        for (uint32_t g = 0; g < r->n_groups; g++) {
            if (!taken[g * size])
                continue;
            double sum = 0;
            for (uint32_t i = g * size; i < (g + 1) * size; i++) {
                uint32_t larger = 0; /* in its group */
                for (uint32_t j = g * size; j < (g + 1) * size; j++)
                    larger += choice[j] > choice[i] || (choice[j] == choice[i] && j < i);
                sum += larger < r->group_best ? choice[i] : 0;
            }
            if (best == UINT32_MAX || sum > most) {
                best = g;
                most = sum;
            }
        }
        for (uint32_t i = best * size; i < (best + 1) * size; i++)
            taken[i] = false;
    }
    for (uint32_t k = 0; k < top_k; k++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t i = 0; i < n; i++)
            if (!taken[i] && (best == UINT32_MAX || choice[i] > choice[best]))
                best = i;
        taken[best] = true;
        ids[k] = (uint16_t)best;
        weights[k] = r->score == MFI_SCORE_SOFTMAX_CHOSEN ? exp(score[best]) : score[best];
        chosen += weights[k];
    }
    bool divide = r->normalize || r->score == MFI_SCORE_SOFTMAX_CHOSEN;
    for (uint32_t k = 0; k < top_k; k++)
        weights[k] = weights[k] / (divide ? chosen : 1) * (double)r->scale;
}

static void random_routers(void **state)
{
    (void)state;
    mfi_rng rng;
    for (uint32_t i = 0; i < 400; i++) {
        mft_seed(&rng, 7000 + i);
        mfi_routing r = {.score = i % 3, .normalize = i / 3 % 2, .scale = i % 5 == 0 ? 2.5f : 1};
        uint32_t size = mft_between(&rng, 1, 20), top_k;
        r.n_groups = i % 4 == 3 ? 0 : mft_between(&rng, 1, 12);
        r.n_groups_used = mft_between(&rng, 1, MFI_MAX(r.n_groups, 1));
        r.group_best = 1 + i / 7 % 2;
        uint32_t n = size * MFI_MAX(r.n_groups, 1);
        uint32_t within = r.n_groups > 1 ? size * r.n_groups_used : n;
        top_k = mft_between(&rng, 1, MFI_MIN(within, 12u));
        float *in = mft_random_floats(&rng, n, 2);
        float *corr = i % 2 ? mft_random_floats(&rng, n, 1) : NULL;
        uint16_t ids[12], want_ids[12];
        float weights[12];
        double want[12];
        search(&r, in, corr, n, top_k, want_ids, want);
        for (uint32_t level = 0; level < mft_n_levels(); level++) {
            mft_level(level)->route(&r, in, corr, n, top_k, ids, weights);
            for (uint32_t k = 0; k < top_k; k++) {
                assert_int_equal(ids[k], want_ids[k]);
                /* With a choice by score + correction, logits near 0 sum up with cancellation. */
                assert_true(fabs((double)weights[k] - want[k]) <= 3e-6 * fabs(want[k]) + 1e-9);
            }
        }
        mft_guard_free();
    }
}

/* Sigmoids that all vanish give no weight, and no NaN. */
static void vanishing(void **state)
{
    (void)state;
    static const float in[4] = {-200, -300, -200, -400};
    for (uint32_t level = 0; level < mft_n_levels(); level++) {
        mfi_routing r = {.score = MFI_SCORE_SIGMOID, .normalize = true, .scale = 1};
        uint16_t ids[2];
        float weights[2];
        mft_level(level)->route(&r, in, NULL, 4, 2, ids, weights);
        assert_true(ids[0] == 0 && ids[1] == 1);
        assert_true(weights[0] == 0 && weights[1] == 0);
    }
}

/* ---- rotary frequencies ---- */

static void check_rope(const char *name, const mfi_rope *rope, uint32_t n_rot, const double *want)
{
    double freq[64];
    mfi_rope_frequencies(rope, n_rot, freq);
    for (uint32_t i = 0; i < n_rot / 2; i++)
        if (fabs(freq[i] - want[i]) > 1e-6 * want[i]) /* theirs are float32 */
            fail_msg("%s: pair %u: %.9g instead of %.9g", name, i, freq[i], want[i]);
}

static void frequencies(void **state)
{
    (void)state;
    static const mfi_rope short_yarn = {.kind = MFI_ROPE_YARN,
                                        .theta = 10000,
                                        .factor = 40,
                                        .original_ctx = 64,
                                        .beta_fast = 32,
                                        .beta_slow = 1};
    check_rope("yarn, 64 positions", &short_yarn, 32,
               (const double[]){1, 0.45268476, 0.192898944, 0.0737985894, 0.0219999999,
                                0.00140585331, 0.000790569466, 0.000444569858, 0.000250000012,
                                0.000140585325, 7.90569466e-05, 4.44569851e-05, 2.49999994e-05,
                                1.40585325e-05, 7.90569447e-06, 4.44569832e-06});
    static const mfi_rope exact = {.kind = MFI_ROPE_YARN,
                                   .theta = 150000,
                                   .factor = 32,
                                   .original_ctx = 4096,
                                   .beta_fast = 32,
                                   .beta_slow = 1,
                                   .exact = true};
    check_rope("yarn, not truncated", &exact, 16,
               (const double[]){1, 0.225418001, 0.0508132726, 0.00679495931, 0.000456483918,
                                1.8188337e-05, 4.09997847e-06, 9.24208962e-07});
    static const mfi_rope llama3 = {.kind = MFI_ROPE_LLAMA3,
                                    .theta = 500000,
                                    .factor = 8,
                                    .original_ctx = 8192,
                                    .beta_fast = 4,
                                    .beta_slow = 1};
    check_rope("llama3", &llama3, 16,
               (const double[]){1, 0.193922758, 0.0376060307, 0.00729266508, 0.000524846022,
                                3.42810235e-05, 6.64786967e-06, 1.28917316e-06});
    static const mfi_rope linear = {.kind = MFI_ROPE_LINEAR, .theta = 10000, .factor = 4};
    check_rope("linear", &linear, 8, (const double[]){0.25, 0.025, 0.0025, 0.00025});
    static const mfi_rope plain = {.kind = MFI_ROPE_PLAIN, .theta = 10000};
    check_rope("plain", &plain, 8, (const double[]){1, 0.1, 0.01, 0.001});
}

/* DeepSeek-V3's own, by hand (ends of the ramp at pairs 10 and 23 of 32). */
static void deepseek_yarn(void **state)
{
    (void)state;
    mfi_rope rope = {.kind = MFI_ROPE_YARN,
                     .theta = 10000,
                     .factor = 40,
                     .original_ctx = 4096,
                     .beta_fast = 32,
                     .beta_slow = 1};
    double freq[32];
    mfi_rope_frequencies(&rope, 64, freq);
    for (uint32_t i = 0; i < 32; i++) {
        double plain = pow(10000, -(double)i / 32), slow = i <= 10   ? 0
                                                           : i >= 23 ? 1
                                                                     : (i - 10) / 13.0;
        double want = plain / 40 * slow + plain * (1 - slow);
        assert_true(fabs(freq[i] - want) <= 1e-12 * want);
    }
    /* 0.1 ln 40 + 1, and the ratio that mscale 0.707 against 1 gives (transformers: 0.921042355).
     */
    assert_true(fabs(mfi_rope_mscale(40, 1) - 1.3688879454) < 1e-9);
    assert_true(fabs(mfi_rope_mscale(40, 0.707) / mfi_rope_mscale(40, 1) - 0.921042355) < 1e-8);
    assert_true(mfi_rope_mscale(1, 1) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_in_transformers), cmocka_unit_test(random_routers),
        cmocka_unit_test(vanishing),          cmocka_unit_test(frequencies),
        cmocka_unit_test(deepseek_yarn),
    };
    return mft_run(tests);
}
