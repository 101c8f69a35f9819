/* A model as data: shape, a recipe for each layer kind, and every role bound to catalog tensors.
 *
 * A family is one file (arch_*.c): a function that reads the shape from config.json, a name table
 * and recipes. It multiplies nothing. Binding checks every tensor's shape against the table once;
 * after that nobody sees a name. Immutable after open; the catalog must outlive it. */
#ifndef MFI_MODEL_MODEL_H
#define MFI_MODEL_MODEL_H

#include "format/catalog.h"
#include "op/program.h"

/* Roles of resident weights. */
typedef enum mfi_role {
    MFI_ROLE_EMBED,
    MFI_ROLE_NORM_OUT,
    MFI_ROLE_LM_HEAD,
    /* of a layer */
    MFI_ROLE_NORM_MIXER,
    MFI_ROLE_NORM_FFN,
    MFI_ROLE_ATTN_Q,
    MFI_ROLE_ATTN_K,
    MFI_ROLE_ATTN_V,
    MFI_ROLE_ATTN_O,
    MFI_ROLE_ATTN_Q_BIAS,
    MFI_ROLE_ATTN_K_BIAS,
    MFI_ROLE_ATTN_V_BIAS,
    MFI_ROLE_ATTN_O_BIAS,
    MFI_ROLE_ATTN_SINKS,
    MFI_ROLE_ATTN_Q_NORM,
    MFI_ROLE_ATTN_K_NORM,
    MFI_ROLE_LATENT_Q_A, /* hidden to the query's latent */
    MFI_ROLE_LATENT_Q_NORM,
    MFI_ROLE_LATENT_Q_B,  /* and on to the queries */
    MFI_ROLE_LATENT_KV_A, /* hidden to the latent of keys and values, and the rotated key */
    MFI_ROLE_LATENT_KV_NORM,
    MFI_ROLE_LATENT_K, /* between latent and keys */
    MFI_ROLE_LATENT_V, /* latent to values */
    MFI_ROLE_GDN_QKV,
    MFI_ROLE_GDN_Z,
    MFI_ROLE_GDN_B,
    MFI_ROLE_GDN_A,
    MFI_ROLE_GDN_CONV,
    MFI_ROLE_GDN_A_LOG,
    MFI_ROLE_GDN_DT_BIAS,
    MFI_ROLE_GDN_NORM,
    MFI_ROLE_GDN_OUT,
    MFI_ROLE_ROUTER,
    MFI_ROLE_ROUTER_BIAS,       /* added to the logits */
    MFI_ROLE_ROUTER_CORRECTION, /* counts in the choice only */
    MFI_ROLE_FFN_GATE,
    MFI_ROLE_FFN_UP,
    MFI_ROLE_FFN_DOWN,
    MFI_ROLE_SHARED_GATE,
    MFI_ROLE_SHARED_UP,
    MFI_ROLE_SHARED_DOWN,
    MFI_ROLE_SHARED_SCALE,
    MFI_N_ROLES,
    MFI_ROLE_NONE = 255
} mfi_role;

/* Sizes that name tables and buffers are written in. */
typedef enum mfi_dim {
    MFI_DIM_1,
    MFI_DIM_HIDDEN,
    MFI_DIM_VOCAB,
    MFI_DIM_Q,           /* n_head * head_dim, doubled where gates ride along */
    MFI_DIM_KV,          /* n_kv_head * head_dim */
    MFI_DIM_ATTN,        /* n_head * head_dim; latent attention: n_head * v_dim */
    MFI_DIM_HEAD,        /* head_dim */
    MFI_DIM_N_HEAD,      /* n_head */
    MFI_DIM_ROT,         /* n_rot */
    MFI_DIM_LATENT_Q,    /* latent_q */
    MFI_DIM_LATENT_KV,   /* latent_kv */
    MFI_DIM_LATENT_KV_A, /* latent_kv + n_rot */
    MFI_DIM_LATENT_K,    /* n_head * latent_kv */
    MFI_DIM_LATENT_QL,   /* n_head * (latent_kv + n_rot) */
    MFI_DIM_NOPE,        /* nope_dim */
    MFI_DIM_GDN_QKV,     /* 2 k_heads k_dim + v_heads v_dim */
    MFI_DIM_GDN_V,       /* v_heads v_dim */
    MFI_DIM_GDN_HEADS,   /* v_heads */
    MFI_DIM_GDN_HEAD,    /* v_dim */
    MFI_DIM_CONV,        /* conv_kernel */
    MFI_DIM_EXPERTS,
    MFI_DIM_TOP_K,
    MFI_DIM_EXPERT, /* expert_width */
    MFI_DIM_SHARED, /* shared_width */
    MFI_DIM_DENSE   /* dense_width */
} mfi_dim;

