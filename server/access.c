/* Who may ask; see access.h. Called by the loop's thread before a request is looked at any further.
 *
 * A server on the loopback interface is reached by every web page that its user opens. What keeps
 * pages out: an Origin that nobody allowed is refused, also where a browser would send the request
 * without asking, and so is a Host that is a foreign name, which is how pages get around Origin
 * (DNS rebinding). An IP address can't be rebound. */
#include "access.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

bool srv_equal_constant_time(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned char differs = a_len != b_len;
    for (size_t i = 0; i < a_len; i++)
        differs |= (unsigned char)(a[i] ^ (b_len ? b[i % b_len] : 0));
    return !differs;
}

/* Every key is compared, so that the time doesn't say which one was close. */
static bool has_key(const srv_options *o, const char *given, size_t len)
{
    bool found = false;
    for (size_t i = 0; i < o->n_keys; i++)
        found |= srv_equal_constant_time(given, len, o->keys[i], strlen(o->keys[i]));
    return found;
}

static bool authorised(const srv_options *o, const srv_request *r)
{
    const char *bearer = srv_request_header(r, "authorization");
    const char *key = srv_request_header(r, "x-api-key");
    bool found = has_key(o, key, strlen(key));
    if (strncasecmp(bearer, "bearer ", 7) == 0) {
        bearer += 7;
        bearer += strspn(bearer, " ");
        found |= has_key(o, bearer, strlen(bearer));
    }
    return found;
}

bool srv_host_name(const char *text, size_t len, char name[256])
{
    size_t n = len;
    const char *close = len && text[0] == '[' ? memchr(text, ']', len) : NULL;
    if (close)
        n = (size_t)(close - text) + 1;
    else if (memchr(text, ':', len))
        n = (size_t)((const char *)memchr(text, ':', len) - text);
    if (n == 0 || n > 255 || (len > n && (text[n] != ':' || len - n > 6)))
        return false;
    for (size_t i = n + 1; i < len; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    for (size_t i = 0; i < n; i++)
        name[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] - 'A' + 'a' : text[i]);
    name[n] = 0;
    if (n > 1 && name[n - 1] == '.')
        name[n - 1] = 0;
    return true;
}

static bool is_address(const char *name)
{
    unsigned char bytes[16];
    char six[64];
    size_t n = strlen(name);
    if (inet_pton(AF_INET, name, bytes) == 1)
        return true;
    if (n < 3 || n >= sizeof six || name[0] != '[')
        return false;
    memcpy(six, name + 1, n - 2);
    six[n - 2] = 0;
    return inet_pton(AF_INET6, six, bytes) == 1;
}

static bool known_host(const srv_options *o, const char *text, size_t len)
{
    char name[256];
    if (!srv_host_name(text, len, name))
        return false;
    if (strcmp(name, "localhost") == 0 || is_address(name))
        return true;
    for (size_t i = 0; i < o->n_allowed_hosts; i++)
        if (strcasecmp(name, o->allowed_hosts[i]) == 0)
            return true;
    return false;
}

/* A page that this server sent itself, maybe through a proxy that speaks TLS. */
static bool same_origin(const srv_request *r, const char *origin)
{
    size_t scheme = strncmp(origin, "https://", 8) == 0 ? 8 : 7;
    return (scheme == 8 || strncmp(origin, "http://", 7) == 0) && r->host.data &&
           strcasecmp(origin + scheme, r->host.data) == 0;
}

static bool allowed_origin(const srv_options *o, const char *origin)
{
    for (size_t i = 0; i < o->n_cors_origins; i++)
        if (strcmp(o->cors_origins[i], "*") == 0 || strcasecmp(origin, o->cors_origins[i]) == 0)
            return true;
    return false;
}

int srv_access_check(const srv_options *o, const srv_request *r, bool local, bool open,
                     const char **why, const char **cors)
{
    const char *host = r->host.data ? r->host.data : "";
    const char *header = srv_request_header(r, "host");
    *cors = NULL;
    if (!local && (*host || !r->http_1_0) &&
        (!known_host(o, host, strlen(host)) ||
         (*header && !known_host(o, header, strlen(header))))) {
        *why = "this Host isn't served; --allow-host names further ones";
        return 403;
    }
    if (srv_request_has(r, "origin")) {
        const char *origin = srv_request_header(r, "origin");
        if (allowed_origin(o, origin)) {
            *cors = origin;
        } else if (!same_origin(r, origin)) {
            *why = "pages of this Origin may not ask; --cors-origin names those that may";
            return 403;
        }
    }
    bool preflight = *cors && strcmp(r->method, "OPTIONS") == 0;
    if (o->n_keys && !open && !preflight && !authorised(o, r)) {
        *why = "the API key is missing or wrong";
        return 401;
    }
    return 0;
}
