/* The strict JSON scanner: decides whether foreign text is JSON as moeflux accepts it, before
 * json-c or the cursor see it. Called at open and per request, on any thread. It is iterative
 * (nesting costs no stack), runs in linear time, and keeps no more than the keys of the objects
 * that are open; it builds no values. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/json_text.h"
#include "base/limits.h"

/* A key of an object that is still open. */
typedef struct key_entry {
    uint32_t offset, len; /* of the text between the quotes */
    uint32_t hash;        /* over the decoded key, the depth and the seed */
    uint32_t depth;
} key_entry;

/* A hash set over the entries, which form a stack: an object's keys are popped when it closes. With
 * linear probing, removing in the reverse order of insertion restores the table exactly, so that no
 * tombstones are needed. */
typedef struct key_set {
    key_entry *entries;
    uint32_t n, cap;
    uint32_t *slots; /* [n_slots], index into entries + 1, or 0 */
    uint32_t n_slots;
    uint64_t seed; /* so that no file can be made of colliding keys */
} key_set;

typedef struct scanner {
    const char *text, *p, *end;
    const char *what;
    mf_error *err;
    key_set keys;
    bool any_int; /* integers of any size */
    uint32_t depth;
    bool in_object[MFI_MAX_JSON_DEPTH];
    uint32_t first_key[MFI_MAX_JSON_DEPTH]; /* entries below it belong to outer objects */
} scanner;

static mf_status bad(const scanner *s, const char *at, const char *why)
{
    return mfi_fail(s->err, MF_ERR_FORMAT, "%s: offset %zu: %s", s->what, (size_t)(at - s->text),
                    why);
}

static mf_status no_memory(const scanner *s)
{
    return mfi_fail(s->err, MF_ERR_NO_MEMORY, "%s: no memory for the keys of an object", s->what);
}

/* ---- duplicate keys ---- */

static uint32_t hash_key(const scanner *s, const char *p, const char *end, uint32_t depth,
                         bool escaped)
{
    uint64_t h = s->keys.seed ^ depth;
    while (p < end) {
        char out[4];
        size_t n = 1;
        if (escaped)
            n = mfi_json_unescape(&p, out);
        else
            out[0] = *p++;
        for (size_t i = 0; i < n; i++)
            h = (h ^ (unsigned char)out[i]) * 0x100000001b3u;
    }
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return (uint32_t)(h ^ h >> 32);
}

static bool same_key(const char *a, size_t a_len, const char *b, size_t b_len)
{
    if (a_len == b_len && memcmp(a, b, a_len) == 0)
        return true;
    if (!memchr(a, '\\', a_len) && !memchr(b, '\\', b_len))
        return false;
    const char *a_end = a + a_len, *b_end = b + b_len;
    char a_out[4], b_out[4];
    size_t a_n = 0, b_n = 0, a_i = 0, b_i = 0;
    for (;;) {
        if (a_i == a_n) {
            if (a == a_end)
                return b_i == b_n && b == b_end;
            a_n = mfi_json_unescape(&a, a_out);
            a_i = 0;
        }
        if (b_i == b_n) {
            if (b == b_end)
                return false;
            b_n = mfi_json_unescape(&b, b_out);
            b_i = 0;
        }
        if (a_out[a_i++] != b_out[b_i++])
            return false;
    }
}

static void place(key_set *keys, uint32_t index)
{
    uint32_t slot = keys->entries[index].hash & (keys->n_slots - 1);
    while (keys->slots[slot])
        slot = (slot + 1) & (keys->n_slots - 1);
    keys->slots[slot] = index + 1;
}

