// Printed CUDA kernels, run on a device, give the chunk evaluator's bits.
#include "tandem/jit/print_cuda.h"

#include "tests/catch.h"
#include "tests/jit/device_kernels.h"
#include "tests/jit/hand_cases.h"

using namespace tandem;
using namespace tandem::jit;
using tandem::jit::samples::by_hand;
using tandem::jit::samples::Case;
using tandem::jit::samples::drawn;
using tandem::jit::samples::Outcome;
using tandem::jit::samples::picked;
using tandem::jit::samples::several_reductions;
using tandem::jit::samples::several_types;
using tandem::jit::samples::whole;

namespace {

std::vector<Case> cases_by_hand() {
  std::vector<Case> cases;
  constexpr auto kPointwise = KernelKind::pointwise;
  constexpr auto kRow = KernelKind::row, kColumn = KernelKind::column;
  for (const int64_t n : {1, 31, 32, 33, 64, 65, 1000, 16384, 16385, 100000, 600000}) {
    cases.push_back(by_hand(several_reductions(kRow, 1, 1), {n > 20000 ? 2 : 5, n}));
    cases.push_back(by_hand(samples::softmax(), {n > 20000 ? 1 : 3, n}));
  }
  cases.push_back(by_hand(several_reductions(kRow, 0, 1), {70001}));
  cases.push_back(by_hand(several_reductions(kRow, 0, 2), {300, 70}));
  cases.push_back(by_hand(several_reductions(kRow, 2, 3), {3, 2, 5, 7, 9}));
  cases.push_back(by_hand(several_reductions(kRow, 1, 2, DType::int64), {3, 11, 17}));
  cases.push_back(by_hand(samples::layer_norm(), {7, 200}, {0, 1, 1}));
  cases.push_back(by_hand(samples::layer_norm(), {2, 20000}, {0, 1, 1}));
  for (const int64_t n : {1, 7, 255, 256, 257, 513, 5000})
    cases.push_back(by_hand(several_reductions(kColumn, 1, 1), {n > 1000 ? 33 : 70, n}));
  for (const int64_t n : {31, 33, 700, 2100}) {
    cases.push_back(by_hand(several_reductions(kColumn, 1, 1), {33, n}));
    cases.back().k.in_order = true;
  }
  cases.push_back(by_hand(several_reductions(kColumn, 2, 1), {3, 40, 300}));
  cases.push_back(by_hand(several_reductions(kColumn, 1, 2), {40, 30, 11}));
  cases.push_back(by_hand(several_reductions(kColumn, 2, 3, DType::float64), {2, 40, 10, 7, 11}));
  cases.push_back(by_hand(samples::relu_backward_bias(), {100, 1000}));
  cases.push_back(by_hand(samples::bias_gelu(), {30, 64}, {0, 1}));
  for (const int64_t n : {1, 3, 4, 1000, 1001}) {
    cases.push_back(by_hand(samples::dropout(), {n}));
    cases.push_back(by_hand(samples::adamw(), {n}));
    cases.push_back(by_hand(several_types(), {7, n}, {0, 2, 1, 0}));
  }
  cases.push_back(by_hand(drawn(kPointwise, 3, 0), {3, 5, 7}));
  cases.push_back(by_hand(drawn(kRow, 2, 1), {3, 5, 70}));
  cases.push_back(by_hand(drawn(kColumn, 1, 1), {50, 300}));
  cases.push_back(by_hand(drawn(kColumn, 2, 2), {3, 5, 20, 30}));
  for (const bool out : {false, true})
    for (const KernelKind kind : {kPointwise, kRow, kColumn})
      cases.push_back(by_hand(picked(kind, out),
                              kind == kPointwise ? std::vector<int64_t>{100} : std::vector<int64_t>{20, 50}));
  // An axis without elements: what is picked is 0.
  cases.push_back(by_hand(picked(kPointwise, false), {100}));
  cases.back().strides[2] = 0;
  cases.push_back(by_hand(several_reductions(kColumn, 1, 1), {300, 2}));
  for (const KernelKind kind : {kRow, kColumn}) {
    samples::Builder b("empty", kind, 1, 1);
    const samples::S x = b.load(DType::float32, Inner::contiguous);
    const Inner of_row = kind == kRow ? Inner::constant : Inner::contiguous;
    b.store(b.reduce(ReduceOp::sum, x), of_row, true);
    b.store(b.reduce(ReduceOp::max, x), of_row, true);
    cases.push_back(by_hand(b.k, {5, 0}));
  }
  return cases;
}

void compare(const std::vector<Case>& all, size_t skew = 0) {
  std::vector<Case> cases;
  for (const Case& c : all)
    if (!samples::is_card() || !samples::may_differ_on_cards(c.k)) cases.push_back(c);
  const std::vector<cuda::Function> functions = samples::device_functions(cases);
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    const Evaluator evaluator(c.k);
    const auto expected = samples::run_case(c, [&](const KernelArgs& a) { evaluator.run(a); });
    const std::string difference =
        samples::difference(c, expected, samples::run_on_device(c, functions[i], skew));
    CAPTURE(i, c.dims);
    if (!difference.empty()) FAIL_CHECK(difference << '\n' << print_cuda(c.k, "kernel"));
  }
}

