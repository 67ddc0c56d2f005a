// The recipe as a form: one card per step, every move runs at once.
import * as actions from "../actions";
import { percent, real } from "../format";
import {
  BITS,
  needsData,
  type ClusterDraft,
  type EncodeDraft,
  type PruneDraft,
  type QuantizeDraft,
  type StepDraft,
  type TrainDraft,
} from "../recipe";
import { hasData, side, untrained, widest, work } from "../state";
import { t } from "../words";
import { ChoiceFields } from "./train_fields";
import { Choice, IconButton, LessonButton, Slider, StopsSlider, Switch } from "./controls";
import { BracesIcon, CloseIcon, LinkIcon, TerminalIcon } from "./icons";

export function RecipePanel() {
  const steps = side.value.steps;
  const random = steps.some(
    (step) =>
      step.on &&
      ((step.kind === "quantize" && step.rounding === "stochastic") ||
        (step.kind === "cluster" && step.initial === "random")),
  );
  const more = (
    [
      ["cluster", "addCluster"],
      ["train", "addTraining"],
      ["encode", "addEncode"],
    ] as const
  ).filter(([kind]) => !steps.some((step) => step.kind === kind) && (kind !== "train" || hasData.value));
  return (
    <section class="recipe" id="recipe" aria-label={t("recipe")} tabIndex={-1}>
      {steps.map((step, index) => (
        <StepCard
          key={index}
          step={step}
          index={index}
          extra={
            (step.kind !== "prune" && step.kind !== "quantize") ||
            steps.findIndex((other) => other.kind === step.kind) < index
          }
        />
      ))}
      {more.map(([kind, label]) => (
        <button key={kind} type="button" class="add-step" data-add={kind} onClick={() => actions.addStep(kind)}>
          + {t(label)}
        </button>
      ))}
      {random && <SeedField />}
      <Share />
    </section>
  );
}

/** `extra`: not the first of its kind, so it can be removed. */
function StepCard({ step, index, extra }: { step: StepDraft; index: number; extra: boolean }) {
  return (
    <article class={`card step ${step.on ? "" : "off"}`} data-step={step.kind}>
      <header>
        <div>
          <h2>{t(step.kind)}</h2>
          <p class="hint names">
            {step.layers.include ? t("onlyOn", { names: step.layers.include.join(", ") }) : t(`${step.kind}Hint`)}
          </p>
        </div>
        {extra && (
          <IconButton label={t("removeStep")} onClick={() => actions.removeStep(index)}>
            <CloseIcon />
          </IconButton>
        )}
        <Switch
          checked={step.on}
          label={t("stepOn", { step: t(step.kind) })}
          onValue={(on) => actions.setStep(index, { on })}
        />
      </header>
      {step.on && (
        <div class="fields">
          {step.kind === "prune" && <PruneFields step={step} index={index} />}
          {step.kind === "quantize" && <QuantizeFields step={step} index={index} />}
          {step.kind === "cluster" && <ClusterFields step={step} index={index} />}
          {step.kind === "encode" && <EncodeFields step={step} index={index} />}
          {step.kind === "train" && <TrainFields step={step} index={index} />}
          {needsData(step) && <RunWithData />}
          <Filter step={step} />
        </div>
      )}
    </article>
  );
}

function PruneFields({ step, index }: { step: PruneDraft; index: number }) {
  const set = (fields: Partial<PruneDraft>): void => actions.setStep<PruneDraft>(index, fields);
  const byShare = step.by === "sparsity" || step.pattern === "channels";
  const end = widest.value || 1;
  return (
    <>
      {step.pattern === "n:m" ? (
        <KeepFields step={step} set={set} />
      ) : byShare ? (
        <Slider
          control="sparsity"
          label={t("sparsity")}
          value={step.sparsity}
          text={percent(step.sparsity)}
          spoken={t("sparsityValue", { value: percent(step.sparsity) })}
          min={0}
          max={1}
          step={0.005}
          onValue={(sparsity) => set({ sparsity })}
        />
      ) : (
        <Slider
          control="threshold"
          label={t("threshold")}
          // Most weights are small, so the slider is finest there: its square is the share of the largest weight.
          value={Math.sqrt(Math.min(1, step.threshold / end))}
          text={real(step.threshold)}
          spoken={t("thresholdValue", { value: real(step.threshold) })}
          min={0}
          max={1}
          step={0.002}
          onValue={(root) => set({ threshold: Number((root * root * end).toPrecision(4)) })}
        />
      )}
      <Choice
        control="pattern"
        label={t("pattern")}
        value={step.pattern}
        options={(["unstructured", "n:m", "channels"] as const).map((value) => ({
          value,
          label: t(`pattern.${value}`),
        }))}
        onValue={(pattern) => set({ pattern })}
      />
      {step.pattern === "unstructured" && (
        <Choice
          control="by"
          label={t("by")}
          value={step.by}
          options={(["sparsity", "threshold"] as const).map((value) => ({ value, label: t(`by.${value}`) }))}
          onValue={(by) => set({ by })}
        />
      )}
      {step.pattern !== "n:m" && byShare && (
        <Choice
          control="scope"
          label={t("scope")}
          value={step.scope}
          options={(["layer", "global"] as const).map((value) => ({ value, label: t(`scope.${value}`) }))}
          onValue={(scope) => set({ scope })}
        />
      )}
    </>
  );
}

