/* Answers taken apart: each family's notation as its template writes it, whatever the cuts of the
 * stream; malformed calls as text without loss; and the way back to the same bytes. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "text/output.h"

#define DS(word) "<\xef\xbd\x9ctool\xe2\x96\x81" word "\xef\xbd\x9c>"
#define B        "\xe2\x96\x81"
#define DSML                                                                                       \
    "\xef\xbd\x9c"                                                                                 \
    "DSML"                                                                                         \
    "\xef\xbd\x9c"

/* ---- collecting ---- */

typedef struct collected {
    mfi_buf log; /* "text(...)reasoning(...)name0(...)", what belongs together joined */
    int last;
    uint32_t last_call;
    mfi_buf reasoning, text, plain;
    mfi_buf name[8], id[8], args[8];
    uint32_t n_calls, n_broken;
    bool reasoned;
} collected;

static void collect(void *user, mf_output_kind kind, uint32_t call, const char *bytes, size_t len)
{
    static const char *const names[] = {"text", "reasoning", "name", "id", "args", "end", "broken"};
    collected *c = user;
    if ((int)kind != c->last || call != c->last_call)
        mfi_buf_fmt(&c->log, "\n%s%u:", names[kind], call);
    c->last = (int)kind;
    c->last_call = call;
    mfi_buf_append(&c->log, bytes, len);
    mfi_buf_append(&c->plain, bytes, len);
    if (kind == MF_OUTPUT_TEXT)
        mfi_buf_append(&c->text, bytes, len);
    if (kind == MF_OUTPUT_REASONING) {
        mfi_buf_append(&c->reasoning, bytes, len);
        c->reasoned = true;
    }
    assert_true(call < 8);
    if (kind == MF_OUTPUT_CALL_NAME)
        mfi_buf_append(&c->name[call], bytes, len);
    if (kind == MF_OUTPUT_CALL_ID)
        mfi_buf_append(&c->id[call], bytes, len);
    if (kind == MF_OUTPUT_CALL_ARGUMENTS)
        mfi_buf_append(&c->args[call], bytes, len);
    if (kind == MF_OUTPUT_CALL_BROKEN) { /* what it was goes back to being text */
        mfi_buf_append(&c->text, bytes, len);
        c->name[call].len = c->id[call].len = c->args[call].len = 0;
        c->n_broken++;
    }
    if (kind == MF_OUTPUT_CALL_END) {
        assert_int_equal(call, c->n_calls + c->n_broken);
        assert_int_equal(mfi_json_scan(c->args[call].data, c->args[call].len, "", NULL), MF_OK);
        c->n_calls++;
    }
}

static void release(collected *c)
{
    mfi_buf_free(&c->log);
    mfi_buf_free(&c->reasoning);
    mfi_buf_free(&c->text);
    mfi_buf_free(&c->plain);
    for (int i = 0; i < 8; i++) {
        mfi_buf_free(&c->name[i]);
        mfi_buf_free(&c->id[i]);
        mfi_buf_free(&c->args[i]);
    }
}

/* Parses with the stream cut at the bits of `cuts` (position modulo 64), or everywhere. */
static collected parse(mfi_notation notation, bool reasoning, const char *bytes, size_t len,
                       uint64_t cuts)
{
    collected c = {.last = -1};
    mfi_output *o = NULL;
    mf_error err;
    mft_ok(mfi_output_open(&o, notation, reasoning, collect, &c, &err), &err);
    size_t from = 0;
    for (size_t i = 1; i <= len; i++) {
        if (i == len || cuts >> (i & 63) & 1) {
            mfi_output_push(o, bytes + from, i - from);
            from = i;
        }
    }
    mft_ok(mfi_output_end(o, &err), &err);
    mfi_output_close(&o);
    mfi_buf_append(&c.log, "", 0);
    mfi_buf_append(&c.text, "", 0);
    mfi_buf_append(&c.reasoning, "", 0);
    return c;
}

static mfi_buf render(mfi_notation notation, bool in_prompt, const collected *c)
{
    mfi_call calls[8];
    mfi_buf out = {0};
    for (uint32_t i = 0; i < c->n_calls; i++)
        calls[i] = (mfi_call){c->name[i].data, c->id[i].data, c->args[i].data, c->args[i].len};
    mfi_output_render(notation, c->reasoned ? c->reasoning.data : NULL, in_prompt, c->text.data,
                      calls, c->n_calls, &out);
    mfi_buf_append(&out, "", 0);
    return out;
}

/* ---- what models write ---- */

