// Pooling and interpolation against plain loops, their gradients of first and second order against
// differences, and what cannot be seen in the op table: ties, NaN, functions over several ops.
#include <bit>
#include <cmath>
#include <limits>

#include "tandem/eager/autograd.h"
#include "tandem/eager/functions.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/ops/reference_windows.h"

using namespace tandem;
using tandem::test::message;
using tandem::test::PoolAxis;

namespace {

using Values = std::vector<double>;

Tensor noise(const Dims& sizes, uint64_t seed) {
  manual_seed(seed);
  return randn(sizes, {.dtype = float64});
}
Values values(const Tensor& t) { return t.to_vector<double>(); }

/// PyTorch's formula for the number of windows.
int64_t windows_of(const PoolAxis& a, bool ceil) {
  const double room = static_cast<double>(a.in + 2 * a.padding - a.dilation * (a.kernel - 1) - 1) /
                      static_cast<double>(a.stride);
  auto n = static_cast<int64_t>(ceil ? std::ceil(room) : std::floor(room)) + 1;
  if (ceil && (n - 1) * a.stride >= a.in + a.padding) --n;
  return n;
}

struct Pooled {
  Values largest, places, mean;
};
/// Of planes of y.in by x.in.
Pooled pooled(const Values& from, const PoolAxis& y, const PoolAxis& x, bool count_pad) {
  Pooled r;
  const size_t plane = static_cast<size_t>(y.in * x.in);
  for (size_t first = 0; first < from.size(); first += plane)
    for (int64_t o = 0; o < y.out; ++o)
      for (int64_t p = 0; p < x.out; ++p) {
        double best = -std::numeric_limits<double>::infinity(), sum = 0;
        int64_t at = -1, n = 0, all = 0;
        for (const int64_t i : y.window(o))
          for (const int64_t j : x.window(p)) {
            ++all;
            if (i < 0 || j < 0 || i >= y.in || j >= x.in) continue;
            const double v = from[first + static_cast<size_t>(i * x.in + j)];
            if (v > best) best = v, at = i * x.in + j;
            sum += v, ++n;
          }
        r.largest.push_back(best);
        r.places.push_back(static_cast<double>(at));
        r.mean.push_back(sum / static_cast<double>(count_pad ? all : n));
      }
  return r;
}

void check_close(const Tensor& found, const Values& wanted) {
  const Values v = values(found);
  REQUIRE(v.size() == wanted.size());
  for (size_t i = 0; i < v.size(); ++i) {
    CAPTURE(i);
    CHECK(v[i] == Approx(wanted[i]).margin(1e-12));
  }
}

Tensor gradient(const Tensor& of, const Tensor& x, bool create_graph) {
  return autograd::grad({&of, 1}, {&x, 1}, {}, false, create_graph)[0];
}

/// First and second derivatives of sum(w * f(x)^2) along a direction against differences.
template <class F>
void check_gradients(F f, const Dims& sizes) {
  const Tensor x = noise(sizes, 3).requires_grad_(), d = noise(sizes, 4);
  const auto loss = [&](const Tensor& at) {
    const Tensor y = f(at);
    return (y * y * noise(y.sizes(), 5)).sum();
  };
  const Tensor g = gradient(loss(x), x, true);
  const Tensor along = (g * d).sum();
  const Tensor h = gradient(along, x, false);
  constexpr double kStep = 1e-6;
  const auto slope = [&](double step) {
    const Tensor at = (x.detach() + d * step).requires_grad_();
    const Tensor l = loss(at);
    return std::pair{l.item<double>(), (gradient(l, at, false) * d).sum().item<double>()};
  };
  const auto [ahead, slope_ahead] = slope(kStep);
  const auto [behind, slope_behind] = slope(-kStep);
  CHECK(along.item<double>() == Approx((ahead - behind) / (2 * kStep)).epsilon(1e-6).margin(1e-6));
  CHECK((h * d).sum().item<double>() ==
        Approx((slope_ahead - slope_behind) / (2 * kStep)).epsilon(1e-6).margin(1e-6));
}

}  // namespace

