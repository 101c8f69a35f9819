/* Synthetic models: sizes against published parameter counts, blocks against the moments they must
 * have, files read back, and the routing that comes out of an evaluation. */
#include "fake/support.h"
#include "fake/model_files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "format/format.h"
#include "model/model.h"
#include "os/disk.h"
#include "synth/fill.h"
#include "synth/synth.h"
#include "synth/table.h"
#include "synth/vocab.h"

static const mfi_synth_shape *shape(const char *arch, const char *name)
{
    mf_error err;
    const mfi_synth_shape *s;
    mft_ok(mfi_synth_shape_find(arch, name, &s, &err), &err);
    return s;
}

static mfi_synth_list list_of(const mfi_synth_shape *s, mfi_synth_quant quant, uint32_t n_layers)
{
    mf_error err;
    mfi_synth_list list;
    mft_ok(mfi_synth_list_open(&list, s, quant, n_layers, &err), &err);
    return list;
}

/* ---- sizes ---- */

static uint64_t n_elements(const mfi_synth_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t d = 0; d < t->n_dims; d++)
        n *= t->dims[d];
    return n;
}

/* As the model cards have them, in billions. */
static void parameter_counts(void **state)
{
    static const struct {
        const char *arch, *name;
        double billions, tolerance;
    } cards[] = {
        {"qwen3_moe", "30b-a3b", 30.5, 0.1},
        {"qwen3_moe", "235b-a22b", 235, 0.5},
        {"qwen2_moe", "1.5-moe-a2.7b", 14.3, 0.1},
        {"qwen2_moe", "57b-a14b", 57.41, 0.1},
        {"qwen3_next", "80b-a3b", 80, 0.5},
        {"qwen3_5_moe", "35b-a3b", 35, 0.5},
        {"qwen3_5_moe", "397b-a17b", 397, 2},
        {"gpt_oss", "20b", 20.9, 0.1},
        {"gpt_oss", "120b", 116.8, 0.2},
        {"deepseek_v3", "671b", 671, 0.5},
        {"deepseek_v2", "236b", 236, 0.5},
        {"deepseek_v2", "16b", 15.7, 0.1},
        {"kimi_k2", "1t", 1000, 30},
        {"glm4_moe_lite", "4.7-flash", 30, 0.5},
        {"mixtral", "8x7b", 46.7, 0.1},
        {"mixtral", "8x22b", 141, 0.5},
        {"olmoe", "1b-7b", 6.92, 0.01},
        {"glm4_moe", "4.5-air", 106, 1},
        {"glm4_moe", "4.6", 355, 3},
        {"minimax_m2", "230b-a10b", 229, 1},
        {"granitemoe", "3b-a800m", 3.3, 0.1},
        {"dots1", "142b-a14b", 142, 1},
    };
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(cards); i++) {
        mfi_synth_list list = list_of(shape(cards[i].arch, cards[i].name), MFI_SYNTH_BF16, 0);
        double n = 0;
        for (uint32_t k = 0; k < list.n; k++)
            n += (double)n_elements(&list.tensors[k]) / 1e9;
        mfi_synth_list_close(&list);
        if (fabs(n - cards[i].billions) > cards[i].tolerance)
            fail_msg("%s %s has %.2f billion parameters, not %.2f", cards[i].arch, cards[i].name, n,
                     cards[i].billions);
    }
}

static void bytes_by_hand(void **state)
{
    (void)state;
    const uint64_t attn = 2 * 4096ull * 2048 + 2 * 512ull * 2048, experts = 3 * 128ull * 768 * 2048;
    const uint64_t floats = 2 * 2048 + 2 * 128 + 128ull * 2048, table = 151936ull * 2048;
    const uint64_t want =
        48 * ((attn + experts) / 256 * 144 + floats * 4) + 2048 * 4 + table / 256 * (144 + 210);
    mfi_synth_list list = list_of(shape("qwen3_moe", "30b-a3b"), MFI_SYNTH_Q4_K, 0);
    assert_int_equal(list.bytes, want);
    assert_in_range(list.bytes, 17000000000u, 18000000000u);
    mfi_synth_list_close(&list);
    list = list_of(shape("qwen3_moe", "30b-a3b"), MFI_SYNTH_Q4_K, 1);
    assert_int_equal(list.bytes, want - 47 * ((attn + experts) / 256 * 144 + floats * 4));
    mfi_synth_list_close(&list);
}

