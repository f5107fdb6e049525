// Choice of a provider, and what all of them share: shapes of calls, half precision, joining parts; and the
// entries of the op table.
#include "tandem/ops/convolutions/convolutions.h"

#include <algorithm>
#include <string>

#include "tandem/core/bfloat.h"
#include "tandem/core/env.h"
#include "tandem/core/error.h"
#include "tandem/core/thread_pool.h"
#include "tandem/ops/convolutions/providers.h"
#include "tandem/ops/products/providers.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {
namespace {

constexpr int64_t kGrain = 32768;  // elements worth a thread

bool is_half(DType t) { return t == DType::float16 || t == DType::bfloat16; }

void widen(DType dtype, float* to, const void* from, int64_t n) {
  const auto* bits = static_cast<const uint16_t*>(from);
  core::parallel(n, kGrain, [&](int64_t begin, int64_t end) {
    if (dtype == DType::bfloat16)
      for (int64_t i = begin; i < end; ++i) to[i] = core::widened_bfloat(bits[i]);
    else
      for (int64_t i = begin; i < end; ++i) to[i] = half_to_float(bits[i]);
  });
}

void narrow(DType dtype, void* to, const float* from, int64_t n) {
  auto* bits = static_cast<uint16_t*>(to);
  core::parallel(n, kGrain, [&](int64_t begin, int64_t end) {
    if (dtype == DType::bfloat16)
      for (int64_t i = begin; i < end; ++i) bits[i] = core::rounded_to_bfloat(from[i]);
    else
      for (int64_t i = begin; i < end; ++i) bits[i] = float_to_half(from[i]);
  });
}

void convolve_half(const ConvolutionCall& call, ConvolutionProvider provider);

/// The shape with operands and result in float32.
ConvolutionShape widened(ConvolutionShape shape) {
  shape.dtype = DType::float32;
  return shape;
}

OnednnWay way_of(ConvolutionProvider provider) {
  return provider == ConvolutionProvider::winograd ? OnednnWay::winograd : OnednnWay::direct;
}

bool is_winograd(const ConvolutionShape& s) {
  constexpr ConvolutionShape::Axes kKernel = {1, 3, 3}, kOnes = {1, 1, 1};
  const auto same = [](const ConvolutionShape::Axes& a, const ConvolutionShape::Axes& b) {
    return std::equal(std::begin(a), std::end(a), std::begin(b));
  };
  return s.groups == 1 && same(s.kernel, kKernel) && same(s.stride, kOnes) && same(s.dilation, kOnes);
}

/// Whether the provider reads halves as they are. A bias behind a gradient of x would be a second rounding.
bool takes_halves(ConvolutionProvider provider, const ConvolutionCall& call) {
  return provider == ConvolutionProvider::onednn && onednn_convolves(call.shape) &&
         !(call.bias && call.shape.direction == ConvolutionDirection::input);
}

void convolve_by(const ConvolutionCall& call, ConvolutionProvider provider) {
  const bool blocked = call.shape.x_block != 0 || call.shape.y_block != 0;
  TANDEM_INTERNAL(!blocked || takes_blocks(provider), "blocks of channels for another provider");
  TANDEM_INTERNAL(!call.own_weight || own_weight_nbytes(call.shape) > 0,
                  "a weight in a layout that the provider does not compute in");
  if (call.shape.result_size() == 0) return;
  if (is_half(call.shape.dtype) && !takes_halves(provider, call)) return convolve_half(call, provider);
  switch (provider) {
    case ConvolutionProvider::onednn:
    case ConvolutionProvider::winograd:
      return convolution_onednn(call, way_of(provider));
    case ConvolutionProvider::tiles:
      return convolution_tiles(call);
    case ConvolutionProvider::loops:
      return convolution_loops(call);
  }
}

/// Operands become float32, the convolution stays float32 to the end and is rounded once.
void convolve_half(const ConvolutionCall& call, ConvolutionProvider provider) {
  const ConvolutionShape& s = call.shape;
  constexpr int64_t kSize = sizeof(float);
  const int64_t biases = !call.bias                                     ? 0
                         : s.direction == ConvolutionDirection::forward ? s.outputs
                                                                        : s.channels;
  const Scratch x(call.x ? s.x_size() * kSize : 0), w(call.w ? s.w_size() * kSize : 0),
      y(call.y ? s.y_size() * kSize : 0), bias(biases * kSize), result(s.result_size() * kSize);
  if (call.x) widen(s.dtype, x.as<float>(), call.x, s.x_size());
  if (call.w) widen(s.dtype, w.as<float>(), call.w, s.w_size());
  if (call.y) widen(s.dtype, y.as<float>(), call.y, s.y_size());
  if (call.bias) widen(s.dtype, bias.as<float>(), call.bias, biases);
  const ConvolutionCall wide{widened(s),       x.as<float>(),      w.as<float>(), y.as<float>(),
                             bias.as<float>(), result.as<float>(), false};
  convolve_by(wide, provider_takes(provider, wide.shape) ? provider : choose_provider(wide.shape));
  narrow(s.dtype, call.result, result.as<float>(), s.result_size());
}

template <class T>
void join(const ConvolutionShape& s, const T* parts, int64_t count, T* result) {
  const int64_t n = s.w_size();
  core::parallel(n, kGrain, [&](int64_t begin, int64_t end) {
    std::copy(parts + begin, parts + end, result + begin);
    for (int64_t p = 1; p < count; ++p)
      for (int64_t i = begin; i < end; ++i) result[i] += parts[p * n + i];
  });
}

void set_axes(ConvolutionShape::Axes& axes, const Dims& from, int first, int n) {
  for (int i = 0; i < n; ++i) axes[kConvolutionAxes - n + i] = from[first + i];
}

void run(const NativeCall& c, OpId op) {
  ConvolutionCall call;
  call.shape = convolution_shape(def(op), c.in_types, c.out_types[0], c.words);
  call.result = c.out[0];
  call.own_weight = c.own_layout;
  switch (call.shape.direction) {
    case ConvolutionDirection::forward:
      call.x = c.in[0], call.w = c.in[1], call.bias = c.in[2];
      break;
    case ConvolutionDirection::input:
      call.y = c.in[0], call.w = c.in[1], call.bias = c.in[2];
      break;
    case ConvolutionDirection::weight:
      call.x = c.in[0], call.y = c.in[1];
      break;
  }
  convolve(call);
}

}  // namespace

