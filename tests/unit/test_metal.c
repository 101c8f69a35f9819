/* The Metal backend on the fake device: weights in place, budgets that change no bit, and every
 * failure that a device can have. Products of kernels by themselves are test_metal_kernels'; what
 * others computed is test_metal_reference's. */
#include "fake/support.h"
#include "fake/tiny_model.h"
#include "metal/fake/metal_rig.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_IDS 40

/* Tensors where they can be used in place: the test's files have headers of any length, published
 * ones pad them to 8 bytes. */
static const char *pad(const char *dir)
{
    char path[600];
    size_t len;
    uint64_t head = 0;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unsigned char *bytes = mft_read(path, &len);
    memcpy(&head, bytes, sizeof head);
    uint64_t padded = (head + 7) / 8 * 8;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(&padded, sizeof padded, 1, f);
    fwrite(bytes + 8, 1, head, f);
    fprintf(f, "%*s", (int)(padded - head), "");
    fwrite(bytes + 8 + head, 1, len - 8 - head, f);
    assert_int_equal(fclose(f), 0);
    free(bytes);
    return dir;
}

/* Experts of 48 KiB, 3 MiB of them, so that budgets in bytes mean something. */
static const char *model(void)
{
    static char path[512];
    mft_tiny spec;
    if (path[0])
        return path;
    mft_tiny_default(&spec);
    spec.n_experts = 32;
    spec.hidden = 64;
    spec.width = 64;
    spec.top_k = 4;
    spec.n_vocab = 300;
    snprintf(path, sizeof path, "%s", pad(mft_tiny_write(&spec)));
    return path;
}

static mft_metal_run expect(const mf_engine_options *o)
{
    mft_metal_run run;
    mf_error err;
    mft_ok(mft_metal_eval(o, N_IDS, &run, &err), &err);
    return run;
}

static void same(const mft_metal_run *want, mft_metal_run got, const char *what)
{
    assert_int_equal(want->n, got.n);
    if (memcmp(want->logits, got.logits, want->n * sizeof(float)) != 0)
        fail_msg("logits differ with %s", what);
    free(got.logits);
}

static void refused(const mf_engine_options *o, mf_status status, const char *text)
{
    mft_metal_run run;
    mf_error err = {0};
    assert_int_equal(mft_metal_eval(o, N_IDS, &run, &err), status);
    if (!strstr(err.message, text))
        fail_msg("'%s' is not in '%s'", text, err.message);
}

/* ---- weights in place ---- */

static bool in_file(const void *address, const char *path)
{
    char line[1024];
    bool found = false;
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    while (!found && fgets(line, sizeof line, f)) {
        unsigned long begin, end;
        found = sscanf(line, "%lx-%lx ", &begin, &end) == 2 && begin <= (uintptr_t)address &&
                (uintptr_t)address < end && strstr(line, path);
    }
    fclose(f);
    return found;
}

