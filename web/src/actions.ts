// Everything the page does with models and recipes; behaviour/actions.ts adds what needs data. Nothing else calls the
// engine, whose models outlive the worker they are in: after a cancel or a crash the client makes them again when they
// are next used.
import { batch, effect } from "@preact/signals";
import {
  load,
  NibbleError,
  type Bytes,
  type Data,
  type DataOptions,
  type Engine,
  type Format,
  type Model,
  type Progress,
  type Recipe,
} from "nibble-nn";
import { filesOf, isData } from "./files";
import { latest } from "./latest";
import { language } from "./language";
import {
  commandOf,
  dataName,
  hashOf,
  placeOf,
  recipeOf,
  sideOf,
  withBoth,
  clusterDraft,
  encodeDraft,
  withLayer,
  withOwnBits,
  withStep,
  fitting,
  learns,
  smallName,
  trainDraft,
  withoutLearning,
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
let result: { model: Model; side: Side; complete: boolean } | null = null;
/** The recipe that is to be run with its training. */
let learning: Side | null = null;
interface Active {
  task: state.Work["task"];
  controller: AbortController;
  /** Shows how far it is, if it has taken long. */
  show(): void;
}
/** The work going on that can be stopped, in the order in which it began. */
let active: Active[] = [];
/** The user stopped a run: the controls go back to the result that stays. */
let goBack = false;
/** A file that could not be opened because its external data was missing: dropping that completes it. */
let waiting: Source | null = null;

/** The engine itself could not be started, which is not the fault of any file. */
class NoEngine extends Error {}

/** For behaviour/ alone: the models as they are now. */
export const models = () => ({ original, result });

/** What a recipe's training learns from; set by behaviour/. */
export const learnsFrom: { data: Data | null; options: DataOptions } = { data: null, options: {} };

export const engine = (): Promise<Engine> =>
  (loading ??= load().catch((error: unknown) => {
    loading = null;
    throw new NoEngine(error instanceof Error ? error.message : String(error));
  }));

/** Starts loading the engine, before anything is asked of it. */
export const warmUp = (): void => void engine().catch(() => {});

const PROGRESS_AFTER = 300; // ms; shorter work would only make the page flicker

/** Does one piece of work that can be cancelled, with a progress bar if it takes long. */
export async function cancellable<T>(
  task: state.Work["task"],
  work: (options: { signal: AbortSignal; onProgress: (p: Progress) => void }) => Promise<T>,
  controller = new AbortController(),
): Promise<T> {
  const started = performance.now();
  let newest: Progress | null = null;
  let long = false;
  const show = (): void => {
    // The engine does one thing after the other: it is at what began first.
    if (!long || active[0] !== mine) return;
    const { phase = null, item = "", fraction = 0 } = newest ?? {};
    state.work.value = { task, phase, item, fraction, seconds: (performance.now() - started) / 1000 };
  };
  const mine: Active = { task, controller, show };
  active.push(mine);
  const timer = setTimeout(() => {
    long = true;
    show();
  }, PROGRESS_AFTER);
  const onProgress = (progress: Progress): void => {
    newest = progress;
    show();
  };
  try {
    return await work({ signal: controller.signal, onProgress });
  } finally {
    clearTimeout(timer);
    if (active[0] === mine) state.work.value = null;
    active = active.filter((other) => other !== mine);
    active[0]?.show();
  }
}

/** Stops all work of these kinds. */
function stop(...tasks: Active["task"][]): void {
  for (const { task, controller } of active) if (tasks.includes(task)) controller.abort();
}

/** For work of several calls: what was stopped while none of them was going on ends before the next. */
function stopIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw new NibbleError("cancelled", "", "stopped on request");
}

/** Puts an exception into words; true if it was a cancel. */
export function failed(error: unknown, file?: string): boolean {
  const found = troubleOf(error, file);
  if (found) state.trouble.value = found;
  return found === null;
}

