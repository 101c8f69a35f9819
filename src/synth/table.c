/* Embedding and output rows; see table.h. Called by the writer on its thread; pure.
 *
 * A router's choice follows from the hidden state, and that is mostly the token's embedding
 * (list.c). With `uniform` routing all rows are independent: each token draws its experts anew,
 * which is the worst case for every cache.
 *
 * `skewed` routing imitates how real text reuses experts. Every token belongs to a topic. The first
 * columns of its embedding are the topic's, the same for all its tokens; the others are its own.
 * Two tokens of a topic then have router logits that correlate by the topic's share of the energy,
 * and so choose partly the same experts. The output matrix continues this: a row's first columns
 * are a little of its topic's embedding, so that the next token comes from the same topic 15 times
 * out of 16, and its other columns are random, so that it is another token each time. (They are
 * blind to the topic's columns; else a topic would have a few tokens that come again and again. For
 * the same reason the last layer's mixer sees the other columns only.)
 *
 * Calibrated to the figures reported for Qwen3-30B-A3B: 45 % of the choices repeat at the next
 * token, 80 % within 8 tokens, the median distance is 2 tokens, the hottest expert is used 2.5
 * times as often as the mean. The share of energy that gives 45 % depends on how selective the
 * router is: 1 - 0.78 (top_k / n_experts)^0.44, fitted to simulated routers of 4 in 32 to 10 in
 * 512. With 4 n_experts / top_k topics, each expert is a favourite of four of them on average. What
 * a whole model makes of it is a little less: 37 % and 74 % with qwen3_moe's tiny shape.
 *
 * This holds for text that the model generates, greedily or sampled. Pieces of text (bytes, merges
 * and special tokens) all belong to topic 0: a prompt in words reuses its experts about as much,
 * but doesn't wander from topic to topic. A prompt of random ids reuses nothing.
 *
 * With both routings the output rows of pieces of text are zero: their logits are never the
 * largest, so that no special token ends a measurement early. */
#include "synth/table.h"

#include <math.h>
#include <string.h>

#include "synth/fill.h"

#define GGML_Q4_0 2
#define GGML_Q8_0 8
#define GGML_Q4_K 12
#define GGML_Q6_K 14

#define GROUP         32 /* elements that are made together: half a byte of random bits each */
#define STREAM_TOPIC  0x70b1cu
#define STREAM_TOKEN  0x70cecu
#define STREAM_OUT    0x0075u
#define STREAM_CHOICE 0xc401ceu

#define RMS_CODE 9.21954 /* -15, -13 ... 15 */
#define RMS_Q4_0 4.18330 /* -7 to 7, with 0 twice */
#define SUB_CODE 24      /* scale of sub-blocks in the K types */

/* Deviation of the logits: about where greedy decoding and sampling at temperature 1 pick alike. */
#define LOGIT_STD 5.0
/* What all layers together add to the residual stream, relative to the embedding's energy. */
#define LAYERS_ENERGY (MFI_SYNTH_ENERGY_LAYERS + MFI_SYNTH_ENERGY_LAST)
#define STAY_ODDS     15.0 /* topic kept : topic left */

/* The median of the largest of n normal numbers is about this. */
static double largest(double n)
{
    double b = sqrt(2 * log(n));
    return b - (log(log(n)) + log(4 * 3.14159265358979)) / (2 * b);
}

