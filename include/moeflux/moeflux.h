/* moeflux: mixture-of-experts language models larger than memory.
 *
 * The words used here:
 *   engine     an opened model: plan, resident weights, expert cache, threads. Open it once.
 *   session    one timeline on an engine: tokens, KV cache, recurrent state.
 *   tokenizer  text <-> ids; needs only the tokenizer's files, no weights.
 *
 * Rules that hold for every function:
 *   - The library never exits, never prints and reads no environment variable.
 *   - A function that can fail returns mf_status and takes an mf_error, which may be NULL. On
 * failure the message names the file, tensor, layer, expert or offset concerned. Output arguments
 * are untouched on failure unless said otherwise.
 *   - `open` functions write a handle that the matching `close` releases and sets to NULL; closing
 *     NULL is allowed.
 *   - Option structs are filled by their `default` function first, which also sets struct_size.
 *   - An engine and its sessions belong to one thread at a time; different engines are independent.
 *     A tokenizer is immutable after open and may be used by several threads.
 *   - Sizes are bytes, times nanoseconds, token ids int32_t.
 */
#ifndef MOEFLUX_H
#define MOEFLUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mf_status.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(MF_BUILDING_LIBRARY) && defined(__GNUC__)
#define MF_API __attribute__((visibility("default")))
#else
#define MF_API
#endif

#define MF_VERSION_MAJOR 0
#define MF_VERSION_MINOR 1
#define MF_VERSION_PATCH 0

/* "0.1.0"; static storage. */
MF_API const char *mf_version(void);

/* ---- errors --------------------------------------------------------------------------------- */

#define MF_ERROR_MESSAGE_BYTES 768

typedef struct mf_error {
    mf_status status;
    char message[MF_ERROR_MESSAGE_BYTES]; /* NUL-terminated, one line, no trailing period */
} mf_error;

/* "MF_ERR_IO" and "input/output error"; static storage; unknown codes give "MF_ERR_?" and "?". */
MF_API const char *mf_status_name(mf_status status);
MF_API const char *mf_status_text(mf_status status);

/* ---- callbacks ------------------------------------------------------------------------------ */

/* Called at most a few times a second from the calling thread during long steps (loading weights,
 * prompts, conversion). `what` names the step; done <= total, in `unit` ("bytes", "tokens").
 * Returning false cancels the operation: MF_ERR_CANCELLED, and nothing is left behind. */
typedef bool (*mf_progress_fn)(void *user, const char *what, const char *unit, uint64_t done,
                               uint64_t total);

/* Receives `len` bytes of text; returning false stops the producer (MF_ERR_CANCELLED). */
typedef bool (*mf_write_fn)(void *user, const char *bytes, size_t len);

/* ---- engine --------------------------------------------------------------------------------- */

typedef struct mf_engine mf_engine;
typedef struct mf_session mf_session;
typedef struct mf_tokenizer mf_tokenizer;

/* How activations enter products with quantised weights. Float weights always see float
 * activations. */
typedef enum mf_activations {
    MF_ACTIVATIONS_AUTO = 0, /* by the type of each weight: see docs/numerics.md */
    MF_ACTIVATIONS_F32 = 1,
    MF_ACTIVATIONS_Q8 = 2, /* 8 bits in blocks of 32 */
    MF_ACTIVATIONS_Q16 = 3 /* 16 bits in blocks of 32; types without an integer form: float */
} mf_activations;

/* How keys and values of past tokens are kept. Less than f32 is lossy: see docs/numerics.md. */
typedef enum mf_cache_type {
    MF_CACHE_F32 = 0,
    MF_CACHE_F16 = 1,
    MF_CACHE_Q8_0 = 2 /* 8 bits in blocks of 32; heads of whole blocks only */
} mf_cache_type;

