// Event files: the bytes that TensorFlow's own classes give, what a reader of our own finds in them, and what
// is left of them after a kill or on a full disk.
#include "tandem/io/tensorboard.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <limits>
#include <thread>

#include "tandem/core/io/file.h"
#include "tandem/eager/functions.h"
#include "tandem/eager/scalars.h"
#include "tandem/io/records.h"
#include "tandem/tracer/trace.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/error_message.h"
#include "tests/io/events.h"

namespace td = tandem;
using td::tensorboard::Writer;
using td::tensorboard::WriterOptions;
using td::test::Event;
using td::test::events;
using td::test::message;

namespace {

constexpr double kTime = 1700000000.25;
double fixed_clock() { return kTime; }

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned>(static_cast<uint8_t>(c)));
    out += two;
  }
  return out;
}

std::vector<Event> events_of(const Writer& w) { return events(td::core::read_file(w.path())); }

/// The event of a single value, written to a file of its own.
template <class F>
Event one(F add) {
  ScratchFolder folder;
  Writer w(folder.path());
  add(w);
  w.flush();
  const std::vector<Event> all = events_of(w);
  REQUIRE(all.size() == 2);
  return all[1];
}

/// While it lives, no file grows by more than some bytes beyond `size`.
class FullDisk {
 public:
  explicit FullDisk(size_t size) {
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGXFSZ, &ignore, &action_);
    getrlimit(RLIMIT_FSIZE, &limit_);
    const rlimit small{size + 50, limit_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
  }
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &limit_);
    sigaction(SIGXFSZ, &action_, nullptr);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  struct sigaction action_ {};
  rlimit limit_{};
};

}  // namespace

TEST_CASE("CRC-32C has the values of RFC 3720", "[tensorboard]") {
  CHECK(td::io::crc32c("123456789") == 0xe3069283u);
  CHECK(td::io::crc32c("") == 0);
  CHECK(td::io::crc32c(std::string(32, '\0')) == 0x8a9136aau);
  CHECK(td::io::crc32c(std::string(32, '\xff')) == 0x62a8ab43u);
}

TEST_CASE("an event file has the bytes that TensorFlow's classes give", "[tensorboard]") {
  ScratchFolder folder;
  Writer w(folder.path(), {.purge_step = 3, .clock = fixed_clock});
  w.add_scalar("loss", 0.1, 3, kTime + 1.25);
  w.add_scalar("zero", 0);
  w.add_text("note", "h\xc3\xa9 *x*", 1);
  w.add_histogram("w", td::full({3}, 0.5), 2);
  w.close();
  CHECK(hex(td::core::read_file(w.path())) ==
        "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9"
        "0f000000000000006d532b090900001040fc54d94110033a0208019481124c"
        "1a00000000000000129bd82d0900006040fc54d94110032a0d0a0b0a046c6f737315cdcccc3d65bc8e0e"
        "1800000000000000a37f4b220900001040fc54d9412a0d0a0b0a047a65726f1500000000a4f5e67c"
        "3f00000000000000516576610900001040fc54d94110012a320a300a116e6f74652f746578745f73756d6d617279"
        "42110807120412020801420768c3a9202a782a4a080a060a0474657874e3b6aa4f"
        "6500000000000000ebd05a690900001040fc54d94110022a580a560a01772a5109000000000000e03f1100000000"
        "0000e03f19000000000000084021000000000000f83f29000000000000e83f3210fae55a25d31fde3fb03125ee80"
        "91e03f3a1000000000000000000000000000000840e86eded4");
}

