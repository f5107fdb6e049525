// A graph with what it is called with, as an ONNX model, for tests that make graphs themselves. Values; one
// thread.
#pragma once

#include <fstream>

#include "tandem/io/onnx_ops.h"

namespace tandem::test {

struct OnnxProgram {
  jit::Graph graph;
  std::vector<io::OnnxNumber> numbers;
  std::vector<Tensor> inputs;
};

inline void write_onnx(const OnnxProgram& program, const std::string& path, Location where = {}) {
  io::OnnxModel m("program");
  std::vector<io::OnnxValue> inputs;
  for (const jit::Input& in : program.graph.inputs) {
    const ops::TensorType& t = program.graph.type(in.value);
    inputs.push_back(m.input("arg" + std::to_string(inputs.size()), {t.dtype, t.sizes}));
  }
  size_t n = 0;
  for (const io::OnnxValue v : add_graph(m, program.graph, inputs, program.numbers))
    m.output(v, "output" + std::to_string(n++));
  // Thousands of files, none of which waits for the disk.
  m.write(path, where, io::kMaxOnnxBytes,
          [](const std::string& to, std::span<const core::ByteSpan> pieces, Location) {
            std::ofstream file(to, std::ios::binary);
            for (const core::ByteSpan p : pieces)
              file.write(reinterpret_cast<const char*>(p.data()), static_cast<std::streamsize>(p.size()));
          });
}

}  // namespace tandem::test