static const struct sample {
    mfi_notation notation;
    bool reasoning; /* the prompt has begun it */
    const char *bytes, *events;
} samples[] = {
    {MFI_NOTATION_HERMES, false,
     "<think>\nI should look.\n</think>\n\nLet me see.\n<tool_call>\n{\"name\": \"get_weather\", "
     "\"arguments\": {\"city\": \"Z\xc3\xbcrich\", \"n\": "
     "2}}\n</tool_call>\n<tool_call>\n{\"name\": "
     "\"now\", \"arguments\": {}}\n</tool_call>",
     "\nreasoning0:I should look.\ntext0:Let me see.\nname0:get_weather\nargs0:{\"city\": "
     "\"Z\xc3\xbcrich\", \"n\": 2}\nend0:\nname1:now\nargs1:{}\nend1:"},
    {MFI_NOTATION_HERMES, false, "a <b> <tool_cal <think> x\n",
     "\ntext0:a <b> <tool_cal <think> x\n"},
    {MFI_NOTATION_QWEN_CODER, false,
     "Reading.\n\n<tool_call>\n<function=read>\n<parameter=path>\n/tmp/a "
     "b\n</parameter>\n<parameter="
     "lines>\n[1, 2]\n</parameter>\n<parameter=text>\ntwo\n<lines>\n</parameter>\n</function>\n"
     "</tool_call>\n<tool_call>\n<function=ls>\n</function>\n</tool_call>",
     "\ntext0:Reading.\nname0:read\nargs0:{\"path\": \"/tmp/a b\", \"lines\": [1, 2], \"text\": "
     "\"two\\n<lines>\"}\nend0:\nname1:ls\nargs1:{}\nend1:"},
    {MFI_NOTATION_GLM, false,
     "<think>Hm.</think>\nYes.\n<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1.5</arg_value>\n"
     "<arg_key>b</arg_key>\n<arg_value>one</arg_value>\n</tool_call>",
     "\nreasoning0:Hm.\ntext0:Yes.\nname0:add\nargs0:{\"a\": 1.5, \"b\": \"one\"}\nend0:"},
    {MFI_NOTATION_MINIMAX, true,
     "So.\n</think>\n\nText\n<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"k\">v w"
     "</parameter>\n<parameter name=\"o\">{\"x\": null}</parameter>\n</invoke>\n<invoke "
     "name=\"g\">\n"
     "</invoke>\n</minimax:tool_call>",
     "\nreasoning0:So.\ntext0:Text\nname0:f\nargs0:{\"k\": \"v w\", \"o\": {\"x\": null}}\nend0:\n"
     "name1:g\nargs1:{}\nend1:"},
    {MFI_NOTATION_DEEPSEEK_V31, true,
     "Think.</think>Go" DS("calls" B "begin")
         DS("call" B "begin") "f" DS("sep") "{\"a\": \"b\"}" DS("call" B "end")
             DS("call" B "begin") "g" DS("sep") "{}" DS("call" B "end") DS("calls" B "end"),
     "\nreasoning0:Think.\ntext0:Go\nname0:f\nargs0:{\"a\": "
     "\"b\"}\nend0:\nname1:g\nargs1:{}\nend1:"},
    {MFI_NOTATION_DEEPSEEK_V3, false,
     DS("calls" B "begin")
         DS("call" B "begin") "function" DS("sep") "f\n```json\n{\"a\": 1}\n```" DS(
             "call" B
             "end") "\n" DS("call" B "begin") "function" DS("sep") "g\n```json\n{}\n```" DS("call" B
                                                                                            "end")
             DS("calls" B "end"),
     "\nname0:f\nargs0:{\"a\": 1}\nend0:\nname1:g\nargs1:{}\nend1:"},
    {MFI_NOTATION_KIMI, false,
     "Ok.<|tool_calls_section_begin|><|tool_call_begin|>functions.f:3<|tool_call_argument_begin|>"
     "{\"q\": "
     "\"<|x|>\"}<|tool_call_end|><|tool_call_begin|>functions.g:4<|tool_call_argument_begin|>"
     "{}<|tool_call_end|><|tool_calls_section_end|>",
     "\ntext0:Ok.\nname0:f\nid0:functions.f:3\nargs0:{\"q\": "
     "\"<|x|>\"}\nend0:\nname1:g\nid1:functions."
     "g:4\nargs1:{}\nend1:"},
    {MFI_NOTATION_MISTRAL_LIST, false,
     "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": [\"]\"]}, \"id\": \"abcdefghi\"}, "
     "{\"name\": \"g\", \"arguments\": {}, \"id\": \"123456789\"}]",
     "\nname0:f\nargs0:{\"a\": "
     "[\"]\"]}\nid0:abcdefghi\nend0:\nname1:g\nargs1:{}\nid1:123456789\nend1:"},
    {MFI_NOTATION_MISTRAL, false,
     "Now[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{\"a\": 1}[TOOL_CALLS]g[ARGS]{}",
     "\ntext0:Now\nname0:f\nid0:abcdefghi\nargs0:{\"a\": 1}\nend0:\nname1:g\nargs1:{}\nend1:"},
    {MFI_NOTATION_HARMONY, false,
     "<|channel|>analysis<|message|>Need \n it.<|end|><|start|>assistant to=functions.f<|channel|>"
     "commentary json<|message|>{\"a\": 1}<|call|>",
     "\nreasoning0:Need \n it.\nname0:f\nargs0:{\"a\": 1}\nend0:"},
    {MFI_NOTATION_HARMONY, false, "<|channel|>final<|message|>The end.\n", "\ntext0:The end.\n"},
    {MFI_NOTATION_DEEPSEEK_V32, true,
     "Hm.</think>Go.\n\n<" DSML "function_calls>\n<" DSML "invoke name=\"f\">\n<" DSML
     "parameter name=\"a\" string=\"true\">42 <b>\n</" DSML "parameter>\n<" DSML
     "parameter name=\"o\" string=\"false\">[1, \"x\"]</" DSML "parameter>\n</" DSML
     "invoke>\n<" DSML "invoke name=\"g\">\n</" DSML "invoke>\n</" DSML "function_calls>",
     "\nreasoning0:Hm.\ntext0:Go.\nname0:f\nargs0:{\"a\": \"42 <b>\\n\", \"o\": [1, \"x\"]}\n"
     "end0:\nname1:g\nargs1:{}\nend1:"},
    {MFI_NOTATION_DEEPSEEK_V4, false,
     "\n\n<" DSML "tool_calls>\n<" DSML "invoke name=\"f\">\n<" DSML
     "parameter name=\"a\" string=\"false\">null</" DSML "parameter>\n</" DSML "invoke>\n<" DSML
     "invoke name=\"g\">\n\n</" DSML "invoke>\n</" DSML "tool_calls>",
     "\nname0:f\nargs0:{\"a\": null}\nend0:\nname1:g\nargs1:{}\nend1:"},
    {MFI_NOTATION_SEED, false,
     "<seed:think>Hm.</seed:think>Yes.\n<seed:tool_call>\n<function=f>\n<parameter=a>\none\n"
     "</parameter>\n<parameter=b>2</parameter>\n</function>\n</seed:tool_call>\n<seed:tool_call>\n"
     "<function=g>\n</function>\n</seed:tool_call>",
     "\nreasoning0:Hm.\ntext0:Yes.\nname0:f\nargs0:{\"a\": \"\\none\\n\", \"b\": 2}\nend0:\n"
     "name1:g\nargs1:{}\nend1:"},
    {MFI_NOTATION_LLAMA3, false,
     "{\"name\": \"f\", \"parameters\": {\"a\": \"};\"}}; {\"name\": \"g\", \"parameters\": {}}",
     "\nname0:f\nargs0:{\"a\": \"};\"}\nend0:\nname1:g\nargs1:{}\nend1:"},
    {MFI_NOTATION_LLAMA3, false, "{\"a\": {\"name\": \"f\", \"parameters\": {}}}",
     "\ntext0:{\"a\": {\"name\": \"f\", \"parameters\": {}}}"},
    {MFI_NOTATION_LLAMA3, false, "So: {\"name\": \"f\", \"parameters\": {}}",
     "\ntext0:So: {\"name\": \"f\", \"parameters\": {}}"},
    {MFI_NOTATION_GRANITE3, false,
     "Ok.<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", "
     "\"arguments\": {}}]",
     "\ntext0:Ok.\nname0:f\nargs0:{\"a\": 1}\nend0:\nname1:g\nargs1:{}\nend1:"},
    {MFI_NOTATION_LIST, false,
     "Ok.\n<tool_calls>[{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"x1\"}, "
     "{\"name\": \"g\", \"arguments\": {}}]</tool_calls>",
     "\ntext0:Ok.\nname0:f\nargs0:{\"a\": 1}\nid0:x1\nend0:\nname1:g\nargs1:{}\nend1:"},
    {MFI_NOTATION_NEMOTRON, false,
     "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]</TOOLCALL>",
     "\nname0:f\nargs0:{\"a\": 1}\nend0:"},
    {MFI_NOTATION_GIGACHAT, false,
     "Ok.<|function_call|>{\"name\": \"f\", \"arguments\": {\"a\": 1}}",
     "\ntext0:Ok.\nname0:f\nargs0:{\"a\": 1}\nend0:"},
};

/* The same in spellings that the way back hasn't. */
static const struct sample further[] = {
    {MFI_NOTATION_LLAMA3, false,
     "<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"arguments\": {\"a\": 1}}\n"
     "{\"name\": \"g\", \"parameters\": {}}",
     "\nname0:f\nargs0:{\"a\": 1}\nend0:\nname1:g\nargs1:{}\nend1:"},
    {MFI_NOTATION_LLAMA3, false, "\n{\"name\": \"f\", \"parameters\": {}} and so on",
     "\nname0:f\nargs0:{}\nend0:\ntext1: and so on"},
    {MFI_NOTATION_LIST, false,
     "<tool_calls>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\"}}\n{\"name\": \"g\", "
     "\"arguments\": {}}\n</tool_calls>",
     "\nname0:f\nargs0:{\"a\": \"}\"}\nend0:\nname1:g\nargs1:{}\nend1:"},
    {MFI_NOTATION_DEEPSEEK_V32, false,
     "<" DSML "function_calls><" DSML "invoke name=\"f\"><" DSML
     "parameter name=\"a\" string=\"false\">no JSON</" DSML "parameter></" DSML "invoke></" DSML
     "function_calls>",
     "\nname0:f\nargs0:{\"a\": \"no JSON\"}\nend0:"},
    {MFI_NOTATION_DEEPSEEK_V32, false, /* white space around JSON is no part of it */
     "<" DSML "function_calls><" DSML "invoke name=\"f\"><" DSML
     "parameter name=\"a\" string=\"false\"> 5\n</" DSML "parameter><" DSML
     "parameter name=\"b\" string=\"false\">\n[1] </" DSML "parameter><" DSML
     "parameter name=\"c\" string=\"false\"> </" DSML "parameter></" DSML "invoke></" DSML
     "function_calls>",
     "\nname0:f\nargs0:{\"a\": 5, \"b\": [1], \"c\": \" \"}\nend0:"},
    {MFI_NOTATION_DEEPSEEK_V4, false,
     "<" DSML "tool_calls><" DSML "invoke name=\"f\"><" DSML
     "parameter name=\"a\" string=\"false\">\"t\"</" DSML "parameter></" DSML "invoke></" DSML
     "tool_calls>",
     "\nname0:f\nargs0:{\"a\": \"t\"}\nend0:"},
};

static void every_family_and_every_cut(void **state)
{
    (void)state;
    uint64_t seed = 5;
    mfi_rng rng = {seed};
    size_t n = MFI_ARRAY_LEN(samples);
    for (size_t i = 0; i < n + MFI_ARRAY_LEN(further); i++) {
        const struct sample *s = i < n ? &samples[i] : &further[i - n];
        size_t len = strlen(s->bytes);
        for (int round = 0; round < 200; round++) {
            uint64_t cuts = round == 0 ? 0 : round == 1 ? UINT64_MAX : mfi_rng_next(&rng);
            collected c = parse(s->notation, s->reasoning, s->bytes, len, cuts);
            if (strcmp(c.log.data, s->events) != 0)
                fail_msg("%s, seed %llu round %d:%s", mfi_notation_name(s->notation),
                         (unsigned long long)seed, round, c.log.data);
            release(&c);
        }
        for (size_t cut = 1; cut < len; cut++) { /* and every cut in two */
            collected whole = {.last = -1};
            mfi_output *o = NULL;
            mf_error err;
            mft_ok(mfi_output_open(&o, s->notation, s->reasoning, collect, &whole, &err), &err);
            mfi_output_push(o, s->bytes, cut);
            mfi_output_push(o, s->bytes + cut, len - cut);
            mft_ok(mfi_output_end(o, &err), &err);
            mfi_output_close(&o);
            assert_string_equal(whole.log.data, s->events);
            release(&whole);
        }
    }
}

static void the_way_back_gives_the_same_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(samples); i++) {
        const struct sample *s = &samples[i];
        collected c = parse(s->notation, s->reasoning, s->bytes, strlen(s->bytes), 0);
        mfi_buf out = render(s->notation, s->reasoning, &c);
        assert_string_equal(out.data, s->bytes);
        mfi_buf_free(&out);
        release(&c);
    }
}

