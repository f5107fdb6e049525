// Which libraries are taken, and what is compiled, where the driver is older than they are, or the card newer
// than they know. Each in a process of its own, on the simulated GPU.
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "tests/catch.h"

namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "tandem-libraries-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  void take(const char* from, const char* to) const {
    fs::copy_file(fs::path(TANDEM_SIM_GPU) / from, path / to);
  }
};

/// What cuda_look says; `more`: its argument.
std::string look(const Folder& folder, const std::string& environment, const std::string& more = "") {
  const std::string command = "TANDEM_CACHE_DIR=off SIM_GPU_ORDERS=1 " + environment +
                              " TANDEM_CUDA_PATH=" + folder.path.string() + " " TANDEM_CUDA_LOOK " " + more +
                              " 2>/dev/null";
  FILE* out = popen(command.c_str(), "r");
  REQUIRE(out != nullptr);
  std::string text;
  for (char part[256]; std::fgets(part, sizeof part, out) != nullptr;) text += part;
  pclose(out);
  return text;
}

}  // namespace

TEST_CASE("cuda libraries: the newest that the driver knows is taken", "[cuda][simulator]") {
  const Folder folder;
  folder.take("libcuda.so.1", "libcuda.so.1");
  for (const std::string release : {"13", "12"}) {
    folder.take("libnvrtc.so.13", ("libnvrtc.so." + release).c_str());
    folder.take("libcublasLt.so.13", ("libcublasLt.so." + release).c_str());
  }
  CHECK(look(folder, "") == "NVRTC 13.0, cuBLASLt 130000\nright\n");
  CHECK(look(folder, "SIM_GPU_DRIVER_VERSION=14010") == "NVRTC 13.0, cuBLASLt 130000\nright\n");
  CHECK(look(folder, "SIM_GPU_DRIVER_VERSION=12020") == "NVRTC 12.4, cuBLASLt 120400\nright\n");
}

TEST_CASE("cuda devices: streams, events and pinned memory of several", "[cuda][simulator]") {
  const Folder folder;
  for (const char* name : {"libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13"}) folder.take(name, name);
  CHECK_THAT(look(folder, "SIM_GPU_DEVICES=3 SIM_GPU_LAZY=1"), Contains("right\n"));
}

TEST_CASE("cuda programs: one module, however many of its kernels are asked for one by one", "[cuda]") {
  const Folder folder;
  for (const char* name : {"libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13"}) folder.take(name, name);
  CHECK(look(folder, "SIM_GPU_DEVICES=2 TANDEM_CACHE_DIR=" + (folder.path / "cache").string(), "modules") ==
        "1 programs, 3 kernels found, 1 and 1 modules\n");
}

TEST_CASE("cuda libraries: what only has newer ones says so", "[cuda]") {
  const Folder folder;
  for (const char* name : {"libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13"}) folder.take(name, name);
  const std::string said = look(folder, "CUDA_HOME= VIRTUAL_ENV= SIM_GPU_DRIVER_VERSION=11080");
  CHECK_THAT(said, Contains("missing: NVRTC") && Contains("found 13.0 in " + folder.path.string()) &&
                       Contains("the driver supports up to 11.8"));
}

TEST_CASE("cuda libraries: a card newer than NVRTC knows is given PTX", "[cuda][simulator]") {
  const Folder folder;
  for (const char* name : {"libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13"}) folder.take(name, name);
  for (const char* capability : {"89", "100", "121"}) {
    CAPTURE(capability);
    CHECK_THAT(look(folder, std::string("SIM_GPU_CAPABILITY=") + capability), Contains("right\n"));
  }
  CHECK_THAT(look(folder, "SIM_GPU_CAPABILITY=61"),
             Contains("error: ") && Contains("compute capability 75 and newer, this device has 61"));
}

TEST_CASE("cuda libraries: cuDNN is of the CUDA of cuBLASLt, or there is none", "[cuda][simulator]") {
  const Folder folder;
  for (const char* name : {"libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13", "libcudnn.so.9"})
    folder.take(name, name);
  CHECK(look(folder, "", "cudnn") == "cuDNN 90100\nplanned\nplanned\n");
  CHECK(look(folder, "SIM_GPU_CUDNN_CUDA=13020", "cudnn") == "cuDNN 90100\nplanned\nplanned\n");
  // Another one may be found elsewhere on this machine; this one is passed over.
  for (const char* other : {"12090", "14000"})
    CHECK_THAT(look(folder, std::string("SIM_GPU_CUDNN_CUDA=") + other, "cudnn"), !Contains("90100"));
}

TEST_CASE("cuda libraries: without cuDNN there is a reason, for every convolution", "[cuda][simulator]") {
  const Folder folder;
  for (const char* name : {"libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13"}) folder.take(name, name);
  folder.take("libcublasLt.so.13", "libcudnn.so.9");  // a library without its functions
  const std::string why = "the library found is too old: it has no cudnnGetVersion\n";
  CHECK(look(folder, "", "cudnn") == "no cuDNN: " + why + why + why);
}

TEST_CASE("cuda libraries: a cuDNN that cannot begin is not asked again", "[cuda][simulator]") {
  const Folder folder;
  for (const char* name : {"libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13", "libcudnn.so.9"})
    folder.take(name, name);
  const std::string why = "cudnnCreate: CUDNN_STATUS_NOT_INITIALIZED\n";
  CHECK(look(folder, "SIM_GPU_CUDNN_BROKEN=1", "cudnn") == "cuDNN 90100\n" + why + why);
  // What it lacked may have been memory that was cached.
  CHECK(look(folder, "", "'first call fails'") == "cuDNN 90100\nplanned\nplanned\n");
}
