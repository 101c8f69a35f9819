/* Parses a command's arguments after the table in option_table.c. Called once by main, on the main
 * thread; prints nothing and reads the environment only through the function it is handed. */
#include "options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/limits.h"
#include "size.h"

/* Formats the message; false, so that `return fail(...)` reads well. */
#define fail(message, ...) (mfi_buf_fmt((message), __VA_ARGS__), false)

/* ---- looking names up ---- */

static const char *long_name(const cli_option *option)
{
    for (size_t i = 0; i < CLI_MAX_NAMES && option->names[i]; i++)
        if (strncmp(option->names[i], "--", 2) == 0)
            return option->names[i];
    return option->names[0];
}

static bool has_name(const cli_option *option, const char *name, size_t len)
{
    for (size_t i = 0; i < CLI_MAX_NAMES && option->names[i]; i++)
        if (strlen(option->names[i]) == len && memcmp(option->names[i], name, len) == 0)
            return true;
    return false;
}

const cli_option *cli_option_find(const char *name, size_t len, cli_command_id command)
{
    for (size_t i = 0; i < cli_n_options; i++)
        if ((cli_options[i].commands >> command & 1) && has_name(&cli_options[i], name, len))
            return &cli_options[i];
    return NULL;
}

/* Insertions, deletions, replacements and swaps of neighbours that turn a into b; both short. */
#define NAME_MAX_LEN 40
static unsigned edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > NAME_MAX_LEN || m > NAME_MAX_LEN)
        return UINT32_MAX;
    unsigned d[NAME_MAX_LEN + 1][NAME_MAX_LEN + 1];
    for (size_t i = 0; i <= n; i++)
        d[i][0] = (unsigned)i;
    for (size_t j = 0; j <= m; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = MFI_MIN(best, d[i - 1][j] + 1);
            best = MFI_MIN(best, d[i][j - 1] + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = MFI_MIN(best, d[i - 2][j - 2] + 1);
            d[i][j] = best;
        }
    }
    return d[n][m];
}

/* Keeps the closer of two candidates for `name`; far ones are none. */
static void closer(const char *name, const char *candidate, const char **best, unsigned *distance)
{
    unsigned d = edit_distance(name, candidate);
    if (d < *distance && d <= MFI_MAX(strlen(name) / 3, 1)) {
        *best = candidate;
        *distance = d;
    }
}

const char *cli_option_suggest(const char *name, cli_command_id command)
{
    const char *best = NULL;
    unsigned distance = UINT32_MAX;
    for (size_t i = 0; i < cli_n_options; i++)
        for (size_t k = 0; k < CLI_MAX_NAMES && cli_options[i].names[k]; k++)
            if (cli_options[i].commands >> command & 1)
                closer(name, cli_options[i].names[k], &best, &distance);
    return best;
}

cli_command_id cli_command_find(const char *name)
{
    size_t id = 0;
    while (id < CLI_N_COMMANDS && strcmp(name, cli_commands[id].name) != 0)
        id++;
    return (cli_command_id)id;
}

const char *cli_command_suggest(const char *name)
{
    const char *best = NULL;
    unsigned distance = UINT32_MAX;
    for (size_t i = 0; i < CLI_N_COMMANDS; i++)
        closer(name, cli_commands[i].name, &best, &distance);
    return best;
}

bool cli_given(const cli_args *args, size_t offset)
{
    for (size_t i = 0; i < cli_n_options; i++)
        if (args->given[i] && cli_options[i].offset == offset)
            return true;
    return false;
}

void cli_env_name(const cli_option *option, char name[64])
{
    name[0] = 0;
    if (!option->env)
        return;
    size_t n = strlen("MOEFLUX_ARG_");
    memcpy(name, "MOEFLUX_ARG_", n);
    for (const char *p = long_name(option) + 2; *p && n + 1 < 64; p++)
        name[n++] = *p == '-' ? '_' : (char)(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
    name[n] = 0;
}

/* ---- values ---- */

static uint64_t physical_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
}

static bool is_choice(const cli_option *option, const char *text)
{
    size_t len = strlen(text);
    for (const char *p = option->choices;;) {
        size_t n = strcspn(p, "|");
        if (n == len && (option->any_case ? strncasecmp(p, text, n) : strncmp(p, text, n)) == 0)
            return true;
        if (!p[n])
            return false;
        p += n + 1;
    }
}

/* "15043-1.5": the first sign after the digits divides. */
static bool add_bias(cli_args *args, const char *text)
{
    size_t n = strspn(text, "0123456789");
    char id_text[16];
    int64_t id;
    double bias;
    if (n == 0 || n >= sizeof id_text || (text[n] != '+' && text[n] != '-'))
        return false;
    memcpy(id_text, text, n);
    id_text[n] = 0;
    if (!cli_parse_i64(id_text, &id) || id >= MFI_MAX_VOCAB)
        return false;
    if (strcmp(text + n, "-inf") == 0)
        bias = -INFINITY;
    else if (!cli_parse_f64(text + n, &bias) || fabs(bias) > 1e30)
        return false;
    mf_logit_bias *grown = realloc(args->bias, (args->n_bias + 1) * sizeof *grown);
    if (!grown)
        return false;
    args->bias = grown;
    args->bias[args->n_bias++] = (mf_logit_bias){(int32_t)id, (float)bias};
    return true;
}

