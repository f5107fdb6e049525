// An ONNX model in the making, and its bytes: values, nodes, constants, inputs and outputs, written by the
// wire format of onnx.proto (IR version 8, operators of version 17). It knows the format, not Tandem's ops
// (onnx_ops.h). Every value has a known type, which the file states. Owns what it holds; one thread.
#pragma once

#include <deque>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tandem/core/io/file.h"
#include "tandem/eager/tensor.h"

namespace tandem::io {

inline constexpr int kOnnxOpset = 17, kOnnxIrVersion = 8;
/// What one message of protocol buffers may have.
inline constexpr int64_t kMaxOnnxBytes = (int64_t{1} << 31) - 1;

struct OnnxValue {
  int32_t id = -1;
  explicit operator bool() const { return id >= 0; }
  friend bool operator==(OnnxValue, OnnxValue) = default;
};

struct OnnxType {
  DType dtype = DType::float32;
  Dims sizes;
};

struct OnnxAttribute {
  const char* name;
  std::variant<int64_t, float, std::vector<int64_t>, std::string> value;
};
using OnnxAttributes = std::vector<OnnxAttribute>;

class OnnxModel {
 public:
  explicit OnnxModel(std::string name) : name_(std::move(name)) {}

  OnnxValue input(const std::string& name, OnnxType type);
  /// A tensor of the model's own, such as a weight; contiguous, on the CPU.
  OnnxValue tensor(const std::string& name, const Tensor& t);
  /// The same from elements, which stay the caller's until the file is written.
  OnnxValue tensor(const std::string& name, OnnxType type, core::ByteSpan bytes);
  OnnxValue constant(OnnxType type, const std::vector<double>& values);
  /// A list of integers, as shapes and axes are given; equal ones are one value.
  OnnxValue integers(const std::vector<int64_t>& values);
  /// A constant without axes; `bits` of a double if t is floating, else the integer. Equal ones are one
  /// value.
  OnnxValue scalar(DType t, int64_t bits);
  OnnxValue scalar(DType t, double value);
  /// Whether `v` is a scalar, and then its bits.
  bool is_scalar(OnnxValue v, int64_t* bits) const;

  /// Results of the types given. Of those from `needed` on (-1: none) the last may be left out of the file,
  /// if nothing uses them.
  void nodes(const char* op, const std::vector<OnnxValue>& in, const std::vector<OnnxType>& types,
             OnnxValue* out, OnnxAttributes attributes = {}, int needed = -1);
  OnnxValue node(const char* op, const std::vector<OnnxValue>& in, OnnxType type,
                 OnnxAttributes attributes = {});
  const OnnxType& type(OnnxValue v) const { return values_[static_cast<size_t>(v.id)].type; }

  void output(OnnxValue v, const std::string& name);

  /// What the nodes to come are made of, for people: "conv2d at net.cpp:12".
  std::string origin;

  /// Replaces the file in one step. What no output needs is left out. Where it would have more than `most`
  /// bytes, its large weights are written to `<path>.data` first. Errors name `path`.
  void write(const std::string& path, Location where, int64_t most = kMaxOnnxBytes) {
    write(path, where, most, core::write_file_atomic);
  }
  /// The same, with another way to write a file of pieces.
  using Put = void(const std::string& path, std::span<const core::ByteSpan> pieces, Location where);
  void write(const std::string& path, Location where, int64_t most, Put* put);

 private:
  struct Value {
    OnnxType type;
    std::string name;  // given: by the caller
    int32_t node = -1;
    bool output = false;
  };
  struct Node {
    const char* op;
    std::vector<OnnxValue> in, out;
    OnnxAttributes attributes;
    std::string origin;
    size_t needed;
  };
  struct Constant {
    OnnxValue value;
    core::ByteSpan bytes;
    std::string own;  // the bytes, if they were made here
    Tensor held;
  };

  /// What is written of the constants: in the model, and beside it.
  struct Weights {
    std::deque<std::string> heads;
    std::vector<core::ByteSpan> inside, beside;
    int64_t nbytes = 0;  // inside
  };

  OnnxValue add(OnnxType type, std::string name, int32_t node = -1);
  OnnxValue own_constant(OnnxType type, std::string bytes);
  std::vector<char> used() const;
  void name_values(const std::vector<char>& used, const std::string& path, Location where);
  std::string node_text(const Node& n, size_t index, const std::vector<char>& used) const;
  std::string value_text(OnnxValue v) const;
  Weights weights(const std::vector<char>& used, const std::string& beside) const;

  std::string name_;
  std::vector<Value> values_;
  std::vector<Node> nodes_;
  std::vector<Constant> constants_;
  std::vector<OnnxValue> inputs_, outputs_;
  std::map<std::vector<int64_t>, OnnxValue> integers_;
  std::map<std::pair<DType, int64_t>, OnnxValue> scalars_;
  std::map<int32_t, int64_t> scalar_bits_;
};

/// By the numbers of TensorProto.DataType.
int onnx_dtype(DType t);

}  // namespace tandem::io
