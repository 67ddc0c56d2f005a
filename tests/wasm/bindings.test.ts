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
    const run = engine.compress(model, recipe, "", () => true);
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
    engine.close(model);
    engine.close(run.value.model);
  });

  test("say what went wrong, and a closed model is gone", () => {
    const model = open();
    const failed = { ok: false, code: expect.any(String), where: expect.any(String), message: expect.any(String) };
    expect(engine.check("no JSON")).toMatchObject({ ...failed, code: "bad-recipe" });
    expect(engine.values(model, "nowhere")).toMatchObject(failed);
    expect(engine.write(model, "pickle", () => true)).toMatchObject(failed);
    expect(engine.compress(model, "{}", "", () => true)).toMatchObject({ ...failed, code: "bad-recipe" });
    const recipe = '{"version":1,"steps":[{"kind":"quantize","scheme":{"bits":8}}]}';
    expect(engine.compress(model, recipe, "", () => false)).toMatchObject({ ...failed, code: "cancelled" });
    engine.close(model);
    expect(engine.describe(model)).toMatchObject(failed);
  });

  test("a file too large for the heap is refused and the module goes on", () => {
    const files = new engine.Files();
    const outcome = files.add("huge", 8 * 2 ** 30);
    expect(outcome).toMatchObject({ ok: false, code: "out-of-memory" });
    files.delete();
    engine.close(open());
  });
});
