"use strict";
(() => {
const $ = (s, e = document) => e.querySelector(s), $$ = (s, e = document) => [...e.querySelectorAll(s)];
const root = document.documentElement;
const contrasts = JSON.parse($("#contrasts").textContent);
const bar = $(".bar-top");

// ---- state, kept in the hash: "#section&base=1&hide=2.3&scale=lin&theme=dark&sort=0.3.desc"
const state = { at: "", base: "", hide: new Set(), scale: "log", theme: "auto", sort: "" };

function readHash() {
  const [at, ...rest] = location.hash.slice(1).split("&");
  const q = new URLSearchParams(rest.join("&"));
  const one = (k, allowed, d) => allowed.includes(q.get(k)) ? q.get(k) : d;
  state.at = at;
  state.base = q.get("base") || "";
  state.hide = new Set((q.get("hide") || "").split(".").filter(s => /^-?\d+$/.test(s)));
  state.scale = one("scale", ["log", "lin"], "log");
  state.theme = one("theme", ["auto", "light", "dark"], "auto");
  state.sort = /^\d+\.\d+\.(ascending|descending)$/.test(q.get("sort")) ? q.get("sort") : "";
}

function hash() {
  const q = [];
  if (state.base) q.push("base=" + state.base);
  if (state.hide.size) q.push("hide=" + [...state.hide].join("."));
  if (state.scale !== "log") q.push("scale=" + state.scale);
  if (state.theme !== "auto") q.push("theme=" + state.theme);
  if (state.sort) q.push("sort=" + state.sort);
  return "#" + [state.at, ...q].join("&");
}

function store() {
  const h = hash();
  if (h !== location.hash && !(h === "#" && !location.hash)) history.replaceState(null, "", h === "#" ? location.pathname + location.search : h);
}

// ---- what the state does
function applyTheme() {
  if (state.theme === "auto") delete root.dataset.theme; else root.dataset.theme = state.theme;
  $("#theme").value = state.theme;
}

function applyScale() {
  root.dataset.scale = state.scale;
  $("#scale").value = state.scale;
}

function applyFilter() {
  for (const e of $$("main [data-b]")) e.classList.toggle("off", state.hide.has(e.dataset.b));
  const boxes = $$(".pick input");
  for (const b of boxes) b.checked = !state.hide.has(b.value);
  $("#picked").textContent = boxes.filter(b => b.checked).length + " of " + boxes.length;
}

const firstBase = () => { const f = $("figure[data-base]:not([hidden])"); return f ? f.dataset.base : $("#baseline").value; };
const defaultBase = bar ? firstBase() : "";

function applyBase() {
  const base = state.base || defaultBase;
  const select = $("#baseline");
  select.value = base;
  if (select.selectedIndex < 0) { state.base = ""; return applyBase(); }
  const name = select.options[select.selectedIndex].text;
  for (const section of $$("section")) {
    const figures = $$("figure[data-base]", section);
    if (!figures.length) continue;
    // A scenario without this baseline keeps the figures that it has.
    const has = figures.some(f => f.dataset.base === base);
    for (const f of figures) f.hidden = f.dataset.base !== (has ? base : defaultBase);
  }
  for (const table of $$("table[data-scenario]")) {
    const cells = (contrasts[table.dataset.scenario] || {})[base];
    if (!cells) continue;
    for (const e of $$(".basename", table)) e.textContent = name;
    for (const tr of $$("tbody tr", table)) {
      const td = $(".against", tr), [text, sub, cls] = cells[tr.dataset.b] || ["–", "", ""];
      td.className = "against " + cls;
      $(".v", td).textContent = text;
      $(".sub", td).textContent = sub;
    }
  }
}

// ---- sorting
const boards = $$("table[data-scenario]");
boards.forEach((table, ti) => {
  const body = $("tbody", table);
  table.original = [...body.rows];
  $$("thead th", table).forEach((th, ci) => {
    const b = document.createElement("button");
    b.type = "button";
    b.append(...th.childNodes);
    if (!$(".hd", b)) { const s = document.createElement("span"); s.className = "plain"; s.append(...b.childNodes); b.append(s); }
    th.append(b);
    th.setAttribute("aria-sort", "none");
    b.addEventListener("click", () => {
      const now = th.getAttribute("aria-sort");
      const next = th.dataset.sort === "num" ? { none: "descending", descending: "ascending", ascending: "none" } : { none: "ascending", ascending: "descending", descending: "none" };
      state.sort = next[now] === "none" ? "" : [ti, ci, next[now]].join(".");
      applySort();
      store();
    });
  });
});

function applySort() {
  const [ti, ci, dir] = state.sort ? state.sort.split(".") : [];
  boards.forEach((table, i) => {
    const ths = $$("thead th", table);
    const on = String(i) === ti && ths[ci];
    ths.forEach((th, k) => th.setAttribute("aria-sort", on && String(k) === ci ? dir : "none"));
    table.classList.toggle("sorted", Boolean(on));
    const rows = [...table.original];
    if (on) {
      const sign = dir === "ascending" ? 1 : -1, num = ths[ci].dataset.sort === "num";
      const key = r => { const c = r.cells[ci]; return c.dataset.v !== undefined ? c.dataset.v : num ? "" : c.textContent.trim(); };
      rows.sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === ""); // absent ones last
        const d = num && !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y, "en", { numeric: true });
        return sign * d;
      });
    }
    $("tbody", table).append(...rows);
  });
}

