/* As much of cmocka as the kernel tests use, for machines that tests are compiled for without its
 * library: tools/arm_kernels.sh. A failed assertion ends the test, and its group goes on. */
#ifndef MFT_ARM_CMOCKA_H
#define MFT_ARM_CMOCKA_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

static __attribute__((unused)) struct {
    jmp_buf out;
    bool failed;
} mft_now;

#define cmocka_unit_test(f)                                                                        \
    {                                                                                              \
#f, f                                                                                      \
    }
#define fail_msg(...)                                                                              \
    (fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), fprintf(stderr, __VA_ARGS__),                 \
     fputc('\n', stderr), mft_now.failed = true, longjmp(mft_now.out, 1))
#define assert_true(c)               ((c) ? (void)0 : fail_msg("%s is false", #c))
#define assert_false(c)              assert_true(!(c))
#define assert_non_null(p)           assert_true((p) != NULL)
#define assert_int_equal(a, b)       assert_true((a) == (b))
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)
#define skip()                       longjmp(mft_now.out, 1)

static inline int mft_run_group(const struct CMUnitTest *tests, size_t n)
{
    volatile int n_failed = 0;
    for (volatile size_t i = 0; i < n; i++) {
        void *state = NULL;
        mft_now.failed = false;
        if (setjmp(mft_now.out) == 0)
            tests[i].run(&state);
        n_failed += mft_now.failed;
        printf("%s %s\n", mft_now.failed ? "FAILED" : "ok    ", tests[i].name);
    }
    return n_failed;
}

#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    mft_run_group(tests, sizeof(tests) / sizeof((tests)[0]))

#endif
