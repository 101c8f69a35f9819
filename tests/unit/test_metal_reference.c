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
    const char *name = *state, *folder = mft_reference_hf(name);
    if (MFT_SANITIZED)
        mft_skip("%s: too slow with a sanitizer", name);
    check(folder);
}

#define TREE(name)                                                                                 \
    {                                                                                              \
        name, in_tree, NULL, NULL, name                                                            \
    }
#define HF(name) {"hf/" name, oracle, NULL, NULL, name},

int main(void)
{
    const struct CMUnitTest tests[] = {
        TREE("mlx-tiny/q4g32"),           TREE("mlx-tiny/mixed-q3g32"),
        TREE("mlx-tiny/qwen2_moe-q6g32"), TREE("mlx-tiny/deepseek_v3-q4g32"),
        TREE("latent-tiny/hf-v2-lite"),   MFT_REFERENCE_HF(HF) /* with a comma behind each */
    };
    return mft_run(tests);
}
