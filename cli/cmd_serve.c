/* `moeflux serve`: models over HTTP. Turns options into the server's, and its words into lines on
 * standard error; the server itself is a library of its own. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "signals.h"

#ifdef MF_HAVE_SERVER
#include "input.h"
#include "server/server.h"
#include "size.h"

#define KEYS_MAX_BYTES ((size_t)1 << 20)

typedef struct keys {
    mfi_buf text;    /* the file, its lines cut by NUL */
    const char **at; /* [n] */
    size_t n;
} keys;

static void say(void *user, const char *line)
{
    cli_progress_clear(user);
    fprintf(stderr, "%s\n", line);
}

static bool stop_wanted(void)
{
    return cli_signal_code() != 0;
}

/* A key a line; empty lines and those that begin with # are none. */
static int read_keys(const char *path, keys *k)
{
    int code = cli_read_all(path, KEYS_MAX_BYTES, &k->text);
    k->at = calloc(MFI_MAX_API_KEYS, sizeof *k->at);
    if (!code && (!k->at || k->text.failed))
        return cli_error(CLI_EXIT_ROOM, "out of memory");
    for (char *line = k->text.data; !code && line && *line;) {
        char *end = line + strcspn(line, "\r\n"), *next = *end ? end + 1 : end;
        *end = 0;
        if (*line && *line != '#') {
            if (k->n == MFI_MAX_API_KEYS || strlen(line) > MFI_MAX_API_KEY_BYTES)
                return cli_error(CLI_EXIT_RUNTIME,
                                 "%s: more than %d keys, or one of more than %d "
                                 "bytes",
                                 path, MFI_MAX_API_KEYS, MFI_MAX_API_KEY_BYTES);
            k->at[k->n++] = line;
        }
        line = next;
    }
    if (!code && !k->n) /* or everybody would be let in */
        return cli_error(CLI_EXIT_RUNTIME, "%s holds no key", path);
    return code;
}

/* Sockets that systemd opened, if they are for this process. */
static int inherited(cli_env_fn env, unsigned *n)
{
    const char *pid = env("LISTEN_PID"), *count = env("LISTEN_FDS");
    int64_t of, fds;
    *n = 0;
    if (!pid || !count || !cli_parse_i64(pid, &of) || of != (int64_t)getpid())
        return CLI_EXIT_OK;
    if (!cli_parse_i64(count, &fds) || fds < 1 || fds > MFI_MAX_HTTP_LISTENERS)
        return cli_error(CLI_EXIT_USAGE, "LISTEN_FDS: '%s' is no number from 1 to %d", count,
                         MFI_MAX_HTTP_LISTENERS);
    *n = (unsigned)fds;
    return CLI_EXIT_OK;
}

static void take_sampling(const cli_args *args, srv_options *o)
{
    mf_sampling *s = &o->sampling;
    const struct {
        bool given;
        uint32_t bit;
        double value;
        float *to;
    } floats[] = {{CLI_GIVEN(args, temp), SRV_GIVEN_TEMPERATURE, args->temp, &s->temperature},
                  {CLI_GIVEN(args, top_p), SRV_GIVEN_TOP_P, args->top_p, &s->top_p},
                  {CLI_GIVEN(args, min_p), SRV_GIVEN_MIN_P, args->min_p, &s->min_p},
                  {CLI_GIVEN(args, repeat_penalty), SRV_GIVEN_REPEAT, args->repeat_penalty,
                   &s->repeat_penalty},
                  {CLI_GIVEN(args, presence_penalty), SRV_GIVEN_PRESENCE, args->presence_penalty,
                   &s->presence_penalty},
                  {CLI_GIVEN(args, frequency_penalty), SRV_GIVEN_FREQUENCY, args->frequency_penalty,
                   &s->frequency_penalty}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(floats); i++) {
        if (!floats[i].given)
            continue;
        *floats[i].to = (float)floats[i].value;
        o->sampling_given |= floats[i].bit;
    }
    if (CLI_GIVEN(args, top_k)) {
        s->top_k = (int32_t)args->top_k;
        o->sampling_given |= SRV_GIVEN_TOP_K;
    }
    if (CLI_GIVEN(args, repeat_last_n)) {
        s->repeat_last_n = (int32_t)args->repeat_last_n;
        o->sampling_given |= SRV_GIVEN_LAST_N;
    }
}

