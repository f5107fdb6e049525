#include <algorithm>

#include "tandem/core/error.h"
#include "tandem/core/thread_pool.h"
#include "tandem/jit/channel_blocks.h"
#include "tandem/ops/user_ops.h"

namespace tandem::jit {

namespace {

constexpr int64_t kGrain = 32768;  // elements worth a thread

/// Of (N, C / b, *in, b).
struct BlockedSizes {
  explicit BlockedSizes(const Dims& x) : images(x[0]), blocks(x[1]), block(x[x.rank() - 1]) {
    for (int d = 2; d < x.rank() - 1; ++d) positions *= x[d];
  }
  int64_t images, blocks, positions = 1, block;
};

/// Calls one(offset) with where each image's block of channels begins, in either layout; there are positions.
template <class F>
void for_blocks(const BlockedSizes& s, F one) {
  const int64_t size = s.positions * s.block;
  core::parallel(s.images * s.blocks, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, size)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) one(i * size);
                 });
}

template <class T>
void to_blocks_of(const ops::NativeCall& c) {
  const BlockedSizes s(c.out_sizes());
  for_blocks(s, [&](int64_t offset) {
    const T* from = static_cast<const T*>(c.in[0]) + offset;
    T* to = static_cast<T*>(c.out[0]) + offset;
    for (int64_t p = 0; p < s.positions; ++p)
      for (int64_t k = 0; k < s.block; ++k) *to++ = from[k * s.positions + p];
  });
}
template <class T>
void from_blocks_of(const ops::NativeCall& c) {
  const BlockedSizes s(c.in_sizes());
  for_blocks(s, [&](int64_t offset) {
    const T* from = static_cast<const T*>(c.in[0]) + offset;
    T* to = static_cast<T*>(c.out[0]) + offset;
    for (int64_t k = 0; k < s.block; ++k)
      for (int64_t p = 0; p < s.positions; ++p) *to++ = from[p * s.block + k];
  });
}
template <void (*kSmall)(const ops::NativeCall&), void (*kLarge)(const ops::NativeCall&)>
void by_size(const ops::NativeCall& c) {
  const int64_t size = itemsize(c.in_types[0].dtype);
  TANDEM_INTERNAL(size == 1 || size == 4, "elements of this size are not put into blocks");
  size == 1 ? kSmall(c) : kLarge(c);
}

using Types = std::vector<TensorType>;

template <int64_t kBlock>
Types blocked_type(std::span<const TensorType> in) {
  TensorType t = in[0];
  TANDEM_INTERNAL(t.sizes[1] % kBlock == 0, "channels that do not fill blocks");
  t.sizes[1] /= kBlock;
  t.sizes.push_back(kBlock);
  return {t};
}
Types plain_type(std::span<const TensorType> in) {
  TensorType t = in[0];
  t.sizes[1] *= t.sizes[t.sizes.rank() - 1];
  t.sizes.resize(t.sizes.rank() - 1);
  return {t};
}
OpId kernel(const char* name, void (*cpu)(const ops::NativeCall&),
            Types (*infer)(std::span<const TensorType>)) {
  ops::KernelDef k;
  k.name = name, k.inputs = {"x"}, k.outputs = {"y"}, k.cpu = cpu, k.infer = infer;
  return ops::register_kernel(std::move(k));
}

}  // namespace

OpId to_blocks(int64_t block) {
  constexpr auto kCpu = by_size<to_blocks_of<uint8_t>, to_blocks_of<uint32_t>>;
  static const OpId of_8 = kernel("to_blocks_of_8", kCpu, blocked_type<8>),
                    of_16 = kernel("to_blocks_of_16", kCpu, blocked_type<16>);
  return block == 16 ? of_16 : of_8;
}

OpId from_blocks() {
  static const OpId op =
      kernel("from_blocks", by_size<from_blocks_of<uint8_t>, from_blocks_of<uint32_t>>, plain_type);
  return op;
}

bool lays_out_channels(OpId op) { return op == to_blocks(8) || op == to_blocks(16) || op == from_blocks(); }

}  // namespace tandem::jit
