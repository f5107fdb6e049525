// A kernel under construction with memory of its own, filled with numbers, and the comparison of the
// evaluator with the naive interpreter on it. Test support; one thread.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <utility>
#include <vector>

#include "tests/catch.h"
#include "tests/jit/naive_kernel.h"

namespace naive {

using ops::S;
using Sizes = std::vector<int64_t>;

inline constexpr int64_t kGuard = 64;  // elements after each buffer that must stay as they are

/// A kernel, its memory filled with numbers, and the comparison of two executions.
class Bench {
 public:
  Bench(KernelKind kind, const Sizes& kept, const Sizes& reduced, uint32_t seed = 1)
      : random_(seed), dims_(kept) {
    k.kind = kind;
    k.name = "test";
    k.kept_rank = static_cast<int>(kept.size());
    k.reduced_rank = static_cast<int>(reduced.size());
    dims_.insert(dims_.end(), reduced.begin(), reduced.end());
  }
  Kernel k;

  int rank() const { return static_cast<int>(dims_.size()); }
  int64_t range() const {
    int64_t n = 1;
    for (int d = 0; d < k.kept_rank; ++d) n *= dims_[static_cast<size_t>(d)];
    return n;
  }
  uint32_t draw(uint32_t n) { return static_cast<uint32_t>(random_() % n); }

  /// Row-major strides over the dimensions where `present` is set, 0 elsewhere.
  Sizes contiguous(
      const std::function<bool(int)>& present = [](int) { return true; }, int64_t step = 1) const {
    Sizes s(dims_.size());
    for (int d : order()) {
      if (!present(d)) continue;
      s[static_cast<size_t>(d)] = step;
      step *= dims_[static_cast<size_t>(d)];
    }
    return s;
  }
  Sizes row_strides() const {
    return contiguous([this](int d) { return d < k.kept_rank; });
  }

  S load(DType t, Sizes strides, bool row_level = false) {
    const int32_t buffer = add_buffer(t, strides, 0);
    k.loads.push_back({buffer, t, inner(strides, row_level), row_level});
    load_strides_.push_back(std::move(strides));
    return k.scalars.node(ScalarOp::load, t, {}, {}, {}, static_cast<int64_t>(k.loads.size()) - 1);
  }
  S load(DType t) { return load(t, contiguous()); }
  S load_row(DType t) { return load(t, row_strides(), true); }
  S load_at(DType t, S index, int64_t extent, int64_t stride, Sizes strides, bool row_level = false) {
    const int32_t buffer = add_buffer(t, strides, extent > 0 ? (extent - 1) * stride : 0);
    k.loads.push_back({buffer, t, inner(strides, row_level), row_level, index.id});
    strides.push_back(extent);
    strides.push_back(stride);
    load_strides_.push_back(std::move(strides));
    return k.scalars.node(ScalarOp::load, t, {}, {}, {}, static_cast<int64_t>(k.loads.size()) - 1);
  }
  S number(double x) {
    numbers_.push_back(std::bit_cast<int64_t>(x));
    return k.scalars.node(ScalarOp::number, DType::float64, {}, {}, {}, k.numbers++);
  }
  S integer(int64_t x) {
    numbers_.push_back(x);
    return k.scalars.node(ScalarOp::number, DType::int64, {}, {}, {}, k.numbers++);
  }
  S index() { return k.scalars.node(ScalarOp::index, DType::int64); }
  S reduce(ReduceOp op, S input) {
    const bool finds = op == ReduceOp::argmax || op == ReduceOp::argmin;
    const DType t = finds ? DType::int64 : input.type();
    k.reductions.push_back({op, input.id, t});
    return k.scalars.node(ScalarOp::reduced, t, {}, {}, {}, static_cast<int64_t>(k.reductions.size()) - 1);
  }
  void store(S value, Sizes strides, bool row_level = false) {
    const int32_t buffer = add_buffer(value.type(), strides, 0);
    k.stores.push_back({buffer, value.type(), inner(strides, row_level), row_level, value.id});
    store_strides_.push_back(std::move(strides));
  }
  void store(S value) { store(value, contiguous()); }
  void store_row(S value) { store(value, row_strides(), true); }
  /// Replaces load `l` in place.
  void store_over(S value, size_t l) {
    store(value, load_strides_[l], k.loads[l].row_level);
    k.stores.back().buffer = k.loads[l].buffer;
  }

  template <class T>
  T* data(int32_t buffer) {
    return reinterpret_cast<T*>(memory_[static_cast<size_t>(buffer)].data());
  }

