"""tests/io/list_events.py FOLDER

Prints what TensorBoard itself finds in a folder of event files, a line for each value: kind, tag, step, value."""
import sys

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

events = event_accumulator.EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
events.Reload()
tags = events.Tags()
for tag in sorted(tags["scalars"]):
    for e in events.Scalars(tag):
        print("scalar", tag, e.step, e.value)
for tag in sorted(tags["histograms"]):
    for e in events.Histograms(tag):
        h = e.histogram_value
        print("histogram", tag, e.step, h.num, h.min, h.max, len(h.bucket), sum(h.bucket))
for tag in sorted(tags["tensors"]):
    for e in events.Tensors(tag):
        print("text", tag, e.step, tensor_util.make_ndarray(e.tensor_proto)[0].decode())
