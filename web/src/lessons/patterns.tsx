// Lesson: the price of order. The freer the pattern, the more energy survives; the stricter, the more hardware gains.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say, type Words } from "../language";
import { bell, dropSmallest, energy, keepNOfM, keepRows, maxAbs, removedByChannels } from "./math";
import { Chart, Check, Choice, Legend, num, Numbers, percent, Readouts, Slider, type Lesson } from "./parts";

const kRows = 8;
const kColumns = 16;
const kMatrix = [1, 0.7, 1.3, 0.5, 0.9, 1.1, 0.6, 1.2].map((sigma, i) => bell(kColumns, 50 + i, sigma));
const kMost = maxAbs(kMatrix.flat());
const kEnergy = energy(kMatrix.flat());
/** The order in which the layer before drops its channels, which are our inputs: its own business, so any order. */
const kInputs = [5, 12, 2, 9, 15, 0, 7, 11, 3, 14, 6, 1, 10, 13, 4, 8];

/** Side of a weight's square in pixels. */
const cellOf = (width: number) => Math.min(28, Math.floor((width - 2) / kColumns));

type Pattern = "unstructured" | "4:8" | "2:4" | "channels";
const kPatterns: [Pattern, Words][] = [
  ["unstructured", { en: "free", zh: "自由" }],
  ["4:8", { en: "4:8", zh: "4:8" }],
  ["2:4", { en: "2:4", zh: "2:4" }],
  ["channels", { en: "channels", zh: "整通道" }],
];

function maskOf(pattern: Pattern, share: number): boolean[][] {
  if (pattern === "2:4") return kMatrix.map((row) => keepNOfM(row, 2, 4));
  if (pattern === "4:8") return kMatrix.map((row) => keepNOfM(row, 4, 8));
  if (pattern === "channels") return keepRows(kMatrix, share).map((keep) => new Array<boolean>(kColumns).fill(keep));
  const keep = dropSmallest(kMatrix.flat(), Math.round(share * kRows * kColumns));
  return kMatrix.map((_, r) => keep.slice(r * kColumns, (r + 1) * kColumns));
}
const keptEnergy = (mask: boolean[][]) =>
  energy(kMatrix.flat().filter((_, i) => mask[Math.floor(i / kColumns)]![i % kColumns])) / kEnergy;

function Widget({ done }: { done: () => void }) {
  const pattern = useSignal<Pattern>("unstructured");
  const share = useSignal(0.5);
  const inputs = useSignal(false);
  const seen = useSignal<Pattern[]>([]);
  const fixed = pattern.value === "2:4" || pattern.value === "4:8";
  const p = fixed ? 0.5 : share.value;
  const withInputs = inputs.value && pattern.value === "channels";
  const gone = withInputs ? kInputs.slice(0, Math.round(p * kColumns)) : [];
  const mask = maskOf(pattern.value, p).map((row) => row.map((keep, c) => keep && !gone.includes(c)));
  const zeros = mask.flat().filter((keep) => !keep).length / (kRows * kColumns);
  useEffect(() => {
    if (p === 0.5 && !withInputs && !seen.value.includes(pattern.value)) seen.value = [...seen.value, pattern.value];
    if (seen.value.length === kPatterns.length) done();
  });

  const draw = (width: number) => {
    const cell = cellOf(width);
    const left = (width - cell * kColumns) / 2;
    const group = pattern.value === "2:4" ? 4 : pattern.value === "4:8" ? 8 : 0;
    return (
      <>
        {kMatrix.map((row, r) =>
          row.map((w, c) => {
            const kept = mask[r]![c];
            return (
              <rect
                key={`${r} ${c}`}
                class={kept ? "ln-fill-after" : "ln-hollow"}
                fill-opacity={kept ? 0.2 + (0.8 * Math.abs(w)) / kMost : undefined}
                x={left + c * cell + 1.5}
                y={r * cell + 1.5}
                width={cell - 3}
                height={cell - 3}
                rx="2"
              />
            );
          }),
        )}
        {group > 0 &&
          Array.from({ length: kColumns / group - 1 }, (_, i) => (
            <line
              key={i}
              class="ln-axis"
              x1={left + (i + 1) * group * cell}
              x2={left + (i + 1) * group * cell}
              y1="0"
              y2={cell * kRows}
            />
          ))}
      </>
    );
  };

  const compared = kPatterns.map(([name, words]) => [name, words, keptEnergy(maskOf(name, 0.5))] as const);
  return (
    <>
      <Chart
        height={(width) => kRows * cellOf(width)}
        label={say({
          en: `A layer of 8 output channels (rows) by 16 inputs (columns); ${percent(zeros)} of the weights are zero.`,
          zh: `一层权重，8 个输出通道（行）× 16 个输入（列），其中 ${percent(zeros)} 为零。`,
        })}
        draw={draw}
      />
      <Legend
        items={[
          ["after", { en: "kept (stronger = larger)", zh: "保留（颜色越浓，权重越大）" }],
          ["hollow", { en: "zero", zh: "零" }],
        ]}
      />
      <div class="ln-controls">
        <Choice
          label={{ en: "Pattern", zh: "模式 pattern" }}
          value={pattern.value}
          options={kPatterns}
          onChange={(v) => (pattern.value = v)}
        />
        {!fixed && (
          <Slider
            label={{ en: "Sparsity p", zh: "稀疏度 p" }}
            value={share.value}
            min={0}
            max={0.875}
            step={0.125}
            show={percent(share.value, 1)}
            onInput={(v) => (share.value = v)}
          />
        )}
        {pattern.value === "channels" && (
          <Check
            label={{
              en: "The layer before lost as many: remove those inputs too",
              zh: "前一层也剪了同样多：连带去掉这些输入",
            }}
            checked={inputs.value}
            onChange={(v) => (inputs.value = v)}
          />
        )}
      </div>
      <Readouts
        items={[
          [{ en: "Weights gone", zh: "去掉的权重" }, percent(zeros, 1)],
          [{ en: "Energy kept", zh: "保留的能量" }, percent(keptEnergy(mask), 1)],
          ...(pattern.value === "channels"
            ? [[{ en: "1 − (1 − p)²", zh: "1 − (1 − p)²" }, percent(removedByChannels(p), 1)] as [Words, string]]
            : []),
        ]}
      />
      <Numbers
        head={[say({ en: "Pattern, half gone", zh: "模式（去掉一半）" }), say({ en: "energy kept", zh: "保留的能量" })]}
        rows={compared.map(([, words, share]) => [say(words), percent(share, 1)])}
      />
      <p class="ln-note">
        {say({ en: "Seen at 50 %: ", zh: "已在 50 % 下看过：" })}
        {num(seen.value.length, 0)} / {kPatterns.length}
      </p>
    </>
  );
}