static void every_combination(void **state)
{
    (void)state;
    const mfi_synth_shape *s;
    for (size_t i = 0; (s = mfi_synth_shape_at(i)); i++)
        for (int q = MFI_SYNTH_Q4_K; q <= MFI_SYNTH_F16; q++) {
            mfi_synth_list list = list_of(s, (mfi_synth_quant)q, 0);
            for (uint32_t k = 0; k < list.n; k++) {
                const mfi_synth_tensor *t = &list.tensors[k];
                assert_true(mfi_quant_cols_ok(t->type, t->dims[t->n_dims - 1]));
                for (uint32_t j = 0; j < k && k < 60; j++)
                    assert_string_not_equal(t->name, list.tensors[j].name);
            }
            mfi_synth_list_close(&list);
        }
}

/* ---- blocks ---- */

#define COLS     1024
#define N_ROWS   256
#define N_VALUES ((uint64_t)COLS * N_ROWS)

static void decode(mfi_qtype type, const void *bytes, float *out)
{
    for (uint64_t r = 0; r < N_ROWS; r++) {
        const void *at = (const char *)bytes + r * mfi_quant_row_bytes(type, 0, COLS);
        mfi_dequant_row(type, &at, COLS, out + r * COLS);
    }
}

/* Deviation of the means of `n` neighbours, as a multiple of what independent values would give:
 * above 1 if blocks of that size, or smaller, have a mean of their own. */
static double clumping(const float *x, uint64_t n, double std)
{
    double sum_sq = 0;
    for (uint64_t at = 0; at < N_VALUES; at += n) {
        double mean = 0;
        for (uint64_t i = 0; i < n; i++)
            mean += x[at + i] / (double)n;
        sum_sq += mean * mean;
    }
    return sqrt(sum_sq / (double)(N_VALUES / n)) / (std / sqrt((double)n));
}

static void moments(const float *x, double *mean, double *std)
{
    double sum = 0, sum_sq = 0;
    for (uint64_t i = 0; i < N_VALUES; i++) {
        sum += x[i];
        sum_sq += (double)x[i] * x[i];
    }
    *mean = sum / (double)N_VALUES;
    *std = sqrt(sum_sq / (double)N_VALUES - *mean * *mean);
}

static mfi_synth_tensor matrix_of(mfi_qtype type, float std)
{
    return (mfi_synth_tensor){
        .name = "m", .type = type, .n_dims = 2, .dims = {N_ROWS, COLS}, .a = std};
}

static const mfi_qtype types[] = {
    {MFI_Q_GGML, 2, 0, 0},  {MFI_Q_GGML, 8, 0, 0}, {MFI_Q_GGML, 12, 0, 0}, {MFI_Q_GGML, 14, 0, 0},
    {MFI_Q_GGML, 39, 0, 0}, {MFI_Q_F16, 16, 0, 0}, {MFI_Q_BF16, 16, 0, 0},
};

