// Lesson: who shares a scale. One wide channel takes the levels away from all that share its scale.
import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { say } from "../language";
import { bell, bitsPerWeight, compare, fakeQuantize, maxAbs, quantizeGroups } from "./math";
import { axis, Chart, Choice, decibel, num, Numbers, Readouts, Slider, type Lesson } from "./parts";

const kPerChannel = 64;
const kGroup = 16;
/** Two layers of four channels; the last channel is the one that gets wider. */
const kChannels = [0.04, 0.06, 0.05, 0.04, 0.1, 0.12, 0.09, 0.1].map((sigma, i) => bell(kPerChannel, 20 + i, sigma));
const kNames = kChannels.map((_, i) => `${i < 4 ? "A" : "B"}${(i % 4) + 1}`);
const kWide = 7;

type Granularity = "global" | "tensor" | "channel" | "group";
const kSharing: Record<Granularity, number> = { global: 512, tensor: 256, channel: kPerChannel, group: kGroup };

function quantizeAll(channels: number[][], bits: number, granularity: Granularity): number[][] {
  const all = maxAbs(channels.flat());
  const layer = [maxAbs(channels.slice(0, 4).flat()), maxAbs(channels.slice(4).flat())];
  return channels.map((weights, i) => {
    if (granularity === "group") return quantizeGroups(weights, bits, kGroup);
    if (granularity === "channel") return fakeQuantize(weights, bits);
    return fakeQuantize(weights, bits, granularity === "global" ? all : layer[i < 4 ? 0 : 1]);
  });
}

function Widget({ done }: { done: () => void }) {
  const width = useSignal(1);
  const bits = useSignal(8);
  const granularity = useSignal<Granularity>("tensor");
  const broken = useSignal(false);
  const before = useMemo(
    () => kChannels.map((weights, i) => (i === kWide ? weights.map((w) => w * width.value) : weights)),
    [width.value],
  );
  const after = quantizeAll(before, bits.value, granularity.value);
  const decibels = before.map((weights, i) => compare(weights, after[i]!).sqnrDb);
  const worst = Math.min(...decibels);
  const coarse = granularity.value === "global" || granularity.value === "tensor";
  const fixed = broken.value && !coarse && worst > 10;
  useEffect(() => {
    if (coarse && worst < 5) broken.value = true;
    if (fixed) done();
  });

  const draw = (full: number) => {
    const right = full - 62;
    return before.map((weights, i) => {
      const y = 6 + i * 24;
      const reach = maxAbs(weights);
      const at = axis(-reach, reach, 34, right);
      const values = [...new Set(after[i])].filter((v) => Math.abs(v) <= reach * 1.001);
      return (
        <g key={i}>
          <text class={i === kWide ? "ln-strong" : undefined} x="0" y={y + 14}>
            {kNames[i]}
          </text>
          <rect class="ln-band" x="30" width={right - 26} y={y} height="20" rx="3" />
          <path class="ln-before" d={weights.map((w) => `M${at(w).toFixed(1)} ${y + 1}v9`).join("")} />
          <path class="ln-after" d={values.map((v) => `M${at(v).toFixed(1)} ${y + 10}v9`).join("")} />
          <text class={decibels[i]! < 10 ? "ln-bad" : undefined} x={full} y={y + 14} text-anchor="end">
            {decibel(decibels[i]!)}
          </text>
        </g>
      );
    });
  };

  return (
    <>
      <Chart
        height={200}
        label={say({
          en: `Weights and levels of eight channels. The worst has ${decibel(worst)}.`,
          zh: `八个通道的权重与量化点，最差的通道为 ${decibel(worst)}。`,
        })}
        draw={draw}
      />
      <p class="ln-note">
        {say({
          en: "Layers A and B, four channels each, every strip zoomed to its own weights: top the weights, bottom the levels they land on.",
          zh: "A、B 两层，各四个通道，每条都放大到自己的权重范围：上半是权重，下半是它们落到的量化点。",
        })}
      </p>
      <div class="ln-controls">
        <Slider
          label={{ en: "Channel B4 is wider by", zh: "通道 B4 放大" }}
          value={width.value}
          min={1}
          max={100}
          show={`${width.value} ×`}
          onInput={(v) => (width.value = v)}
        />
        <Choice
          label={{ en: "Bits", zh: "位数" }}
          value={bits.value}
          options={[
            [8, { en: "8", zh: "8" }],
            [4, { en: "4", zh: "4" }],
          ]}
          onChange={(v) => (bits.value = v)}
        />
        <Choice
          label={{ en: "One scale for each", zh: "谁共用一个缩放因子" }}
          value={granularity.value}
          options={[
            ["global", { en: "model", zh: "整个模型" }],
            ["tensor", { en: "tensor", zh: "张量" }],
            ["channel", { en: "channel", zh: "通道" }],
            ["group", { en: `group of ${kGroup}`, zh: `每 ${kGroup} 个一组` }],
          ]}
          onChange={(v) => (granularity.value = v)}
        />
      </div>
      <Readouts
        items={[
          [{ en: "Worst channel", zh: "最差的通道" }, decibel(worst), worst < 10 ? "bad" : "good"],
          [{ en: "All weights together", zh: "全部权重一起算" }, decibel(compare(before.flat(), after.flat()).sqnrDb)],
          [
            { en: "Bits per weight, scales included", zh: "含缩放因子，每权重位数" },
            num(bitsPerWeight(bits.value, kSharing[granularity.value]), 2),
          ],
        ]}
      />
      <Numbers
        head={[say({ en: "Channel", zh: "通道" }), "max |w|", say({ en: "levels hit", zh: "用到的量化点" }), "SQNR"]}
        rows={before.map((weights, i) => [
          kNames[i]!,
          num(maxAbs(weights), 2),
          String(new Set(after[i]).size),
          decibel(decibels[i]!),
        ])}
      />
    </>
  );
}

