// Lesson: dropping the smallest weights; one threshold per layer or one for all; and what zeros do to a file.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say } from "../language";
import { bell, energy, maxAbs, pruneLayers } from "./math";
import { axis, Chart, Choice, Legend, num, percent, Readouts, Slider, type Lesson } from "./parts";

const kCount = 20;
const kLayers = [bell(kCount, 41, 0.15), bell(kCount, 44, 0.4)];
const kAll = kLayers.flat();
const kMost = maxAbs(kAll);

function Widget({ done }: { done: () => void }) {
  const by = useSignal<"sparsity" | "threshold">("sparsity");
  const sparsity = useSignal(0.3);
  const threshold = useSignal(0.1);
  const scope = useSignal<"layer" | "global">("layer");
  const keep =
    by.value === "threshold"
      ? kLayers.map((layer) => layer.map((w) => Math.abs(w) >= threshold.value))
      : pruneLayers(kLayers, sparsity.value, scope.value);
  const kept = keep.map((mask) => mask.filter(Boolean).length);
  const total = kept[0]! + kept[1]!;
  const remaining = energy(kAll.filter((_, i) => keep.flat()[i])) / energy(kAll);
  const collapsed = by.value === "sparsity" && scope.value === "global" && kept[0] === 0 && kept[1]! > 0;
  useEffect(() => {
    if (collapsed) done();
  }, [collapsed]);

  const draw = (width: number) =>
    kLayers.map((layer, l) => {
      const from = l === 0 ? 0 : width / 2 + 6;
      const bar = (width / 2 - 6) / kCount;
      const up = axis(0, kMost, 136, 20);
      const dropped = layer.filter((_, i) => !keep[l]![i]).map(Math.abs);
      const cut = by.value === "threshold" ? threshold.value : dropped.length ? Math.max(...dropped) : 0;
      return (
        <g key={l}>
          <text class="ln-strong" x={from} y="12">
            {l === 0 ? "A" : "B"}
            {`: ${kept[l]} / ${kCount}`}
          </text>
          {layer.map((w, i) => (
            <rect
              key={i}
              class={keep[l]![i] ? "ln-fill-after" : "ln-hollow"}
              x={from + i * bar + 0.75}
              width={bar - 1.5}
              y={Math.min(132, up(Math.abs(w)))}
              height={Math.max(4, 136 - up(Math.abs(w)))}
            />
          ))}
          <line class="ln-axis" x1={from} x2={from + bar * kCount} y1="136" y2="136" />
          <line class="ln-clip" x1={from} x2={from + bar * kCount} y1={up(cut)} y2={up(cut)} />
        </g>
      );
    });

  const bitmap = kAll.length / 8 + 4 * total;
  return (
    <>
      <Chart
        height={140}
        label={say({
          en: `Magnitudes of two layers of ${kCount} weights. Layer A keeps ${kept[0]}, layer B ${kept[1]}.`,
          zh: `两层各 ${kCount} 个权重的绝对值。A 层保留 ${kept[0]} 个，B 层保留 ${kept[1]} 个。`,
        })}
        draw={draw}
      />
      <Legend
        items={[
          ["after", { en: "kept", zh: "保留" }],
          ["hollow", { en: "set to zero", zh: "置零" }],
          ["clip", { en: "threshold", zh: "阈值" }],
        ]}
      />
      <div class="ln-controls">
        <Choice
          label={{ en: "Chosen by", zh: "按什么剪" }}
          value={by.value}
          options={[
            ["sparsity", { en: "share", zh: "比例" }],
            ["threshold", { en: "threshold", zh: "阈值" }],
          ]}
          onChange={(v) => (by.value = v)}
        />
        {by.value === "sparsity" ? (
          <>
            <Choice
              label={{ en: "Scope", zh: "范围 scope" }}
              value={scope.value}
              options={[
                ["layer", { en: "each layer", zh: "逐层" }],
                ["global", { en: "global", zh: "全局" }],
              ]}
              onChange={(v) => (scope.value = v)}
            />
            <Slider
              label={{ en: "Sparsity", zh: "稀疏度 sparsity" }}
              value={sparsity.value}
              min={0}
              max={1}
              step={0.05}
              show={percent(sparsity.value)}
              onInput={(v) => (sparsity.value = v)}
            />
          </>
        ) : (
          <Slider
            label={{ en: "Threshold", zh: "阈值 threshold" }}
            value={threshold.value}
            min={0}
            max={1}
            step={0.01}
            show={num(threshold.value)}
            onInput={(v) => (threshold.value = v)}
          />
        )}
      </div>
      <Readouts
        items={[
          [{ en: "Zeros", zh: "零的比例" }, percent(1 - total / kAll.length)],
          [{ en: "Energy kept, Σw²", zh: "保留的能量 Σw²" }, percent(remaining, 1)],
          [{ en: "Dense float32", zh: "稠密 float32" }, `${4 * kAll.length} B`],
          [{ en: "Bitmap + nonzeros", zh: "位图 + 非零值" }, `${bitmap} B`, bitmap < 4 * kAll.length ? "good" : "bad"],
        ]}
      />
    </>
  );
}

