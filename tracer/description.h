// The description of a saved function as text: tokens between spaces. One walk (`describe`) both writes and
// reads it. Values; one thread.
#pragma once

#include <bit>
#include <charconv>
#include <concepts>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tandem/tracer/frozen_core.h"

namespace tandem::tracer {

class Writer {
 public:
  static constexpr bool kReads = false;
  std::string out;

  template <std::integral T>
  void number(T& v) {
    out += std::to_string(v) + ' ';
  }
  void text(std::string& s) { out += std::to_string(s.size()) + ':' + s + ' '; }
  void location(Location& l) {
    std::string file = l.file;
    text(file);
    number(l.line);
  }
  template <class T, class F>
  void list(std::vector<T>& v, F f) {
    out += std::to_string(v.size()) + '\n';
    for (T& e : v) {
      f(e);
      out += '\n';
    }
  }
};

class Reader {
 public:
  static constexpr bool kReads = true;
  Reader(std::string_view text, FrozenCore& core) : text_(text), core_(core) {}

  template <std::integral T>
  void number(T& v) {
    int64_t n = 0;
    if constexpr (std::is_same_v<T, uint64_t>) {
      uint64_t u = 0;
      parse(u);
      v = u;
      return;
    }
    parse(n);
    if (!std::in_range<std::conditional_t<std::is_same_v<T, bool>, uint8_t, T>>(n) ||
        (std::is_same_v<T, bool> && n > 1))
      fail("a number is out of its range");
    v = static_cast<T>(n);
  }
  void text(std::string& s) {
    size_t n = 0;
    parse(n, ':');
    if (n > left()) fail("a text is longer than the file");
    s = std::string(text_.substr(at_, n));
    at_ += n;
    expect(' ');
  }
  void location(Location& l) {
    std::string file;
    text(file);
    number(l.line);
    l.file = core_.keep(file);
  }
  template <class T, class F>
  void list(std::vector<T>& v, F f) {
    size_t n = 0;
    parse(n, '\n');
    if (n > left()) fail("a list is longer than the file");
    v.clear();
    for (size_t i = 0; i < n; ++i) {
      f(v.emplace_back());
      expect('\n');
    }
  }
  void end() {
    if (left()) fail("something follows the description");
  }
  [[noreturn]] void fail(const std::string& what) const {
    tandem::fail("the description is damaged at byte " + std::to_string(at_) + ": " + what);
  }

 private:
  size_t left() const { return text_.size() - at_; }
  void expect(char c) {
    if (!left() || text_[at_] != c) fail("expected another character");
    ++at_;
  }
  template <class T>
  void parse(T& v, char after = ' ') {
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), v);
    if (error != std::errc()) fail("expected a number");
    at_ = static_cast<size_t>(end - text_.data());
    expect(after);
  }

  std::string_view text_;
  size_t at_ = 0;
  FrozenCore& core_;
};

template <class Io>
void describe(Io& io, Dims& d) {
  int rank = d.rank();
  io.number(rank);
  if constexpr (Io::kReads) {
    if (rank < 0 || rank > kMaxRank) io.fail("a rank that no tensor has");
    d.resize(rank);
  }
  for (int64_t& v : d) io.number(v);
}

/// An enumeration whose values are 0 to `last`.
template <class Io, class E>
void describe(Io& io, E& e, E last) {
  auto v = static_cast<int64_t>(e);
  io.number(v);
  if constexpr (Io::kReads)
    if (v < 0 || v > static_cast<int64_t>(last)) io.fail("a kind that is not known");
  e = static_cast<E>(v);
}

template <class Io>
void describe(Io& io, DType& t) {
  std::string text = name(t);
  io.text(text);
  if constexpr (Io::kReads) {
    for (int i = 0; i < kDTypeCount; ++i)
      if (text == name(static_cast<DType>(i))) return void(t = static_cast<DType>(i));
    io.fail("a dtype that is not known");
  }
}

template <class Io>
void describe(Io& io, Device& d) {
  std::string text = to_string(d);
  io.text(text);
  if constexpr (Io::kReads) d = parse_device(text);
}

template <class Io>
void describe(Io& io, ops::OpId& id) {
  std::string text = id == ops::OpId::count_ ? "" : ops::def(id).name;
  io.text(text);
  if constexpr (Io::kReads) {
    id = ops::OpId::count_;
    if (text.empty()) return;
    const ops::OpDef* op = ops::find_op(text.c_str());
    if (!op) io.fail("the op \"" + text.substr(0, 40) + "\" is not known");
    id = op->id;
  }
}

