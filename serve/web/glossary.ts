// The page /glossary: docs/glossary.md, which is in this script.
import text from "../../docs/glossary.md";
import { parseMarkdown, type Inline } from "./markdown.js";
import { startTheme } from "./theme.js";

function element<K extends keyof HTMLElementTagNameMap>(tag: K, text: Inline[] = []): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  made.append(...text.map((part) => {
    if (part.kind === "text") return part.text;
    const inner = document.createElement(part.kind);
    inner.textContent = part.text;
    return inner;
  }));
  return made;
}

const main = document.querySelector("main")!;
let terms: HTMLDListElement | null = null;
const blocks = parseMarkdown(text);
const last = blocks.map((block) => block.kind).lastIndexOf("term");  // then the way to other pages, which are not here
for (const block of blocks.slice(0, last + 1)) {
  if (block.kind !== "term") terms = null;
  if (block.kind === "heading") {
    if (block.depth > 1) main.append(element("h2", block.text));  // the title is in the page already
  } else if (block.kind === "paragraph") {
    main.append(element("p", block.text));
  } else {
    if (!terms) main.append(terms = element("dl"));
    const name = element("dt", block.name);
    name.id = block.id;
    terms.append(name, element("dd", block.text));
  }
}

startTheme(document.querySelector<HTMLButtonElement>("#theme")!);
document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
