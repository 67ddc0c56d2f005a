// What every lesson is made of: the shape of a lesson, controls with real inputs, charts that draw at their true width
// in pixels (text stays readable at 320 px), and a tiny markup for running text.
import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX, TargetedPointerEvent } from "preact";
import { useId, useLayoutEffect, useRef } from "preact/hooks";
import { say, type Words } from "../language";

export interface Lesson {
  id: string;
  title: Words;
  /** Asked before anything is shown. */
  ask: Words;
  options: Words[];
  /** Index of the right option. */
  answer: number;
  /** One for each option; null says the same as the right one. */
  replies: (Words | null)[];
  /** What to do with the widget; the widget calls `done` when the learner has done it. */
  task: Words;
  Widget: (props: { done: () => void }) => JSX.Element;
  points: Words[];
  /** Lines of markup (see Rich), the same in both languages. */
  formula: string[];
  symbols: [string, Words][];
  tryIt: Words;
  source: string;
}

/** A number with a fixed count of digits and a real minus sign; never "-0". */
export function num(x: number, digits = 2): string {
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "–";
  const text = Math.abs(x).toFixed(digits);
  return x < 0 && Number(text) !== 0 ? `−${text}` : text;
}
export const percent = (x: number, digits = 0): string => `${num(100 * x, digits)} %`;
export const decibel = (x: number): string => (x === Infinity ? "∞ dB" : `${num(x, 1)} dB`);

/** Markup: *strong*, `code`, _{sub}, ^{super}. */
export function Rich({ text }: { text: string }) {
  const pieces = text.split(/(\*[^*]+\*|`[^`]+`|_\{[^}]+\}|\^\{[^}]+\})/);
  return (
    <>
      {pieces.map((piece, i) => {
        if (i % 2 === 0) return piece;
        if (piece[0] === "*") return <strong key={i}>{piece.slice(1, -1)}</strong>;
        if (piece[0] === "`") return <code key={i}>{piece.slice(1, -1)}</code>;
        return piece[0] === "_" ? <sub key={i}>{piece.slice(2, -1)}</sub> : <sup key={i}>{piece.slice(2, -1)}</sup>;
      })}
    </>
  );
}

// --- Controls --------------------------------------------------------------------------------------------------------

export function Slider(props: {
  label: Words;
  value: number;
  min: number;
  max: number;
  step?: number;
  /** What is shown (and read out) for the value. */
  show?: string;
  onInput: (value: number) => void;
}) {
  const shown = props.show ?? String(props.value);
  const id = useId();
  return (
    <div class="ln-slider">
      <label for={id}>{say(props.label)}</label>
      <output for={id}>{shown}</output>
      <input
        id={id}
        type="range"
        min={props.min}
        max={props.max}
        step={props.step ?? 1}
        value={props.value}
        aria-valuetext={shown}
        style={{ "--fill": `${((props.value - props.min) / (props.max - props.min)) * 100}%` }}
        onInput={(event) => props.onInput(event.currentTarget.valueAsNumber)}
      />
    </div>
  );
}

