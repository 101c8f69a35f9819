/* The memory budget is a promise: the program's highest resident set stays within --memory in every
 * phase, what is printed as the smallest budget works and less is refused, and the page cache holds
 * afterwards what it held before. Measured from outside: wait4, mincore, control groups. */
#include "fake/support.h"
#include "fake/model_files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "base/rng.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                               \
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define MAX_ARGS 32

typedef struct result {
    int code; /* exit status, or -signal */
    uint64_t peak;
    char err[4096];
} result;

static void read_text(const char *path, char *text, size_t cap)
{
    text[0] = 0;
    FILE *f = fopen(path, "r");
    if (!f)
        return;
    text[fread(text, 1, cap - 1, f)] = 0;
    fclose(f);
}

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return ok;
}

static const char *out_path(void)
{
    return mft_path(mft_tmpdir(), "stdout");
}

/* Starts the program; `words` are separated by spaces. group: a folder of a control group, or NULL.
 */
static pid_t start(const char *words, const char *group)
{
    static char text[2048], out[512], err[512];
    char *argv[MAX_ARGS] = {(char *)MF_CLI_BIN};
    size_t n = 1;
    snprintf(text, sizeof text, "%s", words);
    for (char *save, *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        assert_true(n + 1 < MAX_ARGS);
        argv[n++] = w;
    }
    snprintf(out, sizeof out, "%s", out_path());
    snprintf(err, sizeof err, "%s/stderr", mft_tmpdir());
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char procs[600];
        if (group) {
            snprintf(procs, sizeof procs, "%s/cgroup.procs", group);
            if (!write_text(procs, "0"))
                _exit(126);
        }
        int o = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600),
            e = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(o, 1);
        dup2(e, 2);
        execv(argv[0], argv);
        _exit(127);
    }
    return pid;
}

static void finish(pid_t pid, result *r)
{
    int status;
    struct rusage usage;
    assert_int_equal(wait4(pid, &status, 0, &usage), pid);
    r->code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    r->peak = (uint64_t)usage.ru_maxrss * MFI_KIB;
    char path[512];
    snprintf(path, sizeof path, "%s/stderr", mft_tmpdir());
    read_text(path, r->err, sizeof r->err);
}

