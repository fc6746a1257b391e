// From log-likelihoods to figures, and how sure they are.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eval/task.h"

namespace photon {

/// What a model made of a document.
struct DocumentScore {
  std::vector<double> loglikelihoods;  // of each request, in nats
  std::vector<bool> greedy;            // whether all of its tokens are the likeliest ones
  std::int64_t n_tokens = 0;           // scored
  std::int64_t n_cut = 0;              // cut off the contexts
  bool operator==(const DocumentScore&) const = default;
};

/// A document's part of a metric; rolling tasks have none, their texts count by length.
struct Judgement {
  std::string metric;
  double value = 0;
};
std::vector<Judgement> judge(const Task& task, const Document& document, const DocumentScore& score);

struct Metric {
  std::string name;
  double value = 0;
  std::optional<double> standard_error;  // none where one document alone says nothing of the spread
};
/// The metrics of a task over the documents that were scored: scores[i] is documents[i]'s.  At least one.
std::vector<Metric> metrics(const Task& task, std::span<const Document> documents,
                            std::span<const DocumentScore> scores);

double mean(std::span<const double> values);
/// Sample standard deviation over √n.
std::optional<double> mean_standard_error(std::span<const double> values);

/// (what is summed, its weight) of a document.
using Weighted = std::pair<double, double>;
/// Σ values / Σ weights.
double weighted_mean(std::span<const Weighted> items);
/// Standard deviation of f over 1000 samples drawn from the documents with replacement, from a fixed seed.
std::optional<double> bootstrap_standard_error(std::span<const Weighted> items,
                                               const std::function<double(double weighted_mean)>& f);

}  // namespace photon