/** An exception in words; null for a cancel. */
export function troubleOf(error: unknown, file?: string): state.Trouble | null {
  const detail = error instanceof Error ? error.message : String(error);
  if (error instanceof NoEngine) return { code: "engine", where: "", detail };
  if (!(error instanceof NibbleError)) return { code: "internal", where: "", detail };
  if (error.code === "cancelled") return null;
  return { code: error.code, where: error.where, detail: error.detail, ...(file && { file }) };
}

// --- Running the recipe ----------------------------------------------------------------------------------------------

const refresh = latest(async () => {
  const before = original;
  if (!before) return;
  clearTimeout(countTimer);
  state.running.value = true;
  try {
    await cancellable("run", async (options) => {
      const side = state.side.peek();
      // Training takes long: sliders show what comes before it.
      const complete = !learns(side) || learning === side;
      if (result?.side !== side || (complete && !result.complete)) {
        stopCounting();
        const { data } = learnsFrom;
        const { model, report: made } = await before.compress(recipeOf(complete ? side : withoutLearning(side)), {
          ...options,
          ...(complete && learns(side) && data && { data, dataOptions: learnsFrom.options }),
        });
        if (before !== original) return model.dispose(); // another model was opened meanwhile
        result?.model.dispose();
        result = { model, side, complete };
        const { file } = made;
        const size = file.before || (state.opened.peek()?.info.file_bytes ?? 0);
        const report = { ...made, file: { ...file, before: size } };
        batch(() => {
          state.shown.value = { side, report, complete };
          if (state.trouble.peek()?.code === "bad-recipe") state.trouble.value = null;
        });
      }
      await look(before, result.model);
      await estimate();
      // Pictures are soon made and not worth ending the engine for, but whoever stopped them meant what was to follow.
      stopIfAborted(options.signal);
    });
  } catch (error) {
    const good = state.shown.peek();
    if (failed(error) && goBack && good) state.side.value = good.side;
  } finally {
    goBack = false;
    learning = null;
    state.running.value = false;
    countSoon();
  }
});

// --- Bytes -----------------------------------------------------------------------------------------------------------

const COUNTED = 1_000_000; // weights of a model whose bytes are counted without being asked for
const REST = 400; // ms without a run before that

let countTimer: ReturnType<typeof setTimeout> | undefined;
/** Stops the count that is going on. */
let counting: AbortController | null = null;

/** The byte meter of the newest result, quickly. */
async function estimate(): Promise<void> {
  const of = result;
  if (!of) return;
  // After looking at another weight the bytes are still the same.
  const now = state.meter.peek();
  if (now?.side !== of.side || now.complete !== of.complete) {
    const bytes = await of.model.bytes({ exact: false });
    if (of === result) state.meter.value = { side: of.side, complete: of.complete, bytes, compressed: null };
  }
}

const isShort = (): boolean => (state.opened.peek()?.info.weight_parameters ?? 0) <= COUNTED;

/** Counts the newest result exactly once the page has come to rest, where that is short and has not been done. */
function countSoon(): void {
  if (result && isShort() && !counting && !state.meter.peek()?.compressed)
    countTimer = setTimeout(() => void countBytes(), REST);
}

/** No count of the present result is wanted any more. */
function stopCounting(): void {
  clearTimeout(countTimer);
  counting?.abort();
  counting = null;
}
// Not only by the run that follows: what is going on before that may itself be waiting for the count.
effect(() => {
  void state.side.value;
  stopCounting();
});