function KeepFields({ step, set }: { step: PruneDraft; set(fields: Partial<PruneDraft>): void }) {
  const whole = (value: number, low: number, high: number): number =>
    Math.max(low, Math.min(high, Math.round(value) || low));
  return (
    <div class="field inline" data-control="pattern-nm">
      <label>
        {t("keep")}
        <input
          type="number"
          min={1}
          max={step.m - 1}
          value={step.n}
          onChange={(event) => set({ n: whole(event.currentTarget.valueAsNumber, 1, step.m - 1) })}
        />
      </label>
      <label>
        {t("keepOf")}
        <input
          type="number"
          min={2}
          max={64}
          value={step.m}
          onChange={(event) => {
            const m = whole(event.currentTarget.valueAsNumber, 2, 64);
            set({ m, n: Math.min(step.n, m - 1) });
          }}
        />
      </label>
    </div>
  );
}

const PERCENTILES = [50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 99.999, 100];
const GROUPS = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];

function QuantizeFields({ step, index }: { step: QuantizeDraft; index: number }) {
  const set = (fields: Partial<QuantizeDraft>): void => actions.setStep<QuantizeDraft>(index, fields);
  return (
    <>
      <StopsSlider
        control="bits"
        label={t("bits")}
        value={step.bits}
        stops={BITS}
        marks={BITS}
        text={String(step.bits)}
        spoken={step.bits === 1 ? t("bitValue") : t("bitsValue", { n: step.bits })}
        onValue={(bits) => set({ bits })}
      />
      <Choice
        control="granularity"
        label={t("granularity")}
        value={step.granularity}
        options={(["global", "tensor", "channel", "group"] as const).map((value) => ({
          value,
          label: t(`granularity.${value}`),
        }))}
        onValue={(granularity) => set({ granularity })}
      />
      {step.granularity === "group" && (
        <StopsSlider
          control="group_size"
          label={t("group_size")}
          value={step.group_size}
          stops={GROUPS}
          text={String(step.group_size)}
          spoken={t("groupSizeValue", { n: step.group_size })}
          onValue={(group_size) => set({ group_size })}
        />
      )}
      <Choice
        control="range"
        label={t("range")}
        value={step.range}
        options={(["minmax", "percentile", "sigma", "mse"] as const).map((value) => ({
          value,
          label: t(`range.${value}`),
        }))}
        onValue={(range) => set({ range })}
      />
      {step.range === "percentile" && (
        <StopsSlider
          control="percentile"
          label={t("percentile")}
          value={step.percentile}
          stops={PERCENTILES}
          text={`${step.percentile} %`}
          spoken={t("percentileValue", { value: `${step.percentile} %` })}
          onValue={(percentile) => set({ percentile })}
        />
      )}
      {step.range === "sigma" && (
        <Slider
          control="sigmas"
          label={t("sigmas")}
          value={step.sigmas}
          text={`± ${step.sigmas} σ`}
          spoken={t("sigmasValue", { n: step.sigmas })}
          min={0.5}
          max={8}
          step={0.1}
          onValue={(sigmas) => set({ sigmas: Number(sigmas.toFixed(1)) })}
        />
      )}
      <Choice
        control="symmetric"
        label={t("symmetric")}
        value={step.symmetric ? "true" : "false"}
        options={(["true", "false"] as const).map((value) => ({ value, label: t(`symmetric.${value}`) }))}
        onValue={(value) => set({ symmetric: value === "true" })}
      />
      <Choice
        control="rounding"
        label={t("rounding")}
        value={step.rounding}
        options={(["nearest", "stochastic"] as const).map((value) => ({ value, label: t(`rounding.${value}`) }))}
        onValue={(rounding) => set({ rounding })}
      />
    </>
  );
}