typedef struct mf_engine_options {
    size_t struct_size;
    const char *model_path; /* a model folder, or a GGUF file (of a split one the first) */
    uint64_t memory_bytes;  /* bound for the whole process; 0: from cgroup and free memory */
    uint32_t ctx;           /* positions a session can hold; 0: chosen by the plan */
    uint32_t n_threads;     /* compute threads; 0: one a processor this process may use, from 4
                             * cores on one a core */
    uint32_t n_io_threads;  /* readers; 0: chosen by the plan */
    uint32_t chunk;         /* prompt tokens evaluated together; 0: chosen by the plan */
    uint32_t n_logit_rows;  /* rows of logits wanted at once; 0: 1 */
    uint32_t n_sessions;    /* that can be open at once: the plan has room for them; 0: 1 */
    uint32_t n_checkpoints; /* places of a session that mf_session_sync can go back to though layers
                             * are recurrent or have windows; at most, the plan may have fewer */
    mf_activations activations;
    mf_cache_type cache_type_k, cache_type_v; /* latent attention: one for both */
    const char
        *isa; /* "c", "avx2", "avx-vnni", "avx512", "neon", "i8mm"; NULL or "auto": the best here */
    const char *trace_path; /* write every expert choice here as JSON lines; NULL: no trace */
    const char *stats_path; /* write what each evaluation cost here as JSON lines; NULL: nowhere */
    const char *io;         /* who reads: "threads", "uring"; NULL or "auto": chosen at open */
    const char *direct; /* "on": past the page cache where that is possible, "off": through it; NULL
                           or "auto": measured, when there is much to read */
    const char *policy; /* which cached expert goes: "lru", "lfu", "odds"; NULL or "auto": the
                           plan's choice */
    const char *hints;  /* experts of the next layer are read ahead by guesses of its router: "on",
                           "off"; NULL or "auto": while the measured drive has time for it */
    const char *streaming;   /* "off": all experts are read at open, and the budget has to hold them
                                (on a device: without a trace); NULL, "auto" or "on": those that are
                                wanted, when they are; a device with room for all reads them at open
                                whatever this says, but for a trace */
    const char *mirror_path; /* a second copy of the model on another drive, which shares the
                                reads; NULL: none. If it fails it is given up, with no harm; one
                                that was changed is an error, MF_ERR_FILE_CHANGED */
    const char *io_cache_path;  /* file where such measurements are kept; NULL: nowhere */
    const char *prefix_dir;     /* folder for states of timelines (mf_session_keep); NULL: none. One
                                 * engine at a time uses it; engines of any models may share it */
    uint64_t prefix_disk_bytes; /* its files never take more; 0: 4 GiB */
    const char *device;  /* "cpu", "cuda", "cuda:N", "metal"; "auto": a CUDA device if there is one;
                          * NULL: cpu */
    uint64_t vram_bytes; /* bound for what is taken of the device's memory; 0: what is free */
    const char *host_tier; /* what a device copies experts from: "slots", "mapped"; NULL: chosen */
    const char *tiers;     /* of both: "inclusive", "exclusive"; NULL: chosen (docs/cuda.md) */
    const char *miss;      /* what a device lacks is "copy" (or NULL), or computed by the "cpu" */
    bool collect_imatrix;  /* evaluations sum up what mf_imatrix_write writes */
    bool grammars;         /* sessions may generate under a grammar: the plan has room for it */
    bool watched;          /* mf_engine_experts and its like answer: the plan has room for it */
    mf_progress_fn progress; /* may be NULL */
    void *progress_user;
} mf_engine_options;

MF_API void mf_engine_options_default(mf_engine_options *options);

/* The devices that engines can be opened on, as a table for people or one JSON object; says why
 * where there is none. */
MF_API mf_status mf_devices_write(bool json, mf_write_fn write, void *user, mf_error *err);

/* Opens a model: reads its headers, makes the plan, allocates what the plan says, loads the
 * resident weights. MF_ERR_BUDGET carries the smallest workable budget in its message. */
MF_API mf_status mf_engine_open(mf_engine **engine, const mf_engine_options *options,
                                mf_error *err);
/* Has the trace written; says if it or the statistics couldn't be, which never stops the model. */
MF_API mf_status mf_engine_flush(mf_engine *engine, mf_error *err);
MF_API void mf_engine_close(mf_engine **engine);

typedef struct mf_model_info {
    size_t struct_size;
    char family[64];  /* "qwen3_5_moe" */
    char weights[64]; /* "bf16", "mlx 4-bit group 64", ... : the type most weight bytes have */
    uint32_t n_layers, hidden, n_vocab, n_experts, top_k;
    uint32_t ctx_model; /* positions the model was made for */
    uint32_t ctx;       /* positions a session of this engine can hold */
    uint32_t n_threads, chunk;
    char isa[16];        /* kernels in use: "c", "avx2", ...; "cuda" */
    char device[96];     /* the device's name; empty: the CPU computes */
    char activations[8]; /* the coarsest that quantised weights meet: "q8", "q16" or "f32" */
    char cache_type_k[8], cache_type_v[8]; /* "f32", "f16" or "q8_0" */
    uint64_t weight_bytes;                 /* all weights: resident ones and all routed experts */
    uint64_t token_bytes;                  /* of them, what one token is multiplied with */
    char reader[16];                       /* "threads" or "uring" */
    bool direct;                           /* it reads past the page cache */
    char policy[8];                        /* "lru", "lfu" or "odds" */
    char reader_reason[160];
    char mirror_failure[256]; /* why the mirror isn't read any more; empty: no reason */
    bool isa_verified;     /* whoever wrote those kernels has seen them run on such a processor */
    uint64_t slot_bytes;   /* of one cached expert */
    uint32_t n_slots;      /* of the memory that computes: a device's, or the host's */
    uint32_t n_host_slots; /* with a device: those that it copies from; 0: from the mapping */
    char tier_reason[200]; /* with a device that has memory of its own: how experts lie below it */
    double drive_bytes_per_second; /* measured ceiling of reads; 0: nothing was measured */
} mf_model_info;

MF_API void mf_engine_info(const mf_engine *engine, mf_model_info *info);

/* The engine's tokenizer, or NULL if the model has none; owned by the engine. */
MF_API const mf_tokenizer *mf_engine_tokenizer(const mf_engine *engine);

/* Counters since open (or since the last reset), and the budget's state now. */
typedef struct mf_stats {
    size_t struct_size;
    uint64_t expert_hits, expert_misses, expert_evictions;
    uint64_t expert_bytes_read;        /* asked of the operating system for experts */
    uint64_t expert_bytes_copied;      /* to the device's memory */
    uint64_t expert_bytes_fetched;     /* back from it (options.tiers) */
    uint64_t experts_on_cpu;           /* misses of a device that the CPU computed (options.miss) */
    uint64_t stall_ns;                 /* time that compute waited for experts */
    uint64_t budget_bytes, peak_bytes; /* peak: highest resident set of this process */
    uint64_t dense_bytes, slot_bytes;  /* slot_bytes: all expert slots together */
    uint32_t n_slots, n_experts_total;
    uint64_t expert_bytes_total; /* all routed experts on the drive */
    uint64_t mirror_bytes_read;  /* from the mirror, of all that was read since open */
    uint64_t tokens_evaluated;   /* that went through the layers, prompts and answers */
    uint64_t hint_bytes; /* of expert_bytes_read, for experts that were guessed (options.hints) */
    uint64_t hints_useful, hints_late;    /* guesses that were right: in time, or not */
    uint64_t hints_wasted, hints_dropped; /* and wrong: read in part at least, or not at all */
} mf_stats;

