/* What the compiler's files share. */
#ifndef MFI_GRAMMAR_COMPILE_INT_H
#define MFI_GRAMMAR_COMPILE_INT_H

#include "grammar/nfa.h"

typedef struct mfi_compiler {
    const mfi_ast *ast;
    mf_grammar *g;
    uint32_t cap_states, cap_edges, cap_targets, cap_rules;
    uint32_t *stack; /* children of the lists that are being compiled */
    uint32_t n_stack, cap_stack;
    uint32_t *memo; /* hash of edge lists -> state + 1; [n_memo], a power of two */
    uint32_t n_memo, n_memo_used;
    uint32_t n_visits; /* of expressions; a copy of nothing makes no state, but takes time */
    bool too_large, no_memory;
} compiler;

uint32_t mfi_compile_state(compiler *c, mfi_state state);
bool mfi_compile_edges(compiler *c, const mfi_edge *edges, uint32_t n, uint32_t *at);

/* compile_utf8.c: the state that reads one character of a class, then goes on to `next`. */
uint32_t mfi_compile_class(compiler *c, const mfi_ast_node *node, uint32_t next);

/* compile_check.c: fills g->need; refuses left recursion and a root that can't end. */
mf_status mfi_grammar_check(compiler *c, mf_error *err);

#endif
