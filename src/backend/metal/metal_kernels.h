/* What the Metal backend's host and its kernels share. The kernels' compiler includes this file as
 * well (the embedded source begins with it), so it has plain structures only.
 *
 * Calling a kernel: fill its structure; mfi_metal_*_call() gives the kernel, the grid and the bytes
 * of threadgroup memory; bind the structure at index 0 (setBytes), buffers at the indices named
 * below, the word that stops kernels at MFI_METAL_STOP, call.shared_bytes at threadgroup index 0
 * (it is never 0), and dispatch call.groups threadgroups of call.threads threads. A call with no
 * groups (groups[i] == 0) is not to be dispatched.
 *
 * Every index up to a kernel's last has to be bound. What a call has no use for (planes that a type
 * lacks, items of a product without) is bound to any buffer: it isn't looked at.
 *
 * Buffers are bound at the byte where what they are begins; weights may also be bound at the start
 * of a larger buffer, with 64-bit offsets in mfi_metal_mat. Planes begin at multiples of 4 bytes,
 * all else at multiples of 4 (floats, numbers) or 8 (items, slots, frequencies). Threads read and
 * write nothing outside rows as shaped.
 *
 * Kernels take simdgroups of 32 threads: the host checks threadExecutionWidth of each pipeline, and
 * that maxTotalThreadsPerThreadgroup is not below call.threads. They are compiled without fast
 * maths (mathMode safe; fastMathEnabled NO). Dispatches of one encoder that depend on each other
 * need it to be serial, or barriers.
 */
#ifndef MFI_BACKEND_METAL_KERNELS_H
#define MFI_BACKEND_METAL_KERNELS_H

#ifdef __METAL_VERSION__
#include <metal_stdlib>
using namespace metal;
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/quant.h"
#endif

/* ---- kernels ---- */

/* Products: decoders of their own, and one for every other type. */
#define MFI_METAL_DECODERS(X)                                                                      \
    X(f32)                                                                                         \
    X(f16)                                                                                         \
    X(bf16)                                                                                        \
    X(q4_k)                                                                                        \
    X(q5_k)                                                                                        \
    X(q6_k)                                                                                        \
    X(q8_0)                                                                                        \
    X(mlx4)                                                                                        \
    X(mlx8)                                                                                        \
    X(mxfp4)                                                                                       \
    X(any)

