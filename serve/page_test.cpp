#include "serve/page.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <regex>
#include <string>

#include "serve/web_assets.h"

namespace photon {
namespace {

struct PageAnswer : Responder {
  int status = 0;
  std::string type, body;
  std::map<std::string, std::string> headers;

  void send(int code, std::string_view content_type, std::string bytes, const Headers& sent) override {
    status = code;
    type = content_type;
    body = std::move(bytes);
    headers = {sent.begin(), sent.end()};
  }
  void start_events(const Headers&) override {}
  void write(std::string) override {}
  void finish() override {}
  void on_disconnect(std::function<void()>) override {}
};

PageAnswer get_page(const std::string& path, const std::string& known_etag = {}) {
  Router router({"a key"});  // the page needs none
  add_page(router);
  router.set_phase(Phase::ready);
  HttpRequest request;
  request.method = "GET";
  request.path = path;
  if (!known_etag.empty()) request.headers.emplace_back("if-none-match", known_etag);
  auto answer = std::make_shared<PageAnswer>();
  router.handle(request, answer);
  return *answer;
}

TEST(Page, EveryFileIsServedAsWhatItIsAndMayLoadNothingFromElsewhere) {
  ASSERT_EQ(web_assets().size(), 6u);
  for (const WebAsset& asset : web_assets()) {
    PageAnswer answer = get_page(std::string(asset.path));
    EXPECT_EQ(answer.status, 200) << asset.path;
    EXPECT_EQ(answer.type, asset.content_type);
    EXPECT_EQ(answer.body, asset.bytes);
    EXPECT_EQ(answer.headers["X-Content-Type-Options"], "nosniff");
    const std::string policy = answer.headers["Content-Security-Policy"];
    EXPECT_NE(policy.find("default-src 'none'"), std::string::npos);
    EXPECT_EQ(policy.find("unsafe"), std::string::npos);
    EXPECT_EQ(policy.find("http"), std::string::npos);
  }
}

TEST(Page, AFileThatTheBrowserHasIsNotSentAgain) {
  const std::string etag = get_page("/page.js").headers["ETag"];
  const PageAnswer again = get_page("/page.js", "W/" + etag + ", \"another\"");
  EXPECT_EQ(again.status, 304);
  EXPECT_EQ(again.body, "");
  EXPECT_EQ(get_page("/page.js", "\"another\"").status, 200);
  EXPECT_NE(get_page("/page.css").headers["ETag"], etag);
}

TEST(Page, NamesOnlyFilesThatAreServedAndHasNothingInline) {
  const std::regex reference(R"re((?:src|href)="(?:\./)?([^"#]*)")re");
  for (const char* path : {"/", "/glossary"}) {
    const std::string html = get_page(path).body;
    for (auto found = std::sregex_iterator(html.begin(), html.end(), reference); found != std::sregex_iterator();
         ++found) {
      EXPECT_EQ(get_page("/" + (*found)[1].str()).status, 200) << path << ": " << (*found)[0].str();
    }
    EXPECT_FALSE(
        std::regex_search(html, std::regex(R"(<style|<script(?![^>]*\ssrc=)|\sstyle=|\son[a-z]+=|javascript:)")));
  }
  EXPECT_NE(get_page("/").body.find("href=\"glossary\""), std::string::npos);
}

TEST(Page, TheGlossaryIsThatOfTheDocs) {
  const std::string script = get_page("/glossary.js").body;
  for (const char* words : {"hiergen", "recgen", "The measure of the paper."})
    EXPECT_NE(script.find(words), std::string::npos) << words;
}

}  // namespace
}  // namespace photon