export const magnitude: Lesson = {
  id: "magnitude",
  title: { en: "Dropping small weights", zh: "剪掉小权重" },
  ask: {
    en: "You set 70 % of a model's weights to zero and save it as a float32 .onnx file. How big is the file?",
    zh: "把模型 70 % 的权重置零，再存成 float32 的 .onnx 文件。文件有多大？",
  },
  options: [
    { en: "30 % of before", zh: "原来的 30 %" },
    { en: "About half", zh: "大约一半" },
    { en: "Just as big", zh: "和原来一样大" },
  ],
  answer: 2,
  replies: [
    null,
    null,
    {
      en: "A zero takes four bytes like any other number. Something has to leave the zeros out, or zip them.",
      zh: "零和别的数一样占四个字节，得有办法不存这些零，或者把它们压缩掉。",
    },
  ],
  task: {
    en: "With global scope, find a sparsity that empties layer A while B lives on.",
    zh: "用全局范围，找到一个稀疏度，使 A 层全军覆没而 B 层还在。",
  },
  Widget,
  points: [
    {
      en: "Magnitude pruning drops the smallest |w|: of all masks of that size it keeps the most energy. Ask for a share (`sparsity`) or name the limit yourself (`threshold`).",
      zh: "幅值剪枝去掉 |w| 最小的权重：同样的数量下，它保留的能量最多。可以按比例（`sparsity`），也可以自己定界限（`threshold`）。",
    },
    {
      en: "*Each layer* loses the same share. *Global* compares all weights: layers with small weights pay more, and a layer may die altogether. A dead layer breaks the network however small the share: look at the layer list.",
      zh: "*逐层*时每层剪掉同样的比例。*全局*时所有权重一起比较：权重普遍偏小的层剪得更多，甚至整层消失。只要有一层死掉，网络就断了，所以要看各层的列表。",
    },
    {
      en: "Zeros save bytes only where the format lets them: zip the file, store a bitmap or indices and the nonzeros, or use an entropy coder. They save time only if the kernels skip them.",
      zh: "只有格式允许时，零才省字节：压缩文件、存位图或索引加非零值，或者用熵编码。只有计算核会跳过零时，它才省时间。",
    },
  ],
  formula: ["keep w  ⇔  |w| > t", "t = k-th smallest |w|", "k = round(p·n)"],
  symbols: [
    ["p", { en: "sparsity, the share that becomes zero", zh: "稀疏度，即置零的比例" }],
    ["n", { en: "number of weights: of one layer, or of all (global)", zh: "权重个数：一层的，或全部的（全局）" }],
    ["t", { en: "threshold", zh: "阈值" }],
  ],
  tryIt: {
    en: "Set `sparsity` to 0.3 and switch `scope` between `layer` and `global`; see which layers pay.",
    zh: "把 `sparsity` 设为 0.3，在 `scope` 的 `layer` 与 `global` 之间切换，看看哪些层付出代价。",
  },
  source: "Han et al. 2015, Learning both Weights and Connections, arXiv:1506.02626",
};