/** Codes every weight of the newest result with every coder. */
export async function countBytes(): Promise<void> {
  clearTimeout(countTimer);
  if (counting) return;
  const mine = (counting = new AbortController());
  try {
    await cancellable(
      "bytes",
      async ({ signal, onProgress }) => {
        // A result that is about to be replaced is not worth it.
        await refresh.idle();
        stopIfAborted(signal);
        const of = result;
        if (!of) return;
        // Stopped in the middle the engine ends, and all that is in it has to be made again: a short count costs less.
        const bytes = await of.model.bytes({ onProgress, exact: true, ...(!isShort() && { signal }) });
        const compressed = new Map<string, state.Compressed>();
        for (const { name } of bytes.weights) {
          stopIfAborted(signal);
          const packed = await of.model.packed(name);
          compressed.set(name, {
            gzip: await compressedSize(packed, "gzip"),
            brotli: await compressedSize(packed, "brotli"),
          });
        }
        stopIfAborted(signal);
        state.meter.value = { side: of.side, complete: of.complete, bytes, compressed };
      },
      mine,
    );
  } catch (error) {
    if (!mine.signal.aborted) failed(error);
  } finally {
    if (counting === mine) counting = null;
  }
}

/** Bytes that the browser's own compressor makes of these; null where it has none of that name. */
async function compressedSize(bytes: Uint8Array, format: string): Promise<number | null> {
  let stream: CompressionStream;
  try {
    stream = new CompressionStream(format as CompressionFormat);
  } catch {
    return null; // a TypeError, by which a browser says that it does not know the format
  }
  const whole = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(stream);
  return (await new Response(whole).arrayBuffer()).byteLength;
}

/** Runs the recipe with its training. */
export async function runAll(): Promise<void> {
  await refresh.idle();
  learning = state.side.peek();
  await refresh.ask();
}

/** Resolves when no run is going on. */
export const settled = (): Promise<void> => refresh.idle();

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

/** Stops all that is going on; the page stays with the last good result. */
export function cancel(): void {
  if (active.length === 0) return;
  goBack = active.some(({ task }) => task === "run");
  for (const { controller } of active) controller.abort();
  state.said.value = { key: "cancelled" };
}

// --- Opening ---------------------------------------------------------------------------------------------------------

/** Counts what the user asked to open: a sample that arrives after something newer was asked for is dropped. */
let asked = 0;

/** Counts the models that began to open: of two that open at once the later one stays. */
let opening = 0;

/** Ends what would only be in the way of another model: a run and a count of the old one, and the opening of a third. */
function makeWay(): Promise<void> {
  stop("run", "open");
  stopCounting();
  return refresh.idle();
}

/** Opens a model; where that fails, what is open already stays. */
async function openSource(next: Source, sample: string | null): Promise<void> {
  const mine = ++opening;
  state.trouble.value = null;
  waiting = null;
  await makeWay();
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
  await show(model, next.name, sample);
}

/** Makes a model that is new in the engine the page's model. */
export async function adopt(model: Model, file: string): Promise<void> {
  asked++;
  opening++;
  await makeWay();
  // A model that never was a file has no size yet: it is what saving it as it is would give.
  const size = model.info.file_bytes || (await model.export()).length;
  await show(model, file, null, size);
}

