/* SentencePiece models for tests; see spm_files.h. */
#include "fake/spm_files.h"

static void put_varint(mfi_buf *b, uint64_t v)
{
    do {
        unsigned char byte = (unsigned char)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        mfi_buf_append(b, &byte, 1);
        v >>= 7;
    } while (v);
}

void mft_spm_number(mfi_buf *b, uint32_t field, uint64_t v)
{
    put_varint(b, (uint64_t)field << 3);
    put_varint(b, v);
}

void mft_spm_bytes(mfi_buf *b, uint32_t field, const void *bytes, size_t len)
{
    put_varint(b, (uint64_t)field << 3 | 2);
    put_varint(b, len);
    mfi_buf_append(b, bytes, len);
}

/* Takes the inner message over. */
void mft_spm_message(mfi_buf *b, uint32_t field, mfi_buf *inner)
{
    mft_spm_bytes(b, field, inner->data ? inner->data : "", inner->len);
    mfi_buf_free(inner);
}

void mft_spm_piece(mfi_buf *model, const char *text, size_t len, float score, int type)
{
    mfi_buf piece = {0};
    mft_spm_bytes(&piece, 1, text, len);
    put_varint(&piece, 2 << 3 | 5);
    mfi_buf_append(&piece, &score, 4); /* the tests run on little-endian machines */
    if (type != 1)
        mft_spm_number(&piece, 3, (uint64_t)type);
    mft_spm_message(model, 1, &piece);
}
