/* What the server is: /v1/models, /health, /props. On the loop's thread; reads what doesn't change
 * once the model is open. */
#include <string.h>

#include "server_int.h"

void srv_health(srv_server *server, srv_exchange *x)
{
    static const char ok[] = "{\"status\":\"ok\"}";
    if (atomic_load(&server->stopping))
        srv_reply_error(x, 503, NULL, NULL, "the server is stopping");
    else if (!atomic_load(&server->ready))
        srv_reply_error(x, 503, NULL, NULL, "Loading model");
    else
        srv_reply(x, 200, SRV_JSON, ok, sizeof ok - 1);
}

static void put_model(const srv_server *server, mfi_buf *out)
{
    const mf_model_info *info = &server->info;
    mfi_buf_str(out, "{\"id\":");
    mfi_json_put_str(out, server->model, strlen(server->model));
    mfi_buf_fmt(out,
                ",\"object\":\"model\",\"type\":\"model\",\"created\":%lld,\"owned_by\":"
                "\"moeflux\",\"max_model_len\":%u,\"max_input_tokens\":%u,\"display_name\":",
                (long long)server->created_s, info->ctx, info->ctx - 1);
    mfi_json_put_str(out, server->model, strlen(server->model));
    mfi_buf_fmt(out,
                ",\"created_at\":\"1970-01-01T00:00:00Z\",\"lifecycle\":\"active\",\"meta\":{\"n_"
                "vocab\":%u,\"n_ctx\":%u,"
                "\"n_ctx_train\":%u,\"n_embd\":%u,\"n_experts\":%u,\"top_k\":%u,\"size\":%llu,"
                "\"family\":",
                info->n_vocab, info->ctx, info->ctx_model, info->hidden, info->n_experts,
                info->top_k, (unsigned long long)info->weight_bytes);
    mfi_json_put_str(out, info->family, strlen(info->family));
    mfi_buf_str(out, ",\"weights\":");
    mfi_json_put_str(out, info->weights, strlen(info->weights));
    mfi_buf_str(out, "}}");
}

static bool loading(srv_server *server, srv_exchange *x)
{
    if (atomic_load(&server->ready))
        return false;
    srv_reply_error(x, 503, NULL, NULL, "Loading model");
    return true;
}

void srv_models(srv_server *server, srv_exchange *x)
{
    mfi_buf out = {0};
    if (loading(server, x))
        return;
    mfi_buf_str(&out, "{\"object\":\"list\",\"data\":[");
    put_model(server, &out);
    mfi_buf_str(&out, "],\"has_more\":false,\"first_id\":");
    mfi_json_put_str(&out, server->model, strlen(server->model));
    mfi_buf_str(&out, ",\"last_id\":");
    mfi_json_put_str(&out, server->model, strlen(server->model));
    mfi_buf_str(&out, "}");
    srv_reply_buf(x, 200, SRV_JSON, &out);
}

void srv_model(srv_server *server, srv_exchange *x, const char *id)
{
    mfi_buf out = {0};
    if (loading(server, x))
        return;
    if (strcmp(id, server->model) != 0) {
        srv_reply_error(x, 404, NULL, "model", "there is no model '%.200s' here", id);
        return;
    }
    put_model(server, &out);
    srv_reply_buf(x, 200, SRV_JSON, &out);
}

/* llama.cpp's, as far as it applies. */
void srv_props(srv_server *server, srv_exchange *x)
{
    mfi_buf out = {0};
    if (loading(server, x))
        return;
    mfi_buf_fmt(&out,
                "{\"default_generation_settings\":{\"n_ctx\":%u},\"total_slots\":%u,"
                "\"model_alias\":",
                server->info.ctx, server->options->parallel);
    mfi_json_put_str(&out, server->model, strlen(server->model));
    mfi_buf_fmt(&out, ",\"build_info\":\"moeflux-%s\"}", mf_version());
    srv_reply_buf(x, 200, SRV_JSON, &out);
}
