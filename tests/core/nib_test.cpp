#include "core/formats/nib.hpp"

#include <cmath>

#include "core/base/json.hpp"
#include "core/pipeline/bytes.hpp"
#include "core/pipeline/pipeline.hpp"
#include "tests/core/support.hpp"

namespace nibble {
namespace {

using test::Bytes;
using test::holds;

Recipe recipe_of(const std::string& steps, uint64_t seed = 0) {
  return parse_recipe("{\"version\":1,\"seed\":" + std::to_string(seed) + ",\"steps\":[" + steps + "]}");
}

std::span<const std::byte> as_file(const std::vector<uint8_t>& bytes) { return std::as_bytes(std::span(bytes)); }

Bytes quantized_file(const Model& model) { return write_model(model, plan_write(model, model.header->format)).bytes(); }

/// The model's own format with all values in full.
Bytes full_file(const Model& model) {
  WritePlan plan{model.header->format, opset_of(*model.header), {}, {}, {}};
  plan.weights.resize(model.weights->size());
  return write_model(model, plan).bytes();
}

/// A form put together as the shipped decoder does it.
Bytes decoded_form(const std::vector<uint8_t>& file, bool quantized) {
  const nib::Container container = nib::parse_header(std::span(file).first(nib::header_extent(file)));
  const nib::Form& form = quantized ? container.quantized.value() : container.full;
  Bytes out(form.bytes);
  std::vector<nib::Numbers> numbers;
  for (size_t block = 0; block < container.blocks.size(); ++block) {
    const nib::BlockEntry& entry = container.blocks[block];
    for (nib::Numbers& each : nib::decode_block(container, block, std::span(file).subspan(entry.offset, entry.bytes)))
      numbers.push_back(std::move(each));
  }
  size_t text = 0, at = 0;
  const auto take = [&](size_t until) {
    for (; at < until; ++at) out[at] = static_cast<std::byte>(form.text[text++]);
  };
  for (const nib::Hole& hole : form.holes) {
    take(hole.offset);
    std::vector<uint8_t> filled(hole.bytes);
    nib::fill(hole, container.tensors[hole.tensor], numbers[hole.tensor], filled);
    for (const uint8_t byte : filled) out[at++] = static_cast<std::byte>(byte);
  }
  take(out.size());
  CHECK(text == form.text.size());
  return out;
}

/// What a model promises, beside its values.
void check_same(const Model& a, const Model& b) {
  REQUIRE(a.params.size() == b.params.size());
  for (size_t i = 0; i < a.params.size(); ++i) {
    const Param &one = a.params[i], &other = b.params[i];
    CAPTURE(one.name);
    CHECK(one.name == other.name);
    CHECK(one.value.dtype() == other.value.dtype());
    CHECK(one.value.shape() == other.value.shape());
    CHECK(test::text_of(one.value.bytes()) == test::text_of(other.value.bytes()));
    REQUIRE(one.grid.has_value() == other.grid.has_value());
    if (one.grid) {
      CHECK(one.grid->scheme.bits == other.grid->scheme.bits);
      CHECK(one.grid->scheme.symmetric == other.grid->scheme.symmetric);
      CHECK(one.grid->scheme.granularity == other.grid->scheme.granularity);
      CHECK(one.grid->scale == other.grid->scale);
      CHECK(one.grid->zero_point == other.grid->zero_point);
    }
    CHECK(one.codebook.has_value() == other.codebook.has_value());
    if (one.codebook && other.codebook) CHECK(one.codebook->centroids == other.codebook->centroids);
    REQUIRE(one.mask.has_value() == other.mask.has_value());
    if (!one.mask) continue;
    // What is kept and 0 is not told apart from what was removed.
    const FloatView values(one.value);
    for (size_t at = 0; at < values.values().size(); ++at)
      CHECK((other.mask->words[at / 64] >> (at % 64) & 1) == (values.values()[at] != 0));
  }
}

/// Recipes that between them use every way a tensor can be coded.
const std::vector<std::string> kSteps = {
    "",
    R"({"kind":"prune","sparsity":0.7})",
    R"({"kind":"quantize","scheme":{"bits":8}})",
    R"({"kind":"quantize","scheme":{"bits":4,"symmetric":false,"granularity":"group","group_size":8}})",
    R"({"kind":"quantize","scheme":{"bits":16,"granularity":"tensor"}})",
    R"({"kind":"quantize","scheme":{"bits":1}})",
    R"({"kind":"prune","sparsity":0.8},{"kind":"quantize","scheme":{"bits":3,"granularity":"global"}})",
    R"({"kind":"prune","sparsity":0.9},{"kind":"cluster","bits":3})",
    R"({"kind":"cluster","bits":5})",
    R"({"kind":"prune","pattern":"2:4"},{"kind":"quantize","scheme":{"bits":8,"symmetric":false}},{"kind":"encode","coder":"rans"})",
    R"({"kind":"prune","sparsity":0.8},{"kind":"cluster","bits":4},{"kind":"encode","coder":"huffman"})",
    R"({"kind":"quantize","scheme":{"bits":8}},{"kind":"encode","coder":"cabac","quantized_form":false})",
    R"({"kind":"encode","lambda":0.01})",
    R"({"kind":"quantize","scheme":{"bits":4}},{"kind":"encode","lambda":0.02})",
};

/// Halves, brain floats, doubles, integers and texts beside the weights.
test::OnnxFile odd_file() {
  test::OnnxFile file = test::small_mlp(21);
  file.graph.nodes.push_back(test::node("Identity", {"y"}, {"z"}));
  std::vector<uint16_t> halves(200);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(mix64(3, i));
  std::vector<double> doubles(100);
  for (size_t i = 0; i < doubles.size(); ++i) doubles[i] = std::ldexp(static_cast<double>(mix64(4, i) >> 40), -20);
  std::vector<int8_t> bytes(300);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<int8_t>(mix64(5, i) % 21 + 90);
  std::vector<int64_t> wide(64);
  for (size_t i = 0; i < wide.size(); ++i) wide[i] = static_cast<int64_t>(mix64(6, i));
  std::vector<uint8_t> nibbles(50);
  for (size_t i = 0; i < nibbles.size(); ++i) nibbles[i] = static_cast<uint8_t>(mix64(7, i));
  std::vector<float> special = {-0.0f, 0.0f, HUGE_VALF, -HUGE_VALF, 1e-44f, 3.5f, 3.5f, std::nanf("")};
  for (const std::string& message :
       {test::tensor("half", test::kFloat16, {200}, test::raw(halves)),
        test::tensor("brain", test::kBfloat16, {20, 10}, test::raw(halves)),
        test::tensor("double", test::kDouble, {100}, test::raw(doubles)),
        test::tensor("bytes", test::kInt8, {30, 10}, test::raw(bytes)),
        test::tensor("wide", test::kInt64, {64}, test::raw(wide)),
        test::tensor("int4", test::kInt4, {99}, std::string_view(reinterpret_cast<const char*>(nibbles.data()), 50)),
        test::tensor("uint2", test::kUint2, {200}, std::string_view(reinterpret_cast<const char*>(nibbles.data()), 50)),
        test::tensor("fp8", test::kFloat8E4M3FN, {50},
                     std::string_view(reinterpret_cast<const char*>(nibbles.data()), 50)),
        test::tensor("special", test::kFloat, {2, 4}, test::raw(special)),
        test::tensor("constant", test::kFloat, {100}, test::raw(std::vector<float>(100, 0.1f))),
        test::tensor("nothing", test::kFloat, {0, 3}, "")})
    file.graph.initializers.push_back(message);
  return file;
}

}  // namespace

TEST_CASE("a model comes back from a .nib with the same bits, promises and files") {
  for (const auto& [name, model] : {std::pair<const char*, Model>{"mlp", test::small_mlp(21).read()},
                                    {"cnn", test::small_cnn(21).read()},
                                    {"old", test::small_cnn(9).read()},
                                    {"odd", odd_file().read()}}) {
    CAPTURE(name);
    for (const std::string& steps : kSteps) {
      CAPTURE(steps);
      const Run result = run(recipe_of(steps), model, Context());
      const nib::File file = nib::encode(result.model);
      const Model back = nib::read(as_file(file.bytes), "test.nib");
      check_same(result.model, back);
      CHECK(full_file(back) == full_file(result.model));
      CHECK(quantized_file(back) == quantized_file(result.model));
      CHECK(decoded_form(file.bytes, false) == full_file(result.model));
      const nib::Container container = nib::parse_header(std::span(file.bytes).first(file.header_bytes));
      if (container.quantized) CHECK(decoded_form(file.bytes, true) == quantized_file(result.model));
      CHECK(measure_bytes(result.model, false, Context()).file ==
            doctest::Approx(static_cast<double>(file.bytes.size())).epsilon(0.05));
      // The engine knows it by its content, and writes the same again.
      const Model again = read_model(as_file(file.bytes), "other.nib");
      CHECK(again.header->file_bytes == file.bytes.size());
      CHECK(nib::encode(again).bytes == file.bytes);
    }
  }
}

TEST_CASE("a file holds a quantized form where there is one, and not where it is not wanted") {
  const Model model = test::small_mlp(21).read();
  const auto container_of = [&](const std::string& steps) {
    const nib::File file = nib::encode(run(recipe_of(steps), model, Context()).model);
    return nib::parse_header(std::span(file.bytes).first(file.header_bytes));
  };
  CHECK(container_of(R"({"kind":"quantize","scheme":{"bits":8}})").quantized.has_value());
  CHECK_FALSE(container_of("").quantized.has_value());
  CHECK_FALSE(container_of(R"({"kind":"cluster","bits":4})").quantized.has_value());
  CHECK_FALSE(container_of(R"({"kind":"quantize","scheme":{"bits":8}},{"kind":"encode","quantized_form":false})")
                  .quantized.has_value());
}

TEST_CASE("a safetensors model comes back as one") {
  const std::vector<float> values = test::random_floats(1024, 1);
  const Bytes bytes = test::safetensors_file(
      R"({"__metadata__":{"made":"here"},"a":{"dtype":"F32","shape":[32,32],"data_offsets":[0,4096]}})",
      test::raw(values));
  const Run result =
      run(recipe_of(R"({"kind":"quantize","scheme":{"bits":4}})"), read_model(bytes, "a.safetensors"), Context());
  const nib::File file = nib::encode(result.model);
  const Model back = nib::read(as_file(file.bytes), "a.nib");
  check_same(result.model, back);
  CHECK(back.header->format == Format::Safetensors);
  CHECK(full_file(back) == full_file(result.model));
  CHECK(file.bytes.size() < 1000);
}

TEST_CASE("how a model was made is told") {
  const Model model = test::small_mlp(21).read();
  const Run first = run(recipe_of(R"({"kind":"quantize","scheme":{"bits":4}})", 7), model, Context());
  const Model opened = nib::read(as_file(nib::encode(first.model).bytes), "a.nib");
  REQUIRE(opened.history);
  CHECK(opened.history->recipes == std::vector<std::string>{print_recipe(first.report.recipe)});
  CHECK(opened.history->file_bytes == model.header->file_bytes);
  const double sqnr = -10 * std::log10(static_cast<double>(*opened.history->noise));
  CHECK(sqnr == doctest::Approx(*first.report.total.sqnr_db).epsilon(0.01));
  // Recipes on top are added; the first file stays the first.
  const Run second = run(recipe_of(R"({"kind":"prune","sparsity":0.5})"), opened, Context());
  REQUIRE(second.model.history->recipes.size() == 2);
  CHECK(second.model.history->recipes[0] == opened.history->recipes[0]);
  CHECK(second.model.history->file_bytes == model.header->file_bytes);
  const Json json = Json::parse(describe(opened));
  CHECK(json["history"]["recipes"][0]["steps"][0]["kind"] == "quantize");
  CHECK(json["history"]["file_bytes"] == model.header->file_bytes);
  CHECK(Json::parse(describe(model))["history"] == nullptr);
}

TEST_CASE("writing a .nib is a plan like any other, and its size is the file's") {
  const Model model = test::small_cnn(21).read();
  const Run result = run(recipe_of(R"({"kind":"prune","sparsity":0.8},{"kind":"quantize","scheme":{"bits":4}})"), model,
                         Context(), Format::Nib);
  CHECK(result.report.format == Format::Nib);
  const WritePlan plan = plan_write(result.model, Format::Nib);
  const Rope rope = write_model(result.model, plan);
  CHECK(rope.size() == result.report.file_after);
  CHECK(rope.size() < quantized_file(result.model).size());
  const Json json = Json::parse(print_report(result.report));
  CHECK(json["file"]["format"] == "nib");
  size_t bytes = 0;
  for (const Json& weight : json["weights"]) {
    CHECK(weight["stored"] == "cabac");
    bytes += weight["bytes"]["file"].get<size_t>();
  }
  CHECK(bytes < rope.size());
  CHECK(bytes > rope.size() / 2);
}

TEST_CASE("the coder that is asked for is the one that is used, and auto the smallest") {
  const Model model = test::small_cnn(21).read();
  size_t sizes[4] = {};
  const char* const names[4] = {"auto", "cabac", "rans", "huffman"};
  for (size_t i = 0; i < 4; ++i) {
    const std::string steps =
        R"({"kind":"prune","sparsity":0.6},{"kind":"quantize","scheme":{"bits":8}},{"kind":"encode","coder":")" +
        std::string(names[i]) + "\"}";
    const nib::File file = nib::encode(run(recipe_of(steps), model, Context()).model);
    sizes[i] = file.bytes.size();
    for (const Weight& weight : *model.weights) {
      if (i) CHECK(to_string(file.coders[weight.param]) == names[i]);
    }
  }
  CHECK(sizes[0] <= *std::min_element(sizes + 1, sizes + 4));
  CHECK(sizes[1] < sizes[3]);
}

