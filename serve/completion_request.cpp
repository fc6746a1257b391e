#include "serve/completion_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <random>
#include <utility>

#include "serve/errors.h"
#include "serve/json.h"

namespace photon {
namespace {

using nlohmann::json;

constexpr std::int64_t most_tokens = max_context;
constexpr std::size_t most_regex_bytes = 512;
constexpr std::int64_t regex_memory = 1 << 20;

// A seed that JavaScript's numbers hold exactly: the answer tells it, so that the request can be repeated.
std::uint64_t random_seed() {
  std::random_device device;
  return ((std::uint64_t{device()} << 32) | device()) >> 11;
}

void read_seed(Fields& fields, CompletionRequest& request) {
  const json* seed = fields.find("seed");
  request.seed_given = seed != nullptr;
  if (seed == nullptr) {
    request.engine.sampler.seed = random_seed();
  } else if (!seed->is_number_unsigned() && !(seed->is_number_integer() && seed->get<std::int64_t>() >= 0)) {
    fields.refuse("seed", *seed, "an integer from 0 to 2^64 - 1; without it the seed is random");
  } else {
    request.engine.sampler.seed = seed->get<std::uint64_t>();
  }
}

void read_stops(Fields& fields, const ApiLimits& limits, CompletionRequest& request) {
  const json* stop = fields.find("stop");
  if (stop == nullptr) return;
  const auto add = [&](const json& text) {
    if (!text.is_string()) fields.refuse("stop", text, "a string or a list of strings");
    const auto& bytes = text.get_ref<const std::string&>();
    if (bytes.empty()) throw invalid_request("stop holds an empty string, which would end every text", "stop");
    if (std::ssize(bytes) > limits.stop_bytes)
      throw invalid_request(
          fmt::format("a stop string has {} bytes, at most {} are taken", bytes.size(), limits.stop_bytes), "stop");
    request.stops.push_back(bytes);
  };
  if (!stop->is_array()) return add(*stop);
  if (std::ssize(*stop) > limits.stops)
    throw invalid_request(fmt::format("stop holds {} strings, at most {} are taken", stop->size(), limits.stops),
                          "stop");
  for (const json& text : *stop) add(text);
}

void read_logit_bias(Fields& fields, const RequestRules& rules, CompletionRequest& request) {
  const json* bias = fields.find("logit_bias");
  if (bias == nullptr) return;
  if (!bias->is_object()) fields.refuse("logit_bias", *bias, "an object that maps token ids to numbers");
  if (std::ssize(*bias) > rules.limits.bias_entries)
    throw invalid_request(
        fmt::format("logit_bias has {} entries, at most {} are taken", bias->size(), rules.limits.bias_entries),
        "logit_bias");
  for (const auto& [key, value] : bias->items()) {
    std::int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || key != std::to_string(id) || id < 0 ||
        id >= rules.vocab_size)
      throw invalid_request(
          fmt::format("logit_bias: {} is no token id; the model's are 0 to {}", shown(key), rules.vocab_size - 1),
          "logit_bias");
    if (!value.is_number() || !(value.get<double>() >= -100) || !(value.get<double>() <= 100))
      throw invalid_request(
          fmt::format("logit_bias of token {} is {}, must be a number from -100 to 100", id, shown(value)),
          "logit_bias");
    request.engine.sampler.logit_bias.emplace_back(id, value.get<double>());
  }
}

void read_integration(Fields& fields, CompletionRequest& request) {
  const auto integrate = fields.word("integrate", {"majority", "best"});
  if (integrate) request.integrate = *integrate == "best" ? Integrate::best : Integrate::majority;
  const auto pattern = fields.text("integrate_regex");
  if (pattern) {
    if (request.integrate != Integrate::majority)
      throw invalid_request("integrate_regex finds the answers that are counted: it needs \"integrate\": \"majority\"",
                            "integrate_regex");
    if (pattern->size() > most_regex_bytes)
      throw invalid_request(
          fmt::format("integrate_regex has {} bytes, at most {} are taken", pattern->size(), most_regex_bytes),
          "integrate_regex");
    RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(regex_memory);
    auto regex = std::make_shared<RE2>(*pattern, options);
    if (!regex->ok())
      throw invalid_request(fmt::format("integrate_regex is no RE2 pattern: {}", regex->error()), "integrate_regex");
    request.integrate_regex = std::move(regex);
  }
  if (request.integrate != Integrate::none && request.stream)
    throw invalid_request("integrate needs all continuations, so it cannot be streamed; leave stream out", "integrate");
  if (request.integrate != Integrate::none && request.engine.n_continuations != request.n)
    throw invalid_request("integrate chooses among n continuations; leave best_of out", "best_of");
}

std::vector<CompletionRequest::Prompt> read_prompts(Fields& fields, const RequestRules& rules) {
  const json* prompt = fields.find("prompt");
  if (prompt == nullptr)
    throw invalid_request("prompt is missing; it must be a string, a list of strings, or token ids", "prompt");
  if (prompt->is_string()) return {prompt->get<std::string>()};
  const std::string wanted = "a string, a list of strings, a list of token ids, or a list of such lists";
  if (!prompt->is_array()) fields.refuse("prompt", *prompt, wanted);
  if (prompt->empty()) throw invalid_request("prompt is an empty list", "prompt");
  if (prompt->front().is_number()) return {parse_token_ids(*prompt, rules.vocab_size, "prompt")};
  if (std::ssize(*prompt) > rules.limits.prompts)
    throw invalid_request(
        fmt::format("prompt holds {} prompts, at most {} are taken at once", prompt->size(), rules.limits.prompts),
        "prompt");
  const bool texts = prompt->front().is_string();
  std::vector<CompletionRequest::Prompt> prompts;
  for (std::size_t i = 0; i < prompt->size(); ++i) {
    const json& one = (*prompt)[i];
    const std::string place = fmt::format("prompt[{}]", i);
    if (!(texts ? one.is_string() : one.is_array()))
      throw invalid_request(fmt::format("{} is {}; prompt must be {}", place, shown(one), wanted), "prompt");
    if (texts)
      prompts.emplace_back(one.get<std::string>());
    else
      prompts.emplace_back(parse_token_ids(one, rules.vocab_size, place));
  }
  return prompts;
}

}  // namespace

