// A dataset out of the files that were given: which of them are samples, which labels, which for testing.
#include <array>
#include <optional>
#include <utility>

#include "core/data/read.hpp"

namespace nibble {

namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return result;
}

/// The words of a file name: runs of letters and digits, split where a small letter meets a capital one ("XTest").
std::vector<std::string> words_of(std::string_view name) {
  std::vector<std::string> words;
  const auto is_small = [](char c) { return c >= 'a' && c <= 'z'; };
  const auto is_capital = [](char c) { return c >= 'A' && c <= 'Z'; };
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (size_t i = 0; i < name.size();) {
    size_t end = i;
    while (end < name.size() && (is_small(name[end]) || is_capital(name[end]) || is_digit(name[end]))) {
      ++end;
      if (end < name.size() && is_small(name[end - 1]) && is_capital(name[end])) break;
      // A capital before a capitalised word: X|Test.
      if (end + 1 < name.size() && is_capital(name[end - 1]) && is_capital(name[end]) && is_small(name[end + 1])) break;
    }
    if (end > i) words.push_back(lower(name.substr(i, end - i)));
    i = end > i ? end : i + 1;
  }
  return words;
}

bool any_of(std::span<const std::string> words, std::initializer_list<std::string_view> known) {
  return std::any_of(words.begin(), words.end(), [&](const std::string& word) {
    return std::find(known.begin(), known.end(), word) != known.end();
  });
}

/// "data/x_train.npy": the path's last part without its ending.
std::string_view stem_of(std::string_view path) {
  path.remove_prefix(std::min(path.size(), path.find_last_of('/') + 1));  // npos + 1 is 0
  return path.substr(0, path.find_last_of('.'));
}

/// What a part is for. Parts for validation join those for training: how training samples are split is the caller's.
enum class Purpose : uint8_t { Training, Validation, Test };

/// By the last part of the path that says it: "mnist-test/x_train.npy" is for training.
Purpose purpose_of(std::string_view path) {
  for (;;) {
    const size_t slash = path.find_last_of('/');
    const std::vector<std::string> words = words_of(path.substr(slash == std::string_view::npos ? 0 : slash + 1));
    if (any_of(words, {"train", "training", "xtrain", "ytrain"})) return Purpose::Training;
    if (any_of(words, {"test", "testing", "t10k", "xtest", "ytest"})) return Purpose::Test;
    if (any_of(words, {"val", "valid", "validation", "xval", "yval"})) return Purpose::Validation;
    if (slash == std::string_view::npos) return Purpose::Training;
    path = path.substr(0, slash);
  }
}

enum class Role { Unknown, Samples, Labels };

Role role_of(std::span<const std::string> words) {
  if (any_of(words, {"y", "label", "labels", "target", "targets", "ytrain", "ytest", "yval"})) return Role::Labels;
  if (any_of(words, {"x", "image", "images", "img", "imgs", "data", "input", "inputs", "feature", "features", "sample",
                     "samples", "xtrain", "xtest", "xval"})) {
    return Role::Samples;
  }
  return Role::Unknown;
}

/// A file's array and what its name says.
struct Part {
  const NamedFile* file;
  StoredArray array;
  Purpose purpose = Purpose::Training;
  Role role = Role::Unknown;

  const std::string& name() const { return file->name; }
  const Shape& shape() const { return array.shape; }
};

/// Bytes of a stored file that is nevertheless read whole.
constexpr uint64_t kMostHeld = uint64_t{1} << 30;

/// The whole file; a stored one is read into `held`.
std::span<const std::byte> whole(const NamedFile& file, std::vector<std::byte>& held) {
  if (!file.stored.read) return file.bytes;
  if (file.stored.size > kMostHeld) {
    fail(ErrorCode::OutOfMemory, file.name,
         "its " + std::to_string(file.stored.size) + " bytes are more than can be held; only arrays of samples (npy, " +
             "IDX) are read piece by piece");
  }
  try {
    held.resize(static_cast<size_t>(file.stored.size));
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::OutOfMemory, file.name, "no room for its " + std::to_string(file.stored.size) + " bytes");
  }
  file.stored.read(0, held);
  return held;
}

Tensor values_of(const Part& part) {
  std::vector<std::byte> held;
  return read_array(whole(*part.file, held), part.array);
}

