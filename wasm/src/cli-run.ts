// The commands that run models: evaluate, compare, train.
import { existsSync } from "node:fs";
import {
  engine,
  FileError,
  formatOf,
  kInterrupted,
  kOk,
  onProgressOf,
  openData,
  openModel,
  print,
  progressBar,
  readInput,
  refuseToOverwrite,
  sameFile,
  writeAll,
  writeWhole,
} from "./cli-io";
import { choiceOf, inFlags, kCommandFlags, nearest, preparationOf, splitOf, text, UsageError } from "./flags";
import type { Arguments } from "./flags";
import { NibbleError } from "./node";
import type {
  Comparison,
  Data,
  DataCallOptions,
  DataOptions,
  ErrorCode,
  Evaluation,
  EvaluationReport,
  Model,
  Preparation,
  Training,
  TrainProgress,
} from "./node";
import {
  bytes as byteText,
  describeComparison,
  describeEpoch,
  describeEvaluation,
  describeSplit,
  kEpochHeads,
  progressLine,
} from "./tables";
import type { Epoch, Flip, ProgressBar } from "./tables";

/** Flipped samples that are shown with their predictions. */
const kShownFlips = 10;

function dataOf(args: Arguments): string {
  const data = text(args, "data");
  if (data === undefined) throw new UsageError("which data? Give --data DATA, for example --data digits:seed=1,n=2000");
  return data;
}

/** Errors of data and choices that a flag caused name the flag and are a matter of usage. */
export async function withFlags<T>(
  command: string,
  args: Arguments,
  work: () => Promise<T>,
  codes: ErrorCode[] = ["bad-data", "bad-recipe"],
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof NibbleError) || !codes.includes(error.code)) throw error;
    const flags = (kCommandFlags[command] ?? []).filter(({ name }) => name !== "data");
    const message = inFlags(error.where, error.detail, args, flags);
    throw message ? new UsageError(message) : error;
  }
}

/** Options of a call on data: what the flags say, with the preparation that they change made whole by a guess. */
export async function optionsOf(
  model: Model,
  data: Data,
  args: Arguments,
  bar: ProgressBar | undefined,
): Promise<DataOptions> {
  const split = splitOf(args);
  const given = preparationOf(args);
  if (Object.keys(given).length === 0) return split;
  const { split: _all, limit: _limit, ...shares } = split;
  const guess = await model.prepare(data, { ...shares, onProgress: onProgressOf(bar) });
  const names = Object.keys(given).map((name) => `--${name}`);
  const preparation = { ...guess, ...given, reason: `${names.join(", ")}; the rest: ${guess.reason}` } as Preparation;
  // One number goes with several: the same for each channel.
  const wide = Math.max(preparation.mean.length, preparation.std.length);
  for (const key of ["mean", "std"] as const) {
    if (preparation[key].length === 1) preparation[key] = Array<number>(wide).fill(preparation[key][0]!);
  }
  return { ...split, preparation };
}

// --- evaluate --------------------------------------------------------------------------------------------------------

/** Numbers of a typed array for JSON: floats with the digits that they have. */
const plain = (array: ArrayLike<number>) => Array.from(array, (x) => Number(x.toPrecision(9)));

/** A matrix of so many columns as rows. */
const rowsOf = (array: ArrayLike<number>, columns: number) =>
  Array.from({ length: columns > 0 ? array.length / columns : 0 }, (_, row) =>
    Array.from({ length: columns }, (_, column) => array[row * columns + column]!),
  );

function evaluationJson({ indices, predictions, confidence, confusion, ...report }: Evaluation): object {
  return {
    ...report,
    indices: plain(indices),
    predictions: plain(predictions),
    confidence: plain(confidence),
    confusion: rowsOf(confusion, report.classes),
  };
}

export async function evaluate(path: string, args: Arguments): Promise<number> {
  const from = dataOf(args);
  const bar = progressBar();
  try {
    const { model } = await openModel(path, args, bar);
    const { data } = await openData(from, bar);
    const result = await withFlags("evaluate", args, async () => {
      const options: DataCallOptions = { ...(await optionsOf(model, data, args, bar)), onProgress: onProgressOf(bar) };
      return model.evaluate(data, options);
    });
    bar?.clear();
    const split = text(args, "split") ?? "test";
    if (args.values.has("json")) {
      const json = { model: model.info.name, data: data.info.name, split, ...evaluationJson(result) };
      return print(`${JSON.stringify(json)}\n`);
    }
    return print(describeEvaluation(result, data.info, split));
  } finally {
    bar?.clear();
  }
}

// --- compare ---------------------------------------------------------------------------------------------------------

/** The first flipped samples, with their labels. */
async function flipsOf({ flipped, before, after }: Comparison, data: Data): Promise<Flip[]> {
  const shown = Array.from(flipped.subarray(0, kShownFlips));
  const { labels } = await data.samples(shown);
  return shown.map((index, place) => {
    const at = before.indices.indexOf(index);
    return {
      index,
      label: labels[place],
      before: before.predictions[at] ?? -1,
      after: after.predictions[at] ?? -1,
    };
  });
}

