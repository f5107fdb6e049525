// Convolutions as products of own tiles. For a block of output lines of one image and group, the part of x
// that each tap reads is copied to a matrix of columns (channels * taps, positions), small enough for the
// second-level cache; then
//   y = w * columns,   columns of x's gradient = w^T * y, added back to where they came from,
//   w = the sum over blocks of y * columns^T.
// Where every tap is one element (a 1x1 kernel without stride or padding), x itself is the columns.
// Blocks depend on the shape alone, and so do the orders of additions.
#include <algorithm>

#include "tandem/core/thread_pool.h"
#include "tandem/ops/convolutions/providers.h"
#include "tandem/ops/products/providers.h"

namespace tandem::ops {
namespace {

constexpr int64_t kBlockBytes = 512 * 1024;  // of columns
constexpr int64_t kFewest = 64;              // positions of a block, if there are as many

template <class T>
class Tiles {
 public:
  explicit Tiles(const ConvolutionCall& call)
      : s_(call.shape),
        x_(static_cast<const T*>(call.x)),
        w_(static_cast<const T*>(call.w)),
        y_(static_cast<const T*>(call.y)),
        bias_(static_cast<const T*>(call.bias)),
        result_(static_cast<T*>(call.result)),
        depth_(s_.group_channels() * s_.taps()),
        lines_(s_.out[0] * s_.out[1]) {
    // A block is some lines or, where one is too long, a part of it.
    const int64_t fits = std::max<int64_t>(kBlockBytes / (depth_ * static_cast<int64_t>(sizeof(T))), kFewest);
    block_width_ = std::min(fits, s_.out[2]);
    block_lines_ = std::clamp<int64_t>(fits / s_.out[2], 1, lines_);
    line_blocks_ = (s_.out[2] + block_width_ - 1) / block_width_;
    blocks_ = (lines_ + block_lines_ - 1) / block_lines_ * line_blocks_;
    plain_ = true;
    for (int d = 0; d < kConvolutionAxes; ++d)
      plain_ =
          plain_ && s_.kernel[d] == 1 && s_.stride[d] == 1 && s_.padding[d] == 0 && s_.in[d] == s_.out[d];
  }

  void forward() const {
    core::parallel(s_.batch * s_.groups * blocks_, grain(blocks_), [&](int64_t begin, int64_t end) {
      const Scratch space(columns_bytes());
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / blocks_ / s_.groups, g = i / blocks_ % s_.groups;
        const Block b = block(i % blocks_);
        const T* image = x_ + (n * s_.channels + g * s_.group_channels()) * s_.in_positions();
        const Columns c = columns(image, b, space.as<T>());
        const int64_t first = g * s_.group_outputs();
        // Transposed, so that the bias belongs to columns.
        product({.m = b.count,
                 .n = s_.group_outputs(),
                 .k = depth_,
                 .dtype = dtype_of<T>,
                 .a = c.data,
                 .a_row = 1,
                 .a_col = c.row,
                 .b = w_ + first * depth_,
                 .b_row = 1,
                 .b_col = depth_,
                 .bias = bias_ ? bias_ + first : nullptr,
                 .bias_stride = 1,
                 .c = result_ + (n * s_.outputs + first) * s_.out_positions() + b.first,
                 .c_row = 1,
                 .c_col = s_.out_positions()},
                Provider::tiles);
      }
    });
  }

