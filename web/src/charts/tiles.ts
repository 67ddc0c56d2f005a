// One value of the graph as pictures: a tile for each channel, or bars where it is a vector.
import type { Palette } from "./colors";
import { divergingTable, shadeOf } from "./diverging";

/** How the numbers of one sample lie: `tiles` pictures of rows by columns, or a vector (rows and columns 1). */
export interface Layout {
  tiles: number;
  rows: number;
  columns: number;
}

/** A leading 1 is the batch. [C, H, W] are C tiles; [H, W] is one; [F] is a vector; more axes are folded into tiles. */
export function layoutOf(shape: readonly number[]): Layout {
  const sizes = shape.length > 1 && shape[0] === 1 ? shape.slice(1) : [...shape];
  const [columns = 1, rows = 1] = [sizes.at(-1), sizes.at(-2)];
  if (sizes.length <= 1 || (rows === 1 && columns === 1)) {
    return { tiles: sizes.reduce((a, b) => a * b, 1), rows: 1, columns: 1 };
  }
  return { tiles: sizes.slice(0, -2).reduce((a, b) => a * b, 1), rows, columns };
}

/** More would be too small to be told apart. */
export const MOST_TILES = 64;
const GAP = 3;

/** How many tiles stand side by side so that all fit in the width, and how high all are. */
export function gridOf(
  { tiles, rows, columns }: Layout,
  width: number,
): { across: number; tile: number; height: number } {
  const shown = Math.min(tiles, MOST_TILES);
  const across = Math.max(1, Math.min(shown, Math.ceil(Math.sqrt((shown * rows) / columns))));
  const tile = (width - GAP * (across - 1)) / across;
  const high = (tile * rows) / columns;
  return { across, tile, height: Math.ceil(shown / across) * (high + GAP) - GAP };
}

const small = typeof document === "undefined" ? null : document.createElement("canvas");

/** `most` is what the strongest color stands for. */
export function drawTiles(
  context: CanvasRenderingContext2D,
  width: number,
  values: Float32Array,
  layout: Layout,
  most: number,
  palette: Palette,
): void {
  const { rows, columns } = layout;
  const { across, tile } = gridOf(layout, width);
  const shown = Math.min(layout.tiles, MOST_TILES);
  if (!small || rows * columns === 0) return;
  const table = divergingTable(palette);
  small.width = columns;
  small.height = rows;
  const pencil = small.getContext("2d")!;
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const high = (tile * rows) / columns;
  context.imageSmoothingEnabled = false;
  context.fillStyle = palette.line;
  for (let t = 0; t < shown; t++) {
    for (let i = 0; i < pixels.length; i++) pixels[i] = table[shadeOf(values[t * pixels.length + i], most)];
    pencil.putImageData(image, 0, 0);
    const [x, y] = [(t % across) * (tile + GAP), Math.floor(t / across) * (high + GAP)];
    // A frame, else an empty channel would not be seen.
    context.fillRect(x - 0.5, y - 0.5, tile + 1, high + 1);
    context.drawImage(small, x, y, tile, high);
  }
}

const SIDE = 4;

/** Before as a wide gray bar, after as a narrow one in front. */
export function drawVector(
  context: CanvasRenderingContext2D,
  width: number,
  height: number,
  before: Float32Array,
  after: Float32Array,
  palette: Palette,
  hover: number | null,
): void {
  const n = before.length;
  if (n === 0) return;
  let [low, high] = [0, 0];
  for (const values of [before, after])
    for (const value of values) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  const y = (value: number): number => SIDE + ((high - value) / (high - low || 1)) * (height - 2 * SIDE);
  const step = width / n;
  if (hover !== null) {
    context.fillStyle = palette.line;
    context.fillRect(hover * step, 0, Math.max(step, 1), height);
  }
  const bar = (i: number, value: number, share: number, color: string): void => {
    const wide = Math.max(step * share, 0.75);
    context.fillStyle = color;
    context.fillRect((i + 0.5) * step - wide / 2, Math.min(y(0), y(value)), wide, Math.abs(y(value) - y(0)));
  };
  for (let i = 0; i < n; i++) bar(i, before[i], 0.9, palette.before);
  for (let i = 0; i < n; i++) bar(i, after[i], 0.45, palette.after);
  context.fillStyle = palette.muted;
  context.fillRect(0, Math.round(y(0)), width, 1);
}
