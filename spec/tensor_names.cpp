#include "spec/tensor_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

namespace photon::names {

Stack::Stack(std::string stack_place) : place(std::move(stack_place)), norm(place + ".norm.weight") {}

Block Stack::layer(std::int64_t i) const {
  const auto name = [&](const char* kind) { return fmt::format("{}.layers.{}.{}.weight", place, i, kind); };
  return {.attn_norm = name("attn_norm"),
          .q = name("attn.q"),
          .k = name("attn.k"),
          .v = name("attn.v"),
          .o = name("attn.o"),
          .mlp_norm = name("mlp_norm"),
          .gate = name("mlp.gate"),
          .up = name("mlp.up"),
          .down = name("mlp.down")};
}

Stack trunk() { return Stack("trunk"); }

Memory::Memory(const Spec& spec, MemorySpec::Kind kind) {
  std::string place = spec.trunk ? "trunk.memory" : "levels.1.memory";
  if (spec.token_stack().memory.size() > 1) place += fmt::format(".{}", to_string(kind));
  norm = place + ".norm.weight", k = place + ".k.weight", v = place + ".v.weight";
  offset = place + ".offset.weight", recency = place + ".recency.weight";
}

Level::Level(std::int64_t l)
    : chunker_norm(fmt::format("levels.{}.chunker.norm.weight", l)),
      chunker(fmt::format("levels.{}.chunker.weight", l)),
      chunker_bias(fmt::format("levels.{}.chunker.bias", l)),
      converter(fmt::format("levels.{}.converter.weight", l)),
      converter_bias(fmt::format("levels.{}.converter.bias", l)),
      content_proj(fmt::format("levels.{}.content_proj.weight", l)),
      encoder(fmt::format("levels.{}.encoder", l)),
      decoder(fmt::format("levels.{}.decoder", l)) {}

Place place_of(std::string_view name) {
  Place place;
  name = name.substr(0, name.rfind('.'));  // without "weight" or "bias"
  const auto take = [&name](std::string_view word) {
    const bool found = name.starts_with(word) && name.substr(word.size()).starts_with('.');
    if (found) name.remove_prefix(word.size() + 1);
    return found;
  };
  const auto take_number = [&name] {
    std::int64_t number = 0;
    const char* const end = std::from_chars(name.data(), name.data() + name.size(), number).ptr;
    name.remove_prefix(std::min(name.size(), static_cast<std::size_t>(end - name.data()) + 1));  // with the dot
    return number;
  };
  if (take("levels")) place.level = take_number();
  for (const char* stack : {"encoder", "decoder", "trunk"})
    if (take(stack)) place.stack = stack;
  if (!place.stack.empty() && take("layers")) take_number();
  place.kind = name;
  return place;
}

std::string part_of(std::string_view name) {
  const Place place = place_of(name);
  const std::string_view part = place.stack.empty() ? place.kind.substr(0, place.kind.find('.')) : place.stack;
  if (place.stack == "trunk" && place.kind.starts_with("memory.")) return "trunk memory";
  return place.level > 0 ? fmt::format("level {} {}", place.level, part) : std::string(part);
}

bool is_norm(std::string_view name) { return place_of(name).kind.ends_with("norm"); }

bool is_bias(std::string_view name) { return name.ends_with(".bias"); }

bool is_memory_scalar(std::string_view name) {
  const std::string_view kind = place_of(name).kind;
  return kind.starts_with("memory.") && (kind.ends_with(".offset") || kind.ends_with(".recency"));
}

bool is_residual_output(const Place& place) { return place.kind == "attn.o" || place.kind == "mlp.down"; }

const StackSpec* stack_of(const Place& place, const Spec& spec) {
  if (place.stack == "trunk") return spec.trunk ? &*spec.trunk : nullptr;
  if (place.stack.empty() || place.level < 1 || place.level > spec.n_levels()) return nullptr;
  return place.stack == "encoder" ? &spec.level(place.level).encoder : &spec.level(place.level).decoder;
}

}  // namespace photon::names