void join_weights(const ConvolutionShape& shape, const float* parts, int64_t count, void* result) {
  if (shape.dtype == DType::float32) return join(shape, parts, count, static_cast<float*>(result));
  const Scratch sum(shape.w_size() * static_cast<int64_t>(sizeof(float)));
  join(shape, parts, count, sum.as<float>());
  narrow(shape.dtype, result, sum.as<float>(), shape.w_size());
}
void join_weights(const ConvolutionShape& shape, const double* parts, int64_t count, double* result) {
  join(shape, parts, count, result);
}

ConvolutionShape convolution_shape(const OpDef& op, std::span<const TensorType> in, const TensorType& result,
                                   Words words) {
  ConvolutionShape s;
  const TensorType *x = &in[0], *w = &in[1], *y = &result;
  if (op.id == OpId::convolution_input) {
    s.direction = ConvolutionDirection::input;
    x = &result, y = &in[0];
  } else if (op.id == OpId::convolution_weight) {
    s.direction = ConvolutionDirection::weight;
    y = &in[1], w = &result;
  }
  const InferCall call{op, in, {}, words, {}};
  s.dtype = result.dtype;
  s.groups = call.integer(0);
  s.tf32 = call.integer(1) != 0;
  const int axes = call.list(2).rank();
  const auto block = [&](const Dims& sizes) { return sizes.rank() > axes + 2 ? sizes[axes + 2] : 0; };
  s.x_block = block(x->sizes);
  s.y_block = block(y->sizes);
  s.batch = x->sizes[0];
  s.channels = x->sizes[1] * std::max<int64_t>(1, s.x_block);
  s.outputs = y->sizes[1] * std::max<int64_t>(1, s.y_block);
  set_axes(s.in, x->sizes, 2, axes);
  set_axes(s.out, y->sizes, 2, axes);
  set_axes(s.kernel, w->sizes, w->sizes.rank() - axes, axes);
  set_axes(s.stride, call.list(2), 0, axes);
  set_axes(s.padding, call.list(3), 0, axes);
  set_axes(s.dilation, call.list(4), 0, axes);
  return s;
}

