// How the error grows from layer to layer, and what one layer makes of one sample, before and after.
import { useCallback, useState } from "preact/hooks";
import { colors } from "../charts/colors";
import { drawDepth, layerAt, middleOf, type Depth } from "../charts/depth";
import { drawTiles, drawVector, gridOf, layoutOf, MOST_TILES } from "../charts/tiles";
import { count, decibels, real, shape } from "../format";
import { dark, shown } from "../state";
import { Canvas } from "../views/canvas";
import { ChartCard } from "../views/chart_card";
import { IconButton } from "../views/controls";
import { LeftIcon, RightIcon } from "../views/icons";
import { selectValue } from "./actions";
import { nameOf, weightsOf } from "./causes";
import { className, Missing, Picture, Problem } from "./parts";
import { compared, data, maps, sampleAt, valueName, type Compared, type Maps } from "./state";
import { tb } from "./words";

export function ActivationsView() {
  const now = compared.value;
  const missing = Missing({});
  if (missing) return missing;
  if (!now) {
    return (
      <div class="layer-view">
        <Problem />
        <p class="card hint">{tb("comparing")}</p>
      </div>
    );
  }
  return (
    <div class="layer-view">
      <Problem />
      <Through now={now} />
      <OneSample now={now} />
    </div>
  );
}

const text = (value: number | null): string => (value === null ? tb("exact") : decibels(value));

function Through({ now }: { now: Compared }) {
  const [at, setAt] = useState<{ index: number; width: number } | null>(null);
  const list = now.activations;
  const report = shown.value?.report;
  const n = list.length;
  const weights = list.map((activation) => (report ? weightsOf(activation, report) : null));
  const depth: Depth = {
    activations: list.map(({ sqnr_db }) => sqnr_db),
    weights,
    names: list.map((activation) => (activation.weights.length > 0 ? nameOf(activation).replace(/\.weight$/, "") : "")),
  };
  const chosen = list.findIndex(({ name }) => name === valueName.value);
  const draw = useCallback(
    (context: CanvasRenderingContext2D, width: number, height: number) =>
      drawDepth(context, width, height, depth, colors(), chosen < 0 ? null : chosen, at?.index ?? null),
    [now, report, chosen, at],
  );
  let low = -1;
  list.forEach(({ sqnr_db }, i) => {
    if (sqnr_db !== null && (low < 0 || sqnr_db < list[low].sqnr_db!)) low = i;
  });
  const pick = (index: number): void => selectValue(list[index].name);
  return (
    <ChartCard
      control="through"
      about="activation_error"
      title={tb("through")}
      hint={tb("throughHint")}
      table={() => ({
        columns: [tb("value"), tb("weightsKey"), tb("activationKey")],
        rows: list.map((activation, i) => [
          nameOf(activation),
          activation.weights.length > 0 ? text(weights[i]) : "–",
          text(activation.sqnr_db),
        ]),
      })}
      legend={
        <>
          <span class="key before">{tb("weightsKey")}</span>
          <span class="key after">{tb("activationKey")}</span>
        </>
      }
    >
      <div class="canvas-box">
        <Canvas
          height={220}
          draw={draw}
          label={tb("throughSummary", {
            n,
            low: low < 0 ? tb("exact") : text(list[low].sqnr_db),
            name: low < 0 ? "–" : nameOf(list[low]),
            last: n > 0 ? text(list[n - 1].sqnr_db) : "–",
          })}
          onPoint={(spot) => {
            const index = spot && layerAt(spot.x, spot.width, n);
            setAt(spot && index !== null ? { index: index!, width: spot.width } : null);
          }}
          onPick={(spot) => {
            const index = layerAt(spot.x, spot.width, n);
            if (index !== null) pick(index);
          }}
          onMove={(columns) =>
            setAt((old) => ({
              index: Math.max(0, Math.min(n - 1, (old?.index ?? Math.max(0, chosen)) + columns)),
              width: old?.width ?? 600,
            }))
          }
          onKeyPick={() => at && pick(at.index)}
        />
        {at && list[at.index] && (
          <div
            class={`tip ${at.index > n / 2 ? "to-left" : ""}`}
            role="status"
            style={{ left: `${middleOf(at.index, at.width, n)}px`, top: "10px" }}
          >
            {nameOf(list[at.index])} ({list[at.index].op})
            <br />
            {tb("activationKey")} {text(list[at.index].sqnr_db)}
            {weights[at.index] !== null && ` · ${tb("weightsKey")} ${text(weights[at.index])}`}
          </div>
        )}
      </div>
    </ChartCard>
  );
}

function OneSample({ now }: { now: Compared }) {
  const drawn = maps.value;
  const { info } = data.value!;
  const n = now.before.indices.length;
  const at = sampleAt.value;
  const move = (by: number): void => void (sampleAt.value = (at + by + n) % n);
  return (
    <section class="card chart" data-chart="maps" aria-label={tb("maps")}>
      <header>
        <h3>{tb("maps")}</h3>
        <div class="legend">
          <select
            aria-label={tb("value")}
            value={valueName.value ?? ""}
            data-control="value"
            onChange={(event) => selectValue(event.currentTarget.value)}
          >
            {now.activations.map((activation) => (
              <option key={activation.name} value={activation.name}>
                {nameOf(activation)} · {activation.op}
              </option>
            ))}
          </select>
        </div>
      </header>
      <div class="sample-picker">
        {drawn && <Picture values={drawn.sample} info={info} size={56} label={sampleName(drawn)} />}
        <IconButton label={tb("previousSample")} onClick={() => move(-1)}>
          <LeftIcon />
        </IconButton>
        <input
          type="range"
          min={0}
          max={n - 1}
          value={at}
          aria-label={tb("sample")}
          aria-valuetext={drawn ? sampleName(drawn) : String(at)}
          data-control="sample"
          style={{ "--fill": `${(at / Math.max(1, n - 1)) * 100}%` }}
          onInput={(event) => (sampleAt.value = event.currentTarget.valueAsNumber)}
        />
        <IconButton label={tb("nextSample")} onClick={() => move(1)}>
          <RightIcon />
        </IconButton>
        <p class="hint">
          {drawn && sampleName(drawn)}
          {now.after.predictions.length > 0 && (
            <>
              <br />
              <i class="dot before" /> {className(now.before.predictions[at])} <i class="dot after" />{" "}
              {className(now.after.predictions[at])}
            </>
          )}
        </p>
      </div>
      {drawn && <MapsOf drawn={drawn} />}
    </section>
  );
}

