// Whole evaluations of a tiny model: what is scored is what the engine says, and an interrupted run goes on.
#include "eval/evaluate.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "engine/models_testing.h"
#include "kernels/kernels.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;
using testing_support::TemporaryFolder;

const fs::path data_folder = fs::path(PHOTON_SOURCE_DIR) / "eval" / "testdata";
constexpr std::int32_t bos = 1;

// A tiny model of the test tokenizer's vocabulary.
Spec spec_of(const std::string& name) {
  Spec spec = tiny_spec(name);
  spec.vocab_size = 400, spec.bos_token_id = bos, spec.eos_token_id = 2;
  return spec;
}

class Evaluation : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { set_threads(1); }

  TestModel folder{spec_of(GetParam())};
  Engine engine{folder.path()};
  Tokenizer tokenizer{testing_support::tokenizer_path()};
  Scorer scorer{engine.runner(), Protocol::hiergen};
  Evaluator evaluator{scorer, tokenizer, bos, /*max_length=*/96};

  // Engine::score()'s answer to a request, its tokens counted from the text alone.
  double engine_loglikelihood(const EncodedRequest& request, bool* greedy) {
    std::vector<std::int32_t> tokens = request.context;
    tokens.insert(tokens.end(), request.continuation.begin(), request.continuation.end());
    const Score score = engine.score(tokens);
    double nats = 0;
    for (std::size_t i = request.context.size(); i < tokens.size(); ++i) {
      nats += static_cast<double>(score.logprobs[i]);
      *greedy &= score.argmax[i] == tokens[i];
    }
    return nats;
  }
};

INSTANTIATE_TEST_SUITE_P(Models, Evaluation, testing::Values(tiny_specs().front().name, tiny_specs().back().name),
                         [](const auto& model) { return model.param; });

TEST_P(Evaluation, LogLikelihoodsAreTheEnginesSums) {
  for (const Task& task : all_tasks()) {
    const TaskData data = load_task(task, data_folder, 1);
    for (std::size_t d = 0; d < 6; ++d) {
      const DocumentScore got = evaluator.score(task, data.documents[d]);
      const auto requests = evaluator.encode(task, data.documents[d]);
      std::vector<double> want;
      std::vector<bool> greedy;
      std::int64_t n_cut = 0, n_tokens = 0;
      for (const EncodedRequest& request : requests) {
        bool all = true;
        const double nats = engine_loglikelihood(request, &all);
        if (task.kind == Task::Kind::rolling && !want.empty()) {
          want.front() += nats, greedy.front() = greedy.front() && all;
        } else {
          want.push_back(nats), greedy.push_back(all);
        }
        n_cut += request.n_cut, n_tokens += std::ssize(request.continuation);
      }
      SCOPED_TRACE(task.name + " document " + std::to_string(d));
      ASSERT_EQ(got.loglikelihoods.size(), want.size());
      for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got.loglikelihoods[i], want[i], 1e-6);
      EXPECT_EQ(got.greedy, greedy);
      EXPECT_EQ(got.n_cut, n_cut);
      EXPECT_EQ(got.n_tokens, n_tokens);
    }
  }
}

TEST_P(Evaluation, CutContextsAreCountedAndLongAnswersRefused) {
  Document document{.id = "d", .requests = {{"", " the kalo"}}};
  for (int i = 0; i < 60; ++i) document.requests[0].context += " misu renta";
  const auto whole = encode_request(tokenizer, bos, document.requests[0]);
  const DocumentScore score = evaluator.score(find_task("lambada"), document);
  EXPECT_EQ(score.n_cut, std::ssize(whole.context) + std::ssize(whole.continuation) - 97);
  EXPECT_GT(score.n_cut, 0);

  std::swap(document.requests[0].context, document.requests[0].continuation);
  try {
    evaluator.score(find_task("lambada"), document);
    FAIL() << "accepted";
  } catch (const InputError& e) {
    EXPECT_NE(std::string(e.what()).find("lambada: document d has "), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("--max-length is 96"), std::string::npos) << e.what();
  }
}

