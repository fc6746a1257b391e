// Many answers to one question become one: the paper's way of serving many queries.
#pragma once

#include <re2/re2.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace photon {

struct Candidate {
  std::string text;
  double mean_logprob = 0;  // of its tokens
};

struct Vote {
  std::string answer;  // as the best of its candidates spells it
  std::int64_t count = 0;
  std::vector<std::size_t> candidates{};  // that gave it
};

struct Integration {
  std::size_t winner = 0;               // the candidate that is the answer
  std::optional<std::string> answer{};  // what it voted for
  std::vector<Vote> votes{};            // most votes first
  std::int64_t without_answer = 0;      // candidates in which the pattern was not found
};

/// The answer in a text: the pattern's first group (the whole match where it has none), or all of the text; without
/// white space at its ends, with single spaces inside.  None if the pattern is not found or nothing is left.  Answers
/// are equal if they differ in the case of ASCII letters only.
std::optional<std::string> answer_of(const std::string& text, const RE2* pattern);

/// The answer of most candidates, told by the one among them of the highest mean log-probability; where two answers
/// have equally many votes, the one that is told better.  If nobody answers: best().
Integration majority(std::span<const Candidate> candidates, const RE2* pattern);

/// The candidate of the highest mean log-probability; the first of equals.
std::size_t best(std::span<const Candidate> candidates);

}  // namespace photon
