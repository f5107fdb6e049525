// Convolutions of float32, and of bfloat16 where the processor multiplies it, by oneDNN, single-threaded on
// blocks of images and, where these are few, of the result's channels: Tandem's pool does the spreading. A
// block's operands are copied into the layouts that the primitive asks for (its fast code takes blocked ones
// alone), and its result back, unless they lie so. Blocks depend on the shape alone; gradients of weights are
// made in batch_parts() parts, in float32. Primitives are kept by shape.
#include "tandem/core/error.h"
#include "tandem/ops/convolutions/providers.h"

#if defined(TANDEM_HAVE_DNNL) && TANDEM_HAVE_DNNL
#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <unordered_map>
#include <vector>

#include "tandem/core/thread_pool.h"
#include "tandem/ops/openmp_thread.h"
#include "tandem/ops/products/providers.h"

namespace tandem::ops {
namespace {

using dnnl::memory;
using Desc = memory::desc;

constexpr double kBlockFlops = 32e6, kBlockBytes = 0.5e6;  // of a block at most; bytes of x and y together
constexpr size_t kKept = 512;                              // primitives

dnnl::engine& cpu_engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

/// Whether the processor does: elsewhere oneDNN's code for bfloat16 is slower than float32's. Its own limits
/// on instruction sets (ONEDNN_MAX_CPU_ISA) count.
bool multiplies_bfloats() {
  constexpr auto kWanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kWanted) == kWanted;
}

memory::data_type type_of(DType t) {
  return t == DType::bfloat16 ? memory::data_type::bf16 : memory::data_type::f32;
}

/// One block: a shape of fewer images, and of fewer channels of the result, and the steps from one image, or
/// one output of the weight, to the next in the whole.
struct Block {
  ConvolutionShape s;
  int64_t x_image, y_image, w_output;
};

/// The primitive of a block, and the ways from our layouts to its own and back. Constant once made:
/// any thread may run it, with memory of its own.
struct Primitive {
  enum Role { x, w, y, kRoles };
  Desc ours[kRoles], its[kRoles], bias;
  dnnl::primitive run;
  std::array<dnnl::reorder, kRoles> to, back;
  int64_t scratch_bytes = 0;
  bool good = false;

  bool differs(Role r) const { return ours[r] != its[r]; }
  int64_t bytes(Role r) const { return differs(r) ? static_cast<int64_t>(its[r].get_size()) : 0; }
};

memory::dims axes(const ConvolutionShape::Axes& a, int first, int64_t less = 0) {
  memory::dims d;
  for (int i = first; i < kConvolutionAxes; ++i) d.push_back(a[i] - less);
  return d;
}

/// Axes in front that are trivial are left out, down to two.
int first_axis(const ConvolutionShape& s) {
  const bool flat = s.in[0] == 1 && s.out[0] == 1 && s.kernel[0] == 1 && s.padding[0] == 0;
  return flat ? 1 : 0;
}

/// Row-major, but for the step along the first axis.
Desc plain(DType dtype, memory::dims sizes, int64_t first_step) {
  memory::dims strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 1; stride *= sizes[i]) strides[i] = stride;
  strides[0] = first_step;
  return Desc(std::move(sizes), type_of(dtype), strides);
}

memory::dims with_front(std::initializer_list<int64_t> front, const memory::dims& rest) {
  memory::dims d(front);
  d.insert(d.end(), rest.begin(), rest.end());
  return d;
}

/// `all` channels an image, of which `sizes` has the first, in blocks of 8 or 16.
Desc in_blocks(memory::dims sizes, int64_t all, int64_t block) {
  using Tag = memory::format_tag;
  const bool flat = sizes.size() == 4;
  const Tag tag = block == 16 ? (flat ? Tag::nChw16c : Tag::nCdhw16c) : (flat ? Tag::nChw8c : Tag::nCdhw8c);
  memory::dims whole = sizes;
  whole[1] = all;
  return Desc(whole, memory::data_type::f32, tag).submemory_desc(sizes, memory::dims(sizes.size(), 0));
}

