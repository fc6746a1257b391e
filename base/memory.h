// Large memory: how much the machine has left, and arrays that lie in huge pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace photon {

/// Bytes that this process can still use without swapping: what the system calls available, at most what is left of the
/// control group's limit.  Where neither is known, the largest number there is.
std::int64_t available_memory();

/// Zeroed memory, aligned to huge pages and backed by them where the system has some: reading gigabytes through 4 KiB
/// pages costs a walk of the page table, and a stop of the hardware prefetcher, at every one.  Untouched parts take no
/// memory.
class HugeMemory {
 public:
  HugeMemory() = default;
  explicit HugeMemory(std::int64_t bytes);  ///< @throws Error if the system has not that much
  HugeMemory(HugeMemory&& other) noexcept;
  HugeMemory& operator=(HugeMemory&& other) noexcept;
  ~HugeMemory();

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
  void* mapping_ = nullptr;
  std::size_t mapped_ = 0;
};

/// Gives the physical memory of a range back to the system, as far as it consists of whole pages; its contents are
/// lost, it may be used again.
void release_pages(std::byte* data, std::int64_t bytes);

/// Hands out pieces of a few large HugeMemory blocks; gives them back all at once.
class Arena {
 public:
  explicit Arena(std::int64_t block_bytes = std::int64_t{64} << 20) : block_bytes_(block_bytes) {}
  /// Zeroed, 64-byte aligned, valid as long as the arena.
  std::byte* allocate(std::int64_t bytes);

 private:
  std::int64_t block_bytes_;
  std::vector<HugeMemory> blocks_;
  std::int64_t used_ = 0;  // of the last block
};

}  // namespace photon
