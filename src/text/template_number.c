/* Numbers and text of the template language: int(), float(), strftime.
 *
 * Called by filters, the JSON reader and the lexer. Independent of the host program's locale. */
#define _DEFAULT_SOURCE
#include "text/template_int.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __APPLE__
#include <xlocale.h> /* newlocale, strftime_l */
#endif

bool mfi_parse_int(const mfi_str *str, int base, int64_t *out, bool *too_large)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    static const char kinds[] = "xob";
    static const int bases[] = {16, 8, 2};
    size_t from, to;
    *too_large = false;
    mfi_str_strip(str, NULL, true, true, &from, &to);
    const char *p = str->data + from, *end = str->data + to;
    bool minus = p < end && *p == '-', digit_before = false;
    p += p < end && (*p == '-' || *p == '+');
    const char *kind = end - p > 2 && *p == '0' ? strchr(kinds, p[1] | 32) : NULL;
    if (kind && *kind && (base == 0 || base == bases[kind - kinds])) {
        base = bases[kind - kinds];
        p += 2;
        digit_before = true; /* 0x_1 */
    } else if (base == 0) {
        base = 10;
    }
    if (base < 2 || base > 36 || p == end)
        return false;
    for (*out = 0; p < end; p++) {
        if (*p == '_' && digit_before && p + 1 < end) {
            digit_before = false;
            continue;
        }
        char c = *p >= 'A' && *p <= 'Z' ? (char)(*p | 32) : *p;
        const char *digit = c ? memchr(digits, c, (size_t)base) : NULL;
        if (!digit)
            return false;
        int value = (int)(digit - digits);
        if (__builtin_mul_overflow(*out, (int64_t)base, out) ||
            __builtin_sub_overflow(*out, (int64_t)value, out)) /* downwards: reaches INT64_MIN */
            *too_large = true;
        digit_before = true;
    }
    if (!minus && __builtin_sub_overflow((int64_t)0, *out, out))
        *too_large = true;
    return digit_before;
}

/* Copies digits with single underscores between; the number of digits. */
static size_t copy_digits(const char **p, const char *end, mfi_buf *out)
{
    size_t n = 0;
    while (*p < end) {
        const char *q = *p + (n && **p == '_');
        if (q == end || *q < '0' || *q > '9')
            break;
        mfi_buf_append(out, q, 1);
        *p = q + 1;
        n++;
    }
    return n;
}

static bool copy_float(const char *p, const char *end, mfi_buf *out)
{
    if (p < end && (*p == '-' || *p == '+'))
        mfi_buf_append(out, p++, 1);
    static const char *const words[] = {"infinity", "inf", "nan"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(words); i++) {
        if ((size_t)(end - p) == strlen(words[i]) &&
            strncasecmp(p, words[i], strlen(words[i])) == 0) {
            mfi_buf_str(out, words[i]);
            return true;
        }
    }
    size_t n = copy_digits(&p, end, out);
    if (p < end && *p == '.') {
        p++;
        mfi_buf_str(out, localeconv()->decimal_point); /* the host program's */
        n += copy_digits(&p, end, out);
    }
    if (n && p < end && (*p == 'e' || *p == 'E')) {
        mfi_buf_append(out, p++, 1);
        if (p < end && (*p == '-' || *p == '+'))
            mfi_buf_append(out, p++, 1);
        n = copy_digits(&p, end, out);
    }
    return n && p == end;
}

bool mfi_parse_float(const mfi_str *str, double *out)
{
    size_t from, to;
    mfi_buf text = {0};
    mfi_str_strip(str, NULL, true, true, &from, &to);
    bool ok = copy_float(str->data + from, str->data + to, &text) && !text.failed;
    if (ok)
        *out = strtod(text.data, NULL);
    mfi_buf_free(&text);
    return ok;
}

/* ---- time ---- */

/* "2025-03-09T14:05:07", with a blank for the T, too */
static bool parse_time(const char *text, struct tm *tm)
{
    static const char shape[] = "dddd-dd-ddTdd:dd:dd";
    int field[6] = {0}, k = 0;
    for (size_t i = 0; i < sizeof shape - 1; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        if (shape[i] == 'd' ? !digit : text[i] != shape[i] && !(shape[i] == 'T' && text[i] == ' '))
            return false;
        if (digit)
            field[k] = field[k] * 10 + (text[i] - '0');
        else
            k++;
    }
    if (text[sizeof shape - 1] && text[sizeof shape - 1] != '.')
        return false;
    *tm = (struct tm){.tm_year = field[0] - 1900,
                      .tm_mon = field[1] - 1,
                      .tm_mday = field[2],
                      .tm_hour = field[3],
                      .tm_min = field[4],
                      .tm_sec = field[5],
                      .tm_isdst = -1};
    struct tm same = *tm;
    timegm(&same); /* the day of the week and of the year; moves what is no date */
    if (same.tm_mon != tm->tm_mon || same.tm_mday != tm->tm_mday || same.tm_hour != tm->tm_hour ||
        same.tm_min != tm->tm_min || same.tm_sec != tm->tm_sec)
        return false;
    tm->tm_wday = same.tm_wday;
    tm->tm_yday = same.tm_yday;
    return true;
}

bool mfi_is_time(const char *text)
{
    struct tm tm;
    return parse_time(text, &tm);
}

static bool find_time(const char *now, struct tm *tm)
{
    if (now)
        return parse_time(now, tm);
    time_t clock = time(NULL);
    return localtime_r(&clock, tm) != NULL;
}

/* What libc would take from its own idea of a zone; Python's time has none, and no fractions. */
static bool is_python_own(const char *p, const char **text)
{
    *text = *p == 'f' ? "000000" : "";
    return *p == 'f' || *p == 'z' || *p == 'Z';
}

mf_status mfi_strftime(mfi_tpl *t, const mfi_str *format, mfi_value *out)
{
    struct tm tm;
    const char *own;
    mfi_text text = mfi_text_begin(t);
    if (!find_time(t->now, &tm))
        return mfi_tpl_fail(t, "%.40s is no time like 2025-03-09T14:05:07", t->now ? t->now : "");
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c_locale)
        return mfi_tpl_no_memory(t);
    for (size_t i = 0; i < format->n; i++) {
        char directive[4] = {'%', 0, 0, 0}, made[256];
        if (format->data[i] != '%' || i + 1 == format->n) {
            mfi_text_slice(&text, format, i, i + 1);
            continue;
        }
        size_t n = strchr("-_0^#EO", format->data[i + 1]) && i + 2 < format->n ? 2 : 1;
        memcpy(directive + 1, format->data + i + 1, n);
        i += n;
        if (is_python_own(directive + n, &own)) {
            mfi_text_own(&text, own);
            continue;
        }
        size_t len = strftime_l(made, sizeof made, directive, &tm, c_locale);
        mfi_text_put(&text, made, len, false);
    }
    freelocale(c_locale);
    return mfi_text_done(&text, out);
}
