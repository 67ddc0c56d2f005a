// The server behind `npm start`: right types, no way out of its folder, another port where one is taken.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import type { Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";

type Serve = (folder: string, port?: number) => Promise<{ server: Server; url: string }>;
const { serve } = (await import(new URL("../.tools/serve.mjs", import.meta.url).href)) as { serve: Serve };

let folder = "";
let site: { server: Server; url: string };
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "nibble-serve-"));
  writeFileSync(join(folder, "index.html"), "<!doctype html>");
  writeFileSync(join(folder, "engine.wasm"), Uint8Array.of(0, 0x61, 0x73, 0x6d));
  writeFileSync(join(folder, "model.nib"), Uint8Array.of(1, 2, 3));
  site = await serve(folder, 4573);
});
afterAll(() => {
  site.server.close();
  rmSync(folder, { recursive: true, force: true });
});

/** The path goes out as it is: fetch would tidy it up first. */
function get(path: string, method = "GET"): Promise<{ status: number; type: string; length: number }> {
  return new Promise((done, failed) => {
    const { hostname, port } = new URL(site.url);
    const asked = request({ hostname, port, path, method }, (response) => {
      let length = 0;
      response.on("data", (chunk: Buffer) => (length += chunk.length));
      response.on("end", () =>
        done({ status: response.statusCode!, type: response.headers["content-type"] ?? "", length }),
      );
    });
    asked.on("error", failed);
    asked.end();
  });
}

test("files come with the types that browsers insist on", async () => {
  expect(await get("/")).toEqual({ status: 200, type: "text/html; charset=utf-8", length: 15 });
  expect(await get("/engine.wasm?v=1")).toEqual({ status: 200, type: "application/wasm", length: 4 });
  expect(await get("/model.nib")).toEqual({ status: 200, type: "application/octet-stream", length: 3 });
  expect(await get("/engine.wasm", "HEAD")).toEqual({ status: 200, type: "application/wasm", length: 0 });
});

test("what is not there is a 404 and not a page", async () => {
  for (const path of ["/nothing.wasm", "/nothing", "/engine.wasm/", "/%"]) {
    expect((await get(path)).status, path).toBe(404);
  }
  expect((await get("/", "POST")).status).toBe(405);
});

test("no path leads out of the folder", async () => {
  for (const path of [
    "/../../../../../../etc/passwd",
    "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/..%2f..%2fetc%2fpasswd",
  ]) {
    expect((await get(path)).status, path).toBe(404);
  }
});

test("the next free port is taken", async () => {
  const second = await serve(folder, Number(new URL(site.url).port));
  expect(Number(new URL(second.url).port)).toBeGreaterThan(Number(new URL(site.url).port));
  second.server.close();
});
