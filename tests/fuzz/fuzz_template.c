/* Bytes as a chat template over a fixed conversation. */
#include "text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STR(text)                                                                                  \
    {                                                                                              \
        .type = MFI_VALUE_STR, .str = (text), .n = sizeof(text) - 1                                \
    }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const mfi_value_pair user[] = {{"role", STR("user")}, {"content", STR("Hello")}};
    static const mfi_value_pair model[] = {{"role", STR("assistant")}, {"content", STR("")}};
    static const mfi_value list[] = {
        {.type = MFI_VALUE_MAP, .pairs = user, .n = 2},
        {.type = MFI_VALUE_MAP, .pairs = model, .n = 2},
    };
    static const mfi_value_pair pairs[] = {
        {"messages", {.type = MFI_VALUE_LIST, .items = list, .n = 2}},
        {"add_generation_prompt", {.type = MFI_VALUE_BOOL, .boolean = true}},
        {"tools", {.type = MFI_VALUE_NONE}},
        {"bos_token", STR("<s>")},
        {"x", {.type = MFI_VALUE_OPAQUE}},
        {"i", {.type = MFI_VALUE_INT, .integer = INT64_MAX}},
    };
    static const mfi_value vars = {.type = MFI_VALUE_MAP, .pairs = pairs, .n = 6};
    mfi_buf out = {0};
    mf_error err;
    (void)mfi_template_render((const char *)data, size, &vars, &out, &err);
    mfi_buf_free(&out);
    return 0;
}
