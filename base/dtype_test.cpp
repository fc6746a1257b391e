#include "base/dtype.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace photon {
namespace {

TEST(DType, NamesRoundTripAndOthersAreRefusedWithTheList) {
  for (const auto type : {DType::f32, DType::bf16, DType::int8, DType::int4})
    EXPECT_EQ(parse_dtype(to_string(type)), type);
  try {
    parse_dtype("int5");
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("'int5'"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("f32, bf16, int8 and int4"), std::string::npos);
  }
}

}  // namespace
}  // namespace photon
