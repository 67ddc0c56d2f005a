// module.d.ts says what the compiled module exports; here the two are held against each other, both ways.
import { readFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import type { EngineModule } from "../../wasm/src/module";
import { convNet } from "../fixtures/make";

const built = new URL("../../build/wasm/wasm/", import.meta.url);
const declaration = readFileSync(new URL("../../wasm/src/module.d.ts", import.meta.url), "utf8");

let engine: EngineModule & Record<string, unknown>;
/** What an Embind module of the same Emscripten has by itself, found out by asking the class registry's own names. */
const kEmbindClass = ["isAliasOf", "clone", "delete", "isDeleted", "deleteLater"];

beforeAll(async () => {
  const { default: createEngine } = (await import(pathToFileURL(fileURLToPath(new URL("engine.mjs", built))).href)) as {
    default: (options: object) => Promise<EngineModule & Record<string, unknown>>;
  };
  engine = await createEngine({ wasmBinary: readFileSync(new URL("engine.wasm", built)) });
});

/** Names declared directly in an interface of module.d.ts. */
function membersOf(name: string): string[] {
  const body = new RegExp(`export interface ${name} \\{\\n([\\s\\S]*?)\\n\\}`).exec(declaration)?.[1];
  expect(body, name).toBeDefined();
  return [...body!.matchAll(/^ {2}(\w+)(?=[(:])/gm)].map((match) => match[1]!);
}

/** The functions and classes that Embind put on the module: what the runtime itself has, has other names. */
function exported(): string[] {
  const runtime =
    /^(_|asm$|ready$|then$|HEAP|wasm|calledRun$|dynCall_|count_emval|inspect|instantiateWasm$|locateFile$|print|on[A-Z]|quit$|noExitRuntime$|UTF|stringTo|callMain$|get[A-Z].*Name|FS|arguments$|thisProgram$|preRun$|postRun$|preInit$|monitor|setStatus|[A-Z]\w*(Error|Exception)$)/;
  return Object.keys(engine).filter((name) => typeof engine[name] === "function" && !runtime.test(name));
}

test("every declared member is in the compiled module, and nothing else is", () => {
  const declared = membersOf("EngineModule");
  expect(declared).toContain("compress");
  expect(declared.filter((name) => !(name in engine))).toEqual([]);
  // A class that only functions give, Buffer, is on the module too.
  const interfaces = [...declaration.matchAll(/^export interface (\w+)/gm)].map((match) => match[1]!);
  expect(exported().filter((name) => ![...declared, ...interfaces].includes(name))).toEqual([]);
});

test("the classes have the declared methods and no others", () => {
  const files = new engine.Files();
  const added = files.add("x", 4);
  expect(added.ok).toBe(true);
  if (!added.ok) return;
  const methods = (object: object) => {
    const names = new Set<string>();
    for (
      let at = Object.getPrototypeOf(object) as object;
      at && at !== Object.prototype;
      at = Object.getPrototypeOf(at) as object
    ) {
      for (const name of Object.getOwnPropertyNames(at)) names.add(name);
    }
    return [...names].filter(
      (name) => name !== "constructor" && (name === "delete" || !kEmbindClass.includes(name)) && !name.startsWith("$$"),
    );
  };
  expect(methods(files).sort()).toEqual(membersOf("Files").sort());
  expect(methods(added.value).sort()).toEqual(membersOf("Buffer").sort());
  added.value.delete();
  files.delete();
});

describe("outcomes", () => {
  const open = () => {
    const bytes = convNet();
    const files = new engine.Files();
    const added = files.add("model.onnx", bytes.length);
    if (!added.ok) throw new Error(added.message);
    added.value.view().set(bytes);
    const outcome = engine.open(files, () => true);
    added.value.delete();
    files.delete();
    if (!outcome.ok) throw new Error(outcome.message);
    return outcome.value;
  };

  test("have the declared shape when all is well", () => {
    const model = open();
    expect(model).toEqual(expect.any(Number));
    expect(typeof engine.version()).toBe("string");
    expect(engine.heap_bytes()).toBeGreaterThan(0);
    const described = engine.describe(model);
    expect(described.ok && typeof described.value).toBe("string");
    const recipe = '{"version":1,"steps":[{"kind":"quantize","scheme":{"bits":8}}]}';
    const run = engine.compress(model, recipe, "", 0, "", () => true);
    expect(run).toMatchObject({ ok: true, value: { model: expect.any(Number), report: expect.any(String) } });
    if (!run.ok) return;
    const values = engine.values(model, "fc.weight");
    expect(values.ok && values.value).toBeInstanceOf(Float32Array);
    const picture = engine.picture(model, run.value.model, "fc.weight", "{}");
    expect(picture.ok).toBe(true);
    if (picture.ok) {
      const { scalars, ...arrays } = picture.value;
      expect(JSON.parse(scalars)).toMatchObject({
        lo: expect.any(Number),
        hi: expect.any(Number),
        weight_columns: 256,
      });
      expect(Object.fromEntries(Object.entries(arrays).map(([name, array]) => [name, array.constructor.name]))).toEqual(
        {
          before: "Uint32Array",
          after: "Uint32Array",
          levels: "Float32Array",
          cells: "Float32Array",
          mse: "Float32Array",
          sqnr_db: "Float32Array",
          max_abs: "Float32Array",
        },
      );
    }
    const written = engine.write(run.value.model, "", () => true);
    expect(written.ok && written.value).toBeInstanceOf(Uint8Array);
    const coded = engine.write(run.value.model, "nib", () => true);
    expect(coded.ok && coded.value).toBeInstanceOf(Uint8Array);
    if (coded.ok) expect(new TextDecoder().decode(coded.value.subarray(0, 3))).toBe("NIB");
    for (const exact of [true, false]) {
      const phases: string[] = [];
      const counted = engine.bytes(run.value.model, exact, (phase) => phases.push(phase) > 0);
      expect(counted.ok && typeof counted.value).toBe("string");
      if (counted.ok) expect(JSON.parse(counted.value)).toMatchObject({ estimated: !exact, file: expect.any(Number) });
      expect(phases).toContain("bytes");
    }
    const packed = engine.packed(run.value.model, "fc.weight");
    expect(packed.ok && packed.value).toBeInstanceOf(Uint8Array);
    if (packed.ok) expect(packed.value).toHaveLength(2560);
    engine.close(model);
    engine.close(run.value.model);
  });

  test("have the declared shape for data, running and training", () => {
    const take = <T>(outcome: { ok: true; value: T } | { ok: false; message: string }): T => {
      if (!outcome.ok) throw new Error(outcome.message);
      return outcome.value;
    };
    const kinds = (parts: object) =>
      Object.fromEntries(Object.entries(parts).map(([key, part]) => [key, (part as object).constructor.name]));
    const listener = () => true;
    expect(typeof engine.relaxed()).toBe("boolean");
    const known = JSON.parse(engine.architectures()) as { name: string }[];
    expect(known.map(({ name }) => name)).toContain("simplenet");
    const model = take(engine.create("simplenet", 1));
    const data = take(engine.make_data('{"kind":"digits","seed":1,"n":60}'));
    expect(JSON.parse(take(engine.describe_data(data, "")))).toMatchObject({ samples: 60 });
    expect(kinds(take(engine.samples(data, Uint32Array.of(0))))).toEqual({
      values: "Uint8Array",
      labels: "Int32Array",
    });
    expect(take(engine.cannot_run(model))).toBe("");
    expect(JSON.parse(take(engine.prepare(model, data, "", listener)))).toMatchObject({ layout: expect.any(String) });
    const evaluated = {
      report: "String",
      indices: "Uint32Array",
      predictions: "Int32Array",
      confidence: "Float32Array",
      confusion: "Uint32Array",
    };
    expect(kinds(take(engine.evaluate(model, data, "", listener)))).toEqual(evaluated);
    const compared = take(engine.compare(model, model, data, "", listener));
    expect(kinds(compared)).toEqual({
      report: "String",
      indices: "Uint32Array",
      flipped: "Uint32Array",
      predictions_before: "Int32Array",
      predictions_after: "Int32Array",
      confidence_before: "Float32Array",
      confidence_after: "Float32Array",
      confusion_before: "Uint32Array",
      confusion_after: "Uint32Array",
    });
    const { activations } = JSON.parse(compared.report) as { activations: { name: string }[] };
    const activation = take(engine.activation(model, data, 0, activations[0]!.name, ""));
    expect(kinds(activation)).toEqual({ shape: "String", values: "Float32Array" });

    const files = new engine.Files();
    const input = take(files.add("x", 4 * 784));
    input.view().fill(0);
    input.delete();
    const { name } = (JSON.parse(take(engine.describe(model))) as { inputs: { name: string }[] }).inputs[0]!;
    const heads = JSON.stringify([{ name, dtype: "float32", shape: [1, 1, 28, 28] }]);
    const ran = take(engine.run(model, files, heads, "[]"));
    expect(JSON.parse(ran.outputs)).toEqual([{ name: expect.any(String), dtype: "float32", shape: [1, 10] }]);
    expect([ran.data.length, ran.data[0]!.length]).toEqual([1, 40]);
    files.delete();

    const training = take(engine.train_open(model, data, '{"epochs":1}', "", listener));
    const saved = take(engine.train_save(training));
    expect(saved).toBeInstanceOf(Uint8Array);
    const again = new engine.Files();
    const buffer = take(again.add("saved", saved.length));
    buffer.view().set(saved);
    buffer.delete();
    expect(take(engine.train_restore(training, again))).toBeNull();
    again.delete();
    // No time at all is one batch.
    expect(JSON.parse(take(engine.train_step(training, 0, listener)))).toHaveLength(1);
    const trained = take(engine.train_model(training, "current"));
    expect(trained).toEqual(expect.any(Number));
    engine.train_close(training);
    engine.close_data(data);
    const failed = { ok: false, code: expect.any(String), where: expect.any(String), message: expect.any(String) };
    expect(engine.train_step(training, 0, listener)).toMatchObject(failed);
    expect(engine.samples(data, Uint32Array.of(0))).toMatchObject(failed);
    engine.close(model);
    engine.close(trained);
  });

  test("say what went wrong, and a closed model is gone", () => {
    const model = open();
    const failed = { ok: false, code: expect.any(String), where: expect.any(String), message: expect.any(String) };
    expect(engine.check("no JSON")).toMatchObject({ ...failed, code: "bad-recipe" });
    expect(engine.values(model, "nowhere")).toMatchObject(failed);
    expect(engine.write(model, "pickle", () => true)).toMatchObject(failed);
    expect(engine.packed(model, "nowhere")).toMatchObject({ ...failed, code: "bad-data", where: "nowhere" });
    expect(engine.bytes(model, true, () => false)).toMatchObject({ ...failed, code: "cancelled" });
    expect(engine.compress(model, "{}", "", 0, "", () => true)).toMatchObject({ ...failed, code: "bad-recipe" });
    const recipe = '{"version":1,"steps":[{"kind":"quantize","scheme":{"bits":8}}]}';
    expect(engine.compress(model, recipe, "", 0, "", () => false)).toMatchObject({ ...failed, code: "cancelled" });
    engine.close(model);
    expect(engine.describe(model)).toMatchObject(failed);
    expect(engine.bytes(model, false, () => true)).toMatchObject(failed);
    expect(engine.packed(model, "fc.weight")).toMatchObject(failed);
  });

  test("a file too large for the heap is refused and the module goes on", () => {
    const files = new engine.Files();
    const outcome = files.add("huge", 8 * 2 ** 30);
    expect(outcome).toMatchObject({ ok: false, code: "out-of-memory" });
    files.delete();
    engine.close(open());
  });
});
