// The text as tokens: chunks and groups marked, each token's probability to be read by pointer or keyboard.
import { boundaryLevel } from "./hierarchy.js";
import { visible } from "./format.js";
import type { Rest, Token } from "./token_stream.js";

export class TokenView {
  private tokens: Token[] = [];
  private sizes: number[] = [1];

  /** @param pointed  hears which token is pointed at or focused; null: none any more */
  constructor(
    private readonly root: HTMLElement,
    private readonly pointed: (token: Token | null, at?: HTMLElement) => void,
  ) {
    root.addEventListener("pointerover", (event) => this.point(event.target));
    root.addEventListener("pointerleave", () => this.point(document.activeElement));
    root.addEventListener("focusin", (event) => this.point(event.target));
    root.addEventListener("focusout", () => pointed(null));
    root.addEventListener("keydown", (event) => this.move(event));
  }

  /** @param sizes  tokens per unit of each level, from level 0 */
  clear(sizes: number[]): void {
    this.tokens = [];
    this.sizes = sizes;
    this.root.replaceChildren();
    this.pointed(null);
  }

  add(tokens: readonly (Token | Rest)[]): void {
    const atEnd = this.root.scrollHeight - this.root.scrollTop - this.root.clientHeight < 40;
    for (const token of tokens) {
      if ("rest" in token) {
        this.tokens[token.position]!.text += token.rest;
        this.root.children[token.position]!.append(token.rest);
      } else {
        this.root.append(this.span(token));
        this.tokens.push(token);
      }
    }
    if (atEnd) this.root.scrollTop = this.root.scrollHeight;
  }

  private span(token: Token): HTMLElement {
    const span = document.createElement("span");
    const level = boundaryLevel(token.position, this.sizes);
    span.className = "token";
    span.tabIndex = this.tokens.length === 0 && token.position === 0 ? 0 : -1;  // one stop for Tab, arrows from there
    span.dataset.position = String(token.position);
    if (token.from_prompt) span.classList.add("from-prompt");
    if (this.sizes.length > 1) {
      span.dataset.begins = String(level);
      const group = this.sizes[Math.min(2, this.sizes.length - 1)]!;
      span.classList.toggle("odd-group", Math.floor(token.position / group) % 2 === 1);
      span.classList.toggle("odd-chunk", Math.floor(token.position / this.sizes[1]!) % 2 === 1);
      span.classList.toggle("ends-chunk", boundaryLevel(token.position + 1, this.sizes) > 0);
    }
    // A probability of 1/e is a surprise of 1 nat; 6 nats are as dark as it gets.
    if (token.logprob !== null) span.style.setProperty("--surprise", Math.min(1, -token.logprob / 6).toFixed(3));
    span.textContent = token.text;
    // "<s>" is shown, but no text.
    if (token.text === "" && !token.name.startsWith("<0x")) span.dataset.mark = token.name;
    if (token.text.trim() === "") span.setAttribute("aria-label", visible(token.text || token.name));
    return span;
  }

  private point(target: EventTarget | null): void {
    const span = target instanceof HTMLElement && target.parentElement === this.root ? target : null;
    const token = span && this.tokens[Number(span.dataset.position)];
    if (span && token) this.pointed(token, span);
    else this.pointed(null);
  }

  private move(event: KeyboardEvent): void {
    const spans = this.root.children;
    const now = Array.prototype.indexOf.call(spans, document.activeElement);
    if (now < 0) return;
    const chunk = this.sizes[1] ?? 1;
    const steps: Record<string, number> = {
      ArrowRight: now + 1, ArrowLeft: now - 1, ArrowDown: now + chunk, ArrowUp: now - chunk,
      Home: 0, End: spans.length - 1,
    };
    const to = steps[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = spans[Math.max(0, Math.min(spans.length - 1, to))] as HTMLElement;
    (spans[now] as HTMLElement).tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}
