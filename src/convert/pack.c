/* mf_pack: from any readable model to a pack (format/pack.h). Binds the model, plans the records,
 * copies them one after the other into a staging folder that becomes the output in one step.
 * Called on the caller's thread; calls back for progress from there. Knows no arithmetic: bytes are
 * copied as they stand.
 *
 * When interrupted the folder stays, and the next try goes on: a journal in it says which records
 * were written, of which source, with which checksums. What it says is believed only after the
 * record was read back, since a crash may have kept one and not the other. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/room.h"
#include "convert/pack_plan.h"
#include "convert/pack_sum.h"
#include "convert/sidecar.h"
#include "format/format.h"

#define JOURNAL       "journal"
#define JOURNAL_MAGIC "MFPKJRNL"
#define TEMPLATES     "additional_chat_templates"

/* One in the journal; its head has the magic and the source's checksum instead. */
typedef struct entry {
    uint32_t record, inverse; /* ~record: a torn entry hasn't it */
    uint64_t checksum;
} entry;

_Static_assert(sizeof(entry) == 16, "entries are written as they are");

typedef struct job {
    mfi_catalog *catalog;
    mfi_model *model;
    mfi_stage stage;
    mfi_out journal, out;
    mfi_file written; /* what `out` writes, to be read back */
    uint64_t journal_at;
    mfi_pp_beside *beside;
    uint32_t n_beside, cap_beside;
    const char *folder; /* while files are listed: of that name in the staging folder, or NULL */
    mfi_pp plan;
    uint64_t *done; /* [n_records] checksums from the journal */
    bool *is_done;  /* [n_records] */
    mfi_checksum *sum;
    char *piece; /* [MFI_PS_PIECE_BYTES] */
    mfi_cv_progress progress;
} job;

static mf_status no_memory(const job *j, mf_error *err)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", j->stage.final);
}

/* ---- the files beside the weights ---- */

static bool is_ours(const char *name)
{
    return strcmp(name, JOURNAL) == 0 || strcmp(name, MFI_PACK_FILE) == 0;
}

static mf_status list_file(void *ctx, const char *name, mf_error *err)
{
    job *j = ctx;
    mfi_buf full = {0};
    if (!j->folder && is_ours(name))
        return MF_OK;
    mfi_buf_fmt(&full, "%s%s%s", j->folder ? j->folder : "", j->folder ? "/" : "", name);
    if (full.failed || !MFI_ROOM(j->beside, j->n_beside, j->cap_beside, 16)) {
        mfi_buf_free(&full);
        return no_memory(j, err);
    }
    j->beside[j->n_beside++] = (mfi_pp_beside){full.data, 0};
    return MF_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const mfi_pp_beside *)a)->name, ((const mfi_pp_beside *)b)->name);
}

static mf_status list_files(job *j, mf_error *err)
{
    while (j->n_beside > 0)
        free(j->beside[--j->n_beside].name);
    j->folder = NULL;
    MFI_TRY(mfi_dir_each_file(j->stage.dir, list_file, j, err));
    char *templates = mfi_path_join(j->stage.dir, TEMPLATES);
    if (!templates)
        return no_memory(j, err);
    j->folder = TEMPLATES;
    mf_status status = MF_OK;
    if (mfi_dir_exists(templates))
        status = mfi_dir_each_file(templates, list_file, j, err);
    free(templates);
    if (j->n_beside > 0)
        qsort(j->beside, j->n_beside, sizeof *j->beside, by_name);
    return status;
}

/* What an earlier try put there; it is small. */
static mf_status clear_files(job *j, mf_error *err)
{
    MFI_TRY(list_files(j, err));
    for (uint32_t i = 0; i < j->n_beside; i++)
        MFI_TRY(mfi_stage_remove(&j->stage, j->beside[i].name, err));
    return mfi_stage_remove(&j->stage, TEMPLATES, err);
}