void mfi_synth_tables_init(mfi_synth_tables *t, const mfi_synth_shape *s, bool skewed,
                           uint64_t seed)
{
    double n = s->hidden;
    *t = (mfi_synth_tables){.seed = seed, .hidden = s->hidden, .n_vocab = s->n_vocab};
    t->token_share = 1;
    t->embed_token = 1;
    t->out_token = (float)(LOGIT_STD / sqrt(n));
    if (!skewed)
        return;
    t->n_topics = MFI_MAX(2, 4 * s->n_experts / s->top_k);
    /* Whole superblocks where rows have them, so that each has one scale. */
    uint32_t block = s->hidden % 256 == 0 ? 256 : GROUP;
    uint32_t n_blocks = s->hidden / block;
    t->topic_cols = MFI_MAX(1, n_blocks * 3 / 4) * block;
    double nt = t->topic_cols, nu = n - nt;
    double share = 1 - 0.78 * pow((double)s->top_k / s->n_experts, 0.44);
    t->token_share = (float)(1 - share);
    double et = sqrt(share * n / nt), eu = sqrt((1 - share) * n / nu);
    t->embed_topic = (float)et;
    t->embed_token = (float)eu;
    /* After the last norm: elements divided by the root of 1 + LAYERS_ENERGY. */
    double rms = sqrt(1 + LAYERS_ENERGY), per_topic = (double)s->n_vocab / t->n_topics;
    double all = largest(s->n_vocab), own = largest(per_topic);
    double lead = LOGIT_STD * (all - own + log(STAY_ODDS) / sqrt(2 * log(per_topic)));
    t->out_topic = (float)(lead * rms / (nt * et));
    t->out_token = (float)(LOGIT_STD * rms / sqrt(nu * (eu * eu + LAYERS_ENERGY)));
}

static bool is_text(const mfi_synth_tables *t, uint32_t id)
{
    return id < t->n_text || id >= t->n_vocab - t->n_special;
}

uint32_t mfi_synth_topic(const mfi_synth_tables *t, uint32_t id)
{
    if (t->n_topics == 0 || is_text(t, id))
        return 0;
    return (uint32_t)(mfi_fill_word(t->seed ^ STREAM_CHOICE, id) % t->n_topics);
}

/* Codes 0 to 15 of a group; value 2 * code - 15. */
static void group_codes(uint64_t key, uint64_t index, uint8_t *codes)
{
    for (int k = 0; k < 2; k++) {
        uint64_t w = mfi_fill_word(key, 2 * index + (uint64_t)k);
        for (int j = 0; j < 8; j++) {
            uint8_t byte = (uint8_t)(w >> (8 * j));
            codes[16 * k + j] = byte & 15;
            codes[16 * k + 8 + j] = byte >> 4;
        }
    }
}

/* Codes of a group of a row; `row` is the topic's number in its columns. One group in four of an
 * output row is the token's embedding negated, so that no token follows itself. */
static void row_codes(const mfi_synth_tables *t, bool embed, bool topic, uint64_t row,
                      uint32_t group, uint8_t *codes)
{
    bool negated = !embed && !topic && group % 4 == 3;
    uint64_t stream = topic ? STREAM_TOPIC : embed || negated ? STREAM_TOKEN : STREAM_OUT;
    group_codes(mfi_fill_word(t->seed, stream), row * (t->hidden / GROUP) + group, codes);
    for (int i = 0; i < GROUP && negated; i++)
        codes[i] = 15 - codes[i];
}

static void put_f16(unsigned char *out, double x)
{
    uint16_t h = mfi_f32_to_f16((float)x);
    memcpy(out, &h, 2);
}

/* Each writes one group or superblock with elements of root mean square rms. */
static void put_q8_0(const uint8_t *codes, double rms, unsigned char *out)
{
    put_f16(out, rms / RMS_CODE);
    for (int i = 0; i < GROUP; i++)
        out[2 + i] = (unsigned char)(2 * codes[i] - 15);
}

static void put_q4_0(const uint8_t *codes, double rms, unsigned char *out)
{
    put_f16(out, rms / RMS_Q4_0);
    for (int i = 0; i < 16; i++) {
        uint8_t lo = codes[i] ? codes[i] : 8, hi = codes[i + 16] ? codes[i + 16] : 8;
        out[2 + i] = (unsigned char)(lo | hi << 4);
    }
}

