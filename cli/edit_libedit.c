/* The line editor: libedit with a reader of our own, so that signals come back as what they are,
 * and bracketed paste, which libedit lacks. Built with -DMF_EDIT only. Main thread only. The
 * terminal is libedit's while a line is read and as it was otherwise. */
#ifdef MF_HAVE_LIBEDIT

#include "edit.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "base/utf8.h"
#include "cli.h"
#include "signals.h"

#define HISTORY_ENTRIES 1000
#define PASTE_MAX       ((size_t)4 << 20) /* characters */
#define PASTE_ON        "\033[?2004h"
#define PASTE_OFF       "\033[?2004l"
#define REPLACEMENT     ((wchar_t)0xfffd)

struct cli_editor {
    EditLine *el;
    HistoryW *history;
    const wchar_t *prompt;
    cli_line ended; /* why the reader gave up, CLI_LINE: it didn't */
    int held;       /* a byte read too early, -1: none */
};

/* ---- UTF-8 and wide characters, which are code points here ---- */

/* How many bytes follow the first one; -1: it can't be first. */
static int n_following(unsigned char c)
{
    return c < 0x80                ? 0
           : c >= 0xc2 && c < 0xe0 ? 1
           : (c & 0xf0) == 0xe0    ? 2
           : c >= 0xf0 && c < 0xf5 ? 3
                                   : -1;
}

/* Decodes one character and moves *p behind it; what is none gives U+FFFD for one byte. */
static wchar_t decode(const char **p, const char *end)
{
    uint32_t cp;
    size_t n = mfi_utf8_decode(*p, end, &cp);
    *p += n ? n : 1;
    return n ? (wchar_t)cp : REPLACEMENT;
}

static void encode(mfi_buf *out, wchar_t c)
{
    uint32_t cp = (uint32_t)c;
    char s[4];
    if (cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
        cp = REPLACEMENT;
    mfi_buf_append(out, s, mfi_utf8_encode(cp, s));
}

static wchar_t *widen(const char *text, size_t len)
{
    wchar_t *wide = malloc((len + 1) * sizeof *wide);
    size_t n = 0;
    for (const char *p = text; wide && p < text + len;)
        wide[n++] = decode(&p, text + len);
    if (wide)
        wide[n] = 0;
    return wide;
}

/* ---- reading ---- */

static cli_editor *editor_of(EditLine *el)
{
    void *data = NULL;
    el_wget(el, EL_CLIENTDATA, &data);
    return data;
}

/* The terminal changed its size, or belongs to us again after it was somebody else's. */
static void mind_terminal(cli_editor *e)
{
    if (cli_signal_take_continue()) {
        el_wset(e->el, EL_PREP_TERM, 1);
        fputs(PASTE_ON, stdout);
        el_wset(e->el, EL_REFRESH);
    }
    if (cli_signal_take_resize())
        el_resize(e->el);
}

/* 1: *c is a byte; 0: the end, a signal or a failure, as e->ended says. */
static int read_byte(cli_editor *e, unsigned char *c)
{
    if (e->held >= 0) {
        *c = (unsigned char)e->held;
        e->held = -1;
        return 1;
    }
    for (;;) {
        mind_terminal(e);
        if (cli_signal_code()) {
            e->ended = CLI_LINE_INTERRUPT;
            return 0;
        }
        if (!cli_signals_wait(STDIN_FILENO))
            continue;
        ssize_t n = read(STDIN_FILENO, c, 1);
        if (n == 1)
            return 1;
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        e->ended = CLI_LINE_END; /* the terminal is gone */
        return 0;
    }
}

static int read_character(EditLine *el, wchar_t *out)
{
    cli_editor *e = editor_of(el);
    char s[4];
    unsigned char c;
    if (!read_byte(e, &c))
        return 0;
    int n = n_following(c);
    s[0] = (char)c;
    *out = REPLACEMENT;
    for (int i = 1; i <= n; i++) {
        if (!read_byte(e, &c))
            return 0;
        if ((c & 0xc0) != 0x80) {
            e->held = c;
            return 1;
        }
        s[i] = (char)c;
    }
    const char *p = s;
    if (n >= 0)
        *out = decode(&p, s + n + 1);
    return 1;
}

/* ---- functions bound to keys ---- */

/* Takes what stands between the brackets as text, whatever keys it looks like. */
static unsigned char paste(EditLine *el, wint_t c)
{
    static const wchar_t last[] = L"\033[201~";
    const size_t n_last = wcslen(last);
    wchar_t *text = NULL;
    size_t n = 0, cap = 0;
    bool whole = false;
    (void)c;
    while (!whole && n < PASTE_MAX) {
        if (n + 2 > cap) {
            cap = cap ? 2 * cap : 256;
            wchar_t *grown = realloc(text, cap * sizeof *text);
            if (!grown)
                break;
            text = grown;
        }
        if (read_character(el, &text[n]) != 1)
            break;
        n++;
        whole = n >= n_last && wmemcmp(text + n - n_last, last, n_last) == 0;
    }
    if (!whole) {
        free(text);
        return editor_of(el)->ended != CLI_LINE ? CC_EOF : CC_ERROR;
    }
    n -= n_last;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == L'\r' && i + 1 < n && text[i + 1] == L'\n')
            continue;
        text[kept++] = text[i] == L'\r' ? L'\n' : text[i] ? text[i] : REPLACEMENT;
    }
    text[kept] = 0;
    int failed = kept ? el_winsertstr(el, text) : 0;
    free(text);
    return failed ? CC_ERROR : CC_REFRESH;
}

