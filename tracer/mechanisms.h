// The mechanisms that hold the rules of docs/semantics.md, by name. A test build (TANDEM_TEST_SWITCHES) can
// switch one off to show that the contract tests notice; elsewhere `on` is a constant.
#pragma once

#include <cstdint>

namespace tandem::tracer {

enum class Mechanism : uint32_t {
  compare_operands,    // R3: each operand is the recorded one
  compare_attributes,  // R3: structural words are equal bit for bit
  compare_modes,       // R3: grad mode and the others
  compare_in_place,    // R3
  differences,         // R3: what the body does now counts, not what it did when it was recorded
  slot_rebinding,      // R2: another tensor of the same type takes a slot's place without a new recording
  store_scalars,       // R8: run-time words reach the plan
  follow_numbers,      // R8: numbers inside a skipped backward follow those of the ops before it
  moving_slices,       // R8: positions of slices of what enters are run-time values
  slot_types,          // R2: a slot is bound again only to a tensor of the same type
  slot_once,           // R2: two slots that arrive as one tensor, or one memory, are a difference
  slot_watch,          // R2: tensors that die or change are forgotten
  dying_slots,         // R2: a captured tensor that dies during the call lives until its end
  slot_writes,         // R1: a captured tensor or argument that was changed is stored
  touched_slots,       // R5: a captured tensor that the call gave a history is another one in the next
  entry_modes,         // R3: the modes of the call select the record
  given_up_arguments,  // memory of an argument that the body gave up is let go at a read
  argument_types,      // R2: dtype, layout and requires_grad of arguments select the record
  argument_sizes,      // R9: so do their sizes
  argument_aliasing,   // R2: so does which arguments are the same tensor or memory
  captured_aliasing,   // R2: an argument that is also captured
  cell_values,         // R1: a read takes the cell's current value
  versions,            // R1: version counters move at the call
  leaf_gradients,      // R4: the state of .grad is part of backward's key
  host_code,           // R4: hooks run on every call
  backward_key,        // R4: so are its roots, flags and given gradients
  grad_requests,       // R4: requires_grad_ in the body is an event
  tape_on_demand,      // R4: what needs a tape in replay gets one
  consumed_tape,       // R4: a consumed range throws again
  leaving_history,     // R5: history that leaves keeps working
  outside_history,     // R5: history from outside is walked
  record_order,        // R14: a tape made again from the record has the record's order
  reads_run,           // R6: a read runs what is pending
  owed_reads,          // R6: also if the tensor read is real, but pending ops change its memory
  owed_pointers,       // R6: or, if its address is handed out, use it
  borrowed_memory,     // R16: what is done with borrowed memory that the body has made a tensor of is done at
                       // once
  abandon,             // R7: what came before a throw happens
  drop_recording,      // R7: a path broken off by a throw is forgotten
  live_outputs,        // R10: whoever is held at the end is an output
  held_history,        // R5: and so is what the gradients of its history need
  outputs_grow,        // R10: the set of outputs only grows
  result_layout,       // R11: a result has the strides that eager mode gives it
  result_aliasing,     // R11: a result that is a view shares its base's memory
  kept_versions,       // R11: what is kept of a captured tensor is used only while that is unchanged
  leaving_views,       // R1: a view that leaves the call goes on following its base
  result_versions,     // R1: what leaves the call carries the version that its saved values were kept with
  fresh_handles,       // R12: a handle that somebody holds is not used again
  end_event,           // a body that ends early is a path of its own
  thread_check,        // R15: pending tensors belong to their call
  inline_traces,       // R16: inner traces run inside the outer one
  new_branch_waits,    // R17: a new branch is compiled when it is taken again
  branch_bound,        // R17: from so many branches on, calls run op by op
  byte_bound,          // R17: signatures that were not used for long are forgotten
  once,                // R18: what a read has run is not run again at the segment's end
  count_
};

#ifdef TANDEM_TEST_SWITCHES
extern uint64_t mechanisms_off;  // bits
inline bool on(Mechanism m) { return !((mechanisms_off >> static_cast<uint32_t>(m)) & 1); }
inline bool all_on() { return mechanisms_off == 0; }
extern int runs_to_keep;  // as below
#else
constexpr bool on(Mechanism) { return true; }
constexpr bool all_on() { return true; }
/// Runs in a row that find a captured tensor unchanged before checked replay keeps something of it.
constexpr int runs_to_keep = 4;
#endif

}  // namespace tandem::tracer
