// A sample of the data as a picture.
import type { DataInfo } from "nibble-nn";

/** Rows, columns and colors of a sample, or null where it is no picture. */
export function pictureShape({ shape, layout }: Pick<DataInfo, "shape" | "layout">): [number, number, number] | null {
  const sizes = shape.length === 3 && layout === "hw" ? shape.slice(1) : shape;
  if (layout === "hw" && sizes.length === 2) return [sizes[0], sizes[1], 1];
  if (layout === "chw" && shape.length === 3 && [1, 3].includes(shape[0])) return [shape[1], shape[2], shape[0]];
  if (layout === "hwc" && shape.length === 3 && [1, 3].includes(shape[2])) return [shape[0], shape[1], shape[2]];
  return null;
}

/** RGBA, row major. Bytes are taken as they are, other numbers from the sample's lowest to its highest. */
export function pixelsOf(
  values: Uint8Array | Float32Array,
  info: Pick<DataInfo, "shape" | "layout" | "dtype">,
): Uint8ClampedArray<ArrayBuffer> | null {
  const found = pictureShape(info);
  if (!found) return null;
  const [rows, columns, colors] = found;
  const pixels = new Uint8ClampedArray(rows * columns * 4);
  let [low, high] = [0, 255];
  if (info.dtype !== "uint8") {
    [low, high] = [Infinity, -Infinity];
    for (const value of values) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  const scale = 255 / (high - low || 1);
  const plane = rows * columns;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) {
      const color = colors === 1 ? 0 : c;
      pixels[i * 4 + c] = (values[info.layout === "chw" ? color * plane + i : i * colors + color] - low) * scale;
    }
    pixels[i * 4 + 3] = 255;
  }
  return pixels;
}
