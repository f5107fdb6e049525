// Values of the device in TensorBoard's files and in log_scalar: those of the CPU.
#include "tandem/core/io/file.h"
#include "tests/core/scratch_folder.h"
#include "tests/cuda/on_device.h"
#include "tests/io/events.h"

namespace td = tandem;
using namespace tandem::test;

TEST_CASE("what is added of the device's tensors is what the CPU's give", "[cuda][tensorboard]") {
  const auto added = [](td::Device device) {
    ScratchFolder folder;
    td::tensorboard::Writer w(folder.path());
    int64_t step = 0;
    auto f = td::trace([&](td::Tensor x) {
      const td::Tensor y = x * 2.f;
      w.add_scalar("sum", y.sum(), step);
      w.add_histogram("y", y, step++);
      td::log_scalar(device == td::cpu ? "logs_test/cpu" : "logs_test/cuda", y.select(0, 0));
      return y;
    });
    for (int i = 0; i < 3; ++i) f((td::arange(0.f, 8, 1) * 0.5f * i).to(device));
    w.add_logged();
    w.flush();
    std::vector<std::vector<double>> all;
    for (const std::string file = td::core::read_file(w.path()); const Event& e : events(file)) {
      all.push_back({static_cast<double>(e.step), static_cast<double>(e.scalar), e.min, e.max, e.sum});
      all.push_back(e.counts);
    }
    return all;
  };
  need_device();
  td::take_scalars();
  const auto cpu = added(td::cpu);
  CHECK(cpu.size() == 2 * (1 + 6 + 3));
  const bool same = added(kCuda) == cpu;
  CHECK(same);
}

TEST_CASE("a logged value that cannot be read is told once, and the others are taken after it", "[cuda]") {
  need_device();
  td::take_scalars();
  const td::Tensor table = td::arange(0.f, 4).to(kCuda);
  td::log_scalar("logs_test/first", table.sum());
  td::cuda::synchronize();
  td::log_scalar("logs_test/bad", table.index_select(0, td::tensor({7}, {.dtype = td::int64}).to(kCuda)));
  td::log_scalar("logs_test/last", table.amax());
  int thrown = 0;
  std::vector<td::Scalar> all;
  for (; thrown < 3 && all.empty(); ++thrown) {
    try {
      all = td::take_scalars();
      break;
    } catch (const td::Error& e) {
      CHECK_THAT(std::string(e.what()), Contains("index_select"));
    }
  }
  CHECK(thrown == 1);
  REQUIRE(all.size() == 3);
  CHECK(all[0].value == 6);
  CHECK(all[2].value == 3);
}

TEST_CASE("nn::clone makes its module on the other's device", "[cuda]") {
  need_device();
  SmallNet net;
  net.to(kCuda);
  const auto copy = td::nn::clone(net);
  CHECK(copy->hidden.weight.device() == kCuda);
  CHECK(bits_of(copy->out.weight) == bits_of(net.out.weight));
  CHECK(copy->out.weight.impl()->data != net.out.weight.impl()->data);
  const td::Tensor x = td::ones({2, 16}).to(kCuda);
  CHECK(bits_of(copy->hidden(x)) == bits_of(net.hidden(x)));
}
