/* The prefix cache: the longest beginning of some tokens whose state is at hand, in this session,
 * in others of the engine, or in a folder of snapshots. Runs on the engine's thread, but for the
 * writing of files (mf_keeping_write).
 *
 * Files that are evicted first are those whose tokens are cheapest in bytes and that were of use
 * least often: greedy dual size frequency (Cherkasova 1998), value = age + uses * tokens / bytes,
 * where age is the value of the last one that went. Room is made before a file is written, so the
 * folder is never larger than it may be, the unfinished file included. */
#include "session/prefix.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/lock.h"
#include "os/out.h"
#include "session/snapshot.h"

#define SUFFIX       ".mfx"
#define NAME_BYTES   48   /* "0123456789abcdef.mfx", and a temporary one's */
#define PIECE_TOKENS 4096 /* compared at a time */
/* A file must save this part of its tokens at least: reading one takes about 1/25 of what its
 * evaluation does, on any machine that was measured. */
#define WORTH_PART 16

typedef struct entry {
    uint64_t number; /* its name */
    mfi_identity identity;
    uint32_t n_tokens;
    bool has_logits;
    uint64_t bytes, used_ns; /* used_ns: when it was last of use, as the file system has it */
    double value;
    uint32_t n_uses;
} entry;

struct mfi_prefix_cache {
    char *dir;
    int lock;
    uint64_t max_bytes, bytes;
    uint64_t pending; /* of the bytes, those of files that are being written */
    uint64_t next_number;
    uint64_t last_used; /* counts on from the newest file's time */
    double age;
    entry *list; /* [n] */
    uint32_t n, cap;
};

/* ---- the folder ---- */

static char *path_of(const mfi_prefix_cache *c, uint64_t number)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%016" PRIx64 SUFFIX, number);
    return mfi_path_join(c->dir, name);
}

/* Whether a name is "0123456789abcdef.mfx", and what follows it. */
static bool parse_name(const char *name, uint64_t *number, const char **rest)
{
    *number = 0;
    for (uint32_t i = 0; i < 16; i++) {
        const char *digits = "0123456789abcdef", *digit = strchr(digits, name[i]);
        if (!name[i] || !digit)
            return false;
        *number = *number << 4 | (uint64_t)(digit - digits);
    }
    *rest = name + 16 + strlen(SUFFIX);
    return strncmp(name + 16, SUFFIX, strlen(SUFFIX)) == 0;
}

static void set_value(mfi_prefix_cache *c, entry *e)
{
    e->value = c->age + (double)e->n_uses * (double)e->n_tokens / (double)e->bytes;
}

static mf_status add_entry(mfi_prefix_cache *c, const entry *e, mf_error *err)
{
    if (c->n == c->cap) {
        uint32_t cap = c->cap ? 2 * c->cap : 16;
        entry *grown = realloc(c->list, cap * sizeof *grown);
        if (!grown)
            return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a list of %u snapshots", cap);
        c->list = grown;
        c->cap = cap;
    }
    c->list[c->n++] = *e;
    c->bytes += e->bytes;
    return MF_OK;
}

/* Removes a file and forgets it; it keeps its place in the books if it can't be removed. */
static bool remove_entry(mfi_prefix_cache *c, uint32_t i)
{
    char *path = path_of(c, c->list[i].number);
    bool gone = path && mfi_file_remove(path);
    free(path);
    if (!gone)
        return false;
    c->bytes -= c->list[i].bytes;
    c->list[i] = c->list[--c->n];
    return true;
}

/* Makes room for a file; false if there can't be. */
static bool make_room(mfi_prefix_cache *c, uint64_t bytes)
{
    if (bytes > c->max_bytes)
        return false;
    while (c->bytes > c->max_bytes - bytes || c->n >= MFI_MAX_PREFIXES) {
        uint32_t worst = 0;
        for (uint32_t i = 1; i < c->n; i++)
            if (c->list[i].value < c->list[worst].value ||
                (c->list[i].value == c->list[worst].value &&
                 c->list[i].used_ns < c->list[worst].used_ns))
                worst = i;
        if (c->n == 0)
            return false;
        c->age = c->list[worst].value;
        if (!remove_entry(c, worst))
            return false;
    }
    return true;
}

