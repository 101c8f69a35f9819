/* How likely the tokens of an answer were, as JSON. */
#ifndef MOEFLUX_CLI_LOGPROBS_H
#define MOEFLUX_CLI_LOGPROBS_H

#include "base/buf.h"
#include "moeflux/moeflux.h"

/* Appends {"id":...,"token":...,"bytes":[...],"logprob":...,"top":[...]} to what is an array's
 * inside. */
void cli_logprobs_put(mfi_buf *out, const mf_tokenizer *tokenizer, mf_token_logprob chosen,
                      const mf_token_logprob *top, size_t n_top);

#endif
