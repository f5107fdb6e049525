// Building a program. Every value has a level and a phase: how many walks over the reduced dimensions must be
// over before it can be computed (a reduction's result has the phase of its input plus one). Pass p computes
// what the reductions of phase p read; full-level stores wait for the last pass, because they may replace
// operands in memory. A value of an earlier pass is computed again, unless the mode keeps it.
//
// Afterwards chunks are given slots of scratch memory by a scan over the steps in order, and a step whose
// result a store writes is aimed at that memory directly if no load is read after it: the two may be the same
// memory.
#include "tandem/jit/evaluator_program.h"

#include <algorithm>
#include <bit>
#include <map>
#include <string>
#include <tuple>

#include "tandem/core/dtype.h"
#include "tandem/core/error.h"

namespace tandem::jit {

using ops::ScalarNode;
using ops::ScalarOp;

namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }
bool finds_index(ReduceOp op) { return op == ReduceOp::argmax || op == ReduceOp::argmin; }
bool is_random(ScalarOp op) {
  return op == ScalarOp::uniform || op == ScalarOp::uniform16 || op == ScalarOp::normal;
}

int64_t constant_bits(const ScalarNode& n) {
  const double value = std::bit_cast<double>(n.bits);
  int64_t word = 0;
  const auto set = [&](auto x) { __builtin_memcpy(&word, &x, sizeof x); };
  switch (n.type) {
    case DType::bool_:
      set(static_cast<uint8_t>(n.bits != 0));
      break;
    case DType::uint8:
      set(static_cast<uint8_t>(n.bits));
      break;
    case DType::int32:
      set(static_cast<int32_t>(n.bits));
      break;
    case DType::int64:
      set(n.bits);
      break;
    case DType::float16:
      set(float_to_half(static_cast<float>(value)));
      break;
    case DType::bfloat16:
      set(float_to_bfloat(static_cast<float>(value)));
      break;
    case DType::float32:
      set(static_cast<float>(value));
      break;
    case DType::float64:
      set(value);
      break;
  }
  return word;
}

class Builder {
 public:
  Builder(const Kernel& k, const ChunkFunctions& f, Mode mode) : k_(k), f_(f), mode_(mode) {}

  Program build() {
    const size_t n = at(k_.scalars.size());
    level_.assign(n, Level::uniform);
    phase_.assign(n, 0);
    reg_.assign(n, -1);
    live_.assign(n, false);
    for (int32_t i = 0; i < k_.scalars.size(); ++i) classify(i);
    for (const Store& s : k_.stores) {
      TANDEM_INTERNAL(s.dtype == type(s.value), "a store of another type than its value");
      TANDEM_INTERNAL(!row_store(s) || level_[at(s.value)] != Level::full,
                      "a row-level store of a full-level value");
      mark_live(s.value);
    }
    for (const Across& c : k_.across) mark_live(c.input);
    sections();
    place_chunks();
    aim_stores();
    return std::move(p_);
  }

 private:
  DType type(int32_t node) const { return k_.scalars[node].type; }
  bool pointwise() const { return k_.kind == KernelKind::pointwise; }
  bool row_store(const Store& s) const { return !pointwise() && s.row_level; }

  void classify(int32_t i) {
    const ScalarNode& n = k_.scalars[i];
    Level& level = level_[at(i)];
    for_inputs(k_, i, [&](int32_t in) {
      level = std::max(level, level_[at(in)]);
      phase_[at(i)] = std::max(phase_[at(i)], phase_[at(in)]);
    });
    if (n.op == ScalarOp::load) {
      const Load& l = k_.loads[at(n.bits)];
      const bool element = pointwise() && k_.kept_rank <= 1 && l.inner == Inner::constant;
      level = std::max(level, !pointwise() && l.row_level ? Level::row
                              : element                   ? Level::uniform
                                                          : Level::full);
    } else if (n.op == ScalarOp::index) {
      level = Level::full;
    } else if (n.op == ScalarOp::reduced) {
      level = Level::row;
      phase_[at(i)] = phase_[at(k_.reductions[at(n.bits)].input)] + 1;
    }
  }

