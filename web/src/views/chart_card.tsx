// A chart with its title, its explanation and the table behind it.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { count } from "../format";
import { t } from "../words";
import { IconButton, LessonButton } from "./controls";
import { ChartIcon, TableIcon } from "./icons";

export interface Table {
  caption?: string;
  columns: string[];
  rows: (string | number)[][];
}

interface Props {
  control: string;
  /** The number of the report that its lesson explains. */
  about: string;
  title: string;
  hint: string;
  /** Worked out only when it is looked at. */
  table(): Table;
  legend?: ComponentChildren;
  children: ComponentChildren;
}

const MOST = 300; // rows; more would only make the page slow

export function ChartCard({ control, about, title, hint, table, legend, children }: Props) {
  const [asTable, setAsTable] = useState(false);
  return (
    <section class="card chart" data-chart={control} aria-label={title}>
      <header>
        <h3>{title}</h3>
        <LessonButton control={about} what={title} />
        <div class="legend">{legend}</div>
        <IconButton
          label={asTable ? t("showPicture") : t("showTable")}
          pressed={asTable}
          onClick={() => setAsTable(!asTable)}
        >
          {asTable ? <ChartIcon /> : <TableIcon />}
        </IconButton>
      </header>
      {asTable ? <TableView table={table()} /> : children}
      <p class="hint">{hint}</p>
    </section>
  );
}

function TableView({ table: { caption, columns, rows } }: { table: Table }) {
  return (
    <div class="table-scroll" tabIndex={0}>
      <table class="data">
        {(caption || rows.length > MOST) && (
          <caption>{caption ?? t("firstOf", { n: count(MOST), all: count(rows.length) })}</caption>
        )}
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column} scope="col">
                {column}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, MOST).map((row, i) => (
            <tr key={i}>
              {row.map((cell, j) => (
                <td key={j}>{cell}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
