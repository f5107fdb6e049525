// Pooling on doubles, from its definition: every window as a list of positions. For the reference emitter and
// tests of poolings. Values only, one thread.
#pragma once

#include <cmath>
#include <vector>

#include "tandem/ops/op.h"

namespace tandem::test {

/// One axis of a pooling.
struct PoolAxis {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, padding = 0, dilation = 1;
  bool adaptive = false;
  /// Where window o lies: each of its positions, those of the padding below 0 or from `in` on.
  std::vector<int64_t> window(int64_t o) const;
};

inline std::vector<int64_t> PoolAxis::window(int64_t o) const {
  std::vector<int64_t> all;
  if (adaptive) {
    const double share = static_cast<double>(in) / static_cast<double>(out);
    const auto first = static_cast<int64_t>(std::floor(share * static_cast<double>(o) + 1e-9));
    const auto end = static_cast<int64_t>(std::ceil(share * static_cast<double>(o + 1) - 1e-9));
    for (int64_t i = first; i < end; ++i) all.push_back(i);
  } else {
    // What ceil_mode lets stick out beyond the padding is no part of the window.
    for (int64_t k = 0; k < kernel; ++k)
      if (const int64_t at = o * stride - padding + k * dilation; at < in + padding) all.push_back(at);
  }
  return all;
}

/// A pooling op of operands `in`; `sizes` of the first one, `out_sizes` as inferred. max_pool's places are
/// appended to `places`, in the plane or, if `small`, in the window; of the others with two operands `small`
/// says how the second one has them.
inline std::vector<double> reference_pool(const ops::OpDef& op,
                                          const std::vector<const std::vector<double>*>& in,
                                          const Dims& sizes, ops::Words words, const Dims& out_sizes,
                                          bool small = false, std::vector<double>* places = nullptr) {
  using ops::OpId;
  const std::vector<double>& x = *in[0];
  const bool largest = op.id == OpId::max_pool, maxima = largest || in.size() > 1,
             backward = op.id == OpId::avg_pool_backward || op.id == OpId::max_pool_backward;
  const auto start = static_cast<size_t>(op.structural_index(op.n_attrs - 1 - (backward && maxima)));
  const auto n_list = static_cast<size_t>(words[start]);
  const std::vector<int64_t> list(words.data() + start + 1, words.data() + start + 1 + n_list);
  const bool adaptive = words[1] != 0;
  const size_t each = adaptive ? 1 : maxima ? 4 : 3;
  const int rank = static_cast<int>(list.size() / (each + (backward && !maxima)));
  const Dims &in_sizes = backward ? out_sizes : sizes, &pooled = backward ? sizes : out_sizes;
  PoolAxis axes[2];
  for (int i = 0; i < rank; ++i) {
    PoolAxis& a = axes[2 - rank + i];
    const int64_t* own = list.data() + static_cast<size_t>(i) * each;
    a.in = in_sizes[in_sizes.rank() - rank + i];
    a.out = pooled[pooled.rank() - rank + i];
    a.adaptive = adaptive;
    if (adaptive) continue;
    a.kernel = own[0], a.stride = own[1], a.padding = own[2];
    if (each > 3) a.dilation = own[3];
  }
  const PoolAxis &y = axes[0], &right = axes[1];
  const int64_t widest = !right.adaptive             ? right.kernel
                         : right.in % right.out == 0 ? right.in / right.out
                                                     : right.in / right.out + 2;
  const int64_t in_plane = y.in * right.in, out_plane = y.out * right.out;
  const int64_t planes = in_plane == 0 ? 0 : numel(in_sizes) / in_plane;
  std::vector<double> result(static_cast<size_t>(numel(out_sizes)));
  for (int64_t p = 0; p < planes; ++p)
    for (int64_t o = 0; o < out_plane; ++o) {
      const std::vector<int64_t> rows = y.window(o / right.out), columns = right.window(o % right.out);
      std::vector<int64_t> held, names;  // positions in the plane, and how they are called
      int64_t row = 0;
      for (const int64_t i : rows) {
        int64_t column = 0;
        for (const int64_t j : columns) {
          if (i < 0 || i >= y.in || j < 0 || j >= right.in) continue;
          held.push_back(i * right.in + j);
          names.push_back(small ? row * widest + column : held.back());
          ++column;
        }
        row += i >= 0;
      }
      const auto element = [&](int64_t at) { return x[static_cast<size_t>(p * in_plane + at)]; };
      const auto to = static_cast<size_t>(p * out_plane + o);
      if (largest) {
        size_t best = 0;
        for (size_t k = 0; k < held.size(); ++k)
          if (element(held[k]) > element(held.at(best)) || std::isnan(element(held[k]))) best = k;
        result[to] = element(held.at(best));
        places->push_back(static_cast<double>(names[best]));
        continue;
      }
      if (maxima) {
        for (size_t k = 0; k < held.size(); ++k) {
          if (static_cast<double>(names[k]) != (*in[1])[to]) continue;
          if (backward)
            result[static_cast<size_t>(p * in_plane + held[k])] += x[to];
          else
            result[to] = element(held[k]);
        }
        continue;
      }
      const double divisor = words[3]
                                 ? static_cast<double>(words[3])
                                 : static_cast<double>(words[2] ? rows.size() * columns.size() : held.size());
      for (const int64_t at : held) {
        if (backward)
          result[static_cast<size_t>(p * in_plane + at)] += x[to] / divisor;
        else
          result[to] += element(at);
      }
      if (!backward && !held.empty()) result[to] /= divisor;
    }
  return result;
}

}  // namespace tandem::test
