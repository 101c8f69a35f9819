"""Drives the `moeflux` program from outside: exit codes, streams, signals, files left behind.

  test_cli.py [-v] [Usage] [Tokenizer] [Model] [Convert]     (default: all)

Environment: MOEFLUX_BIN the program; MOEFLUX_TEST_MODEL a model folder with a chat template (default
models/pocket-dictionary in the project); MOEFLUX_ORACLE the folder with outside evidence, whose
models/pocket-dictionary is converted; MOEFLUX_SANITIZED set: built with a sanitizer. What needs a
folder that isn't there skips; if everything skipped the exit status is 77. Python 3.9 or later, its library only.
"""
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from xml.etree import ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.environ.get("MOEFLUX_SOURCE") or os.path.dirname(os.path.dirname(HERE))
BIN = os.environ.get("MOEFLUX_BIN") or os.path.join(SOURCE, "build", "moeflux")
MODEL = os.environ.get("MOEFLUX_TEST_MODEL") or os.path.join(SOURCE, "models", "pocket-dictionary")
ORACLE = os.environ.get("MOEFLUX_ORACLE") or ""
FLOAT_MODEL = os.path.join(ORACLE, "models", "pocket-dictionary") if ORACLE else ""
SANITIZED = bool(os.environ.get("MOEFLUX_SANITIZED"))
TIMEOUT_S = 600 if SANITIZED else 120

COMMANDS = ["run", "logits", "tokenize", "plan", "eval", "convert", "imatrix", "synth", "inspect",
            "chat", "trace", "replay", "template", "families", "completion", "bench", "perplexity", "serve", "devices",
            "pack", "top"]

# What users and scripts rely on; written down apart from the program's table.
ENGINE = ["-m", "--model", "-c", "--ctx-size", "-t", "--threads", "--memory", "--chunk",
          "--activations", "-ctk", "--cache-type-k", "-ctv", "--cache-type-v", "--isa", "--io-threads", "--io", "--direct-io", "--hints", "--policy", "--json", "-h", "--help"]
OPTIONS = {
    "run": ENGINE + ["-p", "--prompt", "-f", "--file", "-sys", "--system-prompt", "-n", "--predict",
                     "-s", "--seed", "--temp", "--top-k", "--top-p", "--min-p", "--repeat-penalty",
                     "--presence-penalty", "--frequency-penalty", "--repeat-last-n", "-l",
                     "--logit-bias", "-r", "--stop", "--reverse-prompt", "--logprobs", "--ignore-eos", "--trace", "--stats", "--mirror",
                     "--raw", "--no-progress"],
    "logits": ENGINE + ["--ids", "-o", "--hidden", "--trace", "--stats", "--mirror", "--no-progress"],
    "tokenize": ["-m", "--model", "-p", "--prompt", "-f", "--file", "--jsonl", "--special", "-t",
                 "--threads", "-h", "--help"],
    "plan": ENGINE,
    "eval": ENGINE + ["-n", "--predict", "--limit", "--trace", "--stats", "--mirror", "--no-progress"],
    "convert": ["--quant", "--group-size", "--dense-bits", "--memory", "-t", "--threads",
                "--no-progress", "-h", "--help"],
    "chat": [o for o in ENGINE if o != "--json"] + [
        "-sys", "--system-prompt", "-n", "--predict", "-s", "--seed", "--temp", "--top-k", "--top-p",
        "--min-p", "--repeat-penalty", "--presence-penalty", "--frequency-penalty", "--repeat-last-n",
        "-l", "--logit-bias", "-r", "--stop", "--ignore-eos", "--trace", "--stats", "--mirror", "--no-progress", "--jsonl",
        "--simple-io", "--no-history", "--save", "--load", "--kv-dir", "--kv-disk"],
    "template": ["-m", "--model", "--chat-template", "-f", "--file", "--jsonl", "--keep-going", "-h",
                 "--help"],
    "families": ["--json", "-h", "--help"],
    "completion": ["-h", "--help"],
    "devices": ["-t", "--threads", "-h", "--help"],
    "inspect": ["-m", "--model", "--json", "--tensor", "--f32", "-t", "--threads", "-h", "--help"],
    "top": "--url --unix --api-key-file --stats --interval --once --json -t --threads -h --help".split(),
    "pack": ["--verify", "-t", "--threads", "--no-progress", "-h", "--help"],
    "synth": ["--arch", "--shape", "--quant", "--layers", "--routing", "-s", "--seed", "-o",
              "--output", "-t", "--threads", "--no-progress", "-h", "--help"],
    "imatrix": ENGINE + ["-f", "--file", "-o", "--output", "--stats", "--mirror", "--no-progress"],
    "replay": ["--cache", "--policy", "--svg", "--json", "-t", "--threads", "-h", "--help"],
    "bench": "-m --model -t --memory --isa -p --n-prompt -n --n-gen -r --repetitions -o --output --ops".split(),
    "perplexity": ENGINE + "-f --chunks --kl-divergence-base --save-all-logits --kl-divergence --kl".split(),
}
OPTIONS["serve"] = [o for o in ENGINE if o != "--json"] + """--host --port --unix --api-key-file --allow-host
    --cors-origin -a --alias -np --parallel --queue --max-connections --max-body --request-timeout --idle-timeout
    --write-timeout --sse-ping-interval --drain-timeout --temp --top-k --top-p --min-p --repeat-penalty
    --presence-penalty --frequency-penalty --repeat-last-n --chat-template --now --reasoning-format --no-progress
    --kv-dir --kv-disk""".split()
