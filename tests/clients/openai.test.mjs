// OpenAI's JavaScript SDK against a server on loopback: what its users do, and what it makes of our errors.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { eventually, startServer } from "../common/photon_server.mjs";

let server, client, asked = 0;

const connect = (options = {}) =>
  new OpenAI({
    baseURL: `${server.url}/v1`,
    apiKey: "none",
    fetch: (...request) => {
      ++asked;
      return fetch(...request);
    },
    ...options,
  });

before(async () => {
  server = await startServer();
  client = connect();
});

after(async () => {
  assert.equal(await server?.stop(), 0);
});

const model = "photon-stories";
const prompt = "Once upon a time, there was a little girl named Lily. She";
const greedy = { model, prompt, temperature: 0, max_tokens: 24 };

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks, index = 0) =>
  chunks.flatMap((chunk) => chunk.choices.filter((choice) => choice.index === index).map(({ text }) => text)).join("");

/** Exactly one request, however many times the SDK would like to try again. */
async function refused(request, type, check) {
  const before = asked;
  await assert.rejects(request, (error) => {
    assert.ok(error instanceof type, `${error}`);
    check(error);
    return true;
  });
  assert.equal(asked, before + 1);
}

test("lists the model", async () => {
  const models = (await client.models.list()).data;
  assert.deepEqual(models.map(({ id, object }) => [id, object]), [[model, "model"]]);
});

test("completes, and says what it took", async () => {
  const completion = await client.completions.create(greedy);
  assert.equal(completion.object, "text_completion");
  assert.equal(completion.model, model);
  assert.match(completion.id, /^cmpl-/);
  assert.ok(Math.abs(completion.created - Date.now() / 1000) < 60);
  const [choice] = completion.choices;
  assert.equal(choice.index, 0);
  assert.equal(choice.finish_reason, "length");
  assert.ok(choice.text.startsWith(" "));
  const { prompt_tokens, completion_tokens, total_tokens, photon } = completion.usage;
  assert.equal(completion_tokens, 24);
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
  assert.equal(photon.protocol, "hiergen");
  assert.ok(photon.kv_bytes_constant > 0);
  const longer = (await client.completions.create({ ...greedy, max_tokens: 100 })).usage;  // fills a top-level unit
  assert.ok(longer.photon.kv_bytes_growing > 0);
  assert.equal(longer.photon.kv_bytes_constant, photon.kv_bytes_constant);
});

test("streams the same text, null finish_reason until the last, usage only when asked", async () => {
  const whole = await client.completions.create(greedy);
  const plain = await collect(await client.completions.create({ ...greedy, stream: true }));
  assert.equal(textOf(plain), whole.choices[0].text);
  const reasons = plain.map((chunk) => chunk.choices[0].finish_reason);
  assert.equal(reasons.pop(), "length");
  assert.ok(reasons.every((reason) => reason === null));
  assert.ok(plain.every((chunk) => chunk.usage === undefined));
  const counted = await collect(
    await client.completions.create({ ...greedy, stream: true, stream_options: { include_usage: true } }));
  const last = counted.pop();
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.completion_tokens, 24);
  assert.ok(counted.every((chunk) => chunk.usage === null));
  assert.equal(textOf(counted), whole.choices[0].text);
});

test("a prompt that was read before comes from the prefix cache, with the same answer", async () => {
  const long = { ...greedy, prompt: `${"The cat and the dog went to the park. ".repeat(12)}Then` };
  const first = await client.completions.create(long);
  const second = await client.completions.create(long);
  assert.equal(second.choices[0].text, first.choices[0].text);
  assert.ok(second.usage.prompt_tokens_details.cached_tokens > 0);
  assert.ok(second.usage.prompt_tokens_details.cached_tokens < second.usage.prompt_tokens);
});

test("log-probabilities: the greedy token is the likeliest, and scores are the same when echoed", async () => {
  const { choices: [choice] } = await client.completions.create({ ...greedy, logprobs: 3 });
  const { tokens, token_logprobs, top_logprobs, text_offset } = choice.logprobs;
  assert.equal(tokens.length, 24);
  assert.equal(tokens.join(""), choice.text);
  token_logprobs.forEach((logprob, i) => {
    assert.ok(logprob <= 0);
    assert.equal(logprob, Math.max(...Object.values(top_logprobs[i])));
    assert.equal(top_logprobs[i][tokens[i]], logprob);
  });
  assert.deepEqual(text_offset, tokens.map((_, i) => tokens.slice(0, i).join("").length));
  const echoed = await client.completions.create(
    { ...greedy, prompt: prompt + choice.text, max_tokens: 0, echo: true, logprobs: 0 });
  assert.equal(echoed.choices[0].text, prompt + choice.text);
  const scores = echoed.choices[0].logprobs.token_logprobs;
  assert.equal(scores[0], null);
  assert.equal(scores.length, echoed.usage.prompt_tokens);
  scores.slice(-24).forEach((score, i) => assert.ok(Math.abs(score - token_logprobs[i]) < 1e-4));
});

