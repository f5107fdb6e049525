// argsort on a CUDA device, stable on all paths: a thread for each element counts those before it in its
// line; where that reads more than sorting costs, elements are sorted by their digits, 32 bits of the value
// after 32 bits, and then by their lines.
#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "tandem/jit/cuda_sort.h"
#include "tandem/jit/type_names.h"
#include "tandem/ops/axis_split.h"

namespace tandem::jit {

namespace {

/// The sort's elements are numbered line after line.
struct Lines {
  explicit Lines(const NativeCallPlan& c)
      : type(c.in_types[0].dtype),
        all(ops::split_axis(c.in_types[0].sizes, c.words[0])),
        kept(ops::split_axis(c.out_types[0].sizes, c.words[0]).size),
        count(all.outer * all.inner),
        elements(count * all.size),
        descending(c.words[1] != 0) {}
  DType type;
  ops::AxisSplit all;
  int64_t kept, count, elements;
  bool descending;
};

constexpr NativeWord kIn{NativeWord::kInput, 0}, kTo{NativeWord::kOut, 0};

/// Counts for each element all that are below it, and equal ones in front of it.
NativeText counted(const Lines& s) {
  const std::string type = c_scalar(s.type), wide = c_scalar(native_sum_type(s.type));
  const auto element = [&](const char* k) {
    return native_convert(s.type, native_sum_type(s.type),
                          std::string("a.from[first + ") + k + " * a.inner]");
  };
  const std::string less = s.descending ? "(y > x || (y != y && x == x))" : "(y < x || (y == y && x != x))";
  NativeText l;
  l.symbol = std::string("tandem_argsort_") + c_suffix(s.type) + (s.descending ? "_down" : "_up");
  l.source = native_head(l.symbol, "const " + type + "* from; td_i64* to; td_i64 size, kept, inner;") +
             "  const td_i64 line = t / a.size, k = t % a.size, o = line / a.inner, i = line % a.inner;\n"
             "  const td_i64 first = o * a.size * a.inner + i;\n  const " +
             wide + " x = " + element("k") +
             ";\n  td_i64 place = 0;\n"
             "  for (td_i64 j = 0; j < a.size; ++j) {\n    const " +
             wide + " y = " + element("j") +
             ";\n    const bool same = x == y || (x != x && y != y);\n    place += " + less +
             " || (same && j < k);\n  }\n"
             "  if (place < a.kept) a.to[(o * a.kept + place) * a.inner + i] = k;\n}\n";
  l.count = s.elements;
  l.words = {kIn, kTo, s.all.size, s.kept, s.all.inner};
  return l;
}

int value_bits(DType t) { return t == DType::bool_ ? 1 : 8 * static_cast<int>(itemsize(t)); }

/// `key`, in the words of its type, of the bits `b`, so that keys have the order of values.
std::string key_text(DType t) {
  const std::string word = "td_u" + std::to_string(8 * itemsize(t)),
                    sign = "((" + word + ")1 << " + std::to_string(value_bits(t) - 1) + ")";
  if (!is_floating(t)) {
    const bool is_signed = t == DType::int32 || t == DType::int64;
    return "    const " + word + " v = " + (is_signed ? "b ^ " + sign : "b") + ";\n";
  }
  const int fraction = t == DType::float64 ? 52 : t == DType::float32 ? 23 : t == DType::float16 ? 10 : 7;
  const std::string infinity =
      "((" + word + ")(" + sign + " - ((" + word + ")1 << " + std::to_string(fraction) + ")))";
  return "    const " + word + " size = (" + word + ")(b & (" + word + ")~" + sign + ");\n    const " + word +
         " v = size > " + infinity + " ? (" + word + ")~(" + word + ")0 : (" + word +
         ")(b != size && size != 0 ? ~b : size | " + sign + ");\n";
}

/// 32 bits of the values' keys, from `shift` on, of elements in their own order or in the one sorted before.
SortSource values(const Lines& s, int shift, const NativeWord* order) {
  const std::string word = "td_u" + std::to_string(8 * itemsize(s.type));
  SortSource source;
  source.name = std::string("values_") + c_suffix(s.type) + (s.descending ? "_down" : "_up") +
                (shift > 0 ? "_high" : "");
  source.fields =
      "const " + word + "* in; td_i64 size, inner;" + (order != nullptr ? " const td_u32* order;" : "");
  source.text = std::string("    const td_u32 from = ") + (order != nullptr ? "a.order[q]" : "(td_u32)q") +
                ";\n    const td_i64 line = from / a.size, k = from % a.size;\n    const " + word +
                " b = a.in[(line / a.inner * a.size + k) * a.inner + line % a.inner];\n" + key_text(s.type) +
                "    const td_u32 key = (td_u32)((" + word + ")" + (s.descending ? "~v" : "v") + " >> " +
                std::to_string(shift) + ")" + (s.type == DType::bool_ ? " & 1" : "") + ";\n";
  source.words = {kIn, s.all.size, s.all.inner};
  if (order != nullptr) source.words.push_back(*order);
  return source;
}

SortSource lines(const Lines& s, NativeWord order) {
  return {"lines",
          "const td_u32* order; td_i64 size;",
          "    const td_u32 from = a.order[q], key = (td_u32)(from / a.size);\n",
          {order, s.all.size}};
}

int64_t line_bits(const Lines& s) { return std::bit_width(static_cast<uint64_t>(s.count - 1)); }

NativeText store(const Lines& s, NativeWord order) {
  NativeText l;
  l.symbol = "tandem_argsort_store";
  l.source = native_head(l.symbol, "const td_u32* order; td_i64* to; td_i64 size, kept, inner;") +
             "  const td_i64 line = t / a.kept, k = t % a.kept, o = line / a.inner, i = line % a.inner;\n"
             "  a.to[(o * a.kept + k) * a.inner + i] = a.order[line * a.size + k] % a.size;\n}\n";
  l.count = s.count * s.kept;
  l.words = {order, kTo, s.all.size, s.kept, s.all.inner};
  return l;
}

}  // namespace

std::vector<NativeText> argsort_texts(const NativeCallPlan& c) {
  const Lines s(c);
  if (s.count * s.kept == 0) return {};
  const int bits = value_bits(s.type);
  const int64_t passes = RadixSort::passes(bits) + RadixSort::passes(line_bits(s));
  if (!sorting_pays(s.elements, passes, s.elements * 20 * passes, s.elements * s.all.size * itemsize(s.type)))
    return {counted(s)};
  RadixSort sorted(s.elements);
  sorted.by(values(s, 0, nullptr), std::min(bits, 32));
  const NativeWord order = sorted.order();
  if (bits > 32) sorted.by(values(s, 32, &order), 32);
  if (s.count > 1) sorted.by(lines(s, sorted.order()), line_bits(s));
  NativeText last = store(s, sorted.order());
  return std::move(sorted).texts(std::move(last));
}

}  // namespace tandem::jit
