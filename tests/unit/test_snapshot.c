/* Snapshots: what was saved goes on with the same bits in another engine; whatever is wrong or
 * damaged is refused and changes nothing; a full drive and a killed process leave the old file. */
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

#include "base/checksum.h"
#include "base/rng.h"
#include "fake/oss_model.h"
#include "fake/tiny_latent.h"
#include "fake/tiny_model.h"

enum { CTX = 96, N = 37 };

typedef struct bench {
    mf_engine *engine;
    mf_session *session;
    uint32_t n_vocab;
    int32_t ids[CTX];
} bench;

static mf_cache_type cache_type; /* of the engines to come */

static void open_with(bench *b, const char *folder, uint32_t chunk, const char *isa)
{
    mf_error err = {0};
    mf_engine_options o;
    mf_model_info info = {.struct_size = sizeof info};
    mf_engine_options_default(&o);
    *b = (bench){0};
    o.model_path = folder;
    o.ctx = chunk == 8 ? CTX : 64;
    o.chunk = chunk;
    o.n_threads = 1;
    o.isa = isa;
    o.cache_type_k = o.cache_type_v = cache_type;
    mft_ok(mf_engine_open(&b->engine, &o, &err), &err);
    mft_ok(mf_session_open(&b->session, b->engine, &err), &err);
    mf_engine_info(b->engine, &info);
    b->n_vocab = info.n_vocab;
    for (uint32_t i = 0; i < CTX; i++)
        b->ids[i] = (int32_t)((i * 37 + 5) % b->n_vocab);
}

static void open_bench(bench *b, const char *folder, uint32_t chunk)
{
    open_with(b, folder, chunk, NULL);
}

static void close_bench(bench *b)
{
    mf_session_close(&b->session);
    mf_engine_close(&b->engine);
}

static void eval(bench *b, uint32_t from, uint32_t to)
{
    mf_error err = {0};
    mft_ok(mf_session_eval(b->session, b->ids + from, to - from, NULL, &err), &err);
}

static float *logits_of(bench *b)
{
    float *copy = malloc(b->n_vocab * sizeof *copy);
    assert_non_null(mf_session_logits(b->session));
    memcpy(copy, mf_session_logits(b->session), b->n_vocab * sizeof *copy);
    return copy;
}

static void same_logits(bench *b, const float *want)
{
    assert_non_null(mf_session_logits(b->session));
    assert_memory_equal(mf_session_logits(b->session), want, b->n_vocab * sizeof *want);
}

