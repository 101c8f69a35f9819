/* The keeper: writes states of sessions to the prefix cache's folder while others are answered. A
 * thread of its own writes, piece by piece, from the session's memory, which nobody changes
 * meanwhile; all else is called on the engine's thread. A failure costs time later, not an answer
 * now. */
#include <string.h>

#include "server_int.h"

#define PIECE_BYTES MFI_MIB

/* ---- the thread ---- */

/* Writes until it is done, fails or is to be given up. */
static void write_all(srv_keeper *k, mf_keeping *job)
{
    mf_error err = {0};
    mf_status status = MF_OK;
    bool done = false, give_up = false;
    while (status == MF_OK && !done && !give_up) {
        status = mf_keeping_write(job, PIECE_BYTES, &done, &err);
        pthread_mutex_lock(&k->lock);
        give_up = k->give_up;
        pthread_mutex_unlock(&k->lock);
    }
    pthread_mutex_lock(&k->lock);
    k->status = status;
    k->err = err;
    k->done = true;
    pthread_cond_broadcast(&k->wake);
    pthread_mutex_unlock(&k->lock);
}

static void *run(void *user)
{
    srv_server *server = user;
    srv_keeper *k = &server->keeper;
    for (;;) {
        pthread_mutex_lock(&k->lock);
        while ((!k->job || k->done) && !k->stop)
            pthread_cond_wait(&k->wake, &k->lock);
        mf_keeping *job = k->job && !k->done ? k->job : NULL;
        pthread_mutex_unlock(&k->lock);
        if (!job)
            return NULL;
        write_all(k, job);
        pthread_mutex_lock(&server->worker.lock);
        server->worker.kept = true;
        pthread_cond_signal(&server->worker.wake);
        pthread_mutex_unlock(&server->worker.lock);
    }
}

bool srv_keeper_init(srv_server *server)
{
    srv_keeper *k = &server->keeper;
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->wake, NULL);
    if (server->options->engine.prefix_dir)
        k->running = pthread_create(&k->thread, NULL, run, server) == 0;
    return k->running || !server->options->engine.prefix_dir;
}

void srv_keeper_free(srv_server *server)
{
    srv_keeper *k = &server->keeper;
    if (k->running) {
        pthread_mutex_lock(&k->lock);
        k->stop = true;
        pthread_cond_broadcast(&k->wake);
        pthread_mutex_unlock(&k->lock);
        pthread_join(k->thread, NULL);
    }
    pthread_cond_destroy(&k->wake);
    pthread_mutex_destroy(&k->lock);
}

/* ---- the engine's thread ---- */

static void complain(srv_server *server, const mf_error *err)
{
    if (server->options->say)
        server->options->say(server->options->user, err->message);
}

bool srv_keeper_start(srv_server *server, uint32_t slot)
{
    srv_worker *w = &server->worker;
    srv_keeper *k = &server->keeper;
    mf_keeping *job = NULL;
    mf_error err = {0};
    if (!w->unkept[slot] || !server->options->engine.prefix_dir)
        return true;
    if (k->job)
        return false;
    w->unkept[slot] = false;
    if (mf_keeping_begin(&job, w->sessions[slot], &err) != MF_OK)
        complain(server, &err);
    if (!job)
        return true;
    pthread_mutex_lock(&k->lock);
    k->job = job;
    k->slot = slot;
    k->give_up = k->done = false;
    pthread_cond_broadcast(&k->wake);
    pthread_mutex_unlock(&k->lock);
    return true;
}

void srv_keeper_end(srv_server *server, uint32_t slot, bool give_up)
{
    srv_keeper *k = &server->keeper;
    if (!k->job || k->slot != slot)
        return;
    pthread_mutex_lock(&k->lock);
    k->give_up = give_up;
    while (!k->done)
        pthread_cond_wait(&k->wake, &k->lock);
    mf_keeping *job = k->job;
    mf_status status = k->status;
    mf_error err = k->err;
    k->job = NULL;
    pthread_mutex_unlock(&k->lock);
    mf_status end = mf_keeping_end(&job, status == MF_OK ? &err : &(mf_error){0});
    if (status != MF_OK || end != MF_OK)
        complain(server, &err);
}

bool srv_keeper_busy(srv_server *server, uint32_t slot)
{
    srv_keeper *k = &server->keeper;
    if (!k->job)
        return false;
    pthread_mutex_lock(&k->lock);
    bool done = k->done;
    pthread_mutex_unlock(&k->lock);
    if (done)
        srv_keeper_end(server, k->slot, false);
    return k->job && k->slot == slot;
}

void srv_keeper_finish(srv_server *server)
{
    srv_keeper *k = &server->keeper;
    for (uint32_t i = 0; i < server->options->parallel; i++) {
        if (k->job)
            srv_keeper_end(server, k->slot, false);
        srv_keeper_start(server, i);
    }
    if (k->job)
        srv_keeper_end(server, k->slot, false);
}
