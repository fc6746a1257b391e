#include "bench/measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "engine/sampler.h"

namespace photon {
namespace {

// Takes a sample: the clock, the traffic and the weights between start and finish.
class Measurement {
 public:
  Measurement(Hierarchy& hierarchy, std::span<Sequence* const> batch, bool with_profile)
      : hierarchy_(hierarchy), batch_(batch), with_profile_(with_profile), kv_(traffic()), work_(hierarchy.work()) {
    hierarchy_.profile().enable(with_profile);
    start_ = Clock::now();
  }
  Sample finish(std::int64_t tokens) const {
    Sample sample{.seconds = std::chrono::duration<double>(Clock::now() - start_).count(), .tokens = tokens};
    if (with_profile_)
      sample.profile.assign(hierarchy_.profile().seconds().begin(), hierarchy_.profile().seconds().end());
    hierarchy_.profile().enable(false);
    sample.kv = traffic() - kv_;
    sample.work = hierarchy_.work() - work_;
    for (const Sequence* s : batch_) sample.kv_bytes += s->kv_bytes_growing() + s->kv_bytes_constant();
    return sample;
  }

 private:
  using Clock = std::chrono::steady_clock;
  KvTraffic traffic() const {
    KvTraffic sum;
    for (const Sequence* s : batch_) sum += s->kv_traffic();
    return sum;
  }