static void blocks_are_centred(void **state)
{
    (void)state;
    float *x = malloc(N_VALUES * sizeof *x);
    for (size_t i = 0; i < MFI_ARRAY_LEN(types); i++)
        for (float want = 1.0f / 32; want > 0.002f; want /= 7) {
            char name[64];
            double mean, std;
            mfi_synth_tensor t = matrix_of(types[i], want);
            mfi_filler *f = malloc(sizeof *f);
            uint32_t elements, bytes;
            mfi_filler_init(f, &t, mfi_fill_key(11, "m"));
            mfi_filler_unit(f, &elements, &bytes);
            unsigned char *data = malloc(N_VALUES / elements * bytes);
            mfi_filler_run(f, 0, N_VALUES / elements, data);
            decode(types[i], data, x);
            moments(x, &mean, &std);
            mfi_quant_name(types[i], name, sizeof name);
            if (fabs(std / want - 1) > 0.03)
                fail_msg("%s: deviation %g, not %g", name, std, (double)want);
            if (fabs(mean) * sqrt((double)N_VALUES) > 4 * std)
                fail_msg("%s: mean %g with deviation %g", name, mean, std);
            for (uint64_t n = 16; n <= COLS; n *= 2) {
                double c = clumping(x, n, std); /* 1 +- 0.05 for 256 rows, nearer for blocks */
                if (fabs(c - 1) > 0.15)
                    fail_msg("%s: means of %u values vary %.2f times as much as they should", name,
                             (unsigned)n, c);
            }
            free(data);
            free(f);
        }
    free(x);
}

/* The measure sees what it is for: blocks of plain random bits fail it badly. */
static void raw_bits_are_not(void **state)
{
    (void)state;
    const uint32_t n_blocks = N_VALUES / 256;
    mfi_rng rng = {3};
    float *x = malloc(N_VALUES * sizeof *x);
    unsigned char *data = malloc((size_t)n_blocks * 144);
    double mean, std;
    for (size_t i = 0; i < (size_t)n_blocks * 144; i++)
        data[i] = (unsigned char)mfi_rng_next(&rng);
    uint16_t d = mfi_f32_to_f16(1e-4f), dmin = mfi_f32_to_f16(7.5e-4f);
    for (size_t i = 0; i < n_blocks; i++) {
        memcpy(data + 144 * i, &d, 2);
        memcpy(data + 144 * i + 2, &dmin, 2);
    }
    decode((mfi_qtype){MFI_Q_GGML, 12, 0, 0}, data, x);
    moments(x, &mean, &std);
    assert_true(clumping(x, 32, std) > 3);
    free(data);
    free(x);
}

static void pieces_make_the_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(types); i++) {
        mfi_synth_tensor t = matrix_of(types[i], 0.03f);
        mfi_filler *f = malloc(sizeof *f);
        uint32_t elements, bytes;
        unsigned char whole[40 * 256], parts[40 * 256];
        mfi_filler_init(f, &t, 5);
        mfi_filler_unit(f, &elements, &bytes);
        mfi_filler_mask(f, 2 * elements, 4 * elements);
        mfi_filler_run(f, 0, 40, whole);
        for (uint64_t at = 0, n; at < 40; at += n) {
            n = MFI_MIN(40 - at, 1 + at % 7);
            mfi_filler_run(f, at, n, parts + at * bytes);
        }
        assert_memory_equal(whole, parts, 40 * bytes);
        for (uint32_t k = 0; k < 40 * bytes; k++) /* two units of four */
            if (k / bytes % 4 < 2)
                assert_int_equal(whole[k], 0);
        free(f);
    }
}

/* ---- tables ---- */

