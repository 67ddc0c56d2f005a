// Lesson: arithmetic coding narrows one interval, probabilities are learned on the way, and neighbours tell which one.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say } from "../language";
import {
  adaptiveCosts,
  entropyOf,
  ideal,
  learned,
  narrow,
  shortestFraction,
  tally,
  type Interval,
} from "./coding_math";
import { stream } from "./math";
import { axis, Chart, Choice, Legend, num, Numbers, Readouts, type Lesson } from "./parts";

type Chance = "half" | "fixed" | "learned";
type Context = "none" | "left" | "above";
const kMostDecisions = 24;
const kRowsShown = 4;

// Which weights of a small pruned layer are left: some inputs, columns here, are of no use to any output.
const [kRows, kColumns] = [12, 32];
const kDensities = Array.from({ length: kColumns }, (_, c) => (c < 7 || c > 24 ? 0.02 : c > 13 && c < 18 ? 0.1 : 0.75));
const kMap = ((next) => Array.from({ length: kRows }, () => kDensities.map((density) => (next() < density ? 1 : 0))))(
  stream(3),
);
const kBound = kRows * kColumns * entropyOf(tally(kMap.flat(), 0, 1));

/** How much there is beside and above, as Nibble's fast model counts it: two to the left, three above. */
function contextAt(kind: Context, row: number, column: number): number {
  const at = (r: number, c: number): number => kMap[r]?.[c] ?? 0;
  if (kind === "none") return 0;
  const left = 2 * at(row, column - 1) + at(row, column - 2);
  if (kind === "left") return left;
  const above = 2 * at(row - 1, column) + at(row - 1, column - 1) + at(row - 1, column + 1);
  return Math.ceil(Math.log2(1 + left + above));
}

function chanceOf(kind: Chance, before: readonly number[]): number {
  if (kind === "half") return 0.5;
  return kind === "fixed" ? 0.1 : learned(before.filter(Boolean).length, before.length);
}

