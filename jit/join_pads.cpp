// Sums of tensors that hold zeros where the others have their elements: what the gradients of slices that
// together are all of a tensor add up to. Such a sum is a concatenation. Adding 0 makes +0 of -0, so each
// part has 0 added to it, which its maker or reader does on the way; else its elements keep their bits.
#include <algorithm>

#include "tandem/jit/rewrite.h"

namespace tandem::jit {

namespace {

constexpr size_t kMostParts = 32;

class Joiner {
 public:
  explicit Joiner(const Graph& g) : g_(g), rewrite_(g), uses_(g.values.size(), 0), pads_(g.values.size(), 0) {
    const auto use = [&](int32_t v) {
      if (v >= 0) ++uses_[static_cast<size_t>(v)];
    };
    for (const Node& n : g.nodes)
      for (const int32_t v : n.in) use(v);
    for (const int32_t v : g.outputs) use(v);
    for (const Write& w : g.writes) use(w.value);
    for (const Node& n : g.nodes) {
      if (n.out.empty()) continue;
      size_t& count = pads_[static_cast<size_t>(n.out[0])];
      if (is_op(n, OpId::pad)) count = 1;
      if (!is_op(n, OpId::add)) continue;
      const size_t a = pads_[static_cast<size_t>(n.in[0])], b = pads_[static_cast<size_t>(n.in[1])];
      if (a > 0 && b > 0 && a + b <= kMostParts) count = a + b;
    }
  }

  Graph run() {
    for (const Node& n : g_.nodes) {
      const int32_t joined = is_op(n, OpId::add) ? join(n) : -1;
      rewrite_.name(n, joined >= 0 ? joined : rewrite_.copy(n));
    }
    return rewrite_.finish();
  }

 private:
  /// The pads that `v` is the sum of; false if there is anything else in it.
  bool pads_of(int32_t v, const TensorType& type, bool root, std::vector<const Node*>& pads) const {
    const Node& n = g_.node_of(v);
    if (pads.size() == kMostParts || !(g_.type(v) == type)) return false;
    if (!root && uses_[static_cast<size_t>(v)] != 1) return false;
    if (is_op(n, OpId::add))
      return pads_of(n.in[0], type, false, pads) && pads_of(n.in[1], type, false, pads);
    if (!is_op(n, OpId::pad)) return false;
    pads.push_back(&n);
    return true;
  }

  int32_t join(const Node& n) {
    const TensorType& type = g_.type(n.out[0]);
    if (pads_[static_cast<size_t>(n.out[0])] == 0 || type.number || type.dtype == DType::bool_) return -1;
    std::vector<const Node*> pads;
    if (!pads_of(n.out[0], type, true, pads)) return -1;
    const auto axis = [&](const Node* pad) {
      return normalize_axis(pad->words[0], type.sizes.rank(), "pad", pad->where);
    };
    const int along = axis(pads[0]);
    std::sort(pads.begin(), pads.end(),
              [](const Node* a, const Node* b) { return a->words[1] < b->words[1]; });
    int64_t end = 0;
    for (const Node* pad : pads) {
      if (axis(pad) != along || pad->words[1] != end) return -1;
      end += g_.type(pad->in[0]).sizes[along];
    }
    if (end != type.sizes[along]) return -1;
    GraphEmitter e(rewrite_.to, false);
    e.location = n.where;
    e.origin = n.origin;
    std::vector<ops::Value> parts;
    for (const Node* pad : pads) {
      const ops::Value part{rewrite_[pad->in[0]]};
      parts.push_back(is_floating(type.dtype) ? e.add(part, 0.0) : part);
    }
    const int64_t word = along;
    ops::Value joined;
    e.emit(OpId::cat, parts, {&word, 1}, &joined);
    return joined.id;
  }

  const Graph& g_;
  Rewrite rewrite_;
  std::vector<int32_t> uses_;
  std::vector<size_t> pads_;  // per value: the pads in its sum; 0: there is something else, or too many
};

}  // namespace

Graph join_pads(const Graph& g) { return Joiner(g).run(); }

}  // namespace tandem::jit
