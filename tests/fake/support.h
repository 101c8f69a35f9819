/* What all tests include: cmocka with what it needs, and the way to skip visibly.
 *
 * A test that needs outside evidence calls mft_oracle("hf/mixtral"); where there is none it skips,
 * and a program whose tests all skipped exits with 77, which CTest shows as "Skipped". */
#ifndef MFT_SUPPORT_H
#define MFT_SUPPORT_H

#include <setjmp.h> /* cmocka.h wants these four first */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "moeflux/moeflux.h"

/* Built with a sanitizer: slower, and memory sizes say nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MFT_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MFT_SANITIZED 1
#endif
#endif
#ifndef MFT_SANITIZED
#define MFT_SANITIZED 0
#endif

/* Path of a file or folder below oracle/ (or, with "../models/...", beside it) in static storage,
 * or NULL if this build has no oracle or it lacks it. */
const char *mft_oracle(const char *name);

/* A path of a file that belongs to the project (tests/data/...), in static storage. */
const char *mft_source(const char *name);

/* A fresh folder for this test below $TMPDIR, in static storage; removed at exit. */
const char *mft_tmpdir(void);

/* Runs the group and returns the exit status: 77 if every test was skipped. */
#define mft_run(tests)                                                                             \
    mft_result(cmocka_run_group_tests(tests, NULL, NULL), sizeof(tests) / sizeof((tests)[0]))
int mft_result(int n_failed, size_t n_tests);

/* Instead of cmocka's skip(): prints why, and counts. */
#define mft_skip(...)                                                                              \
    do {                                                                                           \
        mft_skipped(__VA_ARGS__);                                                                  \
        skip();                                                                                    \
    } while (0)
void mft_skipped(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Asserts MF_OK and prints the message otherwise. */
#define mft_ok(status, err)                                                                        \
    do {                                                                                           \
        mf_status mft_status_ = (status);                                                          \
        if (mft_status_ != MF_OK)                                                                  \
            fail_msg("%s: %s", mf_status_name(mft_status_), (err)->message);                       \
    } while (0)

#endif
