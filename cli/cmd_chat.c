/* `moeflux chat`: the loop that reads messages and commands. A turn is chat.c's, a line edit.c's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "chat.h"
#include "chat_state.h"
#include "edit.h"
#include "history.h"
#include "signals.h"

#define TOOLS_MAX_BYTES ((uint64_t)16 << 20)

#define BLOCK     "\"\"\""
#define BLOCK_LEN 3

typedef struct loop {
    cli_chat chat;
    cli_edit *edit;
    mfi_buf line, message;
    bool warned; /* the last thing typed was Ctrl-C at an empty prompt */
    bool leave;
    bool unknown; /* a command was none, or came to nothing, and nobody saw it */
} loop;

/* ---- commands ---- */

static int help(loop *l, const char *rest)
{
    (void)l;
    (void)rest;
    fputs("/clear        forget the conversation, but not the system message\n"
          "/system TEXT  set the system message; without TEXT there is none\n"
          "/tools FILE   tell the model of the tools in a JSON array; without FILE there are none\n"
          "/think on|off whether the model is to reason first, where its template has that\n"
          "/save FILE    write the conversation\n"
          "/load FILE    go on with one that was written\n"
          "/quit         leave, as Ctrl-D\n"
          "/help         this text\n"
          "A line that ends with \\ goes on in the next; \"\"\" begins and ends a message of "
          "several\n"
          "lines; // begins one with a slash. Ctrl-C stops an answer.\n",
          stderr);
    return CLI_EXIT_OK;
}

static int clear(loop *l, const char *rest)
{
    (void)rest;
    cli_chat_keep(&l->chat);
    cli_conversation_clear(&l->chat.conversation);
    cli_chat_reset(&l->chat);
    fputs("(cleared)\n", stderr);
    return CLI_EXIT_OK;
}

static int set_system(loop *l, const char *rest)
{
    if (!cli_conversation_system(&l->chat.conversation, *rest ? rest : NULL, strlen(rest)))
        return cli_error(CLI_EXIT_ROOM, "out of memory");
    fputs(*rest ? "(system message set)\n" : "(no system message)\n", stderr);
    return CLI_EXIT_OK;
}

/* The conversation goes on; the exit code remembers what nobody saw. */
static int told(loop *l)
{
    l->unknown = l->unknown || !l->chat.interactive;
    return CLI_EXIT_OK;
}

static int set_tools(loop *l, const char *rest)
{
    mfi_json *root = NULL;
    mfi_buf text = {0};
    mf_error err = {0};
    bool read = true;
    int code = CLI_EXIT_OK;
    size_t n = 0;
    if (*rest && mfi_json_parse_file(rest, TOOLS_MAX_BYTES, &root, &err) != MF_OK) {
        cli_error(CLI_EXIT_RUNTIME, "%s", err.message);
        return told(l);
    }
    if (*rest && mfi_json_typeof(root) != MFI_JSON_ARRAY)
        code = cli_error(CLI_EXIT_RUNTIME, "%s: no array of tools", rest);
    n = code ? 0 : mfi_json_len(root);
    if (n)
        mfi_json_put(&text, root);
    if (text.failed)
        code = cli_error(CLI_EXIT_ROOM, "out of memory");
    if (!code)
        code = cli_chat_set_tools(&l->chat, text.data, text.len, &read);
    if (!code && !read)
        code = cli_error(CLI_EXIT_RUNTIME, "the chat template does not tell the model of tools");
    mfi_json_free(&root);
    mfi_buf_free(&text);
    if (code)
        return told(l);
    if (n)
        fprintf(stderr, "(%zu tools)\n", n);
    else
        fputs("(no tools)\n", stderr);
    return CLI_EXIT_OK;
}

static int set_thinking(loop *l, const char *rest)
{
    bool on = strcmp(rest, "on") == 0, read;
    if (!on && strcmp(rest, "off") != 0) {
        cli_error(CLI_EXIT_RUNTIME, "/think takes on or off");
        return told(l);
    }
    if (cli_chat_set_thinking(&l->chat, on, &read))
        return told(l);
    if (!read) {
        cli_error(CLI_EXIT_RUNTIME, "the chat template does not read enable_thinking");
        return told(l);
    }
    fprintf(stderr, "(thinking %s)\n", rest);
    return CLI_EXIT_OK;
}

static int save(loop *l, const char *rest)
{
    if (!*rest)
        return cli_error(CLI_EXIT_RUNTIME, "/save needs a file");
    int code = cli_conversation_save(&l->chat.conversation, rest);
    if (!code)
        fprintf(stderr, "(%zu messages saved to %s)\n", l->chat.conversation.n, rest);
    return code;
}

