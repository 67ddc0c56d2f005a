// Running and training networks with the package beside TensorFlow.js and ONNX Runtime on one thread, in Node or in a page:
// matrix products, training steps, whole models. Contestants take turns. Gives numbers; printing is the caller's. It is
// bundled first, as the fixtures are TypeScript (.tools/bench.mjs).
import { floats, graph, model as onnx_model, node, value } from "../fixtures/onnx";
import { weights } from "../fixtures/random";
import { difference, numbers, randomInputs, toValue } from "../fixtures/tensors";
import { check_gradients, start_tfjs, tf, tfjs_trainer } from "./tfjs_nets.mjs";

const kPeak = 0; // the case of compute_bench.cpp that uses registers only
const kSizes = [256, 512, 1024];
const kNets = ["lenet-5", "lenet-300-100"];
const kBatch = 64;
const kRate = 0.01;
/// Share of the largest magnitude by which the runtimes' results may differ where they compute the same.
const kTolerance = 1e-3;
/// ONNX Runtime's logistic function gives multiples of 2^-24 near zero, and is wrong by some of them.
const kAbsolute = 4 * 2 ** -24;

const now = () => performance.now() / 1000;

/// Something to time as often as a sample of `least` seconds needs, after it has run hot. Gives a function that takes one
/// sample: seconds per call.
async function timed(work, { least, warm }) {
  const sample = async (repeats) => {
    const start = now();
    for (let r = 0; r < repeats; r++) {
      const pending = work();
      if (pending instanceof Promise) await pending;
    }
    return (now() - start) / repeats;
  };
  let time = Infinity;
  // Engines compile a function again once it has been seen to run hot, so the first calls say little.
  for (const end = now() + warm; now() < end || time === Infinity;) time = Math.min(time, await sample(1));
  for (let i = 0; i < 2; i++) time = Math.min(time, await sample(1));
  const repeats = Math.max(1, Math.min(10000, Math.round(least / Math.max(time, 1e-7))));
  return () => sample(repeats);
}

/// Takes samples of all contestants in turns: other programs on the machine make a sample longer, or all samples of a
/// while, so the best counts. At least 3 rounds, then as many as `rounds` and `seconds` allow.
/// Returns {name: {best, median}}, in seconds.
async function take_turns(contestants, { rounds, seconds }) {
  const times = Object.fromEntries(Object.keys(contestants).map((name) => [name, []]));
  const end = now() + seconds;
  for (let round = 0; round < rounds && (round < 3 || now() < end); round++) {
    for (const [name, sample] of Object.entries(contestants)) times[name].push(...[await sample()].flat());
  }
  const summary = (list) => {
    const sorted = [...list].sort((a, b) => a - b);
    return { best: sorted[0], median: sorted[sorted.length >> 1] };
  };
  return Object.fromEntries(Object.entries(times).map(([name, list]) => [name, summary(list)]));
}

const agrees = (what, found, expected) => {
  const error = difference(numbers("", found), numbers("", expected));
  if (!(error <= kTolerance))
    throw new Error(`${what}: differs by ${error} of the largest value, so its time tells nothing`);
};

// --- Matrix product ---------------------------------------------------------------------------------------------------

