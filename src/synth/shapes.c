/* The table of published shapes; see shapes.h. Read by the tensor list, the metadata and the tests,
 * on any thread; holds no state.
 *
 * Sources: the config.json that each organisation publishes beside the weights, for
 *   Qwen/Qwen3-30B-A3B, Qwen/Qwen3-235B-A22B; Qwen/Qwen1.5-MoE-A2.7B, Qwen/Qwen2-57B-A14B;
 *   Qwen/Qwen3-Next-80B-A3B-Instruct; Qwen/Qwen3.6-35B-A3B, Qwen/Qwen3.5-397B-A17B (their text
 * part); openai/gpt-oss-20b, openai/gpt-oss-120b; deepseek-ai/DeepSeek-V3. "tiny" is nobody's: two
 * to four layers wide enough for blocks of 256, for tests. */
#include "synth/shapes.h"

#include <string.h>

#include "base/buf.h"

static const struct {
    const char *name, *gguf;
} archs[] = {
    [MFI_SYNTH_QWEN3_MOE] = {"qwen3_moe", "qwen3moe"},
    [MFI_SYNTH_QWEN2_MOE] = {"qwen2_moe", "qwen2moe"},
    [MFI_SYNTH_QWEN3_NEXT] = {"qwen3_next", "qwen3next"},
    [MFI_SYNTH_QWEN3_5_MOE] = {"qwen3_5_moe", "qwen35moe"},
    [MFI_SYNTH_GPT_OSS] = {"gpt_oss", "gpt-oss"},
    [MFI_SYNTH_DEEPSEEK_V3] = {"deepseek_v3", "deepseek2"},
};

/* layers, hidden, vocabulary, context */
#define SIZE(l, h, v, c) .n_layers = (l), .hidden = (h), .n_vocab = (v), .ctx = (c)
/* heads, K/V heads, head size, rotated dimensions, base of the angles */
#define ATTN(h, kv, d, rot, theta)                                                                 \
    .n_head = (h), .n_kv_head = (kv), .head_dim = (d), .n_rot = (rot), .rope_theta = (theta)
/* experts, chosen ones, width of one, width of the shared ones, dense width */
#define MOE(e, k, w, shared, ffn)                                                                  \
    .n_experts = (e), .top_k = (k), .expert_width = (w), .shared_width = (shared),                 \
    .ffn_width = (ffn)
/* K heads, V heads: heads of 128, a convolution over 4, attention in every fourth layer */
#define GDN(k, v) .gdn = {(k), (v), 128, 4, 4}

#define YARN_GPT_OSS                                                                               \
    {                                                                                              \
        32, 0, 4096                                                                                \
    }
/* 0.1 times mscale_all_dim */
#define YARN_DEEPSEEK                                                                              \
    {                                                                                              \
        40, 0.1f, 4096                                                                             \
    }

static const mfi_synth_shape shapes[] = {
    {MFI_SYNTH_QWEN3_MOE, "30b-a3b", "Qwen3-30B-A3B", SIZE(48, 2048, 151936, 40960),
     ATTN(32, 4, 128, 128, 1e6f), .eps = 1e-6f, MOE(128, 8, 768, 0, 6144)},
    {MFI_SYNTH_QWEN3_MOE, "235b-a22b", "Qwen3-235B-A22B", SIZE(94, 4096, 151936, 40960),
     ATTN(64, 4, 128, 128, 1e6f), .eps = 1e-6f, MOE(128, 8, 1536, 0, 12288)},
    {MFI_SYNTH_QWEN3_MOE, "tiny", NULL, SIZE(4, 1024, 16384, 4096), ATTN(8, 2, 64, 64, 1e6f),
     .eps = 1e-6f, MOE(32, 2, 256, 0, 1024)},

    {MFI_SYNTH_QWEN2_MOE, "1.5-moe-a2.7b", "Qwen1.5-MoE-A2.7B", SIZE(24, 2048, 151936, 8192),
     ATTN(16, 16, 128, 128, 1e6f), .eps = 1e-6f, MOE(60, 4, 1408, 5632, 5632)},
    {MFI_SYNTH_QWEN2_MOE, "57b-a14b", "Qwen2-57B-A14B", SIZE(28, 3584, 151936, 131072),
     ATTN(28, 4, 128, 128, 1e6f), .eps = 1e-6f, MOE(64, 8, 2560, 20480, 18944)},
    {MFI_SYNTH_QWEN2_MOE, "tiny", NULL, SIZE(3, 1024, 16384, 4096), ATTN(16, 4, 64, 64, 1e6f),
     .eps = 1e-6f, MOE(32, 2, 256, 512, 512)},

    {MFI_SYNTH_QWEN3_NEXT, "80b-a3b", "Qwen3-Next-80B-A3B", SIZE(48, 2048, 151936, 262144),
     ATTN(16, 2, 256, 64, 1e7f), .eps = 1e-6f, MOE(512, 10, 512, 512, 5120), GDN(16, 32)},
    {MFI_SYNTH_QWEN3_NEXT, "tiny", NULL, SIZE(4, 1024, 16384, 4096), ATTN(4, 2, 64, 16, 1e7f),
     .eps = 1e-6f, MOE(32, 2, 256, 256, 512), GDN(2, 4)},

    {MFI_SYNTH_QWEN3_5_MOE, "35b-a3b", "Qwen3.6-35B-A3B", SIZE(40, 2048, 248320, 262144),
     ATTN(16, 2, 256, 64, 1e7f), .eps = 1e-6f, MOE(256, 8, 512, 512, 0), GDN(16, 32)},
    {MFI_SYNTH_QWEN3_5_MOE, "397b-a17b", "Qwen3.5-397B-A17B", SIZE(60, 4096, 248320, 262144),
     ATTN(32, 2, 256, 64, 1e7f), .eps = 1e-6f, MOE(512, 10, 1024, 1024, 0), GDN(16, 64)},
    {MFI_SYNTH_QWEN3_5_MOE, "tiny", NULL, SIZE(4, 1024, 16384, 4096), ATTN(4, 2, 64, 16, 1e7f),
     .eps = 1e-6f, MOE(32, 2, 256, 256, 0), GDN(2, 4)},

    {MFI_SYNTH_GPT_OSS, "20b", "gpt-oss-20b", SIZE(24, 2880, 201088, 131072),
     ATTN(64, 8, 64, 64, 150000), .eps = 1e-5f, MOE(32, 4, 2880, 0, 2880), .yarn = YARN_GPT_OSS,
     .window = 128},
    {MFI_SYNTH_GPT_OSS, "120b", "gpt-oss-120b", SIZE(36, 2880, 201088, 131072),
     ATTN(64, 8, 64, 64, 150000), .eps = 1e-5f, MOE(128, 4, 2880, 0, 2880), .yarn = YARN_GPT_OSS,
     .window = 128},
    {MFI_SYNTH_GPT_OSS, "tiny", NULL, SIZE(2, 992, 16384, 4096), ATTN(8, 2, 64, 64, 150000),
     .eps = 1e-5f, MOE(32, 2, 288, 0, 288), .yarn = {32, 0, 128}, .window = 128},

    {MFI_SYNTH_DEEPSEEK_V3, "671b", "DeepSeek-V3", SIZE(61, 7168, 129280, 163840),
     ATTN(128, 1, 192, 64, 10000), .eps = 1e-6f, MOE(256, 8, 2048, 2048, 18432), .n_dense = 3,
     .mla = {1536, 512, 128, 128, 8, 4, 2.5f}, .yarn = YARN_DEEPSEEK},
    {MFI_SYNTH_DEEPSEEK_V3, "tiny", NULL, SIZE(3, 1024, 16384, 4096), ATTN(4, 1, 192, 64, 10000),
     .eps = 1e-6f, MOE(64, 4, 256, 256, 512), .n_dense = 1, .mla = {256, 512, 128, 128, 8, 4, 2.5f},
     .yarn = {40, 0.1f, 128}},
};

