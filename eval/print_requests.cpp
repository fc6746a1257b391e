// For tests in programs that cannot link SentencePiece beside LibTorch (both bring a protobuf): prints what is scored.
//   eval_print_requests MODEL DATA
// A JSON object a line for each request of each task: task, id, context, continuation (token ids), logprob in float32.
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>

#include "eval/evaluate.h"
#include "kernels/kernels.h"

int main(int, char** argv) {
  using namespace photon;
  const std::filesystem::path folder = argv[1], data_folder = argv[2];
  set_threads(1);
  Engine engine(folder, {.weights = DType::f32, .kv = DType::f32});
  Scorer scorer(engine.runner(), Protocol::hiergen);
  const Tokenizer tokenizer(folder / tokenizer_file);
  Evaluator evaluator(scorer, tokenizer, static_cast<std::int32_t>(engine.spec().bos_token_id), /*max_length=*/256);
  for (const Task& task : all_tasks())
    for (const Document& document : load_task(task, data_folder, /*few_shot=*/0).documents) {
      nlohmann::json requests = nlohmann::json::array();
      for (const EncodedRequest& r : evaluator.encode(task, document))
        requests.push_back({{"context", r.context}, {"continuation", r.continuation}});
      const DocumentScore score = evaluator.score(task, document);
      std::cout << nlohmann::json{{"task", task.name},
                                  {"id", document.id},
                                  {"requests", requests},
                                  {"loglikelihoods", score.loglikelihoods}}
                << "\n";
    }
  return std::cout.good() ? 0 : 1;
}
