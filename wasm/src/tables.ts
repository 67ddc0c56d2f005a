// Text for people: aligned tables, byte counts, the progress bar.
import type {
  ByteReport,
  Comparison,
  DataInfo,
  Evaluation,
  EvaluationReport,
  ModelInfo,
  Note,
  Preparation,
  Report,
  TrainProgress,
} from "./types";

type Row = (string | number | null)[];

/** Columns whose head starts with ">" are aligned to the right. */
export function table(heads: string[], rows: Row[]): string {
  const right = heads.map((head) => head.startsWith(">"));
  const text = [
    heads.map((head) => head.replace(/^>/, "")),
    ...rows.map((row) => row.map((cell) => String(cell ?? "-"))),
  ];
  const widths = heads.map((_, column) => Math.max(...text.map((row) => [...(row[column] ?? "")].length)));
  return text
    .map((row) =>
      row
        .map((cell, column) => {
          const fill = " ".repeat((widths[column] ?? 0) - [...cell].length);
          return right[column] ? fill + cell : cell + fill;
        })
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

export function bytes(count: number): string {
  if (count < 1000) return `${count} B`;
  const units = ["KB", "MB", "GB", "TB"];
  let value = count / 1000;
  let unit = 0;
  for (; value >= 999.5 && unit < units.length - 1; unit++) value /= 1000;
  return `${value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0)} ${units[unit]}`;
}

const kNoWeights = "no weights that can be pruned or quantized";

const number = (value: number | null) =>
  value === null ? "-" : value === 0 ? "0" : String(Number(value.toPrecision(4)));
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
const decibels = (value: number | null) => (value === null ? "exact" : value.toFixed(1));
const count = (value: number) => value.toLocaleString("en-US");
const plural = (value: number, word: string) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

export function describeModel(info: ModelInfo): string {
  const made = [
    info.format === "onnx" ? "ONNX" : "safetensors",
    info.opset !== null && `opset ${info.opset}`,
    info.ir_version !== null && `IR version ${info.ir_version}`,
    info.producer && `made by ${info.producer}`,
    info.nodes > 0 && plural(info.nodes, "node"),
  ].filter(Boolean);
  const rows = info.weights.map((weight): Row => {
    const { min, max, std, sparsity } = weight.statistics;
    return [
      weight.name,
      weight.kind,
      weight.shape.join("x"),
      weight.dtype,
      count(weight.elements),
      bytes(weight.bytes),
      number(min),
      number(max),
      number(std),
      percent(sparsity),
    ];
  });
  const heads = ["name", "kind", "shape", "type", ">parameters", ">size", ">min", ">max", ">std", ">zeros"];
  const weightBytes = info.weights.reduce((sum, weight) => sum + weight.bytes, 0);
  return [
    [info.name, made.join(", ")].filter(Boolean).join(": "),
    "",
    rows.length > 0 ? table(heads, rows) : kNoWeights,
    "",
    `${plural(info.weights.length, "weight")}: ${plural(info.weight_parameters, "parameter")}, ${bytes(weightBytes)}; ` +
      `the whole model: ${plural(info.parameters, "parameter")}, file ${bytes(info.file_bytes)}`,
    ...notes(info.notes),
    "",
  ].join("\n");
}

export function describeReport(report: Report): string {
  const rows = report.weights.map((weight): Row => [
    weight.name,
    count(weight.elements),
    bytes(weight.bytes.dense),
    bytes(weight.bytes.file),
    weight.bits,
    percent(weight.after.sparsity),
    decibels(weight.sqnr_db),
    weight.stored,
  ]);
  const heads = ["name", ">parameters", ">before", ">after", ">bits", ">zeros", ">SQNR dB", "stored as"];
  const { file, total } = report;
  const change =
    file.before > 0
      ? `, ${percent(Math.abs(1 - file.after / file.before))} ${file.after > file.before ? "larger" : "smaller"}`
      : "";
  const weightNotes = report.weights.flatMap(({ name, note }) => (note ? [{ where: name, message: note }] : []));
  return [
    rows.length > 0 ? table(heads, rows) : kNoWeights,
    "",
    `file     ${bytes(file.before)} -> ${bytes(file.after)}${change}`,
    `weights  ${bytes(total.bytes.dense)} -> ${bytes(total.bytes.packed)} when packed, ` +
      `${number(total.bits)} bits per weight, ${percent(total.sparsity)} zeros`,
    `error    ${total.sqnr_db === null ? "none" : `SQNR ${decibels(total.sqnr_db)} dB`}, largest ${number(total.max_abs_error)}`,
    ...notes([...report.notes, ...report.steps.flatMap((step) => step.notes), ...weightNotes]),
    "",
  ].join("\n");
}

export function describeBytes(report: ByteReport): string {
  const whole = (value: number | null) => (value === null ? "-" : count(Math.round(value)));
  const rows = report.weights.map((weight): Row => [
    weight.name,
    count(weight.dense),
    count(weight.codes),
    count(weight.scales),
    whole(weight.entropy),
    whole(weight.huffman),
    whole(weight.rans),
    whole(weight.cabac),
    whole(weight.nib),
    weight.cabac === null ? "-" : weight.coder,
  ]);
  const heads = ["name", ">dense", ">codes", ">scales", ">entropy", ">huffman", ">rans", ">cabac", ">in .nib", "coder"];
  const share = (part: number) => percent(part / Math.max(report.file, 1));
  return [
    rows.length > 0 ? table(heads, rows) : kNoWeights,
    "",
    `.nib file  ${count(report.file)} bytes of ${count(report.dense_file)} with all values in full`,
    `           header ${whole(report.header)} (${share(report.header)}), other tensors ${whole(report.others)} ` +
      `(${share(report.others)})`,
    ...(report.weights.some(({ parts }) => parts) ? [`cabac      ${partsOf(report)}`] : []),
    "",
  ].join("\n");
}

/** What the bits of all weights are for. */
function partsOf(report: ByteReport): string {
  const sums = { significance: 0, sign: 0, magnitude: 0, remainder: 0 };
  for (const { parts } of report.weights) {
    for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += parts?.[name] ?? 0;
  }
  const all = Object.values(sums).reduce((sum, part) => sum + part, 0);
  return Object.entries(sums)
    .map(([name, part]) => `${name} ${percent(part / Math.max(all, 1))}`)
    .join(", ");
}

/** Each note once, those with one text together. */
function notes(all: Note[]): string[] {
  const places = new Map<string, string[]>();
  for (const { where, message } of all) {
    const known = places.get(message) ?? [];
    if (where && !known.includes(where)) known.push(where);
    places.set(message, known);
  }
  const lines = [...places].map(([message, where]) => {
    const shown = where.slice(0, 3).join(", ") + (where.length > 3 ? ` and ${where.length - 3} more` : "");
    return `note: ${shown ? `${shown}: ` : ""}${message}`;
  });
  return lines.length > 0 ? ["", ...lines] : [];
}

// --- Running ---------------------------------------------------------------------------------------------------------

/** Classes whose accuracies are listed, and whose confusion is drawn as a matrix. */
const kListedClasses = 40;
const kMatrixClasses = 12;
/** Confusions that are listed where there is no matrix. */
const kListedConfusions = 10;

/** An accuracy: percent with two digits, for thousands of samples. */
const accuracyText = (share: number | null) => (share === null ? "-" : `${(100 * share).toFixed(2)} %`);
const lossText = (loss: number | null) => (loss === null ? "-" : loss.toPrecision(4));
const speedText = ({ samples, seconds }: EvaluationReport) =>
  seconds > 0 ? count(Math.round(samples / seconds)) : "-";
const className = (info: DataInfo, index: number) => info.class_names[index] ?? String(index);

function preparationText({ shape, layout, scale, mean, std }: Preparation): string {
  const scaled = scale === 1 ? "stored" : `stored * ${number(scale)}`;
  const list = (values: number[]) => (values.length === 1 ? number(values[0]!) : `[${values.map(number).join(", ")}]`);
  const plain = mean.every((x) => x === 0) && std.every((x) => x === 1);
  return `[${shape.join(", ")}] ${layout}, ${plain ? scaled : `(${scaled} - ${list(mean)}) / ${list(std)}`}`;
}

export function describeEvaluation(result: Evaluation, info: DataInfo, split: string): string {
  const { accuracy, samples, seconds, preparation } = result;
  const right = accuracy === null ? "" : ` (${count(Math.round(accuracy * samples))} of ${count(samples)})`;
  const lines = [
    `data      ${info.name}, ${split === "all" ? "all" : `split ${split}`}: ${plural(samples, "sample")}`,
    ...(accuracy === null ? [] : [`accuracy  ${accuracyText(accuracy)}${right}`]),
    ...(result.loss === null ? [] : [`loss      ${lossText(result.loss)}`]),
    `speed     ${speedText(result)} samples per second (${number(seconds)} s in the model)`,
    `input     ${preparationText(preparation)}`,
    `          ${preparation.reason}`,
  ];
  if (result.confusion.length > 0) lines.push("", ...describeClasses(result, info));
  return `${lines.join("\n")}\n`;
}

/** Accuracy of each class, and which classes are taken for which. */
function describeClasses({ classes, confusion }: Evaluation, info: DataInfo): string[] {
  const cell = (label: number, predicted: number) => confusion[label * classes + predicted] ?? 0;
  const all = Array.from({ length: classes }, (_, index) => index);
  const total = (label: number) => all.reduce((sum, predicted) => sum + cell(label, predicted), 0);
  const share = (label: number) => cell(label, label) / total(label);
  const seen = all.filter((label) => total(label) > 0);
  const listed =
    seen.length <= kListedClasses ? seen : seen.sort((a, b) => share(a) - share(b)).slice(0, kListedClasses);
  const lines = [];
  if (classes <= kMatrixClasses) {
    const heads = ["class", ">samples", ">accuracy", ...all.map((label) => `>${className(info, label)}`)];
    const rows = listed.map((label): Row => [
      className(info, label),
      count(total(label)),
      accuracyText(share(label)),
      ...all.map((predicted) => (cell(label, predicted) > 0 ? count(cell(label, predicted)) : ".")),
    ]);
    return [table(heads, rows), "", "The columns of classes count what the samples of a row were taken for."];
  }
  lines.push(
    ...(listed.length < seen.length ? [`The ${listed.length} worst of ${seen.length} classes:`] : []),
    table(
      ["class", ">samples", ">accuracy"],
      listed.map((label): Row => [className(info, label), count(total(label)), accuracyText(share(label))]),
    ),
  );
  const wrong = all
    .flatMap((label) => all.map((predicted) => ({ label, predicted, times: cell(label, predicted) })))
    .filter(({ label, predicted, times }) => label !== predicted && times > 0)
    .sort((a, b) => b.times - a.times)
    .slice(0, kListedConfusions);
  if (wrong.length > 0) {
    const rows = wrong.map(({ label, predicted, times }): Row => [
      className(info, label),
      className(info, predicted),
      count(times),
    ]);
    lines.push("", "Most frequent mistakes:", table(["class", "taken for", ">times"], rows));
  }
  return lines;
}

/** A sample whose predicted class differs between two models. */
export interface Flip {
  index: number;
  label: number | undefined;
  before: number;
  after: number;
}

export function describeComparison(result: Comparison, info: DataInfo, split: string, flips: Flip[]): string {
  const { before, after, agreement, flipped, activations } = result;
  const rows: Row[] = [
    ["accuracy", accuracyText(before.accuracy), accuracyText(after.accuracy)],
    ["loss", lossText(before.loss), lossText(after.loss)],
    ["samples per second", speedText(before), speedText(after)],
  ];
  const lines = [
    `data   ${info.name}, ${split === "all" ? "all" : `split ${split}`}: ${plural(before.samples, "sample")}`,
    `input  ${preparationText(before.preparation)}`,
    `       ${before.preparation.reason}`,
    "",
    table(["", ">before", ">after"], rows),
  ];
  if (agreement !== null) {
    lines.push(
      "",
      `The predictions agree on ${accuracyText(agreement)}; ${plural(flipped.length, "sample")} changed${flipped.length > 0 ? ":" : "."}`,
    );
    if (flips.length > 0) {
      const shown = flips.map(({ index, label, before, after }): Row => [
        index,
        label === undefined ? "-" : className(info, label),
        className(info, before),
        className(info, after),
      ]);
      lines.push(table([">sample", "class", "before", "after"], shown));
      if (flipped.length > flips.length) lines.push(`and ${count(flipped.length - flips.length)} more`);
    }
  }
  if (activations.length > 0) {
    const shown = activations.map(({ name, op, shape, sqnr_db, cosine, max_abs_error }): Row => [
      name,
      op,
      shape.join("x"),
      decibels(sqnr_db),
      cosine === null ? "-" : cosine.toFixed(5),
      number(max_abs_error),
    ]);
    lines.push("", table(["value", "made by", "shape", ">SQNR dB", ">cosine", ">largest error"], shown));
  }
  return `${lines.join("\n")}\n`;
}

/** An epoch that has ended; losses and accuracies are means over its batches. */
export interface Epoch {
  epoch: number;
  loss: number | null;
  accuracy: number | null;
  validation_loss: number | null;
  validation_accuracy: number | null;
  learning_rate: number;
  seconds: number;
  best: boolean;
}

const kEpochWidths = [5, 9, 9, 10, 9, 9, 8];
const epochRow = (cells: string[]) => cells.map((cell, index) => cell.padStart(kEpochWidths[index] ?? 0)).join("  ");

/** Written line by line as epochs end, so the widths are set beforehand. */
export const kEpochHeads = epochRow(["epoch", "loss", "accuracy", "validation", "accuracy", "rate", "time"]);

export const describeEpoch = (epoch: Epoch) =>
  epochRow([
    String(epoch.epoch),
    lossText(epoch.loss),
    accuracyText(epoch.accuracy),
    lossText(epoch.validation_loss),
    accuracyText(epoch.validation_accuracy),
    number(epoch.learning_rate),
    duration(epoch.seconds),
  ]) + (epoch.best ? "  best" : "");

export function describeSplit(split: string, { samples, loss, accuracy }: EvaluationReport): string {
  const parts = [loss !== null && `loss ${lossText(loss)}`, accuracy !== null && `accuracy ${accuracyText(accuracy)}`];
  return `${split.padEnd(10)}  ${parts.filter(Boolean).join(", ")} (${plural(samples, "sample")})`;
}

export function progressLine({
  epoch,
  epochs,
  batch,
  batches,
  step,
  steps,
  loss,
  accuracy,
  seconds,
}: TrainProgress): string {
  const left = step > 0 ? (seconds / step) * (steps - step) : 0;
  return [
    `epoch ${epoch + 1}/${epochs}`,
    `batch ${batch + 1}/${batches}`,
    `loss ${lossText(loss)}`,
    ...(accuracy === null ? [] : [`accuracy ${percent(accuracy)}`]),
    `${duration(left)} left`,
  ].join("  ");
}

/** "0:07", "12:30", "1:02:03". */
function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value: number) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** One line that is written over and over; only for terminals. */
export class ProgressBar {
  #shown = false;
  constructor(readonly stream: NodeJS.WriteStream) {}

  show(phase: string, item: string, fraction: number): void {
    const filled = Math.round(20 * Math.min(1, Math.max(0, fraction)));
    const bar = "=".repeat(filled).padEnd(20);
    this.line(`[${bar}] ${String(Math.round(100 * fraction)).padStart(3)} %  ${phase} ${item}`);
  }

  line(text: string): void {
    const width = Math.max(20, (this.stream.columns || 80) - 1);
    this.stream.write(`\r${text.slice(0, width)}\x1b[K`);
    this.#shown = true;
  }

  clear(): void {
    if (this.#shown) this.stream.write("\r\x1b[K");
    this.#shown = false;
  }
}