/* Whether a failure says something about the file, and not about drive, device or memory. */
static bool is_no_good(mf_status status)
{
    return status == MF_ERR_FORMAT || status == MF_ERR_STATE || status == MF_ERR_UNSUPPORTED ||
           status == MF_ERR_FILE_TRUNCATED || status == MF_ERR_FILE_MISSING;
}

static mf_status take_file(void *ctx, const char *name, mf_error *err)
{
    mfi_prefix_cache *c = ctx;
    uint64_t number;
    const char *rest;
    mfi_file file;
    mfi_snapshot head;
    mf_error ignored;
    if (strlen(name) < 16 + strlen(SUFFIX) || !parse_name(name, &number, &rest))
        return MF_OK; /* not ours */
    char *path = mfi_path_join(c->dir, name);
    if (!path)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", c->dir);
    mf_status status = *rest ? MF_OK : mfi_snapshot_open(&file, &head, path, &ignored);
    if (*rest || status != MF_OK) {
        if (*rest ? strncmp(rest, ".tmp-", 5) == 0 : is_no_good(status))
            mfi_file_remove(path); /* half of one, or no snapshot */
        status = MF_OK;
    } else {
        entry e = {.number = number,
                   .identity = head.identity,
                   .n_tokens = head.n_tokens,
                   .has_logits = head.has_logits,
                   .bytes = file.size,
                   .used_ns = file.mtime_ns,
                   .n_uses = 1};
        mfi_file_close(&file);
        c->last_used = MFI_MAX(c->last_used, e.used_ns);
        set_value(c, &e);
        status = add_entry(c, &e, err);
    }
    if (!*rest) /* of one that couldn't be read as well: it isn't to be replaced */
        c->next_number = MFI_MAX(c->next_number, number + 1);
    free(path);
    return status;
}

mf_status mfi_prefix_open(mfi_prefix_cache **cache, const char *dir, uint64_t max_bytes,
                          mf_error *err)
{
    mfi_prefix_cache *c = calloc(1, sizeof *c);
    char *lock = mfi_path_join(dir, "lock");
    mf_status status = MF_OK;
    if (c)
        *c = (mfi_prefix_cache){.dir = strdup(dir), .lock = -1, .max_bytes = max_bytes};
    if (!c || !c->dir || !lock)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", dir);
    if (status == MF_OK && !mfi_dir_exists(dir))
        status = mfi_dir_create(dir, err);
    if (status == MF_OK)
        status = mfi_lock_take(&c->lock, lock, err);
    if (status == MF_OK)
        status = mfi_dir_each_file(dir, take_file, c, err);
    free(lock);
    if (status == MF_OK && !make_room(c, 0)) /* it may have been larger once */
        status = mfi_fail(err, MF_ERR_IO, "%s: can't remove snapshots", dir);
    if (status == MF_OK)
        *cache = c;
    else
        mfi_prefix_close(&c);
    return status;
}

void mfi_prefix_close(mfi_prefix_cache **cache)
{
    mfi_prefix_cache *c = *cache;
    if (!c)
        return;
    mfi_lock_drop(&c->lock);
    free(c->list);
    free(c->dir);
    free(c);
    *cache = NULL;
}

/* ---- looking up ---- */

static bool fits(const entry *e, const mfi_identity *id)
{
    return memcmp(e->identity.model, id->model, sizeof id->model) == 0 &&
           e->identity.numerics == id->numerics;
}

