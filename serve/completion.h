// One completion on its way: from a checked request through the engine to the client, whole or as it comes.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "serve/answer.h"
#include "serve/completion_request.h"
#include "serve/engine_thread.h"
#include "serve/errors.h"
#include "serve/http.h"
#include "serve/metrics.h"
#include "text/tokenizer.h"

namespace photon {

/// Lives until its last prompt is done.  After start() only the engine's thread touches it, until all prompts are
/// done.
class Completion : public std::enable_shared_from_this<Completion> {
 public:
  /// @param request    max_tokens is said
  /// @param prompts    its prompts as tokens
  /// @param tokenizer, metrics  outlive it
  Completion(CompletionRequest request, std::vector<std::vector<std::int32_t>> prompts, Answer answer,
             const Tokenizer* tokenizer, Metrics& metrics, std::shared_ptr<Responder> responder);
  ~Completion();

  /// Runs what takes long for the engine's thread.
  using Background = std::function<void(std::function<void()> work)>;
  /// Hands the prompts to the engine, and takes them back if the client goes.
  void start(EngineThread& engine, Background background);

 private:
  class Prompt;  // one of them and its continuations

  Request engine_request(const Prompt& prompt) const;
  void submitted(std::exception_ptr refusal);
  void show(Prompt& prompt, std::size_t continuation);  // stream: what is new of it
  void prompt_done();
  void fail(const ApiError& error);
  void send_whole();
  std::vector<Choice> choices_of(Prompt& prompt) const;
  nlohmann::ordered_json usage() const;

  CompletionRequest request_;
  Answer answer_;
  const Tokenizer* tokenizer_;
  Metrics& metrics_;
  std::shared_ptr<Responder> responder_;
  Background background_;
  const std::chrono::steady_clock::time_point arrival_ = std::chrono::steady_clock::now();
  std::deque<Prompt> prompts_;
  std::size_t n_done_ = 0;
  bool accepted_ = false;  // all prompts were queued
  bool started_ = false;   // the answer's first byte is on its way
  bool ended_ = false;     // answered, or refused
};

}  // namespace photon