  void mark_live(int32_t root) {
    std::vector<int32_t> todo = {root};
    while (!todo.empty()) {
      const int32_t i = todo.back();
      todo.pop_back();
      if (live_[at(i)]) continue;
      live_[at(i)] = true;
      const ScalarNode& n = k_.scalars[i];
      if (n.op == ScalarOp::reduced) todo.push_back(k_.reductions[at(n.bits)].input);
      for_inputs(k_, i, [&](int32_t in) { todo.push_back(in); });
    }
  }

  // --- Sections ---

  void sections() {
    std::vector<bool> used(k_.reductions.size(), false);
    int last = -1;
    for (int32_t i = 0; i < k_.scalars.size(); ++i) {
      if (!live_[at(i)] || k_.scalars[i].op != ScalarOp::reduced) continue;
      used[at(k_.scalars[i].bits)] = true;
      last = std::max(last, phase_[at(i)] - 1);
    }
    for (const Store& s : k_.stores)
      if (!row_store(s)) last = std::max(last, phase_[at(s.value)]);
    for (const Across& c : k_.across) last = std::max(last, phase_[at(c.input)]);
    p_.passes.resize(at(last + 1));
    result_.assign(k_.reductions.size(), -1);

    steps_ = &p_.once;
    for (int32_t i = 0; i < k_.scalars.size(); ++i)
      if (live_[at(i)] && level_[at(i)] == Level::uniform) emit(i);
    for (int p = 0; p <= last; ++p) pass(p, p == last, used);
    steps_ = &p_.finish;
    rows(last + 1, INT32_MAX);
    for (size_t s = 0; s < k_.stores.size(); ++s)
      if (row_store(k_.stores[s])) store(s, Level::row);
  }

  /// Row-level nodes of phases [from, to].
  void rows(int from, int to) {
    for (int32_t i = 0; i < k_.scalars.size(); ++i)
      if (live_[at(i)] && level_[at(i)] == Level::row && phase_[at(i)] >= from && phase_[at(i)] <= to)
        emit(i);
  }

  void pass(int p, bool is_last, const std::vector<bool>& used) {
    Section& section = p_.passes[at(p)];
    steps_ = &section.before;
    rows(p, p);
    steps_ = &section.full;
    if (!mode_.keep) {
      spread_.clear();
      for (int32_t i = 0; i < k_.scalars.size(); ++i)
        if (level_[at(i)] == Level::full) reg_[at(i)] = -1;
    }
    std::vector<int32_t> todo;
    for (size_t r = 0; r < used.size(); ++r)
      if (used[r] && phase_[at(k_.reductions[r].input)] == p) todo.push_back(k_.reductions[r].input);
    if (is_last) {
      for (const Store& s : k_.stores)
        if (!row_store(s)) todo.push_back(s.value);
      for (const Across& c : k_.across) todo.push_back(c.input);
    }
    std::vector<bool> needed(at(k_.scalars.size()), false);
    while (!todo.empty()) {
      const int32_t i = todo.back();
      todo.pop_back();
      if (level_[at(i)] != Level::full || needed[at(i)] || reg_[at(i)] >= 0) continue;
      needed[at(i)] = true;
      for_inputs(k_, i, [&](int32_t in) { todo.push_back(in); });
    }
    for (int32_t i = 0; i < k_.scalars.size(); ++i)
      if (needed[at(i)]) emit(i);
    for (size_t r = 0; r < used.size(); ++r)
      if (used[r] && phase_[at(k_.reductions[r].input)] == p) reduce(r);
    if (!is_last) return;
    for (const Across& c : k_.across) {
      const Reducer* reducer = f_.reducer(c.op, type(c.input));
      TANDEM_INTERNAL(reducer != nullptr && !finds_index(c.op),
                      std::string("no reduction over rows of ") + tandem::name(type(c.input)));
      section.across.push_back({reducer, spread(c.input, Level::full, true), c.buffer});
    }
    for (size_t s = 0; s < k_.stores.size(); ++s) {
      if (row_store(k_.stores[s])) continue;
      store(s, Level::full);
      // Reductions run after the steps, when this store may have replaced the memory that they would read.
      for (const ReduceStep& r : section.reductions) copy_load(r.input);
      for (const AcrossStep& c : section.across) copy_load(c.input);
    }
  }

