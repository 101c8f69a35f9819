/* The table of states that a matcher walks; see matcher.h. */
#ifndef MFI_GRAMMAR_DFA_H
#define MFI_GRAMMAR_DFA_H

#include "grammar/nfa.h"
#include "grammar/trie.h"

#define MFI_DFA_DEAD    0u
#define MFI_DFA_UNKNOWN UINT32_MAX
#define MFI_DFA_FULL    (UINT32_MAX - 1) /* a table is full: flush and try again */
#define MFI_DFA_TANGLED (UINT32_MAX - 2) /* more configurations than are followed */

typedef struct mfi_frame { /* a stack: a state to return to, on top of another stack */
    uint32_t ret, parent, depth;
} mfi_frame;

typedef struct mfi_config { /* an automaton's state that reads a byte, with its stack */
    uint32_t state, frame;
} mfi_config;

typedef struct mfi_dstate {
    uint32_t first, n;  /* configurations */
    mfi_char_set live;  /* characters that lead anywhere; below 0x80 known if the row is filled */
    mfi_char_set plain; /* those that lead to `major`, whatever follows a lead byte */
    uint32_t major;     /* where most of them lead */
    int32_t mask;       /* slot of the mask; -1: none */
    bool accepting, filled;
    bool wide; /* lead bytes are known, too */
} mfi_dstate;

typedef struct mfi_dfa {
    const mf_grammar *g;
    mfi_frame *frames; /* frames[0] is the empty stack */
    uint32_t n_frames;
    uint32_t *frame_index;
    mfi_config *configs;
    uint32_t n_configs;
    mfi_dstate *states; /* states[0] is dead */
    uint32_t n_states, cap_states;
    uint32_t *state_index;
    uint32_t *rows;   /* [cap_states][n_classes] */
    mfi_config *work; /* [MFI_MAX_GRAMMAR_CONFIGS]: the closure that is being made */
    uint32_t n_work, n_out;
    mfi_config *out; /* those of work that read a byte */
    uint32_t *seen;  /* hash of work -> index; valid if its stamp is current */
    uint32_t *stamps, stamp;
    bool accepting, full, tangled;
} mfi_dfa;

mf_status mfi_dfa_open(mfi_dfa *dfa, const mf_grammar *grammar, mf_error *err);
void mfi_dfa_close(mfi_dfa *dfa);
uint64_t mfi_dfa_bytes(void);

/* The state at the grammar's beginning, or FULL or TANGLED. */
uint32_t mfi_dfa_start(mfi_dfa *dfa);
/* The state after a byte of that class: DEAD, FULL and TANGLED are possible. */
uint32_t mfi_dfa_step(mfi_dfa *dfa, uint32_t state, uint32_t byte_class);
/* Fills a state's row and what is made of it; returns 0, FULL or TANGLED. */
uint32_t mfi_dfa_fill(mfi_dfa *dfa, uint32_t state);
/* The same for lead bytes. */
uint32_t mfi_dfa_fill_wide(mfi_dfa *dfa, uint32_t state);
/* Forgets all but one state, and returns what it is called now (FULL if that won't help). */
uint32_t mfi_dfa_flush(mfi_dfa *dfa, uint32_t keep);

static inline uint32_t mfi_dfa_next(mfi_dfa *dfa, uint32_t state, uint32_t byte_class)
{
    uint32_t next = dfa->rows[(size_t)state * dfa->g->n_classes + byte_class];
    return next == MFI_DFA_UNKNOWN ? mfi_dfa_step(dfa, state, byte_class) : next;
}

#endif
