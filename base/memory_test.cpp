#include "base/memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"

namespace photon {
namespace {

TEST(HugeMemory, IsZeroedAlignedAndMovable) {
  HugeMemory memory(5'000'000);
  ASSERT_EQ(reinterpret_cast<std::uintptr_t>(memory.data()) % (2 << 20), 0u);
  for (std::int64_t i = 0; i < memory.bytes(); i += 997) ASSERT_EQ(memory.data()[i], std::byte{0});
  memory.data()[memory.bytes() - 1] = std::byte{7};
  HugeMemory moved = std::move(memory);
  EXPECT_EQ(moved.data()[moved.bytes() - 1], std::byte{7});
  EXPECT_EQ(HugeMemory().data(), nullptr);
}

TEST(HugeMemory, RefusesWhatNoMachineHas) { EXPECT_THROW(HugeMemory(std::int64_t{1} << 60), Error); }

TEST(Arena, PiecesAreApartAndAligned) {
  Arena arena(1000);
  std::vector<std::byte*> pieces;
  for (const std::int64_t bytes : {1, 64, 65, 3000, 900, 1}) {
    pieces.push_back(arena.allocate(bytes));
    ASSERT_EQ(reinterpret_cast<std::uintptr_t>(pieces.back()) % 64, 0u);
    std::memset(pieces.back(), static_cast<int>(pieces.size()), static_cast<std::size_t>(bytes));
  }
  for (std::size_t i = 0; i < pieces.size(); ++i) EXPECT_EQ(*pieces[i], static_cast<std::byte>(i + 1));
}

TEST(AvailableMemory, IsPlausible) {
  EXPECT_GT(available_memory(), 1 << 20);
  const HugeMemory untouched(std::int64_t{1} << 34);  // takes nothing until it is touched
  EXPECT_GT(available_memory(), 1 << 20);
}

}  // namespace
}  // namespace photon
