/* Any JSON object as config.json, or as GGUF metadata where it says general.architecture, beside
 * the headers of a small model: GLM's layers, or Llama's with experts. Every family's reading of
 * its configuration must end in a message or in a model that can be planned and printed, and whose
 * rotary frequencies are numbers. */
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "format/catalog_build.h"
#include "fuzz_dir.h"
#include "plan/plan.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"config.json", NULL};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    fuzz_dir_make(names);
    return 0;
}

static void add(mfi_catalog *c, uint32_t d0, uint32_t d1, uint32_t d2, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

static void add(mfi_catalog *c, uint32_t d0, uint32_t d1, uint32_t d2, const char *format, ...)
{
    char name[128];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    mfi_tensor t = {.type = mfi_qtype_float(MFI_Q_F32),
                    .dims = {d0, d1, d2},
                    .n_dims = d2   ? 3
                              : d1 ? 2
                                   : 1};
    fuzz_check(mfi_catalog_add(c, &t, MFI_DTYPE_FLOAT, name, strlen(name), NULL) == MF_OK);
}

/* Seeds glm4_moe.json, with a layer 0 without experts, and llama.json fit these: hidden 64, 96
 * tokens, 4 heads of 16 over 2, 4 experts of 32. */
static void add_glm(mfi_catalog *c)
{
#define LAYER "model.layers.%u."
    add(c, 96, 64, 0, "model.embed_tokens.weight");
    add(c, 64, 0, 0, "model.norm.weight");
    add(c, 96, 64, 0, "lm_head.weight");
    for (uint32_t i = 0; i < 2; i++) {
        static const char *const proj[] = {"q_proj", "k_proj", "v_proj"};
        add(c, 64, 0, 0, LAYER "input_layernorm.weight", i);
        add(c, 64, 0, 0, LAYER "post_attention_layernorm.weight", i);
        for (uint32_t p = 0; p < 3; p++) {
            add(c, p ? 32 : 64, 64, 0, LAYER "self_attn.%s.weight", i, proj[p]);
            add(c, p ? 32 : 64, 0, 0, LAYER "self_attn.%s.bias", i, proj[p]);
        }
        add(c, 64, 64, 0, LAYER "self_attn.o_proj.weight", i);
        add(c, 16, 0, 0, LAYER "self_attn.q_norm.weight", i);
        add(c, 16, 0, 0, LAYER "self_attn.k_norm.weight", i);
        const char *glu = i ? "mlp.shared_experts" : "mlp";
        add(c, i ? 32 : 48, 64, 0, LAYER "%s.gate_proj.weight", i, glu);
        add(c, i ? 32 : 48, 64, 0, LAYER "%s.up_proj.weight", i, glu);
        add(c, 64, i ? 32 : 48, 0, LAYER "%s.down_proj.weight", i, glu);
    }
    add(c, 4, 64, 0, LAYER "mlp.gate.weight", 1);
    add(c, 4, 0, 0, LAYER "mlp.gate.e_score_correction_bias", 1);
    add(c, 4, 64, 64, LAYER "mlp.experts.gate_up_proj", 1);
    add(c, 4, 64, 32, LAYER "mlp.experts.down_proj", 1);
}

static void add_llama(mfi_catalog *c)
{
    add(c, 96, 64, 0, "token_embd.weight");
    add(c, 64, 0, 0, "output_norm.weight");
    for (uint32_t i = 0; i < 2; i++) {
        add(c, 64, 0, 0, "blk.%u.attn_norm.weight", i);
        add(c, 64, 0, 0, "blk.%u.ffn_norm.weight", i);
        add(c, 64, 64, 0, "blk.%u.attn_q.weight", i);
        add(c, 32, 64, 0, "blk.%u.attn_k.weight", i);
        add(c, 32, 64, 0, "blk.%u.attn_v.weight", i);
        add(c, 64, 64, 0, "blk.%u.attn_output.weight", i);
        add(c, 4, 64, 0, "blk.%u.ffn_gate_inp.weight", i);
        add(c, 4, 32, 64, "blk.%u.ffn_gate_exps.weight", i);
        add(c, 4, 32, 64, "blk.%u.ffn_up_exps.weight", i);
        add(c, 4, 64, 32, "blk.%u.ffn_down_exps.weight", i);
    }
}

static void check_model(const mfi_model *model)
{
    const mfi_shape *s = &model->shape;
    double freq[MFI_MAX_HEAD_DIM / 2];
    fuzz_check(s->n_rot >= 2 && s->n_rot <= s->head_dim && s->head_dim <= MFI_MAX_HEAD_DIM);
    mfi_rope_frequencies(&s->rope, s->n_rot, freq);
    for (uint32_t i = 0; i < s->n_rot / 2; i++)
        fuzz_check(isfinite(freq[i]) && freq[i] >= 0);
    fuzz_check(isfinite(s->rope.attn_factor) && isfinite(s->attn_scale) &&
               isfinite(s->logit_scale));
    fuzz_check(s->top_k <= s->n_experts);
    const mfi_machine machine = {
        .n_cpus = 2, .mem_total = MFI_GIB, .mem_available = MFI_GIB, .cgroup_limit = UINT64_MAX};
    const mfi_plan_options options = {.isa = MFI_ISA_C};
    mfi_plan plan;
    mfi_buf out = {0};
    mf_status status = mfi_plan_make(&plan, model, &machine, &options, NULL);
    if (status == MF_OK)
        mfi_plan_print(&plan, model, &machine, true, &out);
    mfi_plan_free(&plan);
    mfi_buf_free(&out);
}

static mf_status make_catalog(mfi_catalog **catalog, mfi_json *tree, const uint8_t *data,
                              size_t size)
{
    uint32_t file; /* messages name the tensors' one */
    char config[128];
    fuzz_put(names[0], data, size);
    fuzz_path(config, names[0]);
    if (mfi_json_typeof(mfi_json_get(tree, "general.architecture")) != MFI_JSON_NULL) {
        fuzz_check(mfi_catalog_new_bare(catalog, "fuzz.gguf", NULL) == MF_OK);
        mfi_catalog_set_meta(*catalog, tree);
        fuzz_check(mfi_catalog_add_file(*catalog, config, &file, NULL) == MF_OK);
        add_llama(*catalog);
        return MF_OK;
    }
    mfi_json_free(&tree);
    MFI_TRY(mfi_catalog_new(catalog, fuzz_dir, NULL));
    fuzz_check(mfi_catalog_add_file(*catalog, config, &file, NULL) == MF_OK);
    add_glm(*catalog);
    return MF_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mfi_json *tree = NULL;
    mfi_catalog *catalog = NULL;
    mfi_model *model = NULL;
    mf_error err = {0};
    if (mfi_json_parse((const char *)data, size, "fuzz", &tree, &err) != MF_OK)
        return 0;
    if (make_catalog(&catalog, tree, data, size) == MF_OK) {
        mf_status status = mfi_model_open(&model, catalog, &err);
        fuzz_check(status == MF_OK ? model != NULL
                                   : !model && err.message[0] && err.status == status);
        if (model)
            check_model(model);
    }
    mfi_model_close(&model);
    mfi_catalog_close(&catalog);
    return 0;
}