/* Damaged calls: all bytes come out as text. */
static const struct {
    mfi_notation notation;
    const char *bytes;
} damaged[] = {
    {MFI_NOTATION_HERMES, "x\n<tool_call>\n{\"name\": \"f\", \"arguments\": {]}\n</tool_call>\n y"},
    {MFI_NOTATION_HERMES, "<tool_call>{\"name\": \"f\"}</tool_call>"},
    {MFI_NOTATION_HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}"},
    {MFI_NOTATION_HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": []}</tool_call>"},
    {MFI_NOTATION_HERMES, "<tool_call>{\"name\": \"f g\", \"arguments\": {}}</tool_call>"},
    {MFI_NOTATION_HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": {}} z</tool_call>"},
    {MFI_NOTATION_HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": {\"\xff\": 1}}</tool_call>"},
    {MFI_NOTATION_QWEN_CODER, "<tool_call>\n<function=f>\n<parameter=a>\n1\n</tool_call>"},
    {MFI_NOTATION_QWEN_CODER, "<tool_call><function=f></function> more</tool_call>"},
    {MFI_NOTATION_QWEN_CODER, "<tool_call><function=f><parameter=a>1</parameter><parameter=a>2"
                              "</parameter></function></tool_call>"},
    {MFI_NOTATION_GLM, "<tool_call>f\n<arg_key>a</arg_key>\n</tool_call>"},
    {MFI_NOTATION_MINIMAX, "<minimax:tool_call>\n<invoke name=\"f\">\n</minimax:tool_call>"},
    {MFI_NOTATION_DEEPSEEK_V31, "a " DS("calls" B "begin") "f" DS("calls" B "end")},
    {MFI_NOTATION_DEEPSEEK_V3, DS("calls" B "begin") DS("call" B "begin") "function" DS("sep")},
    {MFI_NOTATION_KIMI,
     "<|tool_calls_section_begin|><|tool_call_begin|>f:0<|tool_call_argument_begin|>"
     "{}<|tool_call_end|><|tool_calls_section_end|>"},
    {MFI_NOTATION_MISTRAL_LIST, "[TOOL_CALLS][{\"name\": \"f\"}]"},
    {MFI_NOTATION_MISTRAL_LIST, "[TOOL_CALLS][]"},
    {MFI_NOTATION_MISTRAL, "[TOOL_CALLS]f{}"},
    {MFI_NOTATION_MISTRAL, "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS"},
    {MFI_NOTATION_HARMONY, " to=functions.f<|channel|>commentary json<|message|>{\"a\"<|call|>"},
    {MFI_NOTATION_HARMONY, "Just words <|message|>"},
    {MFI_NOTATION_PLAIN, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\n"},
    {MFI_NOTATION_LLAMA3, "{\"name\": \"f\", \"x\": {}}"},
    {MFI_NOTATION_LLAMA3, "{\"name\": \"f\", \"parameters\": {"},
    {MFI_NOTATION_LLAMA3, "<|python_tag|>brave_search.call(query=\"x\")"},
    {MFI_NOTATION_LLAMA3, "{}"},
    {MFI_NOTATION_GRANITE3, "<|tool_call|>{\"name\": \"f\", \"arguments\": {}}"},
    {MFI_NOTATION_LIST, "<tool_calls>{\"name\": \"f\", \"arguments\": {}</tool_calls>"},
    {MFI_NOTATION_NEMOTRON, "<TOOLCALL>[]</TOOLCALL>"},
    {MFI_NOTATION_GIGACHAT, "<|function_call|>{\"name\": \"f\"}"},
    {MFI_NOTATION_SEED, "<seed:tool_call><function=f></seed:tool_call>"},
    {MFI_NOTATION_DEEPSEEK_V32, "<" DSML "function_calls><" DSML "invoke name=\"f\"><" DSML
                                "parameter name=\"a\" string=\"maybe\">x</" DSML "parameter></" DSML
                                "invoke></" DSML "function_calls>"},
    {MFI_NOTATION_DEEPSEEK_V4,
     "<" DSML "tool_calls><" DSML "invoke name=\"f\"></" DSML "tool_calls>"},
};

/* Of several calls those that are whole stay, and what was begun is taken back. */
static const struct {
    mfi_notation notation;
    const char *bytes, *events;
} half[] = {
    {MFI_NOTATION_MISTRAL, "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[ARGS]{",
     "\nname0:f\nargs0:{}\nend0:\nname1:g\nargs1:{\nbroken1:[TOOL_CALLS]g[ARGS]{"},
    {MFI_NOTATION_MISTRAL_LIST,
     "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {]}] x",
     "\nname0:f\nargs0:{}\nend0:\nname1:g\nargs1:{]\nbroken1:, {\"name\": \"g\", "
     "\"arguments\": {]}] x"},
    {MFI_NOTATION_DEEPSEEK_V31,
     DS("calls" B "begin") DS("call" B "begin") "f" DS("sep") "{\"a\": [1]}" DS("call" B "end")
         DS("call" B "begin") "g" DS("calls" B "end") "x",
     "\nname0:f\nargs0:{\"a\": [1]}\nend0:\ntext1:" DS("call" B "begin") "g" DS("calls" B
                                                                                "end") "x"},
    {MFI_NOTATION_HERMES,
     "a\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1, \"a\": 2}}\n</tool_call>",
     "\ntext0:a\nname0:f\nargs0:{\"a\": 1, \"a\": 2}\nbroken0:\n<tool_call>\n{\"name\": \"f\", "
     "\"arguments\": {\"a\": 1, \"a\": 2}}\n</tool_call>"},
};

static void whole_calls_stay(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(half); i++) {
        for (uint64_t cuts = 0; cuts < 2; cuts++) {
            collected c = parse(half[i].notation, false, half[i].bytes, strlen(half[i].bytes),
                                cuts ? ~0ull : 0);
            assert_string_equal(c.log.data, half[i].events);
            release(&c);
        }
    }
}