export async function compare(paths: [string, string], args: Arguments): Promise<number> {
  const from = dataOf(args);
  if (paths[0] === "-" && paths[1] === "-") throw new UsageError("the two models cannot both come from stdin");
  const bar = progressBar();
  try {
    const { model: first } = await openModel(paths[0], args, bar);
    const { model: second } = await openModel(paths[1], args, bar);
    const { data } = await openData(from, bar);
    const result = await withFlags("compare", args, async () => {
      const options: DataCallOptions = { ...(await optionsOf(first, data, args, bar)), onProgress: onProgressOf(bar) };
      return first.compare(second, data, options);
    });
    bar?.clear();
    const split = text(args, "split") ?? "test";
    if (args.values.has("json")) {
      const json = {
        models: [first.info.name, second.info.name],
        data: data.info.name,
        split,
        before: evaluationJson(result.before),
        after: evaluationJson(result.after),
        activations: result.activations,
        agreement: result.agreement,
        flipped: plain(result.flipped),
      };
      return print(`${JSON.stringify(json)}\n`);
    }
    return print(describeComparison(result, data.info, split, await flipsOf(result, data)));
  } finally {
    bar?.clear();
  }
}

// --- train -----------------------------------------------------------------------------------------------------------

/** The model to train: a file, with the paths of external data found beside it, or a new one of a known architecture. */
async function startOf(
  path: string,
  args: Arguments,
  bar: ProgressBar | undefined,
): Promise<{ model: Model; beside: string[] }> {
  if (path === "-" || existsSync(path)) return openModel(path, args, bar);
  const known = (await (await engine()).architectures()).map(({ name }) => name);
  if (known.includes(path)) {
    const seed = args.values.get("seed")?.[0] as number | undefined;
    return withFlags("train", args, async () => {
      return { model: await (await engine()).create(path, seed === undefined ? {} : { seed }), beside: [] };
    });
  }
  const near = nearest(path, known);
  throw new FileError(
    path,
    "there is no such file, and no architecture of this name" +
      (near ? `; did you mean ${near}?` : ` (known: ${known.join(", ")})`),
  );
}

/** Mean training loss and accuracy of each epoch, and what its last batch says. */
class Epochs {
  readonly ended: Epoch[] = [];
  #losses: number[] = [];
  #accuracies: number[] = [];