uint32_t mfi_dim_value(const mfi_shape *shape, mfi_dim dim);

typedef enum mfi_mixer {
    MFI_MIXER_ATTN,
    MFI_MIXER_GDN,
    MFI_MIXER_LATENT,
    MFI_MIXER_LATENT_DIRECT,
    MFI_MIXER_WINDOW, /* attention over a sliding window */
    MFI_N_MIXERS
} mfi_mixer;
typedef enum mfi_ffn { MFI_FFN_MOE, MFI_FFN_MOE_SHARED, MFI_FFN_DENSE, MFI_N_FFNS } mfi_ffn;

/* A name in a format's files, and in which order its rows stand there. */
typedef struct mfi_name {
    const char
        *name; /* what follows "layers.N." or "blk.N."; outside the layers, after the prefix */
    mfi_row_map map;
} mfi_name;

/* One line of a family's name table: a role with its size, and what Hugging Face (and MLX) and GGUF
 * call it; the second name is tried where the first isn't there. */
typedef struct mfi_name_rule {
    mfi_role role;
    mfi_dim rows, cols; /* vectors: rows 1 */
    mfi_load
        load; /* from Hugging Face's files; MLX and GGUF have norms and A_log transformed already */
    mfi_name hf[2], gguf[2];
} mfi_name_rule;

/* One op of a recipe, before layers and weights are filled in. */
typedef struct mfi_recipe_op {
    mfi_op_code code;
    uint8_t src[MFI_OP_OPERANDS], dst[MFI_OP_OPERANDS];
    uint8_t w[MFI_OP_OPERANDS]; /* mfi_role */
    uint8_t n;                  /* MATMUL: weights */
} mfi_recipe_op;

typedef struct mfi_recipe {
    const mfi_recipe_op *ops;
    uint32_t n_ops;
    const mfi_name_rule *names; /* the weights it uses */
    uint32_t n_names;
} mfi_recipe;

typedef struct mfi_model mfi_model;
typedef struct mfi_config mfi_config; /* config.h */

/* What a family's files call a layer's experts, after "layers.N."; GGUF has names of its own. */
typedef struct mfi_expert_names {
    const char *each; /* one tensor a matrix: EACH.E.PROJ.weight */
    const char *proj[MFI_EXPERT_PROJS];
    const char *stacked;            /* MLX, [E, rows, cols]: STACKED.gate_proj.weight and so on */
    const char *fused, *fused_down; /* [E, gate then up, hidden], and down beside it */
    const char *resaved, *resaved_down; /* the same by transformers' own names; or NULL */
} mfi_expert_names;

/* A way the family is stored in, and what our results on it were compared with. */
typedef struct mfi_evidence {
    const char *format, *against;
} mfi_evidence;

/* Where MLX's own files differ from Hugging Face's names, beside stacked experts. */
typedef struct mfi_mlx_form {
    const char *root;       /* before "model." and "lm_head."; NULL: nothing */
    const char *model_type; /* NULL: as in config.json, or the first of model_types */
    bool float_router;      /* its router can't be quantised */
    struct {
        const char *key, *value;
    } asks[2]; /* members of config.json that mlx-lm asks for and files may lack */
} mfi_mlx_form;

/* A family. */
typedef struct mfi_arch {
    const char *name;
    const char *const *model_types; /* config.json's model_type, NULL-terminated */
    const char *gguf_arch;          /* general.architecture */
    mfi_mlx_form mlx;
    mfi_recipe begin, mixer[MFI_N_MIXERS], ffn[MFI_N_FFNS], head;
    const mfi_expert_names *experts;
    /* Fills the shape, the layers' kinds (all attention and MOE beforehand) and what is omitted. */
    mf_status (*read_config)(mfi_model *model, const mfi_config *config, mf_error *err);
    bool expert_bias; /* experts' matrices have biases */
    bool interleaved; /* fused gate and up alternate row by row, and float experts are transposed */
    const mfi_evidence *evidence; /* [n_evidence] for people: `moeflux families` */
    uint32_t n_evidence;
} mfi_arch;

