/* What a model wrote, taken apart: reasoning, text and tool calls in the notation of its family.
 *
 * Text and reasoning come out as they are written, but for what may still become a marker, and so
 * do a call's arguments once its name is known. Where a notation writes them key by key, JSON is
 * made of them: a string comes out as it is written, a value that may be JSON itself once it is
 * whole. A call that makes no sense comes out as text,
 * byte for byte, or, if it was begun, as MF_OUTPUT_CALL_BROKEN. White space between parts belongs
 * to the notation and is left out; mfi_output_render puts it back as the family's template does.
 * However the stream is cut, the same kinds of bytes come out in the same order. Needs no
 * tokenizer; what it reads is foreign and bounded. */
#ifndef MFI_TEXT_OUTPUT_H
#define MFI_TEXT_OUTPUT_H

#include "base/buf.h"
#include "base/json.h"
#include "moeflux/moeflux.h"

typedef enum mfi_notation {
    MFI_NOTATION_PLAIN,        /* no calls; <think> may occur */
    MFI_NOTATION_HERMES,       /* <tool_call>{"name": ..., "arguments": ...}</tool_call> */
    MFI_NOTATION_QWEN_CODER,   /* <tool_call><function=NAME><parameter=KEY>... */
    MFI_NOTATION_GLM,          /* <tool_call>NAME <arg_key>KEY</arg_key><arg_value>... */
    MFI_NOTATION_MINIMAX,      /* <minimax:tool_call><invoke name="NAME">... */
    MFI_NOTATION_DEEPSEEK_V3,  /* ...function SEP NAME ```json ARGUMENTS ``` */
    MFI_NOTATION_DEEPSEEK_V31, /* ...NAME SEP ARGUMENTS */
    MFI_NOTATION_KIMI,         /* <|tool_call_begin|>functions.NAME:0 ... */
    MFI_NOTATION_MISTRAL_LIST, /* [TOOL_CALLS][{...}] */
    MFI_NOTATION_MISTRAL,      /* [TOOL_CALLS]NAME[CALL_ID]ID[ARGS]ARGUMENTS */
    MFI_NOTATION_HARMONY,      /* channels of gpt-oss */
    MFI_NOTATION_DEEPSEEK_V32, /* <DSML|invoke name="NAME"><DSML|parameter name=... string=...> */
    MFI_NOTATION_DEEPSEEK_V4,  /* the same in other brackets */
    MFI_NOTATION_SEED,         /* <seed:tool_call><function=NAME><parameter=KEY>... */
    MFI_NOTATION_LLAMA3,       /* {"name": ..., "parameters": ...}, which is the answer */
    MFI_NOTATION_GRANITE3,     /* <|tool_call|>[{...}] */
    MFI_NOTATION_LIST,         /* <tool_calls>[{...}]</tool_calls>, or objects in a row */
    MFI_NOTATION_NEMOTRON,     /* <TOOLCALL>[{...}]</TOOLCALL> */
    MFI_NOTATION_GIGACHAT,     /* <|function_call|>{"name": ..., "arguments": ...} */
    MFI_N_NOTATIONS
} mfi_notation;

typedef struct mfi_output mfi_output;

/* The notation that a chat template tells its model to use. */
mfi_notation mfi_notation_detect(const char *chat_template, size_t len);
const char *mfi_notation_name(mfi_notation notation);

/* reasoning: the prompt ended within it (its last line is <think>, say). */
mf_status mfi_output_open(mfi_output **output, mfi_notation notation, bool reasoning,
                          mf_output_fn fn, void *user, mf_error *err);
/* From here on an object without a marker is a call only with one of these names, which are
 * borrowed. NULL: with any. */
void mfi_output_bare_names(mfi_output *output, const char *const *names, size_t n);
void mfi_output_push(mfi_output *output, const char *bytes, size_t len);
/* The end of the answer. MF_ERR_NO_MEMORY if something was lost. */
mf_status mfi_output_end(mfi_output *output, mf_error *err);
void mfi_output_close(mfi_output **output);

/* Whether a token is one of the notation's markers, which count with their text. */
bool mfi_output_marks(const mf_output *output, int32_t id);

/* ---- the way back ---- */

typedef struct mfi_call {
    const char *name, *id; /* id: NULL or empty if there is none */
    const char *arguments; /* JSON */
    size_t arguments_len;
} mfi_call;

/* Appends a turn as the model would have written it. `reasoning` may be NULL; in_prompt: the prompt
 * has begun it. */
void mfi_output_render(mfi_notation notation, const char *reasoning, bool in_prompt,
                       const char *text, const mfi_call *calls, size_t n_calls, mfi_buf *out);

#endif
