// Pointing at a plot, or the arrow keys on a focused one, tells the numbers of that moment: a row of the plot's own table.
"use strict";
for (const figure of document.querySelectorAll("figure.plot")) {
  const heads = Array.from(figure.querySelectorAll("thead th"), (th) => th.textContent);
  const rows = Array.from(figure.querySelectorAll("tbody tr"));
  const places = rows.map((row) => Number(row.dataset.at));
  const readout = figure.querySelector(".readout");
  const hint = "Point at the plot, or focus it and press the arrow keys, for the numbers of a moment.";
  if (!rows.length || !readout) continue;
  readout.textContent = hint;
  for (const svg of figure.querySelectorAll("svg[data-left]")) {
    const left = Number(svg.dataset.left);
    const inner = Number(svg.dataset.right) - left;
    const guide = svg.querySelector(".guide");
    let now = -1;
    const show = (i) => {
      now = Math.max(0, Math.min(rows.length - 1, i));
      const x = left + inner * places[now];
      guide.setAttribute("x1", x);
      guide.setAttribute("x2", x);
      guide.setAttribute("visibility", "visible");
      const cells = Array.from(rows[now].children, (cell, k) => `${heads[k]} ${cell.textContent}`);
      readout.textContent = cells.join(" · ");
    };
    const hide = () => {
      guide.setAttribute("visibility", "hidden");
      readout.textContent = hint;
    };
    const nearest = (fraction) => {
      let best = 0;
      for (let i = 1; i < places.length; i++) {
        if (Math.abs(places[i] - fraction) < Math.abs(places[best] - fraction)) best = i;
      }
      return best;
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      show(nearest((x - left) / inner));
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -rows.length, End: rows.length }[event.key];
      if (!step) return;
      event.preventDefault();
      show(now + step);
    });
  }
}
// Buttons above a listing: show only what was missed, open or close every instruction's states.
for (const button of document.querySelectorAll("button[data-toggle]")) {
  const section = button.closest("section");
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    if (button.dataset.toggle === "states") {
      for (const details of section.querySelectorAll("details.states")) details.open = on;
    } else {
      section.classList.toggle("only-missed", on);
    }
  });
}
