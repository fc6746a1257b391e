// Specs: strict parsing of config.json, validation that reports every problem at once, and the list of tensors.
#include "spec/spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "base/file.h"

namespace photon {
namespace {

using nlohmann::json;

// Limits far above any use, so that sizes, products and cache bytes stay within int64_t.
constexpr std::int64_t max_dimension = std::int64_t{1} << 24;
constexpr std::int64_t max_head_width = std::int64_t{1} << 20;    // n_heads·head_dim
constexpr std::int64_t max_chunk_tokens = std::int64_t{1} << 16;  // C_≤L
constexpr std::int64_t max_converter_len = std::int64_t{1} << 10;
constexpr std::int64_t max_parameters = std::int64_t{1} << 40;
constexpr std::int64_t max_config_bytes = 1 << 20;
constexpr std::size_t max_json_depth = 16;

std::string level_place(std::int64_t l) { return fmt::format("level {}", l); }
std::string encoder_place(std::int64_t l) { return fmt::format("level {} encoder", l); }
std::string decoder_place(std::int64_t l) { return fmt::format("level {} decoder", l); }

// Collects problems.  A field that could not be read, or is out of range, is bad: checks that need it stay silent, so
// that one mistake is reported once.  Places name an object ("level 2 encoder"; "" is the whole config).
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

// ---- what a model demands ----

void check_range(const std::string& place, const char* field, std::int64_t value, std::int64_t low, std::int64_t high,
                 Problems& problems) {
  if (problems.good(place, {field}) && (value < low || value > high))
    problems.add_bad(place, field, fmt::format("{} is {}, must be {} to {}", field, value, low, high));
}

void check_positive(const std::string& place, const char* field, double value, Problems& problems) {
  if (problems.good(place, {field}) && !(value > 0 && std::isfinite(value)))
    problems.add_bad(place, field, fmt::format("{} is {}, must be a number above 0", field, value));
}

bool has_size(Span::Kind kind) {
  return kind == Span::Kind::window || kind == Span::Kind::block || kind == Span::Kind::stream;
}

void check(const StackSpec& s, const std::string& place, std::initializer_list<Span::Kind> spans,
           const char* spans_text, Problems& problems) {
  check_range(place, "d_model", s.d_model, 1, max_dimension, problems);
  check_range(place, "n_layers", s.n_layers, 1, max_layers, problems);
  check_range(place, "n_heads", s.n_heads, 1, max_head_width, problems);
  check_range(place, "n_kv_heads", s.n_kv_heads, 1, max_head_width, problems);
  check_range(place, "head_dim", s.head_dim, 1, max_head_width, problems);
  check_range(place, "d_ff", s.d_ff, 1, max_dimension, problems);
  check_positive(place, "rope_theta", s.rope_theta, problems);
  if (problems.good(place, {"n_heads", "n_kv_heads"}) && s.n_heads % s.n_kv_heads != 0)
    problems.add(place, fmt::format("n_heads {} is not a multiple of n_kv_heads {}", s.n_heads, s.n_kv_heads));
  if (problems.good(place, {"n_heads", "head_dim"}) && s.q_width() > max_head_width)
    problems.add_bad(place, "head_dim",
                     fmt::format("n_heads {} x head_dim {} is above {}", s.n_heads, s.head_dim, max_head_width));
  if (!problems.good(place, {"span"})) return;
  if (std::find(spans.begin(), spans.end(), s.span.kind) == spans.end())
    problems.add(place, fmt::format("span {} does not fit here, use {}", to_string(s.span), spans_text));
  if (has_size(s.span.kind))
    check_range(place + " span", "size", s.span.size, 1, max_dimension, problems);
  else if (s.span.size != 0)
    problems.add(place + " span", fmt::format("size is {}, but {} has none", s.span.size, to_string(s.span)));
}

void check_chunk_tokens(const Spec& spec, Problems& problems) {
  std::int64_t tokens = 1;
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l) {
    if (!problems.good(level_place(l), {"chunk_size"})) return;
    tokens *= spec.level(l).chunk_size;
    if (tokens > max_chunk_tokens) {
      problems.add_bad(level_place(l), "chunk_size",
                       fmt::format("one unit covers {} tokens, at most {} can be", tokens, max_chunk_tokens));
      return;
    }
  }
}

void check_level(const Spec& spec, std::int64_t l, Problems& problems) {
  const LevelSpec& level = spec.level(l);
  const std::string place = level_place(l), encoder = encoder_place(l), decoder = decoder_place(l);
  using enum Span::Kind;
  check_range(place, "chunk_size", level.chunk_size, 2, max_chunk_tokens, problems);
  check_range(place, "converter_len", level.converter_len, 1, max_converter_len, problems);
  if (l == spec.n_levels())
    check(level.encoder, encoder, {global}, "global (it is the top encoder)", problems);
  else
    check(level.encoder, encoder, {global, window, block}, "global, window or block", problems);
  check(level.decoder, decoder, {chunk, stream}, "chunk or stream", problems);

  const std::string below = l == 1 ? std::string() : encoder_place(l - 1);
  const char* const below_field = l == 1 ? "d_embed" : "d_model";
  if (level.chunker == Chunker::concat && problems.good(place, {"chunk_size", "chunker"}) &&
      problems.good(encoder, {"d_model"}) && problems.good(below, {below_field}) &&
      level.chunk_size * spec.width(l - 1) != spec.width(l))
    problems.add(place,
                 fmt::format("chunker \"concat\" needs chunk_size x width below = encoder d_model, got {} x {} != {}; "
                             "use \"linear\" or change a width",
                             level.chunk_size, spec.width(l - 1), spec.width(l)));
  if (l >= 2 && problems.good(decoder, {"d_model"}) && problems.good(below, {"d_model"}) &&
      level.decoder.d_model != spec.width(l - 1))
    problems.add(
        decoder,
        fmt::format("d_model {} differs from the level {} encoder's {}: its outputs stand for that encoder's units",
                    level.decoder.d_model, l - 1, spec.width(l - 1)));
}

void check_token(const Spec& spec, const char* field, std::int64_t id, Problems& problems) {
  if (problems.good("", {"vocab_size", field})) check_range("", field, id, 0, spec.vocab_size - 1, problems);
}

// In floating point: the products may leave int64_t.
void check_parameters(const Spec& spec, Problems& problems) {
  double total = 0;
  for (const TensorSpec& tensor : tensors(spec)) {
    double elements = 1;
    for (const std::int64_t n : tensor.shape) elements *= static_cast<double>(n);
    total += elements;
  }
  if (total > static_cast<double>(max_parameters))
    problems.add("",
                 fmt::format("the model would have {:.3g} parameters, at most {} are possible", total, max_parameters));
}

void check(const Spec& spec, Problems& problems) {
  check_range("", "vocab_size", spec.vocab_size, 1, max_dimension, problems);
  check_range("", "d_embed", spec.d_embed, 1, max_dimension, problems);
  check_positive("", "norm_eps", spec.norm_eps, problems);
  check_token(spec, "bos_token_id", spec.bos_token_id, problems);
  check_token(spec, "eos_token_id", spec.eos_token_id, problems);

  if (problems.good("", {"levels", "trunk"}) && spec.levels.empty() != spec.trunk.has_value()) {
    problems.add_bad("", "levels",
                     spec.levels.empty() ? "neither levels nor a trunk: a model has one of the two"
                                         : "both levels and a trunk: a model has one of the two");
  }
  if (spec.n_levels() > max_levels) {
    problems.add_bad("", "levels", fmt::format("{} levels, at most {} are possible", spec.n_levels(), max_levels));
    return;
  }
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l) check_level(spec, l, problems);
  check_chunk_tokens(spec, problems);
  if (spec.trunk) {
    check(*spec.trunk, "trunk", {Span::Kind::global, Span::Kind::window}, "global or window", problems);
    if (problems.good("", {"d_embed"}) && problems.good("trunk", {"d_model"}) && spec.d_embed != spec.trunk->d_model)
      problems.add("trunk", fmt::format("d_model {} differs from d_embed {}", spec.trunk->d_model, spec.d_embed));
  }