static bool grow_keys(key_set *keys)
{
    if (keys->n == keys->cap) {
        uint32_t cap = keys->cap ? keys->cap + keys->cap / 2 : 64;
        key_entry *entries = realloc(keys->entries, (size_t)cap * sizeof *entries);
        if (!entries)
            return false;
        keys->entries = entries;
        keys->cap = cap;
    }
    if ((keys->n + 1) * 3u > keys->n_slots * 2u) {
        uint32_t n_slots = keys->n_slots ? keys->n_slots * 2 : 128;
        free(
            keys->slots); /* before its successor, to keep the peak low; rebuilt from the entries */
        keys->n_slots = 0;
        keys->slots = calloc(n_slots, sizeof *keys->slots);
        if (!keys->slots)
            return false;
        keys->n_slots = n_slots;
        for (uint32_t i = 0; i < keys->n; i++)
            place(keys, i);
    }
    return true;
}

static mf_status add_key(scanner *s, const char *key, size_t len, bool escaped)
{
    key_set *keys = &s->keys;
    if (!grow_keys(keys))
        return no_memory(s);
    uint32_t hash = hash_key(s, key, key + len, s->depth, escaped);
    uint32_t slot = hash & (keys->n_slots - 1);
    for (; keys->slots[slot]; slot = (slot + 1) & (keys->n_slots - 1)) {
        const key_entry *e = &keys->entries[keys->slots[slot] - 1];
        if (e->hash == hash && e->depth == s->depth &&
            same_key(s->text + e->offset, e->len, key, len)) {
            int shown = (int)MFI_MIN(len, (size_t)120);
            return mfi_fail(s->err, MF_ERR_FORMAT, "%s: offset %zu: duplicate key \"%.*s\"",
                            s->what, (size_t)(key - 1 - s->text), shown, key);
        }
    }
    keys->entries[keys->n] = (key_entry){(uint32_t)(key - s->text), (uint32_t)len, hash, s->depth};
    keys->slots[slot] = ++keys->n;
    return MF_OK;
}

static void pop_keys(key_set *keys, uint32_t n)
{
    while (keys->n > n) {
        uint32_t slot = keys->entries[--keys->n].hash & (keys->n_slots - 1);
        while (keys->slots[slot] != keys->n + 1)
            slot = (slot + 1) & (keys->n_slots - 1);
        keys->slots[slot] = 0;
    }
}

/* ---- strings ---- */

/* Bytes of the UTF-8 sequence at p (its first byte is >= 0x80), or 0 if malformed: overlong forms,
 * surrogates, beyond U+10FFFF, cut off. */
static size_t utf8_len(const char *text, const char *end)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t left = (size_t)(end - text);
    unsigned char lo = 0x80, hi = 0xbf;
    size_t n;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        n = 2;
    } else if ((p[0] & 0xf0) == 0xe0) {
        n = 3;
        lo = p[0] == 0xe0 ? 0xa0 : 0x80;
        hi = p[0] == 0xed ? 0x9f : 0xbf;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        n = 4;
        lo = p[0] == 0xf0 ? 0x90 : 0x80;
        hi = p[0] == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (left < n || p[1] < lo || p[1] > hi)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return n;
}

/* s->p is at a backslash. */
static mf_status scan_escape(scanner *s, bool is_key)
{
    const char *p = s->p;
    if (s->end - p < 2)
        return bad(s, p, "unfinished escape");
    if (p[1] != 'u') {
        if (!strchr("\"\\/bfnrt", p[1]) || p[1] == 0)
            return bad(s, p, "unknown escape");
        s->p = p + 2;
        return MF_OK;
    }
    int cp = s->end - p < 6 ? -1 : mfi_json_hex4(p + 2);
    if (cp < 0)
        return bad(s, p, "\\u wants four hex digits");
    s->p = p + 6;
    if (cp == 0 && is_key)
        return bad(s, p, "NUL in a key");
    if (cp >= 0xdc00 && cp < 0xe000)
        return bad(s, p, "lone surrogate");
    if (cp >= 0xd800 && cp < 0xdc00) {
        int low = s->end - p < 12 || p[6] != '\\' || p[7] != 'u' ? -1 : mfi_json_hex4(p + 8);
        if (low < 0xdc00 || low > 0xdfff)
            return bad(s, p, "lone surrogate");
        s->p = p + 12;
    }
    return MF_OK;
}

