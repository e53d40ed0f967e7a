// The page: it reads the API beside it (relative paths, so that it works below any path) and draws. The token, where
// there is one, is kept in this tab.
const $ = (id) => document.getElementById(id);
const store = (key) => { try { return sessionStorage.getItem(key); } catch { return null; } };
const keep = (key, value) => { try { sessionStorage.setItem(key, value); } catch { /* private mode: until reload */ } };
let token = store("token"), now = null, past = null, stream = null, limitNames = "", openDialog = null;

// An element with properties and children; strings are text, never markup.
function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") { if (value) node.className = value; }
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const svg = (name, attributes, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (value) => (value < 100000 ? whole.format(value) : compact.format(value));
const rate = (value) => (value === 0 ? "0" : value < 9.95 ? value.toFixed(1) : count(Math.round(value)));
const ms = (value) => (value === null ? "–" : value < 0.95 ? value.toFixed(2) : value < 9.95 ? value.toFixed(1) : count(Math.round(value)));
const span = (s) => (s < 90 ? `${s} s` : s < 5400 ? `${Math.round(s / 60)} min` : s < 129600 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`);
const ago = (time) => span(Math.max(0, Math.round((Date.now() - Date.parse(time)) / 1000)));

// ---- The API ----
class Refused extends Error { constructor(status, detail) { super(detail); this.status = status; } }
async function api(path, method = "GET", body = undefined) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (method !== "GET") headers["content-type"] = "application/json";
  const answer = await fetch(`api/v1/${path}`, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, problem.detail || `status ${answer.status}`);
  }
  return method === "STREAM" ? answer : answer.json();
}
async function follow() {
  stream?.abort();
  const mine = (stream = new AbortController());
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch("api/v1/stream", { headers, cache: "no-store", signal: mine.signal });
  if (!answer.ok) throw new Refused(answer.status, (await answer.json().catch(() => ({}))).detail);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the stream ended");
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      if (text.startsWith("data: ")) show(JSON.parse(text.slice(6, end)));
    }
  }
}
// Reads the stream for ever; asks for the token when there is none that is believed.
async function run() {
  for (; ;) {
    try { await follow(); }
    catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === 401) return login(token ? "This token is not believed." : "");
      state("error", error.status ? error.message : "no answer");
      document.body.classList.add("stale");
      await new Promise((wake) => setTimeout(wake, 1000));
    }
  }
}
function login(message) {
  $("login").hidden = false; $("main").hidden = true;
  $("login-error").textContent = message;
  state("wait", "token needed");
  $("token").focus();
}
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  keep("token", token);
  $("token").value = "";
  begin();
});
function begin() { run(); slow(); $("yaml").textContent = ""; }

// ---- Telling and asking ----
let silence;
function tell(text) { $("toast").textContent = text; clearTimeout(silence); silence = setTimeout(() => { $("toast").textContent = ""; }, 6000); }
function confirm(text, deed) {
  $("ask-text").textContent = text; $("ask-yes").textContent = deed;
  $("ask").returnValue = ""; $("ask").showModal();
  openDialog?.(false);
  return new Promise((done) => { openDialog = done; });
}
$("ask").addEventListener("close", () => { openDialog?.($("ask").returnValue === "yes"); openDialog = null; });
async function act(work, told) {
  try { const answer = await work(); tell(typeof told === "function" ? told(answer) : told); return answer; }
  catch (error) { tell(error.message); return null; }
}
function state(kind, text) { $("state").dataset.state = kind; $("state").textContent = text; }

// ---- Tables: rows are kept by key, so that focus and selection survive an update ----
function rows(table, list, keyOf, cells) {
  const body = $(table).tBodies[0];
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  list.forEach((item, position) => {
    const key = keyOf(item);
    let row = known.get(key);
    if (!row) { row = el("tr", { "data-key": key }); }
    known.delete(key);
    if (body.rows[position] !== row) body.insertBefore(row, body.rows[position] || null);
    cells(item).forEach((cell, index) => {
      const text = cell.sign ?? cell.outerHTML;
      const old = row.cells[index];
      if (old && old.dataset.sign === text) return;
      cell.dataset.sign = text;
      if (old) old.replaceWith(cell); else row.append(cell);
    });
  });
  known.forEach((row) => row.remove());
}
const td = (content, kind = "") => el("td", { class: kind }, content);
const num = (value, kind = "") => td(rate(value), `n ${value === 0 ? "zero" : kind}`);
// A button whose cell is replaced only when its label changes.
const button = (label, name, onclick) => { const cell = td(el("button", { type: "button", "aria-label": name, onclick }, label)); cell.sign = name; return cell; };

// A key of several parts is told part by part: `4:ab=c5:de=fg` is ab=c and de=fg.
function keyText(key) {
  const parts = [];
  for (let rest = key; rest;) {
    const head = /^(\d+):/.exec(rest);
    if (!head || rest.length < head[0].length + Number(head[1])) return el("span", { class: "mono" }, key);
    parts.push(rest.slice(head[0].length, head[0].length + Number(head[1])));
    rest = rest.slice(head[0].length + Number(head[1]));
  }
  return el("span", { class: "mono", title: key }, ...parts.map((part) => el("span", { class: "part" }, part)));
}

// ---- Charts ----
function chart(where, label, series, seconds, steps) {
  const [width, height, left] = [Math.max(200, $(where).clientWidth), 132, 34];
  const top = Math.max(1, ...series.flatMap((one) => one.values)) ;
  const power = 10 ** Math.floor(Math.log10(top));
  const most = [1, 2, 4, 6, 8, 10].map((factor) => factor * power).find((bound) => bound >= top);
  const x = (position, length) => left + (width - left) * (1 - (length - 1 - position) / (steps - 1));
  const y = (value) => 8 + (height - 26) * (1 - value / most);
  const parts = [0, 0.5, 1].map((share) => svg("g", {},
    svg("line", { class: "grid", x1: left, x2: width, y1: y(most * share), y2: y(most * share) }),
    svg("text", { class: "axis", x: left - 6, y: y(most * share) + 4, "text-anchor": "end" }, rate(most * share))));
  for (const [minutes, anchor] of [[15, "start"], [10, "middle"], [5, "middle"], [0, "end"]]) {
    const at = left + (width - left) * (1 - (minutes * 60) / (seconds * steps));
    parts.push(svg("text", { class: "axis", x: at, y: height - 2, "text-anchor": anchor }, minutes ? `−${minutes} min` : "now"));
  }
  for (const { values, kind, area } of series) {
    if (!values.length) continue;
    const line = values.map((value, position) => `${x(position, values.length).toFixed(1)},${y(value).toFixed(1)}`);
    if (area) parts.push(svg("polygon", { class: `area-${kind}`, points: `${x(0, values.length).toFixed(1)},${y(0)} ${line.join(" ")} ${width},${y(0)}` }));
    parts.push(svg("polyline", { class: `line-${kind}`, points: line.join(" ") }));
  }
  $(where).replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...parts));
}
function drawPast() {
  if (!past) return;
  const per = (list) => list.slice(0, -1).map((value) => value / past.step_seconds);
  const [requests, limited, shadow, errors] = [past.requests, past.limited, past.shadow_denied, past.errors].map(per);
  const last = (list) => rate(list.at(-1) || 0);
  chart("chart-requests", `Requests per second, now ${last(requests)}; errors ${last(errors)}`,
    [{ values: requests, kind: "a", area: true }, { values: errors, kind: "e" }], past.step_seconds, past.steps);
  chart("chart-limited", `Limited requests per second, now ${last(limited)}; denied by shadow limits ${last(shadow)}`,
    [{ values: limited, kind: "h", area: true }, { values: shadow, kind: "s" }], past.step_seconds, past.steps);
  const legend = (...parts) => parts.map(([kind, text]) => el("span", { class: `key-${kind}` }, text));
  $("requests-now").replaceChildren(...legend(["a", "all"], ["e", "errors"]));
  $("limited-now").replaceChildren(...legend(["h", "denied"], ["s", "shadow"]));
}

// ---- What the stream tells ----
function show(overview) {
  now = overview;
  document.body.classList.remove("stale");
  $("login").hidden = true; $("main").hidden = false;
  const worst = overview.problems.map((problem) => problem.severity).find((severity) => severity !== "notice");
  state(worst || "ok", worst === "error" ? "needs attention" : worst === "warning" ? "degraded" : "all well");
  document.title = `${worst === "error" ? "✖ " : ""}Tollgate · ${rate(overview.traffic.requests_per_second)} req/s`;
  $("facts").textContent = `${overview.version} · up ${span(overview.uptime_seconds)} · ${overview.workers} workers`;
  $("foot").textContent = `Rates and percentiles are of the last ${Math.round(overview.window_seconds)} s; percentiles are interpolated. Read at ${overview.time.slice(11, 19)} UTC.`;
  reloaded(overview.reload); problems(overview); figures(overview.traffic); limits(overview); flow(overview); servers(overview); storeFacts(overview.store);
}
function problems({ problems: list }) {
  const items = list.length ? list : [{ severity: "ok", message: "Nothing is wrong: the store answers, servers are well, certificates last." }];
  const sign = JSON.stringify(items);
  if ($("problem-list").dataset.sign === sign) return;
  $("problem-list").dataset.sign = sign;
  $("problem-list").replaceChildren(...items.map((item) => el("li", { class: `p-${item.severity}`, "data-kind": item.kind },
    item.severity === "ok" ? null : el("b", {}, item.severity), el("span", {}, item.message))));
}
function figures(traffic) {
  const share = traffic.requests_per_second ? (100 * traffic.limited_per_second) / traffic.requests_per_second : 0;
  const all = [
    ["Requests", rate(traffic.requests_per_second), "/s", ""],
    ["Limited", rate(traffic.limited_per_second), `/s · ${rate(share)} %`, traffic.limited_per_second ? "hot" : ""],
    ["Shadow", rate(traffic.shadow_per_second), "/s", ""],
    ["Errors", rate(traffic.errors_per_second), "/s", traffic.errors_per_second ? "red" : ""],
    ["Added p50 / p99", `${ms(traffic.added_ms.p50)} / ${ms(traffic.added_ms.p99)}`, "ms", ""],
    ["Total p50 / p99", `${ms(traffic.total_ms.p50)} / ${ms(traffic.total_ms.p99)}`, "ms", ""],
  ];
  const boxes = $("figures").children;
  all.forEach(([name, value, unit, kind], position) => {
    const box = boxes[position] || $("figures").appendChild(el("div", { class: "figure" }, el("span"), el("strong"), el("em")));
    box.className = `figure ${kind}`;
    [name, value, unit].forEach((text, part) => { if (box.children[part].textContent !== text) box.children[part].textContent = text; });
  });
}
function shareBar(limit) {
  const all = limit.decisions_per_second || 1;
  const [denied, shadow] = [limit.denied_per_second, limit.shadow_per_second].map((value) => Math.min(100, (100 * value) / all));
  const name = `${Math.round(denied)} % denied, ${Math.round(shadow)} % would be`;
  return svg("svg", { class: "share", viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": name },
    svg("rect", { width: 100, height: 6 }), svg("rect", { class: "d", width: denied.toFixed(1), height: 6 }),
    svg("rect", { class: "s", x: denied.toFixed(1), width: shadow.toFixed(1), height: 6 }));
}
function limits({ limits: list }) {
  rows("limits-table", list, (limit) => limit.name, (limit) => {
    const other = limit.mode === "enforce" ? "shadow" : "enforce";
    const mode = td(el("span", { class: `tag ${limit.mode}` }, limit.mode + (limit.switched ? " (switched)" : "")));
    const top = limit.top_key;
    return [
      td(limit.name), mode, num(limit.decisions_per_second), num(limit.denied_per_second, "hotcell"), num(limit.shadow_per_second), td(shareBar(limit)),
      td(top ? el("span", {}, keyText(top.key), " ", el("span", { class: "quiet" }, `×${count(top.denied)}`)) : "–", top ? "" : "zero"),
      button(other === "shadow" ? "Only watch" : "Enforce", `${other === "shadow" ? "Only watch" : "Enforce"}: ${limit.name}`, () => switchMode(limit.name, other)),
    ];
  });
  const names = list.map((limit) => limit.name).join("\n");
  if (names !== limitNames) {
    limitNames = names;
    const chosen = $("keys-limit").value;
    $("keys-limit").replaceChildren(...list.map((limit) => el("option", {}, limit.name)));
    const busiest = [...list].sort((a, b) => b.denied - a.denied)[0];
    $("keys-limit").value = list.some((limit) => limit.name === chosen) ? chosen : busiest?.name ?? "";
    topKeys();
  }
}
function flow({ routes, upstreams }) {
  const inFlight = new Map(upstreams.map((upstream) => [upstream.name, upstream.servers.reduce((sum, server) => sum + server.in_flight, 0)]));
  rows("flow-table", routes, (route) => route.name, (route) => {
    const chain = route.limits.length ? el("span", { class: "chain" }, ...route.limits.map((name) => el("span", {}, name))) : "none";
    return [
      td(route.name || "no route", route.name ? "" : "zero"), td(chain, route.limits.length ? "" : "zero"), td(route.upstream ?? "answers itself", route.upstream ? "" : "zero"),
      num(route.requests_per_second), num(route.limited_per_second, "hotcell"), num(route.shadow_per_second), num(route.errors_per_second, "redcell"),
      td(ms(route.total_ms.p50), "n"), td(ms(route.total_ms.p99), "n"), td(route.upstream ? count(inFlight.get(route.upstream) ?? 0) : "–", "n"),
    ];
  });
}
function servers({ upstreams }) {
  const all = upstreams.flatMap((upstream) => upstream.servers.map((server) => ({ ...server, upstream: upstream.name })));
  rows("servers-table", all, (server) => `${server.upstream}\n${server.name}`, (server) => {
    const check = server.last_check;
    const deed = server.draining ? "Use again" : "Drain";
    return [
      td(server.upstream), td(server.name, "mono"), td(el("span", { class: `tag ${server.state}` }, server.state)),
      num(server.requests_per_second), num(server.errors_per_second, "redcell"), td(count(server.in_flight), `n ${server.in_flight ? "" : "zero"}`),
      td(check ? `${check.error ?? "well"}, ${ago(check.time)} ago` : "no checks", check ? (check.error ? "redcell" : "") : "zero"),
      button(deed, `${deed}: ${server.name} of ${server.upstream}`, () => drain(server)),
    ];
  });
}
function storeFacts(it) {
  $("store-place").textContent = `${it.kind}, ${it.place}`;
  const list = [
    ["State", it.up ? "answers" : `away for ${it.workers_away} workers`],
    ["Round trip p50 / p99", `${ms(it.round_trip_ms.p50)} / ${ms(it.round_trip_ms.p99)} ms`],
    ["Calls", `${rate(it.calls_per_second)} /s`], ["Errors", `${rate(it.errors_per_second)} /s, ${count(it.errors)} in all`], ["Timeouts", count(it.timeouts)],
    ["Breaker", it.up ? "closed" : "open"], ["Decided without it", `${rate(it.decided_without_per_second)} /s`], ["States in this process", count(it.states_here)], ["Proxies", count(it.proxies)],
  ];
  const box = $("store-facts");
  if (!box.children.length) list.forEach(([name]) => box.append(el("dt", {}, name), el("dd")));
  list.forEach(([, value], position) => { const dd = box.children[2 * position + 1]; if (dd.textContent !== value) dd.textContent = value; dd.className = position === 0 && !it.up ? "bad" : ""; });
}

// ---- What is asked for now and then ----
async function slow() {
  try { past = await api("history"); drawPast(); await topKeys(); } catch { /* the stream tells of it */ }
}
async function topKeys() {
  const limit = $("keys-limit").value;
  if (!limit) return;
  const { keys, since_seconds: since } = await api(`limits/${encodeURIComponent(limit)}/keys?count=12`);
  if ($("keys-limit").value !== limit) return;
  $("keys-since").textContent = `of the last ${span(since)}, estimated`;
  rows("keys-table", keys, (key) => `${limit}\n${key.key}`, (key) => {
    const look = el("button", { type: "button", "aria-label": `Look at ${key.key}`, onclick: () => lookAt(limit, key.key) }, "Look");
    const reset = el("button", { type: "button", "aria-label": `Reset ${key.key}`, onclick: () => resetKey(limit, key.key) }, "Reset");
    return [td(keyText(key.key)), td(count(key.requests), "n"), td(count(key.denied), `n ${key.denied ? "hotcell" : "zero"}`), Object.assign(td(el("span", {}, look, " ", reset)), { sign: key.key })];
  });
  if (!keys.length) rows("keys-table", [0], () => "none", () => [el("td", { colspan: 4, class: "zero" }, "No request met this limit lately.")]);
}
async function lookAt(limit, key) {
  const answer = await act(() => api(`limits/${encodeURIComponent(limit)}/keys/${encodeURIComponent(key)}`), "");
  if (!answer) return;
  $("key-state").replaceChildren(el("p", {}, keyText(answer.key), ` under ${answer.limit}:`), ...answer.states.map((one) =>
    el("p", {}, `${one.rate ?? one.state}: ${count(one.remaining)} of ${count(one.burst)} left`, one.reset_ms ? `, full again in ${span(Math.ceil(one.reset_ms / 1000))}` : ", nothing used")));
}
async function resetKey(limit, key) {
  if (!(await confirm(`Forget what ${key} has used of ${limit}? It has its full burst at once.`, "Reset"))) return;
  await act(() => api(`limits/${encodeURIComponent(limit)}/keys/${encodeURIComponent(key)}`, "DELETE"), `Reset: ${key}`);
}
async function switchMode(limit, mode) {
  const text = mode === "shadow" ? `Let ${limit} only watch? It denies nothing until it is switched back or the process ends.` : `Let ${limit} deny again?`;
  if (!(await confirm(text, mode === "shadow" ? "Only watch" : "Enforce"))) return;
  await act(() => api(`limits/${encodeURIComponent(limit)}/mode`, "PUT", { mode }), (answer) => `${limit}: ${answer.mode}. ${answer.note}`);
}
async function drain(server) {
  const path = `servers/${encodeURIComponent(server.upstream)}/${encodeURIComponent(server.name)}/drain`;
  if (server.draining) return void (await act(() => api(path, "DELETE"), `${server.name} takes requests again.`));
  if (!(await confirm(`Send no new requests to ${server.name}? Those that it has are answered.`, "Drain"))) return;
  await act(() => api(path, "POST"), (answer) => `${server.name} is draining, ${answer.in_flight} in flight.`);
}
$("keys-limit").addEventListener("change", () => topKeys().catch((error) => tell(error.message)));
$("key-form").addEventListener("submit", (event) => { event.preventDefault(); lookAt($("keys-limit").value, $("key-text").value.trim()); });
$("config").querySelector("details").addEventListener("toggle", async (event) => {
  if (!event.target.open) return;
  const answer = await act(() => api("config"), "");
  if (answer) $("yaml").textContent = answer.yaml;
});
// What the last reload came to, with the places in the file where it was refused.
function reloaded(last) {
  if (!last || $("reload").dataset.time === last.time) return;
  $("reload").dataset.time = last.time;
  const at = ` (${last.time.slice(0, 19).replace("T", " ")} UTC)`;
  $("reload").replaceChildren(el("p", { class: last.ok ? "quiet" : "bad" }, last.message, at), ...(last.report ? [el("pre", { tabindex: 0, "aria-label": "Why the reload was refused" }, last.report)] : []));
  if (last.ok && $("config").querySelector("details").open) api("config").then((answer) => { $("yaml").textContent = answer.yaml; }, () => { });
}
$("explain-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const headers = $("ex-headers").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const question = { method: $("ex-method").value, url: $("ex-url").value, ip: $("ex-ip").value.trim(), headers, live: true };
  const answer = await act(() => api("explain", "POST", question), "");
  if (answer) $("explained").replaceChildren(account(answer));
});
function account(it) {
  const line = (name, ...content) => el("p", {}, el("b", {}, name), el("span", {}, ...content));
  const lines = [line("Request", el("span", { class: "mono" }, `${it.method} ${it.host}${it.path}`), ` from ${it.client}`)];
  if (it.route) lines.push(line("Route", `${it.route.name} (${it.route.conditions})`));
  if (it.route?.upstream) lines.push(line("Upstream", `${it.route.upstream}: ${it.route.servers.join(", ")}`));
  for (const limit of it.limits) {
    const left = (limit.now ?? []).map((one) => `${count(one.remaining)} of ${count(one.burst)} left`).join(", ");
    lines.push(line("Limit", el("strong", {}, limit.name), ` ${limit.meaning}; `, limit.effect, limit.key ? " under " : "", limit.key ? keyText(limit.key) : "",
      limit.cost === undefined ? "" : ` at cost ${limit.cost}`, limit.because ? `; ${limit.because}` : "", left ? `. Now ${left}.` : "."));
  }
  for (const other of it.others.slice(0, 8)) lines.push(line("Not", `${other.name}: ${other.reason}`));
  if (it.refused) lines.push(line("Answer", el("span", { class: "bad" }, `${it.refused.status}: ${it.refused.reason}`)));
  return el("div", { class: "account" }, ...lines);
}

// ---- Theme ----
const themes = ["system", "light", "dark"];
function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  $("theme").textContent = `Theme: ${name}`;
  keep("theme", name);
}
$("theme").addEventListener("click", () => theme(themes[(themes.indexOf(store("theme") ?? "system") + 1) % 3]));
theme(themes.includes(store("theme")) ? store("theme") : "system");

addEventListener("resize", drawPast);
setInterval(() => { if (!document.hidden && now) slow(); }, 5000);
begin();
