/* Asks a model one question and prints the answer as it comes. Uses nothing but the public header.
 *
 *   cc generate.c $(pkg-config --cflags --libs moeflux) -o generate
 *   ./generate MODEL QUESTION [MEMORY_MIB]
 *
 * MODEL is a model folder; experts that don't fit into MEMORY_MIB are read when they are needed. */
#include <moeflux/moeflux.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every token's text, cut at character borders. */
static bool on_token(void *user, int32_t id, const char *bytes, size_t len)
{
    (void)id;
    fwrite(bytes, 1, len, user);
    fflush(user);
    return true; /* false would stop here */
}

/* The question as the model was trained to see it, in token ids; released with mf_free. */
static mf_status encode(const mf_tokenizer *tokenizer, const char *question, int32_t **ids,
                        size_t *n_ids, mf_error *err)
{
    if (!mf_tokenizer_has_chat_template(tokenizer)) /* a model that only continues text */
        return mf_tokenizer_encode(tokenizer, question, strlen(question), true, ids, n_ids, err);

    mf_chat_message message = {.role = "user", .content = question};
    mf_rendering text = {0};
    mf_status status = mf_chat_render(tokenizer, &message, 1, NULL, &text, err);
    if (status != MF_OK)
        return status;
    /* Knows what came from the question: that never turns into a special token. */
    status = mf_rendering_encode(&text, 0, tokenizer, ids, n_ids, err);
    mf_rendering_free(&text);
    return status;
}

static mf_status answer(mf_engine *engine, const char *question, mf_error *err)
{
    mf_session *session = NULL;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    mf_generate_options options;
    mf_generate_result result;

    mf_status status = encode(mf_engine_tokenizer(engine), question, &ids, &n_ids, err);
    if (status == MF_OK)
        status = mf_session_open(&session, engine, err);
    if (status == MF_OK) {
        mf_generate_options_default(&options);
        mf_engine_sampling(engine, &options.sampling); /* what the model's makers advise */
        options.prompt = ids;
        options.n_prompt = n_ids;
        options.max_tokens = 256;
        options.on_token = on_token;
        options.user = stdout;
        status = mf_session_generate(session, &options, &result, err);
        putchar('\n');
    }
    mf_session_close(&session);
    mf_free(ids);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: %s MODEL QUESTION [MEMORY_MIB]\n", argv[0]);
        return 2;
    }
    mf_error err = {0};
    mf_engine *engine = NULL;
    mf_engine_options options;
    mf_engine_options_default(&options);
    options.model_path = argv[1];
    options.ctx = 512;
    if (argc == 4)
        options.memory_bytes = strtoull(argv[3], NULL, 10) << 20;

    mf_status status = mf_engine_open(&engine, &options, &err);
    if (status == MF_OK && !mf_engine_tokenizer(engine)) {
        snprintf(err.message, sizeof err.message, "%s has no tokenizer", argv[1]);
        status = MF_ERR_UNSUPPORTED;
    } else if (status == MF_OK) {
        status = answer(engine, argv[2], &err);
    }
    if (status == MF_OK) {
        mf_stats stats;
        mf_engine_stats(engine, &stats);
        fprintf(stderr, "%llu expert hits, %llu misses, %llu bytes read\n",
                (unsigned long long)stats.expert_hits, (unsigned long long)stats.expert_misses,
                (unsigned long long)stats.expert_bytes_read);
    } else {
        fprintf(stderr, "%s: %s\n", mf_status_text(status), err.message);
    }
    mf_engine_close(&engine);
    return status == MF_OK ? 0 : 1;
}
