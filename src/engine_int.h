/* The engine's inside, shared by the files that compose it. */
#ifndef MFI_ENGINE_INT_H
#define MFI_ENGINE_INT_H

#include "experts/tier_mapped.h"
#include "experts/watch.h"
#include "format/format.h"
#include "session/session.h"

/* ---- engine_load.c: from the catalog into planned memory ---- */

/* Fills the dense region with every resident weight of the program that isn't used in place: at
 * host address `dense`, or, if that is NULL, through the backend's write. */
mf_status mfi_load_dense(const mfi_program *program, const mfi_catalog *catalog, mfi_io *io,
                         char *dense, mfi_backend *device, mf_progress_fn progress,
                         void *progress_user, mf_error *err);

/* ---- engine_mapped.c: weights that a device uses in the mapping of their files ---- */

typedef struct mfi_engine_mapped mfi_engine_mapped;

/* Maps the files that the plan's ranges are in and binds those. The catalog and the backend must
 * outlive it. */
mf_status mfi_engine_mapped_open(mfi_engine_mapped **mapped, const mfi_plan *plan,
                                 const mfi_catalog *catalog, mfi_backend *backend,
                                 mf_progress_fn progress, void *user, mf_error *err);
/* Tells the backend, which is prepared, where each plane of the weights in place lies. */
mf_status mfi_engine_mapped_place(const mfi_engine_mapped *mapped, const mfi_plan *plan,
                                  const mfi_catalog *catalog, mfi_backend *backend, mf_error *err);
/* Where a plane of a weight in place lies: all of it in one piece. */
mfi_extent mfi_mapped_extent(const mfi_plan *plan, const mfi_catalog *catalog, uint32_t weight,
                             uint32_t plane);
/* The plan's ranges by address; as long as they are open. */
const mfi_mapped_range *mfi_engine_mapped_ranges(const mfi_engine_mapped *mapped);
void mfi_engine_mapped_close(mfi_engine_mapped **mapped);

/* ---- engine_device.c: where it computes ---- */

/* "cpu", "auto", "cuda", "cuda:N", "metal", "metal:N" or NULL (the CPU). A device is opened, its
 * facts filled in. NULL stays in *backend for the CPU, which also takes over where `auto` finds no
 * device. */
mf_status mfi_engine_device(const char *asked, mfi_backend **backend, mfi_device_facts *facts,
                            mf_error *err);

/* The byte ranges of every expert; *parts and *layers are allocated. */
mf_status mfi_load_expert_table(const mfi_model *model, const mfi_program *program,
                                mfi_expert_table *table, mfi_expert_part **parts, uint32_t **layers,
                                mf_error *err);

/* ---- engine_io.c: which reader, and how ---- */

typedef struct mfi_io_request {
    const mfi_plan *plan;
    const mfi_expert_table *table;
    const char *reader, *direct; /* as asked: "threads", "uring"; "on", "off"; NULL: chosen here */
    bool mirror;                 /* behind the files there are as many of a mirror */
    bool n_readers_asked;        /* the plan's n_io_threads was asked for */
    const char *cache_path;      /* where measurements of file systems are kept; may be NULL */
    uint64_t load_bytes;         /* that opening and the first tokens read */
} mfi_io_request;

typedef struct mfi_engine_io {
    mfi_io *io;
    const char *reader; /* "threads" or "uring" */
    bool direct, mirror;
    double bytes_per_second; /* of the drive as it will be read; 0: not measured */
    char reason[160];
} mfi_engine_io;

/* files[i] must outlive the reader, which the caller closes; [n_files], or twice as many. */
mf_status mfi_engine_io_open(mfi_engine_io *out, const mfi_io_request *ask,
                             const mfi_file *const *files, uint32_t n_files, mf_error *err);

/* ---- engine_mirror.c ---- */

/* Opens the copies of the files that lie below or at `mirror` and compares sizes, fronts and ends.
 */
mf_status mfi_mirror_files_open(mfi_file **copies, const char *mirror, const mfi_file *const *files,
                                uint32_t n, mf_error *err);
void mfi_mirror_files_close(mfi_file **copies, uint32_t n);

/* ---- engine_identity.c ---- */

/* dense: the resident weights in host memory, NULL where they are not. */
mf_status mfi_identity_make(mfi_identity *id, const mfi_catalog *catalog, const mfi_plan *plan,
                            mfi_backend *backend, const void *dense, mf_error *err);