TEST_CASE("pooling: every geometry of one and two axes equals plain loops", "[eager]") {
  for (const int64_t in : {1, 2, 5, 8})
    for (const int64_t kernel : {1, 2, 3})
      for (const int64_t stride : {1, 2, 3})
        for (const int64_t padding : {0, 1})
          for (const int64_t dilation : {1, 2})
            for (const bool ceil : {false, true}) {
              PoolAxis a{in, 0, kernel, stride, padding, dilation};
              if (2 * padding > dilation * (kernel - 1) + 1 || in + 2 * padding < dilation * (kernel - 1) + 1)
                continue;
              a.out = windows_of(a, ceil);
              bool empty = false;
              for (int64_t o = 0; o < a.out; ++o) {
                bool any = false;
                for (const int64_t i : a.window(o)) any = any || (i >= 0 && i < in);
                empty = empty || !any;
              }
              CAPTURE(in, kernel, stride, padding, dilation, ceil);
              const Tensor x = noise({2, 3, in}, 7), plane = noise({2, in, 6}, 8);
              if (empty) {
                CHECK_THAT(message([&] { max_pool1d(x, kernel, stride, padding, dilation, ceil); }),
                           Contains("nothing but padding"));
                continue;
              }
              const PoolAxis one, two{6, 3, 2, 2};
              const Pooled wanted = pooled(values(x), one, a, true);
              const ValuesIndices found = max_pool1d_with_indices(x, kernel, stride, padding, dilation, ceil);
              CHECK(found.values.sizes() == Dims{2, 3, a.out});
              CHECK(values(found.values) == wanted.largest);
              CHECK(values(found.indices) == wanted.places);
              const Pooled planes = pooled(values(plane), a, two, true);
              const ValuesIndices square =
                  max_pool2d_with_indices(plane, {kernel, 2}, {stride, 2}, {padding, 0}, {dilation, 1}, ceil);
              CHECK(values(square.values) == planes.largest);
              CHECK(values(square.indices) == planes.places);
              if (dilation > 1) continue;
              for (const bool counted : {false, true}) {
                check_close(avg_pool1d(x, kernel, stride, padding, ceil, counted),
                            pooled(values(x), one, a, counted).mean);
                check_close(avg_pool2d(plane, {kernel, 2}, {stride, 2}, {padding, 0}, ceil, counted),
                            pooled(values(plane), a, two, counted).mean);
              }
            }
}

TEST_CASE("pooling: adaptive windows", "[eager]") {
  for (const int64_t in : {1, 3, 7, 10})
    for (const int64_t out : {1, 2, 3, 7, 11}) {
      CAPTURE(in, out);
      PoolAxis a{in, out}, rows{4, 3};
      a.adaptive = rows.adaptive = true;
      const Tensor x = noise({2, 4, in}, 9);
      const Pooled planes = pooled(values(x), rows, a, false),
                   lines = pooled(values(x), PoolAxis{}, a, false);
      check_close(adaptive_avg_pool2d(x, {3, out}), planes.mean);
      check_close(adaptive_avg_pool1d(x, out), lines.mean);
      CHECK(values(adaptive_max_pool2d(x, {3, out})) == planes.largest);
      CHECK(values(adaptive_max_pool2d_with_indices(x, {3, out}).indices) == planes.places);
      CHECK(values(adaptive_max_pool1d(x, out)) == lines.largest);
    }
  const Tensor x = noise({2, 3, 4, 5}, 1);
  CHECK(adaptive_avg_pool2d(x, {-1, 2}).sizes() == Dims{2, 3, 4, 2});
  CHECK(adaptive_avg_pool2d(x, 1).sizes() == Dims{2, 3, 1, 1});
  CHECK((adaptive_avg_pool2d(x, 1) - x.mean({2, 3}, true)).abs().amax().item<double>() < 1e-14);
}

