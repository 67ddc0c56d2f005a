// What an opened model is: the ModelInfo of wasm/src/types.ts.
#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_set>

#include "core/base/json.hpp"
#include "core/pipeline/pipeline.hpp"
#include "core/pipeline/statistics_json.hpp"

namespace nibble {

namespace {

Json value_json(const Value& value) {
  Json shape = Json::array();
  for (const auto& extent : value.shape) {
    if (const int64_t* fixed = std::get_if<int64_t>(&extent)) {
      shape.push_back(*fixed);
    } else if (const std::string* name = std::get_if<std::string>(&extent)) {
      shape.push_back(*name);
    } else {
      shape.push_back("?");
    }
  }
  return {{"name", value.name},
          {"dtype", value.dtype ? std::string(to_string(*value.dtype)) : "unknown"},
          {"shape", shape}};
}

Json history_json(const std::shared_ptr<const History>& history) {
  if (!history) return nullptr;
  Json recipes = Json::array();
  for (const std::string& recipe : history->recipes)
    recipes.push_back(parse_json(recipe, ErrorCode::BadFile, "recipe"));
  const bool known = history->noise && *history->noise > 0;
  return {{"recipes", recipes},
          {"file_bytes", history->file_bytes},
          {"sqnr_db", known ? Json(-10 * std::log10(*history->noise)) : Json(nullptr)}};
}

Json weight_json(const Param& param, const Weight& weight, const Statistics& statistics) {
  const Shape& shape = param.value.shape();
  return {{"name", param.name},
          {"kind", to_string(weight.kind)},
          {"node", weight.node},
          {"op", weight.op},
          {"shape", shape},
          {"dtype", to_string(param.value.dtype())},
          {"elements", param.value.elements()},
          {"channel_axis", weight.channel_axis ? Json(*weight.channel_axis) : Json(nullptr)},
          {"channels", weight.channel_axis ? shape[*weight.channel_axis] : 1},
          {"bytes", param.value.bytes().size()},
          {"statistics", to_json(statistics)}};
}

}  // namespace

std::string describe(const Model& model) {
  const Header& header = *model.header;
  const bool onnx = header.format == Format::Onnx;
  size_t nodes = 0;
  std::map<std::string, size_t> counts;
  for_each_graph(*model.graph, [&](const Graph& graph) {
    nodes += graph.nodes.size();
    for (const Node& node : graph.nodes) ++counts[node.domain.empty() ? node.op : node.domain + ":" + node.op];
  });
  std::vector<std::pair<std::string, size_t>> operators(counts.begin(), counts.end());
  std::stable_sort(operators.begin(), operators.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });

  size_t parameters = 0, weight_parameters = 0;
  for (const Param& param : model.params) parameters += param.value.elements();
  Json weights = Json::array(), notes = Json::array();
  for (const Weight& weight : *model.weights) {
    const Param& param = model.params[weight.param];
    const FloatView values(param.value);
    const Statistics statistics = statistics_of(values.values());
    weight_parameters += param.value.elements();
    weights.push_back(weight_json(param, weight, statistics));
    if (!weight.note.empty()) notes.push_back({{"where", param.name}, {"message", weight.note}});
    if (statistics.nan + statistics.infinite) {
      notes.push_back({{"where", param.name},
                       {"message", "holds " + std::to_string(statistics.nan) + " NaN and " +
                                       std::to_string(statistics.infinite) + " infinite values"}});
    }
  }
  if (header.functions) {
    notes.push_back({{"where", "file"},
                     {"message", "has " + std::to_string(header.functions) +
                                     " functions of its own; weights inside them are left as they are"}});
  }
  const size_t dequantized = counts.count("DequantizeLinear") ? counts["DequantizeLinear"] : 0;
  if (dequantized) {
    notes.push_back(
        {{"where", "file"},
         {"message", "has " + std::to_string(dequantized) +
                         " DequantizeLinear nodes: weights behind them are integers already and are left as "
                         "they are"}});
  } else if (model.weights->empty()) {
    notes.push_back({{"where", "file"},
                     {"message", std::string("has no weights that Nibble can compress: no real-valued ") +
                                     (onnx ? "constant of an operator that it knows" : "tensor of two or more axes")}});
  }

  // Before IR version 4 initializers were listed as inputs too.
  std::unordered_set<std::string_view> stored;
  for (const Initializer& initializer : model.graph->initializers) stored.insert(initializer.name);
  Json inputs = Json::array(), outputs = Json::array();
  for (const Value& value : model.graph->inputs) {
    if (!stored.count(value.name)) inputs.push_back(value_json(value));
  }
  for (const Value& value : model.graph->outputs) outputs.push_back(value_json(value));

  const int64_t opset = opset_of(header);
  const Json json{{"name", header.name},
                  {"format", to_string(header.format)},
                  {"file_bytes", header.file_bytes},
                  {"opset", onnx && opset ? Json(opset) : Json(nullptr)},
                  {"ir_version", onnx ? Json(header.ir_version) : Json(nullptr)},
                  {"producer", header.producer.empty() ? Json(nullptr) : Json(header.producer)},
                  {"nodes", nodes},
                  {"operators", operators},
                  {"inputs", inputs},
                  {"outputs", outputs},
                  {"parameters", parameters},
                  {"weight_parameters", weight_parameters},
                  {"weights", weights},
                  {"history", history_json(model.history)},
                  {"notes", notes}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace nibble
