/* The command line's table, parser, sizes, help and progress line; no process is started. */
#include "fake/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "options.h"
#include "progress.h"
#include "size.h"

/* Parses words separated by '|'; *message holds the complaint on failure. */
static bool parse(cli_args *args, cli_command_id command, const char *words, cli_env_fn env,
                  mfi_buf *message)
{
    static char copy[1024];
    const char *argv[32];
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", words);
    for (char *p = copy; p && *words; argc++) {
        argv[argc] = p;
        p = strchr(p, '|');
        if (p)
            *p++ = 0;
    }
    message->len = 0;
    return cli_parse(args, command, argc, argv, env, message);
}

static void accepts(cli_command_id command, const char *words)
{
    cli_args args;
    mfi_buf message = {0};
    if (!parse(&args, command, words, NULL, &message))
        fail_msg("%s %s: %s", cli_commands[command].name, words, message.data);
    cli_args_free(&args);
    mfi_buf_free(&message);
}

static void refuses(cli_command_id command, const char *words, const char *why)
{
    cli_args args;
    mfi_buf message = {0};
    if (parse(&args, command, words, NULL, &message))
        fail_msg("%s %s was accepted", cli_commands[command].name, words);
    if (!strstr(message.data, why))
        fail_msg("%s %s: '%s' lacks '%s'", cli_commands[command].name, words, message.data, why);
    assert_null(strchr(message.data, '\n'));
    cli_args_free(&args);
    mfi_buf_free(&message);
}

static void values_are_stored(void **state)
{
    (void)state;
    cli_args args;
    mfi_buf message = {0};
    assert_true(parse(&args, CLI_RUN,
                      "-m|dir|--prompt=a=b|-n|-1|--ctx-size|512|-t|3|--temp|0.5|--top-k=7|"
                      "--memory|1.5G|-l|15043-1.5|--logit-bias|7-inf|--seed|18446744073709551615|"
                      "--ignore-eos|--activations=q8",
                      NULL, &message));
    assert_string_equal(args.model, "dir");
    assert_string_equal(args.prompt, "a=b");
    assert_int_equal(args.predict, -1);
    assert_int_equal(args.ctx, 512);
    assert_int_equal(args.threads, 3);
    assert_true(args.temp == 0.5);
    assert_int_equal(args.top_k, 7);
    assert_int_equal(args.memory, 3u << 29);
    assert_int_equal(args.n_bias, 2);
    assert_int_equal(args.bias[0].id, 15043);
    assert_true(args.bias[0].bias == -1.5f);
    assert_true(isinf(args.bias[1].bias) && args.bias[1].bias < 0);
    assert_true(args.seed == UINT64_MAX);
    assert_true(args.ignore_eos);
    assert_false(args.raw);
    assert_string_equal(args.activations, "q8");
    assert_true(CLI_GIVEN(&args, temp));
    assert_false(CLI_GIVEN(&args, top_p));
    cli_args_free(&args);
    mfi_buf_free(&message);
}

