/* The server's start and end; see server.h. The caller's thread becomes the engine's. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server_int.h"

#define LINE_BYTES 512

void srv_options_default(srv_options *o)
{
    *o = (srv_options){.host = "127.0.0.1",
                       .port = 8080,
                       .parallel = 1,
                       .queue = 32,
                       .max_connections = 256,
                       .max_body_bytes = 8 * MFI_MIB,
                       .request_s = 30,
                       .idle_s = 75,
                       .write_s = 60,
                       .ping_s = 10,
                       .drain_s = 10,
                       .stop_fd = -1};
    mf_engine_options_default(&o->engine);
    mf_sampling_default(&o->sampling);
}

static void say(const srv_options *o, const char *fmt, ...) MFI_PRINTF(2, 3);
static void say(const srv_options *o, const char *fmt, ...)
{
    char line[LINE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (o->say)
        o->say(o->user, line);
}

/* ---- sockets ---- */

static mf_status listen_all(const srv_options *o, srv_listeners *ls, mf_error *err)
{
    if (o->n_inherited)
        MFI_TRY(srv_listen_inherited(ls, o->n_inherited, err));
    if (o->unix_path)
        MFI_TRY(srv_listen_unix(ls, o->unix_path, err));
    if (o->host && !o->n_inherited)
        MFI_TRY(srv_listen_tcp(ls, o->host, o->port, err));
    for (size_t i = 0; i < ls->n; i++)
        if (!ls->at[i].loopback && !o->n_keys)
            say(o, "warning: %s is reachable from other machines and needs no API key",
                ls->at[i].address);
    return MF_OK;
}

/* ---- the model ---- */

/* Nobody waits for a prompt whose client left. While the model opens it is the caller's. */
static bool on_progress(void *user, const char *what, const char *unit, uint64_t done,
                        uint64_t total)
{
    srv_server *server = user;
    const mf_engine_options *o = &server->options->engine;
    if (!atomic_load(&server->ready))
        return !o->progress || o->progress(o->progress_user, what, unit, done, total);
    const srv_choice *c = server->worker.alone;
    return !c || !atomic_load(&c->job->x->gone);
}

static void name_model(srv_server *server)
{
    const char *path = server->options->engine.model_path;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    const char *begin = path + n;
    while (begin > path && begin[-1] != '/')
        begin--;
    if (server->options->alias)
        snprintf(server->model, sizeof server->model, "%s", server->options->alias);
    else
        snprintf(server->model, sizeof server->model, "%.*s", (int)(path + n - begin), begin);
}

static void choose_sampling(srv_server *server)
{
    const mf_sampling *o = &server->options->sampling;
    uint32_t given = server->options->sampling_given;
    mf_sampling *s = &server->sampling;
    mf_sampling_default(s);
    mf_engine_sampling(server->engine, s);
    s->temperature = given & SRV_GIVEN_TEMPERATURE ? o->temperature : s->temperature;
    s->top_k = given & SRV_GIVEN_TOP_K ? o->top_k : s->top_k;
    s->top_p = given & SRV_GIVEN_TOP_P ? o->top_p : s->top_p;
    s->min_p = given & SRV_GIVEN_MIN_P ? o->min_p : s->min_p;
    s->repeat_penalty = given & SRV_GIVEN_REPEAT ? o->repeat_penalty : s->repeat_penalty;
    s->presence_penalty = given & SRV_GIVEN_PRESENCE ? o->presence_penalty : s->presence_penalty;
    s->frequency_penalty =
        given & SRV_GIVEN_FREQUENCY ? o->frequency_penalty : s->frequency_penalty;
    s->repeat_last_n = given & SRV_GIVEN_LAST_N ? o->repeat_last_n : s->repeat_last_n;
}

static void no_part(void *user, mf_output_kind kind, uint32_t call, const char *bytes, size_t len)
{
    (void)user, (void)kind, (void)call, (void)bytes, (void)len;
}

static mf_status find_notation(srv_server *server, mf_error *err)
{
    const mf_output_options options = {.struct_size = sizeof options,
                                       .tokenizer = server->tokenizer,
                                       .chat_template = server->chat_template,
                                       .on_part = no_part};
    mf_output *output = NULL;
    MFI_TRY(mf_output_open(&output, &options, err));
    snprintf(server->notation, sizeof server->notation, "%s", mf_output_notation(output));
    mf_output_close(&output);
    return MF_OK;
}

