/* Status names, messages, and their one-line promise. */
#include "fake/support.h"

#include <string.h>

#include "base/status.h"

static void names_and_texts(void **state)
{
    (void)state;
    assert_string_equal(mf_status_name(MF_OK), "MF_OK");
    assert_string_equal(mf_status_name(MF_ERR_TENSOR_BOUNDS), "MF_ERR_TENSOR_BOUNDS");
    assert_string_equal(mf_status_name((mf_status)-999), "MF_ERR_?");
    assert_string_equal(mf_status_text(MF_ERR_IO), "input/output error");
}

static void messages_are_one_line(void **state)
{
    (void)state;
    mf_error err = {0};
    assert_int_equal(mfi_fail(&err, MF_ERR_FORMAT, "a\nb\x1b[31m%d", 7), MF_ERR_FORMAT);
    assert_string_equal(err.message, "a?b?[31m7");
    mfi_fail(&err, MF_ERR_IO, "outer: %s", err.message);
    assert_string_equal(err.message, "outer: a?b?[31m7");
    assert_int_equal(mfi_fail(NULL, MF_ERR_IO, "x"), MF_ERR_IO);
}

static void long_messages_are_cut(void **state)
{
    (void)state;
    char name[2 * MF_ERROR_MESSAGE_BYTES];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    mf_error err;
    mfi_fail(&err, MF_ERR_IO, "%s", name);
    assert_int_equal(strlen(err.message), MF_ERROR_MESSAGE_BYTES - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_texts),
        cmocka_unit_test(messages_are_one_line),
        cmocka_unit_test(long_messages_are_cut),
    };
    return mft_run(tests);
}
