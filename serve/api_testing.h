// For the tests of the API: a tiny model with a tokenizer behind the API's handlers, without sockets.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/models_testing.h"
#include "serve/api.h"
#include "serve/errors.h"
#include "text/tokenizer_testing.h"

namespace photon::testing_support {

using nlohmann::json;

/// Keeps what is sent.
class RecordingResponder : public Responder {
 public:
  void send(int status, std::string_view, std::string body, const Headers& headers) override {
    const std::lock_guard lock(mutex_);
    status_ = status, bytes_ = std::move(body), headers_ = {headers.begin(), headers.end()}, done_ = true;
    changed_.notify_all();
  }
  void start_events(const Headers&) override {
    const std::lock_guard lock(mutex_);
    status_ = 200, is_stream_ = true;
  }
  void write(std::string bytes) override {
    const std::lock_guard lock(mutex_);
    bytes_ += bytes;
    changed_.notify_all();
  }
  void finish() override {
    const std::lock_guard lock(mutex_);
    done_ = true;
    changed_.notify_all();
  }
  void on_disconnect(std::function<void()> gone) override {
    const std::lock_guard lock(mutex_);
    gone_ = std::move(gone);
  }

  /// The client goes.
  void disconnect() {
    std::function<void()> gone;
    {
      const std::lock_guard lock(mutex_);
      gone.swap(gone_);
    }
    gone();
  }
  /// Waits until the answer is complete; false if that takes far too long.
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return done_; });
  }
  bool wait_for_bytes() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return !bytes_.empty(); });
  }
  int status() const { return status_; }
  bool is_stream() const { return is_stream_; }
  const std::string& bytes() const { return bytes_; }
  json body() const { return json::parse(bytes_); }
  std::string header(const std::string& name) const { return headers_.contains(name) ? headers_.at(name) : ""; }
  /// Of a stream, without its end mark.
  std::vector<json> events() const {
    std::vector<json> events;
    std::string_view rest = bytes_;
    while (!rest.empty()) {
      constexpr std::string_view begin = "data: ", end = "\n\n";
      EXPECT_TRUE(rest.starts_with(begin)) << rest;
      const std::size_t length = rest.find(end);
      EXPECT_NE(length, std::string_view::npos) << rest;
      if (length == std::string_view::npos) return events;
      const std::string_view data = rest.substr(begin.size(), length - begin.size());
      rest.remove_prefix(length + end.size());
      EXPECT_EQ(data == "[DONE]", rest.empty());
      if (data != "[DONE]") events.push_back(json::parse(data));
    }
    return events;
  }

 private:
  static constexpr std::chrono::seconds patience{60};
  std::mutex mutex_;
  std::condition_variable changed_;
  int status_ = 0;
  bool is_stream_ = false, done_ = false;
  std::string bytes_;
  std::map<std::string, std::string> headers_;
  std::function<void()> gone_;
};

/// A model of shaken weights whose tokens are those of a tokenizer of 400 pieces.
inline Spec spec_with_text(const std::string& name) {
  Spec spec = tiny_spec(name);
  spec.vocab_size = 400;
  return spec;
}

/// The API over such a model.
class ApiUnderTest {
 public:
  explicit ApiUnderTest(const std::string& spec_name = "window_stream", ServeOptions options = small_options(),
                        bool with_tokenizer = true, const std::string& chat = {})
      : folder_(spec_with_text(spec_name)), metrics_("tiny") {
    if (with_tokenizer) std::filesystem::copy_file(tokenizer_path(), folder_.path() / tokenizer_file);
    if (!chat.empty()) std::ofstream(folder_.path() / chat_file) << chat;
    runner_.emplace(load_model(folder_.path()));
    if (with_tokenizer) tokenizer_.emplace(tokenizer_path());
    api_.emplace(*runner_, with_tokenizer ? std::optional<Tokenizer>(tokenizer_path()) : std::nullopt, options,
                 metrics_);
    api_->add_routes(router_);
  }

  static ServeOptions small_options() {
    ServeOptions options;
    options.alias = "tiny";
    options.kv_budget_bytes = 64 << 20;
    options.n_ctx = 600;
    return options;
  }

  /// Begins an answer.
  std::shared_ptr<RecordingResponder> ask(const std::string& method, const std::string& path, std::string body = {},
                                          const std::string& content_type = "application/json",
                                          std::vector<std::pair<std::string, std::string>> headers = {}) {
    const auto responder = std::make_shared<RecordingResponder>();
    headers.emplace_back("content-type", content_type);
    HttpRequest request{.method = method,
                        .path = path,
                        .query = {},
                        .headers = std::move(headers),
                        .body = std::move(body),
                        .id = "id"};
    try {
      router_.handle(std::move(request), responder);
    } catch (const ApiError& error) {
      send_error(*responder, error);
    }
    return responder;
  }
  /// Waits for an answer.
  std::shared_ptr<RecordingResponder> post(const std::string& path, const std::string& body) {
    const auto responder = ask("POST", path, body);
    EXPECT_TRUE(responder->wait()) << body;
    return responder;
  }
  std::shared_ptr<RecordingResponder> complete(const json& body) { return post("/v1/completions", body.dump()); }
  json get(const std::string& path) {
    const auto responder = ask("GET", path);
    EXPECT_EQ(responder->status(), 200);
    return responder->body();
  }

  const std::filesystem::path& folder() const { return folder_.path(); }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  Api& api() { return *api_; }
  Metrics& metrics() { return metrics_; }

 private:
  TestModel folder_;
  Metrics metrics_;
  std::optional<Runner> runner_;
  std::optional<Tokenizer> tokenizer_;
  Router router_;
  std::optional<Api> api_;
};

}  // namespace photon::testing_support
