/* See ppl.h. Pure: reads what it is given and allocates nothing. */
#include "ppl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kl_base.h"

bool cli_ppl_log_sum(const float *logits, uint32_t n_vocab, double *log_sum, uint32_t *top)
{
    uint32_t best = 0;
    double sum = 0;
    for (uint32_t i = 1; i < n_vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    for (uint32_t i = 0; i < n_vocab; i++)
        sum += expf(logits[i] - logits[best]); /* NaN spoils it, so does a best that is infinite */
    *log_sum = (double)logits[best] + log(sum);
    *top = best;
    return isfinite(*log_sum);
}

void cli_ppl_add(cli_ppl *p, const float *logits, uint32_t n_vocab, double log_sum, uint32_t top,
                 uint32_t next, const uint16_t *base)
{
    const double nll = log_sum - (double)logits[next];
    p->nll += nll;
    p->nll2 += nll * nll;
    if (base) {
        float scale[2];
        memcpy(scale, base, sizeof scale);
        const double base_nll = -(double)cli_kl_logprob(scale, base, next);
        double kld = 0;
        uint32_t base_top = 0;
        for (uint32_t i = 0; i < n_vocab; i++) {
            const float log_p = cli_kl_logprob(scale, base, i);
            if (base[4 + i] > base[4 + base_top])
                base_top = i;
            /* What lies lower was cut off, and says nothing. */
            if (log_p > -CLI_KL_RANGE)
                kld += (double)expf(log_p) * ((double)log_p - (double)logits[i] + log_sum);
        }
        const double dp = exp(-nll) - exp(-base_nll);
        p->base += base_nll;
        p->base2 += base_nll * base_nll;
        p->both += nll * base_nll;
        p->kld += kld;
        p->kld2 += kld * kld;
        p->dp += dp;
        p->dp2 += dp * dp;
        p->dp4 += dp * dp * dp * dp;
        p->n_same_top += base_top == top;
        p->klds[p->n] = (float)kld;
        p->dps[p->n] = (float)dp;
    }
    p->n++;
}

static cli_estimate mean(double sum, double squares, uint64_t n)
{
    const double m = sum / (double)n, var = squares / (double)n - m * m;
    return (cli_estimate){m, var > 0 && n > 1 ? sqrt(var / (double)(n - 1)) : 0};
}

/* e to the power of it. */
static cli_estimate power(cli_estimate e)
{
    return (cli_estimate){exp(e.value), exp(e.value) * e.error};
}

/* Of a - b. */
static cli_estimate minus(cli_estimate a, cli_estimate b, double covariance)
{
    const double var = a.error * a.error + b.error * b.error - 2 * covariance;
    return (cli_estimate){a.value - b.value, var > 0 ? sqrt(var) : 0};
}

cli_ppl_figures cli_ppl_figures_of(const cli_ppl *p)
{
    const double n = (double)p->n;
    const cli_estimate log_ppl = mean(p->nll, p->nll2, p->n);
    cli_ppl_figures f = {.ppl = power(log_ppl)};
    if (!p->klds)
        return f;
    const cli_estimate log_base = mean(p->base, p->base2, p->n);
    /* Of the means, as the errors are. */
    const double cov = n > 1 ? (p->both / n - p->nll / n * (p->base / n)) / (n - 1) : 0;
    f.base = power(log_base);
    f.log_ratio = minus(log_ppl, log_base, cov);
    f.ratio = power(f.log_ratio);
    f.difference = minus(f.ppl, f.base, f.ppl.value * f.base.value * cov);
    if (log_ppl.error > 0 && log_base.error > 0)
        f.correlation = cov / (log_ppl.error * log_base.error);
    f.kld = mean(p->kld, p->kld2, p->n);
    f.dp = mean(p->dp, p->dp2, p->n);
    const cli_estimate square = mean(p->dp2, p->dp4, p->n);
    f.rms_dp.value = sqrt(square.value);
    f.rms_dp.error = square.value > 0 ? square.error / (2 * f.rms_dp.value) : 0;
    f.same_top.value = (double)p->n_same_top / n;
    f.same_top.error = n > 1 ? sqrt(f.same_top.value * (1 - f.same_top.value) / (n - 1)) : 0;
    return f;
}

double cli_quantile(const float *values, size_t n, double fraction)
{
    const double at = fraction * (double)(n - 1);
    const size_t i = (size_t)at;
    const double part = at - (double)i;
    return (1 - part) * (double)values[i] + part * (double)values[MFI_MIN(i + 1, n - 1)];
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

void cli_sort_floats(float *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
}