/* X(name, buffers behind the structure, its type): the function is mfi_<name>. */
#define MFI_METAL_MM_KERNELS(X, d)                                                                 \
    X(mm_##d##_1, 8, mfi_metal_mm)  /* a token, or pair, at a time */                              \
    X(mm_##d##_8, 8, mfi_metal_mm)  /* eight of them */                                            \
    X(glu_##d##_1, 8, mfi_metal_mm) /* gate, up and activation */                                  \
    X(glu_##d##_8, 8, mfi_metal_mm)
#define MFI_METAL_OTHER_KERNELS(X)                                                                 \
    X(mm_cols, 8, mfi_metal_mm)                                                                    \
    X(mm_t, 8, mfi_metal_mm)                                                                       \
    X(embed, 6, mfi_metal_embed)                                                                   \
    X(rope_table, 3, mfi_metal_rope_table)                                                         \
    X(rmsnorm, 4, mfi_metal_rmsnorm)                                                               \
    X(add, 2, mfi_metal_add)                                                                       \
    X(scale, 1, mfi_metal_scale)                                                                   \
    X(glu, 3, mfi_metal_glu)                                                                       \
    X(combine, 6, mfi_metal_combine)                                                               \
    X(attn_prep, 7, mfi_metal_prep)                                                                \
    X(latent_prep, 5, mfi_metal_latent)                                                            \
    X(latent_tail, 2, mfi_metal_latent)                                                            \
    X(attn_part_1, 5, mfi_metal_attn)                                                              \
    X(attn_part_2, 5, mfi_metal_attn)                                                              \
    X(attn_part_4, 5, mfi_metal_attn)                                                              \
    X(attn_part_8, 5, mfi_metal_attn)                                                              \
    X(attn_merge, 5, mfi_metal_attn)                                                               \
    X(attn_walk_1, 5, mfi_metal_attn)                                                              \
    X(attn_walk_2, 5, mfi_metal_attn)                                                              \
    X(attn_walk_4, 5, mfi_metal_attn)                                                              \
    X(attn_walk_8, 5, mfi_metal_attn)                                                              \
    X(gdn_conv, 3, mfi_metal_conv)                                                                 \
    X(gdn_64, 9, mfi_metal_gdn)                                                                    \
    X(gdn_128, 9, mfi_metal_gdn)                                                                   \
    X(gdn_any, 9, mfi_metal_gdn)                                                                   \
    X(route, 8, mfi_metal_route)                                                                   \
    X(group, 5, mfi_metal_group)

/* ---- structures, each with its buffers' indices ---- */

/* A uint32_t, for all kernels: unless it is 0 they return at once, having changed nothing. */
#define MFI_METAL_STOP 30

enum { /* quant.h's mfi_qkind */
       MFI_METAL_F32 = 1,
       MFI_METAL_F16,
       MFI_METAL_BF16,
       MFI_METAL_MLX,
       MFI_METAL_GGML,
       MFI_METAL_FP8,
       MFI_METAL_MXFP4
};

/* A matrix [rows][cols] in planes, each bound at its own index. */
typedef struct mfi_metal_mat {
    uint64_t offset[3]; /* from where the plane's buffer is bound; of an expert, in its slot */
    uint64_t row_bytes[3];
    uint32_t rows, cols;
    uint32_t kind, bits, scale, group; /* quant.h's mfi_qtype */
    uint32_t n_elements, n_bytes;      /* GGML: of a block */
} mfi_metal_mat;

/* Pairs of one expert. */
typedef struct mfi_metal_item {
    uint64_t slot;     /* where the expert is: MFI_METAL_SLOT(buffer, offset) */
    uint32_t first, n; /* pairs [first, first + n); n 0: nothing to do */
} mfi_metal_item;

/* Slots may be spread over up to 255 buffers: a product works on the items of one. */
#define MFI_METAL_SLOT(buffer, offset) ((uint64_t)(buffer) << 56 | (uint64_t)(offset))
#define MFI_METAL_NOWHERE              (~(uint64_t)0) /* an expert that has no slot */

#define MFI_METAL_TILE 8 /* tokens, or pairs of an item, that share decoded weights */

enum { MFI_METAL_GLU_NONE, MFI_METAL_GLU_SILU, MFI_METAL_GLU_CLAMPED };

/* mm_*: y[t][r] = sum_c w[r][c] x[t][c] (plus a bias), r < rows.
 * glu_*: y = glu(mat[0] x, mat[1] x); both matrices are of one type and size, and in one slot.
 * mm_cols: y[t][c] = sum_r w[r][c] x[t][r], float types: experts stored [inputs][outputs].
 * mm_t: y[t][h][c] = sum_r x[t][h][r] w[h * head_rows + r][c], latent keys by nope.
 *
 * n_items > 0: over pairs of experts. Rows of y are pairs; row of x is x_row[pair], or the pair's
 * number with by_pair. Items can be of any n; about MFI_METAL_TILE is best. */
typedef struct mfi_metal_mm {
    mfi_metal_mat mat[2];
    uint64_t bias_offset[2]; /* in the slot */
    uint32_t bias_kind[2];   /* a float kind, or 0: none (experts only) */
    uint32_t ldx, ldy, n_tok;
    /* Products head by head: rows of a head (0: not so), and how far its part of x and y is from
     * the one before. */
    uint32_t head_rows, head_x, head_y;
    uint32_t n_items, slot_buffer, by_pair;
    uint32_t glu; /* of glu_* */
    float glu_alpha, glu_limit;
} mfi_metal_mm;
enum {
    MFI_METAL_MM_W = 1, /* three planes; of experts, the buffer of the slots three times */
    MFI_METAL_MM_X = 4,
    MFI_METAL_MM_Y,
    MFI_METAL_MM_ITEMS,
    MFI_METAL_MM_X_ROW,
    MFI_METAL_MM_TABLES /* mfi_metal_fill_tables */
};

/* y[t] = row tokens[t] of a matrix, times `scale`. */
typedef struct mfi_metal_embed {
    mfi_metal_mat mat;
    uint32_t ldy, n_tok;
    float scale;
    uint32_t pad;
} mfi_metal_embed;
enum {
    MFI_METAL_EMBED_W = 1, /* three planes */
    MFI_METAL_EMBED_TOKENS = 4,
    MFI_METAL_EMBED_Y,
    MFI_METAL_EMBED_TABLES
};

/* Cosines, then sines, of each row's position, times `factor`. Frequencies are turns a position in
 * units of 2^-64 (mfi_metal_turns): there is no double on the device, and a float's angle is off by
 * a tenth of a radian after a million positions. */
typedef struct mfi_metal_rope_table {
    uint32_t n_tok, n_pairs, ldy; /* pairs: n_rot / 2 */
    float factor;
} mfi_metal_rope_table;
enum {
    MFI_METAL_ROPE_FREQ = 1, /* uint64_t [n_pairs] */
    MFI_METAL_ROPE_POS,      /* uint32_t [n_tok] */
    MFI_METAL_ROPE_Y
};

/* y[t] = x[row] / sqrt(mean(x^2) + eps) * w; row is head_rows[t] with by_head, else t. y may be x.
 */
typedef struct mfi_metal_rmsnorm {
    uint32_t n, n_tok, ldx, ldy, by_head;
    float eps;
} mfi_metal_rmsnorm;
enum {
    MFI_METAL_NORM_X = 1,
    MFI_METAL_NORM_W,
    MFI_METAL_NORM_HEADS, /* uint32_t */
    MFI_METAL_NORM_Y
};

/* y[t] += factor * x[t]; a bias has ldx 0 and factor 1. */
typedef struct mfi_metal_add {
    uint32_t n, n_tok, ldx, ldy;
    float factor;
} mfi_metal_add;
enum { MFI_METAL_ADD_X = 1, MFI_METAL_ADD_Y };

/* y *= factor, n floats. */
typedef struct mfi_metal_scale {
    uint64_t n;
    float factor;
    uint32_t pad;
} mfi_metal_scale;
enum { MFI_METAL_SCALE_Y = 1 };

/* y = glu(gate, up) of rows; interleaved: of elements 2i and 2i + 1 of gate. y may be gate, unless
 * interleaved. */
typedef struct mfi_metal_glu {
    uint32_t n, n_tok, ldg, ldu, ldy, interleaved, kind;
    float alpha, limit;
} mfi_metal_glu;
enum { MFI_METAL_GLU_GATE = 1, MFI_METAL_GLU_UP, MFI_METAL_GLU_Y };

/* op.h's COMBINE. */
typedef struct mfi_metal_combine {
    uint32_t hidden, top_k, n_tok, ld_res, ld_sum, ldy, ldw, ldg;
    uint32_t how; /* op.h's mfi_combine */
    float factor;
} mfi_metal_combine;
enum {
    MFI_METAL_COMBINE_RES = 1,
    MFI_METAL_COMBINE_SUM, /* the shared expert's output; overwritten */
    MFI_METAL_COMBINE_Y,   /* [pairs][ldy] */
    MFI_METAL_COMBINE_WEIGHTS,
    MFI_METAL_COMBINE_GATE,   /* how == MFI_COMBINE_GATED */
    MFI_METAL_COMBINE_PAIR_OF /* uint32_t [n_tok][top_k] */
};

/* op.h's ATTN_PREP for rows of one sequence, the first at position pos. */
typedef struct mfi_metal_prep {
    uint32_t ldq, ldk, ldv, ldr, q_stride;
    uint32_t n_head, n_kv_head, head_dim, n_rot, n_tok;
    uint32_t pos, ring; /* ring 0: none */
    uint32_t unrotated, norm_after, q_normed, k_normed;
    float eps;
} mfi_metal_prep;
enum {
    MFI_METAL_PREP_Q = 1,
    MFI_METAL_PREP_K,
    MFI_METAL_PREP_V,
    MFI_METAL_PREP_ROPE,
    MFI_METAL_PREP_Q_NORM,
    MFI_METAL_PREP_K_NORM,
    MFI_METAL_PREP_KV /* the layer's cache, float32 */
};

/* op.h's LATENT_PREP; latent_tail copies the rotated part of every head's query behind its latent
 * one (the second half of LATENT_ABSORB). */
typedef struct mfi_metal_latent {
    uint32_t ldq, ldk, ldr, ldy;
    uint32_t n_head, head_dim, nope, n_rot, latent, n_tok, pos;
    uint32_t pairs; /* neighbours rotate */
    float eps;
} mfi_metal_latent;
enum {
    MFI_METAL_LATENT_Q = 1,
    MFI_METAL_LATENT_KVA,
    MFI_METAL_LATENT_ROPE,
    MFI_METAL_LATENT_NORM,
    MFI_METAL_LATENT_KV
};
enum { MFI_METAL_TAIL_Q = 1, MFI_METAL_TAIL_Y };

/* Attention of n_head heads over a cache whose positions are `row` floats; `group` heads share a
 * key at head / group * k_stride and a value beside it. For up to MFI_METAL_ATTN_SPLIT_TOK tokens
 * attn_part_* then attn_merge, blocks of positions side by side through `partial`; for more
 * attn_walk_*. Both give the same bits. */
typedef struct mfi_metal_attn {
    uint32_t ldq, q_stride, ldo;
    uint32_t row, v_offset, k_stride, v_stride;
    uint32_t dim, dim_v, n_head, group;
    uint32_t window, ring; /* 0: none */
    uint32_t with_sinks, gated;
    uint32_t pos, n_tok;
    uint32_t n_blocks; /* mfi_metal_attn_blocks */
    float scale;
} mfi_metal_attn;
#define MFI_METAL_ATTN_BLOCK     64
#define MFI_METAL_ATTN_SPLIT_TOK 4
enum {
    MFI_METAL_ATTN_Q = 1,
    MFI_METAL_ATTN_KV,
    MFI_METAL_ATTN_SINKS,
    MFI_METAL_ATTN_PARTIAL, /* mfi_metal_attn_partial_bytes */
    MFI_METAL_ATTN_OUT
};

/* op.h's GDN_CONV and GDN, rows of one sequence. */
typedef struct mfi_metal_conv {
    uint32_t n_ch, n_taps, n_tok, ldx;
} mfi_metal_conv;
enum { MFI_METAL_CONV_STATE = 1, MFI_METAL_CONV_W, MFI_METAL_CONV_X };

typedef struct mfi_metal_gdn {
    uint32_t ld_qkv, ld_z, ld_b, ld_a, ldo;
    uint32_t k_heads, v_heads, k_dim, v_dim, n_tok, tiled;
    float eps, q_scale; /* q_scale: 1 / sqrt(k_dim) */
} mfi_metal_gdn;
enum {
    MFI_METAL_GDN_QKV = 1,
    MFI_METAL_GDN_Z,
    MFI_METAL_GDN_B,
    MFI_METAL_GDN_A,
    MFI_METAL_GDN_NEG_EXP_A,
    MFI_METAL_GDN_DT,
    MFI_METAL_GDN_NORM,
    MFI_METAL_GDN_STATE, /* behind the convolution's rows */
    MFI_METAL_GDN_OUT
};

/* routing.h's mfi_routing. With list, n_tok is 1 and what the experts' products work on is written
 * as well: a pair a rank, at slots[id]. If one of them is nowhere, `layer` + 1 is the word that
 * stops the kernels behind. */
typedef struct mfi_metal_route {
    uint32_t score, n_groups, n_groups_used, group_best, normalize, corrected;
    uint32_t ld, n, top_k, n_tok, ldw, list, layer;
    float scale;
} mfi_metal_route;
enum {
    MFI_METAL_ROUTE_LOGITS = 1,
    MFI_METAL_ROUTE_CORRECTION,
    MFI_METAL_ROUTE_IDS, /* uint16_t [n_tok][top_k] */
    MFI_METAL_ROUTE_WEIGHTS,
    MFI_METAL_ROUTE_SLOTS, /* uint64_t [n] */
    MFI_METAL_ROUTE_ITEMS, /* [top_k] */
    MFI_METAL_ROUTE_X_ROW,
    MFI_METAL_ROUTE_PAIR_OF
};

/* Groups n_tok * top_k choices by expert, in order of tokens, into items of up to `tile` pairs;
 * n_items of them are written (mfi_metal_group_items), some with n 0. An expert that is nowhere
 * stops the kernels behind, as above. */
typedef struct mfi_metal_group {
    uint32_t n_tok, top_k, n_experts, tile, n_items, layer;
} mfi_metal_group;
enum {
    MFI_METAL_GROUP_IDS = 1,
    MFI_METAL_GROUP_SLOTS,
    MFI_METAL_GROUP_ITEMS,
    MFI_METAL_GROUP_X_ROW,
    MFI_METAL_GROUP_PAIR_OF
};

/* The lists of the IQ types: uint16_t, one behind the other. */
enum {
    MFI_METAL_IQ2_XXS = 0,
    MFI_METAL_IQ2_XS = MFI_METAL_IQ2_XXS + 256,
    MFI_METAL_IQ2_S = MFI_METAL_IQ2_XS + 512,
    MFI_METAL_IQ1 = MFI_METAL_IQ2_S + 1024,
    MFI_METAL_IQ3_XXS = MFI_METAL_IQ1 + 2048,
    MFI_METAL_IQ3_S = MFI_METAL_IQ3_XXS + 256,
    MFI_METAL_N_TABLES = MFI_METAL_IQ3_S + 512
};

#define MFI_METAL_ROWS_TG      8 /* rows of a product that a threadgroup has */
#define MFI_METAL_MM_THREADS   64
#define MFI_METAL_NORM_THREADS 256 /* at most */
#define MFI_METAL_QUERIES      8   /* that share a threadgroup's keys */
#define MFI_METAL_ATTN_THREADS 128
#define MFI_METAL_GDN_PARTS    4 /* threads that share a column of state */

#define MFI_METAL_MAX_EXPERT_GROUPS 64 /* limits.h */
#define MFI_METAL_MAX_TOP_K         64

/* Queries that share a threadgroup's keys: what 32 KiB have room for. */
static inline uint32_t mfi_metal_attn_queries(uint32_t dim)
{
    return dim > 896 ? MFI_METAL_QUERIES / 2 : MFI_METAL_QUERIES;
}

#ifndef __METAL_VERSION__
#ifdef __cplusplus
extern "C" {
#endif

typedef enum mfi_metal_kernel {
#define MFI_METAL_ENUM(name, n_buffers, type) MFI_METAL_K_##name,
#define MFI_METAL_ENUM_MM(d)                  MFI_METAL_MM_KERNELS(MFI_METAL_ENUM, d)
    MFI_METAL_DECODERS(MFI_METAL_ENUM_MM) MFI_METAL_OTHER_KERNELS(MFI_METAL_ENUM)
#undef MFI_METAL_ENUM
#undef MFI_METAL_ENUM_MM
        MFI_METAL_N_KERNELS
} mfi_metal_kernel;

typedef struct mfi_metal_kernel_info {
    const char *name; /* of the function */
    uint32_t n_buffers, args_bytes;
} mfi_metal_kernel_info;
extern const mfi_metal_kernel_info mfi_metal_kernels[MFI_METAL_N_KERNELS];

/* A dispatch but for its buffers. */
typedef struct mfi_metal_call {
    mfi_metal_kernel kernel;
    uint32_t groups[3], threads, shared_bytes;
} mfi_metal_call;

/* How a weight of this type and shape is described; offsets are 0. */
mfi_metal_mat mfi_metal_mat_of(mfi_qtype type, uint32_t rows, uint32_t cols);

/* Products: one token, or items of about one pair, go through *_1 (few), others through *_8. The
 * bits are the same. With n_items, `few` says which; without, n_tok does. glu != NONE: glu_*. */
mfi_metal_call mfi_metal_mm_call(const mfi_metal_mm *a, bool few);
mfi_metal_call mfi_metal_mm_cols_call(const mfi_metal_mm *a);
mfi_metal_call mfi_metal_mm_t_call(const mfi_metal_mm *a, uint32_t n_head);
mfi_metal_call mfi_metal_embed_call(const mfi_metal_embed *a);
mfi_metal_call mfi_metal_rope_table_call(const mfi_metal_rope_table *a);
mfi_metal_call mfi_metal_rmsnorm_call(const mfi_metal_rmsnorm *a);
mfi_metal_call mfi_metal_add_call(const mfi_metal_add *a);
mfi_metal_call mfi_metal_scale_call(const mfi_metal_scale *a);
mfi_metal_call mfi_metal_glu_call(const mfi_metal_glu *a);
mfi_metal_call mfi_metal_combine_call(const mfi_metal_combine *a);
mfi_metal_call mfi_metal_prep_call(const mfi_metal_prep *a);
mfi_metal_call mfi_metal_latent_prep_call(const mfi_metal_latent *a);
mfi_metal_call mfi_metal_latent_tail_call(const mfi_metal_latent *a); /* n_rot 0: no groups */
mfi_metal_call mfi_metal_attn_part_call(const mfi_metal_attn *a);
mfi_metal_call mfi_metal_attn_merge_call(const mfi_metal_attn *a);
mfi_metal_call mfi_metal_attn_walk_call(const mfi_metal_attn *a);
mfi_metal_call mfi_metal_conv_call(const mfi_metal_conv *a);
mfi_metal_call mfi_metal_gdn_call(const mfi_metal_gdn *a);
mfi_metal_call mfi_metal_route_call(const mfi_metal_route *a);
mfi_metal_call mfi_metal_group_call(
    const mfi_metal_group *a); /* n_experts <= MFI_METAL_MAX_GROUPED */
#define MFI_METAL_MAX_GROUPED 4094

/* Blocks of positions that a token of this step may see at most (args.n_blocks), and what `partial`
 * has to hold. */
uint32_t mfi_metal_attn_blocks(uint32_t pos, uint32_t n_tok, uint32_t window);
uint64_t mfi_metal_attn_partial_bytes(uint32_t n_tok, uint32_t n_head, uint32_t n_blocks,
                                      uint32_t dim_v);
/* Items that a group call writes. */
uint32_t mfi_metal_group_items(uint32_t n_tok, uint32_t top_k, uint32_t n_experts, uint32_t tile);
/* Radians a position as rope_table takes them. */
uint64_t mfi_metal_turns(double radians);
void mfi_metal_fill_tables(uint16_t tables[MFI_METAL_N_TABLES]);

/* The kernels' source, this file first; made by cmake/metal_source.cmake. */
extern const char mfi_metal_source[];
extern const size_t mfi_metal_source_bytes; /* without the NUL behind it */

#ifdef __cplusplus
}
#endif
#endif
#endif
