/* Fuzzes the parser of HTTP requests: a connection's bytes, cut as the first byte says. However
 * they are cut, the same requests come out, and a failed one stays failed. */
#include <stdlib.h>
#include <string.h>

#include "../../server/access.h"
#include "../../server/request.h"

#define BODY_MAX 4096

/* What became of the bytes: requests, their sizes, the end. */
typedef struct outcome {
    size_t n_requests;
    uint64_t sum;
    srv_parse_state state;
    int fail_status;
} outcome;

static uint64_t mix(uint64_t sum, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum = (sum ^ (unsigned char)bytes[i]) * 1099511628211u;
    return sum * 31 + len;
}

static void take(const srv_request *r, outcome *o)
{
    char name[256];
    const char *why = NULL, *cors = NULL;
    const srv_options options = {0};
    o->n_requests++;
    o->sum = mix(o->sum, r->method, strlen(r->method));
    o->sum = mix(o->sum, r->path.data, r->path.len);
    o->sum = mix(o->sum, r->body.data, r->body.len);
    for (size_t i = 0; i < r->n_headers; i++) {
        const char *value = r->head.data + r->headers[i].value;
        o->sum = mix(o->sum, value, strlen(value));
    }
    if (r->body.len > BODY_MAX || !r->path.len || (!r->http_1_0 && !srv_request_has(r, "host")))
        abort();
    srv_host_name(r->host.data, r->host.len, name);
    srv_access_check(&options, r, false, false, &why, &cors);
}

static outcome parse(const char *bytes, size_t len, size_t step)
{
    outcome o = {0};
    srv_room room = {.max = 2 * BODY_MAX};
    srv_parser *p = malloc(sizeof *p);
    srv_parser_init(p, BODY_MAX, &room);
    for (size_t at = 0; at < len && p->state != SRV_PARSE_FAILED;) {
        size_t n = MFI_MIN(step, len - at);
        size_t took = srv_parser_feed(p, bytes + at, n);
        if (took > n || (took == 0 && p->state != SRV_PARSE_FAILED))
            abort();
        at += took;
        if (p->state == SRV_PARSE_DONE) {
            take(&p->request, &o);
            srv_parser_reset(p);
        }
    }
    o.state = p->state;
    o.fail_status = p->fail_status;
    srv_request_free(&p->request);
    if (atomic_load(&room.used))
        abort();
    free(p);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const char *bytes = (const char *)data + 1;
    outcome whole = parse(bytes, size - 1, size);
    outcome cut = parse(bytes, size - 1, 1 + data[0] % 64);
    if (whole.n_requests != cut.n_requests || whole.sum != cut.sum || whole.state != cut.state)
        abort();
    return 0;
}
