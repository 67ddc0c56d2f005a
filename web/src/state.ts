// What the page knows. Plain data without DOM: views read these signals, actions write them.
import { computed, signal } from "@preact/signals";
import type {
  ByteReport,
  ErrorCode,
  ModelInfo,
  Progress,
  Report,
  WeightBytes,
  WeightInfo,
  WeightPicture,
  WeightReport,
} from "nibble-nn";
import { firstSide, learns, takesPart, type GeneratedData, type Side, type View } from "./recipe";

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
  /** Whether the recipe's training was part of the run; without one in the recipe it always was. */
  complete: boolean;
}
export const shown = signal<Shown | null>(null);

/** What general compressors make of a weight's packed codes, in bytes; null where the browser has no such compressor. */
export interface Compressed {
  gzip: number | null;
  brotli: number | null;
}

/** Where the bytes of the shown result's .nib file go: estimated while sliders move, then counted. */
export interface Meter {
  /** The run that it is of. */
  side: Side;
  complete: boolean;
  bytes: ByteReport;
  /** By weight, once counted. */
  compressed: Map<string, Compressed> | null;
}
export const meter = signal<Meter | null>(null);

/** Name of the weight that is looked at. */
export const selected = signal<string | null>(null);

/** Which part of the page is looked at: the selected layer's weights, or something that the model does. */
export const view = signal<View>("layer");

/** The data that the page is to have: what fits the model ("default": the samples have digits, others none), made from a
 *  seed, the user's files, or none. */
export const wishedData = signal<GeneratedData | "default" | "files" | "none">("default");

/** Where the data that are open come from; null: there are none. */
export const dataSource = signal<GeneratedData | { kind: "files"; names: string[] } | null>(null);

/** Whether there are data to learn from. */
export const hasData = computed(() => dataSource.value !== null);

/** Whether there are data, or will be in a moment. */
export const accuracyComes = computed(() => {
  const wished = wishedData.value;
  if (wished === "none") return false;
  return hasData.value || wished !== "default" || Boolean(opened.value?.sample);
});

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
  task: "open" | "run" | "save" | "data" | "bytes";
  phase: Progress["phase"] | null;
  item: string;
  fraction: number;
  /** Seconds since the work began, at the last report. */
  seconds: number;
}
export const work = signal<Work | null>(null);

/** Whether the recipe is run, or what it gave is measured and pictured; also where that is soon done. */
export const running = signal(false);

/** Whether the recipe has changed since the run that is shown. */
export const stale = computed(() => shown.value !== null && shown.value.side !== side.value);

/** Whether the recipe trains, and the numbers shown are of before that. */
export const untrained = computed(
  () => learns(side.value) && !(shown.value?.side === side.value && shown.value.complete),
);

/** Why the part of the page about behaviour could not be loaded; null where it could, or while it is on its way. */
export const behaviourLost = signal<string | null>(null);

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
  key:
    | "copiedLink"
    | "copiedCommand"
    | "copiedRecipe"
    | "recipeLoaded"
    | "saved"
    | "cancelled"
    | "trainingKept"
    | "trainedOpened";
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
  /** null until measured. */
  bytes: WeightBytes | null;
  /** Whether the recipe being edited changes it. */
  on: boolean;
}

const bytesOf = computed(() => new Map(meter.value?.bytes.weights.map((weight) => [weight.name, weight])));

const reports = computed(() => new Map(shown.value?.report.weights.map((weight) => [weight.name, weight])));

export const layers = computed<Layer[]>(
  () =>
    opened.value?.info.weights.map((info) => ({
      info,
      report: reports.value.get(info.name) ?? null,
      bytes: bytesOf.value.get(info.name) ?? null,
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
