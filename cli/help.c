/* Writes the help texts from the tables in option_table.c. Called by main; prints nothing itself.
 */
#include "options.h"

#include <string.h>

#define WIDTH  80
#define COLUMN 28 /* where the descriptions begin */

/* Appends words wrapped at WIDTH, `column` being where the line stands; continuation lines begin at
 * `indent`. Newlines in the text end a paragraph. */
static void put_wrapped(mfi_buf *out, const char *text, size_t indent, size_t column)
{
    bool line_start = true;
    for (const char *p = text; *p;) {
        if (*p == '\n') {
            mfi_buf_fmt(out, "\n%*s", (int)indent, "");
            column = indent;
            line_start = true;
            p++;
            continue;
        }
        size_t n = strcspn(p, " \n");
        if (!line_start && column + 1 + n > WIDTH) {
            mfi_buf_fmt(out, "\n%*s", (int)indent, "");
            column = indent;
            line_start = true;
        }
        if (!line_start) {
            mfi_buf_str(out, " ");
            column++;
        }
        mfi_buf_append(out, p, n);
        column += n;
        line_start = false;
        p += n;
        p += *p == ' ';
    }
    mfi_buf_str(out, "\n");
}

static void put_option(mfi_buf *out, const cli_option *option)
{
    mfi_buf left = {0}, text = {0};
    for (size_t i = 0; i < CLI_MAX_NAMES && option->names[i]; i++)
        mfi_buf_fmt(&left, "%s%s", i ? ", " : "  ", option->names[i]);
    if (option->arg)
        mfi_buf_fmt(&left, " %s", option->arg);
    mfi_buf_str(&text, option->help);
    if (option->fallback)
        mfi_buf_fmt(&text, " [%s]", option->fallback);
    char env[64];
    cli_env_name(option, env);
    if (*env)
        mfi_buf_fmt(&text, "\n(env %s)", env);
    if (left.failed || text.failed) {
        out->failed = true;
    } else {
        if (left.len + 2 > COLUMN)
            mfi_buf_fmt(out, "%s\n%*s", left.data, COLUMN, "");
        else
            mfi_buf_fmt(out, "%-*s", COLUMN, left.data);
        put_wrapped(out, text.data, COLUMN, COLUMN);
    }
    mfi_buf_free(&left);
    mfi_buf_free(&text);
}

void cli_help_command(cli_command_id id, mfi_buf *out)
{
    const cli_command *command = &cli_commands[id];
    mfi_buf_fmt(out, "moeflux %s: %s\n\nusage: moeflux %s %s\n\n", command->name, command->summary,
                command->name, command->usage);
    if (command->notes) {
        put_wrapped(out, command->notes, 0, 0);
        mfi_buf_str(out, "\n");
    }
    mfi_buf_str(out, "options [default]:\n");
    for (size_t i = 0; i < cli_n_options; i++)
        if (cli_options[i].commands >> id & 1)
            put_option(out, &cli_options[i]);
}

void cli_help_all(mfi_buf *out)
{
    mfi_buf_str(out, "moeflux: mixture-of-experts language models larger than memory\n\n"
                     "usage: moeflux COMMAND [options]\n\ncommands:\n");
    for (size_t i = 0; i < CLI_N_COMMANDS; i++)
        mfi_buf_fmt(out, "  %-10s %s\n", cli_commands[i].name, cli_commands[i].summary);
    mfi_buf_str(out,
                "  help       help for a command, as 'moeflux COMMAND --help'\n\n"
                "options:\n"
                "  -h, --help   this text\n"
                "  --version    the version\n\n"
                "environment: MOEFLUX_ARG_<OPTION> gives an option's default where the command's\n"
                "help names it (MOEFLUX_ARG_THREADS=4); the command line wins.\n\n"
                "exit codes:\n");
    for (size_t i = 0; cli_exit_texts[i].text; i++)
        mfi_buf_fmt(out, "  %-3d  %s\n", cli_exit_texts[i].code, cli_exit_texts[i].text);
}
