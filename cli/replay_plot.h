/* The sweep of a replay, and its plot. */
#ifndef MOEFLUX_CLI_REPLAY_PLOT_H
#define MOEFLUX_CLI_REPLAY_PLOT_H

#include "base/buf.h"

#define CLI_REPLAY_POINTS_MAX   64
#define CLI_REPLAY_POLICIES_MAX 4

typedef struct cli_replay_point {
    uint32_t n_slots;
    uint64_t hits[CLI_REPLAY_POLICIES_MAX], bound;
} cli_replay_point;

typedef struct cli_replay_sweep {
    cli_replay_point points[CLI_REPLAY_POINTS_MAX];
    size_t n_points;
    char policies[CLI_REPLAY_POLICIES_MAX][64]; /* names */
    size_t n_policies;
} cli_replay_sweep;

/* Hit rate over cache size as SVG: a line a policy and one for the bound. `total` experts are 100 %
 * of the one axis, n_choices of the other. */
void cli_replay_plot(const cli_replay_sweep *sweep, uint64_t total, uint64_t n_choices,
                     mfi_buf *svg);

#endif
