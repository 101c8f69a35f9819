/* Stored answers: what is found, what goes when there are too many or they are too long, that
 * an answer's history is its input and its output, and its items are found. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "store.h"

static bool add(srv_store *store, unsigned number, size_t input_bytes)
{
    char id[32], text[64];
    mfi_buf response = {0}, input = {0};
    snprintf(id, sizeof id, "resp_%u", number);
    snprintf(text, sizeof text, "{\"output\":[{\"n\":%u}]}", number);
    mfi_buf_str(&response, text);
    char *filler = malloc(input_bytes + 1);
    assert_true(filler != NULL);
    memset(filler, 'i', input_bytes);
    mfi_buf_append(&input, filler, input_bytes);
    const srv_answer answer = {id, &response, strlen("{\"output\":["),
                               response.len - strlen("{\"output\":[]}"), &input};
    bool ok = srv_store_add(store, &answer);
    mfi_buf_free(&response);
    mfi_buf_free(&input);
    free(filler);
    return ok;
}

static bool has(srv_store *store, unsigned number)
{
    char id[32];
    mfi_buf out = {0};
    snprintf(id, sizeof id, "resp_%u", number);
    bool found = srv_store_response(store, id, &out);
    assert_true(found == (out.len > 0));
    mfi_buf_free(&out);
    return found;
}

static void texts(void **state)
{
    (void)state;
    srv_store store;
    mfi_buf out = {0};
    srv_store_init(&store);
    assert_true(add(&store, 7, 3));
    assert_true(srv_store_response(&store, "resp_7", &out));
    assert_true(strcmp(out.data, "{\"output\":[{\"n\":7}]}") == 0);
    out.len = 0;
    assert_true(srv_store_input(&store, "resp_7", &out) && strcmp(out.data, "iii") == 0);
    out.len = 0;
    assert_true(srv_store_history(&store, "resp_7", &out) &&
                strcmp(out.data, "iii,{\"n\":7}") == 0);
    mfi_buf_free(&out);
    assert_true(!srv_store_history(&store, "resp_", &out) && !srv_store_input(&store, "", &out));
    assert_true(srv_store_drop(&store, "resp_7") && !srv_store_drop(&store, "resp_7"));
    assert_true(store.n == 0 && store.bytes == 0);
    srv_store_free(&store);
}

static bool put(srv_store *store, const char *id, const char *output, const char *input)
{
    mfi_buf response = {0}, in = {0};
    mfi_buf_fmt(&response, "{\"output\":[%s]}", output);
    mfi_buf_str(&in, input);
    const srv_answer answer = {id, &response, strlen("{\"output\":["), strlen(output), &in};
    bool ok = srv_store_add(store, &answer);
    mfi_buf_free(&response);
    mfi_buf_free(&in);
    return ok;
}

static void is_item(srv_store *store, const char *id, const char *text)
{
    mfi_buf out = {0};
    assert_true(srv_store_item(store, id, &out) == (text != NULL));
    assert_string_equal(text ? text : "", out.data ? out.data : "");
    mfi_buf_free(&out);
}

/* Items are found by their own ids, whatever stands within them; the newest answer's first. */
static void items(void **state)
{
    static const char deep[] = "{\"id\":\"a\",\"in\":{\"id\":\"deep\",\"t\":\"}{\\\"\"}}";
    static const char own[] = "{\"id\":\"my \\\"own\\\"\",\"n\":2}";
    (void)state;
    srv_store store;
    srv_store_init(&store);
    char input[256];
    snprintf(input, sizeof input, "%s,{\"n\":0,\"id\":\"late\"},%s", deep, own);
    assert_true(put(&store, "resp_1", "{\"id\":\"m\",\"n\":1},{\"id\":\"m2\",\"n\":1}", input));
    assert_true(put(&store, "resp_2", "", "")); /* one without items */
    assert_true(put(&store, "resp_3", "{\"id\":\"m\",\"n\":3}", "{\"id\":\"cut"));
    is_item(&store, "m", "{\"id\":\"m\",\"n\":3}");
    is_item(&store, "m2", "{\"id\":\"m2\",\"n\":1}");
    is_item(&store, "a", deep);
    is_item(&store, "my \"own\"", own);
    static const char *const none[] = {"deep", "late", "my ", "", "cut", "own", "m\",\"n\":3"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        is_item(&store, none[i], NULL);
    assert_true(srv_store_drop(&store, "resp_3"));
    is_item(&store, "m", "{\"id\":\"m\",\"n\":1}");
    assert_true(srv_store_drop(&store, "resp_1"));
    is_item(&store, "m", NULL);
    srv_store_free(&store);
}

static void count(void **state)
{
    (void)state;
    srv_store store;
    srv_store_init(&store);
    for (unsigned i = 0; i < MFI_MAX_STORED_RESPONSES + 3; i++)
        assert_true(add(&store, i, 1));
    assert_true(store.n == MFI_MAX_STORED_RESPONSES);
    assert_true(!has(&store, 2) && has(&store, 3) && has(&store, MFI_MAX_STORED_RESPONSES + 2));
    assert_true(srv_store_drop(&store, "resp_500")); /* one in the middle makes room for one */
    assert_true(add(&store, 5000, 1) && has(&store, 3) && add(&store, 5001, 1) && !has(&store, 3));
    srv_store_free(&store);
}

static void bytes(void **state)
{
    (void)state;
    srv_store store;
    size_t third = MFI_MAX_STORED_BYTES / 3;
    srv_store_init(&store);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(add(&store, i, third));
        assert_true(store.bytes <= MFI_MAX_STORED_BYTES);
    }
    assert_true(!has(&store, 1) && has(&store, 2) && has(&store, 3) && store.n == 2);
    assert_true(!add(&store, 9, MFI_MAX_STORED_BYTES)); /* nothing goes for what can't stay */
    assert_true(has(&store, 2) && !has(&store, 9));
    assert_true(add(&store, 10, MFI_MAX_STORED_BYTES - 1024) && store.n == 1 && has(&store, 10));
    srv_store_free(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts), cmocka_unit_test(items),
                                       cmocka_unit_test(count), cmocka_unit_test(bytes)};
    return mft_run(tests);
}
