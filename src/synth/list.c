/* The tensor lists; see list.h. One function an architecture, with the names and dimensions that
 * llama.cpp reads and that its converter writes. Called by synth.c on the caller's thread; touches
 * no file.
 *
 * Scales: matrices get 1/sqrt(columns), so that products keep their size; those that write into the
 * residual stream get 1/sqrt(2 * layers) of it, as is usual for random initial weights, so that
 * the stream stays mostly the token's embedding. Without that, what all tokens of a text share (the
 * mean of the values they attend to) takes over layer by layer, and with it every token's choice of
 * experts.
 *
 * The last layer's mixer is different: its attention is sharp (scores with a deviation of about 6)
 * and adds much. So the next token depends on what stands where in the whole text; greedy decoding
 * would otherwise be a walk from token to token that runs into a circle soon, and a circle is a
 * text whose experts are all in the cache. */
#include "synth/list.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GGML_Q4_0  2
#define GGML_Q8_0  8
#define GGML_Q4_K  12
#define GGML_Q6_K  14
#define GGML_MXFP4 39

static const struct {
    const char *name;
    uint32_t file_type;
} quants[] = {
    [MFI_SYNTH_Q4_K] = {"q4_k", 14},   [MFI_SYNTH_Q4_0] = {"q4_0", 2},
    [MFI_SYNTH_Q6_K] = {"q6_k", 18},   [MFI_SYNTH_Q8_0] = {"q8_0", 7},
    [MFI_SYNTH_MXFP4] = {"mxfp4", 38}, [MFI_SYNTH_BF16] = {"bf16", 32},
    [MFI_SYNTH_F16] = {"f16", 1},
};

mf_status mfi_synth_quant_find(const char *name, mfi_synth_quant *quant, mf_error *err)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(quants); i++)
        if (strcmp(quants[i].name, name) == 0) {
            *quant = (mfi_synth_quant)i;
            return MF_OK;
        }
    return mfi_fail(err, MF_ERR_ARGUMENT,
                    "quant: '%.64s' is none of q4_k, q4_0, q6_k, q8_0, mxfp4, bf16, f16", name);
}

uint32_t mfi_synth_quant_file_type(mfi_synth_quant quant)
{
    return quants[quant].file_type;
}

/* ---- types ---- */

typedef enum use { USE_MATRIX, USE_EXPERTS, USE_TABLE, USE_HEAD } use;

static mfi_qtype ggml(uint32_t number)
{
    return (mfi_qtype){MFI_Q_GGML, (uint8_t)number, 0, 0};
}

/* What llama.cpp's quantiser does in outline: the output matrix gets more bits than the rest, MXFP4
 * is for experts only, and where rows are no whole blocks of 256 a type with blocks of 32 steps
 * in. */
static mfi_qtype type_for(mfi_synth_quant quant, use u, uint32_t cols)
{
    bool whole = cols % 256 == 0;
    switch (quant) {
    case MFI_SYNTH_F16:
        return mfi_qtype_float(MFI_Q_F16);
    case MFI_SYNTH_BF16:
        return mfi_qtype_float(MFI_Q_BF16);
    case MFI_SYNTH_Q8_0:
        return ggml(GGML_Q8_0);
    case MFI_SYNTH_MXFP4:
        return ggml(u == USE_EXPERTS ? GGML_MXFP4 : GGML_Q8_0);
    case MFI_SYNTH_Q6_K:
        return ggml(whole ? GGML_Q6_K : GGML_Q8_0);
    case MFI_SYNTH_Q4_0:
        return ggml(u != USE_HEAD ? GGML_Q4_0 : whole ? GGML_Q6_K : GGML_Q8_0);
    case MFI_SYNTH_Q4_K:
        if (u == USE_HEAD)
            return ggml(whole ? GGML_Q6_K : GGML_Q8_0);
        return ggml(whole ? GGML_Q4_K : GGML_Q4_0);
    }
    return mfi_qtype_float(MFI_Q_F32);
}

/* ---- the list ---- */

typedef struct builder {
    mfi_synth_list *list;
    const mfi_synth_shape *s;
    mfi_synth_quant quant;
    uint32_t layer;
    bool last;
    float residual; /* 1/sqrt(2 * layers) */
    float louder;   /* what makes up for multipliers of embedding and residual stream */
} builder;

