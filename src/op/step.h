/* One execution of a program: what differs from call to call. Filled by forward, read by backends.
 */
#ifndef MFI_OP_STEP_H
#define MFI_OP_STEP_H

#include "op/program.h"

/* The state of one sequence in one layer; unused pointers are NULL. */
typedef struct mfi_layer_mem {
    void *kv;         /* kv_type [mfi_kv_rows][2][n_kv_head * head_dim]: K, then V of a position; or
                         [ctx][latent_kv + n_rot] */
    float *recurrent; /* conv rows [conv_kernel-1][channels], then [v_heads][k_dim][v_dim] */
} mfi_layer_mem;

/* A (token, rank) choice of an expert. */
typedef struct mfi_pair {
    uint16_t token, rank;
} mfi_pair;

/* One expert in memory and the pairs that chose it. */
typedef struct mfi_expert_work {
    const uint8_t *data; /* its slot */
    uint32_t first, n;   /* pairs[first .. first + n) */
} mfi_expert_work;

/* A run of rows that are consecutive tokens of one sequence. */
typedef struct mfi_seq {
    uint32_t row, n;          /* rows [row, row + n) of the step */
    uint32_t pos;             /* of the first */
    const mfi_layer_mem *mem; /* [n_layers] its state */
} mfi_seq;

/* Rows are tokens. Sequences are distinct and their rows follow one another, so that row 0 is the
 * first of seqs[0]. No row's result depends on the other sequences. */
typedef struct mfi_step {
    uint32_t n_tok;        /* <= program chunk */
    const int32_t *tokens; /* [n_tok] */
    const mfi_seq *seqs;   /* [n_seqs] */
    uint32_t n_seqs;
    const uint16_t *seq_of;    /* [n_tok] the sequence of each row */
    const uint32_t *head_rows; /* [n_head] rows that head ops work on */
    uint32_t n_head;
    /* EXPERTS, which runs at least once, and COMBINE, for which a device has kept what EXPERTS saw
     * last */
    const mfi_pair *pairs;   /* [n_tok * top_k], grouped by expert; outputs lie in this order */
    const uint32_t *pair_of; /* [n_tok][top_k] where in pairs a (token, rank) stands */
    const mfi_expert_work *work;
    uint32_t n_work;
} mfi_step;

/* The sequence of a row. */
static inline const mfi_seq *mfi_step_seq(const mfi_step *step, uint32_t row)
{
    return &step->seqs[step->seq_of[row]];
}

/* The position of a row in its sequence. */
static inline uint32_t mfi_step_pos(const mfi_step *step, uint32_t row)
{
    const mfi_seq *seq = mfi_step_seq(step, row);
    return seq->pos + (row - seq->row);
}

#endif
