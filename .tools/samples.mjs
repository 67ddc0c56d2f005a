// `npm run samples [-- NAME...]`: trains the page's sample models on the built-in digits and writes them, with what they
// reach, to web/public/samples. Everything comes from seeds, so the same build writes the same files.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "./build.mjs";
import { setup } from "./setup.mjs";
import { fail, root, say } from "./shell.mjs";

const kFolder = join(root, "web", "public", "samples");
/// The data that the page opens beside a sample are of another seed: no sample has seen them.
const kDigits = { kind: "digits", seed: 7, n: 18_000 };
const kLinear = { kind: "linear", seed: 7, n: 2_000 };

/// How each network learns; found by trying, on validation.
const kRecipes = {
  linear: { epochs: 30, learning_rate: 0.02, batch: 32 },
  simplenet: { epochs: 12, learning_rate: 0.002 },
  "lenet-300-100": { epochs: 10, learning_rate: 0.001, weight_decay: 0.0005, optimizer: "adamw" },
  "lenet-5": { epochs: 6, learning_rate: 0.001 },
  depthwise: { epochs: 10, learning_rate: 0.005 },
  "resnet-8": { epochs: 2, learning_rate: 0.003 },
  lstm: { epochs: 16, learning_rate: 0.005, clip_norm: 1 },
  transformer: { epochs: 20, learning_rate: 0.002, warmup: 1, clip_norm: 1 },
};

setup();
for (const target of ["module", "package"]) await build(target);
const { load } = await import(join(root, "wasm", "dist", "node.js"));
const wanted = process.argv.slice(2);
const unknown = wanted.find((name) => !Object.hasOwn(kRecipes, name));
if (unknown) fail(`There is no sample "${unknown}".`, `Choose from ${Object.keys(kRecipes).join(", ")}.`);

// Strict arithmetic: the same files on every machine.
const engine = await load({ arithmetic: "strict", worker: false });
mkdirSync(kFolder, { recursive: true });
const list = join(kFolder, "samples.json");
let known = {};
try {
  known = JSON.parse(readFileSync(list, "utf8"));
} catch {
  // the first time there is none
}
/** In the order of the recipes, whichever was trained anew. */
function record() {
  const names = Object.keys(kRecipes).filter((name) => known[name]);
  writeFileSync(list, `${JSON.stringify(Object.fromEntries(names.map((name) => [name, known[name]])), null, 2)}\n`);
}

for (const [name, choice] of Object.entries(kRecipes)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const started = Date.now();
  const source = name === "linear" ? kLinear : kDigits;
  const data = await engine.data(source);
  const fresh = await engine.create(name, { seed: 1 });
  const preparation =
    name === "linear"
      ? undefined
      : { shape: [1, 28, 28], layout: "chw", scale: 1 / 255, mean: [0.1307], std: [0.3081] };
  const options = preparation ? { preparation } : {};
  const training = await fresh.train(data, choice, options);
  await training.run({
    onProgress: ({ epoch, validation_loss, validation_accuracy, seconds }) => {
      if (validation_loss === null) return;
      const reached = validation_accuracy === null ? "" : `, accuracy ${(validation_accuracy * 100).toFixed(2)} %`;
      say(
        `${name}: epoch ${epoch + 1}, validation loss ${validation_loss.toFixed(4)}${reached} (${seconds.toFixed(0)} s)`,
      );
    },
  });
  const model = await training.model("best");
  const { accuracy, loss, samples } = await model.evaluate(data, options);
  const file = await model.export("onnx");
  writeFileSync(join(kFolder, `${name}.onnx`), file);
  known[name] = {
    bytes: file.length,
    parameters: model.info.parameters,
    data: source,
    test_samples: samples,
    test_accuracy: accuracy === null ? null : Number(accuracy.toFixed(4)),
    test_loss: Number(loss.toPrecision(4)),
    training: choice,
  };
  record();
  say(
    `${name}: ${file.length} bytes, test ${accuracy === null ? `loss ${loss.toPrecision(4)}` : `accuracy ${(accuracy * 100).toFixed(2)} %`}, ${((Date.now() - started) / 1000).toFixed(0)} s`,
  );
}
engine.close();
