// A graph is grown op by op. A kind is drawn first, so that rare kinds are met often, then an op of it.
// Operands are values that exist, seen through a view where that makes them fit, new inputs with odd layouts,
// or numbers. Index operands are new inputs in range, or computed ones brought into range. Some calls get
// twins on other tensors, which a plan may launch together; some inputs are overwritten, often early values
// while later nodes still read the old ones.
#include "tests/jit/random_graphs.h"

#include <map>
#include <memory>

#include "tandem/core/error.h"
#include "tests/jit/random_values.h"

namespace tandem::test {

using jit::Graph;
using ops::OpDef;
using ops::OpId;
using ops::OpKind;
using ops::TensorType;
using ops::Value;

namespace {

constexpr int64_t kSizes[] = {0, 1, 2, 3, 3, 4, 5, 7, 7, 31, 32, 33, 64, 65, 127, 1000};
constexpr OpKind kKinds[] = {OpKind::pointwise, OpKind::pointwise, OpKind::pointwise,   OpKind::pointwise,
                             OpKind::reduction, OpKind::reduction, OpKind::view,        OpKind::view,
                             OpKind::piecewise, OpKind::gather,    OpKind::scatter,     OpKind::scan,
                             OpKind::random,    OpKind::fill,      OpKind::contraction, OpKind::convolution,
                             OpKind::composite, OpKind::composite, OpKind::composite};

class Generator : RandomValues {
 public:
  explicit Generator(uint64_t seed) : RandomValues(seed) {}

  RandomGraph run() {
    static constexpr DType kTypes[] = {DType::float32, DType::float32,  DType::float32, DType::float32,
                                       DType::float64, DType::bfloat16, DType::float16};
    main_type_ = kTypes[below(std::size(kTypes))];
    largest_ = one_in(25) ? 70000 : one_in(3) ? 6000 : 600;
    for (int64_t& d : dims_) d = kSizes[below(std::size(kSizes))];
    if (!one_in(12))
      for (int64_t& d : dims_) d = std::max<int64_t>(d, 1);  // empty tensors are rare
    do base_ = sizes(1 + static_cast<int>(below(4)));
    while (numel(base_) > largest_);
    input(floating_type(), base_);
    const int calls = 3 + static_cast<int>(below(11));
    for (int i = 0; i < calls; ++i) call();
    finish();
    return std::move(r_);
  }

 private:
  // --- Calls ---

  struct Call {
    const OpDef* op = nullptr;
    std::vector<Value> in;
    std::vector<int64_t> words;
  };

  /// Tries to emit; on refusal the graph is as before.
  bool emit(const Call& c) {
    ops::Value out[ops::kMaxOutputs];
    emitter_.location = {"random", 1 + static_cast<int>(c.op->id)};
    try {
      emitter_.emit(c.op->id, c.in, c.words, out);
    } catch (const Error&) {
      return false;
    }
    for (int j = 0; j < c.op->n_out; ++j) {
      if (numel(type(out[j]).sizes) > 4 * largest_) continue;
      keep(out[j]);
    }
    return true;
  }

  void call() {
    const OpKind kind = kKinds[below(std::size(kKinds))];
    std::vector<const OpDef*> of_kind;
    for (int id = 0; id < ops::kOpCount; ++id)
      if (ops::def(static_cast<OpId>(id)).kind == kind) of_kind.push_back(&ops::def(static_cast<OpId>(id)));
    const OpDef* op = nullptr;
    for (int trial = 0; trial < 60; ++trial) {
      Call c;
      if (trial % 20 == 0) op = of_kind[below(of_kind.size())];
      c.op = op;
      // What a refused trial leaves behind is taken away, so that graphs hold few unused inputs.
      const Graph before = r_.graph;
      const size_t inputs = r_.arguments.inputs.size(), words = r_.arguments.numbers.size(),
                   known = pool_.size(), n_numbers = numbers_.size();
      if (draw(c) && small_enough(c) && emit(c)) {
        if (one_in(c.op->kind == OpKind::fill ? 2 : 6)) twins(c);
        if (one_in(3)) sibling(c);
        if (one_in(6)) column_sums();
        if (one_in(3)) temptation();
        return;
      }
      r_.graph = before;
      while (r_.arguments.inputs.size() > inputs) r_.arguments.inputs.pop_back();
      r_.arguments.numbers.resize(words);
      pool_.resize(known);
      numbers_.resize(n_numbers);
    }
  }

