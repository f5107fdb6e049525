#include "tandem/jit/kernel_table.h"

#include <chrono>
#include <mutex>
#include <unordered_map>

#include "tandem/core/log.h"
#include "tandem/jit/kernel_cache.h"

namespace tandem::jit {

namespace {
struct Table {
  std::mutex mutex;
  std::unordered_map<std::string, std::unique_ptr<KnownKernel>> kernels;
};
Table& table() {
  static Table* const t = new Table;  // plans of static lifetime may outlive any destructor
  return *t;
}

const ProgramStart& program_start() {
  static const auto* const start = new ProgramStart(c_prelude());
  return *start;
}

// Rows are walked several times, each walk printed for whole vectors and for a rest.
size_t cost(const Kernel& k, const std::string& text) {
  return k.kind == KernelKind::row ? 2 * text.size() : text.size();
}

KnownKernel& known_kernel(const Kernel& k, const std::string& text) {
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  std::unique_ptr<KnownKernel>& entry = t.kernels[text];
  if (!entry) entry = std::make_unique<KnownKernel>(k);
  return *entry;
}

/// `known` are those of `kernels`. Returns the time in milliseconds.
double compile(const std::vector<KernelText>& kernels, const std::vector<KnownKernel*>& known) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<KnownKernel*> wanted;
  std::vector<std::string> symbols;
  std::vector<ProgramPart> parts;
  for (size_t i = 0; i < kernels.size(); ++i) {
    if (known[i]->function.load(std::memory_order_acquire) ||
        known[i]->refused.load(std::memory_order_relaxed))
      continue;
    std::string symbol = kernel_symbol(*kernels[i].text);
    std::string text = print_c(*kernels[i].kernel, symbol);
    if (text.empty()) {
      known[i]->refused.store(true, std::memory_order_relaxed);
      continue;
    }
    wanted.push_back(known[i]);
    symbols.push_back(std::move(symbol));
    const size_t n = cost(*kernels[i].kernel, text);
    parts.push_back({std::move(text), n});
  }
  if (parts.empty()) return 0;
  const auto modules = KernelCache::of_process().get(program_start(), parts);
  for (size_t i = 0; i < parts.size(); ++i) {
    void* const address = modules[i] ? modules[i]->symbol(symbols[i].c_str()) : nullptr;
    if (address)
      wanted[i]->function.store(reinterpret_cast<KernelFunction>(address), std::memory_order_release);
    else
      wanted[i]->refused.store(true, std::memory_order_relaxed);
  }
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}
}  // namespace

std::string kernel_symbol(const std::string& text) {
  // FNV-1a twice, from different starts: 128 bits.
  uint64_t a = 0xCBF29CE484222325u, b = 0x84222325CBF29CE4u;
  for (const char c : text) {
    a = (a ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
    b = (b ^ static_cast<unsigned char>(c) ^ (b >> 29)) * 0x9E3779B97F4A7C15u;
  }
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string symbol = "tandem_";
  for (const uint64_t h : {a, b})
    for (int shift = 60; shift >= 0; shift -= 4) symbol += kDigits[h >> shift & 15];
  return symbol;
}

KnownKernels known_kernels(const std::vector<KernelText>& kernels, bool compile) {
  KnownKernels out;
  for (const KernelText& k : kernels) out.known.push_back(&known_kernel(*k.kernel, *k.text));
  if (compile) out.compile_ms = jit::compile(kernels, out.known);
  return out;
}

}  // namespace tandem::jit
