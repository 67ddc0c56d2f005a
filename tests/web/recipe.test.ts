// The recipe's faces say the same: form, engine, address, command line. The command is read back with the command's own
// parser.
import { expect, test } from "vitest";
import type { Recipe } from "../../wasm/src/types";
import { kCommandFlags, parse, preparationOf, recipeOf as recipeOfFlags } from "../../wasm/src/flags";
import * as r from "../../web/src/recipe";

/** The recipe that the project's contract names. */
const kContract: Recipe = {
  version: 1,
  seed: 0,
  steps: [
    { kind: "prune", sparsity: 0.8, scope: "global", criterion: "magnitude", pattern: "unstructured" },
    {
      kind: "quantize",
      scheme: { bits: 8, symmetric: true, granularity: "channel" },
      range: "mse",
      rounding: "nearest",
    },
  ],
};

const kSides: Record<string, r.Side> = {
  first: r.firstSide(),
  threshold: {
    seed: 3,
    steps: [{ ...r.pruneDraft(), on: true, by: "threshold", threshold: 0.0125 }, r.quantizeDraft()],
  },
  pattern: {
    seed: 0,
    steps: [
      { ...r.pruneDraft(), on: true, pattern: "n:m", n: 1, m: 8 },
      {
        ...r.quantizeDraft(),
        bits: 4,
        symmetric: false,
        granularity: "group",
        group_size: 64,
        range: "percentile",
        percentile: 99.5,
      },
    ],
  },
  channels: {
    seed: 2 ** 53 - 1,
    steps: [
      {
        ...r.pruneDraft(),
        on: true,
        pattern: "channels",
        sparsity: 0.25,
        scope: "global",
        layers: { exclude: ["fc2.weight", "a/b c:d,e=f&g|*?#%"] },
      },
      {
        ...r.quantizeDraft(),
        on: false,
        range: "sigma",
        sigmas: 2.5,
        rounding: "stochastic",
        layers: { include: ["conv*"] },
      },
    ],
  },
  training: {
    seed: 1,
    steps: [
      { ...r.pruneDraft(), on: true, layers: { exclude: ["fc2.weight"] } },
      { ...r.quantizeDraft(), bits: 3 },
      {
        ...r.trainDraft(),
        choice: {
          ...r.firstChoice(),
          optimizer: "sgd",
          learning_rate: 0.05,
          momentum: 0.8,
          clip_norm: 1,
          keep_grids: false,
        },
      },
    ],
  },
  "three steps": {
    seed: 0,
    steps: [
      { ...r.quantizeDraft(), bits: 8 },
      { ...r.pruneDraft(), on: true, sparsity: 1 },
      { ...r.quantizeDraft(), bits: 2, layers: { include: ["fc?"] } },
    ],
  },
};

test("the form gives back a recipe it was given", () => {
  expect(r.recipeOf(r.sideOf(kContract))).toEqual(kContract);
});

test.each(Object.entries(kSides))("the address keeps the whole recipe: %s", (_name, side) => {
  const hash = r.hashOf({ side, language: "zh", sample: "simplenet", layer: "layer 1/weight&x" });
  // What a browser may do to a hash that is copied around: nothing that a URL parser would change.
  expect(new URL(`http://x/${hash}`).hash).toBe(hash);
  const place = r.placeOf(hash);
  expect(place).toMatchObject({ language: "zh", sample: "simplenet", layer: "layer 1/weight&x" });
  expect(place.side!.seed).toBe(side.seed);
  expect(r.recipeOf(place.side!)).toEqual(r.recipeOf(side));
  // Steps that are switched off keep their settings too.
  expect(place.side!.steps.map((step) => [step.on, r.stepOf(step)])).toEqual(
    side.steps.map((step) => [step.on, r.stepOf(step)]),
  );
});

test("an address without a recipe leaves the recipe alone", () => {
  expect(r.placeOf("").side).toBeNull();
  expect(r.placeOf("#lang=en&sample=x").side).toBeNull();
});

