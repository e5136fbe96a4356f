// The players: each shows the frames of a film (figures/film.py) on canvases, moved by a native slider.
"use strict";
{
  const REACH = 3.5, GAP = 2, SIDE = 300; // standard deviations, and pixels
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name);

  // Points: coordinates in steps of 2 REACH / 255, frame by frame; the first point is tracked and leaves a trail.
  function drawPoints(canvas, panel, frame) {
    panel.bytes ??= Uint8Array.from(atob(panel.points), letter => letter.charCodeAt(0));
    const scale = Math.max(2, Math.ceil(devicePixelRatio)), pen = canvas.getContext("2d");
    canvas.width = canvas.height = SIDE * scale;
    canvas.style.maxWidth = "26rem";
    pen.scale(SIDE * scale / 255, -SIDE * scale / 255);
    pen.translate(0, -255);
    const place = (at, index) => panel.bytes.subarray(2 * (at * panel.count + index));
    const dot = (at, index, radius) => {
      const [x, y] = place(at, index);
      pen.beginPath();
      pen.arc(x, y, radius, 0, 7);
      pen.fill();
    };
    pen.fillStyle = colour("--crowd");
    for (let index = 1; index < panel.count; index++) dot(frame, index, 1.3);
    pen.beginPath();
    for (let at = 0; at <= frame; at++) pen.lineTo(...place(at, 0).subarray(0, 2));
    Object.assign(pen, { lineWidth: 1.6, lineJoin: "round", strokeStyle: colour("--trail") });
    pen.stroke();
    Object.assign(pen, { lineWidth: 1, fillStyle: colour("--tracked"), strokeStyle: colour("--tracked-edge") });
    dot(frame, 0, 4);
    pen.stroke();
  }

  // Tiles: of a sheet's columns one, in a row; or all of them, where nothing moves.
  function drawTiles(canvas, panel, frame, scene, sheet) {
    const [width, height] = scene.tile, moving = scene.timesteps.length > 0;
    const rows = moving ? [panel.rows] : panel.rows.map(row => scene.x.map(() => row));
    canvas.width = rows[0].length * (width + GAP) - GAP;
    canvas.height = rows.length * (height + GAP) - GAP;
    canvas.style.maxWidth = `${canvas.width * Math.max(1, Math.round((moving ? 400 : 800) / canvas.width))}px`;
    const pen = canvas.getContext("2d");
    rows.forEach((row, down) => row.forEach((tile, right) => pen.drawImage(
      sheet, scene.x[moving ? frame : right], scene.y[tile], width, height,
      right * (width + GAP), down * (height + GAP), width, height)));
  }

  function start(player) {
    const film = JSON.parse(player.querySelector("script").textContent);
    const [slider, output, button] = ["input[type=range]", "output", "button"].map(name => player.querySelector(name));
    const radios = [...player.querySelectorAll("input[type=radio]")];
    const sheet = file => document.querySelector(`a[href="${player.dataset.folder}${file}"] img`);
    let scene, screens, timer = null;

    function show() {
      const frame = slider ? Number(slider.value) : 0;
      scene.panels.forEach((panel, index) => panel.points
        ? drawPoints(screens[index], panel, frame)
        : drawTiles(screens[index], panel, frame, scene, sheet(scene.sheet)));
      if (!slider) return;
      output.value = `t = ${scene.timesteps[frame]}`;
      slider.setAttribute("aria-valuetext", output.value);
    }

    // The scene of the chosen options, at the moment nearest to the present one.
    function choose() {
      const chosen = Object.fromEntries(radios.filter(radio => radio.checked).map(radio => [radio.dataset.switch, radio.value]));
      const before = slider && scene ? scene.timesteps[slider.value] : null;
      scene = film.scenes.find(({ choices }) => Object.entries(choices).every(([name, option]) => chosen[name] === option));
      player.querySelector(".screens").replaceChildren(...scene.panels.map(screen));
      screens = [...player.querySelectorAll("canvas")];
      if (slider) slider.max = scene.timesteps.length - 1;
      if (before !== null) {
        const distances = scene.timesteps.map(t => Math.abs(t - before));
        slider.value = distances.indexOf(Math.min(...distances));
      }
      show();
    }

    function screen(panel) {
      const box = document.createElement("div"), title = document.createElement("p"), canvas = document.createElement("canvas");
      const options = Object.values(scene.choices).join(", ");
      title.textContent = panel.title;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", options ? `${panel.title}: ${options}` : panel.title);
      if (panel.rows) canvas.className = "pixels";
      box.append(title, canvas);
      return box;
    }

    function pause() {
      clearInterval(timer);
      timer = null;
      button.textContent = still.matches ? "Next step" : "Play";
    }

    function step() {
      slider.value = Number(slider.value) + 1;
      show();
      if (slider.value === slider.max) pause();
    }

    function play() {
      if (timer !== null) return pause();
      if (slider.value === slider.max) slider.value = -1;
      step();
      if (still.matches) return; // one step a press: nothing moves by itself
      timer = setInterval(step, 1000 / film.frames_per_second);
      button.textContent = "Pause";
    }

    player.hidden = false;
    player.closest("figure").querySelector("details").open = false;
    radios.forEach(radio => radio.addEventListener("change", choose));
    if (slider) {
      slider.addEventListener("input", () => { pause(); show(); });
      button.addEventListener("click", play);
      still.addEventListener("change", pause);
      pause();
    }
    choose();
  }

  // A sheet that only serves another picture's player moves into the stills below that player.
  function gather(player) {
    const own = player.closest("figure");
    for (const path of player.dataset.sheets.split(" ").filter(Boolean)) {
      const figure = document.querySelector(`a[href="${path}"]`)?.closest("figure");
      if (figure && figure !== own) own.querySelector("details").append(figure);
    }
  }

  addEventListener("load", () => document.querySelectorAll(".player").forEach(player => { gather(player); start(player); }));
}
