/* A plane of a case: its elements, and what is drawn on its canvas. Pictures follow the radiologists' convention: the
   patient's left is on the right. */
(() => {
  "use strict";

  const { make, slider } = DuomodViewer.elements;
  const { Painter, rgb } = DuomodViewer.painting;

  /* Which axis (x 0, y 1, z 2) runs along the picture's columns and rows, both against the axis, and the letters. */
  const PLANES = [
    { name: "Axial", across: 0, down: 1, through: 2, letters: ["R", "L", "A", "P"] },
    { name: "Coronal", across: 0, down: 2, through: 1, letters: ["R", "L", "S", "I"] },
    { name: "Sagittal", across: 1, down: 2, through: 0, letters: ["A", "P", "S", "I"] },
  ];

  class Plane {
    /* `viewer` has the case, the crosshair, the window and what is shown; `index` says which of the three planes this is. */
    constructor(viewer, index) {
      Object.assign(this, PLANES[index]);
      this.viewer = viewer;
      const count = viewer.size[this.through];
      const canvas = make("canvas", {
        tabindex: "0", role: "img", "aria-label": `${this.name} plane; arrow keys move the crosshair, page keys the slice`,
      });
      const number = make("output", { class: "dv-slice" });
      const range = slider(`${this.name} slice`, 0, count - 1, 1, 0, (value) => {
        viewer.cursor[this.through] = value;
        viewer.moved();
      });
      const letters = this.letters.map((letter, side) => make("span", {
        class: `dv-letter dv-${["left", "right", "top", "bottom"][side]}`, text: letter, "aria-hidden": "true",
      }));
      Object.assign(this, { canvas, range, number });
      const place = make("div", { class: "dv-canvas" }, canvas, ...letters);
      this.element = make("div", { class: "dv-plane" },
        make("div", { class: "dv-head" }, make("strong", { text: this.name }), number, range), place);
      canvas.addEventListener("pointerdown", (event) => viewer.press(this, event));
      canvas.addEventListener("pointermove", (event) => viewer.drag(this, event));
      canvas.addEventListener("wheel", (event) => {
        // The wheel belongs to the page until a plane was chosen: a report must not stop scrolling at its pictures.
        if (!event.ctrlKey && document.activeElement !== canvas) return;
        event.preventDefault();
        if (event.ctrlKey) viewer.setZoom(viewer.zoom * (event.deltaY < 0 ? 1.15 : 1 / 1.15));
        else viewer.step(this.through, event.deltaY < 0 ? 1 : -1);
      }, { passive: false });
    }

    /* Give the canvas as many pixels as it has on the screen. */
    layOut() {
      const place = this.canvas.parentElement;
      const ratio = window.devicePixelRatio || 1;
      this.canvas.width = Math.max(1, Math.round(place.clientWidth * ratio));
      this.canvas.height = Math.max(1, Math.round(place.clientHeight * ratio));
    }

    /* Voxel under a pointer event, the plane's third axis from the crosshair; null outside the volume. */
    voxelAt(event) {
      const box = this.canvas.getBoundingClientRect();
      const ratio = this.canvas.width / box.width;
      const view = this.view();
      const voxel = [...this.viewer.cursor];
      voxel[this.across] = Math.round(view.column((event.clientX - box.left) * ratio));
      voxel[this.down] = Math.round(view.row((event.clientY - box.top) * ratio));
      return voxel.every((value, axis) => value >= 0 && value < this.viewer.size[axis]) ? voxel : null;
    }

    /* Where the plane's voxels lie on its canvas: all planes have one scale in pixels per mm. */
    view() {
      const { size, zoom, centre, planes, data: { spacing: mm } } = this.viewer;
      const scales = planes.map((other) => Math.min(
        other.canvas.width / (size[other.across] * mm[other.across]), other.canvas.height / (size[other.down] * mm[other.down]),
      ));
      const scale = zoom * Math.min(...scales);
      const across = scale * mm[this.across];
      const down = scale * mm[this.down];
      const { width, height } = this.canvas;
      const [cx, cy] = [centre[this.across], centre[this.down]];
      return {
        across, down,
        column: (px) => cx - (px - width / 2) / across,
        row: (py) => cy - (py - height / 2) / down,
        px: (column) => width / 2 - (column - cx) * across,
        py: (row) => height / 2 - (row - cy) * down,
      };
    }

    draw() {
      const slice = this.viewer.cursor[this.through];
      this.range.value = slice;
      this.number.textContent = `${slice + 1} / ${this.viewer.size[this.through]}`;
      this.drawSlice();
    }

    drawSlice() {
      const { canvas } = this;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      const view = this.view();
      const columns = this.viewer.size[this.across];
      const rows = this.viewer.size[this.down];
      context.fillStyle = "#000";
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.imageSmoothingEnabled = true;
      context.imageSmoothingQuality = "high";
      context.drawImage(this.greySlice(), view.px(columns - 0.5), view.py(rows - 0.5), columns * view.across, rows * view.down);
      if (this.viewer.mode !== "none") this.drawLabels(view, context);
      const [x, y] = [view.px(this.viewer.cursor[this.across]), view.py(this.viewer.cursor[this.down])];
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
    greySlice() {
      const [columns, rows] = [this.viewer.size[this.across], this.viewer.size[this.down]];
      const grey = new ImageData(columns, rows);
      const pixels = new Uint32Array(grey.data.buffer);
      const { low, high } = this.viewer;
      const { voxels, image: { slope, intercept } } = this.viewer.data;
      const [strideAcross, strideDown, first] = this.strides();
      const gain = (255 * slope) / Math.max(high - low, 1e-9);
      const offset = (255 * (intercept - low)) / Math.max(high - low, 1e-9);
      for (let row = 0, pixel = 0; row < rows; row += 1) {
        let at = first + (rows - 1 - row) * strideDown + (columns - 1) * strideAcross;
        for (let column = 0; column < columns; column += 1, pixel += 1, at -= strideAcross) {
          const value = gain * voxels[at] + offset;
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

    strides() {
      const { size, cursor } = this.viewer;
      const strides = [1, size[0], size[0] * size[1]];
      return [strides[this.across], strides[this.down], cursor[this.through] * strides[this.through]];
    }

    /* Labels are looked up for every pixel of the screen, so that outlines and hatching are as fine as the screen. */
    drawLabels(view, context) {
      const { width, height } = this.canvas;
      const { truth: trueMap, prediction, mode, colours, opacity, visible } = this.viewer;
      const { missed, extra } = this.viewer.data.errors;
      const [strideAcross, strideDown, first] = this.strides();
      const columnOf = new Int32Array(width);
      for (let x = 0; x < width; x += 1) columnOf[x] = this.inside(Math.round(view.column(x + 0.5)), this.across, strideAcross);
      const truth = new Uint8Array(trueMap ? width * height : 0);
      const predicted = new Uint8Array(prediction ? width * height : 0);
      const shown = [0, ...visible.map((on, i) => (on ? i + 1 : 0))];
      for (let y = 0, pixel = 0; y < height; y += 1) {
        const row = this.inside(Math.round(view.row(y + 0.5)), this.down, strideDown);
        for (let x = 0; x < width; x += 1, pixel += 1) {
          if (row < 0 || columnOf[x] < 0) continue;
          const at = first + row + columnOf[x];
          if (trueMap) truth[pixel] = shown[trueMap.voxels[at]];
          if (prediction) predicted[pixel] = shown[prediction.voxels[at]];
        }
      }
      const layer = context.getImageData(0, 0, width, height);
      const paint = new Painter(layer, width, height);
      if (mode === "errors") paint.errors(truth, predicted, rgb(missed), rgb(extra), opacity);
      if (mode === "truth") paint.filled(truth, colours, opacity);
      if (mode === "prediction" || mode === "both") paint.filled(predicted, colours, opacity);
      if (mode === "both") paint.outlined(truth, [255, 255, 255]);
      context.putImageData(layer, 0, 0);
    }

    inside(index, axis, stride) {
      return index >= 0 && index < this.viewer.size[axis] ? index * stride : -1;
    }
  }

  DuomodViewer.planes = (viewer) => PLANES.map((_, index) => new Plane(viewer, index));
})();
