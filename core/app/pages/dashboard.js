"use strict";
/* The dashboard: asks the admin port every two seconds for what the open view shows, and draws it. Whatever comes from there is
   text (textContent), never markup: models, policies and errors are named by others. */
(() => {
const EVERY = 2000, SAMPLES = 150, WINDOW = 30; /* ms; kept of /live, 5 minutes; of them rates are taken over, a minute */
const VIEWS = [["overview", "Overview"], ["requests", "Requests"], ["upstreams", "Upstreams"], ["costs", "Costs"], ["routes", "Routes"],
  ["policies", "Policies"], ["generations", "Generations"], ["playground", "Playground"]];
const $ = id => document.getElementById(id);

/* ---- making elements ---- */
function h(tag, props, ...kids) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props || {})) {
    if (k === "on") for (const [n, f] of Object.entries(v)) e.addEventListener(n, f);
    else if (k === "class") e.className = v;
    else if (k in e && k !== "list") e[k] = v;
    else e.setAttribute(k, v);
  }
  e.append(...kids.flat(3).filter(x => x != null && x !== false));
  return e;
}
function put(e, ...kids) { e.replaceChildren(...kids.flat(3).filter(x => x != null && x !== false)); }
function set(e, text) { text = String(text ?? ""); if (e.textContent !== text) e.textContent = text; }
/* A word with a sign before it: no state is told by its colour alone. */
function tag(kind, word) { return h("span", {class: "tag " + kind}, ({good: "● ", warn: "▲ ", bad: "✕ "})[kind] || "", word); }

/* Rows by key: those that stay are kept, so that focus and selection stay. A column: {h, n: a number, wide, v: row => text} or
   {h, e: (row, td) => element made once, then u: (row, td)}. */
function table(t, columns, rows, key, empty) {
  if (!t.tHead) {
    t.append(h("thead", {}, h("tr", {}, columns.map(c => h("th", {scope: "col", class: cls(c)}, c.h)))), h("tbody"));
    t.rowsByKey = new Map();
  }
  const body = t.tBodies[0], seen = new Set();
  let at = body.firstChild;
  for (const row of rows) {
    const k = key(row);
    let tr = t.rowsByKey.get(k);
    if (seen.has(k)) continue;
    seen.add(k);
    if (!tr) {
      tr = h("tr", {}, columns.map(c => h("td", {class: cls(c)})));
      t.rowsByKey.set(k, tr);
      columns.forEach((c, i) => { if (c.e) put(tr.cells[i], c.e(row, tr)); });
    }
    tr.row = row;
    columns.forEach((c, i) => { if (c.v) set(tr.cells[i], c.v(row)); else if (c.u) c.u(row, tr.cells[i]); });
    if (tr === at) at = at.nextSibling; else body.insertBefore(tr, at);
  }
  for (const [k, tr] of t.rowsByKey) if (!seen.has(k)) { tr.remove(); t.rowsByKey.delete(k); }
  if (t.none) { t.none.remove(); t.none = null; }
  if (!rows.length) body.append(t.none = h("tr", {}, h("td", {class: "empty", colSpan: columns.length}, empty)));
}
const cls = c => (c.n ? "n " : "") + (c.wide ? "wide " : "") + (c.c || "");

/* ---- numbers ---- */
const num = (n, d = 0) => n.toLocaleString("en", {maximumFractionDigits: d, minimumFractionDigits: d});
function rate(n) { return n === 0 ? "0" : n < 0.1 ? "< 0.1" : num(n, n < 10 ? 1 : 0); }
function big(n) { return n < 1e4 ? num(n) : n < 1e6 ? num(n / 1e3, 1) + " k" : n < 1e9 ? num(n / 1e6, 2) + " M" : num(n / 1e9, 2) + " G"; }
function ms(v) { return v == null || !isFinite(v) ? "–" : v === 0 ? "0 ms" : v < 1 ? num(v, 2) + " ms" : v < 10 ? num(v, 1) + " ms" : v < 10000 ? num(v) + " ms" : num(v / 1000, 1) + " s"; }
function usd(v) { return v == null ? "–" : "$" + (v === 0 ? "0" : v < 0.01 ? num(v, 6) : v < 1 ? num(v, 4) : num(v, 2)); }
function part(a, b) { return b ? a / b : 0; }
function percent(x) { return x === 0 ? "0 %" : x < 0.001 ? "< 0.1 %" : num(x * 100, x < 0.1 ? 1 : 0) + " %"; }
const plural = (n, word) => num(n) + " " + word + (n === 1 ? "" : "s");
function clock(s) { return new Date(s * 1000).toLocaleTimeString("en-GB"); }
function ago(s) { const d = Math.max(0, Date.now() / 1000 - s); return d < 90 ? num(d) + " s ago" : d < 5400 ? num(d / 60) + " min ago" : d < 172800 ? num(d / 3600) + " h ago" : num(d / 86400) + " days ago"; }

/* ---- asking ---- */
let token = sessionStorage.getItem("openclaw-token") || "";
async function ask(path, options = {}) {
  const headers = {...options.headers};
  if (token) headers.authorization = "Bearer " + token;
  const r = await fetch(path, {...options, headers, cache: "no-store"});
  if (r.status === 401) { login(); throw new Error("the token is wanted"); }
  return r;
}
async function get(path) {
  const r = await ask(path);
  const body = await r.json().catch(() => ({}));
  if (!r.ok) throw new Error(body.error ? body.error.message : "status " + r.status);
  return body;
}
function login() {
  const d = $("login");
  if (d.open) return;
  set($("login-said"), token ? "This token was not taken." : "");
  d.showModal();
}
$("login-form").addEventListener("submit", e => {
  e.preventDefault();
  token = $("token").value.trim();
  sessionStorage.setItem("openclaw-token", token);
  $("token").value = "";
  $("login").close();
  tick();
});
$("login").addEventListener("cancel", e => e.preventDefault());

