// Specs as config.json: strict parsing, which reports every problem at once, and writing.
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "base/file.h"
#include "spec/checks.h"
#include "spec/spec.h"

namespace photon {
namespace {

using nlohmann::json;

constexpr std::int64_t max_config_bytes = 1 << 20;
constexpr std::size_t max_json_depth = 16;

std::string in_quotes(std::string_view text) {
  constexpr std::size_t shown = 40;
  const bool cut = text.size() > shown;
  return json(std::string(text.substr(0, shown))).dump(-1, ' ', true, json::error_handler_t::replace) +
         (cut ? "…" : "");
}

// Follows the parser to know the place of every key: nlohmann keeps only the last of two equal ones.
class DuplicateKeys {
 public:
  explicit DuplicateKeys(Problems& problems) : problems_(problems) {}

  bool operator()(int, json::parse_event_t event, json& parsed) {
    using Event = json::parse_event_t;
    switch (event) {
      case Event::object_start:
      case Event::array_start:
        next_element();
        frames_.emplace_back().is_array = event == Event::array_start;
        if (frames_.size() > max_json_depth)
          throw SpecError(fmt::format("nested deeper than {} levels", max_json_depth));
        break;
      case Event::key:
        frames_.back().key = parsed.get<std::string>();
        if (!frames_.back().seen.insert(frames_.back().key).second)
          problems_.add(place(), fmt::format("{} is given twice", in_quotes(frames_.back().key)));
        break;
      case Event::value:
        next_element();
        break;
      case Event::object_end:
      case Event::array_end:
        frames_.pop_back();
        break;
    }
    return true;
  }

 private:
  struct Frame {
    bool is_array = false;
    std::int64_t index = 0;  // of an array's current element, from 1
    std::string key;         // of an object's current member
    std::set<std::string> seen;
  };
  void next_element() {
    if (!frames_.empty() && frames_.back().is_array) ++frames_.back().index;
  }
  std::string place() const {  // of the innermost object
    std::string result;
    for (std::size_t i = 0; i + 1 < frames_.size(); ++i) {
      if (!result.empty()) result += ' ';
      if (frames_[i].is_array)
        result += std::to_string(frames_[i].index);
      else
        result += i == 0 && frames_[i].key == "levels" ? "level" : frames_[i].key;
    }
    return result;
  }

  Problems& problems_;
  std::vector<Frame> frames_;
};

const char* type_name(const json& value) {
  if (value.is_number()) return "a number";
  if (value.is_boolean()) return "a boolean";
  if (value.is_string()) return "a string";
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  return "null";
}

// One JSON object of the config: hands out members by type and reports those that nobody asked for.
class Reader {
 public:
  Reader(const json& object, std::string place, Problems& problems)
      : object_(object), place_(std::move(place)), problems_(problems) {}
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  const std::string& place() const { return place_; }