  /// The same operands with other attributes.
  void sibling(const Call& c) {
    const OpKind kind = c.op->kind;
    if (c.op->n_numbers() > 0 || c.op->n_attrs == 0) return;
    if (kind != OpKind::reduction && kind != OpKind::view && kind != OpKind::scan &&
        kind != OpKind::piecewise)
      return;
    for (int trial = 0; trial < 5; ++trial) {
      Call other = c;
      other.words.clear();
      attributes(other);
      if (emit(other)) return;
    }
  }

  /// A reduction of the youngest value over axes before its last one.
  void column_sums() {
    const int rank = type(pool_.back()).sizes.rank();
    if (rank < 2) return;
    Call c;
    c.op = &ops::def(one_in(2) ? OpId::sum : OpId::amax);
    c.in = {pool_.back()};
    c.words = {static_cast<int64_t>(below(2)), 1, between(0, rank - 2)};
    emit(c);
  }

  /// What looks as if it could be left out, and sometimes can.
  void temptation() {
    const Value v = pick();
    const TensorType t = type(v);
    emitter_.location = {};
    switch (below(8)) {
      case 0:
      case 1: {  // x + 0, x * 1, x * 0, 1 / x, ...
        static constexpr double kTempting[] = {0, 0, 1, -0.0};
        Call c;
        do c.op = &ops::def(static_cast<OpId>(below(ops::kOpCount)));
        while (c.op->kind != OpKind::pointwise || c.op->n_in != 2);
        if (one_in(2)) c.op = &ops::def(one_in(2) ? OpId::mul : OpId::add);
        c.in = {v, emitter_.number(kTempting[below(std::size(kTempting))])};
        if (one_in(4)) std::swap(c.in[0], c.in[1]);
        emit(c);
        return;
      }
      case 2: {  // a cast there and back
        const DType between_types = floating_type();
        if (is_floating(t.dtype)) keep(emitter_.cast(emitter_.cast(v, between_types), t.dtype));
        return;
      }
      case 3:
        if (t.sizes.rank() > 1) {
          const Value once = emitter_.permute(v, permutation(t.sizes.rank()));
          keep(emitter_.permute(once, permutation(t.sizes.rank())));
        }
        return;
      case 4: {
        const Value flat = emitter_.reshape(v, {numel(t.sizes)});
        keep(one_in(2) ? emitter_.reshape(flat, t.sizes) : emitter_.unsqueeze(flat, 0));
        return;
      }
      case 5:  // a reduction in another order than that of memory
        if (t.sizes.rank() > 1) {
          const Value computed = is_floating(t.dtype) ? emitter_.abs(v) : v;
          const Value turned = emitter_.permute(computed, permutation(t.sizes.rank()));
          Dims axes;
          for (int i = 0; i < t.sizes.rank(); ++i)
            if (i < 2 || one_in(2)) axes.push_back(i);
          keep(emitter_.sum(turned, axes, one_in(2)));
        }
        return;
      case 6: {  // rows against columns of one size
        if (t.sizes.rank() == 0 || numel(t.sizes) == 0 || t.sizes.back() > 64) return;
        Value row = v;
        while (type(row).sizes.rank() > 1) row = emitter_.call(OpId::select, {row}, {0, -1});
        Call c;
        c.op = &ops::def(OpId::sub);
        c.in = {row, emitter_.unsqueeze(row, 1)};
        emit(c);
        return;
      }
      default:
        if (t.sizes.rank() > 0) keep(emitter_.slice(v, -1, 0, one_in(2) ? 1 << 20 : t.sizes.back() - 1));
        return;
    }
  }

