/* A program: the flat list of ops of one forward pass with everything that they refer to.
 *
 * Built by the plan, read-only afterwards. Backends execute spans of it; they see neither the model
 * nor the files. */
#ifndef MFI_OP_PROGRAM_H
#define MFI_OP_PROGRAM_H

#include "op/op.h"
#include "op/rope.h"
#include "op/routing.h"

/* How a weight's stored elements become what ops use. */
typedef enum mfi_load {
    MFI_LOAD_MATRIX,     /* as stored: the kernels decode it */
    MFI_LOAD_DECODED,    /* a matrix whose rows can't be taken apart in stored form: to float32 */
    MFI_LOAD_F32,        /* widened to float32 */
    MFI_LOAD_F32_PLUS1,  /* zero-centred norm weights: 1 + w */
    MFI_LOAD_F32_NEG_EXP /* A_log: -exp(w) */
} mfi_load;

/* Where the rows of a weight stand in its tensor, if not in order. Gated DeltaNet's projections
 * come packed by key head (Qwen3-Next) or with value heads dealt out over the key heads ("tiled":
 * llama.cpp's files of Qwen3.5), others' queries and keys with their pairs side by side; latent
 * attention's keys and values come by heads. Ops see one order only. */
typedef enum mfi_row_map {
    MFI_MAP_NONE,
    MFI_MAP_QKVZ_QKV, /* tensor: per key head q, k, its v heads, their z; weight: all q, all k, all
                         v */
    MFI_MAP_QKVZ_Z,   /* the same tensor; weight: all z */
    MFI_MAP_BA_B,     /* tensor: per key head b of its v heads, then a */
    MFI_MAP_BA_A,
    MFI_MAP_TILED_QKV,   /* q and k in order, v heads tiled */
    MFI_MAP_TILED_V,     /* rows of v heads, tiled */
    MFI_MAP_TILED_HEADS, /* one row, or one element of a vector, a v head */
    MFI_MAP_TILED_COLS,  /* columns of v heads, tiled */
    MFI_MAP_FUSED_Q,     /* tensor: all q, all k, all v */
    MFI_MAP_FUSED_K,
    MFI_MAP_FUSED_V,
    MFI_MAP_ROPE_PAIRS, /* heads of q or k whose rotated pairs are neighbours (llama.cpp's "llama"
                            and kin); ops rotate i with i + n_rot / 2 */
    MFI_MAP_KVB_K, /* tensor: per head the rows of its key, then of its value; weight: all keys */
    MFI_MAP_KVB_V  /* the same tensor; weight: all values */
} mfi_row_map;

/* A resident weight. Planes lie in the dense region, each aligned to 64 bytes or, where that lets
 * it be read past the page cache, as far from a block of the drive as in its file (a multiple of
 * 4); everything but MATRIX is float32 in plane 0. */
typedef struct mfi_program_weight {
    mfi_qtype type;
    uint32_t rows, cols;
    uint8_t x_bits; /* multiplies the 8-bit or 16-bit form of its input; 0: floats */
    mfi_load load;  /* how the loader fills it, and from which catalog tensor */
    mfi_row_map map;
    bool in_place; /* in the mapping of its file, not in the dense region */
    uint32_t tensor;
    uint64_t offset[MFI_MAX_PLANES]; /* in the dense region */
} mfi_program_weight;

typedef enum mfi_buf_rows {
    MFI_ROWS_TOKENS, /* chunk */
    MFI_ROWS_PAIRS,  /* chunk * top_k */
    MFI_ROWS_HEAD    /* n_logit_rows */
} mfi_buf_rows;

typedef struct mfi_program_buf {
    uint32_t width; /* floats a row; 0: not used */
    uint32_t rows;
    uint8_t x_bits;  /* has an 8-bit form beside it, or both; or 0 */
    uint64_t offset; /* in the scratch region; aligned to 64 */
    uint64_t q_offset, d_offset, s_offset, h_offset;               /* of the 8-bit form (mfi_q8) */
    uint64_t lo_offset, d_fine_offset, s_fine_offset, h_lo_offset; /* and the 16-bit one */
} mfi_program_buf;

/* Where an expert's matrices lie in its slot, aligned as resident weights are; the same for all
 * experts of a layer. */
typedef enum mfi_expert_proj {
    MFI_EXPERT_GATE,
    MFI_EXPERT_UP,
    MFI_EXPERT_DOWN,
    MFI_EXPERT_PROJS
} mfi_expert_proj;

typedef struct mfi_expert_mat {
    mfi_qtype type;
    uint32_t rows, cols;             /* as stored; no rows: there is none */
    bool transposed;                 /* stored [inputs][outputs]; float types only */
    uint32_t offset[MFI_MAX_PLANES]; /* in the slot */
    mfi_qtype bias_type;             /* a float type */
    uint32_t n_bias, bias_offset;    /* as many as outputs, or none */
} mfi_expert_mat;

typedef struct mfi_expert_layout {
    mfi_expert_mat proj[MFI_EXPERT_PROJS];
    bool interleaved; /* GATE has twice the outputs: gate 0, up 0, gate 1, ...; there is no UP */
    uint64_t bytes;
    uint64_t gap_bytes;        /* of them, those between planes for the drive's sake */
    uint8_t in_bits, mid_bits; /* what gate and up, and down, take: as x_bits */
} mfi_expert_layout;