  if (!problems.good("", {"levels", "trunk"})) return;
  const std::string last = spec.trunk ? "trunk" : decoder_place(1);
  if (spec.tie_embeddings && problems.good("", {"d_embed", "tie_embeddings"}) && problems.good(last, {"d_model"}) &&
      spec.d_embed != spec.head_width())
    problems.add("", fmt::format("tie_embeddings needs d_embed {} to equal the {}'s d_model {}", spec.d_embed, last,
                                 spec.head_width()));
  if (problems.all_good()) check_parameters(spec, problems);
}

// ---- JSON ----

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
  if (has_size(span.kind)) reader.integer("size", span.size);
  reader.refuse_other_keys();
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
  reader.refuse_other_keys();
}

void read_level(const json& entry, std::int64_t l, LevelSpec& level, Problems& problems) {
  const std::string place = level_place(l);
  if (!entry.is_object()) {
    problems.add(place, fmt::format("is {}, must be an object", type_name(entry)));
    for (const char* field : {"chunk_size", "converter_len", "chunker"}) problems.mark_bad(place, field);
    problems.mark_stack_bad(encoder_place(l));
    problems.mark_stack_bad(decoder_place(l));
    return;
  }
  Reader reader(entry, place, problems);
  reader.integer("chunk_size", level.chunk_size);
  reader.integer("converter_len", level.converter_len);
  reader.word<Chunker>("chunker", {{"concat", Chunker::concat}, {"linear", Chunker::linear}}, level.chunker);
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

nlohmann::ordered_json stack_json(const StackSpec& s) {
  nlohmann::ordered_json span{{"kind", to_string(Span{s.span.kind, 0})}};
  if (has_size(s.span.kind)) span["size"] = s.span.size;
  return {
      {"d_model", s.d_model},   {"n_layers", s.n_layers}, {"n_heads", s.n_heads},       {"n_kv_heads", s.n_kv_heads},
      {"head_dim", s.head_dim}, {"d_ff", s.d_ff},         {"rope_theta", s.rope_theta}, {"span", span}};
}

void add_stack(const StackSpec& s, const std::string& prefix, std::vector<TensorSpec>& list) {
  for (std::int64_t i = 0; i < s.n_layers; ++i) {
    const std::string layer = fmt::format("{}.layers.{}.", prefix, i);
    list.push_back({layer + "attn_norm.weight", {s.d_model}});
    list.push_back({layer + "attn.q.weight", {s.q_width(), s.d_model}});
    list.push_back({layer + "attn.k.weight", {s.kv_width(), s.d_model}});
    list.push_back({layer + "attn.v.weight", {s.kv_width(), s.d_model}});
    list.push_back({layer + "attn.o.weight", {s.d_model, s.q_width()}});
    list.push_back({layer + "mlp_norm.weight", {s.d_model}});
    list.push_back({layer + "mlp.gate.weight", {s.d_ff, s.d_model}});
    list.push_back({layer + "mlp.up.weight", {s.d_ff, s.d_model}});
    list.push_back({layer + "mlp.down.weight", {s.d_model, s.d_ff}});
  }
  list.push_back({prefix + ".norm.weight", {s.d_model}});
}

[[noreturn]] void refuse(const std::string& origin, const std::vector<std::string>& list) {
  std::string text = fmt::format("{}: not a model, {} problem{}", origin, list.size(), list.size() == 1 ? "" : "s");
  for (const std::string& problem : list) text += "\n  " + problem;
  throw SpecError(text);
}

}  // namespace

