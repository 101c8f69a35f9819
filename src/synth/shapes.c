/* The table of published shapes; see shapes.h. Read by the tensor list, the metadata and the tests,
 * on any thread; holds no state.
 *
 * Sources: the config.json that each organisation publishes beside the weights, for
 *   Qwen/Qwen3-30B-A3B, Qwen/Qwen3-235B-A22B; Qwen/Qwen1.5-MoE-A2.7B, Qwen/Qwen2-57B-A14B;
 *   Qwen/Qwen3-Next-80B-A3B-Instruct; Qwen/Qwen3.6-35B-A3B, Qwen/Qwen3.5-397B-A17B (their text
 * part); openai/gpt-oss-20b, openai/gpt-oss-120b; deepseek-ai/DeepSeek-V3,
 *   deepseek-ai/DeepSeek-V2, deepseek-ai/DeepSeek-V2-Lite; moonshotai/Kimi-K2-Instruct;
 *   zai-org/GLM-4.7-Flash; mistralai/Mixtral-8x7B-Instruct-v0.1,
 * mistralai/Mixtral-8x22B-Instruct-v0.1; allenai/OLMoE-1B-7B-0924; zai-org/GLM-4.5-Air,
 * zai-org/GLM-4.6; MiniMaxAI/MiniMax-M2; ibm-granite/granite-3.1-3b-a800m-instruct;
 * rednote-hilab/dots.llm1.inst. "tiny" is nobody's: two to four layers wide enough for blocks of
 * 256, for tests. llama.cpp knows models without a latent of queries by their 27 layers, so
 * DeepSeek-V2's tiny one has it. */
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
    [MFI_SYNTH_DEEPSEEK_V2] = {"deepseek_v2", "deepseek2"},
    [MFI_SYNTH_KIMI_K2] = {"kimi_k2", "deepseek2"},
    [MFI_SYNTH_GLM4_MOE_LITE] = {"glm4_moe_lite", "deepseek2"},
    [MFI_SYNTH_MIXTRAL] = {"mixtral", "llama"},
    [MFI_SYNTH_OLMOE] = {"olmoe", "olmoe"},
    [MFI_SYNTH_GLM4_MOE] = {"glm4_moe", "glm4moe"},
    [MFI_SYNTH_MINIMAX_M2] = {"minimax_m2", "minimax-m2"},
    [MFI_SYNTH_GRANITEMOE] = {"granitemoe", "granitemoe"},
    [MFI_SYNTH_DOTS1] = {"dots1", "dots1"},
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
        32, 0, 4096, 0                                                                             \
    }
/* 0.1 times mscale_all_dim */
#define YARN_DEEPSEEK                                                                              \
    {                                                                                              \
        40, 0.1f, 4096, 0                                                                          \
    }

