/* Sampling as the command line wants it; for the commands that answer. Main thread only. */
#include <stdio.h>
#include <sys/random.h>

#include "cli.h"

int cli_choose_sampling(const cli_args *args, const mf_engine *engine, mf_sampling *s)
{
    mf_model_info info = {.struct_size = sizeof info};
    mf_engine_info(engine, &info);
    mf_sampling_default(s);
    mf_engine_sampling(engine, s);
    if (CLI_GIVEN(args, temp))
        s->temperature = (float)args->temp;
    if (CLI_GIVEN(args, top_k))
        s->top_k = (int32_t)args->top_k;
    if (CLI_GIVEN(args, top_p))
        s->top_p = (float)args->top_p;
    if (CLI_GIVEN(args, min_p))
        s->min_p = (float)args->min_p;
    if (CLI_GIVEN(args, repeat_penalty))
        s->repeat_penalty = (float)args->repeat_penalty;
    if (CLI_GIVEN(args, presence_penalty))
        s->presence_penalty = (float)args->presence_penalty;
    if (CLI_GIVEN(args, frequency_penalty))
        s->frequency_penalty = (float)args->frequency_penalty;
    if (CLI_GIVEN(args, repeat_last_n))
        s->repeat_last_n = (int32_t)args->repeat_last_n;
    for (size_t i = 0; i < args->n_bias; i++)
        if ((uint32_t)args->bias[i].id >= info.n_vocab)
            return cli_usage_error("--logit-bias: token %d is outside the vocabulary of %u",
                                   args->bias[i].id, info.n_vocab);
    s->bias = args->bias;
    s->n_bias = args->n_bias;
    s->seed = args->seed;
    if (!CLI_GIVEN(args, seed) && s->temperature > 0) {
        uint32_t seed; /* 32 bits: every JSON reader can hold it, and it can be typed */
        if (getentropy(&seed, sizeof seed) != 0)
            return cli_error(CLI_EXIT_RUNTIME, "cannot draw a seed; name one with --seed");
        s->seed = seed;
        fprintf(stderr, "seed: %u\n", seed);
    }
    return CLI_EXIT_OK;
}
