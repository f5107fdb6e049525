#include "tandem/jit/print_text.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>

namespace tandem::jit {

using ops::ScalarNode;
using ops::ScalarOp;

namespace {

std::string num(int64_t v) { return std::to_string(v); }

struct TypeNames {
  const char *scalar, *vector, *suffix;
};
const TypeNames& names(DType t) {
  static constexpr TypeNames kNames[kDTypeCount] = {
      {"bool", "td_mask", "bool"},  {"td_u8", "td_u8v", "u8"},    {"td_i32", "td_i32v", "i32"},
      {"td_i64", "td_i64v", "i64"}, {"td_u16", "td_u16v", "f16"}, {"td_u16", "td_u16v", "bf16"},
      {"td_f32", "td_f32v", "f32"}, {"td_f64", "td_f64v", "f64"},
  };
  return kNames[static_cast<int>(t)];
}

}  // namespace

const char* c_scalar(DType t) { return names(t).scalar; }
const char* c_vector(DType t) { return names(t).vector; }
const char* c_suffix(DType t) { return names(t).suffix; }

bool finds_index(ReduceOp op) { return op == ReduceOp::argmax || op == ReduceOp::argmin; }

std::string kernel_comment(const Kernel& k) {
  std::string out = "// ";
  for (const char c : k.name) out += c >= 32 && c < 127 && c != '\\' ? c : ' ';
  out += '\n';
  const std::string text = to_string(k);
  for (size_t i = 0; i < text.size();) {
    const size_t end = std::min(text.find('\n', i), text.size());
    out += "//   " + text.substr(i, end - i) + '\n';
    i = end + 1;
  }
  return out;
}

void CodeText::line(const std::string& text) {
  if (!text.empty() && text[0] == '}') --depth_;
  out.append(static_cast<size_t>(depth_) * 2, ' ');
  out += text;
  out += '\n';
  if (!text.empty() && text.back() == '{') ++depth_;
}

std::string constant_text(const ScalarNode& n) {
  char text[64];
  switch (n.type) {
    case DType::bool_:
      return n.bits != 0 ? "true" : "false";
    case DType::uint8:
      return num(static_cast<uint8_t>(n.bits));
    case DType::int32:
    case DType::int64: {
      const int64_t v = n.type == DType::int32 ? static_cast<int32_t>(n.bits) : n.bits;
      std::snprintf(text, sizeof text, "(%s)0x%llxu", c_scalar(n.type), static_cast<unsigned long long>(v));
      if (n.type == DType::int64)
        std::snprintf(text, sizeof text, "(td_i64)0x%llxul", static_cast<unsigned long long>(v));
      if (v >= 0 && v < 1'000'000'000) return num(v);
      return text;
    }
    default:
      break;
  }
  const double v = std::bit_cast<double>(n.bits);
  const bool single = n.type == DType::float32;
  const double rounded = single ? static_cast<double>(static_cast<float>(v)) : v;
  const std::string f = single ? "f" : "";
  if (std::isnan(rounded))
    return std::string(std::signbit(rounded) ? "-" : "") + "__builtin_nan" + f + "(\"\")";
  if (std::isinf(rounded)) return std::string(rounded < 0 ? "-" : "") + "__builtin_inf" + f + "()";
  std::snprintf(text, sizeof text, "%a", rounded);
  return text + f;
}

const char* reduce_name(ReduceOp op) {
  static constexpr const char* kNames[] = {"sum", "prod", "max", "min", "argmax", "argmin"};
  return kNames[static_cast<int>(op)];
}

std::string identity_text(ReduceOp op, DType type) {
  const auto text = [&](double floating, int64_t integer) {
    const int64_t bits = is_floating(type) ? std::bit_cast<int64_t>(floating) : integer;
    return constant_text({ScalarOp::constant, type, {-1, -1, -1}, bits});
  };
  constexpr double kInf = std::numeric_limits<double>::infinity();
  switch (op) {
    case ReduceOp::sum:
      return text(0, 0);
    case ReduceOp::prod:
      return text(1, 1);
    case ReduceOp::max:
      return text(-kInf, std::numeric_limits<int64_t>::min());
    case ReduceOp::min:
      return text(kInf, std::numeric_limits<int64_t>::max());
    case ReduceOp::argmax:
    case ReduceOp::argmin:
      break;
  }
  return {};
}

std::string combine_text(const Reduction& r, const std::string& a, const std::string& b) {
  const auto call = [&](const char* function) { return std::string(function) + "(" + a + ", " + b + ")"; };
  switch (r.op) {
    case ReduceOp::sum:
      return is_floating(r.type) ? a + " + " + b : call("td_add");
    case ReduceOp::prod:
      return is_floating(r.type) ? a + " * " + b : call("td_mul");
    case ReduceOp::max:
      return call("td_max");
    case ReduceOp::min:
      return call("td_min");
    case ReduceOp::argmax:
      return call("td_join_argmax");
    case ReduceOp::argmin:
      return call("td_join_argmin");
  }
  return {};
}

}  // namespace tandem::jit
