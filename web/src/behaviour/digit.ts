// From strokes to what a digit network was taught with, and from its output to probabilities.
import type { TensorValue } from "nibble-nn";

/** A picture as numbers 0 to 255, row major. */
export interface Ink {
  width: number;
  height: number;
  values: Uint8Array;
}

const SIDE = 28;
/** MNIST's digits were scaled to fit 20 by 20 pixels, then put with their center of mass in the middle of 28 by 28
 *  (LeCun, Cortes, Burges: The MNIST database of handwritten digits). */
const BOX = 20;

/** The drawing as MNIST would have it; null where nothing is drawn. */
export function asMnist({ width, height, values }: Ink): Uint8Array | null {
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      if (values[y * width + x] < 16) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
    }
  if (right < 0) return null;
  // Pixels of the drawing per pixel of the picture. A dot is not blown up to the whole box.
  const scale = Math.max(right - left + 1, bottom - top + 1, Math.min(width, height) / 6) / BOX;
  // Center of mass.
  let [mass, mx, my] = [0, 0, 0];
  for (let y = top; y <= bottom; y++)
    for (let x = left; x <= right; x++) {
      const value = values[y * width + x];
      mass += value;
      mx += value * (x + 0.5);
      my += value * (y + 0.5);
    }
  const [centerX, centerY] = [mx / mass, my / mass];
  const picture = new Uint8Array(SIDE * SIDE);
  for (let py = 0; py < SIDE; py++)
    for (let px = 0; px < SIDE; px++) {
      const x0 = centerX + (px - SIDE / 2) * scale;
      const y0 = centerY + (py - SIDE / 2) * scale;
      picture[py * SIDE + px] = Math.round(meanOf(values, width, height, x0, y0, scale));
    }
  return picture;
}

/** Mean over the square from (x0, y0) of side `size`, by whole pixels; outside of the drawing there is nothing. */
function meanOf(values: Uint8Array, width: number, height: number, x0: number, y0: number, size: number): number {
  const across = Math.max(1, Math.round(size));
  let sum = 0;
  for (let j = 0; j < across; j++)
    for (let i = 0; i < across; i++) {
      const x = Math.floor(x0 + ((i + 0.5) * size) / across);
      const y = Math.floor(y0 + ((j + 0.5) * size) / across);
      if (x >= 0 && x < width && y >= 0 && y < height) sum += values[y * width + x];
    }
  return sum / (across * across);
}

/** What the output says of each class: as it is where it sums to one already, else its softmax. */
export function probabilities(output: TensorValue): Float32Array {
  const scores = Float32Array.from(output.data as Float32Array);
  const sum = scores.reduce((a, b) => a + b, 0);
  if (scores.every((score) => score >= 0) && Math.abs(sum - 1) < 1e-3) return scores;
  const most = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = scores.map((score) => Math.exp(score - most));
  const all = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / all);
}
