/* `moeflux top`: what a running engine does, in the terminal: over a server's API, or from the
 * file that --stats writes. Draws on the alternate screen, which every way out gives back. */
#include "top.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "cli.h"
#include "input.h"
#include "output.h"
#include "signals.h"
#include "size.h"
#ifdef MF_HAVE_SERVER
#include "server/server.h"
#endif

#define KEYS_MAX_BYTES ((size_t)1 << 20)
#define TIMEOUT_MS     5000
#define ENTER          "\x1b[?1049h\x1b[?25l\x1b[2J"
#define LEAVE          "\x1b[?25h\x1b[?1049l"

typedef struct top {
    const cli_args *args;
    top_picture picture;
    top_follow follow;
    mfi_buf status, experts; /* as the server sent them */
    mfi_buf keys;
    char host[256];
#ifdef MF_HAVE_SERVER
    srv_peer peer;
#endif
    top_screen screen;
    struct termios before; /* of the terminal */
    bool raw;
} top;

/* ---- where it comes from ---- */

#ifdef MF_HAVE_SERVER
static bool stop_wanted(void)
{
    return cli_signal_code() != 0;
}

/* http://HOST[:PORT][/] */
static int take_url(top *t, const char *url)
{
    const char *at = url, *colon;
    int64_t port = 80;
    char digits[8];
    if (strncmp(at, "http://", 7) != 0)
        return cli_usage_error("--url: '%s' doesn't begin with http://; TLS isn't spoken", url);
    at += 7;
    size_t n = *at == '[' ? strcspn(at, "]") : strcspn(at, ":/");
    bool brackets = *at == '[' && at[n] == ']';
    snprintf(t->host, sizeof t->host, "%.*s", (int)(brackets ? n - 1 : n), at + brackets);
    at += n + brackets;
    colon = *at == ':' ? at + 1 : NULL;
    if (colon) {
        snprintf(digits, sizeof digits, "%.*s", (int)strcspn(colon, "/"), colon);
        at = colon + strcspn(colon, "/");
    }
    if (!*t->host || (*at && strcmp(at, "/") != 0) || n >= sizeof t->host ||
        (colon && (!cli_parse_i64(digits, &port) || port < 1 || port > 65535)))
        return cli_usage_error("--url: '%s' is not like http://127.0.0.1:8080", url);
    t->peer.host = t->host;
    t->peer.port = (unsigned)port;
    return CLI_EXIT_OK;
}

/* The first key of the file. */
static int take_key(top *t, const char *path)
{
    int code = cli_read_all(path, KEYS_MAX_BYTES, &t->keys);
    for (char *line = t->keys.data; !code && line && *line;) {
        char *end = line + strcspn(line, "\r\n"), *next = *end ? end + 1 : end;
        *end = 0;
        if (*line && *line != '#') {
            t->peer.key = line;
            return CLI_EXIT_OK;
        }
        line = next;
    }
    return code ? code : cli_error(CLI_EXIT_RUNTIME, "%s holds no key", path);
}

static int take_peer(top *t)
{
    const cli_args *a = t->args;
    const char *url = a->url ? a->url : "http://127.0.0.1:8080";
    t->peer = (srv_peer){.name = a->unix_path ? a->unix_path : url,
                         .unix_path = a->unix_path,
                         .timeout_ms = TIMEOUT_MS,
                         .stop = stop_wanted};
    int code = a->unix_path ? CLI_EXIT_OK : take_url(t, url);
    return code || !a->api_key_file ? code : take_key(t, a->api_key_file);
}

/* A path's JSON. */
static bool get(top *t, const char *path, mfi_buf *body, mfi_json **v, mf_error *err)
{
    int status = 0;
    *v = NULL;
    if (srv_get(&t->peer, path, &status, body, err) != MF_OK)
        return false;
    if (mfi_json_parse(body->data ? body->data : "", body->len, path, v, err) != MF_OK &&
        status == 200)
        return false;
    if (status == 200)
        return true;
    char why[201];
    top_text(mfi_json_get(*v, "error"), "message", why, sizeof why);
    snprintf(err->message, sizeof err->message, "%s%s: status %d%s%s", t->peer.name, path, status,
             *why ? ": " : "", why);
    mfi_json_free(v);
    return false;
}

