// A description that was read is checked as the work of strangers: it decides which memory is read and
// written.
#include <algorithm>
#include <cstddef>
#include <cstring>

#include "tandem/jit/graph_check.h"
#include "tandem/tracer/description.h"

namespace tandem::tracer {

int64_t extent(const Dims& sizes, const Dims& strides, DType dtype) {
  if (sizes.rank() != strides.rank()) fail("a tensor has other strides than sizes");
  const int64_t n = checked_numel(sizes);
  checked_mul(n, itemsize(dtype));
  int64_t last = 0;
  for (int i = 0; i < sizes.rank(); ++i) {
    if (strides[i] < 0) fail("a tensor has a negative stride");
    // A step further than the end, which views and loops may take, can be counted too.
    checked_mul(checked_mul(std::max<int64_t>(sizes[i], 1), strides[i]), itemsize(dtype));
    last = checked_add(last, checked_mul(std::max<int64_t>(sizes[i] - 1, 0), strides[i]));
  }
  checked_mul(checked_add(last, 1), itemsize(dtype));
  return n == 0 ? 0 : last + 1;
}
bool repeats_elements(const Dims& sizes, const Dims& strides, DType dtype) {
  return extent(sizes, strides, dtype) < numel(sizes);
}

bool Spread::fits(const Dims& sizes, const Dims& strides, DType dtype) {
  constexpr int64_t kFree = int64_t{256} << 20, kTimes = 64;
  reach_ = checked_add(reach_, extent(sizes, strides, dtype) * itemsize(dtype));
  elements_ = checked_add(elements_, numel(sizes) * itemsize(dtype));
  return reach_ <= checked_add(kFree, checked_mul(kTimes, elements_));
}

void check_sizes(const jit::Graph& g) {
  // More than any memory, and few enough that sums of them can be counted.
  constexpr int64_t kMost = int64_t{1} << 62;
  int64_t total = 0;
  for (const jit::ValueInfo& v : g.values) {
    if (v.type.number) continue;
    const int64_t nbytes = checked_mul(checked_numel(v.type.sizes), itemsize(v.type.dtype), "size in bytes");
    if (total > kMost - nbytes) fail("the values of a graph are too large: size in bytes");
    total += nbytes;
  }
}

namespace {

/// Everything in a description that decides which memory is used.
class Validator {
 public:
  Validator(const FrozenCore& core, const FrozenSignature& s, const jit::Graph& g, size_t counters)
      : core_(core), s_(s), g_(g), counters_(counters) {}

  void run() const {
    check_sizes(g_);
    for (size_t i = 0; i < s_.key.size(); ++i) {
      const ArgumentType& a = s_.key[i];
      extent(a.sizes, a.strides, a.dtype);
      require(a.same_as < static_cast<int>(i) && a.same_as >= -1 && a.shares < static_cast<int>(i) &&
                  a.shares >= -1,
              "an argument's aliases");
    }
    require(possible_modes(s_.modes), "the modes");
    require(s_.inputs.size() == g_.inputs.size(), "the number of inputs");
    for (size_t i = 0; i < s_.inputs.size(); ++i) {
      const View v = view(s_.inputs[i], false);
      const ops::TensorType& t = g_.type(g_.inputs[i].value);
      require(v.dtype == t.dtype && v.sizes == t.sizes && v.strides == g_.inputs[i].strides &&
                  g_.inputs[i].form == jit::Form::strides,
              "the type of an input");
    }
    require(s_.numbers.size() == g_.number_types.size(), "the number of numbers");
    for (size_t i = 0; i < s_.numbers.size(); ++i) {
      const NumberRule& n = s_.numbers[i];
      const bool whole = n.kind == NumberRule::Kind::seed || n.kind == NumberRule::Kind::offset;
      require(!whole || g_.number_types[i] == DType::int64, "the type of a number");
      require(n.kind != NumberRule::Kind::offset || (n.bits >= 0 && n.bits < s_.drawn), "what is drawn");
      if (n.kind == NumberRule::Kind::correction)
        require(g_.number_types[i] == DType::float64 && moves(n), "a correction");
    }
    require(s_.drawn >= 0, "what is drawn");
    std::vector<char> used(g_.outputs.size(), 0);
    for (size_t i = 0; i < s_.made.size(); ++i) made(i, used);
    require(std::find(used.begin(), used.end(), 0) == used.end(), "the memory of a result");
    for (const Place p : s_.results) view(p, true);
    for (const GradWrite& w : s_.grads) {
      const View leaf = view(w.leaf, false);
      require(is_floating(leaf.dtype), "the type of a gradient");
      require(w.before != GradWrite::Before::slot || w.before_slot < core_.slots.size(),
              "a gradient's place");
      if (w.before == GradWrite::Before::slot)
        same_type(leaf, view({Place::Kind::slot, w.before_slot}, false));
      if (w.after == GradWrite::After::made) same_type(leaf, view({Place::Kind::made, w.made}, true));
    }
    for (const VersionMove& m : s_.moves) view(m.memory, false);
    for (const auto& [counter, moves] : s_.steps) require(counter < counters_, "a step count");
  }

