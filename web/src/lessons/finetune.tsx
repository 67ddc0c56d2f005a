// Lesson: fine-tuning after pruning. The weights that stay learn to stand in for those that went.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say } from "../language";
import { dropSmallest, fineTune, regressionData, squaredLoss } from "./math";
import { axis, Chart, Check, Legend, line, num, Numbers, percent, Readouts, Slider, type Lesson } from "./parts";

const kColumns = 18;
const kData = regressionData(80, kColumns, 7);
const kAll = new Array<boolean>(kColumns).fill(true);
const kRate = 0.05;
/** The network before: the same regression, taught until it stands still. */
const kTrained = fineTune(kData.x, kData.y, new Array<number>(kColumns).fill(0), kAll, 600, kRate).weights;
const kBest = squaredLoss(kData.x, kData.y, kTrained);
const kSteps = 60;

function Widget({ done }: { done: () => void }) {
  const dropped = useSignal(9);
  const steps = useSignal(0);
  const masked = useSignal(true);
  const keep = dropSmallest(kTrained, dropped.value);
  const pruned = kTrained.map((w, i) => (keep[i] ? w : 0));
  const { weights, losses } = fineTune(kData.x, kData.y, pruned, masked.value ? keep : kAll, kSteps, kRate);
  const shown =
    steps.value === kSteps
      ? weights
      : fineTune(kData.x, kData.y, pruned, masked.value ? keep : kAll, steps.value, kRate).weights;
  const [start, now] = [losses[0]!, losses[steps.value]!];
  const back = start > kBest ? (start - now) / (start - kBest) : 0;
  const zeros = shown.filter((w) => w === 0).length;
  const recovered = dropped.value >= 9 && masked.value && steps.value > 0 && back >= 0.75;
  useEffect(() => {
    if (recovered) done();
  }, [recovered]);

  const bars = (width: number) => {
    const most = Math.max(...kTrained.map(Math.abs)) * 1.25;
    const up = axis(-most, most, 116, 4);
    const step = width / kColumns;
    const bar = (w: number, i: number, wide: number, style: string) => (
      <rect
        key={`${style}${i}`}
        class={style}
        x={(i + 0.5) * step - (wide * step) / 2}
        width={wide * step}
        y={Math.min(up(0), up(w))}
        height={Math.abs(up(w) - up(0))}
      />
    );
    return (
      <>
        {kTrained.map((w, i) => bar(w, i, 0.8, "ln-fill-before"))}
        {shown.map((w, i) => bar(w, i, 0.4, "ln-fill-after"))}
        <line class="ln-axis" x1="0" x2={width} y1={up(0)} y2={up(0)} />
      </>
    );
  };
  const curve = (width: number) => {
    const top = Math.max(start, kBest * 2) * 1.1;
    const [at, up] = [axis(0, kSteps, 34, width - 8), axis(0, top, 104, 8)];
    return (
      <>
        <line class="ln-hair" x1="34" x2={width - 8} y1={up(0)} y2={up(0)} />
        <line class="ln-goal" x1="34" x2={width - 8} y1={up(kBest)} y2={up(kBest)} />
        <text x="28" y={up(top) + 8} text-anchor="end">
          {num(top, 1)}
        </text>
        <text x="28" y={up(0) + 4} text-anchor="end">
          0
        </text>
        {line(
          losses.map((loss, i): [number, number] => [at(i), up(loss)]),
          "ln-line ln-stroke-before",
        )}
        <circle class="ln-fill-after" cx={at(steps.value)} cy={up(now)} r="6" />
      </>
    );
  };

  return (
    <>
      <div class="ln-controls">
        <Slider
          label={{ en: "Weights removed", zh: "移除的权重" }}
          value={dropped.value}
          min={0}
          max={kColumns - 1}
          show={`${dropped.value} / ${kColumns}`}
          onInput={(v) => (dropped.value = v)}
        />
        <Slider
          label={{ en: "Steps of training", zh: "训练步数" }}
          value={steps.value}
          min={0}
          max={kSteps}
          onInput={(v) => (steps.value = v)}
        />
        <Check
          label={{ en: "keep_masks: removed weights stay zero", zh: "keep_masks：移除的权重保持为零" }}
          checked={masked.value}
          onChange={(v) => (masked.value = v)}
        />
      </div>
      <Chart
        height={120}
        label={say({
          en: `${kColumns} weights before and after; ${zeros} are zero now.`,
          zh: `${kColumns} 个权重的前后对比；现在有 ${zeros} 个为零。`,
        })}
        draw={bars}
      />
      <Legend
        items={[
          ["before", { en: "as trained at first", zh: "最初训练的权重" }],
          ["after", { en: "pruned and fine-tuned", zh: "剪枝并微调后" }],
        ]}
      />
      <Chart
        height={112}
        label={say({
          en: `Loss over ${kSteps} steps from ${num(start)} to ${num(losses.at(-1)!)}; before pruning it was ${num(kBest)}.`,
          zh: `${kSteps} 步的损失，从 ${num(start)} 到 ${num(losses.at(-1)!)}；剪枝前为 ${num(kBest)}。`,
        })}
        draw={curve}
      />
      <Legend
        items={[
          ["before", { en: "loss while fine-tuning", zh: "微调时的损失" }],
          ["goal", { en: "loss before pruning", zh: "剪枝前的损失" }],
        ]}
      />
      <Readouts
        items={[
          [{ en: "Loss before pruning", zh: "剪枝前的损失" }, num(kBest, 3)],
          [{ en: "After pruning", zh: "剪枝后" }, num(start, 3), "bad"],
          [{ en: "After fine-tuning", zh: "微调后" }, num(now, 3), back >= 0.75 ? "good" : undefined],
          [{ en: "Damage repaired", zh: "修复的损伤" }, percent(back)],
          [{ en: "Zeros", zh: "零的个数" }, `${zeros} / ${kColumns}`, zeros < dropped.value ? "bad" : undefined],
        ]}
      />
      <Numbers
        head={[
          "w",
          say({ en: "trained", zh: "训练后" }),
          say({ en: "pruned", zh: "剪枝后" }),
          say({ en: "fine-tuned", zh: "微调后" }),
        ]}
        rows={kTrained.map((w, i) => [String(i + 1), num(w, 3), num(pruned[i]!, 3), num(shown[i]!, 3)])}
      />
    </>
  );
}

