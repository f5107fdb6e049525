// Matrix products: every provider against float64 loops, and the contract that a result's bits depend on
// values, shape and dtype alone.
#include "tandem/ops/products/products.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/ops/products/providers.h"
#include "tandem/ops/products/tiles.h"
#include "tests/catch.h"
#include "tests/ops/products_problem.h"

namespace {

using namespace tandem;
using namespace tandem::test;

}  // namespace

TEMPLATE_TEST_CASE("products agree with float64 loops", "[products]", float, double) {
  for (const Shape& s : kShapes)
    for (int variant = 0; variant < 4; ++variant) {
      const Problem<TestType> problem(s, variant % 2 == 1, variant == 2, variant == 3, 17);
      const std::vector<double> want = problem.reference();
      for (const Provider provider : kProviders) {
        if (!ops::provider_available(provider) || !ops::provider_takes(provider, dtype_of<TestType>))
          continue;
        CAPTURE(describe(s), variant, ops::name(provider));
        check_close(problem.plain(provider), want, s.k);
      }
    }
}

TEMPLATE_TEST_CASE("a product's bits depend neither on layout, nor alignment, nor the number of threads",
                   "[products]", float, double) {
  using Layout = typename Matrices<TestType>::Layout;
  for (const Shape& s : kShapes) {
    if (s.m * s.n * s.k > 6000000) continue;
    const Problem<TestType> problem(s, true, false, false, 23);
    for (const Provider provider : kProviders) {
      if (!ops::provider_available(provider) || !ops::provider_takes(provider, dtype_of<TestType>)) continue;
      CAPTURE(describe(s), ops::name(provider));
      const std::vector<TestType> want = problem.plain(provider);
      const auto again = [&](Layout a, Layout b, Layout c, int64_t offset, int threads) {
        const Threads scope(threads);
        CAPTURE(int(a), int(b), int(c), offset, threads);
        CHECK(same_bits(want, problem.run(a, b, c, offset, 1 + offset,
                                          [&](const ProductCall& call) { ops::product(call, provider); })));
      };
      for (int layout = 0; layout < Matrices<TestType>::shared; ++layout) {
        again(Layout(layout), Matrices<TestType>::rows, Matrices<TestType>::rows, 0, 1);
        again(Matrices<TestType>::rows, Layout(layout), Matrices<TestType>::rows, 1, 2);
        again(Matrices<TestType>::columns, Matrices<TestType>::gaps, Layout(layout), 3, 3);
        again(Layout(layout), Layout(layout), Layout(layout), 2, 1);
      }
    }
  }
}

