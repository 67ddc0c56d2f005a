// Lesson: gradient descent. A ball on a curve with two valleys; the learning rate decides where it ends.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say } from "../language";
import { descend, valley, valleySlope, type Optimizer } from "./math";
import { axis, Chart, Choice, Legend, line, num, Numbers, Readouts, Slider, type Lesson } from "./parts";

const kStart = 1.9;
const kSteps = 60;
const kDeep = -0.7; // left of the hill's top

function Widget({ done }: { done: () => void }) {
  const optimizer = useSignal<Optimizer>("sgd");
  const power = useSignal(-1.3);
  const shown = useSignal(kSteps);
  const rate = Number((10 ** power.value).toPrecision(2));
  const path = descend(valleySlope, kStart, rate, kSteps, optimizer.value);
  const lost = path.length <= kSteps;
  const steps = Math.min(shown.value, path.length - 1);
  const x = path[steps]!;
  const end = path.at(-1)!;
  const deep = !lost && end < kDeep && Math.abs(valleySlope(end)) < 0.4;
  useEffect(() => {
    if (deep && optimizer.value !== "sgd") done();
  }, [deep, optimizer.value]);

  const draw = (width: number) => {
    const [at, up] = [axis(-2.2, 2.2, 8, width - 8), axis(-0.1, 3.2, 176, 8)];
    const place = (v: number): [number, number] => {
      const inside = Math.max(-2.2, Math.min(2.2, v));
      return [at(inside), up(Math.min(3.2, valley(inside)))];
    };
    const curve = Array.from({ length: 111 }, (_, i) => place(-2.2 + (i * 4.4) / 110));
    const seen = path.slice(0, steps + 1);
    return (
      <>
        <line class="ln-hair" x1="8" x2={width - 8} y1={up(0)} y2={up(0)} />
        {line(curve, "ln-line ln-stroke-before")}
        {line(seen.map(place), "ln-wrong")}
        {seen.map((v, i) => {
          const [px, py] = place(v);
          return <circle key={i} class="ln-fill-soft" cx={px} cy={py} r="3" />;
        })}
        <circle
          class={lost && steps === path.length - 1 ? "ln-fill-error" : "ln-fill-after"}
          cx={place(x)[0]}
          cy={place(x)[1] - 4}
          r="8"
        />
      </>
    );
  };

  return (
    <>
      <div class="ln-controls">
        <Choice
          label={{ en: "Optimizer", zh: "优化器" }}
          value={optimizer.value}
          options={[
            ["sgd", { en: "SGD", zh: "SGD" }],
            ["momentum", { en: "momentum", zh: "动量" }],
            ["adam", { en: "Adam", zh: "Adam" }],
          ]}
          onChange={(v) => (optimizer.value = v)}
        />
        <Slider
          label={{ en: "Learning rate", zh: "学习率" }}
          value={power.value}
          min={-3}
          max={0.3}
          step={0.05}
          show={String(rate)}
          onInput={(v) => (power.value = v)}
        />
        <Slider
          label={{ en: "Steps", zh: "步数" }}
          value={shown.value}
          min={0}
          max={kSteps}
          onInput={(v) => (shown.value = v)}
        />
      </div>
      <Chart
        height={184}
        label={say({
          en: `A loss curve with a shallow valley on the right and a deeper one on the left. After ${steps} steps the ball is at x = ${num(x)}, loss ${num(valley(x))}.`,
          zh: `损失曲线：右侧浅谷，左侧深谷。走 ${steps} 步后小球位于 x = ${num(x)}，损失 ${num(valley(x))}。`,
        })}
        draw={draw}
      />
      <Legend
        items={[
          ["before", { en: "loss", zh: "损失" }],
          ["after", { en: "the ball now", zh: "小球现在的位置" }],
          ["error", { en: "its way", zh: "走过的路" }],
        ]}
      />
      <Readouts
        items={[
          [{ en: "x", zh: "x" }, num(x)],
          [{ en: "Loss", zh: "损失" }, Math.abs(x) > 100 ? "∞" : num(valley(x)), lost ? "bad" : undefined],
          [{ en: "Slope (gradient)", zh: "斜率（梯度）" }, Math.abs(x) > 100 ? "∞" : num(valleySlope(x))],
          [
            { en: "After all steps", zh: "走完之后" },
            lost
              ? say({ en: "flew away", zh: "飞出去了" })
              : deep
                ? say({ en: "deep valley", zh: "深谷" })
                : end > 0
                  ? say({ en: "shallow valley", zh: "浅谷" })
                  : say({ en: "still rolling", zh: "还在滚" }),
            lost ? "bad" : deep ? "good" : undefined,
          ],
        ]}
      />
      <Numbers
        head={[say({ en: "Step", zh: "步" }), "x", say({ en: "loss", zh: "损失" }), say({ en: "slope", zh: "斜率" })]}
        rows={path.slice(0, 21).map((v, i) => [String(i), num(v, 3), num(valley(v), 3), num(valleySlope(v), 3)])}
      />
    </>
  );
}

