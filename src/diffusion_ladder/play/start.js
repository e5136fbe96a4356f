"use strict";

for (const kind of ["error", "unhandledrejection"]) {
  addEventListener(kind, ({ message, reason }) => document.querySelectorAll(".stage .status").forEach(status => {
    status.textContent = `This doesn’t work here: ${message ?? reason}`;
  }));
}

// A link such as play.html#moons opens the stage with that rung.
const asked = location.hash.slice(1);
if (asked in models) document.querySelector(`input[data-control=model][value="${asked}"]`).checked = true;
document.querySelectorAll(".stage").forEach(stage => {
  stage.hidden = false;
  new (stage.dataset.kind === "points" ? PointStage : PictureStage)(stage);
});
if (asked in models) document.querySelector(`.stage:has(input[value="${asked}"])`).scrollIntoView();