  /// The same call on new tensors, of other sizes where that is allowed.
  void twins(const Call& c) {
    for (int64_t n = between(1, 3); n > 0; --n) {
      Call twin = c;
      std::map<int32_t, Value> fresh;
      const bool other_sizes = one_in(2);
      for (Value& v : twin.in) {
        if (!v || type(v).number) continue;
        const TensorType t = type(v);
        if (!is_floating(t.dtype)) return;  // may be indices
        Dims s = t.sizes;
        if (other_sizes && s.rank() > 0 && s[0] > 1) s[0] = 1 + s[0] / 2;
        Value& f = fresh[v.id];
        if (!f) f = input(t.dtype, s);
        v = f;
      }
      if (twin.op->kind == OpKind::random || twin.op->kind == OpKind::fill)
        for (Value& v : twin.in)
          if (type(v).number)
            v = type(v).dtype == DType::int64 ? run_time_int(between(0, 50))
                                              : run_time(static_cast<double>(between(1, 15)) / 16);
      if (!emit(twin)) return;
    }
  }

  bool small_enough(const Call& c) {
    double work = 1;
    for (const Value v : c.in)
      if (v) work += static_cast<double>(numel(type(v).sizes));
    return work < 4.0 * static_cast<double>(largest_);
  }

  bool draw(Call& c) {
    const OpDef& d = *c.op;
    emitter_.location = {};
    switch (d.kind) {
      case OpKind::pointwise:
        pointwise(c);
        break;
      case OpKind::reduction:
      case OpKind::view:
      case OpKind::scan:
        c.in = {operand_for(d)};
        break;
      case OpKind::piecewise:
        piecewise(c);
        break;
      case OpKind::gather:
      case OpKind::scatter:
        return indexed(c);
      case OpKind::random:
      case OpKind::fill:
        break;
      case OpKind::contraction:
        contraction(c);
        break;
      case OpKind::convolution:
        return convolution(*c.op, c.in, c.words) && accepted(c);
      case OpKind::composite:
        if (!composite(c)) return false;
        break;
      case OpKind::kernel:
        return false;
    }
    attributes(c);
    if (c.op->id != OpId::max_pool_backward && c.op->id != OpId::max_pool_pick) return true;
    c.in.push_back(places(*c.op, c.in[0], c.words));
    return c.in[1] && accepted(c);
  }

  Value operand_for(const OpDef& d) {
    if (d.kind == OpKind::reduction && one_in(3)) {
      // A permuted operand: the reduction walks in logical order, not in that of memory.
      const Value v = pick();
      if (type(v).sizes.rank() > 1) return emitter_.permute(v, permutation(type(v).sizes.rank()));
    }
    return pick();
  }
  void pointwise(Call& c) {
    const bool whole = c.op->types == ops::TypeRule::bits || c.op->types == ops::TypeRule::integers;
    c.in.push_back(pick());
    const Dims first = type(c.in[0]).sizes;
    if (whole && is_floating(type(c.in[0]).dtype))
      c.in[0] = input(one_in(2) ? DType::int64 : DType::int32, first);
    for (int k = 1; k < c.op->n_in; ++k) {
      switch (below(5)) {
        case 0:
          c.in.push_back(number(one_in(8)));
          break;
        case 1: {  // a new input that broadcasts
          Dims s = first;
          for (int i = 0; i < s.rank(); ++i)
            if (one_in(3)) s[i] = 1;
          while (s.rank() > 0 && one_in(3)) s.erase(0);
          c.in.push_back(input(one_in(3) ? any_type() : type(c.in[0]).dtype, s));
          break;
        }
        default:
          c.in.push_back(fitted(first));
          break;
      }
      if (whole && is_floating(type(c.in.back()).dtype)) c.in.back() = input(DType::int32, first);
    }
    if (c.op->n_in > 1 && one_in(4)) std::swap(c.in[0], c.in[1]);
  }

