// Files that mean harm. Seeded mutations of good files go the whole way (read, describe, run, write, read again): only
// Error may come out, in bounded time and memory, and what opens can be written and opened again. The allocation
// functions are replaced here for the whole test program, so that memory is counted and not guessed.
#include <doctest/doctest.h>
#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <new>
#include <protozero/pbf_reader.hpp>
#include <string>
#include <vector>

#include "core/formats/nib.hpp"
#include "core/pipeline/pipeline.hpp"
#include "tests/core/support.hpp"

namespace {

struct Memory {
  size_t live = 0, peak = 0, largest = 0;
} memory;  // the tests have one thread

// More than any case may ask for: answered as a machine without memory would, and found in `largest` afterwards.
constexpr size_t kNoMachine = size_t{1} << 30;

void* count_new(size_t size) noexcept {
  memory.largest = std::max(memory.largest, size);
  if (size > kNoMachine) return nullptr;
  void* at = std::malloc(size ? size : 1);
  if (at) memory.live += malloc_usable_size(at);
  memory.peak = std::max(memory.peak, memory.live);
  return at;
}

void count_delete(void* at) noexcept {
  if (at) memory.live -= malloc_usable_size(at);
  std::free(at);
}

}  // namespace

void* operator new(size_t size) {
  void* at = count_new(size);
  if (!at) throw std::bad_alloc();
  return at;
}
void* operator new[](size_t size) { return operator new(size); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return count_new(size); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return count_new(size); }
void operator delete(void* at) noexcept { count_delete(at); }
void operator delete[](void* at) noexcept { count_delete(at); }
void operator delete(void* at, size_t) noexcept { count_delete(at); }
void operator delete[](void* at, size_t) noexcept { count_delete(at); }
void operator delete(void* at, const std::nothrow_t&) noexcept { count_delete(at); }
void operator delete[](void* at, const std::nothrow_t&) noexcept { count_delete(at); }

