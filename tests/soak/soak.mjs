// A mixed soak of `photon serve`: clients of all kinds at once, for minutes.  What must hold in the end: every answer
// is the one that its request gets alone, memory stays flat, /metrics counted what the clients counted, nothing was a
// 5xx, and the server ends with 0.   tests/soak/run [--minutes 10] [--cancellations 1000] [--clients 16] [--seed 1]
import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { eventually } from "../common/photon_server.mjs";
import { startProcess } from "./processes.mjs";
import {
  below, choicesOf, choicesOfStream, completionRequest, pick, randomNumbers, wrongRequests,
} from "./requests.mjs";

const { values: options } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    cancellations: { type: "string", default: "1000" },
    clients: { type: "string", default: "16" },
    variants: { type: "string", default: "80" },  // of requests with a known answer
    "max-growth": { type: "string", default: "16" },  // MiB, after the warm-up
    seed: { type: "string", default: "1" },
  },
});
const nCtx = 640, kvMiB = 24;
const random = randomNumbers(Number(options.seed));

const server = await startProcess(["--memory", `${kvMiB}MiB`, "--n-ctx", `${nCtx}`, "--quiet"]);
const { vocab_size: vocabSize } = await (await fetch(`${server.url}/props`)).json();
const { hostname, port } = new URL(server.url);

// ---- what the clients count ----

const count = {
  statuses: new Map(),  // of requests that were answered in full
  prompts: 0, promptTokens: 0, generatedTokens: 0,  // of completions
  refused: 0,   // completions that were wrong
  cancelled: 0, cancelledPrompts: 0, cancelledTokens: 0,  // requests given up; tokens: as many as they asked for
};
const failures = [];

function countAnswer(status) {
  count.statuses.set(status, (count.statuses.get(status) ?? 0) + 1);
  if (status >= 500) failures.push(`an answer of status ${status}`);
}
function countCompletion(body, usage) {
  count.prompts += promptsOf(body);
  count.promptTokens += usage.prompt_tokens;
  count.generatedTokens += usage.completion_tokens;
}
const promptsOf = ({ prompt }) => (Array.isArray(prompt) && typeof prompt[0] !== "number" ? prompt.length : 1);

async function ask({ path, method = "GET", body }, signal) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  return fetch(server.url + path, { method, body, headers, signal });
}
async function askText(request) {
  const answer = await ask(request);
  const text = await answer.text();
  countAnswer(answer.status);
  return { status: answer.status, text };
}
const completion = (body) => ({ path: "/v1/completions", method: "POST", body: JSON.stringify(body) });
const streamed = (body) => completion({ ...body, stream: true, stream_options: { include_usage: true } });

/** All figures of /metrics: "name{labels}" without the model's name, to numbers. */
async function metrics() {
  const { text } = await askText({ path: "/metrics" });
  const figures = new Map();
  for (const line of text.split("\n").filter((each) => each.startsWith("photon:"))) {
    const [, name, labels, value] = /^photon:(\w+)\{(.*)\} (\S+)$/.exec(line);
    figures.set(`${name} ${labels}`, Number(value));
  }
  const sum = (name, ...labels) =>
    [...figures].filter(([key]) => key.startsWith(`${name} `) && labels.every((label) => key.includes(label)))
      .reduce((total, [, value]) => total + value, 0);
  return { sum };
}

// ---- what clients do ----

const variants = [];

function check(variant, choices, how) {
  const got = JSON.stringify(choices);
  const [asked, right] = [JSON.stringify(variant.body), variant.answer];
  if (got !== right)
    failures.push(`${how}, ${asked.slice(0, 300)}\n  gave ${got.slice(0, 600)}\n  alone ${right.slice(0, 600)}`);
}
function checkStream(variant, status, text, how) {
  countAnswer(status);
  if (status !== 200) return failures.push(`${how}: ${status}: ${text}`);
  check(variant, choicesOfStream(text), how);
  countCompletion(variant.body, JSON.parse(text.trimEnd().split("\n\n").at(-2).slice("data: ".length)).usage);
}