/* s->p is at the opening quote; leaves it behind the closing one. */
static mf_status scan_string(scanner *s, bool is_key)
{
    const char *open = s->p++;
    bool escaped = false;
    for (;;) {
        if (s->p == s->end)
            return bad(s, open, "unfinished string");
        unsigned char c = (unsigned char)*s->p;
        if (c == '"')
            break;
        if (c == '\\') {
            MFI_TRY(scan_escape(s, is_key));
            escaped = true;
        } else if (c < 0x20) {
            return bad(s, s->p, "raw control character in a string");
        } else if (c < 0x80) {
            s->p++;
        } else {
            size_t n = utf8_len(s->p, s->end);
            if (n == 0)
                return bad(s, s->p, "bad UTF-8");
            s->p += n;
        }
    }
    s->p++;
    return is_key ? add_key(s, open + 1, (size_t)(s->p - open - 2), escaped) : MF_OK;
}

/* ---- numbers ---- */

static bool is_digit(const char *p, const char *end)
{
    return p < end && *p >= '0' && *p <= '9';
}

/* Digits [p, end) without leading zeros. */
static bool int_fits(const char *p, const char *end, bool negative)
{
    uint64_t v = 0;
    for (; p < end; p++) {
        if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return false;
    }
    return !negative || v <= (uint64_t)INT64_MAX + 1;
}

/* True if the decimal digits, dots skipped, times ten to the power are
 * below 1.7976931348623158e308, the shortest decimal above every finite double. Without strtod,
 * which follows the locale. */
static bool float_fits(const char *p, const char *digits_end, int64_t exponent)
{
    static const char limit[] = "17976931348623158";
    int64_t scale = -1; /* decimal exponent of the first non-zero digit */
    bool in_fraction = false;
    const char *first = NULL;
    for (const char *q = p; q < digits_end; q++) {
        if (*q == '.') {
            in_fraction = true;
            continue;
        }
        if (!first && *q != '0') {
            first = q;
            scale = 0;
            if (!in_fraction) {
                for (const char *r = q + 1; r < digits_end && *r != '.'; r++)
                    scale++;
            } else {
                const char *dot = q;
                while (*dot != '.')
                    dot--;
                scale = -(int64_t)(q - dot);
            }
            break;
        }
    }
    if (!first || scale + exponent < 308)
        return true;
    if (scale + exponent > 308)
        return false;
    const char *want = limit;
    for (const char *q = first; q < digits_end && *want; q++) {
        if (*q == '.')
            continue;
        if (*q != *want)
            return *q < *want;
        want++;
    }
    return *want != 0; /* ran out of digits first: below it */
}

static mf_status scan_number(scanner *s)
{
    const char *start = s->p, *end = s->end;
    const char *p = start;
    bool negative = *p == '-';
    if (negative)
        p++;
    const char *digits = p;
    if (!is_digit(p, end))
        return bad(s, start, "not a value");
    if (*p == '0' && is_digit(p + 1, end))
        return bad(s, start, "number with a leading zero");
    while (is_digit(p, end))
        p++;
    const char *int_end = p;
    bool is_float = false;
    if (p < end && *p == '.') {
        is_float = true;
        p++;
        if (!is_digit(p, end))
            return bad(s, start, "number without digits behind its point");
        while (is_digit(p, end))
            p++;
    }
    const char *digits_end = p;
    int64_t exponent = 0;
    if (p < end && (*p == 'e' || *p == 'E')) {
        is_float = true;
        p++;
        bool minus = p < end && *p == '-';
        if (p < end && (*p == '-' || *p == '+'))
            p++;
        if (!is_digit(p, end))
            return bad(s, start, "number without digits in its exponent");
        for (; is_digit(p, end); p++) /* far beyond any text's length: more changes nothing */
            exponent = MFI_MIN(exponent * 10 + (*p - '0'), (int64_t)1 << 40);
        if (minus)
            exponent = -exponent;
    }
    if (!is_float && !s->any_int && !int_fits(digits, int_end, negative))
        return bad(s, start, "integer out of range");
    if (is_float && !float_fits(digits, digits_end, exponent))
        return bad(s, start, "number out of range");
    s->p = p;
    return MF_OK;
}

