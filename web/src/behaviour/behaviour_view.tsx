// Accuracy before and after, which classes are taken for which, and the samples that changed their class.
import { useCallback, useState } from "preact/hooks";
import { classesAt, drawConfusion, EDGE, type Confusion } from "../charts/confusion";
import { colors } from "../charts/colors";
import { accuracy, count, percent, real } from "../format";
import { side, shown } from "../state";
import { Canvas } from "../views/canvas";
import { Causes } from "../views/causes_list";
import { ChartCard } from "../views/chart_card";
import { Choice } from "../views/controls";
import { lookInside } from "./actions";
import { causesOfBehaviour, moreWrong, wrongMore } from "./causes";
import { change } from "./headline";
import { className, Missing, Picture, Problem } from "./parts";
import {
  compared,
  comparing,
  data,
  everySample,
  flipCounts,
  flipKind,
  flips,
  kindOf,
  matrix,
  SOME,
  split,
  type Compared,
  type Split,
} from "./state";
import { tb } from "./words";

export function BehaviourView() {
  const now = compared.value;
  const missing = Missing({});
  if (missing) return missing;
  return (
    <div class="layer-view">
      <Problem />
      <Summary now={now} />
      {now && now.after.classes > 0 && (
        <div class="pair">
          {now.after.confusion.length > 0 && <ConfusionCard now={now} />}
          <Flips />
        </div>
      )}
    </div>
  );
}

const SPLITS: Split[] = ["test", "validation", "training", "all"];

function Summary({ now }: { now: Compared | null }) {
  const [before, after] = [now?.before.accuracy ?? null, now?.after.accuracy ?? null];
  const old = now && now.side !== side.value;
  const { info } = data.value!;
  const used = now?.after.samples ?? 0;
  const parts = { ...info.splits, all: info.samples };
  const report = shown.value?.report;
  return (
    <section class={`card summary ${old ? "outdated" : ""}`} aria-label={tb("tab.mistakes")} data-testid="summary">
      <div class="summary-top">
        {now && after !== null && before !== null ? (
          <>
            <div>
              <h3>{tb("accuracy")}</h3>
              <p class="big" data-testid="accuracy">
                {accuracy(after)}
              </p>
            </div>
            <dl class="summary-facts">
              <div>
                <dt>
                  <span class="key before">{tb("before")}</span>
                </dt>
                <dd>{accuracy(before)}</dd>
              </div>
              <div>
                <dt>{wrongMore(moreWrong(now))}</dt>
                <dd>{tb("points", { n: change(before, after) })}</dd>
              </div>
              <div>
                <dt title={tb("agreementHint")}>{tb("agreement")}</dt>
                <dd>{now.agreement === null ? "–" : accuracy(now.agreement)}</dd>
              </div>
              <div>
                <dt>{tb("loss")}</dt>
                <dd>
                  {now.before.loss === null ? "–" : real(now.before.loss)} →{" "}
                  {now.after.loss === null ? "–" : real(now.after.loss)}
                </dd>
              </div>
            </dl>
          </>
        ) : now && now.after.loss !== null ? (
          <div>
            <h3>{tb("meanSquared")}</h3>
            <p class="big">
              {real(now.after.loss)}
              <span class="unit">
                {tb("before")} {real(now.before.loss ?? 0)}
              </span>
            </p>
          </div>
        ) : (
          <p class="hint">{now ? tb("needLabels") : tb("comparing")}</p>
        )}
      </div>
      {now && report && <Causes causes={causesOfBehaviour(now, report)} />}
      <div class="summary-options">
        <label>
          <span class="hint">{tb("judgedBy")}</span>
          <select
            value={split.value}
            data-control="split"
            onChange={(event) => (split.value = event.currentTarget.value as Split)}
          >
            {SPLITS.map((name) => (
              <option key={name} value={name}>
                {tb(`split.${name}`)} ({count(parts[name])})
              </option>
            ))}
          </select>
        </label>
        <span class="hint">{now && tb("usedOf", { n: count(used), all: count(parts[split.value]) })}</span>
        {parts[split.value] > SOME && (
          <label class="check">
            <input
              type="checkbox"
              data-control="use_all"
              checked={everySample.value}
              onChange={(event) => (everySample.value = event.currentTarget.checked)}
            />
            {tb("useAll")}
          </label>
        )}
        <span class="hint busy" role="status">
          {comparing.value !== null && now && now.took > 700
            ? `${tb("comparing")} ${comparing.value > 0 ? percent(comparing.value) : ""}`
            : ""}
        </span>
      </div>
    </section>
  );
}

