// The module's surface: the functions of wasm/src/module.d.ts and nothing else. C++ exceptions end here and become
// outcomes; numbers of models stand for C++ objects; arrays leave as copies, so no view outlives a statement.
#include <emscripten.h>
#include <emscripten/bind.h>
#include <emscripten/heap.h>
#include <emscripten/val.h>
#include <malloc.h>

#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <new>
#include <utility>

#include "core/base/json.hpp"
#include "core/kernels/compute.hpp"
#include "core/model/architectures.hpp"
#include "core/model/execute.hpp"
#include "core/pipeline/bytes.hpp"
#include "core/pipeline/pipeline.hpp"

namespace {

using emscripten::typed_memory_view;
using emscripten::val;
using nibble::Model;

val succeeded(val value) {
  val outcome = val::object();
  outcome.set("ok", true);
  outcome.set("value", value);
  return outcome;
}

val failed(std::string_view code, const std::string& where, const std::string& message) {
  val outcome = val::object();
  outcome.set("ok", false);
  outcome.set("code", std::string(code));
  outcome.set("where", where);
  outcome.set("message", message);
  return outcome;
}

/// Runs `body`; whatever it throws becomes a failed outcome.
template <class Body>
val guarded(const Body& body) {
  try {
    return succeeded(body());
  } catch (const nibble::Error& error) {
    return failed(nibble::to_string(error.code), error.where, error.message);
  } catch (const std::bad_alloc&) {
    return failed("out-of-memory", "",
                  "this step needs more memory than the browser gives a page (the heap has " +
                      std::to_string(emscripten_get_heap_size() >> 20) + " of at most " +
                      std::to_string(emscripten_get_heap_max() >> 20) + " MiB)");
  } catch (const std::exception& error) {
    return failed("internal", "", error.what());
  }
}

/// A typed array of its own, copied out of the heap.
template <class T>
val copied(std::span<const T> values) {
  return val(typed_memory_view(values.size(), values.data())).template call<val>("slice");
}
template <class T>
val copied(const std::vector<T>& values) {
  return copied(std::span<const T>(values));
}

class Buffer {
 public:
  explicit Buffer(size_t size) : size_(size), bytes_(new std::byte[size]) {}
  val view() { return val(typed_memory_view(size_, reinterpret_cast<uint8_t*>(bytes_.get()))); }
  nibble::FileBytes bytes() const { return {bytes_, size_}; }

 private:
  size_t size_;
  std::shared_ptr<std::byte[]> bytes_;
};

/// A file that the caller gave: its bytes, or what reads them where it stays outside.
struct Given {
  std::string name;
  std::shared_ptr<Buffer> buffer;
  nibble::StoredFile stored = {};
};

class Files {
 public:
  val add(const std::string& name, double size) {
    return guarded([&] {
      const double room = static_cast<double>(emscripten_get_heap_max());
      // The file, whose tensors are used where they lie, and one result beside it.
      if (size * 2 > room) {
        nibble::fail(nibble::ErrorCode::OutOfMemory, name,
                     "opening it needs about " + std::to_string(static_cast<uint64_t>(size * 2 / 1048576)) +
                         " MiB, a page has at most " + std::to_string(static_cast<uint64_t>(room / 1048576)));
      }
      given_.push_back({name, std::make_shared<Buffer>(static_cast<size_t>(size))});
      return val(given_.back().buffer);
    });
  }

  /// `read` fills a view of the heap, and gives "" or why it cannot.
  void add_stored(const std::string& name, double size, val read) {
    const auto fill = [name, read](uint64_t offset, std::span<std::byte> into) {
      const val view(typed_memory_view(into.size(), reinterpret_cast<uint8_t*>(into.data())));
      const auto trouble = read(static_cast<double>(offset), view).as<std::string>();
      if (!trouble.empty()) nibble::fail(nibble::ErrorCode::BadFile, name, trouble);
    };
    given_.push_back({name, nullptr, {static_cast<uint64_t>(size), fill}});
  }

  /// In the order in which they were added. Only data has stored ones.
  std::vector<Given> take() { return std::move(given_); }

