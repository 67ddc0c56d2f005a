// Chromium for the tests of the page, and a server for what was built. Every test gets a page of its own.
import { existsSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";

export const root = resolve(fileURLToPath(new URL("../..", import.meta.url)));

const kTypes: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

function findChromium(): string {
  const places = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome"];
  const found = places.find((path) => path && existsSync(path));
  if (!found) throw new Error("Chromium was not found: install it (apt install chromium) or set CHROMIUM to its path");
  return found;
}

/** Serves `folder` below a sub-path, so that a link that starts at the top is noticed. */
export async function serveFolder(folder: string): Promise<{ url: string; close(): void }> {
  const prefix = "/some/where/";
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const inside = pathname.startsWith(prefix) ? normalize(decodeURIComponent(pathname.slice(prefix.length))) : "..";
    let path = join(folder, inside === "." ? "index.html" : inside);
    if (!path.startsWith(folder + sep) || !existsSync(path) || !statSync(path).isFile()) path = "";
    if (!path) return void response.writeHead(404).end();
    response.writeHead(200, { "content-type": kTypes[extname(path)] ?? "application/octet-stream" });
    response.end(await readFile(path));
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}${prefix}`, close: () => void server.close() };
}

export interface Site {
  browser: Browser;
  url: string;
  /** Opens the page and waits until the model that it starts with has been compressed. `prepare` is called before. */
  open(options?: BrowserContextOptions & { hash?: string; prepare?: (page: Page) => Promise<void> }): Promise<Visit>;
  close(): Promise<void>;
}

export interface Visit {
  page: Page;
  /** Addresses asked for since the page was opened. */
  requests: string[];
  /** What the page wrote to the console as an error, and what it threw. */
  complaints: string[];
}

/** The built page in Chromium. */
export async function site(): Promise<Site> {
  const folder = join(root, "web", "dist");
  if (!existsSync(join(folder, "index.html"))) throw new Error("web/dist is missing: npm run build makes it");
  const server = await serveFolder(folder);
  const browser = await chromium.launch({ executablePath: findChromium(), args: ["--no-sandbox"] });
  return {
    browser,
    url: server.url,
    async open({ hash = "#lang=en", prepare, ...options } = {}) {
      const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
      context.setDefaultTimeout(60_000); // slow machines are tested on too
      const page = await context.newPage();
      const visit: Visit = { page, requests: [], complaints: [] };
      page.on("request", (request) => visit.requests.push(request.url()));
      page.on("pageerror", (error) => visit.complaints.push(String(error)));
      page.on("console", (line) => line.type() === "error" && visit.complaints.push(line.text()));
      await prepare?.(page);
      await page.goto(server.url + hash);
      await page.locator("[data-testid=size][data-bytes]").waitFor();
      await page.locator("[data-chart=histogram] canvas").waitFor();
      return visit;
    },
    async close() {
      await browser.close();
      server.close();
    },
  };
}

/** Drops files on the page as a user does. */
export async function drop(page: Page, files: { name: string; bytes: Uint8Array }[]): Promise<void> {
  const texts = files.map(({ name, bytes }) => ({ name, base64: Buffer.from(bytes).toString("base64") }));
  await page.evaluate((given) => {
    const data = new DataTransfer();
    for (const { name, base64 } of given) {
      const text = atob(base64);
      data.items.add(new File([Uint8Array.from(text, (letter) => letter.charCodeAt(0))], name));
    }
    const target = document.querySelector("main")!;
    for (const type of ["dragenter", "dragover", "drop"]) {
      target.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
    }
  }, texts);
}
