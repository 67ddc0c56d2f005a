// Lesson: rounding by chance. Right on average, noisier each time.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { say } from "../language";
import { quantizeOne, roundHalfEven, roundStochastic, stream } from "./math";
import { axis, Chart, Legend, line, num, Readouts, Slider, type Lesson } from "./parts";

function Widget({ done }: { done: () => void }) {
  const x = useSignal(0.3);
  // Mean and mean squared error after each draw.
  const means = useSignal<number[]>([]);
  const squares = useSignal(0);
  const next = useRef(stream(1));
  const nearest = quantizeOne(x.value, 1, roundHalfEven);
  const draws = means.value.length;
  const average = means.value[draws - 1];
  const close = draws >= 200 && nearest.error !== 0 && Math.abs(average! - x.value) < 0.02;
  useEffect(() => {
    if (close) done();
  }, [close]);

  const draw = (count: number) => {
    const all = [...means.value];
    let sum = (all[all.length - 1] ?? 0) * all.length;
    let squared = squares.value;
    for (let i = 0; i < count; ++i) {
      const value = roundStochastic(x.value, 1, next.current());
      sum += value;
      squared += (x.value - value) ** 2;
      all.push(sum / (all.length + 1));
    }
    squares.value = squared;
    means.value = all;
  };
  const restart = () => {
    means.value = [];
    squares.value = 0;
  };

  const picture = (width: number) => {
    const up = axis(0, 1, 126, 10);
    const at = axis(1, Math.max(100, draws), 26, width - 6);
    const stride = Math.max(1, Math.floor(draws / 400));
    const points = means.value.flatMap((v, i): [number, number][] =>
      i % stride === 0 || i === draws - 1 ? [[at(i + 1), up(v)]] : [],
    );
    return (
      <>
        {[0, 1].map((v) => (
          <g key={v}>
            <line class="ln-hair" x1="26" x2={width - 6} y1={up(v)} y2={up(v)} />
            <text x="18" y={up(v) + 4} text-anchor="end">
              {v}
            </text>
          </g>
        ))}
        <line class="ln-line ln-stroke-before" x1="26" x2={width - 6} y1={up(nearest.value)} y2={up(nearest.value)} />
        <line class="ln-goal" x1="26" x2={width - 6} y1={up(x.value)} y2={up(x.value)} />
        {line(points, "ln-line ln-stroke-after")}
        {draws > 0 && <circle class="ln-fill-after" cx={at(draws)} cy={up(average!)} r="4.5" />}
        <text x={width - 6} y="144" text-anchor="end">
          {say({ en: `${draws} draws`, zh: `${draws} 次` })}
        </text>
      </>
    );
  };

  const fraction = x.value;
  return (
    <>
      <Chart
        height={148}
        label={say({
          en: `Running average of ${draws} stochastic roundings of ${num(x.value)}: ${draws ? num(average!, 3) : "none yet"}. Rounding to nearest always gives ${nearest.value}.`,
          zh: `${num(x.value)} 随机舍入 ${draws} 次的平均：${draws ? num(average!, 3) : "尚未开始"}。就近取整永远给出 ${nearest.value}。`,
        })}
        draw={picture}
      />
      <Legend
        items={[
          ["after", { en: "average of the draws", zh: "各次结果的平均" }],
          ["goal", { en: "x", zh: "x" }],
          ["before", { en: "nearest", zh: "就近取整" }],
        ]}
      />
      <div class="ln-controls">
        <Slider
          label={{ en: "Weight x, step 1", zh: "权重 x，步长为 1" }}
          value={x.value}
          min={0}
          max={1}
          step={0.05}
          show={num(x.value)}
          onInput={(v) => {
            x.value = v;
            restart();
          }}
        />
      </div>
      <div class="ln-buttons">
        <button type="button" onClick={() => draw(1)}>
          {say({ en: "Draw once", zh: "舍入 1 次" })}
        </button>
        <button type="button" onClick={() => draw(100)}>
          {say({ en: "Draw 100 times", zh: "舍入 100 次" })}
        </button>
        <button type="button" onClick={restart}>
          {say({ en: "Start over", zh: "重来" })}
        </button>
      </div>
      <Readouts
        items={[
          [{ en: "Average", zh: "平均值" }, draws ? num(average!, 3) : "–"],
          [{ en: "Nearest gives", zh: "就近取整给出" }, num(nearest.value, 0)],
          [{ en: "Squared error, measured", zh: "平方误差，实测" }, draws ? num(squares.value / draws, 3) : "–"],
          [{ en: "Squared error, expected", zh: "平方误差，期望" }, num(fraction * (1 - fraction), 3)],
          [{ en: "Squared error of nearest", zh: "就近取整的平方误差" }, num(nearest.error ** 2, 3)],
        ]}
      />
    </>
  );
}