const char* name(ConvolutionProvider provider) {
  switch (provider) {
    case ConvolutionProvider::onednn:
      return "onednn";
    case ConvolutionProvider::winograd:
      return "winograd";
    case ConvolutionProvider::tiles:
      return "tiles";
    case ConvolutionProvider::loops:
      return "loops";
  }
  internal_error("name of an unknown provider of convolutions");
}

bool provider_takes(ConvolutionProvider provider, const ConvolutionShape& shape) {
  const bool blocked = shape.x_block != 0 || shape.y_block != 0;
  switch (provider) {
    case ConvolutionProvider::onednn:
      return onednn_convolves(shape) || (is_half(shape.dtype) && onednn_convolves(widened(shape)));
    case ConvolutionProvider::winograd:
      return (shape.dtype == DType::float32 || is_half(shape.dtype)) && is_winograd(shape) &&
             onednn_convolves(widened(shape), OnednnWay::winograd);
    case ConvolutionProvider::tiles:
      return !blocked && !shape.empty() && is_floating(shape.dtype);
    case ConvolutionProvider::loops:
      return !blocked && shape.dtype != DType::bool_;
  }
  internal_error("shapes of an unknown provider of convolutions");
}

ConvolutionProvider choose_provider(const ConvolutionShape& shape) {
  constexpr double kManyFlops = 200000;  // below, what a call of oneDNN costs at all weighs more
  if (!is_floating(shape.dtype) || shape.empty()) return ConvolutionProvider::loops;
  // Measured: oneDNN has no good code for the gradient of few channels, but for groups of one channel each.
  constexpr int64_t kFewChannels = 8;
  const bool thin = shape.direction == ConvolutionDirection::input && shape.group_channels() < kFewChannels &&
                    (shape.groups == 1 || shape.groups != shape.channels);
  if (shape.flops() < kManyFlops || thin) return ConvolutionProvider::tiles;
  const auto multiplied_as_half = [&] { return is_half(shape.dtype) && onednn_convolves(shape); };
  if (core::environment().winograd && is_winograd(shape) && winograd_pays(shape) && !multiplied_as_half() &&
      provider_takes(ConvolutionProvider::winograd, shape))
    return ConvolutionProvider::winograd;
  if (provider_takes(ConvolutionProvider::onednn, shape)) return ConvolutionProvider::onednn;
  return ConvolutionProvider::tiles;
}

ConvolutionBlocks own_blocks(const ConvolutionShape& shape) {
  const ConvolutionProvider provider = choose_provider(shape);
  if (shape.dtype != DType::float32 || !takes_blocks(provider)) return {};
  return onednn_blocks(shape, way_of(provider));
}

int64_t own_weight_nbytes(const ConvolutionShape& shape) {
  const bool as_it_is =
      shape.dtype == DType::float32 || (shape.dtype == DType::bfloat16 && onednn_convolves(shape));
  const ConvolutionProvider provider = choose_provider(shape);
  if (!as_it_is || shape.direction != ConvolutionDirection::forward || !takes_blocks(provider)) return 0;
  return onednn_weight_nbytes(shape, way_of(provider));
}

void lay_weight(const ConvolutionShape& shape, const void* w, void* to) {
  TANDEM_INTERNAL(own_weight_nbytes(shape) > 0, "a layout for a weight that has none of its own");
  onednn_lay_weight(shape, way_of(choose_provider(shape)), w, to);
}

void convolve(const ConvolutionCall& call) { convolve_by(call, choose_provider(call.shape)); }

void convolve(const ConvolutionCall& call, ConvolutionProvider provider) {
  const ConvolutionShape& s = call.shape;
  if (!provider_takes(provider, s))
    fail(std::string("convolution: ") + name(provider) + " does not take this shape of " + name(s.dtype));
  TANDEM_INTERNAL(!call.own_weight || provider == choose_provider(s), "a weight laid for another provider");
  convolve_by(call, provider);
}

void native::convolution(const NativeCall& c) { run(c, OpId::convolution); }
void native::convolution_input(const NativeCall& c) { run(c, OpId::convolution_input); }
void native::convolution_weight(const NativeCall& c) { run(c, OpId::convolution_weight); }

}  // namespace tandem::ops
