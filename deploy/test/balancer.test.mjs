// The balancer of deploy/nginx in front of replicas on loopback: requests of one beginning meet on one replica, and
// those that drain or die under load take no request with them that can be asked again.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { eventually } from "../../tests/common/photon_server.mjs";
import { startProcess } from "../../tests/soak/processes.mjs";

let replicas, balancer;

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

function replaced(text, what, by) {
  assert.ok(text.includes(what), `photon.conf does not hold '${what}' any more`);
  return text.replaceAll(what, by);
}

/** nginx with the configuration as it is shipped, but for addresses and folders. */
async function startBalancer(urls) {
  const folder = mkdtempSync(`${tmpdir()}/photon-balancer-`);
  chmodSync(folder, 0o755);  // nginx's workers are another user where root starts it
  const port = await freePort();
  const [first, second, ...more] = urls.map((url) => new URL(url).host);
  let site = readFileSync(new URL("../nginx/photon.conf", import.meta.url), "utf8");
  const line = (address) => `server ${address} max_fails=2 fail_timeout=5s;`;
  site = replaced(site, line("127.0.0.1:8081"), line(first));
  site = replaced(site, line("127.0.0.1:8082"), [second, ...more].map(line).join("\n"));
  site = replaced(site, "listen 8080;", `listen 127.0.0.1:${port};`);
  site = replaced(site, "/var/log/nginx/photon.log", `${folder}/access.log`);
  writeFileSync(`${folder}/site.conf`, site);
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  writeFileSync(`${folder}/nginx.conf`, `
    daemon off; worker_processes 1; pid ${folder}/pid; error_log stderr warn;
    events { worker_connections 512; }
    http { ${temporary.map((kind) => `${kind}_temp_path ${folder}/${kind};`).join(" ")} include site.conf; }`);
  const child = spawn("nginx", ["-e", "stderr", "-p", folder, "-c", `${folder}/nginx.conf`], {
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },  // where Debian has it
  });
  let log = "";
  child.stderr.on("data", (bytes) => { log += bytes; });
  const exited = once(child, "exit");
  const url = `http://127.0.0.1:${port}`;
  let failed = null;
  exited.then(
    ([code]) => { failed = `nginx ended with code ${code}:\n${log}`; },
    (error) => { failed = String(error); },
  );
  await eventually(() => {
    if (failed) throw new Error(failed);
    return fetch(`${url}/health`).then((answer) => answer.status === 200, () => false);
  }, "nginx gets ready");
  return {
    url,
    accessLog: () => readFileSync(`${folder}/access.log`, "utf8").trim().split("\n"),
    async stop() {
      child.kill("SIGTERM");
      await exited;
      rmSync(folder, { recursive: true });
    },
  };
}

before(async () => {
  replicas = [];
  for (let i = 0; i < 3; ++i) replicas.push(await startProcess(["--memory", "256MiB", "--threads", "1", "--quiet"]));
  balancer = await startBalancer(replicas.map((replica) => replica.url));
});
after(async () => {
  await balancer?.stop();
  await replicas?.at(-1)?.stop();
});

function post(body, headers = {}) {
  return fetch(`${balancer.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}
async function complete(body, headers) {
  const answer = await post(body, headers);
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  return JSON.parse(text);
}

// Over 512 bytes.
const story = (i) => `Story ${i}. Once upon a time there was a fox who had ${i} friends. `.repeat(10);
const servedByEach = () => Promise.all(replicas.map((replica) => replica.metric("requests_total")));

test("prompts of one beginning meet on the replica that has it in its cache", async () => {
  const cached = async (prompt) =>
    (await complete({ prompt, max_tokens: 1 })).usage.prompt_tokens_details.cached_tokens;
  const before = await servedByEach();
  for (let i = 0; i < 10; ++i) {
    assert.equal(await cached(`${story(i)}The end.`), 0);
    for (const tail of ["They all", "Then it rained"]) assert.ok(await cached(story(i) + tail) > 100);
  }
  const served = await servedByEach();
  const busy = served.filter((n, i) => n > before[i]).length;
  assert.ok(busy >= 2, `10 prompts met on ${busy} replica`);
});

test("the header x-photon-affinity decides where there is one", async () => {
  const before = await servedByEach();
  for (let i = 0; i < 12; ++i)
    await complete({ prompt: `${i} cats`, max_tokens: 1 }, { "x-photon-affinity": "session 7" });
  const more = (await servedByEach()).map((n, i) => n - before[i]);
  assert.deepEqual(more.sort((a, b) => a - b), [0, 0, 12]);
});

/** Clients that ask without a pause until they are stopped: so many for whole answers, and for streams. */
function startLoad(whole, streaming) {
  const texts = new Map();  // by prompt: every answer of it must be the same, from whichever replica
  const load = { answered: 0, streamed: 0, failures: [], brokenStreams: [], stop: null };
  let stopped = false, n = 0;
  const one = async (stream) => {
    const prompt = `The ${n++ % 24}th time`;
    const body = { prompt, max_tokens: stream ? 100 : 30, temperature: 0.7, seed: 5, ignore_eos: true, stream };
    let begun = Infinity, text = "";
    try {
      const answer = await post(body);
      if (answer.status !== 200) throw new Error(`${answer.status}: ${await answer.text()}`);
      begun = Date.now();
      text = await answer.text();
      if (stream && !text.endsWith("data: [DONE]\n\n")) throw new Error("the stream was cut short");
      if (!stream) {
        const [{ text: said }] = JSON.parse(text).choices;
        assert.equal(said, texts.get(prompt) ?? said);
        texts.set(prompt, said);
      }
      ++load[stream ? "streamed" : "answered"];
    } catch (error) {
      if (stream && begun < Infinity) load.brokenStreams.push(begun);
      else load.failures.push(`${prompt}: ${error.cause ?? error}`);
    }
  };
  const clients = [];
  for (let i = 0; i < whole + streaming; ++i)
    clients.push((async () => { while (!stopped) await one(i >= whole); })());
  load.stop = async () => {
    stopped = true;
    await Promise.all(clients);
  };
  return load;
}

test("a replica that is told to end loses no request, streamed or not", async () => {
  const load = startLoad(6, 3);
  await eventually(() => load.answered >= 12 && load.streamed >= 3, "the load runs", 60_000);
  assert.equal(await replicas[0].stop(), 0);
  const answered = load.answered;
  await eventually(() => load.answered >= answered + 12, "the others go on", 60_000);
  await load.stop();
  assert.deepEqual(load.failures, []);
  assert.deepEqual(load.brokenStreams, []);
});

test("a replica that is killed takes no request with it but streams that had begun", async () => {
  const load = startLoad(8, 3);
  await eventually(() => load.answered >= 12 && load.streamed >= 3, "the load runs", 60_000);
  const killed = Date.now();
  replicas[1].kill("SIGKILL");
  const answered = load.answered, streamed = load.streamed;
  const goesOn = () => load.answered >= answered + 16 && load.streamed >= streamed + 3;
  await eventually(goesOn, "the last one goes on", 60_000);
  await load.stop();
  assert.deepEqual(load.failures, []);
  assert.ok(load.brokenStreams.length <= 3 && load.brokenStreams.every((begun) => begun <= killed + 1000));
  const retried = balancer.accessLog().filter((line) => /: (502|504), 200 in/.test(line));
  assert.ok(retried.length > 0, "no request was at the killed replica, so nothing was tested");
});