static mf_status open_model(srv_server *server, mf_error *err)
{
    mf_engine_options engine = server->options->engine;
    size_t len;
    engine.n_sessions = server->options->parallel;
    engine.grammars = engine.watched = true;
    engine.progress = on_progress;
    engine.progress_user = server;
    if (server->options->chat_template)
        MFI_TRY(mf_template_open(&server->chat_template, server->options->chat_template, err));
    MFI_TRY(mf_engine_open(&server->engine, &engine, err));
    server->tokenizer = mf_engine_tokenizer(server->engine);
    if (!server->tokenizer)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s has no tokenizer", engine.model_path);
    server->info.struct_size = sizeof server->info;
    mf_engine_info(server->engine, &server->info);
    server->longest_token = 1;
    for (int32_t id = 0; id < mf_tokenizer_n_vocab(server->tokenizer); id++) {
        mf_tokenizer_piece(server->tokenizer, id, true, &len);
        server->longest_token = MFI_MAX(server->longest_token, len);
    }
    choose_sampling(server);
    MFI_TRY(find_notation(server, err));
    return srv_worker_open_sessions(server, err);
}

/* ---- threads ---- */

static void *loop_thread(void *user)
{
    srv_server *server = user;
    srv_loop_run(&server->loop);
    atomic_store(&server->loop_over, true);
    srv_worker_wake(server);
    return NULL;
}

static void on_draining(void *user)
{
    srv_server *server = user;
    atomic_store(&server->stopping, true);
    srv_store_close(&server->store); /* nobody could ask for what is made in the background */
    srv_notify(server->options->notify_socket, "STOPPING=1");
}

static void tell_ready(srv_server *server, const srv_listeners *ls)
{
    atomic_store(&server->ready, true);
    for (size_t i = 0; i < ls->n; i++)
        say(server->options, "%s: listening on %s", server->model, ls->at[i].address);
    srv_notify(server->options->notify_socket, "READY=1");
}

/* The loop listens at once, so that a taken port is told at once; it answers once the model is
 * open. */
static mf_status serve(srv_server *server, mf_error *err)
{
    srv_listeners ls = {0};
    pthread_t loop, desk;
    mf_status status = listen_all(server->options, &ls, err);
    if (status != MF_OK) {
        srv_listeners_close(&ls);
        return status;
    }
    server->loop.listeners = &ls;
    const srv_listeners listening = ls;
    if (pthread_create(&loop, NULL, loop_thread, server) != 0) {
        srv_listeners_close(&ls);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "can't start a thread");
    }
    bool has_desk = false;
    status = open_model(server, err);
    if (status == MF_OK) {
        has_desk = pthread_create(&desk, NULL, srv_desk_run, server) == 0;
        if (!has_desk || !srv_curves_start(server))
            status = mfi_fail(err, MF_ERR_NO_MEMORY, "can't start a thread");
    }
    if (status == MF_OK) {
        tell_ready(server, &listening);
        srv_worker_run(server);
    }
    atomic_store(&server->failed, status != MF_OK);
    srv_wake_up(&server->loop.wake);
    pthread_join(loop, NULL);
    srv_curves_stop(server);
    srv_desk_stop(server);
    if (has_desk)
        pthread_join(desk, NULL);
    srv_worker_drop_queue(server);
    return status;
}

mf_status srv_run(const srv_options *options, mf_error *err)
{
    srv_server *server = calloc(1, sizeof *server);
    if (!server)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the server");
    server->options = options;
    server->created_s = (int64_t)time(NULL);
    server->loop = (srv_loop){.options = options,
                              .handle = srv_desk_handle,
                              .open_path = srv_desk_open_path,
                              .draining = on_draining,
                              .cut = &server->failed,
                              .room = {.max = SRV_ROOM_BODIES * options->max_body_bytes},
                              .user = server};
    name_model(server);
    srv_page_init(server);
    srv_metrics_init(&server->metrics);
    srv_curves_init(&server->curves);
    srv_store_init(&server->store);
    srv_conversations_init(&server->conversations);
    bool status_ready = srv_status_init(&server->status, options->parallel);
    bool worker = srv_worker_init(server), desk = srv_desk_init(server);
    bool keeper = srv_keeper_init(server);
    mf_status status = status_ready && worker && desk && keeper && srv_wake_open(&server->loop.wake)
                           ? serve(server, err)
                           : mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the server");
    srv_desk_free(server);
    srv_keeper_free(server);
    srv_worker_free(server);
    srv_curves_free(&server->curves);
    srv_store_free(&server->store);
    srv_conversations_free(&server->conversations);
    srv_status_free(&server->status);
    srv_metrics_free(&server->metrics);
    if (status == MF_OK) /* what it was to write beside may have failed */
        status = mf_engine_flush(server->engine, err);
    mf_engine_close(&server->engine);
    mf_template_close(&server->chat_template);
    srv_wake_close(&server->loop.wake);
    free(server);
    return status;
}
