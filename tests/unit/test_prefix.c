/* The prefix cache: what another session or the folder has is not evaluated again, and what follows
 * has the bits of a session that saw nothing else; the folder is never larger than it may be,
 * whatever happens to files and processes. */
#include "fake/support.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"
#include "fake/tiny_latent.h"
#include "fake/tiny_model.h"
#include "session/prefix.h"

enum { CTX = 96, CHUNK = 8, N = 40 };

typedef struct bench {
    mf_engine *engine;
    mf_session *session, *other;
    uint32_t n_vocab;
    int32_t ids[CTX], branch[CTX]; /* branch: differs from N / 2 on */
} bench;

static char attention[512], recurrent[512]; /* models */

static mf_status try_open(bench *b, const char *folder, const char *dir, uint64_t bytes,
                          mf_error *err)
{
    mf_engine_options o;
    mf_model_info info = {.struct_size = sizeof info};
    mf_engine_options_default(&o);
    *b = (bench){0};
    o.model_path = folder;
    o.ctx = CTX;
    o.chunk = CHUNK;
    o.n_threads = 1;
    o.n_sessions = 2;
    o.n_checkpoints = 4;
    o.prefix_dir = dir;
    o.prefix_disk_bytes = bytes;
    mf_status status = mf_engine_open(&b->engine, &o, err);
    if (status != MF_OK)
        return status;
    mft_ok(mf_session_open(&b->session, b->engine, err), err);
    mft_ok(mf_session_open(&b->other, b->engine, err), err);
    mf_engine_info(b->engine, &info);
    b->n_vocab = info.n_vocab;
    for (uint32_t i = 0; i < CTX; i++) {
        b->ids[i] = (int32_t)((i * 37 + 5) % b->n_vocab);
        b->branch[i] = i < N / 2 ? b->ids[i] : (int32_t)((i * 11 + 6) % b->n_vocab);
    }
    return MF_OK;
}

static void open_bench(bench *b, const char *folder, const char *dir, uint64_t bytes)
{
    mf_error err = {0};
    mft_ok(try_open(b, folder, dir, bytes, &err), &err);
}

static void close_bench(bench *b)
{
    mf_session_close(&b->session);
    mf_session_close(&b->other);
    mf_engine_close(&b->engine);
}

/* A fresh folder's name; the cache makes it. */
static const char *fresh_dir(void)
{
    static char path[512];
    static uint32_t n;
    snprintf(path, sizeof path, "%s/kv-%u", mft_tmpdir(), n++);
    return path;
}

static size_t restore(bench *b, const int32_t *ids, size_t n)
{
    mf_error err = {0};
    size_t kept = 999;
    mft_ok(mf_session_restore(b->session, ids, n, &kept, &err), &err);
    assert_int_equal(kept, mf_session_length(b->session));
    assert_memory_equal(mf_session_tokens(b->session), ids, kept * sizeof *ids);
    return kept;
}

/* Evaluates what is left and compares with a session that saw all of it at once. */
static void finish(bench *b, const int32_t *ids, size_t n)
{
    mf_error err = {0};
    size_t kept = mf_session_length(b->session);
    mft_ok(mf_session_eval(b->session, ids + kept, n - kept, NULL, &err), &err);
    mf_session_reset(b->other);
    mft_ok(mf_session_eval(b->other, ids, n, NULL, &err), &err);
    assert_memory_equal(mf_session_logits(b->session), mf_session_logits(b->other),
                        b->n_vocab * sizeof(float));
}

static void evaluate(mf_session *session, const int32_t *ids, size_t n)
{
    mf_error err = {0};
    mf_session_reset(session);
    mft_ok(mf_session_eval(session, ids, n, NULL, &err), &err);
}

static void keep(bench *b)
{
    mf_error err = {0};
    mft_ok(mf_session_keep(b->session, &err), &err);
}

/* Files of the folder and their bytes, the lock left out. */
static uint32_t count(const char *dir, uint64_t *bytes)
{
    DIR *list = opendir(dir);
    uint32_t n = 0;
    *bytes = 0;
    assert_non_null(list);
    for (struct dirent *entry; (entry = readdir(list));) {
        struct stat st;
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "lock") == 0)
            continue;
        assert_int_equal(fstatat(dirfd(list), entry->d_name, &st, 0), 0);
        *bytes += (uint64_t)st.st_size;
        n++;
    }
    closedir(list);
    return n;
}

