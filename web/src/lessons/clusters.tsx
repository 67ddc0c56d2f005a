// Lesson: weights that share a few values. Lloyd's algorithm round by round, from three starts.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say, type Words } from "../language";
import {
  initialCentroids,
  leastSharingError,
  lloyd,
  nearestOf,
  sharingBits,
  sharingError,
  type Initial,
} from "./coding_math";
import { bell, dropSmallest, histogram, maxAbs } from "./math";
import { axis, bars, Chart, Choice, Legend, line, num, Numbers, percent, Readouts, Slider, type Lesson } from "./parts";

const kAll: Initial[] = ["linear", "density", "random"];
const kNames: Record<Initial, Words> = {
  linear: { en: "linear", zh: "均匀" },
  density: { en: "density", zh: "分位数" },
  random: { en: "random", zh: "随机" },
};
/** What pruning has left of 1,000 weights: 300, none of them near zero. */
const kWeights = ((all) => all.filter((_, i) => dropSmallest(all, 700)[i]))(bell(1000, 31, 0.1));
const kReach = maxAbs(kWeights) * 1.04;
const kSizes = [500, 5000, 400000];

function measure(k: number) {
  const runs = kAll.map((initial) => {
    const rounds = lloyd(kWeights, initialCentroids(kWeights, k, initial));
    return { initial, rounds, errors: rounds.map((centroids) => sharingError(kWeights, centroids)) };
  });
  return { runs, least: leastSharingError(kWeights, k) };
}
const found = new Map<number, ReturnType<typeof measure>>();
function measured(k: number) {
  if (!found.has(k)) found.set(k, measure(k));
  return found.get(k)!;
}