export const stochastic: Lesson = {
  id: "stochastic",
  title: { en: "Rounding by chance", zh: "靠概率舍入" },
  ask: {
    en: "The step is 1 and the weight 0.3: rounding to nearest always gives 0. Stochastic rounding gives 1 with a chance of 30 %. What is its average over many draws?",
    zh: "步长为 1，权重是 0.3，就近取整永远得 0。随机舍入有 30 % 的机会得 1。多次舍入的平均是多少？",
  },
  options: [
    { en: "0", zh: "0" },
    { en: "0.3", zh: "0.3" },
    { en: "0.5", zh: "0.5" },
  ],
  answer: 1,
  replies: [
    {
      en: "That is what rounding to nearest gives, always. By chance, 30 of 100 draws give 1.",
      zh: "这是就近取整的结果，永远如此。随机舍入时，100 次里大约有 30 次得 1。",
    },
    {
      en: "0.7·0 + 0.3·1 = 0.3. On average nothing is lost.",
      zh: "0.7·0 + 0.3·1 = 0.3。平均下来什么也没丢。",
    },
    {
      en: "That would be a coin toss. The chance here is the fraction itself: 0.3.",
      zh: "那是抛硬币。这里的概率就是小数部分本身：0.3。",
    },
  ],
  task: {
    en: "Draw at least 200 times, until the average is within 0.02 of x.",
    zh: "至少舍入 200 次，直到平均值与 x 相差不到 0.02。",
  },
  Widget,
  points: [
    {
      en: "*Unbiased*: the average of Q(x) is x. Many small numbers added up keep their sum, where rounding to nearest could lose all of them.",
      zh: "*无偏*：Q(x) 的平均就是 x。许多小数累加时总和得以保留，而就近取整可能把它们全部丢掉。",
    },
    {
      en: "*Noisier*: averaged over all fractions, the squared error is s²/6 instead of s²/12. Expect about 3 dB less SQNR.",
      zh: "*噪声更大*：对所有小数部分取平均，平方误差是 s²/6，而就近取整是 s²/12，SQNR 大约低 3 dB。",
    },
    {
      en: "It shines while *training* in low precision, where tiny updates must not vanish. For rounding finished weights once, nearest is usually better. And it is not the same as replacing weights by random integers, as one program in circulation does: the chance comes from the weight.",
      zh: "它的用武之地是低精度*训练*：微小的更新不能凭空消失。给训练好的权重做一次性舍入，通常还是就近更好。另外，它绝不是“把权重换成随机整数”（确有程序这么写）：概率是由权重本身决定的。",
    },
  ],
  formula: [
    "q = floor(x/s + u),  u ~ U[0, 1)",
    "f = x/s − floor(x/s) = P(up)",
    "E[Q(x)] = x",
    "Var[Q(x)] = s^{2}·f·(1 − f)",
  ],
  symbols: [
    ["u", { en: "uniform random number, from the recipe's seed", zh: "均匀随机数，由配方里的 seed 决定" }],
    ["f", { en: "fraction of the way to the next level", zh: "距下方量化点的比例（小数部分）" }],
  ],
  tryIt: {
    en: "Set `rounding` to `stochastic` and compare the SQNR. The same `seed` gives the same file again.",
    zh: "把 `rounding` 设为 `stochastic`，比较 SQNR。相同的 `seed` 会得到完全相同的文件。",
  },
  source: "Gupta et al. 2015, Deep Learning with Limited Numerical Precision, arXiv:1502.02551",
};