Desc any(const Desc& d) { return Desc(d.dims(), d.data_type(), memory::format_tag::any); }

/// Padding behind such that the window's last place is that of the last output; `fits` false: none does.
memory::dims padding_behind(const ConvolutionShape& s, int first, bool& fits) {
  memory::dims d;
  for (int i = first; i < kConvolutionAxes; ++i) {
    const int64_t reach = s.dilation[i] * (s.kernel[i] - 1) + 1;
    const int64_t behind =
        std::max<int64_t>(0, (s.out[i] - 1) * s.stride[i] + reach - s.in[i] - s.padding[i]);
    fits = fits && (s.in[i] + s.padding[i] + behind - reach) / s.stride[i] + 1 == s.out[i];
    d.push_back(behind);
  }
  return d;
}

template <class PrimitiveDesc>
bool note(Primitive& p, const PrimitiveDesc& d, const Desc& x, const Desc& w, const Desc& y) {
  // Its reference and its way over a product without blocked layouts are slower than ours.
  const std::string how = d.impl_info_str();
  if (how.find("ref") != std::string::npos || how.find("gemm") != std::string::npos) return false;
  p.its[Primitive::x] = x, p.its[Primitive::w] = w, p.its[Primitive::y] = y;
  p.scratch_bytes = static_cast<int64_t>(d.scratchpad_desc().get_size());
  return true;
}

/// `good` is false where oneDNN has no fast code.
Primitive make(const Block& b, bool biased) {
  const ConvolutionShape& s = b.s;
  Primitive p;
  const int first = first_axis(s);
  bool fits = true;
  const memory::dims stride = axes(s.stride, first), dilation = axes(s.dilation, first, 1),
                     before = axes(s.padding, first), behind = padding_behind(s, first, fits);
  if (!fits) return p;
  const memory::dims kernel = axes(s.kernel, first);
  const auto images = [&](int64_t channels, const ConvolutionShape::Axes& positions, int64_t image,
                          int64_t block) {
    const memory::dims sizes = with_front({s.batch, channels}, axes(positions, first));
    return block == 0 ? plain(s.dtype, sizes, image)
                      : in_blocks(sizes, image / ConvolutionShape::product(positions), block);
  };
  const Desc x = p.ours[Primitive::x] = images(s.channels, s.in, b.x_image, s.x_block);
  const Desc y = p.ours[Primitive::y] = images(s.outputs, s.out, b.y_image, s.y_block);
  const auto weight = [&](DType dtype) {
    return s.groups == 1 ? plain(dtype, with_front({s.outputs, s.channels}, kernel), b.w_output)
                         : plain(dtype, with_front({s.groups, s.group_outputs(), s.group_channels()}, kernel),
                                 s.group_outputs() * b.w_output);
  };
  const bool is_sum = s.direction == ConvolutionDirection::weight;  // of a part, joined with others behind
  const Desc forward_w = weight(s.dtype);
  const Desc w = p.ours[Primitive::w] = is_sum ? weight(DType::float32) : forward_w;
  p.bias = biased ? plain(s.dtype, {s.outputs}, 1) : Desc();
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const OneThread one;
  dnnl::engine& engine = cpu_engine();
  try {
    constexpr auto kWay = dnnl::algorithm::convolution_direct;
    constexpr auto kUse = dnnl::prop_kind::forward_training;
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::convolution_forward::primitive_desc forward(
        engine, kUse, kWay, any(x), any(forward_w), p.bias, any(y), stride, dilation, before, behind, attr);
#else
    const dnnl::convolution_forward::primitive_desc forward(
        dnnl::convolution_forward::desc(kUse, kWay, any(x), any(forward_w), p.bias, any(y), stride, dilation,
                                        before, behind),
        attr, engine);
#endif
    switch (s.direction) {
      case ConvolutionDirection::forward:
        if (!note(p, forward, forward.src_desc(), forward.weights_desc(), forward.dst_desc())) return p;
        p.run = dnnl::convolution_forward(forward);
        break;
      case ConvolutionDirection::input: {
#if DNNL_VERSION_MAJOR >= 3
        const dnnl::convolution_backward_data::primitive_desc d(engine, kWay, any(x), any(w), any(y), stride,
                                                                dilation, before, behind, forward, attr);
#else
        const dnnl::convolution_backward_data::primitive_desc d(
            dnnl::convolution_backward_data::desc(kWay, any(x), any(w), any(y), stride, dilation, before,
                                                  behind),
            attr, engine, forward);
#endif
        if (!note(p, d, d.diff_src_desc(), d.weights_desc(), d.diff_dst_desc())) return p;
        p.run = dnnl::convolution_backward_data(d);
        break;
      }
      case ConvolutionDirection::weight: {
#if DNNL_VERSION_MAJOR >= 3
        const dnnl::convolution_backward_weights::primitive_desc d(
            engine, kWay, any(x), any(w), any(y), stride, dilation, before, behind, forward, attr);
#else
        const dnnl::convolution_backward_weights::primitive_desc d(
            dnnl::convolution_backward_weights::desc(kWay, any(x), any(w), any(y), stride, dilation, before,
                                                     behind),
            attr, engine, forward);
#endif
        if (!note(p, d, d.src_desc(), d.diff_weights_desc(), d.diff_dst_desc())) return p;
        p.run = dnnl::convolution_backward_weights(d);
        break;
      }
    }
    for (const Primitive::Role r : {Primitive::x, Primitive::w, Primitive::y}) {
      if (!p.differs(r)) continue;
      p.to[r] = dnnl::reorder(dnnl::reorder::primitive_desc(engine, p.ours[r], engine, p.its[r]));
      p.back[r] = dnnl::reorder(dnnl::reorder::primitive_desc(engine, p.its[r], engine, p.ours[r]));
    }
    p.good = true;
  } catch (const dnnl::error&) {  // not implemented for this shape
    p.good = false;
  }
  return p;
}