static void put_q4_k(const uint8_t *codes, double rms, unsigned char *out)
{
    uint16_t d = mfi_f32_to_f16((float)(rms / (SUB_CODE * RMS_CODE / 2)));
    d &= d >= 0x400 ? (uint16_t)~0xfu : (uint16_t)~1u; /* so that 7.5 d is a float16 */
    memcpy(out, &d, 2);
    put_f16(out + 2, 7.5 * mfi_f16_to_f32(d));
    memset(out + 4, SUB_CODE | (SUB_CODE >> 4) << 6, 8); /* as in fill.c */
    memset(out + 12, (SUB_CODE & 15) * 0x11, 4);
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 32; i++)
            out[16 + 32 * j + i] = (unsigned char)(codes[64 * j + i] | codes[64 * j + 32 + i] << 4);
}

/* Element 128 h + 32 r + i: low bits in ql, high bits in qh at 2 r. */
static void put_q6_k(const uint8_t *codes, double rms, unsigned char *out)
{
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 32; i++) {
            uint8_t q[4];
            for (int r = 0; r < 4; r++)
                q[r] = (uint8_t)(2 * codes[128 * h + 32 * r + i] - 15 + 32);
            out[64 * h + i] = (unsigned char)((q[0] & 15) | (q[2] & 15) << 4);
            out[64 * h + 32 + i] = (unsigned char)((q[1] & 15) | (q[3] & 15) << 4);
            out[128 + 32 * h + i] =
                (unsigned char)(q[0] >> 4 | q[1] >> 4 << 2 | q[2] >> 4 << 4 | q[3] >> 4 << 6);
        }
    memset(out + 192, SUB_CODE, 16);
    put_f16(out + 208, rms / (SUB_CODE * RMS_CODE));
}

static void put_float(mfi_qkind kind, const uint8_t *codes, double rms, unsigned char *out)
{
    for (int i = 0; i < GROUP; i++) {
        float x = (float)(rms / RMS_CODE) * (float)(2 * codes[i] - 15);
        uint16_t h = kind == MFI_Q_F16 ? mfi_f32_to_f16(x) : mfi_f32_to_bf16(x);
        if (kind == MFI_Q_F32)
            memcpy(out + 4 * i, &x, 4);
        else
            memcpy(out + 2 * i, &h, 2);
    }
}

static void put(mfi_qtype type, const uint8_t *codes, double rms, unsigned char *out)
{
    if (type.kind != MFI_Q_GGML)
        put_float(type.kind, codes, rms, out);
    else if (type.bits == GGML_Q8_0)
        put_q8_0(codes, rms, out);
    else if (type.bits == GGML_Q4_0)
        put_q4_0(codes, rms, out);
    else if (type.bits == GGML_Q4_K)
        put_q4_k(codes, rms, out);
    else if (type.bits == GGML_Q6_K)
        put_q6_k(codes, rms, out);
    else
        MFI_ASSERT(!"a table in a type without an encoder");
}

void mfi_synth_table_run(const mfi_synth_tables *t, mfi_synth_fill which, mfi_qtype type,
                         uint64_t first, uint64_t n, void *out)
{
    uint32_t n_elements = GROUP, n_bytes = type.kind == MFI_Q_F32 ? 4 * GROUP : 2 * GROUP;
    if (type.kind == MFI_Q_GGML)
        mfi_ggml_block(type.bits, &n_elements, &n_bytes);
    bool embed = which == MFI_FILL_EMBED;
    unsigned char *p = out;
    for (uint64_t row = first; row < first + n; row++) {
        uint32_t topic = mfi_synth_topic(t, (uint32_t)row);
        for (uint32_t col = 0; col < t->hidden; col += n_elements, p += n_bytes) {
            uint8_t codes[256];
            bool shared = col < t->topic_cols;
            for (uint32_t g = 0; g < n_elements / GROUP; g++)
                row_codes(t, embed, shared, shared ? topic : row, col / GROUP + g,
                          codes + (size_t)g * GROUP);
            double rms = shared ? (embed ? t->embed_topic : t->out_topic)
                                : (embed ? t->embed_token : t->out_token);
            if (!embed && is_text(t, (uint32_t)row))
                rms = 0;
            put(type, codes, rms, p);
        }
    }
}
