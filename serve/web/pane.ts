// One pane: a protocol, the text that it writes, the picture of its hierarchy and its figures.
import { ApiError, type Api, type CompletionEvent, type Usage } from "./api.js";
import { toRequest, type Sampling } from "./controls.js";
import { tokensPerUnit } from "./hierarchy.js";
import { Meters } from "./meters.js";
import { Pacer } from "./pacer.js";
import { Picture } from "./picture.js";
import { protocolNote, type Props } from "./props.js";
import type { Tip } from "./tip.js";
import { TokenStream, type Rest, type Token } from "./token_stream.js";
import { TokenView } from "./token_view.js";

const finishNotes: Record<string, string> = { stop: "came to its end", length: "stopped at the token limit" };

/** Below this, arrival times say more of the browser than of the server. */
const shortestMs = 100;

export interface PaneOptions {
  api: Api;
  tip: Tip;
  /** Tokens per second to show at most. */
  pace: () => number;
}

export class Pane {
  readonly protocol: HTMLSelectElement;
  private readonly view: TokenView;
  private readonly picture: Picture;
  private readonly meters: Meters;
  private readonly pacer: Pacer<Token | Rest>;
  private readonly text: HTMLElement;
  private readonly error: HTMLElement;
  private running: AbortController | null = null;
  private props: Props | null = null;
  private shown = 0;
  private prompt: Token[] = [];  // as it is shown

  constructor(readonly root: HTMLElement, private readonly options: PaneOptions) {
    this.protocol = root.querySelector("select")!;
    this.text = root.querySelector(".text")!;
    this.error = root.querySelector(".error")!;
    this.picture = new Picture(root.querySelector("canvas")!);
    this.meters = new Meters(root);
    this.view = new TokenView(this.text, (token, at) => {
      this.picture.point(token?.position ?? null);
      if (token && at) options.tip.show(token, at, tokensPerUnit(this.props?.levels ?? []));
      else options.tip.hide();
    });
    this.pacer = new Pacer(options.pace, (tokens) => this.show(tokens));
    this.protocol.addEventListener("change", () => this.describe());
  }

  setProps(props: Props, protocol: string): void {
    this.props = props;
    this.protocol.replaceChildren(...props.protocols.map((name) => new Option(name, name, false, name === protocol)));
    this.describe();
  }

  /** Writes a text; ends when all of it is shown, or after stop(), and tells in a sentence what happened. */
  async run(sampling: Sampling): Promise<string> {
    this.stop();
    const { api } = this.options;
    const protocol = this.protocol.value, running = new AbortController();
    this.running = running;
    this.clear();
    this.root.classList.add("running");
    this.text.setAttribute("aria-busy", "true");
    try {
      const prompt = await api.tokenize(sampling.prompt, this.props!, running.signal);
      this.showPrompt(prompt);
      this.meters.plan(prompt.length + sampling.max_tokens);
      this.picture.setWriting(true);
      const request = toRequest(sampling, this.props!.model, protocol);
      const { finish, usage } = await this.read(api.complete(request, running.signal));
      if (running.signal.aborted) return this.stopped(protocol);
      if (usage) this.meters.setUsage(usage);
      return `${protocol}: ${finishNotes[finish] ?? finish}, ${usage?.completion_tokens ?? this.shown} tokens.`;
    } catch (error) {
      if (running.signal.aborted) return this.stopped(protocol);
      this.fail(error);
      throw error;
    } finally {
      if (this.running === running) {
        this.running = null;
        this.picture.setWriting(false);
        this.root.classList.remove("running");
        this.text.setAttribute("aria-busy", "false");
      }
    }
  }

  /** Shows a prompt's tokens and units before there is a text; what was written stays. */
  preview(prompt: Token[]): void {
    if (this.running !== null || this.shown > 0) return;
    this.clear();
    this.showPrompt(prompt);
  }

  stop(): void {
    this.running?.abort();
    this.pacer.drop();
  }

  private describe(): void {
    this.root.querySelector(".protocol-note")!.textContent = protocolNote(this.protocol.value, this.props);
    this.preview(this.prompt);  // the protocols' pictures differ
  }

  private clear(): void {
    const props = this.props;
    if (!props) return;
    this.shown = 0;
    this.prompt = [];
    this.error.hidden = true;
    this.pacer.drop();
    this.view.clear(tokensPerUnit(props.levels));
    this.picture.clear(props.levels, this.protocol.value === "recgen");
    this.meters.clear(props, this.protocol.value);
  }

  private showPrompt(tokens: Token[]): void {
    this.prompt = tokens;
    this.view.add(tokens);
    this.picture.add(tokens.length, true);
    this.meters.setTokens(tokens.length, 0);
    this.meters.setMemory(tokens.length, null);
  }

  private show(items: (Token | Rest)[]): void {
    const count = items.filter((item) => "id" in item).length;
    this.shown += count;
    this.view.add(items);
    this.picture.add(count, false);
    this.meters.setTokens(this.prompt.length, this.shown);
    this.meters.setMemory(this.prompt.length + this.shown, null);
  }

  /** Takes the stream as fast as it comes; the pacer shows it.  Returns why the text ended, when all of it is shown. */
  private async read(events: AsyncIterable<CompletionEvent>): Promise<{ finish: string; usage: Usage | null }> {
    const start = performance.now();
    const stream = new TokenStream(this.prompt.length);
    let first = 0, received = 0, later = 0, finish = "", usage: Usage | null = null;
    for await (const event of events) {
      usage = event.usage ?? usage;
      const choice = event.choices[0];
      if (!choice) continue;
      finish = choice.finish_reason ?? finish;
      this.pacer.push(stream.take(choice));
      const count = choice.token_ids?.length ?? 0;
      if (count === 0) continue;
      const now = performance.now();
      // Tokens that came together with the first one took no time that could be seen.
      if (received > 0) later += count;
      else first = now;
      received += count;
      this.meters.setSpeed(now - first > shortestMs ? (later * 1000) / (now - first) : null, first - start);
    }
    if (usage) this.meters.setTimes(usage);
    await this.pacer.drained();
    return { finish, usage };
  }

  private stopped(protocol: string): string {
    return `${protocol}: stopped after ${this.shown} tokens.`;
  }

  private fail(error: unknown): void {
    const known = error instanceof ApiError;
    this.error.textContent = known ? error.message : `The page failed: ${error}`;
    this.error.hidden = false;
    this.pacer.drop();
  }
}
