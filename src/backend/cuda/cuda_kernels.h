/* What the backend's C files and its kernels share: plain structures and the functions that start
 * kernels. Pointers are the device's but where it says host. Every function only queues work. */
#ifndef MFI_BACKEND_CUDA_KERNELS_H
#define MFI_BACKEND_CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* quant.h's mfi_qtype. */
typedef struct mfi_cuda_type {
    uint8_t kind, bits, scale, group;
} mfi_cuda_type;

enum { /* quant.h's mfi_qkind, held together in cuda_backend.c */
       MFI_CUDA_F32 = 1,
       MFI_CUDA_F16,
       MFI_CUDA_BF16,
       MFI_CUDA_MLX,
       MFI_CUDA_GGML,
       MFI_CUDA_FP8,
       MFI_CUDA_MXFP4
};

/* A matrix [rows][cols]; of an expert the planes are offsets in its slot. */
typedef struct mfi_cuda_mat {
    const uint8_t *plane[3];
    uint64_t row_bytes[3];
    mfi_cuda_type type;
    uint32_t rows, cols;
    uint32_t n_elements, n_bytes; /* GGML: of a block */
} mfi_cuda_mat;

/* Positions and rows of the head differ from step to step: kernels read them from device memory, so
 * that recorded graphs stay valid. `pos` is where the first row's stands; the others of a sequence
 * follow it. */

/* Pairs of one expert, at most a tile of them. */
typedef struct mfi_cuda_item {
    const uint8_t *data; /* the expert's slot */
    uint32_t first, n;   /* n 0: nothing to do */
} mfi_cuda_item;

/* Lists of so few pairs that a kernel has them as its arguments: copies from the host's memory
 * would stand behind those of experts. */
#define MFI_CUDA_LIST_MAX 16
typedef struct mfi_cuda_lists {
    mfi_cuda_item item[MFI_CUDA_LIST_MAX];
    uint32_t pair_of[MFI_CUDA_LIST_MAX], x_row[MFI_CUDA_LIST_MAX];
    uint32_t n_items, n_pairs;
} mfi_cuda_lists;
cudaError_t mfi_cuda_put_lists(const mfi_cuda_lists *l, mfi_cuda_item *items, uint32_t *x_row,
                               uint32_t *pair_of, cudaStream_t s);

#define MFI_CUDA_MM_MATS     4
#define MFI_CUDA_SPLIT_BYTES 196 /* of 32 columns in three parts of bf16, and their sum */
#define MFI_CUDA_TILE_SMALL  8   /* tokens of a tile of the kernels for few tokens */
#define MFI_CUDA_TILE        128 /* and of those for many */

enum { MFI_CUDA_GLU_NONE, MFI_CUDA_GLU_SILU, MFI_CUDA_GLU_CLAMPED };

/* Products y[i] = mat[i] x of matrices of one type, or, with a glu, y[0] = glu(mat[0] x, mat[1] x).
 */
typedef struct mfi_cuda_mm {
    mfi_cuda_mat mat[MFI_CUDA_MM_MATS];
    uint32_t n_mats;
    const float *x;
    uint32_t ldx;
    float *y[MFI_CUDA_MM_MATS];
    uint32_t ldy[MFI_CUDA_MM_MATS];
    uint32_t n_tok;
    /* Products head by head: rows of a head (0: not so), and how far its part of x and y is from
     * the one before. */
    uint32_t head_rows, head_x, head_y;
    /* Experts: tiles of pairs, rows of x by pair (NULL: the pair's number), biases in the slot. */
    const mfi_cuda_item *items;
    uint32_t n_items;
    bool small_tiles; /* items are of MFI_CUDA_TILE_SMALL pairs at most */
    const uint32_t *x_row;
    uint32_t n_x; /* rows of x, or 0: n_tok */
    /* Room for x split: MFI_CUDA_SPLIT_BYTES for 32 columns. */
    uint4 *split;
    bool bias[MFI_CUDA_MM_MATS];
    mfi_cuda_type bias_type[MFI_CUDA_MM_MATS];
    uint64_t bias_offset[MFI_CUDA_MM_MATS];
    uint32_t glu;
    float glu_alpha, glu_limit;
    /* A single token: x is normed on the way, and the normed one kept. */
    const float *norm; /* or NULL */
    float norm_eps;
    float *norm_out;
    /* Added to, times a factor, beside y. */
    float *res; /* or NULL */
    uint32_t ld_res;
    float res_factor;
} mfi_cuda_mm;

/* Whether this product of a single token can norm x and add to a residual stream. */
bool mfi_cuda_takes_codes(const mfi_cuda_mm *mm);