MF_API void mf_engine_stats(const mf_engine *engine, mf_stats *stats);
MF_API void mf_engine_stats_reset(mf_engine *engine);

/* What ops of the forward pass took. Those of all layers that do the same count together. */
typedef struct mf_op_time {
    char name[48]; /* "matmul q k v": the op, and which buffers it fills */
    uint64_t n_runs, ns;
    uint64_t bytes; /* weights, experts and cached positions that it went through, once a run */
} mf_op_time;

/* Times every op from now on (or no more), beginning at nothing; mf_engine_stats_reset begins at
 * nothing, too. The results are the same. MF_ERR_NO_MEMORY. */
MF_API mf_status mf_engine_time_ops(mf_engine *engine, bool on, mf_error *err);
/* Fills the first n_max of them, in the order of the forward pass, and returns how many there are;
 * 0 if they aren't timed. */
MF_API size_t mf_engine_op_times(const mf_engine *engine, mf_op_time *times, size_t n_max);

/* ---- watching ------------------------------------------------------------------------------- */

/* What an engine is doing, for other threads: the functions of this part may be called by any
 * thread from the end of mf_engine_open to the beginning of mf_engine_close. The engine never waits
 * for them. The engine must have been opened with `watched`. */

/* One evaluation (a token of an answer, a chunk of a prompt, tokens of several answers) and where
 * its time went: wall_ns = arithmetic_ns + stall_ns + other_ns. */
typedef struct mf_evaluation {
    uint64_t number;               /* from 0 */
    uint64_t pos;                  /* of the first token */
    uint64_t n_tokens;             /* evaluated together */
    uint64_t n_sequences;          /* that they belong to */
    uint64_t begin_ns, between_ns; /* on a clock that only goes forward; since the one before */
    uint64_t wall_ns;
    uint64_t arithmetic_ns; /* in the backend */
    uint64_t experts_ns;    /* of it, the routed experts', but for those that a device looked up */
    uint64_t stall_ns;      /* waiting for experts */
    uint64_t other_ns;      /* neither */
    uint64_t hits, misses, evictions; /* of cached experts */
    uint64_t bytes_read;              /* from the drive for experts */
    uint64_t bytes_copied;            /* to a device */
    uint64_t reading_ns;              /* with reads under way */
    uint64_t hint_bytes;              /* of bytes_read, for experts that were guessed */
    uint64_t hints_useful, hints_late, hints_wasted, hints_dropped;
} mf_evaluation;

/* Fills in the last evaluations, oldest first, n_max at most, and returns how many: the last 128 or
 * so are remembered. 0 if the engine isn't watched. */
MF_API size_t mf_engine_evaluations(const mf_engine *engine, mf_evaluation *list, size_t n_max);

typedef enum mf_expert_tier {
    MF_EXPERT_DRIVE = 0,   /* on the drive only */
    MF_EXPERT_LOADING = 1, /* being read */
    MF_EXPERT_HOST = 2,    /* in the host's memory: in a slot, or pinned where its file is mapped */
    MF_EXPERT_DEVICE = 3,  /* in a slot of the device's */
    MF_EXPERT_ABSENT = 255 /* the layer has no routed experts */
} mf_expert_tier;

/* Where every expert is and how much it was used of late; both [n_layers * n_experts] of
 * mf_model_info, a layer's beside each other. use: the part of the layer's recent tokens that chose
 * it, 0 to 1, where a token counts half as much as one 64 tokens later; all 0 where a device has
 * all experts and chooses by itself. MF_ERR_STATE if the engine isn't watched, MF_ERR_NO_MEMORY. */
MF_API mf_status mf_engine_experts(const mf_engine *engine, uint8_t *tiers, float *use,
                                   mf_error *err);

/* ---- plan ----------------------------------------------------------------------------------- */

/* Makes the plan that mf_engine_open would follow, without loading weights, and writes it as a
 * table for people or, with `json`, as one JSON object. A budget that can't hold is written too and
 * then returned as MF_ERR_BUDGET. */
MF_API mf_status mf_plan_write(const mf_engine_options *options, bool json, mf_write_fn write,
                               void *user, mf_error *err);

/* ---- replaying traces ------------------------------------------------------------------------ */

/* A recorded trace (mf_engine_options.trace_path), to ask what caches would have hit. What
 * a pass chooses in a layer, for one token or many, is wanted at once, each expert once. Read-only
 * once open: any thread. */
typedef struct mf_replay mf_replay;

typedef struct mf_replay_info {
    size_t struct_size;
    uint32_t n_layers, n_experts, top_k;
    uint64_t expert_bytes;        /* of one expert; 0: the trace doesn't say */
    uint64_t n_tokens, n_choices; /* choices: experts wanted, over all passes and layers */
} mf_replay_info;

/* MF_ERR_FORMAT names the line; a last line that was cut off is left out. */
MF_API mf_status mf_replay_open(mf_replay **replay, const char *path, mf_error *err);
/* The last choices of a watched engine, of some hundred tokens, without a file; any thread.
 * MF_ERR_STATE if it isn't watched, or nothing was chosen yet. */
