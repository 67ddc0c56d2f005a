// The selected layer: its causes, its three charts and its numbers.
import * as actions from "../actions";
import { causesOfLayer } from "../causes";
import { bits, count, decibels, percent, real, shape } from "../format";
import { BITS, ownBits } from "../recipe";
import { layer, opened, picture, side, widths, type Layer } from "../state";
import { t } from "../words";
import { ByteBars } from "./byte_bars";
import { LayerMeter } from "./byte_meter";
import { Causes } from "./causes_list";
import { InfoIcon } from "./icons";
import { ChannelsCard, ErrorMapCard, HistogramCard } from "./layer_charts";

/** Letters; longer names are set smaller. */
const LONG = 36;

export function LayerView() {
  const current = layer.value;
  if (!current) {
    return (
      <section class="card empty">
        <InfoIcon />
        <p>{t("noWeights")}</p>
      </section>
    );
  }
  const { info, report, on } = current;
  const drawn = picture.value?.name === info.name && info.elements > 0 ? picture.value : null;
  const wide = widths.value?.name === info.name ? widths.value.values : null;
  return (
    <div class="layer-view">
      <header class="layer-head">
        <div class="layer-title">
          <h2 class={info.name.length > LONG ? "long" : ""}>{info.name}</h2>
          <label>
            <span class="hint">{t("ownBits")}</span>
            <select
              value={String(ownBits(side.value, info.name) ?? "")}
              data-control="own_bits"
              onChange={({ currentTarget: { value } }) =>
                actions.setOwnBits(info.name, value === "" ? null : Number(value))
              }
            >
              <option value="">{t("ownBitsNone")}</option>
              {BITS.map((n) => (
                <option key={n} value={String(n)}>
                  {n}
                </option>
              ))}
            </select>
          </label>
        </div>
        <p class="hint">
          {t(`kind.${info.kind}`)} · {info.op && `${info.op} · `}
          {shape(info.shape)} · {t("weightsCount", { n: count(info.elements) })}
        </p>
        {report && <Causes causes={causesOfLayer(info, report, on, opened.value!.info.format, wide)} />}
      </header>
      {drawn && (
        <>
          <HistogramCard current={current} drawn={drawn} />
          <div class="pair">
            <ErrorMapCard current={current} drawn={drawn} />
            <ChannelsCard drawn={drawn} />
          </div>
        </>
      )}
      {report && <Numbers current={current} />}
      <LayerMeter current={current} />
    </div>
  );
}

function Numbers({ current: { info, report } }: { current: Layer }) {
  if (!report) return null;
  const { before, after } = report;
  const rows: [string, string, string][] = [
    [t("minimum"), real(before.min), real(after.min)],
    [t("maximum"), real(before.max), real(after.max)],
    [t("mean"), real(before.mean), real(after.mean)],
    [t("deviation"), real(before.std), real(after.std)],
    [t("zeros"), percent(before.sparsity), percent(after.sparsity)],
  ];
  const errors: [string, string][] = [
    [t("sqnr"), report.sqnr_db === null ? t("exact") : decibels(report.sqnr_db)],
    [t("mse"), real(report.mse)],
    [t("maxAbs"), real(report.max_abs_error)],
    [t("cosine"), report.cosine === null ? "–" : report.cosine.toFixed(6)],
    [t("bitsEach"), String(report.bits)],
    [t("scales"), count(report.scales)],
  ];
  const quantized = report.granularity !== null;
  return (
    <div class="pair">
      <section class="card" aria-label={t("statistics")}>
        <h3>{t("statistics")}</h3>
        <table class="data plain">
          <thead>
            <tr>
              <td />
              <th scope="col">
                <span class="key before">{t("before")}</span>
              </th>
              <th scope="col">
                <span class="key after">{t("after")}</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map(([name, was, is]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td>{was}</td>
                <td>{is}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      <section class="card" aria-label={t("bytesTitle")}>
        <h3>{t("bytesTitle")}</h3>
        <ByteBars
          rows={[
            { label: t("bytesDense"), hint: info.dtype, bytes: report.bytes.dense, kind: "before" },
            {
              label: t("bytesPacked"),
              hint: quantized
                ? t("bytesPackedHint", { bits: bits((report.bytes.packed * 8) / (report.elements || 1)) })
                : t("bytesPackedNone"),
              bytes: report.bytes.packed,
              kind: "packed",
            },
            {
              label: t("bytesFile"),
              hint: t("bytesFileHint", { stored: report.stored }),
              bytes: report.bytes.file,
              kind: "after",
            },
          ]}
        />
        <dl class="facts">
          {errors.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
        {report.note && (
          <p class="hint" lang="en">
            {report.note}
          </p>
        )}
      </section>
    </div>
  );
}
