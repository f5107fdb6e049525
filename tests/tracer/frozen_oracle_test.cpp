// Random programs, frozen against eager: whatever freezing accepts must then do as the body does, bit for
// bit, in results, parameters, gradients, versions and the generator, or refuse a call and change nothing.
#include <cstdlib>
#include <optional>
#include <random>

#include "tandem/core/log.h"
#include "tandem/eager/dispatch.h"
#include "tests/catch.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;

namespace {

struct Statement {
  int what, a, b, c;
  float f;
};
struct Program {
  std::vector<Statement> body;
  bool no_grad, clears, two_results;
};
constexpr int kKinds = 20;

Program make_program(std::mt19937& g) {
  const auto pick = [&](int n) { return static_cast<int>(g() % static_cast<unsigned>(n)); };
  Program p{{}, pick(3) == 0, pick(2) == 0, pick(2) == 0};
  const int n = 3 + pick(10);
  for (int i = 0; i < n; ++i)
    p.body.push_back({pick(kKinds), pick(64), pick(64), pick(64), 0.25f * static_cast<float>(1 + pick(7))});
  return p;
}

class World {
 public:
  explicit World(const Program& p) : p_(p) {
    for (int i = 0; i < 4; ++i) {
      params.push_back(td::arange(double(i), i + 4) * 0.125f);
      if (i < 3) params.back().requires_grad_();
    }
  }
  std::vector<Tensor> params;
  Tensor state = td::arange(0.f, 4) * 0.25f, kept;

  std::vector<Tensor> operator()(const Tensor& x, const Tensor& y) {
    if (!p_.no_grad) return run(x, y);
    const td::NoGrad no_grad;
    return run(x, y);
  }

  Values seen() const {
    Values out;
    const auto version = [&](const Tensor& t) {
      out.push_back(static_cast<float>(td::eager::version_of(t.impl())));
    };
    for (const Tensor& t : params) {
      append(out, t.detach());
      append(out, t.grad());
      version(t);
    }
    append(out, state);
    version(state);
    if (kept.defined()) append(out, kept);
    out.push_back(static_cast<float>(td::default_generator().offset()));
    return out;
  }

 private:
  std::vector<Tensor> run(const Tensor& x, const Tensor& y) {
    std::vector<Tensor> temps{x, y};
    temps.insert(temps.end(), params.begin(), params.end());
    for (const Statement& s : p_.body) {
      const auto temp = [&](int i) -> const Tensor& { return temps[static_cast<size_t>(i) % temps.size()]; };
      const Tensor a = temp(s.a), b = temp(s.b);
      const Tensor& param = params[static_cast<size_t>(s.c) % 4];
      switch (s.what) {
        case 0:
          temps.push_back(a + b);
          break;
        case 1:
          temps.push_back(td::tanh(a) * b);
          break;
        case 2:
          temps.push_back(td::exp(td::tanh(a) * s.f));
          break;
        case 3:
          temps.push_back(td::tanh(a.sum()) + b);
          break;
        case 4: {
          const Tensor v = a.view({2, 2});
          temps.push_back((v.t() + v).reshape({4}));
          break;
        }
        case 5: {
          const Tensor t = td::tanh(a);
          t.add_(b);
          temps.push_back(t);
          break;
        }
        case 6: {
          const td::NoGrad no_grad;
          param.mul_(0.5f).add_(b * s.f);
          break;
        }
        case 7: {
          const td::NoGrad no_grad;
          const Tensor t = b.clone();
          t.slice(0, 1, 3).copy_(a.slice(0, 0, 2));
          t.select(0, 0).fill_(s.f);
          temps.push_back(t);
          break;
        }
        case 8:
          temps.push_back(a.detach() + s.f);
          break;
        case 9:
          temps.push_back(td::rand({4}) + a);
          break;
        case 10:
          temps.push_back(td::dropout(a, 0.5));
          break;
        case 11:
        case 12: {
          if (p_.clears)
            for (const Tensor& t : params) t.zero_grad();
          const Tensor loss = (td::tanh(a) * params[0]).sum() + (td::tanh(b) * params[1]).mean();
          if (!loss.requires_grad()) break;
          loss.backward();
          const td::NoGrad no_grad;
          for (const Tensor& t : params)
            if (t.grad().defined()) t.sub_(t.grad() * 0.125f);
          if (s.c % 3 == 0)
            for (const Tensor& t : params) t.zero_grad();
          break;
        }
        case 13:
          temps.push_back(td::cat({a.slice(0, 0, 2), b.slice(0, 2, 4)}));
          break;
        case 14: {
          const td::NoGrad no_grad;
          state.mul_(0.5f).add_(td::tanh(b));
          temps.push_back(state * 1.f);
          break;
        }
        case 15: {
          const Tensor m = (a * b).view({2, 2}).t();
          temps.push_back((m + a.view({2, 2})).t().reshape({4}));
          break;
        }
        case 16: {
          const td::NoGrad no_grad;
          state.slice(0, 1, 3).add_(td::tanh(a).slice(0, 0, 2));
          break;
        }
        case 17: {
          if (!param.grad().defined()) break;
          const td::NoGrad no_grad;
          param.grad().mul_(0.5f);
          break;
        }
        case 18: {
          const td::NoGrad no_grad;
          x.mul_(0.5f).add_(td::tanh(b));
          break;
        }
        case 19:
          if (s.c % 16 == 0) kept = a.detach();
          break;
      }
    }
    std::vector<Tensor> out{(temps.back() * 1.f).detach()};
    if (!p_.two_results) return out;
    out.push_back(temps[2 + temps.size() / 2 % (temps.size() - 2)].detach().view({2, 2}).select(0, 1));
    out.push_back(x);
    if (out[0].sizes().rank() == 1) out.push_back(out[0].slice(0, 1, 3));
    return out;
  }
  const Program& p_;
};

void add_results(Values& out, const std::vector<Tensor>& results) {
  for (const Tensor& r : results) {
    append(out, r);
    out.push_back(r.requires_grad());
    for (const int64_t n : r.strides()) out.push_back(static_cast<float>(n));
  }
  // Which results are one memory.
  for (const Tensor& r : results)
    for (const Tensor& s : results) out.push_back(r.impl()->storage == s.impl()->storage);
}

}  // namespace

