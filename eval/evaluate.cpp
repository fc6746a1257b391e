#include "eval/evaluate.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace photon {

std::vector<EncodedRequest> Evaluator::encode(const Task& task, const Document& document) const {
  if (task.kind == Task::Kind::rolling)
    return rolling_windows(tokenizer_.encode(document.requests.front().continuation), prefix_, max_length_);
  std::vector<EncodedRequest> requests;
  for (const ScoreRequest& request : document.requests) {
    requests.push_back(encode_request(tokenizer_, prefix_, request));
    try {
      truncate(requests.back(), max_length_);
    } catch (const InputError& e) {
      throw InputError(fmt::format("{}: document {} {}", task.name, document.id, e.what()));
    }
  }
  return requests;
}

DocumentScore Evaluator::score(const Task& task, const Document& document) {
  const std::vector<EncodedRequest> requests = encode(task, document);
  const bool rolling = task.kind == Task::Kind::rolling;
  DocumentScore result{.loglikelihoods = std::vector<double>(rolling ? 1 : 0),
                       .greedy = std::vector<bool>(rolling ? 1 : 0, true)};
  for (auto first = requests.begin(); first != requests.end();) {
    const auto last =
        std::find_if(first, requests.end(), [&](const EncodedRequest& r) { return r.context != first->context; });
    std::vector<std::vector<std::int32_t>> continuations;
    for (auto r = first; r != last; ++r) continuations.push_back(r->continuation);
    for (const auto& tokens : scorer_.score(first->context, continuations)) {
      double nats = 0;
      bool greedy = true;
      for (const TokenScore& token : tokens) nats += static_cast<double>(token.logprob), greedy &= token.greedy;
      if (rolling) {
        result.loglikelihoods.front() += nats;
        result.greedy.front() = result.greedy.front() && greedy;
      } else {
        result.loglikelihoods.push_back(nats);
        result.greedy.push_back(greedy);
      }
      result.n_tokens += std::ssize(tokens);
    }
    first = last;
  }
  for (const EncodedRequest& request : requests) result.n_cut += request.n_cut;
  return result;
}

TaskResult evaluate(Evaluator& evaluator, const TaskData& data, std::int64_t limit, TaskLog* log,
                    const std::function<void(std::int64_t done, std::int64_t n)>& on_document) {
  const std::size_t n =
      limit > 0 ? std::min(data.documents.size(), static_cast<std::size_t>(limit)) : data.documents.size();
  TaskResult result;
  if (log != nullptr)
    for (std::size_t d = 0; d < std::min(n, log->done().size()); ++d) result.scores.push_back(log->done()[d]);
  result.n_resumed = std::ssize(result.scores);
  while (result.scores.size() < n) {
    result.scores.push_back(evaluator.score(*data.task, data.documents[result.scores.size()]));
    if (log != nullptr) log->append(result.scores.back());
    on_document(std::ssize(result.scores), static_cast<std::int64_t>(n));
  }
  for (const DocumentScore& score : result.scores) {
    result.n_tokens += score.n_tokens;
    result.n_cut_documents += score.n_cut > 0;
    result.n_cut_tokens += score.n_cut;
  }
  result.metrics = metrics(*data.task, std::span(data.documents).first(n), result.scores);
  return result;
}

}  // namespace photon
