// The page's colors for canvases, read from the style sheet's custom properties, and the one scale of the error map.

export interface Palette {
  text: string;
  muted: string;
  line: string;
  surface: string;
  before: string;
  after: string;
}

let palette: Palette | null = null;
let paletteOf = "";

/** Colors of the theme shown now. A custom property must be resolved on an element: its own text may be light-dark(). */
export function colors(): Palette {
  const theme = `${document.documentElement.dataset.theme} ${matchMedia("(prefers-color-scheme: dark)").matches}`;
  if (palette && paletteOf === theme) return palette;
  const probe = document.createElement("span");
  document.body.append(probe);
  const read = (name: string): string => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  palette = {
    text: read("text"),
    muted: read("muted"),
    line: read("line"),
    surface: read("surface"),
    before: read("before"),
    after: read("accent"),
  };
  paletteOf = theme;
  probe.remove();
  return palette;
}

// Lightness falls (light theme) or rises (dark theme) steadily from "no error" to "as large as the weights themselves",
// so that the order shows without telling the hues apart.
const LIGHT = ["#f4f1ea", "#fbd9a8", "#f3a25c", "#d9602a", "#9c2a1c", "#571219"];
const DARK = ["#1f242a", "#4b2320", "#8f3318", "#d15a1b", "#f6a04d", "#ffe9bd"];

const ramps = new Map<boolean, Uint32Array>();

/** 256 colors as ImageData's little-endian RGBA words. */
export function ramp(dark: boolean): Uint32Array {
  const known = ramps.get(dark);
  if (known) return known;
  const stops = (dark ? DARK : LIGHT).map((hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)));
  const table = Uint32Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (stops.length - 1);
    const k = Math.min(stops.length - 2, Math.floor(at));
    const [r, g, b] = stops[k].map((low, c) => Math.round(low + (stops[k + 1][c] - low) * (at - k)));
    return (255 << 24) | (b << 16) | (g << 8) | r;
  });
  ramps.set(dark, table);
  return table;
}

/** The scale of every error map: 0.1 % to 100 % of the layer's standard deviation, logarithmic, so that one bit fewer is
 *  the same step of color at any bit width and two layers or two recipes can be compared. Gives 0 to 255. */
export function shade(error: number, deviation: number): number {
  if (!(error > 0)) return 0;
  const decades = Math.log10(error / (deviation || error));
  return Math.max(8, Math.min(255, Math.round((1 + decades / 3) * 255)));
}

let shades: { deviation: number; table: Uint8Array } | null = null;

/** `shade` for the upper 16 bits of a float32, sign and exponent and 7 bits of the mantissa, which is finer than the
 *  colors are: a map has tens of thousands of cells, and a logarithm for each would take longer than all the rest. */
export function shadeTable(deviation: number): Uint8Array {
  if (shades?.deviation === deviation) return shades.table;
  const bits = new Uint32Array(1);
  const value = new Float32Array(bits.buffer);
  const table = Uint8Array.from({ length: 1 << 16 }, (_, upper) => {
    bits[0] = (upper << 16) | 0x8000; // the middle of what shares these bits
    return upper === 0 ? 0 : shade(value[0], deviation);
  });
  shades = { deviation, table };
  return table;
}
