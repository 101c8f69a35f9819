/* Output files that appear whole or not at all; see output.h. Used by `logits` and `inspect`. */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

/* mkstemp makes files for the owner alone; give this one the mode that open(2) would have. */
static void usual_mode(int fd)
{
    mode_t mask = umask(0);
    umask(mask);
    (void)fchmod(fd, 0666 & ~mask);
}

static int open_tmp(cli_outfile *file)
{
    size_t size = strlen(file->path) + sizeof ".tmp-XXXXXX";
    file->tmp_path = malloc(size);
    if (!file->tmp_path)
        return cli_error(CLI_EXIT_ROOM, "out of memory");
    snprintf(file->tmp_path, size, "%s.tmp-XXXXXX", file->path);
    file->fd = mkstemp(file->tmp_path);
    if (file->fd < 0) {
        int error = errno;
        free(file->tmp_path);
        file->tmp_path = NULL;
        return cli_write_failed(file->path, error);
    }
    usual_mode(file->fd);
    return CLI_EXIT_OK;
}

/* Numbers as bytes are nothing for a terminal. */
static int open_stdout(cli_outfile *file)
{
    if (isatty(STDOUT_FILENO))
        return cli_usage_error("standard output is a terminal, and what would be written binary: "
                               "redirect it, or name a file");
    file->path = strdup("standard output");
    file->fd = file->path ? dup(STDOUT_FILENO) : -1;
    return file->fd < 0 ? cli_write_failed("standard output", errno) : CLI_EXIT_OK;
}

int cli_outfile_open(cli_outfile *file, const char *path)
{
    *file = (cli_outfile){.fd = -1};
    struct stat st;
    if (strcmp(path, "-") == 0)
        return open_stdout(file);
    bool there = stat(path, &st) == 0;
    /* Through symbolic links, so that the rename replaces what they point to. */
    file->path = there && S_ISREG(st.st_mode) ? realpath(path, NULL) : strdup(path);
    if (!file->path)
        return cli_write_failed(path, errno);
    if (!there || S_ISREG(st.st_mode))
        return open_tmp(file);
    file->fd = open(file->path, O_WRONLY | O_CLOEXEC);
    return file->fd < 0 ? cli_write_failed(path, errno) : CLI_EXIT_OK;
}

int cli_outfile_commit(cli_outfile *file)
{
    int fd = file->fd;
    file->fd = -1;
    if (close(fd) != 0 && errno != EINTR)
        return cli_write_failed(file->path, errno);
    if (file->tmp_path && rename(file->tmp_path, file->path) != 0)
        return cli_write_failed(file->path, errno);
    file->committed = true;
    return CLI_EXIT_OK;
}

void cli_outfile_close(cli_outfile *file)
{
    if (!file->path)
        return;
    if (file->fd >= 0)
        close(file->fd);
    if (file->tmp_path && !file->committed)
        unlink(file->tmp_path);
    free(file->tmp_path);
    free(file->path);
    *file = (cli_outfile){.fd = -1};
}

void cli_outfile_discard(cli_outfile *file)
{
    if (file->path && file->tmp_path && file->committed)
        unlink(file->path);
    cli_outfile_close(file);
}
