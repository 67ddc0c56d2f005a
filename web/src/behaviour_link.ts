// The way to what the model does: data, accuracy, mistakes, activations, drawing, training. It is a chunk of its own, so
// that the page's first picture does not wait for it.
import { signal } from "@preact/signals";
import type { ComponentType } from "preact";
import { noBehaviour } from "./actions";
import type { Words } from "./language";
import type { View } from "./recipe";

interface BehaviourModule {
  /** What the data are, above the frame. */
  DataStrip: ComponentType;
  /** Accuracy beside the size. */
  Headline: ComponentType;
  /** The tabs in the middle of the page, of which the first is the layer. */
  Tabs: ComponentType;
  /** What the others show. */
  Panel: ComponentType<{ of: Exclude<View, "layer"> }>;
}

/** The module, once it is here. */
export const behaviour = signal<BehaviourModule | null>(null);

/** What is said where it could not be had: its own words are in the chunk. */
export const LOST: Words = {
  en: "The part of the page for data, accuracy and training could not be loaded. Reload the page to try again.",
  zh: "页面中用于数据、准确率与训练的部分无法加载。请重新加载页面再试。",
};

export async function fetchBehaviour(): Promise<void> {
  behaviour.value = await import("./behaviour/index").catch(noBehaviour);
}
