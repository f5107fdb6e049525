#!/usr/bin/env python3
"""The workload "cuda" (benchmarks/bench/cuda.cpp) in PyTorch: eager, and as one CUDA graph.

Writes JSON of the benchmarks' form to the file given, or prints it. Medians of interleaved blocks.
"""
import json
import statistics
import sys
import time


def blocks(contestants, rounds=31):
    import torch

    times = {name: [] for name, _, _ in contestants}
    for turn in range(rounds + 2):
        for name, calls, f in contestants:
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                f()
            us = (time.perf_counter() - start) * 1e6 / calls
            if turn >= 2:
                times[name].append(us)
    return times


def main():
    try:
        import torch
    except ImportError:
        sys.exit("torch_cuda: left out: this Python has no PyTorch")
    if not torch.cuda.is_available():
        sys.exit("torch_cuda: left out: PyTorch sees no CUDA device")
    torch.manual_seed(1)
    device = torch.device("cuda")
    a, b = torch.rand(4, device=device), torch.rand(4, device=device)
    g = torch.rand(4, device=device, requires_grad=True)

    def training(capturable):
        net = torch.nn.Sequential(
            torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 128), torch.nn.ReLU(),
            torch.nn.Linear(128, 10)).to(device)
        opt = torch.optim.AdamW(net.parameters(), lr=1e-7, capturable=capturable)
        x = torch.rand(64, 64, device=device)
        y = torch.randint(0, 10, (64,), device=device)

        def step():
            loss = torch.nn.functional.cross_entropy(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            return loss

        return step

    eager, captured = training(False), training(True)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            captured()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured()
    times = blocks([
        ("PyTorch add, 4 floats", 200, lambda: a + b),
        ("PyTorch add, 4 floats, gradient noted", 200, lambda: g + b),
        ("PyTorch eager MLP step", 5, eager),
        ("PyTorch MLP step as one CUDA graph", 50, graph.replay),
    ])

    def until_done(name, f):
        found = []
        for _ in range(31):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(100):
                f()
            torch.cuda.synchronize()
            found.append((time.perf_counter() - start) * 1e4)
        times[name] = found

    until_done("PyTorch MLP step as one CUDA graph, until done", graph.replay)
    until_done("PyTorch eager MLP step, until done", eager)
    rows = [{"workload": "cuda", "name": name, "median_us": statistics.median(t), "min_us": min(t), "ratio": 0}
            for name, t in times.items()]
    text = json.dumps(rows, indent=1)
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w") as out:
            out.write(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
