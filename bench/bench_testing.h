// For the tests of `photon bench`: what it measures, as small as it gets.
#pragma once

#include <string>

#include "bench/plan.h"
#include "engine/models_testing.h"

namespace photon::testing_support {

inline BenchSource source_of(const std::string& name, DType dtype = DType::f32) {
  return {.path = name + ".json", .spec = tiny_spec(name), .dtype = dtype, .kv = DType::f32};
}

}  // namespace photon::testing_support
