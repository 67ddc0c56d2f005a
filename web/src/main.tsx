// Starts the page: shows it, loads the engine and the model that the address names, and listens to what is dropped,
// pasted and changed.
import { effect } from "@preact/signals";
import { render } from "preact";
import * as actions from "./actions";
import { fetchBehaviour } from "./behaviour_link";
import { bytes } from "./format";
import { language } from "./language";
import { fetchLessons } from "./lesson_link";
import { dark, dragging, opened, shown, systemDark, theme, work } from "./state";
import "./style/tokens.css";
import "./style/page.css";
import { t } from "./words";
import { App } from "./views/app";

const THEME_KEY = "nibble-theme";
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
systemDark.value = prefersDark.matches;
prefersDark.addEventListener("change", ({ matches }) => (systemDark.value = matches));
try {
  const kept = localStorage.getItem(THEME_KEY);
  if (kept === "light" || kept === "dark") theme.value = kept;
} catch {
  // Storage is switched off: the choice lasts as long as the page.
}
effect(() => {
  document.documentElement.dataset.theme = dark.value ? "dark" : "light";
  try {
    localStorage.setItem(THEME_KEY, theme.value);
  } catch {
    // As above.
  }
});
// On their own: writing an attribute of the root restyles the whole page, also where it stays the same.
effect(() => {
  document.documentElement.lang = language.value;
});
effect(() => {
  const file = shown.value?.report.file;
  document.title = file
    ? `${work.value ? "⏳ " : ""}${bytes(file.after)} · ${opened.value?.file} · Nibble`
    : `Nibble: ${t("tagline")}`;
});

actions.warmUp();
const opening = actions.goTo(location.hash);
render(<App />, document.getElementById("app")!);

// The address follows the page, a little later: browsers refuse more than about a hundred changes in half a minute.
let written = location.hash;
void opening.then(() => {
  let timer: ReturnType<typeof setTimeout> | undefined;
  effect(() => {
    const hash = actions.currentHash();
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (hash === location.hash) return;
      written = hash;
      history.replaceState(null, "", hash);
    }, 300);
  });
  void fetchBehaviour();
  // Without lessons the page has no buttons for them.
  (window.requestIdleCallback ?? setTimeout)(() => void fetchLessons().catch(() => {}));
});
addEventListener("hashchange", () => {
  if (location.hash !== written) void actions.goTo(location.hash);
});

// --- Drop and paste, anywhere ----------------------------------------------------------------------------------------

let depth = 0; // dragenter and dragleave come for every element on the way
const carriesFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
addEventListener("dragenter", (event) => {
  if (carriesFiles(event)) dragging.value = ++depth > 0;
});
addEventListener("dragleave", (event) => {
  if (carriesFiles(event)) dragging.value = --depth > 0;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  dragging.value = false;
  void actions.openDropped(event.dataTransfer);
});
addEventListener("paste", (event) => {
  const typing = event.target instanceof HTMLInputElement && event.target.type === "number";
  const files = [...(event.clipboardData?.files ?? [])];
  const text = event.clipboardData?.getData("text/plain").trim() ?? "";
  if (files.length > 0) void actions.openFiles(files);
  else if (!typing && text.startsWith("{")) void actions.loadRecipe(text);
});