MF_API mf_status mf_replay_recent(mf_replay **replay, const mf_engine *engine, mf_error *err);
MF_API void mf_replay_close(mf_replay **replay);
MF_API void mf_replay_info_get(const mf_replay *replay, mf_replay_info *info);

/* How many of the choices a cache of n_slots experts would have held, under "lru", "lfu" or
 * "odds", or, with NULL, at most under any policy. n_slots: at least top_k. */
MF_API mf_status mf_replay_hits(const mf_replay *replay, const char *policy, uint32_t n_slots,
                                uint64_t *hits, mf_error *err);

/* ---- inspection ----------------------------------------------------------------------------- */

/* Writes what a model's files hold: metadata, tensors with type, shape, bytes, file and offset,
 * bytes by role where the family is known, and which family was recognised and why, or why none. As
 * text for people or, with `json`, as one JSON object; of any model whose files can be read. */
MF_API mf_status mf_inspect_write(const char *path, bool json, mf_write_fn write, void *user,
                                  mf_error *err);

#define MF_TENSOR_DIMS 4
typedef struct mf_tensor_info {
    size_t struct_size;
    char type[64]; /* as stored: "q4_K", "mlx 4-bit group 64 (bf16)" */
    uint32_t n_dims;
    uint64_t dims[MF_TENSOR_DIMS]; /* outermost first */
} mf_tensor_info;

/* Decodes a tensor of the model at `path` and hands its elements to `write` as little-endian
 * float32, row by row, in pieces of at most 256 KiB, decoded by n_threads (0: one a processor).
 * *info (or NULL) says what it is. MF_ERR_TENSOR_MISSING; MF_ERR_UNSUPPORTED for integers. */
MF_API mf_status mf_tensor_read_f32(const char *path, const char *name, uint32_t n_threads,
                                    mf_write_fn write, void *user, mf_tensor_info *info,
                                    mf_error *err);

/* Writes the table of model families, the formats each is read from and what results were compared
 * with, for people or, with `json`, as one JSON object. */
MF_API mf_status mf_families_write(bool json, mf_write_fn write, void *user, mf_error *err);

/* ---- tokenizer and chat --------------------------------------------------------------------- */

/* `path` is a model folder, a tokenizer.json, a SentencePiece or tiktoken model, or a GGUF file. */
MF_API mf_status mf_tokenizer_open(mf_tokenizer **tokenizer, const char *path, mf_error *err);
MF_API void mf_tokenizer_close(mf_tokenizer **tokenizer);

/* Encodes `len` bytes of UTF-8 (NUL bytes allowed; invalid UTF-8 is MF_ERR_ARGUMENT with the
 * offset). Added tokens inside the text are always recognised; add_special adds what the
 * tokenizer's post-processor adds. *ids is allocated; release with mf_free. */
MF_API mf_status mf_tokenizer_encode(const mf_tokenizer *tokenizer, const char *text, size_t len,
                                     bool add_special, int32_t **ids, size_t *n_ids, mf_error *err);

/* A part of a text. In plain parts (what a user wrote) added tokens are not recognised, nor any
 * that reaches into one. */
typedef struct mf_text_span {
    const char *text; /* need not end with a NUL, nor at a whole character */
    size_t len;
    bool plain;
} mf_text_span;

/* Encodes the spans as the one text that they make together: apart from the added tokens that plain
 * parts hide, the ids are those of mf_tokenizer_encode for that text, words across the borders of
 * spans included. */
MF_API mf_status mf_tokenizer_encode_spans(const mf_tokenizer *tokenizer, const mf_text_span *spans,
                                           size_t n_spans, bool add_special, int32_t **ids,
                                           size_t *n_ids, mf_error *err);

/* The bytes of one token as they appear in text (not necessarily whole characters); valid as long
 * as the tokenizer. Unknown ids give length 0. Special (control) tokens give their text only with
 * `special`. */
MF_API const char *mf_tokenizer_piece(const mf_tokenizer *tokenizer, int32_t id, bool special,
                                      size_t *len);
MF_API int32_t mf_tokenizer_n_vocab(const mf_tokenizer *tokenizer);
MF_API bool mf_tokenizer_has_chat_template(const mf_tokenizer *tokenizer);

typedef struct mf_chat_message {
    const char *role;       /* "system", "user", "assistant" */
    const char *content;    /* UTF-8 */
    const char *reasoning;  /* reasoning_content; NULL: none */
    const char *tool_calls; /* a JSON array, as templates take it; NULL: none */
} mf_chat_message;

/* A text that a chat template made. What came from a variable (a message, a tool, ...) is plain,
 * whatever the template did to it, so that no text of a user turns into a special token; the
 * template's own text and named special tokens are not. */
typedef struct mf_rendering {
    char *text; /* [len], NUL-terminated */
    size_t len;
    mf_text_span *spans; /* [n_spans] into text, all of it, in order */
    size_t n_spans;
} mf_rendering;
MF_API void mf_rendering_free(mf_rendering *rendering);

/* A chat template by itself: no tokenizer, no weights. `path` is a model folder or a GGUF
 * file, whose named special tokens (bos_token, ...) the template then sees, or a file with the
 * template's text. A model may have a second template for conversations with tools, which is then
 * chosen where the variable `tools` is there and not null. Constructs that are not understood are
 * MF_ERR_UNSUPPORTED or MF_ERR_FORMAT, with their line. Immutable after open; may be used by
 * several threads. */
