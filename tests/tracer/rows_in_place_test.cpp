// Ops that change rows or slices of a captured tensor (a cache, a queue, a table) change these alone: the
// same as eagerly, whoever reads the tensor before and behind, and without moving the rest of it.
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;

namespace {

constexpr int64_t kRows = 1000, kWidth = 64;

struct Tables {
  Tensor a = td::rand({kRows, kWidth}), b = td::rand({kRows, kWidth});
};
using Body = Tensor (*)(Tables&, const Tensor& index, const Tensor& rows);

struct Row {
  const char* name;
  bool small;  // moves no more than a few rows
  Body body;
};

const Row kBodies[] = {
    {"rows replaced", true,
     [](Tables& t, const Tensor& i, const Tensor& x) {
       t.a.index_copy_(0, i, x);
       return x.sum();
     }},
    {"rows added, then looked up", true,
     [](Tables& t, const Tensor& i, const Tensor& x) {
       t.a.index_add_(0, i, x * 2.f);
       return t.a.index_select(0, i).sum();
     }},
    {"looked up, then changed by what was found", true,
     [](Tables& t, const Tensor& i, const Tensor& x) {
       const Tensor found = t.a.index_select(0, i);
       t.a.index_copy_(0, i, found * 0.5f + x);
       return found.sum();
     }},
    {"rows by index, and a slice", true,
     [](Tables& t, const Tensor& i, const Tensor& x) {
       t.a.index_add_(0, i, x);
       t.a.narrow(0, 8, 3).add_(x);
       return t.a[9].sum();
     }},
    {"the same rows of two", true,
     [](Tables& t, const Tensor& i, const Tensor& x) {
       t.a.index_copy_(0, i, x);
       t.b.index_add_(0, i, x);
       return x.sum();
     }},
    {"twice", true,
     [](Tables& t, const Tensor& i, const Tensor& x) {
       t.a.index_add_(0, i, x);
       t.a.index_add_(0, i, x + 1.f);
       return x.sum();
     }},
    {"elements", true,
     [](Tables& t, const Tensor& i, const Tensor& x) {
       t.a.scatter_add_(0, i.unsqueeze(1).expand({3, kWidth}), x);
       return x.sum();
     }},
    {"a slice", true,
     [](Tables& t, const Tensor&, const Tensor& x) {
       t.a.narrow(0, 5, 3).copy_(x);
       return x.sum();
     }},
    {"slices that overlap, one of them read between", true,
     [](Tables& t, const Tensor&, const Tensor& x) {
       t.a.narrow(0, 5, 3).copy_(x);
       const Tensor seen = t.a.narrow(0, 6, 4).sum();
       t.a.narrow(0, 7, 3).mul_(x);
       return seen;
     }},
    {"columns", true,
     [](Tables& t, const Tensor&, const Tensor& x) {
       t.a.view({2, 500, kWidth}).narrow(1, 5, 3).copy_(x);
       return x.sum();
     }},
    {"a slice, and rows by index", false,  // the index must be good before the slice is written
     [](Tables& t, const Tensor& i, const Tensor& x) {
       t.a.narrow(0, 8, 3).add_(x);
       t.a.index_add_(0, i, x);
       return t.a[9].sum();
     }},
    {"rows moved by one", true,
     [](Tables& t, const Tensor&, const Tensor& x) {
       t.a.narrow(0, 0, 3).copy_(t.a.narrow(0, 1, 3) + x);
       return x.sum();
     }},
    {"slices of one into another, and back", false,
     [](Tables& t, const Tensor&, const Tensor& x) {
       t.a.narrow(0, 0, 500).copy_(t.b.narrow(0, 250, 500));
       t.b.narrow(0, 500, 500).copy_(t.a.narrow(0, 250, 500));
       return x.sum();
     }},
    {"all but a slice", false,
     [](Tables& t, const Tensor&, const Tensor&) {
       t.a.copy_(td::cat({t.b.narrow(0, 0, 400), t.a.narrow(0, 400, 3), t.b.narrow(0, 403, 597)}));
       return t.a.sum();
     }},
    {"halves exchanged", false,
     [](Tables& t, const Tensor&, const Tensor&) {
       t.a.copy_(td::cat({t.a.narrow(0, 500, 500), t.a.narrow(0, 0, 500)}));
       return t.a.sum();
     }},
    {"a new one, slice by slice", false,
     [](Tables& t, const Tensor&, const Tensor& x) {
       const Tensor made = td::zeros({40, 3, kWidth});
       Tensor h = x;
       for (int64_t k = 0; k < 40; ++k) made[k].copy_(h = td::sin(h + t.a.narrow(0, k, 3)));
       return made.sum();
     }},
    {"read whole before and behind", false,
     [](Tables& t, const Tensor& i, const Tensor& x) {
       const Tensor before = t.a.sum();
       t.a.index_copy_(0, i, x);
       return before - t.a.sum();
     }},
    {"the old one used behind", false,
     [](Tables& t, const Tensor& i, const Tensor& x) {
       const Tensor old = t.a.clone();
       t.a.index_copy_(0, i, x);
       return (t.a - old).sum();
     }},
    {"by its own rows", false,
     [](Tables& t, const Tensor& i, const Tensor&) {
       t.a.index_copy_(0, i, t.a.narrow(0, 1, 3));
       return t.a.sum();
     }},
    {"by itself", false,
     [](Tables& t, const Tensor&, const Tensor&) {
       t.a.index_add_(0, td::arange(kRows).flip({0}), t.a);
       return t.a.sum();
     }},
    {"one by another that changes, too", false,
     [](Tables& t, const Tensor& i, const Tensor& x) {
       t.a.index_add_(0, i, t.b.narrow(0, 0, 3));
       t.b.index_add_(0, i, t.a.narrow(0, 0, 3) + x);
       return t.b.sum();
     }},
    {"not captured", false,
     [](Tables& t, const Tensor& i, const Tensor& x) {
       const Tensor made = t.a * 2.f;
       return made.index_add(0, i, x).index_add(0, i, x).sum();
     }},
};

Tensor index_of(int64_t call) { return td::tensor<int64_t>({call % 7, 9, 999 - call}); }

}  // namespace

