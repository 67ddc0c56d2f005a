// Einsum: Einstein's summation convention with NumPy's notation, by permutations and matrix products.
#include <cctype>
#include <map>

#include "core/model/ops/shape_parts.hpp"

namespace nibble::ops {

namespace {

/// Letters are labels by their code; axes under an ellipsis are -1 at the right end, -2 before it, and so on.
using Labels = std::vector<int>;

bool holds(const Labels& labels, int label) { return std::find(labels.begin(), labels.end(), label) != labels.end(); }

/// Those that satisfy, in order.
template <class Condition>
Labels those(const Labels& labels, const Condition& condition) {
  Labels out;
  std::copy_if(labels.begin(), labels.end(), std::back_inserter(out), condition);
  return out;
}

Labels operator+(Labels a, const Labels& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

struct Equation {
  std::vector<Labels> inputs;
  Labels output;
  std::map<int, size_t> extents;

  Shape shape(const Labels& labels) const {
    Shape out;
    for (const int label : labels) out.push_back(extents.at(label));
    return out;
  }
  size_t elements(const Labels& labels) const { return elements_of(shape(labels)); }
};

/// A tensor each of whose axes has a label of its own. Axes of extent 1 are left out: they are summed, stretched and
/// moved by doing nothing.
struct Term {
  Labels labels;
  Tensor tensor;
};

/// The labels of one operand; `under` axes are under its ellipsis.
Labels labels_of(const Call& call, std::string_view text, size_t under, bool& has_ellipsis) {
  Labels out;
  has_ellipsis = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '.') {
      if (has_ellipsis || text.substr(i, 3) != "...") call.fail("its equation has stray dots");
      has_ellipsis = true;
      i += 2;
      for (size_t j = under; j > 0; --j) out.push_back(-static_cast<int>(j));
    } else if (std::isalpha(static_cast<unsigned char>(text[i]))) {
      out.push_back(text[i]);
    } else {
      call.fail("its equation has a \"" + std::string(1, text[i]) + "\" where letters are expected");
    }
  }
  return out;
}

Equation equation_of(const Call& call) {
  std::string text = call.text("equation", "");
  text.erase(std::remove(text.begin(), text.end(), ' '), text.end());
  const size_t arrow = text.find("->");
  const std::string_view left = std::string_view(text).substr(0, arrow);
  Equation equation;
  size_t most_under = 0;
  bool has_ellipsis = false;
  for (size_t i = 0, from = 0; i < call.inputs.size(); ++i) {
    const size_t comma = left.find(',', from);
    if (from > left.size() || (comma == left.npos) != (i + 1 == call.inputs.size())) {
      call.fail("\"" + text + "\" is not an equation of " + std::to_string(call.inputs.size()) + " operands");
    }
    const std::string_view part = left.substr(from, comma == left.npos ? left.npos : comma - from);
    from = comma + 1;
    const Shape& shape = call.in(i).shape();
    const size_t letters = labels_of(call, part, 0, has_ellipsis).size();
    if (letters > shape.size() || (letters < shape.size() && !has_ellipsis)) {
      call.fail("\"" + std::string(part) + "\" names " + std::to_string(letters) + " axes of " + to_string(shape));
    }
    if (has_ellipsis) most_under = std::max(most_under, shape.size() - letters);
    const Labels labels = labels_of(call, part, shape.size() - letters, has_ellipsis);
    for (size_t axis = 0; axis < labels.size(); ++axis) {
      size_t& extent = equation.extents.emplace(labels[axis], 1).first->second;
      if (extent != shape[axis] && extent != 1 && shape[axis] != 1) {
        call.fail("an axis of \"" + text + "\" is " + std::to_string(extent) + " and " + std::to_string(shape[axis]));
      }
      if (extent == 1) extent = shape[axis];
    }
    equation.inputs.push_back(labels);
  }
  if (arrow != text.npos) {
    equation.output = labels_of(call, std::string_view(text).substr(arrow + 2), most_under, has_ellipsis);
  } else {
    // What is under an ellipsis, then the letters that occur once, sorted.
    for (const auto& [label, extent] : equation.extents) {
      size_t times = 0;
      for (const Labels& labels : equation.inputs)
        times += static_cast<size_t>(std::count(labels.begin(), labels.end(), label));
      if (label < 0 || times == 1) equation.output.push_back(label);
    }
  }
  for (const int label : equation.output) {
    if (!equation.extents.count(label) || std::count(equation.output.begin(), equation.output.end(), label) > 1) {
      call.fail("the result of \"" + text + "\" names an axis twice, or one that no operand has");
    }
  }
  return equation;
}

/// How an operand is read along its labels, each once: repeated ones walk its diagonal.
struct Reading {
  Labels labels;
  Steps steps;
  bool diagonal = false;
};

Reading reading_of(const Equation& equation, size_t input, const Shape& shape) {
  const Labels& labels = equation.inputs[input];
  const Steps own = steps_of(shape);
  Reading reading;
  for (size_t axis = 0; axis < labels.size(); ++axis) {
    if (shape[axis] == 1) continue;
    const auto found = std::find(reading.labels.begin(), reading.labels.end(), labels[axis]);
    if (found != reading.labels.end()) {
      reading.steps[static_cast<size_t>(found - reading.labels.begin())] += own[axis];
      reading.diagonal = true;
    } else {
      reading.labels.push_back(labels[axis]);
      reading.steps.push_back(own[axis]);
    }
  }
  return reading;
}

Term term_of(const Call& call, const Equation& equation, size_t input, const Tensor& tensor) {
  Reading reading = reading_of(equation, input, tensor.shape());
  Shape shape = equation.shape(reading.labels);
  Tensor read = reading.diagonal ? strided(call, tensor, shape, reading.steps) : tensor.reshaped(std::move(shape));
  return {std::move(reading.labels), std::move(read)};
}

/// The term with its axes in this order, which names the same labels.
Term ordered(const Call& call, Term term, const Labels& order) {
  if (term.labels == order) return term;
  std::vector<size_t> axes;
  for (const int label : order) {
    const auto found = std::find(term.labels.begin(), term.labels.end(), label);
    axes.push_back(static_cast<size_t>(found - term.labels.begin()));
  }
  return {order, transposed(call, term.tensor, axes)};
}

template <class Visit>
Tensor visit_number(const Call& call, DType dtype, const Visit& visit) {
  return visit_type(call, dtype, [&](auto type) -> Tensor {
    if constexpr (std::is_same_v<decltype(type), bool>)
      call.refuse("cannot sum bool");
    else
      return visit(type);
  });
}

/// Sums over the labels that are not kept.
Term summed(const Call& call, const Equation& equation, Term term, const Labels& keep) {
  const Labels kept = those(term.labels, [&](int label) { return holds(keep, label); });
  if (kept.size() == term.labels.size()) return term;
  const Labels gone = those(term.labels, [&](int label) { return !holds(keep, label); });
  term = ordered(call, std::move(term), kept + gone);
  const size_t run = equation.elements(gone);
  Tensor out = visit_number(call, term.tensor.dtype(), [&](auto type) {
    using T = decltype(type);
    using Sum = std::conditional_t<std::is_floating_point_v<T>, T, uint64_t>;
    Tensor sums = allocate(call, term.tensor.dtype(), equation.shape(kept));
    const std::span<T> to = sums.write<T>();
    const std::span<const T> from = term.tensor.data<T>();
    for (size_t i = 0; i < to.size(); ++i) {
      const std::span<const T> row = from.subspan(i * run, run);
      if constexpr (std::is_same_v<T, float>) {
        to[i] = kernels::sum(row);
      } else {
        Sum sum = 0;
        for (const T value : row) sum += static_cast<Sum>(value);
        to[i] = static_cast<T>(sum);
      }
    }
    return sums;
  });
  return {kept, std::move(out)};
}

/// The product of two terms, summed over the labels that both have and that are not kept. What only one has is kept.
Term multiplied(const Call& call, const Equation& equation, Term a, Term b, const Labels& keep) {
  const Labels batch = those(a.labels, [&](int label) { return holds(b.labels, label) && holds(keep, label); });
  const Labels inner = those(a.labels, [&](int label) { return holds(b.labels, label) && !holds(keep, label); });
  const Labels left = those(a.labels, [&](int label) { return !holds(b.labels, label); });
  const Labels right = those(b.labels, [&](int label) { return !holds(a.labels, label); });
  // A matrix may be read either way round; other orders are brought into this one.
  const bool a_turned = a.labels == batch + inner + left, b_turned = b.labels == batch + right + inner;
  if (!a_turned) a = ordered(call, std::move(a), batch + left + inner);
  if (!b_turned) b = ordered(call, std::move(b), batch + inner + right);
  const Labels labels = batch + left + right;
  const size_t matrices = equation.elements(batch);
  const size_t m = equation.elements(left), n = equation.elements(right), k = equation.elements(inner);
  Tensor out = visit_number(call, a.tensor.dtype(), [&](auto type) {
    using T = decltype(type);
    Tensor product = allocate(call, a.tensor.dtype(), equation.shape(labels));
    T* const to = product.write<T>().data();
    if (k == 0) std::fill_n(to, product.elements(), T{});
    if (k == 0 || product.elements() == 0) return product;
    const T *const x = a.tensor.data<T>().data(), *const y = b.tensor.data<T>().data();
    if (m * n * k == 1) {  // element by element
      using Factor = std::conditional_t<std::is_floating_point_v<T>, T, uint64_t>;
      for (size_t i = 0; i < matrices; ++i)
        to[i] = static_cast<T>(static_cast<Factor>(x[i]) * static_cast<Factor>(y[i]));
      return product;
    }
    for (size_t i = 0; i < matrices; ++i) {
      const T *const p = x + i * m * k, *const q = y + i * k * n;
      multiply<T>(m, n, k, a_turned ? View<T>{p, 1, m} : View<T>{p, k, 1},
                  b_turned ? View<T>{q, 1, k} : View<T>{q, n, 1}, to + i * m * n, n, false);
    }
    return product;
  });
  return {labels, std::move(out)};
}

/// The product of all terms, summed over all but the output's labels, in their order; labels that no term has are left
/// out. Terms are multiplied from left to right.
Term contracted(const Call& call, const Equation& equation, std::vector<Term> terms, const Labels& output) {
  Term all = std::move(terms[0]);
  for (size_t i = 1; i < terms.size(); ++i) {
    Labels keep = output;
    for (size_t j = i + 1; j < terms.size(); ++j) keep = keep + terms[j].labels;
    all = summed(call, equation, std::move(all), keep + terms[i].labels);
    Term next = summed(call, equation, std::move(terms[i]), keep + all.labels);
    all = multiplied(call, equation, std::move(all), std::move(next), keep);
  }
  all = summed(call, equation, std::move(all), output);
  const Labels order = those(output, [&](int label) { return holds(all.labels, label); });
  return ordered(call, std::move(all), order);
}

std::vector<Tensor> einsum(Call& call) {
  if (call.inputs.empty()) call.fail("has no operands");
  const Equation equation = equation_of(call);
  const DType dtype = call.in(0).dtype();
  std::vector<Term> terms;
  for (size_t i = 0; i < call.inputs.size(); ++i) {
    if (call.in(i).dtype() != dtype) call.fail("its operands are of different types");
    terms.push_back(term_of(call, equation, i, widened(call.in(i))));
  }
  check_size(call, dtype, equation.shape(equation.output));
  Tensor out = contracted(call, equation, std::move(terms), equation.output).tensor;
  out = std::move(out).reshaped(equation.shape(equation.output));
  if (is_half(dtype)) return {from_floats(dtype, out.shape(), out.data<float>())};
  return {std::move(out)};
}

/// The gradient of an operand is an Einsum of the others and the result's gradient; what was summed without meeting
/// another operand is stretched, and what was read as a diagonal is put back there.
std::vector<Tensor> einsum_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Equation equation = equation_of(call);
  const Labels output = those(equation.output, [&](int label) { return equation.extents.at(label) != 1; });
  std::vector<Tensor> out(call.inputs.size());
  for (size_t i = 0; i < call.inputs.size(); ++i) {
    if (!wants_grad(call, i)) continue;
    std::vector<Term> terms = {{output, grads[0].reshaped(equation.shape(output))}};
    for (size_t j = 0; j < call.inputs.size(); ++j) {
      if (j != i) terms.push_back(term_of(call, equation, j, as_float32(call.in(j))));
    }
    const Shape& shape = call.in(i).shape();
    const Reading reading = reading_of(equation, i, shape);
    const Shape read = equation.shape(reading.labels);
    const Term grad = contracted(call, equation, std::move(terms), reading.labels);
    const Steps own = steps_of(grad.tensor.shape());
    Steps steps(reading.labels.size(), 0);
    for (size_t axis = 0, from = 0; axis < steps.size(); ++axis) {
      if (from < grad.labels.size() && grad.labels[from] == reading.labels[axis]) steps[axis] = own[from++];
    }
    out[i] = zeros(shape);
    copy_box(call, read, grad.tensor, {0, steps}, out[i], {0, reading.steps});
  }
  return out;
}

}  // namespace

std::span<const Op> einsum_ops() {
  static const std::vector<Op> table = {{"Einsum", einsum, einsum_backward}};
  return table;
}

}  // namespace nibble::ops
