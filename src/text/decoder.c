/* Decoders of tokenizer.json: what each token shows is worked out once, while the tokenizer is
 * opened, so that streaming only looks it up. Everything in the file is foreign. */
#include "text/decoder.h"
#include "base/room.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

static mf_status unsupported(mf_error *err, const char *what)
{
    return mfi_fail(err, MF_ERR_UNSUPPORTED, "decoder: %s", what);
}

/* "Strip" of the whole text, behind Fuse. */
static mf_status open_strip(mfi_decoder *decoder, const mfi_json *node, mf_error *err)
{
    const char *content = mfi_json_str(mfi_json_get(node, "content"), NULL);
    int64_t start, stop;
    if (!content || !mfi_json_i64(mfi_json_get(node, "start"), &start) ||
        !mfi_json_i64(mfi_json_get(node, "stop"), &stop) || start < 0)
        return mfi_fail(err, MF_ERR_FORMAT, "decoder: Strip without content, start and stop");
    if (strcmp(content, " ") != 0 || start > 1000 || stop)
        return unsupported(err, "Strip of anything but spaces in front");
    decoder->strip = (uint32_t)start;
    return MF_OK;
}

static mf_status open_metaspace(mfi_decoder *decoder, const mfi_json *node, bool *seen,
                                mf_error *err)
{
    size_t len;
    const char *mark = mfi_json_str(mfi_json_get(node, "replacement"), &len);
    const char *scheme = mfi_json_str(mfi_json_get(node, "prepend_scheme"), NULL);
    bool add = true;
    static const char *const contents[] = {" ", ""}; /* marks in the first token show nothing */
    if (!mark || !len || len > 4)
        return mfi_fail(err, MF_ERR_FORMAT, "decoder: Metaspace without replacement");
    *seen = true;
    mfi_json_bool(mfi_json_get(node, "add_prefix_space"), &add);
    decoder->strip = add && (!scheme || strcmp(scheme, "never") != 0) ? UINT32_MAX : 0;
    mf_status status = MF_OK;
    for (size_t i = 0; i < 2 && status == MF_OK; i++) {
        mfi_buf json = {0};
        mfi_json *tree = NULL;
        mfi_buf_fmt(&json, "{\"type\":\"Replace\",\"content\":\"%s\",\"pattern\":{\"String\":",
                    contents[decoder->strip ? i : 0]);
        mfi_json_put_str(&json, mark, len);
        mfi_buf_str(&json, "}}");
        status = json.failed ? mfi_fail(err, MF_ERR_NO_MEMORY, "decoder: out of memory")
                             : mfi_json_parse(json.data, json.len, "decoder", &tree, err);
        if (status == MF_OK)
            status = mfi_normalizer_add(i ? &decoder->first : &decoder->replace, tree, err);
        mfi_json_free(&tree);
        mfi_buf_free(&json);
    }
    return status;
}

static mf_status open_replace(mfi_decoder *decoder, const mfi_json *node, mf_error *err)
{
    MFI_TRY(mfi_normalizer_add(&decoder->replace, node, err));
    return mfi_normalizer_add(&decoder->first, node, err);
}

/* What came before. */
typedef struct before {
    bool fused, metaspace;
} before;

static mf_status open_one(mfi_decoder *decoder, const mfi_json *node, before *seen, mf_error *err)
{
    const char *type = mfi_json_str(mfi_json_get(node, "type"), NULL);
    if (!type)
        return unsupported(err, "no type");
    if (decoder->byte_level && strcmp(type, "Fuse") != 0)
        return unsupported(err, type); /* behind ByteLevel nothing is left to do */
    if (strcmp(type, "ByteLevel") == 0)
        decoder->byte_level = true;
    else if (strcmp(type, "ByteFallback") == 0)
        decoder->byte_fallback = true;
    else if (strcmp(type, "Fuse") == 0)
        seen->fused = true;
    else if (strcmp(type, "Strip") == 0 && seen->fused && !decoder->strip)
        return open_strip(decoder, node, err);
    else if (strcmp(type, "Replace") == 0 && !seen->fused)
        return open_replace(decoder, node, err);
    else if (strcmp(type, "Metaspace") == 0 && !seen->fused && !seen->metaspace)
        return open_metaspace(decoder, node, &seen->metaspace, err);
    else
        return unsupported(err, type);
    return MF_OK;
}

