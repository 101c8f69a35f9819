/* The commands and options of the command line, as data. Read by options.c (parsing) and help.c;
 * holds no code. An option whose meaning differs between commands has a row for each meaning. */
#include "options.h"

#include "base/limits.h"

#define RUN        (1u << CLI_RUN)
#define LOGITS     (1u << CLI_LOGITS)
#define TOKENIZE   (1u << CLI_TOKENIZE)
#define PLAN       (1u << CLI_PLAN)
#define EVAL       (1u << CLI_EVAL)
#define CONVERT    (1u << CLI_CONVERT)
#define IMATRIX    (1u << CLI_IMATRIX)
#define SYNTH      (1u << CLI_SYNTH)
#define CHAT       (1u << CLI_CHAT)
#define TEMPLATE   (1u << CLI_TEMPLATE)
#define FAMILIES   (1u << CLI_FAMILIES)
#define INSPECT    (1u << CLI_INSPECT)
#define COMPLETION (1u << CLI_COMPLETION)
#define TRACE      (1u << CLI_TRACE)
#define REPLAY     (1u << CLI_REPLAY)
#define ENGINE     (RUN | LOGITS | PLAN | EVAL | CHAT | IMATRIX | TRACE)
#define ANSWERS    (RUN | CHAT | TRACE)
#define ALL        UINT32_MAX