  void piecewise(Call& c) {
    const Value x = pick();
    c.in = {x};
    if (c.op->n_in > 0) return;
    for (int64_t n = between(0, 2); n > 0; --n) {
      Dims s = type(x).sizes;
      if (s.rank() > 0 && one_in(2)) s[s.rank() - 1] = between(0, 5);
      c.in.push_back(one_in(2) ? input(one_in(4) ? any_type() : type(x).dtype, s) : pick());
    }
  }

  bool indexed(Call& c) {
    const Value x = pick();
    const Dims s = type(x).sizes;
    if (s.empty()) return false;
    const int axis = static_cast<int>(below(static_cast<uint64_t>(s.rank())));
    if (s[axis] == 0) return false;
    c.words = {one_in(2) ? axis : axis - s.rank()};
    c.in = {x};
    const int64_t n = one_in(4) ? 1 : between(0, 9);
    for (const bool list : {true, false}) {  // one index for all, or one for each element of the result
      Dims index_sizes{n};
      if (!list) {
        index_sizes = s;
        for (int i = 0; i < s.rank(); ++i)
          if (i == axis)
            index_sizes[i] = n;
          else if (one_in(3))
            index_sizes[i] = std::min<int64_t>(s[i], between(1, 4));
      }
      c.in.resize(1);
      c.in.push_back(indices(index_sizes, s[axis]));
      if (c.op->n_in == 3) {
        Dims src = index_sizes;
        if (list) {
          src = s;
          src[axis] = n;
        }
        Value source = {};
        for (int trial = 0; trial < 4 && !source; ++trial)
          if (const Value v = pick(); type(v).dtype == type(x).dtype && type(v).sizes == src) source = v;
        c.in.push_back(source ? source : input(type(x).dtype, src));
      }
      if (accepted(c)) return true;
    }
    return false;
  }

  bool accepted(const Call& c) {
    std::vector<TensorType> types, results;
    const auto present = std::make_unique<bool[]>(c.in.size() + 1);
    for (size_t i = 0; i < c.in.size(); ++i) {
      present[i] = static_cast<bool>(c.in[i]);
      types.push_back(present[i] ? type(c.in[i]) : TensorType{});
    }
    try {
      ops::infer({*c.op, types, {present.get(), c.in.size()}, c.words, {}}, results);
    } catch (const Error&) {
      return false;
    }
    return true;
  }

  void contraction(Call& c) {
    const Value a = pick();
    const DType t = type(a).dtype;
    const int64_t k = type(a).sizes.empty() ? 1 : type(a).sizes.back();
    const int64_t n = one_in(3) ? 1 : between(2, 20);
    Dims b{n, k};
    if (!one_in(3)) b = {k, n};
    if (one_in(5)) b = {k};
    if (one_in(4) && type(a).sizes.rank() > 2) b.insert(0, type(a).sizes[type(a).sizes.rank() - 3]);
    c.in = {a, one_in(4) ? pick() : input(t, b)};
    if (c.op->n_in == 3) c.in.push_back(one_in(2) ? input(t, {n}) : Value{});
  }

