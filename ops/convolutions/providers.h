// What the files of this folder share: each provider's entry. Calls arrive checked, with no size of 0 but for
// the loops. Any thread.
#pragma once

#include "tandem/ops/convolutions/convolutions.h"

namespace tandem::ops {

void convolution_loops(const ConvolutionCall& call);  // every dtype but bool
void convolution_tiles(const ConvolutionCall& call);  // float32, float64
/// oneDNN's ways: sums of products, or Winograd's (float32).
enum class OnednnWay : uint8_t { direct, winograd };
/// Shapes that onednn_convolves(); a gradient of x in bfloat16 has no bias.
void convolution_onednn(const ConvolutionCall& call, OnednnWay way);
/// Whether oneDNN has fast code for the shape in its dtype, float32 or bfloat16.
bool onednn_convolves(const ConvolutionShape& shape, OnednnWay way = OnednnWay::direct);
/// Whether a shape that is convolved so has enough work in each of its blocks for it to be faster.
bool winograd_pays(const ConvolutionShape& shape);
/// Of a shape that it convolves.
ConvolutionBlocks onednn_blocks(const ConvolutionShape& shape, OnednnWay way);
int64_t onednn_weight_nbytes(const ConvolutionShape& shape, OnednnWay way);
void onednn_lay_weight(const ConvolutionShape& shape, OnednnWay way, const void* w, void* to);

/// result (w_size, of the shape's dtype) = the sum of `count` arrays of that size, one after another, in
/// order, rounded once.
void join_weights(const ConvolutionShape& shape, const float* parts, int64_t count, void* result);
void join_weights(const ConvolutionShape& shape, const double* parts, int64_t count, double* result);

/// Sums over the batch are made in so many parts, of images [part * batch / parts, (part + 1) * batch /
/// parts).
inline int64_t batch_parts(const ConvolutionShape& s) { return s.batch < 8 ? s.batch : 8; }

}  // namespace tandem::ops
