/* Tiny checkpoints against implementations that share no code with ours: Hugging Face transformers
 * (float weights) and mlx-lm (MLX-quantised ones). Logits, hidden states layer by layer, and greedy
 * continuation, at every ISA level of this machine, activations in float32. The bound is 2e-4 of
 * the spread (standard deviation) of what is compared; where the two best logits are closer than
 * 1e-3, either greedy token is right. */
#include "fake/support.h"
#include "fake/decoded_mlx.h"
#include "fake/tensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIMIT 2e-4

typedef struct capture {
    float *logits, *hidden; /* [tokens][vocab], [layers + 1][tokens][hidden] */
    size_t n_tokens;
} capture;

static bool take_logits(void *user, size_t index, const float *row, size_t n)
{
    capture *c = user;
    memcpy(c->logits + index * n, row, n * sizeof *row);
    return true;
}

static bool take_hidden(void *user, size_t layer, size_t index, const float *row, size_t n)
{
    capture *c = user;
    memcpy(c->hidden + (layer * c->n_tokens + index) * n, row, n * sizeof *row);
    return true;
}

static double spread(const float *v, size_t n)
{
    double sum = 0, sq = 0;
    for (size_t i = 0; i < n; i++) {
        sum += v[i];
        sq += (double)v[i] * v[i];
    }
    return sqrt(sq / (double)n - sum / (double)n * (sum / (double)n));
}

static double worst(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        most = d > most || isnan(d) ? d : most;
    }
    return most;
}

static void open_model(mf_engine **engine, mf_session **session, const char *path, const char *isa)
{
    mf_error err;
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = path;
    o.activations = MF_ACTIVATIONS_F32;
    o.isa = isa;
    o.ctx = 128;
    o.n_threads = 2;
    o.chunk = 16;
    o.n_logit_rows = 3;
    mft_ok(mf_engine_open(engine, &o, &err), &err);
    mft_ok(mf_session_open(session, *engine, &err), &err);
}

static void compare_forward(mf_engine *engine, mf_session *session, const mft_tensors *x)
{
    mf_error err;
    mf_model_info info;
    size_t n_ids, n_logits, n_hidden;
    const int32_t *ids = mft_tensors_get(x, "input_ids", "I32", &n_ids);
    const float *logits = mft_tensors_get(x, "logits", "F32", &n_logits);
    const float *hidden = mft_tensors_get(x, "hidden_states", "F32", &n_hidden);
    assert_non_null(ids);
    assert_non_null(logits);
    assert_non_null(hidden);
    mf_engine_info(engine, &info);
    assert_int_equal(n_logits, n_ids * info.n_vocab);
    assert_int_equal(n_hidden, (info.n_layers + 1) * n_ids * info.hidden);
    capture c = {malloc(n_logits * sizeof(float)), malloc(n_hidden * sizeof(float)), n_ids};
    mf_eval_outputs out = {sizeof out, take_logits, take_hidden, &c};
    mft_ok(mf_session_eval(session, ids, n_ids, &out, &err), &err);
    size_t per_layer = n_ids * info.hidden;
    for (size_t layer = 0; layer <= info.n_layers; layer++) {
        const float *want = hidden + layer * per_layer;
        double e = worst(c.hidden + layer * per_layer, want, per_layer) / spread(want, per_layer);
        if (!(e <= LIMIT))
            fail_msg("hidden states after layer %zu: off by %.3g of their spread", layer, e);
    }
    double e = worst(c.logits, logits, n_logits) / spread(logits, n_logits);
    printf("  logits off by %.2g of their spread at most\n", e);
    if (!(e <= LIMIT))
        fail_msg("logits: off by %.3g of their spread", e);
    free(c.logits);
    free(c.hidden);
}

/* Feeds the reference's tokens and looks at what would be chosen: one near-tie then doesn't spoil
 * what follows. */
static void compare_greedy(mf_session *session, const mft_tensors *x, uint32_t n_vocab)
{
    mf_error err;
    size_t n;
    const int32_t *ids = mft_tensors_get(x, "greedy_ids", "I32", &n);
    assert_non_null(ids);
    mf_session_reset(session);
    mft_ok(mf_session_eval(session, ids, n / 2, NULL, &err), &err);
    for (size_t i = n / 2; i < n; i++) {
        const float *logits = mf_session_logits(session);
        uint32_t best = 0;
        for (uint32_t j = 1; j < n_vocab; j++)
            if (logits[j] > logits[best])
                best = j;
        if ((int32_t)best != ids[i] && logits[best] - logits[ids[i]] >= 1e-3f)
            fail_msg("token %zu: %u instead of %d", i, best, ids[i]);
        mft_ok(mf_session_eval(session, &ids[i], 1, NULL, &err), &err);
    }
}

static void check_folder(const char *folder)
{
    static const char *const levels[] = {"c", "auto"};
    char path[1024];
    snprintf(path, sizeof path, "%s/expected.safetensors", folder);
    mft_tensors x;
    mft_tensors_open(&x, path);
    for (size_t i = 0; i < 2; i++) {
        mf_engine *engine = NULL;
        mf_session *session = NULL;
        mf_model_info info;
        open_model(&engine, &session, folder, levels[i]);
        mf_engine_info(engine, &info);
        printf("  %s, %s, kernels %s\n", info.family, info.weights, info.isa);
        compare_forward(engine, session, &x);
        compare_greedy(session, &x, info.n_vocab);
        mf_session_close(&session);
        mf_engine_close(&engine);
    }
    mft_tensors_close(&x);
}