 private:
  std::vector<Given> given_;
};

/// Objects that numbers stand for; a number is not used again.
template <class T>
class Shelf {
 public:
  explicit Shelf(const char* what) : what_(what) {}
  int keep(T object) {
    all_.emplace(++last_, std::move(object));
    return last_;
  }
  T& at(int number) {
    const auto found = all_.find(number);
    if (found == all_.end()) nibble::fail(nibble::ErrorCode::BadData, what_, "it has been closed");
    return found->second;
  }
  void close(int number) { all_.erase(number); }

 private:
  const char* what_;
  int last_ = 0;
  std::map<int, T> all_;
};

/// A trainer and the data it learns from, which its messages speak of.
struct Training {
  nibble::Trainer trainer;
  nibble::Dataset data;
  std::exception_ptr failure = nullptr;  ///< of a step whose forerunners have been told of, to be told next
};

Shelf<Model>& models() {
  static Shelf<Model> all("model");
  return all;
}
Shelf<nibble::Dataset>& datasets() {
  static Shelf<nibble::Dataset> all("data");
  return all;
}
Shelf<Training>& trainings() {
  static Shelf<Training> all("training");
  return all;
}
/// Models made ready by `run`, which is asked again and again while somebody draws.
std::map<int, nibble::Program>& programs() {
  static std::map<int, nibble::Program> all;
  return all;
}

int keep(Model model) { return models().keep(std::move(model)); }
const Model& model_at(int number) { return models().at(number); }

const nibble::Weight& weight_named(const Model& model, const std::string& name) {
  for (const nibble::Weight& weight : *model.weights) {
    if (model.params[weight.param].name == name) return weight;
  }
  nibble::fail(nibble::ErrorCode::BadData, name, "the model has no weight of this name");
}

nibble::Context context_of(const val& listener) {
  return nibble::Context(0, [listener](const nibble::Progress& progress) {
    return listener(std::string(progress.phase), std::string(progress.item), progress.fraction).as<bool>();
  });
}

val open_model(Files& files, val listener) {
  return guarded([&] {
    const nibble::Context context = context_of(listener);
    const auto entries = files.take();
    if (entries.empty()) nibble::fail(nibble::ErrorCode::BadData, "file", "no file was given");
    nibble::ExternalFiles external;
    for (size_t i = 1; i < entries.size(); ++i) {
      const std::string& path = entries[i].name;
      const std::string file = path.substr(path.find_last_of("/\\") + 1);
      if (!external.emplace(file, entries[i].buffer->bytes()).second) {
        nibble::fail(nibble::ErrorCode::BadData, path, "two external files are called \"" + file + "\"; give one");
      }
    }
    context.tick({"open", entries[0].name, 0});
    Model model = nibble::read_model(entries[0].buffer->bytes(), entries[0].name, external);
    context.tick({"open", entries[0].name, 1});
    return val(keep(std::move(model)));
  });
}

val describe_model(int model) {
  return guarded([&] { return val(nibble::describe(model_at(model))); });
}

val check_recipe(const std::string& recipe) {
  return guarded([&] { return val(nibble::print_recipe(nibble::parse_recipe(recipe))); });
}

/// "onnx", "safetensors", "nib", or "" for the model's own.
nibble::Format format_named(const std::string& name, const Model& model) {
  if (name.empty()) return model.header->format;
  for (const nibble::Format format : {nibble::Format::Onnx, nibble::Format::Safetensors, nibble::Format::Nib}) {
    if (name == nibble::to_string(format)) return format;
  }
  nibble::fail(nibble::ErrorCode::Unsupported, "format",
               "expected \"onnx\", \"safetensors\" or \"nib\", got \"" + name + "\"");
}

val compress(int number, const std::string& recipe, const std::string& format, int data, const std::string& options,
             val listener) {
  return guarded([&] {
    const Model& model = model_at(number);
    nibble::Run run =
        nibble::run(nibble::parse_recipe(recipe), model, context_of(listener), format_named(format, model),
                    data ? &datasets().at(data) : nullptr, nibble::parse_data_options(options));
    val result = val::object();
    result.set("report", nibble::print_report(run.report));
    result.set("model", keep(std::move(run.model)));
    return result;
  });
}

val values_of(int number, const std::string& name) {
  return guarded([&] {
    const Model& model = model_at(number);
    const nibble::FloatView values(model.params[weight_named(model, name).param].value);
    return copied(values.values());
  });
}

val bytes(int number, bool exact, val listener) {
  return guarded(
      [&] { return val(nibble::print(nibble::measure_bytes(model_at(number), exact, context_of(listener)))); });
}

val packed(int number, const std::string& name) {
  return guarded([&] { return copied(nibble::packed_codes(model_at(number), name)); });
}

size_t size_option(const nibble::Json& options, const char* key, size_t lowest, size_t otherwise) {
  constexpr size_t kMost = 4096;
  if (!options.contains(key)) return otherwise;
  const nibble::Json& value = options[key];
  const double number = value.is_number() ? value.get<double>() : -1;
  if (!(number >= static_cast<double>(lowest) && number <= kMost)) {
    nibble::fail(nibble::ErrorCode::BadData, key,
                 "expected " + std::to_string(lowest) + " to " + std::to_string(kMost) + ", got " + value.dump());
  }
  return static_cast<size_t>(number);
}

val picture(int number, int result_number, const std::string& name, const std::string& options_text) {
  return guarded([&] {
    const Model& before = model_at(number);
    const Model& after = model_at(result_number);
    const nibble::Weight& weight = weight_named(before, name);
    if (before.graph != after.graph)
      nibble::fail(nibble::ErrorCode::BadData, "result", "it was not made from this model");
    const nibble::Json options = nibble::parse_json(options_text, nibble::ErrorCode::BadData, "options");
    nibble::PictureSize size;
    size.bins = size_option(options, "bins", 2, size.bins);
    size.rows = size_option(options, "rows", 1, size.rows);
    size.columns = size_option(options, "columns", 1, size.columns);
    if (options.contains("channel") && options["channel"].is_number_unsigned())
      size.channel = options["channel"].get<size_t>();
    const nibble::WeightPicture drawn =
        nibble::picture_of(before.params[weight.param], after.params[weight.param], weight, size);
    const nibble::Json scalars{{"lo", drawn.lo},
                               {"hi", drawn.hi},
                               {"rows", drawn.map_rows},
                               {"columns", drawn.map_columns},
                               {"weight_rows", drawn.weight_rows},
                               {"weight_columns", drawn.weight_columns},
                               {"max", drawn.map_max}};
    val out = val::object();
    out.set("scalars", scalars.dump());
    out.set("before", copied(drawn.before));
    out.set("after", copied(drawn.after));
    out.set("levels", copied(drawn.levels));
    out.set("cells", copied(drawn.cells));
    out.set("mse", copied(drawn.mse));
    out.set("sqnr_db", copied(drawn.sqnr_db));
    out.set("max_abs", copied(drawn.max_abs));
    return out;
  });
}

val write(int number, const std::string& format, val listener) {
  return guarded([&] {
    const nibble::Context context = context_of(listener);
    const Model& model = model_at(number);
    const nibble::Rope rope = nibble::write_model(model, nibble::plan_write(model, format_named(format, model)));
    // The file is put together outside of this heap, piece by piece.
    const val file = val::global("Uint8Array").new_(static_cast<double>(rope.size()));
    size_t at = 0;
    rope.emit([&](std::span<const std::byte> piece) {
      context.tick({"write", model.header->name, static_cast<double>(at) / static_cast<double>(rope.size())});
      file.call<void>("set", typed_memory_view(piece.size(), reinterpret_cast<const uint8_t*>(piece.data())),
                      static_cast<double>(at));
      at += piece.size();
    });
    return file;
  });
}

void close_model(int model) {
  programs().erase(model);
  models().close(model);
}

// --- Data ------------------------------------------------------------------------------------------------------------

val make_data(const std::string& text) {
  return guarded([&] {
    const nibble::Json spec = nibble::parse_json(text, nibble::ErrorCode::BadData, "data");
    const auto whole = [&](const char* key, double lowest, double highest, double otherwise) {
      if (!spec.contains(key)) return otherwise;
      const double value = spec[key].is_number() ? spec[key].get<double>() : -1;
      if (!(value >= lowest && value <= highest) || value != static_cast<double>(static_cast<uint64_t>(value))) {
        nibble::fail(nibble::ErrorCode::BadData, std::string("data.") + key,
                     "expected a whole number from " + std::to_string(static_cast<uint64_t>(lowest)) + " to " +
                         std::to_string(static_cast<uint64_t>(highest)) + ", got " + spec[key].dump());
      }
      return value;
    };
    const std::string kind = spec.contains("kind") && spec["kind"].is_string() ? spec["kind"].get<std::string>() : "";
    const auto seed = static_cast<uint64_t>(whole("seed", 0, 9007199254740991.0, 1));
    const auto n = static_cast<size_t>(whole("n", 1, 1e6, 2000));
    if (kind == "digits") return val(datasets().keep(nibble::digits(seed, n)));
    if (kind == "linear") return val(datasets().keep(nibble::linear_data(seed, n, 5)));
    nibble::fail(nibble::ErrorCode::BadData, "data.kind", "expected \"digits\" or \"linear\", got \"" + kind + "\"");
  });
}

/// Samples and labels that the caller has decoded already.
nibble::Dataset data_of_arrays(const nibble::Json& spec, const std::vector<Given>& entries) {
  const std::string name = spec.value("name", "images"), layout = spec.value("layout", "features");
  nibble::Shape shape{0};
  size_t sample = 1;
  for (const nibble::Json& extent : spec.at("shape")) {
    shape.push_back(extent.get<size_t>());
    sample *= shape.back();
  }
  const std::span<const std::byte> samples = entries.at(0).buffer->bytes().span();
  if (sample == 0 || samples.size() % sample != 0) {
    nibble::fail(nibble::ErrorCode::BadData, name,
                 std::to_string(samples.size()) + " bytes are not whole samples of " + std::to_string(sample));
  }
  shape[0] = samples.size() / sample;
  std::vector<int32_t> labels;
  if (entries.size() > 1) {
    const std::span<const std::byte> bytes = entries[1].buffer->bytes().span();
    labels.resize(bytes.size() / sizeof(int32_t));
    std::memcpy(labels.data(), bytes.data(), labels.size() * sizeof(int32_t));
  }
  nibble::SampleLayout means = nibble::SampleLayout::Features;
  for (const auto candidate : {nibble::SampleLayout::Hw, nibble::SampleLayout::Chw, nibble::SampleLayout::Hwc}) {
    if (layout == nibble::to_string(candidate)) means = candidate;
  }
  nibble::Dataset data = nibble::in_memory(name, nibble::Tensor::copy_of(nibble::DType::UInt8, shape, samples), means,
                                           std::move(labels), spec.value("class_names", std::vector<std::string>()));
  data.test_from = std::min<size_t>(spec.value("test_from", data.size), data.size);
  return data;
}

val open_data(Files& files, const std::string& text) {
  return guarded([&] {
    const nibble::Json spec = nibble::parse_json(text, nibble::ErrorCode::BadData, "data");
    const auto entries = files.take();
    if (entries.empty()) nibble::fail(nibble::ErrorCode::BadData, "data", "no file was given");
    nibble::Dataset data;
    try {
      if (spec.value("kind", "") == "arrays") {
        data = data_of_arrays(spec, entries);
      } else {
        std::vector<nibble::NamedFile> named;
        for (const auto& [name, buffer, stored] : entries) {
          named.push_back({name, buffer ? buffer->bytes().span() : std::span<const std::byte>(), stored});
        }
        data = nibble::read_dataset(named, spec.value("name", entries[0].name));
      }
    } catch (const nibble::Json::exception& error) {
      nibble::fail(nibble::ErrorCode::BadData, "data", error.what());
    }
    nibble::check(data);
    return val(datasets().keep(std::move(data)));
  });
}

val describe_data(int data, const std::string& options) {
  return guarded([&] { return val(nibble::describe(datasets().at(data), nibble::parse_data_options(options))); });
}

val samples_of(int number, val wanted) {
  return guarded([&] {
    const nibble::Dataset& data = datasets().at(number);
    const std::vector<uint32_t> indices = emscripten::convertJSArrayToNumberVector<uint32_t>(wanted);
    std::vector<int32_t> labels;
    for (const uint32_t index : indices) {
      if (index >= data.size) {
        nibble::fail(
            nibble::ErrorCode::BadData, "indices",
            "the data have " + std::to_string(data.size) + " samples, " + std::to_string(index) + " is beyond them");
      }
      if (data.labelled()) labels.push_back(data.labels[index]);
    }
    val out = val::object();
    const nibble::Tensor values = data.read(indices);
    out.set("values",
            values.dtype() == nibble::DType::UInt8 ? copied(values.data<uint8_t>()) : copied(values.data<float>()));
    out.set("labels", copied(labels));
    return out;
  });
}

void close_data(int data) { datasets().close(data); }

// --- Running ---------------------------------------------------------------------------------------------------------

val cannot_run(int model) {
  return guarded([&] { return val(nibble::cannot_run(model_at(model))); });
}

std::optional<nibble::DType> dtype_named(const std::string& name) {
  for (int i = 0; i < static_cast<int>(nibble::DType::String); ++i) {
    if (name == nibble::to_string(static_cast<nibble::DType>(i))) return static_cast<nibble::DType>(i);
  }
  return std::nullopt;
}

val run_model(int number, Files& files, const std::string& inputs_text, const std::string& outputs_text) {
  return guarded([&] {
    const Model& model = model_at(number);
    auto known = programs().find(number);
    if (known == programs().end()) known = programs().emplace(number, nibble::Program(model)).first;
    const nibble::Program& program = known->second;
    const auto entries = files.take();
    const nibble::Json given = nibble::parse_json(inputs_text, nibble::ErrorCode::BadData, "inputs");
    const nibble::Json asked = nibble::parse_json(outputs_text, nibble::ErrorCode::BadData, "outputs");
    std::vector<nibble::Tensor> inputs(program.inputs().size());
    nibble::RunOptions options;
    std::vector<std::string> names;
    try {
      for (size_t i = 0; i < given.size(); ++i) {
        const auto name = given[i].at("name").get<std::string>(), type = given[i].at("dtype").get<std::string>();
        const std::optional<nibble::DType> dtype = dtype_named(type);
        if (!dtype)
          nibble::fail(nibble::ErrorCode::BadData, "input \"" + name + "\"", "there is no type \"" + type + "\"");
        size_t place = 0;
        std::string all;
        for (; place < inputs.size() && program.inputs()[place].name != name; ++place)
          all += (all.empty() ? "" : ", ") + program.inputs()[place].name;
        if (place == inputs.size())
          nibble::fail(nibble::ErrorCode::BadData, "input \"" + name + "\"",
                       "the model has none of this name; it has " + all);
        inputs[place] = nibble::Tensor::copy_of(*dtype, given[i].at("shape").get<nibble::Shape>(),
                                                entries.at(i).buffer->bytes().span());
      }
      options.also = asked.get<std::vector<std::string>>();
    } catch (const nibble::Json::exception& error) {
      nibble::fail(nibble::ErrorCode::BadData, "inputs", error.what());
    }
    std::vector<nibble::Tensor> outputs = program.forward(std::move(inputs), options);
    const size_t own = program.outputs().size();
    if (options.also.empty()) {
      for (const nibble::Value& value : program.outputs()) names.push_back(value.name);
    } else {
      names = options.also;
      outputs.erase(outputs.begin(), outputs.begin() + static_cast<std::ptrdiff_t>(own));
    }
    nibble::Json described = nibble::Json::array();
    val data = val::array();
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!outputs[i].exists()) nibble::fail(nibble::ErrorCode::BadData, names[i], "the model gives no such value");
      described.push_back(
          {{"name", names[i]}, {"dtype", nibble::to_string(outputs[i].dtype())}, {"shape", outputs[i].shape()}});
      const std::span<const std::byte> bytes = outputs[i].bytes();
      data.call<void>("push", copied(std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size())));
    }
    val out = val::object();
    out.set("outputs", described.dump(-1, ' ', false, nibble::Json::error_handler_t::replace));
    out.set("data", data);
    return out;
  });
}

