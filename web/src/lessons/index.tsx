// The lessons' panel: a list, one lesson at a time, previous and next. A lesson asks first and shows after the guess.
import { signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { say, type Words } from "../language";
import { backprop } from "./backprop";
import { behaviour } from "./behaviour";
import { bits } from "./bits";
import { clusters } from "./clusters";
import { descent } from "./descent";
import { entropy } from "./entropy";
import { finetune } from "./finetune";
import { granularity } from "./granularity";
import { huffman } from "./huffman";
import "./lessons.css";
import { magnitude } from "./magnitude";
import { nib } from "./nib";
import { overfitting } from "./overfitting";
import { Rich, type Lesson } from "./parts";
import { patterns } from "./patterns";
import { range } from "./range";
import { rans } from "./rans";
import { rateDistortion } from "./rate_distortion";
import { rounding } from "./rounding";
import { sqnr } from "./sqnr";
import { stochastic } from "./stochastic";
import { symmetric } from "./symmetric";

const kLessons: Lesson[] = [
  rounding,
  bits,
  symmetric,
  granularity,
  range,
  stochastic,
  magnitude,
  patterns,
  sqnr,
  behaviour,
  clusters,
  huffman,
  entropy,
  rans,
  rateDistortion,
  nib,
  descent,
  backprop,
  finetune,
  overfitting,
];

/** Recipe or report name to the lesson that explains it. */
export const lessonFor: Record<string, string> = {
  sparsity: "magnitude",
  threshold: "magnitude",
  scope: "magnitude",
  criterion: "magnitude",
  pattern: "patterns",
  bits: "bits",
  symmetric: "symmetric",
  granularity: "granularity",
  group_size: "granularity",
  range: "range",
  percentile: "range",
  sigmas: "range",
  rounding: "stochastic",
  seed: "stochastic",
  sqnr_db: "sqnr",
  mse: "sqnr",
  max_abs_error: "sqnr",
  cosine: "sqnr",
  accuracy: "behaviour",
  activation_error: "behaviour",
  cluster: "clusters",
  cluster_bits: "clusters",
  initial: "clusters",
  huffman: "huffman",
  coder: "entropy",
  entropy: "entropy",
  byte_meter: "entropy",
  cabac: "entropy",
  rans: "rans",
  lambda: "rate-distortion",
  importance: "rate-distortion",
  encode: "nib",
  nib: "nib",
  learning_rate: "descent",
  optimizer: "descent",
  schedule: "descent",
  batch: "backprop",
  train: "finetune",
  keep_masks: "finetune",
  epochs: "overfitting",
  split: "overfitting",
};

/** The lesson last looked at, for opening the panel without a wish. */
let last = "rounding";
/** Lesson to the option the learner picked; -1 for "show me". Kept while the page lives. */
const guesses = signal<Record<string, number>>({});
/** Lessons whose task is done. */
const finished = signal<string[]>([]);

const finish = (id: string) => {
  if (!finished.value.includes(id)) finished.value = [...finished.value, id];
};

const kText = {
  title: { en: "Lessons", zh: "小课堂" },
  subtitle: {
    en: "Twenty ideas, two minutes each. Guess first, then try.",
    zh: "二十个知识点，每个两分钟。先猜，再动手。",
  },
  close: { en: "Close", zh: "关闭" },
  guess: { en: "Guess first", zh: "先猜一猜" },
  skip: { en: "Just show me", zh: "直接看" },
  task: { en: "Your turn", zh: "轮到您了" },
  done: { en: "Done", zh: "完成" },
  points: { en: "What to remember", zh: "要点" },
  formula: { en: "The formula", zh: "公式" },
  tryIt: { en: "Try it in Nibble", zh: "在 Nibble 里试试" },
  go: { en: "Close and try", zh: "关闭并去试" },
  source: { en: "Source: ", zh: "出处：" },
  previous: { en: "Previous", zh: "上一课" },
  next: { en: "Next: ", zh: "下一课：" },
  right: { en: "Right.", zh: "猜对了。" },
  wrong: { en: "Not quite.", zh: "不太对。" },
} satisfies Record<string, Words>;

function Question({ lesson }: { lesson: Lesson }) {
  const guess = guesses.value[lesson.id];
  const pick = (option: number) => (guesses.value = { ...guesses.value, [lesson.id]: option });
  const shown = guess === undefined ? -1 : guess;
  return (
    <section class="ln-question" aria-label={say(kText.guess)}>
      <p class="ln-ask">{say(lesson.ask)}</p>
      <div class="ln-options" role="group">
        {lesson.options.map((words, i) => (
          <button
            key={i}
            type="button"
            aria-pressed={guess === i}
            class={guess !== undefined && i === lesson.answer ? "ln-answer" : guess === i ? "ln-miss" : undefined}
            onClick={() => pick(i)}
          >
            {say(words)}
          </button>
        ))}
        {guess === undefined && (
          <button type="button" class="ln-skip" onClick={() => pick(-1)}>
            {say(kText.skip)}
          </button>
        )}
      </div>
      <p class="ln-reply" role="status">
        {guess !== undefined && (
          <>
            {shown >= 0 && <strong>{say(shown === lesson.answer ? kText.right : kText.wrong)} </strong>}
            <Rich text={say((lesson.replies[shown] ?? lesson.replies[lesson.answer])!)} />
          </>
        )}
      </p>
    </section>
  );
}

function Body({ lesson, onClose }: { lesson: Lesson; onClose: () => void }) {
  const { Widget } = lesson;
  const done = finished.value.includes(lesson.id);
  return (
    <>
      <p class={done ? "ln-task ln-done" : "ln-task"} role="status">
        <strong>{done ? `✓ ${say(kText.done)}` : say(kText.task)}</strong> {say(lesson.task)}
      </p>
      <div class="ln-widget">
        <Widget done={() => finish(lesson.id)} />
      </div>
      <h4>{say(kText.points)}</h4>
      <ul>
        {lesson.points.map((words) => (
          <li key={words.en}>
            <Rich text={say(words)} />
          </li>
        ))}
      </ul>
      <h4>{say(kText.formula)}</h4>
      <div class="ln-formula">
        {lesson.formula.map((text) => (
          <div key={text}>
            <Rich text={text} />
          </div>
        ))}
      </div>
      <dl class="ln-symbols">
        {lesson.symbols.map(([symbol, words]) => (
          <div key={symbol}>
            <dt>{symbol}</dt>
            <dd>
              <Rich text={say(words)} />
            </dd>
          </div>
        ))}
      </dl>
      <div class="ln-try">
        <h4>{say(kText.tryIt)}</h4>
        <p>
          <Rich text={say(lesson.tryIt)} />
        </p>
        <button type="button" onClick={onClose}>
          {say(kText.go)}
        </button>
      </div>
      <p class="ln-source">
        {say(kText.source)}
        {lesson.source}
      </p>
    </>
  );
}

/** The whole panel. `initial` is a lesson's id; without it the lesson last looked at is shown again. Focus on opening is
 *  the dialog's business; moving to another lesson puts the focus on its title. */
export function Lessons(props: { onClose(): void; initial?: string }) {
  const title = useRef<HTMLHeadingElement>(null);
  const moved = useRef(false);
  const wanted = kLessons.find(({ id }) => id === props.initial)?.id ?? last;
  const current = useSignal(wanted);
  useEffect(() => {
    current.value = last = wanted;
  }, [props.initial]);
  const at = Math.max(
    0,
    kLessons.findIndex(({ id }) => id === current.value),
  );
  const lesson = kLessons[at]!;
  useEffect(() => {
    if (!moved.current) return;
    moved.current = false;
    title.current?.focus({ preventScroll: true });
    title.current?.scrollIntoView({ block: "nearest" });
  }, [lesson.id]);
  const show = (id: string) => {
    moved.current = id !== current.value;
    current.value = id;
    last = id;
  };
  const previous = kLessons[at - 1];
  const next = kLessons[at + 1];

  return (
    <div class="lessons">
      <header class="ln-head">
        <div>
          <h2>{say(kText.title)}</h2>
          <p>{say(kText.subtitle)}</p>
        </div>
        <button type="button" class="ln-close" aria-label={say(kText.close)} onClick={props.onClose}>
          ×
        </button>
      </header>
      <div class="ln-columns">
        <nav class="ln-list" aria-label={say(kText.title)}>
          <ol>
            {kLessons.map(({ id, title: words }, i) => {
              const done = finished.value.includes(id);
              return (
                <li key={id}>
                  <button
                    type="button"
                    aria-current={id === lesson.id ? "page" : undefined}
                    aria-label={`${i + 1}. ${say(words)}${done ? ` (${say(kText.done)})` : ""}`}
                    onClick={() => show(id)}
                  >
                    <span class={done ? "ln-number ln-done" : "ln-number"}>{done ? "✓" : i + 1}</span>
                    <span class="ln-name">{say(words)}</span>
                  </button>
                </li>
              );
            })}
          </ol>
        </nav>
        <article class="ln-lesson" key={lesson.id}>
          <h3 ref={title} tabIndex={-1}>
            {say(lesson.title)}
          </h3>
          <Question lesson={lesson} />
          {guesses.value[lesson.id] !== undefined && <Body lesson={lesson} onClose={props.onClose} />}
          <footer class="ln-foot">
            {previous && (
              <button type="button" onClick={() => show(previous.id)}>
                ← {say(kText.previous)}
              </button>
            )}
            {next && (
              <button type="button" class="ln-next" onClick={() => show(next.id)}>
                {say(kText.next)}
                {say(next.title)} →
              </button>
            )}
          </footer>
        </article>
      </div>
    </div>
  );
}
