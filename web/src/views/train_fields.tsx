// How a model learns, as a form: of the recipe's step and of the page's own training alike.
import type { TrainChoice } from "nibble-nn";
import { real } from "../format";
import { t, type Key } from "../words";
import { Choice, Slider, StopsSlider } from "./controls";

const EPOCHS = [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100, 200];
const BATCHES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/** The learning rate's slider is logarithmic, from 10^LOW to 10^HIGH. */
const [LOW, HIGH] = [-5, 0];

/** What the engine takes where nothing is said. */
export const defaultRate = ({ optimizer }: TrainChoice): number => (optimizer === "sgd" ? 0.05 : 0.001);

export function ChoiceFields({ choice, set }: { choice: TrainChoice; set(fields: TrainChoice): void }) {
  const { epochs = 5, batch = 64, optimizer = "adam", schedule = "cosine" } = choice;
  const rate = choice.learning_rate ?? defaultRate(choice);
  return (
    <>
      <StopsSlider
        control="epochs"
        label={t("epochs")}
        value={epochs}
        stops={EPOCHS}
        text={String(epochs)}
        spoken={t("epochsValue", { n: epochs })}
        onValue={(n) => set({ epochs: n })}
      />
      <Slider
        control="learning_rate"
        label={t("learning_rate")}
        value={Math.log10(rate)}
        text={real(rate)}
        spoken={real(rate)}
        min={LOW}
        max={HIGH}
        step={0.05}
        onValue={(power) => set({ learning_rate: Number((10 ** power).toPrecision(2)) })}
      />
      <StopsSlider
        control="batch"
        label={t("batch")}
        value={batch}
        stops={BATCHES}
        text={String(batch)}
        spoken={t("batchValue", { n: batch })}
        onValue={(n) => set({ batch: n })}
      />
      <Choice
        control="optimizer"
        label={t("optimizer")}
        value={optimizer}
        options={[
          { value: "sgd", label: "SGD" },
          { value: "adam", label: "Adam" },
          { value: "adamw", label: "AdamW" },
        ]}
        // Each has its own scale of rates: what suits Adam is far too little for plain descent.
        onValue={(value) => set({ optimizer: value, learning_rate: defaultRate({ optimizer: value }) })}
      />
      <Choice
        control="schedule"
        label={t("schedule")}
        value={schedule}
        options={(["constant", "cosine", "step"] as const).map((value) => ({ value, label: t(`schedule.${value}`) }))}
        onValue={(value) => set({ schedule: value })}
      />
      {(["keep_masks", "keep_grids"] as const).map((name) => (
        <label key={name} class="check">
          <input
            type="checkbox"
            data-control={name}
            checked={choice[name] ?? true}
            onChange={(event) => set({ [name]: event.currentTarget.checked })}
          />
          {t(name satisfies Key)}
        </label>
      ))}
    </>
  );
}