  void input() const {
    core::parallel(s_.batch * s_.groups, grain(1), [&](int64_t begin, int64_t end) {
      const Scratch space(plain_ ? 0 : depth_ * largest_block() * static_cast<int64_t>(sizeof(T)));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / s_.groups, g = i % s_.groups, first = g * s_.group_outputs();
        T* image = result_ + (n * s_.channels + g * s_.group_channels()) * s_.in_positions();
        const T* from = y_ + (n * s_.outputs + first) * s_.out_positions();
        if (!plain_) std::fill_n(image, s_.group_channels() * s_.in_positions(), T{});
        for (int64_t k = 0; k < blocks_; ++k) {
          const Block b = block(k);
          T* to = plain_ ? image + b.first : space.as<T>();
          const int64_t row = plain_ ? s_.in_positions() : b.count;
          product({.m = depth_,
                   .n = b.count,
                   .k = s_.group_outputs(),
                   .dtype = dtype_of<T>,
                   .a = w_ + first * depth_,
                   .a_row = 1,
                   .a_col = depth_,
                   .b = from + b.first,
                   .b_row = s_.out_positions(),
                   .b_col = 1,
                   .c = to,
                   .c_row = row,
                   .c_col = 1},
                  Provider::tiles);
          if (!plain_) add_columns(to, b, image);
        }
        if (bias_) add_bias(image, bias_ + g * s_.group_channels());
      }
    });
  }

