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
    for (int i = 0; i < 3; ++i) f((td::arange(0, 8, 1) * 0.5f * i).to(device));
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
