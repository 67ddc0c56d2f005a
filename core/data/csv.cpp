// Tables in text: a row per sample (RFC 4180, without line breaks inside quotes).
#include <cmath>
#include <cstdlib>
#include <map>
#include <optional>

#include "core/data/read.hpp"

namespace nibble {

namespace {

/// Whole numbers below this are classes that count from 0. Larger ones are classes only where few differ.
constexpr double kMostNumberedClasses = 1000;
constexpr size_t kMostDistinct = 100;
constexpr size_t kMostWords = 10000;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\r\v\f";
  const size_t first = std::min(text.find_first_not_of(kSpaces), text.size());
  // Nothing is still a place in the text, which a message names.
  return text.substr(first, first < text.size() ? text.find_last_not_of(kSpaces) - first + 1 : 0);
}

std::string shown(std::string_view cell) {
  constexpr size_t kMost = 40;
  std::string text = "\"";
  text.append(cell.substr(0, kMost)).append(cell.size() > kMost ? "...\"" : "\"");
  return text;
}

/// The lines of a text that are not blank, one after the other.
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}

  bool next(std::string_view& line) {
    while (!rest_.empty()) {
      const size_t end = rest_.find('\n');
      line = rest_.substr(0, end);
      rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
      ++number_;
      if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
      if (!trimmed(line).empty()) return true;
    }
    return false;
  }
  /// Of the line last given, from 1.
  size_t number() const { return number_; }

 private:
  std::string_view rest_;
  size_t number_ = 0;
};

/// Cuts a line into cells, without their quotes. False where a quote does not end as it should.
bool cut(std::string_view line, char separator, std::vector<std::string_view>& cells) {
  cells.clear();
  for (;;) {
    size_t start = 0;
    while (start < line.size() && line[start] == ' ') ++start;
    if (start < line.size() && line[start] == '"') {
      size_t end = start + 1;
      for (;; end += 2) {  // over doubled quotes, which stand for one
        end = line.find('"', end);
        if (end == std::string_view::npos) return false;
        if (end + 1 >= line.size() || line[end + 1] != '"') break;
      }
      cells.push_back(line.substr(start + 1, end - start - 1));
      const size_t after = line.find(separator, end);
      if (!trimmed(line.substr(end + 1, after == std::string_view::npos ? after : after - end - 1)).empty())
        return false;
      if (after == std::string_view::npos) return true;
      line.remove_prefix(after + 1);
      continue;
    }
    const size_t end = line.find(separator);
    cells.push_back(trimmed(line.substr(0, end)));
    if (end == std::string_view::npos) return true;
    line.remove_prefix(end + 1);
  }
}

std::string unquoted(std::string_view cell) {
  std::string text;
  for (size_t i = 0; i < cell.size(); ++i) {
    text += cell[i];
    if (cell[i] == '"' && i + 1 < cell.size() && cell[i + 1] == '"') ++i;
  }
  return text;
}

