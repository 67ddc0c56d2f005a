// Lesson: Huffman codes, why they stop at one bit a symbol, and the gap code that Deep Compression puts before them.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say } from "../language";
import {
  canonicalCodes,
  codedBits,
  entropyOf,
  gapBits,
  gapEntries,
  huffmanLengths,
  ideal,
  prunedLevels,
  tally,
} from "./coding_math";
import { bell } from "./math";
import { axis, Chart, Legend, num, Numbers, percent, Readouts, Slider, type Lesson } from "./parts";

const kWeights = bell(4000, 21, 0.1);
const kMost = 7; // levels of 4 bits go from -7 to 7
const kLevels = Array.from({ length: 2 * kMost + 1 }, (_, i) => i - kMost);
const kTable = 4; // bits that tell one code length
const kWidths = [1, 2, 3, 4, 5, 6, 7, 8];
const kShown = 64; // weights in the strip

/** All of it for one sparsity, in bits a weight, tables included. */
function measure(sparsity: number) {
  const levels = prunedLevels(kWeights, sparsity, 4);
  const counts = tally(levels, -kMost, kMost);
  const lengths = huffmanLengths(counts);
  const gaps = kWidths.map((bits) => {
    const { gaps, values, fillers } = gapBits(levels, bits);
    const tables = kTable * (2 ** bits + kLevels.length);
    return { each: (gaps + values + tables) / levels.length, fillers };
  });
  return {
    levels,
    counts,
    lengths,
    gaps,
    dense: (codedBits(counts, lengths) + kTable * kLevels.length) / levels.length,
    entropy: entropyOf(counts),
    best: 1 + gaps.reduce((best, { each }, i) => (each < gaps[best]!.each ? i : best), 0),
  };
}

