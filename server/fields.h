/* Members of a request. What is unknown is ignored; what is known and wrong is refused, by name. */
#ifndef SRV_FIELDS_H
#define SRV_FIELDS_H

#include "server_int.h"

typedef struct srv_fields {
    srv_exchange *x;
    const mfi_json *body;
    bool refused; /* answered; nothing else is to be done */
} srv_fields;

/* Refuses with 400 and the member's name; false. */
bool srv_refuse(srv_fields *f, const char *param, const char *fmt, ...) MFI_PRINTF(3, 4);

/* Each leaves *out as it is if the member is absent or null, and returns true if it was there and
 * right. */
bool srv_field_f64(srv_fields *f, const char *name, double lo, double hi, double *out);
bool srv_field_i64(srv_fields *f, const char *name, int64_t lo, int64_t hi, int64_t *out);
bool srv_field_bool(srv_fields *f, const char *name, bool *out);
/* The same of a member's member, but false only if it was refused, which then names param. */
bool srv_member_bool(srv_fields *f, const mfi_json *object, const char *name, const char *param,
                     bool *out);
const char *srv_field_str(srv_fields *f, const char *name, size_t *len);
/* The member if it is there and of this type. */
const mfi_json *srv_field(srv_fields *f, const char *name, mfi_json_type type);

/* temperature, top_p, ..., seed, logit_bias into the job. */
bool srv_take_sampling(srv_fields *f, srv_server *server, srv_job *job);
/* A string or an array of them. */
bool srv_take_stop(srv_fields *f, srv_job *job, const char *name);

/* A JSON schema or a grammar into job->grammar. */
bool srv_take_schema(srv_fields *f, srv_job *job, const mfi_json *schema, const char *param);
bool srv_take_grammar(srv_fields *f, srv_job *job);
/* What an answer is to be: text, an object or, under the "schema" of `in`, JSON. */
bool srv_take_format(srv_fields *f, srv_job *job, const mfi_json *format, const mfi_json *in,
                     const char *param);

/* Encodes text for the job as one more prompt, or refuses. */
bool srv_add_prompt_text(srv_fields *f, srv_server *server, srv_job *job, const char *text,
                         size_t len, bool special, const char *param);
bool srv_add_prompt_ids(srv_fields *f, srv_server *server, srv_job *job, const mfi_json *ids,
                        const char *param);
bool srv_add_prompt_tokens(srv_fields *f, srv_server *server, srv_job *job, const int32_t *ids,
                           size_t n, const char *param);
/* Far more text than the context could hold. */
bool srv_too_long(const srv_server *server, size_t text_bytes);
bool srv_refuse_context(srv_fields *f, const srv_server *server, size_t n_tokens);

/* Hands the job to the engine; on failure it is freed and the request answered. */
void srv_submit(srv_server *server, srv_job *job);
/* The same but for handing it over. False: it was freed. */
bool srv_prepare(srv_server *server, srv_job *job);

#endif
