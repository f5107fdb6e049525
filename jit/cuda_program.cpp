#include "tandem/jit/cuda_program.h"

#include <chrono>
#include <mutex>
#include <set>
#include <unordered_map>

#include "tandem/core/env.h"
#include "tandem/core/log.h"
#include "tandem/core/version.h"
#include "tandem/jit/disk_cache.h"
#include "tandem/jit/kernel_table.h"
#include "tandem/jit/print_cuda.h"
#include "tandem/jit/programs.h"
#include "tandem/jit/sha256.h"

namespace tandem::jit {

using cuda::Function;
using cuda::Nvrtc;
using cuda::Runtime;

namespace {

constexpr char kKernelMark[] = "// --- kernels ---\n";  // what stands before it is the same in every program

struct Table {
  std::mutex mutex;                                     // guards all of it
  std::unordered_map<std::string, Function> functions;  // by device and symbol
  CudaCompileStats stats;
};
Table& table() {
  static Table* const t = new Table;
  return *t;
}

std::string table_key(const Runtime& device, const std::string& symbol) {
  return std::to_string(device.index()) + ':' + symbol;
}

/// All that decides about compiled code but its source.
std::string compiler_key(const CudaTarget& target) {
  std::string key = cuda::nvrtc_identity() + ", tandem " + core::version();
  for (const std::string& option : target.options()) key += ' ' + option;
  return key;
}

/// An NVRTC program, for the time of one compilation.
class Program {
 public:
  explicit Program(const std::string& source) : api_(*cuda::nvrtc()) {
    check(api_.create(&program_, source.c_str(), "tandem.cu", 0, nullptr, nullptr), "nvrtcCreateProgram");
  }
  ~Program() {
    if (program_) api_.destroy(&program_);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  std::string compile(const CudaTarget& target, const std::string& whose) {
    const std::vector<std::string> options = target.options();
    std::vector<const char*> words;
    for (const std::string& o : options) words.push_back(o.c_str());
    const int failed = api_.compile(program_, static_cast<int>(words.size()), words.data());
    if (failed != 0)
      fail("NVRTC did not compile " + (whose.empty() ? "a generated kernel (please report)" : whose) + ": " +
           std::string(api_.error_string(failed)) + ": " + log());
    size_t bytes = 0;
    check((target.ptx ? api_.ptx_size : api_.cubin_size)(program_, &bytes),
          target.ptx ? "nvrtcGetPTXSize" : "nvrtcGetCUBINSize");
    std::string code(bytes, '\0');
    check((target.ptx ? api_.ptx : api_.cubin)(program_, code.data()),
          target.ptx ? "nvrtcGetPTX" : "nvrtcGetCUBIN");
    return code;
  }

 private:
  void check(int result, const char* call) const {
    if (result != 0) fail(std::string(call) + ": " + api_.error_string(result));
  }
  std::string log() const {
    size_t bytes = 0;
    if (api_.log_size(program_, &bytes) != 0) return "(no log)";
    std::string text(bytes, '\0');
    return api_.log(program_, text.data()) == 0 ? text : "(no log)";
  }

  const Nvrtc& api_;
  Nvrtc::Program program_ = nullptr;
};

DiskCache& disk() {
  static DiskCache* const cache = new DiskCache(core::environment().cache_dir, "cuda", uint64_t{512} << 20);
  return *cache;
}

const ProgramStart& program_start() {
  static const auto* const start = new ProgramStart(cuda_prelude() + kKernelMark);
  return *start;
}

struct Wanted {
  std::string symbol, text;
};

/// The module of this code: one, however many of its functions are asked for one by one; never unloaded. Who
/// looks functions up does not wait for it.
cuda::Module loaded(Runtime& device, const std::string& cubin) {
  static auto* const mutex = new std::mutex;  // guards what follows
  static auto* const modules = new std::unordered_map<std::string, cuda::Module>;
  const std::string key = table_key(device, hex(sha256(cubin)));
  const std::lock_guard lock(*mutex);
  cuda::Module& module = (*modules)[key];
  if (!module) device.check(device.api().module_load(&module, cubin.data()), "cuModuleLoadData");
  return module;
}

/// Finds or compiles the functions, loads them, and enters them into the table.
void make(Runtime& device, const std::vector<Wanted>& wanted, const std::string& whose = {}) {
  if (wanted.empty()) return;
  const CudaTarget target = cuda_target(device.capability());
  const std::string key = compiler_key(target) + ", start " + program_start().digest;
  std::vector<WantedPart> parts;
  for (const Wanted& w : wanted) parts.push_back({w.text, w.text.size(), hex(sha256(key + '\n' + w.text))});
  const auto compile = [&](std::span<const size_t>, std::string source) {
    const auto start = std::chrono::steady_clock::now();
    std::string code = Program(program_start().text + source).compile(target, whose);
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    const std::lock_guard lock(table().mutex);
    ++table().stats.compiles;
    table().stats.compile_ms += time.count();
    return DiskCache::Stored{std::move(source), std::move(code)};
  };
  const auto load = [&](const DiskCache::Stored& program, std::span<const size_t> members) {
    device.use();
    const cuda::Module module = loaded(device, program.object);
    for (const size_t i : members) {
      Function function = nullptr;
      device.check(device.api().module_function(&function, module, wanted[i].symbol.c_str()),
                   "cuModuleGetFunction");
      const std::lock_guard lock(table().mutex);
      table().functions.emplace(table_key(device, wanted[i].symbol), function);
    }
    return true;
  };
  const int64_t hits = load_programs(parts, {disk(), key, compile, load});
  const std::lock_guard lock(table().mutex);
  table().stats.disk_hits += hits;
}

Function find(const Runtime& device, const std::string& symbol) {
  const std::lock_guard lock(table().mutex);
  const auto it = table().functions.find(table_key(device, symbol));
  return it == table().functions.end() ? nullptr : it->second;
}

}  // namespace

std::vector<std::string> CudaTarget::options() const {
  std::vector<std::string> out = cuda_options(architecture);
  if (ptx) out[0] = "--gpu-architecture=compute_" + std::to_string(architecture);
  return out;
}

CudaTarget cuda_target(int capability) {
  const Nvrtc& api = *cuda::nvrtc();
  int count = 0;
  std::vector<int> known;
  if (api.supported_count(&count) == 0 && count > 0) {
    known.resize(static_cast<size_t>(count));
    if (api.supported(known.data()) != 0) known.clear();
  }
  int newest = 0;
  for (const int architecture : known) {
    if (architecture == capability) return {capability, false};
    if (architecture < capability) newest = std::max(newest, architecture);
  }
  if (newest == 0 && !known.empty())
    fail("NVRTC compiles for compute capability " +
         std::to_string(*std::min_element(known.begin(), known.end())) + " and newer, this device has " +
         std::to_string(capability) + " (as in 75 for 7.5); an older CUDA knows it");
  return known.empty() ? CudaTarget{capability, false} : CudaTarget{newest, true};
}

bool takes_many_calls(const Runtime& device) {
  constexpr int kDriver = 12010, kCapability = 70;
  int driver = 0, major = 0, minor = 0;
  return device.capability() >= kCapability &&
         device.api().driver_version(&driver) == cuda::Result::success && driver >= kDriver &&
         cuda::nvrtc()->version(&major, &minor) == 0 && 1000 * major + 10 * minor >= kDriver;
}

CudaKernel chain_of(const Plan& plan, const Entry& e) {
  const auto first = static_cast<size_t>(e.index);
  CudaKernel chain{&plan.kernels[first], &plan.kernel_texts[first]};
  for (const Join& join : plan.joins_of(e)) {
    const auto k = static_cast<size_t>(join.kernel);
    chain.behind.push_back(&plan.kernels[k]);
    chain.texts_behind += plan.kernel_texts[k];
  }
  return chain;
}

std::vector<Function> cuda_kernels(Runtime& device, const std::vector<CudaKernel>& kernels) {
  static constexpr const char* kSuffixes[] = {"", "_calls", "_split", "_many"};
  std::vector<std::string> symbols;
  std::vector<Wanted> wanted;
  std::set<std::string> seen;
  for (const CudaKernel& k : kernels) {
    const bool chain = !k.behind.empty();
    symbols.push_back(chain ? kernel_symbol(*k.text + k.texts_behind) + "_chain"
                            : kernel_symbol(*k.text) + kSuffixes[static_cast<int>(k.form)]);
    const std::string& symbol = symbols.back();
    if (find(device, symbol) || !seen.insert(symbol).second) continue;
    if (chain) {
      std::vector<const Kernel*> all = {k.kernel};
      all.insert(all.end(), k.behind.begin(), k.behind.end());
      wanted.push_back({symbol, print_cuda_chain(all, symbol)});
    } else {
      wanted.push_back({symbol, print_cuda(*k.kernel, symbol, k.form)});
    }
  }
  make(device, wanted);
  std::vector<Function> out;
  for (const std::string& symbol : symbols) out.push_back(find(device, symbol));
  return out;
}

Function cuda_function(Runtime& device, const std::string& symbol, const std::string& source,
                       const std::string& whose) {
  if (const Function known = find(device, symbol)) return known;
  make(device, {{symbol, source}}, whose);
  return find(device, symbol);
}

std::vector<Function> cuda_functions(Runtime& device, const std::vector<CudaText>& texts) {
  std::vector<Wanted> wanted;
  std::set<std::string> seen;
  for (const CudaText& t : texts)
    if (!find(device, t.symbol) && seen.insert(t.symbol).second) wanted.push_back({t.symbol, t.source});
  make(device, wanted);
  std::vector<Function> out;
  for (const CudaText& t : texts) out.push_back(find(device, t.symbol));
  return out;
}

CudaCompileStats cuda_compile_stats() {
  const std::lock_guard lock(table().mutex);
  return table().stats;
}

}  // namespace tandem::jit
