#!/usr/bin/env python3
"""Holds `moeflux template` against jinja2 with random templates.

    python3 tools/template_diff.py build/moeflux [--n 2000] [--seed 1]

Needs jinja2 (3.1.6 was used), set up as in Hugging Face transformers. Where jinja2 gives a text, the text must
be the same; where it fails, rendering must fail, too. What moeflux refuses by name ("is not supported", a limit)
is counted apart. Expressions are grown from values of every type, filters, methods, tests and operators;
statements nest loops, macros, sets and blocks with random white space.
"""
import argparse
import collections
import datetime
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings

import jinja2
import jinja2.ext
import jinja2.sandbox

VARS = {
    "messages": [{"role": "user", "content": "Hi <b> & 'you'\n", "n": 3}, {"role": "assistant", "content": None},
                 {"role": "tool", "content": [{"type": "text", "text": "caf\u00e9 \U0001f600 x"}]}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"b": 1, "A": [1.5, None, True]}}}],
    "s": "Hello, W\u00f6rld", "e": "", "w": "  a b\t c \n", "q": "it's \"q\" \\ \x01", "n": 7, "m": -3, "z": 0,
    "f": 2.5, "g": 1e22, "t": True, "u": False, "nul": None, "d": {"b": 2, "a": "x", "C": [1]}, "l": [3, 1, 2],
    "names": ["b", "A", "c", "a"], "mixed": [1, "1", None, 1.0, [1], {"k": 1}], "empty": [], "nothing": {},
    "lines": "one\n\n two\r\nthree", "num": "42", "flt": " 1.50 ", "now_": "x",
}
NOW = "2025-03-09T14:05:07"


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def strftime_now(form):
        return datetime.datetime.fromisoformat(NOW).strftime(form)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


