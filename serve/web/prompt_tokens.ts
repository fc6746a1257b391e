// A prompt's tokens with their parts of its text.
import type { Token } from "./token_stream.js";

const byteName = /^<0x([0-9A-F]{2})>$/;

/**
 * @param names  of the tokens, as /tokenize tells them: their text where they have one, "<0xF0>" for a byte, "<s>"
 * @returns tokens whose texts, one after another, are the prompt
 */
export function promptTokens(prompt: string, ids: readonly number[], names: readonly string[], bos: number): Token[] {
  let rest = prompt;
  const take = (text: string) => {
    rest = rest.slice(text.length);
    return text;
  };
  return ids.map((id, position) => {
    const name = names[position] ?? "";
    const byte = byteName.exec(name);
    let text = "";
    if (id === bos) {
      // stands before the text
    } else if (rest.startsWith(name)) {
      text = take(name);
    } else if (rest.startsWith(name.trimStart())) {
      text = take(name.trimStart());  // the tokenizer puts a space before a text
    } else if (byte && (parseInt(byte[1]!, 16) & 0xc0) !== 0x80) {
      text = take(String.fromCodePoint(rest.codePointAt(0) ?? 0xfffd));  // a character's first byte has it all
    }
    return { id, text, name, position, from_prompt: true, logprob: null, top: [] };
  });
}
