// The safetensors format: named arrays after a JSON header. Reading is strict: whatever bytes come in, the
// result is tensors that cover the data exactly, or an Error that names the rule. Nothing is allocated before
// its size was compared with the file's. Plain data: SafeTensors owns the bytes, entries point into them. Any
// thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/core/dims.h"
#include "tandem/core/dtype.h"
#include "tandem/core/io/file.h"

namespace tandem::core {

/// One array. Read from a file, `data` may have any alignment; row-major, packed.
struct SafeTensor {
  std::string name;
  DType dtype = DType::float32;
  Dims sizes;
  const void* data = nullptr;

  /// Bytes of data; sizes were checked.
  int64_t nbytes() const { return numel(sizes) * itemsize(dtype); }
};

/// Gives a block back to the allocator.
struct FreeFileBlock {
  int64_t nbytes = 0;
  void operator()(std::byte* block) const noexcept;
};

/// The contents of one file.
class SafeTensors {
 public:
  static SafeTensors read(const std::string& path, Location where = {});
  /// From memory; `name` stands in messages for the path.
  static SafeTensors parse(ByteSpan bytes, const std::string& name = "memory", Location where = {});

  /// In the order of the header.
  const std::vector<SafeTensor>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Null if there is none.
  const SafeTensor* find(std::string_view name) const;

 private:
  using Source = std::function<void(void* to, int64_t nbytes)>;
  static SafeTensors load(const Source& source, int64_t size, const std::string& name, Location where);

  std::unique_ptr<std::byte, FreeFileBlock> block_;
  std::vector<SafeTensor> entries_;
  std::map<std::string, size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

/// Writes the file in one step (write_file_atomic). Arrays lie in order of falling item size, so that each is
/// aligned; names must be unique, valid UTF-8, and not "__metadata__".
void write_safetensors(const std::string& path, std::span<const SafeTensor> entries,
                       const std::map<std::string, std::string>& metadata = {}, Location where = {});

}  // namespace tandem::core
