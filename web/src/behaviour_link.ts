// The way to what the model does: data, accuracy, mistakes, activations, drawing, training. It is a chunk of its own, so
// that the page's first picture does not wait for it.
import { signal } from "@preact/signals";
import type { ComponentChildren, ComponentType } from "preact";

interface BehaviourModule {
  /** What the data are, above the frame. */
  DataStrip: ComponentType;
  /** Accuracy beside the size. */
  Headline: ComponentType;
  /** The middle of the page: tabs, of which the first shows `children`, the selected layer. */
  Middle: ComponentType<{ children: ComponentChildren }>;
}

/** The module, once it is here. */
export const behaviour = signal<BehaviourModule | null>(null);

export async function fetchBehaviour(): Promise<void> {
  behaviour.value = await import("./behaviour/index");
}
