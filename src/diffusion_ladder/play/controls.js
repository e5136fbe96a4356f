// The controls of a stage, which the template has written; what they say, as one object.
"use strict";

const stillness = matchMedia("(prefers-reduced-motion: reduce)"), darkness = matchMedia("(prefers-color-scheme: dark)");
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

class Controls {
  // changed(name) is called when a control gets another value; the stage is an element with data-control on its inputs.
  constructor(stage, changed) {
    this.stage = stage;
    stage.addEventListener("input", ({ target }) => {
      if (!target.dataset.control) return;
      if (target.dataset.control === "model") this.fit();
      this.label();
      changed(target.dataset.control);
    });
    this.fit();
  }

  input(name) {
    return this.stage.querySelector(`input[data-control=${name}]`);
  }

  value(name) {
    const input = this.input(name);
    if (input?.type === "radio") return this.stage.querySelector(`input[data-control=${name}]:checked`)?.value;
    return input ? Number(input.value) : undefined;
  }

  set(name, value) {
    const input = this.input(name);
    if (input.type === "radio") {
      this.stage.querySelector(`input[data-control=${name}][value="${value}"]`).checked = true;
    } else input.value = value;
    this.label();
  }

  get key() {
    return this.value("model");
  }

  get model() {
    return models[this.key];
  }

  get sampler() {
    return this.model.samplers.find(({ name }) => name === this.value("sampler"));
  }

  // What a walk is asked for, but for whose noise it starts from; label: the number of a class, or null for none.
  job(label) {
    const { nullLabel } = this.model;
    return {
      sampler: this.value("sampler"), steps: this.value("steps"), seed: this.value("seed"),
      eta: this.sampler.takesEta ? this.value("eta") : 0, label: label ?? nullLabel,
      scale: label === null || nullLabel === null ? 1 : this.value("scale"),
    };
  }

  // Network evaluations for a sample.
  get evaluations() {
    const { steps, scale } = this.job(0), each = this.sampler.evaluations;
    return (each * (steps - 1) + 1) * (this.model.nullLabel !== null && scale !== 1 && scale !== 0 ? 2 : 1);
  }

  // Fits the controls to another model: its samplers, classes, and its own way of sampling.
  fit() {
    const { samplers, classes, nullLabel, mostSteps, chosen } = this.model, names = samplers.map(({ name }) => name);
    for (const label of this.stage.querySelectorAll("label:has([data-control=sampler])")) {
      label.hidden = !names.includes(label.firstElementChild.value);
    }
    for (const fieldset of this.stage.querySelectorAll("fieldset[data-classes-of]")) {
      fieldset.hidden = fieldset.disabled = fieldset.dataset.classesOf !== this.key;
    }
    this.input("scale").closest(".knob").hidden = nullLabel === null || !classes.length;
    this.input("steps").max = mostSteps;
    for (const [name, value] of Object.entries(chosen)) this.set(name, value);
  }

  // Says the values of the sliders, and dims what the sampler has no use for.
  label() {
    this.input("eta").disabled = !this.sampler.takesEta;
    for (const output of this.stage.querySelectorAll("output[data-of]")) {
      output.value = this.input(output.dataset.of).value;
    }
  }
}

// A slider over moments and the button beside it, which plays them.
class Clock {
  constructor(root, show) {
    [this.button, this.slider, this.output] = ["button", "input", "output"].map(name => root.querySelector(name));
    this.show = show;
    this.slider.addEventListener("input", () => (this.pause(), this.tell()));
    this.button.addEventListener("click", () => (this.timer ? this.pause() : this.play()));
    stillness.addEventListener("change", () => this.pause());
    this.moments = [];
    this.slider.disabled = this.button.disabled = true;
    this.pause();
  }

  get at() {
    return Number(this.slider.value);
  }

  set at(value) {
    this.slider.value = value;
    this.tell();
  }

  // What the moments are called: t, falling from T to 0. A moment that is shown stays as near as can be.
  set times(moments) {
    const share = this.moments.length > 1 ? this.at / (this.moments.length - 1) : 0;
    this.moments = moments;
    this.slider.max = Math.max(0, moments.length - 1);
    this.slider.disabled = this.button.disabled = moments.length === 0;
    this.at = Math.round(share * (moments.length - 1));
  }

  tell() {
    this.output.value = this.moments.length ? `t = ${this.moments[this.at]}` : "";
    this.slider.setAttribute("aria-valuetext", this.output.value);
    this.show(this.at);
  }

  get isAtEnd() {
    return this.slider.value === this.slider.max;
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.button.textContent = stillness.matches ? "Next step" : "Play";
  }

  play() {
    if (this.isAtEnd) this.at = 0;
    else if (stillness.matches) this.at += 1; // one step a press: nothing moves by itself
    if (stillness.matches) return;
    this.button.textContent = "Pause";
    this.timer = setInterval(() => {
      if (this.isAtEnd) this.pause();
      else this.at += 1;
    }, Math.max(30, Math.min(250, 3000 / this.moments.length)));
  }
}

// Adds a state to those before it. Where Heun sees a timestep twice, the second look stays: at the corrected state.
function keep(states, state) {
  if (states.at(-1)?.t === state.t) states.pop();
  states.push(state);
}

// States, and after the last of them the samples.
const withEnd = states => [...states, { t: -1, x_t: states.at(-1).x, x_0: states.at(-1).x }];

// How t is called, counted from 1 as in the papers; a fraction, with some spacings of Heun, is rounded.
const named = t => Math.round(t) + 1;
