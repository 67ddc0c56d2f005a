// Lesson: how many levels a bit width has, what each bit is worth in decibels, and which range its codes have.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say } from "../language";
import { bell, bestClip, compare, fakeQuantize, histogram, maxAbs, meanAbs, storageRange, symmetricGrid } from "./math";
import { axis, bars, Chart, Choice, decibel, num, Numbers, Readouts, Slider, type Lesson } from "./parts";

const kWeights = bell(2000, 11, 0.1);
const kReach = maxAbs(kWeights);
const kAllBits = [1, 2, 3, 4, 5, 6, 7, 8];
const kClips = {
  minmax: kAllBits.map(() => kReach),
  mse: kAllBits.map((bits) => (bits === 1 ? kReach : bestClip(kWeights, bits))),
};
const kDecibels = {
  minmax: kAllBits.map((bits, i) => compare(kWeights, fakeQuantize(kWeights, bits, kClips.minmax[i])).sqnrDb),
  mse: kAllBits.map((bits, i) => compare(kWeights, fakeQuantize(kWeights, bits, kClips.mse[i])).sqnrDb),
};

function Widget({ done }: { done: () => void }) {
  const bits = useSignal(8);
  const range = useSignal<"minmax" | "mse">("minmax");
  const b = bits.value;
  const clip = kClips[range.value][b - 1]!;
  const scale = b === 1 ? meanAbs(kWeights) : symmetricGrid(clip, b).scale;
  const after = fakeQuantize(kWeights, b, clip);
  const { mse } = compare(kWeights, after);
  const decibels = kDecibels[range.value];
  const least = decibels.findIndex((db) => db >= 20) + 1;
  // 8 and 1 are where people start and stop; the task is solved by standing on the least width, not by passing it.
  const found = b === least && range.value === "minmax";
  useEffect(() => {
    if (found) done();
  }, [found]);

  const drawWeights = (width: number) => {
    const at = axis(-kReach, kReach, 6, width - 6);
    const bins = 80;
    const bin = axis(0, bins, 6, width - 6);
    const edge = Math.min(2 ** (b - 1) - 1, 127);
    const values = b === 1 ? [-scale, scale] : Array.from({ length: 2 * edge + 1 }, (_, i) => (i - edge) * scale);
    return (
      <>
        {bars(histogram(kWeights, -kReach, kReach, bins), bin, 92, 84, "ln-fill-before")}
        {values.map((v) => (
          <line key={v} class="ln-after" x1={at(v)} x2={at(v)} y1={b > 6 ? 98 : 16} y2="108" />
        ))}
        <line class="ln-axis" x1="6" x2={width - 6} y1="92" y2="92" />
      </>
    );
  };
  const drawDecibels = (width: number) => {
    const at = axis(0, 8, 34, width - 4);
    const up = axis(0, 48, 112, 12);
    return (
      <>
        {[0, 20, 40].map((db) => (
          <g key={db}>
            <line class={db === 20 ? "ln-goal" : "ln-hair"} x1="34" x2={width - 4} y1={up(db)} y2={up(db)} />
            <text x="28" y={up(db) + 4} text-anchor="end">
              {db}
            </text>
          </g>
        ))}
        <text x="2" y="10">
          dB
        </text>
        {decibels.map((db, i) => (
          <g key={i}>
            <rect
              class={i + 1 === b ? "ln-fill-accent" : "ln-fill-soft"}
              x={at(i) + 3}
              width={at(1) - at(0) - 6}
              y={up(Math.max(0, db))}
              height={up(0) - up(Math.max(0, db))}
              rx="2"
            />
            <text class={i + 1 === b ? "ln-strong" : undefined} x={at(i + 0.5)} y="127" text-anchor="middle">
              {i + 1}
            </text>
          </g>
        ))}
      </>
    );
  };

  const [low, high] = storageRange(b);
  const edge = 2 ** (b - 1) - 1;
  return (
    <>
      <Chart
        height={110}
        label={say({
          en: `Histogram of 2,000 weights with ${b === 1 ? 2 : 2 * edge + 1} levels over it.`,
          zh: `2000 个权重的直方图，上面有 ${b === 1 ? 2 : 2 * edge + 1} 个量化点。`,
        })}
        draw={drawWeights}
      />
      <div class="ln-controls">
        <Slider label={{ en: "Bits", zh: "位数 bits" }} value={b} min={1} max={8} onInput={(v) => (bits.value = v)} />
        <Choice
          label={{ en: "Range", zh: "取值范围 range" }}
          value={range.value}
          options={[
            ["minmax", { en: "min-max", zh: "最大最小" }],
            ["mse", { en: "least error", zh: "误差最小" }],
          ]}
          onChange={(v) => (range.value = v)}
        />
      </div>
      <Readouts
        items={[
          [{ en: "Codes used", zh: "使用的码" }, b === 1 ? "−1, +1" : `${num(-edge, 0)} … ${edge}`],
          [
            { en: "Type can hold", zh: "类型能容纳" },
            b === 1 ? say({ en: "2 codes", zh: "2 个码" }) : `${num(low, 0)} … ${high}`,
          ],
          [{ en: "Step s", zh: "步长 s" }, num(scale, 4)],
          [{ en: "Typical error", zh: "典型误差" }, num(Math.sqrt(mse), 4)],
          [{ en: "SQNR", zh: "信噪比 SQNR" }, decibel(decibels[b - 1]!), decibels[b - 1]! >= 20 ? "good" : "bad"],
          [{ en: "Size", zh: "大小" }, `${b}/32 = ${num((100 * b) / 32, 0)} %`],
        ]}
      />
      <Chart
        height={132}
        label={say({
          en: "SQNR for 1 to 8 bits, a bar each.",
          zh: "1 到 8 位的信噪比，每位一根柱子。",
        })}
        draw={drawDecibels}
      />
      <Numbers
        head={[
          say({ en: "Bits", zh: "位数" }),
          say({ en: "min-max", zh: "最大最小" }),
          say({ en: "least error", zh: "误差最小" }),
        ]}
        rows={kAllBits.map((bit, i) => [String(bit), decibel(kDecibels.minmax[i]!), decibel(kDecibels.mse[i]!)])}
      />
    </>
  );
}

