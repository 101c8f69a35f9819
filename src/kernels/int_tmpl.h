/* Products of panels (panel_tmpl.h) with 8-bit activations: the driver and the tiles of the integer
 * products, written once. The including file defines, beside what that template wants,
 *   panel_dot2(sum, a, b)            sum + the products of two 16-bit numbers
 *   panel_fma(a, b, sum)
 *   panel_load(p, n), panel_store(p, n, v)  the first n floats at p
 *   PANEL_TOKS                       tokens of the largest tile: 4 or 8
 *   PANEL_SIGNED                     128 if wide codes are stored less 128, else 0
 * Where one instruction multiplies two rows with two tokens it also defines
 *   PANEL_PAIRS
 *   panel_join(a, b, pair)           two tokens' sums as that instruction has them
 *   panel_part_pair(pair, dot)       and back
 *   panel_mmla(pair, w0, w1, x0, x1) adds the products of eight columns: two words of codes, and
 *                                    where each token's activations stand
 * Where codes of some types are better multiplied in the order of rows than in that of columns, it
 * defines
 *   PANEL_DOT_ROWS(type, cols, lo)   what unpacks and multiplies for one token, or NULL; dot
 * products are those of codes less the type's offset
 *   PANEL_WHOLE_ROWS(type, cols, lo) what does all of a panel's columns for one token, a whole_fn
 *                                    of the including file's, or NULL
 *
 * Every shape of tile does the same to each output, in the order told in int_form.h. */
#ifndef MFI_KERNELS_INT_TMPL_H
#define MFI_KERNELS_INT_TMPL_H

/* Bytes of PANEL_STEP columns of a row in a plane, at most: q8_0 and MLX 8 bits. */
#define SPARE_BYTES 288

typedef struct int_step {
    const panel *panel;
    /* All of token 0 at this step's first column; with lo: d and s are d_fine and s_fine. */
    const int8_t *q, *lo;
    const float *d, *s;
    const int16_t *h, *h_lo;
    size_t cols, n_blocks;
    uint32_t step_blocks; /* of 32 columns in this step */
    float *y;
    size_t ldy;
    uint32_t n_rows;
    bool first;
    int offset;
} int_step;

