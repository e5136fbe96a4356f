// What runs off the main thread: one network, and jobs for it. A newer job on a channel takes an older one's place.
"use strict";

const NETWORKS = { mlp, unet, diffusers_unet: unet };

// A model's network, forward process and data, as the page brings them.
function modelOf(model, kernel) {
  const process = { ...model.process, alphaBar: doublesOf(model.process.alphaBar) };
  const layers = layersOf(model.weights, kernel && bytesOf(kernel));
  const network = NETWORKS[model.network.name](layers, model.network, model.shape);
  const { length: T } = process.alphaBar, { nullLabel, interval } = model;
  const guide = (answer, { label, scale }) => guided(answer, { label, nullLabel, scale, interval, T });
  const size = model.shape.reduce((product, side) => product * side, 1);
  return { process, network, guide, size, pointsOf: model.data && pointsByLabel(model) };
}

// A function from labels to the training points (N, 2) that have them; the null label, like no label, stands for all.
function pointsByLabel({ data, labels, nullLabel }) {
  const points = halvesOf(data), all = labels && bytesOf(labels);
  return label => (all && label !== nullLabel ? points.filter((_, at) => all[at >> 1] === label) : points);
}

// The reverse process of some samples, by the numbers that seed their noise; `start` takes the place of their x_T.
function* walk({ process, network, guide, size }, { sampler, steps, eta, seed, numbers, start, ...condition }) {
  const generators = numbers.map(number => normals(seed, number)), noise = () => draw(generators, size);
  const drawn = noise(), x = start ?? drawn;
  yield* SAMPLERS[sampler]({ x, predict: guide(network, condition), steps, noise, eta, process });
}

// The score -epsilon / sqrt(1 - alphaBar), learnt or exact, at places (B, 2) and a whole timestep.
function score({ process, network, guide, pointsOf }, { t, places, isExact, ...condition }) {
  const alphaBar = process.alphaBar[t], scales = [Math.sqrt(alphaBar), Math.sqrt(1 - alphaBar)];
  const epsilon = (type, output, x_t) => partsOf(type, output, x_t, ...scales).epsilon;
  const exact = (x_t, _, label) => epsilon("sample", dataSetMean(x_t, alphaBar, pointsOf(label)), x_t);
  const learnt = (x_t, _, label) => epsilon(process.prediction_type, network(x_t, t, label), x_t);
  return combined(-1 / scales[1], guide(isExact ? exact : learnt, condition)(places, t));
}

// Lets messages in that have arrived meanwhile.
const breath = () => new Promise(resolve => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => (port1.close(), resolve());
  port2.postMessage(null);
});

// Answers jobs: one message for each state of a walk, and a last one.
function serve(scope) {
  let model;
  const newest = {};
  const tasks = {
    load: job => { model = modelOf(job.model, job.kernel); },
    score: (job, answer) => answer({ isLast: true, score: score(model, job) }),
    walk: async (job, answer) => {
      for (const state of walk(model, job)) {
        answer(state);
        await breath();
        if (newest[job.channel] !== job.id) return;
      }
      answer({ isLast: true });
    },
  };
  scope.onmessage = async ({ data: job }) => {
    const { id, channel, task } = job, answer = values => scope.postMessage({ id, channel, ...values });
    newest[channel] = id;
    try {
      await tasks[task](job, answer);
    } catch (error) {
      answer({ error: String(error) });
    }
  };
}
