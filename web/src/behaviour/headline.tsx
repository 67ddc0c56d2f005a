// Accuracy beside the size: the two numbers that a recipe trades for each other.
import { accuracy, count, points, real } from "../format";
import { shown, side, view } from "../state";
import { t } from "../words";
import { moreWrong, wrongMore } from "./causes";
import { cannotRun, compared, comparing, data, trouble } from "./state";
import { tb } from "./words";

/** "−2.1 points"; a change of none says so. */
export function change(before: number, after: number): string {
  if (before === after) return "±0";
  return `${after > before ? "+" : "−"}${points(Math.abs(after - before))}`;
}

const samples = (n: number): string => (n === 1 ? tb("sampleCount") : tb("samplesCount", { n: count(n) }));

/** Shows what is behind the number; on a narrow screen that is further down. */
function look(): void {
  view.value = "mistakes";
  const tabs = document.querySelector(".tabs");
  const top = tabs?.getBoundingClientRect().top ?? 0;
  if (top < 0 || top > innerHeight / 2) tabs?.scrollIntoView({ block: "start" });
}

export function Headline() {
  const now = compared.value;
  if (!data.value) return null;
  if (cannotRun.value || (trouble.value && !now)) {
    return (
      <button type="button" class="headline" onClick={look}>
        <span class="headline-name">{tb("accuracy")}</span>
        <span class="hint">{cannotRun.value ? tb("cannotRunShort") : t(`trouble.${trouble.value!.code}`)}</span>
      </button>
    );
  }
  if (!now && comparing.value === null) return null;
  const [before, after] = [now?.before.accuracy ?? null, now?.after.accuracy ?? null];
  const old = now && (now.side !== shown.value?.side || now.side !== side.value);
  const loss = data.value.info.labelled ? tb("loss") : tb("meanSquared");
  return (
    <button
      type="button"
      class={`headline ${old ? "old" : ""}`}
      data-testid="headline"
      data-before={before ?? undefined}
      data-after={after ?? undefined}
      data-samples={now?.after.samples}
      onClick={look}
    >
      <span class="headline-name">{before === null && now ? loss : tb("accuracy")}</span>
      {!now && <span class="hint">{tb("comparing")}</span>}
      {now && before !== null && after !== null && (
        <>
          <strong>{accuracy(after)}</strong>
          {/* One line at any length: what grew here would push a slider from under the pointer. */}
          <span class={`delta ${after < before ? "worse" : ""}`} title={wrongMore(moreWrong(now))}>
            {before === after
              ? tb("asManyWrong")
              : `${tb("points", { n: change(before, after) })} · ${samples(Math.abs(moreWrong(now)))}`}
          </span>
        </>
      )}
      {now && before === null && now.after.loss !== null && (
        <>
          <strong>{real(now.after.loss)}</strong>
          <span class="hint">
            {tb("before")} {real(now.before.loss ?? 0)}
          </span>
        </>
      )}
    </button>
  );
}