export const granularity: Lesson = {
  id: "granularity",
  title: { en: "Who shares a scale", zh: "谁共用一个缩放因子" },
  ask: {
    en: "MobileNetV2 got 61.8 % of 1,000 ImageNet pictures right. All weights went to 8 bits, one range per tensor. What was left?",
    zh: "MobileNetV2 在 1000 张 ImageNet 图片上的正确率是 61.8 %。把权重全部变成 8 位、每个张量一个范围之后，还剩多少？",
  },
  options: [
    { en: "61 %", zh: "61 %" },
    { en: "52 %", zh: "52 %" },
    { en: "28 %", zh: "28 %" },
  ],
  answer: 2,
  replies: [
    null,
    null,
    {
      en: "28.0 %. Its depthwise layers have channels of very different widths, and one range has to fit them all.",
      zh: "28.0 %。它的深度卷积层里，各通道宽窄悬殊，却要共用一个范围。",
    },
  ],
  task: {
    en: "Widen B4 until some channel drops below 5 dB. Then repair it with one click (worst channel above 10 dB).",
    zh: "放大 B4，直到有通道跌破 5 dB；然后只点一下就把它修好（最差通道回到 10 dB 以上）。",
  },
  Widget,
  points: [
    {
      en: "The widest weight sets the step for everyone who shares the scale. A channel 50 times narrower is left with a handful of levels, or only zero.",
      zh: "共用一个缩放因子时，步长由最宽的权重决定。窄 50 倍的通道只剩寥寥几个量化点，甚至全变成零。",
    },
    {
      en: "Watch *all weights together*: it stays fine while channels die, because wide weights dominate the sum. Look at the worst channel, not at the total.",
      zh: "注意*全部权重一起算*的那个数：通道都坏死了它还很好看，因为求和被宽的权重主导。要看最差的通道，别只看总数。",
    },
    {
      en: "*Per channel* cures it: 8-bit weights per output channel stay within 2 % of float accuracy across many networks, MobileNets included. A scale of 32 bits costs 32/n bits for each of the n weights that share it: little for a channel of 576, a whole bit in groups of 32. Groups pay off at 4 bits and below.",
      zh: "*逐通道*就能治好：每个输出通道一个缩放因子的 8 位权重，在包括 MobileNet 在内的许多网络上，精度与浮点相差不超过 2 %。一个 32 位的缩放因子由 n 个权重分摊，每个多付 32/n 位：576 个权重的通道几乎不花钱，32 个一组则要整整一位。分组在 4 位及以下才划算。",
    },
  ],
  formula: ["s_{g} = max|w in g| / (2^{b−1} − 1)", "bits per weight = b + 32/n"],
  symbols: [
    [
      "g",
      {
        en: "what shares a scale: model, tensor, channel or group",
        zh: "共用一个缩放因子的范围：模型、张量、通道或组",
      },
    ],
    ["n", { en: "how many weights g holds", zh: "g 里有多少个权重" }],
  ],
  tryIt: {
    en: "Set `granularity` to `tensor`, then `channel`. With `group`, try a `group_size` of 32 and 128 at 4 bits.",
    zh: "先把 `granularity` 设为 `tensor`，再换成 `channel`。选 `group` 时，在 4 位下比较 `group_size` 为 32 和 128。",
  },
  source: "tensorflow/tfjs-examples, quantization/README; Krishnamoorthi 2018, arXiv:1806.08342",
};
