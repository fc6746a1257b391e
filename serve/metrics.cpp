#include "serve/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <mutex>

namespace photon {
namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;

// Seconds: from a token of a tiny model to a long prompt on a small machine.
const Histogram::BucketBoundaries token_times{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                                              0.15,  0.2,    0.3,   0.4,  0.5,   0.75, 1,     2.5};
const Histogram::BucketBoundaries request_times{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,  2.5,
                                                5,     10,   20,    40,   80,  160,  320, 640};
const Histogram::BucketBoundaries bytes{1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22,
                                        1 << 24, 1 << 26, 1 << 28, 1 << 30};

constexpr std::array protocols{Protocol::hiergen, Protocol::recgen};
constexpr std::array outcomes{Outcome::stop, Outcome::length, Outcome::cancelled, Outcome::refused, Outcome::failed};

}  // namespace

std::string_view to_string(Outcome outcome) {
  switch (outcome) {
    case Outcome::stop:
      return "stop";
    case Outcome::length:
      return "length";
    case Outcome::cancelled:
      return "cancelled";
    case Outcome::refused:
      return "refused";
    case Outcome::failed:
      return "failed";
  }
  return "";
}

struct Metrics::Impl {
  struct OfProtocol {
    Histogram *first_token, *next_token, *request, *queue, *prefill, *decode, *kv_growing, *kv_constant;
    Counter *prompt_tokens, *cached_tokens, *generated_tokens;
    std::array<Counter*, outcomes.size()> ended;
  };

  explicit Impl(const std::string& model_name) : model{{"model_name", model_name}} {
    auto& first = histograms("time_to_first_token_seconds", "From arrival to the first token");
    auto& next = histograms("inter_token_latency_seconds", "Between two tokens of a continuation");
    auto& request = histograms("e2e_request_latency_seconds", "From arrival to the last token");
    auto& queue = histograms("request_queue_time_seconds", "Waiting for memory");
    auto& prefill = histograms("request_prefill_time_seconds", "Reading the prompt");
    auto& decode = histograms("request_decode_time_seconds", "Generating");
    auto& kv = histograms("request_kv_bytes", "KV cache bytes of a request at its end");
    auto& prompt = counters("prompt_tokens_total", "Tokens of prompts, found in the prefix cache or not");
    auto& cached = counters("prompt_tokens_cached_total", "Tokens of prompts whose work was in the prefix cache");
    auto& generated = counters("generation_tokens_total", "Generated tokens");
    auto& requests = counters("requests_total", "Requests by how they ended");
    for (std::size_t p = 0; p < protocols.size(); ++p) {
      const Labels label{{"protocol", std::string(photon::to_string(protocols[p]))}};
      const auto with = [&](const std::string& key, std::string_view value) {
        Labels more = label;
        more.emplace(key, value);
        return more;
      };
      OfProtocol& m = of_protocol[p];
      m.first_token = &first.Add(label, request_times);
      m.next_token = &next.Add(label, token_times);
      m.request = &request.Add(label, request_times);
      m.queue = &queue.Add(label, request_times);
      m.prefill = &prefill.Add(label, request_times);
      m.decode = &decode.Add(label, request_times);
      m.kv_growing = &kv.Add(with("kind", "growing"), bytes);
      m.kv_constant = &kv.Add(with("kind", "constant"), bytes);
      m.prompt_tokens = &prompt.Add(label);
      m.cached_tokens = &cached.Add(label);
      m.generated_tokens = &generated.Add(label);
      for (std::size_t i = 0; i < outcomes.size(); ++i)
        m.ended[i] = &requests.Add(with("outcome", to_string(outcomes[i])));
    }
    running = &gauges("num_requests_running", "Requests in prefill or decoding").Add({});
    waiting = &gauges("num_requests_waiting", "Requests in the queue").Add({});
    sequences = &gauges("num_sequences_running", "Continuations that decode").Add({});
    kv_usage = &gauges("kv_cache_usage_perc", "KV bytes in use over the budget, 0 to 1").Add({});
    auto& kv_bytes = gauges("kv_bytes", "KV cache bytes by what holds them, and the budget");
    growing = &kv_bytes.Add({{"kind", "growing"}});
    constant = &kv_bytes.Add({{"kind", "constant"}});
    cache = &kv_bytes.Add({{"kind", "prefix_cache"}});
    reserved = &kv_bytes.Add({{"kind", "reserved"}});
    budget = &kv_bytes.Add({{"kind", "budget"}});
    queries = &counters("prefix_cache_queries_total", "Prompts looked up in the prefix cache").Add({});
    hits = &counters("prefix_cache_hits_total", "Prompts that began in the prefix cache").Add({});
    reused = &counters("prefix_cache_tokens_reused_total", "Prompt tokens taken from the prefix cache").Add({});
    steps = &counters("engine_steps_total", "Passes through the model").Add({});
    connections = &gauges("http_connections", "Open connections").Add({});
    answers = &counters("http_responses_total", "Answers by status");
  }

