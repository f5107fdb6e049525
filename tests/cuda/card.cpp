// What scripts/gpu runs by its tag, and no suite does: the planted bugs that compute-sanitizer has to find
// before its silence means anything, and long runs.
#include "tandem/core/cuda/libraries.h"
#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/cuda_program.h"
#include "tests/cuda/on_device.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

constexpr const char* kStores = R"(
struct td_args_planted { td_i64* to; td_i64 count; };
extern "C" __global__ void planted(td_args_planted a) {
  const td_i64 t = (td_i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (t <= a.count) a.to[t] = t;
}
)";

constexpr const char* kRace = R"(
struct td_args_planted_race { td_i64* to; };
extern "C" __global__ void planted_race(td_args_planted_race a) {
  __shared__ td_i64 line[256];
  line[threadIdx.x] = threadIdx.x;
  a.to[threadIdx.x] = line[255 - threadIdx.x];
}
)";

void launch(const char* symbol, const char* source, void* words) {
  td::cuda::Runtime& device = td::cuda::Runtime::of(kCuda);
  void* parameters[] = {words};
  device.check(device.api().launch(td::jit::cuda_function(device, symbol, source), 2, 1, 1, 256, 1, 1, 0,
                                   device.stream(), parameters, nullptr),
               "cuLaunchKernel");
  device.synchronize();
}

/// Memory of exactly so many bytes.
struct Exact {
  td::cuda::Pointer at = 0;
  explicit Exact(size_t bytes) {
    td::cuda::Runtime& device = td::cuda::Runtime::of(kCuda);
    device.use();
    device.check(device.api().allocate(&at, bytes), "cuMemAlloc");
  }
  ~Exact() { td::cuda::Runtime::of(kCuda).api().release(at); }
};

struct Mlp : td::nn::Module {
  td::nn::Linear hidden = child<td::nn::Linear>("hidden", 16, 32);
  td::nn::Linear out = child<td::nn::Linear>("out", 32, 10);
  Tensor forward(const Tensor& x) { return out(td::dropout(td::relu(hidden(x)), 0.25)); }
};

}  // namespace

// TANDEM_LOG=jit:info says which they are.
TEST_CASE("card: all four libraries are found", "[.][gpu_libraries]") {
  need_device();
  CHECK(td::cuda::why_no_cublaslt() == "");
  CHECK(td::cuda::cudnn());
  CHECK(td::cuda::why_no_cudnn() == "");
}

TEST_CASE("card: a store one element beside its memory", "[.][gpu_planted]") {
  need_device();
  constexpr int64_t kCount = 256;
  const Exact memory(kCount * sizeof(int64_t));
  int64_t words[] = {static_cast<int64_t>(memory.at), kCount};
  launch("planted", kStores, words);
}

TEST_CASE("card: threads that read what others write, without waiting", "[.][gpu_planted_race]") {
  need_device();
  const Exact memory(256 * sizeof(int64_t));
  int64_t words[] = {static_cast<int64_t>(memory.at)};
  launch("planted_race", kRace, words);
}

TEST_CASE("card: 1,000 replays of a training step's graph against eager", "[.][gpu_long]") {
  need_device();
  constexpr int kSteps = 1000;
  std::vector<Tensor> losses[2];
  std::vector<std::vector<char>> parameters[2];
  for (const bool traced : {false, true}) {
    td::manual_seed(3);
    Mlp net;
    net.to(kCuda);
    td::optim::AdamW opt(net.parameters(), {.lr = 1e-3});
    auto body = [&](const Tensor& x, const Tensor& y) {
      const Tensor loss = td::cross_entropy(net.forward(x), y);
      opt.zero_grad();
      loss.backward();
      opt.step();
      return loss;
    };
    auto step = td::trace(body);
    for (int i = 0; i < kSteps; ++i) {
      const Tensor x = td::randn({8, 16}).to(kCuda), y = td::randint(0, 10, {8}).to(kCuda);
      losses[traced].push_back(traced ? step(x, y) : body(x, y));
    }
    for (const Tensor& p : net.parameters()) parameters[traced].push_back(bits_of(p));
    if (traced) {
      const td::TraceReport r = step.report();
      CHECK(r.recorded == 1);
      CHECK(r.plans == 1);
      CHECK(r.eager_calls == 0);
    }
  }
  for (int i = 0; i < kSteps; ++i) {
    CAPTURE(i);
    REQUIRE(bits_of(losses[0][static_cast<size_t>(i)]) == bits_of(losses[1][static_cast<size_t>(i)]));
  }
  CHECK(parameters[0] == parameters[1]);
}

TEST_CASE("card: every float16 conversion has the CPU's bits", "[.][gpu_long]") {
  need_device();
  std::vector<uint16_t> halves(1 << 16);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  const Tensor h = td::from_blob(halves.data(), {1 << 16}, td::float16);
  const bool widened = bits_of(h.to(kCuda).to(td::float32)) == bits_of(h.to(td::float32));
  CHECK(widened);
  constexpr int64_t kPart = int64_t{1} << 24;
  std::vector<uint32_t> floats(kPart);
  const Tensor f = td::from_blob(floats.data(), {kPart}, td::float32);
  for (uint32_t part = 0; part < 256; ++part) {
    for (uint32_t i = 0; i < kPart; ++i) floats[i] = part << 24 | i;
    const bool narrowed = bits_of(f.to(kCuda).to(td::float16)) == bits_of(f.to(td::float16));
    CAPTURE(part);
    REQUIRE(narrowed);
  }
}
