// Numbers as people read them.

const groups = new Intl.NumberFormat("en");

export function count(n: number): string {
  return groups.format(n);
}

/** 283 kB: three digits, powers of 1000. */
export function bytes(n: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 999.5 && unit + 1 < units.length) {
    n /= 1000;
    ++unit;
  }
  return `${unit === 0 ? Math.round(n) : Number(n.toPrecision(3))} ${units[unit]}`;
}

/** Three digits, or all of them from 1,000 up. */
export function rate(n: number): string {
  return n >= 100 ? groups.format(Math.round(n)) : String(Number(n.toPrecision(3)));
}

export function milliseconds(n: number): string {
  return `${n >= 100 ? groups.format(Math.round(n)) : Number(n.toFixed(1))} ms`;
}

/** 3.1×; whole from 20 up. */
export function ratio(n: number): string {
  return `${n >= 20 ? groups.format(Math.round(n)) : Number(n.toPrecision(2))}×`;
}

export function millions(n: number): string {
  return n >= 1e9 ? `${Number((n / 1e9).toPrecision(3))} B` : `${Number((n / 1e6).toPrecision(3))} M`;
}

export function percent(p: number): string {
  return p >= 0.0995 ? `${Math.round(p * 100)} %` : `${Number((p * 100).toPrecision(2))} %`;
}

/** Spaces and line breaks that would be invisible, made visible. */
export function visible(piece: string): string {
  return piece.replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\t/g, "⇥");
}