namespace nibble {
namespace {

using namespace test;

/// Seconds of this program's own, whatever else the machine does.
double now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// What is done with a file that opens: together these reach every kernel that works on weights.
const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> kRecipes = [] {
    std::vector<Recipe> all;
    for (
        const char* text :
        {R"({"version":1,"steps":[{"kind":"prune","sparsity":0.4},{"kind":"cluster","bits":3},{"kind":"encode","lambda":0.01}]})",
         R"({"version":1,"steps":[{"kind":"quantize","scheme":{"bits":5}},{"kind":"encode","coder":"huffman","lambda":0.001}]})",
         R"({"version":1,"steps":[{"kind":"prune","sparsity":0.5,"scope":"global"},{"kind":"quantize","scheme":{"bits":8,"symmetric":true,"granularity":"channel"},"range":"mse"}]})",
         R"({"version":1,"steps":[{"kind":"quantize","scheme":{"bits":4,"symmetric":false,"granularity":"group","group_size":32},"range":"minmax"}]})",
         R"({"version":1,"steps":[{"kind":"prune","sparsity":0.5,"pattern":"channels"},{"kind":"quantize","scheme":{"bits":4,"symmetric":true,"granularity":"channel"},"rounding":"stochastic"}]})",
         R"({"version":1,"steps":[{"kind":"quantize","scheme":{"bits":16,"symmetric":true,"granularity":"tensor"},"range":"percentile"}]})",
         R"({"version":1,"steps":[{"kind":"quantize","scheme":{"bits":1,"symmetric":true,"granularity":"global"},"range":"sigma"}]})"}) {
      all.push_back(parse_recipe(text));
    }
    return all;
  }();
  return kRecipes;
}

/// How the cases of one test ended.
struct Tally {
  size_t cases = 0, opened = 0, refused = 0;
  double longest = 0;
};

constexpr size_t kFreeBytes = size_t{1} << 20;
/// No speed is asserted: what takes the square of a file's size takes minutes, what does not some tenths, and several
/// seconds at worst under the sanitizers.
constexpr double kMostSeconds = 30;

Bytes write_and_reopen(const Model& model) {
  const Rope rope = write_model(model, plan_write(model, model.header->format));
  const size_t promised = rope.size();
  Bytes bytes = rope.bytes();
  if (bytes.size() != promised) throw std::logic_error("a file of another size than promised");
  read_model(bytes, "reopened");
  return bytes;
}

/// Of a decoded .nib: its own size says little about it.
constexpr size_t kMostDecoded = size_t{1} << 18;

/// Runs one file through everything. An Error may come from reading; once a file is open nothing may fail. At no time
/// may there be more memory in use than `times_input` times the file and a megabyte.
void drive(std::span<const std::byte> file, size_t choice, Tally& tally, size_t times_input = 64) {
  ++tally.cases;
  const Recipe& recipe = recipes()[choice % recipes().size()];
  const double start = now();
  const size_t before = memory.live;
  memory.peak = memory.live;
  memory.largest = 0;
  const bool nib = nib::looks_like_nib(file);
  std::string failure;
  bool opened = false;
  try {
    const Model model = nib ? nib::read(file, "hostile", kMostDecoded) : read_model(file, "hostile");
    opened = true;
    describe(model);
    // What a .nib restores may have grids still to be written; from the second writing on nothing may change.
    const Bytes first = write_and_reopen(model);
    const Bytes once = nib ? write_and_reopen(read_model(first, "reopened")) : first;
    if (once != write_and_reopen(read_model(once, "reopened"))) failure = "a second round trip gives another file";
    const Run result = run(recipe, model, Context());
    print_report(result.report);
    const Rope after = write_model(result.model, plan_write(result.model, result.report.format));
    if (after.size() != result.report.file_after) failure = "the report gives another size";
    read_model(after.bytes(), "reopened");
  } catch (const Error& error) {
    if (opened) failure = std::string("it opened, and then: ") + error.what();
  } catch (const std::exception& error) {
    failure = std::string("not an Error: ") + error.what();
  }
  const size_t most = times_input * (file.size() + (nib ? kMostDecoded : 0)) + kFreeBytes, peak = memory.peak - before,
               largest = memory.largest;
  const double seconds = now() - start;
  ++(opened ? tally.opened : tally.refused);
  tally.longest = std::max(tally.longest, seconds);
  CHECK_MESSAGE(failure.empty(), failure);
  CHECK(largest <= most);
  CHECK(peak <= most);
  CHECK(seconds < kMostSeconds);
}

void report(const std::string& what, const Tally& tally) {
  MESSAGE(what, ": ", tally.cases, " cases, ", tally.opened, " opened, ", tally.refused, " refused, longest ",
          tally.longest, " s");
}

// ---- mutations of bytes ----

constexpr uint64_t kOddNumbers[] = {0,
                                    1,
                                    2,
                                    3,
                                    7,
                                    8,
                                    9,
                                    10,
                                    15,
                                    16,
                                    21,
                                    22,
                                    63,
                                    64,
                                    127,
                                    128,
                                    255,
                                    256,
                                    1023,
                                    1024,
                                    16383,
                                    16384,
                                    65535,
                                    0x7fffffff,
                                    0x80000000,
                                    0xffffffff,
                                    0x100000000,
                                    uint64_t{1} << 40,
                                    uint64_t{1} << 47,
                                    uint64_t{1} << 48,
                                    uint64_t{1} << 62,
                                    ~uint64_t{0} >> 1,
                                    uint64_t{1} << 63,
                                    ~uint64_t{0} - 1,
                                    ~uint64_t{0}};

uint64_t odd_number(Random& random) { return kOddNumbers[random.below(std::size(kOddNumbers))]; }

std::string varint(uint64_t value) {
  std::string out;
  protozero::add_varint_to_buffer(&out, value);
  return out;
}

std::string flip_bits(std::string file, Random& random) {
  for (size_t i = 1 + random.below(4); i-- > 0 && !file.empty();)
    file[random.below(file.size())] ^= static_cast<char>(1 << random.below(8));
  return file;
}

std::string set_bytes(std::string file, Random& random) {
  for (size_t i = 1 + random.below(3); i-- > 0 && !file.empty();) {
    constexpr char kBytes[] = {
        0, 1, 8, 10, 18, 34, '{', '"', '9', 0x7F, static_cast<char>(0x80), static_cast<char>(0xFF)};
    file[random.below(file.size())] =
        random.below(3) ? kBytes[random.below(std::size(kBytes))] : static_cast<char>(random.bits());
  }
  return file;
}

std::string put_varint(std::string file, Random& random) {
  const size_t at = random.below(file.size() + 1);
  const size_t count =
      random.below(3);  // first, because arguments have no order and mutations shall be the same everywhere
  return file.replace(at, count, varint(odd_number(random)));
}

/// Cuts a piece out, doubles it, or puts it elsewhere.
std::string splice(std::string file, Random& random, const std::string& other) {
  const size_t from = random.below(other.size() + 1),
               size = random.below(std::min<size_t>(64, other.size() - from) + 1);
  const std::string piece = other.substr(from, size);
  const size_t at = random.below(file.size() + 1);
  switch (random.below(3)) {
    case 0: return file.erase(at, random.below(64));
    case 1: return file.insert(at, piece);
    default: return file.replace(at, piece.size(), piece);
  }
}

std::string truncate(std::string file, Random& random) {
  file.resize(random.below(file.size() + 1));
  return file;
}

// ---- mutations of messages: the lengths stay right, so that they get through to what is behind the encoding ----

struct Field {
  uint32_t number = 0, wire = 0;
  uint64_t integer = 0;  ///< of wire type 0
  std::string bytes;     ///< of the other types, where it is no message
  std::vector<Field> message;
};

/// reader.next(), and false where a length does not fit (protozero itself is not to be asked, see
/// formats/onnx_read.cpp).
bool next_field(protozero::pbf_reader& reader) {
  if (!reader.next()) return false;
  if (reader.wire_type() != protozero::pbf_wire_type::length_delimited) return true;
  const protozero::data_view rest = reader.data();
  const char* at = rest.data();
  const uint64_t length = protozero::decode_varint(&at, rest.data() + rest.size());
  if (length > static_cast<uint64_t>(rest.data() + rest.size() - at)) throw protozero::end_of_buffer_exception{};
  return true;
}

/// The fields, or none where the bytes are no message or hardly one.
bool parse_fields(std::string_view bytes, std::vector<Field>& out, int depth = 0) {
  try {
    protozero::pbf_reader reader(bytes.data(), bytes.size());
    while (next_field(reader)) {
      Field field{reader.tag(), static_cast<uint32_t>(reader.wire_type()), 0, "", {}};
      if (field.number > 40) return false;
      if (field.wire == 0) {
        field.integer = reader.get_uint64();
      } else if (field.wire == 2) {
        const protozero::data_view view = reader.get_view();
        // Raw data (9 of a tensor) can look like a message by chance; a mutation of it as one does no harm.
        if (view.size() < 2 || depth > 12 || !parse_fields({view.data(), view.size()}, field.message, depth + 1)) {
          field.message.clear();
          field.bytes.assign(view.data(), view.size());
        }
      } else {
        const char* const start = reader.data().data();
        reader.skip();
        field.bytes.assign(start, reader.data().data());
      }
      out.push_back(std::move(field));
    }
    return true;
  } catch (const protozero::exception&) {
    return false;
  }
}

std::string encode_fields(const std::vector<Field>& fields) {
  std::string out;
  for (const Field& field : fields) {
    out += varint(uint64_t{field.number} << 3 | field.wire);
    if (field.wire == 0) {
      out += varint(field.integer);
    } else if (field.wire == 2) {
      const std::string inner = field.message.empty() ? field.bytes : encode_fields(field.message);
      out += varint(inner.size());
      out += inner;
    } else {
      out += field.bytes;
    }
  }
  return out;
}

void list_fields(std::vector<Field>& fields, std::vector<std::pair<std::vector<Field>*, size_t>>& out) {
  for (size_t i = 0; i < fields.size(); ++i) {
    out.emplace_back(&fields, i);
    list_fields(fields[i].message, out);
  }
}

std::string change_fields(const std::string& file, Random& random) {
  std::vector<Field> fields;
  if (!parse_fields(file, fields)) return file;
  for (size_t times = 1 + random.below(3); times-- > 0;) {
    std::vector<std::pair<std::vector<Field>*, size_t>> all;
    list_fields(fields, all);
    if (all.empty()) break;
    const auto [list, at] = all[random.below(all.size())];
    const auto [other_list, other_at] = all[random.below(all.size())];
    const Field other = (*other_list)[other_at];
    Field& field = (*list)[at];
    switch (random.below(8)) {
      case 0: list->erase(list->begin() + static_cast<ptrdiff_t>(at)); break;
      case 1: list->insert(list->begin() + static_cast<ptrdiff_t>(at), Field(field)); break;
      case 2: list->insert(list->begin() + static_cast<ptrdiff_t>(at), other); break;
      case 3: field.number = static_cast<uint32_t>(1 + random.below(25)); break;
      case 4:
      case 5:
        if (field.wire == 0) field.integer = random.below(2) ? odd_number(random) : random.below(30);
        if (field.wire == 2 && field.message.empty())
          field.bytes = random.below(2) ? set_bytes(field.bytes, random) : truncate(field.bytes, random);
        if (field.wire == 2 && !field.message.empty()) std::reverse(field.message.begin(), field.message.end());
        break;
      case 6:  // one name or message in another's place: nodes of other inputs, tensors of other names
        if (field.wire == other.wire) {
          const uint32_t number = field.number;
          field = other;
          field.number = number;
        }
        break;
      default:
        if (field.wire == 5 || field.wire == 1) field.bytes = flip_bits(field.bytes, random);
        if (field.wire == 2)
          field.bytes = splice(encode_fields(field.message) + field.bytes, random, other.bytes), field.message.clear();
    }
  }
  return encode_fields(fields);
}

/// One length in the file, at any depth, is wrong by one, zero or enormous; the others are left as they were.
std::string change_length(const std::string& file, Random& random) {
  std::vector<size_t> places;
  const auto walk = [&](const auto& self, size_t begin, size_t end, int depth) -> void {
    std::vector<Field> ignored;
    if (depth > 12 || !parse_fields(std::string_view(file).substr(begin, end - begin), ignored)) return;
    protozero::pbf_reader reader(file.data() + begin, end - begin);
    while (next_field(reader)) {
      if (reader.wire_type() != protozero::pbf_wire_type::length_delimited) {
        reader.skip();
        continue;
      }
      places.push_back(static_cast<size_t>(reader.data().data() - file.data()));
      const protozero::data_view view = reader.get_view();
      const size_t inner = static_cast<size_t>(view.data() - file.data());
      if (view.size() > 1) self(self, inner, inner + view.size(), depth + 1);
    }
  };
  walk(walk, 0, file.size(), 0);
  if (places.empty()) return file;
  const size_t at = places[random.below(places.size())];
  const char* after = file.data() + at;
  const uint64_t length = protozero::decode_varint(&after, file.data() + file.size());
  const uint64_t changed = random.below(3) == 0 ? length + 1 : random.below(2) ? length - 1 : odd_number(random);
  std::string out = file;
  return out.replace(at, static_cast<size_t>(after - (file.data() + at)), varint(changed));
}

std::string mutate_onnx(const std::string& file, const std::string& other, Random& random) {
  switch (random.below(10)) {
    case 0: return flip_bits(file, random);
    case 1: return set_bytes(file, random);
    case 2: return put_varint(file, random);
    case 3: return splice(file, random, other);
    case 4: return change_length(file, random);
    case 5: return truncate(file, random);
    default: return change_fields(file, random);
  }
}

std::string mutate_safetensors(const std::string& file, const std::string& other, Random& random) {
  const size_t header = std::min<size_t>(
      file.size(),
      8 + (file.size() > 1 ? static_cast<unsigned char>(file[0]) + 256u * static_cast<unsigned char>(file[1]) : 0));
  std::string out = file;
  switch (random.below(9)) {
    case 0: return flip_bits(file, random);
    case 1: return set_bytes(file, random);
    case 2: return splice(file, random, other);
    case 3: return truncate(file, random);
    case 4: {  // values alone: NaN, infinities, denormal numbers among them
      std::string data = file.substr(header);
      for (size_t i = 0; i < 4; ++i) data = set_bytes(std::move(data), random);
      return file.substr(0, header) + data;
    }
    case 5: {  // the header's length
      const uint64_t length = random.below(2) ? odd_number(random) : header - 8 + random.below(5) - 2;
      for (size_t i = 0; i < 8 && i < out.size(); ++i) out[i] = static_cast<char>(length >> (8 * i));
      return out;
    }
    default: {  // a number, a word or a sign of the header, with its length put right
      std::string text = file.substr(std::min<size_t>(8, file.size()), header - std::min<size_t>(8, header));
      for (size_t times = 1 + random.below(2); times-- > 0 && !text.empty();) {
        size_t at = random.below(text.size());
        for (size_t i = 0; i < 40 && !(text[at] >= '0' && text[at] <= '9'); ++i) at = random.below(text.size());
        constexpr const char* kWords[] = {
            "0",          "1",       "2",    "4",  "8",  "16",  "-1",   "1e5", "18446744073709551615",
            "4294967296", "null",    "\"\"", "{}", "[]", "F16", "BF16", "U8",  "C64",
            "\"a\":{},",  "\\u0000", "\xff", "}",  "]",  ","};
        const size_t count = random.below(3);
        text.replace(at, count, kWords[random.below(std::size(kWords))]);
      }
      return text_of(safetensors_file(text, file.substr(header)));
    }
  }
}

// ---- the good files ----

/// As many of the reader's, the finder's and the raiser's paths as a few kilobytes can hold.
OnnxFile everything(int64_t opset) {
  GraphFile branch;
  branch.initializers = {random_tensor("inner", {12, 12})};
  branch.nodes = {node("MatMul", {"h", "inner"}, {"t0"}),
                  node("Squeeze", {"t0"}, {"t"}, {attribute("axes", std::vector<int64_t>{0})})};
  branch.outputs = {value("t", kFloat, {-1, 12})};
  std::string halves = tensor_head("H", kFloat16, {40});
  const std::vector<int32_t> bits(40, 0x3C01);
  protozero::pbf_writer(halves).add_packed_int32(5, bits.begin(), bits.end());
  std::string words = tensor_head("words", kString, {2});
  protozero::pbf_writer(words).add_bytes(6, "one");
  protozero::pbf_writer(words).add_bytes(6, "two");
  const float nan = std::nanf("");
  std::vector<float> odd(12 * 12, 1e-42f);
  odd[1] = nan, odd[2] = HUGE_VALF, odd[3] = -HUGE_VALF, odd[4] = 3e38f, odd[5] = -3e38f, odd[6] = -0.0f;
  OnnxFile file;
  file.opset = opset;
  file.ir_version = 4;
  file.more_opsets = {{"com.microsoft", 1}};
  file.graph.nodes = {
      node("Transpose", {"W"}, {"Wt"}, {attribute("perm", std::vector<int64_t>{1, 0})}),
      node("MatMul", {"x", "Wt"}, {"a"}, {}, "first"),
      node("Clip", {"a"}, {"b"}, {float_attribute("min", 0), float_attribute("max", 6)}),
      node("Constant", {}, {"C"}, {tensor_attribute("value", random_tensor("own", {12, 12}))}),
      node("Reshape", {"V", "shape"}, {"Vr"}),
      node("Gemm", {"b", "C", "bias"}, {"c"}, {attribute("transB", int64_t{1}), float_attribute("alpha", 1)}),
      node("MatMul", {"c", "Vr"}, {"d"}),
      node("MatMul", {"d", "odd"}, {"e"}),
      node("Softmax", {"e"}, {"f"}, {attribute("axis", int64_t{1})}, "soft"),
      node("Pad", {"f"}, {"g"}, {attribute("pads", std::vector<int64_t>{0, 0, 0, 0})}),
      node("Slice", {"g"}, {"h"},
           {attribute("starts", std::vector<int64_t>{0}), attribute("ends", std::vector<int64_t>{9})}),
      node("If", {"cond"}, {"i"},
           {graph_attribute("then_branch", branch.encode()), graph_attribute("else_branch", branch.encode())},
           "choose"),
      node("Gather", {"T", "ids"}, {"j"}),
      node("LSTM", {"j", "LW", "LR"}, {"k"}, {attribute("hidden_size", int64_t{3})}),
      node("Conv", {"x", "K"}, {"l"}, {text_attribute("auto_pad", "VALID")}),
      node("ConvTranspose", {"l", "U"}, {"y"}, {floats_attribute("odd", {1, 2})})};
  file.graph.initializers = {random_tensor("W", {12, 8}),
                             random_tensor("V", {4, 3, 12}),
                             int64_tensor("shape", {12, -1}),
                             random_tensor("bias", {12}),
                             float_tensor("odd", {12, 12}, odd),
                             random_tensor("T", {20, 5}),
                             random_tensor("LW", {1, 12, 5}),
                             random_tensor("LR", {1, 12, 3}),
                             random_tensor("K", {6, 2, 3, 3}),
                             random_tensor("U", {6, 4, 2, 2}),
                             halves,
                             words,
                             tensor("four", kInt4, {3}, "ab"),
                             float_tensor("none", {0, 5}, {})};
  file.graph.inputs = {value("x", kFloat, {-1, 8}), value("W", kFloat, {12, 8})};
  file.graph.outputs = {value("y", kFloat, {-1, 4})};
  file.graph.values = {value("e", kFloat, {-1, 12})};
  file.extra = std::string("\x12\x05maker\x72\x03\x0A\x01k", 12);
  return file;
}

std::vector<std::string> onnx_files() {
  return {text_of(small_mlp(13).encode()), text_of(small_cnn(9).encode()), text_of(everything(9).encode()),
          text_of(everything(21).encode())};
}

std::vector<std::string> safetensors_files() {
  const std::string two =
      R"({"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[8,6],"data_offsets":[0,192]},)"
      R"("a.bias":{"dtype":"F16","shape":[8],"data_offsets":[192,208]}})";
  const std::string mixed =
      R"({"w":{"dtype":"BF16","shape":[4,2,3],"data_offsets":[0,48]},"n":{"dtype":"F64","shape":[0,9],"data_offsets":[48,48]},)"
      R"("i":{"dtype":"I64","shape":[],"data_offsets":[48,56]},"d":{"dtype":"F64","shape":[2,2],"data_offsets":[56,88]}}   )";
  return {text_of(safetensors_file(two, raw(random_floats(52, 1)))),
          text_of(safetensors_file(mixed, raw(random_floats(22, 2)))), text_of(safetensors_file("{}", ""))};
}

