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

typedef struct mfi_step {
    uint32_t n_tok;            /* <= program chunk */
    uint32_t pos;              /* of the first token */
    const int32_t *tokens;     /* [n_tok] */
    const mfi_layer_mem *mem;  /* [n_layers] */
    uint32_t head_row, n_head; /* rows of the step that head ops work on */
    /* EXPERTS and COMBINE */
    const mfi_pair *pairs;   /* [n_tok * top_k], grouped by expert; outputs lie in this order */
    const uint32_t *pair_of; /* [n_tok][top_k] where in pairs a (token, rank) stands */
    const mfi_expert_work *work;
    uint32_t n_work;
} mfi_step;

#endif
