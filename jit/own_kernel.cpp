#include "tandem/jit/own_kernel.h"

#include "tandem/core/error.h"
#include "tandem/jit/sha256.h"
#include "tandem/jit/type_names.h"

namespace tandem::jit {

namespace {

// Of a block: at most, and where the program does not say.
constexpr int64_t kMostThreads = 1024, kUsualThreads = NativeLaunch::kBlock;

LaunchShape checked_shape(const ops::KernelDef& def, const ops::KernelLaunch& l) {
  constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1, kMostShared = 48 * 1024;
  if (l.blocks < 0 || l.blocks > kMostBlocks || l.threads < 1 || l.threads > kMostThreads ||
      l.shared_bytes < 0 || l.shared_bytes > kMostShared)
    fail(def.name + ": launch asks for " + std::to_string(l.blocks) + " blocks of " +
         std::to_string(l.threads) + " threads with " + std::to_string(l.shared_bytes) +
         " bytes of shared memory; up to 2^31 - 1 blocks of 1 to 1024 threads and 48 KiB are possible");
  return {static_cast<unsigned>(l.blocks), static_cast<unsigned>(l.threads),
          static_cast<unsigned>(l.shared_bytes)};
}

class Writer {
 public:
  explicit Writer(OwnKernel& k) : k_(k) {}

  void operand(const std::string& name, const TensorType& t, const char* constant, NativeWord address) {
    const std::string type = std::string(constant) + c_scalar(t.dtype) + "*";
    local(type + " const " + name + " = " + field(type, address));
    local("const td_i64 " + name + "_count = " + field("td_i64", numel(t.sizes)));
    std::string sizes;
    for (const int64_t s : t.sizes) sizes += (sizes.empty() ? "" : ", ") + field("td_i64", s);
    local("const td_i64 " + name + "_sizes[] = {" + (sizes.empty() ? "1" : sizes) + "}");
    types += std::string("_") + c_suffix(t.dtype) + std::to_string(t.sizes.rank());
  }
  void local(const std::string& text) { locals += "  [[maybe_unused]] " + text + ";\n"; }
  /// One more word of the parameter, as an expression.
  std::string field(const std::string& type, NativeWord word) {
    const std::string name = "td_" + std::to_string(k_.words.size());
    fields += type + " " + name + "; ";
    k_.words.push_back(word);
    return "td_a." + name;
  }

  std::string fields, locals, types;

 private:
  OwnKernel& k_;
};

}  // namespace

OwnKernel own_kernel(const NativeCallPlan& call, const ops::KernelDef& def) {
  OwnKernel k;
  Writer w(k);
  for (size_t i = 0; i < call.in.size(); ++i)
    w.operand(def.inputs[i], call.in_types[i], "const ", {NativeWord::kInput + static_cast<int32_t>(i), 0});
  for (size_t j = 0; j < call.out.size(); ++j)
    w.operand(def.outputs[j], call.out_types[j], "", {NativeWord::kOutputs - static_cast<int32_t>(j), 0});
  k.count = numel(call.out_types[0].sizes);
  w.local("const td_i64 count = " + w.field("td_i64", k.count));
  w.local("const td_i64 thread = (td_i64)blockIdx.x * blockDim.x + threadIdx.x");
  if (def.launch) {
    k.chosen = checked_shape(def, def.launch(call.in_types, call.out_types));
    k.count = int64_t{k.chosen.grid} * k.chosen.block;
  } else {
    w.locals += "  if (thread >= count) return;\n";
  }
  const std::string text = def.header + "\n" + w.fields + "\n" + w.locals + def.cuda;
  k.symbol = "tandem_own" + w.types + "_" + hex(sha256(def.name + "\n" + text));
  // Or a kernel of many registers could not be launched with as many threads as it may ask for.
  const std::string most = std::to_string(def.launch ? kMostThreads : kUsualThreads);
  k.source = def.header + "\nstruct td_args_" + k.symbol + " { " + w.fields +
             "};\nextern \"C\" __global__ void __launch_bounds__(" + most + ") " + k.symbol + "(td_args_" +
             k.symbol + " td_a) {\n" + w.locals + def.cuda + "\n}\n";
  return k;
}

}  // namespace tandem::jit
