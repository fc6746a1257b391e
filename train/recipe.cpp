// Recipes: one list of keys (each_key) that reading, writing, comparing and --help share.
#include "train/recipe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <toml++/toml.h>

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <type_traits>

#include "base/error.h"
#include "base/file.h"
#include "base/threads.h"
#include "train/schedule.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Key {
  const char* name;
  const char* meaning;
  double min = 0, max = std::numeric_limits<double>::max();  // of numbers, inclusive
  bool required = false;
};

// Calls visit(key, value) for every key but the model's, in the order in which a reader wants them.
template <class AnyRecipe, class Visit>
void each_key(AnyRecipe& r, Visit&& visit) {
  constexpr double tiny = std::numeric_limits<double>::min(), below_one = 1.0 - 0x1p-53;
  visit(Key{.name = "data.train", .meaning = "[{path, weight = 1}, …]: shards and their shares", .required = true},
        r.data.train);
  visit(Key{.name = "data.valid", .meaning = "[{name, path}, …]: held-out shards"}, r.data.valid);
  visit(Key{.name = "data.tokenizer", .meaning = "tokenizer.model that all shards must come from; needed for samples"},
        r.data.tokenizer);
  visit(Key{.name = "run.out", .meaning = "run folder", .required = true}, r.run.out);
  visit(Key{.name = "run.seed", .meaning = "of the initial weights, the data order and the samples"}, r.run.seed);
  visit(Key{.name = "run.memory_offset",
            .meaning = "what is added to a memory's scores at first: 0 learns recall soonest, -4 disturbs least",
            .min = -100,
            .max = 100},
        r.run.memory_offset);
  visit(Key{.name = "run.steps", .meaning = "optimiser steps", .min = 1, .max = 1e9}, r.run.steps);
  visit(Key{.name = "run.log_every", .meaning = "steps between plain progress lines", .min = 1}, r.run.log_every);
  visit(Key{.name = "run.eval_every", .meaning = "steps between validations (0 = only at the end)"}, r.run.eval_every);
  visit(Key{.name = "run.eval_tokens", .meaning = "at most so many tokens of each held-out shard", .min = 1},
        r.run.eval_tokens);
  visit(Key{.name = "run.sample_every", .meaning = "steps between text samples (0 = never)"}, r.run.sample_every);
  visit(Key{.name = "run.sample_tokens", .meaning = "length of a text sample", .min = 1, .max = 4096},
        r.run.sample_tokens);
  visit(Key{.name = "run.sample_prompt", .meaning = "what a text sample continues"}, r.run.sample_prompt);
  visit(Key{.name = "run.checkpoint_every", .meaning = "steps between checkpoints (0 = only at the end)"},
        r.run.checkpoint_every);
  visit(Key{.name = "run.keep_last", .meaning = "newest checkpoints to keep; the best one is kept too", .min = 1},
        r.run.keep_last);
  visit(Key{.name = "batch.sequences", .meaning = "windows in one forward pass", .min = 1, .max = 1 << 20},
        r.batch.sequences);
  visit(Key{.name = "batch.tokens", .meaning = "tokens in a window", .min = 1, .max = 1 << 20}, r.batch.tokens);
  visit(Key{.name = "batch.accumulate", .meaning = "forward passes in one optimiser step", .min = 1, .max = 1 << 20},
        r.batch.accumulate);
  visit(Key{.name = "batch.window_min",
            .meaning =
                "a forward pass draws its stream or window span from this to the model's own (0 = always its own)"},
        r.batch.window_min);
  visit(Key{.name = "optimizer.lr", .meaning = "peak learning rate", .min = tiny}, r.optimizer.lr);
  visit(Key{.name = "optimizer.beta1", .meaning = "AdamW: decay of the gradient mean", .max = below_one},
        r.optimizer.beta1);
  visit(Key{.name = "optimizer.beta2", .meaning = "AdamW: decay of the squared gradient mean", .max = below_one},
        r.optimizer.beta2);
  visit(Key{.name = "optimizer.eps", .meaning = "AdamW: added to the root", .min = tiny}, r.optimizer.eps);
  visit(Key{.name = "optimizer.weight_decay", .meaning = "decoupled, on matrices only"}, r.optimizer.weight_decay);
  visit(Key{.name = "optimizer.clip", .meaning = "largest global gradient norm (0 = no clipping)"}, r.optimizer.clip);
  visit(Key{.name = "schedule.kind", .meaning = "after the warm-up"}, r.schedule.kind);
  visit(Key{.name = "schedule.warmup_steps", .meaning = "steps of linear warm-up"}, r.schedule.warmup_steps);
  visit(Key{.name = "schedule.min_lr_ratio", .meaning = "last learning rate / lr", .max = 1}, r.schedule.min_lr_ratio);
  visit(Key{.name = "schedule.decay_fraction", .meaning = "wsd: share of all steps that decays", .max = 1},
        r.schedule.decay_fraction);
  visit(Key{.name = "loss.alpha", .meaning = "weight of the reconstruction loss"}, r.loss.alpha);
  visit(Key{.name = "loss.rec_levels", .meaning = "levels that the reconstruction loss sums"}, r.loss.rec_levels);
  visit(Key{.name = "compute.precision", .meaning = "of the forward and backward pass (weights stay f32)"},
        r.compute.precision);
  visit(Key{.name = "compute.device", .meaning = "where to train"}, r.compute.device);
  visit(Key{.name = "compute.threads", .meaning = "CPU threads (0 = all usable)", .max = 4096}, r.compute.threads);
}

