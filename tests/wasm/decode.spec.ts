// The example page in Chromium: what the decoder hands to onnxruntime-web there is what the engine and Node make of the
// model, over slow, cut off and damaged responses too, with no worker and no file that the page has no need of.
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import { load } from "nibble-nn/inline";
import type { Engine, Model, Recipe } from "nibble-nn";
import { chromium } from "playwright-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { runModel } from "../fixtures/runtime";

type MakeExample = () => string;
const { make_example } = (await import(new URL("../../.tools/example.mjs", import.meta.url).href)) as {
  make_example: MakeExample;
};

const kTypes: Record<string, string> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

/** Models that the server makes up, by name. `held` comes when `release` is called, all before it at once. */
interface Made {
  bytes: Uint8Array;
  held?: number;
  breaks?: boolean;
}

let browser: Browser;
let page: Page;
let server: Server;
let url = "";
let engine: Engine;
/** What the recipe of .tools/example.mjs makes of the sample, without a .nib: opened, and as a file. */
const kRecipe: Recipe = {
  version: 1,
  steps: [
    { kind: "prune", sparsity: 0.7, scope: "global" },
    { kind: "quantize", scheme: { bits: 8 } },
  ],
};
let original: Model;
let compressed: Model;
let reference: Uint8Array;
let nib: Uint8Array;
const sample = readFileSync(new URL("../../web/public/samples/lenet-5.onnx", import.meta.url));
const made = new Map<string, Made>();
let release = () => {};
let requests: string[] = [];
let complaints: string[] = [];
let workers = 0;

beforeAll(async () => {
  const folder = make_example();
  nib = readFileSync(join(folder, "lenet-5.nib"));
  engine = await load();
  original = await engine.open(sample);
  compressed = (await original.compress(kRecipe)).model;
  reference = await compressed.export("onnx");

  // The strictest policy that lets WebAssembly and an import map be.
  const [, map] = /<script type="importmap">([^]*?)<\/script>/.exec(readFileSync(join(folder, "index.html"), "utf8"))!;
  const policy = [
    "default-src 'none'",
    `script-src 'self' 'wasm-unsafe-eval' 'sha256-${createHash("sha256").update(map!).digest("base64")}'`,
    "connect-src 'self'",
    "style-src 'unsafe-inline'",
    "img-src data:",
    "worker-src 'none'",
  ].join("; ");
  server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const name = pathname.slice(1) || "index.html";
    requests.push(name);
    const own = made.get(name);
    if (own) {
      const { bytes, held = 0, breaks = false } = own;
      response.writeHead(200, { "content-length": bytes.length });
      const rest = bytes.length - held;
      for (let at = 0; at < rest; at += 1000) response.write(bytes.subarray(at, Math.min(at + 1000, rest)));
      if (held) await new Promise<void>((done) => (release = done));
      return void (breaks ? response.destroy() : response.end(bytes.subarray(rest)));
    }
    const path = join(folder, name);
    if (!existsSync(path)) return void response.writeHead(404).end();
    response.setHeader("content-type", kTypes[extname(path)] ?? "application/octet-stream");
    if (name === "index.html") response.setHeader("content-security-policy", policy);
    response.end(readFileSync(path));
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const places = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome"];
  const found = places.find((path) => path && existsSync(path));
  if (!found) throw new Error("Chromium was not found: install it (apt install chromium) or set CHROMIUM to its path");
  browser = await chromium.launch({ executablePath: found, args: ["--no-sandbox"] });
});
afterAll(async () => {
  await browser?.close();
  server?.close();
  engine?.close();
});
beforeEach(async () => {
  await page?.close();
  page = await browser.newPage();
  [requests, complaints, workers] = [[], [], 0];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (line) => ["error", "warning"].includes(line.type()) && complaints.push(line.text()));
  page.on("worker", () => workers++);
});

const text = (id: string) => page.locator(`#${id}`).innerText();

/** Waits for the text to be there, and gives it. */
async function shown(id: string): Promise<string> {
  await page.locator(`#${id}:not(:empty)`).waitFor();
  return text(id);
}

/** Does something to the picture and gives what the page then takes it for. */
async function answer(act: () => Promise<void>): Promise<number> {
  await page.locator("#answer").evaluate((output) => (output.textContent = ""));
  await act();
  return Number(await shown("answer"));
}

/** The picture as it is on the page, 0 to 255. */
const picture = () =>
  page.locator("canvas").evaluate((canvas: HTMLCanvasElement) => {
    const { data } = canvas.getContext("2d")!.getImageData(0, 0, 28, 28);
    return Array.from({ length: 784 }, (_, i) => data[4 * i]!);
  });

