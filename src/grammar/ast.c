/* Building grammars as expressions; see ast.h. Called by the readers of GBNF and of JSON schemas on
 * the thread that opens the grammar. Knows nothing of either notation, and runs nothing. */
#include "grammar/ast.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"

/* Room for one more element of `size` bytes in *items. */
static bool grow(mfi_ast *ast, void *items, uint32_t n, uint32_t *cap, size_t size, uint32_t most)
{
    if (n < *cap)
        return true;
    uint32_t want = *cap ? *cap * 2 : 64;
    void *p = NULL;
    if (n >= most)
        ast->too_large = true;
    else
        memcpy(&p, items, sizeof p);
    if (ast->too_large)
        return false;
    p = realloc(p, want * size);
    if (!p) {
        ast->bytes.failed = true;
        return false;
    }
    memcpy(items, &p, sizeof p);
    *cap = want;
    return true;
}

static uint32_t add(mfi_ast *ast, mfi_ast_kind kind, uint32_t a, uint32_t b, uint32_t c)
{
    if (!grow(ast, &ast->nodes, ast->n_nodes, &ast->cap_nodes, sizeof *ast->nodes,
              MFI_MAX_GRAMMAR_NODES))
        return 0;
    ast->nodes[ast->n_nodes] = (mfi_ast_node){.kind = kind, .a = a, .b = b, .c = c};
    return ast->n_nodes++;
}

void mfi_ast_open(mfi_ast *ast)
{
    *ast = (mfi_ast){0};
    add(ast, MFI_AST_EMPTY, 0, 0, 0);
    mfi_ast_rule_named(ast, "root", 4);
}

void mfi_ast_close(mfi_ast *ast)
{
    free(ast->nodes);
    free(ast->ranges);
    free(ast->rules);
    free(ast->index);
    mfi_buf_free(&ast->bytes);
    *ast = (mfi_ast){0};
}

bool mfi_ast_failed(const mfi_ast *ast)
{
    return ast->too_large || ast->bytes.failed;
}

mf_status mfi_ast_check(const mfi_ast *ast, mf_error *err)
{
    if (ast->too_large)
        return mfi_fail(err, MF_ERR_LIMIT, "the grammar has more than %u parts",
                        MFI_MAX_GRAMMAR_NODES);
    if (ast->bytes.failed)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a grammar");
    return MF_OK;
}

uint32_t mfi_ast_bytes(mfi_ast *ast, const char *bytes, size_t len)
{
    size_t at = ast->bytes.len;
    if (len == 0)
        return 0;
    if (len > MFI_MAX_GRAMMAR_BYTES || at > MFI_MAX_GRAMMAR_BYTES) {
        ast->too_large = true;
        return 0;
    }
    mfi_buf_append(&ast->bytes, bytes, len);
    return add(ast, MFI_AST_BYTES, (uint32_t)at, (uint32_t)len, 0);
}

uint32_t mfi_ast_str(mfi_ast *ast, const char *text)
{
    return mfi_ast_bytes(ast, text, strlen(text));
}

/* ---- classes ---- */