typedef struct mf_template mf_template;
MF_API mf_status mf_template_open(mf_template **chat_template, const char *path, mf_error *err);
MF_API void mf_template_close(mf_template **chat_template);

/* Renders with the members of a JSON object as variables (messages, tools, add_generation_prompt,
 * ...); a member that is absent is undefined, which is not the same as null. now: the time that
 * strftime_now tells, as "2025-03-09T14:05:07", NULL: the local one; a variable `now` that looks
 * like this goes first. MF_ERR_ARGUMENT if the template itself fails: then the message names the
 * line, and has what raise_exception was given. */
MF_API mf_status mf_template_render(const mf_template *chat_template, const char *vars_json,
                                    size_t vars_len, const char *now, mf_rendering *rendering,
                                    mf_error *err);

typedef struct mf_chat_options {
    size_t struct_size;
    const mf_template *chat_template; /* NULL: the model's own */
    bool no_generation_prompt;        /* leave out what begins the answer */
    const char *vars_json; /* an object of further variables: tools, enable_thinking; or NULL */
    const char *now;       /* as in mf_template_render */
    /* The messages as templates take them, a JSON array, in place of mf_chat_message; or NULL */
    const char *messages_json;
} mf_chat_options;

/* Renders messages with a chat template; options NULL: defaults. The named special tokens are the
 * tokenizer's. MF_ERR_UNSUPPORTED if there is no template. */
MF_API mf_status mf_chat_render(const mf_tokenizer *tokenizer, const mf_chat_message *messages,
                                size_t n_messages, const mf_chat_options *options,
                                mf_rendering *rendering, mf_error *err);

/* The ids of a rendering from its byte `from` on, by its spans; nothing is put around them. */
MF_API mf_status mf_rendering_encode(const mf_rendering *rendering, size_t from,
                                     const mf_tokenizer *tokenizer, int32_t **ids, size_t *n_ids,
                                     mf_error *err);

MF_API void mf_free(void *p);

/* ---- answers taken apart -------------------------------------------------------------------- */

typedef enum mf_output_kind {
    MF_OUTPUT_TEXT,
    MF_OUTPUT_REASONING,
    MF_OUTPUT_CALL_NAME,
    MF_OUTPUT_CALL_ID,        /* where the notation has one; before or after the arguments */
    MF_OUTPUT_CALL_ARGUMENTS, /* a part of a JSON object; a call's parts together are the object */
    MF_OUTPUT_CALL_END,       /* the call is whole; no bytes */
    MF_OUTPUT_CALL_BROKEN     /* it was none: forget it; the bytes are what was written instead */
} mf_output_kind;

/* A part of the answer. call: the number of the call, from 0. Text is cut at any byte where bytes
 * were pushed, at characters where tokens were. */
typedef void (*mf_output_fn)(void *user, mf_output_kind kind, uint32_t call, const char *bytes,
                             size_t len);

/* Takes what a model writes apart, as it streams: reasoning, text and tool calls in the notation of
 * its family. However the stream is cut, the parts are the same. White space between them belongs
 * to the notation and is left out. One stream, one thread. */
typedef struct mf_output mf_output;

typedef struct mf_output_options {
    size_t struct_size;
    const mf_tokenizer *tokenizer;    /* for tokens, and its template; may be NULL for bytes */
    const mf_template *chat_template; /* NULL: the tokenizer's, if it has one */
    /* "plain", "hermes", "qwen3-coder", "glm", "minimax-m2", "deepseek-v3", "deepseek-v3.1",
     * "kimi-k2", "mistral-list", "mistral", "harmony", "deepseek-v3.2", "deepseek-v4",
     * "seed-oss", "llama3", "granite-3", "tool-calls", "nemotron", "gigachat"; NULL: what the
     * template tells its model */
    const char *notation;
    const int32_t *prompt; /* what the answer follows, which may have begun reasoning */
    size_t n_prompt;
    bool in_reasoning; /* it has begun, whatever the prompt says */
    /* Names of the tools that were offered: what only looks like a call, without a marker, is text
     * unless it is one of theirs; none with n_tools 0. NULL: any name's is. Must live as long as
     * the output. */
    const char *const *tools;
    size_t n_tools;
    mf_output_fn on_part;
    void *user;
} mf_output_options;

/* MF_ERR_ARGUMENT names the notations if there is none of that name. */
MF_API mf_status mf_output_open(mf_output **output, const mf_output_options *options,
                                mf_error *err);
MF_API void mf_output_close(mf_output **output);
MF_API const char *mf_output_notation(const mf_output *output);

/* Special tokens that are the notation's markers count with their text, others with none. */
MF_API void mf_output_push(mf_output *output, const char *bytes, size_t len);
MF_API void mf_output_push_token(mf_output *output, int32_t id);
/* The answer is over. MF_ERR_NO_MEMORY if something was lost. */
MF_API mf_status mf_output_end(mf_output *output, mf_error *err);

/* ---- grammars ------------------------------------------------------------------------------- */

/* What an answer may look like: only tokens that the grammar can go on with are sampled, and an end
 * token only where it can end. A grammar knows bytes, no vocabulary; it is immutable after open and
 * may be used by several threads. What needs more than 1024 rules within rules is not offered. */
typedef struct mf_grammar mf_grammar;

/* Compiles a grammar in GBNF, llama.cpp's notation, whose rule `root` is the whole. MF_ERR_ARGUMENT
 * names line and column; MF_ERR_LIMIT. */
