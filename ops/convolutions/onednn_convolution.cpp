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

#include "tandem/ops/convolutions/onednn_primitive.inc"

namespace tandem::ops {
namespace {

constexpr double kBlockFlops = 32e6, kBlockBytes = 0.5e6;  // of a block at most; bytes of x and y together
constexpr int64_t kEnoughBlocks = 4;
// Winograd's tiles of 4 x 4 results in a block: the weight is transformed for each, so that fewer are slower
// than sums (with 256 channels, 1.0 times as fast with 16, 1.4 with 32, 1.6 with 64, 1.8 with 128).
constexpr int64_t kFewTiles = 32, kTiles = 128;

int64_t tiles_of_image(const ConvolutionShape& s) {
  const auto& made = s.direction == ConvolutionDirection::input ? s.in : s.out;
  return made[0] * ((made[1] + 3) / 4) * ((made[2] + 3) / 4);
}

/// Whether the processor does: elsewhere oneDNN's code for bfloat16 is slower than float32's. Its own limits
/// on instruction sets (ONEDNN_MAX_CPU_ISA) count.
bool multiplies_bfloats() {
  constexpr auto kWanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kWanted) == kWanted;
}

/// How a call is cut: into blocks of `images` images, the last of which may have fewer (a gradient of the
/// weight: into `blocks` of about as many), and each into `parts` of the result's channels.
struct Cut {
  const ConvolutionShape& s;
  const OnednnWay way;
  const bool weight = s.direction == ConvolutionDirection::weight;
  const int64_t x_image = s.channels * s.in_positions(), y_image = s.outputs * s.out_positions();
  const int64_t images = weight ? (s.batch + sums() - 1) / sums() : images_a_block();
  const int64_t blocks = (s.batch + images - 1) / images;
  const int64_t parts = channel_parts();

  int64_t first(int64_t block) const {
    return weight ? block * s.batch / blocks : std::min(s.batch, block * images);
  }
  int64_t channels() const {  // of a part
    return (s.direction == ConvolutionDirection::input ? s.channels : s.outputs) / parts;
  }
  Block block(int64_t i) const {
    Block b{s, way, x_image, y_image, s.group_channels() * s.taps()};
    b.s.batch = first(i + 1) - first(i);
    (s.direction == ConvolutionDirection::input ? b.s.channels : b.s.outputs) = channels();
    return b;
  }

  int64_t tiles() const { return images * tiles_of_image(s); }

 private:
  /// Parts in which a gradient of the weight is made.
  int64_t sums() const {
    if (way == OnednnWay::direct) return batch_parts(s);
    return std::clamp<int64_t>(s.batch * tiles_of_image(s) / kFewTiles, 1, batch_parts(s));
  }
  int64_t images_a_block() const {
    if (way == OnednnWay::winograd) {
      const int64_t image = tiles_of_image(s);
      const int64_t many = (kTiles + image - 1) / image, few = (kFewTiles + image - 1) / image;
      return std::clamp<int64_t>(s.batch / many >= kEnoughBlocks ? many : few, 1, s.batch);
    }
    const double flops = s.flops() / static_cast<double>(s.batch);
    const double bytes = static_cast<double>(itemsize(s.dtype) * (x_image + y_image));
    return std::clamp<int64_t>(static_cast<int64_t>(std::min(kBlockFlops / flops, kBlockBytes / bytes)), 1,
                               s.batch);
  }
  int64_t channel_parts() const {
    const int64_t lanes = way == OnednnWay::winograd ? 128 : 16;  // fewer transform operands too often
    constexpr double kWorth = 4e6;  // of a part: the operand's layout is made once for each
    const int64_t all = s.direction == ConvolutionDirection::input ? s.channels : s.outputs;
    if (s.groups != 1 || blocks >= kEnoughBlocks) return 1;
    for (const int64_t n : {4, 2})
      if (all % (n * lanes) == 0 && s.flops() / static_cast<double>(blocks * n) >= kWorth) return n;
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

void over_images(const ConvolutionCall& call, OnednnWay way) {
  const ConvolutionShape& s = call.shape;
  const Cut cut{s, way};
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

void over_parts(const ConvolutionCall& call, OnednnWay way) {
  const ConvolutionShape& s = call.shape;
  const Cut cut{s, way};
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

bool onednn_convolves(const ConvolutionShape& s, OnednnWay way) {
  const bool bfloats = s.dtype == DType::bfloat16 && way == OnednnWay::direct && multiplies_bfloats();
  if (s.empty() || !(s.dtype == DType::float32 || bfloats)) return false;
  const Cut cut{s, way};
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

bool winograd_pays(const ConvolutionShape& s) {
  constexpr int64_t kFewestProducts = 1024;  // of a result's channels and an operand's
  return s.channels * s.outputs >= kFewestProducts && Cut{s, OnednnWay::winograd}.tiles() >= kFewTiles;
}

ConvolutionBlocks onednn_blocks(const ConvolutionShape& shape, OnednnWay way) {
  ConvolutionShape s = shape;
  s.x_block = s.y_block = 0;
  const Block b = Cut{s, way}.block(0);
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

int64_t onednn_weight_nbytes(const ConvolutionShape& shape, OnednnWay way) {
  const Cut cut{shape, way};
  const Made whole = primitive(cut.block(0), false);
  for (const bool biased : {false, true})
    for (const int64_t i : {int64_t{0}, cut.blocks - 1})
      if (primitive(cut.block(i), biased)->its[Primitive::w] != whole->its[Primitive::w]) return 0;
  return cut.parts * whole->bytes(Primitive::w);
}

void onednn_lay_weight(const ConvolutionShape& s, OnednnWay way, const void* w, void* to) {
  const Cut cut{s, way};
  const Made p = primitive(cut.block(0), false);
  const int64_t size = cut.channels() * s.group_channels() * s.taps();
  for (int64_t part = 0; part < cut.parts; ++part)
    bring_weight(*p, at(w, s.dtype, part * size), static_cast<char*>(to) + part * p->bytes(Primitive::w));
}

void convolution_onednn(const ConvolutionCall& call, OnednnWay way) {
  try {
    return call.shape.direction == ConvolutionDirection::weight ? over_parts(call, way)
                                                                : over_images(call, way);
  } catch (const dnnl::error& e) {
    internal_error(std::string("oneDNN refused a convolution: ") + e.what());
  }
}

}  // namespace tandem::ops

#else

namespace tandem::ops {

bool onednn_convolves(const ConvolutionShape&, OnednnWay) { return false; }
bool winograd_pays(const ConvolutionShape&) { return false; }
ConvolutionBlocks onednn_blocks(const ConvolutionShape&, OnednnWay) { return {}; }
int64_t onednn_weight_nbytes(const ConvolutionShape&, OnednnWay) { return 0; }
void onednn_lay_weight(const ConvolutionShape&, OnednnWay, const void*, void*) {
  internal_error("this build has no oneDNN");
}
void convolution_onednn(const ConvolutionCall&, OnednnWay) { internal_error("this build has no oneDNN"); }

}  // namespace tandem::ops

#endif
