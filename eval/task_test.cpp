// The tasks' requests against golden ones that were worked out from the rules, and what broken files are told.
//
// testdata/ holds made-up documents in the datasets' published formats.
#include "eval/task.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using testing_support::TemporaryFolder;

const fs::path testdata = fs::path(PHOTON_SOURCE_DIR) / "eval" / "testdata";

class GoldenRequests : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Tasks, GoldenRequests,
                         testing::Values("wikitext", "lambada", "hellaswag", "piqa", "arc_easy", "sciq", "winogrande"),
                         [](const auto& task) { return task.param; });

TEST_P(GoldenRequests, AreMadeOfThePublishedFiles) {
  const TaskData data = load_task(find_task(GetParam()), testdata, 0);
  const std::vector<std::string> golden = read_lines(testdata / (GetParam() + ".golden.jsonl"));
  ASSERT_EQ(data.documents.size(), golden.size());
  EXPECT_GE(golden.size(), 20u);
  for (std::size_t i = 0; i < golden.size(); ++i) {
    const auto want = nlohmann::json::parse(golden[i]);
    const Document& got = data.documents[i];
    SCOPED_TRACE("document " + std::to_string(i));
    ASSERT_EQ(got.requests.size(), want["requests"].size());
    for (std::size_t r = 0; r < got.requests.size(); ++r) {
      EXPECT_EQ(got.requests[r].context, want["requests"][r][0]);
      EXPECT_EQ(got.requests[r].continuation, want["requests"][r][1]);
    }
    EXPECT_EQ(got.gold, want["gold"]);
    EXPECT_EQ(got.choice_lengths, want["lengths"].get<std::vector<std::int64_t>>());
    EXPECT_EQ(got.id, want["id"]);
    EXPECT_EQ(got.answer, want["answer"]);
    EXPECT_EQ(got.n_words, want.value("words", std::int64_t{0}));
    EXPECT_EQ(got.n_bytes, want.value("bytes", std::int64_t{0}));
  }
}

TEST(FewShot, ExamplesAreTheFirstOfTheirFileWithTheirAnswers) {
  const auto context = [](const char* task, std::int64_t k, std::size_t document, std::size_t request = 0) {
    return load_task(find_task(task), testdata, k).documents[document].requests[request].context;
  };
  EXPECT_EQ(context("hellaswag", 2, 3),
            "Walking a dog: A dog pulls. The boy runs behind it.\n\n"
            "How to boil water: How to boil water. Take a pot. Fill it. With water.\n\n"
            "Skating: A girl laces her skates. She then");
  EXPECT_EQ(context("piqa", 2, 9, 1),
            "Question: Open a jar\nAnswer: Twist the lid.\n\nQuestion: Dry a cup\nAnswer: Use a towel.\n\n"
            "Question: lamp\nAnswer:");
  EXPECT_EQ(context("arc_easy", 2, 0),
            "Question: What melts?\nAnswer: ice\n\nQuestion: What burns?\nAnswer: wood\n\n"
            "Question: Which of these is a liquid at room temperature?\nAnswer:");
  EXPECT_EQ(context("sciq", 1, 1),
            "Wool is soft.\nQuestion: What is soft?\nAnswer: wool\n\n\nQuestion: What force slows a sliding "
            "block?\nAnswer:");
  EXPECT_EQ(context("winogrande", 2, 0, 1),
            "The bag tore because the bag was thin.\n\nBen lost to Max, who trained.\n\n"
            "The cup did not fit on the shelf because the shelf");
}

TEST(FewShot, ATaskWithoutAnotherFileLeavesOutTheDocumentInQuestion) {
  const TaskData data = load_task(find_task("lambada"), testdata, 1);
  EXPECT_EQ(
      data.documents[0].requests[0].context,
      "“Where is he?” she asked, and nobody knew where he was hiding\n\nThe baker opened the door and smelled the");
  EXPECT_EQ(data.documents[2].requests[0].context, "The baker opened the door and smelled the bread\n\none");
  const std::string all_others = load_task(find_task("lambada"), testdata, 20).documents[7].requests[0].context;
  EXPECT_EQ(all_others.find("A tab"), all_others.rfind("A tab")) << "only the question itself";
  EXPECT_THROW(load_task(find_task("lambada"), testdata, 21), InputError);
  EXPECT_THROW(load_task(find_task("piqa"), testdata, 4), InputError);
}

TEST(FewShot, RollingTasksHaveNone) {
  const TaskData data = load_task(find_task("wikitext"), testdata, 3);
  EXPECT_EQ(data.few_shot, 0);
  EXPECT_EQ(data.documents[1].requests[0].context, "");
}

TEST(Tasks, AreFoundByNameAndNameEachOther) {
  EXPECT_EQ(all_tasks().size(), 7u);
  try {
    find_task("hellaswagg");
    FAIL();
  } catch (const InputError& e) {
    EXPECT_NE(std::string(e.what()).find("winogrande"), std::string::npos);
  }
}

