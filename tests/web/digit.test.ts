// What is drawn becomes what a digit network was taught with, and outputs become probabilities.
import { expect, test } from "vitest";
import { asMnist, probabilities } from "../../web/src/behaviour/digit";
import { inLayout, numbersOf } from "../../web/src/behaviour/preparation";

/** A drawing of 280 by 280 with a filled box. */
function box(left: number, top: number, width: number, height: number) {
  const values = new Uint8Array(280 * 280);
  for (let y = top; y < top + height; y++) values.fill(255, y * 280 + left, y * 280 + left + width);
  return { width: 280, height: 280, values };
}

/** Ink, its center, and the box that it fills. */
function measure(picture: Uint8Array) {
  let [mass, x, y, left, right] = [0, 0, 0, 28, -1];
  picture.forEach((value, i) => {
    mass += value;
    x += value * ((i % 28) + 0.5);
    y += value * (Math.floor(i / 28) + 0.5);
    if (value > 127) [left, right] = [Math.min(left, i % 28), Math.max(right, i % 28)];
  });
  return { mass, x: x / mass, y: y / mass, wide: right - left + 1 };
}

test("a drawing is put in the middle by its mass and scaled to 20 pixels, wherever and however large it was", () => {
  for (const [left, top, width, height] of [
    [10, 20, 200, 60],
    [150, 170, 100, 30],
    [0, 0, 280, 84],
  ] as const) {
    const { x, y, wide, mass } = measure(asMnist(box(left, top, width, height))!);
    expect(Math.abs(x - 14)).toBeLessThan(0.6);
    expect(Math.abs(y - 14)).toBeLessThan(0.6);
    expect(Math.abs(wide - 20)).toBeLessThanOrEqual(1);
    expect(mass / 255).toBeGreaterThan(20 * 6 * 0.85);
    expect(mass / 255).toBeLessThan(20 * 6 * 1.15);
  }
});

test("an empty drawing is none, and a dot is not blown up", () => {
  expect(asMnist({ width: 280, height: 280, values: new Uint8Array(280 * 280) })).toBeNull();
  expect(measure(asMnist(box(100, 100, 20, 20))!).wide).toBeLessThan(12);
});

test("scores become probabilities, and probabilities stay", () => {
  const of = (...values: number[]) => ({
    dtype: "float32",
    shape: [1, values.length],
    data: Float32Array.from(values),
  });
  const found = Array.from(probabilities(of(Math.log(1), Math.log(2), Math.log(5))));
  expect(found).toEqual([0.125, 0.25, 0.625].map((value) => expect.closeTo(value, 6)));
  expect(Array.from(probabilities(of(0.25, 0.75)))).toEqual([0.25, 0.75]);
  expect(probabilities(of(1000, -1000))[0]).toBe(1);
});

test("another layout has the same numbers", () => {
  const from = { layout: "chw" as const, shape: [3, 32, 24], scale: 1, mean: [0], std: [1], reason: "" };
  expect(inLayout(from, "hwc")).toEqual([32, 24, 3]);
  expect(inLayout(from, "features")).toEqual([2304]);
  expect(inLayout({ ...from, shape: [784], layout: "features" }, "chw")).toEqual([1, 28, 28]);
  expect(inLayout({ ...from, shape: [28, 28], layout: "hw" }, "hwc")).toEqual([28, 28, 1]);
});

test("numbers are read with any commas, and nothing else is", () => {
  expect(numbersOf("0.485, 0.456，0.406")).toEqual([0.485, 0.456, 0.406]);
  expect(numbersOf("")).toBeNull();
  expect(numbersOf("1, two")).toBeNull();
});