cudaError_t mfi_cuda_matmul(const mfi_cuda_mm *mm, cudaStream_t s);
/* By family of types; matmul picks one. */
cudaError_t mfi_cuda_matmul_float(const mfi_cuda_mm *mm, cudaStream_t s);
cudaError_t mfi_cuda_matmul_k(const mfi_cuda_mm *mm, cudaStream_t s);
cudaError_t mfi_cuda_matmul_packed(const mfi_cuda_mm *mm, cudaStream_t s);
cudaError_t mfi_cuda_matmul_legacy(const mfi_cuda_mm *mm, cudaStream_t s);
cudaError_t mfi_cuda_matmul_any(const mfi_cuda_mm *mm, cudaStream_t s);
/* Few rows of floats: one output a block of threads. */
cudaError_t mfi_cuda_matmul_rows(const mfi_cuda_mm *mm, cudaStream_t s);
/* Experts whose matrices are stored [inputs][outputs], floats: y[p][c] = sum_r w[r][c] x[p][r]. */
cudaError_t mfi_cuda_matmul_cols(const mfi_cuda_mm *mm, cudaStream_t s);
/* Latent keys by nope: y[t][h][c] = sum_r x[t][h][r] w[h * head_rows + r][c]. */
cudaError_t mfi_cuda_matmul_t(const mfi_cuda_mm *mm, uint32_t n_head, cudaStream_t s);

cudaError_t mfi_cuda_embed(const mfi_cuda_mat *w, const int32_t *tokens, uint32_t n_tok,
                           float scale, float *y, uint32_t ldy, cudaStream_t s);
cudaError_t mfi_cuda_rope_table(const double *freq, double factor, const uint32_t *pos,
                                uint32_t n_tok, uint32_t half, float *y, uint32_t ldy,
                                cudaStream_t s);
cudaError_t mfi_cuda_rmsnorm(const float *x, uint32_t ldx, const float *w, float eps, uint32_t n,
                             const uint32_t *head_rows, uint32_t n_tok, float *y, uint32_t ldy,
                             cudaStream_t s);
cudaError_t mfi_cuda_add(float *y, uint32_t ldy, const float *x, uint32_t ldx, uint32_t n,
                         float factor, uint32_t n_tok, cudaStream_t s);
cudaError_t mfi_cuda_bias(float *y, uint32_t ldy, const float *bias, uint32_t n, uint32_t n_tok,
                          cudaStream_t s);
cudaError_t mfi_cuda_scale(float *y, uint64_t n, float factor, cudaStream_t s);

/* y = glu of gate and up rows; or, interleaved, of elements 2i and 2i + 1 of gate. */
cudaError_t mfi_cuda_glu(const float *gate, uint32_t ldg, const float *up, uint32_t ldu,
                         bool interleaved, uint32_t kind, float alpha, float limit, uint32_t n,
                         uint32_t n_rows, float *y, uint32_t ldy, cudaStream_t s);

/* routing.h's mfi_routing. */
typedef struct mfi_cuda_route {
    uint32_t score, n_groups, n_groups_used, group_best, normalize;
    float scale;
    const float *logits, *correction;
    uint32_t ld, n, top_k, n_tok;
    uint16_t *ids;
    float *weights;
    uint32_t ldw;
    /* Where the router looks its experts up: addresses of their slots, and what EXPERTS works on.
     */
    const uint64_t *slots; /* [n] 0: in no slot; or NULL */
    mfi_cuda_item *items;  /* n_tok == 1 only */
    uint32_t *x_row, *pair_of;
    /* Where some may be in no slot: the choice is kept, and such a one stops all kernels behind,
     * those of this layer's experts with some other address. */
    uint16_t *chosen; /* [n_tok][top_k], or NULL */
    const uint8_t *anywhere;
} mfi_cuda_route;
/* Tells every file of kernels where the word is that stops them, which is one a device and process;
 * back to 0. */
cudaError_t mfi_cuda_tell_files(cudaStream_t s);
cudaError_t mfi_cuda_go_on(cudaStream_t s);
cudaError_t mfi_cuda_route_run(const mfi_cuda_route *r, cudaStream_t s);
/* A single token's router and choice: matmul_rows, then route_run; `turn` counts blocks of threads,
 * from zero to zero. */
cudaError_t mfi_cuda_route_rows(const mfi_cuda_mm *mm, const mfi_cuda_route *r, uint32_t *turn,
                                cudaStream_t s);
/* Groups n_tok * top_k choices by expert, in order of tokens, into tiles, and looks up as above. */
cudaError_t mfi_cuda_group(const mfi_cuda_route *r, uint32_t tile, mfi_cuda_item *items,
                           uint32_t n_items, cudaStream_t s);

typedef struct mfi_cuda_combine {
    float *res, *sum;     /* sum: the shared expert's output; overwritten */
    const float *y;       /* [pairs][hidden] */
    const float *weights; /* [n_tok][ldw] */
    const float *gate;    /* [n_tok][ldg], or NULL */
    const uint32_t *pair_of;
    uint32_t ld_res, ld_sum, ldy, ldw, ldg, hidden, top_k, n_tok;
    bool shared;
    float factor;
} mfi_cuda_combine;
cudaError_t mfi_cuda_combine_run(const mfi_cuda_combine *c, cudaStream_t s);
/* A single token's products with the experts' last matrices, and their sum: matmul, then
 * combine_run, of what mfi_cuda_down_fits takes. */