TEST(Tasks, PlainFormsHoldTheSameDocuments) {
  const TemporaryFolder folder;
  folder.write("hellaswag-val.jsonl",
               R"({"ctx": "Boats: A boat [x] sails. it", "endings": ["a  b", "c"], "label": 1})");
  folder.write("arc-easy-test.jsonl", R"({"id": "M", "question": "Q?", "choices": ["a", "bé"], "gold": 1})"
                                      "\n");
  folder.write("sciq-valid.jsonl", R"({"question": "Q?", "distractor3": "c", "distractor1": "a", "distractor2": "b", )"
                                   R"("correct_answer": "d", "support": " s"})"
                                   "\r\n");
  folder.write("winogrande-valid.jsonl", R"({"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "2"})");
  const Document h = load_task(find_task("hellaswag"), folder.path(), 0).documents.at(0);
  EXPECT_EQ(h.requests[0], (ScoreRequest{"Boats: A boat sails. it", " a b"}));
  EXPECT_EQ(h.gold, 1u);
  EXPECT_EQ(h.id, "0");
  const Document a = load_task(find_task("arc_easy"), folder.path(), 0).documents.at(0);
  EXPECT_EQ(a.requests[1], (ScoreRequest{"Question: Q?\nAnswer:", " bé"}));
  EXPECT_EQ(a.choice_lengths, (std::vector<std::int64_t>{1, 2}));
  const TaskData sciq = load_task(find_task("sciq"), folder.path(), 0);
  EXPECT_EQ(sciq.documents.at(0).requests[3], (ScoreRequest{"s\nQuestion: Q?\nAnswer:", " d"}));
  EXPECT_EQ(sciq.file.split, "validation");
  const Document w = load_task(find_task("winogrande"), folder.path(), 0).documents.at(0);
  EXPECT_EQ(w.requests[1], (ScoreRequest{"a y", " b"}));
  EXPECT_EQ(w.id, "0");
}

