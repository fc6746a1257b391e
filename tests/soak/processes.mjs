// What tests do to a server from outside: its process, its memory.
import { readFileSync } from "node:fs";
import { startServer } from "../common/photon_server.mjs";

const children = () => readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").trim().split(" ").map(Number);

/** startServer() with the process's id.  Not several at once: the child that is new is the server. */
export async function startProcess(args = []) {
  const before = new Set(children());
  const server = await startServer(args);
  const pid = children().find((child) => !before.has(child));
  return {
    ...server,
    pid,
    kill(signal) { process.kill(pid, signal); },
    /** Bytes of memory in use. */
    rss() { return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]); },
  };
}
