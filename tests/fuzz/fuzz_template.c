/* Bytes as a chat template over a fixed conversation. */
#include <string.h>

#include "text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char vars[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello <|im_end|> \\u00e9\\n\"},"
        "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
        "\"arguments\":{\"a\":1.5,\"b\":[true,null,-7]}}}]}],\"add_generation_prompt\":true,"
        "\"tools\":null,\"bos_token\":\"<s>\",\"x\":0.1,\"i\":9223372036854775807}";
    const mfi_template_name named[] = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
    const mfi_template_input input = {.vars = mfi_json_root(vars, sizeof vars - 1),
                                      .named = named,
                                      .n_named = 2,
                                      .now = "2025-03-09T14:05:07"};
    mfi_template_tree *tree = NULL;
    mf_rendering out = {0};
    mf_error err;
    if (mfi_template_parse(&tree, (const char *)data, size, &err) == MF_OK)
        (void)mfi_template_render(tree, &input, &out, &err);
    mf_rendering_free(&out);
    mfi_template_free(&tree);
    return 0;
}