/* How many tokens a file and `tokens` begin with in common. */
static uint32_t common(const mfi_prefix_cache *c, const entry *e, const int32_t *tokens,
                       size_t n_tokens)
{
    int32_t piece[PIECE_TOKENS];
    mfi_file file;
    mf_error ignored;
    char *path = path_of(c, e->number);
    uint32_t same = 0, n = (uint32_t)MFI_MIN(e->n_tokens, n_tokens);
    if (!path || mfi_file_open(&file, path, &ignored) != MF_OK) {
        free(path);
        return 0;
    }
    while (same < n) {
        uint32_t len = MFI_MIN(n - same, PIECE_TOKENS), i = 0;
        if (mfi_file_read(&file, piece, len * sizeof *piece,
                          MFI_SNAPSHOT_HEAD_BYTES + (uint64_t)same * sizeof *piece,
                          &ignored) != MF_OK)
            break;
        while (i < len && piece[i] == tokens[same + i])
            i++;
        same += i;
        if (i < len)
            break;
    }
    mfi_file_close(&file);
    free(path);
    return same;
}

/* The tokens of a file that are of use, all of `n_tokens` only with logits. */
static uint32_t usable(const mf_session *s, const entry *e, uint32_t same, size_t n_tokens)
{
    bool cut = mfi_state_can_cut(s->plan);
    if (e->n_tokens > s->plan->ctx || (same < e->n_tokens && !cut))
        return 0;
    if (same == n_tokens && !(same == e->n_tokens && e->has_logits))
        return cut && same > 0 ? same - 1 : 0;
    return same;
}

typedef struct source {
    uint32_t n;
    const mf_session *session; /* NULL: a file */
    const mfi_checkpoint *checkpoint;
    uint32_t entry;
} source;

static void look_in_memory(mf_session *s, const int32_t *tokens, size_t n_tokens, source *best)
{
    *best = (source){.session = s};
    best->n = mfi_state_prefix(s, tokens, n_tokens, &best->checkpoint);
    for (const mf_session *other = s->host->sessions; other; other = other->next) {
        source found = {.session = other};
        if (other == s)
            continue;
        found.n = mfi_state_prefix(other, tokens, n_tokens, &found.checkpoint);
        if (found.n > best->n)
            *best = found;
    }
}

static mf_status look_on_disk(mf_session *s, const int32_t *tokens, size_t n_tokens, source *best,
                              mf_error *err)
{
    const mfi_prefix_cache *c = s->host->prefix;
    const mfi_identity *id;
    if (!c || c->n == 0)
        return MF_OK;
    MFI_TRY(mfi_engine_identity(s->host->engine, &id, err));
    for (uint32_t i = 0; i < c->n; i++) {
        const entry *e = &c->list[i];
        if (!fits(e, id) || e->n_tokens <= best->n / 2)
            continue;
        uint32_t n = usable(s, e, common(c, e, tokens, n_tokens), n_tokens);
        if (n > best->n && n - best->n >= e->n_tokens / WORTH_PART)
            *best = (source){.n = n, .entry = i};
    }
    return MF_OK;
}

/* Reads a file into the session. One that is no good goes away. */
static mf_status read_entry(mf_session *s, uint32_t i, uint32_t n, mf_error *err)
{
    mfi_prefix_cache *c = s->host->prefix;
    mfi_file file;
    mfi_snapshot head;
    const mfi_checkpoint *at;
    char *path = path_of(c, c->list[i].number);
    if (!path) {
        c->list[i].n_tokens = 0; /* never chosen again; its bytes still count */
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", c->dir);
    }
    mf_status status = mfi_snapshot_open(&file, &head, path, err);
    if (status == MF_OK) {
        status = mfi_snapshot_fits(&head, s->host->engine, path, err);
        if (status == MF_OK)
            status = mfi_snapshot_read(s, &file, &head, err);
        mfi_file_close(&file);
    }
    if (status == MF_OK) {
        n = mfi_state_reach(s, n, &at);
        mfi_state_rewind(s, n, at);
        c->list[i].n_uses++;
        c->list[i].used_ns = ++c->last_used;
        set_value(c, &c->list[i]);
        mfi_file_touch(path);
    } else if (!is_no_good(status) || !remove_entry(c, i)) {
        c->list[i].n_tokens = 0; /* it may be good another time */
    }
    free(path);
    return status;
}

