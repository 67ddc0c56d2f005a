// A pad to draw a digit on, and what the model says of it, before and after, while it is drawn.
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { DataInfo } from "nibble-nn";
import { percent } from "../format";
import { shown } from "../state";
import { InfoIcon } from "../views/icons";
import { takeSample } from "./actions";
import { asMnist } from "./digit";
import { className, Missing, Picture, Problem } from "./parts";
import { data, drawn, guess, samplesAreDigits, SIDE, takesDigits } from "./state";
import { tb } from "./words";

export function DrawView() {
  const missing = Missing({ needsData: false });
  if (missing) return missing;
  if (!takesDigits.value) {
    return (
      <section class="card empty">
        <InfoIcon />
        <p>{tb("notDigits")}</p>
      </section>
    );
  }
  return (
    <div class="layer-view">
      <Problem />
      <div class="pair draw">
        <Pad />
        <Guesses />
      </div>
    </div>
  );
}

const PAD = 280; // pixels of the drawing
const PEN = 22;

function Pad() {
  const canvas = useRef<HTMLCanvasElement>(null);
  /** The picture that this pad has put into `drawn` last; another one came from elsewhere and is shown instead. */
  const own = useRef<Uint8Array | null>(null);
  const last = useRef<[number, number] | null>(null);
  const frame = useRef(0);
  const pencil = (): CanvasRenderingContext2D => canvas.current!.getContext("2d", { willReadFrequently: true })!;

  const read = (): void => {
    frame.current = 0;
    if (!canvas.current) return;
    const { data: pixels } = pencil().getImageData(0, 0, PAD, PAD);
    const values = new Uint8Array(PAD * PAD);
    for (let i = 0; i < values.length; i++) values[i] = pixels[i * 4];
    drawn.value = own.current = asMnist({ width: PAD, height: PAD, values });
  };
  const clear = (): void => {
    const context = pencil();
    context.fillStyle = "#000";
    context.fillRect(0, 0, PAD, PAD);
  };
  const stroke = (event: PointerEvent): void => {
    const box = canvas.current!.getBoundingClientRect();
    const [x, y] = [((event.clientX - box.left) * PAD) / box.width, ((event.clientY - box.top) * PAD) / box.height];
    const context = pencil();
    context.strokeStyle = "#fff";
    context.lineWidth = PEN;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(...(last.current ?? [x, y]));
    context.lineTo(x, y);
    context.stroke();
    last.current = [x, y];
    frame.current ||= requestAnimationFrame(read);
  };

  // A picture from elsewhere, or the one that was drawn before the tab was left.
  const picture = drawn.value;
  useLayoutEffect(() => {
    if (picture && picture === own.current) return;
    clear();
    if (!picture) return;
    const small = document.createElement("canvas");
    small.width = small.height = SIDE;
    const image = new ImageData(SIDE, SIDE);
    picture.forEach((value, i) => image.data.set([value, value, value, 255], i * 4));
    small.getContext("2d")!.putImageData(image, 0, 0);
    pencil().drawImage(small, 0, 0, PAD, PAD);
  }, [picture]);
  useEffect(() => () => cancelAnimationFrame(frame.current), []);

  return (
    <section class="card" aria-label={tb("draw")}>
      <h3>{tb("draw")}</h3>
      <canvas
        ref={canvas}
        class="pad"
        width={PAD}
        height={PAD}
        role="img"
        aria-label={tb("pad")}
        data-testid="pad"
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          // What is drawn on top of a sample would be seen twice as thick: a new digit begins.
          if (drawn.value && drawn.value !== own.current) clear();
          last.current = null;
          stroke(event);
        }}
        onPointerMove={(event) => event.buttons & 1 && stroke(event)}
        onPointerUp={() => (last.current = null)}
      />
      <div class="buttons">
        <button
          type="button"
          onClick={() => {
            clear();
            drawn.value = own.current = null;
          }}
        >
          {tb("clear")}
        </button>
        {data.value && (
          <button type="button" disabled={!samplesAreDigits.value} onClick={() => void takeSample()}>
            {tb("takeSample")}
          </button>
        )}
      </div>
      {data.value && !samplesAreDigits.value && <p class="hint">{tb("samplesNotDigits")}</p>}
      <p class="hint">{tb("drawHint")}</p>
    </section>
  );
}

const PICTURE: Pick<DataInfo, "shape" | "layout" | "dtype"> = { shape: [SIDE, SIDE], layout: "hw", dtype: "uint8" };

const best = (values: Float32Array): number => values.reduce((at, value, i) => (value > values[at] ? i : at), 0);

function Guesses() {
  const now = drawn.value && guess.value;
  const picture = drawn.value;
  return (
    <section
      class="card guesses"
      aria-label={tb("guesses")}
      aria-busy={!!now && (now.picture !== picture || now.shown !== shown.value)}
      data-testid="guesses"
    >
      <div class="guesses-head">
        <h3>{tb("guesses")}</h3>
        <span class="key before">{tb("before")}</span>
        <span class="key after">{tb("after")}</span>
      </div>
      {picture && (
        <p class="as-seen">
          <Picture values={picture} info={PICTURE as DataInfo} size={56} label={tb("asSeen")} />
          <span class="hint">{tb("asSeen")}</span>
        </p>
      )}
      {now ? (
        <>
          <p class="sr" role="status">
            {tb("guessesSummary", {
              before: className(best(now.before)),
              beforeShare: percent(now.before[best(now.before)]),
              after: className(best(now.after)),
              afterShare: percent(now.after[best(now.after)]),
            })}
          </p>
          <table class="class-bars">
            <thead class="sr">
              <tr>
                <th scope="col">{tb("class")}</th>
                <th scope="col">{tb("before")}</th>
                <th scope="col">{tb("after")}</th>
              </tr>
            </thead>
            <tbody>
              {Array.from(now.after, (after, label) => (
                <tr key={label} class={label === best(now.after) ? "best" : ""}>
                  <th scope="row">{className(label)}</th>
                  {([now.before[label], after] as const).map((value, i) => (
                    <td key={i}>
                      <span
                        class={`bar ${i === 0 ? "before" : "after"}`}
                        style={{ width: `${value * 100}%` }}
                        aria-hidden="true"
                      />
                      <span class="number">{percent(value)}</span>
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
          <p class="hint">{tb("guessesHint")}</p>
        </>
      ) : (
        <p class="hint">{tb("drawFirst")}</p>
      )}
    </section>
  );
}
