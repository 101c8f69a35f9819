/* Text <-> token ids: facade over normaliser, pre-tokeniser, BPE and added tokens.
 *
 * Reads tokenizer.json (BPE over bytes or characters, unigram); needs no weights. Immutable after
 * open, so any number of threads may encode; scratch lives on the call. Everything in the file is
 * foreign: wrong shapes are MF_ERR_FORMAT, constructs that are not implemented MF_ERR_UNSUPPORTED
 * with the construct's name. */
#ifndef MFI_TEXT_TOKENIZER_H
#define MFI_TEXT_TOKENIZER_H

#include "base/status.h"

/* struct mf_tokenizer, mf_tokenizer_close, _encode, _piece, _n_vocab, mf_chat_render and
 * mf_tokenizer_has_chat_template of the public header are implemented in src/text; further: */

/* Opens a folder with a tokenizer.json, a SentencePiece model or tiktoken's ranks, or such a file.
 * mf_tokenizer_open (engine_tokenizer.c) knows GGUF, too, and so does mf_template_open. */
mf_status mfi_tokenizer_open_files(mf_tokenizer **tokenizer, const char *path, mf_error *err);
bool mfi_tokenizer_files_exist(const char *dir);
/* Opens a folder with tokenizer.json, or that file. */
mf_status mfi_tokenizer_open_json(mf_tokenizer **tokenizer, const char *path, mf_error *err);
/* Opens what lies in a folder, or a file with the template's text. */
mf_status mfi_template_open_files(mf_template **chat_template, const char *path, mf_error *err);
/* Takes the tokenizer over, also on failure. */
mf_status mfi_template_open_tokenizer(mf_template **chat_template, mf_tokenizer *tokenizer,
                                      const char *what, mf_error *err);

/* The id of a token by its exact text (added tokens included), or -1. */
int32_t mfi_tokenizer_id(const mf_tokenizer *tokenizer, const char *text);

/* How many spaces of the text that follows the token `before` (-1: none) are not shown, because
 * encoding put them where text begins: to start mfi_tokenizer_show with. */
uint32_t mfi_tokenizer_strip(const mf_tokenizer *tokenizer, int32_t before);
/* mf_tokenizer_piece for the next token of a text: less the spaces still to strip. */
const char *mfi_tokenizer_show(const mf_tokenizer *tokenizer, int32_t id, bool special,
                               uint32_t *strip, size_t *len);

/* Resident bytes the tokenizer holds, for the plan. */
uint64_t mfi_tokenizer_bytes(const mf_tokenizer *tokenizer);

#endif
