#include "tandem/core/io/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>
#include <thread>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/core/io/safetensors.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"

using namespace tandem;
using namespace tandem::core;

namespace {
unsigned mode_of(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
}
}  // namespace

TEST_CASE("a file is written whole and read back", "[file]") {
  ScratchFolder folder;
  const std::string path = folder / "a";
  const std::string first("one\0two", 7), second(100'000, 'x');
  const ByteSpan pieces[] = {bytes_of(first), bytes_of(""), bytes_of(second)};
  write_file_atomic(path, pieces, {});
  CHECK(read_file(path) == first + second);
  write_file_atomic(path, "short");
  CHECK(read_file(path) == "short");
  write_file_atomic(path, "");
  CHECK(read_file(path).empty());
  CHECK(folder.count() == 1);
}

TEST_CASE("a relative name is written in the current folder", "[file]") {
  ScratchFolder folder;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  write_file_atomic("plain", "here");
  const std::string found = read_file("plain");
  std::filesystem::current_path(before);
  CHECK(found == "here");
}

TEST_CASE("a replaced file keeps its mode, and a new one follows the mask", "[file]") {
  ScratchFolder folder;
  const std::string path = folder / "a";
  const mode_t mask = umask(022);
  write_file_atomic(path, "one");
  umask(mask);
  CHECK(mode_of(path) == 0644);
  for (const unsigned mode : {0600u, 0664u, 0444u}) {
    REQUIRE(chmod(path.c_str(), mode) == 0);
    write_file_atomic(path, "two");
    CHECK(mode_of(path) == mode);
  }
}

TEST_CASE("a symbolic link stays one", "[file]") {
  ScratchFolder folder;
  write_file_atomic(folder / "real", "old");
  REQUIRE(symlink("real", (folder / "link").c_str()) == 0);
  write_file_atomic(folder / "link", "new");
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK(read_file(folder / "real") == "new");
  REQUIRE(symlink("later", (folder / "dangling").c_str()) == 0);
  REQUIRE(symlink("dangling", (folder / "twice").c_str()) == 0);
  write_file_atomic(folder / "twice", "made");
  CHECK(std::filesystem::is_symlink(folder / "twice"));
  CHECK(std::filesystem::is_symlink(folder / "dangling"));
  CHECK_FALSE(std::filesystem::is_symlink(folder / "later"));
  CHECK(read_file(folder / "later") == "made");
  REQUIRE(symlink("round", (folder / "round").c_str()) == 0);
  CHECK_THROWS_WITH(write_file_atomic(folder / "round", "x"), Contains("cannot follow"));
}

TEST_CASE("an open reader keeps the old file", "[file]") {
  ScratchFolder folder;
  const std::string path = folder / "a";
  write_file_atomic(path, "old bytes");
  InputFile reader(path);
  write_file_atomic(path, "new");
  std::string bytes(9, ' ');
  reader.read(bytes.data(), 9);
  CHECK(bytes == "old bytes");
}

TEST_CASE("errors name the file and leave nothing behind", "[file]") {
  ScratchFolder folder;
  const Location here{"train.cpp", 31};
  CHECK_THROWS_WITH(
      read_file(folder / "none", kMaxFileBytes, here),
      "read_file: cannot open \"" + folder / "none" + "\": No such file or directory at train.cpp:31");
  CHECK_THROWS_WITH(read_file(folder.path()), Contains("is a folder"));
  CHECK_THROWS_WITH(read_file("/dev/null"), Contains("is not a regular file"));
  REQUIRE(mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(read_file(folder / "pipe"), Contains("is not a regular file"));
  CHECK_THROWS_WITH(write_file_atomic(folder / "pipe", "x"), Contains("is not a regular file"));
  CHECK_THROWS_WITH(write_file_atomic(folder.path(), "x"), Contains("is not a regular file"));
  CHECK_THROWS_WITH(write_file_atomic(folder / "none/a", "x", here), Contains("cannot make a file in") &&
                                                                         Contains("No such file") &&
                                                                         Contains("train.cpp:31"));
  write_file_atomic(folder / "a", "12345");
  CHECK_THROWS_WITH(read_file(folder / "a", 4), Contains("has 5 bytes; at most 4 are read"));
  CHECK(folder.count() == 2);
}

TEST_CASE("a file that shrinks while it is read is an error", "[file]") {
  ScratchFolder folder;
  write_file_atomic(folder / "a", "0123456789");
  InputFile file(folder / "a");
  REQUIRE(truncate((folder / "a").c_str(), 4) == 0);
  char bytes[10];
  CHECK_THROWS_WITH(file.read(bytes, 10), Contains("ended 6 bytes early"));
}

TEST_CASE("a write that fails midway keeps the old file", "[file]") {
  ScratchFolder folder;
  const std::string path = folder / "a";
  write_file_atomic(path, "old");
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{100'000, before.rlim_max};
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    write_file_atomic(path, std::string(1'000'000, 'x'));
  } catch (const Error& e) {
    message = e.what();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  CHECK_THAT(message, Contains("cannot write") && Contains(path) && Contains("File too large"));
  CHECK(read_file(path) == "old");
  CHECK(folder.count() == 1);
}

namespace {

constexpr int64_t kCount = 30'000;

void save_version(const std::string& path, int32_t version) {
  const std::vector<int32_t> values(kCount, version);
  const SafeTensor tensor{"values", int32, {kCount}, values.data()};
  write_safetensors(path, std::span(&tensor, 1), {{"version", std::to_string(version)}});
}

/// The version, if the whole file is of it; an Error or -1 otherwise.
int32_t load_version(const std::string& path) {
  const SafeTensors file = SafeTensors::read(path);
  const SafeTensor* t = file.find("values");
  if (t == nullptr || t->sizes != Dims{kCount}) return -1;
  const int32_t* values = static_cast<const int32_t*>(t->data);
  for (int64_t i = 0; i < kCount; ++i)
    if (values[i] != values[0]) return -1;
  return file.metadata().at("version") == std::to_string(values[0]) ? values[0] : -1;
}

}  // namespace

TEST_CASE("a process killed at any point of a save leaves a file that loads", "[file]") {
  ScratchFolder folder;
  const std::string path = folder / "model.safetensors";
  save_version(path, 0);
  std::mt19937 random(20);
  int interrupted = 0, replaced = 0, broken = 0;
  for (int point = 0; point < 100; ++point) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (int32_t version = point * 100'000 + 1;; ++version) {
        try {
          save_version(path, version);
        } catch (...) {
          _exit(1);
        }
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 6000));
    kill(child, SIGKILL);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    int32_t version = -1;
    try {
      version = load_version(path);
    } catch (const Error& e) {
      WARN(e.what());
    }
    broken += version < 0;
    replaced += version > point * 100'000;
    interrupted += folder.count() > 1;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
      if (entry.path() != path) std::filesystem::remove(entry.path());
  }
  CHECK(broken == 0);
  CHECK(interrupted > 0);  // else no kill fell into a save and the test shows nothing
  CHECK(replaced > 0);
}

TEST_CASE("a file grows by what is appended", "[file]") {
  ScratchFolder folder;
  const std::string path = folder / "log";
  {
    AppendFile file(path, AppendFile::Open::new_only);
    file.append("one\n");
    file.append("");
    file.append("two\n");
    CHECK(read_file(path) == "one\ntwo\n");
    CHECK_THROWS_WITH(AppendFile(path, AppendFile::Open::new_only), Contains("cannot open \"" + path + "\""));
  }
  AppendFile(path).append("three\n");
  CHECK(read_file(path) == "one\ntwo\nthree\n");
  CHECK_THROWS_WITH(AppendFile(folder.path()), Contains("cannot open"));
  CHECK_THROWS_WITH(AppendFile(folder / "none/log"), Contains("No such file"));
  CHECK_THROWS_WITH(AppendFile("/dev/null"), Contains("is not a regular file"));
}

TEST_CASE("what cannot be appended whole leaves the file as it was", "[file]") {
  ScratchFolder folder;
  AppendFile file(folder / "log");
  file.append("12345");
  struct sigaction ignore {
  }, before{};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGXFSZ, &ignore, &before);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{8, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  std::string told;
  try {
    file.append("6789abc");
  } catch (const Error& e) {
    told = e.what();
  }
  const std::string left = read_file(folder / "log");
  setrlimit(RLIMIT_FSIZE, &old);
  sigaction(SIGXFSZ, &before, nullptr);
  CHECK(told.find("append: cannot write \"" + (folder / "log") + "\"") == 0);
  CHECK(left == "12345");
  file.append("6789abc");
  CHECK(read_file(folder / "log") == "123456789abc");
}

TEST_CASE("folders are made with those above them", "[file]") {
  ScratchFolder folder;
  make_folders(folder / "a/b/c");
  make_folders(folder / "a/b/c");
  CHECK(std::filesystem::is_directory(folder / "a/b/c"));
  folder.put("plain", "x");
  CHECK_THROWS_WITH(make_folders(folder / "plain"), Contains("cannot make the folder"));
  CHECK_THROWS_WITH(make_folders(folder / "plain/below"), Contains("cannot make the folder"));
}
