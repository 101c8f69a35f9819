/* Draws `moeflux top`'s picture as lines of text, with colours and half blocks where the terminal
 * has them; pure. */
#include <stdio.h>
#include <string.h>

#include "top.h"

/* ---- lines ---- */

/* Appends a line of ASCII, cut to the screen. */
static void line(const top_screen *s, mfi_buf *out, const char *text)
{
    mfi_buf_append(out, text, MFI_MIN(strlen(text), (size_t)s->columns));
    mfi_buf_str(out, "\n");
}

/* "-" for what isn't known; with a unit of 1024. */
static const char *size(char to[16], double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;
    if (bytes < 0)
        return "-";
    for (; bytes >= 1024 && u + 1 < MFI_ARRAY_LEN(units); u++)
        bytes /= 1024;
    snprintf(to, 16, bytes < 10 && u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return to;
}

static const char *part(char to[16], double of, double whole)
{
    if (whole <= 0 || of < 0)
        return "-";
    snprintf(to, 16, "%.0f %%", 100 * of / whole);
    return to;
}

static const char *count(char to[16], double n)
{
    if (n < 0)
        return "-";
    snprintf(to, 16, n >= 100 || n == (double)(long)n ? "%.0f" : "%.1f", n);
    return to;
}

static void bar(char *to, size_t n, double of, double whole)
{
    double share = whole > 0 && of > 0 ? of / whole : 0;
    size_t full = (size_t)(MFI_MIN(share, 1) * (double)n + 0.5);
    memset(to, '#', full);
    memset(to + full, '.', n - full);
    to[n] = 0;
}

static void put_numbers(const top_picture *p, const top_screen *s, mfi_buf *out)
{
    char text[512], a[16], b[16], c[16], d[16], e[16];
    double now = p->last_hits + p->last_misses;
    snprintf(text, sizeof text,
             "speed    %s tokens/s generated, %s evaluated; %s generated, %s evaluated in all",
             count(a, p->generated_per_s), count(b, p->evaluated_per_s), count(c, p->generated),
             count(d, p->evaluated));
    line(s, out, text);
    snprintf(text, sizeof text,
             "hits     %s of late, %s in all; %s of %s experts have a slot, policy %s",
             part(a, p->last_hits, now), part(b, p->hits, p->hits + p->misses), count(c, p->slots),
             count(d, p->experts_total), p->policy);
    line(s, out, text);
    snprintf(text, sizeof text,
             "drive    %s/s of %s/s (%s), reads under way %s of the time; %s read; reader %s",
             size(a, p->drive_per_s), size(b, p->ceiling), part(c, p->drive_per_s, p->ceiling),
             part(d, p->reading, p->reading < 0 ? 0 : 1), size(e, p->bytes_read), p->reader);
    line(s, out, text);
    snprintf(text, sizeof text, "memory   peak %s of %s", size(a, p->peak_bytes),
             size(b, p->budget_bytes));
    line(s, out, text);
}

/* Where the time of the last evaluations went. */
static void put_time(const top_picture *p, const top_screen *s, mfi_buf *out)
{
    const struct {
        const char *name;
        double ns;
    } parts[] = {{"compute", p->arithmetic}, {"waiting", p->stall}, {"other", p->other}};
    char text[256], bars[64], a[16];
    for (size_t i = 0; i < MFI_ARRAY_LEN(parts); i++) {
        bar(bars, 40, parts[i].ns, p->wall);
        snprintf(text, sizeof text, "%s %-8s %s %6s  %8.3f ms a token", i ? "        " : "time    ",
                 parts[i].name, bars, part(a, parts[i].ns, p->wall),
                 p->last_tokens > 0 ? parts[i].ns / 1e6 / p->last_tokens : 0.0);
        line(s, out, text);
    }
}

static void put_requests(const top_picture *p, const top_screen *s, mfi_buf *out)
{
    char text[512], bars[64], a[16], b[16], c[16], d[16];
    if (p->running < 0)
        return;
    snprintf(text, sizeof text,
             "requests %.0f of %.0f running, %.0f of %.0f waiting; %s finished, %s aborted, %s "
             "failed, %s refused",
             p->running, p->parallel, p->waiting, p->queue, count(a, p->finished),
             count(b, p->aborted), count(c, p->failed), count(d, p->refused));
    line(s, out, text);
    snprintf(text, sizeof text, "prefixes %s of the prompts' tokens were known; context %s used",
             part(a, p->cached, p->queried), part(b, p->kv_used, p->kv_tokens));
    line(s, out, text);
    for (size_t i = 0; i < p->n_seats; i++) {
        const top_seat *seat = &p->seats[i];
        bar(bars, 20, seat->used, p->ctx);
        int n = snprintf(text, sizeof text, "session  %2zu %-6s %s %s tokens", i, seat->state, bars,
                         count(a, seat->used));
        if (seat->seconds >= 0)
            snprintf(text + n, sizeof text - (size_t)n,
                     "; prompt %.0f of %.0f, answer %.0f, %.1f s", seat->n_done, seat->n_prompt,
                     seat->n_generated, seat->seconds);
        line(s, out, text);
    }
}

/* ---- the map ---- */

typedef struct cell {
    uint8_t tier, use;
} cell;

/* The experts [from, to) of the rows [top, end): the best tier, the most use. */
static cell cell_of(const top_picture *p, uint32_t top, uint32_t end, uint32_t from, uint32_t to)
{
    cell c = {0, 0};
    for (uint32_t r = top; r < end; r++)
        for (uint32_t e = from; e < to; e++) {
            size_t at = (size_t)r * p->n_experts + e;
            c.tier = MFI_MAX(c.tier, (uint8_t)((uint8_t)p->tiers.data[at] & 3));
            c.use = MFI_MAX(c.use, (uint8_t)p->use.data[at]);
        }
    return c;
}

/* Of the terminal's 256 colours. */
static unsigned colour(cell c)
{
    static const uint8_t host[] = {22, 28, 34, 40, 46}, device[] = {18, 20, 27, 33, 45};
    unsigned step = c.use / 52u; /* 0 to 4 */
    switch (c.tier) {
    case 1:
        return 214;
    case 2:
        return host[step];
    case 3:
        return device[step];
    default:
        return 233 + 3 * step;
    }
}

/* Without colours: capital ones are cached. */
static char letter(cell c)
{
    static const char cached[] = "oxX%@", elsewhere[] = " .-=+";
    return c.tier == 1 ? '~' : c.tier ? cached[c.use / 52u] : elsewhere[c.use / 52u];
}

typedef struct map {
    uint32_t columns, lines;    /* of the screen */
    uint32_t per_cell, per_row; /* experts and layers that share a place */
    uint32_t n_rows;            /* of the picture, so shared */
} map;

static void put_row(const top_picture *p, const top_screen *s, const map *m, uint32_t row,
                    mfi_buf *out)
{
    const uint32_t *layers = (const uint32_t *)(const void *)p->layers.data;
    bool half = s->colours && s->utf8;
    unsigned fore = 999, back = 999;
    uint32_t top = row * m->per_row, mid = MFI_MIN(top + m->per_row, p->n_rows);
    uint32_t end = MFI_MIN(mid + m->per_row, p->n_rows);
    mfi_buf_fmt(out, "%4u ", layers[top]);
    for (uint32_t x = 0; x < m->columns; x++) {
        uint32_t from = x * m->per_cell, to = MFI_MIN(from + m->per_cell, p->n_experts);
        cell c = cell_of(p, top, mid, from, to);
        if (!s->colours) {
            mfi_buf_append(out, &(char){letter(c)}, 1);
            continue;
        }
        unsigned b = colour(c), f = b;
        if (half && mid < end)
            b = colour(cell_of(p, mid, end, from, to));
        if (half && f != fore)
            mfi_buf_fmt(out, "\x1b[38;5;%um", f);
        if (b != back)
            mfi_buf_fmt(out, "\x1b[48;5;%um", b);
        fore = f;
        back = b;
        mfi_buf_str(out, half ? "\xe2\x96\x80" : " ");
    }
    mfi_buf_str(out, s->colours ? "\x1b[0m\n" : "\n");
}

static void put_map(const top_picture *p, const top_screen *s, unsigned rows_left, mfi_buf *out)
{
    char text[256];
    if (!p->n_rows || s->columns < 16)
        return;
    map m = {.per_cell = (p->n_experts + s->columns - 6) / (s->columns - 5), .per_row = 1};
    uint32_t a_line = s->colours && s->utf8 ? 2 : 1;
    m.columns = (p->n_experts + m.per_cell - 1) / m.per_cell;
    if (s->rows && rows_left < 3)
        return;
    while (s->rows && (p->n_rows + m.per_row * a_line - 1) / (m.per_row * a_line) > rows_left - 2)
        m.per_row++;
    snprintf(text, sizeof text,
             "experts  %u on the drive, %u being read, %u in memory, %u on the device%s",
             p->counts[0], p->counts[1], p->counts[2], p->counts[3],
             s->colours ? "; brighter: used more of late"
                        : "; o x X % @ cached, . - = + not, by use; ~ read");
    line(s, out, text);
    for (uint32_t row = 0; row * m.per_row < p->n_rows; row += a_line)
        put_row(p, s, &m, row, out);
}

void top_draw(const top_picture *p, const top_screen *s, const char *note, mfi_buf *out)
{
    size_t from = out->len, lines = 0;
    line(s, out, p->title);
    put_numbers(p, s, out);
    put_time(p, s, out);
    put_requests(p, s, out);
    for (size_t i = from; i < out->len && !out->failed; i++)
        lines += out->data[i] == '\n';
    unsigned note_lines = note ? 1 : 0;
    put_map(p, s, s->rows > lines + note_lines ? (unsigned)(s->rows - lines - note_lines) : 0, out);
    if (note)
        line(s, out, note);
}
