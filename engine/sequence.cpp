#include "engine/sequence.h"

#include <algorithm>
#include <cassert>

namespace photon {

GroupLayout::GroupLayout(const LevelSpec& level)
    : R(level.converter_len),
      C(level.chunk_size),
      stream(level.decoder.span.kind == Span::Kind::stream),
      reach(stream ? level.decoder.n_layers * (level.decoder.span.size - 1) : 0) {}

std::int64_t GroupLayout::content_from(std::int64_t row) const {
  return row / period() * C + std::max<std::int64_t>(0, row % period() - R);
}

std::int64_t GroupLayout::replay_from(std::int64_t row) const {
  return start_of(std::max<std::int64_t>(0, row - reach) / period());
}

std::span<const float> UnitBuffer::at(std::int64_t unit, std::int64_t n) const {
  assert(first_ <= unit && unit + n <= end_);
  return std::span(values_).subspan((unit - first_) * width_, n * width_);
}

void UnitBuffer::append(MatView<const float> units) {
  for (std::int64_t r = 0; r < units.rows; ++r) append(units.row(r));
}

void UnitBuffer::append(std::span<const float> unit) {
  assert(std::ssize(unit) == width_);
  values_.insert(values_.end(), unit.begin(), unit.end());
  ++end_;
}

void UnitBuffer::skip(std::int64_t n) {
  if (n == 0) return;
  values_.clear();
  first_ = end_ += n;
}

void UnitBuffer::drop_before(std::int64_t unit) {
  if (unit <= first_) return;
  assert(unit <= end_);
  values_.erase(values_.begin(), values_.begin() + (unit - first_) * width_);
  first_ = unit;
}

void UnitBuffer::drop_from(std::int64_t unit) {
  if (unit >= end_) return;
  first_ = std::min(first_, unit);  // then it is empty
  end_ = unit;
  values_.resize((end_ - first_) * width_);
}

Sequence::Sequence(const Model& model, KvPool& pool, std::int64_t spare_tokens)
    : model_(&model), pool_(&pool), spare_tokens_(spare_tokens) {
  const Spec& spec = model.spec;
  const std::int64_t L = spec.n_levels();
  for (std::int64_t l = 0; l <= L; ++l) units.emplace_back(l == L ? -1 : 0, spec.width(l));
  if (spec.decoder_embedding) decoder_tokens.emplace(0, spec.content_width(1));
  if (spec.trunk)
    for (const StackSpec& stack : spec.trunk->by_cache())
      encoders.emplace_back(pool, stack, 0, model.kv, spare_encoder_positions(spec, 0, spare_tokens));
  else
    units_of(L).append(model.start);
  if (text_bytes_per_token(spec) > 0) text.emplace(pool, spec);
  if (const MemorySpec* memory = spec.token_stack().memory_of(MemorySpec::Kind::units)) {
    const StackSpec one_layer{
        .n_layers = 1, .n_kv_heads = memory->n_kv_heads, .head_dim = spec.token_stack().head_dim, .span = {}};
    remembered_units.emplace(pool, one_layer, 0, model.kv);
  }
  for (std::int64_t l = 1; l <= L; ++l) {
    encoders.emplace_back(pool, spec.level(l).encoder, 0, model.kv, spare_encoder_positions(spec, l, spare_tokens));
    decoders.emplace_back().caches.push_back(decoder_cache(l));
  }
}

KvCache Sequence::decoder_cache(std::int64_t l) const {
  const LevelSpec& level = model_->spec.level(l);
  return KvCache(*pool_, level.decoder, level.converter_len + level.chunk_size - 1, model_->kv,
                 spare_decoder_positions(model_->spec, l, spare_tokens_));
}

std::int64_t DecoderState::begin_of(const GroupLayout& layout, std::int64_t unit) const {
  return std::max(fed, layout.replay_from(layout.row_of(unit)));
}

void DecoderState::take_back_to(const GroupLayout& layout, std::int64_t unit) {
  if (!layout.stream) {  // the cache may hold a later group: this one begins anew
    fed = std::min(fed, layout.start_of(unit / layout.C));
  } else if (const std::int64_t resume = layout.resume_at(unit);
             resume >= exact_from && caches.front().holds_what_sees(resume)) {
    fed = std::min(fed, resume);
  } else {  // what it holds is for later rows alone
    fed = exact_from = 0;
    caches.front().restart(0);
  }
}

void Sequence::advance(std::int64_t n) {
  n_tokens += n;
  furthest_ = std::max(furthest_, n_tokens);
}

std::int64_t Sequence::earliest_after(std::int64_t n) const {
  return std::max<std::int64_t>(0, std::max(furthest_, n_tokens + n) - spare_tokens_);
}

void Sequence::take_back(std::int64_t n) {
  assert(protocol == Protocol::hiergen && 0 <= n && n <= may_take_back());
  if (n == 0) return;
  const Spec& spec = model_->spec;
  n_tokens -= n;
  n_predicted = std::min(n_predicted, n_tokens);
  for (std::int64_t l = 0; l <= spec.n_levels(); ++l) units_of(l).drop_from(n_tokens / spec.chunk_tokens(l));
  if (decoder_tokens) decoder_tokens->drop_from(n_tokens);
  if (text) text->take_back_to(n_tokens);
  if (remembered_units) remembered_units->take_back_to(n_tokens / spec.group_tokens());
  if (spec.trunk)
    for (KvCache& cache : encoders) cache.take_back_to(units_held(spec, 0, n_tokens));
  std::int64_t unit = n_tokens;  // of level l-1: the first that may be predicted again
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l) {
    const GroupLayout layout(spec.level(l));
    encoder(l).take_back_to(units_held(spec, l, n_tokens));
    unit = std::min(unit, n_tokens / spec.chunk_tokens(l - 1));  // nor has it been content yet
    decoder(l).take_back_to(layout, unit);
    unit = layout.group_from(decoder(l).begin_of(layout, unit));
  }
}

