/* How text is split before BPE, for each name that GGUF files use in tokenizer.ggml.pre. The
 * patterns are those of the models' own tokenizer.json where these are known (they say (?i:...) and
 * classes plainly), so that a model splits text alike in both forms. Pure data; any thread. */
#include "text/pre_types.h"

#include <string.h>

#define SUFFIXES "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD     "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define MARKS    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define SPACES   "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* o200k: words end where lower case begins anew. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define LEAD  "[^\\r\\n\\p{L}\\p{N}]?"
#define O200K(suffix, digits)                                                                      \
    LEAD UPPER "*" LOWER "+" suffix "|" LEAD UPPER "+" LOWER "*" suffix "|" digits                 \
               "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES

/* Kimi: the same without Han characters, which stand for themselves. */
#define NO_HAN(set) "[" set "&&[^\\p{Han}]]"
#define KIMI_UPPER  NO_HAN("\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}")
#define KIMI_LOWER  NO_HAN("\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}")

#define CJK "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define DEEPSEEK_3                                                                                 \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"                                       \
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES

static const mfi_pre_type types[] = {
    {.names = "qwen2 deepseek-r1-qwen",
     .splits = {SUFFIXES "|" WORD "|\\p{N}|" MARKS "|" SPACES},
     .nfc = true},
    {.names = "kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
     .splits = {SUFFIXES "|" WORD "|\\p{N}|" MARKS "|" SPACES}},
    {.names = "qwen35",
     .splits = {SUFFIXES "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
                         " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES},
     .nfc = true},
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .splits = {SUFFIXES "|" WORD "|\\p{N}{1,3}|" MARKS "|" SPACES},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "glm4 chatglm-bpe dbrx smaug-bpe",
     .splits = {SUFFIXES "|" WORD "|\\p{N}{1,3}|" MARKS "|" SPACES}},
    {.names = "minicpm5",
     .splits = {"\\p{N}{1,3}", SUFFIXES "|" WORD "|\\p{N}+|" MARKS "|" SPACES},
     .ignore_merges = true},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     .splits = {"\\p{N}{1,3}", CJK, DEEPSEEK_3}},
    {.names = "deepseek-coder",
     .splits = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+",
                "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+", "\\p{N}"}},
    {.names = "gpt-4o llama4 kanana2 talkie",
     .splits = {O200K(SUFFIXES "?", "\\p{N}{1,3}")},
     .ignore_merges = true},
    {.names = "minimax-m2", .splits = {O200K(SUFFIXES "?", "\\p{N}{1,3}")}},
    {.names = "tekken", .splits = {O200K("", "\\p{N}")}, .ignore_merges = true, .add_bos = true},
    {.names = "kimi-k2",
     .splits = {"[\\p{Han}]+|" LEAD KIMI_UPPER "*" KIMI_LOWER "+" SUFFIXES "?|" LEAD KIMI_UPPER
                "+" KIMI_LOWER "*" SUFFIXES "?|\\p{N}{1,3}|" MARKS "|" SPACES}},
    {.names = "bailingmoe bailingmoe2 llada-moe",
     .splits = {"'(?i:[sdmt]|ll|ve|re)|" WORD "|\\p{N}|" MARKS "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {.names = "seed-coder",
     .splits = {SUFFIXES "|" WORD "|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES}},
    {.names = "exaone-moe",
     .splits = {SUFFIXES "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}|"
                         " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {.names = "laguna",
     .splits = {"[^\\n]+|[\\n]+", SUFFIXES "|" WORD "|\\p{N}|" MARKS "|" SPACES}},
    {.names = "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum "
              "modern-bert mpt olmo jais trillion granite-docling exaone4",
     .byte_level_split = true},
    {.names = "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
     .splits = {"\\p{N}"},
     .byte_level_split = true},
    {.names = "default",
     .splits = {"[\\p{P}\\$\\+<=>\\^~\\|]+",
                "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)",
                "\\p{N}+", "[0-9][0-9][0-9]"}},
};

static bool has_name(const char *names, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = names; len && (p = strstr(p, name)) != NULL; p += len)
        if ((p == names || p[-1] == ' ') && (p[len] == ' ' || !p[len]))
            return true;
    return false;
}

const mfi_pre_type *mfi_pre_type_find(const char *name)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(types); i++)
        if (!strchr(name, ' ') && has_name(types[i].names, name))
            return &types[i];
    return NULL;
}

const mfi_pre_type *mfi_pre_type_at(uint32_t i)
{
    return i < MFI_ARRAY_LEN(types) ? &types[i] : NULL;
}