static double dot(const float *a, const float *b, uint32_t from, uint32_t to)
{
    double sum = 0;
    for (uint32_t i = from; i < to; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

static void row_of(const mfi_synth_tables *t, mfi_synth_fill which, mfi_qtype type, uint64_t row,
                   float *out)
{
    unsigned char bytes[4 * COLS];
    const void *at = bytes;
    mfi_synth_table_run(t, which, type, row, 1, bytes);
    mfi_dequant_row(type, &at, COLS, out);
}

static void tables_hold_topics(void **state)
{
    static const mfi_qtype in[] = {{MFI_Q_GGML, 2, 0, 0},  {MFI_Q_GGML, 8, 0, 0},
                                   {MFI_Q_GGML, 12, 0, 0}, {MFI_Q_GGML, 14, 0, 0},
                                   {MFI_Q_BF16, 16, 0, 0}, {MFI_Q_F16, 16, 0, 0}};
    (void)state;
    const mfi_synth_shape *s = shape("qwen3_moe", "tiny");
    mfi_synth_tables t;
    float a[COLS], b[COLS], out[COLS];
    assert_int_equal(s->hidden, COLS);
    mfi_synth_tables_init(&t, s, true, 9);
    t.n_text = mfi_synth_n_text(s->n_vocab);
    t.n_special = MFI_SYNTH_N_SPECIAL;
    for (size_t i = 0; i < MFI_ARRAY_LEN(in); i++) {
        double same = 0, other = 0, energy = 0;
        int n_same = 0, n_other = 0;
        for (uint32_t id = 1000; id < 1100; id++) {
            row_of(&t, MFI_FILL_EMBED, in[i], id, a);
            row_of(&t, MFI_FILL_OUTPUT, in[i], id, out);
            energy += dot(a, a, 0, COLS) / COLS / 100;
            assert_true(dot(a, out, 0, t.topic_cols) > 0);    /* towards its topic */
            assert_true(dot(a, out, t.topic_cols, COLS) < 0); /* away from itself */
            for (uint32_t to = 1200; to < 1240; to++) {
                row_of(&t, MFI_FILL_EMBED, in[i], to, b);
                bool topic = mfi_synth_topic(&t, id) == mfi_synth_topic(&t, to);
                *(topic ? &same : &other) += dot(a, b, 0, COLS) / COLS;
                *(topic ? &n_same : &n_other) += 1;
            }
        }
        assert_true(fabs(energy - 1) < 0.05);
        assert_true(n_same > 10 && fabs(same / n_same - (1 - t.token_share)) < 0.05);
        assert_true(fabs(other / n_other) < 0.02);
    }
    row_of(&t, MFI_FILL_OUTPUT, in[2], 'a', out);
    assert_true(dot(out, out, 0, COLS) == 0);
}

/* ---- files ---- */

static mf_synth_options options_for(const char *arch, const char *quant, uint32_t n_layers,
                                    const char *path)
{
    mf_synth_options o;
    mf_synth_options_default(&o);
    o.arch = arch;
    o.shape = "tiny";
    o.quant = quant;
    o.n_layers = n_layers;
    o.out_path = path;
    return o;
}

static void same_seed_same_bytes(void **state)
{
    (void)state;
    mf_error err;
    const char *dir = mft_folder(), *names[] = {"a.gguf", "b.gguf", "c.gguf"};
    unsigned char *bytes[3];
    size_t len[3];
    for (int i = 0; i < 3; i++) {
        mf_synth_options o = options_for("qwen2_moe", "q4_k", 1, mft_path(dir, names[i]));
        o.seed = i == 2 ? 8 : 7;
        o.routing = MF_ROUTING_SKEWED;
        mft_ok(mfi_synth(&o, i == 1 ? 7777 : MFI_SYNTH_PIECE_BYTES, &err), &err);
        bytes[i] = mft_read(o.out_path, &len[i]);
        remove(o.out_path);
    }
    assert_int_equal(len[0], len[1]);
    assert_int_equal(len[0], len[2]);
    assert_memory_equal(bytes[0], bytes[1], len[0]);
    assert_memory_not_equal(bytes[0], bytes[2], len[0]);
    for (int i = 0; i < 3; i++)
        free(bytes[i]);
}

static void families_open_them(void **state)
{
    static const char *const archs[] = {"qwen3_moe",  "qwen2_moe",    "qwen3_next",  "qwen3_5_moe",
                                        "mixtral",    "olmoe",        "glm4_moe",    "minimax_m2",
                                        "granitemoe", "dots1",        "deepseek_v3", "deepseek_v2",
                                        "kimi_k2",    "glm4_moe_lite"};
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(archs); i++) {
        mf_error err;
        mfi_catalog *catalog;
        mfi_model *model;
        const char *dir = mft_folder(), *path = mft_path(dir, "m.gguf");
        mf_synth_options o = options_for(archs[i], i ? "q4_0" : "mxfp4", 0, path);
        mft_ok(mf_synth(&o, &err), &err);
        assert_int_equal(mft_n_entries(dir), 1);
        assert_int_equal(mf_synth(&o, &err), MF_ERR_ARGUMENT); /* is there already */
        mft_ok(mfi_format_open(&catalog, path, &err), &err);
        mft_ok(mfi_model_open(&model, catalog, &err), &err);
        const mfi_synth_shape *s = shape(archs[i], "tiny");
        assert_int_equal(model->shape.n_layers, s->n_layers);
        assert_int_equal(model->shape.n_experts, s->n_experts);
        assert_int_equal(model->shape.n_vocab, s->n_vocab);
        mfi_model_close(&model);
        mfi_catalog_close(&catalog);
        remove(path);
    }
}

/* What the four that share llama.cpp's deepseek2 differ in, as their config.json has it. */
static void latent_families_differ(void **state)
{
    static const struct {
        const char *arch, *family;
        mfi_score score;
        bool normalize, corrected;
        double scale, beta_fast, mscale;
        uint32_t n_groups, n_groups_used, nope, v_dim;
    } rows[] = {
        {"deepseek_v3", "deepseek_v3", MFI_SCORE_SIGMOID, true, true, 2.5, 32, 1, 8, 4, 128, 128},
        {"deepseek_v2", "deepseek_v2", MFI_SCORE_SOFTMAX, false, false, 16, 32, 0.707, 8, 3, 128,
         128},
        {"kimi_k2", "deepseek_v3", MFI_SCORE_SIGMOID, true, true, 2.827, 1, 1, 1, 1, 128, 128},
        /* The family's own name is for its vocabulary. */
        {"glm4_moe_lite", "deepseek_v3", MFI_SCORE_SIGMOID, true, true, 1.8, 0, 0, 1, 1, 192, 256},
    };
    (void)state;
    const char *path = mft_path(mft_folder(), "m.gguf");
    for (size_t i = 0; i < MFI_ARRAY_LEN(rows); i++) {
        mf_error err;
        mfi_catalog *catalog;
        mfi_model *model;
        mf_synth_options o = options_for(rows[i].arch, "q4_0", 0, path);
        mft_ok(mf_synth(&o, &err), &err);
        mft_ok(mfi_format_open(&catalog, path, &err), &err);
        mft_ok(mfi_model_open(&model, catalog, &err), &err);
        const mfi_shape *s = &model->shape;
        assert_string_equal(model->family, rows[i].family);
        assert_int_equal(s->routing.score, rows[i].score);
        assert_int_equal(s->routing.normalize, rows[i].normalize);
        assert_int_equal(model->omit[MFI_ROLE_ROUTER_CORRECTION], !rows[i].corrected);
        assert_int_equal(s->latent_q, 256);
        assert_true(fabs((double)s->routing.scale - rows[i].scale) < 1e-5);
        assert_int_equal(s->routing.n_groups, rows[i].n_groups);
        if (rows[i].n_groups > 1)
            assert_int_equal(s->routing.n_groups_used, rows[i].n_groups_used);
        assert_int_equal(s->nope_dim, rows[i].nope);
        assert_int_equal(s->v_dim, rows[i].v_dim);
        assert_int_equal(s->rope.kind, rows[i].beta_fast > 0 ? MFI_ROPE_YARN : MFI_ROPE_PLAIN);
        assert_true(fabs(s->rope.beta_fast - rows[i].beta_fast) < 1e-6);
        assert_true(fabs(s->rope.mscale_all_dim - rows[i].mscale) < 1e-6);
        mfi_model_close(&model);
        mfi_catalog_close(&catalog);
        remove(path);
    }
}

static bool has_name(const mfi_synth_list *list, const char *name)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (strcmp(list->tensors[i].name, name) == 0)
            return true;
    return false;
}

