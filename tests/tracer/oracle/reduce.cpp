// Delta debugging: whatever can be left out, or made plainer, without losing the failure is. Halves first,
// then single pieces, until nothing more goes.
#include "tests/tracer/oracle/program.h"

namespace oracle {

namespace {

class Reducer {
 public:
  Reducer(Program p, const std::function<bool(const Program&)>& fails, int most)
      : p_(std::move(p)), fails_(fails), left_(most) {}

  Program run() {
    do {
      changed_ = false;
      remove([](Program & p) -> auto& { return p.calls; });
      statements([](Program& p) -> std::vector<Statement>& { return p.body; });
      for (size_t i = 0; i < p_.calls.size(); ++i) {
        remove([i](Program & p) -> auto& { return p.calls[i].before; });
        arguments(i);
      }
      for (int n : {3, 2, 1})
        attempt(
            [n](Program& p) {
              for (Call& c : p.calls) c.n = n;
            },
            sizes() != n && (sizes() < 0 || sizes() > n));
      for (uint32_t bit = 1; bit < 1u << 9; bit <<= 1)
        attempt([bit](Program& p) { p.look &= ~bit; }, p_.look & bit);
      for (int bit = 1; bit < 8; bit <<= 1) attempt([bit](Program& p) { p.grads &= ~bit; }, p_.grads & bit);
      attempt([](Program& p) { p.signature = Kind::plain; }, p_.signature != Kind::plain);
      attempt([](Program& p) { p.optimizer = Kind::sgd; }, p_.optimizer != Kind::sgd);
    } while (changed_ && left_ > 0);
    return std::move(p_);
  }

 private:
  template <class Change>
  bool attempt(Change&& change, bool useful) {
    if (!useful || left_-- <= 0) return false;
    Program smaller = p_;
    change(smaller);
    if (!fails_(smaller)) return false;
    p_ = std::move(smaller);
    return changed_ = true;
  }

  /// `list(program)`: a vector of which parts may go.
  template <class List>
  void remove(List&& list) {
    for (size_t chunk = list(p_).size(); chunk > 0; chunk /= 2)
      for (size_t end = list(p_).size(); end > 0;) {
        const size_t begin = end > chunk ? end - chunk : 0;
        const auto cut = [&](Program& p) {
          auto& from = list(p);
          from.erase(from.begin() + static_cast<std::ptrdiff_t>(begin),
                     from.begin() + static_cast<std::ptrdiff_t>(end));
        };
        attempt(cut, true);
        end = begin;
      }
  }

  void statements(const std::function<std::vector<Statement>&(Program&)>& list) {
    remove(list);
    for (size_t i = 0; i < list(p_).size(); ++i) {
      const auto at = [&](Program& p) -> Statement& { return list(p)[i]; };
      const auto hoist = [&](Program& p) {
        std::vector<Statement>& into = list(p);
        const std::vector<Statement> body = std::move(into[i].body);
        into.erase(into.begin() + static_cast<std::ptrdiff_t>(i));
        into.insert(into.begin() + static_cast<std::ptrdiff_t>(i), body.begin(), body.end());
      };
      if (attempt(hoist, !at(p_).body.empty())) {
        --i;
        continue;
      }
      for (const int plain : {0, kArguments}) {
        attempt([&](Program& p) { at(p).a = plain; }, at(p_).a > plain);
        attempt([&](Program& p) { at(p).b = plain; }, at(p_).b > plain);
      }
      attempt([&](Program& p) { at(p).k = 0; }, at(p_).k != 0);
      attempt([&](Program& p) { at(p).f = 0.5f; }, at(p_).f != 0.5f);
      statements([&list, i](Program& p) -> std::vector<Statement>& { return list(p)[i].body; });
    }
  }

  /// The number of rows of all calls; -1 if they differ.
  int sizes() const {
    int n = p_.calls.empty() ? 0 : p_.calls[0].n;
    for (const Call& c : p_.calls)
      if (c.n != n) n = -1;
    return n;
  }

  void arguments(size_t i) {
    const auto call = [&]() -> const Call& { return p_.calls[i]; };  // p_ changes with every success
    const auto plain = [&](Statement Call::*argument, Kind fresh) {
      attempt([&](Program& p) { p.calls[i].*argument = {.what = fresh}; }, (call().*argument).what != fresh);
      attempt([&](Program& p) { (p.calls[i].*argument).k = 0; }, (call().*argument).k != 0);
    };
    plain(&Call::x, Kind::x_fresh);
    plain(&Call::y, Kind::y_fresh);
    plain(&Call::z, Kind::z_fresh);
    const auto reset = [&](auto Call::*field, auto to) {
      attempt([&](Program& p) { p.calls[i].*field = to; }, call().*field != to);
    };
    reset(&Call::flag, false);
    reset(&Call::flag2, false);
    reset(&Call::boom, false);
    reset(&Call::moved, false);
    reset(&Call::trips, 1);
    reset(&Call::position, 0);
    reset(&Call::scale, 1.f);
    if (i > 0) reset(&Call::n, p_.calls[i - 1].n);
  }

  Program p_;
  const std::function<bool(const Program&)>& fails_;
  int left_;
  bool changed_ = false;
};

}  // namespace

Program reduce(Program p, const std::function<bool(const Program&)>& fails, int most) {
  return Reducer(std::move(p), fails, most).run();
}

}  // namespace oracle