const cli_command cli_commands[CLI_N_COMMANDS] = {
    [CLI_RUN] =
        {
            .name = "run",
            .usage = "-m MODEL (-p TEXT | -f FILE) [options]",
            .summary = "answer a prompt",
            .notes =
                "The answer goes to standard output as it is made, and nothing else does; a "
                "newline "
                "follows it if it doesn't end with one. Everything else is on standard error, last "
                "a summary.\n"
                "The prompt is rendered with the model's chat template if it has one; --raw "
                "continues the text as it is. Sampling defaults are the model's "
                "(generation_config.json), then those below.\n"
                "Example:  moeflux run -m models/pocket-dictionary -p \"What is a lighthouse?\"",
        },
    [CLI_LOGITS] =
        {
            .name = "logits",
            .usage = "-m MODEL --ids FILE -o OUT [options]",
            .summary = "write the logits, and hidden states if wanted, of given tokens",
            .notes =
                "FILE holds token ids separated by white space. OUT is little-endian float32 "
                "[tokens][vocab]; the hidden states are [layers+1][tokens][hidden]: after the "
                "embedding, then after each layer, the last row after the final norm. Both files "
                "appear whole or not at all.",
        },
    [CLI_TOKENIZE] =
        {
            .name = "tokenize",
            .usage = "-m MODEL [-p TEXT | -f FILE] [options]",
            .summary = "turn text into token ids",
            .notes =
                "Reads standard input unless -p or -f is given; needs only the tokenizer's files. "
                "Plain: the whole text, byte for byte, gives one line of ids separated by spaces. "
                "--jsonl: every line is a JSON string and gives a JSON array of ids. Added tokens "
                "inside the text are recognised with and without --special.",
        },
    [CLI_PLAN] =
        {
            .name = "plan",
            .usage = "-m MODEL [options]",
            .summary = "show what would be resident where, and why, without loading weights",
            .notes =
                "MODEL may also be given without -m. A budget that can't hold is shown too, with "
                "exit code 4.",
            .positional = {"MODEL"},
        },
    [CLI_EVAL] =
        {
            .name = "eval",
            .usage = "-m MODEL FILE.jsonl [options]",
            .summary = "count exact answers to a file of questions",
            .notes = "Each line is an object with the strings \"question\" and \"answer\". A "
                     "question is "
                     "rendered as one user message with the model's chat template and answered "
                     "greedily; an answer counts if its bytes equal the expected ones.",
            .positional = {"FILE.jsonl"},
            .n_required = 1,
        },
    [CLI_INSPECT] =
        {
            .name = "inspect",
            .usage = "-m MODEL [--tensor NAME --f32 OUT] [--json]",
            .summary = "show what a model's files hold",
            .notes =
                "MODEL may also be given without -m; its family need not be known. Shows metadata, "
                "tensors with type, shape, bytes, file and offset, bytes by role, and which family "
                "was recognised and why, or why none. With --tensor it decodes that tensor instead "
                "and writes it to OUT as little-endian float32; OUT appears whole or not at all. "
                "--json "
                "then prints its type and shape.",
            .positional = {"MODEL"},
        },
    [CLI_TRACE] =
        {
            .name = "trace",
            .usage = "-m MODEL (-p TEXT | -f FILE) -o TRACE [options]",
            .summary = "record which experts a real run chooses",
            .notes =
                "Runs as `run` does and writes every choice to TRACE: a JSON line for each token "
                "and layer, with the experts in rank order and whether each was cached. `replay` "
                "reads it.\n"
                "Example:  moeflux trace -m models/pocket-dictionary -p \"What is a lighthouse?\" "
                "-o lighthouse.jsonl",
        },
    [CLI_REPLAY] =
        {
            .name = "replay",
            .usage = "TRACE [--cache SIZES] [--policy NAMES] [options]",
            .summary = "show what caches of other sizes and policies would have hit",
            .notes =
                "TRACE is what `trace`, or --trace of other commands, wrote. For each size "
                "and policy: choices that were found cached, and bytes read a token; beside "
                "them the bound, which no policy can pass, as it knows what comes (Belady). "
                "A prompt is replayed token by token, while a real run reads each expert once "
                "a chunk.\n"
                "Example:  moeflux replay lighthouse.jsonl --cache 10%,25%,50% --svg sweep.svg",
            .positional = {"TRACE"},
            .n_required = 1,
        },
    [CLI_CONVERT] =
        {
            .name = "convert",
            .usage = "IN OUT --quant TYPE [options]",
            .summary = "quantise a model into MLX-style safetensors or a GGUF file",
            .notes = "IN is any model that can be read, quantised or not, a folder or a GGUF file. "
                     "OUT is the folder or, ending in .gguf, the file to make; it must not "
                     "exist. It "
                     "appears whole at the end; when interrupted nothing is left behind. Rows that "
                     "are not whole blocks of a GGUF type are written as q8_0 or f16, norms, "
                     "routers and convolutions as f32, and the output matrix of q4_k and q4_0 as "
                     "q6_k.",
            .positional = {"IN", "OUT"},
            .n_required = 2,
        },
    [CLI_IMATRIX] =
        {
            .name = "imatrix",
            .usage = "-m MODEL -f TEXT [-o FILE] [options]",
            .summary = "collect which columns of the weights matter for a text",
            .notes =
                "The text is evaluated in pieces of --ctx-size tokens (512), and the squares of "
                "what enters each matrix are summed by column, for routed experts each on their "
                "own. FILE, in llama.cpp's layout, is what `convert --imatrix` weights the "
                "rounding with; it must not exist. Text like that the model will meet, of some ten "
                "thousand tokens, is enough for most experts to be seen.\n"
                "Example:  moeflux imatrix -m models/big -f sample.txt -o big.imatrix.gguf",
        },
    [CLI_SYNTH] =
        {
            .name = "synth",
            .usage = "[--arch ARCH] --shape NAME --quant TYPE -o FILE.gguf [options]",
            .summary = "write a model of a published shape with random weights, to measure with",
            .notes =
                "ARCH and NAME: qwen3_moe 30b-a3b, 235b-a22b; qwen2_moe 1.5-moe-a2.7b, "
                "57b-a14b; qwen3_next 80b-a3b; qwen3_5_moe 35b-a3b, 397b-a17b; gpt_oss 20b, 120b; "
                "deepseek_v3 671b; mixtral 8x7b, 8x22b; olmoe 1b-7b; glm4_moe 4.5-air, 4.6; "
                "minimax_m2 230b-a10b; granitemoe 3b-a800m; dots1 142b-a14b; and tiny of each. "
                "Whole "
                "names do without ARCH: Qwen3-30B-A3B, gpt-oss-120b, GLM-4.6.\n"
                "llama.cpp loads the file, too, so that both can be timed on it. The text it "
                "generates is made-up words; use --ignore-eos. A prompt in words is mostly pairs "
                "of letters.\n"
                "The same options and seed give the same bytes. FILE must not exist; it appears "
                "whole at the end; when interrupted nothing is left behind.\n"
                "Example:  moeflux synth --arch qwen3_moe --shape 30b-a3b --quant q4_k --layers 4 "
                "-o small.gguf",
        },
    [CLI_CHAT] =
        {
            .name = "chat",
            .usage = "-m MODEL [options]",
            .summary = "talk with a model over several turns",
            .notes =
                "Answers go to standard output, everything else to standard error. On a terminal "
                "lines are edited, with history; a paste of several lines is one message. Without "
                "one, a line is a message, and the first failure ends the program; an unknown "
                "command is "
                "only told, and the exit code is 1.\n"
                "A line that ends with a backslash goes on in the next one; so does a message that "
                "begins with three double quotes, until three more end a line. A line that begins "
                "with a slash is a command (/help lists them), with two slashes a message that "
                "begins with one.\n"
                "Ctrl-C stops the answer; at the prompt a second one leaves, as Ctrl-D does. What "
                "was evaluated is not evaluated again; where that can't be helped, after /system "
                "for instance, standard error says so. Every answer of a program has a seed of its "
                "own: the seed, the seed plus one, and so on.\n"
                "--jsonl: a JSON string a line in is a message, as it is; an object a line out.\n"
                "Example:  moeflux chat -m models/pocket-dictionary",
        },
    [CLI_TEMPLATE] =
        {
            .name = "template",
            .usage = "(-m MODEL | --chat-template FILE) [--jsonl] [options]",
            .summary = "render a chat template with variables given as JSON",
            .notes =
                "The input is an object: messages, tools, add_generation_prompt and whatever else "
                "the template looks at. What is absent is undefined, which is not the same as "
                "null; of a model folder bos_token and its like are added. Where the model has a "
                "template for tools, it is used if tools is there and not null. Plain: the whole "
                "input is one object, and its text is printed as it is. --jsonl: every line is an "
                "object and gives a JSON string; the first line that can't be rendered ends the "
                "program with exit code 1.\n"
                "A template is Jinja as Hugging Face transformers sets it up. A variable \"now\" "
                "like 2025-03-09T14:05:07 sets the time for its line.",
        },
    [CLI_FAMILIES] =
        {
            .name = "families",
            .usage = "[--json]",
            .summary = "list the model families, their formats and what they are held against",
        },
    [CLI_COMPLETION] =
        {
            .name = "completion",
            .usage = "bash|zsh|fish",
            .summary = "print a completion script for a shell",
            .notes = "For one session:  source <(moeflux completion bash)",
            .positional = {"SHELL"},
            .n_required = 1,
        },
};

