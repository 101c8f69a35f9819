/* Leaf functions on raw pointers: the arithmetic of the CPU backend.
 *
 * Every entry has a plain C version, which is its specification. A table starts out with the C
 * functions and each ISA level overrides what it does better (mfi_kernels_get). Rules:
 *   - No function allocates, fails, or keeps state. Planes need no alignment at all, other pointers
 *     that of their type. Nothing is read or written beyond the arrays as shaped.
 *   - An MLX weight counts as q * scale + bias in float, unrounded; mx.dequantize, and mlx's
 *     product on a CPU, round it to the type of the scales. A weight of any other type counts as
 *     what mfi_dequant_row decodes, to the bit.
 *   - Each output value has one order of accumulation within an ISA level, which depends on the
 *     shape only: never on the number of tokens, on the row range, or on the thread. So chunking
 *     and threading change no bit. Between levels float results may differ by rounding; integer
 *     block sums are equal.
 *   - No fast-math, no contraction but where a kernel writes fma itself.
 */
#ifndef MFI_KERNELS_KERNELS_H
#define MFI_KERNELS_KERNELS_H

#include "op/routing.h"
#include "os/cpu.h"
#include "quant/quant.h"

/* A weight matrix [rows][cols] in memory; plane p has rows of mfi_quant_row_bytes(type, p, cols),
 * one for every mfi_quant_rows_per_row rows. */
typedef struct mfi_mat {
    mfi_qtype type;
    uint32_t rows, cols;
    const void *planes[3];
    /* What this thread multiplies next, from which row on: a hint, so that its first rows are on
     * their way when this one ends. May be NULL. */
    const struct mfi_mat *next;
    uint32_t next_row;
} mfi_mat;

/* Activations in 8 bits: blocks of 32, x ~ d * q; and in 16: x ~ d_fine * (255 * q + lo). */
#define MFI_Q8_BLOCK 32
#define MFI_Q8_HALF  16
typedef struct mfi_q8 {
    int8_t *q;              /* [n_tok][cols] */
    float *d;               /* [n_tok][cols/32] scale of a block */
    float *s;               /* [n_tok][cols/32] d * sum of q of the block */
    int16_t *h;             /* [n_tok][cols/16] sum of q of each half of a block */
    int8_t *lo;             /* [n_tok][cols] what 8 bits leave over; NULL: 8 bits only */
    float *d_fine, *s_fine; /* [n_tok][cols/32] d / 255; d_fine * sum of 255 * q + lo */
    int16_t *h_lo;          /* [n_tok][cols/16] sum of lo */
} mfi_q8;

/* From column c on, a multiple of 32. */
static inline mfi_q8 mfi_q8_from(mfi_q8 x, size_t c)
{
    const size_t b = c / MFI_Q8_BLOCK, h = c / MFI_Q8_HALF;
    mfi_q8 y = {.q = x.q + c, .d = x.d + b, .s = x.s + b, .h = x.h + h};
    if (x.lo) {
        y.lo = x.lo + c;
        y.d_fine = x.d_fine + b;
        y.s_fine = x.s_fine + b;
        y.h_lo = x.h_lo + h;
    }
    return y;
}

/* Queries that share keys and values: heads of successive tokens. Head h of token t has its query
 * at q + t * ldq_tok + h * ldq, its output likewise. Token t stands at position pos + t and sees
 * what is before it and itself, or the last `window` of that. */
typedef struct mfi_attn {
    const float *q;
    float *out;
    size_t ldq, ldq_tok, ldo, ldo_tok;
    uint32_t n_heads, n_tok, pos;
    const void *k, *v;        /* of position 0; columns of this head, whole blocks of q8_0 */
    size_t row_bytes;         /* of a position */
    uint32_t ring;            /* position j stands in row j % ring; 0: in row j */
    uint32_t window;          /* 0: all that is before */
    mfi_qtype type_k, type_v; /* f32, f16 or q8_0 */
    uint32_t dim, dim_v;
    float scale;
    /* [n_heads] one more logit in each head's softmax, whose value is nothing; NULL: none */
    const float *sinks;
} mfi_attn;

/* Rows of the KV cache: by their number as GGML has it. */
#define MFI_KV_Q8_0 ((mfi_qtype){.kind = MFI_Q_GGML, .bits = 8})

