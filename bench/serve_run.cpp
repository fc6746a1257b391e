#include "bench/serve_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/system/system_error.hpp>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <span>
#include <utility>

#include "base/error.h"
#include "bench/serve_client.h"

namespace photon {
namespace {

namespace asio = boost::asio;
using nlohmann::json;
using Clock = std::chrono::steady_clock;
using Timer = asio::steady_timer;

constexpr std::chrono::milliseconds metrics_period{100};

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

std::string kind_of(const boost::system::error_code& error) {
  namespace beast = boost::beast;
  if (error == beast::error::timeout) return "timeout";
  if (error == beast::http::error::partial_message || error == beast::http::error::end_of_stream) return "cut short";
  return error.message();
}

// What the events of one answer say, and when.
class AnswerTimes {
 public:
  AnswerTimes(Clock::time_point planned, RequestResult& result) : planned_(planned), result_(result) {}

  void hear(std::string_view bytes) {
    const auto now = Clock::now();
    if (head_.size() < most_head) head_ += bytes.substr(0, most_head - head_.size());
    reader_.feed(bytes, [&](std::string_view data) {
      try {
        event(data, now);
      } catch (const json::exception& e) {
        refuse("no completion event", e.what());
      }
    });
  }
  void end(int status) {
    result_.e2e_ms = 1e3 * seconds_between(planned_, Clock::now());
    if (status != 200) {
      refuse(std::to_string(status), message_of(json::parse(head_, nullptr, /*allow_exceptions=*/false)));
    } else if (result_.error.empty() && (!done_ || last_token_.empty())) {
      refuse("cut short", "the stream ended before [DONE]");
    }
  }

 private:
  static constexpr std::size_t most_head = 4096;

  static std::string message_of(const json& answer) {
    const auto error = answer.is_object() ? answer.find("error") : answer.end();
    if (error == answer.end() || !error->is_object() || !error->contains("message")) return {};
    const json& message = (*error)["message"];
    return message.is_string() ? message.get<std::string>() : std::string();
  }
  void refuse(const std::string& error, const std::string& message) {
    result_.error = error;
    result_.message = message;
  }
  void event(std::string_view data, Clock::time_point now) {
    if (data == "[DONE]") {
      done_ = true;
      return;
    }
    const json event = json::parse(data);
    if (event.contains("error")) return refuse("error event", message_of(event));
    for (const json& choice : event.at("choices"))
      tokens(choice.at("index").get<int>(), choice.at("token_ids").size(), now);
    if (const auto usage = event.find("usage"); usage != event.end() && usage->is_object()) {
      usage->at("prompt_tokens").get_to(result_.prompt_tokens);
      usage->at("completion_tokens").get_to(result_.output_tokens);
      usage->at("prompt_tokens_details").at("cached_tokens").get_to(result_.cached_tokens);
    }
  }
  void tokens(int choice, std::size_t n, Clock::time_point now) {
    if (n == 0) return;
    if (last_token_.empty()) result_.ttft_ms = 1e3 * seconds_between(planned_, now);
    const auto [last, first_of_choice] = last_token_.try_emplace(choice, now);
    if (!first_of_choice) result_.gaps_ms.push_back(1e3 * seconds_between(std::exchange(last->second, now), now));
    result_.gaps_ms.insert(result_.gaps_ms.end(), n - 1, 0.0);
  }

  Clock::time_point planned_;
  RequestResult& result_;
  EventReader reader_;
  std::string head_;                             // of the body, for what a refusal says
  std::map<int, Clock::time_point> last_token_;  // by choice
  bool done_ = false;
};

class LoadRun {
 public:
  LoadRun(const LoadOptions& options, const HttpClient& client, std::int64_t vocab_size)
      : options_(options), client_(client), vocab_size_(vocab_size) {}

  /// @param first_prompt  the requests' place among the streams of random numbers
  LoadResult run(std::span<const PlannedRequest> plan, std::uint64_t first_prompt) {
    LoadResult result;
    result.requests.resize(plan.size());
    n_open_ = plan.size();
    start_ = Clock::now();
    const auto rethrow = [](const std::exception_ptr& error) {
      if (error) std::rethrow_exception(error);
    };
    asio::co_spawn(io_, send_all(plan, first_prompt, result.requests), rethrow);
    asio::co_spawn(io_, watch(result.kv_bytes_peak), rethrow);
    io_.restart();
    io_.run();
    return result;
  }

 private:
  asio::awaitable<void> send_all(std::span<const PlannedRequest> plan, std::uint64_t first_prompt,
                                 std::span<RequestResult> results) {
    Timer timer(io_);
    for (std::size_t i = 0; i < plan.size(); ++i) {
      const auto at = start_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(plan[i].at_s));
      timer.expires_at(at);
      co_await timer.async_wait(asio::use_awaitable);
      asio::co_spawn(io_, send(plan[i], at, first_prompt + i, results[i]), [this](const std::exception_ptr& error) {
        --n_open_;
        if (error) std::rethrow_exception(error);
      });
    }
  }

