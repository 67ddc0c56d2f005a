// The module's surface: the functions of wasm/src/module.d.ts and nothing else. C++ exceptions end here and become
// outcomes; numbers of models stand for C++ objects; arrays leave as copies, so no view outlives a statement.
#include <emscripten/bind.h>
#include <emscripten/heap.h>
#include <emscripten/val.h>
#include <malloc.h>

#include <cstring>
#include <map>
#include <memory>
#include <new>

#include "core/base/json.hpp"
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
      entries_.emplace_back(name, std::make_shared<Buffer>(static_cast<size_t>(size)));
      return val(entries_.back().second);
    });
  }
  std::vector<std::pair<std::string, std::shared_ptr<Buffer>>> take() { return std::move(entries_); }

 private:
  std::vector<std::pair<std::string, std::shared_ptr<Buffer>>> entries_;
};

std::map<int, Model>& models() {
  static std::map<int, Model> all;
  return all;
}

int keep(Model model) {
  static int last = 0;
  models().emplace(++last, std::move(model));
  return last;
}

const Model& model_at(int number) {
  const auto found = models().find(number);
  if (found == models().end()) nibble::fail(nibble::ErrorCode::BadData, "model", "it has been closed");
  return found->second;
}

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
      const std::string& path = entries[i].first;
      const std::string file = path.substr(path.find_last_of("/\\") + 1);
      if (!external.emplace(file, entries[i].second->bytes()).second) {
        nibble::fail(nibble::ErrorCode::BadData, path, "two external files are called \"" + file + "\"; give one");
      }
    }
    context.tick({"open", entries[0].first, 0});
    Model model = nibble::read_model(entries[0].second->bytes(), entries[0].first, external);
    context.tick({"open", entries[0].first, 1});
    return val(keep(std::move(model)));
  });
}

val describe_model(int model) {
  return guarded([&] { return val(nibble::describe(model_at(model))); });
}

val check_recipe(const std::string& recipe) {
  return guarded([&] { return val(nibble::print_recipe(nibble::parse_recipe(recipe))); });
}

/// "onnx", "safetensors", or "" for the model's own.
nibble::Format format_named(const std::string& name, const Model& model) {
  if (name.empty()) return model.header->format;
  for (const nibble::Format format : {nibble::Format::Onnx, nibble::Format::Safetensors}) {
    if (name == nibble::to_string(format)) return format;
  }
  nibble::fail(nibble::ErrorCode::Unsupported, "format", "expected \"onnx\" or \"safetensors\", got \"" + name + "\"");
}

val compress(int number, const std::string& recipe, const std::string& format, val listener) {
  return guarded([&] {
    const Model& model = model_at(number);
    nibble::Run run =
        nibble::run(nibble::parse_recipe(recipe), model, context_of(listener), format_named(format, model));
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

void close_model(int model) { models().erase(model); }

std::string version() { return NIBBLE_VERSION; }

/// Bytes that the allocator holds for us now, without what it could give back.
double heap_bytes() { return static_cast<double>(static_cast<unsigned>(mallinfo().uordblks)); }

}  // namespace

EMSCRIPTEN_BINDINGS(nibble) {
  emscripten::class_<Buffer>("Buffer")
      .smart_ptr<std::shared_ptr<Buffer>>("BufferPointer")
      .function("view", &Buffer::view);
  emscripten::class_<Files>("Files").constructor<>().function("add", &Files::add);
  emscripten::function("version", &version);
  emscripten::function("open", &open_model);
  emscripten::function("describe", &describe_model);
  emscripten::function("check", &check_recipe);
  emscripten::function("compress", &compress);
  emscripten::function("values", &values_of);
  emscripten::function("picture", &picture);
  emscripten::function("write", &write);
  emscripten::function("close", &close_model);
  emscripten::function("heap_bytes", &heap_bytes);
}