  void integer(const char* field, std::int64_t& into) {
    const json* value = member(field);
    if (value == nullptr) return;
    if (value->is_number_float())
      problems_.add_bad(place_, field, fmt::format("{} is {}, must be an integer", field, value->dump()));
    else if (!value->is_number_integer())
      wrong_type(field, *value, "an integer");
    else if (value->is_number_unsigned() && value->get<std::uint64_t>() > INT64_MAX)
      problems_.add_bad(place_, field, fmt::format("{} is {}, far too large", field, value->get<std::uint64_t>()));
    else
      into = value->get<std::int64_t>();
  }
  void number(const char* field, double& into) {
    if (const json* value = member(field)) {
      if (!value->is_number())
        wrong_type(field, *value, "a number");
      else
        into = value->get<double>();
    }
  }
  void boolean(const char* field, bool& into) {
    if (const json* value = member(field)) {
      if (!value->is_boolean())
        wrong_type(field, *value, "true or false");
      else
        into = value->get<bool>();
    }
  }
  /// Where the key is absent, `into` keeps what that means.
  void optional_boolean(const char* field, bool& into) {
    known_.insert(field);
    if (has(field)) boolean(field, into);
  }
  /// One of several words; `into` is its value.
  template <class T>
  void word(const char* field, std::initializer_list<std::pair<const char*, T>> words, T& into) {
    const json* value = member(field);
    if (value == nullptr) return;
    std::string known;
    for (const auto& [text, result] : words) {
      if (value->is_string() && value->get_ref<const std::string&>() == text) {
        into = result;
        return;
      }
      known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", text);
    }
    const std::string got = value->is_string() ? in_quotes(value->get_ref<const std::string&>()) : type_name(*value);
    problems_.add_bad(place_, field,
                      fmt::format("{} is {}, must be {}{}", field, got, words.size() > 1 ? "one of " : "", known));
  }
  const json* list(const char* field) {
    const json* value = optional_member(field);
    if (value == nullptr || value->is_array()) return value;
    wrong_type(field, *value, "a list");
    return nullptr;
  }
  const json* object(const char* field) {
    const json* value = member(field);
    if (value == nullptr || value->is_object()) return value;
    wrong_type(field, *value, "an object");
    return nullptr;
  }
  /// One object, or a list of them; none where the key is absent.
  std::vector<const json*> objects(const char* field) {
    const json* value = optional_member(field);
    std::vector<const json*> found;
    if (value == nullptr) return found;
    if (value->is_object()) return {value};
    if (!value->is_array())
      wrong_type(field, *value, "an object or a list of objects");
    else
      for (const json& entry : *value) {
        if (entry.is_object())
          found.push_back(&entry);
        else
          wrong_type(field, entry, "an object or a list of objects");
      }
    return found;
  }
  void integers(const char* field, std::vector<std::int64_t>& into) {
    const json* value = member(field);
    if (value == nullptr) return;
    if (!value->is_array() || !std::ranges::all_of(*value, [](const json& n) { return n.is_number_integer(); }))
      problems_.add_bad(place_, field, fmt::format("{} is {}, must be a list of integers", field, value->dump()));
    else
      into = value->get<std::vector<std::int64_t>>();
  }
  bool has(const char* field) const { return object_.contains(field); }
  void refuse_other_keys() {
    for (const auto& item : object_.items())
      if (!known_.contains(item.key())) problems_.add(place_, fmt::format("unknown key {}", in_quotes(item.key())));
  }

 private:
  const json* optional_member(const char* field) {
    known_.insert(field);
    const auto found = object_.find(field);
    return found == object_.end() ? nullptr : &*found;
  }
  const json* member(const char* field) {
    const json* value = optional_member(field);
    if (value == nullptr) problems_.add_bad(place_, field, fmt::format("{} is missing", field));
    return value;
  }
  void wrong_type(const char* field, const json& value, const char* wanted) {
    problems_.add_bad(place_, field, fmt::format("{} is {}, must be {}", field, type_name(value), wanted));
  }

