// Random kernels with their operands, for comparing one way to run a kernel with another: all ops, dtypes,
// ranks and inner classes; odd sizes, any strides, any part of the range. Deterministic in the seed. Values;
// any thread.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>

#include "tests/jit/kernel_samples.h"

namespace tandem::jit::samples {

/// A kernel and everything that a call of it needs. Buffer i is that of the i-th load, then store.
struct Case {
  Kernel k;
  std::vector<int64_t> dims, strides, numbers;
  std::vector<std::string> buffers;  // bytes
  std::vector<DType> types;
  int64_t begin = 0, end = 0;
};

struct Outcome {
  std::vector<std::string> buffers;
  bool failed = false;  // the error word was set
};

/// Runs `f(const KernelArgs&)` on copies of the buffers, each of which ends where readable memory ends.
template <class F>
Outcome run_case(const Case& c, const F& f) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<std::pair<char*, size_t>> maps;
  std::vector<void*> pointers;
  for (const std::string& bytes : c.buffers) {
    const size_t size = (bytes.size() + page - 1) / page * page + page;
    char* base =
        static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base + size - page, page, PROT_NONE);
    char* data = base + size - page - bytes.size();
    std::memcpy(data, bytes.data(), bytes.size());
    maps.emplace_back(base, size);
    pointers.push_back(data);
  }
  int64_t error = 0;
  f(KernelArgs{pointers.data(), c.dims.data(), c.strides.data(), c.numbers.data(), c.begin, c.end, &error});
  Outcome result;
  for (size_t i = 0; i < pointers.size(); ++i) {
    result.buffers.emplace_back(static_cast<const char*>(pointers[i]), c.buffers[i].size());
    munmap(maps[i].first, maps[i].second);
  }
  result.failed = error != 0;
  return result;
}

