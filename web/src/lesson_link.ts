// The way to the lessons. They are a chunk of their own, fetched when the page has come to rest, so that opening one
// later needs no network.
import { signal } from "@preact/signals";
import type { ComponentType } from "preact";

interface LessonsModule {
  Lessons: ComponentType<{ onClose(): void; initial?: string }>;
  /** Control name to lesson. */
  lessonFor: Record<string, string>;
}

/** The lessons, once they are here. */
export const lessons = signal<LessonsModule | null>(null);

const found = import.meta.glob<LessonsModule>("./lessons/index.tsx");

export async function fetchLessons(): Promise<void> {
  const fetch = found["./lessons/index.tsx"];
  if (fetch) lessons.value = await fetch();
}

/** The lesson about a control of the page, if there is one. */
export const lessonOf = (control: string): string | undefined => lessons.value?.lessonFor[control];
