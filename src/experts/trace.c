/* The trace of expert choices; see trace.h. Owns its file and one fixed buffer; called by the
 * store's owner, on its thread. After the first failure it stays silent until close reports it. */
#include "experts/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"

#define BUFFER_BYTES ((size_t)64 << 10)
/* A line: three numbers, and for each expert up to 4 digits, one of hit, two commas. */
#define LINE_BYTES (128 + MFI_MAX_TOP_K * 8)

struct mfi_trace {
    int fd;
    int failed; /* errno of the first failure */
    char *path;
    size_t len;
    char buffer[BUFFER_BYTES];
};

static void flush(mfi_trace *trace)
{
    size_t at = 0;
    while (at < trace->len && trace->failed == 0) {
        ssize_t n = write(trace->fd, trace->buffer + at, trace->len - at);
        if (n > 0)
            at += (size_t)n;
        else if (n == 0 || errno != EINTR)
            trace->failed = n == 0 ? EIO : errno;
    }
    trace->len = 0;
}

/* The caller made sure that there is room. */
static void put(mfi_trace *trace, const char *fmt, ...) MFI_PRINTF(2, 3);
static void put(mfi_trace *trace, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(trace->buffer + trace->len, BUFFER_BYTES - trace->len, fmt, args);
    va_end(args);
    MFI_ASSERT(n >= 0 && (size_t)n < BUFFER_BYTES - trace->len);
    trace->len += (size_t)n;
}

/* A JSON string; a name of any length comes out of a foreign file. */
static void put_str(mfi_trace *trace, const char *str)
{
    put(trace, "\"");
    for (const unsigned char *p = (const unsigned char *)str; *p; p++) {
        if (trace->len + 16 > BUFFER_BYTES)
            flush(trace);
        if (*p < 0x20 || *p == '"' || *p == '\\')
            put(trace, "\\u%04x", *p);
        else
            put(trace, "%c", *p);
    }
    put(trace, "\"");
}

mf_status mfi_trace_open(mfi_trace **out, const char *path, const char *model, uint32_t n_layers,
                         uint32_t n_experts, uint32_t top_k, uint64_t expert_bytes, mf_error *err)
{
    mfi_trace *trace = malloc(sizeof *trace);
    char *copy = strdup(path);
    if (!trace || !copy) {
        free(trace);
        free(copy);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        int e = errno;
        free(trace);
        free(copy);
        return mfi_fail(err, e == ENOENT ? MF_ERR_FILE_MISSING : MF_ERR_IO,
                        "%s: can't write a trace here: %s", path, strerror(e));
    }
    trace->fd = fd;
    trace->failed = 0;
    trace->path = copy;
    trace->len = 0;
    put(trace, "{\"schema\":1,\"model\":");
    put_str(trace, model);
    put(trace,
        ",\"layers\":%" PRIu32 ",\"experts\":%" PRIu32 ",\"top_k\":%" PRIu32
        ",\"expert_bytes\":%" PRIu64 "}\n",
        n_layers, n_experts, top_k, expert_bytes);
    *out = trace;
    return MF_OK;
}

void mfi_trace_choice(mfi_trace *trace, uint64_t pass, uint32_t layer, uint64_t pos,
                      const uint16_t *ids, const uint8_t *hit, uint32_t n)
{
    MFI_ASSERT(n <= MFI_MAX_TOP_K);
    if (trace->failed)
        return;
    if (trace->len + LINE_BYTES > BUFFER_BYTES)
        flush(trace);
    put(trace, "{\"pass\":%" PRIu64 ",\"layer\":%" PRIu32 ",\"pos\":%" PRIu64 ",\"ids\":[", pass,
        layer, pos);
    for (uint32_t i = 0; i < n; i++)
        put(trace, i ? ",%u" : "%u", ids[i]);
    put(trace, "],\"hit\":[");
    for (uint32_t i = 0; i < n; i++)
        put(trace, i ? ",%d" : "%d", hit[i] != 0);
    put(trace, "]}\n");
}

static mf_status result(const mfi_trace *trace, mf_error *err)
{
    int e = trace->failed;
    if (e == 0)
        return MF_OK;
    return mfi_fail(err, e == ENOSPC || e == EDQUOT ? MF_ERR_DISK_FULL : MF_ERR_IO,
                    "%s: the trace is incomplete: %s", trace->path, strerror(e));
}

mf_status mfi_trace_flush(mfi_trace *trace, mf_error *err)
{
    flush(trace);
    return result(trace, err);
}

mf_status mfi_trace_close(mfi_trace **trace_ref, mf_error *err)
{
    mfi_trace *trace = *trace_ref;
    if (!trace)
        return MF_OK;
    *trace_ref = NULL;
    flush(trace);
    if (close(trace->fd) != 0 && trace->failed == 0)
        trace->failed = errno; /* delayed writes report here */
    mf_status status = result(trace, err);
    free(trace->path);
    free(trace);
    return status;
}