/// C = A B of [size, size], and the most that registers alone give. Returns [{size, work, peaks, times}]: operations per
/// product, operations per second and build, and seconds by contestant.
async function products({ ort, compute, limits, say }) {
  const results = [];
  for (const size of kSizes) {
    say(`matrix product ${size}`);
    const [a, b] = [weights(size * size, 1), weights(size * size, 2)];
    const contestants = {};
    const work = 2 * size ** 3;
    const peak_work = {};
    const answers = {};
    const free = [];

    for (const [build, module] of Object.entries(compute)) {
      const [at_a, at_b, at_c] = [a, b, a].map(({ byteLength }) => module._malloc(byteLength));
      module.HEAPF32.set(a, at_a / 4);
      module.HEAPF32.set(b, at_b / 4);
      const product = () => module._bench_matmul(size, size, size, at_a, at_b, at_c);
      contestants[build] = await timed(product, limits);
      contestants[`${build} peak`] = await timed(() => module._bench_run(kPeak, 0, 1), limits);
      peak_work[build] = module._bench_work(kPeak);
      answers[build] = module.HEAPF32.slice(at_c / 4, at_c / 4 + size * size);
      for (const at of [at_a, at_b, at_c]) free.push(() => module._free(at));
    }

    const [tf_a, tf_b] = [tf.tensor2d(a, [size, size]), tf.tensor2d(b, [size, size])];
    contestants.tfjs = await timed(() => tf.matMul(tf_a, tf_b).dispose(), limits);
    answers.tfjs = tf.tidy(() => tf.matMul(tf_a, tf_b).dataSync());

    // B is a constant of the model, which ONNX Runtime then packs once.
    const file = onnx_model(
      graph({
        nodes: [node("MatMul", ["a", "b"], ["c"])],
        inputs: [value("a", [size, size])],
        outputs: [value("c", [size, size])],
        initializers: [floats("b", [size, size], b)],
      }),
    );
    const session = await open_ort(ort, file);
    const feeds = { a: new ort.Tensor("float32", a, [size, size]) };
    contestants.ort = await timed(() => session.run(feeds), limits);
    answers.ort = (await session.run(feeds)).c.data;

    for (const [name, found] of Object.entries(answers)) agrees(`matrix product ${size}, ${name}`, found, answers.tfjs);
    const times = await take_turns(contestants, limits);
    const peaks = Object.fromEntries(
      Object.keys(compute).map((build) => [build, peak_work[build] / times[`${build} peak`].best]),
    );
    results.push({ size, work, peaks, times });
    await session.release();
    tf.dispose([tf_a, tf_b]);
    for (const one of free) one();
  }
  return results;
}

const open_ort = (ort, file) =>
  ort.InferenceSession.create(file, { executionProviders: ["wasm"], logSeverityLevel: 4 });

// --- Training ---------------------------------------------------------------------------------------------------------

/// A training of the package. `sample` runs it for a while (it hands out its steps about every tenth of a second) and gives
/// the mean times of some full batches in a row, by the training's own clock: with taking samples from the data, preparing
/// them, forward, backward, and the step, without the validation after an epoch.
async function package_trainer(engine, name, { least }) {
  const model = await engine.create(name, { seed: 1 });
  const data = await engine.data({ kind: "digits", seed: 1, n: 3200 });
  const choice = {
    epochs: 10000,
    batch: kBatch,
    optimizer: "sgd",
    momentum: 0,
    learning_rate: kRate,
    schedule: "constant",
  };
  const training = await model.train(data, choice);
  let before;
  const sample = async () => {
    const pause = new AbortController();
    const times = [];
    let [total, steps] = [0, 0];
    const onProgress = (progress) => {
      const { seconds, batch, batches, step } = progress;
      if (before?.step === step - 1 && batch + 1 < batches) {
        total += seconds - before.seconds;
        steps++;
      }
      if (total >= least) {
        times.push(total / steps);
        [total, steps] = [0, 0];
        pause.abort();
      }
      before = progress;
    };
    await training.run({ signal: pause.signal, onProgress });
    await training.save(); // pausing saves in the background, which must not run into another's sample
    return times;
  };
  return { parameters: model.info.parameters, sample, loss: () => training.progress.loss };
}

