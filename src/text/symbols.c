/* Characters to ids, for BPE over characters.
 *
 * Filled while a tokenizer is opened, only read afterwards, by any thread. Such tokenizers often
 * have no pre-tokeniser, so that a whole document is one piece. Merges join two neighbours: where
 * the characters on both sides of a place meet in no merge at all, nothing ever reaches over it,
 * and the parts can be encoded one by one with the same ids. That keeps pieces short (a vocabulary
 * hardly joins a letter to the next word's U+2581) and lets words be remembered. */
#include "text/symbols.h"
#include "text/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_DIRECT   0x2600u /* Latin to U+2581 and a little further */
#define JOINT_BITS 21
#define FEW        24

static inline uint32_t joint_bit(uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> (64 - JOINT_BITS));
}

mf_status mfi_symbols_open(mfi_symbols *symbols, const mfi_vocab *vocab, mf_error *err)
{
    *symbols = (mfi_symbols){.unk = MFI_UNK_NONE};
    symbols->direct = malloc(N_DIRECT * sizeof *symbols->direct);
    symbols->joints = calloc((size_t)1 << (JOINT_BITS - 3), 1);
    if (!symbols->direct || !symbols->joints) {
        mfi_symbols_close(symbols);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "vocab: out of memory");
    }
    for (uint32_t cp = 0; cp < N_DIRECT; cp++) {
        char utf8[4];
        symbols->direct[cp] = mfi_vocab_find(vocab, utf8, mfi_utf8_encode(cp, utf8), 0);
    }
    for (uint32_t b = 0; b < 256; b++) {
        char text[8];
        int n = snprintf(text, sizeof text, "<0x%02X>", b);
        symbols->byte_id[b] = mfi_vocab_find(vocab, text, (size_t)n, 0);
    }
    return MF_OK;
}

void mfi_symbols_close(mfi_symbols *symbols)
{
    free(symbols->direct);
    free(symbols->joints);
    *symbols = (mfi_symbols){0};
}

uint64_t mfi_symbols_bytes(const mfi_symbols *symbols)
{
    return (symbols->direct ? N_DIRECT * sizeof *symbols->direct : 0) +
           (symbols->joints ? (uint64_t)1 << (JOINT_BITS - 3) : 0);
}

/* Symbols that are not their own text: places between characters say nothing about them. */
static bool is_stand_in(const mfi_symbols *symbols, const char *text, size_t len, int32_t id)
{
    return id == symbols->unk || (len == 6 && memcmp(text, "<0x", 3) == 0);
}

void mfi_symbols_note_merge(mfi_symbols *symbols, const mfi_vocab *vocab, int32_t left,
                            int32_t right)
{
    size_t left_len, right_len;
    const char *a = mfi_vocab_text(vocab, left, &left_len);
    const char *b = mfi_vocab_text(vocab, right, &right_len);
    uint32_t last, first;
    if (!left_len || !right_len || is_stand_in(symbols, a, left_len, left) ||
        is_stand_in(symbols, b, right_len, right)) {
        symbols->no_cuts = true;
        return;
    }
    if (!mfi_utf8_decode_before(a, a + left_len, &last) ||
        !mfi_utf8_decode(b, b + right_len, &first))
        return; /* no text has it */
    uint32_t bit = joint_bit(last, first);
    symbols->joints[bit / 8] |= (uint8_t)(1 << bit % 8);
}

bool mfi_symbols_has_all_bytes(const mfi_symbols *symbols)
{
    for (int b = 0; b < 256; b++)
        if (symbols->byte_id[b] < 0)
            return false;
    return true;
}

/* Where characters may be unknown, cuts are wrong: one unknown token may stand for what lies on
 * both sides, and what is dropped brings its neighbours together. */
void mfi_symbols_settle(mfi_symbols *symbols)
{
    symbols->no_cuts |= !symbols->byte_fallback || !mfi_symbols_has_all_bytes(symbols);
}

size_t mfi_symbols_cut(const mfi_symbols *symbols, const char *piece, size_t len, size_t from)
{
    if (symbols->no_cuts)
        return len;
    const char *end = piece + len, *p = piece + from;
    uint32_t left, right;
    p += mfi_utf8_decode(p, end, &left);
    while (p < end) {
        size_t n = 1;
        right = (unsigned char)*p;
        if (right >= 0x80)
            n = mfi_utf8_decode(p, end, &right);
        uint32_t bit = joint_bit(left, right);
        if (!(symbols->joints[bit / 8] >> bit % 8 & 1))
            break;
        left = right;
        p += n;
    }
    return (size_t)(p - piece);
}

bool mfi_symbols_put_bytes(const mfi_symbols *symbols, const char *text, size_t len, mfi_ids *ids,
                           bool *failed)
{
    for (size_t i = 0; i < len; i++)
        if (symbols->byte_id[(unsigned char)text[i]] < 0)
            return false;
    for (size_t i = 0; i < len; i++)
        *failed |= !mfi_ids_push(ids, symbols->byte_id[(unsigned char)text[i]]);
    return true;
}

/* Step by step as Hugging Face's merge_word: an unknown token waits for the next known character,
 * also behind bytes that are put meanwhile. */
static mf_status fill(const mfi_symbols *symbols, const mfi_vocab *vocab, const char *piece,
                      size_t len, uint32_t *out, size_t *n_out, mf_error *err)
{
    const char *p = piece, *end = piece + len;
    bool unk_waits = false;
    size_t n = 0;
    while (p < end) {
        uint32_t cp;
        size_t step = mfi_utf8_decode(p, end, &cp);
        const char *at = p;
        p += step;
        int32_t id = cp < N_DIRECT ? symbols->direct[cp] : mfi_vocab_find(vocab, at, step, 0);
        if (id >= 0) {
            if (unk_waits)
                out[n++] = (uint32_t)symbols->unk;
            unk_waits = false;
            out[n++] = (uint32_t)id;
            continue;
        }
        bool bytes = symbols->byte_fallback;
        for (size_t i = 0; bytes && i < step; i++)
            bytes = symbols->byte_id[(unsigned char)at[i]] >= 0;
        for (size_t i = 0; bytes && i < step; i++)
            out[n++] = (uint32_t)symbols->byte_id[(unsigned char)at[i]];
        if (bytes || symbols->unk == MFI_UNK_NONE)
            continue;
        if (symbols->unk == MFI_UNK_MISSING)
            return mfi_fail(err, MF_ERR_FORMAT,
                            "U+%04X needs the unknown token, which the vocabulary lacks", cp);
        if (unk_waits && !symbols->fuse_unk)
            out[n++] = (uint32_t)symbols->unk;
        unk_waits = true;
    }
    if (unk_waits)
        out[n++] = (uint32_t)symbols->unk;
    *n_out = n;
    return MF_OK;
}

mf_status mfi_symbols_encode(const mfi_symbols *symbols, const mfi_vocab *vocab, const mfi_bpe *bpe,
                             mfi_bpe_scratch *scratch, const char *piece, size_t len, mfi_ids *ids,
                             mf_error *err)
{
    uint32_t few[FEW], *out = few;
    size_t n = 0;
    if (len > FEW) { /* never more symbols than bytes */
        out = mfi_bpe_symbols(scratch, len);
        if (!out)
            return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while encoding");
    }
    MFI_TRY(fill(symbols, vocab, piece, len, out, &n, err));
    return mfi_bpe_merge(bpe, scratch, out, n, ids, err);
}
