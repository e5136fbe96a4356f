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
    const { model: { classes }, key } = this.controls, chosen = this.controls.value(`class-${key}`) ?? "none";
    const labelOf = { none: () => null, each: number => number % classes.length }[chosen] ?? (() => Number(chosen));
    return Array.from({ length: this.controls.value("count") }, (_, number) => labelOf(number));
  }

  // Draws all pictures; whatever is being drawn is left.
  async draw() {
    const run = this.run = { labels: this.labels, begun: performance.now() }, { labels } = run;
    this.empty(labels);
    const waiting = [...labels.entries()];
    await Promise.all(this.crew(labels.length).map(async hand => {
      while (waiting.length && run === this.run) await this.drawOne(run, hand, ...waiting.shift());
    }));
    if (run !== this.run) return;
    this.clock.times = this.pictures[0].states.map(({ t }) => named(t));
    this.clock.at = this.clock.moments.length - 1;
  }

  // Frames for the pictures, with nothing in them.
  empty(labels) {
    const { sampler, model } = this.controls;
    this.pictures = labels.map(label => new Picture(model.shape, label === null ? "" : model.classes[label]));
    this.stage.querySelector(".gallery").replaceChildren(...this.pictures.map(({ figure }) => figure));
    this.progress.max = labels.length * (sampler.evaluations * (this.controls.value("steps") - 1) + 1);
    this.progress.value = 0;
    this.clock.times = [];
    this.tell();
  }

  async drawOne(run, hand, number, label) {
    const picture = this.pictures[number], job = { ...this.controls.job(label), numbers: [number] };
    const drawn = await hand.ask({ task: "walk", channel: "picture", ...job }, state => {
      if (run !== this.run) return;
      picture.add(state);
      this.progress.value += 1;
      this.tell();
    });
    if (drawn) picture.finish();
  }

  // Workers, as many as there are processor cores beside the page's own, but no more than are of use.
  crew(count) {
    const most = Math.max(1, Math.min(count, 4, (navigator.hardwareConcurrency || 2) - 1));
    while (this.hands.length < most) this.hands.push(new Hand(this.controls.key));
    return this.hands.slice(0, most);
  }

  tell() {
    const { progress: { value, max }, pictures: { length } } = this;
    const seconds = (performance.now() - this.run.begun) / 1000;
    this.stage.querySelector(".status").textContent = value < max
      ? `Step ${value} of ${max} …`
      : `${length} ${length === 1 ? "picture" : "pictures"} in ${seconds.toFixed(1)} s;`
        + ` ${this.controls.evaluations} evaluations of the network each.`;
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
      const what = name === "x_t" ? "noisy" : "as the network predicts it";
      canvas.setAttribute("aria-label", `${title || "picture"}, ${what}`);
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
  const level = (pixel, channel) => 127.5 * (values[pixel + pixels * (channel % channels)] + 1); // rounded when stored
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let channel = 0; channel < 3; channel++) picture.data[4 * pixel + channel] = level(pixel, channel);
    picture.data[4 * pixel + 3] = 255;
  }
  pen.putImageData(picture, 0, 0);
}