/// The labels of an integer tensor.
std::vector<int32_t> to_labels(const Tensor& values, std::string_view name) {
  std::vector<int32_t> labels;
  labels.reserve(values.elements());
  const auto convert = [&]<class T>(T) {
    for (T value : values.data<T>()) {
      if (std::cmp_less(value, 0) || std::cmp_greater(value, INT32_MAX)) {
        fail(ErrorCode::BadData, std::string(name),
             "sample " + std::to_string(labels.size()) + " has the label " + std::to_string(value) +
                 ", expected 0 or more");
      }
      labels.push_back(static_cast<int32_t>(value));
    }
  };
  switch (values.dtype()) {
    case DType::Bool:
    case DType::UInt8: convert(uint8_t{}); break;
    case DType::Int8: convert(int8_t{}); break;
    case DType::Int16: convert(int16_t{}); break;
    case DType::UInt16: convert(uint16_t{}); break;
    case DType::Int32: convert(int32_t{}); break;
    case DType::UInt32: convert(uint32_t{}); break;
    case DType::Int64: convert(int64_t{}); break;
    case DType::UInt64: convert(uint64_t{}); break;
    default: break;
  }
  return labels;
}

/// The class of each row where a row is zeros with a single one ("one-hot", as Keras' to_categorical makes them).
std::optional<std::vector<int32_t>> from_one_hot(const Tensor& rows) {
  const size_t columns = rows.shape()[1];
  const std::span<const float> values = rows.data<float>();
  std::vector<int32_t> labels;
  for (size_t i = 0; i < rows.shape()[0]; ++i) {
    const std::span<const float> row = values.subspan(i * columns, columns);
    const auto one = std::find(row.begin(), row.end(), 1.0f);
    if (one == row.end() || std::count(row.begin(), row.end(), 0.0f) != static_cast<ptrdiff_t>(columns) - 1) return {};
    labels.push_back(static_cast<int32_t>(one - row.begin()));
  }
  return labels;
}

Dataset dataset_of(const Part& samples, const Part* labels) {
  if (samples.shape().empty()) {
    fail(ErrorCode::BadData, samples.name(), "a single number; expected an array with a row for each sample");
  }
  const size_t size = samples.shape()[0];
  Shape shape(samples.shape().begin() + 1, samples.shape().end());
  if (shape == Shape{kFlatImage}) shape = {kFlatImageSide, kFlatImageSide};
  const SampleLayout layout = guess_layout(shape);
  if (!labels && samples.shape().size() < 2 && !is_real(samples.array.dtype)) {
    fail(ErrorCode::BadData, samples.name(),
         "one number for each of " + std::to_string(size) +
             " samples: these look like labels; give the samples with them");
  }
  // In Fortran order the rows of a file do not lie together.
  const bool turned = samples.array.fortran && samples.shape().size() > 1;
  Dataset dataset =
      samples.file->stored.read && !(turned && samples.file->stored.size <= kMostHeld)
          ? stored_samples(samples.name(), samples.file->stored, samples.array, shape, layout)
          : in_memory(samples.name(), to_samples(values_of(samples), samples.name()).reshaped(batch_shape(size, shape)),
                      layout, {});
  if (!labels) return dataset;

  const Shape& rows = labels->shape();
  const size_t count = rows.empty() ? 0 : rows[0];
  if (count != size) {
    fail(ErrorCode::BadData, labels->name(),
         std::to_string(count) + " labels for the " + std::to_string(size) + " samples of " + samples.name() +
             ": each sample needs one");
  }
  if (rows.size() > 2) {
    fail(ErrorCode::BadData, labels->name(),
         "labels of shape " + to_string(rows) + "; expected one row for each sample");
  }
  const Tensor values = values_of(*labels);
  if (!is_real(values.dtype()) && values.elements() == count) {
    set_labels(dataset, to_labels(values, labels->name()));
    check(dataset);
    return dataset;
  }
  const Tensor read = to_samples(values, labels->name());
  const size_t outputs = rows.size() == 2 ? rows[1] : 1;
  const Tensor targets = from_floats(DType::Float32, {count, outputs},
                                     read.dtype() == DType::UInt8
                                         ? std::vector<float>(read.data<uint8_t>().begin(), read.data<uint8_t>().end())
                                         : std::vector<float>(read.data<float>().begin(), read.data<float>().end()));
  if (outputs > 1) {
    if (std::optional<std::vector<int32_t>> found = from_one_hot(targets)) {
      std::vector<std::string> names(outputs);
      for (size_t i = 0; i < outputs; ++i) names[i] = std::to_string(i);
      set_labels(dataset, std::move(*found), std::move(names));
      check(dataset);
      return dataset;
    }
  }
  dataset.targets = targets;
  check(dataset);
  return dataset;
}

