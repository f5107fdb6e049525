// Rules R1 to R3 as programs: values, slots, and what is compared.
#include "tests/contract/trap.h"

using namespace programs;
using td::Tensor;
using td::tracer::Mechanism;

namespace {

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
    {"R1", "version counters move at the call, also through views of what is captured", Mechanism::versions,
     [] {
       const Tensor p = range(4), w = leaf(4);
       auto f = td::trace([&](Tensor x) {
         const td::NoGrad no_grad;
         p.slice(0, 1, 3).add_(x);
         p.view({2, 2}).select(0, 1).mul_(0.5);
         return x * 2.f;
       });
       for (int i = 0; i < 3; ++i) {
         const uint32_t before = p.impl()->storage->version;
         const Tensor product = w * p;  // saves p
         f(range(2));
         if (p.impl()->storage->version != before + 2) return false;
         if (!throws([&] { product.sum().backward(); }, "in place")) return false;
       }
       return true;
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
    {"R2", "an argument that begins to require grad, or has another type or layout, has a record of its own",
     Mechanism::argument_types,
     [] {
       return same([](bool traced) {
         auto f = wrapped(traced, [](Tensor x) { return (x * 2.f).sum({0}); });
         Values out;
         for (int i = 0; i < 3; ++i) append(out, f(range(9).view({3, 3})));
         for (int i = 0; i < 3; ++i) append(out, f(range(9).view({3, 3}).t()));
         for (int i = 0; i < 3; ++i) append(out, f(range(9).view({3, 3}).to(td::float64)));
         for (int i = 0; i < 3; ++i) {
           const Tensor y = f(leaf(9).detach().view({3, 3}).clone().requires_grad_());
           out.push_back(y.requires_grad());
           append(out, y.detach());
         }
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
};

}  // namespace

TEST_CASE("contract: values, slots and what is compared", "[contract]") { check_contracts(kContracts); }