const cli_exit_text cli_exit_texts[] = {
    {0, "done"},
    {1, "failed while running, or nobody reads standard output any more"},
    {2, "the command line can't be followed"},
    {3, "the model is missing, invalid or not supported"},
    {4, "not enough memory or disk space for what was asked"},
    {5, "reading the model failed after it was opened"},
    {130, "interrupted (SIGINT; a second one kills at once)"},
    {143, "terminated (SIGTERM)"},
    {0, NULL},
};

#define AT(member) .offset = offsetof(cli_args, member)

const cli_option cli_options[] = {
    /* ---- model and input ---- */
    {{"-m", "--model"},
     CLI_STRING,
     ENGINE,
     ENGINE & ~PLAN,
     true,
     AT(model),
     .arg = "DIR",
     .help = "model folder or a GGUF file"},
    {{"-m", "--model"},
     CLI_STRING,
     TOKENIZE,
     TOKENIZE,
     true,
     AT(model),
     .arg = "PATH",
     .help = "model folder, its tokenizer's file or a GGUF file"},
    {{"-m", "--model"},
     CLI_STRING,
     INSPECT,
     .env = true,
     AT(model),
     .arg = "PATH",
     .help = "model folder or a GGUF file"},
    {{"-m", "--model"},
     CLI_STRING,
     TEMPLATE,
     .env = true,
     AT(model),
     .arg = "PATH",
     .help = "model folder or GGUF file whose chat template is rendered"},
    {{"--chat-template"},
     CLI_STRING,
     TEMPLATE,
     AT(chat_template),
     .arg = "FILE",
     .help = "render the template in FILE"},
    {{"--chat-template"},
     CLI_STRING,
     ANSWERS | EVAL,
     AT(chat_template),
     .arg = "FILE",
     .help = "use the chat template in FILE, not the model's"},
    {{"--now"},
     CLI_STRING,
     ANSWERS | EVAL | TEMPLATE,
     .env = true,
     AT(now),
     .arg = "TIME",
     .help = "what templates are told for the date and time, like 2025-03-09T14:05:07",
     .fallback = "the clock"},
    {{"-p", "--prompt"}, CLI_STRING, RUN | TRACE, AT(prompt), .arg = "TEXT", .help = "the prompt"},
    {{"-p", "--prompt"}, CLI_STRING, TOKENIZE, AT(prompt), .arg = "TEXT", .help = "the text"},
    {{"-f", "--file"},
     CLI_STRING,
     RUN | TRACE,
     AT(file),
     .arg = "FILE",
     .help = "read the prompt from FILE, without the newline at its end; - is standard input"},
    {{"-f", "--file"},
     CLI_STRING,
     TOKENIZE,
     AT(file),
     .arg = "FILE",
     .help = "read FILE; - is standard input",
     .fallback = "-"},
    {{"-f", "--file"},
     CLI_STRING,
     TEMPLATE,
     AT(file),
     .arg = "FILE",
     .help = "read the variables from FILE; - is standard input",
     .fallback = "-"},
    {{"-f", "--file"},
     CLI_STRING,
     IMATRIX,
     IMATRIX,
     AT(file),
     .arg = "FILE",
     .help = "the text, as it is (no chat template); - is standard input"},
    {{"-sys", "--system-prompt"},
     CLI_STRING,
     ANSWERS,
     AT(system),
     .arg = "TEXT",
     .help = "a system message before the prompt"},
    {{"--raw"},
     CLI_FLAG,
     RUN | TRACE,
     .env = true,
     AT(raw),
     .help = "continue the text as it is, without the chat template"},
    {{"--ids"},
     CLI_STRING,
     LOGITS,
     LOGITS,
     AT(ids),
     .arg = "FILE",
     .help = "token ids separated by white space; - is standard input"},
    {{"--jsonl"},
     CLI_FLAG,
     TOKENIZE,
     AT(jsonl),
     .help = "a JSON string a line in, a JSON array of ids a line out"},
    {{"--jsonl"},
     CLI_FLAG,
     TEMPLATE,
     AT(jsonl),
     .help = "an object a line in, a JSON string a line out"},
    {{"--jsonl"},
     CLI_FLAG,
     CHAT,
     AT(jsonl),
     .help = "a JSON string a line in, an object a line out"},
    {{"--keep-going"},
     CLI_FLAG,
     TEMPLATE,
     AT(keep_going),
     .help = "print null for a line that can't be rendered and go on; the exit code is still 1"},
    {{"--simple-io"},
     CLI_FLAG,
     CHAT,
     .env = true,
     AT(simple_io),
     .help = "no line editing, also on a terminal"},
    {{"--no-history"},
     CLI_FLAG,
     CHAT,
     .env = true,
     AT(no_history),
     .help = "neither read nor write the file of lines typed, "
             "$XDG_STATE_HOME/moeflux/history or ~/.local/state/moeflux/history"},
    {{"--special"},
     CLI_FLAG,
     TOKENIZE,
     AT(special),
     .help = "add what the tokenizer's post-processor adds"},

    /* ---- output ---- */
    {{"-o", "--output"},
     CLI_STRING,
     LOGITS,
     LOGITS,
     AT(output),
     .arg = "OUT",
     .help = "write the logits to OUT; - is standard output"},
    {{"--tensor"},
     CLI_STRING,
     INSPECT,
     AT(tensor),
     .arg = "NAME",
     .help = "decode this tensor; goes with --f32"},
    {{"--f32"},
     CLI_STRING,
     INSPECT,
     AT(f32),
     .arg = "OUT",
     .help = "write the tensor to OUT as little-endian float32; - is standard output"},
    {{"-o", "--output"},
     CLI_STRING,
     SYNTH,
     SYNTH,
     AT(output),
     .arg = "FILE",
     .help = "the GGUF file to make"},
    {{"-o", "--output"},
     CLI_STRING,
     IMATRIX,
     AT(output),
     .arg = "FILE",
     .help = "the importance matrix to make",
     .fallback = "imatrix.gguf"},
    {{"-o", "--output"},
     CLI_STRING,
     TRACE,
     TRACE,
     AT(output),
     .arg = "TRACE",
     .help = "write the trace to TRACE"},
    {{"--policy"},
     CLI_STRING,
     REPLAY,
     AT(policy),
     .arg = "NAMES",
     .help = "cache policies, with commas between: lru (least recently used), lfu (least "
             "frequently, with counts that age)",
     .fallback = "lru,lfu"},
    {{"--policy"},
     CLI_CHOICE,
     ENGINE,
     .env = true,
     AT(policy),
     .choices = "auto|lru|lfu",
     .arg = "NAME",
     .help = "which cached expert goes when room is needed: the least recently used, the least "
             "frequently, auto (lfu below one token's working set); the answer doesn't depend on "
             "it",
     .fallback = "auto"},
    {{"--cache"},
     CLI_STRING,
     REPLAY,
     AT(cache),
     .arg = "SIZES",
     .help = "cache sizes, with commas between: experts (512), a share of all (25%), or bytes (8G)",
     .fallback = "5% to 100%"},
    {{"--svg"}, CLI_STRING, REPLAY, AT(svg), .arg = "FILE", .help = "plot the sweep to FILE, too"},
    {{"--hidden"},
     CLI_STRING,
     LOGITS,
     AT(hidden),
     .arg = "OUT",
     .help = "write the hidden states to OUT"},
    {{"--json"},
     CLI_FLAG,
     (ENGINE & ~CHAT) | FAMILIES | INSPECT | REPLAY,
     AT(json),
     .help = "one JSON object on standard output"},
    {{"--no-progress"},
     CLI_FLAG,
     RUN | LOGITS | EVAL | CONVERT | IMATRIX | SYNTH | CHAT | TRACE,
     .env = true,
     AT(no_progress),
     .help = "no progress on standard error"},
    {{"--trace"},
     CLI_STRING,
     RUN | LOGITS | EVAL | CHAT,
     AT(trace),
     .arg = "FILE",
     .help = "write every choice of experts to FILE as JSON lines"},

    /* ---- length and sampling ---- */
    {{"-n", "--predict", "--n-predict"},
     CLI_INT,
     ANSWERS,
     .env = true,
     AT(predict),
     -1,
     INT32_MAX,
     .arg = "N",
     .help = "tokens to generate; -1: until the end token or the context is full",
     .fallback = "-1"},
    {{"-n", "--predict", "--n-predict"},
     CLI_INT,
     EVAL,
     .env = true,
     AT(predict),
     1,
     INT32_MAX,
     .arg = "N",
     .help = "tokens an answer may have",
     .fallback = "256"},
    {{"--limit"},
     CLI_INT,
     EVAL,
     AT(limit),
     1,
     INT32_MAX,
     .arg = "N",
     .help = "ask only the first N questions",
     .fallback = "all"},
    {{"-c", "--ctx-size"},
     CLI_INT,
     ENGINE & ~LOGITS,
     .env = true,
     AT(ctx),
     0,
     MFI_MAX_CTX,
     .arg = "N",
     .help = "positions of the context; 0: the plan's choice",
     .fallback = "0"},
    {{"-c", "--ctx-size"},
     CLI_INT,
     LOGITS,
     .env = true,
     AT(ctx),
     0,
     MFI_MAX_CTX,
     .arg = "N",
     .help = "positions of the context; 0: the number of ids",
     .fallback = "0"},
    {{"-s", "--seed"},
     CLI_SEED,
     ANSWERS,
     .env = true,
     AT(seed),
     .arg = "N",
     .help = "seed of the sampler; -1: drawn and printed",
     .fallback = "-1"},
    {{"--temp", "--temperature"},
     CLI_FLOAT,
     ANSWERS,
     .env = true,
     AT(temp),
     0,
     1e6,
     .arg = "T",
     .help = "temperature; 0: greedy, the lowest id on ties",
     .fallback = "the model's, or 0.8"},
    {{"--top-k"},
     CLI_INT,
     ANSWERS,
     .env = true,
     AT(top_k),
     0,
     INT32_MAX,
     .arg = "K",
     .help = "keep the K best tokens; 0: off",
     .fallback = "the model's, or 40"},
    {{"--top-p"},
     CLI_FLOAT,
     ANSWERS,
     .env = true,
     AT(top_p),
     0,
     1,
     .arg = "P",
     .help = "keep the best tokens up to probability P; 1: off",
     .fallback = "the model's, or 0.95"},
    {{"--min-p"},
     CLI_FLOAT,
     ANSWERS,
     .env = true,
     AT(min_p),
     0,
     1,
     .arg = "P",
     .help = "drop tokens below P times the best one's probability; 0: off",
     .fallback = "the model's, or 0.05"},
    {{"--repeat-penalty"},
     CLI_FLOAT,
     ANSWERS,
     .env = true,
     AT(repeat_penalty),
     1e-6,
     1e6,
     .arg = "R",
     .help = "penalise tokens seen lately; 1: off",
     .fallback = "the model's, or 1"},
    {{"--presence-penalty"},
     CLI_FLOAT,
     ANSWERS,
     .env = true,
     AT(presence_penalty),
     -1e6,
     1e6,
     .arg = "R",
     .help = "subtract R from the logits of tokens seen lately; 0: off",
     .fallback = "0"},
    {{"--frequency-penalty"},
     CLI_FLOAT,
     ANSWERS,
     .env = true,
     AT(frequency_penalty),
     -1e6,
     1e6,
     .arg = "R",
     .help = "subtract R for every time a token was seen lately; 0: off",
     .fallback = "0"},
    {{"--repeat-last-n"},
     CLI_INT,
     ANSWERS,
     .env = true,
     AT(repeat_last_n),
     -1,
     INT32_MAX,
     .arg = "N",
     .help = "how many tokens \"lately\" is; 0: none, -1: all",
     .fallback = "64"},
    {{"-l", "--logit-bias"},
     CLI_BIAS,
     ANSWERS,
     AT(bias),
     .arg = "ID+B",
     .help = "add B to the logit of token ID (15043+1, 15043-1.5; 15043-inf forbids it); may be "
             "repeated"},
    {{"--ignore-eos"},
     CLI_FLAG,
     ANSWERS,
     .env = true,
     AT(ignore_eos),
     .help = "go on after the end token"},

    /* ---- conversion ---- */
    {{"--quant"},
     CLI_CHOICE,
     CONVERT,
     CONVERT,
     .any_case = true,
     AT(quant),
     .choices = "mlx4|mlx2|mlx3|mlx5|mlx6|mlx8|q8_0|q6_k|q4_k|q4_0|bf16|f16|f32",
     .arg = "TYPE",
     .help = "into a folder, MLX affine quantisation of that many bits: mlx4, mlx2, mlx3, mlx5, "
             "mlx6, mlx8; into a .gguf file: q8_0, q6_k, q4_k, q4_0, bf16, f16, f32"},
    {{"--imatrix"},
     CLI_STRING,
     CONVERT,
     AT(imatrix),
     .arg = "FILE",
     .help = "importance matrix that weights the rounding of q4_0, q4_k and q6_k"},
    {{"--group-size"},
     CLI_CHOICE,
     CONVERT,
     AT(group_size),
     .choices = "32|64|128",
     .arg = "N",
     .help = "weights that share a scale: 32, 64, 128",
     .fallback = "64"},
    {{"--dense-bits"},
     CLI_CHOICE,
     CONVERT,
     AT(dense_bits),
     .choices = "2|3|4|5|6|8",
     .arg = "N",
     .help = "bits of everything but routed experts: 2, 3, 4, 5, 6, 8",
     .fallback = "as --quant"},

    /* ---- synthetic models ---- */
    {{"--arch"},
     CLI_STRING,
     SYNTH,
     AT(arch),
     .arg = "ARCH",
     .help = "architecture, as config.json's model_type says it; not needed with a whole name"},
    {{"--shape"},
     CLI_STRING,
     SYNTH,
     SYNTH,
     AT(shape),
     .arg = "NAME",
     .help = "which published shape of it, or a whole name such as gpt-oss-20b; in either case"},
    {{"--quant"},
     CLI_CHOICE,
     SYNTH,
     SYNTH,
     .any_case = true,
     AT(quant),
     .choices = "q4_k|q4_0|q6_k|q8_0|mxfp4|bf16|f16",
     .arg = "TYPE",
     .help = "type of the matrices: q4_k, q4_0, q6_k, q8_0, mxfp4 (experts; the rest q8_0), bf16, "
             "f16. Rows that are no whole blocks of 256 get q4_0 or q8_0 instead of q4_k or q6_k"},
    {{"--layers"},
     CLI_INT,
     SYNTH,
     AT(layers),
     1,
     MFI_MAX_LAYERS,
     .arg = "N",
     .help = "only the first N layers",
     .fallback = "all"},
    {{"--routing"},
     CLI_CHOICE,
     SYNTH,
     AT(routing),
     .choices = "uniform|skewed",
     .arg = "KIND",
     .help = "how experts are reused: uniform (every token chooses anew), skewed (generated text "
             "repeats about 45 % of its choices at the next token and 80 % within 8)",
     .fallback = "uniform"},
    {{"-s", "--seed"},
     CLI_SEED,
     SYNTH,
     AT(seed),
     .arg = "N",
     .help = "seed of the weights",
     .fallback = "1"},

    /* ---- machine ---- */
    {{"--memory"},
     CLI_SIZE,
     ENGINE,
     .env = true,
     AT(memory),
     .arg = "SIZE",
     .help = "bound for the whole process: bytes, K/M/G/T or KiB/MiB/GiB/TiB (binary), or % of "
             "the machine's memory",
     .fallback = "from the cgroup and available memory"},
    {{"--memory"},
     CLI_SIZE,
     CONVERT,
     .env = true,
     AT(memory),
     .arg = "SIZE",
     .help = "bound for buffers: bytes, K/M/G/T or KiB/MiB/GiB/TiB (binary), or % of the "
             "machine's memory",
     .fallback = "256M"},
    {{"-t", "--threads"},
     CLI_INT,
     ENGINE,
     .env = true,
     AT(threads),
     1,
     MFI_MAX_THREADS,
     .arg = "N",
     .help = "compute threads; the answer doesn't depend on it",
     .fallback = "one a processor this process may use"},
    {{"-t", "--threads"},
     CLI_INT,
     TOKENIZE,
     .env = true,
     AT(threads),
     1,
     MFI_MAX_THREADS,
     .arg = "N",
     .help = "with --jsonl, lines encoded at the same time; their order stays",
     .fallback = "one a processor this process may use"},
    {{"-t", "--threads"},
     CLI_INT,
     CONVERT,
     .env = true,
     AT(threads),
     1,
     MFI_MAX_THREADS,
     .arg = "N",
     .help = "threads that encode; the output doesn't depend on it",
     .fallback = "one a processor this process may use"},
    {{"--io-threads"},
     CLI_INT,
     ENGINE,
     .env = true,
     AT(io_threads),
     1,
     MFI_MAX_IO_THREADS,
     .arg = "N",
     .help = "threads that read experts",
     .fallback = "the plan's choice"},
    {{"--io"},
     CLI_CHOICE,
     ENGINE,
     .env = true,
     AT(io),
     .choices = "auto|threads|uring",
     .arg = "READER",
     .help = "who reads: threads, uring (the kernel's ring; not everywhere), auto (uring for "
             "direct reads where it is allowed); the answer doesn't depend on it",
     .fallback = "auto"},
    {{"--direct-io"},
     CLI_CHOICE,
     ENGINE,
     .env = true,
     AT(direct),
     .choices = "auto|on|off",
     .arg = "WHEN",
     .help = "reads past the page cache: on, off, auto (measured once a file system, when more "
             "than 1 GiB will be read)",
     .fallback = "auto"},
    {{"--chunk"},
     CLI_INT,
     ENGINE,
     .env = true,
     AT(chunk),
     1,
     MFI_MAX_CHUNK,
     .arg = "N",
     .help = "prompt tokens evaluated together; the answer doesn't depend on it",
     .fallback = "the plan's choice"},
    {{"--activations"},
     CLI_CHOICE,
     ENGINE,
     .env = true,
     AT(activations),
     .choices = "auto|f32|q8",
     .arg = "TYPE",
     .help = "how activations meet quantised weights: f32, q8 (8 bits, lossy), auto (by weight "
             "type)",
     .fallback = "auto"},
    {{"--isa"},
     CLI_CHOICE,
     ENGINE,
     .env = true,
     AT(isa),
     .choices = "auto|c|avx2",
     .arg = "NAME",
     .help = "kernels to use: c, avx2, auto (the best this machine has)",
     .fallback = "auto"},

    {{"-t", "--threads"},
     CLI_INT,
     SYNTH,
     .env = true,
     AT(threads),
     1,
     MFI_MAX_THREADS,
     .arg = "N",
     .help = "threads that make the weights; the file doesn't depend on it",
     .fallback = "one a processor this process may use"},
    {{"-t", "--threads"},
     CLI_INT,
     INSPECT,
     .env = true,
     AT(threads),
     1,
     MFI_MAX_THREADS,
     .arg = "N",
     .help = "with --tensor, threads that decode it",
     .fallback = "one a processor this process may use"},
    {{"-t", "--threads"},
     CLI_INT,
     TEMPLATE | FAMILIES | COMPLETION | REPLAY,
     .env = true,
     AT(threads),
     1,
     MFI_MAX_THREADS,
     .arg = "N",
     .help = "accepted as everywhere; this command has nothing to share out"},

    {{"-h", "--help"}, CLI_FLAG, ALL, AT(help), .help = "this text"},
    {{"--version"}, CLI_FLAG, ALL, AT(version), .help = "the program's version"},
};

const size_t cli_n_options = MFI_ARRAY_LEN(cli_options);
_Static_assert(MFI_ARRAY_LEN(cli_options) <= CLI_MAX_OPTIONS,
               "cli_args.given has a place an option");
