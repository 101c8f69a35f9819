/* Lines as people type them: edited on a terminal, read as they are otherwise. */
#ifndef MOEFLUX_CLI_EDIT_H
#define MOEFLUX_CLI_EDIT_H

#include "base/buf.h"

typedef enum cli_line {
    CLI_LINE,           /* one was read */
    CLI_LINE_END,       /* end of the input, or Ctrl-D */
    CLI_LINE_INTERRUPT, /* a signal came: cli_signal_code says which */
    CLI_LINE_FAILED     /* reported */
} cli_line;

typedef struct cli_edit cli_edit;

/* Reads standard input. With `simple`, and where standard input or output is no terminal, lines are
 * not edited. history_path: where lines typed are kept, NULL: nowhere. NULL: out of memory,
 * reported. */
cli_edit *cli_edit_open(bool simple, const char *history_path);
void cli_edit_close(cli_edit *edit);

/* Puts the next line, without its newline, into *line. A line that was edited may hold newlines: a
 * paste. The prompt is shown to people only. */
cli_line cli_edit_read(cli_edit *edit, const char *prompt, mfi_buf *line);

/* Keeps a text for the arrow keys and for the next time. */
void cli_edit_remember(cli_edit *edit, const char *text, size_t len);

/* ---- the editor (edit_libedit.c); the facade above is who calls it ---- */

typedef struct cli_editor cli_editor;

/* NULL: there is none, or this terminal can't have it. */
cli_editor *cli_editor_open(void);
void cli_editor_close(cli_editor *editor);
cli_line cli_editor_read(cli_editor *editor, const char *prompt, mfi_buf *line);
void cli_editor_remember(cli_editor *editor, const char *text, size_t len);

#endif
