// Lesson: what the model does. Weight error, activation error and accuracy are three different things.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say } from "../language";
import { compare, moons, netAccuracy, netLayers, netScore, quantizeNet, trainNet, type Net } from "./math";
import { axis, Chart, decibel, Legend, Numbers, percent, Readouts, Slider, type Lesson } from "./parts";

const kMoons = moons(160, 5);
const kTest = moons(200, 77);
let trained: Net | null = null;
/** Taught when the lesson is first opened: it takes a moment. */
const network = (): Net => (trained ??= trainNet([2, 8, 8, 1], kMoons.points, kMoons.classes, 200, 3));

const kCell = 8;

function Widget({ done }: { done: () => void }) {
  const bits = [useSignal(8), useSignal(8), useSignal(8)];
  const before = network();
  const now = bits.map(({ value }) => value);
  const after = quantizeNet(before, now);
  const accuracy = [before, after].map((net) => netAccuracy(net, kTest.points, kTest.classes));
  const own = (layer: number[][]): number[] => layer.flatMap((row) => row.slice(0, -1)); // without the biases
  const weights = before.map((layer, l) => compare(own(layer), own(after[l]!)).sqnrDb);
  const outputs = before.map((_, l) => {
    const [one, two] = [before, after].map((net) => kTest.points.flatMap((point) => netLayers(net, point)[l]!));
    return compare(one!, two!).sqnrDb;
  });
  const flipped = kTest.points.filter((point) => netScore(before, point) > 0 !== netScore(after, point) > 0).length;
  const total = now[0]! + now[1]! + now[2]!;
  const frugal = total <= 10 && accuracy[1]! >= accuracy[0]! - 0.02;
  useEffect(() => {
    if (frugal) done();
  }, [frugal]);

  const plane = (width: number) => {
    const [x, y] = [axis(-2, 2, 0, width), axis(-1.3, 1.3, 208, 0)];
    const back = axis(0, width, -2, 2);
    const up = axis(208, 0, -1.3, 1.3);
    let [same, changed] = ["", ""];
    for (let px = 0; px < width; px += kCell) {
      for (let py = 0; py < 208; py += kCell) {
        const point = [back(px + kCell / 2), up(py + kCell / 2)];
        const [one, two] = [netScore(before, point) > 0, netScore(after, point) > 0];
        const cell = `M${px} ${py}h${kCell}v${kCell}h${-kCell}Z`;
        if (one !== two) changed += cell;
        else if (two) same += cell;
      }
    }
    return (
      <>
        <path class="ln-band" d={same} />
        <path class="ln-cut" d={changed} />
        {kTest.points.map((point, i) => {
          const wrong = netScore(after, point) > 0 !== kTest.classes[i]! > 0;
          return (
            <circle
              key={i}
              class={wrong ? "ln-fill-error" : kTest.classes[i]! > 0 ? "ln-fill-before" : "ln-hollow"}
              cx={x(point[0])}
              cy={y(point[1])}
              r={wrong ? 4.5 : 2.5}
            />
          );
        })}
      </>
    );
  };
  const depth = (width: number) => {
    const up = axis(0, 60, 96, 8);
    const at = (l: number): number => ((l + 0.5) * (width - 30)) / 3 + 30;
    const height = (db: number): number => up(Math.max(0, Math.min(60, db)));
    return (
      <>
        {[0, 20, 40, 60].map((db) => (
          <g key={db}>
            <line class="ln-hair" x1="30" x2={width} y1={up(db)} y2={up(db)} />
            <text x="24" y={up(db) + 4} text-anchor="end">
              {db}
            </text>
          </g>
        ))}
        {[0, 1, 2].map((l) => (
          <g key={l}>
            <rect
              class="ln-fill-before"
              x={at(l) - 15}
              width="14"
              y={height(weights[l]!)}
              height={96 - height(weights[l]!)}
            />
            <rect
              class="ln-fill-after"
              x={at(l) + 1}
              width="14"
              y={height(outputs[l]!)}
              height={96 - height(outputs[l]!)}
            />
            <text x={at(l)} y="112" text-anchor="middle">
              {say({ en: `layer ${l + 1}`, zh: `第 ${l + 1} 层` })}
            </text>
          </g>
        ))}
      </>
    );
  };

  return (
    <>
      <div class="ln-controls">
        {bits.map((signal, l) => (
          <Slider
            key={l}
            label={{ en: `Bits, layer ${l + 1}`, zh: `第 ${l + 1} 层位数` }}
            value={signal.value}
            min={1}
            max={8}
            onInput={(v) => (signal.value = v)}
          />
        ))}
      </div>
      <Chart
        height={208}
        label={say({
          en: `Two half moons and what the network makes of the plane; ${flipped} of 200 points changed sides.`,
          zh: `两个半月形点集以及网络对平面的划分；200 个点中有 ${flipped} 个换了边。`,
        })}
        draw={plane}
      />
      <Legend
        items={[
          ["hollow", { en: "one moon", zh: "一个月牙" }],
          ["before", { en: "the other; gray ground: where the network says so", zh: "另一个；灰底：网络判为它的区域" }],
          ["error", { en: "ground: changed; points: wrong now", zh: "底色：判断改变；点：现在判错" }],
        ]}
      />
      <Chart
        height={116}
        label={say({
          en: `SQNR of the three layers' weights: ${weights.map(decibel).join(", ")}; of what comes out: ${outputs.map(decibel).join(", ")}.`,
          zh: `三层权重的 SQNR：${weights.map(decibel).join("、")}；各层输出：${outputs.map(decibel).join("、")}。`,
        })}
        draw={depth}
      />
      <Legend
        items={[
          ["before", { en: "SQNR of the weights, dB", zh: "权重的 SQNR，dB" }],
          ["after", { en: "SQNR of what comes out, dB", zh: "该层输出的 SQNR，dB" }],
        ]}
      />
      <Readouts
        items={[
          [{ en: "Bits, all layers", zh: "三层位数之和" }, String(total)],
          [{ en: "Accuracy before", zh: "之前的准确率" }, percent(accuracy[0]!, 1)],
          [
            { en: "Accuracy now", zh: "现在的准确率" },
            percent(accuracy[1]!, 1),
            accuracy[1]! < accuracy[0]! - 0.02 ? "bad" : "good",
          ],
          [{ en: "Points that flipped", zh: "翻转的点" }, String(flipped)],
          [{ en: "Output's SQNR", zh: "最终输出的 SQNR" }, decibel(outputs[2]!)],
        ]}
      />
      <Numbers
        head={[
          say({ en: "Layer", zh: "层" }),
          say({ en: "bits", zh: "位数" }),
          say({ en: "weights", zh: "权重" }),
          say({ en: "output", zh: "输出" }),
        ]}
        rows={[0, 1, 2].map((l) => [String(l + 1), String(now[l]), decibel(weights[l]!), decibel(outputs[l]!)])}
      />
    </>
  );
}

