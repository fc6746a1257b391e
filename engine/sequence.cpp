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
  return std::span(values_).subspan(static_cast<std::size_t>((unit - first_) * width_),
                                    static_cast<std::size_t>(n * width_));
}

void UnitBuffer::append(MatView<const float> units) {
  for (std::int64_t r = 0; r < units.rows; ++r) append(units.row(r));
}

void UnitBuffer::append(std::span<const float> unit) {
  assert(std::ssize(unit) == width_);
  values_.insert(values_.end(), unit.begin(), unit.end());
  ++end_;
}

void UnitBuffer::skip() {
  values_.clear();
  first_ = ++end_;
}

void UnitBuffer::drop_before(std::int64_t unit) {
  if (unit <= first_) return;
  assert(unit <= end_);
  values_.erase(values_.begin(), values_.begin() + (unit - first_) * width_);
  first_ = unit;
}

Sequence::Sequence(const Model& model, KvPool& pool) : model_(&model), pool_(&pool) {
  const Spec& spec = model.spec;
  const std::int64_t L = spec.n_levels();
  for (std::int64_t l = 0; l <= L; ++l) units.emplace_back(l == L ? -1 : 0, spec.width(l));
  if (spec.trunk)
    encoders.emplace_back(pool, *spec.trunk, 0, model.kv);
  else
    units_of(L).append(model.start);
  for (std::int64_t l = 1; l <= L; ++l) {
    encoders.emplace_back(pool, spec.level(l).encoder, 0, model.kv);
    decoders.emplace_back().caches.push_back(decoder_cache(l));
  }
}

KvCache Sequence::decoder_cache(std::int64_t l) const {
  const LevelSpec& level = model_->spec.level(l);
  return KvCache(*pool_, level.decoder, level.converter_len + level.chunk_size - 1, model_->kv);
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
  for (auto& decoder : sequence.decoders)
    for (auto& cache : decoder.caches) visit(cache);
}

std::int64_t kv_bytes(const Sequence& sequence, bool growing) {
  std::int64_t bytes = 0;
  for_each_cache(sequence, [&](const KvCache& cache) { bytes += cache.grows() == growing ? cache.bytes() : 0; });
  return bytes;
}

}  // namespace

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
  Sequence other(*model_, *pool_, n_tokens, protocol);
  other.units = units;
  for (const KvCache& cache : encoders) other.encoders.push_back(cache.fork());
  for (const DecoderState& decoder : decoders) {
    DecoderState& copy = other.decoders.emplace_back(DecoderState{.fed = decoder.fed});
    if (decoder.fed == 0) continue;
    for (const KvCache& cache : decoder.caches) copy.caches.push_back(cache.fork());
  }
  return other;
}

void Sequence::unshare() {
  for_each_cache(*this, [](KvCache& cache) { cache.unshare(); });
}

std::int64_t Sequence::kv_bytes_growing() const { return kv_bytes(*this, true); }
std::int64_t Sequence::kv_bytes_constant() const { return kv_bytes(*this, false); }

std::int64_t Sequence::kv_bytes_growing_beside(std::span<const Sequence* const> others) const {
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < encoders.size(); ++i) {
    if (!encoders[i].grows()) continue;
    const auto pages = encoders[i].pages();
    for (std::size_t p = 0; p < pages.size(); ++p) {
      const auto holds = [&](const Sequence* other) {
        const auto theirs = other->encoders[i].pages();
        return p < theirs.size() && theirs[p] == pages[p];
      };
      if (!std::ranges::any_of(others, holds)) bytes += pages[p]->bytes();
    }
  }
  return bytes;
}

std::int64_t Sequence::kv_bytes_to_come(Protocol to, std::int64_t begin, std::int64_t end) const {
  const Spec& spec = model_->spec;
  const std::int64_t L = spec.n_levels();
  const auto pages = [&](std::int64_t l, std::int64_t T) {
    const std::int64_t held = l == 0 ? units.front().end() + 1 : units[static_cast<std::size_t>(l)].end();
    return encoders[static_cast<std::size_t>(std::max<std::int64_t>(0, l - 1))].bytes_to_come(held,
                                                                                              units_held(spec, l, T));
  };
  if (spec.trunk) return pages(0, end);
  std::int64_t bytes = pages(L, end);
  if (protocol == Protocol::recgen) return bytes;
  for (std::int64_t l = 1; l < L; ++l) bytes += pages(l, to == Protocol::recgen ? begin : end);
  if (to == Protocol::recgen)
    bytes += std::max<std::int64_t>(0, photon::kv_bytes_constant(spec, to, model_->kv) - kv_bytes_constant());
  return bytes;
}

void Sequence::for_each_page(const std::function<void(const std::shared_ptr<KvPool::Page>&)>& visit) const {
  for_each_cache(*this, [&](const KvCache& cache) { std::ranges::for_each(cache.pages(), visit); });
}

KvTraffic Sequence::kv_traffic() const {
  KvTraffic traffic;
  for_each_cache(*this, [&](const KvCache& cache) { traffic += cache.traffic(); });
  return traffic;
}

}  // namespace photon