static const char *path_in(const char *dir, const char *name)
{
    static char path[2][512];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

/* ---- there and back ---- */

static void round_trip(const char *folder)
{
    bench a, b;
    mf_error err = {0};
    char path[512];
    snprintf(path, sizeof path, "%s", path_in(mft_tmpdir(), "s"));
    open_bench(&a, folder, 8);
    assert_int_equal(mf_session_save(a.session, path, &err), MF_ERR_STATE);
    eval(&a, 0, N);
    float *at = logits_of(&a);
    mft_ok(mf_session_save(a.session, path, &err), &err);
    same_logits(&a, at);
    eval(&a, N, N + 9);
    float *after = logits_of(&a);
    mft_ok(mf_session_save(a.session, path, &err), &err); /* in place of the first */
    mft_ok(mf_session_load(a.session, path, &err), &err);
    same_logits(&a, after);
    close_bench(&a);

    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    open_bench(&b, folder, 3); /* another chunk and context: rings of another length */
    eval(&b, 50, 60);
    mft_ok(mf_session_load(b.session, path, &err), &err);
    assert_int_equal(mf_session_length(b.session), N + 9);
    assert_memory_equal(mf_session_tokens(b.session), b.ids, (N + 9) * sizeof *b.ids);
    same_logits(&b, after);
    eval(&b, N + 9, N + 14);
    float *further = logits_of(&b);
    mf_session_reset(b.session);
    eval(&b, 0, N + 14);
    same_logits(&b, further);
    mf_session_reset(b.session);
    eval(&b, 0, N);
    same_logits(&b, at);
    free(at);
    free(after);
    free(further);
    close_bench(&b);
}

static void there_and_back(void **state)
{
    (void)state;
    mft_tiny tiny;
    mft_oss oss;
    mft_latent latent;
    mft_tiny_default(&tiny);
    mft_oss_default(&oss);
    mft_latent_default(&latent);
    round_trip(mft_tiny_write(&tiny));
    round_trip(mft_oss_write(&oss));
    round_trip(mft_latent_write(&latent));
    cache_type = MF_CACHE_F16;
    round_trip(mft_tiny_write(&tiny));
    round_trip(mft_oss_write(&oss));
    cache_type = MF_CACHE_F32;
}

/* ---- refusals ---- */

static unsigned char *read_bytes(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    unsigned char *bytes = malloc(1 << 20);
    *n = fread(bytes, 1, 1 << 20, f);
    assert_true(*n < 1 << 20);
    fclose(f);
    return bytes;
}

static void write_bytes(const char *path, const unsigned char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* The file is refused; a session with tokens goes on as if nothing had been, an empty one stays
 * empty. */
static mf_status refused(bench *b, const char *path, const float *want)
{
    mf_error err = {0};
    mf_session_reset(b->session);
    mf_status status = mf_session_load(b->session, path, &err);
    assert_int_not_equal(status, MF_OK);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(mf_session_length(b->session), 0);
    eval(b, 0, 5);
    assert_int_equal(mf_session_load(b->session, path, &err), status);
    assert_int_equal(mf_session_length(b->session), 5);
    eval(b, 5, 9);
    same_logits(b, want);
    return status;
}

static void damaged(void **state)
{
    (void)state;
    bench b;
    mf_error err = {0};
    mft_tiny tiny;
    size_t n;
    char path[512], bad[512];
    mfi_rng rng = {(uint64_t)time(NULL)};
    print_message("seed %llu\n", (unsigned long long)rng.state);
    snprintf(path, sizeof path, "%s", path_in(mft_tmpdir(), "good"));
    snprintf(bad, sizeof bad, "%s", path_in(mft_tmpdir(), "bad"));
    mft_tiny_default(&tiny);
    open_bench(&b, mft_tiny_write(&tiny), 8);
    eval(&b, 0, 9);
    float *want = logits_of(&b);
    mf_session_reset(b.session);
    eval(&b, 0, N);
    mft_ok(mf_session_save(b.session, path, &err), &err);
    unsigned char *bytes = read_bytes(path, &n);
    for (size_t percent = 0; percent < 100; percent++) {
        write_bytes(bad, bytes, n * percent / 100);
        assert_int_equal(refused(&b, bad, want), MF_ERR_FORMAT);
    }
    bytes[n] = 0;
    write_bytes(bad, bytes, n + 1);
    assert_int_equal(refused(&b, bad, want), MF_ERR_FORMAT);
    for (uint32_t i = 0; i < 300; i++) { /* every byte of the header, and others */
        size_t at = i < 128 ? i : mfi_rng_below(&rng, n);
        bytes[at] ^= (unsigned char)(1u << mfi_rng_below(&rng, 8));
        write_bytes(bad, bytes, n);
        refused(&b, bad, want);
        memcpy(bytes, read_bytes(path, &n), n);
    }
    /* Headers whose checksum is right, but nothing else: version, tokens, state. */
    static const uint32_t at[] = {12, 40, 43, 44, 48, 55, 111, 112};
    for (size_t i = 0; i < MFI_ARRAY_LEN(at); i++) {
        bytes[at[i]] ^= 0x40;
        uint64_t sum = mfi_checksum_of(bytes, 120);
        memcpy(bytes + 120, &sum, sizeof sum);
        write_bytes(bad, bytes, n);
        assert_int_equal(refused(&b, bad, want), MF_ERR_FORMAT);
        bytes[at[i]] ^= 0x40;
    }
    bytes[8] = 2;
    write_bytes(bad, bytes, n);
    assert_int_equal(refused(&b, bad, want), MF_ERR_UNSUPPORTED);
    assert_int_equal(refused(&b, path_in(mft_tmpdir(), "none"), want), MF_ERR_FILE_MISSING);
    free(bytes);
    free(want);
    close_bench(&b);
}

/* Of a model that differs in nothing but its weights' values, and of other kernels. */
static void foreign(void **state)
{
    (void)state;
    bench a, b;
    mf_error err = {0};
    mft_tiny tiny;
    char path[512];
    snprintf(path, sizeof path, "%s", path_in(mft_tmpdir(), "s"));
    mft_tiny_default(&tiny);
    const char *folder = strdup(mft_tiny_write(&tiny));
    open_bench(&a, folder, 8);
    eval(&a, 0, N);
    mft_ok(mf_session_save(a.session, path, &err), &err);
    close_bench(&a);
    tiny.seed++;
    open_bench(&b, mft_tiny_write(&tiny), 8);
    eval(&b, 0, 9);
    float *want = logits_of(&b);
    assert_int_equal(refused(&b, path, want), MF_ERR_STATE);
    free(want);
    close_bench(&b);
    open_with(&b, folder, 8, "c");
    mf_model_info info = {.struct_size = sizeof info};
    open_bench(&a, folder, 8);
    mf_engine_info(a.engine, &info);
    eval(&b, 0, 9);
    want = logits_of(&b);
    if (strcmp(info.isa, "c") != 0)
        assert_int_equal(refused(&b, path, want), MF_ERR_STATE);
    close_bench(&b);
    cache_type = MF_CACHE_F16;
    open_with(&b, folder, 8, NULL);
    cache_type = MF_CACHE_F32;
    eval(&b, 0, 9);
    free(want);
    want = logits_of(&b);
    assert_int_equal(refused(&b, path, want), MF_ERR_STATE);
    /* What is whole, but longer than the context. */
    close_bench(&b);
    eval(&a, 0, 70);
    mft_ok(mf_session_save(a.session, path, &err), &err);
    open_bench(&b, folder, 3);
    eval(&b, 0, 9);
    free(want);
    want = logits_of(&b);
    assert_int_equal(refused(&b, path, want), MF_ERR_CONTEXT);
    free(want);
    free((char *)folder);
    close_bench(&a);
    close_bench(&b);
}

/* ---- full drives and sudden ends ---- */

static uint32_t count_files(const char *dir)
{
    DIR *list = opendir(dir);
    uint32_t n = 0;
    assert_non_null(list);
    for (struct dirent *entry; (entry = readdir(list));)
        n += entry->d_name[0] != '.';
    closedir(list);
    return n;
}

static void full(void **state)
{
    (void)state;
    bench b;
    mf_error err = {0};
    mft_tiny tiny;
    char path[512];
    struct rlimit before, small;
    size_t n, n_after;
    char dir[400];
    snprintf(dir, sizeof dir, "%s", mft_tmpdir());
    snprintf(path, sizeof path, "%s", path_in(dir, "s"));
    mft_tiny_default(&tiny);
    open_bench(&b, mft_tiny_write(&tiny), 8);
    eval(&b, 0, 10);
    mft_ok(mf_session_save(b.session, path, &err), &err);
    unsigned char *bytes = read_bytes(path, &n), *after;
    uint32_t n_files = count_files(dir);
    eval(&b, 10, N);
    float *want = logits_of(&b);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    for (small.rlim_cur = 0; small.rlim_cur < n; small.rlim_cur += 1 + n / 5) {
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        mf_status status = mf_session_save(b.session, path, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_int_equal(status, MF_ERR_DISK_FULL);
        after = read_bytes(path, &n_after);
        assert_int_equal(n, n_after);
        assert_memory_equal(bytes, after, n);
        free(after);
        same_logits(&b, want);
    }
    /* Nothing is left beside it. */
    assert_int_equal(count_files(dir), n_files);
    free(bytes);
    free(want);
    close_bench(&b);
}

/* Saves states of 11 and of N tokens in turn until it is killed. */
static void save_for_ever(const char *folder, const char *path, int ready)
{
    bench b;
    mf_error err = {0};
    open_bench(&b, folder, 8);
    for (;;) {
        for (uint32_t i = 0; i < 2; i++) {
            mf_session_reset(b.session);
            if (mf_session_eval(b.session, b.ids, i ? N : 11, NULL, &err) != MF_OK ||
                mf_session_save(b.session, path, &err) != MF_OK)
                _exit(1);
            if (write(ready, "x", 1) != 1)
                _exit(2);
        }
    }
}

static void killed(void **state)
{
    (void)state;
    bench b;
    mf_error err = {0};
    mft_tiny tiny;
    char path[512], folder[512];
    mfi_rng rng = {(uint64_t)time(NULL)};
    snprintf(path, sizeof path, "%s", path_in(mft_tmpdir(), "s"));
    mft_tiny_default(&tiny);
    snprintf(folder, sizeof folder, "%s", mft_tiny_write(&tiny));
    for (uint32_t round = 0; round < 8; round++) {
        int ready[2], how;
        char x;
        assert_int_equal(pipe(ready), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            save_for_ever(folder, path, ready[1]);
        close(ready[1]);
        assert_int_equal(read(ready[0], &x, 1), 1); /* one file is there */
        usleep((useconds_t)mfi_rng_below(&rng, 5000));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &how, 0), pid);
        assert_true(WIFSIGNALED(how));
        close(ready[0]);
        open_bench(&b, folder, 8);
        mft_ok(mf_session_load(b.session, path, &err), &err);
        size_t n = mf_session_length(b.session);
        assert_true(n == 11 || n == N);
        float *got = logits_of(&b);
        mf_session_reset(b.session);
        eval(&b, 0, (uint32_t)n);
        same_logits(&b, got);
        free(got);
        close_bench(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed),  cmocka_unit_test(there_and_back), cmocka_unit_test(damaged),
        cmocka_unit_test(foreign), cmocka_unit_test(full),
    };
    return mft_run(tests);
}
