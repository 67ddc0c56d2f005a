// Lesson: uniform quantization of one number, how ties are decided, and two wrong formulas that are in circulation.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say } from "../language";
import { meanError, quantizeOne, roundHalfAway, roundHalfEven, roundMisprinted, roundOffset, type Rule } from "./math";
import { axis, Chart, num, Slider, Table, type Lesson } from "./parts";

const kRules: { name: { en: string; zh: string }; rule: Rule }[] = [
  { name: { en: "Half away from zero", zh: "远离零（四舍五入）" }, rule: roundHalfAway },
  { name: { en: "Half to even", zh: "取偶（ONNX）" }, rule: roundHalfEven },
  { name: { en: "Misprint", zh: "印错的公式" }, rule: roundMisprinted },
  { name: { en: "Offset", zh: "加偏移" }, rule: roundOffset },
];
const kReach = 6; // the ruler ends at plus and minus this

function Widget({ done }: { done: () => void }) {
  // In twentieths and quarters, so that ties are exact.
  const twentieths = useSignal(-72);
  const quarters = useSignal(4);
  const x = twentieths.value / 20;
  const s = quarters.value / 4;
  const results = kRules.map(({ rule }) => quantizeOne(x, s, rule));
  const [away, even, misprint] = [results[0]!, results[1]!, results[2]!];
  const tie = away.code !== even.code;
  useEffect(() => {
    if (tie) done();
  }, [tie]);

  const draw = (width: number) => {
    const at = axis(-kReach, kReach, 14, width - 14);
    const gap = at(s) - at(0);
    const most = Math.floor(kReach / s);
    const codes = Array.from({ length: 2 * most + 1 }, (_, i) => i - most);
    const arrow = (to: number, depth: number, style: string) => (
      <>
        <path class={style} d={`M${at(x)} 66Q${(at(x) + at(to)) / 2} ${66 - depth} ${at(to)} 66`} />
        <circle class={`${style} ln-dot`} cx={at(to)} cy="66" r="4.5" />
      </>
    );
    return (
      <>
        <rect class="ln-band" x={at(even.value - s / 2)} y="58" width={gap} height="16" />
        <line class="ln-axis" x1={at(-kReach)} x2={at(kReach)} y1="66" y2="66" />
        {codes.map((q) => (
          <g key={q}>
            <line class="ln-after" x1={at(q * s)} x2={at(q * s)} y1="58" y2="74" />
            {(gap > 24 || q % 2 === 0) && (gap > 12 || q % 4 === 0) && (
              <text x={at(q * s)} y="90" text-anchor="middle">
                {num(q, 0)}
              </text>
            )}
          </g>
        ))}
        {misprint.code !== away.code && arrow(Math.max(-kReach, misprint.value), 84, "ln-wrong")}
        {tie && arrow(away.value, 50, "ln-soft")}
        {arrow(even.value, 50, "ln-right")}
        <path class="ln-fill-text" d={`M${at(x)} 64l-6 -10h12z`} />
        <text class="ln-strong" x={Math.min(width - 24, Math.max(24, at(x)))} y="14" text-anchor="middle">
          {`x = ${num(x)}`}
        </text>
        <line class="ln-hair" x1={at(x)} x2={at(x)} y1="18" y2="54" />
      </>
    );
  };

  return (
    <>
      <Chart
        height={96}
        label={say({
          en: `A ruler with a level every ${s}. ${num(x)} goes to ${num(even.value)}; the misprint sends it to ${num(misprint.value)}.`,
          zh: `每隔 ${s} 有一个量化点的标尺。${num(x)} 变为 ${num(even.value)}；印错的公式给出 ${num(misprint.value)}。`,
        })}
        draw={draw}
        onDrag={(px, width) => {
          const value = axis(14, width - 14, -kReach, kReach)(px);
          twentieths.value = Math.round(20 * Math.min(kReach, Math.max(-kReach, value)));
        }}
      />
      <div class="ln-controls">
        <Slider
          label={{ en: "Number x", zh: "数值 x" }}
          value={twentieths.value}
          min={-20 * kReach}
          max={20 * kReach}
          show={num(x)}
          onInput={(v) => (twentieths.value = v)}
        />
        <Slider
          label={{ en: "Step s", zh: "步长 s" }}
          value={quarters.value}
          min={2}
          max={8}
          show={num(s)}
          onInput={(v) => (quarters.value = v)}
        />
      </div>
      <Table
        head={[say({ en: "Rule", zh: "规则" }), "q", "Q(x)", "e", say({ en: "mean e", zh: "e 的均值" })]}
        rows={kRules.map(({ name, rule }, i) => [
          say(name),
          num(results[i]!.code, 0),
          num(results[i]!.value),
          num(results[i]!.error),
          num(meanError(s, rule)),
        ])}
        marked={(row) => Math.abs(results[row]!.error) > s / 2 + 1e-9}
      />
    </>
  );
}

