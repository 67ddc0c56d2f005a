// The decoder by itself against the engine: the same bytes from every kind of source, and from damaged files nothing.
import { openAsBlob } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { Engine, Format, Model, Recipe } from "nibble-nn";
import { load } from "nibble-nn";
import { decode, decodeTensors, inspectNib, NibbleError } from "nibble-nn/decode";
import type { NibSource, NibTensor } from "nibble-nn/decode";
import {
  branchNet,
  constantNet,
  convNet,
  embeddingNet,
  externalNet,
  gemmNet,
  halfNet,
  matmulNet,
} from "../fixtures/make";
import { DataType, Message, concat, graph, model, node, readInitializers, value, withValues } from "../fixtures/onnx";
import { uniform } from "../fixtures/random";
import { runOutputs } from "../fixtures/runtime";
import { sample, sampleNames } from "../fixtures/samples";
import { bytesOf, difference, expectSame, numbers, randomInputs } from "../fixtures/tensors";

const recipes: Record<string, Recipe["steps"]> = {
  "as it is": [],
  "8 bits": [{ kind: "quantize", scheme: { bits: 8 } }],
  "80 % pruned, 4 bits in groups, affine, rans": [
    { kind: "prune", sparsity: 0.8, scope: "global" },
    { kind: "quantize", scheme: { bits: 4, symmetric: false, granularity: "group" }, range: "mse" },
    { kind: "encode", coder: "rans" },
  ],
  "90 % pruned, 32 shared values, huffman": [
    { kind: "prune", sparsity: 0.9 },
    { kind: "cluster", bits: 5 },
    { kind: "encode", coder: "huffman" },
  ],
  "3 bits with a lambda": [
    { kind: "quantize", scheme: { bits: 3, granularity: "tensor" } },
    { kind: "encode", lambda: 0.001 },
  ],
};

interface Made {
  before: Model;
  result: Model;
  recipe: Recipe;
  nib: Uint8Array;
}

let engine: Engine;
const made = new Map<string, Promise<Made>>();
beforeAll(async () => {
  engine = await load();
});
afterAll(() => engine.close());

async function make(file: Uint8Array, steps: Recipe["steps"]): Promise<Made> {
  const before = await engine.open(file);
  const { model: result, report } = await before.compress({ version: 1, steps });
  return { before, result, recipe: report.recipe, nib: await result.export("nib") };
}

/** A compressed sample, made once. */
function compressed(name: string, recipe: string): Promise<Made> {
  const key = `${name}, ${recipe}`;
  made.set(key, made.get(key) ?? make(sample(name), recipes[recipe]!));
  return made.get(key)!;
}

/** Some kilobytes, with a quantized form. */
const small = () => compressed("lstm", "80 % pruned, 4 bits in groups, affine, rans");

/** A stream of pieces whose sizes `size` gives, and what became of it. */
function streamed(bytes: Uint8Array, size: () => number): { stream: ReadableStream<Uint8Array>; fate: string[] } {
  let at = 0;
  const fate: string[] = [];
  const stream = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        if (at >= bytes.length) return controller.close();
        controller.enqueue(bytes.slice(at, (at += size())));
      },
      cancel: () => void fate.push("cancelled"),
    },
    { highWaterMark: 0 },
  );
  return { stream, fate };
}

async function tensorsOf(source: NibSource, options: Parameters<typeof decodeTensors>[1] = {}): Promise<NibTensor[]> {
  const all = [];
  for await (const tensor of decodeTensors(source, options)) all.push(tensor);
  return all;
}

const everything = sampleNames.flatMap((name) => Object.keys(recipes).map((recipe) => [name, recipe] as const));

