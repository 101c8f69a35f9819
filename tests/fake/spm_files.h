/* SentencePiece models for tests, written from the format's description, protobuf by hand. */
#ifndef MFT_SPM_FILES_H
#define MFT_SPM_FILES_H

#include "base/buf.h"

void mft_spm_number(mfi_buf *b, uint32_t field, uint64_t v);
void mft_spm_bytes(mfi_buf *b, uint32_t field, const void *bytes, size_t len);
/* Takes the inner message over. */
void mft_spm_message(mfi_buf *b, uint32_t field, mfi_buf *inner);
/* One of type 1, normal, doesn't say so. */
void mft_spm_piece(mfi_buf *model, const char *text, size_t len, float score, int type);

#endif
