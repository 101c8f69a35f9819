#!/usr/bin/env python3
"""Writes tests/data/tokenizers.jsonl: small tokenizers of many kinds, texts, and what Hugging Face's tokenizers
make of them. A line: {"tokenizer": {...}, "cases": [[text, ids, ids with special tokens, decoded], ...]}. Decoded
is null where the library shows an added token as its normaliser leaves it: moeflux shows what the file says.

Needs the PyPI package tokenizers (0.23.3 was used). The vocabularies are trained here, on text made here.

    python3 tools/gen_tokenizers.py > tests/data/tokenizers.jsonl
"""
import base64
import json
import random
import struct
import sys

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers import decoders as D, models as M, normalizers as N, pre_tokenizers as P, processors as PP
from tokenizers import trainers as T

R = random.Random(5)
WORDS = "the of and to in is that it was for on are as with his they at be this from have or by one had".split()
ODD = ["é", "ß", "İ", "ﬁ", "Å", "e\u0301", "한", "각", "日本", "😀👍🏽", "\u3000", "\u00a0", "\t", "\n", "\r\n", "▁", "▁▁", "½",
       "①", "ａ", "ö̲", "क्ष", "\u200b", "\u0000", "A\u030a\u0323", "\u1100\u1161\u11a8", "\uac00\u11a7", "ﬁ\ufb02", "K", "…", "12",
       "3 4", "__a", "$x", "<s>", "</s>", "<unk>", "<0x0A>", "[LS]", "[RS]", "[SW]", "[N]", "  ", "   ", "\u0301", "ς", "Σ"]


def text():
    out = []
    for _ in range(R.randint(0, 8)):
        w = R.choice(WORDS)
        out.append(R.choice([w, w, w, w.upper(), w.title()]) if R.random() < .55 else R.choice(ODD))
        out.append(" " if R.random() < .6 else "")
    return "".join(out)


def charsmap(pairs):
    """SentencePiece's blob: a double array in Darts-clone's units, and the replacements."""
    pool, trie = b"", {}
    for key, value in pairs:
        node = trie
        for b in key.encode():
            node = node.setdefault(b, {})
        node[-1] = len(pool)
        pool += value.encode() + b"\0"
    units, used = [0] * 2048, {0}

    def place(node, at):
        keys = sorted(k for k in node if k != -1)
        for offset in range(1, 1 << 21):
            slots = [at ^ offset ^ k for k in keys] + ([at ^ offset] if -1 in node else [])
            if all(0 < s < len(units) and s not in used for s in slots):
                break
        used.update(slots)
        units[at] |= offset << 10 | (1 << 8 if -1 in node else 0)
        if -1 in node:
            units[at ^ offset] = 1 << 31 | node[-1]
        for k in keys:
            units[at ^ offset ^ k] = k
        for k in keys:
            place(node[k], at ^ offset ^ k)

    place(trie, 0)
    while units[-1] == 0:
        units.pop()
    units += [0] * (-len(units) % 256)
    blob = struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + pool
    return base64.b64encode(blob).decode()


MAP = charsmap([("ﬁ", "fi"), ("\t", " "), ("\u3000", " "), ("①", "1"), ("e\u0301", "é"), ("\u200b", ""), ("ａ", "a"), ("½", "1/2"),
                ("A\u030a", "Å"), ("A", "a"), ("क", "k")])
