/* Tiny checkpoints against implementations that share no code with ours: Hugging Face transformers
 * (float weights) and mlx-lm (MLX-quantised ones). Logits, hidden states layer by layer, and greedy
 * continuation, at every ISA level of this machine, activations in float32. The bound is 2e-4 of
 * the spread (standard deviation) of what is compared; where the two best logits are closer than
 * 1e-3, either greedy token is right. */
#include "fake/support.h"
#include "fake/decoded_mlx.h"
#include "fake/reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void check_folder(const char *folder)
{
    mft_reference_check(folder, "c", NULL);
    mft_reference_check(folder, "auto", NULL);
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
    check_folder(mft_reference_hf(*state));
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

#define HF(family) {"hf/" family, hf_family, NULL, NULL, family},

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

/* Makes `key` another, or takes it out: a member of the outermost object, as the oracle has them
 * indented. */
static void change(char *config, size_t cap, const char *key, const char *value)
{
    char quoted[96], added[512] = "", rest[4096];
    snprintf(quoted, sizeof quoted, "\n \"%s\": ", key);
    char *at = strstr(config, quoted), *end;
    if (at) {
        end = strstr(at + 1, "\n \"");
        assert_non_null(end); /* none of them is the last */
        memmove(at, end, strlen(end) + 1);
    }
    if (*value)
        snprintf(added, sizeof added, "\n \"%s\": %s,", key, value);
    snprintf(rest, sizeof rest, "%s", config + 1);
    assert_true((size_t)snprintf(config, cap, "{%s%s", added, rest) < cap);
}

/* The folder with other members in its config.json: "key=value;key=value", nothing behind the = for
 * none. */
static const char *with_members(const char *from, const char *members)
{
    static char dir[512];
    char path[1024], target[1024], config[4096], copy[1024], *rest = copy;
    snprintf(dir, sizeof dir, "%s", mft_tmpdir());
    snprintf(path, sizeof path, "%s/config.json", from);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    config[fread(config, 1, sizeof config - 1, f)] = 0;
    fclose(f);
    snprintf(copy, sizeof copy, "%s", members);
    for (char *member; (member = strsep(&rest, ";"));) {
        char *value = strchr(member, '=');
        assert_non_null(value);
        *value++ = 0;
        change(config, sizeof config, member, value);
    }
    snprintf(path, sizeof path, "%s/config.json", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(config, f);
    assert_int_equal(fclose(f), 0);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    snprintf(target, sizeof target, "%s/model.safetensors", from);
    unlink(path);
    assert_int_equal(symlink(target, path), 0);
    return dir;
}

static void check_members(const char *family, const char *members, const char *name,
                          const float *logits)
{
    const char *folder = mft_reference_hf(family);
    mf_engine *engine = NULL;
    mf_session *session = NULL;
    mft_reference_open(&engine, &session, with_members(folder, members), "auto", NULL);
    const float *got = last_logits(session);
    double e = mft_worst(got, logits, 256) / mft_spread(logits, 256);
    printf("  %s %s: logits off by %.2g of their spread at most\n", family, name, e);
    if (!(e <= MFT_REFERENCE_LIMIT))
        fail_msg("%s %s: logits off by %.3g of their spread", family, name, e);
    mf_session_close(&session);
    mf_engine_close(&engine);
}

static void rope_scaling(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scaled / sizeof scaled[0]; i++) {
        char members[512];
        snprintf(members, sizeof members, "rope_parameters=%s", scaled[i].parameters);
        check_members("mixtral", members, scaled[i].name, scaled[i].logits);
    }
}

/* The oracle's models with members of config.json other or missing. */
static const struct {
    const char *family, *members;
    float logits[256];
} options[] = {
#include "../data/option_logits.inc"
};

static void other_options(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        check_members(options[i].family, options[i].members, options[i].members, options[i].logits);
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
        MLX("gpt_oss-mxfp4-q8"),
        cmocka_unit_test(rope_scaling),
        cmocka_unit_test(other_options),
        MFT_REFERENCE_HF(HF) /* with a comma behind each */
    };
    return mft_run(tests);
}
