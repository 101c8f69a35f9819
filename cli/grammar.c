/* The grammar that answers shall be of, from the options; for the commands that answer. It is
 * opened before the model, so that a mistake in it shows at once. Main thread only. */
#include <string.h>

#include "cli.h"
#include "input.h"

#define GRAMMAR_MAX_BYTES ((size_t)4 << 20)

bool cli_wants_grammar(const cli_args *args)
{
    return args->grammar || args->grammar_file || args->json_schema || args->json_schema_file;
}

static bool is_gbnf(const char *text)
{
    return strstr(text, "::=") != NULL;
}

static bool is_json(const char *text)
{
    text += strspn(text, " \t\r\n");
    return *text == '{' || strcmp(text, "true") == 0 || strcmp(text, "false") == 0;
}

/* Reports a text that is no grammar: the command line can't be followed. */
static int refused(mf_status status, const mf_error *err, const char *file)
{
    int code = status == MF_ERR_NO_MEMORY ? CLI_EXIT_ROOM : CLI_EXIT_USAGE;
    return file ? cli_error(code, "%s: %s", file, err->message)
                : cli_error(code, "%s", err->message);
}

int cli_grammar_open(const cli_args *args, mf_grammar **grammar)
{
    const char *text = args->grammar ? args->grammar : args->json_schema;
    const char *file = args->grammar_file ? args->grammar_file : args->json_schema_file;
    bool schema = args->json_schema || args->json_schema_file;
    int n = !!args->grammar + !!args->grammar_file + !!args->json_schema + !!args->json_schema_file;
    if (n == 0)
        return CLI_EXIT_OK;
    if (n > 1)
        return cli_usage_error("only one of --grammar, --grammar-file, --json-schema and "
                               "--json-schema-file can be given");
    if (text && !*text)
        return cli_usage_error("%s: an empty text is neither %s nor the name of a file",
                               schema ? "--json-schema" : "--grammar",
                               schema ? "a schema" : "a grammar");
    if (text && !(schema ? is_json(text) : is_gbnf(text)))
        file = text;
    mfi_buf buf = {0};
    int code = CLI_EXIT_OK;
    if (file)
        code = cli_read_all(file, GRAMMAR_MAX_BYTES, &buf);
    else
        mfi_buf_str(&buf, text);
    if (!code && buf.failed)
        code = cli_error(CLI_EXIT_ROOM, "out of memory");
    if (!code) {
        mf_error err = {0};
        mf_status status = schema ? mf_grammar_open_json_schema(grammar, buf.data, buf.len, &err)
                                  : mf_grammar_open(grammar, buf.data, buf.len, &err);
        if (status != MF_OK)
            code = refused(status, &err, file);
    }
    mfi_buf_free(&buf);
    return code;
}
