// One sentence for the cause behind a number. Each is a claim about the report, so each is worked out from it.
import type { ModelInfo, Report, WeightBytes, WeightInfo, WeightReport } from "nibble-nn";
import { bits, bytes, count, percent } from "./format";
import { t } from "./words";

export interface Cause {
  text: string;
  /** "cost": something the user may want to change; "fact": good to know. */
  kind: "cost" | "fact";
}

const WIDE = 3; // how many times wider than the median a channel is before it is worth a sentence

const suffix = (format: Report["file"]["format"]): string => `.${format}`;

/** `widths`: largest magnitude of each output channel before, if known. `on`: whether the recipe may change the layer. */
export function causesOfLayer(
  info: WeightInfo,
  report: WeightReport,
  on: boolean,
  format: ModelInfo["format"],
  widths: Float32Array | null,
): Cause[] {
  const causes: Cause[] = [];
  const cost = (text: string): void => void causes.push({ kind: "cost", text });
  const fact = (text: string): void => void causes.push({ kind: "fact", text });
  const quantized = report.granularity !== null;

  const broken = info.statistics.nan + info.statistics.infinite;
  if (broken > 0) cost(t("causeBroken", { n: count(broken) }));
  if (report.elements > 0 && report.after.sparsity === 1 && report.before.sparsity < 1) cost(t("causeLost"));
  if (!on) fact(t("causeExcluded"));
  else if (report.sqnr_db === null) fact(t("causeExact"));
  else {
    const text = t("causeError", { percent: percent(10 ** (-report.sqnr_db / 20)) });
    if (report.sqnr_db < 20) cost(text);
    else fact(text);
  }

  const wide = widths && widest(widths);
  if (quantized && wide && wide.times >= WIDE) {
    const places = { n: wide.channel, times: count(wide.times) };
    if (report.granularity === "tensor" || report.granularity === "global") cost(t("causeWide", places));
    else fact(t("causeWideOwn", places));
  }
  if (quantized) {
    const places = { bits: report.bits, stored: report.stored, packed: bytes(report.bytes.packed) };
    const width = /\d+/.exec(report.stored);
    if (report.stored.includes("float") && report.note)
      cost(t("causeFloat", { ...places, why: report.note.replace(/^stored as \w+: /, "").replace(/[.]$/, "") }));
    else if (report.stored.includes("float")) cost(t("causeFloatPlain", places));
    else if (width && Number(width[0]) > report.bits) fact(t("causeWider", places));
    const codes = Math.ceil((report.elements * report.bits) / 8);
    const overhead = (report.bytes.packed - codes) / report.bytes.packed;
    if (overhead >= 0.05) fact(t("causeScales", { n: count(report.scales), percent: percent(overhead) }));
  }
  if (report.clusters !== null && report.stored.includes("float"))
    fact(t("causeClusters", { stored: report.stored, format: suffix(format), bits: report.bits }));
  if (report.after.sparsity > report.before.sparsity && report.after.sparsity >= 0.05) {
    fact(t("causeZeros", { percent: percent(report.after.sparsity), format: suffix(format) }));
  }
  return causes;
}

/** Sentences about what coding makes of a weight. */
export function causesOfBytes(of: WeightBytes, elements: number): Cause[] {
  const causes: Cause[] = [];
  if (of.entropy === null || of.cabac === null || elements === 0) return causes;
  const each = (of.entropy * 8) / elements;
  if (each < 1) causes.push({ kind: "fact", text: t("causeBelowOne", { bits: bits(each) }) });
  const saved = 1 - of.cabac / of.entropy;
  if (saved >= 0.02) causes.push({ kind: "fact", text: t("causeNeighbours", { percent: percent(saved) }) });
  if (of.parts) {
    const parts = Object.entries(of.parts) as [keyof typeof of.parts, number][];
    const all = parts.reduce((sum, [, value]) => sum + value, 0);
    const [name, most] = parts.reduce((best, part) => (part[1] > best[1] ? part : best));
    if (most > all / 2) {
      const places = { part: t(`part.${name}`), percent: percent(most / all), bytes: bytes(all) };
      causes.push({ kind: "fact", text: t("causePart", places) });
    }
  }
  return causes;
}

/** The channel with the largest magnitude, and how many times that of the median channel it is. */
function widest(widths: Float32Array): { channel: number; times: number } | null {
  if (widths.length < 3) return null;
  const median = Float32Array.from(widths).sort()[widths.length >> 1];
  let channel = 0;
  for (let i = 1; i < widths.length; i++) if (widths[i] > widths[channel]) channel = i;
  return median > 0 ? { channel, times: widths[channel] / median } : null;
}

/** Sentences about the whole file. */
export function causesOfFile(report: Report): Cause[] {
  const { before, after, format } = report.file;
  const quantized = report.weights.filter(({ granularity }) => granularity !== null);
  if (quantized.length === 0) {
    const unchanged = after < before * 0.995 || report.total.sqnr_db === null;
    return unchanged ? aboutRest(report) : [{ kind: "cost", text: t("causeSameFloat") }];
  }
  if (quantized.every(({ stored }) => stored.includes("float"))) {
    const packed = bytes(report.total.bytes.packed);
    const why = new Set(quantized.map(({ note }) => note));
    const note = why.size === 1 ? [...why][0] : null;
    return [
      { kind: "cost", text: t("causeAllFloat", { format: suffix(format), packed }) + (note ? ` (${note})` : "") },
    ];
  }
  if (after > before) return [{ kind: "cost", text: t("causeLarger") }];
  return aboutRest(report);
}

function aboutRest(report: Report): Cause[] {
  const rest = restOf(report);
  return report.weights.length > 0 && rest > report.file.after / 4
    ? [{ kind: "fact", text: t("causeRest", { rest: bytes(rest) }) }]
    : [];
}

/** Bytes of the file after that are not weights. */
export const restOf = (report: Report): number =>
  Math.max(0, report.file.after - report.weights.reduce((sum, weight) => sum + weight.bytes.file, 0));
