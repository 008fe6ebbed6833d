// The launchers on heap memory of the exact size, for the sanitizers; results against plain loops in double.
#include <cstdio>
#include <memory>
#include <vector>

#include "cuda_host_shim.h"
#include "../../../csrc/cuda/launches.h"

using namespace gankernels;
using namespace gankernels::cuda;

// Every dtype is of the same templates: of one they are compiled for each sanitizer.
namespace gankernels::cuda {

int launch_divergence_half(const DivergenceLaunch&, void*) { return 1; }
int launch_divergence_bfloat16(const DivergenceLaunch&, void*) { return 1; }
int launch_divergence_double(const DivergenceLaunch&, void*) { return 1; }

}  // namespace gankernels::cuda

extern "C" int gk_most_resident_blocks;  // on a multiprocessor

namespace {

int failures = 0;

void expect(const char* what, int64_t classes, double got, double wanted) {
  if (std::abs(got - wanted) <= 2e-5 * (1 + std::abs(wanted))) return;
  std::printf("%s, %ld classes: got %.9g, expected %.9g\n", what, static_cast<long>(classes), got, wanted);
  ++failures;
}

// A matrix on the heap, so that an access past its end is one past an allocation's.
struct Matrix {
  int64_t rows, classes;
  bool columns;  // class k of row r at k * rows + r, else at r * classes + k
  std::unique_ptr<float[]> data;

  Matrix(int64_t r, int64_t k, bool by_columns, int seed)
      : rows(r), classes(k), columns(by_columns), data(new float[static_cast<size_t>(r * k)]) {
    for (int64_t i = 0; i < r * k; ++i)
      data[static_cast<size_t>(i)] = 3 * std::sin(0.37f * static_cast<float>(i + seed));
  }
  float& at(int64_t r, int64_t k) { return data[static_cast<size_t>(columns ? k * rows + r : r * classes + k)]; }
  Rows view() {
    if (columns) return {data.get(), 1, 0, rows};
    return {data.get(), classes, 0, 1};
  }
  std::vector<double> softmax(int64_t r) {
    double top = -INFINITY, sum = 0;
    for (int64_t k = 0; k < classes; ++k) top = std::fmax(top, at(r, k));
    std::vector<double> p(static_cast<size_t>(classes));
    for (int64_t k = 0; k < classes; ++k) sum += p[static_cast<size_t>(k)] = std::exp(at(r, k) - top);
    for (double& x : p) x /= sum;
    return p;
  }
};

// KL(P || q) - KL(A || q) for one row: P an anchor, or a softmax.
struct Expected {
  double loss = 0;
  std::vector<double> q_grad;