// Rows shorter than a warp, more of them than a block has; halves in pairs; few long columns.
std::vector<Case> cases_of_parts() {
  std::vector<Case> cases;
  constexpr auto kRow = KernelKind::row, kColumn = KernelKind::column;
  for (const int64_t n : {1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 32, 33, 62, 63, 130})
    cases.push_back(by_hand(several_reductions(kRow, 1, 1), {300, n}));
  for (const int64_t n : {2, 6, 64, 254, 256, 258, 1024, 1100})
    cases.push_back(by_hand(samples::layer_norm(), {9, n}, {0, 1, 1}));
  cases.push_back(by_hand(several_reductions(kRow, 2, 2), {3, 50, 2, 3}));
  cases.push_back(by_hand(drawn(kRow, 1, 1), {77, 6}));
  cases.push_back(by_hand(picked(kRow, true), {70, 7}));
  for (const int64_t columns : {1, 8, 9, 70})
    for (const int64_t n : {1025, 2000, 17000})
      cases.push_back(by_hand(several_reductions(kColumn, 1, 1), {columns, n}));
  samples::Builder narrow("narrow", kColumn, 1, 1);
  narrow.store(
      narrow.reduce(ReduceOp::sum, cast(narrow.load(DType::bfloat16, Inner::contiguous), DType::float32)),
      Inner::contiguous, true);
  for (const int64_t columns : {16, 35}) cases.push_back(by_hand(narrow.k, {columns, 3000}));
  samples::Builder b("halves", kRow, 1, 1);
  const samples::S x = cast(b.load(DType::bfloat16, Inner::contiguous), DType::float32);
  const samples::S y = b.load(DType::int64, Inner::contiguous);
  const samples::S sum = b.reduce(ReduceOp::sum, x * cast(y, DType::float32));
  b.store(cast(x - sum, DType::float16), Inner::contiguous);
  b.store(s_gt(x, sum), Inner::contiguous);
  for (const int64_t n : {2, 63, 64, 514, 900}) cases.push_back(by_hand(b.k, {11, n}));
  return cases;
}

// Operands that are contiguous along other dimensions than the innermost: `first`: in memory the dimensions
// lie in this order, the innermost last.
Case transposed(const Kernel& k, std::vector<int64_t> dims, const std::vector<std::vector<int>>& orders) {
  std::vector<unsigned> still;  // what is constant along the innermost dimension
  for (const Load& l : k.loads) still.push_back(l.inner == Inner::constant ? 1u << (k.kept_rank - 1) : 0u);
  Case c = by_hand(k, std::move(dims), still);
  const auto rank = static_cast<size_t>(k.kept_rank);
  for (size_t s = 0; s < orders.size(); ++s) {
    int64_t step = 1;
    for (size_t i = rank; i-- > 0 && !orders[s].empty();) {
      const auto d = static_cast<size_t>(orders[s][i]);
      c.strides[s * rank + d] = step;
      step *= c.dims[d];
    }
  }
  return c;
}

// (a, b, c): a transposed operand, one in order, one without its rows, and a draw by the element's number.
Kernel with_transpose(int rank, Inner result) {
  samples::Builder b("transpose", KernelKind::pointwise, rank, 0);
  const samples::S x = b.load(DType::float32, Inner::strided), y = b.load(DType::float32, Inner::contiguous);
  const samples::S h = cast(b.load(DType::bfloat16, Inner::strided), DType::float32);
  const samples::S flag = b.load(DType::bool_, Inner::constant);
  const samples::S seed = b.number(DType::int64), offset = b.number(DType::int64), index = b.index();
  b.store(select(flag, x * y, h) + s_uniform(index, seed, offset), result);
  b.store(index, Inner::contiguous);
  return b.k;
}