/* DeepSeek-V2-Lite has no latent of queries. */
static void direct_queries(void **state)
{
    (void)state;
    mfi_synth_list list = list_of(shape("deepseek_v2", "16b"), MFI_SYNTH_Q4_K, 0);
    assert_true(has_name(&list, "blk.26.attn_q.weight"));
    assert_false(has_name(&list, "blk.26.attn_q_a.weight"));
    assert_false(has_name(&list, "blk.26.exp_probs_b.bias"));
    mfi_synth_list_close(&list);
    list = list_of(shape("deepseek_v2", "236b"), MFI_SYNTH_Q4_K, 0);
    assert_false(has_name(&list, "blk.59.attn_q.weight"));
    assert_true(has_name(&list, "blk.59.attn_q_a.weight"));
    mfi_synth_list_close(&list);
}

static void whole_names(void **state)
{
    static const char *const names[][3] = {
        {"DeepSeek-V3", "deepseek_v3", "671b"},          {"DeepSeek-V2", "deepseek_v2", "236b"},
        {"deepseek-v2-lite", "deepseek_v2", "16b"},      {"Kimi-K2", "kimi_k2", "1t"},
        {"glm-4.7-flash", "glm4_moe_lite", "4.7-flash"}, {"kimi_k2-tiny", "kimi_k2", "tiny"}};
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(names); i++)
        assert_ptr_equal(shape(NULL, names[i][0]), shape(names[i][1], names[i][2]));
}

