/* The commands and exit codes of the command line, as data. Read by options.c (parsing) and help.c;
 * holds no code. */
#include "options.h"

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
                "What the run evaluated together, a chunk of a prompt or tokens of several "
                "answers, is replayed together: each expert is read once for all.\n"
                "Example:  moeflux replay lighthouse.jsonl --cache 10%,25%,50% --svg sweep.svg",
            .positional = {"TRACE"},
            .n_required = 1,
        },
    [CLI_CONVERT] =
        {
            .name = "convert",
            .usage = "IN OUT --quant TYPE [options]",
            .summary = "quantise a model into MLX-style safetensors or a GGUF file",
            .notes = "IN is any model that can be read, quantised or not, a folder or a GGUF file "
                     "(but gpt_oss into a folder). "
                     "OUT is the folder or, ending in .gguf, the file to make; it must not "
                     "exist. It "
                     "appears whole at the end; when interrupted nothing is left behind. Rows that "
                     "are not whole blocks of a GGUF type are written as q8_0 or f16, norms, "
                     "routers and convolutions as f32, and the output matrix of q4_k and q4_0 as "
                     "q6_k.",
            .positional = {"IN", "OUT"},
            .n_required = 2,
        },
    [CLI_PACK] =
        {
            .name = "pack",
            .usage = "MODEL OUT [--verify], or --verify PACK",
            .summary =
                "write a model with each expert in one piece, with checksums; check such a one",
            .notes =
                "OUT is a folder that every command takes as a model, with the same answers to the "
                "bit; it must not exist. It holds what MODEL holds: weights as they are stored, "
                "tokenizer, chat templates. Nothing is quantised. When interrupted, OUT.part stays "
                "behind and the same command goes on there. With --verify everything in a pack is "
                "read and held against its checksums.\n"
                "Example:  moeflux pack models/pocket-dictionary pocket.pack --verify",
            .positional = {"MODEL", "OUT"},
            .n_required = 1,
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
                "deepseek_v3 671b; deepseek_v2 236b, 16b; kimi_k2 1t; glm4_moe_lite 4.7-flash; "
                "mixtral 8x7b, 8x22b; olmoe 1b-7b; glm4_moe 4.5-air, 4.6; "
                "minimax_m2 230b-a10b; granitemoe 3b-a800m; dots1 142b-a14b; and tiny of each. "
                "Whole names do without ARCH: Qwen3-30B-A3B, gpt-oss-120b, GLM-4.6.\n"
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
                "--save and --load go on with a conversation in another process, --kv-dir with "
                "whatever a prompt begins with: their files hold the state, of this model and this "
                "kind of processor only, and text that was said; only their owner may read them.\n"
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
    [CLI_DEVICES] =
        {
            .name = "devices",
            .usage = "[--json]",
            .summary = "list what --device can name on this machine, and why there is no more",
        },
    [CLI_BENCH] =
        {
            .name = "bench",
            .usage = "-m MODEL [options]",
            .summary = "measure tokens a second of prompts and of decoding",
            .notes =
                "As llama-bench does it: random tokens, a run to warm up, then mean and deviation "
                "of the repetitions; the table and the JSON keys are llama-bench's, as far as they "
                "apply. Beside them stand the bytes of weights that decoding went through a second "
                "and what as many threads can read of memory at best, measured at the end. --ops "
                "adds "
                "a table of what the ops of the forward pass took, with the weights, experts and "
                "cached positions that they went through.\n"
                "Example:  moeflux bench -m model.gguf -p 512 -n 64 -r 5",
        },
    [CLI_PERPLEXITY] =
        {
            .name = "perplexity",
            .usage = "-m MODEL (-f FILE | --kl BASE) [options]",
            .summary =
                "measure how well a model foresees a text, or how far it is from a better copy",
            .notes =
                "As llama-perplexity does it: the text is cut into windows of --ctx-size tokens "
                "(512), each is evaluated on its own, and of each the tokens after its first half "
                "are scored. Where the tokenizer puts a token before every text, it also replaces "
                "a "
                "window's first.\n"
                "--kl-divergence-base FILE keeps the log-probabilities, in llama.cpp's form, 2 "
                "bytes "
                "for each scored token and entry of the vocabulary; with --kl-divergence, or as "
                "--kl FILE, the "
                "model is compared with what was kept: the tokens are the file's. A file of "
                "llama-perplexity's will do.\n"
                "Example:  moeflux perplexity -m bf16.gguf -f wiki.txt --kl-divergence-base "
                "bf16.kl && moeflux perplexity -m q4.gguf --kl bf16.kl",
        },
    [CLI_SERVE] =
        {
            .name = "serve",
            .usage = "-m MODEL [options]",
            .summary = "answer over HTTP, in OpenAI's and Anthropic's protocols",
            .notes =
                "POST /v1/chat/completions, /v1/completions, /v1/responses, /v1/messages, "
                "/v1/messages/count_tokens, /tokenize, /detokenize, /apply-template; GET "
                "/v1/models, /health, /metrics, /props, /api/status, /api/experts, /api/cache; "
                "GET / is a page with chat and a live view of the engine. docs/server.md has the "
                "details, and how common clients are pointed here.\n"
                "It listens on this machine only unless --host says otherwise, and encrypts "
                "nothing: put a proxy before it where that is needed. Sampling options are what "
                "requests get that don't say otherwise.\n"
                "SIGTERM and SIGINT let answers end for --drain-timeout; a second signal kills. "
                "Under systemd it takes sockets that were opened for it and tells when it is "
                "ready.\n"
                "Example:  moeflux serve -m models/pocket-dictionary --parallel 4",
        },
    [CLI_TOP] =
        {
            .name = "top",
            .usage = "[--url URL | --unix PATH | --stats FILE] [options]",
            .summary = "show what a running server does, live in the terminal",
            .notes =
                "Speed, hits, the drive against its ceiling, where a token's time went, requests "
                "and sessions, and the experts, layer by layer: green are in memory, blue on a "
                "device, orange being read, grey on the drive; brighter ones were used more of "
                "late. q quits. Where standard output is no terminal, and with --once or --json, "
                "it looks once. NO_COLOR and terminals without colours get letters.\n"
                "--stats FILE follows a run or a chat that writes its statistics to FILE, without "
                "what only a server knows.\n"
                "Example:  moeflux top --url http://127.0.0.1:8080",
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
    {129, "the terminal has gone (SIGHUP)"},
    {130, "interrupted (SIGINT; a second one kills at once)"},
    {143, "terminated (SIGTERM)"},
    {0, NULL},
};