/* Where a resident weight comes from. */
typedef struct mfi_weight_src {
    uint32_t tensor; /* MFI_TENSOR_NONE: the role isn't used */
    uint32_t rows, cols;
    mfi_load load;
    mfi_row_map map;
} mfi_weight_src;

/* Where one matrix of one expert comes from: rows [row, row + rows) of a tensor. UP of interleaved
 * experts comes from none. */
typedef struct mfi_expert_src {
    uint32_t tensor, row;
} mfi_expert_src;

struct mfi_model {
    const mfi_arch *arch;
    const mfi_catalog *catalog;
    char family[64];
    char reason[160]; /* how the family was recognised */
    mfi_shape shape;
    uint32_t ctx_model;
    bool tied;               /* lm_head is the embedding */
    uint32_t n_mtp_layers;   /* multi-token prediction: behind the others, left alone */
    bool omit[MFI_N_ROLES];  /* roles of the recipes that this model does without */
    uint8_t *mixer;          /* [n_layers] mfi_mixer */
    uint8_t *ffn;            /* [n_layers] mfi_ffn */
    mfi_weight_src *weights; /* [1 + n_layers][MFI_N_ROLES]; row 0: outside the layers */
    mfi_expert_src *experts; /* [n_layers][n_experts][MFI_EXPERT_PROJS]; dense layers unused */
    uint32_t *expert_bias;   /* [n_layers][MFI_EXPERT_PROJS] tensors, a row an expert; or NONE */
    bool interleaved, transposed; /* how experts are stored: program.h */
    uint32_t n_ignored; /* tensors that belong to other parts (vision, multi-token prediction) */
};

/* Recognises the family, reads its shape and binds its tensors. MF_ERR_UNSUPPORTED names an unknown
 * family and lists the known ones; MF_ERR_TENSOR_MISSING and MF_ERR_TENSOR_SHAPE name the tensor.
 */
mf_status mfi_model_open(mfi_model **model, const mfi_catalog *catalog, mf_error *err);
void mfi_model_close(mfi_model **model);

/* Whether a layer has routed experts. */
static inline bool mfi_model_routed(const mfi_model *model, uint32_t layer)
{
    return model->ffn[layer] != MFI_FFN_DENSE;
}

uint32_t mfi_model_n_routed(const mfi_model *model); /* layers that have */

extern const mfi_arch mfi_arch_qwen3_5_moe, mfi_arch_qwen3_next, mfi_arch_qwen3_moe,
    mfi_arch_qwen2_moe, mfi_arch_mixtral, mfi_arch_olmoe, mfi_arch_glm4_moe, mfi_arch_minimax_m2,
    mfi_arch_granitemoe, mfi_arch_dots1, mfi_arch_deepseek_v3, mfi_arch_deepseek_v2,
    mfi_arch_glm4_moe_lite, mfi_arch_deepseek, mfi_arch_gpt_oss, mfi_arch_ernie4_5_moe,
    mfi_arch_hunyuan_moe, mfi_arch_exaone_moe, mfi_arch_bailing_moe, mfi_arch_bailing_moe2;

/* Families known, in the order they are tried and listed. */
extern const mfi_arch *const mfi_archs[];
extern const uint32_t mfi_n_archs;

/* Whether two models compute the same from the same weights, however these are stored. */
bool mfi_model_same_shape(const mfi_model *a, const mfi_model *b);

/* config_say.c: what config.json would say of a model from GGUF, as the members of an object
 * without braces, each with a comma behind it. MF_ERR_UNSUPPORTED if the family's reader wouldn't
 * read the same shape from it. */
mf_status mfi_model_say_config(const mfi_model *model, mfi_buf *out, mf_error *err);

/* model.c: reads the shape and the layers' kinds; c->root is the text part, `outer` all of it
 * (config.json). */
mf_status mfi_model_read_shape(mfi_model *model, const mfi_config *c, const mfi_json *outer,
                               mf_error *err);

/* bind.c: fills weights and experts. */
mf_status mfi_model_bind(mfi_model *model, mf_error *err);

#define MFI_RECIPE(ops_, names_)                                                                   \
    {                                                                                              \
        .ops = ops_, .n_ops = MFI_ARRAY_LEN(ops_), .names = names_,                                \
        .n_names = MFI_ARRAY_LEN(names_)                                                           \
    }

#endif