mf_status mf_session_restore(mf_session *s, const int32_t *tokens, size_t n_tokens, size_t *n_kept,
                             mf_error *err)
{
    source best;
    mf_error ignored;
    if (s->generating)
        return mfi_fail(err, MF_ERR_STATE, "the session has an answer under way");
    if (n_tokens > s->plan->ctx)
        return mfi_fail(err, MF_ERR_CONTEXT, "%zu tokens don't fit into a context of %u", n_tokens,
                        s->plan->ctx);
    MFI_TRY(mfi_state_wait(s, err)); /* a device that is lost says nothing about files */
    do {
        look_in_memory(s, tokens, n_tokens, &best);
        MFI_TRY(look_on_disk(s, tokens, n_tokens, &best, err));
    } while (!best.session && read_entry(s, best.entry, best.n, &ignored) != MF_OK);
    if (best.session && best.session != s)
        MFI_TRY(mfi_state_copy(s, best.session, best.n, best.checkpoint, err));
    return mf_session_sync(s, tokens, n_tokens, n_kept, err);
}

/* ---- keeping ---- */

/* Whether the folder has the state after n tokens already, or more that can be cut. */
static bool has_entry(mf_session *s, const mfi_identity *id, uint32_t n)
{
    mfi_prefix_cache *c = s->host->prefix;
    bool cut = mfi_state_can_cut(s->plan);
    for (uint32_t i = 0; i < c->n; i++) {
        const entry *e = &c->list[i];
        if (fits(e, id) && (e->n_tokens == n || (cut && e->n_tokens > n)) &&
            common(c, e, s->tokens, n) == n)
            return true;
    }
    return false;
}

/* Files that hold nothing but a beginning of the first n tokens, where those can be cut. */
static void remove_shorter(mf_session *s, const mfi_identity *id, uint32_t n)
{
    mfi_prefix_cache *c = s->host->prefix;
    for (uint32_t i = c->n; mfi_state_can_cut(s->plan) && i-- > 0;) {
        const entry *e = &c->list[i];
        if (fits(e, id) && e->n_tokens < n && common(c, e, s->tokens, n) == e->n_tokens)
            (void)remove_entry(c, i);
    }
}

/* A file that is being written, in the books with its bytes. */
typedef struct kept {
    entry e;
    mfi_snapshot_writer *writer;
    bool done;
} kept;

struct mf_keeping {
    mf_session *session;
    const mfi_identity *id;
    kept files[2];
    uint32_t n, at; /* at: the one that is written */
};

/* Makes room for a file and opens its writer; none where it isn't wanted. */
static mf_status plan_file(mf_keeping *k, uint32_t n, const mfi_checkpoint *at, mf_error *err)
{
    mf_session *s = k->session;
    mfi_prefix_cache *c = s->host->prefix;
    kept *f = &k->files[k->n];
    bool has_logits = mfi_state_has_logits(s, at, n);
    uint64_t bytes = mfi_snapshot_bytes(s, n, has_logits);
    if (bytes > c->max_bytes - c->pending || has_entry(s, k->id, n))
        return MF_OK;
    if (c->bytes > c->max_bytes - bytes) /* else when the longer one is there */
        remove_shorter(s, k->id, n);
    if (!make_room(c, bytes))
        return mfi_fail(err, MF_ERR_IO, "%s: can't remove snapshots", c->dir);
    f->e = (entry){.number = c->next_number,
                   .identity = *k->id,
                   .n_tokens = n,
                   .has_logits = has_logits,
                   .bytes = bytes,
                   .n_uses = 1};
    char *path = path_of(c, f->e.number);
    if (!path)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", c->dir);
    mf_status status = mfi_snapshot_writer_open(&f->writer, s, n, at, path, err);
    free(path);
    MFI_TRY(status);
    k->n++;
    c->next_number++;
    c->bytes += bytes;
    c->pending += bytes;
    return MF_OK;
}