TEST_CASE("the byte meter counts what is in the file") {
  const Model model = test::small_cnn(21).read();
  for (const std::string& steps : kSteps) {
    CAPTURE(steps);
    const Run result = run(recipe_of(steps), model, Context());
    const ByteReport report = measure_bytes(result.model, true, Context());
    const nib::File file = nib::encode(result.model);
    CHECK(report.file == static_cast<double>(file.bytes.size()));
    CHECK(report.dense_file == full_file(result.model).size());
    double sum = report.header + report.others;
    for (const WeightBytes& bytes : report.weights) sum += bytes.nib;
    CHECK(sum == doctest::Approx(report.file));
    // The header's share is what is left: rounding to bytes and the blocks' ends are in it.
    CHECK(report.header == doctest::Approx(static_cast<double>(file.header_bytes)).epsilon(0.05));
    for (size_t i = 0; i < report.weights.size(); ++i) {
      const WeightBytes& bytes = report.weights[i];
      const Param& param = result.model.params[(*result.model.weights)[i].param];
      CHECK(bytes.dense == param.value.bytes().size());
      CHECK(bytes.entropy.has_value() == (param.grid.has_value() || param.codebook.has_value()));
      if (!bytes.entropy) continue;
      const size_t bits = param.grid ? static_cast<size_t>(param.grid->scheme.bits) : 0;
      if (param.grid) CHECK(bytes.codes == (param.value.elements() * bits + 7) / 8);
      // The frequencies of 16-bit levels are more than the levels themselves, which order-0 entropy does not count.
      if (bits <= 8) CHECK(*bytes.cabac <= 1.02 * *bytes.entropy + 60);
      CHECK(*bytes.huffman >= *bytes.entropy);
      CHECK(*bytes.rans >= *bytes.entropy);
      const double parts = (*bytes.parts)[0] + (*bytes.parts)[1] + (*bytes.parts)[2] + (*bytes.parts)[3];
      // What is left is the choice of a model: some bytes.
      CHECK(parts < *bytes.cabac);
      CHECK(parts > *bytes.cabac - 8);
    }
    // Estimates of what is small are the real thing, but for checksums and what neighbours in a block learn from each
    // other.
    const ByteReport estimate = measure_bytes(result.model, false, Context());
    CHECK(estimate.estimated);
    CHECK(estimate.header == doctest::Approx(static_cast<double>(file.header_bytes)).epsilon(0.02));
    CHECK(estimate.file == doctest::Approx(report.file).epsilon(0.02));
    for (size_t i = 0; i < report.weights.size(); ++i) {
      if (report.weights[i].cabac)
        CHECK(*estimate.weights[i].cabac == doctest::Approx(*report.weights[i].cabac).epsilon(0.03).scale(30));
    }
    CHECK(Json::parse(print(report))["weights"].size() == 2);
  }
}

