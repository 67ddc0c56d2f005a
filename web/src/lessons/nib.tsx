// Lesson: the .nib file. Where its bytes are, how they follow from sparsity and coder, and what must be read for a part.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say, type Words } from "../language";
import { codedBits, entropyOf, gapBits, huffmanLengths, prunedLevels, tally } from "./coding_math";
import { bell } from "./math";
import { axis, Chart, Choice, Legend, num, Numbers, percent, Readouts, Slider, type Lesson } from "./parts";

type Coder = "packed" | "huffman" | "arithmetic";
/** LeNet-5 as Nibble's sample has it: weights and biases of each layer. */
const kLayers = [
  { name: "conv1", weights: 500, biases: 20 },
  { name: "conv2", weights: 25000, biases: 50 },
  { name: "fc1", weights: 400000, biases: 500 },
  { name: "fc2", weights: 5000, biases: 10 },
];
/** Of the sample, as measured: the ONNX file's bytes that are not numbers, and what its header takes in a .nib. */
const kOnnxText = 1089;
const kHeader = 372;
const kMost = 7;
const kTable = 4; // bits that tell one code length
const kSample = bell(4000, 21, 0.1);

/** Bits of a weight and bytes of a table. Huffman takes the smallest of one code per weight and gaps of 2 to 7 bits. */
function measure(sparsity: number, coder: Coder): { each: number; table: number } {
  const symbols = 2 * kMost + 1;
  if (coder === "packed") return { each: 4, table: 0 };
  const levels = prunedLevels(kSample, sparsity, 4);
  const counts = tally(levels, -kMost, kMost);
  if (coder === "arithmetic") return { each: entropyOf(counts), table: 0 };
  const ways = [
    { each: codedBits(counts, huffmanLengths(counts)) / levels.length, table: (kTable * symbols) / 8 },
    ...[2, 3, 4, 5, 6, 7].map((bits) => {
      const { gaps, values } = gapBits(levels, bits);
      return { each: (gaps + values) / levels.length, table: (kTable * (symbols + 2 ** bits)) / 8 };
    }),
  ];
  return ways.reduce((best, way) => (way.each < best.each ? way : best));
}

