// Lesson: reading Nibble's pictures. Three layers with three different illnesses, and the remedy that fits each.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say, type Words } from "../language";
import { bell, bestClip, compare, fakeQuantize, histogram, maxAbs } from "./math";
import { axis, bars, Chart, Choice, decibel, Legend, num, Numbers, Readouts, Table, type Lesson } from "./parts";

const kRows = 12;
const kColumns = 40;
type Layer = "A" | "B" | "C";
type Remedy = "none" | "bits" | "channel" | "mse";

const rows = (seed: number, sigma: (row: number) => number) =>
  Array.from({ length: kRows }, (_, r) => bell(kColumns, seed + r, sigma(r)));
const kLayers: Record<Layer, number[][]> = {
  A: rows(60, () => 0.1),
  B: rows(80, (r) => (r === 3 || r === 8 ? 0.4 : 0.012)),
  C: rows(100, () => 0.05).map((row, r) => (r % 4 === 1 ? row.map((w, c) => (c === 3 * r ? 0.9 : w)) : row)),
};

function treat(layer: number[][], remedy: Remedy): number[][] {
  if (remedy === "channel") return layer.map((row) => fakeQuantize(row, 4));
  const all = layer.flat();
  const bits = remedy === "bits" ? 5 : 4;
  const clip = remedy === "mse" ? bestClip(all, bits) : maxAbs(all);
  return layer.map((row) => fakeQuantize(row, bits, clip));
}
const worstOf = (layer: number[][], after: number[][]) =>
  Math.min(...layer.map((row, r) => compare(row, after[r]!).sqnrDb));
const kUntreated = worstOf(kLayers.B, treat(kLayers.B, "none"));

function Widget({ done }: { done: () => void }) {
  const name = useSignal<Layer>("A");
  const remedy = useSignal<Remedy>("none");
  const layer = kLayers[name.value];
  const after = treat(layer, remedy.value);
  const [flat, flatAfter] = [layer.flat(), after.flat()];
  const whole = compare(flat, flatAfter);
  const decibels = layer.map((row, r) => compare(row, after[r]!).sqnrDb);
  const worst = Math.min(...decibels);
  const cured = name.value === "B" && worst > kUntreated + 10;
  useEffect(() => {
    if (cured) done();
  }, [cured]);

  const reach = maxAbs(flat);
  const drawHistogram = (width: number) => {
    const bin = axis(0, 61, 4, width - 4);
    const edge = reach * 1.02;
    return (
      <>
        {bars(histogram(flat, -edge, edge, 61), bin, 78, 72, "ln-fill-before")}
        {bars(histogram(flatAfter, -edge, edge, 61), bin, 78, 72, "ln-outline-after")}
        <line class="ln-axis" x1="4" x2={width - 4} y1="78" y2="78" />
      </>
    );
  };
  const drawMap = (width: number) => {
    const strip = 64;
    const across = (width - strip - 34) / kColumns;
    const bar = axis(0, 30, width - strip, width);
    const most = whole.maxAbs || 1;
    return layer.map((row, r) => (
      <g key={r}>
        <text x="20" y={r * 11 + 10} text-anchor="end">
          {r + 1}
        </text>
        {row.map((w, c) => (
          <rect
            key={c}
            class="ln-fill-error"
            fill-opacity={0.04 + (0.96 * Math.abs(w - after[r]![c]!)) / most}
            x={26 + c * across}
            y={r * 11}
            width={across + 0.3}
            height="10"
          />
        ))}
        <rect
          class={decibels[r]! < 10 ? "ln-fill-error" : "ln-fill-before"}
          x={width - strip}
          y={r * 11}
          width={Math.max(2, bar(Math.min(30, Math.max(0, decibels[r]!))) - width + strip)}
          height="10"
        />
      </g>
    ));
  };

  return (
    <>
      <div class="ln-controls">
        <Choice
          label={{ en: "Layer (4 bits, per tensor)", zh: "层（4 位，逐张量）" }}
          value={name.value}
          options={(["A", "B", "C"] as Layer[]).map((v): [Layer, Words] => [v, { en: v, zh: v }])}
          onChange={(v) => (name.value = v)}
        />
        <Choice
          label={{ en: "Remedy", zh: "改一项" }}
          value={remedy.value}
          options={[
            ["none", { en: "none", zh: "不改" }],
            ["bits", { en: "5 bits", zh: "5 位" }],
            ["channel", { en: "per channel", zh: "逐通道" }],
            ["mse", { en: "range mse", zh: "range mse" }],
          ]}
          onChange={(v) => (remedy.value = v)}
        />
      </div>
      <Chart
        height={82}
        label={say({ en: "Histogram of the layer before and after.", zh: "该层量化前后的直方图。" })}
        draw={drawHistogram}
      />
      <Legend
        items={[
          ["before", { en: "before", zh: "量化前" }],
          ["after", { en: "after", zh: "量化后" }],
          [
            "error",
            { en: "absolute error; right: SQNR of each row (0–30 dB)", zh: "绝对误差；右侧：每行的信噪比（0–30 dB）" },
          ],
        ]}
      />
      <Chart
        height={kRows * 11}
        label={say({
          en: `Error map of 12 rows by 40 columns. The worst row has ${decibel(worst)}.`,
          zh: `12 行 × 40 列的误差图，最差的行为 ${decibel(worst)}。`,
        })}
        draw={drawMap}
      />
      <Readouts
        items={[
          [{ en: "SQNR", zh: "信噪比 SQNR" }, decibel(whole.sqnrDb)],
          [{ en: "Worst row", zh: "最差的行" }, decibel(worst), worst < 10 ? "bad" : "good"],
          [{ en: "Cosine", zh: "余弦相似度" }, num(whole.cosine, 4)],
          [{ en: "Largest error", zh: "最大误差" }, num(whole.maxAbs, 3)],
        ]}
      />
      <Numbers
        head={[say({ en: "Row", zh: "行" }), "max |w|", "SQNR"]}
        rows={layer.map((row, r) => [String(r + 1), num(maxAbs(row), 3), decibel(decibels[r]!)])}
      />
      <div class="ln-thumb">
        <Table
          head={["SQNR", say({ en: "cosine", zh: "余弦" }), say({ en: "rule of thumb", zh: "经验判断" })]}
          rows={kThumb.map(([db, cosine, words]) => [db, cosine, say(words)])}
        />
      </div>
    </>
  );
}