/* ---- /live: samples, and what lies between two ---- */
const samples = [];
const rows = (s, name) => s["openclaw_" + name] || [];
const id = (r, labels) => labels.map(l => r[l]).join("\u0000");
/* The growth of a family since an earlier sample, summed by labels: key -> number, or an array for histograms. */
function growth(name, labels, pick) {
  const now = samples[samples.length - 1], old = samples[Math.max(0, samples.length - 1 - WINDOW)];
  return between(old, now, name, labels, pick);
}
function between(old, now, name, labels, pick) {
  const out = new Map();
  const add = (s, sign) => {
    for (const r of rows(s, name)) {
      if (pick && !pick(r)) continue;
      const k = id(r, labels);
      if (r.buckets) {
        const to = out.get(k) || new Array(r.buckets.length).fill(0);
        r.buckets.forEach((n, i) => { to[i] += sign * n; });
        out.set(k, to);
      } else out.set(k, (out.get(k) || 0) + sign * r.value);
    }
  };
  add(now, 1);
  if (old !== now) add(old, -1);
  return out;
}
function total(name, labels, pick) { const s = samples[samples.length - 1]; return between(s, s, name, labels, pick); }
const sum = m => [...m.values()].reduce((a, b) => a + b, 0);
function seconds() { const n = samples.length; return n < 2 ? 1 : samples[n - 1].time - samples[Math.max(0, n - 1 - WINDOW)].time; }
/* Within its bucket a time is taken to lie evenly. ms. */
function quantile(buckets, q) {
  const bounds = samples[samples.length - 1].bounds, n = buckets ? buckets.reduce((a, b) => a + b, 0) : 0;
  if (!n) return null;
  let seen = 0;
  for (let i = 0; i < buckets.length; i++) {
    if (seen + buckets[i] >= q * n) {
      const low = i ? bounds[i - 1] : 0, high = i < bounds.length ? bounds[i] : bounds[i - 1];
      return 1000 * (low + (high - low) * part(q * n - seen, buckets[i]));
    }
    seen += buckets[i];
  }
  return null;
}
const three = b => [0.5, 0.9, 0.99].map(q => quantile(b, q));
const isError = r => +r.status >= 400 || r.status === "";
const failedTry = r => !(+r.status < 400);

/* ---- charts ---- */
const NS = "http://www.w3.org/2000/svg";
function s(tag, props, text) {
  const e = document.createElementNS(NS, tag);
  for (const [k, v] of Object.entries(props)) e.setAttribute(k, v);
  if (text != null) e.textContent = text;
  return e;
}
function nice(v) { if (!(v > 0)) return 1; const p = 10 ** Math.floor(Math.log10(v)); return [1, 2, 2.5, 5, 10].map(x => x * p).find(x => x >= v); }
/* Lines over time, each named at its end; `log`: a tenfold is as high as the next. */
function chart(svg, series, format, log, says) {
  const w = svg.clientWidth || 500, ht = 170, left = 56, right = 70, top = 8, bottom = 20;
  const all = series.flatMap(x => x.values.filter(v => v != null && (v > 0 || !log)));
  const low = Math.floor(Math.log10(Math.min(...all, 1))), high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...all, 1))));
  const most = nice(Math.max(...all, 0)), step = Math.ceil((high - low) / 4);
  const ticks = log ? Array.from({length: high - low + 1}, (_, i) => 10 ** (low + i)).filter((_, i) => i % step === 0) : [0, most / 2, most];
  const count = Math.max(30, series[0].values.length), part = v => log ? (Math.log10(Math.max(v, 10 ** low)) - low) / (high - low) : v / most;
  const x = i => left + (w - left - right) * i / (count - 1), y = v => top + (ht - top - bottom) * (1 - part(v));
  const parts = ticks.flatMap(t => [s("line", {class: "grid", x1: left, x2: w - right, y1: y(t), y2: y(t)}), s("text", {x: left - 6, y: y(t) + 4, "text-anchor": "end"}, format(t))]);
  parts.push(s("text", {x: left, y: ht - 4}, num(count * EVERY / 60000) + " min ago"), s("text", {x: w - right, y: ht - 4, "text-anchor": "end"}, "now"));
  const ends = [];
  series.forEach((one, k) => {
    const from = count - one.values.length;
    let d = "", pen = false;
    one.values.forEach((v, i) => { if (v == null) pen = false; else { d += (pen ? "L" : "M") + x(from + i).toFixed(1) + " " + y(v).toFixed(1); pen = true; } });
    parts.push(s("path", {class: "s" + k, d}));
    const last = one.values[one.values.length - 1];
    if (last != null) ends.push({at: y(last), text: one.name});
  });
  ends.sort((a, b) => a.at - b.at).forEach((e, i) => { if (i && e.at < ends[i - 1].at + 13) e.at = ends[i - 1].at + 13; });
  const over = ends.length ? Math.max(0, ends[ends.length - 1].at - (ht - bottom)) : 0;
  ends.forEach(e => parts.push(s("text", {x: w - right + 6, y: e.at - over + 4}, e.text)));
  if (!all.length) parts.push(s("text", {x: left + 12, y: ht / 2 - 8}, "No requests yet."));
  svg.setAttribute("viewBox", `0 0 ${w} ${ht}`);
  svg.setAttribute("aria-label", says);
  svg.replaceChildren(...parts);
}
/* One value for each two samples that follow each other. */
function history(f) { return samples.slice(1).map((now, i) => f(samples[i], now, now.time - samples[i].time || 1)); }

