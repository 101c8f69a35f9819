#!/usr/bin/env python3
"""Lets llama.cpp load what `moeflux synth` writes: every architecture's tiny shape, in two types.

    peer/bin/python tools/synth_compare.py --bin build/moeflux

llama.cpp continues a prompt greedily from each file, and moeflux, given the same tokens with float activations,
says how often it would have chosen the same one, and the widest gap between its best logit and the peer's choice.
Random weights have logits close together, so that is for the record; what counts is that both read the file.
Needs the peer of llama_compare.py.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

import llama_compare
from llama_compare import Peer, benchlib, moeflux_logits

PROMPT, N_PREDICT = list(range(40, 72)), 16


def architectures(binary):
    """Those that the help names."""
    text = subprocess.run([binary, "synth", "--help"], check=True, capture_output=True, text=True).stdout
    block = re.search(r"ARCH and NAME: (.*?)tiny of each", " ".join(text.split())).group(1)
    return re.findall(r"(?:^|; )([a-z0-9_]+_[a-z0-9_]+|[a-z]+[a-z0-9]*) [^;]*", block.replace("; and", ";"))


def check(binary, path, arch, kind, work):
    subprocess.run([binary, "synth", "--arch", arch, "--shape", "tiny", "--quant", kind, "-o", path, "--no-progress"],
                   check=True)
    result = {"arch": arch, "quant": kind, "bytes": os.path.getsize(path)}
    peer = Peer(path)
    try:
        reply = peer.ask(prompt=PROMPT, max_tokens=N_PREDICT, temperature=0, logprobs=1, ignore_eos=True)
    except (BrokenPipeError, json.JSONDecodeError):
        reply = {"error": "it didn't load"}
    peer.close()
    result["llama_cpp"] = reply.get("error", "loads")
    if "error" in reply:
        return result
    new = [t["id"] for t in reply["choices"][0]["logprobs"]["content"]]
    result["tokens"] = len(new)
    try:
        logits = moeflux_logits(binary, path, PROMPT + new, work, "f32")
    except subprocess.CalledProcessError:
        result["moeflux"] = "doesn't run this family"
        return result
    rows = logits[len(PROMPT) - 1:-1]
    result["same_choice"] = sum(int(row.argmax()) == token for row, token in zip(rows, new))
    result["widest_gap"] = round(max(float(row.max() - row[token]) for row, token in zip(rows, new)), 4)
    return result


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--peer":
        return llama_compare.peer_main(sys.argv[2])
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchlib.add_arguments(ap, "synth-llama.json")
    args = ap.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as work:
        for arch in architectures(args.bin):
            for kind in ("q4_k", "mxfp4"):
                path = os.path.join(work, "m.gguf")
                runs.append(check(args.bin, path, arch, kind, work))
                print(json.dumps(runs[-1]), flush=True)
                os.unlink(path)
    benchlib.record(args, "synthetic models in llama.cpp",
                    f"tiny shapes; a prompt of {len(PROMPT)} tokens, {N_PREDICT} greedy ones, judged by moeflux",
                    peer=llama_compare.peer_name(), runs=runs)
    return int(any(r["llama_cpp"] != "loads" for r in runs))


if __name__ == "__main__":
    sys.exit(main())
