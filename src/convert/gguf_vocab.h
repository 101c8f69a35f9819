/* What the two kinds of vocabulary of a GGUF file share. */
#ifndef MFI_CONVERT_GGUF_VOCAB_H
#define MFI_CONVERT_GGUF_VOCAB_H

#include "base/json.h"
#include "convert/gguf_write.h"

/* GGUF's kinds of tokens. */
enum {
    MFI_GV_NORMAL = 1,
    MFI_GV_UNKNOWN,
    MFI_GV_CONTROL,
    MFI_GV_USER_DEFINED,
    MFI_GV_UNUSED,
    MFI_GV_BYTE
};

typedef struct mfi_gv_token {
    mfi_json_span text; /* with its quotes; .text NULL: nothing has this id */
    int32_t type;
} mfi_gv_token;

/* What a SentencePiece model says beside its pieces; ids are -1 where there is none. */
typedef struct mfi_gv_special {
    int64_t bos, eos, pad;
} mfi_gv_special;

/* gguf_spm.c: tokens, scores and types of tokenizer.model at `path`, and how it puts spaces. tokens
 * [n] have what was added to its pieces. */
mf_status mfi_gv_spm(mfi_gguf_out *out, const char *path, const mfi_gv_token *tokens, uint32_t n,
                     mfi_gv_special *special, mf_error *err);

#endif