/// A decimal number such as -1.5e3, and nothing else: no hexadecimal digits, no "nan", no "inf".
std::optional<double> number_of(std::string_view cell) {
  constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  constexpr uint64_t kExact = uint64_t{1} << 53;
  constexpr size_t kLongest = 1000;
  if (cell.size() > kLongest) return {};
  size_t at = 0;
  const auto digit = [&] { return at < cell.size() && cell[at] >= '0' && cell[at] <= '9'; };
  const bool negative = at < cell.size() && cell[at] == '-';
  if (at < cell.size() && (cell[at] == '-' || cell[at] == '+')) ++at;
  uint64_t mantissa = 0;
  size_t digits = 0;
  int exponent = 0;
  for (; digit(); ++at, ++digits)
    mantissa = mantissa < kExact ? mantissa * 10 + static_cast<uint64_t>(cell[at] - '0') : kExact;
  if (at < cell.size() && cell[at] == '.') {
    for (++at; digit(); ++at, ++digits, --exponent) {
      mantissa = mantissa < kExact ? mantissa * 10 + static_cast<uint64_t>(cell[at] - '0') : kExact;
    }
  }
  if (digits == 0) return {};
  if (at < cell.size() && (cell[at] == 'e' || cell[at] == 'E')) {
    ++at;
    const bool down = at < cell.size() && cell[at] == '-';
    if (at < cell.size() && (cell[at] == '-' || cell[at] == '+')) ++at;
    if (!digit()) return {};
    int shift = 0;
    for (; digit(); ++at) shift = std::min(shift * 10 + (cell[at] - '0'), 100000);
    exponent += down ? -shift : shift;
  }
  if (at != cell.size()) return {};
  // Both factors are exact, so one rounding gives the nearest double (W. D. Clinger, "How to read floating point
  // numbers accurately", PLDI 1990). The rest is rare enough for the library.
  if (mantissa < kExact && exponent >= -22 && exponent <= 22) {
    const auto value = static_cast<double>(mantissa);
    const double scaled = exponent < 0 ? value / kPowers[-exponent] : value * kPowers[exponent];
    return negative ? -scaled : scaled;
  }
  const double value = std::strtod(std::string(cell).c_str(), nullptr);
  if (!std::isfinite(value)) return {};
  return value;
}

/// Tab or semicolon where the line has one outside of quotes, else comma: commas beside the others are those of numbers
/// or of words.
char separator_of(std::string_view line) {
  bool quoted = false, semicolon = false, tab = false;
  for (char c : line) {
    if (c == '"') quoted = !quoted;
    if (quoted) continue;
    semicolon |= c == ';';
    tab |= c == '\t';
  }
  return tab ? '\t' : semicolon ? ';' : ',';
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return result;
}

/// The samples as they come in: bytes while every number is one, which makes an MNIST table as small as the images it
/// was made of; then floats.
class Samples {
 public:
  Samples(size_t rows, size_t columns, bool may_be_bytes) : rows_(rows), columns_(columns), bytes_(may_be_bytes) {
    values_ = Tensor::allocate(bytes_ ? DType::UInt8 : DType::Float32, {rows, columns});
    open();
  }

  void put(size_t at, double value) {
    if (bytes_) {
      if (value >= 0 && value <= 255 && value == std::floor(value)) {
        as_bytes_[at] = static_cast<uint8_t>(value);
        return;
      }
      Tensor floats = Tensor::allocate(DType::Float32, {rows_, columns_});
      std::copy(as_bytes_.begin(), as_bytes_.begin() + static_cast<ptrdiff_t>(at), floats.write<float>().begin());
      values_ = std::move(floats);
      bytes_ = false;
      open();
    }
    as_floats_[at] = static_cast<float>(value);
  }

  Tensor take() && { return std::move(values_); }

 private:
  void open() {
    if (bytes_) {
      as_bytes_ = values_.write<uint8_t>();
    } else {
      as_floats_ = values_.write<float>();
    }
  }

  size_t rows_, columns_;
  bool bytes_;
  Tensor values_;
  std::span<uint8_t> as_bytes_;
  std::span<float> as_floats_;
};

/// What the header line, or its absence, says about the columns.
struct Columns {
  size_t count = 0;
  bool has_header = false;
  std::vector<std::string> names;  ///< of the header
  std::optional<size_t> label, row_number;

  /// The column as a message calls it.
  std::string describe(size_t column) const {
    return "column " + std::to_string(column + 1) + (has_header ? " (" + shown(names[column]) + ")" : "");
  }
};

/// True where the first line is not a row like the second: some cell is a word where below it stands a number.
bool is_header(std::span<const std::string_view> first, std::span<const std::string_view> second) {
  for (size_t i = 0; i < std::min(first.size(), second.size()); ++i) {
    if (!number_of(first[i]) && number_of(second[i])) return true;
  }
  return false;
}