static void take_limits(const cli_args *args, srv_options *o)
{
    const struct {
        bool given;
        int64_t value;
        uint32_t *to;
    } numbers[] = {{CLI_GIVEN(args, parallel), args->parallel, &o->parallel},
                   {CLI_GIVEN(args, queue), args->queue, &o->queue},
                   {CLI_GIVEN(args, max_connections), args->max_connections, &o->max_connections},
                   {CLI_GIVEN(args, request_timeout), args->request_timeout, &o->request_s},
                   {CLI_GIVEN(args, idle_timeout), args->idle_timeout, &o->idle_s},
                   {CLI_GIVEN(args, write_timeout), args->write_timeout, &o->write_s},
                   {CLI_GIVEN(args, ping_interval), args->ping_interval, &o->ping_s},
                   {CLI_GIVEN(args, drain_timeout), args->drain_timeout, &o->drain_s}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(numbers); i++)
        if (numbers[i].given)
            *numbers[i].to = (uint32_t)numbers[i].value;
    if (CLI_GIVEN(args, max_body))
        o->max_body_bytes = args->max_body;
}

/* What no request could ever say would let nobody in, without a word. */
static int check_names(const cli_args *args)
{
    for (size_t i = 0; i < args->allow_host.n; i++) {
        const char *name = args->allow_host.at[i];
        size_t n = strcspn(name, ":/@ \t");
        if (n == 0 || name[n] || name[n - 1] == '.')
            return cli_usage_error("--allow-host: '%s' is not a name alone, without port or scheme",
                                   name);
    }
    for (size_t i = 0; i < args->cors_origin.n; i++) {
        const char *origin = args->cors_origin.at[i], *host = strstr(origin, "://");
        host = host && host > origin ? host + 3 : "";
        bool whole = *host && !host[strcspn(host, "/?#@ \t")];
        if (!whole && strcmp(origin, "*") != 0 && strcmp(origin, "null") != 0)
            return cli_usage_error("--cors-origin: '%s' is no origin; they are like "
                                   "https://example.org, without a path or a slash behind",
                                   origin);
    }
    return 0;
}

static int check_options(const cli_args *args)
{
    if (args->kv_disk && !args->kv_dir)
        return cli_usage_error("--kv-disk says how large --kv-dir may be, which is missing");
    if (args->max_body > MFI_MAX_HTTP_BODY_BYTES)
        return cli_usage_error("--max-body: at most 64M");
    if (args->unix_path && CLI_GIVEN(args, port) && !args->host)
        return cli_usage_error("--port is a network's, and with --unix there is none but with "
                               "--host");
    return check_names(args);
}

static int take_options(const cli_args *args, cli_env_fn env, keys *k, srv_options *o)
{
    int code = inherited(env, &o->n_inherited);
    if (!code)
        code = check_options(args);
    if (code)
        return code;
    o->port = CLI_GIVEN(args, port) ? (unsigned)args->port : o->port;
    o->unix_path = args->unix_path;
    /* A server with a socket file is on no network unless that is asked for. */
    o->host = args->host ? args->host : args->unix_path ? NULL : o->host;
    o->notify_socket = env("NOTIFY_SOCKET");
    o->allowed_hosts = args->allow_host.at;
    o->n_allowed_hosts = args->allow_host.n;
    o->cors_origins = args->cors_origin.at;
    o->n_cors_origins = args->cors_origin.n;
    o->alias = args->alias;
    o->chat_template = args->chat_template;
    o->now = args->now;
    o->raw_reasoning = args->reasoning_format && strcmp(args->reasoning_format, "none") == 0;
    take_limits(args, o);
    take_sampling(args, o);
    if (args->api_key_file)
        code = read_keys(args->api_key_file, k);
    o->keys = k->at;
    o->n_keys = k->n;
    return code;
}

int cli_serve(const cli_args *args, cli_env_fn env)
{
    srv_options options;
    cli_progress progress = {0};
    keys k = {{0}, NULL, 0};
    mf_error err = {0};
    srv_options_default(&options);
    cli_progress_init(&progress, args->no_progress);
    cli_engine_options(args, 0, &progress, &options.engine);
    options.say = say;
    options.user = &progress;
    options.stop_wanted = stop_wanted;
    options.stop_fd = cli_signals_fd();
    int code = take_options(args, env, &k, &options);
    if (!code)
        code = cli_report(srv_run(&options, &err), &err, CLI_OPENING);
    cli_progress_clear(&progress);
    mfi_buf_free(&k.text);
    free(k.at);
    return code;
}

#else

int cli_serve(const cli_args *args, cli_env_fn env)
{
    (void)args, (void)env;
    return cli_error(CLI_EXIT_RUNTIME, "this build has no server: llhttp was missing (Debian 12 "
                                       "has it in node-llhttp)");
}

#endif