/* The metadata of a GGUF source as a GGUF file without tensors. */
static mf_status write_metadata(job *j, mf_error *err)
{
    const mfi_file *in = mfi_catalog_file(j->catalog, 0);
    char name[64] = "metadata.gguf";
    int64_t n_shards = 1;
    uint64_t end;
    (void)mfi_json_i64(mfi_json_get(mfi_catalog_meta(j->catalog), "split.count"), &n_shards);
    if (n_shards > 1) /* a reader wants this of the first shard's name */
        snprintf(name, sizeof name, "metadata-00001-of-%05" PRId64 ".gguf", n_shards);
    MFI_TRY(mfi_gguf_meta_end(in, &end, err));
    char *path = mfi_path_join(j->stage.dir, name);
    if (!path)
        return no_memory(j, err);
    mfi_out out;
    mf_status status = mfi_out_create(&out, path, end, err);
    for (uint64_t at = 0, n; status == MF_OK && at < end; at += n) {
        n = MFI_MIN(end - at, MFI_PS_PIECE_BYTES);
        status = mfi_file_read(in, j->piece, n, at, err);
        if (status == MF_OK && at == 0)
            memset(j->piece + 8, 0, 8); /* the number of tensors */
        if (status == MF_OK)
            status = mfi_out_write(&out, j->piece, n, at, err);
    }
    if (status == MF_OK)
        status = mfi_out_finish(&out, err);
    else
        mfi_out_close(&out);
    free(path);
    return status;
}

static mf_status read_beside(job *j, uint32_t i, uint64_t *bytes, uint64_t *checksum, mf_error *err)
{
    char *path = mfi_path_join(j->stage.dir, j->beside[i].name);
    mfi_file file = {.fd = -1};
    if (!path)
        return no_memory(j, err);
    mf_status status = mfi_file_open(&file, path, err);
    *bytes = status == MF_OK ? file.size : 0;
    if (status == MF_OK && checksum)
        status = mfi_ps_sum(j->sum, &file, 0, file.size, j->piece, &j->progress, checksum, err);
    mfi_file_close(&file);
    free(path);
    return status;
}

static mf_status write_beside(job *j, const char *in_path, mf_error *err)
{
    MFI_TRY(clear_files(j, err));
    if (mfi_catalog_meta(j->catalog))
        MFI_TRY(write_metadata(j, err));
    else
        MFI_TRY(mfi_cv_copy_file(in_path, j->stage.dir, "config.json", err));
    if (mfi_dir_exists(in_path))
        MFI_TRY(mfi_cv_copy_files(in_path, j->stage.dir, err));
    MFI_TRY(list_files(j, err));
    for (uint32_t i = 0; i < j->n_beside; i++)
        MFI_TRY(read_beside(j, i, &j->beside[i].bytes, NULL, err));
    return MF_OK;
}

/* ---- the journal ---- */

/* A checksum of what is to be written and of what from: the plan without checksums, and the files
 * as they were when they were opened. */
static mf_status identify(const job *j, uint64_t *identity, mf_error *err)
{
    mfi_buf header = {0};
    mf_status status = mfi_pp_header(&j->plan, &header, err);
    mfi_checksum_reset(j->sum);
    if (status == MF_OK)
        mfi_checksum_add(j->sum, header.data, header.len);
    mfi_buf_free(&header);
    for (uint32_t f = 0; f < mfi_catalog_n_files(j->catalog); f++) {
        const mfi_file *file = mfi_catalog_file(j->catalog, f);
        const uint64_t facts[] = {file->size, file->mtime_ns, file->ino, file->dev};
        mfi_checksum_add(j->sum, facts, sizeof facts);
    }
    *identity = mfi_checksum_value(j->sum);
    return status;
}

static mf_status read_entries(job *j, const mfi_file *file, mf_error *err)
{
    for (uint64_t at = sizeof(entry); at + sizeof(entry) <= file->size; at += sizeof(entry)) {
        entry e;
        MFI_TRY(mfi_file_read(file, &e, sizeof e, at, err));
        if (e.inverse != ~e.record || e.record >= j->plan.n_records)
            break; /* torn */
        j->is_done[e.record] = true;
        j->done[e.record] = e.checksum;
        j->journal_at = at + sizeof(entry);
    }
    return MF_OK;
}

