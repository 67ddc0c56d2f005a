// Archives and images as a browser unpacks and decodes them: to the same bytes as Node.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { encode as encodePng } from "fast-png";
import { zipSync } from "fflate";
import { chromium } from "playwright-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";

declare const userData: typeof import("../../wasm/src/data");

let browser: Browser;
let page: Page;
beforeAll(async () => {
  const places = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome"];
  const found = places.find((path) => path && existsSync(path));
  if (!found) throw new Error("Chromium was not found: install it (apt install chromium) or set CHROMIUM to its path");
  browser = await chromium.launch({ executablePath: found, args: ["--no-sandbox"] });
  page = await browser.newPage();
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("../../wasm/src/data.ts", import.meta.url))],
    bundle: true,
    format: "iife",
    globalName: "userData",
    write: false,
  });
  await page.addScriptTag({ content: outputFiles[0]!.text });
});
afterAll(() => browser?.close());

/** What the page makes of these files; a refusal as its text. */
function read(files: Record<string, Uint8Array>) {
  const given = Object.entries(files).map(([name, bytes]) => [name, [...bytes]] as const);
  return page.evaluate(async (listed) => {
    const named = listed.map(([name, bytes]) => ({ name, blob: new Blob([Uint8Array.from(bytes)]) }));
    try {
      const data = await userData.readUserData(named, userData.decodeInBrowser);
      if (data.kind === "files") {
        const texts = data.files.map(async ({ name, blob }) => [name, await blob.text()]);
        return { files: await Promise.all(texts) };
      }
      return { ...data, samples: [...data.samples], labels: [...data.labels!] };
    } catch (error) {
      return { refusal: String(error) };
    }
  }, given);
}

test("archives are unpacked", async () => {
  const text = new TextEncoder().encode("1,2\n3,4\n");
  const zip = zipSync({ "d/a.csv": text, "d/b.csv.gz": gzipSync(text) });
  expect(await read({ "t.zip": zip, "c.csv.gz": gzipSync(text) })).toEqual({
    files: ["t.zip/d/a.csv", "t.zip/d/b.csv", "c.csv"].map((name) => [name, "1,2\n3,4\n"]),
  });
  expect(await read({ "c.csv.gz": gzipSync(text).subarray(0, 15) })).toMatchObject({
    refusal: expect.stringContaining("gzip"),
  });
});

test("images keep every value", async () => {
  const ramp = Uint8Array.from({ length: 256 }, (_, i) => i);
  const grey = encodePng({ width: 16, height: 16, channels: 1, depth: 8, data: ramp });
  expect(await read({ "a/1.png": grey, "b/2.png": grey })).toMatchObject({
    shape: [16, 16],
    layout: "hw",
    samples: [...ramp, ...ramp],
    labels: [0, 1],
    class_names: ["a", "b"],
  });
  const colours = ramp.map((value) => (value * 37) & 255);
  const rgb = encodePng({ width: 5, height: 17, channels: 3, depth: 8, data: colours.subarray(0, 255) });
  expect(await read({ "a/1.png": rgb, "b/2.png": rgb })).toMatchObject({
    shape: [17, 5, 3],
    layout: "hwc",
    samples: [...colours.subarray(0, 255), ...colours.subarray(0, 255)],
  });
  expect(await read({ "a/1.png": rgb, "b/2.png": rgb.subarray(0, 40) })).toMatchObject({
    refusal: expect.stringContaining("b/2.png"),
  });
});
