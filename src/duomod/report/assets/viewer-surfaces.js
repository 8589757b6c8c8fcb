/* Surfaces of the visible organs in 3D, drawn by Plotly. */
(() => {
  "use strict";

  const { make } = DuomodViewer.elements;

  /* How Plotly draws on our pages. Nothing may leave the computer: no button that uploads a chart, no address to send one
     to, no link to its makers. */
  DuomodViewer.plotly = {
    responsive: true, displaylogo: false, showSendToCloud: false, showEditInChartStudio: false, showLink: false, sendData: false,
    plotlyServerURL: "", modeBarButtonsToRemove: ["sendChartToCloud", "sendDataToCloud"],
  };

  async function triangulated(mesh) {
    const vertices = await DuomodViewer.unpacked(mesh.vertices, Uint16Array);
    const triangles = await DuomodViewer.unpacked(mesh.triangles, Uint16Array);
    const column = (values, offset, scale = 1, start = 0) => {
      const found = new Array(values.length / 3);
      for (let i = 0; i < found.length; i += 1) found[i] = start + scale * values[3 * i + offset];
      return found;
    };
    const [x, y, z] = [0, 1, 2].map((axis) => column(vertices, axis, mesh.step[axis], mesh.origin[axis]));
    const [i, j, k] = [0, 1, 2].map((corner) => column(triangles, corner));
    return { type: "mesh3d", x, y, z, i, j, k, flatshading: false, lighting: { ambient: 0.45, diffuse: 0.75, specular: 0.15 } };
  }

  class Surfaces {
    constructor(viewer) {
      this.viewer = viewer;
      this.scene = make("div", { class: "dv-scene", role: "img", "aria-label": "Surfaces of the visible organs in 3D" });
      this.note = make("p", { class: "dv-note" });
      this.element = make("div", { class: "dv-plane dv-3d" },
        make("div", { class: "dv-head" }, make("strong", { text: "3D" }), this.note), this.scene);
    }

    destroy() {
      if (window.Plotly) Plotly.purge(this.scene);
    }

    async draw() {
      if (!window.Plotly) {
        this.note.textContent = "needs plotly.min.js";
        return;
      }
      const turn = (this.turn = (this.turn || 0) + 1);
      const wanted = [];
      const { mode, truth, prediction, visible, data } = this.viewer;
      const alone = mode === "truth" || !prediction ? truth : mode === "both" || mode === "errors" ? null : prediction;
      if (alone) wanted.push([alone, 1]);
      else wanted.push([prediction, 1], ...(truth ? [[truth, 0.25]] : []));
      this.note.textContent = wanted.map(([map, opacity]) => (map.truth ? "truth" : map.name) + (opacity < 1 ? " (see-through)" : "")).join(", ");
      const traces = [];
      for (const [map, opacity] of wanted) {
        for (const [index, mesh] of map.meshes.entries()) {
          if (!mesh || !visible[index]) continue;
          mesh.trace = mesh.trace || await triangulated(mesh);
          const { name, colour } = data.classes[index];
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
        await Plotly.react(this.scene, traces, layout, DuomodViewer.plotly);
      } catch (error) {
        this.note.textContent = `3D is not available here: ${error.message || error}`;
      }
    }
  }

  DuomodViewer.Surfaces = Surfaces;
})();