/// Finds out by shape what the names leave open: labels are a list (or a column) beside samples with more extents.
void settle_roles(std::span<Part*> parts) {
  if (parts.size() == 1) {
    if (parts[0]->role == Role::Unknown) parts[0]->role = Role::Samples;
    return;
  }
  if (parts.size() != 2) return;
  Part &a = *parts[0], &b = *parts[1];
  if (a.role == Role::Unknown && b.role == Role::Unknown) {
    const bool first_is_labels = a.shape().size() < 2 && b.shape().size() >= 2;
    a.role = first_is_labels ? Role::Labels : Role::Samples;
  }
  if (a.role == Role::Unknown) a.role = b.role == Role::Samples ? Role::Labels : Role::Samples;
  if (b.role == Role::Unknown) b.role = a.role == Role::Samples ? Role::Labels : Role::Samples;
}

/// Where everything has one purpose there is nothing to tell it from.
template <class Item>
void settle_purposes(std::span<Item> items) {
  const auto differs = [&](const Item& item) { return item.purpose != items[0].purpose; };
  if (std::any_of(items.begin(), items.end(), differs)) return;
  for (Item& item : items) item.purpose = Purpose::Training;
}

/// One dataset for each purpose, indexed by it.
using ByPurpose = std::array<std::optional<Dataset>, 3>;

Dataset joined(ByPurpose parts, std::string_view name) {
  auto& [training, validation, test] = parts;
  if (!training && validation) std::swap(training, validation);
  if (!training) fail(ErrorCode::BadData, std::string(name), "nothing to train with");
  Dataset dataset = std::move(*training);
  if (validation) {
    dataset = with_test(std::move(dataset), std::move(*validation));
    dataset.test_from = dataset.size;
  }
  if (test) dataset = with_test(std::move(dataset), std::move(*test));
  dataset.name = name;
  return dataset;
}

Dataset from_parts(std::vector<Part> parts, std::string_view name) {
  settle_purposes(std::span(parts));
  ByPurpose found;
  for (Purpose purpose : {Purpose::Training, Purpose::Validation, Purpose::Test}) {
    std::vector<Part*> own;
    for (Part& part : parts) {
      if (part.purpose == purpose) own.push_back(&part);
    }
    if (own.empty()) continue;
    settle_roles(own);
    const Part *samples = nullptr, *labels = nullptr;
    for (const Part* part : own) {
      if (part->role == Role::Unknown) {
        fail(ErrorCode::BadData, part->name(),
             "cannot tell samples from labels by this name; call them x_train, y_train, x_test and y_test");
      }
      const Part*& place = part->role == Role::Samples ? samples : labels;
      if (place) {
        fail(ErrorCode::BadData, part->name(),
             "both this and " + place->name() + " hold " + (part->role == Role::Samples ? "samples" : "labels") +
                 "; give one file of each, and call those for testing x_test and y_test");
      }
      place = part;
    }
    if (!samples) fail(ErrorCode::BadData, labels->name(), "labels without samples; give the samples with them");
    found[static_cast<size_t>(purpose)] = dataset_of(*samples, labels);
  }
  return joined(std::move(found), name);
}

enum class Kind { Npy, Idx, Csv };

/// The first kHead bytes, or all of a file in memory; those of a stored one are read into `held`.
std::span<const std::byte> head_of(const NamedFile& file, std::vector<std::byte>& held) {
  if (!file.stored.read) return file.bytes;
  held.resize(static_cast<size_t>(std::min<uint64_t>(file.stored.size, kHead)));
  file.stored.read(0, held);
  return held;
}

