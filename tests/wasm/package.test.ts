// The package as others get it: what is published, from which entries it loads, and that no entry needs a second file.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Recipe } from "nibble-nn";
import { load as loadInline } from "nibble-nn/inline";
import { convNet } from "../fixtures/make";
import { withValues } from "../fixtures/onnx";
import { sample } from "../fixtures/samples";

const package_ = resolve(fileURLToPath(new URL("../../wasm", import.meta.url)));
const manifest = JSON.parse(readFileSync(join(package_, "package.json"), "utf8")) as {
  exports: Record<string, string | Record<string, string>>;
  files: string[];
  bin: Record<string, string>;
};

/** An error message tells the reader to import this. */
const kInMessage = "nibble-nn/inline";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nibble-package-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs a module in a Node of its own and gives what it printed. */
function node(script: string): string {
  const file = join(folder, "script.mjs");
  writeFileSync(file, script);
  const { stdout, stderr, status } = spawnSync(process.execPath, [file], { encoding: "utf8", timeout: 30_000 });
  expect(stderr).toBe("");
  expect(status).toBe(0);
  return stdout.trim();
}

const use = (entry: string) => `
  import { readFileSync } from "node:fs";
  const { load } = await import(${JSON.stringify(entry)});
  const engine = await load();
  const model = await engine.open(readFileSync(${JSON.stringify(join(folder, "model.onnx"))}));
  console.log(model.info.weights.length);
`;

/** What a script of the package imports. */
function importsOf(name: string): string[] {
  const text = readFileSync(join(package_, "dist", name), "utf8");
  return [...text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*["']([^"'\s]+)["']/g)].map((match) => match[1]!);
}

