/* What `moeflux top` shows: read from a server's JSON or from the lines of --stats, and drawn. */
#ifndef MOEFLUX_CLI_TOP_H
#define MOEFLUX_CLI_TOP_H

#include "base/buf.h"
#include "base/json.h"

#define TOP_SEATS_MAX 64

typedef struct top_seat {
    char state[12];
    double used, n_prompt, n_done, n_generated, seconds;
} top_seat;

/* Numbers are -1 where they aren't known. */
typedef struct top_picture {
    char title[256], policy[16], reader[16];
    double ctx, slots, experts_total, budget_bytes, peak_bytes;
    double generated_per_s, evaluated_per_s, generated, evaluated;
    double hits, misses;                                         /* of all time */
    double wall, arithmetic, stall, other, between, last_tokens; /* of the last evaluations; ns */
    double last_hits, last_misses, last_bytes;
    double ceiling, drive_per_s, reading, bytes_read;
    double running, waiting, parallel, queue, finished, aborted, failed, refused;
    double kv_used, kv_tokens, cached, queried;
    top_seat seats[TOP_SEATS_MAX];
    size_t n_seats;
    /* the map: [n_rows][n_experts]; none: n_rows is 0 */
    uint32_t n_rows, n_experts;
    uint32_t counts[4];         /* by tier */
    mfi_buf tiers, use, layers; /* layers: uint32_t[n_rows] */
} top_picture;

void top_picture_free(top_picture *picture);

/* ---- top_read.c ---- */

/* A member's text for the terminal: "?" for all that isn't printable ASCII; "" where there is none.
 */
void top_text(const mfi_json *object, const char *name, char *to, size_t size);

/* Takes /api/status; false if it is none. */
bool top_take_status(top_picture *picture, const mfi_json *status);
/* Takes /api/experts; no map if it makes no sense. */
void top_take_experts(top_picture *picture, const mfi_json *experts);

/* A file of --stats that grows, or that another run begins anew. */
typedef struct top_follow {
    const char *path;
    int fd;
    mfi_buf line;            /* begun */
    bool has_head, had_head; /* had_head: of a run before, too */
    double rows[32][9];      /* of the last evaluations, a ring */
    size_t n_rows;
} top_follow;

/* Reads what is new. Returns the exit code, with the failure reported. */
int top_follow_read(top_follow *follow, top_picture *picture);

/* ---- top_draw.c ---- */

typedef struct top_screen {
    unsigned columns, rows; /* rows: 0: as many as it takes */
    bool colours, utf8;
} top_screen;

/* Appends the picture, a line each with "\n". `note`: said at the bottom; may be NULL. */
void top_draw(const top_picture *picture, const top_screen *screen, const char *note, mfi_buf *out);

#endif
