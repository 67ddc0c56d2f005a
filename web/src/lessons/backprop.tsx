// Lesson: backpropagation. Three nodes, four numbers, and the chain rule from right to left.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say } from "../language";
import { chain } from "./math";
import { Chart, Choice, Legend, num, Numbers, Readouts, Slider, type Lesson } from "./parts";

const kNudge = 0.001;

function Widget({ done }: { done: () => void }) {
  const [x, w, c, t] = [useSignal(2), useSignal(1.5), useSignal(-1), useSignal(-2)];
  /** How many gradients are shown, from the right. */
  const back = useSignal(0);
  const steps = useSignal(0);
  const now = chain(x.value, w.value, c.value, t.value);
  const nudged = chain(x.value, w.value + kNudge, c.value, t.value).loss;
  const found = steps.value > 0 && now.loss < 0.01;
  useEffect(() => {
    if (found) done();
  }, [found]);

  const picture = (width: number) => {
    const at = [0.14, 0.42, 0.69, 0.91].map((share) => share * width);
    const node = (i: number, y: number, name: string, value: number, gradient: number, shown: boolean) => (
      <g key={name}>
        <circle class="ln-dot ln-soft" cx={at[i]} cy={y} r="24" />
        <text class="ln-strong" x={at[i]} y={y - 3} text-anchor="middle">
          {name}
        </text>
        <text x={at[i]} y={y + 11} text-anchor="middle">
          {num(value)}
        </text>
        {shown && (
          <text class="ln-bad" x={at[i]} y={y + 38} text-anchor="middle">
            {num(gradient)}
          </text>
        )}
      </g>
    );
    const edge = (x1: number, y1: number, x2: number, y2: number) => {
      const [dx, dy] = [x2 - x1, y2 - y1];
      const size = Math.hypot(dx, dy);
      const [a, b] = [25 / size, 1 - 25 / size];
      return <line class="ln-axis" x1={x1 + dx * a} y1={y1 + dy * a} x2={x1 + dx * b} y2={y1 + dy * b} />;
    };
    return (
      <>
        {edge(at[0]!, 40, at[1]!, 84)}
        {edge(at[0]!, 128, at[1]!, 84)}
        {edge(at[1]!, 84, at[2]!, 84)}
        {edge(at[2]!, 84, at[3]!, 84)}
        <text x={at[1]} y="50" text-anchor="middle">
          a = w·x
        </text>
        <text x={at[2]} y="50" text-anchor="middle">
          b = a + c
        </text>
        <text x={at[3]} y="50" text-anchor="middle">
          (b − t)²
        </text>
        {node(0, 40, "w", w.value, now.dw, back.value >= 3)}
        {node(0, 128, "x", x.value, now.dx, back.value >= 3)}
        {node(1, 84, "a", now.a, now.da, back.value >= 2)}
        {node(2, 84, "b", now.b, now.db, back.value >= 1)}
        {node(3, 84, "L", now.loss, 1, back.value >= 1)}
      </>
    );
  };

  return (
    <>
      <div class="ln-controls">
        {(
          [
            ["x", x],
            ["w", w],
            ["c", c],
            ["t", t],
          ] as const
        ).map(([name, signal]) => (
          <Slider
            key={name}
            label={{ en: name, zh: name }}
            value={signal.value}
            min={-3}
            max={3}
            step={0.1}
            show={num(signal.value, 1)}
            onInput={(v) => (signal.value = v)}
          />
        ))}
      </div>
      <Choice
        label={{ en: "Go backward", zh: "向后走" }}
        value={back.value}
        options={[
          [0, { en: "forward only", zh: "只看前向" }],
          [1, { en: "to b", zh: "到 b" }],
          [2, { en: "to a", zh: "到 a" }],
          [3, { en: "to w and x", zh: "到 w 和 x" }],
        ]}
        onChange={(v) => (back.value = v)}
      />
      <Chart
        height={172}
        label={say({
          en: `w = ${num(w.value)} and x = ${num(x.value)} give a = ${num(now.a)}; with c, b = ${num(now.b)}; the loss is ${num(now.loss)}. Gradients: b ${num(now.db)}, a ${num(now.da)}, w ${num(now.dw)}.`,
          zh: `w = ${num(w.value)}、x = ${num(x.value)} 得 a = ${num(now.a)}；加 c 得 b = ${num(now.b)}；损失 ${num(now.loss)}。梯度：b ${num(now.db)}，a ${num(now.da)}，w ${num(now.dw)}。`,
        })}
        draw={picture}
      />
      <Legend
        items={[
          ["hollow", { en: "inside: the value", zh: "圆内：数值" }],
          ["error", { en: "below: what 1 more of it would add to L", zh: "圆下：它增加 1 会使 L 增加多少" }],
        ]}
      />
      <div class="ln-buttons">
        <button
          type="button"
          onClick={() => {
            w.value = Math.max(-3, Math.min(3, w.value - 0.05 * now.dw));
            back.value = 3;
            steps.value++;
          }}
        >
          w ← w − 0.05·dL/dw
        </button>
      </div>
      <Readouts
        items={[
          [{ en: "Loss L", zh: "损失 L" }, num(now.loss, 3), found ? "good" : undefined],
          [{ en: "dL/dw by the chain rule", zh: "链式法则得到的 dL/dw" }, num(now.dw, 3)],
          [{ en: "dL/dw by trying", zh: "试出来的 dL/dw" }, num((nudged - now.loss) / kNudge, 3)],
          [{ en: "Steps", zh: "步数" }, String(steps.value)],
        ]}
      />
      <Numbers
        head={[
          "",
          say({ en: "value", zh: "数值" }),
          say({ en: "own factor", zh: "本地因子" }),
          say({ en: "gradient", zh: "梯度" }),
        ]}
        rows={[
          ["L", num(now.loss), "1", "1"],
          ["b", num(now.b), `2(b − t) = ${num(now.db)}`, num(now.db)],
          ["a", num(now.a), "1", num(now.da)],
          ["c", num(c.value), "1", num(now.dc)],
          ["w", num(w.value), `x = ${num(x.value)}`, num(now.dw)],
          ["x", num(x.value), `w = ${num(w.value)}`, num(now.dx)],
        ]}
      />
    </>
  );
}

