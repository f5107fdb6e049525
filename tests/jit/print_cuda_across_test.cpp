// Row kernels that reduce across their rows, on a device, give the chunk evaluator's bits: rows, columns and
// what is left of each block of rows.
#include "tests/catch.h"
#include "tests/jit/device_kernels.h"
#include "tests/jit/hand_cases.h"

using namespace tandem;
using namespace tandem::jit;
using tandem::jit::samples::by_hand;
using tandem::jit::samples::Case;
using tandem::jit::samples::layer_norm_backward;
using tandem::jit::samples::leaving;
using tandem::jit::samples::Outcome;
using tandem::jit::samples::S;

namespace {

// (rows; n): sums of products across the rows, and the products.
Kernel sums_of_products() {
  samples::Builder b("sums of products", KernelKind::row, 1, 1);
  const S x = b.load(DType::float32, Inner::contiguous), y = b.load(DType::float32, Inner::contiguous);
  b.store(x * y, Inner::contiguous);
  return leaving(std::move(b), {{ReduceOp::sum, x * y}});
}

// (rows; n): no sums along the rows, but across them, in two types, of an operand, a row's value and a
// number.
Kernel across_alone() {
  samples::Builder b("across alone", KernelKind::row, 1, 1);
  const S x = b.load(DType::float32, Inner::contiguous), y = b.load(DType::bfloat16, Inner::contiguous);
  const S of_row = b.load(DType::float32, Inner::constant, true);
  const S product = x * cast(y, DType::float32) * of_row;
  b.store(cast(product, DType::bfloat16), Inner::contiguous);
  return leaving(std::move(b), {{ReduceOp::sum, x},
                                {ReduceOp::max, product},
                                {ReduceOp::sum, of_row},
                                {ReduceOp::prod, cast(y, DType::float64)}});
}

// (a, rows; n): an operand that is strided, places of the greatest, draws, results of rows.
Kernel mixed() {
  samples::Builder b("mixed", KernelKind::row, 2, 1);
  const S x = b.load(DType::float32, Inner::contiguous), y = b.load(DType::float64, Inner::strided);
  const S seed = b.number(DType::int64), offset = b.number(DType::int64);
  const S z = x + s_uniform(b.index(), seed, offset) + cast(y, DType::float32);
  const S place = b.reduce(ReduceOp::argmax, z), least = b.reduce(ReduceOp::min, y);
  b.store(place, Inner::constant, true);
  b.store(cast(least, DType::float32) + z, Inner::strided);
  return leaving(std::move(b), {{ReduceOp::sum, z}, {ReduceOp::sum, place}, {ReduceOp::min, y}});
}

// (a, rows; n): the same without sums along the rows.
Kernel mixed_alone() {
  samples::Builder b("mixed alone", KernelKind::row, 2, 1);
  const S x = b.load(DType::float32, Inner::contiguous), y = b.load(DType::float64, Inner::strided);
  const S of_row = b.load(DType::float32, Inner::constant, true);
  const S seed = b.number(DType::int64), offset = b.number(DType::int64);
  const S z = x + s_uniform(b.index(), seed, offset) * of_row + cast(y, DType::float32);
  b.store(of_row * of_row, Inner::constant, true);
  b.store(z, Inner::strided);
  return leaving(std::move(b), {{ReduceOp::sum, z}, {ReduceOp::min, y}});
}

Outcome expected_of(const Case& c) {
  const Evaluator evaluator(c.k);
  return samples::run_case(c, [&](const KernelArgs& a) { evaluator.run(a); });
}

std::vector<Case> across_cases() {
  std::vector<Case> cases;
  for (const auto& [rows, n] : {std::pair<int64_t, int64_t>{1, 1},
                                {31, 4},
                                {32, 63},
                                {33, 64},
                                {65, 130},
                                {70, 256},
                                {40, 1024},
                                {35, 1022},
                                {5, 2048}}) {
    cases.push_back(by_hand(layer_norm_backward(), {rows, n}, {0, 0, 1}));
    cases.push_back(by_hand(across_alone(), {rows, n}));
  }
  for (const int64_t n : {8, 12, 520, 3000})
    cases.push_back(by_hand(layer_norm_backward(DType::bfloat16), {67, n}, {0, 0, 1}));
  for (const int64_t n : {3, 66, 1000}) {
    cases.push_back(by_hand(mixed(), {3, 25, n}));
    cases.push_back(by_hand(mixed_alone(), {3, 25, n}));
  }
  return cases;
}

void compare(const std::vector<Case>& cases, size_t skew) {
  const std::vector<cuda::Function> functions = samples::device_functions(cases);
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    CAPTURE(i, c.dims);
    const Outcome expected = expected_of(c);
    for (const unsigned most : {~0u, 2u}) {
      const std::string difference =
          samples::difference(c, expected, samples::run_on_device(c, functions[i], skew, most));
      if (!difference.empty()) FAIL_CHECK(difference << '\n' << print_cuda(c.k, "kernel"));
    }
  }
}

}  // namespace