function Widget({ done }: { done: () => void }) {
  const decisions = useSignal<number[]>([0, 0]);
  const chance = useSignal<Chance>("half");
  const context = useSignal<Context>("none");
  const steps: { value: number; p: number; interval: Interval; cost: number }[] = [];
  let interval: Interval = { low: 0, width: 1 };
  decisions.value.forEach((value, i) => {
    const p = chanceOf(chance.value, decisions.value.slice(0, i));
    steps.push({ value, p, interval, cost: ideal(value ? p : 1 - p) });
    interval = narrow(interval, value, p);
  });
  const count = steps.length;
  const spent = ideal(interval.width);
  const digits = shortestFraction(interval);
  const ones = decisions.value.filter(Boolean).length;
  const cheap = count >= 12 && ones >= 2 && spent < 0.85 * count;
  useEffect(() => {
    if (cheap) done();
  }, [cheap]);
  const code = (value: number) => {
    if (count < kMostDecisions) decisions.value = [...decisions.value, value];
  };

  // Each row is the interval before a decision at full width; what was chosen becomes the next row.
  const shown = steps.slice(-kRowsShown);
  const drawInterval = (width: number) =>
    shown.map(({ value, p }, i) => {
      const y = 4 + i * 38;
      const split = p * (width - 2) + 1;
      const [from, to] = value ? [1, split] : [split, width - 1];
      return (
        <g key={i}>
          <rect class="ln-hollow" x="1" y={y} width={width - 2} height="18" />
          <rect class={value ? "ln-fill-accent" : "ln-fill-soft"} x={from} y={y} width={to - from} height="18" />
          <path class="ln-band" d={`M${from} ${y + 18}H${to}L${width - 1} ${y + 38}H1Z`} />
          <text class="ln-strong" x={value ? width - 6 : 6} y={y + 13} text-anchor={value ? "end" : "start"}>
            {count - shown.length + i + 1}
            {`: ${value}, P(1) = ${num(p)}`}
          </text>
        </g>
      );
    });
  const costs = adaptiveCosts(kMap, (r, c) => contextAt(context.value, r, c));
  const total = costs.flat().reduce((sum, bits) => sum + bits, 0);
  const drawMap = (width: number) => {
    const at = axis(0, kColumns, 0, width);
    return kMap.map((row, r) =>
      row.map((value, c) => (
        <g key={c}>
          <rect
            class="ln-fill-error"
            fill-opacity={Math.min(1, costs[r]![c]! / 4)}
            x={at(c)}
            y={r * 10}
            width={at(1) - at(0)}
            height="10"
          />
          {value === 1 && <circle class="ln-fill-text" cx={at(c + 0.5)} cy={r * 10 + 5} r="2" />}
        </g>
      )),
    );
  };

  return (
    <>
      <div class="ln-controls">
        <Choice
          label={{ en: "Probability of a 1", zh: "1 的概率" }}
          value={chance.value}
          options={[
            ["half", { en: "½", zh: "½" }],
            ["fixed", { en: "0.1", zh: "0.1" }],
            ["learned", { en: "learned", zh: "边学边用" }],
          ]}
          onChange={(v) => (chance.value = v)}
        />
        <div class="ln-buttons">
          <button type="button" onClick={() => code(0)} disabled={count === kMostDecisions}>
            {say({ en: "Code a 0", zh: "编 0" })}
          </button>
          <button type="button" onClick={() => code(1)} disabled={count === kMostDecisions}>
            {say({ en: "Code a 1", zh: "编 1" })}
          </button>
          <button type="button" onClick={() => (decisions.value = [])}>
            {say({ en: "Start over", zh: "重来" })}
          </button>
        </div>
      </div>
      <Chart
        height={kRowsShown * 38}
        label={say({
          en: `The last ${shown.length} of ${count} decisions: each takes a part of the interval, as wide as it was probable. The interval is now 2 to the −${num(spent)} wide.`,
          zh: `共 ${count} 个判定，图示最后 ${shown.length} 个：每个判定按概率取走区间的一段。区间现宽 2 的 −${num(spent)} 次方。`,
        })}
        draw={drawInterval}
      />
      <Readouts
        items={[
          [{ en: "Decisions", zh: "判定" }, `${count} (${ones} × 1)`],
          [{ en: "Width of the interval", zh: "区间宽度" }, `2^−${num(spent)}`],
          [
            { en: "Bits per decision", zh: "每个判定的位数" },
            count ? num(spent / count) : "–",
            count === 0 ? undefined : spent < 0.85 * count ? "good" : spent > count ? "bad" : undefined,
          ],
          [{ en: "Next: P(1)", zh: "下一个：P(1)" }, num(chanceOf(chance.value, decisions.value), 3)],
        ]}
      />
      <p class="ln-note">
        {say({ en: "Written: ", zh: "写出：" })}
        <code>{`0.${digits || "0"}`}</code>{" "}
        {say({
          en: `in binary, the shortest fraction inside the interval: ${digits.length} bits.`,
          zh: `（二进制），区间内最短的小数：${digits.length} 位。`,
        })}
      </p>
      <Choice
        label={{ en: "A pruned layer: who tells the probability?", zh: "一个剪枝后的层：由谁决定概率？" }}
        value={context.value}
        options={[
          ["none", { en: "one for all", zh: "共用一个" }],
          ["left", { en: "left neighbours", zh: "左邻" }],
          ["above", { en: "left and above", zh: "左邻与上邻" }],
        ]}
        onChange={(v) => (context.value = v)}
      />
      <Chart
        height={kRows * 10}
        label={say({
          en: `Cost of telling for each of ${kRows} by ${kColumns} weights whether it is zero: ${num(total, 0)} bits in all.`,
          zh: `${kRows} × ${kColumns} 个权重各自“是否为零”的代价：共 ${num(total, 0)} 位。`,
        })}
        draw={drawMap}
      />
      <Legend
        items={[
          ["text", { en: "weight that is not zero", zh: "非零权重" }],
          ["error", { en: "bits it took to say so", zh: "说明这一点所花的位数" }],
        ]}
      />
      <Readouts
        items={[
          [{ en: "Bits, adaptive", zh: "自适应，位" }, num(total, 0), total < kBound ? "good" : undefined],
          [{ en: "Order-0 entropy", zh: "零阶熵" }, num(kBound, 0)],
          [{ en: "One bit each", zh: "每个 1 位" }, String(kRows * kColumns)],
        ]}
      />
      <Numbers
        head={["#", say({ en: "decision", zh: "判定" }), "P(1)", say({ en: "bits", zh: "位" })]}
        rows={steps.map(({ value, p, cost }, i) => [String(i + 1), String(value), num(p, 3), num(cost, 3)])}
      />
    </>
  );
}

