/* Requests as they arrive; see request.h. Called by the loop's thread, one parser a connection, and
 * by a fuzz target. Never touches a socket. */
#include "request.h"

#include <string.h>
#include <strings.h>

#include "base/json_text.h"

bool srv_room_take(srv_room *room, uint64_t bytes)
{
    uint64_t used = atomic_load(&room->used);
    do {
        if (used > room->max || bytes > room->max - used)
            return false;
    } while (!atomic_compare_exchange_weak(&room->used, &used, used + bytes));
    return true;
}

void srv_room_give(srv_room *room, uint64_t bytes)
{
    atomic_fetch_sub(&room->used, bytes);
}

bool srv_request_charge(srv_request *request, uint64_t bytes)
{
    if (!request->room)
        return true;
    if (!srv_room_take(request->room, bytes))
        return false;
    request->charged += bytes;
    return true;
}

void srv_request_drop_body(srv_request *request, uint64_t kept)
{
    mfi_buf_free(&request->body);
    if (!request->room || request->charged <= kept)
        return;
    srv_room_give(request->room, request->charged - kept);
    request->charged = kept;
}

void srv_request_move_charge(srv_request *from, srv_request *to, uint64_t bytes)
{
    if (!from->room)
        return;
    to->room = from->room;
    from->charged -= bytes;
    to->charged += bytes;
}

void srv_request_free(srv_request *request)
{
    srv_request_drop_body(request, 0);
    mfi_buf_free(&request->head);
    mfi_buf_free(&request->path);
    mfi_buf_free(&request->query);
    mfi_buf_free(&request->host);
    *request = (srv_request){0};
}

static const char *find(const srv_request *request, const char *name)
{
    for (size_t i = 0; i < request->n_headers; i++)
        if (strcmp(request->head.data + request->headers[i].name, name) == 0)
            return request->head.data + request->headers[i].value;
    return NULL;
}

const char *srv_request_header(const srv_request *request, const char *name)
{
    const char *value = find(request, name);
    return value ? value : "";
}

bool srv_request_has(const srv_request *request, const char *name)
{
    return find(request, name) != NULL;
}

static size_t count(const srv_request *request, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < request->n_headers; i++)
        n += strcmp(request->head.data + request->headers[i].name, name) == 0;
    return n;
}

/* -1 (for llhttp), with the reason kept. */
static int fail(srv_parser *p, int status, const char *text)
{
    if (p->state != SRV_PARSE_FAILED) {
        p->state = SRV_PARSE_FAILED;
        p->fail_status = status;
        p->fail_text = text;
    }
    return -1;
}

static const char no_room[] = "the requests that came before take all there is for them";

/* ---- llhttp's callbacks ---- */

static int on_url(llhttp_t *http, const char *at, size_t len)
{
    srv_parser *p = http->data;
    if (p->request.head.len + len > MFI_MAX_HTTP_TARGET_BYTES)
        return fail(p, 414, "the request's target is too long");
    mfi_buf_append(&p->request.head, at, len);
    return 0;
}

/* Trailers are counted and forgotten. */
static int pass_trailer(srv_parser *p, size_t len)
{
    p->extra_bytes += (uint32_t)len;
    return p->extra_bytes > MFI_MAX_HTTP_EXTRA_BYTES ? fail(p, 431, "trailers are too long") : 0;
}

static int on_field(llhttp_t *http, const char *at, size_t len)
{
    srv_parser *p = http->data;
    srv_request *r = &p->request;
    if (p->head_over)
        return pass_trailer(p, len);
    if (!p->in_name) {
        if (r->n_headers == MFI_MAX_HTTP_HEADERS)
            return fail(p, 431, "too many headers");
        mfi_buf_append(&r->head, "", 1);
        r->headers[r->n_headers++] = (srv_header){r->head.len, 0};
        p->in_name = true;
    }
    for (size_t i = 0; i < len; i++) {
        char c = at[i];
        mfi_buf_append(&r->head, &(char){(char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c)}, 1);
    }
    return 0;
}

