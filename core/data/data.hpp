// Data to run, calibrate, train and test with: samples, labels, how they are split, how they become a model's input.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/context.hpp"
#include "core/tensor/tensor.hpp"

namespace nibble {

/// What the extents of one sample mean.
enum class SampleLayout : uint8_t {
  Features,  ///< any; numbers without places
  Hw,        ///< a grey image [height, width]
  Chw,       ///< [channels, height, width]
  Hwc,       ///< [height, width, channels]
};
std::string_view to_string(SampleLayout layout);  ///< "features", "hw", "chw", "hwc"

/// Samples with what is known about each. Samples may lie in memory or be read when asked for; labels are in memory.
struct Dataset {
  std::string name;  ///< "digits:seed=1,n=2000", or the file's
  Shape shape;       ///< of one sample
  SampleLayout layout = SampleLayout::Features;
  DType dtype = DType::Float32;  ///< UInt8 or Float32; other types are converted when read
  size_t size = 0;

  /// Exactly one of the two, or neither for unlabelled data.
  std::vector<int32_t> labels;           ///< a class for each sample, 0 to classes - 1
  Tensor targets;                        ///< float32 [size, outputs]: numbers to be predicted
  size_t classes = 0;                    ///< 0 where there are no labels
  std::vector<std::string> class_names;  ///< one for each class

  /// Samples from this one on are the test split that the files themselves set apart; `size` where they do not.
  size_t test_from = 0;

  /// Gives the samples, [indices.size(), shape...] of `dtype`.
  std::function<Tensor(std::span<const uint32_t> indices)> read;

