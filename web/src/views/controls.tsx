// The small form parts of the recipe: sliders, choices, switches, each a native input with its own lesson button.
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { lessonOf } from "../lesson_link";
import { lesson } from "../state";
import { t } from "../words";

/** Opens the lesson about a control; nothing where there is none. */
export function LessonButton({ control, what }: { control: string; what: string }) {
  const id = lessonOf(control);
  if (!id) return null;
  return (
    <button
      type="button"
      class="help"
      aria-label={t("lessonAbout", { what })}
      title={t("lessonAbout", { what })}
      onClick={() => (lesson.value = id)}
    >
      ?
    </button>
  );
}

interface SliderProps {
  /** The recipe's own name for the field. */
  control: string;
  label: string;
  value: number;
  /** What stands beside the label, and what is read out. */
  text: string;
  spoken: string;
  min: number;
  max: number;
  step: number;
  /** Numbers under the track, evenly spaced. */
  marks?: (string | number)[];
  onValue(value: number): void;
}

export function Slider({ control, label, value, text, spoken, min, max, step, marks, onValue }: SliderProps) {
  const id = useId();
  return (
    <div class="field">
      <div class="field-head">
        <label for={id}>{label}</label>
        <LessonButton control={control} what={label} />
        <output for={id}>{text}</output>
      </div>
      <input
        id={id}
        type="range"
        data-control={control}
        min={min}
        max={max}
        step={step}
        value={value}
        aria-valuetext={spoken}
        style={{ "--fill": `${((value - min) / (max - min || 1)) * 100}%` }}
        onInput={(event) => onValue(event.currentTarget.valueAsNumber)}
      />
      {marks && (
        <div class="marks" aria-hidden="true">
          {marks.map((mark) => (
            <span key={mark}>{mark}</span>
          ))}
        </div>
      )}
    </div>
  );
}

/** A slider over a list of values that are not evenly spaced. */
export function StopsSlider({
  stops,
  value,
  onValue,
  ...rest
}: Omit<SliderProps, "min" | "max" | "step"> & { stops: number[] }) {
  const nearest = stops.reduce(
    (best, stop, i) => (Math.abs(stop - value) < Math.abs(stops[best] - value) ? i : best),
    0,
  );
  return (
    <Slider {...rest} value={nearest} min={0} max={stops.length - 1} step={1} onValue={(i) => onValue(stops[i])} />
  );
}

interface ChoiceProps<T extends string> {
  control: string;
  label: string;
  value: T;
  options: { value: T; label: string }[];
  onValue(value: T): void;
}

export function Choice<T extends string>({ control, label, value, options, onValue }: ChoiceProps<T>) {
  const name = useId();
  return (
    <fieldset class="field" data-control={control}>
      <legend class="field-head">
        <span>{label}</span>
        <LessonButton control={control} what={label} />
      </legend>
      <div class="choice">
        {options.map((option) => (
          <label key={option.value}>
            <input
              type="radio"
              name={name}
              value={option.value}
              checked={option.value === value}
              onChange={() => onValue(option.value)}
            />
            <span>{option.label}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}

export function Switch({ checked, label, onValue }: { checked: boolean; label: string; onValue(on: boolean): void }) {
  return (
    <input
      type="checkbox"
      class="switch"
      role="switch"
      checked={checked}
      aria-label={label}
      onChange={(event) => onValue(event.currentTarget.checked)}
    />
  );
}

export function IconButton({
  label,
  onClick,
  children,
  pressed,
}: {
  label: string;
  onClick(): void;
  children: ComponentChildren;
  pressed?: boolean;
}) {
  return (
    <button type="button" class="icon-button" aria-label={label} title={label} aria-pressed={pressed} onClick={onClick}>
      {children}
    </button>
  );
}
