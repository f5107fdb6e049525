// A kernel read literally: each element of the space by itself, straight from the definitions in
// jit/kernel.h, slowly. The scalar functions are those of the oldest instruction set (their own tests compare
// them with the C library); all else (addressing, levels, reduction trees) is written here a second time.
// Test support; one thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

#include "tandem/jit/evaluator_chunks.h"
#include "tandem/jit/kernel.h"

namespace naive {

using namespace tandem;
using namespace tandem::jit;
using ops::ScalarNode;
using ops::ScalarOp;

using Word = int64_t;  // the bits of one element, of any type

class Interpreter {
 public:
  Interpreter(const Kernel& k, const KernelArgs& args) : k_(k), a_(args) {
    kept_ = product(0, k.kept_rank);
    reduced_ = product(k.kept_rank, k.reduced_rank);
  }

  void run() {
    // Stores may replace operands: all are made after all values are known.
    for (int64_t c = a_.begin; c < a_.end; ++c) {
      column_ = c;
      totals_.clear();
      if (k_.kind == KernelKind::pointwise) {
        element(0, false);
        continue;
      }
      for (int64_t r = 0; r < reduced_; ++r) element(r, false);
      element(0, true);
    }
    for (const Write& w : writes_) std::memcpy(w.to, &w.word, w.size);
  }

 private:
  struct Write {
    char* to;
    Word word;
    size_t size;
  };
  struct Best {
    Word value = 0;
    int64_t index = -1;
  };

  int64_t product(int from, int n) const {
    int64_t p = 1;
    for (int d = from; d < from + n; ++d) p *= a_.dims[d];
    return p;
  }
  int rank() const { return k_.kept_rank + k_.reduced_rank; }

  void element(int64_t r, bool rows) {
    position_ = r;
    values_.clear();
    for (size_t s = 0; s < k_.stores.size(); ++s) {
      const Store& o = k_.stores[s];
      if (k_.kind != KernelKind::pointwise && o.row_level != rows) continue;
      char* to = static_cast<char*>(a_.buffers[o.buffer]) +
                 offset(k_.loads.size() + s, o.row_level) * itemsize(o.dtype);
      writes_.push_back({to, value(o.value), static_cast<size_t>(itemsize(o.dtype))});
    }
  }

  int64_t offset(size_t access, bool row_level) const {
    const int64_t* s = a_.strides;
    for (size_t i = 0; i < access; ++i) s += rank() + (i < k_.loads.size() && k_.loads[i].index >= 0 ? 2 : 0);
    int64_t sum = 0, c = column_, r = position_;
    for (int d = k_.kept_rank - 1; d >= 0; --d) sum += c % a_.dims[d] * s[d], c /= a_.dims[d];
    if (k_.kind == KernelKind::pointwise || row_level) return sum;
    for (int d = rank() - 1; d >= k_.kept_rank; --d) sum += r % a_.dims[d] * s[d], r /= a_.dims[d];
    return sum;
  }

  Word value(int32_t id) {
    const auto it = values_.find(id);
    if (it != values_.end()) return it->second;
    const Word w = compute(id);
    values_[id] = w;
    return w;
  }

  Word compute(int32_t id) {
    const ScalarNode& n = k_.scalars[id];
    Word out = 0;
    switch (n.op) {
      case ScalarOp::load:
        return load(static_cast<size_t>(n.bits));
      case ScalarOp::number:
        return a_.numbers[n.bits];
      case ScalarOp::constant: {
        double d;
        std::memcpy(&d, &n.bits, sizeof d);
        if (is_floating(n.type))
          kChunksV1.cast(DType::float64, n.type)(&out, &d, 1);
        else
          kChunksV1.cast(DType::int64, n.type)(&out, &n.bits, 1);
        return out;
      }
      case ScalarOp::index: {
        if (k_.kind != KernelKind::column) return column_ * reduced_ + position_;
        const int64_t inner = a_.dims[k_.kept_rank - 1];
        return (column_ / inner * reduced_ + position_) * inner + column_ % inner;
      }
      case ScalarOp::reduced:
        return reduction(static_cast<size_t>(n.bits));
      default:
        break;
    }
    Word in[3] = {};
    for (int j = 0; j < ops::arity(n.op); ++j) in[j] = value(n.in[j]);
    const DType t = k_.scalars[n.in[0]].type;
    if (n.op == ScalarOp::cast)
      kChunksV1.cast(t, n.type)(&out, &in[0], 1);
    else if (ops::arity(n.op) == 1)
      kChunksV1.unary(n.op, t)(&out, &in[0], 1);
    else if (ops::arity(n.op) == 2)
      kChunksV1.binary(n.op, t, 0)(&out, &in[0], &in[1], 1);
    else
      kChunksV1.ternary(n.op, n.type, 0)(&out, &in[0], &in[1], &in[2], 1);
    return out;
  }

