#include "serve/integrate.h"

#include <algorithm>
#include <map>
#include <utility>

namespace photon {
namespace {

constexpr std::string_view white_space = " \t\n\r\f\v";

std::string single_spaced(std::string_view text) {
  std::string result;
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(white_space), text.size()));
    if (text.empty()) return result;
    const std::size_t end = std::min(text.find_first_of(white_space), text.size());
    if (!result.empty()) result += ' ';
    result += text.substr(0, end);
    text.remove_prefix(end);
  }
}

std::string in_lower_case(std::string text) {
  for (char& c : text)
    if ('A' <= c && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

}  // namespace

std::optional<std::string> answer_of(const std::string& text, const RE2* pattern) {
  std::string_view answer = text;
  if (pattern != nullptr) {
    re2::StringPiece groups[2];
    const int n = pattern->NumberOfCapturingGroups() > 0 ? 2 : 1;
    if (!pattern->Match(text, 0, text.size(), RE2::UNANCHORED, groups, n)) return std::nullopt;
    answer = {groups[n - 1].data(), groups[n - 1].size()};
  }
  std::string result = single_spaced(answer);
  if (result.empty()) return std::nullopt;
  return result;
}

std::size_t best(std::span<const Candidate> candidates) {
  return static_cast<std::size_t>(std::ranges::max_element(candidates, {}, &Candidate::mean_logprob) -
                                  candidates.begin());
}

Integration majority(std::span<const Candidate> candidates, const RE2* pattern) {
  Integration result;
  std::map<std::string, Vote> votes;
  std::vector<std::optional<std::string>> answers;  // of the candidates
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (const auto& answer = answers.emplace_back(answer_of(candidates[i].text, pattern))) {
      Vote& vote = votes[in_lower_case(*answer)];
      ++vote.count;
      vote.candidates.push_back(i);
    } else {
      ++result.without_answer;
    }
  }
  if (votes.empty()) {
    result.winner = best(candidates);
    return result;
  }
  const auto better = [&](std::size_t a, std::size_t b) {
    return candidates[a].mean_logprob != candidates[b].mean_logprob
               ? candidates[a].mean_logprob > candidates[b].mean_logprob
               : a < b;
  };
  for (auto& [answer, vote] : votes) {
    std::ranges::sort(vote.candidates, better);
    vote.answer = *answers[vote.candidates.front()];
    result.votes.push_back(std::move(vote));
  }
  std::ranges::sort(result.votes, [&](const Vote& a, const Vote& b) {
    return a.count != b.count ? a.count > b.count : better(a.candidates.front(), b.candidates.front());
  });
  result.winner = result.votes.front().candidates.front();
  result.answer = result.votes.front().answer;
  return result;
}

}  // namespace photon
