// The network of Part 1, networks/mlp.py: a residual multilayer perceptron on points of the plane.
"use strict";

// Gives the prediction for noisy points x (B, 2) at a timestep, and a label where it knows classes.
function mlp({ layers, matrices }, settings) {
  const apply = (name, x) => linear(matrices, layers[name], x);

  // h + W2 silu(W1 silu(norm(h)) + W_t c), the time c (size,) being that of all points.
  function residualLayer(name, hidden, time) {
    const ofTime = apply(`${name}.time_projection`, time);
    const inner = apply(`${name}.linear_1`, layerNormSilu(layers[`${name}.norm`], hidden));
    for (let i = 0; i < inner.length; i++) inner[i] = silu(inner[i] + ofTime[i % ofTime.length]);
    return sum(hidden, apply(`${name}.linear_2`, inner));
  }

  return (x, timestep, label) => {
    const time = condition(matrices, layers, timestep, label).map(silu);
    let hidden = apply("linear_in", x); // (B, hidden_size)
    for (let i = 0; i < settings.hidden_layers; i++) hidden = residualLayer(`layers.${i}`, hidden, time);
    return apply("linear_out", layerNormSilu(layers.norm_out, hidden));
  };
}
