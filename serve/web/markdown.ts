// The part of Markdown that docs/glossary.md is written in: headings, paragraphs, and terms as "* **Term** more: text".

export interface Inline { kind: "text" | "code" | "strong"; text: string }
export type Block =
  | { kind: "heading"; depth: number; text: Inline[] }
  | { kind: "paragraph"; text: Inline[] }
  | { kind: "term"; id: string; name: Inline[]; text: Inline[] };

/** `code`, **strong**; of links only their text, since what they lead to is not here. */
export function parseInline(text: string): Inline[] {
  const parts = text.replace(/\[([^\]]+)\]\([^)]+\)/g, "$1").split(/(`[^`]+`|\*\*[^*]+\*\*)/);
  return parts.filter((part) => part !== "").map((part) => {
    if (part.startsWith("`")) return { kind: "code", text: part.slice(1, -1) };
    if (part.startsWith("**")) return { kind: "strong", text: part.slice(2, -2) };
    return { kind: "text", text: part };
  });
}

/** What stands behind # in the address of a term: "Chunk size" is chunk-size. */
export function idOf(name: string): string {
  return name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
}

function parseBlock(text: string): Block {
  const heading = /^(#+) (.*)$/.exec(text);
  if (heading) return { kind: "heading", depth: heading[1]!.length, text: parseInline(heading[2]!) };
  const term = /^\* \*\*(.+?)\*\*(.*?): (.*)$/.exec(text);
  if (term) {
    const [, name, more, meaning] = term as unknown as [string, string, string, string];
    return { kind: "term", id: idOf(name), name: parseInline(name + more), text: parseInline(meaning) };
  }
  return { kind: "paragraph", text: parseInline(text) };
}

export function parseMarkdown(text: string): Block[] {
  return text
    .split(/\n\s*\n|\n(?=\* )/)  // an empty line ends a block, and so does the next term
    .map((block) => block.trim().replace(/\s*\n\s*/g, " "))
    .filter((block) => block !== "")
    .map(parseBlock);
}
