// Statements to lines: which value each operand is. A reference stands if its value is alive there and of a
// shape that the row takes; else it is a number that picks one among those that are.
#include <map>

#include "tests/tracer/oracle/program.h"

namespace oracle {

const Row kRows[kKinds] = {
#define ROW(name, a, b, result, ...) \
  {#name, Group::statement, Shape::a, Shape::b, Result::result, #__VA_ARGS__},
#define BLOCK(name, a, b, ...) {#name, Group::block, Shape::a, Shape::b, Result::as_a, #__VA_ARGS__},
#define OUTSIDE(name, ...) {#name, Group::outside, Shape::none, Shape::none, Result::none, #__VA_ARGS__},
#define ARGUMENT(group, name, ...) \
  {#name, Group::group, Shape::none, Shape::none, Result::none, #__VA_ARGS__},
#define CHOICE(group, name, ...) {#name, Group::group, Shape::none, Shape::none, Result::none, #__VA_ARGS__},
#include "tests/tracer/oracle/rows.def"
};

namespace {

struct Value {
  int reference, slot;
  Shape shape;
};

class Resolver {
 public:
  explicit Resolver(Resolved& out) : out_(out) {
    alive_ = {{0, 0, Shape::mat}, {1, 1, Shape::vec}, {2, 2, Shape::mat}};
    for (int i = 0; i < kParameters; ++i) alive_.push_back({kArguments + i, -1 - i, Shape::vec});
    own_ = alive_.size();
  }

  /// `result`: the value that the block's lines may replace; `slot` < 0: the body of the program.
  void block(const std::vector<Statement>& statements, std::vector<Line>& lines, Value result, bool lambda) {
    const size_t outer = alive_.size(), outer_own = own_;
    if (result.slot >= 0) own_ = outer;
    for (const Statement& s : statements) statement(s, lines, lambda);
    int last = -1;
    for (size_t i = outer; i < alive_.size(); ++i)
      if (result.slot < 0 || alive_[i].shape == result.shape) last = alive_[i].slot;
    if (result.slot < 0)
      lines.push_back({.a = last >= 0 ? last : alive_[0].slot, .returns = true});
    else if (last >= 0)
      lines.push_back({.a = last, .gives = result.slot});
    alive_.resize(outer);
    own_ = outer_own;
  }

 private:
  const Value* operand(int reference, Shape shape) const {
    const auto fits = [&](const Value& v) { return shape == Shape::any || v.shape == shape; };
    int candidates = 0;
    for (const Value& v : alive_) {
      if (!fits(v)) continue;
      if (v.reference == reference) return &v;
      ++candidates;
    }
    if (!candidates) return nullptr;
    int nth = reference % candidates;
    for (const Value& v : alive_)
      if (fits(v) && nth-- == 0) return &v;
    return nullptr;
  }

  void statement(const Statement& s, std::vector<Line>& lines, bool lambda) {
    const Row& r = row(s.what);
    const std::string_view text = r.text;
    if (lambda && text.find("RETURN") != text.npos) return;
    Line line{.row = &r, .from = &s};
    Value a{}, b{};
    for (const auto& [shape, reference, value, slot] :
         {std::tuple(r.a, s.a, &a, &line.a), std::tuple(r.b, s.b, &b, &line.b)}) {
      if (shape == Shape::none) continue;
      const Value* v = operand(reference, shape);
      if (!v) return;
      *value = *v;
      *slot = v->slot;
    }
    if (s.what == Kind::give_up) {
      // Only a value of this very block: others may run again, or be given up on one path alone.
      for (size_t i = own_; i < alive_.size(); ++i)
        if (alive_[i].slot == a.slot) {
          alive_.erase(alive_.begin() + static_cast<std::ptrdiff_t>(i));
          lines.push_back(line);
          return;
        }
      return;
    }
    Value result{kReferences + s.id, -1, Shape::vec};
    switch (r.result) {
      case Result::none:
        lines.push_back(line);
        return;
      case Result::vec:
        break;
      case Result::mat:
        result.shape = Shape::mat;
        break;
      case Result::as_a:
        result.shape = a.shape;
        break;
      case Result::as_b:
        result.shape = b.shape;
        break;
      case Result::join:
        result.shape = a.shape == Shape::mat ? a.shape : b.shape;
        break;
    }
    line.slot = result.slot = out_.slots++;
    if (r.group == Group::block) {
      // Inside, the block's own value can be used: what came before it, or the iteration before.
      alive_.push_back(result);
      block(s.body, line.body, result, lambda || s.what == Kind::inner_trace);
      alive_.pop_back();
    }
    alive_.push_back(result);
    lines.push_back(std::move(line));
  }

  Resolved& out_;
  std::vector<Value> alive_;
  size_t own_;  // values from here on belong to the innermost block
};

}  // namespace

Resolved resolve(const Program& p) {
  Resolved out;
  Resolver(out).block(p.body, out.lines, {0, -1, Shape::none}, false);
  return out;
}

int count_statements(const Program& p) {
  int n = 0;
  const std::function<void(const std::vector<Statement>&)> count = [&](const std::vector<Statement>& list) {
    for (const Statement& s : list) {
      ++n;
      count(s.body);
    }
  };
  count(p.body);
  for (const Call& c : p.calls) count(c.before);
  return n;
}

}  // namespace oracle