static int on_field_complete(llhttp_t *http)
{
    srv_parser *p = http->data;
    srv_request *r = &p->request;
    if (p->head_over)
        return 0;
    if (!p->in_name)
        return fail(p, 400, "a header has no name");
    mfi_buf_append(&r->head, "", 1);
    r->headers[r->n_headers - 1].value = r->head.len;
    p->in_name = false;
    return 0;
}

static int on_value(llhttp_t *http, const char *at, size_t len)
{
    srv_parser *p = http->data;
    srv_request *r = &p->request;
    if (p->head_over)
        return pass_trailer(p, len);
    for (size_t i = 0; i < len; i++)
        if (((unsigned char)at[i] < ' ' && at[i] != '\t') || at[i] == 0x7f)
            return fail(p, 400, "a header holds a control character");
    mfi_buf_append(&r->head, at, len);
    return 0;
}

static int on_extension(llhttp_t *http, const char *at, size_t len)
{
    srv_parser *p = http->data;
    (void)at;
    p->extra_bytes += (uint32_t)len;
    return p->extra_bytes > MFI_MAX_HTTP_EXTRA_BYTES ? fail(p, 400, "chunk extensions are too long")
                                                     : 0;
}

static void trim(srv_request *r, srv_header *h)
{
    char *value = r->head.data + h->value;
    size_t n = strlen(value);
    while (n && (value[n - 1] == ' ' || value[n - 1] == '\t'))
        value[--n] = 0;
}

bool srv_percent_decode(const char *text, size_t len, mfi_buf *out)
{
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 2 < len ? mfi_json_hex_digit(text[i + 1]) : -1;
            int low = i + 2 < len ? mfi_json_hex_digit(text[i + 2]) : -1;
            if (high < 0 || low < 0 || high * 16 + low == 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        mfi_buf_append(out, &c, 1);
    }
    return true;
}

/* The target: /path?query, or http://host/path?query; "*" only with OPTIONS. */
static int take_target(srv_parser *p)
{
    srv_request *r = &p->request;
    const char *target = r->head.data, *path = target;
    const char *host = srv_request_header(r, "host");
    size_t host_len = strlen(host);
    if (strncasecmp(target, "http://", 7) == 0) {
        host = target + 7;
        host_len = strcspn(host, "/?");
        path = host + host_len;
        if (!host_len || memchr(host, '@', host_len))
            return fail(p, 400, "the target's host can't be followed");
    } else if (strcmp(target, "*") == 0 && strcmp(r->method, "OPTIONS") == 0) {
        path = "/";
    } else if (target[0] != '/') {
        return fail(p, 400, "the request's target is no path");
    }
    for (const char *c = target; *c; c++)
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f || *c == '#')
            return fail(p, 400, "the request's target holds a character that it may not");
    size_t n = strcspn(path, "?");
    mfi_buf_append(&r->host, host, host_len);
    mfi_buf_str(&r->path, *path == '?' || !*path ? "/" : "");
    if (!srv_percent_decode(path, n, &r->path))
        return fail(p, 400, "the request's target has a broken escape");
    mfi_buf_str(&r->query, path[n] ? path + n + 1 : "");
    return 0;
}

static int check_body_headers(srv_parser *p)
{
    const srv_request *r = &p->request;
    const char *coding = srv_request_header(r, "transfer-encoding");
    const char *content = srv_request_header(r, "content-encoding");
    const char *expect = srv_request_header(r, "expect");
    if (srv_request_has(r, "transfer-encoding")) {
        if (r->http_1_0 || srv_request_has(r, "content-length"))
            return fail(p, 400, "Transfer-Encoding has no place in this request");
        if (count(r, "transfer-encoding") != 1 || strcasecmp(coding, "chunked") != 0)
            return fail(p, 501, "only the transfer coding \"chunked\" is understood");
    }
    if (count(r, "content-length") > 1)
        return fail(p, 400, "several Content-Length headers");
    if (count(r, "content-encoding") > 1 || (*content && strcasecmp(content, "identity") != 0))
        return fail(p, 415, "bodies are taken without a content coding only");
    if (count(r, "expect") > 1 || (*expect && strcasecmp(expect, "100-continue") != 0))
        return fail(p, 417, "only \"Expect: 100-continue\" is understood");
    if (p->http.flags & F_CONTENT_LENGTH && p->http.content_length > p->body_max)
        return fail(p, 413, "the body is longer than this server takes");
    if (p->http.flags & F_CONTENT_LENGTH && p->room &&
        p->http.content_length > p->room->max - MFI_MIN(atomic_load(&p->room->used), p->room->max))
        return fail(p, 503, no_room);
    p->wants_continue = *expect && !r->http_1_0;
    return 0;
}

