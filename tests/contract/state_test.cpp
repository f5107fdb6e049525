// Rules R6 to R18 as programs: reads, exceptions, numbers, sizes, results, random numbers, threads, bounds.
#include <thread>

#include "tandem/core/log.h"
#include "tests/contract/trap.h"

using namespace programs;
using td::Tensor;
using td::tracer::Mechanism;

namespace {

const Contract kContracts[] = {
    {"R6", "a read gives the value of this call, and the body goes on with it", Mechanism::reads_run,
     [] {
       return same([](bool traced) {
         auto f = wrapped(traced, [](Tensor x) {
           const Tensor y = x * 3.f;
           const float s = y.sum().item<float>();
           if (s > 30.f) return y / s;
           return y * s;
         });
         Values out;
         for (int i = 0; i < 8; ++i) append(out, f(range(3, float(i))));
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
    {"R8", "a slice of what enters, at another place in each call, records nothing", Mechanism::moving_slices,
     [] {
       const Tensor data = range(40);
       int64_t at = 0;
       auto f = td::trace([&](Tensor x) { return data.slice(0, at, at + 3) * x; }, {.compile = false});
       bool right = true;
       for (at = 0; at < 20; ++at)
         right = right &&
                 f(range(3)).to_vector<float>() == (data.slice(0, at, at + 3) * range(3)).to_vector<float>();
       return right && f.report().recorded == 1;
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
    {"R9", "arguments of other sizes have a record of their own, and means divide by their own count",
     Mechanism::argument_sizes,
     [] {
       return same([](bool traced) {
         Tensor w = leaf(1);
         auto f = wrapped(traced, [&](Tensor x) {
           Tensor loss = (x * w).mean() + td::mse_loss(x * w, x);
           w.zero_grad();
           loss.backward();
           return loss.detach();
         });
         Values out;
         for (const int64_t n : {4, 4, 9, 9, 1, 2, 2, 1}) {
           append(out, f(range(n)));
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
    {"R11", "a result has the strides of eager mode", Mechanism::result_layout,
     [] {
       return same([](bool traced) {
         auto f = wrapped(traced, [](Tensor x) { return (x + 1.f).view({2, 3}).t(); });
         Values out;
         for (int i = 0; i < 3; ++i) {
           const Tensor y = f(range(6, float(i)));
           for (const int64_t stride : y.strides()) out.push_back(float(stride));
           append(out, y);
         }
         return out;
       });
     }},
    {"R11", "results that are views share memory as in eager mode, also with arguments",
     Mechanism::result_aliasing,
     [] {
       return same([](bool traced) {
         std::vector<Tensor> kept(2);
         auto f = wrapped(traced, [&](Tensor x) {
           const Tensor y = x + 1.f;
           kept = {y.view({2, 3}).t(), x.select(0, 2)};
           return y;
         });
         Values out;
         for (int i = 0; i < 4; ++i) {
           const Tensor x = range(6, float(i)), y = f(x);
           y.add_(10.f);
           x.mul_(-1.f);
           append(out, kept[0]);
           append(out, kept[1]);
           kept[0].zero_();
           append(out, y);
         }
         return out;
       });
     }},
    {"R11", "what is kept of a captured tensor is not used after that has changed", Mechanism::kept_versions,
     [] {
       return same([](bool traced) {
         const td::NoGrad no_grad;
         const Tensor w = range(2000).view({40, 50}) / 2000.f;
         auto f = wrapped(traced, [&](Tensor x) { return td::matmul(x, td::exp(w).t()); });
         Values out;
         for (int i = 0; i < 20; ++i) {
           if (i == 12) Tensor(w).mul_(2.f);
           append(out, f(range(400, float(i)).view({8, 50}) / 400.f));
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
         thread_of([&] { refused = throws([&] { inner(range(3)); }, "pending tensor of another"); }).join();
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
    {"R17", "a new branch runs op by op once and is compiled when it is taken again",
     Mechanism::new_branch_waits,
     [] {
       bool other = false;
       auto f = td::trace([&](Tensor x) { return other ? x - 1.f : x + 1.f; });
       const auto call = [&] { return f(range(3)).to_vector<float>()[0]; };
       bool right = call() == 2 && call() == 2;
       const int64_t plans = f.report().plans;
       other = true;
       right = right && call() == 0 && f.report().plans == plans && f.report().op_by_op == 1;
       return right && call() == 0 && f.report().plans == plans + 1 && f.report().op_by_op == 1;
     }},
    {"R17", "from the 64th branch at one event on, calls run as eager code", Mechanism::branch_bound,
     [] {
       const bool quiet = (td::core::set_log("off"), true);
       int64_t at = 0;
       Tensor w = range(120);
       auto body = [&](Tensor x) {
         w.add_(x);
         // A structural attribute that never repeats.
         return w.slice(0, at, at + 5) * 2.f;
       };
       auto f = td::trace(body, {.compile = false});
       bool right = quiet;
       for (at = 0; at < 80; ++at) {
         const Values before = w.to_vector<float>();
         const Values y = f(range(120)).to_vector<float>();
         for (int64_t i = 0; i < 5; ++i)
           right = right && y[size_t(i)] == 2 * (before[size_t(at + i)] + float(at + i + 1));
       }
       td::core::set_log("warn");
       return right && f.report().eager_calls == 80 - 65 && f.report().branches == 65;
     }},
    {"R18", "the body runs once per call, and each of its ops takes effect once, also across a read",
     Mechanism::once,
     [] {
       int runs = 0;
       const bool equal = same([&](bool traced) {
         Tensor w = range(3);
         auto f = wrapped(traced, [&](Tensor x) {
           ++runs;
           w.add_(x);
           const float s = w.sum().item<float>();
           w.mul_(s > 100.f ? 0.125f : 1.5f);
           return td::dropout(w, 0.5);
         });
         Values out;
         for (int i = 0; i < 8; ++i) append(out, f(range(3, float(i))));
         append(out, w);
         append(out, td::rand({3}));
         return out;
       });
       return equal && runs == 16;
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

}  // namespace

TEST_CASE("contract: reads, exceptions, numbers, results, threads and bounds", "[contract]") {
  check_contracts(kContracts);
}
