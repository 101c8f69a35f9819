/* Keys of a synthetic model; see vocab.h. Called by synth.c on its thread; errors stick in the
 * writer.
 *
 * The tokenizer is a byte-level BPE that encodes and decodes every text: 256 bytes, then merges of
 * a space with a letter and of two letters, so that text is not all single bytes, then made-up
 * words (which no merge leads to, so that only the model itself writes them), last the special
 * tokens of ChatML. It has as many entries as the published vocabulary has rows. */
#include "synth/vocab.h"

#include <stdio.h>
#include <string.h>

#define N_LETTERS    26
#define N_MERGES_MAX (N_LETTERS + N_LETTERS * N_LETTERS)
#define N_WORDS      (90 * 90 * 90)

#define SPACE "\xc4\xa0" /* U+0120, the byte 0x20 of a byte-level vocabulary */

enum { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3 }; /* of tokenizer.ggml.token_type */

static uint32_t n_merges(uint32_t n_vocab)
{
    return MFI_MIN(N_MERGES_MAX, n_vocab / 128); /* tiny vocabularies keep room for the rest */
}

uint32_t mfi_synth_n_text(uint32_t n_vocab)
{
    return 256 + n_merges(n_vocab);
}

/* UTF-8 of the character that stands for a byte: itself where it can be seen, else one from U+0100
 * on, in the order of the bytes. */
static size_t byte_token(uint32_t byte, char *out)
{
    uint32_t c = byte, n_hidden = 0;
    for (uint32_t b = 0; b <= byte; b++) {
        bool seen = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
        if (b == byte && !seen)
            c = 0x100 + n_hidden;
        n_hidden += !seen;
    }
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3f));
    return 2;
}

/* The two halves of merge i. */
static void merge_halves(uint32_t i, char left[3], char right[2])
{
    const char *space = SPACE;
    if (i < N_LETTERS) {
        memcpy(left, space, 3);
    } else {
        i -= N_LETTERS;
        left[0] = (char)('a' + i / N_LETTERS);
        left[1] = 0;
    }
    right[0] = (char)('a' + i % N_LETTERS);
    right[1] = 0;
}

/* A space and three syllables: no two numbers below 90^3 give the same word. */
static size_t word_token(uint32_t i, char *out, size_t cap)
{
    static const char consonants[] = "bdfghjklmnprstvwyz", vowels[] = "aeiou";
    char syllables[6];
    i = (uint32_t)(i * 314159ull % N_WORDS); /* neighbours look different; no common factor */
    for (int k = 0; k < 6; k += 2) {
        syllables[k] = consonants[i % 18];
        syllables[k + 1] = vowels[i / 18 % 5];
        i /= 90;
    }
    return (size_t)snprintf(out, cap, SPACE "%.6s", syllables);
}

static const char *const specials[MFI_SYNTH_N_SPECIAL] = {"<|endoftext|>", "<|im_start|>",
                                                          "<|im_end|>"};

static void put_token(mfi_gguf_out *g, uint32_t id, uint32_t n_vocab)
{
    char text[32], left[3], right[2];
    size_t len;
    if (id < 256) {
        len = byte_token(id, text);
    } else if (id < mfi_synth_n_text(n_vocab)) {
        merge_halves(id - 256, left, right);
        len = (size_t)snprintf(text, sizeof text, "%s%s", left, right);
    } else if (id < n_vocab - MFI_SYNTH_N_SPECIAL) {
        len = word_token(id - mfi_synth_n_text(n_vocab), text, sizeof text);
    } else {
        len = (size_t)snprintf(text, sizeof text, "%s",
                               specials[id - (n_vocab - MFI_SYNTH_N_SPECIAL)]);
    }
    mfi_gguf_put_str(g, text, len);
}

