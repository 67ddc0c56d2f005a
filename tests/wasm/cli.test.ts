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
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { ByteReport, ModelInfo, Recipe, Report } from "nibble-nn";
import { load } from "nibble-nn";
import { Ajv2020 } from "ajv/dist/2020.js";
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
  expect(text).toMatch(/^fc\.weight +dense +10x256 +float32 +2,560 +10\.2 KB/m);
  expect(text).toMatch(/3 weights: 3,784 parameters, 15\.1 KB/);
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

test("encode writes a smaller file that decode turns back, bit for bit", async () => {
  const { code, text, error } = await nibble(["encode", "model.onnx", "-o", "model.nib"]);
  expect(error).toBe("");
  expect(code).toBe(0);
  expect(text).toMatch(/^fc\.weight .* exact +cabac$/m);
  expect(text).toMatch(/^error +none/m);
  expect(text).toMatch(/^wrote model\.nib \(\d+\.\d KB\)$/m);
  expect(readFileSync(at("model.nib")).length).toBeLessThan(convNet().length);
  const decoded = await nibble(["decode", "model.nib", "-o", "again.onnx"]);
  expect(decoded.error).toBe("");
  expect(decoded.text).toMatch(/^wrote again\.onnx \(\d+\.\d KB from \d+\.\d KB\)\n$/);
  expect(readdirSync(folder).sort()).toEqual(["again.onnx", "model.nib", "model.onnx"]);
  // The writer's own spelling of the file, which a .nib without a change is of too.
  const engine = await load();
  const expected = Buffer.from(await (await engine.open(convNet())).export());
  engine.close();
  expect(readFileSync(at("again.onnx")).equals(expected)).toBe(true);
  // Through pipes, the same.
  const piped = await nibble(["encode", "-", "-o", "-"], convNet());
  expect(piped.out.equals(readFileSync(at("model.nib")))).toBe(true);
  const back = await nibble(["decode", "-", "-o", "-"], piped.out);
  expect([back.error, back.code]).toEqual(["", 0]);
  expect(back.out.equals(expected)).toBe(true);
});

test("a .nib file is a model for every command, and decodes to what compress writes in other formats", async () => {
  const flags = ["--sparsity", "0.5", "--bits", "4", "--asymmetric"];
  for (const name of ["small.nib", "small.onnx", "small.safetensors"]) {
    expect((await nibble(["compress", "model.onnx", ...flags, "-o", name])).code, name).toBe(0);
  }
  expect(readFileSync(at("small.nib")).length).toBeLessThan(readFileSync(at("small.onnx")).length);
  for (const [form, from, to] of [
    ["quantized", "small.onnx", "quantized.onnx"],
    ["float", "small.safetensors", "float.safetensors"],
  ] as const) {
    const { code, error } = await nibble(["decode", "small.nib", "-o", to, "--form", form]);
    expect([error, code]).toEqual(["", 0]);
    expect(readFileSync(at(to)).equals(readFileSync(at(from))), to).toBe(true);
  }
  expect((await nibble(["decode", "small.nib", "-o", "float.onnx"])).code).toBe(0);
  expect(readFileSync(at("float.onnx")).length).toBeGreaterThan(4 * 3784);
  const engine = await load();
  const [small, float] = [
    await engine.open(readFileSync(at("small.nib"))),
    await engine.open(readFileSync(at("float.onnx"))),
  ];
  expect(await float.values("fc.weight")).toEqual(await small.values("fc.weight"));
  engine.close();
  expect((await nibble(["inspect", "small.nib"])).text).toMatch(/^fc\.weight +dense +10x256 /m);
  // Nothing but the file's format changes.
  expect((await nibble(["encode", "small.nib", "-o", "again.nib"])).text).toMatch(/^error +none/m);
  expect((await nibble(["decode", "again.nib", "-o", "again.onnx", "--form", "quantized"])).code).toBe(0);
  expect(readFileSync(at("again.onnx")).equals(readFileSync(at("small.onnx")))).toBe(true);
  // It is never overwritten either.
  const { code, error } = await nibble(["encode", "small.nib", "-o", "./small.nib"]);
  expect(code).toBe(2);
  expect(error).toContain("overwritten");
});

