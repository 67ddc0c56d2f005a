// The package in a real browser, in the situations that break packages with WebAssembly: no network after loading, a strict
// content policy, another origin, file://, a server that answers everything with a page.
import { build } from "esbuild";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chromium } from "playwright-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { Recipe } from "nibble-nn";
import { convNet, matmulNet } from "../fixtures/make";

const dist = resolve(fileURLToPath(new URL("../../wasm/dist", import.meta.url)));
const kTypes: Record<string, string> = { ".js": "text/javascript", ".wasm": "application/wasm", ".html": "text/html" };

/** Vitest rewrites an import() that it sees in this file, so the page brings its own. */
const kPage = "<!doctype html><title>empty</title><link rel=icon href=data:,><script src=/import.js></script>";
declare const importEntry: (entry: string) => Promise<typeof import("nibble-nn")>;

interface Site {
  url: string;
  server: Server;
  requests: string[];
  /** Content-Security-Policy of the page. */
  policy: string;
  /** Answer the module's address with a page, as single-page servers do. */
  pageForModule: boolean;
}

/** Serves the package and an empty page. */
async function site(): Promise<Site> {
  const here: Site = { url: "", server: createServer(), requests: [], policy: "", pageForModule: false };
  here.server.on("request", (request, response) => {
    const path = new URL(request.url ?? "/", "http://localhost").pathname;
    here.requests.push(path);
    response.setHeader("access-control-allow-origin", "*");
    response.setHeader("cache-control", "no-store");
    const file = join(dist, path);
    if (path === "/" || (path.endsWith(".wasm") && here.pageForModule)) {
      if (here.policy) response.setHeader("content-security-policy", here.policy);
      response.setHeader("content-type", "text/html");
      return response.end(kPage);
    }
    if (path === "/large.onnx") return response.end(matmulNet([1024, 1024, 1024]));
    if (path === "/import.js") {
      response.setHeader("content-type", "text/javascript");
      return response.end("globalThis.importEntry = (entry) => import(entry);");
    }
    if (!existsSync(file)) return response.writeHead(404).end();
    response.setHeader("content-type", kTypes[extname(path)] ?? "application/octet-stream");
    response.end(readFileSync(file));
  });
  await new Promise<void>((ready) => here.server.listen(0, "127.0.0.1", ready));
  here.url = `http://127.0.0.1:${(here.server.address() as AddressInfo).port}/`;
  return here;
}

let browser: Browser;
let page: Page;
let home: Site;
let other: Site;
let folder = "";
beforeAll(async () => {
  const places = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  const executablePath = places.find((path) => path && existsSync(path));
  expect(executablePath, "Chromium is needed: set CHROMIUM to where it is").toBeDefined();
  browser = await chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
  [home, other] = [await site(), await site()];
  folder = mkdtempSync(join(tmpdir(), "nibble-browser-"));
});
afterAll(async () => {
  await browser.close();
  home.server.close();
  other.server.close();
  rmSync(folder, { recursive: true, force: true });
});
beforeEach(async () => {
  await page?.close();
  page = await browser.newPage();
  for (const place of [home, other]) Object.assign(place, { requests: [], policy: "", pageForModule: false });
});

const kRecipe: Recipe = { version: 1, steps: [{ kind: "quantize", scheme: { bits: 8 } }] };
const file = Array.from(convNet());

/** Loads the package from an address in the page, compresses the net there, and gives the size of the result. */
const run = (entry: string) =>
  page.evaluate(
    async ({ entry, file, recipe }) => {
      const { load } = await importEntry(entry);
      const engine = await load();
      const model = await engine.open(new Uint8Array(file));
      const result = await model.compress(recipe);
      return { after: (await result.model.export()).length, reported: result.report.file.after };
    },
    { entry, file, recipe: kRecipe },
  );

