#!/usr/bin/env python3
"""The workloads in PyTorch, for the benchmark program: pytorch.py THREADS takes commands on standard input
(benchmarks/bench/peer.h). Variants: eager, and torch.compile in its default mode and in max-autotune
(reduce-overhead is the default mode on a CPU: it captures CUDA graphs). Optimizers are fused where the version
has that. Also: pytorch.py THREADS --first-call WORKLOAD prints the microseconds of a compiled step's first call.
"""
import logging
import math
import os
import sys
import time
import warnings

# The protocol has standard output to itself: what libraries and compilers print goes to standard error.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

INPUTS, LABELS, BATCHES, GATE_STEPS, SAMPLES = 1000, 2000, 4, 20, 64  # those of benchmarks/bench/pattern.h
TIMED_LR = 1e-7
LAYERS, WIDTH, HEADS, LENGTH, WORDS, GPT_BATCH = 4, 128, 4, 64, 65, 12
COMPILED = hasattr(torch, "compile")


def words(count, seed):
    mask = 0xFFFFFFFF
    x = (torch.arange(count, dtype=torch.int64) + seed * 0x9E3779B9) & mask
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
    x = ((x ^ (x >> 15)) * 0x846CA68B) & mask
    return x ^ (x >> 16)


def pattern(sizes, seed, scale):
    grid = (words(math.prod(sizes), seed) >> 8).to(torch.float64) * 2.0**-23 - 1
    return (grid * scale).to(torch.float32).reshape(sizes)


def pattern_labels(sizes, seed, classes):
    return (words(math.prod(sizes), seed) % classes).reshape(sizes)