TEST_CASE("packed codes are the weight's codes, bit by bit") {
  const Model model = test::small_cnn(21).read();
  const Run result = run(recipe_of(R"({"kind":"quantize","scheme":{"bits":4}})"), model, Context());
  const std::vector<uint8_t> packed = packed_codes(result.model, "V");
  const Param& param = test::param(result.model, "V");
  CHECK(packed.size() == 1440);
  const FloatView values(param.value);
  for (size_t i = 0; i < 2880; ++i) {
    const int code = packed[i / 2] >> (4 * (i % 2)) & 15;
    CHECK(static_cast<float>(code < 8 ? code : code - 16) * param.grid->scale[i / 288] == values.values()[i]);
  }
  CHECK(packed_codes(model, "V").size() == 2880 * 4);
  CHECK(test::error_of([&] { packed_codes(model, "nowhere"); }).code == ErrorCode::BadData);
}

TEST_CASE("packed codes of one bit are signs") {
  const Model model = test::small_cnn(21).read();
  const Run result = run(recipe_of(R"({"kind":"quantize","scheme":{"bits":1}})"), model, Context());
  const std::vector<uint8_t> packed = packed_codes(result.model, "V");
  const FloatView values(test::param(result.model, "V").value);
  CHECK(packed.size() == 360);
  for (size_t i = 0; i < 2880; ++i) CHECK((packed[i / 8] >> (i % 8) & 1) == (values.values()[i] > 0));
}