std::int64_t Spec::chunk_tokens(std::int64_t l) const {
  std::int64_t tokens = 1;
  for (std::int64_t k = 1; k <= l; ++k) tokens *= level(k).chunk_size;
  return tokens;
}

std::int64_t Spec::width(std::int64_t l) const { return l == 0 ? d_embed : level(l).encoder.d_model; }

std::int64_t Spec::cond_width(std::int64_t l) const {
  return l == n_levels() ? width(l) : level(l + 1).decoder.d_model;
}

std::int64_t Spec::head_width() const { return trunk ? trunk->d_model : level(1).decoder.d_model; }

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

std::vector<std::string> problems(const Spec& spec) {
  Problems found;
  check(spec, found);
  return found.take();
}

std::string to_json(const Spec& spec) {
  nlohmann::ordered_json root{{"format", "photon-lm"},
                              {"version", 1},
                              {"vocab_size", spec.vocab_size},
                              {"d_embed", spec.d_embed},
                              {"norm_eps", spec.norm_eps},
                              {"bos_token_id", spec.bos_token_id},
                              {"eos_token_id", spec.eos_token_id},
                              {"tie_embeddings", spec.tie_embeddings},
                              {"levels", nlohmann::ordered_json::array()}};
  for (const LevelSpec& level : spec.levels)
    root["levels"].push_back({{"chunk_size", level.chunk_size},
                              {"converter_len", level.converter_len},
                              {"chunker", level.chunker == Chunker::concat ? "concat" : "linear"},
                              {"encoder", stack_json(level.encoder)},
                              {"decoder", stack_json(level.decoder)}});
  if (spec.trunk) root["trunk"] = stack_json(*spec.trunk);
  return root.dump(2) + "\n";
}

std::vector<TensorSpec> tensors(const Spec& spec) {
  const std::int64_t L = spec.n_levels();
  std::vector<TensorSpec> list{{"embed.weight", {spec.vocab_size, spec.d_embed}}};
  for (std::int64_t l = 1; l <= L; ++l) {
    const LevelSpec& level = spec.level(l);
    const std::string prefix = fmt::format("levels.{}.", l);
    if (level.chunker == Chunker::linear)
      list.push_back({prefix + "chunker.weight", {spec.width(l), level.chunk_size * spec.width(l - 1)}});
    add_stack(level.encoder, prefix + "encoder", list);
  }
  if (L > 0) list.push_back({"start.weight", {spec.width(L)}});
  for (std::int64_t l = L; l >= 1; --l) {
    const LevelSpec& level = spec.level(l);
    const std::string prefix = fmt::format("levels.{}.", l);
    const std::int64_t E = level.decoder.d_model;
    list.push_back({prefix + "converter.weight", {level.converter_len * E, spec.cond_width(l)}});
    if (spec.width(l - 1) != E) list.push_back({prefix + "content_proj.weight", {E, spec.width(l - 1)}});
    add_stack(level.decoder, prefix + "decoder", list);
  }
  if (spec.trunk) add_stack(*spec.trunk, "trunk", list);
  if (!spec.tie_embeddings) list.push_back({"lm_head.weight", {spec.vocab_size, spec.head_width()}});
  return list;
}

std::string to_string(const Span& span) {
  using enum Span::Kind;
  const char* name = "global";
  switch (span.kind) {
    case global:
      break;
    case window:
      name = "window";
      break;
    case block:
      name = "block";
      break;
    case chunk:
      name = "chunk";
      break;
    case stream:
      name = "stream";
      break;
  }
  return span.size == 0 ? std::string(name) : fmt::format("{}({})", name, span.size);
}

}  // namespace photon
