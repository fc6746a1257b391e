#include "engine/kv_cache.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "spec/accounting.h"

namespace photon {

KvPool::Page::Page(KvPool& pool, Matrix<std::byte> memory) : pool_(&pool), memory_(std::move(memory)) {
  pool_->bytes_in_use_ += memory_.cols();
  pool_->peak_bytes_ = std::max(pool_->peak_bytes_, pool_->bytes_in_use_);
}

KvPool::Page::Page(Page&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), memory_(std::move(other.memory_)) {}

KvPool::Page::~Page() {
  if (pool_ == nullptr) return;
  pool_->bytes_in_use_ -= memory_.cols();
  pool_->classes_.find(memory_.cols())->second.free.push_back(std::move(memory_));
}

KvPool::Page KvPool::allocate(std::int64_t bytes) {
  SizeClass& pages = classes_[bytes];
  if (pages.free.empty()) {
    pages.free.reserve(pages.n_pages + 1);
    Page page(*this, Matrix<std::byte>(1, bytes));
    ++pages.n_pages;
    return page;
  }
  auto memory = std::move(pages.free.back());
  pages.free.pop_back();
  return Page(*this, std::move(memory));
}

KvCache::KvCache(KvPool& pool, const StackSpec& stack, std::int64_t chunk_positions, Weight::Type dtype)
    : pool_(&pool),
      kind_(stack.span.kind),
      n_kv_heads_(stack.n_kv_heads),
      head_dim_(stack.head_dim),
      page_positions_(kind_ == Span::Kind::global  ? kv_page_units
                      : kind_ == Span::Kind::chunk ? chunk_positions
                                                   : stack.span.size),
      bytes_per_position_(kv_bytes_per_position(stack, dtype == Weight::Type::f32 ? 4 : 2)) {
  if (!grows()) pages_.push_back(pool_->allocate(page_positions_ * bytes_per_position_));
}

void KvCache::reserve(std::int64_t position) {
  while (page_of(position) >= pages_.size()) pages_.push_back(pool_->allocate(page_positions_ * bytes_per_position_));
}

std::int64_t KvCache::first_visible(std::int64_t position) const {
  switch (kind_) {
    case Span::Kind::window:
    case Span::Kind::stream:
      return std::max(first_, position - page_positions_ + 1);
    case Span::Kind::block:
      return position - position % page_positions_;
    case Span::Kind::global:
    case Span::Kind::chunk:
      return 0;
  }
  return 0;
}

template <class T>
void KvCache::write(std::int64_t layer, std::int64_t head, std::int64_t position, std::span<const float> k,
                    std::span<const float> v) {
  assert(page_of(position) < pages_.size());
  assert(std::ssize(k) == head_dim_ && std::ssize(v) == head_dim_);
  T* const page = reinterpret_cast<T*>(pages_[page_of(position)].data());
  const std::int64_t slot = position % page_positions_;
  const auto store = [&](std::span<const float> from, bool value) {
    const std::span<T> to(page + offset(layer, value, head, slot), from.size());
    if constexpr (std::is_same_v<T, float>)
      std::ranges::copy(from, to.begin());
    else
      kernels().to_bf16(from, to);
  };
  store(k, false);
  store(v, true);
}

template <class T>
void KvCache::see(std::int64_t layer, std::int64_t head, std::int64_t position, std::vector<KvRun<T>>& runs) const {
  runs.clear();
  for (std::int64_t first = first_visible(position); first <= position;) {
    const std::int64_t slot = first % page_positions_;
    const std::int64_t n = std::min(position - first + 1, page_positions_ - slot);  // up to the page's end
    const T* const page = reinterpret_cast<const T*>(pages_[page_of(first)].data());
    runs.push_back({.k = page + offset(layer, false, head, slot),
                    .v = page + offset(layer, true, head, slot),
                    .n = n,
                    .stride = head_dim_});
    first += n;
  }
}

template void KvCache::write<float>(std::int64_t, std::int64_t, std::int64_t, std::span<const float>,
                                    std::span<const float>);
template void KvCache::write<bf16>(std::int64_t, std::int64_t, std::int64_t, std::span<const float>,
                                   std::span<const float>);
template void KvCache::see<float>(std::int64_t, std::int64_t, std::int64_t, std::vector<KvRun<float>>&) const;
template void KvCache::see<bf16>(std::int64_t, std::int64_t, std::int64_t, std::vector<KvRun<bf16>>&) const;

}  // namespace photon
