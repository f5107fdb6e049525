// What checkpointed nodes of the tape share, and the nodes that a checkpointed function notes. Used by
// dispatch, which reports every node that it notes, and by backward. One thread.
#pragma once

#include <vector>

#include "tandem/eager/checkpoint.h"
#include "tandem/eager/tape.h"

namespace tandem::eager {

/// A checkpointed call, owned by the nodes that it noted.
struct Recompute {
  std::function<void()> again;
  TensorList arguments;
  std::vector<uint32_t> versions;  // of the arguments, before the call
  Modes modes;
  uint64_t seed = 0, offset = 0;  // of the default generator, before the call
  uint64_t first_sequence = 0;    // of the first node that the call could note
  std::vector<Node*> nodes;       // in order; null: died
};

/// A node's place in one.
struct Recomputed {
  std::shared_ptr<Recompute> of;
  size_t index = 0;
  std::vector<const core::Storage*> memory;  // of the operands whose values were dropped
  Recomputed(std::shared_ptr<Recompute> r, size_t i) : of(std::move(r)), index(i) {}
  ~Recomputed() { of->nodes[index] = nullptr; }
  Recomputed(const Recomputed&) = delete;
  Recomputed& operator=(const Recomputed&) = delete;
};

/// Who is told of nodes: a checkpoint in its forward (`dropping`), or the second call in backward, which
/// keeps them.
struct NotedNodes {
  std::shared_ptr<Recompute> dropping;
  std::vector<Ref<core::TapeNode>> kept;
  NotedNodes* around = nullptr;  // a second call that the checkpoint lies in
};
extern constinit thread_local NotedNodes* noted_nodes_;

void tell_noted(const Ref<core::TapeNode>& node);
/// A node was noted by an op or a custom function.
inline void node_noted(const Ref<core::TapeNode>& node) {
  if (noted_nodes_) [[unlikely]]
    tell_noted(node);
}

/// Runs the function that noted `n` again, and gives all of its nodes what they need.
void recompute(Node& n, Location where);

}  // namespace tandem::eager
