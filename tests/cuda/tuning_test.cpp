// Algorithms of products by time: chosen only where asked for, the same eagerly and traced, measured once and
// then taken from the disk. The simulated cuBLASLt's first algorithm is the slow one, and the others add in
// another order.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "tests/catch.h"
#include "tests/core/scratch_folder.h"

namespace fs = std::filesystem;

namespace {

struct Outcome {
  std::string bits, equal;
  long products = 0;
};

Outcome run(const ScratchFolder& cache, const std::string& environment) {
  const std::string command = "SIM_GPU_ORDERS=1 SIM_GPU_SLOW_PRODUCTS=2000 TANDEM_CUDA_PATH=" TANDEM_SIM_GPU
                              " TANDEM_CACHE_DIR=" +
                              cache.path() + ' ' + environment + " " TANDEM_CUDA_TUNE_PROGRAM;
  FILE* const out = popen(command.c_str(), "r");
  REQUIRE(out != nullptr);
  std::string text;
  for (char part[256]; std::fgets(part, sizeof part, out) != nullptr;) text += part;
  REQUIRE(pclose(out) == 0);
  INFO(text);
  Outcome o;
  char bits[16], equal[16];
  REQUIRE(std::sscanf(text.c_str(), "%15s %15s %ld", bits, equal, &o.products) == 3);
  o.bits = bits, o.equal = equal;
  return o;
}

}  // namespace

TEST_CASE("cuda products: algorithms are chosen by time where that is asked for, and kept", "[cuda]") {
  const ScratchFolder cache;
  const Outcome usual = run(cache, "");
  CHECK(usual.equal == "equal");
  const Outcome measured = run(cache, "TANDEM_CUDA_TUNE=1");
  CHECK(measured.equal == "equal");
  CHECK(measured.bits != usual.bits);
  CHECK(measured.products > usual.products);
  const fs::path kept = cache / "products";
  REQUIRE(fs::exists(kept));
  const Outcome again = run(cache, "TANDEM_CUDA_TUNE=1");
  CHECK(again.bits == measured.bits);
  CHECK(again.equal == "equal");
  CHECK(again.products == usual.products);  // nothing was measured
  // Without the wish what was kept is not looked at; what is damaged is measured again.
  CHECK(run(cache, "").bits == usual.bits);
  int files = 0;
  for (const auto& entry : fs::directory_iterator(kept)) {
    std::ofstream(entry.path(), std::ios::app) << "more";
    ++files;
  }
  CHECK(files > 1);
  const Outcome mended = run(cache, "TANDEM_CUDA_TUNE=1");
  CHECK(mended.bits == measured.bits);
  CHECK(mended.products == measured.products);
}
