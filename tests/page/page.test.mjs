// The page in a real browser: what a person does with it, by pointer, keyboard and phone.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";
import puppeteer from "puppeteer-core";
import { eventually, startServer } from "../common/photon_server.mjs";

const [unit1, unit2] = [32, 64];  // tokens in the bundled model's units: C = (32, 2)

let server, browser;

function chromium() {
  try {
    return process.env.CHROMIUM ?? execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim();
  } catch {
    throw new Error("chromium is missing: scripts/install-dependencies test installs it, or set CHROMIUM to a browser");
  }
}

before(async () => {
  server = await startServer();
  browser = await puppeteer.launch({
    executablePath: chromium(),
    // Root, as in containers, has no sandbox; the only page is our own.
    args: ["--disable-gpu", "--no-first-run", ...(process.getuid() === 0 ? ["--no-sandbox"] : [])],
  });
});

after(async () => {
  await browser?.close();
  assert.equal(await server?.stop(), 0);
});

/** A page that was loaded; in the end nothing may have been asked of another host, and nothing complained about. */
async function withPage(options, use) {
  const { width = 1280, height = 900, theme = "light", url = server.url, expectedErrors = 0 } = options;
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  page.setDefaultTimeout(timeout);
  const complaints = [], elsewhere = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => new URL(request.url()).origin !== url && elsewhere.push(request.url()));
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
  try {
    const answer = await page.goto(url);
    await use(page, answer);
    assert.deepEqual(elsewhere, []);
    assert.equal(complaints.length, expectedErrors, complaints.join("\n"));
  } finally {
    await context.close();
  }
}

const timeout = 120_000;  // reached only by what never happens: the machine may be busy
const ready = (page) => page.waitForSelector("#start:not([disabled])");
const done = (page) => page.waitForFunction(() => document.querySelector("#stop").disabled);
const textOf = (page, pane = 0) =>
  page.$$eval(".pane", (panes, i) => panes[i].querySelector(".text").textContent, pane);
const tokensOf = (page, pane = 0) =>
  page.$$eval(".pane", (panes, i) => panes[i].querySelectorAll(".token:not(.from-prompt)").length, pane);
const meter = (page, name, pane = 0) =>
  page.$$eval(".pane", (panes, i, n) => panes[i].querySelector(`[data-meter="${n}"]`).textContent, pane, name);

