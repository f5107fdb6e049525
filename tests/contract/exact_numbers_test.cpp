// Integers that a double does not hold, given to ops on int64: every one is exact, eagerly and traced.
#include <algorithm>
#include <limits>

#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;

namespace {

using td::Tensor;

constexpr int64_t kBig = (int64_t{1} << 53) + 1, kMost = std::numeric_limits<int64_t>::max(),
                  kLeast = std::numeric_limits<int64_t>::min();
using Integers = std::vector<int64_t>;

Tensor whole(const Integers& values) { return td::tensor(values).to(td::default_device()); }

struct Case {
  const char* name;
  Tensor (*f)(Tensor x, int64_t n);  // x is {0, 1, kBig - 1, kBig}
  Integers (*expected)(int64_t n);
};

const td::TensorOptions kInt64{.dtype = td::int64};

const Case kCases[] = {
    {"full", [](Tensor, int64_t n) { return td::full({2}, n, kInt64); },
     [](int64_t n) {
       return Integers{n, n};
     }},
    {"full_like", [](Tensor x, int64_t n) { return td::full_like(x, n); },
     [](int64_t n) {
       return Integers{n, n, n, n};
     }},
    {"fill_", [](Tensor x, int64_t n) { return x.clone().fill_(n); },
     [](int64_t n) {
       return Integers{n, n, n, n};
     }},
    {"index_fill",
     [](Tensor x, int64_t n) {
       return x.index_fill(-1, whole({1, 1}), n);
     },
     [](int64_t n) {
       return Integers{0, n, kBig - 1, kBig};
     }},
    {"index_fill of columns",
     [](Tensor x, int64_t n) {
       return x.view({2, 2}).index_fill(1, whole({0}), n);
     },
     [](int64_t n) {
       return Integers{n, 1, n, kBig};
     }},
    {"index_fill_",
     [](Tensor x, int64_t n) {
       return x.clone().index_fill_(0, whole({0, 3}), n);
     },
     [](int64_t n) {
       return Integers{n, 1, kBig - 1, n};
     }},
    {"masked_fill", [](Tensor x, int64_t n) { return x.masked_fill(x == 1, n); },
     [](int64_t n) {
       return Integers{0, n, kBig - 1, kBig};
     }},
    {"index_put",
     [](Tensor x, int64_t n) {
       return x.index_put({whole({1, 2})}, n);
     },
     [](int64_t n) {
       return Integers{0, n, n, kBig};
     }},
    {"where", [](Tensor x, int64_t n) { return td::where(x == 1, n, x); },
     [](int64_t n) {
       return Integers{0, n, kBig - 1, kBig};
     }},
    {"where of two numbers",
     [](Tensor x, int64_t n) { return td::where(x == 1, n, 3) + td::zeros({4}, kInt64); },
     [](int64_t n) {
       return Integers{3, n, 3, 3};
     }},
    {"add", [](Tensor x, int64_t n) { return x.slice(0, 0, 2) + n; },
     [](int64_t n) {
       return Integers{n, n + 1};
     }},
    {"rsub", [](Tensor x, int64_t n) { return td::rsub(x.slice(0, 0, 2), 0, n); },
     [](int64_t n) {
       return Integers{0, -n};
     }},
    {"mul", [](Tensor x, int64_t n) { return x.slice(0, 0, 2) * n; },
     [](int64_t n) {
       return Integers{0, n};
     }},
    {"addcmul",
     [](Tensor x, int64_t n) {
       const Tensor two = x.slice(0, 0, 2);
       return two.addcmul(two.to(td::int32), two.to(td::bool_), n - 1);
     },
     [](int64_t n) {
       return Integers{0, n};
     }},
    {"comparisons",
     [](Tensor x, int64_t n) {
       return (x == n).to(td::int64) + 10 * (x < n).to(td::int64) + 100 * (x >= n).to(td::int64);
     },
     [](int64_t n) {
       Integers out;
       for (const int64_t v : {int64_t{0}, int64_t{1}, kBig - 1, kBig})
         out.push_back((v == n) + 10 * (v < n) + 100 * (v >= n));
       return out;
     }},
    {"maximum", [](Tensor x, int64_t n) { return td::maximum(x, n); },
     [](int64_t n) {
       return Integers{n, n, std::max(n, kBig - 1), std::max(n, kBig)};
     }},
    {"clamp from below", [](Tensor x, int64_t n) { return x.clamp(n); },
     [](int64_t n) {
       return Integers{n, n, std::max(n, kBig - 1), std::max(n, kBig)};
     }},
    {"clamp from above", [](Tensor x, int64_t n) { return (x + 2).clamp(2, n); },
     [](int64_t n) {
       return Integers{2, 3, std::min(n, kBig + 1), std::min(n, kBig + 2)};
     }},
    {"clamp between", [](Tensor x, int64_t n) { return (x + 1).clamp(n - 2, n); },
     [](int64_t n) {
       Integers out;
       for (const int64_t v : {int64_t{1}, int64_t{2}, kBig, kBig + 1})
         out.push_back(std::clamp(v, n - 2, n));
       return out;
     }},
    {"clamp_", [](Tensor x, int64_t n) { return x.clone().clamp_(std::nullopt, n - 1); },
     [](int64_t n) {
       return Integers{0, 1, std::min(n - 1, kBig - 1), std::min(n - 1, kBig)};
     }},
    {"floor_divide and remainder",
     [](Tensor x, int64_t n) {
       return td::floor_divide(x + n, n) * 1000 + (x.slice(0, 1, 2) + n).remainder(n);
     },
     [](int64_t n) {
       Integers out;
       for (const int64_t v : {int64_t{0}, int64_t{1}, kBig - 1, kBig}) out.push_back((v + n) / n * 1000 + 1);
       return out;
     }},
    {"arange", [](Tensor, int64_t n) { return td::arange(n, n + 5, 2, kInt64); },
     [](int64_t n) {
       return Integers{n, n + 2, n + 4};
     }},
    {"arange down", [](Tensor, int64_t n) { return td::arange(-n, -n - 4, -3, kInt64); },
     [](int64_t n) {
       return Integers{-n, -n - 3};
     }},
};

TEST_CASE("integers beyond the doubles are exact") {
  const Tensor x = whole({0, 1, kBig - 1, kBig});
  for (const Case& c : kCases) {
    INFO(c.name);
    int64_t n = 0;
    auto traced = td::trace([&](Tensor t) { return c.f(t, n); });
    for (const int64_t number : {kBig, kBig + 1, kBig + 2, int64_t{7}, kBig, 3 * kBig}) {
      n = number;
      INFO(n);
      const Integers expected = c.expected(n);
      CHECK(c.f(x, n).to_vector<int64_t>() == expected);
      CHECK(traced(x).to_vector<int64_t>() == expected);
    }
  }
}

TEST_CASE("the ends of int64 are numbers like others") {
  const Tensor x = whole({kLeast, -1, kMost});
  CHECK(td::full({1}, kLeast, kInt64).item<int64_t>() == kLeast);
  CHECK(td::full({1}, kMost, kInt64).item<int64_t>() == kMost);
  CHECK(x.clamp(kLeast + 1, kMost - 1).to_vector<int64_t>() == Integers{kLeast + 1, -1, kMost - 1});
  CHECK(x.clamp(0).to_vector<int64_t>() == Integers{0, 0, kMost});
  CHECK(x.clamp(std::nullopt, 0).to_vector<int64_t>() == Integers{kLeast, -1, 0});
  CHECK(td::arange(kLeast, kMost, kMost, kInt64).to_vector<int64_t>() == Integers{kLeast, -1, kMost - 1});
  CHECK(td::arange(kMost, kLeast, kLeast, kInt64).to_vector<int64_t>() == Integers{kMost, -1});
  CHECK(td::arange(kMost, kMost - 1, 1, kInt64).numel() == 0);
  CHECK_THROWS_AS(td::arange(kLeast, kMost, 1, kInt64), td::Error);
}

TEST_CASE("numbers that are no int64 are doubles, and what converts to a number is one") {
  constexpr uint64_t kUnsigned = std::numeric_limits<uint64_t>::max();
  CHECK(whole({-1, 7}).clamp(0, kUnsigned).to_vector<int64_t>() == Integers{0, 7});
  CHECK(td::full({}, kUnsigned, {.dtype = td::float64}).item<double>() == 0x1p64);
  CHECK((td::zeros({}, {.dtype = td::float64}) + kUnsigned).item<double>() == 0x1p64);
  CHECK(td::full({}, uint64_t{kBig}, kInt64).item<int64_t>() == kBig);
  enum { kPad = 3 };
  const std::vector<bool> flags = {true};
  CHECK(td::full({}, kPad, kInt64).item<int64_t>() == 3);
  CHECK(td::full({}, flags[0], {.dtype = td::bool_}).item<bool>());
}

TEST_CASE("ranges are exact where only their steps go beyond a double") {
  constexpr int64_t kStep = 4503599627370495, kFirst = -9007199254740991;
  CHECK(td::arange(kFirst, -kFirst + 1, kStep, kInt64).to_vector<int64_t>() ==
        Integers{kFirst, kFirst + kStep, kFirst + 2 * kStep, kFirst + 3 * kStep, kFirst + 4 * kStep});
}

TEST_CASE("numbers keep their place in the other types") {
  CHECK(td::full({}, kBig, {.dtype = td::float64}).item<double>() == static_cast<double>(kBig));
  CHECK(td::full({}, 2.75, kInt64).item<int64_t>() == 2);
  CHECK(td::full({}, true, {.dtype = td::bool_}).item<bool>());
  CHECK(td::arange(0, 1, 0.25).to_vector<float>() == std::vector<float>{0, 0.25, 0.5, 0.75});
  CHECK(td::rsub(whole({3}), 1, 2).dtype() == td::int64);
  CHECK(td::rsub(whole({3}), 1, 2.0).dtype() == td::float32);
  CHECK(whole({5}).clamp(std::optional<double>(-0.5), std::optional<double>()).item<float>() == 5);
}

}  // namespace
