#!/usr/bin/env python3
"""The workloads in PyTorch, for the benchmark program: pytorch.py THREADS --device cpu|cuda takes commands on
standard input (benchmarks/bench/peer.h). Training steps and their variants are torch_steps.py's; rows run eagerly
and by torch.compile in its modes, single calls eagerly, guards by torch.compile alone. Optimizers are fused where the version has
that. On CUDA cuDNN may try its algorithms and its attention is preferred.
Also: pytorch.py THREADS --device DEVICE --first-call WORKLOAD prints the microseconds of a compiled step's first call.
"""
import argparse
import logging
import os
import sys
import time
import warnings

# The protocol has standard output to itself: what libraries and compilers print goes to standard error.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.dont_write_bytecode = True

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import torch_steps  # noqa: E402
from torch_steps import COMPILED, INPUTS, LABELS, in_mode, pattern, pattern_labels, samples  # noqa: E402

ROWS = {
    "softmax": (lambda x, w, b, y: F.softmax(x, -1), 1),
    "layer_norm": (lambda x, w, b, y: F.layer_norm(x, x.shape[1:], w, b), 3),
    "rms_norm": (lambda x, w, b, y: F.rms_norm(x, x.shape[1:], w, 1e-5), -2),
    "cross_entropy": (lambda x, w, b, y: F.cross_entropy(x, y), 1),
    "gelu": (lambda x, w, b, y: F.gelu(x + b, approximate="tanh"), 2),
    "gelu_dropout": (lambda x, w, b, y: F.dropout(F.gelu(x + b, approximate="tanh"), 0.1), 2),
}


def find_rows(name):
    """(kernel, sizes, dtype, backward) of "gelu_dropout_64x3072_bf16_backward", or None."""
    backward = name.endswith("_backward")
    name, precision = torch_steps.take_precision(name[: -len("_backward")] if backward else name)
    kernel, _, sizes = name.rpartition("_")
    parts = sizes.split("x")
    if len(parts) == 2 and all(p.isdigit() for p in parts):
        sizes = tuple(int(p) for p in parts)
    else:
        kernel, sizes = name, (4096, 1024)
    return (kernel, sizes, torch.bfloat16 if precision == "bf16" else torch.float32, backward) if kernel in ROWS else None


class Rows:
    def __init__(self, name, variant):
        kernel, sizes, dtype, backward = find_rows(name)
        self.random = kernel == "gelu_dropout"
        forward, count = ROWS[kernel]
        x, dy = pattern(sizes, INPUTS, 3).to(dtype), pattern(sizes, INPUTS + 1, 1).to(dtype)
        w, b = pattern(sizes[1:], INPUTS + 2, 1).to(dtype), pattern(sizes[1:], INPUTS + 3, 1).to(dtype)
        y = pattern_labels(sizes[:1], LABELS, sizes[1])
        forward = in_mode(forward, variant)
        if not backward:
            if torch_steps.device.type == "cuda" and variant in ("reduce-overhead", "max-autotune"):
                self.f = lambda: (torch.compiler.cudagraph_mark_step_begin(), forward(x, w, b, y))[1:]
            else:
                self.f = lambda: (forward(x, w, b, y),)
            return
        leaves = {1: [x], 2: [x, b], 3: [x, w, b], -2: [x, w]}[count]
        for leaf in leaves:
            leaf.requires_grad_()
        result = forward(x, w, b, y)
        gradient = dy if result.dim() else None
        self.f = lambda: torch.autograd.grad(result, leaves, gradient, retain_graph=True)

    def answer(self):
        results = self.f()
        if self.random:
            return [[results[0].float().mean().item(), (results[0] == 0).double().mean().item()]]
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
        mleaf = ma.clone().requires_grad_()
        if name == "eager_sort":
            a = pattern((1024, 1024), INPUTS, 1)
        if name == "eager_topk":
            a = pattern((50257,), INPUTS, 1)

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
            "eager_slice": lambda: a[1:3],
            "eager_relu_grad": lambda: torch.relu(leaf),
            "eager_sum_grad": lambda: leaf.sum(),
            "eager_view_grad": lambda: leaf.view(2, n // 2),
            "eager_slice_grad": lambda: leaf[1:3],
            "eager_mm_grad": lambda: torch.mm(mleaf, mb),
            "eager_mm": lambda: torch.mm(ma, mb),
            "eager_chain": chain,
            "eager_sort": lambda: a.sort(-1).values,
            "eager_topk": lambda: a.topk(50).values,
        }[name]

    def answer(self):
        return [self.call().detach().reshape(-1).tolist()]