describe.each(everything)("%s, %s", (name, recipe) => {
  test("both forms are the engine's bytes", async () => {
    const { before, result, nib } = await compressed(name, recipe);
    const exported = await result.export();
    const float = await decode(nib);
    const reads = await inspectNib(nib);
    if (reads.bytes.quantized === null) {
      expectSame(float, exported);
      await expect(decode(nib, { form: "quantized" })).rejects.toMatchObject({ code: "unsupported", where: "form" });
    } else {
      expectSame(await decode(nib, { form: "quantized" }), exported);
    }
    // With a lambda biases are rounded, too.
    if (!recipe.includes("lambda")) {
      const names = before.info.weights.map((weight) => weight.name);
      const changes = names.map(async (weight) => ({
        before: await before.values(weight),
        after: await result.values(weight),
      }));
      expectSame(float, withValues(sample(name), await Promise.all(changes)));
    }
    // The engine reads it as what it is, too.
    using opened = await engine.open(float);
    for (const format of ["onnx", "safetensors"] as const) {
      const safe = format === "safetensors" ? await result.export(format) : float;
      expectSame(await opened.export(format), safe, format);
    }
  });

  test("tensors have the values of the engine and of the decoded file", async () => {
    const { result, nib } = await compressed(name, recipe);
    const initializers = readInitializers(await decode(nib));
    const tensors = await tensorsOf(nib);
    expect(tensors.map(({ data: _data, ...head }) => head)).toEqual((await inspectNib(nib)).tensors);
    for (const { name: tensor, shape, data } of tensors) {
      const { dims, raw } = initializers.get(tensor)!;
      expect(shape, tensor).toEqual(dims);
      expectSame(bytesOf(data), raw, tensor);
    }
    for (const weight of result.info.weights) {
      const { dtype, shape, data } = tensors.find((tensor) => tensor.name === weight.name)!;
      expect([dtype, shape]).toEqual(["float32", weight.shape]);
      expectSame(bytesOf(data), bytesOf(await result.values(weight.name)), weight.name);
    }
    // What is left out is small and no weight.
    const names = new Set(tensors.map((tensor) => tensor.name));
    for (const [initializer, { raw }] of initializers) {
      if (!names.has(initializer)) expect(raw.length, initializer).toBeLessThanOrEqual(32);
    }
  });

  test("ONNX Runtime computes with it what it computes with the engine's export", async () => {
    const { before, result, nib } = await compressed(name, recipe);
    const feeds = randomInputs(before.info.inputs, 17);
    const expected = await runOutputs(await result.export(), feeds);
    expect(expected[0]!.length).toBeGreaterThan(0);
    const outputs = await runOutputs(await decode(nib), feeds);
    if ((await inspectNib(nib)).bytes.quantized === null) return expect(outputs).toEqual(expected);
    expect(await runOutputs(await decode(nib, { form: "quantized" }), feeds)).toEqual(expected);
    // The same weights, but known before the run: ONNX Runtime may sum in another order.
    expect(outputs.length).toBe(expected.length);
    for (const [i, output] of outputs.entries()) {
      const both = [output, expected[i]!].map((values) => numbers("float32", values));
      expect(difference(both[0]!, both[1]!)).toBeLessThan(1e-5);
    }
  });

  test("the header says what is in it", async () => {
    const { before, result, recipe: run, nib } = await compressed(name, recipe);
    const { bytes, format, original_bytes, recipes: past, tensors } = await inspectNib(nib);
    expect(format).toBe("onnx");
    expect(bytes.float).toBe((await decode(nib)).length);
    const quantized = ["8 bits", "80 % pruned, 4 bits in groups, affine, rans", "3 bits with a lambda"];
    // Five numbers have no codes that an integer type would make smaller.
    if (name !== "linear") expect(bytes.quantized !== null).toBe(quantized.includes(recipe));
    if (bytes.quantized !== null) expect(bytes.quantized).toBe((await result.export()).length);
    expect(original_bytes).toBe(before.info.file_bytes);
    expect(past.map((text) => JSON.parse(text) as Recipe)).toEqual(run.steps.length > 0 ? [run] : []);
    const names = tensors.map((tensor) => tensor.name);
    expect(names).toEqual(expect.arrayContaining(result.info.weights.map((weight) => weight.name)));
  });
});