test("flags of cluster and encode are the recipe's fields", async () => {
  const recipe: Recipe = {
    version: 1,
    seed: 3,
    steps: [
      { kind: "prune", sparsity: 0.5, layers: { exclude: ["conv1.*"] } },
      { kind: "cluster", bits: 3, initial: "random", layers: { exclude: ["conv1.*"] } },
      { kind: "encode", coder: "huffman", lambda: 0.001, quantized_form: false, layers: { exclude: ["conv1.*"] } },
    ],
  };
  writeFileSync(at("recipe.json"), JSON.stringify(recipe));
  const flags =
    "--sparsity 0.5 --cluster-bits 3 --cluster-initial random --coder huffman --lambda 0.001 --no-quantized-form " +
    "--exclude conv1.* --seed 3";
  const byFlags = await nibble([
    "compress",
    "model.onnx",
    ...flags.split(" "),
    "-o",
    "flags.nib",
    "--report",
    "r.json",
  ]);
  expect(byFlags.error).toBe("");
  const report = JSON.parse(readFileSync(at("r.json"), "utf8")) as Report;
  expect(report.recipe).toMatchObject(recipe);
  expect(report.steps.map(({ kind }) => kind)).toEqual(["prune", "cluster", "encode"]);
  expect(report.file).toMatchObject({ format: "nib", after: readFileSync(at("flags.nib")).length });
  expect((await nibble(["compress", "model.onnx", "--recipe", "recipe.json", "-o", "recipe.nib"])).code).toBe(0);
  expect(readFileSync(at("flags.nib")).equals(readFileSync(at("recipe.nib")))).toBe(true);
  // encode says the same with a step less.
  const encode: Recipe = { version: 1, steps: [{ kind: "encode", coder: "rans", lambda: 0.001 }] };
  writeFileSync(at("recipe.json"), JSON.stringify(encode));
  const short = ["encode", "model.onnx", "--coder", "rans", "--lambda", "0.001", "-o", "short.nib"];
  expect((await nibble(short)).code).toBe(0);
  expect((await nibble(["compress", "model.onnx", "--recipe", "recipe.json", "-o", "long.nib"])).code).toBe(0);
  expect(readFileSync(at("short.nib")).equals(readFileSync(at("long.nib")))).toBe(true);
  expect((await nibble([...short, "--json"])).text).toMatch(/"stored": "rans"/);
});

test("the quantized form is in the file unless it is left out", async () => {
  const flags = ["compress", "model.onnx", "--bits", "8"];
  expect((await nibble([...flags, "-o", "with.nib"])).code).toBe(0);
  expect((await nibble([...flags, "--no-quantized-form", "-o", "without.nib"])).code).toBe(0);
  expect(readFileSync(at("without.nib")).length).toBeLessThan(readFileSync(at("with.nib")).length);
  for (const [name, code] of [
    ["with.nib", 0],
    ["without.nib", 1],
  ] as const) {
    expect((await nibble(["decode", name, "-o", "out.onnx", "--form", "quantized"])).code, name).toBe(code);
    expect((await nibble(["decode", name, "-o", `${name}.onnx`])).code, name).toBe(0);
  }
  expect(readFileSync(at("with.nib.onnx")).equals(readFileSync(at("without.nib.onnx")))).toBe(true);
});