TEST_CASE("pooling: ties, NaN and the divisor", "[eager]") {
  const double nan = NAN;
  const Tensor x = tensor<double>({1, 1, nan, 2, nan, 0, -INFINITY, -INFINITY}).view({1, 1, 8});
  const ValuesIndices r = max_pool1d_with_indices(x, 2);
  CHECK(values(r.indices) == Values{0, 2, 4, 6});
  CHECK(values(r.values)[0] == 1);
  CHECK(std::isnan(values(r.values)[1]));
  CHECK(std::isnan(values(r.values)[2]));
  CHECK(values(r.values)[3] == -INFINITY);
  CHECK(values(max_pool1d_with_indices(x, 5, 3).indices) == Values{4, 4});  // of several NaN the last
  for (const DType type :
       {float32, float16, bfloat16}) {  // zeros of both signs are equal, NaN of both not less
    const Tensor y = tensor<double>({-0.0, 0, 0, -0.0, -nan, 1, -1, -2, -INFINITY, -3, -nan, nan, INFINITY,
                                     nan, -INFINITY, -INFINITY})
                         .view({1, 16})
                         .to(type);
    CHECK(values(max_pool1d_with_indices(y, 2).indices) == Values{0, 2, 4, 6, 9, 11, 13, 14});
    CHECK(values(max_pool1d_with_indices(y, 4).indices) == Values{0, 4, 11, 13});
  }
  const Tensor ones = tandem::ones({1, 1, 2, 2}, {.dtype = float64});
  CHECK(values(avg_pool2d(ones, 2, {}, 1)) == Values{0.25, 0.25, 0.25, 0.25});
  CHECK(values(avg_pool2d(ones, 2, {}, 1, false, false)) == Values{1, 1, 1, 1});
  CHECK(values(avg_pool2d(ones, 2, {}, 0, false, true, 3)) == Values{4.0 / 3});
  // Integers can be compared, too.
  CHECK(max_pool1d(tensor<int64_t>({3, 9, 4, 1}).view({1, 4}), 2).to_vector<int64_t>() ==
        std::vector<int64_t>{9, 4});
  CHECK(max_pool2d(zeros({0, 3, 4, 4}), 2).sizes() == Dims{0, 3, 2, 2});
  CHECK(avg_pool2d(zeros({0, 3, 4, 4}), 2).sizes() == Dims{0, 3, 2, 2});
}

TEST_CASE("pooling: gradients of first and second order", "[eager]") {
  check_gradients([](const Tensor& x) { return max_pool2d(x, 3, 2, 1); }, {2, 2, 6, 5});
  check_gradients([](const Tensor& x) { return max_pool1d(x, 3, 1, 1, 1); }, {2, 2, 7});
  check_gradients([](const Tensor& x) { return max_pool2d(x, 2); }, {2, 2, 7, 5});
  check_gradients(
      [](const Tensor& x) {
        return max_pool2d(x, {2, 3}, {1, 2}, {1, 1}, {3, 2}, true);
      },
      {2, 2, 9, 8});
  check_gradients([](const Tensor& x) { return max_pool2d_with_indices(x, 3, 2, 1).values; }, {2, 2, 6, 5});
  check_gradients([](const Tensor& x) { return max_pool1d(x, 260, 3); }, {1, 2, 280});  // above 256 elements
  check_gradients(
      [](const Tensor& x) {
        return max_pool3d(x, {2, 3, 2}, {1, 2, 2}, {1, 1, 0});
      },
      {2, 1, 4, 5, 4});
  check_gradients([](const Tensor& x) { return max_pool3d_with_indices(x, 2).values; }, {1, 2, 4, 4, 5});
  check_gradients([](const Tensor& x) { return adaptive_max_pool3d(x, {2, 3, 2}); }, {1, 2, 3, 5, 4});
  check_gradients([](const Tensor& x) { return avg_pool2d(x, 3, 2, 1, true, false); }, {2, 2, 6, 5});
  check_gradients([](const Tensor& x) { return adaptive_avg_pool2d(x, {3, 4}); }, {2, 2, 7, 5});
  check_gradients([](const Tensor& x) { return adaptive_max_pool2d(x, {3, 4}); }, {2, 2, 7, 5});
  check_gradients([](const Tensor& x) { return interpolate(x, {.size = {5, 3}}); }, {1, 2, 3, 4});
  check_gradients(
      [](const Tensor& x) {
        return interpolate(x, {.scale_factor = {1.7}, .mode = Interpolation::bilinear});
      },
      {1, 2, 3, 4});
}

