/* Model folders that are wrong, opened as an application does: one clear message that names file
 * and tensor or key, never a crash; and what opens in spite of an odd value must run. */
#include "fake/support.h"
#include "fake/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_IDS 5

/* Evaluates a few tokens. */
static mf_status run(mf_engine *engine, mf_error *err)
{
    mf_session *session = NULL;
    mf_model_info info = {.struct_size = sizeof info};
    int32_t ids[N_IDS];
    mf_engine_info(engine, &info);
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)((uint32_t)i % info.n_vocab);
    mf_status status = mf_session_open(&session, engine, err);
    if (status == MF_OK)
        status = mf_session_eval(session, ids, info.ctx < N_IDS ? info.ctx : N_IDS, NULL, err);
    mf_session_close(&session);
    return status;
}

/* Opens the folder, and runs the model if that works. */
static mf_status try_model(const char *dir, mf_error *err)
{
    mf_engine *engine = NULL;
    mf_engine_options o;
    mf_engine_options_default(&o);
    o.model_path = dir;
    o.memory_bytes = MFI_GIB;
    o.n_threads = 2;
    o.ctx = 0;
    *err = (mf_error){0};
    mf_status status = mf_engine_open(&engine, &o, err);
    assert_true((status == MF_OK) == (engine != NULL));
    if (status == MF_OK)
        mft_ok(run(engine, err), err);
    mf_engine_close(&engine);
    return status;
}

static void one_line(mf_status status, const mf_error *err, const char *names, const char *what)
{
    if (status == MF_OK)
        fail_msg("%s: was accepted", what);
    if (err->status != status || !err->message[0] || strchr(err->message, '\n') ||
        !strstr(err->message, names))
        fail_msg("%s: %s: '%s' should name %s", what, mf_status_name(status), err->message, names);
}

/* ---- tensors ---- */

static void write_model(const char *dir, const mft_tiny *s, const mft_tensor_list *t)
{
    mft_write_tensors(dir, "model.safetensors", t->list, t->n);
    mft_tiny_write_config(dir, s, NULL, NULL);
}

static void wrong_tensors(bool fused)
{
    mft_tiny s;
    mf_error err;
    mft_tiny_default(&s);
    s.fused = fused;
    const char *dir = mft_folder();
    mft_tensor_list *t = mft_tiny_make(&s);
    write_model(dir, &s, t);
    mft_ok(try_model(dir, &err), &err);
    for (size_t i = 0; i < t->n; i++) {
        mft_tensor kept = t->list[i], last = t->list[t->n - 1];
        /* Gate and up fused are told from one tensor an expert by their being there. */
        bool tells = strstr(kept.name, "gate_up_proj") != NULL;
        bool embed = strstr(kept.name, "embed_tokens") != NULL;
        char what[160];

        snprintf(what, sizeof what, "without %s", kept.name);
        t->list[i] = last;
        mft_write_tensors(dir, "model.safetensors", t->list, t->n - 1);
        mf_status status = try_model(dir, &err);
        one_line(status, &err,
                 tells   ? "experts.0.gate_proj"
                 : embed ? "embed_tokens"
                         : kept.name,
                 what);
        assert_int_equal(status, MF_ERR_TENSOR_MISSING);

        for (int change = 0; change < 4; change++) {
            static const char *const changes[] = {"a row more", "a column more", "int32",
                                                  "a dimension less"};
            snprintf(what, sizeof what, "%s with %s", kept.name, changes[change]);
            t->list[i] = kept;
            t->list[t->n - 1] = i == t->n - 1 ? t->list[i] : last;
            mft_tensor *w = &t->list[i];
            w->data = NULL;
            if (change == 0)
                w->dims[0]++;
            else if (change == 1)
                w->dims[w->n_dims - 1]++;
            else if (change == 2)
                w->dtype = "I32";
            else
                w->n_dims--;
            mft_write_tensors(dir, "model.safetensors", t->list, t->n);
            status = try_model(dir, &err);
            bool same = change == 3 && (kept.dims[kept.n_dims - 1] == 1);
            if (!same || status != MF_OK) {
                one_line(status, &err, kept.name, what);
                assert_non_null(strstr(err.message, "model.safetensors"));
                assert_int_equal(status, MF_ERR_TENSOR_SHAPE);
            }
        }
        t->list[i] = kept;
        t->list[t->n - 1] = last;
    }
    mft_free_tensors(t);
}

static void every_tensor_wrong(void **state)
{
    (void)state;
    wrong_tensors(false);
    wrong_tensors(true);
}