/* What an earlier try did, if there was one. */
static mf_status read_journal(job *j, mf_error *err)
{
    uint64_t identity;
    mfi_file file;
    struct {
        char magic[8];
        uint64_t identity;
    } head, want;
    MFI_TRY(identify(j, &identity, err));
    memcpy(want.magic, JOURNAL_MAGIC, sizeof want.magic);
    want.identity = identity;
    j->journal_at = sizeof want;
    MFI_TRY(mfi_file_open(&file, j->journal.path, err));
    mf_status status = MF_OK;
    if (file.size < sizeof head) {
        status = mfi_out_write(&j->journal, &want, sizeof want, 0, err);
    } else {
        status = mfi_file_read(&file, &head, sizeof head, 0, err);
        if (status == MF_OK && memcmp(&head, &want, sizeof head) != 0)
            status = mfi_fail(err, MF_ERR_ARGUMENT,
                              "%s: holds a pack begun from another model, or from this one before "
                              "it was changed; remove that folder to start anew",
                              j->stage.dir);
        if (status == MF_OK)
            status = read_entries(j, &file, err);
    }
    mfi_file_close(&file);
    return status;
}

static mf_status note(job *j, uint32_t i, mf_error *err)
{
    entry e = {i, ~i, j->plan.records[i].r.checksum};
    MFI_TRY(mfi_out_write(&j->journal, &e, sizeof e, j->journal_at, err));
    j->journal_at += sizeof e;
    return MF_OK;
}

/* ---- the weights ---- */

static const char zeros[MFI_PACK_ALIGN];

/* From byte *at of the record up to `to`: what no part has. */
static mf_status fill_gap(job *j, const mfi_pack_record *r, uint64_t *at, uint64_t to,
                          mf_error *err)
{
    uint64_t n = to - *at;
    MFI_ASSERT(n <= sizeof zeros);
    if (n == 0)
        return MF_OK;
    MFI_TRY(mfi_out_write(&j->out, zeros, n, r->offset + *at, err));
    mfi_checksum_add(j->sum, zeros, n);
    *at = to;
    return mfi_cv_advance(&j->progress, n, err);
}

static mf_status copy_part(job *j, const mfi_pack_record *r, const mfi_pp_part *part, uint64_t *at,
                           mf_error *err)
{
    MFI_TRY(fill_gap(j, r, at, part->at, err));
    const mfi_tensor *t = mfi_catalog_tensor(j->catalog, part->tensor);
    mfi_extent x = mfi_tensor_extent(t, part->plane, part->row, part->n_rows);
    for (uint64_t n; x.len > 0; x.len -= n, x.offset += n, *at += n) {
        n = MFI_MIN(x.len, MFI_PS_PIECE_BYTES);
        MFI_TRY(mfi_file_read(mfi_catalog_file(j->catalog, x.file), j->piece, n, x.offset, err));
        mfi_checksum_add(j->sum, j->piece, n);
        MFI_TRY(mfi_out_write(&j->out, j->piece, n, r->offset + *at, err));
        MFI_TRY(mfi_cv_advance(&j->progress, n, err));
    }
    return MF_OK;
}

static mf_status copy_record(job *j, uint32_t i, mf_error *err)
{
    mfi_pp_record *record = &j->plan.records[i];
    uint64_t at = 0, before = j->progress.done;
    if (j->is_done[i]) {
        MFI_TRY(mfi_ps_sum(j->sum, &j->written, record->r.offset, record->r.bytes, j->piece,
                           &j->progress, &record->r.checksum, err));
        if (record->r.checksum == j->done[i])
            return MF_OK;
        j->progress.done = before;
    }
    mfi_checksum_reset(j->sum);
    for (uint32_t p = 0; p < record->n_parts; p++)
        MFI_TRY(copy_part(j, &record->r, &j->plan.parts[record->first_part + p], &at, err));
    MFI_TRY(fill_gap(j, &record->r, &at, record->r.bytes, err));
    record->r.checksum = mfi_checksum_value(j->sum);
    return note(j, i, err);
}

static mf_status write_weights(job *j, mf_error *err)
{
    mfi_buf header = {0};
    for (uint32_t i = 0; i < j->plan.n_records; i++) {
        if (j->plan.records[i].r.kind == MFI_PACK_BESIDE)
            MFI_TRY(read_beside(j, i, &j->plan.records[i].r.bytes, &j->plan.records[i].r.checksum,
                                err)); /* they come first */
        else
            MFI_TRY(copy_record(j, i, err));
    }
    mf_status status = mfi_pp_header(&j->plan, &header, err);
    if (status == MF_OK)
        status = mfi_out_write(&j->out, header.data, header.len, 0, err);
    mfi_buf_free(&header);
    return status == MF_OK ? mfi_out_finish(&j->out, err) : status;
}

/* ---- the driver ---- */

