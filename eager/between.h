// Which part of a tape autograd::grad walks. Made for one walk, whose request it refers to; one thread.
#pragma once

#include <unordered_map>
#include <vector>

#include "tandem/eager/tape.h"

namespace tandem::eager {

/// The node that gradients along an edge go to.
inline Node* node_of(const Edge& edge) {
  Node* n = as_node(edge.node.get());
  if (n->extras && n->extras->stands_for) [[unlikely]]
    n = as_node(n->extras->stands_for.get());
  return n;
}

/// The nodes between the roots and what is asked for: no other is run, or freed.
class Between {
 public:
  explicit Between(const WalkRequest& request);

  /// Whether a way from the node ends at an input.
  bool leads(const Node* n) const;
  /// Whether gradients along the edge are wanted.
  bool wants(const Edge& edge) const;

 private:
  void search(Node* root, uint64_t first);

  const std::vector<Edge>& inputs_;
  std::vector<const Node*> makers_;  // of inputs
  std::unordered_map<const Node*, bool> leads_;
};

}  // namespace tandem::eager
