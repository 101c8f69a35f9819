/* JSON trees over json-c, and writing of JSON text. Trees are built at open and per request, on any
 * thread, and not changed afterwards, so that any thread may read them. json-c sees only text that
 * mfi_json_scan let through. */
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json_text.h"
#include "base/limits.h"

/* mfi_json is never defined: a pointer to it is a pointer to json-c's object. */
static json_object *to_c(const mfi_json *v)
{
    return (json_object *)(uintptr_t)v; /* json-c's getters take no const */
}

static mfi_json *from_c(json_object *v)
{
    return (mfi_json *)v;
}

/* json-c keeps the members of an object as a linked list. To reach member i at once, every object
 * gets an array of its entries, made when the tree is, so that readers never write. */
static void free_members(json_object *object, void *members)
{
    (void)object;
    free(members);
}

static bool index_members(json_object *v)
{
    if (json_object_is_type(v, json_type_array)) {
        size_t n = json_object_array_length(v);
        for (size_t i = 0; i < n; i++) {
            if (!index_members(json_object_array_get_idx(v, i)))
                return false;
        }
        return true;
    }
    int n = json_object_is_type(v, json_type_object) ? json_object_object_length(v) : 0;
    if (n == 0)
        return true;
    struct lh_entry **members = malloc((size_t)n * sizeof *members);
    if (!members)
        return false;
    size_t i = 0;
    struct lh_entry *entry;
    lh_foreach(json_object_get_object(v), entry) members[i++] = entry;
    json_object_set_userdata(v, members, free_members);
    for (i = 0; i < (size_t)n; i++) {
        if (!index_members(lh_entry_v(members[i])))
            return false;
    }
    return true;
}

/* json-c (0.16) takes an escaped pair of surrogates for U+1D800..U+1DFFF, U+2D800.. and so on
 * (those with a surrogate's low 16 bits) for a surrogate again, and loses it. So it gets pairs as
 * plain UTF-8. Appends nothing if the text has no pairs. */
static void unescape_pairs(const char *text, size_t len, mfi_buf *out)
{
    const char *end = text + len, *done = text;
    for (const char *p = text; (p = memchr(p, '\\', (size_t)(end - p))) != NULL;) {
        const char *after = p;
        char bytes[4];
        size_t n = mfi_json_unescape(&after, bytes);
        if (after - p == 12) {
            mfi_buf_append(out, done, (size_t)(p - done));
            mfi_buf_append(out, bytes, n);
            done = after;
        }
        p = after;
    }
    if (done > text)
        mfi_buf_append(out, done, (size_t)(end - done));
}

static mf_status parse_scanned(const char *text, size_t len, const char *what, mfi_json **root,
                               mf_error *err)
{
    *root = NULL;
    mfi_buf plain = {0};
    unescape_pairs(text, len, &plain);
    if (plain.len > 0) {
        text = plain.data;
        len = plain.len;
    }
    /* json-c counts the root's level, too. */
    json_tokener *tok = plain.failed ? NULL : json_tokener_new_ex(MFI_MAX_JSON_DEPTH + 1);
    if (!tok) {
        mfi_buf_free(&plain);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory to parse it", what);
    }
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT);
    json_object *v = json_tokener_parse_ex(tok, text, (int)len);
    if (json_tokener_get_error(tok) == json_tokener_continue)
        v = json_tokener_parse_ex(tok, "", 1); /* a NUL ends a number at the root */
    enum json_tokener_error problem = json_tokener_get_error(tok);
    json_tokener_free(tok);
    mfi_buf_free(&plain);
    if (problem != json_tokener_success) {
        json_object_put(v);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: can't build its tree: %s", what,
                        json_tokener_error_desc(problem));
    }
    if (!index_members(v)) {
        json_object_put(v);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for its tree", what);
    }
    *root = from_c(v);
    return MF_OK;
}

mf_status mfi_json_parse(const char *text, size_t len, const char *what, mfi_json **root,
                         mf_error *err)
{
    *root = NULL;
    MFI_TRY(mfi_json_scan(text, len, what, err));
    return parse_scanned(text, len, what, root, err);
}

mf_status mfi_json_span_parse(mfi_json_span v, mfi_json **root, mf_error *err)
{
    return parse_scanned(v.text, v.len, "JSON", root, err);
}

static mf_status fail_errno(mf_error *err, const char *path, const char *verb)
{
    int e = errno;
    mf_status status = e == ENOENT || e == ENOTDIR ? MF_ERR_FILE_MISSING : MF_ERR_IO;
    return mfi_fail(err, status, "%s: can't %s: %s", path, verb, strerror(e));
}