TEST_CASE("pooling: maxima without their positions are the same, with the same gradient", "[eager]") {
  // Several windows of two by two a step, with what a step leaves over; zeros of both signs, NaN.
  for (const DType type : {float64, float32, float16, bfloat16})
    for (const int64_t kernel : {2, 3})
      for (const int64_t width : {2, 7, 9, 40, 301}) {
        CAPTURE(type, kernel, width);
        Tensor x = (noise({2, 3, 6, width}, 11) * 2).floor().to(type);
        x = where(x.eq(-2), full(x.sizes(), NAN, {.dtype = type}), where(x.eq(1), x.mul(-0.0), x));
        const Tensor a = x.clone().requires_grad_(), b = x.clone().requires_grad_();
        const Tensor top = max_pool2d(a, kernel, 2, kernel / 2);
        const ValuesIndices with = max_pool2d_with_indices(b, kernel, 2, kernel / 2);
        const Tensor g = noise(top.sizes(), 12).to(type);
        const auto bits = [](const Tensor& t) {
          std::vector<uint64_t> all;
          for (const double v : values(t.to(float64))) all.push_back(std::bit_cast<uint64_t>(v));
          return all;
        };
        CHECK(bits(top.detach()) == bits(with.values.detach()));
        const Tensor along_a = (top * g).sum(), along_b = (with.values * g).sum();
        along_a.backward(), along_b.backward();
        CHECK(bits(a.grad()) == bits(b.grad()));
        const Tensor looked = x.flatten(-2, -1).gather(-1, with.indices.flatten(-2, -1));
        CHECK(bits(looked) == bits(top.detach().flatten(-2, -1)));
      }
}

TEST_CASE("pooling: a window of nothing but padding is refused, whichever it is", "[eager]") {
  int refused = 0;
  for (int64_t in = 1; in <= 4; ++in)
    for (int64_t kernel = 2; kernel <= 4; ++kernel)
      for (int64_t stride = 1; stride <= 4; ++stride)
        for (int64_t dilation = 2; dilation <= 7; ++dilation)
          for (int64_t padding = 0; padding <= ((kernel - 1) * dilation + 1) / 2; ++padding) {
            CAPTURE(in, kernel, stride, dilation, padding);
            const int64_t room = in + 2 * padding - (kernel - 1) * dilation - 1;
            bool wrong = room < 0;
            for (int64_t o = 0; room >= 0 && o <= room / stride; ++o) {
              bool holds = false;
              for (int64_t k = 0; k < kernel; ++k) {
                const int64_t at = o * stride - padding + k * dilation;
                holds = holds || (at >= 0 && at < in);
              }
              wrong = wrong || !holds;
            }
            bool threw = false;
            try {
              max_pool1d(zeros({1, in}), kernel, stride, padding, dilation);
            } catch (const Error&) {
              threw = true;
            }
            CHECK(threw == wrong);
            refused += threw && room >= 0;
          }
  CHECK(refused > 100);
}