template <class Io>
void describe(Io& io, Place& p) {
  describe(io, p.kind, Place::Kind::made);
  io.number(p.index);
}

template <class Io>
void describe(Io& io, double& v) {
  auto bits = std::bit_cast<int64_t>(v);
  io.number(bits);
  v = std::bit_cast<double>(bits);
}

template <class Io>
void describe(Io& io, FrozenSlot& s) {
  io.text(s.name);
  describe(io, s.dtype);
  describe(io, s.device);
  describe(io, s.sizes);
  describe(io, s.strides);
  io.number(s.requires_grad);
  io.number(s.written);
  io.location(s.where);
}

template <class Io>
void describe(Io& io, FrozenSignature& s) {
  io.number(s.modes);
  io.number(s.structure);
  io.number(s.drawn);
  io.text(s.graph);
  describe(io, s.device);
  io.list(s.key, [&](ArgumentType& a) {
    describe(io, a.dtype);
    describe(io, a.device);
    describe(io, a.sizes);
    describe(io, a.strides);
    io.number(a.requires_grad);
    io.number(a.leaf);
    io.number(a.same_as);
    io.number(a.shares);
  });
  io.list(s.inputs, [&](Place& p) { describe(io, p); });
  io.list(s.numbers, [&](NumberRule& n) {
    describe(io, n.kind, NumberRule::Kind::correction);
    io.number(n.bits);
    io.number(n.counter);
    io.number(n.ahead);
    describe(io, n.beta);
  });
  io.list(s.made, [&](MadeTensor& m) {
    io.number(m.output);
    describe(io, m.base);
    describe(io, m.dtype);
    describe(io, m.sizes);
    describe(io, m.strides);
    io.number(m.offset);
    io.number(m.version);
    io.location(m.changed_at);
    io.number(m.requires_grad);
    io.number(m.freed);
    describe(io, m.op);
    io.location(m.where);
    io.number(m.follows);
    io.list(m.words, [&](int64_t& w) { io.number(w); });
  });
  io.list(s.results, [&](Place& p) { describe(io, p); });
  io.list(s.grads, [&](GradWrite& w) {
    describe(io, w.leaf);
    describe(io, w.before, GradWrite::Before::present);
    describe(io, w.after, GradWrite::After::kept);
    io.number(w.before_slot);
    io.number(w.made);
  });
  io.list(s.moves, [&](VersionMove& m) {
    describe(io, m.memory);
    io.number(m.count);
    io.location(m.where);
  });
  io.list(s.steps, [&](std::pair<uint32_t, uint32_t>& step) {
    io.number(step.first);
    io.number(step.second);
  });
  io.list(s.constants, [&](FrozenConstant& c) {
    io.text(c.op);
    io.text(c.attribute);
    describe(io, c.value);
    io.text(c.file);
    io.number(c.line);
  });
}

template <class Io>
void describe(Io& io, FrozenCore& core, std::vector<FrozenSignature>& signatures, uint64_t& counters) {
  io.text(core.name);
  io.number(core.compile);
  io.number(counters);
  io.list(core.slots, [&](FrozenSlot& s) { describe(io, s); });
  io.list(signatures, [&](FrozenSignature& s) { describe(io, s); });
}

/// The signature's graph before the passes, with the lines of its nodes, whose files `core` keeps.
jit::Graph graph_of(const FrozenSignature& s, FrozenCore& core);

/// Checks everything in a description that decides which memory is used; throws an Error. `g`: its graph.
void check_description(const FrozenCore& core, const FrozenSignature& s, const jit::Graph& g,
                       size_t counters);
/// The bytes of all values can be counted; an Error if not.
void check_sizes(const jit::Graph& g);
/// How far the elements of a layout reach, in elements; an Error if it is no layout.
int64_t extent(const Dims& sizes, const Dims& strides, DType dtype);
/// True where elements lie on one another, as expand's do: a copy of them would be larger.
bool repeats_elements(const Dims& sizes, const Dims& strides, DType dtype);
/// A file holds the elements of captured tensors, not what lies between them: how far these may be apart, all
/// together, so that a small file cannot ask for any amount of memory.
class Spread {
 public:
  /// False from the tensor on with which it is too far.
  bool fits(const Dims& sizes, const Dims& strides, DType dtype);

 private:
  int64_t reach_ = 0, elements_ = 0;  // bytes
};

}  // namespace tandem::tracer