TEST_CASE("what was added is what a reader finds", "[tensorboard]") {
  ScratchFolder folder;
  Writer w(folder / "a/b", {.filename_suffix = ".mine"});
  CHECK(w.log_dir() == folder / "a/b");
  CHECK(w.path().ends_with(".mine"));
  w.add_scalar("f", 1.5, 7);
  w.add_scalar("t", td::full({1, 1}, 3, {.dtype = td::int64}), 8);
  w.add_scalar("nan", std::nan(""), -2);
  w.add_scalar("inf", -std::numeric_limits<double>::infinity(), int64_t{1} << 40);
  w.add_text("greeting", "a\nb", 9);
  w.flush();
  const std::vector<Event> all = events_of(w);
  REQUIRE(all.size() == 6);
  CHECK(all[0].version == "brain.Event:2");
  CHECK((all[1].tag == "f" && all[1].scalar == 1.5f && all[1].step == 7 && all[1].walltime > 1.7e9));
  CHECK((all[2].tag == "t" && all[2].scalar == 3 && all[2].step == 8));
  CHECK((std::isnan(all[3].scalar) && all[3].is_scalar && all[3].step == -2));
  CHECK((std::isinf(all[4].scalar) && all[4].scalar < 0 && all[4].step == int64_t{1} << 40));
  CHECK((all[5].tag == "greeting/text_summary" && all[5].plugin == "text" && all[5].text == "a\nb"));
}

TEST_CASE("files of one folder sort in the order in which they were made", "[tensorboard]") {
  ScratchFolder folder;
  std::string last;
  for (int i = 0; i < 12; ++i) {
    const Writer w(folder.path(), {.clock = fixed_clock});
    CHECK(w.path() > last);
    last = w.path();
  }
  CHECK(last.find("events.out.tfevents.1700000011.") != std::string::npos);
}

TEST_CASE("values are kept until there are enough of them, or time has passed", "[tensorboard]") {
  ScratchFolder folder;
  double now = 100;
  Writer w(folder.path(), {.max_queue = 3, .flush_secs = 10, .clock = [&] { return now; }});
  const auto on_disk = [&] { return events_of(w).size() - 1; };
  CHECK(on_disk() == 0);
  for (int i = 0; i < 3; ++i) w.add_scalar("x", i, i);
  CHECK(on_disk() == 0);
  w.add_scalar("x", 3, 3);
  CHECK(on_disk() == 3);
  now += 11;
  w.add_scalar("x", 4, 4);
  CHECK(on_disk() == 4);
  w.flush();
  CHECK(on_disk() == 5);
  w.add_scalar("x", 5, 5);
  w.close();
  w.close();
  CHECK(on_disk() == 6);
  CHECK_THROWS_WITH(w.add_scalar("x", 6, 6), Contains("is closed"));
}

TEST_CASE("the end of a writer writes what it kept", "[tensorboard]") {
  ScratchFolder folder;
  std::string path;
  {
    Writer w(folder.path());
    path = w.path();
    w.add_scalar("x", 1);
  }
  CHECK(events(td::core::read_file(path)).size() == 2);
}

TEST_CASE("a histogram has the bins that PyTorch gives it", "[tensorboard]") {
  const auto bins = [](std::initializer_list<float> values) {
    return one([&](Writer& w) { w.add_histogram("h", td::tensor(values), 4); });
  };
  const Event e = bins({-1, 0, 0.5f, 2, 2});
  CHECK((e.is_histogram && e.step == 4));
  CHECK((e.min == -1 && e.max == 2 && e.num == 5 && e.sum == 3.5 && e.sum_squares == 9.25));
  REQUIRE(e.limits.size() == 591);
  REQUIRE(e.counts.size() == 591);
  CHECK(e.limits.front() == -1.0089710279437536);
  CHECK(e.limits.back() == 2.1628190051144287);
  CHECK((e.counts[0] == 0 && e.counts[1] == 1 && e.counts[292] == 1 && e.counts[575] == 1));
  CHECK(e.counts[590] == 2);
  const Event zeros = bins({0, 0});
  CHECK((zeros.limits == std::vector<double>{0, 1e-12} && zeros.counts == std::vector<double>{0, 2}));
  const Event tiny = bins({1e-13f, -1e-13f});
  CHECK(
      (tiny.limits == std::vector<double>{-1e-12, 0, 1e-12} && tiny.counts == std::vector<double>{0, 1, 1}));
}