/* The source must still be what the catalog was made from, and what was written must open. */
static mf_status check_both(const job *j, mf_error *err)
{
    mfi_catalog *catalog = NULL;
    mfi_model *model = NULL;
    for (uint32_t f = 0; f < mfi_catalog_n_files(j->catalog); f++)
        MFI_TRY(mfi_file_check(mfi_catalog_file(j->catalog, f), err));
    mf_status status = mfi_format_open(&catalog, j->stage.dir, err);
    if (status == MF_OK)
        status = mfi_model_open(&model, catalog, err);
    if (status == MF_OK && !mfi_model_same_shape(model, j->model))
        status = mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: the pack would be another model",
                          mfi_catalog_path(j->catalog));
    mfi_model_close(&model);
    mfi_catalog_close(&catalog);
    return status;
}

static mf_status open_staged(job *j, const char *out_path, mf_error *err)
{
    MFI_TRY(mfi_stage_resume(&j->stage, out_path, err));
    char *path = mfi_path_join(j->stage.dir, JOURNAL);
    if (!path)
        return no_memory(j, err);
    mf_status status = mfi_out_resume(&j->journal, path, err);
    free(path);
    return status;
}

static mf_status open_weights(job *j, mf_error *err)
{
    j->done = calloc(j->plan.n_records, sizeof *j->done);
    j->is_done = calloc(j->plan.n_records, sizeof *j->is_done);
    char *path = mfi_path_join(j->stage.dir, MFI_PACK_FILE);
    mf_status status = path && j->done && j->is_done ? MF_OK : no_memory(j, err);
    if (status == MF_OK)
        status = read_journal(j, err);
    if (status == MF_OK)
        status = mfi_out_resume(&j->out, path, err);
    if (status == MF_OK)
        status = mfi_out_resize(&j->out, j->plan.file_bytes, err);
    if (status == MF_OK)
        status = mfi_file_open(&j->written, path, err);
    free(path);
    return status;
}

static mf_status run(job *j, const mf_pack_options *o, mf_error *err)
{
    MFI_TRY(mfi_format_open(&j->catalog, o->in_path, err));
    MFI_TRY(mfi_model_open(&j->model, j->catalog, err));
    MFI_TRY(open_staged(j, o->out_path, err));
    j->sum = mfi_checksum_open();
    j->piece = malloc(MFI_PS_PIECE_BYTES);
    if (!j->sum || !j->piece)
        return no_memory(j, err);
    MFI_TRY(write_beside(j, o->in_path, err));
    MFI_TRY(mfi_pp_open(&j->plan, j->model, j->beside, j->n_beside, err));
    MFI_TRY(open_weights(j, err));
    j->progress = (mfi_cv_progress){o->progress, o->progress_user, 0, j->plan.bytes, 0, "packing"};
    MFI_TRY(mfi_cv_advance(&j->progress, 0, err));
    MFI_TRY(write_weights(j, err));
    MFI_TRY(check_both(j, err));
    MFI_TRY(mfi_stage_commit(&j->stage, err));
    char *path = mfi_path_join(j->stage.final, JOURNAL); /* it is the lock: until it has its name */
    if (path)
        (void)remove(path);
    free(path);
    return MF_OK;
}

void mf_pack_options_default(mf_pack_options *options)
{
    *options = (mf_pack_options){.struct_size = sizeof *options};
}

mf_status mf_pack(const mf_pack_options *o, mf_error *err)
{
    if (!o || o->struct_size != sizeof *o)
        return mfi_fail(err, MF_ERR_ARGUMENT, "struct_size: pack options of another version");
    if (!o->in_path || !o->in_path[0] || !o->out_path || !o->out_path[0])
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_pack: no model or no output given");
    job j = {.journal.fd = -1, .out.fd = -1, .written.fd = -1};
    mf_status status = run(&j, o, err);
    mfi_file_close(&j.written);
    mfi_out_close(&j.out);
    mfi_out_close(&j.journal);
    mfi_stage_leave(&j.stage);
    mfi_pp_close(&j.plan);
    while (j.n_beside > 0)
        free(j.beside[--j.n_beside].name);
    free(j.beside);
    free(j.done);
    free(j.is_done);
    free(j.piece);
    mfi_checksum_close(&j.sum);
    mfi_model_close(&j.model);
    mfi_catalog_close(&j.catalog);
    return status;
}
