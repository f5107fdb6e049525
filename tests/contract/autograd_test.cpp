// Rules R4, R5 and R14 as programs: backward, history, order.
#include "tests/contract/trap.h"

using namespace programs;
using td::Tensor;
using td::tracer::Mechanism;

namespace {

const Contract kContracts[] = {
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
    {"R14", "a backward that is walked in replay goes in the order of the record", Mechanism::record_order,
     [] {
       int64_t recorded = 0;
       const bool equal = same([&](bool traced) {
         Tensor w = leaf(3);
         auto body = [&](Tensor x) {
           // The long way first: by depth alone it would come first in backward, too.
           const Tensor deep = td::tanh(td::tanh(td::tanh(x * w * 0.3f)));
           const Tensor flat = x.square() * w;
           const Tensor loss = (deep + flat + td::exp(w * 0.1f)).sum();
           loss.register_hook([](const Tensor&) {});
           w.zero_grad();
           loss.backward();
           return loss.detach();
         };
         auto f = td::trace(body);
         Values out;
         for (int i = 0; i < 6; ++i) {
           append(out, traced ? f(range(3, float(i))) : body(range(3, float(i))));
           append(out, w.grad());
         }
         if (traced) recorded = f.report().recorded;
         return out;
       });
       return equal && recorded == 1;
     }},
};

}  // namespace

TEST_CASE("contract: backward, history and order", "[contract]") { check_contracts(kContracts); }