export const rounding: Lesson = {
  id: "rounding",
  title: { en: "Rounding to a step", zh: "按步长取整" },
  ask: {
    en: "With step 1, the weight 3.6 becomes 4, an error of −0.4. What should −3.6 become?",
    zh: "步长为 1 时，权重 3.6 变成 4，误差是 −0.4。那么 −3.6 应当变成多少？",
  },
  options: [
    { en: "−3", zh: "−3" },
    { en: "−4", zh: "−4" },
    { en: "−5", zh: "−5" },
  ],
  answer: 1,
  replies: [
    {
      en: "That would be cutting off the fraction: off by 0.6. The nearest level is −4, off by 0.4.",
      zh: "这是直接舍去小数，误差为 0.6。最近的量化点是 −4，误差只有 0.4。",
    },
    {
      en: "−4 is nearest, with e = +0.4. Rounding treats both signs alike.",
      zh: "−4 最近，e = +0.4。取整对正负数应当一视同仁。",
    },
    {
      en: "You may have met the misprint floor(x/s − 0.5) = floor(−4.1) = −5. It overshoots by a whole level.",
      zh: "您可能见过那条印错的公式：floor(x/s − 0.5) = floor(−4.1) = −5，多走了整整一格。",
    },
  ],
  task: {
    en: "Find an x where half away and half to even disagree.",
    zh: "找到一个 x，使“远离零”和“取偶”给出不同的结果。",
  },
  Widget,
  points: [
    {
      en: "A grid of step s keeps only the multiples of s. The error of the nearest level is never more than *s/2*.",
      zh: "步长为 s 的网格只保留 s 的整数倍。取最近的量化点时，误差绝不超过 *s/2*。",
    },
    {
      en: "Rules differ only on exact ties. ONNX (and Nibble) sends ties to the *even* neighbor, so that they do not all drift the same way: 2.5 → 2, 3.5 → 4.",
      zh: "各种规则只在“正好一半”时才有分歧。ONNX（以及 Nibble）向*偶数*取整，避免总往同一个方向偏：2.5 → 2，3.5 → 4。",
    },
    {
      en: "Two wrong formulas travel through course notes. The misprint uses floor for negatives and lands a whole step too low there (even −3, already a level, becomes −4). Offset rounding, round(x/s + 0.5), is *half a step too high on average*. The last column measures it over both signs, so the misprint shows half a step there.",
      zh: "有两条错误的公式流传甚广。一条对负数误用 floor，在负半轴平均偏低整整一个步长（连本来就在格点上的 −3 也会变成 −4）；另一条是加偏移的 round(x/s + 0.5)，*平均偏高半个步长*。表格最后一列是正负两侧合起来实测的均值，所以印错的公式在那里显示半个步长。",
    },
  ],
  formula: ["x ≥ 0:  q = floor(x/s + 0.5)", "x < 0:  q = ceil(x/s − 0.5)", "Q(x) = q·s,   e = x − Q(x)"],
  symbols: [
    ["x", { en: "real value", zh: "实数值" }],
    ["s", { en: "step, also called scale", zh: "步长，也叫缩放因子（scale）" }],
    ["q", { en: "integer code, what gets stored", zh: "整数码，真正存下来的东西" }],
    ["e", { en: "error", zh: "误差" }],
  ],
  tryIt: {
    en: "`rounding`: `nearest` is half to even. Set `bits` to 3 and look at the levels over a layer's histogram.",
    zh: "`rounding` 选 `nearest` 就是向偶数取整。把 `bits` 设成 3，看看某一层直方图上的量化点。",
  },
  source: "IEEE 754-2019 §4.3.1; ONNX QuantizeLinear",
};