class Grower:
    def __init__(self, rng):
        self.r = rng
        self.names = list(VARS) + ["undef", "x", "y"]

    def pick(self, *choices):
        return self.r.choice(choices)

    def string(self):
        return self.pick("'a'", "'b c'", '"x"', "''", "' '", "'%s'", "'\\n'", "'A,b'", "'\u00e9'", "', '", "'l'", "'role'",
                         "'<x>'", "'1'", "'content'", "'ß\u0130'")

    def number(self):
        return self.pick("0", "1", "2", "-1", "3", "10", "1.5", "0.1", "-2.5", "1e3", "100", "1_0", "5", "0x1f")

    def literal(self):
        return self.pick(self.string, self.number, lambda: self.pick("true", "false", "none", "True", "None"))()

    def atom(self, depth):
        kind = self.r.random()
        if kind < .5:
            return self.r.choice(self.names)
        if kind < .8 or depth <= 0:
            return self.literal()
        items = [self.expr(depth - 1) for _ in range(self.r.randint(0, 3))]
        if kind < .88:
            return "[" + ", ".join(items) + "]"
        if kind < .93:
            return "(" + ", ".join(items) + ("," if len(items) == 1 else "") + ")"
        return "{" + ", ".join(self.literal() + ": " + i for i in items) + "}"

    def filter(self, depth):
        a = lambda: self.expr(depth - 1)
        s, n = self.string, lambda: self.r.choice(("0", "1", "2", "3", "-1"))
        return self.r.choice((
            "abs", "capitalize", "count", "d", "default(%s)" % a(), "default(%s, true)" % a(), "dictsort",
            "dictsort(true)", "dictsort(by='value')", "dictsort(false, 'key', true)", "e", "escape", "first",
            "float", "float(%s)" % a(), "forceescape", "groupby('role')|list", "groupby(0)", "indent", "indent(2)",
            "indent(%s)" % s(), "indent(2, true)", "indent(width=3, blank=true)", "int", "int(%s)" % a(), "int(0, 16)",
            "items|list", "join", "join(%s)" % s(), "join(',', attribute='role')", "last", "length", "list", "lower",
            "map('upper')|list", "map(attribute='role')|list", "map(attribute='role', default=%s)|list" % s(),
            "map('default', %s)|join('|')" % s(), "max", "min", "reject('none')|list", "select('string')|list",
            "select|list", "reject|list", "select('in', %s)|list" % a(), "rejectattr('content')|list",
            "selectattr('role', 'equalto', 'user')|list", "selectattr('content', 'defined')|list|length",
            "map('tojson')|list", "replace(%s, %s)" % (s(), s()), "replace(%s, %s, 1)" % (s(), s()), "reverse|list",
            "reverse", "round", "round(1)", "round(0, 'floor')", "round(-1)", "round(1, 'ceil')", "safe", "sort",
            "sort(reverse=true)", "sort(case_sensitive=true)", "sort(attribute='role')", "string", "sum",
            "sum(start=%s)" % n(), "title", "tojson", "tojson(indent=2)", "tojson(ensure_ascii=true)",
            "tojson(sort_keys=true)", "tojson(separators=(',', ':'))", "tojson(indent=1, sort_keys=true)",
            "trim", "trim(%s)" % s(), "truncate(5)", "truncate(5, true, '')", "truncate(4, leeway=0)", "unique|list",
            "unique(true)|list", "upper", "urlencode", "wordcount", "batch(2)|list", "batch(2, %s)|list" % a(),
            "slice(2)|list", "slice(2, %s)|list" % a(), "center(9)", "format(%s)" % a(), "attr('upper')", "items",
            "list|length", "map('length')|sum", "string|length", "first|upper", "list|tojson", "map(attribute='n')|list",
        ))

    def test(self, depth):
        a = self.expr(depth - 1)
        return self.r.choice((
            "defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "number", "string", "mapping",
            "iterable", "sequence", "callable", "escaped", "odd", "even", "divisibleby 2", "divisibleby(3)", "lower",
            "upper", "in(%s)" % a, "eq(%s)" % a, "ne(%s)" % a, "gt(%s)" % a, "le(%s)" % a, "lessthan 3",
            "in [1, 'a', none]", "equalto 'a'", "sameas none", "sameas true",
        ))

    def method(self, depth):
        s, n = self.string, lambda: self.r.choice(("0", "1", "2", "-1", "5", "none"))
        return self.r.choice((
            "strip()", "strip(%s)" % s(), "lstrip()", "rstrip(%s)" % s(), "split()", "split(%s)" % s(),
            "split(%s, 1)" % s(), "rsplit(%s, 1)" % s(), "rsplit(none, 1)", "split(none, 1)", "rsplit()", "splitlines()",
            "splitlines(true)", "upper()", "lower()", "title()", "capitalize()", "swapcase()", "startswith(%s)" % s(),
            "endswith(%s)" % s(), "startswith((%s, %s))" % (s(), s()), "startswith(%s, 1)" % s(), "find(%s)" % s(),
            "rfind(%s)" % s(), "index(%s)" % s(), "count(%s)" % s(), "find(%s, %s, %s)" % (s(), n(), n()),
            "replace(%s, %s)" % (s(), s()), "replace(%s, %s, 1)" % (s(), s()), "join(%s)" % self.expr(depth - 1),
            "isdigit()", "isalpha()", "isalnum()", "isspace()", "isupper()", "islower()", "istitle()", "isnumeric()",
            "center(8)", "center(7, '*')", "ljust(6)", "rjust(6, '.')", "zfill(5)", "partition(%s)" % s(),
            "rpartition(%s)" % s(), "removeprefix(%s)" % s(), "removesuffix(%s)" % s(), "format(%s)" % self.expr(depth - 1),
            "items()", "items()|list", "keys()|list", "values()", "keys()", "get('a')", "get(%s, %s)" % (s(), s()),
            "get('role')", "copy()", "index(1)", "count(1)", "0", "1", "role", "content", "a", "missing", "b.c",
        ))

    def expr(self, depth):
        if depth <= 0:
            return self.atom(0)
        e = lambda: self.expr(depth - 1)
        kind = self.r.random()
        if kind < .12:
            return self.atom(depth)
        if kind < .34:
            return "%s|%s" % (self.wrap(e()), self.filter(depth))
        if kind < .5:
            return "%s.%s" % (self.wrap(e()), self.method(depth))
        if kind < .58:
            return "%s is %s%s" % (self.wrap(e()), self.pick("", "not "), self.test(depth))
        if kind < .74:
            op = self.pick("+", "-", "*", "/", "//", "%", "**", "~", "~", "+", "and", "or", "%")
            return "%s %s %s" % (self.maybe(e()), op, self.maybe(e()))
        if kind < .82:
            op = self.pick("==", "!=", "<", "<=", ">", ">=", "in", "not in")
            return "%s %s %s" % (self.maybe(e()), op, self.maybe(e()))
        if kind < .84:
            return "%s < %s <= %s" % (self.wrap(e()), self.wrap(e()), self.wrap(e()))
        if kind < .88:
            return "%s[%s]" % (self.wrap(e()), self.maybe(e()))
        if kind < .93:
            bound = lambda: self.pick("", "0", "1", "-1", "2", "-2", "5", "none")
            return "%s[%s:%s%s]" % (self.wrap(e()), bound(), bound(), self.pick("", "", ":", ":-1", ":2", ":-2", ":1"))
        if kind < .96:
            return "%s if %s%s" % (self.maybe(e()), self.maybe(e()), self.pick("", " else " + self.maybe(e())))
        if kind < .98:
            return self.pick("not ", "-", "+") + self.wrap(e())
        return self.pick("range(%s)|list", "dict(a=%s)", "namespace(a=%s).a", "range(1, %s)", "dict(%s)") % e()

    def wrap(self, text):
        return text if text.replace("_", "").isalnum() else "(" + text + ")"

    def maybe(self, text):
        return text if self.r.random() < .4 else self.wrap(text)

    def tag(self, text):
        return "{%" + self.pick("", "", "-", "+") + " " + text + " " + self.pick("", "", "-", "+") + "%}"

    def space(self):
        return self.pick("", "", " ", "\n", "  \n", "\n  ", "x", "a\n", "\t", "{# c #}", "{#- c -#}\n")

    def body(self, depth):
        return "".join(self.space() + self.statement(depth) for _ in range(self.r.randint(1, 3))) + self.space()

    def statement(self, depth):
        kind = self.r.random()
        if depth <= 0 or kind < .35:
            e = self.expr(self.r.randint(1, 2))
            return "{{" + self.pick("", "-") + " " + e + " " + self.pick("", "-") + "}}"
        b = lambda: self.body(depth - 1)
        e = lambda: self.expr(1)
        if kind < .5:
            target = self.pick("x", "y", "x, y", "loop_")
            rest = self.pick("", "", " if " + e(), "")
            inner = self.pick("{{ loop.index }}", "{{ loop.last }}{{ loop.first }}", "{{ loop.revindex0 }}/{{ loop.length }}",
                              "{{ loop.previtem }}{{ loop.nextitem }}", "{{ loop.cycle('a', 'b') }}", "",
                              "{% if loop.index > 2 %}{% break %}{% endif %}", "{% if x %}{% continue %}{% endif %}",
                              "{{ loop.changed(x) }}", "{{ x }}")
            other = self.pick("", self.tag("else") + b())
            return self.tag("for %s in %s%s" % (target, self.pick(e(), "l", "messages", "d", "names", "mixed", "d.items()"), rest)) + \
                inner + b() + other + self.tag("endfor")
        if kind < .65:
            return self.tag("if " + e()) + b() + self.pick("", self.tag("elif " + e()) + b(), self.tag("else") + b()) + \
                self.tag("endif")
        if kind < .75:
            return self.tag("set %s = %s" % (self.pick("x", "y", "s"), e()))
        if kind < .8:
            return self.tag("set %s%s" % (self.pick("x", "y"), self.pick("", " | upper", " | trim | length"))) + b() + \
                self.tag("endset") + "{{ x }}"
        if kind < .87:
            call = self.pick("{{ mm(1) }}", "{{ mm() }}", "{{ mm(y=%s) }}" % e(), "{{ mm(1, 2, 3) }}", "{{ mm(1, k=2) }}")
            return self.tag("macro mm(%s)" % self.pick("x", "x, y=2", "", "x='a', y=x")) + b() + \
                self.pick("", "{{ varargs }}", "{{ kwargs }}", "{{ caller() }}") + self.tag("endmacro") + call
        if kind < .9:
            return self.tag("filter " + self.pick("upper", "trim", "replace('a', 'b')", "title|indent", "length")) + b() + \
                self.tag("endfilter")
        if kind < .93:
            return self.tag("with x = %s, y = x" % e()) + b() + self.tag("endwith")
        if kind < .96:
            return self.tag("set ns = namespace(a=1, b=%s)" % e()) + self.tag("set ns.a = ns.a ~ 'z'") + b() + "{{ ns.a }}{{ ns.c }}"
        return self.tag("macro cc(n)") + "[{{ caller(n) }}]" + self.tag("endmacro") + self.tag("call(x) cc(%s)" % e()) + b() + \
            self.tag("endcall")


