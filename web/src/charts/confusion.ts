// The confusion matrix as a heat map. Shares are of a true class, so that rare classes are seen as well as frequent ones.
import { readable, tint } from "./diverging";
import type { Palette } from "./colors";

export interface Confusion {
  classes: number;
  names: string[];
  /** Counts, [true class, said class], row major; differences may be negative. */
  cells: ArrayLike<number>;
  /** Samples of each true class. */
  rows: ArrayLike<number>;
  change: boolean;
}

/** Room for the names beside and above. */
export const EDGE = 26;
const WRITTEN = 22; // CSS pixels; smaller cells hold no number
const NAMED = 13; // CSS pixels; smaller cells have no name

export function drawConfusion(
  context: CanvasRenderingContext2D,
  width: number,
  height: number,
  { classes, names, cells, rows, change }: Confusion,
  palette: Palette,
  hover: [number, number] | null,
): void {
  if (classes === 0) return;
  const w = (width - EDGE) / classes;
  const h = (height - EDGE) / classes;
  let most = 0;
  if (change) for (let i = 0; i < cells.length; i++) most = Math.max(most, Math.abs(cells[i]));
  context.textAlign = "center";
  context.textBaseline = "middle";
  const gap = Math.min(w, h) >= 8 ? 1 : 0;
  for (let r = 0; r < classes; r++) {
    for (let c = 0; c < classes; c++) {
      const value = cells[r * classes + c];
      const [x, y] = [EDGE + c * w, EDGE + r * h];
      const share = change ? Math.abs(value) / (most || 1) : value / (rows[r] || 1);
      // Right answers are the rule and stay quiet; mistakes are rare and must be seen at 1 %.
      const color = change ? (value < 0 ? palette.before : palette.after) : r === c ? palette.before : palette.after;
      const strength = value === 0 ? 0.03 : r === c && !change ? 0.7 * share : 0.12 + 0.88 * Math.sqrt(share);
      const ground = tint(palette, value === 0 ? palette.muted : color, strength);
      context.fillStyle = ground;
      context.fillRect(x, y, w - gap, h - gap);
      if (value === 0 || w < WRITTEN || h < WRITTEN * 0.7) continue;
      context.fillStyle = readable(palette, ground);
      context.font = "12px system-ui, sans-serif";
      context.fillText(change && value > 0 ? `+${value}` : String(value).replace("-", "−"), x + w / 2, y + h / 2);
    }
  }
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = palette.muted;
  const every = Math.ceil(NAMED / Math.min(w, h));
  for (let i = 0; i < classes; i += every) {
    const name = (names[i] ?? String(i)).slice(0, 3);
    context.fillText(name, EDGE + (i + 0.5) * w, EDGE / 2, w * every);
    context.fillText(name, EDGE / 2, EDGE + (i + 0.5) * h, EDGE);
  }
  if (!hover) return;
  context.strokeStyle = palette.text;
  context.lineWidth = 2;
  context.strokeRect(EDGE + hover[1] * w + 1, EDGE + hover[0] * h + 1, w - 2 - gap, h - 2 - gap);
}

/** True class and said class under a point. */
export function classesAt(
  x: number,
  y: number,
  width: number,
  height: number,
  classes: number,
): [number, number] | null {
  const row = Math.floor(((y - EDGE) / (height - EDGE)) * classes);
  const column = Math.floor(((x - EDGE) / (width - EDGE)) * classes);
  return row >= 0 && row < classes && column >= 0 && column < classes ? [row, column] : null;
}
