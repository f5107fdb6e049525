// The rules R1 to R18 as programs. Each runs eagerly and traced and must give the same values; with the
// mechanism that holds the rule switched off it must not, so that no test here can pass for nothing.
#include <cmath>
#include <cstring>
#include <thread>

#include "tests/catch.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;
using td::tracer::Mechanism;

namespace {

struct Contract {
  const char* rule;
  const char* text;
  Mechanism mechanism;
  bool (*holds)();
};

Tensor leaf(int64_t n, float first = 1) { return range(n, first).requires_grad_(); }

bool throws(const std::function<void()>& f, const std::string& part) {
  try {
    f();
  } catch (const std::exception& e) {
    return std::string(e.what()).find(part) != std::string::npos;
  }
  return false;
}

const Contract kContracts[] = {
    {"R1", "a view taken before an in-place change shows the change", Mechanism::cell_values,
     [] {
       return same([](bool traced) {
         auto f = wrapped(traced, [](Tensor x) {
           Tensor h = x * 2.f;
           Tensor v = h.view({2, 3});
           Tensor before = v + 0.f;
           h.add_(10.f);
           return before + v * 100.f;
         });
         Values out;
         for (int i = 0; i < 3; ++i) append(out, f(range(6, float(i))));
         return out;
       });
     }},
    {"R1", "version counters move at the call, also when it is replayed", Mechanism::versions,
     [] {
       Tensor p = range(3);
       auto f = td::trace([&](Tensor x) { return p.add_(x), p * 2.f; });
       for (int i = 0; i < 3; ++i) f(range(3));
       const uint32_t before = p.impl()->storage->version;
       f(range(3));
       return p.impl()->storage->version == before + 1;
     }},
    {"R2", "another tensor of another shape in a captured variable is not taken for the old one",
     Mechanism::slot_types,
     [] {
       return same([](bool traced) {
         Tensor w = range(4);
         auto f = wrapped(traced, [&](Tensor x) { return (x * w).sum(); });
         Values out;
         for (int i = 0; i < 3; ++i) append(out, f(range(1)));
         w = range(6);
         for (int i = 0; i < 3; ++i) append(out, f(range(1)));
         return out;
       });
     }},
    {"R2", "two captured tensors that become one are a difference", Mechanism::slot_once,
     [] {
       return same([](bool traced) {
         Tensor a = range(3), b = range(3, 5);
         auto f = wrapped(traced, [&](Tensor x) {
           a.add_(x);
           b.mul_(2.f);
           return a + b;
         });
         Values out;
         for (int i = 0; i < 3; ++i) append(out, f(range(3)));
         b = a;
         for (int i = 0; i < 3; ++i) append(out, f(range(3)));
         return out;
       });
     }},
    {"R2", "a captured tensor that begins to require grad is noticed", Mechanism::slot_watch,
     [] {
       return same([](bool traced) {
         Tensor w = range(3);
         auto f = wrapped(traced, [&](Tensor x) { return (x * w).sum(); });
         Values out;
         for (int i = 0; i < 3; ++i) append(out, f(range(3)));
         w.requires_grad_();
         for (int i = 0; i < 2; ++i) {
           Tensor y = f(range(3));
           out.push_back(y.requires_grad());
         }
         return out;
       });
     }},
    {"R2", "arguments of another shape have a record of their own", Mechanism::argument_types,
     [] {
       return same([](bool traced) {
         auto f = wrapped(traced, [](Tensor x) { return x.sum(); });
         Values out;
         for (const int64_t n : {4, 4, 9, 9, 2}) append(out, f(range(n)));
         return out;
       });
     }},
    {"R2", "arguments that are one tensor are told from two", Mechanism::argument_aliasing,
     [] {
       return same([](bool traced) {
         auto body = [](Tensor a, Tensor b) {
           a.add_(1.f);
           return a * 10.f + b;
         };
         std::function<Tensor(Tensor, Tensor)> f = body;
         if (traced) f = td::trace(body);
         Values out;
         for (int i = 0; i < 3; ++i) append(out, f(range(3), range(3, 7)));
         for (int i = 0; i < 3; ++i) {
           Tensor x = range(3);
           append(out, f(x, x));
         }
         return out;
       });
     }},
    {"R2", "an argument that is also captured is seen", Mechanism::captured_aliasing,
     [] {
       return same([](bool traced) {
         Tensor w = range(3);
         auto f = wrapped(traced, [&](Tensor x) {
           x.add_(1.f);
           return x * 10.f + w;
         });
         Values out;
         for (int i = 0; i < 3; ++i) append(out, f(range(3, 5)));
         for (int i = 0; i < 3; ++i) append(out, f(w));
         return out;
       });
     }},
    {"R3", "operands that change places are a difference", Mechanism::compare_operands,
     [] {
       return same([](bool traced) {
         bool swap = false;
         Tensor a = range(3), b = range(3, 9);
         auto f = wrapped(traced, [&](Tensor x) { return swap ? x * (b - a) : x * (a - b); });
         Values out;
         for (int i = 0; i < 6; ++i) {
           swap = i > 2;
           append(out, f(range(3)));
         }
         return out;
       });
     }},
    {"R3", "structural attributes are compared", Mechanism::compare_attributes,
     [] {
       return same([](bool traced) {
         int64_t axis = 0;
         auto f = wrapped(traced, [&](Tensor x) { return x.sum({axis}); });
         Values out;
         for (int i = 0; i < 6; ++i) {
           axis = i > 2;
           append(out, f(range(9).view({3, 3})));
         }
         return out;
       });
     }},
    {"R3", "modes are compared with each op", Mechanism::compare_modes,
     [] {
       return same([](bool traced) {
         Tensor w = leaf(3);
         bool grad = true;
         auto f = wrapped(traced, [&](Tensor x) {
           if (grad) return x * w;
           td::NoGrad no_grad;
           return x * w;
         });
         Values out;
         for (int i = 0; i < 6; ++i) {
           grad = i < 3;
           out.push_back(f(range(3)).requires_grad());
         }
         return out;
       });
     }},
    {"R3", "the in-place form of an op is another op", Mechanism::compare_in_place,
     [] {
       return same([](bool traced) {
         bool in_place = false;
         Tensor w = range(3);
         auto f = wrapped(traced, [&](Tensor x) {
           if (in_place)
             w.add_(x);
           else
             w.add(x);
           return w * 1.f;
         });
         Values out;
         for (int i = 0; i < 6; ++i) {
           in_place = i > 2;
           append(out, f(range(3)));
         }
         return out;
       });
     }},
    {"R4", "a gradient that exists already is added to, also from outside", Mechanism::leaf_gradients,
     [] {
       return same([](bool traced) {
         Tensor w = leaf(3);
         auto f = wrapped(traced, [&](Tensor x) {
           Tensor loss = (x * w).sum();
           loss.backward();
           return loss;
         });
         Values out;
         for (int i = 0; i < 8; ++i) {
           if (i < 4) w.zero_grad();
           append(out, f(range(3, float(i))));
           append(out, w.grad());
         }
         return out;
       });
     }},
    {"R4", "hooks run on every call", Mechanism::host_code,
     [] {
       return same([](bool traced) {
         Tensor w = leaf(3);
         float scale = 1;
         int calls = 0;
         w.register_hook([&](const Tensor& g) {
           ++calls;
           return g * scale;
         });
         auto f = wrapped(traced, [&](Tensor x) {
           Tensor h = x * w;
           h.register_hook([&](const Tensor&) { ++calls; });
           Tensor loss = h.sum();
           if (x.size(0) == 3) return loss.backward(), loss.detach();
           return loss;
         });
         auto g = wrapped(traced, [&](Tensor x) {
           Tensor loss = (x * w).sum();
           loss.backward();
           return loss.detach();
         });
         Values out;
         for (int i = 0; i < 4; ++i) {
           for (const auto& step : {f, g}) {
             w.zero_grad();
             scale = float(i);
             append(out, step(range(3)));
             append(out, w.grad());
             out.push_back(float(calls));
           }
         }
         return out;
       });
     }},
    {"R4", "a tape that a replayed backward used up throws when used again", Mechanism::consumed_tape,
     [] {
       Tensor w = leaf(3);
       bool twice = false;
       auto f = td::trace([&](Tensor x) {
         Tensor loss = (x * w).square().sum();
         loss.backward();
         if (twice) loss.backward();
         return loss.detach();
       });
       for (int i = 0; i < 3; ++i) f(range(3));
       twice = true;
       return throws([&] { f(range(3)); }, "was freed by an earlier backward");
     }},
    {"R5", "a result whose history leaves the call can be differentiated outside, on every call",
     Mechanism::leaving_history,
     [] {
       return same([](bool traced) {
         Tensor w = leaf(3);
         auto f = wrapped(traced, [&](Tensor x) { return (x * w).square().sum(); });
         Values out;
         for (int i = 0; i < 4; ++i) {
           w.zero_grad();
           Tensor loss = f(range(3, float(i)));
           try {
             loss.backward();
           } catch (const td::Error&) {
             out.push_back(-1);
           }
           append(out, w.grad());
         }
         return out;
       });
     }},
    {"R5", "history from before the call is walked", Mechanism::outside_history,
     [] {
       return same([](bool traced) {
         Tensor w = leaf(3);
         Tensor h;
         auto f = wrapped(traced, [&](Tensor x) {
           Tensor loss = (h * x).sum();
           loss.backward();
           return loss.detach();
         });
         Values out;
         for (int i = 0; i < 4; ++i) {
           w.zero_grad();
           h = w * float(i + 1);
           append(out, f(range(3)));
           append(out, w.grad());
         }
         return out;
       });
     }},
    {"R7", "what came before an exception has happened", Mechanism::abandon,
     [] {
       return same([](bool traced) {
         Tensor w = range(3);
         bool fail = false;
         auto f = wrapped(traced, [&](Tensor x) {
           w.add_(x);
           if (fail) throw std::runtime_error("stop");
           return w * 2.f;
         });
         Values out;
         for (int i = 0; i < 6; ++i) {
           fail = i % 2 == 1;
           try {
             append(out, f(range(3)));
           } catch (const std::runtime_error&) {
             out.push_back(-7);
           }
           append(out, w);
         }
         return out;
       });
     }},
    {"R7", "a recording broken off by an exception is forgotten", Mechanism::drop_recording,
     [] {
       bool fail = true;
       auto f = td::trace([&](Tensor x) {
         Tensor y = x * 2.f;
         if (fail) throw std::runtime_error("stop");
         return y + 1.f;
       });
       for (int i = 0; i < 20; ++i) {
         try {
           f(range(3));
         } catch (const std::runtime_error&) {
         }
       }
       fail = false;
       f(range(3));
       return f.report().ops == 2 && f.report().branches == 1;
     }},
    {"R8", "numbers are run-time: a learning rate that changes reaches the plan and records nothing",
     Mechanism::store_scalars,
     [] {
       return same([](bool traced) {
         float lr = 0.5f;
         Tensor w = range(3);
         auto body = [&](Tensor x) {
           w.sub_(x * lr);
           return w * 1.f;
         };
         Values out;
         if (!traced) {
           for (int i = 0; i < 5; ++i, lr *= 0.5f) append(out, body(range(3)));
           return out;
         }
         auto f = td::trace(body);
         for (int i = 0; i < 5; ++i, lr *= 0.5f) append(out, f(range(3)));
         if (f.report().recorded != 1) out.push_back(-1);
         return out;
       });
     }},
    {"R8", "numbers inside a skipped backward follow the ops before it", Mechanism::follow_numbers,
     [] {
       return same([](bool traced) {
         Tensor w = leaf(3);
         float scale = 1;
         auto f = wrapped(traced, [&](Tensor x) {
           Tensor loss = (td::dropout(x * w, scale * 0.1) * scale).sum();
           w.zero_grad();
           loss.backward();
           return loss.detach();
         });
         Values out;
         for (int i = 0; i < 5; ++i, scale += 1) {
           append(out, f(range(3)));
           append(out, w.grad());
         }
         return out;
       });
     }},
    {"R10", "alive is alive: a value kept in a captured variable becomes a result", Mechanism::live_outputs,
     [] {
       return same([](bool traced) {
         Tensor kept;
         bool keep = false;
         auto f = wrapped(traced, [&](Tensor x) {
           Tensor h = x * 3.f;
           if (keep) kept = h;
           return h.sum();
         });
         Values out;
         for (int i = 0; i < 6; ++i) {
           keep = i == 3 || i == 5;
           append(out, f(range(3, float(i))));
           if (keep) {
             try {
               append(out, kept);
             } catch (const td::Error&) {
               out.push_back(-1);
             }
           }
         }
         return out;
       });
     }},
    {"R12", "a result that the user holds is not overwritten", Mechanism::fresh_handles,
     [] {
       return same([](bool traced) {
         auto f = wrapped(traced, [](Tensor x) {
           Tensor a = x + 1.f;
           return a;
         });
         std::vector<Tensor> kept;
         for (int i = 0; i < 5; ++i) kept.push_back(f(range(3, float(i))));
         Values out;
         for (const Tensor& t : kept) append(out, t);
         return out;
       });
     }},
    {"R13", "random numbers are those of eager mode, fused or not", Mechanism::store_scalars,
     [] {
       return same([](bool traced) {
         auto f =
             wrapped(traced, [](Tensor x) { return td::dropout(x, 0.4) + td::rand({16}) * td::randn({16}); });
         Values out;
         for (int i = 0; i < 5; ++i) append(out, f(range(16)));
         append(out, td::rand({3}));
         return out;
       });
     }},
    {"R15", "a pending tensor of one call is refused by another thread's", Mechanism::thread_check,
     [] {
       bool refused = false;
       Tensor h;
       auto inner = td::trace([&](Tensor y) { return y * h; });
       auto outer = td::trace([&](Tensor x) {
         h = x + 1.f;
         std::thread([&] { refused = throws([&] { inner(range(3)); }, "pending tensor of another"); }).join();
         return h;
       });
       outer(range(3));
       return refused;
     }},
    {"R16", "an inner traced function is part of the outer call", Mechanism::inline_traces,
     [] {
       auto inner = td::trace([](Tensor y) { return y * 2.f; });
       auto outer = td::trace([&](Tensor x) { return inner(x + 1.f) + 1.f; });
       try {
         for (int i = 0; i < 3; ++i) outer(range(3));
       } catch (const td::Error&) {
         return false;
       }
       return outer.report().ops == 3 && inner.report().calls == 0;
     }},
    {"end", "a body that ends early is a path of its own", Mechanism::end_event,
     [] {
       return same([](bool traced) {
         Tensor w = range(3);
         bool early = false;
         auto f = wrapped(traced, [&](Tensor x) {
           Tensor y = x * 2.f;
           if (early) return y;
           w.add_(y);
           return y;
         });
         Values out;
         for (int i = 0; i < 6; ++i) {
           early = i > 2;
           append(out, f(range(3)));
           append(out, w);
         }
         return out;
       });
     }},
};

bool holds_or_false(const Contract& c) {
  try {
    return c.holds();
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

TEST_CASE("contract: traced equals eager, rule by rule", "[tracer]") {
  for (const Contract& c : kContracts) {
    INFO(c.rule << ": " << c.text);
    CHECK(c.holds());
  }
}

TEST_CASE("contract: each test fails when its mechanism is off", "[tracer]") {
  for (const Contract& c : kContracts) {
    INFO(c.rule << ": " << c.text);
    const Off off(c.mechanism);
    CHECK_FALSE(holds_or_false(c));
  }
}
