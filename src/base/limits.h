/* Every hard limit of the engine. Exceeding one is MF_ERR_LIMIT (or MF_ERR_FORMAT for foreign
 * bytes), never a clamp. */
#ifndef MFI_BASE_LIMITS_H
#define MFI_BASE_LIMITS_H

#include <stdint.h>

#define MFI_MAX_LAYERS             1024
#define MFI_MAX_EXPERTS            4096 /* a layer; ids are uint16_t */
#define MFI_MAX_TOP_K              64
#define MFI_MAX_EXPERT_GROUPS      64
#define MFI_MAX_HEAD_DIM           1024
#define MFI_MAX_DIMS               4 /* of a tensor */
#define MFI_MAX_PLANES             3 /* weights, scales, biases */
#define MFI_MAX_DIM                ((uint64_t)1 << 31)
#define MFI_MAX_TENSORS            ((uint32_t)1 << 22)
#define MFI_MAX_FILES              4096 /* of a model */
#define MFI_MAX_CTX                ((uint32_t)1 << 24)
#define MFI_MAX_CHUNK              4096
#define MFI_MAX_LOOKUP_TOK         64 /* of a step: backend.h's mfi_lookup_ops */
#define MFI_MAX_THREADS            256
#define MFI_CORES_FOR_ONE_EACH     4 /* of so many on, compute threads are one a core by default */
#define MFI_MAX_SESSIONS           256  /* of an engine, open at one time */
#define MFI_MAX_CHECKPOINTS        64   /* of a session */
#define MFI_MAX_PREFIXES           1024 /* snapshots of a prefix cache */
#define MFI_MAX_IO_THREADS         64
#define MFI_MAX_DEVICES            64
#define MFI_MAX_VOCAB              ((uint32_t)1 << 24)
#define MFI_MAX_REPEAT_LAST_N      65536 /* tokens a sampler's window holds; -1 (all) needs none */
#define MFI_MAX_JSON_DEPTH         256
#define MFI_MAX_JSON_BYTES         ((uint64_t)1 << 30)
#define MFI_MAX_CONFIG_BYTES       ((uint64_t)64 << 20) /* of config.json */
#define MFI_MAX_GGUF_KEYS          65536
#define MFI_MAX_GGUF_KEY_BYTES     65535
#define MFI_MAX_GGUF_NAME_BYTES    512  /* of a tensor */
#define MFI_MAX_PACK_NAME_BYTES    4096 /* of a tensor or a file */
#define MFI_MAX_PACK_HEADER_BYTES  ((uint64_t)1 << 30)
#define MFI_MAX_GGUF_ARRAY         4096 /* elements in the metadata tree; longer ones stay in the file */
#define MFI_MAX_GGUF_ELEMENTS      ((uint64_t)1 << 20)  /* that the tree holds of all arrays */
#define MFI_MAX_GGUF_META_BYTES    ((uint64_t)32 << 20) /* of the tree's text */
#define MFI_MAX_PATTERN_BYTES      16384                /* of a pre-tokeniser, before rewriting */
#define MFI_MAX_PRETOK_STEPS       32
#define MFI_MAX_NORM_STEPS         32
#define MFI_MAX_TOKEN_BYTES        65535 /* of a vocabulary entry */
#define MFI_MAX_RANKED_TOKEN_BYTES 1024  /* whose merges are worked out */
#define MFI_MAX_CHARSMAP_BYTES     (16 << 20)
#define MFI_MAX_ADDED_TOKEN_BYTES  1024 /* bounds the search for added tokens */
#define MFI_MAX_ADDED_TOKENS       65536
#define MFI_MAX_TEXT_BYTES         ((uint64_t)1 << 30) /* of one call to encode */
#define MFI_MAX_TEMPLATE_BYTES     ((uint64_t)1 << 20)
#define MFI_MAX_TEMPLATE_DEPTH     100       /* of nested blocks and brackets */
#define MFI_MAX_TEMPLATE_NESTING   1500      /* of evaluation: macros that call each other, ... */
#define MFI_MAX_TEMPLATE_STEPS     20000000u /* of one rendering */
#define MFI_MAX_TEMPLATE_OUT_BYTES ((uint64_t)64 << 20)
#define MFI_TEMPLATE_MEM_BASE_BYTES                                                                \
    ((uint64_t)2 << 20)            /* that every rendering may take, and more */
#define MFI_TEMPLATE_MEM_FACTOR 64 /* for every byte of its variables */
#define MFI_MAX_TEMPLATE_MEM_BYTES                                                                 \
    ((uint64_t)1 << 30)                              /* of one rendering; most of it is strings    \
                                                      */
