// The stage of the points: a crowd that walks from noise to data, one point to drag, and two fields of scores.
"use strict";

const CROWD = 400, REACH = 2.9, GRID = 23; // points; standard deviations to each side; arrows along each side
const TAIL = 0.1; // share of its way that a tail of the crowd reaches back
const START = [-1.5, 1.3]; // of the tracked point
const HOLD = 34; // pixels within which a finger holds the point

class PointStage {
  constructor(stage) {
    this.stage = stage;
    this.start = Float32Array.from(START);
    [this.learnt, this.exact] = ["learnt", "exact"].map(name => stage.querySelector(`canvas.${name}`));
    this.places = Float32Array.from({ length: 2 * GRID * GRID }, (_, at) =>
      REACH * (2 * (at % 2 ? Math.floor(at / 2 / GRID) : Math.floor(at / 2) % GRID) + 1 - GRID) / GRID);
    this.paint = latestFrame(() => this.draw());
    this.follow = latest(() => this.walkTracked());
    this.compare = latest(() => this.computeFields());
    this.controls = new Controls(stage, name => this.changed(name));
    this.clock = new Clock(stage.querySelector(".controls"), () => (this.paint(), this.compare()));
    stage.querySelector("button.again").addEventListener("click", () => this.reseed());
    darkness.addEventListener("change", this.paint);
    new ResizeObserver(this.paint).observe(this.learnt);
    this.listenToPointer();
    this.learnt.addEventListener("keydown", event => this.key(event));
    this.open();
  }

  // Starts with the chosen model.
  open() {
    this.hands?.forEach(hand => hand.dismiss());
    this.hands = [new Hand(this.controls.key), new Hand(this.controls.key)];
    this.begin(true);
  }

  changed(name) {
    if (name === "model") this.open();
    else this.begin(name === "seed");
  }

  reseed() {
    this.controls.set("seed", (this.controls.value("seed") + 1) % 1000);
    this.begin(true);
  }

  get label() {
    const label = this.controls.value(`class-${this.controls.key}`);
    return label === undefined || label === "none" ? null : Number(label);
  }

  // Walks the crowd anew; from the start of time, where its noise is another.
  async begin(fromNoise) {
    const frames = [], before = performance.now(), wasAtEnd = this.frames && this.clock.isAtEnd;
    this.fields = null;
    this.say("Walking …");
    const job = { task: "walk", channel: "crowd", numbers: [...Array(CROWD).keys()], ...this.controls.job(this.label) };
    if (!await this.hands[0].ask(job, state => keep(frames, state))) return;
    this.frames = withEnd(frames);
    this.clock.times = this.frames.map(({ t }) => named(t));
    await this.follow();
    this.report((performance.now() - before) / 1000);
    if (fromNoise && !stillness.matches) {
      this.clock.at = 0;
      this.clock.pause();
      this.clock.play();
    } else if (wasAtEnd || stillness.matches) this.clock.at = this.frames.length - 1;
  }

  report(seconds) {
    const { sampler: { title }, evaluations } = this.controls;
    this.say(`${title}: ${evaluations} ${evaluations === 1 ? "evaluation" : "evaluations"} of the network for each of`
      + ` ${CROWD} points, in ${seconds.toFixed(1)} s.`);
  }

  say(text) {
    this.stage.querySelector(".status").textContent = text;
  }

  // The way of the point that is dragged, from where it was put.
  async walkTracked() {
    if (!this.frames) return;
    const way = [], { start } = this, job = { ...this.controls.job(this.label), numbers: [CROWD], start };
    if (!await this.hands[0].ask({ task: "walk", channel: "tracked", ...job }, state => keep(way, state))) return;
    this.way = withEnd(way).map(({ x_t }) => x_t);
    this.paint();
  }

  // Both fields at the moment shown, on the grid and where the crowd is.
  async computeFields() {
    const frame = this.frames?.[this.clock.at];
    if (!frame) return;
    const t = Math.max(0, Math.round(frame.t));
    const { label, scale } = this.controls.job(this.label), places = joined(this.places, frame.x_t);
    const [learnt, exact] = await Promise.all([false, true].map(isExact =>
      this.hands[1].ask({ task: "score", channel: `exact ${isExact}`, t, places, isExact, label, scale })));
    if (!learnt || !exact) return;
    this.fields = { t, learnt: learnt.score, exact: exact.score };
    this.tellError();
    this.paint();
  }

  // How far apart the fields are where the crowd is, beside the exact one's size.
  tellError() {
    const { t, learnt, exact } = this.fields;
    let difference = 0, size = 0;
    for (let at = this.places.length; at < exact.length; at++) {
      difference += (learnt[at] - exact[at]) ** 2;
      size += exact[at] ** 2;
    }
    const percent = 100 * Math.sqrt(difference / size);
    this.stage.querySelector(".error").textContent =
      `At t = ${named(t)} the learnt score is ${percent.toFixed(percent < 10 ? 1 : 0)} % off, where the points are.`
      + (percent > 50 ? " Here the exact one leads to single training points, as if learnt by heart." : "");
  }

  draw() {
    for (const [canvas, name] of [[this.learnt, "learnt"], [this.exact, "exact"]]) {
      const pen = penOn(canvas);
      if (this.fields) drawField(pen, this.places, this.fields[name]);
      if (!this.frames) continue;
      const { at } = this.clock, since = Math.max(0, at - Math.ceil(TAIL * this.frames.length));
      drawTails(pen, this.frames.slice(since, at + 1));
      drawDots(pen, this.frames[at].x_t);
      if (name === "learnt" && this.way) drawWay(pen, this.way, this.clock.at, document.activeElement === canvas);
    }
  }