static void tensors_that_nobody_knows(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool ok;
    } cases[] = {{"model.layers.1.mlp.gate.bias", false},
                 {"model.layers.0.self_attn.sinks", false},
                 {"model.layers.0.self_attn.rotary_emb.inv_freq", true},
                 {"model.visual.blocks.0.weight", true},
                 {"mtp.layers.0.weight", true}};
    mft_tiny s;
    mf_error err;
    mft_tiny_default(&s);
    const char *dir = mft_folder();
    mft_tensor_list *t = mft_tiny_make(&s);
    write_model(dir, &s, t);
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        t->list[t->n] =
            (mft_tensor){.name = cases[i].name, .dtype = "F32", .n_dims = 1, .dims = {3}};
        mft_write_tensors(dir, "model.safetensors", t->list, t->n + 1);
        mf_status status = try_model(dir, &err);
        if (cases[i].ok)
            mft_ok(status, &err);
        else
            one_line(status, &err, cases[i].name, cases[i].name);
    }
    mft_free_tensors(t);
}

/* A tensor of zeros as large as the numbers say, without taking room: the file has a hole. */
static void huge_tensors(void **state)
{
    (void)state;
    mft_tiny s;
    mf_error err;
    mft_tiny_default(&s);
    s.n_layers = 1;
    s.interval = 1;
    s.n_head = s.n_kv_head = 1;
    s.fused = true;
    const char *dir = mft_folder();
    const struct {
        uint64_t hidden, width, n_experts;
    } cases[] = {{1 << 16, 1 << 15, 2}, {1 << 20, 1 << 20, 1}, {64, 1 << 20, 4096}};
    for (size_t k = 0; k < MFI_ARRAY_LEN(cases); k++) {
        s.hidden = (uint32_t)cases[k].hidden;
        s.width = (uint32_t)cases[k].width;
        s.n_experts = (uint32_t)cases[k].n_experts;
        s.top_k = 1;
        char header[8192];
        uint64_t at = 0;
        int len = snprintf(header, sizeof header, "{\"__metadata__\":{}");
        const struct {
            const char *name;
            uint64_t dims[3];
        } list[] = {
            {"model.embed_tokens.weight", {s.n_vocab, s.hidden}},
            {"model.norm.weight", {s.hidden}},
            {"lm_head.weight", {s.n_vocab, s.hidden}},
            {"model.layers.0.input_layernorm.weight", {s.hidden}},
            {"model.layers.0.self_attn.q_proj.weight", {2 * s.head_dim, s.hidden}},
            {"model.layers.0.self_attn.k_proj.weight", {s.head_dim, s.hidden}},
            {"model.layers.0.self_attn.v_proj.weight", {s.head_dim, s.hidden}},
            {"model.layers.0.self_attn.o_proj.weight", {s.hidden, s.head_dim}},
            {"model.layers.0.self_attn.q_norm.weight", {s.head_dim}},
            {"model.layers.0.self_attn.k_norm.weight", {s.head_dim}},
            {"model.layers.0.post_attention_layernorm.weight", {s.hidden}},
            {"model.layers.0.mlp.gate.weight", {s.n_experts, s.hidden}},
            {"model.layers.0.mlp.shared_expert.gate_proj.weight", {s.shared, s.hidden}},
            {"model.layers.0.mlp.shared_expert.up_proj.weight", {s.shared, s.hidden}},
            {"model.layers.0.mlp.shared_expert.down_proj.weight", {s.hidden, s.shared}},
            {"model.layers.0.mlp.shared_expert_gate.weight", {1, s.hidden}},
            {"model.layers.0.mlp.experts.gate_up_proj", {s.n_experts, 2 * s.width, s.hidden}},
            {"model.layers.0.mlp.experts.down_proj", {s.n_experts, s.hidden, s.width}}};
        for (size_t i = 0; i < MFI_ARRAY_LEN(list); i++) {
            const uint64_t *d = list[i].dims;
            uint64_t n = 2 * d[0] * (d[1] ? d[1] : 1) * (d[2] ? d[2] : 1);
            len += snprintf(header + len, sizeof header - (size_t)len,
                            ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[%llu", list[i].name,
                            (unsigned long long)d[0]);
            for (int j = 1; j < 3 && d[j]; j++)
                len += snprintf(header + len, sizeof header - (size_t)len, ",%llu",
                                (unsigned long long)d[j]);
            len += snprintf(header + len, sizeof header - (size_t)len,
                            "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                            (unsigned long long)(at + n));
            at += n;
        }
        snprintf(header + len, sizeof header - (size_t)len, "}");
        mft_write_header(dir, "model.safetensors", header, 0);
        mft_tiny_write_config(dir, &s, NULL, NULL);
        if (truncate(mft_path(dir, "model.safetensors"), (off_t)(8 + strlen(header) + at)) != 0)
            mft_skip("no files of %llu bytes in %s", (unsigned long long)at, dir);
        mf_status status = try_model(dir, &err);
        one_line(status, &err, dir, "a huge model");
        assert_true(status == MF_ERR_LIMIT || status == MF_ERR_BUDGET);
        unlink(mft_path(dir, "model.safetensors"));
    }
}

/* ---- config.json ---- */

static bool number_key(const char *key)
{
    return strstr(key, "num_") || strstr(key, "size") || strstr(key, "dim") ||
           strstr(key, "max_") || strstr(key, "interval");
}

static void every_value_hostile(void **state)
{
    (void)state;
    static const char *const values[] = {"0",
                                         "-1",
                                         "1",
                                         "2",
                                         "3",
                                         "5",
                                         "7",
                                         "63",
                                         "4097",
                                         "2147483648",
                                         "4294967296",
                                         "4294967297",
                                         "9223372036854775807",
                                         "18446744073709551615",
                                         "1.5",
                                         "1e3",
                                         "1e308",
                                         "-0.0",
                                         "\"3\"",
                                         "\"\"",
                                         "[]",
                                         "[1]",
                                         "{}",
                                         "true",
                                         "false",
                                         "null",
                                         "[\"full_attention\"]",
                                         "{\"rope_theta\":0}",
                                         "{\"rope_theta\":\"1\"}",
                                         "{\"partial_rotary_factor\":0.31}",
                                         "{\"partial_rotary_factor\":1e300}",
                                         "{\"partial_rotary_factor\":-1}",
                                         "{\"rope_type\":\"yarn\"}",
                                         "{\"bits\":4,\"group_size\":32}",
                                         "{\"bits\":\"x\",\"group_size\":32}",
                                         "{\"model_type\":\"qwen3_5_moe_text\"}"};
    mft_tiny s;
    mf_error err;
    mft_tiny_default(&s);
    const char *dir = mft_tiny_write(&s);
    uint32_t n_ok = 0;
    for (const char *const *key = mft_tiny_keys; *key; key++)
        for (size_t i = 0; i < MFI_ARRAY_LEN(values); i++) {
            char what[128];
            snprintf(what, sizeof what, "%s: %s", *key, values[i]);
            mft_tiny_write_config(dir, &s, *key, values[i]);
            mf_status status = try_model(dir, &err);
            n_ok += status == MF_OK;
            if (status != MF_OK)
                one_line(status, &err, dir, what);
            /* Wrong kinds are errors, not defaults. */
            if (number_key(*key) && strchr("\"[{tf", values[i][0])) {
                one_line(status, &err, *key, what);
                assert_int_equal(status, MF_ERR_FORMAT);
            }
        }
    assert_true(n_ok > 0); /* odd, but harmless: null, an interval, ... */
}

static void keys_missing(void **state)
{
    (void)state;
    static const char *const needed[] = {
        "model_type",  "num_hidden_layers",   "hidden_size",
        "vocab_size",  "num_attention_heads", "linear_num_key_heads",
        "num_experts", "num_experts_per_tok", "moe_intermediate_size"};
    mft_tiny s;
    mf_error err;
    mft_tiny_default(&s);
    const char *dir = mft_tiny_write(&s);
    for (size_t i = 0; i < MFI_ARRAY_LEN(needed); i++) {
        mft_tiny_write_config(dir, &s, needed[i], NULL);
        one_line(try_model(dir, &err), &err, needed[i], needed[i]);
        assert_non_null(strstr(err.message, dir));
    }
}

static void contradictions(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *names;
        mf_status status;
    } cases[] = {
        {"num_experts_per_tok", "7", "top-7 of 6", MF_ERR_FORMAT},
        {"num_key_value_heads", "3", "4 attention heads", MF_ERR_FORMAT},
        {"linear_num_key_heads", "3", "4 value heads", MF_ERR_FORMAT},
        {"layer_types", "[\"full_attention\"]", "layer types", MF_ERR_FORMAT},
        {"layer_types", "[\"full_attention\",\"magic\"]", "magic", MF_ERR_UNSUPPORTED},
        {"layer_types", "[\"linear_attention\",3.5]", "layer 1", MF_ERR_UNSUPPORTED},
        {"model_type", "\"llama\"", "qwen3_5_moe", MF_ERR_UNSUPPORTED},
        {"hidden_act", "\"gelu\"", "gelu", MF_ERR_UNSUPPORTED},
        {"mlp_only_layers", "5", "mlp_only_layers is not a list", MF_ERR_FORMAT},
        {"sliding_window", "\"4096\"", "sliding_window is not an integer", MF_ERR_FORMAT},
        {"n_group", "1.5", "n_group is not an integer", MF_ERR_FORMAT},
        {"topk_group", "[1]", "topk_group is not an integer", MF_ERR_FORMAT},
        {"routed_scaling_factor", "true", "routed_scaling_factor is not a number", MF_ERR_FORMAT},
        {"routed_scaling_factor", "0", "routed_scaling_factor is 0", MF_ERR_FORMAT},
        {"rms_norm_eps", "\"1e-6\"", "rms_norm_eps", MF_ERR_FORMAT},
        {"rms_norm_eps", "-1", "rms_norm_eps", MF_ERR_FORMAT},
        {"tie_word_embeddings", "\"no\"", "tie_word_embeddings", MF_ERR_FORMAT},
        {"rope_parameters", "{\"rope_theta\":\"1e6\"}", "rope_theta", MF_ERR_FORMAT},
        {"rope_parameters", "{\"partial_rotary_factor\":0.5}", "5 rotary", MF_ERR_FORMAT},
    };
    mft_tiny s;
    mf_error err;
    mft_tiny_default(&s);
    const char *dir = mft_tiny_write(&s);
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mft_tiny_write_config(dir, &s, cases[i].key, cases[i].value);
        mf_status status = try_model(dir, &err);
        one_line(status, &err, cases[i].names, cases[i].key);
        assert_int_equal(status, cases[i].status);
        assert_non_null(strstr(err.message, dir));
    }
}