val prepare(int model, int data, const std::string& options, val listener) {
  return guarded([&] {
    return val(nibble::print(nibble::preparation_for(model_at(model), datasets().at(data),
                                                     nibble::parse_data_options(options), context_of(listener))));
  });
}

val evaluate(int number, int data_number, const std::string& text, val listener) {
  return guarded([&] {
    const Model& model = model_at(number);
    const nibble::Dataset& data = datasets().at(data_number);
    const nibble::DataOptions options = nibble::parse_data_options(text);
    const nibble::Context context = context_of(listener);
    const std::vector<uint32_t> indices = nibble::chosen_samples(data, options);
    const nibble::Preparation preparation = nibble::preparation_for(model, data, options, context);
    const nibble::Evaluation found = nibble::evaluate(model, data, indices, preparation, context);
    val out = val::object();
    out.set("report", nibble::print(found, data, preparation));
    out.set("indices", copied(indices));
    out.set("predictions", copied(found.predictions));
    out.set("confidence", copied(found.confidence));
    out.set("confusion", copied(found.confusion));
    return out;
  });
}

val compare(int before, int after, int data_number, const std::string& text, val listener) {
  return guarded([&] {
    const nibble::Dataset& data = datasets().at(data_number);
    const nibble::DataOptions options = nibble::parse_data_options(text);
    const nibble::Context context = context_of(listener);
    const std::vector<uint32_t> indices = nibble::chosen_samples(data, options);
    // One preparation for both: what differs must be the models.
    const nibble::Preparation preparation = nibble::preparation_for(model_at(before), data, options, context);
    const nibble::Comparison found =
        nibble::compare(model_at(before), model_at(after), data, indices, preparation, context);
    std::vector<uint32_t> flipped;
    for (const uint32_t position : found.flipped) flipped.push_back(indices[position]);
    val out = val::object();
    out.set("report", nibble::print(found, data, preparation));
    out.set("indices", copied(indices));
    out.set("flipped", copied(flipped));
    out.set("predictions_before", copied(found.before.predictions));
    out.set("predictions_after", copied(found.after.predictions));
    out.set("confidence_before", copied(found.before.confidence));
    out.set("confidence_after", copied(found.after.confidence));
    out.set("confusion_before", copied(found.before.confusion));
    out.set("confusion_after", copied(found.after.confusion));
    return out;
  });
}

