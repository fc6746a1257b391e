// Everything that `photon serve` can be told, and every limit that it holds requests to.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace photon {

/// What a client may take of the HTTP server.
struct HttpLimits {
  using milliseconds = std::chrono::milliseconds;

  std::size_t body_bytes = std::size_t{8} << 20;
  std::size_t buffered_body_bytes = std::size_t{256} << 20;  // of all connections: beyond it, 503
  std::size_t header_bytes = std::size_t{16} << 10;          // request line and headers
  std::size_t n_headers = 100;
  std::size_t connections = 1024;
  milliseconds idle_timeout{60'000};    // between requests
  milliseconds header_timeout{10'000};  // from a request's first byte to the end of its headers
  milliseconds body_timeout{10'000};    // for each progress_bytes of a body, and for its rest
  milliseconds write_timeout{20'000};   // for the client to take each progress_bytes of an answer, and its rest
  milliseconds linger_timeout{1'000};   // after an answer that ends a connection: for the client to read it
  std::size_t progress_bytes = std::size_t{64} << 10;
  std::size_t unsent_bytes = std::size_t{512} << 10;  // of a stream that its client does not take: then it is dropped
};

/// What a request of the API may ask for.
struct ApiLimits {
  std::int64_t json_depth = 32;
  std::int64_t prompts = 256;                   // in one request
  std::int64_t n = 128;                         // continuations of one prompt (best_of, too)
  std::int64_t tokens = std::int64_t{1} << 20;  // of one answer: prompts × max(n, best_of) × max_tokens, and the echo
  std::int64_t stops = 16, stop_bytes = 512;
  std::int64_t bias_entries = 1024;
  std::int64_t logprobs = 20;
  std::int64_t logprob_values = std::int64_t{1} << 20;  // that one answer may hold
};

struct ServeOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 8080;  // 0: any that is free
  int http_threads = 2;
  HttpLimits http{};
  std::vector<std::string> api_keys{};      // none: everybody may ask
  std::vector<std::string> cors_origins{};  // whose pages may ask; "*": everybody's

  std::string alias{};  // the model's name; empty: the folder's
  ApiLimits api{};
  std::int64_t kv_budget_bytes = std::int64_t{4} << 30;  // 0: what the machine has left
  std::int64_t n_ctx = 0;                                // tokens of prompt and answer; 0: the engine's own limit
  std::int64_t max_sequences = 256;                      // that run at once
  std::int64_t max_queue = 1024;                         // requests that wait: beyond it, 429
  std::int64_t prefill_tokens_per_step = 256;
  bool prefix_cache = true;
  std::chrono::milliseconds drain_timeout{30'000};  // after SIGTERM, for running requests to end
};

}  // namespace photon