static mf_status plan_files(mf_keeping *k, mf_error *err)
{
    mf_session *s = k->session;
    const mfi_checkpoint *at;
    MFI_TRY(mfi_engine_identity(s->host->engine, &k->id, err));
    /* The next prompt may differ from what was answered: templates leave parts of answers out. What
     * can't be cut is kept where the last prompt ended, too. */
    if (!mfi_state_can_cut(s->plan)) {
        uint32_t n = mfi_state_reach(s, s->length - 1, &at);
        if (n > 0 && at)
            MFI_TRY(plan_file(k, n, at, err));
    }
    return plan_file(k, s->length, NULL, err);
}

mf_status mf_keeping_begin(mf_keeping **keeping, mf_session *s, mf_error *err)
{
    *keeping = NULL;
    if (s->generating)
        return mfi_fail(err, MF_ERR_STATE, "the session has an answer under way");
    if (!s->host->prefix || s->length == 0 || s->broken)
        return MF_OK;
    mf_keeping *k = calloc(1, sizeof *k);
    if (!k)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to keep a session");
    *k = (mf_keeping){.session = s};
    mf_status status = plan_files(k, err);
    if (status == MF_OK && k->n) {
        s->generating = true;
        *keeping = k;
        return MF_OK;
    }
    mf_error ignored;
    mf_keeping_end(&k, &ignored);
    return status;
}

mf_status mf_keeping_write(mf_keeping *k, size_t bytes, bool *done, mf_error *err)
{
    *done = false;
    if (k->at < k->n) {
        kept *f = &k->files[k->at];
        MFI_TRY(mfi_snapshot_writer_step(f->writer, bytes, &f->done, err));
        k->at += f->done;
    }
    *done = k->at == k->n;
    return MF_OK;
}

/* A file that was written takes its place in the books, or goes. */
static mf_status enter(mfi_prefix_cache *c, entry *e, mf_error *err)
{
    e->used_ns = ++c->last_used;
    set_value(c, e);
    mf_status status = add_entry(c, e, err);
    char *path = status == MF_OK ? NULL : path_of(c, e->number);
    if (path)
        (void)mfi_file_remove(path);
    free(path);
    return status;
}

mf_status mf_keeping_end(mf_keeping **keeping, mf_error *err)
{
    mf_keeping *k = *keeping;
    mf_status status = MF_OK;
    if (!k)
        return MF_OK;
    mf_session *s = k->session;
    mfi_prefix_cache *c = s->host->prefix;
    s->generating = false;
    for (uint32_t i = 0; i < k->n; i++) {
        kept *f = &k->files[i];
        mfi_snapshot_writer_close(&f->writer);
        c->bytes -= f->e.bytes;
        c->pending -= f->e.bytes;
        if (!f->done)
            continue;
        mf_status entered = enter(c, &f->e, err);
        if (entered == MF_OK)
            remove_shorter(s, k->id, f->e.n_tokens);
        else
            status = entered;
    }
    free(k);
    *keeping = NULL;
    return status;
}

mf_status mf_session_keep(mf_session *s, mf_error *err)
{
    mf_keeping *k;
    mf_error ignored;
    bool done = false;
    mf_status status = mf_keeping_begin(&k, s, err);
    while (status == MF_OK && k && !done)
        status = mf_keeping_write(k, SIZE_MAX, &done, err);
    mf_status end = mf_keeping_end(&k, status == MF_OK ? err : &ignored);
    return status == MF_OK ? end : status;
}