/** What ONNX Runtime says of a picture in Node, with the model that never was a .nib. */
async function expected(pixels: number[]): Promise<number> {
  const data = Float32Array.from(pixels, (value) => (value / 255 - 0.1307) / 0.3081);
  const scores = Array.from(
    await runModel(reference, { input: { type: "float32", dims: [1, 1, 28, 28], data } }),
    Number,
  );
  return scores.indexOf(Math.max(...scores));
}

/** The sample's file with the compressed weights in the place of its own. */
async function inFull(): Promise<Uint8Array> {
  const whole = Buffer.from(sample);
  for (const { name } of original.info.weights) {
    const [from, to] = [await original.values(name), await compressed.values(name)];
    const at = whole.indexOf(Buffer.from(from.buffer, from.byteOffset, from.byteLength));
    expect(at, name).toBeGreaterThan(0);
    whole.set(new Uint8Array(to.buffer, to.byteOffset, to.byteLength), at);
  }
  return whole;
}

test("loads, decodes and runs with no worker, no complaint and no other file", async () => {
  await page.goto(url);
  const drawn = Number(await shown("answer"));
  expect(drawn).toBe(await expected(await picture()));
  expect(await text("size")).toBe(`${nib.length} bytes loaded, ${sample.length} bytes as ONNX`);
  expect(nib.length).toBeLessThan(sample.length / 10);
  expect(await text("error")).toBe("");
  expect(complaints).toEqual([]);
  expect(workers).toBe(0);
  expect([...requests].sort()).toEqual([
    "decode.js",
    "example.js",
    "index.html",
    "lenet-5.nib",
    "ort-wasm-simd-threaded.wasm",
    "ort.wasm.bundle.min.mjs",
  ]);
});

test("the page's own digits are read as what they are, and as elsewhere", async () => {
  await page.goto(url);
  await shown("answer");
  for (let digit = 0; digit < 10; digit++) {
    await page.evaluate((value) => (Math.random = () => value), (digit + 0.5) / 10);
    const read = await answer(() => page.click("#random"));
    expect(read).toBe(await expected(await picture()));
    expect(read).toBe(digit);
  }
  expect(complaints).toEqual([]);
});

test("digits that the engine made are read as the engine reads them", async () => {
  const data = await engine.data({ kind: "digits", seed: 3, n: 100 });
  const { indices, predictions, accuracy } = await compressed.evaluate(data, { split: "all" });
  expect(accuracy).toBeGreaterThan(0.9);
  const { values } = await data.samples(indices);
  await page.goto(url);
  await shown("answer");
  const read = [];
  for (let sample = 0; sample < indices.length; sample++) {
    const pixels = Array.from(values.subarray(sample * 784, (sample + 1) * 784));
    read.push(
      await answer(() =>
        page.locator("canvas").evaluate((canvas: HTMLCanvasElement, grey) => {
          const rgba = Uint8ClampedArray.from({ length: 4 * 784 }, (_, i) => (i % 4 === 3 ? 255 : grey[i >> 2]!));
          canvas.getContext("2d")!.putImageData(new ImageData(rgba, 28), 0, 0);
          canvas.dispatchEvent(new PointerEvent("pointerup"));
        }, pixels),
      ),
    );
  }
  expect(read).toEqual(Array.from(predictions));
});

test("what is drawn is read, and cleared there is no answer", async () => {
  await page.goto(url);
  await shown("answer");
  await page.click("#clear");
  await page.waitForFunction(() => document.querySelector("#answer")!.textContent === "");
  expect(await picture()).toEqual(Array(784).fill(0));
  const { x, y } = (await page.locator("canvas").boundingBox())!;
  const read = await answer(async () => {
    await page.mouse.move(x + 80, y + 60);
    await page.mouse.down();
    await page.mouse.move(x + 200, y + 60, { steps: 5 });
    await page.mouse.move(x + 130, y + 230, { steps: 5 });
    await page.mouse.up();
  });
  const pixels = await picture();
  // The corner of the stroke and its end, and nothing where none was.
  expect([pixels[6 * 28 + 19], pixels[22 * 28 + 13], pixels[20 * 28 + 22]]).toEqual([
    expect.toSatisfy((value: number) => value > 128),
    expect.toSatisfy((value: number) => value > 128),
    0,
  ]);
  expect(read).toBe(await expected(pixels));
  expect(read).toBe(7);
});

