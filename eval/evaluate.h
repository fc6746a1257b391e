// Evaluates a task's documents with a scorer.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "eval/metrics.h"
#include "eval/request.h"
#include "eval/results.h"
#include "eval/scorer.h"
#include "eval/task.h"
#include "text/tokenizer.h"

namespace photon {

/// Turns documents into scores.  Borrows scorer and tokenizer, which belong to the same model.
class Evaluator {
 public:
  /// @param prefix  the token that every request begins with: bos.
  /// @param max_length  >= 1: most tokens that a request gives the model to read
  Evaluator(Scorer& scorer, const Tokenizer& tokenizer, std::int32_t prefix, std::int64_t max_length)
      : scorer_(scorer), tokenizer_(tokenizer), prefix_(prefix), max_length_(max_length) {}

  /// @throws InputError naming the document if its answer is longer than max_length.
  DocumentScore score(const Task& task, const Document& document);
  /// The requests as they are scored.
  std::vector<EncodedRequest> encode(const Task& task, const Document& document) const;

 private:
  Scorer& scorer_;
  const Tokenizer& tokenizer_;
  std::int32_t prefix_;
  std::int64_t max_length_;
};

struct TaskResult {
  std::vector<Metric> metrics;
  std::vector<DocumentScore> scores;  // of the first documents
  std::int64_t n_resumed = 0;         // of them, from an earlier run
  std::int64_t n_tokens = 0;          // scored
  std::int64_t n_cut_documents = 0;   // some context of theirs was cut on the left
  std::int64_t n_cut_tokens = 0;
};
/// Scores a task's documents in order.
/// @param limit  only so many documents, from the start; 0: all
/// @param log  holds what is done already and takes the rest; null: nothing is kept
/// @param on_document  is told how many of how many documents are done
TaskResult evaluate(Evaluator& evaluator, const TaskData& data, std::int64_t limit, TaskLog* log,
                    const std::function<void(std::int64_t done, std::int64_t n)>& on_document);

}  // namespace photon
