// Text for people: aligned tables, byte counts, the progress bar.
import type { ModelInfo, Note, Report } from "./types";

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
  const units = ["kB", "MB", "GB", "TB"];
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

/** One line that is written over and over; only for terminals. */
export class ProgressBar {
  #shown = false;
  constructor(readonly stream: NodeJS.WriteStream) {}

  show(phase: string, item: string, fraction: number): void {
    const width = Math.max(20, (this.stream.columns || 80) - 1);
    const filled = Math.round(20 * Math.min(1, Math.max(0, fraction)));
    const bar = "=".repeat(filled).padEnd(20);
    const line = `[${bar}] ${String(Math.round(100 * fraction)).padStart(3)} %  ${phase} ${item}`;
    this.stream.write(`\r${line.slice(0, width)}\x1b[K`);
    this.#shown = true;
  }

  clear(): void {
    if (this.#shown) this.stream.write("\r\x1b[K");
    this.#shown = false;
  }
}
