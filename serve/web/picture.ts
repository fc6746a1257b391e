// The hierarchy as it is built: tokens below, a cone of light from each chunk up to its unit.  Units light up when they
// are encoded and fade when the model no longer holds them; the beam shows what the next token unfolds from.
import { firstHeld, firstTokenHeld, tokensPerUnit, unitsAfter } from "./hierarchy.js";
import type { Level } from "./props.js";
import { cssColor } from "./theme.js";

const widestCell = 18, row = 54, margin = 14, tokenSize = 13;
const pulseMs = 900;

export class Picture {
  private levels: readonly Level[] = [];
  private sizes: number[] = [1];
  private cell = widestCell;  // a token's column; narrow enough to see nearly two top-level units at once
  private births: number[] = [];  // when each token was shown, ms
  private nPrompt = 0;
  private recursive = false;
  private writing = false;
  private pointed: number | null = null;
  private viewStart = 0;  // the first column that is seen, in tokens; fractional while it moves
  private frame = 0;
  private colors: Record<string, string> = {};
  private readonly calm = matchMedia("(prefers-reduced-motion: reduce)");

  constructor(private readonly canvas: HTMLCanvasElement) {
    new ResizeObserver(() => this.request()).observe(canvas);
    document.addEventListener("themechange", () => {
      this.colors = {};
      this.request();
    });
  }

  clear(levels: readonly Level[], recursive: boolean): void {
    this.levels = levels;
    this.sizes = tokensPerUnit(levels);
    this.cell = Math.min(widestCell, Math.max(3, 320 / this.sizes[levels.length]!));
    this.births = [];
    this.nPrompt = 0;
    this.recursive = recursive && levels.length > 1;
    this.pointed = null;
    this.viewStart = 0;
    this.canvas.style.height = `${this.tokenTop() + tokenSize + margin}px`;
    this.changed();
  }

  add(count: number, fromPrompt: boolean): void {
    const now = performance.now();
    for (let i = 0; i < count; ++i) this.births.push(now);
    if (fromPrompt) this.nPrompt += count;
    this.changed();
  }

  /** Whether more tokens follow. */
  setWriting(writing: boolean): void {
    this.writing = writing;
    this.request();
  }

  /** Shows a token and the units above it; null: the newest ones again. */
  point(position: number | null): void {
    this.pointed = position;
    this.request();
  }

  private changed(): void {
    const units = unitsAfter(this.births.length, this.sizes);
    const said = units.slice(1).map((n, i) => `${n} level-${i + 1} units`);
    this.canvas.setAttribute("aria-label", ["Hierarchy", `${units[0]} tokens`, ...said].join(", "));
    this.canvas.dataset.units = units.join(" ");
    this.request();
  }

  private request(): void {
    if (this.frame === 0) this.frame = requestAnimationFrame((now) => this.draw(now));
  }

  private tokenTop(): number {
    return margin + this.levels.length * row;
  }

  private tokenLeft(token: number): number {
    return (token + 1 / 9) * this.cell;
  }

  private tokenWidth(): number {
    return 0.72 * this.cell;
  }

  private color(name: string): string {
    return (this.colors[name] ??= cssColor(name));
  }

  private draw(now: number): void {
    this.frame = 0;
    const context = this.canvas.getContext("2d")!;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
    }
    const moving = this.moveView(width);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    context.translate(margin - this.viewStart * this.cell, 0);

    const first = Math.max(0, Math.floor(this.viewStart) - 1);
    const last = Math.min(this.births.length, first + Math.ceil(width / this.cell) + 2);  // columns [first, last)
    for (let level = 1; level <= this.levels.length; ++level) this.drawLevel(context, level, first, last, now);
    this.drawTokens(context, first, last, now);
    if (this.writing) this.drawBeam(context, now);