static long anonymous_kib(void)
{
    char line[256];
    long kib = -1;
    FILE *f = fopen("/proc/self/status", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %ld kB", &kib) == 1)
            break;
    fclose(f);
    return kib;
}

/* The buffers' addresses are the mapping's, and private memory doesn't grow by the weights. */
static void no_copy(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_error err;
    mf_engine *engine = NULL;
    mf_session *session = NULL;
    mft_tiny spec;
    char file[600];
    int32_t ids[4] = {1, 2, 3, 4};
    mft_tiny_default(&spec);
    spec.n_vocab = 40000; /* 40 MiB of embedding and head, used where they are */
    spec.hidden = 128;
    const char *dir = pad(mft_tiny_write(&spec));
    snprintf(file, sizeof file, "%s/model.safetensors", dir);
    mf_engine_options o = mft_metal_options(dir);
    o.chunk = 4;
    uint64_t dense = (uint64_t)spec.n_vocab * spec.hidden * (spec.bf16 ? 2 : 4);
    long before = anonymous_kib();
    mft_ok(mf_engine_open(&engine, &o, &err), &err);
    mft_ok(mf_session_open(&session, engine, &err), &err);
    mft_ok(mf_session_eval(session, ids, 4, NULL, &err), &err);
    uint64_t wrapped = 0;
    for (uint32_t i = 0; i < d->n_wraps; i++) {
        assert_true(d->wraps[i].alive);
        assert_true(in_file(d->wraps[i].address, file));
        assert_int_equal((uintptr_t)d->wraps[i].address % (16 << 10), 0);
        assert_int_equal(d->wraps[i].len % (16 << 10), 0);
        wrapped += d->wraps[i].len;
    }
    assert_true(wrapped >= dense);
    assert_true(d->buffer_bytes + wrapped == d->wired_bytes);
    assert_true(d->buffer_bytes < dense / 4);
    if (!MFT_SANITIZED)
        assert_true((uint64_t)(anonymous_kib() - before) * 1024 < dense / 2); /* it is 6 MiB */
    mf_session_close(&session);
    mf_engine_close(&engine);
    assert_string_equal(d->fault, "");
    assert_int_equal(d->n_objects, 0);
}

/* Weights in the mapping are as the file is, so a file that changes is told though nothing was
 * read. */
static void changed_while_mapped(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_error err;
    mf_engine *engine = NULL;
    mf_session *session = NULL;
    mft_tiny spec;
    char file[600], byte;
    int32_t id = 1;
    mf_stats stats[2] = {{.struct_size = sizeof *stats}, {.struct_size = sizeof *stats}};
    mft_tiny_default(&spec);
    const char *dir = pad(mft_tiny_write(&spec));
    snprintf(file, sizeof file, "%s/model.safetensors", dir);
    mf_engine_options o = mft_metal_options(dir);
    mft_ok(mf_engine_open(&engine, &o, &err), &err);
    mft_ok(mf_session_open(&session, engine, &err), &err);
    assert_true(d->n_wraps > 0);
    for (int i = 0; i < 2; i++)
        mft_ok(mf_session_eval(session, &id, 1, NULL, &err), &err);
    mf_engine_stats(engine, &stats[0]);
    int fd = open(file, O_RDWR);
    assert_true(fd >= 0 && pread(fd, &byte, 1, 4096) == 1);
    assert_int_equal(pwrite(fd, &byte, 1, 4096), 1); /* the same: only its time changes */
    close(fd);
    assert_int_equal(mf_session_eval(session, &id, 1, NULL, &err), MF_ERR_FILE_CHANGED);
    assert_non_null(strstr(err.message, file));
    mf_engine_stats(engine, &stats[1]);
    assert_int_equal(stats[0].expert_bytes_read, stats[1].expert_bytes_read);
    mf_session_close(&session);
    mf_engine_close(&engine);
    assert_string_equal(d->fault, "");
}

/* Ranges larger than a buffer are split, between tensors: each has an address in the mapping of its
 * own, and the answer is the same. */
static void split_between_tensors(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mft_tiny spec;
    mft_tiny_default(&spec);
    spec.n_vocab = 3000; /* embedding and head of 750 KiB each, neighbours of smaller ones */
    spec.hidden = 64;
    mf_engine_options o = mft_metal_options(pad(mft_tiny_write(&spec)));
    mft_metal_run want = expect(&o);
    uint32_t n_whole = d->n_wraps;
    uint64_t largest = 0, split = (uint64_t)3000 * 64 * (spec.bf16 ? 2 : 4) + (48 << 10);
    for (uint32_t i = 0; i < n_whole; i++)
        largest = MFI_MAX(largest, d->wraps[i].len);
    assert_true(largest > split);
    d->n_wraps = 0;
    d->max_buf_bytes = split;
    same(&want, expect(&o), "split ranges");
    assert_true(d->n_wraps > n_whole);
    for (uint32_t i = 0; i < d->n_wraps; i++)
        assert_true(d->wraps[i].len <= split);
    free(want.logits);
}

/* A device of small buffers: slots of experts are bounded by them, and so is what a tensor takes.
 */
static void small_buffers(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_engine_options o = mft_metal_options(model());
    mft_metal_run want = expect(&o);
    uint32_t n_whole = d->n_wraps;
    d->max_buf_bytes = 128 << 10;
    refused(&o, MF_ERR_DEVICE, "the 4 experts of a token take 196608 bytes, more than a buffer");
    d->max_buf_bytes = 256 << 10;
    d->n_wraps = 0;
    o.chunk = 2;
    same(&want, expect(&o), "buffers of 256 KiB");
    assert_true(d->n_wraps >= n_whole);
    d->max_buf_bytes = 48 << 10;
    refused(&o, MF_ERR_DEVICE, "is larger than a buffer of the device (49152)");
    free(want.logits);
}

/* Tensors at odd offsets can't be used where they are: they are copied, and the plan says so. */
static void copied(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_error err;
    mft_tiny spec;
    mft_tiny_default(&spec);
    const char *dir = NULL;
    uint64_t head = 0;
    for (spec.n_vocab = 50; head % 4 == 0; spec.n_vocab += 137) { /* until the header is odd */
        dir = mft_tiny_write(&spec);
        size_t len;
        unsigned char *bytes = mft_read(mft_path(dir, "model.safetensors"), &len);
        memcpy(&head, bytes, sizeof head);
        free(bytes);
    }
    mf_engine_options o = mft_metal_options(dir);
    mft_metal_run got = expect(&o);
    assert_int_equal(d->n_wraps, 0);
    mft_metal_run in_place;
    o.model_path = pad(dir);
    mft_ok(mft_metal_eval(&o, N_IDS, &in_place, &err), &err);
    assert_true(d->n_wraps > 0);
    same(&got, in_place, "weights in place");
    free(got.logits);
}

/* ---- budgets ---- */

static void budgets(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_engine_options o = mft_metal_options(model());
    mft_metal_run want = expect(&o);
    char what[128];
    assert_int_equal(want.stats.n_slots, want.stats.n_experts_total);
    assert_int_equal(want.stats.expert_evictions, 0);
    uint64_t slot = mft_plan_number(&o, "slot_bytes");
    uint64_t fixed = mft_plan_number(&o, "vram_total_bytes") - slot * mft_plan_number(&o, "slots");
    static const uint32_t slots[] = {4, 5, 9, 31, 63}, chunks[] = {1, 7, 16, 40};
    for (size_t i = 0; i < 5; i++)
        for (size_t c = 0; c < 4; c++) {
            mf_engine_options less = o;
            if (c != i % 4 && c != 2)
                continue;
            less.chunk = chunks[c];
            fixed =
                mft_plan_number(&less, "vram_total_bytes") - slot * mft_plan_number(&less, "slots");
            less.vram_bytes = fixed + slots[i] * slot;
            d->looks = 1 + (unsigned)(i + c) % 4;
            d->backward = i % 2;
            snprintf(what, sizeof what, "%u slots and chunks of %u", slots[i], chunks[c]);
            mft_metal_run got = expect(&less);
            assert_int_equal(got.stats.n_slots, slots[i]);
            assert_true(got.stats.expert_evictions > 0);
            same(&want, got, what);
        }
    o.vram_bytes = fixed + 3 * slot;
    o.chunk = 40;
    refused(&o, MF_ERR_BUDGET, "the least that works with these options is --vram ");
    o.vram_bytes = 0;
    o.memory_bytes = 8 << 20;
    refused(&o, MF_ERR_BUDGET, "can't hold it; the smallest that works");
    free(want.logits);
}

/* What the plan counts for the device is what the device was asked for, to the byte, but for the
 * driver's 32 MiB. State is whole pages in plans, so there is only attention here, and KV of
 * contexts that fill pages. */
static void plan_counts_all(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    static const struct {
        uint32_t ctx, chunk;
        bool some, latent; /* slots; the model */
    } cases[] = {{128, 16, false, false}, {128, 16, true, false},    {128, 1, true, false},
                 {1024, 3, false, false}, {1024, 700, false, false}, {256, 256, true, false},
                 {1024, 2, false, true},  {1024, 200, false, true}};
    mft_tiny spec;
    mft_tiny_default(&spec);
    spec.interval = 1;
    spec.ctx = 1024;
    spec.n_experts = 32;
    const char *attention = pad(mft_tiny_write(&spec));
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mf_error err;
        mf_engine *engine = NULL;
        mf_session *session = NULL;
        mf_engine_options o = mft_metal_options(
            cases[i].latent ? mft_source("tests/data/latent-tiny/hf-v2-lite") : attention);
        o.ctx = cases[i].ctx;
        o.chunk = cases[i].chunk;
        if (cases[i].some)
            o.vram_bytes =
                mft_plan_number(&o, "vram_total_bytes") - 10 * mft_plan_number(&o, "slot_bytes");
        uint64_t planned = mft_plan_number(&o, "vram_total_bytes") - ((uint64_t)32 << 20);
        mft_ok(mf_engine_open(&engine, &o, &err), &err);
        mft_ok(mf_session_open(&session, engine, &err), &err);
        int32_t id = 7; /* what comes with the first token is there */
        mft_ok(mf_session_eval(session, &id, 1, NULL, &err), &err);
        if (planned != d->wired_bytes)
            fail_msg("a context of %u, chunks of %u: planned %llu bytes, wired %llu", o.ctx,
                     o.chunk, (unsigned long long)planned, (unsigned long long)d->wired_bytes);
        mf_session_close(&session);
        mf_engine_close(&engine);
    }
}

