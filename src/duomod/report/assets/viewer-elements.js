/* Makes elements of the page: any tag, a list to choose from, a slider. */
(() => {
  "use strict";

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

  DuomodViewer.elements = { make, choice, slider };
})();
