// The traps' frozen way is no empty one: many of them really run without their body.
#include "tests/contract/trap.h"

using namespace programs;

TEST_CASE("many traps run calls without their body", "[contract]") {
  int froze = 0, unseen = 0;
  for (const Trap& t : traps()) {
    ran_frozen = false;
    run_program(Way::frozen, t.program);
    froze += ran_frozen;
    unseen += t.unseen.reason != nullptr;
    INFO(t.peers);
    if (t.unseen.reason) CHECK(ran_frozen);
  }
  CAPTURE(traps().size());
  CAPTURE(unseen);
  CHECK(froze >= 60);
}
