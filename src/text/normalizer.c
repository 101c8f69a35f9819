/* The normaliser: the steps of tokenizer.json, read and run in order.
 *
 * Opened with its tokenizer, immutable afterwards. Run for each stretch of text between added
 * tokens, on any thread, with the caller's scratch; a step that changes nothing copies nothing. */
#include "text/normalizer.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

/* ---- opening ---- */

static mf_status no_memory(mf_error *err)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "normalizer: out of memory");
}

/* NULL: too many. */
static mfi_norm_step *add_step(mfi_normalizer *normalizer, mfi_norm_kind kind, mf_error *err)
{
    if (normalizer->n_steps == MFI_MAX_NORM_STEPS) {
        mfi_fail(err, MF_ERR_LIMIT, "normalizer: more than %d steps", MFI_MAX_NORM_STEPS);
        return NULL;
    }
    mfi_norm_step *step = &normalizer->steps[normalizer->n_steps++];
    *step = (mfi_norm_step){.kind = kind};
    return step;
}

/* A copy of the string member `key`. */
static mf_status copy_text(mfi_norm_step *step, const mfi_json *node, const char *key,
                           mf_error *err)
{
    const char *text = mfi_json_str(mfi_json_get(node, key), &step->len);
    if (!text)
        return mfi_fail(err, MF_ERR_FORMAT, "normalizer: %s is not a string", key);
    if (step->len > MFI_MAX_PATTERN_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "normalizer: %s is longer than %d bytes", key,
                        MFI_MAX_PATTERN_BYTES);
    step->text = malloc(step->len + 1);
    if (!step->text)
        return no_memory(err);
    memcpy(step->text, text, step->len);
    return MF_OK;
}

static mf_status open_replace(mfi_norm_step *step, const mfi_json *node, mf_error *err)
{
    MFI_TRY(copy_text(step, node, "content", err));
    size_t len;
    const mfi_json *pattern = mfi_json_get(node, "pattern");
    const char *text = mfi_json_str(mfi_json_get(pattern, "Regex"), &len);
    bool literal = !text;
    if (literal)
        text = mfi_json_str(mfi_json_get(pattern, "String"), &len);
    if (!text)
        return mfi_fail(err, MF_ERR_FORMAT, "normalizer: Replace without a pattern");
    if (!len) /* an empty string is found nowhere */
        return MF_OK;
    if (len > MFI_MAX_PATTERN_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "normalizer: pattern longer than %d bytes",
                        MFI_MAX_PATTERN_BYTES);
    if (literal && len == 1)
        step->one = text[0];
    mf_error inner;
    mf_status status = mfi_regex_open(&step->regex, text, len, literal, &inner);
    return status == MF_OK ? MF_OK : mfi_fail(err, status, "normalizer: %s", inner.message);
}

static mf_status open_strip(mfi_norm_step *step, const mfi_json *node, mf_error *err)
{
    step->left = step->right = true;
    if (!mfi_json_bool(mfi_json_get(node, "strip_left"), &step->left) ||
        !mfi_json_bool(mfi_json_get(node, "strip_right"), &step->right))
        return mfi_fail(err, MF_ERR_FORMAT, "normalizer: Strip without its sides");
    return MF_OK;
}

static mf_status open_charsmap(mfi_norm_step *step, const mfi_json *node, mf_error *err)
{
    size_t len;
    const char *text = mfi_json_str(mfi_json_get(node, "precompiled_charsmap"), &len);
    if (!text)
        return mfi_fail(err, MF_ERR_FORMAT, "normalizer: Precompiled without its map");
    return mfi_charsmap_open_base64(&step->charsmap, text, len, err);
}

static mf_status open_node(mfi_normalizer *normalizer, const mfi_json *node, uint32_t depth,
                           mf_error *err);

