/* Test support; see support.h. */
#include "fake/support.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static size_t n_skipped;
static char tmpdir[256];

const char *mft_oracle(const char *name)
{
    static char path[4][1024];
    static int next;
    if (!MF_ORACLE_DIR[0])
        return NULL;
    char *p = path[next++ & 3];
    snprintf(p, sizeof path[0], "%s/oracle/%s", MF_ORACLE_DIR, name);
    struct stat st;
    return stat(p, &st) == 0 ? p : NULL;
}

const char *mft_source(const char *name)
{
    static char path[4][1024];
    static int next;
    char *p = path[next++ & 3];
    snprintf(p, sizeof path[0], "%s/%s", MF_SOURCE_DIR, name);
    return p;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void remove_tmpdir(void)
{
    nftw(tmpdir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *mft_tmpdir(void)
{
    if (!tmpdir[0]) {
        const char *base = getenv("TMPDIR");
        snprintf(tmpdir, sizeof tmpdir, "%s/moeflux-test-XXXXXX", base ? base : "/tmp");
        if (!mkdtemp(tmpdir)) {
            perror(tmpdir);
            exit(1);
        }
        atexit(remove_tmpdir);
    }
    return tmpdir;
}

void mft_skipped(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "skipped: ");
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "\n");
    va_end(args);
    n_skipped++;
}

int mft_result(int n_failed, size_t n_tests)
{
    if (n_failed)
        return 1;
    return n_skipped == n_tests ? 77 : 0;
}