export const backprop: Lesson = {
  id: "backprop",
  title: { en: "Backpropagation", zh: "反向传播" },
  ask: {
    en: "A network has a million weights. How much dearer than one forward pass is it to find all million slopes of the loss?",
    zh: "网络有一百万个权重。求出损失对全部权重的斜率，比一次前向贵多少？",
  },
  options: [
    { en: "A million times", zh: "一百万倍" },
    { en: "About twice", zh: "约两倍" },
    { en: "A thousand times", zh: "一千倍" },
  ],
  answer: 1,
  replies: [
    {
      en: "So it would be by trying each weight alone. Going backward, one pass serves them all.",
      zh: "逐个试才会这样。反向走一遍，所有权重都得到了斜率。",
    },
    {
      en: "One pass backward: each node multiplies what comes from the right by its own factor and hands it on.",
      zh: "只需反向走一遍：每个节点把右边传来的数乘上自己的因子，再往左传。",
    },
    {
      en: "Far less: one pass backward, about two forward passes of work.",
      zh: "远没有那么多：一次反向，约等于两次前向的工作量。",
    },
  ],
  task: {
    en: "Go backward to w, then follow its gradient with the button until the loss is below 0.01.",
    zh: "反向走到 w，再按按钮沿梯度前进，直到损失低于 0.01。",
  },
  Widget,
  points: [
    {
      en: "*Forward*: each node takes numbers from the left and keeps what it will need again.",
      zh: "*前向*：每个节点从左边取数，并记下之后要用到的值。",
    },
    {
      en: "*Backward*: gradient on the left = gradient on the right × the node's own factor. For a product the factor is the other input: that is why x must be kept.",
      zh: "*反向*：左边的梯度 = 右边的梯度 × 本节点的因子。对乘法而言，因子就是另一个输入，所以 x 必须保留。",
    },
    {
      en: "Where a value goes to several places its gradients are added. Rounding has slope 0 nearly everywhere; for quantized weights the gradient is passed straight through instead (`keep_grids`).",
      zh: "一个值流向多处时，梯度相加。取整的斜率几乎处处为 0；对量化权重，梯度直接穿过去（`keep_grids`）。",
    },
  ],
  formula: ["dL/dw = dL/db · db/da · da/dw", "      = 2(b − t) · 1 · x"],
  symbols: [
    ["L", { en: "loss: what shall become small", zh: "损失：要变小的量" }],
    ["t", { en: "target", zh: "目标值" }],
  ],
  tryIt: {
    en: "Train for one epoch: each batch is one forward and one backward pass like this, for all weights at once.",
    zh: "训练一轮：每一批就是这样一次前向加一次反向，同时作用于所有权重。",
  },
  source: "Rumelhart, Hinton and Williams 1986; Bengio et al. 2013, arXiv:1308.3432 (straight through)",
};
