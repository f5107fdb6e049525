// The oracle: random programs run call by call in two worlds, eager and traced, and everything that a program
// can see afterwards is compared bit for bit: results, parameters, gradients, kept values, and whether a call
// threw. Programs exchange, replace and tie parameters inside and outside of the body, carry state, keep and
// drop results, branch on host state and on values, change numbers, write in place through views, run
// backward, throw, and pass arguments that repeat, that are parameters, or that are results of earlier calls.
// Memory is reused by the free lists all the time.
#include <cstdio>
#include <cstdlib>
#include <random>

#include "tandem/core/log.h"
#include "tests/catch.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;

namespace {

#define ORACLE_STATEMENTS(X)                                                                           \
  X(add)                                                                                               \
  X(mul)                                                                                               \
  X(tanh)                                                                                              \
  X(sub_scaled)                                                                                        \
  X(exp_small)                                                                                         \
  X(sum_broadcast)                                                                                     \
  X(view_roundtrip) X(in_place_temp) X(in_place_param) X(in_place_view) X(write_slice) X(keep) X(drop) \
      X(use_kept) X(swap_params) X(branch_host) X(branch_value) X(read_scalar) X(detach) X(random)     \
          X(dropout) X(train) X(cat_half) X(no_grad) X(throws) X(view_with_grad) X(slice_with_grad)    \
              X(accumulate) X(grad_of_grad) X(branch_history) X(keep_view) X(state_with_grad) X(transposed)
enum class Do {
#define X(name) name,
  ORACLE_STATEMENTS(X)
#undef X
      count_
};
const char* const kNames[] = {
#define X(name) #name,
    ORACLE_STATEMENTS(X)
#undef X
};

struct Statement {
  Do what;
  int a, b, c;
  float f;
};

struct Program {
  std::vector<Statement> body;
  int n_args;
  bool grads;
};

Program make_program(std::mt19937& g) {
  Program p;
  const auto pick = [&](int n) { return static_cast<int>(g() % static_cast<unsigned>(n)); };
  p.n_args = 1 + pick(2);
  p.grads = pick(3) > 0;
  const int n = 4 + pick(12);
  for (int i = 0; i < n; ++i)
    p.body.push_back({static_cast<Do>(pick(static_cast<int>(Do::count_))), pick(64), pick(64), pick(64),
                      0.25f * static_cast<float>(1 + pick(7))});
  return p;
}

/// Host state that one call of both worlds sees alike.
struct Step {
  float scale;
  bool flag, flag2, boom;
};

struct Boom {};

class World {
 public:
  World(const Program& p, bool traced, const td::TraceOptions& options = {}) : p_(p) {
    for (int i = 0; i < 4; ++i) {
      params.push_back(td::arange(i, i + 4) * 0.125f);
      if (p.grads && i < 3) params.back().requires_grad_();
    }
    kept.resize(3);
    auto body = [this](Tensor x, Tensor y) { return run(std::move(x), std::move(y)); };
    call = body;
    if (!traced) return;
    auto f = td::trace(body, options);
    call = f;
    report = [f] { return f.report(); };
  }

  std::function<Tensor(Tensor, Tensor)> call;
  std::function<td::TraceReport()> report;
  std::vector<Tensor> params, kept, results;
  Tensor state = td::arange(0, 4) * 0.25f;  // never a leaf that wants a gradient
  Step step{};

  Values seen() const {
    Values out;
    for (const Tensor& t : params) {
      append(out, t.detach());
      append(out, t.grad());
      out.push_back(t.requires_grad());
    }
    for (const Tensor& t : kept) append(out, t.defined() ? t.detach() : t);
    append(out, state.detach());
    out.push_back(state.requires_grad());
    return out;
  }

 private:
  Tensor& param(int i) { return params[static_cast<size_t>(i) % params.size()]; }

