/* Rotary frequencies: plain, or stretched for contexts longer than the model was trained on. */
#ifndef MFI_OP_ROPE_H
#define MFI_OP_ROPE_H

#include "base/defs.h"

typedef enum mfi_rope_kind {
    MFI_ROPE_PLAIN,
    MFI_ROPE_LINEAR, /* all frequencies divided by the factor */
    MFI_ROPE_YARN, /* slow ones divided, fast ones as they are, a ramp between (arXiv 2309.00071) */
    MFI_ROPE_LLAMA3 /* the same idea by wavelength, as in Llama 3.1 */
} mfi_rope_kind;

typedef struct mfi_rope {
    mfi_rope_kind kind;
    double theta;
    double factor;               /* not PLAIN: by how much the context is stretched */
    uint32_t original_ctx;       /* YARN, LLAMA3: positions that the model was trained on */
    double beta_fast, beta_slow; /* YARN: rotations over original_ctx between which the ramp lies;
                                    LLAMA3: high_freq_factor, low_freq_factor */
    bool exact;                  /* YARN: the ramp's ends aren't rounded outwards to whole pairs */
    double attn_factor;          /* cosines and sines are multiplied by it */
    double mscale_all_dim; /* YARN: latent attention scales its scores by its mscale squared */
} mfi_rope;

/* YaRN's scale of magnitudes: 0.1 weight ln(factor) + 1, or 1 where nothing is stretched. */
double mfi_rope_mscale(double factor, double weight);

/* Radians a position of each pair, [n_rot / 2]. */
void mfi_rope_frequencies(const mfi_rope *rope, uint32_t n_rot, double *freq);

#endif
