/* Any bytes as config.json beside a fixed small model of family qwen3_5_moe, and beside one of
 * family deepseek_v3. Opening must end in a message or in a model that can be planned, with sizes
 * that agree, and printed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/format.h"
#include "plan/plan.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dirs[2][40] = {"/dev/shm/moeflux-fuzz-XXXXXX", "/dev/shm/moeflux-fuzz-XXXXXX"};

static void check(bool ok)
{
    if (!ok)
        abort();
}

static const char *in_dir(int dir, const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dirs[dir], name);
    return path;
}

/* A model of 2 layers (delta, attention), hidden 8, vocabulary 11, 2 heads of 4 over 1, delta heads
 * 2 over 1 of 4 and 3, 3 experts of 6, shared 5; what seeds/model/plain.json says. Weights are
 * zeros. */
typedef struct tensor {
    const char *name;
    unsigned dims[3];
} tensor;

static const tensor tensors[] = {
    {"model.embed_tokens.weight", {11, 8}},
    {"model.norm.weight", {8}},
    {"lm_head.weight", {11, 8}},
    {"model.layers.0.input_layernorm.weight", {8}},
    {"model.layers.0.linear_attn.in_proj_qkv.weight", {14, 8}},
    {"model.layers.0.linear_attn.in_proj_z.weight", {6, 8}},
    {"model.layers.0.linear_attn.in_proj_b.weight", {2, 8}},
    {"model.layers.0.linear_attn.in_proj_a.weight", {2, 8}},
    {"model.layers.0.linear_attn.conv1d.weight", {14, 1, 4}},
    {"model.layers.0.linear_attn.A_log", {2}},
    {"model.layers.0.linear_attn.dt_bias", {2}},
    {"model.layers.0.linear_attn.norm.weight", {3}},
    {"model.layers.0.linear_attn.out_proj.weight", {8, 6}},
    {"model.layers.1.input_layernorm.weight", {8}},
    {"model.layers.1.self_attn.q_proj.weight", {16, 8}},
    {"model.layers.1.self_attn.k_proj.weight", {4, 8}},
    {"model.layers.1.self_attn.v_proj.weight", {4, 8}},
    {"model.layers.1.self_attn.o_proj.weight", {8, 8}},
    {"model.layers.1.self_attn.q_norm.weight", {4}},
    {"model.layers.1.self_attn.k_norm.weight", {4}},
};

/* Of both layers. */
static const tensor ffn_tensors[] = {
    {"post_attention_layernorm.weight", {8}},       {"mlp.gate.weight", {3, 8}},
    {"mlp.shared_expert.gate_proj.weight", {5, 8}}, {"mlp.shared_expert.up_proj.weight", {5, 8}},
    {"mlp.shared_expert.down_proj.weight", {8, 5}}, {"mlp.shared_expert_gate.weight", {1, 8}},
    {"mlp.experts.gate_up_proj", {3, 12, 8}},       {"mlp.experts.down_proj", {3, 8, 6}},
};

/* A model of 2 layers with latent attention, the first dense: hidden 8, vocabulary 11, 2 heads of 3
 * and 2 columns with values of 5, ranks 6 and 4, 4 experts of 6, shared 6, dense 7; what
 * seeds/model/latent.json says. */
static const tensor latent_tensors[] = {
    {"model.embed_tokens.weight", {11, 8}},
    {"model.norm.weight", {8}},
    {"lm_head.weight", {11, 8}},
    {"model.layers.0.mlp.gate_proj.weight", {7, 8}},
    {"model.layers.0.mlp.up_proj.weight", {7, 8}},
    {"model.layers.0.mlp.down_proj.weight", {8, 7}},
    {"model.layers.1.mlp.gate.weight", {4, 8}},
    {"model.layers.1.mlp.gate.e_score_correction_bias", {4}},
    {"model.layers.1.mlp.shared_experts.gate_proj.weight", {6, 8}},
    {"model.layers.1.mlp.shared_experts.up_proj.weight", {6, 8}},
    {"model.layers.1.mlp.shared_experts.down_proj.weight", {8, 6}},
    {"model.layers.1.mlp.experts.gate_up_proj", {4, 12, 8}},
    {"model.layers.1.mlp.experts.down_proj", {4, 8, 6}},
};

static const tensor latent_mixer[] = {
    {"input_layernorm.weight", {8}},          {"post_attention_layernorm.weight", {8}},
    {"self_attn.q_a_proj.weight", {6, 8}},    {"self_attn.q_a_layernorm.weight", {6}},
    {"self_attn.q_b_proj.weight", {10, 6}},   {"self_attn.kv_a_proj_with_mqa.weight", {6, 8}},
    {"self_attn.kv_a_layernorm.weight", {4}}, {"self_attn.kv_b_proj.weight", {16, 4}},
    {"self_attn.o_proj.weight", {8, 10}},
};

