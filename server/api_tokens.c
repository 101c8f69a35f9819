/* Tokens for clients: /tokenize and /detokenize, whose bodies and answers are llama.cpp's or
 * vLLM's, by the members that a request has. On the desk's thread. */
#include <stdlib.h>
#include <string.h>

#include "chat.h"
#include "say.h"

static void put_ids(mfi_buf *out, const int32_t *ids, size_t n)
{
    mfi_buf_str(out, "[");
    for (size_t i = 0; i < n; i++)
        mfi_buf_fmt(out, "%s%d", i ? "," : "", ids[i]);
    mfi_buf_str(out, "]");
}

/* llama.cpp: ids, or objects with their pieces, as text or, where that is none, as bytes. */
static void put_llama(const srv_server *server, const int32_t *ids, size_t n, bool pieces,
                      mfi_buf *out)
{
    mfi_buf_str(out, "{\"tokens\":");
    if (!pieces) {
        put_ids(out, ids, n);
    } else {
        mfi_buf_str(out, "[");
        for (size_t i = 0; i < n; i++) {
            mfi_buf text = {0};
            size_t len;
            const char *piece = mf_tokenizer_piece(server->tokenizer, ids[i], true, &len);
            srv_token_text(server, ids[i], &text);
            mfi_buf_fmt(out, "%s{\"id\":%d,\"piece\":", i ? "," : "", ids[i]);
            if (text.len == len && (!len || memcmp(text.data, piece, len) == 0)) {
                srv_put_text(&text, 0, out);
            } else {
                for (size_t k = 0; k < len; k++)
                    mfi_buf_fmt(out, "%s%u", k ? "," : "[", (unsigned)(unsigned char)piece[k]);
                mfi_buf_str(out, "]");
            }
            mfi_buf_str(out, "}");
            mfi_buf_free(&text);
        }
        mfi_buf_str(out, "]");
    }
    mfi_buf_str(out, "}");
}

static void put_vllm(const srv_server *server, const int32_t *ids, size_t n, bool strings,
                     mfi_buf *out)
{
    mfi_buf_fmt(out, "{\"count\":%zu,\"max_model_len\":%u,\"tokens\":", n, server->info.ctx);
    put_ids(out, ids, n);
    mfi_buf_str(out, ",\"token_strs\":");
    for (size_t i = 0; strings && i < n; i++) {
        mfi_buf text = {0};
        srv_token_text(server, ids[i], &text);
        mfi_buf_str(out, i ? "," : "[");
        srv_put_text(&text, 0, out);
        mfi_buf_free(&text);
    }
    mfi_buf_str(out, !strings ? "null}" : n ? "]}" : "[]}");
}

/* The ids of "messages" (vLLM) through the template. */
static bool encode_messages(srv_fields *f, srv_server *server, int32_t **ids, size_t *n)
{
    srv_chat chat = {0};
    mf_rendering rendering = {0};
    mf_error err = {0};
    bool ok = srv_chat_openai_messages(f, &chat) && srv_chat_vars(f, &chat, NULL) &&
              srv_chat_render(f, server, &chat, &rendering);
    if (ok && srv_too_long(server, rendering.len))
        ok = srv_refuse_context(f, server, rendering.len / server->longest_token);
    if (ok && mf_rendering_encode(&rendering, 0, server->tokenizer, ids, n, &err) != MF_OK)
        ok = srv_refuse(f, "messages", "%s", err.message);
    mf_rendering_free(&rendering);
    srv_chat_free(&chat);
    return ok;
}

static bool encode_text(srv_fields *f, srv_server *server, const char *param, bool special,
                        int32_t **ids, size_t *n)
{
    size_t len = 0;
    mf_error err = {0};
    const char *text = srv_field_str(f, param, &len);
    if (!text)
        return srv_refuse(f, param, "%s: a text is needed", param);
    if (srv_too_long(server, len))
        return srv_refuse_context(f, server, len / server->longest_token);
    if (mf_tokenizer_encode(server->tokenizer, text, len, special, ids, n, &err) != MF_OK)
        return srv_refuse(f, param, "%s", err.message);
    return true;
}

/* llama.cpp: content, add_special (no), parse_special (yes), with_pieces. vLLM: prompt or messages,
 * add_special_tokens (yes), return_token_strs. */
void srv_tokenize(srv_server *server, srv_exchange *x, const mfi_json *body)
{
    srv_fields f = {.x = x, .body = body};
    int32_t *ids = NULL;
    size_t n = 0;
    mfi_buf out = {0};
    bool llama = mfi_json_has(body, "content");
    bool special = !llama, pieces = false, ok;
    srv_field_bool(&f, llama ? "add_special" : "add_special_tokens", &special);
    srv_field_bool(&f, llama ? "with_pieces" : "return_token_strs", &pieces);
    if (f.refused)
        return;
    if (mfi_json_has(body, "messages"))
        ok = encode_messages(&f, server, &ids, &n);
    else
        ok = encode_text(&f, server, llama ? "content" : "prompt", special, &ids, &n);
    if (ok && llama)
        put_llama(server, ids, n, pieces, &out);
    else if (ok)
        put_vllm(server, ids, n, pieces, &out);
    if (ok)
        srv_reply_buf(x, 200, SRV_JSON, &out);
    mf_free(ids);
}

/* "content" for llama.cpp, "prompt" for vLLM: both are given. */
void srv_detokenize(srv_server *server, srv_exchange *x, const mfi_json *body)
{
    srv_fields f = {.x = x, .body = body};
    const mfi_json *list = srv_field(&f, "tokens", MFI_JSON_ARRAY);
    mfi_buf text = {0}, valid = {0}, out = {0};
    if (!list) {
        srv_refuse(&f, "tokens", "tokens: a list of token ids is needed");
        return;
    }
    for (size_t i = 0; i < mfi_json_len(list); i++) {
        int64_t id = -1;
        size_t len;
        if (!mfi_json_i64(mfi_json_at(list, i), &id) || id < 0 || id >= server->info.n_vocab) {
            srv_refuse(&f, "tokens", "tokens: element %zu is no token of this model", i);
            mfi_buf_free(&text);
            return;
        }
        const char *piece = mf_tokenizer_piece(server->tokenizer, (int32_t)id, true, &len);
        mfi_buf_append(&text, piece, len);
        if (text.len > server->options->max_body_bytes) {
            srv_refuse(&f, "tokens", "tokens: their text is longer than a request's may be");
            mfi_buf_free(&text);
            return;
        }
    }
    srv_put_valid(text.data ? text.data : "", text.len, &valid);
    mfi_buf_str(&out, "{\"content\":");
    srv_put_text(&valid, 0, &out);
    mfi_buf_str(&out, ",\"prompt\":");
    srv_put_text(&valid, 0, &out);
    mfi_buf_str(&out, "}");
    out.failed |= text.failed || valid.failed;
    srv_reply_buf(x, 200, SRV_JSON, &out);
    mfi_buf_free(&text);
    mfi_buf_free(&valid);
}
