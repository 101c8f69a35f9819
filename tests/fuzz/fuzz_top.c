/* Any bytes as what a server says of itself to `moeflux top`, and as a file of --stats: taken or
 * left, and drawn within the screen, with nothing in it that a terminal would obey but colours. The
 * parts are divided by NUL: /api/status, /api/experts, the file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/limits.h"
#include "cli.h"
#include "top.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The program's says it on standard error. */
int cli_error(int code, const char *fmt, ...)
{
    (void)fmt;
    return code;
}

static mfi_json *parse(const char *text, size_t len)
{
    mfi_json *v = NULL;
    return mfi_json_parse(text, len, "fuzz", &v, NULL) == MF_OK ? v : NULL;
}

/* Lines of printable characters, none longer than the screen. */
static void check_plain(const mfi_buf *out, size_t columns)
{
    size_t at = 0;
    for (size_t i = 0; i < out->len; i++) {
        char c = out->data[i];
        at = c == '\n' ? 0 : at + 1;
        if (at > columns || (c != '\n' && (c < ' ' || c > '~')))
            abort();
    }
    if (at)
        abort(); /* a line without its end */
}

static void draw(const top_picture *p)
{
    static const top_screen screens[] = {{200, 0, false, false},
                                         {20, 0, false, false},
                                         {80, 24, false, false},
                                         {80, 24, true, true},
                                         {40, 16, true, false}};
    if (p->n_rows && ((size_t)p->n_rows * p->n_experts != p->tiers.len ||
                      p->tiers.len != p->use.len || p->n_rows * sizeof(uint32_t) != p->layers.len))
        abort();
    for (size_t i = 0; i < MFI_ARRAY_LEN(screens); i++) {
        mfi_buf out = {0};
        top_draw(p, &screens[i], "note", &out);
        if (!screens[i].colours)
            check_plain(&out, screens[i].columns);
        mfi_buf_free(&out);
    }
}

static void follow(const char *text, size_t len)
{
    char path[64];
    top_picture p = {0};
    int fd = memfd_create("stats", 0);
    if (fd < 0 || write(fd, text, len) != (ssize_t)len)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    top_follow f = {.path = path, .fd = -1};
    int code = top_follow_read(&f, &p);
    if ((code == CLI_EXIT_OK) != f.had_head)
        abort();
    if (code == CLI_EXIT_OK)
        draw(&p);
    mfi_buf_free(&f.line);
    top_picture_free(&p);
    close(f.fd);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *part[3], *at = (const char *)data, *end = at + size;
    size_t len[3];
    for (size_t i = 0; i < 3; i++) {
        const char *stop = i < 2 && at < end ? memchr(at, 0, (size_t)(end - at)) : NULL;
        part[i] = at;
        len[i] = (size_t)((stop ? stop : end) - at);
        at = stop ? stop + 1 : end;
    }
    top_picture p = {0};
    mfi_json *status = parse(part[0], len[0]), *experts = parse(part[1], len[1]);
    bool taken = status && top_take_status(&p, status);
    if (experts)
        top_take_experts(&p, experts);
    if (taken || p.n_rows)
        draw(&p);
    mfi_json_free(&status);
    mfi_json_free(&experts);
    top_picture_free(&p);
    follow(part[2], len[2]);
    return 0;
}
