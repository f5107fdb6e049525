// Pageable memory of the host is the caller's again when a copy to the device returns, though the driver may
// read it when the copy's turn comes.
#include <algorithm>

#include "tandem/core/storage.h"
#include "tests/cuda/lazy.h"
#include "tests/cuda/on_device.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

TEST_CASE("cuda copies: what pageable memory becomes behind a copy is not seen on the device", "[cuda]") {
  need_device();
  const Lazy late(2);
  const std::vector<float> values = {1, 2, 3, 4};

  Tensor own = td::tensor(values);
  const Tensor of_own = own.to(kCuda), without_waiting = own.to(kCuda, true);
  own.fill_(9.0);

  std::vector<float> memory = values;
  const Tensor of_users = td::from_blob(memory.data(), {4}).to(kCuda);
  std::fill(memory.begin(), memory.end(), 9.f);

  const Tensor below = td::zeros({4}, {.device = kCuda});
  memory = values;
  td::core::copy_in(*below.impl()->storage, memory.data(), 16);
  std::fill(memory.begin(), memory.end(), 9.f);

  for (const Tensor& t : {of_own, without_waiting, of_users, below}) CHECK(t.to_vector<float>() == values);
}