TEST_CASE("the good files that are mutated open and go all the way") {
  Tally tally;
  for (const std::vector<std::string>& files : {onnx_files(), safetensors_files()}) {
    for (const std::string& file : files) {
      for (size_t choice = 0; choice < recipes().size(); ++choice) drive(bytes_of(file), choice, tally);
    }
  }
  CHECK(tally.refused == 0);
}

TEST_CASE("a file cut off at any length is refused, or is a smaller file") {
  Tally tally;
  for (const std::string& file :
       {text_of(everything(9).encode()), onnx_files()[0], safetensors_files()[0], safetensors_files()[1]}) {
    const Bytes bytes = bytes_of(file);
    for (size_t length = 0; length < bytes.size(); ++length) {
      CAPTURE(length);
      drive(std::span(bytes).first(length), length, tally);
    }
  }
  CHECK(tally.refused > 1000);
  report("cut off", tally);
}

TEST_CASE("mutated ONNX files do no harm") {
  const std::vector<std::string> files = onnx_files();
  Tally tally;
  for (size_t i = 0; i < 3000; ++i) {
    CAPTURE(i);
    Random random{mix64(2024, i)};
    const std::string& file = files[i % files.size()];
    std::string mutant = mutate_onnx(file, files[random.below(files.size())], random);
    if (random.below(3) == 0) mutant = mutate_onnx(mutant, file, random);
    drive(bytes_of(mutant), i, tally);
  }
  report("mutated ONNX", tally);
  // A mutator whose files never open, or always do, tests nothing.
  CHECK(tally.opened > tally.cases / 10);
  CHECK(tally.refused > tally.cases / 10);
}

