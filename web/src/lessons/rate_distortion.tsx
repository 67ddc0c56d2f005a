// Lesson: rounding for least error + lambda * bits, and three ways of saying what an error costs.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say, type Words } from "../language";
import { cheapest, inverseFactor, quadraticLoss, rateRound } from "./coding_math";
import { bell, mean } from "./math";
import { axis, Chart, Choice, Legend, line, num, Numbers, percent, Readouts, Slider, type Lesson } from "./parts";

type Importance = "none" | "diagonal" | "hessian";
const kAll: Importance[] = ["none", "diagonal", "hessian"];
const kMost = 7;
const kColumns = 16;
const kRows = 2; // shown
/** Weights in steps: 20 outputs of 16 inputs each. */
const kWeights = Array.from({ length: 20 }, (_, r) => bell(kColumns, 500 + r, 1.6));
/** E[x x^T]: every fourth input is five times as strong, and inputs beside each other are alike. Mean diagonal 1. */
const kHessian = ((strength) =>
  strength.map((a, i) => strength.map((b, j) => Math.sqrt(a * b) * 0.8 ** Math.abs(i - j))))(
  Array.from({ length: kColumns }, (_, i) => (i % 4 === 2 ? 2.5 : 0.5)),
);
const diagonal = (of: (h: number) => number) => kHessian.map((row, i) => row.map((h, j) => (i === j ? of(h) : 0)));
const kFactors: Record<Importance, number[][]> = {
  none: diagonal(() => 1),
  diagonal: diagonal((h) => 1 / Math.sqrt(h)),
  hessian: inverseFactor(kHessian),
};
/** As the page has them. */
const kNames: Record<Importance, Words> = {
  none: { en: "Size", zh: "大小" },
  diagonal: { en: "Curvature", zh: "曲率" },
  hessian: { en: "Hessian", zh: "海森矩阵" },
};
const kLambdas = Array.from({ length: 16 }, (_, i) => i / 25);

function measure(importance: Importance, lambda: number) {
  const { levels, prices, bits } = rateRound(kWeights, kFactors[importance], lambda, kMost);
  const squares = kWeights.map((row, r) => mean(row.map((w, i) => (w - levels[r]![i]!) ** 2)));
  const zeros = mean(levels.flat().map((level) => (level === 0 ? 1 : 0)));
  return { levels, prices, bits, zeros, loss: quadraticLoss(kWeights, levels, kHessian), squared: mean(squares) };
}
// Made when they are first looked at.
let curves: Record<Importance, ReturnType<typeof measure>[]> | null = null;
const allCurves = () =>
  (curves ??= Object.fromEntries(kAll.map((kind) => [kind, kLambdas.map((lambda) => measure(kind, lambda))])) as Record<
    Importance,
    ReturnType<typeof measure>[]
  >);