precompiled = N.Sequence([N.Replace("x", "x")])  # a place for what can't be made from Python
CORPUS = [text().replace("\0", "") for _ in range(300)]
NORMALIZERS = {
    "none": None,
    "prepend": N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")]),
    "nfkc": N.Sequence([N.NFKC(), N.Replace(" ", "▁")]),
    "nfd": N.Sequence([N.NFD(), N.StripAccents(), N.Lowercase()]),
    "nfkd": N.Sequence([N.NFKD(), N.Strip(True, True), N.Replace(Regex(" {2,}"), "▁")]),
    "nfc": N.Sequence([N.NFC(), N.Lowercase(), N.Strip(False, True)]),
    "map": N.Sequence([precompiled, N.Strip(False, True), N.Replace(Regex(" {2,}"), "▁")]),
}
PRE = {
    "none": None,
    "always": P.Metaspace("▁", "always", True),
    "first": P.Metaspace("▁", "first", True),
    "never": P.Metaspace("▁", "never", True),
    "first whole": P.Metaspace("▁", "first", False),
    "words": P.Sequence([P.Whitespace(), P.Digits(True)]),
    "white": P.Sequence([P.WhitespaceSplit(), P.Metaspace("▁", "always", False)]),
    "marks": P.Sequence([P.Punctuation("isolated"), P.Split(" ", "merged_with_previous")]),
    "marks together": P.Punctuation("contiguous"),
    "character": P.CharDelimiterSplit("e"),
}
SPM_STEPS = [D.Replace("▁", " "), D.ByteFallback(), D.Fuse()]
DECODERS = [D.Sequence(SPM_STEPS + [D.Strip(" ", 1, 0)]), D.Sequence(SPM_STEPS)]
TEMPLATE = PP.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])


def make(kind, norm, pre):
    byte_fallback, fuse = R.random() < .6, R.random() < .5
    special = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if byte_fallback else [])
    if kind == "BPE":
        unk = "<unk>" if R.random() < .8 else None
        t = Tokenizer(M.BPE(unk_token=unk, byte_fallback=byte_fallback, fuse_unk=fuse))
        trainer = T.BpeTrainer(vocab_size=len(special) + 120, special_tokens=special, limit_alphabet=60, show_progress=False)
    else:
        t = Tokenizer(M.Unigram())
        trainer = T.UnigramTrainer(vocab_size=len(special) + 160, special_tokens=special, unk_token="<unk>", show_progress=False)
    if NORMALIZERS[norm]:
        t.normalizer = NORMALIZERS[norm]
    if PRE[pre]:
        t.pre_tokenizer = PRE[pre]
    t.train_from_iterator(CORPUS, trainer)
    if R.random() < .5:
        t.post_processor = TEMPLATE
    t.decoder = R.choice(DECODERS)
    t.add_tokens([AddedToken("[LS]", lstrip=True, normalized=R.random() < .5),
                  AddedToken("[RS]", rstrip=True, normalized=R.random() < .5),
                  AddedToken("[SW]", single_word=True, normalized=R.random() < .5), AddedToken("[N]", normalized=True)])
    node = json.loads(t.to_str())
    if kind == "Unigram":
        node["model"]["byte_fallback"] = byte_fallback
    elif R.random() < .3:
        node["model"]["ignore_merges"] = True
    if norm == "map":
        node["normalizer"]["normalizers"][0] = {"type": "Precompiled", "precompiled_charsmap": MAP}
    return node


def main():
    combos = [(k, n, p) for k in ("BPE", "Unigram") for n in NORMALIZERS for p in PRE]
    R.shuffle(combos)
    texts = ["", " ", "a", " a", "a ", "▁"] + [text() for _ in range(34)]
    n = 0
    for combo in combos:
        try:
            node = make(*combo)
        except Exception:  # this text has more characters than the vocabulary has room for
            continue
        t = Tokenizer.from_str(json.dumps(node))
        named = {a["id"]: a["content"] for a in node["added_tokens"]}
        cases = []
        for x in texts:
            ids = t.encode(x, add_special_tokens=False).ids
            shown = all(t.id_to_token(i) == named.get(i, t.id_to_token(i)) for i in ids)
            decoded = t.decode(ids, skip_special_tokens=False) if shown else None
            cases.append([x, ids, t.encode(x).ids, decoded])
        print(json.dumps({"tokenizer": node, "cases": cases}, ensure_ascii=False, separators=(",", ":")))
        n += 1
        if n == 20:
            break
    print(n, "tokenizers", file=sys.stderr)


main()
