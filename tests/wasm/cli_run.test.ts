// What `nibble train` writes when a training is stopped, resumed or fails, over an engine made of a few lines: what a user
// does within one epoch, and a loss that is not a number any more, come here when the test says so.
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { NibbleError } from "../../wasm/src/api";
import type { OpenOptions, Training } from "../../wasm/src/api";
import { kCommandFlags, parse } from "../../wasm/src/flags";
import type { TrainProgress } from "../../wasm/src/types";

vi.mock("../../wasm/src/node", async () => ({
  ...(await import("../../wasm/src/api")),
  load: () => Promise.resolve(engine),
}));
const { train } = await import("../../wasm/src/cli-run");

/** Batches of an epoch, and epochs. */
const kBatches = 4;
const kEpochs = 3;
const kInterrupted = 130;

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (from: Uint8Array) => new TextDecoder().decode(from);

/** Steps done when the user presses Ctrl-C, and when the loss is not a number any more. */
let [interruptAt, failAt] = [Infinity, Infinity];

/** Counts its steps; its state is their number. The model of the best epoch is named by that epoch, from 1. */
class FakeTraining implements Training {
  progress: TrainProgress | null = null;
  #step = 0;

  async run({ signal, onProgress }: Parameters<Training["run"]>[0] = {}): Promise<TrainProgress> {
    while (this.#step < kBatches * kEpochs && !signal?.aborted) {
      const [epoch, batch] = [Math.floor(this.#step / kBatches), this.#step % kBatches];
      if (this.#step === failAt) {
        throw new NibbleError(
          "bad-data",
          `epoch ${epoch + 1}, batch ${batch + 1}`,
          "the loss is not a number any more",
        );
      }
      this.#step++;
      const ended = batch + 1 === kBatches;
      this.progress = {
        ...{ epoch, epochs: kEpochs, batch, batches: kBatches, step: this.#step, steps: kBatches * kEpochs },
        ...{ loss: 1, accuracy: null, learning_rate: 0.1, seconds: 1 },
        ...{ validation_loss: ended ? 1 : null, validation_accuracy: null, best: ended },
        done: this.#step === kBatches * kEpochs,
      };
      onProgress?.(this.progress);
      if (this.#step === interruptAt) process.emit("SIGINT");
    }
    if (!this.progress) throw new NibbleError("cancelled", "", "stopped by the caller");
    return this.progress;
  }
  async model(which: "current" | "best" = "best") {
    const epoch = Math.floor(this.#step / kBatches);
    const best = epoch > 0 ? `epoch ${epoch}` : "the start";
    return { ...model, export: async () => bytes(which === "best" ? best : `step ${this.#step}`) } as never;
  }
  save = async () => bytes(String(this.#step));
  async restore(saved: unknown) {
    this.#step = Number(text(saved as Uint8Array));
    this.progress = null;
  }
  dispose() {}
  [Symbol.dispose]() {}
}

const preparation = { reason: "fake" };
const model = {
  prepare: async () => preparation,
  train: async () => new FakeTraining(),
  evaluate: async () => ({ samples: 1, classes: 0, loss: 1, accuracy: null, seconds: 1, preparation }),
};
const engine = {
  async open(_file: Uint8Array, { external = {} }: OpenOptions) {
    if (external["model.onnx.data"]) return model;
    throw new NibbleError("bad-file", "weight", 'its external data file "model.onnx.data" is missing');
  },
  data: async () => ({}),
  create: async () => model,
  architectures: async () => [{ name: "tiny", summary: "the smallest" }],
};

let folder = "";
const at = (name: string) => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nibble-cli-run-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(() => {
  for (const name of readdirSync(folder)) rmSync(at(name));
  [interruptAt, failAt] = [Infinity, Infinity];
});

/** `nibble train` with data that are made and files in the test's folder; gives its exit code and what it printed. */
async function run(start: string, files: Record<string, string>): Promise<{ code: number; out: string }> {
  const flags = Object.entries(files).flatMap(([flag, name]) => [`--${flag}`, at(name)]);
  const args = parse([start, "--data", "digits:n=60", ...flags], kCommandFlags.train!);
  let out = "";
  const write = vi.spyOn(process.stdout, "write").mockImplementation((chunk) => Boolean((out += String(chunk))));
  try {
    return { code: await train(start, args), out };
  } finally {
    write.mockRestore();
  }
}
const written = (name: string) => readFileSync(at(name), "utf8");

test("stopped within the first epoch, and resumed and stopped within it again, it writes the weights as they are", async () => {
  interruptAt = 2;
  const first = await run("tiny", { save: "state.bin", output: "a.onnx" });
  expect([first.code, written("a.onnx")]).toEqual([kInterrupted, "step 2"]);
  expect(first.out).toMatch(
    /stopped in the first epoch, these are its weights so far; --resume .*state\.bin goes on\n$/,
  );
  interruptAt = 3;
  const second = await run("tiny", { resume: "state.bin", save: "state.bin", output: "b.onnx" });
  expect([second.code, written("b.onnx")]).toEqual([kInterrupted, "step 3"]);
  expect(second.out).toContain("stopped in the first epoch");
  // The first epoch's end and the second epoch, in the third run.
  interruptAt = 5;
  const third = await run("tiny", { resume: "state.bin", save: "state.bin", output: "c.onnx" });
  expect([third.code, written("c.onnx")]).toEqual([kInterrupted, "epoch 1"]);
  expect(third.out).toContain("stopped, these are the best weights so far");
  // No epoch ends in this one, but one did before.
  interruptAt = 6;
  const fourth = await run("tiny", { resume: "state.bin", output: "d.onnx" });
  expect([fourth.code, written("d.onnx")]).toEqual([kInterrupted, "epoch 1"]);
  expect(fourth.out).toContain("stopped, these are the best weights so far");
});

test("a training that fails writes the best epoch's weights, whoever ran that epoch", async () => {
  writeFileSync(at("state.bin"), "5");
  for (const [step, resume] of [
    [6, {}],
    [7, { resume: "state.bin" }],
    // Before it has done a single step.
    [5, { resume: "state.bin" }],
  ] as const) {
    failAt = step;
    await expect(run("tiny", { ...resume, output: "best.onnx" })).rejects.toThrow(/^epoch 2, batch \d: the loss/);
    expect(written("best.onnx")).toBe("epoch 1");
    rmSync(at("best.onnx"));
  }
});

test("a training that fails in its first epoch writes nothing", async () => {
  writeFileSync(at("state.bin"), "2");
  for (const [step, resume] of [
    [0, {}],
    [3, {}],
    [2, { resume: "state.bin" }],
    [3, { resume: "state.bin" }],
  ] as const) {
    failAt = step;
    await expect(run("tiny", { ...resume, output: "none.onnx" })).rejects.toMatchObject({ code: "bad-data" });
    expect(readdirSync(folder)).toEqual(["state.bin"]);
  }
});

test("no file that the model is read from is overwritten, those that were found beside it neither", async () => {
  writeFileSync(at("model.onnx"), "model");
  writeFileSync(at("model.onnx.data"), "weights");
  for (const files of [
    { save: "model.onnx.data", output: "out.onnx" },
    { save: "model.onnx", output: "out.onnx" },
    { save: "state.bin", output: "model.onnx" },
  ]) {
    await expect(run(at("model.onnx"), files)).rejects.toThrow(
      /model\.onnx\S* is also an input and would be overwritten/,
    );
  }
  expect([written("model.onnx"), written("model.onnx.data")]).toEqual(["model", "weights"]);
  expect(readdirSync(folder).sort()).toEqual(["model.onnx", "model.onnx.data"]);
  expect((await run(at("model.onnx"), { save: "state.bin", output: "out.onnx" })).code).toBe(0);
  expect(written("out.onnx")).toBe("epoch 3");
});