std::vector<Case> transposes() {
  std::vector<Case> cases;
  using Orders = std::vector<std::vector<int>>;
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{8, 8}, {64, 64}, {33, 70}, {7, 100}, {100, 7}, {1, 50}, {129, 8}}) {
    cases.push_back(
        transposed(with_transpose(2, Inner::contiguous), {rows, columns}, Orders{{1, 0}, {}, {1, 0}}));
    cases.push_back(transposed(with_transpose(2, Inner::strided), {rows, columns},
                               Orders{{1, 0}, {}, {0, 1}, {}, {1, 0}}));
  }
  const Kernel three = with_transpose(3, Inner::contiguous);
  for (const Orders& orders :
       {Orders{{0, 2, 1}, {}, {2, 1, 0}}, Orders{{2, 1, 0}, {}, {0, 2, 1}}, Orders{{1, 0, 2}, {}, {1, 2, 0}}})
    cases.push_back(transposed(three, {20, 9, 40}, orders));
  cases.push_back(transposed(with_transpose(4, Inner::contiguous), {3, 17, 5, 35},
                             Orders{{0, 3, 2, 1}, {}, {3, 0, 1, 2}}));
  samples::Builder b("picked transpose", KernelKind::pointwise, 2, 0);
  const samples::S i = b.load(DType::int64, Inner::strided);
  b.store(b.load(DType::float32, Inner::contiguous, false, i), Inner::contiguous);
  cases.push_back(transposed(b.k, {40, 50}, Orders{{1, 0}}));
  return cases;
}

std::vector<Case> random_cases(int cases, uint64_t seed) {
  std::vector<Case> out;
  for (const KernelKind kind : {KernelKind::pointwise, KernelKind::row, KernelKind::column}) {
    samples::Generator generator(seed + static_cast<uint64_t>(kind));
    for (int i = 0; i < cases; ++i) out.push_back(whole(generator, kind));
  }
  return out;
}

}  // namespace

TEST_CASE("random CUDA kernels give the evaluator's bits", "[jit]") { compare(random_cases(20, 20240)); }
TEST_CASE("many random CUDA kernels give the evaluator's bits", "[jit][simulator]") {
  compare(random_cases(150, 31000));
}

TEST_CASE("CUDA kernels of all sizes and shapes give the evaluator's bits", "[jit]") {
  compare(cases_by_hand());
}

TEST_CASE("CUDA kernels of transposed operands give the evaluator's bits", "[jit]") {
  for (const Case& c : transposes())
    CHECK(launch_shape(c.k, c.dims.data(), c.end).grid == (c.end + 1023) / 1024);
  compare(transposes());
}

TEST_CASE("CUDA kernels of short rows and few columns give the evaluator's bits", "[jit]") {
  compare(cases_of_parts());
}

TEST_CASE("CUDA kernels at addresses for one element give the evaluator's bits", "[jit]") {
  std::vector<Case> floats;
  for (const Case& c : cases_of_parts())
    if (std::all_of(c.types.begin(), c.types.end(), [](DType t) { return t == DType::float32; }))
      floats.push_back(c);
  for (const int64_t n : {4, 1000, 1001}) floats.push_back(by_hand(samples::adamw(), {n}));
  compare(floats, sizeof(float));
}

