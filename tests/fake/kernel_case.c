/* Random cases for kernel tests; see kernel_case.h. */
#include "fake/kernel_case.h"

#include <math.h>
#include <string.h>

static uint64_t last_seed;

/* What the last random matrix of a type without parts decodes to. */
static struct {
    const void *planes[3];
    float *values;
} decoded;

static const struct {
    uint32_t number;
    const char *name;
    int half[2]; /* where the high bytes of half floats are, or -1 */
    uint64_t hash;
} ggml_types[] = {
#include "../data/ggml_block_hashes.inc"
};

_Static_assert(MFI_ARRAY_LEN(ggml_types) == 25, "mft_type counts on them");

void mft_seed(mfi_rng *rng, uint64_t seed)
{
    rng->state = last_seed = seed;
}

uint64_t mft_last_seed(void)
{
    return last_seed;
}

uint32_t mft_below(mfi_rng *rng, uint32_t n)
{
    return (uint32_t)mfi_rng_below(rng, n);
}

uint32_t mft_between(mfi_rng *rng, uint32_t low, uint32_t high)
{
    return low + mft_below(rng, high - low + 1);
}

float mft_normal(mfi_rng *rng)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += mfi_rng_unit(rng);
    return (float)sum;
}

float *mft_floats(size_t n, mft_place place)
{
    return mft_guard_alloc(n * sizeof(float), place);
}

float *mft_random_floats(mfi_rng *rng, size_t n, float deviation)
{
    float *x = mft_floats(n, mft_below(rng, 2) ? MFT_AT_END : MFT_AT_START);
    for (size_t i = 0; i < n; i++)
        x[i] = mft_normal(rng) * deviation;
    return x;
}

mfi_qtype mft_type(uint32_t i)
{
    static const uint8_t bits[] = {2, 3, 4, 5, 6, 8};
    static const uint8_t kinds[] = {MFI_Q_F32, MFI_Q_F16, MFI_Q_BF16};
    if (i < 3)
        return mfi_qtype_float(kinds[i]);
    i -= 3;
    if (i >= MFT_N_MLX) {
        i -= MFT_N_MLX;
        if (i < MFI_ARRAY_LEN(ggml_types))
            return (mfi_qtype){.kind = MFI_Q_GGML, .bits = (uint8_t)ggml_types[i].number};
        i -= MFI_ARRAY_LEN(ggml_types);
        if (i < 2)
            return (mfi_qtype){MFI_Q_FP8, 8, i ? MFI_Q_BF16 : MFI_Q_F32, 0};
        return (mfi_qtype){.kind = MFI_Q_MXFP4};
    }
    return (mfi_qtype){MFI_Q_MLX, bits[i / 9], kinds[i / 3 % 3], (uint8_t)(32 << i % 3)};
}

static void store_float(uint32_t kind, void *base, size_t i, float f)
{
    uint16_t h = kind == MFI_Q_F16 ? mfi_f32_to_f16(f) : mfi_f32_to_bf16(f);
    if (kind == MFI_Q_F32)
        memcpy((char *)base + i * 4, &f, 4);
    else
        memcpy((char *)base + i * 2, &h, 2);
}

static float load_float(uint32_t kind, const void *base, size_t i)
{
    uint16_t h;
    float f;
    if (kind == MFI_Q_F32) {
        memcpy(&f, (const char *)base + i * 4, 4);
        return f;
    }
    memcpy(&h, (const char *)base + i * 2, 2);
    return kind == MFI_Q_F16 ? mfi_f16_to_f32(h) : mfi_bf16_to_f32(h);
}

static size_t float_bytes(uint32_t kind)
{
    return kind == MFI_Q_F32 ? 4 : 2;
}

static float random_scale(mfi_rng *rng, float scale)
{
    return (float)(0.5 + mfi_rng_unit(rng)) * scale * (mft_below(rng, 4) ? 1 : -1);
}

/* Random scales over the blocks' random bits; see ggml_block_hashes.inc. */
static void set_ggml_scales(mfi_rng *rng, uint32_t number, uint8_t *blocks, size_t n_bytes,
                            float scale)
{
    uint32_t i = 0, n_elements, block_bytes;
    while (ggml_types[i].number != number)
        i++;
    mfi_ggml_block(number, &n_elements, &block_bytes);
    for (uint8_t *b = blocks; b < blocks + n_bytes; b += block_bytes) {
        for (int h = 0; h < 2 && ggml_types[i].half[h] >= 0; h++) {
            uint16_t half = mfi_f32_to_f16(random_scale(rng, scale));
            if (number == 29) { /* a nibble on top of each of four words */
                for (int j = 0; j < 4; j++)
                    b[49 + 2 * j] = (uint8_t)((b[49 + 2 * j] & 15) | (half >> 4 * j & 15) << 4);
            } else {
                memcpy(b + ggml_types[i].half[h] - 1, &half, 2);
            }
        }
        if (number == 39)
            b[0] = (uint8_t)(127 + ilogbf(scale) + (int)mft_below(rng, 3));
    }
}

