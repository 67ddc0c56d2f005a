// The networks of the training benchmark in TensorFlow.js: what a page without this project would train. Its WebAssembly
// backend has no gradient for a convolution's filter, so that one is composed here of what the backend has.
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";
import "@tensorflow/tfjs-backend-cpu";
import { setThreadsCount, setWasmPaths } from "@tensorflow/tfjs-backend-wasm";

export { tf };

/// Starts the WebAssembly backend with SIMD and one thread. `folder` is where its files are.
export async function start_tfjs(folder) {
  tf.enableProdMode(); // without its checks and its advice
  // A page that is isolated from others, as the benchmark's is for its clock, would get the build with threads.
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
  setWasmPaths(folder);
  setThreadsCount(1);
  await tf.setBackend("wasm");
  await tf.ready();
  if (tf.getBackend() !== "wasm") throw new Error(`TensorFlow.js runs on ${tf.getBackend()} and not on WebAssembly`);
}

/// The gradient of a filter [height, width, in, out] of a convolution of stride 1 without padding. It is itself a
/// convolution, of x with dy as its filter, where images and channels change places:
/// dw[h, w, i, o] = sum over n, y, x of input[n, y + h, x + w, i] * dy[n, y, x, o].
function filter_gradient(x, dy) {
  const images = tf.transpose(x, [3, 1, 2, 0]);
  const filter = tf.transpose(dy, [1, 2, 0, 3]);
  return tf.transpose(tf.conv2d(images, filter, 1, "valid"), [1, 2, 0, 3]);
}

/// The gradient of the input of such a convolution: dy with a border of zeros, convolved with the filter turned by half.
function input_gradient(dy, filter) {
  const [down, right] = [filter.shape[0] - 1, filter.shape[1] - 1];
  const border = [
    [0, 0],
    [down, down],
    [right, right],
    [0, 0],
  ];
  return tf.conv2d(tf.pad(dy, border), tf.transpose(tf.reverse(filter, [0, 1]), [0, 1, 3, 2]), 1, "valid");
}

// Layers in two variants. As shipped: all gradients are the backend's own, but for the filter's. Tuned: gradients whose
// kernels are plain loops there (a convolution's input, products with a transposed matrix) are composed of fast ones, too.

/// A convolution of stride 1 without padding. The input of a network's `first` layer needs no gradient.
function conv(x, filter, { tuned, first = false }) {
  if (first) {
    const layer = tf.customGrad((w, save) => {
      save([x]);
      return { value: tf.conv2d(x, w, 1, "valid"), gradFunc: (dy, [input]) => filter_gradient(input, dy) };
    });
    return layer(filter);
  }
  const shipped = (dy, w, shape) => tf.conv2dTranspose(dy, w, shape, 1, "valid");
  const layer = tf.customGrad((input, w, save) => {
    save([input, w]);
    return {
      value: tf.conv2d(input, w, 1, "valid"),
      gradFunc: (dy, [a, b]) => [(tuned ? input_gradient : shipped)(dy, b, a.shape), filter_gradient(a, dy)],
    };
  });
  return layer(x, filter);
}

function product(x, w, { tuned, first = false }) {
  if (!tuned) return tf.matMul(x, w);
  const turned = (matrix) => tf.transpose(matrix);
  if (first) {
    const layer = tf.customGrad((b, save) => {
      save([x]);
      return { value: tf.matMul(x, b), gradFunc: (dy, [a]) => tf.matMul(turned(a), dy) };
    });
    return layer(w);
  }
  const layer = tf.customGrad((a, b, save) => {
    save([a, b]);
    const gradFunc = (dy, [left, right]) => [tf.matMul(dy, turned(right)), tf.matMul(turned(left), dy)];
    return { value: tf.matMul(a, b), gradFunc };
  });
  return layer(x, w);
}

