// Many sampled answers to one question, and what choosing among them gives: PHOTON's small caches hold many
// continuations of a prompt, which the paper proposes to integrate and does not show (paper §5, "multi-query
// integration").
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/generate.h"
#include "eval/task.h"
#include "text/tokenizer.h"

namespace photon {

/// What a sampled text answers: of a last-word task its first word without the punctuation behind it, else the choice
/// with whose words it agrees best (the largest F1 of words in lower case; ties to the first).  Empty: nothing.
std::string answer_in(const Task& task, const Document& document, std::string_view text);
/// What would be right, as answer_in() has it.
std::string right_answer(const Task& task, const Document& document);

/// One of several samples.
struct SampledAnswer {
  std::string text;    // answer_in() the sample
  double logprob = 0;  // nats a token that the sampling protocol gives the sample's tokens, at temperature 1
  bool right = false;
};

/// Which of the samples is taken; they are at least one.
std::size_t majority(std::span<const SampledAnswer> samples);  ///< of the most frequent answer, empty ones apart
std::size_t likeliest(std::span<const SampledAnswer> samples);

/// Means over documents and over the disjoint groups of n among a document's samples.
struct VotePoint {
  std::int64_t n = 0;
  double majority = 0, best = 0, any = 0;  // accuracies: of the vote, of the likeliest sample, of an oracle's choice
  std::optional<double> majority_standard_error, best_standard_error, any_standard_error;  // over documents
};
/// For n = 1, 2, 4 … up to the number of samples, which is every document's.
std::vector<VotePoint> vote_curve(std::span<const std::vector<SampledAnswer>> documents);

struct VoteOptions {
  std::int64_t n_answers = 64;
  std::int64_t n_tokens = 0;  // of each; 0: those of the longest choice and two more
  Protocol protocol = Protocol::hiergen;
  SamplerOptions sampler{.temperature = 1.0};  // its seed and the document's number make each document's own
};

struct DocumentVote {
  std::vector<SampledAnswer> samples;
  std::int64_t n_prompt = 0, n_tokens = 0;  // of the prompt, and of each sample at most
  std::int64_t kv_bytes = 0;                // what all samples together took at most, the prompt's filled pages once
  double seconds = 0;
};
/// Samples answers to document number d of a task.
/// @param prefix  the token before every prompt: bos
/// @param max_length  most tokens of prompt and answer; longer prompts are cut on the left
/// @throws InputError for a task without one question and short answers (wikitext, winogrande), or a document whose
/// answer is longer than max_length.
DocumentVote vote(Engine& engine, const Tokenizer& tokenizer, std::int32_t prefix, const Task& task,
                  const Document& document, std::size_t d, const VoteOptions& options, std::int64_t max_length);

}  // namespace photon
