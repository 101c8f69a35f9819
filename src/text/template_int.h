/* Lexer and parser of templates; for src/text/template*.c only. */
#ifndef MFI_TEXT_TEMPLATE_INT_H
#define MFI_TEXT_TEMPLATE_INT_H

#include "text/template.h"

/* Everything that lives as long as one rendering. */
typedef struct mfi_arena_block mfi_arena_block;
typedef struct mfi_arena {
    mfi_arena_block *blocks;
} mfi_arena;

void *mfi_arena_alloc(mfi_arena *arena, size_t bytes); /* NULL: out of memory */
void mfi_arena_free(mfi_arena *arena);

typedef enum mfi_token_type {
    MFI_TOK_END,
    MFI_TOK_DATA,      /* text outside of tags */
    MFI_TOK_OPEN_VAR,  /* {{ */
    MFI_TOK_CLOSE_VAR, /* }} */
    MFI_TOK_OPEN_BLOCK,
    MFI_TOK_CLOSE_BLOCK,
    MFI_TOK_NAME,
    MFI_TOK_STR, /* decoded */
    MFI_TOK_INT,
    MFI_TOK_OP
} mfi_token_type;

typedef struct mfi_lex_token {
    mfi_token_type type;
    uint32_t line;
    const char *text; /* [len] */
    size_t len;
    int64_t integer;
} mfi_lex_token;

typedef struct mfi_lexer {
    mfi_arena *arena;
    const char *p, *end; /* line ends are \n */
    uint32_t line;
    enum { MFI_LEX_DATA, MFI_LEX_VAR, MFI_LEX_BLOCK } state;
    bool line_starting; /* what came before ended with a line end */
    mf_error *err;
} mfi_lexer;

/* The source is copied. */
mf_status mfi_lexer_begin(mfi_lexer *lexer, mfi_arena *arena, const char *source, size_t len,
                          mf_error *err);
mf_status mfi_lexer_next(mfi_lexer *lexer, mfi_lex_token *token);

mf_status mfi_template_unsupported(mf_error *err, uint32_t line, const char *what, const char *name,
                                   size_t name_len);
mf_status mfi_template_malformed(mf_error *err, uint32_t line, const char *what);
mf_status mfi_template_no_memory(mf_error *err);

/* ---- the tree ---- */

typedef enum mfi_node_type {
    /* statements, linked by next */
    MFI_NODE_TEXT,   /* str */
    MFI_NODE_OUTPUT, /* a */
    MFI_NODE_IF,     /* a: condition; body; other */
    MFI_NODE_FOR,    /* str: target; a: list; body; other */
    /* expressions */
    MFI_NODE_LITERAL, /* value */
    MFI_NODE_NAME,    /* str */
    MFI_NODE_ATTR,    /* a.str */
    MFI_NODE_ITEM,    /* a[b] */
    MFI_NODE_ADD,
    MFI_NODE_EQ,
    MFI_NODE_NE,
    MFI_NODE_AND,
    MFI_NODE_OR,
    MFI_NODE_NOT
} mfi_node_type;

typedef struct mfi_node mfi_node;
struct mfi_node {
    mfi_node_type type;
    uint32_t line;
    mfi_node *next;
    mfi_node *a, *b;
    mfi_node *body, *other;
    const char *str; /* [len] */
    size_t len;
    mfi_value value;
};

/* Evaluates the tree; the rest as mfi_template_render. Memory is taken from an arena of its own. */
mf_status mfi_template_run(const mfi_node *root, const mfi_value *vars, mfi_buf *out,
                           mf_error *err);

/* *root is the first statement, or NULL if there is none. */
mf_status mfi_template_parse(mfi_arena *arena, const char *source, size_t len, mfi_node **root,
                             mf_error *err);

#endif
