#!/usr/bin/env python3
"""benchmarks/draw.py RESULTS.json OUT.svg: draws a kept run of scripts/bench: for each workload how many times as
long as Tandem its peers take, on a logarithmic axis; left of the line at 1 they are faster."""
import json
import math
import sys
from html import escape

LEFT, RIGHT, ROW, TOP, WIDTH = 250, 110, 17, 74, 900
LOW, HIGH = 0.5, 64.0
KINDS = [  # the beginning of a contestant's name, its colour, its legend
    ("LibTorch AVX2", "#9aa5b1", "LibTorch, AVX2"),
    ("LibTorch AVX-512", "#52606d", "LibTorch, AVX-512"),
    ("PyTorch eager", "#f0a35e", "PyTorch, eager"),
    ("PyTorch compile", "#d64545", "PyTorch, compiled"),
    ("PyTorch max-autotune", "#8b1e3f", "PyTorch, max-autotune"),
    ("PyTorch reduce-overhead", "#7b5ea7", "PyTorch, reduce-overhead"),
    ("PyTorch graph", "#2f5d8a", "PyTorch, captured by hand"),
]


def time_text(us):
    for unit, size in (("s", 1e6), ("ms", 1e3), ("us", 1)):
        if us >= size:
            return f"{us / size:.3g} {unit}"
    return f"{us * 1e3:.3g} ns"


def place(ratio):
    share = math.log(min(max(ratio, LOW), HIGH) / LOW) / math.log(HIGH / LOW)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def ours(row):
    found = [c for c in row["contestants"] if c["side"] == "ours" and c["threads"] == row["threads"]]
    return found[0] if found and "median_us" in found[0] else None


def best_of(row, prefix):
    """The faster of one peer's numbers of threads, and of its layouts."""
    times = [c["times"] for c in row["contestants"] if c["side"] == "peer" and c["name"].startswith(prefix) and c["times"] > 0]
    return min(times, default=None)


def main():
    source, target = sys.argv[1:]
    with open(source) as f:
        run = json.load(f)
    rows = [r for r in run["rows"] if ours(r)]
    bottom = TOP + ROW * len(rows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 44}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{bottom + 44}" fill="white"/>',
        '<text x="10" y="20" font-size="15" font-weight="bold">How many times as long as Tandem others take</text>',
        f'<text x="10" y="37" fill="#555">{escape(run["machine"])}, {run["date"]}, medians of blocks in turns'
        + (f', load {run["load"]:.1f} at the start' if run["load"] > 0.5 else "")
        + (" (QUICK: NOT A MEASUREMENT)" if run["quick"] else "")
        + "</text>",
    ]
    x = 10
    for prefix, colour, text in KINDS:
        if not any(c["name"].startswith(prefix) for r in rows for c in r["contestants"]):
            continue
        out.append(f'<circle cx="{x + 4}" cy="50" r="4" fill="{colour}"/><text x="{x + 12}" y="54">{escape(text)}</text>')
        x += 26 + 6.2 * len(text)
    ratio = LOW
    while ratio <= HIGH:
        at, line = place(ratio), "#222" if ratio == 1 else "#ddd"
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{bottom}" stroke="{line}"/>')
        out.append(f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle" fill="#555">{ratio:g}</text>')
        ratio *= 2
    for i, row in enumerate(rows):
        y = TOP + ROW * i + ROW / 2
        if i % 2:
            out.append(f'<rect x="0" y="{y - ROW / 2}" width="{WIDTH}" height="{ROW}" fill="#000" fill-opacity="0.03"/>')
        threads = f', {row["threads"]} threads' if row["threads"] > 1 else ""
        out.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(row["workload"])}{threads}</text>')
        for prefix, colour, _ in KINDS:
            times = best_of(row, prefix)
            if times is None:
                continue
            name = f"{prefix}: {times:.2f} times our time"
            out.append(f'<circle cx="{place(times):.1f}" cy="{y}" r="4.2" fill="{colour}"><title>{escape(name)}</title></circle>')
        out.append(f'<text x="{WIDTH - 8}" y="{y + 4}" text-anchor="end" fill="#555">{time_text(ours(row)["median_us"])}</text>')
    out.append(f'<text x="{WIDTH - 8}" y="{TOP - 10}" text-anchor="end" fill="#555">our time</text>')
    out.append(
        f'<text x="10" y="{bottom + 34}" fill="#555">Each peer with its better number of threads, up to the row\'s. '
        "Dots at an end lie beyond it.</text></svg>"
    )
    with open(target, "w") as f:
        f.write("\n".join(out) + "\n")
    print(f"bench: drawn to {target}")


if __name__ == "__main__":
    main()
