// The choices of a stream as tokens with their texts.
import type { ChoiceDelta } from "./api.js";

export interface Token {
  id: number;
  text: string;  // may be empty: the first bytes of a character whose last ones follow
  name: string;  // as top_logprobs names it: never empty
  position: number;
  from_prompt: boolean;
  logprob: number | null;
  top: [text: string, logprob: number][];
}

/** More text of a token that has been told already. */
export interface Rest {
  rest: string;
  position: number;
}

export class TokenStream {
  private characters = 0;  // of the text so far

  /** @param position  of the next token, in prompt and text */
  constructor(private position: number) {}

  /** A delta's tokens.  Text before the first of them belongs to the token before. */
  take(choice: ChoiceDelta): (Token | Rest)[] {
    const text = [...choice.text];
    const ids = choice.token_ids ?? [];
    const offsets = choice.logprobs?.text_offset ?? [];
    const at = ids.map((_, i) => Math.max(0, Math.min(text.length, (offsets[i] ?? this.characters) - this.characters)));
    this.characters += text.length;
    const tokens: (Token | Rest)[] = [];
    const first = at[0] ?? text.length;
    if (first > 0 && this.position > 0) {
      tokens.push({ rest: text.slice(0, first).join(""), position: this.position - 1 });
    }
    ids.forEach((id, i) => {
      tokens.push({
        id,
        name: choice.logprobs?.tokens[i] ?? "",
        text: text.slice(at[i], at[i + 1] ?? text.length).join(""),
        position: this.position++,
        from_prompt: false,
        logprob: choice.logprobs?.token_logprobs[i] ?? null,
        top: Object.entries(choice.logprobs?.top_logprobs?.[i] ?? {}).sort((a, b) => b[1] - a[1]),
      });
    });
    return tokens;
  }
}
