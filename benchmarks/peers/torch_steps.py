"""Training steps in PyTorch for pytorch.py: the networks of the benchmarks' own, and those of the literature, whose
classes are the ones that tests compare with Tandem's (tests/pytorch).

Weights and batches are made from the pattern of benchmarks/bench/pattern.h. A variant is a mode, and "-channels_last"
behind it: eager; compile, reduce-overhead and max-autotune are torch.compile's modes over forward and backward;
compile-optimizer compiles the update, too, in place of the fused one;
graph is a whole step (compiled, clipped, updated by a fused and capturable optimizer) captured as one
torch.cuda.CUDAGraph.
"""
import contextlib
import dataclasses
import math
import os
import sys

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "pytorch"))
import models  # noqa: E402
import sequence_models  # noqa: E402

INPUTS, LABELS, BATCHES, GATE_STEPS, SAMPLES = 1000, 2000, 4, 20, 64  # those of benchmarks/bench/pattern.h
TIMED_LR = 1e-7
LAYERS, WIDTH, HEADS, LENGTH, WORDS, GPT_BATCH = 4, 128, 4, 64, 65, 12
HEAVY_GATE_STEPS, SIDE, CLASSES = 5, 224, 1000  # those of benchmarks/bench/literature.cpp
COMPILED = hasattr(torch, "compile")
device = torch.device("cpu")  # main() of pytorch.py sets it


def samples(t):
    flat = t.detach().float().reshape(-1)
    n = flat.numel()
    if n > SAMPLES:
        stride = n // SAMPLES
        flat = flat[torch.arange(SAMPLES) * stride + torch.arange(SAMPLES) % stride]
    return flat.tolist()


def words(count, seed):
    mask = 0xFFFFFFFF
    x = (torch.arange(count, dtype=torch.int64) + seed * 0x9E3779B9) & mask
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
    x = ((x ^ (x >> 15)) * 0x846CA68B) & mask
    return x ^ (x >> 16)


def pattern(sizes, seed, scale):
    grid = (words(math.prod(sizes), seed) >> 8).to(torch.float64) * 2.0**-23 - 1
    return (grid * scale).to(torch.float32).reshape(sizes).to(device)


def pattern_labels(sizes, seed, classes, first=0):
    return (words(math.prod(sizes), seed) % classes + first).reshape(sizes).to(device)


def in_mode(f, mode):
    if mode == "eager":
        return f
    return torch.compile(f, mode=None if mode in ("compile", "compile-optimizer", "graph") else mode)


class Mlp(nn.Module):
    def __init__(self, inputs, first, second):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(inputs, first), nn.Linear(first, second), nn.Linear(second, 10)

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
        mixed = sequence_models.causal_attention(q, k, v)
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


@dataclasses.dataclass
class Spec:
    """A training step, as Recipe in benchmarks/bench/training.h: batches are (sizes, first, end, floating) a tensor;
    without an end, floats."""
    net: object
    kind: type
    batch: list
    options: dict = dataclasses.field(default_factory=dict)
    loss: object = lambda net, x, y: F.cross_entropy(net(x), y)
    lr: float = 1e-3
    steps: int = GATE_STEPS
    gain: float = 1
    clip: float = 0
    images: bool = False
    heavy: bool = False
    launch_bound: bool = False  # its compiled optimizer is a contestant


def image(name, batch):
    return Spec(
        lambda: models.MODELS[name](CLASSES, 1), torch.optim.SGD, [((batch, 3, SIDE, SIDE),), ((batch,), 0, CLASSES)],
        {"momentum": 0.9, "weight_decay": 1e-4}, lr=1e-5, gain=math.sqrt(6), images=True)


def gnmt(batch, hidden, count, length):
    sentences = ((batch, length), 4, count)
    return Spec(
        lambda: sequence_models.Gnmt(count, hidden, 4, 0.1), torch.optim.Adam,
        [sentences, ((batch,), length, length + 1), sentences, sentences],
        loss=lambda net, source, lengths, given, target: net.loss(source, None, given, target), gain=4, clip=5)


def ncf(batch):
    users, items = 138493, 26744
    return Spec(
        lambda: sequence_models.NeuMf(users, items, 64, [256, 256, 128, 64]), torch.optim.Adam,
        [((batch,), 0, users), ((batch,), 0, items), ((batch,), 0, 2, True)], {"betas": (0.25, 0.5)},
        loss=lambda net, *batch: net.loss(*batch), gain=4)


def gpt2(batch, length, count):
    return Spec(
        lambda: sequence_models.Gpt2(12, 12, 768, 1024, count, nn.Linear), torch.optim.AdamW,
        [((batch, length), 0, count)] * 2, {"betas": (0.9, 0.95), "weight_decay": 0.1},
        loss=lambda net, *batch: net.loss(*batch), lr=1e-4, clip=1)