static result run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static result run(const char *fmt, ...)
{
    char words[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(words, sizeof words, fmt, args);
    va_end(args);
    result r;
    finish(start(words, NULL), &r);
    return r;
}

/* Parses what the last run printed. */
static mfi_json *printed(void)
{
    size_t len;
    mf_error err;
    mfi_json *json = NULL;
    char *text = (char *)mft_read(out_path(), &len);
    mft_ok(mfi_json_parse(text, len, "plan", &json, &err), &err);
    free(text);
    return json;
}

static uint64_t plan_number(const char *model, uint64_t mib, const char *options, const char *key)
{
    int64_t n = 0;
    run("plan -m %s --memory %" PRIu64 "M --json %s", model, mib, options);
    mfi_json *json = printed();
    assert_true(mfi_json_i64(mfi_json_get(json, key), &n));
    mfi_json_free(&json);
    return (uint64_t)n;
}

static const char *ids_file(uint32_t n)
{
    static char path[512];
    mfi_rng rng = {n};
    snprintf(path, sizeof path, "%s/ids", mft_tmpdir());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (uint32_t i = 0; i < n; i++)
        fprintf(f, "%u ", (uint32_t)mfi_rng_below(&rng, 250));
    fclose(f);
    return path;
}

static void holds(const result *r, uint64_t mib, const char *what)
{
    if (r->code != 0)
        fail_msg("%s in %" PRIu64 " MiB: ended with %d: %s", what, mib, r->code, r->err);
    if (r->peak > mib * MFI_MIB)
        fail_msg("%s: a peak of %.2f MiB in a budget of %" PRIu64, what, (double)r->peak / MFI_MIB,
                 mib);
    print_message("%s: %.2f of %" PRIu64 " MiB\n", what, (double)r->peak / MFI_MIB, mib);
}

static result logits(const char *model, uint64_t mib, uint32_t n_ids, const char *options)
{
    const char *dir = mft_tmpdir();
    return run("logits -m %s --ids %s -o %s/l --hidden %s/h --memory %" PRIu64 "M %s", model,
               ids_file(n_ids), dir, dir, mib, options);
}

/* ---- the floor ---- */

/* One MiB less is refused, with a number that works. The process differs by some pages from run to
 * run, so the border may move by one: then the plan must say so, too. */
static void floor_of(const char *model, uint32_t n_ids, const char *options)
{
    char what[256];
    uint64_t floor = plan_number(model, 1024, options, "floor_bytes") / MFI_MIB;
    snprintf(what, sizeof what, "%s %s", strrchr(model, '/') + 1, options);
    result r = logits(model, floor - 1, n_ids, options);
    if (r.code == 0) {
        holds(&r, floor - 1, what);
        assert_true(plan_number(model, 1024, options, "floor_bytes") / MFI_MIB <= floor);
        r = logits(model, floor - 2, n_ids, options);
    }
    assert_int_equal(r.code, 4);
    const char *number = strstr(r.err, "options is ");
    assert_non_null(number);
    uint64_t said = strtoull(number + strlen("options is "), NULL, 10);
    assert_in_range(said, floor - 1, floor + 1);
    r = logits(model, said, n_ids, options);
    holds(&r, said, what);
}

static void floors(const char *model)
{
    floor_of(model, 40, "-c 256");
    floor_of(model, 100, "-c 256 --chunk 64 -t 3");
    floor_of(model, 100, "-c 4096");
    floor_of(model, 64, "-c 64 -t 64 --isa c");
    floor_of(model, 64, "-c 64 --io-threads 32 --activations f32");
}

static void floor_works_and_less_is_refused(void **state)
{
    (void)state;
    if (SANITIZED)
        mft_skip("sanitizers take memory of their own");
    floors(mft_source("models/pocket-dictionary"));
    const char *oracle = mft_oracle("hf/qwen3_5_moe_text");
    if (oracle)
        floors(oracle);
}

/* ---- phases ---- */

static void every_phase_holds(void **state)
{
    (void)state;
    static const uint64_t mibs[] = {18, 24, 40, 4096};
    if (SANITIZED)
        mft_skip("sanitizers take memory of their own");
    const char *model = mft_source("models/pocket-dictionary");
    for (size_t i = 0; i < MFI_ARRAY_LEN(mibs); i++) {
        result r = logits(model, mibs[i], 160, "");
        holds(&r, mibs[i], "logits and hidden states");
        r = run("run -m %s -p lighthouse --raw --ignore-eos -s 1 -c 96 --memory %" PRIu64 "M",
                model, mibs[i]);
        holds(&r, mibs[i], "decoding until the context is full");
        assert_non_null(strstr(r.err, "context"));
    }
    const char *oracle = mft_oracle("hf/qwen3_5_moe_text");
    for (uint64_t mib = 16; oracle && mib <= 64; mib *= 2) {
        result r = logits(oracle, mib, 700, mib == 16 ? "" : "-c 4096 --chunk 100");
        holds(&r, mib, "the oracle's model");
    }
}

/* Inputs far larger than what the model can take: refused within the budget, or because of it. */
static void large_inputs_hold(void **state)
{
    (void)state;
    if (SANITIZED)
        mft_skip("sanitizers take memory of their own");
    const char *model = mft_source("models/pocket-dictionary");
    char path[512];
    snprintf(path, sizeof path, "%s/prompt", mft_tmpdir());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 200000; i++)
        fprintf(f, "lighthouse %d ", i);
    fclose(f);
    result r = run("run -m %s -f %s -s 1 --memory 24M", model, path);
    assert_int_equal(r.code, 1);
    assert_in_range(r.peak, 1, 24 * MFI_MIB);
    r = run("run -m %s -f %s -s 1 --memory 24M --raw", model, path);
    assert_int_equal(r.code, 1);
    assert_in_range(r.peak, 1, 24 * MFI_MIB);
    r = run("logits -m %s --ids %s -o %s/l --memory 24M", model, ids_file(4000000), mft_tmpdir());
    assert_true(r.code == 4 || r.code == 2);
}

/* ---- page cache ---- */

static uint64_t resident_of(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = ((size_t)st.st_size + page - 1) / page,
           count = 0;
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    unsigned char *vec = malloc(n);
    assert_true(map != MAP_FAILED && vec);
    assert_int_equal(mincore(map, (size_t)st.st_size, (void *)vec), 0);
    for (size_t i = 0; i < n; i++)
        count += vec[i] & 1;
    free(vec);
    munmap(map, (size_t)st.st_size);
    close(fd);
    return count * page;
}

static const char *const copied[] = {"config.json", "generation_config.json", "model.safetensors",
                                     "tokenizer.json", "tokenizer_config.json"};

static uint64_t resident_folder(const char *dir)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < MFI_ARRAY_LEN(copied); i++)
        sum += resident_of(mft_path(dir, copied[i]));
    return sum;
}

