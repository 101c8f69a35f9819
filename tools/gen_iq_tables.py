#!/usr/bin/env python3
"""Writes src/quant/ggml_iq_tables.c: the lists of magnitudes that the IQ types of GGUF index.

Usage: gen_iq_tables.py [OUT]     (needs the Python packages gguf and numpy)
"""
import sys

import gguf.quants as q
import numpy as np

HEAD = """/* Written by tools/gen_iq_tables.py; don't edit.
 *
 * The lists that the IQ types of GGUF index: which combinations of 8 (iq1, iq2) or 4 (iq3) levels
 * can be written at all. Each was chosen once, by the type's author, as the points that trained
 * weights need most, and follows from no formula: it is part of the format. An entry is the levels'
 * numbers, of two bits (iq1, iq2) or three, element 0 in the lowest. Constants; any thread. */
#include "quant/ggml_iq_tables.h"
"""


def table(cls, bits):
    cls.init_grid()
    levels = np.array(cls.grid_map, dtype=np.float32)
    grid = np.array(cls.grid, dtype=np.float32).reshape(cls.grid_shape)
    codes = (grid[..., None] == levels).argmax(axis=-1)
    assert (levels[codes] == grid).all()
    return (codes << (bits * np.arange(grid.shape[1]))).sum(axis=1)


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "src/quant/ggml_iq_tables.c"
    with open(out, "w") as f:
        f.write(HEAD)
        for name, cls, bits in (("iq2_xxs", q.IQ2_XXS, 2), ("iq2_xs", q.IQ2_XS, 2),
                                ("iq2_s", q.IQ2_S, 2), ("iq3_xxs", q.IQ3_XXS, 3),
                                ("iq3_s", q.IQ3_S, 3), ("iq1", q.IQ1_S, 2)):
            entries = table(cls, bits)
            f.write(f"\n/* clang-format off */\nconst uint16_t mfi_{name}_grid[{len(entries)}] = {{\n")
            for i in range(0, len(entries), 12):
                f.write("    " + " ".join(f"0x{e:04x}," for e in entries[i:i + 12]) + "\n")
            f.write("};\n/* clang-format on */\n")


if __name__ == "__main__":
    main()
