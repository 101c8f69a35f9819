/* Snapshot files; see snapshot.h. Runs on the engine's thread, but for a writer's steps. A file
 * appears whole or not at all; one that is wrong or damaged is refused before the session changes.
 */
#include "session/snapshot.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "os/out.h"

#define VERSION     1u
#define PIECE_BYTES MFI_MIB
#define FLAG_LOGITS 1u

static const char magic[8] = {'m', 'f', 'x', 's', 't', 'a', 't', 'e'};

/* Offsets in the header. */
enum {
    AT_VERSION = 8,
    AT_HEAD_BYTES = 12,
    AT_MODEL = 16,
    AT_NUMERICS = 32,
    AT_N_TOKENS = 40,
    AT_FLAGS = 44,
    AT_STATE_BYTES = 48,
    AT_TOKENS_SUM = 56,
    AT_STATE_SUM = 64,
    AT_TEXT = 72,
    AT_ZERO = 112,
    AT_HEAD_SUM = 120
};

/* ---- the header ---- */

static void put(unsigned char *at, uint64_t value, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

static uint64_t get(const unsigned char *at, uint32_t bytes)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static void put_head(unsigned char *to, const mfi_snapshot *head)
{
    memset(to, 0, MFI_SNAPSHOT_HEAD_BYTES);
    memcpy(to, magic, sizeof magic);
    put(to + AT_VERSION, VERSION, 4);
    put(to + AT_HEAD_BYTES, MFI_SNAPSHOT_HEAD_BYTES, 4);
    put(to + AT_MODEL, head->identity.model[0], 8);
    put(to + AT_MODEL + 8, head->identity.model[1], 8);
    put(to + AT_NUMERICS, head->identity.numerics, 8);
    put(to + AT_N_TOKENS, head->n_tokens, 4);
    put(to + AT_FLAGS, head->has_logits ? FLAG_LOGITS : 0, 4);
    put(to + AT_STATE_BYTES, head->state_bytes, 8);
    put(to + AT_TOKENS_SUM, head->tokens_sum, 8);
    put(to + AT_STATE_SUM, head->state_sum, 8);
    memcpy(to + AT_TEXT, head->identity.text, sizeof head->identity.text);
    put(to + AT_HEAD_SUM, mfi_checksum_of(to, AT_HEAD_SUM), 8);
}

mf_status mfi_snapshot_parse(mfi_snapshot *head, const unsigned char *bytes, uint64_t file_bytes,
                             const char *path, mf_error *err)
{
    if (file_bytes < MFI_SNAPSHOT_HEAD_BYTES || memcmp(bytes, magic, sizeof magic) != 0)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: not a snapshot of a session", path);
    if (get(bytes + AT_VERSION, 4) != VERSION)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: a snapshot of version %" PRIu64 "; known: %u",
                        path, get(bytes + AT_VERSION, 4), VERSION);
    if (get(bytes + AT_HEAD_SUM, 8) != mfi_checksum_of(bytes, AT_HEAD_SUM))
        return mfi_fail(err, MF_ERR_FORMAT, "%s: the snapshot's header is damaged", path);
    *head = (mfi_snapshot){.n_tokens = (uint32_t)get(bytes + AT_N_TOKENS, 4),
                           .has_logits = get(bytes + AT_FLAGS, 4) == FLAG_LOGITS,
                           .state_bytes = get(bytes + AT_STATE_BYTES, 8),
                           .tokens_sum = get(bytes + AT_TOKENS_SUM, 8),
                           .state_sum = get(bytes + AT_STATE_SUM, 8)};
    head->identity.model[0] = get(bytes + AT_MODEL, 8);
    head->identity.model[1] = get(bytes + AT_MODEL + 8, 8);
    head->identity.numerics = get(bytes + AT_NUMERICS, 8);
    memcpy(head->identity.text, bytes + AT_TEXT, sizeof head->identity.text);
    uint64_t before = MFI_SNAPSHOT_HEAD_BYTES + (uint64_t)head->n_tokens * sizeof(int32_t);
    if (get(bytes + AT_HEAD_BYTES, 4) != MFI_SNAPSHOT_HEAD_BYTES || get(bytes + AT_ZERO, 8) ||
        get(bytes + AT_FLAGS, 4) > FLAG_LOGITS || head->n_tokens == 0 ||
        head->n_tokens > MFI_MAX_CTX || head->identity.text[sizeof head->identity.text - 1])
        return mfi_fail(err, MF_ERR_FORMAT, "%s: the snapshot's header makes no sense", path);
    if (file_bytes < before || file_bytes - before != head->state_bytes)
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: the snapshot has %" PRIu64 " bytes; its header tells of %" PRIu64
                        " and %" PRIu64,
                        path, file_bytes, before, head->state_bytes);
    return MF_OK;
}

