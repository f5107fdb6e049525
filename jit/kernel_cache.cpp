#include "tandem/jit/kernel_cache.h"

#include <unistd.h>

#include <utility>

#include "tandem/core/env.h"
#include "tandem/core/log.h"
#include "tandem/jit/child_process.h"
#include "tandem/jit/sha256.h"

namespace tandem::jit {

namespace {

constexpr char kSection[] = "cpu";

std::string key_text(const KernelCache::Settings& settings) {
  if (settings.compiler == nullptr) return {};
  std::string text = "tandem " + settings.version + "\narguments";
  for (const std::string& argument : HostCompiler::arguments(settings.options)) text += " " + argument;
  return text + "\nprocessor" + host_processor() + "\ncompiler " + settings.compiler->identity() + "\n";
}

}  // namespace

KernelCache::KernelCache(Settings settings)
    : settings_(std::move(settings)),
      key_(key_text(settings_)),
      disk_(settings_.compiler != nullptr ? settings_.folder : "", kSection, settings_.limit_bytes) {}

std::shared_ptr<const Module> KernelCache::get(const std::string& source, std::string* error) {
  if (settings_.compiler == nullptr) {
    if (error != nullptr) *error = "no host compiler";
    return nullptr;
  }
  Sha256 hash;
  hash.update(key_);
  hash.update(source);
  const std::string name = hex(hash.finish());

  std::shared_ptr<Entry> entry;
  {
    std::unique_lock lock(mutex_);
    std::shared_ptr<Entry>& slot = entries_[name];
    if (slot != nullptr && (slot->done || slot->process == getpid())) {
      entry = slot;
      built_.wait(lock, [&] { return entry->done; });
      ++stats_.memory_hits;
      if (error != nullptr) *error = entry->error;
      return entry->module;
    }
    slot = entry = std::make_shared<Entry>();
    entry->process = getpid();
  }

  Entry result;
  try {
    build(name, source, &result);
  } catch (...) {  // out of memory, say: whoever waits must not wait for ever
    const std::lock_guard lock(mutex_);
    entry->error = "compilation was interrupted";
    entry->done = true;
    entries_.erase(name);
    built_.notify_all();
    throw;
  }
  {
    const std::lock_guard lock(mutex_);
    entry->module = std::move(result.module);
    entry->error = std::move(result.error);
    entry->done = true;
    if (entry->module == nullptr) ++stats_.failures;
    built_.notify_all();
  }
  if (entry->module == nullptr) warn_once(entry->error);
  if (error != nullptr) *error = entry->error;
  return entry->module;
}

void KernelCache::build(const std::string& name, const std::string& source, Entry* entry) {
  if (no_place_) {
    entry->error = "no place from which compiled kernels can be run";
    return;
  }
  bool no_place = false;
  if (const std::optional<std::string> object = disk_.load(name, key_, source)) {
    entry->module = Module::load(*object, source, name, settings_.places, &entry->error, &no_place);
    if (entry->module != nullptr) {
      const std::lock_guard lock(mutex_);
      ++stats_.disk_hits;
      return;
    }
  }
  if (!no_place) {
    CompileResult compiled = settings_.compiler->compile(module_source(source, name), settings_.options);
    {
      const std::lock_guard lock(mutex_);
      stats_.compile_ms += compiled.time_ms;
      if (compiled.ok()) ++stats_.compiles;
    }
    if (!compiled.ok()) {
      entry->error = std::move(compiled.error);
      return;
    }
    entry->error.clear();
    entry->module = Module::load(compiled.object, source, name, settings_.places, &entry->error, &no_place);
    if (entry->module != nullptr) disk_.store(name, key_, source, compiled.object);
  }
  if (no_place) no_place_ = true;
}

void KernelCache::warn_once(const std::string& message) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = !std::exchange(warned_, true);
  }
  // Later ones are still to be found by whoever looks for them.
  core::log(core::LogArea::jit, first ? core::LogLevel::warn : core::LogLevel::info,
            "a kernel is interpreted, which is slower: " + message);
}

void KernelCache::forget() {
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [](const auto& item) { return item.second->done; });
}

CacheStats KernelCache::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

KernelCache& KernelCache::of_process() {
  static KernelCache& cache = *[] {
    Settings settings;
    settings.folder = core::environment().cache_dir;
    settings.compiler = HostCompiler::of_process();
    settings.places.folders = temporary_folders();
    auto* made = new KernelCache(std::move(settings));
    return made;
  }();
  return cache;
}

std::shared_ptr<const Module> get_module(const std::string& source) {
  return KernelCache::of_process().get(source);
}

CacheStats cache_stats() { return KernelCache::of_process().stats(); }

}  // namespace tandem::jit
