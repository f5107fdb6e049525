#!/usr/bin/env python3
"""Tests of benchmarks/merge.py: what it keeps of several runs, what it refuses, and the table."""
import copy
import json
import os
import subprocess
import sys
import tempfile
import unittest

MERGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "merge.py")


def run_of(workload, us, **more):
    row = {"workload": workload, "threads": 1, "contestants": [{"median_us": us}], "units": 64, "unit": "images",
           "strongest_peer": "PyTorch", "ratio": 1.5, "share_of_copy": 0.25, "share_of_gemm": 0.5,
           "bars": [{"measured": True, "met": True}, {"measured": True, "met": False}, {"measured": False, "met": False}]}
    run = {"machine": "a machine", "device": "cpu", "date": "2026-11-22", "quick": False, "load": 0.5, "peers": ["PyTorch"],
           "failures": {}, "host": [{"what": workload}], "rows": [row], "ceilings": [{"threads": 1, "copy": 10.0, "gemm": 50.0}]}
    run.update(more)
    return run


class Merge(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def merge(self, *runs):
        sources = []
        for i, run in enumerate(runs):
            sources.append(os.path.join(self.folder.name, f"{i}.json"))
            with open(sources[-1], "w") as out:
                json.dump(run, out)
        self.target = os.path.join(self.folder.name, "whole")
        return subprocess.run([sys.executable, MERGE, self.target, *sources], capture_output=True, text=True)

    def results(self):
        with open(self.target + ".json") as f, open(self.target + ".md") as table:
            return json.load(f), table.read()

    def test_one_run_is_itself(self):
        run = run_of("mlp64", 500)
        self.assertEqual(self.merge(run).returncode, 0)
        self.assertEqual(self.results()[0], run)

    def test_several_runs(self):
        first = run_of("mlp64", 500)
        second = run_of("cnn", 2500, load=2.0, peers=["PyTorch", "LibTorch"], failures={"gpt": "FAILED"},
                        ceilings=[{"threads": 1, "copy": 12.0, "gemm": 40.0}])
        self.assertEqual(self.merge(copy.deepcopy(first), second).returncode, 0)
        whole, table = self.results()
        self.assertEqual([r["workload"] for r in whole["rows"]], ["mlp64", "cnn"])
        self.assertEqual([h["what"] for h in whole["host"]], ["mlp64", "cnn"])
        self.assertEqual(whole["failures"], {"gpt": "FAILED"})
        self.assertEqual(whole["peers"], ["PyTorch", "LibTorch"])
        self.assertEqual(whole["load"], 2.0)
        self.assertEqual(whole["ceilings"], [{"threads": 1, "copy": 12.0, "gemm": 50.0}])
        lines = table.splitlines()
        self.assertEqual(lines[0], "a machine, cpu, 2026-11-22; PyTorch, LibTorch")
        self.assertEqual(lines[-2], "| mlp64 | 1 | 500 us | 1.28e+05 images/s | PyTorch | 1.50 | 0.25 | 0.50 | 1 of 2 |")
        self.assertEqual(lines[-1], "| cnn | 1 | 2.5 ms | 2.56e+04 images/s | PyTorch | 1.50 | 0.25 | 0.50 | 1 of 2 |")

    def test_runs_with_other_threads(self):
        both = [{"threads": 1, "copy": 10.0, "gemm": 50.0}, {"threads": 2, "copy": 18.0, "gemm": 99.0}]
        self.merge(run_of("mlp64", 500), run_of("mlp64", 300, ceilings=[both[1]]))
        self.assertEqual(self.results()[0]["ceilings"], both)

    def test_a_row_without_a_time(self):
        self.merge(run_of("mlp64", 0))
        self.assertIn("| mlp64 | 1 | no time | - |", self.results()[1])

    def test_quick_runs_say_so(self):
        self.merge(run_of("mlp64", 500, quick=True))
        self.assertIn("**A quick run: its times mean nothing.**", self.results()[1])

    def test_refused(self):
        mixed = self.merge(run_of("mlp64", 500), run_of("cnn", 500, quick=True))
        self.assertEqual((mixed.returncode, mixed.stderr), (1, "merge: some runs are quick, and their times mean nothing\n"))
        self.assertFalse(os.path.exists(self.target + ".json"))
        nothing = self.merge()
        self.assertEqual((nothing.returncode, nothing.stderr), (1, "merge: there are no runs\n"))


if __name__ == "__main__":
    unittest.main()