function Widget({ done }: { done: () => void }) {
  const bits = useSignal(3);
  const initial = useSignal<Initial>("linear");
  const round = useSignal(0);
  const size = useSignal(kSizes[0]!);
  const k = 2 ** bits.value;
  const { runs, least } = measured(k);
  const run = runs[kAll.indexOf(initial.value)]!;
  const last = run.rounds.length - 1;
  const at = Math.min(round.value, last);
  const centroids = run.rounds[at]!;
  const error = run.errors[at]!;
  const largest = maxAbs(kWeights.map((w) => w - centroids[nearestOf(centroids, w)]!));
  const best = Math.min(...runs.map(({ errors }) => errors.at(-1)!));
  const solved = k === 8 && at === last && error === best;
  useEffect(() => {
    if (solved) done();
  }, [solved]);

  const drawWeights = (width: number) => {
    const place = axis(-kReach, kReach, 4, width - 4);
    const bins = 70;
    return (
      <>
        {bars(histogram(kWeights, -kReach, kReach, bins), axis(0, bins, 4, width - 4), 100, 84, "ln-fill-before")}
        {centroids.map((c, i) => (
          <g key={i}>
            {i > 0 && (
              <line
                class="ln-hair"
                x1={place((c + centroids[i - 1]!) / 2)}
                x2={place((c + centroids[i - 1]!) / 2)}
                y1="16"
                y2="100"
              />
            )}
            <line class="ln-after" x1={place(c)} x2={place(c)} y1="10" y2="106" />
            <circle class="ln-fill-after" cx={place(c)} cy="8" r="3.5" />
          </g>
        ))}
        <line class="ln-axis" x1="4" x2={width - 4} y1="100" y2="100" />
      </>
    );
  };
  const drawErrors = (width: number) => {
    const most = Math.max(...runs.map(({ errors }) => errors[0]!));
    const rounds = Math.max(...runs.map(({ errors }) => errors.length - 1), 1);
    const [right, up] = [axis(0, rounds, 8, width - 8), axis(Math.log(least), Math.log(most), 104, 10)];
    return (
      <>
        <line class="ln-goal" x1="8" x2={width - 8} y1={up(Math.log(least))} y2={up(Math.log(least))} />
        {runs.map(({ initial: kind, errors }) => (
          <g key={kind}>
            {line(
              errors.map((e, i): [number, number] => [right(i), up(Math.log(e))]),
              `ln-line ln-stroke-${kind === "linear" ? "before" : kind === "density" ? "after" : "text"}`,
            )}
          </g>
        ))}
        <circle class="ln-fill-error" cx={right(at)} cy={up(Math.log(error))} r="5" />
        <text x={width - 8} y="122" text-anchor="end">
          {say({ en: `${rounds} rounds`, zh: `${rounds} 轮` })}
        </text>
      </>
    );
  };

  const { indices, codebook } = sharingBits(size.value, k);
  return (
    <>
      <div class="ln-controls">
        <Slider
          label={{ en: "Bits of an index", zh: "索引位数 bits" }}
          value={bits.value}
          min={1}
          max={5}
          show={say({ en: `${bits.value}: ${k} values`, zh: `${bits.value}：${k} 个值` })}
          onInput={(v) => {
            bits.value = v;
            round.value = 0;
          }}
        />
        <Choice
          label={{ en: "Start", zh: "起点 initial" }}
          value={initial.value}
          options={kAll.map((kind): [Initial, Words] => [kind, kNames[kind]])}
          onChange={(v) => {
            initial.value = v;
            round.value = 0;
          }}
        />
        <Slider
          label={{ en: "Rounds", zh: "轮数" }}
          value={at}
          min={0}
          max={Math.max(1, last)}
          show={`${at} / ${last}`}
          onInput={(v) => (round.value = v)}
        />
      </div>
      <Chart
        height={110}
        label={say({
          en: `Histogram of 300 weights left by pruning, and ${k} shared values after ${at} rounds.`,
          zh: `剪枝后剩下的 300 个权重的直方图，以及 ${at} 轮后的 ${k} 个共享值。`,
        })}
        draw={drawWeights}
      />
      <Chart
        height={126}
        label={say({
          en: `Squared error by round for the three starts. They end ${runs.map(({ errors }) => percent(errors.at(-1)! / least - 1)).join(", ")} above the least possible.`,
          zh: `三种起点下平方误差随轮数的变化。最终比可能的最小值高 ${runs.map(({ errors }) => percent(errors.at(-1)! / least - 1)).join("、")}。`,
        })}
        draw={drawErrors}
      />
      <Legend
        items={[
          ["before", kNames.linear],
          ["after", kNames.density],
          ["text", kNames.random],
          ["goal", { en: "least possible error", zh: "可能的最小误差" }],
        ]}
      />
      <Readouts
        items={[
          [{ en: "Typical error", zh: "典型误差" }, num(Math.sqrt(error), 4)],
          [
            { en: "Squared error over the least", zh: "平方误差超出最小值" },
            percent(error / least - 1),
            error / least < 1.15 ? "good" : "bad",
          ],
          [{ en: "Largest error", zh: "最大误差" }, num(largest, 3)],
        ]}
      />
      <Choice
        label={{ en: "Weights left in the layer", zh: "该层剩下的权重数" }}
        value={size.value}
        options={kSizes.map((n): [number, Words] => [n, { en: n.toLocaleString("en"), zh: n.toLocaleString("en") }])}
        onChange={(v) => (size.value = v)}
      />
      <Readouts
        items={[
          [{ en: "Bits per weight", zh: "每个权重的位数" }, num((indices + codebook) / size.value, 3)],
          [
            { en: "Codebook's share", zh: "码本所占" },
            percent(codebook / (indices + codebook), 1),
            codebook > 0.1 * indices ? "bad" : "good",
          ],
        ]}
      />
      <Numbers
        head={[say({ en: "Round", zh: "轮" }), ...kAll.map((kind) => say(kNames[kind]))]}
        rows={Array.from({ length: Math.max(...runs.map(({ errors }) => errors.length)) }, (_, i) => [
          String(i),
          ...runs.map(({ errors }) => (i < errors.length ? num(1e6 * errors[i]!, 1) : "–")),
        ])}
      />
    </>
  );
}

