#include "engine/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/memory.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

double per_second(std::int64_t n, double ms) { return ms > 0 ? static_cast<double>(n) * 1e3 / ms : 0; }

class Stopwatch {
 public:
  double ms() const { return std::chrono::duration<double, std::milli>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

// One continuation: what has come out so far, and whether more is wanted.
class Stream {
 public:
  Stream(std::span<const std::int32_t> prompt, const GenerateOptions& options, std::int32_t eos, std::size_t id,
         const Engine::OnToken& on_token, Sequence sequence)
      : options_(options),
        eos_(eos),
        id_(id),
        on_token_(on_token),
        text_(prompt.begin(), prompt.end()),
        n_prompt_(prompt.size()),
        sampler_(options.sampler),
        sequence_(std::move(sequence)) {}

  bool wants_more() const { return !ended_ && n_generated() < options_.n_tokens; }
  void add(std::int32_t token) {
    if (!wants_more()) return;  // the rest of a group
    if (token == eos_ && !options_.ignore_eos) {
      ended_ = stopped_at_eos_ = true;
      return;
    }
    text_.push_back(token);
    if (on_token_ && !on_token_(id_, token)) ended_ = true;
  }
  std::int32_t sample(std::span<const float> logits, std::span<const std::int32_t> before, std::int64_t position) {
    return sampler_.sample(logits, before, id_, position);
  }
  Sequence& sequence() { return sequence_; }
  std::int64_t n_generated() const { return std::ssize(text_) - static_cast<std::int64_t>(n_prompt_); }
  std::span<const std::int32_t> text() const { return text_; }  // prompt and what followed
  Continuation result() const {
    return {.tokens = {text_.begin() + static_cast<std::ptrdiff_t>(n_prompt_), text_.end()},
            .stopped_at_eos = stopped_at_eos_};
  }

  std::int32_t latest = 0;           // hiergen: the latest
  std::vector<std::int32_t> group;   // recgen: the tokens of the group in progress
  std::vector<std::int32_t> recent;  // and what the repetition penalty sees there

 private:
  const GenerateOptions& options_;
  std::int32_t eos_;
  std::size_t id_;
  const Engine::OnToken& on_token_;
  std::vector<std::int32_t> text_;
  std::size_t n_prompt_;
  bool ended_ = false, stopped_at_eos_ = false;
  Sampler sampler_;
  Sequence sequence_;
};

// All continuations of one prompt in step: hiergen token by token; for recgen whole groups from the first boundary on.
class Generator {
 public:
  Generator(const Model& model, KvPool& pool, Hierarchy& hierarchy, std::span<const std::int32_t> prompt,
            const GenerateOptions& options, const Engine::OnToken& on_token)
      : options_(options),
        hierarchy_(hierarchy),
        chunk_tokens_(model.spec.chunk_tokens(std::min<std::int64_t>(1, model.spec.n_levels()))),
        group_tokens_(model.spec.chunk_tokens(model.spec.n_levels())) {
    Sequence first(model, pool);
    hierarchy_.prefill(first, prompt);
    const bool at_group = begins_recgen(first);
    if (at_group) {
      hierarchy_.start_recgen(first);
    } else if (options.n_tokens > 0) {
      Sequence* const batch[] = {&first};
      const MatView<const float> logits = hierarchy_.next_logits(batch);
      logits_.assign(logits.row(0).begin(), logits.row(0).end());
    }
    const auto eos = static_cast<std::int32_t>(model.spec.eos_token_id);
    for (std::int64_t i = 0; i < options.n_continuations; ++i) {
      const bool last = i + 1 == options.n_continuations;
      streams_.emplace_back(prompt, options, eos, static_cast<std::size_t>(i), on_token,
                            last ? std::move(first) : first.fork());
    }
    for (Stream& stream : streams_) active_.push_back(&stream);
    if (!at_group) n_in_prefill_ = n_computed_ = options.n_tokens > 0;
  }

  void run() {
    drop_finished();
    if (!active_.empty() && active_.front()->sequence().protocol == Protocol::hiergen) {
      for (Stream* stream : active_) choose(*stream, logits_);  // all from the prompt's logits
      drop_finished();
    }
    while (!active_.empty()) {
      active_.front()->sequence().protocol == Protocol::hiergen ? tokens() : groups();
      drop_finished();
    }
  }
  std::deque<Stream>& streams() { return streams_; }
  /// Tokens whose logits were computed, and how many of them with the prefill.
  std::int64_t n_computed() const { return n_computed_; }
  std::int64_t n_in_prefill() const { return n_in_prefill_; }

 private:
  bool begins_recgen(const Sequence& sequence) const {
    return options_.protocol == Protocol::recgen && sequence.n_tokens % group_tokens_ == 0;
  }
  void drop_finished() {
    std::erase_if(active_, [](const Stream* stream) { return !stream->wants_more(); });
    batch_.clear();
    for (Stream* stream : active_) batch_.push_back(&stream->sequence());
  }
  void choose(Stream& stream, std::span<const float> logits) {
    stream.latest = stream.sample(logits, stream.text(), stream.sequence().n_tokens);
    stream.add(stream.latest);
  }

  // hiergen: every continuation consumes its latest token and gets the next one.
  void tokens() {
    extensions_.clear();
    for (Stream* stream : active_) extensions_.push_back({&stream->sequence(), {&stream->latest, 1}});
    hierarchy_.consume(extensions_);
    if (begins_recgen(*batch_.front())) {  // in step: all are there
      for (Sequence* sequence : batch_) hierarchy_.start_recgen(*sequence);
      return;
    }
    const MatView<const float> logits = hierarchy_.next_logits(batch_);
    n_computed_ += logits.rows;
    for (std::int64_t r = 0; r < logits.rows; ++r) choose(*active_[static_cast<std::size_t>(r)], logits.row(r));
  }

  // recgen: every continuation decodes a whole group.
  void groups() {
    const std::int64_t first = batch_.front()->n_tokens;
    for (Stream* stream : active_) stream->group.resize(static_cast<std::size_t>(group_tokens_));
    const auto choose = [&](std::size_t b, std::int64_t position, std::span<const float> logits) {
      Stream& stream = *active_[b];
      const std::int64_t i = position - first;
      const auto before = stream.text().last(std::min<std::size_t>(stream.text().size(), repetition_window));
      stream.recent.assign(before.begin(), before.end());
      stream.recent.insert(stream.recent.end(), stream.group.begin() + i / chunk_tokens_ * chunk_tokens_,
                           stream.group.begin() + i);
      return stream.group[static_cast<std::size_t>(i)] = stream.sample(logits, stream.recent, position);
    };
    hierarchy_.recgen_group(batch_, choose, options_.one_by_one);
    n_computed_ += group_tokens_ * std::ssize(batch_);
    for (Stream* stream : active_)
      for (const std::int32_t token : stream->group) stream->add(token);
  }

  const GenerateOptions& options_;
  Hierarchy& hierarchy_;
  std::int64_t chunk_tokens_, group_tokens_;  // C_1, C_≤L
  std::deque<Stream> streams_;
  std::vector<Stream*> active_;  // those that want more, and their sequences
  std::vector<Sequence*> batch_;
  std::vector<Hierarchy::Extension> extensions_;
  std::vector<float> logits_;  // [V] after the prompt
  std::int64_t n_computed_ = 0, n_in_prefill_ = 0;
};

std::string gb(std::int64_t bytes) { return fmt::format("{:.3f} GB", static_cast<double>(bytes) * 1e-9); }

}  // namespace

void check(const GenerateOptions& options) {
  if (options.n_tokens < 0) throw InputError(fmt::format("-n is {}, must be 0 or more", options.n_tokens));
  if (options.n_continuations < 1)
    throw InputError(fmt::format("--n is {}, must be 1 or more", options.n_continuations));
  if (options.kv_budget_bytes < 0)
    throw InputError(fmt::format("the KV budget is {} bytes, must be 0 or more", options.kv_budget_bytes));
  check(options.sampler);
}

double GenerateStats::prefill_tokens_per_s() const { return per_second(prompt_tokens, prefill_ms); }
double GenerateStats::decode_tokens_per_s() const { return per_second(decode_tokens, decode_ms); }
double GenerateStats::decode_gb_per_s() const {
  return per_second(decode_weight_bytes_read + decode_kv.bytes_read + decode_kv.bytes_written, decode_ms) * 1e-9;
}

Engine::Engine(const std::filesystem::path& folder, const Precision& precision)
    : model_(load_model(folder, precision)), hierarchy_(model_) {}

void Engine::check_tokens(std::span<const std::int32_t> tokens) const {
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= spec().vocab_size)
      throw InputError(fmt::format("token {} of the input is {}, the model's ids are 0 to {}", i + 1, tokens[i],
                                   spec().vocab_size - 1));
}

