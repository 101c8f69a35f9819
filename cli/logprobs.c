/* Log-probabilities as JSON, close to the form of OpenAI's chat completions; see logprobs.h. Used
 * by `run` on the main thread, from the callbacks of generating. */
#include "logprobs.h"

#include <math.h>

#include "base/json.h"
#include "base/utf8.h"

#define LEAST (-9999.0) /* what that form has for minus infinity */

/* A token without its closing brace. The text of a token need not be whole characters: the bytes
 * say what it is. */
static void put_token(mfi_buf *out, const mf_tokenizer *tokenizer, mf_token_logprob one)
{
    mfi_buf text = {0};
    size_t len;
    const char *piece = mf_tokenizer_piece(tokenizer, one.id, true, &len);
    for (size_t at = 0, n; at < len; at += n ? n : 1) {
        uint32_t cp;
        n = mfi_utf8_decode(piece + at, piece + len, &cp);
        mfi_buf_append(&text, n ? piece + at : "\xef\xbf\xbd", n ? n : 3);
    }
    mfi_buf_fmt(out, "{\"id\":%d,\"token\":", one.id);
    mfi_json_put_str(out, text.data ? text.data : "", text.len);
    mfi_buf_str(out, ",\"bytes\":[");
    for (size_t i = 0; i < len; i++)
        mfi_buf_fmt(out, "%s%u", i ? "," : "", (unsigned)(unsigned char)piece[i]);
    mfi_buf_str(out, "],\"logprob\":");
    mfi_json_put_f64(out, isfinite(one.logprob) ? (double)one.logprob : LEAST);
    out->failed = out->failed || text.failed;
    mfi_buf_free(&text);
}

void cli_logprobs_put(mfi_buf *out, const mf_tokenizer *tokenizer, mf_token_logprob chosen,
                      const mf_token_logprob *top, size_t n_top)
{
    mfi_buf_str(out, out->len ? "," : "");
    put_token(out, tokenizer, chosen);
    mfi_buf_str(out, ",\"top\":[");
    for (size_t i = 0; i < n_top; i++) {
        mfi_buf_str(out, i ? "," : "");
        put_token(out, tokenizer, top[i]);
        mfi_buf_str(out, "}");
    }
    mfi_buf_str(out, "]}");
}