/** The cosines follow from the decibels: for an error uncorrelated with the weights, 1 / sqrt(1 + 10^(-dB/10)). */
const kThumb: [string, string, Words][] = [
  ["> 40 dB", "> 0.9999", { en: "hardly ever noticed (8 bits, per channel)", zh: "几乎察觉不到（8 位，逐通道）" }],
  ["30–40", "0.9995", { en: "usually safe", zh: "通常安全" }],
  ["20–30", "0.995", { en: "check on your data", zh: "请用自己的数据验证" }],
  ["10–20", "0.95", { en: "typical of 4 bits: accuracy often drops", zh: "4 位常见水平：精度常会下降" }],
  ["< 10 dB", "< 0.95", { en: "most layers break without retraining", zh: "多数层不重新训练就会失效" }],
];

export const sqnr: Lesson = {
  id: "sqnr",
  title: { en: "Reading the pictures", zh: "看懂这些图" },
  ask: {
    en: "SQNR rises from 20 to 26 dB. How large is the typical error now, compared with before?",
    zh: "SQNR 从 20 dB 升到 26 dB。典型误差变成原来的多少？",
  },
  options: [
    { en: "6 % smaller", zh: "小 6 %" },
    { en: "Half", zh: "一半" },
    { en: "A quarter", zh: "四分之一" },
  ],
  answer: 1,
  replies: [
    {
      en: "Decibels are logarithms: 6 dB is a factor of 2, not 6 %.",
      zh: "分贝是对数：6 dB 相差 2 倍，而不是 6 %。",
    },
    { en: "6 dB is a factor of 2 in size, 4 in energy.", zh: "6 dB 在大小上差 2 倍，在能量上差 4 倍。" },
    {
      en: "A quarter of the *energy*; the size of an error is its square root, so half.",
      zh: "*能量*是四分之一；误差的大小是能量的平方根，所以是一半。",
    },
  ],
  task: {
    en: "Layer B has a fine SQNR, yet one picture shows it is ill. Cure it: raise its worst row by 10 dB with one remedy.",
    zh: "B 层的 SQNR 看着不错，可有一张图说明它有病。改一项，让它最差的行提高 10 dB。",
  },
  Widget,
  points: [
    {
      en: "*Histogram*: do the levels follow the crowd, or stand where no weights are? (C: a few outliers stretch the range. Remedy: `range`.)",
      zh: "*直方图*：量化点是落在权重密集处，还是落在空处？（C：几个离群值撑大了范围，对策是 `range`。）",
    },
    {
      en: "*Error map*: even grain is good rounding. But it shows absolute error: in B the quiet rows are the dead ones, all zero. The *bars per row* tell (remedy: `granularity`).",
      zh: "*误差图*：均匀的颗粒说明舍入正常。但它画的是绝对误差：B 层里安静的那些行其实已经死了，全变成了零。*每行的柱子*才会露馅（对策：`granularity`）。",
    },
    {
      en: "SQNR and cosine say the same for a whole tensor; the largest error finds single victims. All three are about *weights*. Layers differ in how much error they bear, first and last ones the least, so take the table above as a guess: the judge is accuracy on your data.",
      zh: "对整个张量，SQNR 和余弦说的是一回事；最大误差则能找出个别受害者。这三者都只针对*权重*。各层的耐受力不同，首末层通常最脆弱，所以上面的表只是经验之谈，最终要看在您的数据上的精度。",
    },
  ],
  formula: ["SQNR = 10·log_{10}( Σw^{2} / Σ(w − ŵ)^{2} )  dB", "cos = Σ w·ŵ / (‖w‖·‖ŵ‖)"],
  symbols: [
    ["w, ŵ", { en: "weights before and after", zh: "压缩前、后的权重" }],
    [
      "0 dB",
      { en: "the error is as strong as the weights: nothing is left", zh: "误差和权重一样强，等于什么都没剩下" },
    ],
  ],
  tryIt: {
    en: "Open the layer with the lowest SQNR and look for the picture that explains it.",
    zh: "找到 SQNR 最低的一层，打开它，找出能解释原因的那张图。",
  },
  source: "Lin et al. 2016, arXiv:1511.06393; Nagel et al. 2021, arXiv:2106.08295",
};