const char *mfi_synth_arch_name(mfi_synth_kind kind)
{
    return archs[kind].name;
}

const char *mfi_synth_arch_gguf(mfi_synth_kind kind)
{
    return archs[kind].gguf;
}

const mfi_synth_shape *mfi_synth_shape_at(size_t i)
{
    return i < MFI_ARRAY_LEN(shapes) ? &shapes[i] : NULL;
}

/* Letters and digits count, and their case doesn't: "gpt-oss", "GPT_OSS" and "gptoss" are one. */
static const char *skip_marks(const char *s)
{
    while (*s == '-' || *s == '_' || *s == '.')
        s++;
    return s;
}

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

/* What follows `name` at the beginning of `text`, or NULL. */
static const char *after_name(const char *text, const char *name)
{
    for (name = skip_marks(name); *name; name = skip_marks(name + 1)) {
        text = skip_marks(text);
        if (lower(*text++) != lower(*name))
            return NULL;
    }
    return skip_marks(text);
}

static bool is_name(const char *text, const char *name)
{
    const char *rest = text && name ? after_name(text, name) : NULL;
    return rest && !*rest;
}

static bool is_arch(const mfi_synth_shape *s, const char *arch)
{
    return is_name(arch, archs[s->kind].name) || is_name(arch, archs[s->kind].gguf);
}

/* "Qwen3-30B-A3B" or "qwen3_moe-30b-a3b". */
static bool is_whole_name(const mfi_synth_shape *s, const char *text)
{
    const char *rest = after_name(text, archs[s->kind].name);
    return is_name(text, s->whole) || (rest && is_name(rest, s->name));
}

mf_status mfi_synth_shape_find(const char *arch, const char *name, const mfi_synth_shape **shape,
                               mf_error *err)
{
    mfi_buf known = {0};
    bool arch_known = false;
    for (size_t i = 0; i < MFI_ARRAY_LEN(shapes); i++) {
        const mfi_synth_shape *s = &shapes[i];
        bool mine = arch && is_arch(s, arch);
        arch_known |= mine;
        if ((mine && is_name(name, s->name)) || ((mine || !arch) && is_whole_name(s, name))) {
            mfi_buf_free(&known);
            *shape = s;
            return MF_OK;
        }
        if (mine || (!arch && s->whole))
            mfi_buf_fmt(&known, "%s%s", known.len ? ", " : "", arch ? s->name : s->whole);
    }
    for (size_t i = 0; i < MFI_ARRAY_LEN(archs) && arch && !arch_known; i++)
        mfi_buf_fmt(&known, "%s%s", known.len ? ", " : "", archs[i].name);
    const char *list = known.failed ? "" : known.data;
    mf_status status;
    if (!arch)
        status =
            mfi_fail(err, MF_ERR_ARGUMENT,
                     "shape: no architecture is given, and no whole name is '%.64s'; there are "
                     "%s",
                     name, list);
    else if (arch_known)
        status = mfi_fail(err, MF_ERR_ARGUMENT, "shape: %s has no '%.64s'; there are %s", arch,
                          name, list);
    else
        status =
            mfi_fail(err, MF_ERR_ARGUMENT, "arch: no shapes of '%.64s'; there are %s", arch, list);
    mfi_buf_free(&known);
    return status;
}
