// Bytes as bars on one common scale, with the numbers beside them.
import { bytes } from "../format";

export interface ByteRow {
  label: string;
  hint: string;
  bytes: number;
  /** Color: gray for before, accent for after, striped for what is only possible. */
  kind: "before" | "packed" | "after" | "rest";
}

export function ByteBars({ rows }: { rows: ByteRow[] }) {
  const most = Math.max(1, ...rows.map((row) => row.bytes));
  return (
    <dl class="byte-bars">
      {rows.map((row) => (
        <div key={row.label}>
          <dt>
            {row.label} <span class="hint">{row.hint}</span>
          </dt>
          <dd>{bytes(row.bytes)}</dd>
          <span class={`bar ${row.kind}`} style={{ width: `${(row.bytes / most) * 100}%` }} aria-hidden="true" />
        </div>
      ))}
    </dl>
  );
}
