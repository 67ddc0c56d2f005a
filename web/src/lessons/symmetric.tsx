// Lesson: symmetric and affine grids over the same range, and why zero has to be a level.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say } from "../language";
import { affineGrid, codeOf, levels, looseAffineGrid, snap, symmetricGrid, type Grid } from "./math";
import { axis, Chart, Check, num, Numbers, Readouts, Slider, type Lesson } from "./parts";

const kBits = 4;
const kReach = 2;

function Widget({ done }: { done: () => void }) {
  const min = useSignal(-0.2);
  const max = useSignal(1.4);
  const exact = useSignal(true);
  const symmetric = symmetricGrid(Math.max(Math.abs(min.value), Math.abs(max.value)), kBits);
  const affine = (exact.value ? affineGrid : looseAffineGrid)(min.value, max.value, kBits);
  const used = (grid: Grid) => codeOf(max.value, grid) - codeOf(min.value, grid) + 1;
  const zero = snap(0, affine);
  const ratio = symmetric.scale / affine.scale;
  const close = ratio < 1.1 && exact.value;
  useEffect(() => {
    if (close) done();
  }, [close]);
  const setMin = (v: number) => (min.value = Math.min(v, max.value - 0.2));
  const setMax = (v: number) => (max.value = Math.max(v, min.value + 0.2));

  const draw = (width: number) => {
    const at = axis(-kReach, kReach, 8, width - 8);
    const row = (grid: Grid, y: number, name: string) => {
      const [low, high] = [codeOf(min.value, grid), codeOf(max.value, grid)];
      return (
        <>
          <text x="8" y={y - 12}>
            {name}
          </text>
          <line class="ln-axis" x1={at(-kReach)} x2={at(kReach)} y1={y + 8} y2={y + 8} />
          {levels(grid).map((v, i) => {
            const inside = i + grid.lowest >= low && i + grid.lowest <= high;
            return <line key={i} class={inside ? "ln-after" : "ln-unused"} x1={at(v)} x2={at(v)} y1={y} y2={y + 16} />;
          })}
        </>
      );
    };
    return (
      <>
        <rect class="ln-band" x={at(min.value)} width={at(max.value) - at(min.value)} y="4" height="104" />
        <line class="ln-goal" x1={at(0)} x2={at(0)} y1="4" y2="112" />
        {row(symmetric, 28, say({ en: "Symmetric", zh: "对称" }))}
        {row(affine, 78, say({ en: "Affine", zh: "仿射（非对称）" }))}
        <circle class={Math.abs(zero) < 1e-9 ? "ln-right ln-dot" : "ln-wrong ln-dot"} cx={at(zero)} cy="86" r="4.5" />
        {[-2, -1, 0, 1, 2].map((v) => (
          <text key={v} x={at(v)} y="124" text-anchor={v === -2 ? "start" : v === 2 ? "end" : "middle"}>
            {num(v, 0)}
          </text>
        ))}
      </>
    );
  };

  return (
    <>
      <Chart
        height={128}
        label={say({
          en: `Weights between ${num(min.value)} and ${num(max.value)}. Symmetric uses ${used(symmetric)} of 15 levels, affine ${used(affine)} of 16.`,
          zh: `权重在 ${num(min.value)} 与 ${num(max.value)} 之间。对称量化用到 15 个量化点中的 ${used(symmetric)} 个，仿射用到 16 个中的 ${used(affine)} 个。`,
        })}
        draw={draw}
        onDrag={(px, width) => {
          const v = Math.round(20 * axis(8, width - 8, -kReach, kReach)(px)) / 20;
          const inside = Math.min(kReach, Math.max(-kReach, v));
          if (Math.abs(v - min.value) < Math.abs(v - max.value)) setMin(inside);
          else setMax(inside);
        }}
      />
      <div class="ln-controls">
        <Slider
          label={{ en: "Smallest weight", zh: "最小权重" }}
          value={min.value}
          min={-2}
          max={1.8}
          step={0.05}
          show={num(min.value)}
          onInput={setMin}
        />
        <Slider
          label={{ en: "Largest weight", zh: "最大权重" }}
          value={max.value}
          min={-1.8}
          max={2}
          step={0.05}
          show={num(max.value)}
          onInput={setMax}
        />
        <Check
          label={{ en: "Zero must be exact", zh: "零必须精确" }}
          checked={exact.value}
          onChange={(v) => (exact.value = v)}
        />
      </div>
      <Readouts
        items={[
          [{ en: "Symmetric: step", zh: "对称：步长" }, num(symmetric.scale, 3)],
          [{ en: "levels in reach", zh: "用得上的量化点" }, `${used(symmetric)} / 15`],
          [{ en: "Affine: step", zh: "仿射：步长" }, num(affine.scale, 3)],
          [{ en: "levels in reach ", zh: "用得上的量化点 " }, `${used(affine)} / 16`],
          [
            { en: "zero point z", zh: "零点 z" },
            num(affine.zeroPoint, exact.value ? 0 : 2),
            exact.value ? undefined : "bad",
          ],
          [{ en: "0 comes back as", zh: "0 还原为" }, num(zero, 3), Math.abs(zero) < 1e-9 ? "good" : "bad"],
        ]}
      />
      <Numbers
        head={[say({ en: "Affine code", zh: "仿射码" }), say({ en: "value", zh: "数值" })]}
        rows={levels(affine).map((v, i) => [String(i), num(v, 3)])}
      />
    </>
  );
}

