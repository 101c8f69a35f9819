/* The file of lines typed: a JSON string a line, readable by its owner only. */
#ifndef MOEFLUX_CLI_HISTORY_H
#define MOEFLUX_CLI_HISTORY_H

#include "base/buf.h"
#include "options.h"

/* $XDG_STATE_HOME/moeflux/history, or below ~/.local/state; NULL if neither is known. Release with
 * free. */
char *cli_history_path(cli_env_fn env);

/* Gives the last entries, oldest first. A file that isn't there is empty; what is no entry is
 * skipped. */
void cli_history_load(const char *path, void (*entry)(void *user, const char *text, size_t len),
                      void *user);

/* Makes the file and its folders where needed. False with errno. */
bool cli_history_append(const char *path, const char *text, size_t len);

#endif
