// What a client asks of the model, checked: the body of /v1/completions, and what /v1/chat/completions shares with it.
#pragma once

#include <re2/re2.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "engine/request.h"
#include "serve/fields.h"
#include "serve/options.h"
#include "spec/accounting.h"

namespace photon {

/// How the continuations of a prompt become one answer.
enum class Integrate {
  none,      ///< they do not
  majority,  ///< the answer that most of them give
  best,      ///< the one of the highest mean log-probability
};

struct CompletionRequest {
  using Prompt = std::variant<std::string, std::vector<std::int32_t>>;  // text, or token ids taken literally

  std::string model;  // empty: not said
  std::vector<Prompt> prompts;
  std::optional<std::int64_t> max_tokens;  // not said: the endpoint's default
  /// What is asked of the engine for each prompt, but for its tokens, max_tokens and logprobs.  Its n_continuations is
  /// best_of: so many are made, and the best n are answered.
  Request engine{};
  std::int64_t n = 1;
  bool seed_given = false;
  std::vector<std::string> stops;
  bool echo = false;
  std::optional<std::int64_t> logprobs;  // with so many alternatives
  bool stream = false, include_usage = false;
  bool return_token_ids = false;
  Integrate integrate = Integrate::none;
  std::shared_ptr<const RE2> integrate_regex;  // finds the answer in a text
};

/// What the server's model and its limits allow.
struct RequestRules {
  ApiLimits limits{};
  std::int64_t vocab_size = 0;
  bool has_levels = true;
};

/// @throws ApiError (400) naming the field.
CompletionRequest parse_completion_request(const nlohmann::json& body, const RequestRules& rules);

/// Reads the fields that both endpoints have: how many continuations, how tokens are drawn, where they end, how they
/// are sent.  Not the prompts, nor how many log-probabilities.
void read_generation_fields(Fields& fields, const RequestRules& rules, CompletionRequest& request);
/// Tokens and log-probabilities of the whole answer within the limits.  max_tokens is said.
/// @param prompts  the request's, as tokens
void check_amount(const CompletionRequest& request, const RequestRules& rules,
                  std::span<const std::vector<std::int32_t>> prompts);

/// A list of token ids of the vocabulary.  @throws ApiError naming `param` and the place in the list.
std::vector<std::int32_t> parse_token_ids(const nlohmann::json& list, std::int64_t vocab_size,
                                          const std::string& param);

}  // namespace photon