static int on_headers_complete(llhttp_t *http)
{
    srv_parser *p = http->data;
    srv_request *r = &p->request;
    if (http->http_major != 1 || http->http_minor > 1)
        return fail(p, 505, "only HTTP/1.0 and HTTP/1.1 are spoken");
    mfi_buf_append(&r->head, "", 1);
    if (r->head.failed)
        return fail(p, 503, "out of memory");
    for (size_t i = 0; i < r->n_headers; i++)
        trim(r, &r->headers[i]);
    strncpy(r->method, llhttp_method_name((llhttp_method_t)http->method), sizeof r->method - 1);
    r->http_1_0 = http->http_minor == 0;
    if (count(r, "host") > 1)
        return fail(p, 400, "several Host headers");
    if (!r->http_1_0 && !srv_request_has(r, "host"))
        return fail(p, 400, "the Host header is missing");
    if (http->method == HTTP_CONNECT)
        return fail(p, 405, "this is no proxy");
    if (take_target(p) || check_body_headers(p)) /* an error's form goes by the path */
        return -1;
    r->keep_alive = llhttp_should_keep_alive(http);
    http->upgrade = 0; /* no other protocol is spoken; the request itself is answered */
    p->head_over = true;
    p->state = SRV_PARSE_BODY;
    return 0;
}

/* The trailer's bytes are looked at like the head's, from its first one on. */
static int on_chunk_header(llhttp_t *http)
{
    srv_parser *p = http->data;
    if (http->content_length != 0)
        return 0;
    p->state = SRV_PARSE_TRAILER;
    memcpy(p->tail, "0\r\n", 3);
    return HPE_PAUSED;
}

static int on_body(llhttp_t *http, const char *at, size_t len)
{
    srv_parser *p = http->data;
    p->wants_continue = false;
    if (p->request.body.len + len > p->body_max)
        return fail(p, 413, "the body is longer than this server takes");
    if (!srv_request_charge(&p->request, len))
        return fail(p, 503, no_room);
    mfi_buf_append(&p->request.body, at, len);
    return p->request.body.failed ? fail(p, 503, "out of memory") : 0;
}

