/* Misses of a device that the CPU computes, and tiers of both kinds below the forward pass, without
 * a device: a CPU backend with few slots stands for it, over slots of "the host's". Since both
 * compute alike here, logits must be those of a run that has every expert, to the bit, whatever is
 * where. */
#include "fake/rig.h"
#include "fake/support.h"
#include "fake/tiny_model.h"

#include <stdlib.h>
#include <string.h>

#define N_IDS 40

static int32_t ids[N_IDS];

static void make_ids(uint32_t n_vocab)
{
    for (uint32_t i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)((i * 37 + i * i * 5 + 11) % n_vocab);
}

/* Logits of all tokens; how many experts the second CPU computed. */
static float *evaluate(const mft_rig_options *o, uint64_t *n_on_cpu)
{
    mf_error err;
    mft_rig *r = mft_rig_open(o);
    uint32_t n_vocab = mft_rig_shape(r)->n_vocab;
    make_ids(n_vocab);
    float *logits = malloc((size_t)N_IDS * n_vocab * sizeof *logits);
    mft_ok(mft_rig_eval(r, ids, N_IDS, logits, &err), &err);
    *n_on_cpu = mfi_forward_n_on_cpu(mft_rig_forward(r));
    mft_rig_close(r);
    return logits;
}

static void same_as(const mft_rig_options *o, const float *whole, uint32_t n_vocab, bool some)
{
    uint64_t n;
    float *got = evaluate(o, &n);
    if (memcmp(got, whole, (size_t)N_IDS * n_vocab * sizeof *got) != 0)
        fail_msg("chunk %u, %u slots over %u: other logits", o->chunk, o->n_slots, o->n_host_slots);
    if ((n > 0) != some)
        fail_msg("chunk %u, %u slots over %u: %llu experts were computed by the CPU", o->chunk,
                 o->n_slots, o->n_host_slots, (unsigned long long)n);
    free(got);
}

static void same_logits(void **state)
{
    (void)state;
    mft_tiny spec;
    mft_tiny_default(&spec);
    spec.n_experts = 16;
    const char *folder = mft_tiny_write(&spec);
    mft_rig_options o;
    mft_rig_default(&o, folder);
    uint64_t none;
    float *whole = evaluate(&o, &none);
    mft_rig *r = mft_rig_open(&o);
    uint32_t n_vocab = mft_rig_shape(r)->n_vocab, top_k = mft_rig_shape(r)->top_k;
    mft_rig_close(r);
    assert_int_equal(none, 0);
    o.miss_cpu = true;
    for (uint32_t chunk = 1; chunk <= MFI_MAX_MISS_TOK + 1; chunk += 1) {
        o.chunk = chunk;
        for (uint32_t more = 0; more < 8; more += 7) {
            o.n_slots = chunk * top_k + more;
            o.n_host_slots = MFI_MAX_MISS_HELD + 4 + more;
            same_as(&o, whole, n_vocab, chunk <= MFI_MAX_MISS_TOK);
        }
    }
    o.miss_cpu = false;
    o.chunk = 2;
    o.n_slots = 2 * top_k;
    o.n_host_slots = 6;
    same_as(&o, whole, n_vocab, false);
    o.exclusive = true;
    same_as(&o, whole, n_vocab, false);
    o.fake_io = true;
    o.fake = (mft_io_fake_config){.seed = 5, .latency_max = 4, .short_chance = 0.2};
    same_as(&o, whole, n_vocab, false);
    free(whole);
}

static mf_status take_facts(void *user, const mfi_run_facts *facts, mf_error *err)
{
    (void)err;
    *(mfi_run_facts *)user = *facts;
    return MF_OK;
}

/* A first token finds nothing on the device: all experts are the CPU's, whose time is arithmetic,
 * and waiting for the drive is a stall. */
static void time_is_counted(void **state)
{
    (void)state;
    mf_error err;
    mft_tiny spec;
    mfi_run_facts facts;
    mfi_store_stats stats;
    mft_tiny_default(&spec);
    spec.n_experts = 16;
    mft_rig_options o;
    mft_rig_default(&o, mft_tiny_write(&spec));
    o.miss_cpu = true;
    o.chunk = 1;
    o.n_slots = 2;
    o.n_host_slots = MFI_MAX_MISS_HELD + 4;
    mft_rig *r = mft_rig_open(&o);
    uint32_t n_vocab = mft_rig_shape(r)->n_vocab;
    float *logits = malloc(n_vocab * sizeof *logits);
    make_ids(n_vocab);
    mfi_forward_on_run(mft_rig_forward(r), take_facts, &facts);
    mft_ok(mft_rig_eval(r, ids, 1, logits, &err), &err);
    mfi_store_stats_get(mft_rig_store(r), &stats);
    assert_true(mfi_forward_n_on_cpu(mft_rig_forward(r)) > 0);
    assert_true(facts.experts_ns > 0 && stats.stall_ns > 0);
    assert_true(facts.arith_ns >= facts.experts_ns);
    assert_true(facts.arith_ns + stats.stall_ns <= facts.wall_ns);
    free(logits);
    mft_rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_logits),
                                       cmocka_unit_test(time_is_counted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