static const mfi_synth_shape shapes[] = {
    {MFI_SYNTH_QWEN3_MOE, "30b-a3b", SIZE(48, 2048, 151936, 40960), ATTN(32, 4, 128, 128, 1e6f),
     .eps = 1e-6f, MOE(128, 8, 768, 0, 6144)},
    {MFI_SYNTH_QWEN3_MOE, "235b-a22b", SIZE(94, 4096, 151936, 40960), ATTN(64, 4, 128, 128, 1e6f),
     .eps = 1e-6f, MOE(128, 8, 1536, 0, 12288)},
    {MFI_SYNTH_QWEN3_MOE, "tiny", SIZE(4, 1024, 16384, 4096), ATTN(8, 2, 64, 64, 1e6f),
     .eps = 1e-6f, MOE(32, 2, 256, 0, 1024)},

    {MFI_SYNTH_QWEN2_MOE, "1.5-moe-a2.7b", SIZE(24, 2048, 151936, 8192),
     ATTN(16, 16, 128, 128, 1e6f), .eps = 1e-6f, MOE(60, 4, 1408, 5632, 5632)},
    {MFI_SYNTH_QWEN2_MOE, "57b-a14b", SIZE(28, 3584, 151936, 131072), ATTN(28, 4, 128, 128, 1e6f),
     .eps = 1e-6f, MOE(64, 8, 2560, 20480, 18944)},
    {MFI_SYNTH_QWEN2_MOE, "tiny", SIZE(3, 1024, 16384, 4096), ATTN(16, 4, 64, 64, 1e6f),
     .eps = 1e-6f, MOE(32, 2, 256, 512, 512)},

    {MFI_SYNTH_QWEN3_NEXT, "80b-a3b", SIZE(48, 2048, 151936, 262144), ATTN(16, 2, 256, 64, 1e7f),
     .eps = 1e-6f, MOE(512, 10, 512, 512, 5120), GDN(16, 32)},
    {MFI_SYNTH_QWEN3_NEXT, "tiny", SIZE(4, 1024, 16384, 4096), ATTN(4, 2, 64, 16, 1e7f),
     .eps = 1e-6f, MOE(32, 2, 256, 256, 512), GDN(2, 4)},

    {MFI_SYNTH_QWEN3_5_MOE, "35b-a3b", SIZE(40, 2048, 248320, 262144), ATTN(16, 2, 256, 64, 1e7f),
     .eps = 1e-6f, MOE(256, 8, 512, 512, 0), GDN(16, 32)},
    {MFI_SYNTH_QWEN3_5_MOE, "397b-a17b", SIZE(60, 4096, 248320, 262144), ATTN(32, 2, 256, 64, 1e7f),
     .eps = 1e-6f, MOE(512, 10, 1024, 1024, 0), GDN(16, 64)},
    {MFI_SYNTH_QWEN3_5_MOE, "tiny", SIZE(4, 1024, 16384, 4096), ATTN(4, 2, 64, 16, 1e7f),
     .eps = 1e-6f, MOE(32, 2, 256, 256, 0), GDN(2, 4)},

    {MFI_SYNTH_GPT_OSS, "20b", SIZE(24, 2880, 201088, 131072), ATTN(64, 8, 64, 64, 150000),
     .eps = 1e-5f, MOE(32, 4, 2880, 0, 2880), .yarn = YARN_GPT_OSS, .window = 128},
    {MFI_SYNTH_GPT_OSS, "120b", SIZE(36, 2880, 201088, 131072), ATTN(64, 8, 64, 64, 150000),
     .eps = 1e-5f, MOE(128, 4, 2880, 0, 2880), .yarn = YARN_GPT_OSS, .window = 128},
    {MFI_SYNTH_GPT_OSS, "tiny", SIZE(2, 992, 16384, 4096), ATTN(8, 2, 64, 64, 150000), .eps = 1e-5f,
     MOE(32, 2, 288, 0, 288), .yarn = {32, 0, 128, 0}, .window = 128},

    {MFI_SYNTH_DEEPSEEK_V3, "671b", SIZE(61, 7168, 129280, 163840), ATTN(128, 1, 192, 64, 10000),
     .eps = 1e-6f, MOE(256, 8, 2048, 2048, 18432), .n_dense = 3, .routed_scale = 2.5f,
     .mla = {1536, 512, 128, 128, 8, 4}, .yarn = YARN_DEEPSEEK},
    {MFI_SYNTH_DEEPSEEK_V3, "tiny", SIZE(3, 1024, 16384, 4096), ATTN(4, 1, 192, 64, 10000),
     .eps = 1e-6f, MOE(64, 4, 256, 256, 512), .n_dense = 1, .routed_scale = 2.5f,
     .mla = {256, 512, 128, 128, 8, 4}, .yarn = {40, 0.1f, 128, 0}},

    {MFI_SYNTH_DEEPSEEK_V2, "236b", SIZE(60, 5120, 102400, 163840), ATTN(128, 1, 192, 64, 10000),
     .eps = 1e-6f, MOE(160, 6, 1536, 3072, 12288), .n_dense = 1, .routed_scale = 16,
     .mla = {1536, 512, 128, 128, 8, 3}, .yarn = {40, 0.0707f, 4096, 0}},
    {MFI_SYNTH_DEEPSEEK_V2, "16b", SIZE(27, 2048, 102400, 163840), ATTN(16, 1, 192, 64, 10000),
     .eps = 1e-6f, MOE(64, 6, 1408, 2816, 10944), .n_dense = 1, .routed_scale = 1,
     .mla = {0, 512, 128, 128, 1, 1}, .yarn = {40, 0.0707f, 4096, 0}},
    {MFI_SYNTH_DEEPSEEK_V2, "tiny", SIZE(3, 1024, 16384, 4096), ATTN(4, 1, 192, 64, 10000),
     .eps = 1e-6f, MOE(64, 4, 256, 512, 512), .n_dense = 1, .routed_scale = 16,
     .mla = {256, 512, 128, 128, 8, 3}, .yarn = {40, 0.0707f, 128, 0}},

    {MFI_SYNTH_KIMI_K2, "1t", SIZE(61, 7168, 163840, 131072), ATTN(64, 1, 192, 64, 50000),
     .eps = 1e-6f, MOE(384, 8, 2048, 2048, 18432), .n_dense = 1, .routed_scale = 2.827f,
     .mla = {1536, 512, 128, 128, 1, 1}, .yarn = {32, 0.1f, 4096, 1}},
    {MFI_SYNTH_KIMI_K2, "tiny", SIZE(3, 1024, 16384, 4096), ATTN(4, 1, 192, 64, 50000),
     .eps = 1e-6f, MOE(64, 4, 256, 256, 512), .n_dense = 1, .routed_scale = 2.827f,
     .mla = {256, 512, 128, 128, 1, 1}, .yarn = {32, 0.1f, 128, 1}},

    {MFI_SYNTH_GLM4_MOE_LITE, "4.7-flash", SIZE(47, 2048, 154880, 202752),
     ATTN(20, 1, 256, 64, 1e6f), .eps = 1e-5f, MOE(64, 4, 1536, 1536, 10240), .n_dense = 1,
     .routed_scale = 1.8f, .mla = {768, 512, 192, 256, 1, 1}},
    {MFI_SYNTH_GLM4_MOE_LITE, "tiny", SIZE(3, 1024, 16384, 4096), ATTN(4, 1, 256, 64, 1e6f),
     .eps = 1e-5f, MOE(64, 4, 256, 256, 512), .n_dense = 1, .routed_scale = 1.8f,
     .mla = {256, 512, 192, 256, 1, 1}},

    {MFI_SYNTH_MIXTRAL, "8x7b", SIZE(32, 4096, 32000, 32768), ATTN(32, 8, 128, 128, 1e6f),
     .eps = 1e-5f, MOE(8, 2, 14336, 0, 14336)},
    {MFI_SYNTH_MIXTRAL, "8x22b", SIZE(56, 6144, 32768, 65536), ATTN(48, 8, 128, 128, 1e6f),
     .eps = 1e-5f, MOE(8, 2, 16384, 0, 16384)},
    {MFI_SYNTH_MIXTRAL, "tiny", SIZE(3, 1024, 16384, 4096), ATTN(8, 2, 64, 64, 1e6f), .eps = 1e-5f,
     MOE(8, 2, 512, 0, 512)},

    {MFI_SYNTH_OLMOE, "1b-7b", SIZE(16, 2048, 50304, 4096), ATTN(16, 16, 128, 128, 1e4f),
     .eps = 1e-5f, MOE(64, 8, 1024, 0, 1024)},
    {MFI_SYNTH_OLMOE, "tiny", SIZE(3, 1024, 16384, 4096), ATTN(16, 16, 64, 64, 1e4f), .eps = 1e-5f,
     MOE(32, 2, 256, 0, 256)},

    {MFI_SYNTH_GLM4_MOE, "4.5-air", SIZE(46, 4096, 151552, 131072), ATTN(96, 8, 128, 64, 1e6f),
     .eps = 1e-5f, MOE(128, 8, 1408, 1408, 10944), .n_dense = 1, .routed_scale = 1},
    {MFI_SYNTH_GLM4_MOE, "4.6", SIZE(92, 5120, 151552, 202752), ATTN(96, 8, 128, 64, 1e6f),
     .eps = 1e-5f, MOE(160, 8, 1536, 1536, 12288), .n_dense = 3, .qk_norm = true,
     .routed_scale = 2.5f},
    {MFI_SYNTH_GLM4_MOE, "tiny", SIZE(3, 1024, 16384, 4096), ATTN(8, 2, 64, 32, 1e6f), .eps = 1e-5f,
     MOE(32, 2, 256, 256, 512), .n_dense = 1, .qk_norm = true, .routed_scale = 2.5f},

    {MFI_SYNTH_MINIMAX_M2, "230b-a10b", SIZE(62, 3072, 200064, 196608), ATTN(48, 8, 128, 64, 5e6f),
     .eps = 1e-6f, MOE(256, 8, 1536, 0, 1536)},
    {MFI_SYNTH_MINIMAX_M2, "tiny", SIZE(3, 1024, 16384, 4096), ATTN(8, 2, 64, 32, 5e6f),
     .eps = 1e-6f, MOE(32, 2, 256, 0, 256)},

    {MFI_SYNTH_GRANITEMOE, "3b-a800m", SIZE(32, 1536, 49155, 131072), ATTN(24, 8, 64, 64, 1e7f),
     .eps = 1e-6f, MOE(40, 8, 512, 0, 512), .scale = {12, 0.22f, 0.015625f, 6}},
    {MFI_SYNTH_GRANITEMOE, "tiny", SIZE(3, 1024, 16384, 4096), ATTN(16, 4, 64, 64, 1e7f),
     .eps = 1e-6f, MOE(32, 2, 256, 0, 256), .scale = {12, 0.22f, 0.015625f, 6}},

    {MFI_SYNTH_DOTS1, "142b-a14b", SIZE(62, 4096, 152064, 32768), ATTN(32, 32, 128, 128, 1e7f),
     .eps = 1e-5f, MOE(128, 6, 1408, 2816, 10944), .n_dense = 1, .routed_scale = 2.5f},
    {MFI_SYNTH_DOTS1, "tiny", SIZE(3, 1024, 16384, 4096), ATTN(8, 8, 64, 64, 1e7f), .eps = 1e-5f,
     MOE(32, 2, 256, 512, 512), .n_dense = 1, .routed_scale = 2.5f},
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

/* What the published ones are called as a whole; NULL: nobody's. */
static const char *whole_name(const mfi_synth_shape *s)
{
    static const struct {
        mfi_synth_kind kind;
        const char *name, *whole;
    } names[] = {
        {MFI_SYNTH_QWEN3_MOE, "30b-a3b", "Qwen3-30B-A3B"},
        {MFI_SYNTH_QWEN3_MOE, "235b-a22b", "Qwen3-235B-A22B"},
        {MFI_SYNTH_QWEN2_MOE, "1.5-moe-a2.7b", "Qwen1.5-MoE-A2.7B"},
        {MFI_SYNTH_QWEN2_MOE, "57b-a14b", "Qwen2-57B-A14B"},
        {MFI_SYNTH_QWEN3_NEXT, "80b-a3b", "Qwen3-Next-80B-A3B"},
        {MFI_SYNTH_QWEN3_5_MOE, "35b-a3b", "Qwen3.6-35B-A3B"},
        {MFI_SYNTH_QWEN3_5_MOE, "397b-a17b", "Qwen3.5-397B-A17B"},
        {MFI_SYNTH_GPT_OSS, "20b", "gpt-oss-20b"},
        {MFI_SYNTH_GPT_OSS, "120b", "gpt-oss-120b"},
        {MFI_SYNTH_DEEPSEEK_V3, "671b", "DeepSeek-V3"},
        {MFI_SYNTH_DEEPSEEK_V2, "236b", "DeepSeek-V2"},
        {MFI_SYNTH_DEEPSEEK_V2, "16b", "DeepSeek-V2-Lite"},
        {MFI_SYNTH_KIMI_K2, "1t", "Kimi-K2"},
        {MFI_SYNTH_GLM4_MOE_LITE, "4.7-flash", "GLM-4.7-Flash"},
        {MFI_SYNTH_MIXTRAL, "8x7b", "Mixtral-8x7B"},
        {MFI_SYNTH_MIXTRAL, "8x22b", "Mixtral-8x22B"},
        {MFI_SYNTH_OLMOE, "1b-7b", "OLMoE-1B-7B"},
        {MFI_SYNTH_GLM4_MOE, "4.5-air", "GLM-4.5-Air"},
        {MFI_SYNTH_GLM4_MOE, "4.6", "GLM-4.6"},
        {MFI_SYNTH_MINIMAX_M2, "230b-a10b", "MiniMax-M2"},
        {MFI_SYNTH_GRANITEMOE, "3b-a800m", "granite-3.1-3b-a800m"},
        {MFI_SYNTH_DOTS1, "142b-a14b", "dots.llm1"},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(names); i++)
        if (names[i].kind == s->kind && strcmp(names[i].name, s->name) == 0)
            return names[i].whole;
    return NULL;
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
    return is_name(text, whole_name(s)) || (rest && is_name(rest, s->name));
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
        const char *shown = arch ? s->name : whole_name(s);
        if (mine || (!arch && shown))
            mfi_buf_fmt(&known, "%s%s", known.len ? ", " : "", shown);
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
