// Training: what is trained and how, its curve while it goes on, and what was learned.
import { useCallback, useEffect } from "preact/hooks";
import { colors } from "../charts/colors";
import { drawCurve, smoothed } from "../charts/curve";
import { accuracy, count, real, seconds } from "../format";
import { opened, shown } from "../state";
import { Canvas } from "../views/canvas";
import { ChartCard } from "../views/chart_card";
import { ChoiceFields } from "../views/train_fields";
import { Missing } from "./parts";
import { architectures, choice, curve, curveLength, data, newSeed, trainFrom, training, type Trained } from "./state";
import * as actions from "./training";
import { tb } from "./words";

export function TrainView() {
  useEffect(() => void actions.fetchArchitectures(), []);
  if (!data.value) {
    const missing = Missing({});
    if (missing) return missing;
  }
  return (
    <div class="train">
      <section class="card" aria-label={tb("trainTitle")} data-testid="train">
        <div class="fields">
          <From />
          <ChoiceFields choice={choice.value} set={(fields) => (choice.value = { ...choice.value, ...fields })} />
        </div>
      </section>
      <div class="train-progress">
        <Controls now={training.value} />
        <Curves now={training.value} />
      </div>
    </div>
  );
}

function From() {
  const runs = opened.value !== null;
  // Where no run has worked yet there is only the opened model to start from.
  const from = trainFrom.value === "result" && !shown.value ? "original" : trainFrom.value;
  return (
    <div class="field">
      <label class="field-head" for="train-from">
        {tb("trainFrom")}
      </label>
      <select
        id="train-from"
        value={from}
        data-control="train_from"
        onChange={(event) => (trainFrom.value = event.currentTarget.value as typeof from)}
      >
        {runs && shown.value && <option value="result">{tb("from.result")}</option>}
        {runs && <option value="original">{tb("from.original")}</option>}
        {(architectures.value ?? []).map(({ name, summary }) => (
          <option key={name} value={`new:${name}`} title={summary}>
            {tb("from.new", { name })}
          </option>
        ))}
      </select>
      {from.startsWith("new:") && (
        <p class="train-new">
          <span class="hint" lang="en">
            {architectures.value?.find(({ name }) => `new:${name}` === from)?.summary}
          </span>
          <label class="hint">
            {tb("weightsSeed")}{" "}
            <input
              type="number"
              min={0}
              step={1}
              value={newSeed.value}
              data-control="weights_seed"
              onChange={({ currentTarget: { valueAsNumber: seed } }) => {
                if (Number.isSafeInteger(seed) && seed >= 0) newSeed.value = seed;
              }}
            />
          </label>
        </p>
      )}
    </div>
  );
}

