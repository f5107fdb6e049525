// A program's own ops on a CUDA device: bits as on the CPU, launches, kernels' text, its errors; DLPack.
#include "tests/cuda/on_device.h"
#include "tests/cuda/simulator.h"
#include "tests/error_message.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;
using td::TensorType;

namespace {

long launches() { return simulator().sim_gpu_count("launches"); }

}  // namespace

TEST_CASE("cuda user ops: a formula is one launch, with the CPU's bits", "[cuda]") {
  need_device();
  const auto f = td::pointwise([](auto x, auto y, auto a) {
    return td::where(x > y, td::tanh(x * a) - td::exp(y) / (1.0 + x * x), td::exp(-td::abs(x)) * (1.0 - a));
  });
  for (const td::DType dtype : {td::float32, td::bfloat16}) {
    const Tensor x = td::arange(-6.f, 6, 0.5).reshape({4, 6}).to(dtype),
                 y = td::arange(0.f, 3, 0.5).to(dtype);
    const Tensor a = to_device(x), b = to_device(y);
    f(a, b, 0.5);
    const long before = simulator().there ? launches() : 0;
    const Tensor z = f(a, b, 0.75);
    if (simulator().there) CHECK(launches() == before + 1);
    CHECK(bits_of(z) == bits_of(f(x, y, 0.75)));
    CHECK(bits_of(f(a.transpose(0, 1), b.index({td::Slice{0, 4}}), 0.5)) ==
          bits_of(f(x.transpose(0, 1), y.index({td::Slice{0, 4}}), 0.5)));
  }
}

TEST_CASE("cuda user ops: gradients of a formula", "[cuda]") {
  need_device();
  const auto f = td::pointwise([](auto x, auto y) { return x * td::sigmoid(y) + y * y; });
  const auto gradients = [&](td::Device device) {
    const auto leaf = [&](double from, const td::Dims& sizes) {
      return td::arange(from, from + static_cast<double>(td::numel(sizes)))
          .reshape(sizes)
          .to(device)
          .requires_grad_();
    };
    const Tensor x = leaf(-3, {2, 3}), y = leaf(-1, {3});
    f(x, y).square().sum().backward();
    std::vector<char> bits = bits_of(x.grad());
    const std::vector<char> more = bits_of(y.grad());
    bits.insert(bits.end(), more.begin(), more.end());
    return bits;
  };
  CHECK(gradients(kCuda) == gradients(td::cpu));
}

TEST_CASE("cuda user ops: a kernel's text sees what it was promised", "[cuda]") {
  need_device();
  const td::Kernel rows({.name = "rows of a matrix",
                         .inputs = {"x", "w", "bias"},
                         .outputs = {"y", "total"},
                         .cuda = R"(
  __shared__ float parts[64];
  const int row = blockIdx.x;
  float sum = 0;
  for (int i = threadIdx.x; i < x_sizes[1]; i += blockDim.x) {
    const td_i64 at = row * x_sizes[1] + i;
    y[at] = plus(x[at] * w[i], (float)bias[0]);
    sum += y[at];
  }
  parts[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    float all = 0;
    for (int i = 0; i < blockDim.x; ++i) all += parts[i];
    total[row] = all + (x_count - y_count) + (count - w_count * x_sizes[0]);
  }
)",
                         .header = "static __device__ float plus(float a, float b) { return a + b; }",
                         .cpu =
                             [](const td::KernelCall& k) {
                               const int64_t rows = k.in_sizes()[0], columns = k.in_sizes()[1];
                               for (int64_t r = 0; r < rows; ++r) {
                                 float parts[64] = {};
                                 for (int64_t i = 0; i < columns; ++i) {
                                   const float v = k.input<float>()[r * columns + i] * k.input<float>(1)[i] +
                                                   static_cast<float>(*k.input<double>(2));
                                   k.output<float>()[r * columns + i] = v;
                                   parts[i % 64] += v;
                                 }
                                 float all = 0;
                                 for (const float p : parts) all += p;
                                 k.output<float>(1)[r] = all;
                               }
                             },
                         .infer =
                             [](std::span<const TensorType> in) {
                               std::vector<TensorType> out(2, in[0]);
                               out[1].sizes = {in[0].sizes[0]};
                               return out;
                             },
                         .launch =
                             [](std::span<const TensorType> in, std::span<const TensorType>) {
                               return td::KernelLaunch{.blocks = in[0].sizes[0], .threads = 64};
                             }});
  const Tensor x = td::arange(0.f, 300).reshape({100, 3}).transpose(0, 1), w = td::arange(1.f, 101),
               bias = td::scalar_tensor(0.5);
  const td::TensorList host = rows.call({x, w, bias}),
                       device = rows.call({to_device(x), to_device(w), to_device(bias)});
  CHECK(bits_of(device[0]) == bits_of(host[0]));
  CHECK(bits_of(device[1]) == bits_of(host[1]));
  auto step = td::trace([&](Tensor a, Tensor b, Tensor c) {
    const td::TensorList out = rows.call({a * 2.f, b, c});
    return out[0] + out[1].unsqueeze(1);
  });
  const auto eager = rows.call({x * 2.f, w, bias});
  for (int i = 0; i < 3; ++i)
    CHECK(bits_of(step(to_device(x), to_device(w), to_device(bias))) ==
          bits_of(eager[0] + eager[1].unsqueeze(1)));
  CHECK(step.report().op_by_op == 0);
  CHECK(rows.call({to_device(td::zeros({0, 3})), to_device(td::zeros({3})), to_device(bias)})[0].numel() ==
        0);
}