MF_API mf_status mf_grammar_open(mf_grammar **grammar, const char *text, size_t len, mf_error *err);

/* Compiles a JSON schema: answers are JSON that it validates, without white space around them.
 * A keyword that is not supported is MF_ERR_UNSUPPORTED, with the keyword and its path.
 * docs/structured-output.md lists what is understood. */
MF_API mf_status mf_grammar_open_json_schema(mf_grammar **grammar, const char *json, size_t len,
                                             mf_error *err);
MF_API void mf_grammar_close(mf_grammar **grammar);

/* ---- sampling ------------------------------------------------------------------------------- */

typedef struct mf_logit_bias {
    int32_t id;
    float bias; /* added to the logit; -INFINITY forbids the token */
} mf_logit_bias;

typedef struct mf_sampling {
    size_t struct_size;
    float temperature;       /* <= 0: greedy, the lowest id on ties */
    int32_t top_k;           /* 0: off */
    float top_p;             /* 1: off */
    float min_p;             /* 0: off */
    float repeat_penalty;    /* 1: off */
    float presence_penalty;  /* 0: off */
    float frequency_penalty; /* 0: off */
    int32_t repeat_last_n;   /* tokens the penalties look back on; -1: all, 0: none */
    uint64_t seed;
    const mf_logit_bias *bias;
    size_t n_bias;
} mf_sampling;

/* 0.8, top-k 40, top-p 0.95, min-p 0.05, no penalties over 64 tokens, seed 0, no bias. */
MF_API void mf_sampling_default(mf_sampling *sampling);

/* The defaults, and over them what generation_config.json says (do_sample false: temperature 0). */
MF_API void mf_engine_sampling(const mf_engine *engine, mf_sampling *sampling);

/* ---- sessions ------------------------------------------------------------------------------- */

/* MF_ERR_STATE if as many are open as the plan has room for (mf_engine_options.n_sessions). */
MF_API mf_status mf_session_open(mf_session **session, mf_engine *engine, mf_error *err);
MF_API void mf_session_close(mf_session **session);

/* Forgets everything; the session is as after open. */
MF_API void mf_session_reset(mf_session *session);

/* Tokens evaluated so far, and which they are: [mf_session_length], valid until the next call that
 * changes the timeline. */
MF_API size_t mf_session_length(const mf_session *session);
MF_API const int32_t *mf_session_tokens(const mf_session *session);

/* Prepares the timeline for tokens[0..n_tokens), a conversation that went on or was changed: keeps
 * what both begin with and forgets the rest. Evaluates nothing: tokens[*n_kept..n_tokens) are left
 * to mf_session_eval or mf_session_generate. Recurrent layers can't be taken back to an earlier
 * token, nor windows further than a chunk or so: then the last checkpoint before the difference is
 * what is kept (they are taken before prompts and chunks of prompts, and after the last), or
 * nothing. The last token counts as kept only if its logits are at hand. A failed session is mended
 * in the same way. MF_ERR_CONTEXT if n_tokens exceed the context, and the timeline stays. */
MF_API mf_status mf_session_sync(mf_session *session, const int32_t *tokens, size_t n_tokens,
                                 size_t *n_kept, mf_error *err);

/* Makes dst's timeline the first n_tokens of src's, another session of the engine. MF_ERR_STATE if
 * their state is gone: see mf_session_sync. */
MF_API mf_status mf_session_copy(mf_session *dst, const mf_session *src, size_t n_tokens,
                                 mf_error *err);

/* Snapshots: the timeline with its state in a file, so that nothing is evaluated again. A file
 * belongs to the model and to what its bits depend on (kernels, activations), not to budget,
 * context or chunk; any other is refused (MF_ERR_STATE), as is a damaged one (MF_ERR_FORMAT), and
 * leaves the session as it was. Saving replaces `path` by the whole file or leaves it alone:
 * MF_ERR_DISK_FULL before anything is written. Only its owner may read it. */
MF_API mf_status mf_session_save(mf_session *session, const char *path, mf_error *err);
MF_API mf_status mf_session_load(mf_session *session, const char *path, mf_error *err);

/* The prefix cache: as mf_session_sync, but where another session of the engine or the folder of
 * states (mf_engine_options.prefix_dir) has a longer beginning of the tokens, the session's
 * timeline becomes that. Files that turn out to be damaged are removed and passed over. */
MF_API mf_status mf_session_restore(mf_session *session, const int32_t *tokens, size_t n_tokens,
                                    size_t *n_kept, mf_error *err);

/* Offers the timeline to the folder of states, if there is one: it is written unless it is there
 * already or larger than the folder may be, and others go that save fewer tokens a byte. */
MF_API mf_status mf_session_keep(mf_session *session, mf_error *err);

/* The same a piece at a time, so that others needn't wait for the drive: begin and end on the
 * engine's thread, writing on any one thread, also while the engine evaluates others. Until the end
 * the session is left to it, as to a generation. */
typedef struct mf_keeping mf_keeping;

/* NULL where there is nothing to write. */
MF_API mf_status mf_keeping_begin(mf_keeping **keeping, mf_session *session, mf_error *err);
/* Writes about so many bytes; *done: it was the last time. After a failure only end. */
MF_API mf_status mf_keeping_write(mf_keeping *keeping, size_t bytes, bool *done, mf_error *err);
/* What isn't done is given up, without a trace. */
MF_API mf_status mf_keeping_end(mf_keeping **keeping, mf_error *err);