/* Types of one or two planes, all bits random but for scales. */
static void random_planes(mfi_rng *rng, mfi_mat *w, float scale)
{
    for (uint32_t p = 0; p < mfi_quant_n_planes(w->type); p++) {
        size_t n = mfi_quant_plane_bytes(w->type, p, w->rows, w->cols);
        uint8_t *plane = mft_guard_alloc(n, mft_below(rng, MFT_N_PLACES));
        for (size_t i = 0; i < n; i++)
            plane[i] = (uint8_t)(mfi_rng_next(rng) >> 56);
        if (w->type.kind == MFI_Q_GGML)
            set_ggml_scales(rng, w->type.bits, plane, n, scale);
        for (size_t i = 0; i < n && w->type.kind == MFI_Q_FP8 && p == 0; i++)
            plane[i] = (plane[i] & 0x7f) == 0x7f ? 0 : plane[i]; /* no NaN */
        for (size_t i = 0; i < n && w->type.kind == MFI_Q_MXFP4 && p == 1; i++)
            plane[i] = (uint8_t)MFI_MAX(0, 127 + ilogbf(scale) + (int)mft_below(rng, 3));
        for (size_t i = 0;
             i < n / float_bytes(w->type.scale) && w->type.kind == MFI_Q_FP8 && p == 1; i++)
            store_float(w->type.scale, plane, i, random_scale(rng, scale));
        w->planes[p] = plane;
    }
}

static void decode_all(const mfi_mat *w)
{
    if (decoded.values && memcmp(decoded.planes, w->planes, sizeof decoded.planes) == 0)
        return;
    decoded.values = mft_floats((size_t)w->rows * w->cols, MFT_AT_END);
    memcpy(decoded.planes, w->planes, sizeof decoded.planes);
    for (uint32_t r = 0; r < w->rows; r++) {
        const void *row[3];
        for (uint32_t p = 0; p < mfi_quant_n_planes(w->type); p++)
            row[p] = (const char *)w->planes[p] + r / mfi_quant_rows_per_row(w->type, p) *
                                                      mfi_quant_row_bytes(w->type, p, w->cols);
        mfi_dequant_row(w->type, row, w->cols, decoded.values + (size_t)r * w->cols);
    }
}

mfi_mat mft_random_mat(mfi_rng *rng, mfi_qtype type, uint32_t rows, uint32_t cols, float scale)
{
    decoded.values = NULL; /* released by now, and its planes' place may be taken again */
    mfi_mat w = {.type = type, .rows = rows, .cols = cols};
    size_t n = (size_t)rows * cols;
    if (type.kind != MFI_Q_MLX && !mfi_qtype_is_float(type)) {
        random_planes(rng, &w, scale);
        return w;
    }
    if (type.kind != MFI_Q_MLX) {
        void *plane = mft_guard_alloc(n * float_bytes(type.kind), mft_below(rng, MFT_N_PLACES));
        for (size_t i = 0; i < n; i++)
            store_float(type.kind, plane, i, mft_normal(rng) * scale);
        w.planes[0] = plane;
        return w;
    }
    size_t n_groups = n / type.group;
    unsigned char *codes = mft_guard_alloc(n * type.bits / 8, mft_below(rng, MFT_N_PLACES));
    void *scales = mft_guard_alloc(n_groups * float_bytes(type.scale), mft_below(rng, 3));
    void *biases = mft_guard_alloc(n_groups * float_bytes(type.scale), mft_below(rng, 3));
    for (size_t i = 0; i < n * type.bits / 8; i++)
        codes[i] = (unsigned char)mfi_rng_next(rng);
    for (size_t i = 0; i < n_groups; i++) {
        float s = random_scale(rng, scale);
        store_float(type.scale, scales, i, s);
        store_float(type.scale, biases, i, -s * (float)((1 << type.bits) - 1) / 2);
    }
    w.planes[0] = codes;
    w.planes[1] = scales;
    w.planes[2] = biases;
    return w;
}

uint32_t mft_code(const mfi_mat *w, uint32_t row, uint32_t col)
{
    const unsigned char *codes = w->planes[0];
    uint32_t code = 0;
    for (uint32_t b = 0; b < w->type.bits; b++) {
        uint64_t bit = ((uint64_t)row * w->cols + col) * w->type.bits + b;
        code |= (uint32_t)(codes[bit / 8] >> bit % 8 & 1) << b;
    }
    return code;
}

void mft_element(const mfi_mat *w, uint32_t row, uint32_t col, double *product, double *offset)
{
    size_t i = (size_t)row * w->cols + col;
    *offset = 0;
    if (w->type.kind != MFI_Q_MLX && !mfi_qtype_is_float(w->type)) {
        decode_all(w);
        *product = (double)decoded.values[i];
        return;
    }
    if (w->type.kind != MFI_Q_MLX) {
        *product = (double)load_float(w->type.kind, w->planes[0], i);
        return;
    }
    size_t g = i / w->type.group;
    *product = mft_code(w, row, col) * (double)load_float(w->type.scale, w->planes[1], g);
    *offset = (double)load_float(w->type.scale, w->planes[2], g);
}

uint32_t mft_n_levels(void)
{
    uint32_t n = 0;
    for (int isa = 0; isa < MFI_N_ISA; isa++)
        n += mfi_cpu_has((mfi_isa)isa);
    return n;
}

const mfi_kernels *mft_level(uint32_t i)
{
    for (int isa = 0;; isa++)
        if (mfi_cpu_has((mfi_isa)isa) && i-- == 0)
            return mfi_kernels_get((mfi_isa)isa);
}
