// The samplers, as schedulers/*.py has them: each a generator of the states of the reverse process, { t, x_t, x_0, x }:
// at timestep t the network has seen x_t and means x_0; x is where the step leads, in the end the samples.
//
// All of them are given: x, standard normal noise (B, size); predict(x_t, t), the network's answer; steps; noise(),
// standard normal numbers like x; eta; and `process`, of the rung: alphaBar (T,), prediction_type, spacing,
// variance_type and clip_sample. Coefficients are float64, samples float32.
"use strict";

// scale x + scale y + ..., elementwise: combined(2, x, -1, y) is 2x - y.
function combined(...terms) {
  const result = new Float32Array(terms[1].length);
  for (let i = 0; i < result.length; i++) {
    let total = 0;
    for (let at = 0; at < terms.length; at += 2) total += terms[at] * terms[at + 1][i];
    result[i] = total;
  }
  return result;
}

// (x_0, epsilon) of x_t = signal x_0 + noise epsilon, read from a prediction (diffusion/targets.py).
function partsOf(type, output, x_t, signal, noise) {
  switch (type) {
    case "epsilon": return { x_0: combined(1 / signal, x_t, -noise / signal, output), epsilon: output }; // DDPM eq. 15
    case "sample": return { x_0: output, epsilon: combined(1 / noise, x_t, -signal / noise, output) };
    case "v_prediction": // (x_t, v) is (x_0, epsilon) turned by an angle, so turn it back
      return { x_0: combined(signal, x_t, -noise, output), epsilon: combined(noise, x_t, signal, output) };
    default: throw new Error(`unknown prediction type ${type}`);
  }
}

const read = ({ prediction_type }, output, x_t, alphaBar) =>
  partsOf(prediction_type, output, x_t, Math.sqrt(alphaBar), Math.sqrt(1 - alphaBar));

const clipped = ({ clip_sample }, x_0) => (clip_sample ? x_0.map(value => Math.max(-1, Math.min(1, value))) : x_0);

// Denoising diffusion probabilistic models (arXiv 2006.11239): Algorithm 2.
function* ddpm({ x, predict, steps, noise, process }) {
  const { alphaBar, spacing, variance_type } = process, visited = spacedTimesteps(spacing, alphaBar.length, steps);
  for (const [index, t] of visited.entries()) {
    const x_t = x, isLast = index === steps - 1, previous = isLast ? 1 : alphaBar[visited[index + 1]];
    const x_0 = clipped(process, read(process, predict(x_t, t), x_t, alphaBar[t]).x_0);
    x = ddpmMean(x_t, x_0, alphaBar[t], previous);
    if (!isLast) x = combined(1, x, Math.sqrt(reverseSpread(variance_type, alphaBar[t], previous)), noise());
    yield { t, x_t, x_0, x };
  }
}

// The mean of q(x_{t-1} | x_t, x_0), eq. 7.
function ddpmMean(x_t, x_0, alphaBar, previous) {
  const alpha = alphaBar / previous, beta = 1 - alpha;
  const of_x_0 = Math.sqrt(previous) * beta / (1 - alphaBar);
  const of_x_t = Math.sqrt(alpha) * (1 - previous) / (1 - alphaBar);
  return combined(of_x_0, x_0, of_x_t, x_t);
}

// sigma_t^2 of section 3.2: beta_t, or the posterior's variance of eq. 7.
function reverseSpread(type, alphaBar, previous) {
  const beta = 1 - alphaBar / previous;
  return type === "fixed_large" ? beta : Math.max((1 - previous) / (1 - alphaBar) * beta, 1e-20);
}

// Denoising diffusion implicit models (arXiv 2010.02502): eta from 0, deterministic, to 1, as noisy as DDPM.
function* ddim({ x, predict, steps, noise, eta, process }) {
  const { alphaBar, spacing, clip_sample } = process, visited = spacedTimesteps(spacing, alphaBar.length, steps);
  for (const [index, t] of visited.entries()) {
    const x_t = x, before = index === steps - 1 ? -1 : t - Math.floor(alphaBar.length / steps);
    let { x_0, epsilon } = read(process, predict(x_t, t), x_t, alphaBar[t]); // eq. 9
    x_0 = clipped(process, x_0);
    if (clip_sample) epsilon = partsOf("sample", x_0, x_t, Math.sqrt(alphaBar[t]), Math.sqrt(1 - alphaBar[t])).epsilon;
    x = ddimStep(x_0, epsilon, alphaBar[t], before < 0 ? 1 : alphaBar[before], before < 0 ? 0 : eta, noise);
    yield { t, x_t, x_0, x };
  }
}

// x_{t-1}, eq. 12: the predicted x_0, the direction that points to x_t, and fresh noise where there is any.
function ddimStep(x_0, epsilon, alphaBar, previous, eta, noise) {
  const sigma = eta * Math.sqrt((1 - previous) / (1 - alphaBar) * (1 - alphaBar / previous)); // eq. 16
  const direction = Math.sqrt(Math.max(0, 1 - previous - sigma ** 2));
  const x = combined(Math.sqrt(previous), x_0, direction, epsilon);
  return eta > 0 ? combined(1, x, sigma, noise()) : x;
}