  void reduce(size_t r) {
    const Reduction& red = k_.reductions[r];
    const DType in = type(red.input);
    TANDEM_INTERNAL(finds_index(red.op) ? red.type == DType::int64 : red.type == in,
                    "a reduction in another type than its operand");
    const Reducer* reducer = f_.reducer(red.op, in);
    TANDEM_INTERNAL(reducer != nullptr, std::string("no reduction of ") + tandem::name(in));
    result_[r] = chunk_or_cell(Level::row, red.type);
    const int32_t input = spread(red.input, Level::full, true);
    p_.passes[at(phase_[at(red.input)])].reductions.push_back(
        {reducer, static_cast<int32_t>(r), input, result_[r], finds_index(red.op)});
  }

  void store(size_t s, Level level) {
    const Store& o = k_.stores[s];
    // A stored load would read memory that an earlier store may have replaced: it is copied first.
    if (k_.stores.size() > 1) copy_load(reg_[at(o.value)]);
    const bool one = level == Level::row && mode_.row_is_element;
    Step step(StepKind::store, level, -1);
    step.a = spread(o.value, level, !one);
    step.access = static_cast<int32_t>(k_.loads.size() + s);
    step.non_temporal = o.non_temporal;
    steps_->push_back(step);
  }

  /// If `reg` is a load, it becomes a copy instead of a pointer into memory.
  void copy_load(int32_t reg) {
    for_steps([&](Step& step, int32_t) {
      if (step.kind == StepKind::load && step.out == reg) step.copy = true;
    });
  }

  // --- Registers ---

  int32_t add_register(Place place, DType t, int32_t slot = -1) {
    p_.registers.push_back({place, static_cast<uint8_t>(itemsize(t)), slot});
    return static_cast<int32_t>(p_.registers.size()) - 1;
  }
  bool element(Level level) const {
    return level == Level::uniform || (level == Level::row && mode_.row_is_element);
  }
  int32_t chunk_or_cell(Level level, DType t) {
    return element(level) ? add_register(Place::cell, t, p_.cells++) : add_register(Place::chunk, t);
  }

  /// The register of a node for use at `level`, as elements of that level: `whole` turns single elements into
  /// chunks.
  int32_t spread(int32_t node, Level level, bool whole) {
    const Level own = level_[at(node)];
    const int32_t reg = reg_[at(node)];
    if (own == level || (element(own) && !whole)) return reg;
    const auto [it, fresh] = spread_.try_emplace({node, level}, -1);
    if (!fresh) return it->second;
    const bool one = element(own);
    Step step(one ? StepKind::unary : StepKind::expand, level, add_register(Place::chunk, type(node)));
    step.a = reg;
    if (one) step.unary = f_.fill(itemsize(type(node)));
    steps_->push_back(step);
    return it->second = step.out;
  }

  // --- Nodes ---

  void emit(int32_t i) {
    const ScalarNode& n = k_.scalars[i];
    const Level level = level_[at(i)];
    int32_t& reg = reg_[at(i)];
    switch (n.op) {
      case ScalarOp::constant:
        reg = add_register(Place::constant, n.type, static_cast<int32_t>(p_.constants.size()));
        p_.constants.push_back(constant_bits(n));
        return;
      case ScalarOp::number:
        reg = add_register(Place::number, n.type, static_cast<int32_t>(n.bits));
        return;
      case ScalarOp::reduced:
        reg = result_[at(n.bits)];
        TANDEM_INTERNAL(reg >= 0, "a reduction that is read before its operand");
        return;
      default:
        break;
    }
    Step step(StepKind::unary, level, chunk_or_cell(level, n.type));
    reg = step.out;
    if (n.op == ScalarOp::index) {
      step.kind = StepKind::iota;
    } else if (n.op == ScalarOp::load) {
      const Load& l = k_.loads[at(n.bits)];
      step.kind = l.index >= 0 ? StepKind::pick : StepKind::load;
      step.access = static_cast<int32_t>(n.bits);
      if (l.index >= 0) {
        step.uniform = element(level_[at(l.index)]);
        step.a = spread(l.index, level, false);
      }
    } else {
      call(step, n);
    }
    steps_->push_back(step);
  }