TEST_CASE("rows of captured tensors are changed as in eager mode", "[tracer]") {
  for (const Row& row : kBodies) {
    CAPTURE(row.name);
    CHECK(same([&](bool traced) {
      Tables t;
      const auto step = [&](const Tensor& i, const Tensor& x) { return row.body(t, i, x); };
      auto f = td::trace(step);
      Values seen;
      for (int64_t call = 0; call < 6; ++call) {
        const Tensor i = index_of(call), x = td::rand({3, kWidth});
        append(seen, traced ? f(i, x) : step(i, x));
        append(seen, t.a);
        append(seen, t.b);
      }
      return seen;
    }));
  }
}

TEST_CASE("a change of rows moves these rows", "[tracer]") {
  for (const Row& row : kBodies) {
    CAPTURE(row.name);
    Tables t;
    auto f = td::trace([&](const Tensor& i, const Tensor& x) { return row.body(t, i, x); });
    for (int64_t call = 0; call < 4; ++call) f(index_of(call), td::rand({3, kWidth}));
    INFO(f.code().substr(0, 600));
    CHECK((f.report().bytes_moved < 64 * kWidth * 4) == row.small);
  }
}

TEST_CASE("a traced function and its frozen one change rows alike, or none", "[tracer]") {
  Tables t;
  auto f = td::trace([&](const Tensor& i, const Tensor& x) {
    t.a.index_add_(0, i, x);
    t.b.index_add_(0, i, x * 2.f);
    return x.sum();
  });
  const Tensor x = td::rand({3, kWidth});
  for (int64_t call = 0; call < 3; ++call) f(index_of(call), x);
  auto frozen = f.freeze();
  const Tensor a = t.a.clone(), b = t.b.clone();
  frozen(index_of(3), x);
  CHECK(td::equal(t.a, a.index_add(0, index_of(3), x)));
  CHECK(td::equal(t.b, b.index_add(0, index_of(3), x * 2.f)));
  const Tensor a2 = t.a.clone(), b2 = t.b.clone();
  CHECK_THROWS_WITH(frozen(td::tensor<int64_t>({0, 1, kRows}), x), Contains("out of range"));
  CHECK(td::equal(t.a, a2));
  CHECK(td::equal(t.b, b2));
}
