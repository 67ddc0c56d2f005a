// The layers of the model, which is also where the recipe is edited layer by layer.
import { useLayoutEffect, useRef } from "preact/hooks";
import * as actions from "../actions";
import { bytes, decibels, percent, shape } from "../format";
import { ownBits } from "../recipe";
import { inFile, largest, layerOrder, layers, opened, selected, shown, side, type Layer, type Order } from "../state";
import { t } from "../words";
import { LessonButton } from "./controls";

/** A bar that is full at 60 dB: an error of a thousandth. */
const FULL_DB = 60;

/** Lists longer than this can be ordered. */
const MANY = 6;

const ORDERS: Record<Order, (a: Layer, b: Layer) => number> = {
  model: () => 0,
  size: (a, b) => (b.report?.bytes.file ?? b.info.bytes) - (a.report?.bytes.file ?? a.info.bytes),
  sqnr: (a, b) => (a.report?.sqnr_db ?? Infinity) - (b.report?.sqnr_db ?? Infinity) || 0,
};

export function LayerTable() {
  const list = useRef<HTMLTableSectionElement>(null);
  // Only the list itself scrolls: the page stays where it is.
  useLayoutEffect(() => {
    const body = list.current;
    const row = body?.querySelector<HTMLElement>("tr.current");
    if (!body || !row) return;
    const top = row.getBoundingClientRect().top - body.getBoundingClientRect().top;
    if (top < 0) body.scrollTop += top;
    else if (top + row.offsetHeight > body.clientHeight) body.scrollTop += top + row.offsetHeight - body.clientHeight;
  }, [selected.value, layerOrder.value, opened.value, shown.value === null]);
  if (layers.value.length === 0) return null;
  const rows = [...layers.value].sort(ORDERS[layerOrder.value]);
  const total = shown.value?.report.total;
  return (
    <section class="card layers" aria-label={t("layers")}>
      <header>
        <h2>{t("layers")}</h2>
        <p class="hint">{t("layersHint")}</p>
        {rows.length > MANY && (
          <label class="order">
            <span class="hint">{t("order")}</span>
            <select
              value={layerOrder.value}
              onChange={(event) => (layerOrder.value = event.currentTarget.value as Order)}
            >
              {(["model", "size", "sqnr"] as const).map((order) => (
                <option key={order} value={order}>
                  {t(`order.${order}`)}
                </option>
              ))}
            </select>
          </label>
        )}
      </header>
      {/* A grid takes the table's meaning away in some browsers, so the roles are said. */}
      <table role="table">
        <thead class="sr">
          <tr role="row">
            <th scope="col">{t("includeColumn")}</th>
            <th scope="col">{t("layerName")}</th>
            <th scope="col">{t("size")}</th>
            <th scope="col">{t("sqnrLong")}</th>
            <th scope="col">{t("zeros")}</th>
          </tr>
        </thead>
        <tbody role="rowgroup" ref={list}>
          {rows.map((row) => (
            <Row key={row.info.name} row={row} current={row.info.name === selected.value} most={largest.value} />
          ))}
        </tbody>
        {total && rows.length > 1 && (
          <tfoot role="rowgroup">
            <tr role="row">
              <td role="cell" />
              <th role="rowheader" scope="row">
                <b>{t("all")}</b>
              </th>
              <td role="cell" class="size">
                <span class="numbers">
                  <span class="was">{bytes(total.bytes.dense)}</span> <b>{bytes(inFile.value)}</b>
                </span>
              </td>
              <td role="cell" class="sqnr">
                <span class="numbers">{total.sqnr_db === null ? t("exact") : decibels(total.sqnr_db)}</span>
              </td>
              <td role="cell" class="zeros">
                {percent(total.sparsity)} <span class="hint">{t("zerosUnit")}</span>
              </td>
            </tr>
          </tfoot>
        )}
      </table>
      <footer class="layers-legend">
        <span class="key before">{t("before")}</span>
        <span class="key after">{t("after")}</span>
        <span class="key quality">{t("sqnrKey")}</span>
        <LessonButton control="sqnr_db" what={t("sqnrLong")} />
      </footer>
    </section>
  );
}

function Row({ row: { info, report, on }, current, most }: { row: Layer; current: boolean; most: number }) {
  const db = report?.sqnr_db;
  const own = ownBits(side.value, info.name);
  return (
    <tr
      role="row"
      class={`${current ? "current" : ""} ${on ? "" : "left-out"}`}
      onClick={() => actions.select(info.name)}
    >
      <td role="cell">
        <input
          type="checkbox"
          checked={on}
          aria-label={t("includeLayer", { name: info.name })}
          onClick={(event) => event.stopPropagation()}
          onChange={(event) => actions.setLayer(info.name, event.currentTarget.checked)}
        />
      </td>
      <th role="rowheader" scope="row">
        <button
          type="button"
          class="name"
          aria-current={current ? "true" : undefined}
          onClick={() => actions.select(info.name)}
        >
          {info.name}
        </button>
        <span class="hint">
          {own !== null && <b>{t("ownBitsShort", { n: own })} · </b>}
          {t(`kind.${info.kind}`)} {shape(info.shape)}
        </span>
      </th>
      <td role="cell" class="size">
        <span class="numbers">
          <span class="was">{bytes(info.bytes)}</span> <b>{report ? bytes(report.bytes.file) : "…"}</b>
        </span>
      </td>
      <td role="presentation" class="size-bar">
        <span class="bars" aria-hidden="true">
          <span class="bar before" style={{ width: `${(info.bytes / most) * 100}%` }} />
          {report && (
            <span class="bar after" style={{ width: `${(Math.min(report.bytes.file, most) / most) * 100}%` }} />
          )}
        </span>
      </td>
      <td role="cell" class="sqnr">
        <span class="numbers">{db === undefined ? "…" : db === null ? t("exact") : decibels(db)}</span>
      </td>
      <td role="cell" class="zeros">
        {report ? percent(report.after.sparsity) : "…"} <span class="hint">{t("zerosUnit")}</span>
      </td>
      <td role="presentation" class="quality-bar">
        <span class="bars" aria-hidden="true">
          <span
            class={`bar quality ${db === null ? "exact" : ""}`}
            style={{
              width: `${db === undefined ? 0 : db === null ? 100 : Math.max(0, Math.min(100, (db / FULL_DB) * 100))}%`,
            }}
          />
        </span>
      </td>
    </tr>
  );
}