TEST_CASE("every limit of a histogram, and what lies between two, falls into its bin", "[tensorboard]") {
  // All of PyTorch's limits, one after another, found from the differences of bins.
  std::vector<double> limits = {0};
  for (double v = 1e-12; v < 1e20; v *= 1.1) limits.push_back(v), limits.insert(limits.begin(), -v);
  REQUIRE(limits.size() == 1549);
  std::vector<double> values;
  for (size_t i = 0; i + 1 < limits.size(); ++i) {
    values.push_back(limits[i]);
    values.push_back(std::nextafter(limits[i + 1], -1e300));
  }
  const Event e = one([&](Writer& w) {
    w.add_histogram("h", td::tensor(std::span<const double>(values), {static_cast<int64_t>(values.size())}));
  });
  REQUIRE(e.limits == limits);
  CHECK(e.counts[0] == 0);
  for (size_t i = 1; i < e.counts.size(); ++i) REQUIRE(e.counts[i] == 2);
}

TEST_CASE("what lies beyond the last limit is counted, too", "[tensorboard]") {
  constexpr double kMax = std::numeric_limits<double>::max();
  const Event e = one([&](Writer& w) { w.add_histogram("h", td::tensor({-1e300, 1e21, kMax, -kMax})); });
  REQUIRE(e.counts.size() > 1500);
  CHECK((e.counts.front() == 0 && e.counts[1] == 2 && e.counts.back() == 2 && e.num == 4));
  CHECK((e.limits.back() == kMax && e.min == -kMax));
}

TEST_CASE("elements that are not finite are counted apart", "[tensorboard]") {
  ScratchFolder folder;
  const double inf = std::numeric_limits<double>::infinity();
  Writer w(folder.path());
  w.add_histogram("h", td::tensor({1.0, inf, std::nan(""), -inf, 3.0}), 5);
  w.add_histogram("none", td::tensor({inf}), 6);
  w.flush();
  const std::vector<Event> all = events_of(w);
  REQUIRE(all.size() == 4);
  CHECK((all[1].num == 2 && all[1].sum == 4 && all[1].min == 1 && all[1].max == 3));
  CHECK((all[2].tag == "h/not_finite" && all[2].scalar == 3 && all[2].step == 5));
  CHECK((all[3].tag == "none/not_finite" && all[3].scalar == 1));
}

TEST_CASE("histograms of every dtype, and of strided tensors", "[tensorboard]") {
  for (const td::DType dtype : {td::float16, td::bfloat16, td::float32, td::float64, td::int32, td::int64,
                                td::DType::uint8, td::DType::bool_}) {
    const td::Tensor t = td::tensor({0.0, 1.0, 1.0, 0.0}).to(dtype);
    const Event e = one([&](Writer& w) { w.add_histogram("h", t); });
    CAPTURE(td::name(dtype));
    CHECK((e.num == 4 && e.sum == 2 && e.counts.back() == 2));
  }
  const td::Tensor big = td::tensor({16777217.0}).to(td::int32);
  CHECK(one([&](Writer& w) { w.add_histogram("h", big); }).min == 16777217.0);
  const td::Tensor column = td::arange(0.f, 12, 1).reshape({3, 4}).select(1, 1);
  CHECK(one([&](Writer& w) { w.add_histogram("h", column); }).sum == 15);
}

TEST_CASE("mistakes are told, and nothing is written for them", "[tensorboard]") {
  ScratchFolder folder;
  Writer w(folder.path());
  CHECK(message([&] { w.add_scalar("", 1); }).find("add_scalar: the tag is empty") == 0);
  CHECK(message([&] { w.add_scalar("\xff", 1); }).find("not valid UTF-8") != std::string::npos);
  CHECK(message([&] { w.add_text("t", "\xc3"); }).find("the text is not valid UTF-8") != std::string::npos);
  CHECK(message([&] {
          w.add_scalar("l", td::ones({2}));
        }).find("add_scalar: \"l\": one element is wanted, the tensor has (2") == 0);
  CHECK(message([&] { w.add_scalar("l", td::Tensor()); }).find("the tensor is undefined") !=
        std::string::npos);
  CHECK(message([&] {
          w.add_histogram("h", td::ones({0, 3}));
        }).find("add_histogram: \"h\": the tensor (0, 3) has no elements") == 0);
  CHECK(message([&] { w.add_histogram("h", td::Tensor()); }).find("undefined") != std::string::npos);
  w.flush();
  CHECK(events_of(w).size() == 1);
  CHECK_THROWS_WITH(Writer(folder.path(), {.max_queue = 0}), Contains("max_queue is 0"));
  CHECK_THROWS_WITH(Writer(folder.path(), {.flush_secs = -1}), Contains("flush_secs"));
  const std::string file = folder.put("plain", "x");
  CHECK_THROWS_WITH(Writer(file), Contains("cannot make the folder \"" + file + "\""));
  CHECK_THROWS_WITH(Writer(file + "/below"), Contains("cannot make the folder \"" + file));
}