Columns columns_of(std::span<const std::string_view> first, std::span<const std::string_view> second) {
  Columns columns;
  columns.count = first.size();
  columns.has_header = is_header(first, second);
  if (columns.has_header) {
    for (std::string_view cell : first) columns.names.push_back(unquoted(cell));
    // pandas writes its row numbers under no name. They say nothing about a sample.
    if (first.size() > 1 && first[0].empty()) columns.row_number = 0;
    for (std::string_view wanted : {"label", "class", "target", "y"}) {
      for (size_t i = 0; i < first.size() && !columns.label; ++i) {
        if (lower(columns.names[i]) == wanted) columns.label = i;
      }
    }
  }
  const size_t values = columns.count - (columns.row_number ? 1 : 0);
  if (columns.label || values < 2 || values == kFlatImage) return columns;  // unnamed: none, or an image alone
  // Where MNIST's digits are written as text, the label comes first.
  columns.label = values == kFlatImage + 1 ? columns.count - values : columns.count - 1;
  return columns;
}

/// Turns the cells of the label column into labels or targets.
class Labels {
 public:
  Labels(std::string_view text, std::string_view file, std::span<const std::string_view> cells)
      : text_(text), file_(file), cells_(cells) {}

  void give(Dataset& dataset) const {
    std::vector<double> numbers;
    size_t words = 0, first_word = 0;
    bool whole = true;
    for (size_t i = 0; i < cells_.size(); ++i) {
      if (cells_[i].empty()) refuse(i, "the label is missing");
      const std::optional<double> number = number_of(cells_[i]);
      if (!number && words++ == 0) first_word = i;
      numbers.push_back(number.value_or(0));
      whole = whole && numbers.back() == std::floor(numbers.back());
    }
    if (words > 0) {
      if (words * 2 < cells_.size()) {
        refuse(first_word, "the label is " + shown(cells_[first_word]) + ", most others are numbers");
      }
      from_words(dataset);
      return;
    }
    if (whole && from_whole_numbers(dataset, numbers)) return;
    Tensor targets = Tensor::allocate(DType::Float32, {numbers.size(), 1});
    std::transform(numbers.begin(), numbers.end(), targets.write<float>().begin(),
                   [](double value) { return static_cast<float>(value); });
    dataset.targets = std::move(targets);
  }

 private:
  [[noreturn]] void refuse(size_t row, std::string message) const {
    const auto before = static_cast<size_t>(cells_[row].data() - text_.data());
    const auto line = 1 + std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(before), '\n');
    fail(ErrorCode::BadFile, std::string(file_) + ", line " + std::to_string(line), std::move(message));
  }

  void from_words(Dataset& dataset) const {
    std::map<std::string_view, int32_t> places;
    for (size_t i = 0; i < cells_.size(); ++i) {
      places.emplace(cells_[i], 0);
      if (places.size() > kMostWords) {
        refuse(i, "more than " + std::to_string(kMostWords) +
                      " different words in the label column: is it a name or a number of the sample?");
      }
    }
    int32_t next = 0;
    for (auto& [word, place] : places) {
      place = next++;
      dataset.class_names.push_back(unquoted(word));
    }
    for (std::string_view cell : cells_) dataset.labels.push_back(places[cell]);
    dataset.classes = places.size();
  }

  /// False where they are too many to be classes.
  static bool from_whole_numbers(Dataset& dataset, std::span<const double> numbers) {
    const auto [least, most] = std::minmax_element(numbers.begin(), numbers.end());
    if (*least >= 0 && *most < kMostNumberedClasses) {
      for (double number : numbers) dataset.labels.push_back(static_cast<int32_t>(number));
      dataset.classes = static_cast<size_t>(*most) + 1;
      for (size_t i = 0; i < dataset.classes; ++i) dataset.class_names.push_back(std::to_string(i));
      return true;
    }
    std::map<double, int32_t> places;
    for (double number : numbers) {
      places.emplace(number, 0);
      if (places.size() > kMostDistinct || std::abs(number) > 1e15) return false;
    }
    int32_t next = 0;
    for (auto& [number, place] : places) {
      place = next++;
      dataset.class_names.push_back(std::to_string(static_cast<int64_t>(number)));
    }
    for (double number : numbers) dataset.labels.push_back(places[number]);
    dataset.classes = places.size();
    return true;
  }

  std::string_view text_, file_;
  std::span<const std::string_view> cells_;
};

}  // namespace