typedef struct mf_eval_outputs {
    size_t struct_size;
    /* Called for every token in order with its logits [n_vocab]; NULL: only the last row is
     * computed and kept for mf_session_logits. Returning false cancels. */
    bool (*on_logits)(void *user, size_t index, const float *logits, size_t n_vocab);
    /* Called for layer 0 (after the embedding) to n_layers (after the last layer and the final
     * norm) with each token's row [hidden]; NULL: not wanted. */
    bool (*on_hidden)(void *user, size_t layer, size_t index, const float *row, size_t hidden);
    void *user;
} mf_eval_outputs;

/* Appends tokens to the timeline and evaluates them. `outputs` may be NULL. MF_ERR_CONTEXT if they
 * don't fit, before anything is evaluated. After any other failure: sync or reset the session. */
MF_API mf_status mf_session_eval(mf_session *session, const int32_t *tokens, size_t n_tokens,
                                 const mf_eval_outputs *outputs, mf_error *err);

/* Logits [n_vocab] after the last token evaluated, or NULL; valid until the next call that changes
 * the timeline. */
MF_API const float *mf_session_logits(const mf_session *session);

typedef enum mf_stop {
    MF_STOP_EOS,
    MF_STOP_LENGTH,
    MF_STOP_CONTEXT,
    MF_STOP_CANCELLED,
    MF_STOP_STRING /* a stop string was complete */
} mf_stop;

typedef struct mf_token_logprob {
    int32_t id;
    float logprob; /* natural logarithm of the probability */
} mf_token_logprob;

#define MF_TOP_LOGPROBS 20 /* at most */

/* What a row of logits says of the next token: fills *chosen with token id, of 0..n_vocab - 1, and
 * top with the n_top most likely, best first, the lower id on ties; returns how many those are. A
 * logit that is NaN counts as minus infinity and is never among them; where none is above minus
 * infinity, all log-probabilities are minus infinity. Allocates nothing. */
MF_API size_t mf_logprobs(const float *logits, uint32_t n_vocab, int32_t id,
                          mf_token_logprob *chosen, mf_token_logprob *top, size_t n_top);

typedef struct mf_generate_options {
    size_t struct_size;
    const int32_t *prompt; /* evaluated first; may be empty if the session has evaluated tokens */
    size_t n_prompt;
    int64_t max_tokens; /* -1: until the end token or the context is full */
    bool ignore_eos;    /* with a grammar: end tokens are never sampled */
    const mf_grammar
        *grammar; /* what the answer may be; NULL: anything. Needs the engine's room for
                   * grammars. Ends with MF_STOP_EOS also where nothing may follow. */
    mf_sampling sampling;
    /* Called for each token with its bytes, cut only at character borders; len may be 0.
     * Returning false stops (MF_STOP_CANCELLED, which is not an error). */
    bool (*on_token)(void *user, int32_t id, const char *bytes, size_t len);
    void *user;
    mf_output *output; /* every token is pushed to it, before on_token; NULL: none */
    /* Texts that end the answer before them, whatever tokens they are made of: bytes that may begin
     * one are held back until it is known. UTF-8, not empty. Reasoning counts, and with an output
     * its markers; the text then goes to the output alone, and on_token gets no bytes. */
    const char *const *stop; /* [n_stop] */
    size_t n_stop;
    /* Called for each token, before on_token, with its probability as the model has it, before
     * biases, penalties, grammar, temperature and filters, and with those of the n_top_logprobs
     * most likely tokens, best first; NULL: not wanted. */
    void (*on_logprobs)(void *user, mf_token_logprob chosen, const mf_token_logprob *top,
                        size_t n_top);
    uint32_t n_top_logprobs; /* 0..MF_TOP_LOGPROBS */
} mf_generate_options;

typedef struct mf_generate_result {
    size_t struct_size;
    mf_stop stop;
    size_t n_prompt, n_generated;
    size_t n_prompt_done;          /* of n_prompt, those evaluated */
    size_t n_cached;               /* tokens that the timeline had before */
    uint64_t prompt_ns, decode_ns; /* decode: from the first token after the prompt to the last */
    bool incomplete;               /* it was cut off where the grammar allows no end, or by a stop
                                    * string */
    size_t stop_string;            /* with MF_STOP_STRING: which of options.stop */
} mf_generate_result;

MF_API void mf_generate_options_default(mf_generate_options *options);
MF_API mf_status mf_session_generate(mf_session *session, const mf_generate_options *options,
                                     mf_generate_result *result, mf_error *err);

/* ---- several answers at once ---------------------------------------------------------------- */

/* A running answer: a session with a prompt and options, advanced a pass at a time together with
 * others of the same engine. mf_session_generate is one of them, stepped until it is done. */
typedef struct mf_generation mf_generation;

/* Evaluates nothing yet. What the options point to (prompt, stop strings, grammar, output, biases)
 * must stay until the end; the options themselves are copied. Until then the session is left to the
 * generation: MF_ERR_STATE if it has one already. */
MF_API mf_status mf_generation_begin(mf_generation **generation, mf_session *session,
                                     const mf_generate_options *options, mf_error *err);

/* One pass over the model for all of them, which are of this engine and distinct: each that decodes
 * gets its next token, prompts advance by a fair share of the chunk; callbacks are called from
 * here. An answer's tokens are the same alone and in company. One that has ended is left alone. An
 * error of one answer ends that one alone (mf_generation_result has it), a failed pass all that
 * were in it. *n_running: how many still run. */
