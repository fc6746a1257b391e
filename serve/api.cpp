#include "serve/api.h"

#include <fmt/format.h>

#include <spdlog/spdlog.h>

#include <boost/algorithm/string/predicate.hpp>
#include <boost/asio/post.hpp>
#include <ctime>
#include <functional>
#include <utility>

#include "base/threads.h"
#include "base/version.h"
#include "kernels/kernels.h"
#include "serve/completion.h"
#include "serve/errors.h"
#include "serve/json.h"
#include "spec/accounting.h"

namespace photon {
namespace {

using nlohmann::json;
using Json = nlohmann::ordered_json;

constexpr std::int64_t chat_tokens = 1024;  // of an answer where nothing was said
constexpr std::size_t small_body_bytes = 1 << 16;

void send_json(Responder& responder, const Json& value) { responder.send(200, "application/json", to_bytes(value)); }

// JSON; from outside a browser also what `curl -d` says of it.  Pages of other sites can send that, too, without asking
// first, but their browsers add where it comes from.
void check_content_type(const HttpRequest& request) {
  if (const auto encoding = request.header("content-encoding");
      !encoding.empty() && !boost::algorithm::iequals(encoding, "identity"))
    throw ApiError(415, "the body must come as it is, without a content-encoding");
  std::string_view type = request.header("content-type");
  type = type.substr(0, type.find(';'));
  type = type.substr(0, type.find_last_not_of(' ') + 1);
  if (boost::algorithm::iequals(type, "application/json")) return;
  const bool from_curl = type.empty() || boost::algorithm::iequals(type, "application/x-www-form-urlencoded");
  if (!from_curl || !request.header("origin").empty())
    throw ApiError(415, "the body must be JSON: send it with 'Content-Type: application/json'");
}

SchedulerOptions scheduler_options(const ServeOptions& o) {
  return {.kv_budget_bytes = o.kv_budget_bytes,
          .max_sequences = o.max_sequences,
          .max_queue = o.max_queue,
          .max_context = o.n_ctx,
          .prefill_tokens_per_step = o.prefill_tokens_per_step,
          .prefix_cache = o.prefix_cache};
}

Json span_json(const Span& span) {
  constexpr const char* kinds[] = {"global", "window", "block", "chunk", "stream"};
  Json result{{"kind", kinds[static_cast<int>(span.kind)]}};
  if (span.size > 0) result["size"] = span.size;
  return result;
}

// The longest context that one sequence alone can have.
std::int64_t fitting_context(const Model& model, std::int64_t kv_budget_bytes) {
  std::int64_t fits = 0, too_many = max_context + 1;
  while (too_many - fits > 1) {
    const std::int64_t T = fits + (too_many - fits) / 2;
    (kv_bytes_at_most(model.spec, Protocol::hiergen, T, 0, 1, model.kv) <= kv_budget_bytes ? fits : too_many) = T;
  }
  return fits;
}

Json kv_json(const Spec& spec, Protocol protocol, DType kv) {
  return {{"bytes_per_token", kv_bytes_per_token(spec, protocol, kv)},
          {"bytes_constant", kv_bytes_constant(spec, protocol, kv)}};
}

}  // namespace

std::vector<std::string> model_names(const std::filesystem::path& folder, const std::string& alias) {
  std::filesystem::path path = std::filesystem::absolute(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  std::vector<std::string> names;
  if (!alias.empty()) names.push_back(alias);
  if (const std::string name = path.filename().string(); name != alias) names.push_back(name);
  return names;
}

Api::Api(Runner& runner, std::optional<Tokenizer> tokenizer, const ServeOptions& options, Metrics& metrics)
    : model_(runner.model()),
      tokenizer_(std::move(tokenizer)),
      names_(model_names(model_.folder->path, options.alias)),
      chat_template_(tokenizer_ ? load_chat_template(model_.folder->path) : std::nullopt),
      no_chat_reason_(no_chat_reason(model_.folder->path)),
      options_(options),
      rules_{.limits = options.api, .vocab_size = model_.spec.vocab_size, .has_levels = model_.n_levels() > 0},
      metrics_(metrics),
      created_(std::time(nullptr)),
      engine_(runner, scheduler_options(options),
              [&metrics](const Scheduler::Status& status) { metrics.set_status(status); }) {
  rules_.limits.n = std::min(rules_.limits.n, options.max_sequences);
  rules_.limits.prompts = std::min(rules_.limits.prompts, options.max_queue);  // each waits for a moment, at least
  n_ctx_ = fitting_context(model_, engine_.status().kv_budget_bytes);
  if (n_ctx_ < 1)
    throw InputError(fmt::format("--memory: {} bytes of KV cache hold no sequence, one token of one needs {}",
                                 engine_.status().kv_budget_bytes,
                                 kv_bytes_at_most(model_.spec, Protocol::hiergen, 1, 0, 1, model_.kv)));
  if (options.n_ctx > n_ctx_)
    throw InputError(fmt::format("a context of {} tokens does not fit into {} bytes of KV cache, {} tokens do",
                                 options.n_ctx, engine_.status().kv_budget_bytes, n_ctx_));
  if (options.n_ctx > 0) n_ctx_ = options.n_ctx;
}

Api::~Api() {
  background_.stop();
  background_.join();
}

void Api::in_background(std::shared_ptr<Responder> responder, std::function<void()> work) {
  boost::asio::post(background_, [responder = std::move(responder), work = std::move(work)] {
    try {
      work();
    } catch (const ApiError& error) {
      send_error(*responder, error);
    } catch (const std::exception& error) {
      spdlog::error("a request failed: {}", error.what());
      send_error(*responder, ApiError(500, "internal error"));
    }
  });
}

void Api::add_routes(Router& router) {
  using Access::keyed;
  using Respond = std::shared_ptr<Responder>;
  const auto post = [&](const char* path, auto answer) {  // (const HttpRequest&, const json& body, responder)
    router.add("POST", path, keyed, [this, answer](HttpRequest request, Respond responder) {
      check_content_type(request);
      const auto shared = std::make_shared<HttpRequest>(std::move(request));
      const auto work = [this, answer, shared, responder] {
        answer(*shared, parse_json(shared->body, rules_.limits.json_depth), responder);
      };
      shared->body.size() <= small_body_bytes ? work() : in_background(responder, work);
    });
  };
  const auto post_json = [&](const char* path, Json (Api::*answer)(const json&) const) {
    post(path, [this, answer](const HttpRequest&, const json& body, const Respond& responder) {
      send_json(*responder, (this->*answer)(body));
    });
  };
  const auto get = [&](const std::string& path, std::function<Json()> answer) {
    router.add("GET", path, keyed,
               [answer = std::move(answer)](HttpRequest, Respond responder) { send_json(*responder, answer()); });
  };
  using enum Answer::Endpoint;
  post("/v1/completions", [this](const HttpRequest& request, const json& body, const Respond& responder) {
    complete(completions, request, body, responder);
  });
  post("/v1/chat/completions", [this](const HttpRequest& request, const json& body, const Respond& responder) {
    complete(chat, request, body, responder);
  });
  post_json("/tokenize", &Api::tokenize);
  post_json("/detokenize", &Api::detokenize);
  get("/tokenizer_info", [this] { return tokenizer_info(); });
  get("/props", [this] { return props(); });
  get("/v1/models", [this] { return Json{{"object", "list"}, {"data", Json::array({model_object(names_.front())})}}; });
  router.add("GET", "/v1/models/*", keyed, [this](HttpRequest request, Respond responder) {
    const std::string name = request.path.substr(std::string_view("/v1/models/").size());
    if (name.empty()) throw ApiError(404, "There is nothing at this path");
    check_model_name(name);
    send_json(*responder, model_object(name));
  });
}

// ---- completions ----

void Api::complete(Answer::Endpoint endpoint, const HttpRequest& http, const json& body,
                   std::shared_ptr<Responder> responder) {
  try {
    start(parse(endpoint, body), endpoint, http, std::move(responder));
  } catch (const ApiError&) {
    const bool recgen =
        body.is_object() && body.contains("protocol") && body["protocol"] == to_string(Protocol::recgen);
    metrics_.request_refused(recgen ? Protocol::recgen : Protocol::hiergen);
    throw;
  }
}

CompletionRequest Api::parse(Answer::Endpoint endpoint, const json& body) const {
  if (endpoint == Answer::Endpoint::completions) return parse_completion_request(body, rules_);
  if (!chat_template_) throw invalid_request(no_chat_reason_, "messages", "no_chat_template");
  return parse_chat_request(body, rules_, *chat_template_);
}

void Api::start(CompletionRequest request, Answer::Endpoint endpoint, const HttpRequest& http,
                std::shared_ptr<Responder> responder) {
  check_model_name(request.model);
  std::vector<std::vector<std::int32_t>> prompts;
  for (const CompletionRequest::Prompt& prompt : request.prompts) prompts.push_back(encode(prompt));
  check_context(request, prompts, endpoint);
  if (!request.max_tokens)  // a chat's answer may be as long as there is room
    request.max_tokens = std::min(n_ctx_ - std::ssize(prompts.front()), chat_tokens);
  check_amount(request, rules_, prompts);
  const Tokenizer* tokenizer = tokenizer_ ? &*tokenizer_ : nullptr;
  const std::string name = request.model.empty() ? names_.front() : request.model;
  const auto completion =
      std::make_shared<Completion>(std::move(request), std::move(prompts), Answer(endpoint, http.id, name, tokenizer),
                                   tokenizer, metrics_, responder);
  completion->start(engine_, [this, responder](auto work) { in_background(responder, std::move(work)); });
}

void Api::check_model_name(const std::string& name) const {
  if (name.empty() || std::ranges::find(names_, name) != names_.end()) return;
  throw ApiError(404,
                 fmt::format("the model {} is not served here; this server has \"{}\"", shown(name), names_.front()),
                 "model", "model_not_found");
}

std::vector<std::int32_t> Api::encode(const CompletionRequest::Prompt& prompt) const {
  if (const auto* tokens = std::get_if<std::vector<std::int32_t>>(&prompt)) return *tokens;
  return encode_text(std::get<std::string>(prompt), true);
}

std::vector<std::int32_t> Api::encode_text(const std::string& text, bool add_bos) const {
  std::vector<std::int32_t> tokens = tokenizer().encode(text);
  if (add_bos) tokens.insert(tokens.begin(), static_cast<std::int32_t>(model_.spec.bos_token_id));
  return tokens;
}

void Api::check_context(const CompletionRequest& request, std::span<const std::vector<std::int32_t>> prompts,
                        Answer::Endpoint endpoint) const {
  const bool is_chat = endpoint == Answer::Endpoint::chat;
  const char *field = is_chat ? "messages" : "prompt", *text = is_chat ? "the chat" : "the prompt";
  for (const auto& prompt : prompts) {
    const std::int64_t n = std::ssize(prompt);
    if (!request.max_tokens && n >= n_ctx_)
      throw invalid_request(
          fmt::format("the context holds {} tokens, but {} has {}, which leaves none for an answer; shorten it", n_ctx_,
                      text, n),
          field, "context_length_exceeded");
    if (request.max_tokens && (n > n_ctx_ || *request.max_tokens > n_ctx_ - n))
      throw invalid_request(
          fmt::format("the context holds {} tokens, but {} has {} and {} more are asked for, {} in all; shorten it or "
                      "lower max_tokens",
                      n_ctx_, text, n, *request.max_tokens, n + *request.max_tokens),
          n > n_ctx_ ? field : "max_tokens", "context_length_exceeded");
  }
}

// ---- the tokenizer ----

const Tokenizer& Api::tokenizer() const {
  if (!tokenizer_) throw invalid_request("this model has no tokenizer: send token ids", "prompt", "no_tokenizer");
  return *tokenizer_;
}

Json Api::tokenize(const json& body) const {
  Fields fields(body);
  check_model_name(fields.text("model").value_or(""));
  const auto prompt = fields.text("prompt"), content = fields.text("content");
  if (prompt.has_value() == content.has_value())
    throw invalid_request(prompt ? "prompt and content both hold a text; leave one of them out"
                                 : "the text is missing; say it as prompt or as content",
                          "prompt");
  // The defaults of the servers whose field each is.
  bool add_bos = prompt.has_value();
  for (const char* name : {"add_special_tokens", "add_special"}) add_bos = fields.boolean(name).value_or(add_bos);
  const bool texts = fields.boolean("return_token_strs").value_or(false);
  const bool pieces = fields.boolean("with_pieces").value_or(false);
  fields.only_neutral("parse_special", {false}, "names of special tokens inside a text are text");
  fields.refuse_others();

  const std::string& text = prompt ? *prompt : *content;
  std::vector<std::int32_t> tokens;
  // The name of bos or eos alone is that token: how clients without the tokenizer learn its id.
  for (const std::int64_t special : {model_.spec.bos_token_id, model_.spec.eos_token_id})
    if (const auto id = static_cast<std::int32_t>(special); text == tokenizer().name(id)) tokens = {id};
  if (tokens.empty()) tokens = encode_text(text, add_bos);

  Json answer{{"count", tokens.size()}, {"max_model_len", n_ctx_}};
  Json& list = answer["tokens"] = Json::array();
  for (const std::int32_t token : tokens)
    list.push_back(pieces ? Json{{"id", token}, {"piece", token_text(&tokenizer(), token)}} : Json(token));
  if (texts)
    for (const std::int32_t token : tokens) answer["token_strs"].push_back(token_text(&tokenizer(), token));
  return answer;
}

Json Api::detokenize(const json& body) const {
  Fields fields(body);
  check_model_name(fields.text("model").value_or(""));
  const json* list = fields.find("tokens");
  if (list == nullptr) throw invalid_request("tokens is missing; it must be a list of token ids", "tokens");
  if (!list->is_array()) fields.refuse("tokens", *list, "a list of token ids");
  fields.refuse_others();
  const auto tokens =
      list->empty() ? std::vector<std::int32_t>() : parse_token_ids(*list, model_.spec.vocab_size, "tokens");
  const std::string text = tokenizer().decode(tokens);
  return {{"prompt", text}, {"content", text}};
}

Json Api::tokenizer_info() const {
  const auto name = [&](std::int64_t id) { return tokenizer().name(static_cast<std::int32_t>(id)); };
  return {{"tokenizer_class", "SentencePiece"},
          {"sha256", tokenizer().hash()},
          {"vocab_size", model_.spec.vocab_size},
          {"model_max_length", n_ctx_},
          {"bos_token", name(model_.spec.bos_token_id)},
          {"bos_token_id", model_.spec.bos_token_id},
          {"eos_token", name(model_.spec.eos_token_id)},
          {"eos_token_id", model_.spec.eos_token_id},
          {"add_bos_token", true},
          {"add_eos_token", false},
          {"chat_template", nullptr}};
}

// ---- what the server is ----

Json Api::model_object(const std::string& name) const {
  return {{"id", name},
          {"object", "model"},
          {"created", created_},
          {"owned_by", "photon"},
          {"meta",
           {{"n_vocab", model_.spec.vocab_size},
            {"n_ctx", n_ctx_},
            {"n_embd", model_.spec.d_embed},
            {"n_params", count_parameters(model_.spec).total},
            {"n_levels", model_.n_levels()}}}};
}

Json Api::props() const {
  const Spec& spec = model_.spec;
  Json levels = Json::array();
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l)
    levels.push_back({{"chunk_size", spec.level(l).chunk_size},
                      {"converter_len", spec.level(l).converter_len},
                      {"encoder_span", span_json(spec.level(l).encoder.span)},
                      {"decoder_span", span_json(spec.level(l).decoder.span)}});
  Json protocols = Json::array({"hiergen"});
  Json kv{{"hiergen", kv_json(spec, Protocol::hiergen, model_.kv)}};
  if (spec.n_levels() > 0) {
    protocols.push_back("recgen");
    kv["recgen"] = kv_json(spec, Protocol::recgen, model_.kv);
  }
  kv["vanilla"] = kv_json(matching_vanilla(spec), Protocol::hiergen, model_.kv);
  const ApiLimits& limits = rules_.limits;
  return {{"model", names_.front()},
          {"version", commit()},
          {"levels", std::move(levels)},
          {"vocab_size", spec.vocab_size},
          {"bos_token_id", spec.bos_token_id},
          {"eos_token_id", spec.eos_token_id},
          {"n_ctx", n_ctx_},
          {"parameters", count_parameters(spec).total},
          {"protocols", std::move(protocols)},
          {"dtype", to_string(model_.dtype)},
          {"kv_dtype", to_string(model_.kv)},
          {"isa", kernels().name},
          {"threads", threads()},
          {"tokenizer", tokenizer_.has_value()},
          {"chat", chat_template_.has_value()},
          {"kv", std::move(kv)},
          {"kv_budget_bytes", engine_.status().kv_budget_bytes},
          {"limits",
           {{"body_bytes", options_.http.body_bytes},
            {"connections", options_.http.connections},
            {"max_sequences", options_.max_sequences},
            {"max_queue", options_.max_queue},
            {"json_depth", limits.json_depth},
            {"json_values", max_json_values},
            {"prompts", limits.prompts},
            {"n", limits.n},
            {"tokens", limits.tokens},
            {"stops", limits.stops},
            {"stop_bytes", limits.stop_bytes},
            {"bias_entries", limits.bias_entries},
            {"logprobs", limits.logprobs},
            {"logprob_values", limits.logprob_values}}}};
}

}  // namespace photon
