/* What schemas say of numbers as expressions. Part of the reader of JSON schemas (schema.c).
 *
 * General numbers have up to 16 digits before and after the point and an exponent of up to two;
 * integers have up to 18 digits, numbers with bounds and a fraction up to 15 and no exponent. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "grammar/regular.h"
#include "grammar/schema_int.h"

#define INTEGER_MAX   999999999999999999 /* 18 digits */
#define MULTIPLE_MAX  4000               /* of what is left when zeros at the end are taken off */
#define MULTIPLES_MAX 999999999          /* where no bound is nearer */
#define PARTS_MAX     999999             /* whole numbers as multiples of parts of 1 */

static uint32_t class_of(mfi_ast *ast, char lo, char hi)
{
    return mfi_ast_class(ast, &(mfi_range){(unsigned char)lo, (unsigned char)hi}, 1, false);
}

static uint32_t digits(mfi_ast *ast, uint32_t least, uint32_t most)
{
    return mfi_ast_repeat(ast, class_of(ast, '0', '9'), least, most);
}

static uint32_t number_rule(mfi_schema *s)
{
    mfi_ast *ast = s->ast;
    if (s->number)
        return s->number;
    static const mfi_range e[] = {{'e', 'e'}, {'E', 'E'}}, sign[] = {{'+', '+'}, {'-', '-'}};
    uint32_t whole = mfi_ast_alt_of(
        ast, mfi_ast_str(ast, "0"),
        mfi_ast_seq_of(ast, class_of(ast, '1', '9'), digits(ast, 0, 15), MFI_AST_END), MFI_AST_END);
    uint32_t fraction = mfi_ast_seq_of(ast, mfi_ast_str(ast, "."), digits(ast, 1, 16), MFI_AST_END);
    uint32_t exponent = mfi_ast_seq_of(ast, mfi_ast_class(ast, e, 2, false),
                                       mfi_ast_optional(ast, mfi_ast_class(ast, sign, 2, false)),
                                       digits(ast, 1, 2), MFI_AST_END);
    uint32_t body = mfi_ast_seq_of(ast, mfi_ast_optional(ast, mfi_ast_str(ast, "-")), whole,
                                   mfi_ast_optional(ast, fraction), mfi_ast_optional(ast, exponent),
                                   MFI_AST_END);
    s->number = mfi_ast_rule_new(ast, "number");
    mfi_ast_define(ast, s->number, body);
    return s->number;
}

static int64_t clamped(double n, int64_t most)
{
    return n < -(double)most ? -most : n > (double)most ? most : (int64_t)n;
}

static int64_t least_of(const mfi_view *v)
{
    double lo = ceil(v->lo);
    return clamped(lo + (lo == v->lo && v->lo_open), INTEGER_MAX);
}

static int64_t most_of(const mfi_view *v)
{
    double hi = floor(v->hi);
    return clamped(hi - (hi == v->hi && v->hi_open), INTEGER_MAX);
}

/* The integers of the view's bounds, about `most` of them. */
static uint32_t bounded_integer(mfi_ast *ast, const mfi_view *v, int64_t most)
{
    double lo = ceil(v->lo), hi = floor(v->hi);
    lo += lo == v->lo && v->lo_open;
    hi -= hi == v->hi && v->hi_open;
    if (lo > (double)INTEGER_MAX || hi < -(double)INTEGER_MAX)
        return mfi_text_never(ast);
    if (most < INTEGER_MAX) { /* not all of them, but those nearest to 0 or to the bounds */
        double from = isfinite(lo) ? lo : fmin(hi, 0) - (double)most;
        hi = fmin(hi, fmax(from, 0) + (double)most);
        lo = fmax(from, fmin(hi, 0) - (double)most);
    }
    return mfi_text_integer(ast, clamped(lo, INTEGER_MAX), clamped(hi, INTEGER_MAX));
}

/* ---- multiples ---- */

/* Where a half, a quarter or an eighth is the measure: the fractions that doubles keep. */
static uint32_t with_parts(mfi_ast *ast, uint32_t parts)
{
    uint32_t whole = mfi_ast_seq_of(ast, mfi_ast_optional(ast, mfi_ast_str(ast, "-")),
                                    digits(ast, 1, 9), MFI_AST_END);
    mfi_ast_list list = {0};
    for (uint32_t i = 1; i < parts; i++) {
        char text[16];
        snprintf(text, sizeof text, "%g", (double)i / parts);
        mfi_ast_push(ast, &list, mfi_ast_str(ast, text + 1)); /* ".25" */
    }
    return mfi_ast_seq_of(ast, whole, mfi_ast_optional(ast, mfi_ast_alt(ast, list)), MFI_AST_END);
}

/* How far multiples of n go where no bound is nearer: each digit has as many cases as there are
 * remainders, and all of them together are to stay below what regular.c follows. */
static int64_t multiples_max(int64_t n)
{
    return n > 2000 ? 99999 : n > 500 ? 999999 : MULTIPLES_MAX;
}