mf_status mfi_snapshot_fits(const mfi_snapshot *head, mf_engine *engine, const char *path,
                            mf_error *err)
{
    const mfi_identity *id;
    MFI_TRY(mfi_engine_identity(engine, &id, err));
    if (memcmp(head->identity.model, id->model, sizeof id->model) != 0)
        return mfi_fail(err, MF_ERR_STATE, "%s: a snapshot of another model", path);
    if (head->identity.numerics != id->numerics)
        return mfi_fail(err, MF_ERR_STATE,
                        "%s: a snapshot that was computed with '%s'; this engine's '%s' gives "
                        "other bits",
                        path, head->identity.text, id->text);
    return MF_OK;
}

mf_status mfi_snapshot_open(mfi_file *file, mfi_snapshot *head, const char *path, mf_error *err)
{
    unsigned char bytes[MFI_SNAPSHOT_HEAD_BYTES] = {0};
    MFI_TRY(mfi_file_open(file, path, err));
    mf_status status =
        mfi_file_read(file, bytes, (size_t)MFI_MIN(file->size, MFI_SNAPSHOT_HEAD_BYTES), 0, err);
    if (status == MF_OK)
        status = mfi_snapshot_parse(head, bytes, file->size, path, err);
    if (status != MF_OK)
        mfi_file_close(file);
    return status;
}

/* ---- writing ---- */

static uint64_t state_bytes(mf_session *s, uint32_t n, bool has_logits)
{
    const mfi_state_parts parts = {.kv = true, .logits = has_logits};
    uint32_t n_pieces = mfi_state_list(s, NULL, n, parts, s->pieces);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n_pieces; i++)
        bytes += s->pieces[i].bytes;
    return bytes;
}

uint64_t mfi_snapshot_bytes(mf_session *s, uint32_t n, bool has_logits)
{
    return MFI_SNAPSHOT_HEAD_BYTES + (uint64_t)n * sizeof(int32_t) + state_bytes(s, n, has_logits);
}

struct mfi_snapshot_writer {
    const mf_session *session;
    char *stage; /* PIECE_BYTES of what lies in a device's memory; NULL: nothing does */
    mfi_out out; /* open from the first step on */
    char *path;
    mfi_snapshot head;
    uint64_t bytes; /* of the file */
    mfi_checksum *sum;
    mfi_piece *pieces; /* [n]: the tokens, then the state */
    uint32_t n, piece; /* piece: the one that is written, from `done` on */
    uint64_t done, at, settled;
    uint64_t settle_bytes; /* written before it is flushed and leaves the page cache */
};

mf_status mfi_snapshot_writer_open(mfi_snapshot_writer **writer, mf_session *s, uint32_t n,
                                   const mfi_checkpoint *c, const char *path, mf_error *err)
{
    const mfi_identity *id;
    MFI_TRY(mfi_state_wait(s, err));
    MFI_TRY(mfi_engine_identity(s->host->engine, &id, err));
    size_t n_pieces = 1 + MFI_LAYER_PIECES * (size_t)s->plan->program.shape.n_layers + 1;
    mfi_snapshot_writer *w = calloc(1, sizeof *w);
    if (w)
        *w = (mfi_snapshot_writer){.session = s,
                                   .stage = mfi_state_on_host(s) ? NULL : malloc(PIECE_BYTES),
                                   .out = {.fd = -1},
                                   .path = strdup(path),
                                   .sum = mfi_checksum_open(),
                                   .pieces = calloc(n_pieces, sizeof *w->pieces)};
    if (!w || !w->path || !w->sum || !w->pieces || (!w->stage && !mfi_state_on_host(s))) {
        mfi_snapshot_writer_close(&w);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory to write a snapshot", path);
    }
    w->head =
        (mfi_snapshot){.identity = *id, .n_tokens = n, .has_logits = mfi_state_has_logits(s, c, n)};
    const mfi_state_parts parts = {.kv = true, .logits = w->head.has_logits};
    w->pieces[0] = (mfi_piece){s->tokens, n * sizeof *s->tokens};
    w->n = 1 + mfi_state_list(s, c, n, parts, w->pieces + 1);
    w->at = w->settled = MFI_SNAPSHOT_HEAD_BYTES;
    w->settle_bytes = s->plan->write_cache_bytes ? s->plan->write_cache_bytes
                                                 : MFI_KEEP_CACHE_BYTES_MAX; /* a save by itself */
    for (uint32_t i = 1; i < w->n; i++)
        w->head.state_bytes += w->pieces[i].bytes;
    w->bytes = w->at + w->pieces[0].bytes + w->head.state_bytes;
    *writer = w;
    return MF_OK;
}

