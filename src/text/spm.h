/* SentencePiece models (tokenizer.model): a protobuf message, read as far as tokenizers need it. */
#ifndef MFI_TEXT_SPM_H
#define MFI_TEXT_SPM_H

#include "base/status.h"

typedef struct mfi_spm_piece {
    const char *text; /* [len] in the file's bytes */
    uint32_t len;
    float score;
    uint8_t type; /* 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte */
} mfi_spm_piece;

typedef struct mfi_spm {
    mfi_spm_piece *pieces; /* [n] */
    uint32_t n, cap;
    uint32_t model_type; /* 1 unigram, 2 BPE, 3 words, 4 characters */
    int64_t unk, bos, eos, pad;
    bool space_behind; /* treat_whitespace_as_suffix */
    const char *charsmap;
    uint32_t charsmap_len;
    bool dummy_prefix, collapse_spaces, escape_spaces;
} mfi_spm;

/* Reads len bytes, which spm refers to afterwards. */
mf_status mfi_spm_read(mfi_spm *spm, const void *bytes, size_t len, mf_error *err);
void mfi_spm_close(mfi_spm *spm);

#endif
