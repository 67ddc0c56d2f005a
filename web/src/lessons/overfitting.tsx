// Lesson: data splits and overfitting. A polynomial that learns its points by heart.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say } from "../language";
import { bell, polynomialAt, polynomialError, polynomialFit, stream } from "./math";
import { axis, Chart, Check, Legend, line, num, Numbers, Readouts, Slider, type Lesson } from "./parts";

const kMost = 11;
const truth = (x: number): number => Math.sin(2.6 * x) + 0.4 * x;

/** Points of a wave with noise on them. */
function points(count: number, seed: number): { x: number[]; y: number[] } {
  const next = stream(seed);
  const noise = bell(count, seed + 1, 0.3);
  const x = Array.from({ length: count }, () => -1 + 2 * next());
  return { x, y: x.map((v, i) => truth(v) + noise[i]!) };
}
const kValidation = points(24, 41);

function Widget({ done }: { done: () => void }) {
  const degree = useSignal(1);
  const count = useSignal(14);
  const seen = useSignal(false);
  const training = points(count.value, 33);
  const fits = Array.from({ length: kMost }, (_, i) => polynomialFit(training.x, training.y, i + 1));
  const errors = fits.map((fit) => [
    polynomialError(fit, training.x, training.y),
    polynomialError(fit, kValidation.x, kValidation.y),
  ]);
  const best = errors.reduce((at, [, error], i) => (error! < errors[at]![1]! ? i : at), 0) + 1;
  const fit = fits[degree.value - 1]!;
  const [own, other] = errors[degree.value - 1] as [number, number];
  const found = seen.value && degree.value === best && count.value <= 20;
  useEffect(() => {
    if (found) done();
  }, [found]);

  const picture = (width: number) => {
    const [at, up] = [axis(-1.05, 1.05, 4, width - 4), axis(-2.2, 2.2, 186, 4)];
    const place = (x: number, y: number): [number, number] => [at(x), up(Math.max(-2.2, Math.min(2.2, y)))];
    const along = Array.from({ length: 161 }, (_, i) => -1 + i / 80);
    return (
      <>
        <line class="ln-hair" x1="4" x2={width - 4} y1={up(0)} y2={up(0)} />
        {line(
          along.map((x) => place(x, polynomialAt(fit, x))),
          "ln-line ln-stroke-after",
        )}
        {training.x.map((x, i) => (
          <circle key={i} class="ln-fill-before" cx={at(x)} cy={place(x, training.y[i]!)[1]} r="4.5" />
        ))}
        {seen.value &&
          kValidation.x.map((x, i) => (
            <circle key={`v${i}`} class="ln-dot ln-right" cx={at(x)} cy={place(x, kValidation.y[i]!)[1]} r="4" />
          ))}
      </>
    );
  };
  const curves = (width: number) => {
    const [at, up] = [axis(1, kMost, 34, width - 10), axis(0, 0.9, 104, 8)];
    const curve = (which: 0 | 1, style: string) =>
      line(
        errors.map((pair, i): [number, number] => [at(i + 1), up(Math.min(0.9, pair[which]!))]),
        style,
      );
    return (
      <>
        <line class="ln-hair" x1="34" x2={width - 10} y1={up(0)} y2={up(0)} />
        <line class="ln-goal" x1={at(degree.value)} x2={at(degree.value)} y1="6" y2="104" />
        {[0, 0.4, 0.8].map((value) => (
          <text key={value} x="28" y={up(value) + 4} text-anchor="end">
            {num(value, 1)}
          </text>
        ))}
        {curve(0, "ln-line ln-stroke-before")}
        {seen.value && curve(1, "ln-line ln-right")}
        {[1, 3, 5, 7, 9, 11].map((value) => (
          <text key={`d${value}`} x={at(value)} y="120" text-anchor="middle">
            {value}
          </text>
        ))}
      </>
    );
  };

  return (
    <>
      <div class="ln-controls">
        <Slider
          label={{ en: "Degree: how much it can learn", zh: "次数：能学多少" }}
          value={degree.value}
          min={1}
          max={kMost}
          onInput={(v) => (degree.value = v)}
        />
        <Slider
          label={{ en: "Training points", zh: "训练点数" }}
          value={count.value}
          min={13}
          max={60}
          onInput={(v) => (count.value = v)}
        />
        <Check
          label={{ en: "Show what it has never seen", zh: "显示它没见过的点" }}
          checked={seen.value}
          onChange={(v) => (seen.value = v)}
        />
      </div>
      <Chart
        height={190}
        label={say({
          en: `A polynomial of degree ${degree.value} through ${count.value} training points; error ${num(own)} on them, ${num(other)} on others.`,
          zh: `${degree.value} 次多项式拟合 ${count.value} 个训练点；在训练点上误差 ${num(own)}，在其他点上 ${num(other)}。`,
        })}
        draw={picture}
      />
      <Legend
        items={[
          ["before", { en: "training", zh: "训练点" }],
          ["hollow", { en: "validation (never seen)", zh: "验证点（没见过）" }],
          ["after", { en: "the fit", zh: "拟合曲线" }],
        ]}
      />
      <Chart
        height={124}
        label={say({
          en: `Training error falls with every degree; validation error is least at degree ${best}.`,
          zh: `训练误差随次数一直下降；验证误差在 ${best} 次时最小。`,
        })}
        draw={curves}
      />
      <Readouts
        items={[
          [{ en: "Training error", zh: "训练误差" }, num(own, 3)],
          [
            { en: "Validation error", zh: "验证误差" },
            seen.value ? num(other, 3) : "?",
            seen.value
              ? other > 1.5 * errors[best - 1]![1]!
                ? "bad"
                : degree.value === best
                  ? "good"
                  : undefined
              : undefined,
          ],
          [{ en: "Numbers it may choose", zh: "可调的数" }, String(degree.value + 1)],
        ]}
      />
      <Numbers
        head={[
          say({ en: "Degree", zh: "次数" }),
          say({ en: "training", zh: "训练" }),
          say({ en: "validation", zh: "验证" }),
        ]}
        rows={errors.map((pair, i) => [String(i + 1), num(pair[0]!, 3), seen.value ? num(pair[1]!, 3) : "?"])}
      />
    </>
  );
}