/* Arguments come out as they are written: at any moment all that was pushed of them. */
static void arguments_stream(void **state)
{
    (void)state;
    static const struct {
        mfi_notation notation;
        const char *before, *after;
    } forms[] = {
        {MFI_NOTATION_HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": ", "}\n</tool_call>"},
        {MFI_NOTATION_DEEPSEEK_V31, DS("calls" B "begin") DS("call" B "begin") "f" DS("sep"),
         DS("call" B "end") DS("calls" B "end")},
        {MFI_NOTATION_DEEPSEEK_V3,
         DS("calls" B "begin") DS("call" B "begin") "function" DS("sep") "f\n```json\n",
         "\n```" DS("call" B "end") DS("calls" B "end")},
        {MFI_NOTATION_KIMI,
         "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>",
         "<|tool_call_end|><|tool_calls_section_end|>"},
        {MFI_NOTATION_MISTRAL_LIST, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": ", "}]"},
        {MFI_NOTATION_MISTRAL, "[TOOL_CALLS]f[ARGS]", ""},
        {MFI_NOTATION_HARMONY, "<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
         "<|call|>"},
        {MFI_NOTATION_LLAMA3, "{\"name\": \"f\", \"parameters\": ", "}"},
        {MFI_NOTATION_GRANITE3, "<|tool_call|>[{\"name\": \"f\", \"arguments\": ", "}]"},
        {MFI_NOTATION_LIST, "<tool_calls>[{\"name\": \"f\", \"arguments\": ", "}]</tool_calls>"},
        {MFI_NOTATION_NEMOTRON, "<TOOLCALL>[{\"name\": \"f\", \"arguments\": ", "}]</TOOLCALL>"},
        {MFI_NOTATION_GIGACHAT, "<|function_call|>{\"name\": \"f\", \"arguments\": ", "}"},
    };
    static const char args[] = "{\"k\": [1, {\"x\": \"a}\\\"]\"}], \"t\": \"\xc3\xa9\"}";
    for (size_t i = 0; i < MFI_ARRAY_LEN(forms); i++) {
        collected c = {.last = -1};
        mfi_output *o = NULL;
        mf_error err;
        mft_ok(mfi_output_open(&o, forms[i].notation, false, collect, &c, &err), &err);
        mfi_output_push(o, forms[i].before, strlen(forms[i].before));
        for (size_t k = 0; k < sizeof args - 1; k++) {
            mfi_output_push(o, args + k, 1);
            if (c.args[0].len != k + 1 || c.n_calls)
                fail_msg("%s: %zu of %zu bytes", mfi_notation_name(forms[i].notation),
                         c.args[0].len, k + 1);
        }
        assert_memory_equal(c.name[0].data, "f", 1);
        mfi_output_push(o, forms[i].after, strlen(forms[i].after));
        mft_ok(mfi_output_end(o, &err), &err);
        mfi_output_close(&o);
        assert_int_equal(c.n_calls, 1);
        assert_int_equal(c.args[0].len, sizeof args - 1);
        assert_memory_equal(c.args[0].data, args, sizeof args - 1);
        release(&c);
    }
}