  const json& object_;
  std::string place_;
  Problems& problems_;
  std::set<std::string> known_;
};

void read_span(Reader& stack, Span& span, Problems& problems) {
  const json* const object = stack.object("span");
  if (object == nullptr) return;
  Reader reader(*object, stack.place() + " span", problems);
  using enum Span::Kind;
  reader.word<Span::Kind>(
      "kind", {{"global", global}, {"window", window}, {"block", block}, {"chunk", chunk}, {"stream", stream}},
      span.kind);
  if (!problems.good(reader.place(), {"kind"})) {
    problems.mark_bad(stack.place(), "span");
    return;
  }
  if (span.has_size()) reader.integer("size", span.size);
  reader.refuse_other_keys();
}

MemorySpec read_memory(const json& object, const std::string& place, Problems& problems) {
  MemorySpec memory;
  Reader reader(object, place, problems);
  using enum MemorySpec::Kind;
  reader.word<MemorySpec::Kind>("kind", {{"text", text}, {"units", units}}, memory.kind);
  reader.integer("n_kv_heads", memory.n_kv_heads);
  reader.integers("layers", memory.layers);
  if (memory.kind == text) reader.integer("context", memory.context);
  reader.optional_boolean("recency", memory.recency);
  reader.optional_boolean("rope", memory.rope);
  reader.refuse_other_keys();
  return memory;
}

void read_stack(Reader& parent, const char* field, const std::string& place, StackSpec& stack, Problems& problems) {
  const json* const object = parent.object(field);
  if (object == nullptr) {
    problems.mark_stack_bad(place);
    return;
  }
  Reader reader(*object, place, problems);
  reader.integer("d_model", stack.d_model);
  reader.integer("n_layers", stack.n_layers);
  reader.integer("n_heads", stack.n_heads);
  reader.integer("n_kv_heads", stack.n_kv_heads);
  reader.integer("head_dim", stack.head_dim);
  reader.integer("d_ff", stack.d_ff);
  reader.number("rope_theta", stack.rope_theta);
  read_span(reader, stack.span, problems);
  if (reader.has("global_layers")) {
    reader.integers("global_layers", stack.global_layers);
    if (stack.global_layers.empty() && problems.good(place, {"global_layers"}))
      problems.add(place, "global_layers names no block; leave it out if all have the span");
  }
  for (const json* memory : reader.objects("memory"))
    stack.memory.push_back(read_memory(*memory, memory_place(place), problems));
  reader.refuse_other_keys();
}

void read_level(const json& entry, std::int64_t l, LevelSpec& level, Problems& problems) {
  const std::string place = level_place(l);
  if (!entry.is_object()) {
    problems.add(place, fmt::format("is {}, must be an object", type_name(entry)));
    for (const char* field : {"chunk_size", "converter_len", "chunker", "converter_bias"})
      problems.mark_bad(place, field);
    problems.mark_stack_bad(encoder_place(l));
    problems.mark_stack_bad(decoder_place(l));
    return;
  }
  Reader reader(entry, place, problems);
  reader.integer("chunk_size", level.chunk_size);
  reader.integer("converter_len", level.converter_len);
  reader.word<Chunker>("chunker", {{"concat", Chunker::concat}, {"linear", Chunker::linear}}, level.chunker);
  reader.optional_boolean("converter_bias", level.converter_bias);
  reader.optional_boolean("chunker_bias", level.chunker_bias);
  reader.optional_boolean("chunker_norm", level.chunker_norm);
  read_stack(reader, "encoder", encoder_place(l), level.encoder, problems);
  read_stack(reader, "decoder", decoder_place(l), level.decoder, problems);
  reader.refuse_other_keys();
}

Spec read_spec(const json& root, Problems& problems) {
  Spec spec;
  Reader reader(root, "", problems);
  bool is_ours = false;
  reader.word<bool>("format", {{"photon-lm", true}}, is_ours);
  std::int64_t version = 0;
  reader.integer("version", version);
  if (problems.good("", {"version"}) && version != 1)
    problems.add("", fmt::format("version is {}, this program reads version 1", version));
  reader.integer("vocab_size", spec.vocab_size);
  reader.integer("d_embed", spec.d_embed);
  reader.number("norm_eps", spec.norm_eps);
  reader.integer("bos_token_id", spec.bos_token_id);
  reader.integer("eos_token_id", spec.eos_token_id);
  reader.boolean("tie_embeddings", spec.tie_embeddings);
  reader.optional_boolean("decoder_embedding", spec.decoder_embedding);
  reader.optional_boolean("learned_start", spec.learned_start);
  if (const json* const levels = reader.list("levels")) {
    if (static_cast<std::int64_t>(levels->size()) > max_levels) {
      problems.add_bad("", "levels", fmt::format("{} levels, at most {} are possible", levels->size(), max_levels));
    } else {
      spec.levels.resize(levels->size());
      for (std::size_t i = 0; i < levels->size(); ++i)
        read_level((*levels)[i], static_cast<std::int64_t>(i) + 1, spec.levels[i], problems);
    }
  }
  if (reader.has("trunk")) read_stack(reader, "trunk", "trunk", spec.trunk.emplace(), problems);
  reader.refuse_other_keys();
  return spec;
}

nlohmann::ordered_json memory_json(const MemorySpec& m) {
  nlohmann::ordered_json memory{{"kind", to_string(m.kind)}};
  if (m.kind == MemorySpec::Kind::text) memory["context"] = m.context;
  memory["n_kv_heads"] = m.n_kv_heads;
  memory["layers"] = m.layers;
  if (m.recency) memory["recency"] = true;
  if (m.rope) memory["rope"] = true;
  return memory;
}

nlohmann::ordered_json stack_json(const StackSpec& s) {
  nlohmann::ordered_json span{{"kind", to_string(Span{s.span.kind, 0})}};
  if (s.span.has_size()) span["size"] = s.span.size;
  nlohmann::ordered_json stack{
      {"d_model", s.d_model},   {"n_layers", s.n_layers}, {"n_heads", s.n_heads},       {"n_kv_heads", s.n_kv_heads},
      {"head_dim", s.head_dim}, {"d_ff", s.d_ff},         {"rope_theta", s.rope_theta}, {"span", span}};
  if (!s.global_layers.empty()) stack["global_layers"] = s.global_layers;
  std::vector<nlohmann::ordered_json> memories;
  for (const MemorySpec& memory : s.memory) memories.push_back(memory_json(memory));
  if (memories.size() == 1) stack["memory"] = memories.front();
  if (memories.size() > 1) stack["memory"] = memories;
  return stack;
}

[[noreturn]] void refuse(const std::string& origin, const std::vector<std::string>& list) {
  std::string text = fmt::format("{}: not a model, {} problem{}", origin, list.size(), list.size() == 1 ? "" : "s");
  for (const std::string& problem : list) text += "\n  " + problem;
  throw SpecError(text);
}

}  // namespace

Spec parse_spec(std::string_view text, const std::string& origin) {
  Problems problems;
  json root;
  try {
    root = json::parse(text, DuplicateKeys(problems));
  } catch (const json::exception& e) {
    const std::string message = e.what();
    const auto start = message.find("] ");
    refuse(origin, {"not JSON: " + (start == std::string::npos ? message : message.substr(start + 2))});
  } catch (const SpecError& e) {
    refuse(origin, {e.what()});
  }
  if (!root.is_object()) refuse(origin, {fmt::format("is {}, must be an object", type_name(root))});
  Spec spec = read_spec(root, problems);
  check(spec, problems);
  if (const auto list = problems.take(); !list.empty()) refuse(origin, list);
  return spec;
}

Spec load_spec(const std::filesystem::path& file_or_folder) {
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(file_or_folder, ignored);
  const std::filesystem::path file = is_folder ? file_or_folder / "config.json" : file_or_folder;
  return parse_spec(read_text(file, max_config_bytes), file.string());
}

std::string to_json(const Spec& spec) {
  nlohmann::ordered_json root{{"format", "photon-lm"},
                              {"version", 1},
                              {"vocab_size", spec.vocab_size},
                              {"d_embed", spec.d_embed},
                              {"norm_eps", spec.norm_eps},
                              {"bos_token_id", spec.bos_token_id},
                              {"eos_token_id", spec.eos_token_id},
                              {"tie_embeddings", spec.tie_embeddings}};
  if (spec.decoder_embedding) root["decoder_embedding"] = true;
  if (!spec.learned_start) root["learned_start"] = false;
  root["levels"] = nlohmann::ordered_json::array();
  for (const LevelSpec& level : spec.levels) {
    nlohmann::ordered_json entry{{"chunk_size", level.chunk_size}, {"converter_len", level.converter_len}};
    if (level.converter_bias) entry["converter_bias"] = true;
    entry["chunker"] = level.chunker == Chunker::concat ? "concat" : "linear";
    if (level.chunker_bias) entry["chunker_bias"] = true;
    if (level.chunker_norm) entry["chunker_norm"] = true;
    entry["encoder"] = stack_json(level.encoder);
    entry["decoder"] = stack_json(level.decoder);
    root["levels"].push_back(std::move(entry));
  }
  if (spec.trunk) root["trunk"] = stack_json(*spec.trunk);
  return root.dump(2) + "\n";
}

}  // namespace photon