template <class Enum>
constexpr auto choices() {
  if constexpr (std::is_same_v<Enum, ScheduleKind>) return std::array{"cosine", "wsd"};
  if constexpr (std::is_same_v<Enum, DType>) return std::array{"f32", "bf16"};  // those of arithmetic
  if constexpr (std::is_same_v<Enum, Device>) return std::array{"cpu", "cuda"};
  if constexpr (std::is_same_v<Enum, RecLevels>) return std::array{"above_tokens", "all"};
}

// Reads values out of the parsed TOML and collects every problem with its place.
class Reader {
 public:
  Reader(std::string origin, toml::table root) : origin_(std::move(origin)), root_(std::move(root)) {}

  void override_with(const std::string& assignment) {
    const auto equals = assignment.find('=');
    const std::string key = assignment.substr(0, equals);
    const std::string place = "--set " + assignment;
    if (equals == std::string::npos || key.empty() || key.front() == '.' || key.back() == '.') {
      problem(place, "wanted section.key=value");
      return;
    }
    if (!overrides_.emplace(key, place).second) return problem(place, "this key is set twice");
    toml::table value;
    try {
      value = toml::parse("value = " + assignment.substr(equals + 1));
    } catch (const toml::parse_error&) {
      value.insert("value", assignment.substr(equals + 1));  // a bare word
    }
    if (value.size() != 1) return problem(place, "wanted one value");
    toml::table* table = &root_;
    std::string_view rest = key;
    for (auto dot = rest.find('.'); dot != rest.npos; dot = rest.find('.')) {
      const auto& [entry, inserted] = table->insert(rest.substr(0, dot), toml::table{});
      table = entry->second.as_table();
      if (table == nullptr) return problem(place, fmt::format("'{}' is no section", rest.substr(0, dot)));
      rest.remove_prefix(dot + 1);
    }
    table->insert_or_assign(rest, *value.get("value"));
  }

  void operator()(const Key& key, std::int64_t& value) {
    if (const toml::node* node = find(key)) read(*node, key, value);
  }
  void operator()(const Key& key, double& value) {
    if (const toml::node* node = find(key)) read(*node, key, value);
  }
  void operator()(const Key& key, std::string& value) {
    if (const toml::node* node = find(key)) read(*node, key, value);
  }
  void operator()(const Key& key, fs::path& value) {
    if (const toml::node* node = find(key)) read(*node, key, value);
  }
  template <class Enum>
  requires std::is_enum_v<Enum>
  void operator()(const Key& key, Enum& value) {
    const toml::node* node = find(key);
    std::string word;
    if (node == nullptr || !read(*node, key, word)) return;
    if (std::is_same_v<Enum, DType> && word == "fp32") {
      spdlog::info("{}: fp32 is written f32 now", place(key.name, *node));
      word = "f32";
    }
    constexpr auto names = choices<Enum>();
    const auto found = std::find(names.begin(), names.end(), word);
    if (found == names.end())
      return problem(place(key.name, *node),
                     fmt::format("{} is '{}', wanted {}", key.name, word, fmt::join(names, " or ")));
    value = static_cast<Enum>(found - names.begin());
  }
  void operator()(const Key& key, std::vector<TrainSource>& sources) {
    each_table(key, [&](const toml::table& table, const std::string& at) {
      TrainSource source;
      const std::string path_name = at + ".path", weight_name = at + ".weight";
      if (const toml::node* node = member(table, "path", at, true)) read(*node, {path_name.c_str(), ""}, source.path);
      if (const toml::node* node = member(table, "weight", at, false))
        read(*node, {weight_name.c_str(), "", std::numeric_limits<double>::min()}, source.weight);
      sources.push_back(source);
      unknown(table, {"path", "weight"}, at + ".");
    });
    if (sources.empty() && find({key.name, ""}) != nullptr) problem(origin_, "data.train is empty");
  }
  void operator()(const Key& key, std::vector<ValidSource>& sources) {
    each_table(key, [&](const toml::table& table, const std::string& at) {
      ValidSource source;
      const std::string path_name = at + ".path", name_name = at + ".name";
      if (const toml::node* node = member(table, "name", at, true)) read(*node, {name_name.c_str(), ""}, source.name);
      if (const toml::node* node = member(table, "path", at, true)) read(*node, {path_name.c_str(), ""}, source.path);
      for (const ValidSource& other : sources)
        if (other.name == source.name)
          problem(place(key.name, table), fmt::format("{} repeats the name '{}'", at, source.name));
      sources.push_back(source);
      unknown(table, {"name", "path"}, at + ".");
    });
  }

