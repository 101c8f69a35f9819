/* The precompiled character map of SentencePiece's normaliser.
 *
 * The blob: u32 length of the trie, the trie (a Darts-clone double array of u32 units), then
 * NUL-terminated replacements; a leaf's value is an offset into them. A unit holds a label (low 8
 * bits, or bit 31 in a leaf), whether it has a leaf (bit 8), and an offset (bits 10 to 30, times
 * 256 if bit 9 is set). Everything in it is foreign: each step is held to the array. Opened with
 * its normaliser, only read afterwards, by any thread. */
#include "text/charsmap.h"
#include "base/limits.h"
#include "base/utf8.h"
#include "text/base64.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define GRAPHEME_BYTES 6 /* Hugging Face looks up clusters shorter than that as a whole */

struct mfi_charsmap {
    uint32_t *units;
    size_t n_units;
    char *pool; /* [n_pool], ends with a NUL */
    size_t n_pool;
    bool by_grapheme;
};

mf_status mfi_charsmap_open(mfi_charsmap **map, const void *blob, size_t len, bool by_grapheme,
                            mf_error *err)
{
    const unsigned char *p = blob;
    if (len < 4)
        return mfi_fail(err, MF_ERR_FORMAT, "character map: %zu bytes", len);
    size_t n_trie = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
    if (n_trie % 4 || n_trie < 4 || n_trie > len - 4)
        return mfi_fail(err, MF_ERR_FORMAT, "character map: a trie of %zu bytes in %zu", n_trie,
                        len);
    mfi_charsmap *m = calloc(1, sizeof *m);
    if (!m)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "character map: out of memory");
    m->n_units = n_trie / 4;
    m->n_pool = len - 4 - n_trie + 1;
    m->by_grapheme = by_grapheme;
    m->units = malloc(n_trie);
    m->pool = malloc(m->n_pool);
    if (!m->units || !m->pool) {
        mfi_charsmap_close(&m);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "character map: out of memory");
    }
    for (size_t i = 0; i < m->n_units; i++, p += 4)
        m->units[i] = p[4] | (uint32_t)p[5] << 8 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 24;
    memcpy(m->pool, p + 4, m->n_pool - 1);
    m->pool[m->n_pool - 1] = 0;
    *map = m;
    return MF_OK;
}

mf_status mfi_charsmap_open_base64(mfi_charsmap **map, const char *text, size_t len, mf_error *err)
{
    mfi_buf blob = {0};
    mf_status status = MF_OK;
    if (!mfi_base64_decode(text, len, &blob))
        status = mfi_fail(err, MF_ERR_FORMAT, "character map: not base64");
    else if (blob.failed)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "character map: out of memory");
    else
        status = mfi_charsmap_open(map, blob.data, blob.len, true, err);
    mfi_buf_free(&blob);
    return status;
}

void mfi_charsmap_close(mfi_charsmap **map)
{
    if (!*map)
        return;
    free((*map)->units);
    free((*map)->pool);
    free(*map);
    *map = NULL;
}

uint64_t mfi_charsmap_bytes(const mfi_charsmap *map)
{
    return sizeof *map + map->n_units * sizeof *map->units + map->n_pool;
}

static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* The replacement of the shortest or longest key that `text` begins with, and the key's length;
 * NULL if there is none. */
static const char *look_up(const mfi_charsmap *m, const char *text, size_t len, bool longest,
                           size_t *key_len)
{
    const char *found = NULL;
    size_t node = offset_of(m->units[0]);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        node ^= c;
        if (!c || node >= m->n_units)
            break;
        uint32_t unit = m->units[node];
        if ((unit & (1u << 31 | 0xff)) != c)
            break;
        node ^= offset_of(unit);
        if (!(unit >> 8 & 1))
            continue;
        if (node >= m->n_units)
            break;
        size_t at = m->units[node] & 0x7fffffff;
        if (at >= m->n_pool)
            break;
        found = m->pool + at;
        *key_len = i + 1;
        if (!longest)
            break;
    }
    return found;
}

static mf_status put(const char *replacement, mfi_buf *out, mf_error *err)
{
    size_t len = strlen(replacement);
    if (mfi_utf8_check(replacement, len) < len)
        return mfi_fail(err, MF_ERR_FORMAT, "character map: a replacement is not UTF-8");
    if (out->len + len > MFI_MAX_TEXT_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "text grows too long when normalised");
    mfi_buf_append(out, replacement, len);
    return MF_OK;
}

static mf_status put_cluster(const mfi_charsmap *m, const char *text, size_t len, mfi_buf *out,
                             mf_error *err)
{
    size_t key;
    const char *found = len < GRAPHEME_BYTES ? look_up(m, text, len, false, &key) : NULL;
    if (found)
        return put(found, out, err);
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t n = mfi_utf8_decode(text + i, text + len, &cp);
        found = look_up(m, text + i, n, false, &key);
        if (found)
            MFI_TRY(put(found, out, err));
        else
            mfi_buf_append(out, text + i, n);
        i += n;
    }
    return MF_OK;
}

static mf_status put_by_grapheme(const mfi_charsmap *m, const char *text, size_t len, mfi_buf *out,
                                 mf_error *err)
{
    utf8proc_int32_t state = 0;
    uint32_t last, cp;
    size_t start = 0, i = len ? mfi_utf8_decode(text, text + len, &last) : 0;
    while (i < len) {
        size_t n = mfi_utf8_decode(text + i, text + len, &cp);
        if (utf8proc_grapheme_break_stateful((int32_t)last, (int32_t)cp, &state)) {
            MFI_TRY(put_cluster(m, text + start, i - start, out, err));
            start = i;
        }
        last = cp;
        i += n;
    }
    return put_cluster(m, text + start, len - start, out, err);
}

static mf_status put_longest(const mfi_charsmap *m, const char *text, size_t len, mfi_buf *out,
                             mf_error *err)
{
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t n = mfi_utf8_decode(text + i, text + len, &cp), key = 0;
        const char *found = look_up(m, text + i, len - i, true, &key);
        if (found) {
            MFI_TRY(put(found, out, err));
            n = key;
            while (i + n < len && ((unsigned char)text[i + n] & 0xc0) == 0x80)
                n++; /* a key that ends inside a character is nobody's intention */
        } else {
            mfi_buf_append(out, text + i, n);
        }
        i += n;
    }
    return MF_OK;
}

mf_status mfi_charsmap_put(const mfi_charsmap *map, const char *text, size_t len, mfi_buf *out,
                           mf_error *err)
{
    if (map->by_grapheme)
        return put_by_grapheme(map, text, len, out, err);
    return put_longest(map, text, len, out, err);
}
