// What the data are and where they come from, with ways to other data, and how they are given to the model.
import { useRef, useState } from "preact/hooks";
import type { Preparation } from "nibble-nn";
import { count, real, shape } from "../format";
import { MOST_SAMPLES } from "../recipe";
import { hasData } from "../state";
import { IconButton } from "../views/controls";
import { CloseIcon, FolderIcon } from "../views/icons";
import * as actions from "./actions";
import { inLayout, LAYOUTS, numbersOf } from "./preparation";
import { data, preparation, reading, type Given } from "./state";
import { tb } from "./words";

export function DataStrip() {
  const now = data.value;
  return (
    <section class="card data-strip" aria-label={tb("data")} data-testid="data" data-samples={now?.info.samples}>
      <div class="data-row">
        <h2>{tb("data")}</h2>
        {now && now.source.kind !== "files" && <Numbers source={now.source} />}
        {now ? (
          <p class="data-facts">
            {now.source.kind === "files" && <strong title={sourceName(now)}>{sourceName(now)}</strong>}
            <span class="hint">{factsOf(now)}</span>
          </p>
        ) : (
          <p class="data-facts hint">{reading.value ? tb("reading") : tb("noData")}</p>
        )}
        <div class="data-ways">
          {now?.source.kind !== "digits" && (
            <button type="button" onClick={() => actions.makeData({ kind: "digits", seed: 1, n: 2000 })}>
              {tb("digits")}
            </button>
          )}
          <Pick folder={false} />
          <Pick folder />
          {hasData.value && (
            <IconButton label={tb("removeData")} onClick={actions.removeData}>
              <CloseIcon />
            </IconButton>
          )}
        </div>
      </div>
      {now && (
        <details>
          <summary>{tb("dataDetails")}</summary>
          <div class="data-details">
            <Splits given={now} />
            {preparation.value && <PreparationForm now={preparation.value} />}
            <p class="hint">{tb("pickHint")}</p>
          </div>
        </details>
      )}
    </section>
  );
}

const sourceName = ({ source, info }: Given): string =>
  source.kind === "files" && source.names.length === 1 ? source.names[0] : info.name;

function factsOf({ info }: Given): string {
  const kind = info.labelled
    ? tb("classesCount", { n: count(info.classes) })
    : info.targets > 0
      ? tb("targetsCount", { n: count(info.targets) })
      : tb("unlabelled");
  const size = info.layout === "features" ? tb("featuresCount", { n: count(info.shape[0]) }) : shape(info.shape);
  return [tb("samplesCount", { n: count(info.samples) }), size, kind].join(" · ");
}

/** Seed and number of data that are made here. */
function Numbers({ source }: { source: Exclude<Given["source"], { kind: "files" }> }) {
  const set = (fields: Partial<typeof source>): void => {
    const { kind, seed, n } = { ...source, ...fields };
    if (Number.isSafeInteger(seed) && seed >= 0 && Number.isInteger(n) && n >= 20 && n <= MOST_SAMPLES)
      actions.makeData({ kind, seed, n });
  };
  return (
    <div class="data-numbers">
      <select
        aria-label={tb("dataKind")}
        data-control="data_kind"
        value={source.kind}
        onChange={(event) => set({ kind: event.currentTarget.value as typeof source.kind })}
      >
        {(["digits", "linear"] as const).map((kind) => (
          <option key={kind} value={kind}>
            {tb(`source.${kind}`)}
          </option>
        ))}
      </select>
      <label>
        {tb("dataSeed")}
        <input
          type="number"
          min={0}
          step={1}
          data-control="data_seed"
          value={source.seed}
          onChange={(event) => set({ seed: event.currentTarget.valueAsNumber })}
        />
      </label>
      <label>
        {tb("dataNumber")}
        <input
          type="number"
          min={20}
          max={MOST_SAMPLES}
          step={20}
          data-control="data_n"
          value={source.n}
          onChange={(event) => set({ n: event.currentTarget.valueAsNumber })}
        />
      </label>
    </div>
  );
}

function Pick({ folder }: { folder: boolean }) {
  const input = useRef<HTMLInputElement>(null);
  const name = tb(folder ? "pickFolder" : "pickFiles");
  return (
    <>
      <button type="button" title={tb("pickHint")} onClick={() => input.current?.click()}>
        <FolderIcon />
        {name}
      </button>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        aria-label={name}
        data-control={folder ? "data_folder" : "data_files"}
        {...(folder && { webkitdirectory: true })}
        onChange={(event) => {
          const files = [...(event.currentTarget.files ?? [])];
          event.currentTarget.value = "";
          void actions.openData(files);
        }}
      />
    </>
  );
}

const SPLITS = ["training", "validation", "test", "calibration"] as const;

function Splits({ given: { info } }: { given: Given }) {
  const whole = info.splits.training + info.splits.validation + info.splits.test || 1;
  return (
    <div>
      <h3>{tb("splits")}</h3>
      <div class="split-bar" aria-hidden="true">
        {SPLITS.slice(0, 3).map((name) => (
          <span key={name} class={name} style={{ flexGrow: info.splits[name] / whole }} />
        ))}
      </div>
      <dl class="split-list">
        {SPLITS.map((name) => (
          <div key={name} class={name}>
            <dt>{tb(`split.${name}`)}</dt>
            <dd>{count(info.splits[name])}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

function PreparationForm({ now }: { now: Preparation }) {
  const [wrong, setWrong] = useState(false);
  const read = (text: string, use: (numbers: number[]) => Partial<Preparation> | null): void => {
    const numbers = numbersOf(text);
    const fields = numbers && use(numbers);
    setWrong(!fields);
    if (fields) actions.setPreparation(fields);
  };
  const list = (numbers: number[]): string => numbers.map((value) => Number(value.toPrecision(6))).join(", ");
  return (
    <div>
      <h3>{tb("preparation")}</h3>
      <p class="hint">
        {tb("preparationFormula")} → {shape(now.shape)}
      </p>
      <p class="hint reason">{now.reason ? <span lang="en">{now.reason}</span> : tb("yourPreparation")}</p>
      <div class="data-numbers">
        <label>
          {tb("scale")}
          <input
            type="text"
            inputMode="decimal"
            data-control="scale"
            value={list([now.scale])}
            title={real(now.scale)}
            onChange={(event) => read(event.currentTarget.value, ([scale]) => (scale !== 0 ? { scale } : null))}
          />
        </label>
        <label>
          {tb("mean")}
          <input
            type="text"
            inputMode="decimal"
            data-control="mean"
            value={list(now.mean)}
            onChange={(event) => read(event.currentTarget.value, (mean) => ({ mean }))}
          />
        </label>
        <label>
          {tb("std")}
          <input
            type="text"
            inputMode="decimal"
            data-control="std"
            value={list(now.std)}
            onChange={(event) =>
              read(event.currentTarget.value, (std) => (std.every((value) => value !== 0) ? { std } : null))
            }
          />
        </label>
        <label>
          {tb("layout")}
          <select
            value={now.layout}
            data-control="layout"
            onChange={(event) => {
              const layout = event.currentTarget.value as Preparation["layout"];
              actions.setPreparation({ layout, shape: inLayout(now, layout) });
            }}
          >
            {LAYOUTS.map((layout) => (
              <option key={layout} value={layout}>
                {tb(`layout.${layout}`)}
              </option>
            ))}
          </select>
        </label>
        <button type="button" onClick={() => actions.setPreparation(null)}>
          {tb("guessAgain")}
        </button>
      </div>
      <p class="hint" role="status">
        {wrong && tb("badNumbers")}
      </p>
    </div>
  );
}
