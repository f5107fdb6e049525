// Loads a saved training step and goes on with it: `continue_function FILE FIRST COUNT` prints the losses of
// batches FIRST to FIRST + COUNT - 1, as hex floats. It knows nothing of the model.
#include <cstdio>
#include <cstdlib>

#include "tandem/tandem.h"
#include "tests/programs/batches.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  try {
    const tandem::FrozenFunction step = tandem::load_function(argv[1]);
    const int first = std::atoi(argv[2]), count = std::atoi(argv[3]);
    for (int i = first; i < first + count; ++i) {
      const auto [x, y] = saved_test::batch(i);
      std::printf("%a\n", static_cast<double>(step({x, y})[0].item<float>()));
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
