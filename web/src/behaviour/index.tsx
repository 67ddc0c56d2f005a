// What the model does: the data, accuracy before and after, mistakes, activations, a pad to draw on, and training.
import { useRef } from "preact/hooks";
import { view } from "../state";
import { VIEWS, type View } from "../recipe";
import { ActivationsView } from "./activations_view";
import "./behaviour.css";
import { BehaviourView } from "./behaviour_view";
import { DrawView } from "./draw_view";
import { TrainView } from "./train_view";
import { tb } from "./words";

export { DataStrip } from "./data_strip";
export { Headline } from "./headline";

const PARTS = { mistakes: BehaviourView, activations: ActivationsView, draw: DrawView, train: TrainView };

/** What the tabs in the middle of the page show, but for the layer. */
export function Panel({ of }: { of: Exclude<View, "layer"> }) {
  const Part = PARTS[of];
  return <Part />;
}

/** The tabs above that; the page has their panel. */
export function Tabs() {
  const list = useRef<HTMLDivElement>(null);
  const now = view.value;
  const go = (to: View): void => {
    view.value = to;
    list.current?.querySelector<HTMLElement>(`[data-view=${to}]`)?.focus();
  };
  const move = (event: KeyboardEvent): void => {
    const at = VIEWS.indexOf(now);
    const to: Record<string, number> = {
      ArrowRight: (at + 1) % VIEWS.length,
      ArrowLeft: (at + VIEWS.length - 1) % VIEWS.length,
      Home: 0,
      End: VIEWS.length - 1,
    };
    if (!(event.key in to)) return;
    event.preventDefault();
    go(VIEWS[to[event.key]]);
  };
  return (
    <div class="tabs" role="tablist" aria-label={tb("tabs")} ref={list} onKeyDown={move}>
      {VIEWS.map((name) => (
        <button
          key={name}
          type="button"
          role="tab"
          id={`tab-${name}`}
          data-view={name}
          aria-selected={name === now}
          aria-controls="middle-panel"
          tabIndex={name === now ? 0 : -1}
          onClick={() => (view.value = name)}
        >
          {tb(`tab.${name}`)}
        </button>
      ))}
    </div>
  );
}