TEST_CASE("checksums are those of IEEE 802.3") {
  const std::string text = "123456789";
  CHECK(nib::crc32({reinterpret_cast<const uint8_t*>(text.data()), text.size()}) == 0xCBF43926u);
  CHECK(nib::crc32({}) == 0);
}

TEST_CASE("files are the same everywhere") {
  // FNV-1a of the files of all recipes, natively and as WebAssembly.
  uint64_t hash = 0xcbf29ce484222325u;
  for (const std::string& steps : kSteps) {
    for (const Model& model : {test::small_mlp(21).read(), test::small_cnn(9).read()}) {
      for (const uint8_t byte : nib::encode(run(recipe_of(steps, 3), model, Context()).model).bytes)
        hash = (hash ^ byte) * 0x100000001b3u;
    }
  }
  CHECK(hash == 10825026278510408135u);
}

// --- Other files, cut and damaged ones -------------------------------------------------------------------------------

TEST_CASE("what is no .nib, or a newer one, is refused in words") {
  const std::vector<uint8_t> good = nib::encode(test::small_mlp(21).read()).bytes;
  const auto error_for = [](std::vector<uint8_t> bytes) {
    return test::error_of([&] { nib::read(as_file(bytes), "x.nib"); });
  };
  std::vector<uint8_t> newer = good;
  newer[3] = 2;
  const Error error = error_for(newer);
  CHECK(error.code == ErrorCode::Unsupported);
  CHECK(holds(error.message, "version 2"));
  std::vector<uint8_t> other = good;
  other[0] = 'X';
  CHECK(error_for(other).code == ErrorCode::BadFile);
  std::vector<uint8_t> longer = good;
  longer.push_back(0);
  CHECK(holds(error_for(longer).message, "1 bytes too many"));
  CHECK(error_for({}).code == ErrorCode::BadFile);
  // A header that says so may ask for more than there should be.
  CHECK(test::error_of([&] { nib::read(as_file(good), "x.nib", 1000); }).code == ErrorCode::OutOfMemory);
}

