// The parts of convolution_ops(), a file each.
#pragma once

#include "core/model/ops/ops.hpp"

namespace nibble::ops {

std::span<const Op> filter_ops();    ///< convolution.cpp: Conv, ConvTranspose, ConvInteger, QLinearConv
std::span<const Op> pooling_ops();   ///< pooling.cpp: MaxPool, AveragePool, LpPool, the global ones, MaxUnpool
std::span<const Op> region_ops();    ///< regions.cpp: MaxRoiPool, RoiAlign, DeformConv
std::span<const Op> resize_ops();    ///< resize.cpp: Resize, Upsample
std::span<const Op> sampling_ops();  ///< sampling.cpp: GridSample, AffineGrid
std::span<const Op> image_ops();     ///< image.cpp: DepthToSpace, Col2Im, LRN, crops and what else moves pixels

/// The weight of a pixel at this distance in cubic interpolation with parameter a.
double cubic_weight(double distance, double a);

}  // namespace nibble::ops