function Controls({ now }: { now: Trained | null }) {
  const phase = now?.phase;
  const going = phase === "running" || phase === "starting";
  const at = now?.progress;
  const share = at ? at.step / at.steps : 0;
  const left = at && at.step > 0 ? ((at.steps - at.step) / at.step) * at.seconds : null;
  return (
    <div class="card train-controls" data-testid="training" data-phase={phase ?? "none"} data-step={at?.step ?? 0}>
      <div class="buttons">
        {!going && phase !== "paused" && (
          <button type="button" class="primary" disabled={!data.value} onClick={() => void actions.start()}>
            {tb(now ? "startAgain" : "start")}
          </button>
        )}
        {going && (
          <button type="button" class="primary" disabled={phase === "starting"} onClick={() => void actions.pause()}>
            {tb("pause")}
          </button>
        )}
        {phase === "paused" && (
          <button type="button" class="primary" onClick={actions.resume}>
            {tb("resume")}
          </button>
        )}
        {(going || phase === "paused") && (
          <button type="button" disabled={phase === "starting"} onClick={() => void actions.stop()}>
            {tb("stop")}
          </button>
        )}
      </div>
      {!data.value && <p class="hint">{tb("trainNeedsData")}</p>}
      {now && (
        <>
          <div class="meter" role="progressbar" aria-label={tb("trainTitle")} aria-valuenow={Math.round(share * 100)}>
            <span style={{ width: `${share * 100}%` }} />
          </div>
          <p role="status">{tb(`phase.${now.phase}`)}</p>
          {at && (
            <p class="hint tabular">
              {tb("epochOf", { n: at.epoch + 1, all: at.epochs })}
              {going && left !== null && left > 0 && ` · ${tb("timeLeft", { time: seconds(left) })}`}
            </p>
          )}
          {now.best && (
            <p class="hint">
              {tb(now.best.accuracy === null ? "bestSoFar" : "bestWithAccuracy", {
                epoch: now.best.epoch + 1,
                loss: real(now.best.loss),
                accuracy: now.best.accuracy === null ? "" : accuracy(now.best.accuracy),
              })}
            </p>
          )}
          {at && (
            <div class="buttons">
              <button type="button" disabled={going} onClick={() => void actions.use()}>
                {tb("use")}
              </button>
              <button type="button" disabled={going} onClick={() => void actions.download()}>
                {tb("saveTrained")}
              </button>
            </div>
          )}
          {at && <p class="hint">{tb("useHint")}</p>}
        </>
      )}
    </div>
  );
}

function Curves({ now }: { now: Trained | null }) {
  const length = curveLength.value;
  if (!now || length === 0) return <p class="card hint">{tb("noCurve")}</p>;
  const steps = now.progress?.steps ?? length;
  const hasAccuracy = curve.accuracy.some((value) => value !== null);
  return (
    <>
      <CurveCard which="loss" length={length} steps={steps} />
      {hasAccuracy && <CurveCard which="accuracy" length={length} steps={steps} />}
    </>
  );
}

function CurveCard({ which, length, steps }: { which: "loss" | "accuracy"; length: number; steps: number }) {
  const title = tb(which === "loss" ? "lossCurve" : "accuracyCurve");
  const points = curve.validation.flatMap(({ step, best, ...values }) => {
    const value = values[which];
    return value === null ? [] : [{ step, best, value }];
  });
  const draw = useCallback(
    (context: CanvasRenderingContext2D, width: number, height: number) =>
      drawCurve(
        context,
        width,
        height,
        { batches: curve[which], validation: points, steps, top: which === "accuracy" ? 1 : null },
        colors(),
      ),
    [which, length, steps],
  );
  const show = (value: number | undefined): string =>
    value === undefined || !Number.isFinite(value) ? "–" : which === "loss" ? real(value) : accuracy(value);
  const course = smoothed(curve[which]);
  return (
    <ChartCard
      control={`${which}_curve`}
      about="learning_rate"
      title={title}
      hint={tb(which === "loss" ? "lossCurveHint" : "accuracyCurveHint")}
      table={() => ({
        columns: [tb("epoch"), tb("trainLoss"), tb("validationLoss"), tb("validationAccuracy")],
        rows: curve.validation.map((point, i) => {
          const from = curve.validation[i - 1]?.step ?? 0;
          const batches = curve.loss.slice(from, point.step);
          return [
            point.epoch + 1,
            real(batches.reduce((a, b) => a + b, 0) / (batches.length || 1)),
            real(point.loss),
            point.accuracy === null ? "–" : accuracy(point.accuracy),
          ];
        }),
      })}
      legend={
        <>
          <span class="key before">{tb("smoothedKey")}</span>
          <span class="key after">{tb("validationKey")}</span>
        </>
      }
    >
      <div class="canvas-box">
        <Canvas
          height={200}
          draw={draw}
          label={tb("curveSummary", {
            what: title,
            n: count(length),
            first: show(course[0]),
            last: show(course.at(-1)),
            validation: show(points.at(-1)?.value),
          })}
        />
      </div>
    </ChartCard>
  );
}