/// Equal bits, any NaN for any other. Empty, or where they differ.
inline std::string difference(const Case& c, const Outcome& a, const Outcome& b) {
  if (a.failed != b.failed) return std::string("one failed: ") + (a.failed ? "the first" : "the second");
  for (size_t i = 0; i < a.buffers.size(); ++i) {
    const DType type = c.types[i];
    const auto bytes = static_cast<size_t>(itemsize(type));
    for (size_t j = 0; j < a.buffers[i].size(); j += bytes) {
      const char *x = a.buffers[i].data() + j, *y = b.buffers[i].data() + j;
      if (std::memcmp(x, y, bytes) == 0) continue;
      const auto value = [&](const char* p) -> double {
        uint16_t h;
        float f;
        double d;
        int64_t l = 0;
        switch (type) {
          case DType::float16:
            std::memcpy(&h, p, 2);
            return half_to_float(h);
          case DType::bfloat16:
            std::memcpy(&h, p, 2);
            return bfloat_to_float(h);
          case DType::float32:
            std::memcpy(&f, p, 4);
            return f;
          case DType::float64:
            std::memcpy(&d, p, 8);
            return d;
          default:
            std::memcpy(&l, p, bytes);
            return static_cast<double>(l);
        }
      };
      const double p = value(x), q = value(y);
      if (p != p && q != q) continue;
      char text[160];
      std::snprintf(text, sizeof text, "buffer %zu (%s), element %zu: %.9g (%a) and %.9g (%a)", i, name(type),
                    j / bytes, p, p, q, q);
      return text;
    }
  }
  return {};
}

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}

  /// `side_by_side`: rows so.
  Case make(KernelKind kind, bool side_by_side = false) {
    kind_ = kind, side_by_side_ = side_by_side;
    const bool columns = kind == KernelKind::column || side_by_side;
    const int kept = columns ? pick(1, 3) : pick(0, kind == KernelKind::row ? 3 : 4);
    const int reduced = kind == KernelKind::pointwise ? 0 : columns ? pick(1, 2) : 1;
    b_ = Builder("random", kind, kept, reduced);
    c_ = Case{};
    pool_.clear();
    sizes(kept, reduced);
    for (int i = pick(1, 4); i > 0; --i) add_load();
    if (chance(2)) add_number();
    for (int i = pick(2, 9); i > 0; --i) step();
    if (kind != KernelKind::pointwise) {
      for (int i = pick(1, 3); i > 0; --i) {
        reduce();
        for (int j = pick(0, 4); j > 0; --j) step();
      }
    }
    for (int i = pick(2, 4); i > 0; --i) add_store();
    b_.k.in_order = kind == KernelKind::column && chance(4);
    b_.k.side_by_side = side_by_side;
    return finish();
  }

 private:
  struct Item {
    S s;
    bool full;
  };

  int pick(int low, int high) {
    return low + static_cast<int>(random_() % static_cast<uint64_t>(high - low + 1));
  }
  bool chance(int one_in) { return pick(1, one_in) == 1; }
  template <class T>
  T choose(std::initializer_list<T> list) {
    return list.begin()[pick(0, static_cast<int>(list.size()) - 1)];
  }

  void sizes(int kept, int reduced) {
    const bool long_reduction = reduced > 0 && chance(8);
    int64_t left = 6000;
    for (int d = 0; d < kept + reduced; ++d) {
      int64_t size =
          chance(40) ? 0 : choose({1, 2, 3, 5, 7, 10, 15, 16, 17, 31, 33, 48, 64, 65, 100, 129, 200});
      if (long_reduction)
        size = d < kept                                   ? choose({1, 2, 3})
               : kind_ == KernelKind::row && reduced == 1 ? choose({4096, 4097, 16384, 16391, 40000})
                                                          : choose({32, 33, 256, 700});
      if (!long_reduction && size > left) size = choose({1, 2, 3});
      left /= std::max<int64_t>(size, 1);
      c_.dims.push_back(size);
    }
    // Which dimension is the long one differs.
    if (!long_reduction) std::shuffle(c_.dims.begin(), c_.dims.end(), random_);
  }
  int kept() const { return b_.k.kept_rank; }
  int rank() const { return b_.k.kept_rank + b_.k.reduced_rank; }
  bool of_row() const { return kind_ == KernelKind::row && !side_by_side_; }
  int inner() const { return of_row() ? kept() : kept() - 1; }

  // Strides of one access; distinct elements at distinct places unless `repeats`. Returns the elements that
  // it spans.
  int64_t layout(Inner in, bool row_level, bool repeats, std::vector<int64_t>& strides) {
    std::vector<int> order;
    for (int d = 0; d < rank(); ++d)
      if (d != inner()) order.push_back(d);
    std::shuffle(order.begin(), order.end(), random_);
    if (inner() >= 0)
      order.insert(order.begin() + (in == Inner::contiguous ? 0 : pick(0, static_cast<int>(order.size()))),
                   inner());
    strides.assign(static_cast<size_t>(rank()), 0);
    int64_t step = in == Inner::contiguous ? 1 : choose({1, 2, 3}), span = 1;
    for (const int d : order) {
      if (row_level && d >= kept()) continue;
      if (d == inner() ? in == Inner::constant : repeats && chance(4)) continue;
      strides[static_cast<size_t>(d)] = step;
      const int64_t size = c_.dims[static_cast<size_t>(d)];
      span += std::max<int64_t>(size - 1, 0) * step;
      step = step * std::max<int64_t>(size, 1) + (chance(3) ? choose({1, 4, 7}) : 0);
    }
    return span;
  }

  std::string bytes(DType type, int64_t count) {
    std::string text(static_cast<size_t>(count * itemsize(type)), '\0');
    for (int64_t i = 0; i < count; ++i) {
      char* p = text.data() + i * itemsize(type);
      const double special =
          choose({0.0, -0.0, double(NAN), double(INFINITY), -double(INFINITY), 1e-40, 1e30, 0.5, 1.0});
      const double v = chance(40) ? special : chance(4) ? pick(-4, 4) : pick(-3000, 3000) / 997.0;
      const auto put = [p](auto x) { std::memcpy(p, &x, sizeof x); };
      switch (type) {
        case DType::bool_:
          *p = static_cast<char>(pick(0, 1));
          break;
        case DType::uint8:
          *p = static_cast<char>(chance(2) ? pick(0, 5) : pick(0, 255));
          break;
        case DType::int32:
          put(chance(30) ? choose({INT32_MIN, INT32_MAX}) : pick(-9, 20));
          break;
        case DType::int64:
          put(chance(30) ? choose({INT64_MIN, INT64_MAX}) : int64_t{pick(-9, 20)});
          break;
        case DType::float16:
          put(float_to_half(static_cast<float>(v)));
          break;
        case DType::bfloat16:
          put(float_to_bfloat(static_cast<float>(v)));
          break;
        case DType::float32:
          put(static_cast<float>(v));
          break;
        case DType::float64:
          put(v);
          break;
      }
    }
    return text;
  }

  DType any_type() {
    return chance(2) ? DType::float32
                     : choose({DType::bool_, DType::uint8, DType::int32, DType::int64, DType::float16,
                               DType::bfloat16, DType::float64});
  }

  void add_load() {
    const DType type = any_type();
    const bool row_level = kind_ != KernelKind::pointwise && chance(3);
    Inner in = choose({Inner::constant, Inner::contiguous, Inner::contiguous, Inner::strided});
    if (row_level && of_row()) in = Inner::constant;
    std::vector<int64_t> strides;
    int64_t span = layout(in, row_level, true, strides);
    S index;
    bool full = !row_level;
    if (chance(5)) {
      const Item* i = find([](DType t) { return t == DType::int64; }, row_level);
      if (i != nullptr) {
        const int64_t extent = pick(1, 9), step = choose({int64_t{0}, int64_t{1}, span});
        index = s_mod(i->s, b_.constant(DType::int64, static_cast<double>(chance(3) ? extent + 1 : extent)));
        full = full || i->full;
        strides.push_back(extent);
        strides.push_back(step);
        span += (extent - 1) * step;
      }
    }
    const S s = b_.load(type, in, row_level, index);
    pool_.push_back({type == DType::float16 || type == DType::bfloat16 ? cast(s, DType::float32) : s, full});
    c_.strides.insert(c_.strides.end(), strides.begin(), strides.end());
    c_.types.push_back(type);
    c_.buffers.push_back(bytes(type, span));
  }

  void add_number() {
    const bool integer = chance(2);
    const S s = b_.number(integer ? DType::int64 : DType::float64);
    pool_.push_back({s, false});
    const double v = pick(-300, 300) / 100.0;
    c_.numbers.push_back(integer ? int64_t{pick(-3, 12)} : std::bit_cast<int64_t>(v));
  }

  template <class P>
  const Item* find(const P& accepts, bool row_level_only = false) {
    std::vector<const Item*> found;
    for (const Item& i : pool_)
      if (accepts(i.s.type()) && !(row_level_only && i.full)) found.push_back(&i);
    // Late values are likelier, so that expressions grow deep.
    return found.empty() ? nullptr
                         : found[static_cast<size_t>(std::max(pick(0, static_cast<int>(found.size()) - 1),
                                                              pick(0, static_cast<int>(found.size()) - 1)))];
  }
  static bool floating(DType t) { return t == DType::float32 || t == DType::float64; }
  static bool integral(DType t) { return t == DType::int32 || t == DType::int64 || t == DType::uint8; }
  static bool arithmetic(DType t) { return floating(t) || integral(t); }

  void apply(ScalarOp op, std::vector<Item> in, DType type) {
    in.resize(3, Item{{}, false});
    const S s = b_.k.scalars.node(op, type, in[0].s, in[1].s, in[2].s);
    pool_.push_back({s, in[0].full || in[1].full || in[2].full});
  }

  void step() {
    switch (pick(0, 11)) {
      case 0:
      case 1:
      case 2: {
        const Item* a = find(floating);
        if (a == nullptr) return convert();
        const ScalarOp op = choose(
            {ScalarOp::neg, ScalarOp::abs, ScalarOp::sqrt, ScalarOp::exp, ScalarOp::expm1, ScalarOp::log,
             ScalarOp::log1p, ScalarOp::sin, ScalarOp::cos, ScalarOp::tanh, ScalarOp::erf, ScalarOp::erfc,
             ScalarOp::log2, ScalarOp::floor, ScalarOp::ceil, ScalarOp::round, ScalarOp::trunc});
        return apply(op, {*a}, a->s.type());
      }
      case 3:
      case 4:
      case 5: {
        const Item* a = find(arithmetic);
        if (a == nullptr) return convert();
        const Item* b = find([a](DType t) { return t == a->s.type(); });
        const ScalarOp op =
            floating(a->s.type())
                ? choose({ScalarOp::add, ScalarOp::sub, ScalarOp::mul, ScalarOp::div, ScalarOp::mod,
                          ScalarOp::min, ScalarOp::max, ScalarOp::pow, ScalarOp::fma, ScalarOp::atan2,
                          ScalarOp::copysign})
                : choose({ScalarOp::add, ScalarOp::sub, ScalarOp::mul, ScalarOp::idiv, ScalarOp::mod,
                          ScalarOp::min, ScalarOp::max, ScalarOp::neg, ScalarOp::abs, ScalarOp::bit_and,
                          ScalarOp::bit_or, ScalarOp::bit_xor, ScalarOp::shl, ScalarOp::shr});
        std::vector<Item> in = {*a, *b, *find([a](DType t) { return t == a->s.type(); })};
        in.resize(static_cast<size_t>(ops::arity(op)));
        return apply(op, in, a->s.type());
      }
      case 6:
      case 7: {
        const Item* a = find([](DType) { return true; });
        const Item* b = find([a](DType t) { return t == a->s.type(); });
        if (a->s.type() == DType::bool_) {
          const ScalarOp op = choose(
              {ScalarOp::logical_and, ScalarOp::logical_or, ScalarOp::logical_xor, ScalarOp::logical_not});
          return apply(op, op == ScalarOp::logical_not ? std::vector<Item>{*a} : std::vector<Item>{*a, *b},
                       DType::bool_);
        }
        return apply(
            choose({ScalarOp::eq, ScalarOp::ne, ScalarOp::lt, ScalarOp::le, ScalarOp::gt, ScalarOp::ge}),
            {*a, *b}, DType::bool_);
      }
      case 8: {
        const Item* c = find([](DType t) { return t == DType::bool_; });
        const Item* a = find([](DType) { return true; });
        if (c == nullptr) return convert();
        const Item* b = find([a](DType t) { return t == a->s.type(); });
        return apply(ScalarOp::select, {*c, *a, *b}, a->s.type());
      }
      case 9:
        return convert();
      case 10: {
        const DType type =
            choose({DType::float32, DType::float64, DType::int64, DType::int32, DType::uint8, DType::bool_});
        pool_.push_back({b_.constant(type, type == DType::bool_   ? pick(0, 1)
                                           : type == DType::uint8 ? pick(0, 255)
                                                                  : pick(-20, 20)),
                         false});
        return;
      }
      default: {
        if (kind_ == KernelKind::column || side_by_side_) return add_number();
        const S index = b_.index();
        if (chance(3)) {
          pool_.push_back({index, true});
          return;
        }
        const S seed = b_.number(DType::int64), offset = b_.number(DType::int64);
        c_.numbers.push_back(pick(0, 1 << 30));
        c_.numbers.push_back(pick(0, 5000));
        apply(choose({ScalarOp::uniform, ScalarOp::uniform16, ScalarOp::normal}),
              {{index, true}, {seed, false}, {offset, false}}, DType::float32);
      }
    }
  }

  // A cast of any value to any type; through a half and back at times.
  void convert() {
    const Item* a = find([](DType) { return true; });
    const DType type = choose({DType::float32, DType::float32, DType::float64, DType::int64, DType::int32,
                               DType::uint8, DType::bool_, DType::float16, DType::bfloat16});
    if (type == a->s.type()) return;
    const S s = cast(a->s, type);
    pool_.push_back({is_floating(type) && itemsize(type) == 2 ? cast(s, DType::float32) : s, a->full});
  }

  void reduce() {
    const ReduceOp op = choose({ReduceOp::sum, ReduceOp::sum, ReduceOp::prod, ReduceOp::max, ReduceOp::min,
                                ReduceOp::argmax, ReduceOp::argmin});
    const bool finds_index = op == ReduceOp::argmax || op == ReduceOp::argmin;
    const Item* a = find(arithmetic);
    if (a == nullptr) a = find([](DType) { return true; });
    S s = a->s;
    if (s.type() == DType::int32 || s.type() == DType::uint8) s = cast(s, DType::int64);
    if (s.type() == DType::bool_) s = cast(s, DType::float32);
    for (const int64_t size : c_.dims)
      if (finds_index && size == 0) return;  // no element to name
    pool_.push_back({b_.reduce(op, s), false});
  }

  void add_store() {
    const Item* a = find([](DType) { return true; });
    const bool row_level = kind_ != KernelKind::pointwise && !a->full;
    Inner in = choose({Inner::contiguous, Inner::contiguous, Inner::strided});
    if (row_level && of_row()) in = Inner::constant;
    std::vector<int64_t> strides;
    const int64_t span = layout(in, row_level, false, strides);
    const DType type = any_type();
    b_.store(chance(2) ? cast(a->s, type) : a->s, in, row_level);
    c_.strides.insert(c_.strides.end(), strides.begin(), strides.end());
    c_.types.push_back(b_.k.stores.back().dtype);
    c_.buffers.emplace_back(static_cast<size_t>(span * itemsize(c_.types.back())), '\x5a');
  }

  Case finish() {
    int64_t total = 1;
    for (int d = 0; d < kept(); ++d) total *= c_.dims[static_cast<size_t>(d)];
    c_.end = total;
    if (total > 1 && chance(2)) {
      c_.begin = pick(0, static_cast<int>(total) - 1);
      c_.end = pick(static_cast<int>(c_.begin), static_cast<int>(total));
    }
    for (size_t i = 0; i < b_.k.stores.size(); ++i)
      b_.k.stores[i].buffer = static_cast<int32_t>(b_.k.loads.size() + i);
    c_.k = b_.k;
    return c_;
  }

  std::mt19937_64 random_;
  KernelKind kind_ = KernelKind::pointwise;
  bool side_by_side_ = false;
  Builder b_{"", KernelKind::pointwise, 0, 0};
  Case c_;
  std::vector<Item> pool_;
};

}  // namespace tandem::jit::samples