/* Says of a text that it is a multiple; false if that isn't understood. */
static bool say_multiple(mfi_regular *r, double of, bool integers, bool *fraction, int64_t *most)
{
    mfi_ast *ast = mfi_regular_ast(r);
    uint32_t zeros = 0;
    if (of < 1) {
        double parts = round(1 / of);
        bool binary = parts == 2 || parts == 4 || parts == 8;
        if (fabs(parts * of - 1) > 1e-12 || parts > 1e9)
            return false;
        if (binary && !integers)
            mfi_regular_is(r, with_parts(ast, (uint32_t)parts), false);
        *fraction = *fraction && binary;
        *most = MFI_MIN(*most, PARTS_MAX);
        return true;
    }
    if (of != floor(of) || of > (double)INTEGER_MAX)
        return false;
    int64_t n = (int64_t)of;
    *fraction = false;
    for (; n % 10 == 0; n /= 10)
        zeros++;
    if (n > MULTIPLE_MAX)
        return false;
    mfi_regular_multiple(r, (uint32_t)n, zeros);
    if (n > 1) {
        int64_t enough = multiples_max(n);
        for (uint32_t i = 0; i < zeros; i++)
            enough = enough > INTEGER_MAX / 10 ? INTEGER_MAX : enough * 10;
        *most = MFI_MIN(*most, enough);
    }
    return true;
}

/* Multiples of a number with zeros behind: 0, and those of what is before the zeros with them. The
 * conjunction needs not count digits of zeros then. *done is false where there are none. */
static mf_status put_with_zeros(mfi_schema *s, const mfi_view *v, uint32_t *node, bool *done)
{
    mfi_ast *ast = s->ast;
    int64_t n = (int64_t)v->multiples[0], unit = 1;
    for (; n % 10 == 0; n /= 10)
        unit *= 10;
    *done = unit > 1 && n <= MULTIPLE_MAX;
    mfi_regular *r = *done ? mfi_regular_open(&s->work) : NULL;
    if (!*done || !r)
        return *done ? mfi_schema_no_memory(s) : MF_OK;
    int64_t lo = least_of(v), hi = most_of(v), most = MFI_MIN(multiples_max(n), INTEGER_MAX / unit);
    bool none = lo > 0 || hi < 0;
    mfi_view shorter = {.lo = (double)(lo / unit + (lo > 0 && lo % unit)),
                        .hi = (double)(hi / unit - (hi < 0 && hi % unit))};
    mfi_ast *raw = mfi_regular_ast(r);
    mfi_regular_multiple(r, (uint32_t)n, 0);
    mfi_regular_is(r, bounded_integer(raw, &shorter, most), false);
    mfi_regular_is(r, mfi_ast_str(raw, "0"), true);
    mf_status status = mfi_schema_regular(s, r, v->multiple_path, node);
    mfi_regular_close(&r);
    char zeros[24];
    snprintf(zeros, sizeof zeros, "%lld", (long long)unit);
    *node = mfi_ast_seq_of(ast, *node, mfi_ast_str(ast, zeros + 1), MFI_AST_END);
    if (!none)
        *node = mfi_ast_alt_of(ast, mfi_ast_str(ast, "0"), *node, MFI_AST_END);
    return status;
}

static mf_status put_multiples(mfi_schema *s, const mfi_view *v, uint32_t *node)
{
    bool done = false;
    if (v->n_multiples == 1 && v->multiples[0] == floor(v->multiples[0]) &&
        v->multiples[0] <= (double)INTEGER_MAX)
        MFI_TRY(put_with_zeros(s, v, node, &done));
    if (done)
        return MF_OK;
    mfi_regular *r = mfi_regular_open(&s->work);
    bool fraction = v->types & MFI_TYPE_FRACTION, integers = !fraction, ok = true;
    int64_t most = INTEGER_MAX;
    if (!r)
        return mfi_schema_no_memory(s);
    for (uint32_t i = 0; i < v->n_multiples && ok; i++)
        ok = say_multiple(r, v->multiples[i], integers, &fraction, &most);
    mf_status status = MF_OK;
    if (ok) {
        mfi_ast *raw = mfi_regular_ast(r);
        uint32_t bounds = bounded_integer(raw, v, most);
        if (fraction)
            bounds = mfi_ast_alt_of(raw, bounds,
                                    mfi_text_fraction(raw, v->lo, v->lo_open, v->hi, v->hi_open),
                                    MFI_AST_END);
        mfi_regular_is(r, bounds, false);
        status = mfi_schema_regular(s, r, v->multiple_path, node);
    } else {
        status = mfi_fail(s->err, MF_ERR_UNSUPPORTED,
                          "JSON schema: %.400s: only whole numbers up to %d (with more zeros "
                          "behind) and parts of 1 are supported",
                          v->multiple_path, MULTIPLE_MAX);
    }
    mfi_regular_close(&r);
    return status;
}

mf_status mfi_schema_number(mfi_schema *s, const mfi_view *v, uint32_t *node)
{
    mfi_ast *ast = s->ast;
    bool fraction = v->types & MFI_TYPE_FRACTION;
    if (v->n_multiples)
        return put_multiples(s, v, node);
    if (fraction && !v->bound_path) {
        *node = mfi_ast_call(ast, number_rule(s));
        return MF_OK;
    }
    *node = bounded_integer(ast, v, INTEGER_MAX);
    if (fraction)
        *node = mfi_ast_alt_of(
            ast, *node, mfi_text_fraction(ast, v->lo, v->lo_open, v->hi, v->hi_open), MFI_AST_END);
    return MF_OK;
}
