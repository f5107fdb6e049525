// From a stretch of a record to a pure Graph: cells become values, in-place ops new values of their cells,
// views of changed memory are taken again from the current value. Used while a plan is built; one thread.
#pragma once

#include <stdexcept>

#include "tandem/tracer/frame.h"

namespace tandem::tracer {

/// The stretch cannot be expressed as a graph; it runs op by op then, and the report says why.
struct NotAGraph : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Lowering {
 public:
  /// `made`: by handle, results made in this stretch.
  Lowering(const Record& record, std::vector<char> made)
      : r_(record), made_(std::move(made)), emitter_(graph_, false) {}

  /// Told of every op of the stretch before the first `op`.
  void announce(const Entry& e);
  /// `origin`: of the nodes that the call becomes.
  void op(const Entry& e, const eager::Call& call, int32_t origin);
  /// Values of the cells at the end, in order, become the outputs; external cells that changed are written.
  void finish(const std::vector<uint32_t>& output_cells);

  /// The value of a cell that the ops so far made or changed.
  ops::Value cell(uint32_t c) const { return cell_value_.at(c); }

  jit::Graph& graph() { return graph_; }
  const std::vector<uint32_t>& inputs() const { return inputs_; }
  const std::vector<uint32_t>& numbers() const { return numbers_; }

 private:
  ops::Value value_of(uint32_t handle);
  ops::Value view_of(const Entry& view, ops::Value base);
  void set_value(uint32_t handle, ops::Value v);
  ops::Value unview(const Entry& view, uint32_t handle, ops::Value base, ops::Value v);
  ops::Value input(uint32_t handle);
  ops::Value number(const Entry& e, const eager::Call& call, int word);
  const HandleInfo& info(uint32_t handle) const { return r_.infos[handle]; }

  struct Memo {
    ops::Value value;
    uint32_t changes = 0;
  };
  const Record& r_;
  std::vector<char> made_;
  jit::Graph graph_;
  jit::GraphEmitter emitter_;
  std::vector<uint32_t> inputs_, numbers_;
  std::unordered_map<uint32_t, ops::Value>
      number_value_;                                     // by word: one number of the graph, whoever uses it
  std::unordered_map<uint32_t, ops::Value> cell_value_;  // current value of cells made or changed here
  std::unordered_map<uint32_t, uint32_t> changes_;       // writes to a cell so far
  std::unordered_map<uint32_t, ops::Value> input_value_;
  std::unordered_map<uint32_t, Memo> views_;
  std::vector<uint32_t> changing_;  // cells that the stretch writes
  std::vector<uint32_t> moving_;    // cells with views whose position changes
  std::vector<uint32_t> written_;   // external cells, in order of their first write
};

}  // namespace tandem::tracer
