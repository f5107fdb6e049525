#include "tandem/jit/late.h"

#include <algorithm>

namespace tandem::jit {

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }
constexpr int32_t kLong = 64, kSoon = 16;  // nodes between two, in program order

int64_t bytes(const TensorType& t) {
  return checked_mul(numel(t.sizes), itemsize(t.dtype), "bytes of a value");
}

/// Whether another node reads `root` when `node` does, or later.
bool kept_until(const Prepared& p, int32_t root, int32_t node) {
  const std::vector<int32_t>& users = p.users[at(root)];
  auto user = std::lower_bound(users.begin(), users.end(), node - kSoon);
  while (user != users.end() && *user == node) ++user;
  return user != users.end();
}

}  // namespace

bool reads_again(const Prepared& p, int32_t node) {
  const Node& n = p.g.nodes[at(node)];
  if (ops::def(n.op).kind != ops::OpKind::pointwise) return false;
  int64_t most = 0;
  for (const int32_t v : n.in) {
    if (v < 0 || p.value_class(v) != ValueClass::memory) continue;
    const int32_t root = p.root(v);
    if (p.input_of(root) >= 0) continue;
    if (p.values_node(root) > node - kLong || !kept_until(p, root, node)) return false;
    most = std::max(most, bytes(p.g.type(root)));
  }
  return most > 0 && most / 4 <= bytes(p.g.type(n.out[0]));
}

}  // namespace tandem::jit
