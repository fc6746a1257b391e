// Shows tokens no faster than a chosen pace: a small model writes thousands per second, too fast to watch.

export class Pacer<T> {
  private queue: T[] = [];
  private credit = 0;
  private last = 0;
  private frame = 0;
  private waiting: (() => void)[] = [];

  /** @param pace  items per second, asked anew at every frame; Infinity: at once */
  constructor(private readonly pace: () => number, private readonly show: (items: T[]) => void) {}

  push(items: readonly T[]): void {
    this.queue.push(...items);
    if (this.frame === 0 && this.queue.length > 0) {
      this.last = performance.now();
      this.credit = 1;  // the first one comes at once
      this.frame = requestAnimationFrame((now) => this.step(now));
    }
  }

  /** When everything has been shown or dropped. */
  drained(): Promise<void> {
    if (this.frame === 0) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  drop(): void {
    this.queue = [];
    cancelAnimationFrame(this.frame);
    this.rest();
  }

  private step(now: number): void {
    const pace = this.pace();
    this.credit += pace === Infinity ? this.queue.length : (pace * Math.max(0, now - this.last)) / 1000;
    this.last = now;
    const n = Math.min(this.queue.length, Math.floor(this.credit));
    if (n > 0) this.show(this.queue.splice(0, n));
    this.credit -= n;
    if (this.queue.length > 0) {
      this.frame = requestAnimationFrame((next) => this.step(next));
    } else {
      this.rest();
    }
  }

  private rest(): void {
    this.frame = 0;
    this.waiting.splice(0).forEach((resolve) => resolve());
  }
}
