"""A map as one HTML file: points on a canvas, a legend, and what a row is where the pointer is. It loads nothing."""

import html
import json
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from ..files import JsonObject, write_whole
from .maps import SCALE, Coloring, FeatureMap

LONGEST = 120  # characters of a value that hover shows
MOST_COLUMNS = 12

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>@title@</title>
<style>
  body { margin: 0; font: 14px system-ui, sans-serif; color: #222; background: #fff; display: flex; height: 100vh; }
  #map { flex: 1; position: relative; overflow: hidden; }
  canvas { position: absolute; inset: 0; width: 100%; height: 100%; cursor: crosshair; }
  #legend { width: 200px; padding: 12px; overflow-y: auto; border-left: 1px solid #ddd; }
  #legend h1 { font-size: 15px; margin: 0 0 4px; }
  #legend p { margin: 0 0 10px; color: #555; }
  #legend label { display: block; cursor: pointer; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
  #legend i { display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 6px; }
  #legend label.off { opacity: 0.3; }
  #bar { height: 160px; width: 18px; margin-right: 8px; }
  #tip { position: absolute; pointer-events: none; background: #fffffff0; border: 1px solid #999; border-radius: 4px;
         padding: 5px 8px; font-size: 12px; max-width: 340px; display: none; overflow-wrap: anywhere; }
</style>
</head>
<body>
<div id="map"><canvas></canvas><div id="tip"></div></div>
<div id="legend"><h1>@title@</h1><p>@about@<br>@axes@<br>wheel: zoom, drag: move, double click: all</p></div>
<script>
const data = @data@;
const canvas = document.querySelector("canvas"), tip = document.getElementById("tip"), pen = canvas.getContext("2d");
const legend = document.getElementById("legend"), off = new Set(), count = data.x.length;
let zoom = 1, left = 0, top_ = 0, grabbed = null;
const range = (v) => { let a = Infinity, b = -Infinity; for (const n of v) { if (n < a) a = n; if (n > b) b = n; }
  return [a, b === a ? a + 1 : b]; };