export const clusters: Lesson = {
  id: "clusters",
  title: { en: "Sharing a few values", zh: "共享少数几个值" },
  ask: {
    en: "400,000 weights share 32 float values. How many bits does a weight take in the file?",
    zh: "40 万个权重共享 32 个浮点值。每个权重在文件里占多少位？",
  },
  options: [
    { en: "1", zh: "1 位" },
    { en: "5", zh: "5 位" },
    { en: "32", zh: "32 位" },
  ],
  answer: 1,
  replies: [
    {
      en: "One bit tells two values apart. 32 values need an index of 5 bits.",
      zh: "1 位只能区分两个值，32 个值需要 5 位索引。",
    },
    {
      en: "An index of 5 bits; the 32 values themselves, 1,024 bits in all, are nothing beside two million.",
      zh: "5 位的索引；32 个值本身共 1024 位，与两百万位相比微不足道。",
    },
    {
      en: "The values are floats, but each is stored once. A weight is only an index.",
      zh: "值是浮点数，但每个只存一次，权重只是一个索引。",
    },
  ],
  task: {
    en: "With 8 values, find the start that ends with the least squared error, and run it to its last round.",
    zh: "用 8 个值，找到最终平方误差最小的起点，并走到最后一轮。",
  },
  Widget,
  points: [
    {
      en: "*Lloyd's algorithm*: every weight goes to its nearest shared value, every value to the mean of its weights, until nothing moves. The error *never rises*, but it can stop above the least possible: where it ends depends on where it starts.",
      zh: "*Lloyd 算法*：每个权重归到最近的共享值，每个共享值移到自己那些权重的平均，直到不再变化。误差*绝不上升*，但可能停在最小值之上：终点取决于起点。",
    },
    {
      en: "*Linear* starts evenly over the range, so the few large weights have values near them. *Density* has one for equal shares of the weights; *random* draws weights by lot. Both crowd where weights are many.",
      zh: "*均匀*在整个范围内等距取点，少数大权重附近也有值。*分位数*让每个值分到同样多的权重；*随机*抽取若干权重。后两者都挤在权重密集处。",
    },
    {
      en: "Which is best? By squared error often not linear, as here. Deep Compression judged by *accuracy after fine-tuning* and found linear best: large weights matter more than they are many. Look at the largest error.",
      zh: "哪个最好？论平方误差往往不是均匀，这里就是。Deep Compression 比的是*微调后的准确率*，结论是均匀最好：大权重虽少却更要紧。请看最大误差。",
    },
    {
      en: "The *codebook* is 32 bits a value: too much for small layers. Pruned weights stay exactly 0 and take no part. And a plain grid with arithmetic coding is often as small, without a table.",
      zh: "*码本*每个值占 32 位，对小层太贵。剪掉的权重始终是 0，不参与聚类。另外，均匀网格配算术编码常常同样小，还不用码本。",
    },
  ],
  formula: ["min Σ (w − c_{q(w)})^{2}", "c_{i} ← mean of w with q(w) = i", "r = 32·n / (n·log_{2}k + 32·k)"],
  symbols: [
    ["c", { en: "shared values (centroids): the codebook", zh: "共享值（质心），即码本" }],
    ["q(w)", { en: "index of the nearest one", zh: "最近的质心的编号" }],
    ["k, n", { en: "shared values, weights", zh: "共享值个数、权重个数" }],
    ["r", { en: "how many times smaller than float32", zh: "比 float32 小多少倍" }],
  ],
  tryIt: {
    en: "Add the step *Share values*, move `bits` and switch `initial`; the histogram shows where the values went.",
    zh: "添加*权重共享*步骤，调 `bits`、切换 `initial`，在直方图上看这些值落在哪里。",
  },
  source: "Lloyd 1982; Han et al. 2016, Deep Compression §3, arXiv:1510.00149",
};