export function Choice<T extends string | number>(props: {
  label: Words;
  value: T;
  options: [T, Words][];
  onChange: (value: T) => void;
}) {
  const name = useId();
  return (
    <fieldset class="ln-choice">
      <legend>{say(props.label)}</legend>
      <div>
        {props.options.map(([value, words]) => (
          <label key={value}>
            <input type="radio" name={name} checked={value === props.value} onChange={() => props.onChange(value)} />
            <span>{say(words)}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}

export function Check(props: { label: Words; checked: boolean; onChange: (checked: boolean) => void }) {
  return (
    <label class="ln-check">
      <input
        type="checkbox"
        checked={props.checked}
        onChange={(event) => props.onChange(event.currentTarget.checked)}
      />
      <span>{say(props.label)}</span>
    </label>
  );
}

// --- Results ---------------------------------------------------------------------------------------------------------

export type Tone = "good" | "bad";

/** Numbers with their names. */
export function Readouts({ items }: { items: [Words, string, Tone?][] }) {
  return (
    <dl class="ln-readouts">
      {items.map(([label, value, tone]) => (
        <div key={label.en} class={tone && `ln-${tone}`}>
          <dt>{say(label)}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A table whose first column names the row. `marked` rows stand out as wrong. */
export function Table(props: { head: string[]; rows: string[][]; marked?: (row: number) => boolean }) {
  return (
    <div class="ln-scroll">
      <table class="ln-table">
        <thead>
          <tr>
            {props.head.map((cell, i) => (
              <th key={i} scope="col">
                {cell}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.rows.map((row, r) => (
            <tr key={r} class={props.marked?.(r) ? "ln-bad" : undefined}>
              {row.map((cell, i) =>
                i === 0 ? (
                  <th key={i} scope="row">
                    {cell}
                  </th>
                ) : (
                  <td key={i}>{cell}</td>
                ),
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** The table behind a chart, folded away. */
export function Numbers(props: { head: string[]; rows: string[][] }) {
  return (
    <details class="ln-numbers">
      <summary>{say({ en: "The numbers", zh: "查看数据" })}</summary>
      <Table {...props} />
    </details>
  );
}

/** What the colors of a chart mean. */
export function Legend({ items }: { items: [tone: string, label: Words][] }) {
  return (
    <p class="ln-legend">
      {items.map(([tone, label]) => (
        <span key={tone}>
          <i class={`ln-key ln-key-${tone}`} aria-hidden="true" />
          {say(label)}
        </span>
      ))}
    </p>
  );
}

// --- Charts ----------------------------------------------------------------------------------------------------------

/** Maps [lo, hi] to [from, to] pixels. */
export const axis =
  (lo: number, hi: number, from: number, to: number) =>
  (x: number): number =>
    from + ((x - lo) / (hi - lo)) * (to - from);

/** A picture of `draw(width)`, redrawn when the place it has changes. `label` says in words what the picture shows.
 *  `onDrag` gets the pointer's horizontal place; whatever it moves has a slider too. */
export function Chart(props: {
  height: number | ((width: number) => number);
  label: string;
  draw: (width: number) => ComponentChildren;
  onDrag?: (x: number, width: number) => void;
}) {
  const box = useRef<HTMLDivElement>(null);
  const width = useSignal(0);
  useLayoutEffect(() => {
    const element = box.current!;
    const measure = () => (width.value = element.clientWidth);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const drag = (event: TargetedPointerEvent<SVGSVGElement>) =>
    props.onDrag?.(event.clientX - event.currentTarget.getBoundingClientRect().left, width.value);
  const dragging = props.onDrag && {
    class: "ln-drag",
    onPointerDown: (event: TargetedPointerEvent<SVGSVGElement>) => {
      event.currentTarget.setPointerCapture(event.pointerId);
      drag(event);
    },
    onPointerMove: (event: TargetedPointerEvent<SVGSVGElement>) => {
      if (event.buttons & 1) drag(event);
    },
  };
  const height = typeof props.height === "number" ? props.height : props.height(width.value);
  return (
    <div class="ln-chart" ref={box} style={{ height: `${height}px` }}>
      {width.value > 0 && (
        <svg role="img" aria-label={props.label} width={width.value} height={height} {...dragging}>
          {props.draw(width.value)}
        </svg>
      )}
    </div>
  );
}

/** Bars of counts standing on `bottom`; `x` maps a bin's number to pixels. Heights grow with the square root, so that a
 *  single outlier is still seen beside a thousand weights. */
export function bars(counts: number[], x: (bin: number) => number, bottom: number, height: number, style: string) {
  const most = Math.sqrt(Math.max(...counts, 1));
  let path = "";
  counts.forEach((count, bin) => {
    if (count === 0) return;
    const top = bottom - (Math.sqrt(count) / most) * height;
    path += `M${x(bin).toFixed(1)} ${bottom}V${top.toFixed(1)}H${x(bin + 1).toFixed(1)}V${bottom}Z`;
  });
  return <path class={style} d={path} />;
}

/** A polyline through points in pixels. */
export const line = (points: [number, number][], style: string) => (
  <polyline class={style} points={points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ")} />
);