static mfi_synth_tensor *add(builder *b, mfi_qtype type, mfi_synth_fill fill, float a, float c)
{
    mfi_synth_list *l = b->list;
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? 2 * l->cap : 256;
        mfi_synth_tensor *more = realloc(l->tensors, cap * sizeof *more);
        if (!more) {
            l->failed = true;
            l->n = 0; /* the caller fills what stands there, and then sees the flag */
            if (!l->tensors)
                return NULL;
        } else {
            l->tensors = more;
            l->cap = cap;
        }
    }
    mfi_synth_tensor *t = &l->tensors[l->n++];
    *t = (mfi_synth_tensor){.type = type, .fill = fill, .a = a, .b = c};
    return t;
}

/* In layer b->layer, or outside of layers if the name doesn't begin with '.'. */
static void set_name(const builder *b, mfi_synth_tensor *t, const char *name)
{
    int n = name[0] == '.' ? snprintf(t->name, sizeof t->name, "blk.%" PRIu32 "%s", b->layer, name)
                           : snprintf(t->name, sizeof t->name, "%s", name);
    MFI_ASSERT(n > 0 && (size_t)n < sizeof t->name);
}

/* dims: outermost first, 0 ends. */
static void set_dims(mfi_synth_tensor *t, uint32_t d0, uint32_t d1, uint32_t d2)
{
    const uint32_t dims[] = {d0, d1, d2};
    for (t->n_dims = 0; t->n_dims < 3 && dims[t->n_dims]; t->n_dims++)
        t->dims[t->n_dims] = dims[t->n_dims];
}

/* A matrix [rows][cols], with `n` of them stacked if n isn't 0. */
static void matrices(builder *b, const char *name, use u, uint32_t n, uint32_t rows, uint32_t cols,
                     float gain)
{
    mfi_synth_tensor *t =
        add(b, type_for(b->quant, u, cols), MFI_FILL_RANDOM, gain / sqrtf((float)cols), 0);
    if (!t)
        return;
    set_name(b, t, name);
    set_dims(t, n ? n : rows, n ? rows : cols, n ? cols : 0);
}

/* What a mixer makes of the normed residual stream. `sharp`: gain in the last layer. */
static void mixer_in(builder *b, const char *name, uint32_t rows, float sharp)
{
    matrices(b, name, USE_MATRIX, 0, rows, b->s->hidden, b->last ? sharp : 1);
    if (b->list->n)
        b->list->tensors[b->list->n - 1].own = b->last;
}

static void matrix(builder *b, const char *name, uint32_t rows, uint32_t cols)
{
    matrices(b, name, USE_MATRIX, 0, rows, cols, 1);
}

/* A matrix whose product is added to the residual stream. */
static void back(builder *b, const char *name, uint32_t cols)
{
    matrices(b, name, USE_MATRIX, 0, b->s->hidden, cols, b->residual * b->louder);
}

/* The same for a mixer, whose outputs have this energy an element. */
static void mixer_back(builder *b, const char *name, uint32_t cols, double energy)
{
    float gain = b->last ? (float)sqrt(MFI_SYNTH_ENERGY_LAST / energy) : b->residual;
    matrices(b, name, USE_MATRIX, 0, b->s->hidden, cols, gain * b->louder);
}

static void floats(builder *b, const char *name, mfi_synth_fill fill, float a, float c, uint32_t d0,
                   uint32_t d1)
{
    mfi_synth_tensor *t = add(b, mfi_qtype_float(MFI_Q_F32), fill, a, c);
    if (!t)
        return;
    set_name(b, t, name);
    set_dims(t, d0, d1, 0);
}

static void norm(builder *b, const char *name, uint32_t n)
{
    floats(b, name, MFI_FILL_UNIFORM, 0.9f, 1.1f, n, 0);
}

static void bias(builder *b, const char *name, uint32_t d0, uint32_t d1)
{
    floats(b, name, MFI_FILL_UNIFORM, -0.02f, 0.02f, d0, d1);
}

/* ---- parts that architectures share ---- */

static void routed(builder *b)
{
    const mfi_synth_shape *s = b->s;
    uint32_t e = s->n_experts, w = s->expert_width, h = s->hidden;
    floats(b, ".ffn_gate_inp.weight", MFI_FILL_NORMAL, 0, 1 / sqrtf((float)h), e, h);
    matrices(b, ".ffn_gate_exps.weight", USE_EXPERTS, e, w, h, 1);
    matrices(b, ".ffn_up_exps.weight", USE_EXPERTS, e, w, h, 1);
    matrices(b, ".ffn_down_exps.weight", USE_EXPERTS, e, h, w, b->residual * b->louder);
}

