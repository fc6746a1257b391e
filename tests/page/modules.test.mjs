// The page's modules that compute, without a browser; and their types.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const web = `${process.env.PHOTON_SOURCE}/serve/web`;
const built = mkdtempSync(join(tmpdir(), "photon-page-"));
const modules = ["sse", "hierarchy", "token_stream", "prompt_tokens", "format", "props", "markdown"];
execFileSync("esbuild", [...modules.map((name) => `${web}/${name}.ts`), "--format=esm", "--out-extension:.js=.mjs",
  `--outdir=${built}`, "--log-level=warning"]);
const load = (name) => import(join(built, `${name}.mjs`));

test("the types of the page's modules agree", () => {
  execFileSync("tsc", ["-p", web], { stdio: "inherit" });
});

test("events are the same however the stream is cut", async () => {
  const { SseParser } = await load("sse");
  const stream = ": ping\n\ndata: {\"a\":1}\r\n\r\ndata:two\ndata: lines\n\nevent: other\n\ndata: unfinished";
  for (let size = 1; size <= stream.length; ++size) {
    const parser = new SseParser(), events = [];
    for (let at = 0; at < stream.length; at += size) events.push(...parser.push(stream.slice(at, at + size)));
    assert.deepEqual(events, ['{"a":1}', "two\nlines"], `in pieces of ${size}`);
  }
});

const levels = (...chunks) => chunks.map((chunk_size) => ({ chunk_size }));

test("a token begins the units whose sizes divide its position", async () => {
  const { boundaryLevel, tokensPerUnit, unitsAfter } = await load("hierarchy");
  const sizes = tokensPerUnit(levels(4, 3));
  assert.deepEqual(sizes, [1, 4, 12]);
  assert.deepEqual([0, 1, 4, 8, 12, 16, 24].map((position) => boundaryLevel(position, sizes)), [2, 0, 1, 1, 2, 1, 2]);
  assert.deepEqual(unitsAfter(23, sizes), [23, 5, 1]);
  assert.equal(boundaryLevel(5, tokensPerUnit([])), 0);
});

test("bounded spans hold the newest units, others all of them", async () => {
  const { firstHeld, firstTokenHeld } = await load("hierarchy");
  assert.equal(firstHeld(40, { kind: "global" }), 0);
  assert.equal(firstHeld(40, { kind: "window", size: 16 }), 24);
  assert.equal(firstHeld(7, { kind: "window", size: 16 }), 0);
  assert.deepEqual([3, 4, 5, 8].map((n) => firstHeld(n, { kind: "block", size: 4 })), [0, 0, 4, 4]);
  // Groups of a prefix and four tokens: the last ten positions are two whole groups.
  const stream = { chunk_size: 4, converter_len: 1, decoder_span: { kind: "stream", size: 10 } };
  assert.equal(firstTokenHeld(16, stream), 8);
  assert.equal(firstTokenHeld(17, stream), 9);
  assert.equal(firstTokenHeld(18, { ...stream, decoder_span: { kind: "chunk" } }), 16);
});

test("tokens get the text between their offsets, and late characters go to the token that began them", async () => {
  const { TokenStream } = await load("token_stream");
  const delta = (text, ids, offsets) => ({
    text, token_ids: ids, finish_reason: null,
    logprobs: { tokens: ids.map(String), text_offset: offsets, token_logprobs: ids.map(() => -1), top_logprobs: null },
  });
  const stream = new TokenStream(16);
  const items = [
    ...stream.take(delta(" the 🌻", [5, 6], [0, 4])),
    ...stream.take(delta("", [7], [6])),
    ...stream.take(delta("é sun", [8], [7])),
    ...stream.take({ text: ".", token_ids: [], finish_reason: "length", logprobs: null }),
  ];
  assert.deepEqual(items.map(({ text, rest, position }) => [text ?? rest, position]),
    [[" the", 16], [" 🌻", 17], ["", 18], ["é", 18], [" sun", 19], [".", 19]]);
});

test("a prompt's tokens make up the prompt", async () => {
  const { promptTokens } = await load("prompt_tokens");
  const cases = [
    ["Once upon", ["<s>", " On", "ce", " upon"], ["", "On", "ce", " upon"]],
    ["  two", ["<s>", "  ", " two"], ["", "  ", "two"]],
    ["a🌻é!", ["<s>", " a", "<0xF0>", "<0x9F>", "<0x8C>", "<0xBB>", "é", "!"], ["", "a", "🌻", "", "", "", "é", "!"]],
  ];
  for (const [prompt, names, texts] of cases) {
    const tokens = promptTokens(prompt, names.map((_, i) => i + 1), names, 1);
    assert.deepEqual(tokens.map((token) => token.text), texts);
    assert.equal(texts.join(""), prompt);
  }
});

test("numbers are short", async () => {
  const { bytes, percent, rate, ratio } = await load("format");
  assert.deepEqual([0, 999, 1000, 282624, 999_600, 50_331_648].map(bytes),
    ["0 B", "999 B", "1 kB", "283 kB", "1 MB", "50.3 MB"]);
  assert.deepEqual([0.5, 0.0312, 0.0004].map(percent), ["50 %", "3.1 %", "0.04 %"]);
  assert.deepEqual([4366.5, 17.26].map(rate), ["4,367", "17.3"]);
  assert.deepEqual([3.14, 64].map(ratio), ["3.1×", "64×"]);
});

test("the glossary's Markdown: every term once, with a text, and nothing left of the markup", async () => {
  const { idOf, parseInline, parseMarkdown } = await load("markdown");
  assert.deepEqual(parseInline("a `b` **c** [d](e.md)"),
    [{ kind: "text", text: "a " }, { kind: "code", text: "b" }, { kind: "text", text: " " }, { kind: "strong", text: "c" },
      { kind: "text", text: " d" }]);
  assert.equal(idOf("Span `window(w)`"), "span-window-w");
  assert.deepEqual(parseMarkdown("# A\n\ntwo\nlines\n\n* **B** (b): one\n  more: two\n* **C**: three").map((b) => b.kind),
    ["heading", "paragraph", "term", "term"]);
  const blocks = parseMarkdown(readFileSync(`${process.env.PHOTON_SOURCE}/docs/glossary.md`, "utf8"));
  const ids = blocks.filter((block) => block.kind === "term").map((block) => block.id);
  assert.equal(new Set(ids).size, ids.length);
  for (const id of ["level", "unit", "chunk", "group", "slot", "span", "hiergen", "recgen", "prefill", "decode", "kv-cache", "tpm"]) {
    assert.ok(ids.includes(id), id);
  }
  for (const { text, name = [] } of blocks) {
    assert.ok(text.length > 0);
    assert.doesNotMatch([...name, ...text].map((part) => part.text).join(""), /\*\*|`|\]\(/);
  }
});