using Made = std::shared_ptr<const Primitive>;

Made primitive(const Block& b, bool biased) {
  const ConvolutionShape& s = b.s;
  using Key = std::array<int64_t, 11 + 6 * kConvolutionAxes>;
  Key key = {static_cast<int64_t>(s.direction) * 2 + biased,
             static_cast<int64_t>(s.dtype),
             s.batch,
             s.channels,
             s.outputs,
             s.groups,
             b.x_image,
             b.y_image,
             b.w_output,
             s.x_block,
             s.y_block};
  auto* to = key.data() + 11;
  for (const auto* a : {&s.in, &s.out, &s.kernel, &s.stride, &s.padding, &s.dilation})
    to = std::copy(std::begin(*a), std::end(*a), to);
  static std::mutex mutex;
  static std::map<Key, Made> kept;
  {
    const std::lock_guard lock(mutex);
    if (const auto it = kept.find(key); it != kept.end()) return it->second;
  }
  auto made = std::make_shared<const Primitive>(make(b, biased));
  const std::lock_guard lock(mutex);
  if (kept.size() >= kKept) kept.clear();
  return kept.emplace(key, std::move(made)).first->second;
}

/// How a call is cut: into blocks of `images` images, the last of which may have fewer (a gradient of the
/// weight: into `blocks` of about as many), and each into `parts` of the result's channels.
struct Cut {
  const ConvolutionShape& s;
  const bool weight = s.direction == ConvolutionDirection::weight;
  const int64_t x_image = s.channels * s.in_positions(), y_image = s.outputs * s.out_positions();
  const int64_t images = weight ? (s.batch + batch_parts(s) - 1) / batch_parts(s) : images_a_block();
  const int64_t blocks = (s.batch + images - 1) / images;
  const int64_t parts = channel_parts();

  int64_t first(int64_t block) const {
    return weight ? block * s.batch / blocks : std::min(s.batch, block * images);
  }
  int64_t channels() const {  // of a part
    return (s.direction == ConvolutionDirection::input ? s.channels : s.outputs) / parts;
  }
  Block block(int64_t i) const {
    Block b{s, x_image, y_image, s.group_channels() * s.taps()};
    b.s.batch = first(i + 1) - first(i);
    (s.direction == ConvolutionDirection::input ? b.s.channels : b.s.outputs) = channels();
    return b;
  }