  void weight() const {
    const int64_t parts = batch_parts(s_), size = s_.w_size(), rows = s_.group_outputs();
    const Scratch sums(parts * size * static_cast<int64_t>(sizeof(T)));
    core::parallel(parts * s_.groups, 1, [&](int64_t begin, int64_t end) {
      const Scratch space(columns_bytes()), one(rows * depth_ * static_cast<int64_t>(sizeof(T)));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t part = i / s_.groups, g = i % s_.groups;
        T* to = sums.as<T>() + part * size + g * rows * depth_;
        bool fresh = true;
        for (int64_t n = part * s_.batch / parts; n < (part + 1) * s_.batch / parts; ++n)
          for (int64_t k = 0; k < blocks_; ++k) {
            const Block b = block(k);
            const T* image = x_ + (n * s_.channels + g * s_.group_channels()) * s_.in_positions();
            const Columns c = columns(image, b, space.as<T>());
            product({.m = rows,
                     .n = depth_,
                     .k = b.count,
                     .dtype = dtype_of<T>,
                     .a = y_ + (n * s_.outputs + g * rows) * s_.out_positions() + b.first,
                     .a_row = s_.out_positions(),
                     .a_col = 1,
                     .b = c.data,
                     .b_row = 1,
                     .b_col = c.row,
                     .c = fresh ? to : one.as<T>(),
                     .c_row = depth_,
                     .c_col = 1},
                    Provider::tiles);
            if (!fresh)
              for (int64_t j = 0; j < rows * depth_; ++j) to[j] += one.as<T>()[j];
            fresh = false;
          }
      }
    });
    join_weights(s_, sums.as<T>(), parts, result_);
  }

 private:
  struct Block {
    int64_t line, lines;      // of the output
    int64_t column, columns;  // of each line
    int64_t first, count;     // positions
  };
  struct Columns {
    const T* data;
    int64_t row;
  };

  Block block(int64_t i) const {
    const int64_t line = i / line_blocks_ * block_lines_, lines = std::min(block_lines_, lines_ - line);
    const int64_t column = i % line_blocks_ * block_width_,
                  columns = std::min(block_width_, s_.out[2] - column);
    return {line, lines, column, columns, line * s_.out[2] + column, lines * columns};
  }
  int64_t largest_block() const { return block_lines_ * block_width_; }
  int64_t columns_bytes() const {
    return plain_ ? 0 : depth_ * largest_block() * static_cast<int64_t>(sizeof(T));
  }
  /// So many pieces are worth a thread, where an image's group is cut into `pieces`.
  int64_t grain(int64_t pieces) const {
    const double each = s_.flops() / static_cast<double>(s_.batch * s_.groups * pieces);
    return static_cast<int64_t>(kSerialFlops / each) + 1;
  }

  /// Calls run(row of the columns, position in the block, place in the channel's plane that its first column
  /// reads, first and end of the columns that read no padding) for each line of the block and each tap.
  template <class Run>
  void for_runs(const Block& b, int64_t channel, Run&& run) const {
    int64_t row = channel * s_.taps();
    for (int64_t kz = 0; kz < s_.kernel[0]; ++kz)
      for (int64_t ky = 0; ky < s_.kernel[1]; ++ky)
        for (int64_t kx = 0; kx < s_.kernel[2]; ++kx, ++row) {
          const int64_t step = s_.stride[2];
          const int64_t shift = b.column * step + kx * s_.dilation[2] - s_.padding[2];
          const int64_t first = std::clamp<int64_t>((-shift + step - 1) / step, 0, b.columns);
          const int64_t room = s_.in[2] - shift;  // elements of x from the tap's place at column 0 on
          const int64_t end =
              room <= 0 ? first : std::clamp<int64_t>((room + step - 1) / step, first, b.columns);
          for (int64_t l = 0; l < b.lines; ++l) {
            const int64_t z = (b.line + l) / s_.out[1] * s_.stride[0] + kz * s_.dilation[0] - s_.padding[0];
            const int64_t v = (b.line + l) % s_.out[1] * s_.stride[1] + ky * s_.dilation[1] - s_.padding[1];
            const bool inside = z >= 0 && z < s_.in[0] && v >= 0 && v < s_.in[1];
            if (inside)
              run(row, l * b.columns, (z * s_.in[1] + v) * s_.in[2] + shift, first, end);
            else
              run(row, l * b.columns, 0, int64_t{0}, int64_t{0});
          }
        }
  }

  Columns columns(const T* image, const Block& b, T* space) const {
    if (plain_) return {image + b.first, s_.in_positions()};
    const int64_t width = b.columns, step = s_.stride[2];
    for (int64_t c = 0; c < s_.group_channels(); ++c) {
      const T* plane = image + c * s_.in_positions();
      for_runs(b, c, [&](int64_t row, int64_t at, int64_t offset, int64_t first, int64_t end) {
        T* to = space + row * b.count + at;
        std::fill(to, to + first, T{});
        if (step == 1 && first < end)
          std::copy_n(plane + offset + first, end - first, to + first);
        else
          for (int64_t i = first; i < end; ++i) to[i] = plane[offset + i * step];
        std::fill(to + end, to + width, T{});
      });
    }
    return {space, b.count};
  }

  void add_columns(const T* from, const Block& b, T* image) const {
    const int64_t step = s_.stride[2];
    for (int64_t c = 0; c < s_.group_channels(); ++c) {
      T* plane = image + c * s_.in_positions();
      for_runs(b, c, [&](int64_t row, int64_t at, int64_t offset, int64_t first, int64_t end) {
        const T* line = from + row * b.count + at;
        if (step == 1)
          for (int64_t i = first; i < end; ++i) plane[offset + i] += line[i];
        else
          for (int64_t i = first; i < end; ++i) plane[offset + i * step] += line[i];
      });
    }
  }

  void add_bias(T* image, const T* bias) const {
    const int64_t positions = s_.in_positions();
    for (int64_t c = 0; c < s_.group_channels(); ++c)
      for (int64_t i = 0; i < positions; ++i) image[c * positions + i] += bias[c];
  }

  const ConvolutionShape& s_;
  const T *x_, *w_, *y_, *bias_;
  T* result_;
  int64_t depth_, lines_, block_lines_, block_width_, line_blocks_, blocks_;
  bool plain_;
};

template <class T>
void run(const ConvolutionCall& call) {
  const Tiles<T> tiles(call);
  switch (call.shape.direction) {
    case ConvolutionDirection::forward:
      return tiles.forward();
    case ConvolutionDirection::input:
      return tiles.input();
    case ConvolutionDirection::weight:
      return tiles.weight();
  }
}

}  // namespace

void convolution_tiles(const ConvolutionCall& call) {
  if (call.shape.dtype == DType::float32)
    run<float>(call);
  else
    run<double>(call);
}

}  // namespace tandem::ops