static bool cancel_late(void *user, const char *what, const char *unit, uint64_t done,
                        uint64_t total)
{
    (void)what;
    (void)unit;
    *(int *)user += 1;
    return done < total / 2 || total == 0;
}

static void leaves_nothing_behind(void **state)
{
    (void)state;
    mf_error err;
    int n_calls = 0;
    uint64_t room;
    const char *dir = mft_folder(), *path = mft_path(dir, "m.gguf");
    mf_synth_options o = options_for("qwen2_moe", "q8_0", 2, path);
    o.progress = cancel_late;
    o.progress_user = &n_calls;
    assert_int_equal(mf_synth(&o, &err), MF_ERR_CANCELLED);
    assert_true(n_calls > 1);
    assert_int_equal(mft_n_entries(dir), 0);

    o = options_for("deepseek_v3", "bf16", 0, path);
    o.shape = "671b"; /* 1.3 TB */
    mft_ok(mfi_disk_free(path, &room, &err), &err);
    if (room < 1000000000000u) {
        assert_int_equal(mf_synth(&o, &err), MF_ERR_DISK_FULL);
        assert_non_null(strstr(err.message, "MiB free"));
        assert_int_equal(mft_n_entries(dir), 0);
    }
}

static void refuses(void **state)
{
    (void)state;
    mf_error err;
    const char *dir = mft_folder(), *path = mft_path(dir, "m.gguf");
    mf_synth_options o = options_for("gemma", "q4_k", 0, path);
    assert_int_equal(mf_synth(&o, &err), MF_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "qwen3_5_moe"));
    o = options_for("qwen3_moe", "q4_k", 0, path);
    o.shape = "31b";
    assert_int_equal(mf_synth(&o, &err), MF_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "30b-a3b, 235b-a22b"));
    o = options_for("qwen3_moe", "q5_k", 0, path);
    assert_int_equal(mf_synth(&o, &err), MF_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "mxfp4"));
    o = options_for("qwen3_moe", "q4_k", 5, path);
    assert_int_equal(mf_synth(&o, &err), MF_ERR_ARGUMENT);
    o = options_for("deepseek_v3", "q4_k", 1, path); /* only its dense layer */
    assert_int_equal(mf_synth(&o, &err), MF_ERR_ARGUMENT);
    o = options_for("qwen3_moe", "q4_k", 1, mft_path(dir, "no/m.gguf"));
    assert_int_equal(mf_synth(&o, &err), MF_ERR_FILE_MISSING);
    assert_int_equal(mft_n_entries(dir), 0);
}

/* ---- routing ---- */

#define MAX_TOKENS  512
#define MAX_EXPERTS 64

typedef struct choices {
    uint32_t n_layers, n_experts, top_k, n_tokens;
    bool at[4][MAX_TOKENS][MAX_EXPERTS];
} choices;

