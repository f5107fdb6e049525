#!/usr/bin/env python3
"""reasons_test.py BENCH RESULTS: each workload that misses a bar in the newest kept results on a CPU, and still is one,
says why and what next."""
import glob
import json
import os
import subprocess
import sys


def main():
    program, folder = sys.argv[1:]
    kept = {}
    for path in glob.glob(os.path.join(folder, "*.json")):
        with open(path) as f:
            kept[path] = json.load(f)
    suites = {path: run for path, run in kept.items()
              if isinstance(run, dict) and run.get("rows") and run.get("device", "cpu") == "cpu"}
    newest = max(run["date"] for run in suites.values())
    missed = {}
    for path, run in suites.items():
        if run["date"] != newest:
            continue
        for row in run["rows"]:
            for bar in row["bars"]:
                if bar["measured"] and not bar["met"]:
                    missed.setdefault(row["workload"], f"{os.path.basename(path)}: {bar['bar']} ({bar['value']:.3g})")
    told = {}
    for line in subprocess.run([program, "--reasons"], capture_output=True, text=True, check=True).stdout.splitlines():
        name, reason = line.split("\t")
        told[name] = reason
    there = {line.split()[0] for line in
             subprocess.run([program, "--list", "--heavy"], capture_output=True, text=True, check=True).stdout.splitlines()}
    silent = {name: bar for name, bar in missed.items() if name in there and name not in told}
    for name, bar in sorted(silent.items()):
        print(f"{name} misses a bar and does not say why: {bar}")
    print(f"{len(missed)} workloads miss a bar in the results of {newest}, {len(silent)} without a reason")
    sys.exit(1 if silent or not missed else 0)


if __name__ == "__main__":
    main()
