"""What a page in a real browser can send to elsewhere: nothing."""

from __future__ import annotations

from typing import Any

#: Ways by which a script may try to send something away; returns those that were not stopped.
SEND_AWAY = """async () => {
  const stopped = [];
  document.addEventListener("securitypolicyviolation", (event) => stopped.push(event.effectiveDirective));
  const away = [];
  for (const to of ["https://example.org/", "http://127.0.0.1:9/", location.href]) {
    await fetch(to).then(() => away.push(`fetch ${to}`), () => {});
    await new Promise((done) => {
      const asked = new XMLHttpRequest();
      asked.onload = () => { away.push(`request ${to}`); done(); };
      asked.onerror = done;
      try { asked.open("GET", to); asked.send(); } catch { done(); }
    });
  }
  try { new WebSocket("wss://example.org/"); } catch {}
  const add = (tag, source) => {
    const made = document.createElement(tag);
    made.src = source;
    document.body.append(made);
  };
  add("img", "https://example.org/a.png");
  add("iframe", "https://example.org/");
  add("script", "https://example.org/a.js");
  const inline = document.createElement("script");
  inline.textContent = "window.injected = true";
  document.body.append(inline);
  const form = document.createElement("form");
  form.action = "https://example.org/";
  document.body.append(form);
  form.submit();
  await new Promise((done) => setTimeout(done, 300));
  if (window.injected) away.push("an injected script ran");
  for (const directive of ["connect-src", "img-src", "frame-src", "script-src-elem", "form-action"]) {
    if (!stopped.includes(directive)) away.push(`not stopped: ${directive}`);
  }
  return away;
}"""

#: What the buttons above all charts are called, and where Plotly would send a chart.
BUTTONS = """() => [...document.querySelectorAll(".js-plotly-plot")].map((plot) => ({
  titles: [...plot.querySelectorAll(".modebar-btn")].map((button) => button.getAttribute("data-title") || ""),
  links: plot.querySelectorAll("a[href]").length,
  server: plot._context.plotlyServerURL,
}))"""


def assert_nothing_can_be_sent(page: Any) -> None:
    """No chart has a button that uploads it, and no script can reach another address."""
    charts = page.evaluate(BUTTONS)
    assert charts
    for chart in charts:
        titles = " ".join(chart["titles"]).lower()
        assert "png" in titles, "the buttons are there"
        assert not any(word in titles for word in ("share", "cloud", "studio", "plotly", "edit")), titles
        assert (chart["links"], chart["server"]) == (0, "")
    assert page.evaluate(SEND_AWAY) == []
