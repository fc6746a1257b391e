// photon serve: the OpenAI-compatible server.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "kernels/kernels.h"
#include "serve/api.h"
#include "serve/page.h"
#include "serve/server.h"

namespace photon {
namespace {

struct ServeArguments {
  EngineArguments engine;
  ServeOptions options;
  std::string api_key_file;
  std::uint64_t memory = std::uint64_t{4} << 30, max_body = std::uint64_t{8} << 20;
  double drain_timeout_s = 30, idle_timeout_s = 60;
  bool no_prefix_cache = false, quiet = false;
};

void check_key(const std::string& key, const std::string& where) {
  const auto printable = [](char c) { return c > ' ' && c < '\x7f'; };
  if (key.empty() || !std::ranges::all_of(key, printable))
    throw InputError(where + ": a key is one or more printable ASCII characters without spaces");
}

// The keys of --api-key, --api-key-file and PHOTON_API_KEY together.
std::vector<std::string> api_keys(const ServeArguments& arguments) {
  std::vector<std::string> keys = arguments.options.api_keys;
  for (const std::string& key : keys) check_key(key, "--api-key");
  if (!arguments.api_key_file.empty()) {
    std::istringstream lines(read_text(arguments.api_key_file, /*max_bytes=*/1 << 20));
    const std::size_t n_before = keys.size();
    std::int64_t n_line = 0;
    for (std::string line; std::getline(lines, line);) {
      ++n_line;
      if (line.ends_with('\r')) line.pop_back();
      if (line.empty()) continue;
      check_key(line, fmt::format("{}: line {}", arguments.api_key_file, n_line));
      keys.push_back(line);
    }
    if (keys.size() == n_before) throw InputError(arguments.api_key_file + ": holds no key; write one a line");
  }
  if (const char* key = std::getenv("PHOTON_API_KEY")) {
    check_key(key, "PHOTON_API_KEY");
    keys.emplace_back(key);
  }
  return keys;
}

ServeOptions resolved(const ServeArguments& arguments) {
  ServeOptions options = arguments.options;
  options.api_keys = api_keys(arguments);
  options.alias = model_names(arguments.engine.model, options.alias).front();
  options.kv_budget_bytes = static_cast<std::int64_t>(arguments.memory);
  options.http.body_bytes = arguments.max_body;
  options.http.buffered_body_bytes = std::max(options.http.buffered_body_bytes, options.http.body_bytes);
  const auto milliseconds = [](double seconds) { return std::chrono::milliseconds(std::int64_t(seconds * 1e3)); };
  options.drain_timeout = milliseconds(arguments.drain_timeout_s);
  options.http.idle_timeout = milliseconds(arguments.idle_timeout_s);
  options.prefix_cache = !arguments.no_prefix_cache;
  return options;
}

// A connection takes a descriptor, and many systems lend 1,024 unless asked for more.
void allow_descriptors(std::size_t n) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= n) return;
  limit.rlim_cur = std::min<rlim_t>(n, limit.rlim_max);
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < n)
    spdlog::warn("the system lends {} file descriptors, {} connections may need {}", limit.rlim_cur, n - 100, n);
}