  asio::awaitable<void> send(PlannedRequest planned, Clock::time_point at, std::uint64_t prompt_stream,
                             RequestResult& result) {
    json body{{"prompt", prompt_of(options_, planned.prompt_tokens, prompt_stream, vocab_size_)},
              {"max_tokens", planned.output_tokens},
              {"protocol", to_string(options_.protocol)},
              {"n", options_.n},
              {"seed", options_.seed + prompt_stream},
              {"ignore_eos", true},
              {"stream", true},
              {"stream_options", {{"include_usage", true}}},
              {"return_token_ids", true}};
    ClientRequest request{.method = "POST", .path = "/v1/completions", .body = body.dump()};
    request.api_key = options_.api_key;
    request.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(1e3 * options_.timeout_s));
    AnswerTimes times(at, result);
    result.planned_s = planned.at_s;
    result.sent_s = seconds_between(start_, Clock::now());
    try {
      times.end(co_await client_.exchange(std::move(request), [&](std::string_view bytes) { times.hear(bytes); }));
    } catch (const boost::system::system_error& e) {
      result.error = kind_of(e.code());
    }
    result.ended_s = seconds_between(start_, Clock::now());
  }

  asio::awaitable<void> watch(std::map<std::string, std::int64_t>& peak) {
    Timer timer(io_);
    ClientRequest request{.path = "/metrics", .api_key = options_.api_key};
    while (n_open_ > 0) {
      timer.expires_after(metrics_period);
      co_await timer.async_wait(asio::use_awaitable);
      std::string text;
      try {
        co_await client_.exchange(request, [&](std::string_view bytes) { text += bytes; });
      } catch (const boost::system::system_error&) {
        continue;  // the requests themselves tell what is wrong
      }
      for (const auto& [kind, bytes] : kv_bytes_by_kind(text)) peak[kind] = std::max(peak[kind], bytes);
    }
  }

  const LoadOptions& options_;
  const HttpClient& client_;
  std::int64_t vocab_size_;
  asio::io_context io_{1};
  Clock::time_point start_{};
  std::size_t n_open_ = 0;  // requests that did not end
};

nlohmann::ordered_json props_of(const HttpClient& client, const std::string& api_key) {
  const std::string text = client.fetch({.path = "/props", .api_key = api_key});
  auto props = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!props.is_object() || !props.contains("vocab_size") || !props["vocab_size"].is_number_unsigned() ||
      props["vocab_size"] == 0)
    throw InputError(client.url() + "/props: tells no vocab_size; is this photon serve?");
  return props;
}

}  // namespace

double LoadResult::seconds() const {
  double end = 0;
  for (const RequestResult& request : requests) end = std::max(end, request.ended_s);
  return requests.empty() ? 0 : end - requests.front().planned_s;
}

LoadResult run_load(const LoadOptions& options, const std::function<void(const std::string&)>& say) {
  const HttpClient client(options.url);
  auto props = props_of(client, options.api_key);
  const auto plan = plan_load(options), warmup = plan_warmup(options);
  LoadRun run(options, client, props["vocab_size"].get<std::int64_t>());
  if (!warmup.empty()) {
    say(fmt::format("warming up with {} requests", warmup.size()));
    run.run(warmup, plan.size());
  }
  say(fmt::format("{} requests to {}, {:.3g} per second on average for {:.1f} s; seed {}", plan.size(), client.url(),
                  options.rate, plan.back().at_s, options.seed));
  LoadResult result = run.run(plan, 0);
  result.server = std::move(props);
  return result;
}

std::map<std::string, std::int64_t> kv_bytes_by_kind(std::string_view metrics) {
  constexpr std::string_view name = "photon:kv_bytes{", label = "kind=\"";
  std::map<std::string, std::int64_t> bytes;
  while (!metrics.empty()) {
    const auto end = std::min(metrics.find('\n'), metrics.size());
    const std::string_view line = metrics.substr(0, end);
    metrics.remove_prefix(std::min(end + 1, metrics.size()));
    const auto at = line.find(label), space = line.rfind(' ');
    if (!line.starts_with(name) || at == std::string_view::npos || space == std::string_view::npos) continue;
    const std::string_view kind = line.substr(at + label.size());
    const std::string value(line.substr(space + 1));  // perhaps as 1.5e+09
    if (!kind.starts_with("budget\""))
      bytes[std::string(kind.substr(0, kind.find('"')))] = std::llround(std::strtod(value.c_str(), nullptr));
  }
  return bytes;
}

}  // namespace photon