test("compresses a model", async () => {
  await page.goto(home.url);
  const { after, reported } = await run(`${home.url}index.js`);
  expect(after).toBe(reported);
  expect(after).toBeLessThan(file.length / 2);
});

test("asks the network for nothing once it is loaded, not even after a cancelled call", async () => {
  await page.goto(home.url);
  const rest = await page.evaluate(
    async ({ entry }) => {
      const { load } = await importEntry(entry);
      const engine = await load();
      const model = await engine.open(await (await fetch("/large.onnx")).blob());
      await fetch("/loaded").catch(() => {});
      const stop = new AbortController();
      const step = { kind: "quantize", scheme: { bits: 4, granularity: "group" }, range: "mse" } as const;
      const recipe = { version: 1, steps: Array.from({ length: 20 }, () => step) } as const;
      const slow = model.compress(
        { ...recipe, steps: [...recipe.steps] },
        { signal: stop.signal, onProgress: () => stop.abort() },
      );
      const code = await slow.then(
        () => "finished",
        (error: { code: string }) => error.code,
      );
      return { code, values: (await model.values("w1")).length };
    },
    { entry: `${home.url}index.js` },
  );
  expect(rest).toEqual({ code: "cancelled", values: 1024 * 1024 });
  // Chromium has relaxed SIMD.
  expect(home.requests.filter((path) => path.endsWith(".wasm"))).toEqual(["/engine-relaxed.wasm"]);
  expect(home.requests.slice(home.requests.indexOf("/loaded") + 1)).toEqual([]);
});

test("creates, trains, pauses, evaluates and compares, in both builds with the same compressed bytes", async () => {
  await page.goto(home.url);
  const trained = await page.evaluate(
    async ({ entry, file, recipe }) => {
      const { load } = await importEntry(entry);
      const results = [];
      for (const arithmetic of ["strict", "relaxed"] as const) {
        const engine = await load({ arithmetic });
        const data = await engine.data({ kind: "digits", seed: 1, n: 600 });
        const network = await engine.create("simplenet", { seed: 1 });
        const training = await network.train(data, { epochs: 8, batch: 16, learning_rate: 0.003 });
        const stop = new AbortController();
        await training.run({ signal: stop.signal, onProgress: () => stop.abort() });
        const paused = training.progress!.done;
        const last = await training.run();
        const model = await training.model();
        const { accuracy } = await model.evaluate(data);
        const { model: small } = await model.compress(recipe);
        const { agreement, flipped, before } = await model.compare(small, data);
        const compressed = await (await (await engine.open(new Uint8Array(file))).compress(recipe)).model.export();
        results.push({
          paused,
          done: last.done,
          accuracy,
          same: accuracy === before.accuracy,
          agrees: agreement === 1 - flipped.length / 100,
          compressed: Array.from(compressed),
        });
        engine.close();
      }
      return results;
    },
    { entry: `${home.url}index.js`, file, recipe: kRecipe },
  );
  for (const result of trained) {
    expect(result).toMatchObject({ paused: false, done: true, same: true, agrees: true });
    // Chance is 0.1.
    expect(result.accuracy).toBeGreaterThan(0.3);
  }
  expect(trained[0]!.compressed).toEqual(trained[1]!.compressed);
  expect(home.requests).toEqual(expect.arrayContaining(["/engine.wasm", "/engine-relaxed.wasm"]));
});