/* ---- structure ---- */

static void skip_space(scanner *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r'))
        s->p++;
}

static mf_status scan_word(scanner *s, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
        return bad(s, s->p, "not a value");
    s->p += n;
    return MF_OK;
}

static mf_status scan_scalar(scanner *s)
{
    switch (*s->p) {
    case '"':
        return scan_string(s, false);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    default:
        return scan_number(s);
    }
}

static mf_status open_container(scanner *s)
{
    if (s->depth == MFI_MAX_JSON_DEPTH)
        return bad(s, s->p, "nested too deeply");
    s->in_object[s->depth] = *s->p == '{';
    s->first_key[s->depth] = s->keys.n;
    s->depth++;
    s->p++;
    return MF_OK;
}

static void close_container(scanner *s)
{
    s->depth--;
    pop_keys(&s->keys, s->first_key[s->depth]);
    s->p++;
}

/* A key and its colon. */
static mf_status scan_key(scanner *s)
{
    if (s->p == s->end || *s->p != '"')
        return bad(s, s->p, "expected a key");
    MFI_TRY(scan_string(s, true));
    skip_space(s);
    if (s->p == s->end || *s->p != ':')
        return bad(s, s->p, "expected ':'");
    s->p++;
    return MF_OK;
}

/* After a value: closes what ends here, and stops before the next value or at the end. */
static mf_status scan_after_value(scanner *s)
{
    while (s->depth > 0) {
        skip_space(s);
        if (s->p == s->end)
            return bad(s, s->p, "ends too early");
        bool in_object = s->in_object[s->depth - 1];
        if (*s->p == (in_object ? '}' : ']')) {
            close_container(s);
            continue;
        }
        if (*s->p != ',')
            return bad(s, s->p, in_object ? "expected ',' or '}'" : "expected ',' or ']'");
        s->p++;
        skip_space(s);
        return in_object ? scan_key(s) : MF_OK;
    }
    return MF_OK;
}

static mf_status scan(scanner *s)
{
    do {
        skip_space(s);
        if (s->p == s->end)
            return bad(s, s->p, "ends too early");
        if (*s->p == '{' || *s->p == '[') {
            char close = *s->p == '{' ? '}' : ']';
            MFI_TRY(open_container(s));
            skip_space(s);
            if (s->p < s->end && *s->p == close) {
                close_container(s);
            } else {
                if (close == '}')
                    MFI_TRY(scan_key(s));
                continue;
            }
        } else {
            MFI_TRY(scan_scalar(s));
        }
        MFI_TRY(scan_after_value(s));
    } while (s->depth > 0);
    skip_space(s);
    if (s->p != s->end)
        return bad(s, s->p, "trailing bytes");
    return MF_OK;
}

static mf_status scan_text(const char *text, size_t len, const char *what, bool any_int,
                           mf_error *err)
{
    if (len > MFI_MAX_JSON_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT,
                        "%s: %zu bytes of JSON; at most %" PRIu64 " are accepted", what, len,
                        (uint64_t)MFI_MAX_JSON_BYTES);
    scanner s = {
        .text = text, .p = text, .end = text + len, .what = what, .err = err, .any_int = any_int};
    s.keys.seed = mfi_hash_bytes(&(const void *){&s}, sizeof(void *)); /* a randomised address */
    mf_status status = scan(&s);
    free(s.keys.entries);
    free(s.keys.slots);
    return status;
}

mf_status mfi_json_scan(const char *text, size_t len, const char *what, mf_error *err)
{
    return scan_text(text, len, what, false, err);
}

mf_status mfi_json_scan_any_int(const char *text, size_t len, const char *what, mf_error *err)
{
    return scan_text(text, len, what, true, err);
}