function ConfusionCard({ now }: { now: Compared }) {
  const [at, setAt] = useState<{ cell: [number, number]; width: number; height: number } | null>(null);
  const which = matrix.value;
  const n = now.after.classes;
  const cells =
    which === "change"
      ? Int32Array.from(now.after.confusion, (value, i) => value - now.before.confusion[i])
      : now[which].confusion;
  const rows = Float64Array.from({ length: n }, (_, r) =>
    now.after.confusion.subarray(r * n, (r + 1) * n).reduce((a, b) => a + b, 0),
  );
  const names = Array.from({ length: n }, (_, i) => className(i));
  const drawn: Confusion = { classes: n, names, cells, rows, change: which === "change" };
  const draw = useCallback(
    (context: CanvasRenderingContext2D, width: number, height: number) =>
      drawConfusion(context, width, height, drawn, colors(), at?.cell ?? null),
    [now, which, at],
  );
  const of = which === "change" ? now.after : now[which];
  let [right, worst] = [0, -1];
  for (let i = 0; i < n * n; i++) {
    if (i % (n + 1) === 0) right += of.confusion[i];
    else if (of.confusion[i] > 0 && (worst < 0 || of.confusion[i] > of.confusion[worst])) worst = i;
  }
  const mistake = (i: number): string =>
    i < 0
      ? tb("noMistake")
      : tb("mistakeOf", { truth: names[Math.floor(i / n)], said: names[i % n], n: count(of.confusion[i]) });
  const cell = at && { row: at.cell[0], column: at.cell[1], value: cells[at.cell[0] * n + at.cell[1]] };
  const signed = (value: number): string =>
    which === "change" && value > 0 ? `+${count(value)}` : count(value).replace("-", "−");
  return (
    <ChartCard
      control="confusion"
      about="accuracy"
      title={tb("confusion")}
      hint={`${tb("confusionHint")}${which === "change" ? ` ${tb("confusionChange")}` : ""}`}
      table={() => ({
        columns: [tb("trueClass"), tb("saidClass"), tb("before"), tb("after")],
        rows: Array.from({ length: n * n }, (_, i) => i)
          .filter((i) => now.before.confusion[i] > 0 || now.after.confusion[i] > 0)
          .map((i) => [
            names[Math.floor(i / n)],
            names[i % n],
            count(now.before.confusion[i]),
            count(now.after.confusion[i]),
          ]),
      })}
    >
      <Choice
        control="matrix"
        label={tb("confusion")}
        value={which}
        options={(["before", "after", "change"] as const).map((value) => ({ value, label: tb(`matrix.${value}`) }))}
        onValue={(value) => (matrix.value = value)}
      />
      <div class="canvas-box square">
        <Canvas
          height={340}
          draw={draw}
          label={tb("confusionSummary", { n, right: count(right), all: count(of.samples), worst: mistake(worst) })}
          onPoint={(spot) => {
            const found = spot && classesAt(spot.x, spot.y, spot.width, spot.height, n);
            setAt(spot && found ? { cell: found, width: spot.width, height: spot.height } : null);
          }}
          onMove={(columns, down) =>
            setAt((old) => {
              const [r, c] = old?.cell ?? [0, 0];
              const inside = (value: number): number => Math.max(0, Math.min(n - 1, value));
              return {
                width: old?.width ?? 300,
                height: old?.height ?? 340,
                cell: [inside(r + down), inside(c + columns)],
              };
            })
          }
        />
        {at && cell && (
          <div
            class={`tip ${cell.column > n / 2 ? "to-left" : ""}`}
            role="status"
            style={{
              left: `${EDGE + ((cell.column + 0.5) * (at.width - EDGE)) / n}px`,
              top: `${EDGE + ((cell.row + 1) * (at.height - EDGE)) / n}px`,
            }}
          >
            {tb("cellOf", { truth: names[cell.row], said: names[cell.column], n: signed(cell.value) })}
          </div>
        )}
      </div>
    </ChartCard>
  );
}

const PAGE = 24; // pictures at a time

function Flips() {
  const [pages, setPages] = useState(1);
  const counts = flipCounts.value;
  const kind = flipKind.value;
  const list = flips.value.filter((flip) => kindOf(flip) === kind);
  const { info } = data.value!;
  return (
    <section class="card flips" aria-label={tb("flips")} data-testid="flips" data-count={flips.value.length}>
      <h3>{tb("flips")}</h3>
      {flips.value.length === 0 ? (
        <p class="hint">{tb("nothingFlipped")}</p>
      ) : (
        <>
          <Choice
            control="flips"
            label={tb("flips")}
            value={kind}
            options={(["worse", "better", "other"] as const).map((value) => ({
              value,
              label: `${tb(`flip.${value}`)} ${count(counts[value])}`,
            }))}
            onValue={(value) => {
              flipKind.value = value;
              setPages(1);
            }}
          />
          {list.length === 0 && <p class="hint">{tb("noFlips")}</p>}
          <ul class="flip-list">
            {list.slice(0, pages * PAGE).map((flip) => (
              <li key={flip.index}>
                <button
                  type="button"
                  onClick={() => lookInside(flip.index)}
                  aria-label={`${tb("lookInside", { index: flip.index })}. ${flip.label === null ? "" : `${tb("trueClass")} ${className(flip.label)}, `}${tb("before")} ${className(flip.before)} ${percent(flip.confidence.before)}, ${tb("after")} ${className(flip.after)} ${percent(flip.confidence.after)}`}
                >
                  {flip.label !== null && <span class="truth">{className(flip.label)}</span>}
                  <Picture values={flip.values} info={info} size={56} />
                  <span class="said">
                    <span>
                      <i class="dot before" />
                      <b>{className(flip.before)}</b> {percent(flip.confidence.before)}
                    </span>
                    <span>
                      <i class="dot after" />
                      <b>{className(flip.after)}</b> {percent(flip.confidence.after)}
                    </span>
                  </span>
                </button>
              </li>
            ))}
          </ul>
          {list.length > pages * PAGE && (
            <button type="button" onClick={() => setPages(pages + 1)}>
              {tb("more")}
            </button>
          )}
          <p class="hint">{tb("flipsHint")}</p>
        </>
      )}
    </section>
  );
}