TEST_CASE("entries that would take memory, or promise what cannot be, are refused by name") {
  const Model model = odd_file().read();
  const nib::File file =
      nib::encode(run(recipe_of(R"({"kind":"quantize","scheme":{"bits":4,"granularity":"group","group_size":8}})"),
                      model, Context())
                      .model);
  const nib::Container good = nib::parse_header(std::span(file.bytes).first(file.header_bytes));
  const auto refused = [&](const std::function<void(nib::Container&)>& change) {
    nib::Container bad = good;
    bad.quantized.reset();
    change(bad);
    std::vector<uint8_t> bytes = nib::seal_header(nib::print_header(bad));
    bytes.insert(bytes.end(), file.bytes.begin() + static_cast<ptrdiff_t>(file.header_bytes), file.bytes.end());
    return test::error_of([&] { nib::read(as_file(bytes), "bad.nib"); });
  };
  const auto entry = [](nib::Container& container, std::string_view name) -> nib::TensorEntry& {
    return *std::find_if(container.tensors.begin(), container.tensors.end(),
                         [&](const nib::TensorEntry& tensor) { return tensor.name == name; });
  };
  // Rows as wide as memory, of no elements.
  Error error = refused([&](nib::Container& bad) { entry(bad, "bytes").shape = {0, size_t{1} << 31}; });
  CHECK(error.code == ErrorCode::BadFile);
  CHECK(error.where == "bytes");
  CHECK(test::holds(error.message, "without elements"));
  error = refused([&](nib::Container& bad) {
    for (nib::TensorEntry& tensor : bad.tensors) tensor.scheme.group_size = 0xFFFFFFFF;
  });
  CHECK(error.code == ErrorCode::BadFile);
  CHECK(test::holds(error.message, "group size"));
  error = refused([&](nib::Container& bad) { entry(bad, "bytes").masked = true; });
  CHECK(error.code == ErrorCode::BadFile);
  CHECK(error.where == "bytes");
  CHECK(test::holds(error.message, "integers"));
  // More than this machine, or the caller, has room for: both numbers are said.
  error = test::error_of([&] { nib::read(as_file(file.bytes), "large.nib", 5000); });
  CHECK(error.code == ErrorCode::OutOfMemory);
  CHECK(test::holds(error.message, "5000"));
}