test("samples of a large file stay in it, and give what held ones give", async () => {
  await page.goto(home.url);
  const found = await page.evaluate(
    async ({ entry }) => {
      const { load } = await importEntry(entry);
      const results = [];
      for (const worker of [true, false]) {
        const engine = await load({ worker });
        const digits = await engine.data({ kind: "digits", seed: 1, n: 200 });
        const { values, labels } = await digits.samples(Array.from({ length: 200 }, (_, i) => i));
        const idx = (shape: number[], bytes: ArrayLike<number>): File => {
          const extents = shape.flatMap((extent) => [0, 0, extent >> 8, extent & 255]);
          return new File([Uint8Array.from([0, 0, 8, shape.length, ...extents, ...Array.from(bytes)])], "a.idx");
        };
        const files = [
          { name: "images", bytes: idx([200, 28, 28], values) },
          { name: "labels", bytes: idx([200], labels) },
        ];
        const network = await engine.create("simplenet", { seed: 1 });
        const reports: string[] = [];
        for (const heldBytes of [1e6, 1000, 0]) {
          const data = await engine.data(files, { heldBytes });
          const { predictions, confidence } = await network.evaluate(data, { split: "all" });
          reports.push(JSON.stringify([data.info, Array.from(predictions), Array.from(confidence)]));
        }
        results.push({ n: reports.length, equal: reports.every((report) => report === reports[0]) });
        engine.close();
      }
      return results;
    },
    { entry: `${home.url}index.js` },
  );
  // A page's own thread may not wait for a file: there it is held.
  expect(found).toEqual([
    { n: 3, equal: true },
    { n: 3, equal: true },
  ]);
});

test("decodes pictures in folders", async () => {
  await page.goto(home.url);
  const info = await page.evaluate(
    async ({ entry }) => {
      const { load } = await importEntry(entry);
      const engine = await load();
      const canvas = new OffscreenCanvas(6, 4);
      const context = canvas.getContext("2d")!;
      const files = [];
      for (const [i, folder] of ["cats", "dogs", "cats", "dogs"].entries()) {
        context.fillStyle = `rgb(${60 * i}, ${60 * i}, ${60 * i})`;
        context.fillRect(0, 0, 6, 4);
        files.push({ name: `${folder}/${i}.png`, bytes: await canvas.convertToBlob({ type: "image/png" }) });
      }
      const data = await engine.data(files);
      const { values, labels } = await data.samples([0, 3]);
      return { ...data.info, first: values[0], last: values[47], labels: Array.from(labels) };
    },
    { entry: `${home.url}index.js` },
  );
  expect(info).toMatchObject({ samples: 4, shape: [4, 6], layout: "hw", class_names: ["cats", "dogs"] });
  expect([info.first, info.last, ...info.labels]).toEqual([0, 180, 0, 1]);
});

test("works under a content policy that forbids workers made of blobs", async () => {
  home.policy =
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; img-src data:";
  await page.goto(home.url);
  expect((await run(`${home.url}index.js`)).after).toBeGreaterThan(0);
});

test("works from another origin, as from a content delivery network", async () => {
  await page.goto(home.url);
  expect((await run(`${other.url}index.js`)).after).toBeGreaterThan(0);
});

test("says what is wrong where a server answers with a page in place of the module", async () => {
  home.pageForModule = true;
  await page.goto(home.url);
  await expect(run(`${home.url}index.js`)).rejects.toThrow(
    /engine\.wasm: expected the engine's WebAssembly file, found an HTML page/,
  );
});

test("the inlined entry works from file://, bundled without any setting", async () => {
  const entry = join(folder, "entry.ts");
  writeFileSync(
    entry,
    `import { load } from "nibble-nn/inline";
     for (const worker of [true, false]) {
       const engine = await load({ worker });
       const model = await engine.open(new Uint8Array(${JSON.stringify(file)}));
       document.body.append(String(model.info.weights.length));
     }
     document.body.append(" done");`,
  );
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    format: "esm",
    write: false,
    nodePaths: [fileURLToPath(new URL("../../node_modules", import.meta.url))],
  });
  const script = outputFiles[0]!.text.replaceAll("</script", "<\\/script");
  writeFileSync(
    join(folder, "offline.html"),
    `<!doctype html><meta charset="utf-8"><body><script type="module">${script}</script>`,
  );
  await page.goto(pathToFileURL(join(folder, "offline.html")).href);
  await page.getByText("done").waitFor();
  expect((await page.textContent("body"))?.trim().endsWith("33 done")).toBe(true);
});