 private:
  struct View {
    DType dtype;
    Dims sizes, strides;
  };
  /// The optimizer's step that a correction follows is one of this call.
  bool moves(const NumberRule& n) const {
    return n.counter < counters_ && std::any_of(s_.steps.begin(), s_.steps.end(), [&](const auto& step) {
             return step.first == n.counter && n.ahead >= 1 && n.ahead <= int64_t{step.second};
           });
  }
  static bool possible_modes(uint64_t word) {
    uint8_t bytes[sizeof word];
    std::memcpy(bytes, &word, sizeof word);
    Modes m;
    m.grad = bytes[offsetof(Modes, grad)] == 1;
    m.deterministic = bytes[offsetof(Modes, deterministic)] == 1;
    m.flush_denormals = bytes[offsetof(Modes, flush_denormals)] == 1;
    m.autocast = bytes[offsetof(Modes, autocast)];
    m.tf32 = bytes[offsetof(Modes, tf32)] == 1;
    const uint8_t* const device = bytes + offsetof(Modes, default_device);
    const bool cuda = device[offsetof(Device, type)] == static_cast<uint8_t>(DeviceType::cuda);
    m.default_device = {cuda ? DeviceType::cuda : DeviceType::cpu, device[offsetof(Device, index)]};
    return modes_word(m) == word && m.autocast <= kDTypeCount;
  }
  static void require(bool fine, const char* what) {
    if (!fine) fail(std::string("the description is damaged: ") + what + " cannot be right");
  }
  static void same_type(const View& a, const View& b) {
    require(a.dtype == b.dtype && a.sizes == b.sizes, "the type of a gradient");
  }
  View view(Place p, bool may_be_made) const {
    switch (p.kind) {
      case Place::Kind::argument:
        require(p.index < s_.key.size(), "the place of a tensor");
        return {s_.key[p.index].dtype, s_.key[p.index].sizes, s_.key[p.index].strides};
      case Place::Kind::slot:
        require(p.index < core_.slots.size(), "the place of a tensor");
        return {core_.slots[p.index].dtype, core_.slots[p.index].sizes, core_.slots[p.index].strides};
      case Place::Kind::made:
        break;
    }
    require(may_be_made && p.index < s_.made.size(), "the place of a tensor");
    return {s_.made[p.index].dtype, s_.made[p.index].sizes, s_.made[p.index].strides};
  }
  void made(size_t i, std::vector<char>& used) const {
    const MadeTensor& m = s_.made[i];
    const int64_t reach = extent(m.sizes, m.strides, m.dtype);
    require(!m.freed || m.op != ops::OpId::count_, "the op of a result");
    require(m.requires_grad == m.freed && (!m.requires_grad || is_floating(m.dtype)),
            "the history of a result");
    if (m.output >= 0) {
      const auto o = static_cast<size_t>(m.output);
      require(o < used.size() && !used[o], "the memory of a result");
      used[o] = 1;
      const ops::TensorType& t = g_.type(g_.outputs[o]);
      require(m.dtype == t.dtype && m.sizes == t.sizes && m.offset == 0 && is_contiguous(m.sizes, m.strides),
              "the type of a result");
      return;
    }
    require(m.output == -1 && (m.base.kind != Place::Kind::made || m.base.index < i),
            "the memory of a result");
    const View base = view(m.base, true);
    const int64_t room = extent(base.sizes, base.strides, base.dtype);
    require(m.dtype == base.dtype && m.offset >= 0 &&
                checked_add(m.offset, reach) <= std::max<int64_t>(room, m.offset),
            "the memory of a view");
    require(m.op != ops::OpId::count_ && ops::def(m.op).kind == ops::OpKind::view, "the op of a view");
    require(is_view(m, base), "the layout of a view");
  }
  /// The op with its words shows the base in just this way.
  static bool is_view(const MadeTensor& m, const View& base) {
    jit::Graph g;
    ops::TensorType type;
    type.dtype = base.dtype;
    type.sizes = base.sizes;
    jit::Node n;
    n.op = m.op;
    n.words = m.words;
    n.in = {g.add_input(type, base.strides)};
    n.out = {static_cast<int32_t>(g.values.size())};
    ops::TensorType result = type;
    result.sizes = m.sizes;
    g.values.push_back({result, 1, 0});
    if (!jit::node_defect(g, n).expected.empty()) return false;
    const ops::OpDef& op = ops::def(m.op);
    const bool present = true;
    const ops::Layout is =
        op.view({op, {&type, 1}, {&present, 1}, m.words, {}}, {base.sizes, base.strides, 0});
    return is.possible && is.sizes == m.sizes && is.strides == m.strides && is.offset == m.offset;
  }

  const FrozenCore& core_;
  const FrozenSignature& s_;
  const jit::Graph& g_;
  size_t counters_;
};

}  // namespace

void check_description(const FrozenCore& core, const FrozenSignature& s, const jit::Graph& g,
                       size_t counters) {
  Validator(core, s, g, counters).run();
}

}  // namespace tandem::tracer
