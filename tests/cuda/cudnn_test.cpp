// Convolutions by cuDNN against plain loops: directions, strides, padding, dilation, groups, types and
// layouts; what is not taken, and why; plans that are kept; streams, captured ones too. Values are small
// multiples of 1/8, so that sums are exact in every order and results are compared by their bits. On the
// simulated GPU the library is the simulated one (tests/sim_gpu/cudnn), whose first proposals are traps.
#include <thread>

#include "tests/cuda/convolution_on_device.h"
#include "tests/cuda/lazy.h"

namespace td = tandem;
using namespace tandem::test;
using td::DType;

namespace {

/// False, said once, on a card without the library.
bool has_cudnn() {
  need_device();
  if (td::cuda::cudnn()) return true;
  WARN("skipped: " << td::cuda::why_no_cudnn());
  return false;
}

/// A stream of the driver's that nothing orders.
struct RawStream {
  td::cuda::StreamHandle handle = nullptr;
  RawStream() {
    device().use();
    device().check(device().api().stream_create(&handle, td::cuda::kStreamNonBlocking), "cuStreamCreate");
  }
  ~RawStream() {
    td::jit::leave_stream(device(), handle);
    device().api().stream_destroy(handle);
  }
  void wait() const { device().check(device().api().stream_synchronize(handle), "cuStreamSynchronize"); }
};

CudnnShape usual(int64_t batch, DType dtype = DType::float32,
                 CudnnDirection direction = CudnnDirection::forward) {
  return shape_of({batch, 3, 5, 1, {{6, 3, 1, 1, 1}, {7, 3, 1, 1, 1}}}, direction, dtype);
}

/// The simulated library has these engines alone, for a scope.
struct Engines {
  explicit Engines(unsigned long engines) { simulator().sim_gpu_set_engines(engines); }
  ~Engines() { simulator().sim_gpu_set_engines(~0ul); }
};
unsigned long bit(int engine) { return 1ul << engine; }

}  // namespace

TEST_CASE("cudnn: every direction, type and layout equals plain loops", "[cuda]") {
  if (!has_cudnn()) return;
  for (const DType dtype : {DType::float32, DType::float16, DType::bfloat16})
    for (const CudnnDirection direction : kDirections)
      for (const Memory memory : {Memory::rows, Memory::channels_last, Memory::gaps})
        for (const Case& c : kConvolutions) {
          const CudnnShape s = shape_of(c, direction, dtype, memory);
          CAPTURE(to_string(s), static_cast<int>(memory));
          if (!simulator().there && memory == Memory::gaps) {
            if (!td::jit::cudnn_convolution(device(), s)) continue;  // a card's library may not take them
          }
          const Ready all(s);
          all.run(device().stream());
          CHECK(all.right());
        }
}

TEST_CASE("cudnn: halves with a bias are rounded once", "[cuda]") {
  if (!has_cudnn()) return;
  for (const DType dtype : {DType::float16, DType::bfloat16})
    for (const CudnnDirection direction : {CudnnDirection::forward, CudnnDirection::input})
      for (const Memory memory : {Memory::rows, Memory::channels_last})
        for (const Case& c : kConvolutions) {
          CudnnShape s = shape_of(c, direction, dtype, memory);
          s.biased = true;
          CAPTURE(to_string(s), static_cast<int>(memory));
          if (!simulator().there && !td::jit::cudnn_convolution(device(), s)) continue;
          const Ready all(s);
          all.run(device().stream());
          CHECK(all.right());
        }
  // A convolution with sums of more digits than a half has: that they are rounded before the bias is seen.
  CudnnShape s = shape_of({1, 24, 6, 1, {{6, 3, 1, 1, 1}}}, CudnnDirection::forward, DType::bfloat16);
  s.biased = true;
  const Ready all(s);
  all.run(device().stream());
  CHECK(all.right());
  const std::vector<float> twice =
      expected(s, all.values, [](float sum) { return td::bfloat_to_float(td::float_to_bfloat(sum)); });
  CHECK_FALSE(all.result().holds(twice));
}

