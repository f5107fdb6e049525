"""Judges the ONNX files of a folder.

onnx_check.py FOLDER reads cases.json (a list of cases, each with `name`, `inputs`, `run`, `off`), <name>.onnx and in.safetensors
(inputs and wanted results under "<name>/in0", "<name>/out0", ...). Each file is checked (onnx.checker with shape inference, strict,
which also compares the types that the file states), and run by ONNX Runtime where it can be imported. Writes verdicts.txt: a line a
case, its name, a tab, and nothing or what is wrong.
"""
import json
import struct
import sys

import numpy
import onnx

sys.dont_write_bytecode = True
try:
    import onnxruntime
    onnxruntime.set_default_logger_severity(4)
except ImportError:
    onnxruntime = None

FORMATS = {"BOOL": "?", "U8": "u1", "I32": "<i4", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}


def read_tensors(path):
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), f.read()
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] in FORMATS:
            begin, end = entry["data_offsets"]
            tensors[name] = numpy.frombuffer(data[begin:end], FORMATS[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def check(path):
    model = onnx.load(path)
    assert [o.version for o in model.opset_import] == [17], "another version of operators"
    onnx.checker.check_model(path, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


def difference(got, wanted, off):
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return f"{got.dtype}{got.shape} instead of {wanted.dtype}{wanted.shape}"
    if wanted.dtype.kind != "f":
        return "" if (got == wanted).all() else f"{got.ravel()[:8]} instead of {wanted.ravel()[:8]}"
    a, b = got.astype("f8"), wanted.astype("f8")
    same = (a == b) | (numpy.isnan(a) & numpy.isnan(b))
    with numpy.errstate(invalid="ignore"):
        close = numpy.abs(a - b) <= off * numpy.maximum(1, numpy.abs(b))
    bad = ~(same | close)
    return f"{a[bad][:6]} instead of {b[bad][:6]}, {bad.sum()} of {bad.size}" if bad.any() else ""


def run(path, case, given):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    assert len(inputs) == case["inputs"], f"{len(inputs)} inputs"
    got = session.run(None, {v.name: given[f"{case['name']}/in{i}"] for i, v in enumerate(inputs)})
    for i, value in enumerate(got):
        text = difference(numpy.asarray(value), given[f"{case['name']}/out{i}"], case["off"])
        if text:
            return f"result {i}: {text}"
    return ""


def main(folder):
    given = read_tensors(folder + "/in.safetensors")
    lines, without_kernel, ran = [], [], 0
    if onnxruntime is None:
        lines.append(("not run", "this Python has no onnxruntime; files were only checked"))
    for case in json.load(open(folder + "/cases.json")):
        path, verdict = f"{folder}/{case['name']}.onnx", ""
        try:
            check(path)
            if onnxruntime is not None and case["run"]:
                verdict = run(path, case, given)
                ran += 1
        except Exception as e:
            verdict = f"{type(e).__name__}: {e}"[:600]
            if "NotImplemented" in verdict:
                without_kernel.append(case["name"])
                verdict = ""
        lines.append((case["name"], " ".join(verdict.split())))
    lines.append(("ran", str(ran)))
    if without_kernel:
        lines.append(("not run", f"ONNX Runtime has no kernel for {' '.join(without_kernel)}"))
    with open(folder + "/verdicts.txt", "w") as f:
        f.writelines(f"{name}\t{text}\n" for name, text in lines)


if __name__ == "__main__":
    main(sys.argv[1])