function Widget({ done }: { done: () => void }) {
  const at = useSignal(0);
  const importance = useSignal<Importance>("none");
  const curves = allCurves();
  const lambda = kLambdas[at.value]!;
  const now = curves[importance.value][at.value]!;
  const good = now.bits < 2 && now.loss < 0.12;
  useEffect(() => {
    if (good) done();
  }, [good]);

  const drawWeights = (width: number) => {
    const reach = 5.5;
    const place = axis(-reach, reach, 4, width - 4);
    // Where a weight of mean importance would go, by itself.
    const strip = Array.from({ length: 221 }, (_, i) => ((i - 110) / 110) * reach);
    const levels = strip.map((w) => cheapest(w, 1, lambda, now.prices));
    const bands: [level: number, from: number, to: number][] = [];
    strip.forEach((w, i) => {
      const last = bands.at(-1);
      if (last && last[0] === levels[i]) last[2] = w;
      else bands.push([levels[i]!, last ? last[2] : w, w]);
    });
    return (
      <>
        {bands.map(([level, from, to]) => (
          <rect
            key={`${level} ${from}`}
            class={level === 0 ? "ln-fill-soft" : "ln-band"}
            x={place(from) + 0.5}
            width={Math.max(0, place(to) - place(from) - 1)}
            y="2"
            height="14"
          />
        ))}
        {Array.from({ length: 11 }, (_, i) => i - 5).map((level) => (
          <g key={level}>
            <line class="ln-hair" x1={place(level)} x2={place(level)} y1="2" y2="170" />
            <text x={place(level)} y="184" text-anchor="middle">
              {num(level, 0)}
            </text>
          </g>
        ))}
        {kWeights.slice(0, kRows).map((row, r) =>
          row.map((w, i) => {
            const level = now.levels[r]![i]!;
            const y = 24 + ((r * kColumns + i) * 146) / (kRows * kColumns);
            const moved = level !== Math.round(w);
            return (
              <g key={`${r} ${i}`}>
                <line
                  class={moved ? "ln-line ln-stroke-error" : "ln-line ln-stroke-before"}
                  x1={place(w)}
                  x2={place(level)}
                  y1={y}
                  y2={y}
                />
                <circle
                  class={moved ? "ln-fill-error" : "ln-fill-text"}
                  cx={place(w)}
                  cy={y}
                  r={kHessian[i]![i]! > 1 ? 3.6 : 1.8}
                />
              </g>
            );
          }),
        )}
      </>
    );
  };
  const drawCurves = (width: number) => {
    const [right, up] = [axis(0.8, 3, 30, width - 8), axis(0, Math.sqrt(0.65), 124, 8)];
    const point = ({ bits, loss }: { bits: number; loss: number }): [number, number] => [
      right(bits),
      up(Math.sqrt(loss)),
    ];
    return (
      <>
        <rect class="ln-band" x="30" width={right(2) - 30} y={up(Math.sqrt(0.12))} height={124 - up(Math.sqrt(0.12))} />
        {[0.1, 0.3, 0.6].map((loss) => (
          <g key={loss}>
            <line class="ln-hair" x1="30" x2={width - 8} y1={up(Math.sqrt(loss))} y2={up(Math.sqrt(loss))} />
            <text x="24" y={up(Math.sqrt(loss)) + 4} text-anchor="end">
              {loss}
            </text>
          </g>
        ))}
        {[1, 2, 3].map((bits) => (
          <text key={bits} x={right(bits)} y="140" text-anchor={bits === 3 ? "end" : "middle"}>
            {say({ en: bits === 1 ? "1 bit" : `${bits} bits`, zh: `${bits} 位` })}
          </text>
        ))}
        {kAll.map((kind) => (
          <g key={kind}>
            {line(
              curves[kind].map(point),
              `ln-line ln-stroke-${kind === "none" ? "before" : kind === "diagonal" ? "text" : "after"}`,
            )}
          </g>
        ))}
        <circle class="ln-fill-error" cx={point(now)[0]} cy={point(now)[1]} r="5" />
      </>
    );
  };

  return (
    <>
      <div class="ln-controls">
        <Slider
          label={{ en: "λ, error a bit is worth", zh: "λ：一位抵多少误差" }}
          value={at.value}
          min={0}
          max={kLambdas.length - 1}
          show={num(lambda)}
          onInput={(v) => (at.value = v)}
        />
        <Choice
          label={{ en: "Importance", zh: "重要性 importance" }}
          value={importance.value}
          options={kAll.map((kind): [Importance, Words] => [kind, kNames[kind]])}
          onChange={(v) => (importance.value = v)}
        />
      </div>
      <Chart
        height={188}
        label={say({
          en: `${kRows * kColumns} weights and the levels they go to. ${percent(now.zeros)} of all weights become 0.`,
          zh: `${kRows * kColumns} 个权重以及各自选中的量化级。全部权重中 ${percent(now.zeros)} 变为 0。`,
        })}
        draw={drawWeights}
      />
      <Legend
        items={[
          ["text", { en: "weight (large dot: important)", zh: "权重（大点：重要）" }],
          ["error", { en: "not its nearest level", zh: "没去最近的级" }],
          ["before", { en: "top: what goes to 0", zh: "顶部：归零的范围" }],
        ]}
      />
      <Readouts
        items={[
          [{ en: "Bits per weight", zh: "每个权重的位数" }, num(now.bits), now.bits < 2 ? "good" : undefined],
          [{ en: "Loss eᵀHe", zh: "损失 eᵀHe" }, num(now.loss, 3), now.loss < 0.12 ? "good" : undefined],
          [{ en: "Squared error Σe²", zh: "平方误差 Σe²" }, num(now.squared, 3)],
          [{ en: "Zeros", zh: "零" }, percent(now.zeros)],
        ]}
      />
      <Chart
        height={144}
        label={say({
          en: "Loss against bits for all λ and the three kinds of importance. The Hessian's curve is the lowest.",
          zh: "三种重要性下，随 λ 变化的损失与位数曲线。海森矩阵的曲线最低。",
        })}
        draw={drawCurves}
      />
      <Legend
        items={[
          ["before", kNames.none],
          ["text", kNames.diagonal],
          ["after", kNames.hessian],
        ]}
      />
      <Numbers
        head={["λ", ...kAll.map((kind) => `${say(kNames[kind])}: ${say({ en: "bits, loss", zh: "位数，损失" })}`)]}
        rows={kLambdas.map((l, i) => [
          num(l),
          ...kAll.map((kind) => `${num(curves[kind][i]!.bits)}, ${num(curves[kind][i]!.loss, 3)}`),
        ])}
      />
    </>
  );
}

