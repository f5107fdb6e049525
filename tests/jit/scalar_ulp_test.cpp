// How exact the float32 functions of jit/prelude.h are: against the C library in double, in units of the last
// place, over all floats in tier full and over every 1009th elsewhere; and alike on all instruction sets. The
// bounds are a little above the worst that all floats gave (docs/status.md).
#include <bit>
#include <cmath>
#include <cstdio>
#include <mutex>
#include <string>
#include <vector>

#include "tandem/core/dtype.h"
#include "tandem/core/thread_pool.h"
#include "tandem/jit/evaluator_chunks.h"
#include "tests/catch.h"
#include "tests/jit/scalar_functions.h"

namespace {

using namespace tandem;
using namespace tandem::jit;
using ops::ScalarOp;
using namespace tandem::test;

struct Function {
  ScalarOp op;
  double (*exact)(double);
  double (*near_zero)(
      double);   // for |x| < 2^-12, where a series has all that counts and is quick; may be null
  double bound;  // ulp
};

double no_negative(double x, double (*f)(double)) { return x < 0 ? std::nan("") : f(x); }

const double kErfSlope = 2 / std::sqrt(M_PI);

const Function kFunctions[] = {
    {ScalarOp::exp, std::exp, [](double x) { return 1 + x + x * x / 2; }, 1.0},
    {ScalarOp::expm1, std::expm1, [](double x) { return x + x * x / 2 + x * x * x / 6; }, 1.75},
    {ScalarOp::log, [](double x) { return no_negative(x, std::log); }, nullptr, 1.0},
    {ScalarOp::log1p, std::log1p, [](double x) { return x - x * x / 2 + x * x * x / 3; }, 1.75},
    {ScalarOp::sin, std::sin, [](double x) { return x - x * x * x / 6; }, 1.75},
    {ScalarOp::cos, std::cos, [](double x) { return 1 - x * x / 2; }, 1.75},
    {ScalarOp::tanh, std::tanh, [](double x) { return x - x * x * x / 3; }, 1.75},
    {ScalarOp::erf, std::erf, [](double x) { return kErfSlope * (x - x * x * x / 3); }, 1.25},
    {ScalarOp::log2, [](double x) { return no_negative(x, std::log2); }, nullptr, 1.5},
    {ScalarOp::erfc, std::erfc, [](double x) { return 1 - kErfSlope * (x - x * x * x / 3); }, 0.75},
};

constexpr uint64_t kFloats = uint64_t{1} << 32;

struct Worst {
  double ulp = 0;
  float at = 0;
  int64_t mismatches = 0;  // with other instruction sets
  std::mutex mutex;
};

// Floats first, first + step, ... below `end`, by their bits.
void compare(const Function& f, uint64_t first, uint64_t end, uint32_t step, bool others, Worst& worst) {
  constexpr size_t kBlock = 4096;
  std::vector<float> x(kBlock), y(kBlock), other(kBlock);
  const Unary best = chunk_functions().unary(f.op, DType::float32);
  double most = 0;
  float at = 0;
  int64_t mismatches = 0;
  for (uint64_t bits = first; bits < end;) {
    size_t n = 0;
    for (; n < kBlock && bits < end; bits += step) x[n++] = std::bit_cast<float>(static_cast<uint32_t>(bits));
    best(y.data(), x.data(), static_cast<int64_t>(n));
    for (size_t i = 0; i < n; ++i) {
      const double exact = f.near_zero != nullptr && x[i] != 0 && std::abs(x[i]) < 0x1p-12f
                               ? f.near_zero(x[i])
                               : f.exact(x[i]);
      // What is rounded right is off by half a unit at most.
      const double error = same_bits(y[i], static_cast<float>(exact)) ? 0 : ulp(y[i], exact);
      if (error > most) most = error, at = x[i];
    }
    if (!others) continue;
    for (const ChunkFunctions* c : runnable()) {
      c->unary(f.op, DType::float32)(other.data(), x.data(), static_cast<int64_t>(n));
      for (size_t i = 0; i < n; ++i) mismatches += !same_bits(y[i], other[i]);
    }
  }
  const std::lock_guard lock(worst.mutex);
  worst.mismatches += mismatches;
  if (most > worst.ulp) worst.ulp = most, worst.at = at;
}

void sweep(const Function& f, uint32_t step, bool tell) {
  constexpr int64_t kParts = 4096;
  Worst worst;
  core::parallel(kParts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const uint64_t first = kFloats / kParts * static_cast<uint64_t>(part);
      const uint64_t ahead = (step - first % step) % step;
      compare(f, first + ahead, first + kFloats / kParts, step, part % 8 == 0, worst);
    }
  });
  if (tell)
    std::printf("%s: at most %.3f ulp, at %a\n", std::string(ops::name(f.op)).c_str(), worst.ulp,
                static_cast<double>(worst.at));
  CAPTURE(ops::name(f.op), worst.ulp, worst.at);
  CHECK(worst.ulp <= f.bound);
  CHECK(worst.mismatches == 0);
}

TEST_CASE(
    "float32 functions are within their bounds over a sweep of all floats, an eighth of them alike on all "
    "instruction sets",
    "[scalar]") {
  for (const Function& f : kFunctions) sweep(f, 1009, false);
}

TEST_CASE("the commonest float32 functions over all floats", "[scalar][full]") {
  for (const ScalarOp op : {ScalarOp::exp, ScalarOp::log, ScalarOp::tanh, ScalarOp::erf})
    for (const Function& f : kFunctions)
      if (f.op == op) sweep(f, 1, true);
}

TEST_CASE("the other float32 functions over all floats", "[scalar][full]") {
  for (const ScalarOp op :
       {ScalarOp::expm1, ScalarOp::log1p, ScalarOp::log2, ScalarOp::erfc, ScalarOp::cos, ScalarOp::sin})
    for (const Function& f : kFunctions)
      if (f.op == op) sweep(f, 1, true);
}

}  // namespace