static mf_status open_sequence(mfi_normalizer *normalizer, const mfi_json *node, uint32_t depth,
                               mf_error *err)
{
    if (depth == 8)
        return mfi_fail(err, MF_ERR_LIMIT, "normalizer: sequences nested too deeply");
    const mfi_json *list = mfi_json_get(node, "normalizers");
    if (mfi_json_typeof(list) != MFI_JSON_ARRAY)
        return mfi_fail(err, MF_ERR_FORMAT, "normalizer: Sequence without normalizers");
    for (size_t i = 0; i < mfi_json_len(list); i++)
        MFI_TRY(open_node(normalizer, mfi_json_at(list, i), depth + 1, err));
    return MF_OK;
}

static mf_status open_node(mfi_normalizer *normalizer, const mfi_json *node, uint32_t depth,
                           mf_error *err)
{
    static const struct {
        const char *type;
        mfi_norm_kind kind;
        mfi_form form;
    } types[] = {
        {"NFC", MFI_NORM_FORM, MFI_FORM_NFC},
        {"NFD", MFI_NORM_FORM, MFI_FORM_NFD},
        {"NFKC", MFI_NORM_FORM, MFI_FORM_NFKC},
        {"NFKD", MFI_NORM_FORM, MFI_FORM_NFKD},
        {"Prepend", MFI_NORM_PREPEND, 0},
        {"Replace", MFI_NORM_REPLACE, 0},
        {"Lowercase", MFI_NORM_LOWERCASE, 0},
        {"Strip", MFI_NORM_STRIP, 0},
        {"StripAccents", MFI_NORM_STRIP_ACCENTS, 0},
        {"Precompiled", MFI_NORM_CHARSMAP, 0},
    };
    const char *type = mfi_json_str(mfi_json_get(node, "type"), NULL);
    if (!type)
        return mfi_fail(err, MF_ERR_FORMAT, "normalizer: no type");
    if (strcmp(type, "Sequence") == 0)
        return open_sequence(normalizer, node, depth, err);
    size_t i = 0;
    while (i < MFI_ARRAY_LEN(types) && strcmp(type, types[i].type) != 0)
        i++;
    if (i == MFI_ARRAY_LEN(types))
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "normalizer: %s", type);
    mfi_norm_step *step = add_step(normalizer, types[i].kind, err);
    if (!step)
        return MF_ERR_LIMIT;
    step->form = types[i].form;
    switch (step->kind) {
    case MFI_NORM_PREPEND:
        return copy_text(step, node, "prepend", err);
    case MFI_NORM_REPLACE:
        return open_replace(step, node, err);
    case MFI_NORM_STRIP:
        return open_strip(step, node, err);
    case MFI_NORM_CHARSMAP:
        return open_charsmap(step, node, err);
    default:
        return MF_OK;
    }
}

mf_status mfi_normalizer_open(mfi_normalizer *normalizer, const mfi_json *node, mf_error *err)
{
    *normalizer = (mfi_normalizer){0};
    if (mfi_json_typeof(node) == MFI_JSON_NULL)
        return MF_OK;
    mf_status status = open_node(normalizer, node, 0, err);
    if (status != MF_OK)
        mfi_normalizer_close(normalizer);
    return status;
}

mf_status mfi_normalizer_add(mfi_normalizer *normalizer, const mfi_json *node, mf_error *err)
{
    return open_node(normalizer, node, 0, err);
}

mf_status mfi_normalizer_add_form(mfi_normalizer *normalizer, mfi_form form, mf_error *err)
{
    mfi_norm_step *step = add_step(normalizer, MFI_NORM_FORM, err);
    if (!step)
        return MF_ERR_LIMIT;
    step->form = form;
    return MF_OK;
}

mf_status mfi_normalizer_add_strip_spaces(mfi_normalizer *normalizer, mf_error *err)
{
    mfi_norm_step *step = add_step(normalizer, MFI_NORM_STRIP, err);
    if (!step)
        return MF_ERR_LIMIT;
    step->left = step->right = step->spaces = true;
    return MF_OK;
}

