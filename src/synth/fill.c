/* Random blocks; see fill.h. Called by the writer on its thread, a piece at a time; pure.
 *
 * Random bits alone would be worthless: block types with a minimum or an offset decode them to
 * values with a mean, the mean turns every product into a multiple of the sum of its input, and all
 * tokens get the same experts. So every type is centred block by block:
 *   Q8_0, Q4_0  the code without a negative counterpart is never written
 *   Q4_K        codes are 0 to 15 and their mean is 7.5: dmin is 7.5 d to the bit, and each
 *               sub-block's minimum code equals its scale code
 *   Q6_K        codes have the mean -0.5: the sub-blocks' scales have random signs
 *   MXFP4       has a sign; two exponents are mixed, because one of them is too coarse
 *   floats      odd multiples of a step, both signs
 * Block scales vary between 0.7 and 1.3 of their mean square. */
#include "synth/fill.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"

#define GGML_Q4_0  2
#define GGML_Q8_0  8
#define GGML_Q4_K  12
#define GGML_Q6_K  14
#define GGML_MXFP4 39

/* Root mean square of codes times sub-block codes, the scale d being 1. */
#define RMS_Q8_0  73.6116 /* -127 to 127, with 0 twice */
#define RMS_Q4_0  4.18330 /* -7 to 7, with 0 twice */
#define RMS_SUB   23.9479 /* 16 to 31 */
#define RMS_Q4_K  (RMS_SUB * 4.60977)
#define RMS_Q6_K  (RMS_SUB * 18.4797)
#define RMS_MXFP4 2.92617 /* +-{0, 0.5, 1, 1.5, 2, 3, 4, 6} */

#define STREAM_SCALES 0x5ca1e5u

uint64_t mfi_fill_key(uint64_t seed, const char *name)
{
    return mfi_fill_word(seed, mfi_hash_bytes(name, strlen(name)));
}

/* Block scale number i of MFI_FILL_SCALES, their mean square being 1. */
static double spread(int i)
{
    const double lo = 0.7, step = 0.6 / (MFI_FILL_SCALES - 1);
    double mean_sq = 0;
    for (int j = 0; j < MFI_FILL_SCALES; j++)
        mean_sq += (lo + step * j) * (lo + step * j) / MFI_FILL_SCALES;
    return (lo + step * i) / sqrt(mean_sq);
}

static void set_scales(mfi_filler *f, double d)
{
    for (int i = 0; i < MFI_FILL_SCALES; i++)
        f->d[i] = mfi_f32_to_f16((float)(d * spread(i)));
}

/* 7.5 d must be a float16, too: four significant bits of d are given up where it is normal, one
 * where it isn't. */
static void set_minimums(mfi_filler *f)
{
    for (int i = 0; i < MFI_FILL_SCALES; i++) {
        f->d[i] &= f->d[i] >= 0x400 ? (uint16_t)~0xfu : (uint16_t)~1u;
        if (f->d[i] == 0)
            f->d[i] = 2;
        f->dmin[i] = mfi_f32_to_f16(7.5f * mfi_f16_to_f32(f->d[i]));
    }
}

static void set_exponents(mfi_filler *f, double scale)
{
    int e = (int)floor(log2(scale));
    double lo = ldexp(1, e); /* lo <= scale < 2 lo; mean square of the mixture is scale^2 */
    f->exponent = (uint8_t)(e + 127);
    f->p_exponent = (uint32_t)((scale * scale - lo * lo) / (3 * lo * lo) * 65536);
}

static void set_levels(mfi_filler *f, double std)
{
    double step = std * sqrt(3) / MFI_FILL_LEVELS;
    for (int i = 0; i < MFI_FILL_LEVELS; i++) {
        float x = (float)(step * (2 * i + 1 - MFI_FILL_LEVELS));
        f->level[i] = f->type.kind == MFI_Q_F16 ? mfi_f32_to_f16(x) : mfi_f32_to_bf16(x);
    }
}

