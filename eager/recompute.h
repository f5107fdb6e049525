// What checkpointed nodes of the tape share, and the nodes that a checkpointed function notes. Used by
// dispatch, which reports every node that it notes with its operands, and by backward. One thread.
#pragma once

#include <vector>

#include "tandem/eager/checkpoint.h"
#include "tandem/eager/tape.h"

namespace tandem::eager {

/// Memory as an op found it. Never followed: what a call made for itself may be gone.
struct Use {
  const core::Storage* memory = nullptr;
  uint32_t version = 0;
};
using Uses = std::vector<Use>;

/// A checkpointed call, owned by the nodes that it noted.
struct Recompute {
  std::function<void()> again;
  TensorList arguments;
  std::vector<uint32_t> versions;  // of the arguments, before the call
  Modes modes;
  uint64_t seed = 0, offset = 0;      // of the default generator, before the call
  uint64_t first_sequence = 0;        // of the first node that the call could note
  std::vector<Node*> nodes;           // in order; null: died, or has what it needs
  bool running = true;                // the first call
  std::string never;                  // why it cannot run again; empty: it can
  std::shared_ptr<Recompute> around;  // whose second call made it: its function may refer to its arguments
  /// It will not run again: frees what it would need, and with that any cycle through what it captured.
  void give_up(std::string why);
};

/// A node's place in one.
struct Recomputed {
  std::shared_ptr<Recompute> of;
  size_t index = 0;
  Uses operands, saved;  // saved: by a custom function
  Recomputed(std::shared_ptr<Recompute> r, size_t i) : of(std::move(r)), index(i) {}
  ~Recomputed() { of->nodes[index] = nullptr; }
  Recomputed(const Recomputed&) = delete;
  Recomputed& operator=(const Recomputed&) = delete;
};

/// Who is told of nodes: a checkpoint in its forward (`dropping`), or the second call in backward, which
/// keeps them.
struct NotedNodes {
  struct Kept {
    Ref<core::TapeNode> node;
    Uses operands;
  };
  std::shared_ptr<Recompute> dropping, again;  // again: whose second call it is
  std::vector<Kept> kept;
  NotedNodes* around = nullptr;  // a second call that the checkpoint lies in
  /// Nodes of a traced call within belong to its record, which notes them or not: they are nobody's here.
  const Interceptor* interceptor = interceptor_;
};
extern constinit thread_local NotedNodes* noted_nodes_;

void tell_noted(const Ref<core::TapeNode>& node, std::span<TensorImpl* const> operands);
/// A node was noted by an op or a custom function with these operands (null: none).
inline void node_noted(const Ref<core::TapeNode>& node, std::span<TensorImpl* const> operands) {
  if (noted_nodes_) [[unlikely]]
    tell_noted(node, operands);
}

/// Runs the function that noted `n` again, and gives all of its nodes what they need.
void recompute(Node& n, Location where);

}  // namespace tandem::eager
