/* The reader of SentencePiece models.
 *
 * Protobuf's wire format: fields of a tag (number << 3 | wire type) and a varint, 8 bytes, 4 bytes,
 * or a length and so many bytes. Known fields must have their type, others are skipped. Field
 * numbers are those of sentencepiece_model.proto. Runs while a tokenizer is opened; every byte is
 * foreign, and every length is held to what is left. */
#include "text/spm.h"
#include "base/limits.h"
#include "base/room.h"

#include <stdlib.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

typedef struct reader {
    const unsigned char *begin, *p, *end;
    const unsigned char *file; /* for offsets in messages */
    mf_error *err;
} reader;

typedef struct field {
    uint32_t number, wire;
    uint64_t value;             /* varint, or fixed */
    const unsigned char *bytes; /* [value] of WIRE_BYTES */
} field;

static mf_status malformed(const reader *r, const char *what)
{
    return mfi_fail(r->err, MF_ERR_FORMAT, "offset %zu: %s", (size_t)(r->p - r->file), what);
}

static mf_status read_varint(reader *r, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (r->p == r->end)
            return malformed(r, "a number is cut short");
        unsigned char b = *r->p++;
        if (shift == 63 && b > 1)
            break;
        *v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return MF_OK;
    }
    return malformed(r, "a number of more than 64 bits");
}

static mf_status read_fixed(reader *r, size_t n, uint64_t *v)
{
    if ((size_t)(r->end - r->p) < n)
        return malformed(r, "a number is cut short");
    *v = 0;
    for (size_t i = 0; i < n; i++)
        *v |= (uint64_t)r->p[i] << 8 * i;
    r->p += n;
    return MF_OK;
}

static mf_status next_field(reader *r, field *f)
{
    uint64_t tag;
    MFI_TRY(read_varint(r, &tag));
    if (tag >> 3 == 0 || tag >> 3 > (1u << 29) - 1)
        return malformed(r, "no field has this number");
    *f = (field){.number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7)};
    switch (f->wire) {
    case WIRE_VARINT:
        return read_varint(r, &f->value);
    case WIRE_64:
        return read_fixed(r, 8, &f->value);
    case WIRE_32:
        return read_fixed(r, 4, &f->value);
    case WIRE_BYTES:
        MFI_TRY(read_varint(r, &f->value));
        if (f->value > (uint64_t)(r->end - r->p))
            return malformed(r, "a field is longer than what is left");
        f->bytes = r->p;
        r->p += f->value;
        return MF_OK;
    default:
        return malformed(r, "not a SentencePiece model: a field of an unknown kind");
    }
}

static mf_status expect_wire(const reader *r, const field *f, uint32_t wire)
{
    return f->wire == wire ? MF_OK : malformed(r, "a field has the wrong type");
}

static reader inside(const reader *r, const field *f)
{
    return (reader){f->bytes, f->bytes, f->bytes + f->value, r->file, r->err};
}

static mf_status read_piece(mfi_spm *spm, reader r)
{
    mfi_spm_piece piece = {.text = "", .type = 1};
    while (r.p < r.end) {
        field f;
        MFI_TRY(next_field(&r, &f));
        if (f.number == 1) {
            MFI_TRY(expect_wire(&r, &f, WIRE_BYTES));
            if (f.value > MFI_MAX_TOKEN_BYTES)
                return mfi_fail(r.err, MF_ERR_LIMIT, "piece %u is longer than %d bytes", spm->n,
                                MFI_MAX_TOKEN_BYTES);
            piece.text = (const char *)f.bytes;
            piece.len = (uint32_t)f.value;
        } else if (f.number == 2) {
            MFI_TRY(expect_wire(&r, &f, WIRE_32));
            uint32_t bits = (uint32_t)f.value;
            memcpy(&piece.score, &bits, sizeof bits);
        } else if (f.number == 3) {
            MFI_TRY(expect_wire(&r, &f, WIRE_VARINT));
            if (f.value < 1 || f.value > 6)
                return malformed(&r, "a piece of unknown type");
            piece.type = (uint8_t)f.value;
        }
    }
    if (spm->n == spm->cap && spm->n >= MFI_MAX_VOCAB - 1)
        return mfi_fail(r.err, MF_ERR_LIMIT, "more than %u pieces", MFI_MAX_VOCAB);
    if (!MFI_ROOM(spm->pieces, spm->n, spm->cap, 1024))
        return mfi_fail(r.err, MF_ERR_NO_MEMORY, "out of memory");
    spm->pieces[spm->n++] = piece;
    return MF_OK;
}

