/* mf_convert: from any readable model to a folder with MLX-quantised weights (GGUF files are
 * gguf_convert.c's).
 *
 * Checks the options, binds the model, makes the plan, and drives encoding shard by shard into a
 * staging folder that becomes the output in one step; whatever goes wrong, it is removed. Called on
 * the caller's thread; calls back for progress from there; workers encode rows. Knows no tensor
 * names (mlx_plan.c), no arithmetic (quant), no file formats (st_write.c). */
#include "convert/convert.h"

#include <inttypes.h>
#include <stdlib.h>

#include "convert/encode.h"
#include "convert/gguf_convert.h"
#include "convert/hf_vocab.h"
#include "convert/sidecar.h"
#include "format/format.h"

#define MEMORY_BYTES_DEFAULT (256 * MFI_MIB)

void mf_convert_options_default(mf_convert_options *options)
{
    *options = (mf_convert_options){.struct_size = sizeof *options, .bits = 4, .group_size = 64};
}

static bool bits_ok(uint32_t bits)
{
    return bits >= 2 && bits <= 8 && bits != 7;
}

static mf_status check_options(const mf_convert_options *o, mf_error *err)
{
    if (o->struct_size != sizeof *o)
        return mfi_fail(err, MF_ERR_ARGUMENT, "struct_size: convert options of another version");
    if (!o->in_path || !o->in_path[0])
        return mfi_fail(err, MF_ERR_ARGUMENT, "in_path: no model given");
    if (!o->out_path || !o->out_path[0])
        return mfi_fail(err, MF_ERR_ARGUMENT, "no output given");
    if (o->n_threads > MFI_MAX_THREADS)
        return mfi_fail(err, MF_ERR_ARGUMENT, "n_threads: %" PRIu32 " are more than %d",
                        o->n_threads, MFI_MAX_THREADS);
    if (o->type)
        return MF_OK;
    if (o->imatrix_path)
        return mfi_fail(err, MF_ERR_ARGUMENT, "imatrix_path: for GGUF types only");
    if (!bits_ok(o->bits))
        return mfi_fail(err, MF_ERR_ARGUMENT, "bits: %" PRIu32 " is none of 2, 3, 4, 5, 6, 8",
                        o->bits);
    if (o->dense_bits && !bits_ok(o->dense_bits))
        return mfi_fail(err, MF_ERR_ARGUMENT, "dense_bits: %" PRIu32 " is none of 2, 3, 4, 5, 6, 8",
                        o->dense_bits);
    if (o->group_size && o->group_size != 32 && o->group_size != 64 && o->group_size != 128)
        return mfi_fail(err, MF_ERR_ARGUMENT, "group_size: %" PRIu32 " is none of 32, 64, 128",
                        o->group_size);
    return MF_OK;
}

typedef struct job {
    mfi_catalog *catalog;
    mfi_model *model;
    mfi_pool *pool;
    mfi_mp plan;
    mfi_cv_encoder *encoder;
    mfi_cv_progress progress;
    mfi_stage stage;
} job;

static mf_status write_shard(job *j, uint32_t s, mf_error *err)
{
    mfi_mp_shard *shard = &j->plan.shards[s];
    char *path = mfi_path_join(j->stage.dir, shard->name);
    if (!path)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", shard->name);
    mfi_out out = {.fd = -1};
    mf_status status = mfi_st_create(&out, path, shard->entries, shard->n_entries, err);
    for (uint32_t i = 0; i < j->plan.gp.n_tensors && status == MF_OK; i++) {
        const mfi_gp_tensor *t = &j->plan.gp.tensors[i];
        uint64_t offsets[MFI_MAX_PLANES] = {0};
        if (j->plan.places[i].shard != s)
            continue;
        for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++)
            offsets[k] = shard->entries[j->plan.places[i].entry + k].offset;
        status = mfi_cv_encode(j->encoder, t, &out, offsets, &j->progress, err);
    }
    if (status == MF_OK)
        status = mfi_out_finish(&out, err);
    mfi_out_close(&out);
    free(path);
    return status;
}

