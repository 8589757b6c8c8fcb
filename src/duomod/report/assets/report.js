/* The report page: draws charts, sorts tables, opens cases in the viewer. No network. */
(() => {
  "use strict";
  const { nonce } = document.currentScript;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  /* Charts: drawn when they come into view, in the page's own colours. */
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const PAPER = { "--fg": "#111", "--line": "#ccc", "--bg": "#fff" };
  const PAPER_WIDTH = 700; // pixels between the margins of an A4 or letter page

  function themed(layout, pick) {
    const axis = (given = {}) => ({
      gridcolor: pick("--line"), zerolinecolor: pick("--line"), linecolor: pick("--line"), automargin: true, ...given,
    });
    return {
      margin: { l: 60, r: 20, t: 16, b: 50 },
      hovermode: "closest",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      ...layout,
      font: { family: "system-ui, sans-serif", size: 13, color: pick("--fg") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      xaxis: axis(layout.xaxis),
      yaxis: axis(layout.yaxis),
    };
  }

  const { plotly } = DuomodViewer;
  const settings = { ...plotly, modeBarButtonsToRemove: [...plotly.modeBarButtonsToRemove, "select2d", "lasso2d"] };
  const drawn = new Set();
  function draw(key, pick = colour, width = undefined) {
    const figure = figures[key];
    const size = width ? { width, height: figure.height } : { autosize: true };
    Plotly.react(`chart-${key}`, figure.data, { ...themed(figure.layout, pick), ...size }, settings);
    drawn.add(key);
  }
  const keyOf = (figure) => figure.dataset.chart;
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !drawn.has(keyOf(entry.target))) draw(keyOf(entry.target));
    }
  }, { rootMargin: "300px" });
  const charts = [...document.querySelectorAll("[data-chart]")];
  charts.forEach((figure) => seen.observe(figure));
  dark.addEventListener("change", () => drawn.forEach((key) => draw(key)));
  window.addEventListener("beforeprint", () => {
    charts.filter((figure) => !figure.hidden).forEach((figure) => draw(keyOf(figure), (name) => PAPER[name], PAPER_WIDTH));
    document.querySelectorAll("#comparison details, #worst details, #classes details").forEach((part) => { part.open = true; });
  });
  window.addEventListener("afterprint", () => drawn.forEach((key) => draw(key)));

  document.querySelectorAll("select[data-group]").forEach((select) => {
    select.addEventListener("change", () => {
      for (const figure of select.closest(".group").querySelectorAll("[data-chart]")) {
        figure.hidden = keyOf(figure) !== select.value;
      }
      draw(select.value);
    });
  });

  /* Tables: numbers by value, the better end first; undefined values last in both directions. */
  function order(a, b, direction) {
    if (a === null || b === null) return (a === null) - (b === null);
    const numbers = [Number(a), Number(b)];
    const compared = numbers.every(Number.isFinite) ? numbers[0] - numbers[1] : a.localeCompare(b);
    return direction * compared;
  }
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "descending" || (column === 0 && head.getAttribute("aria-sort") === "none");
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", down ? "ascending" : "descending");
        const value = (row) => row.cells[column].getAttribute("data-sort");
        const rows = [...table.tBodies[0].rows].sort((a, b) => order(value(a), value(b), down ? 1 : -1));
        table.tBodies[0].append(...rows);
      });
    });
  });

  /* Viewer: a case's volumes are a script of its own, loaded when it is asked for. */
  const button = document.getElementById("viewer-open");
  if (button) {
    const select = document.getElementById("viewer-case");
    const state = document.getElementById("viewer-state");
    const place = document.getElementById("viewer-place");
    const loaded = new Map();
    let shown = null;
    const load = (file) => {
      if (!loaded.has(file)) {
        loaded.set(file, new Promise((done, failed) => {
          const script = document.createElement("script");
          script.nonce = nonce;
          script.src = file;
          script.onload = done;
          script.onerror = () => failed(new Error(`${file} cannot be read`));
          document.head.append(script);
        }));
      }
      return loaded.get(file);
    };
    button.addEventListener("click", async () => {
      const chosen = select.selectedOptions[0];
      state.textContent = "loading …";
      try {
        await load(chosen.value);
        if (shown) shown.destroy();
        place.replaceChildren();
        shown = await DuomodViewer.mount(place, chosen.dataset.case);
        state.textContent = "";
      } catch (error) {
        state.textContent = error.message;
      }
    });
  }
})();