  prometheus::Family<Histogram>& histograms(const std::string& name, const std::string& help) {
    return prometheus::BuildHistogram().Name("photon:" + name).Help(help).Labels(model).Register(registry);
  }
  prometheus::Family<Counter>& counters(const std::string& name, const std::string& help) {
    return prometheus::BuildCounter().Name("photon:" + name).Help(help).Labels(model).Register(registry);
  }
  prometheus::Family<Gauge>& gauges(const std::string& name, const std::string& help) {
    return prometheus::BuildGauge().Name("photon:" + name).Help(help).Labels(model).Register(registry);
  }
  OfProtocol& of(Protocol protocol) { return of_protocol[static_cast<std::size_t>(protocol)]; }

  Labels model;
  prometheus::Registry registry;
  std::array<OfProtocol, protocols.size()> of_protocol{};
  Gauge *running, *waiting, *sequences, *kv_usage, *growing, *constant, *cache, *reserved, *budget, *connections;
  Counter *queries, *hits, *reused, *steps;
  prometheus::Family<Counter>* answers;
  std::mutex status_mutex;
  Scheduler::Status last_status{};
};

Metrics::Metrics(const std::string& model_name) : impl_(std::make_unique<Impl>(model_name)) {}
Metrics::~Metrics() = default;

void Metrics::first_token(Protocol protocol, Seconds time) { impl_->of(protocol).first_token->Observe(time.count()); }
void Metrics::next_token(Protocol protocol, Seconds time) { impl_->of(protocol).next_token->Observe(time.count()); }

void Metrics::request_done(Protocol protocol, Outcome outcome, const RequestStats& stats, Seconds time) {
  Impl::OfProtocol& m = impl_->of(protocol);
  m.request->Observe(time.count());
  m.queue->Observe(stats.queue_ms / 1e3);
  m.prefill->Observe(stats.prefill_ms / 1e3);
  m.decode->Observe(stats.decode_ms / 1e3);
  m.kv_growing->Observe(static_cast<double>(stats.kv_bytes_growing));
  m.kv_constant->Observe(static_cast<double>(stats.kv_bytes_constant));
  m.prompt_tokens->Increment(static_cast<double>(stats.prompt_tokens));
  m.cached_tokens->Increment(static_cast<double>(stats.cached_tokens));
  m.generated_tokens->Increment(static_cast<double>(stats.generated_tokens));
  m.ended[static_cast<std::size_t>(outcome)]->Increment();
}

void Metrics::request_refused(Protocol protocol) {
  impl_->of(protocol).ended[static_cast<std::size_t>(Outcome::refused)]->Increment();
}

void Metrics::http_answer(int status) { impl_->answers->Add({{"status", std::to_string(status)}}).Increment(); }

void Metrics::set_connections(std::int64_t n) { impl_->connections->Set(static_cast<double>(n)); }

void Metrics::set_status(const Scheduler::Status& s) {
  Impl& m = *impl_;
  const auto set = [](Gauge* gauge, std::int64_t value) { gauge->Set(static_cast<double>(value)); };
  const std::scoped_lock lock(m.status_mutex);
  const auto grow = [](Counter* counter, std::int64_t value, std::int64_t last) {
    counter->Increment(static_cast<double>(value - last));
  };
  const std::int64_t used = s.kv_bytes_growing + s.kv_bytes_constant + s.kv_bytes_prefix_cache;
  set(m.running, s.prefilling + s.decoding), set(m.waiting, s.queued), set(m.sequences, s.sequences);
  set(m.growing, s.kv_bytes_growing), set(m.constant, s.kv_bytes_constant), set(m.cache, s.kv_bytes_prefix_cache);
  set(m.reserved, s.kv_bytes_reserved), set(m.budget, s.kv_budget_bytes);
  m.kv_usage->Set(s.kv_budget_bytes > 0 ? static_cast<double>(used) / static_cast<double>(s.kv_budget_bytes) : 0);
  grow(m.queries, s.prefix_queries, m.last_status.prefix_queries);
  grow(m.hits, s.prefix_hits, m.last_status.prefix_hits);
  grow(m.reused, s.prefix_tokens_reused, m.last_status.prefix_tokens_reused);
  grow(m.steps, s.steps, m.last_status.steps);
  m.last_status = s;
}

std::string Metrics::text() const { return prometheus::TextSerializer().Serialize(impl_->registry.Collect()); }

}  // namespace photon