/// The largest difference of the composed gradients from those of TensorFlow.js's own plain JavaScript backend, as a share
/// of the largest value.
export async function check_gradients() {
  const values = (shape, seed) => {
    const count = shape.reduce((a, b) => a * b, 1);
    return tf.tensor(
      Float32Array.from({ length: count }, (_, i) => Math.sin(seed + i * i)),
      shape,
    );
  };
  const gradients = async (backend, layer, shapes, out) => {
    await tf.setBackend(backend);
    const inputs = shapes.map((shape, i) => values(shape, i + 1));
    return Promise.all(
      tf
        .grads(layer)(inputs, values(out, 9))
        .map((gradient) => gradient.data()),
    );
  };
  let worst = 0;
  for (const { plain, layer, shapes, out } of [
    {
      plain: (x, w) => tf.conv2d(x, w, 1, "valid"),
      layer: conv,
      shapes: [
        [2, 9, 8, 3],
        [4, 3, 3, 5],
      ],
      out: [2, 6, 6, 5],
    },
    {
      plain: (x, w) => tf.matMul(x, w),
      layer: product,
      shapes: [
        [4, 7],
        [7, 5],
      ],
      out: [4, 5],
    },
  ]) {
    const expected = await gradients("cpu", plain, shapes, out);
    for (const tuned of [false, true]) {
      const both = await gradients("wasm", (x, w) => layer(x, w, { tuned }), shapes, out);
      // Where only the weight's gradient is wanted, zero times the input stands for it.
      const first = (x, w) => tf.add(layer(x, w, { tuned, first: true }), tf.mul(tf.sum(x), 0));
      const [, weight] = await gradients("wasm", first, shapes, out);
      for (const [found, right] of [
        [both[0], expected[0]],
        [both[1], expected[1]],
        [weight, expected[1]],
      ]) {
        const largest = right.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        worst = found.reduce((most, value, i) => Math.max(most, Math.abs(value - right[i]) / largest), worst);
      }
    }
  }
  return worst;
}

const drawn = (shape, fan_in) => tf.variable(tf.randomNormal(shape, 0, Math.sqrt(2 / fan_in)));
const zeros = (size) => tf.variable(tf.zeros([size]));

/// The same layers as the package's architectures of these names, with images as [batch, 28, 28, 1].
const kNets = {
  "lenet-5"(tuned) {
    const [w1, b1, w2, b2] = [drawn([5, 5, 1, 20], 25), zeros(20), drawn([5, 5, 20, 50], 500), zeros(50)];
    const [w3, b3, w4, b4] = [drawn([800, 500], 800), zeros(500), drawn([500, 10], 500), zeros(10)];
    const forward = (images) => {
      let x = tf.maxPool(tf.add(conv(images, w1, { tuned, first: true }), b1), 2, 2, "valid");
      x = tf.maxPool(tf.add(conv(x, w2, { tuned }), b2), 2, 2, "valid");
      x = tf.relu(tf.add(product(tf.reshape(x, [-1, 800]), w3, { tuned }), b3));
      return tf.add(product(x, w4, { tuned }), b4);
    };
    return { variables: [w1, b1, w2, b2, w3, b3, w4, b4], forward };
  },
  "lenet-300-100"(tuned) {
    const [w1, b1, w2, b2] = [drawn([784, 300], 784), zeros(300), drawn([300, 100], 300), zeros(100)];
    const [w3, b3] = [drawn([100, 10], 100), zeros(10)];
    const forward = (images) => {
      const x = tf.relu(tf.add(product(tf.reshape(images, [-1, 784]), w1, { tuned, first: true }), b1));
      return tf.add(product(tf.relu(tf.add(product(x, w2, { tuned }), b2)), w3, { tuned }), b3);
    };
    return { variables: [w1, b1, w2, b2, w3, b3], forward };
  },
};

/// A network that trains by stochastic gradient descent on one batch, which stays in the backend's memory.
/// `images` are batch * 784 values, `labels` as many classes. Returns {parameters, step, loss}: how many numbers it
/// learns, one step, and the loss as it is now.
export function tfjs_trainer(name, images, labels, { learning_rate, tuned }) {
  const batch = labels.length;
  const x = tf.tensor(images, [batch, 28, 28, 1]);
  const y = tf.cast(tf.oneHot(tf.tensor1d(labels, "int32"), 10), "float32");
  const { variables, forward } = kNets[name](tuned);
  const optimizer = tf.train.sgd(learning_rate);
  const loss = () => tf.losses.softmaxCrossEntropy(y, forward(x));
  return {
    parameters: variables.reduce((sum, { size }) => sum + size, 0),
    step: () => void optimizer.minimize(loss, false, variables),
    loss: () => tf.tidy(() => loss().dataSync()[0]),
  };
}