/* A copy of the model that nobody has in memory. */
static const char *cold_copy(const char *model)
{
    const char *dir = mft_folder();
    for (size_t i = 0; i < MFI_ARRAY_LEN(copied); i++) {
        /* In small blocks: what this process has resident counts for those that it starts. */
        char block[65536];
        ssize_t n;
        int from = open(mft_path(model, copied[i]), O_RDONLY | O_CLOEXEC);
        int to = open(mft_path(dir, copied[i]), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_true(from >= 0 && to >= 0);
        while ((n = read(from, block, sizeof block)) > 0)
            assert_int_equal(write(to, block, (size_t)n), n);
        assert_int_equal(n, 0);
        fsync(to);
        posix_fadvise(to, 0, 0, POSIX_FADV_DONTNEED);
        close(from);
        close(to);
    }
    return dir;
}

static void page_cache_is_left_alone(void **state)
{
    (void)state;
    if (SANITIZED)
        mft_skip("sanitizers take memory of their own");
    const char *dir = cold_copy(mft_source("models/pocket-dictionary"));
    if (resident_folder(dir) > 0)
        mft_skip("the filesystem of %s keeps files in memory", dir);
    char words[1024];
    snprintf(words, sizeof words,
             "run -m %s -p lighthouse --ignore-eos -n 60 -s 1 -c 128 --memory 18M", dir);
    uint64_t most = 0;
    result r;
    pid_t pid = start(words, NULL);
    for (siginfo_t info = {0}; info.si_pid == 0;) {
        uint64_t now = resident_folder(dir);
        most = now > most ? now : most;
        usleep(500);
        assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
    }
    finish(pid, &r);
    holds(&r, 18, "from a cold drive");
    print_message("page cache: at most %" PRIu64 " KiB, %" PRIu64 " KiB afterwards\n", most >> 10,
                  resident_folder(dir) >> 10);
    assert_int_equal(resident_folder(dir), 0);
    assert_true(most <= 18 * MFI_MIB / 64 + 64 * MFI_KIB);
}

/* ---- control groups ---- */

/* A group of version 1 below our own with this limit; NULL if that isn't possible. */
static const char *make_group(uint64_t limit)
{
    static char dir[512];
    char text[4096], value[64];
    read_text("/proc/self/cgroup", text, sizeof text);
    char *own = strstr(text, ":memory:");
    if (!own)
        return NULL;
    own += strlen(":memory:");
    own[strcspn(own, "\n")] = 0;
    snprintf(dir, sizeof dir, "/sys/fs/cgroup/memory%.300s/moeflux-test-%ld", own, (long)getpid());
    if (mkdir(dir, 0755) != 0)
        return NULL;
    snprintf(value, sizeof value, "%" PRIu64, limit);
    char path[600];
    snprintf(path, sizeof path, "%s/memory.limit_in_bytes", dir);
    if (write_text(path, value))
        return dir;
    rmdir(dir);
    return NULL;
}

static uint64_t group_number(const char *group, const char *name)
{
    char path[600], text[64];
    snprintf(path, sizeof path, "%s/%s", group, name);
    read_text(path, text, sizeof text);
    return strtoull(text, NULL, 10);
}

static void remove_group(const char *group)
{
    for (int i = 0; i < 100 && rmdir(group) != 0 && errno == EBUSY; i++)
        usleep(10000);
}

typedef struct group_run {
    result r;
    uint64_t most, failures;
} group_run;

/* False if there are no groups to be had. */
static bool run_in_group(uint64_t limit, const char *words, group_run *g)
{
    const char *group = make_group(limit);
    if (!group)
        return false;
    finish(start(words, group), &g->r);
    g->most = group_number(group, "memory.max_usage_in_bytes");
    g->failures = group_number(group, "memory.failcnt");
    remove_group(group);
    return g->r.code != 126;
}

static void control_groups_agree(void **state)
{
    (void)state;
    if (SANITIZED)
        mft_skip("sanitizers take memory of their own");
    const char *dir = cold_copy(mft_source("models/pocket-dictionary"));
    static const uint64_t budgets[] = {18, 30};
    char words[1024];
    group_run g;
    for (size_t i = 0; i < MFI_ARRAY_LEN(budgets); i++) {
        uint64_t mib = budgets[i];
        snprintf(words, sizeof words,
                 "run -m %s -p lighthouse --ignore-eos -n 40 -s 1 -c 512 --memory %" PRIu64 "M",
                 dir, mib);
        if (!run_in_group(2 * mib * MFI_MIB, words, &g))
            mft_skip("no control groups of version 1 that we may make");
        holds(&g.r, mib, "in a group of twice the budget");
        print_message("the group's peak, page cache and kernel included: %.2f MiB\n",
                      (double)g.most / MFI_MIB);
        assert_true(g.most <= mib * MFI_MIB);
        assert_true(run_in_group(mib * MFI_MIB, words, &g));
        holds(&g.r, mib, "in a group of the budget");
        print_message("the group's limit was met %" PRIu64 " times\n", g.failures);
    }
    /* Without --memory the group's limit decides. */
    const uint64_t limit = 24 * MFI_MIB;
    int64_t budget = 0;
    snprintf(words, sizeof words, "plan -m %s --json", dir);
    assert_true(run_in_group(limit, words, &g));
    assert_int_equal(g.r.code, 0);
    mfi_json *json = printed();
    assert_true(mfi_json_i64(mfi_json_get(json, "budget_bytes"), &budget));
    assert_non_null(strstr(mfi_json_str(mfi_json_get(json, "budget_reason"), NULL), "cgroup"));
    mfi_json_free(&json);
    assert_true((uint64_t)budget <= limit && (uint64_t)budget > limit / 2);
    snprintf(words, sizeof words, "run -m %s -p lighthouse --ignore-eos -n 40 -s 1", dir);
    assert_true(run_in_group(limit, words, &g));
    holds(&g.r, limit / MFI_MIB, "by the group's limit alone");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floor_works_and_less_is_refused),
        cmocka_unit_test(every_phase_holds),
        cmocka_unit_test(large_inputs_hold),
        cmocka_unit_test(page_cache_is_left_alone),
        cmocka_unit_test(control_groups_agree),
    };
    return mft_run(tests);
}
