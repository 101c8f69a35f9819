/* Tiny models of any family; see family_model.h. What the names and sizes are is the engine's own
 * table: tests that use this compare two forms of a model, not a model with outside evidence. */
#include "fake/support.h"
#include "fake/family_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "fake/header_model.h"
#include "fake/model_files.h"
#include "model/config.h"
#include "quant/quant.h"

typedef struct maker {
    mfi_model model;
    mfi_rng rng;
    mft_tensor list[512];
    char names[512][160];
    size_t n;
} maker;

static void put(maker *m, const char *prefix, const char *name, uint64_t rows, uint64_t cols,
                bool vector)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->names[i], full) == 0)
            return; /* another role's part of it */
    uint16_t *data = malloc(rows * cols * sizeof *data);
    size_t i = m->n++;
    assert_true(data && i < MFI_ARRAY_LEN(m->list));
    double width = vector ? 0.5 : 3 / sqrt((double)cols);
    for (uint64_t k = 0; k < rows * cols; k++)
        data[k] = mfi_f32_to_bf16((float)((mfi_rng_unit(&m->rng) - 0.5) * width + vector));
    memcpy(m->names[i], full, sizeof full);
    m->list[i] = (mft_tensor){m->names[i], "BF16", vector ? 1 : 2, {rows, cols}, data};
    if (vector)
        m->list[i].dims[0] = rows * cols;
}

static void put_recipe(maker *m, const mfi_recipe *recipe, const char *prefix)
{
    const mfi_shape *s = &m->model.shape;
    for (uint32_t i = 0; i < recipe->n_names; i++) {
        const mfi_name_rule *rule = &recipe->names[i];
        uint32_t rows = mfi_dim_value(s, rule->rows), cols = mfi_dim_value(s, rule->cols);
        if (m->model.omit[rule->role] || (rule->role == MFI_ROLE_LM_HEAD && m->model.tied))
            continue;
        if (rule->hf[0].map == MFI_MAP_KVB_K)
            cols = s->latent_kv;
        put(m, rule->role == MFI_ROLE_LM_HEAD ? "" : prefix, rule->hf[0].name,
            mfi_map_tensor_rows(s, rule->hf[0].map, rows), cols, rule->load != MFI_LOAD_MATRIX);
    }
}

static void put_experts(maker *m, const char *prefix)
{
    const mfi_shape *s = &m->model.shape;
    const mfi_expert_names *names = m->model.arch->experts;
    for (uint32_t e = 0; e < s->n_experts; e++)
        for (uint32_t p = 0; p < MFI_EXPERT_PROJS; p++) {
            char name[96];
            snprintf(name, sizeof name, "%s.%u.%s.weight", names->each, e, names->proj[p]);
            bool down = p == MFI_EXPERT_DOWN;
            put(m, prefix, name, down ? s->hidden : s->expert_width,
                down ? s->expert_width : s->hidden, false);
        }
}

static void put_model(maker *m)
{
    const mfi_arch *arch = m->model.arch;
    put_recipe(m, &arch->begin, "model.");
    for (uint32_t i = 0; i < m->model.shape.n_layers; i++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "model.layers.%u.", i);
        put_recipe(m, &arch->mixer[m->model.mixer[i]], prefix);
        put_recipe(m, &arch->ffn[m->model.ffn[i]], prefix);
        if (mfi_model_routed(&m->model, i))
            put_experts(m, prefix);
    }
    put_recipe(m, &arch->head, "model.");
}

const char *mft_family_write(const char *config, uint64_t seed)
{
    mf_error err;
    mft_headers *headers = mft_headers_new(config);
    maker *m = calloc(1, sizeof *m);
    m->rng = (mfi_rng){seed};
    m->model.catalog = mft_headers_catalog(headers);
    mfi_json *root = NULL;
    mft_ok(mfi_json_parse(config, strlen(config), "config", &root, &err), &err);
    const mfi_config c = {.root = root, .path = "made up"};
    const char *type = mfi_json_str(mfi_json_get(root, "model_type"), NULL);
    for (uint32_t i = 0; i < mfi_n_archs; i++)
        if (mfi_archs[i]->model_types[0] && strcmp(mfi_archs[i]->model_types[0], type) == 0)
            m->model.arch = mfi_archs[i];
    assert_non_null(m->model.arch);
    mft_ok(mfi_model_read_shape(&m->model, &c, root, &err), &err);
    put_model(m);
    const char *dir = mft_folder();
    mft_write_str(dir, "config.json", config);
    mft_write_tensors(dir, "model.safetensors", m->list, m->n);
    for (size_t i = 0; i < m->n; i++)
        free((void *)m->list[i].data);
    free(m->model.mixer);
    free(m->model.ffn);
    free(m);
    mfi_json_free(&root);
    mft_headers_free(headers);
    return dir;
}