TEST_CASE("cuda user ops: a kernel of one thread an element, for each type", "[cuda]") {
  need_device();
  const td::Kernel fill({.name = "count_down",
                         .inputs = {"x", "start"},
                         .outputs = {"y"},
                         .cuda = "y[thread] = (float)(start[0] - thread);",
                         .cpu =
                             [](const td::KernelCall& k) {
                               for (int64_t i = 0; i < td::numel(k.out_sizes()); ++i)
                                 k.output<float>()[i] = static_cast<float>(*k.input<int64_t>(1) - i);
                             },
                         .infer =
                             [](std::span<const TensorType> in) {
                               std::vector<TensorType> out = {in[0]};
                               out[0].dtype = td::float32;
                               return out;
                             }});
  for (int i = 0; i < td::kDTypeCount; ++i) {
    const Tensor x = td::zeros({3, 100}).to(static_cast<td::DType>(i));
    CHECK(bits_of(fill(to_device(x), 7)) == bits_of(fill(x, 7)));
  }
}

TEST_CASE("cuda user ops: a kernel that cannot run says why, with its name and the line", "[cuda]") {
  need_device();
  const auto kernel =
      [](const char* name, const char* text,
         td::KernelLaunch (*launch)(std::span<const TensorType>, std::span<const TensorType>) = nullptr) {
        return td::Kernel({.name = name,
                           .inputs = {"x"},
                           .outputs = {"y"},
                           .cuda = text,
                           .cpu = [](const td::KernelCall&) {},
                           .launch = launch});
      };
  const Tensor x = to_device(td::zeros({4}));
  CHECK_THAT(message([&] { kernel("wrong_text", "y[thread] = no_such_thing(x[thread]);")(x); }),
             Contains("NVRTC did not compile the kernel \"wrong_text\"") && Contains("no_such_thing") &&
                 Contains("user_ops_test.cpp:"));
  CHECK_THAT(message([&] { kernel("cpu_only", "")(x); }), Contains("cpu_only: the kernel has no CUDA text"));
  CHECK_THAT(message([&] {
               kernel("too_wide", "y[0] = 1;", [](std::span<const TensorType>, std::span<const TensorType>) {
                 return td::KernelLaunch{.blocks = 1, .threads = 2048};
               })(x);
             }),
             Contains("too_wide: launch asks for 1 blocks of 2048 threads"));
}

TEST_CASE("cuda user ops: DLPack of a device's memory", "[cuda]") {
  need_device();
  const Tensor t = to_device(td::arange(0.f, 12).reshape({3, 4}).transpose(0, 1));
  td::dlpack::ManagedTensorVersioned* m = td::to_dlpack(t);
  CHECK(m->dl_tensor.device.device_type == td::dlpack::kCuda);
  CHECK(m->dl_tensor.device.device_id == 0);
  const Tensor back = td::from_dlpack(m);
  CHECK(back.device() == kCuda);
  CHECK(back.impl()->data == t.impl()->data);
  CHECK(bits_of(back) == bits_of(t));
  back.add_(1.f);
  CHECK(t.index({0, 0}).item<float>() == 1);
  const Tensor copy = td::from_dlpack(td::to_dlpack(t, {.read_only = true}));
  copy.add_(1.f);
  CHECK(t.index({0, 0}).item<float>() == 1);
  td::dlpack::ManagedTensorVersioned* far = td::to_dlpack(t);
  far->dl_tensor.device.device_id = 99;
  CHECK_THAT(message([&] { td::from_dlpack(far); }), Contains("there is no CUDA device 99"));
  const int64_t live = td::cuda::memory_stats().live_bytes;
  for (int i = 0; i < 100; ++i) td::from_dlpack(td::to_dlpack(to_device(td::ones({1000}))));
  CHECK(td::cuda::memory_stats().live_bytes == live);
}
