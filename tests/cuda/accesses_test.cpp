// What the generated kernels load and store, instruction by instruction, as the simulator counts it
// (SIM_GPU_ACCESSES=1, which ctest sets), against the benchmark's counts by hand: not more than 5 % above, in
// one launch of a graph.
#include <cstdlib>
#include <set>

#include "benchmarks/bench/device_floors.h"
#include "benchmarks/bench/models.h"
#include "tests/cuda/on_device.h"
#include "tests/cuda/simulator.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;
using td::TensorList;

namespace {

struct Counts {
  double loads = 0, stores = 0, bytes = 0, graphs = 0;
};

Counts now() {
  const auto count = [](const char* what) { return double(simulator().sim_gpu_count(what)); };
  return {count("global_loads"), count("global_stores"),
          count("global_loaded_bytes") + count("global_stored_bytes"), count("graph_launches")};
}

bool counts() {
  need_device();
  const char* const set = std::getenv("SIM_GPU_ACCESSES");
  if (simulator().there && set != nullptr) return true;
  std::fprintf(stderr, "skipped: kernels do not count their accesses (SIM_GPU_ACCESSES=1)\n");
  return false;
}

/// Of one call, after some that record, compile and make the graph.
template <class F>
Counts of(F&& step) {
  for (int i = 0; i < 4; ++i) step();
  const Counts before = now();
  step();
  const Counts after = now();
  return {after.loads - before.loads, after.stores - before.stores, after.bytes - before.bytes,
          after.graphs - before.graphs};
}

void check(const Counts& found, const bench::DeviceFloor& floor) {
  CAPTURE(found.loads, found.stores, found.bytes, floor.loads, floor.stores, floor.bytes);
  CHECK(found.graphs == 1);
  CHECK(found.loads > 0);
  CHECK(found.loads <= bench::kAboveFloor * floor.loads);
  CHECK(found.stores <= bench::kAboveFloor * floor.stores);
  CHECK(found.bytes <= bench::kAboveFloor * floor.bytes);
}

constexpr int64_t kRows = 64, kColumns = 1024;
constexpr int64_t kManyRows = 2048;  // blocks of them fill a card

struct Operands {
  int64_t rows = kRows, columns = kColumns;
  Tensor x = td::randn({rows, columns}).to(kCuda), dy = td::randn({rows, columns}).to(kCuda),
         weight = td::randn(columns).to(kCuda), bias = td::randn(columns).to(kCuda),
         y = td::randint(0, columns, {rows}).to(kCuda);
};

void check_rows(const std::string& name, const std::function<Tensor(const Operands&)>& forward,
                const std::function<TensorList(const Operands&)>& leaves, bool reduced = false,
                int64_t rows = kRows) {
  INFO(name);
  {
    const Operands o;
    auto step = td::trace([&] { return forward(o); });
    check(of([&] { step(); }), *bench::row_floor(name, kRows, kColumns));
  }
  INFO("its gradients");
  const Operands o{rows};
  for (const Tensor& leaf : leaves(o)) leaf.requires_grad_();
  const Tensor kept = forward(o);
  auto step = td::trace([&] {
    const auto dy = reduced ? std::span<const Tensor>() : std::span(&o.dy, 1);
    return td::autograd::grad(std::span(&kept, 1), leaves(o), dy, true);
  });
  check(of([&] { step(); }), *bench::row_floor(name + "_backward", static_cast<double>(rows), kColumns));
}

template <class Optimizer = td::optim::AdamW, class Net>
void check_step(Net& net, const Tensor& x, const Tensor& y, const bench::DeviceFloor& floor) {
  net.to(kCuda);
  Optimizer opt(net.parameters(), {.lr = 1e-3});
  auto step = td::trace([&](const Tensor& in, const Tensor& labels) {
    const Tensor loss = td::cross_entropy(net.forward(in), labels);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  });
  // Arguments that move, as a loader's do.
  check(of([&] { step(x.to(kCuda), y.to(kCuda)); }), floor);
  CHECK(step.report().op_by_op == 0);
}

}  // namespace

TEST_CASE("cuda accesses: rows load and store each element once, sixteen bytes at a time", "[cuda]") {
  if (!counts()) return;
  const auto x_alone = [](const Operands& o) { return TensorList{o.x}; };
  check_rows(
      "softmax", [](const Operands& o) { return td::softmax(o.x, -1); }, x_alone);
  check_rows(
      "layer_norm", [](const Operands& o) { return td::layer_norm(o.x, 1, o.weight, o.bias); },
      [](const Operands& o) {
        return TensorList{o.x, o.weight, o.bias};
      },
      false, kManyRows);
  check_rows(
      "cross_entropy", [](const Operands& o) { return td::cross_entropy(o.x, o.y); }, x_alone, true,
      kManyRows);
}