std::vector<std::int32_t> parse_token_ids(const json& list, std::int64_t vocab_size, const std::string& place) {
  const std::string param = place.substr(0, place.find('['));
  if (list.empty()) throw invalid_request(fmt::format("{} holds no token ids", place), param);
  std::vector<std::int32_t> tokens;
  tokens.reserve(list.size());
  for (const json& id : list) {
    if (!id.is_number_integer() || id < 0 || id >= vocab_size)
      throw invalid_request(fmt::format("{}: item {} is {}, must be a token id from 0 to {}", place, tokens.size(),
                                        shown(id), vocab_size - 1),
                            param);
    tokens.push_back(id.get<std::int32_t>());
  }
  return tokens;
}

void read_generation_fields(Fields& fields, const RequestRules& rules, CompletionRequest& request) {
  const ApiLimits& limits = rules.limits;
  request.model = fields.text("model").value_or("");
  request.max_tokens = fields.integer("max_tokens", 0, most_tokens);
  request.n = fields.integer("n", 1, limits.n).value_or(1);
  if (const auto protocol = fields.word("protocol", {"hiergen", "recgen"}))
    request.engine.protocol = parse_protocol(*protocol);
  if (request.engine.protocol == Protocol::recgen && !rules.has_levels)
    throw invalid_request("protocol \"recgen\" needs a model with levels, this one is vanilla; use \"hiergen\"",
                          "protocol");

  SamplerOptions& sampler = request.engine.sampler;
  sampler.temperature = fields.number("temperature", 0, 2).value_or(sampler.temperature);
  sampler.top_p = fields.number("top_p", 0, 1, true).value_or(sampler.top_p);
  sampler.top_k = fields.integer("top_k", 0, std::numeric_limits<std::int32_t>::max()).value_or(sampler.top_k);
  sampler.min_p = fields.number("min_p", 0, 1).value_or(sampler.min_p);
  sampler.repetition_penalty = fields.number("repetition_penalty", 0, 10, true).value_or(sampler.repetition_penalty);
  sampler.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(sampler.presence_penalty);
  sampler.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(sampler.frequency_penalty);
  read_seed(fields, request);
  read_logit_bias(fields, rules, request);

  read_stops(fields, limits, request);
  request.engine.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  request.return_token_ids = fields.boolean("return_token_ids").value_or(false);
  request.stream = fields.boolean("stream").value_or(false);
  if (const json* options = fields.find("stream_options")) {
    Fields inner(*options, "stream_options");
    if (!request.stream) throw invalid_request("stream_options is only for \"stream\": true", "stream_options");
    request.include_usage = inner.boolean("include_usage").value_or(false);
    inner.ignore({"include_obfuscation"});
    inner.refuse_others();
  }

  request.engine.n_continuations = fields.integer("best_of", 1, limits.n).value_or(request.n);
  if (request.engine.n_continuations < request.n)
    throw invalid_request(
        fmt::format("best_of is {}, must be at least n, which is {}", request.engine.n_continuations, request.n),
        "best_of");
  if (request.engine.n_continuations > request.n && request.stream)
    throw invalid_request("best_of above n needs all continuations, so it cannot be streamed", "best_of");
  read_integration(fields, request);
  // What OpenAI's clients send along and what changes no answer.
  fields.ignore({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"});
}

void check_amount(const CompletionRequest& request, const RequestRules& rules,
                  std::span<const std::vector<std::int32_t>> prompts) {
  double n_prompt = 0, n_entries = 0;  // of all prompts; tokens that the answer tells of
  for (const auto& prompt : prompts) n_prompt += static_cast<double>(prompt.size());
  const auto continuations = static_cast<double>(request.engine.n_continuations);
  const double n_generated =
      static_cast<double>(prompts.size()) * continuations * static_cast<double>(*request.max_tokens);
  const char* culprit = request.engine.n_continuations > 1 ? "n" : "max_tokens";
  n_entries = n_generated + (request.echo ? n_prompt * continuations : 0);
  if (n_entries > static_cast<double>(rules.limits.tokens))
    throw invalid_request(fmt::format("{} prompts x {} continuations x {} tokens{} are {:.0f} tokens, at most {} fit "
                                      "into one answer",
                                      prompts.size(), request.engine.n_continuations, *request.max_tokens,
                                      request.echo ? " and the echoed prompts" : "", n_entries, rules.limits.tokens),
                          culprit);
  const double n_values = n_entries * static_cast<double>(1 + request.logprobs.value_or(0));
  if (request.logprobs && n_values > static_cast<double>(rules.limits.logprob_values))
    throw invalid_request(
        fmt::format("log-probabilities of {:.0f} tokens with {} alternatives each are {:.0f}, at most "
                    "{} fit into one answer",
                    n_entries, *request.logprobs, n_values, rules.limits.logprob_values),
        "logprobs");
}

CompletionRequest parse_completion_request(const json& body, const RequestRules& rules) {
  Fields fields(body);
  CompletionRequest request;
  request.prompts = read_prompts(fields, rules);
  read_generation_fields(fields, rules, request);
  request.max_tokens = request.max_tokens.value_or(16);
  request.echo = fields.boolean("echo").value_or(false);
  request.logprobs = fields.integer("logprobs", 0, rules.limits.logprobs);
  fields.only_neutral("suffix", {""}, "the model only continues texts");
  fields.refuse_others();
  return request;
}

}  // namespace photon