val activation(int number, int data_number, uint32_t index, const std::string& value, const std::string& text) {
  return guarded([&] {
    const Model& model = model_at(number);
    const nibble::Dataset& data = datasets().at(data_number);
    const nibble::Preparation preparation =
        nibble::preparation_for(model, data, nibble::parse_data_options(text), nibble::Context());
    const nibble::Tensor found = nibble::activation(model, data, index, preparation, value);
    val out = val::object();
    out.set("shape", nibble::Json(found.shape()).dump());
    out.set("values", copied(found.data<float>()));
    return out;
  });
}

// --- Training --------------------------------------------------------------------------------------------------------

std::string architectures() {
  nibble::Json list = nibble::Json::array();
  for (const nibble::Architecture& known : nibble::architectures())
    list.push_back({{"name", known.name}, {"summary", known.summary}});
  return list.dump();
}

val create(const std::string& architecture, double seed) {
  return guarded([&] { return val(keep(nibble::make_architecture(architecture, static_cast<uint64_t>(seed)))); });
}

val train_open(int number, int data_number, const std::string& choice, const std::string& text, val listener) {
  return guarded([&] {
    const Model& model = model_at(number);
    const nibble::Dataset& data = datasets().at(data_number);
    const nibble::DataOptions options = nibble::parse_data_options(text);
    const nibble::Preparation preparation = nibble::preparation_for(model, data, options, context_of(listener));
    nibble::Trainer trainer(model, data, nibble::split(data, options.shares, options.seed), preparation,
                            nibble::with_loss(nibble::parse_train(choice), data), options.seed);
    return val(trainings().keep({std::move(trainer), data}));
  });
}