static mf_status read_trainer(mfi_spm *spm, reader r)
{
    while (r.p < r.end) {
        field f;
        MFI_TRY(next_field(&r, &f));
        int64_t *id = f.number == 40   ? &spm->unk
                      : f.number == 41 ? &spm->bos
                      : f.number == 42 ? &spm->eos
                      : f.number == 43 ? &spm->pad
                                       : NULL;
        if (!id && f.number != 3 && f.number != 24)
            continue;
        MFI_TRY(expect_wire(&r, &f, WIRE_VARINT));
        if (id)
            *id = (int32_t)f.value; /* -1 is written as 64 bits */
        else if (f.number == 3)
            spm->model_type = (uint32_t)MFI_MIN(f.value, (uint64_t)UINT32_MAX);
        else
            spm->space_behind = f.value != 0;
    }
    return MF_OK;
}

static mf_status read_normalizer(mfi_spm *spm, reader r)
{
    while (r.p < r.end) {
        field f;
        MFI_TRY(next_field(&r, &f));
        if (f.number == 2) {
            MFI_TRY(expect_wire(&r, &f, WIRE_BYTES));
            if (f.value > MFI_MAX_CHARSMAP_BYTES)
                return mfi_fail(r.err, MF_ERR_LIMIT, "a character map of %llu bytes",
                                (unsigned long long)f.value);
            spm->charsmap = f.value ? (const char *)f.bytes : NULL;
            spm->charsmap_len = (uint32_t)f.value;
        } else if (f.number >= 3 && f.number <= 5) {
            MFI_TRY(expect_wire(&r, &f, WIRE_VARINT));
            *(f.number == 3   ? &spm->dummy_prefix
              : f.number == 4 ? &spm->collapse_spaces
                              : &spm->escape_spaces) = f.value != 0;
        }
    }
    return MF_OK;
}

static mf_status read_model(mfi_spm *spm, reader r)
{
    while (r.p < r.end) {
        field f;
        MFI_TRY(next_field(&r, &f));
        if (f.number > 3)
            continue;
        MFI_TRY(expect_wire(&r, &f, WIRE_BYTES));
        MFI_TRY(f.number == 1   ? read_piece(spm, inside(&r, &f))
                : f.number == 2 ? read_trainer(spm, inside(&r, &f))
                                : read_normalizer(spm, inside(&r, &f)));
    }
    return MF_OK;
}

mf_status mfi_spm_read(mfi_spm *spm, const void *bytes, size_t len, mf_error *err)
{
    /* The defaults of the format's description. */
    *spm = (mfi_spm){.model_type = 1,
                     .bos = 1,
                     .eos = 2,
                     .pad = -1,
                     .dummy_prefix = true,
                     .collapse_spaces = true,
                     .escape_spaces = true};
    const unsigned char *p = bytes;
    mf_status status = read_model(spm, (reader){p, p, p + len, p, err});
    if (status == MF_OK && !spm->n)
        status = mfi_fail(err, MF_ERR_FORMAT, "has no pieces");
    if (status != MF_OK)
        mfi_spm_close(spm);
    return status;
}

void mfi_spm_close(mfi_spm *spm)
{
    free(spm->pieces);
    *spm = (mfi_spm){0};
}
