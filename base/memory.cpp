#include "base/memory.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <utility>

#include "base/error.h"

namespace photon {
namespace {

constexpr std::int64_t unlimited = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t huge_page = std::int64_t{2} << 20;

// The number that a file consists of; `otherwise` where there is none ("max").
std::int64_t number_in(const char* path, std::int64_t otherwise) {
  std::ifstream file(path);
  std::int64_t number = 0;
  return file >> number ? number : otherwise;
}

std::int64_t available_to_system() {
  std::ifstream file("/proc/meminfo");
  for (std::string name, unit; file >> name;) {
    std::int64_t kib = 0;
    file >> kib;
    std::getline(file, unit);
    if (name == "MemAvailable:") return kib << 10;
  }
  return unlimited;
}

std::int64_t available_to_group() {
  const std::int64_t limit = number_in("/sys/fs/cgroup/memory.max", unlimited);
  return limit == unlimited ? unlimited
                            : std::max<std::int64_t>(0, limit - number_in("/sys/fs/cgroup/memory.current", 0));
}

}  // namespace

std::int64_t available_memory() { return std::min(available_to_system(), available_to_group()); }

HugeMemory::HugeMemory(std::int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  mapped_ = static_cast<std::size_t>(bytes + huge_page);  // room to align
  mapping_ = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw Error(
        fmt::format("cannot get {:.2f} GB of memory: {}", static_cast<double>(bytes) * 1e-9, std::strerror(errno)));
  }
  const auto start = (reinterpret_cast<std::uintptr_t>(mapping_) + huge_page - 1) / huge_page * huge_page;
  data_ = reinterpret_cast<std::byte*>(start);
  ::madvise(data_, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);  // a wish: it also works without
}

HugeMemory::HugeMemory(HugeMemory&& other) noexcept { *this = std::move(other); }

HugeMemory& HugeMemory::operator=(HugeMemory&& other) noexcept {
  std::swap(data_, other.data_), std::swap(bytes_, other.bytes_);
  std::swap(mapping_, other.mapping_), std::swap(mapped_, other.mapped_);
  return *this;
}

HugeMemory::~HugeMemory() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapped_);
}

void release_pages(std::byte* data, std::int64_t bytes) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(data) + page - 1) / page * page,
             end = (reinterpret_cast<std::uintptr_t>(data) + static_cast<std::uintptr_t>(bytes)) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::byte* Arena::allocate(std::int64_t bytes) {
  constexpr std::int64_t alignment = 64;
  bytes = (bytes + alignment - 1) / alignment * alignment;
  if (blocks_.empty() || used_ + bytes > blocks_.back().bytes()) {
    blocks_.emplace_back(std::max(bytes, block_bytes_));
    used_ = 0;
  }
  used_ += bytes;
  return blocks_.back().data() + used_ - bytes;
}

}  // namespace photon