  Tensor run(Tensor x, Tensor y) {
    std::vector<Tensor> temps{x, y};
    for (const Tensor& t : params) temps.push_back(t);
    bool skip = false;
    for (const Statement& s : p_.body) {
      if (skip) {
        skip = false;
        continue;
      }
      const auto temp = [&](int i) -> const Tensor& { return temps[static_cast<size_t>(i) % temps.size()]; };
      const Tensor a = temp(s.a), b = temp(s.b);
      switch (s.what) {
        case Do::add:
          temps.push_back(a + b);
          break;
        case Do::mul:
          temps.push_back(td::tanh(a) * b);
          break;
        case Do::tanh:
          temps.push_back(td::tanh(a));
          break;
        case Do::sub_scaled:
          temps.push_back(a - b * (s.f * step.scale));
          break;
        case Do::exp_small:
          temps.push_back(td::exp(td::tanh(a) * s.f));
          break;
        case Do::sum_broadcast:
          temps.push_back(td::tanh(a.sum()) + b);
          break;
        case Do::view_roundtrip: {
          const Tensor v = a.view({2, 2});
          temps.push_back((v.t() + v).reshape({4}));
          break;
        }
        case Do::in_place_temp: {
          const Tensor t = td::tanh(a);
          t.add_(b);
          temps.push_back(t);
          break;
        }
        case Do::in_place_param: {
          const td::NoGrad no_grad;
          param(s.a).mul_(0.5f).add_(b * s.f);
          break;
        }
        case Do::in_place_view: {
          const Tensor t = a * 0.5f;
          const Tensor v = t.view({2, 2});
          v.add_(step.scale);
          temps.push_back(t * v.view({4}));
          break;
        }
        case Do::write_slice: {
          const td::NoGrad no_grad;
          const Tensor t = b.clone();
          t.slice(0, 1, 3).copy_(a.slice(0, 0, 2));
          t.select(0, 0).fill_(s.f);
          temps.push_back(t);
          break;
        }
        case Do::keep:
          kept[static_cast<size_t>(s.c) % 3] = a;
          break;
        case Do::drop:
          kept[static_cast<size_t>(s.c) % 3] = Tensor();
          break;
        case Do::use_kept:
          if (kept[static_cast<size_t>(s.c) % 3].defined())
            temps.push_back(td::tanh(kept[static_cast<size_t>(s.c) % 3].detach()) + a);
          break;
        case Do::swap_params:
          if (step.flag) std::swap(param(s.a), param(s.b));
          break;
        case Do::branch_host:
          skip = step.flag2;
          break;
        case Do::branch_value:
          skip = a.sum().item<float>() > s.f;
          break;
        case Do::read_scalar:
          temps.push_back(td::tanh(b) * std::tanh(a.sum().item<float>()));
          break;
        case Do::detach:
          temps.push_back(a.detach() + s.f);
          break;
        case Do::random:
          temps.push_back(td::rand({4}) + a);
          break;
        case Do::dropout:
          temps.push_back(td::dropout(a, 0.5));
          break;
        case Do::train: {
          if (!p_.grads) break;
          if (step.flag)
            for (Tensor& t : params) t.zero_grad();
          const Tensor loss = (td::tanh(a) * param(0)).sum() + (td::tanh(b) * param(1)).mean();
          if (!loss.requires_grad()) break;
          loss.backward();
          const td::NoGrad no_grad;
          for (Tensor& t : params)
            if (t.grad().defined()) t.sub_(t.grad() * (0.125f * step.scale));
          break;
        }
        case Do::cat_half:
          temps.push_back(td::cat({a.slice(0, 0, 2), b.slice(0, 2, 4)}));
          break;
        case Do::no_grad: {
          const td::NoGrad no_grad;
          temps.push_back(a * b);
          break;
        }
        case Do::throws:
          if (step.boom) throw Boom{};
          break;
        case Do::view_with_grad: {
          const Tensor t = a * 0.5f, v = t.view({2, 2}), other = t.slice(0, 1, 3);
          v.select(0, s.c % 2).mul_(step.scale);
          temps.push_back(t * td::tanh(other).sum());
          break;
        }
        case Do::slice_with_grad: {
          const Tensor t = td::zeros({4});
          t.slice(0, 1, 3).copy_(td::tanh(a).slice(0, 0, 2));
          temps.push_back(t + b);
          break;
        }
        case Do::accumulate: {
          const Tensor total = td::zeros({});
          total.add_((td::tanh(a) * param(s.c)).sum()).add_(b.mean());
          if (total.requires_grad() && !total.is_leaf()) total.backward({}, true);
          temps.push_back(total + b);
          break;
        }
        case Do::grad_of_grad: {
          const Tensor& p = param(s.c);
          if (!p.requires_grad() || !p.is_leaf()) break;
          const Tensor out = (td::tanh(p) * a).sum();
          const Tensor g = td::autograd::grad({{out}}, {{p}}, {}, true, true)[0];
          temps.push_back(g * s.f);
          if (step.flag) (g * g).sum().backward();
          break;
        }
        case Do::branch_history:
          skip = a.requires_grad() != b.is_leaf();
          break;
        case Do::keep_view:
          kept[static_cast<size_t>(s.c) % 3] =
              a.view({2, 2}).select(0, s.b % 2).unsqueeze(0).expand({2, 2}).reshape({4});
          break;
        case Do::state_with_grad:
          state.mul_(0.5f).add_(td::tanh(b));
          temps.push_back(state * 1.f);
          break;
        case Do::transposed: {
          const Tensor m = (a * b).view({2, 2}).t();
          temps.push_back((m + a.view({2, 2})).t().reshape({4}));
          break;
        }
        case Do::count_:
          break;
      }
    }
    return temps.back() * 1.f;
  }

