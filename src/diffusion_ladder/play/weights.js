// A network's weights, as they come in the page: float16 in base64, by the names of PyTorch's state_dict.
"use strict";

const bytesOf = base64 => Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));
const doublesOf = base64 => new Float64Array(bytesOf(base64).buffer);
const halvesOf = base64 => Float32Array.from(new Uint16Array(bytesOf(base64).buffer), half);

// The number that 16 bits stand for: sign, five bits of exponent, ten of mantissa.
function half(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = bits >> 10 & 31, mantissa = bits & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + mantissa / 1024) : 2 ** -14 * mantissa / 1024);
}

// The layers by name, ready for use, and the memory that they are in. shapes: [name, shape] in the order of the values.
function layersOf({ shapes, values }, kernel) {
  const all = halvesOf(values), tensors = {};
  let end = 0;
  for (const [name, shape] of shapes) {
    const count = shape.reduce((product, size) => product * size, 1);
    tensors[name] = { shape, values: all.subarray(end, end += count) };
  }
  const numbers = shapes.reduce((sum, [, shape]) => sum + 4 + storedNumbers(shape), 0);
  const matrices = new Matrices(numbers, kernel), layers = {};
  for (const [name, weight] of Object.entries(tensors)) {
    const layer = name.replace(/\.weight$/, "");
    if (layer === name) continue; // a bias, which goes with its weight
    const bias = tensors[`${layer}.bias`]?.values;
    if (!bias) layers[layer] = weight; // an embedding
    else if (weight.shape.length === 1) layers[layer] = { gain: weight.values, offset: bias };
    else layers[layer] = rightMatrix(matrices, weight, bias);
  }
  return { layers, matrices };
}

const storedNumbers = ([outputs, inputs = 0, ...kernel]) =>
  roundedUp(outputs, COLUMNS) * kernel.reduce((product, size) => product * size, inputs);

// A linear layer (outputs, inputs), or a convolution (outputs, inputs, side, side), as a matrix to multiply by from the
// right: (inner, columns), inner being side x side x inputs, and the columns those of the outputs and then zeros.
function rightMatrix(matrices, { shape, values }, bias) {
  const [outputs, inputs, side = 1] = shape, places = side * side;
  const inner = places * inputs, columns = roundedUp(outputs, COLUMNS);
  const matrix = matrices.allocate(inner * columns), padded = new Float32Array(columns);
  for (let output = 0, at = 0; output < outputs; output++) {
    for (let input = 0; input < inputs; input++) {
      for (let place = 0; place < places; place++) matrix[(place * inputs + input) * columns + output] = values[at++];
    }
  }
  padded.set(bias);
  return { matrix, bias: padded, inner, outputs, columns, inputs, side };
}
