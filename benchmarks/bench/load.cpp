#include "benchmarks/bench/load.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>

namespace bench {

namespace {

struct Ticks {
  double idle = 0, all = 0;
};
Ticks ticks() {
  std::ifstream stat("/proc/stat");
  std::string cpu;
  stat >> cpu;
  Ticks t;
  constexpr int kFields = 8;  // user, nice, system, idle, iowait, irq, softirq, steal
  double n = 0;
  for (int i = 0; i < kFields && stat >> n; ++i) {
    t.all += n;
    if (i == 3 || i == 4) t.idle += n;
  }
  return t;
}

}  // namespace

void OthersLoad::sample(int milliseconds) {
  const Ticks before = ticks();
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  const Ticks after = ticks();
  const double all = after.all - before.all;
  busy_ += std::max(0.0, all - (after.idle - before.idle));
  all_ += all / std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace bench
