// The program gpt2, run as its users run it: what it logs, and that a run that ended, or was killed, goes on
// in a new process as if it had not.
#include "tandem/core/io/file.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/io/events.h"
#include "tests/models/trained_bpe.h"
#include "tests/samples/program.h"

using namespace tandem::test;

namespace {

/// `options` for a model and steps that take milliseconds.
std::vector<std::string> gpt2(const std::string& folder, std::vector<std::string> options) {
  std::vector<std::string> all = {TANDEM_SAMPLES "/gpt2",
                                  "--batch",
                                  "2",
                                  "--context",
                                  "16",
                                  "--warmup",
                                  "4",
                                  "--every",
                                  "5",
                                  "--write",
                                  "0",
                                  "--out",
                                  folder};
  all.insert(all.end(), options.begin(), options.end());
  return all;
}

/// 20 steps at once, and 10 in one process and 10 in another; what they log must be the same.
Numbers losses_of_resumed(const std::vector<std::string>& how) {
  CAPTURE(how);
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), how.begin(), how.end());
    return more;
  };
  ScratchFolder whole, parts;
  run(gpt2(whole.path(), with({"--steps", "20"})));
  run(gpt2(parts.path(), with({"--steps", "10"})));
  const std::string output = run(gpt2(parts.path(), with({"--steps", "20", "--resume"})));
  CHECK(output.find("goes on after step 10") != std::string::npos);
  const Numbers losses = numbers(whole / "metrics.jsonl", "loss");
  REQUIRE(losses.size() == 20);
  for (const char* name : {"loss", "grad_norm", "test_loss"})
    CHECK(numbers(whole / "metrics.jsonl", name) == numbers(parts / "metrics.jsonl", name));
  const bool same_model = tandem::core::read_file(whole / "model.safetensors") ==
                          tandem::core::read_file(parts / "model.safetensors");
  CHECK(same_model);
  return losses;
}

}  // namespace

TEST_CASE("gpt2 goes on in a new process with the losses of a run that did not end", "[samples]") {
  const Numbers eager = losses_of_resumed({"--mode", "eager"});
  CHECK(eager == losses_of_resumed({"--mode", "checked"}));
  CHECK(eager.at(20) < eager.at(1) - 0.5);
}

TEST_CASE("gpt2 goes on frozen and in bfloat16, too", "[samples][full]") {
  const Numbers eager = losses_of_resumed({"--mode", "eager"});
  CHECK(eager == losses_of_resumed({"--mode", "frozen"}));
  const Numbers bf16 = losses_of_resumed({"--mode", "checked", "--dtype", "bf16"});
  CHECK(eager != bf16);
  CHECK(bf16 == losses_of_resumed({"--mode", "eager", "--dtype", "bf16"}));
}

TEST_CASE("gpt2 that is killed goes on from its last checkpoint", "[samples]") {
  ScratchFolder whole, killed;
  run(gpt2(whole.path(), {"--mode", "eager", "--steps", "60", "--every", "10"}));
  const std::string metrics = killed / "metrics.jsonl";
  kill_after(gpt2(killed.path(), {"--mode", "eager", "--steps", "60", "--every", "10"}), metrics, 20);
  const std::string output =
      run(gpt2(killed.path(), {"--mode", "eager", "--steps", "60", "--every", "10", "--resume"}));
  CHECK(output.find("goes on after step") != std::string::npos);
  CHECK(numbers(metrics, "loss") == numbers(whole / "metrics.jsonl", "loss"));
  CHECK(numbers(metrics, "grad_norm") == numbers(whole / "metrics.jsonl", "grad_norm"));
}

