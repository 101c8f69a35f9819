/* Tiny checkpoints on the fake Metal device against implementations that share no code with ours,
 * as test_reference does on the CPU: logits, hidden states layer by layer, greedy continuation. */
#include "fake/reference.h"
#include "fake/support.h"
#include "metal/fake/metal_rig.h"

#include <stdio.h>

static void check(const char *folder)
{
    mft_metal_state *d = mft_metal_device();
    mft_reference_check(folder, NULL, "metal");
    assert_string_equal(d->fault, "");
    assert_int_equal(d->n_objects, 0);
}

static void in_tree(void **state)
{
    char path[128];
    snprintf(path, sizeof path, "tests/data/%s", (const char *)*state);
    check(mft_source(path));
}

static void oracle(void **state)
{
    char name[128];
    snprintf(name, sizeof name, "hf/%s", (const char *)*state);
    const char *folder = mft_oracle(name);
    if (!folder)
        mft_skip("no oracle %s", name);
    if (MFT_SANITIZED)
        mft_skip("%s: too slow with a sanitizer", name);
    check(folder);
}

#define TREE(name)                                                                                 \
    {                                                                                              \
        name, in_tree, NULL, NULL, name                                                            \
    }
#define HF(name)                                                                                   \
    {                                                                                              \
        "hf/" name, oracle, NULL, NULL, name                                                       \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TREE("mlx-tiny/q4g32"),
        TREE("mlx-tiny/mixed-q3g32"),
        TREE("mlx-tiny/qwen2_moe-q6g32"),
        TREE("mlx-tiny/deepseek_v3-q4g32"),
        TREE("latent-tiny/hf-v2-lite"),
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
    };
    return mft_run(tests);
}
