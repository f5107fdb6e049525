// Workloads (workload.h) of the models over sequences and of recommendation: GNMT, NeuMF, GPT-2. Free
// functions that draw from the default generator and make everything on the default device.
#pragma once

#include "samples/models/gnmt.h"
#include "samples/models/workload.h"

namespace samples {

/// Sentences of random words: sources and targets of 1 to `length` words, the first pair having `length`
/// each, so that sizes do not change from batch to batch.
GnmtBatch random_sentences(const GnmtConfig& config, int64_t batch, int64_t length);

/// Adam, lr 2e-3, gradients clipped to a norm of 5; sentences of up to 50 words. Units are the words of
/// source and target, without padding.
Workload make_gnmt(const WorkloadSize& size);
/// Adam, lr 4.5e-3, betas 0.25 and 0.5, over all embeddings.
Workload make_ncf(const WorkloadSize& size);
/// The model of 124 million parameters over its whole context: AdamW, lr 6e-4, betas 0.9 and 0.95, weight
/// decay 0.1, gradients clipped to a norm of 1.
Workload make_gpt2(const WorkloadSize& size);

inline constexpr WorkloadRecipe kGnmtRecipe = {
    "gnmt", "tokens", 128,
    "hidden size (multiples of 8), vocabulary (multiples of 32) and length of sentences (at least 4)",
    make_gnmt};
inline constexpr WorkloadRecipe kNcfRecipe = {"ncf", "samples", int64_t{1} << 20,
                                              "users, items, and widths (multiples of 8)", make_ncf};
inline constexpr WorkloadRecipe kGpt2Recipe = {
    "gpt2", "tokens", 8, "layers, heads of 64, vocabulary and context (multiples of 8)", make_gpt2};

}  // namespace samples
