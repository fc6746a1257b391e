// The page: form, panes, keyboard, and the way in where the server wants a key.
import { Api, ApiError } from "./api.js";
import { Controls, toRequest } from "./controls.js";
import { count, millions } from "./format.js";
import { tokensPerUnit } from "./hierarchy.js";
import { Pane } from "./pane.js";
import type { Props } from "./props.js";
import { startTheme } from "./theme.js";
import { Tip } from "./tip.js";

function find<T extends HTMLElement = HTMLElement>(selector: string, root: ParentNode = document): T {
  return root.querySelector<T>(selector)!;
}

const api = new Api();
const tip = new Tip(find("#tip"));
const form = find<HTMLFormElement>("#prompt-form");
const controls = new Controls(form, find("#sampling-summary"));
const compare = find<HTMLInputElement>("#compare");
const pace = find<HTMLSelectElement>("#pace");
const start = find<HTMLButtonElement>("#start"), stop = find<HTMLButtonElement>("#stop");
const say = (text: string) => { find("#status").textContent = text; };
const panes: Pane[] = [];
let props: Props | null = null;

function addPane(protocol: string): void {
  const root = (find<HTMLTemplateElement>("#pane").content.cloneNode(true) as DocumentFragment).firstElementChild;
  const id = `protocol-${panes.length}`;
  find("label", root!).setAttribute("for", id);
  find("select", root!).id = id;
  const pane = new Pane(root as HTMLElement, { api, tip, pace: () => Number(pace.value) });
  find("#panes").append(pane.root);
  pane.setProps(props!, protocol);
  panes.push(pane);
}

function showPanes(): void {
  if (compare.checked && panes.length === 1) {
    const other = props!.protocols.find((name) => name !== panes[0]!.protocol.value);
    addPane(other ?? props!.protocols[0]!);
  } else if (!compare.checked && panes.length === 2) {
    const pane = panes.pop()!;
    pane.stop();
    pane.root.remove();
  }
  find("#panes").classList.toggle("two", panes.length === 2);
  void preview();
}

async function run(): Promise<void> {
  const sampling = controls.read();
  if (!sampling || !props) return;
  tip.hide();
  typed?.abort();
  start.disabled = true;
  stop.disabled = false;
  say("Writing…");
  if (document.activeElement === start) stop.focus();  // a disabled button would lose the keyboard's place
  const results = await Promise.allSettled(panes.map((pane) => pane.run(sampling)));
  const backToStart = document.activeElement === stop;
  start.disabled = false;
  stop.disabled = true;
  if (backToStart) start.focus();
  say(results.map((result) => (result.status === "fulfilled" ? result.value : "Not written.")).join(" "));
  const refused = results.some((result) => result.status === "rejected" && result.reason?.status === 401);
  if (refused) askForKey();
}

let typed: AbortController | null = null;

/** What the prompt becomes, while it is typed. */
async function preview(): Promise<void> {
  typed?.abort();
  const latest = (typed = new AbortController());
  await new Promise((resolve) => setTimeout(resolve, 150));
  if (latest.signal.aborted || !props || start.disabled) return;
  try {
    const prompt = await api.tokenize(controls.prompt.value, props, latest.signal);
    for (const pane of panes) pane.preview(prompt);
  } catch (error) {
    if (!latest.signal.aborted) say(error instanceof ApiError ? error.message : String(error));
  }
}

function halt(): void {
  for (const pane of panes) pane.stop();
}

function describe(found: Props): void {
  const sizes = found.levels.map((level) => level.chunk_size);
  const facts = [
    found.model,
    `${millions(found.parameters)} parameters`,
    sizes.length === 0 ? "a Transformer" : `chunks of ${sizes.join(" × ")}`,
    ...(found.n_ctx <= 1 << 20 ? [`context ${count(found.n_ctx)}`] : []),  // beyond, memory is the limit
  ];
  find("#facts").replaceChildren(
    ...facts.map((fact) => Object.assign(document.createElement("li"), { textContent: fact })),
  );
  document.title = `${found.model} · photon`;
  const units = tokensPerUnit(found.levels).slice(1);
  const legend = units.map((size, i) => [`level-${Math.min(i + 1, 4)}`, `level-${i + 1} unit: ${size} tokens`]);
  if (units.length > 0) legend.push(["beam", "what the next token unfolds from"], ["faded", "no longer held"]);
  find("#legend").replaceChildren(...legend.map(([kind, text]) => {
    const item = document.createElement("li");
    item.append(Object.assign(document.createElement("span"), { className: `swatch ${kind}` }), text!);
    return item;
  }));
}

function askForKey(): void {
  find("#key-form").hidden = false;
  find<HTMLInputElement>("#key").focus();
}

async function load(): Promise<void> {
  find("#problem").hidden = true;
  try {
    props = await api.props();
  } catch (error) {
    const status = error instanceof ApiError ? error.status : -1;
    if (status === 401) {
      askForKey();
      say(api.key === "" ? "This server wants an API key." : "The server does not know this key.");
    } else {
      find("#problem").textContent = error instanceof ApiError ? error.message : String(error);
      find("#problem").hidden = false;
    }
    return;
  }
  find("#key-form").hidden = true;
  describe(props);
  compare.disabled = false;
  compare.parentElement!.hidden = props.protocols.length < 2;
  if (panes.length === 0) addPane(props.protocols[0]!);
  start.disabled = false;
  say("Ready.");
  void preview();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!start.disabled) void run();
});
stop.addEventListener("click", halt);
compare.addEventListener("change", showPanes);
controls.prompt.addEventListener("input", () => void preview());
find<HTMLSelectElement>("#colors").addEventListener("change", (event) => {
  document.documentElement.dataset.colors = (event.target as HTMLSelectElement).value;
});
find("#copy").addEventListener("click", () => {
  const sampling = controls.read();
  if (!sampling || !props) return;
  const command = api.curl(toRequest(sampling, props.model, panes[0]!.protocol.value));
  navigator.clipboard.writeText(command).then(() => say("The curl command is in the clipboard."), () => say(command));
});
find<HTMLFormElement>("#key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.key = find<HTMLInputElement>("#key").value.trim();
  void load();
});
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  if (event.key === "Escape") {
    tip.hide();
    halt();
  }
});
startTheme(find<HTMLButtonElement>("#theme"));
void load();
