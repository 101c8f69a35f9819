/* The reader of tiktoken's files. Runs while a tokenizer is opened; everything in them is foreign.
 */
#include "text/tiktoken.h"
#include "base/limits.h"
#include "text/base64.h"

#include <stdlib.h>
#include <string.h>

typedef struct line {
    const char *token;
    size_t token_len;
    uint32_t rank;
} line;

/* "IQ== 0" */
static mf_status read_line(const char *p, const char *end, size_t number, line *l, mf_error *err)
{
    const char *space = memchr(p, ' ', (size_t)(end - p));
    uint64_t rank = 0;
    const char *q = space ? space + 1 : end;
    if (q == end)
        return mfi_fail(err, MF_ERR_FORMAT, "line %zu is not a token and its rank", number);
    for (const char *r = q; r < end; r++) {
        if (*r < '0' || *r > '9')
            return mfi_fail(err, MF_ERR_FORMAT, "line %zu: the rank is no number", number);
        rank = rank * 10 + (uint64_t)(*r - '0');
        if (rank >= MFI_MAX_VOCAB - 1)
            return mfi_fail(err, MF_ERR_LIMIT, "line %zu: rank %llu", number,
                            (unsigned long long)rank);
    }
    *l = (line){p, (size_t)(space - p), (uint32_t)rank};
    return MF_OK;
}

static mf_status put(mfi_tiktoken *t, const line *l, size_t number, mf_error *err)
{
    mfi_rank_token *token = &t->tokens[l->rank];
    if (token->len)
        return mfi_fail(err, MF_ERR_FORMAT, "line %zu: rank %u is there twice", number, l->rank);
    token->offset = t->pool.len;
    if (!mfi_base64_decode(l->token, l->token_len, &t->pool))
        return mfi_fail(err, MF_ERR_FORMAT, "line %zu: the token is not base64", number);
    size_t len = t->pool.len - token->offset;
    if (!len || len > MFI_MAX_TOKEN_BYTES)
        return mfi_fail(err, MF_ERR_FORMAT, "line %zu: a token of %zu bytes", number, len);
    token->len = (uint32_t)len;
    return t->pool.failed ? mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory") : MF_OK;
}

/* Goes through the lines, at first to find the highest rank. */
static mf_status read_lines(mfi_tiktoken *t, const char *text, size_t len, bool fill, mf_error *err)
{
    const char *end = text + len, *next;
    size_t number = 0;
    for (const char *p = text; p < end; p = next) {
        const char *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline ? newline : end;
        line l = {0};
        number++;
        next = newline ? newline + 1 : end;
        stop -= stop > p && stop[-1] == '\r';
        if (stop == p)
            continue;
        MFI_TRY(read_line(p, stop, number, &l, err));
        if (fill)
            MFI_TRY(put(t, &l, number, err));
        else
            t->n = MFI_MAX(t->n, l.rank + 1);
    }
    return t->n ? MF_OK : mfi_fail(err, MF_ERR_FORMAT, "has no ranks");
}

mf_status mfi_tiktoken_read(mfi_tiktoken *tiktoken, const char *text, size_t len, mf_error *err)
{
    *tiktoken = (mfi_tiktoken){0};
    mf_status status = read_lines(tiktoken, text, len, false, err);
    if (status == MF_OK) {
        tiktoken->tokens = calloc(tiktoken->n, sizeof *tiktoken->tokens);
        status = tiktoken->tokens ? read_lines(tiktoken, text, len, true, err)
                                  : mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory");
    }
    if (status != MF_OK)
        mfi_tiktoken_close(tiktoken);
    return status;
}

void mfi_tiktoken_close(mfi_tiktoken *tiktoken)
{
    mfi_buf_free(&tiktoken->pool);
    free(tiktoken->tokens);
    *tiktoken = (mfi_tiktoken){0};
}
