// How stored samples become a model's input, as the form edits it.
import type { Preparation } from "nibble-nn";

export const LAYOUTS = ["features", "hw", "chw", "hwc"] as const;

/** Numbers with commas between them; null where they are none. */
export function numbersOf(text: string): number[] | null {
  const found = text
    .split(/[\s,，]+/)
    .filter(Boolean)
    .map(Number);
  return found.length > 0 && found.every(Number.isFinite) ? found : null;
}

/** The shape of one input in another layout. */
export function inLayout({ shape: from, layout: was }: Preparation, layout: Preparation["layout"]): number[] {
  const [rows, columns, channels] =
    was === "chw"
      ? [from[1], from[2], from[0]]
      : was === "hwc"
        ? from
        : was === "hw"
          ? [from.at(-2)!, from.at(-1)!, 1]
          : squareOf(from.reduce((a, b) => a * b, 1));
  if (layout === "features") return [rows * columns * channels];
  if (layout === "hw") return channels === 1 ? [rows, columns] : from;
  return layout === "chw" ? [channels, rows, columns] : [rows, columns, channels];
}

/** Features are taken for a square picture where they can be one. */
function squareOf(size: number): number[] {
  const side = Math.round(Math.sqrt(size));
  return side * side === size ? [side, side, 1] : [1, size, 1];
}
