// Lesson: asymmetric numeral systems. A message becomes one number, step by step, and comes out in reverse.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { say } from "../language";
import { entropyOf, ideal, ransPop, ransStates, slotStarts, tally } from "./coding_math";
import { axis, Chart, num, Numbers, Readouts, Slider, type Lesson } from "./parts";

const kNames = ["0", "+", "−"];
const kSlots = 16; // M
const kStart = 16; // state before the first symbol
const kLength = 8;
const kShares = [2, 4, 6, 8, 10, 12, 14];
const frequenciesFor = (zero: number) => [zero, (kSlots - zero) / 2, (kSlots - zero) / 2];

function Widget({ done }: { done: () => void }) {
  const message = useSignal([0, 0, 1, 0, 2, 0, 1, 0]);
  const zero = useSignal(6);
  const step = useSignal(0);
  const frequencies = frequenciesFor(zero.value);
  const { starts } = slotStarts(frequencies);
  const end = (share: number) => ransStates(message.value, frequenciesFor(share), kStart).at(-1)!;
  const least = Math.min(...kShares.map(end));

  // The way up, then the way down, which reads the states alone.
  const states = ransStates(message.value, frequencies, kStart);
  const out: number[] = [];
  let x = states.at(-1)!;
  while (out.length < kLength) {
    const popped = ransPop(x, frequencies);
    out.push(popped.symbol);
    states.push((x = popped.x));
  }
  const at = step.value;
  const decoding = at > kLength;
  const [before, now] = [states[Math.max(0, at - 1)]!, states[at]!];
  // The state whose slot the step is about is the larger one: what encoding has made, what decoding has read.
  const slot = (decoding ? before : now) % kSlots;
  const symbol = at === 0 ? null : decoding ? out[at - 1 - kLength]! : message.value[kLength - at]!;
  const solved = at === 2 * kLength && end(zero.value) === least;
  useEffect(() => {
    if (solved) done();
  }, [solved]);

  const drawSlots = (width: number) => {
    const box = axis(0, kSlots, 1, width - 1);
    return Array.from({ length: kSlots }, (_, i) => {
      const of = frequencies.findIndex((f, s) => i < starts[s]! + f);
      const chosen = at > 0 && i === slot;
      return (
        <g key={i}>
          <rect
            class={["ln-band", "ln-fill-soft", "ln-cut"][of]}
            x={box(i) + 0.5}
            width={box(1) - box(0) - 1}
            y="4"
            height="26"
          />
          {chosen && (
            <rect class="ln-outline-after" x={box(i)} width={box(1) - box(0)} y="3" height="28" stroke-width="2" />
          )}
          <text class="ln-strong" x={box(i + 0.5)} y="21" text-anchor="middle">
            {kNames[of]}
          </text>
          <text class={chosen ? "ln-strong" : undefined} x={box(i + 0.5)} y="44" text-anchor="middle">
            {i}
          </text>
        </g>
      );
    });
  };

  const f = symbol === null ? 0 : frequencies[symbol]!;
  const c = symbol === null ? 0 : starts[symbol]!;
  const sum =
    symbol === null
      ? `x = ${kStart}`
      : decoding
        ? `${kNames[symbol]}:  ${f}·⌊${before}/${kSlots}⌋ + ${slot} − ${c} = ${now}`
        : `${kNames[symbol]}:  ⌊${before}/${f}⌋·${kSlots} + ${c} + ${before} mod ${f} = ${now}`;
  const worth = message.value.reduce((bits, s) => bits + ideal(frequencies[s]! / kSlots), 0);
  const bound = kLength * entropyOf(tally(message.value, 0, 2));
  /** What of the message is in the state, or out of it again. */
  const stateOf = (i: number) =>
    decoding ? (i < at - kLength ? "ln-out" : "ln-in") : i >= kLength - at ? "ln-in" : undefined;
  const change = (i: number) => {
    message.value = message.value.map((s, j) => (i === j ? (s + 1) % kNames.length : s));
    step.value = 0;
  };

  return (
    <>
      <div class="ln-cells" role="group" aria-label={say({ en: "The message", zh: "消息" })}>
        {message.value.map((s, i) => (
          <button
            key={i}
            type="button"
            class={stateOf(i)}
            aria-label={say({
              en: `Symbol ${i + 1}: ${kNames[s]}. Change it`,
              zh: `第 ${i + 1} 个符号：${kNames[s]}。更改`,
            })}
            onClick={() => change(i)}
          >
            {decoding && i >= at - kLength ? "?" : kNames[s]}
          </button>
        ))}
      </div>
      <div class="ln-controls">
        <Slider
          label={{ en: "Slots of 0, f(0)", zh: "0 的槽数 f(0)" }}
          value={zero.value}
          min={2}
          max={14}
          step={2}
          show={`${zero.value} / ${kSlots}`}
          onInput={(v) => (zero.value = v)}
        />
        <Slider
          label={{ en: "Step", zh: "步骤" }}
          value={at}
          min={0}
          max={2 * kLength}
          show={
            at === 0
              ? say({ en: "start", zh: "开始" })
              : decoding
                ? say({ en: `decode ${at - kLength}`, zh: `解码 ${at - kLength}` })
                : say({ en: `encode ${at}`, zh: `编码 ${at}` })
          }
          onInput={(v) => (step.value = v)}
        />
      </div>
      <Chart
        height={50}
        label={say({
          en: `The table of ${kSlots} slots: 0 has ${frequencies[0]}, + and − have ${frequencies[1]} each. ${at > 0 ? `The state's slot is ${slot}.` : ""}`,
          zh: `${kSlots} 个槽的表：0 占 ${frequencies[0]} 个，+ 与 − 各占 ${frequencies[1]} 个。${at > 0 ? `当前状态落在槽 ${slot}。` : ""}`,
        })}
        draw={drawSlots}
      />
      <div class="ln-formula" role="status">
        {sum}
      </div>
      <p class="ln-note">
        {say({
          en: "Tap a symbol to change it. Filled: inside the state. Framed: out again.",
          zh: "点按符号可更改。填色：已编入状态；加框：已解出。",
        })}
      </p>
      <Readouts
        items={[
          [{ en: "State x", zh: "状态 x" }, String(now)],
          [{ en: "Bits in it, log₂(x/16)", zh: "所含位数 log₂(x/16)" }, num(Math.log2(now / kStart), 2)],
          [
            { en: "Message, by f", zh: "整条消息（按 f）" },
            num(worth, 2),
            end(zero.value) === least ? "good" : undefined,
          ],
          [{ en: "Order-0 entropy", zh: "零阶熵" }, num(bound, 2)],
        ]}
      />
      <Numbers
        head={[say({ en: "Step", zh: "步骤" }), say({ en: "symbol", zh: "符号" }), "x", "x mod 16"]}
        rows={states
          .slice(0, at + 1)
          .map((v, i) => [
            String(i),
            i === 0 ? "–" : kNames[i <= kLength ? message.value[kLength - i]! : out[i - 1 - kLength]!]!,
            String(v),
            String(v % kSlots),
          ])}
      />
    </>
  );
}