static void shared(builder *b)
{
    const mfi_synth_shape *s = b->s;
    matrix(b, ".ffn_gate_shexp.weight", s->shared_width, s->hidden);
    matrix(b, ".ffn_up_shexp.weight", s->shared_width, s->hidden);
    back(b, ".ffn_down_shexp.weight", s->shared_width);
}

static void shared_gate(builder *b)
{
    floats(b, ".ffn_gate_inp_shexp.weight", MFI_FILL_NORMAL, 0, 1 / sqrtf((float)b->s->hidden),
           b->s->hidden, 0);
}

/* Norms: none; per head; over all heads at once; per head, with gates. */
typedef enum attn { ATTN_PLAIN, ATTN_NORMED, ATTN_WIDE_NORMED, ATTN_GATED } attn;

static void attention(builder *b, attn kind)
{
    const mfi_synth_shape *s = b->s;
    uint32_t n_q = kind == ATTN_GATED ? 2 : 1; /* each head's gate follows its query */
    /* Without norms of their own, queries carry the last layer's sharpness, and what a scale of
     * scores other than usual takes away. */
    float sharp = kind == ATTN_PLAIN ? 6 : 1;
    if (s->scale.attn > 0)
        sharp /= sqrtf((float)s->head_dim) * s->scale.attn;
    mixer_in(b, ".attn_q.weight", s->n_head * s->head_dim * n_q, sharp);
    mixer_in(b, ".attn_k.weight", s->n_kv_head * s->head_dim, 1);
    mixer_in(b, ".attn_v.weight", s->n_kv_head * s->head_dim, 1);
    mixer_back(b, ".attn_output.weight", s->n_head * s->head_dim, kind == ATTN_GATED ? 0.12 : 0.4);
    if (kind == ATTN_PLAIN)
        return;
    float mean = b->last ? 2.5f : 1;
    uint32_t q = s->head_dim * (kind == ATTN_WIDE_NORMED ? s->n_head : 1);
    uint32_t k = s->head_dim * (kind == ATTN_WIDE_NORMED ? s->n_kv_head : 1);
    floats(b, ".attn_q_norm.weight", MFI_FILL_UNIFORM, mean - 0.1f, mean + 0.1f, q, 0);
    floats(b, ".attn_k_norm.weight", MFI_FILL_UNIFORM, mean - 0.1f, mean + 0.1f, k, 0);
}

static void qkv_bias(builder *b)
{
    const mfi_synth_shape *s = b->s;
    bias(b, ".attn_q.bias", s->n_head * s->head_dim, 0);
    bias(b, ".attn_k.bias", s->n_kv_head * s->head_dim, 0);
    bias(b, ".attn_v.bias", s->n_kv_head * s->head_dim, 0);
}

/* A dense layer, or experts with shared ones and a router that is corrected, but for softmax. */
static void dense_or_shared(builder *b)
{
    const mfi_synth_shape *s = b->s;
    if (b->layer < s->n_dense) {
        matrix(b, ".ffn_gate.weight", s->ffn_width, s->hidden);
        matrix(b, ".ffn_up.weight", s->ffn_width, s->hidden);
        back(b, ".ffn_down.weight", s->ffn_width);
        return;
    }
    routed(b);
    if (s->kind != MFI_SYNTH_DEEPSEEK_V2)
        bias(b, ".exp_probs_b.bias", s->n_experts, 0);
    shared(b);
}

static void delta_net(builder *b)
{
    const mfi_synth_shape *s = b->s;
    uint32_t v = s->gdn.v_heads * s->gdn.dim, qkv = 2 * s->gdn.k_heads * s->gdn.dim + v;
    mixer_in(b, ".attn_qkv.weight", qkv, 1);
    matrix(b, ".attn_gate.weight", v, s->hidden);
    if (s->kind == MFI_SYNTH_QWEN3_NEXT) {
        matrix(b, ".ssm_ba.weight", 2 * s->gdn.v_heads, s->hidden);
    } else {
        matrix(b, ".ssm_beta.weight", s->gdn.v_heads, s->hidden);
        matrix(b, ".ssm_alpha.weight", s->gdn.v_heads, s->hidden);
    }
    floats(b, ".ssm_conv1d.weight", MFI_FILL_NORMAL, 0, 0.5f, qkv, s->gdn.conv);
    /* Decays as after training's start: A in 1 to 16, steps of about 0.001 to 0.1. */
    floats(b, ".ssm_a", MFI_FILL_UNIFORM, -16, -1, s->gdn.v_heads, 0);
    floats(b, ".ssm_dt.bias", MFI_FILL_UNIFORM, -6.9f, -2.25f, s->gdn.v_heads, 0);
    norm(b, ".ssm_norm.weight", s->gdn.dim);
    mixer_back(b, ".ssm_out.weight", v, 0.35);
}

