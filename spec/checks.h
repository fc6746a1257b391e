// Problems of a spec, collected while it is read and while it is checked: each with its place, one mistake told once.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <initializer_list>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "spec/spec.h"

namespace photon {

std::string level_place(std::int64_t l);                   // "level 2"
std::string encoder_place(std::int64_t l);                 // "level 2 encoder"
std::string decoder_place(std::int64_t l);                 // "level 2 decoder"
std::string memory_place(const std::string& stack_place);  // "level 1 decoder memory"

/// A field that could not be read, or is out of range, is bad: checks that need it stay silent.  Places name an object;
/// "" is the whole config.
class Problems {
 public:
  void add(const std::string& place, const std::string& text) {
    list_.push_back(place.empty() ? text : fmt::format("{}: {}", place, text));
  }
  void add_bad(const std::string& place, const std::string& field, const std::string& text) {
    add(place, text);
    mark_bad(place, field);
  }
  void mark_bad(const std::string& place, const std::string& field) { bad_.insert({place, field}); }
  void mark_stack_bad(const std::string& place) {
    for (const char* field : {"d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "rope_theta", "span"})
      mark_bad(place, field);
  }
  bool good(const std::string& place, std::initializer_list<const char*> fields) const {
    for (const char* field : fields)
      if (bad_.contains({place, field})) return false;
    return true;
  }
  bool all_good() const { return bad_.empty(); }
  std::vector<std::string> take() { return std::move(list_); }

 private:
  std::vector<std::string> list_;
  std::set<std::pair<std::string, std::string>> bad_;
};

/// Adds what keeps a spec from being a model.
void check(const Spec& spec, Problems& problems);

}  // namespace photon
