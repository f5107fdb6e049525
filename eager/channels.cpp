#include "tandem/eager/channels.h"

#include <cmath>

#include "tandem/eager/call.h"
#include "tandem/eager/checkpoint.h"

namespace tandem {

using eager::CallBuilder;
using ops::OpId;

namespace {

/// running = (1 - momentum) * running + momentum * found, without history; once, although a checkpoint
/// computes the batch's again.
void follow(const Tensor& running, const Tensor& found, const Operand& momentum, Location where) {
  if (autograd::recomputing()) return;
  const NoGrad no_grad;
  const Tensor same = found.to(running.dtype(where), where);
  CallBuilder(OpId::lerp, where).in(running).in(same).in(momentum).run_in_place();
}

/// Both or neither, each floating of shape (C).
void check_statistics(const char* op, const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                      Location where) {
  if (running_mean.defined() != running_var.defined())
    fail(std::string(op) + ": give both of running_mean and running_var or neither", where);
  if (!running_mean.defined() || x.dim(where) < 2) return;
  const Dims channels = {x.size(1, where)};
  for (const Tensor* t : {&running_mean, &running_var})
    if (!(t->sizes() == channels) || !is_floating(t->dtype()))
      fail(std::string(op) + (t == &running_mean ? ": running_mean" : ": running_var") +
               " must be floating of shape " + to_string(channels) + ", found " + name(t->dtype()) +
               to_string(t->sizes()),
           where);
}

Tensor channel_dropout(const char* op, const Tensor& x, int spatial, double p, bool training,
                       Location where) {
  const int rank = x.dim(where);
  if (rank != spatial + 1 && rank != spatial + 2)
    fail(std::string(op) + ": x must have " + std::to_string(spatial) +
             (spatial == 2 ? " axes or one behind (N, C)" : " axes behind (N, C) or (C)") + ", found shape " +
             to_string(x.sizes()),
         where);
  if (!(p >= 0 && p <= 1))
    fail(std::string(op) + ": p must lie in [0, 1], found " + std::to_string(p), where);
  if (!training || p == 0) return x;
  Dims sizes = x.sizes();
  const bool batched = rank == spatial + 2 || spatial == 2;
  for (int i = batched ? 2 : 1; i < rank; ++i) sizes[i] = 1;
  const Tensor all = ones(sizes, {.dtype = x.dtype(), .device = x.device()}, where);
  const Tensor kept = dropout(all, p, true, where);
  return mul(Operand(x, where), Operand(kept, where));
}

}  // namespace

Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                  const Tensor& weight, const Tensor& bias, bool training, const Operand& momentum,
                  double eps, Location where) {
  check_statistics("batch_norm", x, running_mean, running_var, where);
  if (!training) {
    if (!running_mean.defined()) fail("batch_norm: running statistics are needed outside of training", where);
    return CallBuilder(OpId::batch_norm, where)
        .in(x)
        .in(running_mean)
        .in(running_var)
        .in(weight)
        .in(bias)
        .floating(eps)
        .run();
  }
  core::Ref<core::TensorImpl> out[4];
  CallBuilder(OpId::batch_norm_train, where).in(x).in(weight).in(bias).floating(eps).run_into(out);
  if (running_mean.defined() && x.numel() > 0) {  // nothing is no batch
    follow(running_mean, Tensor(std::move(out[1])), momentum, where);
    follow(running_var, Tensor(std::move(out[3])), momentum, where);
  }
  return Tensor(std::move(out[0]));
}

Tensor instance_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                     const Tensor& weight, const Tensor& bias, bool use_input_stats, const Operand& momentum,
                     double eps, Location where) {
  if (x.dim(where) < 3)
    fail("instance_norm: x must be (N, C, L, ...), found shape " + to_string(x.sizes()), where);
  check_statistics("instance_norm", x, running_mean, running_var, where);
  if (!use_input_stats)
    return batch_norm(x, running_mean, running_var, weight, bias, false, momentum, eps, where);
  const int64_t rows = x.size(0) * x.size(1);
  if (rows > 0 && x.numel() == rows)
    fail("instance_norm: more than one value per channel is needed in training, found shape " +
             to_string(x.sizes()),
         where);
  const Tensor y = group_norm(x, x.size(1), weight, bias, eps, where);
  if (running_mean.defined() && x.numel() > 0) {
    const NoGrad no_grad;
    const Tensor flat = x.flatten(2, -1, where);
    const Tensor wide = is_floating(x.dtype()) && itemsize(x.dtype()) < 4 ? flat.to(float32, where) : flat;
    const Tensor mean = wide.mean({2}, false, where);
    const Tensor variance = wide.var({2}, 1, false, where);
    follow(running_mean, mean.mean({0}, false, where), momentum, where);
    follow(running_var, variance.mean({0}, false, where), momentum, where);
  }
  return y;
}

Tensor dropout1d(const Tensor& x, double p, bool training, Location where) {
  return channel_dropout("dropout1d", x, 1, p, training, where);
}
Tensor dropout2d(const Tensor& x, double p, bool training, Location where) {
  return channel_dropout("dropout2d", x, 2, p, training, where);
}
Tensor dropout3d(const Tensor& x, double p, bool training, Location where) {
  return channel_dropout("dropout3d", x, 3, p, training, where);
}