void Engine::check_protocol(Protocol protocol) const {
  if (protocol == Protocol::recgen && spec().n_levels() == 0)
    throw InputError("--protocol recgen needs a model with levels, this one is vanilla; use hiergen");
}

// The caches at their fullest: pages of whole prompts are shared, everything else each continuation has for itself.
void Engine::check_memory(std::int64_t n_prompt, const GenerateOptions& options) const {
  const std::int64_t context = n_prompt + options.n_tokens;
  if (n_prompt > max_context || options.n_tokens > max_context || context > max_context)
    throw InputError(fmt::format("{} tokens of prompt and -n {} are more than the longest context, {} tokens", n_prompt,
                                 options.n_tokens, max_context));
  const auto bytes_at = [&](std::int64_t T) { return kv_bytes_allocated(spec(), options.protocol, T, model_.kv); };
  const std::int64_t own =
      bytes_at(context) - bytes_at(n_prompt) + kv_bytes_constant(spec(), options.protocol, model_.kv);
  const std::int64_t budget = options.kv_budget_bytes > 0 ? options.kv_budget_bytes : available_memory();
  const double wanted =
      static_cast<double>(bytes_at(n_prompt)) + static_cast<double>(own) * static_cast<double>(options.n_continuations);
  if (wanted > static_cast<double>(budget))
    throw InputError(
        fmt::format("{} continuation{} of {} tokens of prompt and -n {} can take {:.3f} GB of KV cache, {} {}; "
                    "use fewer tokens, fewer continuations or a smaller KV type",
                    options.n_continuations, options.n_continuations == 1 ? "" : "s", n_prompt, options.n_tokens,
                    wanted * 1e-9, options.kv_budget_bytes > 0 ? "the budget is" : "the machine has left", gb(budget)));
}

