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
  Measurement(Runner& runner, std::span<Sequence* const> batch, bool with_profile)
      : runner_(runner), batch_(batch), with_profile_(with_profile), kv_(traffic()), work_(runner.work()) {
    runner_.profile().enable(with_profile);
    start_ = Clock::now();
  }
  Sample finish(std::int64_t tokens) const {
    Sample sample{.seconds = std::chrono::duration<double>(Clock::now() - start_).count(), .tokens = tokens};
    if (with_profile_) sample.profile.assign(runner_.profile().seconds().begin(), runner_.profile().seconds().end());
    runner_.profile().enable(false);
    sample.kv = traffic() - kv_;
    sample.work = runner_.work() - work_;
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

  Runner& runner_;
  std::span<Sequence* const> batch_;
  bool with_profile_;
  KvTraffic kv_;
  Work work_;
  Clock::time_point start_{};
};

std::string hash_of(const Matrix<float>& logits) {
  std::string bytes;
  for (std::int64_t r = 0; r < logits.rows(); ++r) {
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

ModelBench::ModelBench(Model model, std::uint64_t seed) : runner_(std::move(model)), seed_(seed) {}

void ModelBench::consume(Sequence& sequence, std::span<const std::int32_t> tokens) {
  const Extension extension{.sequence = &sequence, .tokens = tokens};
  runner_.forward({&extension, 1});
}

// The same token at a position, whatever is asked for.
std::vector<std::int32_t> ModelBench::random_tokens(std::int64_t from, std::int64_t to) const {
  std::vector<std::int32_t> tokens;
  for (std::int64_t position = from; position < to; ++position)
    tokens.push_back(static_cast<std::int32_t>(
        Random(seed_, static_cast<std::uint64_t>(position)).below(runner_.spec().vocab_size)));
  return tokens;
}

const Sequence& ModelBench::prompt(std::int64_t context) {
  auto after = prompts_.upper_bound(context);
  if (after != prompts_.begin() && std::prev(after)->first == context) return std::prev(after)->second;
  Sequence longer = after == prompts_.begin() ? runner_.sequence() : std::prev(after)->second.fork();
  consume(longer, random_tokens(longer.n_tokens, context));
  return prompts_.emplace(context, std::move(longer)).first->second;
}

std::vector<Sequence> ModelBench::streams_of(const Workload& workload, bool share) {
  const std::int64_t group = runner_.spec().group_tokens();
  const Sequence& common = prompt(workload.context);
  std::vector<Sequence> streams;
  for (std::int64_t b = 0; b < workload.streams; ++b) {
    Sequence& s = streams.emplace_back(common.fork());
    // The prompt itself is never read, so that the first stream may share its pages.
    if (b > 0 && !share) s.unshare();
    if (workload.phases == Phases::staggered)
      consume(s, random_tokens(s.n_tokens, s.n_tokens + b * group / workload.streams % group));
    if (workload.protocol == Protocol::recgen) runner_.start_recgen(s);
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
  run(streams_of(workload, /*share=*/true), whole_groups(runner_.spec(), 1));  // warm-up
  return run(streams_of(workload, /*share=*/false), workload.tokens);
}

Sample ModelBench::decode_hiergen(std::span<Sequence* const> batch, std::int64_t tokens, bool with_profile) {
  Matrix<float> logits(std::ssize(batch), runner_.spec().vocab_size);  // of the last position
  const std::int64_t last = batch.front()->n_tokens + tokens;
  std::vector<std::int32_t> chosen(batch.size());
  std::vector<Extension> extensions;
  for (Sequence* s : batch) extensions.push_back({.sequence = s, .logits = Logits::next});
  const auto choose = [&](std::size_t b, std::int64_t, std::span<const float> row) {
    if (batch.front()->n_tokens == last) std::ranges::copy(row, logits.row(static_cast<std::int64_t>(b)).begin());
    chosen[b] = argmax(row);
  };
  runner_.forward(extensions, choose);
  for (std::size_t b = 0; b < batch.size(); ++b) extensions[b].tokens = {&chosen[b], 1};
  const Measurement measurement(runner_, batch, with_profile);
  for (std::int64_t i = 0; i < tokens; ++i) runner_.forward(extensions, choose);
  Sample sample = measurement.finish(tokens * std::ssize(batch));
  sample.logits_hash = hash_of(logits);
  return sample;
}

Sample ModelBench::decode_recgen(std::span<Sequence* const> batch, std::int64_t tokens, bool with_profile) {
  const std::int64_t last = batch.front()->n_tokens + tokens - 1;
  Matrix<float> logits(std::ssize(batch), runner_.spec().vocab_size);  // of the last position
  const auto choose = [&](std::size_t b, std::int64_t position, std::span<const float> row) {
    if (position == last) std::ranges::copy(row, logits.row(static_cast<std::int64_t>(b)).begin());
    return argmax(row);
  };
  const Measurement measurement(runner_, batch, with_profile);
  while (batch.front()->n_tokens <= last) runner_.recgen_group(batch, choose);
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
    const bool recgen = workload.protocol == Protocol::recgen;
    Matrix<float> logits(1, runner_.spec().vocab_size);
    const Measurement measurement(runner_, batch, with_profile);
    for (Sequence* s : batch) {
      const Extension extension{.sequence = s, .tokens = tokens, .logits = recgen ? Logits::none : Logits::next};
      runner_.forward({&extension, 1}, [&](std::size_t, std::int64_t, std::span<const float> row) {
        std::ranges::copy(row, logits.row(0).begin());
      });
      if (recgen) runner_.start_recgen(*s);
    }
    Sample sample = measurement.finish(workload.tokens * n_streams);
    if (!recgen) sample.logits_hash = hash_of(logits);
    return sample;
  };
  if (std::exchange(prefilled_, std::max(prefilled_, workload.tokens)) < workload.tokens) run(1);  // warm-up
  return run(workload.streams);
}

}  // namespace photon