test("what does not belong in an address is ignored", () => {
  const { side } = r.placeOf(
    "#seed=-1&quantize=bits:9,granularity:rows,group_size:1e9,symmetric:maybe,__proto__:1,constructor:2,range:mse&prune=sparsity:1.5,scope:global,exclude:%E0%A4%A&lang=fr",
  );
  expect(side!.seed).toBe(0);
  expect(side!.steps[0]).toEqual({ ...r.quantizeDraft(), range: "mse" });
  expect(side!.steps[1]).toEqual({ ...r.pruneDraft(), on: true, scope: "global" });
});

test("an address with one kind of step gives a form with both", () => {
  expect(r.placeOf("#quantize=bits:4").side!.steps.map(({ kind, on }) => [kind, on])).toEqual([
    ["prune", false],
    ["quantize", true],
  ]);
});

/** Splits a command as a shell does: blanks outside single quotes. */
const words = (command: string): string[] =>
  [...command.matchAll(/(?:[^\s']|'[^']*')+/g)].map(([word]) =>
    word.replace(/\\'|'/g, (mark) => (mark === "'" ? "" : "'")),
  );

/** The recipe that the command's own parser reads, with the defaults that the command leaves unsaid. */
function readBack(command: string): { recipe: Recipe; given: ReturnType<typeof parse> } {
  const given = parse(words(command).slice(3), kCommandFlags.compress!);
  const { seed = 0, steps } = recipeOfFlags(given);
  const filled = steps.map((step) => (step.kind === "prune" ? { criterion: "magnitude" as const, ...step } : step));
  return { recipe: { version: 1, seed, steps: filled }, given };
}

test.each(["first", "threshold", "pattern"])("the command spells the same recipe: %s", (name) => {
  const recipe = r.recipeOf(kSides[name]!);
  const command = r.commandOf(recipe, "my model.onnx", "onnx");
  expect(command).toMatch(/^npx nibble-nn compress 'my model.onnx' --/);
  const { recipe: read, given } = readBack(command);
  expect(given.positional).toEqual(["my model.onnx"]);
  expect(given.values.get("output")).toEqual(["my model.small.onnx"]);
  expect(read).toEqual(recipe);
});

test("layers go into the command when all steps share them", () => {
  const layers = { exclude: ["fc*", "it's"] };
  const side = { seed: 0, steps: r.firstSide().steps.map((step) => ({ ...step, on: true, layers })) };
  expect(readBack(r.commandOf(r.recipeOf(side), "m.onnx", "onnx")).recipe).toEqual(r.recipeOf(side));
});

test.each(["channels", "three steps", "training"])("a recipe that flags cannot spell goes in as JSON: %s", (name) => {
  const side = kSides[name]!;
  const recipe = { ...r.recipeOf(side), ...(name === "channels" && { steps: side.steps.map(r.stepOf) }) };
  const command = r.commandOf(recipe, "m.onnx", "onnx");
  const [, json] = /^echo '(.*)' \| npx nibble-nn compress m\.onnx --recipe -(?: --data DATA)? -o m\.small\.onnx$/.exec(
    command,
  )!;
  expect(command.includes("--data")).toBe(name === "training");
  expect(JSON.parse(json!)).toEqual(recipe);
});

test("a layer is taken out of every step and put back", () => {
  const names = ["conv1.weight", "conv2.weight", "fc.weight"];
  const side = r.firstSide();
  const without = r.withLayer(side, "fc.weight", false, names);
  expect(without.steps.map((step) => step.layers)).toEqual([{ exclude: ["fc.weight"] }, { exclude: ["fc.weight"] }]);
  expect(names.filter((name) => r.takesPart(without, name))).toEqual(["conv1.weight", "conv2.weight"]);
  expect(r.withLayer(without, "fc.weight", true, names)).toEqual(side);
});

test("putting one layer back leaves the others that its glob shut out", () => {
  const names = ["conv1.weight", "conv2.weight", "fc.weight"];
  const side: r.Side = { seed: 0, steps: [{ ...r.quantizeDraft(), layers: { exclude: ["conv*"] } }] };
  const back = r.withLayer(side, "conv2.weight", true, names);
  expect(names.filter((name) => r.takesPart(back, name))).toEqual(["conv2.weight", "fc.weight"]);
});

test("putting a layer back into a step that names its layers adds its name", () => {
  const side: r.Side = { seed: 0, steps: [{ ...r.quantizeDraft(), layers: { include: ["a"] } }] };
  expect(r.withLayer(side, "b", true, ["a", "b"]).steps[0]!.layers).toEqual({ include: ["a", "b"] });
});

test("a layer gets bits of its own, shares them, and goes back", () => {
  const first = r.firstSide();
  const one = r.withOwnBits(first, "a", 4);
  expect(r.recipeOf(one).steps).toEqual([
    { ...r.stepOf(r.quantizeDraft()), layers: { exclude: ["a"] } },
    { ...r.stepOf({ ...r.quantizeDraft(), bits: 4 }), layers: { include: ["a"] } },
  ]);
  const two = r.withOwnBits(one, "b", 4);
  expect(two.steps.length).toBe(3);
  expect(two.steps[2]!.layers.include).toEqual(["a", "b"]);
  const moved = r.withOwnBits(two, "a", 2);
  expect(["a", "b", "c"].map((name) => r.ownBits(moved, name))).toEqual([2, 4, null]);
  expect(r.recipeOf(r.withOwnBits(r.withOwnBits(moved, "a", null), "b", null))).toEqual(r.recipeOf(first));
  expect(r.recipeOf(r.withoutStep(two, 2))).toEqual(r.recipeOf(first));
});

test("recipes are edited in browsers without the array methods of 2022 and 2023", () => {
  const young = ["toSpliced", "toSorted", "toReversed", "with", "findLast", "findLastIndex"] as const;
  const kept = young.map((name) => Object.getOwnPropertyDescriptor(Array.prototype, name)!);
  const edit = (): r.Side =>
    r.withOwnBits([r.encodeDraft(), r.trainDraft(), r.clusterDraft()].reduce(r.withStep, r.firstSide()), "a", 4);
  const hash = "#train=epochs:2&encode=lambda:0";
  const expected = [edit(), r.placeOf(hash)];
  let found: unknown;
  try {
    for (const name of young) Reflect.deleteProperty(Array.prototype, name);
    found = [edit(), r.placeOf(hash)];
  } finally {
    young.forEach((name, i) => Object.defineProperty(Array.prototype, name, kept[i]!));
  }
  expect(found).toEqual(expected);
});

test("a layer with bits of its own is quantized once, also after it was taken out and put back", () => {
  const side = r.withOwnBits(r.firstSide(), "a", 4);
  const back = r.withLayer(r.withLayer(side, "a", false, ["a", "b"]), "a", true, ["a", "b"]);
  expect(r.recipeOf(back)).toEqual(r.recipeOf(side));
});

test("globs match whole names, and everything but * and ? stands for itself", () => {
  expect(r.matches("conv*", "conv1.weight")).toBe(true);
  expect(r.matches("conv", "conv1.weight")).toBe(false);
  expect(r.matches("conv?.weight", "conv1.weight")).toBe(true);
  expect(r.matches("conv1.weight", "conv1xweight")).toBe(false);
  expect(r.matches("a[0](b)", "a[0](b)")).toBe(true);
});

test("a step for layers of another model is dropped with that model, and the others stay", () => {
  const side = r.sideOf({
    version: 1,
    steps: [
      { kind: "quantize", scheme: { bits: 8 } },
      { kind: "quantize", scheme: { bits: 2 }, layers: { include: ["fc1.weight"] } },
    ],
  });
  expect(r.fitting(side, ["conv.weight"]).steps).toEqual([side.steps[0]]);
  expect(r.fitting(side, ["fc1.weight"])).toEqual(side);
});

test("the result's name ends in what it is", () => {
  expect(r.smallName("model.onnx", "onnx")).toBe("model.small.onnx");
  expect(r.smallName("model.pb", "onnx")).toBe("model.pb.small.onnx");
  expect(r.smallName("weights", "safetensors")).toBe("weights.small.safetensors");
});

test("a training is kept as it came, without what belongs to another optimizer or schedule", () => {
  const recipe: Recipe = {
    version: 1,
    seed: 0,
    steps: [
      { kind: "train", epochs: 7, optimizer: "sgd", momentum: 0.5, schedule: "constant", patience: 2, warmup: 1 },
    ],
  };
  const side = r.sideOf(recipe);
  expect(r.recipeOf(side)).toEqual(recipe);
  const [draft] = side.steps as [r.TrainDraft];
  const other = { ...draft, choice: { ...draft.choice, optimizer: "adam" as const, step_epochs: 3 } };
  expect(r.stepOf(other)).not.toHaveProperty("momentum");
  expect(r.stepOf(other)).not.toHaveProperty("step_epochs");
});

test("training stands after what the form adds, and no layer can be taken out of it", () => {
  const { side } = r.placeOf("#train=epochs:2,learning_rate:0.01,bits:3,optimizer:newton");
  expect(side!.steps.map(({ kind, on }) => [kind, on])).toEqual([
    ["prune", false],
    ["quantize", false],
    ["train", true],
  ]);
  expect(r.recipeOf(side!).steps[0]).toEqual({ kind: "train", ...r.firstChoice(), epochs: 2, learning_rate: 0.01 });
  expect(r.learns(side!)).toBe(true);
  expect(r.learns(r.withoutLearning(side!))).toBe(false);
  const names = ["a", "b"];
  const on = { ...side!, steps: side!.steps.map((step) => ({ ...step, on: true })) };
  const without = r.withLayer(on, "a", false, names);
  expect(without.steps.map(({ layers }) => layers.exclude ?? [])).toEqual([["a"], ["a"], []]);
  expect(r.takesPart(without, "a")).toBe(false);
  expect(r.takesPart(without, "b")).toBe(true);
  expect(r.withOwnBits(on, "b", 2).steps.map(({ kind }) => kind)).toEqual(["prune", "quantize", "quantize", "train"]);
});

test("the address keeps data that are made from a seed, and the part of the page that is looked at", () => {
  const side = r.firstSide();
  const hash = r.hashOf({ side, data: { kind: "digits", seed: 7, n: 500 }, view: "train" });
  expect(r.placeOf(hash)).toMatchObject({ data: { kind: "digits", seed: 7, n: 500 }, view: "train" });
  expect(r.placeOf(r.hashOf({ side, data: "none", view: "layer" }))).toEqual({ side, data: "none" });
  expect(r.placeOf("#data=digits,n:1e9,seed:-3&view=elsewhere")).toEqual({
    side: null,
    data: { kind: "digits", seed: 1, n: 2000 },
    view: undefined,
  });
  expect(r.placeOf("#data=letters").data).toBeUndefined();
});

test("shared values and coding keep their place, their fields and their address", () => {
  const recipe: Recipe = {
    version: 1,
    seed: 3,
    steps: [
      { kind: "prune", sparsity: 0.7, scope: "layer", criterion: "magnitude", pattern: "unstructured" },
      { kind: "cluster", bits: 5, initial: "density", layers: { exclude: ["b"] } },
      { kind: "encode", coder: "rans", lambda: 1e-8, importance: "hessian", quantized_form: false },
    ],
  };
  const side = r.sideOf(recipe);
  expect(r.recipeOf(side)).toEqual(recipe);
  const again = r.placeOf(r.hashOf({ side })).side!;
  expect(r.recipeOf(again)).toEqual(recipe);
  expect(again.steps.map(({ kind }) => kind)).toEqual(["prune", "cluster", "quantize", "encode"]);
  // What only counts with a lambda is not said without one.
  const free = { ...side, steps: side.steps.map((step) => (step.kind === "encode" ? { ...step, lambda: 0 } : step)) };
  expect(r.recipeOf(free).steps[2]).toEqual({ kind: "encode", coder: "rans", quantized_form: false });
  expect([r.learns(side), r.learns(free)]).toEqual([true, false]);
  expect(r.withoutLearning(side).steps.map(({ kind }) => kind)).toEqual(["prune", "cluster"]);
  expect(r.takesPart(side, "b")).toBe(true);
  expect(r.placeOf("#cluster=bits:9,initial:best&encode=lambda:2,coder:zip").side!.steps.slice(1)).toEqual([
    r.clusterDraft(),
    { ...r.quantizeDraft(), on: false },
    r.encodeDraft(),
  ]);
});

test("steps are put where they belong, and shared values take the place of grids", () => {
  const grown = [r.encodeDraft(), r.trainDraft(), r.clusterDraft()].reduce(r.withStep, r.firstSide());
  expect(grown.steps.map(({ kind, on }) => [kind, on])).toEqual([
    ["prune", false],
    ["quantize", false],
    ["cluster", true],
    ["train", true],
    ["encode", true],
  ]);
  // Bits of a layer's own come before what must follow quantizing.
  expect(r.withOwnBits(r.withStep(r.firstSide(), r.encodeDraft()), "a", 2).steps.map(({ kind }) => kind)).toEqual([
    "prune",
    "quantize",
    "quantize",
    "encode",
  ]);
});

test("the command of a recipe that says how to code writes a .nib file, with data where it needs them", () => {
  const coded = r.withStep(r.firstSide(), r.encodeDraft());
  expect(r.commandOf(r.recipeOf(coded), "m.onnx", "onnx")).toMatch(/ --recipe - -o m\.small\.nib$/);
  const weighed = r.withStep(r.firstSide(), { ...r.encodeDraft(), lambda: 1e-8, importance: "diagonal" });
  expect(r.commandOf(r.recipeOf(weighed), "m.nib", "onnx", { data: "d.npz" })).toMatch(
    / --data d\.npz -o m\.small\.nib$/,
  );
});

test("the command gives data to a recipe that learns as the user wrote it, and to no other", () => {
  const preparation = { shape: [3, 8, 8], layout: "chw" as const, scale: 1e-7, mean: [-0.5, 0, 1], std: [0.25, 1, 1] };
  const command = r.commandOf(r.recipeOf(kSides.training!), "m.onnx", "onnx", { data: "d.npz", preparation });
  const { shape: _shape, ...given } = preparation;
  const args = parse(words(command.slice(command.indexOf("npx"))).slice(3), kCommandFlags.compress!);
  expect(preparationOf(args)).toEqual(given);
  expect(args.values.get("data")).toEqual(["d.npz"]);
  expect(r.commandOf(r.recipeOf(r.firstSide()), "m.onnx", "onnx", { preparation })).not.toContain("--scale");
  const free = r.recipeOf(r.withStep(r.firstSide(), r.encodeDraft()));
  expect(r.commandOf(free, "m.onnx", "onnx", { preparation })).not.toContain("--scale");
});

test("the command names the data that a training learns from", () => {
  const recipe = r.recipeOf(kSides.training!);
  expect(r.dataName({ kind: "digits", seed: 3, n: 500 })).toBe("digits:seed=3,n=500");
  expect(r.dataName({ kind: "files", names: ["a b.npz", "c.npz"] })).toBe("'a b.npz,c.npz'");
  expect(r.dataName({ kind: "files", names: ["mine/cat/1.png", "mine/dog/2.png"] })).toBe("mine");
  expect(r.commandOf(recipe, "m.onnx", "onnx", { data: "digits:seed=3,n=500" })).toContain(
    " --data digits:seed=3,n=500 -o ",
  );
});