void Sequence::keep_top_only() {
  const Spec& spec = model_->spec;
  const std::int64_t L = spec.n_levels();
  for (std::int64_t l = 1; l < L; ++l) encoder(l).release();
  for (std::int64_t l = 1; l <= L; ++l) {
    if (spec.level(l).decoder.span.kind != Span::Kind::chunk) continue;
    const std::int64_t n_groups = spec.chunk_tokens(L) / spec.chunk_tokens(l);
    while (std::ssize(decoder(l).caches) < n_groups) decoder(l).caches.push_back(decoder_cache(l));
  }
  protocol = Protocol::recgen;
}

namespace {

template <class Sequence, class Visit>
void for_each_cache(Sequence& sequence, const Visit& visit) {
  for (auto& cache : sequence.encoders) visit(cache);
  if (sequence.remembered_units) visit(*sequence.remembered_units);
  for (auto& decoder : sequence.decoders)
    for (auto& cache : decoder.caches) visit(cache);
}

std::int64_t kv_bytes(const Sequence& sequence, bool growing) {
  std::int64_t bytes = 0;
  for_each_cache(sequence, [&](const KvCache& cache) { bytes += cache.grows() == growing ? cache.bytes() : 0; });
  return bytes + (growing && sequence.text ? sequence.text->bytes() : 0);
}

}  // namespace

Sequence::Sequence(const Sequence& other, Copy)
    : n_tokens(other.n_tokens),
      n_predicted(other.n_predicted),
      protocol(other.protocol),
      units(other.units),
      decoder_tokens(other.decoder_tokens),
      model_(other.model_),
      pool_(other.pool_),
      spare_tokens_(other.spare_tokens_),
      furthest_(other.furthest_) {}

Sequence Sequence::fork() const {
  Sequence other = fork_to_keep();
  for (std::size_t i = 0; i < decoders.size(); ++i) {
    auto& caches = other.decoders[i].caches;
    const std::size_t n = std::max<std::size_t>(1, decoders[i].caches.size());  // none in what was kept
    while (caches.size() < n) caches.push_back(decoder_cache(static_cast<std::int64_t>(i) + 1));
  }
  return other;
}