Dataset read_csv(std::span<const std::byte> file, std::string_view name) {
  std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // the mark that says UTF-8
  constexpr size_t kLook = 4096;
  if (const size_t nothing = text.substr(0, kLook).find('\0'); nothing != std::string_view::npos) {
    fail_at(name, nothing,
            "neither NumPy nor IDX, and not text (a zero byte); data is read from NumPy, IDX and CSV files in UTF-8");
  }

  std::string_view line;
  std::vector<std::string_view> first, cells;
  const auto refuse = [&](const Lines& lines, std::string message) {
    fail(ErrorCode::BadFile, std::string(name) + ", line " + std::to_string(lines.number()), std::move(message));
  };
  const auto cut_line = [&](const Lines& lines, char separator, std::vector<std::string_view>& into) {
    if (!cut(line, separator, into)) refuse(lines, "a quoted cell does not end where a cell does");
  };
  Lines lines(text);
  if (!lines.next(line)) fail(ErrorCode::BadFile, std::string(name), "the file is empty: expected a row per sample");
  const char separator = separator_of(line);
  cut_line(lines, separator, first);
  size_t rows = 1;
  if (lines.next(line)) {
    cut_line(lines, separator, cells);
    ++rows;
    while (lines.next(line)) ++rows;
  }
  const Columns columns = columns_of(first, cells);
  if (columns.has_header) --rows;
  const size_t skipped = (columns.label ? 1 : 0) + (columns.row_number ? 1 : 0);
  const size_t features = columns.count - skipped;
  if (features == 0) fail(ErrorCode::BadFile, std::string(name), "there is no column beside the label");

  // A row of that many cells is at least as many bytes, so a file that lies about its rows gets no more memory than an
  // honest one of its size.
  rows = std::min(rows, text.size() / columns.count + 1);
  Samples samples(rows, features, features == kFlatImage);
  std::vector<std::string_view> labels;
  if (columns.label) labels.reserve(rows);
  Lines again(text);
  if (columns.has_header) again.next(line);
  size_t at = 0;
  while (again.next(line)) {
    cut_line(again, separator, cells);
    if (cells.size() != columns.count) {
      refuse(again, "expected " + std::to_string(columns.count) + " cells as in the first line, found " +
                        std::to_string(cells.size()));
    }
    for (size_t i = 0; i < cells.size(); ++i) {
      if (columns.label == i) {
        labels.push_back(cells[i]);
        continue;
      }
      if (columns.row_number == i) continue;
      const std::optional<double> number = number_of(cells[i]);
      if (!number || std::abs(*number) > 3.4028234663852886e38) {
        refuse(again, columns.describe(i) + ": expected a number, found " +
                          (cells[i].empty() ? "nothing; fill the cell or leave the row out"
                                            : shown(cells[i]) + "; words belong in the label column alone"));
      }
      samples.put(at++, *number);
    }
  }

  Shape shape = {rows, features};
  if (features == kFlatImage) shape = {rows, kFlatImageSide, kFlatImageSide};
  Dataset dataset = in_memory(std::string(name), std::move(samples).take().reshaped(std::move(shape)),
                              features == kFlatImage ? SampleLayout::Hw : SampleLayout::Features, {});
  if (columns.label) Labels(text, name, labels).give(dataset);
  check(dataset);
  return dataset;
}

}  // namespace nibble
