// `npm run mnist -- DIR`: LeNet-300-100 and LeNet-5 trained on MNIST (the four IDX files, gzipped or not, in DIR), what they
// reach on the 10,000 test images and how long it took. The test split is looked at once, at the end.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { build } from "./build.mjs";
import { setup } from "./setup.mjs";
import { fail, root, say } from "./shell.mjs";

const kNetworks = [
  {
    name: "lenet-300-100",
    target: 0.982,
    choice: { epochs: 30, optimizer: "adamw", learning_rate: 0.001, weight_decay: 0.05 },
  },
  {
    name: "lenet-5",
    target: 0.991,
    choice: { epochs: 12, optimizer: "adamw", learning_rate: 0.001, weight_decay: 0.05 },
  },
];

const [folder] = process.argv.slice(2);
if (!folder) fail("Which folder?", "npm run mnist -- DIR, where DIR holds train-images-idx3-ubyte.gz and so on.");
setup();
for (const target of ["module", "package"]) await build(target);
const { load } = await import(join(root, "wasm", "dist", "node.js"));
const names = readdirSync(folder).filter((name) => /idx\d-ubyte(\.gz)?$/.test(name));
const engine = await load();
const data = await engine.data(
  names.map((name) => ({ name, bytes: new Uint8Array(readFileSync(join(folder, name))) })),
);
say(`${data.info.samples} samples: ${JSON.stringify(data.info.splits)}`);
const preparation = { shape: [1, 28, 28], layout: "chw", scale: 1 / 255, mean: [0.1307], std: [0.3081] };
const lines = [];
for (const { name, target, choice } of kNetworks) {
  const fresh = await engine.create(name, { seed: 1 });
  const started = performance.now();
  const training = await fresh.train(data, choice, { preparation, seed: 1 });
  await training.run({
    onProgress: ({ epoch, validation_accuracy, seconds }) => {
      if (validation_accuracy !== null)
        say(
          `${name}: epoch ${epoch + 1}, validation ${(validation_accuracy * 100).toFixed(2)} % (${seconds.toFixed(0)} s)`,
        );
    },
  });
  const minutes = (performance.now() - started) / 60_000;
  const model = await training.model("best");
  const { accuracy, samples } = await model.evaluate(data, { preparation, seed: 1 });
  lines.push(
    `${name}: ${(accuracy * 100).toFixed(2)} % of ${samples} test images (aim ${target * 100} %), ${minutes.toFixed(1)} minutes (aim 10)`,
  );
}
console.log(lines.join("\n"));
engine.close();