export const descent: Lesson = {
  id: "descent",
  title: { en: "Gradient descent", zh: "梯度下降" },
  ask: {
    en: "The learning rate is ten times too large. What happens to the loss?",
    zh: "学习率大了十倍。损失会怎样？",
  },
  options: [
    { en: "It falls ten times faster", zh: "下降快十倍" },
    { en: "It jumps about or grows", zh: "乱跳或上升" },
    { en: "It stays as it is", zh: "不变" },
  ],
  answer: 1,
  replies: [
    {
      en: "Only on a straight slope. In a valley a large step lands on the other side, higher up.",
      zh: "只有在笔直的斜坡上才会。在谷里，大步会跨到对面更高处。",
    },
    {
      en: "A step longer than the valley is wide lands higher than it started; then the slope is steeper and the next step longer still.",
      zh: "步子比山谷还宽时会落在更高处；那里更陡，下一步更大。",
    },
    { en: "That is what a learning rate of nearly zero does.", zh: "学习率几乎为零时才会这样。" },
  ],
  task: {
    en: "Plain SGD stays in the shallow valley. With momentum or Adam, get the ball into the deep one and let it rest there.",
    zh: "普通 SGD 停在浅谷。换用动量或 Adam，让小球进入深谷并停在那里。",
  },
  Widget,
  points: [
    {
      en: "*SGD* steps against the slope, its length rate times slope. Too small: it creeps. Too large: it flies away.",
      zh: "*SGD* 沿斜率反方向走，步长为学习率乘斜率。太小：爬不动；太大：飞出去。",
    },
    {
      en: "*Momentum* keeps nine tenths of its speed: it rolls through small dents and evens out the noise of batches. Ten times the way for the same rate, so take a smaller one.",
      zh: "*动量*保留九成速度：能滚过小坑，也能抹平各批的噪声。同样的学习率走得远十倍，所以要调小。",
    },
    {
      en: "*Adam* divides by the usual size of the slope: each weight moves about `learning_rate` per step, steep or flat. Hence its rates are small, 0.001.",
      zh: "*Adam* 除以斜率的通常大小：无论陡缓，每个权重每步约移动 `learning_rate`。所以它的学习率很小，如 0.001。",
    },
    {
      en: "A *schedule* starts with long steps and ends with short ones: half a cosine from the rate down to 0.",
      zh: "*学习率变化*先大步后小步：例如用半个余弦从初值降到 0。",
    },
  ],
  formula: ["SGD:       x ← x − η·g", "momentum:  v ← 0.9·v + g,  x ← x − η·v", "Adam:      x ← x − η·m̂ / (√v̂ + ε)"],
  symbols: [
    ["g", { en: "gradient: slope of the loss at x", zh: "梯度：损失在 x 处的斜率" }],
    ["η", { en: "learning rate", zh: "学习率" }],
    ["m̂, v̂", { en: "running means of g and of g²", zh: "g 与 g² 的滑动平均" }],
  ],
  tryIt: {
    en: "Open *Train* and run one epoch with rates of 0.0001, 0.001 and 0.1: the curve tells them apart at once.",
    zh: "打开*训练*，分别用 0.0001、0.001 和 0.1 的学习率训练一轮，曲线一看便知。",
  },
  source: "Polyak 1964; Kingma and Ba 2015, arXiv:1412.6980; Loshchilov and Hutter 2017, arXiv:1608.03983",
};
