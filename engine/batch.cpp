#include "engine/batch.h"

#include <algorithm>
#include <utility>

namespace photon {

void Batch::step(std::span<Job* const> jobs, std::int64_t prefill_tokens) {
  share_out(jobs, prefill_tokens);
  consume(jobs);
  predict(jobs);
  for (const bool one_by_one : {false, true}) decode_groups(jobs, one_by_one);
  for (Job* job : jobs)
    for (Stream& stream : job->streams()) {
      if (!stream.ended || !stream.sequence) continue;
      Sequence last = job->release(stream);
      if (at_end && job->live()) at_end(*job, stream, std::move(last));
    }
}

// Every prompt gets an equal share; what short ones leave goes to the longer ones.
void Batch::share_out(std::span<Job* const> jobs, std::int64_t prefill_tokens) {
  slices_.clear();
  for (Job* job : jobs)
    if (job->prefilling()) slices_.push_back({.job = job, .tokens = job->next_tokens()});
  if (slices_.empty()) return;
  std::ranges::rotate(slices_, slices_.begin() + static_cast<std::ptrdiff_t>(first_++ % slices_.size()));
  std::ranges::stable_sort(slices_, {}, [](const Slice& s) { return s.tokens.size(); });
  auto left = static_cast<std::size_t>(prefill_tokens), waiting = slices_.size();
  for (Slice& slice : slices_) {
    const std::size_t n = std::min(slice.tokens.size(), left / waiting);  // the last one has the remainder
    slice.tokens = slice.tokens.first(n);
    left -= n, --waiting;
  }
}

void Batch::consume(std::span<Job* const> jobs) {
  extensions_.clear();
  for (Job* job : jobs)
    for (Stream& stream : job->streams())
      if (stream.sequence && stream.sequence->protocol == Protocol::hiergen)
        extensions_.push_back({&*stream.sequence, {&stream.latest, 1}});
  for (const Slice& slice : slices_) {
    const bool to_score = slice.job->request().score_prompt && !slice.tokens.empty();
    if (to_score)
      score(slice);
    else  // also no tokens: an empty prompt begins, too
      extensions_.push_back({&slice.job->prompt(), slice.tokens});
  }
  if (!extensions_.empty()) hierarchy_.consume(extensions_);
  for (const Slice& slice : slices_) {
    auto& stops = slice.job->stops;
    if (stops.empty() || stops.front() != slice.job->prompt().n_tokens) continue;
    stops.pop_front();
    if (at_stop) at_stop(*slice.job);
  }
}

void Batch::score(const Slice& slice) {
  Job& job = *slice.job;
  const std::int64_t first = job.prompt().n_tokens;
  std::vector<TokenLogprob> logprobs;
  try {
    hierarchy_.score(job.prompt(), slice.tokens, [&](std::int64_t position, std::span<const float> logits) {
      require_finite(logits, position);
      logprobs.push_back(token_logprob(logits, slice.tokens[static_cast<std::size_t>(position - first)],
                                       job.request().n_top_logprobs.value_or(0)));
    });
  } catch (const Error&) {
    return job.fail(std::current_exception());
  }
  job.add_prompt_logprobs(logprobs);
}

// The next token of every hiergen stream, and the first of every prompt that is consumed.
void Batch::predict(std::span<Job* const> jobs) {
  sequences_.clear(), rows_.clear();
  for (Job* job : jobs) {
    if (!job->live()) continue;
    for (Stream& stream : job->streams()) {
      if (!stream.sequence || stream.sequence->protocol != Protocol::hiergen) continue;
      if (job->begins_recgen(*stream.sequence)) {
        hierarchy_.start_recgen(*stream.sequence);
      } else {
        sequences_.push_back(&*stream.sequence);
        rows_.push_back({job, &stream});
      }
    }
    if (!job->prefilling() || !job->prompt_consumed()) continue;
    const bool wanted = job->request().n_tokens > 0;
    if (wanted && !job->begins_recgen(job->prompt())) {
      sequences_.push_back(&job->prompt());
      rows_.push_back({job, nullptr});
    } else {
      if (wanted) hierarchy_.start_recgen(job->prompt());
      job->split(hierarchy_.work().weight_bytes_read);
    }
  }
  if (rows_.empty()) return;
  const MatView<const float> logits = hierarchy_.next_logits(sequences_);
  for (std::int64_t r = 0; r < logits.rows; ++r) {
    const auto [job, stream] = rows_[static_cast<std::size_t>(r)];
    if (stream != nullptr) {
      job->count_decoded(1);
      choose(*job, *stream, logits.row(r));
    } else {
      job->split(hierarchy_.work().weight_bytes_read);
      for (Stream& first : job->streams()) choose(*job, first, logits.row(r));
    }
  }
}

void Batch::choose(Job& job, Stream& stream, std::span<const float> logits) {
  TokenLogprob* const logprob = job.wants_logprobs() ? &logprob_ : nullptr;
  stream.latest = job.choose(stream, stream.sequence->n_tokens, logits, {}, sampler_, logprob);
  job.add(stream, stream.latest, logprob);
}

void Batch::decode_groups(std::span<Job* const> jobs, bool one_by_one) {
  sequences_.clear(), rows_.clear();
  for (Job* job : jobs) {
    if (!job->live() || job->request().one_by_one != one_by_one) continue;
    for (Stream& stream : job->streams()) {
      if (!stream.sequence || stream.sequence->protocol != Protocol::recgen) continue;
      sequences_.push_back(&*stream.sequence);
      rows_.push_back({job, &stream});
    }
  }
  if (rows_.empty()) return;
  const Spec& spec = hierarchy_.model().spec;
  const auto group_tokens = static_cast<std::size_t>(spec.chunk_tokens(spec.n_levels())),
             chunk_tokens = static_cast<std::size_t>(spec.chunk_tokens(1));
  for (const auto& [job, stream] : rows_) {
    stream->group.resize(group_tokens);
    if (job->wants_logprobs()) stream->group_logprobs.resize(group_tokens);
  }
  const auto choose_in_group = [&](std::size_t b, std::int64_t position, std::span<const float> logits) {
    const auto& [job, stream] = rows_[b];
    const auto i = static_cast<std::size_t>(position - stream->sequence->n_tokens);
    const auto chunk = std::span(stream->group).subspan(i / chunk_tokens * chunk_tokens, i % chunk_tokens);
    return stream->group[i] = job->choose(*stream, position, logits, chunk, sampler_,
                                          job->wants_logprobs() ? &stream->group_logprobs[i] : nullptr);
  };
  hierarchy_.recgen_group(sequences_, choose_in_group, one_by_one);
  for (const auto& [job, stream] : rows_) {
    job->count_decoded(static_cast<std::int64_t>(group_tokens));
    for (std::size_t i = 0; i < group_tokens; ++i)
      job->add(*stream, stream->group[i], job->wants_logprobs() ? &stream->group_logprobs[i] : nullptr);
  }
}

}  // namespace photon
