/* From any readable model to a GGUF file. Called by mf_convert on the caller's thread; workers
 * encode rows. The order: bind the model, plan the tensors, stream the metadata, then the tensors
 * one after the other; whatever goes wrong, nothing is left behind. */
#include "convert/gguf_convert.h"

#include <stdlib.h>
#include <string.h>

#include "convert/encode.h"
#include "convert/gguf_keys.h"
#include "format/format.h"

#define MEMORY_BYTES_DEFAULT (256 * MFI_MIB)

typedef struct job {
    mfi_catalog *catalog;
    mfi_model *model;
    mfi_pool *pool;
    mfi_im_file imatrix;
    mfi_gp plan;
    mfi_cv_encoder *encoder;
    mfi_gguf_tensor *tensors; /* [plan.n_tensors] */
    mfi_gguf_out out;
} job;

static mf_status lay_out(job *j, const mf_convert_options *o, const mfi_gp_target *target,
                         mf_error *err)
{
    j->tensors = calloc(j->plan.n_tensors, sizeof *j->tensors);
    if (!j->tensors)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for the plan", o->in_path);
    for (uint32_t i = 0; i < j->plan.n_tensors; i++) {
        const mfi_gp_tensor *t = &j->plan.tensors[i];
        j->tensors[i] = (mfi_gguf_tensor){.name = t->name, .type = t->type, .n_dims = t->n_dims};
        memcpy(j->tensors[i].dims, t->dims, sizeof t->dims);
    }
    MFI_TRY(mfi_gguf_create(&j->out, o->out_path, err));
    MFI_TRY(mfi_gk_model(&j->out, j->model, target, err));
    if (o->imatrix_path)
        mfi_gguf_key_str(&j->out, "quantize.imatrix.file", o->imatrix_path);
    return mfi_gguf_layout(&j->out, j->tensors, j->plan.n_tensors, err);
}

/* Opens what was laid out, before the tensors are written: what GGUF has no key for, or its readers
 * take for granted and this model has otherwise, would give another model. */
static mf_status check_output(const job *j, mf_error *err)
{
    mf_error inner = {0};
    mfi_catalog *catalog = NULL;
    mfi_model *model = NULL;
    char *path = mfi_gguf_staged_path(&j->out);
    if (!path)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a name");
    mf_status status = mfi_format_open(&catalog, path, &inner);
    if (status == MF_OK)
        status = mfi_model_open(&model, catalog, &inner);
    if (status == MF_OK && !mfi_model_same_shape(model, j->model))
        status = mfi_fail(&inner, MF_ERR_UNSUPPORTED,
                          "what its readers would take it for has another shape, rotation or "
                          "routing");
    mfi_model_close(&model);
    mfi_catalog_close(&catalog);
    free(path);
    if (status == MF_OK)
        return MF_OK;
    return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: GGUF can't hold this %s model: %.400s",
                    mfi_catalog_path(j->catalog), j->model->family, inner.message);
}

/* The input must still be what the catalog was made from. */
static mf_status check_input(const job *j, mf_error *err)
{
    for (uint32_t f = 0; f < mfi_catalog_n_files(j->catalog); f++)
        MFI_TRY(mfi_file_check(mfi_catalog_file(j->catalog, f), err));
    return MF_OK;
}

static mf_status run(job *j, const mf_convert_options *o, const mfi_gp_target *target,
                     mf_error *err)
{
    MFI_TRY(mfi_format_open(&j->catalog, o->in_path, err));
    MFI_TRY(mfi_model_open(&j->model, j->catalog, err));
    MFI_TRY(mfi_gp_open(&j->plan, j->model, target, err));
    if (o->imatrix_path)
        MFI_TRY(mfi_im_open(&j->imatrix, o->imatrix_path, err));
    MFI_TRY(mfi_cv_pool_open(&j->pool, o->n_threads, err));
    MFI_TRY(mfi_cv_encoder_open(&j->encoder, &j->plan, j->model, j->pool,
                                o->imatrix_path ? &j->imatrix : NULL,
                                o->memory_bytes ? o->memory_bytes : MEMORY_BYTES_DEFAULT, err));
    mfi_cv_progress progress = {o->progress, o->progress_user, 0, j->plan.in_bytes, 0, NULL};
    MFI_TRY(mfi_cv_advance(&progress, 0, err));
    MFI_TRY(lay_out(j, o, target, err));
    MFI_TRY(check_output(j, err));
    for (uint32_t i = 0; i < j->plan.n_tensors; i++) {
        const uint64_t offsets[MFI_MAX_PLANES] = {j->tensors[i].offset};
        MFI_TRY(
            mfi_cv_encode(j->encoder, &j->plan.tensors[i], &j->out.out, offsets, &progress, err));
    }
    MFI_TRY(check_input(j, err));
    return mfi_gguf_finish(&j->out, err);
}

mf_status mfi_convert_gguf(const mf_convert_options *options, mf_error *err)
{
    const mfi_gp_target *target = mfi_gp_find_target(options->type);
    if (!target)
        return mfi_fail(err, MF_ERR_ARGUMENT, "type: %.80s is none of " MFI_GP_TARGETS,
                        options->type);
    job j = {.out.out.fd = -1};
    mf_status status = run(&j, options, target, err);
    mfi_gguf_close(&j.out);
    mfi_cv_encoder_close(&j.encoder);
    mfi_pool_close(&j.pool);
    mfi_im_close(&j.imatrix);
    mfi_gp_close(&j.plan);
    free(j.tensors);
    mfi_model_close(&j.model);
    mfi_catalog_close(&j.catalog);
    return status;
}