async function askWhole(variant) {
  const { status, text } = await askText(completion(variant.body));
  if (status !== 200) return failures.push(`${status}: ${text}`);
  const answer = JSON.parse(text);
  check(variant, choicesOf(answer), "whole");
  countCompletion(variant.body, answer.usage);
}

async function askStream(variant) {
  const answer = await ask(streamed(variant.body));
  checkStream(variant, answer.status, await answer.text(), "as a stream");
}

/** Takes a stream a few bytes at a time. */
async function readSlowly(variant) {
  const { path, body } = streamed(variant.body);
  const request = http.request({ hostname, port, path, method: "POST", agent: false,
    headers: { "content-type": "application/json" } });
  request.end(body);
  const answer = await new Promise((resolve, reject) => request.on("response", resolve).on("error", reject));
  const pieces = [];
  let ended = false;
  answer.on("end", () => { ended = true; });
  answer.pause();
  while (!ended) {
    const piece = answer.read(Math.min(200, answer.readableLength)) ?? answer.read();
    if (piece) pieces.push(piece);
    await sleep(2);
  }
  checkStream(variant, answer.statusCode, Buffer.concat(pieces).toString(), "read slowly");
}

async function askWrongly() {
  const wrong = pick(random, wrongRequests(nCtx, vocabSize));
  const { status, text } = await askText(wrong);
  if (wrong.parsed) ++count.refused;
  if (status !== wrong.status) failures.push(`${wrong.body ?? wrong.path}: ${status}, not ${wrong.status}: ${text}`);
  else if (!JSON.parse(text).error?.message) failures.push(`${wrong.path}: an error without a message: ${text}`);
}

/** Asks, and goes: before the answer begins, or somewhere in it. */
async function giveUp(variant) {
  const body = { ...variant.body, max_tokens: 200, ignore_eos: true };
  ++count.cancelled;
  count.cancelledPrompts += promptsOf(body);
  count.cancelledTokens += promptsOf(body) * (body.best_of ?? body.n) * body.max_tokens;
  const torn = random() < 0.1;  // not even the request is whole
  if (torn) {
    const socket = net.connect(Number(port), hostname);
    socket.on("error", () => {});
    const bytes = Buffer.from(JSON.stringify(body));
    const headers = ["host: x", "content-type: application/json", `content-length: ${bytes.length}`];
    socket.write(`POST /v1/completions HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n`);
    socket.write(bytes.subarray(0, below(random, bytes.length)));
    await sleep(below(random, 20));
    return socket.resetAndDestroy();
  }
  const controller = new AbortController();
  const afterPieces = variant.streamable && random() < 0.5 ? 1 + below(random, 20) : 0;
  try {
    const answer = ask(afterPieces > 0 ? streamed(body) : completion(body), controller.signal);
    if (afterPieces === 0) {
      await Promise.race([sleep(below(random, 60)), answer]);
    } else {
      let n = 0;
      for await (const _ of (await answer).body) if (++n === afterPieces) break;
    }
    controller.abort();
    await answer.then((late) => late.text());
  } catch (error) {
    if (error.name !== "AbortError" && error.name !== "TypeError") throw error;  // TypeError: the body was given up
  }
}

const habits = [askWhole, askWhole, askStream, askStream, readSlowly, giveUp, giveUp, askWrongly];

async function client(until, mayEnd) {
  while ((Date.now() < until || !mayEnd()) && failures.length === 0) {
    const owed = Date.now() >= until;  // time is over, cancellations are not
    const habit = owed ? giveUp : pick(random, habits);
    const streams = habit === askStream || habit === readSlowly;
    const variant = pick(random, streams ? variants.filter(({ streamable }) => streamable) : variants);
    try {
      await habit(variant);
    } catch (error) {
      failures.push(`${habit.name}: ${error.stack} ${error.cause ?? ""}`);
    }
  }
}

// ---- the run ----

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