static void put_tensor(mfi_buf *header, uint64_t *at, const char *name, const unsigned dims[3])
{
    uint64_t n = 4;
    mfi_buf_fmt(header, "%c\"%s\":{\"dtype\":\"F32\",\"shape\":[", header->len ? ',' : '{', name);
    for (int i = 0; i < 3 && dims[i]; i++) {
        mfi_buf_fmt(header, "%s%u", i ? "," : "", dims[i]);
        n *= dims[i];
    }
    mfi_buf_fmt(header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)*at,
                (unsigned long long)(*at + n));
    *at += n;
}

/* `list` once, `each` in both layers. */
static void write_weights(int dir, const tensor *list, size_t n, const tensor *each, size_t n_each)
{
    mfi_buf header = {0};
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++)
        put_tensor(&header, &at, list[i].name, list[i].dims);
    for (int layer = 0; layer < 2; layer++)
        for (size_t i = 0; i < n_each; i++) {
            char name[96];
            snprintf(name, sizeof name, "model.layers.%d.%s", layer, each[i].name);
            put_tensor(&header, &at, name, each[i].dims);
        }
    mfi_buf_str(&header, "}");
    uint64_t len = header.len; /* little-endian machines only */
    FILE *f = fopen(in_dir(dir, "model.safetensors"), "wb");
    check(f && !header.failed);
    fwrite(&len, 1, sizeof len, f);
    fwrite(header.data, 1, header.len, f);
    check(fclose(f) == 0);
    check(truncate(in_dir(dir, "model.safetensors"), (off_t)(sizeof len + len + at)) == 0);
    mfi_buf_free(&header);
}

static void clean_up(void)
{
    for (int dir = 0; dir < 2; dir++) {
        unlink(in_dir(dir, "config.json"));
        unlink(in_dir(dir, "model.safetensors"));
        rmdir(dirs[dir]);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    for (int dir = 0; dir < 2; dir++)
        check(mkdtemp(dirs[dir]) != NULL);
    atexit(clean_up);
    write_weights(0, tensors, MFI_ARRAY_LEN(tensors), ffn_tensors, MFI_ARRAY_LEN(ffn_tensors));
    write_weights(1, latent_tensors, MFI_ARRAY_LEN(latent_tensors), latent_mixer,
                  MFI_ARRAY_LEN(latent_mixer));
    return 0;
}

static void plan(const mfi_model *model, uint64_t memory_bytes)
{
    const mfi_machine machine = {.n_cpus = 2,
                                 .mem_total = MFI_GIB,
                                 .mem_available = MFI_GIB,
                                 .cgroup_limit = UINT64_MAX,
                                 .rss_bytes = 2 * MFI_MIB};
    const mfi_plan_options options = {.memory_bytes = memory_bytes};
    mfi_plan p;
    mfi_buf out = {0};
    mf_error err = {0};
    mf_status status = mfi_plan_make(&p, model, &machine, &options, &err);
    check(status == MF_OK || err.message[0]);
    if (status == MF_OK || status == MF_ERR_BUDGET) {
        uint64_t sum = 0;
        for (int i = 0; i < MFI_PLAN_N_ITEMS; i++)
            sum += p.bytes[i];
        check(p.fits == (status == MF_OK) && (!p.fits || sum <= p.budget_bytes));
        check(!p.fits || p.least_bytes <= p.budget_bytes);
        mfi_plan_print(&p, model, &machine, true, &out);
        mfi_plan_print(&p, model, &machine, false, &out);
        check(!out.failed && out.len > 0);
    }
    mfi_buf_free(&out);
    mfi_plan_free(&p);
}

static void open_one(int dir, const uint8_t *data, size_t size)
{
    FILE *f = fopen(in_dir(dir, "config.json"), "wb");
    check(f && fwrite(data, 1, size, f) == size && fclose(f) == 0);
    mfi_catalog *catalog = NULL;
    mfi_model *model = NULL;
    mf_error err = {0};
    mf_status status = mfi_format_open(&catalog, dirs[dir], &err);
    if (status == MF_OK)
        status = mfi_model_open(&model, catalog, &err);
    check(status == MF_OK ? model != NULL : !model && err.message[0] && err.status == status);
    if (model) {
        plan(model, 0);
        plan(model, 4 * MFI_MIB);
        plan(model, UINT64_MAX);
    }
    mfi_model_close(&model);
    mfi_catalog_close(&catalog);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int dir = 0; dir < 2; dir++)
        open_one(dir, data, size);
    return 0;
}