static mf_status read_whole(int fd, const char *path, uint64_t max_bytes, mfi_buf *text,
                            mf_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return fail_errno(err, path, "stat");
    if (!S_ISREG(st.st_mode))
        return mfi_fail(err, MF_ERR_FORMAT, "%s: not a regular file", path);
    if ((uint64_t)st.st_size > max_bytes)
        return mfi_fail(err, MF_ERR_LIMIT,
                        "%s: %" PRIu64 " bytes; at most %" PRIu64 " are accepted", path,
                        (uint64_t)st.st_size, max_bytes);
    size_t size = (size_t)st.st_size;
    char *data = malloc(size + 1);
    if (!data)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for %zu bytes", path, size);
    *text = (mfi_buf){.data = data, .cap = size + 1};
    while (text->len < size) {
        ssize_t n = read(fd, data + text->len, size - text->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(err, path, "read");
        if (n == 0)
            return mfi_fail(err, MF_ERR_FILE_TRUNCATED, "%s: ends at offset %zu instead of %zu",
                            path, text->len, size);
        text->len += (size_t)n;
    }
    return MF_OK;
}

/* base knows no os/file.h, hence the system calls. */
mf_status mfi_json_parse_file(const char *path, uint64_t max_bytes, mfi_json **root, mf_error *err)
{
    *root = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    if (fd < 0)
        return fail_errno(err, path, "open");
    mfi_buf text = {0};
    mf_status status = read_whole(fd, path, max_bytes, &text, err);
#ifdef POSIX_FADV_DONTNEED
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* the page cache isn't ours to fill */
#endif
    close(fd);
    if (status == MF_OK)
        status = mfi_json_parse(text.data, text.len, path, root, err);
    mfi_buf_free(&text);
    return status;
}

void mfi_json_free(mfi_json **root)
{
    json_object_put(to_c(*root));
    *root = NULL;
}

mfi_json_type mfi_json_typeof(const mfi_json *v)
{
    switch (json_object_get_type(to_c(v))) {
    case json_type_null:
        return MFI_JSON_NULL;
    case json_type_boolean:
        return MFI_JSON_BOOL;
    case json_type_int:
        return MFI_JSON_INT;
    case json_type_double:
        return MFI_JSON_FLOAT;
    case json_type_string:
        return MFI_JSON_STRING;
    case json_type_array:
        return MFI_JSON_ARRAY;
    case json_type_object:
        return MFI_JSON_OBJECT;
    }
    return MFI_JSON_NULL;
}

const mfi_json *mfi_json_get(const mfi_json *object, const char *key)
{
    json_object *value = NULL;
    if (mfi_json_typeof(object) == MFI_JSON_OBJECT)
        json_object_object_get_ex(to_c(object), key, &value);
    return from_c(value);
}

bool mfi_json_has(const mfi_json *object, const char *key)
{
    return mfi_json_typeof(object) == MFI_JSON_OBJECT &&
           json_object_object_get_ex(to_c(object), key, NULL);
}

size_t mfi_json_len(const mfi_json *v)
{
    if (mfi_json_typeof(v) == MFI_JSON_ARRAY)
        return json_object_array_length(to_c(v));
    if (mfi_json_typeof(v) == MFI_JSON_OBJECT)
        return (size_t)json_object_object_length(to_c(v));
    return 0;
}

const mfi_json *mfi_json_at(const mfi_json *array, size_t i)
{
    if (mfi_json_typeof(array) != MFI_JSON_ARRAY || i >= mfi_json_len(array))
        return NULL;
    return from_c(json_object_array_get_idx(to_c(array), i));
}

const mfi_json *mfi_json_member(const mfi_json *object, size_t i, const char **key)
{
    if (key)
        *key = NULL;
    if (mfi_json_typeof(object) != MFI_JSON_OBJECT || i >= mfi_json_len(object))
        return NULL;
    struct lh_entry *const *members = json_object_get_userdata(to_c(object));
    if (key)
        *key = lh_entry_k(members[i]);
    return from_c(lh_entry_v(members[i]));
}

const char *mfi_json_str(const mfi_json *v, size_t *len)
{
    bool is_str = mfi_json_typeof(v) == MFI_JSON_STRING;
    if (len)
        *len = is_str ? (size_t)json_object_get_string_len(to_c(v)) : 0;
    return is_str ? json_object_get_string(to_c(v)) : NULL;
}

bool mfi_json_i64(const mfi_json *v, int64_t *out)
{
    if (mfi_json_typeof(v) != MFI_JSON_INT)
        return false;
    int64_t i = json_object_get_int64(to_c(v)); /* clamps */
    if (i == INT64_MAX && json_object_get_uint64(to_c(v)) != (uint64_t)INT64_MAX)
        return false;
    *out = i;
    return true;
}

bool mfi_json_f64(const mfi_json *v, double *out)
{
    mfi_json_type type = mfi_json_typeof(v);
    if (type != MFI_JSON_INT && type != MFI_JSON_FLOAT)
        return false;
    *out = json_object_get_double(to_c(v));
    return true;
}

bool mfi_json_bool(const mfi_json *v, bool *out)
{
    if (mfi_json_typeof(v) != MFI_JSON_BOOL)
        return false;
    *out = json_object_get_boolean(to_c(v));
    return true;
}

void mfi_json_put_str(mfi_buf *out, const char *str, size_t len)
{
    mfi_buf_append(out, "\"", 1);
    size_t done = 0; /* everything before it is appended */
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)str[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        mfi_buf_append(out, str + done, i - done);
        done = i + 1;
        if (c == '"' || c == '\\')
            mfi_buf_fmt(out, "\\%c", c);
        else if (c == '\n')
            mfi_buf_append(out, "\\n", 2);
        else if (c == '\t')
            mfi_buf_append(out, "\\t", 2);
        else if (c == '\r')
            mfi_buf_append(out, "\\r", 2);
        else
            mfi_buf_fmt(out, "\\u%04x", c);
    }
    mfi_buf_append(out, str + done, len - done);
    mfi_buf_append(out, "\"", 1);
}