/* ---- architectures: one layer each ---- */

static void qwen3_layer(builder *b)
{
    norm(b, ".attn_norm.weight", b->s->hidden);
    attention(b, ATTN_NORMED);
    norm(b, ".ffn_norm.weight", b->s->hidden);
    routed(b);
}

static void qwen2_layer(builder *b)
{
    norm(b, ".attn_norm.weight", b->s->hidden);
    attention(b, ATTN_PLAIN);
    qkv_bias(b);
    norm(b, ".ffn_norm.weight", b->s->hidden);
    routed(b);
    shared_gate(b);
    shared(b);
}

static void hybrid_layer(builder *b)
{
    norm(b, ".attn_norm.weight", b->s->hidden);
    if ((b->layer + 1) % b->s->gdn.interval != 0) {
        delta_net(b);
    } else {
        attention(b, ATTN_GATED);
    }
    norm(b, ".post_attention_norm.weight", b->s->hidden);
    routed(b);
    shared_gate(b);
    shared(b);
}

static void gpt_oss_layer(builder *b)
{
    const mfi_synth_shape *s = b->s;
    norm(b, ".attn_norm.weight", s->hidden);
    attention(b, ATTN_PLAIN);
    qkv_bias(b);
    bias(b, ".attn_output.bias", s->hidden, 0);
    floats(b, ".attn_sinks.weight", MFI_FILL_NORMAL, 0, 1, s->n_head, 0);
    norm(b, ".post_attention_norm.weight", s->hidden);
    routed(b);
    bias(b, ".ffn_gate_inp.bias", s->n_experts, 0);
    bias(b, ".ffn_gate_exps.bias", s->n_experts, s->expert_width);
    bias(b, ".ffn_up_exps.bias", s->n_experts, s->expert_width);
    bias(b, ".ffn_down_exps.bias", s->n_experts, s->hidden);
}

static void deepseek_layer(builder *b)
{
    const mfi_synth_shape *s = b->s;
    uint32_t q = s->mla.q_rank, kv = s->mla.kv_rank, heads = s->n_head;
    /* What YaRN adds to the scores is in the last layer's sharpness. */
    float yarn = s->yarn.ctx ? 1 + s->yarn.log_mul * logf(s->yarn.factor) : 1;
    float sharp = 6 / (yarn * yarn);
    norm(b, ".attn_norm.weight", s->hidden);
    if (q) {
        mixer_in(b, ".attn_q_a.weight", q, 1);
        norm(b, ".attn_q_a_norm.weight", q);
        matrices(b, ".attn_q_b.weight", USE_MATRIX, 0, heads * s->head_dim, q, b->last ? sharp : 1);
    } else {
        mixer_in(b, ".attn_q.weight", heads * s->head_dim, sharp);
    }
    mixer_in(b, ".attn_kv_a_mqa.weight", kv + s->n_rot, 1);
    norm(b, ".attn_kv_a_norm.weight", kv);
    /* Both are used from the latent's side; the scale is of keys and values made from the latent.
     */
    matrices(b, ".attn_k_b.weight", USE_MATRIX, heads, kv, s->mla.nope,
             sqrtf((float)s->mla.nope / (float)kv));
    matrices(b, ".attn_v_b.weight", USE_MATRIX, heads, s->mla.v_dim, kv, 1);
    mixer_back(b, ".attn_output.weight", heads * s->mla.v_dim, 0.4);
    norm(b, ".ffn_norm.weight", s->hidden);
    dense_or_shared(b);
}

/* Mixtral and Granite; OLMoE and MiniMax-M2, which corrects its router, too. */
static void plain_layer(builder *b)
{
    bool wide = b->s->kind == MFI_SYNTH_OLMOE || b->s->kind == MFI_SYNTH_MINIMAX_M2;
    norm(b, ".attn_norm.weight", b->s->hidden);
    attention(b, wide ? ATTN_WIDE_NORMED : ATTN_PLAIN);
    norm(b, ".ffn_norm.weight", b->s->hidden);
    routed(b);
    if (b->s->kind == MFI_SYNTH_MINIMAX_M2)
        bias(b, ".exp_probs_b.bias", b->s->n_experts, 0);
}

static void glm4_layer(builder *b)
{
    norm(b, ".attn_norm.weight", b->s->hidden);
    attention(b, b->s->qk_norm ? ATTN_NORMED : ATTN_PLAIN);
    qkv_bias(b);
    norm(b, ".post_attention_norm.weight", b->s->hidden);
    dense_or_shared(b);
}