 private:
  int64_t images_a_block() const {
    const double flops = s.flops() / static_cast<double>(s.batch);
    const double bytes = static_cast<double>(itemsize(s.dtype) * (x_image + y_image));
    return std::clamp<int64_t>(static_cast<int64_t>(std::min(kBlockFlops / flops, kBlockBytes / bytes)), 1,
                               s.batch);
  }
  int64_t channel_parts() const {
    constexpr int64_t kLanes = 16, kEnough = 4;  // blocks
    constexpr double kWorth = 4e6;               // of a part: the operand's layout is made once for each
    const int64_t all = s.direction == ConvolutionDirection::input ? s.channels : s.outputs;
    if (s.groups != 1 || blocks >= kEnough) return 1;
    for (const int64_t n : {4, 2})
      if (all % (n * kLanes) == 0 && s.flops() / static_cast<double>(blocks * n) >= kWorth) return n;
    return 1;
  }
};

memory view(const Desc& d, const void* data) { return memory(d, cpu_engine(), const_cast<void*>(data)); }

/// Copies from one layout to another.
void reorder(const dnnl::reorder& way, const Desc& from_desc, const void* from, const Desc& to_desc, void* to,
             dnnl::stream& stream) {
  memory source = view(from_desc, from), target = view(to_desc, to);
  way.execute(stream, source, target);
}

/// Runs one block: x, w and y are in our layouts, but for the w of forward and input, which is in its own.
class Run {
 public:
  explicit Run(const Primitive& p)
      : p_(p),
        x_(p.bytes(Primitive::x)),
        w_(p.bytes(Primitive::w)),
        y_(p.bytes(Primitive::y)),
        scratch_(p.scratch_bytes),
        stream_(cpu_engine()) {}

  void forward(const void* x, const void* w, const void* bias, void* y) {
    execute({{DNNL_ARG_SRC, given(Primitive::x, x, x_)},
             {DNNL_ARG_WEIGHTS, view(p_.its[Primitive::w], w)},
             {DNNL_ARG_BIAS, view(p_.bias, bias)},
             {DNNL_ARG_DST, asked(Primitive::y, y, y_)}},
            bias == nullptr);
    bring_back(Primitive::y, y, y_);
  }
  void input(const void* y, const void* w, void* x) {
    execute({{DNNL_ARG_DIFF_DST, given(Primitive::y, y, y_)},
             {DNNL_ARG_WEIGHTS, view(p_.its[Primitive::w], w)},
             {DNNL_ARG_DIFF_SRC, asked(Primitive::x, x, x_)}},
            false);
    bring_back(Primitive::x, x, x_);
  }
  void weight(const void* x, const void* y, float* w) {
    execute({{DNNL_ARG_SRC, given(Primitive::x, x, x_)},
             {DNNL_ARG_DIFF_DST, given(Primitive::y, y, y_)},
             {DNNL_ARG_DIFF_WEIGHTS, asked(Primitive::w, w, w_)}},
            false);
    bring_back(Primitive::w, w, w_);
  }

 private:
  memory given(Primitive::Role r, const void* data, const Scratch& space) {
    if (!p_.differs(r)) return view(p_.its[r], data);
    reorder(p_.to[r], p_.ours[r], data, p_.its[r], space.as<void>(), stream_);
    return view(p_.its[r], space.as<void>());
  }
  memory asked(Primitive::Role r, void* data, const Scratch& space) {
    return view(p_.its[r], p_.differs(r) ? space.as<void>() : data);
  }
  void bring_back(Primitive::Role r, void* data, const Scratch& space) {
    if (p_.differs(r)) reorder(p_.back[r], p_.its[r], space.as<void>(), p_.ours[r], data, stream_);
  }
  void execute(std::unordered_map<int, memory> arguments, bool without_bias) {
    if (without_bias) arguments.erase(DNNL_ARG_BIAS);
    arguments.emplace(DNNL_ARG_SCRATCHPAD, view(Desc({std::max<int64_t>(1, p_.scratch_bytes)},
                                                     memory::data_type::u8, memory::format_tag::a),
                                                scratch_.as<void>()));
    p_.run.execute(stream_, arguments);
  }

