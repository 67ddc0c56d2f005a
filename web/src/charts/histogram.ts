// Two histograms back to back: before grows up, after grows down, and the quantization levels stand as ticks on the line
// between them. Each half has its own height, since after quantizing the same weights stand in far fewer bins.
import type { Histogram } from "nibble-nn";
import type { Palette } from "./colors";
import { percent, real } from "../format";

export interface HistogramPicture {
  before: Histogram;
  after: Histogram;
  levels: Float32Array;
}

const AXIS = 22; // CSS pixels for the numbers below
const GAP = 14; // for the ticks between the halves
const SIDE = 8;

/** Height of a half: its tallest bar, but a zero bin that dwarfs the others is cut off and labelled instead. */
function scaleOf({ counts, lo, hi }: Histogram): { top: number; cut: number | null } {
  const zero = Math.floor((-lo / (hi - lo)) * counts.length);
  let top = 0;
  for (let i = 0; i < counts.length; i++) if (i !== zero) top = Math.max(top, counts[i]);
  const atZero = counts[zero] ?? 0;
  return atZero > 1.6 * top && top > 0 ? { top: top * 1.25, cut: zero } : { top: Math.max(top, atZero), cut: null };
}

export function drawHistogram(
  context: CanvasRenderingContext2D,
  width: number,
  height: number,
  data: HistogramPicture,
  palette: Palette,
  hover: number | null,
): void {
  const { lo, hi } = data.before;
  const span = hi - lo || 1;
  const half = (height - AXIS - GAP) / 2;
  const inner = width - 2 * SIDE;
  const x = (value: number): number => SIDE + ((value - lo) / span) * inner;
  // With one grid for all, a bar stands for a level, so it may be as wide as the levels are apart.
  const filled = data.after.counts.reduce((sum, value) => sum + (value > 0 ? 1 : 0), 0);
  const oneGrid = data.levels.length > 1 && filled <= data.levels.length + 1;
  const apart = oneGrid ? x(data.levels[1]) - x(data.levels[0]) : 0;
  const drawHalf = (histogram: Histogram, base: number, direction: 1 | -1, color: string): void => {
    const { top, cut } = scaleOf(histogram);
    const bins = histogram.counts.length;
    const step = inner / bins;
    context.fillStyle = color;
    for (let i = 0; i < bins; i++) {
      const value = histogram.counts[i];
      if (value === 0) continue;
      // At least a visible sliver, else rare outliers could not be seen.
      const size = Math.max(1, Math.min(1, value / (top || 1)) * (half - 4));
      const left = SIDE + i * step;
      const wide = Math.max(step - (step > 3 ? 0.75 : 0), 0.75, direction < 0 ? Math.min(apart * 0.55, 16) : 0);
      context.fillRect(left + (step - wide) / 2, direction > 0 ? base - size : base, wide, size);
      if (i !== cut) continue;
      // A white nick says that the bar goes on.
      const nick = direction > 0 ? base - size + 9 : base + size - 12;
      context.fillStyle = palette.surface;
      context.fillRect(left + (step - wide) / 2 - 2, nick, wide + 4, 3);
      const sum = histogram.counts.reduce((a, b) => a + b, 0);
      context.fillStyle = palette.text;
      context.font = "12px system-ui, sans-serif";
      const right = left > width / 2;
      context.textAlign = right ? "right" : "left";
      context.textBaseline = direction > 0 ? "top" : "bottom";
      context.fillText(
        percent(value / sum),
        right ? left + (step - wide) / 2 - 6 : left + (step + wide) / 2 + 6,
        direction > 0 ? base - size : base + size,
      );
      context.fillStyle = color;
    }
  };
  const middle = half + GAP / 2;
  if (hover !== null) {
    context.fillStyle = palette.line;
    context.fillRect(
      SIDE + (hover * inner) / data.before.counts.length,
      0,
      inner / data.before.counts.length,
      height - AXIS,
    );
  }
  drawHalf(data.before, half, 1, palette.before);
  drawHalf(data.after, half + GAP, -1, palette.after);

  context.fillStyle = palette.text;
  const fine = data.levels.length > inner / 3;
  context.globalAlpha = fine ? 0.3 : 1;
  for (const level of data.levels) context.fillRect(x(level) - 0.5, middle - (fine ? 3 : 5), 1, fine ? 6 : 10);
  context.globalAlpha = 1;

  context.fillStyle = palette.muted;
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "bottom";
  for (const [value, align] of [
    [lo, "left"],
    [hi, "right"],
  ] as const) {
    context.textAlign = align;
    context.fillText(real(value), x(value), height);
  }
  const zero = x(0);
  if (lo < 0 && hi > 0 && zero > 60 && zero < width - 60) {
    context.textAlign = "center";
    context.fillText("0", zero, height);
    context.fillStyle = palette.line;
    context.fillRect(zero - 0.5, height - AXIS, 1, 5);
  }
}

/** The bin under a horizontal position, or null outside. */
export function binAt(position: number, width: number, bins: number): number | null {
  const bin = Math.floor(((position - SIDE) / (width - 2 * SIDE)) * bins);
  return bin >= 0 && bin < bins ? bin : null;
}
