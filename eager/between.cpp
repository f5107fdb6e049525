#include "tandem/eager/between.h"

#include <algorithm>

namespace tandem::eager {

Between::Between(const WalkRequest& request) : inputs_(request.inputs) {
  uint64_t first = UINT64_MAX;
  for (const Edge& input : inputs_) {
    if (input.node) makers_.push_back(node_of(input));
    first = std::min(first, input.node ? node_of(input)->sequence : 0);
  }
  for (const Ref<TensorImpl>& root : request.roots)
    if (const Edge edge = edge_of(root.get()); edge.node) search(node_of(edge), first);
}

bool Between::leads(const Node* n) const {
  const auto at = leads_.find(n);
  return at != leads_.end() && at->second;
}

bool Between::wants(const Edge& edge) const {
  if (edge.leaf)
    return std::any_of(inputs_.begin(), inputs_.end(), [&](const Edge& e) { return e.leaf == edge.leaf; });
  const Node* n = node_of(edge);
  return leads(n) || std::find(makers_.begin(), makers_.end(), n) != makers_.end();
}

// Notes the nodes behind `root`, but for those that are older than all that is asked for.
void Between::search(Node* root, uint64_t first) {
  struct Step {
    Node* n;
    size_t next;  // operand
  };
  std::vector<Step> path;
  const auto enter = [&](Node* n) {
    if (n->sequence >= first && leads_.try_emplace(n, false).second) path.push_back({n, 0});
  };
  enter(root);
  while (!path.empty()) {
    Step& s = path.back();
    if (s.next == s.n->in.size()) {
      bool& found = leads_[s.n];
      for (const Node::In& in : s.n->in) found = found || (in.edge && wants(in.edge));
      path.pop_back();
      continue;
    }
    const Edge& edge = s.n->in[s.next++].edge;
    if (edge.node) enter(node_of(edge));
  }
}

}  // namespace tandem::eager