static void bad_lines_are_refused(void **state)
{
    (void)state;
    refuses(CLI_RUN, "-p|x", "-m/--model DIR is required");
    refuses(CLI_RUN, "-m", "-m needs an argument");
    refuses(CLI_RUN, "-m|d|--raw=1", "--raw takes no argument");
    refuses(CLI_RUN, "-m|d|--tempp|1", "did you mean --temp?");
    refuses(CLI_RUN, "-m|d|--thraeds|1", "did you mean --threads?");
    refuses(CLI_RUN, "-m|d|--zzzzzzzz", "unknown option --zzzzzzzz");
    refuses(CLI_RUN, "-m|d|stray", "unexpected argument 'stray'");
    refuses(CLI_RUN, "-m|d|-t|0", "from 1 to 256");
    refuses(CLI_RUN, "-m|d|-t|3x", "'3x' is not a whole number");
    refuses(CLI_RUN, "-m|d|-t|", "'' is not a whole number");
    refuses(CLI_RUN, "-m|d|-n|-2", "from -1 to");
    refuses(CLI_RUN, "-m|d|--temp|nan", "not a number");
    refuses(CLI_RUN, "-m|d|--top-p|1.01", "from 0 to 1");
    refuses(CLI_RUN, "-m|d|--memory|8GB", "not a size");
    refuses(CLI_RUN, "-m|d|--activations|q4", "one of auto|f32|q8");
    refuses(CLI_RUN, "-m|d|--seed|18446744073709551616", "whole number");
    refuses(CLI_RUN, "-m|d|-l|5", "TOKEN_ID+BIAS");
    refuses(CLI_RUN, "-m|d|-l|-5", "TOKEN_ID+BIAS");
    refuses(CLI_RUN, "-m|d|-l|99999999+1", "TOKEN_ID+BIAS");
    refuses(CLI_TOKENIZE, "-m|d|--temp|1", "it is one of 'run'");
    refuses(CLI_LOGITS, "-m|d|-o|x", "--ids FILE is required");
    refuses(CLI_LOGITS, "-m|d|--ids|x", "-o/--output OUT is required");
    refuses(CLI_EVAL, "-m|d", "FILE.jsonl is missing");
    refuses(CLI_CONVERT, "in", "OUT is missing");
    refuses(CLI_CONVERT, "in|out", "--quant TYPE is required");
    refuses(CLI_CONVERT, "in|out|--quant|mlx7", "one of mlx4");
    refuses(CLI_CONVERT, "in|out|--quant|mlx", "one of mlx4");
    refuses(CLI_PLAN, "", "-m/--model DIR is required");
    refuses(CLI_PLAN, "-m|a|b", "given twice");
}

static void good_lines_are_accepted(void **state)
{
    (void)state;
    accepts(CLI_PLAN, "dir");
    accepts(CLI_PLAN, "-m|dir|--json");
    accepts(CLI_EVAL, "-m|dir|--|-file.jsonl");
    accepts(CLI_EVAL, "file|-m|dir|-n|3");
    accepts(CLI_CONVERT, "in|out|--quant|mlx8|--group-size|32|--dense-bits=8");
    accepts(CLI_RUN, "-m|d|-f|-");
    accepts(CLI_RUN, "--help"); /* without what is required otherwise */
    accepts(CLI_RUN, "--version");
    accepts(CLI_CONVERT, "in|out.gguf|--quant|Q4_K"); /* in either case */
    accepts(CLI_SYNTH, "--shape|gpt-oss-20b|--quant|MXFP4|-o|x.gguf|-t|2");
    accepts(CLI_IMATRIX, "-m|d|-f|text");
    for (int id = 0; id < CLI_N_COMMANDS; id++) {
        const cli_command_id command = (cli_command_id)id;
        assert_non_null(cli_option_find("-t", 2, command));
        assert_non_null(cli_option_find("--threads", 9, command));
        assert_non_null(cli_option_find("--version", 9, command));
        assert_non_null(cli_option_find("--help", 6, command));
    }
}

static const char *env(const char *name)
{
    if (strcmp(name, "MOEFLUX_ARG_THREADS") == 0)
        return "5";
    if (strcmp(name, "MOEFLUX_ARG_CTX_SIZE") == 0)
        return "100";
    if (strcmp(name, "MOEFLUX_ARG_MODEL") == 0)
        return "from-env";
    if (strcmp(name, "MOEFLUX_ARG_RAW") == 0)
        return "enabled";
    if (strcmp(name, "MOEFLUX_ARG_SEED") == 0)
        return "9";
    if (strcmp(name, "MOEFLUX_ARG_TOP_K") == 0)
        return ""; /* as if unset */
    if (strcmp(name, "MOEFLUX_ARG_PROMPT") == 0)
        return "not a set-up";
    return NULL;
}

static const char *bad_env(const char *name)
{
    return strcmp(name, "MOEFLUX_ARG_THREADS") == 0 ? "many" : NULL;
}

