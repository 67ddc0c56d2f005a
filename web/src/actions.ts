// Everything the page does. The only caller of the engine, whose models outlive the worker they are in: after a cancel
// or a crash the client makes them again when they are next used.
import { batch } from "@preact/signals";
import { load, NibbleError, type Bytes, type Engine, type Model, type Progress, type Recipe } from "nibble-nn";
import { latest } from "./latest";
import { language } from "./language";
import {
  commandOf,
  hashOf,
  placeOf,
  recipeOf,
  sideOf,
  withBoth,
  withLayer,
  withOwnBits,
  fitting,
  smallName,
  withoutStep,
  type Side,
  type StepDraft,
} from "./recipe";
import { SAMPLES } from "./samples";
import * as state from "./state";

// --- The engine and what lives in it -----------------------------------------------------------------------------------

interface Source {
  bytes: Bytes;
  name: string;
  external: Record<string, Bytes>;
}

let loading: Promise<Engine> | null = null;
/** The opened model. */
let original: Model | null = null;
/** What the newest run that worked gave, and the recipe it ran. */
let result: { model: Model; side: Side } | null = null;
/** The work going on that can be stopped. */
let stopping: { task: state.Work["task"]; controller: AbortController } | null = null;
/** The user stopped a run: the controls go back to the result that stays. */
let goBack = false;
/** A file that could not be opened because its external data was missing: dropping that completes it. */
let waiting: Source | null = null;

/** The engine itself could not be started, which is not the fault of any file. */
class NoEngine extends Error {}

const engine = (): Promise<Engine> =>
  (loading ??= load().catch((error: unknown) => {
    loading = null;
    throw new NoEngine(error instanceof Error ? error.message : String(error));
  }));

/** Starts loading the engine, before anything is asked of it. */
export const warmUp = (): void => void engine().catch(() => {});

const PROGRESS_AFTER = 300; // ms; shorter work would only make the page flicker

/** Does one piece of work that can be cancelled, with a progress bar if it takes long. */
async function cancellable<T>(
  task: state.Work["task"],
  work: (options: { signal: AbortSignal; onProgress: (p: Progress) => void }) => Promise<T>,
): Promise<T> {
  const started = performance.now();
  const controller = new AbortController();
  const mine = (stopping = { task, controller });
  let newest: Progress | null = null;
  const show = (): void => {
    const { phase = null, item = "", fraction = 0 } = newest ?? {};
    state.work.value = { task, phase, item, fraction, seconds: (performance.now() - started) / 1000 };
  };
  const timer = setTimeout(show, PROGRESS_AFTER);
  const onProgress = (progress: Progress): void => {
    newest = progress;
    if (performance.now() - started > PROGRESS_AFTER && stopping === mine) show();
  };
  try {
    return await work({ signal: controller.signal, onProgress });
  } finally {
    clearTimeout(timer);
    if (stopping === mine) {
      stopping = null;
      state.work.value = null;
    }
  }
}

/** Puts an exception into words; true if it was a cancel. */
function failed(error: unknown, file?: string): boolean {
  const detail = error instanceof Error ? error.message : String(error);
  if (error instanceof NoEngine) state.trouble.value = { code: "engine", where: "", detail };
  else if (!(error instanceof NibbleError)) state.trouble.value = { code: "internal", where: "", detail };
  else if (error.code === "cancelled") return true;
  else state.trouble.value = { code: error.code, where: error.where, detail: error.detail, ...(file && { file }) };
  return false;
}

// --- Running the recipe ----------------------------------------------------------------------------------------------

const refresh = latest(async () => {
  const before = original;
  if (!before) return;
  try {
    await cancellable("run", async (options) => {
      const side = state.side.peek();
      if (result?.side !== side) {
        const { model, report } = await before.compress(recipeOf(side), options);
        if (before !== original) return model.dispose(); // another model was opened meanwhile
        result?.model.dispose();
        result = { model, side };
        batch(() => {
          state.shown.value = { side, report };
          if (state.trouble.peek()?.code === "bad-recipe") state.trouble.value = null;
        });
      }
      await look(before, result.model);
      // Pictures are soon made and not worth ending the engine for, but whoever stopped them meant what was to follow.
      if (options.signal.aborted) throw new NibbleError("cancelled", "", "stopped on request");
    });
  } catch (error) {
    const good = state.shown.peek();
    if (failed(error) && goBack && good) state.side.value = good.side;
  } finally {
    goBack = false;
  }
});

const MEASURED = 4_000_000; // elements; larger weights are not copied to the page just to measure their channels

