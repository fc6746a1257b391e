// What the soak asks for: completions of all kinds, each of which has one right answer, and requests that are wrong.

/** Numbers from 0 to 1, the same for a seed (mulberry32). */
export function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
export const below = (random, n) => Math.floor(random() * n);
export const pick = (random, list) => list[below(random, list.length)];

const stories = [
  "Once upon a time there was a little girl named Lily. She loved to play in the park with her friends. ",
  "The old man sat by the river and looked at the boats. He had not been there for many years, and yet he knew it. ",
  "Tom had a red ball. It rolled under the bed, where it was dark, and Tom did not want to look for it there. ",
];
const tails = ["One day", "Then the rain came", "\"Oh no!\" said", "Zoë’s café —", "", "And so they all lived"];

function prompt(random, vocabSize) {
  const ids = () => Array.from({ length: 1 + below(random, 250) }, () => below(random, vocabSize));
  // Many begin alike, so that the prefix cache is asked.
  const text = () => pick(random, stories).repeat(1 + below(random, 4)) + pick(random, tails);
  return pick(random, [text, text, text, ids, () => [text(), text()], () => [ids(), ids()]])();
}

/** A completion request that can be asked for again and again, whole or (`streamable`) as a stream. */
export function completionRequest(random, vocabSize) {
  const n = pick(random, [1, 1, 1, 2, 4]);
  const body = {
    prompt: prompt(random, vocabSize),
    max_tokens: pick(random, [1, 5, 16, 40, 90]),
    temperature: pick(random, [0, 0.8, 1.2]),
    seed: below(random, 2 ** 31),
    protocol: pick(random, ["hiergen", "hiergen", "recgen"]),
    n,
    ignore_eos: random() < 0.5,
    return_token_ids: true,
  };
  const more = pick(random, [
    {}, {}, { logprobs: 2 }, { stop: ["the ", ". She"] }, { top_k: 20, top_p: 0.9 }, { echo: true },
    { repetition_penalty: 1.1, presence_penalty: 0.3 }, { logit_bias: { 300: 5, 301: -100 } }, { best_of: n + 2 },
    { integrate: "majority", integrate_regex: "\\w+" },
  ]);
  if (body.protocol === "hiergen" && random() < 0.1) Object.assign(more, { echo: true, logprobs: 1 });
  return { body: { ...body, ...more }, streamable: !("best_of" in more || "integrate" in more) };
}

/** The choices of an answer without what differs from time to time. */
export function choicesOf(answer) {
  return answer.choices.map(({ index, text, token_ids, logprobs, finish_reason, photon }) =>
    ({ index, text, token_ids, logprobs, finish_reason, photon: photon ?? null }));
}

/** The choices that a stream's events make up, in the form of choicesOf(). */
export function choicesOfStream(text) {
  const events = text.split("\n\n").filter((event) => event !== "");
  if (events.pop() !== "data: [DONE]") throw new Error("the stream does not end with [DONE]");
  const choices = [];
  for (const event of events) {
    const { choices: deltas, error } = JSON.parse(event.slice("data: ".length));
    if (error) throw new Error(`in the stream: ${error.message}`);
    for (const { index, text: more, token_ids, logprobs, finish_reason } of deltas) {
      const choice = (choices[index] ??=
        { index, text: "", token_ids: [], logprobs: null, finish_reason: null, photon: null });
      choice.text += more;
      choice.token_ids.push(...token_ids);
      if (logprobs) {
        choice.logprobs ??= { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
        for (const [key, values] of Object.entries(logprobs)) choice.logprobs[key].push(...values);
      }
      choice.finish_reason = finish_reason;
    }
  }
  return choices;
}

/** Requests that are refused: what is sent, the status that it gets, and whether it was read as a completion's. */
export const wrongRequests = (nCtx, vocabSize) => {
  const post = (body) => ({ path: "/v1/completions", method: "POST", body });
  return [
    { ...post("{not json"), status: 400, parsed: false },
    { ...post('{"prompt": "a", "prompt": "b"}'), status: 400, parsed: false },
    { ...post('{"prompt": "a", "unheard_of": 1}'), status: 400 },
    { ...post('{"prompt": "a", "temperature": "hot"}'), status: 400 },
    { ...post('{"prompt": "a", "n": 1000000000}'), status: 400 },
    { ...post(JSON.stringify({ prompt: [vocabSize] })), status: 400 },
    { ...post(JSON.stringify({ prompt: Array(nCtx + 1).fill(5), max_tokens: 1 })), status: 400 },
    { ...post('{"prompt": "a", "model": "another"}'), status: 404 },
    { path: "/v1/nothing", method: "GET", status: 404, parsed: false },
    { path: "/v1/completions", method: "PUT", body: "{}", status: 405, parsed: false },
    { path: "/detokenize", method: "POST", body: '{"tokens": [-1]}', status: 400, parsed: false },
  ].map((wrong) => ({ parsed: true, ...wrong }));
};