TEST_CASE("oracle: random programs, frozen against eager", "[frozen]") {
  const char* count = std::getenv("ORACLE_PROGRAMS");
  td::core::set_log("off");
  int frozen_programs = 0, calls = 0, refused_calls = 0, wrong = 0;
  for (int n = 0; n < (count ? std::atoi(count) : 1500) && wrong < 5; ++n) {
    std::mt19937 g(static_cast<unsigned>(n) + 1);
    const Program p = make_program(g);
    World eager(p), traced(p);
    auto f = td::trace([&](const Tensor& x, const Tensor& y) { return traced(x, y); }, {.compile = false});
    td::Generator saved[2] = {td::Generator(5), td::Generator(5)};
    std::optional<decltype(f.freeze())> fast;
    std::vector<std::vector<Tensor>> held;
    for (int call = 0; call < 10; ++call) {
      if (call == 3) {
        try {
          fast.emplace(f.freeze());
        } catch (const td::Error&) {
          break;
        }
        ++frozen_programs;
      }
      const uint32_t outside = g();
      Values values[2];
      bool refused = false;
      for (int w = 0; w < 2 && !refused; ++w) {
        World& world = w ? traced : eager;
        td::default_generator() = saved[w];
        const Tensor& p0 = world.params[outside % 4];
        const td::NoGrad no_grad;
        if (call >= 3) {
          if (outside / 4 % 4 == 0) p0.copy_(td::arange(double(call), call + 4) * 0.0625f);
          if (outside / 4 % 4 == 1) td::manual_seed(outside % 7);
          if (outside / 4 % 8 == 2) p0.zero_grad();
          if (outside / 4 % 16 == 3 && p0.requires_grad()) p0.set_grad(td::ones({4}));
        }
        const td::EnableGrad grad;
        const Tensor x = td::arange(double(call % 3), call % 3 + 4) * 0.25f, y = td::arange(2.f, 6) * -0.125f;
        std::vector<Tensor> r;
        const Values before = w ? world.seen() : Values();
        try {
          r = !w ? world(x, y) : fast ? (*fast)(x, y) : f(x, y);
        } catch (const td::Error& e) {
          refused = true;  // or a program that is an error in eager mode
          CHECK((!w || !fast || equal_bits(before, world.seen())));
          break;
        }
        append(values[w], x);
        add_results(values[w], r);
        const Values seen = world.seen();
        values[w].insert(values[w].end(), seen.begin(), seen.end());
        if (!r.empty() && w) held.push_back(r);
        saved[w] = td::default_generator();
      }
      if (refused) {
        ++refused_calls;
        break;
      }
      calls += fast.has_value();
      if (equal_bits(values[0], values[1])) continue;
      ++wrong;
      FAIL_CHECK("program " << n << ", call " << call << (fast ? ", frozen" : ", checked"));
      size_t at = 0;
      while (at < values[0].size() && at < values[1].size() &&
             std::memcmp(&values[0][at], &values[1][at], 4) == 0)
        ++at;
      std::string text;
      for (const Statement& t : p.body)
        text += std::to_string(t.what) + "(" + std::to_string(t.a) + ", " + std::to_string(t.b) + ", " +
                std::to_string(t.c) + ") ";
      UNSCOPED_INFO(text << (p.no_grad ? "no_grad " : "") << (p.clears ? "clears " : "") << p.two_results
                         << ", outside " << outside % 4 << " " << outside / 4 % 16);
      if (at < values[0].size() && at < values[1].size())
        UNSCOPED_INFO(values[0][at] << " and " << values[1][at]);
      UNSCOPED_INFO("value " << at << " of " << values[0].size() << " and " << values[1].size());
      CHECK(at == values[0].size());
      break;
    }
  }
  td::core::set_log("warn");
  CAPTURE(frozen_programs, calls, refused_calls);
  CHECK(wrong == 0);
  if (!count) {
    CHECK(frozen_programs > 200);
    CHECK(calls > 1000);
    CHECK(refused_calls < frozen_programs / 3);
  }
}