test("every file that the exports and the command name is there", () => {
  const paths = Object.values(manifest.exports).flatMap((entry) =>
    typeof entry === "string" ? [entry] : Object.values(entry),
  );
  for (const path of [...paths.filter((path) => !path.includes("*")), ...Object.values(manifest.bin)]) {
    expect(existsSync(join(package_, path)), path).toBe(true);
    expect(
      [...manifest.files, "package.json"].some((top) => path.replace(/^\.\//, "").startsWith(top)),
      path,
    ).toBe(true);
  }
  expect(readdirSync(join(package_, "schemas")).sort()).toEqual([
    "comparison.schema.json",
    "evaluation.schema.json",
    "recipe.schema.json",
    "report.schema.json",
  ]);
});

test("the inlined entry runs in a worker and without one", async () => {
  for (const worker of [true, false]) {
    const engine = await loadInline({ worker });
    expect((await engine.open(convNet())).info.nodes).toBe(7);
    engine.close();
  }
});

test("a program that never closes its engine ends all the same, and models need no disposing", () => {
  writeFileSync(join(folder, "model.onnx"), convNet());
  expect(node(use(pathToFileURL(join(package_, "dist", "node.js")).href))).toBe("3");
});

test("the inlined entry is one file that stands alone", () => {
  writeFileSync(join(folder, "model.onnx"), convNet());
  cpSync(join(package_, "dist", "inline-node.js"), join(folder, "alone.mjs"));
  expect(node(use(pathToFileURL(join(folder, "alone.mjs")).href))).toBe("3");
  for (const name of ["inline.js", "inline-node.js", "worker.js", "worker-node.js"]) {
    expect(
      importsOf(name).filter((name) => !isBuiltin(name) && name !== kInMessage),
      name,
    ).toEqual([]);
  }
});

test("the decoder is one file of at most 40 KB gzipped that imports nothing, of Node neither", () => {
  expect(manifest.exports["./decode"]).toEqual({ types: "./dist/decode.d.ts", default: "./dist/decode.js" });
  expect(importsOf("decode.js")).toEqual([]);
  const script = readFileSync(join(package_, "dist", "decode.js"));
  expect(gzipSync(script).length).toBeLessThanOrEqual(40 * 1024);
  expect(script.toString()).not.toMatch(/\bWorker\b|worker_threads|import\.meta/);
});

test("the decoder alone decodes in a Node of its own, without a worker", async () => {
  const engine = await loadInline({ worker: false });
  const file = sample("simplenet");
  const model = await engine.open(file);
  const recipe: Recipe = { version: 1, steps: [{ kind: "quantize", scheme: { bits: 8 } }] };
  const { model: result } = await model.compress(recipe);
  writeFileSync(join(folder, "model.nib"), await result.export("nib"));
  const names = model.info.weights.map(({ name }) => name);
  const changes = names.map(async (name) => ({ before: await model.values(name), after: await result.values(name) }));
  const [float, quantized] = [withValues(file, await Promise.all(changes)), await result.export()];
  engine.close();
  cpSync(join(package_, "dist", "decode.js"), join(folder, "decode.mjs"));
  const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
  // What there is of workers in Node throws here.
  const printed = node(`
    import { createHash } from "node:crypto";
    import { readFileSync } from "node:fs";
    import { syncBuiltinESMExports } from "node:module";
    import threads from "node:worker_threads";
    threads.Worker = globalThis.Worker = class { constructor() { throw new Error("a worker was started"); } };
    syncBuiltinESMExports();
    const { decode } = await import(${JSON.stringify(pathToFileURL(join(folder, "decode.mjs")).href)});
    for (const form of ["float", "quantized"]) {
      const file = await decode(readFileSync(${JSON.stringify(join(folder, "model.nib"))}), { form });
      console.log(createHash("sha256").update(file).digest("hex"));
    }
  `);
  expect(printed.split("\n")).toEqual([sha256(float), sha256(quantized)]);
});

test("a browser that is too old for the decoder is told what it lacks", () => {
  cpSync(join(package_, "dist", "decode.js"), join(folder, "decode.mjs"));
  const decoder = JSON.stringify(pathToFileURL(join(folder, "decode.mjs")).href);
  for (const [lack, name] of [
    ["delete globalThis.DecompressionStream", "DecompressionStream"],
    ['WebAssembly.compile = () => Promise.reject(new WebAssembly.CompileError("no SIMD"))', "SIMD"],
  ]) {
    const printed = node(`
      await new Response("Node compiles some WebAssembly of its own for the first of them").text();
      ${lack};
      const { decode } = await import(${decoder});
      await decode(new Uint8Array(100)).catch(({ name, code, detail }) => console.log(name, code, detail));
    `);
    expect(printed).toMatch(new RegExp(`^NibbleError unsupported this browser .*${name}.*Firefox 113`));
  }
});

test("what a browser loads names no module of Node", () => {
  for (const name of readdirSync(join(package_, "dist")).filter((name) =>
    /^(index|host-.*|worker|inline|decode|chunk-.*)\.js$/.test(name),
  )) {
    const text = readFileSync(join(package_, "dist", name), "utf8");
    const nodeOnly = text.includes("node:worker_threads");
    // Chunks that the browser's entries share with nobody else.
    if (nodeOnly && name.startsWith("chunk-")) continue;
    expect(/import\s*\(?\s*["'](node:|module|fs|path|worker_threads)/.test(text), name).toBe(false);
  }
});

test("the published declarations name files and nothing of the inside", () => {
  for (const name of readdirSync(join(package_, "dist")).filter((name) => name.endsWith(".d.ts"))) {
    const text = readFileSync(join(package_, "dist", name), "utf8");
    const imports = [...text.matchAll(/(?:from|import\()\s*"([^"]+)"/g)].map((match) => match[1]!);
    for (const target of imports) {
      expect(target, name).toMatch(/^\.\/\w+\.js$/);
      expect(existsSync(join(package_, "dist", target.replace(/\.js$/, ".d.ts"))), `${name}: ${target}`).toBe(true);
    }
  }
});

test("the module is at most 740 KB gzipped", () => {
  const wasm = readFileSync(join(package_, "dist", "engine.wasm"));
  expect(gzipSync(wasm).length).toBeLessThanOrEqual(740_000);
  expect(statSync(join(package_, "dist", "index.js")).size).toBeLessThan(40_000);
});