  /** The epoch that this batch ends, if it does. */
  add(progress: TrainProgress): Epoch | undefined {
    this.#losses.push(progress.loss);
    if (progress.accuracy !== null) this.#accuracies.push(progress.accuracy);
    if (progress.batch + 1 < progress.batches) return undefined;
    const mean = (values: number[]) =>
      values.length > 0 ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
    const epoch = {
      epoch: progress.epoch + 1,
      loss: mean(this.#losses),
      accuracy: mean(this.#accuracies),
      validation_loss: progress.validation_loss,
      validation_accuracy: progress.validation_accuracy,
      learning_rate: progress.learning_rate,
      seconds: progress.seconds,
      best: progress.best,
    };
    this.#losses = [];
    this.#accuracies = [];
    this.ended.push(epoch);
    return epoch;
  }
}

export async function train(path: string, args: Arguments): Promise<number> {
  const from = dataOf(args);
  const output = text(args, "output");
  if (output === undefined) throw new UsageError("where to? Give -o OUT, for example -o trained.onnx");
  const format = formatOf(output);
  const json = args.values.has("json");
  if (output === "-" && json) throw new UsageError("the model and the JSON cannot both go to stdout: give -o FILE");
  if (output === "-" && process.stdout.isTTY) {
    throw new UsageError("the model would be written to the terminal: give -o FILE, or send stdout to a file");
  }
  const [resume, save] = [text(args, "resume"), text(args, "save")];
  if (resume === "-" || save === "-") throw new UsageError("--save and --resume need a file");
  if (save && sameFile(save, output)) throw new UsageError("--save and -o need two files");
  const bar = progressBar();
  const say = (line: string) => {
    bar?.clear();
    if (!json) (output === "-" ? process.stderr : process.stdout).write(`${line}\n`);
  };
  try {
    const saved = resume === undefined ? undefined : await readInput(resume);
    const { model, beside } = await startOf(path, args, bar);
    const { data, paths } = await openData(from, bar);
    const inputs = [path, ...beside, ...paths, ...((args.values.get("external") ?? []) as string[])];
    refuseToOverwrite([output, save], inputs);
    refuseToOverwrite([output], [resume]); // which --save may well be
    const { options, training } = await withFlags("train", args, async () => {
      const options = await optionsOf(model, data, args, bar);
      const preparation =
        options.preparation ?? (await model.prepare(data, { ...options, onProgress: onProgressOf(bar) }));
      const whole = { ...options, preparation };
      const training = await model.train(data, choiceOf(args), { ...whole, onProgress: onProgressOf(bar) });
      return { options: whole, training };
    });
    if (saved && resume !== undefined) {
      await training.restore(saved).catch((error: unknown) => {
        throw error instanceof NibbleError ? new FileError(resume, error.detail) : error;
      });
    }
    const { epochs, stopped, failure } = await runTraining(training, save, bar, say);
    bar?.clear();
    if (stopped && !training.progress) {
      say("stopped before the first batch; nothing was written");
      return kInterrupted;
    }
    // Within the first epoch, the best weights are those of the start. It may have begun before what was resumed.
    const early = epochs.ended.length === 0 && lastEpoch(training, failure?.error) === 0;
    if (failure && early) throw failure.error;

    const best = await training.model(early ? "current" : "best");
    const file = await best.export(format, { onProgress: onProgressOf(bar) });
    bar?.clear();
    if (output === "-") writeAll(1, file, "stdout");
    else writeWhole(output, file);
    const wrote = `wrote ${output === "-" ? "stdout" : output} (${byteText(file.length)})`;
    if (failure) {
      say(`${wrote}: the weights of the best epoch before the training failed`);
      throw failure.error;
    }
    if (stopped) {
      const which = early ? "stopped in the first epoch, these are its weights" : "stopped, these are the best weights";
      say(`${wrote}: ${which} so far${save ? `; --resume ${save} goes on` : ""}`);
      if (json) print(`${JSON.stringify({ epochs: epochs.ended, stopped, bytes: file.length })}\n`);
      return kInterrupted;
    }
    const results = await finalResults(best, data, options, bar);
    bar?.clear();
    if (json) {
      return print(`${JSON.stringify({ epochs: epochs.ended, stopped, ...results, bytes: file.length })}\n`);
    }
    say("");
    for (const [split, result] of Object.entries(results)) if (result) say(describeSplit(split, result));
    const epoch = epochs.ended.findLast((ended) => ended.best)?.epoch;
    say(`${wrote}${epoch === undefined ? "" : `, the weights of epoch ${epoch}`}`);
    return kOk;
  } finally {
    bar?.clear();
  }
}

/** The epoch, from 0, in which a training ended or failed. Of one that was resumed and failed at once only the error knows. */
function lastEpoch({ progress }: Training, error: unknown): number {
  const named = error instanceof NibbleError ? /^epoch (\d+),/.exec(error.where)?.[1] : undefined;
  return named === undefined ? (progress?.epoch ?? 0) : Number(named) - 1;
}

/** Runs the training to its end, or until an interrupt asks it to stop; a second one ends the program. */
async function runTraining(
  training: Training,
  save: string | undefined,
  bar: ProgressBar | undefined,
  say: (line: string) => void,
): Promise<{ epochs: Epochs; stopped: boolean; failure: { error: unknown } | undefined }> {
  const stop = new AbortController();
  const epochs = new Epochs();
  let failure: { error: unknown } | undefined;
  let saving = Promise.resolve();
  const onInterrupt = () => {
    if (stop.signal.aborted) process.exit(kInterrupted);
    stop.abort();
  };
  const keep = () => {
    if (save === undefined) return;
    saving = saving
      .then(async () => writeWhole(save, await training.save()))
      .catch((error: unknown) => {
        failure ??= { error };
        stop.abort();
      });
  };
  process.on("SIGINT", onInterrupt);
  try {
    say(kEpochHeads);
    await training.run({
      signal: stop.signal,
      onProgress: (progress) => {
        const ended = epochs.add(progress);
        if (ended) {
          say(describeEpoch(ended));
          keep();
        }
        bar?.line(progressLine(progress));
      },
    });
  } catch (error) {
    const early = stop.signal.aborted && error instanceof NibbleError && error.code === "cancelled";
    if (!early) failure ??= { error };
  } finally {
    process.off("SIGINT", onInterrupt);
  }
  if (stop.signal.aborted && training.progress) keep();
  await saving;
  return { epochs, stopped: stop.signal.aborted && !failure, failure };
}

/** The best weights on the split that chose them and on the one that chose nothing; null for a split that is empty. */
async function finalResults(
  model: Model,
  data: Data,
  options: DataOptions,
  bar: ProgressBar | undefined,
): Promise<{ validation: EvaluationReport | null; test: EvaluationReport | null }> {
  const on = async (split: "validation" | "test"): Promise<EvaluationReport | null> => {
    try {
      const result = await model.evaluate(data, { ...options, split, onProgress: onProgressOf(bar) });
      const { samples, classes, loss, accuracy, seconds, preparation } = result;
      return { samples, classes, loss, accuracy, seconds, preparation };
    } catch (error) {
      // Whoever keeps no samples for a split wants no result of it.
      if (options[split] === 0 && error instanceof NibbleError && error.code === "bad-data") return null;
      throw error;
    }
  };
  return { validation: await on("validation"), test: await on("test") };
}
