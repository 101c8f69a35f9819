/* The trace's lines, and a disk that is full. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "experts/trace.h"

static void lines(void **state)
{
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s/trace", mft_tmpdir());
    mf_error err;
    mfi_trace *trace = NULL;
    mft_ok(mfi_trace_open(&trace, path, "a \"b\"\\c\n", 40, 256, 8, 4096, &err), &err);
    mfi_trace_choice(trace, 2, 3, 17, (const uint16_t[]){4, 9, 1, 30},
                     (const uint8_t[]){1, 0, 1, 1}, 4);
    uint16_t ids[MFI_MAX_TOP_K];
    uint8_t hit[MFI_MAX_TOP_K];
    for (int i = 0; i < MFI_MAX_TOP_K; i++) {
        ids[i] = UINT16_MAX; /* longest lines */
        hit[i] = 1;
    }
    const int n_lines = 5000; /* several buffers */
    for (int i = 0; i < n_lines; i++)
        mfi_trace_choice(trace, UINT64_MAX, UINT32_MAX, UINT64_MAX, ids, hit, MFI_MAX_TOP_K);
    mft_ok(mfi_trace_close(&trace, &err), &err);
    assert_null(trace);

    FILE *f = fopen(path, "r");
    char line[2000], first[2000] = "";
    assert_non_null(fgets(line, sizeof line, f));
    assert_string_equal(line, "{\"schema\":1,\"model\":\"a \\u0022b\\u0022\\u005cc\\u000a\","
                              "\"layers\":40,\"experts\":256,\"top_k\":8,\"expert_bytes\":4096}\n");
    assert_non_null(fgets(line, sizeof line, f));
    assert_string_equal(
        line, "{\"pass\":2,\"layer\":3,\"pos\":17,\"ids\":[4,9,1,30],\"hit\":[1,0,1,1]}\n");
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        if (n++ == 0)
            strcpy(first, line);
        assert_string_equal(line, first);
    }
    fclose(f);
    assert_int_equal(n, n_lines);
    assert_non_null(strstr(first, "{\"pass\":18446744073709551615,\"layer\":4294967295,"
                                  "\"pos\":18446744073709551615,\"ids\":[65535,"));
}

static void failures(void **state)
{
    (void)state;
    mf_error err;
    mfi_trace *trace = NULL;
    assert_int_equal(mfi_trace_open(&trace, "/nonexistent/trace", "m", 1, 1, 1, 1, &err),
                     MF_ERR_FILE_MISSING);
    assert_int_equal(mfi_trace_open(&trace, mft_tmpdir(), "m", 1, 1, 1, 1, &err), MF_ERR_IO);
    assert_null(trace);
    if (access("/dev/full", W_OK) != 0)
        mft_skip("no /dev/full");
    mft_ok(mfi_trace_open(&trace, "/dev/full", "m", 1, 1, 1, 1, &err), &err);
    for (int i = 0; i < 10000; i++)
        mfi_trace_choice(trace, 1, 1, 1, (const uint16_t[]){1}, (const uint8_t[]){1}, 1);
    assert_int_equal(mfi_trace_close(&trace, &err), MF_ERR_DISK_FULL);
    assert_non_null(strstr(err.message, "/dev/full"));
    assert_null(trace);
    mft_ok(mfi_trace_close(&trace, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(failures),
    };
    return mft_run(tests);
}
