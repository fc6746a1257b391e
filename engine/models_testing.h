// Tiny models for tests: every number of levels, span, chunker and awkward size, with shaken weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "spec/spec.h"
#include "weights/model_folder.h"

namespace photon {

struct NamedSpec {
  std::string name;
  Spec spec;
};
inline std::ostream& operator<<(std::ostream& out, const NamedSpec& s) { return out << s.name; }

/// L = 0, 1, 2, 3; C such as (4,4), (4,2), (3,5,2); R 1, 2, 4; head_dim 52 and odd; grouped queries; D_0 unlike the
/// widths; both chunkers; tied and untied heads; every span.
std::vector<NamedSpec> tiny_specs();
Spec tiny_spec(const std::string& name);

/// A model folder with shaken weights, removed at the end.
class TestModel {
 public:
  explicit TestModel(const Spec& spec, std::uint64_t seed = 1, DType dtype = DType::f32);
  TestModel(const TestModel&) = delete;
  TestModel& operator=(const TestModel&) = delete;
  ~TestModel();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::vector<std::int32_t> random_tokens(std::int64_t n, std::int64_t vocab_size, std::uint64_t seed);

}  // namespace photon