class Guards:
    """A call of a compiled module with so many buffers; what it was compiled to does nothing."""

    def __init__(self, count):
        class Sum(nn.Module):
            def __init__(self):
                super().__init__()
                for i in range(count):
                    self.register_buffer(f"part{i}", torch.full((4,), float(i)))

            def forward(self, x):
                for i in range(count):
                    x = x + getattr(self, f"part{i}")
                return x

        result = torch.zeros(4)
        net, x = torch.compile(Sum(), backend=lambda graph, inputs: lambda *given: (result,)), torch.ones(4)
        self.call = lambda: net(x)

    def answer(self):
        return [[float(v) for v in self.call()]]


def variants(name):
    if name.startswith("eager_"):
        return ["eager"]
    if name.startswith("guards_"):
        return ["compile"] if COMPILED else []
    if find_rows(name):
        if not COMPILED:
            return ["eager"]
        if torch_steps.device.type == "cpu":  # where reduce-overhead is the default mode
            return ["eager", "compile", "max-autotune"]
        if name.endswith("_backward"):  # of one forward again and again, which their CUDA graphs do not allow
            return ["eager", "compile", "max-autotune-no-cudagraphs"]
        return ["eager", "compile", "reduce-overhead", "max-autotune"]
    if torch_steps.find_inference(name):
        return torch_steps.inference_variants(name)
    return torch_steps.variants(name)


def make(name, variant):
    torch.manual_seed(1)
    if name.startswith("eager_"):
        return Op(name)
    if name.startswith("guards_"):
        return Guards(int(name[len("guards_"):]))
    if torch_steps.find_inference(name):
        return torch_steps.Inference(name, variant)
    return Rows(name, variant) if find_rows(name) else torch_steps.Training(name, variant)


def reply(text):
    answers.write(text + "\n")
    answers.flush()


def wait():
    if torch_steps.device.type == "cuda":
        torch.cuda.synchronize()


def first_call(name):
    work = torch_steps.Training(name, "compile")
    wait()
    start = time.perf_counter()
    work.call()
    wait()
    reply(f"{(time.perf_counter() - start) * 1e6:.0f}")


def where():
    if torch_steps.device.type == "cuda":
        return torch.cuda.get_device_name()
    return torch.backends.cpu.get_cpu_capability() if COMPILED else ""


def serve():
    reply(f"ready PyTorch {torch.__version__} {where()}")
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
                wait()
                start = clock()
                for _ in range(calls):
                    call()
                wait()
                reply(repr((clock() - start) * 1e6 / calls))
            elif command == "clock":
                clock = time.process_time if rest[0] == "processor" else time.perf_counter
                reply("ok")
            elif command == "clear":
                made.clear()
                torch_steps.Training.networks.clear()
                if COMPILED:
                    torch.compiler.reset()
                if torch_steps.device.type == "cuda":
                    torch.cuda.empty_cache()
                reply("ok")
            else:
                reply("error unknown command")
        except Exception as e:  # told to the benchmark program, which leaves this variant out
            reply("error " + " ".join(f"{type(e).__name__}: {e}".split())[:300])


def prefer_cudnn():
    """Until what it returns is gone."""
    torch.backends.cudnn.benchmark = True
    from torch.nn.attention import SDPBackend, sdpa_kernel

    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    preference = sdpa_kernel(order, set_priority=True)
    preference.__enter__()
    return preference


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("threads", type=int)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--first-call")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    if COMPILED:
        from torch._functorch import config

        config.donated_buffer = False  # gradients are asked for again and again
    if options.device == "cuda":
        torch_steps.device = torch.device("cuda")
        preference = prefer_cudnn()  # noqa: F841
    if options.first_call:
        first_call(options.first_call)
    else:
        serve()


if __name__ == "__main__":
    main()
