/* The history file; see history.h. Several programs may append at the same time: an entry is one
 * write. Never reports: that nothing was remembered is no reason to disturb a conversation. */
#include "history.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "paths.h"

#define ENTRIES_MAX     1000
#define FILE_MAX_BYTES  ((off_t)4 << 20) /* beyond that the older half goes */
#define ENTRY_MAX_BYTES ((size_t)256 << 10)

char *cli_history_path(cli_env_fn env)
{
    return cli_user_path(env, "XDG_STATE_HOME", ".local/state", "history");
}

static bool read_file(const char *path, mfi_buf *text)
{
    char chunk[16384];
    ssize_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0)
        return false;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        if (st.st_size > 2 * FILE_MAX_BYTES) /* somebody else's: its end will do */
            lseek(fd, -FILE_MAX_BYTES, SEEK_END);
        while ((n = read(fd, chunk, sizeof chunk)) > 0)
            mfi_buf_append(text, chunk, (size_t)n);
    }
    close(fd);
    return n == 0 && text->len && !text->failed;
}

static void give(const char *line, size_t len, mfi_buf *scratch,
                 void (*entry)(void *user, const char *text, size_t len), void *user)
{
    scratch->len = 0;
    if (len == 0 || mfi_json_scan(line, len, "history", NULL) != MF_OK)
        return;
    if (mfi_json_span_str(mfi_json_root(line, len), scratch) && scratch->len && !scratch->failed)
        entry(user, scratch->data, scratch->len);
}

void cli_history_load(const char *path, void (*entry)(void *user, const char *text, size_t len),
                      void *user)
{
    mfi_buf text = {0}, scratch = {0};
    if (read_file(path, &text)) {
        const char *p = text.data + text.len, *end = p;
        for (size_t n = 0; p > text.data && n <= ENTRIES_MAX; p--)
            n += p[-1] == '\n';
        while (p < end) {
            const char *newline = memchr(p, '\n', (size_t)(end - p));
            give(p, (size_t)((newline ? newline : end) - p), &scratch, entry, user);
            p = newline ? newline + 1 : end;
        }
    }
    mfi_buf_free(&scratch);
    mfi_buf_free(&text);
}

/* Replaces the file by its younger half; whoever appends meanwhile loses a line at worst. */
static void shorten(const char *path)
{
    mfi_buf text = {0}, tmp = {0};
    mfi_buf_fmt(&tmp, "%s.tmp-XXXXXX", path);
    int fd = tmp.failed ? -1 : mkstemp(tmp.data); /* mode 0600 */
    if (fd >= 0 && read_file(path, &text)) {
        const char *half = text.data + text.len / 2;
        const char *newline = memchr(half, '\n', (size_t)(text.data + text.len - half));
        const char *from = newline ? newline + 1 : half;
        size_t len = (size_t)(text.data + text.len - from);
        if (write(fd, from, len) != (ssize_t)len || rename(tmp.data, path) != 0)
            unlink(tmp.data);
    } else if (fd >= 0) {
        unlink(tmp.data);
    }
    if (fd >= 0)
        close(fd);
    mfi_buf_free(&text);
    mfi_buf_free(&tmp);
}

bool cli_history_append(const char *path, const char *text, size_t len)
{
    mfi_buf line = {0};
    struct stat st;
    if (len > ENTRY_MAX_BYTES)
        return true;
    mfi_json_put_str(&line, text, len);
    mfi_buf_str(&line, "\n");
    if (line.failed || !cli_make_folders(path)) {
        mfi_buf_free(&line);
        return false;
    }
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && fstat(fd, &st) == 0 &&
              ((st.st_mode & 077) == 0 || !S_ISREG(st.st_mode) || fchmod(fd, 0600) == 0) &&
              write(fd, line.data, line.len) == (ssize_t)line.len;
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (ok && S_ISREG(st.st_mode) && st.st_size > FILE_MAX_BYTES)
        shorten(path);
    mfi_buf_free(&line);
    errno = error;
    return ok;
}