void mfi_snapshot_writer_close(mfi_snapshot_writer **writer)
{
    mfi_snapshot_writer *w = *writer;
    if (!w)
        return;
    mfi_out_discard(&w->out);
    mfi_checksum_close(&w->sum);
    free(w->stage);
    free(w->path);
    free(w->pieces);
    free(w);
    *writer = NULL;
}

/* Some more of a piece. */
static mf_status put_some(mfi_snapshot_writer *w, uint64_t most, mf_error *err)
{
    const mfi_piece *p = &w->pieces[w->piece];
    const char *from = (const char *)p->at + w->done;
    uint64_t n = MFI_MIN(MFI_MIN(p->bytes - w->done, most), w->settle_bytes);
    if (w->stage) {
        n = MFI_MIN(n, PIECE_BYTES);
        MFI_TRY(mfi_state_move(w->session, w->stage, from, n, err));
        from = w->stage;
    }
    mfi_checksum_add(w->sum, from, (size_t)n);
    MFI_TRY(mfi_out_write(&w->out, from, (size_t)n, w->at, err));
    w->at += n;
    w->done += n;
    if (w->at - w->settled >= w->settle_bytes) {
        MFI_TRY(mfi_out_settle(&w->out, err));
        w->settled = w->at;
    }
    if (w->done < p->bytes)
        return MF_OK;
    if (w->piece++ == 0) {
        w->head.tokens_sum = mfi_checksum_value(w->sum);
        mfi_checksum_reset(w->sum);
    }
    w->done = 0;
    return MF_OK;
}

static mf_status finish(mfi_snapshot_writer *w, mf_error *err)
{
    unsigned char bytes[MFI_SNAPSHOT_HEAD_BYTES];
    w->head.state_sum = mfi_checksum_value(w->sum);
    put_head(bytes, &w->head);
    MFI_TRY(mfi_out_write(&w->out, bytes, sizeof bytes, 0, err));
    return mfi_out_publish(&w->out, w->path, err);
}

mf_status mfi_snapshot_writer_step(mfi_snapshot_writer *w, uint64_t most, bool *done, mf_error *err)
{
    *done = false;
    if (w->out.fd < 0)
        MFI_TRY(mfi_out_beside(&w->out, w->path, w->bytes, err));
    for (uint64_t begin = w->at; w->piece < w->n && w->at - begin < most;)
        MFI_TRY(put_some(w, most - (w->at - begin), err));
    if (w->piece < w->n)
        return MF_OK;
    MFI_TRY(finish(w, err));
    *done = true;
    return MF_OK;
}

mf_status mfi_snapshot_write(mf_session *s, uint32_t n, const mfi_checkpoint *c, const char *path,
                             mf_error *err)
{
    mfi_snapshot_writer *w = NULL;
    bool done = false;
    mf_status status = mfi_snapshot_writer_open(&w, s, n, c, path, err);
    while (status == MF_OK && !done)
        status = mfi_snapshot_writer_step(w, UINT64_MAX, &done, err);
    mfi_snapshot_writer_close(&w);
    return status;
}

/* ---- reading ---- */

static mf_status damaged(const mfi_file *file, mf_error *err)
{
    return mfi_fail(err, MF_ERR_FORMAT, "%s: the snapshot is damaged: its checksum differs",
                    file->path);
}

/* All of the file's content against its checksums, a piece at a time. */
static mf_status verify(const mfi_file *file, const mfi_snapshot *head, mfi_checksum *sum,
                        mf_error *err)
{
    char *piece = malloc(PIECE_BYTES);
    if (!piece)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to read a snapshot");
    uint64_t tokens_end = MFI_SNAPSHOT_HEAD_BYTES + (uint64_t)head->n_tokens * sizeof(int32_t);
    uint64_t at = MFI_SNAPSHOT_HEAD_BYTES;
    mf_status status = MF_OK;
    while (status == MF_OK && at < file->size) {
        uint64_t end = at < tokens_end ? tokens_end : file->size;
        size_t n = (size_t)MFI_MIN(end - at, PIECE_BYTES);
        status = mfi_file_read(file, piece, n, at, err);
        if (status != MF_OK)
            break;
        mfi_checksum_add(sum, piece, n);
        at += n;
        if (at == tokens_end) {
            if (mfi_checksum_value(sum) != head->tokens_sum)
                status = damaged(file, err);
            mfi_checksum_reset(sum);
        }
    }
    if (status == MF_OK && mfi_checksum_value(sum) != head->state_sum)
        status = damaged(file, err);
    mfi_checksum_reset(sum);
    free(piece);
    return status;
}

