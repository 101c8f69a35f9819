/* The pre-tokeniser: the steps of tokenizer.json (Split, ByteLevel, Digits, Sequence) and running
 * them.
 *
 * Opened with its tokenizer, immutable afterwards; a call brings its own scratch. Works on the text
 * itself: the byte-to-character mapping of ByteLevel is left to the vocabulary, which is stored as
 * bytes. */
#include "text/pretok.h"

#include <stdlib.h>
#include <string.h>

/* What ByteLevel splits by (GPT-2). */
static const char byte_level_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- opening ---- */

/* NULL: too many. */
static mfi_pretok_step *add_step(mfi_pretok *pretok, mf_error *err)
{
    if (pretok->n_steps == MFI_MAX_PRETOK_STEPS) {
        mfi_fail(err, MF_ERR_LIMIT, "pre_tokenizer: more than %d steps", MFI_MAX_PRETOK_STEPS);
        return NULL;
    }
    return &pretok->steps[pretok->n_steps++];
}

static mf_status open_regex(mfi_pretok_step *step, const char *pattern, size_t len, bool literal,
                            mf_error *err)
{
    mf_error inner;
    mf_status status = mfi_regex_open(&step->regex, pattern, len, literal, &inner);
    if (status != MF_OK)
        return mfi_fail(err, status, "pre_tokenizer: %s", inner.message);
    return MF_OK;
}

static mf_status read_behavior(const mfi_json *node, mfi_split_behavior *behavior, mf_error *err)
{
    static const char *const names[] = {
        [MFI_SPLIT_ISOLATED] = "Isolated",
        [MFI_SPLIT_REMOVED] = "Removed",
        [MFI_SPLIT_CONTIGUOUS] = "Contiguous",
        [MFI_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [MFI_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
    };
    const char *name = mfi_json_str(mfi_json_get(node, "behavior"), NULL);
    for (size_t i = 0; name && i < MFI_ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *behavior = (mfi_split_behavior)i;
            return MF_OK;
        }
    }
    return mfi_fail(err, name ? MF_ERR_UNSUPPORTED : MF_ERR_FORMAT,
                    "pre_tokenizer: Split behavior %s", name ? name : "missing");
}

/* A boolean member; `absent` where there is none. */
static mf_status read_bool(const mfi_json *node, const char *key, bool absent, bool *out,
                           mf_error *err)
{
    *out = absent;
    if (mfi_json_has(node, key) && !mfi_json_bool(mfi_json_get(node, key), out))
        return mfi_fail(err, MF_ERR_FORMAT, "pre_tokenizer: %s is not a boolean", key);
    return MF_OK;
}

static mf_status open_split(mfi_pretok *pretok, const mfi_json *node, mf_error *err)
{
    mfi_pretok_step *step = add_step(pretok, err);
    if (!step)
        return MF_ERR_LIMIT;
    MFI_TRY(read_behavior(node, &step->behavior, err));
    MFI_TRY(read_bool(node, "invert", false, &step->invert, err));
    const mfi_json *pattern = mfi_json_get(node, "pattern");
    size_t len;
    const char *text = mfi_json_str(mfi_json_get(pattern, "Regex"), &len);
    bool literal = !text;
    if (literal)
        text = mfi_json_str(mfi_json_get(pattern, "String"), &len);
    if (!text || !len)
        return mfi_fail(err, MF_ERR_FORMAT, "pre_tokenizer: Split without a pattern");
    if (literal && len > MFI_MAX_PATTERN_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "pre_tokenizer: pattern longer than %d bytes",
                        MFI_MAX_PATTERN_BYTES);
    return open_regex(step, text, len, literal, err);
}

static mf_status open_byte_level(mfi_pretok *pretok, const mfi_json *node, mf_error *err)
{
    bool use_regex;
    mfi_pretok_step *step = add_step(pretok, err);
    if (!step)
        return MF_ERR_LIMIT;
    MFI_TRY(read_bool(node, "add_prefix_space", true, &step->prefix_space, err));
    MFI_TRY(read_bool(node, "use_regex", true, &use_regex, err));
    pretok->byte_level = true;
    if (!use_regex)
        return MF_OK;
    return open_regex(step, byte_level_pattern, sizeof byte_level_pattern - 1, false, err);
}

static mf_status open_digits(mfi_pretok *pretok, const mfi_json *node, mf_error *err)
{
    bool individual;
    mfi_pretok_step *step = add_step(pretok, err);
    if (!step)
        return MF_ERR_LIMIT;
    MFI_TRY(read_bool(node, "individual_digits", false, &individual, err));
    step->behavior = individual ? MFI_SPLIT_ISOLATED : MFI_SPLIT_CONTIGUOUS;
    return open_regex(step, "\\p{N}", 5, false, err);
}

static mf_status open_node(mfi_pretok *pretok, const mfi_json *node, uint32_t depth, mf_error *err)
{
    const char *type = mfi_json_str(mfi_json_get(node, "type"), NULL);
    if (!type)
        return mfi_fail(err, MF_ERR_FORMAT, "pre_tokenizer: no type");
    if (pretok->byte_level)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "pre_tokenizer: %s behind ByteLevel", type);
    if (strcmp(type, "Split") == 0)
        return open_split(pretok, node, err);
    if (strcmp(type, "ByteLevel") == 0)
        return open_byte_level(pretok, node, err);
    if (strcmp(type, "Digits") == 0)
        return open_digits(pretok, node, err);
    if (strcmp(type, "Sequence") != 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "pre_tokenizer: %s", type);
    if (depth == 8)
        return mfi_fail(err, MF_ERR_LIMIT, "pre_tokenizer: sequences nested too deeply");
    const mfi_json *list = mfi_json_get(node, "pretokenizers");
    if (mfi_json_typeof(list) != MFI_JSON_ARRAY)
        return mfi_fail(err, MF_ERR_FORMAT, "pre_tokenizer: Sequence without pretokenizers");
    for (size_t i = 0; i < mfi_json_len(list); i++)
        MFI_TRY(open_node(pretok, mfi_json_at(list, i), depth + 1, err));
    return MF_OK;
}

