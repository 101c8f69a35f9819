#!/usr/bin/env python3
"""What a mask costs: processor time of each mask while random texts are written under grammars.

    bench/grammar_masks.py --bin build/tests/gsample --tokenizer FOLDER [--texts 20]

Each mask is timed with the process's processor clock, as other jobs may share the machine. "first"
are the masks of the first text, when nothing is known yet; "later" those of the following texts. The process
stays on one processor.
Random logits make the worst of texts: a model's are far more regular.
"""
import argparse
import json
import os
import subprocess

import benchlib

JSON_GBNF = r'''root ::= value
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
'''
SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["name", "steps", "due"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 80},
        "due": {"type": "string", "format": "date-time"},
        "steps": {"type": "array", "maxItems": 6, "items": {
            "type": "object", "required": ["do", "hours"], "additionalProperties": False,
            "properties": {"do": {"type": "string", "maxLength": 400},
                           "hours": {"type": "integer", "minimum": 0, "maximum": 400},
                           "after": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}}}}}
def text(**how):
    return {"type": "string", **how}


def thing(**members):
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


NESTED = {"type": "array", "minItems": 1, "maxItems": 5, "items": {"type": "array", "maxItems": 4, "items": thing(
    a=text(maxLength=12), b={"type": "array", "maxItems": 3, "items": text(maxLength=30)})}}
KINDS = {"anyOf": [text(maxLength=10), text(pattern="^[a-z]+$"), text(minLength=30, maxLength=100),
                   {"type": "integer"}, {"type": "number"}]}
CASES = [("JSON grammar", True, JSON_GBNF),
         ("any JSON (schema {})", False, {}),
         ("schema with bounded strings", False, SCHEMA),
         ("counted text of 3000 characters", True, "root ::= .{0,3000}"),
         ("minLength and maxLength", False, text(minLength=20, maxLength=60)),
         ("2000 strings to choose from", False,
          {"enum": [f"{'abcdefghij'[i % 10] * (i % 17)}{i * 7919 % 10007}" for i in range(2000)]}),
         ("nested bounded arrays", False, NESTED),
         ("strings of several kinds", False, KINDS),
         ("30 optional keys", False, {"type": "object", "additionalProperties": text(maxLength=40),
                                      "properties": {f"key{i}": text(maxLength=5 + i) for i in range(30)}}),
         ("pattern of names", False, text(pattern="^[A-Z][a-z]{2,20}( [A-Z][a-z]{2,20}){0,5}$")),
         ("pattern beyond ASCII", False, text(pattern="^[\u00e0-\u024f\u0400-\u04ff\u4e00-\u9fff ]{5,200}$")),
         ("pattern \\w{1,40}", False, text(pattern="^\\w{1,40}$")),
         ("lines of 80 characters", True, 'root ::= ([^\\n]{1,80} "\\n"){1,40}'),
         ("words in lines in pages", True, 'root ::= (([a-z]{1,8} " "){1,9} "\\n"){1,30}'),
         ("pattern with lengths", False, {"type": "array", "minItems": 5, "items": text(
             pattern="^[A-Za-z]+( [A-Za-z]+)*$", minLength=3, maxLength=60)}),
         ("addresses", False, {"type": "array", "minItems": 5, "items": {
             "anyOf": [text(format="email"), text(format="uri"), text(format="ipv6")]}}),
         ("ambiguous pairs", True, 'root ::= ([a-z] | [a-z] [a-z])* " " ([a-z] | [a-z] [a-z] | [a-z] [a-z] [a-z])*'),
         ("ambiguous counts", True, "root ::= ([a-z]{1,5} | [a-z]{2,7} | [a-z]{3,9}){1,20}"),
         ("ambiguous tangle", True, 'root ::= (([a-z]?){4} " "?){50} ([a-z]* [a-e]*)*')]
RAW = 150  # times that are kept of a case: its first, and the largest of the later ones


def percentile(values, p):
    return sorted(values)[min(int(len(values) * p), len(values) - 1)]


def summary(values):
    ms = [round(v / 1e6, 4) for v in values]
    return {"masks": len(ms), "median_ms": percentile(ms, 0.5), "p99_ms": percentile(ms, 0.99),
            "max_ms": max(ms)}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "grammar-masks.json")
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--texts", type=int, default=20)
    args = ap.parse_args()
    cases, vocabulary = [], {}
    for name, gbnf, what in CASES:
        command = [args.bin, "-t", args.tokenizer, "-n", str(args.texts), "--time"]
        done = subprocess.run(command + (["--gbnf"] if gbnf else []), input=json.dumps(what) + "\n",
                              capture_output=True, text=True, check=True,
                              preexec_fn=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}))
        vocabulary, result = (json.loads(line) for line in done.stdout.splitlines())
        if "error" in result:
            raise SystemExit(f"{name}: {result['error']}")
        first, later = result["texts"][0], [ns for text in result["texts"][1:] for ns in text]
        cases.append({"case": name, "first": summary(first), "later": summary(later),
                      "first_ns": first[:RAW], "later_largest_ns": sorted(later, reverse=True)[:RAW],
                      "later_above_1_ms": sum(ns > 1e6 for ns in later)})
        print(f"{name}: first {cases[-1]['first']}, later {cases[-1]['later']}")
    benchlib.record(args, "processor time of a token mask", "random logits, one mask a token",
                    tokenizer=os.path.basename(os.path.normpath(args.tokenizer)),
                    vocabulary=vocabulary, cases=cases)


if __name__ == "__main__":
    main()