cudaError_t mfi_cuda_down_k(const mfi_cuda_mm *mm, const mfi_cuda_combine *c, cudaStream_t s);
cudaError_t mfi_cuda_down_packed(const mfi_cuda_mm *mm, const mfi_cuda_combine *c, cudaStream_t s);
cudaError_t mfi_cuda_down_legacy(const mfi_cuda_mm *mm, const mfi_cuda_combine *c, cudaStream_t s);
bool mfi_cuda_down_fits(const mfi_cuda_mm *mm, uint32_t top_k);
cudaError_t mfi_cuda_down(const mfi_cuda_mm *mm, const mfi_cuda_combine *c, cudaStream_t s);

typedef struct mfi_cuda_prep {
    float *q;
    const float *k, *v, *rope;
    uint32_t ldq, ldk, ldv, ldr, q_stride;
    const float *q_norm, *k_norm; /* or NULL */
    float eps;
    uint32_t n_head, n_kv_head, head_dim, n_rot, n_tok, ring; /* ring 0: none */
    bool unrotated, norm_after;
    float *kv;
    const uint32_t *pos;
} mfi_cuda_prep;
cudaError_t mfi_cuda_attn_prep(const mfi_cuda_prep *p, cudaStream_t s);

/* Attention of n_head heads over a cache whose rows are `row` floats; a group of `group` heads
 * shares a key at k + head / group * dim_k and a value beside it. */
typedef struct mfi_cuda_attn {
    const float *q;
    uint32_t ldq, q_stride;
    const float *kv;
    uint32_t row, v_offset;      /* of a position; of its values in it */
    uint32_t k_stride, v_stride; /* between groups */
    uint32_t dim, dim_v, n_head, group;
    uint32_t window, ring; /* 0: none */
    float scale;
    const float *sinks; /* or NULL */
    bool gated;         /* times sigmoid(q[dim ..]) */
    float *out;
    uint32_t ldo;
    const uint32_t *pos;
    uint32_t n_tok, n_blocks_max; /* of MFI_CUDA_ATTN_BLOCK positions that a token may see */
    float *partial;               /* [n_tok * n_head][n_blocks_max][dim_v + 2], or NULL */
} mfi_cuda_attn;
#define MFI_CUDA_ATTN_BLOCK     64
#define MFI_CUDA_ATTN_SPLIT_TOK 4 /* up to so many tokens, blocks of positions run side by side */
cudaError_t mfi_cuda_attn_run(const mfi_cuda_attn *a, cudaStream_t s);
/* Joins what blocks of positions have left in partial. */
cudaError_t mfi_cuda_attn_merge(const mfi_cuda_attn *a, cudaStream_t s);
/* A single token's attn_prep and attn_run, of what attn_one_fits takes. */
bool mfi_cuda_attn_one_fits(const mfi_cuda_attn *a, const mfi_cuda_prep *p);
cudaError_t mfi_cuda_attn_one(const mfi_cuda_attn *a, const mfi_cuda_prep *p, cudaStream_t s);

typedef struct mfi_cuda_gdn {
    const float *qkv, *z, *b, *a; /* rows of ld* */
    uint32_t ld_qkv, ld_z, ld_b, ld_a, ldo;
    const float *neg_exp_a, *dt, *norm;
    float eps;
    uint32_t k_heads, v_heads, k_dim, v_dim, n_tok;
    bool tiled;
    float *state, *out;
} mfi_cuda_gdn;
cudaError_t mfi_cuda_gdn_run(const mfi_cuda_gdn *g, cudaStream_t s);
cudaError_t mfi_cuda_gdn_conv(float *state, const float *w, float *x, uint32_t ldx, uint32_t n_ch,
                              uint32_t kernel, uint32_t n_tok, cudaStream_t s);

typedef struct mfi_cuda_latent {
    float *q;
    const float *kva, *rope, *norm;
    uint32_t ldq, ldk, ldr, n_head, head_dim, nope, n_rot, latent, n_tok;
    float eps;
    bool pairs;
    float *kv;
    const uint32_t *pos;
} mfi_cuda_latent;
cudaError_t mfi_cuda_latent_prep(const mfi_cuda_latent *l, cudaStream_t s);
/* Copies the rotated part of every head's query behind its latent one. */
cudaError_t mfi_cuda_latent_tail(const float *q, uint32_t ldq, uint32_t head_dim, uint32_t nope,
                                 uint32_t n_rot, uint32_t latent, uint32_t n_head, uint32_t n_tok,
                                 float *y, uint32_t ldy, cudaStream_t s);

/* Copies a few bytes from pinned memory where the device sees it, by threads: beside the copies of
 * whole matrices, and whatever routers stopped. */
cudaError_t mfi_cuda_fetch_bytes(void *dst, const void *src, uint64_t len, cudaStream_t s);

/* The lists of the IQ types, from host memory. */
cudaError_t mfi_cuda_set_tables(const uint16_t *iq2_xxs, const uint16_t *iq2_xs,
                                const uint16_t *iq2_s, const uint16_t *iq1, const uint16_t *iq3_xxs,
                                const uint16_t *iq3_s);

#ifdef __cplusplus
}
#endif
#endif