/// Returns [{net, batch, times, losses}]: seconds per step by contestant, and the losses at the end.
async function trainings({ engines, limits, say }) {
  say("training: checking the composed gradients");
  const error = await check_gradients();
  if (!(error < 1e-5)) throw new Error(`the gradients composed for TensorFlow.js are wrong by ${error}`);

  const digits = await engines.strict.data({ kind: "digits", seed: 1, n: 100 });
  const { values, labels } = await digits.samples(Array.from({ length: kBatch }, (_, i) => i));
  const images = Float32Array.from(values, (pixel) => pixel / 255);

  const results = [];
  for (const net of kNets) {
    say(`training ${net}`);
    const contestants = {};
    const losses = {};
    const starts = {};
    const theirs = {
      tfjs: tfjs_trainer(net, images, labels, { learning_rate: kRate, tuned: false }),
      tuned: tfjs_trainer(net, images, labels, { learning_rate: kRate, tuned: true }),
    };
    for (const [name, trainer] of Object.entries(theirs)) {
      starts[name] = trainer.loss();
      contestants[name] = await timed(trainer.step, limits);
      losses[name] = trainer.loss;
    }
    for (const [build, engine] of Object.entries(engines)) {
      const ours = await package_trainer(engine, net, limits);
      if (ours.parameters !== theirs.tfjs.parameters)
        throw new Error(`${net}: ${ours.parameters} parameters here, ${theirs.tfjs.parameters} in TensorFlow.js`);
      contestants[build] = ours.sample;
      losses[build] = ours.loss;
      for (const end = now() + limits.warm; now() < end;) await ours.sample();
    }
    const times = await take_turns(contestants, limits);
    for (const [name, start] of Object.entries(starts))
      if (!(losses[name]() < start)) throw new Error(`${net}: ${name} does not learn`);
    const at_end = Object.fromEntries(Object.entries(losses).map(([name, loss]) => [name, loss()]));
    results.push({ net, batch: kBatch, times, losses: at_end });
  }
  return results;
}

// --- Models -----------------------------------------------------------------------------------------------------------

/// One forward pass each: Model.run, and InferenceSession.run as it comes. Inputs and outputs are copied in and out by
/// both, which is part of the price. Returns [{name, times, error}], or {name, refused} where one of them cannot run it.
async function inferences({ engines, ort, models, read, limits, say }) {
  const results = [];
  for (const { name, file, dims } of models) {
    say(name);
    const bytes = await read(file);
    try {
      const session = await open_ort(ort, bytes);
      const contestants = {};
      let error = 0;
      let inputs;
      let expected;
      const opened = [];
      for (const [build, engine] of Object.entries(engines)) {
        const model = await engine.open(bytes, { name });
        opened.push(model);
        const why = await model.cannotRun();
        if (why !== null) throw new Error(why);
        if (!inputs) {
          const info = model.info.inputs.map((input) => ({ ...input, shape: dims ?? input.shape }));
          inputs = randomInputs(info, 5);
          const feeds = Object.fromEntries(
            Object.entries(inputs).map(([key, feed]) => [key, new ort.Tensor(feed.type, feed.data, feed.dims)]),
          );
          contestants.ort = await timed(() => session.run(feeds), limits);
          expected = await session.run(feeds);
        }
        const values = Object.fromEntries(Object.entries(inputs).map(([key, feed]) => [key, toValue(feed)]));
        const found = await model.run(values);
        for (const output of session.outputNames) {
          const { dtype, data } = found[output];
          error = Math.max(error, difference(numbers(dtype, data), numbers(dtype, expected[output].data), kAbsolute));
        }
        contestants[build] = await timed(() => model.run(values), limits);
      }
      results.push({ name, times: await take_turns(contestants, limits), error });
      for (const model of opened) model.dispose();
      await session.release();
    } catch (error) {
      results.push({ name, refused: error.message });
    }
  }
  return results;
}

/// Everything. `load` is the package's, `ort` ONNX Runtime's module with its files found, `tfjs_folder` where the WebAssembly
/// files of TensorFlow.js are, `compute` the modules of compute_bench.cpp by build, `models`
/// [{name, file, dims}] for `read`, `parts` which of "products", "trainings" and "inferences" to measure.
export async function measure_run({ load, ort, tfjs_folder, compute, models, read, parts, limits, say = () => {} }) {
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "fatal";
  await start_tfjs(tfjs_folder);
  const engines = {};
  // In this very thread, as the others are.
  for (const arithmetic of ["strict", "relaxed"]) engines[arithmetic] = await load({ arithmetic, worker: false });
  const everything = { engines, ort, compute, models, read, limits, say };
  const results = {};
  try {
    if (parts.includes("products")) results.products = await products(everything);
    if (parts.includes("trainings")) results.trainings = await trainings(everything);
    if (parts.includes("inferences")) results.inferences = await inferences(everything);
  } finally {
    for (const engine of Object.values(engines)) engine.close();
  }
  return results;
}