TEST_CASE("pooling: positions that a gradient reads are kept, and have no history", "[eager]") {
  const Tensor x = noise({1, 2, 4, 4}, 21).requires_grad_();
  {
    const ValuesIndices r = max_pool2d_with_indices(x, 2);
    CHECK_FALSE(r.indices.requires_grad());
    r.indices.add_(1);
    try {
      r.values.sum().backward();
      FAIL("positions changed behind the gradient's back");
    } catch (const Error& e) {
      CHECK(std::string(e.what()).find("changed in place") != std::string::npos);
    }
  }
  // Under a gradient that has a history itself.
  const Tensor top = max_pool2d(x, 2);
  const TensorList once = autograd::grad(TensorList{(top * top).sum()}, TensorList{x}, {}, true, true);
  const TensorList twice = autograd::grad(TensorList{once[0].sum()}, TensorList{x});
  // d/dx of the sum of twice the maxima: 2 where a window's largest is.
  CHECK(twice[0].sum().item<double>() == 2.0 * static_cast<double>(top.numel()));
}

TEST_CASE("interpolate: positions are PyTorch's", "[eager]") {
  const Tensor x = noise({1, 1, 5}, 2);
  const Values from = values(x);
  for (const int64_t out : {1, 2, 3, 5, 7, 10, 13}) {
    CAPTURE(out);
    Values nearest, edges, corners;
    const auto blend = [&](double at) {
      at = std::max(at, 0.0);
      const auto low = std::min<size_t>(static_cast<size_t>(at), 4);
      const double share = at - static_cast<double>(low);
      return from[low] * (1 - share) + from[std::min<size_t>(low + 1, 4)] * share;
    };
    for (int64_t i = 0; i < out; ++i) {
      const auto at = static_cast<double>(i);
      nearest.push_back(from[static_cast<size_t>(i * 5 / out)]);
      edges.push_back(blend((at + 0.5) * 5 / static_cast<double>(out) - 0.5));
      corners.push_back(blend(out == 1 ? 0 : at * 4 / static_cast<double>(out - 1)));
    }
    check_close(interpolate(x, {.size = {out}}), nearest);
    check_close(interpolate(x, {.size = {out}, .mode = Interpolation::linear}), edges);
    check_close(interpolate(x, {.size = {out}, .mode = Interpolation::linear, .align_corners = true}),
                corners);
  }
  // With a scale the positions follow from it, not from the size that it is rounded to.
  const Tensor scaled = interpolate(x, {.scale_factor = {1.5}, .mode = Interpolation::linear});
  CHECK(scaled.sizes() == Dims{1, 1, 7});
  CHECK(values(scaled)[6] == Approx(from[3] * (1 - (6.5 / 1.5 - 3.5)) + from[4] * (6.5 / 1.5 - 3.5)));
  const Tensor sized =
      interpolate(x, {.scale_factor = {1.5}, .mode = Interpolation::linear, .recompute_scale_factor = true});
  CHECK(values(sized)[5] == Approx(values(interpolate(x, {.size = {7}, .mode = Interpolation::linear}))[5]));
  const Tensor plane = noise({2, 3, 3, 4}, 6);
  const Tensor twice = interpolate(plane, {.scale_factor = {2}});
  CHECK(twice.sizes() == Dims{2, 3, 6, 8});
  const Tensor repeated = plane.repeat_interleave(2, 2).repeat_interleave(2, 3);
  CHECK(values(twice) == values(repeated));
  // Bilinear is linear along both axes.
  const Tensor both = interpolate(plane, {.size = {5, 7}, .mode = Interpolation::bilinear});
  const Tensor along = interpolate(plane.reshape({6, 3, 4}), {.size = {7}, .mode = Interpolation::linear});
  const Tensor across =
      interpolate(along.transpose(1, 2).contiguous(), {.size = {5}, .mode = Interpolation::linear});
  CHECK((both.reshape({6, 5, 7}) - across.transpose(1, 2)).abs().amax().item<double>() < 1e-13);
  CHECK(interpolate(plane.to(bfloat16), {.size = {5, 7}, .mode = Interpolation::bilinear}).dtype() ==
        bfloat16);
}