TEST_CASE("a folder that may not be written is an error that names the file", "[tensorboard]") {
  if (geteuid() == 0) {  // whom no mode stops
    CHECK_THROWS_WITH(Writer("/proc/self/events"), Contains("/proc/self/events"));
    return;
  }
  ScratchFolder folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_read);
  CHECK_THROWS_WITH(Writer(folder.path()), Contains("events.out.tfevents."));
  std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_all);
}

TEST_CASE("on a full disk nothing is cut: what was kept is written once there is room", "[tensorboard]") {
  ScratchFolder folder;
  Writer w(folder.path(), {.max_queue = 4});
  const size_t size = td::core::read_file(w.path()).size();
  for (int i = 0; i < 4; ++i) w.add_scalar("x", i, i);
  std::string first, again;
  size_t left = 0;
  {
    const FullDisk full(size);
    first = message([&] { w.add_scalar("x", 4, 4); });
    again = message([&] { w.flush(); });
    left = td::core::read_file(w.path()).size();
  }
  CHECK(first.find("append: cannot write \"" + w.path() + "\"") == 0);
  CHECK(again == first.substr(0, first.rfind(" at ")) + again.substr(again.rfind(" at ")));
  CHECK(left == size);
  w.flush();
  const std::vector<Event> all = events_of(w);
  REQUIRE(all.size() == 5);  // the fifth value was refused
  for (int i = 0; i < 4; ++i) CHECK(all[static_cast<size_t>(i) + 1].step == i);
}

TEST_CASE("whatever part of a file a killed process leaves, its whole values can be read", "[tensorboard]") {
  ScratchFolder folder;
  Writer w(folder.path(), {.clock = fixed_clock});
  for (int i = 0; i < 5; ++i) w.add_scalar("x", i, i);
  w.close();
  const std::string file = td::core::read_file(w.path());
  const size_t header = 40, each = (file.size() - header) / 5;
  for (size_t n = header; n <= file.size(); ++n) {
    const std::vector<Event> found = events(std::string_view(file).substr(0, n));
    REQUIRE(found.size() >= (n - header) / (each + 2) + 1);
    for (size_t i = 1; i < found.size(); ++i) REQUIRE(found[i].step == static_cast<int64_t>(i) - 1);
  }
}

TEST_CASE("a process that is killed while it writes leaves a readable file", "[tensorboard]") {
  ScratchFolder folder;
  for (int round = 0; round < 4; ++round) {
    const std::string log = folder / std::to_string(round);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      Writer w(log, {.max_queue = 1});
      for (int64_t i = 0;; ++i) w.add_scalar("x", static_cast<double>(i), i);
    }
    const auto bytes = [&] {
      std::error_code none;
      for (const auto& f : std::filesystem::directory_iterator(log, none))
        return td::core::read_file(f.path().string());
      return std::string();
    };
    for (int i = 0; i < 5000 && bytes().size() < 5000; ++i) usleep(1000);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const std::vector<Event> found = events(bytes());
    REQUIRE(found.size() > 50);
    for (size_t i = 1; i < found.size(); ++i) REQUIRE(found[i].step == static_cast<int64_t>(i) - 1);
  }
}

TEST_CASE("threads add to one file", "[tensorboard][threads]") {
  ScratchFolder folder;
  Writer w(folder.path(), {.max_queue = 7});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&w, t] {
      for (int i = 0; i < 100; ++i) w.add_scalar("thread" + std::to_string(t), i, i);
    });
  for (std::thread& t : threads) t.join();
  w.flush();
  int64_t next[4] = {};
  for (const Event& e : events_of(w))
    if (e.is_scalar) CHECK(e.step == next[e.tag.back() - '0']++);
  for (const int64_t n : next) CHECK(n == 100);
}