void mfi_synth_put_vocab(mfi_gguf_out *g, uint32_t n_vocab)
{
    uint32_t n_text = mfi_synth_n_text(n_vocab), first_special = n_vocab - MFI_SYNTH_N_SPECIAL;
    MFI_ASSERT(n_text < first_special && first_special - n_text <= N_WORDS);
    mfi_gguf_key_str(g, "tokenizer.ggml.model", "gpt2");
    mfi_gguf_key_str(g, "tokenizer.ggml.pre", "qwen2");
    mfi_gguf_array(g, "tokenizer.ggml.tokens", MFI_GGUF_STRING, n_vocab);
    for (uint32_t id = 0; id < n_vocab; id++)
        put_token(g, id, n_vocab);
    mfi_gguf_array(g, "tokenizer.ggml.token_type", MFI_GGUF_INT32, n_vocab);
    for (uint32_t id = 0; id < n_vocab; id++)
        mfi_gguf_put_i32(g, id < first_special ? TOKEN_NORMAL : TOKEN_CONTROL);
    mfi_gguf_array(g, "tokenizer.ggml.merges", MFI_GGUF_STRING, n_merges(n_vocab));
    for (uint32_t i = 0; i < n_merges(n_vocab); i++) {
        char left[3], right[2], text[8];
        merge_halves(i, left, right);
        int len = snprintf(text, sizeof text, "%s %s", left, right);
        mfi_gguf_put_str(g, text, (size_t)len);
    }
    mfi_gguf_key_u32(g, "tokenizer.ggml.eos_token_id", first_special + 2);
    mfi_gguf_key_u32(g, "tokenizer.ggml.padding_token_id", first_special);
    mfi_gguf_key_bool(g, "tokenizer.ggml.add_bos_token", false);
    mfi_gguf_key_str(g, "tokenizer.chat_template",
                     "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
                     "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
                     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
}

/* ---- hyper-parameters ---- */

typedef struct keys {
    mfi_gguf_out *g;
    const char *prefix;
} keys;

static const char *full(const keys *k, const char *key, char name[96])
{
    snprintf(name, 96, "%s.%s", k->prefix, key);
    return name;
}

static void u32(const keys *k, const char *key, uint32_t value)
{
    char name[96];
    mfi_gguf_key_u32(k->g, full(k, key, name), value);
}

static void f32(const keys *k, const char *key, float value)
{
    char name[96];
    mfi_gguf_key_f32(k->g, full(k, key, name), value);
}

static void flag(const keys *k, const char *key, bool value)
{
    char name[96];
    mfi_gguf_key_bool(k->g, full(k, key, name), value);
}

static void put_delta_net(const keys *k, const mfi_synth_shape *s)
{
    u32(k, "ssm.conv_kernel", s->gdn.conv);
    u32(k, "ssm.state_size", s->gdn.dim);
    u32(k, "ssm.group_count", s->gdn.k_heads);
    u32(k, "ssm.time_step_rank", s->gdn.v_heads);
    u32(k, "ssm.inner_size", s->gdn.v_heads * s->gdn.dim);
    u32(k, "full_attention_interval", s->gdn.interval);
}

/* Routers that say how they score, dense layers and shared experts. */
static void put_routing(const keys *k, const mfi_synth_shape *s)
{
    bool softmax = s->kind == MFI_SYNTH_DEEPSEEK_V2;
    u32(k, "expert_gating_func", softmax ? 1 : 2);
    if (s->n_dense)
        u32(k, "leading_dense_block_count", s->n_dense);
    if (s->shared_width)
        u32(k, "expert_shared_count", s->shared_width / s->expert_width);
    if (s->routed_scale > 0) {
        f32(k, "expert_weights_scale", s->routed_scale);
        flag(k, "expert_weights_norm", !softmax);
    }
}

static void put_scales(const keys *k, const mfi_synth_shape *s)
{
    f32(k, "embedding_scale", s->scale.embed);
    f32(k, "residual_scale", s->scale.residual);
    f32(k, "attention.scale", s->scale.attn);
    f32(k, "logit_scale", s->scale.logits);
}

static void put_latent(const keys *k, const mfi_synth_shape *s)
{
    if (s->mla.q_rank)
        u32(k, "attention.q_lora_rank", s->mla.q_rank);
    u32(k, "attention.kv_lora_rank", s->mla.kv_rank);
    u32(k, "attention.key_length_mla", s->head_dim);
    u32(k, "attention.value_length_mla", s->mla.v_dim);
    u32(k, "expert_group_count", s->mla.n_groups);
    u32(k, "expert_group_used_count", s->mla.top_groups);
}

static void put_rope(const keys *k, const mfi_synth_shape *s)
{
    char name[96];
    u32(k, "rope.dimension_count", s->n_rot);
    f32(k, "rope.freq_base", s->rope_theta);
    if (s->kind == MFI_SYNTH_QWEN3_5_MOE) {
        /* Frequencies by text, height and width; they fall together for text. */
        uint32_t half = s->n_rot / 2, third = half / 3;
        const uint32_t sections[4] = {half - 2 * third, third, third, 0};
        mfi_gguf_array(k->g, full(k, "rope.dimension_sections", name), MFI_GGUF_INT32, 4);
        for (int i = 0; i < 4; i++)
            mfi_gguf_put_i32(k->g, (int32_t)sections[i]);
    }
    if (s->yarn.ctx) {
        mfi_gguf_key_str(k->g, full(k, "rope.scaling.type", name), "yarn");
        f32(k, "rope.scaling.factor", s->yarn.factor);
        u32(k, "rope.scaling.original_context_length", s->yarn.ctx);
        if (s->yarn.log_mul > 0)
            f32(k, "rope.scaling.yarn_log_multiplier", s->yarn.log_mul);
        if (s->yarn.beta_fast > 0)
            f32(k, "rope.scaling.yarn_beta_fast", s->yarn.beta_fast);
    }
}

void mfi_synth_put_shape(mfi_gguf_out *g, const mfi_synth_shape *s, uint32_t n_layers)
{
    const keys k = {g, mfi_synth_arch_gguf(s->kind)};
    bool latent = s->mla.kv_rank != 0;
    bool routing = latent || s->routed_scale > 0 || s->kind == MFI_SYNTH_MINIMAX_M2;
    u32(&k, "block_count", n_layers);
    u32(&k, "context_length", s->ctx);
    u32(&k, "embedding_length", s->hidden);
    u32(&k, "vocab_size", s->n_vocab);
    u32(&k, "feed_forward_length", s->ffn_width ? s->ffn_width : s->expert_width);
    u32(&k, "attention.head_count", s->n_head);
    u32(&k, "attention.head_count_kv", s->n_kv_head);
    u32(&k, "attention.key_length", latent ? s->mla.kv_rank + s->n_rot : s->head_dim);
    u32(&k, "attention.value_length", latent ? s->mla.kv_rank : s->head_dim);
    f32(&k, "attention.layer_norm_rms_epsilon", s->eps);
    u32(&k, "expert_count", s->n_experts);
    u32(&k, "expert_used_count", s->top_k);
    u32(&k, "expert_feed_forward_length", s->expert_width);
    if (s->shared_width && !latent)
        u32(&k, "expert_shared_feed_forward_length", s->shared_width);
    if (s->window)
        u32(&k, "attention.sliding_window", s->window);
    if (s->gdn.interval)
        put_delta_net(&k, s);
    if (latent)
        put_latent(&k, s);
    if (routing)
        put_routing(&k, s);
    if (s->scale.embed > 0)
        put_scales(&k, s);
    put_rope(&k, s);
}