TEST_CASE("pooling over three axes: the first of equal ones, and what is refused", "[eager]") {
  const ValuesIndices same = max_pool3d_with_indices(ones({1, 1, 4, 4, 4}), 2);
  CHECK(same.indices.to_vector<int64_t>() == std::vector<int64_t>{0, 2, 8, 10, 32, 34, 40, 42});
  const Tensor x = ones({2, 3, 4});
  CHECK_THAT(message([&] { max_pool3d(x, 2); }),
             Contains("max_pool3d: x must have 3 axes behind (N, C) or (C), found shape (2, 3, 4)"));
  CHECK_THAT(message([&] {
               avg_pool3d(ones({1, 2, 3, 4}), {2, 2});
             }),
             Contains("avg_pool3d: kernel_size must be one number or 3"));
  CHECK_THAT(message([&] { adaptive_avg_pool3d(x, 2); }),
             Contains("adaptive_avg_pool3d: x must have 3 axes"));
  const Tensor volume = ones({6, 2, 3, 4, 5});
  const auto check = [&](const char* text, auto f) {
    CHECK_THAT(message(f), Contains(text) && Contains("float32(6, 2, 3, 4, 5) at "));
  };
  check("max_pool3d: no window fits an axis of 4; kernel 5, padding 0; x is ", [&] {
    max_pool3d(volume, {3, 5, 5});
  });
  check("avg_pool3d: no window fits an axis of 3; kernel 4, padding 0; x is ",
        [&] { avg_pool3d(volume, 4); });
  check(
      "avg_pool3d: kernel size, stride and dilation must be positive and below 2^31, found 2, 0 and 1; x is ",
      [&] {
        avg_pool3d(volume, 2, {1, 0, 1});
      });
  check("max_pool3d: padding must be at most half of the window, found 2 for a kernel of 2; x is ", [&] {
    max_pool3d_with_indices(volume, 2, 1, {2, 0, 0});
  });
  check("max_pool3d: a window of an axis of 3 holds nothing but padding; kernel 2, dilation 5; x is ", [&] {
    max_pool3d(volume, {2, 1, 1}, 1, {3, 0, 0}, {5, 1, 1});
  });
  check("adaptive_max_pool3d: at least one window an axis is needed, found 0; x is ", [&] {
    adaptive_max_pool3d(volume, {1, 0, 1});
  });
  check("adaptive_avg_pool3d: at least one window an axis is needed, found -2; x is ", [&] {
    adaptive_avg_pool3d(volume, {-2, 1, 1});
  });
  CHECK_THAT(
      message([&] { avg_pool3d(volume[0].to(int64), 2); }),
      Contains("avg_pool3d: needs a floating type, found int64(2, 3, 4, 5); cast with to(float32) at "));
  CHECK_THAT(message([&] {
               max_pool2d(ones({1, 2, 4, 4, 8}), 2);
             }),
             Contains("max_pool: x must have 2 axes behind (N, C) or (C), found shape (1, 2, 4, 4, 8)"));
}

TEST_CASE("unpooling: sizes, and what is refused", "[eager]") {
  const ValuesIndices top = max_pool1d_with_indices(arange(0.f, 7).view({1, 7}), 2);
  CHECK(max_unpool1d(top.values, top.indices, 2).to_vector<float>() == std::vector<float>{0, 1, 0, 3, 0, 5});
  CHECK(max_unpool1d(top.values, top.indices, 2, {}, 0, 7).sizes() == Dims{1, 7});
  CHECK_THAT(message([&] { max_unpool2d(top.values, top.indices, 2); }), Contains("2 axes behind (N, C)"));
  CHECK_THAT(message([&] { max_unpool1d(top.values, top.indices.slice(1, 0, 2), 2); }),
             Contains("indices must have x's shape (1, 3), found (1, 2)"));
  CHECK_THAT(message([&] {
               max_unpool1d(top.values, top.indices, 2, {}, 0, {1, 2, 3});
             }),
             Contains("no result of sizes (1, 2, 3)"));
  CHECK_THAT(message([&] { max_unpool1d(top.values, top.indices, 2, {}, 0, 4).sum().item<float>(); }),
             Contains("out of range"));
}
