/* An exchange: one request and its answer, on the way between the loop's thread, which has the
 * connection, and whoever answers. Both hold a reference; whoever lets go last frees it. */
#ifndef SRV_REPLY_H
#define SRV_REPLY_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "request.h"

/* Wakes a loop that sleeps in poll(). */
typedef struct srv_wake {
    int fds[2]; /* a pipe */
    _Atomic bool pending;
} srv_wake;

bool srv_wake_open(srv_wake *wake);
void srv_wake_close(srv_wake *wake);
void srv_wake_up(srv_wake *wake);
void srv_wake_drain(srv_wake *wake); /* before looking for what there is to do */

typedef enum srv_dialect { SRV_OPENAI, SRV_ANTHROPIC } srv_dialect; /* of errors */

typedef struct srv_exchange {
    atomic_int refs;
    srv_request request; /* the answering side's alone once it was handed over */
    srv_dialect dialect;
    char id[40]; /* x-request-id */
    uint64_t came_ns;
    bool submitted; /* the desk's: a job answers it */
    uint64_t kept;  /* the desk's: bytes of that job's prompts and of what it holds besides */
    srv_wake *wake;
    _Atomic bool gone;            /* nobody waits for the answer any more */
    _Atomic size_t waiting_bytes; /* of the answer, not sent yet */
    pthread_mutex_t lock;         /* for what follows */
    int status;
    const char *content_type; /* static storage */
    bool stream, begun, ended;
    int retry_after_s;
    const char *error_code;   /* the answering side's: of OpenAI's errors; NULL: by status */
    const char *ping;         /* what a silent stream says; static storage */
    const char *cors;         /* Origin to allow; NULL: none */
    const char *more_headers; /* whole lines; NULL: none; must outlive the exchange */
    mfi_buf out;              /* made, and not taken by the loop */
} srv_exchange;

#define SRV_EVENT_STREAM "text/event-stream"
#define SRV_JSON         "application/json"

srv_exchange *srv_exchange_new(srv_wake *wake,
                               uint64_t now_ns); /* one reference; NULL: no memory */
void srv_exchange_hold(srv_exchange *x);
void srv_exchange_release(srv_exchange *x);

/* Answers in one piece. */
void srv_reply(srv_exchange *x, int status, const char *content_type, const char *bytes,
               size_t len);
/* Takes over the buffer; out of memory becomes an error of the server. */
void srv_reply_buf(srv_exchange *x, int status, const char *content_type, mfi_buf *body);
/* Answers with an error object in the exchange's dialect. type: NULL: as the status has it. */
void srv_reply_error(srv_exchange *x, int status, const char *type, const char *param,
                     const char *fmt, ...) MFI_PRINTF(5, 6);

/* Answers in pieces, of events. */
void srv_stream_begin(srv_exchange *x);
void srv_stream_write(srv_exchange *x, const char *bytes, size_t len);
void srv_stream_end(srv_exchange *x);

typedef struct srv_error {
    int status;
    const char *type, *code, *param; /* NULL: as the status has it; param: none */
    const char *message;
} srv_error;

/* {"error":{...}} or {"type":"error",...} */
void srv_put_error(mfi_buf *out, srv_dialect dialect, const srv_error *error,
                   const char *request_id);

#endif