  void call(Step& step, ScalarNode n) {
    const int arity = ops::arity(n.op);
    const DType in = type(n.in[0]);
    const auto missing = [&] {
      internal_error(std::string("no scalar function ") + ops::name(n.op) + " of " + tandem::name(in));
    };
    if (is_random(n.op))
      TANDEM_INTERNAL(element(level_[at(n.in[1])]) && element(level_[at(n.in[2])]),
                      "random draws with a seed per element");
    // a > b is b < a, for which there are more loops.
    if (n.op == ScalarOp::gt || n.op == ScalarOp::ge) {
      n.op = n.op == ScalarOp::gt ? ScalarOp::lt : ScalarOp::le;
      std::swap(n.in[0], n.in[1]);
    }
    unsigned uniform = 0;
    if (!element(step.level))
      for (int j = 0; j < arity; ++j) uniform |= static_cast<unsigned>(element(level_[at(n.in[j])])) << j;
    const auto operands = [&](bool whole) {
      int32_t* const to[3] = {&step.a, &step.b, &step.c};
      for (int j = 0; j < arity; ++j) *to[j] = spread(n.in[j], step.level, whole && (uniform >> j & 1u) != 0);
    };
    switch (arity) {
      case 1:
        step.kind = StepKind::unary;
        step.unary = n.op == ScalarOp::cast ? f_.cast(in, n.type) : f_.unary(n.op, in);
        if (step.unary == nullptr) missing();
        return operands(false);
      case 2:
        step.kind = StepKind::binary;
        step.binary = f_.binary(n.op, in, uniform);
        if (step.binary != nullptr) return operands(false);
        step.binary = f_.binary(n.op, in, 0);
        if (step.binary == nullptr) missing();
        return operands(true);
      default:
        step.kind = StepKind::ternary;
        step.ternary = f_.ternary(n.op, n.type, uniform);
        if (step.ternary != nullptr) return operands(false);
        step.ternary = f_.ternary(n.op, n.type, 0);
        if (step.ternary == nullptr) missing();
        return operands(true);
    }
  }

  // --- Scratch memory ---

  template <class F>
  void for_steps(const F& f) {
    int32_t position = 0;
    const auto all = [&](std::vector<Step>& steps) {
      for (Step& s : steps) f(s, position++);
    };
    all(p_.once);
    for (Section& s : p_.passes) {
      all(s.before);
      all(s.full);
    }
    all(p_.finish);
  }

