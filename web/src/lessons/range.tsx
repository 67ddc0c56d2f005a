// Lesson: where to clip. A wide range makes rounding coarse, a narrow one cuts the outliers; the least error is between.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say, type Words } from "../language";
import { bell, bestClip, deviation, energy, histogram, maxAbs, mean, quantile, splitError } from "./math";
import {
  axis,
  bars,
  Chart,
  decibel,
  Legend,
  line,
  num,
  Numbers,
  percent,
  Readouts,
  Slider,
  type Lesson,
} from "./parts";

/** 1,999 weights of a bell curve and one outlier, ten standard deviations out. */
const kWeights = [...bell(1999, 31, 0.1), 1];
const kMost = maxAbs(kWeights);
const kSignal = energy(kWeights) / kWeights.length;
const kSteps = 100;
/** Error at every clip, for each bit width, computed when a width is first looked at. */
const curves = new Map<number, { rounding: number; clipping: number }[]>();
const curve = (bits: number) => {
  if (!curves.has(bits))
    curves.set(
      bits,
      Array.from({ length: kSteps }, (_, i) => splitError(kWeights, bits, (kMost * (i + 1)) / kSteps)),
    );
  return curves.get(bits)!;
};

/** A symmetric grid covers the farther end of the range [mean - k sigma, mean + k sigma]. */
const sigmaClip = (k: number) => Math.abs(mean(kWeights)) + k * deviation(kWeights);
const percentileClip = (p: number) =>
  Math.max(-quantile(kWeights, (1 - p / 100) / 2), quantile(kWeights, (1 + p / 100) / 2));

function Widget({ done }: { done: () => void }) {
  const bits = useSignal(4);
  const clip = useSignal(kMost);
  const { rounding, clipping } = splitError(kWeights, bits.value, clip.value);
  const sqnr = 10 * Math.log10(kSignal / (rounding + clipping));
  const best = bestClip(kWeights, bits.value, kSteps);
  const bestError = splitError(kWeights, bits.value, best);
  const bestDb = 10 * Math.log10(kSignal / (bestError.rounding + bestError.clipping));
  const cut = kWeights.filter((w) => Math.abs(w) > clip.value).length;
  const near = bits.value <= 4 && sqnr > bestDb - 0.1;
  const dragged = useSignal(false);
  useEffect(() => {
    if (near && dragged.value) done();
  });

  const estimators: [Words, number][] = [
    [{ en: "minmax", zh: "minmax" }, kMost],
    [{ en: "percentile 99.9", zh: "percentile 99.9" }, percentileClip(99.9)],
    [{ en: "sigma 3", zh: "sigma 3" }, sigmaClip(3)],
    [{ en: "mse", zh: "mse" }, best],
  ];
  const move = (v: number) => {
    dragged.value = true;
    clip.value = Math.min(kMost, Math.max(kMost / kSteps, v));
  };

  const draw = (width: number) => {
    const at = axis(0, kMost, 8, width - 8);
    const errors = curve(bits.value);
    // High enough to show min-max and the valley; what lies above is not worth drawing.
    const top = Math.max(1.2 * errors[kSteps - 1]!.rounding, 3 * (bestError.rounding + bestError.clipping));
    const up = axis(0, top, 198, 84);
    const points = (pick: (e: { rounding: number; clipping: number }) => number) =>
      errors.flatMap((e, i): [number, number][] =>
        pick(e) <= top ? [[at((kMost * (i + 1)) / kSteps), up(pick(e))]] : [],
      );
    return (
      <>
        {bars(histogram(kWeights.map(Math.abs), 0, kMost, 60), axis(0, 60, 8, width - 8), 68, 60, "ln-fill-before")}
        <rect class="ln-cut" x={at(clip.value)} width={Math.max(0, width - 8 - at(clip.value))} y="4" height="64" />
        <line class="ln-axis" x1="8" x2={width - 8} y1="68" y2="68" />
        <line class="ln-hair" x1="8" x2={width - 8} y1="198" y2="198" />
        {line(
          points((e) => e.rounding),
          "ln-line ln-stroke-before",
        )}
        {line(
          points((e) => e.clipping),
          "ln-line ln-stroke-error",
        )}
        {line(
          points((e) => e.rounding + e.clipping),
          "ln-line ln-stroke-text",
        )}
        <line class="ln-clip" x1={at(clip.value)} x2={at(clip.value)} y1="0" y2="198" />
        {rounding + clipping <= top && (
          <circle class="ln-fill-text" cx={at(clip.value)} cy={up(rounding + clipping)} r="5" />
        )}
        {[0, 0.5, 1].map((v) => (
          <text key={v} x={at(v * kMost)} y="214" text-anchor={v === 0 ? "start" : v === 1 ? "end" : "middle"}>
            {num(v * kMost, 1)}
          </text>
        ))}
      </>
    );
  };

  return (
    <>
      <Chart
        height={218}
        label={say({
          en: `Histogram of magnitudes above the squared error for every clip; ${decibel(sqnr)} here, ${decibel(bestDb)} at best.`,
          zh: `上为绝对值的直方图，下为各截断点的平方误差；此处 ${decibel(sqnr)}，最好 ${decibel(bestDb)}。`,
        })}
        draw={draw}
        onDrag={(px, width) => move(axis(8, width - 8, 0, kMost)(px))}
      />
      <Legend
        items={[
          ["before", { en: "rounding error (inside)", zh: "舍入误差（范围内）" }],
          ["error", { en: "clipping error (outside)", zh: "截断误差（范围外）" }],
          ["text", { en: "total", zh: "总误差" }],
        ]}
      />
      <div class="ln-controls">
        <Slider
          label={{ en: "Clip at", zh: "截断点" }}
          value={clip.value}
          min={0.01}
          max={kMost}
          step={0.005}
          show={num(clip.value, 3)}
          onInput={move}
        />
        <Slider
          label={{ en: "Bits", zh: "位数" }}
          value={bits.value}
          min={2}
          max={8}
          onInput={(v) => (bits.value = v)}
        />
      </div>
      <div class="ln-buttons" role="group" aria-label={say({ en: "Jump to an estimator", zh: "跳到某种估计方法" })}>
        {estimators.map(([words, at]) => (
          <button key={words.en} type="button" onClick={() => (clip.value = at)}>
            {say(words)}
          </button>
        ))}
      </div>
      <Readouts
        items={[
          [{ en: "Step s", zh: "步长 s" }, num(clip.value / (2 ** (bits.value - 1) - 1), 4)],
          [{ en: "Weights cut", zh: "被截断的权重" }, `${cut} / 2000`],
          [{ en: "Clipping's share of the error", zh: "截断占总误差" }, percent(clipping / (rounding + clipping))],
          [{ en: "SQNR", zh: "信噪比 SQNR" }, decibel(sqnr), sqnr > bestDb - 0.1 ? "good" : undefined],
        ]}
      />
      <Numbers
        head={[say({ en: "Estimator", zh: "估计方法" }), say({ en: "clip", zh: "截断点" }), "SQNR"]}
        rows={estimators.map(([words, at]) => {
          const e = splitError(kWeights, bits.value, at);
          return [say(words), num(at, 3), decibel(10 * Math.log10(kSignal / (e.rounding + e.clipping)))];
        })}
      />
    </>
  );
}

