// The command as a user runs it: a program with arguments, files, pipes and an exit code.
import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { ModelInfo, Recipe, Report } from "nibble-nn";
import { load } from "nibble-nn";
import { convNet, externalNet, matmulNet } from "../fixtures/make";

const command = resolve(fileURLToPath(new URL("../../wasm/bin/nibble.js", import.meta.url)));

let folder = "";
const at = (name: string) => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nibble-cli-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(() => {
  for (const name of readdirSync(folder)) rmSync(at(name), { recursive: true, force: true });
  writeFileSync(at("model.onnx"), convNet());
});

interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  out: Buffer;
  text: string;
  error: string;
}

/** Runs the command in the test's folder; `input` goes to its stdin. */
function nibble(args: string[], input: Uint8Array = new Uint8Array()): Promise<Ended> {
  return new Promise((done, failed) => {
    const child = spawn(process.execPath, [command, ...args], { cwd: folder, stdio: "pipe" });
    const out: Buffer[] = [];
    const error: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => error.push(chunk));
    child.on("error", failed);
    child.on("close", (code, signal) => {
      const bytes = Buffer.concat(out);
      done({ code, signal, out: bytes, text: bytes.toString(), error: Buffer.concat(error).toString() });
    });
    child.stdin.on("error", () => {}); // it may end before it has read everything
    child.stdin.end(input);
  });
}

test("inspect lists the weights with shapes and statistics", async () => {
  const { code, text, error } = await nibble(["inspect", "model.onnx"]);
  expect(error).toBe("");
  expect(code).toBe(0);
  expect(text).toMatch(/^conv1\.weight +conv +8x1x3x3 +float32 +72 /m);
  expect(text).toMatch(/^fc\.weight +dense +10x256 +float32 +2,560 +10\.2 kB/m);
  expect(text).toMatch(/3 weights: 3,784 parameters, 15\.1 kB/);
});

test("inspect --json prints the model's description", async () => {
  const { code, text } = await nibble(["inspect", "model.onnx", "--json"]);
  expect(code).toBe(0);
  const info = JSON.parse(text) as ModelInfo;
  expect(info.format).toBe("onnx");
  expect(info.weights.map(({ name }) => name)).toEqual(["conv1.weight", "conv2.weight", "fc.weight"]);
  expect(info.file_bytes).toBe(convNet().length);
});

test("compress with flags writes a file that opens and a summary", async () => {
  const { code, text, error } = await nibble([
    "compress",
    "model.onnx",
    "--sparsity",
    "0.5",
    "--bits",
    "8",
    "-o",
    "small.onnx",
  ]);
  expect(error).toBe("");
  expect(code).toBe(0);
  expect(text).toMatch(/^fc\.weight .* int8$/m);
  expect(text).toContain("wrote small.onnx");
  const small = readFileSync(at("small.onnx"));
  expect(small.length).toBeLessThan(convNet().length / 2);
  // Nothing half-written is left beside it.
  expect(readdirSync(folder).sort()).toEqual(["model.onnx", "small.onnx"]);
  expect((await nibble(["inspect", "small.onnx"])).code).toBe(0);
});

test("flags, a recipe file and the package give the same bytes", async () => {
  const recipe: Recipe = {
    version: 1,
    seed: 7,
    steps: [
      { kind: "prune", sparsity: 0.8, scope: "global", layers: { exclude: ["conv1.*"] } },
      {
        kind: "quantize",
        scheme: { bits: 4, symmetric: false, granularity: "tensor" },
        range: "mse",
        rounding: "stochastic",
        layers: { exclude: ["conv1.*"] },
      },
    ],
  };
  writeFileSync(at("recipe.json"), JSON.stringify(recipe));
  const flags =
    "--sparsity 0.8 --scope global --bits=4 --no-symmetric --granularity tensor --range mse --rounding stochastic";
  const byFlags = [
    "compress",
    "model.onnx",
    ...flags.split(" "),
    "--exclude",
    "conv1.*",
    "--seed",
    "7",
    "-o",
    "flags.onnx",
  ];
  expect((await nibble(byFlags)).code).toBe(0);
  expect((await nibble(["compress", "model.onnx", "--recipe", "recipe.json", "-o", "recipe.onnx"])).code).toBe(0);
  const engine = await load();
  const { model } = await (await engine.open(convNet())).compress(recipe);
  const expected = Buffer.from(await model.export());
  engine.close();
  expect(readFileSync(at("flags.onnx")).equals(expected)).toBe(true);
  expect(readFileSync(at("recipe.onnx")).equals(expected)).toBe(true);
});

