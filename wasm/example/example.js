// A compressed model on a page: `nibble-nn/decode` makes an ONNX file of a .nib while that is loading, and onnxruntime-web
// runs it. In this repository `npm run example` makes the model, puts all files in one folder and serves it.
//
// On a page of your own:
//   npm install nibble-nn onnxruntime-web
//   npx nibble-nn compress model.onnx --sparsity 0.7 --scope global --bits 8 -o model.nib
// and, without a bundler, an import map as in index.html.
import { decode } from "nibble-nn/decode";
import * as ort from "onnxruntime-web/wasm";

const element = (id) => document.getElementById(id);
const canvas = document.querySelector("canvas");
const ink = canvas.getContext("2d", { willReadFrequently: true });
let session;

/** `source`: the response to a request, which is decoded as it arrives, or a file. */
async function open(source) {
  let loaded = 0;
  const onProgress = (done, total) => {
    loaded = total;
    element("size").textContent = `${done} of ${total} bytes`;
  };
  const onnx = await decode(source, { onProgress });
  session = await ort.InferenceSession.create(onnx);
  element("size").textContent = `${loaded} bytes loaded, ${onnx.length} bytes as ONNX`;
}

/** Shows what the model takes the picture for. */
async function predict() {
  const { data } = ink.getImageData(0, 0, 28, 28);
  const values = Float64Array.from({ length: 784 }, (_, i) => data[4 * i] / 255);
  element("answer").textContent = "";
  if (!session || values.every((value) => value === 0)) return;
  // With the mean and the deviation that the model was trained with.
  const pixels = Float32Array.from(values, (value) => (value - 0.1307) / 0.3081);
  const [{ name, shape }] = session.inputMetadata;
  // A name instead of a number is the batch, of any size.
  const input = new ort.Tensor(
    "float32",
    pixels,
    shape.map((extent) => (typeof extent === "number" ? extent : 1)),
  );
  const outputs = await session.run({ [name]: input });
  const scores = [...outputs[session.outputNames[0]].data];
  element("answer").textContent = scores.indexOf(Math.max(...scores));
}

/** Does one thing after the other, and says what went wrong. */
let queue = Promise.resolve();
function enqueue(work) {
  queue = queue.then(work).catch((error) => {
    element("error").textContent = error.message;
  });
}

/** Gets a model by `source` and puts it in the place of the one before. */
function load(source) {
  enqueue(async () => {
    await session?.release();
    session = undefined;
    for (const id of ["answer", "size", "error"]) element(id).textContent = "";
    await open(await source());
    await predict();
  });
}

// --- Drawing ---------------------------------------------------------------------------------------------------------

const strokes = [
  "M14 5C7 5 7 23 14 23S21 5 14 5",
  "M11 9L15 5V23",
  "M9 9C10 3 20 4 19 10C18 15 11 19 9 23H20",
  "M9 6C15 3 20 6 18 10C17 13 14 13 13 13C16 13 20 15 19 19C18 24 11 24 8 21",
  "M17 23V5L8 17H21",
  "M19 5H11L10 12C14 10 20 12 19 18C18 23 12 24 8 21",
  "M17 5C10 8 8 15 9 19C10 24 19 24 19 18C19 13 12 13 9 18",
  "M8 5H20L12 23",
  "M14 13C8 12 8 5 14 5S20 12 14 13C7 14 7 23 14 23S21 14 14 13",
  "M19 9C18 3 9 4 9 10C9 15 17 15 19 9L17 23",
];

/** White on black, as the model was taught. */
Object.assign(ink, { lineWidth: 2.5, lineCap: "round", lineJoin: "round", strokeStyle: "white", fillStyle: "black" });

function clear() {
  ink.fillRect(0, 0, 28, 28);
  enqueue(predict);
}

function drawRandom() {
  ink.fillRect(0, 0, 28, 28);
  ink.stroke(new Path2D(strokes[Math.floor(Math.random() * 10)]));
  enqueue(predict);
}

let from = [0, 0];
const position = (event) => [event.offsetX, event.offsetY].map((at) => (at * 28) / canvas.clientWidth);
canvas.onpointerdown = (event) => {
  canvas.setPointerCapture(event.pointerId);
  from = position(event);
};
canvas.onpointermove = (event) => {
  if (!event.buttons) return;
  ink.beginPath();
  ink.moveTo(...from);
  ink.lineTo(...(from = position(event)));
  ink.stroke();
};
canvas.onpointerup = () => enqueue(predict);
element("clear").onclick = clear;
element("random").onclick = drawRandom;
element("file").onchange = (event) => load(() => event.target.files[0]);

drawRandom();
load(() => fetch(new URLSearchParams(location.search).get("model") ?? "lenet-5.nib"));
