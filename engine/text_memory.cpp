#include "engine/text_memory.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "spec/accounting.h"

namespace photon {
namespace {

std::int64_t pages_of(std::int64_t n_tokens) { return (n_tokens + text_page_tokens - 1) / text_page_tokens; }

}  // namespace

TextMemory::TextMemory(KvPool& pool, const Spec& spec)
    : pool_(&pool), id_bytes_(text_bytes_per_token(spec)), occurring_((spec.vocab_size + 63) / 64) {
  assert(id_bytes_ > 0);
}

TextMemory::TextMemory(const TextMemory& other)
    : pool_(other.pool_),
      id_bytes_(other.id_bytes_),
      n_tokens_(other.n_tokens_),
      pages_(other.pages_),
      occurring_(other.occurring_) {}

std::int64_t TextMemory::page_bytes() const { return text_page_tokens * id_bytes_; }

void TextMemory::own(std::shared_ptr<KvPool::Page>& page) {
  if (page.use_count() == 1) return;
  auto copy = pool_->allocate(page_bytes());
  std::memcpy(copy->data(), page->data(), page_bytes());
  page = std::move(copy);
}

void TextMemory::unshare() {
  for (auto& page : pages_) own(page);
}

void TextMemory::append(std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens) {
    const std::int64_t slot = n_tokens_ % text_page_tokens;
    if (pages_of(n_tokens_ + 1) > std::ssize(pages_)) pages_.push_back(pool_->allocate(page_bytes()));
    own(pages_.back());
    std::memcpy(pages_.back()->data() + slot * id_bytes_, &token, id_bytes_);  // the low bytes: little-endian
    occurring_[token / 64] |= std::uint64_t{1} << (token % 64);
    ++n_tokens_;
  }
  traffic_.bytes_written += std::ssize(tokens) * id_bytes_;
}

void TextMemory::take_back_to(std::int64_t n) {
  n_tokens_ = std::min(n_tokens_, n);
  pages_.resize(pages_of(n_tokens_));
}

std::int64_t TextMemory::bytes_to_come(std::int64_t end) const {
  if (end <= n_tokens_) return 0;
  const bool copies = n_tokens_ % text_page_tokens != 0 && pages_.back().use_count() > 1;
  return (pages_of(end) - std::ssize(pages_) + copies) * page_bytes();
}

}  // namespace photon