  bool labelled() const { return !labels.empty(); }
};

/// A dataset whose samples are in memory. Throws Error{BadData} where the number of labels is not that of samples.
Dataset in_memory(std::string name, Tensor samples, SampleLayout layout, std::vector<int32_t> labels,
                  std::vector<std::string> class_names = {});

/// Throws Error{BadData}: an empty dataset, labels outside 0 to classes - 1 (naming the first such sample), samples of
/// another number than `size`.
void check(const Dataset& dataset);

/// Throws Error{BadData} where a model that gives `outputs` numbers for each sample cannot be judged by these data:
/// fewer than there are classes, or another number than there are targets.
void check_outputs(const Dataset& dataset, size_t outputs);

/// Labels, or targets one row after the other, of these samples; empty where there are none.
std::vector<int32_t> labels_of(const Dataset& dataset, std::span<const uint32_t> indices);
std::vector<float> targets_of(const Dataset& dataset, std::span<const uint32_t> indices);

/// `second`'s samples after `first`'s, as its test split. Classes are told apart by their names. Throws Error{BadData}
/// where shapes differ, or for a class that `first` lacks (but where all are numbers, `first` gets it).
Dataset with_test(Dataset first, Dataset second);

// --- Files -----------------------------------------------------------------------------------------------------------

/// A tensor of a NumPy file (format version 1 to 3; C or Fortran order; little or big endian; bool, integers, float16,
/// float32, float64). Throws Error{BadFile} naming the byte, or Error{Unsupported} for objects, strings and complex.
Tensor read_npy(std::span<const std::byte> file, std::string_view name);

/// A tensor of an IDX file (LeCun's MNIST format): types 0x08 to 0x0E, big endian, 1 to 255 dimensions.
Tensor read_idx(std::span<const std::byte> file, std::string_view name);

/// A file too large to be held, whose bytes are read when they are asked for.
struct StoredFile {
  uint64_t size = 0;
  /// Fills `into` with the file's bytes from `offset` on; throws Error{BadFile} where they cannot be read.
  std::function<void(uint64_t offset, std::span<std::byte> into)> read;
};

/// Named parts of what the caller unpacked: the members of an npz, a pair of IDX files, one CSV. Gzip and zip are the
/// caller's to undo.
struct NamedFile {
  std::string name;
  std::span<const std::byte> bytes;
  StoredFile stored = {};  ///< in place of `bytes`, where it can be read
};

/// A dataset of whatever was given, by content and name. Names are read as words ("x_train", "XTest", "train-images"),
/// the path's last part first.
///   Arrays (IDX, npy, the members of an npz): those called x, images, data, inputs, features or arr_0 are samples, y,
///     labels, targets or arr_1 labels (integers, or rows with a single 1) or targets (reals). In IDX files, and of two
///     arrays whose names say neither, rank decides: labels are a list. A single array is samples without labels.
///   test, t10k: the test split. val, valid, validation: further samples to train with. A name that all parts share
///     says nothing.
///   CSV: a row per sample, comma, semicolon or tab, with or without a header line; the column called label, class,
///     target or y, else the last, is the label where it holds whole numbers (0 to 999, or at most 100 different ones)
///     or words, a target where it holds others. 784 columns beside the label are an image of 28 x 28; there an unnamed
///     label comes first, as in MNIST's tables, and 784 columns alone are images without labels. A first column without
///     a name (row numbers, as pandas writes them) is left out.
/// Samples of rank 2 are Hw, of rank 3 Hwc where the last extent is 1, 3 or 4, else Chw where the first is, others
/// Features; rows of 784 numbers are images of 28 x 28.
/// Samples of a stored file stay there: the dataset's `read` reads the rows that it is asked for. Labels, tables and
/// samples in Fortran order, whose rows do not lie together, are read whole, up to 1 GiB.
/// Throws Error{BadFile} naming file and line or byte, Error{Unsupported}, Error{OutOfMemory}, or Error{BadData} for
/// parts that do not fit together.
Dataset read_dataset(std::span<const NamedFile> files, std::string_view name);

// --- Made here -------------------------------------------------------------------------------------------------------

/// Handwritten-like digits: 28 x 28 grey bytes, strokes with random affine maps, thickness, elastic distortion and
/// noise. Sample i depends on (seed, i) alone. `n` samples, classes in a random order, about equally often; the last
/// sixth is the test split. 1 <= n <= 1,000,000.
Dataset digits(uint64_t seed, size_t n);

/// Points of y = x W + b + noise with `inputs` inputs and one output: for linear regression.
Dataset linear_data(uint64_t seed, size_t n, size_t inputs);

// --- Splits ----------------------------------------------------------------------------------------------------------

/// Indices of the samples for each purpose. Nobody who chooses anything ever sees `test`. Calibration is part of
/// training (it needs no labels); the others are disjoint.
struct Split {
  std::vector<uint32_t> calibration, training, validation, test;
};
/// `validation` and `test` are fractions of all samples, 0 to 0.5; `test` only counts where the dataset has no test
/// split of its own. Seeded; each class keeps its share. Calibration: the first `calibration` of training.
struct SplitChoice {
  double validation = 0.1, test = 0.1;
  size_t calibration = 256;
};
Split split(const Dataset& dataset, const SplitChoice& choice, uint64_t seed);

// --- Preparation -----------------------------------------------------------------------------------------------------

/// How stored samples become a model's input: input = (stored * scale - mean[channel]) / std[channel], laid out as
/// `shape` in `layout`. Images become other layouts; where one side is Features, numbers keep their order.
struct Preparation {
  Shape shape;  ///< of one sample as the model takes it, without the batch extent
  SampleLayout layout = SampleLayout::Features;
  float scale = 1;
  std::vector<float> mean = {0}, std = {1};  ///< one entry, or one for each channel
  std::string reason;                        ///< a sentence for the user: where this comes from
};

/// Throws Error{BadData} naming both shapes where a sample cannot become the input (images are never resized or cut
/// silently).
void check(const Preparation& preparation, const Dataset& dataset);

/// The model's input for these samples: float32 [indices.size(), preparation.shape...].
Tensor prepare(const Dataset& dataset, const Preparation& preparation, std::span<const uint32_t> indices);

}  // namespace nibble
