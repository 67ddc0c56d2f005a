// Measures a result against what it was made from, and prints reports.
#include <algorithm>
#include <bit>

#include "core/base/json.hpp"
#include "core/pipeline/pipeline.hpp"
#include "core/pipeline/statistics_json.hpp"

namespace nibble {

namespace {

/// Bits of a code: of the grid, of a position in the codebook (0 has one of its own where weights are pruned), or of
/// the type.
size_t bits_for(const Param& param) {
  if (param.grid) return static_cast<size_t>(param.grid->scheme.bits);
  if (!param.codebook) return static_cast<size_t>(bits_of(param.value.dtype()));
  const size_t values = param.codebook->centroids.size() + param.mask.has_value();
  return std::max<size_t>(1, static_cast<size_t>(std::bit_width(values - (values > 0))));
}

/// Codes bit-packed at their width, a float32 for each scale, and a code for each zero point.
size_t packed_bytes(const Param& param) {
  if (param.codebook) {
    const size_t count = param.codebook->centroids.size();
    return static_cast<size_t>((uint64_t{param.value.elements()} * bits_for(param) + 7) / 8) +
           count * static_cast<size_t>(bits_of(param.value.dtype())) / 8;
  }
  if (!param.grid) return param.value.bytes().size();
  const size_t bits = static_cast<size_t>(param.grid->scheme.bits);
  const size_t scales = param.grid->scale.size();
  const size_t zero_points = param.grid->scheme.symmetric ? 0 : (scales * bits + 7) / 8;
  return static_cast<size_t>((uint64_t{param.value.elements()} * bits + 7) / 8) + scales * sizeof(float) + zero_points;
}

Json to_json(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

void put_error(const WeightError& error, Json& json) {
  json["mse"] = error.mse;
  json["sqnr_db"] = to_json(error.sqnr_db);
  json["max_abs_error"] = error.max_abs_error;
  json["cosine"] = to_json(error.cosine);
}

Json to_json(const std::vector<Note>& notes) {
  Json list = Json::array();
  for (const Note& note : notes) list.push_back({{"where", note.where}, {"message", note.message}});
  return list;
}

Json opset_json(int64_t opset) { return opset ? Json(opset) : Json(nullptr); }

Json to_json(const WeightReport& weight) {
  Json json{{"name", weight.name}, {"elements", weight.elements}, {"bits", weight.bits}};
  json["symmetric"] = !weight.scheme || weight.scheme->symmetric;
  json["granularity"] = weight.scheme ? Json(to_string(weight.scheme->granularity)) : Json(nullptr);
  const bool grouped = weight.scheme && weight.scheme->granularity == Granularity::Group;
  json["group_size"] = grouped ? Json(weight.scheme->group_size) : Json(nullptr);
  json["scales"] = weight.scales;
  json["clusters"] = weight.clusters ? Json(*weight.clusters) : Json(nullptr);
  put_error(weight.error, json);
  json["before"] = to_json(weight.before);
  json["after"] = to_json(weight.after);
  json["bytes"] = {{"dense", weight.dense_bytes}, {"packed", weight.packed_bytes}, {"file", weight.storage.bytes}};
  json["stored"] =
      weight.storage.coder == EntropyCoder::Auto ? to_string(weight.storage.dtype) : to_string(weight.storage.coder);
  json["note"] = weight.storage.note.empty() ? Json(nullptr) : Json(weight.storage.note);
  return json;
}

}  // namespace

void measure(const Model& before, const Run& run, Format format, const Context& context, Report& report) {
  const Model& after = run.model;
  const WritePlan plan = plan_write(after, format);
  kernels::Difference all;
  for (size_t i = 0; i < after.weights->size(); ++i) {
    const size_t index = (*after.weights)[i].param;
    const Param& old_param = before.params[index];
    const Param& new_param = after.params[index];
    context.tick(
        {"report", new_param.name, 0.8 + 0.2 * static_cast<double>(i) / static_cast<double>(after.weights->size())});
    WeightReport weight;
    weight.name = new_param.name;
    weight.elements = new_param.value.elements();
    weight.bits = static_cast<int>(bits_for(new_param));
    if (new_param.codebook) weight.clusters = new_param.codebook->centroids.size();
    if (new_param.grid) {
      weight.scheme = new_param.grid->scheme;
      weight.scales = new_param.grid->scale.size();
    }
    const FloatView old_values(old_param.value);
    weight.before = statistics_of(old_values.values());
    kernels::Difference difference;
    if (old_param.value.same_storage(new_param.value)) {
      weight.after = weight.before;
      difference = kernels::difference(old_values.values(), old_values.values());
    } else {
      const FloatView new_values(new_param.value);
      weight.after = statistics_of(new_values.values());
      difference = kernels::difference(old_values.values(), new_values.values());
    }
    weight.error = error_from(difference);
    add(all, difference);
    weight.dense_bytes = old_param.value.bytes().size();
    weight.packed_bytes = packed_bytes(new_param);
    weight.storage = plan.weights[i];
    if (weight.before.nan + weight.before.infinite && new_param.grid) {
      report.notes.push_back(
          {weight.name,
           "holds " + std::to_string(weight.before.nan) + " NaN and " + std::to_string(weight.before.infinite) +
               " infinite values; NaN became 0, infinities the outermost level, and neither counts in the errors"});
    }
    report.elements += weight.elements;
    report.zeros += weight.after.zeros;
    report.dense_bytes += weight.dense_bytes;
    report.packed_bytes += weight.packed_bytes;
    report.weights.push_back(std::move(weight));
  }
  report.total = error_from(all);
  report.format = plan.format;
  report.file_before = after.header->file_bytes;
  report.file_after = write_model(after, plan).size();
  report.opset_before = after.header->format == Format::Onnx ? opset_of(*after.header) : 0;
  report.opset_after = plan.opset;
  for (const std::string& note : plan.notes) report.notes.push_back({"file", note});
  context.tick({"report", "", 1});
}

std::string print_report(const Report& report) {
  Json json{{"version", 1}, {"recipe", Json::parse(print_recipe(report.recipe))}, {"seconds", report.seconds}};
  Json& total = json["total"] = Json::object();
  put_error(report.total, total);
  const double elements = static_cast<double>(report.elements);
  total["elements"] = report.elements;
  total["bits"] = report.elements ? 8 * static_cast<double>(report.packed_bytes) / elements : 0;
  total["sparsity"] = report.elements ? static_cast<double>(report.zeros) / elements : 0;
  total["bytes"] = {{"dense", report.dense_bytes}, {"packed", report.packed_bytes}};
  json["file"] = {{"format", to_string(report.format)},
                  {"before", report.file_before},
                  {"after", report.file_after},
                  {"opset_before", opset_json(report.opset_before)},
                  {"opset_after", opset_json(report.opset_after)}};
  json["weights"] = Json::array();
  for (const WeightReport& weight : report.weights) json["weights"].push_back(to_json(weight));
  json["steps"] = Json::array();
  for (const StepReport& step : report.steps) {
    json["steps"].push_back({{"kind", step.kind},
                             {"seconds", step.seconds},
                             {"weights", step.weights},
                             {"zeros", step.zeros ? Json(*step.zeros) : Json(nullptr)},
                             {"notes", to_json(step.notes)}});
  }
  json["notes"] = to_json(report.notes);
  // Names come from untrusted files and need not be UTF-8.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace nibble
