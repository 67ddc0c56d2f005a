// The three charts of a layer: what they draw, say and list, and what the pointer and the arrow keys find on them.
import type { WeightPicture } from "nibble-nn";
import type { ComponentChildren } from "preact";
import { useCallback, useState } from "preact/hooks";
import * as actions from "../actions";
import { channelAt, drawChannelBars } from "../charts/channel_bars";
import { colors } from "../charts/colors";
import { cellAt, drawErrorMap } from "../charts/error_map";
import { binAt, drawHistogram } from "../charts/histogram";
import { count, decibels, percent, real } from "../format";
import { channel, dark, type Layer } from "../state";
import { t } from "../words";
import { Canvas, type Spot } from "./canvas";
import { ChartCard } from "./chart_card";
import { IconButton } from "./controls";
import { LeftIcon, RightIcon } from "./icons";

function Tip({ at, children }: { at: { x: number; y: number; width: number }; children: ComponentChildren }) {
  const right = at.x > at.width / 2;
  return (
    <div class={`tip ${right ? "to-left" : ""}`} style={{ left: `${at.x}px`, top: `${at.y}px` }} role="status">
      {children}
    </div>
  );
}

export function HistogramCard({ current, drawn }: { current: Layer; drawn: WeightPicture }) {
  const [bin, setBin] = useState<{ bin: number; x: number; width: number } | null>(null);
  const { before, after, levels } = drawn;
  const bins = before.counts.length;
  const edge = (i: number): number => before.lo + ((before.hi - before.lo) * i) / bins;
  const draw = useCallback(
    (context: CanvasRenderingContext2D, width: number, height: number) =>
      drawHistogram(context, width, height, drawn, colors(), bin?.bin ?? null),
    [drawn, bin],
  );
  const perChannel = current.report?.granularity === "channel" || current.report?.granularity === "group";
  const point = (spot: Spot | null): void => {
    const at = spot && binAt(spot.x, spot.width, bins);
    setBin(spot && at !== null ? { bin: at!, x: spot.x, width: spot.width } : null);
  };
  const filled = (counts: Uint32Array): number => counts.reduce((sum, value) => sum + (value > 0 ? 1 : 0), 0);
  const last = drawn.channels.mse.length - 1;
  return (
    <ChartCard
      control="histogram"
      about="sqnr_db"
      title={t("histogram")}
      hint={t("histogramHint")}
      table={() => ({
        columns: [t("value"), t("before"), t("after")],
        rows: Array.from({ length: bins }, (_, i) => [
          `${real(edge(i))} … ${real(edge(i + 1))}`,
          count(before.counts[i]),
          count(after.counts[i]),
        ]),
      })}
      legend={
        <>
          <span class="key before">{t("before")}</span>
          <span class="key after">{t("after")}</span>
          {levels.length > 0 &&
            (perChannel && last > 0 ? (
              <span class="channel-picker">
                <IconButton
                  label={t("previousChannel")}
                  onClick={() => actions.selectChannel(channel.value === 0 ? last : channel.value - 1)}
                >
                  <LeftIcon />
                </IconButton>
                <span class="key levels">{t("levelsOf", { n: channel.value })}</span>
                <IconButton
                  label={t("nextChannel")}
                  onClick={() => actions.selectChannel(channel.value >= last ? 0 : channel.value + 1)}
                >
                  <RightIcon />
                </IconButton>
              </span>
            ) : (
              <span class="key levels">{t("levels")}</span>
            ))}
        </>
      }
    >
      <div class="canvas-box">
        <Canvas
          height={250}
          draw={draw}
          label={t("histogramSummary", {
            n: count(current.info.elements),
            low: real(before.lo),
            high: real(before.hi),
            before: filled(before.counts),
            after: filled(after.counts),
          })}
          onPoint={point}
          onMove={(columns) =>
            setBin((old) => {
              const next = Math.max(0, Math.min(bins - 1, (old?.bin ?? bins >> 1) + columns));
              const width = old?.width ?? 600;
              return { bin: next, width, x: ((next + 0.5) / bins) * width };
            })
          }
        />
        {bin && (
          <Tip at={{ x: bin.x, y: 6, width: bin.width }}>
            {real(edge(bin.bin))} … {real(edge(bin.bin + 1))}
            <br />
            {t("before")} {count(before.counts[bin.bin])} · {t("after")} {count(after.counts[bin.bin])}
          </Tip>
        )}
      </div>
    </ChartCard>
  );
}

const WORST = 50; // rows of the table behind the error map