Generation Engine::generate(std::span<const std::int32_t> prompt, const GenerateOptions& options,
                            const OnToken& on_token) {
  check_tokens(prompt);
  check(options);
  check_protocol(options.protocol);
  check_memory(std::ssize(prompt), options);

  pool_.reset_peak();
  const Stopwatch prefill;
  Generator generator(model_, pool_, hierarchy_, prompt, options, on_token);
  GenerateStats stats{.prompt_tokens = std::ssize(prompt), .prefill_ms = prefill.ms()};
  // Forks count their traffic from 0, so the prompt's is that of the last continuation, which is no fork.
  stats.prefill_kv = generator.streams().back().sequence().kv_traffic();
  const std::int64_t weights_of_prefill = hierarchy_.work().weight_bytes_read;

  const Stopwatch decode;
  generator.run();
  stats.decode_ms = decode.ms();
  stats.decode_weight_bytes_read = hierarchy_.work().weight_bytes_read - weights_of_prefill;
  stats.decode_tokens = generator.n_computed() - generator.n_in_prefill();

  Generation generation;
  KvTraffic all;
  for (Stream& stream : generator.streams()) {
    Sequence& sequence = stream.sequence();
    all += sequence.kv_traffic();
    stats.generated_tokens += stream.n_generated();
    stats.context_tokens = std::max(stats.context_tokens, sequence.n_tokens);
    stats.kv_bytes_constant += sequence.kv_bytes_constant();
    generation.continuations.push_back(stream.result());
  }
  stats.decode_kv = all - stats.prefill_kv;
  stats.kv_bytes_growing = pool_.bytes_in_use() - stats.kv_bytes_constant;
  stats.kv_bytes_peak = pool_.peak_bytes();
  generation.stats = stats;
  return generation;
}

Score Engine::score(std::span<const std::int32_t> tokens, Protocol protocol) {
  return std::move(score(std::span(&tokens, 1), protocol).front());
}

std::vector<Score> Engine::score(std::span<const std::span<const std::int32_t>> texts, Protocol protocol) {
  for (const auto& tokens : texts) check_tokens(tokens);
  check_protocol(protocol);
  std::vector<Score> scores(texts.size());
  const auto visit = [&](std::size_t b, std::int64_t position, std::span<const float> logits) {
    require_finite(logits, position);
    const auto i = static_cast<std::size_t>(position);
    scores[b].logprobs[i] = logits[static_cast<std::size_t>(texts[b][i])] - kernels().log_sum_exp(logits);
    scores[b].argmax[i] = argmax(logits);
  };
  std::deque<Sequence> sequences;
  std::vector<Hierarchy::Extension> batch;
  for (std::size_t b = 0; b < texts.size(); ++b) {
    scores[b].logprobs.resize(texts[b].size());
    scores[b].argmax.resize(texts[b].size());
    if (protocol == Protocol::hiergen) {
      Sequence sequence(model_, pool_);
      hierarchy_.score(sequence, texts[b], std::bind_front(visit, b));
    } else {
      batch.push_back({&sequences.emplace_back(model_, pool_), texts[b]});
    }
  }
  hierarchy_.score_recgen(batch, visit);
  return scores;
}

}  // namespace photon
