/* stub */
#include "grammar/ast.h"
mf_status mfi_schema_parse(mfi_ast *ast, const char *json, size_t len, mf_error *err)
{
    (void)ast;
    (void)json;
    (void)len;
    return mfi_fail(err, MF_ERR_UNSUPPORTED, "soon");
}
