/* Parses numbers and sizes; see size.h. Pure: no state, no output, no locale (the program never
 * calls setlocale, and strtod only sees text whose shape was checked). */
#include "size.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Reads digits at *p; false if there is none or the number overflows. */
static bool digits_u64(const char **p, uint64_t *out)
{
    uint64_t n = 0;
    if (!is_digit(**p))
        return false;
    for (; is_digit(**p); (*p)++)
        if (mfi_mul_overflow(n, 10, &n) || mfi_add_overflow(n, (uint64_t)(**p - '0'), &n))
            return false;
    *out = n;
    return true;
}

bool cli_parse_u64(const char *text, uint64_t *out)
{
    uint64_t n;
    const char *p = text + (*text == '+');
    if (!digits_u64(&p, &n) || *p)
        return false;
    *out = n;
    return true;
}

bool cli_parse_i64(const char *text, int64_t *out)
{
    bool negative = *text == '-';
    uint64_t n;
    if (negative) {
        const char *p = text + 1;
        if (!digits_u64(&p, &n) || *p || n > (uint64_t)INT64_MAX + 1)
            return false;
        *out = n == (uint64_t)INT64_MAX + 1 ? INT64_MIN : -(int64_t)n;
        return true;
    }
    if (!cli_parse_u64(text, &n) || n > (uint64_t)INT64_MAX)
        return false;
    *out = (int64_t)n;
    return true;
}

bool cli_parse_f64(const char *text, double *out)
{
    const char *p = text + (*text == '-' || *text == '+');
    size_t n_digits = 0;
    for (; is_digit(*p); p++)
        n_digits++;
    if (*p == '.')
        for (p++; is_digit(*p); p++)
            n_digits++;
    if (!n_digits)
        return false;
    if (*p == 'e' || *p == 'E') {
        p++;
        p += *p == '-' || *p == '+';
        if (!is_digit(*p))
            return false;
        while (is_digit(*p))
            p++;
    }
    if (*p)
        return false;
    errno = 0;
    double v = strtod(text, NULL);
    if (errno == ERANGE && (v > 1 || v < -1)) /* too large; too small rounds to zero */
        return false;
    *out = v;
    return true;
}

/* The power of two that a unit stands for; false if it is none. */
static bool unit_shift(const char *unit, unsigned *shift)
{
    static const char letters[] = "KMGT";
    if (!*unit) {
        *shift = 0;
        return true;
    }
    for (unsigned i = 0; letters[i]; i++) {
        const char full[] = {letters[i], 'i', 'B', 0};
        const char bare[] = {letters[i], 0};
        if (strcasecmp(unit, full) == 0 || strcasecmp(unit, bare) == 0) {
            *shift = 10 * (i + 1);
            return true;
        }
    }
    return false;
}

bool cli_parse_size(const char *text, uint64_t whole, uint64_t *out)
{
    const char *p = text;
    uint64_t n, fraction = 0, scale = 1;
    if (!digits_u64(&p, &n))
        return false;
    if (*p == '.') {
        p++;
        if (!is_digit(*p))
            return false;
        for (; is_digit(*p); p++) {
            if (scale >= 1000000000u)
                return false;
            fraction = 10 * fraction + (uint64_t)(*p - '0');
            scale *= 10;
        }
    }
    unsigned __int128 bytes;
    unsigned shift;
    if (strcmp(p, "%") == 0) {
        if (n > 100 || (n == 100 && fraction))
            return false;
        bytes = (unsigned __int128)whole * (n * scale + fraction) / (100 * scale);
    } else if (unit_shift(p, &shift) && (shift || scale == 1)) {
        bytes = ((unsigned __int128)n << shift) + ((unsigned __int128)fraction << shift) / scale;
    } else {
        return false;
    }
    if (bytes == 0 || bytes > UINT64_MAX)
        return false;
    *out = (uint64_t)bytes;
    return true;
}

void cli_put_size(mfi_buf *out, double bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) {
        mfi_buf_fmt(out, "%.0f bytes", bytes);
        return;
    }
    size_t unit = 0;
    double v = bytes / 1024;
    for (; v >= 1000 && unit + 1 < MFI_ARRAY_LEN(units); unit++)
        v /= 1024;
    mfi_buf_fmt(out, v < 100 ? "%.1f %s" : "%.0f %s", v, units[unit]);
}
