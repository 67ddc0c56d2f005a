// One sentence for the cause behind accuracy, worked out from the comparison and the run's report.
import type { ActivationError, Comparison, Report } from "nibble-nn";
import type { Cause } from "../causes";
import { count, decibels, points } from "../format";
import { tb } from "./words";

/** Below this an activation has lost a tenth of its size and more. */
const LOW_DB = 20;

/** Decibels that weights must be better than what comes out, before the layers in front are blamed. */
const APART_DB = 10;

/** What a person calls it: the weight, else the node, else the value. */
export const nameOf = ({ name, node, weights }: ActivationError): string => weights[0] ?? (node || name);

/** "3 more samples wrong". */
export function wrongMore(n: number): string {
  if (n === 0) return tb("asManyWrong");
  if (n > 0) return n === 1 ? tb("sampleMore") : tb("samplesMore", { n: count(n) });
  return n === -1 ? tb("sampleFewer") : tb("samplesFewer", { n: count(-n) });
}

/** SQNR of the worst weight that an activation's node uses; null: none has an error. */
export function weightsOf({ weights }: ActivationError, report: Report): number | null {
  const found = weights.flatMap((name) => report.weights.find((weight) => weight.name === name)?.sqnr_db ?? []);
  return found.length > 0 ? Math.min(...found) : null;
}

/** How many samples more are wrong after than before. */
export const moreWrong = ({ before, after }: Comparison): number =>
  Math.round(((before.accuracy ?? 0) - (after.accuracy ?? 0)) * after.samples);

/** Half the width of the interval that holds the true accuracy 19 times of 20 (normal approximation of the binomial). */
export const uncertainty = (accuracy: number, samples: number): number =>
  1.96 * Math.sqrt((accuracy * (1 - accuracy)) / samples);

export function causesOfBehaviour(comparison: Comparison, report: Report): Cause[] {
  const { before, after, activations, flipped } = comparison;
  const causes: Cause[] = [];
  const cost = (text: string): void => void causes.push({ kind: "cost", text });
  const fact = (text: string): void => void causes.push({ kind: "fact", text });
  const hurt = activations.filter(({ sqnr_db }) => sqnr_db !== null);
  const worst = hurt.reduce<ActivationError | null>((low, at) => (low && low.sqnr_db! <= at.sqnr_db! ? low : at), null);

  if (before.accuracy !== null && after.accuracy !== null) {
    const more = moreWrong(comparison);
    const places = { points: points(Math.abs(before.accuracy - after.accuracy)), n: wrongMore(more) };
    if (flipped.length === 0) fact(tb("causeNothingFlipped", { n: count(after.samples) }));
    else if (more > 0 && worst) cost(tb("causeFell", { ...places, name: nameOf(worst), db: decibels(worst.sqnr_db!) }));
    else if (more > 0) cost(tb("causeFellPlain", places));
    else if (more === 0) fact(tb("causeFlippedEven", { n: count(flipped.length) }));
    else fact(tb(report.recipe.steps.some(({ kind }) => kind === "train") ? "causeHealed" : "causeRose", places));
  }

  const first = activations.find(({ sqnr_db }) => sqnr_db !== null && sqnr_db < LOW_DB);
  if (first) {
    const weights = weightsOf(first, report);
    const places = { name: nameOf(first), db: decibels(first.sqnr_db!) };
    if (weights === null) cost(tb("causeFirstBelowPlain", places));
    else cost(tb("causeFirstBelow", { ...places, weights: decibels(weights) }));
    const heir = activations.find((at) => {
      const own = weightsOf(at, report);
      return at !== first && at.sqnr_db !== null && at.sqnr_db < LOW_DB && own !== null && own > at.sqnr_db + APART_DB;
    });
    if (heir) {
      const own = decibels(weightsOf(heir, report)!);
      fact(tb("causeInherited", { name: nameOf(heir), weights: own, db: decibels(heir.sqnr_db!) }));
    }
  } else if (hurt.length > 0) fact(tb("causeAllAbove", { db: decibels(hurt.at(-1)!.sqnr_db!) }));

  if (after.accuracy !== null && after.samples > 0) {
    const about = uncertainty(after.accuracy, after.samples);
    if (about >= 0.01) fact(tb("causeFew", { n: count(after.samples), points: points(about) }));
  }
  return causes;
}
