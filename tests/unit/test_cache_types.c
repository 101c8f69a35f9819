/* The KV cache in its types: the same logits for every number of slots, threads and chunk; near to
 * those of a float cache and not the same; as many bytes as the hand counts; and refused where rows
 * are no whole blocks. Full attention beside recurrent layers, windows in rings, latent attention.
 */
#include "fake/oss_model.h"
#include "fake/rig.h"
#include "fake/support.h"
#include "fake/tiny_latent.h"
#include "fake/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_IDS 90 /* more than a block of positions, and than any window here */

static float *logits_of(const mft_rig_options *o, size_t *n)
{
    mf_error err;
    int32_t ids[N_IDS];
    mfi_rng rng = {78};
    mft_rig *rig = mft_rig_open(o);
    const uint32_t n_vocab = mft_rig_shape(rig)->n_vocab;
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)mfi_rng_below(&rng, n_vocab);
    *n = (size_t)N_IDS * n_vocab;
    float *logits = calloc(*n, sizeof *logits);
    mft_ok(mft_rig_eval(rig, ids, N_IDS, logits, &err), &err);
    mft_rig_close(rig);
    return logits;
}

/* Root mean square of a - b, in deviations of a. */
static double distance(const float *a, const float *b, size_t n)
{
    double sum = 0, mean = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        mean += (double)a[i] / (double)n;
        square += (double)a[i] * (double)a[i];
    }
    return sqrt(sum / (square - (double)n * mean * mean));
}

static void check_types(const char *folder, mf_cache_type keys, mf_cache_type values, double most)
{
    static const uint32_t slots[] = {0, 3, 0, 4}, threads[] = {2, 1, 3, 2},
                          chunks[] = {7, 1, 64, 5};
    mft_rig_options o;
    size_t n;
    mft_rig_default(&o, folder);
    float *exact = logits_of(&o, &n);
    o.cache_type[0] = keys;
    o.cache_type[1] = values;
    for (mfi_isa isa = MFI_ISA_C; isa <= mfi_cpu_isa(); isa++) {
        if (!mfi_cpu_has(isa) || (MFT_SANITIZED && isa != mfi_cpu_isa()))
            continue;
        o.isa = isa;
        o.n_slots = 0;
        o.n_threads = 1;
        o.chunk = 32;
        float *want = logits_of(&o, &n);
        const double far = distance(exact, want, n);
        if (!(far > 1e-7 && far < most))
            fail_msg("%s: types %d and %d are %g from f32", folder, keys, values, far);
        for (int i = 0; i < 4; i++) {
            o.n_slots = slots[i];
            o.n_threads = threads[i];
            o.chunk = chunks[i];
            float *got = logits_of(&o, &n);
            if (memcmp(got, want, n * sizeof *got) != 0)
                fail_msg("%s, types %d and %d: other bits with %u slots, %u threads, chunk %u, %s",
                         folder, keys, values, o.n_slots, o.n_threads, o.chunk, mfi_isa_name(isa));
            free(got);
        }
        free(want);
    }
    free(exact);
}

static const char *full_model(uint32_t head_dim)
{
    mft_tiny s;
    mft_tiny_default(&s);
    s.head_dim = head_dim;
    s.n_rot = head_dim / 4 * 2;
    return mft_tiny_write(&s);
}

static void full(void **state)
{
    (void)state;
    check_types(full_model(10), MF_CACHE_F16, MF_CACHE_F16, 1e-2);
    check_types(full_model(64), MF_CACHE_Q8_0, MF_CACHE_Q8_0, 0.1);
    check_types(full_model(32), MF_CACHE_F16, MF_CACHE_Q8_0, 0.1);
    check_types(full_model(32), MF_CACHE_Q8_0, MF_CACHE_F32, 0.1);
}

static void windows(void **state)
{
    (void)state;
    mft_oss s;
    mft_oss_default(&s);
    check_types(mft_oss_write(&s), MF_CACHE_F16, MF_CACHE_F32, 1e-2);
    s.head_dim = 32;
    check_types(mft_oss_write(&s), MF_CACHE_Q8_0, MF_CACHE_F16, 0.1);
}

static const char *latent_model(void)
{
    mft_latent s;
    mft_latent_default(&s);
    s.kv_rank = 64; /* with the 32 that rotate three blocks */
    s.rope = 32;
    return mft_latent_write(&s);
}

static void latent(void **state)
{
    (void)state;
    check_types(latent_model(), MF_CACHE_F16, MF_CACHE_F16, 1e-2);
    check_types(latent_model(), MF_CACHE_Q8_0, MF_CACHE_Q8_0, 0.1);
}

/* Bytes of a position in the last layer. */
static uint64_t position_bytes(const char *folder, mf_cache_type keys, mf_cache_type values)
{
    mft_rig_options o;
    mft_rig_default(&o, folder);
    o.cache_type[0] = keys;
    o.cache_type[1] = values;
    mft_rig *rig = mft_rig_open(&o);
    const uint64_t bytes =
        mft_rig_program(rig)->state[mft_rig_shape(rig)->n_layers - 1].kv_pos_bytes;
    mft_rig_close(rig);
    return bytes;
}

static void bytes(void **state)
{
    (void)state;
    const char *folder = full_model(64); /* two heads */
    assert_int_equal(position_bytes(folder, MF_CACHE_F32, MF_CACHE_F32), 2 * 2 * 64 * 4);
    assert_int_equal(position_bytes(folder, MF_CACHE_F16, MF_CACHE_F32), 2 * 64 * (2 + 4));
    assert_int_equal(position_bytes(folder, MF_CACHE_Q8_0, MF_CACHE_F16), 2 * (2 * 34 + 64 * 2));
    assert_int_equal(position_bytes(latent_model(), MF_CACHE_Q8_0, MF_CACHE_Q8_0), 3 * 34);
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        bool is_latent;
        mf_cache_type keys, values;
        mf_status status;
    } cases[] = {
        {false, MF_CACHE_Q8_0, MF_CACHE_F32, MF_ERR_UNSUPPORTED},
        {false, MF_CACHE_F32, MF_CACHE_Q8_0, MF_ERR_UNSUPPORTED},
        {true, MF_CACHE_F16, MF_CACHE_F32, MF_ERR_UNSUPPORTED},
        {true, MF_CACHE_F16, MF_CACHE_F16, MF_OK},
        {false, (mf_cache_type)3, MF_CACHE_F32, MF_ERR_ARGUMENT},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mf_engine *engine = NULL;
        mf_engine_options o;
        mf_error err = {0};
        mf_engine_options_default(&o);
        o.model_path = cases[i].is_latent ? latent_model() : full_model(10);
        o.cache_type_k = cases[i].keys;
        o.cache_type_v = cases[i].values;
        o.ctx = 64;
        assert_int_equal(mf_engine_open(&engine, &o, &err), cases[i].status);
        assert_true((err.message[0] != 0) == (cases[i].status != MF_OK));
        mf_engine_close(&engine);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full),  cmocka_unit_test(windows),  cmocka_unit_test(latent),
        cmocka_unit_test(bytes), cmocka_unit_test(refusals),
    };
    return mft_run(tests);
}
