// The form: prompt and sampling.  Reads it into a request, refuses what cannot be sent, and says in a line what is set.
import type { CompletionRequest } from "./api.js";

export interface Sampling {
  prompt: string;
  max_tokens: number;
  /** The request's fields; those at their neutral value are left out. */
  fields: Record<string, unknown>;
}

export class Controls {
  readonly prompt: HTMLTextAreaElement;

  constructor(private readonly form: HTMLFormElement, private readonly summary: HTMLElement) {
    this.prompt = form.elements.namedItem("prompt") as HTMLTextAreaElement;
    form.addEventListener("input", () => this.describe());
    this.describe();
  }

  /** null where a field is invalid; the browser then says which one and why. */
  read(): Sampling | null {
    const invalid = this.form.querySelector<HTMLInputElement>(":invalid");
    if (invalid) {
      // A field inside a closed <details> could not be shown.
      invalid.closest("details")?.setAttribute("open", "");
      this.form.reportValidity();
      return null;
    }
    const fields: Record<string, unknown> = { temperature: this.number("temperature") };
    const neutral: Record<string, number> = { top_p: 1, top_k: 0, min_p: 0, repetition_penalty: 1 };
    for (const [name, value] of Object.entries(neutral)) {
      if (this.number(name) !== value) fields[name] = this.number(name);
    }
    if (this.text("seed") !== "") fields.seed = this.number("seed");
    const stops = this.text("stop").split("\n").filter((stop) => stop !== "");
    if (stops.length > 0) fields.stop = stops;
    if ((this.form.elements.namedItem("ignore_eos") as HTMLInputElement).checked) fields.ignore_eos = true;
    return { prompt: this.prompt.value, max_tokens: this.number("max_tokens"), fields };
  }

  private text(name: string): string {
    return (this.form.elements.namedItem(name) as HTMLInputElement).value;
  }

  private number(name: string): number {
    return Number(this.text(name));
  }

  private describe(): void {
    const temperature = this.number("temperature");
    const draw = temperature === 0 ? "the likeliest token" : `temperature ${temperature}, top-p ${this.text("top_p")}`;
    const seed = this.text("seed") === "" ? "" : `, seed ${this.text("seed")}`;
    this.summary.textContent = `${this.text("max_tokens")} tokens at most, ${draw}${seed}`;
  }
}

export function toRequest(sampling: Sampling, model: string, protocol: string): CompletionRequest {
  return { model, prompt: sampling.prompt, protocol, max_tokens: sampling.max_tokens, ...sampling.fields };
}
