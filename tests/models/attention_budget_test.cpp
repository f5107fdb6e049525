// What the plan of GNMT's attention costs, by counts.
#include "samples/models/gnmt.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Tensor;

TEST_CASE("additive attention stores nothing of the size of its scores times its width", "[tracer]") {
  constexpr int64_t kBatch = 16, kQueries = 40, kKeys = 52, kWidth = 260;
  td::manual_seed(5);
  const samples::BahdanauAttention net(kWidth);
  const Tensor q = td::rand({kBatch, kQueries, kWidth}), k = td::rand({kBatch, kKeys, kWidth});
  q.requires_grad_();
  k.requires_grad_();
  auto step = td::trace(
      [&](const Tensor& mask) {
        for (const Tensor& p : net.parameters()) p.zero_grad();
        q.zero_grad();
        k.zero_grad();
        const Tensor loss = net.forward(q, k, mask).square().mean();
        loss.backward();
        return loss.detach();
      },
      {.verify = 1});
  const Tensor mask = td::zeros({kBatch, 1, kKeys}, {.dtype = td::bool_});
  step(mask);
  step(mask);
  const td::TraceReport r = step.report();
  INFO(r);
  constexpr int64_t kAll = kBatch * kQueries * kKeys * kWidth * 4;  // bytes, more than caches hold
  CHECK(r.arena_bytes < kAll / 2);
  CHECK(r.bytes_moved < 4 * kAll);
  CHECK(r.entries <= 16);
}