/* Without tools an object of that form is an answer like any other; a marked call is still one. */
static void bare_objects_without_tools_are_text(void **state)
{
    static const char object[] = "{\"name\": \"f\", \"parameters\": {}}";
    static const char *const before[] = {"", "<|python_tag|>"};
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(before); i++) {
        collected c = {.last = -1};
        mfi_output *o = NULL;
        mf_error err;
        mft_ok(mfi_output_open(&o, MFI_NOTATION_LLAMA3, false, collect, &c, &err), &err);
        mfi_output_bare_names(o, before, 0);
        mfi_output_push(o, before[i], strlen(before[i]));
        mfi_output_push(o, object, sizeof object - 1);
        mft_ok(mfi_output_end(o, &err), &err);
        mfi_output_close(&o);
        assert_int_equal(c.n_calls, i);
        assert_int_equal(c.text.len, i ? 0 : sizeof object - 1);
        if (!i)
            assert_memory_equal(c.text.data, object, sizeof object - 1);
        release(&c);
    }
}

/* Where tools were offered only an object with the name of one is a call. */
static void bare_objects_call_offered_tools_only(void **state)
{
    static const char *const offered[] = {"f", "go"};
    static const struct {
        const char *bytes, *events;
    } cases[] = {
        {"{\"name\": \"f\", \"parameters\": {}}", "\nname0:f\nargs0:{}\nend0:"},
        {"{\"name\": \"g\", \"parameters\": {}}", "\ntext0:{\"name\": \"g\", \"parameters\": {}}"},
        {"{\"parameters\": {}, \"name\": \"g\"}", "\ntext0:{\"parameters\": {}, \"name\": \"g\"}"},
        {"{\"parameters\": {}, \"name\": \"go\"}", "\nname0:go\nargs0:{}\nend0:"},
        {"{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"Ann\", \"parameters\": {}}",
         "\nname0:f\nargs0:{}\nend0:\ntext1:; {\"name\": \"Ann\", \"parameters\": {}}"},
        {"<|python_tag|>{\"name\": \"g\", \"parameters\": {}}", "\nname0:g\nargs0:{}\nend0:"},
    };
    (void)state;
    for (size_t i = 0; i < 2 * MFI_ARRAY_LEN(cases); i++) {
        const char *bytes = cases[i / 2].bytes;
        size_t step = i % 2 ? 1 : strlen(bytes);
        collected c = {.last = -1};
        mfi_output *o = NULL;
        mf_error err;
        mft_ok(mfi_output_open(&o, MFI_NOTATION_LLAMA3, false, collect, &c, &err), &err);
        mfi_output_bare_names(o, offered, MFI_ARRAY_LEN(offered));
        for (size_t at = 0; at < strlen(bytes); at += step)
            mfi_output_push(o, bytes + at, step);
        mft_ok(mfi_output_end(o, &err), &err);
        mfi_output_close(&o);
        mfi_buf_append(&c.log, "", 0);
        assert_string_equal(c.log.data, cases[i / 2].events);
        release(&c);
    }
}