MF_API mf_status mf_engine_step(mf_engine *engine, mf_generation *const *list, size_t n,
                                size_t *n_running, mf_error *err);
MF_API bool mf_generation_done(const mf_generation *generation);

/* How far it is, or how it ended; *result is filled in every case. The status is MF_OK, or why it
 * failed. */
MF_API mf_status mf_generation_result(const mf_generation *generation, mf_generate_result *result,
                                      mf_error *err);

/* Also in the middle: the session keeps what was evaluated. */
MF_API void mf_generation_end(mf_generation **generation);

/* ---- conversion ----------------------------------------------------------------------------- */

typedef struct mf_convert_options {
    size_t struct_size;
    const char *in_path;  /* a model in any form that can be read */
    const char *out_path; /* the folder or file to make; must not exist */
    /* GGUF: "f32", "f16", "bf16", "q8_0", "q6_k", "q4_k", "q4_0" or "mxfp4" (experts; the rest
     * q8_0); NULL: MLX as follows */
    const char *type;
    uint32_t bits;            /* 2, 3, 4, 5, 6 or 8 */
    uint32_t dense_bits;      /* for everything but routed experts; 0: as `bits` */
    uint32_t group_size;      /* 32, 64 or 128; 0: 64 */
    uint64_t memory_bytes;    /* bound for buffers; 0: 256 MiB */
    const char *imatrix_path; /* GGUF: weights the rounding of q4_0, q4_k, q6_k; may be NULL */
    uint32_t n_threads;       /* GGUF: that encode; 0: one a processor this process may use */
    mf_progress_fn progress;
    void *progress_user;
} mf_convert_options;

MF_API void mf_convert_options_default(mf_convert_options *options);

/* Writes MLX-style safetensors: every matrix quantised (affine), routers and shared-expert gates at
 * 8 bits, the rest as stored; or, with `type`, a GGUF file as llama.cpp reads it. Written beside
 * out_path and renamed at the end: out_path appears whole or not at all, also when interrupted
 * through `progress`. */
MF_API mf_status mf_convert(const mf_convert_options *options, mf_error *err);

/* ---- packs ---------------------------------------------------------------------------------- */

typedef struct mf_pack_options {
    size_t struct_size;
    const char *in_path;     /* a model in any form that can be read */
    const char *out_path;    /* the folder to make; must not exist */
    mf_progress_fn progress; /* may be NULL */
    void *progress_user;
} mf_pack_options;

MF_API void mf_pack_options_default(mf_pack_options *options);

/* Writes a model as a pack: a folder that is opened like any other model and gives the same bits,
 * with each expert as one aligned record and a checksum of everything. Written in out_path with
 * ".part" behind it, which becomes out_path at the end and stays when interrupted: the next call
 * goes on there. */
MF_API mf_status mf_pack(const mf_pack_options *options, mf_error *err);

/* Reads all of a pack and compares checksums. MF_ERR_FORMAT names the first damaged place by layer
 * and expert, tensor or file, with its offset, and says how many more there are. */
MF_API mf_status mf_pack_verify(const char *path, mf_progress_fn progress, void *progress_user,
                                mf_error *err);

/* ---- synthetic models ----------------------------------------------------------------------- */

typedef enum mf_routing {
    MF_ROUTING_UNIFORM = 0, /* every token chooses anew, all experts alike: the worst for a cache */
    MF_ROUTING_SKEWED = 1   /* generated text reuses experts about as real text does */
} mf_routing;

typedef struct mf_synth_options {
    size_t struct_size;
    /* "qwen3_moe"; a wrong one's message lists what there is. NULL if the shape says it. */
    const char *arch;
    const char *shape; /* "30b-a3b", or a whole name: "Qwen3-30B-A3B" */
    const char *quant; /* q4_k, q4_0, q6_k, q8_0, mxfp4, bf16, f16 */
    uint32_t n_layers; /* the first so many; 0: all */
    mf_routing routing;
    uint64_t seed;           /* the same seed gives the same bytes */
    uint32_t n_threads;      /* 0: one a processor; the bytes don't depend on it */
    const char *out_path;    /* the GGUF file to make; must not exist */
    mf_progress_fn progress; /* may be NULL */
    void *progress_user;
} mf_synth_options;

MF_API void mf_synth_options_default(mf_synth_options *options);

/* Writes a model of a published shape with random weights and a usable tokenizer, for measuring
 * this engine and others on the same file. It appears whole at the end. MF_ERR_DISK_FULL, with what
 * is needed, before anything is written. */
MF_API mf_status mf_synth(const mf_synth_options *options, mf_error *err);

/* ---- importance matrix ---------------------------------------------------------------------- */

/* Evaluates tokens in pieces of `chunk` (0 or too many: what the context holds), each from an empty
 * timeline, and sums up the squares of what enters every matrix, by column. The engine was opened
 * with collect_imatrix and has no session. May be called again; what other sessions of the engine
 * evaluate is summed, too. */
MF_API mf_status mf_imatrix_collect(mf_engine *engine, const int32_t *tokens, size_t n_tokens,
                                    uint32_t chunk, mf_error *err);

/* Writes the sums to a file in llama.cpp's GGUF layout, under the names that weights have in GGUF;
 * mf_convert reads it. `path` must not exist; `dataset` is a remark, which may be NULL. */
MF_API mf_status mf_imatrix_write(const mf_engine *engine, const char *path, const char *dataset,
                                  mf_error *err);

#ifdef __cplusplus
}
#endif

#endif