  const Program& p_;
};

/// What the outside does between calls: the same in both worlds.
void between(World& w, uint32_t bits, int call) {
  const td::NoGrad no_grad;
  const size_t i = bits % 4, j = bits / 4 % 4;
  switch (bits / 16 % 12) {
    case 0:
      std::swap(w.params[i], w.params[j]);
      break;
    case 1: {
      const bool grad = w.params[i].requires_grad();
      w.params[i] = td::arange(call, call + 4) * 0.0625f;
      if (grad) w.params[i].requires_grad_();
      break;
    }
    case 2:
      w.params[i] = w.params[j];
      break;
    case 3:
      w.kept[i % 3] = w.results.empty() ? Tensor() : w.results.back().detach();
      break;
    case 4:
      w.params[i].zero_grad();
      break;
    case 6:
      w.state = w.state.detach();
      break;
    case 5:
      if (w.params[i].is_leaf()) w.params[i].requires_grad_(!w.params[i].requires_grad());
      break;
    default:
      break;
  }
}

std::pair<Tensor, Tensor> arguments(World& w, uint32_t bits, int call) {
  const Tensor x = td::arange(call % 3, call % 3 + 4) * 0.25f, y = td::arange(2, 6) * -0.125f;
  switch (bits % 9) {
    case 0:
      return {x, x};
    case 1:
      return {w.params[bits / 16 % 4].detach(), y};
    case 2:
      return {w.params[bits / 16 % 4], y};
    case 3:
      if (!w.results.empty()) return {w.results.back().detach(), y};
      return {x, y};
    case 4:
      if (!w.results.empty()) return {x, w.results[bits / 16 % w.results.size()].detach()};
      return {x, y};
    default:
      return {x, y};
  }
}

struct Outcome {
  Values values;
  std::string error;
};

Outcome one_call(World& w, uint32_t bits, int call) {
  Outcome o;
  const auto [x, y] = arguments(w, bits, call);
  try {
    const Tensor r = w.call(x, y);
    append(o.values, r.detach());
    w.results.push_back(r.detach());
    if (w.results.size() > 3) w.results.erase(w.results.begin());
  } catch (const Boom&) {
    o.error = "boom";
  } catch (const td::Error& e) {
    o.error = e.what();
  }
  const Values seen = w.seen();
  o.values.insert(o.values.end(), seen.begin(), seen.end());
  return o;
}

/// Programs `first` to `first + count`, traced with `options`, against eager. Returns the calls that were
/// verified.
int64_t run_programs(int first, int count, const td::TraceOptions& options) {
  constexpr int kCalls = 10;
  const char* only = std::getenv("ORACLE_PROGRAM");  // to look at one program
  td::core::set_log("off");
  int wrong = 0, threw = 0;
  int64_t verified = 0;
  for (int n = first; n < first + count && wrong < 5; ++n) {
    std::mt19937 g(static_cast<unsigned>(n) + 1);
    const Program p = make_program(g);
    if (only) {
      if (std::atoi(only) > n) continue;
      for (const Statement& s : p.body)
        std::printf("%s a%d b%d c%d f%g\n", kNames[static_cast<int>(s.what)], s.a, s.b, s.c,
                    static_cast<double>(s.f));
    }
    World eager(p, false), traced(p, true, options);
    td::Generator saved[2] = {td::Generator(5), td::Generator(5)};
    for (int call = 0; call < kCalls; ++call) {
      const uint32_t outside = g(), args = g();
      const Step step{0.5f + 0.25f * static_cast<float>(g() % 3), g() % 2 == 0, g() % 2 == 0, g() % 8 == 0};
      Outcome o[2];
      World* worlds[] = {&eager, &traced};
      for (int w = 0; w < 2; ++w) {
        td::default_generator() = saved[w];
        if (call >= 3) between(*worlds[w], outside, call);
        worlds[w]->step = step;
        o[w] = one_call(*worlds[w], call >= 3 ? args : 8, call);
        saved[w] = td::default_generator();
      }
      if (only && traced.report) {
        const td::TraceReport r = traced.report();
        std::printf(
            "  recorded %lld branches %lld signatures %lld plans %lld op_by_op %lld skipped %lld walked %lld "
            "eager %lld bound %lld\n",
            (long long)r.recorded, (long long)r.branches, (long long)r.signatures, (long long)r.plans,
            (long long)r.op_by_op, (long long)r.backward_skipped, (long long)r.backward_walked,
            (long long)r.eager_calls, (long long)r.slots_bound);
      }
      if (only)
        std::printf("call %d: outside %u %u,%u, arguments %u, flags %d %d %d\n", call, outside / 16 % 12,
                    outside % 4, outside / 4 % 4, args % 9, step.flag, step.flag2, step.boom);
      threw += !o[0].error.empty();
      const bool same_errors = o[0].error.empty() == o[1].error.empty();
      if (equal_bits(o[0].values, o[1].values) && same_errors) continue;
      ++wrong;
      size_t at = 0;
      while (at < std::min(o[0].values.size(), o[1].values.size()) &&
             std::memcmp(&o[0].values[at], &o[1].values[at], sizeof(float)) == 0)
        ++at;
      const auto shown = [&](int w) { return at < o[w].values.size() ? o[w].values[at] : 0.f; };
      UNSCOPED_INFO("value " << at << " of " << o[0].values.size() << " and " << o[1].values.size() << ": "
                             << shown(0) << ", " << shown(1));
      FAIL_CHECK("program " << n << ", call " << call << ": eager '" << o[0].error << "', traced '"
                            << o[1].error << "'");
      break;
    }
    verified += traced.report().verified;
  }
  td::core::set_log("warn");
  CHECK(wrong == 0);
  CHECK((only || threw > 0));
  return verified;
}

}  // namespace

TEST_CASE("oracle: random programs, traced against eager", "[tracer]") {
  run_programs(0, 2000, {.compile = false});
}

TEST_CASE("oracle: verify finds no difference in random programs", "[tracer]") {
  CHECK(run_programs(0, 200, {.compile = false, .verify = -1}) > 1000);
}

TEST_CASE("oracle: debug leaves a trace as it would be", "[tracer]") {
  run_programs(0, 200, {.compile = false, .debug = true});
}