function Widget({ done }: { done: () => void }) {
  const sparsity = useSignal(0.3);
  const coder = useSignal<Coder>("packed");
  const wanted = useSignal("all");
  const { each, table } = measure(sparsity.value, coder.value);
  // Levels, a float scale for each output, and the biases as floats.
  const blocks = [
    { name: say({ en: "header", zh: "文件头" }), bytes: kHeader },
    ...kLayers.map(({ name, weights, biases }) => ({
      name,
      bytes: Math.ceil((weights * each) / 8 + table) + 4 * biases + 4 * biases,
    })),
  ];
  const onnx = kOnnxText + 4 * kLayers.reduce((sum, { weights, biases }) => sum + weights + biases, 0);
  const nib = blocks.reduce((sum, { bytes }) => sum + bytes, 0);
  const isRead = (i: number): boolean => i === 0 || wanted.value === "all" || blocks[i]!.name === wanted.value;
  const read = blocks.reduce((sum, { bytes }, i) => sum + (isRead(i) ? bytes : 0), 0);
  const small = nib < 0.03 * onnx;
  const solved = small && wanted.value !== "all";
  useEffect(() => {
    if (solved) done();
  }, [solved]);

  const drawSizes = (width: number) => {
    const right = axis(0, onnx, 0, width);
    return [
      { name: ".onnx, float32", bytes: onnx, style: "ln-fill-before" },
      { name: ".nib", bytes: nib, style: "ln-fill-after" },
    ].map(({ name, bytes, style }, i) => (
      <g key={name}>
        <text class="ln-strong" x="0" y={i * 42 + 11}>
          {name}
        </text>
        <text x={width} y={i * 42 + 11} text-anchor="end">
          {kilobytes(bytes)}
        </text>
        <rect class={style} x="0" width={Math.max(1, right(bytes))} y={i * 42 + 17} height="16" />
      </g>
    ));
  };
  const drawBlocks = (width: number) => {
    // Thin blocks keep a hair's breadth, so that they are seen; the others share what is left by their sizes.
    const least = 4;
    const right = axis(0, nib, 0, width - least * blocks.length);
    let x = 0;
    return blocks.map(({ name, bytes }, i) => {
      const from = x;
      const wide = right(bytes) + least;
      x += wide;
      return (
        <g key={name}>
          <rect
            class={isRead(i) ? (i === 0 ? "ln-fill-accent" : "ln-fill-after") : "ln-fill-soft"}
            fill-opacity={i > 0 && i % 2 === 0 ? 0.75 : 1}
            x={from}
            width={wide - 1}
            y="2"
            height="34"
          />
          {wide > 48 && (
            <text class="ln-strong" x={from + wide / 2} y="52" text-anchor="middle">
              {name}
            </text>
          )}
        </g>
      );
    });
  };

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
          onInput={(v) => (sparsity.value = v)}
        />
        <Choice
          label={{ en: "Coder of the 4-bit levels", zh: "4 位量化级的编码" }}
          value={coder.value}
          options={[
            ["packed", { en: "4 bits each", zh: "各占 4 位" }],
            ["huffman", { en: "Huffman", zh: "霍夫曼" }],
            ["arithmetic", { en: "arithmetic", zh: "算术" }],
          ]}
          onChange={(v) => (coder.value = v)}
        />
      </div>
      <Chart
        height={78}
        label={say({
          en: `The .onnx file has ${kilobytes(onnx)} at any sparsity, the .nib file ${kilobytes(nib)}.`,
          zh: `无论稀疏度多少，.onnx 文件都是 ${kilobytes(onnx)}；.nib 文件是 ${kilobytes(nib)}。`,
        })}
        draw={drawSizes}
      />
      <Choice
        label={{ en: "Read from the .nib", zh: "从 .nib 里读取" }}
        value={wanted.value}
        options={[
          ["all", { en: "everything", zh: "全部" }],
          ...kLayers.map(({ name }): [string, Words] => [name, { en: name, zh: name }]),
        ]}
        onChange={(v) => (wanted.value = v)}
      />
      <Chart
        height={56}
        label={say({
          en: `The .nib file's blocks in their order: ${blocks.map(({ name, bytes }) => `${name} ${bytes}`).join(", ")} bytes.`,
          zh: `.nib 文件的各块依次为：${blocks.map(({ name, bytes }) => `${name} ${bytes}`).join("、")} 字节。`,
        })}
        draw={drawBlocks}
      />
      <Legend
        items={[
          ["after", { en: "read", zh: "读取" }],
          ["before", { en: "passed over", zh: "跳过" }],
        ]}
      />
      <Readouts
        items={[
          [{ en: "Bits per weight", zh: "每个权重的位数" }, num(each, 3)],
          [{ en: ".nib of .onnx", zh: ".nib 占 .onnx" }, percent(nib / onnx, 1), small ? "good" : undefined],
          [{ en: "Times smaller", zh: "缩小倍数" }, `${num(onnx / nib, 1)} ×`],
          [{ en: "Bytes to read", zh: "需读取的字节" }, kilobytes(read)],
        ]}
      />
      <Numbers
        head={[say({ en: "Block", zh: "块" }), say({ en: "bytes", zh: "字节" }), say({ en: "share", zh: "占比" })]}
        rows={blocks.map(({ name, bytes }) => [name, bytes.toLocaleString("en"), percent(bytes / nib, 1)])}
      />
    </>
  );
}

const kilobytes = (bytes: number): string => `${num(bytes / 1000, bytes < 100000 ? 1 : 0)} KB`;