function ClusterFields({ step, index }: { step: ClusterDraft; index: number }) {
  const set = (fields: Partial<ClusterDraft>): void => actions.setStep<ClusterDraft>(index, fields);
  return (
    <>
      <Slider
        control="cluster_bits"
        label={t("bits")}
        value={step.bits}
        text={String(step.bits)}
        spoken={t("clusterBitsValue", { n: 2 ** step.bits })}
        min={1}
        max={8}
        step={1}
        marks={[1, 2, 3, 4, 5, 6, 7, 8]}
        onValue={(bits) => set({ bits })}
      />
      <Choice
        control="initial"
        label={t("initial")}
        value={step.initial}
        options={(["linear", "density", "random"] as const).map((value) => ({ value, label: t(`initial.${value}`) }))}
        onValue={(initial) => set({ initial })}
      />
    </>
  );
}

/** The slider of lambda is logarithmic; its left end is 0. Loss against data is counted in nats, for which a bit is worth
 *  far less than in shares of a tensor's mean square. */
const LAMBDAS = { none: [-5, 0], diagonal: [-11, -5], hessian: [-11, -5] } as const;

function EncodeFields({ step, index }: { step: EncodeDraft; index: number }) {
  const set = (fields: Partial<EncodeDraft>): void => actions.setStep<EncodeDraft>(index, fields);
  const [low, high] = LAMBDAS[step.importance];
  const off = low - 0.1;
  return (
    <>
      <Choice
        control="coder"
        label={t("coder")}
        value={step.coder}
        options={(["auto", "cabac", "rans", "huffman"] as const).map((value) => ({
          value,
          label: t(`coder.${value}`),
        }))}
        onValue={(coder) => set({ coder })}
      />
      <Slider
        control="lambda"
        label={t("lambda")}
        value={step.lambda > 0 ? Math.max(low, Math.log10(step.lambda)) : off}
        text={step.lambda > 0 ? real(step.lambda) : t("lambdaOff")}
        spoken={step.lambda > 0 ? t("lambdaValue", { value: real(step.lambda) }) : t("lambdaOff")}
        min={off}
        max={high}
        step={0.1}
        onValue={(power) => set({ lambda: power < low - 0.05 ? 0 : Number((10 ** power).toPrecision(2)) })}
      />
      {step.lambda > 0 && (
        <Choice
          control="importance"
          label={t("importance")}
          value={step.importance}
          options={(["none", "diagonal", "hessian"] as const).map((value) => ({
            value,
            label: t(`importance.${value}`),
          }))}
          // Each counts loss in its own unit: the middle of the other's slider, where that is another.
          onValue={(importance) => {
            const kept = LAMBDAS[importance][0] === low;
            const [from, to] = LAMBDAS[importance];
            set({ importance, ...(!kept && { lambda: Number((10 ** ((from + to) / 2)).toPrecision(2)) }) });
          }}
        />
      )}
      <label class="check">
        <input
          type="checkbox"
          data-control="quantized_form"
          checked={step.quantized_form}
          onChange={(event) => set({ quantized_form: event.currentTarget.checked })}
        />
        {t("quantized_form")}
      </label>
    </>
  );
}

function TrainFields({ step, index }: { step: TrainDraft; index: number }) {
  return (
    <ChoiceFields
      choice={step.choice}
      set={(fields) => actions.setStep<TrainDraft>(index, { choice: { ...step.choice, ...fields } })}
    />
  );
}

function RunWithData() {
  return (
    <>
      <button
        type="button"
        class="primary"
        data-control="run"
        disabled={!hasData.value || !untrained.value || work.value !== null}
        onClick={() => void actions.runAll()}
      >
        {t("runAll")}
      </button>
      <p class="hint">{hasData.value ? t(untrained.value ? "untrained" : "trained") : t("untrainedNoData")}</p>
    </>
  );
}

function Filter({ step: { layers } }: { step: StepDraft }) {
  if (!layers.exclude?.length) return null;
  return <p class="hint names">{t("filtered", { names: layers.exclude.join(", ") })}</p>;
}

function SeedField() {
  return (
    <div class="card field inline">
      <label>
        {t("seed")}
        <input
          type="number"
          min={0}
          step={1}
          value={side.value.seed}
          data-control="seed"
          onInput={(event) => actions.setSeed(event.currentTarget.valueAsNumber)}
        />
      </label>
      <LessonButton control="seed" what={t("seed")} />
    </div>
  );
}

function Share() {
  return (
    <section class="share" aria-label={t("share")}>
      <h2>{t("share")}</h2>
      <div class="buttons">
        <button type="button" onClick={() => void actions.copyLink()}>
          <LinkIcon />
          {t("copyLink")}
        </button>
        <button type="button" onClick={() => void actions.copyCommand()}>
          <TerminalIcon />
          {t("copyCommand")}
        </button>
        <button type="button" onClick={() => void actions.copyRecipe()}>
          <BracesIcon />
          {t("copyRecipe")}
        </button>
      </div>
      <p class="hint">{t("pasteRecipe")}</p>
    </section>
  );
}