TEST_CASE("cudnn: answers are kept up to a number, those that were not asked for longest go", "[cuda]") {
  if (!has_cudnn() || !simulator().there) return;
  const auto shape = [](int64_t i) {
    return shape_of({1, 1, 1, 1, {{3 + i, 1, 0, 1, 1}}}, CudnnDirection::forward, DType::float32);
  };
  const auto first = td::jit::cudnn_convolution(device(), shape(0));
  const auto kept = static_cast<int64_t>(td::jit::kCudnnKept);
  for (int64_t i = 1; i < kept; ++i) {
    td::jit::cudnn_convolution(device(), shape(i));
    if (i % 100 == 0) CHECK(td::jit::cudnn_convolution(device(), shape(0)) == first);
  }
  CHECK(td::jit::cudnn_convolution(device(), shape(0)) == first);
  for (int64_t i = kept; i < kept + 50; ++i) td::jit::cudnn_convolution(device(), shape(i));
  CHECK(td::jit::cudnn_kept(device()) == td::jit::kCudnnKept);
  CHECK(td::jit::cudnn_convolution(device(), shape(0)) == first);  // it was asked for lately
  const long calls = simulator().sim_gpu_calls();
  CHECK(td::jit::cudnn_convolution(device(), shape(kept + 49)));
  CHECK(simulator().sim_gpu_calls() == calls);
  CHECK(td::jit::cudnn_convolution(device(), shape(1)));  // it was forgotten
  CHECK(simulator().sim_gpu_calls() > calls);
  CHECK(td::jit::cudnn_kept(device()) == td::jit::kCudnnKept);
}

TEST_CASE("cudnn: operands aligned to their elements alone", "[cuda]") {
  if (!has_cudnn()) return;
  for (const DType dtype : {DType::float32, DType::bfloat16})
    for (const CudnnDirection direction : kDirections) {
      const Ready all(usual(2, dtype, direction), 1, 1);
      CAPTURE(to_string(all.shape));
      all.run(device().stream());
      CHECK(all.right());
    }
}

TEST_CASE("cudnn: what it is not asked for, with the reason", "[cuda]") {
  if (!has_cudnn()) return;
  std::string why;
  CudnnShape s = usual(2);
  CHECK(td::jit::cudnn_can(s));
  s.dtype = DType::float64;
  CHECK_FALSE(td::jit::cudnn_can(s, &why));
  CHECK_THAT(why, Contains("float64"));
  CHECK(td::jit::cudnn_convolution(device(), s, &why) == nullptr);
  s = usual(0);
  CHECK_FALSE(td::jit::cudnn_can(s, &why));
  CHECK_THAT(why, Contains("nothing to compute"));
  s = usual(2);
  s.x_strides[1] = 0;
  CHECK_FALSE(td::jit::cudnn_can(s, &why));
  CHECK_THAT(why, Contains("strides of 0"));
  s = usual(int64_t{1} << 25);
  CHECK_FALSE(td::jit::cudnn_can(s, &why));
  CHECK_THAT(why, Contains("2^31"));
  s = shape_of({1, 4, 4, 4, {{7, 2, 1, 2, 1}}}, CudnnDirection::input, DType::float32);
  s.y[2] -= 1;
  s.y_strides = strides_for(s.y, Memory::rows);
  CHECK_FALSE(td::jit::cudnn_can(s, &why));
  CHECK_THAT(why, Contains("fewer outputs"));
  s = usual(2);
  s.y[1] = 9;
  CHECK_THROWS_AS(td::jit::cudnn_convolution(device(), s), td::InternalError);
}

