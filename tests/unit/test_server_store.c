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
    const srv_answer answer = {.id = id,
                               .response = &response,
                               .output_at = strlen("{\"output\":["),
                               .output_len = response.len - strlen("{\"output\":[]}"),
                               .input = &input};
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
    assert_true(srv_store_history(&store, "resp_7", &out) == SRV_FOUND &&
                strcmp(out.data, "iii,{\"n\":7}") == 0);
    mfi_buf_free(&out);
    assert_true(srv_store_history(&store, "resp_", &out) == SRV_NOT_FOUND &&
                !srv_store_input(&store, "", &out));
    assert_true(srv_store_drop(&store, "resp_7") && !srv_store_drop(&store, "resp_7"));
    assert_true(store.n == 0 && store.bytes == 0);
    srv_store_free(&store);
}

static bool put(srv_store *store, const char *id, const char *output, const char *input)
{
    mfi_buf response = {0}, in = {0};
    mfi_buf_fmt(&response, "{\"output\":[%s]}", output);
    mfi_buf_str(&in, input);
    const srv_answer answer = {.id = id,
                               .response = &response,
                               .output_at = strlen("{\"output\":["),
                               .output_len = strlen(output),
                               .input = &in};
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

/* ---- answers in the background ---- */

/* {"s":"queued","output":[...]}; filler lies in the input. */
static srv_answer pending_answer(const char *id, const char *status, const char *output,
                                 size_t filler, mfi_buf *response, mfi_buf *input)
{
    char *bytes = malloc(filler + 1);
    assert_true(bytes != NULL);
    memset(bytes, 'i', filler);
    mfi_buf_append(input, bytes, filler);
    free(bytes);
    mfi_buf_fmt(response, "{\"s\":\"%s\",\"output\":[%s]}", status, output);
    return (srv_answer){.id = id,
                        .response = response,
                        .output_at = response->len - strlen(output) - 2,
                        .output_len = strlen(output),
                        .status_at = strlen("{\"s\":\""),
                        .status_len = strlen(status),
                        .input = input};
}

static srv_begun begin(srv_store *store, const char *id, size_t filler, srv_exchange *x)
{
    mfi_buf response = {0}, input = {0};
    const srv_answer a = pending_answer(id, "queued", "", filler, &response, &input);
    srv_begun begun = srv_store_begin(store, &a, x);
    mfi_buf_free(&response);
    mfi_buf_free(&input);
    return begun;
}

static bool finish(srv_store *store, const char *id, size_t filler)
{
    mfi_buf response = {0}, input = {0};
    const srv_answer a = pending_answer(id, "completed", "{\"n\":1}", filler, &response, &input);
    bool ok = srv_store_finish(store, &a);
    mfi_buf_free(&response);
    mfi_buf_free(&input);
    return ok;
}

static void is(srv_store *store, const char *id, const char *text)
{
    mfi_buf out = {0};
    assert_true(srv_store_response(store, id, &out) == (text != NULL));
    assert_string_equal(text ? text : "", out.data ? out.data : "");
    mfi_buf_free(&out);
}

#define QUEUED    "{\"s\":\"queued\",\"output\":[]}"
#define COMPLETED "{\"s\":\"completed\",\"output\":[{\"n\":1}]}"
#define CANCELLED "{\"s\":\"cancelled\",\"output\":[]}"

/* From queued to what became of it; once it is over nothing changes it. */
static void background(void **state)
{
    (void)state;
    srv_store store;
    mfi_buf out = {0};
    bool was;
    srv_store_init(&store);
    srv_exchange *x = srv_exchange_new(NULL, 0), *other = srv_exchange_new(NULL, 0);
    assert_true(x && other && begin(&store, "resp_a", 3, x) == SRV_BEGUN);
    is(&store, "resp_a", QUEUED);
    assert_true(atomic_load(&x->refs) == 2 && store.n_pending == 1);
    srv_store_status(&store, "resp_a", "in_progress", false);
    is(&store, "resp_a", "{\"s\":\"in_progress\",\"output\":[]}");
    assert_true(srv_store_history(&store, "resp_a", &out) == SRV_FOUND_PENDING && !out.len);
    assert_true(srv_store_input(&store, "resp_a", &out) && strcmp(out.data, "iii") == 0);
    mfi_buf_free(&out);
    assert_true(finish(&store, "resp_a", 3) && store.n == 1);
    is(&store, "resp_a", COMPLETED);
    assert_true(store.n_pending == 0 && store.pending_bytes == 0 && !atomic_load(&x->gone));
    assert_true(srv_store_cancel(&store, "resp_a", &was) && was);
    srv_store_status(&store, "resp_a", "failed", true);
    is(&store, "resp_a", COMPLETED);
    assert_true(srv_store_history(&store, "resp_a", &out) == SRV_FOUND &&
                strcmp(out.data, "iii,{\"n\":1}") == 0);
    mfi_buf_free(&out);
    /* cancelled and dropped: what comes of it after all is nobody's */
    assert_true(begin(&store, "resp_b", 3, x) == SRV_BEGUN);
    assert_true(srv_store_cancel(&store, "resp_b", &was) && was && atomic_load(&x->gone));
    assert_true(finish(&store, "resp_b", 3));
    is(&store, "resp_b", CANCELLED);
    assert_true(begin(&store, "resp_c", 3, other) == SRV_BEGUN && srv_store_drop(&store, "resp_c"));
    assert_true(atomic_load(&other->gone) && finish(&store, "resp_c", 3));
    is(&store, "resp_c", NULL);
    assert_true(add(&store, 7, 3) && srv_store_cancel(&store, "resp_7", &was) && !was);
    assert_true(!srv_store_cancel(&store, "resp_none", &was));
    assert_true(atomic_load(&x->refs) == 1 && atomic_load(&other->refs) == 1);
    srv_exchange_release(x);
    srv_exchange_release(other);
    srv_store_free(&store);
}

/* Those that are pending stay, and have half of what there is. */
static void background_bounds(void **state)
{
    (void)state;
    srv_store store;
    size_t quarter = MFI_MAX_STORED_BYTES / 4 - 4096;
    char id[32];
    srv_store_init(&store);
    srv_exchange *x = srv_exchange_new(NULL, 0);
    assert_true(x != NULL);
    assert_true(begin(&store, "resp_a", 2 * quarter + 16384, x) == SRV_BEGUN_TOO_LONG);
    assert_true(begin(&store, "resp_a", quarter, x) == SRV_BEGUN);
    assert_true(begin(&store, "resp_b", quarter, x) == SRV_BEGUN);
    assert_true(begin(&store, "resp_c", quarter, x) == SRV_BEGUN_FULL);
    for (unsigned i = 0; i < 3; i++)
        assert_true(add(&store, i, quarter) && store.bytes <= MFI_MAX_STORED_BYTES);
    is(&store, "resp_a", QUEUED);
    assert_true(!has(&store, 0) && has(&store, 1) && has(&store, 2));
    assert_true(!add(&store, 9, 3 * quarter) && has(&store, 1)); /* nothing goes for it */
    /* an end that can't stay leaves what it would replace, to be said to have failed */
    assert_true(!finish(&store, "resp_a", 3 * quarter + 16384) && store.n_pending == 2);
    srv_store_status(&store, "resp_a", "failed", true);
    is(&store, "resp_a", "{\"s\":\"failed\",\"output\":[]}");
    assert_true(finish(&store, "resp_b", 3 * quarter) && store.n_pending == 0);
    assert_true(!has(&store, 1) && has(&store, 2) && store.bytes <= MFI_MAX_STORED_BYTES);
    for (unsigned i = 0; i < MFI_MAX_STORED_RESPONSES / 2; i++) {
        snprintf(id, sizeof id, "resp_p%u", i);
        assert_true(begin(&store, id, 1, x) == SRV_BEGUN);
    }
    assert_true(begin(&store, "resp_more", 1, x) == SRV_BEGUN_FULL);
    for (unsigned i = 0; i < MFI_MAX_STORED_RESPONSES; i++)
        assert_true(add(&store, i, 1));
    is(&store, "resp_p0", QUEUED);
    assert_true(store.n == MFI_MAX_STORED_RESPONSES && !atomic_load(&x->gone));
    srv_store_close(&store);
    is(&store, "resp_p0", CANCELLED);
    assert_true(atomic_load(&x->gone) && atomic_load(&x->refs) == 1 && !store.pending_bytes);
    assert_true(begin(&store, "resp_late", 1, x) == SRV_BEGUN_FULL && add(&store, 5000, 1));
    srv_exchange_release(x);
    srv_store_free(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts), cmocka_unit_test(items),      cmocka_unit_test(count),
        cmocka_unit_test(bytes), cmocka_unit_test(background), cmocka_unit_test(background_bounds)};
    return mft_run(tests);
}