TEST_CASE("mutated safetensors files do no harm") {
  const std::vector<std::string> files = safetensors_files();
  Tally tally;
  for (size_t i = 0; i < 5000; ++i) {
    CAPTURE(i);
    Random random{mix64(2025, i)};
    const std::string& file = files[i % files.size()];
    std::string mutant = mutate_safetensors(file, files[random.below(files.size())], random);
    if (random.below(3) == 0) mutant = mutate_safetensors(mutant, file, random);
    drive(bytes_of(mutant), i, tally);
  }
  report("mutated safetensors", tally);
  CHECK(tally.opened > tally.cases / 10);
  CHECK(tally.refused > tally.cases / 10);
}

/// Small files with every kind of values and of block.
std::vector<std::string> nib_files() {
  std::vector<std::string> files;
  for (
      const char* const steps :
      {R"({"kind":"encode"})", R"({"kind":"prune","sparsity":0.7},{"kind":"quantize","scheme":{"bits":8}})",
       R"({"kind":"quantize","scheme":{"bits":4,"symmetric":false,"granularity":"group","group_size":8}},{"kind":"encode","coder":"rans"})",
       R"({"kind":"prune","sparsity":0.8},{"kind":"cluster","bits":4},{"kind":"encode","coder":"huffman"})"}) {
    const Recipe recipe = parse_recipe("{\"version\":1,\"steps\":[" + std::string(steps) + "]}");
    for (const Model& model : {small_mlp(21).read(), everything(21).read(),
                               read_model(bytes_of(safetensors_files()[0]), "small.safetensors")}) {
      const std::vector<uint8_t> bytes = nib::encode(run(recipe, model, Context()).model).bytes;
      files.emplace_back(bytes.begin(), bytes.end());
    }
  }
  return files;
}

