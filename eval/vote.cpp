#include "eval/vote.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <map>

#include "base/error.h"
#include "base/random.h"
#include "eval/metrics.h"
#include "eval/request.h"
#include "eval/scorer.h"

namespace photon {
namespace {

constexpr std::string_view space = " \t\r\n", punctuation = ".,;:!?\"'()-";

std::string_view strip(std::string_view text, std::string_view characters) {
  const auto first = text.find_first_not_of(characters);
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(characters) - first + 1);
}

std::string first_word(std::string_view text) {
  text = strip(text, space);
  return std::string(strip(text.substr(0, text.find_first_of(space)), punctuation));
}

std::map<std::string, int> words(std::string_view text) {
  std::map<std::string, int> counts;
  while (!(text = strip(text, space)).empty()) {
    const std::string_view word = text.substr(0, text.find_first_of(space));
    std::string bare(strip(word, punctuation));
    std::ranges::transform(bare, bare.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (!bare.empty()) ++counts[bare];
    text.remove_prefix(word.size());
  }
  return counts;
}

// Twice the words in common over all words.
double f1(const std::map<std::string, int>& a, const std::map<std::string, int>& b) {
  int common = 0, all = 0;
  for (const auto& [word, n] : a) {
    all += n;
    if (const auto there = b.find(word); there != b.end()) common += std::min(n, there->second);
  }
  for (const auto& [word, n] : b) all += n;
  return all > 0 ? 2.0 * common / all : 0;
}

void check_votable(const Task& task, const Document& document) {
  const auto& context = document.requests.front().context;
  const bool one_question =
      std::ranges::all_of(document.requests, [&](const ScoreRequest& r) { return r.context == context; });
  if (task.kind == Task::Kind::rolling || !one_question)
    throw InputError(
        fmt::format("{}: has no question that a text could answer; vote takes lambada, copy, hellaswag, "
                    "piqa, arc_easy, sciq and recall",
                    task.name));
}

}  // namespace

std::string answer_in(const Task& task, const Document& document, std::string_view text) {
  if (task.kind == Task::Kind::last_word) return first_word(text);
  const auto said = words(text);
  double best = 0;
  const ScoreRequest* choice = nullptr;
  for (const ScoreRequest& request : document.requests)
    if (const double share = f1(said, words(request.continuation)); share > best) best = share, choice = &request;
  return choice == nullptr ? "" : std::string(strip(choice->continuation, space));
}

std::string right_answer(const Task& task, const Document& document) {
  const std::string& continuation = document.requests[document.gold].continuation;
  return task.kind == Task::Kind::last_word ? first_word(continuation) : std::string(strip(continuation, space));
}

std::size_t majority(std::span<const SampledAnswer> samples) {
  std::map<std::string_view, std::int64_t> votes;
  for (const SampledAnswer& sample : samples)
    if (!sample.text.empty()) ++votes[sample.text];
  const auto n_votes = [&](const SampledAnswer& sample) { return sample.text.empty() ? 0 : votes[sample.text]; };
  return static_cast<std::size_t>(std::ranges::max_element(samples, {}, n_votes) - samples.begin());  // ties: the first
}

std::size_t likeliest(std::span<const SampledAnswer> samples) {
  return static_cast<std::size_t>(std::ranges::max_element(samples, {}, &SampledAnswer::logprob) - samples.begin());
}

std::vector<VotePoint> vote_curve(std::span<const std::vector<SampledAnswer>> documents) {
  std::vector<VotePoint> curve;
  const std::size_t n_samples = documents.empty() ? 0 : documents.front().size();
  for (std::size_t n = 1; n <= n_samples; n *= 2) {
    std::vector<double> by_vote, by_logprob, by_oracle;  // a document each
    for (const auto& samples : documents) {
      const std::size_t n_groups = samples.size() / n;
      double vote = 0, best = 0, any = 0;
      for (std::size_t g = 0; g < n_groups; ++g) {
        const auto group = std::span(samples).subspan(g * n, n);
        vote += group[photon::majority(group)].right;
        best += group[likeliest(group)].right;
        any += std::ranges::any_of(group, &SampledAnswer::right);
      }
      const double share = 1 / static_cast<double>(n_groups);
      by_vote.push_back(vote * share), by_logprob.push_back(best * share), by_oracle.push_back(any * share);
    }
    curve.push_back({.n = static_cast<std::int64_t>(n),
                     .majority = mean(by_vote),
                     .best = mean(by_logprob),
                     .any = mean(by_oracle),
                     .majority_standard_error = mean_standard_error(by_vote),
                     .best_standard_error = mean_standard_error(by_logprob),
                     .any_standard_error = mean_standard_error(by_oracle)});
  }
  return curve;
}

DocumentVote vote(Engine& engine, const Tokenizer& tokenizer, std::int32_t prefix, const Task& task,
                  const Document& document, std::size_t d, const VoteOptions& options, std::int64_t max_length) {
  check_votable(task, document);
  std::size_t longest = 0;
  std::vector<std::int32_t> prompt;
  for (const ScoreRequest& request : document.requests) {
    const EncodedRequest encoded = encode_request(tokenizer, prefix, request);
    longest = std::max(longest, encoded.continuation.size());
    prompt = encoded.context;  // the same of all
  }
  DocumentVote result;
  result.n_tokens = options.n_tokens > 0 ? options.n_tokens : static_cast<std::int64_t>(longest) + 2;
  if (result.n_tokens >= max_length)
    throw InputError(fmt::format("{}: document {}'s answer of {} tokens is as long as the {} that the model may read",
                                 task.name, document.id, result.n_tokens, max_length));
  if (const std::int64_t cut = std::ssize(prompt) + result.n_tokens - max_length; cut > 0)
    prompt.erase(prompt.begin(), prompt.begin() + cut);
  result.n_prompt = std::ssize(prompt);

  Request request{.prompt = prompt,
                  .n_tokens = result.n_tokens,
                  .n_continuations = options.n_answers,
                  .protocol = options.protocol,
                  .sampler = options.sampler};
  request.sampler.seed = Random(options.sampler.seed, d).next();
  const auto begun = std::chrono::steady_clock::now();
  const Generation generation = engine.generate(request);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  result.kv_bytes = generation.kv_bytes_peak;

  std::vector<std::vector<std::int32_t>> tokens;
  for (const GeneratedTokens& c : generation.continuations) tokens.push_back(c.tokens);
  const auto scores = Scorer(engine.runner(), options.protocol).score(prompt, tokens);
  const std::string right = right_answer(task, document);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    double nats = 0;
    for (const TokenScore& token : scores[i]) nats += static_cast<double>(token.logprob);
    std::string text;
    for (const std::int32_t token : tokens[i]) text += tokenizer.piece(token);
    SampledAnswer answer{.text = answer_in(task, document, text),
                         .logprob = nats / static_cast<double>(std::max<std::size_t>(1, tokens[i].size()))};
    answer.right = answer.text == right;
    result.samples.push_back(std::move(answer));
  }
  return result;
}

}  // namespace photon