/* ---- overview ---- */
function tile(name, value, unit, more, kind) {
  let t = $("tile-" + name.replace(/\W/g, ""));
  if (!t) $("tiles").append(t = h("dl", {class: "tile", id: "tile-" + name.replace(/\W/g, "")}, h("dt", {}, name), h("dd", {}, h("span"), " ", h("small")), h("p")));
  const [v, u] = t.querySelectorAll("span, small");
  set(v, value); set(u, unit); set(t.lastChild, more);
  v.className = kind || "";
}
const slash = list => list.every(x => x == null) ? "–" : list.map(ms).join(" · ");
let ups = [];
function overview() {
  const t = seconds(), all = sum(growth("requests_total", ["route_id"])), bad = sum(growth("requests_total", ["route_id"], isError));
  const whole = growth("request_duration_seconds", []).get(""), first = growth("time_to_first_byte_seconds", []).get("");
  const tokens = growth("tokens_total", ["class"], r => r.class === "input" || r.class === "output"), cost = sum(growth("estimated_cost_usd_total", []));
  const hits = sum(growth("cache_hits_total", [])), miss = sum(growth("cache_misses_total", [])), shared = sum(growth("coalesced_total", []));
  const s0 = samples[samples.length - 1], over = growth("overhead_seconds", []).get("");
  const some = n => n ? "over the last minute" : "none in the last minute";
  tile("Requests", rate(all / t), "a second", num(sum(total("requests_total", []))) + " since the start");
  tile("Errors", percent(part(bad, all)), "of requests", bad ? (part(bad, all) > 0.05 ? "✕ " : "▲ ") + num(bad) + " in the last minute" : "● none in the last minute", part(bad, all) > 0.05 ? "bad" : "");
  tile("In flight", num(sum(total("requests_in_flight", []))), "requests", num(s0.connections) + " client connections");
  tile("Rate limited", num(sum(growth("rate_limit_blocked_total", []))), "requests", "and " + num(sum(growth("retries_total", []))) + " retries in the last minute");
  const w = three(whole), f = three(first);
  tile("Time of a request", ms(w[0]), "median", w[0] == null ? "none in the last minute" : "p90 " + ms(w[1]) + " · p99 " + ms(w[2]));
  tile("First byte", ms(f[0]), "median", f[0] == null ? "none in the last minute" : "p90 " + ms(f[1]) + " · p99 " + ms(f[2]));
  tile("Tokens", rate(sum(tokens) / t), "a second", big(tokens.get("input") || 0) + " in · " + big(tokens.get("output") || 0) + " out in the last minute");
  tile("Cost", usd(cost / t * 3600), "an hour", usd(sum(total("estimated_cost_usd_total", []))) + " since the start");
  tile("Cache", hits + miss ? percent(part(hits, hits + miss)) : "–", hits + miss ? "hits" : "", hits + miss + shared ? num(hits) + " hits · " + num(miss) + " misses · " + num(shared) + " shared" : some(0));
  tile("Own time", ms(quantile(over, 0.5)), "median", over && quantile(over, 0.5) != null ? "p99 " + ms(quantile(over, 0.99)) + " in the proxy itself" : "none in the last minute");
  tile("CPU", percent(samples.length > 1 ? (s0.cpu_seconds - samples[Math.max(0, samples.length - 1 - WINDOW)].cpu_seconds) / t : 0), "of one", num(s0.workers) + (s0.workers === 1 ? " worker" : " workers"));
  const failing = ups.filter(u => u.state !== "closed");
  tile("Set aside", num(failing.length), failing.length === 1 ? "upstream" : "upstreams", failing.length ? "✕ " + failing.map(u => u.name).join(", ") : "● all of them are asked", failing.length ? "bad" : "");
  const req = history((a, b, d) => sum(between(a, b, "requests_total", [])) / d), err = history((a, b, d) => sum(between(a, b, "requests_total", [], isError)) / d);
  const p = q => history((a, b) => quantile(between(a, b, "request_duration_seconds", []).get(""), q));
  const last = a => a.length ? a[a.length - 1] : null;
  chart($("chart-rate"), [{name: "requests", values: req}, {name: "errors", values: err}], rate, false,
    `Requests a second over five minutes, now ${rate(last(req) || 0)}, of them errors ${rate(last(err) || 0)}`);
  const p50 = p(0.5), p90 = p(0.9), p99 = p(0.99);
  chart($("chart-time"), [{name: "p50", values: p50}, {name: "p99", values: p99}, {name: "p90", values: p90}], ms, true, `Time of a request over five minutes, now p50 ${ms(last(p50))}, p99 ${ms(last(p99))}`);
  const byRoute = growth("requests_total", ["route_id"]), badRoute = growth("requests_total", ["route_id"], isError), timeRoute = growth("request_duration_seconds", ["route_id"]);
  const names = new Set([...routes.map(r => r.id), ...[...byRoute].filter(([, n]) => n).map(([k]) => k)]);
  table($("over-routes"), [{h: "Route", v: r => r || "(none matched)"}, {h: "A second", n: 1, v: r => rate((byRoute.get(r) || 0) / t)},
    {h: "Errors", n: 1, v: r => percent(part(badRoute.get(r) || 0, byRoute.get(r) || 0))}, {h: "p50 · p90 · p99", n: 1, v: r => slash(three(timeRoute.get(r)))}], [...names], r => r, "No routes.");
  const tries = growth("upstream_requests_total", ["upstream_name"]), firsts = growth("time_to_first_byte_seconds", ["upstream_name"]), failed = failures();
  table($("over-upstreams"), [{h: "Upstream", v: u => u.name}, {h: "State", e: () => "", u: (u, td) => stateCell(u, td)},
    {h: "Tries a second", n: 1, v: u => rate((tries.get(u.name) || 0) / t)},
    {h: "Failed", n: 1, v: u => failed(u.name)}, {h: "First byte p50 · p99", n: 1, v: u => { const q = three(firsts.get(u.name)); return slash([q[0], q[2]]); }}],
    ups, u => u.name, "No upstreams.");
  const wrong = rows(s0, "policy_errors_total").filter(r => r.value);
  put($("over-errors"), wrong.length ? h("p", {class: "note"}, h("br"), tag("bad", plural(wrong.reduce((a, r) => a + r.value, 0), "failure") + " of policies since the start"), ", ", h("button", {class: "link", type: "button", on: {click: () => show("policies")}}, "see where")) : "");
}
/* name => the part of an upstream's tries that failed. */
function failures() {
  const all = growth("upstream_requests_total", ["upstream_name"]), bad = growth("upstream_requests_total", ["upstream_name"], failedTry);
  return name => percent(part(bad.get(name) || 0, all.get(name) || 0));
}
const STATES = {closed: ["good", "asked"], open: ["bad", "set aside"], half_open: ["warn", "being tried"], ramp: ["warn", "coming back"], retired: ["bad", "retired"]};
function stateCell(u, td) {
  const [kind, word] = STATES[u.share < 1 && u.state === "closed" ? "ramp" : u.state] || ["warn", u.state];
  const more = (u.for_ms ? ", " + num(Math.ceil(u.for_ms / 1000)) + " s more" : "") + (u.share < 1 ? ", " + percent(u.share) + " of its share" : "");
  if (td.textContent.slice(2) !== word + more) put(td, tag(kind, word + more));
}