/* ---- engine_stats.c: a line of statistics for each evaluation ---- */

typedef struct mfi_stats_log mfi_stats_log;

typedef struct mfi_stats_log_options { /* all but the path must outlive the log */
    const char *path;
    const mfi_plan *plan;
    const mfi_engine_io *io;
    const mfi_store *store;
    const mfi_io *tier;          /* what a device's store reads from; NULL: the drive */
    const mfi_store *host_store; /* below it; NULL: the files' mapping */
} mfi_stats_log_options;

mf_status mfi_stats_log_open(mfi_stats_log **log, const mfi_stats_log_options *options,
                             mf_error *err);
void mfi_stats_log_run(void *log, const mfi_run_facts *run);             /* mfi_forward_on_run's */
mf_status mfi_stats_log_status(const mfi_stats_log *log, mf_error *err); /* the first failure */
void mfi_stats_log_close(mfi_stats_log **log);

/* ---- engine_watch.c: what other threads may see ---- */

typedef struct mfi_engine_watch mfi_engine_watch;

uint64_t mfi_engine_watch_bytes(const mfi_shape *shape);
mf_status mfi_engine_watch_open(mfi_engine_watch **watch, const mfi_plan *plan, mf_error *err);
void mfi_engine_watch_close(mfi_engine_watch **watch);
mfi_watch *mfi_engine_watch_experts(mfi_engine_watch *watch);
/* The stores are open; copies: the store's reads are copies to a device; host_store: what they come
 * from, or NULL (the files' mapping). Evaluations count from here. */
void mfi_engine_watch_begin(mfi_engine_watch *watch, const mfi_store *store, bool copies,
                            const mfi_store *host_store);
void mfi_engine_watch_run(mfi_engine_watch *watch, const mfi_run_facts *run);

const mfi_engine_watch *mfi_engine_watch_of(const mf_engine *engine); /* NULL: not watched */
/* mf_replay_recent's. */
mf_status mfi_engine_replay(const mf_engine *engine, mfi_replay *replay, mf_error *err);

/* ---- engine_tokenizer.c ---- */

/* The model's tokenizer; *tokenizer stays as it is if the model has none. */
mf_status mfi_model_tokenizer_open(mf_tokenizer **tokenizer, const mfi_catalog *catalog,
                                   mf_error *err);

/* ---- engine_grammar.c ---- */

/* The vocabulary's trie for grammars: what tokens of a model with n_vocab rows show; end tokens
 * show nothing. */
mf_status mfi_engine_trie_open(mfi_vocab_trie **trie, const mf_tokenizer *tokenizer,
                               uint32_t n_vocab, const int32_t *eos, uint32_t n_eos, mf_error *err);

/* ---- engine_imatrix.c: what enters each matrix, summed up ---- */

typedef struct mfi_imatrix mfi_imatrix;

uint64_t mfi_imatrix_bytes(const mfi_model *model); /* that collecting takes, at most */
mf_status mfi_imatrix_open(mfi_imatrix **imatrix, const mfi_model *model,
                           const mfi_program *program, mf_error *err);
void mfi_imatrix_close(mfi_imatrix **imatrix);
void mfi_imatrix_tap(void *imatrix, uint32_t op, const mfi_step *step, mfi_backend *backend);
/* One more piece, of `chunk` tokens at most, has been evaluated: for the file's reader to know. */
void mfi_imatrix_count(mfi_imatrix *imatrix, uint32_t chunk);
mf_status mfi_imatrix_write(const mfi_imatrix *imatrix, const char *path, const char *dataset,
                            mf_error *err);

/* ---- engine_ops.c: times of ops ---- */

/* Those of the program's ops that do the same in their layers as one; see mf_engine_op_times. */
size_t mfi_engine_sum_ops(const mfi_program *program, const mfi_op_time *times, mf_op_time *out,
                          size_t n_max);

/* ---- engine_config.c: what lies beside the weights ---- */

typedef struct mfi_gen_config {
    mf_sampling sampling; /* the defaults with generation_config.json laid over them */
    int32_t eos[32];
    uint32_t n_eos;
} mfi_gen_config;

/* Reads generation_config.json and the end tokens; a missing file is no error, a malformed one is.
 */
mf_status mfi_gen_config_read(mfi_gen_config *config, const mfi_catalog *catalog,
                              const mf_tokenizer *tokenizer, mf_error *err);

#endif
