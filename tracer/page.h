// Style and script of the page that `draw` writes: inline, no network, well-formed as XML (so without `&` and
// `<`). Constants.
#pragma once

namespace tandem::tracer {

inline constexpr const char* kPageStyle = R"(
* { box-sizing: border-box; }
body { margin: 0; font: 13px/1.4 system-ui, sans-serif; color: #1f2430; display: flex; flex-direction: column; height: 100vh; }
header { padding: 8px 14px; border-bottom: 1px solid #d5d9e0; display: flex; gap: 18px; align-items: center; flex-wrap: wrap; }
header h1 { font-size: 15px; margin: 0; }
.key { display: inline-flex; gap: 5px; align-items: center; }
.key i { width: 12px; height: 12px; border-radius: 3px; border: 1px solid; }
button { font: inherit; padding: 1px 9px; border: 1px solid #c3c9d3; background: #fff; border-radius: 4px; cursor: pointer; }
button.on { background: #1f2430; color: #fff; }
main { flex: 1; display: flex; flex-direction: column; min-height: 0; }
.stage { flex: 1; position: relative; overflow: hidden; background: #fbfbfc; cursor: grab; }
.stage svg { position: absolute; width: 100%; height: 100%; }
aside { height: 38%; overflow: auto; border-top: 1px solid #d5d9e0; padding: 4px 14px; display: flex; gap: 24px; }
aside section { flex: 1 1 0; min-width: 300px; overflow: auto; }
aside section[hidden] { display: none; }
aside section.op { order: -1; }
aside h2 { font-size: 14px; margin: 10px 0 2px; overflow-wrap: anywhere; }
aside p { margin: 2px 0 6px; overflow-wrap: anywhere; }
aside table { border-collapse: collapse; margin: 4px 0; }
aside td, aside th { text-align: left; padding: 1px 10px 1px 0; font-weight: normal; vertical-align: top; }
aside th { color: #6b7280; }
pre { background: #f3f4f6; padding: 8px; overflow: auto; font: 11px/1.45 ui-monospace, monospace; border-radius: 4px; }
text { font: 10px ui-monospace, monospace; fill: #4b5563; pointer-events: none; }
text.name { font-weight: bold; font-size: 12px; fill: #111827; }
text.title { font-size: 10px; font-weight: bold; fill: #374151; }
.box rect.frame { fill: #eef0f4; stroke: #9aa3b2; stroke-width: 1.2; }
.box.product rect.frame { fill: #ffffff; }
.box.argument rect.frame { fill: #f5f0ff; stroke: #8b5cf6; }
.box, .chip { cursor: pointer; }
.forward { fill: #dbeafe; stroke: #3b82f6; background: #dbeafe; border-color: #3b82f6; }
.backward { fill: #ffe4cc; stroke: #ea7a1a; background: #ffe4cc; border-color: #ea7a1a; }
.update { fill: #d5f5dd; stroke: #2e9d50; background: #d5f5dd; border-color: #2e9d50; }
.argument-key { background: #f5f0ff; border-color: #8b5cf6; }
path.line { fill: none; stroke: #8d96a5; stroke-width: 1.3; }
path.head { fill: #8d96a5; stroke: none; }
path.line.on { stroke: #c01c68; stroke-width: 2.4; }
path.head.on { fill: #c01c68; }
.picked > rect { stroke: #c01c68 !important; stroke-width: 2.6 !important; }
.empty { padding: 40px; }
)";

inline constexpr const char* kPageScript = R"(
(function () {
  var all = function (q, r) { return Array.from((r || document).querySelectorAll(q)); };
  var view = {};
  function stage(k) { return document.getElementById('stage-' + k); }
  function apply(k) {
    var v = view[k];
    stage(k).querySelector('g.world').setAttribute('transform', 'translate(' + v.x + ' ' + v.y + ') scale(' + v.s + ')');
  }
  function fit(k) {
    var s = stage(k), svg = s.querySelector('svg');
    if (!svg) return;
    var w = Number(svg.dataset.w), h = Number(svg.dataset.h);
    var scale = Math.min(s.clientWidth / w, s.clientHeight / h, 1.6);
    view[k] = { s: scale, x: (s.clientWidth - w * scale) / 2, y: (s.clientHeight - h * scale) / 2 };
    apply(k);
  }
  function zoom(k, f, px, py) {
    var v = view[k];
    if (!v) return;
    var s = Math.max(0.05, Math.min(6, v.s * f));
    v.x = px - (px - v.x) * s / v.s;
    v.y = py - (py - v.y) * s / v.s;
    v.s = s;
    apply(k);
  }
  function show(ids) {
    all('aside .detail').forEach(function (d) { d.hidden = true; });
    ids.forEach(function (id) { var d = document.getElementById(id); if (d) d.hidden = false; });
    all('aside .detail').forEach(function (d) { d.scrollTop = 0; });
  }
  function pick(k, e) {
    var s = stage(k);
    all('.picked', s).forEach(function (x) { x.classList.remove('picked'); });
    all('.on', s).forEach(function (x) { x.classList.remove('on'); });
    if (!e) { show(['about-' + k]); return; }
    e.classList.add('picked');
    var names = [e.id].concat(all('.chip', e).map(function (c) { return c.id; }));
    all('path', s).forEach(function (p) {
      if (names.includes(p.dataset.from) || names.includes(p.dataset.to)) p.classList.add('on');
    });
    show((e.dataset.show || '').split(' '));
  }
  var current = 0;
  function open(k) {
    current = k;
    all('.stage').forEach(function (s) { s.hidden = s.id !== 'stage-' + k; s.style.display = s.hidden ? 'none' : ''; });
    all('button.plan').forEach(function (b) { b.classList.toggle('on', b.dataset.plan === String(k)); });
    if (!view[k]) fit(k);
    pick(k, null);
  }
  all('.stage').forEach(function (s, k) {
    var from = null, moved = false;
    s.addEventListener('pointerdown', function (e) { from = { x: e.clientX, y: e.clientY }; moved = false; });
    window.addEventListener('pointerup', function () { from = null; });
    s.addEventListener('pointermove', function (e) {
      if (!from || !view[k]) return;
      if (Math.abs(e.clientX - from.x) + Math.abs(e.clientY - from.y) > 3) moved = true;
      if (!moved) return;
      view[k].x += e.clientX - from.x;
      view[k].y += e.clientY - from.y;
      from = { x: e.clientX, y: e.clientY };
      apply(k);
    });
    s.addEventListener('wheel', function (e) {
      e.preventDefault();
      var r = s.getBoundingClientRect();
      zoom(k, Math.pow(1.0015, -e.deltaY), e.clientX - r.left, e.clientY - r.top);
    }, { passive: false });
    s.addEventListener('click', function (e) {
      if (!moved) pick(k, e.target.closest('.chip') || e.target.closest('.box'));
    });
  });
  all('button.plan').forEach(function (b) { b.addEventListener('click', function () { open(Number(b.dataset.plan)); }); });
  var middle = function (f) { var s = stage(current); if (s) zoom(current, f, s.clientWidth / 2, s.clientHeight / 2); };
  document.getElementById('closer').addEventListener('click', function () { middle(1.3); });
  document.getElementById('farther').addEventListener('click', function () { middle(1 / 1.3); });
  document.getElementById('fit').addEventListener('click', function () { fit(current); });
  window.addEventListener('resize', function () { fit(current); });
  if (stage(0)) {
    open(0);
    var picked = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
    if (picked) pick(0, picked);
  }
})();
)";

}  // namespace tandem::tracer
