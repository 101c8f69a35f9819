/* See ppl_report.h. The lines are llama-perplexity's, so that scripts which read those read these.
 */
#include "ppl_report.h"

#include <string.h>

#include "base/json.h"

static const double fractions[] = {0.999, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001};

void cli_ppl_put_head(mfi_buf *out)
{
    mfi_buf_str(out, "chunk             PPL               ln(PPL(Q)/PPL(base))          KL "
                     "Divergence              Δp RMS            Same top p\n");
}

void cli_ppl_put_chunk(const cli_ppl *p, uint32_t chunk, mfi_buf *out)
{
    const cli_ppl_figures f = cli_ppl_figures_of(p);
    if (!p->klds) {
        mfi_buf_fmt(out, "[%u]%.4f,", chunk + 1, f.ppl.value);
        return;
    }
    mfi_buf_fmt(out, "%4u    %9.4f ± %9.4f    %10.5f ± %10.5f    %10.5f ± %10.5f", chunk + 1,
                f.ppl.value, f.ppl.error, f.log_ratio.value, f.log_ratio.error, f.kld.value,
                f.kld.error);
    mfi_buf_fmt(out, "    %6.3f ± %6.3f %%    %6.3f ± %6.3f %%\n", 100 * f.rms_dp.value,
                100 * f.rms_dp.error, 100 * f.same_top.value, 100 * f.same_top.error);
}

static void put_estimate(mfi_buf *out, const char *name, cli_estimate e)
{
    mfi_buf_fmt(out, "%s: %10.6f ± %10.6f\n", name, e.value, e.error);
}

static void put_kld_quantiles(const cli_ppl *p, mfi_buf *out)
{
    const size_t n = (size_t)p->n;
    mfi_buf_fmt(out, "Maximum KLD: %10.6f\n", (double)p->klds[n - 1]);
    for (size_t i = 0; i < MFI_ARRAY_LEN(fractions); i++) {
        const double f = fractions[i], value = cli_quantile(p->klds, n, f);
        if (f == 0.5)
            mfi_buf_fmt(out, "Median  KLD: %10.6f\n", value);
        else if (f != 0.75 && f != 0.25) /* not among llama.cpp's */
            mfi_buf_fmt(out, "%4.1f%%   KLD: %10.6f\n", 100 * f, value);
    }
    mfi_buf_fmt(out, "Minimum KLD: %10.6f\n\n", (double)p->klds[0]);
}

static void put_dp_quantiles(const cli_ppl *p, mfi_buf *out)
{
    const size_t n = (size_t)p->n;
    mfi_buf_fmt(out, "Maximum Δp: %6.3f%%\n", 100 * (double)p->dps[n - 1]);
    for (size_t i = 0; i < MFI_ARRAY_LEN(fractions); i++) {
        const double f = fractions[i], value = 100 * cli_quantile(p->dps, n, f);
        if (f == 0.5)
            mfi_buf_fmt(out, "Median  Δp: %6.3f%%\n", value);
        else
            mfi_buf_fmt(out, "%4.1f%%   Δp: %6.3f%%\n", 100 * f, value);
    }
    mfi_buf_fmt(out, "Minimum Δp: %6.3f%%\n", 100 * (double)p->dps[0]);
}

static void sort_values(cli_ppl *p)
{
    cli_sort_floats(p->klds, (size_t)p->n);
    cli_sort_floats(p->dps, (size_t)p->n);
}

