// Decibels from the first layer to the last: what the weights lost as bars, what comes out as a line over them.
import { decibels } from "../format";
import type { Palette } from "./colors";

export interface Depth {
  /** null: exact, or no weights. */
  activations: (number | null)[];
  weights: (number | null)[];
  /** Written below where there is room. */
  names: string[];
}

const LEFT = 44;
const BELOW = 22;
const TOP = 12;
/** Where a tenth of the size is lost. */
const LOW_DB = 20;

/** Lowest and highest decibels drawn: whole tens around the data, 20 dB always among them. */
export function rangeOf({ activations, weights }: Omit<Depth, "names">): [number, number] {
  const all = [...activations, ...weights].filter((value): value is number => value !== null);
  const low = Math.floor(Math.min(LOW_DB - 10, ...all) / 10) * 10;
  return [low, Math.max(LOW_DB + 20, Math.ceil((Math.max(...all, 0) + 1) / 10) * 10)];
}

export function drawDepth(
  context: CanvasRenderingContext2D,
  width: number,
  height: number,
  depth: Depth,
  palette: Palette,
  chosen: number | null,
  hover: number | null,
): void {
  const n = depth.activations.length;
  if (n === 0) return;
  const [low, high] = rangeOf(depth);
  const y = (value: number): number => TOP + ((high - value) / (high - low)) * (height - TOP - BELOW);
  const step = (width - LEFT) / n;
  const x = (i: number): number => LEFT + (i + 0.5) * step;
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "right";
  context.textBaseline = "middle";
  const every = high - low > 60 ? 20 : 10;
  for (let value = Math.ceil(low / every) * every; value <= high; value += every) {
    context.fillStyle = value === LOW_DB ? palette.muted : palette.line;
    context.fillRect(LEFT, Math.round(y(value)), width - LEFT, 1);
    context.fillStyle = palette.muted;
    context.fillText(decibels(value).replace(/[.,]0/, ""), LEFT - 6, y(value));
  }
  for (const [i, share] of [
    [chosen, 0.1],
    [hover, 0.07],
  ] as const) {
    if (i === null) continue;
    context.globalAlpha = share;
    context.fillStyle = palette.text;
    context.fillRect(LEFT + i * step, TOP, step, height - TOP - BELOW);
    context.globalAlpha = 1;
  }
  context.fillStyle = palette.muted;
  context.textAlign = "center";
  context.textBaseline = "bottom";
  // A name may reach to the next one, beyond the values without a name.
  const named = depth.names.flatMap((name, i) => (name ? [i] : []));
  named.forEach((i, k) => {
    const room =
      Math.min(...[named[k - 1], named[k + 1]].map((other) => (other === undefined ? 2 : Math.abs(other - i)))) * step;
    // A part of a name would look like that of its neighbors.
    if (context.measureText(depth.names[i]).width <= room - 8) context.fillText(depth.names[i], x(i), height);
  });

  const bar = Math.max(2, Math.min(26, step * 0.6));
  context.fillStyle = palette.before;
  depth.weights.forEach((value, i) => {
    if (value !== null) context.fillRect(x(i) - bar / 2, y(value), bar, height - BELOW - y(value));
  });
  // An exact value has no decibels; its point stands at the upper edge, hollow.
  const at = (i: number): number => (depth.activations[i] === null ? TOP : y(depth.activations[i]!));
  context.strokeStyle = palette.after;
  context.lineWidth = 2;
  context.lineJoin = "round";
  context.beginPath();
  for (let i = 0; i < n; i++) context.lineTo(x(i), at(i));
  context.stroke();
  const dot = Math.max(2, Math.min(4.5, step / 3));
  for (let i = 0; i < n; i++) {
    context.beginPath();
    context.arc(x(i), at(i), dot, 0, 2 * Math.PI);
    context.fillStyle = depth.activations[i] === null ? palette.surface : palette.after;
    context.fill();
    context.stroke();
  }
}

export function layerAt(position: number, width: number, n: number): number | null {
  const i = Math.floor(((position - LEFT) / (width - LEFT)) * n);
  return i >= 0 && i < n ? i : null;
}

/** Middle of layer `i`, in pixels. */
export const middleOf = (i: number, width: number, n: number): number => LEFT + ((i + 0.5) * (width - LEFT)) / n;
