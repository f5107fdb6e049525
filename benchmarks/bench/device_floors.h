// What a CUDA device's kernels have to load and store, counted by hand: instructions of one thread, of 16
// bytes where neighbours are read, and their bytes, whether these come from memory or from a cache. Library
// products are not in it. Functions of sizes alone, for the benchmark and for tests; any thread.
#pragma once

#include <optional>
#include <string>

namespace bench {

inline constexpr double kAboveFloor = 1.05;  // what is found, at most, in multiples of these

struct DeviceFloor {
  double loads = 0, stores = 0, bytes = 0;
  int entries = 0;  // of the plan, at most; 0: not said
  std::string how;  // one line
  void add(double of, double read, double written, double nbytes) {
    loads += of * read, stores += of * written, bytes += of * nbytes;
  }
};

/// Of a row or pointwise workload of the benchmark, on `rows` x `columns` elements of so many bytes; nothing
/// for another.
inline std::optional<DeviceFloor> row_floor(const std::string& name, double rows, double columns,
                                            double size = 4) {
  const double n = rows * columns, pack = n * size / 16, warp = rows * 16;  // 16 threads have a row
  DeviceFloor f;
  const auto passes = [&](double read, double written, const char* how) {
    f.loads = read * pack, f.stores = written * pack;
    f.bytes = size * n * (read + written), f.how = how;
  };
  // Sums over columns of what the walk over rows has: left for each 32 rows, so many columns a thread, and
  // joined, 4 bytes a thread.
  const auto across = [&](double sums, double thread) {
    const double left = sums * columns * rows / 32;
    f.loads += left, f.stores += left / thread + sums * columns, f.bytes += 8 * left + 4 * sums * columns;
  };
  // A bias or weight is loaded for each row again: from a cache.
  if (name == "softmax") passes(1, 1, "x and y once");
  if (name == "softmax_backward") passes(2, 1, "y, dy and dx once");
  if (name == "layer_norm") passes(3, 1, "x, weight, bias and y once for each element");
  if (name == "layer_norm_backward") {
    passes(3, 1,
           "x, dy, weight and dx once for each element, two numbers a thread; two sums of each 32 rows");
    f.loads += 2 * n / 4, f.bytes += 8 * n / 4;  // the row's mean and rstd: of a warp they are one access
    across(2, 4);
  }
  if (name == "rms_norm") passes(2, 1, "x, weight and y once for each element");
  if (name == "rms_norm_backward") {
    passes(3, 1, "x, dy, weight and dx once for each element; a sum of each 32 rows");
    across(1, 4);
  }
  if (name == "cross_entropy") {
    passes(1, 0, "x, a row's label and its logit once; 2 numbers a row");
    f.loads += 2 * rows, f.stores += 2 * rows, f.bytes += (8 + 4 + 8) * rows;
  }
  if (name == "cross_entropy_backward") {
    passes(1, 1, "x and dx once; a label and three numbers for each of a row's 16 threads");
    f.loads += 4 * warp, f.bytes += 20 * warp;
  }
  if (name == "gelu" || name == "gelu_dropout") passes(2, 1, "x, bias and y once for each element");
  if (name == "gelu_backward") {  // a column a thread, so that the bias's gradient is summed on the way
    const double left = n / 32;
    f.loads = 2 * n + left, f.stores = n + left, f.bytes = 3 * size * n + 8 * left;
    f.how = "x, dy and dx once, an element a thread; a sum of each 32 rows, once";
  }
  if (name == "gelu_dropout_backward") {
    passes(2, 1, "x + bias, dy and dx once for each element; a sum of each 32 rows, a column a thread, once");
    across(1, 1);
  }
  if (f.how.empty()) return std::nullopt;
  return f;
}

/// A network of in-first-second-10 with ReLU.
struct MlpSizes {
  double batch, in, first = 256, second = 128;
  double hidden() const { return first + second; }
  static constexpr double classes() { return 10; }
};
/// Its training step with Adam.
inline DeviceFloor mlp_floor(const MlpSizes& m) {
  DeviceFloor f;
  f.add(m.batch * m.in, 1, 1, 8);             // the batch, into the graph's block
  f.add(m.batch * m.hidden(), 0.25, 0.5, 9);  // ReLU, and its mask of a byte
  f.add(m.batch * m.hidden(), 2, 1, 9);       // its gradient; columns are summed
  f.add(m.hidden(), 3, 4, 28);                // and update the biases
  f.add(m.batch * m.classes(), 4, 2, 40);     // the loss and its gradient
  f.add(m.in * m.first + m.first * m.second + m.second * m.classes(), 1, 0.75, 4 * (4 + 3));  // Adam
  f.entries = 14;  // 8 products, ReLU and its gradients, all of the loss with the last bias, Adam
  f.how = "batch, ReLU with its mask, its gradient (4 bytes a thread) with the bias's, Adam: each value once";
  return f;
}

/// Its loss alone.
inline DeviceFloor mlp_inference_floor(const MlpSizes& m) {
  DeviceFloor f;
  f.add(m.batch * m.in, 1, 1, 8);              // the batch, into the graph's block
  f.add(m.batch * m.hidden(), 0.25, 0.25, 8);  // ReLU
  f.add(m.batch * m.classes(), 2, 0, 8);       // logits and biases
  f.add(m.batch, 3, 2, 8 + 4 * 4);             // labels, their logits, each row's loss
  f.entries = 6;                               // 3 products, 2 of ReLU, the loss
  f.how = "batch, ReLU, the loss: each value once";
  return f;
}

/// The benchmark's decoder, whose last layer is its table of words.
struct GptSizes {
  double layers, width, heads, length, batch, words;
};
/// Its training step with AdamW.
inline DeviceFloor gpt_floor(const GptSizes& sizes) {
  const auto [layers, width, heads, length, batch, words] = sizes;
  const double rows = batch * length, n = rows * width, scores = batch * heads * length * length;
  const double norms = 2 * layers + 1;
  DeviceFloor f;
  f.add(norms * n, 1, 0.75, 28);               // sum, weight, bias; the sum is kept, and what is normal
  f.add(norms * n, 1 + 16 / width, 0.25, 20);  // their gradients along rows
  f.add(2 * layers * n, 0.25, 0.25, 8);        // with the norms' results again, for products: bias, result
  f.add(norms * n, 2, 0, 8);                   // and along columns, 4 bytes a thread
  f.add(layers * scores, 0.5, 0.25, 9);        // attention's softmax with its mask of a byte
  f.add(layers * scores, 0.5, 0.25, 12);       // its gradient
  f.add(layers * n, 1, 1, 32);                 // GELU
  f.add(layers * n, 8, 8, 64);        // its gradient with the bias's, and its value again: 4 bytes a thread
  f.add(layers * n, 0.75, 0.75, 24);  // gradients of query, key and value, side by side
  f.add(layers * n, 5, 0, 20);        // of the other biases
  f.add(rows * words, 7, 2, 36);      // the loss and its gradient
  f.add(n, 5.5, 1.6, 30);             // the tables' rows and their gradients
  f.add(12 * layers * width * width + length * width, 1, 0.75, 28);  // AdamW
  f.add(words * width, 5, 4, 36);  // of the table of words, whose gradient comes transposed
  f.how = "each kernel's operands and results once: 16 bytes, but 4 where columns are summed or gathered";
  return f;
}

/// Its loss alone.
inline DeviceFloor gpt_inference_floor(const GptSizes& sizes) {
  const auto [layers, width, heads, length, batch, words] = sizes;
  const double rows = batch * length, n = rows * width, scores = batch * heads * length * length;
  DeviceFloor f;
  f.add(n + length * width, 1.25, 0.25, 16);  // rows of the tables, an index for each element
  f.add((2 * layers + 1) * n, 1, 0.5, 24);    // sum, weight, bias; the sum is kept, and what is normal
  f.add(n, 0, -0.25, -4);                     // but for the last one's
  f.add(layers * scores, 0.5, 0.25, 9);       // attention's softmax with its mask of a byte
  f.add(layers * 4 * n, 0.25, 0.25, 8);       // GELU
  f.add(rows * words, 2, 0, 8);               // the loss
  f.add(rows, 8, 2, 40);                      // its labels and rows
  f.entries = 46;
  f.how = "each kernel's operands and results once, 16 bytes at a time";
  return f;
}

/// A training step of the benchmark's convolutional network with SGD.
inline DeviceFloor cnn_floor(double batch) {
  const double first = batch * 32 * 28 * 28, second = batch * 64 * 14 * 14, all = first + second;
  DeviceFloor f;
  f.add(all, 0.5, 0.25, 9);                                        // ReLU, and a bias for 4 elements
  f.add(all / 4, 4, 2, 16 + 5);                                    // pooling, and positions of a byte
  f.add(all / 4, 0.5, 0.25, 12);                                   // ReLU's gradient, by what was pooled
  f.add(all / 4, 2, 4, 5 + 16);                                    // pooling's
  f.add(all, 0.25, 0, 4);                                          // the bias's
  f.add(9 * 32 + 9 * 32 * 64 + 3136 * 128 + 1280, 0.5, 0.25, 12);  // SGD
  f.how = "bias and ReLU, pooling, their gradients, SGD: each value once; 4 bytes a thread in pooling";
  return f;
}

/// Of a row workload by its name: "gelu", "gelu_64x3072_backward", "softmax_16384x4096_bf16".
inline std::optional<DeviceFloor> named_row_floor(std::string name) {
  const auto take = [&](const std::string& end) {
    if (!name.ends_with(end)) return false;
    name.resize(name.size() - end.size());
    return true;
  };
  const bool backward = take("_backward");
  const double size = take("_bf16") ? 2 : 4;
  double rows = 4096, columns = 1024;
  const size_t at = name.rfind('_'), x = name.rfind('x');
  if (at != std::string::npos && name.find_first_not_of("0123456789x", at + 1) == std::string::npos &&
      x != std::string::npos && x > at + 1 && x + 1 < name.size()) {
    rows = std::stod(name.substr(at + 1, x - at - 1)), columns = std::stod(name.substr(x + 1));
    name.resize(at);
  }
  return row_floor(name + (backward ? "_backward" : ""), rows, columns, size);
}

/// Of a workload of the benchmark by its name.
inline std::optional<DeviceFloor> device_floor(const std::string& name) {
  constexpr GptSizes kGptSizes{4, 128, 4, 64, 12, 65};
  if (name == "mlp64") return mlp_floor({64, 64});
  if (name == "mlp784") return mlp_floor({64, 784});
  if (name == "mlp784_1024") return mlp_floor({64, 784, 1024, 1024});
  if (name == "mlp784_infer") return mlp_inference_floor({64, 784});
  if (name == "mlp784_infer1") return mlp_inference_floor({1, 784});
  if (name == "mlp784_1024_infer") return mlp_inference_floor({64, 784, 1024, 1024});
  if (name == "mlp784_1024_infer1") return mlp_inference_floor({1, 784, 1024, 1024});
  if (name == "gpt") {
    DeviceFloor f = gpt_floor(kGptSizes);
    f.entries = 130;
    return f;
  }
  if (name == "gpt_infer") return gpt_inference_floor(kGptSizes);
  if (name == "cnn") return cnn_floor(64);
  return named_row_floor(name);
}

}  // namespace bench
