// Kernels of pooling: the windows of ops/windows.h as text.
#include <algorithm>
#include <iterator>

#include "tandem/jit/cuda_native_text.h"
#include "tandem/jit/type_names.h"
#include "tandem/ops/windows.h"

namespace tandem::jit {

using ops::OpId;
using ops::WindowAxis;
using ops::Windows;

namespace {

std::string fields_of(const std::string& axis) {
  std::string text;
  for (const char* f : {"in", "out", "kernel", "stride", "padding", "dilation"})
    text += std::string(text.empty() ? "" : ", ") + axis + "_" + f;
  return text;
}

/// WindowAxis::positions of window `at`, as name_first, name_end and name_size.
std::string positions(const std::string& name, const std::string& axis, const std::string& at,
                      bool adaptive) {
  const std::string a = "a." + axis + "_", n = "const td_i64 " + name + "_";
  if (adaptive)
    return n + "first = " + at + " * " + a + "in / " + a + "out;\n" + n + "end = ((" + at + " + 1) * " + a +
           "in + " + a + "out - 1) / " + a + "out;\n" + n + "size = " + name + "_end - " + name + "_first;\n";
  return n + "start = " + at + " * " + a + "stride - " + a + "padding;\n" + n + "past = " + name +
         "_start + (" + a + "kernel - 1) * " + a + "dilation + 1;\n" + n + "first = " + name +
         "_start < 0 ? " + name + "_start + (" + a + "dilation - 1 - " + name + "_start) / " + a +
         "dilation * " + a + "dilation : " + name + "_start;\n" + n + "end = td_least(" + name + "_past, " +
         a + "in);\n" + n + "size = td_least(" + name + "_past, " + a + "in + " + a + "padding) - " + name +
         "_start;\n";
}

/// WindowAxis::windows of position `at`.
std::string windows(const std::string& name, const std::string& axis, const std::string& at, bool adaptive) {
  const std::string a = "a." + axis + "_", n = "const td_i64 " + name + "_";
  if (adaptive)
    return n + "first = " + at + " * " + a + "out / " + a + "in;\n" + n + "end = ((" + at + " + 1) * " + a +
           "out + " + a + "in - 1) / " + a + "in;\n";
  return n + "at = " + at + " + " + a + "padding;\n" + n + "before = " + name + "_at - (" + a +
         "kernel - 1) * " + a + "dilation;\n" + n + "first = " + name + "_before <= 0 ? 0 : (" + name +
         "_before + " + a + "stride - 1) / " + a + "stride;\n" + n + "end = td_least(" + name + "_at / " + a +
         "stride + 1, " + a + "out);\n";
}

/// `pointers`: fields between the operand and the result; words for them stand before those of the axes.
NativeText begin(const NativeCallPlan& c, const Windows& w, const std::string& fields,
                 const std::string& pointers = "", const std::vector<NativeWord>& more = {},
                 const std::string& variant = "") {
  const DType type = c.in_types[0].dtype;
  NativeText l;
  l.symbol = std::string("tandem_") + c.op->name + (w.axis[1].adaptive ? "_adaptive_" : "_") +
             c_suffix(type) + variant;
  l.source = native_head(l.symbol, std::string("const ") + c_scalar(type) + "* from; " + pointers +
                                       c_scalar(c.out_types[0].dtype) + "* to; td_i64 " + fields_of("y") +
                                       ", " + fields_of("x") + fields + ";");
  l.words = {{NativeWord::kInput, 0}};
  l.words.insert(l.words.end(), more.begin(), more.end());
  l.words.push_back({NativeWord::kOut, 0});
  for (const WindowAxis& a : w.axis)
    l.words.insert(l.words.end(), {a.in, a.out, a.kernel, a.stride, a.padding, a.dilation});
  l.count = numel(c.out_types[0].sizes);
  return l;
}

/// The place of thread t in a plane of `rows` and `columns`, as y and x; `plane` as the offset of the
/// operand.
std::string place(const char* size, const char* operand) {
  const std::string rows = std::string("a.y_") + size, columns = std::string("a.x_") + size;
  return "  const td_i64 x = t % " + columns + ", y = t / " + columns + " % " + rows +
         ";\n  const td_i64 plane = t / " + columns + " / " + rows + " * a.y_" + operand + " * a.x_" +
         operand + ";\n";
}

/// What `i` and `j`, a position of the window, are written as.
std::string place_of(bool small, const std::string& i, const std::string& j) {
  if (!small) return i + " * a.x_in + " + j;
  return "(" + i + " - rows_first) / a.y_dilation * a.width + (" + j + " - columns_first) / a.x_dilation";
}

/// `i` and `j` of place k, and whether they are a position of the window.
std::string position_of(bool small) {
  if (small)
    return "  const td_i64 i = rows_first + k / a.width * a.y_dilation;\n"
           "  const td_i64 j = columns_first + k % a.width * a.x_dilation;\n"
           "  const bool inside = i < rows_end && j < columns_end;\n";
  return "  const td_i64 i = k / a.x_in, j = k % a.x_in;\n"
         "  const bool inside = k >= 0 && i >= rows_first && i < rows_end && j >= columns_first && j < "
         "columns_end && (i - rows_first) % a.y_dilation == 0 && (j - columns_first) % a.x_dilation == 0;\n";
}

/// Whether each position lies in one window at most, and few of them are between the starts of two.
bool windows_apart(const Windows& w) {
  constexpr int64_t kFew = 4;
  return std::all_of(std::begin(w.axis), std::end(w.axis), [](const WindowAxis& a) {
    return !a.adaptive && a.dilation == 1 && a.kernel <= a.stride && a.stride <= kFew;
  });
}

/// The gradient of a max pooling whose windows are apart: a thread has a window, whose place and gradient it
/// reads once, and what lies between that and the next.
void gradient_apart(NativeText* l, const NativeCallPlan& c, const Windows& w, bool small) {
  const DType type = c.in_types[0].dtype, wide = native_sum_type(type);
  const std::string scalar = c_scalar(wide), place = c_scalar(c.in_types[1].dtype);
  const auto tiles = [](const WindowAxis& a) { return (a.in - 1 + a.padding) / a.stride + 1; };
  const int64_t in_plane = std::max<int64_t>(1, w.in_plane());
  l->count = l->count / in_plane * tiles(w.axis[0]) * tiles(w.axis[1]);
  l->words.insert(l->words.end(), {tiles(w.axis[0]), tiles(w.axis[1])});
  const auto each = [](const std::string& at, const std::string& axis, const std::string& window) {
    const std::string a = "a." + axis + "_", start = window + " * " + a + "stride - " + a + "padding";
    return "for (td_i64 " + at + " = " + start + " < 0 ? 0 : " + start + "; " + at + " < td_least(" + start +
           " + " + a + "stride, " + a + "in); ++" + at + ")";
  };
  const std::string at = small ? "(y - rows_first) * a.width + (x - columns_first)" : "y * a.x_in + x";
  l->source +=
      "  const td_i64 p = t % a.columns, o = t / a.columns % a.rows, n = t / a.columns / a.rows;\n"
      "  const bool window = o < a.y_out && p < a.x_out;\n"
      "  const td_i64 from = (n * a.y_out + o) * a.x_out + p;\n  const " +
      place + " place = window ? a.places[from] : " + place + "();\n  const " + scalar +
      " share = window ? td_add((" + scalar + ")0, " + native_convert(type, wide, "a.from[from]") + ") : (" +
      scalar + ")0;\n" + positions("rows", "y", "o", false) + positions("columns", "x", "p", false) + "  " +
      each("y", "y", "o") + "\n    " + each("x", "x", "p") +
      " {\n"
      "      const bool inside = window && y < rows_end && x < columns_end;\n"
      "      a.to[(n * a.y_in + y) * a.x_in + x] = " +
      native_convert(wide, type, "inside && place == " + at + " ? share : (" + scalar + ")0") +
      ";\n    }\n}\n";
}

}  // namespace

NativeText max_pool_text(const NativeCallPlan& c) {
  const Windows w = ops::windows_of(*c.op, c.in_types[0].sizes, c.words);
  const bool adaptive = w.axis[1].adaptive, forward = c.op->id == OpId::max_pool;
  const DType type = c.in_types[0].dtype, wide = native_sum_type(type);
  const DType places = forward ? c.out_types[1].dtype : c.in_types[1].dtype;
  const bool small = places == DType::uint8;
  const std::string scalar = c_scalar(wide), own = c_scalar(places);
  const auto load = [&](const std::string& at) {
    return native_convert(type, wide, "a.from[plane + " + at + "]");
  };
  const bool apart = c.op->id == OpId::max_pool_backward && windows_apart(w);
  NativeText l = begin(c, w, apart ? ", width, rows, columns" : ", width",
                       (forward ? "" : "const ") + own + "* places; ",
                       {{forward ? NativeWord::kOutputs - 1 : NativeWord::kInput + 1, 0}},
                       std::string(small ? "_small" : "") + (apart ? "_apart" : ""));
  l.words.push_back(w.axis[1].widest());
  if (apart) {
    gradient_apart(&l, c, w, small);
    return l;
  }
  const std::string rows = positions("rows", "y", "y", adaptive),
                    columns = positions("columns", "x", "x", adaptive);
  if (forward) {
    l.source += place("out", "in") + rows + columns + "  td_i64 row = -1, column = 0;\n  " + scalar +
                " best = 0;\n  " + c_scalar(type) +
                " top = {};\n"
                "  for (td_i64 i = rows_first; i < rows_end; i += a.y_dilation)\n"
                "    for (td_i64 j = columns_first; j < columns_end; j += a.x_dilation) {\n"
                "      const " +
                c_scalar(type) + " u = a.from[plane + i * a.x_in + j];\n      const " + scalar +
                " v = " + native_convert(type, wide, "u") +
                ";\n      if (row < 0 || v > best || v != v) best = v, top = u, row = i, column = j;\n    }\n"
                "  a.to[t] = top;\n  a.places[t] = (" +
                own + ")(" + place_of(small, "row", "column") + ");\n}\n";
    return l;
  }
  if (c.op->id == OpId::max_pool_pick) {
    l.source += place("out", "in") + rows + columns + "  const td_i64 k = a.places[t];\n" +
                position_of(small) + "  if (inside)\n    a.to[t] = a.from[plane + i * a.x_in + j];\n" +
                "  else\n    a.to[t] = {};\n}\n";
    return l;
  }
  // Of the windows that may hold (y, x), those that say so.
  l.source += place("in", "out") + windows("above", "y", "y", adaptive) +
              windows("left", "x", "x", adaptive) + "  " + scalar +
              " sum = 0;\n  for (td_i64 o = above_first; o < above_end; ++o) {\n" +
              positions("rows", "y", "o", adaptive) +
              "    if ((y - rows_first) % a.y_dilation != 0) continue;\n"
              "    for (td_i64 p = left_first; p < left_end; ++p) {\n" +
              positions("columns", "x", "p", adaptive) +
              "      if ((x - columns_first) % a.x_dilation != 0) continue;\n"
              "      if (a.places[plane + o * a.x_out + p] == " +
              place_of(small, "y", "x") + ") sum = td_add(sum, " + load("o * a.x_out + p") +
              ");\n    }\n  }\n  a.to[t] = " + native_convert(wide, type, "sum") + ";\n}\n";
  return l;
}

NativeText avg_pool_text(const NativeCallPlan& c) {
  const Windows w = ops::windows_of(*c.op, c.in_types[0].sizes, c.words);
  const bool adaptive = w.axis[1].adaptive, backward = c.op->id == OpId::avg_pool_backward;
  const DType type = c.in_types[0].dtype, wide = native_sum_type(type);
  const std::string sum = c_scalar(wide);
  const auto element = [&](const char* at) {
    return native_convert(type, wide, std::string("a.from[plane + ") + at + "]");
  };
  const std::string divisor = "(" + sum +
                              ")(a.divisor != 0 ? a.divisor : a.counted ? rows_size * columns_size : "
                              "(rows_end - rows_first) * (columns_end - "
                              "columns_first))";
  NativeText l = begin(c, w, ", divisor, counted");
  l.words.insert(l.words.end(), {c.words[3], c.words[2]});
  if (backward) {
    l.source +=
        place("in", "out") + windows("above", "y", "y", adaptive) + windows("left", "x", "x", adaptive) +
        "  " + sum + " sum = 0;\n  for (td_i64 i = above_first; i < above_end; ++i) {\n" +
        positions("rows", "y", "i", adaptive) + "    for (td_i64 j = left_first; j < left_end; ++j) {\n" +
        positions("columns", "x", "j", adaptive) + "      sum = td_add(sum, td_div(" +
        element("i * a.x_out + j") + ", " + divisor +
        "));\n    }\n  }\n  a.to[t] = " + native_convert(wide, type, "sum") + ";\n}\n";
    return l;
  }
  l.source += place("out", "in") + positions("rows", "y", "y", adaptive) +
              positions("columns", "x", "x", adaptive) + "  " + sum +
              " sum = 0;\n  for (td_i64 i = rows_first; i < rows_end; ++i)\n"
              "    for (td_i64 j = columns_first; j < columns_end; ++j) sum = td_add(sum, " +
              element("i * a.x_in + j") +
              ");\n  const bool any = rows_first < rows_end && columns_first < columns_end;\n  a.to[t] = " +
              native_convert(wide, type, "any ? td_div(sum, " + divisor + ") : (" + sum + ")0") + ";\n}\n";
  return l;
}

}  // namespace tandem::jit