  bool composite(Call& c) {
    constexpr uint64_t kPerChannel = 6;
    const uint64_t family = one_in(5) ? kPerChannel : below(4);  // operands of an op tend to be of one sort
    Value x = pick();
    if (is_layer(c.op->id)) return layer(*c.op, x, c.in);
    if (c.op->id == OpId::one_hot) {
      const Dims index = labels(type(x).sizes);
      x = input(DType::int64, index, 0, kClasses);
    } else if (family == kPerChannel && type(x).sizes.rank() != 2 && numel(type(x).sizes) > 0 && one_in(2)) {
      const Dims from = type(x).sizes;
      x = emitter_.reshape(x, {from.empty() ? 1 : from[0], numel(from) / (from.empty() ? 1 : from[0])});
    }
    const Dims s = type(x).sizes;
    int64_t least = 5;  // indices below it are good along any axis
    for (const int64_t d : s) least = std::min(least, std::max<int64_t>(1, d));
    const bool optional_left_out = one_in(3);
    c.in = {x};
    for (int k = 1; k < c.op->n_in; ++k) {
      const bool may_miss = k >= c.op->n_in - c.op->n_optional;
      if (may_miss && (optional_left_out || one_in(4))) {
        c.in.push_back({});
        continue;
      }
      switch (family == kPerChannel ? (k == 1 && one_in(2) ? 3 : family) : one_in(2) ? below(6) : family) {
        case 0:
        case 1:
          c.in.push_back(like(x, s, least));
          break;
        case 2: {  // the last axes, or the first
          Dims tail = s;
          while (tail.rank() > 1 && one_in(2)) tail.erase(0);
          c.in.push_back(like(x, tail, least));
          break;
        }
        case 3:
          c.in.push_back(
              input(DType::int64, family == kPerChannel && !s.empty() ? Dims{s[0]} : labels(s), 0, least));
          break;
        case kPerChannel:
          c.in.push_back(like(x, {s.rank() > 1 ? s[1] : 1}, least));
          break;
        case 4:
          c.in.push_back(input(DType::bool_, s));
          break;
        default:
          c.in.push_back(number());
          break;
      }
    }
    // No index is good along an axis without elements.
    return std::find(s.begin(), s.end(), 0) == s.end() ||
           std::none_of(c.in.begin() + 1, c.in.end(), [&](Value v) {
             return v && !type(v).number && is_integral(type(v).dtype) && numel(type(v).sizes) > 0;
           });
  }

  void attributes(Call& c) {
    const Dims s = c.in.empty() ? base_ : type(c.in[0]).sizes;
    const int rank = s.rank();
    for (int k = 0; k < c.op->n_attrs; ++k) {
      const std::string name = c.op->attrs[k].name;
      switch (c.op->attrs[k].type) {
        case ops::AttrType::floating:
          c.in.push_back(run_time(static_cast<double>(between(1, 15)) / 16));
          break;
        case ops::AttrType::dynamic:
          c.in.push_back(number(true));
          break;
        case ops::AttrType::boolean:
          c.words.push_back(k == c.op->library ? 0
                                               : static_cast<int64_t>(below(2)));  // a mark of executables
          break;
        case ops::AttrType::dtype:
          c.words.push_back(static_cast<int64_t>(one_in(3) ? any_type() : floating_type()));
          break;
        case ops::AttrType::integer:
          c.words.push_back(integer(name, rank));
          break;
        case ops::AttrType::list:
          list(c, name, s);
          break;
      }
    }
  }

  void list(Call& c, const std::string& name, const Dims& s) {
    Dims l;
    if (c.op->kind == OpKind::random || c.op->kind == OpKind::fill) {
      l = s;
    } else if (name == "sizes") {
      l = sizes(*c.op, c.words, s);
    } else if (name == "windows") {
      l = windows(*c.op, c.words[1] != 0, s);
    } else if (name == "repeats") {
      for (int i = 0; i < s.rank(); ++i) l.push_back(between(0, 3));
    } else if (c.op->id == OpId::permute) {
      l = permutation(s.rank());
    } else if (!one_in(4)) {
      for (int i = 0; i < s.rank(); ++i)
        if (one_in(2)) l.push_back(one_in(3) ? i - s.rank() : i);
    }
    c.words.push_back(l.rank());
    c.words.insert(c.words.end(), l.begin(), l.end());
  }
};

}  // namespace

RandomGraph random_graph(uint64_t seed) { return Generator(seed).run(); }

const OpDef& drawn_op(const jit::Node& n) {
  return n.where.known() ? ops::def(static_cast<OpId>(n.where.line - 1)) : ops::def(n.op);
}

}  // namespace tandem::test