static void environment_is_below_flags(void **state)
{
    (void)state;
    cli_args args;
    mfi_buf message = {0};
    assert_true(parse(&args, CLI_RUN, "-c|200|--seed|-1", env, &message));
    assert_string_equal(args.model, "from-env");
    assert_int_equal(args.threads, 5);
    assert_int_equal(args.ctx, 200);
    assert_true(args.raw);
    assert_false(CLI_GIVEN(&args, top_k));
    assert_false(CLI_GIVEN(&args, seed)); /* -1 takes the environment's away */
    assert_null(args.prompt);
    cli_args_free(&args);
    assert_true(parse(&args, CLI_PLAN, "dir", env, &message));
    assert_string_equal(args.model, "dir");
    cli_args_free(&args);
    assert_false(parse(&args, CLI_RUN, "-m|d", bad_env, &message));
    assert_non_null(strstr(message.data, "MOEFLUX_ARG_THREADS: 'many'"));
    cli_args_free(&args);
    mfi_buf_free(&message);
}

static void help_names_every_option(void **state)
{
    (void)state;
    assert_true(cli_n_options <= CLI_MAX_OPTIONS);
    for (int id = 0; id < CLI_N_COMMANDS; id++) {
        mfi_buf text = {0};
        cli_help_command((cli_command_id)id, &text);
        for (size_t i = 0; i < cli_n_options; i++) {
            const cli_option *option = &cli_options[i];
            char name[64];
            for (size_t k = 0; k < CLI_MAX_NAMES && option->names[k]; k++) {
                snprintf(name, sizeof name, k ? ", %s" : "\n  %s", option->names[k]);
                if (option->commands >> id & 1)
                    assert_non_null(strstr(text.data, name));
            }
            cli_env_name(option, name);
            if (*name && (option->commands >> id & 1))
                assert_non_null(strstr(text.data, name));
            assert_true((option->kind == CLI_FLAG) == !option->arg);
            assert_true((option->kind == CLI_CHOICE) == !!option->choices);
            /* One meaning a command. */
            if (option->commands >> id & 1)
                assert_ptr_equal(
                    cli_option_find(option->names[0], strlen(option->names[0]), (cli_command_id)id),
                    option);
        }
        for (const char *p = text.data; *p; p += strcspn(p, "\n"), p += *p == '\n')
            assert_true(strcspn(p, "\n") <= 100);
        mfi_buf_free(&text);
    }
}

static void numbers_are_strict(void **state)
{
    (void)state;
    int64_t i = 0;
    uint64_t u = 0;
    double f = 0;
    assert_true(cli_parse_i64("-9223372036854775808", &i) && i == INT64_MIN);
    assert_true(cli_parse_i64("9223372036854775807", &i) && i == INT64_MAX);
    assert_true(cli_parse_i64("+7", &i) && i == 7);
    assert_true(cli_parse_u64("18446744073709551615", &u) && u == UINT64_MAX);
    assert_true(cli_parse_f64("-.5e+1", &f) && f == -5);
    assert_true(cli_parse_f64("3.", &f) && f == 3);
    assert_true(cli_parse_f64("1e-400", &f) && f == 0);
    static const char *const bad_ints[] = {"",
                                           "-",
                                           "+",
                                           " 1",
                                           "1 ",
                                           "0x10",
                                           "1.0",
                                           "--1",
                                           "+-1",
                                           "9223372036854775808",
                                           "-9223372036854775809"};
    for (size_t k = 0; k < MFI_ARRAY_LEN(bad_ints); k++)
        if (cli_parse_i64(bad_ints[k], &i))
            fail_msg("'%s' is no int64", bad_ints[k]);
    static const char *const bad_floats[] = {"",    ".",  "-",   "1e",  "e1",   "inf",  "nan",
                                             "0x1", " 1", "1e+", "1,5", "1.5f", "1e999"};
    for (size_t k = 0; k < MFI_ARRAY_LEN(bad_floats); k++)
        if (cli_parse_f64(bad_floats[k], &f))
            fail_msg("'%s' is no number", bad_floats[k]);
    assert_false(cli_parse_u64("18446744073709551616", &u));
    assert_false(cli_parse_u64("-1", &u));
}

