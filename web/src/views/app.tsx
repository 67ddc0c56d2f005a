// The whole page: header, welcome, layers, the selected layer, and the recipe with its result.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import * as actions from "../actions";
import { behaviour, LOST } from "../behaviour_link";
import { bytes, count, percent, seconds } from "../format";
import { language } from "../language";
import { lessons } from "../lesson_link";
import { OFFERED, SAMPLES } from "../samples";
import {
  behaviourLost,
  dragging,
  lesson,
  opened,
  said,
  starting,
  theme,
  trouble,
  view,
  welcomed,
  work,
} from "../state";
import { filled, t } from "../words";
import { TotalMeter } from "./byte_meter";
import { IconButton } from "./controls";
import { AutoIcon, BookIcon, CloseIcon, FolderIcon, Logo, MoonIcon, SunIcon, WarnIcon } from "./icons";
import { LayerTable } from "./layer_table";
import { LayerView } from "./layer_view";
import { RecipePanel } from "./recipe_panel";
import { Notes, Result, TotalBytes } from "./result";

export function App() {
  const part = behaviour.value;
  return (
    <>
      <a
        class="skip"
        href="#recipe"
        onClick={(event) => (event.preventDefault(), document.getElementById("recipe")?.focus())}
      >
        {t("skip")}
      </a>
      <Header />
      <Working />
      <TroubleBanner />
      <main>
        <Welcome />
        {(opened.value || starting.value || behaviourLost.value !== null) &&
          (part ? (
            <part.DataStrip />
          ) : (
            <div class="card data-strip" role="alert">
              <Lost />
            </div>
          ))}
        {opened.value ? (
          <div class="frame">
            <div class="left">
              <LayerTable />
              <TotalBytes />
              <TotalMeter />
              <Notes />
            </div>
            <div class="middle">
              {part ? <part.Tabs /> : <div class="tabs" />}
              {/* One place for the layer with and without tabs: what was opened in it stays open when they come. */}
              <div
                id="middle-panel"
                role={part ? "tabpanel" : undefined}
                aria-labelledby={part ? `tab-${view.value}` : undefined}
              >
                {view.value === "layer" ? (
                  <LayerView />
                ) : part ? (
                  <part.Panel of={view.value} />
                ) : behaviourLost.value !== null ? (
                  <div class="card">
                    <Lost />
                  </div>
                ) : (
                  <div class="card skeleton tall" />
                )}
              </div>
            </div>
            <aside class="right">
              <Result />
              <RecipePanel />
            </aside>
          </div>
        ) : (
          starting.value && <Skeleton />
        )}
      </main>
      <Said />
      {dragging.value && (
        <div class="drop-veil" aria-hidden="true">
          <div>
            <strong>{t("dropHere")}</strong>
            <span>{t("dropHint")}</span>
          </div>
        </div>
      )}
      <LessonDrawer />
    </>
  );
}

/** Why there are no data and no tabs, where they could not be loaded. */
function Lost() {
  const why = behaviourLost.value;
  return (
    why !== null && (
      <div class="empty">
        <WarnIcon />
        <p>
          {filled(LOST)}{" "}
          <span class="hint" lang="en">
            {why}
          </span>
        </p>
      </div>
    )
  );
}

/** The frame before there is anything to put in it, so that nothing jumps when there is. */
function Skeleton() {
  return (
    <div class="frame" role="status" aria-label={t("starting")}>
      <div class="left">
        <div class="card skeleton tall" />
      </div>
      <div class="middle">
        <div class="card skeleton tall" />
      </div>
      <aside class="right">
        <div class="card skeleton" />
        <div class="card skeleton tall" />
      </aside>
    </div>
  );
}

function FilePicker({ class: className, children }: { class: string; children: ComponentChildren }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <button type="button" class={className} onClick={() => input.current?.click()}>
        {children}
      </button>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        onChange={(event) => {
          const files = [...(event.currentTarget.files ?? [])];
          event.currentTarget.value = ""; // so that the same file can be picked again
          void actions.openFiles(files);
        }}
      />
    </>
  );
}

function Header() {
  const now = opened.value;
  const themes = ["auto", "light", "dark"] as const;
  const next = themes[(themes.indexOf(theme.value) + 1) % themes.length];
  const themeName = { auto: t("themeAuto"), light: t("themeLight"), dark: t("themeDark") }[theme.value];
  return (
    <header class="top">
      <h1>
        <Logo />
        Nibble
      </h1>
      {now ? (
        <p class="file">
          <strong title={now.file}>{now.file}</strong>
          <span class="hint">
            {now.info.format === "onnx" && now.info.opset !== null
              ? t("modelFacts", {
                  opset: now.info.opset,
                  nodes: count(now.info.nodes),
                  parameters: count(now.info.parameters),
                })
              : t("tensorFacts", { parameters: count(now.info.parameters) })}
          </span>
        </p>
      ) : (
        <p class="file hint">{t("tagline")}</p>
      )}
      <nav>
        <FilePicker class="quiet open-button">
          <FolderIcon />
          <span class="wide-only">{t("open")}</span>
          <span class="sr narrow-only">{t("open")}</span>
        </FilePicker>
        {lessons.value && (
          <button type="button" class="quiet" onClick={() => (lesson.value = "")}>
            <BookIcon />
            <span class="wide-only">{t("lessons")}</span>
            <span class="sr narrow-only">{t("lessons")}</span>
          </button>
        )}
        <button
          type="button"
          class="quiet"
          lang={language.value === "en" ? "zh" : "en"}
          title={t("switchLanguageHint")}
          onClick={() => (language.value = language.value === "en" ? "zh" : "en")}
        >
          {t("switchLanguage")}
        </button>
        <IconButton label={`${t("theme")}: ${themeName}`} onClick={() => (theme.value = next)}>
          {theme.value === "auto" ? <AutoIcon /> : theme.value === "light" ? <SunIcon /> : <MoonIcon />}
        </IconButton>
      </nav>
    </header>
  );
}