namespace {

/// x where `kept` is not 0, else SELU's limit; scaled and shifted to the mean and the variance of before.
Tensor alpha_kept(const Tensor& x, const Tensor& kept, double p, Location where) {
  constexpr double kLimit = -1.7580993408473766;  // -scale * alpha of selu
  const double scale = 1 / std::sqrt((kLimit * kLimit * p + 1) * (1 - p));
  const Tensor held = ne(Operand(kept, where), Operand(0, where));
  const Tensor chosen = tandem::where(Operand(held, where), Operand(x, where), Operand(kLimit, where));
  return add(Operand(mul(Operand(chosen, where), Operand(scale, where)), where),
             Operand(-kLimit * scale * p, where));
}

Tensor alpha_dropout_over(const char* op, const Tensor& x, const Dims& sizes, double p, bool training,
                          Location where) {
  if (!(p >= 0 && p <= 1))
    fail(std::string(op) + ": p must lie in [0, 1], found " + std::to_string(p), where);
  if (!training || p == 0) return x;
  if (p == 1) return mul(Operand(x, where), Operand(0, where));
  const Tensor all = ones(sizes, {.dtype = x.dtype(), .device = x.device()}, where);
  return alpha_kept(x, dropout(all, p, true, where), p, where);
}

}  // namespace

Tensor alpha_dropout(const Tensor& x, double p, bool training, Location where) {
  return alpha_dropout_over("alpha_dropout", x, x.sizes(where), p, training, where);
}
Tensor feature_alpha_dropout(const Tensor& x, double p, bool training, Location where) {
  Dims sizes = x.sizes(where);
  if (sizes.rank() < 2)
    fail("feature_alpha_dropout: x must be (N, C, ...), found shape " + to_string(sizes), where);
  for (int i = 2; i < sizes.rank(); ++i) sizes[i] = 1;
  return alpha_dropout_over("feature_alpha_dropout", x, sizes, p, training, where);
}

Tensor rrelu(const Tensor& x, double lower, double upper, bool training, Location where) {
  if (!(lower <= upper) || !std::isfinite(upper - lower))
    fail("rrelu: the bounds must be finite, the lower one first, found " + std::to_string(lower) + " and " +
             std::to_string(upper),
         where);
  if (!training) return leaky_relu(x, (lower + upper) / 2, where);
  if (!is_floating(x.dtype(where)))
    fail(std::string("rrelu: a floating type is needed, found ") + name(x.dtype()), where);
  const DType drawn = x.dtype() == float64 ? float64 : float32;
  const Tensor uniform = rand(x.sizes(), {.dtype = drawn, .device = x.device()}, nullptr, where);
  const Tensor wide = mul(Operand(uniform, where), Operand(upper - lower, where));
  const Tensor slope = add(Operand(wide, where), Operand(lower, where)).to(x.dtype(), where);
  const Tensor positive = gt(Operand(x, where), Operand(0, where));
  const Tensor sloped = mul(Operand(x, where), Operand(slope, where));
  return tandem::where(Operand(positive, where), Operand(x, where), Operand(sloped, where));
}

namespace {
/// Of an image (..., C, H, W); an Error unless `factor` is at least 1.
void need_image(const char* op, const Tensor& x, int64_t factor, Location where) {
  if (x.dim(where) < 3)
    fail(std::string(op) + ": (..., C, H, W) is needed, found " + to_string(x.sizes()), where);
  if (factor < 1)
    fail(std::string(op) + ": the factor must be at least 1, found " + std::to_string(factor), where);
}
/// The sizes without the last three axes, then these.
Dims behind(const Dims& sizes, const Dims& last) {
  Dims out;
  for (int i = 0; i < sizes.rank() - 3; ++i) out.push_back(sizes[i]);
  for (const int64_t n : last) out.push_back(n);
  return out;
}
/// The axes without the last five, then these of the five.
Dims axes_behind(int rank, const Dims& five) {
  Dims out;
  for (int i = 0; i < rank - 5; ++i) out.push_back(i);
  for (const int64_t i : five) out.push_back(rank - 5 + i);
  return out;
}
}  // namespace

Tensor pixel_shuffle(const Tensor& x, int64_t r, Location where) {
  need_image("pixel_shuffle", x, r, where);
  const int64_t channels = x.size(-3), h = x.size(-2), w = x.size(-1);
  if (channels % r != 0 || channels / r % r != 0)
    fail("pixel_shuffle: " + std::to_string(channels) + " channels are no multiple of the factor " +
             std::to_string(r) + " squared",
         where);
  const int64_t left = channels / r / r;
  const Tensor parts = x.reshape(behind(x.sizes(), {left, r, r, h, w}), where);
  return parts.permute(axes_behind(parts.dim(), {0, 3, 1, 4, 2}), where)
      .reshape(behind(x.sizes(), {left, h * r, w * r}), where);
}
Tensor pixel_unshuffle(const Tensor& x, int64_t r, Location where) {
  need_image("pixel_unshuffle", x, r, where);
  const int64_t channels = x.size(-3), h = x.size(-2), w = x.size(-1);
  if (h % r != 0 || w % r != 0)
    fail("pixel_unshuffle: a height and width of multiples of " + std::to_string(r) + " are needed, found " +
             to_string(x.sizes()),
         where);
  const Tensor parts = x.reshape(behind(x.sizes(), {channels, h / r, r, w / r, r}), where);
  return parts.permute(axes_behind(parts.dim(), {0, 2, 4, 1, 3}), where)
      .reshape(
          behind(x.sizes(), {checked_mul(channels, r * r, "pixel_unshuffle: size", where), h / r, w / r}),
          where);
}
Tensor channel_shuffle(const Tensor& x, int64_t groups, Location where) {
  if (x.dim(where) < 2) fail("channel_shuffle: (N, C, ...) is needed, found " + to_string(x.sizes()), where);
  if (groups < 1 || x.size(1) % groups != 0)
    fail("channel_shuffle: " + std::to_string(groups) + " groups do not divide " + std::to_string(x.size(1)) +
             " channels",
         where);
  return x.unflatten(1, {groups, x.size(1) / groups}, where).transpose(1, 2, where).reshape(x.sizes(), where);
}

}  // namespace tandem