OPTIONS["trace"] = [o for o in OPTIONS["run"] if o != "--trace"] + ["-o", "--output"]


def clean_env(extra=None):
    env = {k: v for k, v in os.environ.items() if not k.startswith("MOEFLUX_ARG_")}
    env.update(extra or {})
    return env


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="moeflux-cli-")
        self.addCleanup(shutil.rmtree, self.dir, True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def cli(self, *args, code=0, stdin=b"", env=None, stdout=subprocess.PIPE):
        """Runs to the end and checks the exit code."""
        p = subprocess.run([BIN, *args], input=stdin, stdout=stdout, stderr=subprocess.PIPE,
                           env=clean_env(env), timeout=TIMEOUT_S)
        codes = code if isinstance(code, tuple) else (code,)
        self.assertIn(p.returncode, codes, "moeflux %s\n%s" % (" ".join(args), p.stderr.decode("utf8", "replace")))
        for word in (b"Sanitizer", b"runtime error", b"internal error"):
            self.assertNotIn(word, p.stderr)
        return p

    def usage(self, *args, says=""):
        """Runs into a usage error: nothing on stdout, one line and a hint on stderr."""
        p = self.cli(*args, code=2)
        self.assertEqual(p.stdout, b"")
        lines = p.stderr.decode().splitlines()
        self.assertEqual(len(lines), 2, lines)
        self.assertTrue(lines[0].startswith("moeflux"), lines)
        self.assertRegex(lines[1], r"^try 'moeflux.* --help'$")
        self.assertIn(says, lines[0])

    def one_line(self, p, says=""):
        """The failure is told in one line."""
        lines = p.stderr.decode().splitlines()
        self.assertEqual(len(lines), 1, lines)
        self.assertTrue(lines[0].startswith("moeflux"), lines)
        self.assertIn(says, lines[0])


class Usage(Case):
    def test_version(self):
        p = self.cli("--version")
        self.assertRegex(p.stdout.decode(), r"^moeflux \d+\.\d+\.\d+\n$")

    def test_help(self):
        text = self.cli("--help").stdout.decode()
        self.assertEqual(text, self.cli("-h").stdout.decode())
        self.assertEqual(text, self.cli("help").stdout.decode())
        for command in COMMANDS:
            self.assertRegex(text, r"(?m)^  %s " % command)
            own = self.cli(command, "--help")
            self.assertEqual(own.stderr, b"")
            self.assertEqual(own.stdout, self.cli("help", command).stdout)
            self.assertEqual(own.stdout, self.cli(command, "-h").stdout)
        for code in (0, 1, 2, 3, 4, 5, 130, 143):
            self.assertRegex(text, r"(?m)^  %d " % code)

    def test_help_has_every_option(self):
        for command in COMMANDS:
            text = self.cli(command, "--help").stdout.decode()
            shown = set()
            for line in re.findall(r"(?m)^  (-[^ ,]+(?:, -[^ ,]+)*)", text):
                shown.update(line.split(", "))
            for option in OPTIONS[command]:
                self.assertIn(option, shown, command)

    def test_every_option_is_parsed(self):
        for command in COMMANDS:
            for option in OPTIONS[command]:
                p = subprocess.run([BIN, command, option, "--zzzzzz"], capture_output=True,
                                   env=clean_env(), timeout=TIMEOUT_S)
                self.assertNotIn(b"unknown option %s" % option.encode(), p.stderr)
                self.assertNotIn(b"no option of this command", p.stderr)

    def test_no_command(self):
        self.usage(says="a command is missing")
        self.usage("rnu", says="did you mean run?")
        self.usage("frobnicate", says="unknown command 'frobnicate'")
        self.usage("-m", "x", says="command comes first")
        self.usage("help", "frobnicate", says="unknown command")
        self.usage("", says="unknown command ''")

    def test_bad_options(self):
        self.usage("run", "--tmep", "1", says="did you mean --temp?")
        self.usage("run", "--qqqqqqqqq", says="unknown option --qqqqqqqqq")
        self.usage("run", "-m", says="-m needs an argument")
        self.usage("tokenize", "--temp", "1", says="--temp")
        self.usage("run", "-p", "x", says="-m/--model DIR is required")
        self.usage("run", "-m", "x", says="a prompt is required")
        self.usage("run", "-m", "x", "-p", "a", "-f", "b", says="combined")
        self.usage("run", "-m", "x", "-p", "a", "-sys", "b", "--raw", says="--system-prompt")
        self.usage("run", "-m", "x", "-p", "a", "-t", "0", says="from 1 to")
        self.usage("run", "-m", "x", "-p", "a", "--memory", "lots", says="not a size")
        self.usage("run", "-m", "x", "-p", "a", "stray", says="unexpected argument 'stray'")
        self.usage("logits", "-m", "x", "--ids", "y", says="--output OUT is required")
        self.usage("logits", "-m", "x", "--ids", "y", "-o", "z", "--hidden", "z", says="same file")
        self.usage("eval", "-m", "x", says="FILE.jsonl is missing")
        self.usage("convert", "a", says="OUT is missing")
        self.usage("convert", "a", "b", "--quant", "q4_x", says="one of mlx4")
        self.usage("convert", "a", "b", "--quant", "q4_k", says="OUT must end in .gguf")
        self.usage("convert", "a", "b.gguf", "--quant", "mlx4", says="ends in .gguf")
        self.usage("tokenize", "-m", "x", "-p", "a", "--jsonl", says="combined")

    def test_environment(self):
        p = self.cli("plan", "nowhere", code=2, env={"MOEFLUX_ARG_THREADS": "many"})
        self.assertIn(b"MOEFLUX_ARG_THREADS: 'many'", p.stderr)
        p = self.cli("plan", code=3, env={"MOEFLUX_ARG_MODEL": self.path("from-env")})
        self.assertIn(b"from-env", p.stderr)
        self.cli("plan", "nowhere", "-t", "1", code=2, env={"MOEFLUX_ARG_CHUNK": "0"})

    def test_missing_model(self):
        ids = self.write("ids", "1 2 3")
        questions = self.write("q.jsonl", '{"question":"a","answer":"b"}\n')
        no = self.path("no-such-model")
        for args in (["run", "-m", no, "-p", "x"], ["plan", no], ["tokenize", "-m", no, "-p", "x"],
                     ["logits", "-m", no, "--ids", ids, "-o", self.path("out")],
                     ["eval", "-m", no, questions],
                     ["convert", no, self.path("out"), "--quant", "mlx4"]):
            p = self.cli(*args, code=3)
            self.assertEqual(p.stdout, b"")
            self.one_line(p, "no-such-model")
        self.assertEqual(sorted(os.listdir(self.dir)), ["ids", "q.jsonl"])

    def test_bad_inputs_before_the_model(self):
        p = self.cli("run", "-m", "x", "-f", self.path("absent"), code=1)
        self.one_line(p, "absent")
        p = self.cli("run", "-m", "x", "-f", self.dir, code=1)
        self.one_line(p)
        for text in ("1 2 x", "-1", "1,2", "99999999999999999999", "", " \n"):
            p = self.cli("logits", "-m", "x", "--ids", self.write("ids", text), "-o", "/dev/null", code=1)
            self.one_line(p, "ids")
        for text in ("", "{}\n", '{"question":"a"}\n', '{"question":"a","answer":1}\n', "[\n",
                     '{"question":"a\\u0000","answer":"b"}\n'):
            p = self.cli("eval", "-m", "x", self.write("q", text), code=1)
            self.one_line(p, "q")
        p = self.cli("eval", "-m", "x", self.write("q", '{"question":"a","answer":"b"}\n{]\n'), code=1)
        self.one_line(p, "line 2")

    def test_help_to_a_full_disk(self):
        with open("/dev/full", "wb") as full:
            p = self.cli("--help", code=4, stdout=full)
        self.one_line(p, "No space left")

    def test_closed_stdout(self):
        p = subprocess.run(["sh", "-c", '"$0" --help >&-', BIN], capture_output=True, timeout=TIMEOUT_S)
        self.assertEqual(p.returncode, 1)

    def test_convert_into_no_folder(self):
        for out in (self.path("none/a/b"), self.path("none/a")):
            self.one_line(self.cli("convert", self.dir, out, "--quant", "mlx4", code=1), "cannot write")

    def test_values(self):
        self.usage("template", "-m", self.dir, "--now", "garbage", says="a time like")
        self.usage("template", "-m", self.dir, "--now", "2025-02-29T10:00:00", says="a time like")
        self.usage("run", "-m", self.dir, "-p", "x", "--grammar", "", says="an empty text")
        self.usage("run", "-m", self.dir, "-p", "x", "-j", "", says="an empty text")
        self.usage("run", "-m", self.dir, "-p", "x", "-l", "99999999+1", says="an id below")

    def test_folder_without_tokenizer(self):
        self.one_line(self.cli("tokenize", "-m", self.dir, "-p", "x", code=3), "no tokenizer.json")

    def test_convert_does_not_overwrite(self):
        os.mkdir(self.path("out"))
        p = self.cli("convert", self.dir, self.path("out"), "--quant", "mlx4", code=1)
        self.one_line(p, "exists")


def tokenizer_path():
    for folder in (MODEL, FLOAT_MODEL):
        if folder and os.path.exists(os.path.join(folder, "tokenizer.json")):
            return folder
    return None


@unittest.skipUnless(tokenizer_path(), "no folder with a tokenizer.json")
class Tokenizer(Case):
    def ids(self, text, *args):
        data = json.dumps(text).encode() + b"\n"
        return json.loads(self.cli("tokenize", "-m", tokenizer_path(), "--jsonl", *args, stdin=data).stdout)

    def test_the_ways_agree(self):
        text = "What is a lighthouse?\n  Größe 東京 \U0001f600\t"
        ids = self.ids(text)
        self.assertTrue(ids)
        plain = self.cli("tokenize", "-m", tokenizer_path(), "-p", text).stdout.decode()
        self.assertEqual([int(x) for x in plain.split()], ids)
        self.assertTrue(plain.endswith("\n"))
        piped = self.cli("tokenize", "-m", tokenizer_path(), stdin=text.encode()).stdout.decode()
        self.assertEqual(piped, plain)
        filed = self.cli("tokenize", "-m", tokenizer_path(), "-f", self.write("t", text)).stdout.decode()
        self.assertEqual(filed, plain)
        by_file = self.cli("tokenize", "-m", os.path.join(tokenizer_path(), "tokenizer.json"), "-p", text)
        self.assertEqual(by_file.stdout.decode(), plain)

    def test_needs_only_the_tokenizer(self):
        shutil.copy(os.path.join(tokenizer_path(), "tokenizer.json"), self.dir)
        self.assertTrue(self.cli("tokenize", "-m", self.dir, "-p", "word").stdout)

    def test_empty(self):
        self.assertEqual(self.ids(""), [])
        self.assertEqual(self.cli("tokenize", "-m", tokenizer_path()).stdout, b"\n")
        self.assertEqual(self.cli("tokenize", "-m", tokenizer_path(), "--jsonl").stdout, b"")

    def test_nul_and_escapes(self):
        self.assertEqual(self.ids("a\0b")[:1], self.ids("a"))
        data = b'"\\u0041\\ud83d\\ude00"\n' + json.dumps("A\U0001f600", ensure_ascii=False).encode()
        p = self.cli("tokenize", "-m", tokenizer_path(), "--jsonl", stdin=data)
        first, second = p.stdout.decode().splitlines()
        self.assertEqual(first, second)

    def test_order_and_threads(self):
        lines = [json.dumps("line %d %s" % (i, "word " * (i % 17))) for i in range(20000)]
        data = ("\n".join(lines) + "\n").encode()
        out = [self.cli("tokenize", "-m", tokenizer_path(), "--jsonl", "-t", t, stdin=data).stdout
               for t in ("1", "2", "7")]
        self.assertEqual(out[0].count(b"\n"), len(lines))
        self.assertEqual(out[0], out[1])
        self.assertEqual(out[0], out[2])
        for i in (0, 1, 9999, 19999):
            self.assertEqual(json.loads(out[0].split(b"\n")[i]), self.ids(json.loads(lines[i])))

    def test_bad_lines(self):
        good = b'"one"\n"two"\n'
        for bad in (b"", b"three", b"3", b'["three"]', b'"three', b'"a" "b"', b'"\\ud800"', b'"\xff"',
                    b'"tab\tin"', b'"\\x41"'):
            for threads in ("1", "4"):
                p = self.cli("tokenize", "-m", tokenizer_path(), "--jsonl", "-t", threads,
                             stdin=good + bad + b"\n" + good, code=1)
                self.one_line(p, "line 3:")
                self.assertEqual(p.stdout.count(b"\n"), 2)

    def test_bad_text(self):
        p = self.cli("tokenize", "-m", tokenizer_path(), stdin=b"abc\xff", code=1)
        self.one_line(p)

    def test_reader_goes_away(self):
        data = b'"some words in a line"\n' * 200000
        p = subprocess.Popen([BIN, "tokenize", "-m", tokenizer_path(), "--jsonl", "-f",
                              self.write("in", data)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(p.stdout.readline().startswith(b"["))
        p.stdout.close()
        err = p.stderr.read()
        p.stderr.close()
        self.assertEqual(p.wait(TIMEOUT_S), 1)
        self.assertEqual(err, b"")

    def test_full_disk(self):
        with open("/dev/full", "wb") as full:
            p = self.cli("tokenize", "-m", tokenizer_path(), "-p", "x", code=4, stdout=full)
        self.one_line(p, "No space left")

    def test_interrupted_while_waiting_for_input(self):
        p = subprocess.Popen([BIN, "tokenize", "-m", tokenizer_path()], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1.5)
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(TIMEOUT_S), 130)
        p.communicate()


@unittest.skipUnless(os.path.isdir(MODEL), "no model folder at " + MODEL)
class Model(Case):
    question = "What is a lighthouse?"

    def run_model(self, *args, **kw):
        return self.cli("run", "-m", MODEL, *args, **kw)

    def json_of(self, *args, **kw):
        p = self.run_model("--json", *args, **kw)
        self.assertEqual(p.stdout.count(b"\n"), 1)
        return json.loads(p.stdout)

    def start(self, *args):
        p = subprocess.Popen([BIN, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=clean_env())
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.kill)
        return p

    def vocab_and_layers(self):
        with open(os.path.join(MODEL, "config.json")) as f:
            config = json.load(f)
        config = config.get("text_config", config)
        return config["vocab_size"], config["num_hidden_layers"], config["hidden_size"]

    # ---- run ----

    def test_greedy_is_the_same_everywhere(self):
        base = self.run_model("-p", self.question, "--temp", "0", "-n", "40").stdout
        self.assertTrue(base.strip())
        self.assertTrue(base.endswith(b"\n"))
        for extra in (["-t", "1"], ["--threads", "3"], ["--chunk", "1"], ["--chunk", "7"],
                      ["--io-threads", "1"]):
            self.assertEqual(self.run_model("-p", self.question, "--temp", "0", "-n", "40", *extra).stdout,
                             base, extra)

    @unittest.skipIf(SANITIZED, "sanitizers take memory of their own")
    def test_trace_and_replay(self):
        """A replay counts what the run counted, for chunks of the prompt as for tokens."""
        trace = self.path("trace.jsonl")
        args = ["-p", self.question, "--temp", "0", "-n", "24", "--ignore-eos", "--memory", "17M", "-c", "128"]
        for policy, chunk in (("lru", 1), ("lfu", 1), ("odds", 1), ("odds", 8), ("lru", 8)):
            args[-4:-4] = ["--chunk", str(chunk)]
            out = json.loads(self.cli("trace", "-m", MODEL, *args, "-o", trace, "--json", "--policy", policy).stdout)
            self.assertEqual(out["model"]["policy"], policy)
            experts = out["experts"]
            sweep = json.loads(self.cli("replay", trace, "--cache", str(experts["slots"]), "--policy", policy,
                                        "--json").stdout)["sweep"]
            self.assertEqual(sweep[0][policy + "_hits"], experts["hits"])
            self.assertGreaterEqual(sweep[0]["bound_hits"], experts["hits"])
            self.assertGreater(experts["evictions"], 0)
        table = self.cli("replay", trace, "--svg", self.path("plot.svg")).stdout.decode()
        self.assertRegex(table, r"cache +of all +lru +read a token +lfu +read a token +odds")
        self.assertIn("100.0 %", table)
        svg = ElementTree.parse(self.path("plot.svg")).getroot()
        self.assertEqual(len([e for e in svg if e.tag.endswith("polyline")]), 4)
        self.assertEqual(json.loads(self.cli("replay", trace, "--cache", "10%,64,2M", "--json").stdout)["tokens"],
                         out["prompt_tokens"] + 23)
        self.usage("replay", trace, "--policy", "magic", says="magic")
        self.usage("replay", trace, "--cache", "64,,72", says="no list of words")
        self.cli("replay", trace, "--cache", "1", code=1)
        self.cli("replay", os.path.join(MODEL, "config.json"), code=3)

    @unittest.skipIf(SANITIZED, "sanitizers take memory of their own")
    def test_readers(self):
        """Every reader gives the same answer, and the summary says which one it was."""
        args = ["-p", self.question, "--temp", "0", "-n", "20", "--memory", "18M", "-c", "256", "--json"]
        base = json.loads(self.run_model(*args).stdout)
        self.assertEqual((base["model"]["reader"], base["model"]["direct"]), ("threads", False))
        for reader in ("threads", "uring"):
            for direct in ("on", "off"):
                p = self.run_model(*args, "--io", reader, "--direct-io", direct, code=(0, 3))
                if p.returncode:  # many containers forbid it
                    self.assertEqual(reader, "uring")
                    self.assertRegex(p.stderr.decode(), "I/O ring|liburing")
                    continue
                out = json.loads(p.stdout)
                self.assertEqual((out["model"]["reader"], out["model"]["direct"]), (reader, direct == "on"))
                self.assertEqual(out["text"], base["text"])
        self.cli("run", "-m", MODEL, "-p", "x", "--io", "magic", code=2)

    def test_summary(self):
        err = self.run_model("-p", self.question, "--temp", "0", "-n", "20").stderr.decode()
        for word in ("model ", "prompt ", "generation ", "experts ", "hits", "misses", "evictions", "read ",
                     "stalled", "memory ", "peak", "budget"):
            self.assertIn(word, err)
        self.assertRegex(err, r"\nprompt +\d+ tokens, [\d.]+ tokens/s\ngeneration +20 tokens, [\d.]+ tokens/s, stop: ")
        self.assertEqual(err.count("tokens/s"), 2)
        self.assertNotIn("seed:", err)  # greedy draws none

    def test_seeds(self):
        def text(seed):
            return self.run_model("-p", self.question, "--temp", "1", "-n", "24", "--seed", str(seed)).stdout
        texts = [text(s) for s in range(6)]
        self.assertEqual(texts[3], text(3))
        self.assertGreater(len(set(texts)), 1)

    def test_drawn_seed_is_printed_and_repeats(self):
        args = ["-p", self.question, "--temp", "1", "-n", "24"]
        first = self.run_model(*args)
        seed = re.search(r"^seed: (\d+)$", first.stderr.decode(), re.M).group(1)
        again = self.run_model(*args, "--seed", seed)
        self.assertEqual(first.stdout, again.stdout)
        self.assertNotIn(b"seed:", again.stderr)
        other = self.run_model(*args)
        self.assertNotEqual(re.search(r"^seed: (\d+)$", other.stderr.decode(), re.M).group(1), seed)

    def test_json(self):
        r = self.json_of("-p", self.question, "--temp", "0", "-n", "12")
        self.assertEqual(r["schema"], 1)
        self.assertIn(r["stop"], ("eos", "length"))
        self.assertLessEqual(r["generated_tokens"], 12)
        self.assertGreater(r["prompt_tokens"], 0)
        self.assertIsInstance(r["seed"], int)
        for key in ("hits", "misses", "evictions", "bytes_read", "stall_ns", "slots", "total"):
            self.assertIsInstance(r["experts"][key], int)
        self.assertGreater(r["experts"]["hits"] + r["experts"]["misses"], 0)
        self.assertLessEqual(r["experts"]["slots"], r["experts"]["total"])
        self.assertGreater(r["memory"]["budget_bytes"], 0)
        self.assertGreater(r["timings"]["prompt_ns"], 0)
        plain = self.run_model("-p", self.question, "--temp", "0", "-n", "12").stdout.decode()
        self.assertEqual(plain.rstrip("\n"), r["text"].rstrip("\n"))

    def test_lengths(self):
        p = self.run_model("-p", self.question, "-n", "0", "--temp", "0")
        self.assertEqual(p.stdout, b"")
        r = self.json_of("-p", self.question, "-n", "0", "--temp", "0")
        self.assertEqual((r["text"], r["generated_tokens"], r["stop"]), ("", 0, "length"))
        r = self.json_of("-p", self.question, "-n", "7", "--temp", "0", "--ignore-eos")
        self.assertEqual((r["generated_tokens"], r["stop"]), (7, "length"))
        n = r["prompt_tokens"] + 4
        r = self.json_of("-p", self.question, "--temp", "0", "--ignore-eos", "-c", str(n))
        self.assertEqual(r["stop"], "context")
        p = self.run_model("-p", self.question, "-c", "3", "--temp", "0", code=1)
        self.one_line(p)

    def test_prompts(self):
        base = self.run_model("-p", self.question, "--temp", "0", "-n", "12").stdout
        prompt = self.write("prompt", self.question + "\n")
        self.assertEqual(self.run_model("-f", prompt, "--temp", "0", "-n", "12").stdout, base)
        self.assertEqual(self.run_model("-f", "-", "--temp", "0", "-n", "12",
                                        stdin=self.question.encode()).stdout, base)
        raw = self.json_of("-p", self.question, "--temp", "0", "-n", "2", "--raw")
        chat = self.json_of("-p", self.question, "--temp", "0", "-n", "2")
        self.assertLess(raw["prompt_tokens"], chat["prompt_tokens"])
        system = self.json_of("-p", self.question, "-sys", "Be brief.", "--temp", "0", "-n", "2")
        self.assertGreater(system["prompt_tokens"], chat["prompt_tokens"])

    def test_odd_prompts(self):
        self.run_model("-p", "", "--temp", "0", "-n", "3")
        if not self.cli("tokenize", "-m", MODEL, "--special", "-p", "").stdout.strip():
            self.one_line(self.run_model("-p", "", "--raw", code=1), "empty")
        self.one_line(self.run_model("-f", "-", stdin=b"a\0b", code=1), "NUL")
        self.one_line(self.run_model("-f", "-", stdin=b"a\xffb", code=1))
        self.one_line(self.run_model("-f", "-", "--raw", stdin=b"a\xffb", code=1))

    def test_logit_bias(self):
        ids = self.cli("tokenize", "-m", MODEL, "-p", " the").stdout.split()
        token = ids[0].decode()
        r = self.json_of("--raw", "-p", "It is", "--temp", "0", "-n", "3", "-l", token + "+1000")
        first = self.json_of("--raw", "-p", "It is", "--temp", "0", "-n", "1", "-l", token + "+1000")
        self.assertEqual(r["text"], first["text"] * 3)
        other = self.json_of("--raw", "-p", "It is", "--temp", "0", "-n", "3", "-l", token + "-inf")
        self.assertNotEqual(other["text"], r["text"])
        p = self.run_model("-p", "x", "-l", "16000000+1", code=2)
        self.assertIn(b"outside the vocabulary", p.stderr)

    def test_trace(self):
        trace = self.path("trace.jsonl")
        self.run_model("-p", self.question, "--temp", "0", "-n", "4", "--trace", trace)
        with open(trace) as f:
            lines = [json.loads(line) for line in f]
        self.assertTrue(lines)

    def test_environment_below_flags(self):
        env = {"MOEFLUX_ARG_PREDICT": "3", "MOEFLUX_ARG_TEMP": "0", "MOEFLUX_ARG_IGNORE_EOS": "on",
               "MOEFLUX_ARG_MODEL": MODEL}
        p = self.cli("run", "--json", "-p", self.question, env=env)
        self.assertEqual(json.loads(p.stdout)["generated_tokens"], 3)
        p = self.cli("run", "--json", "-p", self.question, "-n", "5", env=env)
        self.assertEqual(json.loads(p.stdout)["generated_tokens"], 5)

    def test_signals(self):
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            p = self.start("run", "-m", MODEL, "-p", self.question, "--ignore-eos", "--temp", "1")
            self.assertTrue(os.read(p.stdout.fileno(), 1))
            p.send_signal(number)
            out, err = p.communicate(timeout=TIMEOUT_S)
            self.assertEqual(p.returncode, code, err)
            self.assertIn(b"stop: cancelled", err)

    def test_signal_with_json(self):
        p = self.start("run", "-m", MODEL, "-p", self.question, "--ignore-eos", "--seed", "1",
                       "--json")
        time.sleep(1)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=TIMEOUT_S)
        self.assertEqual(p.returncode, 130, err)
        if out:  # nothing if it was still loading
            self.assertEqual(json.loads(out)["stop"], "cancelled")

    def test_reader_goes_away(self):
        p = self.start("run", "-m", MODEL, "-p", self.question, "--ignore-eos", "--seed", "1")
        self.assertTrue(os.read(p.stdout.fileno(), 1))
        p.stdout.close()
        self.assertEqual(p.wait(30), 1)
        self.assertNotIn(b"rror", p.stderr.read())

    def test_full_disk(self):
        with open("/dev/full", "wb") as full:
            p = self.run_model("-p", self.question, "-n", "4", code=4, stdout=full)
            self.assertIn(b"No space left", p.stderr)
            self.run_model("-p", self.question, "-n", "4", "--json", code=4, stdout=full)

    # ---- memory ----

    def smallest_memory(self, *args):
        """The size that the refusal of a hopeless budget names."""
        p = self.run_model("-p", self.question, "--memory", "1M", *args, code=4)
        self.assertEqual(p.stdout, b"")
        shift = {"bytes": 0, "K": 10, "KiB": 10, "M": 20, "MiB": 20, "G": 30, "GiB": 30}
        sizes = [int(float(n) * (1 << shift[unit])) for n, unit in
                 re.findall(r"\b(\d+(?:\.\d+)?) ?(bytes|KiB|MiB|GiB|K|M|G)\b", p.stderr.decode())]
        self.assertTrue(sizes, p.stderr)
        return max(sizes)

    def test_memory_names_a_size_that_works(self):
        smallest = self.smallest_memory()
        base = self.run_model("-p", self.question, "--temp", "0", "-n", "24").stdout
        r = self.run_model("-p", self.question, "--temp", "0", "-n", "24", "--memory", str(smallest))
        self.assertEqual(r.stdout, base)
        r = self.json_of("-p", self.question, "--temp", "0", "-n", "24", "--memory", str(smallest))
        self.assertEqual(r["memory"]["budget_bytes"], smallest)
        if not SANITIZED: # whose shadow memory is no part of the budget
            self.assertLessEqual(r["memory"]["peak_bytes"], smallest)
        self.run_model("-p", self.question, "-n", "1", "--memory", str(smallest // 2), code=4)

    # ---- broken models ----

    def broken_copy(self, victim, size):
        folder = self.path("broken-%d" % size)
        os.mkdir(folder)
        for name in os.listdir(MODEL):
            os.symlink(os.path.abspath(os.path.join(MODEL, name)), os.path.join(folder, name))
        os.unlink(os.path.join(folder, victim))
        with open(os.path.join(MODEL, victim), "rb") as f, open(os.path.join(folder, victim), "wb") as g:
            g.write(f.read(size))
        return folder

    def test_truncated_weights(self):
        victim = sorted(n for n in os.listdir(MODEL) if n.endswith(".safetensors"))[-1]
        whole = os.path.getsize(os.path.join(MODEL, victim))
        for size in (0, 7, 8, 1000, whole // 3, whole - 1):
            folder = self.broken_copy(victim, size)
            p = self.cli("run", "-m", folder, "-p", "x", "-n", "8", code=(3, 5))
            self.assertEqual(p.stdout, b"")
            self.assertIn(victim.encode(), p.stderr)
            shutil.rmtree(folder)

    def test_truncated_json(self):
        for victim in ("config.json", "tokenizer.json"):
            whole = os.path.getsize(os.path.join(MODEL, victim))
            for size in (0, 1, whole // 2, whole - 3):
                folder = self.broken_copy(victim, size)
                p = self.cli("run", "-m", folder, "-p", "x", "-n", "8", code=3)
                self.assertEqual(p.stdout, b"")
                shutil.rmtree(folder)

    def test_cut_short_while_running(self):
        victim = max((n for n in os.listdir(MODEL) if n.endswith(".safetensors")),
                     key=lambda n: os.path.getsize(os.path.join(MODEL, n)))
        whole = os.path.getsize(os.path.join(MODEL, victim))
        folder = self.broken_copy(victim, whole)
        # Few slots, so that experts are read until the end.
        p = self.start("run", "-m", folder, "-p", self.question, "--ignore-eos", "-c", "4096", "--temp", "1",
                       "--seed", "1", "--memory", str(self.smallest_memory("-c", "4096")))
        self.assertTrue(os.read(p.stdout.fileno(), 1))
        os.truncate(os.path.join(folder, victim), 4096)
        out, err = p.communicate(timeout=TIMEOUT_S)
        self.assertIn(p.returncode, (3, 5), err)

    # ---- logits ----

    def logits(self, ids, *args, **kw):
        path = self.write("ids", " ".join(map(str, ids)))
        return self.cli("logits", "-m", MODEL, "--ids", path, "-o", self.path("logits"), *args, **kw)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def test_logits(self):
        vocab, layers, hidden = self.vocab_and_layers()
        ids = [(i * 37) % 200 for i in range(70)]
        p = self.logits(ids, "--hidden", self.path("hidden"), "--json")
        shapes = json.loads(p.stdout)
        self.assertEqual(shapes["logits"], [70, vocab])
        self.assertEqual(shapes["hidden"], [layers + 1, 70, hidden])
        first, states = self.read("logits"), self.read("hidden")
        self.assertEqual(len(first), 70 * vocab * 4)
        self.assertEqual(len(states), (layers + 1) * 70 * hidden * 4)
        self.assertEqual(sorted(os.listdir(self.dir)), ["hidden", "ids", "logits"])
        for extra in (["-t", "1"], ["-t", "3"], ["--chunk", "1"], ["--chunk", "64", "--io-threads", "1"]):
            self.logits(ids, "--hidden", self.path("hidden"), *extra)
            self.assertEqual(self.read("logits"), first, extra)
            self.assertEqual(self.read("hidden"), states, extra)

    def test_logits_of_a_prefix(self):
        vocab = self.vocab_and_layers()[0]
        self.logits([5, 6, 7, 8])
        whole = self.read("logits")
        self.assertEqual(self.logits([5, 6]).stdout, b"")
        self.assertEqual(self.read("logits"), whole[:2 * vocab * 4])

    def test_logits_failures_leave_nothing(self):
        vocab = self.vocab_and_layers()[0]
        self.one_line(self.logits([1, vocab], code=1), "outside the vocabulary")
        self.one_line(self.logits([1, 2, 3], "-c", "2", code=1))
        self.assertEqual(os.listdir(self.dir), ["ids"])
        self.cli("logits", "-m", MODEL, "--ids", self.path("ids"), "-o", self.path("no/out"), code=1)
        self.cli("logits", "-m", MODEL, "--ids", self.path("ids"), "-o", "/dev/full", code=4)
        self.logits([1, 2], "--hidden", "/dev/full", code=4)
        self.assertEqual(os.listdir(self.dir), ["ids"])

    def test_logits_failure_keeps_the_old_file(self):
        self.write("logits", "old")
        self.logits([1, 2, 3], "-c", "2", code=1)
        self.assertEqual(self.read("logits"), b"old")

    def test_logits_interrupted(self):
        self.write("ids", " ".join(str(i % 250) for i in range(4000)))
        p = self.start("logits", "-m", MODEL, "--ids", self.path("ids"), "-o", self.path("logits"), "-t", "1")
        deadline = time.time() + 60
        while len(os.listdir(self.dir)) < 2 and p.poll() is None and time.time() < deadline:
            time.sleep(0.002)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=TIMEOUT_S)
        self.assertEqual(p.returncode, 130, err)
        self.assertEqual(os.listdir(self.dir), ["ids"])

    # ---- plan and eval ----

    def test_plan(self):
        table = self.cli("plan", "-m", MODEL).stdout
        self.assertTrue(table.strip())
        self.assertIsInstance(json.loads(self.cli("plan", "--json", MODEL).stdout), dict)
        p = self.cli("plan", MODEL, "--memory", "1M", "--json", code=4)
        json.loads(p.stdout)
        self.one_line(p)

    def eval_file(self):
        r = self.json_of("-p", self.question, "--temp", "0", "--repeat-penalty", "1", "-n", "256")
        lines = [{"question": self.question, "answer": r["text"]},
                 {"question": self.question, "answer": r["text"] + "!"},
                 {"question": "", "answer": "\u2603"}]
        return self.write("q.jsonl", "".join(json.dumps(x) + "\n" for x in lines))

    def test_eval(self):
        path = self.eval_file()
        p = self.cli("eval", "-m", MODEL, path, "--json")
        self.assertEqual(json.loads(p.stdout), {"schema": 1, "correct": 1, "total": 3, "accuracy": 1 / 3})
        p = self.cli("eval", "-m", MODEL, path, "--json", "--limit", "1", "-t", "1")
        self.assertEqual(json.loads(p.stdout), {"schema": 1, "correct": 1, "total": 1, "accuracy": 1})
        self.assertEqual(self.cli("eval", "-m", MODEL, path).stdout, b"1 of 3 correct (33.33 %)\n")
        p = self.cli("eval", "-m", MODEL, path, "--limit", "1", "-n", "1", "--json")
        self.assertEqual(json.loads(p.stdout)["correct"], 0)

    def on_terminal(self, *args):
        """Standard error is a terminal; returns what it got."""
        parent, child = pty.openpty()
        p = subprocess.Popen([BIN, *args], stdout=subprocess.PIPE, stderr=child, stdin=subprocess.DEVNULL,
                             env=clean_env())
        os.close(child)
        seen = b""
        try:
            while select.select([parent], [], [], TIMEOUT_S)[0]:
                part = os.read(parent, 4096)
                if not part:
                    break
                seen += part
        except OSError:  # the other side is closed
            pass
        os.close(parent)
        p.stdout.read()
        p.stdout.close()
        self.assertEqual(p.wait(TIMEOUT_S), 0, seen)
        return seen

    def test_progress_on_a_terminal(self):
        question = json.dumps({"question": self.question, "answer": "x"}) + "\n"
        path = self.write("q.jsonl", question * 20)
        seen = self.on_terminal("eval", "-m", MODEL, path)
        self.assertIn(b"\r", seen)
        self.assertTrue(seen.endswith(b"\r\033[K"), seen[-200:])
        self.assertNotIn(b"\n", seen)
        self.assertEqual(self.on_terminal("eval", "-m", MODEL, path, "--no-progress"), b"")


@unittest.skipUnless(FLOAT_MODEL and os.path.isdir(FLOAT_MODEL), "no float model to convert")
class Convert(Case):
    def test_interrupted(self):
        out = self.path("out")
        p = subprocess.Popen([BIN, "convert", FLOAT_MODEL, out, "--quant", "mlx4"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env())
        deadline = time.time() + 60
        while not os.listdir(self.dir) and p.poll() is None and time.time() < deadline:
            time.sleep(0.001)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=TIMEOUT_S)
        self.assertEqual(p.returncode, 130, err)
        self.assertEqual(os.listdir(self.dir), [])

    def test_both_templates_survive(self):
        folder, gguf, back = self.path("in"), self.path("x.gguf"), self.path("back")
        shutil.copytree(FLOAT_MODEL, folder)
        names = {"default": "plain", "tool_use": 'tools "{{ tools }}"\n'}
        with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
            json.dump({"chat_template": [{"name": n, "template": t} for n, t in names.items()]}, f)
        for extra in ("chat_template.jinja", "additional_chat_templates"):
            self.assertFalse(os.path.exists(os.path.join(folder, extra)))
        self.cli("convert", folder, gguf, "--quant", "q8_0", "-t", "2")
        self.cli("convert", gguf, back, "--quant", "mlx8", "-t", "2")
        with open(os.path.join(back, "tokenizer_config.json")) as f:
            there = json.load(f)["chat_template"]
        self.assertEqual({t["name"]: t["template"] for t in there}, names)

    def test_converted_model_runs(self):
        out = self.path("out")
        p = self.cli("convert", FLOAT_MODEL, out, "--quant", "mlx4", "-t", "2")
        self.assertEqual(p.stdout, b"")
        self.assertEqual(os.listdir(self.dir), ["out"])
        before = sum(os.path.getsize(os.path.join(FLOAT_MODEL, n)) for n in os.listdir(FLOAT_MODEL))
        after = sum(os.path.getsize(os.path.join(out, n)) for n in os.listdir(out))
        self.assertLess(after, before / 2)
        p = self.cli("run", "-m", out, "-p", "What is a lighthouse?", "--temp", "0", "-n", "30")
        self.assertTrue(p.stdout.strip())
        self.cli("convert", FLOAT_MODEL, out, "--quant", "mlx4", code=1)  # is there already


def main():
    if not os.access(BIN, os.X_OK):
        sys.exit("no program at %s; set MOEFLUX_BIN" % BIN)
    program = unittest.main(exit=False, verbosity=2 if "-v" in sys.argv else 1)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if result.testsRun and len(result.skipped) >= result.testsRun else 0)


if __name__ == "__main__":
    main()
