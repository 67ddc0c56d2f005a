// The number that matters: what the download weighs, with the button beside it.
import * as actions from "../actions";
import { behaviour } from "../behaviour_link";
import { causesOfFile, restOf } from "../causes";
import { bits as bitsText, bytes, bytesParts, count, percent } from "../format";
import { accuracyComes, inFile, meter, opened, running, shown, stale, trouble, untrained, work } from "../state";
import { t } from "../words";
import { ByteBars } from "./byte_bars";
import { Causes } from "./causes_list";
import { DownloadIcon } from "./icons";

export function Result() {
  const now = shown.value;
  const file = now?.report.file;
  // Before the first run the file is what was opened.
  const [number, unit] = file ? bytesParts(file.after) : ["–", ""];
  const share = file ? file.after / file.before : 1;
  const failed = stale.value && trouble.value?.code === "bad-recipe";
  const outdated = failed || (stale.value && work.value !== null);
  return (
    <section class={`card result ${outdated ? "outdated" : ""}`} aria-label={t("yourFile")} aria-busy={running.value}>
      <div class="result-top">
        <div>
          <h2 id="size-label">{t("yourFile")}</h2>
          <p class="big" aria-labelledby="size-label" data-testid="size" data-bytes={file?.after}>
            {number}
            <span class="unit">{unit}</span>
          </p>
        </div>
        <button
          type="button"
          class="primary"
          data-testid="download"
          disabled={!opened.value || !file}
          onClick={() => void actions.download()}
        >
          <DownloadIcon />
          {t("download")}
        </button>
      </div>
      <div class="meter" aria-hidden="true">
        <span style={{ width: `${Math.min(1, share) * 100}%` }} />
      </div>
      <p class="of-before" data-testid="share">
        {file ? (
          <>
            <span>{t("ofBefore", { percent: percent(share), before: bytes(file.before) })}</span>
            <span>
              {share > 1
                ? t("larger")
                : 1 / share < 1.05
                  ? t("sameSize")
                  : t("smaller", { times: (1 / share).toFixed(1) })}
            </span>
          </>
        ) : (
          !trouble.value && t("working")
        )}
      </p>
      <Coded before={file?.before} />
      {/* Its place is kept from the start, so that accuracy, which comes later, pushes no slider away. */}
      {accuracyComes.value && <div class="headline-place">{behaviour.value && <behaviour.value.Headline />}</div>}
      {failed && <p class="hint">{t("outdated")}</p>}
      {untrained.value && <p class="hint">{t("untrained")}</p>}
      {now && <Causes causes={causesOfFile(now.report).filter(({ kind }) => kind === "cost")} />}
    </section>
  );
}

/** The entropy-coded form of the same result, with its own download. Its place is kept while it is measured. */
function Coded({ before }: { before: number | undefined }) {
  const now = meter.value;
  const size = now?.bytes.file;
  return (
    <div class="coded">
      <p>
        <span class="hint">{t("nibSize")}</span>
        <strong data-testid="nib-size" data-bytes={size} data-counted={now ? now.compressed !== null : undefined}>
          {size === undefined ? "–" : `${now!.compressed ? "" : "≈ "}${bytes(size)}`}
        </strong>
        {size !== undefined && before !== undefined && size < before / 1.05 && (
          <span class="hint">{t("smaller", { times: (before / size).toFixed(1) })}</span>
        )}
      </p>
      <button type="button" data-testid="download-nib" disabled={!now} onClick={() => void actions.download("nib")}>
        <DownloadIcon />
        .nib
        <span class="sr">{t("downloadNib")}</span>
      </button>
    </div>
  );
}

/** Where the bytes of the whole model go. */
export function TotalBytes() {
  const report = shown.value?.report;
  if (!report || report.weights.length === 0) return null;
  const { total, weights } = report;
  const quantized = weights.some(({ granularity }) => granularity !== null);
  return (
    <section class="card" aria-label={t("bytesTitle")}>
      <h2>
        {t("bytesTitle")} <small>{t("ofAll")}</small>
      </h2>
      <ByteBars
        rows={[
          { label: t("bytesDense"), hint: t("bytesDenseHint"), bytes: total.bytes.dense, kind: "before" },
          {
            label: t("bytesPacked"),
            hint: quantized ? t("bytesPackedHint", { bits: bitsText(total.bits) }) : t("bytesPackedNone"),
            bytes: total.bytes.packed,
            kind: "packed",
          },
          { label: t("bytesFile"), hint: t("bytesFileMixed"), bytes: inFile.value, kind: "after" },
          { label: t("bytesRest"), hint: t("bytesRestHint"), bytes: restOf(report), kind: "rest" },
        ]}
      />
      {/* Not beside the big number: there it would come and go, and push a slider from under the pointer. */}
      <Causes causes={causesOfFile(report).filter(({ kind }) => kind === "fact")} />
    </section>
  );
}

/** What the engine has to say about the model and the run. */
export function Notes() {
  const notes = [
    ...(opened.value?.info.notes ?? []),
    ...(shown.value?.report.notes ?? []),
    ...(shown.value?.report.steps.flatMap((step) => step.notes) ?? []),
  ];
  if (notes.length === 0) return null;
  return (
    <details class="card notes">
      <summary>
        {t("notes")} <small>{count(notes.length)}</small>
      </summary>
      <ul lang="en">
        {notes.map(({ where, message }, i) => (
          <li key={i}>
            {where && <strong>{where}</strong>} {message}
          </li>
        ))}
      </ul>
    </details>
  );
}