void mfi_filler_init(mfi_filler *f, const mfi_synth_tensor *t, uint64_t key)
{
    MFI_ASSERT(t->fill != MFI_FILL_EMBED && t->fill != MFI_FILL_OUTPUT);
    *f = (mfi_filler){.type = t->type, .fill = t->fill, .a = t->a, .b = t->b, .key = key};
    double std = t->a;
    if (t->fill != MFI_FILL_RANDOM) {
        MFI_ASSERT(t->type.kind == MFI_Q_F32);
        return;
    }
    if (t->type.kind != MFI_Q_GGML) {
        MFI_ASSERT(t->type.kind == MFI_Q_F16 || t->type.kind == MFI_Q_BF16);
        set_levels(f, std);
        return;
    }
    switch (t->type.bits) {
    case GGML_Q4_0:
        set_scales(f, std / RMS_Q4_0);
        break;
    case GGML_Q8_0:
        set_scales(f, std / RMS_Q8_0);
        break;
    case GGML_Q4_K:
        set_scales(f, std / RMS_Q4_K);
        set_minimums(f);
        break;
    case GGML_Q6_K:
        set_scales(f, std / RMS_Q6_K);
        break;
    case GGML_MXFP4:
        set_exponents(f, std / RMS_MXFP4);
        break;
    default:
        MFI_ASSERT(!"a block type without a generator");
    }
}

void mfi_filler_unit(const mfi_filler *f, uint32_t *n_elements, uint32_t *n_bytes)
{
    if (f->type.kind == MFI_Q_GGML) {
        bool known = mfi_ggml_block(f->type.bits, n_elements, n_bytes);
        MFI_ASSERT(known);
    } else if (f->type.kind == MFI_Q_F32) {
        *n_elements = 1;
        *n_bytes = 4;
    } else {
        *n_elements = 4;
        *n_bytes = 8;
    }
}

/* ---- one function a type: units [first, first + n) ---- */

/* `bits` (4, 8 or 16) random bits for unit i, a word for 64 / bits of them; *w holds the word from
 * call to call. */
static inline uint32_t unit_bits(uint64_t key, uint64_t i, bool first, uint32_t bits, uint64_t *w)
{
    uint64_t per_word = 64 / bits, at = i % per_word;
    if (first || at == 0)
        *w = mfi_fill_word(key ^ STREAM_SCALES, i / per_word);
    return (uint32_t)(*w >> (at * bits)) & ((1u << bits) - 1);
}

static void run_q8_0(const mfi_filler *f, uint64_t first, uint64_t n, unsigned char *out)
{
    uint64_t w = 0;
    for (uint64_t i = first; i < first + n; i++, out += 34) {
        memcpy(out, &f->d[unit_bits(f->key, i, i == first, 4, &w)], 2);
        for (int k = 0; k < 4; k++) {
            uint64_t q = mfi_fill_symmetric_bytes(mfi_fill_word(f->key, 4 * i + (uint64_t)k));
            memcpy(out + 2 + 8 * k, &q, 8);
        }
    }
}

static void run_q4_0(const mfi_filler *f, uint64_t first, uint64_t n, unsigned char *out)
{
    uint64_t w = 0;
    for (uint64_t i = first; i < first + n; i++, out += 18) {
        memcpy(out, &f->d[unit_bits(f->key, i, i == first, 4, &w)], 2);
        for (int k = 0; k < 2; k++) {
            uint64_t q = mfi_fill_symmetric_nibbles(mfi_fill_word(f->key, 2 * i + (uint64_t)k));
            memcpy(out + 2 + 8 * k, &q, 8);
        }
    }
}

static void run_mxfp4(const mfi_filler *f, uint64_t first, uint64_t n, unsigned char *out)
{
    uint64_t w = 0;
    for (uint64_t i = first; i < first + n; i++, out += 17) {
        uint32_t r = unit_bits(f->key, i, i == first, 16, &w);
        out[0] = (unsigned char)(f->exponent + (r < f->p_exponent));
        for (int k = 0; k < 2; k++) {
            uint64_t q = mfi_fill_word(f->key, 2 * i + (uint64_t)k);
            memcpy(out + 1 + 8 * k, &q, 8);
        }
    }
}

/* d, dmin, 12 bytes with eight scales and eight minimums of 6 bits, 128 bytes of codes. Sub-block
 * codes are 16 to 31 and scale and minimum are the same: for the first four the low 6 bits of bytes
 * 0 to 3 and 4 to 7, for the others 4 low bits in bytes 8 to 11 and 2 high bits, always 01, above
 * the first. */
static void run_q4_k(const mfi_filler *f, uint64_t first, uint64_t n, unsigned char *out)
{
    for (uint64_t i = first; i < first + n; i++, out += 144) {
        uint64_t r = mfi_fill_word(f->key, 17 * i);
        uint32_t lo = 0x50505050u | (r & 0x0f0f0f0fu);
        uint32_t hi = (uint32_t)(r >> 4 & 0x0f0f0f0fu) * 0x11u;
        uint32_t s = (uint32_t)(r >> 32) % MFI_FILL_SCALES;
        memcpy(out, &f->d[s], 2);
        memcpy(out + 2, &f->dmin[s], 2);
        memcpy(out + 4, &lo, 4);
        memcpy(out + 8, &lo, 4);
        memcpy(out + 12, &hi, 4);
        for (int k = 0; k < 16; k++) {
            uint64_t q = mfi_fill_word(f->key, 17 * i + 1 + (uint64_t)k);
            memcpy(out + 16 + 8 * k, &q, 8);
        }
    }
}