def take_precision(name):
    for end in ("bf16", "tf32"):
        if name.endswith("_" + end):
            return name[: -len(end) - 1], end
    return name, "float32"


def find(name):
    """The spec of a name without its precision, or None."""
    mlps = {"mlp784": (784, 256, 128), "mlp64": (64, 256, 128), "mlp784_1024": (784, 1024, 1024)}
    if name in mlps:
        sizes = mlps[name]
        return Spec(lambda: Mlp(*sizes), torch.optim.Adam, [((64, sizes[0]),), ((64,), 0, 10)], launch_bound=True)
    if name == "cnn":
        return Spec(Cnn, torch.optim.SGD, [((64, 1, 28, 28),), ((64,), 0, 10)], lr=1e-2, images=True)
    if name == "gpt":
        return Spec(Gpt, torch.optim.AdamW, [((GPT_BATCH, LENGTH), 0, WORDS), ((GPT_BATCH * LENGTH,), 0, WORDS)])
    model, _, batch = name.rpartition("_b")
    card = batch.isdigit()
    model, batch = (model, int(batch)) if card else (name, 0)
    small = {"alexnet": 4, "vgg19": 1, "resnet50": 2, "mobilenet_v1": 4, "mobilenet_v2": 4}
    if model in small:
        spec = image(model, batch or small[model])
    elif model == "gnmt":
        spec = gnmt(batch, 1024, 32320, 50) if card else gnmt(16, 256, 8000, 12)
    elif model == "ncf":
        spec = ncf(batch or 1 << 14)
    elif model == "gpt2":
        spec = gpt2(batch, 1024, 50304) if card else gpt2(1, 128, 50257)
    else:
        return None
    spec.steps, spec.heavy = HEAVY_GATE_STEPS, True
    return spec


def inference_variants(name):
    layout = "-channels_last" if find(take_precision(find_inference(name)[0])[0]).images else ""
    modes = ["eager"] + (["compile", "compile-freezing"] if COMPILED else [])
    return [mode + layout for mode in modes]


def variants(name):
    """How a step can be run here; none if there is no such step."""
    spec = find(take_precision(name)[0])
    if spec is None:
        return []
    if device.type == "cuda":
        layouts = ["", "-channels_last"] if spec.images else [""]
        modes = ["eager"] + (["compile", "reduce-overhead", "graph", "max-autotune"] if COMPILED else [])
        modes += ["compile-optimizer"] if COMPILED and spec.launch_bound else []
        return [mode + layout for mode in modes for layout in layouts]  # the one that takes longest is the last
    # On a CPU reduce-overhead is the default mode, and max-autotune takes minutes for large models.
    if spec.heavy and spec.images:
        return ["eager", "eager-channels_last"] + (["compile-channels_last"] if COMPILED else [])
    modes = ["eager"] + (["compile"] if COMPILED else []) + (["max-autotune"] if COMPILED and not spec.heavy else [])
    if spec.images:
        return [mode + layout for mode in modes for layout in ("", "-channels_last")]
    return modes + (["compile-optimizer"] if COMPILED and spec.launch_bound else [])


class Network:
    """What a step trains, with its optimizer and its batches."""

    def __init__(self, spec, channels_last, capturable, compiled):
        self.spec = spec
        self.net = spec.net().to(device)
        if channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)
        # A number would be a constant of what is compiled or captured.
        lr = torch.tensor(spec.lr, device=device) if capturable or compiled else spec.lr
        self.opt = self.optimizer(lr, capturable, fused=not compiled)
        self.update = torch.compile(self.opt.step) if compiled else self.opt.step
        self.ring = []
        for r in range(BATCHES):
            self.ring.append(tuple(self.tensor(INPUTS + (LABELS - INPUTS) * j + r, *given)
                                   for j, given in enumerate(spec.batch)))
        if channels_last:
            self.ring = [(b[0].to(memory_format=torch.channels_last),) + b[1:] for b in self.ring]
        self.reset()

    @staticmethod
    def tensor(seed, sizes, first=0, end=0, floating=False):
        if end == 0:
            return pattern(sizes, seed, 1)
        t = pattern_labels(sizes, seed, end - first, first)
        return t.float() if floating else t

    def optimizer(self, lr, capturable, fused):
        options = dict(self.spec.options, lr=lr)
        if capturable and self.spec.kind is not torch.optim.SGD:
            options["capturable"] = True
        if not fused:
            return self.spec.kind(self.net.parameters(), **options)
        try:
            return self.spec.kind(self.net.parameters(), fused=True, **options)
        except (TypeError, RuntimeError):
            return self.spec.kind(self.net.parameters(), **options)

    @torch.no_grad()
    def reset(self):
        """The first weights again; what the optimizer made becomes zero where it lies, since a graph may hold it."""
        for k, (name, p) in enumerate(self.net.named_parameters()):
            if p.dim() >= 2:
                p.copy_(pattern(p.shape, k + 1, self.spec.gain * math.sqrt(p.shape[0] / p.numel())))
            elif p.dim() == 0 or name.endswith("weight"):
                p.fill_(1)
            elif "bias" in name:
                p.fill_(0)
            else:
                p.copy_(pattern(p.shape, k + 1, 1))
        for state in self.opt.state.values():
            for value in state.values():
                if torch.is_tensor(value):
                    value.zero_()
        self.set_lr(self.spec.lr)

    def set_lr(self, lr):
        for group in self.opt.param_groups:
            if torch.is_tensor(group["lr"]):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr


