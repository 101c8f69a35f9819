/* Opening and closing grammars: the public functions. Called on any thread; a grammar is immutable
 * once open. */
#include <stdlib.h>

#include "grammar/nfa.h"

typedef mf_status (*reader)(mfi_ast *ast, const char *text, size_t len, mf_error *err);

static mf_status open_with(mf_grammar **grammar, reader read, const char *text, size_t len,
                           mf_error *err)
{
    mfi_ast ast;
    if (!grammar || (!text && len))
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_grammar_open: NULL argument");
    mfi_ast_open(&ast);
    mf_status status = mfi_ast_check(&ast, err);
    if (status == MF_OK)
        status = read(&ast, text, len, err);
    if (status == MF_OK)
        status = mfi_grammar_compile(grammar, &ast, err);
    mfi_ast_close(&ast);
    return status;
}

mf_status mf_grammar_open(mf_grammar **grammar, const char *text, size_t len, mf_error *err)
{
    return open_with(grammar, mfi_gbnf_parse, text, len, err);
}

mf_status mf_grammar_open_json_schema(mf_grammar **grammar, const char *json, size_t len,
                                      mf_error *err)
{
    return open_with(grammar, mfi_schema_parse, json, len, err);
}

void mf_grammar_close(mf_grammar **grammar)
{
    mf_grammar *g = *grammar;
    if (!g)
        return;
    free(g->states);
    free(g->need);
    free(g->edges);
    free(g->targets);
    free(g->entry);
    free(g);
    *grammar = NULL;
}