export const rans: Lesson = {
  id: "rans",
  title: { en: "One number for all: rANS", zh: "一个数装下全部：rANS" },
  ask: {
    en: "A coder keeps one whole number x. Every symbol of probability ¼ that goes in multiplies x by about …",
    zh: "编码器只有一个整数 x。每放入一个概率为 ¼ 的符号，x 大约变成原来的……",
  },
  options: [
    { en: "¼", zh: "¼" },
    { en: "2", zh: "2 倍" },
    { en: "4", zh: "4 倍" },
  ],
  answer: 2,
  replies: [
    {
      en: "Then the number would shrink and forget. It has to grow by what the symbol tells: 4.",
      zh: "那样数会变小，信息就丢了。它要按符号的信息量变大：4 倍。",
    },
    {
      en: "That is one bit, what a symbol of probability ½ is worth. ¼ is two bits.",
      zh: "那是 1 位，即概率 ½ 的符号所值。¼ 是 2 位。",
    },
    {
      en: "Two bits of information, so log₂ x grows by 2. A symbol of probability p multiplies x by 1/p.",
      zh: "信息量是 2 位，所以 log₂ x 增加 2。概率为 p 的符号使 x 变为 1/p 倍。",
    },
  ],
  task: {
    en: "Find the f(0) with the smallest final state, then go through all steps until x is 16 again.",
    zh: "找到使最终状态最小的 f(0)，再走完所有步骤，直到 x 回到 16。",
  },
  Widget,
  points: [
    {
      en: "Frequencies are slots of a table of M. Encoding moves x to the x-th number whose *slot, x mod M*, belongs to the symbol. So the slot alone tells the symbol, and the rest of x is what it was before.",
      zh: "频率就是 M 个槽中所占的个数。编码把 x 移到“*槽 x mod M* 属于该符号”的第 x 个数。于是单凭槽就知道符号，其余部分就是原来的 x。",
    },
    {
      en: "*Last in, first out*: the encoder goes through the message backwards, so that the decoder gets it forwards. Encoder and decoder cannot learn on the way together: frequencies are counted first and sent.",
      zh: "*后进先出*：编码器倒着走一遍消息，解码器才能顺着得到它。两边无法边走边学，所以先统计频率再传送。",
    },
    {
      en: "*Fast*: decoding is one look into a table, one product, one sum; no search, no division. Nibble's table has 4,096 slots, and *16 lanes* with a state each take symbols in turn, four in one vector register.",
      zh: "*快*：解码只需查一次表、一次乘、一次加；不用搜索，也不用除法。Nibble 的表有 4096 个槽；*16 路*各有一个状态，轮流取符号，一个向量寄存器装四路。",
    },
    {
      en: "A real state does not grow for ever: in Nibble, a state about to pass 32 bits first hands 16 of them to the stream. And fractions of a bit count here too, so 90 % zeros cost what they are worth, unlike with Huffman.",
      zh: "真正的状态不会一直变大：在 Nibble 里，快超过 32 位时先把 16 位写进码流。这里同样能算零点几位，90 % 的零该值多少就花多少，与霍夫曼不同。",
    },
  ],
  formula: [
    "encode:  x' = ⌊x / f⌋·M + c + x mod f",
    "slot = x' mod M  →  symbol, f, c",
    "decode:  x = f·⌊x' / M⌋ + slot − c",
    "x' ≈ x·M / f",
  ],
  symbols: [
    ["x, x'", { en: "state before and after a symbol", zh: "放入符号前、后的状态" }],
    ["f", { en: "slots of the symbol; its probability is f/M", zh: "该符号的槽数；概率为 f/M" }],
    ["c", { en: "its first slot: sum of the f before it", zh: "它的第一个槽：前面各 f 之和" }],
    ["M", { en: "slots in all, a power of two", zh: "总槽数，2 的幂" }],
  ],
  tryIt: {
    en: "Add the step *Encode* and set `coder` to rANS: a little larger than arithmetic coding, much faster to read.",
    zh: "添加*编码*步骤，`coder` 选 rANS：比算术编码略大，读起来快得多。",
  },
  source: "Duda 2013, Asymmetric numeral systems, arXiv:1311.2540; Giesen 2014, arXiv:1402.3392",
};