const sampleName = ({ index, label }: Maps): string =>
  label === null ? tb("sampleOnly", { index }) : tb("sampleIs", { index, truth: className(label) });

function MapsOf({ drawn }: { drawn: Maps }) {
  const isDark = dark.value;
  const layout = layoutOf(drawn.shape);
  const difference = drawn.after.map((value, i) => value - drawn.before[i]);
  const most = largest(drawn.before, drawn.after);
  const apart = largest(difference);
  // A whole power of two, so that the stronger picture can be thought back.
  const times = apart > 0 ? 2 ** Math.max(0, Math.floor(Math.log2(most / apart))) : 1;
  const label = tb("mapsSummary", {
    name: drawn.name,
    index: drawn.index,
    shape: shape(drawn.shape),
    most: real(most),
    difference: real(apart),
  });
  const size = layout.rows * layout.columns;
  const [asTable, setAsTable] = useState(false);
  const meanOf = (values: Float32Array, tile: number): number => {
    if (size === 1) return values[tile];
    let sum = 0;
    for (let i = tile * size; i < (tile + 1) * size; i++) sum += Math.abs(values[i]);
    return sum / size;
  };
  return (
    <>
      {size === 1 ? (
        <Vector drawn={drawn} label={label} />
      ) : (
        <div class="trio">
          {(
            [
              ["before", drawn.before, most],
              ["after", drawn.after, most],
              ["difference", difference, most / times],
            ] as const
          ).map(([name, values, scale]) => (
            <figure key={name}>
              <figcaption class="hint">
                {tb(name)}
                {name === "difference" && times > 1 && ` × ${times}`}
              </figcaption>
              <Tiles values={values} shape={drawn.shape} most={scale} label={`${tb(name)}. ${label}`} isDark={isDark} />
            </figure>
          ))}
        </div>
      )}
      <details class="behind" open={asTable} onToggle={(event) => setAsTable(event.currentTarget.open)}>
        <summary>{tb(size === 1 ? "numbers" : "mean_abs")}</summary>
        {asTable && (
          <div class="table-scroll" tabIndex={0}>
            <table class="data">
              <thead>
                <tr>
                  {[tb("channel"), tb("before"), tb("after"), tb("difference")].map((name) => (
                    <th key={name} scope="col">
                      {name}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {Array.from({ length: Math.min(layout.tiles, 300) }, (_, tile) => (
                  <tr key={tile}>
                    <td>{tile}</td>
                    <td>{real(meanOf(drawn.before, tile))}</td>
                    <td>{real(meanOf(drawn.after, tile))}</td>
                    <td>{real(meanOf(difference, tile))}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </details>
      <p class="hint">
        {size === 1 ? tb("mapsVector") : tb("mapsHint", { times })}
        {size > 1 &&
          layout.tiles > MOST_TILES &&
          ` ${tb("firstChannels", { n: MOST_TILES, all: count(layout.tiles) })}`}
      </p>
    </>
  );
}

function Tiles(props: { values: Float32Array; shape: number[]; most: number; label: string; isDark: boolean }) {
  const { values, most, label, isDark } = props;
  const layout = layoutOf(props.shape);
  const [width, setWidth] = useState(220);
  const draw = useCallback(
    (context: CanvasRenderingContext2D, w: number) => {
      if (w !== width) setWidth(w);
      drawTiles(context, w, values, layout, most, colors());
    },
    [values, most, width, isDark],
  );
  return (
    <div class="canvas-box">
      <Canvas height={Math.ceil(gridOf(layout, width).height)} draw={draw} label={label} />
    </div>
  );
}

function Vector({ drawn, label }: { drawn: Maps; label: string }) {
  const [at, setAt] = useState<{ index: number; width: number } | null>(null);
  const n = drawn.before.length;
  const draw = useCallback(
    (context: CanvasRenderingContext2D, width: number, height: number) =>
      drawVector(context, width, height, drawn.before, drawn.after, colors(), at?.index ?? null),
    [drawn, at],
  );
  return (
    <div class="canvas-box">
      <Canvas
        height={180}
        draw={draw}
        label={label}
        onPoint={(spot) =>
          setAt(spot && { index: Math.min(n - 1, Math.floor((spot.x / spot.width) * n)), width: spot.width })
        }
        onMove={(columns) =>
          setAt((old) => ({
            index: Math.max(0, Math.min(n - 1, (old?.index ?? 0) + columns)),
            width: old?.width ?? 600,
          }))
        }
      />
      {at && (
        <div
          class={`tip ${at.index > n / 2 ? "to-left" : ""}`}
          role="status"
          style={{ left: `${((at.index + 0.5) / n) * at.width}px`, top: "6px" }}
        >
          {tb("value")} {at.index}
          <br />
          {tb("before")} {real(drawn.before[at.index])} · {tb("after")} {real(drawn.after[at.index])}
        </div>
      )}
    </div>
  );
}

function largest(...arrays: Float32Array[]): number {
  let most = 0;
  for (const values of arrays) for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}