// DPM-Solver++(2M), arXiv 2211.01095: an exponential integrator that extrapolates the predicted x_0 in lambda.
function* dpmSolver({ x, predict, steps, process }) {
  const { spacing } = process, T = process.alphaBar.length;
  const alphaBar = process.alphaBar.map(value => value || 2 ** -24); // a trace of the signal, so that lambda is finite
  const visited = spacing === "trailing"
    ? spacedTimesteps(spacing, T, steps) : spacedTimesteps(spacing, T, steps + 1).slice(0, -1);
  const scales = [...visited.map(t => alphaBar[t]), 1].map(value => [Math.sqrt(value), Math.sqrt(1 - value)]);
  let earlier = null;
  for (const [index, t] of visited.entries()) {
    const x_t = x, [before, here, after] = [-1, 0, 1].map(place => scales[Math.max(0, index + place)]);
    const x_0 = clipped(process, partsOf(process.prediction_type, predict(x_t, t), x_t, ...here).x_0);
    x = dpmSolverStep(x_t, x_0, here, after, index === steps - 1 ? null : earlier, before);
    earlier = x_0;
    yield { t, x_t, x_0, x };
  }
}

const halfLogSNR = ([signal, noise]) => Math.log(signal) - Math.log(noise); // lambda: infinite for clean data

// x at the next timestep, sigma_s / sigma_t x_t - alpha_s (e^-h - 1) D: Algorithm 2. D is x_0 halfway there, on the
// line through the last two predictions.
function dpmSolverStep(x_t, x_0, here, after, earlier, before) {
  const h = halfLogSNR(after) - halfLogSNR(here);
  let D = x_0;
  if (earlier) {
    const r = (halfLogSNR(here) - halfLogSNR(before)) / h;
    D = combined(1 + 1 / (2 * r), x_0, -1 / (2 * r), earlier);
  }
  return combined(after[1] / here[1], x_t, -after[0] * Math.expm1(-h), D);
}

// Heun's method for the probability flow ODE (arXiv 2206.00364, Algorithm 1) in x = x_0 + sigma epsilon, of which the
// network sees x / sqrt(sigma^2 + 1). All steps but the last ask the network twice.
function* heun({ x, predict, steps, process }) {
  const { alphaBar, spacing } = process, T = alphaBar.length;
  const visited = spacing === "linspace" // fractions, in float32 as PyTorch has them
    ? evenly(T - 1, steps).map(Math.fround).reverse() : spacedTimesteps(spacing, T, steps);
  const sigmas = [...visited.map(t => sigmaAt(alphaBar, t)), 0];
  x = combined(spacing === "leading" ? Math.sqrt(sigmas[0] ** 2 + 1) : sigmas[0], x);
  const look = (at, sigma, t) => {
    const x_t = combined(1 / Math.sqrt(sigma ** 2 + 1), at);
    const x_0 = clipped(process, heunData(process.prediction_type, predict(x_t, t), at, sigma));
    return { x_t, x_0, slope: combined(1 / sigma, at, -1 / sigma, x_0) }; // line 4
  };
  for (const [index, t] of visited.entries()) {
    const [sigma, next] = sigmas.slice(index, index + 2), start = x, { x_t, x_0, slope } = look(x, sigma, t);
    x = combined(1, start, next - sigma, slope); // line 5
    yield { t, x_t, x_0, x };
    if (next === 0) continue;
    const end = look(x, next, visited[index + 1]);
    x = combined(1, start, (next - sigma) / 2, slope, (next - sigma) / 2, end.slope); // line 8
    yield { t: visited[index + 1], x_t: end.x_t, x_0: end.x_0, x };
  }
}

// The x_0 that the network means, having seen x scaled to unit variance.
function heunData(type, output, x, sigma) {
  if (type !== "v_prediction") return partsOf(type, output, x, 1, sigma).x_0;
  return combined(1 / (sigma ** 2 + 1), x, -sigma / Math.sqrt(sigma ** 2 + 1), output);
}

// sigma = sqrt((1 - alphaBar) / alphaBar) at a timestep, between two of them linear.
function sigmaAt(alphaBar, t) {
  const [low, high] = [Math.floor(t), Math.ceil(t)].map(at => Math.sqrt((1 - alphaBar[at]) / alphaBar[at]));
  return low + (t % 1) * (high - low);
}

const SAMPLERS = { ddpm, ddim, dpm_solver: dpmSolver, heun }; // by the names in params.yaml

// Classifier-free guidance (arXiv 2207.12598): null + w (conditional - null), in its interval of the noise.
function guided(network, { label, nullLabel, scale, interval = [0, 1], T }) {
  return (x_t, t) => {
    const isOutside = t / T < interval[0] || t / T >= interval[1];
    if (nullLabel === null || scale === 1 || isOutside) return network(x_t, t, label);
    const without = network(x_t, t, nullLabel);
    return scale === 0 ? without : combined(scale, network(x_t, t, label), 1 - scale, without);
  };
}