TEST_P(Evaluation, AnInterruptedRunGoesOnWhereItStopped) {
  const TaskData data = load_task(find_task("piqa"), data_folder, 0);
  const ordered_json settings{{"model", model_record(engine.model())}, {"max_length", 96}};
  const auto no_progress = [](std::int64_t, std::int64_t) {};
  const TemporaryFolder out;
  const TaskResult whole = evaluate(evaluator, data, 0, nullptr, no_progress);
  EXPECT_EQ(whole.scores.size(), data.documents.size());
  {
    const auto log = ResultFolder(out / "run", settings).open(data);
    const TaskResult part = evaluate(evaluator, data, 7, log.get(), no_progress);
    EXPECT_EQ(part.scores.size(), 7u);
    EXPECT_EQ(part.n_resumed, 0);
  }
  std::ofstream(out / "run/piqa.jsonl", std::ios::app) << R"({"task":"piqa","docu)";  // killed while writing
  {
    const auto log = ResultFolder(out / "run", settings).open(data);
    std::int64_t n_computed = 0;
    const TaskResult rest = evaluate(evaluator, data, 0, log.get(), [&](std::int64_t, std::int64_t) { ++n_computed; });
    EXPECT_EQ(rest.n_resumed, 7);
    EXPECT_EQ(n_computed, std::ssize(data.documents) - 7);
    EXPECT_EQ(rest.scores, whole.scores);
    EXPECT_EQ(rest.metrics[0].value, whole.metrics[0].value);
  }
  const auto lines = read_records(out / "run/piqa.jsonl");
  ASSERT_EQ(lines.size(), data.documents.size());
  EXPECT_EQ(lines[3].id("document"), "3");
  EXPECT_EQ(lines[3].string("data_sha256"), sha256_file(data_folder / "piqa/valid.jsonl"));
  const auto log = ResultFolder(out / "run", settings).open(data);
  EXPECT_EQ(evaluate(evaluator, data, 2, log.get(), no_progress).scores.size(), 2u);
}

TEST_P(Evaluation, ForeignResultsAreRefused) {
  const TaskData data = load_task(find_task("piqa"), data_folder, 0);
  const ordered_json settings{{"max_length", 96}, {"few_shot", 0}};
  const TemporaryFolder out;
  const auto refusal = [&](const ordered_json& of, const TaskData& with) -> std::string {
    try {
      ResultFolder(out / "run", of).open(with);
    } catch (const InputError& e) {
      return e.what();
    }
    return "accepted";
  };
  {
    const auto log = ResultFolder(out / "run", settings).open(data);
    evaluate(evaluator, data, 2, log.get(), [](std::int64_t, std::int64_t) {});
  }
  EXPECT_EQ(refusal(settings, data), "accepted");
  EXPECT_NE(refusal({{"max_length", 95}, {"few_shot", 0}}, data).find("max_length is 96 there and 95 here"),
            std::string::npos);
  EXPECT_NE(refusal({{"max_length", 96}}, data).find("few_shot is 0 there and null here"), std::string::npos);
  TaskData other = data;
  other.file.sha256[0] ^= 1;
  EXPECT_NE(refusal(settings, other).find("sha256 is"), std::string::npos);
  EXPECT_NE(refusal(settings, load_task(find_task("piqa"), data_folder, 1)).find("examples is null there"),
            std::string::npos);

  const std::string good = read_text(out / "run/piqa.jsonl");
  for (const std::string& bad :
       {good.substr(good.find('\n') + 1), "rubbish\n" + good, std::string("{}\n"), good + good}) {
    write_atomically(out / "run/piqa.jsonl", bad);
    EXPECT_NE(refusal(settings, data).find("piqa.jsonl: line "), std::string::npos);
    EXPECT_EQ(read_text(out / "run/piqa.jsonl"), bad) << "unchanged";
  }
  fs::remove(out / "run/run.json");
  EXPECT_NE(refusal(settings, data).find("is no result of this run"), std::string::npos);
  write_atomically(out / "run/run.json", "{}");
  EXPECT_NE(refusal(settings, data).find("is no record of an evaluation"), std::string::npos);
}

}  // namespace
}  // namespace photon
