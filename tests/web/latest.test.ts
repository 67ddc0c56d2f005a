// The runner behind the sliders: never two runs at once, never a stale one.
import { expect, test } from "vitest";
import { latest } from "../../web/src/latest";

/** Work that lasts until it is told to end, and notes what it saw. */
function bench() {
  let input = 0;
  let running = 0;
  const seen: number[] = [];
  const ends: (() => void)[] = [];
  const most = { running: 0 };
  const runner = latest(async () => {
    seen.push(input);
    most.running = Math.max(most.running, ++running);
    await new Promise<void>((resolve) => ends.push(resolve));
    running--;
  });
  return {
    seen,
    most,
    runner,
    move(value: number) {
      input = value;
      return runner.ask();
    },
    async end() {
      ends.shift()!();
      await new Promise((resolve) => setTimeout(resolve));
    },
  };
}

test("the first ask runs at once", () => {
  const { seen, move } = bench();
  void move(1);
  expect(seen).toEqual([1]);
});

test("a hundred moves during a run become one run with the newest value", async () => {
  const { seen, most, move, end } = bench();
  void move(0);
  for (let value = 1; value <= 100; value++) void move(value);
  expect(seen).toEqual([0]);
  await end();
  expect(seen).toEqual([0, 100]);
  await end();
  expect(seen).toEqual([0, 100]);
  expect(most.running).toBe(1);
});

test("an ask is answered by a run that began after it", async () => {
  const { seen, move, end } = bench();
  void move(1);
  let answered = false;
  void move(2).then(() => (answered = true));
  await end();
  expect(answered).toBe(false);
  expect(seen).toEqual([1, 2]);
  await end();
  expect(answered).toBe(true);
});

test("idle waits for the run and for the one after it", async () => {
  const { runner, move, end } = bench();
  await runner.idle();
  void move(1);
  void move(2);
  let idle = false;
  void runner.idle().then(() => (idle = true));
  await end();
  expect(idle).toBe(false);
  await end();
  expect(idle).toBe(true);
});
