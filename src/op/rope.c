/* Rotary frequencies; see rope.h. Pure; called by backends when a program is prepared, and by
 * whoever wants to know them. In double throughout: a float frequency is off by a radian after a
 * million positions. */
#include "op/rope.h"

#include <math.h>

#define TWO_PI 6.283185307179586477

/* The pair that makes `rotations` turns over the original context: n_rot ln(ctx / (2 pi rotations))
 * / (2 ln theta). */
static double ramp_end(const mfi_rope *r, uint32_t n_rot, double rotations)
{
    return n_rot * log(r->original_ctx / (rotations * TWO_PI)) / (2 * log(r->theta));
}

static void yarn(const mfi_rope *r, uint32_t n_rot, double *freq)
{
    double low = ramp_end(r, n_rot, r->beta_fast), high = ramp_end(r, n_rot, r->beta_slow);
    if (!r->exact) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, n_rot - 1.0);
    if (low == high)
        high += 0.001; /* as the reference does, against a division by zero */
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        double slow = fmin(fmax((i - low) / (high - low), 0), 1);
        freq[i] = freq[i] / r->factor * slow + freq[i] * (1 - slow);
    }
}

static void llama3(const mfi_rope *r, uint32_t n_rot, double *freq)
{
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        double turns = r->original_ctx * freq[i] / TWO_PI; /* over the original context */
        double fast = (turns - r->beta_slow) / (r->beta_fast - r->beta_slow);
        fast = fmin(fmax(fast, 0), 1);
        freq[i] = freq[i] / r->factor * (1 - fast) + freq[i] * fast;
    }
}

double mfi_rope_mscale(double factor, double weight)
{
    return factor > 1 ? 0.1 * weight * log(factor) + 1 : 1;
}

void mfi_rope_frequencies(const mfi_rope *r, uint32_t n_rot, double *freq)
{
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        freq[i] = pow(r->theta, -2.0 * i / n_rot);
        if (r->kind == MFI_ROPE_LINEAR)
            freq[i] /= r->factor;
    }
    if (r->kind == MFI_ROPE_YARN)
        yarn(r, n_rot, freq);
    else if (r->kind == MFI_ROPE_LLAMA3)
        llama3(r, n_rot, freq);
}
