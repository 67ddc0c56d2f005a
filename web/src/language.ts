// The page's language, English or Chinese; words.ts and the lessons hold the texts.
import { signal } from "@preact/signals";

export type Language = "en" | "zh";

/** One text in both languages. */
export type Words = Record<Language, string>;

/** The language shown now. The browser's own preference until the user picks one. */
export const language = signal<Language>(
  typeof navigator !== "undefined" && navigator.language.startsWith("zh") ? "zh" : "en",
);

/** The text in the language shown now. */
export const say = (words: Words): string => words[language.value];