// What loading a task from these files says.
std::string refusal(const char* task, const std::vector<std::pair<std::string, std::string>>& files) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "piqa");
  for (const auto& [name, text] : files) folder.write(name, text);
  try {
    load_task(find_task(task), folder.path(), 0);
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(DataFiles, LineEndsAndByteOrderMarksAreNoText) {
  const std::string mark = "\xEF\xBB\xBF";
  const auto documents = [](const char* task, const std::string& file, const std::string& text) {
    const TemporaryFolder folder;
    folder.write(file, text);
    return load_task(find_task(task), folder.path(), 0).documents;
  };
  const auto pages = documents("wikitext", "wiki.test.raw", mark + " \r\n = A = \r\n b c . \r\n");
  ASSERT_EQ(pages.size(), 1u);
  const auto plain = documents("wikitext", "wiki.test.raw", " \n = A = \n b c . \n");
  EXPECT_EQ(pages[0].requests[0], plain[0].requests[0]);
  EXPECT_EQ(pages[0].n_bytes, plain[0].n_bytes);
  EXPECT_EQ(documents("lambada", "lambada_test.jsonl", mark + "[{\"text\": \"a b\"}]")[0].requests[0].context, "a");
}

TEST(BrokenFiles, AreNamedWithLineAndField) {
  const auto expect = [](const char* task, const std::vector<std::pair<std::string, std::string>>& files,
                         const std::string& part) {
    const std::string got = refusal(task, files);
    EXPECT_NE(got.find(part), std::string::npos) << got;
  };
  const std::string good = R"({"text": "a b"})"
                           "\n";
  EXPECT_THROW(load_task(find_task("lambada"), "/no/such/folder", 0), InputError);
  for (const char* no_article : {"", "\n", "<html>404</html>\n", "text\n = A = \n"})
    expect("wikitext", {{"wiki.test.raw", no_article}}, "does not begin with an article's heading");
  expect("lambada", {}, "holds no data for lambada; looked for lambada_test.jsonl");
  expect("lambada", {{"lambada_test.jsonl", ""}}, "lambada_test.jsonl: is empty");
  expect("lambada", {{"lambada_test.jsonl", "[]"}}, "lambada_test.jsonl: holds no documents");
  expect("lambada", {{"lambada_test.jsonl", good + "{\"text\": \"a"}}, "lambada_test.jsonl: line 2: no JSON");
  expect("lambada", {{"lambada_test.jsonl", good + "\n" + good}}, "lambada_test.jsonl: line 2: no JSON");
  expect("lambada", {{"lambada_test.jsonl", good + "{\"text\": \"a \xff\"}\n"}}, "lambada_test.jsonl: line 2: no JSON");
  expect("lambada", {{"lambada_test.jsonl", good + "3\n"}}, "line 2: is number, not an object");
  expect("lambada", {{"lambada_test.jsonl", good + "{}\n"}}, "line 2: has no 'text'");
  expect("lambada", {{"lambada_test.jsonl", good + "{\"text\": 3}\n"}}, "line 2: 'text' is number, not a string");
  expect("wikitext", {{"wiki.test.raw", " = A = \n\xff"}}, "wiki.test.raw: is no UTF-8");
  expect("hellaswag", {{"hellaswag_val.jsonl", R"({"ctx_a": "a", "ctx_b": "b", "endings": ["x"], "label": 0})"}},
         "line 1: has no 'activity_label'");
  expect("hellaswag", {{"hellaswag-val.jsonl", R"({"ctx": "a", "endings": ["x", "y"], "label": 2})"}},
         "line 1: 'label' is 2, wanted an integer from 0 to 1");
  expect("hellaswag", {{"hellaswag-val.jsonl", R"({"ctx": "a", "endings": ["x", "y"], "label": ""})"}},
         "'label' is \"\", wanted");  // as in the test split, which has no labels
  expect("hellaswag", {{"hellaswag-val.jsonl", R"({"ctx": "a", "endings": ["x", 1], "label": 0})"}}, "'endings' holds");
  expect("hellaswag", {{"hellaswag-val.jsonl", R"({"ctx": "a", "endings": [], "label": 0})"}}, "'endings' is empty");
  const std::string piqa = R"({"goal": "g", "sol1": "a", "sol2": "b"})"
                           "\n";
  expect("piqa", {{"piqa/valid.jsonl", piqa}}, "valid-labels.lst: is missing");
  expect("piqa", {{"piqa/valid.jsonl", piqa}, {"piqa/valid-labels.lst", "0\n1\n"}}, "has 2 labels");
  expect("piqa", {{"piqa/valid.jsonl", piqa + piqa}, {"piqa/valid-labels.lst", "0\n2\n"}}, "line 2 is '2'");
  const std::string arc = R"({"id": "M", "question": {"stem": "q", "choices": [{"text": "a", "label": "A"}]}, )";
  expect("arc_easy", {{"ARC-Easy-Test.jsonl", arc + R"("answerKey": "B"})"}}, "'answerKey' is 'B', which labels no");
  expect("arc_easy", {{"ARC-Easy-Test.jsonl", arc + R"("answer": "A"})"}}, "line 1: has no 'answerKey'");
  expect("arc_easy",
         {{"ARC-Easy-Test.jsonl", R"({"id": "M", "question": {"choices": [{"label": "A"}]}, "answerKey": "A"})"}},
         "line 1: 'question': 'choices': has no 'text'");
  expect("sciq", {{"sciq-valid.jsonl", "[{\"question\": \"q\"}]"}}, "record 1: has no 'distractor1'");
  expect("winogrande",
         {{"winogrande-valid.jsonl", R"({"sentence": "a b", "option1": "x", "option2": "y", "answer": "1"})"}},
         "'sentence' has no '_'");
  expect("winogrande",
         {{"winogrande-valid.jsonl", R"({"sentence": "a _", "option1": "x", "option2": "y", "answer": ""})"}},
         "'answer' is '', wanted 1 or 2");
}

TEST(Recall, ReadsWhatItsGeneratorWrites) {
  const TemporaryFolder folder;
  folder.write(
      "recall-test.jsonl",
      R"({"kind": "place", "case": "told", "distance": 256, "context": "Where? In the", "answer": "barn", "wrong": ["mill", "inn", "hut"]}
{"kind": "code", "case": "told", "distance": 1024, "context": "What? It was", "answer": "1 2", "wrong": ["3 4", "5 6", "7 8"]}
)");
  const TaskData data = load_task(find_task("recall"), folder.path(), 0);
  ASSERT_EQ(data.documents.size(), 2u);
  EXPECT_EQ(data.documents[0].gold, 0u);
  EXPECT_EQ(data.documents[0].requests[0], (ScoreRequest{"Where? In the", " barn"}));
  EXPECT_EQ(data.documents[1].gold, 1u);
  EXPECT_EQ(data.documents[1].requests[1].continuation, " 1 2");
  EXPECT_EQ(data.documents[1].distance, 1024);
}

TEST(Recall, RowsThatAreCutShortAreNamed) {
  const TemporaryFolder folder;
  for (const auto& [row, problem] :
       {std::pair<std::string, std::string>{R"({"context": "a", "answer": "b", "distance": 1})", "has no 'wrong'"},
        {R"({"context": "a", "answer": "b", "wrong": [], "distance": 1})", "row 1 has no wrong answers"},
        {R"({"context": "a", "answer")", "no JSON"}}) {
    folder.write("recall-test.jsonl", row + "\n");
    try {
      load_task(find_task("recall"), folder.path(), 0);
      ADD_FAILURE() << row;
    } catch (const InputError& e) {
      EXPECT_NE(std::string(e.what()).find(problem), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("recall-test.jsonl"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace photon