Kind kind_of(const NamedFile& file, std::span<const std::byte> head) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  if (text.empty()) fail(ErrorCode::BadFile, file.name, "the file is empty");
  if (text.starts_with("\x93NUMPY")) return Kind::Npy;
  const auto refuse = [&](std::string message) { fail(ErrorCode::Unsupported, file.name, std::move(message)); };
  if (text.starts_with("\x1F\x8B") || text.starts_with("PK\x03\x04")) refuse("unpack the file first");
  if (text.starts_with("\x89PNG") || text.starts_with("\xFF\xD8\xFF") || text.starts_with("GIF8")) {
    refuse("a single image is no dataset; give images in folders that are named after their classes");
  }
  if (text.starts_with("\x89HDF")) refuse("HDF5 is not read; save the arrays with np.savez");
  if (text.starts_with("PAR1")) refuse("Parquet is not read; save the table as CSV or the arrays with np.savez");
  if (text.starts_with("\x80")) refuse("pickled Python objects are not read; save the arrays with np.savez");
  if (text.size() >= 2 && text[0] == 0 && text[1] == 0) return Kind::Idx;
  return Kind::Csv;
}

}  // namespace

SampleLayout guess_layout(const Shape& shape) {
  const auto is_channels = [](size_t extent) { return extent == 1 || extent == 3 || extent == 4; };
  if (shape.size() == 2) return SampleLayout::Hw;
  if (shape.size() != 3) return SampleLayout::Features;
  if (is_channels(shape[2])) return SampleLayout::Hwc;
  return is_channels(shape[0]) ? SampleLayout::Chw : SampleLayout::Features;
}

Dataset read_dataset(std::span<const NamedFile> files, std::string_view name) {
  if (files.empty()) fail(ErrorCode::BadFile, std::string(name), "no file was given");
  std::vector<std::vector<std::byte>> held(files.size());
  std::vector<std::span<const std::byte>> heads;
  std::vector<Kind> kinds;
  for (size_t i = 0; i < files.size(); ++i) {
    heads.push_back(head_of(files[i], held[i]));
    kinds.push_back(kind_of(files[i], heads[i]));
  }
  const auto is_table = [](Kind kind) { return kind == Kind::Csv; };
  if (std::none_of(kinds.begin(), kinds.end(), is_table)) {
    // A file saved without names has arr_0 alone; then the file's own name has to say what it is.
    const auto is_first = [](const NamedFile& file) { return stem_of(file.name) == "arr_0"; };
    const bool by_path = std::count_if(files.begin(), files.end(), is_first) > 1;
    std::vector<Part> parts;
    for (size_t i = 0; i < files.size(); ++i) {
      const NamedFile& file = files[i];
      const uint64_t size = file.stored.read ? file.stored.size : file.bytes.size();
      const auto header = kinds[i] == Kind::Npy ? npy_header : idx_header;
      Part part{&file, header(heads[i], size, file.name), purpose_of(file.name)};
      part.role = role_of(words_of(by_path ? std::string_view(file.name) : stem_of(file.name)));
      if (part.role == Role::Unknown && !by_path && is_first(file)) part.role = Role::Samples;
      if (part.role == Role::Unknown && !by_path && stem_of(file.name) == "arr_1") part.role = Role::Labels;
      // In IDX files rank says it more surely than any name.
      if (kinds[i] == Kind::Idx) part.role = part.shape().size() > 1 ? Role::Samples : Role::Labels;
      parts.push_back(std::move(part));
    }
    if (parts.size() == 1) parts[0].role = Role::Samples;
    return from_parts(std::move(parts), name);
  }

  struct Table {
    const NamedFile* file;
    Purpose purpose;
  };
  std::vector<Table> tables;
  for (size_t i = 0; i < files.size(); ++i) {
    if (!is_table(kinds[i])) {
      fail(ErrorCode::BadData, files[i].name, "arrays and tables do not go together; give one or the other");
    }
    tables.push_back({&files[i], purpose_of(files[i].name)});
  }
  settle_purposes(std::span(tables));
  ByPurpose found;
  for (const Table& table : tables) {
    std::optional<Dataset>& place = found[static_cast<size_t>(table.purpose)];
    if (place) {
      fail(ErrorCode::BadData, table.file->name,
           "more tables than one to train with and one to test with; the latter has \"test\" in its name");
    }
    std::vector<std::byte> text;
    place = read_csv(whole(*table.file, text), table.file->name);
  }
  return joined(std::move(found), name);
}

}  // namespace nibble