describe("other models", () => {
  const external = externalNet();
  const files: [string, Uint8Array, Record<string, Uint8Array>?][] = [
    ["convolutions at opset 21", convNet({ opset: 21, metadata: { author: "somebody" } })],
    ["matrix products", matmulNet()],
    ["half floats", halfNet()],
    ["constant nodes", constantNet()],
    ["branches", branchNet()],
    ["an embedding", embeddingNet()],
    ["external data", external.model, { "weights.bin": external.external }],
  ];

  test.each(files)("%s come back as the engine writes them", async (_, file, beside = {}) => {
    using before = await engine.open(file, { external: beside });
    expectSame(await decode(await before.export("nib")), await before.export());
    const { model: result } = await before.compress({ version: 1, steps: recipes["8 bits"]! });
    const nib = await result.export("nib");
    const { quantized } = (await inspectNib(nib)).bytes;
    expectSame(await decode(nib, quantized === null ? {} : { form: "quantized" }), await result.export());
    using float = await engine.open(await decode(nib));
    expect(float.info.nodes).toBe(before.info.nodes);
    for (const { name } of before.info.weights) expect(await float.values(name)).toEqual(await result.values(name));
  });

  test("safetensors come back as safetensors", async () => {
    using onnx = await engine.open(sample("simplenet"));
    const file = await onnx.export("safetensors");
    for (const recipe of Object.keys(recipes)) {
      const { result, nib } = await make(file, recipes[recipe]!);
      expect(await inspectNib(nib), recipe).toMatchObject({ format: "safetensors", bytes: { quantized: null } });
      expectSame(await decode(nib), await result.export("safetensors"), recipe);
      if (recipe === "as it is") expectSame(await decode(nib), file);
    }
  });

  test("every type of element has its array", async () => {
    const next = uniform(5);
    const types = {
      float: Float32Array,
      double: Float64Array,
      float16: Uint16Array,
      bfloat16: Uint16Array,
      int8: Int8Array,
      uint8: Uint8Array,
      int16: Int16Array,
      uint16: Uint16Array,
      int32: Int32Array,
      uint32: Uint32Array,
      int64: BigInt64Array,
      uint64: BigUint64Array,
      bool: Uint8Array,
    };
    const codes: Record<string, number> = { ...DataType, uint16: 4, int16: 5, uint32: 12, uint64: 13 };
    const raws = Object.entries(types).map(([name, { BYTES_PER_ELEMENT }]) => {
      const limit = name === "bool" ? 2 : 256;
      return { name, raw: Uint8Array.from({ length: 60 * BYTES_PER_ELEMENT }, () => Math.floor(limit * next())) };
    });
    const file = model(
      graph({
        nodes: raws.map(({ name }) => node("Identity", [name], [`${name}.out`])),
        initializers: raws.map(({ name, raw }) =>
          new Message().ints(1, [3, 20]).int(2, codes[name]!).text(8, name).bytes(9, raw),
        ),
        inputs: [],
        outputs: raws.map(({ name }) => value(`${name}.out`, [3, 20], codes[name])),
      }),
    );
    using opened = await engine.open(file);
    const nib = await opened.export("nib");
    const tensors = await tensorsOf(nib);
    expect(tensors.map(({ name }) => name)).toEqual(Object.keys(types));
    for (const [i, { name, dtype, shape, data }] of tensors.entries()) {
      expect(dtype).toBe({ float: "float32", double: "float64" }[name] ?? name);
      expect(shape).toEqual([3, 20]);
      expect(data, name).toBeInstanceOf(types[name as keyof typeof types]);
      expectSame(bytesOf(data), raws[i]!.raw, name);
    }
    expectSame(await decode(nib), await opened.export());
  });

  test("a model without a tensor is all header, and nothing may follow that either", async () => {
    const relu = graph({ nodes: [node("Relu", ["x"], ["y"])], inputs: [value("x", [4])], outputs: [value("y", [4])] });
    using opened = await engine.open(model(relu));
    const nib = await opened.export("nib");
    expectSame(await decode(nib), await opened.export());
    expect(await tensorsOf(nib)).toEqual([]);
    for (const read of [decode, tensorsOf]) {
      await expect(read(concat([nib, Uint8Array.of(0)]))).rejects.toMatchObject({ where: `byte ${nib.length}` });
    }
  });
});

