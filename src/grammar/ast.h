/* A grammar as expressions over bytes and characters, between its text (GBNF or a JSON schema) and
 * the automaton.
 *
 * Nodes are numbers; 0 is the empty expression. Building can't fail call by call: running out of
 * memory or over a limit is kept and reported by mfi_ast_check. */
#ifndef MFI_GRAMMAR_AST_H
#define MFI_GRAMMAR_AST_H

#include "base/buf.h"
#include "base/status.h"

typedef enum mfi_ast_kind {
    MFI_AST_EMPTY,
    MFI_AST_BYTES,  /* a: offset in bytes, b: length */
    MFI_AST_CLASS,  /* one character. a: offset in ranges, b: how many */
    MFI_AST_SEQ,    /* a: first child */
    MFI_AST_ALT,    /* a: first child */
    MFI_AST_REPEAT, /* a: child, b: least, c: most */
    MFI_AST_RULE    /* a: index */
} mfi_ast_kind;

#define MFI_AST_UNBOUNDED UINT32_MAX

typedef struct mfi_ast_node {
    mfi_ast_kind kind;
    uint32_t a, b, c;
    uint32_t next; /* sibling in the list it stands in; 0: the last */
} mfi_ast_node;

typedef struct mfi_range { /* of characters, inclusive */
    uint32_t lo, hi;
} mfi_range;

typedef struct mfi_ast_rule {
    uint32_t name, name_len; /* in bytes */
    uint32_t body;
    uint32_t line, column; /* where it is first used or defined; 0: nowhere in a text */
    bool defined;
} mfi_ast_rule;

typedef struct mfi_ast {
    mfi_ast_node *nodes; /* nodes[0] is the empty expression */
    uint32_t n_nodes, cap_nodes;
    mfi_range *ranges;
    uint32_t n_ranges, cap_ranges;
    mfi_ast_rule *rules; /* rules[0] is the root */
    uint32_t n_rules, cap_rules;
    uint32_t *index; /* hash of names -> rule + 1; [n_index], a power of two */
    uint32_t n_index;
    mfi_buf bytes;
    bool too_large;
} mfi_ast;

typedef struct mfi_ast_list {
    uint32_t first, last;
} mfi_ast_list; /* zero to start */

/* Makes an empty grammar with the undefined rule "root". */
void mfi_ast_open(mfi_ast *ast);
void mfi_ast_close(mfi_ast *ast);
/* MF_ERR_NO_MEMORY or MF_ERR_LIMIT if building failed. */
mf_status mfi_ast_check(const mfi_ast *ast, mf_error *err);
bool mfi_ast_failed(const mfi_ast *ast);

uint32_t mfi_ast_bytes(mfi_ast *ast, const char *bytes, size_t len);
uint32_t mfi_ast_str(mfi_ast *ast, const char *text);
/* Sorts and joins the ranges, takes the complement if `negated` and leaves out surrogates. */
uint32_t mfi_ast_class(mfi_ast *ast, const mfi_range *ranges, uint32_t n, bool negated);
uint32_t mfi_ast_repeat(mfi_ast *ast, uint32_t child, uint32_t least, uint32_t most);
uint32_t mfi_ast_call(mfi_ast *ast, uint32_t rule);

/* A node stands in one list only. */
void mfi_ast_push(mfi_ast *ast, mfi_ast_list *list, uint32_t node);
uint32_t mfi_ast_seq(mfi_ast *ast, mfi_ast_list list);
uint32_t mfi_ast_alt(mfi_ast *ast, mfi_ast_list list);
/* Nodes up to MFI_AST_END, in sequence or as alternatives. */
#define MFI_AST_END              UINT32_MAX
#define mfi_ast_seq_of(ast, ...) mfi_ast_of(ast, MFI_AST_SEQ, __VA_ARGS__)
#define mfi_ast_alt_of(ast, ...) mfi_ast_of(ast, MFI_AST_ALT, __VA_ARGS__)
uint32_t mfi_ast_of(mfi_ast *ast, mfi_ast_kind kind, ...);
/* Nothing or the child. */
uint32_t mfi_ast_optional(mfi_ast *ast, uint32_t child);

/* The rule of that name, made if there is none. */
uint32_t mfi_ast_rule_named(mfi_ast *ast, const char *name, size_t len);
/* A rule with a body of its own and a name for messages only. */
uint32_t mfi_ast_rule_new(mfi_ast *ast, const char *name);
void mfi_ast_define(mfi_ast *ast, uint32_t rule, uint32_t body);

/* ---- readers of grammars ---- */

/* GBNF; messages name line and column. */
mf_status mfi_gbnf_parse(mfi_ast *ast, const char *text, size_t len, mf_error *err);
/* A JSON schema; messages name the keyword and its path. */
mf_status mfi_schema_parse(mfi_ast *ast, const char *json, size_t len, mf_error *err);
/* The same; *work: how much of MFI_MAX_SCHEMA_WORK it took. */
mf_status mfi_schema_parse_counted(mfi_ast *ast, const char *json, size_t len, uint64_t *work,
                                   mf_error *err);

#endif