static int load(loop *l, const char *rest)
{
    if (!*rest)
        return cli_error(CLI_EXIT_RUNTIME, "/load needs a file");
    cli_chat_keep(&l->chat);
    int code = cli_conversation_load(&l->chat.conversation, rest);
    if (!code)
        fprintf(stderr, "(%zu messages loaded from %s)\n", l->chat.conversation.n, rest);
    return code;
}

static int quit(loop *l, const char *rest)
{
    (void)rest;
    l->leave = true;
    return CLI_EXIT_OK;
}

static int run_command(loop *l, char *text)
{
    static const struct {
        const char *name;
        int (*run)(loop *l, const char *rest);
    } commands[] = {{"/help", help},       {"/clear", clear},        {"/system", set_system},
                    {"/tools", set_tools}, {"/think", set_thinking}, {"/save", save},
                    {"/load", load},       {"/quit", quit}};
    size_t n = strcspn(text, " \t\n"), len = strlen(text);
    char *rest = text + n + strspn(text + n, " \t\n");
    while (len && strchr(" \t", text[len - 1]))
        text[--len] = 0;
    for (size_t i = 0; i < MFI_ARRAY_LEN(commands); i++)
        if (strlen(commands[i].name) == n && memcmp(commands[i].name, text, n) == 0)
            return commands[i].run(l, rest);
    /* Also without a terminal the conversation goes on; the exit code remembers. */
    cli_error(CLI_EXIT_RUNTIME, "no command %.*s; /help lists them", (int)MFI_MIN(n, (size_t)40),
              text);
    return told(l);
}

/* ---- messages of several lines ---- */

static bool ends_with(const mfi_buf *text, size_t from, const char *end)
{
    size_t n = strlen(end);
    return text->len >= from + n && memcmp(text->data + text->len - n, end, n) == 0;
}

/* Reads on until the message is whole. */
static cli_line read_message(loop *l)
{
    mfi_buf *m = &l->message;
    m->len = 0;
    cli_line got = cli_edit_read(l->edit, "> ", &l->line);
    if (got != CLI_LINE)
        return got;
    mfi_buf_append(m, l->line.data, l->line.len);
    bool block = m->len >= BLOCK_LEN && memcmp(m->data, BLOCK, BLOCK_LEN) == 0;
    while (!m->failed) {
        if (block && ends_with(m, BLOCK_LEN, BLOCK)) {
            m->len -= 2 * BLOCK_LEN;
            memmove(m->data, m->data + BLOCK_LEN, m->len);
            m->data[m->len] = 0;
            break;
        }
        if (!block && !ends_with(m, 0, "\\"))
            break;
        if (!block)
            m->data[--m->len] = 0;
        got = cli_edit_read(l->edit, "... ", &l->line);
        if (got == CLI_LINE_END)
            break; /* what there is will do */
        if (got != CLI_LINE)
            return got;
        mfi_buf_str(m, "\n");
        mfi_buf_append(m, l->line.data, l->line.len);
    }
    if (!m->failed)
        return CLI_LINE;
    cli_error(CLI_EXIT_ROOM, "out of memory");
    return CLI_LINE_FAILED;
}

static bool is_blank(const mfi_buf *text)
{
    return strspn(text->data, " \t\r\n") == text->len;
}

/* ---- the loop ---- */

static int answer(loop *l, const char *text, size_t len)
{
    int code = cli_chat_turn(&l->chat, text, len);
    if (l->chat.interactive) {
        cli_signal_take_interrupt(); /* it has had its effect */
        if (l->chat.out.error == EINTR)
            l->chat.out.error = 0;
    }
    return code;
}

static int take_json(loop *l)
{
    mf_error err = {0};
    mfi_buf *text = &l->message;
    int code =
        cli_report(mfi_json_scan(l->line.data, l->line.len, "message", &err), &err, CLI_RUNNING);
    if (code)
        return code;
    text->len = 0;
    mfi_buf_append(text, "", 0);
    if (!mfi_json_span_str(mfi_json_root(l->line.data, l->line.len), text))
        return cli_error(CLI_EXIT_RUNTIME, "a message is not a JSON string");
    return answer(l, text->data, text->len);
}

static int take_message(loop *l)
{
    mfi_buf *m = &l->message;
    if (is_blank(m))
        return CLI_EXIT_OK;
    cli_edit_remember(l->edit, m->data, m->len);
    bool slash = m->data[0] == '/', twice = slash && m->data[1] == '/';
    if (slash && !twice)
        return run_command(l, m->data);
    return answer(l, m->data + twice, m->len - twice);
}

