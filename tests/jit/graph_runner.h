// Runs graphs on generated memory and judges results: bit for bit between executables, and node by node
// against the float64 reference, each node being given the operands that the executable itself computed.
// Values only, one thread.
#pragma once

#include <string>
#include <vector>

#include "tandem/jit/executable.h"
#include "tests/elements.h"

namespace tandem::test {

/// 64-byte aligned memory between guard zones, whose bytes must stay what they are.
class GuardedBytes {
 public:
  explicit GuardedBytes(size_t size, unsigned char fill = 0xFF);
  char* data() { return bytes_.data() + offset_; }
  const char* data() const { return bytes_.data() + offset_; }
  size_t size() const { return size_; }
  bool guards_hold() const;
  GuardedBytes(const GuardedBytes& other) : GuardedBytes(other.size_) {
    std::copy_n(other.data(), size_, data());
  }
  GuardedBytes& operator=(const GuardedBytes&) = delete;
  GuardedBytes(GuardedBytes&&) = default;

 private:
  std::vector<char> bytes_;
  size_t size_, offset_;
};

/// What a graph is called with.
struct GraphArguments {
  std::vector<GuardedBytes> inputs;  // spans of the strided inputs
  std::vector<int64_t> numbers;      // words
};

struct GraphRun {
  int failed = 0;
  std::vector<GuardedBytes> outputs, inputs;  // inputs as they are afterwards
  bool guards_hold() const;
};

GraphRun run_graph(const jit::Executable& x, const jit::Graph& g, const GraphArguments& arguments);

/// The elements of `t`, which lie at `strides`, in row-major order.
std::vector<double> elements(const GuardedBytes& bytes, const ops::TensorType& t, const Dims& strides);

/// Empty if both runs gave the same bits (any NaN equals any other); else which element of what differs.
std::string difference(const jit::Graph& g, const GraphRun& a, const GraphRun& b);

struct Judgement {
  std::string mismatch;          // empty: all nodes agree with the reference
  int checked = 0, skipped = 0;  // nodes; skipped are those with integers beyond 2^52
};
/// Runs `primitives` (a graph without composites) with one kernel per node and every value an output. `run`
/// is handed out.
Judgement judge_nodes(const jit::Graph& primitives, const GraphArguments& arguments, GraphRun* run = nullptr);

}  // namespace tandem::test
