/* What answers have in common, in OpenAI's words. */
#ifndef SRV_SAY_H
#define SRV_SAY_H

#include "server_int.h"

/* Sums over the choices. */
size_t srv_prompt_tokens(const srv_job *job);
size_t srv_cached_tokens(const srv_job *job);
size_t srv_answer_tokens(const srv_job *job);
size_t srv_reasoning_tokens(const srv_job *job);

/* "usage":{...} */
void srv_put_usage(const srv_job *job, mfi_buf *out);
/* "timings":{...},"experts":{...}: llama.cpp's, and what reading experts cost meanwhile. On the
 * engine's thread. */
void srv_put_timings(const srv_job *job, mfi_buf *out);

/* {"token":...,"logprob":...,"bytes":[...],"top_logprobs":[...]} */
void srv_put_logprobs(const srv_server *server, mf_token_logprob chosen,
                      const mf_token_logprob *top, size_t n_top, mfi_buf *out);
/* The text of a token, U+FFFD for each byte of what is no whole character. */
void srv_token_text(const srv_server *server, int32_t id, mfi_buf *out);

/* The text with U+FFFD for each byte of what is no character. */
void srv_put_valid(const char *text, size_t len, mfi_buf *out);

size_t srv_characters(const char *text, size_t len);

/* A value as JSON; -9999 for minus infinity. */
void srv_put_logprob(double logprob, mfi_buf *out);
void srv_put_text(const mfi_buf *text, size_t from, mfi_buf *out); /* quoted */

/* The call that a stream is to go on with, NULL: there is nothing to say. begun: only one that it
 * has begun. What is new of it is sent, then srv_call_sent called: true if that was its end. */
srv_call *srv_next_call(srv_choice *choice, bool begun);
bool srv_call_sent(srv_choice *choice, srv_call *call);

/* The stop string that ended the answer, or null. */
void srv_put_stop_string(const srv_job *job, const srv_choice *choice, mfi_buf *out);

/* Sends "event: NAME\ndata: TEXT\n\n", or without an event where name is NULL, and releases text.
 */
void srv_send(srv_job *job, const char *event, mfi_buf *text);

/* Ends an answer whose object is open behind a comma: usage and timings close it. It is the reply,
 * or the stream's last chunk where that was asked for. Releases out. */
void srv_openai_end(srv_job *job, mfi_buf *out);
/* A protocol's stream_error. */
void srv_openai_stream_error(srv_job *job, const char *message);

#endif