export const behaviour: Lesson = {
  id: "behaviour",
  title: { en: "What the model does", zh: "模型的表现" },
  ask: {
    en: "Two recipes give a network's weights the same SQNR, 15 dB. Must both have the same accuracy?",
    zh: "两个配方使网络权重的 SQNR 同为 15 dB。它们的准确率一定相同吗？",
  },
  options: [
    { en: "Yes", zh: "一定" },
    { en: "About", zh: "差不多" },
    { en: "No", zh: "不一定" },
  ],
  answer: 2,
  replies: [
    {
      en: "The same amount of error can stand in a layer that hardly matters, or in one that everything passes through.",
      zh: "同样大小的误差，可能在无关紧要的层，也可能在人人必经的层。",
    },
    {
      en: "Not even that: it depends on where the error is and on how near the points lie to the border.",
      zh: "连这也谈不上：取决于误差在哪里，以及样本离分界线有多近。",
    },
    {
      en: "Where the error is counts, and whether any sample stood near the border between two classes.",
      zh: "关键在于误差出现在哪里，以及有没有样本恰好靠近类别分界线。",
    },
  ],
  task: {
    en: "Share out at most 10 bits among the three layers and lose no more than 2 points of accuracy.",
    zh: "三层一共不超过 10 位，且准确率下降不超过 2 个百分点。",
  },
  Widget,
  points: [
    {
      en: "*Weight error* is cheap to measure and needs no data. It says how far the numbers moved, not whether anybody minds.",
      zh: "*权重误差*不需要数据、测起来便宜。它只说明数值移动了多远，不说明有没有影响。",
    },
    {
      en: "*Activation error* is what comes out of a layer. It carries the errors of all layers before, so it mostly grows; ReLU and pooling sometimes swallow a part.",
      zh: "*激活误差*是层的输出误差。它带着前面所有层的误差，因而多半越来越大；ReLU 和池化有时会吞掉一部分。",
    },
    {
      en: "*Accuracy* only changes where a sample crosses a border: for a long time nothing, then a lot. Below 20 dB at the output expect flips.",
      zh: "*准确率*只在样本越过分界线时才变：长时间毫无变化，然后突然大变。输出低于 20 dB 时就该预料到翻转。",
    },
  ],
  formula: ["SQNR_{y} = 10·log_{10}( Σy^{2} / Σ(y − ŷ)^{2} )  dB", "accuracy = samples right / samples"],
  symbols: [
    ["y, ŷ", { en: "what a layer gives before and after compressing", zh: "压缩前、后某层的输出" }],
    ["border", { en: "where two classes have the same score", zh: "两个类别得分相同之处" }],
  ],
  tryIt: {
    en: "Open *Activations* and look for the first layer below 20 dB; give it more bits and watch the flips.",
    zh: "打开*激活*，找到第一个低于 20 dB 的层，给它更多位数，看看翻转如何变化。",
  },
  source: "Nagel et al. 2021, arXiv:2106.08295; Lin et al. 2016, arXiv:1511.06393",
};
