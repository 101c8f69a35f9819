/* Models of any shape: widths that are no multiple of a vector or a block, one expert or one token
 * of a vocabulary, all experts chosen. Logits must be the same bytes for every number of slots,
 * threads, chunk and order of completion, and agree between instruction sets. */
#include "fake/support.h"
#include "fake/rig.h"
#include "fake/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_SHAPES   60
#define N_VARIANTS 4
#define N_IDS      23

static float *logits_of(const mft_rig_options *o, const int32_t *ids, uint32_t n_vocab)
{
    mf_error err;
    mft_rig *rig = mft_rig_open(o);
    float *logits = calloc((size_t)N_IDS * n_vocab, sizeof *logits);
    mft_ok(mft_rig_eval(rig, ids, N_IDS, logits, &err), &err);
    mft_rig_close(rig);
    return logits;
}

static void vary(mft_rig_options *o, const mft_tiny *s, mfi_rng *rng)
{
    uint32_t total = s->n_layers * s->n_experts;
    o->chunk = 1 + (uint32_t)mfi_rng_below(rng, N_IDS + 3);
    o->n_threads = 1 + (uint32_t)mfi_rng_below(rng, 4);
    o->n_slots = s->top_k + (uint32_t)mfi_rng_below(rng, total - s->top_k + 1);
    o->fake_io = mfi_rng_below(rng, 2);
    o->fake =
        (mft_io_fake_config){.seed = mfi_rng_next(rng), .latency_max = 9, .short_chance = 0.2};
}

/* Loosely: another order of sums may choose another expert where two are equally good. */
static void near(const float *a, const float *b, size_t n, const char *text)
{
    double sum = 0, sq = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(a[i]) && isfinite(b[i]));
        sum += a[i];
        sq += (double)a[i] * a[i];
        most = fmax(most, fabs((double)a[i] - b[i]));
    }
    double deviation = sqrt(sq / (double)n - sum / (double)n * (sum / (double)n));
    if (most > 1e-3 * deviation + 1e-4)
        fail_msg("instruction sets differ by %g at a deviation of %g: %s", most, deviation, text);
}

static void one_shape(const mft_tiny *s, mfi_rng *rng, uint64_t seed)
{
    char text[400], shape[320];
    float *first = NULL;
    int32_t ids[N_IDS];
    const char *dir = mft_tiny_write(s);
    mft_tiny_describe(s, shape, sizeof shape);
    snprintf(text, sizeof text, "seed %llu: %s", (unsigned long long)seed, shape);
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)mfi_rng_below(rng, s->n_vocab);
    for (mfi_isa isa = MFI_ISA_C; isa <= mfi_cpu_isa(); isa++) {
        if (!mfi_cpu_has(isa))
            continue;
        mft_rig_options o;
        mft_rig_default(&o, dir);
        o.isa = isa;
        float *want = logits_of(&o, ids, s->n_vocab);
        if (first)
            near(first, want, (size_t)N_IDS * s->n_vocab, text);
        for (int v = 0; v < N_VARIANTS; v++) {
            vary(&o, s, rng);
            float *got = logits_of(&o, ids, s->n_vocab);
            if (memcmp(want, got, (size_t)N_IDS * s->n_vocab * sizeof *want) != 0)
                fail_msg("logits differ with chunk %u, %u threads, %u slots, kernels %s: %s",
                         o.chunk, o.n_threads, o.n_slots, mfi_isa_name(isa), text);
            free(got);
        }
        if (!first)
            first = want;
        else
            free(want);
    }
    free(first);
    unlink(mft_path(dir, "model.safetensors"));
}

static void random_shapes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= N_SHAPES; seed++) {
        mft_tiny s;
        mfi_rng rng = {seed};
        mft_tiny_random(&s, &rng);
        one_shape(&s, &rng, seed);
    }
}

/* The smallest of everything at once, and each alone. */
static void ones(void **state)
{
    (void)state;
    for (int which = 0; which < 9; which++) {
        mft_tiny s;
        mfi_rng rng = {100 + (uint64_t)which};
        mft_tiny_default(&s);
        if (which == 0 || which == 1)
            s.n_experts = s.top_k = 1;
        if (which == 0 || which == 2)
            s.n_vocab = 1;
        if (which == 0 || which == 3)
            s.conv = 1;
        if (which == 0 || which == 4)
            s.n_head = s.n_kv_head = 1;
        if (which == 0 || which == 5)
            s.n_layers = 1;
        if (which == 0 || which == 6)
            s.hidden = s.width = s.shared = 1;
        if (which == 0 || which == 7)
            s.k_heads = s.v_heads = s.k_dim = s.v_dim = 1;
        if (which == 8)
            s.top_k = s.n_experts;
        one_shape(&s, &rng, 100 + (uint64_t)which);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ones),
        cmocka_unit_test(random_shapes),
    };
    return mft_run(tests);
}