static void damaged_calls_are_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(damaged); i++) {
        for (uint64_t cuts = 0; cuts < 2; cuts++) {
            size_t len = strlen(damaged[i].bytes);
            collected c =
                parse(damaged[i].notation, false, damaged[i].bytes, len, cuts ? ~0ull : 0);
            if (c.n_calls || c.text.len != len || memcmp(c.text.data, damaged[i].bytes, len) != 0)
                fail_msg("%s became%s", damaged[i].bytes, c.log.data);
            release(&c);
        }
    }
}

/* Arguments that come key by key are made into JSON on the way: strings as they are written, what
 * may be JSON itself once it is whole, and never a byte that the whole call hasn't there. */
static void pairs_stream(void **state)
{
    (void)state;
    static const struct {
        const char *value, *json;
        bool at_once; /* nothing of it comes before it is whole */
    } values[] = {
        {"two words", "\"two words\"", false},
        {"line\none\n\n<b> </p \"q\" \\ \xc3\xa9",
         "\"line\\none\\n\\n<b> </p \\\"q\\\" \\\\ \xc3\xa9\"", false},
        {"true", "true", true},
        {"nullify it", "\"nullify it\"", false},
        {"-1.5e3", "-1.5e3", true},
        {"12 apples", "\"12 apples\"", false},
        {"[1, {\"a\": null}]", "[1, {\"a\": null}]", true},
        {"{not json}", "\"{not json}\"", true},
        {"\"quoted\"", "\"\\\"quoted\\\"\"", false},
        {"", "\"\"", true},
    };
    static const struct {
        mfi_notation notation;
        const char *before, *after, *end;
    } forms[] = {
        {MFI_NOTATION_QWEN_CODER, "<tool_call>\n<function=f>\n<parameter=k>\n", "\n</parameter>\n",
         "</function>\n</tool_call>"},
        {MFI_NOTATION_GLM, "<tool_call>f\n<arg_key>k</arg_key>\n<arg_value>", "</arg_value>\n",
         "</tool_call>"},
        {MFI_NOTATION_MINIMAX, "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"k\">",
         "</parameter>\n", "</invoke>\n</minimax:tool_call>"},
        {MFI_NOTATION_SEED, "<seed:tool_call>\n<function=f>\n<parameter=k>", "</parameter>\n",
         "</function>\n</seed:tool_call>"},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(forms) * MFI_ARRAY_LEN(values); i++) {
        size_t form = i / MFI_ARRAY_LEN(values), v = i % MFI_ARRAY_LEN(values);
        const char *value = values[v].value;
        mfi_buf want = {0};
        collected c = {.last = -1};
        mfi_output *o = NULL;
        mf_error err;
        mft_ok(mfi_output_open(&o, forms[form].notation, false, collect, &c, &err), &err);
        mfi_buf_fmt(&want, "{\"k\": %s}", values[v].json);
        mfi_output_push(o, forms[form].before, strlen(forms[form].before));
        assert_memory_equal(c.name[0].data, "f", 1);
        assert_int_equal(c.args[0].len, 6); /* {"k":_ */
        for (size_t k = 0; k < strlen(value); k++) {
            mfi_output_push(o, value + k, 1);
            assert_memory_equal(c.args[0].data, want.data, c.args[0].len);
        }
        bool early = c.args[0].len > strlen(values[v].json);
        if (early == values[v].at_once && strlen(value) > 4)
            fail_msg("%s: '%s' came as %s", mfi_notation_name(forms[form].notation), value,
                     c.args[0].data);
        mfi_output_push(o, forms[form].after, strlen(forms[form].after));
        assert_int_equal(c.args[0].len, want.len - 1);
        assert_int_equal(c.n_calls, 0);
        mfi_output_push(o, forms[form].end, strlen(forms[form].end));
        mft_ok(mfi_output_end(o, &err), &err);
        mfi_output_close(&o);
        assert_int_equal(c.n_calls, 1);
        assert_int_equal(c.args[0].len, want.len);
        assert_memory_equal(c.args[0].data, want.data, want.len);
        mfi_buf_free(&want);
        release(&c);
    }
}

