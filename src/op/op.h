/* The op vocabulary: what a forward pass is made of.
 *
 * Each op is defined for T tokens of any number of sequences, so that one definition serves a
 * single token, a prompt, and many answers at once. Operands are activation buffers (planned
 * scratch, a fixed width a row), weights (an index into the program's table) and, implicitly, the
 * state of each row's sequence (KV, recurrent). Ops are coarse: between two of them all workers
 * meet. */
#ifndef MFI_OP_OP_H
#define MFI_OP_OP_H

#include "base/limits.h"
#include "quant/quant.h"

/* X(name, what it does); src/dst/w are the op's operands in order. */
#define MFI_OP_LIST(X)                                                                             \
    X(EMBED)      /* dst[0] = rows of w[0] for the step's tokens, times embed_scale */             \
    X(ROPE_TABLE) /* dst[0] = cosines, then sines, of every token's position */                    \
    X(RMSNORM)    /* dst[0] = rmsnorm(src[0]) * w[0]; n: with latent_eps */                        \
    X(QUANTIZE)   /* the 8-bit form of src[0]'s first w[0] columns, beside it */                   \
    X(MATMUL)     /* dst[i] = w[i] src[0], i < n */                                                \
    X(BIAS)       /* dst[i] += w[i], i < n */                                                      \
    X(ADD)        /* dst[0] += residual_scale * src[0] */                                          \
    X(SCALE)      /* dst[0] *= logit_scale */                                                      \
    X(GLU)        /* dst[0] = src[0] and src[1] by the shape's glu */                              \
    X(ATTN_PREP)  /* src: q (with gates), k, v, rope table; w: q norm, k norm, or none. Norms and  \
                   */                                                                              \
                  /* rotates q and k in place and appends k, v to the layer's cache */             \
    X(ATTN)     /* dst[0] = causal attention of src[0] over the cache, times its sigmoid gates; */ \
                /* with n, w[0] has a sink for each head */                                        \
    X(GDN_CONV) /* src[0] in place: causal convolution and SiLU; w[0] taps */                      \
    X(GDN)      /* src: qkv, z, b, a; w: -exp(A_log), dt_bias, norm; dst[0]: gated output */       \
    X(LATENT_PREP) /* src: q, latent and key, rope table; w[0] norm of the latent. Rotates q in */ \
                   /* place, norms and rotates the rest into the layer's cache */                  \
    X(LATENT_ABSORB) /* dst[0] = src[0]'s heads taken into the latent space by w[0], and their */  \
                     /* rotated parts. n: w[0] has a head's rows by latent, else by nope */        \
    X(LATENT_ATTN)   /* dst[0] = causal attention of src[0]'s heads over the cache of latents */   \
    X(LATENT_EXPAND) /* dst[0] = src[0]'s heads taken out of the latent space by w[0] */           \
    X(ROUTE)   /* src[0] logits; w[0] correction bias, or none; dst[0] the ids (uint16_t), */      \
               /* dst[1] the weights of the top-k */                                               \
    X(EXPERTS) /* src[0]: input; dst[0]: one output a (token, rank) pair, in pair order */         \
    X(COMBINE) /* dst[0] += residual_scale * (sum over ranks of src[0] by weights src[1], on */    \
               /* top of src[2] by the shared expert's rule n). src[2] is overwritten with it */

typedef enum mfi_op_code {
#define MFI_OP_ENUM(name) MFI_OP_##name,
    MFI_OP_LIST(MFI_OP_ENUM)
#undef MFI_OP_ENUM
        MFI_N_OPS
} mfi_op_code;

/* ATTN_PREP's n: bits. */
typedef enum mfi_prep {
    MFI_PREP_UNROTATED = 1,  /* this layer's queries and keys know no positions */
    MFI_PREP_NORM_AFTER = 2, /* norms come after the rotation */
} mfi_prep;