  void place_chunks() {
    const size_t n = p_.registers.size();
    std::vector<int32_t> last_use(n, -1);
    std::vector<bool> full(n, false);
    const auto use = [&](int32_t reg, int32_t position) {
      if (reg >= 0) last_use[at(reg)] = std::max(last_use[at(reg)], position);
    };
    for_steps([&](const Step& s, int32_t position) {
      use(s.a, position), use(s.b, position), use(s.c, position);
      use(s.out, position);
      if (s.out >= 0 && s.level == Level::full) full[at(s.out)] = true;
    });
    // Operands of reductions are read after all steps of their pass.
    int32_t position = static_cast<int32_t>(p_.once.size());
    for (const Section& s : p_.passes) {
      position += static_cast<int32_t>(s.before.size() + s.full.size());
      for (const ReduceStep& r : s.reductions) use(r.input, position);
      for (const AcrossStep& c : s.across) use(c.input, position);
    }
    // Row-level chunks, and results of reductions, keep a slot to themselves.
    for (size_t r = 0; r < n; ++r)
      if (p_.registers[r].place == Place::chunk && !full[r])
        p_.registers[r].slot = new_slot(p_.registers[r].itemsize);
    std::vector<std::pair<int32_t, int32_t>> busy;  // last use, register
    for_steps([&](const Step& s, int32_t now) {
      if (s.out < 0 || !full[at(s.out)]) return;
      Register& r = p_.registers[at(s.out)];
      for (const auto& [until, other] : busy) {
        const Register& o = p_.registers[at(other)];
        const bool taken = std::any_of(busy.begin(), busy.end(), [&](const auto& b) {
          return b.first >= now && p_.registers[at(b.second)].slot == o.slot;
        });
        if (until < now && !taken && o.itemsize == r.itemsize) {
          r.slot = o.slot;
          break;
        }
      }
      if (r.slot < 0) r.slot = new_slot(r.itemsize);
      busy.emplace_back(last_use[at(s.out)], s.out);
    });
  }

  int32_t new_slot(int64_t itemsize) {
    p_.slot_offsets.push_back(p_.slot_bytes);
    p_.slot_bytes += itemsize;
    return static_cast<int32_t>(p_.slot_offsets.size()) - 1;
  }

  void aim_stores() {
    if (p_.passes.empty()) return;
    std::vector<Step>& steps = p_.passes.back().full;
    std::vector<bool> loaded(p_.registers.size(), false);
    for_steps([&](const Step& s, int32_t) {
      if ((s.kind == StepKind::load && !s.copy) || s.kind == StepKind::pick) loaded[at(s.out)] = true;
    });
    size_t first = 0;  // no load is read from here on, but by the step before
    for (size_t i = 0; i < steps.size(); ++i) {
      const Step& s = steps[i];
      const auto reads = [&](int32_t reg) { return reg >= 0 && loaded[at(reg)]; };
      if (s.kind == StepKind::load || s.kind == StepKind::pick)
        first = i + 1;
      else if (reads(s.a) || reads(s.b) || reads(s.c))
        first = i;
    }
    for (const ReduceStep& r : p_.passes.back().reductions)
      if (loaded[at(r.input)]) return;
    for (const AcrossStep& c : p_.passes.back().across)
      if (loaded[at(c.input)]) return;
    for (size_t i = first; i < steps.size(); ++i) {
      const Step s = steps[i];
      if (s.kind == StepKind::store || s.out < 0 || loaded[at(s.out)]) continue;
      const auto store = std::find_if(steps.begin(), steps.end(), [&](const Step& o) {
        return o.kind == StepKind::store && o.a == s.out;
      });
      if (store == steps.end() || store->non_temporal) continue;
      Step aim(StepKind::aim, Level::full, s.out);
      aim.access = store->access;
      steps.insert(steps.begin() + static_cast<std::ptrdiff_t>(i), aim);
      ++i;
    }
  }

  const Kernel& k_;
  const ChunkFunctions& f_;
  const Mode mode_;
  Program p_;
  std::vector<Level> level_;
  std::vector<int> phase_;
  std::vector<int32_t> reg_;
  std::vector<int32_t> result_;  // of reductions: registers
  std::vector<bool> live_;
  std::map<std::pair<int32_t, Level>, int32_t> spread_;
  std::vector<Step>* steps_ = nullptr;
};

}  // namespace

int64_t chunk_of(const Program& p) {
  constexpr int64_t kChunkBytes = 24 * 1024;  // of all chunks together: half of a first-level cache
  int64_t chunk = 2048;
  while (chunk > 256 && chunk * p.slot_bytes > kChunkBytes) chunk /= 2;
  return chunk;
}

Program make_program(const Kernel& k, const ChunkFunctions& functions, Mode mode) {
  return Builder(k, functions, mode).build();
}

}  // namespace tandem::jit
