/* The engine's thread: takes jobs from the queue, gives each choice a session, advances all of them
 * a pass at a time, and hands tokens to the protocols. The only thread that touches engine and
 * sessions. Knows no protocol and no socket. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "server_int.h"

#define PAUSE_BYTES   ((size_t)256 << 10) /* unsent, above which an answer isn't made any longer */
#define PAUSE_WAIT_MS 20

/* ---- the queue ---- */

bool srv_worker_init(srv_server *server)
{
    srv_worker *w = &server->worker;
    size_t n = server->options->parallel;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    w->sessions = calloc(n, sizeof *w->sessions);
    w->busy = calloc(n, sizeof *w->busy);
    w->used = calloc(n, sizeof *w->used);
    w->list = calloc(n, sizeof *w->list);
    w->unkept = calloc(n, sizeof *w->unkept);
    return w->sessions && w->busy && w->used && w->list && w->unkept;
}

mf_status srv_worker_open_sessions(srv_server *server, mf_error *err)
{
    for (uint32_t i = 0; i < server->options->parallel; i++)
        MFI_TRY(mf_session_open(&server->worker.sessions[i], server->engine, err));
    return MF_OK;
}

void srv_worker_free(srv_server *server)
{
    srv_worker *w = &server->worker;
    for (uint32_t i = 0; w->sessions && i < server->options->parallel; i++)
        mf_session_close(&w->sessions[i]);
    free(w->sessions);
    free(w->busy);
    free(w->used);
    free(w->list);
    free(w->unkept);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
}

void srv_worker_wake(srv_server *server)
{
    pthread_mutex_lock(&server->worker.lock);
    pthread_cond_signal(&server->worker.wake);
    pthread_mutex_unlock(&server->worker.lock);
}