Sequence Sequence::fork_to_keep() const {
  Sequence other(*this, Copy());
  for (const KvCache& cache : encoders) other.encoders.push_back(cache.fork());
  if (text) other.text.emplace(text->fork());
  if (remembered_units) other.remembered_units.emplace(remembered_units->fork());
  for (const DecoderState& decoder : decoders) {
    DecoderState& copy =
        other.decoders.emplace_back(DecoderState{.fed = decoder.fed, .exact_from = decoder.exact_from});
    if (decoder.fed == 0) continue;
    for (const KvCache& cache : decoder.caches) copy.caches.push_back(cache.fork());
  }
  return other;
}

void Sequence::unshare() {
  for_each_cache(*this, [](KvCache& cache) { cache.unshare(); });
  if (text) text->unshare();
}

std::int64_t Sequence::kv_bytes_growing() const { return kv_bytes(*this, true); }
std::int64_t Sequence::memory_bytes() const {
  return (text ? text->bytes() : 0) + (remembered_units ? remembered_units->bytes() : 0);
}
std::int64_t Sequence::kv_bytes_constant() const { return kv_bytes(*this, false); }

std::int64_t Sequence::kv_bytes_growing_beside(std::span<const Sequence* const> others) const {
  std::int64_t bytes = 0;
  // pages_of(sequence): those of one growing cache
  const auto add = [&](const auto& pages_of) {
    const auto pages = pages_of(*this);
    for (std::size_t p = 0; p < pages.size(); ++p) {
      const auto holds = [&](const Sequence* other) {
        const auto theirs = pages_of(*other);
        return p < theirs.size() && theirs[p] == pages[p];
      };
      if (!std::ranges::any_of(others, holds)) bytes += pages[p]->bytes();
    }
  };
  for (std::size_t i = 0; i < encoders.size(); ++i)
    if (encoders[i].grows()) add([i](const Sequence& s) { return s.encoders[i].pages(); });
  if (text) add([](const Sequence& s) { return s.text->pages(); });
  if (remembered_units) add([](const Sequence& s) { return s.remembered_units->pages(); });
  return bytes;
}

std::int64_t Sequence::kv_bytes_to_come(Protocol to, std::int64_t begin, std::int64_t end) const {
  const Spec& spec = model_->spec;
  const std::int64_t L = spec.n_levels();
  std::int64_t bytes = text ? text->bytes_to_come(end) : 0;
  if (spec.trunk) {
    for (const KvCache& cache : encoders)
      bytes += cache.bytes_to_come(units.front().end() + 1, units_held(spec, 0, end));
    return bytes;
  }
  const auto pages = [&](std::int64_t l, std::int64_t T) {
    return encoders[l - 1].bytes_to_come(units[l].end(), units_held(spec, l, T));
  };
  bytes += pages(L, end);
  if (remembered_units) bytes += remembered_units->bytes_to_come(units[L].end(), units_held(spec, L, end));
  if (protocol == Protocol::recgen) return bytes;
  for (std::int64_t l = 1; l < L; ++l) bytes += pages(l, to == Protocol::recgen ? begin : end);
  if (to == Protocol::recgen)
    bytes +=
        std::max<std::int64_t>(0, photon::kv_bytes_constant(spec, to, model_->kv, spare_tokens_) - kv_bytes_constant());
  return bytes;
}

void Sequence::for_each_page(const std::function<void(const std::shared_ptr<KvPool::Page>&)>& visit) const {
  for_each_cache(*this, [&](const KvCache& cache) { std::ranges::for_each(cache.pages(), visit); });
  if (text) std::ranges::for_each(text->pages(), visit);
}

KvTraffic Sequence::kv_traffic() const {
  KvTraffic traffic;
  for_each_cache(*this, [&](const KvCache& cache) { traffic += cache.traffic(); });
  if (text) traffic += text->traffic();
  return traffic;
}

}  // namespace photon