export const range: Lesson = {
  id: "range",
  title: { en: "Where to clip", zh: "在哪里截断" },
  ask: {
    en: "2,000 weights, 4 bits. One weight lies ten times farther out than the typical one. What gives the least squared error?",
    zh: "2000 个权重，用 4 位表示，其中一个离零的距离是普通权重的十倍。怎样做平方误差最小？",
  },
  options: [
    { en: "Stretch the range to reach it", zh: "把范围拉大，容纳它" },
    { en: "Clip it", zh: "把它截断" },
    { en: "Makes no difference", zh: "没有区别" },
  ],
  answer: 1,
  replies: [
    {
      en: "Then 1,999 weights get a step several times coarser to please one. Drag the clip inwards and watch the total fall.",
      zh: "为了照顾一个，另外 1999 个的步长都粗了好几倍。把截断线往里拖，看看总误差怎么降。",
    },
    {
      en: "One large error against a finer step for all the others. At 8 bits keeping it wins: try it.",
      zh: "用一个大误差换来其余所有权重更细的步长。到 8 位时反而是保留它更好，试试看。",
    },
    null,
  ],
  task: {
    en: "At 4 bits or fewer, drag the clip to within 0.1 dB of the best.",
    zh: "在 4 位或更少时，把截断线拖到与最优值相差 0.1 dB 以内。",
  },
  Widget,
  points: [
    {
      en: "*minmax* cuts nothing and pays in rounding. *percentile* p keeps the central p percent of the weights. *sigma* k keeps mean ± k·σ, where σ is the *standard deviation*; some notes write the variance there, which is σ² and not even in the same unit.",
      zh: "*minmax* 不截断，代价是舍入变粗。*percentile* p 保留居中的 p % 权重。*sigma* k 保留 均值 ± k·σ，σ 是*标准差*；有的资料把它写成方差，那是 σ²，连单位都不对。",
    },
    {
      en: "*mse* tries many clips and keeps the one with the least squared error. The fewer the bits, the farther inside it lies.",
      zh: "*mse* 试许多个截断点，留下平方误差最小的那个。位数越少，它越靠里。",
    },
    {
      en: "Least error in the weights is not always least harm: now and then an outlier is just the weight the network relies on. If accuracy drops after clipping, go back to minmax for that layer.",
      zh: "权重误差最小，并不总等于损害最小：偶尔网络恰恰就依赖那个离群值。如果截断后精度下降，就让那一层退回 minmax。",
    },
  ],
  formula: ["E(c) = 1/N · Σ (w − Q_{c}(w))^{2}", "≈ s^{2}/12 + 1/N · Σ_{|w|>c} (|w| − c)^{2}", "s = c / (2^{b−1} − 1)"],
  symbols: [
    ["c", { en: "clip: weights beyond ±c become ±c", zh: "截断点：超出 ±c 的权重变为 ±c" }],
    ["s²/12", { en: "mean squared error of rounding, many levels assumed", zh: "舍入的均方误差，假设量化点足够多" }],
  ],
  tryIt: {
    en: "At 4 bits compare `range` = `minmax` and `mse`. With `percentile` and `sigma`, the controls `percentile` and `sigmas` set how much is kept.",
    zh: "在 4 位下比较 `range` 的 `minmax` 与 `mse`。选 `percentile` 或 `sigma` 时，用 `percentile`、`sigmas` 控制保留多少。",
  },
  source: "Banner et al. 2019 (ACIQ), arXiv:1810.05723; Bennett 1948 (s²/12)",
};
