// The models that come with the page; .tools/make_sample.mjs trains them.
import type { Words } from "./language";

export interface Sample {
  id: string;
  name: string;
  about: Words;
  /** Size of the file in bytes, to be said before it is fetched. A test holds it against the file. */
  bytes: number;
  /** Relative to the page. */
  path: string;
}

export const SAMPLES: Sample[] = [
  {
    id: "simplenet",
    name: "SimpleNet",
    about: { en: "2 conv, 2 dense, digits", zh: "2 卷积 2 全连接，手写数字" },
    bytes: 88_470,
    path: "samples/simplenet.onnx",
  },
  {
    id: "lenet-300-100",
    name: "LeNet-300-100",
    about: { en: "3 dense, digits", zh: "3 全连接，手写数字" },
    bytes: 1_067_185,
    path: "samples/lenet-300-100.onnx",
  },
];
