#include "tandem/core/non_temporal.h"

#include <algorithm>
#include <cstring>
#ifdef __x86_64__
#include <emmintrin.h>
#endif

namespace tandem::core {

#ifdef __x86_64__
void copy_non_temporal(void* to, const void* from, int64_t bytes) {
  constexpr int64_t kLine = 64;
  auto* o = static_cast<char*>(to);
  const auto* p = static_cast<const char*>(from);
  const int64_t before =
      std::min(bytes, (kLine - static_cast<int64_t>(reinterpret_cast<uintptr_t>(o) % kLine)) % kLine);
  const int64_t end = before + (bytes - before) / kLine * kLine;
  std::memcpy(o, p, static_cast<size_t>(before));
  for (int64_t i = before; i < end; i += 16)
    _mm_stream_si128(reinterpret_cast<__m128i*>(o + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i)));
  std::memcpy(o + end, p + end, static_cast<size_t>(bytes - end));
}
void order_non_temporal() { _mm_sfence(); }
#else
void copy_non_temporal(void* to, const void* from, int64_t bytes) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
}
void order_non_temporal() {}
#endif

}  // namespace tandem::core