static void sizes_are_strict(void **state)
{
    (void)state;
    const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"1", 1},
                {"4096", 4096},
                {"16M", 16 << 20},
                {"16m", 16 << 20},
                {"8KiB", 8192},
                {"8kib", 8192},
                {"1.5G", 3u << 29},
                {"0.5K", 512},
                {"2T", (uint64_t)2 << 40},
                {"16777215T", (uint64_t)16777215 << 40},
                {"50%", 500},
                {"0.1%", 1},
                {"100%", 1000}};
    uint64_t bytes = 7;
    for (size_t i = 0; i < MFI_ARRAY_LEN(good); i++) {
        if (!cli_parse_size(good[i].text, 1000, &bytes) || bytes != good[i].bytes)
            fail_msg("%s gave %llu", good[i].text, (unsigned long long)bytes);
    }
    static const char *const bad[] = {"",
                                      "0",
                                      "K",
                                      "-1",
                                      "1.5",
                                      "8GB",
                                      "8 G",
                                      "8G ",
                                      "1.G",
                                      ".5G",
                                      "101%",
                                      "100.1%",
                                      "0%",
                                      "16777216T",
                                      "99999999999999999999",
                                      "1.0000000001G",
                                      "1e3",
                                      "8GiBB",
                                      "%"};
    bytes = 7;
    for (size_t i = 0; i < MFI_ARRAY_LEN(bad); i++)
        if (cli_parse_size(bad[i], 1000, &bytes))
            fail_msg("'%s' is no size", bad[i]);
    assert_int_equal(bytes, 7);
}

static void exit_codes_follow_the_phase(void **state)
{
    (void)state;
    assert_int_equal(cli_exit_code(MF_ERR_FILE_MISSING, CLI_OPENING), 3);
    assert_int_equal(cli_exit_code(MF_ERR_FILE_TRUNCATED, CLI_OPENING), 3);
    assert_int_equal(cli_exit_code(MF_ERR_FILE_TRUNCATED, CLI_RUNNING), 5);
    assert_int_equal(cli_exit_code(MF_ERR_IO, CLI_RUNNING), 5);
    assert_int_equal(cli_exit_code(MF_ERR_BUDGET, CLI_OPENING), 4);
    assert_int_equal(cli_exit_code(MF_ERR_DISK_FULL, CLI_RUNNING), 4);
    assert_int_equal(cli_exit_code(MF_ERR_TENSOR_BOUNDS, CLI_OPENING), 3);
    assert_int_equal(cli_exit_code(MF_ERR_CONTEXT, CLI_RUNNING), 1);
    assert_int_equal(cli_exit_code(MF_ERR_ARGUMENT, CLI_OPENING), 2);
    assert_int_equal(cli_exit_code(MF_ERR_ARGUMENT, CLI_RUNNING), 1);
    assert_int_equal(cli_exit_code(MF_OK, CLI_RUNNING), 0);
}

static void progress_lines(void **state)
{
    (void)state;
    mfi_buf line = {0};
    cli_progress_line(&line, "loading", "bytes", 1 << 20, 4 << 20, 1000000000);
    assert_string_equal(line.data, "loading:  25 %, 1.0 MiB of 4.0 MiB, 1.0 MiB/s, 0:03 left");
    line.len = 0;
    cli_progress_line(&line, "prompt", "tokens", 150, 300, 100000000000);
    assert_string_equal(line.data, "prompt:  50 %, 150 of 300 tokens, 1.5 tokens/s, 1:40 left");
    line.len = 0;
    cli_progress_line(&line, "x", "bytes", 0, 0, 5);
    assert_string_equal(line.data, "x: 0 bytes");
    mfi_buf_free(&line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_stored),       cmocka_unit_test(bad_lines_are_refused),
        cmocka_unit_test(good_lines_are_accepted), cmocka_unit_test(environment_is_below_flags),
        cmocka_unit_test(help_names_every_option), cmocka_unit_test(numbers_are_strict),
        cmocka_unit_test(sizes_are_strict),        cmocka_unit_test(exit_codes_follow_the_phase),
        cmocka_unit_test(progress_lines),
    };
    return mft_run(tests);
}