test("bytes says where they go, to people and as JSON", async () => {
  expect((await nibble(["compress", "model.onnx", "--sparsity", "0.5", "--bits", "4", "-o", "small.nib"])).code).toBe(
    0,
  );
  const size = readFileSync(at("small.nib")).length;
  const { code, text, error } = await nibble(["bytes", "small.nib"]);
  expect([error, code]).toEqual(["", 0]);
  expect(text).toMatch(/^name +dense +codes +scales +entropy +huffman +rans +cabac +in \.nib +coder$/m);
  expect(text).toMatch(/^fc\.weight +10,240 +1,280 +40 +(\d[\d,]* +){5}(cabac|rans|huffman)$/m);
  expect(text).toMatch(
    new RegExp(`^\\.nib file +${size.toLocaleString("en")} bytes of 15,\\d{3} with all values in full$`, "m"),
  );
  expect(text).toMatch(/^ +header \d+ \(\d+\.\d %\), other tensors \d+ \(\d+\.\d %\)$/m);
  expect(text).toMatch(/^cabac +significance \d+\.\d %, sign \d+\.\d %, magnitude \d+\.\d %, remainder \d+\.\d %$/m);
  const json = JSON.parse((await nibble(["bytes", "small.nib", "--json"])).text) as ByteReport;
  expect(json).toMatchObject({ estimated: false, file: size });
  expect(json.weights.map(({ name }) => name)).toEqual(["conv1.weight", "conv2.weight", "fc.weight"]);
  expect(json.weights.reduce((sum, { nib }) => sum + nib, json.header + json.others)).toBeCloseTo(size, 6);
  // Nothing to count the codes of.
  expect((await nibble(["bytes", "model.onnx"])).text).toMatch(/^fc\.weight +10,240 +[\d,]+ +0( +-){4} +\d,\d{3} +-$/m);
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

test("external data is an input that is not overwritten", async () => {
  const { model, external } = externalNet("weights.bin");
  writeFileSync(at("external.onnx"), model);
  writeFileSync(at("weights.bin"), external);
  const args = ["compress", "external.onnx", "--bits", "8", "-o", "small.onnx", "--report", "weights.bin"];
  const { code, error } = await nibble(args);
  expect(code).toBe(2);
  expect(error).toContain("overwritten");
  expect(readFileSync(at("weights.bin")).equals(Buffer.from(external))).toBe(true);
  expect(existsSync(at("small.onnx"))).toBe(false);
  // Not by the state of a training either.
  const train = ["train", "external.onnx", "--data", kDigits, "--save", "weights.bin", "-o", "trained.onnx"];
  expect(await nibble(train)).toMatchObject({ code: 2, error: expect.stringContaining("overwritten") });
  expect(readFileSync(at("weights.bin")).equals(Buffer.from(external))).toBe(true);
  expect(existsSync(at("trained.onnx"))).toBe(false);
});

test("no file of a data folder is overwritten", async () => {
  mkdirSync(at("data/test"), { recursive: true });
  const table = `a,b,label\n${Array.from({ length: 40 }, (_, i) => `${i},${i % 7},${i % 2}`).join("\n")}\n`;
  for (const name of ["elsewhere.csv", "data/test/test.csv"]) writeFileSync(at(name), table);
  symlinkSync(at("elsewhere.csv"), at("data/train.csv"));
  symlinkSync(at("data"), at("link"));
  const train = ["train", "linear", "--data", "data", "-o", "x.onnx"];
  for (const args of [
    [...train, "--save", "data/train.csv"],
    [...train, "--save", "link/test/test.csv"],
    [...train, "--save", "elsewhere.csv"],
    ["compress", "model.onnx", "--train-epochs", "1", "--data", "data", "-o", "x.onnx", "--report", "data/train.csv"],
  ]) {
    expect(await nibble(args), args.join(" ")).toMatchObject({
      code: 2,
      error: expect.stringContaining("overwritten"),
    });
  }
  for (const name of ["data/train.csv", "data/test/test.csv", "elsewhere.csv"]) {
    expect(readFileSync(at(name), "utf8")).toBe(table);
  }
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

test("a .nib file that is not whole, or of a later version, is refused by every command in one sentence", async () => {
  expect((await nibble(["encode", "model.onnx", "-o", "model.nib"])).code).toBe(0);
  const file = readFileSync(at("model.nib"));
  writeFileSync(at("header.nib"), file.subarray(0, 60));
  writeFileSync(at("cut.nib"), file.subarray(0, file.length - 10));
  writeFileSync(
    at("later.nib"),
    file.map((byte, i) => (i === 3 ? 2 : byte)),
  );
  writeFileSync(
    at("damaged.nib"),
    file.map((byte, i) => (i === file.length - 100 ? byte ^ 4 : byte)),
  );
  const cases: [string, RegExp][] = [
    ["header.nib", /^nibble: byte 60: the file [^\n]*cut off[^\n]*\n$/],
    ["cut.nib", new RegExp(`^nibble: byte ${file.length - 10}: the file is cut off: [^\n]*${file.length} bytes\n$`)],
    ["later.nib", /^nibble: byte 3: this \.nib file has version 2, this Nibble reads version 1[^\n]*\n$/],
    ["damaged.nib", /^nibble: [^\n]+\n$/],
  ];
  for (const [name, message] of cases) {
    for (const args of [
      ["decode", name, "-o", "x.onnx"],
      ["inspect", name],
      ["bytes", name],
      ["compress", name, "--bits", "4", "-o", "x.onnx"],
    ]) {
      const { code, error, text } = await nibble(args);
      expect(error, args.join(" ")).toMatch(message);
      expect(code, args.join(" ")).toBe(1);
      expect(text).toBe("");
    }
  }
  const { code, error } = await nibble(["decode", "model.onnx", "-o", "x.onnx"]);
  expect(error).toMatch(/^nibble: byte 0: this is not a \.nib file\n$/);
  expect(code).toBe(1);
  const whole = await nibble(["decode", "model.nib", "-o", "x.onnx", "--form", "quantized"]);
  expect(whole.error).toMatch(/^nibble: form: this file holds no quantized form/);
  expect(whole.code).toBe(1);
  expect(existsSync(at("x.onnx"))).toBe(false);
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

test("wrong usage is one sentence that helps and exit code 2", { timeout: 180_000 }, async () => {
  expect((await nibble(["compress", "model.onnx", "--bits", "8", "-o", "model.nib"])).code).toBe(0);
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
    [["compress", "model.onnx", "--bits", "8", "-o", "x.pt"], /\.onnx, \.safetensors or \.nib/],
    [["compress", "model.onnx", "--bits", "8", "--recipe", "r.json", "-o", "x.onnx"], /leave out --bits/],
    [["compress", "-", "--recipe", "-", "-o", "x.onnx"], /both come from stdin/],
    [["compress", "model.onnx", "--bits", "8", "-o", "-", "--report", "-"], /both go to stdout/],
    [["compress", "model.onnx", "--bits", "8", "-o", "-", "--json"], /JSON cannot both go to stdout.*--report/],
    // Mistakes about a step as a whole name the flags that spell it.
    [
      ["compress", "model.onnx", "--sparsity", "0.5", "--threshold", "1", "-o", "x.onnx"],
      /^nibble: --sparsity, --threshold: expected one of --sparsity and --threshold, got both/,
    ],
    [["compress", "model.onnx", "--scope", "global", "-o", "x.onnx"], /^nibble: --scope: expected one of --sparsity/],
    [["compress", "model.onnx", "--pattern", "2:4", "--sparsity", "1", "-o", "x.onnx"], /^nibble: --sparsity: .*N:M/],
    [
      ["compress", "model.onnx", "--bits", "8", "--percentile", "99", "-o", "x.onnx"],
      /^nibble: --percentile: goes only with --range percentile/,
    ],
    [["compress", "model.onnx", "--train-epochs", "1", "-o", "x.onnx"], /learns from data: give --data/],
    [["compress", "model.onnx", "--bits", "8", "--data", "digits", "-o", "x.onnx"], /^nibble: --data .*--train-epochs/],
    [
      ["compress", "model.onnx", "--train-epochs", "0", "--data", "digits", "-o", "x.onnx"],
      /^nibble: --train-epochs: .*got 0/,
    ],
    [["compress", "model.onnx", "--cluster-bits", "9", "-o", "x.nib"], /^nibble: --cluster-bits: .*1 to 8, got 9/],
    [
      ["compress", "model.onnx", "--cluster-bits", "4", "--bits", "4", "-o", "x.nib"],
      /--bits and --cluster-bits exclude/,
    ],
    [
      ["compress", "model.onnx", "--cluster-initial", "random", "-o", "x.nib"],
      /^nibble: --cluster-initial: .*--cluster-bits/,
    ],
    [
      ["compress", "model.onnx", "--cluster-bits", "4", "--cluster-initial", "even", "-o", "x.nib"],
      /^nibble: --cluster-initial: .*"density".*"even"/,
    ],
    [["compress", "model.onnx", "--bits", "8", "--coder", "zip", "-o", "x.nib"], /^nibble: --coder: .*"rans".*"zip"/],
    [["compress", "model.onnx", "--bits", "8", "--lambda", "2", "-o", "x.nib"], /^nibble: --lambda: .*0 to 1, got 2/],
    [["encode", "model.onnx", "--lambda", "much", "-o", "x.nib"], /--lambda: expected a number, got "much"/],
    [["encode", "model.onnx", "--lamda", "0.1", "-o", "x.nib"], /--lamda; did you mean --lambda\?/],
    [["encode", "model.onnx", "--importance", "diagonal", "-o", "x.nib"], /^nibble: --importance: .*lambda/],
    [
      ["encode", "model.onnx", "--lambda", "0.1", "--importance", "full", "-o", "x.nib"],
      /^nibble: --importance: .*"hessian".*"full"/,
    ],
    [
      ["encode", "model.onnx", "--lambda", "1e-8", "--importance", "hessian", "-o", "x.nib"],
      /^nibble: --importance learns from data: give --data/,
    ],
    [["encode", "model.onnx", "--data", "digits", "-o", "x.nib"], /^nibble: --data .*--lambda and --importance/],
    [["encode", "model.onnx", "--include", "fc*", "-o", "x.nib"], /^nibble: --include goes only with --lambda/],
    [
      ["encode", "model.onnx", "--lambda", "0.1", "--include", "fd*", "-o", "x.nib"],
      /^nibble: --include: .*fc\.weight/,
    ],
    [["encode", "model.onnx", "--bits", "8", "-o", "x.nib"], /unknown option --bits/],
    [["encode", "model.onnx", "-o", "x.onnx"], /^nibble: -o x\.onnx: .*\.nib/],
    [["encode", "model.onnx"], /-o OUT, for example -o small\.nib/],
    [["encode", "model.onnx", "-o", "-", "--json"], /JSON cannot both go to stdout/],
    [["encode"], /which model/],
    [["decode", "model.nib"], /-o OUT/],
    [["decode", "model.nib", "-o", "x.nib"], /^nibble: -o x\.nib: .*\.onnx or \.safetensors/],
    [["decode", "model.nib", "-o", "x.pt"], /^nibble: -o x\.pt: /],
    [["decode", "model.nib", "-o", "x.onnx", "--form", "int8"], /^nibble: --form: .*float or quantized, got "int8"/],
    [["decode", "model.nib", "-o", "x.safetensors", "--form", "quantized"], /^nibble: --form quantized: only ONNX/],
    [["decode", "model.onnx", "-o", "./model.onnx"], /overwritten/],
    [["bytes"], /which model/],
    [["bytes", "model.onnx", "--jsn"], /--jsn; did you mean --json\?/],
    [["evaluate", "model.onnx"], /which data\? Give --data/],
    [["evaluate", "model.onnx", "--dta", "digits"], /--dta; did you mean --data\?/],
    [["evaluate", "model.onnx", "--data", "digits:sed=1"], /expected seed=N or n=N.*"sed=1"/],
    [["evaluate", "model.onnx", "--data", "digits:n=many"], /whole number for n, got "many"/],
    [["evaluate", "model.onnx", "--data", "digits:n=5,n=6"], /n is given twice/],
    [["evaluate", "model.onnx", "--data", "-"], /do not come from stdin/],
    [["evaluate", "model.onnx", "--data", "digits", "--mean", "0.5,x"], /--mean: expected a number, got "x"/],
    [["evaluate", "model.onnx", "--data", "digits:n=60", "--split", "tests"], /^nibble: --split: .*"tests"/],
    [["evaluate", "model.onnx", "--data", "digits:n=60", "--limit", "0"], /^nibble: --limit: .*got 0/],
    [["compare", "model.onnx", "--data", "digits"], /with which model/],
    [["compare", "-", "-", "--data", "digits"], /both come from stdin/],
    [["compare", "a", "b", "c", "--data", "digits"], /two models, got also "c"/],
    [["train", "simplenet", "--data", "digits"], /-o OUT/],
    [["train", "simplenet", "-o", "x.onnx"], /which data/],
    [["train", "simplenet", "--data", "digits", "-o", "-", "--json"], /cannot both go to stdout/],
    [["train", "simplenet", "--data", "digits", "--epoch", "1", "-o", "x.onnx"], /--epoch; did you mean --epochs\?/],
    [["train", "simplenet", "--data", "digits:n=60", "--epochs", "0", "-o", "x.onnx"], /^nibble: --epochs: .*got 0/],
    [
      ["train", "simplenet", "--data", "digits:n=60", "--optimizer", "adm", "-o", "x.onnx"],
      /^nibble: --optimizer: .*"adm"/,
    ],
    [
      ["train", "simplenet", "--data", "digits:n=60", "--momentum", "0.5", "-o", "x.onnx"],
      /^nibble: --momentum: goes only with --optimizer sgd/,
    ],
    [["train", "model.onnx", "--data", "digits:n=60", "-o", "model.onnx"], /overwritten/],
    [["trian", "simplenet"], /no command "trian"; did you mean train\?/],
  ];
  for (const [args, message] of cases) {
    const { code, error, text } = await nibble(args);
    expect(error, args.join(" ")).toMatch(message);
    expect(code, args.join(" ")).toBe(2);
    expect(text).toBe("");
  }
  expect(existsSync(at("x.onnx"))).toBe(false);
});

test("evaluate reads of data larger than memory what it needs", async () => {
  // Three gigabytes of which nothing is on the disk: black pictures, all of class 0.
  mkdirSync(at("big"));
  for (const [name, shape] of Object.entries({ x: [4_000_000, 28, 28], y: [4_000_000] })) {
    const header = `{'descr': '|u1', 'fortran_order': False, 'shape': (${shape.join(",")},), }`.padEnd(117) + "\n";
    const path = at(`big/${name}.npy`);
    writeFileSync(
      path,
      Buffer.concat([Buffer.from([0x93, ...Buffer.from("NUMPY"), 1, 0, 118, 0]), Buffer.from(header)]),
    );
    truncateSync(path, 128 + shape.reduce((product, extent) => product * extent));
  }
  const sample = fileURLToPath(new URL("../../web/public/samples/simplenet.onnx", import.meta.url));
  const { code, text, error } = await nibble(["evaluate", sample, "--data", "big", "--limit", "50", "--json"]);
  expect(error).toBe("");
  expect(code).toBe(0);
  expect(JSON.parse(text)).toMatchObject({ samples: 50 });
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
  const commands = ["inspect", "compress", "encode", "decode", "bytes", "evaluate", "compare", "train"];
  for (const args of [
    ["--help"],
    ["help"],
    ["inspect", "-h"],
    ...commands.flatMap((c) => [
      ["help", c],
      [c, "--help"],
    ]),
  ]) {
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

test("the commands that the help shows as examples are understood", { timeout: 120_000 }, async () => {
  writeFileSync(at("recipe.json"), '{"version":1,"steps":[{"kind":"prune","pattern":"2:4"}]}');
  // Training first: the others work with what it writes.
  for (const command of ["train", "compress", "encode", "decode", "bytes", "evaluate", "compare"]) {
    const { text } = await nibble(["help", command]);
    const examples = [...text.matchAll(/^ {2}nibble (\w+ .*)$/gm)].map((match) => match[1]!);
    expect(examples.length).toBeGreaterThan(1);
    for (const example of examples) {
      const words = example
        .replace(/ \|.*$/, "")
        .replaceAll("'", "")
        .split(" ");
      const { code, error } = await nibble(words);
      expect(error, example).toBe("");
      expect(code, example).toBe(0);
    }
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

// --- Running ---------------------------------------------------------------------------------------------------------

const kDigits = "digits:seed=1,n=300";
const trainTiny = ["train", "simplenet", "--data", kDigits, "--epochs", "3", "--seed", "1", "-o", "trained.onnx"];

const schemas = new Ajv2020({ strict: true, allowUnionTypes: true });
const schema = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../wasm/schemas/${name}.schema.json`, import.meta.url), "utf8")) as object;

test("train tells every epoch, writes the best weights, and says what they are worth", async () => {
  const { code, text, error } = await nibble(trainTiny);
  expect(error).toBe("");
  expect(code).toBe(0);
  expect(text).toMatch(/^epoch +loss +accuracy +validation +accuracy +rate +time$/m);
  for (const epoch of [1, 2, 3]) {
    expect(text).toMatch(new RegExp(`^ +${epoch} +\\d\\S* +\\d+\\.\\d\\d % +\\d\\S* +\\d+\\.\\d\\d % `, "m"));
  }
  expect(text).toMatch(/^validation +loss .*, accuracy .* \(30 samples\)$/m);
  expect(text).toMatch(/^test +loss .*, accuracy .* \(50 samples\)$/m);
  expect(text).toMatch(/^wrote trained\.onnx \(.*\), the weights of epoch \d$/m);
  // The same command gives the same file.
  const first = readFileSync(at("trained.onnx"));
  expect((await nibble(trainTiny)).code).toBe(0);
  expect(readFileSync(at("trained.onnx")).equals(first)).toBe(true);
});

test(
  "evaluate and compare tell people a table and programs JSON that fits its schema",
  { timeout: 120_000 },
  async () => {
    expect((await nibble(trainTiny)).code).toBe(0);
    expect((await nibble(["compress", "trained.onnx", "--bits", "2", "-o", "small.onnx"])).code).toBe(0);
    const shown = await nibble(["evaluate", "trained.onnx", "--data", kDigits]);
    expect(shown.error).toBe("");
    expect(shown.text).toMatch(/^accuracy +\d+\.\d\d % \(\d+ of 50\)$/m);
    expect(shown.text).toMatch(/^class +samples +accuracy( +\d){10}$/m);
    expect(shown.text).toMatch(/^input +\[1, 28, 28\] chw/m);
    const json = await nibble([
      "evaluate",
      "trained.onnx",
      "--data",
      kDigits,
      "--split",
      "all",
      "--limit",
      "30",
      "--json",
    ]);
    const result = JSON.parse(json.text) as { samples: number; confusion: number[][] };
    expect(schemas.validate(schema("evaluation"), result), schemas.errorsText()).toBe(true);
    expect(result.samples).toBe(30);
    expect(result.confusion.flat().reduce((a, b) => a + b, 0)).toBe(30);
    // Numbers that make no sense for this model make it worse.
    const wrong = await nibble([
      "evaluate",
      "trained.onnx",
      "--data",
      kDigits,
      "--scale",
      "1",
      "--mean",
      "200",
      "--json",
    ]);
    const { preparation } = JSON.parse(wrong.text) as {
      preparation: { scale: number; mean: number[]; reason: string };
    };
    expect(preparation).toMatchObject({ scale: 1, mean: [200], reason: expect.stringContaining("--scale, --mean") });

    const compared = await nibble(["compare", "trained.onnx", "small.onnx", "--data", kDigits]);
    expect(compared.error).toBe("");
    expect(compared.text).toMatch(/^accuracy +\d+\.\d\d % +\d+\.\d\d %$/m);
    expect(compared.text).toMatch(/predictions agree on .*; \d+ samples? changed/);
    expect(compared.text).toMatch(/^value +made by +shape +SQNR dB +cosine +largest error$/m);
    const both = await nibble(["compare", "trained.onnx", "small.onnx", "--data", kDigits, "--json"]);
    const comparison = JSON.parse(both.text) as { flipped: number[]; agreement: number };
    expect(schemas.validate(schema("comparison"), comparison), schemas.errorsText()).toBe(true);
    expect(comparison.agreement).toBeCloseTo(1 - comparison.flipped.length / 50, 9);
  },
);

test("data come from a file, several files, or a folder, by whatever names", { timeout: 120_000 }, async () => {
  expect((await nibble(trainTiny)).code).toBe(0);
  const [n, size] = [40, 28 * 28];
  const head = (...numbers: number[]) => {
    const bytes = Buffer.alloc(4 * numbers.length);
    numbers.forEach((number, index) => bytes.writeUInt32BE(number, 4 * index));
    return bytes;
  };
  const pixels = Buffer.from(Uint8Array.from({ length: n * size }, (_, i) => (i * 31) % 256));
  mkdirSync(at("idx"));
  writeFileSync(at("idx/images,1.gz"), gzipSync(Buffer.concat([head(0x0803, n, 28, 28), pixels])));
  writeFileSync(
    at("idx/labels-idx1.gz"),
    gzipSync(Buffer.concat([head(0x0801, n), Buffer.from(Array.from({ length: n }, (_, i) => i % 10))])),
  );
  writeFileSync(at("idx/.hidden"), "not data");
  const rows = Array.from(
    { length: 20 },
    (_, i) => `${Array.from({ length: size }, (_, j) => (i * j) % 256)},${i % 10}`,
  );
  writeFileSync(at("table.csv"), `${rows.join("\n")}\n`);
  for (const [data, samples] of [
    ["idx", 40],
    ["table.csv", 20],
  ] as const) {
    const { text, error } = await nibble(["evaluate", "trained.onnx", "--data", data, "--split", "all", "--json"]);
    expect(error, data).toBe("");
    expect((JSON.parse(text) as { samples: number }).samples, data).toBe(samples);
  }
  writeFileSync(at("images.gz"), readFileSync(at("idx/images,1.gz")));
  const pair = await nibble(["evaluate", "trained.onnx", "--data", "images.gz,idx/labels-idx1.gz", "--split", "all"]);
  expect(pair.text).toMatch(/40 samples/);
  const cases: [string, RegExp][] = [
    ["nowhere.npz", /^nibble: nowhere\.npz: there is no such file or folder\n$/],
    ["digit:n=5", /^nibble: digit:n=5: .*did you mean digits:/],
    ["images.gz,nowhere", /^nibble: nowhere: there is no such file/],
    ["model.onnx", /^nibble: [^\n]+\n$/],
  ];
  for (const [data, message] of cases) {
    const { code, error } = await nibble(["evaluate", "trained.onnx", "--data", data]);
    expect(error, data).toMatch(message);
    expect(code, data).toBe(1);
  }
});

test("train speaks JSON, writes to stdout, and knows the architectures that its help names", async () => {
  const flags = ["train", "simplenet", "--data", kDigits, "--epochs", "1"];
  const json = await nibble([...flags, "-o", "a.onnx", "--json"]);
  expect(json.error).toBe("");
  const result = JSON.parse(json.text) as { epochs: object[]; stopped: boolean; test: object; bytes: number };
  expect(result).toMatchObject({
    stopped: false,
    epochs: [{ epoch: 1, best: true }],
    test: { samples: 50, classes: 10 },
  });
  expect(result.bytes).toBe(readFileSync(at("a.onnx")).length);
  const piped = await nibble([...flags, "-o", "-"]);
  expect(piped.code).toBe(0);
  expect(piped.out.equals(readFileSync(at("a.onnx")))).toBe(true);
  expect(piped.error).toMatch(/^test +loss/m);
  const { text } = await nibble(["help", "train"]);
  const named = /Architectures: ([^.]*)\./.exec(text)![1]!.split(", ");
  const engine = await load();
  expect(named).toEqual((await engine.architectures()).map(({ name }) => name));
  engine.close();
});

test("an architecture that is not known is named with the nearest one", async () => {
  const { code, error } = await nibble(["train", "lenet5", "--data", kDigits, "-o", "x.onnx"]);
  expect(code).toBe(1);
  expect(error).toMatch(/^nibble: lenet5: there is no such file, and no architecture.*lenet-5/);
});

/** Runs the command and interrupts it, once, when it has printed `line`. */
async function interrupted(args: string[], line: RegExp): Promise<string> {
  const child = spawn(process.execPath, [command, ...args], { cwd: folder, stdio: "pipe" });
  let [out, error, asked] = ["", "", false];
  child.stdout.on("data", (chunk: Buffer) => {
    out += chunk.toString();
    if (!asked && line.test(out)) child.kill("SIGINT");
    asked ||= line.test(out);
  });
  child.stderr.on("data", (chunk: Buffer) => (error += chunk.toString()));
  const code = await new Promise<number | null>((done) => child.on("close", done));
  expect(error).toBe("");
  expect(code).toBe(130);
  return out;
}

test(
  "an interrupt stops the training, which still writes its weights and goes on later",
  { timeout: 120_000 },
  async () => {
    const flags = ["--data", "digits:seed=1,n=2000", "--epochs", "200", "--seed", "3", "--save", "state.bin"];
    const out = await interrupted(["train", "lenet-300-100", ...flags, "-o", "part.onnx"], /^ +1 /m);
    expect(out).toMatch(
      /^wrote part\.onnx .*stopped, these are the best weights so far; --resume state\.bin goes on$/m,
    );
    expect((await nibble(["inspect", "part.onnx"])).code).toBe(0);
    // With other choices it is another training.
    const other = await nibble(["train", "simplenet", "--data", kDigits, "--resume", "state.bin", "-o", "x.onnx"]);
    expect(other.code).toBe(1);
    expect(other.error).toMatch(/^nibble: state\.bin: .*another model/);
  },
);

test(
  "interrupted in the first epoch, and resumed and interrupted in it again, it writes what was learnt so far",
  { timeout: 120_000 },
  async () => {
    // Single samples make an epoch of seconds, and the interrupt comes as soon as the table's head is there.
    const flags = ["--data", "digits:seed=1,n=4000", "--batch", "1", "--seed", "3", "--save", "state.bin"];
    const train = ["train", "lenet-5", ...flags];
    const engine = await load();
    const start = await engine.create("lenet-5", { seed: 3 });
    const { name } = start.info.weights[0]!;
    const seen = [await start.values(name)];
    for (const resume of [[], ["--resume", "state.bin"]]) {
      const out = await interrupted([...train, ...resume, "-o", "part.onnx"], /^epoch /m);
      expect(out).toMatch(/^wrote part\.onnx .*stopped in the first epoch, these are its weights so far; --resume/m);
      const part = await engine.open(readFileSync(at("part.onnx")));
      seen.push(await part.values(name));
      expect(seen.at(-1)).not.toEqual(seen.at(-2));
    }
    expect(seen[2]).not.toEqual(seen[0]);
    engine.close();
  },
);

test("stopped and resumed, a training writes the same bytes", { timeout: 120_000 }, async () => {
  const flags = ["--data", kDigits, "--epochs", "2", "--seed", "3"];
  expect((await nibble(["train", "simplenet", ...flags, "-o", "whole.onnx"])).code).toBe(0);
  expect((await nibble(["train", "simplenet", ...flags, "--save", "state.bin", "-o", "first.onnx"])).code).toBe(0);
  // The state at the end is that of a finished training: it is resumed, and there is nothing left to do.
  expect((await nibble(["train", "simplenet", ...flags, "--resume", "state.bin", "-o", "again.onnx"])).code).toBe(0);
  for (const name of ["first.onnx", "again.onnx"]) {
    expect(readFileSync(at(name)).equals(readFileSync(at("whole.onnx"))), name).toBe(true);
  }
});

test("compress fine-tunes by flags and by a recipe alike", { timeout: 120_000 }, async () => {
  expect((await nibble(trainTiny)).code).toBe(0);
  const recipe: Recipe = {
    version: 1,
    seed: 5,
    steps: [
      { kind: "quantize", scheme: { bits: 2 } },
      { kind: "train", epochs: 1, learning_rate: 0.0005 },
    ],
  };
  writeFileSync(at("recipe.json"), JSON.stringify(recipe));
  const flags = ["--bits", "2", "--seed", "5", "--train-epochs", "1", "--train-learning-rate", "0.0005"];
  const byFlags = await nibble(["compress", "trained.onnx", ...flags, "--data", kDigits, "-o", "flags.onnx"]);
  expect(byFlags.error).toBe("");
  expect(byFlags.code).toBe(0);
  const byRecipe = await nibble([
    "compress",
    "trained.onnx",
    "--recipe",
    "recipe.json",
    "--data",
    kDigits,
    "-o",
    "r.onnx",
  ]);
  expect(byRecipe.code).toBe(0);
  expect(readFileSync(at("flags.onnx")).equals(readFileSync(at("r.onnx")))).toBe(true);
  const wrong = await nibble(["compress", "trained.onnx", ...flags, "--data", kDigits, "--std", "0", "-o", "x.onnx"]);
  expect(wrong).toMatchObject({ code: 2, error: expect.stringMatching(/^nibble: --std: must not be 0/) });
  const without = await nibble(["compress", "trained.onnx", "--recipe", "recipe.json", "-o", "x.onnx"]);
  expect(without).toMatchObject({ code: 2, error: expect.stringMatching(/steps\[1\] of the recipe learns.*--data/) });
});