export const bits: Lesson = {
  id: "bits",
  title: { en: "What a bit is worth", zh: "一个比特值多少" },
  ask: {
    en: "You go from 8 bits per weight to 7. What happens to the rounding error?",
    zh: "每个权重从 8 位降到 7 位，舍入误差会怎样？",
  },
  options: [
    { en: "It grows by an eighth", zh: "增加八分之一" },
    { en: "It doubles", zh: "翻一倍" },
    { en: "Hardly changes", zh: "几乎不变" },
  ],
  answer: 1,
  replies: [
    {
      en: "The size shrinks by an eighth, but the error doubles: half as many levels share the same range.",
      zh: "体积减少八分之一，误差却翻倍：同样的范围里只剩一半的量化点。",
    },
    {
      en: "Half as many levels, twice the step, twice the error: SQNR falls by 6.02 dB.",
      zh: "量化点减半，步长加倍，误差加倍，SQNR 下降 6.02 dB。",
    },
    {
      en: "It doubles. At 8 bits you may not notice, since twice very little is still little. Below 5 bits you will.",
      zh: "其实翻倍了。8 位时误差本来就小，翻倍也看不太出来；到 5 位以下就明显了。",
    },
  ],
  task: {
    en: "With min-max, find the fewest bits that still give 20 dB.",
    zh: "用“最大最小”范围，找到信噪比仍不低于 20 dB 的最少位数。",
  },
  Widget,
  points: [
    {
      en: "b bits make 2^{b} codes. int8 is −128 … 127 and int4 is *−8 … 7*. (Notes that give −16 … 15 for int4 describe five bits.)",
      zh: "b 位有 2^{b} 个码。int8 是 −128 … 127，int4 是 *−8 … 7*。（有资料把 int4 写成 −16 … 15，那其实是 5 位。）",
    },
    {
      en: "Symmetric grids leave the lowest code unused, so that +w and −w are treated alike: 4 bits use −7 … 7. Two bits are then *ternary*: −s, 0, +s.",
      zh: "对称量化不用最小的那个码，让 +w 和 −w 对等：4 位只用 −7 … 7。于是 2 位就是*三值*：−s、0、+s。",
    },
    {
      en: "One bit is *binary*: −s, +s. Here s is the mean magnitude, which has the least squared error of all s. Notice that 2 bits with min-max are worse than 1 bit: at few bits, choosing the range matters more than a bit.",
      zh: "1 位是*二值*：−s、+s，其中 s 取绝对值的平均，平方误差在所有 s 中最小。请注意：用最大最小范围时，2 位竟比 1 位还差。位数很少时，选对范围比多一位更重要。",
    },
  ],
  formula: ["b ≥ 2:  s = max|w| / (2^{b−1} − 1)", "b = 1:  s = mean|w|", "SQNR ≈ 6.02·b + c  dB"],
  symbols: [
    ["b", { en: "bits per weight", zh: "每个权重的位数" }],
    [
      "c",
      {
        en: "depends on the shape of the weights and the range, not on b",
        zh: "取决于权重的分布和所选范围，与 b 无关",
      },
    ],
  ],
  tryIt: {
    en: "Move `bits` from 8 to 4 and watch the SQNR bar of each layer fall by about 6 dB a step.",
    zh: "把 `bits` 从 8 调到 4，看每一层的 SQNR 每降一位大约掉 6 dB。",
  },
  source: "Bennett 1948 (s²/12); Rastegari et al. 2016, XNOR-Net §3.1; ONNX int4",
};
