#include "tests/sim_gpu/nvrtc/kernel_text.h"

#include <algorithm>
#include <cctype>

namespace sim_gpu {

namespace {

bool word_letter(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

/// Walks over tokens: words, quoted texts, single characters; comments and blanks are skipped.
class Tokens {
 public:
  explicit Tokens(const std::string& text) : text_(text) {}

  /// Where the next token begins and ends; false at the end.
  bool next() {
    skip_blanks();
    begin = end;
    if (begin >= text_.size()) return false;
    const char c = text_[begin];
    if (word_letter(c)) {
      while (end < text_.size() && word_letter(text_[end])) ++end;
    } else if (c == '"' || c == '\'') {
      for (++end; end < text_.size() && text_[end] != c; ++end)
        if (text_[end] == '\\') ++end;
      end = std::min(end + 1, text_.size());
    } else {
      ++end;
    }
    return true;
  }
  std::string word() const { return text_.substr(begin, end - begin); }

  size_t begin = 0, end = 0;

 private:
  void skip_blanks() {
    while (end < text_.size()) {
      if (std::isspace(static_cast<unsigned char>(text_[end])) != 0) {
        ++end;
      } else if (text_.compare(end, 2, "//") == 0) {
        end = std::min(text_.find('\n', end), text_.size());
      } else if (text_.compare(end, 2, "/*") == 0) {
        const size_t close = text_.find("*/", end + 2);
        end = close == std::string::npos ? text_.size() : close + 2;
      } else {
        return;
      }
    }
  }

  const std::string& text_;
};

/// Inside parentheses that have just been opened: up to the first comma of their own and past their end.
std::string first_argument(Tokens& tokens, const std::string& text) {
  const size_t begin = tokens.end;
  size_t comma = std::string::npos;
  for (int depth = 1; depth > 0 && tokens.next();) {
    const std::string word = tokens.word();
    if (word == "(") ++depth;
    if (word == ")") --depth;
    if (depth == 1 && word == "," && comma == std::string::npos) comma = tokens.begin;
  }
  return text.substr(begin, std::min(comma, tokens.begin) - begin);
}

}  // namespace

KernelText prepare_kernel_text(const std::string& text) {
  KernelText out;
  Tokens tokens(text);
  size_t copied = 0;
  std::string before, last;  // the two tokens before this one
  bool c_block = false;      // an `extern "C" {` was seen
  while (tokens.next()) {
    const std::string word = tokens.word();
    if (last == "\"C\"" && word == "{") c_block = true;
    if (last == "extern" && word == "__shared__") {
      out.text += text.substr(copied, tokens.begin - copied);
      out.text.resize(out.text.rfind("extern"));
      const size_t declaration = tokens.end;
      while (tokens.next() && tokens.word() != ";") {
      }
      out.text += "SIM_DYNAMIC(" + text.substr(declaration, tokens.begin - declaration) + ")";
      copied = tokens.begin;
    }
    if (word == "__global__" && (c_block || last == "\"C\"")) {
      KernelName kernel{"", "0"};
      std::string name;
      while (tokens.next()) {
        const std::string part = tokens.word();
        if (part == "(") {
          if (name != "__launch_bounds__") break;
          kernel.max_threads = first_argument(tokens, text);
        } else {
          name = part;
        }
      }
      kernel.name = name;
      for (int depth = 1; depth > 0 && tokens.next();) {
        if (tokens.word() == "(") ++depth;
        if (tokens.word() == ")") --depth;
      }
      const auto same = [&](const KernelName& k) { return k.name == name; };
      if (tokens.next() && tokens.word() == "{" && std::none_of(out.kernels.begin(), out.kernels.end(), same))
        out.kernels.push_back(kernel);
    }
    before = last;
    last = tokens.word();
  }
  out.text += text.substr(copied);
  return out;
}

std::string kernel_table_text(const std::vector<KernelName>& kernels) {
  std::string out = "\n#line 1 \"entries of the simulated GPU\"\n";
  for (const KernelName& k : kernels) out += "SIM_ENTRY(" + k.name + ")\n";
  out += "static const sim_kernel sim_table[] = {\n";
  for (const KernelName& k : kernels) out += "SIM_ROW(" + k.name + ", (" + k.max_threads + "))\n";
  out +=
      "{nullptr, nullptr, 0, nullptr, 0}};\n"
      "extern \"C\" { extern __attribute__((visibility(\"default\"))) const sim_module sim_gpu_module;\n"
      "const sim_module sim_gpu_module = {sim_magic, &threadIdx, &blockIdx, &blockDim, &gridDim,\n"
      "  __start_sim_shared, __stop_sim_shared, sim_dynamic, &sim_dynamic_bytes, &sim_now, sim_table, " +
      std::to_string(kernels.size()) + "}; }\n";
  return out;
}

}  // namespace sim_gpu
