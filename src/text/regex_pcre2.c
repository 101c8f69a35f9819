/* The regex engine: PCRE2 behind mfi_regex.
 *
 * Owns the compiled pattern (immutable, shared by threads) and the scratch of one call (match data,
 * JIT stack). PCRE2's own Unicode data are not relied on; see regex.c. Without executable memory
 * everything works through PCRE2's interpreter. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretok.h"
#include "text/regex.h"

#include <pcre2.h>
#include <stdlib.h>

#define JIT_STACK_START_BYTES (64 * 1024)
#define JIT_STACK_MAX_BYTES (8 * 1024 * 1024)
#define COMPILED_BYTES_MAX (64 * 1024 * 1024)

struct mfi_regex {
    pcre2_code *code;
    bool jit;
};

struct mfi_regex_match {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack; /* NULL until 32 KiB of the machine stack were not enough */
};

static mf_status compile(pcre2_code **code, const char *pattern, size_t len, uint32_t options,
                         mf_error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "pattern: out of memory");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int error;
    PCRE2_SIZE offset;
    *code = pcre2_compile((PCRE2_SPTR)pattern, len, options, &error, &offset, context);
    pcre2_compile_context_free(context);
    if (*code)
        return MF_OK;
    if (error == PCRE2_ERROR_NOMEMORY)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "pattern: out of memory");
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(error, text, sizeof text);
    return mfi_fail(err, MF_ERR_FORMAT, "pattern: %s", (const char *)text);
}

mf_status mfi_regex_open(mfi_regex **regex, const char *pattern, size_t len, bool literal,
                         mf_error *err)
{
    mfi_buf rewritten = {0};
    mfi_regex *r = calloc(1, sizeof *r);
    if (!r)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "pattern: out of memory");
    mf_status status;
    if (literal) {
        status = compile(&r->code, pattern, len, PCRE2_UTF | PCRE2_LITERAL, err);
    } else {
        status = mfi_regex_rewrite(pattern, len, &rewritten, err);
        if (status == MF_OK)
            status = compile(&r->code, rewritten.data ? rewritten.data : "", rewritten.len,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, err);
    }
    mfi_buf_free(&rewritten);
    if (status == MF_OK && mfi_regex_bytes(r) > COMPILED_BYTES_MAX)
        status = mfi_fail(err, MF_ERR_LIMIT, "pattern: too large when compiled");
    if (status != MF_OK) {
        mfi_regex_close(&r);
        return status;
    }
    r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0;
    *regex = r;
    return MF_OK;
}

void mfi_regex_close(mfi_regex **regex)
{
    if (!*regex)
        return;
    pcre2_code_free((*regex)->code);
    free(*regex);
    *regex = NULL;
}

uint64_t mfi_regex_bytes(const mfi_regex *regex)
{
    size_t code = 0, jit = 0;
    pcre2_pattern_info(regex->code, PCRE2_INFO_SIZE, &code);
    pcre2_pattern_info(regex->code, PCRE2_INFO_JITSIZE, &jit);
    return sizeof *regex + code + jit;
}

void mfi_regex_forbid_jit(mfi_regex *regex)
{
    regex->jit = false;
}

void mfi_regex_match_free(mfi_regex_match **match)
{
    if (!*match)
        return;
    pcre2_match_data_free((*match)->data);
    pcre2_match_context_free((*match)->context);
    pcre2_jit_stack_free((*match)->stack);
    free(*match);
    *match = NULL;
}

static bool open_match(mfi_regex_match **match)
{
    mfi_regex_match *m = calloc(1, sizeof *m);
    if (!m)
        return false;
    m->data = pcre2_match_data_create(1, NULL);
    m->context = pcre2_match_context_create(NULL);
    *match = m;
    if (m->data && m->context)
        return true;
    mfi_regex_match_free(match);
    return false;
}

mfi_found mfi_regex_find(const mfi_regex *regex, mfi_regex_match **match, const char *text,
                         size_t len, size_t from, size_t *start, size_t *end, mf_error *err)
{
    if (!*match && !open_match(match)) {
        mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while splitting text");
        return MFI_FOUND_ERROR;
    }
    mfi_regex_match *m = *match;
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (regex->jit) {
        rc = pcre2_jit_match(regex->code, subject, len, from, PCRE2_NO_UTF_CHECK, m->data,
                             m->context);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !m->stack) {
            m->stack = pcre2_jit_stack_create(JIT_STACK_START_BYTES, JIT_STACK_MAX_BYTES, NULL);
            if (m->stack) {
                pcre2_jit_stack_assign(m->context, NULL, m->stack);
                rc = pcre2_jit_match(regex->code, subject, len, from, PCRE2_NO_UTF_CHECK, m->data,
                                     m->context);
            }
        }
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter's backtracking lives on the heap */
        rc = pcre2_match(regex->code, subject, len, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         m->data, m->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return MFI_FOUND_NOTHING;
    if (rc < 0) {
        PCRE2_UCHAR reason[256];
        pcre2_get_error_message(rc, reason, sizeof reason);
        bool memory = rc == PCRE2_ERROR_NOMEMORY || rc == PCRE2_ERROR_HEAPLIMIT;
        mfi_fail(err, memory ? MF_ERR_NO_MEMORY : MF_ERR_LIMIT, "splitting text at byte %zu: %s",
                 from, (const char *)reason);
        return MFI_FOUND_ERROR;
    }
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(m->data);
    *start = ends[0];
    *end = ends[1];
    return MFI_FOUND_MATCH;
}