  Hierarchy& hierarchy_;
  std::span<Sequence* const> batch_;
  bool with_profile_;
  KvTraffic kv_;
  Work work_;
  Clock::time_point start_{};
};

std::string hash_of(MatView<const float> logits) {
  std::string bytes;
  for (std::int64_t r = 0; r < logits.rows; ++r) {
    const auto row = std::as_bytes(logits.row(r));
    bytes.append(reinterpret_cast<const char*>(row.data()), row.size());
  }
  return sha256(std::as_bytes(std::span(bytes))).substr(0, 16);
}

std::vector<Sequence*> pointers(std::vector<Sequence>& sequences) {
  std::vector<Sequence*> batch;
  for (Sequence& s : sequences) batch.push_back(&s);
  return batch;
}

}  // namespace

std::string_view to_string(Phases phases) { return phases == Phases::aligned ? "aligned" : "staggered"; }

Phases parse_phases(std::string_view text) {
  for (const Phases phases : {Phases::aligned, Phases::staggered})
    if (text == to_string(phases)) return phases;
  throw InputError(fmt::format("'{}' names no phases; aligned or staggered", text));
}

std::int64_t whole_groups(const Spec& spec, std::int64_t tokens) {
  const std::int64_t group = spec.group_tokens();
  return (tokens + group - 1) / group * group;
}

ModelBench::ModelBench(Model model, std::uint64_t seed) : model_(std::move(model)), hierarchy_(model_), seed_(seed) {}

// The same token at a position, whatever is asked for.
std::vector<std::int32_t> ModelBench::random_tokens(std::int64_t from, std::int64_t to) const {
  std::vector<std::int32_t> tokens;
  for (std::int64_t position = from; position < to; ++position)
    tokens.push_back(
        static_cast<std::int32_t>(Random(seed_, static_cast<std::uint64_t>(position)).below(model_.spec.vocab_size)));
  return tokens;
}

const Sequence& ModelBench::prompt(std::int64_t context) {
  auto after = prompts_.upper_bound(context);
  if (after != prompts_.begin() && std::prev(after)->first == context) return std::prev(after)->second;
  Sequence longer = after == prompts_.begin() ? Sequence(model_, pool_) : std::prev(after)->second.fork();
  hierarchy_.prefill(longer, random_tokens(longer.n_tokens, context));
  return prompts_.emplace(context, std::move(longer)).first->second;
}

std::vector<Sequence> ModelBench::streams_of(const Workload& workload, bool share) {
  const Spec& spec = model_.spec;
  const std::int64_t group = spec.group_tokens();
  const Sequence& common = prompt(workload.context);
  std::vector<Sequence> streams;
  for (std::int64_t b = 0; b < workload.streams; ++b) {
    Sequence& s = streams.emplace_back(common.fork());
    // The prompt itself is never read, so that the first stream may share its pages.
    if (b > 0 && !share) s.unshare();
    if (workload.phases == Phases::staggered)
      hierarchy_.prefill(s, random_tokens(s.n_tokens, s.n_tokens + b * group / workload.streams % group));
    if (workload.protocol == Protocol::recgen) hierarchy_.start_recgen(s);
  }
  return streams;
}

void ModelBench::prepare(const Workload& workload) { prompt(workload.context); }

Sample ModelBench::decode(const Workload& workload, bool with_profile) {
  const auto run = [&](std::vector<Sequence> streams, std::int64_t tokens) {
    const std::vector<Sequence*> batch = pointers(streams);
    return workload.protocol == Protocol::recgen ? decode_recgen(batch, tokens, with_profile)
                                                 : decode_hiergen(batch, tokens, with_profile);
  };
  run(streams_of(workload, /*share=*/true), whole_groups(model_.spec, 1));  // warm-up
  return run(streams_of(workload, /*share=*/false), workload.tokens);
}

Sample ModelBench::decode_hiergen(std::span<Sequence* const> batch, std::int64_t tokens, bool with_profile) {
  MatView<const float> logits = hierarchy_.next_logits(batch);
  std::vector<std::int32_t> chosen(batch.size());
  std::vector<Hierarchy::Extension> extensions;
  for (std::size_t b = 0; b < batch.size(); ++b) extensions.push_back({batch[b], {&chosen[b], 1}});
  const Measurement measurement(hierarchy_, batch, with_profile);
  for (std::int64_t i = 0; i < tokens; ++i) {
    for (std::size_t b = 0; b < batch.size(); ++b) chosen[b] = argmax(logits.row(static_cast<std::int64_t>(b)));
    logits = hierarchy_.step(extensions);
  }
  Sample sample = measurement.finish(tokens * std::ssize(batch));
  sample.logits_hash = hash_of(logits);
  return sample;
}

Sample ModelBench::decode_recgen(std::span<Sequence* const> batch, std::int64_t tokens, bool with_profile) {
  const std::int64_t last = batch.front()->n_tokens + tokens - 1;
  Matrix<float> logits(std::ssize(batch), model_.spec.vocab_size);  // of the last position
  const auto choose = [&](std::size_t b, std::int64_t position, std::span<const float> row) {
    if (position == last) std::ranges::copy(row, logits.row(static_cast<std::int64_t>(b)).begin());
    return argmax(row);
  };
  const Measurement measurement(hierarchy_, batch, with_profile);
  while (batch.front()->n_tokens <= last) hierarchy_.recgen_group(batch, choose);
  Sample sample = measurement.finish(tokens * std::ssize(batch));
  sample.logits_hash = hash_of(logits);
  return sample;
}

Sample ModelBench::prefill(const Workload& workload, bool with_profile) {
  Workload prompt_only = workload;
  prompt_only.protocol = Protocol::hiergen;  // recgen begins after the prompt
  const auto tokens = random_tokens(workload.context, workload.context + workload.tokens);
  const auto run = [&](std::int64_t n_streams) {
    prompt_only.streams = n_streams;
    std::vector<Sequence> streams = streams_of(prompt_only, /*share=*/false);
    const std::vector<Sequence*> batch = pointers(streams);
    MatView<const float> logits{};
    const Measurement measurement(hierarchy_, batch, with_profile);
    for (Sequence* s : batch) {
      hierarchy_.prefill(*s, tokens);
      if (workload.protocol == Protocol::recgen)
        hierarchy_.start_recgen(*s);
      else
        logits = hierarchy_.next_logits({&s, 1});
    }
    Sample sample = measurement.finish(workload.tokens * n_streams);
    if (logits.rows > 0) sample.logits_hash = hash_of(logits);
    return sample;
  };
  if (std::exchange(prefilled_, std::max(prefilled_, workload.tokens)) < workload.tokens) run(1);  // warm-up
  return run(workload.streams);
}

}  // namespace photon
