/* A compiled grammar: a pushdown automaton over bytes.
 *
 * A state is met together with a stack of states to return to. State 0 ends a rule: it returns, or,
 * with an empty stack, the grammar may end here. A call whose continuation is state 0 pushes
 * nothing, so that right recursion needs no stack. Immutable after open. */
#ifndef MFI_GRAMMAR_NFA_H
#define MFI_GRAMMAR_NFA_H

#include "grammar/ast.h"

typedef enum mfi_state_kind {
    MFI_STATE_END,
    MFI_STATE_BYTE,  /* byte a, then state b */
    MFI_STATE_SET,   /* an edge of [a, a + c); the character's end goes to state b */
    MFI_STATE_SPLIT, /* any of targets [a, a + b), without a byte */
    MFI_STATE_CALL   /* rule a, then state b */
} mfi_state_kind;

typedef struct mfi_state {
    uint8_t kind;
    uint32_t a, b, c;
} mfi_state;

typedef struct mfi_edge { /* bytes lo..hi; target 0 is the character's end */
    uint8_t lo, hi;
    uint32_t target;
} mfi_edge;

#define MFI_NEED_NEVER UINT16_MAX

struct mf_grammar {
    mfi_state *states; /* [n_states] */
    uint16_t *need;    /* [n_states] frames that ending takes at least; NEVER: it can't */
    mfi_edge *edges;
    uint32_t *targets; /* of splits */
    uint32_t *entry;   /* [n_rules] */
    uint32_t n_states, n_edges, n_targets, n_rules;
    uint16_t n_classes;
    uint8_t class_of[256]; /* bytes that no state tells apart are one class */
    uint8_t byte_of[256];  /* [n_classes] a byte of each */
};

/* Compiles; rules[0] is the root. MF_ERR_ARGUMENT names a rule that is left-recursive or can't
 * end. */
mf_status mfi_grammar_compile(mf_grammar **grammar, const mfi_ast *ast, mf_error *err);

#endif