void mfi_json_put_f64(mfi_buf *out, double v)
{
    if (!isfinite(v)) {
        mfi_buf_str(out, "null");
        return;
    }
    /* Every decimal of up to 15 digits survives a double, so that %.15g finds the shorter ones,
     * too; subnormals have fewer digits. */
    char text[64];
    for (int digits = fabs(v) < DBL_MIN ? 1 : DBL_DIG; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    /* The host program may have set a locale with another decimal point. */
    const char *point = localeconv()->decimal_point;
    const char *at = strstr(text, point);
    if (at) {
        mfi_buf_append(out, text, (size_t)(at - text));
        mfi_buf_append(out, ".", 1);
        mfi_buf_str(out, at + strlen(point));
    } else {
        mfi_buf_str(out, text);
    }
}

static void put_number(mfi_buf *out, const mfi_json *v)
{
    json_object *number = to_c(v);
    int64_t i = json_object_get_int64(number);
    if (i == INT64_MAX) /* or clamped to it */
        mfi_buf_fmt(out, "%" PRIu64, json_object_get_uint64(number));
    else
        mfi_buf_fmt(out, "%" PRId64, i);
}

static void put_children(mfi_buf *out, const mfi_json *v)
{
    bool is_object = mfi_json_typeof(v) == MFI_JSON_OBJECT;
    mfi_buf_str(out, is_object ? "{" : "[");
    for (size_t i = 0; i < mfi_json_len(v); i++) {
        const char *key = NULL;
        const mfi_json *child = is_object ? mfi_json_member(v, i, &key) : mfi_json_at(v, i);
        if (i)
            mfi_buf_str(out, ",");
        if (is_object) {
            mfi_json_put_str(out, key, strlen(key));
            mfi_buf_str(out, ":");
        }
        mfi_json_put(out, child); /* as deep as the parser let it be */
    }
    mfi_buf_str(out, is_object ? "}" : "]");
}

void mfi_json_put(mfi_buf *out, const mfi_json *v)
{
    size_t len;
    const char *text;
    bool set = false;
    switch (mfi_json_typeof(v)) {
    case MFI_JSON_NULL:
        mfi_buf_str(out, "null");
        break;
    case MFI_JSON_BOOL:
        mfi_json_bool(v, &set);
        mfi_buf_str(out, set ? "true" : "false");
        break;
    case MFI_JSON_INT:
        put_number(out, v);
        break;
    case MFI_JSON_FLOAT:
        mfi_json_put_f64(out, json_object_get_double(to_c(v)));
        break;
    case MFI_JSON_STRING:
        text = mfi_json_str(v, &len);
        mfi_json_put_str(out, text, len);
        break;
    case MFI_JSON_ARRAY:
    case MFI_JSON_OBJECT:
        put_children(out, v);
    }
}
