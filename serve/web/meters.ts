// A pane's figures: how fast the text came, and what the caches hold beside a Transformer's.
import type { Usage } from "./api.js";
import { bytes, count, milliseconds, rate, ratio } from "./format.js";
import { kvBytes, type Props } from "./props.js";

export class Meters {
  private props: Props | null = null;
  private protocol = "";
  private planned = 1;  // tokens that the bars' full width stands for

  constructor(private readonly root: HTMLElement) {}

  clear(props: Props, protocol: string): void {
    this.props = props;
    this.protocol = protocol;
    for (const name of ["rate", "first", "tokens"]) this.set(name, "–");
    this.set("rate-note", "");
    this.setMemory(0, null);
  }

  /** The most tokens that the text can have. */
  plan(tokens: number): void {
    this.planned = Math.max(1, tokens);
  }

  setSpeed(tokensPerSecond: number | null, firstTokenMs: number | null): void {
    this.set("rate", tokensPerSecond === null ? "–" : rate(tokensPerSecond));
    this.set("first", firstTokenMs === null ? "–" : milliseconds(firstTokenMs));
  }

  setTokens(prompt: number, written: number, cached = 0): void {
    this.set("tokens", `${count(prompt)} + ${count(written)}`);
    this.set("cached", cached > 0 ? `${count(cached)} tokens of the prompt came from the prefix cache.` : "");
  }

  /** The server's clock, which is right also where all tokens reached the page at once. */
  setTimes(usage: Usage): void {
    const own = usage.photon;
    if (!own) return;
    if (own.decode_ms > 0) this.set("rate", rate((usage.completion_tokens * 1000) / own.decode_ms));
    const [prefill, decode, queue] = [own.prefill_ms, own.decode_ms, own.queue_ms].map(milliseconds);
    this.set("rate-note", `Prefill ${prefill}, decode ${decode}, queue ${queue}.`);
  }

  /** What the server counted, when all of the text is shown. */
  setUsage(usage: Usage): void {
    this.setTokens(usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details?.cached_tokens);
    const own = usage.photon;
    if (!own) return;
    this.setMemory(usage.prompt_tokens + usage.completion_tokens, own.kv_bytes_growing + own.kv_bytes_constant);
  }

  /** @param measured  by the server; null: by the formula */
  setMemory(tokens: number, measured: number | null): void {
    const props = this.props;
    const own = props?.kv[this.protocol], vanilla = props?.kv.vanilla;
    if (!props || !own || !vanilla) return;
    const ours = measured ?? kvBytes(own, tokens), theirs = kvBytes(vanilla, tokens);
    const full = Math.max(kvBytes(vanilla, this.planned), kvBytes(own, this.planned), ours, 1);
    this.setBar("ours", ours, full);
    this.setBar("theirs", theirs, full);
    this.find("bar-constant").style.inlineSize = `${(100 * Math.min(own.bytes_constant, ours)) / full}%`;
    const better = theirs > ours ? `${ratio(theirs / ours)} less` : "";
    this.set("memory-ratio", better);
    const far = Math.min(props.n_ctx, 32_768);
    this.set(
      "memory-far",
      `Each further token adds ${bytes(own.bytes_per_token)} here, ${bytes(vanilla.bytes_per_token)} there. ` +
        `At ${count(far)} tokens: ${bytes(kvBytes(own, far))} against ${bytes(kvBytes(vanilla, far))}.`,
    );
  }

  private setBar(name: string, value: number, full: number): void {
    this.set(`${name}-bytes`, bytes(value));
    this.find(`bar-${name}`).style.inlineSize = `${(100 * value) / full}%`;
  }

  private set(name: string, text: string): void {
    const element = this.find(name);
    if (element.textContent !== text) element.textContent = text;
  }

  private find(name: string): HTMLElement {
    return this.root.querySelector<HTMLElement>(`[data-meter="${name}"]`)!;
  }
}
