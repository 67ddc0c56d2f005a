// What the page does with data: reads them, runs the models on them, compares. With ../actions.ts and training.ts the
// only caller of the engine. Every answer that arrives after its question is stale is dropped.
import { batch, effect } from "@preact/signals";
import type { Data, DataCallOptions, Model, NamedBytes, Preparation } from "nibble-nn";
import { cancellable, engine, failed, learnsFrom, models, troubleOf } from "../actions";
import { pathOf } from "../files";
import { latest } from "../latest";
import type { GeneratedData, Side } from "../recipe";
import { SAMPLES } from "../samples";
import * as page from "../state";
import { probabilities } from "./digit";
import * as state from "./state";

/** The data of the page, in the engine. */
let samples: Data | null = null;
/** Files that were picked last; what `wishedData` "files" means. */
let picked: NamedBytes[] = [];
/** Where the samples that are read came from: a wish that is this one is fulfilled. */
let origin: GeneratedData | NamedBytes[] | null = null;
/** What the preparation was found for; another model or other data need another. */
let prepared: { model: Model; data: Data } | null = null;
/** The model that was asked whether it can be run. */
let asked: Model | null = null;

export const samplesNow = (): Data | null => samples;

// --- Data ------------------------------------------------------------------------------------------------------------

function wish(): GeneratedData | NamedBytes[] | null {
  const wished = page.wishedData.value;
  if (wished === "files") return picked;
  if (wished === "none") return null;
  if (wished !== "default") return wished;
  const sample = page.opened.value?.sample;
  return SAMPLES.find(({ id }) => id === sample)?.data ?? null;
}

const same = (a: typeof origin, b: typeof origin): boolean =>
  a === b || (a !== null && b !== null && !Array.isArray(a) && JSON.stringify(a) === JSON.stringify(b));

const reading = latest(async () => {
  const wanted = wish();
  if (same(wanted, origin)) return;
  state.reading.value = true;
  let made: Data | null = null;
  try {
    if (wanted) made = await cancellable("data", async (options) => (await engine()).data(wanted, options));
  } catch (error) {
    failed(error, Array.isArray(wanted) ? wanted[0]?.name : undefined);
    batch(() => {
      state.reading.value = false;
      if (!same(wish(), wanted)) return; // asked for other data meanwhile: they are next
      // What was there stays, also when a wish is next looked at.
      picked = Array.isArray(origin) ? origin : [];
      page.wishedData.value = origin === null ? "none" : Array.isArray(origin) ? "files" : origin;
    });
    return;
  }
  if (!same(wish(), wanted)) return made?.dispose(); // asked for other data meanwhile: they are next
  samples?.dispose();
  samples = learnsFrom.data = made;
  origin = wanted;
  prepared = null;
  batch(() => {
    state.reading.value = false;
    state.trouble.value = null;
    state.preparation.value = null;
    state.compared.value = null;
    state.flips.value = [];
    state.maps.value = null;
    state.sampleAt.value = 0;
    page.dataSource.value = Array.isArray(wanted) ? { kind: "files", names: wanted.map(({ name }) => name) } : wanted;
    state.data.value = made && { info: made.info, source: page.dataSource.value! };
  });
});

/** Files that were dropped or picked: all of them together are the data. */
export async function openData(files: readonly File[]): Promise<void> {
  if (files.length === 0) return;
  picked = files.map((file) => ({ name: pathOf(file), bytes: file }));
  page.wishedData.value = "files";
  await reading.ask();
}

export const makeData = (data: GeneratedData): void => void (page.wishedData.value = data);

export const removeData = (): void => void (page.wishedData.value = "none");

// A number that is typed is not read for each of its digits.
const READ_AFTER = 250; // ms
let readTimer: ReturnType<typeof setTimeout> | undefined;
effect(() => {
  const wanted = wish();
  clearTimeout(readTimer);
  if (page.opened.value)
    readTimer = setTimeout(() => void reading.ask(), same(wanted, origin) || !origin ? 0 : READ_AFTER);
});

// --- Preparation -----------------------------------------------------------------------------------------------------

/** Changes how the data are given to the model; null: as the engine finds it. */
export function setPreparation(fields: Partial<Preparation> | null): void {
  const now = state.preparation.peek();
  if (fields === null) prepared = null;
  state.preparation.value = fields && now ? { ...now, ...fields, reason: "" } : null;
}

effect(() => {
  const preparation = state.preparation.value;
  learnsFrom.options = preparation ? { preparation } : {};
});

const options = (): DataCallOptions => {
  const preparation = state.preparation.peek();
  return {
    split: state.split.peek(),
    ...(!state.everySample.peek() && { limit: state.SOME }),
    ...(preparation && { preparation }),
  };
};

// --- Before and after ------------------------------------------------------------------------------------------------

/** Stops the comparison that goes on. */
let stopComparing: AbortController | null = null;