typedef struct mfi_kernels {
    mfi_isa isa;

    /* y[t*ldy + r] = sum_c w[r][c] * x[t*ldx + c], for t < n_tok and row0 <= r < row1. Any type. */
    void (*matmul_f32)(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                       size_t ldy, uint32_t row0, uint32_t row1);
    /* y[t*ldy + c] = sum over r < n_rows of x[t*ldx + r] * w[row0 + r][c], for t < n_tok and all
     * columns c: the product with those rows transposed. Each sum runs in order of r. Any type. */
    void (*matmul_t)(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                     size_t ldy, uint32_t row0, uint32_t n_rows);
    /* The same from 8-bit activations, or 16-bit ones with lo; cols is a multiple of 32. Types with
     * an integer form (int_form.h): as told there, the same bits on every level. Others: matmul_f32
     * with x = d * q (8 bits only).
     */
    void (*matmul_q8)(const mfi_mat *w, const mfi_q8 *x, uint32_t n_tok, float *y, size_t ldy,
                      uint32_t row0, uint32_t row1);
    /* The product with a transposed matrix: y[t*ldy + c] = sum_r w[r][c] * x[t*ldx + r], for
     * col0 <= c < col1, r in order. Float types only. */
    void (*matmul_cols)(const mfi_mat *w, const float *x, size_t ldx, uint32_t n_tok, float *y,
                        size_t ldy, uint32_t col0, uint32_t col1);
    /* One row of n (multiple of 32) floats: per block d = max|x| / 127, q = round to nearest even
     * of x / d (0 if d is 0), s = d * sum q, h the sums of 16 q; with to->lo, lo = round to nearest
     * even of (x - d * q, by fma) / d_fine, at most 127 either way (0 if d_fine is 0). A block with
     * an infinity or NaN gets q = 0 and NaN for d and s, which spoils every output it reaches. The
     * same bits on every level.
     */
    void (*quantize_q8)(const float *x, uint32_t n, const mfi_q8 *to);
    /* Row `row` of w as floats (an embedding). */
    void (*get_row)(const mfi_mat *w, uint32_t row, float *out);

    /* y = x / sqrt(mean(x^2) + eps) * w; y may be x. The sum of squares is accumulated in 16 lanes
     * (element i in lane i % 16), the lanes added pairwise. */
    void (*rmsnorm)(const float *x, const float *w, float eps, uint32_t n, float *y);
    /* y = x / sqrt(sum(x^2) + eps) * scale; y may be x. */
    void (*l2norm)(const float *x, float eps, float scale, uint32_t n, float *y);
    /* y = silu(gate) * up, silu(v) = v / (1 + exp(-v)); y may be gate or up. */
    void (*silu_mul)(const float *gate, const float *up, uint32_t n, float *y);
    /* y = (clamp(up) + 1) * g / (1 + exp(-alpha * g)), g = min(gate, limit), clamp to [-limit,
     * limit]: gpt-oss. A NaN stays one; y may be gate or up. */
    void (*glu_clamped)(const float *gate, const float *up, float alpha, float limit, uint32_t n,
                        float *y);
    /* y = y * sigmoid(g). */
    void (*sigmoid_mul)(float *y, const float *g, uint32_t n);
    /* y += x. */
    void (*add)(float *y, const float *x, uint32_t n);
    /* y += a * x, one rounding for the product and one for the sum in every version. */
    void (*axpy)(float *y, float a, const float *x, uint32_t n);

    /* Rotates pairs (i, i + n_rot/2), i < n_rot/2, of x by the angles whose cosines and sines are
     * given ([n_rot/2] each). Elements from n_rot on are untouched. */
    void (*rope_half)(float *x, uint32_t n_rot, const float *cos, const float *sin);
    /* The same with pairs (2i, 2i + 1). */
    void (*rope_pairs)(float *x, uint32_t n_rot, const float *cos, const float *sin);

    /* out[dim_v] = sum_j softmax_j(scale * q.k_j) v_j of every query of a. Streaming softmax over
     * the blocks of MFI_ATTN_BLOCK positions that begin at multiples of it, so that the bits of a
     * query depend neither on the others nor on where a ring ends. dim, dim_v <= MFI_ATTN_DIM_MAX.
     */
    void (*attend)(const mfi_attn *a);
    /* n floats as a row of the KV cache: f32 as they are, f16 rounded to nearest even, q8_0 with
     * d = max|x| / 127 as a half and q = x / d rounded to nearest even, at most 127 either way (0
     * if d is 0; d is NaN if it is not finite as a half). The same bits on every level. */
    void (*store_row)(const float *x, uint32_t n, mfi_qtype type, void *row);

    /* Depthwise causal convolution with SiLU for one token: y[c] = silu(sum_j w[c*kernel + j] *
     * in_j[c]), j = 0 the oldest. `state` [kernel-1][n_ch] holds the previous inputs, oldest first;
     * it is shifted and x becomes its last row. Channels [c0, c1) only. */
    void (*conv_silu)(float *state, const float *w, const float *x, uint32_t n_ch, uint32_t kernel,
                      uint32_t c0, uint32_t c1, float *y);
    /* One step of the gated delta rule for one head, state S [dk][dv]:
     *   S *= g;  m = S^T k;  S += k (x) (beta * (v - m));  out = S^T q.
     * Sums over dk run in order 0..dk-1 for each of the dv outputs. dv <= MFI_GDN_DIM_MAX. */
    void (*gdn_step)(float *s, const float *q, const float *k, const float *v, float g, float beta,
                     uint32_t dk, uint32_t dv, float *out);

    /* The top_k of n experts by score plus correction (NULL: none), as routing.h has it; the
     * earlier index on ties, in falling order of what the choice goes by. Groups used hold top_k
     * experts at least. ids are distinct. */
    void (*route)(const mfi_routing *routing, const float *logits, const float *correction,
                  uint32_t n, uint32_t top_k, uint16_t *ids, float *weights);
} mfi_kernels;

#define MFI_ATTN_BLOCK   64
#define MFI_ATTN_DIM_MAX 1024
#define MFI_GDN_DIM_MAX  1024

/* The table for a level that this machine has (mfi_cpu_has). Static storage. */
const mfi_kernels *mfi_kernels_get(mfi_isa isa);

/* Scalar helpers shared by all levels. */
float mfi_softplus(float x); /* log(1 + exp(x)) without overflow or loss */
float mfi_sigmoid(float x);

#endif