static void check_hf(const char *family)
{
    char name[128];
    snprintf(name, sizeof name, "hf/%s", family);
    const char *folder = mft_oracle(name);
    if (!folder)
        mft_skip("no oracle %s", name);
    check_folder(folder);
}

static void mlx_4bit(void **state)
{
    (void)state;
    check_folder(mft_source("tests/data/mlx-tiny/q4g32"));
}

static void mlx_mixed(void **state)
{
    (void)state;
    check_folder(mft_source("tests/data/mlx-tiny/mixed-q3g32"));
}

static void mlx_family(void **state)
{
    char path[128];
    snprintf(path, sizeof path, "tests/data/mlx-tiny/%s", (const char *)*state);
    check_folder(mft_source(path));
}

#define MLX(folder)                                                                                \
    {                                                                                              \
        "mlx/" folder, mlx_family, NULL, NULL, folder                                              \
    }

static void hf_family(void **state)
{
    check_hf(*state);
}

static void latent_tiny(void **state)
{
    char name[64];
    snprintf(name, sizeof name, "tests/data/latent-tiny/%s", (const char *)*state);
    check_folder(mft_source(name));
}

/* transformers has no class for DeepSeekMoE: mlx-lm's model with its weights decoded by the test,
 * as Hugging Face names them. */
static void deepseek_moe(void **state)
{
    (void)state;
    check_folder(mft_decode_mlx(mft_source("tests/data/latent-tiny/mlx-v1")));
}

#define LATENT(name)                                                                               \
    {                                                                                              \
        "latent-tiny/" name, latent_tiny, NULL, NULL, name                                         \
    }

#define HF(family)                                                                                 \
    {                                                                                              \
        "hf/" family, hf_family, NULL, NULL, family                                                \
    }

/* The oracle's Mixtral with its rotary frequencies scaled: the logits of the last of 64 tokens. */
static const struct {
    const char *name, *parameters;
    float logits[256];
} scaled[] = {
#include "../data/rope_logits.inc"
};

static const float *last_logits(mf_session *session)
{
    mf_error err;
    int32_t ids[64];
    for (int i = 0; i < 64; i++)
        ids[i] = (i * 37 + 11) % 200;
    mft_ok(mf_session_eval(session, ids, 64, NULL, &err), &err);
    return mf_session_logits(session);
}

/* The folder with other rope_parameters. */
static const char *with_rope(const char *from, const char *parameters)
{
    static char dir[512];
    char path[1024], target[1024], config[4096];
    snprintf(dir, sizeof dir, "%s", mft_tmpdir());
    snprintf(path, sizeof path, "%s/config.json", from);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    config[fread(config, 1, sizeof config - 1, f)] = 0;
    fclose(f);
    char *at = strstr(config, "\"rope_parameters\": "), *end = at ? strchr(at, '}') : NULL;
    assert_non_null(end);
    snprintf(path, sizeof path, "%s/config.json", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "%.*s\"rope_parameters\": %s%s", (int)(at - config), config, parameters, end + 1);
    assert_int_equal(fclose(f), 0);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    snprintf(target, sizeof target, "%s/model.safetensors", from);
    unlink(path);
    assert_int_equal(symlink(target, path), 0);
    return dir;
}

static void rope_scaling(void **state)
{
    const char *folder = mft_oracle("hf/mixtral");
    (void)state;
    if (!folder)
        mft_skip("no oracle hf/mixtral");
    for (size_t i = 0; i < sizeof scaled / sizeof scaled[0]; i++) {
        mf_engine *engine = NULL;
        mf_session *session = NULL;
        open_model(&engine, &session, with_rope(folder, scaled[i].parameters), "auto");
        const float *got = last_logits(session);
        double e = worst(got, scaled[i].logits, 256) / spread(scaled[i].logits, 256);
        printf("  %s: logits off by %.2g of their spread at most\n", scaled[i].name, e);
        if (!(e <= LIMIT))
            fail_msg("%s: logits off by %.3g of their spread", scaled[i].name, e);
        mf_session_close(&session);
        mf_engine_close(&engine);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mlx_4bit),
        cmocka_unit_test(mlx_mixed),
        LATENT("mlx-v3"),
        LATENT("mlx-v2"),
        LATENT("mlx-v1"),
        cmocka_unit_test(deepseek_moe),
        LATENT("hf-v2-lite"),
        MLX("qwen3_moe-q4g32"),
        MLX("qwen2_moe-q6g32"),
        MLX("qwen3_next-q5g32"),
        MLX("deepseek_v3-q4g32"),
        HF("qwen3_5_moe_text"),
        HF("qwen3_next"),
        HF("qwen3_moe"),
        HF("qwen2_moe"),
        HF("mixtral"),
        HF("olmoe"),
        HF("glm4_moe"),
        HF("minimax_m2"),
        HF("granitemoe"),
        HF("dots1"),
        HF("deepseek_v3"),
        HF("deepseek_v2"),
        HF("glm4_moe_lite"),
        HF("gpt_oss"),
        cmocka_unit_test(rope_scaling),
    };
    return mft_run(tests);
}
