// The threads of one block, as fibers of the calling thread: each runs until it waits for others, in a given
// order. A thread that never waits costs a call. One block at a time, under the driver's lock.
#pragma once

#include <string>
#include <vector>

#include "tests/sim_gpu/prelude_module.inc"

namespace sim_gpu {

/// The order in which the threads of a block take their turns.
struct ThreadOrder {
  std::vector<int> threads;          // all of them
  std::vector<signed char> lanes;    // per warp, its lanes in the same order; 32 entries, -1 for none
  std::vector<sim_index> positions;  // of thread i
};
enum class Order { forward, backward, permuted };
ThreadOrder thread_order(Order order, sim_index block);
/// The i-th of n in a fixed order.
unsigned long place(Order order, unsigned long i, unsigned long n);

/// Runs one block; "" or what is wrong with the kernel.
std::string run_block(const sim_module& module, const sim_kernel& kernel, void** parameters,
                      const ThreadOrder& order);

/// Called from a signal handler: the thread that runs, for the message.
sim_index running_thread();
/// After a block was left by a jump.
void forget_fibers();

/// Called by kernels that tell their accesses (launch.cpp).
void note_access(const void* address, unsigned bytes, bool written);

extern const sim_runtime kRuntime;

}  // namespace sim_gpu
