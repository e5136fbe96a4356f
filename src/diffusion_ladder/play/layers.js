// What the networks are made of. Images are { values, height, width, channels }, the channels of a pixel side by side.
"use strict";

const EPSILON = 1e-5; // beside a variance, PyTorch's default

const silu = x => x / (1 + Math.exp(-x));
const sum = (a, b) => a.map((value, index) => value + b[index]);

// x (B, inputs) to (B, outputs).
function linear(matrices, layer, x) {
  const { inner } = layer;
  return matrices.affine(layer, x.length / inner, (A, first, count) =>
    A.set(x.subarray(first * inner, (first + count) * inner)));
}

// An image to one of other channels, of the same size or, with stride 2, of half of it. Outside of it there are zeros.
function convolution(matrices, layer, image, stride = 1) {
  const { side, outputs } = layer, framed = withFrame(image, (side - 1) / 2), run = side * image.channels;
  const height = Math.ceil(image.height / stride), width = Math.ceil(image.width / stride);
  const patches = (A, first, count) => { // a row of A: the pixels that one pixel of the result is made of
    for (let row = 0, at = 0; row < count; row++) {
      const y = Math.floor((first + row) / width) * stride, x = (first + row) % width * stride;
      for (let down = 0; down < side; down++, at += run) {
        const start = ((y + down) * framed.width + x) * image.channels;
        A.set(framed.values.subarray(start, start + run), at);
      }
    }
  };
  return { values: matrices.affine(layer, height * width, patches), height, width, channels: outputs };
}

// An image with so many pixels of zeros around it.
function withFrame(image, margin) {
  const { channels } = image, height = image.height + 2 * margin, width = image.width + 2 * margin;
  const values = new Float32Array(height * width * channels), row = image.width * channels;
  for (let y = 0; y < image.height; y++) {
    values.set(image.values.subarray(y * row, (y + 1) * row), ((y + margin) * width + margin) * channels);
  }
  return { values, height, width, channels };
}

// Layer norm, then SiLU: rows (B, C) of mean 0 and variance 1, times a gain (C) plus an offset (C).
function layerNormSilu({ gain, offset }, x) {
  const size = gain.length, result = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += size) {
    const { mean, scale } = standardisation(x, start, 1, size, size);
    for (let i = 0; i < size; i++) result[start + i] = silu((x[start + i] - mean) * scale * gain[i] + offset[i]);
  }
  return result;
}

// Group norm (arXiv 1803.08494): mean 0 and variance 1 of each group of channels over all pixels, then gain and offset,
// modulated by the time where there are `scale` and `shift` (C), then SiLU where it is to `activate`.
function groupNorm({ gain, offset }, image, groups, { scale, shift, activate = true } = {}) {
  const { values, channels } = image, size = channels / groups, result = new Float32Array(values.length);
  for (let group = 0; group < groups; group++) {
    const { mean, scale: unit } = standardisation(values, group * size, values.length / channels, channels, size);
    for (let channel = group * size; channel < (group + 1) * size; channel++) {
      const by = gain[channel] * (scale ? 1 + scale[channel] : 1);
      const plus = offset[channel] * (scale ? 1 + scale[channel] : 1) + (shift ? shift[channel] : 0);
      for (let at = channel; at < values.length; at += channels) {
        const normal = (values[at] - mean) * unit * by + plus;
        result[at] = activate ? silu(normal) : normal;
      }
    }
  }
  return { ...image, values: result };
}

// Mean and 1 / standard deviation of `size` numbers in each of some rows, which are `stride` apart.
function standardisation(values, start, rows, stride, size) {
  let total = 0, squares = 0;
  for (let row = 0, at = start; row < rows; row++, at += stride) {
    for (let i = 0; i < size; i++) total += values[at + i];
  }
  const mean = total / (rows * size);
  for (let row = 0, at = start; row < rows; row++, at += stride) {
    for (let i = 0; i < size; i++) squares += (values[at + i] - mean) ** 2;
  }
  return { mean, scale: 1 / Math.sqrt(squares / (rows * size) + EPSILON) };
}

// softmax(Q K^T / sqrt(d)) V of each head (arXiv 1706.03762, eq. 1); query, key, value: (N, C).
function attention(query, key, value, channels, heads) {
  const pixels = query.length / channels, size = channels / heads, result = new Float32Array(query.length);
  const weights = new Float64Array(pixels);
  for (let head = 0; head < channels; head += size) {
    for (let i = 0; i < pixels; i++) {
      const q = i * channels + head;
      for (let j = 0, k = head; j < pixels; j++, k += channels) {
        let product = 0;
        for (let c = 0; c < size; c++) product += query[q + c] * key[k + c];
        weights[j] = product / Math.sqrt(size);
      }
      softmax(weights);
      for (let j = 0, v = head; j < pixels; j++, v += channels) {
        for (let c = 0; c < size; c++) result[q + c] += weights[j] * value[v + c];
      }
    }
  }
  return result;
}

// exp(x) / sum exp(x), in place.
function softmax(x) {
  const largest = x.reduce((a, b) => Math.max(a, b), -Infinity);
  let total = 0;
  for (let i = 0; i < x.length; i++) total += x[i] = Math.exp(x[i] - largest);
  for (let i = 0; i < x.length; i++) x[i] /= total;
}

// What a network is told besides the noisy sample, (size,): embeddings of the timestep and, if it knows any, a class.
function condition(matrices, layers, timestep, label) {
  const first = layers["time_embedding.linear_1"], { class_embedding } = layers;
  const hidden = linear(matrices, first, sinusoidalEmbedding(timestep, first.inputs)).map(silu);
  const time = linear(matrices, layers["time_embedding.linear_2"], hidden);
  return class_embedding ? sum(time, class_embedding.values.subarray(label * time.length)) : time;
}

// Cosines, then sines, of geometrically spaced frequencies (arXiv 1706.03762, section 3.5): (size,).
function sinusoidalEmbedding(timestep, size) {
  const embedding = new Float32Array(size);
  for (let i = 0; i < size / 2; i++) {
    const angle = timestep * Math.exp(-Math.log(10_000) * i / (size / 2));
    embedding[i] = Math.cos(angle);
    embedding[size / 2 + i] = Math.sin(angle);
  }
  return embedding;
}
