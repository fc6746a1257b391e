#include "base/table.h"

#include <gtest/gtest.h>

namespace photon {
namespace {

using Align = TextTable::Align;

TEST(TextTable, AlignsColumnsAndFactorsConstantOnesOut) {
  TextTable table;
  table.add({.header = "model", .align = Align::left, .cells = {"a", "bcdefg"}});
  table.add({.header = "dtype", .factor_out = true, .cells = {"bf16", "bf16"}});
  table.add({.header = "n", .cells = {"1", "1"}});
  table.add({.header = "speed", .factor_out = true, .cells = {"1234567", "8"}});
  EXPECT_EQ(table.text(),
            "dtype bf16\n"
            "model   n    speed\n"
            "a       1  1234567\n"
            "bcdefg  1        8\n");
}

TEST(TextTable, KeepsAllColumnsOfASingleRow) {
  TextTable table;
  table.add({.header = "dtype", .factor_out = true, .cells = {"bf16"}});
  EXPECT_EQ(table.text(), "dtype\n bf16\n");
}

TEST(ShortNumber, KeepsAboutThreeDigits) {
  EXPECT_EQ(short_number(12345.6), "12346");
  EXPECT_EQ(short_number(99.96), "100");
  EXPECT_EQ(short_number(99.94), "99.9");
  EXPECT_EQ(short_number(1.234), "1.23");
  EXPECT_EQ(short_number(0.01234), "0.0123");
}

}  // namespace
}  // namespace photon
