// Helpers of the tracer's tests: the same program run eagerly and traced, and what it produced compared bit
// for bit.
#pragma once

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tandem/eager/autograd.h"
#include "tandem/eager/functions.h"
#include "tandem/tracer/mechanisms.h"
#include "tandem/tracer/trace.h"

namespace programs {

namespace td = tandem;
using Values = std::vector<float>;

inline void append(Values& out, const td::Tensor& t) {
  if (!t.defined()) {
    out.push_back(-12345.f);
    return;
  }
  const Values v = t.to_vector<float>();
  out.insert(out.end(), v.begin(), v.end());
}

/// A function of tensors that a program calls: traced or as it is.
template <class F>
std::function<td::Tensor(td::Tensor)> wrapped(bool traced, F f) {
  if (!traced) return f;
  return td::trace(std::move(f));
}

inline bool equal_bits(const Values& a, const Values& b) {
  if (a.size() != b.size()) return false;
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Runs `program(traced)` both ways; true if the values are equal bit for bit.
template <class Program>
bool same(Program&& program) {
  td::manual_seed(11);
  const Values eager = program(false);
  td::manual_seed(11);
  const Values traced = program(true);
  return equal_bits(eager, traced);
}

inline td::Tensor range(int64_t n, float first = 1) {
  return td::arange(first, first + static_cast<float>(n));
}

inline td::Tensor leaf(int64_t n, float first = 1) { return range(n, first).requires_grad_(); }

/// True if `f` throws and the message contains `part`.
inline bool throws(const std::function<void()>& f, const std::string& part) {
  try {
    f();
  } catch (const std::exception& e) {
    return std::string(e.what()).find(part) != std::string::npos;
  }
  return false;
}

/// Switches a mechanism off for a scope.
class Off {
 public:
  explicit Off(td::tracer::Mechanism m) {
    td::tracer::mechanisms_off = uint64_t{1} << static_cast<uint32_t>(m);
  }
  ~Off() { td::tracer::mechanisms_off = 0; }
};

}  // namespace programs