  const Primitive& p_;
  const Scratch x_, w_, y_, scratch_;
  dnnl::stream stream_;
};

void bring_weight(const Primitive& p, const void* w, void* to) {
  const OneThread one;
  dnnl::stream stream(cpu_engine());
  reorder(p.to[Primitive::w], p.ours[Primitive::w], w, p.its[Primitive::w], to, stream);
}

/// The weight in a primitive's layout; `own`: it is there already.
class OwnWeight {
 public:
  OwnWeight(const Primitive& p, const void* w, bool own) : space_(own ? 0 : p.bytes(Primitive::w)), data_(w) {
    if (own || !p.differs(Primitive::w)) return;
    bring_weight(p, w, space_.as<void>());
    data_ = space_.as<void>();
  }
  const void* data() const { return data_; }

 private:
  Scratch space_;
  const void* data_;
};

/// Where an element of an operand lies.
const char* at(const void* data, DType dtype, int64_t element) {
  return static_cast<const char*>(data) + element * itemsize(dtype);
}
char* at(void* data, DType dtype, int64_t element) {
  return static_cast<char*>(data) + element * itemsize(dtype);
}

void over_images(const ConvolutionCall& call) {
  const ConvolutionShape& s = call.shape;
  const Cut cut{s};
  const bool forward = s.direction == ConvolutionDirection::forward;
  const bool biased = forward && call.bias;
  const Made whole = primitive(cut.block(0), biased), last = primitive(cut.block(cut.blocks - 1), biased);
  const int64_t channels = cut.channels(), taps = s.taps();
  // Of the parts, for `whole` and then for `last`.
  const int64_t given = (last == whole ? 1 : 2) * cut.parts;
  std::vector<std::unique_ptr<const OwnWeight>> weights(static_cast<size_t>(given));
  core::parallel(given, call.own_weight ? given : 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Primitive& p = i < cut.parts ? *whole : *last;
      const int64_t part = i % cut.parts;
      const void* w = call.own_weight ? static_cast<const char*>(call.w) + part * p.bytes(Primitive::w)
                                      : at(call.w, s.dtype,
                                           part * channels * (forward ? s.group_channels() * taps : taps));
      weights[static_cast<size_t>(i)] = std::make_unique<OwnWeight>(p, w, call.own_weight);
    }
  });
  const int64_t from_image = forward ? cut.x_image : cut.y_image,
                to_image = forward ? cut.y_image : cut.x_image;
  const int64_t positions = forward ? s.out_positions() : s.in_positions();
  core::parallel(cut.blocks * cut.parts, 1, [&](int64_t begin, int64_t end) {
    const OneThread one;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = i / cut.parts, part = i % cut.parts;
      const bool is_last = block + 1 == cut.blocks;
      Run run(is_last ? *last : *whole);
      const auto own = static_cast<size_t>(part + (is_last && last != whole ? cut.parts : 0));
      const void* from = at(forward ? call.x : call.y, s.dtype, cut.first(block) * from_image);
      char* to = at(call.result, s.dtype, cut.first(block) * to_image + part * channels * positions);
      const void* w = weights[own]->data();
      const void* b = biased ? at(call.bias, s.dtype, part * channels) : nullptr;
      forward ? run.forward(from, w, b, to) : run.input(from, w, to);
      if (forward || !call.bias) continue;
      auto* sum = reinterpret_cast<float*>(to);
      const auto* bias = static_cast<const float*>(call.bias) + part * channels;
      for (int64_t n = cut.first(block); n < cut.first(block + 1); ++n, sum += to_image)
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t j = 0; j < positions; ++j) sum[c * positions + j] += bias[c];
    }
  });
}