/* The CPU with float activations computes the same, within what docs/numerics.md says. */
static void against_cpu(void **state)
{
    (void)state;
    mft_metal_device();
    mf_engine_options o = mft_metal_options(model());
    mft_metal_run got = expect(&o), want;
    o.device = NULL;
    o.activations = MF_ACTIVATIONS_F32;
    want = expect(&o);
    double sum = 0, sq = 0, most = 0;
    for (size_t i = 0; i < want.n; i++) {
        sum += want.logits[i];
        sq += (double)want.logits[i] * want.logits[i];
        most = fmax(most, fabs((double)got.logits[i] - want.logits[i]));
    }
    double n = (double)want.n, spread = sqrt(sq / n - sum / n * (sum / n));
    printf("  off by %.2g of the spread\n", most / spread);
    assert_true(most <= 2e-4 * spread);
    free(got.logits);
    free(want.logits);
}

/* ---- what can go wrong ---- */

static void no_device(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_engine_options o = mft_metal_options(model());
    d->no_device = true;
    refused(&o, MF_ERR_UNSUPPORTED, "no Metal: there is no device");
    d->no_device = false;
    o.device = "metal:1";
    refused(&o, MF_ERR_UNSUPPORTED, "no Metal: there is no device 1");
    o.device = "metal";
    d->own_memory = true;
    refused(&o, MF_ERR_UNSUPPORTED, "Fake M1 doesn't share memory");
    d->own_memory = false;
    d->old_family = true;
    refused(&o, MF_ERR_UNSUPPORTED, "Fake M1 doesn't share memory");
    d->old_family = false;
    d->no_queue = true;
    refused(&o, MF_ERR_DEVICE, "Metal: Fake M1 gives no command queue");
}