export function ErrorMapCard({ current, drawn }: { current: Layer; drawn: WeightPicture }) {
  const [cell, setCell] = useState<{ at: [number, number]; width: number } | null>(null);
  const map = drawn.error_map;
  const isDark = dark.value;
  const deviation = current.info.statistics.std;
  // Rows of a few channels are drawn tall, many rows thin, within what fits beside the other chart.
  const height = Math.max(150, Math.min(320, map.rows * 14));
  const draw = useCallback(
    (context: CanvasRenderingContext2D, width: number, h: number) =>
      drawErrorMap(context, width, h, map, deviation, isDark, colors(), cell?.at ?? null),
    [map, deviation, isDark, cell],
  );
  const perRow = map.weight_rows / map.rows;
  const perColumn = map.weight_columns / map.columns;
  // What stands at a row of the map: one index, or the first and last of a block.
  const span = (i: number, size: number, all: number): string => {
    const first = Math.floor(i * size);
    const end = Math.min(all, Math.floor((i + 1) * size)) - 1;
    return end > first ? `${first}–${end}` : String(first);
  };
  const rowName = (i: number): string => span(i, perRow, map.weight_rows);
  const columnName = (i: number): string => span(i, perColumn, map.weight_columns);
  let worst = 0;
  for (let i = 1; i < map.cells.length; i++) if (map.cells[i] > map.cells[worst]) worst = i;
  const value = cell && map.cells[cell.at[0] * map.columns + cell.at[1]];
  return (
    <ChartCard
      control="error_map"
      about="max_abs_error"
      title={t("errorMap")}
      hint={`${t("errorMapHint")}${perRow > 1 || perColumn > 1 ? ` ${t("errorMapBlocks", { rows: perRow.toFixed(perRow % 1 ? 1 : 0), columns: perColumn.toFixed(perColumn % 1 ? 1 : 0) })}` : ""}`}
      table={() => {
        const order = Array.from(map.cells.keys())
          .sort((a, b) => map.cells[b] - map.cells[a])
          .slice(0, WORST);
        return {
          caption: t("worstCells", { n: order.length }),
          columns: [t("row"), t("column"), t("error")],
          rows: order.map((i) => [
            rowName(Math.floor(i / map.columns)),
            columnName(i % map.columns),
            real(map.cells[i]),
          ]),
        };
      }}
    >
      <div class="canvas-box map">
        <Canvas
          height={height}
          draw={draw}
          label={t("errorMapSummary", {
            rows: map.weight_rows,
            columns: map.weight_columns,
            max: real(map.max),
            row: rowName(Math.floor(worst / (map.columns || 1))),
            column: columnName(worst % (map.columns || 1)),
          })}
          onPoint={(spot) => {
            const at = spot && cellAt(spot.x, spot.y, spot.width, spot.height, map);
            setCell(spot && at ? { at, width: spot.width } : null);
          }}
          onMove={(columns, rows) =>
            setCell((old) => {
              const [r, c] = old?.at ?? [0, 0];
              const at: [number, number] = [
                Math.max(0, Math.min(map.rows - 1, r + rows)),
                Math.max(0, Math.min(map.columns - 1, c + columns)),
              ];
              return { at, width: old?.width ?? 300 };
            })
          }
        />
        {cell && (
          <Tip
            at={{
              x: ((cell.at[1] + 0.5) / map.columns) * cell.width,
              y: ((cell.at[0] + 1) / map.rows) * height,
              width: cell.width,
            }}
          >
            {t("row")} {rowName(cell.at[0])}, {t("column")} {columnName(cell.at[1])}
            <br />
            {t("error")} {real(value ?? 0)}
            {deviation > 0 && ` (${percent((value ?? 0) / deviation)} σ)`}
          </Tip>
        )}
      </div>
      <div class="scale" aria-hidden="true">
        <div class={`gradient ${isDark ? "dark" : "light"}`} />
        <div class="scale-numbers">
          {["≤ 0.1 %", "1 %", "10 %", "≥ 100 % σ"].map((text) => (
            <span key={text}>{text}</span>
          ))}
        </div>
        <p class="hint">{t("scaleLegend")}</p>
      </div>
    </ChartCard>
  );
}

export function ChannelsCard({ drawn }: { drawn: WeightPicture }) {
  const [at, setAt] = useState<{ index: number; x: number; width: number } | null>(null);
  const { mse, sqnr_db, max_abs } = drawn.channels;
  const n = mse.length;
  const rmse = (i: number): number => Math.sqrt(mse[i]);
  const chosen = channel.value;
  const draw = useCallback(
    (context: CanvasRenderingContext2D, width: number, height: number) =>
      drawChannelBars(context, width, height, drawn.channels.mse.map(Math.sqrt), chosen, colors(), at?.index ?? null),
    [drawn, chosen, at],
  );
  let worst = 0;
  for (let i = 1; i < n; i++) if (mse[i] > mse[worst]) worst = i;
  const median = n > 0 ? Math.sqrt(Float32Array.from(mse).sort()[n >> 1]) : 0;
  const db = (i: number): string => (Number.isFinite(sqnr_db[i]) ? decibels(sqnr_db[i]) : t("exact"));
  return (
    <ChartCard
      control="channels"
      about="mse"
      title={t("channels")}
      hint={n > 0 ? t("channelsHint") : t("noChannels")}
      table={() => ({
        columns: [t("channel"), t("rmse"), t("sqnr"), t("maxAbs")],
        rows: Array.from({ length: n }, (_, i) => [i, real(rmse(i)), db(i), real(max_abs[i])]),
      })}
    >
      {n > 0 && (
        <div class="canvas-box">
          <Canvas
            height={240}
            draw={draw}
            label={t("channelsSummary", { n, max: real(rmse(worst)), channel: worst, median: real(median) })}
            onPoint={(spot) => {
              const index = spot && channelAt(spot.x, spot.width, n);
              setAt(spot && index !== null ? { index: index!, x: spot.x, width: spot.width } : null);
            }}
            onPick={(spot) => {
              const index = channelAt(spot.x, spot.width, n);
              if (index !== null) actions.selectChannel(index);
            }}
            onMove={(columns) =>
              setAt((old) => {
                const index = Math.max(0, Math.min(n - 1, (old?.index ?? chosen) + columns));
                const width = old?.width ?? 300;
                return { index, width, x: ((index + 0.5) / n) * width };
              })
            }
            onKeyPick={() => at && actions.selectChannel(at.index)}
          />
          {at && (
            <Tip at={{ x: at.x, y: 16, width: at.width }}>
              {t("channel")} {at.index}
              <br />
              {t("rmse")} {real(rmse(at.index))} · {db(at.index)}
            </Tip>
          )}
        </div>
      )}
    </ChartCard>
  );
}
