/* What a snapshot must agree with: the model and the arithmetic. Called by the engine when the
 * first snapshot is written or read, on its thread.
 *
 * The model is what its files hold: names, types, places and sizes of all tensors, the resident
 * weights byte by byte, and of the files, which the routed experts fill, samples evenly spaced: to
 * read all of it would take as long as what a snapshot saves. */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/checksum.h"
#include "engine_int.h"

/* Changes whenever the same model, options and machine give other bits than before. */
#define NUMERICS_VERSION 1u

/* The same for what devices alone compute. */
#define DEVICE_NUMERICS_VERSION 2u

/* What compiled this: another one's expf may round otherwise. */
#ifdef __VERSION__
#define COMPILER __VERSION__
#else
#define COMPILER "?"
#endif

#define SAMPLES      256 /* over all files */
#define SAMPLE_BYTES 4096

static void add_u64(mfi_checksum *sum, uint64_t value)
{
    mfi_checksum_add(sum, &value, sizeof value);
}

static void add_tensors(mfi_checksum *sum, const mfi_catalog *catalog)
{
    for (uint32_t i = 0; i < mfi_catalog_n_tensors(catalog); i++) {
        const mfi_tensor *t = mfi_catalog_tensor(catalog, i);
        const char *name = mfi_catalog_name(catalog, i);
        char type[64];
        mfi_quant_name(t->type, type, sizeof type);
        mfi_checksum_add(sum, name, strlen(name) + 1);
        mfi_checksum_add(sum, type, strlen(type) + 1);
        for (uint32_t d = 0; d < t->n_dims; d++)
            add_u64(sum, t->dims[d]);
        for (uint32_t p = 0; p < mfi_quant_n_planes(t->type); p++)
            add_u64(sum, t->offset[p]);
    }
}

static mf_status add_samples(mfi_checksum *sum, const mfi_catalog *catalog, mf_error *err)
{
    unsigned char piece[SAMPLE_BYTES];
    uint32_t n_files = mfi_catalog_n_files(catalog), n = SAMPLES / n_files + 1;
    for (uint32_t i = 0; i < n_files; i++) {
        const mfi_file *file = mfi_catalog_file(catalog, i);
        add_u64(sum, file->size);
        for (uint32_t k = 0; k < n && file->size > 0; k++) {
            /* In the middle of each n-th part. */
            uint64_t at = file->size / n * k + file->size / n / 2;
            size_t len = (size_t)MFI_MIN(file->size - at, sizeof piece);
            MFI_TRY(mfi_file_read(file, piece, len, at, err));
            mfi_checksum_add(sum, piece, len);
        }
    }
    return MF_OK;
}

/* A piece of a weight's plane, wherever it lies: `dense` is the host's, or NULL. */
static mf_status read_piece(const mfi_catalog *catalog, const mfi_plan *plan, mfi_backend *b,
                            const char *dense, uint32_t weight, uint32_t plane, uint64_t at,
                            size_t n, char *piece, mf_error *err)
{
    const mfi_program_weight *w = &plan->program.weights[weight];
    if (w->in_place) {
        mfi_extent x = mfi_mapped_extent(plan, catalog, weight, plane);
        return mfi_file_read(mfi_catalog_file(catalog, x.file), piece, n, x.offset + at, err);
    }
    if (!dense) {
        const char *moved = b->device->address(b, MFI_MEM_DENSE);
        return b->device->move(b, piece, moved + w->offset[plane] + at, n, err);
    }
    memcpy(piece, dense + w->offset[plane] + at, n);
    return MF_OK;
}

/* Resident weights one by one: which of them a device has copied and which it uses in the files'
 * mapping depends on budgets, and a snapshot doesn't. */
static mf_status add_weights(mfi_checksum *sum, const mfi_catalog *catalog, const mfi_plan *plan,
                             mfi_backend *b, const char *dense, mf_error *err)
{
    char piece[16 * SAMPLE_BYTES];
    for (uint32_t i = 0; i < plan->program.n_weights; i++) {
        const mfi_program_weight *w = &plan->program.weights[i];
        for (uint32_t k = 0; k < mfi_quant_n_planes(w->type); k++) {
            uint64_t len = mfi_quant_plane_bytes(w->type, k, w->rows, w->cols);
            for (uint64_t at = 0, n; at < len; at += n) {
                n = MFI_MIN(len - at, sizeof piece);
                MFI_TRY(read_piece(catalog, plan, b, dense, i, k, at, (size_t)n, piece, err));
                mfi_checksum_add(sum, piece, (size_t)n);
            }
        }
    }
    return MF_OK;
}

