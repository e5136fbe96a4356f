// The workers: each runs the engine (matrix.js to worker.js) with the network of one model.
"use strict";

const textOf = id => document.getElementById(id).textContent;
const models = JSON.parse(textOf("models"));
let engineURL = null, jobs = 0;

class Hand {
  constructor(key) {
    engineURL ??= URL.createObjectURL(new Blob([textOf("engine"), "\nserve(self);"], { type: "text/javascript" }));
    this.worker = new Worker(engineURL);
    this.asked = {}; // by channel, the newest job
    this.worker.onmessage = ({ data: { id, channel, ...answer } }) => {
      if (this.asked[channel]?.id === id) this.asked[channel].hear(answer);
    };
    const { shapes, ...model } = models[key], data = document.getElementById(`data-${key}`)?.textContent;
    model.weights = { shapes, values: textOf(`weights-${key}`) };
    this.worker.postMessage({ task: "load", model: { ...model, data }, kernel: textOf("kernel") });
  }

  // The last answer to a job; those before are shown as they come. null if a newer job on its channel takes its place.
  ask(job, show) {
    const id = ++jobs;
    this.asked[job.channel]?.leave();
    return new Promise((resolve, reject) => {
      const hear = answer => {
        if (answer.error) reject(new Error(answer.error));
        else if (answer.isLast) resolve(answer);
        else show(answer);
      };
      this.asked[job.channel] = { id, hear, leave: () => resolve(null) };
      this.worker.postMessage({ id, ...job });
    });
  }

  dismiss() {
    this.worker.terminate();
    Object.values(this.asked).forEach(({ leave }) => leave());
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
