// operator<<: nested brackets in the manner of PyTorch, long axes cut to their first and last three entries.
#include <cmath>
#include <cstdio>
#include <ostream>

#include "tandem/eager/tensor.h"

namespace tandem {

namespace {

constexpr int64_t kEdge = 3, kWhole = 1000;

std::string entry(const Tensor& t, double v) {
  if (t.dtype() == DType::bool_) return v != 0 ? "true" : "false";
  char text[32];
  std::snprintf(text, sizeof text, is_floating(t.dtype()) ? "%.5g" : "%.0f", v);
  std::string s = text;
  if (is_floating(t.dtype()) && std::isfinite(v) && s.find_first_of(".e") == std::string::npos) s += '.';
  return s;
}

void print(std::ostream& out, const Tensor& t, const std::vector<double>& values, int axis, int64_t offset,
           bool cut) {
  const Dims& d = t.sizes();
  if (axis == d.rank()) {
    out << entry(t, values[static_cast<size_t>(offset)]);
    return;
  }
  int64_t step = 1;
  for (int i = axis + 1; i < d.rank(); ++i) step *= d[i];
  out << '[';
  for (int64_t i = 0; i < d[axis]; ++i) {
    if (cut && d[axis] > 2 * kEdge && i == kEdge) {
      out << ", ...";
      i = d[axis] - kEdge;
    }
    if (i) out << (axis + 1 == d.rank() ? ", " : ",\n" + std::string(static_cast<size_t>(axis) + 1, ' '));
    print(out, t, values, axis + 1, offset + i * step, cut);
  }
  out << ']';
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Tensor& t) {
  if (!t.defined()) return out << "undefined tensor";
  const std::vector<double> values = t.to_vector<double>();
  print(out, t, values, 0, 0, t.numel() > kWhole);
  out << " " << name(t.dtype()) << to_string(t.sizes());
  return out;
}

}  // namespace tandem
