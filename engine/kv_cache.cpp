#include "engine/kv_cache.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <limits>
#include <utility>

#include "spec/accounting.h"

namespace photon {

KvPool::Page::Page(KvPool& pool, std::byte* data, std::int64_t bytes) : pool_(&pool), data_(data), bytes_(bytes) {
  pool_->bytes_in_use_ += bytes_;
  pool_->peak_bytes_ = std::max(pool_->peak_bytes_, pool_->bytes_in_use_);
  pool_->most_bytes_ = std::max(pool_->most_bytes_, pool_->bytes_in_use_);
}

KvPool::Page::~Page() {
  pool_->bytes_in_use_ -= bytes_;
  pool_->classes_.find(bytes_)->second.free.push_back(data_);
}

std::shared_ptr<KvPool::Page> KvPool::allocate(std::int64_t bytes) {
  SizeClass& pages = classes_[bytes];
  if (pages.free.empty()) {
    pages.free.reserve(pages.n_pages + 1);
    pages.free.push_back(arena_.allocate(bytes));
    ++pages.n_pages;
    ++pages.n_empty;
  }
  auto page = std::make_shared<Page>(*this, pages.free.back(), bytes);
  pages.free.pop_back();
  if (pages.free.size() < pages.n_empty) {
    --pages.n_empty;
    resident_bytes_ += bytes;
    shrink();
  }
  return page;
}

// What lies idle goes back to the system, as far as it is more than was ever in use.
void KvPool::shrink() {
  for (auto& [bytes, pages] : classes_)
    for (; resident_bytes_ > most_bytes_ && pages.n_empty < pages.free.size(); resident_bytes_ -= bytes)
      release_pages(pages.free[pages.n_empty++], bytes);
}

KvCache::KvCache(KvPool& pool, const StackSpec& stack, std::int64_t chunk_positions, DType type, std::int64_t spare)
    : pool_(&pool),
      kind_(stack.span.kind),
      type_(type),
      n_layers_(stack.n_layers),
      n_kv_heads_(stack.n_kv_heads),
      head_dim_(stack.head_dim),
      span_size_(stack.span.size),
      page_positions_(kind_ == Span::Kind::global  ? kv_page_units
                      : kind_ == Span::Kind::chunk ? chunk_positions
                                                   : span_size_ + spare),
      layer_bytes_(n_kv_heads_ * kv_position_bytes(type, head_dim_)) {
  assert(page_positions_ * n_layers_ * layer_bytes_ == page_positions_ * kv_bytes_per_position(stack, type));
  if (!grows()) pages_.push_back(pool_->allocate(page_bytes()));
}

KvCache::KvCache(const KvCache& other)
    : pool_(other.pool_),
      kind_(other.kind_),
      type_(other.type_),
      n_layers_(other.n_layers_),
      n_kv_heads_(other.n_kv_heads_),
      head_dim_(other.head_dim_),
      span_size_(other.span_size_),
      page_positions_(other.page_positions_),
      layer_bytes_(other.layer_bytes_),
      first_(other.first_),
      furthest_(other.furthest_),
      pages_(other.pages_) {}

KvCache KvCache::fork() const {
  KvCache copy(*this);
  if (!grows()) copy.unshare();
  return copy;
}

void KvCache::own(std::shared_ptr<KvPool::Page>& page) {
  if (page.use_count() == 1) return;
  auto copy = pool_->allocate(page_bytes());
  std::memcpy(copy->data(), page->data(), page_bytes());
  page = std::move(copy);
}

void KvCache::unshare() {
  for (auto& page : pages_) own(page);
}

void KvCache::reserve(std::int64_t position) {
  furthest_ = std::max(furthest_, position);
  while (page_of(position) >= pages_.size()) pages_.push_back(pool_->allocate(page_bytes()));
  own(pages_[page_of(position)]);
}

void KvCache::take_back_to(std::int64_t position) {
  if (grows()) pages_.resize(std::min(pages_.size(), position == 0 ? 0 : page_of(position - 1) + 1));
}

std::int64_t KvCache::bytes_to_come(std::int64_t next, std::int64_t end) const {
  if (!grows() || next >= end) return 0;
  std::size_t n = std::max(page_of(end - 1) + 1, pages_.size()) - pages_.size();
  if (page_of(next) < pages_.size() && pages_[page_of(next)].use_count() > 1) ++n;
  return static_cast<std::int64_t>(n) * page_bytes();
}

std::int64_t KvCache::first_visible(std::int64_t position) const {
  switch (kind_) {
    case Span::Kind::window:
    case Span::Kind::stream:
      return std::max(first_, position - span_size_ + 1);
    case Span::Kind::block:
      return position - position % span_size_;
    case Span::Kind::global:
    case Span::Kind::chunk:
      return 0;
  }
  return 0;
}

std::int64_t KvCache::last_together(std::int64_t position) const {
  switch (kind_) {
    case Span::Kind::window:
    case Span::Kind::stream:
      // While the window still begins at the first position, nothing that it shows is overwritten.
      return std::max(position, first_ + span_size_ - 1);
    case Span::Kind::block:
      return position - position % span_size_ + span_size_ - 1;
    case Span::Kind::global:
      return std::numeric_limits<std::int64_t>::max();
    case Span::Kind::chunk:
      return page_positions_ - 1;
  }
  return position;
}

std::byte* KvCache::head_of(std::int64_t layer, std::int64_t head, std::int64_t position) const {
  assert(page_of(position) < pages_.size());
  return pages_[page_of(position)]->data() +
         (layer * n_kv_heads_ + head) * page_positions_ * kv_position_bytes(type_, head_dim_);
}

void KvCache::write(std::int64_t layer, std::int64_t head, std::int64_t position, std::span<const float> k,
                    std::span<const float> v) const {
  assert(std::ssize(k) == head_dim_ && std::ssize(v) == head_dim_);
  kv_store(type_, head_of(layer, head, position), page_positions_, position % page_positions_, k, v);
}

void KvCache::see(std::int64_t layer, std::int64_t head, std::int64_t position, std::vector<KvRun>& runs) const {
  runs.clear();
  for (std::int64_t first = first_visible(position); first <= position;) {
    const std::int64_t slot = first % page_positions_;
    const std::int64_t n = std::min(position - first + 1, page_positions_ - slot);  // up to the page's end
    runs.push_back({.head = head_of(layer, head, first), .slots = page_positions_, .first = slot, .n = n});
    first += n;
  }
}

void KvCache::count(std::int64_t position, std::int64_t layers_attended) {
  traffic_ += {visible(position) * layers_attended * layer_bytes_, n_layers_ * layer_bytes_};
}

}  // namespace photon