/* ---- requests ---- */
let routes = [], tail = [], since = 0;
function options(select, names) {
  const had = select.value, want = ["", ...names];
  if ([...select.options].map(o => o.value).join("\n") === want.join("\n")) return;
  put(select, want.map(n => h("option", {value: n}, n || "all")));
  select.value = want.includes(had) ? had : "";
}
function query() {
  const q = new URLSearchParams();
  for (const [k, v] of new FormData($("filters"))) if (v.trim()) q.set(k, v.trim());
  return q;
}
$("filters").addEventListener("input", () => { tail = []; since = 0; tick(); });
$("filters").addEventListener("submit", e => e.preventDefault());
function statusTag(r) { return r.error && r.status < 400 ? tag("bad", r.status + " " + r.error) : r.status >= 500 ? tag("bad", r.status) : r.status >= 400 ? tag("warn", r.status) : tag("good", r.status || "none"); }
async function requests() {
  options($("filters").route, routes.map(r => r.id));
  options($("filters").upstream, ups.map(u => u.name));
  const q = query();
  q.set("limit", "50");
  if (since) q.set("since", since.toFixed(6));
  const [ended, flying] = await Promise.all([get("requests?" + q), get("requests/inflight")]);
  const have = new Set(tail.map(r => r.id));
  tail = [...ended.requests.filter(r => !have.has(r.id)), ...tail].slice(0, 50);
  if (tail.length) since = Math.max(since, tail[0].at - 1); /* another worker's may have come in between */
  set($("inflight-n"), flying.count ? num(flying.count) + (flying.requests.length > 10 ? ", 10 of them shown" : "") : "");
  table($("inflight"), [{h: "For", n: 1, v: r => ms(r.duration_ms)}, {h: "Step", v: r => r.step}, {h: "Route", v: r => r.route || "–"}, {h: "Model", v: r => r.model || "–"},
    {h: "Upstream", v: r => r.upstream || "–"}, {h: "Client", wide: 1, v: r => r.client || r.ip || "–"}, {h: "", e: (r, tr) => opener(tr, "Decision")}],
    flying.requests.sort((a, b) => b.duration_ms - a.duration_ms).slice(0, 10), r => r.id, "Nothing is under way right now.");
  table($("tail"), [{h: "Ended", c: "t", e: (r, tr) => opener(tr, clock(r.at))}, {h: "Status", e: r => statusTag(r)}, {h: "Route", v: r => r.route || "–"}, {h: "Model", v: r => r.model || "–"},
    {h: "Upstream", v: r => r.answered_by ? "policy " + r.answered_by : r.upstream || (r.cache === "hit" || r.cache === "coalesced" ? "cache" : "–")}, {h: "Tries", n: 1, v: r => r.attempts.length + (r.attempts_left_out || 0)},
    {h: "First byte", n: 1, wide: 1, v: r => ms(r.ttfb_ms)}, {h: "Time", n: 1, v: r => ms(r.duration_ms)}, {h: "Tokens in · out", n: 1, wide: 1, v: r => r.output_tokens == null && r.input_tokens == null ? "–" : num(r.input_tokens || 0) + " · " + num(r.output_tokens || 0)},
    {h: "Cost", n: 1, wide: 1, v: r => usd(r.cost_usd)}, {h: "Cache", wide: 1, v: r => r.cache}, {h: "Client", wide: 1, v: r => r.client || r.ip || "–"}],
    tail, r => r.id, ended.kept_by_each_worker ? "No request that fits has ended yet." : "No requests are kept: admin.recent_requests is 0.");
}
function opener(tr, text) { return h("button", {class: "link", type: "button", on: {click: () => detail(tr.row)}}, text); }

const CACHES = {bypass: "not asked", miss: "asked, nothing fit", hit: "answered from it", coalesced: "shared the answer of an identical request under way"};
function facts(list) { return h("dl", {class: "facts-list"}, list.filter(x => x && x[1] != null && x[1] !== "").map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])); }
function detail(r) {
  const end = Math.max(r.duration_ms, 0.001), tried = new Set(r.attempts.map(a => a.upstream));
  const steps = [r.route ? `Route ${r.route}, strategy ${r.strategy || "–"}, as generation ${r.generation} has it.` : "No route was chosen.",
    r.candidates.length ? null : r.route ? "It came to no candidates." : null,
    r.cache !== "bypass" ? "Cache: " + CACHES[r.cache] + (r.cache_age_s ? `, ${r.cache_age_s} s old.` : ".") : null,
    r.answered_by ? `The policy ${r.answered_by} answered in an upstream’s place.` : null,
    r.translated ? "The last try was translated to the upstream’s protocol and back." : null,
    r.retry_budget ? "Another try was not made: retry.budget was exhausted." : null,
    r.step ? `It is at the step “${r.step}”.` : r.error ? `It ended with ${r.status} ${r.error}${r.error_code && r.error_code !== r.error ? " (" + r.error_code + ")" : ""}.` : `It ended with ${r.status}.`,
    r.error_message, r.upstream_error ? "The last failure: " + r.upstream_error : null];
  set($("detail-title"), (r.method || "") + " " + (r.path || ""));
  const cands = h("table"), tries = h("table");
  const placed = list => list.map((x, place) => ({...x, place}));
  table(cands, [{h: "#", n: 1, v: c => c.place + 1}, {h: "Upstream", v: c => c.upstream}, {h: "Model sent", v: c => c.model || "as asked"},
    {h: "How it was taken", e: c => c.passed_over ? tag("warn", c.passed_over === "limit" ? "passed over: a limit of its was reached" : "passed over: it cannot be told what the client wants") : c.set_aside ? [tag("warn", "set aside" + (c.why ? ": " + c.why : "")), tried.has(c.upstream) ? "; tried all the same" : ""] : tried.has(c.upstream) ? tag("good", "tried") : "not asked"}], placed(r.candidates), c => c.place, "There were none.");
  table(tries, [{h: "Upstream", v: a => a.upstream + (a.key != null ? ", key " + a.key : "")}, {h: "Gave", e: a => a.kind || a.status >= 400 || (!a.status && a.ms != null) ? tag("bad", a.kind || a.status || "no answer") : a.status ? tag("good", a.status) : tag("warn", "under way")},
    {h: "First byte", n: 1, v: a => ms(a.ttfb_ms)}, {h: "Time", n: 1, v: a => ms(a.ms)}, {h: "", e: a => {
      const i = h("i", {class: a.kind ? "failed" : ""}), length = a.ms ?? end - a.start_ms;
      const from = Math.min(0.985, a.start_ms / end);
      i.style.left = 100 * from + "%"; i.style.width = 100 * Math.min(1 - from, length / end) + "%";
      return h("div", {class: "time", role: "img", ariaLabel: `from ${ms(a.start_ms)} for ${ms(length)}`}, i);
    }}], placed(r.attempts), a => a.place, "No upstream was asked.");
  put($("detail-body"), h("ol", {class: "steps"}, steps.filter(Boolean).map(x => h("li", {}, x))), h("h3", {}, "Candidates, in order"), cands, h("h3", {}, "Tries"), tries,
    r.attempts_left_out ? h("p", {class: "note"}, r.attempts_left_out + " more were made.") : null, h("h3", {}, "The request"),
    facts([["Id", h("code", {}, r.id)], ["Trace", r.trace_id && h("code", {}, r.trace_id)], ["Ended", r.at && new Date(r.at * 1000).toLocaleString("en-GB")], ["Client", r.client ? r.client + " (" + r.ip + ")" : r.ip], ["Dialect", r.dialect], ["Model asked", r.model], ["Model sent", r.sent_model],
      ["Streamed", r.stream ? "yes" : "no"], ["Time", ms(r.duration_ms) + (r.ttfb_ms != null ? ", first byte after " + ms(r.ttfb_ms) : "") + (r.overhead_us != null ? ", in the proxy itself " + ms(r.overhead_us / 1000) : "")], ["Waited for a limit", r.limit_wait_ms != null ? ms(r.limit_wait_ms) : null],
      ["Tokens", r.input_tokens != null || r.output_tokens != null ? `${num(r.input_tokens || 0)} in, ${num(r.output_tokens || 0)} out${r.usage_estimated ? " (estimated)" : ""}` : null], ["Cost", r.cost_usd != null ? usd(r.cost_usd) : null],
      ["Bytes", `${num(r.bytes_in)} in, ${num(r.bytes_out)} out`]]));
  $("detail").showModal();
}

