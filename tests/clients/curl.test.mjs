// curl transcripts: each curl/NAME.sh prints what a server on loopback answers, curl/NAME.golden is what it should be.
// `GOLDEN=write` writes them anew.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { startServer } from "../common/photon_server.mjs";

let server;
before(async () => { server = await startServer(["--n-ctx", "4096"]); });
after(async () => { assert.equal(await server?.stop(), 0); });

/** What differs from run to run and from machine to machine, made equal. */
function normalise(text) {
  return text
    .replace(/\r/g, "")
    .replaceAll(server.url, "URL")
    .replace(/cmpl-[\w-]+/g, "cmpl-ID")
    .replace(/^x-request-id: .*$/gim, "x-request-id: ID")
    .replace(/^date: .*$/gim, "date: DATE")
    .replace(/^etag: .*$/gim, "etag: ETAG")
    .replace(/^content-length: .*$/gim, "content-length: N")
    .replace(/"(created|seed|\w+_ms)":[\d.e+-]+/g, '"$1":0')
    .replace(/-?\d+\.\d{3,}(e-?\d+)?/g, "-0.0");  // log-probabilities: kernels of other CPUs round otherwise
}

for (const script of readdirSync("curl").filter((name) => name.endsWith(".sh")).sort()) {
  const golden = script.replace(".sh", ".golden");
  test(script, () => {
    const env = { ...process.env, URL: server.url };
    const said = normalise(execFileSync("bash", [`curl/${script}`], { env, encoding: "utf8" }));
    if (process.env.GOLDEN === "write") writeFileSync(`${process.env.GOLDEN_SOURCE}/curl/${golden}`, said);
    assert.ok(process.env.GOLDEN === "write" || existsSync(`curl/${golden}`), `${golden} is missing`);
    if (process.env.GOLDEN !== "write") assert.equal(said, readFileSync(`curl/${golden}`, "utf8"));
  });
}