function Widget({ done }: { done: () => void }) {
  const sparsity = useSignal(0.5);
  const bits = useSignal(2);
  const now = measure(sparsity.value);
  const { levels, counts, lengths, dense, entropy } = now;
  const gaps = now.gaps[bits.value - 1]!;
  const found = sparsity.value === 0.9 && bits.value === now.best;
  useEffect(() => {
    if (found) done();
  }, [found]);

  const drawCodes = (width: number) => {
    const at = axis(0, kLevels.length, 22, width);
    const up = axis(0, 13, 126, 12);
    return (
      <>
        {[1, 4, 8, 12].map((b) => (
          <g key={b}>
            <line class={b === 1 ? "ln-goal" : "ln-hair"} x1="22" x2={width} y1={up(b)} y2={up(b)} />
            <text x="16" y={up(b) + 4} text-anchor="end">
              {b}
            </text>
          </g>
        ))}
        {kLevels.map((level, i) => {
          const worth = up(Math.min(12.5, ideal(counts[i]! / levels.length)));
          return (
            <g key={level}>
              {counts[i]! > 0 && (
                <>
                  <rect
                    class={level === 0 ? "ln-fill-accent" : "ln-fill-soft"}
                    x={at(i) + 2}
                    width={at(1) - at(0) - 4}
                    y={up(lengths[i]!)}
                    height={up(0) - up(lengths[i]!)}
                  />
                  <line class="ln-line ln-stroke-text" x1={at(i)} x2={at(i + 1)} y1={worth} y2={worth} />
                </>
              )}
              {(at(1) - at(0) > 20 || level % 2 === 0) && (
                <text class={level === 0 ? "ln-strong" : undefined} x={at(i + 0.5)} y="140" text-anchor="middle">
                  {num(level, 0)}
                </text>
              )}
            </g>
          );
        })}
        <line class="ln-axis" x1="22" x2={width} y1={up(0)} y2={up(0)} />
      </>
    );
  };
  // Where the entries of the gap code stand among the first weights.
  const entries = new Map<number, number>();
  let place = -1;
  for (const { gap, level } of gapEntries(levels, bits.value)) {
    place += gap + 1;
    if (place < kShown) entries.set(place, level);
  }
  const drawStrip = (width: number) => {
    const at = axis(0, kShown, 0, width);
    return levels.slice(0, kShown).map((_, i) => {
      const level = entries.get(i);
      return (
        <rect
          key={i}
          class={level === undefined ? "ln-hollow" : level === 0 ? "ln-fill-error" : "ln-fill-after"}
          x={at(i) + 0.5}
          width={Math.max(1, at(1) - at(0) - 1)}
          y="2"
          height="18"
        />
      );
    });
  };

  const codes = canonicalCodes(lengths);
  return (
    <>
      <div class="ln-controls">
        <Slider
          label={{ en: "Sparsity", zh: "稀疏度 sparsity" }}
          value={sparsity.value}
          min={0}
          max={0.95}
          step={0.05}
          show={percent(sparsity.value)}
          onInput={(v) => (sparsity.value = Number(v.toFixed(2)))}
        />
        <Slider
          label={{ en: "Bits of a gap", zh: "间隔的位数" }}
          value={bits.value}
          min={1}
          max={8}
          onInput={(v) => (bits.value = v)}
        />
      </div>
      <Chart
        height={144}
        label={say({
          en: `Length of the Huffman code of each level from −7 to 7. The zero has ${lengths[kMost]} bits and is worth ${num(ideal(counts[kMost]! / levels.length))}.`,
          zh: `−7 到 7 各级的霍夫曼码长。零的码长为 ${lengths[kMost]} 位，其信息量为 ${num(ideal(counts[kMost]! / levels.length))} 位。`,
        })}
        draw={drawCodes}
      />
      <Legend
        items={[
          ["before", { en: "code length, bits", zh: "码长（位）" }],
          ["text", { en: "what it is worth, log₂ 1/p", zh: "信息量 log₂ 1/p" }],
        ]}
      />
      <Chart
        height={22}
        label={say({
          en: `The first ${kShown} weights: ${entries.size} entries of the gap code.`,
          zh: `前 ${kShown} 个权重：间隔码共 ${entries.size} 项。`,
        })}
        draw={drawStrip}
      />
      <Legend
        items={[
          ["after", { en: "entry: gap and level", zh: "一项：间隔与量化级" }],
          ["error", { en: "padding zero", zh: "填充零" }],
          ["hollow", { en: "zero, skipped", zh: "跳过的零" }],
        ]}
      />
      <Readouts
        items={[
          [{ en: "Entropy, bits per weight", zh: "熵，位/权重" }, num(entropy, 3)],
          [{ en: "Huffman, each weight", zh: "霍夫曼，逐个权重" }, num(dense, 3)],
          [
            { en: "… over the entropy", zh: "……高出熵" },
            percent(dense / entropy - 1),
            dense / entropy > 1.25 ? "bad" : "good",
          ],
          [{ en: "Gaps and levels", zh: "间隔 + 量化级" }, num(gaps.each, 3)],
          [
            { en: "… over the entropy", zh: "……高出熵 " },
            percent(gaps.each / entropy - 1),
            gaps.each / entropy > 1.25 ? "bad" : "good",
          ],
          [{ en: "Padding zeros", zh: "填充零" }, String(gaps.fillers)],
        ]}
      />
      <Numbers
        head={[
          say({ en: "Level", zh: "量化级" }),
          say({ en: "count", zh: "个数" }),
          "log₂ 1/p",
          say({ en: "code", zh: "码字" }),
        ]}
        rows={kLevels.map((level, i) => [
          num(level, 0),
          String(counts[i]!),
          counts[i]! > 0 ? num(ideal(counts[i]! / levels.length)) : "–",
          codes[i]! || "–",
        ])}
      />
    </>
  );
}

