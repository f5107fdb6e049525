// What a Kernel means, as plainly as it can be said: element by element, the trees of kernel.h spelled out.
// Slow; for tests of the evaluator and of printed code. Any thread.
#pragma once

#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/jit/kernel.h"

namespace tandem::jit::samples {

namespace plain_prelude {
#include "tandem/jit/prelude.h"
}

class PlainKernel {
 public:
  PlainKernel(const Kernel& k, const KernelArgs& a) : k_(k), a_(a) {
    int64_t offset = 0;
    for (const Load& l : k.loads) {
      offsets_.push_back(offset);
      offset += rank() + (l.index >= 0 ? 2 : 0);
    }
    for (size_t s = 0; s < k.stores.size(); ++s) {
      offsets_.push_back(offset);
      offset += rank();
    }
    for (int d = k.kept_rank; d < rank(); ++d) n_ *= a.dims[d];
  }

  void run() {
    for (int64_t kept = a_.begin; kept < a_.end; ++kept) {
      kept_ = kept;
      totals_.clear();
      // All values before any store: a result may replace an operand.
      std::vector<std::function<void()>> writes;
      for (size_t s = 0; s < k_.stores.size(); ++s) {
        const Store& store = k_.stores[s];
        const bool once = store.row_level || k_.kind == KernelKind::pointwise;
        for (int64_t r = 0; r < (once ? 1 : n_); ++r) {
          seen_.clear();
          char* p = static_cast<char*>(a_.buffers[store.buffer]) +
                    address(k_.loads.size() + s, r) * itemsize(store.dtype);
          const Word v = value(store.value, r);
          writes.push_back([=] { std::memcpy(p, &v, static_cast<size_t>(itemsize(store.dtype))); });
        }
      }
      for (const auto& write : writes) write();
    }
  }

 private:
  using Word = int64_t;  // the value's bytes first
  template <class T>
  static T as(Word w) {
    T v;
    std::memcpy(&v, &w, sizeof v);
    return v;
  }
  template <class T>
  static Word word(T v) {
    Word w = 0;
    std::memcpy(&w, &v, sizeof v);
    return w;
  }
  // f of a value of the type's C++ type.
  template <class F>
  static Word typed(DType t, const F& f) {
    switch (t) {
      case DType::bool_:
        return f(false);
      case DType::uint8:
        return f(uint8_t{});
      case DType::int32:
        return f(int{});
      case DType::int64:
        return f(long{});
      case DType::float16:
      case DType::bfloat16:
        return f(uint16_t{});
      case DType::float32:
        return f(float{});
      case DType::float64:
        return f(double{});
    }
    return 0;
  }

  int rank() const { return k_.kept_rank + k_.reduced_rank; }
  int64_t address(size_t slot, int64_t r) const {
    int64_t at = 0, rest = r;
    for (int d = rank() - 1; d >= k_.kept_rank; --d) {
      at += rest % std::max<int64_t>(a_.dims[d], 1) * a_.strides[offsets_[slot] + d];
      rest /= std::max<int64_t>(a_.dims[d], 1);
    }
    rest = kept_;
    for (int d = k_.kept_rank - 1; d >= 0; --d) {
      at += rest % a_.dims[d] * a_.strides[offsets_[slot] + d];
      rest /= a_.dims[d];
    }
    return at;
  }

  Word value(int32_t i, int64_t r) {
    const auto [it, fresh] = seen_.try_emplace(i, 0);
    if (!fresh) return it->second;
    const Word v = compute(i, r);
    return seen_[i] = v;
  }