static bool fetch(top *t, mf_error *err)
{
    mfi_json *status, *experts;
    if (!get(t, "/api/status", &t->status, &status, err))
        return false;
    bool ok = top_take_status(&t->picture, status);
    mfi_json_free(&status);
    if (!ok) {
        snprintf(err->message, sizeof err->message, "%s: this is no moeflux", t->peer.name);
        return false;
    }
    if (!get(t, "/api/experts", &t->experts, &experts, err))
        return false;
    top_take_experts(&t->picture, experts);
    mfi_json_free(&experts);
    return true;
}
#endif

static int begin(top *t)
{
    const cli_args *a = t->args;
    if (!!a->url + !!a->unix_path + !!a->stats > 1)
        return cli_usage_error("--url, --unix and --stats say where to look: one of them");
    if (a->stats) {
        t->follow = (top_follow){.path = a->stats, .fd = -1};
        return a->json ? cli_usage_error("--json needs a server; FILE is JSON already")
                       : CLI_EXIT_OK;
    }
#ifdef MF_HAVE_SERVER
    return take_peer(t);
#else
    return cli_error(CLI_EXIT_RUNTIME,
                     "this build speaks no HTTP: llhttp was missing; --stats works");
#endif
}

/* One more look. Returns the exit code, with the failure in *err. */
static int look(top *t, mf_error *err)
{
    if (t->args->stats)
        return top_follow_read(&t->follow, &t->picture);
#ifdef MF_HAVE_SERVER
    if (!fetch(t, err))
        return CLI_EXIT_RUNTIME;
#else
    (void)err;
#endif
    return CLI_EXIT_OK;
}

/* ---- once ---- */

static void choose_screen(top *t, cli_env_fn env)
{
    struct winsize size = {0};
    const char *term = env("TERM"), *no = env("NO_COLOR"), *columns = env("COLUMNS");
    const char *locale = env("LC_ALL");
    int64_t n = 0;
    if (!locale || !*locale)
        locale = env("LC_CTYPE");
    if (!locale || !*locale)
        locale = env("LANG");
    t->screen = (top_screen){.columns = 200}; /* no terminal cuts it */
    if (columns && cli_parse_i64(columns, &n) && n >= 20 && n <= 1000)
        t->screen.columns = (unsigned)n;
    if (!isatty(STDOUT_FILENO))
        return;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col) {
        t->screen.columns = size.ws_col;
        t->screen.rows = size.ws_row;
    }
    t->screen.colours = term && *term && strcmp(term, "dumb") != 0 && !(no && *no);
    t->screen.utf8 = locale && (strstr(locale, "UTF-8") || strstr(locale, "utf8"));
}

static int show_once(top *t)
{
    mf_error err = {0};
    mfi_buf out = {0};
    int code = look(t, &err);
    if (code && err.message[0])
        return cli_signal_code() ? cli_signal_code() : cli_error(code, "%s", err.message);
    if (code)
        return code;
    t->screen.rows = 0;
    if (t->args->json)
        mfi_buf_fmt(&out, "{\"schema\":1,\"status\":%s,\"experts\":%s}\n", t->status.data,
                    t->experts.data);
    else
        top_draw(&t->picture, &t->screen, NULL, &out);
    code = cli_print(&out);
    mfi_buf_free(&out);
    return code;
}

/* ---- live ---- */

static bool write_all(const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDOUT_FILENO, text, len);
        if (n < 0 && errno == EINTR && !cli_signal_code())
            continue;
        if (n <= 0)
            return false;
        text += n;
        len -= (size_t)n;
    }
    return true;
}

/* Keys come at once and aren't shown; Ctrl-C stays a signal. Nothing stops it with the screen
 * taken. */