static void kernels_fail(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_engine_options o = mft_metal_options(model());
    d->compile_error = true;
    refused(&o, MF_ERR_DEVICE, "Metal: kernels don't compile: program_source:1:1: error:");
    d->compile_error = false;
    d->missing_kernel = "mfi_rmsnorm";
    refused(&o, MF_ERR_DEVICE, "Metal: there is no kernel mfi_rmsnorm");
    d->missing_kernel = NULL;
    d->broken_kernel = "mfi_combine";
    refused(&o, MF_ERR_DEVICE, "Metal: kernel mfi_combine can't be built: too many registers");
    d->broken_kernel = NULL;
    d->width = 64;
    refused(&o, MF_ERR_UNSUPPORTED, "threads in groups of 32; the device gives 1024 of 64");
    d->width = 32;
    d->threads_max = 16;
    refused(&o, MF_ERR_UNSUPPORTED, "the device gives 16 of 32");
}

/* A failure is the same failure again and again, also once all lists of a ring were used, and
 * nothing is left of it when it is gone. */
static void kernel_fails_often(void **state)
{
    (void)state;
    static const char *const kernels[] = {"mfi_embed", "mfi_combine"};
    mft_metal_state *d = mft_metal_device();
    mf_engine_options o = mft_metal_options(model());
    int32_t ids[2] = {3, 4};
    for (size_t k = 0; k < MFI_ARRAY_LEN(kernels); k++) {
        mf_engine *engine = NULL;
        mf_session *session = NULL;
        mf_error err = {0};
        d->broken_kernel = kernels[k];
        mft_ok(mf_engine_open(&engine, &o, &err), &err);
        mft_ok(mf_session_open(&session, engine, &err), &err);
        for (int i = 0; i < 10; i++) {
            mf_session_reset(session);
            assert_int_equal(mf_session_eval(session, ids, 2, NULL, &err), MF_ERR_DEVICE);
            assert_non_null(strstr(err.message, kernels[k]));
        }
        d->broken_kernel = NULL;
        mf_session_reset(session);
        mft_ok(mf_session_eval(session, ids, 2, NULL, &err), &err);
        mf_session_close(&session);
        mf_engine_close(&engine);
        assert_string_equal(d->fault, "");
        assert_int_equal(d->n_objects, 0);
    }
}