/* ---- upstreams ---- */
function act(path) { return async e => { e.target.disabled = true; try { await get2(path); await tick(); } catch (x) { state("bad", x.message); } finally { e.target.disabled = false; } }; }
async function get2(path) { const r = await ask(path, {method: "POST"}), b = await r.json(); if (!r.ok && r.status !== 422) throw new Error(b.error ? b.error.message : "status " + r.status); return b; }
function upstreams() {
  const tries = growth("upstream_requests_total", ["upstream_name"]), firsts = growth("time_to_first_byte_seconds", ["upstream_name"]), failed = failures();
  table($("ups"), [{h: "Upstream", v: u => u.name}, {h: "State", e: () => "", u: stateCell}, {h: "Why", v: u => u.why || "–"}, {h: "In flight", n: 1, v: u => num(u.outstanding)},
    {h: "Tries a second", n: 1, v: u => rate((tries.get(u.name) || 0) / seconds())}, {h: "Failed", n: 1, v: u => failed(u.name)},
    {h: "First byte p50 · p90 · p99", n: 1, wide: 1, v: u => slash(three(firsts.get(u.name)))},
    {h: "", c: "t", e: u => [h("button", {type: "button", ariaLabel: "Set aside " + u.name, on: {click: act(`upstreams/${encodeURIComponent(u.name)}/cool`)}}, "Set aside"), h("button", {type: "button", ariaLabel: "Take back " + u.name, on: {click: act(`upstreams/${encodeURIComponent(u.name)}/restore`)}}, "Take back")]}],
    ups, u => u.name, "No upstreams are configured.");
  const parts = ups.flatMap(u => [...u.keys.map(k => ({...k, of: u.name, what: "key " + k.key, text: k.masked})), ...u.models.map(m => ({...m, of: u.name, what: "model", text: m.model}))]);
  table($("keys"), [{h: "Upstream", v: k => k.of}, {h: "Which", v: k => k.what + (k.text ? " " + k.text : "")}, {h: "State", e: () => "", u: stateCell}, {h: "Why", v: k => k.why || "–"}], parts, k => k.of + "\n" + k.what + "\n" + k.text, "No keys are configured, and no model fails.");
}

/* ---- costs ---- */
function costRows(labels, money, tokens, count) {
  const all = new Map(), at = k => { if (!all.has(k)) all.set(k, {key: k, in: 0, out: 0, usd: 0, now: 0, n: 0}); return all.get(k); };
  for (const [k, v] of total(tokens, [...labels, "class"])) {
    const cut = k.lastIndexOf("\u0000"), c = k.slice(cut + 1);
    if (c === "input") at(k.slice(0, cut)).in += v;
    if (c === "output") at(k.slice(0, cut)).out += v;
  }
  for (const [k, v] of total(money, labels)) at(k).usd += v;
  for (const [k, v] of growth(money, labels)) at(k).now += v / seconds() * 3600;
  if (count) for (const [k, v] of total(count, labels)) at(k).n += v;
  return [...all.values()].sort((a, b) => b.usd - a.usd || b.out - a.out);
}
const COSTS = [{h: "Tokens in", n: 1, v: r => big(r.in)}, {h: "Tokens out", n: 1, v: r => big(r.out)}, {h: "Cost", n: 1, v: r => usd(r.usd)}, {h: "An hour", n: 1, v: r => usd(r.now)}];
async function costs() {
  const clients = (await get("clients")).clients, budget = new Map(clients.map(c => [c.name, c.budget]));
  table($("cost-models"), [{h: "Model sent", v: r => r.key || "(none)"}, ...COSTS], costRows(["model_name"], "estimated_cost_usd_total", "tokens_total"), r => r.key, "No tokens were counted yet.");
  table($("cost-upstreams"), [{h: "Upstream", v: r => r.key}, {h: "Tries", n: 1, v: r => big(r.n)}, ...COSTS], costRows(["upstream_name"], "estimated_cost_usd_total", "tokens_total", "upstream_requests_total"), r => r.key, "No upstream was asked yet.");
  table($("cost-clients"), [{h: "Client", v: r => r.key}, {h: "Requests", n: 1, v: r => big(r.n)}, ...COSTS, {h: "Budget", n: 1, v: r => { const b = budget.get(r.key); return b ? `${usd(b.spent_usd)} of ${usd(b.usd)} a ${b.per}` : "–"; }}],
    costRows(["client"], "client_cost_usd_total", "client_tokens_total", "client_requests_total"), r => r.key, clients.length ? "No client has asked yet." : "No clients are configured: whoever reaches the port may ask.");
  const hit = total("cache_hits_total", ["route_id"]), miss = total("cache_misses_total", ["route_id"]), shared = total("coalesced_total", ["route_id"]);
  table($("cost-cache"), [{h: "Route", v: r => r}, {h: "Hits", n: 1, v: r => big(hit.get(r) || 0)}, {h: "Misses", n: 1, v: r => big(miss.get(r) || 0)}, {h: "Shared", n: 1, v: r => big(shared.get(r) || 0)}, {h: "Ratio", n: 1, v: r => percent(part(hit.get(r) || 0, (hit.get(r) || 0) + (miss.get(r) || 0)))}],
    [...new Set([...hit.keys(), ...miss.keys(), ...shared.keys()])], r => r, "No answer was looked for in the cache: caching.enabled, or a route’s cache, turns it on.");
}