mf_status mfi_pretok_open(mfi_pretok *pretok, const mfi_json *node, mf_error *err)
{
    *pretok = (mfi_pretok){0};
    if (mfi_json_typeof(node) == MFI_JSON_NULL)
        return MF_OK;
    mf_status status = open_node(pretok, node, 0, err);
    if (status != MF_OK)
        mfi_pretok_close(pretok);
    return status;
}

void mfi_pretok_close(mfi_pretok *pretok)
{
    for (uint32_t i = 0; i < pretok->n_steps; i++)
        mfi_regex_close(&pretok->steps[i].regex);
    pretok->n_steps = 0;
}

uint64_t mfi_pretok_bytes(const mfi_pretok *pretok)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < pretok->n_steps; i++)
        if (pretok->steps[i].regex)
            bytes += mfi_regex_bytes(pretok->steps[i].regex);
    return bytes;
}

/* ---- running ---- */

static mf_status no_memory(mf_error *err)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while splitting text");
}

static bool grow(mfi_pieces *pieces)
{
    size_t cap = pieces->cap ? pieces->cap * 2 : 64;
    mfi_piece *data = realloc(pieces->data, cap * sizeof *data);
    if (!data)
        return false;
    pieces->data = data;
    pieces->cap = cap;
    return true;
}

static inline bool push(mfi_pieces *pieces, size_t start, size_t end)
{
    if (pieces->n == pieces->cap && !grow(pieces))
        return false;
    pieces->data[pieces->n++] = (mfi_piece){(uint32_t)start, (uint32_t)(end - start)};
    return true;
}

static bool push_cut(mfi_pretok_scratch *s, size_t start, size_t end, bool is_match)
{
    if (!push(&s->cuts, start, end))
        return false;
    if (s->cuts.cap != s->cut_cap) {
        bool *flags = realloc(s->cut_is_match, s->cuts.cap * sizeof *flags);
        if (!flags)
            return false;
        s->cut_is_match = flags;
        s->cut_cap = s->cuts.cap;
    }
    s->cut_is_match[s->cuts.n - 1] = is_match;
    return true;
}

/* Cuts text[0..len) into matches and what lies between, in order; empty matches count. `isolated`
 * goes straight to `next` without the empty ones. */
static mf_status cut(const mfi_pretok_step *step, mfi_pretok_scratch *s, const char *text,
                     size_t base, size_t len, bool isolated, mf_error *err)
{
    const char *piece = text + base;
    size_t from = 0, done = 0, last_end = SIZE_MAX;
    while (from <= len) {
        size_t start, end;
        mfi_found found = mfi_regex_find(step->regex, &s->match, piece, len, from, &start, &end, err);
        if (found == MFI_FOUND_ERROR)
            return err ? err->status : MF_ERR_LIMIT;
        if (found == MFI_FOUND_NOTHING)
            break;
        if (start == end && end == last_end) { /* no empty match right behind a match */
            from++;
            while (from < len && ((unsigned char)piece[from] & 0xc0) == 0x80)
                from++;
            continue;
        }
        bool ok = true;
        if (isolated) {
            if (start > done)
                ok = push(&s->next, base + done, base + start);
            if (ok && end > start)
                ok = push(&s->next, base + start, base + end);
        } else {
            if (start > done)
                ok = push_cut(s, base + done, base + start, step->invert);
            ok = ok && push_cut(s, base + start, base + end, !step->invert);
        }
        if (!ok)
            return no_memory(err);
        done = from = last_end = end;
    }
    if (done < len && !(isolated ? push(&s->next, base + done, base + len)
                                 : push_cut(s, base + done, base + len, step->invert)))
        return no_memory(err);
    return MF_OK;
}