// ---- values under the pointer
const tip = $(".tip");
const g3 = v => v === 0 ? "0" : v < 1000 ? String(Number(v.toPrecision(3))) : Math.round(v).toLocaleString("en");
const units = [["s", 1e9], ["ms", 1e6], ["µs", 1e3], ["ns", 1]];
const format = {
  ns: v => { const u = units.find(u => v >= 0.9995 * u[1]) || units[3]; return g3(v / u[1]) + " " + u[0]; },
  s: v => g3(v / 1e9) + " s",
  ops: v => g3(v) + " ops/s",
  x: v => g3(v) + "×",
  "%": v => (v < 0 ? "−" : "+") + g3(Math.abs(v * 100)) + " %",
  B: v => { let i = 0; while (v >= 1024 && i < 5) { v /= 1024; i++; } return g3(v) + " " + ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][i]; },
  q: v => "p" + Number((100 - 100 / v).toFixed(Math.max(Math.round(Math.log10(v)) - 1, 0))),
  n: g3,
};

function axis(s) {
  const [kind, lo, hi, from, to, unit] = s.split(" "), a = +from, b = +to;
  return px => {
    const t = (px - a) / (b - a);
    const v = kind === "log" ? Math.exp(Math.log(+lo) + t * (Math.log(+hi) - Math.log(+lo))) : +lo + t * (+hi - +lo);
    return (format[unit] || g3)(v);
  };
}

function points(panel) {
  if (panel.points) return panel.points;
  const out = [];
  for (const g of $$("g[data-n]", panel)) {
    const marks = $$("[data-p]", g).map(e => e.dataset.p);
    const path = $(".l", g);
    const text = marks.length ? marks.join(" ") : path ? path.getAttribute("d") : "";
    const n = (text.match(/-?[\d.]+/g) || []).map(Number);
    for (let i = 0; i + 1 < n.length; i += 2) out.push({ x: n[i], y: n[i + 1], g });
  }
  return panel.points = out;
}

function clear() {
  tip.hidden = true;
  for (const e of $$(".dot")) e.remove();
}

function show(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const r = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - r.width - 8)) + "px";
  tip.style.top = (y + 18 + r.height > innerHeight ? y - r.height - 10 : y + 18) + "px";
}

for (const t of $$("svg title")) {
  t.parentNode.dataset.tip = t.textContent;
  t.remove();
}

document.addEventListener("pointermove", e => {
  clear();
  if (!(e.target instanceof Element)) return;
  const svg = e.target.closest("svg.chart");
  if (!svg || svg.classList.contains("sw")) return;
  const own = e.target.closest("[data-tip]");
  if (own) return show(own.dataset.tip, e.clientX, e.clientY);
  const m = svg.getScreenCTM();
  if (!m) return;
  const at = new DOMPoint(e.clientX, e.clientY).matrixTransform(m.inverse());
  let best = null, near = 30 * 30;
  for (const panel of $$("g.p[data-y]", svg)) {
    for (const p of points(panel)) {
      const d = (p.x - at.x) ** 2 + (p.y - at.y) ** 2;
      if (d < near && !p.g.classList.contains("off")) { near = d; best = { p, panel }; }
    }
  }
  if (!best) return;
  const { p, panel } = best;
  const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [k, v] of [["class", "dot"], ["cx", p.x], ["cy", p.y], ["r", 5]]) dot.setAttribute(k, v);
  panel.append(dot);
  show(p.g.dataset.n + " · " + axis(panel.dataset.x)(p.x) + " · " + axis(panel.dataset.y)(p.y), e.clientX, e.clientY);
});
document.addEventListener("scroll", clear, { passive: true });

// ---- the data, unpacked where the browser can
for (const a of $$("a.data")) {
  if (typeof DecompressionStream !== "function") break;
  a.addEventListener("click", async e => {
    e.preventDefault();
    const bytes = Uint8Array.from(atob(a.href.slice(a.href.indexOf(",") + 1)), c => c.charCodeAt(0));
    const blob = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([blob], { type: "application/json" }));
    link.download = a.download.replace(/\.gz$/, "");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
}

// ---- controls
function apply() {
  if (!bar) return;
  applyTheme();
  applyScale();
  applyFilter();
  applyBase();
  applySort();
}

function go() {
  const target = state.at && document.getElementById(state.at);
  if (target) target.scrollIntoView();
}

if (bar) {
  bar.hidden = false;
  const on = (id, f) => $(id).addEventListener("change", e => { f(e.target.value); apply(); store(); });
  on("#baseline", v => { state.base = v === defaultBase ? "" : v; });
  on("#scale", v => { state.scale = v; });
  on("#theme", v => { state.theme = v; });
  for (const b of $$(".pick input")) b.addEventListener("change", () => {
    if (b.checked) state.hide.delete(b.value); else state.hide.add(b.value);
    applyFilter();
    store();
  });
  const pick = $(".pick");
  document.addEventListener("keydown", e => { if (e.key === "Escape" && pick.open) { pick.open = false; $("summary", pick).focus(); } });
  document.addEventListener("click", e => { if (pick.open && !pick.contains(e.target)) pick.open = false; });
  for (const a of $$('a[href^="#"]')) a.addEventListener("click", e => {
    e.preventDefault();
    state.at = a.getAttribute("href").slice(1);
    history.pushState(null, "", hash());
    const target = document.getElementById(state.at);
    if (target) { target.scrollIntoView(); target.tabIndex = -1; target.focus({ preventScroll: true }); }
  });
  addEventListener("hashchange", () => { readHash(); apply(); go(); });
  readHash();
  apply();
  if (state.at && location.hash.includes("&")) go();
}
})();