/** Pictures of the selected weight. */
async function look(before: Model, after: Model): Promise<void> {
  const weight = state.layer.peek()?.info;
  if (!weight) return;
  const picture = await before.picture(weight.name, after, {
    bins: 160,
    rows: 128,
    columns: 400, // about as many as there are pixels for them
    channel: Math.min(state.channel.peek(), Math.max(0, weight.channels - 1)),
  });
  state.picture.value = picture;
  if (state.widths.peek()?.name === weight.name) return;
  if (weight.channel_axis === null || weight.elements > MEASURED) {
    state.widths.value = null;
    return;
  }
  const values = await before.values(weight.name);
  const inner = weight.shape.slice(weight.channel_axis + 1).reduce((a, b) => a * b, 1);
  const width = new Float32Array(weight.channels);
  for (let start = 0, c = 0; start < values.length; start += inner, c = c + 1 === width.length ? 0 : c + 1) {
    for (let i = start; i < start + inner; i++) {
      const size = Math.abs(values[i]);
      if (size > width[c] && size < Infinity) width[c] = size;
    }
  }
  state.widths.value = { name: weight.name, values: width };
}

/** Stops what is going on; the page stays with the last good result. */
export function cancel(): void {
  if (!stopping) return;
  goBack = stopping.task === "run";
  stopping.controller.abort();
  state.said.value = { key: "cancelled" };
}

// --- Opening ---------------------------------------------------------------------------------------------------------

/** Counts what the user asked to open: a sample that arrives after something newer was asked for is dropped. */
let asked = 0;

/** Counts the models that began to open: of two that open at once the later one stays. */
let opening = 0;

/** Opens a model; where that fails, what is open already stays. */
async function openSource(next: Source, sample: string | null): Promise<void> {
  const mine = ++opening;
  state.trouble.value = null;
  waiting = null;
  // A run of the old model would only be in the way.
  stopping?.controller.abort();
  await refresh.idle();
  let model: Model;
  try {
    model = await cancellable("open", async (options) =>
      (await engine()).open(next.bytes, { ...options, name: next.name, external: next.external }),
    );
  } catch (error) {
    failed(error, next.name);
    const found = state.trouble.peek();
    if (found && found.code !== "internal" && looksLikeMissingData(found.detail)) {
      waiting = next;
      state.trouble.value = { ...found, code: "missing-data" };
    }
    return;
  }
  if (mine !== opening) return model.dispose();
  result?.model.dispose();
  result = null;
  original?.dispose();
  original = model;
  const { info } = model;
  const names = info.weights.map(({ name }) => name);
  const weights = [...info.weights].sort((a, b) => b.bytes - a.bytes);
  const keep = info.weights.some(({ name }) => name === state.selected.peek());
  batch(() => {
    // A step for some layers of the last model means nothing here.
    if (state.opened.peek()) state.side.value = fitting(state.side.peek(), names);
    state.opened.value = { info, file: next.name, sample };
    state.shown.value = null;
    state.picture.value = null;
    state.widths.value = null;
    if (!sample) state.welcomed.value = true;
    if (!keep) {
      state.selected.value = weights[0]?.name ?? null;
      state.channel.value = 0;
    }
  });
  await refresh.ask();
}

const looksLikeMissingData = (detail: string): boolean => /external data|missing file|not given/i.test(detail);

export async function openSample(id: string): Promise<void> {
  const sample = SAMPLES.find((one) => one.id === id) ?? SAMPLES[0];
  const mine = ++asked;
  try {
    const response = await fetch(new URL(sample.path, document.baseURI));
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const name = sample.path.slice(sample.path.lastIndexOf("/") + 1);
    const bytes = await response.blob();
    if (mine === asked) await openSource({ bytes, name, external: {} }, sample.id);
  } catch (error) {
    if (mine !== asked) return;
    state.trouble.value = {
      code: "fetch",
      where: sample.path,
      detail: error instanceof Error ? error.message : String(error),
    };
  }
}

const extensionOf = (name: string): string => /\.(\w+)$/.exec(name)?.[1].toLowerCase() ?? "";

/** Files that were dropped, pasted or picked: a recipe, or a model with its external data. */
export async function openFiles(files: readonly File[]): Promise<void> {
  if (files.length === 0) return;
  asked++;
  const recipe = files.find((file) => extensionOf(file.name) === "json");
  if (recipe) {
    await loadRecipe(await recipe.text());
    return openFiles(files.filter((file) => file !== recipe));
  }
  const isModel = (file: File): boolean => ["onnx", "safetensors"].includes(extensionOf(file.name));
  const main = files.find(isModel) ?? (waiting ? null : files[0]);
  const rest = Object.fromEntries(files.filter((file) => file !== main).map((file) => [file.name, file]));
  if (main) return openSource({ bytes: main, name: main.name, external: rest }, null);
  return openSource({ ...waiting!, external: { ...waiting!.external, ...rest } }, null);
}