    const newest = this.births[this.births.length - 1] ?? -Infinity;
    if (moving || (!this.calm.matches && (this.writing || now - newest < pulseMs))) this.request();
  }

  /** Follows the newest token, or centres the one that is pointed at. */
  private moveView(width: number): boolean {
    const columns = (width - 2 * margin) / this.cell;
    const last = Math.max(0, this.births.length + (this.writing ? 3 : 0) - columns);
    const target = this.pointed === null ? last : Math.max(0, Math.min(last, this.pointed - columns / 2));
    const rest = target - this.viewStart;
    if (this.calm.matches || Math.abs(rest) < 0.02) {
      this.viewStart = target;
      return false;
    }
    this.viewStart += rest * 0.2;
    if (this.pointed === null) this.viewStart = Math.max(this.viewStart, target - 1);  // the head stays in sight
    return true;
  }

  /** From 1 at birth to 0. */
  private pulse(birth: number, now: number): number {
    if (this.calm.matches) return 0;
    const age = (now - birth) / pulseMs;
    return age >= 1 ? 0 : (1 - Math.max(0, age)) ** 2;
  }

  /** Under recgen, the units below the top of every group that follows the prompt's last one are predicted. */
  private isPredicted(level: number, firstToken: number): boolean {
    return this.recursive && level < this.levels.length && firstToken >= this.predictedFrom();
  }

  private predictedFrom(): number {
    const group = this.sizes[this.levels.length]!;
    return Math.ceil(this.nPrompt / group) * group;
  }

  private firstUnitHeld(level: number): number {
    const count = this.births.length;
    if (this.recursive && level < this.levels.length && count > this.predictedFrom()) {
      const group = this.sizes[this.levels.length]!;
      return (Math.floor((count - 1) / group) * group) / this.sizes[level]!;
    }
    return firstHeld(Math.floor(count / this.sizes[level]!), this.levels[level - 1]!.encoder_span);
  }

  private pillWidth(level: number): number {
    return Math.max(4, Math.min(this.sizes[level]! * this.cell - 6, 16 + 12 * level));
  }

  private drawLevel(context: CanvasRenderingContext2D, level: number, first: number, last: number, now: number): void {
    const size = this.sizes[level]!;
    const color = this.color(`--level-${Math.min(level, 4)}`);
    const y = margin + (this.levels.length - level) * row;
    const below = y + row;
    const held = this.firstUnitHeld(level);
    for (let unit = Math.floor(first / size); unit * size < last; ++unit) {
      const begin = unit * size;
      const filled = Math.min(size, this.births.length - begin);
      const predicted = this.isPredicted(level, begin);
      const done = predicted || filled === size;
      const pulse = done ? this.pulse(this.births[predicted ? begin : begin + size - 1]!, now) : 0;
      const pointed = this.pointed !== null && Math.floor(this.pointed / size) === unit;
      const presence = pointed ? 1 : unit < held ? 0.3 : 1;
      const left = begin * this.cell + 2, right = (begin + size) * this.cell - 3;
      const middle = (left + right) / 2, pill = this.pillWidth(level);

      // The cone: the tokens' light, gathered.
      const light = context.createLinearGradient(0, y + tokenSize, 0, below);
      light.addColorStop(0, color);
      light.addColorStop(1, "transparent");
      const strength = done ? 0.34 + 0.5 * pulse + (pointed ? 0.25 : 0) : (0.16 * filled) / size;
      context.globalAlpha = presence * strength * (predicted ? 0.45 : 1);
      context.fillStyle = light;
      context.beginPath();
      context.moveTo(middle - pill / 2, y + tokenSize);
      context.lineTo(middle + pill / 2, y + tokenSize);
      context.lineTo(right, below);
      context.lineTo(left, below);
      context.fill();

      // The unit.
      if (!predicted) this.glow(context, color, pointed ? 1 : pulse, middle - pill / 2, y, pill, tokenSize + 3);
      context.globalAlpha = presence;
      context.fillStyle = context.strokeStyle = color;
      context.lineWidth = 1.5;
      context.beginPath();
      context.roundRect(middle - pill / 2, y, pill, tokenSize + 3, 6);
      if (done && !predicted) {
        context.fill();
      } else {
        if (predicted) context.setLineDash([3, 2]);
        context.globalAlpha = presence * (predicted ? 1 : 0.55);
        context.stroke();
        context.setLineDash([]);
      }
      if (done) {
        context.fillStyle = predicted ? color : this.color("--on-level");
        context.font = "600 10px ui-sans-serif, system-ui, sans-serif";
        context.textAlign = "center";
        context.textBaseline = "middle";
        context.fillText(String(unit + 1), middle, y + tokenSize / 2 + 2);
      } else if (filled > 0) {
        context.globalAlpha = presence * 0.35;
        context.fillRect(middle - pill / 2 + 3, y + 3, ((pill - 6) * filled) / size, tokenSize - 3);
      }
    }
    context.globalAlpha = 1;
  }

  private drawTokens(context: CanvasRenderingContext2D, first: number, last: number, now: number): void {
    const y = this.tokenTop();
    const level = this.levels[0];
    const held = level ? firstTokenHeld(this.births.length, level) : 0;
    for (let token = first; token < last; ++token) {
      const prompt = token < this.nPrompt;
      const pulse = this.pulse(this.births[token]!, now);
      this.glow(context, this.color("--photon"), pulse, this.tokenLeft(token), y, this.tokenWidth(), tokenSize);
      context.globalAlpha = token === this.pointed ? 1 : token < held ? 0.35 : prompt ? 0.7 : 1;
      context.fillStyle = this.color(token === this.pointed ? "--photon" : prompt ? "--muted" : "--token");
      context.beginPath();
      context.roundRect(this.tokenLeft(token), y, this.tokenWidth(), tokenSize, this.tokenWidth() / 4);
      context.fill();
    }
    context.globalAlpha = 1;
  }

  /** A halo in a few rings: canvas shadows are too slow for a hundred of them per frame. */
  private glow(context: CanvasRenderingContext2D, color: string, strength: number, x: number, y: number, width: number,
               height: number): void {
    if (strength < 0.02) return;
    context.fillStyle = color;
    context.globalAlpha = 0.085 * strength;
    for (const spread of [1.5, 3, 4.5, 6, 8, 10]) {
      context.beginPath();
      context.roundRect(x - spread, y - spread, width + 2 * spread, height + 2 * spread, 5 + spread);
      context.fill();
    }
  }

  /** From the last finished top-level unit down to the token that comes next. */
  private drawBeam(context: CanvasRenderingContext2D, now: number): void {
    const next = this.births.length, top = this.levels.length;
    const glow = this.calm.matches ? 0.8 : 0.65 + 0.35 * Math.sin(now / 160);
    const x = this.tokenLeft(next) + this.tokenWidth() / 2;
    context.strokeStyle = context.shadowColor = this.color("--photon");
    context.globalAlpha = glow;
    context.lineWidth = 1.75;
    context.shadowBlur = 8;
    context.beginPath();
    context.roundRect(this.tokenLeft(next), this.tokenTop(), this.tokenWidth(), tokenSize, this.tokenWidth() / 4);
    const group = this.sizes[top]!;
    const condition = Math.floor(next / group) - 1;  // its unit; before the first: the start latent, off to the left
    if (top > 0) {
      let fromX = condition < 0 ? -margin : (condition + 0.5) * group * this.cell + this.pillWidth(top) / 2;
      let fromY = margin + tokenSize / 2 + 1;
      for (let level = top - 1; level >= 0; --level) {
        const size = this.sizes[level]!;
        const toX = level === 0 ? x : (Math.floor(next / size) + 0.5) * size * this.cell;
        const toY = level === 0 ? this.tokenTop() : margin + (top - level) * row + tokenSize / 2 - 8;
        context.moveTo(fromX, fromY);
        context.bezierCurveTo((fromX + toX) / 2, fromY, toX, (fromY + toY) / 2, toX, toY);
        fromX = toX;
        fromY = toY + (level === 0 ? 0 : tokenSize + 3);
      }
    }
    context.stroke();
    context.shadowBlur = 0;
    context.globalAlpha = 1;
  }
}