const judging = latest(async () => {
  const { original, result } = models();
  const data = samples;
  try {
    if (original && asked !== original) {
      const reason = await original.cannotRun();
      if (models().original !== original) return;
      asked = original;
      state.cannotRun.value = reason;
    }
    if (!original || !data || state.cannotRun.peek() !== null) return;
    if (prepared?.model !== original || prepared.data !== data) {
      const found = await original.prepare(data);
      if (models().original !== original || samples !== data) return;
      prepared = { model: original, data };
      state.preparation.value = found;
    }
    if (result) await compare(original, result, data);
  } catch (error) {
    const found = troubleOf(error);
    if (found) state.trouble.value = found;
  } finally {
    state.comparing.value = null;
  }
});

/** What the newest comparison was of: asking the same again would only cost time. */
let comparedOf: unknown[] = [];

const FLIPS = 600; // whose pictures are copied to the page

async function compare(original: Model, result: { model: Model; side: Side }, data: Data): Promise<void> {
  const { split, limit, preparation } = options();
  const key = [original, result.model, data, split, limit, preparation];
  if (state.compared.peek() && key.every((part, i) => part === comparedOf[i])) return;
  const controller = (stopComparing = new AbortController());
  const started = performance.now();
  state.comparing.value = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const made = await original.compare(result.model, data, {
    ...options(),
    signal: controller.signal,
    onProgress: ({ fraction }) => {
      timer ??= setTimeout(() => {
        timer = undefined;
        if (state.comparing.peek() !== null) state.comparing.value = fraction;
      }, 100);
    },
  });
  const shown = Array.from(made.flipped.subarray(0, FLIPS));
  const { values, labels } = await data.samples(shown);
  const now = models();
  if (now.original !== original || samples !== data || now.result?.model !== result.model) return;
  const size = values.length / (shown.length || 1);
  const at = new Map(Array.from(made.before.indices, (index, i) => [index, i]));
  const flips = shown.map((index, k): state.Flip => {
    const i = at.get(index)!;
    return {
      index,
      label: labels.length > 0 ? labels[k] : null,
      before: made.before.predictions[i],
      after: made.after.predictions[i],
      confidence: { before: made.before.confidence[i], after: made.after.confidence[i] },
      values: values.subarray(k * size, (k + 1) * size),
    };
  });
  // The weights of recurrent nodes are only named with the weights themselves.
  const weights = original.info.weights;
  const activations = made.activations.map((activation) =>
    activation.weights.length > 0 || !activation.node
      ? activation
      : { ...activation, weights: weights.filter(({ node }) => node === activation.node).map(({ name }) => name) },
  );
  comparedOf = key;
  batch(() => {
    state.trouble.value = null;
    state.compared.value = { ...made, activations, side: result.side, took: performance.now() - started };
    state.flips.value = flips;
    if (state.sampleAt.peek() >= made.before.indices.length) state.sampleAt.value = 0;
    if (!made.activations.some(({ name }) => name === state.valueName.peek())) state.valueName.value = ofSelected();
  });
}

const SETTLED = 60; // ms after the last change; a slider that moves is not compared at every place
const LONG = 1500; // ms; a comparison that takes this long is stopped when the recipe changes, a shorter one may end
let judgeTimer: ReturnType<typeof setTimeout> | undefined;
effect(() => {
  // What an answer depends on.
  void [page.opened.value, page.shown.value, state.data.value, state.split.value, state.everySample.value];
  void state.preparation.value;
  clearTimeout(judgeTimer);
  judgeTimer = setTimeout(() => void judging.ask(), SETTLED);
});
effect(() => {
  void page.side.value;
  if (state.comparing.peek() !== null && (state.compared.peek()?.took ?? 0) > LONG) stopComparing?.abort();
});
effect(() => {
  void page.opened.value;
  batch(() => {
    state.cannotRun.value = undefined;
    state.compared.value = null;
    state.flips.value = [];
    state.maps.value = null;
    state.valueName.value = null;
    state.trouble.value = null;
  });
});

// --- Activations -----------------------------------------------------------------------------------------------------

/** The value that the selected layer makes, else the last. */
function ofSelected(): string | null {
  const list = state.compared.peek()?.activations ?? [];
  const selected = page.selected.peek();
  return (list.find(({ weights }) => selected !== null && weights.includes(selected)) ?? list.at(-1))?.name ?? null;
}

/** Looks at a value of the graph, and at the layer that makes it. */
export function selectValue(name: string): void {
  const found = state.compared.peek()?.activations.find((activation) => activation.name === name);
  state.valueName.value = name;
  const weight = found?.weights.find((of) => page.layers.peek().some(({ info }) => info.name === of));
  if (weight) page.selected.value = weight;
}

