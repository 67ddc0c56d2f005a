// What differs between the places the client runs in: how bytes are found and how a thread is started.
import type { Endpoint } from "comlink";
import { NibbleError } from "./api";
import type { LoadOptions } from "./api";
import type { DecodeImage } from "./data";
import type { Progress } from "./types";
import type { DiskFile, Host } from "./wire";

export interface Thread {
  endpoint: Endpoint;
  end(): void;
  /** Whether the thread keeps the program alive; only Node knows the difference. */
  hold(on: boolean): void;
}

export interface ThreadEvents {
  onProgress: (progress: Progress) => void;
  /** The thread ended or failed by itself. */
  onLost: (reason: string) => void;
}

export interface Platform {
  /** Whether there is a second build, with relaxed multiply-add, beside the strict one. */
  relaxed: boolean;
  /** The bytes of a build of the engine and where they came from, for messages. */
  wasm(options: LoadOptions, build: "strict" | "relaxed"): Promise<{ bytes: Uint8Array; source: string }>;
  thread(events: ThreadEvents): Promise<Thread>;
  /** What is at a file: URL; an array of more than `held` bytes stays there. Only Node has files. */
  fileAt?(url: URL, name: string, held: number): Promise<Blob | DiskFile>;
  /** The pixels of a PNG, a JPEG and whatever else is known here. */
  decode: DecodeImage;
  /** The engine in this very thread. */
  local(events: { onProgress: ThreadEvents["onProgress"]; stopped: () => boolean }): Promise<Host>;
}

/** Whether this machine has relaxed SIMD: whether the smallest module with f32x4.relaxed_madd is valid here. */
export function hasRelaxedSimd(): boolean {
  const zero = [0x41, 0x00, 0xfd, 0x11]; // i32.const 0, i32x4.splat
  return WebAssembly.validate(
    Uint8Array.from([
      ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00], // magic number and version
      ...[0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7b], // one type: no parameters, a v128
      ...[0x03, 0x02, 0x01, 0x00], // one function, of that type
      ...[0x0a, 0x13, 0x01, 0x11, 0x00], // its code: 17 bytes, no locals
      ...[...zero, ...zero, ...zero],
      ...[0xfd, 0x85, 0x02, 0x0b], // f32x4.relaxed_madd, end
    ]),
  );
}

/** Compiles the module once for every worker to come. Says in words what was found where it should be. */
export async function compile(bytes: Uint8Array, source: string): Promise<WebAssembly.Module> {
  const magic = [0x00, 0x61, 0x73, 0x6d];
  if (!magic.every((byte, index) => bytes[index] === byte)) {
    throw new NibbleError("bad-file", source, `expected the engine's WebAssembly file, found ${describe(bytes)}`);
  }
  try {
    return await WebAssembly.compile(bytes as BufferSource);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new NibbleError(
      "unsupported",
      source,
      "this browser cannot compile the engine, which needs WebAssembly SIMD and exceptions " +
        `(Chrome 95, Firefox 100, Safari 16.4, Node 18 or newer): ${reason}`,
    );
  }
}

function describe(bytes: Uint8Array): string {
  if (bytes.length === 0) return "an empty file";
  const start = new TextDecoder().decode(bytes.subarray(0, 64)).trimStart();
  if (/^<(!doctype|html|\?xml|!--|head|body)/i.test(start)) {
    return (
      "an HTML page. The server answers a missing file with its start page: copy node_modules/nibble-nn/dist/engine.wasm " +
      'to that address, or say where it is with load({ wasmUrl }), or import "nibble-nn/inline", which needs no second ' +
      'file. With Vite 7 or older in development, optimizeDeps: { exclude: ["nibble-nn"] } also helps'
    );
  }
  if (start.startsWith("version https://git-lfs")) return "a Git LFS pointer: run git lfs pull";
  return `a file that starts with "${start.slice(0, 16).replace(/[^\x20-\x7e]/g, ".")}"`;
}