#define MFI_MAX_GRAMMAR_BYTES    ((uint32_t)4 << 20) /* of a grammar's or schema's text */
#define MFI_MAX_GRAMMAR_NODES    ((uint32_t)1 << 20) /* of its parts, of each kind */
#define MFI_MAX_SCHEMA_WORK      ((uint64_t)1 << 26) /* of reading one: steps of some 10 ns */
#define MFI_MAX_GRAMMAR_STATES   ((uint32_t)1 << 19) /* of its automaton */
#define MFI_MAX_GRAMMAR_NESTING  256                 /* of groups in a grammar's text */
#define MFI_MAX_GRAMMAR_DEPTH    1024 /* rules within rules; deeper ones are not offered */
#define MFI_MAX_GRAMMAR_CONFIGS  8192 /* ways to read a text that are followed at one time */
#define MFI_MAX_TOOL_CALL_BYTES  ((uint32_t)1 << 20) /* longer ones are text */
#define MFI_MAX_STOPS            64                  /* stop strings of a generation */
#define MFI_MAX_STOP_BYTES       4096                /* of one */
#define MFI_MAX_PARTS            12 /* of an expert: by MFI_MAX_PLANES, and a bias */
#define MFI_MAX_TRACE_BYTES      ((uint64_t)4 << 30)
#define MFI_MAX_HELD             128 /* experts that the forward pass holds or waits for at one time */
#define MFI_MAX_MISS_HELD        16  /* of them, those that the CPU computes for a device */
#define MFI_MAX_MISS_TOK         4   /* tokens of a step whose misses it computes */
#define MFI_MAX_HINTS            32  /* experts that are read ahead at one time */
#define MFI_WATCH_TOKENS         512 /* whose choices are kept for who watches, and at most: */
#define MFI_WATCH_CHOICES        ((uint32_t)128 << 10)
#define MFI_WATCH_HALF_LIFE      64  /* tokens, of recent use */
#define MFI_WATCH_EVALUATIONS    128 /* that are remembered */
#define MFI_PAGE_CACHE_BYTES_MIN ((uint64_t)256 << 10)
#define MFI_PAGE_CACHE_BYTES_MAX ((uint64_t)64 << 20) /* left behind by our own reads */
#define MFI_KEEP_CACHE_BYTES_MAX ((uint64_t)8 << 20)  /* of them, by states that are written */

/* Of the server; time and queue are options. */
#define MFI_MAX_HTTP_HEAD_BYTES   ((uint32_t)64 << 10) /* request line and headers; trailers */
#define MFI_MAX_HTTP_TARGET_BYTES 8192
#define MFI_MAX_CLIENT_BODY_BYTES ((uint32_t)16 << 20) /* of an answer that `top` reads */
#define MFI_MAX_HTTP_HEADERS      100
#define MFI_MAX_HTTP_EXTRA_BYTES  ((uint32_t)16 << 10) /* of all chunk extensions of a body */
#define MFI_MAX_HTTP_AHEAD_BYTES  ((uint32_t)64 << 10) /* sent before an answer is over */
#define MFI_MAX_HTTP_BODY_BYTES   ((uint64_t)64 << 20)
#define MFI_MAX_HTTP_CONNECTIONS  4096
#define MFI_MAX_REQUEST_VALUES    (1 << 19) /* of JSON in a body */
#define MFI_MAX_HTTP_LISTENERS    16
#define MFI_MAX_API_KEYS          1024
#define MFI_MAX_API_KEY_BYTES     512
#define MFI_MAX_SERVED_QUEUE      4096
#define MFI_MAX_SERVED_SAID_BYTES 4096 /* of a request's member that its answer repeats */
#define MFI_MAX_STORED_RESPONSES  1024 /* answers of /v1/responses that are kept */
#define MFI_MAX_ITEM_REFERENCES   128  /* of a request */
#define MFI_MAX_STORED_BYTES      ((uint64_t)32 << 20) /* of all of them */
#define MFI_MAX_TALKS             1024                 /* of /v1/conversations that are kept */
#define MFI_MAX_TALK_BYTES        ((uint64_t)32 << 20) /* of all of them */
#define MFI_MAX_METADATA          16                   /* members of a request's metadata */
#define MFI_MAX_METADATA_BYTES    512  /* of a value, in characters; of a name, an eighth of it */
#define MFI_MAX_SERVED_CHOICES    16   /* n of one request, and prompts of one */
#define MFI_MAX_SERVED_TOOLS      1024 /* of a request, and names that a tool_choice allows */

/* MLX weights of at most this many bits meet 8-bit activations by default: by docs/numerics.md,
 * those whose own error is ten times what the activations add. */
#define MFI_Q8_AUTO_MAX_BITS 4

_Static_assert(MFI_MAX_EXPERTS <= UINT16_MAX, "expert ids are uint16_t");
_Static_assert(MFI_MAX_TOP_K <= MFI_MAX_EXPERTS, "top-k picks distinct experts");
_Static_assert(MFI_MAX_EXPERT_GROUPS <= MFI_MAX_TOP_K, "one list serves experts and groups");

#endif