static void in_memory(void **state)
{
    (void)state;
    bench b;
    open_bench(&b, attention, NULL, 0);
    evaluate(b.other, b.ids, N);
    assert_int_equal(restore(&b, b.branch, N), N / 2);
    finish(&b, b.branch, N);
    evaluate(b.other, b.ids, N);
    assert_int_equal(restore(&b, b.ids, N), N); /* with its logits */
    finish(&b, b.ids, N);
    evaluate(b.other, b.ids, 10);
    assert_int_equal(restore(&b, b.ids, 10), 10); /* the other's logits, not its own cut */
    close_bench(&b);
    open_bench(&b, recurrent, NULL, 0);
    evaluate(b.other, b.ids, N);
    assert_int_equal(restore(&b, b.branch, N), 16); /* the checkpoint before 20 */
    finish(&b, b.branch, N);
    close_bench(&b);
}

/* Over engines; what was cut where, says whether the model can be cut. */
static void on_disk(const char *model, bool cuts)
{
    bench b;
    uint64_t bytes;
    const char *dir = fresh_dir();
    open_bench(&b, model, dir, 0);
    evaluate(b.session, b.ids, N);
    keep(&b);
    keep(&b); /* it is there already */
    uint32_t n_files = count(dir, &bytes);
    assert_int_equal(n_files, cuts ? 1 : 2); /* the last checkpoint, too */
    close_bench(&b);
    open_bench(&b, model, dir, 0);
    assert_int_equal(restore(&b, b.ids, N), N);
    finish(&b, b.ids, N);
    mf_session_reset(b.session);
    mf_session_reset(b.other);
    assert_int_equal(restore(&b, b.ids, N + 9), N);
    finish(&b, b.ids, N + 9);
    mf_session_reset(b.session);
    mf_session_reset(b.other);
    assert_int_equal(restore(&b, b.branch, N), cuts ? N / 2 : 0);
    finish(&b, b.branch, N);
    mf_session_reset(b.session);
    mf_session_reset(b.other);
    assert_int_equal(restore(&b, b.ids, 12), cuts ? 11 : 0); /* its logits are nowhere */
    finish(&b, b.ids, 12);
    /* A longer timeline takes the place of what it begins with. */
    mf_session_reset(b.other);
    restore(&b, b.ids, N + 9);
    finish(&b, b.ids, N + 9);
    keep(&b);
    assert_int_equal(count(dir, &bytes), cuts ? 1 : 4);
    close_bench(&b);
}

static void files(void **state)
{
    (void)state;
    on_disk(attention, true);
    on_disk(recurrent, false);
}

static void within_budget(void **state)
{
    (void)state;
    bench b;
    mfi_rng rng = {(uint64_t)time(NULL)};
    uint64_t bytes, one, max;
    const char *dir = fresh_dir();
    print_message("seed %llu\n", (unsigned long long)rng.state);
    open_bench(&b, attention, dir, 0);
    evaluate(b.session, b.ids, N);
    keep(&b);
    assert_int_equal(count(dir, &one), 1);
    close_bench(&b);
    max = 3 * one + one / 2;
    open_bench(&b, attention, dir, max);
    for (uint32_t i = 0; i < 30; i++) {
        size_t n = 20 + mfi_rng_below(&rng, 30);
        b.branch[0] = (int32_t)(i % b.n_vocab);
        evaluate(b.session, b.branch, n);
        keep(&b);
        count(dir, &bytes);
        assert_true(bytes <= max);
        evaluate(b.other, b.ids, 1);
        mf_session_reset(b.session);
        assert_int_equal(restore(&b, b.branch, n), n); /* the last one stays */
    }
    assert_true(count(dir, &bytes) >= 2);
    close_bench(&b);
    open_bench(&b, attention, dir, one); /* less than there is */
    count(dir, &bytes);
    assert_true(bytes <= one);
    close_bench(&b);
    open_bench(&b, attention, dir, 1000); /* too little for any */
    evaluate(b.session, b.ids, N);
    keep(&b);
    assert_int_equal(count(dir, &bytes), 0);
    close_bench(&b);
}

/* What is of use again and again outlasts what was never. */
static void by_value(void **state)
{
    (void)state;
    bench b;
    uint64_t one;
    const char *dir = fresh_dir();
    open_bench(&b, attention, dir, 0);
    evaluate(b.session, b.ids, N);
    keep(&b);
    assert_int_equal(count(dir, &one), 1);
    close_bench(&b);
    open_bench(&b, attention, dir, 3 * one);
    for (uint32_t i = 0; i < 4; i++) {
        mf_session_reset(b.session);
        mf_session_reset(b.other);
        assert_int_equal(restore(&b, b.ids, N + 1), N);
    }
    for (uint32_t i = 0; i < 3; i++) { /* two of them find room */
        b.branch[0] = (int32_t)(b.ids[0] + 1 + (int32_t)i) % (int32_t)b.n_vocab;
        evaluate(b.session, b.branch, N);
        keep(&b);
    }
    mf_session_reset(b.session);
    mf_session_reset(b.other);
    assert_int_equal(restore(&b, b.branch, N), N);
    mf_session_reset(b.session);
    assert_int_equal(restore(&b, b.ids, N), N);
    b.branch[0] = (b.ids[0] + 1) % (int32_t)b.n_vocab;
    mf_session_reset(b.session);
    assert_int_equal(restore(&b, b.branch, N), 0); /* the first of them has gone */
    close_bench(&b);
}