try {
  const start = await metrics();
  count.statuses.clear();
  count.statuses.set(200, 1);  // that of /metrics, which did not count itself

  // Alone: what every request's answer is.
  for (let i = 0; i < Number(options.variants); ++i) {
    const { body, streamable } = completionRequest(random, vocabSize);
    const { status, text } = await askText(completion(body));
    assert.equal(status, 200, `${JSON.stringify(body)}: ${text}`);
    const answer = JSON.parse(text);
    countCompletion(body, answer.usage);
    variants.push({ body, streamable, answer: JSON.stringify(choicesOf(answer)) });
  }
  const alone = await metrics();
  const since = (figures, earlier, ...what) => figures.sum(...what) - earlier.sum(...what);
  assert.equal(since(alone, start, "generation_tokens_total"), count.generatedTokens);
  assert.equal(since(alone, start, "prompt_tokens_total"), count.promptTokens);
  console.log(`${variants.length} requests answered alone; ${options.minutes} minutes with ${options.clients} clients`);

  const end = Date.now() + 60_000 * Number(options.minutes);
  const memory = [];  // bytes, four times a second
  let over = false;
  const watch = (async () => {
    for (let n = 1; !over; ++n) {
      await sleep(250);
      memory.push(server.rss());
      if (n % 240 === 0)
        console.log(`${n / 240} min: ${count.prompts} prompts, ${count.cancelled} cancelled, ` +
          `${count.refused} refused, ${server.rss() >> 20} MiB`);
    }
  })();
  const enough = () => count.cancelled >= Number(options.cancellations);
  await Promise.all(Array.from({ length: Number(options.clients) }, () => client(end, enough)));
  over = true;
  await watch;
  assert.deepEqual(failures, []);

  // Once more alone, after all that.
  for (const variant of variants.slice(0, 10)) await askWhole(variant);
  assert.deepEqual(failures, []);

  // What was given up is gone, too.
  await eventually(async () => {
    const { sum } = await metrics();
    return sum("num_requests_running") + sum("num_requests_waiting") + sum("num_sequences_running") === 0 &&
      sum("kv_bytes", 'kind="growing"') + sum("kv_bytes", 'kind="constant"') === 0;
  }, "the server is idle, and its sequences hold no memory");

  const finish = await metrics();
  const made = (...what) => since(finish, start, ...what);
  const between = (what, got, least, most) =>
    assert.ok(least <= got && got <= most, `${what}: the server counted ${got}, the clients ${least} to ${most}`);
  for (const status of [400, 404, 405]) {
    const answers = made("http_responses_total", `status="${status}"`);
    assert.equal(answers, count.statuses.get(status) ?? 0, `answers of status ${status}`);
  }
  // The answer that holds these figures is not yet among them.
  const whole = count.statuses.get(200) - 1;
  between("answers of status 200", made("http_responses_total", 'status="200"'), whole, whole + count.cancelled);
  assert.equal(made("requests_total", 'outcome="refused"'), count.refused, "refused requests");
  assert.equal(made("requests_total", 'outcome="failed"'), 0, "failed requests");
  const ended = made("requests_total", 'outcome="stop"') + made("requests_total", 'outcome="length"');
  between("finished prompts", ended, count.prompts, count.prompts + count.cancelledPrompts);
  between("cancelled prompts", made("requests_total", 'outcome="cancelled"'), 0, count.cancelledPrompts);
  between("generated tokens", made("generation_tokens_total"), count.generatedTokens,
    count.generatedTokens + count.cancelledTokens);

  const part = memory.length / 6;  // the first two are the warm-up
  const medianOfPart = (_, i) => median(memory.slice(Math.floor(i * part), Math.floor((i + 1) * part)));
  const medians = Array.from({ length: 6 }, medianOfPart);
  console.log(`${count.prompts} prompts, ${count.generatedTokens} tokens, ${count.cancelled} cancelled, ` +
    `${count.refused} refused; MiB over time: ${medians.map((bytes) => bytes >> 20).join(" ")}`);
  assert.ok(medians[5] < medians[2] + Number(options["max-growth"]) * 2 ** 20, "memory grew after the warm-up");
  assert.ok(made("requests_total", 'outcome="cancelled"') > 0, "nothing was cancelled in time, so nothing was tested");
} finally {
  assert.equal(await server.stop(), 0, "exit code after SIGTERM");
}
