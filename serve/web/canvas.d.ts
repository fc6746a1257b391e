// In every browser since 2023, in TypeScript's library since 5.0.
interface CanvasRenderingContext2D {
  roundRect(x: number, y: number, width: number, height: number, radius: number): void;
}