test("the recipe that the project promises runs", async () => {
  const recipe =
    '{"version":1,"seed":0,"steps":[{"kind":"prune","sparsity":0.8,"scope":"global","criterion":"magnitude","pattern":"unstructured"},' +
    '{"kind":"quantize","scheme":{"bits":8,"symmetric":true,"granularity":"channel"},"range":"mse","rounding":"nearest"}]}';
  const { code } = await nibble(
    ["compress", "model.onnx", "--recipe", "-", "-o", "small.onnx", "--report", "report.json"],
    Buffer.from(recipe),
  );
  expect(code).toBe(0);
  const report = JSON.parse(readFileSync(at("report.json"), "utf8")) as Report;
  expect(report.steps.map(({ kind }) => kind)).toEqual(["prune", "quantize"]);
  // 80 % of 3,784 weights, give or take one.
  expect(report.total.sparsity).toBeGreaterThanOrEqual(0.8 - 1 / 3784);
  expect(report.file.after).toBe(readFileSync(at("small.onnx")).length);
});

test("a model comes from stdin and goes to stdout", async () => {
  const { code, out, error } = await nibble(["compress", "-", "--bits", "8", "-o", "-"], convNet());
  expect(error).toBe("");
  expect(code).toBe(0);
  expect((await nibble(["compress", "model.onnx", "--bits", "8", "-o", "small.onnx"])).code).toBe(0);
  expect(out.equals(readFileSync(at("small.onnx")))).toBe(true);
  expect((await nibble(["inspect", "-"], convNet())).text).toMatch(/fc\.weight/);
});

test("safetensors go out by the file's ending", async () => {
  expect((await nibble(["compress", "model.onnx", "--bits", "8", "-o", "small.safetensors"])).code).toBe(0);
  const file = readFileSync(at("small.safetensors"));
  // The header's length as a 64-bit number, then JSON.
  const header = JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE(0))).toString()) as Record<
    string,
    unknown
  >;
  expect(Object.keys(header)).toContain("fc.weight");
});

test("external data beside the model is found, and named when it is not there", async () => {
  const { model, external } = externalNet("weights.bin");
  writeFileSync(at("external.onnx"), model);
  const missing = await nibble(["inspect", "external.onnx"]);
  expect(missing.code).toBe(1);
  expect(missing.error).toContain("weights.bin");
  writeFileSync(at("weights.bin"), external);
  expect((await nibble(["inspect", "external.onnx"])).text).toMatch(/^weight .* 16x8 /m);
  // Elsewhere, it has to be named.
  mkdirSync(at("elsewhere"));
  writeFileSync(at("elsewhere/weights.bin"), external);
  rmSync(at("weights.bin"));
  expect((await nibble(["inspect", "external.onnx", "--external", "elsewhere/weights.bin"])).code).toBe(0);
});

test("external data is an input that a report does not overwrite", async () => {
  const { model, external } = externalNet("weights.bin");
  writeFileSync(at("external.onnx"), model);
  writeFileSync(at("weights.bin"), external);
  const args = ["compress", "external.onnx", "--bits", "8", "-o", "small.onnx", "--report", "weights.bin"];
  const { code, error } = await nibble(args);
  expect(code).toBe(2);
  expect(error).toContain("overwritten");
  expect(readFileSync(at("weights.bin")).equals(Buffer.from(external))).toBe(true);
  expect(existsSync(at("small.onnx"))).toBe(false);
});

test("a model cannot reach for files outside of its folder", async () => {
  mkdirSync(at("inner"));
  writeFileSync(at("weights.bin"), externalNet().external);
  for (const name of ["../weights.bin", at("weights.bin"), "link.bin"]) {
    writeFileSync(at("inner/external.onnx"), externalNet(name).model);
    if (name === "link.bin") symlinkSync(at("weights.bin"), at("inner/link.bin"));
    const { code, error } = await nibble(["inspect", "inner/external.onnx"]);
    expect(code, name).toBe(1);
    expect(error, name).toMatch(/^nibble: \S+.*\n$/);
  }
});