export const nib: Lesson = {
  id: "nib",
  title: { en: "The .nib file", zh: ".nib 文件" },
  ask: {
    en: "A model is pruned to 90 % zeros and saved as float32 .onnx, and as .nib. Which file got smaller?",
    zh: "一个模型剪到 90 % 为零，分别存为 float32 的 .onnx 和 .nib。哪个文件变小了？",
  },
  options: [
    { en: "Both", zh: "都变小" },
    { en: "Only the .nib", zh: "只有 .nib" },
    { en: "Neither", zh: "都没变" },
  ],
  answer: 1,
  replies: [
    {
      en: "An .onnx file holds an array of numbers, each four bytes wide, zeros too. It cannot leave them out.",
      zh: ".onnx 里是数组，每个数占四个字节，零也不例外，省不掉。",
    },
    {
      en: "An .onnx file stores every zero in full. In a .nib file a number takes as many bits as it tells.",
      zh: ".onnx 把每个零都完整存下。在 .nib 里，一个数有多少信息就占多少位。",
    },
    {
      en: "The .onnx did not: zeros take four bytes each. The .nib did: there a likely zero costs 0.15 bit.",
      zh: ".onnx 没变：每个零都占四个字节。.nib 变小了：那里一个大概率的零只占 0.15 位。",
    },
  ],
  task: {
    en: "Get the .nib under 3 % of the .onnx. Then read a single layer from it.",
    zh: "让 .nib 小于 .onnx 的 3 %。再只读其中一层。",
  },
  Widget,
  points: [
    {
      en: "*Header*: the model file without its numbers (graph, names, attributes), the recipes that made it, the index of tensors and blocks, checksums. It is coded too: for the sample LeNet-5 at 90 % zeros and 4 bits, some 370 of 42,000 bytes.",
      zh: "*文件头*：去掉数值的模型文件（计算图、名称、属性）、所用的配方、张量与块的索引、校验和。它本身也经过编码：示例 LeNet-5 在 90 % 零、4 位时，四万两千字节里约占 370。",
    },
    {
      en: "*Blocks*: streams that can be decoded by themselves. A large tensor has its own, small ones share one. So one layer can be fetched without the rest, and decoding can begin while the file still arrives.",
      zh: "*块*：可以独立解码的码流。大张量独占一块，小张量合用一块。因此可以只取某一层，也可以边下载边解码。",
    },
    {
      en: "*Exact*: the decoder puts the numbers into the holes of the text and gives back the compressed model's file, byte for byte, on every machine: all coders count in integers. What was lost was lost before, in rounding and pruning.",
      zh: "*精确*：解码器把数值填回文本的空位，逐字节还原压缩后的模型文件，在任何机器上都一样，因为编码器只用整数。损失都发生在之前的舍入和剪枝里。",
    },
    {
      en: "*The decoder* is under 40 KB gzipped, with all it needs inside, so a website saves it many times over with its first model. A checksum for each block tells damage from data.",
      zh: "*解码器*经 gzip 后不到 40 KB，所需一应俱全，网站加载第一个模型就能省回许多倍。每块都有校验和，损坏一查便知。",
    },
  ],
  formula: ["file = header + Σ blocks", "block ≈ n·H / 8 + scales + biases  bytes", "one layer: header + its block"],
  symbols: [
    ["n", { en: "weights of the layer", zh: "该层的权重数" }],
    ["H", { en: "bits per weight: by its coder, near the entropy", zh: "每个权重的位数：由编码器决定，接近熵" }],
  ],
  tryIt: {
    en: "Set `sparsity` to 0.8 and press *.nib* below *Download*; no step *Encode* is needed. Drop the file on the page to open it again.",
    zh: "把 `sparsity` 设为 0.8，点击*下载*下方的 *.nib*，无需添加*编码*步骤；把得到的文件拖回页面即可打开。",
  },
  source: "Nibble: core/formats/nib_container.hpp; ONNX TensorProto",
};