function Welcome() {
  const now = opened.value;
  if (now && welcomed.value) return null;
  return (
    <section class={`welcome ${now || starting.value ? "" : "alone"}`} aria-label={t("welcomeTitle")}>
      <div class="welcome-text">
        <h2>{t("welcomeTitle")}</h2>
        <p>{t("welcomeText")}</p>
      </div>
      <div class="welcome-ways">
        <FilePicker class="primary">
          <FolderIcon />
          {t("pick")}
        </FilePicker>
        <div class="samples" role="group" aria-label={t("orSample")}>
          <span class="hint">{t("orSample")}</span>
          {SAMPLES.slice(0, OFFERED).map((sample) => (
            <button
              key={sample.id}
              type="button"
              aria-current={now?.sample === sample.id ? "true" : undefined}
              onClick={() => void actions.openSample(sample.id)}
            >
              <strong>{sample.name}</strong>
              <span class="hint">
                {bytes(sample.bytes)} · {sample.about[language.value]}
              </span>
            </button>
          ))}
          <select
            aria-label={t("moreSamples")}
            data-control="sample_model"
            // It offers what is not open: the label stays where nothing of it is.
            value={SAMPLES.slice(OFFERED).some(({ id }) => id === now?.sample) ? now!.sample! : ""}
            onChange={(event) => void actions.openSample(event.currentTarget.value)}
          >
            <option value="" disabled>
              {t("moreSamples")}
            </option>
            {SAMPLES.slice(OFFERED).map((sample) => (
              <option key={sample.id} value={sample.id}>
                {sample.name} · {bytes(sample.bytes)} · {sample.about[language.value]}
              </option>
            ))}
          </select>
        </div>
      </div>
      {now && (
        <IconButton label={t("close")} onClick={() => (welcomed.value = true)}>
          <CloseIcon />
        </IconButton>
      )}
    </section>
  );
}

function Working() {
  const now = work.value;
  return (
    <div class={`working ${now ? "" : "hidden"}`} role="status" aria-live="polite">
      {now && (
        <>
          <div class={`working-bar ${now.phase ? "" : "unknown"}`} style={{ "--fraction": now.fraction }} />
          <p>
            <strong>{t(`task.${now.task}`)}</strong>
            {now.phase && (
              <>
                <span class="hint">
                  {t(`phase.${now.phase}`)} {now.item}
                </span>
                <span class="hint tabular">
                  {percent(now.fraction)}
                  {now.fraction > 0.05 &&
                    now.seconds > 1 &&
                    ` · ${t("left", { time: seconds((now.seconds * (1 - now.fraction)) / now.fraction) })}`}
                </span>
              </>
            )}
          </p>
          <button type="button" onClick={actions.cancel}>
            {t("cancel")}
          </button>
        </>
      )}
    </div>
  );
}

function TroubleBanner() {
  const now = trouble.value;
  return (
    <div role="alert">
      {now && (
        <div class="trouble">
          <WarnIcon />
          <div>
            <p>
              <strong>{t(`trouble.${now.code}`)}</strong> {t(`way.${now.code}`)}
            </p>
            <p class="hint" lang="en">
              {[...new Set([now.file, now.where].filter(Boolean))].map((place) => `${place}: `)}
              {now.detail}
            </p>
          </div>
          <IconButton label={t("dismiss")} onClick={() => (trouble.value = null)}>
            <CloseIcon />
          </IconButton>
        </div>
      )}
    </div>
  );
}

const SAID_FOR = 4000; // ms

function Said() {
  const now = said.value;
  useEffect(() => {
    if (!now) return;
    const timer = setTimeout(() => (said.value = null), SAID_FOR);
    return () => clearTimeout(timer);
  }, [now]);
  return (
    <div class="said" role="status">
      {now && (
        <p>
          <strong>{t(now.key, { text: now.text ?? "" })}</strong>
          {(now.key === "copiedCommand" || now.key === "copiedLink") && <code>{now.text}</code>}
        </p>
      )}
    </div>
  );
}

/** A modal dialog of the browser: it keeps the focus inside, closes with Escape and gives the focus back. */
function LessonDrawer() {
  const dialog = useRef<HTMLDialogElement>(null);
  const now = lesson.value;
  const module = lessons.value;
  const open = now !== null && module !== null;
  useEffect(() => {
    if (open) dialog.current?.showModal();
  }, [open]);
  if (!open) return null;
  const close = (): void => dialog.current?.close();
  return (
    <dialog
      ref={dialog}
      class="drawer"
      aria-label={t("lessons")}
      onClose={() => (lesson.value = null)}
      // A click beside the drawer hits the dialog itself.
      onClick={(event) => event.target === dialog.current && close()}
    >
      <div class="drawer-body">
        <module.Lessons initial={now || undefined} onClose={close} />
      </div>
    </dialog>
  );
}
