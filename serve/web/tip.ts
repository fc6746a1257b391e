// The card beside a token: its probability, what else was likely, and its place in the hierarchy.
import { percent, visible } from "./format.js";
import type { Token } from "./token_stream.js";

function line(parent: HTMLElement, className: string, text = ""): HTMLElement {
  const element = document.createElement("div");
  element.className = className;
  element.textContent = text;
  parent.append(element);
  return element;
}

export class Tip {
  private anchor: HTMLElement | null = null;

  constructor(private readonly root: HTMLElement) {
    addEventListener("scroll", () => this.place(), { passive: true, capture: true });
  }

  hide(): void {
    this.anchor?.removeAttribute("aria-describedby");
    this.anchor = null;
    this.root.hidden = true;
  }

  show(token: Token, anchor: HTMLElement, sizes: readonly number[]): void {
    this.hide();
    this.root.replaceChildren();
    const head = line(this.root, "tip-head");
    line(head, "tip-piece", visible(token.name));
    line(head, "tip-id", `token ${token.position}, id ${token.id}`);
    if (token.logprob !== null) {
      const share = percent(Math.exp(token.logprob));
      line(this.root, "tip-probability", `${share} · log-probability ${token.logprob.toFixed(3)}`);
    } else {
      line(this.root, "tip-probability", "from the prompt");
    }
    for (const [text, logprob] of token.top) {
      const row = line(this.root, text === token.name ? "tip-other tip-chosen" : "tip-other");
      line(row, "tip-piece", visible(text));
      const bar = line(line(row, "tip-track"), "tip-bar");
      bar.style.inlineSize = `${Math.max(1, 100 * Math.exp(logprob))}%`;
      line(row, "tip-share", percent(Math.exp(logprob)));
    }
    for (let level = 1; level < sizes.length; ++level) {
      const unit = Math.floor(token.position / sizes[level]!);
      const within = sizes[level]! / sizes[level - 1]!;
      const slot = Math.floor((token.position % sizes[level]!) / sizes[level - 1]!);
      const row = line(this.root, "tip-place");
      line(row, `swatch level-${level}`);
      line(row, "", `level-${level} unit ${unit + 1}, slot ${slot + 1} of ${within}`);
    }
    this.root.hidden = false;
    this.anchor = anchor;
    anchor.setAttribute("aria-describedby", this.root.id);
    this.place();
  }

  private place(): void {
    const box = this.anchor?.getClientRects()[0];
    if (!box) return;
    const { offsetWidth: width, offsetHeight: height } = this.root;
    const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - width - 8));
    const below = box.bottom + 8;
    const top = below + height <= innerHeight ? below : Math.max(8, box.top - height - 8);
    this.root.style.left = `${left}px`;
    this.root.style.top = `${top}px`;
  }
}