TEST_CASE("reductions across rows give the evaluator's bits on a device", "[jit]") {
  compare(across_cases(), 0);
}

TEST_CASE("reductions across rows at addresses for one element give the evaluator's bits", "[jit]") {
  std::vector<Case> floats;
  for (const auto& [rows, n] : {std::pair<int64_t, int64_t>{33, 64}, {40, 1000}})
    floats.push_back(by_hand(layer_norm_backward(), {rows, n}, {0, 0, 1}));
  floats.push_back(by_hand(sums_of_products(), {70, 100}));
  compare(floats, sizeof(float));
}

TEST_CASE("a card takes reductions across rows that fill it", "[jit]") {
  const Kernel k = layer_norm_backward();
  CHECK(cuda_takes_across(k, 4096, 1024));
  CHECK(cuda_takes_across(k, 65536, 128));
  CHECK_FALSE(cuda_takes_across(k, 1024, 1024));  // few blocks of rows
  CHECK_FALSE(cuda_takes_across(k, 4096, 128));   // of few threads
  CHECK(cuda_takes_across(k, 4096, 2048));
  CHECK_FALSE(cuda_takes_across(k, 4096, 2049));  // rows beyond a thread block
  const std::vector<int64_t> dims = {4096, 1024};
  const LaunchShape shape = launch_shape(k, dims.data(), dims[0]);
  CHECK(shape.grid == 128);
  CHECK(shape.block == 256);
  CHECK(shape.shared_bytes == 2 * 4 * 1024);
}

TEST_CASE("reductions across rows alone have tiles of 32 rows", "[jit]") {
  const Kernel k = sums_of_products();
  CHECK(cuda_takes_across(k, 4096, 1024));
  CHECK(cuda_takes_across(k, 64, 3072));
  CHECK(cuda_takes_across(k, 32, 1 << 20));
  CHECK_FALSE(cuda_takes_across(k, 31, 1 << 20));  // not one block of rows
  CHECK_FALSE(cuda_takes_across(k, 64, 256));      // few elements
  const std::vector<int64_t> dims = {70, 100};
  const LaunchShape shape = launch_shape(k, dims.data(), dims[0]);
  CHECK(shape.grid == 3 * 4);
  CHECK(shape.block == 256);
  CHECK(shape.shared_bytes == 32 * (32 + 8) * 4);
}

// Bugs written into the printed text, each of which some case must show.
TEST_CASE("bugs in how rows are reduced across are found", "[jit]") {
  struct Bug {
    const char *right, *wrong;
    Case c;
  };
  const Case norm = by_hand(layer_norm_backward(), {70, 256}, {0, 0, 1}),
             odd = by_hand(layer_norm_backward(), {70, 98}, {0, 0, 1}),
             tiles = by_hand(sums_of_products(), {70, 100}), unpacked = by_hand(across_alone(), {70, 99});
  const Bug bugs[] = {
      {"if (at + 1 < past) fetch(at + 1);", "fetch(at);", norm},
      {"first / 32 * n", "(first / 32 + 1) % 3 * n", norm},
      {"i += 64", "i += 128", norm},
      {"if (i + 32 < n)", "if (i + 33 < n)", odd},
      {"first + 32, count", "first + 31, count", norm},
      {"] = g0;", "] = 2 * g0;", norm},
      {"r < rows", "r + 1 < rows", tiles},
      {"first / 32 * n", "(first / 32 + 1) % 3 * n", tiles},
      {"= y0[j]", "= 2 * y0[j]", tiles},
      {"if (column < n)", "if (column + 1 < n)", unpacked},
      {"tile * 32 + (packed ? i", "tile * 32 + (!packed ? i", tiles},
  };
  int number = 0;
  for (const Bug& bug : bugs) {
    CAPTURE(bug.right, bug.wrong);
    const std::string symbol = "tandem_planted_across_" + std::to_string(number++);
    std::string text = print_cuda(bug.c.k, symbol);
    size_t found = text.find(bug.right);
    REQUIRE(found != std::string::npos);
    for (const std::string right = bug.right; found != std::string::npos;
         found = text.find(right, found + std::string(bug.wrong).size()))
      text.replace(found, right.size(), bug.wrong);
    const Outcome outcome =
        samples::run_on_device(bug.c, cuda_function(samples::test_device(), symbol, text));
    CHECK(!samples::difference(bug.c, expected_of(bug.c), outcome).empty());
  }
}