  Expected(const std::vector<double>& p, const std::vector<double>& a, const std::vector<double>& q) {
    double mass = 0;
    for (size_t k = 0; k < q.size(); ++k) {
      mass += p[k] - a[k];
      if (p[k] > 0) loss += p[k] * std::log(p[k] / q[k]);
      if (a[k] > 0) loss -= a[k] * std::log(a[k] / q[k]);
    }
    for (size_t k = 0; k < q.size(); ++k) q_grad.push_back(mass * q[k] - p[k] + a[k]);
  }
};

void divergence(int64_t rows, int64_t classes, bool columns, bool softmax) {
  Matrix q(rows, classes, columns, 1), p(rows, classes, columns, 2), g(rows, classes, columns, 0);
  auto anchor = std::make_unique<float[]>(static_cast<size_t>(classes));
  std::vector<double> a;
  for (int64_t k = 0; k < classes; ++k) {
    anchor[static_cast<size_t>(k)] = k % 3 == 0 ? 0 : 2.0f / static_cast<float>(classes);
    a.push_back(anchor[static_cast<size_t>(k)]);
  }
  auto partials = std::make_unique<double[]>(kMaxBlocks);
  auto loss = std::make_unique<float>();
  DivergenceLaunch launch;
  DivergenceTerm& term = launch.terms[0];
  term.rows = rows;
  term.q_logits = q.view();
  term.q_grad = g.view();
  Target& target = softmax ? term.negative : term.positive;
  target.rows = {anchor.get(), 0, 0, 1};
  if (softmax) term.p_logits = p.view();
  launch.classes = static_cast<int>(classes);
  if (softmax) launch.positive = Positive::kSoftmax;
  launch.columns = columns;
  launch.wide = !columns && classes % 4 == 0;
  launch.total = {loss.get(), partials.get(), 0};
  if (launch_divergence(launch, nullptr) != 0) ++failures;
  double total = 0;
  const std::vector<double> none(static_cast<size_t>(classes), 0.0);
  for (int64_t r = 0; r < rows; ++r) {
    const Expected wanted(softmax ? p.softmax(r) : a, softmax ? a : none, q.softmax(r));
    total += wanted.loss;
    for (int64_t k = 0; k < classes; ++k)
      expect(softmax ? "softmax gradient" : "anchor gradient", classes, g.at(r, k),
             wanted.q_grad[static_cast<size_t>(k)]);
  }
  expect(softmax ? "softmax loss" : "anchor loss", classes, *loss, total);
}

// A quarter of KL(p || m) and three of KL(q || m), m = p / 4 + 3 q / 4.
void mixture(int64_t rows, int64_t classes, bool columns) {
  constexpr double kShare = 0.25;
  Matrix q(rows, classes, columns, 1), p(rows, classes, columns, 2), g(rows, classes, columns, 0);
  auto partials = std::make_unique<double[]>(kMaxBlocks);
  auto loss = std::make_unique<float>();
  DivergenceLaunch launch;
  DivergenceTerm& term = launch.terms[0];
  term.rows = rows, term.share = kShare, term.q_weight = 1 - kShare;
  term.q_logits = q.view(), term.p_logits = p.view(), term.q_grad = g.view();
  launch.classes = static_cast<int>(classes);
  launch.positive = Positive::kMixture;
  launch.columns = columns;
  launch.wide = !columns && classes % 4 == 0;
  launch.total = {loss.get(), partials.get(), 0};
  if (launch_divergence(launch, nullptr) != 0) ++failures;
  double total = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const std::vector<double> x = p.softmax(r), y = q.softmax(r);
    double of_p = 0, of_q = 0;
    for (size_t k = 0; k < x.size(); ++k) {
      const double m = kShare * x[k] + (1 - kShare) * y[k];
      of_p += x[k] * std::log(x[k] / m), of_q += y[k] * std::log(y[k] / m);
    }
    total += kShare * of_p + (1 - kShare) * of_q;
    for (size_t k = 0; k < x.size(); ++k) {
      const double m = kShare * x[k] + (1 - kShare) * y[k];
      expect("mixture gradient", classes, g.at(r, static_cast<int64_t>(k)),
             (1 - kShare) * y[k] * (std::log(y[k] / m) - of_q));
    }
  }
  expect("mixture loss", classes, *loss, total);
}

void relativistic(int64_t elements) {
  const auto n = static_cast<size_t>(elements);
  auto x = std::make_unique<float[]>(n), g = std::make_unique<float[]>(n);
  for (size_t i = 0; i < n; ++i) x[i] = static_cast<float>(i % 7) - 3;
  auto partials = std::make_unique<double[]>(kMaxBlocks);
  auto loss = std::make_unique<float>();
  double sums[4];
  RelativisticLaunch launch;
  launch.sums = sums;
  const double each = 1 / static_cast<double>(elements);
  launch.fake = {x.get(), g.get(), elements, each, {ScalarFunction::kSoftplus, 1, 0, 1, 0}, 1, 1};
  launch.real = {x.get(), nullptr, elements, each, {ScalarFunction::kSoftplus, -1, 0, 1, 0}, 1, 1};
  launch.wide = elements % 4 == 0;
  launch.total = {loss.get(), partials.get(), 1};
  if (launch_relativistic(launch, nullptr) != 0) ++failures;
  double wanted = 0, mean = 0;
  for (size_t i = 0; i < n; ++i) mean += x[i] / static_cast<double>(elements);
  for (size_t i = 0; i < n; ++i) wanted += std::log1p(std::exp(x[i] - mean)) + std::log1p(std::exp(mean - x[i]));
  expect("relativistic loss", elements, *loss, wanted);
}