static void damage(const char *dir, long at)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/0000000000000000.mfx", dir);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    int byte = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(byte ^ 1, f);
    assert_int_equal(fclose(f), 0);
}

static void damaged(void **state)
{
    (void)state;
    bench b;
    uint64_t bytes;
    static const long places[] = {50, 128 + N * 4 + 100}; /* header: seen at open; state */
    for (size_t i = 0; i < MFI_ARRAY_LEN(places); i++) {
        const char *dir = fresh_dir();
        open_bench(&b, attention, dir, 0);
        evaluate(b.session, b.ids, N);
        keep(&b);
        close_bench(&b);
        damage(dir, places[i]);
        open_bench(&b, attention, dir, 0);
        assert_int_equal(count(dir, &bytes), i);
        evaluate(b.session, b.ids, 2); /* what it has itself serves instead */
        assert_int_equal(restore(&b, b.ids, N), 2);
        finish(&b, b.ids, N);
        assert_int_equal(count(dir, &bytes), 0);
        close_bench(&b);
    }
}

/* A file that can't be opened now says nothing bad of itself: it stays, and so does its name. */
static void unreadable(void **state)
{
    (void)state;
    bench b;
    mf_error err = {0};
    mfi_prefix_cache *cache = NULL;
    struct rlimit before, small;
    uint64_t bytes;
    const char *dir = fresh_dir();
    open_bench(&b, attention, dir, 0);
    evaluate(b.session, b.ids, N);
    keep(&b);
    close_bench(&b);
    int next = dup(0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    small = before;
    small.rlim_cur = (rlim_t)next + 2; /* the lock and the folder */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
    mf_status status = mfi_prefix_open(&cache, dir, MFI_GIB, &err);
    mfi_prefix_close(&cache);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    mft_ok(status, &err);
    assert_int_equal(count(dir, &bytes), 1);
    open_bench(&b, attention, dir, 0);
    assert_int_equal(restore(&b, b.ids, N), N);
    close_bench(&b);
}

/* One engine at a time; other models' files are left alone, and so are other files. */
static void shared(void **state)
{
    (void)state;
    bench a, b;
    mf_error err = {0};
    uint64_t bytes;
    char path[1024];
    const char *dir = fresh_dir();
    open_bench(&a, attention, dir, 0);
    assert_int_equal(try_open(&b, attention, dir, 0, &err), MF_ERR_STATE);
    evaluate(a.session, a.ids, N);
    keep(&a);
    close_bench(&a);
    snprintf(path, sizeof path, "%s/notes.txt", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    open_bench(&b, recurrent, dir, 0);
    assert_int_equal(restore(&b, b.ids, N), 0);
    assert_int_equal(count(dir, &bytes), 2);
    close_bench(&b);
    open_bench(&a, attention, dir, 0);
    assert_int_equal(restore(&a, a.ids, N), N);
    close_bench(&a);
}

static void full(void **state)
{
    (void)state;
    bench b;
    mf_error err = {0};
    uint64_t bytes;
    struct rlimit before, small;
    const char *dir = fresh_dir();
    open_bench(&b, attention, dir, 0);
    evaluate(b.session, b.ids, N);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 3000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    mf_status status = mf_session_keep(b.session, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, MF_ERR_DISK_FULL);
    assert_int_equal(count(dir, &bytes), 0);
    finish(&b, b.ids, N + 3);
    keep(&b);
    assert_int_equal(count(dir, &bytes), 1);
    close_bench(&b);
}

/* A file that can't get its name takes nothing from those that are there. */
static void no_name(void **state)
{
    (void)state;
    bench b;
    mf_error err = {0};
    char path[600];
    const char *dir = fresh_dir();
    open_bench(&b, attention, dir, 0);
    evaluate(b.session, b.ids, N);
    keep(&b);
    snprintf(path, sizeof path, "%s/%016x.mfx", dir, 1); /* the next one's */
    assert_int_equal(mkdir(path, 0700), 0);
    evaluate(b.session, b.ids, N + 3);
    assert_int_equal(mf_session_keep(b.session, &err), MF_ERR_IO);
    assert_int_equal(rmdir(path), 0);
    mf_session_reset(b.session);
    assert_int_equal(restore(&b, b.ids, N + 3), N);
    close_bench(&b);
    open_bench(&b, attention, dir, 0);
    assert_int_equal(restore(&b, b.ids, N + 3), N);
    keep(&b);
    close_bench(&b);
}

/* In pieces of any size, while another session evaluates: the same file; given up: none. */
static void in_pieces(void **state)
{
    (void)state;
    const char *models[] = {attention, recurrent};
    for (uint32_t m = 0; m < 2; m++) {
        uint64_t whole = 0, bytes;
        for (uint64_t piece = 0; piece < 4; piece++) {
            static const size_t sizes[] = {SIZE_MAX, 1, 777, 4096};
            const char *dir = fresh_dir();
            bench b;
            mf_error err = {0};
            mf_keeping *k = NULL;
            bool done = false;
            uint32_t n_steps = 0;
            open_bench(&b, models[m], dir, 1 << 20);
            evaluate(b.session, b.ids, N);
            mft_ok(mf_keeping_begin(&k, b.session, &err), &err);
            assert_non_null(k);
            mf_generation *g = NULL;
            mf_generate_options o;
            mf_generate_options_default(&o);
            assert_int_equal(mf_generation_begin(&g, b.session, &o, &err), MF_ERR_STATE);
            evaluate(b.other, b.ids + 1, N - 2);
            mft_ok(mf_keeping_write(k, sizes[piece], &done, &err), &err);
            if (piece == 1) { /* given up */
                assert_false(done);
                mft_ok(mf_keeping_end(&k, &err), &err);
                assert_int_equal(count(dir, &bytes), 0);
                mft_ok(mf_keeping_begin(&k, b.session, &err), &err);
                done = false;
            }
            while (!done && ++n_steps)
                mft_ok(mf_keeping_write(k, sizes[piece], &done, &err), &err);
            mft_ok(mf_keeping_end(&k, &err), &err);
            assert_true(piece == 0 || piece == 3 || n_steps > 3);
            assert_true(count(dir, &bytes) > 0);
            whole = piece ? whole : bytes;
            assert_int_equal(bytes, whole);
            mft_ok(mf_keeping_begin(&k, b.session, &err), &err);
            assert_null(k); /* there already */
            close_bench(&b);
            open_bench(&b, models[m], dir, 1 << 20);
            assert_true(restore(&b, b.ids, N + 3) > 0);
            finish(&b, b.ids, N + 3);
            close_bench(&b);
        }
    }
}

static void keep_for_ever(const char *dir, uint64_t max, int ready)
{
    bench b;
    mf_error err = {0};
    if (try_open(&b, attention, dir, max, &err) != MF_OK)
        _exit(1);
    for (uint32_t i = 0;; i++) {
        b.ids[0] = (int32_t)(i % 7);
        mf_session_reset(b.session);
        if (mf_session_eval(b.session, b.ids, 20 + i % 20, NULL, &err) != MF_OK ||
            mf_session_keep(b.session, &err) != MF_OK || write(ready, "x", 1) != 1)
            _exit(2);
    }
}

static void killed(void **state)
{
    (void)state;
    bench b;
    mfi_rng rng = {(uint64_t)time(NULL)};
    const char *dir = fresh_dir();
    uint64_t max = 100000, bytes;
    for (uint32_t round = 0; round < 6; round++) {
        int ready[2], how;
        char x[4];
        assert_int_equal(pipe(ready), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            keep_for_ever(dir, max, ready[1]);
        close(ready[1]);
        assert_int_equal(read(ready[0], x, 1), 1);
        usleep((useconds_t)mfi_rng_below(&rng, 8000));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &how, 0), pid);
        assert_true(WIFSIGNALED(how)); /* it had no failure */
        close(ready[0]);
        count(dir, &bytes);
        assert_true(bytes <= max);
        open_bench(&b, attention, dir, max);
        b.ids[0] = 0; /* the first that was kept */
        restore(&b, b.ids, N);
        finish(&b, b.ids, N);
        DIR *list = opendir(dir);
        for (struct dirent *entry; (entry = readdir(list));)
            assert_null(strstr(entry->d_name, ".tmp-"));
        closedir(list);
        close_bench(&b);
    }
}

int main(void)
{
    mft_latent latent;
    mft_tiny tiny;
    mft_latent_default(&latent);
    mft_tiny_default(&tiny);
    snprintf(attention, sizeof attention, "%s", mft_latent_write(&latent));
    snprintf(recurrent, sizeof recurrent, "%s", mft_tiny_write(&tiny));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed),   cmocka_unit_test(in_memory),     cmocka_unit_test(files),
        cmocka_unit_test(by_value), cmocka_unit_test(within_budget), cmocka_unit_test(damaged),
        cmocka_unit_test(shared),   cmocka_unit_test(full),          cmocka_unit_test(in_pieces),
        cmocka_unit_test(no_name),  cmocka_unit_test(unreadable),
    };
    return mft_run(tests);
}