/* Ctrl-C at the prompt. False: leave. */
static bool interrupted(loop *l)
{
    if (!l->chat.interactive || !cli_signal_take_interrupt() || cli_signal_code())
        return false;
    if (l->warned) {
        l->leave = true;
        return false;
    }
    l->warned = true;
    fputs("(Ctrl-C once more or Ctrl-D leaves)\n", stderr);
    return true;
}

/* Whether to go on after a turn or a command that failed: with people yes, while there is somebody
 * to talk to. */
static bool goes_on(const loop *l, int code)
{
    if (cli_signal_code() || l->chat.out.error)
        return false;
    return !code || l->chat.interactive;
}

static int talk(loop *l)
{
    int code = CLI_EXIT_OK;
    while (!l->leave && goes_on(l, code)) {
        cli_line got = l->chat.args->jsonl ? cli_edit_read(l->edit, "", &l->line) : read_message(l);
        if (got == CLI_LINE_FAILED)
            return CLI_EXIT_RUNTIME;
        if (got == CLI_LINE_END)
            return l->unknown ? CLI_EXIT_RUNTIME : CLI_EXIT_OK;
        if (got == CLI_LINE_INTERRUPT) {
            if (!interrupted(l))
                return l->leave ? CLI_EXIT_SIGINT : cli_signal_code();
            continue;
        }
        l->warned = false;
        code = l->chat.args->jsonl ? take_json(l) : take_message(l);
    }
    if (cli_signal_code())
        return cli_signal_code();
    if (l->leave)
        return l->unknown ? CLI_EXIT_RUNTIME : CLI_EXIT_OK;
    return code;
}

static int open_chat(loop *l, const cli_args *args, cli_env_fn env)
{
    cli_chat *chat = &l->chat;
    mf_error err = {0};
    if (args->kv_disk && !args->kv_dir)
        return cli_usage_error("--kv-disk says how large --kv-dir may be, which is missing");
    int code = cli_grammar_open(args, &chat->grammar);
    if (!code)
        code = cli_template_open(args, &chat->template);
    if (!code)
        code = cli_engine_open(args, 0, &chat->progress, &chat->engine);
    if (code)
        return code;
    const mf_tokenizer *tokenizer = mf_engine_tokenizer(chat->engine);
    if (!tokenizer || !(chat->template || mf_tokenizer_has_chat_template(tokenizer)))
        return cli_error(CLI_EXIT_MODEL, "%s has no %s", args->model,
                         tokenizer ? "chat template" : "tokenizer");
    code = cli_choose_sampling(args, chat->engine, &chat->sampling);
    if (!code)
        code = cli_report(mf_session_open(&chat->session, chat->engine, &err), &err, CLI_OPENING);
    if (!code && args->load)
        code = cli_chat_load(chat, args->load);
    if (!code && args->system &&
        !cli_conversation_system(&chat->conversation, args->system, strlen(args->system)))
        code = cli_error(CLI_EXIT_ROOM, "out of memory");
    if (code)
        return code;
    chat->interactive = isatty(STDIN_FILENO) == 1 && cli_signals_interactive();
    char *history = args->no_history || args->jsonl ? NULL : cli_history_path(env);
    const char *term = env("TERM");
    bool plain = args->simple_io || args->jsonl || !term || strcmp(term, "dumb") == 0;
    l->edit = cli_edit_open(plain, history);
    free(history);
    if (chat->interactive && !args->jsonl)
        fputs("/help lists the commands, Ctrl-D leaves\n", stderr);
    return l->edit ? CLI_EXIT_OK : CLI_EXIT_ROOM;
}

int cli_chat_run(const cli_args *args, cli_env_fn env)
{
    loop l = {.chat = {.args = args}};
    cli_progress_init(&l.chat.progress, args->no_progress);
    int code = open_chat(&l, args, env);
    if (!code) {
        cli_output_open(&l.chat.out, STDOUT_FILENO, "standard output");
        code = talk(&l);
        cli_chat_keep(&l.chat);
        if (args->save && !cli_signal_code()) {
            int save_code = cli_chat_save(&l.chat, args->save);
            code = code ? code : save_code;
        }
        int write_code = cli_output_close(&l.chat.out);
        code = write_code ? write_code : code;
    }
    cli_edit_close(l.edit);
    mf_session_close(&l.chat.session);
    code = cli_engine_close(&l.chat.engine, code);
    mf_template_close(&l.chat.template);
    mf_grammar_close(&l.chat.grammar);
    cli_conversation_free(&l.chat.conversation);
    mfi_buf_free(&l.chat.timeline);
    mfi_buf_free(&l.chat.tools);
    cli_answer_free(&l.chat.answer);
    mfi_buf_free(&l.line);
    mfi_buf_free(&l.message);
    return code;
}