TEST_CASE("every truncation and every flipped bit of a small file is an error") {
  test::OnnxFile file;
  file.opset = 21;
  file.graph.nodes = {test::node("MatMul", {"x", "W"}, {"y"})};
  file.graph.initializers = {test::random_tensor("W", {12, 10})};
  file.graph.inputs = {test::value("x", test::kFloat, {-1, 12})};
  file.graph.outputs = {test::value("y", test::kFloat, {-1, 10})};
  for (const char* const coder : {"cabac", "rans", "huffman"}) {
    const std::vector<uint8_t> good =
        nib::encode(run(recipe_of(R"({"kind":"quantize","scheme":{"bits":4}},{"kind":"encode","coder":")" +
                                  std::string(coder) + "\"}"),
                        file.read(), Context())
                        .model)
            .bytes;
    const auto refused = [&](std::span<const uint8_t> bytes) {
      try {
        nib::read(std::as_bytes(bytes), "x.nib");
        return false;
      } catch (const Error&) {
        return true;
      }
    };
    CHECK_FALSE(refused(good));
    size_t opened = 0;
    for (size_t length = 0; length < good.size(); ++length) opened += !refused(std::span(good).first(length));
    for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
      std::vector<uint8_t> flipped = good;
      flipped[bit / 8] = static_cast<uint8_t>(flipped[bit / 8] ^ 1u << (bit % 8));
      opened += !refused(flipped);
    }
    CHECK(opened == 0);
  }
}

}  // namespace nibble
