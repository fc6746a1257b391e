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
  Sequence other(*model_, *pool_, n_tokens, protocol);
  other.units = units;
  for (const KvCache& cache : encoders) other.encoders.push_back(cache.fork());
  for (const DecoderState& decoder : decoders) {
    DecoderState& copy = other.decoders.emplace_back(DecoderState{.fed = decoder.fed});
    for (const KvCache& cache : decoder.caches) copy.caches.push_back(cache.fork());
  }
  return other;
}

void Sequence::unshare() {
  for_each_cache(*this, [](KvCache& cache) { cache.unshare(); });
}

std::int64_t Sequence::kv_bytes_growing() const { return kv_bytes(*this, true); }
std::int64_t Sequence::kv_bytes_constant() const { return kv_bytes(*this, false); }

KvTraffic Sequence::kv_traffic() const {
  KvTraffic traffic;
  for_each_cache(*this, [&](const KvCache& cache) { traffic += cache.traffic(); });
  return traffic;
}

}  // namespace photon