val train_step(int number, double milliseconds, val listener) {
  return guarded([&] {
    Training& training = trainings().at(number);
    const nibble::Context context = context_of(listener);
    const double end = emscripten_get_now() + milliseconds;
    if (training.failure) std::rethrow_exception(std::exchange(training.failure, nullptr));
    std::vector<nibble::TrainProgress> steps;
    do {
      try {
        steps.push_back(training.trainer.step(context));
      } catch (const nibble::Error& error) {
        // The steps before it are told first.
        if (steps.empty() || error.code == nibble::ErrorCode::Cancelled) throw;
        training.failure = std::current_exception();
        break;
      }
    } while (!steps.back().done && emscripten_get_now() < end);
    return val(nibble::print(steps, training.data));
  });
}

val train_model(int number, const std::string& which) {
  return guarded([&] {
    const nibble::Trainer& trainer = trainings().at(number).trainer;
    if (which == "best") return val(keep(trainer.best()));
    if (which == "current") return val(keep(trainer.current()));
    nibble::fail(nibble::ErrorCode::BadData, "which", "expected \"current\" or \"best\", got \"" + which + "\"");
  });
}

val train_save(int number) {
  return guarded([&] {
    const std::vector<std::byte> saved = trainings().at(number).trainer.save();
    return copied(std::span(reinterpret_cast<const uint8_t*>(saved.data()), saved.size()));
  });
}

