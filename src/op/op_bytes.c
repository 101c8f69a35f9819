/* See op_bytes.h. Pure; called on the engine's thread while ops are timed. */
#include "op/op_bytes.h"

#include <stdio.h>
#include <string.h>

static uint64_t matrix_bytes(mfi_qtype type, uint64_t rows, uint32_t cols)
{
    uint64_t bytes = 0;
    for (uint32_t p = 0; p < mfi_quant_n_planes(type); p++) {
        const uint32_t share = mfi_quant_rows_per_row(type, p);
        bytes += (rows + share - 1) / share * mfi_quant_row_bytes(type, p, cols);
    }
    return bytes;
}

static uint64_t weight_bytes(const mfi_program *p, uint32_t weight)
{
    const mfi_program_weight *w = &p->weights[weight];
    return matrix_bytes(w->type, w->rows, w->cols);
}

/* Cached positions that attention looks at, over all sequences. */
static uint64_t positions(const mfi_layer_state *state, const mfi_step *step)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        const mfi_seq *seq = &step->seqs[i];
        const uint64_t all = (uint64_t)seq->pos + seq->n;
        const uint64_t window = (uint64_t)state->window + seq->n - 1;
        sum += state->window && window < all ? window : all;
    }
    return sum;
}

uint64_t mfi_op_bytes(const mfi_program *p, const mfi_op *op, const mfi_step *step)
{
    const mfi_layer_state *state = &p->state[op->layer];
    uint64_t bytes = 0;
    switch ((mfi_op_code)op->code) {
    case MFI_OP_EMBED:
        return matrix_bytes(p->weights[op->w[0]].type, step->n_tok, p->weights[op->w[0]].cols);
    case MFI_OP_MATMUL:
        for (uint32_t i = 0; i < op->n; i++)
            bytes += weight_bytes(p, op->w[i]);
        return bytes;
    case MFI_OP_LATENT_ABSORB:
    case MFI_OP_LATENT_EXPAND:
        return weight_bytes(p, op->w[0]);
    case MFI_OP_EXPERTS:
        return step->n_work * (p->experts[op->layer].bytes - p->experts[op->layer].gap_bytes);
    case MFI_OP_ATTN:
    case MFI_OP_LATENT_ATTN:
        return positions(state, step) * state->kv_pos_bytes;
    case MFI_OP_GDN:
        return step->n_seqs * 2 * state->recurrent_bytes; /* read and written */
    default:
        return 0;
    }
}

void mfi_op_label(const mfi_op *op, char label[MFI_OP_LABEL_BYTES])
{
    static const char *const ops[] = {
#define NAME(name) #name,
        MFI_OP_LIST(NAME)
#undef NAME
    };
    static const char *const bufs[] = {
#define NAME(name) #name,
        MFI_BUF_LIST(NAME)
#undef NAME
    };
    const uint32_t n_dst = op->code == MFI_OP_MATMUL || op->code == MFI_OP_BIAS ? op->n : 1;
    const bool none = op->code == MFI_OP_QUANTIZE || op->code == MFI_OP_ATTN_PREP ||
                      op->code == MFI_OP_GDN_CONV || op->code == MFI_OP_LATENT_PREP;
    size_t len = (size_t)snprintf(label, MFI_OP_LABEL_BYTES, "%s", ops[op->code]);
    for (uint32_t i = 0; !none && i < n_dst && len < MFI_OP_LABEL_BYTES; i++)
        len += (size_t)snprintf(label + len, MFI_OP_LABEL_BYTES - len, " %s", bufs[op->dst[i]]);
    if (op->code == MFI_OP_QUANTIZE && len < MFI_OP_LABEL_BYTES)
        snprintf(label + len, MFI_OP_LABEL_BYTES - len, " %s", bufs[op->src[0]]);
    for (char *c = label; *c; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
}
