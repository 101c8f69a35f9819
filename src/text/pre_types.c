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

/* The letters with case that deepseek-llm's pattern lists. */
#define CASED                                                                                      \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"                 \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}"         \
    "\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}"                  \
    "\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}"                       \
    "\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"                 \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}"                 \
    "\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}"                 \
    "\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}"         \
    "\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}"                           \
    "\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}"                 \
    "\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}"          \
    "\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}"                  \
    "\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}"         \
    "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}"                  \
    "\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}"                 \
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}"                 \
    "\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}"         \
    "\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

/* Groups of three from the right. */
#define TRIPLES "\\p{N}{1,2}(?=(?:\\p{N}{3})+(?!\\p{N}))|\\p{N}{1,3}"
#define ASIAN                                                                                      \
    "[\\x{4e00}-\\x{9fff}\\x{3400}-\\x{4dbf}\\x{f900}-\\x{faff}\\x{3040}-\\x{309f}\\x{30a0}-"      \
    "\\x{30ff}\\x{ff65}-\\x{ff9f}\\x{2f00}-\\x{2fdf}\\x{e40}-\\x{e7f}\\x{e80}-\\x{eff}\\x{1780}-"  \
    "\\x{17ff}\\x{1000}-\\x{109f}\\x{aa60}-\\x{aa7f}\\x{a9e0}-\\x{a9ff}\\x{ac00}-\\x{d7af}\\x{"    \
    "1100}-"                                                                                       \
    "\\x{11ff}]+"
/* GPT-2's pattern without its last alternative. */
#define GPT2_WORDS "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
#define SENTENCE_MARKS                                                                             \
    " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"

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
    {.names = "glm4 glm5 chatglm-bpe dbrx smaug-bpe smaug",
     .splits = {SUFFIXES "|" WORD "|\\p{N}{1,3}|" MARKS "|" SPACES}},
    {.names = "minicpm5",
     .splits = {"\\p{N}{1,3}", SUFFIXES "|" WORD "|\\p{N}+|" MARKS "|" SPACES},
     .ignore_merges = true},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     .splits = {"\\p{N}{1,3}", CJK, DEEPSEEK_3}},
    /* No "$" here: to Oniguruma it is the end of a line, and lines are pieces of their own. */
    {.names = "deepseek-llm",
     .splits = {"[\\r\\n]", "\\s?[" CASED "]+",
                "\\s?[!-/"
                ":-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
                "\\s+(?![\\s\\S])", "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+",
                "\\p{N}+"}},
    {.names = "afmoe", .splits = {TRIPLES, ASIAN, DEEPSEEK_3}},
    {.names = "superbpe", .splits = {"\\p{N}+", "(?=(?:\\p{Nd}{3})+(?!\\p{Nd}))"}},
    {.names = "falcon", .splits = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2_WORDS, "[0-9][0-9][0-9]"}},
    {.names = "bloom poro-chat gpt3-finnish", .splits = {SENTENCE_MARKS}},
    {.names = "viking", .splits = {SENTENCE_MARKS, "\\p{N}"}},
    {.names = "deepseek-coder",
     .splits = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+",
                "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+", "\\p{N}"}},
    {.names = "gpt-4o o200k llama4 kanana2 talkie",
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
     .splits = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2_WORDS, "\\p{N}+", "[0-9][0-9][0-9]"}},
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