static wchar_t *prompt_of(EditLine *el)
{
    return (wchar_t *)editor_of(el)->prompt; /* libedit doesn't write to it */
}

/* ---- life ---- */

/* The editor counts columns by the C library's tables, which need a locale of UTF-8; which one is
 * no matter. Numbers stay as they are. */
static bool set_utf8(void)
{
    static const char *const names[] = {"C.UTF-8", "en_US.UTF-8", "UTF-8"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(names); i++)
        if (setlocale(LC_CTYPE, names[i]))
            return true;
    return false;
}

static void bind_keys(EditLine *el)
{
    el_wset(el, EL_EDITOR, L"emacs");
    el_wset(el, EL_ADDFN, L"mf-paste", L"insert a bracketed paste", paste);
    el_wset(el, EL_BIND, L"\033[200~", L"mf-paste", NULL);
    el_wset(el, EL_BIND, L"^D", L"em-delete-or-list", NULL);
    el_wset(el, EL_BIND, L"^@", L"em-delete-or-list", NULL); /* Ctrl-D typed during an answer */
    el_wset(el, EL_BIND, L"\033[3~", L"ed-delete-next-char", NULL);
    el_wset(el, EL_BIND, L"\033[1~", L"ed-move-to-beg", NULL);
    el_wset(el, EL_BIND, L"\033[4~", L"ed-move-to-end", NULL);
    el_wset(el, EL_BIND, L"\033[1;5C", L"em-next-word", NULL);
    el_wset(el, EL_BIND, L"\033[1;5D", L"ed-prev-word", NULL);
    el_wset(el, EL_BIND, L"^R", L"em-inc-search-prev", NULL);
    el_wset(el, EL_BIND, L"^W", L"ed-delete-prev-word", NULL);
}

cli_editor *cli_editor_open(void)
{
    HistEventW event;
    if (!set_utf8())
        return NULL;
    cli_editor *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->held = -1;
    e->prompt = L"";
    e->history = history_winit();
    e->el = el_init("moeflux", stdin, stdout, stderr);
    if (!e->history || !e->el) {
        cli_editor_close(e);
        return NULL;
    }
    history_w(e->history, &event, H_SETSIZE, HISTORY_ENTRIES);
    history_w(e->history, &event, H_SETUNIQUE, 1);
    el_wset(e->el, EL_CLIENTDATA, e);
    el_wset(e->el, EL_PROMPT, prompt_of);
    el_wset(e->el, EL_HIST, history_w, e->history);
    el_wset(e->el, EL_SIGNAL, 0);
    el_wset(e->el, EL_GETCFN, read_character);
    bind_keys(e->el);
    return e;
}

void cli_editor_close(cli_editor *e)
{
    if (!e)
        return;
    if (e->el)
        el_end(e->el);
    if (e->history)
        history_wend(e->history);
    free(e);
}

cli_line cli_editor_read(cli_editor *e, const char *prompt, mfi_buf *line)
{
    int n = 0;
    wchar_t *wide = widen(prompt, strlen(prompt));
    if (!wide)
        return CLI_LINE_FAILED;
    e->prompt = wide;
    e->ended = CLI_LINE;
    fflush(stderr);
    /* Before the prompt is seen: what is typed after it shall not meet the terminal as it was. */
    el_wset(e->el, EL_PREP_TERM, 1);
    fputs(PASTE_ON, stdout);
    fflush(stdout);
    const wchar_t *text = el_wgets(e->el, &n);
    fputs(PASTE_OFF, stdout);
    e->prompt = L"";
    free(wide);
    if (!text || n <= 0) {
        fputs("\n", stdout);
        fflush(stdout);
        return e->ended != CLI_LINE ? e->ended : CLI_LINE_END;
    }
    fflush(stdout);
    if (text[n - 1] == L'\n' || text[n - 1] == L'\r')
        n--;
    for (int i = 0; i < n; i++)
        encode(line, text[i]);
    return CLI_LINE;
}

void cli_editor_remember(cli_editor *e, const char *text, size_t len)
{
    HistEventW event;
    wchar_t *wide = widen(text, len);
    if (wide)
        history_w(e->history, &event, H_ENTER, wide);
    free(wide);
}

#else
typedef int mfi_edit_libedit_is_empty; /* ISO C wants a declaration */
#endif