export const huffman: Lesson = {
  id: "huffman",
  title: { en: "Huffman codes and gaps", zh: "霍夫曼编码与间隔" },
  ask: {
    en: "90 % of a layer's weights are zero. A Huffman code gives every weight a codeword of its own. How short can the file get?",
    zh: "某层 90 % 的权重是零。霍夫曼编码给每个权重一个码字。文件最短能到多少？",
  },
  options: [
    { en: "About 0.1 bit per weight", zh: "每个权重约 0.1 位" },
    { en: "Just as the entropy says", zh: "正好等于熵" },
    { en: "Never under 1 bit per weight", zh: "每个权重至少 1 位" },
  ],
  answer: 2,
  replies: [
    {
      en: "A zero is worth about 0.15 bit here, but no codeword is shorter than one bit.",
      zh: "这里一个零只值约 0.15 位，但码字再短也要 1 位。",
    },
    {
      en: "Only if every share is a power of ½. A zero of 90 % is worth 0.15 bit and gets a whole one.",
      zh: "只有每个比例都是 ½ 的幂时才行。占 90 % 的零只值 0.15 位，却要占整整 1 位。",
    },
    {
      en: "A codeword has one bit at least, and the zeros alone are 90 % of all codewords: far above the entropy.",
      zh: "码字至少 1 位，而单是零就占了九成码字，远高于熵。",
    },
  ],
  task: {
    en: "Set 90 % zeros and find the gap width that takes the fewest bits.",
    zh: "把稀疏度设为 90 %，找到总位数最少的间隔位数。",
  },
  Widget,
  points: [
    {
      en: "A Huffman code joins the two rarest symbols again and again: common levels end up short. No code of *whole bits per symbol* is shorter. *Canonical* means that the lengths alone tell the code, so the table costs little.",
      zh: "霍夫曼编码反复合并最少见的两个符号，常见的级就得到短码。在*每个符号占整数位*的编码里，它最短。*规范*码只需记下码长，表很省。",
    },
    {
      en: "One bit is the floor. At 90 % zeros and 8 to 4 bits that costs 50 to 75 % over the entropy; the less the levels above zero differ, the more.",
      zh: "1 位是下限。90 % 为零、8 到 4 位时，要比熵多 50 % 到 75 %；非零级的种类越少，浪费越多。",
    },
    {
      en: "Deep Compression skips the zeros: each weight that is left carries its level and a *relative index*, the zeros before it. Where more zeros follow than the index can say, a *padding zero* goes between. Few bits: many paddings. Many bits: long gaps are rare, but their table grows.",
      zh: "Deep Compression 跳过零：每个留下的权重记录自己的级和*相对索引*，即前面零的个数。零的个数超出索引范围时，插入一个*填充零*。位数少，填充多；位数多，填充少，但码表变大。",
    },
    {
      en: "So positions are not free: in the first layer of LeNet-300-100, at 92 % zeros, each weight kept took 3.7 bits for its place beside 4.4 for its value.",
      zh: "可见位置并不免费：LeNet-300-100 的第一层在 92 % 为零时，每个保留的权重，位置占 3.7 位，值占 4.4 位。",
    },
  ],
  formula: ["H = Σ p·log_{2}(1/p)  bits per symbol", "H ≤ L < H + 1,   L ≥ 1", "0 0 0 5 0 0 −2  →  (3, 5) (2, −2)"],
  symbols: [
    ["p", { en: "share of a symbol", zh: "某符号所占比例" }],
    ["H", { en: "order-0 entropy", zh: "零阶熵" }],
    ["L", { en: "mean length of a Huffman code", zh: "霍夫曼码的平均码长" }],
  ],
  tryIt: {
    en: "Set `sparsity` to 0.9, add the step *Encode* and switch `coder` between Huffman and arithmetic.",
    zh: "把 `sparsity` 设为 0.9，添加*编码*步骤，让 `coder` 在霍夫曼与算术之间切换。",
  },
  source: "Huffman 1952; Han et al. 2016, Deep Compression §2 and §4, arXiv:1510.00149",
};
