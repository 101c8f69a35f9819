/* Any bytes as what a model wrote: whole or byte by byte the same comes out, and arguments are
 * JSON. First byte: the notation, whether tools' names are known and whether reasoning has begun.
 */
#include <stdlib.h>
#include <string.h>

#include "text/output.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct events {
    mfi_buf log, args; /* args: of the call that is begun */
    int last;
} events;

static void note(void *user, mf_output_kind kind, uint32_t call, const char *bytes, size_t len)
{
    events *e = user;
    if (e->last != (int)kind)
        mfi_buf_fmt(&e->log, "\n%d %u:", (int)kind, call);
    e->last = (int)kind;
    mfi_buf_append(&e->log, bytes, len);
    if (kind == MF_OUTPUT_CALL_NAME)
        e->args.len = 0;
    if (kind == MF_OUTPUT_CALL_ARGUMENTS)
        mfi_buf_append(&e->args, bytes, len);
    if (kind == MF_OUTPUT_CALL_END && mfi_json_scan(e->args.data, e->args.len, "", NULL) != MF_OK)
        abort();
}

static void parse(uint8_t how, const char *bytes, size_t len, size_t piece, events *e)
{
    static const char *const offered[] = {"f"};
    mfi_output *o = NULL;
    *e = (events){.last = -1};
    if (mfi_output_open(&o, (mfi_notation)((how & 0x7f) % MFI_N_NOTATIONS), how & 0x80, note, e,
                        NULL))
        abort();
    if ((how & 0x7f) / MFI_N_NOTATIONS & 1)
        mfi_output_bare_names(o, offered, 1);
    for (size_t at = 0; at < len; at += piece)
        mfi_output_push(o, bytes + at, len - at < piece ? len - at : piece);
    if (mfi_output_end(o, NULL) != MF_OK)
        abort();
    mfi_output_close(&o);
    mfi_buf_free(&e->args);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    events whole, bytes, threes;
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    parse(data[0], text, size - 1, size, &whole);
    parse(data[0], text, size - 1, 1, &bytes);
    parse(data[0], text, size - 1, 3, &threes);
    if (whole.log.len != bytes.log.len || whole.log.len != threes.log.len ||
        (whole.log.len && (memcmp(whole.log.data, bytes.log.data, whole.log.len) != 0 ||
                           memcmp(whole.log.data, threes.log.data, whole.log.len) != 0)))
        abort();
    mfi_buf_free(&whole.log);
    mfi_buf_free(&bytes.log);
    mfi_buf_free(&threes.log);
    return 0;
}