// Walks over short rows read what was put aside: a text that puts aside something else gives other results.
TEST_CASE("what several walks over a short row read is kept", "[jit]") {
  constexpr const char* kRight = "td_copy<4>(k0 + r, p0 + r);";
  const auto outcome = [](const Case& c, const std::string& symbol, const char* kept) {
    std::string text = print_cuda(c.k, symbol);
    const size_t at = text.find(kRight);
    REQUIRE(at != std::string::npos);
    text.replace(at, std::string(kRight).size(), kept);
    return samples::run_on_device(c, cuda_function(samples::test_device(), symbol, text));
  };
  constexpr const char* kWrong = "for (int j = 0; j < 4; ++j) k0[r + j] = 5;";
  for (const int64_t n : {4, 64, 1000, 1280, 5000, 5120, 6000}) {
    CAPTURE(n);
    const Case c = by_hand(samples::softmax(), {3, n});
    const Evaluator evaluator(c.k);
    const Outcome expected = samples::run_case(c, [&](const KernelArgs& a) { evaluator.run(a); });
    const std::string symbol = "tandem_kept_" + std::to_string(n);
    CHECK(samples::difference(c, expected, outcome(c, symbol, kRight)).empty());
    CHECK(!samples::difference(c, expected, outcome(c, symbol + "_wrong", kWrong)).empty());
  }
  const Kernel k = samples::softmax();
  const auto shape = [&](std::vector<int64_t> dims) { return launch_shape(k, dims.data(), dims[0]); };
  CHECK(shape({100000, 1280}).shared_bytes == 128 * 16 * 20);
  CHECK(shape({100000, 2560}).block == 64);
  CHECK(shape({100000, 2560}).shared_bytes == 64 * 16 * 40);
  CHECK(shape({100000, 2564}).block == 32);
  CHECK(shape({100000, 5120}).shared_bytes == 32 * 16 * 80);
  CHECK(shape({100000, 5124}).block == 128);  // of one row
  CHECK(shape({100000, 5124}).grid == 100000);
  CHECK(shape({100000, 10240}).shared_bytes == 40 * 1024 + 16);
  CHECK(shape({100000, 10244}).shared_bytes == 0);  // read again
  CHECK(shape({100000, 20000}).shared_bytes == 0);
  constexpr int64_t kLarge = 227 * 1024;
  const auto large = [&](const Kernel& of, std::vector<int64_t> dims) {
    return launch_shape(of, dims.data(), dims[0], kLarge).shared_bytes;
  };
  CHECK(large(k, {100, 16384}) == 4 * 16384);
  CHECK(large(k, {100, 20000}) == 4 * (20000 + 32));
  CHECK(large(k, {100, 24580}) == 0);
  CHECK(large(k, {100000, 16384}) == 0);  // exp: by many threads
  CHECK(large(samples::layer_norm(), {100000, 16384}) == 4 * 16384);
  CHECK(shape({100, 2564}).block == 32);  // few rows: a warp a block
  CHECK(shape({100, 2564}).shared_bytes == 32 * 16 * 41);
}

// A row of more elements than 32 bits count, over memory of one: what does not move stays.
TEST_CASE("CUDA rows are counted beyond 32 bits", "[jit][simulator]") {
  constexpr int64_t kN = (int64_t{1} << 31) + 77;
  samples::test_device();
  using Orders = void (*)(int);
  const auto set_orders = reinterpret_cast<Orders>(samples::simulator_function("sim_gpu_set_orders"));
  if (set_orders) set_orders(1);
  samples::Builder b("long", KernelKind::row, 1, 1);
  const samples::S x = b.load(DType::int64, Inner::strided) + b.index();
  b.store(b.reduce(ReduceOp::max, x), Inner::constant, true);
  Case c{b.k, {1, kN}, {0, 0, 0, 0}, {}, {std::string(8, '\0'), std::string(8, '\x5a')}, {}, 0, 1};
  const Outcome found = samples::run_on_device(c, samples::device_functions({c})[0]);
  if (set_orders) set_orders(3);
  int64_t most = 0;
  std::memcpy(&most, found.buffers[1].data(), 8);
  CHECK(most == kN - 1);
}

// The last of more elements than 32 bits count: a launch of several calls is told that the blocks of those
// before have run.
TEST_CASE("CUDA elements are counted beyond 32 bits", "[jit]") {
  constexpr int64_t kRow = 1024, kRows = (int64_t{1} << 33) / kRow + 1, kBlocks = kRow / 256;
  cuda::Runtime& device = samples::test_device();
  samples::Builder b("wide", KernelKind::pointwise, 2, 0);
  b.store(b.index(), Inner::strided);
  Case c{b.k, {kRows, kRow}, {0, 1}, {}, {std::string(kRow * 8, '\x5a')}, {}, 0, kRows * kRow};
  const cuda::Function function = samples::device_functions({c}, CudaForm::several)[0];
  const samples::DeviceBytes out(device, c.buffers[0]);
  const int calls = cuda_calls(c.k), n = cuda_words(c.k);
  std::vector<int64_t> words(static_cast<size_t>(calls * (n + 1)));
  const int64_t call[] = {static_cast<int64_t>(out.at()), kRows, kRow, 0, 1, kRows * kRow, 0};
  REQUIRE(n == std::ssize(call));
  std::copy_n(call, n, words.begin() + n);  // the second call
  std::fill(words.begin() + calls * n, words.end(), int64_t{1} << 40);
  words[static_cast<size_t>(calls * n)] = -(kRows - 1) * kBlocks;
  words[static_cast<size_t>(calls * n) + 1] = kBlocks;
  void* parameters[] = {words.data()};
  device.check(
      device.api().launch(function, kBlocks, 1, 1, 256, 1, 1, 0, device.stream(), parameters, nullptr),
      "cuLaunchKernel");
  const std::string found = out.read();
  for (int64_t i = 0; i < kRow; i += 255) {
    int64_t index = 0;
    std::memcpy(&index, found.data() + 8 * i, 8);
    CHECK(index == (kRows - 1) * kRow + i);
  }
}
