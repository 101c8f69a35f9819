"""llama.cpp as the Python package xllamacpp has it (tools/llama_compare.py says how to install it), to be imported by a process
of its own under the Python that has the package."""
import os
import random
import time

import xllamacpp


class Peer:
    """A model on the CPU. Standard output is say()'s: what the package writes there goes to standard error."""

    def __init__(self, path, n_ctx, n_threads, repack=False, warmup=True, seed=None):
        p = xllamacpp.CommonParams()
        p.model.path = path
        p.n_ctx, p.n_parallel, p.n_gpu_layers = n_ctx, 1, 0
        p.no_extra_bufts, p.warmup = not repack, warmup
        p.cpuparams.n_threads = p.cpuparams_batch.n_threads = n_threads
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.rng = random.Random(time.monotonic_ns() if seed is None else seed)
        start = time.monotonic()
        self.server = xllamacpp.Server(p)
        self.load_s = time.monotonic() - start

    def ask(self, n_ids, n_predict):
        """Times of a prompt of random tokens, nothing of it known, and of what follows it."""
        ids = [self.rng.randrange(100, 100000) for _ in range(n_ids)]
        reply = self.server.handle_completions({"prompt": ids, "n_predict": n_predict, "max_tokens": n_predict,
                                                "temperature": 0, "ignore_eos": True, "cache_prompt": False,
                                                "timings_per_token": True})
        return reply.get("timings") or {}

    def say(self, text):
        self.out.write(text + "\n")
        self.out.flush()


def leave():
    os._exit(0) # the server's threads needn't end in order
