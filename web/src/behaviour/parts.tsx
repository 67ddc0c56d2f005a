// Small parts that several views of this folder share.
import { useLayoutEffect, useRef } from "preact/hooks";
import { pictureShape, pixelsOf } from "../charts/picture";
import type { DataInfo } from "nibble-nn";
import { InfoIcon, WarnIcon } from "../views/icons";
import { t } from "../words";
import { cannotRun, data, trouble } from "./state";
import { tb } from "./words";

/** The name of a class. */
export const className = (label: number): string => data.value?.info.class_names[label] ?? String(label);

/** A sample as a small picture; nothing where it is none. */
export function Picture(props: { values: Uint8Array | Float32Array; info: DataInfo; size: number; label?: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { values, info, size, label } = props;
  const found = pictureShape(info);
  useLayoutEffect(() => {
    const pixels = pixelsOf(values, info);
    if (!found || !pixels || !canvas.current) return;
    const [rows, columns] = found;
    canvas.current.getContext("2d")!.putImageData(new ImageData(pixels, columns, rows), 0, 0);
  }, [values, info]);
  if (!found) return null;
  const named = label ? { role: "img" as const, "aria-label": label } : { "aria-hidden": true };
  return (
    <canvas
      ref={canvas}
      class="picture"
      {...named}
      width={found[1]}
      height={found[0]}
      style={{ width: `${size}px`, height: `${(size * found[0]) / found[1]}px` }}
    />
  );
}

/** Why there is nothing to see here yet; null where there is. */
export function Missing({ needsData = true }: { needsData?: boolean }) {
  if (cannotRun.value) {
    return (
      <section class="card empty">
        <WarnIcon />
        <p>
          {tb("cannotRun")} <span lang="en">{cannotRun.value}</span>
        </p>
      </section>
    );
  }
  if (needsData && !data.value) {
    return (
      <section class="card empty">
        <InfoIcon />
        <p>{tb("needData")}</p>
      </section>
    );
  }
  return null;
}

/** What went wrong when the model was run; the rest of the page is not concerned. */
export function Problem() {
  const now = trouble.value;
  return (
    <div role="alert">
      {now && (
        <section class="card empty problem">
          <WarnIcon />
          <p>
            {t(`trouble.${now.code}`)}{" "}
            <span class="hint" lang="en">
              {now.where && `${now.where}: `}
              {now.detail}
            </span>
          </p>
        </section>
      )}
    </div>
  );
}
