// The workers: each runs the engine (matrix.js to worker.js) with the network of one model.
"use strict";

const textOf = id => document.getElementById(id).textContent;
const models = JSON.parse(textOf("models"));
let engineURL = null, jobs = 0;

class Hand {
  constructor(key) {
    engineURL ??= URL.createObjectURL(new Blob([textOf("engine"), "\nserve(self);"], { type: "text/javascript" }));
    this.worker = new Worker(engineURL);
    this.waiting = new Map();
    this.worker.onmessage = ({ data }) => this.waiting.get(data.id)?.(data);
    const { shapes, ...model } = models[key], data = document.getElementById(`data-${key}`)?.textContent;
    model.weights = { shapes, values: textOf(`weights-${key}`) };
    this.worker.postMessage({ task: "load", model: { ...model, data }, kernel: textOf("kernel") });
  }

  // Asks for a score: (B, 2).
  score(job) {
    return new Promise((resolve, reject) => this.send({ task: "score", channel: "score", ...job }, answer =>
      (answer.error ? reject(new Error(answer.error)) : resolve(answer.score))));
  }

  // Walks from noise to samples; each state is shown as it comes. Ends early, and says so, if a newer walk on the
  // channel takes its place.
  walk(job, show) {
    this.leave?.[job.channel]?.();
    return new Promise((resolve, reject) => {
      (this.leave ??= {})[job.channel] = () => resolve(false);
      this.send({ task: "walk", ...job }, answer => {
        if (answer.error) reject(new Error(answer.error));
        else if (answer.done) resolve(true);
        else show(answer);
      });
    });
  }

  // A newer job on a channel is heard in the place of an older one.
  send(job, hear) {
    const id = ++jobs;
    for (const [other, { channel }] of this.waiting) if (channel === job.channel) this.waiting.delete(other);
    this.waiting.set(id, Object.assign(hear, { channel: job.channel }));
    this.worker.postMessage({ id, ...job });
  }

  dismiss() {
    this.worker.terminate();
  }
}

// A function that runs `work` at once, or, while that is still running, once more after it for all calls meanwhile.
function latest(work) {
  let running = false, again = false;
  return async function run() {
    if (running) return void (again = true);
    running = true;
    try {
      do {
        again = false;
        await work();
      } while (again);
    } finally {
      running = false;
    }
  };
}