/* Random texts of markers and their parts: the same whatever the cuts. */
static void cuts_change_nothing(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "<tool_call>",
        "</tool_call>",
        "<think>",
        "</think>",
        "{\"name\": \"f\", \"arguments\": {}}",
        "\n",
        " ",
        "<",
        "<tool",
        "<|channel|>",
        "<|message|>",
        "<|end|>",
        "<|start|>assistant",
        " to=functions.f",
        "analysis",
        "final",
        "<|call|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "{}",
        "f",
        "<function=f>",
        "</function>",
        "<parameter=a>",
        "</parameter>",
        "<arg_key>a</arg_key>",
        "<arg_value>1</arg_value>",
        "<tool_call>\n<function=f>\n<parameter=a>\nb\n",
        "<tool_call>f\n<arg_key>a</arg_key><arg_value>b",
        "<minimax:tool_call><invoke name=\"f\"><parameter name=\"a\">b",
        "</arg_value>",
        "<minimax:tool_call>",
        "</minimax:tool_call>",
        "<invoke name=\"f\">",
        "</invoke>",
        DS("calls" B "begin"),
        DS("calls" B "end"),
        DS("call" B "begin"),
        DS("call" B "end"),
        DS("sep"),
        "<|tool_calls_section_begin|>",
        "<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|>",
        "<|tool_calls_section_end|>",
        "<" DSML "function_calls><" DSML "invoke name=\"f\">",
        "<" DSML "parameter name=\"a\" string=\"",
        "true\">",
        "false\">",
        "</" DSML "parameter>",
        "</" DSML "invoke>",
        "</" DSML "function_calls>",
        "</" DSML "tool_calls>",
        "<" DSML "tool_calls>",
        "<seed:tool_call>",
        "</seed:tool_call>",
        "<|python_tag|>",
        "{\"name\": \"f\", \"parameters\": {\"a\": 1}}",
        ";",
        "<|tool_call|>",
        "<tool_calls>",
        "</tool_calls>",
        "<TOOLCALL>",
        "</TOOLCALL>",
        "<|function_call|>",
        "word",
        "\xef\xbd",
        "[{\"name\": \"f\", \"arguments\": {}}]"};
    uint64_t seed = 99;
    mfi_rng rng = {seed};
    for (int round = 0; round < (MFT_SANITIZED ? 1500 : 6000); round++) {
        mfi_buf text = {0};
        for (uint64_t n = mfi_rng_below(&rng, 7) + 1; n > 0; n--)
            mfi_buf_str(&text, parts[mfi_rng_below(&rng, MFI_ARRAY_LEN(parts))]);
        mfi_notation notation = (mfi_notation)mfi_rng_below(&rng, MFI_N_NOTATIONS);
        bool reasoning = mfi_rng_below(&rng, 4) == 0;
        collected a = parse(notation, reasoning, text.data, text.len, 0);
        collected b = parse(notation, reasoning, text.data, text.len, mfi_rng_next(&rng));
        collected c = parse(notation, reasoning, text.data, text.len, ~0ull);
        if (strcmp(a.log.data, b.log.data) != 0 || strcmp(a.log.data, c.log.data) != 0)
            fail_msg("seed %llu round %d: %s", (unsigned long long)seed, round, text.data);
        release(&a);
        release(&b);
        release(&c);
        mfi_buf_free(&text);
    }
}