/* Each buffer in turn, until all were had. */
static void buffers_refused(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_engine_options o = mft_metal_options(model());
    mft_metal_run run;
    mf_error err;
    int n = 1;
    for (;; n++) {
        d->refuse_buffer = n;
        mf_status status = mft_metal_eval(&o, 2, &run, &err);
        free(run.logits);
        if (status == MF_OK)
            break;
        assert_int_equal(status, MF_ERR_NO_MEMORY);
        assert_non_null(strstr(err.message, "Metal: no buffer of "));
    }
    assert_true(n > 20);
    d->refuse_buffer = 0;
    for (n = 1; n < 100; n++) {
        d->refuse_wrap = n;
        mf_status status = mft_metal_eval(&o, 2, &run, &err);
        free(run.logits);
        if (status == MF_OK)
            break;
        assert_int_equal(status, MF_ERR_DEVICE);
        assert_non_null(strstr(err.message, "the device refused "));
        assert_non_null(strstr(err.message, "model.safetensors"));
    }
    assert_true(n > 1 && n < 100);
    d->refuse_wrap = 0;
    d->copy_wraps = true;
    refused(&o, MF_ERR_DEVICE, "but by copying them");
}

/* Whichever command buffer is lost, the evaluation fails, and so does every later one. */
static void command_buffers_lost(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_error err;
    mf_engine_options o = mft_metal_options(model());
    uint64_t slot = mft_plan_number(&o, "slot_bytes");
    o.vram_bytes =
        mft_plan_number(&o, "vram_total_bytes") - slot * (mft_plan_number(&o, "slots") - 6);
    int32_t ids[N_IDS] = {0};
    bool ended = false;
    for (int n = 1; !ended; n = n * 3 / 2 + 1) {
        mf_engine *engine = NULL;
        mf_session *session = NULL;
        mft_ok(mf_engine_open(&engine, &o, &err), &err);
        mft_ok(mf_session_open(&session, engine, &err), &err);
        d->lose = n;
        mf_status status = mf_session_eval(session, ids, N_IDS, NULL, &err);
        ended = d->lose > 0;
        if (!ended) {
            assert_int_equal(status, MF_ERR_DEVICE);
            assert_non_null(
                strstr(err.message, "Metal: a command buffer was lost: the device hangs"));
            mf_session_reset(session);
            assert_int_not_equal(mf_session_eval(session, ids, 1, NULL, &err), MF_OK);
        } else {
            mft_ok(status, &err);
        }
        d->lose = 0;
        mf_session_close(&session);
        mf_engine_close(&engine);
        assert_string_equal(d->fault, "");
        assert_int_equal(d->n_objects, 0);
    }
}

/* A device may refuse residency sets, and before macOS 15 there are none, nor modes of maths. */
static void without_residency(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_engine_options o = mft_metal_options(model());
    mft_metal_run want = expect(&o);
    d->no_residency = true;
    same(&want, expect(&o), "no residency sets");
    d->no_residency = false;
    d->macos_14 = true;
    same(&want, expect(&o), "macOS 14");
    free(want.logits);
}

/* Everything has its slot: a token is two command buffers, its pass and its head, and one wait. */
static void no_wait_between_layers(void **state)
{
    (void)state;
    mft_metal_state *d = mft_metal_device();
    mf_error err;
    mf_engine *engine = NULL;
    mf_session *session = NULL;
    mf_engine_options o = mft_metal_options(model());
    int32_t id = 7;
    mft_ok(mf_engine_open(&engine, &o, &err), &err);
    mft_ok(mf_session_open(&session, engine, &err), &err);
    mft_ok(mf_session_eval(session, &id, 1, NULL, &err), &err);
    uint64_t sent = d->n_sent, waits = d->n_waits;
    for (int i = 0; i < 5; i++)
        mft_ok(mf_session_eval(session, &id, 1, NULL, &err), &err);
    assert_int_equal(d->n_sent - sent, 5 * 2);
    assert_true(d->n_waits - waits <= 5 * 2);
    mf_session_close(&session);
    mf_engine_close(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_copy),
        cmocka_unit_test(changed_while_mapped),
        cmocka_unit_test(split_between_tensors),
        cmocka_unit_test(small_buffers),
        cmocka_unit_test(copied),
        cmocka_unit_test(budgets),
        cmocka_unit_test(plan_counts_all),
        cmocka_unit_test(against_cpu),
        cmocka_unit_test(no_device),
        cmocka_unit_test(kernels_fail),
        cmocka_unit_test(kernel_fails_often),
        cmocka_unit_test(buffers_refused),
        cmocka_unit_test(command_buffers_lost),
        cmocka_unit_test(without_residency),
        cmocka_unit_test(no_wait_between_layers),
    };
    return mft_run(tests);
}
