// What the files of this folder share: each provider's entry. Calls arrive checked, with no size of 0 but for
// the loops. Any thread.
#pragma once

#include "tandem/ops/convolutions/convolutions.h"

namespace tandem::ops {

void convolution_loops(const ConvolutionCall& call);   // every dtype but bool
void convolution_tiles(const ConvolutionCall& call);   // float32, float64
void convolution_onednn(const ConvolutionCall& call);  // float32
/// Whether oneDNN has fast code for the shape in float32.
bool onednn_convolves(const ConvolutionShape& shape);

/// result (w_size) = the sum of `count` arrays of that size, one after another, in order.
void join_weights(const ConvolutionShape& shape, const float* parts, int64_t count, float* result);
void join_weights(const ConvolutionShape& shape, const double* parts, int64_t count, double* result);

/// Sums over the batch are made in so many parts, of images [part * batch / parts, (part + 1) * batch /
/// parts).
inline int64_t batch_parts(const ConvolutionShape& s) { return s.batch < 8 ? s.batch : 8; }

}  // namespace tandem::ops
