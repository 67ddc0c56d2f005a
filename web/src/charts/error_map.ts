// The error of every weight as one cell: rows are output channels, columns the inputs of one channel.
import { ramp, shadeTable, type Palette } from "./colors";

export interface ErrorMap {
  rows: number;
  columns: number;
  cells: Float32Array;
}

const small = typeof document === "undefined" ? null : document.createElement("canvas");

/** `deviation`: standard deviation of the weight before, which the color scale is measured by. */
export function drawErrorMap(
  context: CanvasRenderingContext2D,
  width: number,
  height: number,
  map: ErrorMap,
  deviation: number,
  dark: boolean,
  palette: Palette,
  hover: [number, number] | null,
): void {
  const { rows, columns, cells } = map;
  if (rows === 0 || columns === 0 || !small) return;
  small.width = columns;
  small.height = rows;
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const table = ramp(dark);
  const shades = shadeTable(deviation);
  const bits = new Uint32Array(cells.buffer, cells.byteOffset, cells.length);
  for (let i = 0; i < cells.length; i++) pixels[i] = table[shades[bits[i] >>> 16]];
  small.getContext("2d")!.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = columns > 2 * width;
  context.drawImage(small, 0, 0, width, height);
  // A hairline between cells that are large enough to be told apart.
  const w = width / columns;
  const h = height / rows;
  context.fillStyle = palette.surface;
  if (w >= 5) for (let c = 1; c < columns; c++) context.fillRect(c * w - 0.5, 0, 1, height);
  if (h >= 5) for (let r = 1; r < rows; r++) context.fillRect(0, r * h - 0.5, width, 1);
  if (!hover) return;
  context.strokeStyle = palette.text;
  context.lineWidth = 2;
  context.strokeRect(hover[1] * w + 1, hover[0] * h + 1, Math.max(w - 2, 2), Math.max(h - 2, 2));
}

/** Row and column under a point. */
export function cellAt(
  x: number,
  y: number,
  width: number,
  height: number,
  { rows, columns }: ErrorMap,
): [number, number] | null {
  const row = Math.floor((y / height) * rows);
  const column = Math.floor((x / width) * columns);
  return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
}
