// The curve of a training: every batch faint, their smoothed course, and a dot for each validation.
import { real } from "../format";
import type { Palette } from "./colors";

export interface Curve {
  /** One number per batch; null where there was none. */
  batches: readonly (number | null)[];
  /** `step`: batches before it. */
  validation: readonly { step: number; value: number; best: boolean }[];
  /** Batches that there will be. */
  steps: number;
  /** Fixed upper end (accuracy); null: as the data want. */
  top: number | null;
}

const LEFT = 44;
const BELOW = 18;
const TOP = 8;

/** Exponential mean, its start corrected as Adam's moments are; `keep` per batch, so that about 1/(1-keep) count. */
export function smoothed(values: readonly (number | null)[], keep = 0.95): number[] {
  let [mean, weight] = [0, 0];
  return values.map((value) => {
    if (value !== null && Number.isFinite(value)) {
      mean = keep * mean + (1 - keep) * value;
      weight = keep * weight + (1 - keep);
    }
    return weight > 0 ? mean / weight : Number.NaN;
  });
}

export function drawCurve(
  context: CanvasRenderingContext2D,
  width: number,
  height: number,
  { batches, validation, steps, top }: Curve,
  palette: Palette,
): void {
  const line = smoothed(batches);
  const points = validation.map(({ value }) => value);
  // The first batches of a fresh network may be far above all others: the scale follows the smoothed course.
  const all = [...line, ...points].filter(Number.isFinite);
  const high = top ?? (Math.max(...all, 0) * 1.08 || 1);
  // Where all of it is high up, a scale from zero would show a flat line.
  const least = Math.min(...all, high);
  const low = top !== null ? Math.max(0, least - 0.05) : least > high / 2 ? least - (high - least) / 2 : 0;
  const right = width - 6;
  const x = (step: number): number => LEFT + (step / Math.max(1, steps)) * (right - LEFT);
  const y = (value: number): number =>
    TOP + ((high - Math.max(low, Math.min(high, value))) / (high - low || 1)) * (height - TOP - BELOW);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (let i = 0; i <= 4; i++) {
    const value = low + ((high - low) * i) / 4;
    context.fillStyle = palette.line;
    context.fillRect(LEFT, Math.round(y(value)), right - LEFT, 1);
    context.fillStyle = palette.muted;
    context.fillText(
      top === null ? real(Number(value.toPrecision(2))) : `${Math.round(value * 100)} %`,
      LEFT - 6,
      y(value),
    );
  }
  context.textBaseline = "bottom";
  context.fillText(String(steps), right, height);
  context.textAlign = "left";
  context.fillText("0", LEFT, height);

  // No more dots than pixels.
  const stride = Math.max(1, Math.floor(batches.length / (right - LEFT)));
  context.fillStyle = palette.before;
  context.globalAlpha = 0.45;
  for (let i = 0; i < batches.length; i += stride) {
    const value = batches[i];
    if (value !== null) context.fillRect(x(i + 1) - 1, y(value) - 1, 2, 2);
  }
  context.globalAlpha = 1;
  const path = (color: string, points: [number, number][]): void => {
    context.strokeStyle = color;
    context.lineWidth = 2;
    context.lineJoin = "round";
    context.beginPath();
    for (const [px, py] of points) context.lineTo(px, py);
    context.stroke();
  };
  const course: [number, number][] = [];
  for (let i = 0; i < line.length; i += stride) if (Number.isFinite(line[i])) course.push([x(i + 1), y(line[i])]);
  if (line.length > 0 && Number.isFinite(line.at(-1)!)) course.push([x(line.length), y(line.at(-1)!)]);
  path(palette.before, course);
  path(
    palette.after,
    validation.map(({ step, value }) => [x(step), y(value)]),
  );
  const best = validation.map((point) => point.best).lastIndexOf(true);
  validation.forEach(({ step, value }, i) => {
    context.beginPath();
    context.arc(x(step), y(value), i === best ? 6 : 3.5, 0, 2 * Math.PI);
    context.fillStyle = i === best ? palette.surface : palette.after;
    context.fill();
    context.strokeStyle = palette.after;
    context.lineWidth = i === best ? 2.5 : 1;
    context.stroke();
  });
}