PANEL_INLINE uint32_t word_at(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* What a tile is made for; constants to the compiler. */
typedef struct tile_kind {
    uint32_t n_t;
    bool halves, min, corr, wide, fine;
} tile_kind;

/* The sum of 16 or 32 activations' codes. */
PANEL_INLINE int32_t code_sum(const int_step *s, size_t t, uint32_t sub, const bool fine)
{
    const size_t at = t * 2 * s->n_blocks + sub;
    return fine ? 255 * s->h[at] + s->h_lo[at] : s->h[at];
}

#ifdef PANEL_PAIRS
/* An even number of tokens, two by two. */
PANEL_INLINE void int_pairs(const int_step *s, const panel_u *codes, const uint32_t n_words,
                            const uint32_t n_t, const int8_t *q, panel_i dot[])
{
    panel_i pair[PANEL_TOKS];
    MFI_UNROLL(12)
    for (uint32_t t = 0; t < n_t; t += 2)
        panel_join(dot[t], dot[t + 1], pair + t);
    MFI_UNROLL(8)
    for (uint32_t i = 0; i < n_words; i += 2)
        MFI_UNROLL(12)
    for (uint32_t t = 0; t < n_t; t += 2)
        panel_mmla(pair + t, codes[i], codes[i + 1], q + t * s->cols + 4 * i,
                   q + (t + 1) * s->cols + 4 * i);
    MFI_UNROLL(12)
    for (uint32_t t = 0; t < n_t; t += 2)
        panel_part_pair(pair + t, dot + t);
}
#endif

/* Codes times one plane of the activations, less the offset's part. */
PANEL_INLINE void int_plane(const int_step *s, const uint32_t b, const uint32_t part,
                            const tile_kind k, const int8_t *q, const int16_t *h, panel_i dot[])
{
    const panel_u *codes = s->panel->codes + 8 * b + 4 * part;
    const uint32_t n_words = k.halves ? 4 : 8;
    const uint16_t minus = (uint16_t)-s->offset;
    const uint32_t pair = k.halves ? (uint32_t)minus << 16 * part : minus * 0x10001u;
    MFI_UNROLL(12)
    for (uint32_t t = 0; t < k.n_t; t++)
        if (k.corr)
            dot[t] = panel_dot2(dot[t], pair, word_at(h + t * 2 * s->n_blocks + 2 * b));
#ifdef PANEL_PAIRS
    if (k.n_t > 1) {
        int_pairs(s, codes, n_words, k.n_t, q + 32 * b + 16 * part, dot);
        return;
    }
#endif
    MFI_UNROLL(8)
    for (uint32_t i = 0; i < n_words; i++) {
        const panel_u w = codes[i];
        MFI_UNROLL(12)
        for (uint32_t t = 0; t < k.n_t; t++)
            dot[t] = panel_dot4(dot[t], w, word_at(q + t * s->cols + 32 * b + 16 * part + 4 * i),
                                k.wide);
    }
}

/* One sub-block of all tokens of the tile. */
PANEL_INLINE void int_block(const int_step *s, const uint32_t b, const uint32_t part,
                            const tile_kind k, size_t tok, panel_f acc[])
{
    const uint32_t sub = k.halves ? 2 * b + part : b;
    const float *d = s->d + tok * s->n_blocks + b, *sums = s->s + tok * s->n_blocks + b;
    panel_i dot[PANEL_TOKS];
    MFI_UNROLL(12)
    for (uint32_t t = 0; t < k.n_t; t++)
        dot[t] = (panel_i){0};
    int_plane(s, b, part, k, s->q + tok * s->cols, s->h + tok * 2 * s->n_blocks, dot);
    if (k.fine) {
        MFI_UNROLL(12)
        for (uint32_t t = 0; t < k.n_t; t++)
            dot[t] = (dot[t] << 8) - dot[t];
        int_plane(s, b, part, k, s->lo + tok * s->cols, s->h_lo + tok * 2 * s->n_blocks, dot);
    }
    MFI_UNROLL(12)
    for (uint32_t t = 0; t < k.n_t; t++) {
        const float dx = d[t * s->n_blocks];
        acc[t] =
            panel_fma(__builtin_convertvector(dot[t], panel_f), s->panel->scale[sub] * dx, acc[t]);
        if (k.min && k.halves)
            acc[t] =
                panel_fma(s->panel->min[sub],
                          (panel_f){0} + dx * (float)code_sum(s, tok + t, sub, k.fine), acc[t]);
        else if (k.min)
            acc[t] = panel_fma(s->panel->min[sub], (panel_f){0} + sums[t * s->n_blocks], acc[t]);
    }
}

PANEL_INLINE void int_tile(const int_step *s, uint32_t tok, const tile_kind k)
{
    float *y = s->y + tok * s->ldy;
    panel_f acc[PANEL_TOKS];
    MFI_UNROLL(12)
    for (uint32_t t = 0; t < k.n_t; t++)
        acc[t] = s->first ? (panel_f){0} : panel_load(y + t * s->ldy, s->n_rows);
    for (uint32_t b = 0; b < s->step_blocks; b++) {
        int_block(s, b, 0, k, tok, acc);
        if (k.halves)
            int_block(s, b, 1, k, tok, acc);
    }
    MFI_UNROLL(12)
    for (uint32_t t = 0; t < k.n_t; t++)
        panel_store(y + t * s->ldy, s->n_rows, acc[t]);
}

/* Of both halves, which are 128 at most. */
PANEL_INLINE uint32_t times_255(uint32_t pair)
{
    return (pair * 255 & 0xffff) | (pair >> 16) * 255 << 16;
}

/* One token, whose dot products are there already: acc + what the step adds. */
PANEL_INLINE panel_f int_one(const int_step *s, panel_f acc, const tile_kind k)
{
    const uint16_t minus = (uint16_t)-s->offset;
    const uint32_t n_sub = k.halves ? 16 : 8;
    MFI_UNROLL(16)
    for (uint32_t i = 0; i < n_sub; i++) {
        const uint32_t b = k.halves ? i / 2 : i;
        const uint32_t pair = k.halves ? (uint32_t)minus << 16 * (i % 2) : minus * 0x10001u;
        panel_i dot = s->panel->dot[i];
        if (k.corr)
            dot = panel_dot2(dot, k.fine ? times_255(pair) : pair, word_at(s->h + 2 * b));
        if (k.corr && k.fine)
            dot = panel_dot2(dot, pair, word_at(s->h_lo + 2 * b));
        acc = panel_fma(__builtin_convertvector(dot, panel_f), s->panel->scale[i] * s->d[b], acc);
        if (k.min && k.halves)
            acc = panel_fma(s->panel->min[i],
                            (panel_f){0} + s->d[b] * (float)code_sum(s, 0, i, k.fine), acc);
        else if (k.min)
            acc = panel_fma(s->panel->min[i], (panel_f){0} + s->s[b], acc);
    }
    return acc;
}

/* n_tok 0: one token, whose dot products are in the panel. */
typedef void int_fn(const int_step *s, uint32_t n_tok);

PANEL_INLINE void int_tiles(const int_step *s, uint32_t n_tok, tile_kind k)
{
    uint32_t t = 0;
    if (n_tok == 0) {
        panel_f acc = s->first ? (panel_f){0} : panel_load(s->y, PANEL_ROWS);
        panel_store(s->y, PANEL_ROWS, int_one(s, acc, k));
        return;
    }
    k.n_t = PANEL_TOKS;
    for (; n_tok - t >= PANEL_TOKS; t += PANEL_TOKS)
        int_tile(s, t, k);
    k.n_t = 4;
    for (; n_tok - t >= 4 && PANEL_TOKS > 4; t += 4)
        int_tile(s, t, k);
    k.n_t = 2;
    for (; n_tok - t >= 2; t += 2)
        int_tile(s, t, k);
    k.n_t = 1;
    if (t < n_tok)
        int_tile(s, t, k);
}

#define INT_TILES(name, is_halves, has_min, has_corr, is_wide)                                     \
    static void name(const int_step *s, uint32_t n_tok)                                            \
    {                                                                                              \
        int_tiles(                                                                                 \
            s, n_tok,                                                                              \
            (tile_kind){.halves = is_halves, .min = has_min, .corr = has_corr, .wide = is_wide});  \
    }                                                                                              \
    static void name##_fine(const int_step *s, uint32_t n_tok)                                     \
    {                                                                                              \
        int_tiles(s, n_tok,                                                                        \
                  (tile_kind){.halves = is_halves,                                                 \
                              .min = has_min,                                                      \
                              .corr = has_corr,                                                    \
                              .wide = is_wide,                                                     \
                              .fine = true});                                                      \
    }

INT_TILES(tiles_min, false, true, false, false)
INT_TILES(tiles_half_min, true, true, false, false)
INT_TILES(tiles_offset, false, false, true, false)
INT_TILES(tiles_half_offset, true, false, true, false)
INT_TILES(tiles_wide, false, false, PANEL_SIGNED == 0, true)
INT_TILES(tiles_wide_min, false, true, PANEL_SIGNED != 0, true)

#ifdef PANEL_DOT_ROWS
/* One token whose dot products are less the offset's part already. */
#define INT_ONE(name, is_halves, has_min)                                                          \
    static void name(const int_step *s, uint32_t n_tok)                                            \
    {                                                                                              \
        (void)n_tok;                                                                               \
        int_tiles(s, 0, (tile_kind){.halves = is_halves, .min = has_min});                         \
    }

INT_ONE(one_plain, false, false)
INT_ONE(one_min, false, true)
INT_ONE(one_halves, true, false)

static int_fn *one_of(mfi_int_form f)
{
    MFI_ASSERT(!f.halves || !f.min);
    return f.min ? one_min : f.halves ? one_halves : one_plain;
}
#endif

static int_fn *tiles_of(mfi_int_form f, bool fine)
{
    if (f.wide && f.min)
        return fine ? tiles_wide_min_fine : tiles_wide_min;
    if (f.wide)
        return fine ? tiles_wide_fine : tiles_wide;
    if (f.halves && f.min)
        return fine ? tiles_half_min_fine : tiles_half_min;
    if (f.halves)
        return fine ? tiles_half_offset_fine : tiles_half_offset;
    if (f.min)
        return fine ? tiles_min_fine : tiles_min;
    return fine ? tiles_offset_fine : tiles_offset;
}

/* Rows that come after a panel's, in every plane. */
typedef struct ahead {
    const uint8_t *p[3];
    size_t bytes[3];
} ahead;

static ahead rows_ahead(const mfi_mat *w, uint32_t row, uint32_t row1)
{
    ahead next = {0};
    row += w->cols <= SHORT_COLS ? 2 * PANEL_ROWS : PANEL_ROWS;
    if (row >= row1) {
        row = w->next_row + (row - row1) / PANEL_ROWS * PANEL_ROWS;
        w = w->next;
        if (w && row >= w->rows)
            w = NULL;
    }
    for (uint32_t p = 0; w && p < mfi_quant_n_planes(w->type); p++) {
        const size_t row_bytes = mfi_quant_row_bytes(w->type, p, w->cols);
        next.p[p] = (const uint8_t *)w->planes[p] + row * row_bytes;
        next.bytes[p] = MFI_MIN(PANEL_ROWS, w->rows - row) * row_bytes;
    }
    return next;
}

/* Fetches the share of a step, in the order of addresses: memory sees one
 * stream. */
PANEL_INLINE void fetch_ahead(const ahead *next, uint32_t first, uint32_t step, uint32_t n_steps)
{
    for (uint32_t p = first; p < 3; p++) {
        const size_t begin = next->bytes[p] * step / n_steps,
                     end = next->bytes[p] * (step + 1) / n_steps;
        for (size_t i = begin; i < end; i += 64)
            __builtin_prefetch(next->p[p] + i, 0, 2);
    }
}

/* Rows that are fewer than a panel's, or columns fewer than a step's, unpacked from a copy: nothing
 * beyond them is read. */
static __attribute__((noinline)) void unpack_part(panel_fn *unpack, const mfi_mat *w,
                                                  const panel_plane at[3], uint32_t n_rows,
                                                  panel_part part, panel *out)
{
    uint8_t spare[3][PANEL_ROWS * SPARE_BYTES];
    panel_plane copy[3];
    memset(spare, 0, sizeof spare);
    for (uint32_t p = 0; p < mfi_quant_n_planes(w->type); p++) {
        /* A group of MLX's may reach beyond the last step's columns. */
        const uint32_t cols =
            (uint32_t)mfi_align_up(part.n_blocks * 32, w->type.group ? w->type.group : 1);
        const size_t n = mfi_quant_row_bytes(w->type, p, cols);
        MFI_ASSERT(n <= SPARE_BYTES);
        for (uint32_t r = 0; r < n_rows; r++)
            memcpy(spare[p] + r * SPARE_BYTES, at[p].p + r * at[p].stride, n);
        copy[p] = (panel_plane){spare[p], SPARE_BYTES};
    }
    part.whole_cols = 0;
    unpack(&part, copy, NULL, NULL, out);
}

static void int_rows(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                     uint32_t row0, uint32_t row1)
{
    mfi_int_form form;
    MFI_ASSERT(mfi_int_form_of(w->type, &form));
    const mfi_walk walk = mfi_walk_of(w);
    panel_fn *unpack = panel_unpacker(w->type);
    panel_fn *dot_rows = NULL;
    int_fn *tiles = tiles_of(form, x->lo), *one = tiles;
#ifdef PANEL_WHOLE_ROWS
    whole_fn *whole_rows = n_tok == 1 ? PANEL_WHOLE_ROWS(w->type, w->cols, x->lo) : NULL;
#endif
#ifdef PANEL_DOT_ROWS
    dot_rows = n_tok == 1 ? PANEL_DOT_ROWS(w->type, w->cols, x->lo) : NULL;
    if (dot_rows)
        one = one_of(form);
#endif
    const uint32_t n_steps = (w->cols + PANEL_STEP - 1) / PANEL_STEP;
    panel room;
    int_step s = {.panel = &room, .cols = w->cols, .n_blocks = w->cols / MFI_Q8_BLOCK, .ldy = ldy};
    s.offset = form.offset - (form.wide ? PANEL_SIGNED : 0);
    for (uint32_t row = row0; row < row1; row += PANEL_ROWS) {
        const ahead next = rows_ahead(w, row, row1);
        s.n_rows = MFI_MIN(row1 - row, PANEL_ROWS);
        s.y = y + row;
#ifdef PANEL_WHOLE_ROWS
        if (whole_rows && s.n_rows == PANEL_ROWS) {
            panel_plane at[3];
            for (uint32_t p = 0; p < walk.n_planes; p++)
                at[p] = (panel_plane){walk.base[p] + row * walk.row_bytes[p], walk.row_bytes[p]};
            const panel_part part = {w->type, w->cols / MFI_Q8_BLOCK, 0, w->cols,
                                     next.p[0] ? next.p[0] : at[0].p};
            fetch_ahead(&next, 1, 0, 1);
            whole_rows(&part, at, x, s.y);
            continue;
        }
#endif
        for (uint32_t c = 0, step = 0; c < w->cols; c += PANEL_STEP, step++) {
            panel_plane at[3];
            s.step_blocks = MFI_MIN(w->cols - c, PANEL_STEP) / MFI_Q8_BLOCK;
            s.first = c == 0;
            const mfi_q8 from = mfi_q8_from(*x, c);
            s.q = from.q;
            s.lo = from.lo;
            s.d = x->lo ? from.d_fine : from.d;
            s.s = x->lo ? from.s_fine : from.s;
            s.h = from.h;
            s.h_lo = from.h_lo;
            for (uint32_t p = 0; p < walk.n_planes; p++)
                at[p] = (panel_plane){walk.base[p] + row * walk.row_bytes[p] +
                                          step * walk.step_bytes[p],
                                      walk.row_bytes[p]};
            const bool whole = s.n_rows == PANEL_ROWS && s.step_blocks == PANEL_STEP / MFI_Q8_BLOCK;
            fetch_ahead(&next, whole && dot_rows, step, n_steps);
            const panel_part part = {w->type, s.step_blocks, c, w->cols,
                                     next.p[0] ? next.p[0] + next.bytes[0] * step / n_steps
                                               : at[0].p};
            if (whole && dot_rows)
                dot_rows(&part, at, s.q, s.lo, &room);
            else if (whole)
                unpack(&part, at, n_tok == 1 ? s.q : NULL, s.lo, &room);
            else
                unpack_part(unpack, w, at, s.n_rows, part, &room);
            if (whole && n_tok == 1)
                one(&s, 0);
            else
                tiles(&s, n_tok);
        }
    }
}

#endif