TEST_CASE("cuda accesses: long rows that several walks read load each element once", "[cuda]") {
  if (!counts()) return;
  constexpr int64_t kRowsOfFourWarps = 2400;
  const Operands o{kRowsOfFourWarps, 4096};
  auto softmax = td::trace([&] { return td::softmax(o.x, -1); });
  check(of([&] { softmax(); }), *bench::row_floor("softmax", kRowsOfFourWarps, 4096));
  auto norm = td::trace([&] { return td::layer_norm(o.x, 1, o.weight, o.bias); });
  check(of([&] { norm(); }), *bench::row_floor("layer_norm", kRowsOfFourWarps, 4096));
  for (const int64_t columns : {8192, 12288, 16384, 20480}) {  // 12288: 48 KiB, and what the kernel declares
    CAPTURE(columns);
    const Operands few{kRows, columns};
    auto of_few = td::trace([&] { return td::softmax(few.x, -1); });
    check(of([&] { of_few(); }), *bench::row_floor("softmax", kRows, static_cast<double>(columns)));
    const Operands many{300, columns};
    auto of_many = td::trace([&] { return td::layer_norm(many.x, 1, many.weight, many.bias); });
    check(of([&] { of_many(); }), *bench::row_floor("layer_norm", 300, static_cast<double>(columns)));
  }
}

TEST_CASE("cuda accesses: the gradient of a table of words reads its indices a few times", "[cuda]") {
  if (!counts()) return;
  constexpr int64_t kWords = 3000, kWidth = 96, kPositions = 1 << 15;
  td::manual_seed(3);
  const Tensor words = td::randint(0, kWords, {kPositions});
  std::set<int64_t> different;
  for (const int64_t word : words.to_vector<int64_t>()) different.insert(word);
  const Tensor table = td::randn({kWords, kWidth}).to(kCuda).requires_grad_(), at = words.to(kCuda),
               dy = td::randn({kPositions, kWidth}).to(kCuda);
  const Tensor y = td::embedding(at, table);
  auto step = td::trace(
      [&] { return td::autograd::grad(std::span(&y, 1), std::span(&table, 1), std::span(&dy, 1), true); });
  constexpr double kWarps = kWidth / 32, kMoved = double(kPositions) * kWidth;
  const double met = double(different.size()) * kWidth;
  bench::DeviceFloor floor;
  floor.how = "two passes of sorting by word; each warp reads sorted words and positions, some a second time";
  floor.add(kPositions, 2, 2, 2 * 8 + 8);
  floor.add(kPositions, 3, 2, 3 * 4 + 8);
  floor.add(kPositions, 4 * kWarps, 0, 16 * kWarps);
  floor.add(kMoved, 1, 0, 4);
  floor.add(met, 1, 1, 8);
  floor.add(kWords * kWidth, 0, 1, 4);
  check(of([&] { step(); }), floor);
}

TEST_CASE("cuda accesses: GELU and dropout load and store each element once", "[cuda]") {
  if (!counts()) return;
  const auto with_bias = [](const Operands& o) { return TensorList{o.x, o.bias}; };
  check_rows(
      "gelu", [](const Operands& o) { return td::gelu(o.x + o.bias, true); }, with_bias);
  check_rows(
      "gelu_dropout", [](const Operands& o) { return td::dropout(td::gelu(o.x + o.bias, true), 0.1); },
      with_bias);
}

TEST_CASE("cuda accesses: steps of an MLP, a convolutional network and a transformer", "[cuda]") {
  if (!counts()) return;
  td::manual_seed(1);
  bench::Mlp mlp(64);
  check_step(mlp, td::rand({64, 64}), td::randint(0, 10, {64}), bench::mlp_floor({64, 64}));
  constexpr bench::TransformerSizes kSizes{2, 64, 2, 32, 33, true};
  bench::Transformer gpt(kSizes);
  check_step(gpt, td::randint(0, 33, {8, 32}), td::randint(0, 33, {8 * 32}),
             bench::gpt_floor({2, 64, 2, 32, 8, 33}));
  bench::Cnn cnn;
  check_step<td::optim::SGD>(cnn, td::rand({2, 1, 28, 28}), td::randint(0, 10, {2}), bench::cnn_floor(2));
}