/** Looks inside at a sample. */
export function lookInside(index: number): void {
  const at = state.compared.peek()?.before.indices.indexOf(index) ?? -1;
  if (at < 0) return;
  state.sampleAt.value = at;
  page.view.value = "activations";
}

const mapping = latest(async () => {
  const { original, result } = models();
  const [data, compared, name] = [samples, state.compared.peek(), state.valueName.peek()];
  if (!original || !result || !data || !compared || !name) return;
  const index = compared.before.indices[state.sampleAt.peek()];
  if (index === undefined) return;
  try {
    const [before, after, { values, labels }] = await Promise.all([
      original.activation(data, index, name, options()),
      result.model.activation(data, index, name, options()),
      data.samples([index]),
    ]);
    if (models().original !== original || samples !== data) return;
    state.maps.value = {
      name,
      index,
      shape: before.shape,
      before: before.values,
      after: after.values,
      sample: values,
      label: labels[0] ?? null,
    };
  } catch (error) {
    const found = troubleOf(error);
    if (found) state.trouble.value = found;
  }
});

effect(() => {
  void [state.compared.value, state.valueName.value, state.sampleAt.value];
  if (page.view.value === "activations" && state.compared.value) void mapping.ask();
});
// A layer that is picked in the list is looked at here too.
effect(() => {
  const weight = page.selected.value;
  const name = state.valueName.peek();
  const now = state.compared.peek()?.activations.find((activation) => activation.name === name);
  if (weight && !now?.weights.includes(weight)) state.valueName.value = ofSelected();
});

// --- Drawing ---------------------------------------------------------------------------------------------------------

interface Ink {
  black: number;
  white: number;
}
const BYTES: Ink = { black: 0, white: 255 };
/** What was found for other numbers, and in which data. */
let measured: { data: Data; ink: Ink } | null = null;

const SEEN = 100; // samples that tell which numbers there are

/** The numbers that are black and white in `data`. Those that are no bytes may be from 0 to 1, around 0, anything. */
async function inkOf(data: Data): Promise<Ink> {
  if (data.info.dtype === "uint8") return BYTES;
  if (measured?.data === data) return measured.ink;
  const { values } = await data.samples(Array.from({ length: Math.min(SEEN, data.info.samples) }, (_, i) => i));
  let [black, white] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < black) black = value;
    if (value > white) white = value;
  }
  if (!(white > black)) [black, white] = [0, 1]; // nothing but one number
  measured = { data, ink: { black, white } };
  return measured.ink;
}

/** The drawn digit as the model's input: as if it were one of the data. */
async function inputOf(image: Uint8Array, model: Model, data: Data | null) {
  const { name, shape } = model.info.inputs[0];
  const preparation = state.preparation.peek();
  const { scale = 1 / 255, mean = [0], std = [1] } = preparation ?? {};
  const { black, white } = data && preparation ? await inkOf(data) : BYTES;
  const stored = (value: number): number => black + (value * (white - black)) / 255;
  const input = Float32Array.from(image, (value) => (stored(value) * scale - mean[0]) / std[0]);
  const sizes = shape.slice(1).map(Number);
  return { [name]: { dtype: "float32", shape: [1, ...sizes], data: input } };
}

const guessing = latest(async () => {
  const { original, result } = models();
  const picture = state.drawn.peek();
  const shown = page.shown.peek();
  if (!picture || !original || !result || !state.takesDigits.peek() || state.cannotRun.peek()) {
    state.guess.value = null;
    return;
  }
  try {
    const input = await inputOf(picture, original, samples);
    const ask = async (model: Model): Promise<Float32Array> => {
      const outputs = await model.run(input);
      return probabilities(Object.values(outputs)[0]);
    };
    const [before, after] = await Promise.all([ask(original), ask(result.model)]);
    if (models().original === original && state.drawn.peek()) state.guess.value = { picture, shown, before, after };
  } catch (error) {
    state.guess.value = null;
    const found = troubleOf(error);
    if (found) state.trouble.value = found;
  }
});

effect(() => {
  void [state.drawn.value, page.shown.value, state.preparation.value];
  if (page.view.value === "draw") void guessing.ask();
});

/** Puts a sample of the data on the pad, each time another one. */
let taken = 0;
export async function takeSample(): Promise<void> {
  const data = samples;
  if (!data || !state.samplesAreDigits.peek()) return;
  const { info } = data;
  const indices = state.compared.peek()?.before.indices;
  const index = indices ? indices[taken++ % indices.length] : taken++ % info.samples;
  try {
    const { black, white } = await inkOf(data);
    const { values } = await data.samples([index]);
    const byteOf = (value: number): number =>
      Math.max(0, Math.min(255, Math.round(((value - black) * 255) / (white - black))));
    if (samples === data) state.drawn.value = Uint8Array.from(values as ArrayLike<number>, byteOf);
  } catch (error) {
    const found = troubleOf(error);
    if (found) state.trouble.value = found;
  }
}