  Spec model() {
    const toml::node* config = find({"model.config", ""});
    const toml::node* inline_spec = find({"model.spec", ""});
    if ((config == nullptr) == (inline_spec == nullptr)) {
      problem(origin_, "[model] wants either config = \"config.json\" or an inline table [model.spec]");
      return {};
    }
    try {
      if (config != nullptr) {
        fs::path path;
        return read(*config, {"model.config", ""}, path) ? load_spec(path) : Spec{};
      }
      std::ostringstream text;
      text << toml::json_formatter{*inline_spec};
      return parse_spec(text.str(), origin_ + " [model.spec]");
    } catch (const Error& e) {
      problems_.push_back(e.what());
      return {};
    }
  }

  void finish(const Recipe& r) {
    unknown(root_, sections_, "");
    for (const auto& [name, node] : root_)
      if (const toml::table* section = node.as_table();
          section != nullptr && sections_.contains(std::string(name.str())))
        unknown(*section, seen_, std::string(name.str()) + ".");
    const auto& [kind, warmup_steps, min_lr_ratio, decay_fraction] = r.schedule;
    if (warmup_steps >= r.run.steps)
      problem(origin_,
              fmt::format("schedule.warmup_steps {} leaves nothing of run.steps {}", warmup_steps, r.run.steps));
    else if (kind == ScheduleKind::wsd && warmup_steps + decay_steps(r) > r.run.steps)
      problem(origin_, fmt::format("schedule: {} warm-up steps and {} steps of decay overlap in {}", warmup_steps,
                                   decay_steps(r), r.run.steps));
    if (const Spec& m = r.model; r.loss.rec_levels == RecLevels::all && m.n_levels() > 0 && !can_reconstruct_tokens(m))
      problem(origin_,
              fmt::format("loss.rec_levels \"all\" compares the level 1 decoder's outputs, {} wide, with rows of "
                          "embed.weight, {} wide; use \"above_tokens\", or a model with decoder_embedding",
                          m.head_width(), m.content_width(1)));
    if (const bool has_model = r.model.trunk || r.model.n_levels() > 0; has_model && r.batch.window_min > 0) {
      const Span& span = r.model.token_stack().span;
      if (span.kind != Span::Kind::stream && span.kind != Span::Kind::window)
        problem(origin_,
                fmt::format("batch.window_min needs a stream or window span to draw from: that of the {} is {}",
                            r.model.n_levels() > 0 ? "level 1 decoder" : "trunk", to_string(span)));
      else if (r.batch.window_min > span.size)
        problem(origin_, fmt::format("batch.window_min {} is above the model's own span, {}", r.batch.window_min,
                                     to_string(span)));
    }
    if (r.run.sample_every > 0 && r.data.tokenizer.empty()) problem(origin_, "run.sample_every needs data.tokenizer");
    if (!problems_.empty()) throw InputError(fmt::format("{}", fmt::join(problems_, "\n")));
  }