  /// Both executions, whole and in two parts; returns the error word.
  int64_t check() {
    k.buffers = static_cast<int>(memory_.size());
    const std::vector<std::vector<char>> before = memory_;
    int64_t want_error = 0;
    naive::run(k, arguments(memory_, 0, range(), want_error));
    const std::vector<std::vector<char>> want = memory_;
    const ChunkFunctions* sets[3];
    const int n = runnable_chunk_functions(sets);
    for (int i = 0; i < n; ++i) {
      const Evaluator evaluator(k, sets[i]);
      const int64_t half = range() / 3;
      const std::vector<std::pair<int64_t, int64_t>> partitions[] = {{{0, range()}},
                                                                     {{half, range()}, {0, half}}};
      for (const auto& partition : partitions) {
        std::vector<std::vector<char>> got = before;
        int64_t error = 0;
        for (const auto& [begin, end] : partition) evaluator.run(arguments(got, begin, end, error));
        CAPTURE(sets[i]->name, partition.size());
        REQUIRE((error != 0) == (want_error != 0));
        compare(want, got);
      }
    }
    return want_error;
  }

  KernelArgs arguments(std::vector<std::vector<char>>& memory, int64_t begin, int64_t end, int64_t& error) {
    addresses_.clear();
    for (std::vector<char>& m : memory) addresses_.push_back(m.data());
    strides_.clear();
    for (const Sizes& s : load_strides_) strides_.insert(strides_.end(), s.begin(), s.end());
    for (const Sizes& s : store_strides_) strides_.insert(strides_.end(), s.begin(), s.end());
    return {addresses_.data(), dims_.data(), strides_.data(), numbers_.data(), begin, end, &error};
  }

  std::vector<std::vector<char>> memory_;

 private:
  /// Dimensions from the innermost.
  std::vector<int> order() const {
    std::vector<int> o;
    if (k.kind == KernelKind::column) o.push_back(k.kept_rank - 1);
    for (int d = rank() - 1; d >= 0; --d)
      if (k.kind != KernelKind::column || d != k.kept_rank - 1) o.push_back(d);
    return o;
  }
  Inner inner(const Sizes& strides, bool) const {
    const int d = k.kind == KernelKind::row ? rank() - 1 : k.kept_rank - 1;
    const int64_t s = d < 0 ? 1 : strides[static_cast<size_t>(d)];
    return s == 0 ? Inner::constant : s == 1 ? Inner::contiguous : Inner::strided;
  }
  int32_t add_buffer(DType t, const Sizes& strides, int64_t more) {
    int64_t n = 1 + more;
    for (size_t d = 0; d < dims_.size(); ++d) n += std::max<int64_t>(0, dims_[d] - 1) * strides[d];
    std::vector<double> values(static_cast<size_t>(n + kGuard));
    for (double& v : values) {
      const uint32_t how = draw(64);
      const double x = (static_cast<double>(draw(1u << 24)) / (1 << 23) - 1) * 3;
      v = is_floating(t) ? x : std::floor(x * (t == DType::int64 ? 1e9 : 40));
      if (how == 0) v = 0;
      if (how == 1 && is_floating(t)) v = -0.0;
      if (t == DType::uint8) v = std::abs(v);
      if (t == DType::bool_) v = draw(2);
    }
    std::vector<char> bytes(values.size() * static_cast<size_t>(itemsize(t)));
    kChunksV1.cast(DType::float64, t)(bytes.data(), values.data(), static_cast<int64_t>(values.size()));
    memory_.push_back(std::move(bytes));
    types_.push_back(t);
    return static_cast<int32_t>(memory_.size()) - 1;
  }

  void compare(const std::vector<std::vector<char>>& want, const std::vector<std::vector<char>>& got) {
    for (size_t b = 0; b < want.size(); ++b) {
      if (want[b] == got[b]) continue;
      const DType t = types_[b];
      const auto size = static_cast<size_t>(itemsize(t));
      for (size_t i = 0; i * size < want[b].size(); ++i) {
        if (std::memcmp(&want[b][i * size], &got[b][i * size], size) == 0) continue;
        double x = 0, y = 0;
        kChunksV1.cast(t, DType::float64)(&x, &want[b][i * size], 1);
        kChunksV1.cast(t, DType::float64)(&y, &got[b][i * size], 1);
        if (std::isnan(x) && std::isnan(y)) continue;
        CAPTURE(to_string(k), b, i, x, y);
        REQUIRE(x == y);
        FAIL("zeros of different sign");
      }
    }
  }

  std::mt19937 random_;
  Sizes dims_, strides_, numbers_;
  std::vector<Sizes> load_strides_, store_strides_;
  std::vector<DType> types_;
  std::vector<void*> addresses_;
};

}  // namespace naive