/* Joins the cuts by the step's behaviour, in place: cuts that are joined away, removed or empty end
 * with length 0. */
static void join_cuts(const mfi_pretok_step *step, mfi_pretok_scratch *s)
{
    mfi_piece *cuts = s->cuts.data;
    const bool *is_match = s->cut_is_match;
    size_t n = s->cuts.n;
    bool previous = false;
    for (size_t k = 0; k < n; k++) {
        size_t i = step->behavior == MFI_SPLIT_MERGED_WITH_NEXT ? n - 1 - k : k;
        bool match = is_match[i];
        bool join = false;
        if (step->behavior == MFI_SPLIT_REMOVED && match)
            cuts[i].len = 0;
        else if (step->behavior == MFI_SPLIT_CONTIGUOUS)
            join = k && match == previous;
        else if (step->behavior == MFI_SPLIT_MERGED_WITH_PREVIOUS ||
                 step->behavior == MFI_SPLIT_MERGED_WITH_NEXT)
            join = k && match && !previous;
        previous = match;
        if (!join)
            continue;
        if (step->behavior == MFI_SPLIT_MERGED_WITH_NEXT) {
            cuts[i].len += cuts[i + 1].len;
            cuts[i + 1].len = 0;
        } else {
            cuts[i] = (mfi_piece){cuts[i - 1].start, cuts[i - 1].len + cuts[i].len};
            cuts[i - 1].len = 0;
        }
    }
}

static mf_status split(const mfi_pretok_step *step, mfi_pretok_scratch *s, const char *text,
                       mf_error *err)
{
    bool isolated = step->behavior == MFI_SPLIT_ISOLATED;
    s->next.n = 0;
    for (size_t i = 0; i < s->pieces.n; i++) {
        mfi_piece piece = s->pieces.data[i];
        s->cuts.n = 0;
        MFI_TRY(cut(step, s, text, piece.start, piece.len, isolated, err));
        if (isolated)
            continue;
        join_cuts(step, s);
        for (size_t k = 0; k < s->cuts.n; k++) {
            mfi_piece c = s->cuts.data[k];
            if (c.len && !push(&s->next, c.start, (size_t)c.start + c.len))
                return no_memory(err);
        }
    }
    mfi_pieces old = s->pieces;
    s->pieces = s->next;
    s->next = old;
    return MF_OK;
}

/* Writes the pieces anew into scratch->text, each with a space in front. */
static mf_status put_spaces(mfi_pretok_scratch *s, const char *text, mf_error *err)
{
    mfi_buf spaced = {0};
    for (size_t i = 0; i < s->pieces.n; i++) {
        mfi_piece *piece = &s->pieces.data[i];
        size_t start = spaced.len;
        if (text[piece->start] != ' ')
            mfi_buf_append(&spaced, " ", 1);
        mfi_buf_append(&spaced, text + piece->start, piece->len);
        *piece = (mfi_piece){(uint32_t)start, (uint32_t)(spaced.len - start)};
    }
    mfi_buf_free(&s->text);
    s->text = spaced;
    return spaced.failed ? no_memory(err) : MF_OK;
}

mf_status mfi_pretok_run(const mfi_pretok *pretok, mfi_pretok_scratch *scratch, const char *text,
                         size_t len, const char **out, mf_error *err)
{
    mf_error inner; /* so that the status of a failed match is known */
    scratch->pieces.n = 0;
    if (len && !push(&scratch->pieces, 0, len))
        return no_memory(err);
    for (uint32_t i = 0; i < pretok->n_steps; i++) {
        const mfi_pretok_step *step = &pretok->steps[i];
        mf_status status = MF_OK;
        if (step->prefix_space) {
            status = put_spaces(scratch, text, &inner);
            text = scratch->text.data;
        }
        if (status == MF_OK && step->regex)
            status = split(step, scratch, text, &inner);
        if (status != MF_OK)
            return mfi_fail(err, status, "%s", inner.message);
    }
    *out = text;
    return MF_OK;
}

void mfi_pretok_scratch_free(mfi_pretok_scratch *scratch)
{
    mfi_regex_match_free(&scratch->match);
    free(scratch->pieces.data);
    free(scratch->next.data);
    free(scratch->cuts.data);
    free(scratch->cut_is_match);
    mfi_buf_free(&scratch->text);
    *scratch = (mfi_pretok_scratch){0};
}
