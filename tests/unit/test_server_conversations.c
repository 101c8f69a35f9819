/* Conversations: what is found and changed, and what goes when there are too many or they are too
 * long. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "conversations.h"

static bool add(srv_conversations *all, const char *id, const char *items, size_t filler)
{
    mfi_buf metadata = {0}, text = {0};
    char *bytes = calloc(1, filler + 1);
    assert_true(bytes != NULL);
    memset(bytes, 'i', filler);
    mfi_buf_str(&metadata, "{\"a\":\"b\"}");
    mfi_buf_str(&text, items);
    mfi_buf_append(&text, bytes, filler);
    bool ok = srv_conversation_add(all, id, 5, &metadata, &text);
    free(bytes);
    mfi_buf_free(&metadata);
    mfi_buf_free(&text);
    return ok;
}

static bool append(srv_conversations *all, const char *id, const char *items, size_t filler,
                   bool *fits)
{
    mfi_buf text = {0};
    char *bytes = calloc(1, filler + 1);
    assert_true(bytes != NULL);
    memset(bytes, 'i', filler);
    mfi_buf_str(&text, items);
    mfi_buf_append(&text, bytes, filler);
    bool ok = srv_conversation_append(all, id, &text, fits);
    free(bytes);
    mfi_buf_free(&text);
    return ok;
}

static bool has(srv_conversations *all, const char *id)
{
    mfi_buf out = {0};
    bool found = srv_conversation_show(all, id, &out);
    mfi_buf_free(&out);
    return found;
}

static void has_items(srv_conversations *all, const char *id, const char *items)
{
    mfi_buf out = {0};
    mfi_buf_str(&out, "");
    assert_true(srv_conversation_items(all, id, &out));
    assert_string_equal(out.data, items);
    mfi_buf_free(&out);
}

#define A "{\"id\":\"a\",\"n\":{\"id\":\"deep\"}}"
#define B "{\"id\":\"b\",\"t\":\"}\\\"{\"}"
#define C "{\"id\":\"c\"}"

static void items(void **state)
{
    (void)state;
    srv_conversations all;
    mfi_buf out = {0}, metadata = {0};
    bool done;
    srv_conversations_init(&all);
    assert_true(add(&all, "conv_1", "", 0));
    uint64_t empty = all.bytes;
    assert_true(append(&all, "conv_1", "", 0, &done) && done);
    has_items(&all, "conv_1", "");
    assert_true(append(&all, "conv_1", A, 0, &done) && done);
    assert_true(append(&all, "conv_1", B "," C, 0, &done) && done);
    has_items(&all, "conv_1", A "," B "," C);
    assert_true(srv_conversation_item(&all, "conv_1", "b", &out, &done) && done);
    assert_string_equal(out.data, B);
    mfi_buf_free(&out);
    assert_true(srv_conversation_item(&all, "conv_1", "deep", &out, &done) && !done && !out.len);
    assert_true(!srv_conversation_item(&all, "conv_2", "b", &out, &done) && !done);
    assert_true(srv_conversation_drop_item(&all, "conv_1", "b", &done) && done);
    has_items(&all, "conv_1", A "," C);
    assert_true(srv_conversation_drop_item(&all, "conv_1", "c", &done) && done);
    has_items(&all, "conv_1", A);
    assert_true(srv_conversation_drop_item(&all, "conv_1", "c", &done) && !done);
    assert_true(srv_conversation_drop_item(&all, "conv_1", "a", &done) && done);
    has_items(&all, "conv_1", "");
    assert_true(all.bytes == empty);
    mfi_buf_str(&metadata, "{}");
    assert_true(srv_conversation_describe(&all, "conv_1", &metadata, &done) && done);
    assert_true(!srv_conversation_describe(&all, "conv_2", &metadata, &done) && !done);
    assert_true(srv_conversation_show(&all, "conv_1", &out));
    assert_string_equal(out.data, "{\"id\":\"conv_1\",\"object\":\"conversation\",\"created_at\":5,"
                                  "\"metadata\":{}}");
    mfi_buf_free(&out);
    mfi_buf_free(&metadata);
    assert_true(srv_conversation_drop(&all, "conv_1") && !srv_conversation_drop(&all, "conv_1"));
    assert_true(all.n == 0 && all.bytes == 0 && !append(&all, "conv_1", A, 0, &done) && !done);
    srv_conversations_free(&all);
}

static void bounds(void **state)
{
    (void)state;
    srv_conversations all;
    size_t third = MFI_MAX_TALK_BYTES / 3 - 1024;
    char id[32];
    bool fits;
    srv_conversations_init(&all);
    assert_true(add(&all, "a", "", third) && add(&all, "b", "", third) &&
                add(&all, "c", "", third));
    assert_true(has(&all, "a")); /* used last, so that b is to go */
    assert_true(append(&all, "c", "", third, &fits) && fits);
    assert_true(has(&all, "a") && !has(&all, "b") && has(&all, "c"));
    assert_true(all.bytes <= MFI_MAX_TALK_BYTES);
    assert_true(append(&all, "c", "", 2 * third, &fits) && !fits); /* nothing goes for it */
    assert_true(has(&all, "a") && !add(&all, "d", "", MFI_MAX_TALK_BYTES));
    assert_true(append(&all, "c", "", third, &fits) && fits && all.n == 1);
    for (unsigned i = 0; i < MFI_MAX_TALKS + 2; i++) {
        snprintf(id, sizeof id, "n%u", i);
        assert_true(add(&all, id, "", 1));
    }
    assert_true(all.n == MFI_MAX_TALKS && !has(&all, "n1") && has(&all, "n2"));
    assert_true(append(&all, "n3", "", 1, &fits) && fits && all.n == MFI_MAX_TALKS);
    srv_conversations_free(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(items), cmocka_unit_test(bounds)};
    return mft_run(tests);
}