TEST_CASE("cudnn: engines that round, transform, vary or want too much are passed over", "[cuda]") {
  if (!has_cudnn() || !simulator().there) return;
  const td::cuda::Cudnn& api = *td::cuda::cudnn();
  device().use();
  td::cuda::Cudnn::Handle handle = nullptr;
  REQUIRE(api.create(&handle) == 0);
  const auto engine = [&](const CudnnShape& s, int64_t alignment) {
    std::string why;
    const auto plan = td::jit::CudnnPlan::make({&api, handle, nullptr}, s, alignment, &why);
    INFO(why);
    REQUIRE(plan);
    return plan->engine();
  };
  CudnnShape s = usual(2);
  CHECK(engine(s, 16) == 26);
  CHECK(engine(s, 4) == 26);
  s.tf32 = true;
  CHECK(engine(s, 16) == 20);
  for (const DType half : {DType::float16, DType::bfloat16}) {
    CHECK(engine(usual(2, half), 16) == 28);
    CHECK(engine(usual(2, half), 2) == 29);
  }
  {
    const Engines few(bit(20) | bit(21) | bit(1));
    CHECK(engine(usual(2), 16) == 1);  // what is left is slow
  }
  CHECK(api.destroy(handle) == 0);
}

TEST_CASE("cudnn: float32 is not rounded to TF32 unless that is asked for", "[cuda]") {
  if (!has_cudnn()) return;
  CudnnShape s = usual(2);
  for (const bool tf32 : {false, true}) {
    s.tf32 = tf32;
    Ready all(s);
    for (float& v : all.values.x) v += v / 4096;  // 12 bits more than TF32 keeps
    all.x.set(all.values.x);
    all.run(device().stream());
    CAPTURE(tf32);
    if (!tf32 || simulator().there) CHECK(all.right() == !tf32);  // a card's library need not round
  }
}

TEST_CASE("cudnn: without an engine there is a reason, and the shape is not asked for again", "[cuda]") {
  if (!has_cudnn() || !simulator().there) return;
  std::string why;
  {
    const Engines none(0);
    CHECK(td::jit::cudnn_convolution(device(), usual(11), &why) == nullptr);
    CHECK_THAT(why, Contains("none of 0 proposals") && Contains("no engine is proposed"));
  }
  {
    const Engines large(bit(22) | bit(23) | bit(21) | bit(30));
    CHECK(td::jit::cudnn_convolution(device(), usual(12), &why) == nullptr);
    CHECK_THAT(why, Contains("asks for 1073741824 bytes of workspace") && Contains("not deterministic") &&
                        Contains("is compiled first") &&
                        Contains("gives no plan: CUDNN_STATUS_NOT_SUPPORTED (an engine without a plan)"));
  }
  for (const int64_t batch : {11, 12}) {
    why.clear();
    CHECK(td::jit::cudnn_convolution(device(), usual(batch), &why) == nullptr);
    CHECK_THAT(why, Contains("none of "));
  }
}

TEST_CASE("cudnn: every call of planning may fail; the next shape is planned", "[cuda]") {
  if (!has_cudnn() || !simulator().there) return;
  REQUIRE(td::jit::cudnn_convolution(device(), usual(20)));
  int reached = 0, without = 0;
  for (long failing = 1; failing <= 2000; ++failing) {
    CudnnShape s = usual(20 + failing);
    std::string why;
    simulator().sim_gpu_fail_call(failing);
    const auto found = td::jit::cudnn_convolution(device(), s, &why);
    const std::string failed = simulator().sim_gpu_failed_call();
    simulator().sim_gpu_fail_call(0);
    if (failed.empty()) break;
    CAPTURE(failing, failed, why);
    CHECK((found != nullptr) == why.empty());
    ++reached;
    if (!found) {
      ++without;
      CHECK_THAT(why, Contains(failed));
    }
    CHECK(td::jit::cudnn_convolution(device(), s) == found);
  }
  CHECK(reached > 100);
  CHECK(without > 100);
  const Ready all(usual(3));
  all.run(device().stream());
  CHECK(all.right());
}

TEST_CASE("cudnn: a failure of the execution is told, and the next one works", "[cuda]") {
  if (!has_cudnn() || !simulator().there) return;
  const Ready all(usual(4));
  int reached = 0;
  for (long failing = 1; failing <= 100; ++failing) {
    simulator().sim_gpu_fail_call(failing);
    std::string said;
    try {
      all.run(device().stream());
    } catch (const td::Error& e) {
      said = e.what();
    }
    const std::string failed = simulator().sim_gpu_failed_call();
    simulator().sim_gpu_fail_call(0);
    if (failed.empty()) break;
    CAPTURE(failing, failed);
    CHECK_THAT(said, Contains(failed));
    ++reached;
  }
  CHECK(reached > 5);
  all.run(device().stream());
  CHECK(all.right());
}