export const rateDistortion: Lesson = {
  id: "rate-distortion",
  title: { en: "Rounding that counts bits", zh: "算上位数的舍入" },
  ask: {
    en: "A weight lies at 1.45 steps. Level 1 costs 2 bits, level 2 costs 4, level 0 costs half a bit. Where should it go for the smallest file of a given quality?",
    zh: "某权重位于 1.45 步。1 级要 2 位，2 级要 4 位，0 级要半位。在同样质量下要文件最小，该取哪一级？",
  },
  options: [
    { en: "1, the nearest", zh: "1，最近" },
    { en: "0, the cheapest", zh: "0，最便宜" },
    { en: "It depends on what a bit is worth", zh: "看一位值多少误差" },
  ],
  answer: 2,
  replies: [
    {
      en: "At small λ, yes. When a bit is worth much error, 0 wins although it is farther: compare error² + λ·bits.",
      zh: "λ 小时是的。一位能抵很多误差时，0 虽远却更划算：比较的是 误差² + λ·位数。",
    },
    {
      en: "Only at large λ: its error² is 2.1 instead of 0.2. Compare error² + λ·bits.",
      zh: "只有 λ 大时才是：它的误差² 是 2.1，而不是 0.2。比较的是 误差² + λ·位数。",
    },
    {
      en: "Error² + λ·bits: 0.2 + 2λ for level 1, 2.1 + λ/2 for level 0. They are equal at λ = 1.27.",
      zh: "误差² + λ·位数：1 级是 0.2 + 2λ，0 级是 2.1 + λ/2。λ = 1.27 时两者相等。",
    },
  ],
  task: {
    en: "Get below 2 bits per weight at a loss under 0.12, the shaded corner. One kind of importance gets there.",
    zh: "把每个权重压到 2 位以下，且损失小于 0.12（阴影一角）。只有一种重要性做得到。",
  },
  Widget,
  points: [
    {
      en: "Every level has a price: −log₂ of its probability. A weight between two levels goes to the *cheaper* one unless the error is worth the bits. Zero is the cheapest, so the band around it widens: pruning by price.",
      zh: "每个级都有价格：概率的 −log₂。夹在两级之间的权重会去*更便宜*的那一级，除非误差不值得。零最便宜，所以它周围的区间变宽：等于按价格剪枝。",
    },
    {
      en: "*One λ for the whole model* puts the bits where they save most loss. Nibble asks the live coder for each price, which learns from what was chosen.",
      zh: "*整个模型共用一个 λ*，位数自然流向最能减小损失的地方。Nibble 每次都向正在工作的编码器询价，而编码器又从选择中学习。",
    },
    {
      en: "*Size* (`none`) counts nothing but how large an error is. *Curvature* (`diagonal`) also weighs it by the curvature: weights whose inputs are strong stay exact.",
      zh: "*大小*（`none`）只看误差有多大。*曲率*（`diagonal`）还按曲率加权：输入强的权重保持精确。",
    },
    {
      en: "*Hessian* (`hessian`) also knows which inputs go together: after each weight, the later ones of the output move to *make up for its error*. Σe² may grow while the loss falls. Curvature and Hessian need data.",
      zh: "*海森矩阵*（`hessian`）还知道哪些输入相伴变化：每定一个权重，同一输出后面的权重就移动以*弥补它的误差*。Σe² 可能变大，损失却变小。曲率和海森矩阵都需要数据。",
    },
  ],
  formula: [
    "q = argmin  h·(w − q·s)^{2} + λ·bits(q)",
    "bits(q) = log_{2}(1/P(q))",
    "loss = e^{T}·H·e,   H = E[x·x^{T}]",
    "w_{j} ← w_{j} − e_{i}·U_{ij} / U_{ii}   (j > i),   U^{T}U = H^{−1}",
  ],
  symbols: [
    ["λ", { en: "error that one bit is worth", zh: "一位所抵的误差" }],
    ["h", { en: "importance: 1, or the curvature H_{ii}", zh: "重要性：1，或曲率 H_{ii}" }],
    ["e", { en: "errors of one output's weights", zh: "同一输出各权重的误差" }],
    ["x", { en: "the layer's inputs", zh: "该层的输入" }],
  ],
  tryIt: {
    en: "Add the step *Encode* and raise `lambda`; with data loaded, compare *Size*, *Curvature* and *Hessian* under *Errors weighed by* (`importance`).",
    zh: "添加*编码*步骤并加大 `lambda`；载入数据后，在*误差的权重*（`importance`）下比较*大小*、*曲率*与*海森矩阵*。",
  },
  source:
    "Wiedemann et al. 2019, arXiv:1907.11900; Frantar et al. 2023, GPTQ, arXiv:2210.17323; CERWU, arXiv:2505.18758",
};
