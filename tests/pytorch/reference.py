"""PyTorch's answers to the cases of a folder.

reference.py FOLDER reads cases.json (a list of cases, each with `name`, `kind` and what the kind asks for) and
in.safetensors (tensors under "<case>/<what>"), runs each case in PyTorch and writes out.safetensors: results under the same
names, and in its metadata, under "<case>", why a case has no answer. Kinds: op (ops.py), layer and
training (training.py), autocast (mixed.py), code (code_lines.py), model (models.py), sequence_model (sequence_models.py).
"""
import json
import struct
import sys

import numpy
import torch

sys.dont_write_bytecode = True

DTYPES = {"bool": torch.bool, "uint8": torch.uint8, "int32": torch.int32, "int64": torch.int64, "float16": torch.float16,
          "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
FORMATS = {"BOOL": "?", "U8": "u1", "I32": "<i4", "I64": "<i8", "F32": "<f4", "F64": "<f8"}


class NoAnswer(Exception):
    """PyTorch, or this version of it, has nothing to compare with."""


def read_tensors(path):
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), f.read()
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            array = numpy.frombuffer(data[begin:end], FORMATS[entry["dtype"]]).reshape(entry["shape"])
            tensors[name] = torch.from_numpy(array.copy())
    return tensors


def write_tensors(path, tensors, metadata):
    formats = {numpy.dtype(v): k for k, v in FORMATS.items()}
    header, blocks, at = {"__metadata__": metadata}, [], 0
    for name, tensor in tensors.items():
        array = numpy.ascontiguousarray(tensor.detach().resolve_conj().numpy())
        header[name] = {"dtype": formats[array.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + array.nbytes]}
        blocks.append(array.tobytes())
        at += array.nbytes
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blocks))


def main(folder):
    import code_lines
    import mixed
    import models
    import ops
    import sequence_models
    import training
    kinds = {"op": ops.run, "layer": training.run_layer, "training": training.run_training, "autocast": mixed.run,
             "code": code_lines.run, "model": models.run, "sequence_model": sequence_models.run}
    torch.manual_seed(0)
    given, answers, without = read_tensors(folder + "/in.safetensors"), {}, {}
    for case in json.load(open(folder + "/cases.json")):
        prefix = case["name"] + "/"
        tensors = {k[len(prefix):]: v for k, v in given.items() if k.startswith(prefix)}
        try:
            for name, value in kinds[case["kind"]](case, tensors).items():
                answers[prefix + name] = value
        except NoAnswer as reason:
            without[case["name"]] = str(reason)
        except Exception as error:  # told to the test, which fails for it
            without[case["name"]] = f"error: {type(error).__name__}: {error}"
    write_tensors(folder + "/out.safetensors", answers, without)


if __name__ == "__main__":
    sys.modules["reference"] = sys.modules["__main__"]
    main(sys.argv[1])
