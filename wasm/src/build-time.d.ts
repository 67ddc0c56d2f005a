// What the build script supplies: texts for the inlined entry, and the package's version.
declare module "inlined:wasm" {
  /** engine.wasm in base64. */
  const base64: string;
  export default base64;
}
declare module "inlined:worker" {
  /** The worker's script as text. */
  const script: string;
  export default script;
}
declare module "inlined:decoder" {
  /** decoder.wasm, gzipped, in base64. */
  const base64: string;
  export default base64;
}
declare module "comlink/dist/esm/node-adapter.mjs" {
  import type { Endpoint } from "comlink";
  export default function nodeEndpoint(port: unknown): Endpoint;
}
declare const NIBBLE_VERSION: string;