void cli_ppl_put_end(cli_ppl *p, mfi_buf *out)
{
    const cli_ppl_figures f = cli_ppl_figures_of(p);
    mfi_buf_str(out, "\n");
    if (!p->klds) {
        mfi_buf_fmt(out, "Final estimate: PPL = %.4f +/- %.5f\n", f.ppl.value, f.ppl.error);
        return;
    }
    sort_values(p);
    mfi_buf_str(out, "====== Perplexity statistics ======\n");
    put_estimate(out, "Mean PPL(Q)                   ", f.ppl);
    put_estimate(out, "Mean PPL(base)                ", f.base);
    mfi_buf_fmt(out, "Cor(ln(PPL(Q)), ln(PPL(base))): %6.2f%%\n", 100 * f.correlation);
    put_estimate(out, "Mean ln(PPL(Q)/PPL(base))     ", f.log_ratio);
    put_estimate(out, "Mean PPL(Q)/PPL(base)         ", f.ratio);
    put_estimate(out, "Mean PPL(Q)-PPL(base)         ", f.difference);
    mfi_buf_str(out, "\n====== KL divergence statistics ======\n");
    put_estimate(out, "Mean    KLD", f.kld);
    put_kld_quantiles(p, out);
    mfi_buf_str(out, "====== Token probability statistics ======\n");
    mfi_buf_fmt(out, "Mean    Δp: %6.3f ± %5.3f %%\n", 100 * f.dp.value, 100 * f.dp.error);
    put_dp_quantiles(p, out);
    mfi_buf_fmt(out, "RMS Δp    : %6.3f ± %5.3f %%\n", 100 * f.rms_dp.value, 100 * f.rms_dp.error);
    mfi_buf_fmt(out, "Same top p: %6.3f ± %5.3f %%\n", 100 * f.same_top.value,
                100 * f.same_top.error);
}

/* ---- JSON ---- */

static void put_member(mfi_buf *out, const char *name, cli_estimate e)
{
    mfi_buf_fmt(out, ",\"%s\":", name);
    mfi_json_put_f64(out, e.value);
    mfi_buf_fmt(out, ",\"%s_error\":", name);
    mfi_json_put_f64(out, e.error);
}

/* From the least to the most. */
static void put_quantiles(mfi_buf *out, const char *name, const float *values, size_t n)
{
    mfi_buf_fmt(out, ",\"%s_quantiles\":{\"0\":", name);
    mfi_json_put_f64(out, (double)values[0]);
    for (size_t i = MFI_ARRAY_LEN(fractions); i-- > 0;) {
        mfi_buf_fmt(out, ",\"%g\":", fractions[i]);
        mfi_json_put_f64(out, cli_quantile(values, n, fractions[i]));
    }
    mfi_buf_str(out, ",\"1\":");
    mfi_json_put_f64(out, (double)values[n - 1]);
    mfi_buf_str(out, "}");
}

void cli_ppl_put_json(const cli_ppl_facts *facts, cli_ppl *p, mfi_buf *out)
{
    const cli_ppl_figures f = cli_ppl_figures_of(p);
    mfi_buf_fmt(out, "{\"schema\":1,\"model\":{\"family\":\"%s\",\"weights\":\"%s\"},",
                facts->info->family, facts->info->weights);
    mfi_buf_fmt(out, "\"activations\":\"%s\",\"isa\":\"%s\",\"n_ctx\":%u,\"n_chunks\":%u,",
                facts->info->activations, facts->info->isa, facts->n_ctx, facts->n_chunks);
    mfi_buf_fmt(out, "\"n_scored\":%llu", (unsigned long long)p->n);
    put_member(out, "ppl", f.ppl);
    mfi_buf_str(out, ",\"ppl_after\":[");
    for (uint32_t i = 0; i < facts->n_chunks; i++) {
        mfi_buf_str(out, i ? "," : "");
        mfi_json_put_f64(out, facts->chunk_ppl[i]);
    }
    mfi_buf_str(out, "]");
    if (p->klds) {
        sort_values(p);
        put_member(out, "ppl_base", f.base);
        put_member(out, "ln_ppl_ratio", f.log_ratio);
        put_member(out, "ppl_ratio", f.ratio);
        put_member(out, "ppl_difference", f.difference);
        mfi_buf_str(out, ",\"ln_ppl_correlation\":");
        mfi_json_put_f64(out, f.correlation);
        put_member(out, "kld", f.kld);
        put_quantiles(out, "kld", p->klds, (size_t)p->n);
        put_member(out, "dp", f.dp);
        put_quantiles(out, "dp", p->dps, (size_t)p->n);
        put_member(out, "dp_rms", f.rms_dp);
        put_member(out, "same_top", f.same_top);
    }
    mfi_buf_str(out, "}\n");
}
