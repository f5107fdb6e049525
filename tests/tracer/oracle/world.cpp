#include "tests/tracer/oracle/world.h"

namespace oracle {

/// What BODY runs: the statements of a block, and then the block's value.
struct World::Body {
  World& world;
  const Line* line;
  std::vector<Tensor>* slots;
  bool operator()() const { return world.run(line->body, *slots); }
};

// A block's body runs the lines; its value is assigned inside, where its results are still alive.
#define BODY            \
  {                     \
    if (body()) return; \
  }
#define LAMBDA_BODY \
  { body(); }
#define RETURN(value) (returned_value_ = (value), returned_ = true)
#define GIVE_UP(value) (const_cast<Tensor&>(value) = Tensor())
#define PARAMETERS                                                                                \
  [[maybe_unused]] const Tensor &a, [[maybe_unused]] const Tensor &b, [[maybe_unused]] Tensor &r, \
      [[maybe_unused]] const int &k, [[maybe_unused]] const float &f, [[maybe_unused]] const Body &body

#define ROW(name, sa, sb, result, ...) \
  void World::row_##name(PARAMETERS) { __VA_ARGS__ }
#define BLOCK(name, sa, sb, ...) ROW(name, sa, sb, as_a, __VA_ARGS__)
#define OUTSIDE(name, ...) ROW(name, , , , __VA_ARGS__)
#define ARGUMENT(group, name, ...) ROW(name, , , , __VA_ARGS__)
#define CHOICE(group, name, ...) ROW(name, , , , __VA_ARGS__)
#define LOOK(name, ...) \
  void World::look_##name() { __VA_ARGS__ }
#define STATE(name, declaration, ...) \
  void World::set_##name() { __VA_ARGS__ }
#include "tests/tracer/oracle/rows.def"

const World::Run World::kRuns[kKinds] = {
#define ROW(name, ...) &World::row_##name,
#define BLOCK ROW
#define OUTSIDE ROW
#define ARGUMENT(group, name, ...) &World::row_##name,
#define CHOICE(group, name, ...) &World::row_##name,
#include "tests/tracer/oracle/rows.def"
};

World::World(const Program& p, const Resolved& resolved, bool traced, const Options& options,
             Coverage* coverage)
    : program_(p),
      resolved_(resolved),
      options_(options),
      coverage_(coverage),
      traced(traced),
      grads(p.grads),
      self([this](Tensor first, Tensor second, Tensor third) {
        return run_body(std::move(first), std::move(second), std::move(third));
      }) {
  td::manual_seed(5);
#define STATE(name, ...) set_##name();
#include "tests/tracer/oracle/rows.def"
  run({.what = p.optimizer});
  run({.what = p.signature});
}

void World::run(const Statement& s) {
  static const Tensor kNone;
  Tensor r;
  const auto kind = static_cast<size_t>(s.what);
  if (coverage_) ++(*coverage_)[kind];
  (this->*kRuns[kind])(kNone, kNone, r, s.k, s.f, Body{*this, nullptr, nullptr});
}

const Tensor& World::value(int reference, const std::vector<Tensor>& slots) const {
  return reference >= 0 ? slots[static_cast<size_t>(reference)] : p[static_cast<size_t>(-1 - reference)];
}

bool World::run(const std::vector<Line>& lines, std::vector<Tensor>& slots) {
  // Values die at the end of their block, the latest first, also if a statement throws.
  struct Ends {
    const std::vector<Line>& lines;
    std::vector<Tensor>& slots;
    ~Ends() {
      for (auto l = lines.rbegin(); l != lines.rend(); ++l)
        if (l->slot >= 0) slots[static_cast<size_t>(l->slot)] = Tensor();
    }
  } const ends{lines, slots};
  Tensor none;
  for (const Line& l : lines) {
    if (l.returns) {
      returned_value_ = value(l.a, slots);
      break;
    }
    if (l.gives >= 0) {
      slots[static_cast<size_t>(l.gives)] = value(l.a, slots);
      continue;
    }
    const auto kind = static_cast<size_t>(l.from->what);
    if (coverage_) ++(*coverage_)[kind];
    Tensor& r = l.slot >= 0 ? slots[static_cast<size_t>(l.slot)] : none;
    (this->*kRuns[kind])(value(l.a, slots), value(l.b, slots), r, l.from->k, l.from->f,
                         Body{*this, &l, &slots});
    if (returned_) return true;
  }
  return false;
}

Tensor World::run_body(Tensor first, Tensor second, Tensor third) {
  std::vector<Tensor> slots(static_cast<size_t>(resolved_.slots));
  slots[0] = std::move(first), slots[1] = std::move(second), slots[2] = std::move(third);
  run(resolved_.lines, slots);
  returned_ = false;
  return std::exchange(returned_value_, {});
}

void World::show(const Tensor& t) {
  if (!t.defined()) return out.push_back(7);
  for (const float v : t.detach().to_vector<float>()) out.push_back(v == v ? std::bit_cast<uint32_t>(v) : 1);
}

// Also printed, see print.cpp.
void World::call(const Call& c) {
  n = c.n, trips = c.trips, position = c.position, depth = 0, scale = c.scale;
  flag = c.flag, flag2 = c.flag2, boom = c.boom, moved = c.moved;
  returned_ = false;
  calls.push_back(out.size());
  errors.emplace_back();
  const auto guarded = [&](auto&& f) {
    try {
      f();
    } catch (const Boom&) {
      threw("boom");
    } catch (const std::exception& e) {
      threw(e.what());
    }
  };
  guarded([&] {
    for (const Statement& s : c.before) run(s);
    run(c.x);
    run(c.y);
    run(c.z);
    results.push_back(moved ? step(std::move(x), std::move(y), std::move(z)) : step(x, y, z));
    if (results.size() > 3) results.erase(results.begin(), results.end() - 3);
  });
  guarded([&] {
    uint32_t bit = 1;
#define LOOK(name, ...)                   \
  if (program_.look & bit) look_##name(); \
  bit <<= 1;
#include "tests/tracer/oracle/rows.def"
  });
}

// Up to the line: an op that equals the recorded one is taken for it, whatever its line.
void World::threw(std::string what) {
  what = what.substr(0, what.find(" at "));
  out.push_back(static_cast<uint32_t>(std::hash<std::string>()(what)));
  errors.back() += what;
}

}  // namespace oracle