  Word load(size_t l) {
    const Load& load = k_.loads[l];
    int64_t at = offset(l, load.row_level);
    if (load.index >= 0) {
      const int64_t* s = a_.strides;
      for (size_t i = 0; i <= l; ++i) s += rank() + (i < l && k_.loads[i].index >= 0 ? 2 : 0);
      const int64_t i = value(load.index);
      if (i >= 0 && i < s[0])
        at += i * s[1];
      else
        *a_.error = static_cast<int64_t>(l) + 1;
    }
    Word w = 0;
    const auto size = static_cast<size_t>(itemsize(load.dtype));
    std::memcpy(&w, static_cast<const char*>(a_.buffers[load.buffer]) + static_cast<int64_t>(size) * at,
                size);
    return w;
  }

  // --- Reductions: the trees, in words ---

  Word identity(ReduceOp op, DType t) {
    double f = 0;
    int64_t i = 0;
    switch (op) {
      case ReduceOp::prod:
        f = 1, i = 1;
        break;
      case ReduceOp::max:
        f = -__builtin_inf(), i = INT64_MIN;
        break;
      case ReduceOp::min:
        f = __builtin_inf(), i = INT64_MAX;
        break;
      default:
        break;
    }
    Word w = 0;
    if (is_floating(t))
      kChunksV1.cast(DType::float64, t)(&w, &f, 1);
    else
      w = i;
    return w;
  }
  bool test(ScalarOp op, DType t, Word a, Word b) {
    uint8_t flag = 0;
    kChunksV1.binary(op, t, 0)(&flag, &a, &b, 1);
    return flag != 0;
  }
  Best join(ReduceOp op, DType t, Best a, Best b) {
    Best out;
    const auto apply = [&](ScalarOp f) { kChunksV1.binary(f, t, 0)(&out.value, &a.value, &b.value, 1); };
    switch (op) {
      case ReduceOp::sum:
        apply(ScalarOp::add);
        return out;
      case ReduceOp::prod:
        apply(ScalarOp::mul);
        return out;
      case ReduceOp::max:
        apply(ScalarOp::max);
        return out;
      case ReduceOp::min:
        apply(ScalarOp::min);
        return out;
      default:
        break;
    }
    if (a.index < 0 || b.index < 0) return a.index < 0 ? b : a;
    const bool nan_a = test(ScalarOp::ne, t, a.value, a.value),
               nan_b = test(ScalarOp::ne, t, b.value, b.value);
    if (nan_a || nan_b) {
      if (nan_a && nan_b) return a.index < b.index ? a : b;
      return nan_a ? a : b;
    }
    if (test(ScalarOp::eq, t, a.value, b.value)) return a.index < b.index ? a : b;
    return test(op == ReduceOp::argmax ? ScalarOp::gt : ScalarOp::lt, t, a.value, b.value) ? a : b;
  }

  Word reduction(size_t r) {
    const auto it = totals_.find(r);
    if (it != totals_.end()) return it->second;
    const Reduction& red = k_.reductions[r];
    const DType t = k_.scalars[red.input].type;
    const bool finds = red.op == ReduceOp::argmax || red.op == ReduceOp::argmin;
    const Best none{finds ? 0 : identity(red.op, t), -1};
    const std::map<int32_t, Word> values = values_;
    const int64_t position = position_;
    const auto input = [&](int64_t i) {
      position_ = i;
      values_.clear();
      return Best{value(red.input), i};
    };
    Best total = none;
    const int64_t block_size = reduction_block(k_, reduced_);
    for (int64_t b = 0; b < reduced_; b += block_size) {
      const int64_t end = std::min(reduced_, b + block_size);
      Best block = none;
      if (k_.kind == KernelKind::column) {
        for (int64_t i = b; i < end; ++i) block = join(red.op, t, block, input(i));
      } else {
        std::vector<Best> lanes(kLanes, none);
        for (int64_t i = b; i < end; ++i) {
          Best& lane = lanes[static_cast<size_t>((i - b) % kLanes)];
          lane = join(red.op, t, lane, input(i));
        }
        for (size_t half = kLanes / 2; half > 0; half /= 2)
          for (size_t l = 0; l < half; ++l) lanes[l] = join(red.op, t, lanes[l], lanes[l + half]);
        block = lanes[0];
      }
      total = b == 0 ? block : join(red.op, t, total, block);
    }
    position_ = position;
    values_ = values;
    const Word result = finds ? total.index : total.value;
    totals_[r] = result;
    return result;
  }

  const Kernel& k_;
  const KernelArgs& a_;
  int64_t kept_ = 1, reduced_ = 1, column_ = 0, position_ = 0;
  std::map<int32_t, Word> values_;
  std::map<size_t, Word> totals_;
  std::vector<Write> writes_;
};

inline void run(const Kernel& k, const KernelArgs& args) { Interpreter(k, args).run(); }

}  // namespace naive
