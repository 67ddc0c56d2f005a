// A small server for built pages: files of one folder, with the types that browsers insist on.
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";

const kTypes = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json; charset=utf-8",
  ".webmanifest": "application/manifest+json",
  ".wasm": "application/wasm",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".ico": "image/x-icon",
  ".woff2": "font/woff2",
  ".txt": "text/plain; charset=utf-8",
};

/// Serves `folder` on the first free port from `port` on. Gives the server and its address. Only this machine can reach it.
export async function serve(folder, port = 4173) {
  const server = createServer((request, response) => answer(folder, request, response));
  for (let tried = port; ; tried++) {
    try {
      await new Promise((resolve, reject) => {
        server.once("error", reject);
        server.listen(tried, "127.0.0.1", () => {
          server.off("error", reject);
          resolve();
        });
      });
      return { server, url: `http://127.0.0.1:${server.address().port}/` };
    } catch (error) {
      if (error.code !== "EADDRINUSE" || tried >= port + 100) throw error;
    }
  }
}

function answer(folder, request, response) {
  if (request.method !== "GET" && request.method !== "HEAD") return response.writeHead(405).end();
  const file = find(folder, request.url ?? "/");
  // A missing file is a 404 and never the start page: a page in the place of a module hides what is wrong.
  if (!file) return response.writeHead(404, { "content-type": "text/plain" }).end("There is no such file.\n");
  const type = kTypes[extname(file.path)] ?? "application/octet-stream";
  response.writeHead(200, { "content-type": type, "content-length": file.size, "cache-control": "no-cache" });
  if (request.method === "HEAD") return response.end();
  createReadStream(file.path)
    .on("error", () => response.destroy())
    .pipe(response);
}

function find(folder, url) {
  try {
    const path = normalize(decodeURIComponent(new URL(url, "http://localhost").pathname));
    const full = join(folder, path.endsWith(sep) ? join(path, "index.html") : path);
    if (!full.startsWith(folder + sep)) return undefined;
    const found = statSync(full);
    return found.isFile() ? { path: full, size: found.size } : undefined;
  } catch {
    return undefined;
  }
}