/* 192 bytes of codes, 16 signed scales, d. */
static void run_q6_k(const mfi_filler *f, uint64_t first, uint64_t n, unsigned char *out)
{
    for (uint64_t i = first; i < first + n; i++, out += 210) {
        for (int k = 0; k < 24; k++) {
            uint64_t q = mfi_fill_word(f->key, 26 * i + (uint64_t)k);
            memcpy(out + 8 * k, &q, 8);
        }
        uint64_t size = mfi_fill_word(f->key, 26 * i + 24);
        uint64_t sign = mfi_fill_word(f->key, 26 * i + 25);
        for (int k = 0; k < 16; k++) {
            int scale = 16 + (int)(size >> (4 * k) & 15);
            out[192 + k] = (unsigned char)(sign >> k & 1 ? -scale : scale);
        }
        memcpy(out + 208, &f->d[sign >> 32 & (MFI_FILL_SCALES - 1)], 2);
    }
}

static void run_16(const mfi_filler *f, uint64_t first, uint64_t n, unsigned char *out)
{
    for (uint64_t i = first; i < first + n; i++, out += 8) {
        uint64_t r = mfi_fill_word(f->key, i);
        for (int k = 0; k < 4; k++)
            memcpy(out + 2 * k, &f->level[r >> (16 * k) & (MFI_FILL_LEVELS - 1)], 2);
    }
}

/* Sum of eight numbers of 16 bits: normal to about four deviations, and the same on every machine.
 */
static float normal(uint64_t a, uint64_t b)
{
    int32_t sum = -4 * 65535;
    for (int k = 0; k < 4; k++)
        sum += (int32_t)(a >> (16 * k) & 0xffff) + (int32_t)(b >> (16 * k) & 0xffff);
    return (float)sum * (float)(1 / (65536 * 0.816496580927726)); /* sqrt(8 / 12) */
}

static void run_32(const mfi_filler *f, uint64_t first, uint64_t n, unsigned char *out)
{
    for (uint64_t i = first; i < first + n; i++, out += 4) {
        float x;
        uint64_t r = mfi_fill_word(f->key, 2 * i);
        if (f->fill == MFI_FILL_NORMAL)
            x = f->a + f->b * normal(r, mfi_fill_word(f->key, 2 * i + 1));
        else
            x = f->a + (f->b - f->a) * ((float)(r >> 40) * 0x1.0p-24f);
        memcpy(out, &x, 4);
    }
}

static void run(const mfi_filler *f, uint64_t first, uint64_t n, void *out)
{
    if (f->type.kind == MFI_Q_F32) {
        run_32(f, first, n, out);
    } else if (f->type.kind != MFI_Q_GGML) {
        run_16(f, first, n, out);
    } else {
        switch (f->type.bits) {
        case GGML_Q4_0:
            run_q4_0(f, first, n, out);
            break;
        case GGML_Q8_0:
            run_q8_0(f, first, n, out);
            break;
        case GGML_Q4_K:
            run_q4_k(f, first, n, out);
            break;
        case GGML_Q6_K:
            run_q6_k(f, first, n, out);
            break;
        default:
            run_mxfp4(f, first, n, out);
        }
    }
}

void mfi_filler_mask(mfi_filler *f, uint32_t zero_cols, uint32_t cols)
{
    uint32_t n_elements, n_bytes;
    mfi_filler_unit(f, &n_elements, &n_bytes);
    MFI_ASSERT(zero_cols % n_elements == 0 && cols % n_elements == 0);
    f->zero_units = zero_cols / n_elements;
    f->row_units = cols / n_elements;
}

void mfi_filler_run(const mfi_filler *f, uint64_t first, uint64_t n, void *out)
{
    run(f, first, n, out);
    if (!f->zero_units)
        return;
    uint32_t n_elements, n_bytes;
    mfi_filler_unit(f, &n_elements, &n_bytes);
    for (uint64_t i = 0; i < n; i++) /* bytes of zero are a block of zeros in every type */
        if ((first + i) % f->row_units < f->zero_units)
            memset((unsigned char *)out + i * n_bytes, 0, n_bytes);
}