export const patterns: Lesson = {
  id: "patterns",
  title: { en: "Patterns and channels", zh: "剪枝的模式" },
  ask: {
    en: "A chain of convolutions: you take away half of the output channels of every layer, for real. What share of the weights disappears?",
    zh: "一串卷积层，每层都真正去掉一半的输出通道。一共有多少权重消失了？",
  },
  options: [
    { en: "25 %", zh: "25 %" },
    { en: "50 %", zh: "50 %" },
    { en: "75 %", zh: "75 %" },
  ],
  answer: 2,
  replies: [
    null,
    null,
    {
      en: "The layer before lost half of its outputs too, and those were this layer's inputs: ½ · ½ leaves a quarter.",
      zh: "前一层也少了一半输出，而那正是这一层的输入：½ · ½，只剩四分之一。",
    },
  ],
  task: {
    en: "Look at all four patterns with half of the weights gone. Which keeps the most energy?",
    zh: "在去掉一半权重时，把四种模式都看一遍。哪种保留的能量最多？",
  },
  Widget,
  points: [
    {
      en: "*Free* keeps the most, but its zeros are everywhere and hardware cannot skip them easily.",
      zh: "*自由*模式保留最多，但零散落各处，硬件不容易跳过。",
    },
    {
      en: "*N:M* keeps at most N of every M neighboring inputs. With 2:4, NVIDIA GPUs since Ampere can double the rate of matrix products. It costs a little energy, and the ratio is fixed.",
      zh: "*N:M* 在每 M 个相邻输入中最多留 N 个。2:4 模式下，NVIDIA 自 Ampere 起的 GPU 可使矩阵乘的速率翻倍。代价是损失一点能量，并且比例是定死的。",
    },
    {
      en: "*Channels* drops whole rows by L2 norm: the layer really becomes smaller and faster everywhere, at the highest price in energy. Today Nibble *sets them to zero*; the shapes, and the dense file, stay as they are.",
      zh: "*整通道*按 L2 范数去掉整行：层真的变小，在哪里跑都更快，能量损失也最大。目前 Nibble 只是把它们*置零*，形状和稠密文件的大小都不变。",
    },
  ],
  formula: ["removed = 1 − (1 − p)^{2}", "N:M sparsity = 1 − N/M"],
  symbols: [
    [
      "p",
      {
        en: "share of channels taken away in every layer (first and last layer lose only one side)",
        zh: "每层去掉的通道比例（首层和末层只少一边）",
      },
    ],
    [
      "N:M",
      {
        en: "at most N nonzeros among M consecutive inputs of an output channel",
        zh: "同一输出通道上连续 M 个输入里最多 N 个非零",
      },
    ],
  ],
  tryIt: {
    en: "Set `pattern` to `2:4`, then to `channels` with a `sparsity` of 0.5, and compare the SQNR.",
    zh: "把 `pattern` 设为 `2:4`，再换成 `channels` 并令 `sparsity` 为 0.5，比较 SQNR。",
  },
  source: "Mishra et al. 2021, arXiv:2104.08378; Li et al. 2017, arXiv:1608.08710; Fang et al. 2023, arXiv:2301.12900",
};
