// The byte meter: what every coder makes of the same levels, of one layer or of the whole model, and where in a layer the
// bits go. Estimated at once, then counted.
import type { WeightBytes } from "nibble-nn";
import type { ComponentChildren } from "preact";
import * as actions from "../actions";
import { causesOfBytes } from "../causes";
import { bits, bytes, percent } from "../format";
import { meter, work, type Compressed, type Layer } from "../state";
import { t } from "../words";
import { ByteBars, type ByteRow } from "./byte_bars";
import { Causes } from "./causes_list";
import { LessonButton } from "./controls";

const PARTS = ["significance", "sign", "magnitude", "remainder"] as const;

/** Bars of what coders make of levels. Compressors that are not there or not yet asked are left out. */
function rowsOf(of: Omit<WeightBytes, "name" | "parts" | "coder">, compressed: Compressed | null): ByteRow[] {
  const rows: ByteRow[] = [];
  const add = (label: string, value: number | null | undefined, kind: ByteRow["kind"], hint = ""): void => {
    if (value !== null && value !== undefined) rows.push({ label, hint, bytes: value, kind });
  };
  add(t("bytesPacked"), of.codes, "packed", of.scales > 0 ? `+ ${bytes(of.scales)} ${t("meterScales")}` : "");
  add(t("meterGzip"), compressed?.gzip, "before");
  add(t("meterBrotli"), compressed?.brotli, "before");
  const index = of.huffman_index ? t("meterIndexHint", { bytes: bytes(of.huffman_index) }) : "";
  add(t("meterHuffman"), of.huffman, "before", index);
  add(t("meterRans"), of.rans, "before", t("meterRansHint"));
  add(t("meterEntropy"), of.entropy, "rest", t("meterEntropyHint"));
  add(t("meterCabac"), of.cabac, "after", t("meterCabacHint"));
  return rows;
}

function Frame({ title, children }: { title: ComponentChildren; children: ComponentChildren }) {
  const now = meter.value!;
  const counted = now.compressed !== null;
  return (
    <section class="card byte-meter" aria-label={t("meterTitle")}>
      <div class="meter-head">
        <h3>
          {title} <small data-testid="meter-state">{t(counted ? "meterCounted" : "meterEstimated")}</small>
        </h3>
        <LessonButton control="byte_meter" what={t("meterTitle")} />
        {!counted && (
          <button type="button" class="quiet" disabled={work.value !== null} onClick={() => void actions.countBytes()}>
            {t("meterCount")}
          </button>
        )}
      </div>
      {children}
    </section>
  );
}

/** Of the selected layer. */
export function LayerMeter({ current }: { current: Layer }) {
  const now = meter.value;
  const of = current.bytes;
  if (!now || !of) return null;
  const nib: ByteRow = {
    label: t("meterNib"),
    hint: of.entropy === null ? "" : t("meterNibLayer", { coder: t(`coder.${of.coder}`) }),
    bytes: of.nib,
    kind: "after",
  };
  return (
    <Frame title={t("meterTitle")}>
      {of.entropy === null && <p class="hint">{t("meterFloat")}</p>}
      <ByteBars rows={[...rowsOf(of, now.compressed?.get(of.name) ?? null), nib]} />
      {of.parts && <Parts parts={of.parts} elements={current.info.elements} />}
      <Causes causes={causesOfBytes(of, current.info.elements)} />
    </Frame>
  );
}

/** One bar, cut where the bits go. */
function Parts({ parts, elements }: { parts: NonNullable<WeightBytes["parts"]>; elements: number }) {
  const all = PARTS.reduce((sum, part) => sum + parts[part], 0) || 1;
  const each = (part: (typeof PARTS)[number]): string => bits((parts[part] * 8) / (elements || 1));
  return (
    <figure class="parts">
      <figcaption class="hint">{t("meterParts")}</figcaption>
      <div class="parts-bar" aria-hidden="true">
        {PARTS.map((part) => (
          <span key={part} class={`part ${part}`} style={{ width: `${(parts[part] / all) * 100}%` }} />
        ))}
      </div>
      <ul>
        {PARTS.map((part) => (
          <li key={part} class={`key part ${part}`}>
            {t(`part.${part}`)} {percent(parts[part] / all)}{" "}
            <span class="hint">{t("partBits", { bits: each(part) })}</span>
          </li>
        ))}
      </ul>
    </figure>
  );
}

/** Of all weights that have levels together, and the whole file. */
export function TotalMeter() {
  const now = meter.value;
  if (!now || now.bytes.weights.length === 0) return null;
  const { weights, file, header, others } = now.bytes;
  const coded = weights.filter(({ entropy }) => entropy !== null);
  const sum = (key: "codes" | "scales" | "entropy" | "huffman" | "huffman_index" | "rans" | "cabac"): number =>
    coded.reduce((total, weight) => total + (weight[key] ?? 0), 0);
  const total = {
    dense: 0,
    nib: 0,
    codes: sum("codes"),
    scales: sum("scales"),
    entropy: sum("entropy"),
    huffman: sum("huffman"),
    huffman_index: sum("huffman_index"),
    rans: sum("rans"),
    cabac: sum("cabac"),
  };
  const sizes = now.compressed && coded.map(({ name }) => now.compressed!.get(name)!);
  const known = (key: keyof Compressed): number | null =>
    sizes?.every((size) => size?.[key] !== null) ? sizes.reduce((all, size) => all + size[key]!, 0) : null;
  const compressed = sizes && { gzip: known("gzip"), brotli: known("brotli") };
  const hint = t("meterNibTotal", { header: bytes(header), others: bytes(others) });
  return (
    <Frame title={t("meterTitle")}>
      <p class="hint">{t("meterHint")}</p>
      <ByteBars
        rows={[
          ...(coded.length > 0 ? rowsOf(total, compressed) : []),
          { label: t("meterFile"), hint, bytes: file, kind: "after" },
        ]}
      />
      {coded.length > 0 && coded.length < weights.length && (
        <p class="hint">{t("meterSome", { n: coded.length, all: weights.length })}</p>
      )}
    </Frame>
  );
}
