/* tiktoken's ranks: lines of a token in base64 and its rank, which is its id. */
#ifndef MFI_TEXT_TIKTOKEN_H
#define MFI_TEXT_TIKTOKEN_H

#include "base/buf.h"
#include "base/status.h"

typedef struct mfi_rank_token {
    uint64_t offset; /* in the pool */
    uint32_t len;    /* 0: no token has this id */
} mfi_rank_token;

typedef struct mfi_tiktoken {
    mfi_buf pool;
    mfi_rank_token *tokens; /* [n] by id */
    uint32_t n;
} mfi_tiktoken;

mf_status mfi_tiktoken_read(mfi_tiktoken *tiktoken, const char *text, size_t len, mf_error *err);
void mfi_tiktoken_close(mfi_tiktoken *tiktoken);

#endif