test("failures of the input are one sentence and exit code 1", async () => {
  writeFileSync(at("broken.onnx"), convNet().subarray(0, 100));
  writeFileSync(at("recipe.json"), '{"version":1,"steps":[{"kind":"quantize","scheme":{"bits":9}}]}');
  const cases: [string[], RegExp][] = [
    [["inspect", "nowhere.onnx"], /^nibble: nowhere\.onnx: there is no such file or folder\n$/],
    [["inspect", "."], /^nibble: \.: this is a folder/],
    [["inspect", "broken.onnx"], /^nibble: [^\n]+\n$/],
    [["compress", "broken.onnx", "--bits", "8", "-o", "x.onnx"], /^nibble: [^\n]+\n$/],
    [
      ["compress", "model.onnx", "--recipe", "recipe.json", "-o", "x.onnx"],
      /^nibble: recipe\.json: steps\[0\]\.scheme\.bits: [^\n]+\n$/,
    ],
    [
      ["compress", "model.onnx", "--bits", "8", "-o", "no/such/folder.onnx"],
      /^nibble: no\/such\/folder\.onnx: [^\n]+\n$/,
    ],
  ];
  for (const [args, message] of cases) {
    const { code, error, text } = await nibble(args);
    expect(error, args.join(" ")).toMatch(message);
    expect(code, args.join(" ")).toBe(1);
    expect(text).toBe("");
  }
  expect(existsSync(at("x.onnx"))).toBe(false);
});

test("wrong usage is one sentence that helps and exit code 2", async () => {
  const cases: [string[], RegExp][] = [
    [["compres", "model.onnx"], /no command "compres"/],
    [["inspect"], /which model/],
    [["inspect", "model.onnx", "other.onnx"], /other\.onnx/],
    [["compress", "model.onnx", "--bits", "8"], /-o OUT/],
    [["compress", "model.onnx", "-o", "x.onnx"], /nothing to do/],
    [["compress", "model.onnx", "--bitts", "8", "-o", "x.onnx"], /--bitts; did you mean --bits\?/],
    [["compress", "model.onnx", "--bits", "many", "-o", "x.onnx"], /--bits: expected a number, got "many"/],
    [["compress", "model.onnx", "--bits", "-o", "x.onnx"], /--bits: expected a number/],
    [["compress", "model.onnx", "--bits", "9", "-o", "x.onnx"], /^nibble: --bits: .*9/],
    [["compress", "model.onnx", "--sparsity", "1.5", "-o", "x.onnx"], /^nibble: --sparsity: .*1\.5/],
    [["compress", "model.onnx", "--bits", "8", "--range", "minmaxx", "-o", "x.onnx"], /^nibble: --range: .*minmax/],
    [["compress", "model.onnx", "--bits", "8", "--bits", "4", "-o", "x.onnx"], /--bits is given twice/],
    [["compress", "model.onnx", "--symmetric", "--asymmetric", "--bits", "8", "-o", "x.onnx"], /exclude each other/],
    [["compress", "model.onnx", "--granularity", "group", "-o", "x.onnx"], /--bits is missing/],
    [["compress", "model.onnx", "--bits", "8", "-o", "x.pt"], /\.onnx or \.safetensors/],
    [["compress", "model.onnx", "--bits", "8", "--recipe", "r.json", "-o", "x.onnx"], /leave out --bits/],
    [["compress", "-", "--recipe", "-", "-o", "x.onnx"], /both come from stdin/],
    [["compress", "model.onnx", "--bits", "8", "-o", "-", "--report", "-"], /both go to stdout/],
  ];
  for (const [args, message] of cases) {
    const { code, error, text } = await nibble(args);
    expect(error, args.join(" ")).toMatch(message);
    expect(code, args.join(" ")).toBe(2);
    expect(text).toBe("");
  }
  expect(existsSync(at("x.onnx"))).toBe(false);
});