const [x0, x1] = range(data.x), [y0, y1] = range(data.y);
function place(i) {
  const w = canvas.clientWidth - 40, h = canvas.clientHeight - 40;
  return [20 + left + zoom * w * (data.x[i] - x0) / (x1 - x0), 20 + top_ + zoom * h * (y1 - data.y[i]) / (y1 - y0)];
}
function draw() {
  const ratio = window.devicePixelRatio || 1, size = Math.min(5, Math.max(1.5, 90 / Math.sqrt(count))) * Math.sqrt(zoom);
  canvas.width = canvas.clientWidth * ratio; canvas.height = canvas.clientHeight * ratio;
  pen.scale(ratio, ratio); pen.globalAlpha = 0.8;
  for (const i of data.order) {
    if (off.has(data.color[i])) continue;
    const [x, y] = place(i);
    pen.fillStyle = data.palette[data.color[i]];
    pen.beginPath(); pen.arc(x, y, size, 0, 7); pen.fill();
  }
}
function nearest(x, y) {
  let best = -1, least = 144;
  for (let i = 0; i < count; i++) {
    if (off.has(data.color[i])) continue;
    const [a, b] = place(i), d = (a - x) ** 2 + (b - y) ** 2;
    if (d < least) { least = d; best = i; }
  }
  return best;
}
function line(name, value) {
  const row = document.createElement("div"), bold = document.createElement("b");
  bold.textContent = name + " "; row.append(bold, value === null ? "" : String(value)); return row;
}
canvas.addEventListener("mousemove", (event) => {
  if (grabbed) {
    left += event.offsetX - grabbed[0]; top_ += event.offsetY - grabbed[1]; grabbed = [event.offsetX, event.offsetY];
    draw(); return;
  }
  const i = nearest(event.offsetX, event.offsetY);
  tip.style.display = i < 0 ? "none" : "block";
  if (i < 0) return;
  tip.replaceChildren(...data.columns.map((name, c) => line(name, data.values[c][i])));
  const [x, y] = place(i);
  tip.style.left = Math.min(x + 12, canvas.clientWidth - tip.offsetWidth - 4) + "px";
  tip.style.top = Math.min(y + 12, canvas.clientHeight - tip.offsetHeight - 4) + "px";
});
canvas.addEventListener("mouseleave", () => { tip.style.display = "none"; grabbed = null; });
canvas.addEventListener("mousedown", (event) => { grabbed = [event.offsetX, event.offsetY]; });
window.addEventListener("mouseup", () => { grabbed = null; });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const by = Math.min(60, Math.max(1, zoom * Math.exp(-event.deltaY / 400))) / zoom;
  left = event.offsetX - 20 - by * (event.offsetX - 20 - left);
  top_ = event.offsetY - 20 - by * (event.offsetY - 20 - top_);
  zoom *= by; draw();
}, { passive: false });
canvas.addEventListener("dblclick", () => { zoom = 1; left = top_ = 0; draw(); });
data.classes.forEach((name, c) => {
  const label = document.createElement("label"), dot = document.createElement("i");
  dot.style.background = data.palette[c]; label.append(dot, name); label.title = name + " (click: hide or show)";
  label.onclick = () => { off.has(c) ? off.delete(c) : off.add(c); label.classList.toggle("off"); draw(); };
  legend.append(label);
});
if (data.scale) {
  const row = document.createElement("div"), bar = document.createElement("div"), ends = document.createElement("div");
  row.style.display = "flex"; bar.id = "bar"; bar.style.background = "linear-gradient(to top," + data.scale.colors + ")";
  ends.style.cssText = "display:flex;flex-direction:column;justify-content:space-between";
  for (const end of [data.scale.high, data.scale.low]) { const s = document.createElement("span"); s.textContent = end;
    ends.append(s); }
  row.append(bar, ends); legend.append(row);
}
window.addEventListener("resize", draw); draw();
</script>
</body>
</html>
"""


def write_page(found: FeatureMap, colors: Coloring, path: str | Path) -> Path:
    """Write a map as one HTML file.

    Args:
        found: The map.
        colors: Colours of its points.
        path: `.html` file to write.
    """
    content = _data(found, colors)
    # In a script, "<" could end it, whatever a cell holds.
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {
        "title": html.escape(colors.title or "features"),
        "about": html.escape(f"{len(found.points):,} of {found.rows:,} rows of {Path(found.table.name).name}"),
        "axes": html.escape(" × ".join(found.axes)),
        "data": text,
    }
    page = PAGE
    for name, value in parts.items():
        page = page.replace(f"@{name}@", value)
    write_whole(Path(path), lambda aside: aside.write_text(page, encoding="utf-8"))
    return Path(path)


def _data(found: FeatureMap, colors: Coloring) -> JsonObject:
    classes = colors.classes or {}
    palette = list(dict.fromkeys([*classes.values(), *colors.colors]))
    number = {color: place for place, color in enumerate(palette)}
    columns = found.table.columns.column_names[:MOST_COLUMNS]
    scale = None
    if colors.low is not None:
        steps = [to_hex(colormaps[SCALE](step)) for step in np.linspace(0, 1, 9)]
        scale = {"low": f"{colors.low:.4g}", "high": f"{colors.high:.4g}", "colors": ",".join(steps)}
    return {
        "x": [round(float(value), 4) for value in found.points[:, 0]],
        "y": [round(float(value), 4) for value in found.points[:, 1]],
        "color": [number[color] for color in colors.colors],
        "palette": palette,
        "classes": list(classes),
        "scale": scale,
        "order": np.random.default_rng(0).permutation(len(found.points)).tolist(),
        "columns": columns,
        "values": [[_shown(value) for value in found.table.columns[name].to_pylist()] for name in columns],
    }


def _shown(value: object) -> str | int | None:
    """A value as hover shows it."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
