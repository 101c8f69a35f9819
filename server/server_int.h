/* The server's insides, shared by its threads. */
#ifndef SRV_SERVER_INT_H
#define SRV_SERVER_INT_H

#include "conversations.h"
#include "job.h"
#include "loop.h"
#include "metrics.h"
#include "server.h"
#include "status.h"
#include "store.h"

/* Writes states of sessions to the drive, on a thread of its own, one at a time. */
typedef struct srv_keeper {
    pthread_t thread;
    bool running; /* the thread */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    mf_keeping *job; /* NULL: nothing to write */
    bool give_up, done, stop;
    mf_status status;
    mf_error err;
    uint32_t slot; /* the engine's thread's, as long as there is a job */
} srv_keeper;

/* The engine's thread's: who is answered and who waits. */
typedef struct srv_worker {
    mf_session **sessions;   /* [n_slots] */
    srv_choice **busy;       /* [n_slots]; NULL: free */
    uint64_t *used;          /* [n_slots] when it was last taken, counted */
    mf_generation **list;    /* [n_slots] scratch */
    const srv_choice *alone; /* whose prompt a pass is for; NULL: several */
    bool *unkept;            /* [n_slots] the prefix cache on disk hasn't seen its timeline */
    uint64_t n_taken;
    pthread_mutex_t lock; /* for what follows */
    pthread_cond_t wake;
    srv_choice *first, *last; /* the queue */
    uint32_t n_waiting, n_running;
    bool kept; /* the keeper has finished something */
} srv_worker;

/* The desk's: requests that were not looked at yet. */
typedef struct srv_desk {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    srv_exchange **ring; /* [cap] */
    size_t cap, at, n;
    size_t each; /* half of it: for requests, for looking at stored answers */
    bool stop;
} srv_desk;

typedef struct srv_server {
    const srv_options *options;
    mf_engine *engine; /* the engine's thread's; what follows may be read by all once `ready` */
    const mf_tokenizer *tokenizer;
    mf_template *chat_template; /* NULL: the model's */
    mf_model_info info;
    mf_sampling sampling; /* defaults */
    char model[256];      /* its name */
    size_t longest_token; /* bytes */
    char notation[32];    /* of reasoning and calls */
    int64_t created_s;
    char page_headers[768];
    _Atomic bool ready, stopping, loop_over, failed;
    _Atomic uint32_t n_requests; /* that wait or run */
    _Atomic uint32_t n_lookups;  /* of stored answers, that wait */
    srv_worker worker;
    srv_keeper keeper;
    srv_desk desk;
    srv_metrics metrics;
    srv_status status;
    srv_curves curves;
    srv_store store;
    srv_conversations conversations;
    srv_loop loop;
} srv_server;

/* ---- worker.c: the engine's thread ---- */

bool srv_worker_init(srv_server *server);
void srv_worker_free(srv_server *server);
mf_status srv_worker_open_sessions(srv_server *server, mf_error *err);
/* Takes the job over; from any thread. */
void srv_worker_add(srv_server *server, srv_job *job);
void srv_worker_wake(srv_server *server);
/* Evaluates until the loop is over. */
void srv_worker_run(srv_server *server);
/* Frees what still waits, once no other thread runs. */
void srv_worker_drop_queue(srv_server *server);
/* The job is over, whatever became of it. */
void srv_server_let_go(srv_server *server);

/* ---- keeper.c: the prefix cache on disk; called on the engine's thread ---- */

bool srv_keeper_init(srv_server *server);
void srv_keeper_free(srv_server *server);
/* Begins to write a session that has something new. False: another one is being written. */
bool srv_keeper_start(srv_server *server, uint32_t slot);
/* Whether the session is being written; takes note of an end. */
bool srv_keeper_busy(srv_server *server, uint32_t slot);
/* Gives a session back that is being written: unfinished, or once it is. */
void srv_keeper_end(srv_server *server, uint32_t slot, bool give_up);
/* Writes all that is new, and waits for it. */
void srv_keeper_finish(srv_server *server);

/* ---- echo.c: log-probabilities of a prompt ---- */

/* Evaluates some more of the prompt; *done once all of it is. */
mf_status srv_echo_step(srv_server *server, srv_choice *choice, mf_session *session, bool *done,
                        mf_error *err);

/* ---- page.c ---- */

void srv_page_init(srv_server *server);
void srv_show_page(srv_server *server, srv_exchange *x);

/* ---- status.c, curves.c: what can be seen of the engine ---- */

/* How far everybody is; on the engine's thread. */
void srv_status_note(srv_server *server);
void srv_show_status(srv_server *server, srv_exchange *x);
void srv_show_experts(srv_server *server, srv_exchange *x);
void srv_show_curves(srv_server *server, srv_exchange *x);
bool srv_curves_start(srv_server *server);
void srv_curves_stop(srv_server *server);

/* ---- desk.c: the desk's thread ---- */

bool srv_desk_init(srv_server *server);
void srv_desk_free(srv_server *server);
/* The loop's handler: takes the exchange or answers at once. */
void srv_desk_handle(void *user, srv_exchange *x);
bool srv_desk_open_path(const char *path);
void *srv_desk_run(void *server);
void srv_desk_stop(srv_server *server);
/* The body as an object; NULL: there is none, and the exchange is answered. */
mfi_json *srv_parse_body(srv_exchange *x);
/* Whether JSON text may hold more than MFI_MAX_REQUEST_VALUES. */
bool srv_too_many_values(const mfi_buf *text);

/* ---- routes; each answers, or makes a job of the exchange ---- */

typedef void (*srv_route_fn)(srv_server *server, srv_exchange *x, const mfi_json *body);

void srv_chat_completions(srv_server *server, srv_exchange *x, const mfi_json *body);
void srv_completions(srv_server *server, srv_exchange *x, const mfi_json *body);
void srv_messages(srv_server *server, srv_exchange *x, const mfi_json *body);
void srv_count_tokens(srv_server *server, srv_exchange *x, const mfi_json *body);
void srv_responses_route(srv_server *server, srv_exchange *x, const mfi_json *body);
void srv_responses_count(srv_server *server, srv_exchange *x, const mfi_json *body);
/* What lies below /v1/responses/; rest: of the path. On the desk's thread. */
void srv_stored_route(srv_server *server, srv_exchange *x, const char *rest);
void srv_conversations_create(srv_server *server, srv_exchange *x, const mfi_json *body);
/* The same below /v1/conversations/. */
void srv_conversation_route(srv_server *server, srv_exchange *x, const char *rest);
void srv_tokenize(srv_server *server, srv_exchange *x, const mfi_json *body);
void srv_detokenize(srv_server *server, srv_exchange *x, const mfi_json *body);
void srv_apply_template(srv_server *server, srv_exchange *x, const mfi_json *body);
void srv_models(srv_server *server, srv_exchange *x);
void srv_model(srv_server *server, srv_exchange *x, const char *id);
void srv_health(srv_server *server, srv_exchange *x);
void srv_props(srv_server *server, srv_exchange *x);
void srv_show_metrics(srv_server *server, srv_exchange *x);

#endif
