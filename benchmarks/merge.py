#!/usr/bin/env python3
"""benchmarks/merge.py OUT RUN.json...: puts runs of single rows together: OUT.json, as one run would have written it, and
OUT.md, a table."""
import json
import sys


def time_text(us):
    return f"{us / 1e3:.4g} ms" if us >= 1e3 else f"{us:.4g} us"


def merged(runs):
    whole = dict(runs[0], rows=[], host=[], failures={}, peers=[], ceilings=[])
    for run in runs:
        whole["rows"] += run["rows"]
        whole["host"] += run["host"]
        whole["failures"].update(run["failures"])
        whole["peers"] += [p for p in run["peers"] if p not in whole["peers"]]
        whole["load"] = max(whole["load"], run["load"])
        for now in run["ceilings"]:
            most = next((c for c in whole["ceilings"] if c["threads"] == now["threads"]), None)
            if most is None:
                whole["ceilings"].append(most := {})
            for key, value in now.items():
                most[key] = max(most.get(key, 0), value)
    return whole


def main():
    target, *sources = sys.argv[1:]
    runs = []
    for source in sources:
        with open(source) as f:
            runs.append(json.load(f))
    if not runs:
        sys.exit("merge: there are no runs")
    if len({run["quick"] for run in runs}) > 1:
        sys.exit("merge: some runs are quick, and their times mean nothing")
    whole = merged(runs)
    with open(target + ".json", "w") as out:
        json.dump(whole, out, indent=1)
        out.write("\n")
    with open(target + ".md", "w") as out:
        out.write(f"{whole['machine']}, {whole['device']}, {whole['date']}; {', '.join(whole['peers']) or 'no peers'}\n\n")
        if whole["quick"]:
            out.write("**A quick run: its times mean nothing.**\n\n")
        out.write("| workload | threads | ours | rate | strongest peer | its time / ours | of copy | of products | bars met |\n")
        out.write("|---|---|---|---|---|---|---|---|---|\n")
        for row in whole["rows"]:
            us = row["contestants"][0].get("median_us", 0)
            rate = f"{row['units'] * 1e6 / us:.4g} {row['unit']}/s" if us and "unit" in row else "-"
            bars = [b for b in row["bars"] if b["measured"]]
            out.write(f"| {row['workload']} | {row['threads']} | {time_text(us) if us else 'no time'} | {rate} | {row.get('strongest_peer', '-')} | "
                      f"{row.get('ratio', 0):.2f} | {row['share_of_copy']:.2f} | {row['share_of_gemm']:.2f} | "
                      f"{sum(b['met'] for b in bars)} of {len(bars)} |\n")


if __name__ == "__main__":
    main()