/* ---- routes ---- */
const nameOf = c => typeof c === "string" ? c : c.name;
/* The share of a canary, to be moved: kept beside the cards, which are drawn anew each time. */
const movers = new Map();
function mover(r) {
  let m = movers.get(r.id);
  if (!m) {
    const n = h("input", {type: "number", min: 0, max: 100, step: "any", ariaLabel: "Percent of " + r.id + " for the canary", value: r.moved_percent ?? ""});
    const path = "routes/" + encodeURIComponent(r.id) + "/canary?percent=";
    m = h("form", {class: "bar", on: {submit: e => { e.preventDefault(); act(path + (+n.value))({target: m.lastChild}); }}}, h("label", {}, "Move to ", n, " %"), h("button", {}, "Move"),
      h("button", {type: "button", on: {click: act(path + "file")}}, "As the file says"), h("span", {class: "note"}));
    movers.set(r.id, m);
  }
  put(m.lastChild, r.moved_percent != null ? tag("warn", `moved to ${num(r.moved_percent, 1)} % by an operator, until the strategy changes in the file`) : "as the file says");
  return m;
}
function routesView() {
  const typing = document.activeElement?.closest("#splits form");
  if (typing) return; /* drawn anew the field would lose the cursor */
  const split = growth("request_duration_seconds", ["route_id", "upstream_name"]), failed = failures();
  put($("splits"), routes.length ? routes.map(r => {
    const list = r.upstreams || [r.upstream], names = list.map(nameOf), count = n => (split.get(r.id + "\u0000" + n) || []).reduce((a, b) => a + b, 0);
    const all = names.reduce((a, n) => a + count(n), 0), wanted = i => { const c = list[i]; if (c.percentage != null) return c.percentage + " %"; if (c.weight != null) return "weight " + c.weight;
      return r.strategy === "canary" && !i ? num(100 - list.reduce((a, x) => a + (x.percentage || 0), 0)) + " %" : "–"; };
    const bar = h("div", {class: "split", role: "img", ariaLabel: names.map(n => n + " " + percent(part(count(n), all))).join(", ")}, all ? names.map(n => { const at = part(count(n), all), e = h("span", {title: n + " " + percent(at)}, at < 0.12 ? "" : n + " " + percent(at)); e.style.width = 100 * count(n) / all + "%"; if (!count(n)) e.hidden = true; return e; }) : []);
    const t = h("table");
    table(t, [{h: "Upstream", v: i => names[i]}, {h: "Configured", n: 1, v: wanted}, {h: "Requests", n: 1, v: i => num(count(names[i]))}, {h: "Share", n: 1, v: i => all ? percent(part(count(names[i]), all)) : "–"}, {h: "Failed attempts", n: 1, v: i => failed(names[i])}, {h: "p50 · p90 · p99", n: 1, v: i => slash(three(split.get(r.id + "\u0000" + names[i])))}], names.map((_, i) => i), i => i, "");
    return h("div", {class: "card"}, h("h3", {}, r.id), h("p", {class: "note"}, `${r.strategy}${r.cached ? ", cached" : ""}${r.match ? ", for " + Object.entries(r.match).map(([k, v]) => k + " " + (typeof v === "string" ? v : JSON.stringify(v))).join(", ") : ", for everything"}`), names.length > 1 ? all ? bar : h("p", {class: "note"}, "No requests in the last minute.") : null, t, r.strategy === "canary" && names.length > 1 ? mover(r) : null);
  }) : h("p", {class: "note"}, "No routes are configured."));
}

/* ---- policies, generations ---- */
async function policies() {
  const [p, g] = await Promise.all([get("policies"), get("generations")]);
  table($("pol-errors"), [{h: "Policy", v: e => e.policy}, {h: "Hook", v: e => e.hook}, {h: "Times", n: 1, v: e => num(e.count)}, {h: "Generation", n: 1, wide: 1, v: e => e.generation}, {h: "Last message", c: "mono", v: e => e.last_message}],
    p.errors.sort((a, b) => b.generation - a.generation || b.count - a.count), e => e.generation + e.policy + "\n" + e.hook, "No policy has failed in a generation that is alive.");
  put($("pol-load"), g.last_error ? [h("p", {}, tag("bad", "refused " + ago(g.last_error.at) + "; the generation before it serves on")), h("pre", {}, g.last_error.report)] : h("p", {}, tag("good", "fine")));
  table($("pol-list"), [{h: "Policy", e: (r, tr) => h("button", {class: "link", type: "button", on: {click: () => policyText(tr.row.name)}}, r.name)}, {h: "File", c: "mono", v: r => r.file}, {h: "From", v: r => r.builtin ? "the binary" : "policies.dir"}, {h: "Bytes", n: 1, v: r => num(r.bytes)}],
    p.policies.sort((a, b) => a.builtin - b.builtin || (a.name < b.name ? -1 : 1)), r => r.file, "There are none.");
}
async function policyText(name) {
  const p = await get("policies/" + encodeURIComponent(name));
  set($("detail-title"), p.file);
  put($("detail-body"), p.masked ? h("p", {class: "note"}, "A secret in it is masked.") : null,
    h("p", {}, h("button", {type: "button", on: {click: async () => { $("detail").close(); show("playground"); await playground(); $("pol-pick").value = name; await pick(); $("pol-text").focus(); }}}, "Try it in the playground")), h("br"), h("pre", {}, p.text));
  $("detail").showModal();
}
const GENERATIONS = {current: ["good", "current"], draining: ["warn", "draining"], rolled_back: ["bad", "taken back"]};
async function generations() {
  const g = await get("generations"), c = g.last_change, b = g.last_rollback;
  table($("gens"), [{h: "Generation", n: 1, v: x => x.id}, {h: "State", e: () => "", u: (x, td) => put(td, tag(...GENERATIONS[x.state]), x.on_probation ? " on probation" : "")}, {h: "Since", v: x => ago(x.since)}, {h: "Reason", v: x => x.reason}, {h: "Requests", n: 1, v: x => big(x.requests)},
    {h: "In flight", n: 1, v: x => num(x.in_flight)}, {h: "Failed by policies", n: 1, v: x => num(x.policy_errors)}, {h: "Hash", wide: 1, c: "mono", v: x => x.hash}], g.generations, x => x.id, "");
  const change = h("table");
  if (c) table(change, [{h: "Where", c: "mono", v: x => x.path}, {h: "What", e: x => h("span", {class: "tag"}, ({added: "+ ", removed: "− ", changed: "≠ "})[x.change] + x.change)}, {h: "Before", c: "mono", v: x => x.before ?? "–"}, {h: "After", c: "mono", v: x => x.after ?? "–"}], c.changes, x => x.path + x.change, "Nothing that the file or a policy says: a certificate, or the same again.");
  put($("gen-change"), c ? [h("p", {class: "note"}, `From generation ${c.from} to ${c.to}, ${ago(c.at)}.${c.changes_left_out ? " " + c.changes_left_out + " more are not listed." : ""}`), change] : h("p", {class: "note"}, "Nothing was published since the start."));
  put($("gen-return"), b ? facts([["When", ago(b.at)], ["From, to", b.from + ", " + b.to], ["Failed", `${num(b.policy_errors)} of ${num(b.requests)} requests`], ["Policy", b.policy + ", " + b.hook], ["Message", h("code", {}, b.message)]]) : h("p", {class: "note"}, "No generation was taken back."));
}
$("reload").addEventListener("click", async () => {
  const r = await get2("reload").catch(x => ({result: x.message, report: ""}));
  put($("gen-said"), tag(r.result === "refused" ? "bad" : "good", r.result), r.report ? h("pre", {}, r.report) : "");
  tick();
});
$("drain").addEventListener("click", async () => {
  if (!confirm("The proxy takes no more requests and ends when those in flight have. Go on?")) return;
  await get2("drain").catch(x => ({}));
  tick();
});