  // Puts the start of the tracked point somewhere else.
  move(x, y) {
    this.start = Float32Array.of(...[x, y].map(value => Math.max(-REACH, Math.min(REACH, value))));
    const [first, second] = [...this.start].map(value => value.toFixed(2));
    this.stage.querySelector(".place").textContent = `The green point starts at (${first}, ${second}).`;
    this.follow();
  }

  key(event) {
    const step = event.shiftKey ? 0.3 : 0.05;
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!by) return;
    event.preventDefault();
    this.move(this.start[0] + step * by[0], this.start[1] + step * by[1]);
  }

  listenToPointer() {
    const canvas = this.learnt;
    const placeOf = ({ clientX, clientY }) => {
      const { left, top, width, height } = canvas.getBoundingClientRect();
      return [REACH * (2 * (clientX - left) / width - 1), REACH * (1 - 2 * (clientY - top) / height)];
    };
    const isNear = event => {
      const [x, y] = placeOf(event), scale = canvas.clientWidth / 2 / REACH;
      return Math.hypot(x - this.start[0], y - this.start[1]) * scale < HOLD;
    };
    let held = false;
    canvas.addEventListener("touchstart", event => { // elsewhere, a finger scrolls the page
      if (isNear(event.touches[0])) event.preventDefault();
    }, { passive: false });
    canvas.addEventListener("pointerdown", event => {
      if (!(held = isNear(event))) return;
      canvas.setPointerCapture(event.pointerId);
      canvas.focus({ preventScroll: true });
    });
    canvas.addEventListener("pointermove", event => {
      canvas.style.cursor = held ? "grabbing" : isNear(event) ? "grab" : "crosshair";
      if (held) this.move(...placeOf(event));
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (held = false));
    canvas.addEventListener("click", event => this.move(...placeOf(event)));
    for (const change of ["focus", "blur"]) canvas.addEventListener(change, this.paint);
  }
}

const joined = (a, b) => Float32Array.of(...a, ...b);

// A function that runs `work` in the next frame, once for all calls until then.
function latestFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => (asked = false, work()));
  };
}

// A pen on a cleared canvas, in units of standard deviations, upwards as in books.
function penOn(canvas) {
  const side = canvas.clientWidth * Math.min(3, devicePixelRatio || 1), pen = canvas.getContext("2d");
  canvas.width = canvas.height = Math.round(side);
  const scale = side / 2 / REACH;
  pen.setTransform(scale, 0, 0, -scale, side / 2, side / 2);
  return pen;
}

// Wedges that point where the score does, the longer the larger it is beside what it is where the crowd is.
function drawField(pen, places, field) {
  const length = REACH / GRID, crowd = field.subarray(places.length);
  const typical = Math.sqrt(crowd.reduce((total, value) => total + value ** 2, 0) / (crowd.length / 2));
  pen.fillStyle = colour("--field");
  for (let at = 0; at < places.length; at += 2) {
    const size = Math.hypot(field[at], field[at + 1]), share = 0.25 + 0.75 * (1 - Math.exp(-size / typical));
    const [dx, dy] = [field[at], field[at + 1]].map(value => value / size * share * length);
    pen.beginPath();
    pen.moveTo(places[at] + dx, places[at + 1] + dy);
    pen.lineTo(places[at] - dx - dy * 0.26, places[at + 1] - dy + dx * 0.26);
    pen.lineTo(places[at] - dx + dy * 0.26, places[at + 1] - dy - dx * 0.26);
    pen.fill();
  }
}

// Where the crowd comes from.
function drawTails(pen, frames) {
  const last = frames.at(-1).x_t;
  Object.assign(pen, { strokeStyle: colour("--dot"), lineWidth: 0.02, globalAlpha: 0.28, lineJoin: "round" });
  pen.beginPath();
  for (let at = 0; at < last.length; at += 2) {
    frames.forEach(({ x_t }, index) => (index ? pen.lineTo : pen.moveTo).call(pen, x_t[at], x_t[at + 1]));
  }
  pen.stroke();
  pen.globalAlpha = 1;
}

function drawDots(pen, x) {
  pen.fillStyle = colour("--dot");
  for (let at = 0; at < x.length; at += 2) {
    pen.beginPath();
    pen.arc(x[at], x[at + 1], 0.034, 0, 7);
    pen.fill();
  }
}

// The whole way of the tracked point, its start as a ring to hold, and where it is now.
function drawWay(pen, way, at, isFocused) {
  const line = (from, to) => {
    pen.beginPath();
    for (let i = from; i <= to; i++) pen.lineTo(...way[i]);
    pen.stroke();
  };
  const now = Math.min(at, way.length - 1), [start, place] = [way[0], way[now]];
  Object.assign(pen, { lineJoin: "round", lineCap: "round", strokeStyle: colour("--way") });
  Object.assign(pen, { lineWidth: 0.035, globalAlpha: 0.55 });
  line(now, way.length - 1);
  Object.assign(pen, { lineWidth: 0.06, globalAlpha: 1 });
  line(0, now);
  pen.beginPath();
  pen.arc(...start, 0.19, 0, 7);
  Object.assign(pen, { lineWidth: isFocused ? 0.08 : 0.045 });
  pen.stroke();
  pen.beginPath();
  pen.arc(...place, 0.09, 0, 7);
  Object.assign(pen, { fillStyle: colour("--way"), strokeStyle: colour("--card"), lineWidth: 0.03 });
  pen.fill();
  pen.stroke();
}
