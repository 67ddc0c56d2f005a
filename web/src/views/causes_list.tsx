// The sentences of causes.ts, as a list.
import type { Cause } from "../causes";
import { InfoIcon, WarnIcon } from "./icons";

export function Causes({ causes }: { causes: Cause[] }) {
  if (causes.length === 0) return null;
  return (
    <ul class="causes">
      {causes.map(({ text, kind }, i) => (
        <li key={i} class={kind}>
          {kind === "cost" ? <WarnIcon /> : <InfoIcon />}
          <span>{text}</span>
        </li>
      ))}
    </ul>
  );
}
