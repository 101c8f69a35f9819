/* GET /: the page, for people. On the loop's thread, also while the model is still opened: the page
 * says so itself. It needs no key, since it holds nothing; what it shows it asks for with one. */
#include <stdio.h>
#include <string.h>

#include "page_data.h"
#include "server_int.h"

/* True if the browser has this very page: If-None-Match lists its tag, or says that any will do. */
static bool has_it(const srv_request *r)
{
    size_t len = strlen(srv_page_etag);
    for (const char *at = srv_request_header(r, "if-none-match"); *at;) {
        at += strspn(at, " \t,");
        if (strncmp(at, "W/", 2) == 0)
            at += 2;
        size_t n = strcspn(at, " \t,");
        if ((n == len && memcmp(at, srv_page_etag, len) == 0) || (n == 1 && *at == '*'))
            return true;
        at += n;
    }
    return false;
}

void srv_page_init(srv_server *server)
{
    /* Nothing but what is in the page itself, and requests to this server. */
    int n = snprintf(server->page_headers, sizeof server->page_headers,
                     "ETag: %s\r\nCache-Control: no-cache\r\nReferrer-Policy: no-referrer\r\n"
                     "X-Frame-Options: DENY\r\nCross-Origin-Opener-Policy: same-origin\r\n"
                     "Cross-Origin-Resource-Policy: same-origin\r\n"
                     "Content-Security-Policy: default-src 'none'; script-src '%s'; "
                     "style-src '%s'; connect-src 'self'; img-src data:; base-uri 'none'; "
                     "form-action 'none'; frame-ancestors 'none'\r\n",
                     srv_page_etag, srv_page_script_hash, srv_page_style_hash);
    MFI_ASSERT(n > 0 && (size_t)n < sizeof server->page_headers);
}

void srv_show_page(srv_server *server, srv_exchange *x)
{
    x->more_headers = server->page_headers;
    if (has_it(&x->request))
        srv_reply(x, 304, NULL, "", 0);
    else
        srv_reply(x, 200, "text/html; charset=utf-8", (const char *)srv_page_bytes, srv_page_len);
}