TEST_CASE("a traced body writes what an eager one does, on every call", "[tensorboard]") {
  ScratchFolder folder;
  const auto run = [&](auto wrap) {
    Writer w(folder.path());
    int64_t step = 0;
    auto f = wrap([&](td::Tensor x) {
      const td::Tensor y = (x * 2.f).sum();
      w.add_scalar("sum", y, step);
      w.add_histogram("x", x, step++);
      return y + 1.f;
    });
    for (int i = 0; i < 4; ++i) f(td::full({3}, double(i)));
    w.flush();
    std::vector<double> found;
    for (const Event& e : events_of(w)) found.push_back(e.is_scalar ? e.scalar : e.sum);
    return found;
  };
  const std::vector<double> eager = run([](auto body) { return body; });
  REQUIRE(eager == std::vector<double>{0, 0, 0, 6, 3, 12, 6, 18, 9});
  CHECK(run([](auto body) { return td::trace(body, {.compile = false}); }) == eager);
}

TEST_CASE("a body that writes is refused by freezing, with its line", "[tensorboard]") {
  ScratchFolder folder;
  Writer w(folder.path());
  auto f = td::trace(
      [&](td::Tensor x) {
        const td::Tensor y = x * 2.f;
        w.add_scalar("sum", y.sum());
        return y;
      },
      {.compile = false});
  for (int i = 0; i < 3; ++i) f(td::ones({3}));
  CHECK_THROWS_WITH(f.freeze(), Contains("tensorboard_test.cpp"));
}

TEST_CASE("a body that logs is refused by freezing, too", "[tensorboard]") {
  auto f = td::trace(
      [&](td::Tensor x) {
        td::log_scalar("tensorboard_test/frozen", x.sum());
        return x * 2.f;
      },
      {.compile = false});
  for (int i = 0; i < 3; ++i) f(td::ones({3}));
  CHECK_THROWS_WITH(f.freeze(), Contains("tensorboard_test.cpp"));
  td::take_scalars();
}

TEST_CASE("what log_scalar kept is written by name and index", "[tensorboard]") {
  td::take_scalars();
  ScratchFolder folder;
  Writer w(folder.path());
  auto f = td::trace(
      [&](td::Tensor x) {
        td::log_scalar("tensorboard_test/sum", x.sum());
        return x * 2.f;
      },
      {.compile = false});
  for (int i = 0; i < 3; ++i) f(td::full({2}, double(i)));
  w.add_logged(10);
  f(td::full({2}, 3.0));
  w.add_logged(10);
  w.flush();
  const std::vector<Event> all = events_of(w);
  REQUIRE(all.size() == 5);
  for (size_t i = 1; i < 5; ++i) {
    CHECK(all[i].step == static_cast<int64_t>(9 + i));
    CHECK(all[i].scalar == static_cast<float>(2 * (i - 1)));
  }
}

TEST_CASE("what log_scalar kept and a full disk refused is added by the next call", "[tensorboard]") {
  td::take_scalars();
  ScratchFolder folder;
  Writer w(folder.path(), {.max_queue = 2});
  for (int i = 0; i < 6; ++i) td::log_scalar("tensorboard_test/kept", td::tensor({1.0 * i}));
  td::log_scalar("", td::tensor({7.0}));
  {
    const FullDisk full(td::core::read_file(w.path()).size());
    CHECK_THROWS_WITH(w.add_logged(5), Contains("append: cannot write"));
  }
  CHECK(td::take_scalars().empty());
  td::log_scalar("tensorboard_test/kept", td::tensor({6.0}));
  td::log_scalar("\xff", td::tensor({8.0}));
  CHECK_THROWS_WITH(w.add_logged(5), Contains("add_logged: the tag is not valid UTF-8"));
  w.add_logged(5);
  w.close();
  const std::vector<Event> all = events(td::core::read_file(w.path()));
  REQUIRE(all.size() == 8);
  for (size_t i = 1; i < 8; ++i) {
    CHECK(all[i].step == static_cast<int64_t>(i) + 4);
    CHECK(all[i].scalar == static_cast<float>(i - 1));
  }
  td::log_scalar("tensorboard_test/kept", td::tensor({9.0}));
  CHECK_THROWS_WITH(w.add_logged(5), Contains("is closed"));
  CHECK(td::take_scalars().size() == 1);  // for another writer
}