static bool enter(top *t)
{
    if (isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &t->before) == 0) {
        struct termios raw = t->before;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 0;
        raw.c_cc[VTIME] = 0;
        raw.c_cc[VSUSP] = raw.c_cc[VQUIT] = _POSIX_VDISABLE;
        t->raw = tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) == 0;
    }
    return write_all(ENTER, strlen(ENTER));
}

static void leave(top *t)
{
    size_t left = strlen(LEAVE);
    for (const char *at = LEAVE; left > 0;) { /* also after a signal */
        ssize_t n = write(STDOUT_FILENO, at, left);
        if (n < 0 && errno != EINTR)
            break;
        at += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    if (t->raw)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &t->before);
}

/* One write, every line cleared behind its text, so that nothing flickers. */
static bool redraw(top *t, const char *note)
{
    mfi_buf text = {0}, out = {0};
    top_draw(&t->picture, &t->screen, note, &text);
    mfi_buf_str(&out, "\x1b[?2026h\x1b[H");
    unsigned n = 0;
    for (size_t i = 0, from = 0; i < text.len && (!t->screen.rows || n < t->screen.rows); i++) {
        if (text.data[i] != '\n')
            continue;
        mfi_buf_str(&out, n++ ? "\r\n" : "");
        mfi_buf_append(&out, text.data + from, i - from);
        mfi_buf_str(&out, "\x1b[K");
        from = i + 1;
    }
    mfi_buf_str(&out, "\x1b[J\x1b[?2026l");
    bool ok = !text.failed && !out.failed && write_all(out.data, out.len);
    mfi_buf_free(&text);
    mfi_buf_free(&out);
    return ok;
}

/* Waits for a key, a signal or the time; true for q. */
static bool wait_or_quit(double seconds, int signals)
{
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                            {.fd = signals, .events = POLLIN}};
    char keys[64];
    if (cli_signal_code() || poll(fds, 2, (int)(seconds * 1000)) <= 0)
        return false;
    if (fds[1].revents) { /* the flag tells which; the byte goes, or the next wait would be none */
        (void)!read(signals, keys, sizeof keys);
        return false;
    }
    ssize_t n = read(STDIN_FILENO, keys, sizeof keys);
    return n > 0 && (memchr(keys, 'q', (size_t)n) || memchr(keys, 'Q', (size_t)n) ||
                     memchr(keys, 4, (size_t)n));
}

static int show_live(top *t, cli_env_fn env)
{
    mf_error err = {0};
    int code = look(t, &err), signals = cli_signals_fd();
    if (code && err.message[0])
        return cli_signal_code() ? cli_signal_code() : cli_error(code, "%s", err.message);
    if (code || !cli_signals_interactive())
        return code ? code : cli_error(CLI_EXIT_RUNTIME, "no pipe for signals");
    char note[256] = "q: quit";
    bool ok = enter(t);
    while (ok && !cli_signal_code()) {
        choose_screen(t, env); /* it may have another size now */
        ok = redraw(t, note);
        if (!ok || wait_or_quit(t->args->interval, signals))
            break;
        err.message[0] = 0;
        snprintf(note, sizeof note, "q: quit");
        if (!cli_signal_code() && look(t, &err) && err.message[0])
            snprintf(note, sizeof note, "q: quit   %.200s", err.message);
    }
    leave(t);
    return cli_signal_code() ? cli_signal_code() : ok ? CLI_EXIT_OK : CLI_EXIT_RUNTIME;
}

int cli_top(const cli_args *args, cli_env_fn env)
{
    top t = {.args = args, .follow = {.fd = -1}};
    cli_args own = *args;
    if (!CLI_GIVEN(args, interval))
        own.interval = 1;
    t.args = &own;
    int code = begin(&t);
    choose_screen(&t, env);
    if (!code)
        code =
            args->once || args->json || !isatty(STDOUT_FILENO) ? show_once(&t) : show_live(&t, env);
    top_picture_free(&t.picture);
    mfi_buf_free(&t.follow.line);
    if (t.follow.fd >= 0)
        close(t.follow.fd);
    mfi_buf_free(&t.status);
    mfi_buf_free(&t.experts);
    mfi_buf_free(&t.keys);
    return code;
}