export const entropy: Lesson = {
  id: "entropy",
  title: { en: "Arithmetic coding", zh: "算术编码" },
  ask: {
    en: "A coder expects a zero with a probability of 90 %, and a zero comes. How many bits does that cost?",
    zh: "编码器认为下一个是零的概率为 90 %，结果确实是零。这要花多少位？",
  },
  options: [
    { en: "0.15", zh: "0.15" },
    { en: "0.9", zh: "0.9" },
    { en: "1", zh: "1" },
  ],
  answer: 0,
  replies: [
    {
      en: "log₂(1/0.9) = 0.152. Fractions of bits are possible because all symbols together become one number.",
      zh: "log₂(1/0.9) = 0.152。所有符号合成一个数，所以可以有零点几位。",
    },
    {
      en: "That is the probability. What it costs is log₂(1/0.9) = 0.152.",
      zh: "那是概率；代价是 log₂(1/0.9) = 0.152。",
    },
    {
      en: "That is a codeword's least. An arithmetic coder has no codewords: log₂(1/0.9) = 0.152.",
      zh: "那是码字的下限。算术编码没有码字：log₂(1/0.9) = 0.152。",
    },
  ],
  task: {
    en: "Code 12 decisions or more, two of them 1 at least, at under 0.85 bits each.",
    zh: "编至少 12 个判定，其中至少两个 1，平均每个不到 0.85 位。",
  },
  Widget,
  points: [
    {
      en: "*Entropy* is the mean of log₂(1/p): no code that knows only the shares gets below it. An *arithmetic coder* starts with [0, 1) and keeps, with each decision, a part as wide as the decision was probable. Any number inside tells all of them.",
      zh: "*熵*是 log₂(1/p) 的平均：只知道各符号比例的编码都低不过它。*算术编码*从 [0, 1) 出发，每个判定按其概率保留一段。区间里任取一个数，就说明了全部判定。",
    },
    {
      en: "*Adaptive*: probabilities are the frequencies so far. The decoder has seen the same, so no table is sent. The price is learning: the first decisions cost more.",
      zh: "*自适应*：概率就是至今的频率。解码器看到的一样，所以不用传表。代价是要学：开头的判定贵一些。",
    },
    {
      en: "*Binary*: a level becomes yes-or-no questions. *Significance* (is it zero?), *sign*, *magnitude* (how large?), and the *remainder*, fine bits that have no pattern. At 90 % zeros and 4 bits, significance is about two thirds of the file.",
      zh: "*二元*：一个量化级拆成若干是非题。*显著性*（是否为零？）、*符号*、*幅值*（多大？），以及*余数*，即没有规律的细位。90 % 为零、4 位时，显著性约占文件的三分之二。",
    },
    {
      en: "*Context*: each question has several probabilities, and the neighbours already coded, left and above, choose one. Where zeros cluster, this goes below the order-0 entropy. Where weights are like dice, it gains nothing.",
      zh: "*上下文*：每个问题备有几个概率，由已编码的左邻和上邻来选。零若成片，就能低于零阶熵；权重若像掷骰子，就毫无收益。",
    },
  ],
  formula: [
    "1:  [l, l + w)  →  [l, l + p·w)",
    "0:  [l, l + w)  →  [l + p·w, l + w)",
    "bits = log_{2}(1/w) = Σ log_{2}(1/p)",
    "P(1) = (n_{1} + 0.4) / (n + 0.8)",
  ],
  symbols: [
    ["l, w", { en: "lower end and width of the interval", zh: "区间的下端与宽度" }],
    [
      "p",
      { en: "probability of what came; in the first two lines, of a 1", zh: "实际结果的概率；前两行中是 1 的概率" },
    ],
    ["n₁, n", { en: "ones and decisions seen in this context", zh: "该上下文里见过的 1 的个数与判定总数" }],
  ],
  tryIt: {
    en: "Add the step *Encode* with `coder` arithmetic: the byte meter shows its size beside the entropy, and where the bits go.",
    zh: "添加*编码*步骤，`coder` 选算术：字节表会列出它与熵的对比，以及位都花在哪里。",
  },
  source: "Shannon 1948; Martin 1979, Range encoding; Wiedemann et al. 2019, DeepCABAC, arXiv:1907.11900",
};