/* The trace's lines: {"layer":3,"pos":17,"ids":[4,9],"hit":[1,0]}. */
static void read_trace(const char *path, uint32_t first, choices *c)
{
    char line[1024];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        unsigned layer, pos, id;
        int n;
        if (sscanf(line, "{\"pass\":%*u,\"layer\":%u,\"pos\":%u,\"ids\":[%n", &layer, &pos, &n) <
                2 ||
            pos < first)
            continue;
        assert_true(layer < 4 && pos - first < MAX_TOKENS);
        c->n_tokens = MFI_MAX(c->n_tokens, pos - first + 1);
        for (const char *p = line + n; sscanf(p, "%u", &id) == 1;) {
            assert_true(id < c->n_experts);
            c->at[layer][pos - first][id] = true;
            p += strcspn(p, ",]");
            if (*p++ == ']')
                break;
        }
    }
    fclose(f);
}

/* Share of choices that come again within `window` tokens. */
static double repeats(const choices *c, uint32_t window)
{
    double n = 0, again = 0;
    for (uint32_t l = 0; l < c->n_layers; l++)
        for (uint32_t t = 0; t + window < c->n_tokens; t++)
            for (uint32_t e = 0; e < c->n_experts; e++) {
                if (!c->at[l][t][e])
                    continue;
                bool found = false;
                for (uint32_t k = 1; k <= window; k++)
                    found |= c->at[l][t + k][e];
                n++;
                again += found;
            }
    return again / n;
}

/* Chi-square of the experts' counts a degree of freedom, the worst layer; *lo, *hi: the rarest and
 * the commonest expert's count over the mean. */
static double unevenness(const choices *c, double *lo, double *hi)
{
    double worst = 0, mean = (double)c->n_tokens * c->top_k / c->n_experts;
    *lo = 1e9;
    *hi = 0;
    for (uint32_t l = 0; l < c->n_layers; l++) {
        double chi = 0;
        for (uint32_t e = 0; e < c->n_experts; e++) {
            double n = 0;
            for (uint32_t t = 0; t < c->n_tokens; t++)
                n += c->at[l][t][e];
            chi += (n - mean) * (n - mean) / mean;
            *lo = MFI_MIN(*lo, n / mean);
            *hi = MFI_MAX(*hi, n / mean);
        }
        worst = MFI_MAX(worst, chi / (c->n_experts - 1));
    }
    return worst;
}

typedef struct seen {
    int32_t ids[MAX_TOKENS];
    uint32_t n;
} seen;

static bool note(void *user, int32_t id, const char *bytes, size_t len)
{
    seen *s = user;
    (void)bytes;
    (void)len;
    assert_true(s->n < MAX_TOKENS);
    s->ids[s->n++] = id;
    return true;
}

/* Evaluates random ids, or generates greedily after some, and reads what was chosen. */
static void run_model(const char *path, uint32_t n_prompt, uint32_t n_generate, choices *c,
                      seen *text)
{
    mf_error err;
    mf_engine *engine;
    mf_session *session;
    mf_engine_options eo;
    int32_t prompt[MAX_TOKENS];
    mf_model_info info = {.struct_size = sizeof info};
    mfi_rng rng = {21};
    char trace[600];
    snprintf(trace, sizeof trace, "%s.trace", path);
    mf_engine_options_default(&eo);
    eo.model_path = path;
    eo.trace_path = trace;
    eo.ctx = n_prompt + n_generate;
    eo.memory_bytes = MFI_GIB;
    eo.n_threads = 1; /* others are at work beside it */
    mft_ok(mf_engine_open(&engine, &eo, &err), &err);
    mf_engine_info(engine, &info);
    *c = (choices){.n_layers = info.n_layers, .n_experts = info.n_experts, .top_k = info.top_k};
    assert_true(c->n_layers <= 4 && c->n_experts <= MAX_EXPERTS);
    for (uint32_t i = 0; i < n_prompt; i++)
        prompt[i] = (int32_t)mfi_rng_below(&rng, info.n_vocab);
    mft_ok(mf_session_open(&session, engine, &err), &err);
    mf_generate_options go;
    mf_generate_result result = {.struct_size = sizeof result};
    mf_generate_options_default(&go);
    go.prompt = prompt;
    go.n_prompt = n_prompt;
    go.max_tokens = n_generate;
    go.ignore_eos = true;
    go.sampling.temperature = 0;
    go.on_token = note;
    go.user = text;
    text->n = 0;
    if (n_generate)
        mft_ok(mf_session_generate(session, &go, &result, &err), &err);
    else
        mft_ok(mf_session_eval(session, prompt, n_prompt, NULL, &err), &err);
    mf_session_close(&session);
    mf_engine_close(&engine);
    read_trace(trace, n_generate ? n_prompt : 0, c);
    remove(trace);
}