 private:
  const toml::node* find(const Key& key) {
    const std::string name = key.name, section = name.substr(0, name.find('.'));
    sections_.insert(section);
    seen_.insert(name);
    const toml::table* table = root_[section].as_table();
    const toml::node* node = table == nullptr ? nullptr : table->get(std::string_view(name).substr(section.size() + 1));
    if (node == nullptr && key.required) problem(origin_, name + " is missing");
    return node;
  }
  const toml::node* member(const toml::table& table, const char* name, const std::string& at, bool required) {
    const toml::node* node = table.get(name);
    if (node == nullptr && required) problem(origin_, fmt::format("{}.{} is missing", at, name));
    return node;
  }
  template <class Each>
  void each_table(const Key& key, Each&& each) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const toml::array* array = node->as_array();
    if (array == nullptr) return wrong_type(*node, key, "an array of tables");
    for (std::size_t i = 0; i < array->size(); ++i) {
      const std::string at = fmt::format("{}[{}]", key.name, i);
      if (const toml::table* table = array->get(i)->as_table())
        each(*table, at);
      else
        wrong_type(*array->get(i), {at.c_str(), ""}, "a table");
    }
  }

  bool read(const toml::node& node, const Key& key, std::int64_t& value) {
    const auto* number = node.as_integer();
    if (number == nullptr) return wrong_type(node, key, "an integer"), false;
    value = number->get();
    return in_range(node, key, static_cast<double>(value));
  }
  bool read(const toml::node& node, const Key& key, double& value) {
    if (!node.is_number()) return wrong_type(node, key, "a number"), false;
    value = *node.value<double>();
    return in_range(node, key, value);
  }
  bool read(const toml::node& node, const Key& key, std::string& value) {
    if (!node.is_string()) return wrong_type(node, key, "a string"), false;
    value = *node.value<std::string>();
    return true;
  }
  bool read(const toml::node& node, const Key& key, fs::path& value) {
    std::string text;
    if (!read(node, key, text)) return false;
    if (text.empty()) return problem(place(key.name, node), fmt::format("{} is empty", key.name)), false;
    value = fs::absolute(text).lexically_normal();
    return true;
  }
  bool in_range(const toml::node& node, const Key& key, double value) {
    if (std::isfinite(value) && key.min <= value && value <= key.max) return true;
    constexpr auto unbounded = std::numeric_limits<double>::max(), tiny = std::numeric_limits<double>::min();
    const std::string least = key.min == tiny ? "more than 0" : fmt::format("at least {:g}", key.min);
    const std::string most = key.max == unbounded ? ""
                             : key.max < 1        ? ", less than 1"
                                                  : fmt::format(", at most {:g}", key.max);
    problem(place(key.name, node), fmt::format("{} is {:g}, wanted {}{}", key.name, value, least, most));
    return false;
  }
  void wrong_type(const toml::node& node, const Key& key, const char* wanted) {
    std::ostringstream got;
    got << node.type();
    problem(place(key.name, node), fmt::format("{} is of type {}, wanted {}", key.name, got.str(), wanted));
  }
  void unknown(const toml::table& table, const std::set<std::string>& known, const std::string& prefix) {
    for (const auto& [name, node] : table) {
      const std::string key = std::string(name.str());
      // seen_ holds full names, the sections' and array members' sets short ones
      if (known.contains(key) || known.contains(prefix + key)) continue;
      problem(place(prefix + key, node), fmt::format("unknown key '{}{}'", prefix, key));
    }
    if (&table != &root_) return;
    for (const auto& [name, node] : table)
      if (!node.is_table() && known.contains(std::string(name.str())))
        problem(place(std::string(name.str()), node),
                fmt::format("'{}' must be a section, [{}]", name.str(), name.str()));
  }
  // "recipe.toml:12", or the --set that brought the key (or the array or table that it is in).
  std::string place(const std::string& key, const toml::node& node) const {
    for (const auto& [name, assignment] : overrides_)
      if (key == name || (key.starts_with(name) && (key[name.size()] == '.' || key[name.size()] == '[')))
        return assignment;
    return fmt::format("{}:{}", origin_, node.source().begin.line);
  }
  void problem(const std::string& where, const std::string& what) { problems_.push_back(where + ": " + what); }

  std::string origin_;
  toml::table root_;
  std::map<std::string, std::string> overrides_;  // key -> the --set as given
  std::set<std::string> sections_, seen_;
  std::vector<std::string> problems_;
};

json to_json_value(const TrainSource& source) { return {{"path", source.path.string()}, {"weight", source.weight}}; }
json to_json_value(const ValidSource& source) { return {{"name", source.name}, {"path", source.path.string()}}; }
json to_json_value(const fs::path& path) { return path.string(); }
template <class T>
requires std::is_arithmetic_v<T> || std::is_same_v<T, std::string> json to_json_value(const T& value) { return value; }
template <class Enum>
requires std::is_enum_v<Enum> json to_json_value(Enum value) {
  return choices<Enum>()[static_cast<std::size_t>(value)];
}
template <class T>
json to_json_value(const std::vector<T>& values) {
  json array = json::array();
  for (const T& value : values) array.push_back(to_json_value(value));
  return array;
}

