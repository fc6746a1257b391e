// Properties of the checks: every model that runs right passes, and a number beyond its tolerance is a failure.
#include "eval/selfcheck.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/models_testing.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

class SelfcheckOf : public testing::TestWithParam<NamedSpec> {
 protected:
  SelfcheckOf() { set_threads(1); }
};
INSTANTIATE_TEST_SUITE_P(EverySpec, SelfcheckOf, testing::ValuesIn(tiny_specs()), testing::PrintToStringParamName());

TEST_P(SelfcheckOf, FindsNothingWrongInAnyPrecision) {
  const Spec& spec = GetParam().spec;
  const TestModel folder(spec);
  const auto tokens = random_tokens(70, spec.vocab_size, 4);
  for (const Precision precision : {Precision{}, Precision{DType::bf16, DType::bf16},
                                    Precision{DType::int8, DType::int8}, Precision{DType::int4, DType::f32}}) {
    Engine engine(folder.path(), precision);
    std::vector<Check> checks = check_protocols(engine, tokens);
    EXPECT_EQ(checks.size(), spec.n_levels() > 0 ? 2u : 1u);
    checks.push_back(check_generation(engine, tokens));
    checks.push_back(check_causality(engine, tokens));
    checks.push_back(check_batches(engine, tokens));
    checks.push_back(check_kv_bytes(engine, Protocol::hiergen, tokens));
    if (spec.n_levels() > 0) checks.push_back(check_kv_bytes(engine, Protocol::recgen, tokens));
    if (spec.n_levels() > 1) checks.push_back(check_recgen_state(engine, tokens));
    for (const Check& check : checks) EXPECT_FALSE(check.failed()) << check.name << ": " << check.value << check.detail;
  }
}

TEST(Selfcheck, AnotherModelIsFartherThanRounding) {
  const Spec spec = tiny_spec("paper");
  const TestModel folder(spec, 1), other_folder(spec, 2);
  Engine engine(folder.path()), other(other_folder.path());
  const auto tokens = random_tokens(40, spec.vocab_size, 4);
  EXPECT_FALSE(check_rounding(engine, engine, "nothing", 0, tokens).failed());
  EXPECT_TRUE(check_rounding(engine, other, "everything", 1e-2, tokens).failed());
}

TEST(Selfcheck, BeyondTheToleranceNotANumberOrVacuousFails) {
  EXPECT_FALSE((Check{.name = "", .value = 1, .tolerance = 1, .detail = ""}).failed());
  EXPECT_TRUE((Check{.name = "", .value = std::nextafter(1, 2), .tolerance = 1, .detail = ""}).failed());
  EXPECT_TRUE(
      (Check{.name = "", .value = std::numeric_limits<double>::quiet_NaN(), .tolerance = 1, .detail = ""}).failed());
  EXPECT_TRUE((Check{.name = "", .value = 0, .tolerance = 1, .detail = "", .vacuous = true}).failed());
  EXPECT_FALSE((Check{.name = "", .value = 7, .tolerance = {}, .detail = ""}).failed());
}

}  // namespace
}  // namespace photon