export const symmetric: Lesson = {
  id: "symmetric",
  title: { en: "Symmetric or affine", zh: "对称还是仿射" },
  ask: {
    en: "All weights lie between −0.2 and 1.4. A symmetric 4-bit grid has 15 levels, −7 to 7. How many can these weights ever use?",
    zh: "所有权重都在 −0.2 与 1.4 之间。对称的 4 位网格有 15 个量化点（−7 到 7），这些权重最多用得上几个？",
  },
  options: [
    { en: "All 15", zh: "15 个全用上" },
    { en: "9", zh: "9 个" },
    { en: "3", zh: "3 个" },
  ],
  answer: 1,
  replies: [
    {
      en: "No: the grid must reach 1.4 on both sides, and nothing lives below −0.2. Six levels are never used.",
      zh: "不会：网格两边都要伸到 1.4，而 −0.2 以下什么都没有，有 6 个量化点永远闲着。",
    },
    {
      en: "The step is 1.4/7 = 0.2, so −0.2 … 1.4 is the codes −1 … 7. The other six are wasted.",
      zh: "步长是 1.4/7 = 0.2，−0.2 … 1.4 对应码 −1 … 7，另外 6 个浪费了。",
    },
    null,
  ],
  task: {
    en: "Find a range in which affine is hardly finer than symmetric: steps within 10 %.",
    zh: "找一个范围，使仿射几乎不比对称更细：两个步长相差不到 10 %。",
  },
  Widget,
  points: [
    {
      en: "*Symmetric* puts zero in the middle: one number (s) describes the grid, and products stay cheap. *Affine* slides the same number of levels over the real range with a zero point z.",
      zh: "*对称*量化以零为中心，一个数（s）就能描述整个网格，乘法也省事。*仿射*量化用零点 z 把量化点整体平移到真实的范围上。",
    },
    {
      en: "Weights are usually balanced around zero, so affine gains little. Lopsided ones, and activations after a ReLU, gain about a bit.",
      zh: "权重通常正负均衡，仿射占不到多少便宜；明显偏向一侧的权重，以及 ReLU 之后的激活值，差不多能赚回一位。",
    },
    {
      en: "*Zero must come back as zero.* Padding, pruned weights and ReLU make exact zeros by the thousand; if each returned as 0.013, the sums would drift. So z is rounded to an integer, and the range is stretched to contain 0. Untick the box to see what happens otherwise.",
      zh: "*零必须还原成零。* 填充、剪掉的权重和 ReLU 会产生成千上万个零，要是每个都变成 0.013，求和就会跑偏。所以 z 要取整，范围也要拉伸到包含 0。取消勾选看看不这样做会怎样。",
    },
  ],
  formula: [
    "s = (max − min) / (2^{b} − 1)",
    "min ≤ 0 ≤ max",
    "z = round(−min/s)",
    "q = clamp(round(x/s) + z, 0, 2^{b} − 1)",
    "Q(x) = s·(q − z)",
  ],
  symbols: [
    ["z", { en: "zero point: the code of 0, an integer", zh: "零点：0 对应的整数码" }],
    [
      "z = 0",
      {
        en: "the symmetric case, with codes −(2^{b−1}−1) to 2^{b−1}−1",
        zh: "即对称情形，码的范围是 −(2^{b−1}−1) 到 2^{b−1}−1",
      },
    ],
  ],
  tryIt: {
    en: "Switch `symmetric` off and on, and compare the SQNR of layers whose histogram is lopsided.",
    zh: "来回切换 `symmetric`，比较直方图偏向一侧的那些层的 SQNR。",
  },
  source: "Jacob et al. 2018, arXiv:1712.05877 §2.1; ONNX DynamicQuantizeLinear",
};