// --- Editing ---------------------------------------------------------------------------------------------------------

function edit(side: Side): void {
  state.side.value = side;
  void refresh.ask();
}

/** Changes fields of step `index`. */
export function setStep<S extends StepDraft>(index: number, fields: Partial<S>): void {
  const side = state.side.peek();
  edit({ ...side, steps: side.steps.map((step, i) => (i === index ? ({ ...step, ...fields } as StepDraft) : step)) });
}

export function setSeed(seed: number): void {
  if (Number.isSafeInteger(seed) && seed >= 0) edit({ ...state.side.peek(), seed });
}

/** Takes a weight out of every step, or puts it back. */
export function setLayer(name: string, on: boolean): void {
  edit(
    withLayer(
      state.side.peek(),
      name,
      on,
      state.layers.peek().map(({ info }) => info.name),
    ),
  );
}

/** Gives a weight bits of its own; null: like the others. */
export function setOwnBits(name: string, bits: number | null): void {
  edit(withOwnBits(state.side.peek(), name, bits));
}

export function removeStep(index: number): void {
  edit(withoutStep(state.side.peek(), index));
}

export function select(name: string): void {
  if (state.selected.peek() === name) return;
  batch(() => {
    state.selected.value = name;
    state.channel.value = 0;
  });
  void refresh.ask();
}

export function selectChannel(index: number): void {
  state.channel.value = index;
  void refresh.ask();
}

export async function loadRecipe(text: string): Promise<void> {
  try {
    const recipe: Recipe = await (await engine()).check(text);
    const side = sideOf(recipe);
    edit({ ...side, steps: withBoth(side.steps) });
    batch(() => {
      state.trouble.value = null;
      state.said.value = { key: "recipeLoaded" };
    });
  } catch (error) {
    failed(error);
    const found = state.trouble.peek();
    if (found?.code === "bad-recipe") state.trouble.value = { ...found, code: "bad-json" };
  }
}

// --- Handing out -----------------------------------------------------------------------------------------------------

/** Name of the compressed file: model.onnx gives model.small.onnx. */
const outputName = (name: string): string => smallName(name, state.opened.peek()?.info.format ?? "onnx");

/** The compressed file, handed to the browser's download. */
export async function download(): Promise<void> {
  const file = state.opened.peek()?.file;
  if (!file) return;
  // Waits for the run of what the controls say now.
  await refresh.ask();
  const finished = result;
  if (!finished) return;
  try {
    const bytes = await cancellable("save", (options) => finished.model.export(undefined, options));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([bytes as Uint8Array<ArrayBuffer>], { type: "application/octet-stream" }));
    link.download = outputName(file);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    state.said.value = { key: "saved", text: link.download };
  } catch (error) {
    failed(error);
  }
}

const place = () => ({
  side: state.side.value,
  language: language.value,
  sample: state.opened.value?.sample ?? undefined,
  layer: state.selected.value ?? undefined,
});

/** The hash for what the page shows now. Read inside an effect it follows every change. */
export const currentHash = (): string => hashOf(place());

/** Puts the page where a hash says. */
export async function goTo(hash: string): Promise<void> {
  const { side, language: spoken, sample, layer } = placeOf(hash);
  batch(() => {
    if (spoken) language.value = spoken;
    if (layer) state.selected.value = layer;
    if (side) state.side.value = side;
  });
  const now = state.opened.peek();
  if (now && (!sample || sample === now.sample)) return refresh.ask();
  state.starting.value = !now;
  await openSample(sample ?? SAMPLES[0].id);
  state.starting.value = false;
}

async function copy(text: string, key: "copiedLink" | "copiedCommand" | "copiedRecipe"): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No permission, or not a secure page: the old way still works there.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  state.said.value = { key, text };
}

export const copyLink = (): Promise<void> => copy(new URL(currentHash(), location.href).href, "copiedLink");
export const copyCommand = (): Promise<void> => {
  const { file, info } = state.opened.peek() ?? { file: "model.onnx", info: { format: "onnx" } };
  return copy(commandOf(recipeOf(state.side.peek()), file, info.format), "copiedCommand");
};
export const copyRecipe = (): Promise<void> =>
  copy(`${JSON.stringify(recipeOf(state.side.peek()), null, 2)}\n`, "copiedRecipe");