class Mlp(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(inputs, 256), nn.Linear(256, 128), nn.Linear(128, 10)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(64 * 7 * 7, 128), nn.Linear(128, 10)

    def forward(self, x):
        h = F.max_pool2d(F.relu(self.conv1(x)), 2)
        h = F.max_pool2d(F.relu(self.conv2(h)), 2)
        return self.fc2(F.relu(self.fc1(h.flatten(1))))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = (p.view(n, t, HEADS, WIDTH // HEADS).transpose(1, 2) for p in self.qkv(self.norm1(x)).split(WIDTH, 2))
        if hasattr(F, "scaled_dot_product_attention"):
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS)
            unseen = torch.ones(t, t, dtype=torch.bool).triu(1)
            mixed = scores.masked_fill(unseen, -math.inf).softmax(-1) @ v
        h = x + self.out(mixed.transpose(1, 2).reshape(n, t, WIDTH))
        return h + self.fc2(F.gelu(self.fc1(self.norm2(h)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.register_buffer("positions", torch.arange(LENGTH))

    def forward(self, x):
        h = self.words(x) + self.places(self.positions)
        for block in self.blocks:
            h = block(h)
        return (self.norm(h) @ self.words.weight.t()).view(-1, WORDS)


def optimizer(kind, parameters, **options):
    try:
        return kind(parameters, fused=True, **options)
    except (TypeError, RuntimeError):
        return kind(parameters, **options)


def in_variant(f, variant):
    if variant == "eager":
        return f
    return torch.compile(f, mode=None if variant == "compile" else variant)


class Training:
    def __init__(self, net, kind, gate_lr, inputs, classes, labels, variant, vocabulary=None):
        for k, (name, p) in enumerate(net.named_parameters()):
            with torch.no_grad():
                if p.dim() >= 2:
                    p.copy_(pattern(p.shape, k + 1, math.sqrt(p.shape[0] / p.numel())))
                else:
                    p.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        if variant.endswith("channels_last"):
            net = net.to(memory_format=torch.channels_last)
            variant = variant[: -len("-channels_last")]
        self.opt = optimizer(kind, net.parameters(), lr=gate_lr)
        make_x = (lambda s: pattern_labels(inputs, s, vocabulary)) if vocabulary else (lambda s: pattern(inputs, s, 1))
        self.ring = [
            (make_x(INPUTS + r), pattern_labels((labels,), LABELS + r, classes)) for r in range(BATCHES)
        ]
        self.loss = in_variant(lambda x, y: F.cross_entropy(net(x), y), variant)
        self.next = 0

    def step(self, x, y):
        loss = self.loss(x, y)
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        self.opt.step()
        return loss

    def answer(self):
        losses = [self.step(*self.ring[i % BATCHES]).item() for i in range(GATE_STEPS)]
        for group in self.opt.param_groups:
            group["lr"] = TIMED_LR
        return [losses]

    def call(self):
        self.next += 1
        self.step(*self.ring[self.next % BATCHES])


def samples(t):
    flat = t.detach().reshape(-1)
    n = flat.numel()
    if n > SAMPLES:
        stride = n // SAMPLES
        flat = flat[torch.arange(SAMPLES) * stride + torch.arange(SAMPLES) % stride]
    return flat.tolist()


ROWS = {
    "softmax": (lambda x, w, b, y: F.softmax(x, -1), 1),
    "layer_norm": (lambda x, w, b, y: F.layer_norm(x, x.shape[1:], w, b), 3),
    "cross_entropy": (lambda x, w, b, y: F.cross_entropy(x, y), 1),
    "gelu": (lambda x, w, b, y: F.gelu(x + b, approximate="tanh"), 2),
    "gelu_dropout": (lambda x, w, b, y: F.dropout(F.gelu(x + b, approximate="tanh"), 0.1), 2),
}


class Rows:
    def __init__(self, name, variant):
        self.random = name.startswith("gelu_dropout")
        backward = name.endswith("_backward")
        forward, count = ROWS[name[: -len("_backward")] if backward else name]
        sizes = (4096, 1024)
        x, dy = pattern(sizes, INPUTS, 3), pattern(sizes, INPUTS + 1, 1)
        w, b = pattern(sizes[1:], INPUTS + 2, 1), pattern(sizes[1:], INPUTS + 3, 1)
        y = pattern_labels(sizes[:1], LABELS, sizes[1])
        forward = in_variant(forward, variant)
        if not backward:
            self.f = lambda: (forward(x, w, b, y),)
            return
        leaves = {1: [x], 2: [x, b], 3: [x, w, b]}[count]
        for leaf in leaves:
            leaf.requires_grad_()
        result = forward(x, w, b, y)
        gradient = dy if result.dim() else None
        self.f = lambda: torch.autograd.grad(result, leaves, gradient, retain_graph=True)

    def answer(self):
        results = self.f()
        if self.random:
            return [[results[0].mean().item(), (results[0] == 0).double().mean().item()]]
        return [samples(t) for t in results]

    def call(self):
        self.f()


class Op:
    def __init__(self, name):
        n = 1024 if name.endswith("_1024") else 4
        name = name[: -len("_1024")] if n == 1024 else name
        a, b, one = pattern((n,), INPUTS, 1), pattern((n,), INPUTS + 1, 1), torch.ones(n)
        changed, leaf = a.clone(), a.clone().requires_grad_()
        ma, mb = pattern((8, 8), INPUTS, 1), pattern((8, 8), INPUTS + 1, 1)

        def chain():
            y = leaf
            for _ in range(10):
                y = y * one
            leaf.grad = None
            y.sum().backward()
            return leaf.grad

        self.call = {
            "eager_add": lambda: a + b,
            "eager_add_grad": lambda: leaf + b,
            "eager_mul_": lambda: changed.mul_(one),
            "eager_relu": lambda: torch.relu(a),
            "eager_sum": lambda: a.sum(),
            "eager_view": lambda: a.view(2, n // 2),
            "eager_mm": lambda: torch.mm(ma, mb),
            "eager_chain": chain,
        }[name]

    def answer(self):
        return [self.call().detach().reshape(-1).tolist()]


def training(name, variant):
    if name in ("mlp784", "mlp64"):
        inputs = int(name[3:])
        return Training(Mlp(inputs), torch.optim.Adam, 1e-3, (64, inputs), 10, 64, variant)
    if name == "cnn":
        return Training(Cnn(), torch.optim.SGD, 1e-2, (64, 1, 28, 28), 10, 64, variant)
    return Training(Gpt(), torch.optim.AdamW, 1e-3, (GPT_BATCH, LENGTH), WORDS, GPT_BATCH * LENGTH, variant, WORDS)


def variants(name):
    if name.startswith("eager_"):
        return ["eager"]
    if name not in ("mlp784", "mlp64", "cnn", "gpt") and name.replace("_backward", "") not in ROWS:
        return []
    compiled = ["compile"] if COMPILED else []
    if COMPILED and name in ("mlp784", "mlp64", "cnn", "gpt"):
        compiled.append("max-autotune")
    if name == "cnn":
        return ["eager", "eager-channels_last"] + [c + layout for c in compiled[:1] for layout in ("", "-channels_last")]
    return ["eager"] + compiled


def make(name, variant):
    torch.manual_seed(1)
    if name.startswith("eager_"):
        return Op(name)
    return Rows(name, variant) if name.replace("_backward", "") in ROWS else training(name, variant)


def reply(text):
    answers.write(text + "\n")
    answers.flush()


def first_call(name):
    work = training(name, "compile")
    start = time.perf_counter()
    work.call()
    reply(f"{(time.perf_counter() - start) * 1e6:.0f}")


def serve():
    reply(f"ready PyTorch {torch.__version__} {torch.backends.cpu.get_cpu_capability() if COMPILED else ''}")
    made = []
    clock = time.perf_counter
    for line in sys.stdin:
        command, *rest = line.split()
        try:
            if command == "variants":
                reply(" ".join(variants(*rest)))
            elif command == "make":
                made.append(make(*rest))
                parts = made[-1].answer()
                reply(f"{len(made) - 1} " + " | ".join(" ".join(repr(v) for v in part) for part in parts))
            elif command == "time":
                call, calls = made[int(rest[0])].call, int(rest[1])
                start = clock()
                for _ in range(calls):
                    call()
                reply(repr((clock() - start) * 1e6 / calls))
            elif command == "clock":
                clock = time.process_time if rest[0] == "processor" else time.perf_counter
                reply("ok")
            elif command == "clear":
                made.clear()
                if COMPILED:
                    torch.compiler.reset()
                reply("ok")
            else:
                reply("error unknown command")
        except Exception as e:  # told to the benchmark program, which leaves this variant out
            reply("error " + " ".join(f"{type(e).__name__}: {e}".split())[:300])


def main():
    torch.set_num_threads(int(sys.argv[1]))
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    if COMPILED:
        from torch._functorch import config

        config.donated_buffer = False  # gradients are asked for again and again
    if len(sys.argv) > 3 and sys.argv[2] == "--first-call":
        first_call(sys.argv[3])
    else:
        serve()


if __name__ == "__main__":
    main()
