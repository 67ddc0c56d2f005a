// One bar per output channel. Where there are more channels than pixels, a pixel shows the largest of its channels.
import { real } from "../format";
import type { Palette } from "./colors";

const AXIS = 20; // CSS pixels for the numbers below
const TOP = 18; // for the number at the top

export function drawChannelBars(
  context: CanvasRenderingContext2D,
  width: number,
  height: number,
  values: Float32Array,
  chosen: number,
  palette: Palette,
  hover: number | null,
): void {
  const n = values.length;
  if (n === 0) return;
  let top = 0;
  for (const value of values) top = Math.max(top, value);
  const step = width / n;
  const area = height - AXIS - TOP;
  context.fillStyle = palette.line;
  context.fillRect(0, TOP, width, 1);
  context.fillRect(0, TOP + area, width, 1);
  const size = (i: number): number => (top > 0 ? (values[i] / top) * area : 0);
  const bar = (i: number, color: string): void => {
    context.fillStyle = color;
    context.fillRect(i * step, TOP + area - size(i), Math.max(step - (step >= 4 ? 1 : 0), 1), size(i));
  };
  if (step >= 1) {
    for (let i = 0; i < n; i++) bar(i, palette.after);
  } else {
    context.fillStyle = palette.after;
    for (let p = 0; p < width; p++) {
      let tallest = 0;
      for (let i = Math.floor(p / step); i < Math.min(n, (p + 1) / step); i++) tallest = Math.max(tallest, size(i));
      context.fillRect(p, TOP + area - tallest, 1, tallest);
    }
  }
  for (const [i, color] of [
    [chosen, palette.text],
    [hover, palette.muted],
  ] as const) {
    if (i === null || i >= n) continue;
    context.fillStyle = color;
    context.fillRect(i * step, TOP + area + 2, Math.max(step - (step >= 4 ? 1 : 0), 2), 3);
  }
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = palette.muted;
  context.textBaseline = "top";
  context.textAlign = "left";
  context.fillText(real(top), 0, 2);
  context.textBaseline = "bottom";
  context.fillText("0", 0, height);
  context.textAlign = "right";
  if (n > 1) context.fillText(String(n - 1), width, height);
}

export function channelAt(x: number, width: number, n: number): number | null {
  const i = Math.floor((x / width) * n);
  return i >= 0 && i < n ? i : null;
}
