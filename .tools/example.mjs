// `npm run example`: makes the page of wasm/example with all that it loads in build/example, serves it and says where. The
// folder can be put on any web server as it is.
import { copyFileSync, mkdirSync } from "node:fs";
import { basename, join } from "node:path";
import { build } from "./build.mjs";
import { serve } from "./serve.mjs";
import { setup } from "./setup.mjs";
import { is_main, root, run, say } from "./shell.mjs";

const kFiles = [
  "wasm/example/index.html",
  "wasm/example/example.js",
  "wasm/dist/decode.js",
  "node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
  "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
];

/// Without training what is lost stays lost: 97 % of the built-in digits are read right, of 99 %.
const kRecipe = ["--sparsity", "0.7", "--scope", "global", "--bits", "8"];

/// Makes the folder anew and gives its path. Needs the built package.
export function make_example() {
  const folder = join(root, "build", "example");
  mkdirSync(folder, { recursive: true });
  for (const file of kFiles) copyFileSync(join(root, file), join(folder, basename(file)));
  const [program, model] = ["wasm/bin/nibble.js", "web/public/samples/lenet-5.onnx"].map((path) => join(root, path));
  const command = [program, "compress", model, ...kRecipe, "-o", join(folder, "lenet-5.nib")];
  run(process.execPath, command, { quiet: true, why: "The example's model could not be compressed." });
  return folder;
}

if (is_main(import.meta.url)) {
  setup();
  for (const target of ["module", "package"]) await build(target);
  const { url } = await serve(make_example(), Number(process.env.PORT) || undefined);
  say(`the example is at ${url} (Ctrl-C ends it)`);
}