/* A date and a time that exist, with fractions of a second perhaps; as the library takes it. */
static bool is_time(const char *text)
{
    static const char shape[] = "dddd-dd-ddTdd:dd:dd";
    struct tm tm = {0};
    for (size_t i = 0; i < sizeof shape - 1; i++)
        if (shape[i] == 'd' ? text[i] < '0' || text[i] > '9'
                            : text[i] != shape[i] && !(shape[i] == 'T' && text[i] == ' '))
            return false;
    const char *end =
        strptime(text, text[10] == 'T' ? "%Y-%m-%dT%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &tm);
    struct tm same = tm;
    timegm(&same); /* moves what is no date */
    return end && (!*end || *end == '.') && same.tm_mday == tm.tm_mday && same.tm_sec == tm.tm_sec;
}

/* No option of this kind takes an empty text. */
static bool add_text(cli_texts *texts, const char *text)
{
    const char **grown = *text ? realloc(texts->at, (texts->n + 1) * sizeof *grown) : NULL;
    if (!grown)
        return false;
    texts->at = grown;
    texts->at[texts->n++] = text;
    return true;
}

static bool parse_flag(const char *text, bool *out)
{
    static const char *const yes[] = {"true", "1", "on", "enabled", "yes"};
    static const char *const no[] = {"false", "0", "off", "disabled", "no"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(yes); i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *out = strcasecmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

/* Says what `text` should have been. */
static bool bad_value(const cli_option *option, const char *name, const char *text,
                      mfi_buf *message)
{
    mfi_buf_fmt(message, "%s: '%s' is not ", name, text);
    switch (option->kind) {
    case CLI_INT:
        return fail(message, "a whole number from %.0f to %.0f", option->lo, option->hi);
    case CLI_FLOAT:
        return fail(message, "a number from %g to %g", option->lo, option->hi);
    case CLI_SIZE:
        return fail(message, "a size; write bytes, 512M, 8G, 8GiB or 50%%");
    case CLI_CHOICE:
        return fail(message, "one of %s", option->choices);
    case CLI_SEED:
        return fail(message, "a whole number from -1 to 18446744073709551615");
    case CLI_BIAS:
        return fail(message, "TOKEN_ID+BIAS or TOKEN_ID-BIAS, as in 15043-1.5, of an id below %.0f",
                    (double)MFI_MAX_VOCAB);
    case CLI_FLAG:
        return fail(message, "one of true, 1, on, enabled, false, 0, off, disabled");
    case CLI_TEXTS:
        return fail(message, "a text of at least one byte");
    case CLI_TIME:
        return fail(message, "a time like 2025-03-09T14:05:07");
    case CLI_STRING:
        break;
    }
    return fail(message, "a value it can take");
}

/* Stores one value; `name` is how the user called the option. */
static bool store(cli_args *args, const cli_option *option, const char *name, const char *text,
                  mfi_buf *message)
{
    char *at = (char *)args + option->offset;
    bool ok = true;
    switch (option->kind) {
    case CLI_FLAG:
        ok = parse_flag(text, (bool *)(void *)at);
        break;
    case CLI_STRING:
        *(const char **)(void *)at = text;
        break;
    case CLI_INT: {
        int64_t v;
        ok = cli_parse_i64(text, &v) && (double)v >= option->lo && (double)v <= option->hi;
        if (ok)
            *(int64_t *)(void *)at = v;
        break;
    }
    case CLI_FLOAT: {
        double v;
        ok = cli_parse_f64(text, &v) && v >= option->lo && v <= option->hi;
        if (ok)
            *(double *)(void *)at = v;
        break;
    }
    case CLI_SIZE:
        ok = cli_parse_size(text, physical_memory(), (uint64_t *)(void *)at);
        break;
    case CLI_CHOICE:
        ok = is_choice(option, text);
        if (ok)
            *(const char **)(void *)at = text;
        break;
    case CLI_SEED:
        if (strcmp(text, "-1") == 0) { /* one is drawn, also where the environment names one */
            args->given[option - cli_options] = false;
            return true;
        }
        ok = cli_parse_u64(text, (uint64_t *)(void *)at);
        break;
    case CLI_BIAS:
        ok = add_bias(args, text);
        break;
    case CLI_TEXTS:
        ok = add_text((cli_texts *)(void *)at, text);
        break;
    case CLI_TIME:
        ok = is_time(text);
        if (ok)
            *(const char **)(void *)at = text;
        break;
    }
    if (!ok)
        return bad_value(option, name, text, message);
    args->given[option - cli_options] = true;
    return true;
}

/* ---- the argument list ---- */

static bool unknown_option(cli_command_id command, const char *arg, size_t len, mfi_buf *message)
{
    char name[NAME_MAX_LEN + 1];
    size_t n = MFI_MIN(len, (size_t)NAME_MAX_LEN);
    memcpy(name, arg, n);
    name[n] = 0;
    for (size_t id = 0; id < CLI_N_COMMANDS; id++)
        if (cli_option_find(name, n, (cli_command_id)id))
            return fail(message, "%s is no option of this command, though it is one of '%s'", name,
                        cli_commands[id].name);
    const char *close = cli_option_suggest(name, command);
    if (close)
        return fail(message, "unknown option %s; did you mean %s?", name, close);
    return fail(message, "unknown option %s", name);
}

/* Takes argv[*i] as an option and moves *i past it. */
static bool take_option(cli_args *args, int argc, const char *const *argv, int *i, mfi_buf *message)
{
    const char *arg = argv[(*i)++];
    bool is_long = strncmp(arg, "--", 2) == 0;
    size_t len = is_long ? strcspn(arg, "=") : strlen(arg);
    const cli_option *option = cli_option_find(arg, len, args->command);
    if (!option)
        return unknown_option(args->command, arg, len, message);
    char name[NAME_MAX_LEN + 1];
    memcpy(name, arg, len); /* as long as a name of the table */
    name[len] = 0;
    const char *value = arg[len] == '=' ? arg + len + 1 : NULL;
    if (option->kind == CLI_FLAG) {
        if (value)
            return fail(message, "%s takes no argument", name);
        value = "1";
    } else if (!value) {
        if (*i >= argc)
            return fail(message, "%s needs an argument, %s", name, option->arg);
        value = argv[(*i)++];
    }
    return store(args, option, name, value, message);
}

static bool take_positional(cli_args *args, const char *arg, mfi_buf *message)
{
    const cli_command *command = &cli_commands[args->command];
    if (args->n_positional >= MFI_ARRAY_LEN(command->positional) ||
        !command->positional[args->n_positional])
        return fail(message, "unexpected argument '%s'", arg);
    args->positional[args->n_positional++] = arg;
    return true;
}

static bool take_environment(cli_args *args, cli_env_fn env, mfi_buf *message)
{
    for (size_t i = 0; i < cli_n_options; i++) {
        const cli_option *option = &cli_options[i];
        if (!option->env || !(option->commands >> args->command & 1))
            continue;
        char name[64];
        cli_env_name(option, name);
        const char *value = env(name);
        if (value && *value && !store(args, option, name, value, message))
            return false;
    }
    return true;
}

static bool check_required(cli_args *args, bool model_from_flag, mfi_buf *message)
{
    const cli_command *command = &cli_commands[args->command];
    if (args->n_positional < command->n_required)
        return fail(message, "%s is missing; usage: moeflux %s %s",
                    command->positional[args->n_positional], command->name, command->usage);
    if (args->command == CLI_PLAN || args->command == CLI_INSPECT) {
        if (args->n_positional && model_from_flag)
            return fail(message, "the model is given twice, by --model and as '%s'",
                        args->positional[0]);
        if (args->n_positional)
            args->model = args->positional[0];
        if (!args->model)
            return fail(message, "-m/--model DIR is required");
    }
    for (size_t i = 0; i < cli_n_options; i++) {
        const cli_option *option = &cli_options[i];
        if (!(option->required >> args->command & 1) || args->given[i])
            continue;
        if (option->names[1])
            return fail(message, "%s/%s %s is required", option->names[0], option->names[1],
                        option->arg);
        return fail(message, "%s %s is required", option->names[0], option->arg);
    }
    return true;
}

bool cli_parse(cli_args *args, cli_command_id command, int argc, const char *const *argv,
               cli_env_fn env, mfi_buf *message)
{
    *args = (cli_args){
        .command = command, .predict = -1, .n_prompt = 512, .n_gen = 128, .repetitions = 5};
    if (env && !take_environment(args, env, message))
        return false;
    const char *env_model = args->model;
    bool only_positional = false;
    for (int i = 0; i < argc;) {
        const char *arg = argv[i];
        if (!only_positional && strcmp(arg, "--") == 0) {
            only_positional = true;
            i++;
        } else if (only_positional || arg[0] != '-' || !arg[1]) {
            i++;
            if (!take_positional(args, arg, message))
                return false;
        } else if (!take_option(args, argc, argv, &i, message)) {
            return false;
        }
    }
    return args->help || args->version || check_required(args, args->model != env_model, message);
}

void cli_args_free(cli_args *args)
{
    free(args->bias);
    args->bias = NULL;
    args->n_bias = 0;
    free(args->stop.at);
    args->stop = (cli_texts){0};
    free(args->allow_host.at);
    free(args->cors_origin.at);
    args->allow_host = args->cors_origin = (cli_texts){0};
}