test("n continuations and several prompts: choices in order, each reproducible by its seed", async () => {
  const sampled = { model, prompt: [prompt, "One day,"], n: 3, temperature: 1, seed: 11, max_tokens: 12 };
  const one = await client.completions.create(sampled);
  assert.deepEqual(one.choices.map((choice) => choice.index), [0, 1, 2, 3, 4, 5]);
  assert.ok(new Set(one.choices.map((choice) => choice.text)).size > 2);
  const again = await collect(await client.completions.create({ ...sampled, stream: true }));
  for (const choice of one.choices) assert.equal(textOf(again, choice.index), choice.text);
});

test("stop strings end the text and are no part of it", async () => {
  const { choices: [free] } = await client.completions.create(greedy);
  const stop = free.text.slice(14, 18);
  const { choices: [choice] } = await client.completions.create({ ...greedy, stop: [stop] });
  assert.equal(choice.text, free.text.slice(0, free.text.indexOf(stop)));
  assert.equal(choice.finish_reason, "stop");
  const streamed = await collect(await client.completions.create({ ...greedy, stop: [stop], stream: true }));
  assert.equal(textOf(streamed), choice.text);
});

test("photon's own fields pass through the SDK", async () => {
  const recursive = await client.completions.create({ ...greedy, protocol: "recgen" });
  assert.equal(recursive.usage.photon.protocol, "recgen");
  const { usage } = await client.completions.create(greedy);
  assert.equal(usage.photon.protocol, "hiergen");
});

test("mistakes are typed errors that name the field, and are not tried again", async () => {
  await refused(client.completions.create({ ...greedy, temperature: -1 }), OpenAI.BadRequestError, (error) => {
    assert.equal(error.status, 400);
    assert.equal(error.param, "temperature");
    assert.equal(error.type, "invalid_request_error");
    assert.match(error.message, /temperature/);
  });
  await refused(client.completions.create({ ...greedy, best: 2 }), OpenAI.BadRequestError,
    (error) => assert.equal(error.param, "best"));
  await refused(client.completions.create({ ...greedy, model: "gpt-4" }), OpenAI.NotFoundError,
    (error) => assert.match(error.message, /gpt-4/));
  const { n_ctx } = await (await fetch(`${server.url}/props`)).json();
  await refused(client.completions.create({ ...greedy, max_tokens: n_ctx }), OpenAI.BadRequestError, (error) => {
    assert.equal(error.code, "context_length_exceeded");
    assert.match(error.message.replaceAll(",", ""), new RegExp(String(n_ctx)));
  });
  await refused(client.embeddings.create({ model, input: "x" }), OpenAI.NotFoundError, () => {});
  await refused(client.chat.completions.create({ model, messages: [{ role: "user", content: "Hello" }] }),
    OpenAI.BadRequestError, (error) => assert.match(error.message, /template/));
});

test("a client that goes frees its place at once", async () => {
  const endless = { ...greedy, max_tokens: 500_000, ignore_eos: true, stream: true };  // a minute's work
  const stream = await client.completions.create(endless);
  let seen = 0;
  for await (const _ of stream) {
    if (++seen === 3) break;  // the SDK then ends the connection
  }
  await eventually(async () => (await server.metric("num_requests_running")) === 0, "the slot is free");
  const abort = new AbortController();
  const waiting = client.completions.create({ ...endless, stream: false }, { signal: abort.signal });
  await eventually(async () => (await server.metric("num_requests_running")) === 1, "it runs");
  abort.abort();
  await assert.rejects(waiting, OpenAI.APIUserAbortError);
  await eventually(async () => (await server.metric("num_requests_running")) === 0, "the slot is free");
  assert.equal((await client.completions.create(greedy)).usage.completion_tokens, 24);
});

test("a key is asked for where the server has one", async () => {
  const locked = await startServer(["--api-key", "sesame"]);
  try {
    const baseURL = `${locked.url}/v1`;
    await refused(connect({ baseURL, apiKey: "wrong" }).completions.create(greedy), OpenAI.AuthenticationError,
      (error) => assert.equal(error.status, 401));
    const completion = await connect({ baseURL, apiKey: "sesame" }).completions.create(greedy);
    assert.equal(completion.usage.completion_tokens, 24);
  } finally {
    await locked.stop();
  }
});