static int by_start(const void *a, const void *b)
{
    const mfi_range *x = a, *y = b;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

static void put_range(mfi_ast *ast, uint32_t lo, uint32_t hi)
{
    if (lo > hi || !grow(ast, &ast->ranges, ast->n_ranges, &ast->cap_ranges, sizeof *ast->ranges,
                         MFI_MAX_GRAMMAR_NODES))
        return;
    ast->ranges[ast->n_ranges++] = (mfi_range){lo, hi};
}

/* Surrogates are no characters. */
static void put_scalars(mfi_ast *ast, uint32_t lo, uint32_t hi)
{
    if (lo < 0xd800 && hi > 0xdfff) {
        put_range(ast, lo, 0xd7ff);
        put_range(ast, 0xe000, hi);
        return;
    }
    if (lo >= 0xd800 && lo <= 0xdfff)
        lo = 0xe000;
    if (hi >= 0xd800 && hi <= 0xdfff)
        hi = 0xd7ff;
    put_range(ast, lo, hi);
}

uint32_t mfi_ast_class(mfi_ast *ast, const mfi_range *ranges, uint32_t n, bool negated)
{
    uint32_t begin = ast->n_ranges, from = 0;
    mfi_range *sorted = malloc((n ? n : 1) * sizeof *sorted);
    if (!sorted) {
        ast->bytes.failed = true;
        return 0;
    }
    if (n)
        memcpy(sorted, ranges, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_start);
    for (uint32_t i = 0; i < n;) {
        uint32_t lo = sorted[i].lo, hi = sorted[i].hi;
        for (i++; i < n && sorted[i].lo <= hi + 1; i++)
            hi = MFI_MAX(hi, sorted[i].hi);
        if (!negated)
            put_scalars(ast, lo, hi);
        else if (lo > from)
            put_scalars(ast, from, lo - 1);
        from = hi + 1;
    }
    if (negated && from <= 0x10ffff)
        put_scalars(ast, from, 0x10ffff);
    free(sorted);
    return add(ast, MFI_AST_CLASS, begin, ast->n_ranges - begin, 0);
}

/* ---- composition ---- */

uint32_t mfi_ast_repeat(mfi_ast *ast, uint32_t child, uint32_t least, uint32_t most)
{
    if (most == 0 || ast->nodes == NULL)
        return 0;
    return least == 1 && most == 1 ? child : add(ast, MFI_AST_REPEAT, child, least, most);
}

uint32_t mfi_ast_call(mfi_ast *ast, uint32_t rule)
{
    return add(ast, MFI_AST_RULE, rule, 0, 0);
}

void mfi_ast_push(mfi_ast *ast, mfi_ast_list *list, uint32_t node)
{
    if (node == 0) /* the empty expression in a list of its own */
        node = add(ast, MFI_AST_EMPTY, 0, 0, 0);
    if (mfi_ast_failed(ast))
        return;
    if (list->last)
        ast->nodes[list->last].next = node;
    else
        list->first = node;
    list->last = node;
}

uint32_t mfi_ast_seq(mfi_ast *ast, mfi_ast_list list)
{
    return add(ast, MFI_AST_SEQ, list.first, 0, 0);
}

uint32_t mfi_ast_alt(mfi_ast *ast, mfi_ast_list list)
{
    return add(ast, MFI_AST_ALT, list.first, 0, 0);
}

uint32_t mfi_ast_of(mfi_ast *ast, mfi_ast_kind kind, ...)
{
    mfi_ast_list list = {0};
    va_list args;
    va_start(args, kind);
    for (uint32_t node; (node = va_arg(args, uint32_t)) != MFI_AST_END;)
        mfi_ast_push(ast, &list, node);
    va_end(args);
    return add(ast, kind, list.first, 0, 0);
}

uint32_t mfi_ast_optional(mfi_ast *ast, uint32_t child)
{
    return mfi_ast_repeat(ast, child, 0, 1);
}

/* ---- rules ---- */

static uint32_t *slot_of(const mfi_ast *ast, const char *name, size_t len)
{
    uint32_t at = (uint32_t)mfi_hash_bytes(name, len) & (ast->n_index - 1);
    for (;; at = (at + 1) & (ast->n_index - 1)) {
        uint32_t *slot = &ast->index[at];
        if (*slot == 0)
            return slot;
        const mfi_ast_rule *rule = &ast->rules[*slot - 1];
        if (rule->name_len == len && memcmp(ast->bytes.data + rule->name, name, len) == 0)
            return slot;
    }
}

static bool grow_index(mfi_ast *ast)
{
    if (ast->n_rules * 2 < ast->n_index)
        return true;
    uint32_t n = ast->n_index ? ast->n_index * 2 : 64;
    uint32_t *fresh = calloc(n, sizeof *fresh);
    if (!fresh) {
        ast->bytes.failed = true;
        return false;
    }
    free(ast->index);
    ast->index = fresh;
    ast->n_index = n;
    for (uint32_t i = 0; i < ast->n_rules; i++) {
        const mfi_ast_rule *rule = &ast->rules[i];
        *slot_of(ast, ast->bytes.data + rule->name, rule->name_len) = i + 1;
    }
    return true;
}

static uint32_t new_rule(mfi_ast *ast, const char *name, size_t len)
{
    size_t at = ast->bytes.len;
    if (mfi_ast_failed(ast) || at > MFI_MAX_GRAMMAR_BYTES ||
        !grow(ast, &ast->rules, ast->n_rules, &ast->cap_rules, sizeof *ast->rules,
              MFI_MAX_GRAMMAR_NODES))
        return 0;
    mfi_buf_append(&ast->bytes, name, len);
    ast->rules[ast->n_rules] = (mfi_ast_rule){.name = (uint32_t)at, .name_len = (uint32_t)len};
    return ast->n_rules++;
}

uint32_t mfi_ast_rule_named(mfi_ast *ast, const char *name, size_t len)
{
    if (!grow_index(ast))
        return 0;
    uint32_t *slot = slot_of(ast, name, len);
    if (*slot)
        return *slot - 1;
    uint32_t rule = new_rule(ast, name, len);
    if (!mfi_ast_failed(ast))
        *slot = rule + 1;
    return rule;
}

uint32_t mfi_ast_rule_new(mfi_ast *ast, const char *name)
{
    return grow_index(ast) ? new_rule(ast, name, strlen(name)) : 0;
}

void mfi_ast_define(mfi_ast *ast, uint32_t rule, uint32_t body)
{
    if (mfi_ast_failed(ast))
        return;
    ast->rules[rule].body = body;
    ast->rules[rule].defined = true;
}
