/* The entry of `moeflux`: finds the command, parses its options, runs it. The only place that reads
 * the environment and the only one that sets up the process (signals, the three standard
 * descriptors). */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "output.h"
#include "signals.h"

static const char *environment(const char *name)
{
    return getenv(name);
}

/* Where a standard descriptor is closed, the next file opened would take its place and receive what
 * is meant for the user. Fill it with one that fails on use. */
static void fill_standard_fds(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

static int print_help(cli_command_id command)
{
    mfi_buf text = {0};
    if (command == CLI_N_COMMANDS)
        cli_help_all(&text);
    else
        cli_help_command(command, &text);
    int code = cli_print(&text);
    mfi_buf_free(&text);
    return code;
}

static int print_man(void)
{
    mfi_buf text = {0};
    cli_man_page(&text);
    int code = cli_print(&text);
    mfi_buf_free(&text);
    return code;
}

static int unknown_command(const char *name)
{
    if (name[0] == '-')
        return cli_usage_error("the command comes first, before %s", name);
    const char *close = cli_command_suggest(name);
    if (close)
        return cli_usage_error("unknown command '%s'; did you mean %s?", name, close);
    return cli_usage_error("unknown command '%s'", name);
}

static int help(int argc, const char *const *argv)
{
    if (argc == 0)
        return print_help(CLI_N_COMMANDS);
    if (argc == 1 && strcmp(argv[0], "--man") == 0)
        return print_man();
    if (argc > 1)
        return cli_usage_error("help takes one command");
    cli_command_id command = cli_command_find(argv[0]);
    return command == CLI_N_COMMANDS ? unknown_command(argv[0]) : print_help(command);
}

static int dispatch(const cli_args *args)
{
    switch (args->command) {
    case CLI_RUN:
        return cli_run(args);
    case CLI_LOGITS:
        return cli_logits(args);
    case CLI_TOKENIZE:
        return cli_tokenize(args);
    case CLI_PLAN:
        return cli_plan(args);
    case CLI_EVAL:
        return cli_eval(args);
    case CLI_CONVERT:
        return cli_convert(args);
    case CLI_PACK:
        return cli_pack(args);
    case CLI_INSPECT:
        return cli_inspect(args);
    case CLI_BENCH:
        return cli_bench(args);
    case CLI_PERPLEXITY:
        return cli_perplexity(args);
    case CLI_IMATRIX:
        return cli_imatrix(args);
    case CLI_SYNTH:
        return cli_synth(args);
    case CLI_CHAT:
        return cli_chat_run(args, environment);
    case CLI_TEMPLATE:
        return cli_template(args);
    case CLI_FAMILIES:
        return cli_families(args);
    case CLI_DEVICES:
        return cli_devices(args);
    case CLI_SERVE:
        return cli_serve(args, environment);
    case CLI_TOP:
        return cli_top(args, environment);
    case CLI_COMPLETION:
        return cli_completion(args);
    case CLI_TRACE:
        return cli_trace(args);
    case CLI_REPLAY:
        return cli_replay(args);
    case CLI_N_COMMANDS:
        break;
    }
    return CLI_EXIT_USAGE;
}

static int print_version(void)
{
    mfi_buf text = {0};
    mfi_buf_fmt(&text, "moeflux %s\n", mf_version());
    int code = cli_print(&text);
    mfi_buf_free(&text);
    return code;
}

static int run_command(cli_command_id command, int argc, const char *const *argv)
{
    cli_args args;
    mfi_buf message = {0};
    int code;
    cli_set_command(cli_commands[command].name);
    cli_set_cache(environment);
    if (!cli_parse(&args, command, argc, argv, environment, &message))
        code = cli_usage_error("%s", message.failed ? "out of memory" : message.data);
    else if (args.help)
        code = print_help(command);
    else if (args.version)
        code = print_version();
    else
        code = dispatch(&args);
    cli_args_free(&args);
    mfi_buf_free(&message);
    return code;
}

int main(int argc, char **argv)
{
    const char *const *rest = (const char *const *)argv + 2;
    fill_standard_fds();
    cli_signals_install();
    if (argc < 2)
        return cli_usage_error("a command is missing");
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0)
        return print_version();
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return print_help(CLI_N_COMMANDS);
    if (strcmp(name, "help") == 0)
        return help(argc - 2, rest);
    cli_command_id command = cli_command_find(name);
    if (command == CLI_N_COMMANDS)
        return unknown_command(name);
    return run_command(command, argc - 2, rest);
}
