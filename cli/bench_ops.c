/* See bench_ops.h. What is left of the time is waiting for experts, and the rest: the walk through
 * the program, and outputs. */
#include "bench_ops.h"

static uint64_t rest_ns(const cli_bench_ops *b)
{
    uint64_t known = b->stall_ns;
    for (size_t i = 0; i < b->n; i++)
        known += b->op[i].ns;
    return known < b->total_ns ? b->total_ns - known : 0;
}

static double share(const cli_bench_ops *b, uint64_t ns)
{
    return b->total_ns ? (double)ns / (double)b->total_ns : 0;
}

static double rate(const mf_op_time *op)
{
    return op->ns ? (double)op->bytes / (double)op->ns : 0; /* bytes a ns are GB a second */
}

static void put_line(const cli_bench_ops *b, const char *name, uint64_t ns, mfi_buf *out)
{
    mfi_buf_fmt(out, "| %s | - | %.1f | %.1f %% | - | - | - |\n", name,
                (double)ns * 1e-3 / (double)b->n_tokens, 100 * share(b, ns));
}

void cli_bench_ops_markdown(const cli_bench_ops *b, mfi_buf *out)
{
    const double tokens = (double)b->n_tokens;
    mfi_buf_fmt(out,
                "\n| op in %s | runs a token | µs a token | share | MB a token | GB/s | of %.1f "
                "|\n",
                b->test, b->ceiling * 1e-9);
    mfi_buf_str(out, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for (size_t i = 0; i < b->n; i++) {
        const mf_op_time *op = &b->op[i];
        mfi_buf_fmt(out, "| %s | %.2f | %.1f | %.1f %% | ", op->name, (double)op->n_runs / tokens,
                    (double)op->ns * 1e-3 / tokens, 100 * share(b, op->ns));
        if (op->bytes)
            mfi_buf_fmt(out, "%.3f | %.2f | %.0f %% |\n", (double)op->bytes * 1e-6 / tokens,
                        rate(op), 100e9 * rate(op) / b->ceiling);
        else
            mfi_buf_str(out, "- | - | - |\n");
    }
    put_line(b, "waiting for experts", b->stall_ns, out);
    put_line(b, "everything else", rest_ns(b), out);
}

void cli_bench_ops_json(const cli_bench_ops *b, mfi_buf *out)
{
    mfi_buf_str(out, ", \"ops\": [");
    for (size_t i = 0; i < b->n; i++) {
        const mf_op_time *op = &b->op[i];
        mfi_buf_fmt(out, "%s{\"op\": \"%s\", \"runs\": %llu, \"ns\": %llu, \"share\": %.6f, ",
                    i ? ", " : "", op->name, (unsigned long long)op->n_runs,
                    (unsigned long long)op->ns, share(b, op->ns));
        mfi_buf_fmt(out, "\"bytes\": %llu, \"gb_s\": %.3f}", (unsigned long long)op->bytes,
                    rate(op));
    }
    mfi_buf_fmt(out, "], \"ops_total_ns\": %llu, \"ops_stall_ns\": %llu, \"ops_other_ns\": %llu",
                (unsigned long long)b->total_ns, (unsigned long long)b->stall_ns,
                (unsigned long long)rest_ns(b));
}

void cli_bench_ops_csv_head(mfi_buf *out)
{
    mfi_buf_str(out, "\ntest,op,runs,ns,share,bytes,gb_s,ceiling_gb_s\n");
}

void cli_bench_ops_csv(const cli_bench_ops *b, mfi_buf *out)
{
    for (size_t i = 0; i < b->n; i++) {
        const mf_op_time *op = &b->op[i];
        mfi_buf_fmt(out, "%s,%s,%llu,%llu,%.6f,%llu,%.3f,%.3f\n", b->test, op->name,
                    (unsigned long long)op->n_runs, (unsigned long long)op->ns, share(b, op->ns),
                    (unsigned long long)op->bytes, rate(op), b->ceiling * 1e-9);
    }
    mfi_buf_fmt(out, "%s,waiting for experts,0,%llu,%.6f,0,0,0\n", b->test,
                (unsigned long long)b->stall_ns, share(b, b->stall_ns));
    mfi_buf_fmt(out, "%s,everything else,0,%llu,%.6f,0,0,0\n", b->test,
                (unsigned long long)rest_ns(b), share(b, rest_ns(b)));
}
