/* Answers taken apart, as callers see it: finds a family's notation in its chat template and
 * whether the prompt has begun reasoning, and makes bytes of tokens. Owned by whoever shows an
 * answer, on its thread. The work is output.c's. */
#include <stdlib.h>
#include <string.h>

#include "text/chat.h"
#include "text/detok.h"
#include "text/output_int.h"
#include "text/tokenizer_int.h"

#define PROMPT_TAIL_TOKENS 16 /* that are looked at for reasoning */

struct mf_output {
    mfi_output *parser;
    mfi_notation notation;
    const mf_tokenizer *tokenizer;
    mfi_detok detok;
    uint32_t strip; /* spaces that encoding put where text begins */
    mfi_buf text;   /* of one token */
};

static mfi_notation detect(const mf_tokenizer *files)
{
    mfi_notation notation = MFI_NOTATION_PLAIN;
    if (files && files->tool_template)
        notation = mfi_notation_detect(files->tool_template, files->tool_template_len);
    if (files && files->chat_template && notation == MFI_NOTATION_PLAIN)
        notation = mfi_notation_detect(files->chat_template, files->chat_template_len);
    return notation;
}

static mf_status find_notation(const mf_output_options *options, mfi_notation *notation,
                               mf_error *err)
{
    mfi_buf names = {0};
    if (!options->notation) {
        *notation = detect(options->chat_template ? mfi_template_files(options->chat_template)
                                                  : options->tokenizer);
        return MF_OK;
    }
    for (int i = 0; i < MFI_N_NOTATIONS; i++) {
        const char *name = mfi_notation_name((mfi_notation)i);
        if (strcmp(name, options->notation) == 0) {
            *notation = (mfi_notation)i;
            mfi_buf_free(&names);
            return MF_OK;
        }
        mfi_buf_fmt(&names, "%s%s", i ? ", " : "", name);
    }
    mf_status status = mfi_fail(err, MF_ERR_ARGUMENT, "no notation %.40s: there are %s",
                                options->notation, names.data ? names.data : "");
    mfi_buf_free(&names);
    return status;
}

/* Whether the prompt's last words begin reasoning. */
static bool prompt_reasons(const mf_output_options *options, mfi_notation notation)
{
    mfi_buf tail = {0};
    const char *mark = mfi_think_marker(notation, true);
    size_t n = options->tokenizer ? options->n_prompt : 0;
    for (size_t i = n > PROMPT_TAIL_TOKENS ? n - PROMPT_TAIL_TOKENS : 0; i < n; i++) {
        size_t len;
        const char *piece = mf_tokenizer_piece(options->tokenizer, options->prompt[i], true, &len);
        mfi_buf_append(&tail, piece, len);
    }
    while (tail.len && strchr(" \t\r\n", tail.data[tail.len - 1]))
        tail.len--;
    bool begun = !tail.failed && tail.len >= strlen(mark) &&
                 memcmp(tail.data + tail.len - strlen(mark), mark, strlen(mark)) == 0;
    mfi_buf_free(&tail);
    return begun;
}

mf_status mf_output_open(mf_output **output, const mf_output_options *options, mf_error *err)
{
    mfi_notation notation;
    if (!output || !options || !options->on_part || (!options->prompt && options->n_prompt))
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_output_open: NULL argument");
    if (options->struct_size < sizeof *options)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_output_open: struct_size is not set");
    MFI_TRY(find_notation(options, &notation, err));
    mf_output *o = calloc(1, sizeof *o);
    if (!o)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to take an answer apart");
    o->notation = notation;
    o->tokenizer = options->tokenizer;
    if (o->tokenizer)
        o->strip = mfi_tokenizer_strip(
            o->tokenizer, options->n_prompt ? options->prompt[options->n_prompt - 1] : -1);
    mf_status status = mfi_output_open(&o->parser, notation,
                                       options->in_reasoning || prompt_reasons(options, notation),
                                       options->on_part, options->user, err);
    if (status != MF_OK) {
        mf_output_close(&o);
        return status;
    }
    mfi_output_bare_names(o->parser, options->tools, options->n_tools);
    *output = o;
    return MF_OK;
}

void mf_output_close(mf_output **output)
{
    mf_output *o = output ? *output : NULL;
    if (!o)
        return;
    mfi_output_close(&o->parser);
    mfi_buf_free(&o->text);
    free(o);
    *output = NULL;
}

const char *mf_output_notation(const mf_output *output)
{
    return mfi_notation_name(output->notation);
}

void mf_output_push(mf_output *output, const char *bytes, size_t len)
{
    mfi_output_push(output->parser, bytes, len);
}

bool mfi_output_marks(const mf_output *o, int32_t id)
{
    size_t len = 0;
    const char *mark = o->tokenizer ? mf_tokenizer_piece(o->tokenizer, id, true, &len) : "";
    return len && mfi_output_is_marker(o->notation, mark, len);
}

void mf_output_push_token(mf_output *o, int32_t id)
{
    size_t len = 0;
    if (!o->tokenizer)
        return;
    const char *piece =
        mfi_tokenizer_show(o->tokenizer, id, mfi_output_marks(o, id), &o->strip, &len);
    o->text.len = 0;
    mfi_detok_push(&o->detok, piece, len, &o->text);
    if (o->text.len)
        mfi_output_push(o->parser, o->text.data, o->text.len);
}

mf_status mf_output_end(mf_output *o, mf_error *err)
{
    o->text.len = 0;
    mfi_detok_end(&o->detok, &o->text);
    if (o->text.len)
        mfi_output_push(o->parser, o->text.data, o->text.len);
    MFI_TRY(mfi_output_end(o->parser, err));
    if (o->text.failed)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to take an answer apart");
    return MF_OK;
}