mf_status mfi_normalizer_add_charsmap(mfi_normalizer *normalizer, const void *blob, size_t len,
                                      bool by_grapheme, mf_error *err)
{
    mfi_norm_step *step = add_step(normalizer, MFI_NORM_CHARSMAP, err);
    if (!step)
        return MF_ERR_LIMIT;
    return mfi_charsmap_open(&step->charsmap, blob, len, by_grapheme, err);
}

void mfi_normalizer_close(mfi_normalizer *normalizer)
{
    for (uint32_t i = 0; i < normalizer->n_steps; i++) {
        mfi_regex_close(&normalizer->steps[i].regex);
        mfi_charsmap_close(&normalizer->steps[i].charsmap);
        free(normalizer->steps[i].text);
    }
    normalizer->n_steps = 0;
}

uint64_t mfi_normalizer_bytes(const mfi_normalizer *normalizer)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < normalizer->n_steps; i++) {
        const mfi_norm_step *step = &normalizer->steps[i];
        bytes += step->text ? step->len + 1 : 0;
        bytes += step->regex ? mfi_regex_bytes(step->regex) : 0;
        bytes += step->charsmap ? mfi_charsmap_bytes(step->charsmap) : 0;
    }
    return bytes;
}

/* ---- running ---- */

static mf_status check_room(const mfi_buf *out, mf_error *err)
{
    if (out->failed)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "normalising text: out of memory");
    if (out->len > MFI_MAX_TEXT_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "text grows too long when normalised");
    return MF_OK;
}

static mf_status replace_one(const mfi_norm_step *step, mfi_norm_scratch *s, const char *text,
                             size_t len, mfi_buf *out, bool *changed, mf_error *err)
{
    const char *p = text, *end = text + len, *at;
    while (p < end && (at = memchr(p, step->one, (size_t)(end - p))) != NULL) {
        *changed = true;
        s->cut_front |= at == text && !step->len;
        mfi_buf_append(out, p, (size_t)(at - p));
        mfi_buf_append(out, step->text, step->len);
        MFI_TRY(check_room(out, err));
        p = at + 1;
    }
    if (*changed)
        mfi_buf_append(out, p, (size_t)(end - p));
    return MF_OK;
}

static mf_status replace(const mfi_norm_step *step, mfi_norm_scratch *s, const char *text,
                         size_t len, mfi_buf *out, bool *changed, mf_error *err)
{
    size_t from = 0, done = 0, start, end, last_end = SIZE_MAX;
    if (!step->regex)
        return MF_OK;
    if (step->one)
        return replace_one(step, s, text, len, out, changed, err);
    while (from <= len) {
        mf_error inner;
        mfi_found found =
            mfi_regex_find(step->regex, &s->match, text, len, from, &start, &end, &inner);
        if (found == MFI_FOUND_ERROR)
            return mfi_fail(err, inner.status, "%s", inner.message);
        if (found == MFI_FOUND_NOTHING)
            break;
        if (start == end && end == last_end) { /* no empty match right behind a match */
            from++;
            while (from < len && ((unsigned char)text[from] & 0xc0) == 0x80)
                from++;
            continue;
        }
        *changed = true;
        s->cut_front |= !start && end && !step->len;
        mfi_buf_append(out, text + done, start - done);
        mfi_buf_append(out, step->text, step->len);
        MFI_TRY(check_room(out, err));
        done = from = last_end = end;
    }
    if (*changed)
        mfi_buf_append(out, text + done, len - done);
    return MF_OK;
}

