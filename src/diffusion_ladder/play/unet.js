// The U-Net of networks/unet.py, and diffusers' UNet2DModel with the same settings: one picture at a time.
"use strict";

// Gives the prediction for a noisy picture x (C, H, W) at a timestep, and a label where it knows classes.
function unet({ layers, matrices }, settings, [channels, height, width]) {
  const has = name => name in layers || Object.keys(layers).some(key => key.startsWith(`${name}.`));
  const convolve = (name, image, stride) => convolution(matrices, layers[name], image, stride);
  const norm = (name, image, options) => groupNorm(layers[name], image, settings.norm_groups, options);
  const folding = foldingOf(settings);

  // x + conv2(f(conv1(x), time)); the time scales and shifts the second norm's output, or is added before it.
  function residualBlock(name, x, time) {
    let hidden = convolve(`${name}.conv1`, norm(`${name}.norm1`, x)), modulation = {};
    const ofTime = linear(matrices, layers[`${name}.time_emb_proj`], time.map(silu)), size = hidden.channels;
    if (settings.scale_shift) modulation = { scale: ofTime.subarray(0, size), shift: ofTime.subarray(size) };
    else hidden = { ...hidden, values: hidden.values.map((value, at) => value + ofTime[at % size]) };
    hidden = convolve(`${name}.conv2`, norm(`${name}.norm2`, hidden, modulation));
    return added(has(`${name}.conv_shortcut`) ? convolve(`${name}.conv_shortcut`, x) : x, hidden);
  }

  // Every pixel attends to every pixel.
  function selfAttention(name, x) {
    const pixels = norm(`${name}.group_norm`, x, { activate: false }).values; // (HW, C)
    const [query, key, value] = ["to_q", "to_k", "to_v"].map(to => linear(matrices, layers[`${name}.${to}`], pixels));
    const attended = attention(query, key, value, x.channels, x.channels / settings.attention_head_size);
    return added(x, { ...x, values: linear(matrices, layers[`${name}.to_out.0`], attended) });
  }

  // The i-th residual block of a level, with attention where there is any.
  function block(level, i, x, time) {
    const hidden = residualBlock(`${level}.resnets.${i}`, x, time);
    return has(`${level}.attentions.${i}`) ? selfAttention(`${level}.attentions.${i}`, hidden) : hidden;
  }

  function down(level, skips, time) {
    for (let i = 0; has(`${level}.resnets.${i}`); i++) skips.push(block(level, i, skips.at(-1), time));
    if (has(`${level}.downsamplers`)) skips.push(convolve(`${level}.downsamplers.0.conv`, skips.at(-1), 2));
  }

  function up(level, x, skips, time) {
    for (let i = 0; has(`${level}.resnets.${i}`); i++) x = block(level, i, concatenated(x, skips.pop()), time);
    return has(`${level}.upsamplers`) ? convolve(`${level}.upsamplers.0.conv`, doubled(x)) : x;
  }

  return (x, timestep, label) => {
    const time = condition(matrices, layers, timestep, label);
    const skips = [convolve("conv_in", fold({ values: x, height, width, channels }, folding))];
    for (let i = 0; has(`down_blocks.${i}`); i++) down(`down_blocks.${i}`, skips, time);
    let hidden = block("mid_block", 0, skips.at(-1), time);
    hidden = block("mid_block", 1, hidden, time);
    for (let i = 0; has(`up_blocks.${i}`); i++) hidden = up(`up_blocks.${i}`, hidden, skips, time);
    return unfold(convolve("conv_out", norm("conv_norm_out", hidden)), folding).values;
  };
}

const added = (a, b) => ({ ...a, values: sum(a.values, b.values) });

// The channels of two images of the same size, side by side.
function concatenated(a, b) {
  const channels = a.channels + b.channels, pixels = a.height * a.width, values = new Float32Array(pixels * channels);
  for (let pixel = 0; pixel < pixels; pixel++) {
    values.set(a.values.subarray(pixel * a.channels, (pixel + 1) * a.channels), pixel * channels);
    values.set(b.values.subarray(pixel * b.channels, (pixel + 1) * b.channels), pixel * channels + a.channels);
  }
  return { ...a, channels, values };
}

// Every pixel twice in each direction.
function doubled({ values, height, width, channels }) {
  const result = new Float32Array(4 * values.length);
  for (let y = 0, at = 0; y < 2 * height; y++) {
    for (let x = 0; x < 2 * width; x++, at += channels) {
      const pixel = ((y >> 1) * width + (x >> 1)) * channels;
      result.set(values.subarray(pixel, pixel + channels), at);
    }
  }
  return { values: result, height: 2 * height, width: 2 * width, channels };
}

// How squares of pixels become channels: their side, and the matrix (side^2, side^2) that they are multiplied by.
function foldingOf({ patch_size, folding }) {
  const rows = folding === "haar" ? haarMatrix(patch_size) : identityMatrix(patch_size);
  return { side: patch_size, matrix: kronecker(rows, rows) };
}

// (C, H, W), channel by channel, to (H/p, W/p, C p^2): pixel-unshuffle (arXiv 1609.05158) and the folding's matrix.
function fold({ values, height, width, channels }, { side, matrix }) {
  const area = side * side, folded = new Float32Array(values.length);
  eachSquarePixel(height, width, channels, side, (channel, square, place, pixel) => {
    for (let i = 0; i < area; i++) folded[(square * channels + channel) * area + i] += matrix[i][place] * values[pixel];
  });
  return { values: folded, height: height / side, width: width / side, channels: channels * area };
}

// The inverse, by the transposed matrix.
function unfold({ values, height, width, channels }, { side, matrix }) {
  const area = side * side, pixels = new Float32Array(values.length), size = channels / area;
  eachSquarePixel(height * side, width * side, size, side, (channel, square, place, pixel) => {
    for (let i = 0; i < area; i++) pixels[pixel] += matrix[i][place] * values[(square * size + channel) * area + i];
  });
  return { values: pixels, height: height * side, width: width * side, channels: size };
}

// Visits all pixels of (C, H, W): visit(channel, number of the square, place in it, number of the pixel).
function eachSquarePixel(height, width, channels, side, visit) {
  for (let channel = 0, pixel = 0; channel < channels; channel++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, pixel++) {
        const square = Math.floor(y / side) * (width / side) + Math.floor(x / side);
        visit(channel, square, y % side * side + x % side, pixel);
      }
    }
  }
}

const identityMatrix = size => [...Array(size).keys()].map(row => Array.from({ length: size }, (_, i) => +(i === row)));
const kronecker = (a, b) => a.flatMap(left => b.map(right => left.flatMap(x => right.map(y => x * y))));

// The orthonormal Haar transform (size, size): sums of neighbours are transformed further, differences are details.
function haarMatrix(size) {
  if (size === 1) return [[1]];
  const coarse = kronecker(haarMatrix(size / 2), [[1, 1]]), details = kronecker(identityMatrix(size / 2), [[1, -1]]);
  return [...coarse, ...details].map(row => row.map(value => value / Math.sqrt(2)));
}