def find_inference(name):
    """(step, whether of one row) of "gpt_infer", or None."""
    base, _, end = name.rpartition("_infer")
    return (base, end == "1") if base and end in ("", "1") and find(take_precision(base)[0]) else None


class Inference:
    """A step's loss without gradients, in evaluation mode."""

    def __init__(self, name, variant):
        step, one = find_inference(name)
        base, self.precision = take_precision(step)
        self.spec = find(base)
        mode, _, layout = variant.partition("-channels")
        self.network = Network(self.spec, layout != "", False, False)
        self.network.net.eval()
        self.ring = [tuple(t[:1] for t in b) if one else b for b in self.network.ring]
        self.next = 0
        if mode.startswith("compile"):
            from torch._inductor import config

            config.freezing = mode == "compile-freezing"
        self.loss = in_mode(self.forward, "compile" if mode == "compile-freezing" else mode)

    def forward(self, *batch):
        with torch.autocast(device.type, torch.bfloat16) if self.precision == "bf16" else contextlib.nullcontext():
            return self.spec.loss(self.network.net, *batch)

    @torch.no_grad()
    def run(self, *batch):
        return self.loss(*batch)

    def answer(self):
        return [[self.run(*batch).item() for batch in self.ring]]

    def call(self):
        self.next += 1
        self.run(*self.ring[self.next % BATCHES])


class Training:
    networks = {}  # of large models on a CPU: one a layout, for all variants

    def __init__(self, name, variant):
        base, precision = take_precision(name)
        self.spec, self.precision = find(base), precision
        mode, _, layout = variant.partition("-channels")
        key = (base, layout) if self.spec.heavy and device.type == "cpu" else (name, variant)
        if key not in Training.networks:
            optimizer = mode == "compile-optimizer"
            capturable = mode == "graph" or optimizer and device.type == "cuda"
            Training.networks[key] = Network(self.spec, layout != "", capturable, optimizer)
        self.network = Training.networks[key]
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        self.loss = in_mode(self.forward, mode)
        self.marks = device.type == "cuda" and mode in ("reduce-overhead", "max-autotune")
        self.next = 0
        self.run = self.captured() if mode == "graph" else self.step

    def forward(self, *batch):
        mixed = contextlib.nullcontext()
        if self.precision == "bf16":
            mixed = torch.autocast(device.type, torch.bfloat16)
        with mixed:
            return self.spec.loss(self.network.net, *batch)

    def step(self, *batch):
        if self.marks:
            torch.compiler.cudagraph_mark_step_begin()
        opt = self.network.opt
        loss = self.loss(*batch)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        if self.spec.clip:
            torch.nn.utils.clip_grad_norm_(self.network.net.parameters(), self.spec.clip)
        self.network.update()
        return loss.detach()

    def captured(self):
        """The step as one CUDA graph over inputs of its own."""
        given = tuple(t.clone() for t in self.network.ring[0])
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step(*given)
        torch.cuda.current_stream().wait_stream(side)
        self.network.opt.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.step(*given)

        def replay(*batch):
            for to, t in zip(given, batch):
                to.copy_(t)
            graph.replay()
            return loss

        return replay

    def answer(self):
        """Losses, then gradients of two steps: of each parameter the norm and samples."""
        self.network.reset()
        parts = [[]]
        for i in range(self.spec.steps):
            parts[0].append(self.run(*self.network.ring[i % BATCHES]).item())
            if i == 0 or i == 2 and self.precision == "float32" and self.spec.steps == GATE_STEPS:  # as pattern.h says
                grads = [p.grad for p in self.network.net.parameters()]
                parts += [[g.double().norm().item()] + [v * math.sqrt(g.numel()) for v in samples(g)] for g in grads]
        self.network.set_lr(TIMED_LR)
        return parts

    def call(self):
        self.next += 1
        self.run(*self.network.ring[self.next % BATCHES])
