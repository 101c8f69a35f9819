/* The pre-tokeniser: running the steps that pretok_open.c read.
 *
 * Immutable once open; a call brings its own scratch. Works on the text itself: the
 * byte-to-character mapping of ByteLevel is left to the vocabulary, which is stored as bytes. */
#include "text/pretok.h"
#include "base/room.h"

#include <stdlib.h>
#include <string.h>

static mf_status no_memory(mf_error *err)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory while splitting text");
}

static inline bool push(mfi_pieces *pieces, size_t start, size_t end)
{
    if (!MFI_ROOM(pieces->data, pieces->n, pieces->cap, 64))
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
        mfi_found found =
            mfi_regex_find(step->regex, &s->match, piece, len, from, &start, &end, err);
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

/* Appends text with each space as the mark. */
static void put_marked(mfi_buf *out, const mfi_pretok_step *step, const char *text, size_t len)
{
    const char *p = text, *end = text + len, *at;
    while (p < end && (at = memchr(p, ' ', (size_t)(end - p))) != NULL) {
        mfi_buf_append(out, p, (size_t)(at - p));
        mfi_buf_append(out, step->mark, step->mark_len);
        p = at + 1;
    }
    mfi_buf_append(out, p, (size_t)(end - p));
}

/* Writes the pieces anew into scratch->text: a mark for each space, and one in front where the step
 * wants it. */
static mf_status put_marks(const mfi_pretok_step *step, mfi_pretok_scratch *s, const char *text,
                           mf_error *err)
{
    mfi_buf marked = {0};
    for (size_t i = 0; i < s->pieces.n; i++) {
        mfi_piece *piece = &s->pieces.data[i];
        const char *p = text + piece->start;
        bool has_one = *p == ' ' ||
                       (piece->len >= step->mark_len && memcmp(p, step->mark, step->mark_len) == 0);
        size_t start = marked.len;
        if (!has_one && (step->prefix == MFI_PREFIX_ALWAYS ||
                         (step->prefix == MFI_PREFIX_FIRST && s->at_start && piece->start == 0)))
            mfi_buf_append(&marked, step->mark, step->mark_len);
        put_marked(&marked, step, p, piece->len);
        *piece = (mfi_piece){(uint32_t)start, (uint32_t)(marked.len - start)};
        if (marked.len > MFI_MAX_TEXT_BYTES)
            break;
    }
    mfi_buf_free(&s->text);
    s->text = marked;
    if (marked.len > MFI_MAX_TEXT_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "text grows too long when split");
    return marked.failed ? no_memory(err) : MF_OK;
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
        if (step->mark_len && scratch->pieces.n) {
            status = put_marks(step, scratch, text, &inner);
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
