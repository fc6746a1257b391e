#include "eval/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <map>
#include <numbers>

#include "base/random.h"

namespace photon {
namespace {

constexpr int resamples = 1000;
constexpr std::uint64_t bootstrap_seed = 1234;

std::size_t first_largest(std::span<const double> values) {
  return static_cast<std::size_t>(std::ranges::max_element(values) - values.begin());
}

double sample_deviation(std::span<const double> values) {
  const double m = mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - m) * (value - m);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

double negative_exp(double x) { return std::exp(-x); }
double negative_bits(double x) { return -x / std::numbers::ln2; }

Metric aggregate(const char* name, std::span<const Weighted> items, double (*f)(double)) {
  return {name, f(weighted_mean(items)), bootstrap_standard_error(items, f)};
}

// Of documents that say how far their answer lies back: the likeliest of the choices, whether greedy generation would
// write the answer, and its log-likelihood.
void add_by_distance(const Task& task, std::span<const Document> documents, std::span<const DocumentScore> scores,
                     std::vector<Metric>& result) {
  std::map<std::int64_t, std::map<std::string, std::vector<double>>> values;  // by distance, by metric
  for (std::size_t d = 0; d < documents.size(); ++d) {
    if (!documents[d].distance) continue;
    auto& of_distance = values[*documents[d].distance];
    for (const auto& [metric, value] : judge(task, documents[d], scores[d])) of_distance[metric].push_back(value);
    of_distance["greedy"].push_back(scores[d].greedy.at(documents[d].gold) ? 1.0 : 0.0);
    of_distance["nats"].push_back(-scores[d].loglikelihoods.at(documents[d].gold));
  }
  for (const auto& [distance, metrics] : values)
    for (const auto& [name, list] : metrics)
      result.push_back({fmt::format("{}@{}", name, distance), mean(list), mean_standard_error(list)});
}

}  // namespace

double mean(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

std::optional<double> mean_standard_error(std::span<const double> values) {
  if (values.size() < 2) return std::nullopt;
  return sample_deviation(values) / std::sqrt(static_cast<double>(values.size()));
}

double weighted_mean(std::span<const Weighted> items) {
  double sum = 0, weights = 0;
  for (const auto& [value, weight] : items) sum += value, weights += weight;
  return sum / weights;
}

std::optional<double> bootstrap_standard_error(std::span<const Weighted> items,
                                               const std::function<double(double weighted_mean)>& f) {
  if (items.size() < 2) return std::nullopt;
  Random random(bootstrap_seed);
  std::vector<Weighted> sample(items.size());
  std::vector<double> values;
  for (int i = 0; i < resamples; ++i) {
    for (Weighted& item : sample) item = items[static_cast<std::size_t>(random.below(std::ssize(items)))];
    values.push_back(f(weighted_mean(sample)));
  }
  return sample_deviation(values);
}

std::vector<Judgement> judge(const Task& task, const Document& document, const DocumentScore& score) {
  assert(score.loglikelihoods.size() == document.requests.size());
  if (task.kind == Task::Kind::rolling) return {};
  if (task.kind == Task::Kind::last_word) return {{"acc", score.greedy.front() ? 1.0 : 0.0}};
  const auto right = [&](std::span<const double> values) { return first_largest(values) == document.gold ? 1.0 : 0.0; };
  std::vector<Judgement> result{{"acc", right(score.loglikelihoods)}};
  if (!document.choice_lengths.empty()) {
    std::vector<double> normalised;
    for (std::size_t i = 0; i < score.loglikelihoods.size(); ++i)
      normalised.push_back(score.loglikelihoods[i] / static_cast<double>(document.choice_lengths[i]));
    result.push_back({"acc_norm", right(normalised)});
  }
  return result;
}

std::vector<Metric> metrics(const Task& task, std::span<const Document> documents,
                            std::span<const DocumentScore> scores) {
  assert(!documents.empty() && documents.size() == scores.size());
  const auto nats = [&](auto&& weight) {  // Σ over a document's only request
    std::vector<Weighted> items;
    for (std::size_t d = 0; d < documents.size(); ++d)
      items.emplace_back(scores[d].loglikelihoods.front(), static_cast<double>(weight(documents[d])));
    return items;
  };
  if (task.kind == Task::Kind::rolling) {
    const auto by_word = nats([](const Document& d) { return d.n_words; });
    const auto by_byte = nats([](const Document& d) { return d.n_bytes; });
    return {aggregate("word_perplexity", by_word, negative_exp), aggregate("byte_perplexity", by_byte, negative_exp),
            aggregate("bits_per_byte", by_byte, negative_bits)};
  }
  std::vector<Metric> result;
  std::vector<std::vector<double>> values;  // of each metric, by document
  for (std::size_t d = 0; d < documents.size(); ++d) {
    const std::vector<Judgement> judged = judge(task, documents[d], scores[d]);
    values.resize(judged.size()), result.resize(judged.size());
    for (std::size_t m = 0; m < judged.size(); ++m) {
      result[m].name = judged[m].metric;
      values[m].push_back(judged[m].value);
    }
  }
  for (std::size_t m = 0; m < values.size(); ++m) {
    result[m].value = mean(values[m]);
    result[m].standard_error = mean_standard_error(values[m]);
  }
  add_by_distance(task, documents, scores, result);
  if (task.kind == Task::Kind::last_word)
    result.push_back(aggregate("perplexity", nats([](const Document&) { return 1; }), negative_exp));
  return result;
}

}  // namespace photon
