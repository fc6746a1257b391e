// A `photon serve` of a test's own, on a port of its own, gone when the test is.
import { spawn } from "node:child_process";
import { once } from "node:events";

function needed(name) {
  if (!process.env[name]) throw new Error(`${name} is not set; ctest sets it`);
  return process.env[name];
}

/** @param args  further arguments of `photon serve`;  @param model  one of the bundled ones */
export async function startServer(args = [], model = "photon-stories") {
  const folder = `${needed("PHOTON_SOURCE")}/models/${model}`;
  const child = spawn(needed("PHOTON"), ["serve", "-m", folder, "--port", "0", ...args], {
    env: { ...process.env, OMP_WAIT_POLICY: "passive" },
  });
  let log = "";
  const exited = once(child, "exit");
  const url = await new Promise((resolve, reject) => {
    const listen = (bytes) => {
      log += bytes;
      const found = /http:\/\/127\.0\.0\.1:\d+/.exec(log);
      if (found) resolve(found[0]);
    };
    child.stdout.on("data", listen);
    child.stderr.on("data", listen);
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`photon serve ended with code ${code}:\n${log}`)));
  });
  for (const deadline = Date.now() + 120_000; ; ) {
    const health = await fetch(`${url}/health`);
    if (health.status === 200) break;
    if (Date.now() > deadline) throw new Error(`photon serve does not get ready:\n${log}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return {
    url,
    /** One figure of /metrics, added up over its labels. */
    async metric(name) {
      const text = await (await fetch(`${url}/metrics`)).text();
      const lines = text.split("\n").filter((line) => line.startsWith(`photon:${name}{`));
      if (lines.length === 0) throw new Error(`/metrics has no photon:${name}`);
      return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
    },
    /** Ends it as an operator would; tells the exit code. */
    async stop() {
      child.kill("SIGTERM");
      const [code] = await exited;
      return code;
    },
  };
}

/** Waits until `condition` holds. */
export async function eventually(condition, what, withinMs = 20_000) {
  for (const deadline = Date.now() + withinMs; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
