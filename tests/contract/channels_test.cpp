// Traps of layers that change their own buffers: running statistics of batch norm.
#include "tests/contract/trap.h"

using namespace programs;

TRAP("running statistics follow every call",
     "jax.jit, tf.function: state that the body changes is lost or stale", slot_writes) {
  td::nn::BatchNorm1d norm(3);
  auto step = run.wrap([&](Tensor x) { return norm(x); });
  for (int i = 0; i < 5; ++i) run.see(step(td::sin(range(12, float(i)).reshape({4, 3}))));
  run.see(norm.running_mean), run.see(norm.running_var), run.see(norm.num_batches_tracked);
  run.claim(step, [](const auto& r) { return r.recorded == 1 && r.plans == 1; });
}

TRAP("evaluation between steps of training",
     "pytorch: a compiled module that keeps the mode it was compiled in", slot_writes) {
  td::nn::BatchNorm1d norm(3, 1e-5, std::nullopt);
  auto step = run.wrap([&](Tensor x) { return norm(x); });
  for (int i = 0; i < 8; ++i) {
    norm.train(i % 3 != 2);
    run.see(step(td::sin(range(12, float(i)).reshape({4, 3}))));
  }
  run.see(norm.running_mean), run.see(norm.num_batches_tracked);
}