/* ---- values in the weights ---- */

/* NaN and infinities in every tensor in turn: rows that are not numbers, no crash, and a session
 * that generates says so. */
static void weights_that_are_no_numbers(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    mft_tiny s;
    mf_error err;
    mft_tiny_default(&s);
    s.fused = true;
    const char *dir = mft_folder();
    mft_tensor_list *t = mft_tiny_make(&s);
    write_model(dir, &s, t);
    for (size_t i = 0; i < t->n; i++)
        for (size_t k = 0; k < MFI_ARRAY_LEN(bad); k++) {
            float *data = (float *)t->list[i].data, kept = data[0];
            data[0] = bad[k];
            mft_write_tensors(dir, "model.safetensors", t->list, t->n);
            mft_ok(try_model(dir, &err), &err);
            data[0] = kept;
        }
    mft_free_tensors(t);
}

static bool token_is_a_number(void *user, int32_t id, const char *bytes, size_t len)
{
    (void)user, (void)bytes, (void)len;
    assert_int_not_equal(id, 0);
    return true;
}

/* One row of the vocabulary's matrix is NaN: that token is never drawn. All of it: an error. */
static void nan_is_never_sampled(void **state)
{
    (void)state;
    mft_tiny s;
    mf_error err;
    mft_tiny_default(&s);
    const char *dir = mft_folder();
    mft_tensor_list *t = mft_tiny_make(&s);
    size_t head = 0;
    while (strcmp(t->list[head].name, "lm_head.weight") != 0)
        head++;
    float *data = (float *)t->list[head].data;
    for (uint32_t bad = 1; bad <= s.n_vocab; bad += s.n_vocab - 1) { /* rows 0 .. bad - 1 */
        for (uint32_t i = 0; i < bad * s.hidden; i++)
            data[i] = NAN;
        write_model(dir, &s, t);
        for (int greedy = 0; greedy < 2; greedy++) {
            mf_engine *engine = NULL;
            mf_session *session = NULL;
            mf_engine_options o;
            mf_generate_options g;
            mf_generate_result result = {.struct_size = sizeof result};
            mf_engine_options_default(&o);
            mf_generate_options_default(&g);
            o.model_path = dir;
            o.memory_bytes = MFI_GIB;
            g.prompt = (const int32_t[]){1, 2, 3};
            g.n_prompt = 3;
            g.max_tokens = 100;
            g.sampling.temperature = greedy ? 0 : 5;
            g.sampling.top_k = 0;
            g.sampling.bias = &(mf_logit_bias){.id = 0, .bias = 100};
            g.sampling.n_bias = 1;
            g.on_token = token_is_a_number;
            mft_ok(mf_engine_open(&engine, &o, &err), &err);
            mft_ok(mf_session_open(&session, engine, &err), &err);
            mf_status status = mf_session_generate(session, &g, &result, &err);
            if (bad == 1) {
                mft_ok(status, &err);
                assert_int_equal(result.n_generated, 100);
            } else {
                one_line(status, &err, "not a number", "NaN everywhere");
                assert_int_equal(result.n_generated, 0);
            }
            mf_session_close(&session);
            mf_engine_close(&engine);
        }
    }
    mft_free_tensors(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_wrong),
        cmocka_unit_test(tensors_that_nobody_knows),
        cmocka_unit_test(huge_tensors),
        cmocka_unit_test(every_value_hostile),
        cmocka_unit_test(keys_missing),
        cmocka_unit_test(contradictions),
        cmocka_unit_test(weights_that_are_no_numbers),
        cmocka_unit_test(nan_is_never_sampled),
    };
    return mft_run(tests);
}
