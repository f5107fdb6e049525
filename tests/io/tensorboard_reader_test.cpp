// TensorBoard's own reader lists every value of our event files.
#include <cmath>
#include <string>

#include "tandem/eager/functions.h"
#include "tandem/io/tensorboard.h"
#include "tandem/jit/child_process.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"

namespace td = tandem;

TEST_CASE("TensorBoard finds every tag, also of a run that was resumed", "[tensorboard]") {
  if (std::string(TANDEM_TENSORBOARD_PYTHON).empty()) {
    std::puts(
        "SKIPPED: no Python here has TensorBoard (pip install tensorboard, then TANDEM_TENSORBOARD_PYTHON)");
    return;
  }
  ScratchFolder folder, scratch;
  {
    td::tensorboard::Writer w(folder.path());
    for (int i = 1; i <= 4; ++i) w.add_scalar("loss", 1.0 / i, i);
    w.add_scalar("nan", std::nan(""), 1);
    w.add_histogram("weights", td::arange(-3.f, 5, 1), 1);
    w.add_text("note", "first", 1);
  }
  {
    td::tensorboard::Writer w(folder.path(), {.purge_step = 3});
    w.add_scalar("loss", 30, 3);
    w.add_histogram("weights", td::zeros({5}), 3);
  }
  const td::jit::ChildResult r = td::jit::run_child(
      {TANDEM_TENSORBOARD_PYTHON, std::string(TANDEM_SOURCE_DIR) + "/tests/io/list_events.py", folder.path()},
      scratch.path(), 60'000);
  INFO(r.failure << '\n' << r.output);
  REQUIRE(r.ok);
  const std::string expected =
      "scalar loss 1 1.0\n"
      "scalar loss 2 0.5\n"
      "scalar loss 3 30.0\n"
      "scalar nan 1 nan\n"
      "histogram weights 1 8.0 -3.0 4.0 610 8.0\n"
      "histogram weights 3 5.0 0.0 0.0 2 5.0\n"
      "text note/text_summary 1 first\n";
  CHECK(r.output.substr(r.output.find("scalar loss")) == expected);
}
