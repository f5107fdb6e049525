// A matrix product in the simplest way that is not slow: D = alpha op(A) op(B) + beta C (+ bias), batch by
// batch, each sum in ascending order of the inner index, in float32 (float64 for doubles). Plain data and one
// function without state; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sim_gpu {

struct Matrix {
  int type = 0;   // cudaDataType_t
  int order = 0;  // 0: columns lie together, 1: rows
  uint64_t rows = 0, columns = 0;
  int64_t leading = 0;
  int batch = 1;
  int64_t batch_stride = 0;  // in elements

  size_t element_bytes() const;
  /// From the first element of the first matrix to the end of the last one's last.
  size_t span_bytes() const;
};

struct ProductData {
  Matrix a, b, c, d;
  const void *a_data, *b_data, *c_data;
  void* d_data;
  const void* bias;  // one element of D's type per row; null for none
  double alpha, beta;
  int transpose_a, transpose_b;
  bool tf32;          // operands keep 10 bits of the mantissa
  int algorithm;      // 0: as above; others add in descending order
  bool rounds_parts;  // sums are made in two parts, each of D's type
  void* workspace;
  size_t workspace_bytes;
};

void run_product(const ProductData& p);

}  // namespace sim_gpu
