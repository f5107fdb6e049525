"""Autocast in PyTorch: its lists, which are kept with its tests, and a training run in bfloat16."""
import ast
import importlib.util
import os

import torch
import torch.nn.functional as F
from reference import NoAnswer

LISTS = {"torch_fp16": 1, "nn_fp16": 1, "torch_fp32": 2, "nn_fp32": 2, "torch_need_autocast_promote": 3}


def rules():
    """By name: 1 lower precision, 2 float32, 3 the widest type, of PyTorch's list for CUDA."""
    folder = os.path.dirname(importlib.util.find_spec("torch").origin)
    path = os.path.join(folder, "testing/_internal/autocast_test_lists.py")
    if not os.path.exists(path):
        raise NoAnswer("this PyTorch was installed without the lists of its tests")
    found = {}
    for node in ast.walk(ast.parse(open(path).read())):
        if not isinstance(node, ast.ClassDef) or node.name != "AutocastTestLists":
            continue
        for assign in ast.walk(node):
            if isinstance(assign, ast.Assign) and isinstance(assign.targets[0], ast.Attribute):
                rule = LISTS.get(assign.targets[0].attr)
                for row in assign.value.elts if rule else ():
                    if isinstance(row, ast.Tuple):
                        found[row.elts[0].value] = torch.tensor(rule)
    return found


def run(case, tensors):
    if case["what"] == "rules":
        return rules()
    parameters = [tensors[k].requires_grad_() for k in sorted(k for k in tensors if k.startswith("p"))]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    w1, b1, w2, b2 = parameters
    losses = []
    for _ in range(case["steps"]):
        with torch.autocast("cpu", torch.bfloat16):
            hidden = F.conv1d(tensors["x"], w1, b1)
            y = F.linear(torch.relu(hidden).flatten(1), w2, b2)
            loss = F.mse_loss(y, tensors["target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().float())
    return {"losses": torch.stack(losses), "y": y.detach().float(), "half": torch.tensor(y.dtype == torch.bfloat16)}