def expected(env, source):
    try:
        return env.from_string(source).render(**VARS), None
    except RecursionError:
        raise
    except Exception as e:  # whatever Python says: it failed
        return None, "%s: %s" % (type(e).__name__, e)


def rendered(binary, path, source):
    with open(path, "w", encoding="utf8", newline="") as f:
        f.write(source)
    p = subprocess.run([binary, "template", "--chat-template", path, "--jsonl", "--now", NOW],
                       input=json.dumps(VARS).encode(), capture_output=True)
    if p.returncode == 0:
        return json.loads(p.stdout), None
    if p.returncode not in (1, 3):
        return None, "exit code %d: %s" % (p.returncode, p.stderr.decode()[-2000:])
    return None, p.stderr.decode().strip()


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("binary")
    ap.add_argument("--n", type=int, default=2000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--show", type=int, default=30)
    args = ap.parse_args()
    warnings.simplefilter("ignore")  # of the Python that jinja2 makes
    env = environment()
    count = collections.Counter()
    shown = 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "t.jinja")
        for i in range(args.n):
            grower = Grower(random.Random("%d %d" % (args.seed, i)))
            source = grower.body(2) if i % 2 else "{{ %s }}" % grower.expr(3)
            want, want_error = expected(env, source)
            if want is None and grower.r.random() < .9:  # most fail; a few of these will do
                continue
            if want is not None and " at 0x" in want:
                count["objects"] += 1
                continue
            got, error = rendered(args.binary, path, source)
            if error and ("is not supported" in error or "too " in error):
                count["refused" if want is not None else "failed"] += 1
                if want is None:
                    continue
            elif want is None and error and not error.startswith("exit code"):
                count["failed"] += 1
                continue
            elif want is not None and got == want:
                count["equal"] += 1
                continue
            else:
                count["different"] += 1
            if shown < args.show:
                shown += 1
                print("seed %d %d: %r\n  jinja2:  %r\n  moeflux: %r" % (args.seed, i, source, want if want_error is None else
                                                                       want_error, got if error is None else error))
    print(", ".join("%d %s" % (n, what) for what, n in sorted(count.items())))
    return 1 if count["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