/* Which device, and the system, whose compiler makes its kernels. */
static void add_device(mfi_checksum *sum, const mfi_plan *plan)
{
    struct utsname os;
    if (!plan->device[0])
        return;
    mfi_checksum_add(sum, plan->device, strlen(plan->device));
    add_u64(sum, DEVICE_NUMERICS_VERSION);
    if (uname(&os) == 0)
        mfi_checksum_add(sum, os.release, strlen(os.release));
}

/* Hyper-parameters, which may come from a file that has no tensors. */
static void add_shape(mfi_checksum *sum, const mfi_program *p)
{
    const mfi_shape *s = &p->shape;
    const mfi_rope *r = &s->rope;
    const double all[] = {s->eps,
                          s->n_head,
                          s->n_kv_head,
                          s->head_dim,
                          s->n_rot,
                          r->kind,
                          r->theta,
                          r->factor,
                          r->original_ctx,
                          r->beta_fast,
                          r->beta_slow,
                          r->exact,
                          r->attn_factor,
                          r->mscale_all_dim,
                          s->attn_gate,
                          s->attn_scale,
                          s->embed_scale,
                          s->residual_scale,
                          s->logit_scale,
                          s->latent_eps,
                          s->rope_pairs,
                          s->gdn_tiled,
                          s->top_k,
                          s->routing.score,
                          s->routing.n_groups,
                          s->routing.n_groups_used,
                          s->routing.group_best,
                          s->routing.normalize,
                          s->routing.scale,
                          s->glu,
                          s->glu_alpha,
                          s->glu_limit,
                          s->window,
                          s->latent_q,
                          s->latent_kv,
                          s->nope_dim,
                          s->v_dim,
                          s->gdn_k_heads,
                          s->gdn_v_heads,
                          s->gdn_k_dim,
                          s->gdn_v_dim,
                          s->conv_kernel};
    mfi_checksum_add(sum, all, sizeof all);
    for (uint32_t i = 0; i < s->n_layers; i++)
        add_u64(sum, p->state[i].window);
}

static uint64_t numerics(mfi_checksum *sum, const mfi_plan *plan, const char *text)
{
    const mfi_program *p = &plan->program;
    mfi_checksum_reset(sum);
    mfi_checksum_add(sum, text, strlen(text));
    add_shape(sum, p);
    add_device(sum, plan);
    for (uint32_t i = 0; i < p->n_weights; i++)
        mfi_checksum_add(sum, &p->weights[i].x_bits, 1);
    for (uint32_t i = 0; i < p->shape.n_layers; i++) {
        mfi_checksum_add(sum, &p->experts[i].in_bits, 1);
        mfi_checksum_add(sum, &p->experts[i].mid_bits, 1);
    }
    return mfi_checksum_value(sum);
}

mf_status mfi_identity_make(mfi_identity *id, const mfi_catalog *catalog, const mfi_plan *plan,
                            mfi_backend *backend, const void *dense, mf_error *err)
{
    mfi_checksum *sum = mfi_checksum_open();
    if (!sum)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a checksum");
    *id = (mfi_identity){0};
    /* With misses computed by the CPU bits depend on what was cached: nobody else is to have them.
     */
    snprintf(id->text, sizeof id->text, "%s%s %s %s %s/%s %u-%04x", backend->name,
             plan->helper ? "+cpu" : "", mfi_isa_name(plan->isa), mfi_plan_activations(plan),
             mfi_plan_cache_type(plan, 0), mfi_plan_cache_type(plan, 1), NUMERICS_VERSION,
             (unsigned)(mfi_checksum_of(COMPILER, sizeof COMPILER) & 0xffff));
    add_tensors(sum, catalog);
    id->model[0] = mfi_checksum_value(sum);
    mf_status status = add_weights(sum, catalog, plan, backend, dense, err);
    if (status == MF_OK)
        status = add_samples(sum, catalog, err);
    id->model[1] = mfi_checksum_value(sum);
    id->numerics = numerics(sum, plan, id->text);
    mfi_checksum_close(&sum);
    return status;
}
