/* How much work schemas make: names held against patterns cost no new automata, and what grows with
 * products of a schema's parts ends in an error. Steps are counted, so that no clock is needed. */
#include "fake/support.h"

#include <string.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/rng.h"
#include "grammar/ast.h"

static mf_status parse(const mfi_buf *json, uint64_t *work, mf_error *err)
{
    mfi_ast ast;
    assert_false(json->failed);
    mfi_ast_open(&ast);
    mf_status status = mfi_schema_parse_counted(&ast, json->data, json->len, work, err);
    mfi_ast_close(&ast);
    return status;
}

/* n times the format, with the number for each #, and what stands between. */
static void put_list(mfi_buf *json, const char *before, const char *format, unsigned n,
                     const char *between)
{
    mfi_buf_str(json, before);
    for (unsigned i = 0; i < n; i++) {
        mfi_buf_str(json, i ? between : "");
        for (const char *p = format; *p; p++) {
            if (*p == '#')
                mfi_buf_fmt(json, "%u", i);
            else
                mfi_buf_append(json, p, 1);
        }
    }
}

static void put_ended(mfi_buf *json, const char *before, const char *format, unsigned n,
                      const char *after)
{
    put_list(json, before, format, n, ",");
    mfi_buf_str(json, after);
}

/* Each name takes a few steps a character and pattern; making the automata anew for each took
 * thousands. */
static void names_share_the_automata_of_patterns(void **state)
{
    (void)state;
    const unsigned n_names = 1000, n_patterns = 8;
    mfi_buf json = {0};
    uint64_t work;
    mf_error err = {0};
    put_ended(&json, "{\"type\":\"object\",\"properties\":{", "\"p#\":{}", n_names, "},");
    put_ended(&json, "\"patternProperties\":{", "\"^[a-z]+[0-9]*_#$\":{}", n_patterns,
              "},\"additionalProperties\":false}");
    mft_ok(parse(&json, &work, &err), &err);
    assert_in_range(work, n_names * n_patterns, MFI_MAX_SCHEMA_WORK / 8);
    mfi_buf_free(&json);

    put_ended(
        &json, "{\"type\":\"object\",\"properties\":{", "\"p#\":{}", 1500,
        "},\"propertyNames\":{\"pattern\":\"^[a-z]+[0-9]*$\"},\"additionalProperties\":false}");
    mft_ok(parse(&json, &work, &err), &err);
    assert_in_range(work, 1500, MFI_MAX_SCHEMA_WORK / 8);
    mfi_buf_free(&json);
}

/* Many different names don't fill the tables of the pattern they are held against. */
static void names_may_be_many(void **state)
{
    (void)state;
    mfi_buf json = {0};
    uint64_t work;
    mf_error err = {0};
    mfi_rng rng = {1};
    mfi_buf_str(&json, "{\"pattern\":\"^.*a.{20}$\",\"enum\":[\"\"");
    for (int i = 0; i < 2500; i++) {
        uint64_t bits = mfi_rng_below(&rng, 1ull << 48);
        mfi_buf_str(&json, ",\"");
        for (int k = 0; k < 48; k++)
            mfi_buf_str(&json, bits >> k & 1 ? "a" : "b");
        mfi_buf_str(&json, "\"");
    }
    mfi_buf_str(&json, "]}");
    mft_ok(parse(&json, &work, &err), &err);
    assert_in_range(work, 2500 * 48, MFI_MAX_SCHEMA_WORK);
    mfi_buf_free(&json);
}

static void check_refused(mfi_buf *json)
{
    uint64_t work;
    mf_error err = {0};
    assert_int_equal(parse(json, &work, &err), MF_ERR_LIMIT);
    assert_non_null(strstr(err.message, "more work than one schema may make"));
    assert_in_range(work, MFI_MAX_SCHEMA_WORK, MFI_MAX_SCHEMA_WORK * 5 / 4);
    mfi_buf_free(json);
}

static void products_are_errors(void **state)
{
    (void)state;
    mfi_buf json = {0};
    mfi_buf_str(&json, "{\"$ref\":\"#/$defs/d0\",\"$defs\":{\"d30\":{}");
    for (int i = 0; i < 30; i++)
        mfi_buf_fmt(&json,
                    ",\"d%d\":{\"allOf\":[{\"$ref\":\"#/$defs/d%d\"},{\"$ref\":\"#/$defs/d%d\"}]}",
                    i, i + 1, i + 1);
    mfi_buf_str(&json, "}}");
    check_refused(&json);

    put_ended(&json, "{\"allOf\":[{\"enum\":[", "\"a#\"", 10000, "]},");
    put_ended(&json, "{\"enum\":[", "\"b#\"", 10000, "]}]}");
    check_refused(&json);

    put_ended(&json, "{\"oneOf\":[",
              "{\"type\":\"object\",\"properties\":{\"k\":{\"const\":#}},\"required\":[\"k\"]}",
              2000, "]}");
    check_refused(&json);

    put_ended(&json, "{\"type\":\"object\",\"properties\":{", "\"aaaaaaaaaaaaaaa#\":{}", 3000,
              "},");
    put_list(&json, "\"patternProperties\":{\"^(", "a*#x", 1500, "|");
    mfi_buf_str(&json, ")$\":{}}}");
    check_refused(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_share_the_automata_of_patterns),
        cmocka_unit_test(names_may_be_many),
        cmocka_unit_test(products_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