/** Fills fields of the form by their names, as typing would. */
async function set(page, fields) {
  await page.evaluate((values) => {
    const form = document.querySelector("#prompt-form");
    for (const [name, value] of Object.entries(values)) {
      const field = form.elements.namedItem(name);
      if (field.type === "checkbox") field.checked = value;
      else field.value = value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
  }, fields);
}

const prompt = "Once upon a time, there was a big dog. He";
const greedy = { prompt, temperature: "0", top_p: "1", max_tokens: "60" };

async function complete(fields) {
  const response = await fetch(`${server.url}/v1/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ prompt, temperature: 0, max_tokens: 60, ...fields }),
  });
  assert.equal(response.status, 200);
  return response.json();
}

test("loads by itself, with nothing from elsewhere and nothing inline", async () => {
  await withPage({}, async (page, answer) => {
    assert.equal(answer.status(), 200);
    assert.match(answer.headers()["content-security-policy"], /default-src 'none'/);
    await ready(page);
    assert.match(await page.title(), /photon-stories/);
    assert.match(await page.$eval("#facts", (facts) => facts.textContent), /5\.47 M parameters.*chunks of 32 × 2/);
    assert.equal(await page.$$eval("#legend li", (items) => items.length), 4);
  });
});

test("writes what the API writes, chunk by chunk", async () => {
  const expected = await complete({});
  await withPage({}, async (page) => {
    await ready(page);
    await set(page, greedy);
    await page.select("#pace", "Infinity");
    await page.click("#start");
    await done(page);
    assert.equal(await textOf(page), prompt + expected.choices[0].text);
    const { prompt_tokens, completion_tokens } = expected.usage;
    assert.equal(await meter(page, "tokens"), `${prompt_tokens} + ${completion_tokens}`);
    const total = prompt_tokens + completion_tokens;
    const units = await page.$eval("canvas", (canvas) => canvas.dataset.units);
    assert.equal(units, [total, Math.floor(total / unit1), Math.floor(total / unit2)].join(" "));
    const starts = await page.$$eval(".token", (tokens) =>
      tokens.map((token, i) => [i, Number(token.dataset.begins)]).filter(([, level]) => level > 0));
    assert.deepEqual(starts, [...Array(total).keys()].filter((i) => i % unit1 === 0)
      .map((i) => [i, i % unit2 === 0 ? 2 : 1]));
    assert.match(await meter(page, "ours-bytes"), /^\d.* kB$/);
    assert.match(await meter(page, "memory-ratio"), /× less$/);
    assert.match(await page.$eval("#status", (status) => status.textContent), /hiergen: .* tokens\./);
  });
});

test("a token tells its probability and its place, by pointer", async () => {
  const { choices } = await complete({ logprobs: 5, max_tokens: 8 });
  await withPage({}, async (page) => {
    await ready(page);
    await set(page, { ...greedy, max_tokens: "8" });
    await page.click("#start");
    await done(page);
    await page.hover(".token:not(.from-prompt)");
    const tip = await page.$eval("#tip", (card) => card.hidden ? "" : card.innerText);
    assert.match(tip, new RegExp(`log-probability ${choices[0].logprobs.token_logprobs[0].toFixed(3)}`));
    assert.match(tip, /level-1 unit \d+, slot \d+ of 32/);
    assert.match(tip, /level-2 unit \d+, slot \d of 2/);
    assert.equal(await page.$$eval("#tip .tip-other", (rows) => rows.length), 5);
    assert.equal(await page.$$eval("#tip .tip-chosen", (rows) => rows.length), 1);
    await page.hover("h1");
    assert.equal(await page.$eval("#tip", (card) => card.hidden), true);
  });
});

test("stop ends the text here and on the server", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    await set(page, { ...greedy, max_tokens: "150000", ignore_eos: true });  // longer than the wait below
    await page.select("#pace", "12");
    await page.click("#start");
    await page.waitForFunction(() => document.querySelectorAll(".token:not(.from-prompt)").length >= 3);
    await page.click("#stop");
    await done(page);
    const stopped = await tokensOf(page);
    await eventually(async () => (await server.metric("num_requests_running")) === 0, "the server stops", 8000);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(await tokensOf(page), stopped);
    assert.match(await page.$eval("#status", (status) => status.textContent), /stopped after \d+ tokens/);
    await ready(page);  // and it can be started again
  });
});

test("two protocols write side by side, each with its own figures", async () => {
  const [exact, recursive] = await Promise.all([complete({}), complete({ protocol: "recgen" })]);
  await withPage({ width: 1400 }, async (page) => {
    await ready(page);
    await set(page, greedy);
    await page.select("#pace", "Infinity");
    await page.click("#compare");
    await page.click("#start");
    await done(page);
    assert.equal(await textOf(page, 0), prompt + exact.choices[0].text);
    assert.equal(await textOf(page, 1), prompt + recursive.choices[0].text);
    for (const pane of [0, 1]) {
      assert.match(await meter(page, "rate", pane), /^[\d,.]+$/);
      assert.match(await meter(page, "ours-bytes", pane), /kB$/);
    }
    const [left, right] = await page.$$eval(".pane", (panes) => panes.map((pane) => pane.getBoundingClientRect().left));
    assert.ok(left < right);
    if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/compare.png` });
    await page.click("#compare");
    assert.equal(await page.$$eval(".pane", (panes) => panes.length), 1);
  });
});

