/* One HTTP/1.x request, parsed as it arrives.
 *
 * llhttp reads the syntax; what it lets through and a server behind a proxy must not (folded header
 * lines, bare newlines, several Host headers, codings other than chunked, ...) is refused here.
 * Bounded in every part. */
#ifndef SRV_REQUEST_H
#define SRV_REQUEST_H

#include <llhttp.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/limits.h"

/* Bytes that the bodies of all requests have together, and what they are made into. */
typedef struct srv_room {
    _Atomic uint64_t used;
    uint64_t max;
} srv_room;

bool srv_room_take(srv_room *room, uint64_t bytes); /* false: there aren't so many */
void srv_room_give(srv_room *room, uint64_t bytes);

typedef struct srv_header {
    size_t name, value; /* offsets in srv_request.head, NUL-terminated; the name in lower case */
} srv_header;

typedef struct srv_request {
    char method[16];
    mfi_buf head; /* target, names, values */
    srv_header headers[MFI_MAX_HTTP_HEADERS];
    size_t n_headers;
    mfi_buf path, query, host; /* host: of the Host header, or of an absolute target */
    mfi_buf body;
    srv_room *room;   /* NULL: nobody counts */
    uint64_t charged; /* what it has of the room */
    bool http_1_0, keep_alive;
} srv_request;

/* The value of the header, "" if there is none; the first of several. */
const char *srv_request_header(const srv_request *request, const char *name);
bool srv_request_has(const srv_request *request, const char *name);
void srv_request_free(srv_request *request);
/* Takes more of the room for the request; false: there isn't so much. */
bool srv_request_charge(srv_request *request, uint64_t bytes);
/* Releases the body, and what the request has of the room but `kept` bytes. */
void srv_request_drop_body(srv_request *request, uint64_t kept);
/* What one has of the room becomes the other's. */
void srv_request_move_charge(srv_request *from, srv_request *to, uint64_t bytes);

typedef enum srv_parse_state {
    SRV_PARSE_HEAD, /* wants more; nothing has come yet if !begun */
    SRV_PARSE_BODY,
    SRV_PARSE_TRAILER, /* behind the last chunk */
    SRV_PARSE_DONE,
    SRV_PARSE_FAILED
} srv_parse_state;

typedef struct srv_parser {
    llhttp_t http;
    srv_request request;
    srv_parse_state state;
    uint64_t body_max;
    srv_room *room;
    bool begun;          /* a byte of the request has come */
    bool wants_continue; /* the client waits for "100 Continue" */
    int fail_status;     /* of a failed one: HTTP status and what to tell */
    const char *fail_text;
    /* private */
    uint32_t head_bytes, extra_bytes;
    char tail[3]; /* the last bytes of the head or of the trailer so far */
    bool in_name, head_over, first_line_over, empty_line;
} srv_parser;

void srv_parser_init(srv_parser *parser, uint64_t body_max, srv_room *room);
/* Takes bytes up to the end of the request and returns how many it took. */
size_t srv_parser_feed(srv_parser *parser, const char *bytes, size_t len);
/* Ready for the next request; what of the last one wasn't taken over is released. */
void srv_parser_reset(srv_parser *parser);

/* Decodes %XX into out; false for broken escapes and NUL. */
bool srv_percent_decode(const char *text, size_t len, mfi_buf *out);

#endif
