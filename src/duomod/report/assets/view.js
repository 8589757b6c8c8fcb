/* The page of `duomod view`: shows its one case. */
(() => {
  "use strict";
  // The token that opened the page is a cookie now: it need not stay in the address, which people share and keep.
  if (location.search) history.replaceState(null, "", location.pathname);
  const state = document.getElementById("viewer-state");
  DuomodViewer.mount(document.getElementById("viewer-place"), DuomodViewer.ids()[0])
    .then(() => state.remove())
    .catch((error) => { state.textContent = error.message; });
})();
