/* The plot of a replay; see replay_plot.h. Pure. */
#include "replay_plot.h"

#include <string.h>

#define LEFT   60.0
#define TOP    20.0
#define WIDTH  560.0
#define HEIGHT 320.0

static double x_of(double share)
{
    return LEFT + WIDTH * share;
}

static double y_of(double rate)
{
    return TOP + HEIGHT * (1 - rate);
}

static void put_axes(mfi_buf *svg)
{
    for (int i = 0; i <= 10; i += 2) {
        double x = x_of(i / 10.0), y = y_of(i / 10.0);
        mfi_buf_fmt(svg,
                    "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#ddd\"/>"
                    "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%d %%</text>\n"
                    "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#ddd\"/>"
                    "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%d %%</text>\n",
                    LEFT, y, LEFT + WIDTH, LEFT - 6, y + 4, i * 10, x, TOP, TOP + HEIGHT, x,
                    TOP + HEIGHT + 16, i * 10);
    }
    mfi_buf_fmt(
        svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">experts cached, of all</text>\n",
        LEFT + WIDTH / 2, TOP + HEIGHT + 36);
}

/* Line k of the sweep; the one after the last policy is the bound. */
static void put_line(const cli_replay_sweep *s, size_t k, uint64_t total, uint64_t n_choices,
                     mfi_buf *svg)
{
    static const char *const colours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd"};
    bool bound = k == s->n_policies;
    const char *colour = bound ? "#555" : colours[k],
               *dash = bound ? " stroke-dasharray=\"5 4\"" : "";
    mfi_buf_fmt(svg, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s points=\"", colour,
                dash);
    for (size_t i = 0; i < s->n_points; i++) {
        const cli_replay_point *p = &s->points[i];
        uint64_t hits = bound ? p->bound : p->hits[k];
        mfi_buf_fmt(svg, "%s%.1f,%.1f", i ? " " : "", x_of((double)p->n_slots / (double)total),
                    y_of((double)hits / (double)n_choices));
    }
    double y = TOP + HEIGHT - 16.0 * (double)(s->n_policies - k) - 12;
    mfi_buf_fmt(svg,
                "\"/><path d=\"M%.1f %.1fh24\" stroke=\"%s\" stroke-width=\"2\"%s/>"
                "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                LEFT + WIDTH - 110, y, colour, dash, LEFT + WIDTH - 80, y + 4,
                bound ? "bound (Belady)" : s->policies[k]);
}

void cli_replay_plot(const cli_replay_sweep *sweep, uint64_t total, uint64_t n_choices,
                     mfi_buf *svg)
{
    mfi_buf_fmt(svg,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
                "font-family=\"sans-serif\" font-size=\"12\">\n"
                "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
                LEFT + WIDTH + 20, TOP + HEIGHT + 50);
    put_axes(svg);
    for (size_t k = 0; k <= sweep->n_policies; k++)
        put_line(sweep, k, total, n_choices, svg);
    mfi_buf_str(svg, "</svg>\n");
}
