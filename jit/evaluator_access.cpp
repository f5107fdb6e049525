// Ranges of a strided access. The position is taken apart once; then runs along the innermost merged
// dimension are copied, with an odometer between them. A range that repeats (outer stride 0) is copied from
// its own first period.
#include "tandem/jit/evaluator_access.h"

#include <algorithm>
#include <cstring>

namespace tandem::jit {

namespace {

/// A position in a walk, advanced by runs along the innermost dimension.
class Odometer {
 public:
  Odometer(const Walk& w, int64_t at) : w_(w) {
    for (int d = w.rank - 1; d > 0; --d) {
      at_[d] = at % w.dims[d];
      at /= w.dims[d];
      offset_ += at_[d] * w.strides[d];
    }
    at_[0] = at;
    offset_ += at * w.strides[0];
  }
  int64_t offset() const { return offset_; }
  int64_t run() const { return w_.dims[w_.rank - 1] - at_[w_.rank - 1]; }
  void advance(int64_t n) {
    int d = w_.rank - 1;
    at_[d] += n;
    offset_ += n * w_.strides[d];
    for (; d > 0 && at_[d] == w_.dims[d]; --d) {
      at_[d] = 0;
      offset_ += w_.strides[d - 1] - w_.dims[d] * w_.strides[d];
      ++at_[d - 1];
    }
  }

 private:
  const Walk& w_;
  int64_t offset_ = 0;
  int64_t at_[kMaxWalkRank];
};

template <class T>
void copy_run(T* to, const T* from, int64_t stride, int64_t n) {
  if (stride == 1 && n >= 16) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
  } else if (stride == 0) {
    std::fill_n(to, n, *from);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = from[i * stride];
  }
}

/// f(position in the range, offset, elements) for each run.
template <class F>
void for_runs(const Walk& w, int64_t at, int64_t n, const F& f) {
  if (w.rank == 0) {
    f(int64_t{0}, int64_t{0}, n);
    return;
  }
  Odometer o(w, at);
  for (int64_t i = 0; i < n;) {
    const int64_t run = std::min(n - i, o.run());
    f(i, o.offset(), run);
    i += run;
    if (i < n) o.advance(run);
  }
}

int64_t inner_stride(const Walk& w) { return w.rank == 0 ? 0 : w.strides[w.rank - 1]; }

template <class T>
void read(const Walk& w, int64_t at, int64_t n, T* to) {
  const T* base = reinterpret_cast<const T*>(w.base);
  const int64_t stride = inner_stride(w);
  const bool repeats = w.rank == 2 && w.strides[0] == 0 && n > w.dims[1];
  const int64_t first = repeats ? w.dims[1] : n;
  for_runs(w, at, first,
           [&](int64_t i, int64_t offset, int64_t run) { copy_run(to + i, base + offset, stride, run); });
  for (int64_t done = first; done < n;) {
    const int64_t more = std::min(done, n - done);
    std::memcpy(to + done, to, static_cast<size_t>(more) * sizeof(T));
    done += more;
  }
}

template <class T>
void write(const Walk& w, int64_t at, int64_t n, const T* from) {
  T* base = reinterpret_cast<T*>(w.base);
  const int64_t stride = inner_stride(w);
  for_runs(w, at, n, [&](int64_t i, int64_t offset, int64_t run) {
    T* to = base + offset;
    if (stride == 1) {
      std::memcpy(to, from + i, static_cast<size_t>(run) * sizeof(T));
    } else {
      for (int64_t k = 0; k < run; ++k) to[k * stride] = from[i + k];
    }
  });
}

template <class T>
void picked(const Walk& w, int64_t at, int64_t n, const int64_t* index, const Pick& pick, T* to) {
  const T* base = reinterpret_cast<const T*>(w.base);
  const int64_t stride = inner_stride(w);
  for_runs(w, at, n, [&](int64_t i, int64_t offset, int64_t run) {
    const int64_t* k = index + i;
    const T* from = base + offset;
    if (pick.extent <= 0) {
      for (int64_t j = 0; j < run; ++j) pick.offset(k[j]);
      std::fill_n(to + i, run, T{});
      return;
    }
    int64_t other = 0;  // whole rows are taken by one index: an embedding
    for (int64_t j = 1; j < run; ++j) other |= k[j] ^ k[0];
    if (other == 0 && run > 1) {
      copy_run(to + i, from + pick.offset(k[0]), stride, run);
    } else {
      for (int64_t j = 0; j < run; ++j) to[i + j] = from[j * stride + pick.offset(k[j])];
    }
  });
}

}  // namespace

void set_walk(Walk& w, const int64_t* dims, const int64_t* strides, int rank) {
  int r = 0;
  for (int d = 0; d < rank; ++d) {
    if (dims[d] == 1) continue;
    if (r > 0 && w.strides[r - 1] == strides[d] * dims[d]) {
      w.dims[r - 1] *= dims[d];
      w.strides[r - 1] = strides[d];
    } else {
      w.dims[r] = dims[d];
      w.strides[r++] = strides[d];
    }
  }
  w.rank = r == 1 && w.strides[0] == 0 ? 0 : r;
}

int64_t walk_offset(const Walk& w, int64_t at) {
  if (w.rank <= 1) return w.rank == 0 ? 0 : at * w.strides[0];
  int64_t offset = 0;
  for (int d = w.rank - 1; d > 0; --d) {
    offset += at % w.dims[d] * w.strides[d];
    at /= w.dims[d];
  }
  return offset + at * w.strides[0];
}

char* walk_direct(const Walk& w, int64_t at, int64_t n) {
  if (w.rank == 1 && (w.strides[0] == 1 || n == 1)) return w.base + at * w.strides[0] * w.itemsize;
  if (w.rank == 0) return n == 1 ? w.base : nullptr;
  if (n > 1 && (inner_stride(w) != 1 || w.rank == 1)) return nullptr;
  const int64_t inner = w.dims[w.rank - 1];
  if (at % inner + n > inner) return nullptr;
  return w.base + walk_offset(w, at) * w.itemsize;
}

void walk_read(const Walk& w, int64_t at, int64_t n, void* to) {
  switch (w.itemsize) {
    case 1:
      return read(w, at, n, static_cast<uint8_t*>(to));
    case 2:
      return read(w, at, n, static_cast<uint16_t*>(to));
    case 4:
      return read(w, at, n, static_cast<uint32_t*>(to));
    default:
      return read(w, at, n, static_cast<uint64_t*>(to));
  }
}

void walk_write(const Walk& w, int64_t at, int64_t n, const void* from) {
  switch (w.itemsize) {
    case 1:
      return write(w, at, n, static_cast<const uint8_t*>(from));
    case 2:
      return write(w, at, n, static_cast<const uint16_t*>(from));
    case 4:
      return write(w, at, n, static_cast<const uint32_t*>(from));
    default:
      return write(w, at, n, static_cast<const uint64_t*>(from));
  }
}

void walk_pick(const Walk& w, int64_t at, int64_t n, const int64_t* index, const Pick& pick, void* to) {
  switch (w.itemsize) {
    case 1:
      return picked(w, at, n, index, pick, static_cast<uint8_t*>(to));
    case 2:
      return picked(w, at, n, index, pick, static_cast<uint16_t*>(to));
    case 4:
      return picked(w, at, n, index, pick, static_cast<uint32_t*>(to));
    default:
      return picked(w, at, n, index, pick, static_cast<uint64_t*>(to));
  }
}

}  // namespace tandem::jit
