/* Viewer of one case: three linked planes, truth, predictions and errors, surfaces in 3D. No dependency but Plotly for
   the surfaces; works from disk. Volumes are stored x fastest, then y, then z; x, y, z grow to the patient's right, front
   and top (RAS). Pictures follow the radiologists' convention: the patient's left is on the right. */
const DuomodViewer = (() => {
  "use strict";

  /* ---- cases, as their scripts hand them over ---- */

  const cases = new Map();

  async function unpacked(text, Type) {
    const compressed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    if (Type.BYTES_PER_ELEMENT === 1) return bytes;
    // Two-byte values: all low bytes, then all high bytes.
    const count = bytes.length / 2;
    const values = new Type(count);
    for (let i = 0; i < count; i += 1) values[i] = bytes[i] | (bytes[count + i] << 8);
    return values;
  }

  async function decoded(data) {
    const image = await unpacked(data.image.data, Int16Array);
    const maps = await Promise.all(data.maps.map(async (map) => ({ ...map, voxels: await unpacked(map.data, Uint8Array) })));
    return { ...data, voxels: image, maps };
  }

  /* ---- planes ---- */

  /* Which axis (x 0, y 1, z 2) runs along the picture's columns and rows, both against the axis, and the letters. */
  const PLANES = [
    { name: "Axial", across: 0, down: 1, through: 2, letters: ["R", "L", "A", "P"] },
    { name: "Coronal", across: 0, down: 2, through: 1, letters: ["R", "L", "S", "I"] },
    { name: "Sagittal", across: 1, down: 2, through: 0, letters: ["A", "P", "S", "I"] },
  ];
  const WINDOWS = {
    CT: [["Abdomen", -125, 275], ["Soft tissue", -160, 240], ["Lung", -1350, 150], ["Bone", -500, 1500], ["Brain", 0, 80]],
    MR: [],
  };
  const MODES = [
    ["both", "Prediction, truth outlined"], ["prediction", "Prediction"], ["truth", "Truth"],
    ["errors", "Errors"], ["none", "Scan only"],
  ];

  function rgb(colour) {
    return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  }

  /* ---- small helpers for the page's elements ---- */

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "text") element.textContent = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function choice(label, options, change) {
    const select = make("select", { onchange: () => change(select.value) });
    for (const [value, text] of options) select.append(make("option", { value, text }));
    return { select, element: make("label", {}, `${label} `, select) };
  }

  function slider(label, low, high, step, value, input) {
    const range = make("input", { type: "range", min: low, max: high, step, "aria-label": label });
    range.value = value;
    range.addEventListener("input", () => input(Number(range.value)));
    return range;
  }

  const volume = (ml) => (ml === 0 ? "0" : ml < 10 ? ml.toFixed(2) : ml.toFixed(1));

  /* ---- one mounted viewer ---- */

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
      this.colours = data.classes.map((entry) => rgb(entry.colour));
      [this.low, this.high] = data.image.window;
      this.zoom = 1;
      this.cursor = this.start();
      this.centre = this.middle();
      this.build(element, id);
      this.resized = new ResizeObserver(() => this.layOut());
      this.planes.forEach((plane) => this.resized.observe(plane.canvas.parentElement));
      this.dark = window.matchMedia("(prefers-color-scheme: dark)");
      this.recolour = () => this.drawSurfaces();
      this.dark.addEventListener("change", this.recolour);
      this.layOut();
      this.drawSurfaces();
    }

    destroy() {
      this.resized.disconnect();
      this.dark.removeEventListener("change", this.recolour);
      if (window.Plotly) Plotly.purge(this.scene);
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
          this.drawSurfaces();
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
      this.planes = PLANES.map((plane, index) => this.buildPlane(plane, index));
      this.scene = make("div", { class: "dv-scene", role: "img", "aria-label": "Surfaces of the visible organs in 3D" });
      this.surfaceNote = make("p", { class: "dv-note" });
      const grid = make("div", { class: "dv-grid" }, ...this.planes.map((plane) => plane.element),
        make("div", { class: "dv-plane dv-3d" }, make("div", { class: "dv-head" }, make("strong", { text: "3D" }), this.surfaceNote), this.scene));
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

    buildPlane(plane, index) {
      const count = this.size[plane.through];
      const canvas = make("canvas", {
        tabindex: "0", role: "img", "aria-label": `${plane.name} plane; arrow keys move the crosshair, page keys the slice`,
      });
      const number = make("output", { class: "dv-slice" });
      const range = slider(`${plane.name} slice`, 0, count - 1, 1, 0, (value) => {
        this.cursor[plane.through] = value;
        this.moved();
      });
      const letters = plane.letters.map((letter, side) => make("span", {
        class: `dv-letter dv-${["left", "right", "top", "bottom"][side]}`, text: letter, "aria-hidden": "true",
      }));
      const built = { ...plane, index, canvas, range, number };
      const place = make("div", { class: "dv-canvas" }, canvas, ...letters);
      built.element = make("div", { class: "dv-plane" },
        make("div", { class: "dv-head" }, make("strong", { text: plane.name }), number, range), place);
      canvas.addEventListener("pointerdown", (event) => this.press(built, event));
      canvas.addEventListener("pointermove", (event) => this.drag(built, event));
      canvas.addEventListener("wheel", (event) => {
        // The wheel belongs to the page until a plane was chosen: a report must not stop scrolling at its pictures.
        if (!event.ctrlKey && document.activeElement !== canvas) return;
        event.preventDefault();
        if (event.ctrlKey) this.setZoom(this.zoom * (event.deltaY < 0 ? 1.15 : 1 / 1.15));
        else this.step(plane.through, event.deltaY < 0 ? 1 : -1);
      }, { passive: false });
      return built;
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
        this.drawSurfaces();
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
          this.drawSurfaces();
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
      this.drawSurfaces();
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

    /* Voxel under a pointer event, the plane's third axis from the crosshair; null outside the volume. */
    under(plane, event) {
      const box = plane.canvas.getBoundingClientRect();
      const ratio = plane.canvas.width / box.width;
      const view = this.view(plane);
      const voxel = [...this.cursor];
      voxel[plane.across] = Math.round(view.column((event.clientX - box.left) * ratio));
      voxel[plane.down] = Math.round(view.row((event.clientY - box.top) * ratio));
      return voxel.every((value, axis) => value >= 0 && value < this.size[axis]) ? voxel : null;
    }

    point(plane, event) {
      const voxel = this.under(plane, event);
      if (voxel) {
        this.cursor = voxel;
        this.draw();
      }
      return undefined;
    }

    hover(plane, event) {
      this.describe(this.under(plane, event) || this.cursor);
      return undefined;
    }

    /* -- drawing -- */

    layOut() {
      for (const plane of this.planes) {
        const place = plane.canvas.parentElement;
        const ratio = window.devicePixelRatio || 1;
        plane.canvas.width = Math.max(1, Math.round(place.clientWidth * ratio));
        plane.canvas.height = Math.max(1, Math.round(place.clientHeight * ratio));
      }
      this.draw();
    }

    /* Where the plane's voxels lie on its canvas: all planes have one scale in pixels per mm. */
    view(plane) {
      const mm = this.data.spacing;
      const scales = this.planes.map((other) => Math.min(
        other.canvas.width / (this.size[other.across] * mm[other.across]), other.canvas.height / (this.size[other.down] * mm[other.down]),
      ));
      const scale = this.zoom * Math.min(...scales);
      const across = scale * mm[plane.across];
      const down = scale * mm[plane.down];
      const { width, height } = plane.canvas;
      const [cx, cy] = [this.centre[plane.across], this.centre[plane.down]];
      return {
        across, down,
        column: (px) => cx - (px - width / 2) / across,
        row: (py) => cy - (py - height / 2) / down,
        px: (column) => width / 2 - (column - cx) * across,
        py: (row) => height / 2 - (row - cy) * down,
      };
    }

    draw() {
      for (const plane of this.planes) {
        const slice = this.cursor[plane.through];
        plane.range.value = slice;
        plane.number.textContent = `${slice + 1} / ${this.size[plane.through]}`;
        this.drawPlane(plane);
      }
      this.describe(this.cursor);
    }

    drawPlane(plane) {
      const { canvas } = plane;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      const view = this.view(plane);
      const columns = this.size[plane.across];
      const rows = this.size[plane.down];
      context.fillStyle = "#000";
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.imageSmoothingEnabled = true;
      context.imageSmoothingQuality = "high";
      context.drawImage(this.greySlice(plane), view.px(columns - 0.5), view.py(rows - 0.5), columns * view.across, rows * view.down);
      if (this.mode !== "none") this.drawLabels(plane, view, context);
      const [x, y] = [view.px(this.cursor[plane.across]), view.py(this.cursor[plane.down])];
      context.strokeStyle = "rgba(255, 255, 255, 0.75)";
      context.lineWidth = 1;
      context.setLineDash([4, 4]);
      context.beginPath();
      const gap = 10 * (window.devicePixelRatio || 1);
      for (const [from, to] of [[0, x - gap], [x + gap, canvas.width]]) { context.moveTo(from, Math.round(y) + 0.5); context.lineTo(to, Math.round(y) + 0.5); }
      for (const [from, to] of [[0, y - gap], [y + gap, canvas.height]]) { context.moveTo(Math.round(x) + 0.5, from); context.lineTo(Math.round(x) + 0.5, to); }
      context.stroke();
      context.setLineDash([]);
    }

    /* One slice in grey, a pixel per voxel, turned as it is shown. */
    greySlice(plane) {
      const [columns, rows] = [this.size[plane.across], this.size[plane.down]];
      const grey = new ImageData(columns, rows);
      const pixels = new Uint32Array(grey.data.buffer);
      const { slope, intercept } = this.data.image;
      const [strideAcross, strideDown, first] = this.strides(plane);
      const gain = (255 * slope) / Math.max(this.high - this.low, 1e-9);
      const offset = (255 * (intercept - this.low)) / Math.max(this.high - this.low, 1e-9);
      for (let row = 0, pixel = 0; row < rows; row += 1) {
        let at = first + (rows - 1 - row) * strideDown + (columns - 1) * strideAcross;
        for (let column = 0; column < columns; column += 1, pixel += 1, at -= strideAcross) {
          const value = gain * this.data.voxels[at] + offset;
          const level = value <= 0 ? 0 : value >= 255 ? 255 : value | 0;
          pixels[pixel] = 0xff000000 | (level * 0x010101);
        }
      }
      this.scratch = this.scratch || document.createElement("canvas");
      this.scratch.width = columns;
      this.scratch.height = rows;
      this.scratch.getContext("2d").putImageData(grey, 0, 0);
      return this.scratch;
    }

    strides(plane) {
      const strides = [1, this.size[0], this.size[0] * this.size[1]];
      return [strides[plane.across], strides[plane.down], this.cursor[plane.through] * strides[plane.through]];
    }

    /* Labels are looked up for every pixel of the screen, so that outlines and hatching are as fine as the screen. */
    drawLabels(plane, view, context) {
      const { width, height } = plane.canvas;
      const [strideAcross, strideDown, first] = this.strides(plane);
      const columnOf = new Int32Array(width);
      for (let x = 0; x < width; x += 1) columnOf[x] = this.inside(Math.round(view.column(x + 0.5)), plane.across, strideAcross);
      const truth = new Uint8Array(this.truth ? width * height : 0);
      const predicted = new Uint8Array(this.prediction ? width * height : 0);
      const shown = [0, ...this.visible.map((on, i) => (on ? i + 1 : 0))];
      for (let y = 0, pixel = 0; y < height; y += 1) {
        const row = this.inside(Math.round(view.row(y + 0.5)), plane.down, strideDown);
        for (let x = 0; x < width; x += 1, pixel += 1) {
          if (row < 0 || columnOf[x] < 0) continue;
          const at = first + row + columnOf[x];
          if (this.truth) truth[pixel] = shown[this.truth.voxels[at]];
          if (this.prediction) predicted[pixel] = shown[this.prediction.voxels[at]];
        }
      }
      const layer = context.getImageData(0, 0, width, height);
      const paint = new Painter(layer, width, height);
      if (this.mode === "errors") paint.errors(truth, predicted, rgb(this.data.errors.missed), rgb(this.data.errors.extra), this.opacity);
      if (this.mode === "truth") paint.filled(truth, this.colours, this.opacity);
      if (this.mode === "prediction" || this.mode === "both") paint.filled(predicted, this.colours, this.opacity);
      if (this.mode === "both") paint.outlined(truth, [255, 255, 255]);
      context.putImageData(layer, 0, 0);
    }

    inside(index, axis, stride) {
      return index >= 0 && index < this.size[axis] ? index * stride : -1;
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

    /* -- surfaces -- */

    async drawSurfaces() {
      if (!window.Plotly) {
        this.surfaceNote.textContent = "needs plotly.min.js";
        return;
      }
      const turn = (this.turn = (this.turn || 0) + 1);
      const wanted = [];
      const alone = this.mode === "truth" || !this.prediction ? this.truth : this.mode === "both" || this.mode === "errors" ? null : this.prediction;
      if (alone) wanted.push([alone, 1]);
      else wanted.push([this.prediction, 1], ...(this.truth ? [[this.truth, 0.25]] : []));
      this.surfaceNote.textContent = wanted.map(([map, opacity]) => (map.truth ? "truth" : map.name) + (opacity < 1 ? " (see-through)" : "")).join(", ");
      const traces = [];
      for (const [map, opacity] of wanted) {
        for (const [index, mesh] of map.meshes.entries()) {
          if (!mesh || !this.visible[index]) continue;
          mesh.trace = mesh.trace || await surface(mesh);
          const { name, colour } = this.data.classes[index];
          // An organ that fills much of the box would hide all others.
          const share = map.ml[index] / map.ml.reduce((sum, ml) => sum + ml, 0);
          const what = `${name}, ${map.truth ? "truth" : map.name}`;
          traces.push({ ...mesh.trace, color: colour, opacity: share > 0.3 ? 0.25 * opacity : opacity, name: what, hovertemplate: `${what}<extra></extra>` });
        }
      }
      if (turn !== this.turn) return;
      const axis = { visible: false };
      const layout = {
        margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", uirevision: "keep", showlegend: false,
        scene: { xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "data", camera: { eye: { x: 0, y: 1.9, z: 0.35 } } },
      };
      try {
        await Plotly.react(this.scene, traces, layout, { responsive: true, displaylogo: false });
      } catch (error) {
        this.surfaceNote.textContent = `3D is not available here: ${error.message || error}`;
      }
    }
  }

  async function surface(mesh) {
    const vertices = await unpacked(mesh.vertices, Uint16Array);
    const triangles = await unpacked(mesh.triangles, Uint16Array);
    const column = (values, offset, scale = 1, start = 0) => {
      const found = new Array(values.length / 3);
      for (let i = 0; i < found.length; i += 1) found[i] = start + scale * values[3 * i + offset];
      return found;
    };
    const [x, y, z] = [0, 1, 2].map((axis) => column(vertices, axis, mesh.step[axis], mesh.origin[axis]));
    const [i, j, k] = [0, 1, 2].map((corner) => column(triangles, corner));
    return { type: "mesh3d", x, y, z, i, j, k, flatshading: false, lighting: { ambient: 0.45, diffuse: 0.75, specular: 0.15 } };
  }

  /* Paints label maps into a picture of the same size: fills, outlines, and errors that differ in pattern too. */
  class Painter {
    constructor(layer, width, height) {
      this.pixels = layer.data;
      this.width = width;
      this.height = height;
    }

    put(pixel, colour, share) {
      const at = 4 * pixel;
      for (let channel = 0; channel < 3; channel += 1) {
        this.pixels[at + channel] = (1 - share) * this.pixels[at + channel] + share * colour[channel];
      }
    }

    /* Whether a pixel's label differs from that of a neighbour. */
    edge(labels, pixel) {
      const { width } = this;
      const label = labels[pixel];
      return label !== labels[pixel - 1] || label !== labels[pixel + 1] || label !== labels[pixel - width] || label !== labels[pixel + width];
    }

    filled(labels, colours, opacity) {
      for (let pixel = 0; pixel < labels.length; pixel += 1) {
        const label = labels[pixel];
        if (label) this.put(pixel, colours[label - 1], this.edge(labels, pixel) ? Math.min(1, opacity * 2) : opacity);
      }
    }

    outlined(labels, colour) {
      for (let pixel = 0; pixel < labels.length; pixel += 1) {
        if (labels[pixel] && this.edge(labels, pixel)) this.put(pixel, colour, 0.9);
      }
    }

    /* Missed: diagonal hatching. Too much: filled. Another organ: both. */
    errors(truth, predicted, missed, extra, opacity) {
      const lost = new Uint8Array(truth.length);
      for (let pixel = 0; pixel < truth.length; pixel += 1) lost[pixel] = truth[pixel] && truth[pixel] !== predicted[pixel] ? 1 : 0;
      for (let pixel = 0; pixel < truth.length; pixel += 1) {
        if (predicted[pixel] && truth[pixel] !== predicted[pixel]) this.put(pixel, extra, Math.min(1, opacity * 1.4));
        const [x, y] = [pixel % this.width, Math.floor(pixel / this.width)];
        if (lost[pixel] && ((x + y) % 7 < 3 || this.edge(lost, pixel))) this.put(pixel, missed, Math.min(1, opacity * 2));
      }
    }
  }

  return {
    /* Called by a case's script. */
    add(id, data) {
      cases.set(id, data);
    },
    /* Ids of the cases that are loaded. */
    ids: () => [...cases.keys()],
    /* Show a loaded case inside an element; resolves to the viewer, whose destroy() removes it again. */
    async mount(element, id) {
      if (!cases.has(id)) throw new Error(`no case ${id} is loaded`);
      return new Viewer(element, id, await decoded(cases.get(id)));
    },
  };
})();