// A JSON value in TOML; scalars look the same in both.
std::string toml_text(const json& value) {
  std::vector<std::string> parts;
  if (value.is_object()) {
    for (const auto& [name, member] : value.items()) parts.push_back(fmt::format("{} = {}", name, toml_text(member)));
    return fmt::format("{{ {} }}", fmt::join(parts, ", "));
  }
  if (value.is_array()) {
    for (const json& member : value) parts.push_back("\n  " + toml_text(member));
    return parts.empty() ? "[]" : fmt::format("[{},\n]", fmt::join(parts, ","));
  }
  return value.dump();
}

// key -> what differences() compares.
std::map<std::string, std::string> compared(const Recipe& recipe) {
  std::map<std::string, std::string> values{{"model", to_json(recipe.model)}};
  each_key(recipe, [&](const Key& key, const auto& value) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, fs::path>) return;
    json compared_value = to_json_value(value);
    if (compared_value.is_array())
      for (json& source : compared_value) source.erase("path");
    values[key.name] = compared_value.dump();
  });
  return values;
}

}  // namespace

Recipe parse_recipe(std::string_view text, const std::string& origin, const std::vector<std::string>& overrides) {
  toml::table root;
  try {
    root = toml::parse(text, origin);
  } catch (const toml::parse_error& e) {
    throw InputError(fmt::format("{}:{}: {}", origin, e.source().begin.line, e.description()));
  }
  Reader reader(origin, std::move(root));
  for (const std::string& assignment : overrides) reader.override_with(assignment);
  Recipe recipe;
  recipe.model = reader.model();
  each_key(recipe, reader);
  reader.finish(recipe);
  if (recipe.compute.threads == 0) recipe.compute.threads = usable_cpus();
  return recipe;
}

Recipe load_recipe(const fs::path& path, const std::vector<std::string>& overrides) {
  return parse_recipe(read_text(path), path.string(), overrides);
}

std::string to_toml(const Recipe& recipe) {
  std::string text = "[model.spec]\n", section;
  const json model = json::parse(to_json(recipe.model));
  for (const auto& [name, value] : model.items()) text += fmt::format("{} = {}\n", name, toml_text(value));
  each_key(recipe, [&](const Key& key, const auto& value) {
    const json stored = to_json_value(value);
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, fs::path>)
      if (value.empty()) return;
    const std::string name = key.name, its_section = name.substr(0, name.find('.'));
    if (section != its_section) text += fmt::format("\n[{}]\n", its_section);
    section = its_section;
    text += fmt::format("{} = {}\n", name.substr(section.size() + 1), toml_text(stored));
  });
  return text;
}

std::string recipe_json(const Recipe& recipe) {
  json sections;
  each_key(recipe, [&](const Key& key, const auto& value) {
    const std::string name = key.name;
    const auto dot = name.find('.');
    sections[name.substr(0, dot)][name.substr(dot + 1)] = to_json_value(value);
  });
  return sections.dump();
}

std::vector<std::string> differences(const Recipe& here, const Recipe& there) {
  std::vector<std::string> keys;
  const auto mine = compared(here), theirs = compared(there);
  for (const auto& [key, value] : mine)
    if (const std::string& other = theirs.at(key); other != value)
      keys.push_back(key == "model" ? "model: the specs differ"
                                    : fmt::format("{}: here {}, there {}", key, value, other));
  return keys;
}

std::string recipe_keys() {
  const Recipe defaults;
  std::string lines = fmt::format("  {:<25}{}\n  {:<25}{}\n", "model.config", "config.json of the model", "model.spec",
                                  "or its contents as a table");
  each_key(defaults, [&](const Key& key, const auto& value) {
    using Value = std::decay_t<decltype(value)>;
    const json fallback = to_json_value(value);
    std::string more = key.required                         ? " (required)"
                       : fallback.empty() || fallback == "" ? ""
                                                            : fmt::format(" (default {})", fallback.dump());
    if constexpr (std::is_enum_v<Value>) more = fmt::format(": {}{}", fmt::join(choices<Value>(), " or "), more);
    lines += fmt::format("  {:<25}{}{}\n", key.name, key.meaning, more);
  });
  return lines;
}

}  // namespace photon