/* ---- playground ---- */
const KINDS = {
  "OpenAI chat": ["/v1/chat/completions", {model: "", messages: [{role: "user", content: "Hello!"}]}],
  "OpenAI responses": ["/v1/responses", {model: "", input: "Hello!"}],
  "Anthropic messages": ["/v1/messages", {model: "", max_tokens: 256, messages: [{role: "user", content: "Hello!"}]}],
  "Gemini": ["/v1beta/models/MODEL:generateContent", {contents: [{role: "user", parts: [{text: "Hello!"}]}]}],
  "Embeddings": ["/v1/embeddings", {model: "", input: "Hello!"}]};
const STARTER = `-- What it does, in a sentence.
local P = { name = "NAME", api = 1 }
function P.request(req, body)
    if not (body and body.messages) then return end
end
return P
`;
let prepared = false, under = null;
async function playground() {
  if (prepared) return;
  prepared = true;
  const [c, p] = await Promise.all([get("clients"), get("policies")]);
  put($("try-client"), [h("option", {value: ""}, "nobody in particular"), c.clients.map(x => h("option", {value: x.name}, x.name))]);
  put($("try-kind"), Object.keys(KINDS).map(k => h("option", {}, k)));
  kind();
  writable = p.writable;
  list(p.policies, p.policies.find(x => !x.builtin)?.name ?? "");
  await pick();
}
let writable = false;
function list(all, chosen) {
  put($("pol-pick"), h("option", {value: ""}, "a new one"), all.filter(x => !x.name.includes(".")).sort((a, b) => a.builtin - b.builtin || (a.name < b.name ? -1 : 1)).map(x => h("option", {value: x.name}, x.name + (x.builtin ? " (the binary’s)" : ""))));
  $("pol-pick").value = chosen;
  $("pol-save").disabled = !writable;
  $("pol-save").title = writable ? "" : "admin.allow_policy_write is false";
}
function kind() {
  const [path, body] = KINDS[$("try-kind").value], model = ups.length && tail.length ? tail[0].model : "mock-gpt";
  $("try-path").value = path.replace("MODEL", model || "mock-gpt");
  $("try-body").value = JSON.stringify("model" in body ? {...body, model: model || "mock-gpt"} : body, null, 2);
  $("try-stream").checked = false;
}
$("try-kind").addEventListener("change", kind);
$("try-stream").addEventListener("change", () => {
  const on = $("try-stream").checked;
  if ($("try-path").value.includes(":")) { $("try-path").value = on ? $("try-path").value.replace(/:generateContent.*/, ":streamGenerateContent?alt=sse") : $("try-path").value.replace(/:streamGenerateContent.*/, ":generateContent"); return; }
  try {
    const b = JSON.parse($("try-body").value);
    if (on) b.stream = true; else delete b.stream;
    $("try-body").value = JSON.stringify(b, null, 2);
  } catch { /* it says so when it is sent */ }
});
function headers() {
  const out = {};
  for (const line of $("try-headers").value.split("\n")) {
    const at = line.indexOf(":");
    if (at > 0) out[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  if ($("try-key").value) out.authorization = "Bearer " + $("try-key").value;
  return out;
}
/* What is asked, as /explain has it; a pasted line of logging.decisions is that already. */
function asked() {
  const body = JSON.parse($("try-body").value);
  if (body.path && body.body && body.method) return body;
  const r = {method: "POST", path: $("try-path").value, headers: headers(), body};
  delete r.headers.authorization;
  if ($("try-client").value) r.client = $("try-client").value;
  return r;
}
async function explain(policy) {
  const r = await ask("explain", {method: "POST", body: JSON.stringify({request: asked(), policy})}), b = await r.json();
  if (b.error) throw new Error(b.error.message);
  return b;
}
const wrong = x => x instanceof SyntaxError ? "The body is no JSON: " + x.message : x.message;
async function why() {
  try {
    const b = await explain();
    set($("try-why"), b.report || b.result);
  } catch (x) { set($("try-why"), wrong(x)); }
}
$("try-explain").addEventListener("click", why);
/* The text in an answer, whole or in events, of any dialect; "" where none is found. */
function words(text) {
  const from = v => {
    if (!v || typeof v !== "object") return "";
    const c = (v.choices || [])[0];
    if (c) return (c.delta || c.message || {}).content || "";
    if (v.type === "content_block_delta") return v.delta.text || "";
    if (v.type === "response.output_text.delta") return v.delta;
    if (v.candidates) return (v.candidates[0]?.content?.parts || []).map(p => p.text || "").join("");
    if (Array.isArray(v.content)) return v.content.map(p => p.text || "").join("");
    if (Array.isArray(v.output)) return v.output.flatMap(o => o.content || []).map(p => p.text || "").join("");
    return v.error ? v.error.message || "" : "";
  };
  try { return from(JSON.parse(text)); } catch { /* events */ }
  let out = "";
  for (const line of text.split("\n")) if (line.startsWith("data:")) try { out += from(JSON.parse(line.slice(5))); } catch { /* [DONE], or not whole yet */ }
  return out;
}
async function send() {
  const start = performance.now(), stop = under = new AbortController();
  let text = "", head = null, first = null;
  const draw = ended => {
    const w = words(text), took = performance.now() - start;
    const parts = head ? [tag(head.status < 400 ? "good" : head.status < 500 ? "warn" : "bad", head.status), " ", ["upstream", "model", "cache"].map(k => [k, head.headers["x-openclaw-" + k]]).filter(x => x[1]).map(x => x.join(" ")).join(", "),
      `, first byte after ${ms(first)}, ${ended || "so far"} ${ms(took)}, ${num(text.length)} characters`] : ["waiting …"];
    put($("try-said"), parts);
    $("try-text").hidden = !w; set($("try-text"), w);
    $("try-raw").hidden = !head; $("try-raw").open = $("try-raw").open || (ended && !w);
    set($("try-bytes"), head ? Object.entries(head.headers).map(([k, v]) => k + ": " + v).join("\n") + "\n\n" + text : "");
  };
  $("try-send").disabled = true; $("try-stop").disabled = false; $("try-raw").open = false;
  draw();
  why();
  try {
    const r = await ask("try", {method: "POST", signal: stop.signal, body: JSON.stringify({path: $("try-path").value, headers: headers(), body: JSON.parse($("try-body").value)})});
    if (!r.ok) throw new Error((await r.json()).error.message);
    const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const {value, done} = await reader.read();
      if (done) break;
      text += value;
      if (!head && text.includes("\n")) { head = JSON.parse(text.slice(0, text.indexOf("\n"))); text = text.slice(text.indexOf("\n") + 1); first = performance.now() - start; }
      if (text.length > 2e6) { stop.abort(); throw new Error("more than 2 MB: not shown"); }
      draw();
    }
    draw("whole after");
  } catch (x) {
    if (head) draw(stop.signal.aborted ? "stopped after" : "cut after");
    else put($("try-said"), tag("bad", stop.signal.aborted ? "stopped" : wrong(x)));
  }
  $("try-send").disabled = false; $("try-stop").disabled = true;
}
$("try").addEventListener("submit", e => { e.preventDefault(); send(); });
$("try-stop").addEventListener("click", () => under?.abort());
$("try").addEventListener("keydown", e => { if (e.ctrlKey && e.key === "Enter" && !$("try-send").disabled) { e.preventDefault(); send(); } });
async function pick() {
  const name = $("pol-pick").value, p = name ? await get("policies/" + encodeURIComponent(name)) : {text: STARTER, masked: false};
  $("pol-text").value = p.text;
  $("pol-name").value = name || "new_policy";
  $("pol-save").disabled = !writable || p.masked;
  if (p.masked) put($("pol-said"), tag("warn", "A secret in it is masked: it cannot be saved from here.")); else put($("pol-said"), writable ? "" : "Saving is off: admin.allow_policy_write is false.");
}
$("pol-pick").addEventListener("change", () => pick().catch(x => put($("pol-said"), tag("bad", x.message))));
function draft() { return {name: $("pol-name").value, text: $("pol-text").value.replace('name = "NAME"', `name = "${$("pol-name").value}"`)}; }
function report(kind, word, text) { put($("pol-said"), tag(kind, word)); $("pol-report").hidden = !text; set($("pol-report"), text); }
$("pol-run").addEventListener("click", async () => {
  try {
    const b = await explain(draft());
    report(b.result === "decided" ? "good" : "bad", b.result + ", " + ms(b.took_ms), b.report);
  } catch (x) { report("bad", wrong(x), ""); }
});
$("pol-save").addEventListener("click", async () => {
  try {
    const d = draft(), r = await ask("policies/" + encodeURIComponent(d.name), {method: "PUT", body: d.text}), b = await r.json();
    if (b.error) throw new Error(b.error.message);
    report(b.saved && b.result !== "refused" ? "good" : "bad", b.saved ? "saved, " + b.result : "not saved: " + b.result, b.report);
    if (b.saved) list((await get("policies")).policies, d.name);
  } catch (x) { report("bad", x.message, ""); }
});

/* ---- the frame ---- */
const DRAW = {overview, requests, upstreams, costs, routes: routesView, policies, generations, playground};
let shared = false, view = "", paused = false, busy = false, again = false, timer = 0, turn = 0;
function state(kind, text) { const e = $("state"); if (e.dataset.said !== kind + text) { e.dataset.said = kind + text; put(e, tag(kind, text)); } }
async function tick() {
  if (busy) { again = true; return; }
  busy = true;
  clearTimeout(timer);
  try {
    const live = await get("live");
    if (samples.length && live.cpu_seconds < samples[samples.length - 1].cpu_seconds) samples.length = 0; /* another process */
    samples.push(live);
    if (samples.length > SAMPLES) samples.shift();
    if (turn++ % 5 === 0 || view === "routes") routes = (await get("routes")).routes;
    if (turn % 2 || view === "upstreams") ({upstreams: ups, shared} = await get("upstreams"));
    set($("facts"), `version ${live.version} · generation ${live.generation}` + (!shared ? "" : shared.up ? ` · ${plural(shared.instances, "instance")} with one Redis` : " · ✕ the shared Redis is away"));
    await DRAW[view]();
    if (live.draining) state("warn", "draining"); else state("good", paused ? "paused" : "live");
  } catch (x) {
    state("bad", x instanceof TypeError ? "cannot be reached" : x.message);
  }
  busy = false;
  if (again) { again = false; tick(); return; }
  if (!paused && !document.hidden && !$("login").open) timer = setTimeout(tick, EVERY);
}
function show(name, focus) {
  if (!DRAW[name]) name = "overview";
  view = name;
  for (const [v] of VIEWS) {
    const on = v === name, b = $("tab-" + v);
    $(v).hidden = !on;
    b.setAttribute("aria-selected", on);
    b.tabIndex = on ? 0 : -1;
    if (on && focus) b.focus();
  }
  if (location.hash.slice(1) !== name) history_(name);
  tick();
}
function history_(name) { window.history.replaceState(null, "", "#" + name); }
const nav = document.querySelector("nav");
VIEWS.forEach(([v, name], i) => {
  nav.append(h("button", {id: "tab-" + v, type: "button", role: "tab", "aria-controls": v, on: {click: () => show(v)}}, h("kbd", {ariaHidden: "true"}, i + 1), name));
  $(v).setAttribute("aria-labelledby", "tab-" + v);
});
nav.addEventListener("keydown", e => {
  const at = VIEWS.findIndex(([v]) => v === view), to = {ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: VIEWS.length - 1}[e.key];
  if (to != null) { e.preventDefault(); show(VIEWS[(to + VIEWS.length) % VIEWS.length][0], true); }
});
document.addEventListener("keydown", e => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, select, textarea, dialog")) return;
  if (VIEWS[e.key - 1]) show(VIEWS[e.key - 1][0], true);
  if (e.key === "p") $("pause").click();
});
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  set($("pause"), paused ? "Go on" : "Pause");
  if (paused) { clearTimeout(timer); state("warn", "paused"); } else tick();
});
const THEMES = ["system", "light", "dark"];
function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  set($("theme"), "Theme: " + name);
  localStorage.setItem("openclaw-theme", name);
}
$("theme").addEventListener("click", () => theme(THEMES[(THEMES.indexOf(localStorage.getItem("openclaw-theme") || "system") + 1) % 3]));
theme(THEMES.includes(localStorage.getItem("openclaw-theme")) ? localStorage.getItem("openclaw-theme") : "system");
document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) tick(); });
window.addEventListener("hashchange", () => show(location.hash.slice(1)));
show(location.hash.slice(1) || "overview");
})();
