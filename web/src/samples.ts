// The models that come with the page, and the data that each is opened with; .tools/samples.mjs trains them.
import type { Words } from "./language";
import type { GeneratedData } from "./recipe";

export interface Sample {
  id: string;
  name: string;
  about: Words;
  /** Size of the file in bytes, to be said before it is fetched. A test holds it against the file. */
  bytes: number;
  /** Relative to the page. */
  path: string;
  /** None of it was seen in training. */
  data: GeneratedData;
}

const DIGITS: GeneratedData = { kind: "digits", seed: 1, n: 2000 };
const sample = (id: string, name: string, bytes: number, about: Words, data = DIGITS): Sample => ({
  id,
  name,
  about,
  bytes,
  path: `samples/${id}.onnx`,
  data,
});

/** The first ones are offered at once, the others in a list. */
export const OFFERED = 2;
export const SAMPLES: Sample[] = [
  sample("simplenet", "SimpleNet", 88_502, { en: "2 conv, 2 dense, digits", zh: "2 卷积 2 全连接，手写数字" }),
  sample("lenet-300-100", "LeNet-300-100", 1_067_151, { en: "3 dense, digits", zh: "3 全连接，手写数字" }),
  sample("lenet-5", "LeNet-5", 1_725_409, { en: "2 conv, 2 dense, digits", zh: "2 卷积 2 全连接，手写数字" }),
  sample("depthwise", "Depthwise", 160_031, { en: "depthwise separable, digits", zh: "深度可分离卷积，手写数字" }),
  sample("resnet-8", "ResNet-8", 319_274, { en: "residual, 7 conv, digits", zh: "残差网络，7 卷积，手写数字" }),
  sample("lstm", "LSTM", 99_659, { en: "rows as a sequence, digits", zh: "逐行读入的序列，手写数字" }),
  sample("transformer", "Transformer", 119_446, { en: "2 attention blocks, digits", zh: "2 个注意力块，手写数字" }),
  sample("linear", "Linear", 294, { en: "one weighted sum", zh: "一个加权和" }, { kind: "linear", seed: 1, n: 2000 }),
];