val train_restore(int number, Files& files) {
  return guarded([&] {
    const auto entries = files.take();
    if (entries.empty()) nibble::fail(nibble::ErrorCode::BadData, "saved training", "no bytes were given");
    trainings().at(number).trainer.restore(entries[0].buffer->bytes().span());
    return val::null();
  });
}

void train_close(int number) { trainings().close(number); }

bool relaxed() { return nibble::kernels::is_relaxed(); }

std::string version() { return NIBBLE_VERSION; }

/// Bytes that the allocator holds for us now, without what it could give back.
double heap_bytes() { return static_cast<double>(static_cast<unsigned>(mallinfo().uordblks)); }

}  // namespace

EMSCRIPTEN_BINDINGS(nibble) {
  emscripten::class_<Buffer>("Buffer")
      .smart_ptr<std::shared_ptr<Buffer>>("BufferPointer")
      .function("view", &Buffer::view);
  emscripten::class_<Files>("Files")
      .constructor<>()
      .function("add", &Files::add)
      .function("add_stored", &Files::add_stored);
  emscripten::function("version", &version);
  emscripten::function("open", &open_model);
  emscripten::function("describe", &describe_model);
  emscripten::function("check", &check_recipe);
  emscripten::function("compress", &compress);
  emscripten::function("values", &values_of);
  emscripten::function("bytes", &bytes);
  emscripten::function("packed", &packed);
  emscripten::function("picture", &picture);
  emscripten::function("write", &write);
  emscripten::function("close", &close_model);
  emscripten::function("make_data", &make_data);
  emscripten::function("open_data", &open_data);
  emscripten::function("describe_data", &describe_data);
  emscripten::function("samples", &samples_of);
  emscripten::function("close_data", &close_data);
  emscripten::function("cannot_run", &cannot_run);
  emscripten::function("run", &run_model);
  emscripten::function("prepare", &prepare);
  emscripten::function("evaluate", &evaluate);
  emscripten::function("compare", &compare);
  emscripten::function("activation", &activation);
  emscripten::function("architectures", &architectures);
  emscripten::function("create", &create);
  emscripten::function("train_open", &train_open);
  emscripten::function("train_step", &train_step);
  emscripten::function("train_model", &train_model);
  emscripten::function("train_save", &train_save);
  emscripten::function("train_restore", &train_restore);
  emscripten::function("train_close", &train_close);
  emscripten::function("relaxed", &relaxed);
  emscripten::function("heap_bytes", &heap_bytes);
}