/* How the shared expert's output joins the routed ones': COMBINE's n. */
typedef enum mfi_combine {
    MFI_COMBINE_ROUTED, /* there is none */
    MFI_COMBINE_GATED,  /* times sigmoid(src[3]) */
    MFI_COMBINE_SHARED  /* as it is */
} mfi_combine;

/* Activation buffers. Families use what they need; the plan sizes and places them. */
#define MFI_BUF_LIST(X)                                                                            \
    X(RES)  /* residual stream */                                                                  \
    X(H)    /* normed input of a block */                                                          \
    X(ROPE) /* cosines and sines */                                                                \
    X(Q)    /* queries, gates interleaved per head where there are any */                          \
    X(K)                                                                                           \
    X(V)                                                                                           \
    X(QA)  /* latent attention: the query's latent */                                              \
    X(KVA) /* latent of keys and values, and the key's rotated part */                             \
    X(QL)  /* queries in the latent space, with their rotated parts */                             \
    X(OL)  /* outputs in the latent space */                                                       \
    X(QKV) /* Gated DeltaNet: q, k, v before and after the convolution */                          \
    X(Z)                                                                                           \
    X(B)                                                                                           \
    X(A)                                                                                           \
    X(O)       /* mixer output before its projection */                                            \
    X(Y)       /* a block's output before it joins the residual stream */                          \
    X(ROUTER)  /* router logits */                                                                 \
    X(IDS)     /* chosen experts, uint16_t [T][top_k] in rank order */                             \
    X(WEIGHTS) /* their weights, float [T][top_k] */                                               \
    X(HINTS)   /* guesses of the next layer's IDS */                                               \
    X(HINTW)   /* their weights */                                                                 \
    X(DG)      /* dense feed-forward: gate, then activation */                                     \
    X(DU)      /* dense feed-forward: up */                                                        \
    X(SG)      /* shared expert: gate, then activation */                                          \
    X(SU)      /* shared expert: up */                                                             \
    X(SS)      /* shared expert: scalar gate */                                                    \
    X(EG)      /* experts: gate, then activation, [pairs][width] */                                \
    X(EU)      /* experts: up */                                                                   \
    X(EX)      /* experts: gathered inputs [pairs][hidden] */                                      \
    X(EY)      /* experts: outputs [pairs][hidden] */                                              \
    X(HN)      /* head: normed rows */                                                             \
    X(LOGITS)

typedef enum mfi_buf_id {
#define MFI_BUF_ENUM(name) MFI_BUF_##name,
    MFI_BUF_LIST(MFI_BUF_ENUM)
#undef MFI_BUF_ENUM
        MFI_N_BUFS
} mfi_buf_id;

#define MFI_OP_OPERANDS 4
#define MFI_WEIGHT_NONE UINT32_MAX

typedef struct mfi_op {
    uint8_t code; /* mfi_op_code */
    uint8_t n;    /* MATMUL, BIAS: weights; RMSNORM, LATENT_ABSORB: see there; COMBINE: mfi_combine;
                     ATTN: 1 with sinks; ATTN_PREP: mfi_prep */
    bool head;    /* on the step's head rows only, not on all tokens */
    uint16_t layer;
    uint8_t src[MFI_OP_OPERANDS]; /* mfi_buf_id */
    uint8_t dst[MFI_OP_OPERANDS];
    uint32_t w[MFI_OP_OPERANDS]; /* program weights */
} mfi_op;

/* Whether it meets a sequence's state, and so goes sequence by sequence where others take all of a
 * step's tokens. */
static inline bool mfi_op_is_mixer(const mfi_op *op)
{
    return op->code == MFI_OP_ATTN_PREP || op->code == MFI_OP_ATTN || op->code == MFI_OP_GDN_CONV ||
           op->code == MFI_OP_GDN || op->code == MFI_OP_LATENT_PREP ||
           op->code == MFI_OP_LATENT_ATTN;
}

#endif
