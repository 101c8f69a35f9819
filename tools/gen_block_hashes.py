#!/usr/bin/env python3
"""Writes tests/data/ggml_block_hashes.inc: hashes of what the gguf package decodes from seeded random
blocks of each type. tests/unit/test_ggml_blocks.c makes the same blocks and must get the same hashes.

Usage: gen_block_hashes.py [OUT]     (needs the Python packages gguf and numpy)
"""
import sys

import gguf
import gguf.quants
import numpy as np

N_BLOCKS = 24
MASK = (1 << 64) - 1
# Type number, name in gguf, elements, bytes, offsets of the high bytes of half floats.
TYPES = (
    (2, "Q4_0", 32, 18, (1,)), (3, "Q4_1", 32, 20, (1, 3)), (6, "Q5_0", 32, 22, (1,)),
    (7, "Q5_1", 32, 24, (1, 3)), (8, "Q8_0", 32, 34, (1,)), (10, "Q2_K", 256, 84, (81, 83)),
    (11, "Q3_K", 256, 110, (109,)), (12, "Q4_K", 256, 144, (1, 3)),
    (13, "Q5_K", 256, 176, (1, 3)), (14, "Q6_K", 256, 210, (209,)),
    (16, "IQ2_XXS", 256, 66, (1,)), (17, "IQ2_XS", 256, 74, (1,)), (18, "IQ3_XXS", 256, 98, (1,)),
    (19, "IQ1_S", 256, 50, (1,)), (20, "IQ4_NL", 32, 18, (1,)), (21, "IQ3_S", 256, 110, (1,)),
    (22, "IQ2_S", 256, 82, (1,)), (23, "IQ4_XS", 256, 136, (1,)), (29, "IQ1_M", 256, 56, (55,)),
    (34, "TQ1_0", 256, 54, (53,)), (35, "TQ2_0", 256, 66, (65,)), (39, "MXFP4", 32, 17, ()),
    (40, "NVFP4", 64, 36, ()), (41, "Q1_0", 128, 18, (1,)), (42, "Q2_0", 64, 18, (1,)),
)


def random_bytes(seed, n):
    """The high bytes of SplitMix64's numbers."""
    out, state = bytearray(), seed
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out.append((z ^ (z >> 31)) >> 56)
    return out


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def decode(name, blocks):
    """What the package has no decoder for is two lines."""
    if name in ("Q1_0", "Q2_0"):
        d = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
        bits = 1 if name == "Q1_0" else 2
        codes = blocks[:, 2:, None] >> (bits * np.arange(8 // bits, dtype=np.uint8))
        codes = (codes & (2 ** bits - 1)).reshape(len(blocks), -1).astype(np.float32)
        return (2 * codes - 1) * d if bits == 1 else (codes - 1) * d
    return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name])


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/data/ggml_block_hashes.inc"
    with open(out, "w") as f:
        f.write("/* Written by tools/gen_block_hashes.py with version %s of the gguf package; don't edit. */\n"
                % gguf.__dict__.get("__version__", "0.19.0"))
        for number, name, n_elements, n_bytes, halves in TYPES:
            raw = np.frombuffer(bytes(random_bytes(number, N_BLOCKS * n_bytes)), dtype=np.uint8)
            blocks = raw.reshape(N_BLOCKS, n_bytes).copy()
            for at in halves:
                blocks[:, at] &= 0xBF  # exponents below 16: neither infinity nor NaN
            values = np.ascontiguousarray(decode(name, blocks), dtype="<f4")
            assert values.size == N_BLOCKS * n_elements
            assert not np.isnan(values).any()
            at = list(halves) + [-1] * (2 - len(halves))
            f.write('{%d, "%s", {%d, %d}, 0x%016xu},\n'
                    % (number, name, at[0], at[1], fnv1a(values.tobytes())))


if __name__ == "__main__":
    main()