test("an error is shown where the text would be, in the server's words", async () => {
  await withPage({ expectedErrors: 1 }, async (page) => {  // the browser itself notes the status 400
    await ready(page);
    await set(page, { ...greedy, max_tokens: "99999999" });
    await page.click("#start");
    await done(page);
    const shown = await page.$eval(".pane .error", (error) => error.hidden ? "" : error.textContent);
    assert.match(shown, /context|max_tokens/);
    await set(page, { max_tokens: "4" });
    await page.click("#start");
    await done(page);
    assert.equal(await page.$eval(".pane .error", (error) => error.hidden), true);
    assert.equal(await tokensOf(page), 4);
  });
});

test("a field that cannot be sent is named before anything is asked", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    await set(page, { temperature: "-1" });
    await page.click("#start");
    assert.equal(await page.$eval("details", (details) => details.open), true);
    assert.equal(await page.evaluate(() => document.activeElement.name), "temperature");
    assert.equal(await tokensOf(page), 0);
  });
});

test("everything can be done by keyboard", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    const order = [];
    for (let i = 0; i < 12; ++i) {
      await page.keyboard.press("Tab");
      order.push(await page.evaluate(() => document.activeElement.id || document.activeElement.className ||
        document.activeElement.tagName));
    }
    for (const id of ["theme", "prompt", "start", "compare", "pace", "colors"]) {
      assert.ok(order.includes(id), `${id} in ${order}`);
    }
    await set(page, { max_tokens: "2000", ignore_eos: true });  // so that only Escape ends it
    await page.focus("#prompt");
    await page.keyboard.down("Control");
    await page.keyboard.press("a");
    await page.keyboard.up("Control");
    await page.keyboard.type("One day, a cat");
    await page.keyboard.down("Control");
    await page.keyboard.press("Enter");
    await page.keyboard.up("Control");
    await page.waitForFunction(() => document.querySelectorAll(".token:not(.from-prompt)").length > 40);
    await page.keyboard.press("Escape");
    await done(page);
    assert.ok((await textOf(page)).startsWith("One day, a cat"));
    // One Tab into the text, then arrows from token to token and from chunk to chunk.
    await page.focus(".pane select");
    await page.keyboard.press("Tab");
    const focused = () => page.evaluate(() => document.activeElement.dataset.position);
    assert.equal(await focused(), "0");
    await page.keyboard.press("ArrowRight");
    assert.equal(await focused(), "1");
    await page.keyboard.press("ArrowDown");
    assert.equal(await focused(), String(1 + unit1));
    await page.keyboard.press("End");
    assert.match(await page.$eval("#tip", (card) => card.innerText), /log-probability/);
    const described = await page.evaluate(() => document.activeElement.getAttribute("aria-describedby"));
    assert.equal(described, "tip");
  });
});

test("every control has a name", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    await page.click("#compare");
    await page.click("summary");
    const nameless = [], walk = (node) => {
      const roles = ["button", "textbox", "checkbox", "combobox", "spinbutton", "link", "image"];
      if (roles.includes(node.role) && !node.name) nameless.push(node);
      node.children?.forEach(walk);
    };
    walk(await page.accessibility.snapshot());
    assert.deepEqual(nameless, []);
    assert.equal(await page.$eval("#status", (status) => status.getAttribute("role")), "status");
  });
});

test("fits a phone", async () => {
  await withPage({ width: 360, height: 740 }, async (page) => {
    await ready(page);
    const overhang = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok((await overhang()) <= 0);
    await page.click("#compare");
    await page.click("summary");
    await set(page, { ...greedy, max_tokens: "40" });
    await page.click("#start");
    await done(page);
    assert.ok((await overhang()) <= 0);
    await page.$eval(".pane .token:last-child", (token) => token.scrollIntoView({ block: "center" }));
    await page.tap(".pane .token:last-child");
    assert.ok((await overhang()) <= 0);
    const shots = process.env.SCREENSHOTS;
    if (shots) await page.screenshot({ path: `${shots}/phone.png`, fullPage: true });
  });
});