void srv_worker_add(srv_server *server, srv_job *job)
{
    srv_worker *w = &server->worker;
    pthread_mutex_lock(&w->lock);
    job->queued_ns = mfi_clock_ns();
    for (size_t i = 0; i < job->n_choices; i++) {
        srv_choice *c = &job->choices[i];
        if (w->last)
            w->last->next = c;
        else
            w->first = c;
        w->last = c;
        w->n_waiting++;
    }
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

static srv_choice *take_first(srv_worker *w)
{
    pthread_mutex_lock(&w->lock);
    srv_choice *c = w->first;
    if (c) {
        w->first = c->next;
        if (!w->first)
            w->last = NULL;
        w->n_waiting--;
    }
    pthread_mutex_unlock(&w->lock);
    return c;
}

/* ---- ends ---- */

/* A choice is over; with the last one the job is. */
static void choice_over(srv_server *server, srv_choice *c)
{
    srv_job *job = c->job;
    srv_metrics_choice(&server->metrics, c, mfi_clock_ns());
    srv_choice_release(c);
    if (++job->n_done < job->n_choices)
        return;
    if (!job->failed && !atomic_load(&job->x->gone))
        job->protocol->end(job);
    srv_server_let_go(server);
    srv_job_free(job);
}

/* One that failed ends the whole request. */
static void job_failed(srv_job *job, mf_status status, const char *message)
{
    if (job->failed)
        return;
    job->failed = true;
    int http = status == MF_ERR_CONTEXT || status == MF_ERR_ARGUMENT ? 400 : 500;
    if (status == MF_ERR_CANCELLED || status == MF_ERR_NO_MEMORY)
        http = 503;
    bool too_long = status == MF_ERR_CONTEXT;
    job->x->error_code = too_long ? "context_length_exceeded" : NULL;
    if (job->stream || job->background)
        job->protocol->stream_error(job, message);
    else
        srv_reply_error(job->x, http, too_long ? "exceed_context_size_error" : NULL, NULL, "%s",
                        message);
}

static void choice_failed(srv_choice *c, mf_status status, const mf_error *err)
{
    if (!atomic_load(&c->job->x->gone))
        job_failed(c->job, status, err->message[0] ? err->message : mf_status_text(status));
}

static bool unwanted(const srv_choice *c)
{
    return c->job->failed || atomic_load(&c->job->x->gone);
}

static void free_slot(srv_server *server, uint32_t slot)
{
    srv_worker *w = &server->worker;
    srv_choice *c = w->busy[slot];
    w->busy[slot] = NULL;
    pthread_mutex_lock(&w->lock);
    w->n_running--;
    pthread_mutex_unlock(&w->lock);
    choice_over(server, c);
}

/* ---- sessions ---- */

static size_t common(const mf_session *session, const int32_t *ids, size_t n_ids)
{
    const int32_t *past = mf_session_tokens(session);
    size_t n = MFI_MIN(mf_session_length(session), n_ids), i = 0;
    while (i < n && past[i] == ids[i])
        i++;
    return i;
}

/* Whether a session must be written before another conversation can have it. */
static bool keeps_waiting(const srv_server *server, uint32_t slot)
{
    const srv_keeper *k = &server->keeper;
    return server->worker.unkept[slot] || (k->job && k->slot == slot);
}

/* The free session that begins as the prompt does, or else one that is on the drive, or else the
 * one that rested longest. */
static bool find_slot(const srv_server *server, const srv_choice *c, uint32_t *slot)
{
    const srv_worker *w = &server->worker;
    size_t best = 0;
    bool found = false;
    uint32_t empty = UINT32_MAX;
    *slot = 0;
    for (uint32_t i = 0; i < server->options->parallel; i++) {
        if (w->busy[i])
            continue;
        if (mf_session_length(w->sessions[i]) == 0)
            empty = i;
        size_t n = common(w->sessions[i], c->ids, c->n_ids);
        bool waits = keeps_waiting(server, i), sooner = w->used[i] < w->used[*slot];
        if (found && waits != keeps_waiting(server, *slot))
            sooner = !waits;
        if (!found || n > best || (n == best && sooner)) {
            best = n;
            *slot = i;
            found = true;
        }
    }
    /* A session stays with its conversation: a beginning that both share is copied. */
    if (found && empty != UINT32_MAX && best < mf_session_length(w->sessions[*slot]) / 2)
        *slot = empty;
    return found;
}

/* Before a session becomes another conversation's what it holds is kept; what a conversation goes
 * on from is kept later, whole. */
static bool turns_away(const srv_server *server, const srv_choice *c)
{
    const mf_session *session = server->worker.sessions[c->slot];
    return common(session, c->ids, c->n_ids) < mf_session_length(session) / 2 || c->job->echo;
}

static mf_status begin(srv_server *server, srv_choice *c, mf_error *err)
{
    mf_session *session = server->worker.sessions[c->slot];
    c->started_ns = mfi_clock_ns();
    srv_metrics_started(&server->metrics, c, c->started_ns);
    if (!c->job->started_ns) {
        c->job->started_ns = c->started_ns;
        c->job->stats_before.struct_size = sizeof c->job->stats_before;
        mf_engine_stats(server->engine, &c->job->stats_before);
        if (c->job->protocol->begun)
            c->job->protocol->begun(c->job);
    }
    c->begun = true;
    server->worker.unkept[c->slot] = !c->job->echo;
    if (c->job->echo) {
        mf_session_reset(session);
        return MF_OK;
    }
    return srv_choice_begin(c, session, err);
}

/* Lets a choice that has a session begin, once that is free of what it held. */
static void try_begin(srv_server *server, srv_choice *c)
{
    mf_error err = {0};
    if (!turns_away(server, c))
        srv_keeper_end(server, c->slot, true);
    else if (srv_keeper_busy(server, c->slot) || !srv_keeper_start(server, c->slot) ||
             srv_keeper_busy(server, c->slot))
        return;
    mf_status status = begin(server, c, &err);
    if (status != MF_OK) {
        choice_failed(c, status, &err);
        free_slot(server, c->slot);
    }
}

/* Gives free sessions to who waits. */
static void admit(srv_server *server)
{
    srv_worker *w = &server->worker;
    for (uint32_t n = 0; n < server->options->parallel; n++) {
        uint32_t free_slots = 0;
        for (uint32_t i = 0; i < server->options->parallel; i++)
            free_slots += !w->busy[i];
        srv_choice *c = free_slots ? take_first(w) : NULL;
        if (!c)
            return;
        if (unwanted(c)) {
            choice_over(server, c);
            continue;
        }
        find_slot(server, c, &c->slot);
        w->busy[c->slot] = c;
        w->used[c->slot] = ++w->n_taken;
        pthread_mutex_lock(&w->lock);
        w->n_running++;
        pthread_mutex_unlock(&w->lock);
        try_begin(server, c);
    }
}

/* ---- a pass ---- */

/* Evaluates a part of a prompt that is echoed; once it is whole the answer begins. */
static void advance_echo(srv_server *server, srv_choice *c)
{
    mf_session *session = server->worker.sessions[c->slot];
    mf_error err = {0};
    bool done = false;
    server->worker.alone = c;
    mf_status status = srv_echo_step(server, c, session, &done, &err);
    server->worker.alone = NULL;
    if (status == MF_OK && done && c->job->max_tokens == 0) {
        c->result.stop = MF_STOP_LENGTH;
        srv_choice_end(c);
        free_slot(server, c->slot);
        return;
    }
    if (status == MF_OK && done)
        status = srv_choice_begin(c, session, &err);
    if (status != MF_OK) {
        choice_failed(c, status, &err);
        free_slot(server, c->slot);
    }
}

/* Whoever reads too slowly waits. */
static bool paused(const srv_choice *c)
{
    return atomic_load(&c->job->x->waiting_bytes) > PAUSE_BYTES;
}

/* Whose turn it is: [n] in worker.list. */
static size_t collect(srv_server *server, bool *echoes)
{
    srv_worker *w = &server->worker;
    size_t n = 0;
    *echoes = false;
    for (uint32_t i = 0; i < server->options->parallel; i++) {
        if (w->busy[i] && unwanted(w->busy[i]))
            free_slot(server, i);
        if (w->busy[i] && !w->busy[i]->begun)
            try_begin(server, w->busy[i]);
        srv_choice *c = w->busy[i];
        if (!c || !c->begun)
            continue;
        if (!c->generation) {
            *echoes = true;
            advance_echo(server, c);
        } else if (!paused(c)) {
            w->list[n++] = c->generation;
        }
    }
    return n;
}

static void finish_done(srv_server *server)
{
    srv_worker *w = &server->worker;
    for (uint32_t i = 0; i < server->options->parallel; i++) {
        srv_choice *c = w->busy[i];
        mf_error err = {0};
        if (!c || !c->generation || !mf_generation_done(c->generation))
            continue;
        mf_status status = mf_generation_result(c->generation, &c->result, &err);
        if (status == MF_OK && !unwanted(c)) {
            srv_choice_end(c);
            if (c->out_of_memory)
                job_failed(c->job, MF_ERR_NO_MEMORY, "out of memory");
        } else if (status != MF_OK) {
            choice_failed(c, status, &err);
            mf_generation_end(&c->generation); /* the next prompt mends the session */
        }
        free_slot(server, i);
    }
}

static void note_engine(srv_server *server, bool passed)
{
    mf_stats stats = {.struct_size = sizeof stats};
    srv_worker *w = &server->worker;
    size_t used = 0;
    mf_engine_stats(server->engine, &stats);
    for (uint32_t i = 0; i < server->options->parallel; i++)
        used += mf_session_length(w->sessions[i]);
    pthread_mutex_lock(&server->metrics.lock);
    server->metrics.engine = stats;
    server->metrics.passes += passed;
    server->metrics.kv_used_tokens = used;
    server->metrics.kv_tokens = (size_t)server->info.ctx * server->options->parallel;
    pthread_mutex_unlock(&server->metrics.lock);
}

static void pass(srv_server *server, size_t n)
{
    srv_worker *w = &server->worker;
    mf_error err = {0};
    size_t n_running;
    for (uint32_t i = 0; n == 1 && i < server->options->parallel; i++)
        if (w->busy[i] && w->busy[i]->generation == w->list[0])
            w->alone = w->busy[i];
    mf_status status = mf_engine_step(server->engine, w->list, n, &n_running, &err);
    w->alone = NULL;
    for (uint32_t i = 0; status != MF_OK && i < server->options->parallel; i++)
        if (w->busy[i] && w->busy[i]->generation) { /* none of them can go on */
            choice_failed(w->busy[i], status, &err);
            free_slot(server, i);
        }
    note_engine(server, true); /* first: who got an answer may ask what it cost */
    finish_done(server);
}

/* Nobody is answered: time to write. */
static void keep_free_ones(srv_server *server)
{
    for (uint32_t i = 0; i < server->options->parallel; i++)
        if (!server->worker.busy[i] && !srv_keeper_busy(server, i))
            srv_keeper_start(server, i);
}

/* Sleeps until there is something to do. False: the loop is over. */
static bool wait_for_work(srv_server *server, bool some_paused)
{
    srv_worker *w = &server->worker;
    pthread_mutex_lock(&w->lock);
    if (some_paused) { /* nobody can go on; who comes wakes it */
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += PAUSE_WAIT_MS * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&w->wake, &w->lock, &until);
    } else {
        while (!w->first && !w->n_running && !w->kept && !atomic_load(&server->loop_over))
            pthread_cond_wait(&w->wake, &w->lock);
    }
    w->kept = false;
    bool over = atomic_load(&server->loop_over) && !w->first && !w->n_running;
    pthread_mutex_unlock(&w->lock);
    return !over;
}

void srv_worker_drop_queue(srv_server *server)
{
    for (srv_choice *c = take_first(&server->worker); c; c = take_first(&server->worker)) {
        c->job->failed = true;
        choice_over(server, c);
    }
}

void srv_worker_run(srv_server *server)
{
    bool some_paused = false, echoes;
    note_engine(server, false);
    srv_status_note(server);
    while (wait_for_work(server, some_paused)) {
        admit(server);
        size_t n = collect(server, &echoes);
        srv_status_note(server);
        if (n > 0)
            pass(server, n);
        srv_status_note(server);
        some_paused = n == 0 && !echoes && server->worker.n_running > 0;
        if (!server->worker.n_running)
            keep_free_ones(server);
    }
    srv_keeper_finish(server);
}
