// Every word is there in both languages and fits its places.
import { expect, test } from "vitest";
import { behaviourWords } from "../../web/src/behaviour/words";
import { accuracy, bytes, percent, points, real } from "../../web/src/format";
import { language } from "../../web/src/language";
import { allWords, t } from "../../web/src/words";

const places = (text: string): string[] => [...text.matchAll(/\{\w+\}/g)].map(([place]) => place).sort();

test("every text is there in both languages, with the same places", () => {
  const wrong = [...Object.entries(allWords), ...Object.entries(behaviourWords)]
    .filter(([, { en, zh }]) => !en.trim() || !zh.trim() || places(zh).join() !== places(en).join())
    .map(([key]) => key);
  expect(wrong).toEqual([]);
  expect(Object.keys(allWords).length).toBeGreaterThan(100);
  expect(Object.keys(behaviourWords).length).toBeGreaterThan(100);
});

test("texts are filled in the language shown now", () => {
  language.value = "en";
  expect(t("saved", { text: "a.onnx" })).toBe("Saved as a.onnx");
  language.value = "zh";
  expect(t("saved", { text: "a.onnx" })).toBe("已保存为 a.onnx");
  language.value = "en";
});

test("a share is only called 0 % or 100 % when it is", () => {
  expect([0, 0.0004, 0.253, 0.9999, 1].map(percent)).toEqual(["0 %", "< 0.1 %", "25 %", "99.9 %", "100 %"]);
});

test("accuracy has a tenth of a percent, and is only called 0 % or 100 % when it is", () => {
  expect([0, 0.0001, 0.9234, 0.9999, 1].map(accuracy)).toEqual(["0 %", "0.1 %", "92.3 %", "99.9 %", "100 %"]);
  expect([0.0004, 0.012, -0.25].map(points)).toEqual(["< 0.1", "1.2", "−25"]);
});

test("bytes have three digits and decimal units", () => {
  expect([0, 999, 1000, 88470, 999_499, 999_500, 1_067_185].map(bytes)).toEqual([
    "0 B",
    "999 B",
    "1.00 KB",
    "88.5 KB",
    "999 KB",
    "1.00 MB",
    "1.07 MB",
  ]);
});

test("reals keep four digits and turn scientific where tiny", () => {
  expect([0, 0.123456, -0.5, 1e-7, -1.5e-9].map(real)).toEqual(["0", "0.1235", "−0.5", "1.00e−7", "−1.50e−9"]);
});