/* A piece from the file, through `stage` where it lies in a device's memory. */
static mf_status take_piece(mf_session *s, const mfi_file *file, const mfi_piece *piece,
                            uint64_t at, char *stage, mfi_checksum *sum, mf_error *err)
{
    if (!stage) {
        MFI_TRY(mfi_file_read(file, piece->at, (size_t)piece->bytes, at, err));
        mfi_checksum_add(sum, piece->at, (size_t)piece->bytes);
        return MF_OK;
    }
    for (uint64_t done = 0, n; done < piece->bytes; done += n) {
        n = MFI_MIN(piece->bytes - done, PIECE_BYTES);
        MFI_TRY(mfi_file_read(file, stage, (size_t)n, at + done, err));
        mfi_checksum_add(sum, stage, (size_t)n);
        MFI_TRY(mfi_state_move(s, (char *)piece->at + done, stage, n, err));
    }
    return MF_OK;
}

static mf_status take_state(mf_session *s, const mfi_file *file, const mfi_snapshot *head,
                            uint64_t at, mfi_checksum *sum, mf_error *err)
{
    const mfi_state_parts parts = {.kv = true, .logits = head->has_logits};
    uint32_t n_pieces = mfi_state_list(s, NULL, head->n_tokens, parts, s->pieces);
    char *stage = mfi_state_on_host(s) ? NULL : malloc(PIECE_BYTES);
    if (!stage && !mfi_state_on_host(s))
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to read a snapshot");
    mf_status status = MF_OK;
    for (uint32_t i = 0; status == MF_OK && i < n_pieces; i++) {
        status = take_piece(s, file, &s->pieces[i], at, stage, sum, err);
        at += s->pieces[i].bytes;
    }
    free(stage);
    return status;
}

static mf_status take(mf_session *s, const mfi_file *file, const mfi_snapshot *head,
                      mfi_checksum *sum, mf_error *err)
{
    uint32_t n = head->n_tokens, n_vocab = s->plan->program.shape.n_vocab;
    uint64_t at = MFI_SNAPSHOT_HEAD_BYTES;
    MFI_TRY(mfi_state_wait(s, err));
    MFI_TRY(mfi_state_begin(s, n, err));
    MFI_TRY(mfi_file_read(file, s->tokens, n * sizeof *s->tokens, at, err));
    if (mfi_checksum_of(s->tokens, n * sizeof *s->tokens) != head->tokens_sum)
        return damaged(file, err);
    for (uint32_t i = 0; i < n; i++)
        if (s->tokens[i] < 0 || (uint32_t)s->tokens[i] >= n_vocab)
            return damaged(file, err);
    at += n * sizeof *s->tokens;
    MFI_TRY(take_state(s, file, head, at, sum, err));
    if (mfi_checksum_value(sum) != head->state_sum)
        return damaged(file, err);
    mfi_state_end(s, n, head->has_logits);
    return MF_OK;
}

mf_status mfi_snapshot_read(mf_session *s, const mfi_file *file, const mfi_snapshot *head,
                            mf_error *err)
{
    if (head->n_tokens > s->plan->ctx)
        return mfi_fail(err, MF_ERR_CONTEXT, "%s: %u tokens don't fit into a context of %u",
                        file->path, head->n_tokens, s->plan->ctx);
    if (state_bytes(s, head->n_tokens, head->has_logits) != head->state_bytes)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: the snapshot has not the size of its state",
                        file->path);
    mfi_checksum *sum = mfi_checksum_open();
    if (!sum)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a checksum");
    mf_status status = s->length > 0 ? verify(file, head, sum, err) : MF_OK;
    if (status == MF_OK) {
        status = take(s, file, head, sum, err);
        if (status != MF_OK)
            mf_session_reset(s);
    }
    mfi_checksum_close(&sum);
    return status;
}

/* ---- the public functions ---- */

mf_status mf_session_save(mf_session *s, const char *path, mf_error *err)
{
    MFI_TRY(mfi_state_wait(s, err));
    if (s->broken || s->length == 0)
        return mfi_fail(err, MF_ERR_STATE, "%s: the session has nothing to save", path);
    return mfi_snapshot_write(s, s->length, NULL, path, err);
}

mf_status mf_session_load(mf_session *s, const char *path, mf_error *err)
{
    mfi_file file;
    mfi_snapshot head;
    MFI_TRY(mfi_state_wait(s, err));
    if (s->generating)
        return mfi_fail(err, MF_ERR_STATE, "%s: the session has an answer under way", path);
    MFI_TRY(mfi_snapshot_open(&file, &head, path, err));
    mf_status status = mfi_snapshot_fits(&head, s->host->engine, path, err);
    if (status == MF_OK)
        status = mfi_snapshot_read(s, &file, &head, err);
    mfi_file_close(&file);
    return status;
}