TEST_CASE("cudnn: plans are kept", "[cuda]") {
  if (!has_cudnn()) return;
  const CudnnShape s = usual(5, DType::float16);
  const auto first = td::jit::cudnn_convolution(device(), s);
  REQUIRE(first);
  const long calls = simulator().there ? simulator().sim_gpu_calls() : 0;
  CHECK(td::jit::cudnn_convolution(device(), usual(5, DType::float16)) == first);
  if (simulator().there) CHECK(simulator().sim_gpu_calls() == calls);
  std::vector<CudnnShape> others(7, s);
  others[0].direction = CudnnDirection::input;
  others[1].dtype = DType::bfloat16;
  others[2] = usual(6, DType::float16);
  others[3].x_strides = strides_for(s.x, Memory::channels_last);
  others[4].w_strides = strides_for(s.w, Memory::channels_last);
  others[5].y_strides = strides_for(s.y, Memory::channels_last);
  others[6].dtype = DType::float32, others[6].tf32 = true;
  for (const CudnnShape& other : others) CHECK(td::jit::cudnn_convolution(device(), other) != first);
}

TEST_CASE("cudnn: one workspace for several in a row", "[cuda]") {
  if (!has_cudnn()) return;
  const Lazy late;
  const Ready a(usual(2), 1), b(usual(3, DType::float16), 2),
      c(usual(2, DType::float32, CudnnDirection::weight), 3);
  int64_t bytes = 0;
  for (const Ready* const each : {&a, &b, &c})
    bytes = std::max(bytes, td::jit::workspace_bytes(*each->convolution));
  const Block shared(device(), bytes);
  for (const Ready* const each : {&a, &b, &c}) each->run(device().stream(), shared.memory());
  CHECK((a.right() && b.right() && c.right()));
}

TEST_CASE("cudnn: streams of several threads", "[cuda]") {
  if (!has_cudnn()) return;
  const Ready a(usual(2), 1), b(usual(2, DType::float16, CudnnDirection::input), 2);
  const RawStream on_a, on_b;
  device().synchronize();
  const Lazy late;
  const auto work = [](const Ready& mine, const RawStream& stream) {
    for (int i = 0; i < 20; ++i) mine.run(stream.handle);
  };
  std::thread first([&] { work(a, on_a); }), second([&] { work(b, on_b); });
  first.join(), second.join();
  on_a.wait();
  CHECK(a.right());
  if (simulator().there) CHECK_FALSE(b.right());  // nobody waited for its stream yet
  on_b.wait();
  CHECK(b.right());
}

TEST_CASE("cudnn: a captured stream makes a graph, which runs again with other values", "[cuda]") {
  if (!has_cudnn()) return;
  for (const CudnnDirection direction : kDirections) {
    Ready all(usual(2, DType::float32, direction));
    const td::cuda::Driver& api = device().api();
    const RawStream stream;
    td::cuda::Graph graph = nullptr;
    td::cuda::GraphExec exec = nullptr;
    device().check(api.capture_begin(stream.handle, td::cuda::kCaptureThreadLocal), "cuStreamBeginCapture");
    all.run(stream.handle);
    device().check(api.capture_end(stream.handle, &graph), "cuStreamEndCapture");
    device().check(api.graph_instantiate(&exec, graph, 0), "cuGraphInstantiate");
    CHECK_FALSE(all.right());
    for (unsigned seed = 5; seed < 8; ++seed) {
      all.values = Values(all.shape, seed);
      all.x.set(all.values.x), all.w.set(all.values.w), all.y.set(all.values.y);
      device().synchronize();
      device().check(api.graph_launch(exec, stream.handle), "cuGraphLaunch");
      stream.wait();
      CHECK(all.right());
    }
    api.graph_exec_destroy(exec);
    api.graph_destroy(graph);
  }
}