test("the decoded bytes are the engine's own", async () => {
  await page.goto(url);
  await shown("answer");
  /** SHA-256 of the forms, decoded in the page; as text, because Vitest rewrites an import() that it sees. */
  const hashes: Record<string, string> = await page.evaluate(`(async () => {
    const { decode } = await import("nibble-nn/decode");
    const hashes = {};
    for (const form of ["float", "quantized"]) {
      const digest = await crypto.subtle.digest("SHA-256", await decode(await fetch("lenet-5.nib"), { form }));
      hashes[form] = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
    }
    return hashes;
  })()`);
  const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
  expect(hashes).toEqual({ float: sha256(await inFull()), quantized: sha256(reference) });
  expect(sha256(await (await engine.open(nib)).export("onnx"))).toBe(hashes.quantized);
});

test("a slow response is decoded while it arrives", async () => {
  made.set("slow.nib", { bytes: nib, held: 1 });
  await page.goto(`${url}?model=slow.nib`);
  const [, done, total] = /^(\d+) of (\d+) bytes$/.exec(await shown("size"))!.map(Number);
  expect(total).toBe(nib.length);
  expect(done).toBeGreaterThan(0);
  expect(done).toBeLessThan(nib.length);
  expect(await text("answer")).toBe("");
  release();
  expect(Number(await shown("answer"))).toBe(await expected(await picture()));
  expect(await text("size")).toContain(`${nib.length} bytes loaded`);
  expect(complaints).toEqual([]);
});

test("a broken file is named in a sentence, and the next file is read", async () => {
  const changed = (at: number) => nib.map((byte, i) => (i === at ? byte ^ 1 : byte));
  const files: Record<string, [Uint8Array, RegExp]> = {
    "empty.nib": [nib.subarray(0, 0), /^byte 0: .* cut off$/],
    "header.nib": [nib.subarray(0, 40), /^byte 40: .* cut off$/],
    "cut.nib": [
      nib.subarray(0, nib.length - 1),
      new RegExp(`^byte ${nib.length - 1}: the file is cut off: it has ${nib.length - 1} of ${nib.length} bytes$`),
    ],
    "longer.nib": [Buffer.concat([nib, Buffer.of(0)]), new RegExp(`^byte ${nib.length}: bytes follow the last block$`)],
    "magic.nib": [changed(0), /not a \.nib file$/],
    "changed-header.nib": [changed(60), /header's checksum does not fit: the file is damaged$/],
    "changed.nib": [changed(nib.length - 100), /^block \d+: its checksum does not fit: the file is damaged$/],
    "page.nib": [Buffer.from("<!doctype html><title>Not found</title>"), /not a \.nib file$/],
  };
  for (const [name, [bytes, sentence]] of Object.entries(files)) {
    made.set(name, { bytes });
    await page.goto(`${url}?model=${name}`);
    expect(await shown("error"), name).toMatch(sentence);
    expect(await text("answer"), name).toBe("");
    await page.setInputFiles("#file", { name: "good.nib", mimeType: "", buffer: Buffer.from(nib) });
    expect(Number(await shown("answer")), name).toBe(await expected(await picture()));
    expect(await text("error"), name).toBe("");
  }
  expect(complaints).toEqual([]);
});

test("a missing file and a broken connection are named too", async () => {
  await page.goto(`${url}?model=missing.nib`);
  expect(await shown("error")).toBe(`${url}missing.nib: the server answered 404 Not Found`);
  made.set("breaks.nib", { bytes: nib, held: 1, breaks: true });
  await page.goto(`${url}?model=breaks.nib`);
  await shown("size");
  release();
  expect(await shown("error")).toMatch(/^byte \d+: the source cannot be read on: .*network/);
  expect(await text("answer")).toBe("");
});

test("another model takes the place of the first, whatever its input is called", async () => {
  const samples = new URL("../../web/public/samples/", import.meta.url);
  const file = async (name: string) => {
    const model = await engine.open(readFileSync(new URL(`${name}.onnx`, samples)));
    const buffer = Buffer.from(await model.export("nib"));
    return { name: `${name}.nib`, mimeType: "", buffer };
  };
  await page.goto(url);
  await shown("answer");
  const small = await text("size");
  const read = await answer(async () => page.setInputFiles("#file", await file("lenet-300-100")));
  expect(read).toBeGreaterThanOrEqual(0);
  expect(await text("size")).not.toBe(small);
  // Not a model of pictures.
  await page.setInputFiles("#file", await file("linear"));
  expect(await shown("error")).toMatch(/784/);
  expect(await text("answer")).toBe("");
});