/* config.json, the tokenizer and what else stands beside weights. */
static mf_status write_sidecars(job *j, const mf_convert_options *o, mf_error *err)
{
    MFI_TRY(mfi_cv_write_config(&j->plan, j->model, o->in_path, j->stage.dir, err));
    if (mfi_catalog_meta(j->catalog))
        return mfi_hv_write(j->catalog, j->stage.dir, err);
    return mfi_cv_copy_files(o->in_path, j->stage.dir, err);
}

/* The input must still be what the catalog was made from. */
static mf_status check_input(const job *j, mf_error *err)
{
    for (uint32_t f = 0; f < mfi_catalog_n_files(j->catalog); f++)
        MFI_TRY(mfi_file_check(mfi_catalog_file(j->catalog, f), err));
    return MF_OK;
}

/* Opens what was written: a part of a family that MLX's files have no place for would be missing
 * there, or give another shape. */
static mf_status check_output(const job *j, mf_error *err)
{
    mf_error inner = {0};
    mfi_catalog *catalog = NULL;
    mfi_model *model = NULL;
    mf_status status = mfi_format_open(&catalog, j->stage.dir, &inner);
    if (status == MF_OK)
        status = mfi_model_open(&model, catalog, &inner);
    if (status == MF_OK && !mfi_model_same_shape(model, j->model))
        status = mfi_fail(&inner, MF_ERR_UNSUPPORTED, "the shape would be another");
    mfi_model_close(&model);
    mfi_catalog_close(&catalog);
    if (status == MF_OK)
        return MF_OK;
    return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: MLX's files can't hold this %s model: %.400s",
                    mfi_catalog_path(j->catalog), j->model->family, inner.message);
}

static mf_status run(job *j, const mf_convert_options *o, uint64_t shard_bytes, mf_error *err)
{
    MFI_TRY(mfi_format_open(&j->catalog, o->in_path, err));
    MFI_TRY(mfi_model_open(&j->model, j->catalog, err));
    MFI_TRY(mfi_mp_open(&j->plan, j->model, o->bits, o->dense_bits ? o->dense_bits : o->bits,
                        o->group_size ? o->group_size : 64, shard_bytes, err));
    MFI_TRY(mfi_cv_pool_open(&j->pool, o->n_threads, err));
    MFI_TRY(mfi_cv_encoder_open(&j->encoder, &j->plan.gp, j->model, j->pool, NULL,
                                o->memory_bytes ? o->memory_bytes : MEMORY_BYTES_DEFAULT, err));
    MFI_TRY(mfi_stage_open(&j->stage, o->out_path, err));
    j->progress = (mfi_cv_progress){o->progress, o->progress_user, 0, j->plan.gp.in_bytes, 0, NULL};
    MFI_TRY(mfi_cv_advance(&j->progress, 0, err));
    MFI_TRY(write_sidecars(j, o, err));
    for (uint32_t s = 0; s < j->plan.n_shards; s++)
        MFI_TRY(write_shard(j, s, err));
    MFI_TRY(mfi_cv_write_index(&j->plan, j->stage.dir, err));
    MFI_TRY(check_input(j, err));
    MFI_TRY(check_output(j, err));
    return mfi_stage_commit(&j->stage, err);
}

mf_status mfi_convert(const mf_convert_options *options, uint64_t shard_bytes, mf_error *err)
{
    MFI_TRY(check_options(options, err));
    if (options->type)
        return mfi_convert_gguf(options, err);
    job j = {0};
    mf_status status = run(&j, options, shard_bytes, err);
    mfi_stage_close(&j.stage);
    mfi_cv_encoder_close(&j.encoder);
    mfi_pool_close(&j.pool);
    mfi_mp_close(&j.plan);
    mfi_model_close(&j.model);
    mfi_catalog_close(&j.catalog);
    return status;
}

mf_status mf_convert(const mf_convert_options *options, mf_error *err)
{
    return mfi_convert(options, MFI_CV_SHARD_BYTES, err);
}