/* How gate and up become one: GLU, and inside EXPERTS. */
typedef enum mfi_glu {
    MFI_GLU_SILU,   /* silu(gate) * up */
    MFI_GLU_CLAMPED /* gpt-oss's: kernels.h, glu_clamped */
} mfi_glu;

/* What ops need to know of the model: plain numbers. */
typedef struct mfi_shape {
    uint32_t n_layers, hidden, n_vocab;
    float eps;
    uint32_t n_head, n_kv_head, head_dim, n_rot;
    mfi_rope rope;
    bool attn_gate;
    float attn_scale;  /* of q.k */
    float embed_scale; /* 1 unless the family says */
    float residual_scale, logit_scale;
    /* Latent attention: ranks of queries (0: not compressed) and of keys and values, a head's
     * columns that aren't rotated (head_dim is these and n_rot), and those of its value. */
    uint32_t latent_q, latent_kv, nope_dim, v_dim;
    float latent_eps; /* of the latents' norms */
    bool rope_pairs;  /* neighbours rotate, (2i, 2i+1); else (i, i + n_rot/2) */
    uint32_t gdn_k_heads, gdn_v_heads, gdn_k_dim, gdn_v_dim, conv_kernel;
    bool gdn_tiled; /* v head h belongs to k head h % k_heads, else h / (v_heads / k_heads) */
    uint32_t n_experts, top_k, expert_width;
    uint32_t shared_width; /* of all shared experts together */
    uint32_t dense_width;  /* feed-forward of layers without experts */
    mfi_routing routing;
    mfi_glu glu;
    float glu_alpha, glu_limit; /* of MFI_GLU_CLAMPED */
    uint32_t window; /* positions that sliding-window layers look back over, with their own */
} mfi_shape;

/* Row `row` of a mapped weight stands at row *src of its tensor, and so do the returned number of
 * rows after it. For TILED_COLS rows are columns. */
uint32_t mfi_map_source(const mfi_shape *shape, mfi_row_map map, uint32_t row, uint32_t *src);
/* Rows that the tensor of a mapped weight of `rows` rows has. */
uint64_t mfi_map_tensor_rows(const mfi_shape *shape, mfi_row_map map, uint64_t rows);

/* Sizes of a sequence's state in a layer; 0 where the layer keeps none. */
typedef struct mfi_layer_state {
    uint64_t kv_pos_bytes;    /* K and V of one position: [2][n_kv_head * head_dim] of kv_type; or
                                 its latent and rotated key: [latent_kv + n_rot] */
    uint64_t recurrent_bytes; /* convolution rows, then the heads' matrices */
    /* Sliding windows: position p stands in row p % kv_ring, which is one chunk more than the
     * window needs, so that a chunk's keys can all be written before its attention. 0: row p. */
    uint32_t window, kv_ring;
} mfi_layer_state;

/* Rows of K and V that a layer's cache has for a context. */
static inline uint32_t mfi_kv_rows(const mfi_layer_state *state, uint32_t ctx)
{
    return state->kv_ring && state->kv_ring < ctx ? state->kv_ring : ctx;
}

typedef struct mfi_program {
    mfi_shape shape;
    uint32_t chunk, n_logit_rows; /* most tokens of a step, most head rows */
    uint32_t ctx;                 /* positions that a sequence may have */
    mfi_qtype kv_type[2];         /* of cached keys, and values: f32, f16 or q8_0 */
    mfi_op *ops;
    uint32_t n_ops, head_first; /* ops from head_first on are the head */
    uint32_t *layer_end;        /* [n_layers] index after the layer's last op */
    /* Behind them, apart from the pass: ops [hint_first[i], hint_first[i + 1]) guess the experts of
     * layer i into HINTS, by its own router from RES as it is before the layer. They may run while
     * experts of the layer before are computed; EX and ROUTER are theirs then. */
    uint32_t n_hint_ops;
    uint32_t *hint_first; /* [n_layers + 1] */
    mfi_program_weight *weights;
    uint32_t n_weights;
    mfi_program_buf bufs[MFI_N_BUFS];
    mfi_expert_layout *experts; /* [n_layers]; 0 bytes where a layer has none */
    mfi_layer_state *state;     /* [n_layers] */
    uint64_t dense_bytes, scratch_bytes, slot_bytes;
    uint64_t dense_gap_bytes; /* of dense_bytes, those between planes for the drive's sake */
} mfi_program;

void mfi_program_free(mfi_program *program);

/* Columns, over all rows, of the largest input of a product: what an executor that keeps them in
 * another form for a while has to have room for. */
uint64_t mfi_program_input_columns(const mfi_program *program);

/* Bytes of the dense region from a weight's first plane to the end of its last. */
uint64_t mfi_program_weight_span(const mfi_program_weight *weight);

/* Parts that an expert is read in, of the layer where they are most: room for matrices without
 * biases at least. */
uint32_t mfi_program_n_parts(const mfi_program *program);

/* The first layer with routed experts: its layout speaks for all where one is shown. */
uint32_t mfi_program_expert_layer(const mfi_program *program);

#endif
