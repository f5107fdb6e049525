// A program from a seed. The first three calls change nothing but numbers and flags, so that a plan is taken
// before the outside begins to move things.
#include <array>
#include <random>

#include "tests/tracer/oracle/program.h"

namespace oracle {

namespace {

constexpr int kCalls = 10;

std::vector<Kind> kinds_of(Group group) {
  std::vector<Kind> out;
  for (size_t k = 0; k < kKinds; ++k)
    if (kRows[k].group == group) out.push_back(static_cast<Kind>(k));
  return out;
}

/// What other statements need to be seen, and what keeps things over calls.
constexpr Kind kOften[] = {Kind::in_place_param, Kind::in_place_slice, Kind::backward, Kind::backward_value,
                           Kind::train,          Kind::keep_sometimes, Kind::use_kept, Kind::use_history};

class Maker {
 public:
  explicit Maker(uint32_t seed) : g_(seed) {}

  Program make(uint32_t seed) {
    Program p;
    p.seed = seed;
    p.grads = pick(3) ? 7 : 0;
    p.optimizer = one(Group::optimizer);
    p.signature = pick(2) ? Kind::plain : one(Group::signature);
    known_ = {0, 1, 2, 3, 4, 5, 6};
    recursion_ = false;
    list(p.body, pick(4) ? 4 + pick(11) : 1 + pick(4), 0);
    p.next_id = next_id_;
    const int sizes = pick(8), first = 1 + pick(4);
    steady_ = std::array{0, 3, 4, 5}[static_cast<size_t>(pick(4))];
    for (int i = 0; i < kCalls; ++i) p.calls.push_back(call(i, sizes, first));
    return p;
  }

 private:
  int pick(int n) { return static_cast<int>(g_() % static_cast<unsigned>(n)); }
  Kind one(Group group) {
    const std::vector<Kind>& from = by_group_[static_cast<size_t>(group)];
    return from[static_cast<size_t>(pick(static_cast<int>(from.size())))];
  }
  float number() { return 0.25f * static_cast<float>(1 + pick(7)); }

  void list(std::vector<Statement>& out, int count, int depth) {
    const size_t outer = known_.size();
    for (int i = 0; i < count; ++i) {
      const bool block = depth < 2 && pick(7) == 0;
      const Kind often = kOften[static_cast<size_t>(pick(static_cast<int>(std::size(kOften))))];
      Statement s{.what = block     ? one(Group::block)
                          : pick(5) ? one(Group::statement)
                                    : often,
                  .id = next_id_++,
                  .a = reference(),
                  .b = reference(),
                  .k = pick(4),
                  .f = number()};
      // Recursion doubles the work of all that it stands in: once, at the top.
      if (s.what == Kind::recurse && (depth > 0 || recursion_)) s.what = Kind::tanh;
      recursion_ |= s.what == Kind::recurse;
      if (block) list(s.body, 1 + pick(4), depth + 1);
      known_.push_back(kReferences + s.id);
      out.push_back(std::move(s));
    }
    known_.resize(outer);
  }

  // What was made lately is used more often.
  int reference() {
    const int n = static_cast<int>(known_.size());
    const int from = pick(2) ? std::max(0, n - 4) : 0;
    return known_[static_cast<size_t>(from + pick(n - from))];
  }

  Call call(int i, int sizes, int first) {
    Call c;
    switch (sizes) {
      case 0:  // a last short batch
        c.n = i % 5 == 4 ? 1 + first % 2 : 3;
        break;
      case 1:  // a growing sequence
        c.n = first + i % 5;
        break;
      case 2:
        c.n = pick(5);
        break;
      case 3:  // 0 and 1 among others
        c.n = i < 3 ? first : pick(2) ? pick(2) : first;
        break;
      default:
        c.n = first;
    }
    // Host state stays for some calls, so that what was recorded is replayed.
    const auto now = [&](auto& field, auto last, auto drawn) {
      field = i > 0 && pick(5) < steady_ ? last : drawn;
    };
    c.scale = 0.5f + 0.25f * static_cast<float>(pick(3));
    now(c.flag, last_.flag, pick(2) == 0);
    now(c.flag2, last_.flag2, pick(4) == 0);
    now(c.trips, last_.trips, pick(4));
    now(c.position, last_.position, pick(4));
    c.boom = pick(8) == 0;
    last_ = c;
    c.x = {.what = Kind::x_fresh, .k = i % 3};
    c.y = {.what = Kind::y_fresh, .k = 2};
    c.z = {.what = Kind::z_fresh, .k = 1};
    if (i < 3) return c;
    const int often = steady_ > 3 ? 2 : 1;
    if (pick(2 * often) == 0 || i == 5)
      c.before.push_back({.what = one(Group::outside), .id = next_id_++, .k = pick(4), .f = number()});
    // Ways of arguments stay, too: what is passed like in the call before is replayed.
    const auto way = [&](Kind& last, Group group, Kind fresh) {
      if (i == 3 || pick(5) >= steady_) last = pick(3) ? fresh : one(group);
      return last;
    };
    c.x = {.what = way(ways_[0], Group::x, Kind::x_fresh), .k = pick(3)};
    c.y = {.what = way(ways_[1], Group::y, Kind::y_fresh), .k = pick(4)};
    c.z = {.what = way(ways_[2], Group::z, Kind::z_fresh), .k = pick(3)};
    c.moved = pick(6) == 0;
    return c;
  }

  std::mt19937 g_;
  std::vector<int> known_;
  int next_id_ = 0;
  bool recursion_ = false;
  int steady_ = 0;  // of 5: how much of the host state stays from call to call
  Call last_;
  Kind ways_[3]{};
  const std::vector<Kind> by_group_[8] = {kinds_of(Group::statement), kinds_of(Group::block),
                                          kinds_of(Group::outside),   kinds_of(Group::x),
                                          kinds_of(Group::y),         kinds_of(Group::z),
                                          kinds_of(Group::signature), kinds_of(Group::optimizer)};
};

}  // namespace

Program make_program(uint32_t seed) { return Maker(seed).make(seed); }

}  // namespace oracle
