/* A SentencePiece model as GGUF metadata; see gguf_keys.h. Called by gguf_vocab.c where a folder's
 * tokenizer is no byte-level BPE. GGUF's "llama" merges by scores, which is what SentencePiece's
 * BPE does; other kinds, and texts that are normalised first, are refused. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "convert/gguf_vocab.h"
#include "os/file.h"
#include "text/spm.h"

enum { MODEL_BPE = 2 };

#define SCORE_UNUSED (-1000.0f)

static mf_status check_kind(const mfi_spm *spm, const char *path, mf_error *err)
{
    const char *what = spm->model_type != MODEL_BPE ? "a SentencePiece model that is no BPE"
                       : spm->charsmap_len > 0      ? "a table of characters to normalise"
                       : spm->collapse_spaces       ? "runs of spaces that become one"
                       : !spm->escape_spaces        ? "spaces that aren't escaped"
                       : spm->space_behind          ? "spaces that belong to the word before"
                                                    : NULL;
    if (!what)
        return MF_OK;
    return mfi_fail(err, MF_ERR_UNSUPPORTED,
                    "%s: %s: GGUF is written of SentencePiece's BPE without normalisation, and of "
                    "byte-level BPE",
                    path, what);
}

/* Id i behind the pieces: what was added, or nothing. */
static bool put_added(mfi_gguf_out *out, const mfi_gv_token *token, uint32_t i, mfi_buf *text)
{
    char unused[32];
    if (!token->text.text) {
        int n = snprintf(unused, sizeof unused, "[PAD%" PRIu32 "]", i);
        mfi_gguf_put_str(out, unused, (size_t)n);
        return true;
    }
    text->len = 0;
    if (!mfi_json_span_str(token->text, text) || text->failed)
        return false;
    mfi_gguf_put_str(out, text->data, text->len);
    return true;
}

static bool put_pieces(const mfi_spm *spm, const mfi_gv_token *tokens, uint32_t n,
                       mfi_gguf_out *out)
{
    mfi_buf text = {0};
    bool ok = true;
    mfi_buf_append(&text, "", 0);
    mfi_gguf_array(out, "tokenizer.ggml.tokens", MFI_GGUF_STRING, n);
    for (uint32_t i = 0; i < n && ok; i++)
        if (i < spm->n)
            mfi_gguf_put_str(out, spm->pieces[i].text, spm->pieces[i].len);
        else
            ok = put_added(out, &tokens[i], i, &text);
    mfi_buf_free(&text);
    if (!ok)
        return false;
    mfi_gguf_array(out, "tokenizer.ggml.scores", MFI_GGUF_FLOAT32, n);
    for (uint32_t i = 0; i < n; i++)
        mfi_gguf_put_f32(out, i < spm->n ? spm->pieces[i].score : SCORE_UNUSED);
    mfi_gguf_array(out, "tokenizer.ggml.token_type", MFI_GGUF_INT32, n);
    for (uint32_t i = 0; i < n; i++) {
        bool plain = i >= spm->n || spm->pieces[i].type == MFI_GV_NORMAL;
        mfi_gguf_put_i32(out, plain && tokens[i].text.text ? tokens[i].type
                              : i < spm->n                 ? spm->pieces[i].type
                                                           : MFI_GV_UNUSED);
    }
    return true;
}

mf_status mfi_gv_spm(mfi_gguf_out *out, const char *path, const mfi_gv_token *tokens, uint32_t n,
                     mfi_gv_special *special, mf_error *err)
{
    char *bytes = NULL;
    size_t len;
    mfi_spm spm = {0};
    mf_error inner = {0};
    MFI_TRY(mfi_file_read_all(path, MFI_MAX_JSON_BYTES, &bytes, &len, err));
    mf_status status = mfi_spm_read(&spm, bytes, len, &inner);
    if (status != MF_OK)
        status = mfi_fail(err, status, "%s: %.400s", path, inner.message);
    if (status == MF_OK)
        status = check_kind(&spm, path, err);
    if (status == MF_OK && spm.n > n)
        status = mfi_fail(err, MF_ERR_FORMAT,
                          "%s: %u pieces, but the model has %u rows of embeddings", path, spm.n, n);
    if (status == MF_OK) {
        mfi_gguf_key_str(out, "tokenizer.ggml.model", "llama");
        mfi_gguf_key_str(out, "tokenizer.ggml.pre", "default");
        mfi_gguf_key_bool(out, "tokenizer.ggml.add_space_prefix", spm.dummy_prefix);
        if (spm.unk >= 0 && spm.unk < (int64_t)n)
            mfi_gguf_key_u32(out, "tokenizer.ggml.unknown_token_id", (uint32_t)spm.unk);
        *special = (mfi_gv_special){spm.bos, spm.eos, spm.pad};
        if (!put_pieces(&spm, tokens, n, out))
            status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for an added token", path);
    }
    mfi_spm_close(&spm);
    free(bytes);
    return status;
}