TEST_CASE("gpt2's event files hold what metrics.jsonl does", "[samples]") {
  ScratchFolder folder;
  run(gpt2(folder.path(), {"--mode", "eager", "--steps", "5"}));
  folder.put("checkpoint.safetensors.tmp-0123456789abcdef", "left by a kill");
  run(gpt2(folder.path(), {"--mode", "eager", "--steps", "7", "--resume", "--write", "3"}));
  CHECK_FALSE(std::filesystem::exists(folder / "checkpoint.safetensors.tmp-0123456789abcdef"));
  Numbers losses;
  int starts = 0, texts = 0;
  for (const std::string& path : event_files(folder.path()))
    for (const std::string file = tandem::core::read_file(path); const Event& e : events(file)) {
      if (e.tag == "loss") losses[e.step] = static_cast<double>(e.scalar);
      texts += e.tag == "written/text_summary" && e.step == 7;
      starts += e.session_status == 1;
    }
  CHECK(losses == numbers(folder / "metrics.jsonl", "loss"));
  CHECK((losses.size() == 7 && starts == 2 && texts == 1));
}

TEST_CASE("gpt2 refuses what would spoil a run", "[samples]") {
  ScratchFolder folder;
  run(gpt2(folder.path(), {"--mode", "eager", "--steps", "1"}));
  CHECK_THAT(run(gpt2(folder.path(), {"--mode", "eager", "--steps", "2"}), 1),
             Contains("holds a run already: --resume goes on with it"));
  CHECK_THAT(run(gpt2(folder.path(), {"--resume", "--batch", "3"}), 1),
             Contains("has another --batch than \"3\""));
  // The checkpoint has it, and would override it.
  CHECK_THAT(run(gpt2(folder.path(), {"--resume", "--weight-decay", "0.1000001"}), 1),
             Contains("has another --weight-decay than \"0.1000001"));
  ScratchFolder logs;
  const std::string line = "{\"step\": 3, \"time\": 1, \"loss\": 2}\n";
  logs.put("metrics.jsonl", line);
  CHECK_THAT(run(gpt2(logs.path(), {"--mode", "eager", "--steps", "1"}), 1),
             Contains("holds a run already: --resume goes on with it"));
  CHECK((logs.count() == 1 && tandem::core::read_file(logs / "metrics.jsonl") == line));
  CHECK_THAT(run({TANDEM_SAMPLES "/gpt2", "--resume"}, 2), Contains("--resume needs --out"));
  CHECK_THAT(run({TANDEM_SAMPLES "/gpt2", "--mode", "fast"}, 2),
             Contains("eager, checked or frozen, not 'fast'"));
  CHECK_THAT(run({TANDEM_SAMPLES "/gpt2", "--dtype", "int8"}, 2), Contains("float32 or bf16, not 'int8'"));
  CHECK_THAT(run({TANDEM_SAMPLES "/gpt2", "--context", "300"}, 2), Contains("--context is at most 256"));
  CHECK_THAT(run({TANDEM_SAMPLES "/gpt2", "--size", "big"}, 1), Contains("there is no \"big\""));
  CHECK_THAT(run({TANDEM_SAMPLES "/gpt2", "--vocab", "/no/such"}, 1), Contains("/no/such"));
}

TEST_CASE("gpt2 learns tokens of a vocabulary, and begins with weights of a file", "[samples]") {
  if (!samples::Bpe::available()) {
    std::puts("SKIPPED: this build has no PCRE2");
    return;
  }
  ScratchFolder folder, vocabulary;
  write_vocabulary(trained_vocabulary(100), vocabulary.path());
  run(gpt2(folder / "first", {"--mode", "eager", "--steps", "5", "--vocab", vocabulary.path()}));
  const std::string text = run(
      gpt2(folder / "second", {"--mode", "eager", "--steps", "1", "--vocab", vocabulary.path(), "--weights",
                               folder / "first/model.safetensors", "--write", "8", "--prompt", "The king"}));
  CHECK(text.find("of 357") != std::string::npos);
  CHECK(text.find("\nThe king") != std::string::npos);
  CHECK(numbers(folder / "second/metrics.jsonl", "loss")[1] <
        numbers(folder / "first/metrics.jsonl", "loss")[1]);
}