export const finetune: Lesson = {
  id: "finetune",
  title: { en: "Fine-tuning after pruning", zh: "剪枝后微调" },
  ask: {
    en: "Half of the weights are gone and the loss is up. Which weights can win some of it back?",
    zh: "一半权重没了，损失上升。哪些权重能把它补回来？",
  },
  options: [
    { en: "The removed ones, by growing again", zh: "被移除的，让它们长回来" },
    { en: "Those that stayed, by moving a little", zh: "留下的，稍微移动" },
    { en: "None", zh: "都不能" },
  ],
  answer: 1,
  replies: [
    {
      en: "Then nothing is pruned any more. The mask must hold; the others have to take over.",
      zh: "那就等于没剪。掩码必须守住，由其余权重接手。",
    },
    {
      en: "Inputs hang together, so a neighbor can stand in for what was removed.",
      zh: "输入之间彼此相关，所以邻居可以顶替被移除的权重。",
    },
    {
      en: "Pruning chose the zeros; nobody has yet asked what the rest should be now.",
      zh: "剪枝只决定了哪些为零；其余该取什么值还没人问过。",
    },
  ],
  task: {
    en: "Remove at least half of the weights and repair three quarters of the damage, with the mask kept.",
    zh: "移除至少一半权重，在保持掩码的情况下修复四分之三的损伤。",
  },
  Widget,
  points: [
    {
      en: "Pruning says *which* weights go, not what the others should be. A few steps of descent with the mask held find out.",
      zh: "剪枝只说*哪些*权重去掉，没说其余该是多少。守住掩码走几步梯度下降就知道了。",
    },
    {
      en: "*Without the mask* the loss recovers better still, because the removed weights grow back: then nothing was saved.",
      zh: "*不守掩码*损失恢复得更好，因为被移除的权重长了回来：那就什么也没省下。",
    },
    {
      en: "The same holds for grids: with `keep_grids` the weights of 4 bits learn while they stay on their 15 levels. Little by little (prune, tune, prune more) costs less accuracy than all at once.",
      zh: "网格也一样：`keep_grids` 让 4 位权重一边学习一边留在 15 个量化点上。一点一点来（剪、调、再剪）比一次到位更省精度。",
    },
  ],
  formula: ["w ← m ⊙ (w − η·∇L(w))", "repaired = (L_{pruned} − L_{now}) / (L_{pruned} − L_{before})"],
  symbols: [
    ["m", { en: "mask: 0 where a weight was removed, else 1", zh: "掩码：被移除处为 0，否则为 1" }],
    ["⊙", { en: "element by element", zh: "逐元素相乘" }],
  ],
  tryIt: {
    en: "Prune 80 %, add *Fine-tune after these steps* to the recipe and run it: the zeros stay, accuracy comes back.",
    zh: "剪掉 80 %，在配方里加上*在这些步骤之后微调*并运行：零还在，准确率回来了。",
  },
  source: "Han et al. 2015, arXiv:1506.02626; Zhu and Gupta 2017, arXiv:1710.01878",
};
