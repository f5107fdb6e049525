// One compiled shared object in this process. It stays mapped to the process's end, whatever becomes of the
// Module, so plans may keep function pointers. Immutable; any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace tandem::jit {

/// Where an object may be placed to be mapped as code.
struct LoadPlaces {
  bool memory = true;                // an anonymous file in memory, first choice: leaves nothing behind
  std::vector<std::string> folders;  // then a file of our own in one of these, removed at once
};

class Module {
 public:
  /// Loads `object`, compiled from `module_source(source, key)`. Null on failure with the reason in `error`;
  /// `no_place` is set if no place lets us run code (mounts with noexec), which no other object will survive
  /// either.
  static std::shared_ptr<const Module> load(const std::string& object, const std::string& source,
                                            const std::string& key, const LoadPlaces& places,
                                            std::string* error, bool* no_place);

  /// The address of an `extern "C"` function or object; null if there is none of that name.
  void* symbol(const char* name) const;
  /// The text from which it was compiled, for people.
  const std::string& source() const { return source_; }
  const std::string& key() const { return key_; }

 private:
  Module() = default;

  void* handle_ = nullptr;
  std::string source_, key_;
};

/// `source` and a line that names its key inside the object: the loader checks that it got the object that it
/// asked for.
std::string module_source(const std::string& source, const std::string& key);

}  // namespace tandem::jit
