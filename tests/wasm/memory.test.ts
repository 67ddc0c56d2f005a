// How much room the module takes beside the file that it has opened: at most two and a half times the file, at its highest.
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import type { EngineModule, Outcome } from "../../wasm/src/module";
import { floats, graph, model, node, value } from "../fixtures/onnx";

const folder = new URL("../../build/wasm/wasm/", import.meta.url);

function take<T>(outcome: Outcome<T>): T {
  if (!outcome.ok) throw new Error(`${outcome.where}: ${outcome.message}`);
  return outcome.value;
}

/** A net of 40 MB, its values cheap to make; raw_data at every alignment that file offsets can have. */
function bigNet(): Uint8Array {
  const shapes = [
    [512, 256, 3, 3],
    [1024, 4096],
    [4096, 1024],
    [1000, 501],
  ];
  const initializers = shapes.map((shape, index) => {
    const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
    for (let i = 0; i < values.length; i++) values[i] = ((Math.imul(i, 0x9e3779b1) >>> 0) / 2 ** 32 - 0.5) * 0.1;
    return floats("w".repeat(index + 1), shape, values);
  });
  const nodes = shapes.map((shape, index) =>
    node(shape.length === 4 ? "Conv" : "MatMul", ["x", "w".repeat(index + 1)], [`y${index}`]),
  );
  return model(
    graph({ nodes, initializers, inputs: [value("x", ["n"])], outputs: [value("y0", ["n"]), value("y3", ["n"])] }),
    { opset: 21 },
  );
}

describe.each([
  [
    "pruned, then 4 bits in groups",
    [
      { kind: "prune", sparsity: 0.8, scope: "global" },
      { kind: "quantize", scheme: { bits: 4, granularity: "group" }, range: "mse" },
    ],
  ],
  [
    "8 bits per tensor, affine, by percentile",
    [{ kind: "quantize", scheme: { bits: 8, symmetric: false, granularity: "tensor" }, range: "percentile" }],
  ],
  [
    "channels, then 16 bits",
    [
      { kind: "prune", sparsity: 0.5, pattern: "channels" },
      { kind: "quantize", scheme: { bits: 16 } },
    ],
  ],
])("opened, %s, and written", (_, steps) => {
  let file: Uint8Array;
  beforeAll(() => {
    file = bigNet();
  });

  test("the heap stays below two and a half times the file", async () => {
    const { default: createEngine } = (await import(new URL("engine.mjs", folder).href)) as {
      default: (options: object) => Promise<EngineModule>;
    };
    let memory: WebAssembly.Memory | undefined;
    const engine = await createEngine({
      instantiateWasm(imports: WebAssembly.Imports, done: (instance: WebAssembly.Instance) => void) {
        void WebAssembly.instantiate(readFileSync(new URL("engine.wasm", folder)), imports).then(({ instance }) => {
          memory = Object.values(instance.exports).find((item) => item instanceof WebAssembly.Memory);
          done(instance);
        });
        return {};
      },
    });
    const files = new engine.Files();
    const buffer = take(files.add("big.onnx", file.length));
    buffer.view().set(file);
    buffer.delete();
    const listener = () => true;
    const opened = take(engine.open(files, listener));
    files.delete();
    take(engine.describe(opened));
    const result = take(engine.compress(opened, JSON.stringify({ version: 1, steps }), "", 0, "", listener));
    take(engine.write(result.model, "", listener));
    // WebAssembly memory never shrinks: its size is the peak.
    expect(memory!.buffer.byteLength / file.length).toBeLessThan(2.5);
  });
});