function show(model: Model, file: string, sample: string | null, size = model.info.file_bytes): Promise<void> {
  stopCounting();
  result?.model.dispose();
  result = null;
  original?.dispose();
  original = model;
  const info = { ...model.info, file_bytes: size };
  const names = info.weights.map(({ name }) => name);
  const weights = [...info.weights].sort((a, b) => b.bytes - a.bytes);
  const keep = info.weights.some(({ name }) => name === state.selected.peek());
  batch(() => {
    // A step for some layers of the last model means nothing here.
    if (state.opened.peek()) state.side.value = fitting(state.side.peek(), names);
    state.opened.value = { info, file, sample };
    state.shown.value = null;
    state.meter.value = null;
    state.picture.value = null;
    state.widths.value = null;
    if (!sample) state.welcomed.value = true;
    if (!keep) {
      state.selected.value = weights[0]?.name ?? null;
      state.channel.value = 0;
    }
  });
  return refresh.ask();
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

/** Says that the browser could not read what it was given: a file that was moved meanwhile, a folder without permission. */
function unreadable(error: unknown, file?: string): null {
  const detail = error instanceof Error ? error.message : String(error);
  state.trouble.value = { code: "bad-file", where: "", detail, ...(file && { file }) };
  return null;
}

/** Notes that behaviour/ could not be loaded; the page goes on without. */
export function noBehaviour(error: unknown): null {
  state.behaviourLost.value = error instanceof Error ? error.message : String(error);
  return null;
}

/** Files and folders that were dropped. Must be called while the event is handled. */
export async function openDropped(transfer: DataTransfer | null): Promise<void> {
  const files = await filesOf(transfer).catch((error: unknown) => unreadable(error));
  if (files) await openFiles(files);
}

/** Files that were dropped, pasted or picked: data, a recipe, or a model with its external data. */
export async function openFiles(files: readonly File[]): Promise<void> {
  const data = files.filter(isData);
  if (data.length > 0) {
    const part = import("./behaviour/actions").catch(noBehaviour);
    // One after the other: data are looked at with the model that is open.
    await openFiles(files.filter((file) => !isData(file)));
    return (await part)?.openData(data);
  }
  if (files.length === 0) return;
  asked++;
  const recipe = files.find((file) => extensionOf(file.name) === "json");
  if (recipe) {
    const text = await recipe.text().catch((error: unknown) => unreadable(error, recipe.name));
    if (text !== null) await loadRecipe(text);
    return openFiles(files.filter((file) => file !== recipe));
  }
  const isModel = (file: File): boolean => ["onnx", "safetensors", "nib"].includes(extensionOf(file.name));
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

/** Puts a step where it belongs in the recipe. */
export function addStep(kind: "cluster" | "train" | "encode"): void {
  const draft = { cluster: clusterDraft, train: trainDraft, encode: encodeDraft }[kind]();
  edit(withStep(state.side.peek(), draft));
}

export function removeStep(index: number): void {
  edit(withoutStep(state.side.peek(), index));
}

export function select(name: string): void {
  // What is looked at stays in view where it shows the layer too.
  if (state.view.peek() !== "activations") state.view.value = "layer";
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

/** The compressed file, model.small.onnx or its entropy-coded form model.small.nib, handed to the browser's download. */
export async function download(format: Format = state.opened.peek()?.info.format ?? "onnx"): Promise<void> {
  const file = state.opened.peek()?.file;
  if (!file) return;
  // Waits for the run of what the controls say now.
  await refresh.ask();
  const finished = result;
  if (!finished) return;
  try {
    save(await cancellable("save", (options) => finished.model.export(format, options)), smallName(file, format));
  } catch (error) {
    failed(error);
  }
}

/** Hands bytes to the browser's download. */
export function save(bytes: Uint8Array, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes as Uint8Array<ArrayBuffer>], { type: "application/octet-stream" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  state.said.value = { key: "saved", text: name };
}

const place = () => {
  const data = state.wishedData.value;
  return {
    side: state.side.value,
    language: language.value,
    sample: state.opened.value?.sample ?? undefined,
    layer: state.selected.value ?? undefined,
    data: data === "default" || data === "files" ? undefined : data,
    view: state.view.value,
  };
};

/** The hash for what the page shows now. Read inside an effect it follows every change. */
export const currentHash = (): string => hashOf(place());

/** Puts the page where a hash says. */
export async function goTo(hash: string): Promise<void> {
  const { side, language: spoken, sample, layer, data, view } = placeOf(hash);
  batch(() => {
    state.view.value = view ?? "layer";
    if (data) state.wishedData.value = data;
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
  const data = state.dataSource.peek();
  const { preparation } = learnsFrom.options;
  return copy(
    commandOf(recipeOf(state.side.peek()), file, info.format, {
      ...(data && { data: dataName(data) }),
      // What the page found, the command finds too.
      ...(preparation && !preparation.reason && { preparation }),
    }),
    "copiedCommand",
  );
};
export const copyRecipe = (): Promise<void> =>
  copy(`${JSON.stringify(recipeOf(state.side.peek()), null, 2)}\n`, "copiedRecipe");
