/* What ops of the forward pass took: the part of `moeflux bench` that --ops adds. */
#ifndef MOEFLUX_CLI_BENCH_OPS_H
#define MOEFLUX_CLI_BENCH_OPS_H

#include "base/buf.h"
#include "moeflux/moeflux.h"

#define CLI_BENCH_OPS 96 /* kinds of ops that a program has, at most */

typedef struct cli_bench_ops {
    mf_op_time op[CLI_BENCH_OPS];
    size_t n;          /* 0: they weren't timed */
    uint64_t total_ns; /* of all measured runs */
    uint64_t stall_ns; /* of it, waiting for experts */
    uint64_t n_tokens; /* in them */
    double ceiling;    /* bytes a second */
    const char *test;  /* "pp512" */
} cli_bench_ops;

void cli_bench_ops_markdown(const cli_bench_ops *ops, mfi_buf *out);
/* The members, to stand in an object after others. */
void cli_bench_ops_json(const cli_bench_ops *ops, mfi_buf *out);
void cli_bench_ops_csv_head(mfi_buf *out);
void cli_bench_ops_csv(const cli_bench_ops *ops, mfi_buf *out);

#endif