test("with --json an error is JSON", async () => {
  const { code, error } = await nibble(["inspect", "nowhere.onnx", "--json"]);
  expect(code).toBe(1);
  expect(JSON.parse(error)).toEqual({
    error: { code: "file", where: "nowhere.onnx", message: "there is no such file or folder" },
  });
});

test("the input is never overwritten, by whatever name it is called", async () => {
  symlinkSync(at("model.onnx"), at("link.onnx"));
  for (const name of ["model.onnx", "./model.onnx", at("model.onnx"), "link.onnx"]) {
    const { code, error } = await nibble(["compress", "model.onnx", "--bits", "8", "-o", name]);
    expect(code, name).toBe(2);
    expect(error).toContain("overwritten");
  }
  expect(readFileSync(at("model.onnx")).equals(Buffer.from(convNet()))).toBe(true);
});

test("an earlier result is replaced whole, and a device can be written to", async () => {
  writeFileSync(at("small.onnx"), "old");
  expect((await nibble(["compress", "model.onnx", "--bits", "8", "-o", "small.onnx"])).code).toBe(0);
  expect(readFileSync(at("small.onnx")).length).toBeGreaterThan(1000);
  symlinkSync("/dev/null", at("null.onnx"));
  expect((await nibble(["compress", "model.onnx", "--bits", "8", "-o", "null.onnx"])).code).toBe(0);
});

test("help has examples for every command, and the version is the package's", async () => {
  for (const args of [["--help"], ["help"], ["help", "compress"], ["compress", "--help"], ["inspect", "-h"]]) {
    const { code, text, error } = await nibble(args);
    expect(code, args.join(" ")).toBe(0);
    expect(error).toBe("");
    expect(text, args.join(" ")).toMatch(/Examples\n {2}nibble /);
  }
  const { version } = JSON.parse(readFileSync(new URL("../../wasm/package.json", import.meta.url), "utf8")) as {
    version: string;
  };
  expect((await nibble(["--version"])).text).toBe(`nibble ${version}\n`);
  expect(await nibble([])).toMatchObject({ code: 2, text: "" });
});

test("the commands that the help shows as examples are understood", async () => {
  const { text } = await nibble(["help", "compress"]);
  const examples = [...text.matchAll(/^ {2}nibble (compress .*)$/gm)].map((match) => match[1]!);
  expect(examples.length).toBeGreaterThan(2);
  writeFileSync(at("recipe.json"), '{"version":1,"steps":[{"kind":"prune","pattern":"2:4"}]}');
  for (const example of examples) {
    const words = example
      .replace(/ \|.*$/, "")
      .replaceAll("'", "")
      .split(" ");
    const { code, error } = await nibble(words);
    expect(error, example).toBe("");
    expect(code, example).toBe(0);
  }
});

test("a reader that goes away early is no error", async () => {
  const { code } = await new Promise<{ code: number | null }>((done) => {
    const child = spawn(
      "bash",
      ["-c", `"${process.execPath}" "${command}" inspect model.onnx | head -n 1; exit "\${PIPESTATUS[0]}"`],
      {
        cwd: folder,
        stdio: "ignore",
      },
    );
    child.on("close", (code) => done({ code }));
  });
  expect(code).toBe(0);
});

test("an interrupt ends the work at once and leaves no file", async () => {
  // Enough weights to take seconds, so that the interrupt comes in the middle.
  writeFileSync(at("large.onnx"), matmulNet([2048, 2048, 2048, 2048]));
  const args = [command, "compress", "large.onnx", "--bits", "8", "--range", "mse", "-o", "small.onnx"];
  const child = spawn(process.execPath, args, { cwd: folder, stdio: "ignore" });
  const ended = new Promise<[number | null, NodeJS.Signals | null]>((done) => child.on("close", (...how) => done(how)));
  await new Promise((later) => setTimeout(later, 300));
  child.kill("SIGINT");
  const [code, signal] = await ended;
  // A shell shows a program ended by SIGINT as 130.
  expect(signal === "SIGINT" || code === 130).toBe(true);
  expect(readdirSync(folder).sort()).toEqual(["large.onnx", "model.onnx"]);
});