/// Changes what its checksums guard, with checksums that fit again.
std::string mutate_nib(const std::string& file, Random& random) {
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(file.data()), file.size());
  nib::Container container = nib::parse_header(bytes.first(nib::header_extent(bytes)));
  std::string blocks = file.substr(container.header_bytes);
  std::string header;
  const auto print = [&] {
    const std::vector<uint8_t> printed = nib::print_header(container);
    header.assign(printed.begin(), printed.end());
  };
  switch (random.below(10)) {
    case 0: return flip_bits(file, random);
    case 1: return truncate(file, random);
    case 2:
    case 3:
    case 4:  // a block
      if (nib::BlockEntry& block = container.blocks[random.below(container.blocks.size())]; block.bytes) {
        const size_t at = block.offset - container.header_bytes;
        std::string content = blocks.substr(at, block.bytes);
        for (size_t times = 1 + random.below(3); times-- > 0;)
          content = random.below(4) == 0 ? splice(content, random, blocks)
                    : random.below(2)    ? flip_bits(content, random)
                                         : set_bytes(content, random);
        blocks.replace(at, block.bytes, content);
        block.bytes = content.size();
        block.crc = nib::crc32({reinterpret_cast<const uint8_t*>(content.data()), content.size()});
      }
      print();
      break;
    case 5:
    case 6:  // an entry
      for (size_t times = 1 + random.below(2); times-- > 0;) {
        nib::TensorEntry& tensor = container.tensors[random.below(container.tensors.size())];
        const nib::TensorEntry& other = container.tensors[random.below(container.tensors.size())];
        switch (random.below(9)) {
          case 0: tensor.dtype = static_cast<DType>(random.below(static_cast<size_t>(DType::Complex128) + 1)); break;
          case 1:
            tensor.shape.push_back(static_cast<size_t>(random.below(2) ? odd_number(random) : random.below(9)));
            break;
          case 2: tensor.values = static_cast<nib::Values>(random.below(5)); break;
          case 3: tensor.scheme.bits = static_cast<int>(random.below(17)); break;
          case 4: tensor.scheme.granularity = static_cast<Granularity>(random.below(4)); break;
          case 5: tensor.scheme.symmetric = !tensor.scheme.symmetric; break;
          case 6: tensor.masked = !tensor.masked, tensor.shared = random.below(2); break;
          case 7: tensor.shape = other.shape; break;
          default: tensor = other;
        }
        tensor.scheme.group_size = std::max<size_t>(1, tensor.scheme.group_size);
      }
      if (nib::BlockEntry& block = container.blocks[random.below(container.blocks.size())]; random.below(3) == 0)
        block.coder = static_cast<EntropyCoder>(random.below(4));
      print();
      break;
    default:  // the header's bytes
      print();
      for (size_t times = 1 + random.below(2); times-- > 0;)
        header = random.below(3) == 0 ? splice(header, random, header)
                 : random.below(2)    ? put_varint(header, random)
                                      : set_bytes(header, random);
  }
  const std::vector<uint8_t> sealed = nib::seal_header({header.begin(), header.end()});
  return std::string(sealed.begin(), sealed.end()) + blocks;
}