test("the glossary explains a word by its address, offline, on a phone too", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    assert.equal(await page.$eval(".top a", (link) => new URL(link.href).pathname), "/glossary");
    await page.goto(`${server.url}/glossary#unit`);
    assert.equal(await page.$eval(":target, #unit", (term) => term.textContent), "Unit (X⁽ˡ⁾)");
    assert.ok(await page.$eval("#unit", (term) => {
      const { top, bottom } = term.getBoundingClientRect();
      return top >= 0 && bottom <= innerHeight;
    }));
    assert.match(await page.$eval("#tpm + dd", (meaning) => meaning.textContent), /^throughput per memory/);
    for (const selector of ["h1", "#unit", "#unit + dd", ".top a"]) {
      assert.ok((await contrast(page, selector)) >= 4.5, selector);
    }
    await page.setViewport({ width: 360, height: 740 });
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)) <= 0);
    if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/glossary.png` });
  });
});

/** WCAG's contrast of an element's text with what is painted behind it. */
const contrast = (page, selector) => page.$eval(selector, (element) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const behind = [];
  for (let node = element; node; node = node.parentElement) behind.unshift(getComputedStyle(node).backgroundColor);
  const luminance = () => {
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => value / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paint = (color) => { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); };
  behind.forEach(paint);
  const back = luminance();
  paint(getComputedStyle(element).color);
  const [dark, light] = [back, luminance()].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
});

test("light and dark follow the system until the switch is used, and both can be read", async () => {
  for (const theme of ["light", "dark"]) {
    await withPage({ theme }, async (page) => {
      await ready(page);
      const brightness = () => page.evaluate(() =>
        Number(/\d+/.exec(getComputedStyle(document.body).backgroundColor)[0]));
      const isDark = async () => (await brightness()) < 128;
      assert.equal(await isDark(), theme === "dark");
      for (let turn = 0; turn < 2; ++turn) {
        for (const selector of ["h1", "#facts", "#start", ".protocol-note", ".note", "#prompt", "#status", ".big dd"]) {
          const ratio = await contrast(page, selector);
          assert.ok(ratio >= 4.5, `${selector} has contrast ${ratio.toFixed(2)}`);
        }
        if (turn === 0) await page.click("#theme");
      }
      assert.equal(await isDark(), theme !== "dark");
      await page.reload();
      await ready(page);
      assert.equal(await isDark(), theme !== "dark");
    });
  }
});

test("asks for a key where the server wants one", async () => {
  const locked = await startServer(["--api-key", "sesame"]);
  try {
    await withPage({ url: locked.url, expectedErrors: 2 }, async (page) => {  // the browser notes each status 401
      await page.waitForSelector("#key-form:not([hidden])");
      for (const key of ["wrong", "sesame"]) {
        await page.focus("#key");
        await page.$eval("#key", (field) => { field.value = ""; });
        await page.keyboard.type(key);
        await page.keyboard.press("Enter");
        if (key === "sesame") continue;
        await page.waitForFunction(() => /does not know/.test(document.querySelector("#status").textContent));
      }
      await ready(page);
      assert.equal(await page.$eval("#key-form", (form) => form.hidden), true);
      await set(page, { ...greedy, max_tokens: "4" });
      await page.click("#start");
      await done(page);
      assert.equal(await tokensOf(page), 4);
    });
  } finally {
    await locked.stop();
  }
});

test("a vanilla model has no units, and nothing to compare", async () => {
  const vanilla = await startServer([], "vanilla-stories");
  try {
    await withPage({ url: vanilla.url }, async (page) => {
      await ready(page);
      await set(page, { ...greedy, max_tokens: "8" });
      await page.click("#start");
      await done(page);
      assert.equal(await tokensOf(page), 8);
      assert.match(await page.$eval("canvas", (canvas) => canvas.dataset.units), /^\d+$/);
      assert.match(await page.$eval(".protocol-note", (note) => note.textContent), /Transformer/);
      assert.equal(await page.$eval("#compare", (box) => box.checkVisibility()), false);
    });
  } finally {
    await vanilla.stop();
  }
});