// Pairs with a weight for every `per_weight` of them, in as many terms; then their gradients times a factor.
void terms(int64_t elements, int64_t per_weight, int count, bool rows) {
  const auto n = static_cast<size_t>(elements),
             weights = (n + static_cast<size_t>(per_weight) - 1) / static_cast<size_t>(per_weight);
  auto x = std::make_unique<float[]>(n), y = std::make_unique<float[]>(n), w = std::make_unique<float[]>(weights);
  for (size_t i = 0; i < n; ++i) x[i] = static_cast<float>(i % 7) - 3, y[i] = static_cast<float>(i % 5);
  for (size_t i = 0; i < weights; ++i) w[i] = static_cast<float>(i % 3);
  std::vector<std::unique_ptr<float[]>> g;
  for (int i = 0; i < 3 * count; ++i) g.push_back(std::make_unique<float[]>(n));
  auto partials = std::make_unique<double[]>(kMaxBlocks);
  auto loss = std::make_unique<float[]>(rows ? n : 1);
  TermsLaunch launch;
  launch.count = count, launch.rows = rows, launch.losses[0] = loss.get(), launch.total = {nullptr, partials.get(), 2};
  for (int i = 0; i < count; ++i) {
    TermBatch& b = launch.terms[i];
    b.logits = x.get(), b.other = y.get(), b.weights = w.get(), b.per_weight = per_weight, b.elements = elements;
    b.grad = g[static_cast<size_t>(3 * i)].get(), b.other_grad = g[static_cast<size_t>(3 * i + 1)].get();
    if (per_weight == 1) b.weights_grad = g[static_cast<size_t>(3 * i + 2)].get();
    b.term = {ScalarFunction::kSquare, 1, 0, 1, 0};
    b.wide = elements % 4 == 0;
  }
  if (launch_terms(launch, nullptr) != 0) ++failures;
  double wanted = 0;
  for (size_t i = 0; i < n; ++i) {
    const double z = x[i] - y[i], value = count * w[i / static_cast<size_t>(per_weight)] * z * z / 2;
    wanted += value;
    if (rows) expect("losses of elements", elements, loss[i], value);
    expect("gradient of the second", elements, g[1][i], -w[i / static_cast<size_t>(per_weight)] * z);
  }
  if (!rows) expect("terms", elements, loss[0], wanted);
  ScaleTermsLaunch scale;
  const float half = 0.5f;
  scale.count = 2;
  scale.terms[0] = {g[0].get(), g[1].get(), &half, elements, 1, 0, Dtype::kFloat, false, elements % 4 == 0};
  scale.terms[1] = {g[0].get(), g[2].get(), x.get(), elements, 1, 0, Dtype::kFloat, true, elements % 4 == 0};
  if (launch_scale_terms(scale, nullptr) != 0) ++failures;
  for (size_t i = 0; i < n; ++i) {
    expect("scaled", elements, g[1][i], 0.5 * g[0][i]);
    expect("scaled by element", elements, g[2][i], static_cast<double>(x[i]) * g[0][i]);
  }
}

void resample(int64_t rows, int64_t half) {
  const auto n = static_cast<size_t>(rows * half);
  auto statistics = std::make_unique<float[]>(2 * n), noise = std::make_unique<float[]>(n);
  auto z = std::make_unique<float[]>(n), back = std::make_unique<float[]>(2 * n);
  for (size_t i = 0; i < 2 * n; ++i) statistics[i] = 0.1f * static_cast<float>(i % 11);
  for (size_t i = 0; i < n; ++i) noise[i] = static_cast<float>(i % 5) - 2;
  ResampleLaunch launch;
  launch.statistics = statistics.get(), launch.noise = noise.get(), launch.out = z.get();
  launch.elements = rows * half, launch.block = half, launch.wide = half % 4 == 0;
  if (launch_resample(launch, nullptr) != 0) ++failures;
  launch.grad_out = noise.get(), launch.grad_statistics = back.get();
  if (launch_resample(launch, nullptr) != 0) ++failures;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < half; ++k) {
      const auto i = static_cast<size_t>(r * half + k), s = static_cast<size_t>(2 * r * half + k);
      const double spread = noise[i] * std::exp(0.5 * statistics[s + static_cast<size_t>(half)]);
      expect("z", half, z[i], statistics[s] + spread);
      expect("gradient to the log-variance", half, back[s + static_cast<size_t>(half)], 0.5 * noise[i] * spread);
    }
}

}  // namespace

int main() {
#if defined(HOST_SHIM_THREADS)
  gk_most_resident_blocks = 2;  // each of their threads is one of the system's
#endif
  for (const bool softmax : {false, true}) {
    for (const int64_t classes : {1, 5, 64, 201, 300, 600, 1000}) divergence(5, classes, false, softmax);
    for (const int64_t classes : {2, 20, 40, 150}) divergence(37, classes, true, softmax);
    for (const int64_t classes : {4100, 4103, 8204, 8207}) divergence(2, classes, false, softmax);
  }
  for (const int64_t classes : {5, 64, 201, 600, 4100, 8207}) mixture(3, classes, false);
  for (const int64_t classes : {2, 40, 300}) mixture(37, classes, true);
  divergence(0, 5, false, false);
  for (const int64_t elements : {int64_t{2051}, int64_t{2048}, kSingleBlockElements + 5}) relativistic(elements);
  for (const bool rows : {false, true})
    for (const int64_t per_weight : {1, 7}) terms(259, per_weight, 1, rows), terms(1028, per_weight, 3, rows);
  terms(20000, 8, 2, false);
  resample(3, 5), resample(3, 8);
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