  Word compute(int32_t i, int64_t r) {
    using namespace plain_prelude;
    const ops::ScalarNode& n = k_.scalars[i];
    const auto slot = static_cast<size_t>(n.bits);
    switch (n.op) {
      case ops::ScalarOp::load: {
        const Load& l = k_.loads[slot];
        int64_t at = address(slot, r);
        if (l.index >= 0) {
          const int64_t index = value(l.index, r), *extent = a_.strides + offsets_[slot] + rank();
          if (index < 0 || index >= extent[0])
            *a_.error = n.bits + 1;
          else
            at += index * extent[1];
        }
        Word w = 0;
        std::memcpy(&w, static_cast<const char*>(a_.buffers[l.buffer]) + at * itemsize(l.dtype),
                    static_cast<size_t>(itemsize(l.dtype)));
        return w;
      }
      case ops::ScalarOp::number:
        return a_.numbers[slot];
      case ops::ScalarOp::constant: {
        if (n.type == DType::float32) return word(static_cast<float>(as<double>(n.bits)));
        return typed(n.type, [&]<class T>(T) {
          return n.type == DType::float64 ? n.bits : word(static_cast<T>(n.bits));
        });
      }
      case ops::ScalarOp::index:
        return kept_ * n_ + r;
      case ops::ScalarOp::reduced:
        return total(n.bits);
      default:
        break;
    }
    Word in[3] = {};
    for (int j = 0; j < ops::arity(n.op); ++j) in[j] = value(n.in[j], r);
    if (n.op == ops::ScalarOp::select) return as<bool>(in[0]) ? in[1] : in[2];
    if (n.op == ops::ScalarOp::uniform) return word(td_uniform(in[0], in[1], in[2]));
    if (n.op == ops::ScalarOp::uniform16) return word(td_uniform16(in[0], in[1], in[2]));
    if (n.op == ops::ScalarOp::normal) return word(td_normal(in[0], in[1], in[2]));
    const DType type = k_.scalars[n.in[0]].type;
    if (n.op == ops::ScalarOp::cast) return cast(in[0], type, n.type);
    return typed(type, [&]<class T>(T) -> Word {
      if constexpr (std::is_same_v<T, uint16_t>)
        return 0;
      else
        return apply<T>(n.op, as<T>(in[0]), as<T>(in[1]), as<T>(in[2]));
    });
  }

  template <class T>
  static Word apply(ops::ScalarOp op, T a, T b, T c) {
    using namespace plain_prelude;
    using ops::ScalarOp;
    switch (op) {
      case ScalarOp::eq:
        return word(a == b);
      case ScalarOp::ne:
        return word(a != b);
      case ScalarOp::lt:
        return word(a < b);
      case ScalarOp::le:
        return word(a <= b);
      case ScalarOp::gt:
        return word(a > b);
      case ScalarOp::ge:
        return word(a >= b);
      default:
        break;
    }
    if constexpr (std::is_same_v<T, bool>) {
      if (op == ScalarOp::logical_and) return word(a && b);
      if (op == ScalarOp::logical_or) return word(a || b);
      if (op == ScalarOp::logical_xor) return word(a != b);
      if (op == ScalarOp::logical_not) return word(!a);
      if (op == ScalarOp::bit_and) return word(a && b);
      if (op == ScalarOp::bit_or) return word(a || b);
      if (op == ScalarOp::bit_xor) return word(a != b);
    } else {
      if (op == ScalarOp::add) return word(td_add(a, b));
      if (op == ScalarOp::sub) return word(td_sub(a, b));
      if (op == ScalarOp::mul) return word(td_mul(a, b));
      if (op == ScalarOp::mod) return word(td_mod(a, b));
      if (op == ScalarOp::min) return word(td_min(a, b));
      if (op == ScalarOp::max) return word(td_max(a, b));
      if (op == ScalarOp::neg) return word(td_neg(a));
      if (op == ScalarOp::abs) return word(td_abs(a));
      if constexpr (std::is_integral_v<T>) {
        if (op == ScalarOp::idiv) return word(td_idiv(a, b));
        if (op == ScalarOp::bit_and) return word(static_cast<T>(a & b));
        if (op == ScalarOp::bit_or) return word(static_cast<T>(a | b));
        if (op == ScalarOp::bit_xor) return word(static_cast<T>(a ^ b));
        if (op == ScalarOp::shl) return word(td_shl(a, b));
        if (op == ScalarOp::shr) return word(td_shr(a, b));
      } else {
        switch (op) {
          case ScalarOp::div:
            return word(a / b);
          case ScalarOp::fma:
            return word(td_fma(a, b, c));
          case ScalarOp::sqrt:
            return word(td_sqrt(a));
          case ScalarOp::exp:
            return word(td_exp(a));
          case ScalarOp::expm1:
            return word(td_expm1(a));
          case ScalarOp::log:
            return word(td_log(a));
          case ScalarOp::log1p:
            return word(td_log1p(a));
          case ScalarOp::log2:
            return word(td_log2(a));
          case ScalarOp::erfc:
            return word(td_erfc(a));
          case ScalarOp::atan2:
            return word(td_atan2(a, b));
          case ScalarOp::copysign:
            return word(td_copysign(a, b));
          case ScalarOp::sin:
            return word(td_sin(a));
          case ScalarOp::cos:
            return word(td_cos(a));
          case ScalarOp::tanh:
            return word(td_tanh(a));
          case ScalarOp::erf:
            return word(td_erf(a));
          case ScalarOp::pow:
            return word(td_pow(a, b));
          case ScalarOp::floor:
            return word(td_floor(a));
          case ScalarOp::ceil:
            return word(td_ceil(a));
          case ScalarOp::round:
            return word(td_round(a));
          case ScalarOp::trunc:
            return word(td_trunc(a));
          default:
            break;
        }
      }
    }
    internal_error(std::string("no such operation on this type: ") + ops::name(op));
  }