static void dots1_layer(builder *b)
{
    norm(b, ".attn_norm.weight", b->s->hidden);
    attention(b, ATTN_NORMED);
    norm(b, ".ffn_norm.weight", b->s->hidden);
    dense_or_shared(b);
}

static void table(builder *b, const char *name, use u, mfi_synth_fill fill)
{
    mfi_synth_tensor *t = add(b, type_for(b->quant, u, b->s->hidden), fill, 0, 0);
    if (!t)
        return;
    set_name(b, t, name);
    set_dims(t, b->s->n_vocab, b->s->hidden, 0);
}

static void (*const layers[])(builder *) = {
    [MFI_SYNTH_QWEN3_MOE] = qwen3_layer,
    [MFI_SYNTH_QWEN2_MOE] = qwen2_layer,
    [MFI_SYNTH_QWEN3_NEXT] = hybrid_layer,
    [MFI_SYNTH_QWEN3_5_MOE] = hybrid_layer,
    [MFI_SYNTH_GPT_OSS] = gpt_oss_layer,
    [MFI_SYNTH_DEEPSEEK_V3] = deepseek_layer,
    [MFI_SYNTH_DEEPSEEK_V2] = deepseek_layer,
    [MFI_SYNTH_KIMI_K2] = deepseek_layer,
    [MFI_SYNTH_GLM4_MOE_LITE] = deepseek_layer,
    [MFI_SYNTH_MIXTRAL] = plain_layer,
    [MFI_SYNTH_OLMOE] = plain_layer,
    [MFI_SYNTH_GLM4_MOE] = glm4_layer,
    [MFI_SYNTH_MINIMAX_M2] = plain_layer,
    [MFI_SYNTH_GRANITEMOE] = plain_layer,
    [MFI_SYNTH_DOTS1] = dots1_layer,
};

static mf_status measure(mfi_synth_list *list, mfi_synth_quant quant, mf_error *err)
{
    for (uint32_t i = 0; i < list->n; i++) {
        const mfi_synth_tensor *t = &list->tensors[i];
        uint64_t cols = t->dims[t->n_dims - 1], rows = 1, bytes;
        for (uint32_t d = 0; d + 1 < t->n_dims; d++)
            rows *= t->dims[d]; /* our own numbers: far from overflow */
        if (!mfi_quant_cols_ok(t->type, cols))
            return mfi_fail(err, MF_ERR_ARGUMENT,
                            "quant: %s can't hold %s: rows of %" PRIu64 " are not whole blocks",
                            quants[quant].name, t->name, cols);
        bytes = rows * mfi_quant_row_bytes(t->type, 0, cols);
        list->bytes += mfi_align_up(bytes, MFI_GGUF_ALIGN);
    }
    return MF_OK;
}

mf_status mfi_synth_list_open(mfi_synth_list *list, const mfi_synth_shape *shape,
                              mfi_synth_quant quant, uint32_t n_layers, mf_error *err)
{
    *list = (mfi_synth_list){0};
    if (n_layers == 0)
        n_layers = shape->n_layers;
    if (n_layers > shape->n_layers || n_layers <= shape->n_dense)
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "layers: %" PRIu32 " of %s %s; it has %" PRIu32 ", %" PRIu32
                        " of them without experts",
                        n_layers, mfi_synth_arch_name(shape->kind), shape->name, shape->n_layers,
                        shape->n_dense);
    builder b = {.list = list,
                 .s = shape,
                 .quant = quant,
                 .residual = 1 / sqrtf(2.0f * (float)n_layers),
                 .louder = shape->scale.embed > 0 ? shape->scale.embed / shape->scale.residual : 1};
    table(&b, "token_embd.weight", USE_TABLE, MFI_FILL_EMBED);
    for (b.layer = 0; b.layer < n_layers && !list->failed; b.layer++) {
        b.last = b.layer + 1 == n_layers;
        layers[shape->kind](&b);
    }
    norm(&b, "output_norm.weight", shape->hidden);
    table(&b, "output.weight", USE_HEAD, MFI_FILL_OUTPUT);
    mf_status status = list->failed
                           ? mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the list of tensors")
                           : measure(list, quant, err);
    if (status != MF_OK)
        mfi_synth_list_close(list);
    return status;
}

void mfi_synth_list_close(mfi_synth_list *list)
{
    free(list->tensors);
    *list = (mfi_synth_list){0};
}