/// Turns SIGTERM and SIGINT into the server's stop.
class StopSignals {
 public:
  explicit StopSignals(Server& server) : server_(server), signals_(io_, SIGTERM, SIGINT) {
    wait();
    thread_ = std::jthread([this] { io_.run(); });
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  ~StopSignals() { io_.stop(); }

 private:
  void wait() {
    signals_.async_wait([this](const boost::system::error_code& error, int) {
      if (error) return;
      if (server_.loading()) {  // which nothing can interrupt, and there is nothing to end in order
        spdlog::info("stopped while loading");
        std::_Exit(0);
      }
      server_.request_stop();
      wait();
    });
  }

  Server& server_;
  boost::asio::io_context io_;
  boost::asio::signal_set signals_;
  std::jthread thread_;  // last: it uses the others
};

void serve(const ServeArguments& arguments) {
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%l%$: %v");
  if (arguments.quiet) spdlog::set_level(spdlog::level::warn);
  std::signal(SIGPIPE, SIG_IGN);  // a closed standard output is no reason to stop
  const ServeOptions options = resolved(arguments);
  allow_descriptors(options.http.connections + 100);

  Server server(options);
  const StopSignals signals(server);
  std::cout << "listening on " << server.url() << std::endl;
  std::cout.clear();  // who started it may have closed standard output
  if (options.api_keys.empty() && !server.is_local())
    spdlog::warn("others than this machine can reach {}, and no --api-key is set", server.url());

  Engine engine = arguments.engine.open();
  Api api(engine.runner(), tokenizer_of(engine.model()), options, server.metrics());
  api.add_routes(server.router());
  add_page(server.router());
  server.on_cut_off([&api] { api.cancel_all(); });
  server.ready();
  spdlog::info("{} is ready at {}: {} weights, {} KV caches of at most {:.2f} GiB, {} threads", options.alias,
               server.url(), to_string(engine.model().dtype), to_string(engine.model().kv),
               static_cast<double>(options.kv_budget_bytes) / double(1 << 30), threads());
  server.wait();
  spdlog::info("stopped");
}

}  // namespace

void add_serve(Command app) {
  auto arguments = std::make_shared<ServeArguments>();
  ServeOptions& options = arguments->options;
  Command command = app.subcommand("serve", "Serve a model over HTTP: OpenAI's API, and a page at /");
  arguments->engine.add_to(command);
  constexpr std::int64_t many = std::int64_t{1} << 40;

  command.option("--host", options.host, "Address to listen on; 0.0.0.0 or :: for all");
  command.option("--port", options.port, "Port to listen on; 0: any that is free, and printed");
  command.option("--memory", arguments->memory, "KV caches together: 512MiB, 4GiB, …; 0: what the machine has left")
      .bytes(0, static_cast<std::uint64_t>(many) << 10)
      .shown_default("4GiB");
  command.option("--n-ctx", options.n_ctx, "Most tokens of prompt and answer (default: as many as memory holds)")
      .range(1, max_context)
      .no_default();
  command.option("--max-sequences", options.max_sequences, "Most continuations that run at once").range(1, 65536);
  command.option("--max-queue", options.max_queue, "Most requests that wait; more are told 429").range(0, many);
  command
      .option("--prefill-tokens", options.prefill_tokens_per_step,
              "Prompt tokens that one step takes along: fewer make running streams smoother")
      .range(1, many);
  command.flag("--no-prefix-cache", arguments->no_prefix_cache, "Forget prompts when they are done (default: off)");

  command.option("--alias", options.alias, "The model's name for clients (default: the folder's)");
  command
      .option("--api-key", options.api_keys,
              "Key that clients must send; may be repeated (default: PHOTON_API_KEY, else none)")
      .repeatable();
  command.option("--api-key-file", arguments->api_key_file, "File with such keys, one a line (default: none)");
  command
      .option("--cors-origin", options.cors_origins,
              "Origin whose pages may read answers, or *; may be repeated (default: none)")
      .repeatable();

  command.option("--max-body", arguments->max_body, "Largest request body: 512KiB, 8MiB, …")
      .bytes(1, std::uint64_t{1} << 30)
      .shown_default("8MiB");
  command.option("--max-connections", options.http.connections, "Most connections at once").range(1, 1'000'000);
  command.option("--http-threads", options.http_threads, "Threads for HTTP, JSON and tokenizing").range(1, 256);
  command.option("--idle-timeout", arguments->idle_timeout_s, "Seconds that a connection may wait for a request")
      .range(0.1, 86400.0);
  command
      .option("--drain-timeout", arguments->drain_timeout_s,
              "Seconds that running requests have to end after SIGTERM or SIGINT; a second signal ends them")
      .range(0.0, 86400.0);
  command.flag("--quiet", arguments->quiet, "Log warnings and errors only (default: off)");
  command.footer(
      "Example: photon serve -m models/photon-stories --memory 512MiB\n"
      "Then:    curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 50}'");
  command.runs([arguments] { serve(*arguments); });
}

}  // namespace photon