TEMPLATE_TEST_CASE("a product's bits do not depend on the position in the batch, nor on sharing",
                   "[products]", float, double) {
  for (const Shape s : {Shape{6, 5, 33, 70}, Shape{3, 70, 40, 300}, Shape{5, 1, 1, 90}}) {
    Problem<TestType> batch(s, false, true, true, 5);
    Problem<TestType> single({1, s.m, s.n, s.k}, false, true, true, 5);
    for (const Provider provider : kProviders) {
      if (!ops::provider_available(provider) || !ops::provider_takes(provider, dtype_of<TestType>)) continue;
      CAPTURE(describe(s), ops::name(provider));
      const std::vector<TestType> one = single.plain(provider);
      for (int layout = 0; layout < Matrices<TestType>::shared; ++layout) {
        CAPTURE(layout);
        // First all operands shared, then A alone of its own, its values repeated.
        Problem<TestType> own = batch;
        own.share_a = false;
        for (int64_t q = 1; q < s.batch; ++q) own.a.insert(own.a.end(), batch.a.begin(), batch.a.end());
        for (const Problem<TestType>* problem : {&batch, &own}) {
          const std::vector<TestType> all =
              problem->run(Matrices<TestType>::rows, Matrices<TestType>::rows,
                           static_cast<typename Matrices<TestType>::Layout>(layout), 0, 1,
                           [&](const ProductCall& call) { ops::product(call, provider); });
          for (int64_t q = 0; q < s.batch; ++q) {
            const auto from = all.begin() + q * s.m * s.n;
            CHECK(same_bits(one, std::vector<TestType>(from, from + s.m * s.n)));
          }
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("every instruction set gives the same bits", "[products]", float, double) {
  const ops::tiles::TileSet* sets[] = {&ops::tiles::kTilesV1, &ops::tiles::kTilesV3, &ops::tiles::kTilesV4};
  for (const Shape& s : kShapes) {
    const Problem<TestType> problem(s, s.k % 2 == 0, false, false, 41);
    const auto with = [&](const ops::tiles::TileSet& set) {
      return problem.run(Matrices<TestType>::gaps, Matrices<TestType>::columns, Matrices<TestType>::rows, 1,
                         1, [&](const ProductCall& call) {
                           ProductCall known = call;  // product_with takes normalised strides
                           if (s.n == 1) known.b_col = known.c_col = known.bias_stride = 1;
                           if (s.m == 1) known.a_row = known.c_row = 1;
                           ops::tiles::product_with(set, known);
                         });
    };
    const std::vector<TestType> want = with(ops::tiles::kTilesV1);
    check_close(want, problem.reference(), s.k);
    for (const auto* set : sets) {
      if (!ops::tiles::runs_here(*set)) continue;
      CAPTURE(describe(s), set->name);
      CHECK(same_bits(want, with(*set)));
    }
  }
}

TEMPLATE_TEST_CASE("a product of panels has the bits of one of strides", "[products]", float, double) {
  using Layout = typename Matrices<TestType>::Layout;
  const ops::tiles::TileSet* sets[] = {&ops::tiles::kTilesV1, &ops::tiles::kTilesV3, &ops::tiles::kTilesV4};
  int taken = 0;
  for (const Shape& s : kShapes) {
    const Problem<TestType> problem(s, s.k % 2 == 0, false, false, 23);
    const std::vector<TestType> want = problem.plain(Provider::tiles);
    for (const Layout lb : {Layout::rows, Layout::columns, Layout::wide_gaps})
      for (const Layout lc : {Layout::rows, Layout::columns, Layout::gaps})
        for (const int threads : {1, 3}) {
          const Threads pool(threads);
          problem.run(Layout::gaps, lb, lc, 1, 2, [&](ProductCall call) {
            if (!ops::takes_panels(call)) return;
            ++taken;
            std::vector<TestType> panels(
                static_cast<size_t>(ops::panels_nbytes(call)) / sizeof(TestType) + 16, TestType(33));
            ops::pack_panels(call, panels.data());
            CHECK(panels[panels.size() - 16] == TestType(33));
            call.b = panels.data(), call.b_panels = true, call.b_row = call.b_col = 0;
            const auto check = [&](const char* how) {
              INFO(describe(s) << " " << how);
              std::vector<TestType> got;
              for (int64_t i = 0; i < s.m; ++i)
                for (int64_t j = 0; j < s.n; ++j)
                  got.push_back(static_cast<TestType*>(call.c)[i * call.c_row + j * call.c_col]);
              CHECK(same_bits(got, want));
            };
            ops::product(call);
            check("by choice");
            for (const auto* set : sets)
              if (ops::tiles::runs_here(*set)) ops::tiles::product_with(*set, call), check(set->name);
          });
        }
  }
  CHECK(taken > 100);
}

TEST_CASE("the software multiply-add of the baseline rounds once", "[products]") {
  // Exponents far apart and ties: a multiply-add that rounds twice, or drops subnormals, differs here.
  std::mt19937 random(3);
  const int64_t m = 16, n = 24, k = 64;
  std::vector<float> a(m * k), b(k * n), v1(m * n), best(m * n);
  for (int round = 0; round < 20; ++round) {
    const auto draw = [&] {
      const uint32_t sign = random() & 0x80000000u,
                     mantissa = random() % 3 == 0 ? random() & 7 : random() & 0x7fffff;
      const uint32_t exponent = round % 2 == 0 ? 100 + random() % 50 : 40 + random() % 30;
      const uint32_t bits = sign | exponent << 23 | mantissa;
      float f;
      std::memcpy(&f, &bits, sizeof(f));
      return f;
    };
    for (float& x : a) x = draw();
    for (float& x : b) x = draw();
    ProductCall call{.m = m,
                     .n = n,
                     .k = k,
                     .a = a.data(),
                     .a_row = k,
                     .a_col = 1,
                     .b = b.data(),
                     .b_row = n,
                     .b_col = 1,
                     .c = v1.data(),
                     .c_row = n,
                     .c_col = 1};
    ops::tiles::product_with(ops::tiles::kTilesV1, call);
    call.c = best.data();
    ops::tiles::product_with(ops::tiles::best_set(), call);
    CHECK(same_bits(v1, best));
    for (int64_t i = 0; i < m; ++i) {
      float chain = 0;
      for (int64_t p = 0; p < k; ++p) chain = std::fma(a[size_t(i * k + p)], b[size_t(p * n + i)], chain);
      CHECK(std::memcmp(&chain, &v1[size_t(i * n + i)], sizeof(float)) == 0);
    }
  }
}

TEST_CASE("a multiply-add rounds once even where the sum is a hair off a tie", "[products]") {
  // (1 + 2^-12)^2 lies half way between two floats; what was summed before decides, however small.
  const float x = 1.0f + 0x1p-12f, even = 1.0f + 0x1p-11f, above = even + 0x1p-23f;
  for (const auto* set : {&ops::tiles::kTilesV1, &ops::tiles::kTilesV3, &ops::tiles::kTilesV4}) {
    if (!ops::tiles::runs_here(*set)) continue;
    CAPTURE(set->name);
    for (const float before : {0x1p-80f, -0x1p-80f, 0.0f}) {
      const std::vector<float> a = {before, x, before, -x}, b = {1, 1, 1, 1, 1, 1, x, x, x, x, x, x};
      std::vector<float> c(12);
      ops::tiles::product_with(*set, {.m = 2,
                                      .n = 6,
                                      .k = 2,
                                      .a = a.data(),
                                      .a_row = 2,
                                      .a_col = 1,
                                      .b = b.data(),
                                      .b_row = 6,
                                      .b_col = 1,
                                      .c = c.data(),
                                      .c_row = 6,
                                      .c_col = 1});
      for (size_t j = 0; j < 6; ++j) {
        CHECK(c[j] == (before > 0 ? above : even));
        CHECK(c[6 + j] == (before < 0 ? -above : -even));
      }
    }
  }
}

TEST_CASE("infinities and NaN pass through a product", "[products]") {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> a(5 * 70, 1.0f), b(70 * 20, 1.0f), c(5 * 20);
  a[70 + 3] = inf;
  a[2 * 70 + 69] = std::numeric_limits<float>::quiet_NaN();
  a[3 * 70] = -inf;
  a[3 * 70 + 1] = inf;
  for (const Provider provider : kProviders) {
    if (!ops::provider_available(provider)) continue;
    CAPTURE(ops::name(provider));
    ops::product({.m = 5,
                  .n = 20,
                  .k = 70,
                  .a = a.data(),
                  .a_row = 70,
                  .a_col = 1,
                  .b = b.data(),
                  .b_row = 20,
                  .b_col = 1,
                  .c = c.data(),
                  .c_row = 20,
                  .c_col = 1},
                 provider);
    CHECK(c[0] == 70.0f);
    CHECK(c[20 + 19] == inf);
    CHECK(std::isnan(c[40]));
    CHECK(std::isnan(c[60 + 7]));
    CHECK(c[99] == 70.0f);
  }
}

TEST_CASE("empty products: nothing is written, or zeros and the bias", "[products]") {
  for (const Provider provider : kProviders) {
    if (!ops::provider_available(provider)) continue;
    float bias[3] = {1, 2, 3}, c[6] = {9, 9, 9, 9, 9, 9};
    ProductCall call{.m = 2,
                     .n = 3,
                     .k = 0,
                     .a_row = 0,
                     .a_col = 1,
                     .b_row = 3,
                     .b_col = 1,
                     .bias = bias,
                     .bias_stride = 1,
                     .c = c,
                     .c_row = 3,
                     .c_col = 1};
    ops::product(call, provider);
    CHECK(std::vector<float>(c, c + 6) == std::vector<float>{1, 2, 3, 1, 2, 3});
    call.bias = nullptr;
    ops::product(call, provider);
    CHECK(std::vector<float>(c, c + 6) == std::vector<float>(6, 0.0f));
    for (float& v : c) v = 9;
    for (int empty = 0; empty < 3; ++empty) {
      ProductCall none = call;
      none.k = 4;
      (empty == 0 ? none.batch : empty == 1 ? none.m : none.n) = 0;
      none.c = nullptr;
      CHECK_NOTHROW(ops::product(none, provider));
    }
    CHECK(std::vector<float>(c, c + 6) == std::vector<float>(6, 9.0f));
  }
}

TEST_CASE("strides of sizes below 2 may be anything", "[products]") {
  const int64_t huge = std::numeric_limits<int64_t>::max(), low = std::numeric_limits<int64_t>::min();
  for (const Provider provider : kProviders) {
    if (!ops::provider_available(provider)) continue;
    CAPTURE(ops::name(provider));
    float a[2] = {2, 3}, b[2] = {5, 7}, bias = 1, c[4] = {};
    ops::product({.m = 1,
                  .n = 1,
                  .k = 2,
                  .a = a,
                  .a_batch = huge,
                  .a_row = low,
                  .a_col = 1,
                  .b = b,
                  .b_batch = low,
                  .b_row = 1,
                  .b_col = huge,
                  .bias = &bias,
                  .bias_stride = huge,
                  .c = c,
                  .c_batch = huge,
                  .c_row = huge,
                  .c_col = low},
                 provider);
    CHECK(c[0] == 32.0f);
    ops::product({.m = 2,
                  .n = 2,
                  .k = 1,
                  .a = a,
                  .a_batch = low,
                  .a_row = 1,
                  .a_col = huge,
                  .b = b,
                  .b_batch = huge,
                  .b_row = huge,
                  .b_col = 1,
                  .c = c,
                  .c_batch = low,
                  .c_row = 2,
                  .c_col = 1},
                 provider);
    CHECK(std::vector<float>(c, c + 4) == std::vector<float>{10, 14, 15, 21});
  }
}

TEST_CASE("half precision accumulates in float32 and rounds once", "[products]") {
  for (const DType dtype : {DType::float16, DType::bfloat16}) {
    const auto widen = dtype == DType::float16 ? half_to_float : bfloat_to_float;
    const auto narrow = dtype == DType::float16 ? float_to_half : float_to_bfloat;
    for (const Shape s : {Shape{1, 5, 7, 9}, Shape{3, 20, 33, 300}, Shape{2, 1, 1, 50}}) {
      const Problem<float> values(s, true, false, true, 77);
      std::vector<uint16_t> a, b, bias, c(size_t(s.batch * s.m * s.n * 2));
      Problem<float> rounded = values;
      for (size_t i = 0; i < values.a.size(); ++i) rounded.a[i] = widen(a.emplace_back(narrow(values.a[i])));
      for (size_t i = 0; i < values.b.size(); ++i) rounded.b[i] = widen(b.emplace_back(narrow(values.b[i])));
      for (size_t i = 0; i < values.bias.size(); ++i)
        rounded.bias[i] = widen(bias.emplace_back(narrow(values.bias[i])));
      for (const Provider provider : {Provider::tiles, Provider::dots}) {
        const std::vector<float> want = rounded.plain(provider);
        CAPTURE(describe(s), name(dtype), ops::name(provider));
        ops::product({.batch = s.batch,
                      .m = s.m,
                      .n = s.n,
                      .k = s.k,
                      .dtype = dtype,
                      .a = a.data(),
                      .a_batch = s.m * s.k,
                      .a_row = s.k,
                      .a_col = 1,
                      .b = b.data(),
                      .b_batch = 0,
                      .b_row = s.n,
                      .b_col = 1,
                      .bias = bias.data(),
                      .bias_stride = 1,
                      .c = c.data(),
                      .c_batch = 2 * s.m * s.n,
                      .c_row = 2 * s.n,
                      .c_col = 2},
                     provider);
        bool equal = true;
        for (size_t i = 0; i < want.size(); ++i) equal = equal && c[2 * i] == narrow(want[i]);
        CHECK(equal);
      }
    }
  }
}

TEMPLATE_TEST_CASE("integer products are exact and wrap around", "[products]", uint8_t, int32_t, int64_t) {
  using T = TestType;
  const T big = std::numeric_limits<T>::max();
  const T a[4] = {1, 2, 3, big}, b[4] = {4, 5, 6, 7}, bias[2] = {1, 0};
  T c[4] = {};
  const ProductCall call{.m = 2,
                         .n = 2,
                         .k = 2,
                         .dtype = dtype_of<T>,
                         .a = a,
                         .a_row = 2,
                         .a_col = 1,
                         .b = b,
                         .b_row = 2,
                         .b_col = 1,
                         .bias = bias,
                         .bias_stride = 1,
                         .c = c,
                         .c_row = 2,
                         .c_col = 1};
  CHECK(ops::choose_provider(call) == Provider::loops);
  ops::product(call);
  const auto wrap = [](uint64_t v) { return static_cast<T>(v); };
  CHECK(c[0] == 17);
  CHECK(c[1] == 19);
  CHECK(c[2] == wrap(12 + uint64_t(big) * 6 + 1));
  CHECK(c[3] == wrap(15 + uint64_t(big) * 7));
}

TEST_CASE("the provider follows shape and dtype alone; wrong requests are errors", "[products]") {
  float x = 0;
  ProductCall plain{.m = 64, .n = 64, .k = 64, .a = &x, .a_row = 64, .a_col = 1};
  ProductCall strided = plain;
  strided.a_row = 1;
  strided.a_col = 64;
  strided.c = &x;
  CHECK(ops::choose_provider(plain) == ops::choose_provider(strided));
  plain.dtype = DType::bool_;
  for (const Provider provider : kProviders) CHECK_THROWS_AS(ops::product(plain, provider), Error);
  plain.dtype = DType::int32;
  CHECK_THROWS_AS(ops::product(plain, Provider::tiles), Error);
  CHECK_THROWS_AS(ops::product(plain, Provider::eigen), Error);
  for (const DType dtype : {DType::uint8, DType::int32, DType::int64, DType::float16, DType::bfloat16,
                            DType::float32, DType::float64})
    for (const int64_t size : {1, 64, 512, 2048, 8192}) {
      const Provider chosen = ops::choose_provider({.m = size, .n = size, .k = size, .dtype = dtype});
      CHECK(ops::provider_available(chosen));
      CHECK(ops::provider_takes(chosen, dtype));
    }
}

TEMPLATE_TEST_CASE("dot products have the same bits on every instruction set, part by part of C",
                   "[products]", float, double) {
  const ops::tiles::TileSet* sets[] = {&ops::tiles::kTilesV1, &ops::tiles::kTilesV3, &ops::tiles::kTilesV4};
  for (const Shape& s : kShapes) {
    const Problem<TestType> problem(s, s.k % 2 == 0, false, false, 41);
    const std::vector<TestType> want = problem.plain(Provider::dots);
    for (const auto* set : sets) {
      if (!ops::tiles::runs_here(*set)) continue;
      for (const auto lb : {Matrices<TestType>::columns, Matrices<TestType>::rows}) {
        CAPTURE(describe(s), set->name, int(lb));
        CHECK(same_bits(want, problem.run(Matrices<TestType>::rows, lb, Matrices<TestType>::rows, 1, 1,
                                          [&](const ProductCall& call) {
                                            ops::tiles::dots_with(*set, ops::normalised(call));
                                          })));
      }
    }
    const auto row_by_row = [&](ProductCall call) {
      const ProductCall whole = call;
      call.batch = call.m = 1;
      for (int64_t q = 0; q < s.batch; ++q)
        for (int64_t i = 0; i < s.m; ++i) {
          call.a = static_cast<const TestType*>(whole.a) + q * whole.a_batch + i * whole.a_row;
          call.b = static_cast<const TestType*>(whole.b) + q * whole.b_batch;
          call.c = static_cast<TestType*>(whole.c) + q * whole.c_batch + i * whole.c_row;
          ops::product(call, Provider::dots);
        }
    };
    CAPTURE(describe(s));
    CHECK(same_bits(want, problem.run(Matrices<TestType>::columns, Matrices<TestType>::columns,
                                      Matrices<TestType>::columns, 1, 1, row_by_row)));
  }
}

TEST_CASE("a dot product's chains are 16, and a chain of zeros of either sign is a zero", "[products]") {
  const auto dot = [](const std::vector<float>& a, const std::vector<float>& b) {
    const auto k = static_cast<int64_t>(a.size());
    float c = 9;
    ops::product({.m = 1, .n = 1, .k = k, .a = a.data(), .a_col = 1, .b = b.data(), .b_row = 1, .c = &c},
                 Provider::dots);
    return c;
  };
  std::vector<float> a(100), b(100);
  for (size_t i = 0; i < 100; ++i)
    a[i] = 1 + static_cast<float>(i % 7) / 8, b[i] = 1 / (2 + static_cast<float>(i));
  float chains[16] = {};
  for (size_t i = 0; i < 100; ++i) chains[i % 16] = std::fma(a[i], b[i], chains[i % 16]);
  for (size_t half = 8; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) chains[i] += chains[i + half];
  CHECK(dot(a, b) == chains[0]);

  // Products that vanish below zero, in rows along k and in columns.
  for (const int64_t k : {16, 20, 64, 70}) {
    const std::vector<float> tiny(static_cast<size_t>(k * 8), 1e-40f), below(static_cast<size_t>(k), -1e-40f);
    float along[8], across[8];
    ops::ProductCall call{.m = 1, .n = 8, .k = k, .a = below.data(), .a_col = 1, .b = tiny.data()};
    call.b_row = 1, call.b_col = k, call.c = along, call.c_col = 1;
    ops::product(call, Provider::dots);
    call.b_row = 8, call.b_col = 1, call.c = across;
    ops::product(call, Provider::dots);
    CHECK(std::memcmp(along, across, sizeof along) == 0);
  }
}
