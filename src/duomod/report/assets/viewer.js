/* Viewer of one case: three linked planes, truth, predictions and errors, surfaces in 3D. No dependency but Plotly for
   the surfaces; works from disk. */
(() => {
  "use strict";

  const { make, choice, slider } = DuomodViewer.elements;

  const WINDOWS = {
    CT: [["Abdomen", -125, 275], ["Soft tissue", -160, 240], ["Lung", -1350, 150], ["Bone", -500, 1500], ["Brain", 0, 80]],
    MR: [],
  };
  const MODES = [
    ["both", "Prediction, truth outlined"], ["prediction", "Prediction"], ["truth", "Truth"],
    ["errors", "Errors"], ["none", "Scan only"],
  ];

  const volume = (ml) => (ml === 0 ? "0" : ml < 10 ? ml.toFixed(2) : ml.toFixed(1));

  class Viewer {
    constructor(element, id, data) {
      this.data = data;
      this.size = data.size;
      this.truth = data.maps.find((map) => map.truth) || null;
      this.predictions = data.maps.filter((map) => !map.truth);
      this.prediction = this.predictions[0] || null;
      this.mode = this.prediction ? (this.truth ? "both" : "prediction") : this.truth ? "truth" : "none";
      this.shownBefore = this.mode;
      this.opacity = 0.45;
      this.visible = data.classes.map(() => true);
      this.colours = data.classes.map((entry) => DuomodViewer.painting.rgb(entry.colour));
      [this.low, this.high] = data.image.window;
      this.zoom = 1;
      this.cursor = this.start();
      this.centre = this.middle();
      this.build(element, id);
      this.resized = new ResizeObserver(() => this.layOut());
      this.planes.forEach((plane) => this.resized.observe(plane.canvas.parentElement));
      this.dark = window.matchMedia("(prefers-color-scheme: dark)");
      this.recolour = () => this.surfaces.draw();
      this.dark.addEventListener("change", this.recolour);
      this.layOut();
      this.surfaces.draw();
    }

    destroy() {
      this.resized.disconnect();
      this.dark.removeEventListener("change", this.recolour);
      this.surfaces.destroy();
      this.root.remove();
    }

    middle() {
      return this.size.map((count) => (count - 1) / 2);
    }

    /* The cursor starts in the largest organ, so that the first look is not at empty space. */
    start() {
      const map = this.truth || this.prediction;
      const largest = map ? map.ml.indexOf(Math.max(...map.ml)) : -1;
      const centre = largest >= 0 ? map.centres[largest] : null;
      return centre ? [...centre] : this.size.map((count) => Math.floor(count / 2));
    }

    at(x, y, z) {
      return x + this.size[0] * (y + this.size[1] * z);
    }

    /* -- building -- */

    build(element, id) {
      const modes = MODES.filter(([key]) => (
        key === "none" || (key === "truth" && this.truth) || (key === "prediction" && this.prediction)
        || (this.truth && this.prediction)
      ));
      this.modeChoice = choice("Show", modes, (value) => this.setMode(value));
      this.modeChoice.select.value = this.mode;
      const tools = [this.modeChoice.element];
      if (this.predictions.length > 1) {
        this.predictionChoice = choice("Prediction", this.predictions.map((map, i) => [String(i), map.name]), (value) => {
          this.prediction = this.predictions[Number(value)];
          this.fillOrgans();
          this.draw();
          this.surfaces.draw();
        });
        tools.push(this.predictionChoice.element);
      }
      this.opacitySlider = slider("Overlay opacity", 0, 1, 0.05, this.opacity, (value) => {
        this.opacity = value;
        this.draw();
      });
      tools.push(make("label", {}, "Opacity ", this.opacitySlider), ...this.windowTools());
      tools.push(make("span", { class: "dv-buttons" },
        make("button", { type: "button", "aria-label": "Zoom out", text: "−", onclick: () => this.setZoom(this.zoom / 1.25) }),
        make("button", { type: "button", "aria-label": "Zoom in", text: "+", onclick: () => this.setZoom(this.zoom * 1.25) })));
      tools.push(
        make("button", { type: "button", text: "Keys", "aria-expanded": "false", onclick: () => this.toggleHelp() }),
      );
      this.helpButton = tools.at(-1);
      this.planes = DuomodViewer.planes(this);
      this.surfaces = new DuomodViewer.Surfaces(this);
      const grid = make("div", { class: "dv-grid" }, ...this.planes.map((plane) => plane.element), this.surfaces.element);
      this.organs = make("tbody");
      this.readout = make("p", { class: "dv-readout", "aria-live": "off" });
      const { missed, extra } = this.data.errors;
      this.legend = make("p", { class: "dv-legend", hidden: "" },
        make("span", { class: "dv-swatch", style: `background: repeating-linear-gradient(135deg, ${missed} 0 2px, transparent 2px 4px)` }), "missed (hatched)",
        make("span", { class: "dv-swatch", style: `background: ${extra}` }), "too much (filled)",
        make("span", { class: "dv-swatch", style: `background: repeating-linear-gradient(135deg, ${missed} 0 2px, ${extra} 2px 4px)` }), "another organ (both)");
      this.help = make("div", { class: "dv-help", hidden: "", role: "note" });
      this.help.append(...[
        ["Arrow keys", "move the crosshair in the plane"], ["Page up, page down; wheel after a click", "next slice"],
        ["1 2 3", "axial, coronal, sagittal plane"], ["o", "overlay on and off"], ["t p b e", "truth, prediction, both, errors"],
        ["[ ]", "overlay opacity"], ["+ −", "zoom"], ["w", "next window"], ["Shift and drag", "window width (across), level (up)"],
        ["Home", "back to the start"], ["?", "this list"],
      ].flatMap(([keys, what]) => [make("kbd", { text: keys }), make("span", { text: what })]));
      this.root = make("div", { class: "dv", role: "region", "aria-label": `Viewer: ${id}` },
        make("div", { class: "dv-tools", role: "toolbar", "aria-label": "Display" }, ...tools), this.legend, this.help,
        make("div", { class: "dv-body" }, grid, make("div", { class: "dv-organs" }, this.organTable())),
        this.readout, make("p", { class: "dv-note", text: this.data.notes.join(" ") }));
      this.root.addEventListener("keydown", (event) => this.key(event));
      element.append(this.root);
      this.fillOrgans();
    }

    windowTools() {
      const [low, high] = this.data.image.window;
      const presets = [["Start", low, high], ...WINDOWS[this.data.modality]];
      this.presets = presets;
      const found = choice("Window", presets.map(([name], i) => [String(i), name]), (value) => {
        [, this.low, this.high] = presets[Number(value)];
        this.windowChanged();
      });
      this.windowChoice = found.select;
      const number = (label, set) => {
        const input = make("input", { type: "number", class: "dv-number", "aria-label": label, step: "any" });
        input.addEventListener("change", () => { if (input.value !== "") { set(Number(input.value)); this.windowChanged(); } });
        return input;
      };
      this.widthInput = number("Window width", (width) => this.setWindow(this.level(), width));
      this.levelInput = number("Window level", (level) => this.setWindow(level, this.high - this.low));
      this.showWindow();
      return [found.element, make("label", {}, "Width ", this.widthInput), make("label", {}, "Level ", this.levelInput)];
    }

    organTable() {
      const head = make("tr", {}, make("th", { scope: "col", text: "Organ" }));
      if (this.truth) head.append(make("th", { scope: "col", text: "truth (ml)" }));
      if (this.prediction) head.append(make("th", { scope: "col", text: "predicted (ml)" }));
      if (this.truth && this.prediction) head.append(make("th", { scope: "col", text: "Dice" }));
      const all = (shown) => () => {
        this.visible.fill(shown);
        this.fillOrgans();
        this.draw();
        this.surfaces.draw();
      };
      return make("div", {},
        make("p", { class: "dv-all" }, make("button", { type: "button", text: "All", onclick: all(true) }),
          make("button", { type: "button", text: "None", onclick: all(false) })),
        make("table", {}, make("thead", {}, head), this.organs));
    }

    fillOrgans() {
      this.organs.replaceChildren(...this.data.classes.map((entry, index) => {
        const box = make("input", { type: "checkbox", "aria-label": `Show ${entry.name}`, style: `accent-color: ${entry.colour}` });
        box.checked = this.visible[index];
        box.addEventListener("change", () => {
          this.visible[index] = box.checked;
          this.draw();
          this.surfaces.draw();
        });
        const centre = (this.truth && this.truth.centres[index]) || (this.prediction && this.prediction.centres[index]);
        const name = make("button", { type: "button", class: "dv-organ", text: entry.name, title: centre ? "Go to its centre" : "In neither label map" });
        name.disabled = !centre;
        name.addEventListener("click", () => this.jump(centre));
        const row = make("tr", {}, make("th", { scope: "row" }, box,
          make("span", { class: "dv-swatch", style: `background: ${entry.colour}` }), name));
        if (this.truth) row.append(make("td", { text: volume(this.truth.ml[index]) }));
        if (this.prediction) row.append(make("td", { text: volume(this.prediction.ml[index]) }));
        if (this.truth && this.prediction) {
          const dice = this.prediction.dice ? this.prediction.dice[index] : null;
          row.append(make("td", { text: dice === null ? "–" : dice.toFixed(3) }));
        }
        return row;
      }));
    }

    /* -- acting -- */

    setMode(mode) {
      if (![...this.modeChoice.select.options].some((option) => option.value === mode)) return;
      if (this.mode !== "none") this.shownBefore = this.mode;
      this.mode = mode;
      this.modeChoice.select.value = mode;
      this.legend.hidden = mode !== "errors";
      this.draw();
      this.surfaces.draw();
    }

    setZoom(zoom) {
      this.zoom = Math.min(12, Math.max(1, zoom));
      this.centre = this.zoom === 1 ? this.middle() : [...this.cursor];
      this.draw();
    }

    level() {
      return (this.low + this.high) / 2;
    }

    setWindow(level, width) {
      const half = Math.max(width, 1e-6) / 2;
      [this.low, this.high] = [level - half, level + half];
    }

    showWindow() {
      const digits = this.high - this.low < 20 ? 2 : 0;
      this.widthInput.value = (this.high - this.low).toFixed(digits);
      this.levelInput.value = this.level().toFixed(digits);
    }

    windowChanged() {
      this.showWindow();
      this.draw();
    }

    toggleHelp() {
      this.help.hidden = !this.help.hidden;
      this.helpButton.setAttribute("aria-expanded", String(!this.help.hidden));
    }

    jump(voxel) {
      this.cursor = [...voxel];
      if (this.zoom > 1) this.centre = [...voxel];
      this.moved();
    }

    step(axis, by) {
      this.cursor[axis] = Math.min(this.size[axis] - 1, Math.max(0, this.cursor[axis] + by));
      this.moved();
    }

    moved() {
      if (this.zoom > 1) {
        // Keep the crosshair in sight.
        for (let axis = 0; axis < 3; axis += 1) {
          const room = (0.45 * this.size[axis]) / this.zoom;
          this.centre[axis] = Math.min(this.cursor[axis] + room, Math.max(this.cursor[axis] - room, this.centre[axis]));
        }
      }
      this.draw();
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = event.target.matches("select, input[type=number]");
      const sliding = event.target.matches("input[type=range]");
      const plane = this.planes.find((candidate) => candidate.canvas === event.target) || this.planes[0];
      const arrows = {
        ArrowLeft: [plane.across, 1], ArrowRight: [plane.across, -1], ArrowUp: [plane.down, 1], ArrowDown: [plane.down, -1],
        PageUp: [plane.through, 1], PageDown: [plane.through, -1],
      };
      const rest = {
        1: () => this.planes[0].canvas.focus(), 2: () => this.planes[1].canvas.focus(), 3: () => this.planes[2].canvas.focus(),
        o: () => this.setMode(this.mode === "none" ? this.shownBefore : "none"),
        t: () => this.setMode("truth"), p: () => this.setMode("prediction"), b: () => this.setMode("both"), e: () => this.setMode("errors"),
        "+": () => this.setZoom(this.zoom * 1.25), "=": () => this.setZoom(this.zoom * 1.25), "-": () => this.setZoom(this.zoom / 1.25),
        "[": () => this.setOpacity(this.opacity - 0.1), "]": () => this.setOpacity(this.opacity + 0.1),
        w: () => {
          this.windowChoice.value = String((Number(this.windowChoice.value) + 1) % this.presets.length);
          this.windowChoice.dispatchEvent(new Event("change"));
        },
        Home: () => { this.setZoom(1); this.jump(this.start()); },
        "?": () => this.toggleHelp(),
      };
      if (typing) return;
      if (arrows[event.key] && !sliding) this.step(...arrows[event.key]);
      else if (rest[event.key] && !(sliding && event.key === "Home")) rest[event.key]();
      else return;
      event.preventDefault();
    }

    setOpacity(opacity) {
      this.opacity = Math.min(1, Math.max(0, opacity));
      this.opacitySlider.value = this.opacity;
      this.draw();
    }

    press(plane, event) {
      if (event.button !== 0) return;
      plane.canvas.setPointerCapture(event.pointerId);
      plane.canvas.focus({ preventScroll: true });
      this.dragged = { x: event.clientX, y: event.clientY, low: this.low, high: this.high, window: event.shiftKey };
      if (!event.shiftKey) this.point(plane, event);
    }

    drag(plane, event) {
      if (!(event.buttons & 1) || !this.dragged) return this.hover(plane, event);
      if (!this.dragged.window) return this.point(plane, event);
      const { x, y, low, high } = this.dragged;
      const unit = (this.data.image.window[1] - this.data.image.window[0]) / 250;
      this.setWindow((low + high) / 2 + (y - event.clientY) * unit, Math.max(high - low + (event.clientX - x) * unit, unit));
      this.windowChanged();
      return undefined;
    }

    point(plane, event) {
      const voxel = plane.voxelAt(event);
      if (voxel) {
        this.cursor = voxel;
        this.draw();
      }
      return undefined;
    }

    hover(plane, event) {
      this.describe(plane.voxelAt(event) || this.cursor);
      return undefined;
    }

    /* -- drawing -- */

    layOut() {
      this.planes.forEach((plane) => plane.layOut());
      this.draw();
    }

    draw() {
      this.planes.forEach((plane) => plane.draw());
      this.describe(this.cursor);
    }

    describe(voxel) {
      const at = this.at(...voxel);
      const mm = this.data.affine.map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
      const place = mm.map((value, axis) => `${["RL", "AP", "SI"][axis][value < 0 ? 1 : 0]} ${Math.abs(value).toFixed(1)}`).join(", ");
      const { slope, intercept, unit, exact, ends } = this.data.image;
      const value = this.data.voxels[at] * slope + intercept;
      const sign = this.data.voxels[at] === ends[0] ? "≤ " : this.data.voxels[at] === ends[1] ? "≥ " : exact ? "" : "≈ ";
      const name = (map) => { const label = map.voxels[at]; return label ? this.data.classes[label - 1].name : "background"; };
      const parts = [`${place} mm`, `${sign}${exact ? value.toFixed(0) : Number(value.toPrecision(3))} ${unit}`.trim()];
      if (this.truth) parts.push(`truth: ${name(this.truth)}`);
      if (this.prediction) parts.push(`${this.prediction.name}: ${name(this.prediction)}`);
      this.readout.textContent = parts.join("  ·  ");
    }
  }

  /* Show a loaded case inside an element; resolves to the viewer, whose destroy() removes it again. */
  DuomodViewer.mount = async (element, id) => new Viewer(element, id, await DuomodViewer.decoded(id));
})();