  // Through float32 where a half is involved.
  static Word cast(Word in, DType from, DType to) {
    if (from == DType::float16) return cast(word(half_to_float(as<uint16_t>(in))), DType::float32, to);
    if (from == DType::bfloat16) return cast(word(bfloat_to_float(as<uint16_t>(in))), DType::float32, to);
    if (to == DType::float16) return word(float_to_half(as<float>(cast(in, from, DType::float32))));
    if (to == DType::bfloat16) return word(float_to_bfloat(as<float>(cast(in, from, DType::float32))));
    return typed(from, [&]<class F>(F) {
      return typed(to, [&]<class T>(T) {
        const F v = as<F>(in);
        if constexpr (std::is_same_v<T, bool>)
          return word(v != 0);
        else if constexpr (std::is_floating_point_v<F> && std::is_integral_v<T>) {
          // The first values that do not fit, exact in F.
          const F above = sizeof(T) == 8   ? F(9223372036854775808.0)
                          : sizeof(T) == 4 ? F(2147483648.0)
                                           : F(256);
          const F below = std::is_same_v<T, uint8_t> ? F(-1) : -above;
          if (v != v) return word(T(0));
          if (v >= above) return word(std::numeric_limits<T>::max());
          if (v <= below) return word(std::numeric_limits<T>::min());
          return word(static_cast<T>(v));
        } else
          return word(static_cast<T>(v));
      });
    });
  }

  Word total(int64_t r) {
    if (const auto it = totals_.find(r); it != totals_.end()) return it->second;
    const Reduction& red = k_.reductions[static_cast<size_t>(r)];
    const DType type = k_.scalars[red.input].type;
    std::vector<Word> values;
    const auto outer = std::move(seen_);
    for (int64_t j = 0; j < n_; ++j) {
      seen_.clear();
      values.push_back(value(red.input, j));
    }
    seen_ = outer;
    const Word t = typed(type, [&]<class T>(T) { return reduce<T>(red.op, values); });
    return totals_[r] = t;
  }

  template <class T>
  Word reduce(ReduceOp op, const std::vector<Word>& values) const {
    using namespace plain_prelude;
    if (op == ReduceOp::argmax || op == ReduceOp::argmin) {
      int64_t best = 0;
      for (int64_t j = 1; j < n_; ++j) {
        const T a = as<T>(values[static_cast<size_t>(best)]), v = as<T>(values[static_cast<size_t>(j)]);
        if (a == a && (v != v || (op == ReduceOp::argmax ? v > a : v < a))) best = j;
      }
      return best;
    }
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, long>) {
      using Limits = std::numeric_limits<T>;
      T none = op == ReduceOp::prod ? T(1) : T(0);
      if (op == ReduceOp::max) none = Limits::has_infinity ? -Limits::infinity() : Limits::min();
      if (op == ReduceOp::min) none = Limits::has_infinity ? Limits::infinity() : Limits::max();
      const auto join = [op](T a, T b) -> T {
        if (op == ReduceOp::sum) return td_add(a, b);
        if (op == ReduceOp::prod) return td_mul(a, b);
        return op == ReduceOp::max ? td_max(a, b) : td_min(a, b);
      };
      const bool row = k_.kind == KernelKind::row;
      const int64_t block = reduction_block(k_, n_);
      T all = none;
      for (int64_t b = 0; b < n_; b += block) {
        std::vector<T> lanes(row ? static_cast<size_t>(kLanes) : 1, none);
        for (int64_t j = b; j < std::min(b + block, n_); ++j) {
          T& lane = lanes[static_cast<size_t>(j - b) % lanes.size()];
          lane = join(lane, as<T>(values[static_cast<size_t>(j)]));
        }
        for (size_t half = lanes.size() / 2; half > 0; half /= 2)
          for (size_t l = 0; l < half; ++l) lanes[l] = join(lanes[l], lanes[l + half]);
        all = b == 0 ? lanes[0] : join(all, lanes[0]);
      }
      return word(all);
    } else {
      internal_error("a reduction of a narrow type");
    }
  }

  const Kernel& k_;
  const KernelArgs& a_;
  std::vector<int64_t> offsets_;
  int64_t n_ = 1, kept_ = 0;
  std::map<int32_t, Word> seen_;
  std::map<int64_t, Word> totals_;
};

}  // namespace tandem::jit::samples
