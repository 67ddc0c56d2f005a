// Colors for numbers of either sign: nothing at zero, the color of "after" for more, that of "before" for less.
import type { Palette } from "./colors";

type Rgb = [number, number, number];

const parsed = new Map<string, Rgb>();
function rgb(color: string): Rgb {
  let found = parsed.get(color);
  if (!found) {
    const [r = 0, g = 0, b = 0] = (color.match(/[\d.]+/g) ?? []).map(Number);
    parsed.set(color, (found = [r, g, b]));
  }
  return found;
}

/** ImageData words (little-endian RGBA) for -1 to 1 in 255 steps; index 127 is zero. */
export function divergingTable(palette: Palette): Uint32Array {
  const ground = rgb(palette.surface);
  return Uint32Array.from({ length: 255 }, (_, i) => {
    const value = (i - 127) / 127;
    const color = rgb(value < 0 ? palette.before : palette.after);
    // The root lifts small numbers, of which there are most.
    const share = Math.sqrt(Math.abs(value));
    const [r, g, b] = ground.map((low, c) => Math.round(low + (color[c] - low) * share));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}

/** Index into the table. */
export const shadeOf = (value: number, most: number): number =>
  most > 0 ? Math.max(0, Math.min(254, Math.round(127 + (value / most) * 127))) : 127;

/** A CSS color between the surface and `color`. */
export function tint(palette: Palette, color: string, share: number): string {
  const [from, to] = [rgb(palette.surface), rgb(color)];
  const mixed = from.map((low, c) => Math.round(low + (to[c] - low) * Math.max(0, Math.min(1, share))));
  return `rgb(${mixed.join(" ")})`;
}

/** Relative luminance, WCAG 2.2. */
const luminance = (color: string): number => {
  const [r, g, b] = rgb(color).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};

/** The text's or the surface's color, whichever can be read better on `ground`. */
export function readable(palette: Palette, ground: string): string {
  const on = luminance(ground) + 0.05;
  const contrast = (color: string): number => {
    const ratio = (luminance(color) + 0.05) / on;
    return Math.max(ratio, 1 / ratio);
  };
  return contrast(palette.text) >= contrast(palette.surface) ? palette.text : palette.surface;
}