static void uniform_routing(void **state)
{
    static const struct {
        const char *arch;
        uint32_t n_tokens; /* by 4 layers by 2 choices */
    } runs[] = {{"qwen3_moe", 256}, {"qwen3_5_moe", 256}};
    static choices c;
    static seen text;
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(runs); i++) {
        mf_error err;
        double lo, hi;
        const char *path = mft_path(mft_folder(), "m.gguf");
        mf_synth_options o = options_for(runs[i].arch, "q4_k", 0, path);
        mft_ok(mf_synth(&o, &err), &err);
        run_model(path, runs[i].n_tokens, 0, &c, &text);
        remove(path);
        assert_int_equal(c.n_tokens, runs[i].n_tokens); /* 16 choices an expert and layer */
        double chi = unevenness(&c, &lo, &hi), next = repeats(&c, 1), within = repeats(&c, 8);
        print_message("%s: chi2 %.2f, shares %.2f to %.2f, repeats %.3f and %.3f\n", runs[i].arch,
                      chi, lo, hi, next, within);
        assert_true(chi < 3.5 && lo > 0.25 && hi < 2.5);
        assert_true(next > 0.04 && next < 0.09);     /* 2 in 32: 0.0625 */
        assert_true(within > 0.34 && within < 0.48); /* 0.40 */
    }
}

#define N_SKEWED 240

static void skewed_routing(void **state)
{
    static choices c;
    static seen text;
    (void)state;
    mf_error err;
    double lo, hi;
    const char *path = mft_path(mft_folder(), "m.gguf");
    mf_synth_options o = options_for("qwen3_moe", "q4_k", 0, path);
    o.routing = MF_ROUTING_SKEWED;
    mft_ok(mf_synth(&o, &err), &err);
    run_model(path, 8, N_SKEWED, &c, &text);
    remove(path);
    uint32_t n_new = 0;
    for (uint32_t i = 0; i < text.n; i++) {
        bool old = false;
        for (uint32_t k = 0; k < i; k++)
            old |= text.ids[k] == text.ids[i];
        n_new += !old;
    }
    double next = repeats(&c, 1), within = repeats(&c, 8);
    unevenness(&c, &lo, &hi);
    print_message("repeats %.3f and %.3f, commonest %.2f, %u of %u tokens differ\n", next, within,
                  hi, n_new, text.n);
    assert_int_equal(text.n, N_SKEWED);
    assert_true(n_new > N_SKEWED * 7 / 10); /* no circle */
    assert_true(next > 0.31 && next < 0.44);
    assert_true(within > 0.67 && within < 0.81);
    /* 15 choices an expert and layer, of which the skew gives some five times as many; a router
     * that always chose the same would give 16 times. */
    assert_true(hi < 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameter_counts),      cmocka_unit_test(bytes_by_hand),
        cmocka_unit_test(every_combination),     cmocka_unit_test(blocks_are_centred),
        cmocka_unit_test(raw_bits_are_not),      cmocka_unit_test(pieces_make_the_whole),
        cmocka_unit_test(tables_hold_topics),    cmocka_unit_test(same_seed_same_bytes),
        cmocka_unit_test(families_open_them),    cmocka_unit_test(latent_families_differ),
        cmocka_unit_test(direct_queries),        cmocka_unit_test(whole_names),
        cmocka_unit_test(leaves_nothing_behind), cmocka_unit_test(refuses),
        cmocka_unit_test(uniform_routing),       cmocka_unit_test(skewed_routing),
    };
    return mft_run(tests);
}