export const overfitting: Lesson = {
  id: "overfitting",
  title: { en: "Data splits and overfitting", zh: "数据划分与过拟合" },
  ask: {
    en: "The training error is zero. Is the model good?",
    zh: "训练误差为零。这个模型好吗？",
  },
  options: [
    { en: "Yes, it makes no mistakes", zh: "好，它不犯错" },
    { en: "That cannot be said from this", zh: "由此无法判断" },
    { en: "No, certainly not", zh: "一定不好" },
  ],
  answer: 1,
  replies: [
    {
      en: "None on what it has seen. It may have learned those answers by heart.",
      zh: "只是在见过的样本上不犯错，也许只是背下了答案。",
    },
    {
      en: "Ask it something it has never seen: that is what a split is for.",
      zh: "问它没见过的东西：这就是划分数据的用处。",
    },
    {
      en: "It may be: with much data and little noise. Only unseen samples tell.",
      zh: "也可能好：数据多、噪声少的时候。只有没见过的样本能说明问题。",
    },
  ],
  task: {
    en: "With at most 20 training points, show the unseen ones and find the degree with the least validation error.",
    zh: "训练点不超过 20 个，显示没见过的点，找到验证误差最小的次数。",
  },
  Widget,
  points: [
    {
      en: "*Training* samples teach. *Validation* samples choose: how many epochs, which weights are best, when to stop (`patience`). *Test* samples judge, once, at the end.",
      zh: "*训练*样本用来学。*验证*样本用来选：训练几轮、哪组权重最好、何时停（`patience`）。*测试*样本只在最后评判一次。",
    },
    {
      en: "*Underfitting*: both errors are large, it can learn too little. *Overfitting*: training falls, validation rises, it learns the noise. More data moves the turn to the right.",
      zh: "*欠拟合*：两种误差都大，学不动。*过拟合*：训练误差下降、验证误差上升，它在学噪声。数据越多，转折点越靠右。",
    },
    {
      en: "*Calibration* samples only fit ranges (how data are prepared, how wide activations are) and come from the training part. Whoever chooses by the test set has no test set any more.",
      zh: "*校准*样本只用来定范围（数据如何预处理、激活有多宽），取自训练部分。谁用测试集做选择，谁就不再有测试集。",
    },
  ],
  formula: ["error = √( Σ(f(x_{i}) − y_{i})^{2} / n )"],
  symbols: [
    ["f", { en: "the polynomial, fitted to the training points only", zh: "只用训练点拟合的多项式" }],
    ["n", { en: "number of points that are judged by", zh: "用于评判的点数" }],
  ],
  tryIt: {
    en: "Make only 200 digits, train a new network for 30 epochs and watch the two curves part.",
    zh: "只生成 200 个数字，训练一个新网络 30 轮，看两条曲线如何分开。",
  },
  source: "Bishop 2006, Pattern Recognition and Machine Learning, sections 1.1 and 1.3",
};
