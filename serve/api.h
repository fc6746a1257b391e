// The API: OpenAI's completions and chat completions over one model, and what clients ask of it beside them.
// docs/server.md.
#pragma once

#include <boost/asio/thread_pool.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/model.h"
#include "serve/answer.h"
#include "serve/chat.h"
#include "serve/completion_request.h"
#include "serve/engine_thread.h"
#include "serve/metrics.h"
#include "serve/options.h"
#include "serve/router.h"
#include "text/tokenizer.h"

namespace photon {

/// The names by which clients may ask for a model: the alias, if there is one, and the folder's name.
std::vector<std::string> model_names(const std::filesystem::path& folder, const std::string& alias);

/// Handlers may be called from any thread; they do not wait for the engine.
class Api {
 public:
  /// @param model, metrics  outlive it
  /// @param tokenizer  of the model; none: only token ids go in and out
  /// @throws InputError for options that cannot be honoured, or a chat.json that is none.
  Api(Runner& runner, std::optional<Tokenizer> tokenizer, const ServeOptions& options, Metrics& metrics);
  ~Api();

  /// The routes call back into the object, which must outlive the router's use.
  /// Answers every request that waits or runs with 503, soon.
  void cancel_all() { engine_.cancel_all(); }
  void add_routes(Router& router);

 private:
  using Json = nlohmann::ordered_json;

  /// Long texts take seconds to tokenize, and long answers to write: they wait for each other, and nobody for them.
  void in_background(std::shared_ptr<Responder> responder, std::function<void()> work);
  void complete(Answer::Endpoint endpoint, const HttpRequest& http, const nlohmann::json& body,
                std::shared_ptr<Responder> responder);
  CompletionRequest parse(Answer::Endpoint endpoint, const nlohmann::json& body) const;
  void start(CompletionRequest request, Answer::Endpoint endpoint, const HttpRequest& http,
             std::shared_ptr<Responder> responder);
  Json tokenize(const nlohmann::json& body) const;
  Json detokenize(const nlohmann::json& body) const;
  Json tokenizer_info() const;
  Json model_object(const std::string& name) const;
  Json props() const;

  const Tokenizer& tokenizer() const;  ///< @throws ApiError without one
  void check_model_name(const std::string& name) const;
  std::vector<std::int32_t> encode(const CompletionRequest::Prompt& prompt) const;
  std::vector<std::int32_t> encode_text(const std::string& text, bool add_bos) const;
  void check_context(const CompletionRequest& request, std::span<const std::vector<std::int32_t>> prompts,
                     Answer::Endpoint endpoint) const;

  const Model& model_;
  std::optional<Tokenizer> tokenizer_;
  std::vector<std::string> names_;
  std::optional<ChatTemplate> chat_template_;
  std::string no_chat_reason_;
  const ServeOptions options_;
  RequestRules rules_;
  std::int64_t n_ctx_ = 0;  // tokens of prompt and answer
  Metrics& metrics_;
  std::int64_t created_;                    // seconds since 1970
  boost::asio::thread_pool background_{1};  // both use each other until the destructor ends this one
  EngineThread engine_;
};

}  // namespace photon