TEST_CASE("mutated .nib files do no harm") {
  const std::vector<std::string> files = nib_files();
  Tally good, tally;
  for (const std::string& file : files) {
    for (size_t choice = 0; choice < recipes().size(); ++choice) drive(bytes_of(file), choice, good);
  }
  CHECK(good.refused == 0);
  for (size_t i = 0; i < 4000; ++i) {
    CAPTURE(i);
    Random random{mix64(2026, i)};
    drive(bytes_of(mutate_nib(files[i % files.size()], random)), i, tally);
  }
  report("mutated .nib", tally);
  CHECK(tally.opened > tally.cases / 10);
  CHECK(tally.refused > tally.cases / 10);
}

TEST_CASE("malformed files of the data folder, and mutations of small real models, do no harm") {
  Tally tally;
  std::vector<std::filesystem::path> paths = data_files("malformed", {});
  for (const char* folder : {"onnx", "safetensors"}) {
    for (const std::filesystem::path& path : data_files(folder, {".onnx", ".safetensors"}, 30'000))
      paths.push_back(path);
  }
  for (const std::filesystem::path& path : paths) {
    CAPTURE(path.string());
    const std::string file = text_of(read_file(path));
    const bool safetensors = path.extension() == ".safetensors";
    if (file.size() > 100'000) continue;
    drive(bytes_of(file), file.size(), tally);
    for (size_t i = 0; i < 25; ++i) {
      CAPTURE(i);
      Random random{mix64(file.size(), i)};
      drive(bytes_of(safetensors ? mutate_safetensors(file, file, random) : mutate_onnx(file, file, random)), i, tally);
    }
  }
  report("files of the data folder", tally);
}

TEST_CASE("extents that cost a file no bytes cost no time and no memory") {
  Tally tally;
  constexpr int64_t kHuge = sizeof(size_t) == 8 ? int64_t{1} << 40 : int64_t{1} << 30;
  for (const Dims& dims : {Dims{kHuge, 0}, Dims{0, kHuge}, Dims{kHuge, kHuge, 0}, Dims{0, kHuge, 1},
                           Dims{kHuge, kHuge, kHuge, 0}, Dims{3, 0, kHuge, 3}}) {
    for (const char* op : {"MatMul", "Conv", "ConvTranspose", "Gather", "Gemm"}) {
      OnnxFile file;
      file.graph.nodes = {node("Flatten", {"W"}, {"f"}), node(op, {"x", "f"}, {"y"}), node(op, {"x", "W"}, {"y"}),
                          node("Gather", {"W", "x"}, {"z"})};
      file.graph.initializers = {float_tensor("W", dims, {})};
      for (size_t choice = 0; choice < recipes().size(); ++choice) drive(file.encode(), choice, tally);
    }
  }
  const std::string header =
      R"({"w":{"dtype":"F32","shape":[0,1073741824],"data_offsets":[0,0]},"v":{"dtype":"F16","shape":[1073741824,0],"data_offsets":[0,0]}})";
  for (size_t choice = 0; choice < recipes().size(); ++choice) drive(safetensors_file(header, ""), choice, tally);
  CHECK(tally.refused == 0);
}

TEST_CASE("counts and lengths that a file only claims reserve nothing") {
  Tally tally;
  for (const uint64_t claimed : kOddNumbers) {
    // A graph, an initializer, raw data and packed integers of this length, in files of a few bytes.
    for (const std::string& head :
         {std::string("\x3A"), std::string("\x3A\x20\x2A"), std::string("\x3A\x20\x2A\x10\x4A"),
          std::string("\x3A\x20\x2A\x10\x3A"), std::string("\x3A\x20\x2A\x10\x0A")}) {
      drive(bytes_of(head + varint(claimed) + "0123456789"), 0, tally);
    }
    OnnxFile file = small_mlp();
    file.graph.initializers.push_back(tensor_head("t", kFloat, {static_cast<int64_t>(claimed)}));
    drive(file.encode(), 0, tally);
    file.graph.initializers.back() = tensor_head("t", kString, {static_cast<int64_t>(claimed)});
    drive(file.encode(), 0, tally);
    file.graph.initializers.back() =
        tensor_head("t", kComplex128, {static_cast<int64_t>(claimed), static_cast<int64_t>(claimed)});
    drive(file.encode(), 0, tally);
    drive(safetensors_file(R"({"w":{"dtype":"C64","shape":[)" + std::to_string(claimed) + R"(],"data_offsets":[0,)" +
                               std::to_string(claimed) + "]}}",
                           "1234"),
          0, tally);
  }
}

TEST_CASE("graphs made to be slow are not") {
  Tally tally;
  // Their weights have a few bytes each and a line of the report, so that the report outweighs the file by far.
  constexpr size_t kTimesInput = 256;
  // A long chain of rearrangements that ends in many uses, each of which is traced.
  OnnxFile chain = small_mlp();
  for (int i = 0; i < 2000; ++i) {
    const std::string from = i ? "t" + std::to_string(i - 1) : "W1";
    chain.graph.nodes.push_back(node("Reshape", {from, from}, {"t" + std::to_string(i)}));
    chain.graph.nodes.push_back(node("MatMul", {"x", "t" + std::to_string(i)}, {"m" + std::to_string(i)}));
  }
  drive(chain.encode(), 1, tally, kTimesInput);
  // One name for every tensor in many subgraphs, and for every output.
  GraphFile branch;
  branch.initializers = {random_tensor("k", {2, 2})};
  branch.nodes = {node("MatMul", {"x", "k"}, {"y"})};
  OnnxFile same;
  for (int i = 0; i < 1000; ++i)
    same.graph.nodes.push_back(node("If", {"c"}, {"y"}, {graph_attribute("then_branch", branch.encode())}, "n"));
  drive(same.encode(), 1, tally, kTimesInput);
  // Subgraphs in subgraphs, each with weights.
  GraphFile graph = branch;
  for (int i = 0; i < 100; ++i) {
    GraphFile outer = branch;
    outer.nodes.push_back(node("If", {"c"}, {"y"}, {graph_attribute("then_branch", graph.encode())}, "n"));
    graph = outer;
  }
  OnnxFile deep;
  deep.graph = graph;
  drive(deep.encode(), 1, tally, kTimesInput);
  // Thousands of subgraphs in each other: refused before the stack ends.
  std::string nested = branch.encode();
  for (int i = 0; i < 3000; ++i) {
    GraphFile outer;
    outer.nodes = {node("If", {}, {}, {graph_attribute("b", nested)})};
    nested = outer.encode();
  }
  std::string model;
  protozero::pbf_writer(model).add_message(7, nested);
  drive(bytes_of(model), 0, tally);
  CHECK(tally.opened == 3);
  CHECK(tally.refused == 1);
  report("slow graphs", tally);
}

}  // namespace
}  // namespace nibble
