// After a warm-up no op on contiguous float32 tensors waits for the compiler.
#include "tandem/jit/cuda_program.h"
#include "tests/cuda/on_device.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

TEST_CASE("cuda warmup: what comes after it compiles nothing", "[cuda][simulator]") {
  need_device();
  CHECK(td::cuda::warmup() > 60);
  const auto before = td::jit::cuda_compile_stats();
  const Tensor x = td::arange(0.f, 12).reshape({3, 4}).to(kCuda);
  const auto quiet = [&](const char* what, const Tensor& t) {
    CAPTURE(what);
    CHECK(t.to_vector<float>().size() >= 3);
    const auto after = td::jit::cuda_compile_stats();
    CHECK(after.compiles + after.disk_hits == before.compiles + before.disk_hits);
  };
  quiet("exp", td::exp(x));
  quiet("add of a number", x + 1.f);
  quiet("mul", x * x);
  quiet("softmax", td::softmax(x, -1));
  quiet("gelu", td::gelu(x));
  quiet("sum", x.sum(1));
}

TEST_CASE("cuda warmup: a device that is not there is an error", "[cuda]") {
  CHECK_THROWS_WITH(td::cuda::warmup({td::DeviceType::cuda, 99}),
                    Contains("warmup: device cuda:99 is not there") && Contains("warmup_test.cpp"));
}
