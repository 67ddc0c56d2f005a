// What the page knows about data, about what the model does with them, and about training. Plain data without DOM.
import { computed, signal } from "@preact/signals";
import type { Comparison, DataInfo, DataOptions, Preparation, TrainChoice, TrainProgress } from "nibble-nn";
import { firstChoice, type Side } from "../recipe";
import { dataSource, opened, type Trouble } from "../state";

// --- Data ------------------------------------------------------------------------------------------------------------

/** The data that are open, and where they come from. */
export interface Given {
  info: DataInfo;
  source: NonNullable<typeof dataSource.value>;
}
export const data = signal<Given | null>(null);

/** Data are being read. */
export const reading = signal(false);

/** How the data become the model's input: what the engine found, or what the user wrote. Null until it is known. */
export const preparation = signal<Preparation | null>(null);

/** Why the open model cannot be run; null where it can, undefined while that is not known. */
export const cannotRun = signal<string | null | undefined>(undefined);

/** Something went wrong here; what else the page shows is not concerned. */
export const trouble = signal<Trouble | null>(null);

// --- Before and after ------------------------------------------------------------------------------------------------

/** Which part of the data is judged by. */
export type Split = NonNullable<DataOptions["split"]>;
export const split = signal<Split>("test");

/** Samples that are enough for a number that follows a slider. */
export const SOME = 1000;

/** All samples of the split are used, not only the first thousand. */
export const everySample = signal(false);

/** The newest comparison, and the recipe that gave its "after". */
export interface Compared extends Comparison {
  side: Side;
  /** Milliseconds that it took. */
  took: number;
}
export const compared = signal<Compared | null>(null);

/** A comparison is going on: the part that is done, 0 to 1. */
export const comparing = signal<number | null>(null);

/** Which confusion matrix is drawn. */
export const matrix = signal<"before" | "after" | "change">("after");

/** Samples whose class changed, with their pictures. */
export interface Flip {
  /** Position in the data. */
  index: number;
  label: number | null;
  before: number;
  after: number;
  confidence: { before: number; after: number };
  values: Uint8Array | Float32Array;
}
export const flips = signal<Flip[]>([]);

/** Which flips are listed. */
export type FlipKind = "worse" | "better" | "other";
export const flipKind = signal<FlipKind>("worse");

export const kindOf = ({ label, before, after }: Flip): FlipKind =>
  label === null || (before !== label && after !== label) ? "other" : before === label ? "worse" : "better";

/** How many flips there are of each kind. */
export const flipCounts = computed(() => {
  const counts: Record<FlipKind, number> = { worse: 0, better: 0, other: 0 };
  for (const flip of flips.value) counts[kindOf(flip)]++;
  return counts;
});

// --- Activations -----------------------------------------------------------------------------------------------------

/** The sample whose activations are looked at: a place among the compared samples. */
export const sampleAt = signal(0);

/** Name of the value of the graph that is looked at. */
export const valueName = signal<string | null>(null);

/** That value for that sample, before and after, and the sample itself. */
export interface Maps {
  name: string;
  /** Position in the data. */
  index: number;
  shape: number[];
  before: Float32Array;
  after: Float32Array;
  sample: Uint8Array | Float32Array;
  label: number | null;
}
export const maps = signal<Maps | null>(null);

// --- Drawing ---------------------------------------------------------------------------------------------------------

/** What was drawn, as the model gets it: 28 x 28, 0 to 255, white on black. Null: an empty pad. */
export const drawn = signal<Uint8Array | null>(null);

/** Probability of each class for a drawn digit. Meanwhile there may be another `picture`, or another result to `shown`. */
export interface Guess {
  picture: Uint8Array;
  shown: unknown;
  before: Float32Array;
  after: Float32Array;
}
export const guess = signal<Guess | null>(null);

export const SIDE = 28;

/** Whether the open model takes one picture of 28 by 28 pixels. */
export const takesDigits = computed(() => {
  const shape = opened.value?.info.inputs[0]?.shape;
  if (!shape || opened.value?.info.inputs.length !== 1) return false;
  // The first dimension is the number of samples; names and -1 stand for any.
  const sizes = shape.slice(1).filter((size): size is number => typeof size === "number" && size > 0);
  return sizes.length === shape.length - 1 && sizes.reduce((a, b) => a * b, 1) === SIDE * SIDE;
});

/** Whether the samples of the data are such pictures, which the pad can show. */
export const samplesAreDigits = computed(
  () => data.value !== null && data.value.info.shape.reduce((a, b) => a * b, 1) === SIDE * SIDE,
);

// --- Training --------------------------------------------------------------------------------------------------------

/** What is trained: the shown result, the opened model, or a new network by its name. */
export const trainFrom = signal<"result" | "original" | `new:${string}`>("result");

/** How it learns. */
export const choice = signal<TrainChoice>(firstChoice());

/** The seed of a new network's weights. */
export const newSeed = signal(1);

/** New networks that can be had; null until asked. */
export const architectures = signal<{ name: string; summary: string }[] | null>(null);

/** The training there is. */
export interface Trained {
  phase: "starting" | "running" | "paused" | "stopped" | "done";
  from: string;
  /** Name of the file that it would be. */
  file: string;
  progress: TrainProgress | null;
  /** The lowest validation loss so far, and its epoch. */
  best: { loss: number; accuracy: number | null; epoch: number } | null;
}
export const training = signal<Trained | null>(null);

/** The curve: one entry per batch, and one per epoch. Arrays that grow; `curveLength` says when. */
export const curve = {
  loss: [] as number[],
  accuracy: [] as (number | null)[],
  /** `step` is the number of batches before it. */
  validation: [] as { step: number; epoch: number; loss: number; accuracy: number | null; best: boolean }[],
};
export const curveLength = signal(0);
