#!/usr/bin/env python3
"""Answers under grammars and JSON schemas, from outside.

Schemas: random schemas, and for each texts that gsample writes with random logits, read by Python's
json and validated by jsonschema (Debian python3-jsonschema), which shares no code with the engine.
Model: the shipped model under grammars, from the command line.
"""
import datetime
import ipaddress
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import unittest
import uuid

SOURCE = os.environ.get("MOEFLUX_SOURCE", os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
BIN = os.environ.get("MOEFLUX_BIN", os.path.join(SOURCE, "build", "moeflux"))
GSAMPLE = os.environ.get("MOEFLUX_GSAMPLE", os.path.join(SOURCE, "build", "tests", "gsample"))
SANITIZED = os.environ.get("MOEFLUX_SANITIZED", "")
MODEL = os.path.join(SOURCE, "models", "pocket-dictionary")
SEED = int(os.environ.get("MOEFLUX_SEED", "20261123"))

try:
    import jsonschema
except ImportError:
    jsonschema = None


def format_checker():
    """jsonschema's own checks depend on its version and on what else is installed."""
    checker = jsonschema.FormatChecker(formats=())

    def check(name, function):
        checker.checks(name, raises=ValueError)(lambda v: not isinstance(v, str) or bool(function(v)))

    def moment(text):
        if not re.fullmatch(r"[0-9T:.+Z-]+", text) or not re.search(r"(Z|[+-]\d\d:\d\d)$", text):
            raise ValueError(text)
        return datetime.datetime.fromisoformat(text)

    check("date", lambda v: len(v) == 10 and datetime.date.fromisoformat(v))
    check("time", lambda v: moment("1970-01-01T" + v))
    check("date-time", lambda v: v[10] == "T" and moment(v))
    check("uuid", lambda v: len(v) == 36 and uuid.UUID(v))
    label = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    host = r"(?=.{1,253}$)(%s\.)*%s" % (label, label)
    atom = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
    check("hostname", lambda v: re.fullmatch(host, v, re.I))
    check("email", lambda v: re.fullmatch(r"(?=.{1,64}@)%s(\.%s)*@(%s\.)+%s" % (atom, atom, label, label), v, re.I))
    check("ipv4", ipaddress.IPv4Address)
    check("ipv6", ipaddress.IPv6Address)
    check("uri", lambda v: re.fullmatch(  # RFC 3986, without the parts that nobody writes
        r"[a-z][a-z0-9+.-]*:(//%s(:[0-9]*)?(/[^/?#]*)*|[a-z0-9:]+)(\?[^#]*)?(#.*)?" % host.replace("$", "[/:?#]|.*$"), v, re.I)
          and re.fullmatch(r"([A-Za-z0-9._~:/?#@!$&'()*+,;=-]|\[|\]|%[0-9A-F]{2})*", v))
    check("duration", lambda v: re.fullmatch(
        r"P(?!$)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?|P\d+W", v))
    return checker


class Maker:
    """Random schemas of what is supported; $defs that refer to each other, too."""

    def __init__(self, rng):
        self.rng = rng
        self.n_defs = rng.choice([0, 0, 1, 2, 3])

    def schema(self):
        root = self.any(3)
        if not isinstance(root, dict):
            return root
        if self.n_defs:
            # each ends: what refers to others stands where nothing need stand
            root = dict(root)
            root["$defs"] = {"d%d" % i: self.definition(i) for i in range(self.n_defs)}
        return root

    def definition(self, i):
        r = self.rng
        other = {"$ref": "#/$defs/d%d" % r.randrange(self.n_defs)}
        return {"type": "object",
                "properties": {"k": self.any(1), "next": r.choice([
                    {"anyOf": [other, {"type": "null"}]},
                    {"type": "array", "items": other, "maxItems": 2}])},
                "required": r.choice([["k"], ["k", "next"], []]),
                "additionalProperties": False}

    def any(self, depth):
        r = self.rng
        kinds = [self.string, self.string, self.integer, self.number, self.value, self.simple]
        if depth > 0:
            kinds += [self.object, self.object, self.array, self.array, self.union, self.merged, self.one]
            if self.n_defs:
                kinds += [self.ref, self.ref]
        s = r.choice(kinds)(depth)
        if isinstance(s, dict) and r.random() < 0.2:
            s["description"] = "a remark"
        return s

    def simple(self, depth):
        r = self.rng
        types = ["null", "boolean", "integer", "number", "string"]
        return r.choice([{"type": r.choice(types)}, {"type": r.sample(types, 2)}, {}, True,
                         {"type": "string", "nullable": False}])

    def string(self, depth):
        r = self.rng
        s = {"type": "string"}
        kind = r.randrange(6)
        if kind == 0:
            s["minLength"] = r.randrange(4)
            s["maxLength"] = s["minLength"] + r.randrange(12)
        elif kind == 1:
            s["pattern"] = r.choice([
                "^[a-z]{2,5}$", "^(foo|bar)+$", "[a-m][^a-m]", "^\\d{3}-\\d{4}$", "^[^a-z\"]*$", "[^ ]$|^y",
                "^[\\w.+-]+@[\\w-]+\\.[a-z]{2,3}$", "^\\\\?\"?.{0,4}$", "^[\u00e9\u4e00-\u9fff]{1,3}$",
                "^(?:a|b(c|d)?)*?e$", "^\\u0041\\x42[\\-\\]]$", "^[!-~]+\\s[^\\s\\x1c-\\x1f\\x85]\\w$", "^[\\t\\n ]?$"])
        elif kind == 2:
            s["format"] = r.choice(["date", "time", "date-time", "uuid", "duration", "email", "hostname", "ipv4",
                                    "ipv6", "uri", "password", "int64"])
            if r.random() < 0.3:
                s.update(r.choice([{"minLength": 1, "maxLength": 2083}, {"maxLength": 60}]))
        elif kind == 3:
            s["minLength"] = r.randrange(6)
        elif kind == 4:  # several things at once
            s["pattern"] = r.choice([
                "^[a-z]+$", "^\\S+( \\S+)*$", "^(ab|c)*$", "[0-9]", "^(?=.*[A-Z])(?=.*\\d).+$", "^(?!x)[w-z]*$",
                "^(?!.*--)[a-z-]+$", "^[^a]*a|b$", "^\u00e9?[\\w \"]*$", "^(?=[ab]{2}$)(?!aa).*"])
            s["minLength"] = r.randrange(3)
            s["maxLength"] = s["minLength"] + 2 + r.randrange(12)
            if r.random() < 0.3:
                s = {"allOf": [s, {"type": "string", "pattern": "^[^m]*$"}]}
        return s

    def bounds(self, s):
        r = self.rng
        span = r.choice([3, 20, 150, 5000, 10 ** 9])
        lo = r.randrange(-span, span)
        hi = lo + 1 + r.randrange(span)
        if r.random() < 0.8:
            s[r.choice(["minimum", "exclusiveMinimum"])] = lo
        if r.random() < 0.8:
            s[r.choice(["maximum", "exclusiveMaximum"])] = hi + 1
        return s

    def integer(self, depth):
        return self.bounds({"type": "integer"})

    def number(self, depth):
        r = self.rng
        s = {"type": "number"}
        kind = r.randrange(6)
        if kind < 2:
            return self.bounds(s)
        if kind == 2:
            lo = round(r.uniform(-3, 3), r.randrange(9))
            s[r.choice(["minimum", "exclusiveMinimum"])] = lo
            s[r.choice(["maximum", "exclusiveMaximum"])] = lo + round(r.choice([.001, .5, 7.25, 1e6]), r.randrange(3, 9))
        elif kind == 3:
            s = r.choice([{"type": "number", "multipleOf": r.choice([0.5, 0.25, 0.01, 3, 100])},
                          {"type": "integer", "multipleOf": r.choice([2, 5, 7, 60, 1000, 10000])},
                          {"type": "integer", "multipleOf": 12, "minimum": r.randrange(-500, 0), "maximum": 400},
                          {"type": "number", "multipleOf": 0.5, "exclusiveMinimum": 0.5, "maximum": 7.5}])
        return s

    def value(self, depth):
        r = self.rng
        values = [None, True, 0, -7, 1.5, "a\"b\\c\n", "\u00e9\u20ac", [1, {"x": []}], {"k": "v"}, "", 1e30]
        return r.choice([{"const": r.choice(values)}, {"enum": r.sample(values, 3)},
                         {"type": "string", "enum": ["red", "green", 3]}])

    def object(self, depth):
        r = self.rng
        keys = r.sample(["a", "ab", "abc", "b", "\u00e9t\u00e9", "with \"quote\"", "x y", "", "id"], r.randrange(5))
        s = {"type": "object", "properties": {k: self.any(depth - 1) for k in keys}}
        s["required"] = [k for k in keys if r.random() < 0.5]
        extra = r.randrange(4)
        if extra == 0:
            s["additionalProperties"] = False
        elif extra == 1:
            s["additionalProperties"] = self.any(0)
        elif extra == 2 and r.random() < 0.3:
            s["additionalProperties"] = True
        else:
            self.keys(s, depth)
        return s

    def keys(self, s, depth):
        r = self.rng
        kind = r.randrange(8)
        if kind == 0:
            s["patternProperties"] = {"^a": {"type": ["integer", "null"]}, "[x-z]$": self.any(0)}
            s["additionalProperties"] = r.choice([False, True, {"type": "boolean"}])
            s["properties"] = {k: {} for k in s["properties"]}
        elif kind == 1:
            s["propertyNames"] = r.choice([{"enum": ["a", "k", "id"]}, {"pattern": "^[a-k]+$", "maxLength": 4}])
            s["required"] = [k for k in s["required"] if k in ("a", "id")]
            s["additionalProperties"] = self.any(0)
        elif kind == 2:
            s["minProperties"] = 1
            s["additionalProperties"] = r.choice([False, True, {"type": "boolean"}])
            if not s["properties"]:
                s["additionalProperties"] = True
        elif kind == 3:
            s["maxProperties"] = len(s["properties"]) + r.randrange(3)
            s["additionalProperties"] = True

    def array(self, depth):
        r = self.rng
        s = {"type": "array"}
        if r.random() < 0.8:
            s["items"] = self.any(depth - 1)
        if r.random() < 0.4:
            s["prefixItems"] = [self.any(depth - 1) for _ in range(r.randrange(4))]
        if r.random() < 0.15:
            return {"type": "array", "uniqueItems": True, "items": {"enum": ["a", 1, None, [], "b"]},
                    "minItems": r.randrange(4)}
        if r.random() < 0.5:
            s["minItems"] = r.randrange(4)
        if r.random() < 0.5:
            s["maxItems"] = s.get("minItems", 0) + r.randrange(4)
        return s

    def union(self, depth):
        r = self.rng
        s = {"anyOf": [self.any(depth - 1) for _ in range(1 + r.randrange(3))]}
        if r.random() < 0.2:
            s["type"] = r.sample(["object", "string", "integer", "array", "null", "number"], 4)
        return s

    def one(self, depth):
        r = self.rng
        if r.random() < 0.5:
            return {"oneOf": [{"type": "string"}, self.integer(0), {"type": ["null", "boolean"]}]}
        if r.random() < 0.5:  # as pydantic writes a field with a default
            return {"discriminator": {"propertyName": "kind"}, "oneOf": [
                {"type": "object", "properties": {"v": self.any(depth - 1), "kind": {"const": k, "default": k}}}
                for k in ("p", "q", "r")]}
        return {"oneOf": [{"type": "object", "properties": {"kind": {"const": k}, "v": self.any(depth - 1)},
                           "required": ["kind"]} for k in ("p", "q")]}

    def merged(self, depth):
        a, b = self.object(depth - 1), self.object(depth - 1)
        for s in (a, b):
            s.pop("additionalProperties", None)
        s = {"allOf": [a, b]}
        if self.rng.random() < 0.5:
            s["properties"] = {"a": {}, "zz": {"type": "integer"}}
            s["anyOf"] = [{"required": ["zz"]}, {"required": ["a"]}]
        return s

    def ref(self, depth):
        return {"$ref": "#/$defs/d%d" % self.rng.randrange(self.n_defs)}


def sample(lines, *options):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([GSAMPLE, *options], input=text.encode(), capture_output=True, timeout=600,
                          check=False)
    if done.returncode:
        raise AssertionError("gsample: %d %s" % (done.returncode, done.stderr.decode()))
    return [json.loads(line) for line in done.stdout.decode().split("\n") if line]


class Schemas(unittest.TestCase):
    def setUp(self):
        if jsonschema is None:
            self.skipTest("python3-jsonschema is not installed")

    def check(self, count, *options):
        rng = random.Random(SEED)
        schemas = [Maker(rng).schema() for _ in range(count)]
        made = refused = 0
        checker = format_checker()
        for schema, got in zip(schemas, sample(schemas, *options), strict=True):
            if "error" in got:
                # Contradictions of merged schemas, and alternatives that random ones can't keep apart.
                self.assertRegex(got["error"], r"can never end|not supported|may be of both|several schemas|"
                                               r"no end after|"  # a sampler that never finds the one letter wanted
                                               r"only whole",
                                 "%s (seed %d)" % (json.dumps(schema), SEED))
                refused += 1
                continue
            validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
            for text in got["texts"]:
                made += 1
                try:
                    validator.validate(json.loads(text))
                except (ValueError, jsonschema.ValidationError) as e:
                    self.fail("seed %d\nschema %s\ntext %s\n%s" % (SEED, json.dumps(schema), text,
                                                                  str(e)[:400]))
        self.assertLess(refused, count / 4)
        self.assertGreater(made, count)

    def test_random_schemas_by_bytes(self):
        self.check(40 if SANITIZED else 150, "-n", "4")

    def test_random_schemas_by_tokens(self):
        self.check(10 if SANITIZED else 40, "-n", "3", "-t", MODEL)


class Keywords(unittest.TestCase):
    """What is refused, and that it is named with its path."""

    def test_errors(self):
        cases = [
            ({"type": "object", "properties": {"a": {"type": "array", "contains": {}}}},
             "#/properties/a/contains: this keyword is not supported"),
            ({"not": {}}, "can never end"),
            ({"not": {"const": 1}}, "#/not: only types are supported here"),
            ({"if": {}}, "#/if: this keyword"),
            ({"patternProperties": {"(?<=a)b": {}}}, "#/patternProperties/(?<=a)b: a group of another kind"),
            ({"allOf": [{"patternProperties": {"a": {}}}, {"patternProperties": {"b": {}}}]},
             "#/allOf/1/patternProperties: patternProperties of several schemas"),
            ({"allOf": [{"patternProperties": {"a": {}}}, {"additionalProperties": False}]},
             "/additionalProperties: beside another schema's patternProperties"),
            ({"type": "array", "items": {"type": "array", "uniqueItems": True}}, "#/items/uniqueItems"),
            ({"properties": {"a/b~c": {"minProperties": 2, "type": "object"}}}, "#/properties/a~1b~0c/minProperties"),
            ({"properties": {"a": {"type": "integer", "multipleOf": 0.3}}}, "#/properties/a/multipleOf: only whole"),
            ({"type": "text"}, "#/type: an unknown type"),
            ({"type": "string", "format": "regex"}, "#/format: this format is not supported"),
            ({"type": "string", "pattern": "a(?=b)"}, "#/pattern: a group of another kind"),
            ({"type": "string", "pattern": "(a)\\1"}, "#/pattern: a back reference"),
            ({"type": "string", "pattern": "\\bword"}, "#/pattern: a word border"),
            ({"type": "string", "pattern": "^((a|b)*a(a|b){18})$", "maxLength": 999}, "#/pattern: what holds here together"),
            ({"$ref": "#/$defs/x"}, "#/$ref: refers to nothing"),
            ({"$ref": "https://example.org/x"}, "#/$ref: only references within"),
            ({"$ref": "#"}, "#/$ref: references go in circles"),
            ({"anyOf": [{"$ref": "#"}]}, "#/anyOf/0/$ref: references go in circles"),
            ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "#/oneOf: something may be of both 0 and 1"),
            ({"minItems": -1}, "#/minItems: not a whole number"),
            ({"items": 5}, "a schema is an object, true or false"),
            ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "can never end"),
            (False, "# can never end"),
            ({"type": "object", "required": ["a"], "properties": {"a": {
                "type": "array", "minItems": 1, "items": {"allOf": [{"type": "string"}, {"type": "integer"}]}}}},
             "#/properties/a/items can never end"),
            ({"type": "object", "properties": {"s": {"$ref": "#"}}, "required": ["s"]}, "can never end"),
        ]
        for (schema, message), got in zip(cases, sample([c[0] for c in cases]), strict=True):
            self.assertIn("error", got, schema)
            self.assertIn(message, got["error"])

    def test_exact_languages(self):
        """Small languages, all of whose texts turn up."""
        cases = [
            ({"type": "integer", "minimum": -2, "maximum": 11}, {str(i) for i in range(-2, 12)}),
            ({"type": "integer", "exclusiveMinimum": 98, "exclusiveMaximum": 102}, {"99", "100", "101"}),
            ({"type": "integer", "minimum": 0.5, "maximum": 2.5}, {"1", "2"}),
            ({"type": "number", "minimum": 0.25, "maximum": 0.5, "multipleOf": 0.125}, {"0.25", "0.375", "0.5"}),
            ({"type": "integer", "multipleOf": 30, "exclusiveMinimum": -60, "maximum": 90},
             {"-30", "0", "30", "60", "90"}),
            ({"type": "string", "pattern": "^(?=.*b)[ab]+$", "maxLength": 2}, {'"b"', '"ab"', '"ba"', '"bb"'}),
            ({"type": "string", "pattern": "^(?!a|.*c$)[a-c]{2}$"}, {'"ba"', '"bb"', '"ca"', '"cb"'}),
            ({"type": "string", "pattern": "^a*$", "maxLength": 2, "enum": ["b", "aa", "aaa", ""]}, {'"aa"', '""'}),
            ({"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True, "minItems": 2},
             {"[1,2]", "[2,1]"}),
            ({"enum": ["a", 1, None]}, {'"a"', "1", "null"}),
            ({"type": ["boolean", "null"]}, {"true", "false", "null"}),
            ({"type": "string", "pattern": "^(a|bc?)$"}, {'"a"', '"b"', '"bc"'}),
            ({"type": "string", "pattern": "^[\\n\"\\\\A]$"}, {'"\\n"', '"\\""', '"\\\\"', '"A"'}),
            ({"const": {"k": [1, "\u00e9"]}}, {'{"k": [1, "\u00e9"]}', '{"k":[1,"\u00e9"]}'}),
        ]
        for (schema, texts), got in zip(cases, sample([c[0] for c in cases], "-n", "300"), strict=True):
            found = set(re.sub(r"(?<=[\[,])\s+|\s+(?=\])", "", t) if t[0] == "[" else t for t in got["texts"])
            if "const" in schema:
                self.assertEqual(len(found), 1)
                self.assertLessEqual(found, texts)
            else:
                self.assertEqual(found, texts)


def run(*args):
    done = subprocess.run([BIN, *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=300,
                          check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Model(unittest.TestCase):
    SCHEMA = {"type": "object", "properties": {
        "word": {"type": "string", "maxLength": 20}, "score": {"type": "integer", "minimum": 0, "maximum": 10},
        "tags": {"type": "array", "items": {"enum": ["noun", "verb"]}, "maxItems": 2},
        "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["word", "score", "tags"], "additionalProperties": False}

    def ask(self, *args):
        return run("run", "-m", MODEL, "-p", "What is a lighthouse?", "-n", "400", *args)

    def test_schema_at_all_temperatures(self):
        for temp, seed in (("0", "1"), ("0.8", "2"), ("2", "3"), ("2", "4"), ("100", "5")):
            code, out, err = self.ask("--json-schema", json.dumps(self.SCHEMA), "--temp", temp, "-s", seed,
                                      "--top-k", "0", "--top-p", "1", "--min-p", "0")
            if "stop: eos" in err: # not cut by -n
                self.assertEqual(code, 0, err)
                value = json.loads(out)
                self.assertLessEqual({"word", "score", "tags"}, set(value))
                if jsonschema:
                    jsonschema.Draft202012Validator(self.SCHEMA).validate(value)
            else:
                self.assertEqual(temp, "100") # noise alone may nest without end
                self.assertEqual(code, 1, err)
                self.assertIn("incomplete", err)

    def test_cut_off(self):
        code, out, err = run("run", "-m", MODEL, "-p", "hi", "-n", "3", "-j", "{}", "--temp", "2", "-s", "3")
        with self.assertRaises(ValueError):
            json.loads(out)
        self.assertEqual(code, 1, err)
        self.assertIn("incomplete", err)

    def test_same_seed_same_bytes(self):
        args = ("-j", json.dumps(self.SCHEMA), "--temp", "1", "-s", "9")
        self.assertEqual(self.ask(*args)[1], self.ask(*args, "-t", "1")[1])

    def test_grammar_text_and_files(self):
        grammar = 'root ::= "yes" | "no"\n'
        with tempfile.NamedTemporaryFile("w", suffix=".gbnf") as f, \
                tempfile.NamedTemporaryFile("w", suffix=".json") as g:
            f.write(grammar)
            f.flush()
            g.write('{"enum": ["yes", "no"]}')
            g.flush()
            for args in (("--grammar", grammar), ("--grammar", f.name), ("--grammar-file", f.name)):
                code, out, err = self.ask(*args, "--temp", "2", "-s", "1")
                self.assertEqual(code, 0, err)
                self.assertIn(out, ("yes\n", "no\n"))
            for args in (("-jf", g.name), ("--json-schema", g.name), ("--json-schema-file", g.name)):
                code, out, err = self.ask(*args)
                self.assertEqual(code, 0, err)
                self.assertIn(out, ('"yes"\n', '"no"\n'))

    def test_greedy_is_forced(self):
        _, free, _ = self.ask("--temp", "0")
        code, out, err = self.ask("--temp", "0", "--grammar", 'root ::= "Zebra " [0-9]{3} "!"')
        self.assertEqual(code, 0, err)
        self.assertRegex(out, r"\AZebra [0-9]{3}!\n\Z")
        self.assertNotEqual(free, out)

    def test_bias_within_the_grammar(self):
        # 'a' and 'b' are tokens of one byte; a bias picks between what the grammar leaves.
        done = run("tokenize", "-m", MODEL, "-p", "q")
        q = done[1].split()
        self.assertEqual(len(q), 1)
        for bias, want in (("+100", "q"), ("-inf", "z")):
            code, out, err = self.ask("--grammar", 'root ::= "q" | "z"', "-l", q[0] + bias, "-s", "1")
            self.assertEqual((code, out), (0, want + "\n"), err)

    def test_nothing_allowed(self):
        q = run("tokenize", "-m", MODEL, "-p", "q")[1].split()[0]
        code, out, err = self.ask("--grammar", 'root ::= "q"', "-l", q + "-inf", "-s", "1")
        self.assertEqual(code, 1)
        self.assertIn("no token that the grammar allows can be drawn", err)

    def test_ignore_eos_goes_on_while_it_can(self):
        # Wherever it is cut off, this grammar allows an end.
        code, out, err = self.ask("--grammar", 'root ::= [ab]*', "--ignore-eos", "-n", "30", "-s", "1")
        self.assertEqual(code, 0, err)
        self.assertIn("stop: length", err)
        self.assertEqual(out.strip().strip("ab"), "")
        self.assertGreaterEqual(len(out.strip()), 30)
        code, out, err = self.ask("--grammar", 'root ::= "ab"{3}', "--ignore-eos", "-s", "1")
        self.assertEqual((code, out), (0, "ababab\n"), err)
        self.assertIn("stop: eos", err)

    def test_usage(self):
        for args, message in (
                (("--grammar", 'root ::= "a'), "line 1, column 10: the literal that begins here isn't closed"),
                (("--grammar", "a ::= a b"), "the rule b is not defined"),
                (("-j", "{"), "JSON schema"),
                (("-j", '{"if":{}}'), "#/if: this keyword is not supported"),
                (("-j", "{}", "--grammar", 'root ::= "a"'), "only one of")):
            code, out, err = self.ask(*args)
            self.assertEqual((code, out), (2, ""), err)
            self.assertIn(message, err)
        code, _, err = self.ask("--grammar-file", "/nowhere/x.gbnf")
        self.assertEqual(code, 1)
        self.assertIn("cannot read /nowhere/x.gbnf", err)

    def test_chat(self):
        done = subprocess.run([BIN, "chat", "-m", MODEL, "--jsonl", "--grammar", 'root ::= "<" [a-z ]{1,9} ">"',
                               "-s", "1"], input=b'"hello"\n"again"\n', capture_output=True, timeout=300,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        for line in done.stdout.decode().splitlines():
            self.assertRegex(json.loads(line)["text"], r"\A<[a-z ]{1,9}>\Z")

    def test_memory(self):
        code, _, err = run("run", "-m", MODEL, "-p", "Hello", "-j", "{}", "-n", "20", "--json", "--memory",
                           "64M", "-s", "1")
        self.assertIn(code, (0, 1), err) # cut off, maybe


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[-1] == "Model" and not os.path.isfile(BIN):
        sys.exit(77)
    if sys.argv[-1] == "Schemas" and jsonschema is None:
        print("skipped: python3-jsonschema is not installed")
        sys.exit(77)
    unittest.main()
