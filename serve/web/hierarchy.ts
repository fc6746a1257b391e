// Which units of which level a token belongs to, and which of them a model still holds: docs/architecture.md §2 and §3.
import type { Level, Span } from "./props.js";

/** C_≤l for l = 0 … L: the tokens of one unit of each level. */
export function tokensPerUnit(levels: readonly Level[]): number[] {
  const sizes = [1];
  for (const level of levels) sizes.push(sizes[sizes.length - 1]! * level.chunk_size);
  return sizes;
}

/** The highest level at whose boundary this token begins; 0: inside a chunk. */
export function boundaryLevel(position: number, sizes: readonly number[]): number {
  let level = 0;
  while (level + 1 < sizes.length && position % sizes[level + 1]! === 0) ++level;
  return level;
}

/** Units of each level that are complete after so many tokens. */
export function unitsAfter(tokens: number, sizes: readonly number[]): number[] {
  return sizes.map((size) => Math.floor(tokens / size));
}

/** Of `count` units of a stream whose attention has this span, the first one that is still held. */
export function firstHeld(count: number, span: Span): number {
  switch (span.kind) {
    case "window":
      return Math.max(0, count - (span.size ?? 0));
    case "block": {
      const size = Math.max(1, span.size ?? 1);
      return Math.floor(Math.max(0, count - 1) / size) * size;
    }
    default:
      return 0;
  }
}

/** Of `tokens` tokens, the first whose content the level-1 decoder still holds. */
export function firstTokenHeld(tokens: number, level: Level): number {
  const chunk = level.chunk_size;
  if (tokens === 0) return 0;
  const last = tokens - 1;
  if (level.decoder_span.kind === "chunk") return last - (last % chunk);
  // `stream`: groups are laid out one after another, each with its prefix before its content.
  const place = (token: number) =>
    Math.floor(token / chunk) * (level.converter_len + chunk) + level.converter_len + (token % chunk);
  const size = level.decoder_span.size ?? Infinity;
  let first = last;
  while (first > 0 && place(last) - place(first - 1) < size) --first;
  return first;
}
