/* Paths below the user's folders; see paths.h. Main thread only. */
#include "paths.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"

char *cli_user_path(cli_env_fn env, const char *variable, const char *below_home, const char *name)
{
    mfi_buf path = {0};
    const char *folder = env(variable), *home = env("HOME");
    if (folder && folder[0] == '/') /* the specification ignores relative ones */
        mfi_buf_fmt(&path, "%s/moeflux/%s", folder, name);
    else if (home && home[0] == '/')
        mfi_buf_fmt(&path, "%s/%s/moeflux/%s", home, below_home, name);
    if (!path.failed)
        return path.data;
    mfi_buf_free(&path);
    return NULL;
}

bool cli_make_folders(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return false;
    for (char *p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        if (mkdir(copy, 0700) != 0 && errno != EEXIST) {
            int error = errno;
            free(copy);
            errno = error;
            return false;
        }
        *p = '/';
    }
    free(copy);
    return true;
}