/* Text must not wait for what can't be a marker any more. */
static void text_streams(void **state)
{
    (void)state;
    collected c = {.last = -1};
    mfi_output *o = NULL;
    mf_error err;
    mft_ok(mfi_output_open(&o, MFI_NOTATION_HERMES, false, collect, &c, &err), &err);
    mfi_output_push(o, "Hello <tool", 11);
    assert_string_equal(c.text.data, "Hello");
    mfi_output_push(o, "s", 1);
    assert_string_equal(c.text.data, "Hello <tools");
    mfi_output_close(&o);
    release(&c);
}

static const struct {
    const char *name;
    mfi_notation notation;
} templates[] = {
    {"Qwen-Qwen3-0.6B", MFI_NOTATION_HERMES},
    {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", MFI_NOTATION_HERMES},
    {"Qwen-Qwen2.5-7B-Instruct", MFI_NOTATION_HERMES},
    {"Qwen3-Coder", MFI_NOTATION_QWEN_CODER},
    {"Qwen3.5-4B", MFI_NOTATION_QWEN_CODER},
    {"deepseek-ai-DeepSeek-V3.1", MFI_NOTATION_DEEPSEEK_V31},
    {"DeepSeek-V3", MFI_NOTATION_DEEPSEEK_V3},
    {"llama-cpp-deepseek-r1", MFI_NOTATION_DEEPSEEK_V3},
    {"GLM-4.6", MFI_NOTATION_GLM},
    {"GLM-4.7-Flash", MFI_NOTATION_GLM},
    {"openai-gpt-oss-120b", MFI_NOTATION_HARMONY},
    {"MiniMax-M2", MFI_NOTATION_MINIMAX},
    {"Kimi-K2-Instruct", MFI_NOTATION_KIMI},
    {"Kimi-K2-Thinking", MFI_NOTATION_KIMI},
    {"mistralai-Mistral-Nemo-Instruct-2407", MFI_NOTATION_MISTRAL_LIST},
    {"Mistral-Small-3.2-24B-Instruct-2506", MFI_NOTATION_MISTRAL},
    {"Llama-3.1-plain", MFI_NOTATION_PLAIN},
    {"meta-llama-Llama-3.1-8B-Instruct", MFI_NOTATION_LLAMA3},
    {"meta-llama-Llama-3.2-3B-Instruct", MFI_NOTATION_LLAMA3},
    {"meta-llama-Llama-3.3-70B-Instruct", MFI_NOTATION_LLAMA3},
    {"deepseek-ai-DeepSeek-V3.2", MFI_NOTATION_DEEPSEEK_V32},
    {"deepseek-ai-DeepSeek-V4", MFI_NOTATION_DEEPSEEK_V4},
    {"deepseek-ai-DeepSeek-V4-Flash-0731", MFI_NOTATION_DEEPSEEK_V4},
    {"ByteDance-Seed-OSS", MFI_NOTATION_SEED},
    {"ibm-granite-granite-3.3-2B-Instruct", MFI_NOTATION_GRANITE3},
    {"ibm-granite-granite-4.0", MFI_NOTATION_HERMES},
    {"unsloth-Apriel-1.5", MFI_NOTATION_LIST},
    {"MiniMax-M1", MFI_NOTATION_LIST},
    {"NVIDIA-Nemotron-Nano-v2", MFI_NOTATION_NEMOTRON},
    {"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", MFI_NOTATION_QWEN_CODER},
    {"StepFun3.5-Flash", MFI_NOTATION_QWEN_CODER},
    {"GigaChat3.1-10B-A1.8B", MFI_NOTATION_GIGACHAT},
    {"microsoft-Phi-3.5-mini-instruct", MFI_NOTATION_PLAIN},
};

static void templates_tell_their_notation(void **state)
{
    (void)state;
    if (!mft_oracle("templates"))
        mft_skip("no oracle");
    for (size_t i = 0; i < MFI_ARRAY_LEN(templates); i++) {
        char name[256];
        static char text[64 << 10];
        snprintf(name, sizeof name, "templates/%s.jinja", templates[i].name);
        const char *path = mft_oracle(name);
        FILE *f = path ? fopen(path, "rb") : NULL;
        if (!f)
            fail_msg("no %s", name);
        size_t len = fread(text, 1, sizeof text, f);
        fclose(f);
        mfi_notation got = mfi_notation_detect(text, len);
        if (got != templates[i].notation)
            fail_msg("%s: %s", templates[i].name, mfi_notation_name(got));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_and_every_cut),
        cmocka_unit_test(the_way_back_gives_the_same_bytes),
        cmocka_unit_test(damaged_calls_are_text),
        cmocka_unit_test(bare_objects_without_tools_are_text),
        cmocka_unit_test(bare_objects_call_offered_tools_only),
        cmocka_unit_test(whole_calls_stay),
        cmocka_unit_test(arguments_stream),
        cmocka_unit_test(pairs_stream),
        cmocka_unit_test(cuts_change_nothing),
        cmocka_unit_test(text_streams),
        cmocka_unit_test(templates_tell_their_notation),
    };
    return mft_run(tests);
}
