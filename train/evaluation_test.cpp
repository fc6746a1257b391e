// What `photon eval` says of a document is what the training model's forward pass says.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/child.h"
#include "train/export.h"

namespace photon {
namespace {

using nlohmann::json;
const std::filesystem::path source = PHOTON_SOURCE_DIR;

// ln p(continuation | context), by one forward pass over both.
double loglikelihood(Photon& model, const json& request) {
  torch::NoGradGuard no_grad;
  auto tokens = request["context"].get<std::vector<int64_t>>();
  const auto n_context = static_cast<int64_t>(tokens.size());
  const auto continuation = request["continuation"].get<std::vector<int64_t>>();
  tokens.insert(tokens.end(), continuation.begin(), continuation.end());
  const torch::Tensor ids = torch::tensor(tokens).unsqueeze(0);
  const torch::Tensor logprobs = torch::log_softmax(model.forward(ids).logits[0], -1);  // [T, V]
  return logprobs.gather(1, ids[0].unsqueeze(1)).slice(0, n_context).sum(torch::kFloat64).item<double>();
}

class Evaluation : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Bundled, Evaluation, testing::Values("photon-stories", "vanilla-stories"),
                         [](const auto& model) { return model.param.substr(0, model.param.find('-')); });

TEST_P(Evaluation, OfEveryDocumentIsLibTorchsForwardInFloat32) {
  const std::string folder = source / "models" / GetParam();
  const auto printed = run_program({PRINT_REQUESTS, folder, source / "eval" / "testdata"}, ".");
  ASSERT_TRUE(printed);
  const auto model = load_model_folder(folder);
  std::map<std::string, int> n_documents;
  std::istringstream lines(*printed);
  for (std::string line; std::getline(lines, line);) {
    const json document = json::parse(line);
    const json& got = document["loglikelihoods"];
    std::vector<double> want(got.size());
    for (size_t r = 0; r < document["requests"].size(); ++r)  // the windows of a long text are added up
      want[got.size() == 1 ? 0 : r] += loglikelihood(*model, document["requests"][r]);
    for (size_t r = 0; r < want.size(); ++r)
      EXPECT_NEAR(got[r].get<double>(), want[r], 1e-4) << document["task"] << " " << document["id"];
    ++n_documents[document["task"]];
  }
  EXPECT_EQ(n_documents.size(), 7u);
  for (const auto& [task, n] : n_documents) EXPECT_GE(n, 20) << task;
}

}  // namespace
}  // namespace photon
