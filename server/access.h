/* Who may ask: Host, Origin and API keys. */
#ifndef SRV_ACCESS_H
#define SRV_ACCESS_H

#include "request.h"
#include "server.h"

/* HTTP status to refuse with, and why; 0: it may go on. A local (unix) socket has no Host to be
 * tricked about; open: a path that needs no key. *cors is set to the request's Origin if pages from
 * there may read the answer. */
int srv_access_check(const srv_options *options, const srv_request *request, bool local, bool open,
                     const char **why, const char **cors);

/* Equal, in a time that depends on the lengths only. */
bool srv_equal_constant_time(const char *a, size_t a_len, const char *b, size_t b_len);

/* The host of "host", "host:port" or "[v6]:port" without its port, in lower case; false if it is
 * none. */
bool srv_host_name(const char *text, size_t len, char name[256]);

#endif
