// Whether the engine still computes what it computed when engine/bits.txt was recorded: hashes of logits, tokens and
// log-probabilities, bit for bit, of the bundled models and of every tiny spec, under each protocol and dtype.
//
//   PHOTON_ISA=avx2 engine_bits          compares; exit code 77 where this CPU lacks the instruction set
//   PHOTON_ISA=avx2 engine_bits record   prints the lines of that instruction set
//
// A change that is meant to compute the same must leave every line alone.  One that is meant to compute something else
// (another order of summation, say) records its lines anew and says why in its commit.  Recorded with GCC and glibc.
#include <fmt/format.h>

#include <cstdlib>
#include <deque>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/generate.h"
#include "engine/models_testing.h"
#include "engine/scheduler.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

// FNV-1a over everything that is added.
class Hash {
 public:
  template <class T>
  void add(std::span<const T> values) {
    for (const std::byte b : std::as_bytes(values)) value_ = (value_ ^ static_cast<std::uint64_t>(b)) * 0x100000001b3u;
  }
  template <class T>
  void add(T value) {
    add(std::span<const T>(&value, 1));
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

struct Types {
  const char* name;
  Precision precision;
};
const Types all_types[] = {{"f32", {DType::f32, DType::f32}},
                           {"bf16", {DType::bf16, DType::bf16}},
                           {"int8", {DType::int8, DType::int8}},
                           {"int4", {DType::int4, DType::bf16}}};

using Tokens = std::span<const std::int32_t>;

Sequence consumed(Runner& runner, Tokens tokens) {
  Sequence sequence = runner.sequence();
  const Extension prompt{.sequence = &sequence, .tokens = tokens};
  runner.forward({&prompt, 1});
  return sequence;
}

// The forward pass over a text, whole and from a prefilled prompt on.
void add_forward(Hash& hash, Runner& runner, Tokens tokens) {
  for (const std::size_t prompt : {std::size_t{0}, tokens.size() / 3}) {
    Sequence sequence = consumed(runner, tokens.first(prompt));
    const Extension rest{.sequence = &sequence, .tokens = tokens.subspan(prompt), .logits = Logits::given};
    runner.forward({&rest, 1}, [&](std::size_t, std::int64_t, std::span<const float> logits) { hash.add(logits); });
  }
}

// Three sequences in step after prompts of other lengths.
void add_steps(Hash& hash, Runner& runner, Tokens tokens) {
  std::deque<Sequence> sequences;
  for (std::size_t b = 0; b < 3; ++b) sequences.push_back(consumed(runner, tokens.first(b * tokens.size() / 5)));
  std::vector<Extension> batch;
  for (std::int64_t step = 0; step < 12; ++step) {
    batch.clear();
    for (Sequence& s : sequences)
      batch.push_back(
          {.sequence = &s, .tokens = tokens.subspan(static_cast<std::size_t>(s.n_tokens), 1), .logits = Logits::next});
    runner.forward(batch, [&](std::size_t, std::int64_t, std::span<const float> logits) { hash.add(logits); });
  }
}

// Two groups of recgen of two sequences, with the likeliest tokens.
void add_groups(Hash& hash, Runner& runner, Tokens tokens) {
  const auto group_tokens = static_cast<std::size_t>(runner.spec().group_tokens());
  for (const bool one_by_one : {false, true}) {
    std::deque<Sequence> sequences;
    std::vector<Sequence*> batch;
    for (std::size_t b = 0; b < 2; ++b) {
      batch.push_back(&sequences.emplace_back(consumed(runner, tokens.first(b * group_tokens))));
      runner.start_recgen(*batch.back());
    }
    for (std::int64_t g = 0; g < 2; ++g)
      runner.recgen_group(
          batch,
          [&](std::size_t, std::int64_t, std::span<const float> logits) {
            hash.add(logits);
            return argmax(logits);
          },
          one_by_one);
  }
}

// Continuations, sampled and greedy, alone and through the scheduler with log-probabilities.
void add_generation(Hash& hash, Engine& engine, Protocol protocol, Tokens tokens) {
  const Tokens prompt = tokens.first(tokens.size() / 4);
  for (const double temperature : {0.0, 0.9}) {
    const Generation generation =
        engine.generate({.prompt = {prompt.begin(), prompt.end()},
                         .n_tokens = 24,
                         .n_continuations = 3,
                         .protocol = protocol,
                         .sampler = {.repetition_penalty = 1.1, .temperature = temperature, .top_p = 0.95, .seed = 5}});
    for (const GeneratedTokens& c : generation.continuations) hash.add(Tokens(c.tokens));
  }
  const Score score = engine.score(tokens, protocol);
  hash.add(std::span<const float>(score.logprobs));
  hash.add(Tokens(score.argmax));

  Scheduler scheduler(engine.runner(), {.kv_budget_bytes = std::int64_t{1} << 28, .prefill_tokens_per_step = 7});
  std::map<RequestId, std::vector<Hash>> hashes;  // of each request, its continuations
  const auto add = [](Hash& of, std::int32_t token, const std::optional<TokenLogprob>& logprob) {
    of.add(token);
    if (!logprob) return;
    of.add(logprob->logprob);
    for (const auto& [other, value] : logprob->top) of.add(other), of.add(value);
  };
  for (const bool score_prompt : {false, true})
    hashes[scheduler.submit({.prompt = {prompt.begin(), prompt.end()},
                             .n_tokens = 20,
                             .n_continuations = 2,
                             .protocol = protocol,
                             .sampler = {.frequency_penalty = 0.5, .temperature = 0.8, .top_k = 20, .seed = 11},
                             .score_prompt = score_prompt,
                             .n_top_logprobs = 3})]
        .resize(2);
  for (; !scheduler.idle(); scheduler.settle())
    for (const Event& event : scheduler.step()) {
      std::vector<Hash>& of = hashes.at(event.request);
      if (const auto* scored = std::get_if<PromptScored>(&event.what)) {
        for (const TokenLogprob& logprob : scored->logprobs) add(of[0], 0, logprob);
      } else if (const auto* chosen = std::get_if<TokenChosen>(&event.what)) {
        add(of[chosen->continuation], chosen->token, chosen->logprob);
      }
    }
  for (const auto& [id, of] : hashes)
    for (const Hash& h : of) hash.add(h.value());
}

// The lines of the instruction set in use: "isa model dtype protocol", then the hash.
std::map<std::string, std::string> compute() {
  std::map<std::string, std::string> lines;
  const auto add_model = [&](const std::string& name, const std::filesystem::path& folder) {
    for (const auto& [type, precision] : all_types) {
      Engine engine(folder, precision);
      const std::int64_t group = engine.spec().group_tokens();
      const auto tokens = random_tokens(3 * group + 24, engine.spec().vocab_size, 3);
      const auto add = [&](const char* protocol, const Hash& hash) {
        lines[fmt::format("{} {} {} {}", kernels().name, name, type, protocol)] = fmt::format("{:016x}", hash.value());
      };
      Hash hiergen;
      add_forward(hiergen, engine.runner(), tokens);
      add_steps(hiergen, engine.runner(), tokens);
      add_generation(hiergen, engine, Protocol::hiergen, tokens);
      add("hiergen", hiergen);
      if (engine.spec().n_levels() == 0) continue;
      Hash recgen;
      add_groups(recgen, engine.runner(), tokens);
      add_generation(recgen, engine, Protocol::recgen, tokens);
      add("recgen", recgen);
    }
  };
  for (const NamedSpec& s : tiny_specs()) {
    const TestModel folder(s.spec);
    add_model(s.name, folder.path());
  }
  for (const char* name : {"photon-stories", "vanilla-stories"})
    add_model(name, std::filesystem::path(PHOTON_SOURCE_DIR) / "models" / name);
  return lines;
}

int run(bool record) {
  const auto computed = compute();
  if (record) {
    for (const auto& [key, hash] : computed) std::cout << key << " " << hash << "\n";
    return 0;
  }
  std::map<std::string, std::string> recorded;
  std::ifstream file(std::filesystem::path(PHOTON_SOURCE_DIR) / "engine/bits.txt");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(std::string(kernels().name) + " "))
      recorded[line.substr(0, line.rfind(' '))] = line.substr(line.rfind(' ') + 1);
  int different = 0;
  for (const auto& [key, hash] : computed) {
    const auto found = recorded.find(key);
    if (found != recorded.end() && found->second == hash) continue;
    ++different;
    std::cout << key << ": " << hash << ", recorded " << (found == recorded.end() ? "nothing" : found->second) << "\n";
  }
  for (const auto& [key, hash] : recorded)
    if (!computed.contains(key)) ++different, std::cout << key << ": recorded, but not computed\n";
  std::cout << computed.size() - static_cast<std::size_t>(different) << " of " << computed.size() << " as recorded\n";
  return different == 0 ? 0 : 1;
}

}  // namespace
}  // namespace photon

int main(int argc, char** argv) {
  const char* const wanted = std::getenv("PHOTON_ISA");
  for (const photon::Kernels& table : photon::all_kernels())
    if (wanted != nullptr && std::string_view(table.name) == wanted && !table.runs_here()) {
      std::cout << "skipped: this CPU cannot run " << wanted << "\n";
      return 77;
    }
  return photon::run(argc > 1 && std::string(argv[1]) == "record");
}
