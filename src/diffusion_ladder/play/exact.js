// The denoiser that is known in closed form (diffusion/exact.py): what a network that has learnt all would answer.
"use strict";

// E[x_0 | x_t] where x_0 is one of N equally likely points: their mean, weighted by how likely each became x_t
// (arXiv 2206.00364, eq. 57). x_t: (B, 2); data: (N, 2).
function dataSetMean(x_t, alphaBar, data) {
  const signal = Math.sqrt(alphaBar), sharpness = 1 / (2 * (1 - alphaBar));
  const result = new Float32Array(x_t.length), distances = new Float64Array(data.length / 2);
  for (let at = 0; at < x_t.length; at += 2) {
    let nearest = Infinity, total = 0, first = 0, second = 0;
    for (let i = 0; i < distances.length; i++) {
      const distance = (x_t[at] - signal * data[2 * i]) ** 2 + (x_t[at + 1] - signal * data[2 * i + 1]) ** 2;
      distances[i] = distance;
      if (distance < nearest) nearest = distance;
    }
    for (let i = 0; i < distances.length; i++) {
      const exponent = (distances[i] - nearest) * sharpness;
      if (exponent > 30) continue; // less than 1e-13 of the nearest one's weight
      const weight = Math.exp(-exponent);
      total += weight;
      first += weight * data[2 * i];
      second += weight * data[2 * i + 1];
    }
    result[at] = first / total;
    result[at + 1] = second / total;
  }
  return result;
}