static int on_message_complete(llhttp_t *http)
{
    srv_parser *p = http->data;
    p->state = SRV_PARSE_DONE;
    p->wants_continue = false;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_field_complete = on_field_complete,
    .on_header_value = on_value,
    .on_chunk_extension_name = on_extension,
    .on_chunk_extension_value = on_extension,
    .on_headers_complete = on_headers_complete,
    .on_chunk_header = on_chunk_header,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* ---- feeding ---- */

void srv_parser_init(srv_parser *parser, uint64_t body_max, srv_room *room)
{
    *parser = (srv_parser){.body_max = body_max, .room = room, .request = {.room = room}};
    llhttp_init(&parser->http, HTTP_REQUEST, &settings);
    parser->http.data = parser;
}

void srv_parser_reset(srv_parser *parser)
{
    uint64_t body_max = parser->body_max;
    srv_room *room = parser->room;
    srv_request_free(&parser->request);
    srv_parser_init(parser, body_max, room);
}

/* What is wrong with the next byte of a head or a trailer, or NULL. */
static const char *wrong_byte(const srv_parser *p, char c)
{
    char before = p->tail[2];
    if (c == '\n' && before != '\r')
        return "a line ends without a carriage return";
    if (c == 0)
        return "the head holds a NUL byte";
    if ((c == ' ' || c == '\t') && before == '\n')
        return "a header line is folded";
    if (c == ':' && before == '\n')
        return "a header has no name";
    if (before == '\r' && c != '\n')
        return "a carriage return stands alone";
    if (c == ' ' && before == ' ' && !p->first_line_over)
        return "the request line holds more than its spaces";
    return NULL;
}

/* Looks at the raw bytes of the head or the trailer for what the parser smooths over: lines that
 * end without CR, and header lines that go on in the next one. Returns how many bytes belong to
 * it. */
static size_t check_lines(srv_parser *p, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = bytes[i];
        const char *wrong = wrong_byte(p, c);
        if (wrong)
            return fail(p, 400, wrong), 0;
        if (p->state == SRV_PARSE_HEAD && ++p->head_bytes > MFI_MAX_HTTP_HEAD_BYTES)
            return fail(p, 431, "the head is too long"), 0;
        bool end = c == '\n' && p->tail[0] == '\r' && p->tail[1] == '\n';
        p->first_line_over |= c == '\n';
        memmove(p->tail, p->tail + 1, 2);
        p->tail[2] = c;
        if (end)
            return i + 1;
    }
    return len;
}

/* Empty lines before a request are allowed, whole ones. Returns how many bytes they have. */
static size_t skip_empty_lines(srv_parser *p, const char *bytes, size_t len)
{
    size_t n = 0;
    for (; n < len && !p->begun; n++) {
        if (p->empty_line ? bytes[n] == '\n' : bytes[n] == '\r')
            p->empty_line = !p->empty_line;
        else if (p->empty_line || bytes[n] == '\n')
            return (void)fail(p, 400, "a line ends without a carriage return and a newline"), n;
        else
            break;
    }
    return n;
}

static int parse_failed(srv_parser *p, llhttp_errno_t error)
{
    switch (error) {
    case HPE_INVALID_VERSION:
        return fail(p, 505, "the protocol's version can't be followed");
    case HPE_INVALID_METHOD:
        return fail(p, 501, "the method isn't known");
    case HPE_INVALID_CONTENT_LENGTH:
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        return fail(p, 400, "Content-Length can't be followed");
    case HPE_INVALID_TRANSFER_ENCODING:
        return fail(p, 400, "Transfer-Encoding can't be followed");
    case HPE_INVALID_CHUNK_SIZE:
        return fail(p, 400, "a chunk's size can't be followed");
    default:
        return fail(p, 400, "this is no HTTP request");
    }
}

size_t srv_parser_feed(srv_parser *p, const char *bytes, size_t len)
{
    size_t skipped = 0;
    if (p->state == SRV_PARSE_DONE || p->state == SRV_PARSE_FAILED)
        return 0;
    if (!p->begun)
        skipped = skip_empty_lines(p, bytes, len);
    bytes += skipped;
    len -= skipped;
    if (!len || p->state == SRV_PARSE_FAILED)
        return skipped;
    p->begun = true;
    srv_parse_state state = p->state;
    size_t n = len;
    if (state != SRV_PARSE_BODY) {
        n = check_lines(p, bytes, len);
        if (p->state == SRV_PARSE_FAILED)
            return skipped;
    }
    llhttp_errno_t error = llhttp_execute(&p->http, bytes, n);
    if (p->state == SRV_PARSE_FAILED)
        return skipped;
    if (error == HPE_PAUSED && p->state != state) {
        n = (size_t)(llhttp_get_error_pos(&p->http) - bytes);
        llhttp_resume(&p->http);
        return skipped + n;
    }
    if (error != HPE_OK)
        return (void)parse_failed(p, error), skipped;
    if (n < len && p->state == state)
        return fail(p, 400, "this is no HTTP request"), skipped; /* two views of one head */
    return skipped + n;
}
