// The stage of the pictures: some are drawn side by side, each by the next worker that is free.
"use strict";

class PictureStage {
  constructor(stage) {
    this.stage = stage;
    this.hands = [];
    this.pictures = [];
    this.progress = stage.querySelector("progress");
    this.controls = new Controls(stage, name => (name === "model" ? this.open() : null));
    this.clock = new Clock(stage.querySelector(".controls"), at => this.pictures.forEach(picture => picture.show(at)));
    this.button = stage.querySelector("button.draw");
    this.button.addEventListener("click", () => this.draw());
    new IntersectionObserver(([{ isIntersecting }], observer) => {
      if (!isIntersecting) return;
      observer.disconnect();
      this.draw();
    }, { threshold: 0.15 }).observe(stage.querySelector(".gallery"));
  }

  open() {
    this.hands.forEach(hand => hand.dismiss());
    this.hands = [];
    this.draw();
  }

  // The classes of the pictures that are asked for: one, or all in turn, or none.
  get labels() {
    const { classes } = this.controls.model, chosen = this.controls.value(`class-${this.controls.key}`);
    return Array.from({ length: this.controls.value("count") }, (_, number) =>
      (chosen === undefined || chosen === "none" ? null : chosen === "each" ? number % classes.length : Number(chosen)));
  }

  // Draws all pictures; whatever is being drawn is left.
  async draw() {
    const run = this.run = {}, before = performance.now(), { model, evaluations } = this.controls, { labels } = this;
    const steps = labels.length * (this.controls.sampler.evaluations * (this.controls.value("steps") - 1) + 1);
    this.pictures = labels.map(label => new Picture(model.shape, label === null ? "" : model.classes[label]));
    this.stage.querySelector(".gallery").replaceChildren(...this.pictures.map(({ figure }) => figure));
    this.progress.max = steps;
    this.progress.value = 0;
    this.clock.times = [];
    const waiting = [...labels.entries()], tell = () => this.tell((performance.now() - before) / 1000, steps, evaluations);
    tell();
    await Promise.all(this.crew(labels.length).map(async hand => {
      while (waiting.length && run === this.run) {
        const [number, label] = waiting.shift(), job = { ...this.controls.job(label), channel: "picture", numbers: [number] };
        await hand.walk(job, state => {
          if (run !== this.run) return;
          this.pictures[number].add(state);
          this.progress.value += 1;
          tell();
        });
        if (run === this.run) this.pictures[number].finish();
      }
    }));
    if (run !== this.run) return;
    this.clock.times = [...this.pictures[0].states.map(({ t }) => named(t))];
    this.clock.at = this.pictures[0].states.length - 1;
  }

  // Workers, as many as there are processor cores beside the page's own, but no more than are of use.
  crew(count) {
    const most = Math.max(1, Math.min(count, 4, (navigator.hardwareConcurrency || 2) - 1));
    while (this.hands.length < most) this.hands.push(new Hand(this.controls.key));
    return this.hands.slice(0, most);
  }

  tell(seconds, steps, evaluations) {
    const { value } = this.progress, count = this.pictures.length, done = value >= steps;
    this.stage.querySelector(".status").textContent = done
      ? `${count} ${count === 1 ? "picture" : "pictures"} in ${seconds.toFixed(1)} s; ${evaluations} evaluations of the network each.`
      : `Step ${value} of ${steps} …`;
  }
}

// One picture on its way: x_t, and beside it the x_0 that the network means.
class Picture {
  constructor(shape, title) {
    this.shape = shape;
    this.states = [];
    this.figure = document.createElement("figure");
    this.canvases = ["x_t", "x_0"].map(name => {
      const canvas = document.createElement("canvas");
      [canvas.height, canvas.width] = shape.slice(1);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${title || "picture"}, ${name === "x_t" ? "noisy" : "as the network predicts it"}`);
      return canvas;
    });
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    this.figure.append(...this.canvases, caption);
  }

  add(state) {
    keep(this.states, state);
    this.show(this.states.length - 1);
  }

  finish() {
    this.states = withEnd(this.states);
    this.show(this.states.length - 1);
  }

  show(at) {
    const state = this.states[at];
    if (!state) return;
    [state.x_t, state.x_0].forEach((values, index) => paintPixels(this.canvases[index], values, this.shape));
  }
}

// Values (C, H, W), [-1, 1], as pixels; grey where there is one channel.
function paintPixels(canvas, values, [channels, height, width]) {
  const pen = canvas.getContext("2d"), picture = pen.createImageData(width, height), pixels = height * width;
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let c = 0; c < 3; c++) picture.data[4 * pixel + c] = Math.round(127.5 * (values[pixel + pixels * (c % channels)] + 1));
    picture.data[4 * pixel + 3] = 255;
  }
  pen.putImageData(picture, 0, 0);
}