static mf_status open_nodes(mfi_decoder *decoder, const mfi_json *node, mf_error *err)
{
    before seen = {false, false};
    const char *type = mfi_json_str(mfi_json_get(node, "type"), NULL);
    if (!type)
        return unsupported(err, "none");
    if (strcmp(type, "Sequence") != 0)
        return open_one(decoder, node, &seen, err);
    const mfi_json *list = mfi_json_get(node, "decoders");
    for (size_t i = 0; i < mfi_json_len(list); i++)
        MFI_TRY(open_one(decoder, mfi_json_at(list, i), &seen, err));
    return mfi_json_len(list) ? MF_OK : unsupported(err, "none");
}

mf_status mfi_decoder_open(mfi_decoder *decoder, const mfi_json *node, mf_error *err)
{
    *decoder = (mfi_decoder){0};
    mf_status status = open_nodes(decoder, node, err);
    if (status == MF_OK && decoder->byte_level && decoder->replace.n_steps)
        status = unsupported(err, "Replace in front of ByteLevel");
    if (status != MF_OK)
        mfi_decoder_close(decoder);
    return status;
}

void mfi_decoder_close(mfi_decoder *decoder)
{
    mfi_normalizer_close(&decoder->replace);
    mfi_normalizer_close(&decoder->first);
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static bool is_byte(const char *text, size_t len, char *byte)
{
    if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return false;
    int high = hex(text[3]), low = hex(text[4]);
    *byte = (char)(high * 16 + low);
    return high >= 0 && low >= 0;
}

/* What a token shows: *text and *len are where it lies, or in the scratch. */
static mf_status show(const mfi_decoder *decoder, const mfi_normalizer *replace,
                      mfi_norm_scratch *scratch, char *byte, const char **text, size_t *len,
                      mf_error *err)
{
    if (mfi_utf8_check(*text, *len) == *len)
        MFI_TRY(mfi_normalizer_run(replace, *text, *len, scratch, text, len, err));
    if (decoder->byte_fallback && is_byte(*text, *len, byte)) {
        *text = byte;
        *len = 1;
    }
    return MF_OK;
}

/* Metaspace drops all of its marks where text begins, and nothing else; that is noted where it is
 * not what dropping the spaces in front gives. */
static mf_status note_first(const mfi_decoder *decoder, mfi_norm_scratch *scratch, mfi_vocab *vocab,
                            uint32_t id, mf_error *err)
{
    size_t len, n;
    char byte;
    const char *text = mfi_vocab_text(vocab, (int32_t)id, &len);
    MFI_TRY(show(decoder, &decoder->first, scratch, &byte, &text, &len, err));
    const char *usual = mfi_vocab_shown(vocab, (int32_t)id, &n);
    for (; n && *usual == ' '; n--)
        usual++;
    if (n == len && (!n || memcmp(usual, text, n) == 0))
        return MF_OK;
    if (!MFI_ROOM(vocab->first, vocab->n_first, vocab->first_cap, 16))
        return mfi_fail(err, MF_ERR_NO_MEMORY, "vocab: out of memory");
    vocab->first[vocab->n_first++] =
        (mfi_shown_first){id, {(uint32_t)vocab->pool.len, (uint32_t)len}};
    mfi_buf_append(&vocab->pool, text, len);
    return MF_OK;
}

mf_status mfi_decoder_apply(const mfi_decoder *decoder, mfi_vocab *vocab, mf_error *err)
{
    if (!decoder->replace.n_steps && !decoder->byte_fallback)
        return MF_OK;
    mfi_norm_scratch scratch = {0};
    mf_status status = MF_OK;
    vocab->shown = calloc(vocab->n ? vocab->n : 1, sizeof *vocab->shown);
    if (!vocab->shown)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "vocab: out of memory");
    for (uint32_t id = 0; id < vocab->n && status == MF_OK; id++) {
        size_t len;
        char byte;
        const char *stored = mfi_vocab_text(vocab, (int32_t)id, &len), *text = stored;
        status = show(decoder, &decoder->replace, &scratch, &byte, &text, &len, err);
        uint32_t offset = vocab->tokens[id].offset;
        if (text != stored) {
            offset = (uint32_t)vocab->pool.len;
            mfi_buf_append(&vocab->pool, text, len);
        }
        vocab->shown[id] = (mfi_shown){offset, (uint32_t)len};
        if (status == MF_OK && decoder->strip == UINT32_MAX && !vocab->pool.failed)
            status = note_first(decoder, &scratch, vocab, id, err);
        if (status == MF_OK && vocab->pool.len > UINT32_MAX) /* offsets have 32 bits */
            status = mfi_fail(err, MF_ERR_LIMIT, "vocab: more than 4 GiB of text");
    }
    mfi_norm_scratch_free(&scratch);
    if (status == MF_OK && vocab->pool.failed)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "vocab: out of memory");
    return status;
}
