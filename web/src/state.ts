// What the page knows. Plain data without DOM: views read these signals, actions write them.
import { computed, signal } from "@preact/signals";
import type { ErrorCode, ModelInfo, Progress, Report, WeightInfo, WeightPicture, WeightReport } from "nibble-nn";
import { firstSide, takesPart, type Side } from "./recipe";

/** The recipe being edited. (Comparing two recipes will be a second signal of this type.) */
export const side = signal<Side>(firstSide());

/** The opened model, and which sample it is, if one. */
export interface Opened {
  info: ModelInfo;
  /** Name of the file, for the download and the command. */
  file: string;
  sample: string | null;
}
export const opened = signal<Opened | null>(null);

/** The page's first model is on its way. */
export const starting = signal(false);

/** The newest finished run and the recipe that gave it: what every number on the page belongs to. */
export interface Shown {
  side: Side;
  report: Report;
}
export const shown = signal<Shown | null>(null);

/** Name of the weight that is looked at. */
export const selected = signal<string | null>(null);

/** How the layers are listed: as in the model, largest in the file first, or largest error first. */
export type Order = "model" | "size" | "sqnr";
export const layerOrder = signal<Order>("model");

/** The output channel whose quantization levels the histogram shows. */
export const channel = signal(0);

/** Pictures of the selected weight; they may be one run older than `shown`. */
export const picture = signal<WeightPicture | null>(null);

/** Largest magnitude per output channel of the selected weight, before; null where there are no channels. */
export const widths = signal<{ name: string; values: Float32Array } | null>(null);

/** Long work going on, for the progress bar; null when none or when it has only just begun. */
export interface Work {
  /** What the user asked for. */
  task: "open" | "run" | "save";
  phase: Progress["phase"] | null;
  item: string;
  fraction: number;
  /** Seconds since the work began, at the last report. */
  seconds: number;
}
export const work = signal<Work | null>(null);

/** Whether the recipe has changed since the run that is shown. */
export const stale = computed(() => shown.value !== null && shown.value.side !== side.value);

/** Something went wrong: what, where, and what to do about it. */
export interface Trouble {
  code: ErrorCode | "engine" | "fetch" | "bad-json" | "missing-data";
  where: string;
  detail: string;
  /** Name of the file in question, if any. */
  file?: string;
}
export const trouble = signal<Trouble | null>(null);

/** A few words to confirm what was just done ("Copied"); key of words.ts. */
export const said = signal<{
  key: "copiedLink" | "copiedCommand" | "copiedRecipe" | "recipeLoaded" | "saved" | "cancelled";
  text?: string;
} | null>(null);

/** What the user picked, and whether the system prefers dark. */
export const theme = signal<"auto" | "light" | "dark">("auto");
export const systemDark = signal(false);
export const dark = computed(() => (theme.value === "auto" ? systemDark.value : theme.value === "dark"));

/** A file is being dragged over the page. */
export const dragging = signal(false);

/** The welcome strip was put away. */
export const welcomed = signal(false);

/** The lesson drawer: closed (null), open at its contents (""), or at one lesson. */
export const lesson = signal<string | null>(null);

// --- Derived ---------------------------------------------------------------------------------------------------------

/** One row of the layer table. */
export interface Layer {
  info: WeightInfo;
  /** null until the first run has ended. */
  report: WeightReport | null;
  /** Whether the recipe being edited changes it. */
  on: boolean;
}

const reports = computed(() => new Map(shown.value?.report.weights.map((weight) => [weight.name, weight])));

export const layers = computed<Layer[]>(
  () =>
    opened.value?.info.weights.map((info) => ({
      info,
      report: reports.value.get(info.name) ?? null,
      on: takesPart(side.value, info.name),
    })) ?? [],
);

export const layer = computed(() => layers.value.find(({ info }) => info.name === selected.value) ?? null);

/** Bytes of the largest weight, which the bars of the table are measured by. */
export const largest = computed(() => Math.max(1, ...layers.value.map(({ info }) => info.bytes)));

/** Largest magnitude among all weights: the end of the threshold slider. */
export const widest = computed(() =>
  Math.max(
    0,
    ...layers.value
      .map(({ info: { statistics } }) => Math.max(-statistics.min, statistics.max))
      .filter(Number.isFinite),
  ),
);

/** What all weights together take in the exported file. */
export const inFile = computed(
  () => shown.value?.report.weights.reduce((sum, weight) => sum + weight.bytes.file, 0) ?? 0,
);