void over_parts(const ConvolutionCall& call) {
  const ConvolutionShape& s = call.shape;
  const Cut cut{s};
  const int64_t size = s.w_size(), channels = cut.channels();
  const Scratch sums(cut.blocks * size * static_cast<int64_t>(sizeof(float)));
  const int64_t count = cut.blocks * cut.parts;
  core::parallel(count, s.flops() < 4 * kSerialFlops ? count : 1, [&](int64_t begin, int64_t end) {
    const OneThread one;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = i / cut.parts, part = i % cut.parts, first = cut.first(block);
      const Made p = primitive(cut.block(block), false);
      Run(*p).weight(at(call.x, s.dtype, first * cut.x_image),
                     at(call.y, s.dtype, first * cut.y_image + part * channels * s.out_positions()),
                     sums.as<float>() + block * size + part * channels * s.group_channels() * s.taps());
    }
  });
  join_weights(s, sums.as<float>(), cut.blocks, call.result);
}

}  // namespace

bool onednn_convolves(const ConvolutionShape& s) {
  if (s.empty() || !(s.dtype == DType::float32 || (s.dtype == DType::bfloat16 && multiplies_bfloats())))
    return false;
  const Cut cut{s};
  // Blocks of two sizes at most; of a gradient of the weight in any order.
  Block smaller = cut.block(cut.blocks - 1);
  if (cut.weight) smaller.s.batch = s.batch / cut.blocks;
  Block larger = smaller;
  larger.s.batch = cut.images;
  for (const bool biased : {false, true})
    for (const Block* b : {&larger, &smaller})
      if ((b == &larger || smaller.s.batch != larger.s.batch) &&
          (!biased || s.direction == ConvolutionDirection::forward) && !primitive(*b, biased)->good)
        return false;
  return true;
}

ConvolutionBlocks onednn_blocks(const ConvolutionShape& shape) {
  ConvolutionShape s = shape;
  s.x_block = s.y_block = 0;
  const Block b = Cut{s}.block(0);
  const Made p = primitive(b, false);
  const auto of = [&](Primitive::Role r, int64_t all) {
    const memory::dims sizes = p->its[r].dims();
    for (const int64_t block : {16, 8})
      if (all % block == 0 && sizes[1] % block == 0 && p->its[r] == in_blocks(sizes, sizes[1], block))
        return block;
    return int64_t{0};
  };
  return {of(Primitive::x, s.channels), of(Primitive::y, s.outputs)};
}

int64_t onednn_weight_nbytes(const ConvolutionShape& shape) {
  const Cut cut{shape};
  const Made whole = primitive(cut.block(0), false);
  for (const bool biased : {false, true})
    for (const int64_t i : {int64_t{0}, cut.blocks - 1})
      if (primitive(cut.block(i), biased)->its[Primitive::w] != whole->its[Primitive::w]) return 0;
  return cut.parts * whole->bytes(Primitive::w);
}

void onednn_lay_weight(const ConvolutionShape& s, const void* w, void* to) {
  const Cut cut{s};
  const Made p = primitive(cut.block(0), false);
  const int64_t size = cut.channels() * s.group_channels() * s.taps();
  for (int64_t part = 0; part < cut.parts; ++part)
    bring_weight(*p, at(w, s.dtype, part * size), static_cast<char*>(to) + part * p->bytes(Primitive::w));
}

void convolution_onednn(const ConvolutionCall& call) {
  try {
    return call.shape.direction == ConvolutionDirection::weight ? over_parts(call) : over_images(call);
  } catch (const dnnl::error& e) {
    internal_error(std::string("oneDNN refused a convolution: ") + e.what());
  }
}

}  // namespace tandem::ops

#else

namespace tandem::ops {

bool onednn_convolves(const ConvolutionShape&) { return false; }
ConvolutionBlocks onednn_blocks(const ConvolutionShape&) { return {}; }
int64_t onednn_weight_nbytes(const ConvolutionShape&) { return 0; }
void onednn_lay_weight(const ConvolutionShape&, const void*, void*) {
  internal_error("this build has no oneDNN");
}
void convolution_onednn(const ConvolutionCall&) { internal_error("this build has no oneDNN"); }

}  // namespace tandem::ops

#endif
