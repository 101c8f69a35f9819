/* JSON: json-c behind a strict gate.
 *
 * mfi_json_scan refuses what json-c lets through even in its strict mode: NaN and infinities, `1.`,
 * `01`, integers outside int64/uint64, raw control characters, bad UTF-8, lone surrogates, \u0000
 * in keys, duplicate keys, depth over MFI_MAX_JSON_DEPTH, trailing bytes. Text that passed it can
 * be read in two ways:
 *   - as a tree (mfi_json_parse), for small documents;
 *   - as a cursor over the text (mfi_json_object_next, mfi_json_array_next), for documents of many
 *     megabytes whose tree would cost ten times their size. Each value is a span of the text that
 *     can be iterated further, or decoded by json-c one value at a time.
 * Errors name `what` (a path) and the byte offset.
 */
#ifndef MFI_BASE_JSON_H
#define MFI_BASE_JSON_H

#include "base/buf.h"
#include "base/status.h"

typedef enum mfi_json_type {
    MFI_JSON_NULL,
    MFI_JSON_BOOL,
    MFI_JSON_INT,
    MFI_JSON_FLOAT,
    MFI_JSON_STRING,
    MFI_JSON_ARRAY,
    MFI_JSON_OBJECT
} mfi_json_type;

mf_status mfi_json_scan(const char *text, size_t len, const char *what, mf_error *err);

/* The same, but integers may have any size: tokenizer configurations write "no limit" as 10^30. A
 * cursor doesn't take such a number for an integer that it can read. */
mf_status mfi_json_scan_any_int(const char *text, size_t len, const char *what, mf_error *err);

/* ---- tree ---- */

typedef struct mfi_json mfi_json; /* a json-c object; children live as long as their root */

/* Scans and parses. Release the root with mfi_json_free. */
mf_status mfi_json_parse(const char *text, size_t len, const char *what, mfi_json **root,
                         mf_error *err);
/* Reads the file (at most max_bytes) and parses it. */
mf_status mfi_json_parse_file(const char *path, uint64_t max_bytes, mfi_json **root, mf_error *err);
void mfi_json_free(mfi_json **root);

/* All accept NULL (as JSON null), so that look-ups chain. */
mfi_json_type mfi_json_typeof(const mfi_json *v);
const mfi_json *mfi_json_get(const mfi_json *object, const char *key); /* NULL if absent */
bool mfi_json_has(const mfi_json *object, const char *key);            /* present, maybe null */
size_t mfi_json_len(const mfi_json *v); /* members of an object or array, else 0 */
const mfi_json *mfi_json_at(const mfi_json *array, size_t i);
/* Member i of an object in file order; *key is NUL-terminated and may be NULL-ed. */
const mfi_json *mfi_json_member(const mfi_json *object, size_t i, const char **key);
const char *mfi_json_str(const mfi_json *v,
                         size_t *len);              /* NULL if not a string; len may be NULL */
bool mfi_json_i64(const mfi_json *v, int64_t *out); /* integers only; false if not one in range */
bool mfi_json_f64(const mfi_json *v, double *out);  /* integers and floats */
bool mfi_json_bool(const mfi_json *v, bool *out);

/* ---- cursor over scanned text ---- */

typedef struct mfi_json_span { /* exactly one value, without white space around it */
    const char *text;
    size_t len;
} mfi_json_span;

typedef struct mfi_json_iter {
    const char *p, *end;
} mfi_json_iter;

mfi_json_span mfi_json_root(const char *text, size_t len);
mfi_json_type mfi_json_span_type(mfi_json_span v);
/* v must be an object / array. */
mfi_json_iter mfi_json_span_iter(mfi_json_span v);
/* False at the end. *key is the string with its quotes. */
bool mfi_json_object_next(mfi_json_iter *it, mfi_json_span *key, mfi_json_span *value);
bool mfi_json_array_next(mfi_json_iter *it, mfi_json_span *value);
/* Looks a key (without escapes) up in an object; .text is NULL if absent. */
mfi_json_span mfi_json_span_get(mfi_json_span object, const char *key);
/* True if v is a string equal to `str`. */
bool mfi_json_span_is(mfi_json_span v, const char *str);
bool mfi_json_span_i64(mfi_json_span v, int64_t *out);
/* Appends the decoded string; false if v is not a string. */
bool mfi_json_span_str(mfi_json_span v, mfi_buf *out);
/* Parses one span into a tree (no second scan). */
mf_status mfi_json_span_parse(mfi_json_span v, mfi_json **root, mf_error *err);

/* ---- writing ---- */

/* Appends a quoted string: escapes `"`, `\`, controls; other bytes as they are (the caller has
 * valid UTF-8). */
void mfi_json_put_str(mfi_buf *out, const char *str, size_t len);
/* Shortest decimal that reads back to the same double; null if not finite. */
void mfi_json_put_f64(mfi_buf *out, double v);
/* Appends a tree's value on one line, members in their order. */
void mfi_json_put(mfi_buf *out, const mfi_json *v);

#endif