static void strip_accents(mfi_norm_scratch *s, const char *text, size_t len, mfi_buf *out)
{
    static const uint32_t marks = 1u << MFI_CAT_MN | 1u << MFI_CAT_MC | 1u << MFI_CAT_ME;
    const char *p = text, *end = text + len, *done = text;
    while (p < end) {
        uint32_t cp;
        size_t n = mfi_utf8_decode(p, end, &cp);
        if (marks >> mfi_unicode_category(cp) & 1) {
            s->cut_front |= p == text;
            mfi_buf_append(out, done, (size_t)(p - done));
            done = p + n;
        }
        p += n;
    }
    mfi_buf_append(out, done, (size_t)(end - done));
}

/* Without a copy: only the ends move. */
static void strip(const mfi_norm_step *step, const char **text, size_t *len)
{
    const char *p = *text, *end = p + *len;
    uint32_t cp;
    while (step->left && p < end) {
        size_t n = mfi_utf8_decode(p, end, &cp);
        if (step->spaces ? cp != ' ' : !mfi_unicode_is_space(cp))
            break;
        p += n;
    }
    while (step->right && end > p) {
        size_t n = mfi_utf8_decode_before(p, end, &cp);
        if (step->spaces ? cp != ' ' && cp != 0x2581 : !mfi_unicode_is_space(cp))
            break;
        end -= n;
    }
    *text = p;
    *len = (size_t)(end - p);
}

static mf_status run_step(const mfi_norm_step *step, mfi_norm_scratch *s, const char *text,
                          size_t len, mfi_buf *out, bool *changed, mf_error *err)
{
    switch (step->kind) {
    case MFI_NORM_FORM:
        return mfi_form_put(step->form, text, len, out, changed, err);
    case MFI_NORM_PREPEND:
        mfi_buf_append(out, step->text, step->len);
        mfi_buf_append(out, text, len);
        break;
    case MFI_NORM_REPLACE:
        return replace(step, s, text, len, out, changed, err);
    case MFI_NORM_LOWERCASE:
        mfi_lowercase_put(text, len, out);
        break;
    case MFI_NORM_STRIP_ACCENTS:
        strip_accents(s, text, len, out);
        break;
    case MFI_NORM_CHARSMAP:
        MFI_TRY(mfi_charsmap_put(step->charsmap, text, len, out, err));
        break;
    case MFI_NORM_STRIP:
        return MF_OK;
    }
    *changed = true;
    return MF_OK;
}

mf_status mfi_normalizer_run(const mfi_normalizer *normalizer, const char *text, size_t len,
                             mfi_norm_scratch *scratch, const char **out, size_t *out_len,
                             mf_error *err)
{
    return mfi_normalizer_run_part(normalizer, text, len, true, scratch, out, out_len, err);
}

mf_status mfi_normalizer_run_part(const mfi_normalizer *normalizer, const char *text, size_t len,
                                  bool is_first, mfi_norm_scratch *scratch, const char **out,
                                  size_t *out_len, mf_error *err)
{
    uint32_t free_buf = 0;
    scratch->cut_front = false;
    for (uint32_t i = 0; i < normalizer->n_steps && len; i++) {
        const mfi_norm_step *step = &normalizer->steps[i];
        if (step->kind == MFI_NORM_STRIP) {
            const char *before = text;
            strip(step, &text, &len);
            scratch->cut_front |= text > before && !step->spaces;
            continue;
        }
        if (step->kind == MFI_NORM_PREPEND && !is_first)
            continue;
        mfi_buf *to = &scratch->text[free_buf];
        bool changed = false;
        to->len = 0;
        mfi_buf_append(to, "", 0);
        MFI_TRY(run_step(step, scratch, text, len, to, &changed, err));
        MFI_TRY(check_room(to, err));
        if (!changed)
            continue;
        text = to->data;
        len = to->len;
        free_buf = !free_buf;
    }
    *out = text;
    *out_len = len;
    return MF_OK;
}

void mfi_norm_scratch_free(mfi_norm_scratch *scratch)
{
    mfi_buf_free(&scratch->text[0]);
    mfi_buf_free(&scratch->text[1]);
    mfi_regex_match_free(&scratch->match);
}
