/* After its first token, decoding asks the system for no memory: neither the forward pass nor the
 * store nor the sampler, on no thread, while experts are read and evicted. This program's own
 * malloc and mmap count; they can't under a sanitizer, which brings its own. */
#include "fake/rig.h"
#include "fake/support.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sample/sampler.h"

#if defined(__GLIBC__) && defined(SYS_mmap) && !MFT_SANITIZED
#define COUNTS 1
#else
#define COUNTS 0
#endif

/* ---- counting ---- */

static atomic_ulong n_allocations;

#if COUNTS
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

void *malloc(size_t n)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
    atomic_fetch_add(&n_allocations, 1);
    *out = __libc_memalign(align, n);
    return *out ? 0 : ENOMEM;
}

void *mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    atomic_fetch_add(&n_allocations, 1);
    return (void *)syscall(SYS_mmap, at, len, prot, flags, fd, offset);
}
#endif

static bool counting_works(void)
{
    unsigned long before = atomic_load(&n_allocations);
    void *volatile p = malloc(1);
    free(p);
    p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(p, 4096);
    return atomic_load(&n_allocations) == before + 2;
}

/* ---- the parts, put together by hand ---- */

enum { N_PROMPT = 9, N_DECODE = 40 };

static int32_t one_token(mft_rig *rig, mfi_sampler *sampler, int32_t id, uint32_t pos)
{
    mf_error err;
    mft_ok(mft_rig_step(rig, &id, 1, pos, &err), &err);
    int32_t next = mfi_sampler_next(sampler, mft_rig_logits(rig));
    mfi_sampler_accept(sampler, next);
    return next;
}

static void decode_parts(const char *folder, bool fake_io, mf_activations activations)
{
    mf_error err;
    mft_rig_options o;
    mft_rig_default(&o, folder);
    o.fake_io = fake_io;
    o.fake = (mft_io_fake_config){.seed = 3, .latency_max = 20, .short_chance = 0.3};
    o.activations = activations;
    o.n_threads = 2;
    o.chunk = 4;
    mft_rig *rig = mft_rig_open(&o);
    const mfi_shape *shape = mft_rig_shape(rig);
    o.n_slots = shape->top_k + 1; /* hardly any: every token reads and evicts */
    mft_rig_close(rig);
    rig = mft_rig_open(&o);
    shape = mft_rig_shape(rig);

    mf_sampling sampling;
    mf_sampling_default(&sampling);
    sampling.repeat_penalty = 1.1f;
    sampling.presence_penalty = 0.1f;
    mfi_sampler *sampler = NULL;
    mft_ok(mfi_sampler_open(&sampler, &sampling, shape->n_vocab, &err), &err);

    int32_t id = 1;
    uint32_t pos = 0;
    for (; pos < N_PROMPT; pos++)
        id = one_token(rig, sampler, id, pos);
    mfi_store_stats before, after;
    mfi_store_stats_get(mft_rig_store(rig), &before);
    unsigned long n = atomic_load(&n_allocations);
    for (; pos < N_PROMPT + N_DECODE; pos++)
        id = one_token(rig, sampler, id, pos);
    n = atomic_load(&n_allocations) - n;
    mfi_store_stats_get(mft_rig_store(rig), &after);
    if (n)
        fail_msg("%lu allocations in %d tokens", n, N_DECODE);
    assert_true(after.evictions > before.evictions); /* or streaming was not seen */
    mfi_sampler_close(&sampler);
    mft_rig_close(rig);
}

static void parts(void **state)
{
    (void)state;
    if (!COUNTS)
        mft_skip("allocations can't be counted here");
    assert_true(counting_works());
    const char *folders[] = {
        mft_source("tests/data/mlx-tiny/q4g32"), mft_source("tests/data/mlx-tiny/mixed-q3g32"),
        mft_source("tests/data/latent-tiny/mlx-v3"), mft_oracle("hf/qwen3_5_moe_text")};
    for (size_t i = 0; i < MFI_ARRAY_LEN(folders) && folders[i]; i++) {
        decode_parts(folders[i], false, MF_ACTIVATIONS_F32);
        decode_parts(folders[i], true, MF_ACTIVATIONS_Q8);
    }
}

/* ---- the same through the public header, on the model that ships ---- */

typedef struct watch {
    unsigned long at_first, at_last;
    size_t n;
} watch;

static bool on_token(void *user, int32_t id, const char *bytes, size_t len)
{
    (void)id, (void)bytes, (void)len;
    watch *w = user;
    w->at_last = atomic_load(&n_allocations);
    if (w->n++ == 1) /* the second token is the first that was decoded */
        w->at_first = w->at_last;
    return true;
}

static void generate(void **state)
{
    (void)state;
    if (!COUNTS)
        mft_skip("allocations can't be counted here");
    mf_error err;
    mf_engine *engine = NULL;
    mf_session *session = NULL;
    mf_engine_options eo;
    mf_engine_options_default(&eo);
    eo.model_path = mft_source("models/pocket-dictionary");
    eo.memory_bytes = 18 * MFI_MIB;
    eo.ctx = 128;
    eo.n_threads = 2;
    mft_ok(mf_engine_open(&engine, &eo, &err), &err);
    mft_ok(mf_session_open(&session, engine, &err), &err);

    static const int32_t prompt[] = {40, 41, 42, 43, 44};
    watch w = {0};
    mf_generate_options o;
    mf_generate_result result;
    mf_generate_options_default(&o);
    o.prompt = prompt;
    o.n_prompt = MFI_ARRAY_LEN(prompt);
    o.max_tokens = N_DECODE;
    o.ignore_eos = true;
    o.on_token = on_token;
    o.user = &w;
    mft_ok(mf_session_generate(session, &o, &result, &err), &err);
    assert_true(w.n >= N_DECODE);
    mf_stats stats;
    mf_engine_stats(engine, &stats);
    assert_true(stats.expert_evictions > 0);
    if (w.at_last != w.at_first)
        fail_msg("%lu allocations in %zu tokens", w.at_last - w.at_first, w.n);
    mf_session_close(&session);
    mf_engine_close(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts),
        cmocka_unit_test(generate),
    };
    return mft_run(tests);
}
