/* The shim itself: kernels that go wrong are found out, wrong calls are refused, and the text that
 * the library has in it is the one that the tests run. */
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NONE, SKIPS, ENDS, OTHER, SIMDGROUP, BEYOND, RACE }; /* faults.metal */

static bool fault(uint32_t how, mftm_order order, float *y, char *message, size_t cap)
{
    void *buffers[] = {y};
    mftm_grid grid = {{2, 1, 1}, 64, 64 * sizeof(float), NULL};
    return mftm_dispatch("mfi_fault", &how, sizeof how, buffers, 1, &grid, order, message, cap);
}

static void wrong_kernels(void **state)
{
    (void)state;
    static const char *const said[] = {"", "simd_max", "ended", "elsewhere", "ended", "beyond"};
    float y[64], other[64];
    char message[256];
    for (int order = MFTM_FORWARD; order <= MFTM_BACKWARD; order++)
        for (uint32_t how = NONE; how <= BEYOND; how++) {
            bool done = fault(how, (mftm_order)order, y, message, sizeof message);
            if (done != (how == NONE) ||
                (how != OTHER && !strstr(message, said[how]) && !strstr(message, "ends")))
                fail_msg("fault %u: %s", how, message);
            /* What is left of it doesn't disturb the next one. */
            assert_true(fault(NONE, (mftm_order)order, y, message, sizeof message));
            for (int i = 0; i < 64; i++) /* 0 .. 31 add up to 496, the others to 1520 */
                assert_true(y[i] == (i < 32 ? 1521 : 497));
        }
    assert_true(fault(RACE, MFTM_FORWARD, y, message, sizeof message));
    assert_true(fault(RACE, MFTM_BACKWARD, other, message, sizeof message));
    assert_memory_not_equal(y, other, sizeof y);
}

static void wrong_calls(void **state)
{
    (void)state;
    float y[64];
    void *buffers[] = {y}, *nothing[] = {NULL};
    char message[256];
    uint32_t how = NONE;
    const mftm_grid grid = {{1, 1, 1}, 64, 256, NULL}, odd = {{1, 1, 1}, 65, 256, NULL};
    const mftm_grid empty = {{1, 0, 1}, 64, 256, NULL}, large = {{1, 1, 1}, 64, 32784, NULL};
    const struct {
        const char *name;
        size_t args_bytes;
        void **buffers;
        uint32_t n_buffers;
        const mftm_grid *grid;
        const char *said;
    } calls[] = {
        {"mfi_fault", 4, buffers, 1, &grid, NULL},
        {"mfi_none", 4, buffers, 1, &grid, "no such kernel"},
        {"mfi_fault", 8, buffers, 1, &grid, "size of its structure"},
        {"mfi_fault", 4, buffers, 0, &grid, "not all buffers"},
        {"mfi_fault", 4, nothing, 1, &grid, "a buffer that is nothing"},
        {"mfi_fault", 4, buffers, 1, &odd, "simdgroups"},
        {"mfi_fault", 4, buffers, 1, &empty, "empty grid"},
        {"mfi_fault", 4, buffers, 1, &large, "32 KiB"},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(calls); i++) {
        bool done =
            mftm_dispatch(calls[i].name, &how, calls[i].args_bytes, calls[i].buffers,
                          calls[i].n_buffers, calls[i].grid, MFTM_FORWARD, message, sizeof message);
        if (done != !calls[i].said || (calls[i].said && !strstr(message, calls[i].said)))
            fail_msg("call %zu: %s", i, message);
    }
}

/* Every kernel that the host may ask for is there, with the structure that the host has. */
static void all_there(void **state)
{
    (void)state;
    for (uint32_t k = 0; k < MFI_METAL_N_KERNELS; k++) {
        const mfi_metal_kernel_info *info = &mfi_metal_kernels[k];
        const mftm_grid grid = {{0, 0, 0}, 32, 16, NULL};
        void *buffers[RIG_BUFFERS];
        char message[256], args[1024] = {0};
        for (int i = 0; i < RIG_BUFFERS; i++)
            buffers[i] = args;
        assert_true(mftm_has(info->name));
        assert_false(mftm_dispatch(info->name, args, info->args_bytes, buffers, info->n_buffers,
                                   &grid, MFTM_FORWARD, message, sizeof message));
        if (!strstr(message, "empty grid"))
            fail_msg("%s", message);
        assert_false(mftm_dispatch(info->name, args, info->args_bytes, buffers, info->n_buffers - 1,
                                   &grid, MFTM_FORWARD, message, sizeof message));
        if (!strstr(message, "not all buffers"))
            fail_msg("%s: %s: has fewer buffers than the table says", info->name, message);
        assert_true(info->args_bytes <= 4096); /* setBytes takes no more */
    }
}

/* Once they are stopped, no kernel touches anything but the word that says so. */
static void stopped(void **state)
{
    (void)state;
    void *buffers[RIG_BUFFERS];
    uint32_t stop = 3;
    char message[256], args[1024] = {0};
    const mftm_grid grid = {{2, 2, 2}, 64, 1024, &stop};
    for (int i = 0; i < RIG_BUFFERS; i++) /* where nothing can be read or written */
        buffers[i] = (char *)mft_guard_alloc(4, MFT_AT_END) + 4;
    for (uint32_t k = 0; k < MFI_METAL_N_KERNELS; k++) {
        const mfi_metal_kernel_info *info = &mfi_metal_kernels[k];
        memset(args, 1, sizeof args); /* numbers for which each would do something */
        if (!mftm_dispatch(info->name, args, info->args_bytes, buffers, info->n_buffers, &grid,
                           k % 2 ? MFTM_BACKWARD : MFTM_FORWARD, message, sizeof message))
            fail_msg("%s", message);
    }
    assert_int_equal(stop, 3);
    mft_guard_free();
}

/* The array is the text. */
static void embedded(void **state)
{
    (void)state;
    FILE *f = fopen(MFTM_SOURCE_TEXT, "rb");
    char *text = calloc(1, mfi_metal_source_bytes + 2);
    assert_non_null(f);
    assert_int_equal(fread(text, 1, mfi_metal_source_bytes + 1, f), mfi_metal_source_bytes);
    fclose(f);
    assert_memory_equal(text, mfi_metal_source, mfi_metal_source_bytes);
    assert_int_equal(mfi_metal_source[mfi_metal_source_bytes], 0);
    assert_int_equal(strlen(mfi_metal_source), mfi_metal_source_bytes);
    assert_null(strstr(text, "#include \"")); /* whole in itself: one header, the system's */
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_kernels), cmocka_unit_test(wrong_calls), cmocka_unit_test(all_there),
        cmocka_unit_test(stopped),       cmocka_unit_test(embedded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