describe("sources", () => {
  test("bytes, a part of an array, a Blob, a Response and a stream give the same", async () => {
    const { nib } = await small();
    const expected = await decode(nib);
    const wide = new Uint8Array(nib.length + 20);
    wide.set(nib, 10);
    const sources: Record<string, NibSource> = {
      "an ArrayBuffer": nib.slice().buffer,
      "a part": wide.subarray(10, 10 + nib.length),
      "a Blob": new Blob([nib as BlobPart]),
      "a Response": new Response(nib as BodyInit),
      "a stream": new Blob([nib as BlobPart]).stream(),
    };
    for (const [what, source] of Object.entries(sources)) expectSame(await decode(source), expected, what);
    expect(wide.subarray(10, 10 + nib.length)).toEqual(nib);
  });

  test("a stream may come in pieces of any size", async () => {
    const { nib } = await small();
    const expected = await decode(nib, { form: "quantized" });
    const tensors = await tensorsOf(nib);
    const next = uniform(3);
    const sizes: Record<string, () => number> = {
      "one byte": () => 1,
      "seven bytes": () => 7,
      "1021 bytes": () => 1021,
      "nothing, or up to 99 bytes": () => Math.max(0, Math.floor(120 * next()) - 20),
      "all but one byte": () => nib.length - 1,
    };
    for (const [what, size] of Object.entries(sizes)) {
      expectSame(await decode(streamed(nib, size).stream, { form: "quantized" }), expected, what);
      expect(await tensorsOf(streamed(nib, size).stream), what).toEqual(tensors);
      expect(await inspectNib(streamed(nib, size).stream), what).toEqual(await inspectNib(nib));
    }
  });

  test("a larger file in odd pieces, and many at once", async () => {
    const all = await Promise.all(["lenet-5", "resnet-8", "transformer"].map((name) => compressed(name, "8 bits")));
    const decoded = await Promise.all(all.map(({ nib }) => decode(streamed(nib, () => 4099).stream)));
    for (const [i, { nib }] of all.entries()) expectSame(decoded[i]!, await decode(nib));
  });

  test("blocks are decoded while later ones are still to come", async () => {
    const { nib } = await compressed("resnet-8", "as it is");
    let given = 0;
    const { stream } = streamed(nib, () => ((given += 1000), 1000));
    const seen: { done: number; given: number }[] = [];
    await decode(stream, {
      onProgress: (done, total) => {
        expect(total).toBe(nib.length);
        seen.push({ done, given });
      },
    });
    expect(seen.length).toBeGreaterThan(3);
    expect(seen.at(-1)!.done).toBe(nib.length);
    for (const { done, given } of seen) expect(given - done).toBeLessThan(1000);
  });

  test("inspectNib reads a stream's start, and decodeTensors of a Blob what is asked for", async () => {
    const { nib, result } = await compressed("lenet-5", "as it is");
    let given = 0;
    const { stream, fate } = streamed(nib, () => ((given += 500), 500));
    await inspectNib(stream);
    expect(given).toBeLessThan(2000);
    expect(fate).toEqual(["cancelled"]);

    const blob = new Blob([nib as BlobPart]);
    const slice = vi.spyOn(blob, "slice");
    const { name } = result.info.weights.find((weight) => weight.elements > 1000 && weight.elements < 100_000)!;
    const [tensor, ...others] = await tensorsOf(blob, { names: [name] });
    expect([tensor!.name, others]).toEqual([name, []]);
    expectSame(bytesOf(tensor!.data), bytesOf(await result.values(name)));
    const read = slice.mock.calls.reduce((sum, [from, to]) => sum + Math.min(to!, nib.length) - from!, 0);
    expect(read).toBeLessThan(nib.length / 4);
    await expect(tensorsOf(nib, { names: [name, "nowhere"] })).rejects.toMatchObject({
      code: "bad-data",
      where: "nowhere",
    });
  });

  test("a tensor belongs to whoever got it", async () => {
    const { nib } = await small();
    const expected = await tensorsOf(nib);
    let i = 0;
    for await (const tensor of decodeTensors(nib)) {
      expect(tensor).toEqual(expected[i++]);
      bytesOf(tensor.data).fill(255);
    }
  });

  test("an answer of failure, no body and no source at all are refused", async () => {
    const nothing = new Response("not found", { status: 404, statusText: "Not Found" });
    await expect(decode(nothing)).rejects.toMatchObject({ code: "bad-file", detail: expect.stringContaining("404") });
    await expect(decode(new Response(null))).rejects.toMatchObject({ code: "bad-file" });
    for (const source of ["model.nib", undefined, [1, 2, 3]]) {
      await expect(decode(source as never)).rejects.toMatchObject({ code: "bad-data", where: "source" });
    }
    await expect(decode(new Uint8Array(), { form: "int8" as never })).rejects.toMatchObject({
      code: "bad-data",
      where: "form",
      detail: expect.stringContaining('"int8"'),
    });
    const read = new Response("read already");
    await read.text();
    await expect(decode(read)).rejects.toMatchObject({ code: "bad-data", where: "source" });
  });

  /** A stream of the first bytes that then breaks off with `error`. */
  const brokenAfter = (bytes: Uint8Array, after: number, error: () => unknown) => {
    let first = true;
    return new ReadableStream<Uint8Array>({
      pull(controller) {
        if (!first) return controller.error(error());
        first = false;
        controller.enqueue(bytes.slice(0, after));
      },
    });
  };

  test("a source that breaks off says where and why", async () => {
    const { nib } = await small();
    for (const after of [0, 100, nib.length - 100]) {
      for (const read of [decode, tensorsOf]) {
        const lost = () => new TypeError("the connection was lost");
        for (const source of [brokenAfter(nib, after, lost), new Response(brokenAfter(nib, after, lost))]) {
          await expect(read(source)).rejects.toMatchObject({
            name: "NibbleError",
            code: "bad-file",
            where: `byte ${after}`,
            detail: expect.stringMatching(/^the source cannot be read on: .*the connection was lost/),
          });
        }
      }
    }
  });

  test("a request that the caller aborted is one that was stopped", async () => {
    const { nib } = await small();
    const aborted = () => new DOMException("the request was aborted", "AbortError");
    const expected = { name: "NibbleError", code: "cancelled" };
    await expect(decode(brokenAfter(nib, 100, aborted))).rejects.toMatchObject(expected);
    // With a signal, whatever the reason is that the request breaks off with.
    const stop = new AbortController();
    const stopped = brokenAfter(nib, 100, () => {
      stop.abort();
      return "enough";
    });
    await expect(decode(stopped, { signal: stop.signal })).rejects.toMatchObject(expected);
  });

  test("a file that was removed after it was picked says so", async () => {
    const { nib } = await compressed("resnet-8", "as it is");
    const folder = await mkdtemp(join(tmpdir(), "nibble-decode-"));
    try {
      await writeFile(join(folder, "model.nib"), nib);
      const blob = await openAsBlob(join(folder, "model.nib"));
      const tensors = decodeTensors(blob);
      expect((await tensors.next()).done).toBe(false);
      await rm(join(folder, "model.nib"));
      const failed = { name: "NibbleError", code: "bad-file", detail: expect.stringContaining("cannot be read on") };
      await expect(tensorsOf(blob)).rejects.toMatchObject({ ...failed, where: "byte 0" });
      const rest = async () => {
        while (!(await tensors.next()).done);
      };
      await expect(rest()).rejects.toMatchObject({ ...failed, where: expect.stringMatching(/^byte [1-9]\d*$/) });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("stopping", () => {
  test("what is stopped before it starts reads nothing", async () => {
    const { nib } = await small();
    const { stream, fate } = streamed(nib, () => 100);
    for (const read of [decode, tensorsOf]) {
      await expect(read(stream, { signal: AbortSignal.abort() })).rejects.toMatchObject({
        name: "NibbleError",
        code: "cancelled",
      });
    }
    expect([stream.locked, fate]).toEqual([false, []]);
  });

  test("on the way, from any source", async () => {
    const { nib } = await compressed("resnet-8", "as it is");
    for (const source of [nib, new Blob([nib as BlobPart]), streamed(nib, () => 1000).stream]) {
      const stop = new AbortController();
      let calls = 0;
      const onProgress = () => {
        if (++calls === 2) stop.abort();
      };
      await expect(decode(source, { signal: stop.signal, onProgress })).rejects.toMatchObject({ code: "cancelled" });
      expect(calls).toBe(2);
    }
  });

  test("while a stream gives nothing, which is then told so", async () => {
    const { nib } = await small();
    for (const start of [0, 10, 300, nib.length - 1, nib.length]) {
      const fate: string[] = [];
      const stream = new ReadableStream<Uint8Array>({
        start: (controller) => controller.enqueue(nib.slice(0, start)),
        pull: () => new Promise(() => {}),
        cancel: () => void fate.push("cancelled"),
      });
      const stop = new AbortController();
      const decoding = decode(stream, { signal: stop.signal });
      setTimeout(() => stop.abort(), 20);
      await expect(decoding, `after ${start}`).rejects.toMatchObject({ name: "NibbleError", code: "cancelled" });
      expect(fate, `after ${start}`).toEqual(["cancelled"]);
    }
  });

  test("a stream is let go whatever the end is", async () => {
    const { nib } = await compressed("resnet-8", "as it is");
    const damaged = nib.slice();
    damaged[nib.length >> 1]! ^= 1;
    const ends: Record<string, [Uint8Array, (stream: ReadableStream<Uint8Array>) => Promise<unknown>]> = {
      "no such form": [nib, (stream) => decode(stream, { form: "quantized" })],
      "too large": [nib, (stream) => decode(stream, { maxBytes: 1000 })],
      "too large a tensor": [nib, (stream) => tensorsOf(stream, { maxBytes: 1000 })],
      damaged: [damaged, (stream) => decode(stream)],
      "damaged, tensors": [damaged, (stream) => tensorsOf(stream)],
      "no .nib": [sample("resnet-8"), (stream) => decode(stream)],
      "no such tensor": [nib, (stream) => tensorsOf(stream, { names: ["nowhere"] })],
    };
    for (const [what, [bytes, read]] of Object.entries(ends)) {
      const { stream, fate } = streamed(bytes, () => 100);
      await expect(read(stream), what).rejects.toBeInstanceOf(NibbleError);
      expect(fate, what).toEqual(["cancelled"]);
    }
    const { stream, fate } = streamed(nib, () => 100);
    for await (const tensor of decodeTensors(stream)) {
      expect(tensor.shape.length).toBeGreaterThan(0);
      break;
    }
    expect(fate).toEqual(["cancelled"]);
  });
});

test("a file that would become larger than allowed is refused with both sizes", async () => {
  const { nib } = await small();
  for (const form of ["float", "quantized"] as const) {
    const { length } = await decode(nib, { form });
    expect((await decode(nib, { form, maxBytes: length })).length).toBe(length);
    await expect(decode(nib, { form, maxBytes: length - 1 })).rejects.toMatchObject({
      code: "out-of-memory",
      detail: expect.stringMatching(new RegExp(`${length} bytes, expected at most ${length - 1}`)),
    });
  }
  await expect(tensorsOf(nib, { maxBytes: 1000 })).rejects.toMatchObject({ code: "out-of-memory" });
});

describe("bad files", () => {
  /** Must fail in an orderly way, whoever reads it, and whoever reads on must have got right values before. */
  async function expectRefused(bytes: Uint8Array, right: NibTensor[], what: string): Promise<NibbleError> {
    const thrown: unknown = await decode(bytes).catch((error: unknown) => error);
    expect(thrown, what).toBeInstanceOf(NibbleError);
    const error = thrown as NibbleError;
    expect(["bad-file", "unsupported"], `${what}: ${error.message}`).toContain(error.code);
    expect(error.detail.length, what).toBeGreaterThan(10);
    let i = 0;
    const reading = async () => {
      for await (const { name, data } of decodeTensors(bytes)) {
        expect(name, what).toBe(right[i]!.name);
        expectSame(bytesOf(data), bytesOf(right[i++]!.data), what);
      }
    };
    await expect(reading(), what).rejects.toMatchObject({ name: "NibbleError", message: error.message });
    return error;
  }

  // Every place of one file is what the tests of the C++ core try; these see that a refusal there is one here.
  async function tiny(): Promise<Uint8Array> {
    const steps = [...recipes["8 bits"]!, { kind: "encode", lambda: 0.01 } as const];
    return (await make(gemmNet(true), steps)).nib;
  }
  /** The ends are all tried, of what is between each 17th. */
  const tried = (length: number) =>
    Array.from({ length }, (_, i) => i).filter((i) => i < 24 || i >= length - 24 || i % 17 === 0);

  test("cut off anywhere, a small one is refused", async () => {
    const nib = await tiny();
    const right = await tensorsOf(nib);
    for (const length of tried(nib.length)) {
      const { detail, where } = await expectRefused(nib.subarray(0, length), right, `${length} bytes`);
      if (length > 3) expect(detail, `${length} bytes`).toMatch(/cut off/);
      expect(where, `${length} bytes`).toMatch(/^byte \d+/);
    }
    await expectRefused(concat([nib, Uint8Array.of(0)]), right, "a byte more");
    await expectRefused(concat([nib, nib]), right, "twice");
  });

  test("a flipped bit anywhere in a small one is seen", async () => {
    const nib = await tiny();
    const right = await tensorsOf(nib);
    const next = uniform(11);
    for (const at of tried(nib.length)) {
      const bit = Math.floor(8 * next());
      const damaged = nib.slice();
      damaged[at]! ^= 1 << bit;
      await expectRefused(damaged, right, `byte ${at}, bit ${bit}`);
    }
  });

  test.each(sampleNames)("%s: cut off or with a flipped bit, it is refused", async (name) => {
    const next = uniform(sampleNames.indexOf(name));
    for (const recipe of Object.keys(recipes)) {
      const { nib } = await compressed(name, recipe);
      const right = await tensorsOf(nib);
      for (let i = 0; i < 2; i++) {
        const length = Math.floor(nib.length * next());
        await expectRefused(nib.subarray(0, length), right, `${recipe}, ${length} bytes`);
        const [at, bit] = [Math.floor(nib.length * next()), Math.floor(8 * next())];
        const damaged = nib.slice();
        damaged[at]! ^= 1 << bit;
        await expectRefused(damaged, right, `${recipe}, byte ${at}, bit ${bit}`);
      }
    }
  });

  test("several damages at once, and a block in another's place, are seen", async () => {
    const { nib } = await small();
    const right = await tensorsOf(nib);
    const next = uniform(23);
    for (let round = 0; round < 40; round++) {
      const damaged = nib.slice();
      for (let i = 0; i <= round % 7; i++) damaged[Math.floor(nib.length * next())] = Math.floor(256 * next());
      if (bytesOf(damaged).equals(bytesOf(nib))) continue;
      await expectRefused(damaged, right, `round ${round}`);
    }
    const swapped = nib.slice();
    const [from, to] = [nib.length - 2000, nib.length - 1000];
    swapped.set(nib.subarray(from, to), to);
    swapped.set(nib.subarray(to), from);
    await expectRefused(swapped, right, "swapped");
  });

  test("what is no .nib is said to be none, and a later version is named with a way out", async () => {
    const { nib } = await small();
    for (const bytes of [
      convNet(),
      new TextEncoder().encode("<!doctype html><title>404</title>"),
      new Uint8Array(99),
    ]) {
      for (const read of [decode, tensorsOf, inspectNib]) {
        await expect(read(bytes)).rejects.toMatchObject({
          code: "bad-file",
          where: "byte 0",
          detail: "this is not a .nib file",
        });
      }
    }
    for (const version of [0, 2, 255]) {
      const later = nib.slice();
      later[3] = version;
      for (const read of [decode, tensorsOf, inspectNib]) {
        await expect(read(later)).rejects.toMatchObject({
          name: "NibbleError",
          code: "unsupported",
          where: "byte 3",
          detail: `this .nib file has version ${version}, this Nibble reads version 1; a newer one may be able to read it`,
        });
      }
    }
  });

  test("engine and decoder refuse the same files", async () => {
    const { nib } = await small();
    const next = uniform(31);
    for (let round = 0; round < 40; round++) {
      const length = round % 3 === 0 ? Math.floor(nib.length * next()) : nib.length;
      const damaged = nib.slice(0, length);
      if (length > 0) damaged[Math.floor(length * next())]! ^= 1 << Math.floor(8 * next());
      const error = await decode(damaged).catch((thrown: unknown) => thrown);
      const other = await engine.open(damaged, { name: "damaged.nib" }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(NibbleError);
      expect(other).toMatchObject({ name: "NibbleError" });
    }
  });
});

test("a .nib of a .nib holds every recipe", async () => {
  const { nib, recipe, before } = await small();
  using opened = await engine.open(nib);
  const { model: result, report } = await opened.compress({ version: 1, steps: [{ kind: "cluster", bits: 2 }] });
  const again = await result.export("nib" satisfies Format);
  const { recipes: past, original_bytes } = await inspectNib(again);
  expect(past.map((text) => JSON.parse(text) as Recipe)).toEqual([recipe, report.recipe]);
  expect(original_bytes).toBe(before.info.file_bytes);
  expectSame(await decode(again), await result.export());
});
