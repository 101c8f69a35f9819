/* mf_pack_verify: reads everything that a pack holds and compares checksums. Called on the caller's
 * thread. It needs no model: the header says where each record lies and whose it is. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert/pack_sum.h"
#include "format/pack.h"

mf_status mfi_ps_sum(mfi_checksum *sum, const mfi_file *file, uint64_t offset, uint64_t bytes,
                     void *piece, mfi_cv_progress *progress, uint64_t *value, mf_error *err)
{
    mfi_checksum_reset(sum);
    for (uint64_t n; bytes > 0; bytes -= n, offset += n) {
        n = MFI_MIN(bytes, MFI_PS_PIECE_BYTES);
        MFI_TRY(mfi_file_read(file, piece, n, offset, err));
        mfi_checksum_add(sum, piece, n);
        MFI_TRY(mfi_cv_advance(progress, n, err));
    }
    *value = mfi_checksum_value(sum);
    return MF_OK;
}

typedef struct verifier {
    const char *path;
    mfi_file file;
    mfi_gguf_reader *r;
    mfi_buf name;
    mfi_checksum *sum;
    char *piece;
    mfi_cv_progress progress;
    uint64_t n_bad;
    mf_error first; /* the first bad one's */
    mf_error *err;
} verifier;

static void damaged(verifier *v, const mfi_pack_record *r, const char *why)
{
    char what[256];
    if (v->n_bad++ > 0)
        return;
    if (r->kind == MFI_PACK_EXPERT)
        snprintf(what, sizeof what, "layer %" PRIu32 ", expert %" PRIu32, r->layer, r->expert);
    else if (r->kind == MFI_PACK_PLANE)
        snprintf(what, sizeof what, "tensor %.200s, plane %" PRIu32, v->name.data, r->layer);
    else
        snprintf(what, sizeof what, "%.200s", v->name.data);
    mfi_fail(&v->first, MF_ERR_FORMAT, "%s: %s: %" PRIu64 " bytes at offset %" PRIu64 " %s",
             r->kind == MFI_PACK_BESIDE ? v->path : v->file.path, what, r->bytes, r->offset, why);
}

/* Only names that the writer makes: none leads out of the folder. */
static bool name_ok(const char *name)
{
    return name[0] && name[0] != '/' && !strstr(name, "..");
}

static mf_status verify_beside(verifier *v, const mfi_pack_record *r)
{
    if (!name_ok(v->name.data))
        return mfi_fail(v->err, MF_ERR_FORMAT, "%s: names a file outside its folder, %.200s",
                        v->file.path, v->name.data);
    char *path = mfi_path_join(v->path, v->name.data);
    mfi_file file = {.fd = -1};
    uint64_t got = 0;
    if (!path)
        return mfi_fail(v->err, MF_ERR_NO_MEMORY, "%s: out of memory", v->path);
    mf_status status = MF_OK;
    if (mfi_file_open(&file, path, NULL) != MF_OK)
        damaged(v, r, "are missing");
    else if (file.size != r->bytes)
        damaged(v, r, "are expected, the file has another size");
    else
        status = mfi_ps_sum(v->sum, &file, 0, r->bytes, v->piece, &v->progress, &got, v->err);
    if (status == MF_OK && file.fd >= 0 && file.size == r->bytes && got != r->checksum)
        damaged(v, r, "are damaged");
    mfi_file_close(&file);
    free(path);
    return status;
}

static mf_status verify_all(verifier *v)
{
    mfi_pack_head head;
    mfi_pack_record r;
    MFI_TRY(mfi_pack_read_head(v->r, &head));
    v->r->at = head.records_offset;
    for (uint32_t i = 0; i < head.n_records; i++) {
        uint64_t got;
        MFI_TRY(mfi_pack_read_record(v->r, &r, &v->name));
        if (r.kind == MFI_PACK_BESIDE) {
            MFI_TRY(verify_beside(v, &r));
            continue;
        }
        MFI_TRY(
            mfi_ps_sum(v->sum, &v->file, r.offset, r.bytes, v->piece, &v->progress, &got, v->err));
        if (got != r.checksum)
            damaged(v, &r, "are damaged");
    }
    v->progress.done = v->progress.total;
    MFI_TRY(mfi_cv_advance(&v->progress, 0, v->err));
    if (v->n_bad == 0)
        return MF_OK;
    if (v->n_bad == 1)
        return mfi_fail(v->err, MF_ERR_FORMAT, "%s", v->first.message);
    return mfi_fail(v->err, MF_ERR_FORMAT, "%.700s (and %" PRIu64 " more)", v->first.message,
                    v->n_bad - 1);
}

mf_status mf_pack_verify(const char *path, mf_progress_fn progress, void *progress_user,
                         mf_error *err)
{
    if (!path || !path[0])
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_pack_verify: no pack given");
    char *weights = mfi_path_join(path, MFI_PACK_FILE);
    verifier v = {.path = path, .file.fd = -1, .err = err};
    mf_status status;
    if (!weights)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    else
        status = mfi_file_open(&v.file, weights, err);
    v.progress = (mfi_cv_progress){progress, progress_user, 0, v.file.size, 0, "verifying"};
    v.sum = mfi_checksum_open();
    v.piece = malloc(MFI_PS_PIECE_BYTES);
    v.r = malloc(sizeof *v.r);
    if (status == MF_OK && (!v.sum || !v.piece || !v.r))
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    if (status == MF_OK) {
        mfi_gguf_reader_begin(v.r, &v.file, err);
        status = verify_all(&v);
    }
    mfi_file_close(&v.file);
    mfi_buf_free(&v.name);
    mfi_checksum_close(&v.sum);
    free(v.piece);
    free(v.r);
    free(weights);
    return status;
}
