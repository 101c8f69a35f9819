/* Where files of this user are kept. */
#ifndef MOEFLUX_CLI_PATHS_H
#define MOEFLUX_CLI_PATHS_H

#include <stdbool.h>

#include "options.h"

/* $VARIABLE/moeflux/NAME, or $HOME/BELOW_HOME/moeflux/NAME where the variable holds no absolute
 * path (XDG Base Directory Specification); NULL if neither is known. Release with free. */
char *cli_user_path(cli_env_fn env, const char *variable, const char *below_home, const char *name);

/* Makes the folders that lead to a file, for their owner only. False with errno. */
bool cli_make_folders(const char *path);

#endif
