// Training in the page: it starts, pauses, stops, and hands over what was learned. The engine does everything else that
// is asked of it in between.
import { batch, effect } from "@preact/signals";
import type { Model, Training, TrainProgress } from "nibble-nn";
import { adopt, engine, failed, models, save, settled } from "../actions";
import { fittingChoice } from "../recipe";
import * as page from "../state";
import { samplesNow } from "./actions";
import * as state from "./state";

interface Going {
  training: Training;
  /** Stops the run that is going on; it goes on later. */
  stop: AbortController | null;
  run: Promise<void> | null;
  /** The user wants it to run. */
  wanted: boolean;
}
let going: Going | null = null;
/** Counts what was started or thrown away: a start that finds another number after waiting is no longer wanted. */
let turn = 0;

// --- The curve -------------------------------------------------------------------------------------------------------

let newest: TrainProgress | null = null;
let framed = false;
const nextFrame = (work: () => void): void => {
  if (typeof requestAnimationFrame === "undefined") setTimeout(work, 16);
  else requestAnimationFrame(work);
};

/** Batches are many more than frames: each is noted, and shown with the next frame. */
function note(progress: TrainProgress): void {
  newest = progress;
  const { curve } = state;
  curve.loss.push(progress.loss);
  curve.accuracy.push(progress.accuracy);
  if (progress.validation_loss !== null) {
    curve.validation.push({
      step: curve.loss.length,
      epoch: progress.epoch,
      loss: progress.validation_loss,
      accuracy: progress.validation_accuracy,
      best: progress.best,
    });
  }
  if (framed) return;
  framed = true;
  nextFrame(() => {
    framed = false;
    show();
  });
}

function show(fields: Partial<state.Trained> = {}): void {
  const now = state.training.peek();
  if (!now) return;
  const best = state.curve.validation.filter((point) => point.best).at(-1) ?? null;
  batch(() => {
    state.training.value = { ...now, progress: newest, best, ...fields };
    state.curveLength.value = state.curve.loss.length;
  });
}

function clearCurve(): void {
  Object.assign(state.curve, { loss: [], accuracy: [], validation: [] });
  newest = null;
  state.curveLength.value = 0;
}

// --- Start, pause, go on, stop ---------------------------------------------------------------------------------------

/** "model.onnx" and "model.small.onnx" give "model.trained.onnx". */
const trainedName = (name: string): string =>
  `${name.replace(/(\.(small|trained))*\.(onnx|safetensors)$/i, "")}.trained.onnx`;

export async function start(): Promise<void> {
  const mine = ++turn;
  const stale = (): boolean => mine !== turn;
  await end();
  if (stale()) return;
  const data = samplesNow();
  const from = state.trainFrom.peek();
  if (!data) return;
  const isNew = from.startsWith("new:");
  const name = isNew ? from.slice(4) : (page.opened.peek()?.file ?? "model.onnx");
  clearCurve();
  state.training.value = { phase: "starting", from, file: trainedName(name), progress: null, best: null };
  let made: Model | null = null;
  try {
    await settled();
    if (isNew && !stale()) made = await (await engine()).create(name, { seed: state.newSeed.peek() });
    if (stale()) return;
    const { original, result } = models();
    // Where no run has worked yet there is only the opened model.
    const model = made ?? (from === "result" && result ? result.model : original);
    if (!model) {
      state.training.value = null;
      return;
    }
    const preparation = isNew ? null : state.preparation.peek();
    const training = await model.train(data, fittingChoice(state.choice.peek()), {
      ...(preparation && { preparation }),
    });
    if (stale()) return training.dispose();
    going = { training, stop: null, run: null, wanted: true };
    void go();
  } catch (error) {
    if (stale()) return;
    failed(error);
    state.training.value = null;
  } finally {
    made?.dispose();
  }
}

async function go(): Promise<void> {
  const now = going;
  if (!now || now.run || !now.wanted) return;
  const stop = (now.stop = new AbortController());
  show({ phase: "running" });
  now.run = now.training
    .run({ signal: stop.signal, onProgress: note })
    .then((progress) => {
      if (going !== now) return;
      newest = progress;
      now.wanted = !progress.done && now.wanted;
      show({ phase: progress.done ? "done" : "paused" });
    })
    .catch((error: unknown) => {
      if (going !== now) return;
      // Stopped before its first batch, or something broke: what was learned is still there.
      if (!failed(error)) now.wanted = false;
      show({ phase: "paused" });
    })
    .finally(() => {
      now.run = null;
      now.stop = null;
    });
  await now.run;
  // Asked to go on while it was stopping.
  if (going === now && now.wanted) void go();
}

export async function pause(): Promise<void> {
  if (!going) return;
  going.wanted = false;
  going.stop?.abort();
  await going.run;
}

export function resume(): void {
  if (!going) return;
  going.wanted = true;
  void go();
}

/** Ends the training; what was learned can still be used. */
export async function stop(): Promise<void> {
  await pause();
  if (state.training.peek()?.phase !== "paused") return;
  show({ phase: "stopped" });
  page.said.value = { key: "trainingKept" };
}

/** Throws the training away, also one that has not begun yet. */
export function discard(): Promise<void> {
  turn++;
  return end();
}

async function end(): Promise<void> {
  const now = going;
  if (now) {
    now.wanted = false;
    now.stop?.abort();
    await now.run;
    now.training.dispose();
  }
  if (going !== now) return;
  going = null;
  state.training.value = null;
}

// --- What was learned ------------------------------------------------------------------------------------------------

/** The weights of the lowest validation loss; where no epoch has ended yet, those of now. */
async function learned(): Promise<Model | null> {
  if (!going) return null;
  return going.training.model(state.training.peek()?.best ? "best" : "current");
}

export async function use(): Promise<void> {
  const file = state.training.peek()?.file;
  try {
    await pause();
    const model = await learned();
    if (!model || !file) return;
    await discard();
    // The data of a sample stay with what was trained on them.
    const source = page.dataSource.peek();
    if (page.wishedData.peek() === "default" && source && source.kind !== "files") page.wishedData.value = source;
    await adopt(model, file);
    page.said.value = { key: "trainedOpened" };
  } catch (error) {
    failed(error);
  }
}

export async function download(): Promise<void> {
  const file = state.training.peek()?.file;
  try {
    const model = await learned();
    if (!model || !file) return;
    save(await model.export(), file);
    model.dispose();
  } catch (error) {
    failed(error);
  }
}

export async function fetchArchitectures(): Promise<void> {
  if (state.architectures.peek()) return;
  try {
    state.architectures.value = await (await engine()).architectures();
  } catch (error) {
    failed(error);
  }
}

// A training of data or of a model that are no longer there is over.
let [lastData, lastOpened] = [state.data.peek(), page.opened.peek()];
effect(() => {
  const [data, opened] = [state.data.value, page.opened.value];
  const fresh = state.training.peek()?.from.startsWith("new:");
  if (data !== lastData || (opened !== lastOpened && !fresh)) void discard();
  [lastData, lastOpened] = [data, opened];
});
